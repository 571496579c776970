//! Keys, tokens and passwords: the model, the journal and the screen get placeholders, while files
//! keep the real values.

use std::path::Path;
use std::process::Output;

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Returns an AWS key, assembled at run time so that secret scanners ignore this file.
fn aws() -> String {
    ["AKIA", "Q3VZLN5XKJWT7R2D"].concat()
}

fn github() -> String {
    ["ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv"].concat()
}

const PASSWORD: &str = "hunter2-very-secret";
const VARIABLE: &str = "Zx81-spectrum+9";
const KEY_LINES: [&str; 3] = [
    "MIIEowIBAAKCAQEAzk3mQ7xRtVbLpW2sYcNdHfGjK4uXoEiTzMvBqAnS6rC8hUyJ",
    "1gPwQkZxRtVbNwLpYcHfGjZxSdAeTuIoPlKjHgFdSaQwErTyUiOpAsDfGhJkLzXc",
    "q8ZkT4vN==",
];

fn app() -> String {
    format!("import os\n\nAWS_KEY = \"{}\"\nRETRIES = 3\n\ndef connect():\n    return AWS_KEY\n", aws())
}

fn key_file() -> String {
    format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n", KEY_LINES.join("\n"))
}

fn world() -> World {
    World::with(&[
        (".agent.toml", "verify = 'sh check.sh'\n"),
        (".gitignore", ".env\n"),
        (".env", &format!("DEBUG=1\nDB_PASSWORD={PASSWORD}\r\n")),
        ("app.py", &app()),
        ("server.pem", &key_file()),
        // The check prints a secret from the environment and one from a file.
        ("check.sh", &format!("echo expected {VARIABLE} and got {PASSWORD}\ngrep -q 'RETRIES = 5' app.py\n")),
        ("AGENTS.md", &format!("Deploy with {}.\n", github())),
    ])
}

/// Returns all values that must stay hidden.
fn values() -> Vec<String> {
    let fixed = [PASSWORD, VARIABLE].into_iter().chain(KEY_LINES).map(str::to_owned);
    fixed.chain([aws(), github(), "WngzMS1zcGVjdHJ1bSs5".into(), "Zx81-spectrum%2B9".into()]).collect()
}

/// Returns the placeholder that follows `behind` in the prompt.
fn placeholder(prompt: &str, behind: &str) -> String {
    let at = prompt.find(behind).unwrap_or_else(|| panic!("{behind:?} is not in {prompt}")) + behind.len();
    let name: String = prompt[at..].chars().take(15).collect();
    assert!(name.starts_with("[secret-") && name.ends_with(']'), "{name}");
    name
}

/// Returns all messages of a request in a single string.
fn prompt_text(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().filter_map(|m| m["content"].as_str()).collect::<Vec<_>>().join("\n")
}

/// Starts a server that sends `answers[n]` if the conversation already has `n` answers, and a
/// `finish` call after the last one. `{behind: TEXT}` in an answer is replaced with the placeholder
/// that follows that text in the prompt.
fn server(answers: &[&str]) -> Server {
    let server = Server::start();
    let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
    server.fallback(Reply::from_fn(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let answered = messages.iter().filter(|m| m["role"] == "assistant").count();
        let mut answer = answers.get(answered).cloned().unwrap_or_else(|| call("finish", json!({})));
        while let Some((before, rest)) = answer.split_once("{behind: ") {
            let (behind, after) = rest.split_once('}').unwrap();
            answer = format!(
                "{before}{}{after}",
                placeholder(&prompt_text(&request.body), &behind.replace("\\\"", "\""))
            );
        }
        // The answer is sent in chunks of a few bytes so that chunk boundaries fall inside values.
        Reply::text(answer).split_bytes(7)
    }));
    server
}

fn run(world: &World, server: &Server, args: &[&str]) -> Output {
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).env("DEPLOY_TOKEN", VARIABLE).output().unwrap()
}

/// Asserts that none of the values reached the model, the journal or the output.
fn hidden(world: &World, server: &Server, output: &Output) {
    let mut seen: Vec<(String, String)> = vec![
        ("standard output".into(), String::from_utf8_lossy(&output.stdout).into_owned()),
        ("standard error".into(), String::from_utf8_lossy(&output.stderr).into_owned()),
    ];
    for (i, request) in server.requests().iter().enumerate() {
        seen.push((format!("request {i}"), String::from_utf8_lossy(&request.body).into_owned()));
    }
    for line in world.journal() {
        seen.push((format!("journal: {}", line["event"]), line.to_string()));
    }
    for command in [&["sessions", "show", "last"][..], &["diff", "last"], &["sessions", "export", "last"]] {
        let shown = world.agent(command).env("DEPLOY_TOKEN", VARIABLE).output().unwrap();
        seen.push((format!("agent {command:?}"), String::from_utf8_lossy(&shown.stdout).into_owned()));
    }
    for value in values() {
        for (place, text) in &seen {
            assert!(!text.contains(&value), "{value} in {place}: {text}");
        }
    }
}

#[test]
fn secrets_reach_neither_model_nor_journal_nor_screen_and_survive_edits() {
    let world = world();
    let patch = "--- a/app.py\n+++ b/app.py\n@@ -1,7 +1,7 @@\n import os\n \n AWS_KEY = \"{behind: AWS_KEY = \"}\"\n-RETRIES = 3\n+RETRIES = 5\n \n def connect():\n     return AWS_KEY\n";
    let answers = [
        call("read_file", json!({"path": ".env"})),
        call("read_file", json!({"path": "app.py"})),
        call("read_file", json!({"path": "server.pem", "start_line": 3})),
        call("search", json!({"pattern": "AWS_KEY"})),
        call("run_command", json!({"command": "tail -n 2 server.pem; cat app.py server.pem; env"})),
        call("apply_patch", json!({"patch": patch})),
        call("finish", json!({})),
    ];
    let server = server(&answers.each_ref().map(String::as_str));
    let task = format!("Set RETRIES to 5. Log in with {}.", github());
    let output = run(&world, &server, &[&task]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("app.py"), app().replace("RETRIES = 3", "RETRIES = 5"));
    assert_eq!(world.read("server.pem"), key_file());
    assert_eq!(world.read(".env"), format!("DEBUG=1\nDB_PASSWORD={PASSWORD}\r\n"));
    hidden(&world, &server, &output);

    let prompt = prompt_text(&server.chats().last().unwrap().body);
    let password = placeholder(&prompt, "2|DB_PASSWORD=");
    assert!(
        prompt.contains(&format!("and got {password}")),
        "the same value should have the same placeholder: {prompt}"
    );
    let pem = &prompt[prompt.find("server.pem lines 3-").unwrap()..];
    let line = placeholder(pem, "3|");
    assert!(
        prompt.contains(&format!("3|{line}\n4|[secret-")),
        "each line of a key should have its own placeholder: {prompt}"
    );
    assert_eq!(
        prompt.matches("replaces a value that is hidden from you").count(),
        1,
        "the explanation should appear once: {prompt}"
    );
    assert!(!prompt.contains("changed since"), "no file should be reported as changed: {prompt}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("secrets hidden from the model"), "{stderr}");
    let refused = world.journal().iter().any(|r| r["event"] == "refused");
    assert!(!refused, "no call should have been refused");
}

#[test]
fn search_edits_patch_envelopes_and_whole_files_restore_secret_values() {
    let forms = [
        json!({"edits": [{"path": "app.py", "search": "\"{behind: AWS_KEY = \"}\"\nRETRIES = 3", "replace": "\"{behind: AWS_KEY = \"}\"\nRETRIES = 5"}]}),
        json!({"patch": "*** Begin Patch\n*** Update File: app.py\n@@\n AWS_KEY = \"{behind: AWS_KEY = \"}\"\n-RETRIES = 3\n+RETRIES = 5\n*** End Patch\n"}),
        json!({"patch": ["app.py", "<<<<<<< SEARCH", "AWS_KEY = \"{behind: AWS_KEY = \"}\"", "RETRIES = 3", "=======", "AWS_KEY = \"{behind: AWS_KEY = \"}\"", "RETRIES = 5", ">>>>>>> REPLACE"]}),
        json!({"path": "app.py", "content": "import os\n\nAWS_KEY = \"{behind: AWS_KEY = \"}\"\nRETRIES = 5\n\ndef connect():\n    return AWS_KEY\n"}),
    ];
    for form in forms {
        let world = world();
        let answers = [call("read_file", json!({"path": "app.py"})), call("apply_patch", form.clone())];
        let server = server(&answers.each_ref().map(String::as_str));
        let output = run(&world, &server, &["Set RETRIES to 5."]);
        assert_eq!(output.status.code(), Some(0), "{form}: {}", world.tell(&output));
        assert_eq!(world.read("app.py"), app().replace("RETRIES = 3", "RETRIES = 5"), "{form}");
        hidden(&world, &server, &output);
    }
}

#[test]
fn a_model_may_write_a_masked_value_instead_of_its_placeholder() {
    let world = world();
    let edit = json!({"edits": [{"path": "app.py", "search": format!("\"{}\"\nRETRIES = 3", aws()), "replace": format!("\"{}\"\nRETRIES = 5", aws())}]});
    let server = server(&[&call("apply_patch", edit)]);
    let output = run(&world, &server, &["Set RETRIES to 5."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("app.py"), app().replace("RETRIES = 3", "RETRIES = 5"));
}

#[test]
fn a_secret_moved_to_another_file_stays_masked() {
    let world = world();
    let answers = [
        call("read_file", json!({"path": "app.py"})),
        call(
            "apply_patch",
            json!({"edits": [
                {"path": "app.py", "search": "\"{behind: AWS_KEY = \"}\"\nRETRIES = 3", "replace": "os.environ[\"AWS_KEY\"]\nRETRIES = 5"},
            ]}),
        ),
        call("apply_patch", json!({"path": "notes.txt", "content": "plain {behind: AWS_KEY = \"} words\n"})),
        call("read_file", json!({"path": "notes.txt"})),
    ];
    let server = server(&answers.each_ref().map(String::as_str));
    let output = run(&world, &server, &["Move the key."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("notes.txt"), format!("plain {} words\n", aws()));
    hidden(&world, &server, &output);
}

#[test]
fn unknown_placeholders_and_placeholders_in_commands_are_refused() {
    let world = world();
    let answers = [
        call("apply_patch", json!({"path": "new.py", "content": "KEY = '[secret-000000]'\n"})),
        call("run_command", json!({"command": "echo '[secret-000000]'"})),
        call(
            "apply_patch",
            json!({"edits": [{"path": "app.py", "search": "RETRIES = 3", "replace": "RETRIES = 5"}]}),
        ),
    ];
    let server = server(&answers.each_ref().map(String::as_str));
    let output = run(&world, &server, &["Set RETRIES to 5."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert!(!world.repo().join("new.py").exists());
    let prompt = prompt_text(&server.chats().last().unwrap().body);
    assert!(
        prompt.contains("[secret-000000] is not the placeholder for any value in the files of this call"),
        "{prompt}"
    );
    assert!(prompt.contains("which a command cannot use"), "{prompt}");
}

#[test]
fn a_dry_run_shows_placeholders_and_applies_and_undoes_the_values() {
    let world = world();
    let before = app();
    let answers = [
        call("read_file", json!({"path": "app.py"})),
        call(
            "apply_patch",
            json!({"path": "app.py", "content": "AWS_KEY = \"{behind: AWS_KEY = \"}\"\nRETRIES = 5\n"}),
        ),
    ];
    let server = server(&answers.each_ref().map(String::as_str));
    let output = run(&world, &server, &["--dry-run", "Set RETRIES to 5."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("app.py"), before);
    hidden(&world, &server, &output);
    assert_eq!(world.agent(&["apply", "last"]).output().unwrap().status.code(), Some(0));
    assert_eq!(world.read("app.py"), format!("AWS_KEY = \"{}\"\nRETRIES = 5\n", aws()));
    assert_eq!(world.agent(&["undo", "last"]).output().unwrap().status.code(), Some(0));
    assert_eq!(world.read("app.py"), before);
}

#[test]
fn known_values_that_the_model_or_its_server_sends_are_masked_in_chunks_of_any_size() {
    for size in [1, 2, 3, 5, 11, 40] {
        let (world, server) = (world(), Server::start());
        server.enqueue(Reply::error(503, format!("the key {VARIABLE} is busy")));
        let text = format!("The token {VARIABLE} is also {VARIABLE}. And Zx81-spectru is no value.\n");
        server.enqueue(Reply::empty().thinking(format!("It was {VARIABLE}.")).more(text).split_bytes(size));
        server.enqueue(
            Reply::text(call("finish", json!({"summary": format!("used {VARIABLE}")}))).split_bytes(size),
        );
        let output = run(&world, &server, &["--json", "--max-turns", "2", "Say it."]);
        hidden(&world, &server, &output);
        let journal: Vec<_> = world.journal().iter().map(Value::to_string).collect();
        let journal = journal.join("\n");
        assert!(journal.contains("And Zx81-spectru is no value."), "{journal}");
        assert!(journal.contains("is also [secret-"), "{journal}");
    }
}

#[test]
fn a_resumed_run_sends_the_same_requests_and_keeps_secret_values() {
    let world = world();
    let answers = [
        call("read_file", json!({"path": "app.py"})),
        call(
            "apply_patch",
            json!({"edits": [{"path": "app.py", "search": "\"{behind: AWS_KEY = \"}\"\nRETRIES = 3", "replace": "\"{behind: AWS_KEY = \"}\"\nRETRIES = 5"}]}),
        ),
    ];
    let server = server(&answers.each_ref().map(String::as_str));
    let task = format!("Set RETRIES to 5 with {}.", github());
    let first = run(&world, &server, &["--max-turns", "1", &task]);
    assert_eq!(first.status.code(), Some(4), "{}", world.tell(&first));
    let resumed = world
        .agent(&["resume", "last", "--max-turns", "9"])
        .env("OLLAMA_HOST", server.url())
        .env("DEPLOY_TOKEN", VARIABLE)
        .output()
        .unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", world.tell(&resumed));
    assert_eq!(world.read("app.py"), app().replace("RETRIES = 3", "RETRIES = 5"));
    hidden(&world, &server, &resumed);
    let chats: Vec<_> = server.chats().iter().map(|r| prompt_text(&r.body)).collect();
    assert!(
        chats.windows(2).all(|pair| pair[1].starts_with(&pair[0])),
        "each request should extend the previous one"
    );
}

#[test]
fn a_session_with_secrets_and_its_masked_export_can_be_replayed() {
    let world = world();
    let server = server(&[
        &call("read_file", json!({"path": "app.py"})),
        &call("search", json!({"pattern": "PASSWORD|KEY"})),
        &call(
            "apply_patch",
            json!({"edits": [{"path": "app.py", "search": "RETRIES = 3", "replace": "RETRIES = 5"}]}),
        ),
        &call("finish", json!({})),
    ]);
    let output = run(&world, &server, &["Make the tests pass."]);
    assert!(output.status.success(), "{}", world.tell(&output));
    hidden(&world, &server, &output);
    let file = world.home().join("session.jsonl");
    let export = world
        .agent(&["sessions", "export", "last", "-o", file.to_str().unwrap()])
        .env("DEPLOY_TOKEN", VARIABLE)
        .output()
        .unwrap();
    assert!(export.status.success(), "{}", world.tell(&export));
    assert!(world.tell(&export).contains("are replaced with placeholders"), "{}", world.tell(&export));
    let exported = std::fs::read_to_string(&file).unwrap();
    for value in values() {
        assert!(!exported.contains(&value), "{value} should not be in the export");
    }
    for session in ["last", file.to_str().unwrap()] {
        let replay = world.agent(&["replay", session]).env("DEPLOY_TOKEN", VARIABLE).output().unwrap();
        assert!(replay.status.success(), "{session}: {}", world.tell(&replay));
    }
}

#[test]
fn an_export_replays_if_only_a_file_in_the_first_prompt_has_a_secret() {
    let world =
        World::with(&[(".agent.toml", "verify = 'grep -q \"RETRIES = 5\" app.py'\n"), ("app.py", &app())]);
    let server = server(&[
        &call(
            "apply_patch",
            json!({"edits": [{"path": "app.py", "search": "RETRIES = 3", "replace": "RETRIES = 5"}]}),
        ),
        &call("finish", json!({})),
    ]);
    let output = run(&world, &server, &["Set the RETRIES of app.py to 5."]);
    assert!(output.status.success(), "{}", world.tell(&output));
    let file = world.home().join("session.jsonl");
    world.observe(&["sessions", "export", "last", file.to_str().unwrap()]);
    let seen = World::new().observe(&["replay", file.to_str().unwrap()]);
    assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{seen}");
}

#[test]
fn only_the_user_can_turn_masking_off() {
    let world = world();
    let read = call("read_file", json!({"path": "app.py"}));
    let open = server(&[&read]);
    run(&world, &open, &["--no-mask-secrets", "Look."]);
    assert!(prompt_text(&open.chats().last().unwrap().body).contains(&aws()));
    let edit = json!({"edits": [{"path": "app.py", "search": format!("\"{}\"", aws()), "replace": "None"}]});
    let dry = ["--dry-run", "--preview", "unified", "--no-mask-secrets", "Remove it."];
    let output = run(&world, &server(&[&call("apply_patch", edit)]), &dry);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains(&format!("-AWS_KEY = \"{}\"", aws())), "{}", world.tell(&output));
    world.write(".agent.toml", "mask_secrets = false\n");
    let output = run(&world, &server(&[]), &["Look."]);
    assert_eq!(output.status.code(), Some(2), "{}", world.tell(&output));
}

#[test]
fn a_whole_file_answer_of_a_small_model_keeps_the_value() {
    let world = world();
    let server = Server::start();
    server.fallback(Reply::from_fn(|request| {
        let key = placeholder(&prompt_text(&request.body), "AWS_KEY = \"");
        Reply::text(format!("```python\nimport os\n\nAWS_KEY = \"{key}\"\nRETRIES = 5\n\ndef connect():\n    return AWS_KEY\n```\n"))
    }));
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "whole-file", "Set RETRIES to 5 in app.py."];
    let output =
        world.agent(&args).env("OLLAMA_HOST", server.url()).env("DEPLOY_TOKEN", VARIABLE).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("app.py"), app().replace("RETRIES = 3", "RETRIES = 5"));
    hidden(&world, &server, &output);
}

#[test]
fn session_folders_are_accessible_only_to_their_owner() {
    use std::os::unix::fs::PermissionsExt;
    let world = world();
    run(&world, &server(&[]), &["Look."]);
    let sessions = world.home().join(".local/state/agent/sessions");
    for entry in std::fs::read_dir(sessions).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(
            mode & 0o777,
            0o700,
            "logs and pre-images hold secret values, so only the owner may read them"
        );
    }
    assert!(Path::new(&world.repo()).exists());
}

#[test]
fn doctor_reports_what_is_masked() {
    let (world, server) = (world(), Server::start());
    let doctor = |args: &[&str]| {
        let mut all = vec!["doctor", "--model", "deepseek-coder:6.7b"];
        all.extend(args);
        let output =
            world.agent(&all).env("OLLAMA_HOST", server.url()).env("DEPLOY_TOKEN", VARIABLE).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().find(|line| line.contains(" secrets ")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert!(
        doctor(&[]).contains("masked: 1 value from environment variables, and text that looks like a key")
    );
    assert!(doctor(&["--no-mask-secrets"]).starts_with("warn"));
}
