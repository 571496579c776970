//! Takes a snapshot of a tree to diff against later. Uses git's own diff with a private repository,
//! so that nothing in the user's `.git` changes.
//!
//! The private repository is in the state folder. Its index is the baseline: a copy of the user's
//! index, updated with the files that differ from it. A file whose metadata match the index is
//! neither read nor passed to git, so the cost grows with the changes and not with the repository.
//! A diff compares two small trees that hold only files that may have changed. Git adds files
//! without access to the user's objects, because it would update the time of each object that it
//! finds.
//!
//! The baseline includes untracked files that are not ignored by `.gitignore`, `.git/info/exclude`
//! or the user's own list. Without a git repository, or before its first `git add`, every file is
//! read once.
//!
//! Git never searches for files but is given their names: otherwise it would hang on pipes and run
//! what submodules configure. Files in submodules are treated like all others. Files too large to
//! restore are left out.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use crate::{
    CleanPath, FileImage, Own, Workspace,
    git::{self, Repository},
    index::Index,
    names::escape,
    place::Stamp,
    scan::{Extent, Found},
    store::REPLACE_LIMIT,
};

/// Settings that affect how files become blobs, copied from the user. With others, every file might
/// appear changed.
const KEPT: &str = "^core\\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode)$";

/// How often to retry if the tree changes during a scan.
const RETRIES: u32 = 3;

/// The file in the private repository that marks its index as complete.
const TREE: &str = "remembered";
/// The file in the private repository that lists the excluded paths, separated by NUL.
const OWN: &str = "own";

/// Why a baseline or a diff failed.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Git is not installed.
    #[error("git is not installed; it is needed to compute the diff")]
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

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// The file is new.
    Added,
    /// The content or the mode differs.
    Modified,
    /// The file was deleted.
    Deleted,
    /// The file was renamed.
    Renamed,
}

/// One file of a diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffFile {
    /// The path now, or last, relative to the root.
    pub path: String,
    /// The path before a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How it changed.
    pub status: FileStatus,
    /// Lines added; 0 for binary files.
    pub added: u64,
    /// Lines removed; 0 for binary files.
    pub removed: u64,
    /// Whether git considers it binary.
    pub binary: bool,
}

/// What changed since a baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The files, by path.
    pub files: Vec<DiffFile>,
    /// A patch for `git apply`, including binary changes. Bytes, because files need not be UTF-8.
    pub patch: Vec<u8>,
}

/// A snapshot of a tree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Baseline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    work_tree: PathBuf,
    git_dir: PathBuf,
    /// Files of this run and of earlier runs of the session.
    own: Own,
    /// The user's object folder.
    objects: Option<PathBuf>,
    /// The upper layer, if the tree is an overlay.
    upper: Option<PathBuf>,
    diffs: AtomicU64,
    /// An empty tree to take attributes from, if a `.gitattributes` is a pipe, on which git would
    /// block.
    attributes: OnceLock<String>,
}

impl Baseline {
    /// Takes a snapshot of the tree under `root` and stores it in `state_dir/baseline`, replacing
    /// an older one. Blocks.
    ///
    /// # Errors
    /// If git is missing or fails, or the state folder cannot be written.
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        let root = root.canonicalize().map_err(BaselineError::System)?;
        Self::take_of(&workspace(&root, &Own::default())?, state_dir)
    }

    fn take_of(ws: &Workspace, state_dir: &Path) -> Result<Self, BaselineError> {
        fs::create_dir_all(state_dir).map_err(BaselineError::System)?;
        let root = ws.root().to_owned();
        let state_dir = state_dir.canonicalize().map_err(BaselineError::System)?;
        let users = git::repository(&root)?;
        let settings = settings(&root)?;
        let git_dir = state_dir.join("baseline");
        prepare(&git_dir, users.as_ref(), &settings).map_err(BaselineError::System)?;
        let (work_tree, objects) = match users {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        let (diffs, attributes) = Default::default();
        let (own, upper) = (ws.own().clone(), ws.0.upper.get().cloned());
        let inner = Inner { root, work_tree, git_dir, own, objects, upper, diffs, attributes };
        inner.remember(ws)?;
        // Written last and atomically: its existence means that the baseline is complete.
        let kept = inner.git_dir.join(TREE);
        inner.keep_own().map_err(BaselineError::System)?;
        fs::write(kept.with_extension("tmp"), "").map_err(BaselineError::System)?;
        fs::rename(kept.with_extension("tmp"), kept).map_err(BaselineError::System)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Opens the baseline that an earlier process stored in `state_dir`, or takes one if there is
    /// none.
    ///
    /// # Errors
    /// Same as [`Baseline::take`].
    pub fn open(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        let root = root.canonicalize().map_err(BaselineError::System)?;
        Self::of(&workspace(&root, &Own::default())?, state_dir)
    }

    /// Same as [`Baseline::open`] for the tree of a workspace. The workspace keeps what the scan
    /// learns, for the snapshot before the first command.
    ///
    /// # Errors
    /// Same as [`Baseline::take`].
    pub fn of(workspace: &Workspace, state_dir: &Path) -> Result<Self, BaselineError> {
        let git_dir = state_dir.join("baseline");
        if !git_dir.join(TREE).exists() {
            return Self::take_of(workspace, state_dir);
        }
        let (root, mut own) = (workspace.root().to_owned(), workspace.own().clone());
        let git_dir = git_dir.canonicalize().map_err(BaselineError::System)?;
        let (work_tree, objects) = match git::repository(&root)? {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        let kept = fs::read(git_dir.join(OWN)).unwrap_or_default();
        let kept = kept.split(|b| *b == 0).filter(|path| !path.is_empty());
        kept.for_each(|path| own.add(&root, Path::new(OsStr::from_bytes(path))));
        let (diffs, attributes) = Default::default();
        let upper = workspace.0.upper.get().cloned();
        let inner = Inner { root, work_tree, git_dir, own, objects, upper, diffs, attributes };
        inner.keep_own().map_err(BaselineError::System)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Returns a file or link of the baseline, as git stores it; `None` if there is none.
    ///
    /// # Errors
    /// If git fails, for example because the user's repository has lost the object.
    pub fn file(&self, path: &CleanPath) -> io::Result<Option<FileImage>> {
        let inner = &self.0;
        let (index, _) = inner.index()?;
        let Some(entry) = index.get(path) else { return Ok(None) };
        let mut query = inner.command(&inner.git_dir.join("index"));
        query.args(["cat-file", "blob", &entry.blob.name()]).envs(inner.borrowed());
        let bytes = git::run(query, None)?;
        let mode = match entry.mode {
            _ if entry.is_link() => 0o777,
            0o100_755 => 0o755,
            _ => 0o644,
        };
        Ok(Some(FileImage { bytes, mode, link: entry.is_link() }))
    }

    /// Returns the paths of changed files. Reads no contents, so it works even if the user's
    /// repository has lost some.
    ///
    /// # Errors
    /// If git fails.
    pub fn changed(&self) -> Result<Vec<String>, BaselineError> {
        let inner = &self.0;
        let listed =
            inner.compare(|before, now| inner.diff(before, now, &["--no-renames", "--name-only", "-z"]))?;
        let listed = listed.unwrap_or_default();
        Ok(listed.split(|b| *b == 0).filter(|path| !path.is_empty()).map(escape).collect())
    }

    /// Returns what changed since the baseline, with git's rename detection. Writes only to the
    /// private repository.
    ///
    /// # Errors
    /// If git fails.
    pub fn diff(&self) -> Result<Diff, BaselineError> {
        let inner = &self.0;
        let diff = inner.compare(|before, now| {
            let files = parse(&inner.diff(before, now, &["--raw", "--numstat", "-z"])?);
            let patch = inner.diff(before, now, &["-p", "--binary", "--full-index"])?;
            Ok(Diff { files, patch })
        })?;
        Ok(diff.unwrap_or_default())
    }
}

/// Opens the tree under `root`.
fn workspace(root: &Path, own: &Own) -> Result<Workspace, BaselineError> {
    Ok(Workspace::open(root).map_err(|e| BaselineError::System(io::Error::other(e)))?.without(own))
}

impl Inner {
    fn command(&self, index: &Path) -> Command {
        let mut command = git::private(&self.root, &self.git_dir, &self.work_tree, index);
        command.envs(self.attributes.get().map(|tree| ("GIT_ATTR_SOURCE", tree)));
        command
    }

    /// Opens the tree without the state folder, which may lie in it.
    fn workspace(&self) -> io::Result<Workspace> {
        let mut own = self.own.clone();
        self.git_dir.parent().into_iter().for_each(|state| own.add_folder(state));
        let ws = Workspace::open(&self.root).map_err(io::Error::other)?.without(&own);
        self.upper.iter().for_each(|upper| ws.overlays(upper));
        Ok(ws)
    }

    /// Reads the private index. Also returns the root's path in the repository, which starts every
    /// path in the index itself.
    fn index(&self) -> io::Result<(Index, &Path)> {
        let file = self.git_dir.join("index");
        let read = || Index::read(&file, &self.work_tree, &self.root);
        let within = self.root.strip_prefix(&self.work_tree).unwrap_or(Path::new(""));
        if let Some(index) = read()? {
            return Ok((index, within));
        }
        // Git expands a split or sparse index.
        let mut plain = self.command(&file);
        plain.args(["update-index", "--no-split-index", "--force-write-index"]).envs(self.borrowed());
        git::run(plain, None)?;
        read()?.map(|index| (index, within)).ok_or_else(|| io::Error::other("git's index cannot be read"))
    }

    /// Updates the private index from the tree.
    fn remember(&self, ws: &Workspace) -> io::Result<()> {
        let file = self.git_dir.join("index");
        let (mut index, _) = self.index()?;
        // Submodules and these marks would hide changes.
        for (how, paths) in [
            (&["--force-remove"][..], &index.modules),
            (&["--no-assume-unchanged"], &index.flagged),
            (&["--no-skip-worktree"], &index.flagged),
        ] {
            self.update(&file, how, paths.iter().map(PathBuf::as_path))?;
        }
        let found = self.retrying(|| {
            let found = self.workspace()?.scan_index(Extent::Everything, &mut index);
            self.add(&file, &index, &found)?;
            Ok(found)
        })?;
        ws.learn(index, found)
    }

    /// Calls `compare` with two small trees, before and now, of the files that may have changed.
    /// Returns `None` if nothing has changed.
    fn compare<T>(
        &self,
        compare: impl FnOnce(&str, &str) -> io::Result<T>,
    ) -> Result<Option<T>, BaselineError> {
        let small = self.git_dir.join(format!("index.{}", self.diffs.fetch_add(1, Ordering::Relaxed)));
        let (mut index, within) = self.index()?;
        let compared = self.retrying(|| {
            let _ = fs::remove_file(&small);
            let mut found = self.workspace()?.scan_index(Extent::Changes, &mut index);
            found.changed.retain(|(path, stamp)| self.is_new(&index, path, stamp));
            if found.changed.is_empty() && found.gone.is_empty() {
                return Ok(None);
            }
            let mut entries = Vec::new();
            for path in found.changed.iter().map(|(path, _)| path).chain(&found.gone) {
                if let Some(entry) = index.get(path) {
                    entries.extend(format!("{:o} {}\t", entry.mode, entry.blob.name()).bytes());
                    entries.extend_from_slice(within.join(path).as_os_str().as_bytes());
                    entries.push(0);
                }
            }
            let mut fill = self.command(&small);
            fill.args(["update-index", "-z", "--index-info"]);
            git::run(fill, Some(&entries))?;
            let before = self.tree(&small)?;
            self.add(&small, &Index::default(), &found)?;
            Ok(Some((before, self.tree(&small)?)))
        });
        // Temporary. Harmless if it stays: it is deleted with the session.
        let _ = fs::remove_file(&small);
        match compared? {
            Some((before, now)) if before != now => Ok(Some(compare(&before, &now)?)),
            _ => Ok(None),
        }
    }

    /// Retries, because a file may become something else between the scan and git's access.
    fn retrying<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut tried = 0;
        loop {
            match attempt() {
                Err(e) if e.kind() != io::ErrorKind::NotFound && tried < RETRIES => tried += 1,
                done => return done,
            }
        }
    }

    /// Adds files to an index and removes those that are gone.
    fn add(&self, index: &Path, known: &Index, found: &Found) -> io::Result<()> {
        if found.special_attributes && self.attributes.get().is_none() {
            let mut hash = self.command(index);
            hash.args(["hash-object", "-t", "tree", "--stdin"]);
            let nothing = String::from_utf8_lossy(&git::run(hash, Some(b""))?).trim().to_owned();
            let _ = self.attributes.set(nothing);
        }
        let new = found.changed.iter().filter(|(path, stamp)| self.is_new(known, path, stamp));
        self.update(index, &["--force-remove"], found.gone.iter().map(AsRef::as_ref))?;
        self.update(index, &["--add", "--replace"], new.map(|(path, _)| path.as_ref()))
    }

    /// Whether to add a file: changed, readable and small enough to restore.
    fn is_new(&self, known: &Index, path: &CleanPath, stamp: &Stamp) -> bool {
        let full = self.root.join(path);
        !known.get(path).is_some_and(|entry| entry.is(stamp))
            && stamp.size as u64 <= REPLACE_LIMIT
            && (full.is_symlink() || rustix::fs::access(full, Access::READ_OK).is_ok())
    }

    fn update<'a>(
        &self,
        index: &Path,
        how: &[&str],
        paths: impl Iterator<Item = &'a Path>,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        for path in paths {
            names.extend_from_slice(path.as_os_str().as_bytes());
            names.push(0);
        }
        if names.is_empty() {
            return Ok(());
        }
        let mut update = self.command(index);
        update.arg("update-index").args(how).args(["-z", "--stdin"]);
        git::run(update, Some(&names)).map(drop)
    }

    /// Writes the tree of an index; returns its hash.
    fn tree(&self, index: &Path) -> io::Result<String> {
        let mut write = self.command(index);
        write.args(["write-tree", "--missing-ok"]);
        Ok(String::from_utf8_lossy(&git::run(write, None)?).trim().to_owned())
    }

    /// The variable that lets a command see the user's objects.
    fn borrowed(&self) -> Option<(&str, OsString)> {
        self.objects.as_ref().map(|objects| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", in_list(objects)))
    }

    /// Stores the excluded paths for a process that resumes the session: it cannot find them by its
    /// open files.
    fn keep_own(&self) -> io::Result<()> {
        let paths: Vec<&[u8]> = self.own.paths(&self.root).map(|path| path.as_os_str().as_bytes()).collect();
        match paths.is_empty() {
            true => Ok(()),
            false => fs::write(self.git_dir.join(OWN), paths.join(&0)),
        }
    }

    fn diff(&self, before: &str, now: &str, what: &[&str]) -> io::Result<Vec<u8>> {
        let mut command = self.command(&self.git_dir.join("index"));
        command
            .args(["diff-tree", "-r", "-M", "--relative", "--no-color", "--no-ext-diff", "--no-textconv"])
            .args(["--src-prefix=a/", "--dst-prefix=b/"])
            .args(what)
            .args([before, now, "--"])
            .envs(self.borrowed());
        git::run(command, None)
    }
}

/// Quotes a folder for a colon-separated list, as git parses it.
fn in_list(folder: &Path) -> OsString {
    let bytes = folder.as_os_str().as_encoded_bytes();
    if !bytes.contains(&b':') {
        return folder.into();
    }
    let mut quoted = vec![b'"'];
    for byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// Reads the user's settings of [`KEPT`].
fn settings(root: &Path) -> Result<Vec<(String, String)>, BaselineError> {
    let mut query = git::git(root);
    query.args(["config", "-z", "--includes", "--get-regexp", KEPT]);
    let output = match git::query(query) {
        Ok(output) => output,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e.into()),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(e.into()),
        Err(_) => return Ok(Vec::new()), // status 1: none is set
    };
    let output = String::from_utf8_lossy(&output);
    Ok(output
        .split('\0')
        .filter_map(|e| e.split_once('\n'))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

/// Creates the private repository by hand: `git init` would cost more than the rest of the
/// baseline.
fn prepare(git_dir: &Path, users: Option<&Repository>, settings: &[(String, String)]) -> io::Result<()> {
    if git_dir.exists() {
        fs::remove_dir_all(git_dir)?;
    }
    fs::create_dir_all(git_dir.join("objects"))?;
    fs::create_dir_all(git_dir.join("refs"))?;
    fs::write(git_dir.join("HEAD"), "ref: refs/heads/none\n")?;
    let sha256 = users.is_some_and(|u| u.format == "sha256");
    let mut config = format!(
        "[core]\nrepositoryformatversion = {}\nbare = false\nlooseCompression = 0\nsafecrlf = false\nquotePath = false\nfsync = none\n\
         untrackedCache = false\nsplitIndex = false\n\
         protectNTFS = false\nprotectHFS = false\n[gc]\nauto = 0\n[advice]\naddEmbeddedRepo = false\n",
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
    if let Some(users) = users {
        if users.index.exists() {
            git::copy_index(&users.index, &git_dir.join("index"))?;
        }
        if let Some(folder) = users.index.parent() {
            for entry in fs::read_dir(folder)?.flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(b"sharedindex.")
                    && entry.file_type().is_ok_and(|kind| kind.is_file())
                {
                    fs::copy(entry.path(), git_dir.join(entry.file_name()))?;
                }
            }
        }
    }
    Ok(())
}

/// Parses `--raw --numstat -z`. First come `:modes names status NUL path NUL [path NUL]` for each
/// file, then, in the same order, `added TAB removed TAB path NUL`, or `added TAB removed TAB NUL
/// path NUL path NUL` for a rename.
fn parse(output: &[u8]) -> Vec<DiffFile> {
    let texts: Vec<String> = output.split(|b| *b == 0).filter(|f| !f.is_empty()).map(escape).collect();
    let mut fields = texts.iter().map(String::as_str).peekable();
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
