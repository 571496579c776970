//! The tree a dry run works in, by what the system offers: an overlay of the repository at the repository's own path, seen by this process and the
//! commands it starts; else a copy that shares blocks; else a plain copy, which says first what it costs.

use std::path::{Path, PathBuf};

use journal::{Event, TreeWay};
use sandbox::overlay::{self, Overlay};
use workspace::{Own, Workspace};

use crate::exit::{Failure, Result};
use crate::figures::{bytes, thousands};
use crate::session;

/// A tree that is there, or still to be made. What is in it goes with it.
pub(crate) enum DryTree {
    /// At the repository's path.
    Overlay(Overlay),
    /// In the session's folder.
    Copy {
        /// Why it is no overlay.
        why: String,
    },
}

impl DryTree {
    /// Enters an overlay where that can be had. For a process with one thread, before anything else looks at the repository.
    ///
    /// # Errors
    /// When the repository is a worktree, in whose overlay git cannot be kept away from the repository it belongs to.
    pub(crate) fn enter(root: &Path, folder: &Path) -> Result<Self> {
        let dir = layers(folder);
        let entered = overlay::probe(root, &dir, &session::launcher())
            .and_then(|()| overlay::enter(root, &dir, root).map_err(|e| e.to_string()));
        let overlay = match entered {
            Ok(overlay) => overlay,
            Err(why) => return Ok(Self::Copy { why }),
        };
        Workspace::open(root)
            .map_err(anyhow::Error::from)
            .and_then(|workspace| Ok(workspace.detach_git(overlay.merged())?))
            .map_err(|e| Failure::refused(e.context("cannot give the dry run a git of its own")))?;
        Ok(Self::Overlay(overlay))
    }

    /// What it is and what it will cost; for a copy the repository is walked.
    ///
    /// # Errors
    /// When that is not possible.
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

/// Where the changes of an overlay are kept.
pub(crate) fn layers(folder: &Path) -> PathBuf {
    folder.join("overlay")
}

/// What a copy would cost.
pub(crate) fn cost(root: &Path, folder: &Path, own: &Own, why: String) -> Result<Event> {
    let workspace = Workspace::open(root).map_err(Failure::refused)?.without(own);
    let cost = workspace
        .copy_cost(&folder.join("tree"))
        .map_err(|e| Failure::misuse(format!("cannot tell what a copy for a dry run would cost: {e}")))?;
    let way = if cost.shared { TreeWay::Reflinks } else { TreeWay::Copy };
    Ok(Event::Tree { way, files: cost.files, bytes: cost.bytes, why })
}

/// The way in words.
pub(crate) fn describe(way: TreeWay, files: u64, size: u64, why: &str) -> String {
    match way {
        TreeWay::Overlay => "an overlay of the repository; nothing is copied".into(),
        TreeWay::Reflinks => {
            format!("a copy of {} files that shares their blocks; no overlay: {why}", thousands(files))
        }
        TreeWay::Copy => format!("a copy of {} files, {}; no overlay: {why}", thousands(files), bytes(size)),
    }
}
