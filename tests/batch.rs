//! `agent batch`: many tasks, each in its own worktree.

use std::io::BufRead as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{World, call, json_lines, snapshot};
use fake_model::{Config, Personality, Reply, Server};
use serde_json::{Value, json};

/// How long a model needs to write the rest of a short answer.
const WRITING: Duration = Duration::from_millis(200);

pub(crate) fn tasks(world: &World, ids: &[&str]) -> String {
    let lines = ids.iter().map(|id| {
        json!({"id": id, "repo": world.repo(), "task": "Make the tests pass.", "verify": "sh check.sh"})
            .to_string()
    });
    let path = world.home().join("tasks.jsonl");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path.display().to_string()
}

pub(crate) fn fix(server: &Server) {
    server.enqueue(Reply::text(call(
        "apply_patch",
        json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
    )));
    server.enqueue(Reply::text(call("finish", json!({}))));
}

pub(crate) fn run(world: &World, server: &Server, tasks: &str) -> std::process::Output {
    run_with(world, server, &[tasks])
}

pub(crate) fn run_with(world: &World, server: &Server, args: &[&str]) -> std::process::Output {
    let args = [&["batch", "--model", "deepseek-coder:6.7b", "--approach", "tools"], args].concat();
    world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap()
}

#[test]
fn a_task_without_changes_is_not_solved() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["idle"]);
    let text = std::fs::read_to_string(&tasks).unwrap().replace("sh check.sh", "true");
    std::fs::write(&tasks, text).unwrap();
    for _ in 0..2 {
        server.enqueue(Reply::text(call("finish", json!({"summary": "All good."}))));
    }
    let output = run(&world, &server, &tasks);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 1\n") && seen.contains("1 no change"), "{seen}");
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    assert!(results.contains(r#""kind":"no_change""#), "{results}");
}

#[test]
fn a_batch_runs_every_task_and_leaves_the_repository_unchanged() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    fix(&server);
    fix(&server);
    let output = run(&world, &server, &tasks);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1, "the worktrees should be removed");
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let results: Vec<Value> = json_lines(&results);
    assert_eq!(results.len(), 2);
    for result in &results {
        assert_eq!(result["ending"]["kind"], "verified");
        assert!(result["diff"]["patch"].as_str().unwrap().contains("+    echo $(($1 + $2))"));
        let session = result["session"].as_str().unwrap();
        assert!(world.observe(&["sessions", "show", session]).starts_with("exit 0"));
    }

    let asked = server.chats().len();
    let again = run(&world, &server, &tasks);
    assert_eq!(
        (again.status.code(), server.chats().len()),
        (Some(0), asked),
        "finished tasks should not be repeated"
    );
}

#[test]
fn an_unreachable_server_leaves_the_task_pending() {
    let world = World::with_a_bug();
    let tasks = tasks(&world, &["one"]);
    let args = ["batch", &tasks, "--model", "ollama:x", "--wait", "0s"];
    let output = world.agent(&args).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", world.tell(&output));
}

#[test]
fn a_selection_runs_only_its_tasks_and_a_later_run_without_it_runs_the_others() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two", "three"]);
    fix(&server);
    let output = run_with(&world, &server, &[&tasks, "--filter", "t*", "--slice", "1:"]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n") && seen.contains("1 task: 1 verified"), "{seen}");
    assert!(seen.contains("three") && !seen.contains("two"), "{seen}");
    fix(&server);
    fix(&server);
    let seen = world.tell(&run(&world, &server, &tasks));
    assert!(seen.contains("3 tasks, 1 already done") && seen.contains("3 verified"), "{seen}");
}

#[test]
fn a_selection_that_matches_no_task_is_a_usage_error() {
    let world = World::with_a_bug();
    let tasks = tasks(&world, &["one"]);
    let seen = world.observe(&["batch", &tasks, "--filter", "two"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("none of the 1 task"), "{seen}");
}

#[test]
fn a_batch_that_reaches_its_limit_is_paused_and_says_how_to_continue() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    fix(&server);
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--batch-tokens", "1"]));
    assert!(seen.starts_with("exit 4\n") && seen.contains("higher --batch-tokens to continue"), "{seen}");
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--deadline", "2001-01-01T00:00Z"]));
    assert!(seen.starts_with("exit 4\n") && seen.contains("paused at the deadline"), "{seen}");
    fix(&server);
    assert!(world.tell(&run(&world, &server, &tasks)).starts_with("exit 0\n"));
}

#[test]
fn fail_fast_stops_at_a_failure_and_retry_failed_repeats_it() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    let text = std::fs::read_to_string(&tasks).unwrap().replace("sh check.sh", "true");
    std::fs::write(&tasks, text).unwrap();
    server.enqueue(Reply::text(call("finish", json!({}))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--fail-fast"]));
    assert!(seen.starts_with("exit 1\n") && seen.contains("1 not run"), "{seen}");
    fix(&server);
    fix(&server);
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--retry", "failed"]));
    assert!(
        seen.starts_with("exit 0\n") && seen.contains("one: not verified so far; running it again"),
        "{seen}"
    );
}

#[test]
fn bad_task_files_are_refused_before_the_first_task() {
    let world = World::new();
    std::fs::write(world.home().join("t.jsonl"), "{\"id\": \"a\"}\nnonsense\n").unwrap();
    let seen = world.observe(&["batch", world.home().join("t.jsonl").to_str().unwrap()]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("t.jsonl"), "{seen}");
    snapshot!(world.observe(&["batch", "missing.jsonl"]), @r"
    exit 2
    --- stderr
    error: [WORLD]/repo/missing.jsonl: No such file or directory (os error 2)
    ");
}

#[test]
fn the_help_of_batch_lists_the_exit_codes_of_batch() {
    let seen = World::new().observe(&["batch", "--help"]);
    assert!(
        seen.contains("--jobs <N|auto>")
            && seen.contains("--json")
            && seen.contains("all tasks are verified"),
        "{seen}"
    );
}

/// Starts an Ollama server that answers `parallel` requests at a time. It refuses any others if
/// `refuses` is set, and otherwise lets them wait.
///
/// After the first test request of `--jobs auto`, the next `parallel` ones overlap: each waits at
/// its own gate and then takes a while to finish, like a model that is still writing.
fn server_with_slots(parallel: usize, refuses: bool) -> Server {
    let slots = if refuses { 64 } else { parallel };
    let server = Server::with_config(Config { parallel: Some(slots), ..Config::default() });
    let probes = AtomicUsize::new(0);
    server.fallback(Reply::from_fn(move |request| {
        let said = request.last_content();
        if said.starts_with("Count from 1") {
            return match probes.fetch_add(1, Ordering::Relaxed) {
                0 => Reply::text("1"),
                n if n <= parallel => Reply::text("1").gate(format!("test {n}")).pause(WRITING).more("2"),
                _ if refuses => Reply::error(503, "server busy"),
                _ => Reply::text("1").delay_until_released("never"),
            };
        }
        if said.contains("Make the tests pass.") {
            let edits = json!([{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]);
            return Reply::text(call("apply_patch", json!({"edits": edits})));
        }
        Reply::text(call("finish", json!({})))
    }));
    server
}

#[test]
fn jobs_auto_measures_how_many_requests_a_local_server_answers_in_parallel() {
    for (parallel, refuses) in [(1, false), (3, false), (3, true)] {
        let (world, server) = (World::with_a_bug(), server_with_slots(parallel, refuses));
        let tasks = tasks(&world, &["one", "two"]);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                let gates = || (1..=parallel).map(|n| format!("test {n}"));
                gates().for_each(|gate| server.block_for_gate(&gate));
                gates().for_each(|gate| server.release(&gate));
            });
            world.tell(&run_with(&world, &server, &[&tasks, "--jobs", "auto"]))
        });
        assert!(seen.starts_with("exit 0\n"), "{seen}");
        let tasks = if parallel == 1 { "1 task" } else { "3 tasks" };
        let note = format!("running {tasks} at a time: ollama answered that many of 8 test requests");
        assert!(seen.contains(&note), "{seen}");
    }
}

#[test]
fn jobs_auto_runs_one_task_at_a_time_if_the_test_requests_fail() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    server.fallback(Reply::from_fn(|request| match request.last_content().contains("Count from 1") {
        true => Reply::error(400, "no"),
        false => Reply::text(call("finish", json!({}))),
    }));
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--jobs", "auto"]));
    assert!(seen.contains("running 1 task at a time: a test request to ollama failed: "), "{seen}");
    let seen = world.observe(&["batch", &tasks, "--jobs", "many"]);
    assert!(seen.contains("neither `auto` nor a number from 1 to 256"), "{seen}");
}

#[test]
fn a_server_that_reports_fewer_slots_than_jobs_gets_no_more_requests_at_a_time() {
    let slots = 2;
    let config = Config { personality: Personality::LlamaServer, parallel: Some(slots), ..Config::default() };
    let (world, server) = (World::with_a_bug(), Server::with_config(config));
    let tasks = tasks(&world, &["one", "two", "three", "four"]);
    server.fallback(Reply::from_fn(|request| {
        let edits = json!([{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]);
        let call = match request.last_content().contains("Make the tests pass.") {
            true => call("apply_patch", json!({"edits": edits})),
            false => call("finish", json!({})),
        };
        Reply::text("Wait. ").pause(WRITING).more(call)
    }));
    let base = format!("{}/v1", server.url());
    let args = ["batch", &tasks, "--jobs", "4", "--base-url", &base, "--approach", "tools"];
    let seen = world.tell(&world.agent(&args).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("running 2 tasks at a time: llama-server answers that many requests"), "{seen}");
    let replies = server.replies();
    let chats: Vec<_> = server.requests().into_iter().filter(|request| request.is_chat()).collect();
    assert_eq!(chats.len(), 8);
    for chat in &chats {
        let running = chats.iter().filter(|other| {
            let ended = replies[other.index].last_byte_at.unwrap();
            other.received_at < chat.received_at && ended > chat.received_at
        });
        assert!(running.count() < slots, "{chat:?}");
    }
}

#[test]
fn bug_jobs_auto_ran_one_task_at_a_time_if_the_server_started_after_the_batch() {
    let world = World::with_a_bug();
    let tasks = tasks(&world, &["one", "two"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}/v1");
    let args = ["batch", &tasks, "--jobs", "auto", "--base-url", &base, "--approach", "tools"];
    let mut child = world.agent(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("cannot ask the server, retrying: ")));
    let config = Config { personality: Personality::LlamaServer, parallel: Some(2), ..Config::default() };
    let server = Server::with_config_on(config, port).unwrap();
    server.fallback(Reply::text(call("finish", json!({}))));
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.starts_with("running 2 tasks at a time: ")), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(1), "the tasks are not solved");
}

#[test]
fn bug_a_closed_stdout_replaced_the_exit_code_of_a_batch() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["idle"]);
    server.fallback(Reply::text(call("finish", json!({}))));
    let args = ["batch", "--model", "deepseek-coder:6.7b", "--approach", "tools", &tasks];
    let mut command = world.agent(&args);
    command.env("OLLAMA_HOST", server.url()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(world.home().join("tasks.results/junit.xml").exists());
}

#[test]
fn bug_a_clone_over_ssh_could_wait_forever_for_an_answer() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text = std::fs::read_to_string(&tasks).unwrap();
    let text = text.replace(&world.repo().display().to_string(), "ssh://git.invalid/repository");
    std::fs::write(&tasks, text).unwrap();
    let programs = world.home().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let ssh = programs.join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\necho \"$@\" >> \"$HOME/ssh-arguments\"; exit 255\n").unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let args = ["batch", &tasks, "--wait", "0s", "--model", "deepseek-coder:6.7b"];
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", world.tell(&output));
    let arguments = std::fs::read_to_string(world.home().join("ssh-arguments")).unwrap();
    assert!(
        arguments.contains("BatchMode=yes") && arguments.contains("ServerAliveInterval=15"),
        "{arguments}"
    );
}

#[test]
fn a_repository_may_be_a_url() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text = std::fs::read_to_string(&tasks).unwrap();
    let repo = world.repo().display().to_string();
    std::fs::write(&tasks, text.replace(&repo, &format!("file://{repo}"))).unwrap();
    // The results folder may be inside a repository that has nothing to do with the task.
    let outer = std::process::Command::new("git").args(["init", "--quiet"]).arg(world.home()).status();
    assert!(outer.unwrap().success());
    fix(&server);
    let output = run(&world, &server, &tasks);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn a_check_prints_what_would_run_and_runs_nothing() {
    let world = World::with_a_bug();
    let tasks = tasks(&world, &["one", "two"]);
    let seen = world.observe(&["batch", "--check", &tasks]);
    assert!(seen.starts_with("exit 0\n") && seen.contains("2 tasks in 1 repository"), "{seen}");
    assert!(!world.home().join("tasks.results").exists());
    let text = std::fs::read_to_string(&tasks).unwrap();
    std::fs::write(&tasks, text.replace("\"id\":\"two\"", "\"id\":\"two\",\"base_commit\":\"deadbeef\""))
        .unwrap();
    let seen = world.observe(&["batch", "--check", &tasks]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("two: ") && seen.contains("deadbeef"), "{seen}");
    std::fs::write(&tasks, "{\"id\": \"a\"}\nnonsense\n").unwrap();
    let seen = world.observe(&["batch", "--check", &tasks]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("tasks.jsonl:2: "), "{seen}");
}

#[test]
fn shards_of_a_job_array_are_merged_into_one_result() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    for index in ["0", "1", "2"] {
        fix(&server);
        let args =
            ["batch", &tasks, "--shard", "auto/3", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
        let mut command = world.agent(&args);
        let output =
            command.env("OLLAMA_HOST", server.url()).env("JOB_COMPLETION_INDEX", index).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    }
    let folder = |n: usize| world.home().join(format!("tasks.results/shard-{n}-of-3")).display().to_string();
    let merged = world.home().join("merged").display().to_string();
    let seen = world.observe(&["batch", "merge", &folder(1), &folder(2), &folder(3), "--out", &merged]);
    assert!(seen.starts_with("exit 0\n") && seen.contains("2 tasks: 2 verified"), "{seen}");
    let seen = world.observe(&["batch", &tasks, "--shard", "3/2"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("no part 3 of 2"), "{seen}");
}

#[test]
fn bug_secrets_in_setup_commands_and_urls_were_shown_and_recorded() {
    let world = World::with_a_bug();
    let secret = concat!("ghp_", "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5");
    let tasks = world.home().join("tasks.jsonl");
    let lines = [
        json!({"id": "url", "repo": format!("http://me:{secret}@127.0.0.1:9/x.git"), "task": "x"}),
        json!({"id": "setup", "repo": world.repo(), "task": "x", "setup": format!("export API_TOKEN={secret}; exit 3")}),
    ];
    std::fs::write(&tasks, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let tasks = tasks.to_str().unwrap();
    let seen = world.observe(&["batch", "--check", tasks]);
    assert!(seen.contains("http://127.0.0.1:9/x.git") && !seen.contains(secret), "{seen}");
    let seen = world.observe(&["batch", tasks, "--model", "ollama:x", "--wait", "0s"]);
    assert!(
        seen.contains("cannot clone http://127.0.0.1:9/x.git") && seen.contains("setup failed"),
        "{seen}"
    );
    assert!(!seen.contains(secret) && !seen.contains("me:"), "{seen}");
    for file in ["results.jsonl", "summary.json", "summary.md", "junit.xml", "attempts.jsonl"] {
        let text = std::fs::read_to_string(world.home().join("tasks.results").join(file)).unwrap();
        assert!(!text.contains(secret), "{file}: {text}");
    }
}

#[test]
fn bug_a_clone_outlived_a_killed_batch() {
    let world = World::with_a_bug();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tasks = world.home().join("tasks.jsonl");
    let url = format!("git://{}/x", server.local_addr().unwrap());
    std::fs::write(&tasks, json!({"id": "a", "repo": url, "task": "x"}).to_string()).unwrap();
    let mut agent = world.agent(&["batch", tasks.to_str().unwrap(), "--model", "ollama:x"]);
    let mut agent =
        agent.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let (mut connection, _) = server.accept().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // `copy` returns when git exits, because that closes or resets the connection.
    let _ = std::io::copy(&mut connection, &mut std::io::sink());
}

/// Returns the lines that `--json` prints, with each value that may differ between runs replaced by
/// its type.
fn shapes(stdout: &[u8]) -> String {
    fn shape(value: &Value) -> Value {
        const KEPT: [&str; 13] = [
            "event",
            "id",
            "why",
            "key",
            "old",
            "new",
            "tasks",
            "done",
            "verified",
            "attempt",
            "again",
            "exit_code",
            "ending",
        ];
        match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(k, v)| (k.clone(), if KEPT.contains(&k.as_str()) { v.clone() } else { shape(v) }))
                .collect(),
            Value::Array(items) => items.iter().map(shape).collect(),
            Value::String(_) => "text".into(),
            Value::Number(_) => "number".into(),
            Value::Bool(_) => "bool".into(),
            Value::Null => Value::Null,
        }
    }
    let lines = json_lines(std::str::from_utf8(stdout).unwrap());
    lines.iter().map(|line| shape(line).to_string() + "\n").collect()
}

#[test]
fn json_prints_one_object_per_event_and_nothing_else() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["same", "edited"]);
    fix(&server);
    fix(&server);
    run(&world, &server, &tasks);
    let text = std::fs::read_to_string(&tasks).unwrap();
    let edited = r#""id":"edited","protected":["none/*"]"#;
    std::fs::write(&tasks, text.replace(r#""id":"edited""#, edited)).unwrap();
    fix(&server);
    let output = run_with(&world, &server, &[&tasks, "--json", "--max-turns", "9"]);
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{}", world.tell(&output));
    snapshot!(shapes(&output.stdout), @r#"
    {"event":"plan","tasks":2,"done":1,"verified":1}
    {"event":"kept","id":"same","changes":[{"key":"max_turns","old":"40","new":"9"}]}
    {"event":"rerun","id":"edited","why":"changed"}
    {"event":"started","id":"edited","attempt":2}
    {"event":"note","id":"edited","message":"text"}
    {"event":"finished","again":false,"result":{"v":"number","id":"edited","attempt":2,"digest":"text","time_ms":"number","ending":{"kind":"verified"},"infrastructure":"bool","message":"text","diff":{"files":["text"],"added":"number","removed":"number"},"totals":{"turns":"number","prompt_tokens":"number","generated_tokens":"number","saved_tokens":"number","saved_bytes":"number","cost":null,"ms":"number"},"seconds":"number","session":"text"}}
    {"event":"summary","out":"text","exit_code":0,"summary":{"v":"number","tasks":2,"endings":[["text","number"]],"stopped":null,"attempts":"number","tokens":"number","cost":null,"seconds":"number","rows":[{"id":"same","ending":{"kind":"verified"},"infrastructure":"bool","attempts":"number","added":"number","removed":"number","turns":"number","tokens":"number","cost":null,"seconds":"number","session":"text","message":"text"},{"id":"edited","ending":{"kind":"verified"},"infrastructure":"bool","attempts":"number","added":"number","removed":"number","turns":"number","tokens":"number","cost":null,"seconds":"number","session":"text","message":"text"}]}}
    "#);
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("$1 + $2"),
        "patches should be left out, because they may contain secrets"
    );
}

#[test]
fn json_reports_an_outage_and_masks_secrets_and_escapes_control_characters() {
    let world = World::with_a_bug();
    let secret = concat!("ghp_", "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5");
    let setup = format!("export API_TOKEN={secret}; exit 3 # \u{9b}31m\u{202e}");
    let lines: Vec<_> = (0..3)
        .map(|n| {
            let repo = world.home().join(format!("repo{n}"));
            world.git(&["clone", "--quiet", ".", repo.to_str().unwrap()]);
            json!({"id": format!("t{n}"), "repo": repo, "task": "x", "setup": setup}).to_string()
        })
        .collect();
    let tasks = world.home().join("tasks.jsonl");
    std::fs::write(&tasks, lines.join("\n")).unwrap();
    let args = ["batch", tasks.to_str().unwrap(), "--json", "--jobs", "3", "--model", "ollama:x"];
    let mut agent = world.agent(&args);
    let mut agent =
        agent.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut seen = String::new();
    for line in std::io::BufReader::new(agent.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with(r#"{"event":"waiting""#) {
            assert_eq!(line, r#"{"event":"waiting","seconds":2}"#);
            let id = rustix::process::Pid::from_child(&agent);
            rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        }
        seen += &(line + "\n");
    }
    assert_eq!(agent.wait().unwrap().code(), Some(130), "{seen}");
    assert!(seen.contains(r#""event":"waiting""#) && seen.contains("setup failed"), "{seen}");
    assert!(!seen.contains(secret), "{seen}");
    assert!(!seen.contains('\u{9b}') && !seen.contains('\u{202e}'), "{seen:?}");
    let last = json_lines(&seen).pop().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("summary"), &json!(130)));
}

#[test]
fn changed_settings_are_reported_with_the_number_of_tasks_that_keep_their_results() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    fix(&server);
    let first = world.tell(&run(&world, &server, &tasks));
    let connection = ["--first-byte-seconds", "77"];
    let again = world.tell(&run_with(&world, &server, &[&[&*tasks][..], &connection].concat()));
    for seen in [first, again] {
        assert!(!seen.contains("different settings"), "{seen}");
    }
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--max-turns", "9"]));
    let told =
        "1 task keeps its result from a run with different settings (max_turns: 40 → 9); `--retry failed`";
    assert!(seen.starts_with("exit 0\n") && seen.contains(told), "{seen}");
}

#[test]
fn bug_a_results_folder_in_use_by_another_process_was_reported_as_a_usage_error() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let results = world.home().join("tasks.results");
    std::fs::create_dir(&results).unwrap();
    let lock = journal::LockFile::acquire(&results.join("lock"), "process 1").unwrap().unwrap();
    let seen = world.tell(&run(&world, &server, &tasks));
    assert!(seen.starts_with("exit 5\n") && seen.contains("tasks.results is in use by process 1"), "{seen}");
    drop(lock);
    fix(&server);
    let seen = world.tell(&run(&world, &server, &tasks));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
}

#[test]
fn a_server_that_refuses_requests_gets_fewer_tasks_at_a_time() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two", "three"]);
    let text = std::fs::read_to_string(&tasks).unwrap().replace("Make the tests pass.", "Fix add.sh");
    std::fs::write(&tasks, text).unwrap();
    server.enqueue(Reply::error(429, "slow down").header("retry-after", "0"));
    for _ in 0..3 {
        server.enqueue(Reply::text("```sh\nadd() {\n    echo $(($1 + $2))\n}\n```\n"));
    }
    let args = [
        "batch",
        &tasks,
        "--model",
        "deepseek-coder:6.7b",
        "--approach",
        "whole-file",
        "--jobs",
        "2",
        "--wait",
        "0s",
    ];
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("running at most 1 task at a time"), "{seen}");
}
