//! `agent replay` reports the first difference from the recorded session, and changes nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::changes::{answers, session, world};
use crate::dry_run::everything;
use crate::replay::{
    JSON, edit, exported, finish, recorded, replays_without_a_difference, texts, with_every_tool,
};
use crate::support::{World, call, json_lines, snapshot};
use serde_json::{Value, json};

/// Applies `change` to each line of an exported file, and writes the result to another file.
pub(crate) fn altered(world: &World, file: &Path, mut change: impl FnMut(&mut Value)) -> PathBuf {
    let mut lines = json_lines(&std::fs::read_to_string(file).unwrap());
    lines.iter_mut().for_each(&mut change);
    let altered = world.home().join("altered.jsonl");
    std::fs::write(&altered, lines.iter().map(|l| l.to_string() + "\n").collect::<String>()).unwrap();
    altered
}

pub(crate) fn replayed(world: &World, file: &Path, args: &[&str]) -> String {
    world.observe(&[&["replay", file.to_str().unwrap()], args].concat())
}

/// Replaces `old` with `new` in every string of a JSON value.
pub(crate) fn replace(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::String(text) => *text = text.replace(old, new),
        Value::Array(all) => all.iter_mut().for_each(|v| replace(v, old, new)),
        Value::Object(all) => all.values_mut().for_each(|v| replace(v, old, new)),
        _ => {}
    }
}

#[test]
fn replay_reports_the_first_difference() {
    let world = world();
    with_every_tool(&world, &[]);
    let file = exported(&world, &[]);
    // The model reads a different file.
    let altered_file = altered(&world, &file, |line| {
        if line["event"] == "output" && line["turn"] == 1 {
            replace(&mut line["content"], "add.sh", "old.txt");
        }
    });
    snapshot!(replayed(&world, &altered_file, &[]), @r#"
    exit 1
    --- stdout
    different in turn 1, event 10: the answer was interpreted differently
    call 0
      1   read_file {
      2 -   "path": "add.sh"
                     ^^^ ^^
      2 +   "path": "old.txt"
                     ^^^ ^^^
      3   }
      4 - at bytes 0 to 50
                        ^^
      4 + at bytes 0 to 51
                        ^^
      5   repairs:
    same before that: 4 events; recorded by agent [VERSION], replayed by agent [VERSION]
    "#);
    // A file quoted in the first request has different content.
    let altered_file = altered(&world, &file, |line| {
        if line["file"]["path"] == "check.sh" {
            replace(&mut line["file"]["text"], "is $sum, not", "makes $sum, not");
        }
    });
    snapshot!(replayed(&world, &altered_file, &[]), @r#"
    exit 1
    --- stdout
    different before turn 1, event 7: the request differs
    the message (2)
      5   ```sh
      6   . ./add.sh
      7   sum=$(add 2 3)
      8 - [ "$sum" = 5 ] || { echo "add 2 3 is $sum, not 5"; exit 1; }
                                            ^^
      8 + [ "$sum" = 5 ] || { echo "add 2 3 makes $sum, not 5"; exit 1; }
                                            ^^^^^
      9   ```
     10
     11   `sh check.sh` fails now:
    same before that: 2 events; recorded by agent [VERSION], replayed by agent [VERSION]
    "#);
    // A command changed a file differently.
    let altered_file = altered(&world, &file, |line| {
        if line["change"]["file"]["path"] == "made/notes.txt" {
            replace(&mut line["change"]["file"]["text"], "parts", "pieces");
        }
    });
    snapshot!(replayed(&world, &altered_file, &[]), @r#"
    exit 1
    --- stdout
    different in turn 8, event 72: a tool's result differs
    the result of search
      2   3 matches in 2 files
      3   check.sh:2: sum=$(add 2 3)
      4   check.sh:3: [ "$sum" = 5 ] || { echo "add 2 3 is $sum, not 5"; exit 1; }
      5 - made/notes.txt:1: a sum of parts
                                     ^^^^^
      5 + made/notes.txt:1: a sum of pieces
                                     ^^^^^^
    same before that: 44 events; recorded by agent [VERSION], replayed by agent [VERSION]
    "#);
    // The session left the file in a different state.
    let altered_file = altered(&world, &file, |line| {
        if line["end"]["path"] == "add.sh" {
            replace(&mut line["end"]["text"], "+", "-");
        }
    });
    snapshot!(replayed(&world, &altered_file, &[]), @r"
    exit 1
    --- stdout
    different at the end: the tree differs
    add.sh
      1   add() {
      2 -     echo $(($1 - $2))
                         ^
      2 +     echo $(($1 + $2))
                         ^
      3   }
    same before that: 90 events; recorded by agent [VERSION], replayed by agent [VERSION]
    ");
    // The session ended differently.
    let altered_file = altered(&world, &file, |line| {
        if line["event"] == "finished" {
            line["ending"]["kind"] = json!("unverified");
        }
    });
    snapshot!(replayed(&world, &altered_file, &[]), @r"
    exit 1
    --- stdout
    different in turn 15, event 133: the run ended differently
    the end
      1 - unverified: the verification passes
          ^^^^^^^^^^
      1 + verified: the verification passes
          ^^^^^^^^
    same before that: 89 events; recorded by agent [VERSION], replayed by agent [VERSION]
    ");
    // The prompt differs.
    snapshot!(replayed(&world, &file, &["--edit-format", "search-replace"]), @r#"
    exit 1
    --- stdout
    different before turn 1, event 6: the request differs
    the system prompt (1)
      4
      5   Tools, with the JSON Schema of their arguments:
      6   read_file: Read a file, or a range of its lines, as NUMBER|TEXT. {"type":"object","properties":{"path":{"type":"string"},"start_line":{"type":"integer"},"end_line":{"type":"integer"}},"required":["path"]}
      7 - apply_patch: Edit files: each "search" is a few lines copied exactly from the file (empty: a new file), like {"edits":[{"path":"area.py","search":"def area(w, h):\n    return w + h\n","replace":"def area(w, h):\n    return w * h\n"}]}. {"type":"object","properties":{"edits":{"type":"array","items":{"type":"object","properties":{"path":{"type":"string"},"search":{"type":"string"},"replace":{"type":"string"}},"required":["path","search","replace"]}}},"required":["edits"]}
                                 ^^^^^^^^^^^^^^^^^^^^^^^^                                     ^^^^^                      ^^^^^^^^^^^^^^          ^^^^^^^^^^^^^^^                                ^^^^^^^^^^^^^^^^                                  ^^                                 ^^^^^^ ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^                                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      7 + apply_patch: Edit files with blocks whose SEARCH lines are copied exactly from the file (none: a new file), like {"patch":"area.py\n<<<<<<< SEARCH\ndef area(w, h):\n    return w + h\n=======\ndef area(w, h):\n    return w * h\n>>>>>>> REPLACE\n"}. {"type":"object","properties":{"patch":{"type":"string"}},"required":["patch"]}
                                  ^^^^^^^^^^^^^^^^^^^^^^^^       ^^^^                              ^^^^                      ^^^^^          ^^^^^^^^^^^^^^^^^^^^^                                ^^^^^^^^^^^^                                ^^^^^^^^^^^^^^^^^                                    ^^^^^                                  ^^^^^
      8   run_tests: Run the tests. {"type":"object","properties":{"command":{"description":"Overrides the test command.","anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]},"args":{"type":"array","items":{"type":"string"},"description":"Extra arguments, e.g. one test's name."},"env":{"type":"object","description":"Environment variables."}}}
      9   list_files: List files, below path and matching glob. {"type":"object","properties":{"path":{"type":"string"},"glob":{"type":"string"}}}
     10   search: Find lines in files. {"type":"object","properties":{"pattern":{"type":"string","description":"Regex"},"path":{"type":"string"},"glob":{"type":"string"}},"required":["pattern"]}
    same before that: 1 event; recorded by agent [VERSION], replayed by agent [VERSION]
    "#);
    let result = world
        .agent(&["replay", file.to_str().unwrap(), "--edit-format", "unified", "--json"])
        .output()
        .unwrap();
    assert_eq!(result.status.code(), Some(1));
    let result = json_lines(&String::from_utf8(result.stdout).unwrap()).remove(0);
    assert_eq!(
        (&result["same"], &result["difference"]["kind"]),
        (&json!(false), &json!("asked")),
        "{result}"
    );
    assert!(result["difference"]["now"].as_str().unwrap().contains("unified"), "{result}");
}

#[test]
fn replay_finds_a_command_with_a_different_result() {
    let world = world();
    world.write(".gitignore", "state\n");
    world.write("state", "one\n");
    let commands = [
        call("run_command", json!({"command": "cat state; sleep 0.01; echo took $RANDOM_LESS 0.01s"})),
        edit("$1 - $2", "$1 + $2"),
        finish(),
    ];
    recorded(&world, &JSON, &texts(&commands));
    let seen = world.observe(&["replay", "--run-commands"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    world.write("state", "two\n");
    snapshot!(world.observe(&["replay", "--run-commands"]), @r"
    exit 1
    --- stdout
    different in turn 1, event 14: a command's result differs
    the result of run_command
      1   ok
      2   Exit code 0.
      3 - one
      3 + two
      4   took 0.01s
    same before that: 7 events; recorded by agent [VERSION], replayed by agent [VERSION]
    ");
    let seen = world.observe(&["replay"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
}

#[test]
fn a_replay_changes_nothing_and_needs_no_server() {
    let world = world();
    with_every_tool(&world, &[]);
    let sessions = world.home().join(".local/state/agent/sessions");
    let temporary = world.home().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let before = (everything(&world.repo()), everything(&sessions));
    for args in
        [&["replay"][..], &["replay", "--recorded"], &["replay", "--run-commands"], &["sessions", "export"]]
    {
        let output = world.agent(args).env("TMPDIR", &temporary).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
        assert!(before == (everything(&world.repo()), everything(&sessions)), "{args:?}");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{args:?} should leave nothing behind");
    }
}

#[test]
fn later_changes_to_the_repository_affect_neither_replays_nor_exports() {
    let world = world();
    world.write("unrelated.txt", "nobody looked at this\n");
    with_every_tool(&world, &[]);
    let file = exported(&world, &[]);
    let text = std::fs::read(&file).unwrap();
    world.write("check.sh", "exit 1\n");
    world.write("more.txt", "a sum\n");
    world.write("add.sh", "# other\n");
    world.write("unrelated.txt", "nor at this\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=others"]);
    std::fs::remove_file(&file).unwrap();
    replays_without_a_difference(&world);
    assert!(std::fs::read(&file).unwrap() == text, "the export should be unchanged");
}

#[test]
fn a_session_whose_repository_is_gone_replays_only_as_recorded() {
    let world = world();
    session(&world, &[], answers());
    std::fs::rename(world.repo(), world.home().join("moved")).unwrap();
    std::fs::create_dir(world.home().join("elsewhere")).unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_agent"));
        world.tell(
            &command
                .args(args)
                .env("HOME", world.home())
                .current_dir(world.home().join("elsewhere"))
                .output()
                .unwrap(),
        )
    };
    let seen = run(&["replay"]);
    assert!(
        seen.starts_with("exit 2\n") && seen.contains("no longer exists") && seen.contains("--recorded"),
        "{seen}"
    );
    let seen = run(&["replay", "--recorded"]);
    assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{seen}");
}

#[test]
fn a_killed_replay_leaves_the_repository_unchanged() {
    let world = world();
    with_every_tool(&world, &[]);
    let before = everything(&world.repo());
    for (n, args) in [&["replay"][..], &["replay", "--run-commands"]].into_iter().enumerate() {
        for attempt in 0.. {
            let temporary = world.home().join(format!("tmp-{n}-{attempt}"));
            std::fs::create_dir(&temporary).unwrap();
            let mut child =
                world.agent(args).env("TMPDIR", &temporary).stdout(Stdio::null()).spawn().unwrap();
            // Wait until the replay creates its tree or ends.
            let mut ended = false;
            while !ended && std::fs::read_dir(&temporary).unwrap().next().is_none() {
                ended = child.try_wait().unwrap().is_some();
                std::thread::yield_now();
            }
            child.kill().unwrap();
            if child.wait().unwrap().code().is_none() {
                break; // the replay was killed before it ended
            }
        }
        assert!(before == everything(&world.repo()), "{args:?}");
        let seen = world.observe(args);
        assert!(seen.starts_with("exit 0\n"), "{seen}");
    }
}
