//! Forks a session: copies it under a new id, so that a run can continue without changing the
//! original.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, io_error};
use crate::event::{Event, Record};
use crate::store::{JOURNAL, Journal, Store};

/// The files that a continued run needs in addition to the journal: the history of the tree, logs
/// that messages refer to, and the task's images.
const COPIED: [&str; 3] = ["state", "logs", "images"];

/// Returns the id that a session derives its placeholders for secrets from: its own id or, for a
/// fork, the id of the first session in the chain of forks.
#[must_use]
pub fn origin(records: &[Record]) -> Option<&str> {
    match records.first().map(|record| &record.event) {
        Some(Event::Session { id, forked_from, .. }) => Some(forked_from.as_deref().unwrap_or(id)),
        _ => None,
    }
}

impl Store {
    /// Copies a session to a new id and opens the copy for appending. The original is not changed.
    ///
    /// # Errors
    /// If the session does not exist, is in use, or is damaged, or if the copy cannot be written.
    pub fn fork(&self, id: &str) -> Result<(Journal, Vec<Record>), Error> {
        let id = self.find(id)?;
        let _lock = self.hold(&id)?;
        let mut records = self.load(&id)?;
        let first = origin(&records).map(str::to_owned);
        let fork = self.create()?;
        let (from, to) = (self.folder(&id), fork.folder().to_owned());
        let new_id = fork.id().to_owned();
        if let Some(Event::Session { id, forked_from, .. }) = records.first_mut().map(|r| &mut r.event) {
            (*id, *forked_from) = (new_id.clone(), first);
        }
        for name in COPIED {
            copy(&from.join(name), &to.join(name)).map_err(io_error("cannot copy the session to", &to))?;
        }
        let path = to.join(JOURNAL);
        let lines: Result<Vec<String>, _> = records.iter().map(serde_json::to_string).collect();
        let written =
            lines.map_err(io::Error::from).and_then(|lines| fs::write(&path, lines.join("\n") + "\n"));
        written.map_err(io_error("cannot write", &path))?;
        drop(fork);
        self.open(&new_id)
    }
}

/// Copies a file or folder recursively, if it exists.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(from) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if kind.is_file() {
        fs::copy(from, to).map(drop)
    } else if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    } else {
        Ok(()) // sockets and links belong to a process, not to the session
    }
}
