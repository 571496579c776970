//! `agent run` with fake model servers, from the task to the exit code.

use std::process::Stdio;

use crate::support::{JSON_RUN, World, call, json_lines, snapshot};
use fake_model::{Config, ModelSpec, Personality, Reply, Server};
use serde_json::{Value, json};

/// Returns answers that fix the bug in [`World::with_a_bug`].
fn fixing() -> [String; 3] {
    [
        call("read_file", json!({"path": "add.sh"})),
        call(
            "apply_patch",
            json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
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
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap()
}

#[test]
fn a_bug_is_fixed_and_verified() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, fixing());
    snapshot!(world.tell(&run(&world, &server, &["Make the tests pass."])), @r"
    exit 0
    --- stdout
    diff --git a/add.sh b/add.sh
    index bc5eb34ceed3858209466b8244e8362fc64010c3..63b5ee3ccea216c43a23a4fe6badcbeeb944cd10 100644
    --- a/add.sh
    +++ b/add.sh
    @@ -1,3 +1,3 @@
     add() {
    -    echo $(($1 - $2))
    +    echo $(($1 + $2))
     }
    --- stderr
    session [SESSION]
    model   deepseek-coder:6.7b · ollama 0.32.15 · window 16,384 · approach tools · ollama:deepseek-coder:6.7b at http://[SERVER] (Ollama has it)
      ✗ check failed: sh check.sh ([TIME])
        The test command failed with exit code 1. Command: sh check.sh
        The last lines of its output:
        add 2 3 is -1, not 5
    → read_file add.sh
      turn 1: about [N] prompt tokens, 27 generated, [TIME], cut after the call
      ✓ add.sh lines 1-3 of 3 ([TIME])
    → apply_patch edits: 1 item
      turn 2: about [N] prompt tokens, 64 generated, [TIME], cut after the call
      ✓ changed add.sh ([TIME])
      ✓ check passed: sh check.sh ([TIME])
    → finish
      turn 3: about [N] prompt tokens, 17 generated, [TIME], cut after the call
      ✓ done ([TIME])
    verified: the verification passes
    changed add.sh (+1 -1)
    3 turns, [N] prompt tokens, 108 generated, [TIME]
    undo: agent undo [SESSION]
    show: agent sessions show [SESSION]
    ");
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
    assert_eq!(world.git(&["status", "--porcelain"]), " M add.sh\n");
}

#[test]
fn the_patch_on_stdout_can_be_reverted_and_applied() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, fixing());
    let output = run(&world, &server, &["--quiet", "Make the tests pass."]);
    let patch = world.home().join("x.patch");
    std::fs::write(&patch, &output.stdout).unwrap();
    world.git(&["apply", "-R", patch.to_str().unwrap()]);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    world.git(&["apply", patch.to_str().unwrap()]);
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
}

/// Returns how the only session ended and how many turns it took.
fn ended(world: &World) -> (String, u64) {
    let last = world.journal().pop().unwrap();
    (last["ending"]["kind"].as_str().unwrap().to_owned(), last["totals"]["turns"].as_u64().unwrap())
}

#[test]
fn a_run_that_changed_nothing_is_not_verified_though_the_check_passes() {
    let refused =
        call("apply_patch", json!({"edits": [{"path": "add.sh", "search": "nowhere", "replace": "x"}]}));
    let done = call("finish", json!({"summary": "It adds."}));
    let looks = call("run_tests", json!({}));
    for (answers, turns) in [
        (vec![done.clone(), done.clone()], 2),
        (vec![refused, done.clone(), done.clone()], 3),
        (vec![looks, done.clone(), done], 3),
    ] {
        let (world, server) = (World::with_a_bug(), Server::start());
        script(&server, answers);
        let output = run(&world, &server, &["--verify", "true", "What does add do?"]);
        let seen = world.tell(&output);
        assert!(seen.starts_with("exit 1\n") && seen.contains("no change: It adds."), "{seen}");
        assert_eq!(ended(&world), ("no_change".into(), turns));
    }
}

#[test]
fn files_changed_only_by_a_command_count_as_changes() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let command = call("bash", json!({"cmd": "echo '# adds' >> add.sh", "timeout": 5}));
    script(&server, [command, call("attempt_completion", json!({"result": "done"}))]);
    let output = run(&world, &server, &["--verify", "true", "Comment it."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(ended(&world), ("verified".into(), 2));
}

#[test]
fn a_patch_that_is_the_whole_answer_is_applied() {
    let diff = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";
    let blocks = "add.sh\n```sh\n<<<<<<< SEARCH\n    echo $(($1 - $2))\n=======\n    echo $(($1 + $2))\n>>>>>>> REPLACE\n```\n";
    let envelope = "*** Begin Patch\n*** Update File: add.sh\n@@\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n*** End Patch\n";
    for patch in [format!("```diff\n{diff}```\n"), blocks.to_owned(), envelope.to_owned()] {
        let (world, server) = (World::with_a_bug(), Server::start());
        script(&server, [format!("I will fix it.\n\n{patch}"), call("finish", json!({}))]);
        let output = run(&world, &server, &["Make the tests pass."]);
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
        assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
        let seen = world.observe(&["replay", "last"]);
        assert!(seen.starts_with("exit 0\n"), "{seen}");
    }
    for answer in [
        format!("```diff\n{diff}```\nShall I apply this?"),
        format!("Shall I apply this?\n\n{blocks}"),
        diff.replace(" }\n", ""),
        format!("<think>\n{diff}\n</think>\nI am not sure."),
    ] {
        let (world, server) = (World::with_a_bug(), Server::start());
        script(&server, [answer.clone(), fixing()[1].clone(), call("finish", json!({}))]);
        run(&world, &server, &["Make the tests pass."]);
        let prompt =
            world.journal().into_iter().filter(|e| e["event"] == "message" && e["role"] == "user").nth(1);
        let prompt = prompt.unwrap()["content"].as_str().unwrap().to_owned();
        assert_eq!(prompt.contains("has a patch in it"), !answer.contains("<think>"), "{prompt}");
        assert!(!world.journal().iter().any(|e| e["event"] == "call" && e["turn"] == 1), "{answer}");
    }
}

#[test]
fn a_dry_run_leaves_the_repository_unchanged_and_keeps_a_patch() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, fixing());
    let output = run(&world, &server, &["--dry-run", "Make the tests pass."]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n--- stdout\ndiff --git a/add.sh b/add.sh\n"), "{seen}");
    assert!(seen.contains("(dry run)") && seen.contains("apply: agent apply "), "{seen}");
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 - $2))\n}\n");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let folder = world.home().join(".local/state/agent/sessions");
    let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("changes.patch").is_file());
    assert!(
        !folder.join("tree").exists() && !folder.join("overlay/upper").exists(),
        "the tree should be removed"
    );
}

#[test]
fn a_bug_is_fixed_with_an_openai_compatible_server() {
    let (world, server) = (World::with_a_bug(), Server::of(Personality::LlamaServer));
    script(&server, fixing());
    let args =
        ["run", "--base-url", &server.openai_url(), "--approach", "tools", "--quiet", "Make the tests pass."];
    let output = world.agent(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
}

#[test]
fn the_json_output_is_the_journal() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, fixing());
    let output = run(&world, &server, &["--json", "Make the tests pass."]);
    assert_eq!(json_lines(&String::from_utf8(output.stdout).unwrap()), world.journal());
    let last = world.journal().pop().unwrap();
    assert_eq!((&last["event"], &last["ending"]["kind"]), (&json!("finished"), &json!("verified")));
}

#[test]
fn the_stream_is_cut_right_after_the_call() {
    let (world, server) = (World::with(&[("a.txt", "one\n")]), Server::start());
    server.enqueue(
        Reply::text(call("read_file", json!({"path": "a.txt"}))).gate("never released").more("chatter"),
    );
    script(&server, [call("finish", json!({})), call("finish", json!({}))]);
    let output = run(&world, &server, &["Look at a.txt."]);
    assert_eq!(output.status.code(), Some(1), "{}", world.tell(&output));
    assert!(server.chat_replies()[0].client_closed());
    assert!(world.events().contains(&"cut".to_owned()));
}

#[test]
fn an_unreachable_server_has_its_own_exit_code() {
    let world = World::with_a_bug();
    let args = ["run", "--model", "ollama:x", "Make the tests pass."];
    let output = world.agent(&args).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: no connection to http://127.0.0.1:9: Connection refused (os error 111); is Ollama running (`ollama serve`), and is OLLAMA_HOST right?
    show: agent sessions show [SESSION]
    ");
    let last = world.journal().pop().unwrap();
    assert_eq!((&last["event"], &last["ending"]["kind"]), (&json!("finished"), &json!("unavailable")));
}

#[test]
fn an_interrupt_ends_the_run_and_keeps_its_changes() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let [_, edit, _] = fixing();
    server.enqueue(Reply::text(edit));
    server.enqueue(Reply::text("Let me think").gate("never released"));
    let child = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."])
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.block_for_gate("never released");
    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 130\n"), "{seen}");
    assert!(seen.contains("resume: agent resume "), "{seen}");
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
    let last: Value = world.journal().pop().unwrap();
    assert_eq!(last["ending"]["kind"], "interrupted");
    assert_eq!(last["diff"]["files"], json!(["add.sh"]));
}

#[test]
fn terminal_escapes_from_the_model_and_files_are_removed() {
    let (world, server) = (World::with(&[("a.txt", "\u{1b}]0;owned\u{7}\n")]), Server::start());
    server.enqueue(Reply::text("\u{1b}[2J\u{9b}31m").more(call("read_file", json!({"path": "a.txt"}))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let output = run(&world, &server, &["Look."]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn the_task_can_come_from_stdin() {
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

#[test]
fn a_missing_model_is_pulled_on_request() {
    let world = World::with(&[("a.txt", "one\n")]);
    let server = Server::with_config(Config {
        models: Some(Vec::new()),
        pullable: vec![ModelSpec::new("deepseek-coder:6.7b")],
        ..Config::default()
    });
    script(&server, [call("finish", json!({})), call("finish", json!({}))]);
    let output = run(&world, &server, &["--pull", "Look."]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 1\n") && seen.contains("pulled deepseek-coder:6.7b"), "{seen}");
}

#[test]
fn a_closed_event_stream_does_not_stop_the_run() {
    let (world, server) = (World::with_a_bug(), Server::start());
    script(&server, fixing());
    let mut child = world
        .agent(&JSON_RUN)
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["status", "--porcelain"]), " M add.sh\n");
}

#[test]
fn an_unwritable_state_folder_is_named() {
    let world = World::with(&[("not-a-folder", "")]);
    let output = world.agent(&["run", "x"]).env("AGENT_STATE_DIR", "not-a-folder").output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 2
    --- stderr
    error: cannot create [WORLD]/repo/not-a-folder/sessions: Not a directory (os error 20)
    hint: sessions need a writable folder; set another one with AGENT_STATE_DIR
    ");
}

#[test]
fn an_invalid_model_is_refused() {
    let world = World::new();
    snapshot!(world.observe(&["run", "--model", "ollama:", "x"]), @r"
    exit 2
    --- stderr
    error: ollama: needs NAME, as in ollama:NAME
    ");
    snapshot!(world.observe(&["run", "--model", "replay:missing.jsonl", "x"]), @r"
    exit 2
    --- stderr
    session [SESSION]
    refused: cannot read the recording missing.jsonl: No such file or directory (os error 2)
    show: agent sessions show [SESSION]
    ");
}

#[test]
fn a_symlink_out_of_the_repository_is_not_read() {
    let (world, server) = (World::with(&[("a.txt", "one\n")]), Server::start());
    std::fs::write(world.home().join("secret"), "hunter2\n").unwrap();
    std::os::unix::fs::symlink(world.home().join("secret"), world.repo().join("link")).unwrap();
    server.enqueue(Reply::text(call("read_file", json!({"path": "link"}))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    run(&world, &server, &["Look."]);
    let sent: String = server.chats().iter().map(|r| json!(r.messages()).to_string()).collect();
    assert!(sent.contains("read_file") && !sent.contains("hunter2"));
}

#[test]
fn an_interrupt_ends_the_commands_too() {
    let (world, server) = (World::new(), Server::start());
    let pipe = world.repo().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let child = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--verify", "cat pipe", "x"])
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Opening the pipe blocks until the command opens it for reading.
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", world.tell(&output));
    // It may take a moment for a killed process to exit. A write blocks once the pipe is full, and
    // fails once the reader is gone.
    let written = (0..1_000).find_map(|_| std::io::Write::write_all(&mut writer, &[0; 4 << 10]).err());
    let error = written.map(|error| error.kind());
    assert_eq!(error, Some(std::io::ErrorKind::BrokenPipe), "the reader should be closed");
}

#[test]
fn instruction_files_from_the_root_to_the_current_folder_reach_the_model() {
    let world = World::with(&[
        ("AGENTS.md", "Use tabs.\n"),
        ("part/AGENTS.md", "Parts are numbered.\n"),
        ("other/AGENTS.md", "Others are not.\n"),
    ]);
    let server = Server::start();
    script(&server, [call("finish", json!({}))]);
    run(&world, &server, &["-C", "part", "Look."]);
    let first: String = server.chats()[0].messages().iter().map(Value::to_string).collect();
    let at = |text: &str| first.find(text).unwrap_or_else(|| panic!("{text}: {first}"));
    assert!(at("Use tabs.") < at("Parts are numbered."));
    assert!(!first.contains("Others are not."));
}

#[test]
fn a_dotfiles_repository_in_the_home_folder_is_not_the_root_of_a_project_below_it() {
    let (world, server) = (World::new(), Server::start());
    let project = world.home().join("project");
    std::fs::create_dir_all(&project).unwrap();
    std::fs::create_dir_all(world.home().join(".git")).unwrap();
    script(&server, [call("finish", json!({}))]);
    run(&world, &server, &["-C", project.to_str().unwrap(), "Look."]);
    assert_eq!(world.journal()[0]["root"], project.display().to_string());
}

#[test]
fn flags_for_the_model_are_sent_with_the_request() {
    let (world, server) = (World::with(&[("a.txt", "one\n")]), Server::start());
    script(&server, [call("finish", json!({}))]);
    let flags = ["--num-ctx", "8192", "--temperature", "0.5", "--max-answer-tokens", "777", "Look."];
    run(&world, &server, &flags);
    let options = &server.chats()[0].json["options"];
    assert_eq!((&options["num_ctx"], &options["num_predict"]), (&json!(8192), &json!(777)), "{options}");
    assert_eq!(options["temperature"], 0.5);
}

#[test]
fn each_budget_ends_a_run() {
    for (flag, value, words) in
        [("--max-turns", "1", "turn budget reached"), ("--max-tokens", "10", "token budget reached")]
    {
        let (world, server) = (World::with_a_bug(), Server::start());
        script(&server, fixing());
        let seen = world.tell(&run(&world, &server, &[flag, value, "--quiet", "Make the tests pass."]));
        assert!(seen.starts_with("exit 4\n") && seen.contains(words), "{flag}: {seen}");
    }
}

#[test]
fn commands_write_outside_the_repository_only_where_allowed() {
    for (flags, written) in [(&[][..], false), (&["--dangerously-no-sandbox"], true)] {
        let (world, server) = (World::new(), Server::start());
        server.fallback(Reply::text(call("finish", json!({}))));
        let outside = world.home().join("outside");
        let check = format!("touch '{}'", outside.display());
        let args = [flags, &["--verify", &check, "Look."]].concat();
        let output = run(&world, &server, &args);
        assert_eq!(
            output.status.code(),
            Some(1),
            "the check should not count as a change: {}",
            world.tell(&output)
        );
        assert_eq!(outside.exists(), written);
    }
}

#[test]
fn an_interrupt_ends_a_run_whose_git_does_not_answer() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let hold = world.home().join("hold");
    assert!(std::process::Command::new("mkfifo").arg(&hold).status().unwrap().success());
    let child = start_with_git_that_waits_for(&world, &server, &hold);
    // Opening the pipe blocks until git opens it for reading.
    let _writer = std::fs::OpenOptions::new().write(true).open(&hold).unwrap();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", world.tell(&output));
    assert!(server.chats().is_empty(), "a run that cannot record the tree should not begin");
}

/// Starts a run with a `git` that first waits for a line from this pipe, if the pipe exists.
fn start_with_git_that_waits_for(
    world: &World,
    server: &Server,
    pipe: &std::path::Path,
) -> std::process::Child {
    let bin = world.home().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    let wrapper = format!(
        "#!/bin/sh\nPATH='{path}'\n[ -p '{0}' ] && read -r line < '{0}'\nexec git \"$@\"\n",
        pipe.display()
    );
    std::fs::write(bin.join("git"), wrapper).unwrap();
    std::fs::set_permissions(bin.join("git"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."])
        .env("OLLAMA_HOST", server.url())
        .env("PATH", format!("{}:{path}", bin.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_second_interrupt_ends_the_run_immediately() {
    let (world, server) = (World::with_a_bug(), Server::start());
    // After the first interrupt, git waits for a line from the pipe `hold`, so the diff never
    // finishes.
    let hold = world.home().join("hold");
    let [_, edit, _] = fixing();
    server.enqueue(Reply::text(edit));
    server.enqueue(Reply::text("Let me think").gate("never released"));
    let child = start_with_git_that_waits_for(&world, &server, &hold);
    let terminate =
        || std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    server.block_for_gate("never released");
    assert!(std::process::Command::new("mkfifo").arg(&hold).status().unwrap().success());
    terminate();
    // Opening the pipe blocks until git opens it for reading. Git does so only after the signal has
    // arrived.
    let writer = std::fs::OpenOptions::new().write(true).open(&hold).unwrap();
    terminate();
    let output = child.wait_with_output().unwrap();
    drop(writer);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 130\n") && seen.contains("a second signal"), "{seen}");
    let finished = world.journal().pop().unwrap();
    assert_eq!(finished["ending"]["kind"], "interrupted");
    assert_eq!(finished["totals"]["turns"], 1, "the totals so far should be kept: {finished}");
    assert!(finished["totals"]["generated_tokens"].as_u64() > Some(0), "{finished}");
    let diff = &finished["diff"];
    assert_eq!(
        (&diff["files"], &diff["added"], &diff["removed"]),
        (&json!(["add.sh"]), &json!(1), &json!(1))
    );
}

#[test]
fn a_patch_inside_a_shell_command_is_applied_without_running_a_shell() {
    let envelope = "*** Begin Patch\n*** Update File: add.sh\n@@\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n*** End Patch\n";
    let heredoc = format!("apply_patch <<'EOF'\n{envelope}EOF\n");
    for command in [json!(["apply_patch", envelope]), json!(["bash", "-lc", heredoc]), json!(heredoc)] {
        let (world, server) = (World::with_a_bug(), Server::start());
        script(&server, [call("shell", json!({ "command": command })), call("finish", json!({}))]);
        let output = run(&world, &server, &["Make the tests pass."]);
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
        assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n");
        let seen = world.observe(&["replay", "last"]);
        assert!(seen.starts_with("exit 0\n"), "{seen}");
    }
    let (world, server) = (World::with_a_bug(), Server::start());
    let beside = call("run_command", json!({ "command": format!("{heredoc}rm add.sh") }));
    script(&server, [beside, fixing()[1].clone(), call("finish", json!({}))]);
    let output = run(&world, &server, &["Make the tests pass."]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("add.sh"), "add() {\n    echo $(($1 + $2))\n}\n", "the file should not be removed");
}
