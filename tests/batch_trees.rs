//! Worktrees for `agent batch` tasks: setup commands and protected files.

use crate::batch::{fix, run, run_with, tasks};
use crate::support::{World, call, json_lines};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

#[test]
fn the_setup_command_prepares_the_worktree_in_the_sandbox_before_the_baseline() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text = std::fs::read_to_string(&tasks).unwrap();
    let text = text
        .replace("\"id\"", "\"setup\":\"echo made > made && echo out > \\\"$HOME/leak\\\" || true\",\"id\"");
    std::fs::write(&tasks, text.replace("sh check.sh", "test -e made && sh check.sh")).unwrap();
    fix(&server);
    let output = run(&world, &server, &tasks);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let result: Vec<Value> = json_lines(&results);
    assert_eq!(
        result[0]["diff"]["files"],
        json!(["add.sh"]),
        "files from the setup command should not count as changes"
    );
    assert!(!world.home().join("leak").exists(), "the sandbox should confine the setup command");
}

#[test]
fn a_failed_setup_counts_as_an_infrastructure_failure_and_its_session_says_so() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text = std::fs::read_to_string(&tasks).unwrap().replace("\"id\"", "\"setup\":\"exit 3\",\"id\"");
    std::fs::write(&tasks, text).unwrap();
    let seen = world.tell(&run_with(&world, &server, &[&tasks, "--wait", "0s"]));
    assert!(seen.starts_with("exit 5\n") && seen.contains("setup failed: `exit 3`: exit code 3"), "{seen}");
    assert!(server.chats().is_empty(), "the model should not be asked");
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let session = json_lines(&results)[0]["session"].as_str().unwrap().to_owned();
    let seen = world.observe(&["sessions", "show", &session]);
    assert!(seen.contains("setup failed") && seen.contains("Make the tests pass."), "{seen}");
    let seen = world.observe(&["resume", &session]);
    assert!(!seen.contains("the session is empty"), "{seen}");
}

#[test]
fn bug_resuming_a_session_of_a_batch_lifted_the_protection_of_files() {
    let world = world_with_tests(&[]);
    let (seen, results) = run_with_protected(&world, &json!(["tests/**"]), &["true"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let seen = world.observe(&["resume", results[0]["session"].as_str().unwrap(), "go on"]);
    assert!(
        seen.starts_with("exit 2\n") && seen.contains("a session with protected files cannot be resumed"),
        "{seen}"
    );
}

#[test]
fn protected_files_are_restored_before_the_verification_and_left_out_of_the_diff() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text =
        std::fs::read_to_string(&tasks).unwrap().replace("\"id\"", "\"protected\":[\"check.*\"],\"id\"");
    std::fs::write(&tasks, text).unwrap();
    let cheat = call("apply_patch", json!({"edits": [{"path": "check.sh", "content": "exit 0\n"}]}));
    server.enqueue(Reply::text(cheat));
    fix(&server);
    let output = run(&world, &server, &tasks);
    let seen = world.tell(&output);
    assert_eq!(output.status.code(), Some(0), "{seen}");
    let chats = server.chats();
    let asked = |n: usize| chats[n].json.to_string();
    assert!(asked(0).contains("Do not change files that match `check.*`"), "{}", asked(0));
    assert!(asked(1).contains("add 2 3 is -1, not 5"), "the real check should run: {}", asked(1));
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    let result: Vec<Value> = json_lines(&results);
    assert_eq!(result[0]["diff"]["files"], json!(["add.sh"]));
}

/// Runs one task per command, all with the same protected files. In each task, the model runs the
/// command and then fixes the bug. Returns the batch's output and results.
fn run_with_protected(world: &World, protected: &Value, commands: &[&str]) -> (String, Vec<Value>) {
    let server = Server::start();
    let line = |n: usize| {
        json!({"id": format!("task-{n}"), "repo": world.repo(), "task": "Make the tests pass.",
            "verify": "sh tests/run.sh", "protected": protected})
        .to_string()
    };
    let tasks = world.home().join("tasks.jsonl");
    std::fs::write(&tasks, (0..commands.len()).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    for command in commands {
        server.enqueue(Reply::text(call("run_command", json!({"command": command}))));
        fix(&server);
    }
    let seen = world.tell(&run_with(world, &server, &[tasks.to_str().unwrap(), "--wait", "0s"]));
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    (seen, json_lines(&results))
}

fn world_with_tests(files: &[(&str, &str)]) -> World {
    let world = World::with_a_bug();
    world.write("tests/run.sh", "for f in $(find . -name 'conftest*'); do . $f; done; . ./check.sh\n");
    files.iter().for_each(|(path, text)| world.write(path, text));
    world.git(&["add", "--force", "."]);
    world.git(&["commit", "-qm", "tests"]);
    world
}

#[test]
fn bug_ignore_rules_and_hidden_folders_lifted_the_protection_of_files() {
    let world = world_with_tests(&[
        (".gitignore", "*.log\n"),
        ("tests/kept.log", "kept\n"),
        (".husky/check", "kept\n"),
    ]);
    let (seen, results) = run_with_protected(
        &world,
        &json!(["tests/**", ".husky/**"]),
        &[
            "echo conftest.sh >> .gitignore; echo 'exit 3' > tests/conftest.sh",
            "echo conftest.sh > .ignore; echo 'exit 3' > tests/conftest.sh",
            "echo changed > tests/kept.log",
            "echo changed > .husky/check; echo 'exit 3' > .husky/conftest.sh",
        ],
    );
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    for (result, others) in results.iter().zip([".gitignore", ".ignore", "add.sh", "add.sh"]) {
        let patch = result["diff"]["patch"].as_str().unwrap();
        assert!(patch.contains("+    echo $(($1 + $2))") && patch.contains(others), "{patch}");
        assert!(!patch.contains("changed") && !patch.contains("exit 3"), "{patch}");
    }
}

#[test]
fn bug_a_protected_path_with_a_link_a_folder_or_a_large_file_ended_the_run_without_a_diff() {
    let world = world_with_tests(&[("source/x", "x\n")]);
    std::os::unix::fs::symlink("../source", world.repo().join("tests/folder")).unwrap();
    std::os::unix::fs::symlink("missing", world.repo().join("tests/dangling")).unwrap();
    std::fs::write(world.repo().join("tests/large"), vec![b'x'; 17 << 20]).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "links"]);
    let (seen, results) = run_with_protected(
        &world,
        &json!(["tests/**"]),
        &[
            "ln -s /etc/hostname tests/h; head -c 17000000 /dev/zero > tests/new",
            "rm tests/run.sh; mkdir tests/run.sh; touch tests/run.sh/x",
            "mv tests evil; ln -s evil tests",
            "mv tests/run.sh evil.sh; ln -s ../evil.sh tests/run.sh; echo exit 0 > evil.sh",
        ],
    );
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    for result in &results {
        let files = result["diff"]["files"].as_array().unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.as_str().unwrap()).collect();
        assert!(
            names.contains(&"add.sh") && !names.iter().any(|name| name.starts_with("tests")),
            "{names:?}"
        );
    }
}

#[test]
fn a_protected_file_that_is_too_large_to_keep_is_named_before_the_first_turn() {
    let world = world_with_tests(&[]);
    std::fs::File::create(world.repo().join("tests/large")).unwrap().set_len((64 << 20) + 1).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "large"]);
    let (seen, _) = run_with_protected(&world, &json!(["tests/**"]), &["true"]);
    assert!(seen.starts_with("exit 5\n") && seen.contains("tests/large is larger than 64 MB"), "{seen}");
}

#[test]
fn the_name_of_a_folder_protects_its_files_and_a_pattern_that_matches_no_file_is_noted() {
    let world = world_with_tests(&[]);
    let (seen, results) =
        run_with_protected(&world, &json!(["tests", "spec/**"]), &["echo exit 3 > tests/run.sh"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(results[0]["diff"]["files"], json!(["add.sh"]));
    assert!(seen.contains("task-0: the pattern \"spec/**\" for protected files matches no file"), "{seen}");
}

#[test]
fn tasks_with_the_same_setup_share_its_result() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two", "three"]);
    let setup = "\"setup\":\"pwd > setup.path\",\"id\"";
    let text = std::fs::read_to_string(&tasks).unwrap().replace("\"id\"", setup);
    let verify = "test $(cat setup.path) = $(pwd) && sh check.sh";
    std::fs::write(&tasks, text.replace("sh check.sh", verify)).unwrap();
    for _ in 0..3 {
        fix(&server);
    }
    let seen = world.tell(&run(&world, &server, &tasks));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let results = world.home().join("tasks.results");
    let text = std::fs::read_to_string(results.join("results.jsonl")).unwrap();
    let sessions = world.home().join(".local/state/agent/sessions");
    let ran = json_lines(&text).into_iter().map(|result| {
        assert_eq!(result["diff"]["files"], json!(["add.sh"]));
        sessions.join(result["session"].as_str().unwrap()).join("logs/setup.log").exists()
    });
    assert_eq!(ran.collect::<Vec<_>>(), [true, false, false]);
    assert!(!results.join(".agent-setups").exists());
}

#[test]
fn bug_protected_files_were_shown_to_be_corrected() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one"]);
    let text = std::fs::read_to_string(&tasks).unwrap();
    let text = text.replace("Make the tests pass.", "Fix add.sh, which check.sh tests");
    std::fs::write(&tasks, text.replace("\"id\"", "\"protected\":[\"check.sh\"],\"id\"")).unwrap();
    server.enqueue(Reply::text("```sh\nadd() {\n    echo $(($1 + $2))\n}\n```\n"));
    let args = ["batch", &tasks, "--model", "deepseek-coder:6.7b", "--approach", "whole-file"];
    let seen = world.tell(&world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let request = server.chats()[0].json.to_string();
    assert!(request.contains("echo $(($1 - $2))") && !request.contains("sum=$(add 2 3)"), "{request}");
}

#[test]
fn bug_a_setup_changed_the_settings_of_later_tasks() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let tasks = tasks(&world, &["one", "two"]);
    let text = std::fs::read_to_string(&tasks).unwrap().replace(",\"verify\":\"sh check.sh\"", "");
    let setup = "\"setup\":\"echo \\\"verify = 'true'\\\" > .agent.toml\",\"id\"";
    std::fs::write(&tasks, text.replace("\"id\"", setup)).unwrap();
    fix(&server);
    fix(&server);
    let seen = world.tell(&run(&world, &server, &tasks));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let results = std::fs::read_to_string(world.home().join("tasks.results/results.jsonl")).unwrap();
    for result in json_lines(&results) {
        let session = result["session"].as_str().unwrap();
        let journal = world.home().join(".local/state/agent/sessions").join(session).join("journal.jsonl");
        let journal = std::fs::read_to_string(journal).unwrap();
        assert!(journal.contains("\"command\":\"sh check.sh\""), "{journal}");
    }
}
