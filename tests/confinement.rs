//! The sandbox that a run uses: what it reports, what it blocks, and what a killed agent leaves
//! behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use fake_model::{Reply, Server};
use serde_json::{Value, json};

use crate::support::{World, call};

const RUN: [&str; 6] = ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Look."];

/// Makes the server answer with a call to `run_command` for each of these lines, one per turn, and
/// then with a call to `finish`. Returns the command that starts the agent.
fn run(world: &World, server: &Server, flags: &[&str], lines: &[&str]) -> Command {
    for line in lines {
        server.enqueue(Reply::text(call("run_command", json!({"command": line}))));
    }
    server.fallback(Reply::text(call("finish", json!({}))));
    let mut command = world.agent(&[&RUN[..], flags].concat());
    command.env("OLLAMA_HOST", server.url());
    command
}

/// Returns the folders of all sessions, oldest first.
fn sessions(world: &World) -> Vec<PathBuf> {
    let folders = fs::read_dir(world.home().join(".local/state/agent/sessions")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn a_run_starts_by_saying_how_its_commands_are_confined() {
    for (flags, enforced, words) in
        [(&[][..], true, "sandbox "), (&["--dangerously-no-sandbox"], false, "  sandbox off; ")]
    {
        let (world, server) = (World::new(), Server::start());
        let seen = world.tell(&run(&world, &server, flags, &[]).output().unwrap());
        let lines: Vec<&str> = seen.lines().collect();
        let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
        let (session, note, model) = (at("session "), at(words), at("model "));
        assert!(session.is_some() && session < note && note < model, "{words}: {seen}");
        let journal = world.journal();
        let event = journal.iter().find(|record| record["event"] == "sandbox").unwrap();
        assert_eq!(event["enforced"], enforced);
        assert!(lines[note.unwrap()].ends_with(event["summary"].as_str().unwrap()), "{event}");
        let shown = world.observe(&["sandbox", "--explain"]);
        assert!(
            !enforced
                || event["lines"].as_array().unwrap().iter().all(|l| shown.contains(l.as_str().unwrap())),
            "{event}"
        );
        assert!(world.observe(&["sessions", "show"]).contains(lines[note.unwrap()]));
    }
}

#[test]
fn a_plan_does_not_mention_the_sandbox() {
    let (world, server) = (World::new(), Server::start());
    let seen = world.tell(&run(&world, &server, &["--dry-run=plan"], &[]).output().unwrap());
    assert!(!seen.contains("sandbox") && !world.events().contains(&"sandbox".to_owned()), "{seen}");
}

#[test]
fn the_model_learns_about_refused_and_allowed_hosts() {
    let (world, server) = (World::new(), Server::start());
    let fetch = "python3 -Sc \"import urllib.request; urllib.request.urlopen('http://example.org/')\"";
    let flags = ["--allow-host", "docs.test"];
    let output = run(&world, &server, &flags, &[fetch]).output().unwrap();
    let chats: Vec<Value> = server.chats().iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    let (first, second) = (chats[0]["messages"].to_string(), chats[1]["messages"].to_string());
    assert!(first.contains("It can reach only docs.test"), "{first}");
    let notice = "[network: refused example.org:80: not an allowed host]";
    assert!(second.contains(notice), "{second}\n{}", world.tell(&output));
}

/// Kills an agent while a command that has written to `/tmp` is still running. Returns the
/// session's folder.
fn killed(world: &World, server: &Server) -> PathBuf {
    let tmp = world.home().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let line =
        "mkdir /tmp/locked && echo x > /tmp/locked/x && chmod 0 /tmp/locked && touch ready && sleep 1000";
    let mut command = run(world, server, &[], &[line]);
    let mut child = command.env("TMPDIR", &tmp).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !world.repo().join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run should not end before its command");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(world.repo().join("ready")).unwrap();
    assert_eq!(
        fs::read_dir(tmp).unwrap().count(),
        0,
        "temporary files should be only in the session's folder"
    );
    let session = sessions(world).pop().unwrap();
    assert!(session.join("sandbox/tmp/locked").exists());
    session
}

#[test]
fn leftovers_of_a_killed_run_are_removed_by_the_next_run() {
    let world = World::new();
    let server = Server::start();
    let session = killed(&world, &server);
    assert!(run(&world, &server, &[], &[]).output().unwrap().status.code() == Some(1));
    assert!(session.join("journal.jsonl").exists() && !session.join("sandbox").exists());
    let state = world.home().join(".local/state/agent");
    assert_eq!(fs::read_dir(state.join("left-over")).unwrap().count(), 0);
    let kept = |session: &PathBuf| session.join("sandbox").exists();
    assert!(
        sessions(&world).len() == 2 && !sessions(&world).iter().any(kept),
        "the run should remove its own folder"
    );
}

#[test]
fn leftovers_of_a_killed_run_are_removed_when_it_is_resumed() {
    let world = World::new();
    let server = Server::start();
    let session = killed(&world, &server);
    let resumed = world.agent(&["resume"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(resumed.status.code(), Some(1), "{}", world.tell(&resumed));
    assert!(!session.join("sandbox").exists());
}

#[test]
fn leftovers_of_a_killed_run_are_removed_when_its_session_is_removed() {
    let world = World::new();
    let session = killed(&world, &Server::start());
    let seen = world.observe(&["sessions", "rm", "last"]);
    assert!(seen.starts_with("exit 0") && !session.exists(), "{seen}");
}
