//! `agent run --dry-run`: the run behaves the same as without the flag, but does not visibly change
//! the repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::changes::{ADD, FIXED, answers, session, world};
use crate::support::{World, snapshot};
use fake_model::{Reply, Server};
use serde_json::Value;

/// Returns everything about a tree that a dry run must not change: the type, mode, owner, inode,
/// links, size, times (except access times) and content of each file.
pub(crate) fn everything(root: &Path) -> BTreeMap<String, String> {
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
    // A verification command may create files, modify files, and run git, which refreshes its
    // index.
    world.write(
        ".agent.toml",
        "verify = 'sh check.sh && test -f build/cache && echo x >> build/cache && echo y > made.txt && touch add.sh old && git status'\n",
    );
    let (before, status) = (everything(&world.repo()), world.git(&["status", "--porcelain=v2", "--branch"]));
    // `git status` may have refreshed the index after `everything` read it, so read it again.
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
fn a_dry_run_ends_with_the_requested_preview() {
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
    show: agent sessions show [SESSION]
    apply: agent apply [SESSION]
    patch: [WORLD]/home/.local/state/agent/sessions/[SESSION]/changes.patch
    ");
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

/// Starts a dry run. Returns once the run has changed a file and is waiting for the model.
fn waiting(world: &World, server: &Server) -> Child {
    let [edit, ..] = answers();
    server.enqueue(Reply::text(edit));
    server.enqueue(Reply::text("Let me think").gate("never released"));
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--dry-run", "Make the tests pass."];
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
fn a_stopped_dry_run_keeps_its_changes_and_removes_its_tree() {
    let (world, server) = (world(), Server::start());
    let child = waiting(&world, &server);
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", world.tell(&output));
    let folder = only_session(&world);
    assert!(!folder.join("overlay").exists() && !folder.join("tree").exists());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.observe(&["apply", "last"]).starts_with("exit 0\n"));
    assert_eq!(world.read("add.sh"), FIXED);
}

#[test]
fn a_dry_run_that_was_killed_can_be_applied_and_removed() {
    let (world, server) = (world(), Server::start());
    let mut child = waiting(&world, &server);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert!(world.observe(&["apply", "last"]).starts_with("exit 0\n"));
    assert_eq!(world.read("add.sh"), FIXED);
    let folder = only_session(&world);
    let removed = world.observe(&["sessions", "rm", "last"]);
    assert!(removed.starts_with("exit 0\n") && !folder.exists(), "{removed}");
}

#[test]
fn a_dry_run_in_a_copy_first_says_what_the_copy_costs_and_why_it_is_needed() {
    let world = world();
    let server = Server::start();
    for answer in answers() {
        server.enqueue(Reply::text(answer));
    }
    // An overlay cannot be used if the state folder is inside the repository.
    world.write(".gitignore", ".sessions/\n");
    let state = world.repo().join(".sessions");
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--dry-run", "Make the tests pass."];
    let output =
        world.agent(&args).env("OLLAMA_HOST", server.url()).env("AGENT_STATE_DIR", &state).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let printed = String::from_utf8(output.stderr).unwrap();
    let tree = printed.lines().position(|line| line.starts_with("tree    a copy of ")).unwrap();
    let line = printed.lines().nth(tree).unwrap();
    assert!(line.ends_with("no overlay: the directory for the changes is inside the repository"), "{line}");
    assert!(tree < printed.lines().position(|line| line.starts_with("model ")).unwrap(), "{printed}");
    assert_eq!(world.git(&["status", "--porcelain"]), "?? .gitignore\n");
    assert_eq!(world.read("add.sh"), ADD);
    let applied = world.agent(&["apply", "last"]).env("AGENT_STATE_DIR", &state).output().unwrap();
    assert_eq!(applied.status.code(), Some(0), "{}", world.tell(&applied));
    assert_eq!(world.read("add.sh"), FIXED);
}

#[test]
fn the_journal_and_doctor_name_the_kind_of_dry_run_tree() {
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
