//! A tree as it was, to diff against later: git's own diff, with a private repository, so that nothing in the user's `.git` changes.
//!
//! The private repository lies in the state folder. It borrows the user's objects and starts from a copy of the user's index, whose
//! cached file times spare reading every unchanged file. (Adding does not see the user's objects: git would set the time of each one it finds.) Untracked files that are not ignored belong to the tree; `.gitignore`,
//! `.git/info/exclude` and the user's own list decide what is ignored. Where there is no git repository, or none yet with files, every file is
//! read once.
//!
//! Git is told each file's name and looks for none itself: it would wait for pipes in the place of lists, and run what submodules are configured to
//! run. Repositories inside are folders like others here, so that changes in them are told too. Files too large to be put back are left out.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::{Access, FileType, Stat};
use serde::{Deserialize, Serialize};

use crate::{
    CleanPath, FileImage, Own, Workspace,
    git::{self, Repository},
    names::shown,
    root::{id, lock},
    store::REPLACE_LIMIT,
};

/// Settings that decide how files become blobs; taken over from the user, because with others every file might seem changed.
const KEPT: &str = "^core\\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode)$";

/// How often a tree that changes meanwhile is looked at again.
const RETRIES: u32 = 3;

/// The file in the private repository that names the tree.
const TREE: &str = "remembered";
/// The file in it with the paths that were left out, each followed by a zero.
const OWN: &str = "own";

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
    /// Files of the run itself, and of the runs before it in this session.
    own: Own,
    /// The user's objects, to read from.
    objects: Option<PathBuf>,
    tree: String,
    diffs: AtomicU64,
    /// The tree to take attributes from, once a pipe stands in their place, for which git would wait: one without any.
    attributes: OnceLock<String>,
}

impl Baseline {
    /// Remembers the tree under `root` as it is now. `state_dir` gets a folder `baseline`, replaced when it is there. Blocks until git is done:
    /// run it beside something else.
    ///
    /// # Errors
    /// When git is missing or fails, or the state folder cannot be written.
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        Self::take_without(root, state_dir, Own::default())
    }

    fn take_without(root: &Path, state_dir: &Path, own: Own) -> Result<Self, BaselineError> {
        fs::create_dir_all(state_dir).map_err(BaselineError::System)?;
        let root = root.canonicalize().map_err(BaselineError::System)?;
        let state_dir = state_dir.canonicalize().map_err(BaselineError::System)?;
        let users = git::repository(&root)?;
        let settings = settings(&root)?;
        let git_dir = state_dir.join("baseline");
        prepare(&git_dir, users.as_ref(), &settings).map_err(BaselineError::System)?;
        let (work_tree, objects) = match users {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        let mut inner = Inner {
            root,
            work_tree,
            git_dir,
            own,
            objects,
            tree: String::new(),
            diffs: AtomicU64::new(0),
            attributes: OnceLock::new(),
        };
        inner.without_pretences(&inner.git_dir.join("index"))?;
        inner.tree = inner.snapshot(&inner.git_dir.join("index"))?;
        // Last, and in one step: where it is, everything else is.
        let kept = inner.git_dir.join(TREE);
        inner.keep_own().map_err(BaselineError::System)?;
        fs::write(kept.with_extension("tmp"), &inner.tree).map_err(BaselineError::System)?;
        fs::rename(kept.with_extension("tmp"), kept).map_err(BaselineError::System)?;
        Ok(Self(Arc::new(inner)))
    }

    /// The tree that was remembered in this state folder before, by a process that ended since; taken now when there is none.
    ///
    /// # Errors
    /// As [`Baseline::take`].
    pub fn open(root: &Path, state_dir: &Path) -> Result<Self, BaselineError> {
        Self::open_without(root, state_dir, Own::default())
    }

    /// The same for the tree of a workspace, without what is left out of it.
    ///
    /// # Errors
    /// As [`Baseline::take`].
    pub fn of(workspace: &Workspace, state_dir: &Path) -> Result<Self, BaselineError> {
        Self::open_without(workspace.root(), state_dir, workspace.own().clone())
    }

    fn open_without(root: &Path, state_dir: &Path, mut own: Own) -> Result<Self, BaselineError> {
        let git_dir = state_dir.join("baseline");
        let Ok(tree) = fs::read_to_string(git_dir.join(TREE)) else {
            return Self::take_without(root, state_dir, own);
        };
        let root = root.canonicalize().map_err(BaselineError::System)?;
        let git_dir = git_dir.canonicalize().map_err(BaselineError::System)?;
        let (work_tree, objects) = match git::repository(&root)? {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.clone(), None),
        };
        let kept = fs::read(git_dir.join(OWN)).unwrap_or_default();
        let kept = kept.split(|b| *b == 0).filter(|path| !path.is_empty());
        kept.for_each(|path| own.add(&root, Path::new(OsStr::from_bytes(path))));
        let (diffs, attributes) = Default::default();
        let inner = Inner { root, work_tree, git_dir, own, objects, tree, diffs, attributes };
        inner.keep_own().map_err(BaselineError::System)?;
        Ok(Self(Arc::new(inner)))
    }

    /// A file or link of the remembered tree, as git has it; `None` when it is not there, or is neither.
    ///
    /// # Errors
    /// When git fails: the user's repository may have lost it since.
    pub fn file(&self, path: &CleanPath) -> io::Result<Option<FileImage>> {
        let inner = &self.0;
        let ask = |args: &[&OsStr]| {
            let mut command = inner.command(&inner.git_dir.join("index"));
            command.env("GIT_LITERAL_PATHSPECS", "1").args(args);
            command.envs(inner.objects.iter().map(|o| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", in_list(o))));
            git::run(command, None)
        };
        let [list, zeros, end] = ["ls-tree", "-z", "--"].map(OsStr::new);
        let listed =
            ask(&[list, zeros, OsStr::new(&inner.tree), end, AsRef::<Path>::as_ref(path).as_os_str()])?;
        let listed = String::from_utf8_lossy(&listed);
        let mut fields = listed.split([' ', '\t']);
        let (mode, kind, blob) = (fields.next(), fields.next(), fields.next());
        match (mode, kind, blob) {
            (Some(mode @ ("100644" | "100755" | "120000")), Some("blob"), Some(blob)) => {
                let bits = if mode == "100644" { 0o644 } else { 0o755 };
                let link = mode == "120000";
                let mode = if link { 0o777 } else { bits };
                let bytes = ask(&["cat-file", "blob", blob].map(OsStr::new))?;
                Ok(Some(FileImage { bytes, mode, link }))
            }
            _ => Ok(None),
        }
    }

    /// The paths of what has changed since, without a look into it: also where the user's repository has lost the contents.
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
        Ok(listed.split(|b| *b == 0).filter(|path| !path.is_empty()).map(shown).collect())
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
        let mut command = git::private(&self.root, &self.git_dir, &self.work_tree, index);
        command.envs(self.attributes.get().map(|tree| ("GIT_ATTR_SOURCE", tree)));
        command
    }

    /// Adds the work tree to an index and writes its tree; returns the tree's name.
    fn snapshot(&self, index: &Path) -> io::Result<String> {
        let mut tried = 0;
        loop {
            let (names, pipes) = self.names(index)?;
            if pipes && self.attributes.get().is_none() {
                let nothing = self.empty_tree(index)?;
                let _ = self.attributes.set(nothing);
            }
            let mut update = self.command(index);
            update.args([
                "update-index",
                "--add",
                "--remove",
                "--ignore-skip-worktree-entries",
                "-z",
                "--stdin",
            ]);
            match git::run(update, Some(&names)) {
                Ok(_) => break,
                // A file may become something else between being seen and being added.
                Err(e) if e.kind() == io::ErrorKind::NotFound || tried == RETRIES => return Err(e),
                Err(_) => tried += 1,
            }
        }
        let mut write = self.command(index);
        write.args(["write-tree", "--missing-ok"]);
        Ok(String::from_utf8_lossy(&git::run(write, None)?).trim().to_owned())
    }

    /// Keeps what is left out, for who goes on with the session: the files are still there then, and not open any more.
    fn keep_own(&self) -> io::Result<()> {
        let paths: Vec<&[u8]> = self.own.paths(&self.root).map(|path| path.as_os_str().as_bytes()).collect();
        match paths.is_empty() {
            true => Ok(()),
            false => fs::write(self.git_dir.join(OWN), paths.join(&0)),
        }
    }

    /// The name of the tree without files, in the repository's format.
    fn empty_tree(&self, index: &Path) -> io::Result<String> {
        let mut hash = self.command(index);
        hash.args(["hash-object", "-t", "tree", "--stdin"]);
        Ok(String::from_utf8_lossy(&git::run(hash, Some(b""))?).trim().to_owned())
    }

    /// The files that are there and those that the index has, each followed by a zero; and whether a pipe stands in the place of attributes.
    fn names(&self, index: &Path) -> io::Result<(Vec<u8>, bool)> {
        let mut list = self.command(index);
        list.args(["ls-files", "-z"]);
        let known = git::run(list, None)?;
        let workspace = Workspace::open(&self.root).map_err(io::Error::other)?.without(&self.own);
        let own = self.git_dir.parent().and_then(|own| own.strip_prefix(&self.root).ok());
        let (names, pipes) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let take = |path: &Path, stat: &Stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let small = stat.st_size as u64 <= REPLACE_LIMIT;
            let readable = || rustix::fs::access(self.root.join(path), Access::READ_OK).is_ok();
            if kind == FileType::Symlink || kind == FileType::RegularFile && small && readable() {
                let mut names = lock(&names);
                names.extend_from_slice(path.as_os_str().as_bytes());
                names.push(0);
            } else if kind != FileType::Directory && kind != FileType::RegularFile {
                pipes.fetch_or(path.ends_with(".gitattributes"), Ordering::Relaxed);
            }
        };
        workspace.each(|path, stat| {
            if !own.is_some_and(|own| path.starts_with(own)) {
                take(path, stat);
            }
        });
        for name in known.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            let path = Path::new(OsStr::from_bytes(name));
            let found = rustix::fs::lstat(self.root.join(path));
            if workspace.is_own(&CleanPath::of(path), found.as_ref().ok().map(id)) {
                continue;
            }
            match found {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                    take(path, &stat)
                }
                // Gone, or something else now: so it is told.
                _ => lock(&names).extend([name, b"\0"].concat()),
            }
        }
        Ok((names.into_inner().unwrap_or_default(), pipes.into_inner()))
    }

    /// Takes from an index what would hide changes: repositories inside, and marks by which git believes files unchanged.
    fn without_pretences(&self, index: &Path) -> io::Result<()> {
        let mut list = self.command(index);
        list.args(["ls-files", "-v", "-s", "-z"]);
        let said = git::run(list, None)?;
        let (mut modules, mut assumed, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for entry in said.split(|b| *b == 0) {
            let Some((tab, tag)) = entry.iter().position(|b| *b == b'\t').zip(entry.first()) else {
                continue;
            };
            let add = |to: &mut Vec<u8>| to.extend([&entry[tab + 1..], b"\0"].concat());
            if entry[1..].starts_with(b" 160000 ") {
                add(&mut modules);
                continue;
            }
            if tag.is_ascii_lowercase() {
                add(&mut assumed);
            }
            let there = || self.root.join(OsStr::from_bytes(&entry[tab + 1..])).symlink_metadata().is_ok();
            if tag.eq_ignore_ascii_case(&b'S') && there() {
                add(&mut skipped);
            }
        }
        for (how, names) in
            [("--force-remove", modules), ("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)]
        {
            if !names.is_empty() {
                let mut update = self.command(index);
                update.args(["update-index", how, "-z", "--stdin"]);
                git::run(update, Some(&names))?;
            }
        }
        Ok(())
    }

    fn compare(&self, index: &Path, now: &str, what: &[&str]) -> io::Result<Vec<u8>> {
        let mut command = self.command(index);
        command
            .args(["diff-tree", "-r", "-M", "--relative", "--no-color", "--no-ext-diff", "--no-textconv"])
            .args(["--src-prefix=a/", "--dst-prefix=b/"])
            .args(what)
            .args([&self.tree, now, "--"])
            .envs(self.objects.iter().map(|o| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", in_list(o))));
        git::run(command, None)
    }
}

/// A folder as one entry of a list with colons between them, as git reads it: in double quotes where it has a colon itself.
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

/// Reads `--raw --numstat -z`: first `:modes names status NUL path NUL [path NUL]` for each file, then
/// `added TAB removed TAB path NUL`, or, renamed, `added TAB removed TAB NUL path NUL path NUL`. Both in the same order.
fn parse(output: &[u8]) -> Vec<DiffFile> {
    let texts: Vec<String> = output.split(|b| *b == 0).filter(|f| !f.is_empty()).map(shown).collect();
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
