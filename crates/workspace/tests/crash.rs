//! A commit that is killed at any system call, and a recovery that is killed at any system call, leave all of a commit or none.
//!
//! The test starts itself again under ptrace and kills that process before its n-th call, for every n: what it leaves then is also what it
//! would leave right after the call before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use traced::{End, Scope};
use workspace::{Change, Expect, Workspace};

/// Tells the process started again where its tree is.
const PLACE: &str = "CRASH_TEST_PLACE";
/// Tells it that its file system has no renames with flags.
const OLD: &str = "CRASH_TEST_OLD";

/// A tree with something for each kind of change, and the state folder beside it.
fn setting() -> TempDir {
    // In memory where possible: a killed process loses nothing that it had written, synced or not.
    let memory = tempfile::tempdir_in("/dev/shm");
    let place = memory.or_else(|_| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let root = place.path().join("root");
    for (path, text) in [
        ("changed.txt", "before\n"),
        ("removed.txt", "removed\n"),
        ("src/renamed.txt", "renamed\n"),
        ("src/moved.txt", "moved\n"),
        ("linked.txt", "two names\n"),
        ("tool.sh", "#!/bin/sh\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::hard_link(root.join("linked.txt"), root.join("src/linked.txt")).unwrap();
    fs::set_permissions(root.join("tool.sh"), fs::Permissions::from_mode(0o751)).unwrap();
    place
}

fn open(place: &Path) -> Workspace {
    Workspace::open_with(place.join("root"), place.join("state")).unwrap()
}

/// Every kind of change at once.
fn changes(ws: &Workspace) -> Vec<Change> {
    let path = |p: &str| ws.target(p).unwrap();
    let write = |p: &str, executable| Change::Write {
        path: path(p),
        bytes: b"after\n".to_vec(),
        executable,
        expect: Expect::Any,
    };
    let rename = |from: &str, to: &str, bytes| Change::Rename {
        from: path(from),
        to: path(to),
        bytes,
        executable: None,
        expect: Expect::Any,
    };
    vec![
        write("changed.txt", None),
        write("made/deep/created.txt", Some(true)),
        Change::Delete { path: path("removed.txt"), expect: Expect::Any },
        rename("src/renamed.txt", "src/new-name.txt", None),
        rename("src/moved.txt", "lib/moved.txt", Some(b"and changed\n".to_vec())),
        write("linked.txt", None),
        write("tool.sh", None),
    ]
}

/// Each name with the mode, the number of names and the content of what it stands for.
type Tree = BTreeMap<PathBuf, (u32, u64, Vec<u8>)>;

fn tree(place: &Path) -> Tree {
    let root = place.join("root");
    let mut seen = Tree::new();
    let mut todo = vec![root.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(&root).unwrap().to_owned();
            if m.is_dir() {
                seen.insert(name, (m.mode(), 0, Vec::new()));
                todo.push(path);
            } else {
                seen.insert(name, (m.mode(), m.nlink(), fs::read(path).unwrap()));
            }
        }
    }
    seen
}

/// The trees before and after [`changes`].
fn old_and_new() -> (Tree, Tree) {
    let place = setting();
    let old = tree(place.path());
    let ws = open(place.path());
    ws.commit(changes(&ws)).unwrap();
    (old, tree(place.path()))
}

/// This test program, also when it has been replaced on disk, to run one of its parts on a tree.
fn part(name: &str, place: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--test-threads=1"]).env(PLACE, place);
    command
}

/// Opens the workspace, which recovers; what is then there has to be the old tree or the new one, and to work. Returns whether it is the new
/// one, or what is wrong.
fn check(place: &Path, old: &Tree, new: &Tree) -> Result<bool, String> {
    let ws = Workspace::open_with(place.join("root"), place.join("state")).map_err(|e| e.to_string())?;
    let now = tree(place);
    let is_new = now == *new;
    if !is_new && now != *old {
        let [now, old, new] = [&now, old, new].map(|tree| tree.iter().collect::<BTreeSet<_>>());
        let (from_old, from_new) = (&now ^ &old, &now ^ &new);
        return Err(format!("{:?}", if from_old.len() < from_new.len() { from_old } else { from_new }));
    }
    let commits = ws.commits().unwrap().len();
    if commits != usize::from(is_new) {
        return Err(format!("{commits} commits, and the new tree: {is_new}"));
    }
    for bytes in [b"next\n".to_vec(), now[Path::new("changed.txt")].2.clone()] {
        let path = ws.target("changed.txt").unwrap();
        let change = Change::Write { path, bytes, executable: None, expect: Expect::Any };
        ws.commit(vec![change]).map_err(|e| e.to_string())?;
    }
    if tree(place) == now { Ok(is_new) } else { Err("the next commits do not work".into()) }
}

#[test]
fn a_commit_killed_at_any_call_is_whole_or_nothing() {
    kill_commits(|place| part("commits", place));
}

#[test]
fn where_files_cannot_be_exchanged_a_killed_commit_is_whole_or_nothing_too() {
    kill_commits(|place| {
        let mut command = part("commits", place);
        command.env(OLD, "yes");
        command
    });
}

fn kill_commits(commit: impl Fn(&Path) -> Command) {
    let (old, new) = old_and_new();
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for n in 0.. {
        let place = setting();
        let end = traced::kill_when(commit(place.path()), Scope::Marked, |stop| stop.n == 2 * n);
        match check(place.path(), &old, &new) {
            Ok(is_new) => outcomes.push(is_new),
            Err(why) => wrong.push(format!("{end}: {why}")),
        }
        if end == End::Finished {
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(outcomes.len() > 100, "only {} places to kill it", outcomes.len());
    assert!(outcomes.is_sorted(), "once a commit has taken place it stays: {outcomes:?}");
    assert!(!outcomes[0] && outcomes[outcomes.len() - 1]);
}

/// What the test above kills.
#[test]
fn commits() {
    let (own, place) = in_place();
    let ws = open(&place);
    let changes = changes(&ws);
    if env::var_os(OLD).is_some() {
        traced::act_like(traced::Old::Renames);
    }
    traced::begin();
    ws.commit(changes).unwrap();
    traced::end();
    drop(own);
}

#[test]
fn a_recovery_killed_at_any_call_is_done_by_the_next() {
    // The commit is cut before anything has changed places, in the middle of that, after all of it, and when the old files go.
    let cuts = [
        (libc::SYS_renameat2, 1),
        (libc::SYS_renameat2, 5),
        (libc::SYS_renameat2, 10),
        (libc::SYS_unlinkat, 1),
    ];
    assert!(kill_recoveries(&cuts, part) > 300);
}

#[test]
fn where_files_cannot_be_exchanged_a_killed_recovery_is_done_by_the_next_too() {
    let old = |name: &str, place: &Path| {
        let mut command = part(name, place);
        command.env(OLD, "yes");
        command
    };
    // The third rename ends the exchange of the first file: one is refused, and one puts the new file in place.
    assert!(kill_recoveries(&[(libc::SYS_renameat2, 2), (libc::SYS_renameat2, 3)], old) > 100);
}

/// Cuts a commit after the n-th of these calls, and the recovery at every call. Returns how often it was cut.
fn kill_recoveries(cuts: &[(i64, u32)], part: impl Fn(&str, &Path) -> Command) -> u32 {
    let (old, new) = old_and_new();
    let (mut kills, mut wrong) = (0, Vec::new());
    for &(call, times) in cuts {
        for n in 0.. {
            let place = setting();
            let mut left = times;
            let cut = traced::kill_when(part("commits", place.path()), Scope::Marked, |stop| {
                left -= u32::from(stop.call == call && stop.done);
                left == 0
            });
            assert!(cut != End::Finished, "there are no {times} calls {call}");
            let end =
                traced::kill_when(part("recovers", place.path()), Scope::Marked, |stop| stop.n == 2 * n);
            if let Err(why) = check(place.path(), &old, &new) {
                wrong.push(format!("commit cut at {cut}, recovery at {end}: {why}"));
            }
            kills += 1;
            if end == End::Finished {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    kills
}

/// What the test above kills.
#[test]
fn recovers() {
    let (own, place) = in_place();
    if env::var_os(OLD).is_some() {
        traced::act_like(traced::Old::Renames);
    }
    traced::begin();
    drop(open(&place));
    traced::end();
    drop(own);
}

/// The tree to work on; one of its own where a part is run by itself, which shows that it ends well when nobody kills it.
fn in_place() -> (Option<TempDir>, PathBuf) {
    match env::var_os(PLACE) {
        Some(place) => (None, place.into()),
        None => {
            let own = setting();
            let place = own.path().to_owned();
            (Some(own), place)
        }
    }
}
