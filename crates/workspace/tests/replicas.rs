//! Tests replicas, and trees reconstructed from a session's state folder.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use workspace::{Baseline, Change, CleanPath, Expect, FileImage, Remembered, Seed, WalkFilter, Workspace};

fn path(text: &str) -> CleanPath {
    CleanPath::try_from(text.to_owned()).unwrap()
}

fn file(text: &str) -> FileImage {
    FileImage { bytes: text.into(), mode: 0o644, link: false }
}

#[test]
fn a_replica_resolves_absolute_paths_of_the_original_only() {
    let folder = tempfile::tempdir().unwrap();
    let replica = Workspace::open_replica(folder.path(), Path::new("/home/someone/repo")).unwrap();
    replica.plant(&path("src/a.rs"), &Seed::Image(file("x\n"))).unwrap();
    for given in ["src/a.rs", "/home/someone/repo/src/a.rs", folder.path().join("src/a.rs").to_str().unwrap()]
    {
        assert_eq!(replica.resolve(given).unwrap(), path("src/a.rs"), "{given}");
    }
    for given in ["/home/someone/repository/src/a.rs", "/home/someone/repo/../a.rs", "/etc/passwd"] {
        assert!(replica.resolve(given).is_err(), "{given}");
    }
}

#[test]
fn planting_overwrites_no_file_and_follows_no_link() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = Workspace::open_replica(folder.path(), Path::new("/r")).unwrap();
    let link = FileImage { bytes: outside.path().to_str().unwrap().into(), mode: 0o777, link: true };
    replica.plant(&path("link"), &Seed::Image(link)).unwrap();
    replica.plant(&path("a"), &Seed::Size(1 << 33)).unwrap();
    for wrong in ["link/x", "link", "a", "a/b", ".git/config", "sub/.GIT/hooks/x"] {
        assert!(replica.plant(&path(wrong), &Seed::Image(file("x"))).is_err(), "{wrong}");
        assert!(replica.plant(&path(wrong), &Seed::Size(3)).is_err(), "{wrong}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let listed = replica.walk(&WalkFilter::default()).entries;
    assert_eq!(listed[0].size, 1 << 33, "a sparse file has its full size");
    assert!(replica.read(&path("a")).is_err(), "a file of zeros should be refused as binary");
}

#[test]
fn put_sets_files_whatever_their_current_state_is() {
    let folder = tempfile::tempdir().unwrap();
    let replica = Workspace::open_replica(folder.path(), Path::new("/r")).unwrap();
    replica.plant(&path("a"), &Seed::Image(file("one"))).unwrap();
    replica.plant(&path("b"), &Seed::Image(file("two"))).unwrap();
    let run = FileImage { mode: 0o755, ..file("three") };
    let files = [(path("a"), None), (path("b"), Some(run.clone())), (path("c/d"), Some(file("four")))];
    replica.put(&files).unwrap();
    assert_eq!((replica.image(&path("a")), replica.image(&path("b"))), (None, Some(run)));
    assert_eq!(replica.image(&path("c/d")), Some(file("four")));
    replica.put(&files).unwrap(); // changes nothing
}

fn git(root: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"])
        .args(args);
    assert!(git.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap().status.success(), "{args:?}");
}

#[test]
fn the_tree_at_the_start_is_reconstructed_after_any_change() {
    for with_git in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (root, state) = (folder.path().join("repo"), folder.path().join("state"));
        fs::create_dir(&root).unwrap();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write("edited", "edited before\n");
        write("changed", "changed before\n");
        write("removed", "removed before\n");
        write("same", "same\n");
        if with_git {
            git(&root, &["init", "-q"]);
            git(&root, &["add", "-A"]);
            git(&root, &["commit", "-q", "-m", "begun"]);
        }
        write("untracked", "untracked before\n");
        Baseline::take(&root, &state).unwrap();
        let workspace = Workspace::open_with(&root, &state).unwrap();
        let write_by = |name: &str, text: &str| {
            let change =
                Change::Write { path: path(name), bytes: text.into(), executable: None, expect: Expect::Any };
            workspace.commit(vec![change]).unwrap();
        };
        write_by("edited", "edited by the session\n");
        write_by("made", "made by the session\n");
        // Then others change the files.
        write("changed", "changed since\n");
        write("edited", "edited since\n");
        write("untracked", "changed since\n");
        write("new", "new since\n");
        fs::remove_file(root.join("removed")).unwrap();
        if with_git {
            git(&root, &["add", "-A"]);
            git(&root, &["commit", "-q", "-m", "since"]);
        }
        let scratch = folder.path().join("scratch");
        let then = Remembered::open(&root, &state, &scratch).unwrap();
        for name in ["edited", "changed", "removed", "untracked"] {
            assert_eq!(then.image(&path(name)), Some(file(&format!("{name} before\n"))), "{name}");
        }
        assert_eq!(then.image(&path("same")), Some(file("same\n")));
        assert_eq!((then.image(&path("made")), then.image(&path("new"))), (None, None));
        assert!(then.lost().is_empty());
    }
}

#[test]
fn files_whose_content_is_lost_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (root, state) = (folder.path().join("repo"), folder.path().join("state"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "before\n").unwrap();
    // The baseline keeps a copy of any file that is as new as the index, so this file must be
    // older.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(root.join("a")).unwrap().set_modified(long_ago).unwrap();
    git(&root, &["init", "-q"]);
    git(&root, &["add", "-A"]);
    git(&root, &["commit", "-q", "-m", "begun"]);
    Baseline::take(&root, &state).unwrap();
    fs::write(root.join("a"), "since\n").unwrap();
    fs::remove_dir_all(root.join(".git")).unwrap();
    let then = Remembered::open(&root, &state, &folder.path().join("scratch")).unwrap();
    assert_eq!(then.lost(), [path("a")]);
    assert_eq!(
        then.image(&path("a")),
        Some(file("since\n")),
        "the current state, because the old one is lost"
    );
}
