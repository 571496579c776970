//! `agent replay` and `agent sessions export`: sessions can be replayed on this machine and
//! elsewhere.

use std::path::PathBuf;
use std::process::Output;

use crate::changes::{answers, session, world};
use crate::support::{World, call, snapshot};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Runs a task with a server that gives these answers.
pub(crate) fn recorded(world: &World, args: &[&str], answers: &[Reply]) -> Output {
    let server = Server::start();
    for answer in answers {
        server.enqueue(answer.clone());
    }
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b"];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap()
}

/// Exports the last session.
pub(crate) fn exported(world: &World, args: &[&str]) -> PathBuf {
    let file = world.home().join("session.jsonl");
    let mut all = vec!["sessions", "export", "last", file.to_str().unwrap()];
    all.extend(args);
    let seen = world.observe(&all);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    file
}

/// Replays the last session in every supported way, here and elsewhere, and checks that nothing
/// differs.
pub(crate) fn replays_without_a_difference(world: &World) {
    for args in [&["replay"][..], &["replay", "--recorded"], &["replay", "--run-commands"]] {
        let seen = world.observe(args);
        assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{args:?}: {seen}");
    }
    let file = exported(world, &[]);
    let elsewhere = World::new();
    for args in [&[][..], &["--recorded"]] {
        let mut all = vec!["replay", file.to_str().unwrap()];
        all.extend(args);
        let seen = elsewhere.observe(&all);
        assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{args:?}: {seen}");
    }
}

pub(crate) const JSON: [&str; 3] = ["--approach", "tools", "Make the tests pass."];

pub(crate) fn edit(search: &str, replace: &str) -> String {
    call("apply_patch", json!({"edits": [{"path": "add.sh", "search": search, "replace": replace}]}))
}

pub(crate) fn finish() -> String {
    call("finish", json!({}))
}

pub(crate) fn texts(texts: &[String]) -> Vec<Reply> {
    texts.iter().map(|text| Reply::text(text).split_bytes(9)).collect()
}

#[test]
fn a_run_whose_token_budget_is_used_up_by_a_broken_answer_replays() {
    let world = World::with_a_bug();
    let broken = Reply::text("{\"tool\": \"apply_pa").cut();
    let args = [&["--max-tokens", "100"][..], &JSON].concat();
    let output = recorded(&world, &args, &[broken, Reply::text(finish())]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.events().contains(&"answer_lost".to_owned()), "{:?}", world.events());
    replays_without_a_difference(&world);
}

/// Runs a long session that calls every tool and fixes the bug.
pub(crate) fn with_every_tool(world: &World, args: &[&str]) -> Output {
    long_session(world, world.repo().join("add.sh").to_str().unwrap(), args)
}

/// Same as [`with_every_tool`], but with `name` as the path in the last call to `read_file`.
pub(crate) fn long_session(world: &World, name: &str, args: &[&str]) -> Output {
    let answers = [
        call("read_file", json!({"path": "add.sh"})),
        call("read_file", json!({"path": "nowhere.sh"})),
        call("list_files", json!({})),
        call("search", json!({"pattern": "sum"})),
        "I think I should look at the file first.".to_owned(),
        edit("nowhere(a)\nnowhere(b)\nnowhere(c)\nnowhere(d)\n", "x"),
        call(
            "run_command",
            json!({"command": "mkdir -p made && echo 'a sum of parts' > made/notes.txt && rm old.txt && echo $PWD"}),
        ),
        call("search", json!({"pattern": "sum"})),
        call("read_file", json!({"path": "made/notes.txt"})),
        edit("$1 - $2", "$1 * $2"),
        finish(),
        call("run_tests", json!({})),
        call("read_file", json!({"path": name})),
        edit("$1 * $2", "$1 + $2"),
        finish(),
    ];
    let mut all = JSON.to_vec();
    all.extend(args);
    let output = recorded(world, &all, &texts(&answers));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    output
}

#[test]
fn a_session_replays_here_and_elsewhere() {
    let world = world();
    let output = session(&world, &[], answers());
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    snapshot!(world.observe(&["replay"]), @r"
    exit 0
    --- stdout
    same: 30 events, 4 requests, 4 calls, 3 changed files
    ");
    replays_without_a_difference(&world);
}

#[test]
fn a_session_with_refusals_commands_and_searches_replays() {
    let world = world();
    with_every_tool(&world, &[]);
    replays_without_a_difference(&world);
}

#[test]
fn a_session_with_files_of_every_kind_replays() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let world = world();
    let repo = world.repo();
    world.write(".gitignore", "ignored/\n*.log\n");
    world.write("ignored/notes.txt", "a sum that git does not know\n");
    world.write("größe/mit leer.txt", "eins\r\nzwei\r\n");
    world.write("deep/er/first.txt", "first\nsecond\n");
    world.write("deep/er/second.txt", "third\nfourth\n");
    std::fs::write(repo.join("latin1.txt"), b"gr\xfc\xdfe und eine sum\n").unwrap();
    std::fs::write(repo.join("picture.bin"), b"\0\x01\x02sum").unwrap();
    world.write("tool.sh", "#!/bin/sh\necho tool\n");
    std::fs::set_permissions(repo.join("tool.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.write("locked.txt", "locked\n");
    std::fs::set_permissions(repo.join("locked.txt"), std::fs::Permissions::from_mode(0o444)).unwrap();
    symlink("add.sh", repo.join("link.sh")).unwrap();
    symlink("/etc/passwd", repo.join("out.txt")).unwrap();
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=more"]);
    let read = |path: &str| call("read_file", json!({ "path": path }));
    let blocks = "deep/er/first.txt\n<<<<<<< SEARCH\nfirst\n=======\n1st\n>>>>>>> REPLACE\ndeep/er/second.txt\n<<<<<<< SEARCH\nthird\n=======\n3rd\n>>>>>>> REPLACE\n";
    let doomed = "*** Begin Patch\n*** Update File: deep/er/third.txt\n@@\n-nothing of it\n-is there\n-at all\n+x\n*** End Patch\n";
    world.write("deep/er/third.txt", "fifth\nsixth\nseventh\neighth\n");
    let replace = |path: &str, search: &str, replace: &str| {
        call("apply_patch", json!({"edits": [{"path": path, "search": search, "replace": replace}]}))
    };
    let answers = [
        call("list_files", json!({})),
        call("search", json!({"pattern": "sum"})),
        call("search", json!({"pattern": "SUM|zwei", "glob": "**/*.txt"})),
        read("ignored/notes.txt"),
        read("größe/mit leer.txt"),
        read("latin1.txt"),
        read("picture.bin"),
        read("link.sh"),
        read("out.txt"),
        call("apply_patch", json!({"patch": blocks})),
        call("apply_patch", json!({"patch": doomed})),
        replace("größe/mit leer.txt", "zwei", "drei"),
        replace("locked.txt", "locked", "open"),
        replace("tool.sh", "tool", "hammer"),
        call("apply_patch", json!({"patch": "--- a/old.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-old\n"})),
        call(
            "run_command",
            json!({"command": "mv tool.sh moved.sh; printf '\\0\\1' > made.bin; ln -s moved.sh short; printf 'x\\n' >> latin1.txt"}),
        ),
        call("list_files", json!({"glob": "*"})),
        replace("add.sh", "$1 - $2", "$1 + $2"),
        finish(),
    ];
    let output = recorded(&world, &JSON, &texts(&answers));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    replays_without_a_difference(&world);
}

#[test]
fn a_dry_run_replays_and_so_does_a_plan() {
    for args in [&["--dry-run"][..], &["--dry-run=plan"]] {
        let world = world();
        session(&world, args, answers());
        replays_without_a_difference(&world);
    }
}

#[test]
fn a_session_with_several_calls_in_one_answer_replays() {
    let world = world();
    let many = [
        call("read_file", json!({"path": "add.sh"})),
        call("read_file", json!({"path": "check.sh"})),
        call("search", json!({"pattern": "echo"})),
        call("read_file", json!({"path": "nowhere.sh"})),
    ];
    let both = [edit("$1 - $2", "$1 + $2"), call("run_tests", json!({}))];
    let args = [&JSON[..], &["--cut", "read-on"]].concat();
    let output = recorded(&world, &args, &texts(&[many.join("\n"), both.join("\n"), finish()]));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    replays_without_a_difference(&world);
}

#[test]
fn a_whole_file_run_replays() {
    let world = world();
    let answers = [
        "Here:\n```sh\nadd() {\n    echo $(($1 * $2))\n}\n```\n",
        "```\nadd() {\n    echo $(($1 + $2))\n}\n```\n",
    ];
    let output =
        recorded(&world, &["--approach", "whole-file", "Fix add.sh"], &texts(&answers.map(str::to_owned)));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    replays_without_a_difference(&world);
}

#[test]
fn a_session_that_branches_at_uncertain_tokens_replays() {
    let world = world();
    let model = json!({"server": "llama-server", "server_version": null, "model": "small", "window": null, "thinking": false,
        "dialect": "whole-file", "why": "w", "event": "model"});
    let unchanged = "```\nadd() {\n    echo $(($1 - $2))\n}\n```\n";
    let at = unchanged.find("- $2").unwrap();
    let doubt =
        |other: &str, logprob: f64| json!({"at": at, "chosen": "-", "other": other, "logprob": logprob});
    let output = |content: &str, doubts: Value| json!({"event": "output", "turn": 1, "content": content, "ended_by": "stop", "doubts": doubts, "counts": {"total_ms": 1}});
    let events = [
        model,
        output(unchanged, json!([doubt("*", -0.5), doubt("+", -1.0)])),
        output(" $2))", json!([])),
        output(" $2))", json!([])),
    ];
    let lines = (0..).zip(events).map(|(seq, mut event)| {
        (event["v"], event["seq"], event["time_ms"]) = (json!(1), json!(seq), json!(0));
        event.to_string() + "\n"
    });
    let turns = world.home().join("turns.jsonl");
    std::fs::write(&turns, lines.collect::<String>()).unwrap();
    let seen = world.observe(&["run", "--model", &format!("replay:{}", turns.display()), "Fix add.sh"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(
        world.journal().iter().any(|r| r["event"] == "message" && r["role"] == "assistant"),
        "a line should have been requested"
    );
    replays_without_a_difference(&world);
}

#[test]
fn a_session_with_server_errors_replays_without_the_retry_delays() {
    let world = world();
    let half = edit("$1 - $2", "$1 + $2")[..40].to_owned();
    let answers = [
        Reply::error(503, "server busy, please try again"),
        Reply::text(&half).then_error_line("model runner has unexpectedly stopped"),
        Reply::text(edit("$1 - $2", "$1 + $2")),
        Reply::text(&half).reset(),
        Reply::text(finish()),
    ];
    let output = recorded(&world, &JSON, &answers);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    replays_without_a_difference(&world);
}

#[test]
fn a_compacted_conversation_replays() {
    let world = world();
    let long = "a line of a file that is quite long and says nothing at all\n".repeat(300);
    world.write("long.txt", &long);
    let reads = (0..6).map(|i| {
        call("read_file", json!({"path": "long.txt", "start_line": 1 + 40 * i, "end_line": 40 + 40 * i}))
    });
    let mut answers = texts(&reads.collect::<Vec<_>>());
    let too_long = json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "m", "n_prompt_tokens": 13000, "n_ctx": 12000}});
    answers.push(Reply::status(400, json!({"error": too_long.to_string()})));
    answers.extend(texts(&[edit("$1 - $2", "$1 + $2"), finish()]));
    let output = recorded(&world, &JSON, &answers);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert!(
        world.events().contains(&"overflow".to_owned()) && world.events().contains(&"rewound".to_owned())
    );
    replays_without_a_difference(&world);
}

#[test]
fn a_smaller_context_window_replays() {
    let (world, server) = (world(), Server::start());
    let long = "a line of a file that is quite long and says nothing at all\n".repeat(300);
    world.write("long.txt", &long);
    let model = json!({"name": "deepseek-coder:6.7b", "context_length": 4096});
    for _ in 0..8 {
        server.enqueue_for("/api/ps", Reply::status(200, json!({"models": [model]})));
    }
    for i in 0..6 {
        let range = json!({"path": "long.txt", "start_line": 1 + 40 * i, "end_line": 40 + 40 * i});
        server.enqueue(Reply::text(call("read_file", range)));
    }
    server.enqueue(Reply::text(edit("$1 - $2", "$1 + $2")));
    server.enqueue(Reply::text(finish()));
    let args = [&["run", "--model", "deepseek-coder:6.7b"], &JSON[..]].concat();
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert!(
        world.events().contains(&"window".to_owned()) && world.events().contains(&"rewound".to_owned()),
        "{}",
        world.tell(&output)
    );
    replays_without_a_difference(&world);
}

#[test]
fn a_failed_run_replays_up_to_its_end() {
    let same = vec![call("read_file", json!({"path": "add.sh"})); 6];
    for (args, answers, code) in [
        (&[][..], texts(&same), 3),
        (&["--max-turns", "2"], texts(&same), 4),
        (&[], vec![Reply::text(edit("$1 - $2", "$1 * $2")), Reply::error(402, "Insufficient Balance")], 5),
        (&[], vec![Reply::text(edit("$1 - $2", "$1 * $2")), Reply::error(401, "no key")], 2),
    ] {
        let world = world();
        let output = recorded(&world, &[&JSON[..], args].concat(), &answers);
        assert_eq!(output.status.code(), Some(code), "{}", world.tell(&output));
        replays_without_a_difference(&world);
    }
}

/// Starts a run. Returns once the run has processed these answers and is waiting for the next one.
fn waiting(world: &World, server: &Server, answers: &[String]) -> std::process::Child {
    for answer in answers {
        server.enqueue(Reply::text(answer));
    }
    server.enqueue(Reply::text("Let me").gate("never released"));
    let mut command = world.agent(&[&["run", "--model", "deepseek-coder:6.7b"], &JSON[..]].concat());
    let child = command
        .env("OLLAMA_HOST", server.url())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    server.block_for_gate("never released");
    child.unwrap()
}

#[test]
fn a_stopped_or_killed_session_replays_and_so_does_its_resumption() {
    for signal in ["-TERM", "-KILL"] {
        let (world, server) = (world(), Server::start());
        let mut child = waiting(
            &world,
            &server,
            &[call("read_file", json!({"path": "add.sh"})), edit("$1 - $2", "$1 * $2")],
        );
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        replays_without_a_difference(&world);
        std::fs::remove_file(world.home().join("session.jsonl")).unwrap();
        for answer in [edit("$1 * $2", "$1 + $2"), finish()] {
            server.enqueue(Reply::text(answer));
        }
        let resumed = world.agent(&["resume"]).env("OLLAMA_HOST", server.url()).output().unwrap();
        assert_eq!(resumed.status.code(), Some(0), "{}", world.tell(&resumed));
        replays_without_a_difference(&world);
    }
}

#[test]
fn a_session_killed_after_any_event_replays_and_so_does_its_resumption() {
    use std::io::BufRead;
    let answers = [
        call("read_file", json!({"path": "add.sh"})),
        call("run_command", json!({"command": "echo made > made.txt"})),
        edit("nowhere(a)\nnowhere(b)\nnowhere(c)\nnowhere(d)\n", "x"),
        edit("$1 - $2", "$1 + $2"),
    ];
    let mut begun = 0;
    for cut in (1..).step_by(5) {
        let (world, server) = (world(), crate::resume::server(answers.to_vec()));
        let mut command =
            world.agent(&[&["run", "--json", "--model", "deepseek-coder:6.7b"], &JSON[..]].concat());
        let command = command.env("OLLAMA_HOST", server.url());
        let mut child =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let read = std::io::BufReader::new(child.stdout.take().unwrap()).lines().take(cut).count();
        let _ = child.kill();
        child.wait().unwrap();
        if read < cut {
            break;
        }
        let seen = world.observe(&["replay"]);
        let early = seen.contains("nothing to replay") || seen.contains("not a session");
        begun += usize::from(!early);
        assert!(early || seen.starts_with("exit 0\n--- stdout\nsame: "), "after {cut}: {seen}");
        let resumed = world.observe(&["resume"]);
        assert!(resumed.starts_with("exit 0\n") || resumed.contains("has ended"), "after {cut}: {resumed}");
        let seen = world.observe(&["replay"]);
        assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "after {cut}: {seen}");
    }
    assert!(begun > 5, "{begun}");
}
