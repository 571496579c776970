//! `agent run --dry-run`, and `agent diff|undo|apply`: what a session changed is looked at, brought, put back; nothing else is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use crate::support::{World, call, snapshot};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

const ADD: &str = "add() {\n    echo $(($1 - $2))\n}\n";
const MENDED: &str = "add() {\n    echo $(($1 + $2))\n}\n";

fn edit(path: &str, search: &str, replace: &str) -> String {
    call("apply_patch", json!({"edits": [{"path": path, "search": search, "replace": replace}]}))
}

/// Mends the bug, makes a file in a new folder, removes one.
fn answers() -> [String; 4] {
    let patch = "*** Begin Patch\n*** Add File: docs/new/guide.md\n+# Guide\n*** Delete File: old.txt\n*** End Patch\n";
    [
        edit("add.sh", "$1 - $2", "$1 + $2"),
        call("apply_patch", json!({"patch": patch})),
        call("run_tests", json!({})),
        call("finish", json!({})),
    ]
}

fn world() -> World {
    let world = World::with_a_bug();
    world.write("old.txt", "old\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=old"]);
    world
}

fn session(world: &World, args: &[&str], answers: impl IntoIterator<Item = String>) -> Output {
    let server = Server::start();
    for answer in answers {
        server.enqueue(Reply::text(answer));
    }
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b", "--dialect", "json", "Make the tests pass."];
    all.extend(args);
    world.agent(&all).env("OLLAMA_HOST", server.url()).output().unwrap()
}

/// Everything about a tree that a dry run may not change: type, mode, owner, inode, links, sizes, times (but for the last look), content.
fn everything(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let content = if m.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        } else if m.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let known = format!(
            "{:o} {} {} {} {} {} {times:?} {content:?}",
            m.mode(),
            m.uid(),
            m.gid(),
            m.ino(),
            m.nlink(),
            m.size()
        );
        out.insert(path.strip_prefix(root).unwrap().display().to_string(), known);
    }
    out
}

#[test]
fn a_dry_run_changes_nothing_about_the_repository() {
    let world = world();
    world.write(".gitignore", "build/\n");
    world.write("build/cache", "cached\n");
    world.write("staged.txt", "staged\n");
    world.git(&["add", "staged.txt"]);
    std::os::unix::fs::symlink("add.sh", world.repo().join("link")).unwrap();
    // What a test command may do: write beside and into files, ask git, which refreshes its index, and commit.
    world.write(
        ".agent.toml",
        "verify = 'sh check.sh && test -f build/cache && echo x >> build/cache && echo y > made.txt && touch add.sh old && git status'\n",
    );
    let (before, status) = (everything(&world.repo()), world.git(&["status", "--porcelain=v2", "--branch"]));
    // git itself may have refreshed the index just now.
    let before = if before == everything(&world.repo()) { before } else { everything(&world.repo()) };
    let output = session(&world, &["--dry-run"], answers());
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let after = everything(&world.repo());
    let differing: Vec<_> = before.iter().filter(|(path, known)| after.get(*path) != Some(*known)).collect();
    assert!(before == after, "{differing:?}\n{:?}", after.keys().collect::<Vec<_>>());
    assert_eq!(world.git(&["status", "--porcelain=v2", "--branch"]), status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("+    echo $(($1 + $2))"));
}

#[test]
fn a_dry_run_says_how_to_go_on_and_can_be_applied_and_undone() {
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
    assert_eq!(world.git(&["status", "--porcelain"]), "", "a check changes nothing");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stderr
    nothing to put back of session [SESSION]: it was a dry run that has not been applied
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
        (MENDED, "# Guide\n")
    );
    assert!(!world.repo().join("old.txt").exists());
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 0
    --- stderr
    applied already: the files are as the session left them (session [SESSION])
    ");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     deleted  docs/new/guide.md            -1  -
     created  old.txt                +1        +
     3 files, +2 -2
    --- stderr
    put back in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(!world.repo().join("docs").exists(), "folders that were made go too");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 0
    --- stderr
    nothing to put back of session [SESSION]: all of it has been put back before
    ");
    let again = world.observe(&["apply", "last"]);
    assert!(again.starts_with("exit 0\n"), "{again}");
    assert_eq!(world.read("add.sh"), MENDED);
}

#[test]
fn the_end_of_a_dry_run_is_shown_as_asked() {
    let world = world();
    let output = session(&world, &["--dry-run", "--preview", "words"], answers());
    let seen = world.tell(&output);
    let shown = seen.split("--- stderr").next().unwrap();
    snapshot!(shown, @r"
    exit 0
    --- stdout
     changed  add.sh                 +1    -1  +-
     created  docs/new/guide.md      +1        +
     deleted  old.txt                      -1  -
     3 files, +2 -2

    ─── add.sh ─────────────────────────────────────────────────────────────────────
      1   add() {
      2 -     echo $(($1 - $2))
                         ^
      2 +     echo $(($1 + $2))
                         ^
      3   }

    ─── docs/new/guide.md ──────────────────────────────────────────────────────────
      1 + # Guide

    ─── old.txt ────────────────────────────────────────────────────────────────────
      1 - old
    ");
    let last: Vec<_> = seen.lines().rev().take(3).collect();
    snapshot!(last.join("\n"), @r"
    look again: agent sessions show [SESSION]
    apply it: agent apply [SESSION]
    the patch: [WORLD]/home/.local/state/agent/sessions/[SESSION]/changes.patch
    ");
}

#[test]
fn what_has_changed_meanwhile_is_not_overwritten_but_can_be_merged() {
    let world = world();
    session(&world, &["--dry-run", "--quiet"], answers());
    world.write("add.sh", &format!("#!/bin/sh\n\n\n\n{ADD}"));
    world.write("old.txt", "old, but new\n");
    snapshot!(world.observe(&["apply", "last"]), @r"
    exit 1
    --- stderr
    nothing was applied; these files are not as the session found them:
      add.sh: it has been changed since
      old.txt: it has been changed since
    hint: agent apply [SESSION] --merge keeps both changes where they touch different lines
    ");
    snapshot!(world.observe(&["apply", "last", "--merge"]), @r"
    exit 1
    --- stderr
    nothing was applied; these files cannot be merged:
      old.txt: it has been changed since
    ");
    assert!(!world.repo().join("docs").exists(), "nothing of it was applied");
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
    merged add.sh: it had been changed since the dry run
    applied in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.read("add.sh"), format!("#!/bin/sh\n\n\n\n{MENDED}"));
    let undone = world.observe(&["undo", "last"]);
    assert!(undone.starts_with("exit 0\n"), "{undone}");
    assert_eq!(world.read("add.sh"), format!("#!/bin/sh\n\n\n\n{ADD}"), "as it was when it was merged");
}

#[test]
fn an_undo_puts_back_what_the_agent_changed_and_nothing_else() {
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
    put back in [WORLD]/repo: session [SESSION]
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
    nothing to put back of session [SESSION]: all of it has been put back before
    ");
}

#[test]
fn an_undo_names_every_file_that_somebody_else_has_changed() {
    let world = world();
    session(&world, &["--quiet"], answers());
    world.write("add.sh", "mine now\n");
    world.write("old.txt", "mine too\n");
    snapshot!(world.observe(&["undo", "last"]), @r"
    exit 1
    --- stderr
    nothing was put back; these files are not as the agent left them:
      add.sh: it has been changed since
      old.txt: somebody else has made a file of this name
    ");
    assert_eq!(
        (world.read("add.sh").as_str(), world.read("docs/new/guide.md").as_str()),
        ("mine now\n", "# Guide\n")
    );
}

#[test]
fn a_diff_is_what_the_session_did() {
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

/// Three turns that change one file, the second by a command.
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
fn one_turn_can_be_looked_at_and_those_after_it_undone() {
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
    assert!(!world.repo().join("made.txt").exists(), "what a command made goes with its turn");
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
    put back in [WORLD]/repo: session [SESSION]
    ");
    assert_eq!(world.read("a.txt"), "eins\ntwo\nthree\n");
    let seen = world.observe(&["undo", "last"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_plan_stops_before_the_first_command() {
    let world = world();
    let output = session(&world, &["--dry-run=plan"], answers());
    snapshot!(world.tell(&output).split("--- stderr").next().unwrap(), @r"
    exit 1
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
    diff --git a/docs/new/guide.md b/docs/new/guide.md
    new file mode 100644
    index 0000000000000000000000000000000000000000..8c0d02fadc02df29eefff5ad660a022b4a8e5efd
    --- /dev/null
    +++ b/docs/new/guide.md
    @@ -0,0 +1 @@
    +# Guide
    diff --git a/old.txt b/old.txt
    deleted file mode 100644
    index 3367afdbbf91e638efe983616377c60477cc6612..0000000000000000000000000000000000000000
    --- a/old.txt
    +++ /dev/null
    @@ -1 +0,0 @@
    -old
    ");
    let events = world.events();
    assert!(!events.contains(&"check_started".to_owned()), "{events:?}");
    let executed = world.journal().iter().any(|r| r["event"] == "tool_started" && r["effect"] == "execute");
    assert!(!executed && world.git(&["status", "--porcelain"]).is_empty());
}

/// A dry run that has changed something and now waits for its model.
fn waiting(world: &World, server: &Server) -> Child {
    let [edit, ..] = answers();
    server.enqueue(Reply::text(edit));
    server.enqueue(Reply::text("Let me think").gate("never released"));
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--dialect", "json", "--dry-run", "Make the tests pass."];
    let mut command = world.agent(&args);
    let child =
        command.env("OLLAMA_HOST", server.url()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    server.block_for_gate("never released");
    child.unwrap()
}

fn only_session(world: &World) -> std::path::PathBuf {
    let sessions = world.home().join(".local/state/agent/sessions");
    fs::read_dir(sessions).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_dry_run_that_is_stopped_leaves_its_changes_and_no_tree() {
    let (world, server) = (world(), Server::start());
    let child = waiting(&world, &server);
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", world.tell(&output));
    let folder = only_session(&world);
    assert!(!folder.join("overlay").exists() && !folder.join("tree").exists());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.observe(&["apply", "last"]).starts_with("exit 0\n"));
    assert_eq!(world.read("add.sh"), MENDED);
}

#[test]
fn a_dry_run_that_was_killed_can_be_applied_and_removed() {
    let (world, server) = (world(), Server::start());
    let mut child = waiting(&world, &server);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.observe(&["apply", "last"]).starts_with("exit 0\n"));
    assert_eq!(world.read("add.sh"), MENDED);
    let folder = only_session(&world);
    let removed = world.observe(&["sessions", "rm", "last"]);
    assert!(removed.starts_with("exit 0\n") && !folder.exists(), "{removed}");
}

#[test]
fn a_copy_says_first_what_it_costs_and_why() {
    let world = world();
    let server = Server::start();
    for answer in answers() {
        server.enqueue(Reply::text(answer));
    }
    // Sessions inside the repository cannot be beside it: no overlay, whatever the system offers.
    world.write(".gitignore", ".sessions/\n");
    let state = world.repo().join(".sessions");
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--dialect", "json", "--dry-run", "Make the tests pass."];
    let output =
        world.agent(&args).env("OLLAMA_HOST", server.url()).env("AGENT_STATE_DIR", &state).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let said = String::from_utf8(output.stderr).unwrap();
    let tree = said.lines().position(|line| line.starts_with("tree    a copy of ")).unwrap();
    let line = said.lines().nth(tree).unwrap();
    assert!(line.ends_with("no overlay: the folder for the changes lies inside the repository"), "{line}");
    assert!(tree < said.lines().position(|line| line.starts_with("model ")).unwrap(), "{said}");
    assert_eq!(world.git(&["status", "--porcelain"]), "?? .gitignore\n");
    assert_eq!(world.read("add.sh"), ADD);
    let applied = world.agent(&["apply", "last"]).env("AGENT_STATE_DIR", &state).output().unwrap();
    assert_eq!(applied.status.code(), Some(0), "{}", world.tell(&applied));
    assert_eq!(world.read("add.sh"), MENDED);
}

#[test]
fn sessions_that_are_not_there_or_changed_nothing_are_said_so() {
    let world = World::with(&[("a.txt", "one\n")]);
    snapshot!(world.observe(&["undo"]), @r"
    exit 2
    --- stderr
    error: which session? agent undo SESSION
    hint: `agent sessions list` shows them; `last` is the newest
    ");
    snapshot!(world.observe(&["apply", "last"]), @r#"
    exit 2
    --- stderr
    error: there is no session "last"; `agent sessions list` shows those there are
    "#);
    session(&world, &["--quiet"], [call("finish", json!({}))]);
    for command in ["diff", "apply", "undo"] {
        let seen = world.observe(&[command, "last"]);
        assert!(seen.starts_with("exit 0\n--- stderr\n") && seen.contains("changed nothing"), "{seen}");
    }
}

#[test]
fn a_session_that_still_runs_is_left_alone() {
    let (world, server) = (world(), Server::start());
    let [edit, ..] = answers();
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

#[test]
fn the_tree_of_a_dry_run_is_in_the_journal_and_in_doctor() {
    let world = world();
    session(&world, &["--dry-run", "--quiet"], answers());
    let journal = world.journal();
    let tree: &Value = journal.iter().find(|r| r["event"] == "tree").unwrap();
    let server = Server::start();
    let doctor = world.agent(&["doctor", "--json"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let finding = doctor["findings"].as_array().unwrap().iter().find(|f| f["subject"] == "dry run").unwrap();
    let found = finding["found"].as_str().unwrap();
    match tree["way"].as_str().unwrap() {
        "overlay" => assert_eq!(found, "an overlay of the repository; nothing is copied"),
        _ => assert!(found.starts_with("a copy of ") && found.contains("no overlay: "), "{found}"),
    }
}
