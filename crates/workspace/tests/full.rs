//! Tests commits on a disk that is actually full. The tests try file systems of increasing size, up
//! to one that is large enough. Each commit either succeeds, or fails with an error and changes
//! nothing.
//!
//! The test runs itself in a user namespace, where it can mount and shrink a tmpfs.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    env,
    ffi::CString,
    fs,
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use workspace::{Change, CommitError, Expect, Workspace};

/// Environment variables that tell the child process where to work and what limit to set.
const PLACE: &str = "FULL_TEST_PLACE";
const LIMIT: &str = "FULL_TEST_LIMIT";

/// The size of each file before the commit, in bytes. It is larger than a page, the unit of
/// allocation in a tmpfs.
const SIZE: usize = 10_000;

fn fill(root: &Path) {
    for path in ["changed.txt", "src/removed.txt", "src/renamed.txt"] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'a'; SIZE]).unwrap();
    }
}

fn commit(ws: &Workspace) -> Result<Option<u64>, CommitError> {
    let path = |p: &str| ws.target(p).unwrap();
    let write = |p: &str| Change::Write {
        path: path(p),
        bytes: vec![b'b'; 2 * SIZE],
        executable: None,
        expect: Expect::Any,
    };
    let removed = Change::Delete { path: path("src/removed.txt"), expect: Expect::Any };
    let (from, to) = (path("src/renamed.txt"), path("lib/new.txt"));
    let renamed = Change::Rename { from, to, bytes: None, executable: None, expect: Expect::Any };
    ws.commit(vec![write("changed.txt"), write("made/deep/created.txt"), removed, renamed]).map(|c| c.id)
}

/// The mode and content of every file and folder.
type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    let mut seen = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let content = if m.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if m.is_dir() {
                todo.push(path.clone());
            }
            seen.insert(path, (m.mode(), content));
        }
    }
    seen
}

/// Makes a commit with limited space. Returns whether the space was sufficient.
fn attempt(root: &Path, state: &Path, squeeze: impl FnOnce(), relax: impl FnOnce()) -> bool {
    fill(root);
    let before = tree(root);
    let ws = Workspace::open_with(root, state).unwrap();
    squeeze();
    let outcome = commit(&ws);
    relax();
    let now = tree(root);
    let names =
        |tree: &Tree| tree.keys().map(|p| p.strip_prefix(root).unwrap().to_owned()).collect::<Vec<_>>();
    match outcome {
        Ok(id) => {
            let wanted =
                ["changed.txt", "lib", "lib/new.txt", "made", "made/deep", "made/deep/created.txt", "src"];
            assert_eq!(names(&now), wanted.map(PathBuf::from));
            assert!(now[&root.join("changed.txt")].1 == vec![b'b'; 2 * SIZE]);
            assert_eq!(ws.commits().unwrap(), [id.unwrap()]);
            true
        }
        Err(why) => {
            let message = why.to_string();
            assert!(why.is_system(), "{message}");
            assert!(message.contains("No space left") || message.contains("File too large"), "{message}");
            assert!(now == before, "{message}: {:?}", names(&now));
            assert_eq!(fs::read_dir(state.join("commits")).unwrap().count(), 0, "{message}");
            commit(&ws).unwrap();
            false
        }
    }
}

#[test]
fn a_commit_on_a_full_disk_fails_and_changes_nothing() {
    let Some(place) = env::var_os(PLACE).map(PathBuf::from) else {
        return in_namespace("a_commit_on_a_full_disk_fails_and_changes_nothing");
    };
    // Put the work tree, the state folder, or both on the small disk.
    for (root_on, state_on) in [(true, false), (false, true), (true, true)] {
        for resource in ["size", "nr_inodes"] {
            for free in 0.. {
                let own = tempfile::tempdir_in(&place).unwrap();
                let disk = own.path().join("disk");
                let on = |disk_too: bool, name: &str| {
                    if disk_too { disk.join(name) } else { own.path().join(name) }
                };
                fs::create_dir(&disk).unwrap();
                mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), c"size=64m").unwrap();
                let limit = |value: u64| {
                    let options = CString::new(format!("{resource}={value}")).unwrap();
                    let done = mount_remount(&disk, MountFlags::empty(), options.as_c_str());
                    assert!(done.is_ok(), "{options:?}: {done:?}");
                };
                let squeeze = || {
                    let now = rustix::fs::statvfs(&disk).unwrap();
                    limit(match resource {
                        // A size of 0 would mean no limit.
                        "size" => (now.f_blocks - now.f_bfree + free).max(1) * now.f_bsize,
                        _ => now.f_files - now.f_ffree + free,
                    });
                };
                let relax = || limit(64 << 20);
                let enough = attempt(&on(root_on, "root"), &on(state_on, "state"), squeeze, relax);
                unmount(&disk, UnmountFlags::DETACH).unwrap();
                assert!(!enough || free > 3, "the limit had no effect");
                if enough {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_copy_needs_twice_the_space_that_its_files_take() {
    let Some(place) = env::var_os(PLACE).map(PathBuf::from) else {
        return in_namespace("a_copy_needs_twice_the_space_that_its_files_take");
    };
    let disk = place.join("small");
    fs::create_dir(&disk).unwrap();
    mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    fs::create_dir_all(disk.join("a/b")).unwrap();
    // A sparse file takes no space, regardless of its size.
    fs::File::create(disk.join("a/sparse")).unwrap().set_len(1 << 40).unwrap();
    fs::write(disk.join("a/b/file"), vec![b'a'; 300 << 10]).unwrap();
    assert!(workspace::has_room(&disk.join("a"), &disk).unwrap());
    fs::write(disk.join("other"), vec![b'b'; 200 << 10]).unwrap();
    assert!(!workspace::has_room(&disk.join("a"), &disk).unwrap());
    unmount(&disk, UnmountFlags::DETACH).unwrap();
}

/// Uses another process to copy this program. A program cannot be started while any process has it
/// open for writing, and a process forked by another test would inherit the open file.
fn copy_of_this_program(to: &Path) {
    let this = format!("/proc/{}/exe", std::process::id());
    assert!(Command::new("cp").arg(this).arg(to).status().unwrap().success());
}

/// Runs one of these tests in new namespaces.
fn in_namespace(name: &str) {
    let place = tempfile::tempdir().unwrap();
    let test = place.path().join("test");
    copy_of_this_program(&test);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]).arg(test).args(["--exact", name, "--nocapture"]);
    let Output { status, stdout, stderr } = command.env(PLACE, place.path()).output().unwrap();
    let output = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(
        status.success() && output.contains("1 passed"),
        "this test needs to mount a file system: {output}"
    );
}

#[test]
fn a_commit_over_the_file_size_limit_changes_nothing() {
    if let (Some(place), Some(limit)) = (env::var_os(PLACE), env::var_os(LIMIT)) {
        let place = PathBuf::from(place);
        let limit = limit.to_str().unwrap().parse().unwrap();
        let all = getrlimit(Resource::Fsize);
        let set = |current| setrlimit(Resource::Fsize, Rlimit { current, ..all }).unwrap();
        let enough = attempt(&place.join("root"), &place.join("state"), || set(Some(limit)), || set(None));
        fs::write(place.join("enough"), enough.to_string()).unwrap();
        return;
    }
    let name = "a_commit_over_the_file_size_limit_changes_nothing";
    let copied = tempfile::tempdir().unwrap();
    let test = copied.path().join("test");
    copy_of_this_program(&test);
    for (how, signal) in [("trap '' XFSZ; ", None), ("", Some(libc::SIGXFSZ))] {
        let mut ends = Vec::new();
        for limit in [0, 1, 100, 1000, 2 * SIZE - 1, 2 * SIZE, 3 * SIZE - 1, 3 * SIZE, 4 * SIZE, 100 * SIZE] {
            let place = tempfile::tempdir().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{how}exec \"$@\""), "sh"]).arg(env::current_exe().unwrap());
            command
                .args(["--exact", name, "--nocapture"])
                .env(PLACE, place.path())
                .env(LIMIT, limit.to_string());
            let Output { status, stdout, stderr } = command.output().unwrap();
            let output = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
            let enough = fs::read(place.path().join("enough")).is_ok_and(|text| text == b"true");
            ends.push(enough);
            if let (Some(signal), false) = (signal, enough) {
                assert_eq!(status.signal(), Some(signal), "{output}");
                let (root, other) = (place.path().join("root"), place.path().join("other"));
                let ws = Workspace::open_with(&root, place.path().join("state")).unwrap();
                fill(&other);
                let strip = |top: &Path| -> Vec<_> {
                    let all = tree(top).into_iter();
                    all.map(|(path, seen)| (path.strip_prefix(top).unwrap().to_owned(), seen)).collect()
                };
                assert!(strip(&root) == strip(&other), "{:?}", tree(&root).keys());
                commit(&ws).unwrap();
            } else {
                assert!(status.success() && output.contains("1 passed"), "{status}: {output}");
            }
        }
        assert!(!ends[0] && ends[ends.len() - 1] && ends.is_sorted(), "{ends:?}");
    }
}
