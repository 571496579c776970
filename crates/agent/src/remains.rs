//! Removes what killed runs left of their sandboxes: private temporary folders and cache overlays.
//! The next run of any session does this.

use std::fs;
use std::path::{Path, PathBuf};

use journal::Store;
use tokio::task::JoinHandle;

use crate::session::SANDBOX;

/// The folder beside the sessions where leftovers are moved before removal, so a session is locked only briefly.
const FOLDER: &str = "left-over";

/// Removes, in the background, what is in other sessions than that of this folder. It may be tried again at any time, so nothing of it
/// is worth a word.
pub(crate) fn sweep(session: &Path) -> JoinHandle<()> {
    let state = session.ancestors().nth(2).unwrap_or(session).to_owned();
    tokio::task::spawn_blocking(move || {
        let left = state.join(FOLDER);
        let _ = set_aside(&state, &left);
        for entry in fs::read_dir(&left).into_iter().flatten().flatten() {
            let _ = sandbox::remove_left(&entry.path());
        }
    })
}

/// Moves leftovers that nobody holds into one folder.
fn set_aside(state: &Path, left: &Path) -> std::io::Result<()> {
    let store = Store::new(state);
    let kept =
        |id: &String| -> Option<PathBuf> { Some(store.folder(id).join(SANDBOX)).filter(|dir| dir.exists()) };
    for id in store.ids().unwrap_or_default() {
        // An active run keeps its own.
        if let (Some(kept), Ok(_held)) = (kept(&id), store.hold(&id)) {
            fs::create_dir_all(left)?;
            fs::rename(kept, left.join(format!("{id}-{}", std::process::id())))?;
        }
    }
    Ok(())
}
