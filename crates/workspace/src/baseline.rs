//! A tree as it was, to diff against later: git's own diff, with a private repository, so that nothing in the user's `.git` changes.
//!
//! The private repository lies in the state folder. It borrows the user's objects and starts from a copy of the user's index, whose
//! cached file times spare reading every unchanged file. (Adding does not see the user's objects: git would set the time of each one it finds.) Untracked files that are not ignored belong to the tree; `.gitignore`,
//! `.git/info/exclude` and the user's excludes file decide what is ignored. Where there is no git repository, or none yet with files, every file is
//! read once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    FileImage,
    git::{self, Repository},
};

/// Settings that decide how files become blobs; taken over from the user, because with others every file might seem changed.
const KEPT: &str = "^core\\.(excludesfile|autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode)$";

/// The file in the private repository that names the tree.
const TREE: &str = "remembered";

/// Why there is no baseline or no diff.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// There is no git binary.
    #[error("git is not installed; it is needed to know what changed")]
    NoGit,
    /// Git failed, or the state folder could not be written.
    #[error("cannot compare the tree: {0}")]
    System(#[source] io::Error),
}

impl From<io::Error> for BaselineError {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::NotFound { Self::NoGit } else { Self::System(e) }
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// It was not there.
    Added,
    /// Its content or its mode differs.
    Modified,
    /// It is gone.
    Deleted,
    /// It was called something else.
    Renamed,
}

/// One file of a diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffFile {
    /// Its name now (or last), relative to the root.
    pub path: String,
    /// Its name before, when it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What became of it.
    pub status: FileStatus,
    /// Lines added; 0 for binary files.
    pub added: u64,
    /// Lines removed; 0 for binary files.
    pub removed: u64,
    /// Whether git takes it for binary.
    pub binary: bool,
}

/// What changed since a baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The files, by path.
    pub files: Vec<DiffFile>,
    /// For `git apply`, binary changes included. Bytes, because files need not be UTF-8.
    pub patch: Vec<u8>,
}

/// A tree as it was. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Baseline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    work_tree: PathBuf,
    git_dir: PathBuf,
    /// The user's objects, to read from.
    objects: Option<PathBuf>,
    tree: String,
    diffs: AtomicU64,
}

impl Baseline {
    /// Remembers the tree under `root` as it is now. `state_dir` gets a folder `baseline`, replaced when it is there. Blocks until git is done:
    /// run it beside something else.
    ///
    /// # Errors
    /// When git is missing or fails, or the state folder cannot be written.
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        fs::create_dir_all(state_dir).map_err(BaselineError::System)?;
        let root = root.canonicalize().map_err(BaselineError::System)?;
        let state_dir = state_dir.canonicalize().map_err(BaselineError::System)?;
        let users = git::repository(&root)?;
        let settings = settings(&root)?;
        let git_dir = state_dir.join("baseline");
        prepare(&git_dir, users.as_ref(), &settings, &root, &state_dir).map_err(BaselineError::System)?;
        let (work_tree, objects) = match users {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        let mut inner =
            Inner { root, work_tree, git_dir, objects, tree: String::new(), diffs: AtomicU64::new(0) };
        inner.tree = inner.snapshot(&inner.git_dir.join("index"))?;
        // Last, and in one step: where it is, everything else is.
        let kept = inner.git_dir.join(TREE);
        fs::write(kept.with_extension("tmp"), &inner.tree).map_err(BaselineError::System)?;
        fs::rename(kept.with_extension("tmp"), kept).map_err(BaselineError::System)?;
        Ok(Self(Arc::new(inner)))
    }

    /// The tree that was remembered in this state folder before, by a process that ended since; taken now when there is none.
    ///
    /// # Errors
    /// As [`Baseline::take`].
    pub fn open(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        let git_dir = state_dir.join("baseline");
        let Ok(tree) = fs::read_to_string(git_dir.join(TREE)) else { return Self::take(root, state_dir) };
        let root = root.canonicalize().map_err(BaselineError::System)?;
        let git_dir = git_dir.canonicalize().map_err(BaselineError::System)?;
        let (work_tree, objects) = match git::repository(&root)? {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        Ok(Self(Arc::new(Inner { root, work_tree, git_dir, objects, tree, diffs: AtomicU64::new(0) })))
    }

    /// A file or link of the remembered tree, as git has it; `None` when it is not there, or is neither.
    ///
    /// # Errors
    /// When git fails: the user's repository may have lost it since.
    pub fn file(&self, path: &str) -> io::Result<Option<FileImage>> {
        let inner = &self.0;
        let ask = |args: &[&str]| {
            let mut command = inner.command(&inner.git_dir.join("index"));
            command.env("GIT_LITERAL_PATHSPECS", "1").args(args);
            command.envs(inner.objects.iter().map(|o| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", o)));
            git::run(command, None)
        };
        let listed = ask(&["ls-tree", "-z", &inner.tree, "--", path])?;
        let listed = String::from_utf8_lossy(&listed);
        let mut fields = listed.split([' ', '\t']);
        let (mode, kind, blob) = (fields.next(), fields.next(), fields.next());
        match (mode, kind, blob) {
            (Some(mode @ ("100644" | "100755" | "120000")), Some("blob"), Some(blob)) => {
                let bits = if mode == "100644" { 0o644 } else { 0o755 };
                let link = mode == "120000";
                let mode = if link { 0o777 } else { bits };
                Ok(Some(FileImage { bytes: ask(&["cat-file", "blob", blob])?, mode, link }))
            }
            _ => Ok(None),
        }
    }

    /// The paths of what has changed since, as git writes them, without a look into it: also where the user's repository has lost the contents.
    ///
    /// # Errors
    /// When git fails.
    pub fn changed(&self) -> Result<Vec<String>, BaselineError> {
        let inner = &self.0;
        let index = inner.git_dir.join(format!("index.{}", inner.diffs.fetch_add(1, Ordering::Relaxed)));
        git::copy_index(&inner.git_dir.join("index"), &index).map_err(BaselineError::System)?;
        let now = inner.snapshot(&index)?;
        let listed = inner.compare(&index, &now, &["--no-renames", "--name-only", "-z"])?;
        // Only a copy, as below.
        let _ = fs::remove_file(&index);
        let listed = String::from_utf8_lossy(&listed);
        Ok(listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
    }

    /// What has changed since: files by git's rename detection, and the patch. Changes nothing but the private repository.
    ///
    /// # Errors
    /// When git fails.
    pub fn diff(&self) -> Result<Diff, BaselineError> {
        let inner = &self.0;
        let index = inner.git_dir.join(format!("index.{}", inner.diffs.fetch_add(1, Ordering::Relaxed)));
        git::copy_index(&inner.git_dir.join("index"), &index).map_err(BaselineError::System)?;
        let now = inner.snapshot(&index);
        let diff = now.and_then(|now| {
            if now == inner.tree {
                return Ok(Diff::default());
            }
            let files = parse(&inner.compare(&index, &now, &["--raw", "--numstat", "-z"])?);
            let patch = inner.compare(&index, &now, &["-p", "--binary", "--full-index"])?;
            Ok(Diff { files, patch })
        });
        // Only a copy: when it cannot be removed it is overwritten or goes with the session.
        let _ = fs::remove_file(&index);
        diff.map_err(BaselineError::from)
    }
}

impl Inner {
    fn command(&self, index: &Path) -> Command {
        git::private(&self.root, &self.git_dir, &self.work_tree, index)
    }

    /// Adds the work tree to an index and writes its tree; returns the tree's name.
    fn snapshot(&self, index: &Path) -> io::Result<String> {
        let mut add = self.command(index);
        add.args(["add", "--all", "--ignore-errors", "."]);
        // Files that cannot be read are left as they are in the index, and git says so by its status: not a reason to have no diff.
        match git::run(add, None) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            Ok(_) | Err(_) => {}
        }
        let mut write = self.command(index);
        write.args(["write-tree", "--missing-ok"]);
        Ok(String::from_utf8_lossy(&git::run(write, None)?).trim().to_owned())
    }

    fn compare(&self, index: &Path, now: &str, what: &[&str]) -> io::Result<Vec<u8>> {
        let mut command = self.command(index);
        command
            .args(["diff-tree", "-r", "-M", "--relative", "--no-color", "--no-ext-diff", "--no-textconv"])
            .args(["--src-prefix=a/", "--dst-prefix=b/"])
            .args(what)
            .args([&self.tree, now, "--"])
            .envs(self.objects.iter().map(|o| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", o)));
        git::run(command, None)
    }
}

/// The user's settings of [`KEPT`], as `git config -z` prints them.
fn settings(root: &Path) -> Result<Vec<(String, String)>, BaselineError> {
    let mut ask = git::git(root);
    ask.args(["config", "-z", "--includes", "--get-regexp", KEPT]);
    let said = match git::run(ask, None) {
        Ok(said) => said,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e.into()),
        Err(_) => return Ok(Vec::new()), // status 1: none is set
    };
    let said = String::from_utf8_lossy(&said);
    Ok(said
        .split('\0')
        .filter_map(|e| e.split_once('\n'))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

/// Makes the private repository: by hand, because `git init` costs more than the rest together.
fn prepare(
    git_dir: &Path,
    users: Option<&Repository>,
    settings: &[(String, String)],
    root: &Path,
    state_dir: &Path,
) -> io::Result<()> {
    if git_dir.exists() {
        fs::remove_dir_all(git_dir)?;
    }
    fs::create_dir_all(git_dir.join("objects"))?;
    fs::create_dir_all(git_dir.join("refs"))?;
    fs::create_dir_all(git_dir.join("info"))?;
    fs::write(git_dir.join("HEAD"), "ref: refs/heads/none\n")?;
    let sha256 = users.is_some_and(|u| u.format == "sha256");
    let mut config = format!(
        "[core]\nrepositoryformatversion = {}\nbare = false\nlooseCompression = 0\nsafecrlf = false\nquotePath = false\nfsync = none\n\
         untrackedCache = false\nsplitIndex = false\n[gc]\nauto = 0\n[advice]\naddEmbeddedRepo = false\n",
        u8::from(sha256)
    );
    if sha256 {
        config += "[extensions]\nobjectFormat = sha256\n";
    }
    for (key, value) in settings {
        let name = key.trim_start_matches("core.");
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        config += &format!("[core]\n{name} = \"{value}\"\n");
    }
    fs::write(git_dir.join("config"), config)?;
    let mut exclude = Vec::new();
    if let Some(users) = users {
        exclude = fs::read(&users.exclude).unwrap_or_default();
        if users.index.exists() {
            git::copy_index(&users.index, &git_dir.join("index"))?;
        }
        if let Some(folder) = users.index.parent() {
            for entry in fs::read_dir(folder)?.flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(b"sharedindex.") {
                    fs::copy(entry.path(), git_dir.join(entry.file_name()))?;
                }
            }
        }
    }
    let top = users.map_or(root, |u| &u.top);
    if let Ok(inside) = state_dir.strip_prefix(top) {
        exclude.extend_from_slice(format!("\n/{}/\n", inside.display()).as_bytes());
    }
    fs::write(git_dir.join("info/exclude"), exclude)
}

/// Reads `--raw --numstat -z`: first `:modes names status NUL path NUL [path NUL]` for each file, then
/// `added TAB removed TAB path NUL`, or, renamed, `added TAB removed TAB NUL path NUL path NUL`. Both in the same order.
fn parse(output: &[u8]) -> Vec<DiffFile> {
    let text = String::from_utf8_lossy(output);
    let mut fields = text.split('\0').filter(|f| !f.is_empty()).peekable();
    let mut files = Vec::new();
    while let Some(raw) = fields.next_if(|f| f.starts_with(':')) {
        let letter = raw.rsplit(' ').next().and_then(|s| s.chars().next()).unwrap_or('M');
        let first = fields.next().unwrap_or_default().to_owned();
        let (path, from, status) = match letter {
            'R' | 'C' => (fields.next().unwrap_or_default().to_owned(), Some(first), FileStatus::Renamed),
            'A' => (first, None, FileStatus::Added),
            'D' => (first, None, FileStatus::Deleted),
            _ => (first, None, FileStatus::Modified),
        };
        files.push(DiffFile { path, from, status, added: 0, removed: 0, binary: false });
    }
    for file in &mut files {
        let Some(counts) = fields.next() else { break };
        if file.from.is_some() {
            fields.nth(1);
        }
        let mut counts = counts.split('\t');
        let (added, removed) = (counts.next().unwrap_or_default(), counts.next().unwrap_or_default());
        file.binary = added == "-";
        file.added = added.parse().unwrap_or(0);
        file.removed = removed.parse().unwrap_or(0);
    }
    files
}
