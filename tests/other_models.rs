//! `--escalate` and `--fallback`: runs with two model servers.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use crate::replay::{edit, finish, replays_without_a_difference};
use crate::support::{World, json_lines, snapshot};
use fake_model::{Personality, Reply, Server};
use serde_json::{Value, json};

const FIRST_KEY: &str = "sk-first-0123456789abcdef";
const SECOND_KEY: &str = "sk-second-0123456789abcdef";
const FIXED: &str = "add() {\n    echo $(($1 + $2))\n}\n";

/// Creates a world, an Ollama server for the first model, and another server for the second one.
fn two_servers() -> (World, Server, Server) {
    (World::with_a_bug(), Server::start(), Server::of(Personality::Vllm))
}

/// Returns a command that has the addresses and keys of both servers.
fn command(world: &World, first: &Server, second: &Server, args: &[&str]) -> Command {
    let mut command = world.agent(args);
    command.envs([("OLLAMA_HOST", first.url()), ("OPENAI_BASE_URL", second.openai_url())]);
    command.envs([("OLLAMA_API_KEY", FIRST_KEY), ("OPENAI_API_KEY", SECOND_KEY)]);
    command
}

fn run(world: &World, servers: (&Server, &Server), more: &[&str]) -> Output {
    let args =
        ["run", "--model", "ollama:deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."];
    command(world, servers.0, servers.1, &[&args[..], more].concat()).output().unwrap()
}

/// Makes the model send a wrong edit and then insist that it is done.
fn gives_up(server: &Server) {
    for answer in [edit("$1 - $2", "$1 * $2"), finish(), finish(), finish()] {
        server.enqueue(Reply::text(answer));
    }
}

fn solves(server: &Server) {
    for answer in [edit("$1 - $2", "$1 + $2"), finish()] {
        server.enqueue(Reply::text(answer));
    }
}

/// Checks that each server received its own key and never the other server's key.
fn keys_are_apart(first: &Server, second: &Server) {
    for (server, own, other) in [(first, FIRST_KEY, SECOND_KEY), (second, SECOND_KEY, FIRST_KEY)] {
        let sent: Vec<String> = server.requests().iter().map(|request| format!("{request:?}")).collect();
        assert!(sent.iter().any(|request| request.contains(own)), "{sent:?}");
        assert!(sent.iter().all(|request| !request.contains(other)), "{sent:?}");
    }
}

fn changes(world: &World) -> Vec<Value> {
    world.journal().into_iter().filter(|record| record["event"] == "model_changed").collect()
}

/// Returns the role and turn count of each model in a report.
fn models(report: &Value) -> Vec<(Value, Value)> {
    let models = report["models"].as_array().cloned().unwrap_or_default();
    assert!(models.iter().all(|model| model["prompt_tokens"].as_u64() > Some(0)), "{models:?}");
    models.iter().map(|model| (model["role"].clone(), model["turns"].clone())).collect()
}

#[test]
fn the_bigger_model_solves_what_the_first_one_does_not() {
    let (world, first, second) = two_servers();
    gives_up(&first);
    solves(&second);
    let seen = world.tell(&run(&world, (&first, &second), &["--escalate", "openai"]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let shown = seen[seen.find("✗ try 1").unwrap()..].lines();
    let shown: Vec<&str> = shown.filter(|line| !line.contains("show:") && !line.contains("undo:")).collect();
    snapshot!(shown.join("\n"), @r"
    ✗ try 1 of 2: unverified: the model insists that it is done, but the verification fails (2 changed lines)
      ↺ changing the model: no try passed the verification
    model   deepseek-ai/DeepSeek-V3.1 · vllm 0.11.2 · window 131,072 · approach tools · vllm:deepseek-ai/DeepSeek-V3.1 at http://[SERVER]/v1 (as asked)
      ↺ try 2 of 2: starting over with the original files
    → apply_patch edits: 1 item
      turn 5: about [N] prompt tokens, 64 generated, [TIME], cut after the call
      ✓ changed add.sh ([TIME])
      ✓ check passed: sh check.sh ([TIME])
    → finish
      turn 6: about [N] prompt tokens, 17 generated, [TIME], cut after the call
      ✓ done ([TIME])
    verified: the verification passes (try 2 of 2)
    changed add.sh (+1 -1)
    6 turns, [N] prompt tokens, 196 generated, [TIME]
      deepseek-coder:6.7b (ollama): 4 turns, [N] prompt tokens, 115 generated
      deepseek-ai/DeepSeek-V3.1 (vllm): 2 turns, [N] prompt tokens, 81 generated
    ");
    assert_eq!(world.read("add.sh"), FIXED);
    // The second model gets a new conversation, with one line about the first try.
    let asked = second.chats();
    let messages = asked[0].messages();
    assert_eq!(messages.len(), 2);
    let text = messages[1]["content"].as_str().unwrap();
    assert_eq!(
        text.matches("An earlier try changed add.sh, and `sh check.sh` failed: ").count(),
        1,
        "{text}"
    );
    assert!(!text.contains("$1 * $2"), "{text}");
    let journal = world.journal();
    let report = journal.last().unwrap();
    assert_eq!(models(report), [(json!(null), json!(4)), (json!("escalate"), json!(2))]);
    assert_eq!(report["totals"]["turns"], 6);
    keys_are_apart(&first, &second);
    replays_without_a_difference(&world);
}

#[test]
fn the_json_result_has_the_usage_of_each_model_and_each_model_has_its_own_limits() {
    let (world, first, second) = two_servers();
    gives_up(&first);
    solves(&second);
    let output = run(&world, (&first, &second), &["--escalate", "openai", "--json", "--max-turns", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let report = json_lines(&String::from_utf8(output.stdout).unwrap()).pop().unwrap();
    assert_eq!(models(&report), [(json!(null), json!(4)), (json!("escalate"), json!(2))]);
    let sum = |key: &str| report["models"].as_array().unwrap().iter().filter_map(|m| m[key].as_u64()).sum();
    let (prompt, generated): (u64, u64) = (sum("prompt_tokens"), sum("generated_tokens"));
    assert_eq!(
        (report["totals"]["prompt_tokens"].as_u64(), report["totals"]["generated_tokens"].as_u64()),
        (Some(prompt), Some(generated))
    );
    replays_without_a_difference(&world);
}

#[test]
fn a_run_killed_in_the_try_of_the_bigger_model_resumes_with_that_model() {
    let (world, first, second) = two_servers();
    gives_up(&first);
    second.enqueue(Reply::text(edit("$1 - $2", "$1 / $2")));
    second.enqueue(Reply::empty().hold());
    let args =
        ["run", "--model", "ollama:deepseek-coder:6.7b", "--escalate", "openai", "Make the tests pass."];
    let args = [&args[..], &["--approach", "tools"]].concat();
    let mut child = command(&world, &first, &second, &args).stderr(Stdio::null()).spawn().unwrap();
    second.block_for_chats(2);
    child.kill().unwrap();
    child.wait().unwrap();
    let asked = first.requests().len();
    for answer in [edit("$1 / $2", "$1 + $2"), finish()] {
        second.enqueue(Reply::text(answer));
    }
    let seen = world.tell(&command(&world, &first, &second, &["resume"]).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!((world.read("add.sh"), first.requests().len()), (FIXED.into(), asked));
    assert_eq!(changes(&world).len(), 1);
    let chats = second.chats();
    assert_eq!(chats[1].messages(), chats[2].messages());
    let report = world.journal().pop().unwrap();
    assert_eq!(models(&report), [(json!(null), json!(4)), (json!("escalate"), json!(3))]);
    replays_without_a_difference(&world);
}

#[test]
fn if_the_bigger_model_is_unavailable_the_run_can_be_resumed() {
    let (world, first, second) = two_servers();
    gives_up(&first);
    let unreachable = "http://127.0.0.1:9/v1";
    let args =
        ["run", "--model", "ollama:deepseek-coder:6.7b", "--escalate", "openai", "Make the tests pass."];
    let args = [&args[..], &["--approach", "tools"]].concat();
    let output =
        command(&world, &first, &second, &args).env("OPENAI_BASE_URL", unreachable).output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 5\n") && seen.contains("model unavailable: cannot escalate: "), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    replays_without_a_difference(&world);
    let second = Server::of(Personality::Vllm);
    solves(&second);
    let seen = world.tell(&command(&world, &first, &second, &["resume"]).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("add.sh"), FIXED);
    // A replay that runs the tools would differ in a single note, because the session's second
    // process did not know which files the first process had read.
    assert!(world.observe(&["replay", "--recorded"]).starts_with("exit 0\n"));
}

#[test]
fn the_fallback_is_used_if_no_server_answers_at_the_start() {
    let (world, first, second) = two_servers();
    second.enqueue(Reply::text(edit("$1 - $2", "$1 + $2")));
    second.enqueue(Reply::error(402, "no money"));
    let args =
        ["run", "--model", "ollama:x", "--fallback", "openai", "--approach", "tools", "Make the tests pass."];
    let mut run = command(&world, &first, &second, &args);
    let seen = world.tell(&run.env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap());
    assert!(seen.starts_with("exit 5\n") && seen.contains("no money"), "{seen}");
    assert!(seen.contains("warning: no connection to http://127.0.0.1:9"), "{seen}");
    assert!(seen.contains("; continuing with the fallback model\n"), "{seen}");
    let model = world.journal().into_iter().find(|record| record["event"] == "model").unwrap();
    assert_eq!(model["role"], "fallback");
    // A resumed run continues with the fallback even though the first server is back.
    second.enqueue(Reply::text(finish()));
    let seen = world.tell(&command(&world, &first, &second, &["resume"]).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(first.requests().is_empty());
    assert_eq!(models(&world.journal().pop().unwrap()), [], "only one model was used");
    replays_without_a_difference(&world);
}

#[test]
fn the_fallback_continues_the_conversation_of_a_server_that_fails_in_the_middle() {
    for failure in [Reply::error(402, "no money"), Reply::error(503, "busy").header("Retry-After", "86400")] {
        let (world, first, second) = two_servers();
        first.enqueue(Reply::text(edit("$1 - $2", "$1 * $2")));
        first.enqueue(failure);
        second.enqueue(Reply::text(edit("$1 * $2", "$1 + $2")));
        second.enqueue(Reply::text(finish()));
        let seen = world.tell(&run(&world, (&first, &second), &["--fallback", "openai"]));
        assert!(seen.starts_with("exit 0\n") && seen.contains("↺ changing the model: "), "{seen}");
        assert_eq!(world.read("add.sh"), FIXED);
        let sent = |server: &Server, at: usize| -> Vec<Value> {
            server.chats()[at].messages().iter().map(|message| message["content"].clone()).collect()
        };
        assert_eq!(sent(&first, 1), sent(&second, 0));
        let report = world.journal().pop().unwrap();
        assert_eq!(models(&report), [(json!(null), json!(1)), (json!("fallback"), json!(2))]);
        keys_are_apart(&first, &second);
        replays_without_a_difference(&world);
    }
}

/// Runs the agent until it reaches its limit after a wrong edit. The second server will answer with
/// the right edit.
fn stopped_before_the_second_model() -> (World, Server, Server) {
    let (world, first, second) = two_servers();
    first.enqueue(Reply::text(edit("$1 - $2", "$1 * $2")));
    let seen = world.tell(&run(&world, (&first, &second), &["--max-turns", "1"]));
    assert!(seen.starts_with("exit 4\n"), "{seen}");
    second.enqueue(Reply::text(edit("$1 * $2", "$1 + $2")));
    second.enqueue(Reply::text(finish()));
    (world, first, second)
}

#[test]
fn a_run_resumed_while_its_server_is_gone_continues_with_the_fallback() {
    let (world, first, second) = stopped_before_the_second_model();
    let args = ["resume", "--fallback", "openai", "--max-turns", "9"];
    let mut resume = command(&world, &first, &second, &args);
    let seen = world.tell(&resume.env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("add.sh"), FIXED);
    assert!(changes(&world)[0]["why"].as_str().unwrap().starts_with("no connection to "));
    replays_without_a_difference(&world);
}

#[test]
fn a_run_resumed_with_another_model_reports_both_models_and_replays() {
    let (world, first, second) = stopped_before_the_second_model();
    let resume = ["resume", "--model", "openai", "--max-turns", "9"];
    let seen = world.tell(&command(&world, &first, &second, &resume).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("add.sh"), FIXED);
    let report = world.journal().pop().unwrap();
    assert_eq!(models(&report), [(json!(null), json!(1)), (json!(null), json!(2))]);
    assert_eq!(report["models"][1]["model"], "deepseek-ai/DeepSeek-V3.1");
    replays_without_a_difference(&world);
}

/// The bug: the run started with no model at all.
#[test]
fn bug_a_run_resumed_before_its_first_turn_while_its_server_is_gone_starts_with_the_fallback() {
    let (world, first, second) = two_servers();
    let check = world.read("check.sh");
    world.write("check.sh", "sleep 1000\n");
    let mut run = command(&world, &first, &second, &crate::support::JSON_RUN);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(events.any(|line| line.contains("\"check_started\"")));
    child.kill().unwrap();
    child.wait().unwrap();
    world.write("check.sh", &check);
    solves(&second);
    let mut resume = command(&world, &first, &second, &["resume", "--fallback", "openai"]);
    let seen = world.tell(&resume.env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("; continuing with the fallback model\n"), "{seen}");
    assert_eq!((world.read("add.sh"), changes(&world).len()), (FIXED.into(), 0));
    let models = world.journal().into_iter().filter(|record| record["event"] == "model");
    let names: Vec<_> = models.map(|model| model["model"].clone()).collect();
    assert_eq!(names, ["deepseek-coder:6.7b", "deepseek-ai/DeepSeek-V3.1"]);
}

#[test]
fn the_key_and_the_headers_of_the_first_server_are_not_sent_to_the_second() {
    let world = World::with_a_bug();
    let (first, second) = (Server::of(Personality::Vllm), Server::of(Personality::Vllm));
    gives_up(&first);
    solves(&second);
    std::fs::write(world.home().join("key"), FIRST_KEY).unwrap();
    let key = world.home().join("key");
    let base = first.openai_url();
    let args = ["run", "--base-url", &base, "--api-key-file", key.to_str().unwrap(), "--approach", "tools"];
    let more = ["--header", "X-Team: sesame", "--escalate", "openai", "Make the tests pass."];
    let mut run = world.agent(&[&args[..], &more].concat());
    run.envs([("OPENAI_BASE_URL", second.openai_url()), ("OPENAI_API_KEY", SECOND_KEY.into())]);
    let seen = world.tell(&run.output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    keys_are_apart(&first, &second);
    assert!(first.requests().iter().all(|request| request.header("x-team").is_some()));
    assert!(second.requests().iter().all(|request| request.header("x-team").is_none()));
    let journal = json!(world.journal()).to_string();
    assert!(!journal.contains(FIRST_KEY) && !journal.contains(SECOND_KEY) && !journal.contains("sesame"));
}

#[test]
fn a_batch_records_the_turns_of_each_model() {
    let (world, first, second) = two_servers();
    gives_up(&first);
    solves(&second);
    let task =
        json!({"id": "one", "repo": world.repo(), "task": "Make the tests pass.", "verify": "sh check.sh"});
    let tasks = world.home().join("tasks.jsonl");
    std::fs::write(&tasks, task.to_string()).unwrap();
    let args = ["batch", tasks.to_str().unwrap(), "--model", "ollama:deepseek-coder:6.7b"];
    let args = [&args[..], &["--approach", "tools", "--escalate", "openai"]].concat();
    let seen = world.tell(&command(&world, &first, &second, &args).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let result = json_lines(&results).pop().unwrap();
    assert_eq!(models(&result), [(json!(null), json!(4)), (json!("escalate"), json!(2))]);
    assert_eq!(result["totals"]["turns"], 6);
}

#[test]
fn invalid_models_are_refused_before_the_run_and_a_repository_may_not_set_models() {
    let world = World::with_a_bug();
    snapshot!(world.observe(&["run", "--escalate", "ollama:", "x"]), @r"
    exit 2
    --- stderr
    error: escalate: ollama: needs NAME, as in ollama:NAME
    ");
    snapshot!(world.observe(&["run", "--escalate", "deepseek", "x"]), @r"
    exit 2
    --- stderr
    error: escalate: deepseek needs a key in DEEPSEEK_API_KEY
    ");
    snapshot!(world.observe(&["run", "--fallback", "openai", "x"]), @r"
    exit 2
    --- stderr
    error: fallback: openai needs the address of its server in OPENAI_BASE_URL
    ");
    for key in ["escalate", "fallback"] {
        world.write(".agent.toml", &format!("{key} = 'deepseek'\n"));
        let seen = world.observe(&["config", "show"]);
        assert!(seen.contains(&format!("a repository may not set {key}")), "{seen}");
    }
}
