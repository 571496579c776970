//! The handle to one folder.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use cap_std::{ambient_authority, fs::Dir};
use rustix::fs::Stat;

use crate::{CleanPath, Digest, Own, events::Events, snapshot::Snapshot, store::Store};

/// Why a workspace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root is not a folder that can be opened.
    #[error("{path}: {source}")]
    Root {
        /// The root.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The state folder is unusable, or an interrupted commit in it could not be rolled back.
    #[error("{path}: {source}")]
    State {
        /// The state folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The maximum size of a `.git` file to read, in bytes. The file contains only a path.
const GIT_FILE_LIMIT: u64 = 8 << 10;

/// A handle to a repository, or any folder, that confines reads and writes to it. Clones share
/// their state.
#[derive(Clone, Debug)]
pub struct Workspace(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) dir: Dir,
    pub(crate) store: Option<Store>,
    /// Folders that must not be written to. Each entry is a folder's device and inode, and its
    /// owner (git or the agent itself).
    pub(crate) guarded: Vec<((u64, u64), &'static str)>,
    seen: Mutex<HashMap<CleanPath, Digest>>,
    pub(crate) writing: Mutex<()>,
    pub(crate) turn: AtomicU32,
    /// Files to watch during commands even if they are ignored.
    pub(crate) edited_files: Mutex<BTreeSet<CleanPath>>,
    pub(crate) snapshot: Mutex<Option<Snapshot>>,
    /// The run's own files.
    pub(crate) own: OnceLock<Own>,
    /// The upper layer, if the root is an overlay.
    pub(crate) upper: OnceLock<PathBuf>,
    /// The lower layer, which the first scan reads if the upper layer was empty.
    pub(crate) lower: Mutex<Option<OwnedFd>>,
    /// The folders that have been watched since the baseline was taken.
    pub(crate) events: OnceLock<Arc<Events>>,
    /// The folder that this one is a replica of.
    pub(crate) original: Option<PathBuf>,
}

impl Workspace {
    /// Opens a folder without a state folder: commits are atomic but cannot be undone.
    ///
    /// # Errors
    /// If the folder does not exist or cannot be read.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::build(root.as_ref(), None, None)
    }

    /// Opens a replica of the `original` folder, which need not exist on this machine. Absolute
    /// paths below `original` refer to the replica. The user's own ignore rules do not apply; only
    /// those in the folder do. Commits cannot be undone.
    ///
    /// # Errors
    /// Same as [`Workspace::open`].
    pub fn open_replica(root: impl AsRef<Path>, original: &Path) -> Result<Self, OpenError> {
        Self::build(root.as_ref(), None, Some(original.to_owned()))
    }

    /// Opens a folder. Each commit keeps the previous contents under `state_dir`, which is created
    /// if it does not exist. Rolls back a commit that was interrupted by a crash.
    ///
    /// # Errors
    /// If a folder is unusable, or the interrupted commit cannot be rolled back.
    pub fn open_with(root: impl AsRef<Path>, state_dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        let state = state_dir.as_ref();
        let error = |source| OpenError::State { path: state.to_owned(), source };
        let store = Store::open(state).map_err(error)?;
        let ws = Self::build(root.as_ref(), Some(store), None)?;
        ws.recover().map_err(error)?;
        Ok(ws)
    }

    fn build(root: &Path, store: Option<Store>, original: Option<PathBuf>) -> Result<Self, OpenError> {
        let error = |source| OpenError::Root { path: root.to_owned(), source };
        let canonical = root.canonicalize().map_err(error)?;
        let dir = Dir::open_ambient_dir(&canonical, ambient_authority()).map_err(error)?;
        let mut guarded: Vec<_> = git_folders(&canonical).into_iter().map(|folder| (folder, "git")).collect();
        if let Some(store) = &store {
            let state = rustix::fs::stat(store.dir()).map_err(|e| error(e.into()))?;
            guarded.push((id(&state), "the agent itself"));
        }
        let (seen, writing, turn, edited_files, snapshot, own, upper, lower, events) = Default::default();
        let root = canonical;
        Ok(Self(Arc::new(Inner {
            root,
            dir,
            store,
            guarded,
            seen,
            writing,
            turn,
            edited_files,
            snapshot,
            own,
            upper,
            lower,
            events,
            original,
        })))
    }

    /// Returns the absolute path of the folder, with all symbolic links resolved.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Declares that the root is an overlay with this upper layer. Later scans skip folders that
    /// are not in the upper layer. If the upper layer is still empty, pass the lower one too, so
    /// that the first baseline scans it directly: every file seen through an overlay takes memory
    /// until the overlay is unmounted. The upper layer can be set only once.
    pub fn overlays(&self, upper: &Path, lower: Option<OwnedFd>) {
        let _ = self.0.upper.set(upper.to_owned());
        *lock(&self.0.lower) = lower;
    }

    /// Sets the turn number for subsequent records. It is 0 before the first turn.
    pub fn set_turn(&self, turn: u32) {
        self.0.turn.store(turn, Ordering::Relaxed);
    }

    /// Remembers the content of a file that the model has seen, so that an edit based on different
    /// content can be detected.
    pub fn saw(&self, path: &CleanPath, bytes: &[u8]) {
        lock(&self.0.seen).insert(path.clone(), Digest::of(bytes));
    }

    /// Returns the digest of a file as the model last saw it, or `None` if the model has not seen
    /// the file.
    #[must_use]
    pub fn seen(&self, path: &CleanPath) -> Option<Digest> {
        lock(&self.0.seen).get(path).copied()
    }
}

/// Finds the folders of the repository at this root: `.git`, or the folders that a `.git` file
/// points to.
fn git_folders(root: &Path) -> Vec<(u64, u64)> {
    // Skip pipes and devices: reading a pipe would block, and reading a device may never end.
    let text = |path: &Path| {
        let small = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= GIT_FILE_LIMIT);
        small.then(|| std::fs::read_to_string(path).ok()).flatten()
    };
    let git = root.join(".git");
    let mut folders = vec![git.clone()];
    if let Some(text_of_git) = text(&git)
        && let Some(named) = text_of_git.strip_prefix("gitdir:")
    {
        let named = root.join(named.trim());
        if let Some(common) = text(&named.join("commondir")) {
            folders.push(named.join(common.trim()));
        }
        folders.push(named);
    }
    let folder = |path: PathBuf| rustix::fs::stat(path).ok().map(|stat| id(&stat));
    folders.into_iter().filter_map(folder).collect()
}

pub(crate) fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Locks a mutex. Ignores poisoning, because a panic cannot leave this data inconsistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
