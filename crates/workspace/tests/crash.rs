//! Kills commits and recoveries at every system call: either all of a commit survives or none of
//! it.
//!
//! For every n, the test runs this program again under ptrace and kills the new process before its
//! n-th system call. Kills after a call are covered too, because they are the same as kills before
//! the next call. With `CRASHES=few`, only every fifth n is tested.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

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

/// Tells the child process where its tree is.
const PLACE: &str = "CRASH_TEST_PLACE";
/// Tells the child process to simulate a file system without rename flags.
const OLD: &str = "CRASH_TEST_OLD";

/// Creates a tree with a file for each kind of change, and a state folder beside it.
fn fixture() -> TempDir {
    // Use memory if possible. No disk is needed, because a killed process loses none of its writes,
    // synced or not.
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

/// Returns one change of every kind.
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

/// The mode, the number of hard links and the content of every path.
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

/// Returns the trees before and after [`changes`].
fn old_and_new() -> (Tree, Tree) {
    let place = fixture();
    let old = tree(place.path());
    let ws = open(place.path());
    ws.commit(changes(&ws)).unwrap();
    (old, tree(place.path()))
}

/// Returns the command that runs one test of this program on a tree. The command works even if the
/// program has been replaced on disk.
fn part(name: &str, place: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--test-threads=1"]).env(PLACE, place);
    command
}

/// Opens the workspace, which rolls back an interrupted commit. Checks that the tree is `old` or
/// `new`, and that the next commits work. Returns whether the tree is `new`. The error describes
/// what is wrong.
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
        return Err(format!("{commits} commits are stored, which contradicts the tree (new: {is_new})"));
    }
    for bytes in [b"next\n".to_vec(), now[Path::new("changed.txt")].2.clone()] {
        let path = ws.target("changed.txt").unwrap();
        let change = Change::Write { path, bytes, executable: None, expect: Expect::Any };
        ws.commit(vec![change]).map_err(|e| e.to_string())?;
    }
    if tree(place) == now { Ok(is_new) } else { Err("the next commits do not work".into()) }
}

#[test]
fn a_commit_killed_at_any_system_call_is_all_or_nothing() {
    kill_commits(|place| part("commits", place));
}

#[test]
fn a_killed_commit_is_all_or_nothing_without_atomic_swaps_too() {
    kill_commits(|place| {
        let mut command = part("commits", place);
        command.env(OLD, "yes");
        command
    });
}

fn kill_commits(commit: impl Fn(&Path) -> Command) {
    let (old, new) = old_and_new();
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for n in (0..).step_by(step()) {
        let place = fixture();
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
    assert!(outcomes.len() * step() > 100, "only killed at {} calls", outcomes.len());
    assert!(outcomes.is_sorted(), "a later kill should not undo the commit: {outcomes:?}");
    assert!(!outcomes[0] && outcomes[outcomes.len() - 1]);
}

/// Runs in the process that [`kill_commits`] kills.
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
fn a_recovery_killed_at_any_system_call_is_finished_by_the_next_one() {
    // Kill the commit before the swaps, between them, after them, and while it removes the old
    // files.
    let cuts = [
        (libc::SYS_renameat2, 1),
        (libc::SYS_renameat2, 5),
        (libc::SYS_renameat2, 10),
        (libc::SYS_unlinkat, 1),
    ];
    assert!(kill_recoveries(&cuts, part) > 300);
}

#[test]
fn a_killed_recovery_is_finished_without_atomic_swaps_too() {
    let old = |name: &str, place: &Path| {
        let mut command = part(name, place);
        command.env(OLD, "yes");
        command
    };
    // The first rename is refused, the second moves the new file in, and the third finishes the
    // swap.
    assert!(kill_recoveries(&[(libc::SYS_renameat2, 2), (libc::SYS_renameat2, 3)], old) > 100);
}

/// Returns the distance from one tested call to the next.
fn step() -> usize {
    if env::var("CRASHES").is_ok_and(|how| how == "few") { 5 } else { 1 }
}

/// Kills a commit after each of the calls in `cuts` (`(call, 2)` is the second such call), and then
/// kills the recovery at every call. Returns the approximate number of killed recoveries. If only
/// every fifth call is tested, each kill counts as five.
fn kill_recoveries(cuts: &[(i64, u32)], part: impl Fn(&str, &Path) -> Command) -> u32 {
    let (old, new) = old_and_new();
    let (mut kills, mut wrong) = (0, Vec::new());
    for &(call, times) in cuts {
        for n in (0..).step_by(step()) {
            let place = fixture();
            let mut left = times;
            let cut = traced::kill_when(part("commits", place.path()), Scope::Marked, |stop| {
                left -= u32::from(stop.call == call && stop.done);
                left == 0
            });
            assert!(cut != End::Finished, "system call {call} was made fewer than {times} times");
            let end =
                traced::kill_when(part("recovers", place.path()), Scope::Marked, |stop| stop.n == 2 * n);
            if let Err(why) = check(place.path(), &old, &new) {
                wrong.push(format!("commit cut at {cut}, recovery at {end}: {why}"));
            }
            kills += u32::try_from(step()).unwrap();
            if end == End::Finished {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    kills
}

/// Runs in the process that [`kill_recoveries`] kills.
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

/// Returns the tree to work on. If no other test started this process, creates a tree, because the
/// test must also succeed on its own.
fn in_place() -> (Option<TempDir>, PathBuf) {
    match env::var_os(PLACE) {
        Some(place) => (None, place.into()),
        None => {
            let own = fixture();
            let place = own.path().to_owned();
            (Some(own), place)
        }
    }
}
