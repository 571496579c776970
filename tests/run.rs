//! `agent run` against scripted servers, from the task to the exit code.

use std::process::Stdio;

use crate::support::{World, call, json_lines, snapshot};
use fake_model::{Personality, Reply, Server};
use serde_json::{Value, json};

/// Edits that mend [`World::with_a_bug`].
fn mending() -> [String; 3] {
    [
        call("read_file", json!({"path": "calc.py"})),
        call(
            "apply_patch",
            json!({"edits": [{"path": "calc.py", "search": "    return a - b", "replace": "    return a + b"}]}),
        ),
        call("finish", json!({})),
    ]
}

fn script(server: &Server, answers: impl IntoIterator<Item = String>) {
    for answer in answers {
        server.enqueue(Reply::text(answer));
    }
}

fn run(world: &World, server: &Server, args: &[&str]) -> std::process::Output {
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b", "--dialect", "json"];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap()
}

#[test]
fn a_bug_is_mended_and_verified() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, mending());
    snapshot!(world.tell(&run(&world, &server, &["Make the tests pass."])), @r"
    exit 0
    --- stdout
    diff --git a/calc.py b/calc.py
    index 12ee7431b8e0e3e366c904c33ef3dee767b1bc20..4693ad3cf8b0903b98497fb89b8b524fbf1b93f4 100644
    --- a/calc.py
    +++ b/calc.py
    @@ -1,2 +1,2 @@
     def add(a, b):
    -    return a - b
    +    return a + b
    --- stderr
    session [SESSION]
    model   deepseek-coder:6.7b · ollama 0.32.15 · window 16,384 · edits as json · ollama:deepseek-coder:6.7b at http://[SERVER] (Ollama has it)
      ✗ check failed: python3 -m unittest ([TIME])
        The test command failed with exit code 1 (python3 -m unittest).
        /root/.pyenv/libexec/pyenv-version-file-read: line 41: /root/.pyenv/version: Permission denied
        /root/.pyenv/libexec/pyenv-version-file-read: line 41: /root/.pyenv/version: Permission denied
        F
        ======================================================================
        FAIL: test_add (test_calc.TestAdd.test_add)
        ----------------------------------------------------------------------
        Traceback (most recent call last):
    → read_file calc.py
      turn 1: ? prompt tokens, ? evaluated anew, 27 generated, [TIME], cut after the call
      ✓ calc.py lines 1-2 of 2 ([TIME])
    → apply_patch edits: 1 item
      turn 2: ? prompt tokens, ? evaluated anew, 62 generated, [TIME], cut after the call
      ✓ changed calc.py ([TIME])
      ✓ check passed: python3 -m unittest ([TIME])
    → finish 
      turn 3: ? prompt tokens, ? evaluated anew, 17 generated, [TIME], cut after the call
      ✓ no output ([TIME])
    verified: the verification passes
    changed calc.py (+1 -1)
    3 turns, 3,909 prompt tokens (3,909 evaluated anew), 106 generated, [TIME]
    undo it: git -C [WORLD]/repo apply -R [WORLD]/home/.local/state/agent/sessions/[SESSION]/changes.patch
    look again: agent sessions show [SESSION]
    ");
    assert_eq!(world.read("calc.py"), "def add(a, b):\n    return a + b\n");
    assert_eq!(world.git(&["status", "--porcelain"]), " M calc.py\n");
}

#[test]
fn the_patch_on_standard_output_can_be_undone_and_applied() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, mending());
    let output = run(&world, &server, &["--quiet", "Make the tests pass."]);
    let patch = world.home().join("x.patch");
    std::fs::write(&patch, &output.stdout).unwrap();
    world.git(&["apply", "-R", patch.to_str().unwrap()]);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    world.git(&["apply", patch.to_str().unwrap()]);
    assert_eq!(world.read("calc.py"), "def add(a, b):\n    return a + b\n");
}

#[test]
fn a_dry_run_leaves_the_repository_as_it_is_and_a_patch() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, mending());
    let output = run(&world, &server, &["--dry-run", "Make the tests pass."]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n--- stdout\ndiff --git a/calc.py b/calc.py\n"), "{seen}");
    assert!(seen.contains("(dry run)") && seen.contains("apply it: git -C [WORLD]/repo apply "), "{seen}");
    assert_eq!(world.read("calc.py"), "def add(a, b):\n    return a - b\n");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let folder = world.home().join(".local/state/agent/sessions");
    let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("changes.patch").is_file());
    assert!(!folder.join("tree").exists(), "the copy is gone");
}

#[test]
fn the_same_by_an_openai_compatible_server() {
    let (world, server) = (World::with_a_bug(), Server::of(Personality::LlamaServer));
    script(&server, mending());
    let args =
        ["run", "--base-url", &server.openai_url(), "--dialect", "json", "--quiet", "Make the tests pass."];
    let output = world.agent(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("calc.py"), "def add(a, b):\n    return a + b\n");
}

#[test]
fn json_is_the_journal() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, mending());
    let output = run(&world, &server, &["--json", "Make the tests pass."]);
    assert_eq!(json_lines(&String::from_utf8(output.stdout).unwrap()), world.journal());
    let last = world.journal().pop().unwrap();
    assert_eq!((&last["event"], &last["ending"]["kind"]), (&json!("finished"), &json!("verified")));
}

#[test]
fn the_stream_is_cut_behind_the_call() {
    let (world, server) = (World::with(&[("a.txt", "one\n")]), Server::start());
    server.enqueue(
        Reply::text(call("read_file", json!({"path": "a.txt"}))).gate("never released").more("chatter"),
    );
    server.enqueue(Reply::text(call("finish", json!({}))));
    let output = run(&world, &server, &["Look at a.txt."]);
    assert_eq!(output.status.code(), Some(1), "{}", world.tell(&output));
    assert!(server.chat_replies()[0].client_closed());
    assert!(world.events().contains(&"cut".to_owned()));
}

#[test]
fn a_server_that_is_down_is_its_own_exit_code() {
    let world = World::with_a_bug();
    let args = ["run", "--model", "ollama:x", "Make the tests pass."];
    let output = world.agent(&args).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: no connection to http://127.0.0.1:9: Connection refused (os error 111); is Ollama running (`ollama serve`), and is OLLAMA_HOST right?
    look again: agent sessions show [SESSION]
    ");
    let last = world.journal().pop().unwrap();
    assert_eq!((&last["event"], &last["ending"]["kind"]), (&json!("finished"), &json!("unavailable")));
}

#[test]
fn a_budget_that_is_reached_is_its_own_exit_code() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, mending());
    let output = run(&world, &server, &["--max-turns", "1", "--quiet", "Make the tests pass."]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 4\n") && seen.contains("turn budget reached"), "{seen}");
}

#[test]
fn an_interrupt_ends_the_run_and_keeps_what_was_done() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let [_, edit, _] = mending();
    server.enqueue(Reply::text(edit));
    server.enqueue(Reply::text("Let me think").gate("never released"));
    let child = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--dialect", "json", "Make the tests pass."])
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.block_for_gate("never released");
    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 130\n"), "{seen}");
    assert!(seen.contains("go on: run the task again"), "{seen}");
    assert_eq!(world.read("calc.py"), "def add(a, b):\n    return a + b\n");
    let last: Value = world.journal().pop().unwrap();
    assert_eq!(last["ending"]["kind"], "interrupted");
    assert_eq!(last["diff"]["files"], json!(["calc.py"]));
}

#[test]
fn escapes_of_model_and_files_do_not_reach_the_terminal() {
    let (world, server) = (World::with(&[("a.txt", "\u{1b}]0;owned\u{7}\n")]), Server::start());
    server.enqueue(Reply::text("\u{1b}[2J\u{9b}31m").more(call("read_file", json!({"path": "a.txt"}))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let output = run(&world, &server, &["Look."]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn the_task_may_come_from_standard_input() {
    let (world, server) = (World::with(&[("a.txt", "one\n")]), Server::start());
    server.enqueue(Reply::text(call("finish", json!({}))));
    let mut child = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--quiet", "-"])
        .env("OLLAMA_HOST", server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"Say nothing.\n").unwrap();
    child.wait().unwrap();
    assert_eq!(world.journal()[0]["task"], "Say nothing.\n");
}
