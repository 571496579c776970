//! Tests copies and diffs of whole trees. Neither changes the original.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;
use workspace::{Baseline, Workspace};

fn git(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(root).args([
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "init.defaultBranch=main",
    ]);
    let out = command.args(arguments).output().unwrap();
    assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn put(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Creates a repository with one unstaged change and one untracked file.
fn repository() -> (TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    git(&root, &["init", "-q"]);
    put(&root, "src/a.txt", "one\ntwo\nthree\n");
    put(&root, "b.txt", "b\n");
    put(&root, "c.txt", "c1\nc2\nc3\nc4\n");
    put(&root, ".gitignore", "ignored/\n");
    git(&root, &["add", "-A"]);
    git(&root, &["commit", "-qm", "first"]);
    put(&root, "ignored/cache", "cache\n");
    put(&root, "c.txt", "c1\nc2\nc3\nchanged before\n");
    put(&root, "untracked.txt", "u\n");
    (outer, root)
}

/// Returns the contents and all metadata of a tree, except access times.
fn observe(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let content = if m.is_file() {
                format!("{:?}", workspace::Digest::of(&fs::read(&path).unwrap()))
            } else {
                String::new()
            };
            let seen = format!(
                "{:o} {} {}.{} {}.{} {content}",
                m.mode(),
                m.ino(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime(),
                m.ctime_nsec()
            );
            out.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), seen);
            if m.is_dir() {
                todo.push(path);
            }
        }
    }
    out
}

#[test]
fn a_repository_path_may_contain_a_colon() {
    let (outer, root) = repository();
    // The diff reads the old content from the repository's objects, whose path contains special
    // characters here.
    let odd = outer.path().join("with: \"odd\" \\ name");
    fs::rename(&root, &odd).unwrap();
    git(&odd, &["status", "--short"]);
    let baseline = Baseline::take(&odd, &outer.path().join("state")).unwrap();
    put(&odd, "src/a.txt", "one\n2\nthree\n");
    let diff = baseline.diff().unwrap();
    assert_eq!(diff.files.len(), 1);
    assert!(String::from_utf8_lossy(&diff.patch).contains("-two\n+2\n"), "{:?}", diff.patch);
}

#[test]
fn a_diff_shows_only_changes_since_the_baseline() {
    let (outer, root) = repository();
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    assert_eq!(baseline.diff().unwrap().files, []);
    put(&root, "src/a.txt", "one\nTWO\nthree\nfour\n");
    put(&root, "new/größe.txt", "neu\n");
    put(&root, "ignored/more", "x\n");
    put(&root, "image.bin", [0, 1, 2, 255]);
    fs::remove_file(root.join("b.txt")).unwrap();
    fs::rename(root.join("c.txt"), root.join("moved.txt")).unwrap();
    let diff = baseline.diff().unwrap();
    let files: Vec<_> = diff.files.iter().map(|f| (f.path.as_str(), f.added, f.removed)).collect();
    assert_eq!(
        files,
        [
            ("b.txt", 0, 1),
            ("image.bin", 0, 0),
            ("moved.txt", 0, 0),
            ("new/größe.txt", 1, 0),
            ("src/a.txt", 2, 1)
        ]
    );
    let patch = String::from_utf8(diff.patch).unwrap();
    assert!(patch.contains("rename from c.txt\nrename to moved.txt\n"), "{patch}");
    assert!(patch.starts_with("diff --git a/b.txt b/b.txt\ndeleted file mode"), "{patch}");
}

#[test]
fn applying_the_patch_to_the_old_tree_gives_the_new_one() {
    let (outer, root) = repository();
    let copy = outer.path().join("copy");
    Workspace::open(&root).unwrap().copy_to(&copy).unwrap();
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    put(&root, "src/a.txt", b"one\r\nTWO \xe9\nthree");
    put(&root, "image.bin", [0, 1, 2, 255]);
    put(&root, "run.sh", "#!/bin/sh\n");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    put(&root, "name \"with\" quotes\tand tab.txt", "x\n");
    symlink("src/a.txt", root.join("link")).unwrap();
    fs::remove_file(root.join("untracked.txt")).unwrap();
    fs::rename(root.join("c.txt"), root.join("moved.txt")).unwrap();
    let patch = baseline.diff().unwrap().patch;
    fs::write(outer.path().join("p.patch"), patch).unwrap();
    git(&copy, &["apply", "../p.patch"]);
    let strip = |root: &Path| -> BTreeMap<String, String> {
        let kept = observe(root).into_iter().filter(|(path, _)| !path.starts_with(".git/"));
        kept.map(|(path, seen)| {
            let words: Vec<&str> = seen.split(' ').collect();
            (path, format!("{} {}", words[0], words[4..].join(" ")))
        })
        .collect()
    };
    assert_eq!(strip(&copy), strip(&root));
}

fn same(now: &BTreeMap<String, String>, before: &BTreeMap<String, String>) {
    let differ: Vec<_> = now.iter().filter(|(path, seen)| before.get(*path) != Some(seen)).collect();
    assert!(differ.is_empty() && now.len() == before.len(), "{differ:#?}");
}

#[test]
fn neither_baseline_nor_diff_changes_the_users_repository() {
    let (outer, root) = repository();
    git(&root, &["add", "c.txt"]);
    let before = observe(&root);
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    same(&observe(&root), &before);
    put(&root, "new.txt", "n\n");
    let before = observe(&root);
    assert_eq!(baseline.diff().unwrap().files.len(), 1);
    same(&observe(&root), &before);
    assert_eq!(git(&root, &["status", "--porcelain"]), "M  c.txt\n?? new.txt\n?? untracked.txt\n");
}

#[test]
fn neither_configuration_nor_attributes_make_git_run_programs() {
    let (outer, root) = repository();
    let trap = format!("touch {}", outer.path().join("trapped").display());
    for key in [
        "core.fsmonitor",
        "diff.external",
        "filter.x.clean",
        "filter.x.process",
        "diff.x.textconv",
        "diff.x.command",
    ] {
        git(&root, &["config", key, &trap]);
    }
    git(&root, &["config", "diff.noprefix", "true"]);
    git(&root, &["config", "color.ui", "always"]);
    put(&root, ".gitattributes", "* filter=x diff=x\n");
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    put(&root, "src/a.txt", "one\n");
    let diff = baseline.diff().unwrap();
    let text = String::from_utf8(diff.patch).unwrap();
    assert!(text.starts_with("diff --git a/src/a.txt b/src/a.txt\n"), "{text}");
    assert!(!outer.path().join("trapped").exists());
}

#[test]
fn a_change_right_after_the_index_was_written_is_detected() {
    let (outer, root) = repository();
    put(&root, "b.txt", "B\n");
    git(&root, &["add", "-A"]);
    let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
    put(&root, "b.txt", "X\n"); // same size, possibly in the same clock tick
    assert_eq!(baseline.diff().unwrap().files.len(), 1);
}

#[test]
fn a_folder_without_git_has_a_diff_that_skips_the_state_folder() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "a.txt", "a\n");
    put(root.path(), ".gitignore", "*.log\n");
    let baseline = Baseline::take(root.path(), &root.path().join(".agent/session")).unwrap();
    put(root.path(), "a.txt", "b\n");
    put(root.path(), "x.log", "log\n");
    let files = baseline.diff().unwrap().files;
    assert_eq!(files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["a.txt"]);
    assert!(!root.path().join(".git").exists());
}

#[test]
fn paths_in_the_diff_of_a_subfolder_are_relative_to_it() {
    let (outer, root) = repository();
    let baseline = Baseline::take(&root.join("src"), &outer.path().join("state")).unwrap();
    put(&root, "src/a.txt", "one\n");
    put(&root, "b.txt", "elsewhere\n");
    let diff = baseline.diff().unwrap();
    assert_eq!(diff.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["a.txt"]);
    assert!(String::from_utf8(diff.patch).unwrap().starts_with("diff --git a/a.txt b/a.txt\n"));
}

#[test]
fn worktrees_and_empty_repositories_have_a_diff() {
    let (outer, root) = repository();
    let tree = outer.path().join("tree");
    git(&root, &["worktree", "add", "-q", tree.to_str().unwrap()]);
    let baseline = Baseline::take(&tree, &outer.path().join("state")).unwrap();
    put(&tree, "b.txt", "B\n");
    assert_eq!(baseline.diff().unwrap().files.len(), 1);
    let empty = outer.path().join("empty");
    fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q"]);
    let baseline = Baseline::take(&empty, &outer.path().join("state2")).unwrap();
    put(&empty, "b.txt", "B\n");
    assert_eq!(baseline.diff().unwrap().files.len(), 1);
}

#[test]
fn a_copy_keeps_modes_times_and_links() {
    let (outer, root) = repository();
    put(&root, "run.sh", "#!/bin/sh\n");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("fixed")).unwrap();
    put(&root, "fixed/x", "x\n");
    fs::set_permissions(root.join("fixed"), fs::Permissions::from_mode(0o555)).unwrap();
    symlink("src/a.txt", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let before = observe(&root);
    let copy = outer.path().join("copy");
    let report = Workspace::open(&root).unwrap().copy_to(&copy).unwrap();
    same(&observe(&root), &before);
    assert_eq!(report.left_out, [root.canonicalize().unwrap().join("pipe")]);
    let strip = |root: &Path| -> BTreeMap<String, String> {
        observe(root)
            .into_iter()
            .filter(|(path, _)| path != "pipe")
            .map(|(path, seen)| {
                let words: Vec<&str> = seen.split(' ').collect();
                // Compare links by their targets.
                let to = fs::read_link(root.join(&path)).unwrap_or_default();
                (path, format!("{} {} {} {}", words[0], words[2], to.display(), words[4..].join(" ")))
            })
            .collect()
    };
    assert_eq!(strip(&copy), strip(&root));
    assert_eq!(git(&copy, &["status", "--porcelain"]), git(&root, &["status", "--porcelain"]));
    assert!(Workspace::open(&root).unwrap().copy_to(&copy).is_err());
    fs::set_permissions(root.join("fixed"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(copy.join("fixed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_cost_of_a_copy_is_estimated_exactly() {
    let (outer, root) = repository();
    symlink("nowhere", root.join("dangling")).unwrap();
    let ws = Workspace::open(&root).unwrap();
    for copy in [outer.path().join("made/later/copy"), root.join("inside")] {
        let before = observe(&root);
        let cost = ws.copy_cost(&copy).unwrap();
        same(&observe(&root), &before);
        assert!(!copy.exists());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let report = ws.copy_to(&copy).unwrap();
        assert_eq!((cost.files, cost.bytes), (report.files, report.bytes));
        assert_eq!(cost.shared, report.reflinked > 0);
    }
}

#[test]
fn files_that_appear_and_vanish_do_not_stop_a_copy() {
    let (outer, root) = repository();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                (0..50).for_each(|i| put(&root, &format!("build/part{i}/object"), "o"));
                fs::remove_dir_all(root.join("build")).unwrap();
            }
        });
        let ws = Workspace::open(&root).unwrap();
        for i in 0..20 {
            let done = ws
                .copy_cost(&outer.path().join("copy"))
                .and_then(|_| ws.copy_to(&outer.path().join(format!("copy{i}"))));
            if i == 19 || done.is_err() {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            done.unwrap();
        }
    });
}

#[test]
fn a_copy_into_the_root_does_not_copy_itself() {
    let (_outer, root) = repository();
    let copy = root.join("copy");
    let report = Workspace::open(&root).unwrap().copy_to(&copy).unwrap();
    assert!(!copy.join("copy").exists());
    assert!(report.files > 5);
}

#[test]
fn git_in_the_copy_of_a_worktree_changes_nothing_in_the_repository() {
    let (outer, root) = repository();
    let tree = outer.path().join("tree");
    git(&root, &["worktree", "add", "-q", tree.to_str().unwrap()]);
    put(&tree, "b.txt", "B\n");
    let copy = outer.path().join("copy");
    Workspace::open(&tree).unwrap().copy_to(&copy).unwrap();
    let before = (observe(&root), observe(&tree));
    assert_eq!(git(&copy, &["status", "--porcelain"]), " M b.txt\n");
    git(&copy, &["commit", "-qam", "in the copy"]);
    assert_eq!(git(&copy, &["log", "--format=%s"]), "in the copy\nfirst\n");
    same(&observe(&root), &before.0);
    same(&observe(&tree), &before.1);
}
