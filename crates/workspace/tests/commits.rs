//! All files of a commit or none; and what was before comes back, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::TempDir;
use workspace::{Change, CleanPath, CommitError, Digest, Expect, History, Workspace};

fn setting() -> (TempDir, Workspace) {
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

/// Every file below a folder with its content and mode; folders with their mode.
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
fn a_commit_changes_creates_removes_and_renames_together() {
    let (_outer, ws) = setting();
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
fn a_failure_in_any_file_leaves_every_byte() {
    let (_outer, ws) = setting();
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
        let said =
            ws.commit(vec![write(&ws, "a.txt", "A\n"), write(&ws, "made/new.txt", "n\n"), bad]).unwrap_err();
        assert!(!said.is_system(), "{said}");
        assert_eq!(tree(ws.root()), before, "{said}");
    }
    assert_eq!(ws.commits().unwrap(), [0u64; 0]);
}

#[test]
fn a_file_changed_meanwhile_is_noticed() {
    let (_outer, ws) = setting();
    let expect = Expect::Content(Digest::of(b"a\n"));
    fs::write(ws.root().join("a.txt"), "by someone else\n").unwrap();
    let change = Change::Write { path: path(&ws, "a.txt"), bytes: b"A\n".to_vec(), executable: None, expect };
    assert!(matches!(ws.commit(vec![change]), Err(CommitError::Changed(_))));
    assert_eq!(fs::read(ws.root().join("a.txt")).unwrap(), b"by someone else\n");
}

#[test]
fn permissions_survive_and_can_be_set() {
    let (_outer, ws) = setting();
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
fn attributes_survive_and_so_does_the_owner() {
    let (_outer, ws) = setting();
    let attribute = |p: &str| {
        let mut room = [0; 64];
        let size = rustix::fs::getxattr(ws.root().join(p), "user.note", &mut room).unwrap_or(0);
        room[..size].to_vec()
    };
    let set = |p: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(ws.root().join(p), "user.note", b"kept", flags).is_ok()
    };
    // A file system without attributes has none to lose, and only root may give a file away.
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
fn undo_puts_back_every_byte_and_mode_and_removes_only_what_was_made() {
    let (outer, ws) = setting();
    fs::set_permissions(ws.root().join("b.txt"), fs::Permissions::from_mode(0o700)).unwrap();
    let before = tree(ws.root());
    let changes = vec![write(&ws, "a.txt", "A\n"), write(&ws, "x/y/z.txt", "z\n"), delete(&ws, "b.txt")];
    ws.commit(changes).unwrap();
    assert_ne!(tree(ws.root()), before);
    let made = History::open(&outer.path().join("state")).unwrap().standing(..).unwrap();
    ws.put_back(&made).unwrap();
    assert_eq!(tree(ws.root()), before);
}

/// Makes a commit look as if the process had died after `entered` of its files: without its `done` mark, with the other files as before.
#[test]
fn a_commit_cut_in_the_middle_is_taken_back_at_the_next_start() {
    let (outer, ws) = setting();
    let before = tree(ws.root());
    for entered in 0..=3 {
        let changes = vec![write(&ws, "a.txt", "A\n"), write(&ws, "new/x.txt", "x\n"), delete(&ws, "b.txt")];
        let id = ws.commit(changes).unwrap().id.unwrap();
        if entered < 1 {
            fs::write(ws.root().join("a.txt"), "a\n").unwrap();
        }
        if entered < 2 {
            fs::remove_file(ws.root().join("new/x.txt")).unwrap();
        }
        if entered < 3 {
            fs::write(ws.root().join("b.txt"), "b\n").unwrap();
        }
        fs::remove_file(outer.path().join(format!("state/commits/{id:06}/done"))).unwrap();
        let ws = Workspace::open_with(ws.root(), outer.path().join("state")).unwrap();
        assert_eq!(tree(ws.root()), before, "{entered} files");
        assert_eq!(ws.commits().unwrap(), [0u64; 0]);
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_stops_the_commit_before_it_starts() {
    let (outer, ws) = setting();
    let before = tree(ws.root());
    fs::remove_dir_all(outer.path().join("state/commits")).unwrap();
    let said = ws.commit(vec![write(&ws, "a.txt", "A\n"), write(&ws, "made/x", "x")]).unwrap_err();
    assert!(said.is_system(), "{said}");
    assert_eq!(tree(ws.root()), before);
}

#[test]
fn bytes_that_are_not_text_are_written_as_they_are() {
    let (_outer, ws) = setting();
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
fn what_was_seen_is_remembered_by_content() {
    let (_outer, ws) = setting();
    let a = path(&ws, "a.txt");
    assert_eq!(ws.seen(&a), None);
    ws.clone().saw(&a, b"a\n");
    assert_eq!(ws.seen(&a), Some(Digest::of(b"a\n")));
}

/// On NFS and some FUSE file systems every edit stopped the run.
#[test]
fn edits_and_undo_work_where_files_cannot_be_exchanged() {
    for old in [traced::Old::Renames, traced::Old::RenamesAndLinks] {
        let edit = move || {
            traced::act_like(old);
            let (outer, ws) = setting();
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
            // Nothing is left beside them.
            assert_eq!(tree(ws.root()).len(), 5);
            // A failure in the middle puts back what had been done.
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
        // The kernel refuses these calls to this thread only.
        std::thread::spawn(edit).join().unwrap();
    }
}
