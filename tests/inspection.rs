//! `agent parse`, `agent tools` and `agent doctor`, which inspect parts of the agent without
//! starting a run.

use crate::support::{World, call, json_lines, snapshot};
use fake_model::Server;
use serde_json::json;

#[test]
fn a_parsed_output_is_shown_as_text() {
    let world = World::with(&[("a.rs", "x\n")]);
    let text =
        format!("I will look.\n```json\n{}\n```\n", call("read_file", json!({"path": "a\u{1b}[31m.rs"})));
    snapshot!(world.observe_with_input(&["parse"], text.as_bytes()), @r#"
    exit 1
    --- stdout
    1 call
    read_file at bytes 21 to 79
      {
        "path": "a\u001b[31m.rs"
      }
      refused: "a\u{1b}[31m.rs" is not a file path; give one relative to the repository root, like "src/main.rs"
    "#);
    let text = r#"{"name": "Read", "arguments": {"file_path": "a.rs", "offset": "1"}}"#;
    snapshot!(world.observe_with_input(&["parse"], text.as_bytes()), @r#"
    exit 0
    --- stdout
    1 call
    read_file at bytes 0 to 67, repaired: Read taken as read_file, file_path taken as path, offset taken as start_line
      {
        "path": "a.rs",
        "start_line": 1
      }
    "#);
    snapshot!(world.observe_with_input(&["parse"], b"All done, nothing to call."), @r"
    exit 1
    --- stdout
    no call
    ");
    snapshot!(world.observe_with_input(&["parse", "--json"], br#"{"tool": "read_file", "arguments": {"path": "src/"#), @r#"
    exit 1
    --- stdout
    {"status":"malformed","calls":[],"why":"The answer ended inside a string of the tool call, so nothing was done: send the whole call again, in smaller pieces if it is long."}
    "#);
}

#[test]
fn an_output_is_read_from_a_file() {
    let world = World::with(&[("out.txt", r#"{"tool": "x", "arguments": {}}"#)]);
    let seen = world.observe(&["parse", "out.txt", "--json"]);
    assert!(seen.starts_with("exit 1\n") && seen.contains(r#""end":30"#), "{seen}");
    assert!(seen.contains(r#""refused":"there is no tool \"x\"; the tools are read_file, "#), "{seen}");
    snapshot!(world.observe(&["parse", "missing.txt"]), @r"
    exit 2
    --- stderr
    error: cannot open missing.txt: No such file or directory (os error 2)
    ");
}

#[test]
fn an_output_is_parsed_as_in_a_run() {
    let world = World::with_a_bug();
    let judged = |text: &str| -> serde_json::Value {
        let output = world.agent_with_input(&["parse", "--json"], text.as_bytes());
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let runs = value["calls"].as_array().unwrap().iter().any(|call| call["refused"].is_null());
        assert_eq!(output.status.code(), Some(i32::from(!runs)), "{text}: {value}");
        value
    };
    for (text, why) in [
        (call("teleport", json!({})), "there is no tool"),
        (call("read_file", json!({})), "required"),
        (call("read_file", json!({"path": "add.sh", "wings": 2})), "no argument"),
        (call("read_file", json!({"path": "add.sh", "start_line": "first"})), "start_line"),
        (call("bash", json!({"command": "sleep 9", "background": true})), "background"),
        (r#"{"tool": "run_command", "arguments": {"command": `ls`}}"#.to_owned(), "took a guess"),
    ] {
        let value = judged(&text);
        let refused = value["calls"][0]["refused"].as_str().unwrap_or_default();
        assert!(refused.contains(why), "{text}: {value}");
    }
    let value = judged(&call("read_file", json!({"path": "add.sh", "start_line": "2"})));
    assert_eq!(
        value["calls"][0]["arguments"],
        json!({"path": "add.sh", "start_line": 2}),
        "the call should be shown as it would run"
    );
    assert_eq!(value["calls"][0]["repairs"], json!(["start_line coerced"]));
    assert_eq!(value["calls"][0]["written"]["arguments"]["start_line"], "2");
    let patch = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";
    let value = judged(&format!("I fix it.\n\n```diff\n{patch}```\n"));
    assert_eq!(value["calls"][0]["tool"], "apply_patch", "{value}");
    assert_eq!(value["calls"][0]["repairs"], json!(["the whole answer taken as a call"]));
    let value = judged(&format!("```diff\n{patch}```\nThis fixes it. Shall I go on?"));
    assert!(value["why"].as_str().unwrap().contains("not at the end"), "{value}");
}

#[test]
fn each_line_of_chunks_gets_a_result() {
    let world = World::new();
    let input = [
        r#"{"id": "a", "chunks": ["Look. {\"tool\": \"t\", \"argu", "ments\": {\"n\": 1}} y"], "end": "stop"}"#,
        r#"{"id": 2, "chunks": [{"hex": "7b22746f6f6c223a2274222c22617267756d656e7473223a7b7d7d"}], "end": "length"}"#,
        r#"{"id": "c", "chunks": ["just words"], "end": "stop", "expected": "none"}"#,
        r#"{"id": "d", "chunks": ["{\"tool\": \"t\", \"arguments\": {\"a\": \"b"], "end": "length"}"#,
    ]
    .join("\n");
    snapshot!(world.observe_with_input(&["parse", "--chunks"], input.as_bytes()), @r#"
    exit 0
    --- stdout
    {"id":"a","status":"calls","calls":[{"tool":"t","arguments":{"n":1},"start":6,"end":42,"repaired":false,"refused":"there is no tool \"t\"; the tools are read_file, apply_patch, run_tests, list_files, search, run_command, finish"}],"why":null}
    {"id":2,"status":"calls","calls":[{"tool":"t","arguments":{},"start":0,"end":27,"repaired":false,"refused":"there is no tool \"t\"; the tools are read_file, apply_patch, run_tests, list_files, search, run_command, finish"}],"why":null}
    {"id":"c","status":"none","calls":[],"why":null}
    {"id":"d","status":"malformed","calls":[],"why":"The answer ended inside a string of the tool call, so nothing was done: send the whole call again, in smaller pieces if it is long."}
    "#);
}

#[test]
fn invalid_lines_of_chunks_are_reported_and_the_other_lines_are_read() {
    let world = World::new();
    let input = b"nonsense\n{\"id\": 1}\n\n{\"id\": 2, \"chunks\": [5]}\n{\"id\": 3, \"chunks\": [{\"hex\": \"0\"}]}\n{\"id\": 4, \"chunks\": [], \"end\": \"never\"}\n\xff\n{\"id\": 5, \"chunks\": []}";
    snapshot!(world.observe_with_input(&["parse", "--chunks"], input), @r#"
    exit 2
    --- stdout
    {"id":null,"error":"line 1: invalid case: expected ident at line 1 column 2"}
    {"id":1,"error":"line 2: invalid case: missing field `chunks` at line 1 column 9"}
    {"id":2,"error":"line 4: invalid case: a chunk is a string or {\"hex\": \"…\"} at line 1 column 23"}
    {"id":3,"error":"line 5: \"hex\" must be pairs of hexadecimal digits"}
    {"id":4,"error":"line 6: invalid case: unknown variant `never`, expected `stop` or `length` at line 1 column 38"}
    {"id":null,"error":"line 7: invalid case: expected value at line 1 column 1"}
    {"id":5,"status":"none","calls":[],"why":null}
    --- stderr
    error: some lines are invalid; see their answers for details
    "#);
}

#[test]
fn tools_list_shows_each_tool_with_its_effect() {
    let seen = World::new().observe(&["tools", "list"]);
    for name in ["read_file", "apply_patch", "run_tests", "list_files", "search", "run_command", "finish"] {
        assert!(seen.lines().any(|l| l.starts_with(name)), "{name}: {seen}");
    }
}

#[test]
fn the_schema_of_a_tool_is_json() {
    let world = World::new();
    let output = world.agent(&["tools", "schema", "read_file"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["required"], json!(["path"]));
    snapshot!(world.observe(&["tools", "schema", "read_flie"]), @r#"
    exit 2
    --- stderr
    error: unknown tool "read_flie"; the tools are read_file, apply_patch, run_tests, list_files, search, run_command, finish
    "#);
}

#[test]
fn tools_call_behaves_as_in_a_run() {
    let world = World::with_a_bug();
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"path": "add.sh"}"#]), @r"
    exit 0
    --- stdout
    add.sh lines 1-3 of 3
    1|add() {
    2|    echo $(($1 - $2))
    3|}
    ");
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"path": "../secret"}"#]), @r"
    exit 2
    --- stderr
    error: ../secret is outside the repository; use a path relative to its root
    ");
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"pth": "add.sh"}"#]), @r#"
    exit 2
    --- stderr
    error: read_file has no argument "pth"; its arguments are end_line, path, start_line
    "#);
    snapshot!(world.observe(&["tools", "call", "read_file", "{'path'"]), @r"
    exit 2
    --- stderr
    error: invalid JSON in the arguments: key must be a string at line 1 column 2
    ");
    let seen = world.observe(&["tools", "call", "run_tests", "--json"]);
    assert!(seen.starts_with("exit 1\n") && seen.contains(r#""status": "failed""#), "{seen}");
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_fix_it() {
    let world = World::new();
    let output = world.agent(&["doctor"]).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 1\n"), "{seen}");
    assert!(seen.contains("FAIL  model") && seen.contains("no test command detected"), "{seen}");
    assert!(seen.contains("--verify CMD"), "{seen}");
}

#[test]
fn doctor_passes_if_a_run_can_start() {
    let world = World::with_a_bug();
    let server = Server::start();
    let output = world.agent(&["doctor", "--json"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    let subjects: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| &f["subject"]).collect();
    for subject in
        ["settings", "server", "model", "window", "approach", "edits", "sandbox", "git", "tests", "state"]
    {
        assert!(subjects.iter().any(|s| **s == subject), "{subject}: {report:#}");
    }
}

#[test]
fn chunks_may_be_a_file() {
    let world = World::with(&[("cases.jsonl", "{\"id\": 1, \"chunks\": [\"x\"], \"end\": \"stop\"}\n")]);
    let output = world.agent(&["parse", "--chunks", "cases.jsonl"]).output().unwrap();
    assert_eq!(
        json_lines(&String::from_utf8(output.stdout).unwrap()),
        [json!({"id": 1, "status": "none", "calls": [], "why": null})]
    );
}
