//! Trees that stand in for others: planted, put, and told from what a session keeps.

#![allow(clippy::unwrap_used, reason = "what cannot be is a failed test")]

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
fn a_replica_understands_the_paths_of_the_original_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let replica = Workspace::open_replica(folder.path(), Path::new("/home/somebody/repo")).unwrap();
    replica.plant(&path("src/a.rs"), &Seed::Image(file("x\n"))).unwrap();
    for given in
        ["src/a.rs", "/home/somebody/repo/src/a.rs", folder.path().join("src/a.rs").to_str().unwrap()]
    {
        assert_eq!(replica.resolve(given).unwrap(), path("src/a.rs"), "{given}");
    }
    for given in ["/home/somebody/repository/src/a.rs", "/home/somebody/repo/../a.rs", "/etc/passwd"] {
        assert!(replica.resolve(given).is_err(), "{given}");
    }
}

#[test]
fn nothing_is_planted_over_or_through_anything() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = Workspace::open_replica(folder.path(), Path::new("/r")).unwrap();
    let link = FileImage { bytes: outside.path().to_str().unwrap().into(), mode: 0o777, link: true };
    replica.plant(&path("way"), &Seed::Image(link)).unwrap();
    replica.plant(&path("a"), &Seed::Size(1 << 33)).unwrap();
    for wrong in ["way/x", "way", "a", "a/b", ".git/config", "sub/.GIT/hooks/x"] {
        assert!(replica.plant(&path(wrong), &Seed::Image(file("x"))).is_err(), "{wrong}");
        assert!(replica.plant(&path(wrong), &Seed::Size(3)).is_err(), "{wrong}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let listed = replica.walk(&WalkFilter::default()).entries;
    assert_eq!(listed[0].size, 1 << 33, "told as large as it is");
    assert!(replica.read(&path("a")).is_err(), "it has no content");
}

#[test]
fn files_are_put_as_they_are_to_be_whatever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let replica = Workspace::open_replica(folder.path(), Path::new("/r")).unwrap();
    replica.plant(&path("a"), &Seed::Image(file("one"))).unwrap();
    replica.plant(&path("b"), &Seed::Image(file("two"))).unwrap();
    let run = FileImage { mode: 0o755, ..file("three") };
    let files = [(path("a"), None), (path("b"), Some(run.clone())), (path("c/d"), Some(file("four")))];
    replica.put(&files).unwrap();
    assert_eq!((replica.image(&path("a")), replica.image(&path("b"))), (None, Some(run)));
    assert_eq!(replica.image(&path("c/d")), Some(file("four")));
    replica.put(&files).unwrap(); // again is nothing
}

fn git(root: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"])
        .args(args);
    assert!(git.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap().status.success(), "{args:?}");
}

#[test]
fn a_tree_is_told_as_it_was_whatever_has_become_of_it() {
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
        // Others, later.
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
fn what_is_not_kept_anywhere_any_more_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (root, state) = (folder.path().join("repo"), folder.path().join("state"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "before\n").unwrap();
    // A file as new as the index would be kept by us as well.
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
    assert_eq!(then.image(&path("a")), Some(file("since\n")), "as it is now, which is said");
}
