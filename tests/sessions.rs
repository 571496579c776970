//! `agent sessions`: the records of past runs.

use crate::replay::{JSON, finish, recorded, texts};
use crate::support::{World, json_lines, snapshot};
use fake_model::Server;

/// Records a session that ends because no server is running. Returns the output.
fn unlucky(world: &World) -> String {
    world.tell(&world.agent(&["run", "fix \u{1b}[31mit"]).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap())
}

#[test]
fn listing_no_sessions_succeeds() {
    snapshot!(World::new().observe(&["sessions", "list"]), @r"
    exit 0
    --- stderr
    no sessions
    ");
    snapshot!(World::new().observe(&["sessions", "show"]), @r#"
    exit 2
    --- stderr
    error: there is no session "last"; `agent sessions list` lists all sessions
    "#);
}

#[test]
fn a_session_is_listed_shown_exported_and_removed() {
    let world = World::new();
    unlucky(&world);
    snapshot!(world.observe(&["sessions", "list"]), @r"
    exit 0
    --- stdout
    [SESSION]  model unavailable       0 turns  fix ␛[31mit
    ");
    snapshot!(world.observe(&["sessions", "show"]), @r"
    exit 0
    --- stdout
    session [SESSION]
    in [WORLD]/repo: fix ␛[31mit
    model unavailable: no model found: Ollama is not running at http://127.0.0.1:9 (start it with `ollama serve`); DEEPSEEK_API_KEY is not set; no other model server was found on this machine (ports 9931, 8080, 8000, 1234, 12434, 30000, 1337, 5001, 5000)
    ");
    let exported = world.agent(&["sessions", "export", "last"]).output().unwrap();
    // The first line of the export is a header.
    assert_eq!(json_lines(&String::from_utf8(exported.stdout).unwrap())[1..], world.journal());
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    let by_prefix = world.agent(&["sessions", "show", "--json", &id[..10]]).output().unwrap();
    assert_eq!(json_lines(&String::from_utf8(by_prefix.stdout).unwrap()), world.journal());
    snapshot!(world.observe(&["sessions", "rm", "nope"]), @r#"
    exit 2
    --- stderr
    error: there is no session "nope"; `agent sessions list` lists all sessions
    "#);
    snapshot!(world.observe(&["sessions", "rm", "last"]), @r"
    exit 0
    --- stderr
    removed [SESSION]
    ");
    snapshot!(world.observe(&["sessions", "list"]), @r"
    exit 0
    --- stderr
    no sessions
    ");
}

#[test]
fn an_ambiguous_session_prefix_lists_its_matches() {
    let world = World::new();
    unlucky(&world);
    unlucky(&world);
    let seen = world.observe(&["sessions", "show", "20"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("matches 2 sessions"), "{seen}");
}

#[test]
fn a_recorded_session_can_replace_the_model() {
    let world = World::with(&[("a.txt", "one\n")]);
    let server = Server::start();
    for _ in 0..8 {
        server.enqueue(r#"{"tool": "finish", "arguments": {}}"#);
    }
    let run = |model: &str| {
        let output = world
            .agent(&["run", "--model", model, "nothing to do"])
            .env("OLLAMA_HOST", server.url())
            .output();
        let output = output.unwrap();
        (output.status.code(), output.stdout)
    };
    let live = run("deepseek-coder:6.7b");
    let export = world.repo().join("session.jsonl");
    world.observe(&["sessions", "export", "last", "--output", export.to_str().unwrap()]);
    let requests = server.requests().len();
    assert_eq!(run(&format!("replay:{}", export.display())), live);
    assert_eq!(server.requests().len(), requests, "a replay should send no request");
}

#[test]
fn a_replayed_session_of_a_small_model_gives_the_same_patch_in_another_clone() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue("```add.sh\nadd() {\n    echo $(($1 + $2))\n}\n```\n");
    let live = world
        .agent(&[
            "run",
            "--model",
            "deepseek-coder:6.7b",
            "--approach",
            "whole-file",
            "Make the tests pass: fix add.sh",
        ])
        .env("OLLAMA_HOST", server.url())
        .output()
        .unwrap();
    assert_eq!(live.status.code(), Some(0), "{}", world.tell(&live));
    let recording = world.home().join("session.jsonl");
    world.observe(&["sessions", "export", "--output", recording.to_str().unwrap()]);

    let clone = World::with_a_bug();
    let model = format!("replay:{}", recording.display());
    let replayed =
        clone.agent(&["run", "--model", &model, "Make the tests pass: fix add.sh"]).output().unwrap();
    assert_eq!(
        (replayed.status.code(), &replayed.stdout),
        (Some(0), &live.stdout),
        "{}",
        clone.tell(&replayed)
    );
}

#[test]
fn color_is_not_written_to_a_pipe_unless_requested() {
    let world = World::new();
    unlucky(&world);
    let coloured = |name: &str, value: &str| {
        let output = world.agent(&["sessions", "show"]).env(name, value).output().unwrap();
        output.stdout.contains(&0x1b)
    };
    assert!(!coloured("TERM", "xterm"), "a pipe should get no colors");
    assert!(coloured("CLICOLOR_FORCE", "1"));
    assert!(!coloured("NO_COLOR", "1"));
}

#[test]
fn bug_each_run_locked_all_earlier_sessions_and_listed_all_for_each_lock() {
    let world = World::with_a_bug();
    let run = || world.tell(&recorded(&world, &JSON, &texts(&[finish()])));
    run();
    let sessions = world.home().join(".local/state/agent/sessions");
    let first = std::fs::read_dir(&sessions).unwrap().next().unwrap().unwrap().path();
    let locked = || std::fs::metadata(first.join("lock")).unwrap().modified().unwrap();
    let before = locked();
    run();
    assert_eq!(std::fs::read_dir(&sessions).unwrap().count(), 2);
    assert_eq!(locked(), before, "the first session has no leftovers");
}
