//! The tree of a dry run. If possible, it is an overlay at the repository's own path, which only
//! this process and its commands can see. Otherwise, it is a copy, which shares the files' blocks
//! (reflinks) if the file system supports it. The size of a copy is reported before the copy is
//! created.

use std::path::{Path, PathBuf};

use journal::{Event, TreeWay};
use sandbox::overlay::{self, Overlay};
use workspace::{Own, Workspace};

use crate::confinement;
use crate::exit::{Failure, Result};
use crate::figures::{bytes, thousands};

/// An overlay that already exists, or a copy that has yet to be created. Either one is removed,
/// along with all changes in it, when the command ends.
pub(crate) enum DryTree {
    /// At the repository's path.
    Overlay(Overlay),
    /// In the session's folder.
    Copy {
        /// Why it is not an overlay.
        why: String,
    },
}

impl DryTree {
    /// Enters an overlay if possible. Call this in a single-threaded process, before reading the
    /// repository.
    ///
    /// # Errors
    /// If the repository is a git worktree, because an overlay cannot isolate the main repository.
    pub(crate) fn enter(root: &Path, folder: &Path) -> Result<Self> {
        let dir = layers(folder);
        let entered = overlay::probe(root, &dir, &confinement::launcher())
            .and_then(|()| overlay::enter(root, &dir, root).map_err(|e| e.to_string()));
        let overlay = match entered {
            Ok(overlay) => overlay,
            Err(why) => return Ok(Self::Copy { why }),
        };
        Workspace::open(root)
            .map_err(anyhow::Error::from)
            .and_then(|workspace| Ok(workspace.detach_git(overlay.merged())?))
            .map_err(|e| Failure::refused(e.context("cannot detach the dry run from the git repository")))?;
        Ok(Self::Overlay(overlay))
    }

    /// Returns the event that reports the kind and the size of the tree. Walks the repository to
    /// measure a copy.
    ///
    /// # Errors
    /// If the repository cannot be walked.
    pub(crate) async fn event(&self, root: &Path, folder: &Path, own: &Own) -> Result<Event> {
        match self {
            Self::Overlay(_) => {
                Ok(Event::Tree { way: TreeWay::Overlay, files: 0, bytes: 0, why: String::new() })
            }
            Self::Copy { why } => {
                let (root, folder, why, own) = (root.to_owned(), folder.to_owned(), why.clone(), own.clone());
                tokio::task::spawn_blocking(move || cost(&root, &folder, &own, why))
                    .await
                    .map_err(Failure::refused)?
            }
        }
    }
}

/// The copy that a dry run works in. Dropping it removes the files.
pub(crate) struct Copy(pub(crate) PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Copies the repository to `target`.
pub(crate) async fn copy(root: &Path, target: PathBuf, own: &Own) -> Result<Copy> {
    let original = Workspace::open(root).map_err(Failure::refused)?.without(own);
    let copy = Copy(target.clone());
    tokio::task::spawn_blocking(move || original.copy_to(&target))
        .await
        .map_err(Failure::refused)?
        .map_err(|e| Failure::misuse(format!("cannot copy the repository for a dry run: {e}")))?;
    Ok(copy)
}

/// Returns the subfolder of `folder` that holds an overlay's changes.
pub(crate) fn layers(folder: &Path) -> PathBuf {
    folder.join("overlay")
}

/// Returns the event that reports the number of files and the size of a copy.
pub(crate) fn cost(root: &Path, folder: &Path, own: &Own, why: String) -> Result<Event> {
    let workspace = Workspace::open(root).map_err(Failure::refused)?.without(own);
    let cost = workspace
        .copy_cost(&folder.join("tree"))
        .map_err(|e| Failure::misuse(format!("cannot compute the size of a copy for a dry run: {e}")))?;
    let way = if cost.shared { TreeWay::Reflinks } else { TreeWay::Copy };
    Ok(Event::Tree { way, files: cost.files, bytes: cost.bytes, why })
}

/// Describes the kind of tree and its size.
pub(crate) fn describe(way: TreeWay, files: u64, size: u64, why: &str) -> String {
    match way {
        TreeWay::Overlay => "an overlay of the repository; nothing is copied".into(),
        TreeWay::Reflinks => {
            format!("a copy of {} files that shares their blocks; no overlay: {why}", thousands(files))
        }
        TreeWay::Copy => format!("a copy of {} files, {}; no overlay: {why}", thousands(files), bytes(size)),
    }
}
