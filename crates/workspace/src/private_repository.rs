//! The agent's private git repository, in the state folder. Git stores baselines there, so nothing
//! in the user's `.git` changes.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    Own,
    git::{self, Repository},
    index::Index,
};

/// Matches the user's git settings that affect how files are converted to blobs. If the private
/// repository had different settings, every file might appear changed.
const KEPT: &str = "^core\\.(autocrlf|eol|filemode|symlinks|ignorecase|precomposeunicode)$";

/// The file in the private repository that marks its index as complete.
pub(crate) const COMPLETE: &str = "remembered";
/// The file in the private repository that lists the excluded paths, separated by NUL.
const OWN: &str = "own";

#[derive(Debug)]
pub(crate) struct PrivateRepository {
    /// The root of the workspace.
    root: PathBuf,
    /// The top of the user's work tree, or `root` if there is none.
    top: PathBuf,
    folder: PathBuf,
    /// The object folder of the user's repository, if there is one.
    objects: Option<PathBuf>,
    /// The hash of an empty tree. If it is set, git reads attributes from this tree instead of from
    /// files. Set only if a `.gitattributes` is a pipe or a device, which would block git.
    attributes: OnceLock<String>,
}

impl PrivateRepository {
    /// Opens the repository, or creates a new one if it is missing or incomplete.
    pub(crate) fn open(root: &Path, folder: PathBuf) -> io::Result<Self> {
        let users = git::repository(root)?;
        if !folder.join(COMPLETE).exists() {
            create(&folder, users.as_ref(), &settings(root)?)?;
        }
        let (top, objects) = match users {
            Some(users) => (users.top, Some(users.objects)),
            None => (root.to_owned(), None),
        };
        Ok(Self { root: root.to_owned(), top, folder, objects, attributes: OnceLock::new() })
    }

    /// Whether the index is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.folder.join(COMPLETE).exists()
    }

    /// Marks the index as complete.
    pub(crate) fn complete(&self) -> io::Result<()> {
        fs::write(self.folder.join(COMPLETE), "")
    }

    /// Loads the excluded paths stored by earlier processes of the session into `own`. Then stores
    /// all paths in `own` for later processes. A process that resumes the session cannot find the
    /// earlier paths itself, because it does not have those files open.
    pub(crate) fn keep_own(&self, own: &mut Own) -> io::Result<()> {
        let kept = fs::read(self.folder.join(OWN)).unwrap_or_default();
        let kept = kept.split(|b| *b == 0).filter(|path| !path.is_empty());
        kept.for_each(|path| own.add(&self.root, Path::new(OsStr::from_bytes(path))));
        let paths: Vec<&[u8]> = own.paths(&self.root).map(|path| path.as_os_str().as_bytes()).collect();
        match paths.is_empty() {
            true => Ok(()),
            false => fs::write(self.folder.join(OWN), paths.join(&0)),
        }
    }

    /// Returns the index of the baseline.
    pub(crate) fn index_file(&self) -> PathBuf {
        self.folder.join("index")
    }

    /// Reads the index of the baseline.
    pub(crate) fn index(&self) -> io::Result<Index> {
        let file = self.index_file();
        let read = || Index::read(&file, &self.top, &self.root);
        if let Some(index) = read()? {
            return Ok(index);
        }
        // Git expands a split or sparse index.
        self.run_borrowing(&["update-index", "--no-split-index", "--force-write-index"])?;
        read()?.ok_or_else(|| io::Error::other("git's index cannot be read"))
    }

    /// Returns the path of the workspace's root in the user's work tree. Every path in an index
    /// starts with it.
    pub(crate) fn within(&self) -> &Path {
        self.root.strip_prefix(&self.top).unwrap_or(Path::new(""))
    }

    /// Creates a git command without access to the user's objects.
    fn command(&self, index: &Path, arguments: &[&str]) -> Command {
        let mut command = git::private(&self.root, &self.folder, &self.top, index);
        command.envs(self.attributes.get().map(|tree| ("GIT_ATTR_SOURCE", tree))).args(arguments);
        command
    }

    /// Runs a git command with access to the user's objects.
    pub(crate) fn run_borrowing(&self, arguments: &[&str]) -> io::Result<Vec<u8>> {
        let mut command = self.command(&self.index_file(), arguments);
        let objects = self.objects.as_ref();
        command.envs(objects.map(|objects| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", in_list(objects))));
        git::run(command, None)
    }

    /// Makes later git commands ignore the attributes files in the work tree.
    pub(crate) fn ignore_attributes(&self) -> io::Result<()> {
        let hash = self.command(&self.index_file(), &["hash-object", "-t", "tree", "--stdin"]);
        let nothing = String::from_utf8_lossy(&git::run(hash, Some(b""))?).trim().to_owned();
        let _ = self.attributes.set(nothing);
        Ok(())
    }

    /// Adds entries to an index. Each has the form `mode hash TAB path NUL`.
    pub(crate) fn fill(&self, index: &Path, entries: &[u8]) -> io::Result<()> {
        git::run(self.command(index, &["update-index", "-z", "--index-info"]), Some(entries)).map(drop)
    }

    /// Runs `git update-index` on these paths with the options in `how`.
    pub(crate) fn update<'a>(
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
        let mut update = self.command(index, &["update-index"]);
        update.args(how).args(["-z", "--stdin"]);
        git::run(update, Some(&names)).map(drop)
    }

    /// Writes an index as a tree and returns the tree's hash.
    pub(crate) fn tree(&self, index: &Path) -> io::Result<String> {
        let hash = git::run(self.command(index, &["write-tree", "--missing-ok"]), None)?;
        Ok(String::from_utf8_lossy(&hash).trim().to_owned())
    }

    /// Compares two trees, using git's rename detection.
    pub(crate) fn diff(&self, before: &str, now: &str, what: &[&str]) -> io::Result<Vec<u8>> {
        let how = ["-r", "-M", "--relative", "--no-color", "--no-ext-diff", "--no-textconv"];
        let prefixes = ["--src-prefix=a/", "--dst-prefix=b/"];
        self.run_borrowing(&[&["diff-tree"], &how[..], &prefixes, what, &[before, now, "--"]].concat())
    }
}

/// Quotes a folder for use in a colon-separated list that git parses.
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

/// Reads the user's git settings whose names match [`KEPT`].
fn settings(root: &Path) -> io::Result<Vec<(String, String)>> {
    let mut query = git::git(root);
    query.args(["config", "-z", "--includes", "--get-regexp", KEPT]);
    let output = match git::query(query) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut) => return Err(e),
        output => output.unwrap_or_default(), // status 1: none of these settings is set
    };
    let output = String::from_utf8_lossy(&output);
    let settings = output.split('\0').filter_map(|setting| setting.split_once('\n'));
    Ok(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Creates a repository without `git init`, which would take longer than everything else involved
/// in taking a baseline.
fn create(folder: &Path, users: Option<&Repository>, settings: &[(String, String)]) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder.join("objects"))?;
    fs::create_dir_all(folder.join("refs"))?;
    fs::write(folder.join("HEAD"), "ref: refs/heads/none\n")?;
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
    fs::write(folder.join("config"), config)?;
    let Some(users) = users else { return Ok(()) };
    if users.index.exists() {
        git::copy_index(&users.index, &folder.join("index"))?;
    }
    for entry in users.index.parent().map(fs::read_dir).transpose()?.into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"sharedindex.")
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    Ok(())
}
