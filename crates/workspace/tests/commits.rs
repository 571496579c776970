//! A commit changes either all of its files or none of them, and an undo restores every byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::TempDir;
use workspace::{Change, CleanPath, CommitError, Digest, Expect, History, Workspace};

fn fixture() -> (TempDir, Workspace) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("src")).unwrap();
    for (path, text) in [("a.txt", "a\n"), ("b.txt", "b\n"), ("src/c.txt", "c\n")] {
        fs::write(root.join(path), text).unwrap();
    }
    let ws = Workspace::open_with(&root, outer.path().join("state")).unwrap();
    (outer, ws)
}

fn path(ws: &Workspace, path: &str) -> CleanPath {
    ws.target(path).unwrap()
}

fn write(ws: &Workspace, p: &str, text: &str) -> Change {
    Change::Write { path: path(ws, p), bytes: text.into(), executable: None, expect: Expect::Any }
}

fn delete(ws: &Workspace, p: &str) -> Change {
    Change::Delete { path: path(ws, p), expect: Expect::Any }
}

/// Returns the content and mode of every file below a folder, and the mode of every subfolder.
fn tree(root: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().mode();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                todo.push(path);
                out.insert(name, (Vec::new(), mode));
            } else {
                out.insert(name, (fs::read(path).unwrap(), mode));
            }
        }
    }
    out
}

#[test]
fn one_commit_can_write_create_remove_and_rename() {
    let (_outer, ws) = fixture();
    let rename = Change::Rename {
        from: path(&ws, "src/c.txt"),
        to: path(&ws, "lib/deep/c.txt"),
        bytes: None,
        executable: None,
        expect: Expect::Content(Digest::of(b"c\n")),
    };
    let changes =
        vec![write(&ws, "a.txt", "A\n"), write(&ws, "new/x.txt", "x\n"), delete(&ws, "b.txt"), rename];
    let commit = ws.commit(changes).unwrap();
    let names: Vec<_> = tree(ws.root()).into_keys().collect();
    assert_eq!(names, ["a.txt", "lib", "lib/deep", "lib/deep/c.txt", "new", "new/x.txt", "src"]);
    assert_eq!(fs::read(ws.root().join("a.txt")).unwrap(), b"A\n");
    assert_eq!(commit.files.len(), 5);
    assert_eq!(commit.files[0].before, Some(Digest::of(b"a\n")));
    assert_eq!(commit.files[0].after, Some(Digest::of(b"A\n")));
}

#[test]
fn a_failure_in_any_file_changes_nothing() {
    let (_outer, ws) = fixture();
    fs::create_dir(ws.root().join("folder")).unwrap();
    fs::write(ws.root().join("fixed.txt"), "fixed\n").unwrap();
    fs::set_permissions(ws.root().join("fixed.txt"), fs::Permissions::from_mode(0o444)).unwrap();
    let before = tree(ws.root());
    let stale = Expect::Content(Digest::of(b"other"));
    let bad: Vec<Change> = vec![
        write(&ws, "folder", "x"),
        write(&ws, "fixed.txt", "x"),
        delete(&ws, "missing.txt"),
        write(&ws, "a.txt", "twice"),
        Change::Write { path: path(&ws, "b.txt"), bytes: vec![], executable: None, expect: stale },
        Change::Write { path: path(&ws, "b.txt"), bytes: vec![], executable: None, expect: Expect::Absent },
        Change::Rename {
            from: path(&ws, "b.txt"),
            to: path(&ws, "src/c.txt"),
            bytes: None,
            executable: None,
            expect: Expect::Any,
        },
    ];
    for bad in bad {
        let error =
            ws.commit(vec![write(&ws, "a.txt", "A\n"), write(&ws, "made/new.txt", "n\n"), bad]).unwrap_err();
        assert!(!error.is_system(), "{error}");
        assert_eq!(tree(ws.root()), before, "{error}");
    }
    assert_eq!(ws.commits().unwrap(), [0u64; 0]);
}

#[test]
fn a_file_changed_by_someone_else_is_detected() {
    let (_outer, ws) = fixture();
    let expect = Expect::Content(Digest::of(b"a\n"));
    fs::write(ws.root().join("a.txt"), "by someone else\n").unwrap();
    let change = Change::Write { path: path(&ws, "a.txt"), bytes: b"A\n".to_vec(), executable: None, expect };
    assert!(matches!(ws.commit(vec![change]), Err(CommitError::Changed(_))));
    assert_eq!(fs::read(ws.root().join("a.txt")).unwrap(), b"by someone else\n");
}

#[test]
fn permissions_survive_and_can_be_set() {
    let (_outer, ws) = fixture();
    fs::set_permissions(ws.root().join("a.txt"), fs::Permissions::from_mode(0o751)).unwrap();
    ws.commit(vec![write(&ws, "a.txt", "A\n")]).unwrap();
    let mode = |p: &str| fs::metadata(ws.root().join(p)).unwrap().mode() & 0o7777;
    assert_eq!(mode("a.txt"), 0o751);
    let run = |executable| Change::Write {
        path: path(&ws, "run.sh"),
        bytes: b"#!/bin/sh\n".to_vec(),
        executable,
        expect: Expect::Any,
    };
    ws.commit(vec![run(Some(true))]).unwrap();
    assert_eq!(mode("run.sh"), 0o755);
    ws.commit(vec![run(Some(false))]).unwrap();
    assert_eq!(mode("run.sh"), 0o644);
}

#[test]
fn extended_attributes_and_owner_survive() {
    let (_outer, ws) = fixture();
    let attribute = |p: &str| {
        let mut buffer = [0; 64];
        let size = rustix::fs::getxattr(ws.root().join(p), "user.note", &mut buffer).unwrap_or(0);
        buffer[..size].to_vec()
    };
    let set = |p: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(ws.root().join(p), "user.note", b"kept", flags).is_ok()
    };
    // Not every file system supports attributes, and only root may change the owner.
    let kept = if set("a.txt") && set("b.txt") { b"kept".to_vec() } else { Vec::new() };
    let owner = |p: &str| fs::metadata(ws.root().join(p)).map(|m| (m.uid(), m.gid())).unwrap();
    let given = std::os::unix::fs::chown(ws.root().join("a.txt"), Some(1234), Some(4321)).is_ok();
    let before = owner("a.txt");
    assert_eq!(given, before == (1234, 4321));
    let rename = Change::Rename {
        from: path(&ws, "b.txt"),
        to: path(&ws, "c/d.txt"),
        bytes: None,
        executable: None,
        expect: Expect::Any,
    };
    ws.commit(vec![write(&ws, "a.txt", "A\n"), rename]).unwrap();
    assert_eq!((attribute("a.txt"), attribute("c/d.txt")), (kept.clone(), kept));
    assert_eq!(owner("a.txt"), before);
}

#[test]
fn undo_restores_every_byte_and_mode_and_removes_created_files() {
    let (outer, ws) = fixture();
    fs::set_permissions(ws.root().join("b.txt"), fs::Permissions::from_mode(0o700)).unwrap();
    let before = tree(ws.root());
    let changes = vec![write(&ws, "a.txt", "A\n"), write(&ws, "x/y/z.txt", "z\n"), delete(&ws, "b.txt")];
    ws.commit(changes).unwrap();
    assert_ne!(tree(ws.root()), before);
    let made = History::open(&outer.path().join("state")).unwrap().standing(..).unwrap();
    ws.put_back(&made).unwrap();
    assert_eq!(tree(ws.root()), before);
}

/// Simulates a crash after the first `swapped` files of a commit were swapped: makes the whole
/// commit, restores the other files, and removes the `done` marker.
#[test]
fn an_interrupted_commit_is_rolled_back_on_the_next_start() {
    let (outer, ws) = fixture();
    let before = tree(ws.root());
    for swapped in 0..=3 {
        let changes = vec![write(&ws, "a.txt", "A\n"), write(&ws, "new/x.txt", "x\n"), delete(&ws, "b.txt")];
        let id = ws.commit(changes).unwrap().id.unwrap();
        if swapped < 1 {
            fs::write(ws.root().join("a.txt"), "a\n").unwrap();
        }
        if swapped < 2 {
            fs::remove_file(ws.root().join("new/x.txt")).unwrap();
        }
        if swapped < 3 {
            fs::write(ws.root().join("b.txt"), "b\n").unwrap();
        }
        fs::remove_file(outer.path().join(format!("state/commits/{id:06}/done"))).unwrap();
        let ws = Workspace::open_with(ws.root(), outer.path().join("state")).unwrap();
        assert_eq!(tree(ws.root()), before, "{swapped} files");
        assert_eq!(ws.commits().unwrap(), [0u64; 0]);
    }
}

#[test]
fn an_unwritable_state_folder_fails_the_commit_before_any_change() {
    let (outer, ws) = fixture();
    let before = tree(ws.root());
    fs::remove_dir_all(outer.path().join("state/commits")).unwrap();
    let error = ws.commit(vec![write(&ws, "a.txt", "A\n"), write(&ws, "made/x", "x")]).unwrap_err();
    assert!(error.is_system(), "{error}");
    assert_eq!(tree(ws.root()), before);
}

#[test]
fn binary_content_is_written_unchanged() {
    let (_outer, ws) = fixture();
    let bytes: Vec<u8> = (0..=255).collect();
    let change = Change::Write {
        path: path(&ws, "x.bin"),
        bytes: bytes.clone(),
        executable: None,
        expect: Expect::Absent,
    };
    ws.commit(vec![change]).unwrap();
    assert_eq!(ws.read_bytes(&path(&ws, "x.bin"), 1000).unwrap(), bytes);
}

#[test]
fn seen_content_is_remembered() {
    let (_outer, ws) = fixture();
    let a = path(&ws, "a.txt");
    assert_eq!(ws.seen(&a), None);
    ws.clone().saw(&a, b"a\n");
    assert_eq!(ws.seen(&a), Some(Digest::of(b"a\n")));
}

/// An earlier version stopped the run at every edit on NFS and some FUSE file systems, which cannot
/// swap two files atomically.
#[test]
fn edits_and_undo_work_without_atomic_swaps() {
    for old in [traced::Old::Renames, traced::Old::RenamesAndLinks] {
        let edit = move || {
            traced::act_like(old);
            let (outer, ws) = fixture();
            assert!(!ws.can_exchange().unwrap());
            let before = tree(ws.root());
            let rename = Change::Rename {
                from: path(&ws, "src/c.txt"),
                to: path(&ws, "d.txt"),
                bytes: None,
                executable: None,
                expect: Expect::Any,
            };
            let made =
                [write(&ws, "a.txt", "A\n"), write(&ws, "new/e.txt", "e\n"), delete(&ws, "b.txt"), rename];
            ws.commit(made.into()).unwrap();
            let read = |p: &str| fs::read_to_string(ws.root().join(p)).ok();
            assert_eq!(
                ["a.txt", "new/e.txt", "b.txt", "src/c.txt", "d.txt"].map(read),
                [Some("A\n".into()), Some("e\n".into()), None, None, Some("c\n".into())]
            );
            // No temporary files are left behind.
            assert_eq!(tree(ws.root()).len(), 5);
            // A failure in the middle rolls back the first file.
            let (after, watched) = (tree(ws.root()), path(&ws, "a.txt"));
            fs::create_dir(ws.root().join("f.txt")).unwrap();
            let change =
                |path| Change::Write { path, bytes: b"x".into(), executable: None, expect: Expect::Any };
            let onto_folder = CleanPath::try_from("f.txt".to_owned()).unwrap();
            assert!(ws.commit(vec![change(watched), change(onto_folder)]).is_err());
            fs::remove_dir(ws.root().join("f.txt")).unwrap();
            assert_eq!(tree(ws.root()), after);
            let history = History::open(&outer.path().join("state")).unwrap();
            ws.put_back(&history.standing(..).unwrap()).unwrap();
            assert_eq!(tree(ws.root()), before);
        };
        // `act_like` cannot be undone, so each case runs in its own thread.
        std::thread::spawn(edit).join().unwrap();
    }
}
