//! Takes a snapshot of a tree to diff against later. Uses git's own diff with a private repository,
//! so nothing in the user's `.git` changes.
//!
//! The private repository is in the state folder. Its index is the baseline: a copy of the user's
//! index, updated with the files that differ from it. A file whose metadata matches the index is
//! neither read nor passed to git, so the cost depends on the size of the changes, not on the size
//! of the repository. A diff compares two small trees that contain only the files that may have
//! changed. While git adds files, it has no access to the user's objects; otherwise it would update
//! the modification time of each object that it finds there.
//!
//! The baseline includes untracked files that are not ignored by `.gitignore`, `.git/info/exclude`
//! or the user's global ignore list. Without a git repository, or before its first `git add`, every
//! file is read once.
//!
//! Git is given file names and never searches for files itself, because a search would hang on
//! pipes and run programs configured by submodules. Files in submodules are treated like any
//! others. Files that are too large to restore are left out.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::Access;

use crate::{
    CleanPath, FileImage, Own, Workspace,
    diff::Diff,
    events::Events,
    index::Index,
    names::escape,
    place::Stamp,
    private_repository::{COMPLETE, PrivateRepository},
    root::lock,
    scan::{Extent, Found},
    snapshot::{Content, Known},
    store::REPLACE_LIMIT,
};

/// How many times to retry if the tree changes during a scan.
const RETRIES: u32 = 3;
/// The name of the private repository's folder within the state folder.
const FOLDER: &str = "baseline";

/// A snapshot of a tree. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Baseline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The tree, excluding files that belong to this run or to earlier runs of the session.
    workspace: Workspace,
    repository: PrivateRepository,
    diffs: AtomicU64,
}

impl Baseline {
    /// Takes a snapshot of the tree under `root` and stores it in `state_dir/baseline`, replacing
    /// any older one. Blocks.
    ///
    /// # Errors
    /// If git is not installed or fails, or the state folder cannot be written.
    pub fn take(root: &Path, state_dir: &Path) -> io::Result<Self> {
        let _ = fs::remove_file(state_dir.join(FOLDER).join(COMPLETE));
        Self::open(root, state_dir)
    }

    /// Opens the baseline that an earlier process stored in `state_dir`, or takes a new one if
    /// there is none.
    ///
    /// # Errors
    /// Same as [`Baseline::take`].
    pub fn open(root: &Path, state_dir: &Path) -> io::Result<Self> {
        Self::of(&Workspace::open(root).map_err(io::Error::other)?, state_dir)
    }

    /// Same as [`Baseline::open`], but for the tree of a workspace. The result of the scan also
    /// becomes the workspace's first snapshot (see [`Workspace::watch`]).
    ///
    /// # Errors
    /// Same as [`Baseline::take`].
    pub fn of(workspace: &Workspace, state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir)?;
        let repository = PrivateRepository::open(workspace.root(), state_dir.canonicalize()?.join(FOLDER))?;
        let mut own: Own = workspace.own().clone();
        own.add_folder(state_dir);
        repository.keep_own(&mut own)?;
        let tree = Workspace::open(workspace.root()).map_err(io::Error::other)?.without(&own);
        if let Some(upper) = workspace.0.upper.get() {
            tree.overlays(upper, None);
        }
        let inner = Inner { workspace: tree, repository, diffs: AtomicU64::default() };
        if !inner.repository.is_complete() {
            inner.remember(workspace)?;
            inner.repository.complete()?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Returns a file or link from the baseline, as git stores it, or `None` if the baseline does
    /// not contain it.
    ///
    /// # Errors
    /// If git fails, for example because the object is missing from the user's repository.
    pub fn file(&self, path: &CleanPath) -> io::Result<Option<FileImage>> {
        let repository = &self.0.repository;
        let index = repository.index()?;
        let Some(known) = index.get(path) else { return Ok(None) };
        let Content::Blob(blob) = known.content else { return Ok(None) };
        let bytes = repository.run_borrowing(&["cat-file", "blob", &blob.name()])?;
        let mode = if known.link { 0o777 } else { known.mode };
        Ok(Some(FileImage { bytes, mode, link: known.link }))
    }

    /// Returns the paths of changed files. Reads no objects from the user's repository, so it works
    /// even if some of them are missing.
    ///
    /// # Errors
    /// If git fails.
    pub fn changed(&self) -> io::Result<Vec<String>> {
        let listed = self.0.compare(&["--no-renames", "--name-only", "-z"])?;
        Ok(listed.split(|b| *b == 0).filter(|path| !path.is_empty()).map(escape).collect())
    }

    /// Returns what has changed since the baseline, using git's rename detection. Writes only to
    /// the private repository.
    ///
    /// # Errors
    /// If git fails.
    pub fn diff(&self) -> io::Result<Diff> {
        Ok(Diff::parse(&self.0.compare(&Diff::OPTIONS)?))
    }
}

impl Inner {
    /// Updates the private index from the tree.
    fn remember(&self, workspace: &Workspace) -> io::Result<()> {
        let (file, mut index) = (self.repository.index_file(), self.repository.index()?);
        // Remove submodules and the assume-unchanged and skip-worktree flags from the private
        // index, because they would hide changes.
        for (how, paths) in [
            (&["--force-remove"][..], &index.modules),
            (&["--no-assume-unchanged"], &index.flagged),
            (&["--no-skip-worktree"], &index.flagged),
        ] {
            self.repository.update(&file, how, paths.iter().map(PathBuf::as_path))?;
        }
        if workspace.0.upper.get().is_none() {
            let events = Arc::new(Events::open(workspace));
            let _ = self.workspace.0.events.set(Arc::clone(&events));
            let _ = workspace.0.events.set(events);
        }
        let lower = lock(&workspace.0.lower).take();
        let extent = lower.as_ref().map_or(Extent::Everything, |lower| Extent::Lower(lower.as_fd()));
        let found = retrying(|| {
            let found = self.workspace.scan_index(extent, &mut index);
            if let Some(events) = self.workspace.0.events.get() {
                events.complete();
            }
            self.add(&file, &index, &found)?;
            Ok(found)
        })?;
        workspace.learn(index, found)
    }

    /// Compares two small trees: the old and the current state of the files that may have changed.
    /// Returns git's output, which is empty if nothing has changed.
    fn compare(&self, options: &[&str]) -> io::Result<Vec<u8>> {
        let number = self.diffs.fetch_add(1, Ordering::Relaxed);
        let small = self.repository.index_file().with_extension(number.to_string());
        let mut index = self.repository.index()?;
        let compared = retrying(|| {
            let _ = fs::remove_file(&small);
            let touched = self.workspace.0.events.get().and_then(|events| events.touched());
            let mut found = self.workspace.scan_index(Extent::Changes(touched.as_ref()), &mut index);
            found.changed.retain(|(path, stamp)| self.is_new(&index, path, stamp));
            if found.changed.is_empty() && found.gone.is_empty() {
                return Ok(None);
            }
            let mut entries = Vec::new();
            for path in found.changed.iter().map(|(path, _)| path).chain(&found.gone) {
                if let Some(Known { mode, link, content: Content::Blob(blob), .. }) = index.get(path) {
                    let mode = if *link { 0o120_000 } else { 0o100_000 | mode };
                    entries.extend(format!("{mode:o} {}\t", blob.name()).bytes());
                    entries.extend_from_slice(self.repository.within().join(path).as_os_str().as_bytes());
                    entries.push(0);
                }
            }
            self.repository.fill(&small, &entries)?;
            let before = self.repository.tree(&small)?;
            self.add(&small, &Index::default(), &found)?;
            Ok(Some((before, self.repository.tree(&small)?)))
        });
        // Leaving this temporary file behind does no harm: it is deleted along with the session.
        let _ = fs::remove_file(&small);
        match compared? {
            Some((before, now)) if before != now => self.repository.diff(&before, &now, options),
            _ => Ok(Vec::new()),
        }
    }

    /// Adds changed files to an index and removes files that are gone.
    fn add(&self, index: &Path, known: &Index, found: &Found) -> io::Result<()> {
        if found.special_attributes {
            self.repository.ignore_attributes()?;
        }
        let new = found.changed.iter().filter(|(path, stamp)| self.is_new(known, path, stamp));
        self.repository.update(index, &["--force-remove"], found.gone.iter().map(AsRef::as_ref))?;
        self.repository.update(index, &["--add", "--replace"], new.map(|(path, _)| path.as_ref()))
    }

    /// Whether to add a file, which must have changed, be readable, and be small enough to restore.
    fn is_new(&self, known: &Index, path: &CleanPath, stamp: &Stamp) -> bool {
        let full = self.workspace.root().join(path);
        !known.get(path).is_some_and(|known| known.is(stamp))
            && stamp.size as u64 <= REPLACE_LIMIT
            && (full.is_symlink() || rustix::fs::access(full, Access::READ_OK).is_ok())
    }
}

/// Retries a failed attempt, because a file may have been replaced with something else between the
/// scan and git's access to it.
fn retrying<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tried = 0;
    loop {
        match attempt() {
            Err(e) if e.kind() != io::ErrorKind::NotFound && tried < RETRIES => tried += 1,
            done => return done,
        }
    }
}
