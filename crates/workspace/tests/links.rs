//! A file keeps its hard links when it is written; links outside the root never change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
};

use common::{Setting, tree};
use workspace::{Change, CommitError, Digest, Expect, Workspace};

fn same_file(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).unwrap();
    id(a) == id(b)
}

/// Creates a repository where `src/other.txt` and `ignored/third` are hard links to `a.txt`.
fn fixture() -> Setting {
    let s = Setting::repository();
    s.script("ln a.txt src/other.txt; ln a.txt ignored/third");
    s
}

#[test]
fn every_hard_link_inside_the_root_gets_the_new_content() {
    let s = fixture();
    let commit = s.try_edit("src/other.txt", "new\n").unwrap();
    let root = s.ws.root();
    for name in ["a.txt", "src/other.txt", "ignored/third"] {
        assert_eq!(s.read(name), "new\n", "{name}");
        assert!(same_file(&root.join("a.txt"), &root.join(name)), "{name}");
    }
    assert_eq!(fs::metadata(root.join("a.txt")).unwrap().nlink(), 3);
    let listed: Vec<_> = commit.files.iter().map(|f| (f.path.as_str(), f.after)).collect();
    let new = Some(Digest::of(b"new\n"));
    assert_eq!(listed, [("src/other.txt", new), ("a.txt", new), ("ignored/third", new)]);
}

#[test]
fn hard_links_in_the_git_folder_or_the_state_folder_or_outside_the_root_keep_the_old_content() {
    let s = fixture();
    s.script("ln a.txt ../outside; ln a.txt .git/inside; ln a.txt ../state/own");
    symlink(s.outer(), s.ws.root().join("up")).unwrap();
    let ws = Workspace::open_with(s.ws.root(), s.ws.root().join("src/state")).unwrap();
    s.script("ln a.txt src/state/own");
    let change = s.write("a.txt", "new\n");
    ws.commit(vec![change]).unwrap();
    for name in ["../outside", ".git/inside", "../state/own", "src/state/own"] {
        assert_eq!(s.read(name), "a\n", "{name}");
    }
    let root = s.ws.root();
    assert_eq!(s.read("ignored/third"), "new\n");
    assert!(same_file(&root.join("a.txt"), &root.join("src/other.txt")));
    assert_eq!(fs::metadata(root.join("a.txt")).unwrap().nlink(), 3);
    assert_eq!(fs::metadata(root.join("../outside")).unwrap().nlink(), 4);
}

#[test]
fn an_undo_keeps_hard_links() {
    let s = fixture();
    let before = tree(s.ws.root());
    s.edit("a.txt", "new\n");
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
    assert_eq!(fs::metadata(s.ws.root().join("a.txt")).unwrap().nlink(), 3);
}

#[test]
fn a_failure_leaves_every_hard_link_unchanged() {
    let s = fixture();
    let before = tree(s.ws.root());
    let inode = fs::metadata(s.ws.root().join("a.txt")).unwrap().ino();
    let stale =
        Change::Delete { path: s.path("b.txt"), expect: Expect::Content(Digest::of(b"something else")) };
    s.ws.commit(vec![s.write("a.txt", "new\n"), stale]).unwrap_err();
    assert_eq!(tree(s.ws.root()), before);
    assert_eq!(fs::metadata(s.ws.root().join("a.txt")).unwrap().ino(), inode);
}

#[test]
fn writing_the_same_content_to_two_hard_links_keeps_them_linked() {
    let s = fixture();
    s.ws.commit(vec![s.write("a.txt", "new\n"), s.write("src/other.txt", "new\n")]).unwrap();
    assert_eq!(fs::metadata(s.ws.root().join("a.txt")).unwrap().nlink(), 3);
    assert_eq!(s.read("ignored/third"), "new\n");
}

#[test]
fn writing_different_contents_to_two_hard_links_separates_them() {
    let s = fixture();
    s.ws.commit(vec![s.write("a.txt", "one\n"), s.write("src/other.txt", "two\n")]).unwrap();
    assert_eq!(
        [s.read("a.txt"), s.read("src/other.txt"), s.read("ignored/third")],
        ["one\n", "two\n", "a\n"]
    );
}

#[test]
fn removing_a_hard_link_leaves_the_others() {
    let s = fixture();
    let before = tree(s.ws.root());
    s.ws.commit(vec![Change::Delete { path: s.path("a.txt"), expect: Expect::Any }]).unwrap();
    assert!(!s.ws.root().join("a.txt").exists());
    assert_eq!([s.read("src/other.txt"), s.read("ignored/third")], ["a\n", "a\n"]);
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
}

#[test]
fn one_commit_can_remove_one_hard_link_and_write_another() {
    let s = fixture();
    let gone = Change::Delete { path: s.path("a.txt"), expect: Expect::Any };
    s.ws.commit(vec![gone, s.write("src/other.txt", "new\n")]).unwrap();
    assert!(!s.ws.root().join("a.txt").exists());
    assert!(same_file(&s.ws.root().join("src/other.txt"), &s.ws.root().join("ignored/third")));
}

#[test]
fn a_renamed_file_keeps_its_hard_links() {
    let s = fixture();
    for (from, to, bytes) in [("a.txt", "renamed.txt", None), ("renamed.txt", "x/again.txt", Some("new\n"))] {
        let bytes = bytes.map(|b| b.as_bytes().to_vec());
        let (from, to) = (s.path(from), s.path(to));
        s.ws.commit(vec![Change::Rename {
            from,
            to: to.clone(),
            bytes,
            executable: None,
            expect: Expect::Any,
        }])
        .unwrap();
        for name in ["src/other.txt", "ignored/third"] {
            assert!(same_file(&s.ws.root().join(&to), &s.ws.root().join(name)), "{to} {name}");
        }
    }
    assert_eq!(s.read("ignored/third"), "new\n");
    assert_eq!(fs::metadata(s.ws.root().join("x/again.txt")).unwrap().nlink(), 3);
}

#[test]
fn a_write_through_another_hard_link_is_detected() {
    let s = fixture();
    let change = Change::Write {
        path: s.path("a.txt"),
        bytes: b"new\n".to_vec(),
        executable: None,
        expect: Expect::Content(Digest::of(b"a\n")),
    };
    s.script("echo mine > ignored/third");
    assert!(matches!(s.ws.commit(vec![change]), Err(CommitError::Changed(_))));
    assert_eq!(s.read("a.txt"), "mine\n");
}

#[test]
fn an_undo_of_a_command_restores_all_hard_links() {
    let s = fixture();
    let before = tree(s.ws.root());
    s.run("echo new > a.txt");
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
    assert_eq!(fs::metadata(s.ws.root().join("a.txt")).unwrap().nlink(), 3);
}
