//! Removes leftovers of killed runs: private temporary folders and cache overlays of their
//! sandboxes. Each run removes the leftovers of all inactive sessions.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use journal::Store;
use tokio::task::JoinHandle;

/// The subfolder of a session's folder where the session's sandbox keeps temporary files. The
/// sandbox folders of MCP servers and language servers have names that start with the same word.
pub(crate) const SANDBOX: &str = "sandbox";

/// The name of the folder, next to the sessions, that leftovers are moved to before they are
/// removed. Moving them first means that each session is locked only briefly.
const LEFTOVERS: &str = "left-over";

/// Whether a run in this process has started removing leftovers.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// Removes the leftovers of all inactive sessions in the background. Errors are ignored, because
/// the next run tries again. Only the first run in a process does this, because with thousands of
/// sessions, it takes longer than a batch task.
pub(crate) fn remove(session: &Path) -> JoinHandle<()> {
    let state = session.ancestors().nth(2).unwrap_or(session).to_owned();
    let first = !BEGUN.swap(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || {
        if !first {
            return;
        }
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
    for id in store.ids().unwrap_or_default() {
        let left = sandboxes(&store.folder(&id));
        if left.is_empty() {
            continue;
        }
        // An active run holds the lock.
        let Ok(_held) = store.hold(&id) else { continue };
        fs::create_dir_all(leftovers)?;
        for (number, sandbox) in left.iter().enumerate() {
            fs::rename(sandbox, leftovers.join(format!("{id}-{}-{number}", std::process::id())))?;
        }
    }
    Ok(())
}

/// Returns a session's sandbox folders: one for its commands, and one for each MCP server and
/// language server.
fn sandboxes(session: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(session).into_iter().flatten().flatten();
    let is_sandbox = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(SANDBOX));
    entries.filter(|entry| is_sandbox(&entry.file_name())).map(|entry| entry.path()).collect()
}
