//! `agent batch`: many tasks, each in its own worktree.

use crate::support::{World, call, json_lines, snapshot};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

fn tasks(world: &World, ids: &[&str]) -> String {
    let lines = ids.iter().map(|id| {
        json!({"id": id, "repo": world.repo(), "task": "Make the tests pass.", "verify": "sh check.sh"})
            .to_string()
    });
    let path = world.home().join("tasks.jsonl");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path.display().to_string()
}

fn fix(server: &Server) {
    server.enqueue(Reply::text(call(
        "apply_patch",
        json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
    )));
    server.enqueue(Reply::text(call("finish", json!({}))));
}

fn run(world: &World, server: &Server, tasks: &str) -> std::process::Output {
    let args = ["batch", tasks, "--model", "deepseek-coder:6.7b", "--approach", "tools"];
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
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1, "worktrees are gone");
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
        "finished tasks are not repeated"
    );
}

#[test]
fn an_unreachable_server_leaves_the_task_pending() {
    let world = World::with_a_bug();
    let tasks = tasks(&world, &["one"]);
    let args = ["batch", &tasks, "--model", "ollama:x"];
    let output = world.agent(&args).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", world.tell(&output));
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
fn help_of_batch_has_its_own_exit_codes() {
    let seen = World::new().observe(&["batch", "--help"]);
    assert!(seen.contains("--jobs <N>") && seen.contains("all tasks are verified"), "{seen}");
}
