//! A repository in a temporary folder, with a state folder next to it.

#![allow(dead_code, reason = "each test program uses only part of it")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use workspace::{Change, CleanPath, Commit, CommitError, Expect, History, Workspace};

pub(crate) struct Setting {
    outer: TempDir,
    pub(crate) ws: Workspace,
    state: PathBuf,
}

impl Setting {
    /// Creates a repository that tracks `a.txt`, `b.txt`, `src/c.txt` and `link`, and ignores
    /// `ignored/` and `*.log`.
    pub(crate) fn repository() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        for folder in ["src", "ignored"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let files =
            [("a.txt", "a\n"), ("b.txt", "b\n"), ("src/c.txt", "c\n"), (".gitignore", "ignored/\n*.log\n")];
        for (path, text) in files {
            fs::write(root.join(path), text).unwrap();
        }
        symlink("a.txt", root.join("link")).unwrap();
        git(&root, &["init", "-q"]);
        git(&root, &["add", "-A"]);
        git(&root, &["commit", "-qm", "first"]);
        fs::write(root.join("ignored/cache"), "cache\n").unwrap();
        let state = outer.path().join("state");
        let ws = Workspace::open_with(&root, &state).unwrap();
        Self { outer, ws, state }
    }

    /// Copies the repository, as a dry run does. The copy has its own state folder.
    pub(crate) fn dry_run(&self) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("copy");
        self.ws.copy_to(&root).unwrap();
        let state = outer.path().join("state");
        let ws = Workspace::open_with(&root, &state).unwrap();
        Self { outer, ws, state }
    }

    /// Opens this repository with the state folder of `other`.
    pub(crate) fn with_state_of(&self, other: &Self) -> Workspace {
        Workspace::open_with(self.ws.root(), &other.state).unwrap()
    }

    pub(crate) fn outer(&self) -> &Path {
        self.outer.path()
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn path(&self, path: &str) -> CleanPath {
        self.ws.target(path).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Change {
        Change::Write { path: self.path(path), bytes: text.into(), executable: None, expect: Expect::Any }
    }

    /// Makes an edit as the agent.
    pub(crate) fn edit(&self, path: &str, text: &str) {
        self.try_edit(path, text).unwrap();
    }

    pub(crate) fn try_edit(&self, path: &str, text: &str) -> Result<Commit, CommitError> {
        self.ws.commit(vec![self.write(path, text)])
    }

    /// Runs a command as the agent. Returns the number of its record.
    pub(crate) fn run(&self, script: &str) -> Option<u64> {
        let watch = self.ws.watch().unwrap();
        self.script(script);
        self.ws.watched(watch).unwrap()
    }

    /// Runs a command as someone else.
    pub(crate) fn script(&self, script: &str) {
        let status = Command::new("sh").args(["-ec", script]).current_dir(self.ws.root()).status().unwrap();
        assert!(status.success(), "{script}");
    }

    /// Writes a file as someone else.
    pub(crate) fn put(&self, path: &str, text: &str) {
        fs::write(self.ws.root().join(path), text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.ws.root().join(path)).unwrap()
    }

    pub(crate) fn history(&self) -> History {
        History::open(&self.state).unwrap()
    }
}

pub(crate) fn git(root: &Path, arguments: &[&str]) {
    let name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"];
    let status = Command::new("git").current_dir(root).args(name).args(arguments).status().unwrap();
    assert!(status.success(), "git {arguments:?}");
}

/// Returns everything below a folder, except the contents of `.git`: the mode of each file, link
/// and folder, and the content of a file or the target of a link.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let content = match () {
                () if m.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                () if m.is_dir() => Vec::new(),
                () => fs::read(&path).unwrap(),
            };
            if m.is_dir() && name != ".git" {
                todo.push(path);
            }
            out.insert(name, (m.mode(), content));
        }
    }
    out
}
