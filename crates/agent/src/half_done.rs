//! What a killed process has left half done in a tree: the next one there takes it back before it does anything.

use std::path::Path;

use journal::{Store, TreeLock};
use workspace::Workspace;

use crate::commands::patch::Place;
use crate::console;
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::session::STATE;

/// Takes back what a run or a patch left in a tree that is now taken.
pub(crate) fn settle(root: &Path, tree: &TreeLock, store: &Store, context: &Context) -> Result<()> {
    if let Some(id) = tree.left_by() {
        take_back(root, id, store)?;
    }
    // Commits that are on top of one another come off in the same order: the patch was allowed beside the run.
    Place::settle(context, root)
}

/// Takes back what a run left, if none is at work there.
pub(crate) fn of_a_run(root: &Path, context: &Context) -> Result<()> {
    let Ok(store) = context.store() else { return Ok(()) };
    match store.take_tree(root, "patch") {
        Ok(tree) => tree.left_by().map_or(Ok(()), |id| take_back(root, id, &store)),
        Err(_) => Ok(()), // a run that is under way sees to itself
    }
}

fn take_back(root: &Path, id: &str, store: &Store) -> Result<()> {
    let state = store.folder(id).join(STATE);
    if !state.is_dir() {
        return Ok(());
    }
    // Opening takes back what was half done.
    drop(Workspace::open_with(root, state).map_err(Failure::refused)?);
    if store.summary(id).is_ok_and(|s| s.ending.is_none()) {
        console::say(format_args!(
            "session {id} was killed while it worked here; to go on with it: agent resume {id}"
        ));
    }
    Ok(())
}
