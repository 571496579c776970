//! The handle: one folder, opened once.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use cap_std::{ambient_authority, fs::Dir};
use rustix::fs::Stat;

use crate::{CleanPath, Digest, Own, shadow::Shadow, store::Store};

/// Why a workspace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root is not a folder that can be opened.
    #[error("{path}: {source}")]
    Root {
        /// The folder asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder for pre-images cannot be used, or a half-done commit in it could not be taken back.
    #[error("{path}: {source}")]
    State {
        /// The state folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A `.git` that is a file names a folder and no more; in bytes.
const GIT_FILE_LIMIT: u64 = 8 << 10;

/// A repository, or any folder, that can be read and changed and not left. Clones share one state.
#[derive(Clone, Debug)]
pub struct Workspace(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) dir: Dir,
    pub(crate) store: Option<Store>,
    /// Folders that are never written, by device and inode, whatever they are called: git's, and the agent's own. With whose they are.
    pub(crate) guarded: Vec<((u64, u64), &'static str)>,
    seen: Mutex<HashMap<CleanPath, Digest>>,
    pub(crate) writing: Mutex<()>,
    pub(crate) turn: AtomicU32,
    /// Files that commands are watched for although they may be ignored.
    pub(crate) besides: Mutex<BTreeSet<CleanPath>>,
    pub(crate) shadow: Mutex<Option<Shadow>>,
    /// Files of the run itself.
    pub(crate) own: OnceLock<Own>,
    /// The upper layer, if the root is an overlay.
    pub(crate) upper: OnceLock<PathBuf>,
    /// The folder that this one stands in for.
    pub(crate) original: Option<PathBuf>,
}

impl Workspace {
    /// Opens a folder without a place for pre-images: commits are atomic but leave nothing to undo from.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be read.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::build(root.as_ref(), None, None)
    }

    /// Opens a folder that stands in for another one, which need not exist here: absolute paths in `original` are understood as those of the folder,
    /// and what is ignored is told by the folder's own rules, not by the user's. Commits keep no pre-images.
    ///
    /// # Errors
    /// As [`Workspace::open`].
    pub fn open_replica(root: impl AsRef<Path>, original: &Path) -> Result<Self, OpenError> {
        Self::build(root.as_ref(), None, Some(original.to_owned()))
    }

    /// Opens a folder; each commit keeps its pre-images under `state_dir`, which is created when it is not there. A commit that a
    /// crash cut in the middle is taken back here.
    ///
    /// # Errors
    /// When a folder cannot be used, or the half-done commit cannot be taken back.
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
        let (seen, writing, turn, besides, shadow, own, upper) = Default::default();
        let root = canonical;
        Ok(Self(Arc::new(Inner {
            root,
            dir,
            store,
            guarded,
            seen,
            writing,
            turn,
            besides,
            shadow,
            own,
            upper,
            original,
        })))
    }

    /// The folder, absolute and without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Declares the root an overlay with this upper layer. Later scans skip folders that are not in it. Can
    /// be set once.
    pub fn overlays(&self, upper: &Path) {
        let _ = self.0.upper.set(upper.to_owned());
    }

    /// The turn that the records which follow belong to; 0 before the first.
    pub fn set_turn(&self, turn: u32) {
        self.0.turn.store(turn, Ordering::Relaxed);
    }

    /// Remembers what the model has seen of a file, so that an edit made against something else can be told apart.
    pub fn saw(&self, path: &CleanPath, bytes: &[u8]) {
        lock(&self.0.seen).insert(path.clone(), Digest::of(bytes));
    }

    /// What the model last saw of a file; `None` when it has not read it.
    #[must_use]
    pub fn seen(&self, path: &CleanPath) -> Option<Digest> {
        lock(&self.0.seen).get(path).copied()
    }
}

/// Where the repository at this root is kept: what `.git` is, or leads to, or names.
fn git_folders(root: &Path) -> Vec<(u64, u64)> {
    // A pipe would wait, and a device never end.
    let text = |path: &Path| {
        let small = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= GIT_FILE_LIMIT);
        small.then(|| std::fs::read_to_string(path).ok()).flatten()
    };
    let git = root.join(".git");
    let mut folders = vec![git.clone()];
    if let Some(said) = text(&git)
        && let Some(named) = said.strip_prefix("gitdir:")
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

/// A panic of another thread leaves these maps whole, so its poison means nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
