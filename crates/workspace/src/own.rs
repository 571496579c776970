//! The run's own files inside the tree, such as its state folder or a file that its output is
//! redirected to. They are not listed, searched, watched or copied, and cannot be edited.

use std::{
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
};

use rustix::fs::FileType;

use crate::{CleanPath, Workspace, root::id};

/// The run's own files and folders, which are excluded from every operation on the tree. Collect
/// them before entering the overlay of a dry run, because the same file has a different inode
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Device and inode.
    ids: Vec<(u64, u64)>,
    /// Absolute paths, with all symbolic links resolved.
    paths: Vec<PathBuf>,
}

impl Own {
    /// Adds an open file, such as standard output. Ignores pipes and terminals.
    pub fn add_open(&mut self, file: impl AsFd) {
        let file = file.as_fd();
        let Ok(stat) = rustix::fs::fstat(file) else { return };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || self.ids.contains(&id(&stat)) {
            return;
        }
        self.ids.push(id(&stat));
        let named = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let is_there = |path: &PathBuf| rustix::fs::stat(path).is_ok_and(|found| id(&found) == id(&stat));
        self.paths.extend(named.ok().filter(is_there));
    }

    /// Adds a folder and everything in it, if it exists.
    pub fn add_folder(&mut self, folder: &Path) {
        if let Ok(folder) = folder.canonicalize() {
            self.ids.extend(rustix::fs::stat(&folder).map(|stat| id(&stat)));
            self.paths.push(folder);
        }
    }

    /// Adds `path`, which is relative to `root`.
    pub(crate) fn add(&mut self, root: &Path, path: &Path) {
        self.paths.push(root.join(path));
    }

    /// Returns the paths inside a tree, relative to it. Skips folders that contain the tree itself.
    pub(crate) fn paths<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = &'a Path> {
        let inside = self.paths.iter().filter_map(move |own| own.strip_prefix(root).ok());
        inside.filter(|own| !own.as_os_str().is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.paths.is_empty()
    }

    /// Whether `path`, relative to the root, is one of these paths or below one of them.
    pub(crate) fn has(&self, root: &Path, path: &Path) -> bool {
        self.paths(root).any(|own| path.starts_with(own))
    }

    pub(crate) fn has_id(&self, id: (u64, u64)) -> bool {
        self.ids.contains(&id)
    }
}

impl Workspace {
    /// Excludes these files from all later operations on the tree. Call this right after opening
    /// the workspace.
    #[must_use]
    pub fn without(self, own: &Own) -> Self {
        // The files can be set only once, because snapshots already taken do not change.
        let _ = self.0.own.set(own.clone());
        self
    }

    pub(crate) fn own(&self) -> &Own {
        self.0.own.get_or_init(Own::default)
    }

    pub(crate) fn is_own(&self, path: &CleanPath, id: Option<(u64, u64)>) -> bool {
        let own = self.own();
        !own.is_empty() && (own.has(&self.0.root, path.as_ref()) || id.is_some_and(|id| own.has_id(id)))
    }
}
