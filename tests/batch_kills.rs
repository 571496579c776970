//! Kills a batch repeatedly, and resumes it each time with the same command.

use std::collections::BTreeMap;
use std::fs;

use crate::support::{World, call, json_lines};
use fake_model::{Reply, Server};
use serde_json::{Value, json};
use traced::{CHANGES, End, Scope};

/// Starts a server that answers the first request of every session with an edit, and later requests
/// with `finish`.
fn server() -> Server {
    let server = Server::start();
    server.fallback(Reply::from_fn(|request| {
        let messages = request.json["messages"].as_array().cloned().unwrap_or_default();
        let edited = messages.iter().any(|message| message["role"] == "assistant");
        let edit = json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]});
        Reply::text(if edited { call("finish", json!({})) } else { call("apply_patch", edit) })
    }));
    server
}

/// Writes a task file whose tasks end in different ways. Together, they use everything that a batch
/// can set up for a task.
fn tasks(world: &World) -> String {
    let repo = world.repo().display().to_string();
    let task = |id: &str, more: Value| {
        let mut task =
            json!({"id": id, "repo": repo, "task": "Make the tests pass.", "verify": "sh check.sh"});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task.to_string() + "\n"
    };
    let text = [
        task("plain", json!({})),
        task(
            "prepared",
            json!({"setup": "echo made > made", "verify": "test -e made && sh check.sh", "protected": ["check.sh"]}),
        ),
        task("hopeless", json!({"verify": "false", "limits": {"max_turns": 2}})),
        task("cloned", json!({"repo": format!("file://{repo}")})),
    ];
    let path = world.home().join("tasks.jsonl");
    fs::write(&path, text.concat()).unwrap();
    path.display().to_string()
}

fn batch(world: &World, server: &Server, tasks: &str) -> std::process::Command {
    let args = ["batch", tasks, "--jobs", "2", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    let mut command = world.agent(&args);
    command.env("OLLAMA_HOST", server.url());
    command
}

/// Returns, for each task, how many results it has, and the ending and diff of the last one.
/// Ignores infrastructure failures.
fn outcomes(world: &World) -> BTreeMap<String, (usize, String, String)> {
    let results = fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let mut outcomes: BTreeMap<String, (usize, String, String)> = BTreeMap::new();
    for result in json_lines(&results).iter().filter(|result: &&Value| result["infrastructure"] == false) {
        let outcome = outcomes.entry(result["id"].as_str().unwrap().to_owned()).or_default();
        let text = |at: &str| result.pointer(at).unwrap().as_str().unwrap().to_owned();
        *outcome = (outcome.0 + 1, text("/ending/kind"), text("/diff/patch"));
    }
    outcomes
}

/// Returns the ids of all processes whose working directory is inside this world's home folder.
fn processes(world: &World) -> Vec<String> {
    let home = world.home();
    let inside = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&home))
    };
    let running = fs::read_dir("/proc").unwrap().map_while(Result::ok).filter(inside);
    running.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_batch_that_is_killed_repeatedly_ends_with_one_result_for_each_task() {
    let (whole, server) = (World::with_a_bug(), server());
    assert_eq!(batch(&whole, &server, &tasks(&whole)).output().unwrap().status.code(), Some(1));
    let wanted = outcomes(&whole);
    assert_eq!(wanted.len(), 4);
    assert_eq!(wanted["hopeless"].1, "budget");

    let world = World::with_a_bug();
    let tasks = tasks(&world);
    let mut kills = 0;
    loop {
        // Each process is killed a little later than the previous one, until one runs to
        // completion.
        let mut left = 40 + kills * 43;
        let end = traced::kill_when(batch(&world, &server, &tasks), Scope::Program, |stop| {
            left -= usize::from(!stop.done && left > 0 && CHANGES.contains(&stop.call));
            left == 0
        });
        if end == End::Finished {
            break;
        }
        kills += 1;
        assert!(kills < 100, "the batch should make progress");
    }
    assert!(kills > 4, "only {kills} kills");
    let output = batch(&world, &server, &tasks).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", world.tell(&output));
    assert_eq!(
        outcomes(&world),
        wanted,
        "each task should have exactly one result from the agent, the same as without kills"
    );
    let out = world.home().join("tasks.results");
    assert_eq!(fs::read_dir(out.join("worktrees")).unwrap().count(), 0);
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let attempts = fs::read_to_string(out.join("attempts.jsonl")).unwrap();
    assert!(json_lines(&attempts).len() > 4, "killed attempts should be recorded");
    assert_eq!(processes(&world), [""; 0]);
}
