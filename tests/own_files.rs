//! The agent's own output and state files inside the repository are not part of the tree.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use crate::changes::{ADD, FIXED};
use crate::support::{JSON_RUN, World, call, json_lines};
use fake_model::{Reply, Server};
use serde_json::json;

fn answers() -> [String; 5] {
    [
        call(
            "apply_patch",
            json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
        ),
        call("run_command", json!({"command": "echo hi > made.txt"})),
        call("list_files", json!({})),
        call("search", json!({"pattern": "echo"})),
        call("finish", json!({})),
    ]
}

/// Runs a session with stdout and stderr redirected to these files in the repository.
fn session(world: &World, args: &[&str], out: File, err: File, state: Option<&str>) {
    let server = Server::start();
    answers().into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
    let mut all = JSON_RUN.to_vec();
    all.extend(args);
    let mut run = world.agent(&all);
    run.env("OLLAMA_HOST", server.url()).stdout(out).stderr(err);
    if let Some(state) = state {
        run.env("AGENT_STATE_DIR", state);
    }
    assert!(run.status().unwrap().success());
}

/// Checks that the run reports exactly the two changed files, and that neither its diff nor the
/// results of its tools contain any of the names in `never`.
fn check(events: &str, never: &[&str]) {
    // The file may also contain lines from stderr.
    let events: Vec<&str> = events.lines().filter(|line| line.starts_with('{')).collect();
    let events = json_lines(&events.join("\n"));
    let finished = events.last().unwrap();
    assert_eq!(finished["diff"]["files"], json!(["add.sh", "made.txt"]), "{finished}");
    for event in events.iter().filter(|e| e["event"] == "tool_finished" || e["event"] == "finished") {
        let text = format!("{}{}", event["text"], event["diff"]);
        never.iter().for_each(|name| assert!(!text.contains(name), "{name}: {text}"));
    }
}

#[test]
fn a_redirected_output_file_is_not_a_change_and_does_not_block_undo() {
    // First, each stream goes to its own file. Then, both go to a single file that git tracks.
    for (out, err) in [("events.jsonl", "err.log"), ("both.log", "both.log")] {
        let world = World::with_a_bug();
        world.write("both.log", "");
        world.git(&["add", "--all"]);
        world.git(&["commit", "--quiet", "--message=log"]);
        let open =
            |name: &str| File::options().create(true).append(true).open(world.repo().join(name)).unwrap();
        session(&world, &[], open(out), open(err), None);
        check(&world.read(out), &[out, err]);
        assert_eq!(world.read("add.sh"), FIXED);
        let undone = world.observe(&["undo", "last"]);
        assert!(undone.starts_with("exit 0"), "{undone}");
        assert_eq!(world.read("add.sh"), ADD);
        assert!(!world.repo().join("made.txt").exists() && world.repo().join(out).exists());
    }
}

#[test]
fn a_dry_run_ignores_its_output_files() {
    for state in [None, Some(".agent-state")] {
        let world = World::with_a_bug();
        let open = |name: &str| File::create(world.repo().join(name)).unwrap();
        // If the state folder is inside the repository, the dry run uses a copy of the repository.
        session(&world, &["--dry-run"], open("events.jsonl"), open("err.log"), state);
        check(&world.read("events.jsonl"), &["events.jsonl", "err.log", ".agent-state"]);
        assert_eq!(world.read("add.sh"), ADD);
    }
}

#[test]
fn a_state_folder_inside_the_repository_is_ignored() {
    let world = World::with_a_bug();
    let state = "state";
    let out = world.home().join("events.jsonl");
    session(
        &world,
        &[],
        File::create(&out).unwrap(),
        File::create(world.home().join("err")).unwrap(),
        Some(state),
    );
    check(&fs::read_to_string(out).unwrap(), &["journal.jsonl", "state/"]);
    let undone = world.agent(&["undo", "last"]).env("AGENT_STATE_DIR", state).status().unwrap();
    assert!(undone.success());
    assert_eq!(world.read("add.sh"), ADD);
}

#[test]
fn the_file_that_stdout_points_to_cannot_be_edited() {
    let world = World::with_a_bug();
    let out = world.repo().join("out.txt");
    let edit = json!({"path": "out.txt", "content": "x\n"}).to_string();
    let mut call = world.agent(&["tools", "call", "apply_patch", &edit]);
    let done = call.stdout(File::create(&out).unwrap()).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("out.txt may not be changed"), "{done:?}");
}

#[test]
fn an_event_log_inside_the_repository_does_not_block_undo() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let [edit, ..] = answers();
    // The command does not end until the first events have been written, so the events file looks
    // like a change made by the command.
    let command = "touch started; while [ ! -s events.jsonl ]; do :; done";
    let command = call("run_command", json!({ "command": command }));
    [edit, command, call("finish", json!({}))]
        .into_iter()
        .for_each(|answer| server.enqueue(Reply::text(answer)));
    let mut child =
        world.agent(&JSON_RUN).env("OLLAMA_HOST", server.url()).stdout(Stdio::piped()).spawn().unwrap();
    // Write the events late, like a slow `tee`.
    let (mut held, mut file) = (String::new(), None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        held.push_str(&format!("{line}\n"));
        if line.contains("\"tool_started\"") && line.contains("\"execute\"") {
            let mut is_running =
                || world.repo().join("started").exists() || child.try_wait().unwrap().is_some();
            while !is_running() {
                std::thread::yield_now();
            }
            file = Some(File::create(world.repo().join("events.jsonl")).unwrap());
        }
        if let Some(file) = &mut file {
            file.write_all(std::mem::take(&mut held).as_bytes()).unwrap();
        }
    }
    assert!(child.wait().unwrap().success());
    let events = world.read("events.jsonl");
    let undone = world.observe(&["undo", "last"]);
    assert!(undone.starts_with("exit 0"), "{undone}");
    assert!(undone.contains("warning: events.jsonl is not changed"), "{undone}");
    assert_eq!((world.read("add.sh"), world.read("events.jsonl")), (ADD.to_owned(), events));
    assert!(!world.repo().join("started").exists(), "the command's file should be removed");
}
