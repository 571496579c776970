//! `--attempts`: several tries at a task in one session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::replay::{recorded, replays_without_a_difference};
use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::json;

const START: &str =
    "add() { echo $(($1 - $2)); }\nsub() { echo $(($1 - $2)); }\nmul() { echo $(($1 + $2)); }\n";
/// Counts the correct operations and reports the count in the format of a test runner.
const CHECK: &str = r#". ./ops.sh
passed=0
[ "$(add 2 3)" = 5 ] && passed=$((passed + 1))
[ "$(sub 5 3)" = 2 ] && passed=$((passed + 1))
[ "$(mul 2 3)" = 6 ] && passed=$((passed + 1))
[ $passed = 3 ] && word=ok || word=FAILED
echo "running 3 tests"
echo "test result: $word. $passed passed; $((3 - passed)) failed; 0 ignored; 0 measured; 0 filtered out"
[ $passed = 3 ]
"#;
const ARGS: [&str; 5] = ["--approach", "tools", "--attempts", "2", "Make the tests pass."];

/// Creates a world in which two of three operations are wrong.
fn world() -> World {
    World::with(&[(".agent.toml", "verify = 'sh check.sh'\n"), ("ops.sh", START), ("check.sh", CHECK)])
}

fn edit(search: &str, replace: &str) -> String {
    call("apply_patch", json!({"edits": [{"path": "ops.sh", "search": search, "replace": replace}]}))
}

/// Returns the answers for a try in which the model runs a command, makes an edit, and insists that
/// it is done.
fn gives_up(command: &str, edit: String) -> Vec<String> {
    let finish = || call("finish", json!({"summary": "done"}));
    vec![call("run_command", json!({ "command": command })), edit, finish(), finish(), finish()]
}

/// Returns the answers for two tries: the first fixes one operation, and the second breaks another.
fn two_tries() -> Vec<String> {
    let mut answers = gives_up(
        "mkdir -p made; echo 1 > made/one",
        edit("add() { echo $(($1 - $2", "add() { echo $(($1 + $2"),
    );
    answers.extend(gives_up("echo 2 > two", edit("sub() { echo $(($1 - $2", "sub() { echo $(($1 * $2")));
    answers
}

fn replies(answers: &[String]) -> Vec<Reply> {
    answers.iter().map(Reply::text).collect()
}

fn kept() -> String {
    START.replace("add() { echo $(($1 - $2", "add() { echo $(($1 + $2")
}

/// Checks that the first try's changes are in the tree and the session, and that undoing the
/// session removes them.
fn has_the_first_try(world: &World) {
    assert_eq!((world.read("ops.sh"), world.read("made/one")), (kept(), "1\n".into()));
    assert!(!world.repo().join("two").exists());
    let diff = world.observe(&["diff", "last"]);
    assert!(diff.contains("ops.sh") && diff.contains("made/one") && !diff.contains("two"), "{diff}");
    replays_without_a_difference(world);
    let undone = world.observe(&["undo", "last"]);
    assert!(undone.starts_with("exit 0\n"), "{undone}");
    assert_eq!(world.git(&["status", "--porcelain"]), "", "{undone}");
    assert!(!world.repo().join("made").exists());
}

#[test]
fn the_second_try_passes_and_nothing_of_the_first_is_left() {
    let world = world();
    let mut answers = gives_up(
        "mkdir -p made; echo 1 > made/one",
        edit("add() { echo $(($1 - $2", "add() { echo $(($1 + $2"),
    );
    let both = json!({"edits": [
        {"path": "ops.sh", "search": "add() { echo $(($1 - $2", "replace": "add() { echo $(($1 + $2"},
        {"path": "ops.sh", "search": "mul() { echo $(($1 + $2", "replace": "mul() { echo $(($1 * $2"},
    ]});
    answers.extend([call("apply_patch", both), call("finish", json!({}))]);
    let seen = world.tell(&recorded(&world, &ARGS, &replies(&answers)));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(
        seen.contains(
            "✗ try 1 of 2: unverified: the model insists that it is done, but the verification fails (1 failing, 3 changed lines)\n"
        ),
        "{seen}"
    );
    assert!(seen.contains("↺ try 2 of 2: starting over with the original files\n"), "{seen}");
    assert!(seen.contains("verified: the verification passes (try 2 of 2)\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), " M ops.sh\n");
    replays_without_a_difference(&world);
}

#[test]
fn the_best_of_two_tries_is_kept_and_can_be_replayed_and_undone() {
    let world = world();
    let seen = world.tell(&recorded(&world, &ARGS, &replies(&two_tries())));
    assert!(seen.starts_with("exit 1\n"), "{seen}");
    assert!(seen.contains("(2 tries; try 1 is kept: 1 failing, 2 before)"), "{seen}");
    has_the_first_try(&world);
}

/// Runs the agent until it reaches its limit in the second try. Returns the world, the answers for
/// both tries, and the output.
fn stopped_in_the_second_try() -> (World, Vec<String>, String) {
    let (world, answers) = (world(), two_tries());
    let args: Vec<&str> = ["--max-turns", "7"].into_iter().chain(ARGS).collect();
    let seen = world.tell(&recorded(&world, &args, &replies(&answers)));
    assert!(seen.starts_with("exit 4\n"), "{seen}");
    (world, answers, seen)
}

#[test]
fn if_the_budget_ends_in_the_second_try_the_first_is_kept_and_a_resumed_run_continues_the_second() {
    let (world, answers, seen) = stopped_in_the_second_try();
    assert!(seen.contains("stopped in try 2 of 2; try 1 is kept: 1 failing, 2 before"), "{seen}");
    assert_eq!(world.read("ops.sh"), kept());
    assert!(!world.repo().join("two").exists());
    assert!(world.observe(&["replay"]).starts_with("exit 0\n"), "{}", world.observe(&["replay"]));
    let server = Server::start();
    replies(&answers[7..]).into_iter().for_each(|reply| server.enqueue(reply));
    let mut resume = world.agent(&["resume", "--max-turns", "40"]);
    let seen = world.tell(&resume.env("OLLAMA_HOST", server.url()).output().unwrap());
    assert!(seen.starts_with("exit 1\n"), "{seen}");
    assert!(seen.contains("(2 tries; try 1 is kept: 1 failing, 2 before)"), "{seen}");
    has_the_first_try(&world);
}

/// The bug: the second try continued with the first try's files.
#[test]
fn bug_a_run_killed_between_a_revert_and_its_journal_line_resumes_with_the_right_files() {
    let (world, answers, _) = stopped_in_the_second_try();
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    let journal = world.home().join(".local/state/agent/sessions").join(id).join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let reverted = lines.iter().rposition(|line| line.contains("\"reverted\"")).unwrap();
    std::fs::write(&journal, lines[..reverted].concat()).unwrap();
    let server = Server::start();
    let (made, answer, restored) =
        (world.repo().join("two"), answers[7].clone(), Arc::new(AtomicBool::new(false)));
    server.enqueue(Reply::from_fn({
        let restored = Arc::clone(&restored);
        move |_| {
            restored.store(made.exists(), Ordering::Relaxed);
            Reply::text(&answer)
        }
    }));
    replies(&answers[8..]).into_iter().for_each(|reply| server.enqueue(reply));
    let mut resume = world.agent(&["resume", "--max-turns", "40"]);
    let seen = world.tell(&resume.env("OLLAMA_HOST", server.url()).output().unwrap());
    assert!(seen.starts_with("exit 1\n"), "{seen}");
    assert!(seen.contains("(2 tries; try 1 is kept: 1 failing, 2 before)"), "{seen}");
    assert!(restored.load(Ordering::Relaxed), "the second try should have its own files");
    has_the_first_try(&world);
}

/// The bug: the replay left out the last revert, so its tree differed from the run's tree.
#[test]
fn bug_the_replay_of_a_resumed_run_stopped_in_the_second_try_has_the_files_of_the_first_try() {
    let (world, answers, _) = stopped_in_the_second_try();
    let server = Server::start();
    replies(&answers[7..]).into_iter().for_each(|reply| server.enqueue(reply));
    let mut resume = world.agent(&["resume", "--max-turns", "8"]);
    let seen = world.tell(&resume.env("OLLAMA_HOST", server.url()).output().unwrap());
    assert!(seen.starts_with("exit 4\n"), "{seen}");
    has_the_first_try(&world);
}

/// Same bug as in the previous test.
#[test]
fn bug_the_replay_of_a_run_that_could_not_escalate_has_the_files_of_the_best_try() {
    let world = world();
    let server = Server::start();
    replies(&two_tries()[..5]).into_iter().for_each(|reply| server.enqueue(reply));
    let args =
        ["run", "--model", "ollama:deepseek-coder:6.7b", "--escalate", "openai", "--approach", "tools"];
    let mut run = world.agent(&[&args[..], &["Make the tests pass."]].concat());
    run.envs([("OLLAMA_HOST", server.url()), ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1".into())]);
    let seen = world.tell(&run.output().unwrap());
    assert!(seen.starts_with("exit 5\n") && seen.contains("try 1 is kept"), "{seen}");
    has_the_first_try(&world);
}

#[test]
fn if_no_try_is_better_than_the_start_the_files_are_as_they_were_then() {
    let world = world();
    let wrong = || {
        gives_up(
            "mkdir -p made; echo 1 > made/one",
            edit("sub() { echo $(($1 - $2", "sub() { echo $(($1 * $2"),
        )
    };
    let seen = world.tell(&recorded(&world, &ARGS, &replies(&[wrong(), wrong()].concat())));
    assert!(seen.starts_with("exit 1\n"), "{seen}");
    assert!(seen.contains("none was better than the start, so the original files were restored"), "{seen}");
    assert!(seen.contains("no files changed\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(!world.repo().join("made").exists());
    replays_without_a_difference(&world);
}

#[test]
fn bug_a_test_command_that_restores_the_file_ended_the_run_as_refused() {
    for end in ["\n", "\r\n"] {
        let world = World::with(&[
            (".agent.toml", "verify = 'cp original add.sh; sh check.sh'\n"),
            ("add.sh", &format!("add() {{ echo 1; }}{end}")),
            ("original", &format!("add() {{ echo 1; }}{end}")),
            ("check.sh", "grep -q 2 add.sh || { echo 'add.sh: no 2'; exit 1; }\n"),
        ]);
        let server = Server::start();
        for n in 2..20 {
            server.enqueue(Reply::text(format!("```sh\nadd() {{ echo {n}; }}\n```\n")));
        }
        let args = ["run", "--model", "deepseek-coder:6.7b", "--approach", "whole-file", "Fix add.sh"];
        let seen = world.tell(&world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap());
        assert!(seen.starts_with("exit 3\n") && seen.contains("no attempt made"), "{seen}");
    }
}
