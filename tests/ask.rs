//! `agent ask`, and results that match a JSON Schema (`--output-schema`).

use std::process::Output;

use fake_model::{Reply, Server};
use serde_json::{Value, json};

use crate::replay::{JSON, edit, finish, recorded, replays_without_a_difference, texts};
use crate::support::{World, call, json_lines, snapshot};

/// Runs a command with a server that gives these answers. Returns the output and the request
/// bodies.
fn with_answers(world: &World, args: &[&str], answers: &[String]) -> (Output, Vec<Value>) {
    let server = Server::start();
    for answer in answers {
        server.enqueue(Reply::text(answer).split_bytes(9));
    }
    let mut all = args.to_vec();
    all.extend(["--model", "deepseek-coder:6.7b"]);
    let output = world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap();
    (output, server.chats().into_iter().map(|request| request.json).collect())
}

fn read() -> String {
    call("read_file", json!({"path": "add.sh"}))
}

fn answer(text: &str) -> String {
    call("finish", json!({"answer": text}))
}

const QUESTION: [&str; 2] = ["ask", "What does add do?"];

const SCHEMA: &str = r##"{
  "type": "object",
  "properties": {
    "severity": {"enum": ["low", "high"]},
    "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}
  },
  "required": ["severity", "lines"],
  "additionalProperties": false,
  "$defs": {"line": {"type": "integer", "minimum": 1}}
}"##;

#[test]
fn a_question_is_answered_on_stdout() {
    let world = World::with_a_bug();
    let (output, requests) =
        with_answers(&world, &QUESTION, &[read(), answer("It subtracts.\n\nThat is a bug.")]);
    snapshot!(world.tell(&output), @r"
    exit 0
    --- stdout
    It subtracts.

    That is a bug.
    --- stderr
    session [SESSION]
    model   deepseek-coder:6.7b · ollama 0.32.15 · window 16,384 · approach tools · ollama:deepseek-coder:6.7b at http://[SERVER] (Ollama has it)
    → read_file add.sh
      turn 1: about [N] prompt tokens, 27 generated, [TIME], cut after the call
      ✓ add.sh lines 1-3 of 3 ([TIME])
    → finish answer: 3 lines
      turn 2: about [N] prompt tokens, 35 generated, [TIME], cut after the call
      ✓ done ([TIME])
    answered: the question is answered
    2 turns, [N] prompt tokens, 62 generated, [TIME]
    show: agent sessions show [SESSION]
    ");
    let prompt = requests[0]["messages"].to_string();
    assert!(prompt.contains("Question: What does add do?"), "{prompt}");
    for absent in ["apply_patch", "run_command", "run_tests"] {
        assert!(!prompt.contains(absent), "{absent}: {prompt}");
    }
    replays_without_a_difference(&world);
}

#[test]
fn a_question_changes_nothing_and_runs_no_command() {
    let world = World::with_a_bug();
    let answers =
        [edit("$1 - $2", "$1 + $2"), call("run_command", json!({"command": "touch x"})), answer("no")];
    let (output, _) = with_answers(&world, &QUESTION, &answers);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let events = world.events();
    assert!(!events.iter().any(|event| event == "checked" || event == "sandbox"), "{events:?}");
}

#[test]
fn prose_is_an_answer_once_the_model_has_looked() {
    let world = World::with_a_bug();
    let answers = ["I will look at the file.".to_owned(), read(), "It subtracts.".to_owned()];
    let (output, requests) = with_answers(&world, &QUESTION, &answers);
    assert_eq!((output.status.code(), requests.len()), (Some(0), 3), "{}", world.tell(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "It subtracts.\n");
    replays_without_a_difference(&world);
}

#[test]
fn an_answer_that_reaches_the_token_limit_is_not_taken_for_complete() {
    let world = World::with_a_bug();
    let server = Server::start();
    server.enqueue(Reply::text(read()));
    server.enqueue(Reply::text("It subtracts, and the rea").done_reason("length"));
    server.enqueue(Reply::text(answer("It subtracts.")));
    let args = [&QUESTION[..], &["--model", "deepseek-coder:6.7b"]].concat();
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "It subtracts.\n", "{}", world.tell(&output));
}

#[test]
fn a_question_can_be_asked_while_another_run_works_in_the_repository() {
    let world = World::with_a_bug();
    let server = Server::start();
    server.enqueue(Reply::text("I").hold());
    let mut run = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "fix it"])
        .env("OLLAMA_HOST", server.url())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    server.block_for_chats(1);
    let (output, _) = with_answers(&world, &QUESTION, &[read(), answer("It subtracts.")]);
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
}

#[test]
fn a_question_that_is_not_answered_says_nothing_about_changes() {
    let world = World::with_a_bug();
    let args = [&QUESTION[..], &["--max-turns", "1"]].concat();
    let (output, _) = with_answers(&world, &args, &[read()]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 4\n") && seen.contains("turn budget reached"), "{seen}");
    assert!(!seen.contains("change"), "{seen}");
}

#[test]
fn a_follow_up_question_continues_the_session() {
    let world = World::with_a_bug();
    with_answers(&world, &QUESTION, &[read(), answer("It subtracts.")]);
    let (output, requests) = with_answers(&world, &["resume", "last", "Is that a bug?"], &[answer("Yes.")]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Yes.\n", "{}", world.tell(&output));
    let last = requests[0]["messages"].as_array().unwrap().last().unwrap()["content"].to_string();
    assert!(last.contains("Is that a bug?") && !last.contains("Do this now"), "{last}");
    replays_without_a_difference(&world);
}

#[test]
fn bug_a_follow_up_question_could_not_be_answered_in_prose() {
    let world = World::with_a_bug();
    with_answers(&world, &QUESTION, &[read(), "It subtracts.".to_owned()]);
    let (output, requests) =
        with_answers(&world, &["resume", "last", "Is that a bug?"], &["Yes.".to_owned()]);
    assert_eq!((String::from_utf8_lossy(&output.stdout), requests.len()), ("Yes.\n".into(), 1));
}

#[test]
fn bug_the_result_of_a_refused_finish_was_printed() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("schema.json"), SCHEMA).unwrap();
    let schema = world.home().join("schema.json");
    let give = || call("finish", json!({"severity": "low", "lines": []}));
    let flags = ["--output-schema", schema.to_str().unwrap(), "--max-turns", "2"];
    let answers = texts(&[edit("$1 - $2", "$1 * $2"), give()]);
    let output = recorded(&world, &[&flags[..], &JSON].concat(), &answers);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{}", world.tell(&output));
}

#[test]
fn a_question_starts_no_mcp_server() {
    let world = World::with_a_bug();
    world.write_user_settings("mcp_tools = '*'\n");
    let servers = r#"{"mcpServers": {"x": {"command": "sh", "args": ["-c", "touch planted; cat"]}}}"#;
    std::fs::write(world.home().join(".config/agent/mcp.json"), servers).unwrap();
    let (output, _) = with_answers(&world, &QUESTION, &[read(), answer("It subtracts.")]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_result_fits_the_schema_and_is_alone_on_stdout() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("schema.json"), SCHEMA).unwrap();
    let schema = world.home().join("schema.json");
    let wrong = call("finish", json!({"severity": "medium", "lines": [2]}));
    let unfit = call("finish", json!({"severity": "high", "lines": [0]}));
    let right = call("finish", json!({"severity": "high", "lines": [2]}));
    let args = [&QUESTION[..], &["--output-schema", schema.to_str().unwrap()]].concat();
    let (output, requests) = with_answers(&world, &args, &[read(), wrong, unfit, right]);
    assert_eq!((output.status.code(), requests.len()), (Some(0), 4), "{}", world.tell(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result, json!({"severity": "high", "lines": [2]}));
    replays_without_a_difference(&world);
}

#[test]
fn a_server_that_can_enforce_schemas_gets_that_of_the_result() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("schema.json"), SCHEMA).unwrap();
    let schema = world.home().join("schema.json");
    let args = [&QUESTION[..], &["--constrain", "--output-schema", schema.to_str().unwrap()]].concat();
    let right = call("finish", json!({"severity": "high", "lines": [2]}));
    let (output, requests) = with_answers(&world, &args, &[read(), right]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    // References in the schema must still resolve to its definitions.
    let fits = jsonschema::validator_for(&requests[0]["format"]).unwrap();
    let finish = |lines: Value| json!({"tool": "finish", "arguments": {"severity": "high", "lines": lines}});
    assert!(fits.is_valid(&finish(json!([1, 2]))));
    assert!(!fits.is_valid(&finish(json!([0]))) && !fits.is_valid(&finish(json!(["1"]))));
}

#[test]
fn a_run_with_a_schema_prints_the_result_instead_of_the_patch() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("schema.json"), SCHEMA).unwrap();
    let schema = world.home().join("schema.json");
    let result = call("finish", json!({"severity": "low", "lines": []}));
    let flags = ["--output-schema", schema.to_str().unwrap(), "--json"];
    let answers = texts(&[edit("$1 - $2", "$1 + $2"), result]);
    let output = recorded(&world, &[&flags[..], &JSON].concat(), &answers);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let events = json_lines(&String::from_utf8(output.stdout).unwrap());
    let end = events.last().unwrap();
    assert_eq!(end["ending"]["kind"], "verified", "{end}");
    assert_eq!(end["result"], json!({"severity": "low", "lines": []}));
    replays_without_a_difference(&world);
}

#[test]
fn a_run_that_gives_no_result_is_not_verified() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("schema.json"), SCHEMA).unwrap();
    let schema = world.home().join("schema.json");
    let prose = || "The tests pass now.".to_owned();
    let answers = [edit("$1 - $2", "$1 + $2"), prose(), prose(), prose(), prose(), prose()];
    let flags = ["--output-schema", schema.to_str().unwrap()];
    let output = recorded(&world, &[&flags[..], &JSON].concat(), &texts(&answers));
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 3\n") && output.stdout.is_empty(), "{seen}");
}

#[test]
fn a_result_can_be_written_to_a_file() {
    let world = World::with_a_bug();
    let file = world.home().join("answer.txt");
    let args = [&QUESTION[..], &["-o", file.to_str().unwrap()]].concat();
    let (output, _) = with_answers(&world, &args, &[read(), answer("It subtracts.")]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{}", world.tell(&output));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "It subtracts.\n");
    // A full disk must not lose the answer.
    let args = [&QUESTION[..], &["-o", "/dev/full"]].concat();
    let (output, _) = with_answers(&world, &args, &[read(), answer("It subtracts.")]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b"It subtracts.\n"[..]));
    let seen = world.observe(&["ask", "why?", "-o", "/nowhere/answer.txt"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("the folder /nowhere does not exist"), "{seen}");
}

#[test]
fn an_unusable_schema_is_refused_before_the_run() {
    let world = World::with_a_bug();
    for (text, why) in [
        ("{", "EOF while parsing"),
        ("[]", "its `type` must be \"object\""),
        (r#"{"type": "object", "properties": {"a": {"type": "nonsense"}}}"#, "invalid output schema"),
        (r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}"##, "invalid output schema"),
        (
            r#"{"type": "object", "properties": {"a": {"$ref": "https://example.org/schema.json"}}}"#,
            "invalid output schema",
        ),
    ] {
        std::fs::write(world.home().join("schema.json"), text).unwrap();
        let schema = world.home().join("schema.json");
        let seen = world.observe(&["ask", "why?", "--output-schema", schema.to_str().unwrap()]);
        assert!(seen.starts_with("exit 2\n") && seen.contains(why), "{text}: {seen}");
    }
    let seen = world.observe(&["run", "fix it", "-o", "x"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("--output-schema"), "{seen}");
}

#[test]
fn an_ordinary_finish_is_unchanged() {
    let world = World::with_a_bug();
    let output = recorded(&world, &JSON, &texts(&[edit("$1 - $2", "$1 + $2"), finish()]));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert!(world.journal().last().unwrap().get("result").is_none());
}

#[test]
fn the_help_has_only_flags_that_matter_to_a_question() {
    let seen = World::new().observe(&["ask", "--help"]);
    for flag in ["--model", "--max-turns", "    0  answered"] {
        assert!(seen.contains(flag), "{flag}: {seen}");
    }
    for flag in ["--verify", "--attempts", "--mcp-tools", "--allow-host", "--dangerously-no-sandbox"] {
        assert!(!seen.contains(flag), "{flag}: {seen}");
    }
}

#[test]
fn a_small_model_is_asked_without_tools_and_answers_in_prose() {
    let world = World::with_a_bug();
    let server = Server::start();
    server.enqueue(Reply::text("It subtracts."));
    let args = ["ask", "What does add.sh do?", "--model", "deepseek-coder:6.7b"];
    let mut command = world.agent(&args);
    let output =
        command.env("OLLAMA_HOST", server.url()).env("AGENT_APPROACH", "whole-file").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "It subtracts.\n", "{}", world.tell(&output));
    let chats = server.chats();
    assert_eq!((chats.len(), chats[0].messages().len()), (1, 1));
    let prompt = chats[0].last_content();
    assert!(prompt.contains("$1 - $2") && prompt.ends_with("Question: What does add.sh do?"), "{prompt}");
    assert!(!prompt.contains("read_file"), "{prompt}");
    replays_without_a_difference(&world);
}
