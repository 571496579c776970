//! `agent resume`: a killed run continues, and ends as if it had not been interrupted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Starts a server that chooses its answer based on how many answers the conversation already has.
pub(crate) fn server(answers: Vec<String>) -> Server {
    let server = Server::start();
    server.fallback(Reply::from_fn(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let answered = messages.iter().filter(|m| m["role"] == "assistant").count();
        Reply::text(answers.get(answered).cloned().unwrap_or_else(|| call("finish", json!({}))))
    }));
    server
}

fn command(world: &World, server: &Server, args: &[&str]) -> std::process::Command {
    let mut command = world.agent(args);
    command.env("OLLAMA_HOST", server.url());
    command
}

const RUN: [&str; 7] =
    ["run", "--json", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."];

/// Kills the run after `lines` events. Returns whether there were that many.
fn killed(world: &World, server: &Server, lines: usize) -> bool {
    let mut child =
        command(world, server, &RUN).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let events = BufReader::new(child.stdout.take().unwrap()).lines().take(lines).count();
    let _ = child.kill();
    child.wait().unwrap();
    events == lines
}

/// Returns the name and content of every file in the repository's root folder.
fn tree(world: &World) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(world.repo()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            out.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    out
}

/// Returns the messages of each request to the model, without consecutive duplicates.
fn asked(server: &Server) -> Vec<Value> {
    let bodies = server.chats().into_iter().map(|r| serde_json::from_slice::<Value>(&r.body).unwrap());
    let mut out: Vec<Value> = bodies.map(|body| body["messages"].clone()).collect();
    out.dedup();
    out
}

fn answers() -> Vec<String> {
    let edit = |search: &str, replace: &str| json!({"path": "add.sh", "search": search, "replace": replace});
    let patch = "*** Begin Patch\n*** Add File: notes.txt\n+fixed\n*** Update File: add.sh\n@@\n-    echo $(($1 / $2))\n+    echo $(($1 + $2))\n*** End Patch\n";
    vec![
        call("read_file", json!({"path": "add.sh"})),
        call("apply_patch", json!({"edits": [edit("$1 - $2", "$1 * $2")]})),
        "I will look again.".into(),
        call(
            "apply_patch",
            json!({"edits": [edit("nowhere(a)\nnowhere(b)\nnowhere(c)\nnowhere(d)\n", "x")]}),
        ),
        call("apply_patch", json!({"edits": [edit("$1 * $2", "$1 / $2")]})),
        call("search", json!({"pattern": "echo"})),
        call("apply_patch", json!({ "patch": patch })),
        call("finish", json!({})),
    ]
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_killed_after_any_event_resumes_to_the_same_tree_and_requests() {
    let (world, whole) = (World::with_a_bug(), server(answers()));
    let output = command(&world, &whole, &RUN).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lines = output.stdout.iter().filter(|b| **b == b'\n').count();
    let (wanted, requests) = (tree(&world), asked(&whole));
    assert!(lines > 60 && requests.len() == 8, "{lines} {}", requests.len());
    for cut in (1..lines).step_by(2) {
        let (world, server) = (World::with_a_bug(), server(answers()));
        assert!(killed(&world, &server, cut));
        let output = command(&world, &server, &["resume"]).output().unwrap();
        let last = world.journal().last().unwrap().clone();
        if !text(&output).contains("has ended") {
            assert_eq!(output.status.code(), Some(0), "after {cut}: {}", text(&output));
        }
        assert_eq!(last["ending"]["kind"], "verified", "after {cut}: {last}");
        assert_eq!(tree(&world), wanted, "after {cut}");
        assert_eq!(asked(&server), requests, "after {cut}");
    }
}

/// The bug: old setting names were silently ignored.
#[test]
fn settings_recorded_by_an_earlier_version_keep_their_meaning_or_cause_a_warning() {
    let world = World::with_a_bug();
    let server = server(answers());
    let output = command(&world, &server, &[&RUN[..], &["--max-turns", "1"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", world.tell(&output));
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    let journal = world.home().join(".local/state/agent/sessions").join(id).join("journal.jsonl");
    let old = std::fs::read_to_string(&journal).unwrap();
    let (now, then) = (r#"["approach","tools"]"#, r#"["dialect","json"],["edit_form","all"]"#);
    assert!(old.contains(now), "{old}");
    std::fs::write(&journal, old.replacen(now, then, 1)).unwrap();
    let output = command(&world, &server, &["resume", "--max-turns", "2"]).output().unwrap();
    let seen = world.tell(&output);
    let warning =
        r#"warning: the session's setting edit_form = "all" is ignored: this version does not recognize it"#;
    assert!(seen.contains(warning) && !seen.contains("dialect"), "{seen}");
}

#[test]
fn a_run_without_changes_resumes_and_replays() {
    let done = || call("finish", json!({"summary": "It adds."}));
    let answers = || vec![call("Read", json!({"file_path": "add.sh"})), done(), done()];
    let run: Vec<&str> = RUN.iter().copied().chain(["--verify", "true"]).collect();
    let (world, whole) = (World::with_a_bug(), server(answers()));
    let output = command(&world, &whole, &run).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(world.journal().pop().unwrap()["ending"]["kind"], "no_change");
    assert!(world.observe(&["replay", "last"]).starts_with("exit 0\n"));
    let lines = output.stdout.iter().filter(|b| **b == b'\n').count();
    let requests = asked(&whole);
    for cut in (4..lines).step_by(5) {
        let (world, server) = (World::with_a_bug(), server(answers()));
        let mut child =
            command(&world, &server, &run).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).lines().take(cut).count();
        let _ = child.kill();
        child.wait().unwrap();
        command(&world, &server, &["resume"]).output().unwrap();
        let last = world.journal().pop().unwrap();
        assert_eq!(
            (&last["ending"]["kind"], &last["message"]),
            (&json!("no_change"), &json!("It adds.")),
            "{cut}"
        );
        assert_eq!(asked(&server), requests, "after {cut}");
    }
}

#[test]
fn a_run_resumes_after_a_reboot_with_a_fresh_server() {
    let (world, whole) = (World::with_a_bug(), server(answers()));
    command(&world, &whole, &RUN).output().unwrap();
    let (wanted, requests) = (tree(&world), asked(&whole));
    let (world, before) = (World::with_a_bug(), server(answers()));
    let temporary = tempfile::tempdir().unwrap();
    let mut run = command(&world, &before, &RUN);
    run.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = run.spawn().unwrap();
    let events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let finished = |line: &String| line.contains("\"tool_finished\"") && line.contains("apply_patch");
    assert!(events.into_iter().any(|line| finished(&line)));
    child.kill().unwrap();
    child.wait().unwrap();
    let first = asked(&before);
    // A reboot removes temporary files, processes and the server's memory, but lock files remain.
    drop((temporary, before));
    let after = server(answers());
    let output = command(&world, &after, &["resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(tree(&world), wanted);
    let mut both = first;
    both.extend(asked(&after));
    both.dedup();
    assert_eq!(both, requests);
}

#[test]
fn an_interrupted_command_is_reported_and_not_rerun() {
    let world = World::with_a_bug();
    let server = server(vec![
        call("run_command", json!({"command": "echo begun >> log.txt; sleep 1000"})),
        call(
            "apply_patch",
            json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
        ),
        call("finish", json!({})),
    ]);
    let mut child =
        command(&world, &server, &RUN).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let started = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("\"tool_started\"") && line.contains("run_command"));
    assert!(started.is_some());
    // Wait until the command has started.
    while std::fs::read_to_string(world.repo().join("log.txt")).unwrap_or_default() != "begun\n" {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = command(&world, &server, &["resume", "last"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.read("log.txt"), "begun\n", "the command should not run again");
    let message =
        asked(&server)[1].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    assert!(message.contains("interrupted: the agent was stopped while this ran"), "{message}");
}

#[test]
fn conflicting_changes_are_reported_and_not_overwritten() {
    let world = World::with_a_bug();
    let server = server(answers());
    let mut lines = 0;
    // Run up to the first edit.
    let mut child =
        command(&world, &server, &RUN).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        lines += usize::from(line.contains("\"tool_finished\"") && line.contains("apply_patch"));
        if lines == 1 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.write("add.sh", "# by hand\nadd() {\n    echo $(($1 * $2))\n}\n");
    let output = command(&world, &server, &["resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("resumed; others have changed these files: add.sh"), "{}", text(&output));
    assert_eq!(world.read("add.sh"), "# by hand\nadd() {\n    echo $(($1 + $2))\n}\n");
}

#[test]
fn only_an_unfinished_session_can_be_resumed_without_a_message() {
    let (world, server) = (World::with_a_bug(), server(answers()));
    let output = command(&world, &server, &["resume"]).output().unwrap();
    assert!(text(&output).contains("there is no session"), "{}", text(&output));
    command(&world, &server, &RUN).output().unwrap();
    let output = command(&world, &server, &["resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("the session has ended: verified"), "{}", text(&output));
}

/// Returns the answers for a run, followed by those for continuing it with a message.
fn continued_answers() -> Vec<String> {
    let edit = json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]});
    vec![
        call("apply_patch", edit),
        call("finish", json!({})),
        call("apply_patch", json!({"path": "README", "content": "It adds.\n"})),
        call("finish", json!({"summary": "documented"})),
    ]
}

const MESSAGE: &str = "also update the docs";

#[test]
fn a_finished_session_continues_with_a_message_in_the_same_conversation_and_replays() {
    let (world, server) = (World::with_a_bug(), server(continued_answers()));
    assert_eq!(command(&world, &server, &RUN).output().unwrap().status.code(), Some(0));
    let first = server.chats();
    let output = command(&world, &server, &["resume", "last", MESSAGE]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(MESSAGE), "{}", text(&output));
    assert_eq!(world.read("README"), "It adds.\n");
    let chats = server.chats();
    assert_eq!((first.len(), chats.len()), (2, 4));
    let sent = |n: usize| String::from_utf8(chats[n].body.clone()).unwrap();
    let (before, after) = (sent(1), sent(2));
    let prefix = before.split("],\"options\"").next().unwrap();
    assert!(
        prefix.len() > 1_000 && after.starts_with(prefix),
        "the prefix should be the same, byte for byte:\n{before}\n{after}"
    );
    let message =
        asked(&server)[2].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    assert!(message.starts_with("The user says: also update the docs"), "{message}");
    let replayed = world.observe(&["replay", "last"]);
    assert!(replayed.starts_with("exit 0\n"), "{replayed}");
    let ended = command(&world, &server, &["resume"]).output().unwrap();
    assert!(text(&ended).contains("agent resume SESSION \"what to do next\""), "{}", text(&ended));
}

#[test]
fn a_session_killed_after_a_message_continues_with_it() {
    let (world, whole) = (World::with_a_bug(), server(continued_answers()));
    command(&world, &whole, &RUN).output().unwrap();
    let resume = ["resume", "last", MESSAGE, "--json"];
    let output = command(&world, &whole, &resume).output().unwrap();
    let lines = output.stdout.iter().filter(|b| **b == b'\n').count();
    let (wanted, requests) = (tree(&world), asked(&whole));
    for cut in (1..lines).step_by(7) {
        let (world, server) = (World::with_a_bug(), server(continued_answers()));
        command(&world, &server, &RUN).output().unwrap();
        let mut child =
            command(&world, &server, &resume).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).lines().take(cut).count();
        let _ = child.kill();
        child.wait().unwrap();
        command(&world, &server, &["resume"]).output().unwrap();
        assert_eq!(world.journal().pop().unwrap()["ending"]["kind"], "verified", "after {cut}");
        assert_eq!(tree(&world), wanted, "after {cut}");
        assert_eq!(asked(&server), requests, "after {cut}");
        assert!(world.observe(&["replay", "last"]).starts_with("exit 0\n"), "after {cut}");
    }
}

#[test]
fn a_message_is_not_lost_when_the_server_is_down() {
    let (world, server) = (World::with_a_bug(), server(continued_answers()));
    command(&world, &server, &RUN).output().unwrap();
    let down = ["resume", "last", MESSAGE, "--base-url", "http://127.0.0.1:9"];
    assert_eq!(command(&world, &server, &down).output().unwrap().status.code(), Some(5));
    let output = command(&world, &server, &["resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.read("README"), "It adds.\n");
}

#[test]
fn a_killed_session_cannot_be_forked() {
    let (world, server) = (World::with_a_bug(), server(answers()));
    assert!(killed(&world, &server, 20));
    let output = command(&world, &server, &["resume", "last", "--fork"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("cannot fork a session that was killed"), "{}", text(&output));
}

#[test]
fn a_fork_leaves_the_old_session_untouched() {
    let (world, server) = (World::with_a_bug(), server(continued_answers()));
    command(&world, &server, &RUN).output().unwrap();
    let sessions = || world.observe(&["sessions", "list", "--json"]);
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let old = sessions().lines().filter(|l| l.starts_with('{')).map(id).next_back().unwrap();
    let shown = world.observe(&["sessions", "show", &old, "--json"]);
    let output = command(&world, &server, &["resume", &old, MESSAGE, "--fork"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.observe(&["sessions", "show", &old, "--json"]), shown);
    let ids: Vec<String> = sessions().lines().filter(|l| l.starts_with('{')).map(id).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let new = ids.into_iter().find(|id| *id != old).unwrap();
    assert!(world.observe(&["replay", &new]).starts_with("exit 0\n"), "{}", world.observe(&["replay", &new]));
    let undone = world.observe(&["undo", &new]);
    assert!(undone.starts_with("exit 0\n"), "{undone}");
    assert!(
        world.read("add.sh").contains("$1 - $2"),
        "undoing the fork should also undo the changes of the old session"
    );
}

#[test]
fn two_runs_cannot_share_a_work_tree() {
    let world = World::with_a_bug();
    let server = Server::start();
    server.enqueue(Reply::empty().gate("answer").more(call("finish", json!({}))));
    let mut first =
        command(&world, &server, &RUN).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let asked = BufReader::new(first.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .any(|l| l.contains("\"request\""));
    assert!(asked);
    let second = command(&world, &server, &RUN).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let output = text(&second);
    assert!(output.contains("repo is in use by session ") && output.contains("(process "), "{output}");
    let resumed = command(&world, &server, &["resume"]).output().unwrap();
    assert!(text(&resumed).contains("is in use by process "), "{}", text(&resumed));
    first.kill().unwrap();
    first.wait().unwrap();
    server.release("answer");
}
