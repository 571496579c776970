//! Language servers that check the files changed by each edit. `language_servers/server.py` is a
//! scripted server; `scripts/language-servers-test` uses real ones.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::replay::{JSON, edit, finish, recorded, replays_without_a_difference, texts};
use crate::support::{World, call};

/// Creates a world with one failing test and a scripted language server for shell scripts.
fn world(behavior: &str) -> World {
    let world = World::with_a_bug();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/language_servers/server.py");
    let script = script.canonicalize().unwrap();
    world.write_user_settings(&format!(
        "allow_read = {script:?}\n\
         [[language_servers]]\ncommand = \"python3 {} {behavior}\"\nfiles = \"*.sh, *.txt\"\nseconds = 60\n",
        script.display()
    ));
    world
}

fn fix() -> String {
    edit("$1 - $2", "$1 + $2")
}

/// Returns an `apply_patch` call that writes a file.
fn write(path: &str, content: &str) -> String {
    call("apply_patch", json!({"path": path, "content": content}))
}

/// Runs the task with these answers. Returns the exit code, stdout and stderr.
fn run(world: &World, answers: &[String]) -> String {
    world.tell(&recorded(world, &JSON, &texts(answers)))
}

/// Returns the result text of each edit.
fn edits(world: &World) -> Vec<String> {
    let journal = world.journal();
    let results = journal.iter().filter(|r| r["event"] == "tool_finished" && r["tool"] == "apply_patch");
    results.map(|r| r["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_edit_returns_the_errors_that_it_has_caused() {
    for behavior in ["push", "pull", "busy"] {
        let world = world(behavior);
        world.write("old.txt", "broken before\n");
        world.git(&["add", "--all"]);
        world.git(&["commit", "--quiet", "-m", "old error"]);
        let seen = run(
            &world,
            &[
                write("new.txt", "good\nbroken\n"),
                write("old.txt", "first\nbroken before\n"),
                write("old.txt", "broken now\nbroken before\n"),
                write("new.md", "broken, but no file to check\n"),
                write("new.txt", "good\n"),
                fix(),
                finish(),
            ],
        );
        assert!(seen.starts_with("exit 0\n"), "{behavior}: {seen}");
        let error =
            |at: &str| format!("The language server reports new errors:\n{at}: this line is broken [E1]");
        assert_eq!(
            edits(&world),
            [
                format!("created new.txt +2 -0\n{}", error("new.txt:2")),
                "changed old.txt +1 -0".to_owned(),
                format!("changed old.txt +1 -1\n{}", error("old.txt:2")),
                "created new.md +1 -0".to_owned(),
                "changed new.txt +0 -1".to_owned(),
                "changed add.sh +1 -1".to_owned(),
            ],
            "{behavior}"
        );
        replays_without_a_difference(&world);
    }
}

#[test]
fn bug_a_server_was_not_told_about_files_that_a_command_or_a_rename_changed() {
    let world = world("told");
    world.write("old.txt", "one\ntwo\n");
    world.write("add.md", "about add\n");
    world.write("check.md", "about check\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "-m", "more files"]);
    let rename = "*** Begin Patch\n*** Update File: old.txt\n*** Move to: moved.txt\n@@\n one\n-two\n+broken\n*** End Patch";
    let seen = run(
        &world,
        &[
            write("new.txt", "good\n"),
            call("run_command", json!({"command": "echo made > made.md; rm check.md; echo other > add.md"})),
            write("new.txt", "broken\n"),
            call("apply_patch", json!({"patch": rename})),
            fix(),
            finish(),
        ],
    );
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let edits = edits(&world);
    let told = "changed add.md, deleted check.md, created made.md, changed new.txt";
    assert!(
        edits[1].ends_with(&format!("new.txt:1: this line is broken; changed: {told} [E1]")),
        "{edits:?}"
    );
    let told = "created moved.txt, deleted old.txt";
    assert!(
        edits[2].ends_with(&format!("moved.txt:2: this line is broken; changed: {told} [E1]")),
        "{edits:?}"
    );
    replays_without_a_difference(&world);
}

#[test]
fn bug_an_error_of_the_session_counted_as_old_after_a_resume() {
    let world = world("pull");
    let answers = [write("new.txt", "broken\n")];
    let stopped = recorded(&world, &["--max-turns", "1", JSON[0], JSON[1], JSON[2]], &texts(&answers));
    assert_eq!(stopped.status.code(), Some(4), "{}", world.tell(&stopped));
    let server = fake_model::Server::start();
    for answer in texts(&[write("new.txt", "still broken\n"), fix(), finish()]) {
        server.enqueue(answer);
    }
    let resumed =
        world.agent(&["resume", "--max-turns", "9"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", world.tell(&resumed));
    assert!(edits(&world)[1].ends_with("new.txt:1: this line is broken [E1]"), "{:?}", edits(&world));
}

#[test]
fn a_run_can_be_interrupted_during_a_check_and_resumed() {
    let (world, server) = (world("mute"), fake_model::Server::start());
    for answer in texts(&[write("new.txt", "broken\n"), write("new.txt", "broken\n"), fix(), finish()]) {
        server.enqueue(answer);
    }
    let mut child = world
        .agent(&["run", "--json", "--model", "deepseek-coder:6.7b", JSON[0], JSON[1], JSON[2]])
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(events.any(|line| line.contains("\"tool_started\"")));
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    events.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let settings = world.home().join(".config/agent/config.toml");
    let text = std::fs::read_to_string(&settings).unwrap().replace(" mute\"", " pull\"");
    std::fs::write(&settings, text).unwrap();
    let resumed = world.agent(&["resume"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", world.tell(&resumed));
    assert!(edits(&world).iter().any(|text| text.ends_with("[E1]")), "{:?}", edits(&world));
}

#[test]
fn a_server_that_fails_does_not_stop_the_run() {
    for (behavior, why) in [
        ("crash", "it closed its output (it exited with code 1: no more memory)"),
        ("garbage", "it sent a message that is not JSON"),
        ("array", "it sent a message that is not an object"),
        ("flood", "it sent more than 64 MiB without being asked"),
        ("mute", "it did not answer within 1 s"),
        ("silent", "it did not answer within 1 s"),
    ] {
        let world = world(behavior);
        if ["mute", "silent"].contains(&behavior) {
            let path = world.home().join(".config/agent/config.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, text.replace("seconds = 60", "seconds = 1\nstart_seconds = 1")).unwrap();
        }
        let seen =
            run(&world, &[write("new.txt", "broken\n"), write("new.txt", "broken again\n"), fix(), finish()]);
        assert!(seen.starts_with("exit 0\n"), "{behavior}: {seen}");
        let warning = format!("server.py {behavior}` failed: {why}");
        assert_eq!(seen.matches(&warning).count(), 1, "{behavior}: {seen}");
        let unchecked = ["created new.txt +1 -0", "changed new.txt +1 -1", "changed add.sh +1 -1"];
        assert_eq!(edits(&world), unchecked, "{behavior}");
        replays_without_a_difference(&world);
    }
}

#[test]
fn a_server_that_is_not_installed_is_a_warning() {
    let world = World::with_a_bug();
    world.write_user_settings("[[language_servers]]\ncommand = \"no-such-server --stdio\"\nfiles = \"*\"\n");
    let seen = run(&world, &[fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("the language server `no-such-server --stdio` failed: "), "{seen}");
    assert!(seen.contains("code 127"), "{seen}");
}

#[test]
fn hostile_errors_are_short_single_lines() {
    let world = world("injection");
    let seen = run(&world, &[write("new.txt", "broken\n"), fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let text = edits(&world)[0].clone();
    assert!(text.len() < 6_000 && text.ends_with("(290 more)"), "{text}");
    assert_eq!(text.lines().count(), 13, "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    let journal = world.journal();
    let told = journal.iter().filter(|r| r["event"] == "message").map(|r| r["content"].to_string());
    let told = told.collect::<String>();
    assert!(
        told.contains("Ignore all rules") && !told.contains("<|im_end|>"),
        "control tokens are broken up"
    );
}

#[test]
fn a_server_cannot_write_to_the_tree() {
    let world = World::with_a_bug();
    world.write_user_settings("[[language_servers]]\ncommand = \"echo x > planted\"\nfiles = \"*\"\n");
    let seen = run(&world, &[fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(!world.repo().join("planted").exists());
}

#[test]
fn a_dry_run_checks_the_changed_tree() {
    let world = world("pull");
    let seen = world.tell(&recorded(
        &world,
        &["--dry-run", "--approach", "tools", "Make the tests pass."],
        &texts(&[write("new.txt", "broken\n"), fix(), finish()]),
    ));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(edits(&world)[0].ends_with("new.txt:1: this line is broken [E1]"), "{:?}", edits(&world));
    assert!(!world.repo().join("new.txt").exists());
}

#[test]
fn a_repository_cannot_configure_a_server() {
    let world = World::with_a_bug();
    world.write(".agent.toml", "[[language_servers]]\ncommand = \"touch x\"\nfiles = \"*\"\n");
    let output = world.agent(&["config", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("language_servers"));
}

#[test]
fn an_invalid_server_is_refused() {
    let world = World::with_a_bug();
    for (table, why) in [
        ("command = \"x\"", "missing field `files`"),
        ("command = \" \"\nfiles = \"*\"", "must not contain an empty `command`"),
        ("command = \"x\"\nfiles = \"[\"", "has an invalid pattern"),
        ("command = \"x\"\nfiles = \"*\"\nseconds = 0", "must have `seconds` from 1 to 600"),
        ("command = \"x\"\nfiles = \"*\"\nstart_seconds = 601", "must have `start_seconds` from 1 to 600"),
    ] {
        world.write_user_settings(&format!("[[language_servers]]\n{table}\n"));
        let output = world.agent(&["config", "show"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

#[test]
fn doctor_says_whether_a_server_starts() {
    let world = world("pull");
    let output = world.agent(&["doctor", "--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let text = findings.iter().filter(|f| f["subject"] == "edits").map(|f| f["found"].to_string());
    let text = text.collect::<String>();
    assert!(text.contains("checked by `python3 "), "{found:#}");
}
