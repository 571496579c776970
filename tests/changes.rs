//! `agent diff|undo|apply`: shows, reverts or applies the changes made in a session, and nothing
//! else.

use std::fs;
use std::process::{Output, Stdio};

use crate::support::{World, call, snapshot};
use fake_model::{Reply, Server};
use serde_json::json;

pub(crate) const ADD: &str = "add() {\n    echo $(($1 - $2))\n}\n";
pub(crate) const FIXED: &str = "add() {\n    echo $(($1 + $2))\n}\n";

fn edit(path: &str, search: &str, replace: &str) -> String {
    call("apply_patch", json!({"edits": [{"path": path, "search": search, "replace": replace}]}))
}

/// Returns the answers of a model that fixes the bug, creates a file in a new folder and deletes
/// another file.
pub(crate) fn answers() -> [String; 4] {
    let patch = "*** Begin Patch\n*** Add File: docs/new/guide.md\n+# Guide\n*** Delete File: old.txt\n*** End Patch\n";
    [
        edit("add.sh", "$1 - $2", "$1 + $2"),
        call("apply_patch", json!({"patch": patch})),
        call("run_tests", json!({})),
        call("finish", json!({})),
    ]
}

pub(crate) fn world() -> World {
    let world = World::with_a_bug();
    world.write("old.txt", "old\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=old"]);
    world
}

pub(crate) fn session(world: &World, args: &[&str], answers: impl IntoIterator<Item = String>) -> Output {
    let server = Server::start();
    for answer in answers {
        server.enqueue(Reply::text(answer));
    }
    let mut all =
        vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap()
}

#[test]
fn a_dry_run_prints_the_next_step_and_can_be_applied_and_undone() {
    let world = world();
    let output = session(&world, &["--dry-run", "--quiet"], answers());
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let seen = world.observe(&["apply", "last", "--check"]);
    snapshot!(seen, @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2
    ");
    assert_eq!(world.git(&["status", "--porcelain"]), "", "a check should change nothing");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stderr
    nothing to undo in session [SESSION]: it is a dry run that was not applied
    ");
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2
    --- stderr
    applied in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(
        (world.read("add.sh").as_str(), world.read("docs/new/guide.md").as_str()),
        (FIXED, "# Guide\n")
    );
    assert!(!world.repo().join("old.txt").exists());
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 0
    --- stderr
    nothing to apply: the files are already as the session left them (session [SESSION])
    ");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     deleted  docs/new/guide.md            -1  -
     created  old.txt                +1        +
     3 files, +2 -2
    --- stderr
    undone in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(!world.repo().join("docs").exists(), "created folders should be removed too");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stderr
    nothing to undo in session [SESSION]: all changes are already undone
    ");
    let again = world.observe(&["apply", "last"]);
    assert!(again.starts_with("exit 0\n"), "{again}");
    assert_eq!(world.read("add.sh"), FIXED);
}

#[test]
fn files_changed_after_a_dry_run_are_not_overwritten_but_can_be_merged() {
    let world = world();
    session(&world, &["--dry-run", "--quiet"], answers());
    world.write("add.sh", &format!("#!/bin/sh\n\n\n\n{ADD}"));
    world.write("old.txt", "old, but new\n");
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 1
    --- stderr
    nothing was applied; these files were changed after the dry run started:
      add.sh: it has changed since
      old.txt: it has changed since
    hint: to merge changes to different lines: agent apply [SESSION] --merge
    ");
    snapshot!(world.observe(&["apply", "last", "--merge"]), @r"
    exit 1
    --- stderr
    nothing was applied; these files cannot be merged:
      old.txt: it has changed since
    ");
    assert!(!world.repo().join("docs").exists(), "no part of the session should be applied");
    world.write("old.txt", "old\n");
    snapshot!(world.observe(&["apply", "last", "--merge", "--preview=words"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2

    ─── add.sh ─────────────────────────────────────────────────────────────────────
      3
      4
      5   add() {
      6 -     echo $(($1 - $2))
                         ^
      6 +     echo $(($1 + $2))
                         ^
      7   }

    ─── docs/new/guide.md ──────────────────────────────────────────────────────────
      1 + # Guide

    ─── old.txt ────────────────────────────────────────────────────────────────────
      1 - old
    ");
    snapshot!(world.observe(&["apply", "last", "--merge"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2
    --- stderr
    merged add.sh, which was changed after the dry run
    applied in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.read("add.sh"), format!("#!/bin/sh\n\n\n\n{FIXED}"));
    let undone = world.observe(&["undo", "last"]);
    assert!(undone.starts_with("exit 0\n"), "{undone}");
    assert_eq!(
        world.read("add.sh"),
        format!("#!/bin/sh\n\n\n\n{ADD}"),
        "undo should restore the file as it was before the merge"
    );
}

#[test]
fn undo_reverts_exactly_the_agents_changes() {
    let world = world();
    world.write("mine.txt", "not committed\n");
    session(&world, &["--quiet"], answers());
    world.write("docs/new/mine.txt", "mine\n");
    snapshot!(world.observe(&["undo", "last", "--preview", "words"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     deleted  docs/new/guide.md            -1  -
     created  old.txt                +1        +
     3 files, +2 -2

    ─── add.sh ─────────────────────────────────────────────────────────────────────
      1   add() {
      2 -     echo $(($1 + $2))
                         ^
      2 +     echo $(($1 - $2))
                         ^
      3   }

    ─── docs/new/guide.md ──────────────────────────────────────────────────────────
      1 - # Guide

    ─── old.txt ────────────────────────────────────────────────────────────────────
      1 + old
    ");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     deleted  docs/new/guide.md            -1  -
     created  old.txt                +1        +
     3 files, +2 -2
    --- stderr
    undone in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!((world.read("add.sh").as_str(), world.read("old.txt").as_str()), (ADD, "old\n"));
    assert!(!world.repo().join("docs/new/guide.md").exists());
    assert_eq!(
        (world.read("mine.txt").as_str(), world.read("docs/new/mine.txt").as_str()),
        ("not committed\n", "mine\n")
    );
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stderr
    nothing to undo in session [SESSION]: all changes are already undone
    ");
}

#[test]
fn undo_names_every_file_that_was_changed_after_the_session() {
    let world = world();
    session(&world, &["--quiet"], answers());
    world.write("add.sh", "mine now\n");
    world.write("old.txt", "mine too\n");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 1
    --- stderr
    nothing was undone; these files were changed after the session:
      add.sh: it has changed since
      old.txt: someone else created this file
    ");
    assert_eq!(
        (world.read("add.sh").as_str(), world.read("docs/new/guide.md").as_str()),
        ("mine now\n", "# Guide\n")
    );
}

#[test]
fn diff_shows_what_the_session_changed() {
    let world = world();
    session(&world, &["--quiet"], answers());
    snapshot!(world.observe(&["diff"]), @r"
    exit 0
    --- stdout
    diff --git a/add.sh b/add.sh
    --- a/add.sh
    +++ b/add.sh
    @@ -1,3 +1,3 @@
     add() {
    -    echo $(($1 - $2))
    +    echo $(($1 + $2))
     }
    diff --git a/docs/new/guide.md b/docs/new/guide.md
    new file mode 100644
    --- /dev/null
    +++ b/docs/new/guide.md
    @@ -0,0 +1 @@
    +# Guide
    diff --git a/old.txt b/old.txt
    deleted file mode 100644
    --- a/old.txt
    +++ /dev/null
    @@ -1 +0,0 @@
    -old
    ");
    snapshot!(world.observe(&["diff", "last", "--preview", "none"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2
    ");
    let output = world.agent(&["diff"]).output().unwrap();
    let patch = world.home().join("x.patch");
    fs::write(&patch, output.stdout).unwrap();
    world.git(&["apply", "-R", patch.to_str().unwrap()]);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

/// Returns the answers of a model that changes one file over three turns, using a command in the
/// second.
fn three_turns() -> Vec<String> {
    let command = "sed -i 's/^two$/zwei/' a.txt && echo made > made.txt";
    let mut answers = vec![
        edit("a.txt", "one", "eins"),
        call("run_command", json!({"command": command})),
        edit("a.txt", "three", "drei"),
    ];
    answers.extend(std::iter::repeat_n(call("finish", json!({})), 4));
    answers
}

#[test]
fn the_changes_of_one_turn_can_be_shown_and_those_of_later_turns_undone() {
    let world = World::with(&[("a.txt", "one\ntwo\nthree\n")]);
    session(&world, &["--quiet"], three_turns());
    assert_eq!(world.read("a.txt"), "eins\nzwei\ndrei\n");
    snapshot!(world.observe(&["diff", "last", "--turn", "2"]), @r"
    exit 0
    --- stdout
    diff --git a/a.txt b/a.txt
    --- a/a.txt
    +++ b/a.txt
    @@ -1,3 +1,3 @@
     eins
    -two
    +zwei
     three
    diff --git a/made.txt b/made.txt
    new file mode 100644
    --- /dev/null
    +++ b/made.txt
    @@ -0,0 +1 @@
    +made
    ");
    snapshot!(world.observe(&["diff", "last", "--turn", "9"]), @r"
    exit 0
    --- stderr
    session [SESSION] changed nothing in turn 9
    ");
    let seen = world.observe(&["undo", "last", "--to", "2"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("a.txt"), "eins\nzwei\nthree\n");
    let seen = world.observe(&["undo", "last", "--to", "1"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("a.txt"), "eins\ntwo\nthree\n");
    assert!(
        !world.repo().join("made.txt").exists(),
        "undoing a turn should remove the files that its command created"
    );
    let seen = world.observe(&["undo", "last"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn turns_of_an_applied_dry_run_can_be_undone_too() {
    let world = World::with(&[("a.txt", "one\ntwo\nthree\n")]);
    session(&world, &["--dry-run", "--quiet"], three_turns());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 0
    --- stdout
     changed  a.txt         +3    -3  +++---
     created  made.txt      +1        +
     2 files, +4 -3
    --- stderr
    applied in [WORLD]/repo: session [SESSION]
    ");
    assert!(world.observe(&["undo", "last", "--to", "2"]).starts_with("exit 0\n"));
    assert_eq!(world.read("a.txt"), "eins\nzwei\nthree\n");
    snapshot!(world.observe(&["undo", "last", "--to", "1"]), @r"
    exit 0
    --- stdout
     changed  a.txt         +1    -1  +-
     deleted  made.txt            -1  -
     2 files, +1 -2
    --- stderr
    undone in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.read("a.txt"), "eins\ntwo\nthree\n");
    let seen = world.observe(&["undo", "last"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn missing_sessions_and_sessions_without_changes_are_reported() {
    let world = World::with(&[("a.txt", "one\n")]);
    snapshot!(world.observe(&["undo"]), @r"
    exit 2
    --- stderr
    error: no session given; usage: agent undo SESSION
    hint: `agent sessions list` lists sessions; `last` is the newest
    ");
    snapshot!(world.observe(&["apply", "last"]), @r#"
    exit 2
    --- stderr
    error: there is no session "last"; `agent sessions list` lists all sessions
    "#);
    session(&world, &["--quiet"], [call("finish", json!({}))]);
    for command in ["diff", "apply", "undo"] {
        let seen = world.observe(&[command, "last"]);
        assert!(seen.starts_with("exit 0\n--- stderr\n") && seen.contains("changed nothing"), "{seen}");
    }
}

#[test]
fn a_running_session_can_be_shown_but_not_undone_or_applied() {
    let (world, server) = (world(), Server::start());
    let [edit, ..] = answers();
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
    for command in ["undo", "apply"] {
        let seen = world.observe(&[command, "last"]);
        assert!(
            seen.starts_with("exit 2\n--- stderr\nerror: session ") && seen.contains("is in use by process"),
            "{seen}"
        );
    }
    let seen = world.observe(&["diff", "last"]);
    assert!(seen.starts_with("exit 0\n") && seen.contains("+    echo $(($1 + $2))"), "{seen}");
    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    child.wait_with_output().unwrap();
    let seen = world.observe(&["undo", "last"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("add.sh"), ADD);
}
