//! A baseline reads every format of git's index, trusts the index for unchanged files, and sees
//! every change.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use common::git;
use tempfile::TempDir;
use workspace::{Baseline, Diff};

/// Creates a repository whose files are a minute old.
fn repository(init: &[&str]) -> (TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    for part in 0..20 {
        let folder = root.join(format!("src/part{part}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.txt"), format!("{part}\n")).unwrap();
        fs::write(folder.join("empty"), "").unwrap();
    }
    fs::write(root.join("b.txt"), "b\n").unwrap();
    git(&root, &[&["init", "-q"], init].concat());
    settle(&root);
    git(&root, &["add", "-A"]);
    git(&root, &["commit", "-qm", "first"]);
    (outer, root)
}

/// Makes all files older than the index.
fn settle(root: &Path) {
    let then = SystemTime::now() - Duration::from_secs(60);
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true if path.ends_with(".git") => {}
                true => todo.push(path),
                false => fs::File::open(path).unwrap().set_modified(then).unwrap(),
            }
        }
    }
}

/// Counts the files below a folder.
fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
}

/// A file, with the number of lines added and removed.
type Changed = (String, u64, u64);

fn files(diff: Diff) -> Vec<Changed> {
    diff.files.into_iter().map(|file| (file.path, file.added, file.removed)).collect()
}

/// Takes a baseline and changes files. Returns the diff, and how many objects the baseline and the
/// diff wrote.
fn changes(outer: &Path, root: &Path) -> (Vec<Changed>, usize, usize) {
    let baseline = Baseline::take(root, &outer.join("state")).unwrap();
    let objects = outer.join("state/baseline/objects");
    let by_baseline = count(&objects);
    assert!(baseline.diff().unwrap().files.is_empty());
    fs::write(root.join("src/part7/a.txt"), "changed\n").unwrap();
    fs::write(root.join("src/new.txt"), "new\n").unwrap();
    fs::remove_file(root.join("src/part8/a.txt")).unwrap();
    let files = files(baseline.diff().unwrap());
    (files, by_baseline, count(&objects) - by_baseline)
}

fn expected() -> Vec<Changed> {
    named([("src/new.txt", 1, 0), ("src/part7/a.txt", 1, 1), ("src/part8/a.txt", 0, 1)])
}

fn named<const N: usize>(files: [(&str, u64, u64); N]) -> Vec<Changed> {
    files.map(|(path, added, removed)| (path.to_owned(), added, removed)).to_vec()
}

/// With 100,000 committed files, each diff used to take seconds: it passed every file to git and
/// wrote a tree object for every folder.
#[test]
fn the_cost_grows_with_the_changes_and_not_with_the_repository() {
    let (outer, root) = repository(&[]);
    let (files, by_baseline, by_diff) = changes(outer.path(), &root);
    assert_eq!(files, expected());
    assert_eq!(by_baseline, 0);
    // The diff writes two blobs, and two versions (old and new) of four trees: the root and three
    // folders.
    assert!(by_diff <= 10, "{by_diff}");
}

#[test]
fn every_index_format_is_read() {
    for form in [
        &["update-index", "--index-version", "2"][..],
        &["update-index", "--index-version", "4"],
        &["update-index", "--split-index"],
        &["update-index", "--untracked-cache"],
        &["add", "--intent-to-add", "planned.txt"],
    ] {
        let (outer, root) = repository(&[]);
        fs::write(root.join("planned.txt"), "planned\n").unwrap();
        git(&root, form);
        let (files, by_baseline, _) = changes(outer.path(), &root);
        assert_eq!(files, expected(), "{form:?}");
        assert_eq!(by_baseline, 1, "{form:?}: only planned.txt is new");
    }
    let (outer, root) = repository(&["--object-format=sha256"]);
    let (files, by_baseline, _) = changes(outer.path(), &root);
    assert_eq!((files, by_baseline), (expected(), 0));
}

#[test]
fn files_outside_a_sparse_checkout_are_not_deleted() {
    for sparse in ["--no-sparse-index", "--sparse-index"] {
        let (outer, root) = repository(&[]);
        git(&root, &["sparse-checkout", "set", "--cone", sparse, "src/part7", "src/part8"]);
        assert!(!root.join("src/part9").exists());
        assert_eq!(changes(outer.path(), &root).0, expected(), "{sparse}");
    }
}

#[test]
fn flags_that_hide_changes_from_git_do_not_hide_them_from_a_diff() {
    for mark in ["--assume-unchanged", "--skip-worktree"] {
        let (outer, root) = repository(&[]);
        git(&root, &["update-index", mark, "src/part7/a.txt"]);
        // This change is part of the baseline, because it is made before the baseline is taken.
        fs::write(root.join("src/part7/a.txt"), "mine\n").unwrap();
        assert_eq!(changes(outer.path(), &root).0, expected(), "{mark}");
        let patch = Baseline::open(&root, &outer.path().join("state")).unwrap().diff().unwrap().patch;
        assert!(String::from_utf8_lossy(&patch).contains("-mine\n+changed\n"), "{mark}");
    }
}

#[test]
fn the_diff_shows_a_file_that_became_a_folder_and_the_reverse() {
    let (outer, root) = repository(&[]);
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    fs::remove_file(root.join("b.txt")).unwrap();
    fs::create_dir(root.join("b.txt")).unwrap();
    fs::write(root.join("b.txt/inside"), "inside\n").unwrap();
    fs::remove_dir_all(root.join("src/part3")).unwrap();
    fs::write(root.join("src/part3"), "a file now\n").unwrap();
    assert_eq!(
        files(baseline.diff().unwrap()),
        named([
            ("b.txt", 0, 1),
            ("b.txt/inside", 1, 0),
            ("src/part3", 1, 0),
            ("src/part3/a.txt", 0, 1),
            ("src/part3/empty", 0, 0),
        ])
    );
}
