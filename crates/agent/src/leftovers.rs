//! Removes leftovers of killed runs: private temporary folders and cache overlays of their
//! sandboxes. Each run removes the leftovers of all inactive sessions.

use std::fs;
use std::path::{Path, PathBuf};

use journal::Store;
use tokio::task::JoinHandle;

/// The subfolder of a session's folder in which the session's sandbox keeps temporary files.
pub(crate) const SANDBOX: &str = "sandbox";

/// The name of the folder, beside the sessions, from which leftovers are removed. They are first
/// moved there, so that each session is locked only briefly.
const LEFTOVERS: &str = "left-over";

/// In the background, removes the leftovers of all inactive sessions. Errors are ignored, because
/// the next run tries again.
pub(crate) fn remove(session: &Path) -> JoinHandle<()> {
    let state = session.ancestors().nth(2).unwrap_or(session).to_owned();
    tokio::task::spawn_blocking(move || {
        let leftovers = state.join(LEFTOVERS);
        let _ = set_aside(&state, &leftovers);
        for entry in fs::read_dir(&leftovers).into_iter().flatten().flatten() {
            let _ = sandbox::remove_left(&entry.path());
        }
    })
}

/// Moves the leftovers of inactive sessions into one folder.
fn set_aside(state: &Path, leftovers: &Path) -> std::io::Result<()> {
    let store = Store::new(state);
    let sandbox =
        |id: &String| -> Option<PathBuf> { Some(store.folder(id).join(SANDBOX)).filter(|dir| dir.exists()) };
    for id in store.ids().unwrap_or_default() {
        // An active run holds the lock.
        if let (Some(sandbox), Ok(_held)) = (sandbox(&id), store.hold(&id)) {
            fs::create_dir_all(leftovers)?;
            fs::rename(sandbox, leftovers.join(format!("{id}-{}", std::process::id())))?;
        }
    }
    Ok(())
}
