//! MCP servers, and runs that use their tools. `mcp/server.py` is a scripted server.

mod hostile;
mod serve;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::replay::{edit, finish, replays_without_a_difference};
use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Returns the path of the scripted server.
fn script() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/mcp/server.py")
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

impl World {
    /// Returns the path of the file where the scripted server logs its starts and calls. The
    /// sandbox allows the server to write to this file.
    fn server_log(&self) -> PathBuf {
        self.home().join("servers/log")
    }

    /// Returns the configuration entry for a scripted MCP server.
    fn entry(&self, behavior: &str) -> Value {
        let (script, log) = (script(), self.server_log());
        let folder = log.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        json!({
            "command": "python3", "args": [script, behavior, log], "startSeconds": 60,
            "allowRead": [script], "allowWrite": [folder],
        })
    }

    /// Writes the user's `mcp.json` with these servers.
    fn write_servers(&self, servers: Value) {
        let folder = self.home().join(".config/agent");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("mcp.json"), json!({"mcpServers": servers}).to_string()).unwrap();
    }

    fn noted(&self) -> Vec<String> {
        let text = fs::read_to_string(self.server_log()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs a task with tools from MCP servers and a model that gives these answers.
    fn run_with(&self, patterns: &str, more: &[&str], answers: &[String]) -> (Output, Server) {
        let server = Server::start();
        for answer in answers {
            server.enqueue(Reply::text(answer));
        }
        let mut args = vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
        args.extend(["--mcp-tools", patterns]);
        args.extend(more);
        args.push("Make the tests pass.");
        let output = self.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
        (output, server)
    }
}

fn fix() -> String {
    edit("$1 - $2", "$1 + $2")
}

/// Checks that a run succeeded, and returns its standard error.
fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    errors
}

/// Returns the system prompt of the first request.
fn prompt(server: &Server) -> String {
    server.chats()[0].json["messages"][0]["content"].as_str().unwrap().to_owned()
}

/// Returns the run's warnings.
fn warnings(world: &World) -> Vec<String> {
    let warnings = world.journal().into_iter().filter(|record| record["event"] == "warning");
    warnings.map(|record| record["message"].as_str().unwrap().to_owned()).collect()
}

/// Returns the status and the text of each call's result.
fn results(world: &World) -> Vec<(String, String)> {
    let text = |record: &Value, key: &str| record[key].as_str().unwrap().to_owned();
    let finished = |record: &&Value| record["event"] == "tool_finished";
    world.journal().iter().filter(finished).map(|r| (text(r, "status"), text(r, "text"))).collect()
}

#[test]
fn a_run_calls_tools_of_a_server_in_the_sandbox_and_replays_without_it() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("good")}));
    let outside = world.home().join("outside.txt");
    let answers = [
        call("s__echo", json!({"text": "hello\nworld"})),
        call("s__image", json!({})),
        call("s__fails", json!({})),
        call("s__write", json!({"path": "new.txt", "text": "x\n"})),
        call("s__write", json!({"path": ".git/hooks/pre-commit", "text": "x"})),
        call("s__write", json!({"path": outside, "text": "x"})),
        call("s__long", json!({})),
        call("s__echo", json!({"txt": "a"})),
        call("s__echo", json!({"text": "a"})),
        fix(),
        finish(),
    ];
    let (output, server) = world.run_with("s__*", &[], &answers);
    succeeded(&output);
    assert!(prompt(&server).contains("s__echo: Repeat a text. {"), "{}", prompt(&server));
    let results = results(&world);
    let wanted = [
        ("ok", "hello\nworld"),
        ("ok", "[an image is left out: image/png, 3 KiB]\na picture"),
        ("failed", "nothing there"),
        ("ok", "written"),
    ];
    for ((status, text), (found, shown)) in wanted.iter().zip(&results) {
        assert_eq!((*status, *text), (found.as_str(), shown.as_str()));
    }
    assert_eq!(results[4].0, "failed", "{results:?}");
    assert!(!outside.exists() && !world.repo().join(".git/hooks/pre-commit").exists());
    assert!(results[6].1.contains("lines left out") && results[6].1.len() < 10_000, "{}", results[6].1);
    assert_eq!(world.read("new.txt"), "x\n", "a change by a server is a change of the run");
    assert!(String::from_utf8_lossy(&output.stdout).contains("new.txt"));
    let refused = world
        .journal()
        .iter()
        .any(|r| r["event"] == "refused" && r["message"].as_str().unwrap().contains("txt"));
    assert!(refused, "arguments are checked against the server's schema");
    assert_eq!(world.noted().len(), 9, "one start and eight calls: {:?}", world.noted());
    fs::remove_dir_all(world.home().join(".config")).unwrap();
    replays_without_a_difference(&world);
    assert_eq!(world.noted().len(), 9, "a replay starts no server");
}

#[test]
fn without_a_pattern_no_server_starts_and_the_prompt_is_the_same() {
    let world = World::with_a_bug();
    let answers = || [fix(), finish()];
    let plain = || {
        let server = Server::start();
        answers().into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
        let args = ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."];
        succeeded(&world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap());
        world.git(&["checkout", "--quiet", "."]);
        prompt(&server)
    };
    let before = plain();
    world.write_servers(json!({"s": world.entry("good")}));
    assert_eq!(plain(), before);
    let (output, server) = world.run_with("other__*", &[], &answers());
    let errors = succeeded(&output);
    assert!(errors.contains("no MCP tool matches other__*"), "{errors}");
    assert_eq!(prompt(&server), before);
    assert_eq!(world.noted(), [""; 0]);
}

#[test]
fn only_matching_tools_are_in_the_prompt() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("good")}));
    let (output, server) = world.run_with("s__e*,s__im?ge", &[], &[fix(), finish()]);
    succeeded(&output);
    let prompt = prompt(&server);
    let listed: Vec<_> =
        prompt.lines().filter_map(|line| line.split_once(':')?.0.strip_prefix("s__")).collect();
    assert_eq!(listed, ["echo", "image"]);
    assert!(prompt.find("s__image:").unwrap() < prompt.find("\nfinish:").unwrap(), "{prompt}");
}

#[test]
fn servers_of_a_repository_start_only_after_the_user_approved_the_exact_content() {
    let world = World::with_a_bug();
    // A repository cannot grant permissions, so the server writes its log inside the repository.
    world.write("server.py", &fs::read_to_string(script()).unwrap());
    let file = json!({"mcpServers": {"s": {"command": "python3", "args": ["server.py", "good", "log.txt"]}}});
    world.write(".mcp.json", &file.to_string());
    let run = || {
        let (output, server) = world.run_with("s__*", &[], &[fix(), finish()]);
        let errors = succeeded(&output);
        world.git(&["checkout", "--quiet", "add.sh"]);
        (errors, prompt(&server).contains("s__echo"))
    };
    let (errors, offered) = run();
    assert!(errors.contains("the MCP servers in .mcp.json are not used (s): read the file, then approve it with `agent mcp approve`"), "{errors}");
    assert!(!offered && !world.repo().join("log.txt").exists());
    let seen = world.observe(&["mcp", "list"]);
    assert!(seen.contains(".mcp.json, not approved"), "{seen}");
    let seen = world.observe(&["mcp", "test", "s"]);
    assert!(!seen.starts_with("exit 0") && seen.contains("agent mcp approve"), "{seen}");

    let seen = world.observe(&["mcp", "approve"]);
    assert!(seen.contains("s                runs python3 server.py good log.txt\n"), "{seen}");
    assert!(seen.contains("approved; any change to the file needs a new approval"), "{seen}");
    let (errors, offered) = run();
    assert!(offered && !errors.contains("approve"), "{errors}");
    assert!(world.read("log.txt").starts_with("start "));

    world.write(".mcp.json", &format!("{file} "));
    let (errors, offered) = run();
    assert!(!offered && errors.contains("agent mcp approve"), "{errors}");
}

#[test]
fn the_secrets_of_a_server_are_masked_and_it_gets_no_others() {
    let world = World::with_a_bug();
    let mut entry = world.entry("good");
    entry["env"] = json!({"SERVICE_TOKEN": "${MY_SERVICE}"});
    world.write_servers(json!({"s": entry}));
    let token = "tk-93fbA7cQ0zL";
    let server = Server::start();
    for answer in [call("s__secret", json!({})), fix(), finish()] {
        server.enqueue(Reply::text(answer));
    }
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--mcp-tools", "s", "--json", "Go."];
    let output =
        world.agent(&args).env("OLLAMA_HOST", server.url()).env("MY_SERVICE", token).output().unwrap();
    succeeded(&output);
    assert!(results(&world)[0].1.starts_with("the key is [secret-"), "{:?}", results(&world));
    let sent: String = server.chats().iter().map(|chat| chat.json.to_string()).collect();
    assert!(!sent.contains(token) && !String::from_utf8_lossy(&output.stdout).contains(token));
    // A server does not see the user's variables unless its entry lists them.
    world.write_servers(json!({"s": world.entry("good")}));
    let seen = world.agent(&["mcp", "test", "s", "secret"]).env("SERVICE_TOKEN", token).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "the key is unset\n");
}

#[test]
fn a_resumed_session_keeps_its_tools_and_starts_the_server_again() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("good")}));
    let first = call("s__echo", json!({"text": "one"}));
    let (output, _) = world.run_with("s__echo", &["--max-turns", "1"], &[first]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    let resume = |entry: Value| {
        let fork = ["resume", &id, "--fork", "--max-turns", "9"];
        world.write_servers(json!({"s": entry}));
        let server = Server::start();
        for answer in [call("s__echo", json!({"text": "two"})), fix(), finish()] {
            server.enqueue(Reply::text(answer));
        }
        let output = world.agent(&fork).env("OLLAMA_HOST", server.url()).output().unwrap();
        succeeded(&output);
        world.git(&["checkout", "--quiet", "."]);
        let chats = server.chats();
        assert!(prompt(&server).contains("s__echo: Repeat a text"));
        chats.iter().map(|chat| chat.json.to_string()).collect::<String>()
    };
    let log = world.server_log();
    assert!(resume(world.entry("good")).contains("two"));
    fs::write(&log, "start 1\n").unwrap(); // makes the server think it has been started before
    let changed = resume(world.entry("changes-at-restart"));
    assert!(changed.contains("the server changed the tool s__echo after the session began"), "{changed}");
    let gone = resume(json!({"command": "no-such-program"}));
    assert!(gone.contains("the MCP server s is not available: cannot start"), "{gone}");
}

#[test]
fn a_dry_run_keeps_the_changes_of_servers_out_of_the_repository() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("good")}));
    let write = call("s__write", json!({"path": "new.txt", "text": "x\n"}));
    let (output, _) = world.run_with("s__write", &["--dry-run"], &[write, fix(), finish()]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("new.txt"));
    assert!(!world.repo().join("new.txt").exists());
}

#[test]
fn a_tool_that_the_user_calls_read_only_is_one_that_reads() {
    let world = World::with_a_bug();
    let mut entry = world.entry("good");
    entry["readOnlyTools"] = json!(["ech*"]);
    world.write_servers(json!({"s": entry}));
    let seen: Value =
        serde_json::from_slice(&world.agent(&["mcp", "test", "s", "--json"]).output().unwrap().stdout)
            .unwrap();
    let effects: Vec<_> =
        seen["tools"].as_array().unwrap().iter().map(|t| (&t["name"], &t["effect"])).take(2).collect();
    assert_eq!(effects, [(&json!("s__echo"), &json!("read")), (&json!("s__image"), &json!("execute"))]);
    let (output, _) =
        world.run_with("s__echo", &[], &[call("s__echo", json!({"text": "hi"})), fix(), finish()]);
    succeeded(&output);
    replays_without_a_difference(&world);
}

#[test]
fn list_test_and_doctor_say_what_servers_offer_and_cost() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("progress"), "broken": {"command": "no-such-program"}}));
    let seen = world.observe(&["mcp", "list"]);
    assert!(seen.starts_with("exit 1\n"), "a server does not start: {seen}");
    assert!(seen.contains("s                mcp.json, 1 tool, about "), "{seen}");
    assert!(seen.contains("broken           mcp.json, does not start: "), "{seen}");
    let seen = world.observe(&["mcp", "test", "s", "echo", r#"{"text": "hi"}"#]);
    assert_eq!(seen, "exit 0\n--- stdout\nhi\n");
    let seen = world.observe(&["mcp", "test", "s", "echo", "{}"]);
    assert!(seen.contains("\"text\" is a required property"), "{seen}");
    let seen = world.observe(&["mcp", "test", "nobody"]);
    assert!(seen.contains("unknown MCP server \"nobody\"; the servers are: s, broken"), "{seen}");
    let doctor = world.agent(&["doctor", "--json"]).output().unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let found: Vec<_> =
        doctor["findings"].as_array().unwrap().iter().filter(|f| f["subject"] == "mcp").collect();
    assert_eq!(found.len(), 2, "{doctor}");
    assert!(found[0]["found"].as_str().unwrap().starts_with("s: 1 tool, about "), "{doctor}");
    assert_eq!((&found[0]["health"], &found[1]["health"]), (&json!("ok"), &json!("warn")), "{doctor}");
}

#[test]
fn nothing_of_a_server_is_left_after_a_run_even_if_the_agent_is_killed() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": world.entry("stubborn")}));
    let (output, _) = world.run_with("s", &[], &[fix(), finish()]);
    succeeded(&output);
    assert!(!is_running(), "the server ignores the end of its input and SIGTERM");

    let server = Server::start();
    server.enqueue(Reply::empty().hold());
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--mcp-tools", "s", "--json", "Go."];
    let mut child =
        world.agent(&args).env("OLLAMA_HOST", server.url()).stdout(Stdio::piped()).spawn().unwrap();
    // The server should be running by the time the first request is sent.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let asked = lines.map_while(Result::ok).any(|line| line.contains("\"event\":\"request\""));
    assert!(asked && is_running());
    child.kill().unwrap();
    child.wait().unwrap();
    while is_running() {
        std::thread::yield_now(); // the launcher is killing it
    }

    /// Returns whether this test's scripted server is running.
    fn is_running() -> bool {
        let lines =
            fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
        lines.flatten().any(|line| String::from_utf8_lossy(&line).contains("server.py\0stubborn"))
    }
}

/// A scripted server that is reached at a URL. Dropping it stops the server.
struct AtAddress(std::process::Child, String);

impl AtAddress {
    fn start(world: &World, behavior: &str) -> Self {
        fs::create_dir_all(world.server_log().parent().unwrap()).unwrap();
        let mut command = world.program("python3");
        command.args([script(), behavior.into(), world.server_log().display().to_string(), "http".into()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut port).unwrap();
        Self(child, format!("http://127.0.0.1:{}/mcp", port.trim()))
    }
}

impl Drop for AtAddress {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn bug_an_error_showed_the_url_of_a_server_which_may_contain_a_token() {
    let world = World::with_a_bug();
    world.write_servers(json!({"s": {"type": "http", "url": "http://127.0.0.1:9/in/QmFzZTY0/mcp"}}));
    let seen = world.observe(&["mcp", "test", "s"]);
    assert!(seen.contains("the MCP server s does not start"), "{seen}");
    assert!(!seen.contains("QmFzZTY0"), "{seen}");
}

#[test]
fn a_server_at_an_address_gets_its_headers_and_no_redirect_leads_elsewhere() {
    let world = World::with_a_bug();
    let at = AtAddress::start(&world, "good");
    let entry = |url: &str, key: &str| json!({"s": {"type": "http", "url": url, "headers": {"X-Key": key}}});
    world.write_servers(entry(&at.1, "k-1"));
    let (output, _) =
        world.run_with("s__echo", &[], &[call("s__echo", json!({"text": "hi"})), fix(), finish()]);
    succeeded(&output);
    assert_eq!(results(&world)[0], ("ok".into(), "hi".into()));
    world.write_servers(entry(&at.1, "k-2"));
    let seen = world.observe(&["mcp", "test", "s"]);
    assert!(seen.contains("the MCP server s does not start"), "{seen}");
    let other = AtAddress::start(&world, "redirects");
    world.write_servers(entry(&other.1, "k-1"));
    let seen = world.observe(&["mcp", "test", "s"]);
    assert!(seen.contains("the MCP server s does not start"), "{seen}");
    assert!(!world.noted().iter().any(|line| line.contains("elsewhere")), "{:?}", world.noted());
}
