//! Rolls back the incomplete changes that a killed process left in a work tree, before the next
//! process uses the tree.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use journal::{Store, TreeLock};
use workspace::{Digest, Workspace};

use crate::console;
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::session::STATE;

/// Rolls back the incomplete changes of a killed run or patch in a tree that the caller has already
/// locked.
pub(crate) fn recover(root: &Path, tree: &TreeLock, store: &Store, context: &Context) -> Result<()> {
    if let Some(id) = tree.left_by() {
        roll_back_run(root, id, store)?;
    }
    // Roll back in the same order as `PatchTree::open`: first the run, then the patch.
    let left = context.state_dir().is_ok_and(|state| PatchTree::folder(&state, root).is_dir());
    if left {
        PatchTree::open(context)?.close();
    }
    Ok(())
}

fn roll_back_run(root: &Path, id: &str, store: &Store) -> Result<()> {
    let state = store.folder(id).join(STATE);
    if !state.is_dir() {
        return Ok(());
    }
    // Opening a workspace rolls back an incomplete commit.
    drop(Workspace::open_with(root, state).map_err(Failure::refused)?);
    if store.summary(id).is_ok_and(|s| s.ending.is_none()) {
        console::say(format_args!(
            "session {id} was killed while working here; to resume it: agent resume {id}"
        ));
    }
    Ok(())
}

/// The work tree of `agent patch`, with a folder that lets the next process roll back an
/// interrupted patch.
pub(crate) struct PatchTree {
    pub(crate) workspace: Workspace,
    state: Option<(PathBuf, File)>,
}

impl PatchTree {
    /// Opens the repository that contains the current folder or, outside a repository, the folder
    /// itself. Concurrent patches wait for each other.
    pub(crate) fn open(context: &Context) -> Result<Self> {
        let root = context.tree()?;
        if let Ok(store) = context.store()
            && let Ok(tree) = store.take_tree(root, "patch") // a run that holds the lock does this itself
            && let Some(id) = tree.left_by()
        {
            roll_back_run(root, id, &store)?;
        }
        let state = context.state_dir().ok().and_then(|state| Self::lock(&state, root).ok());
        let workspace = match &state {
            Some((folder, _)) => Workspace::open_with(root, folder),
            // Without a state folder, an interrupted patch cannot be rolled back.
            None => Workspace::open(root),
        };
        Ok(Self { workspace: workspace.map_err(Failure::refused)?, state })
    }

    fn folder(state: &Path, root: &Path) -> PathBuf {
        let name = Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
        state.join("patches").join(&name[..16])
    }

    fn lock(state: &Path, root: &Path) -> io::Result<(PathBuf, File)> {
        let folder = Self::folder(state, root);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.with_extension("lock"))?;
        lock.lock()?;
        fs::create_dir_all(&folder)?; // the previous holder of the lock may have removed it
        Ok((folder, lock))
    }

    /// Removes the state of a completed patch.
    pub(crate) fn close(self) {
        if let Some((folder, lock)) = self.state {
            drop(self.workspace);
            let _ = fs::remove_dir_all(folder);
            let _ = lock.unlock();
        }
    }
}
