//! The records that the queue does not have yet, in order. Each record is in its own file, so that
//! it survives if the process is killed or the connection is lost.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use journal::io_error;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::message::Record;

/// A record to deliver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) batch: String,
    pub(crate) record: Record,
    /// Identifies the record to the server, which drops messages whose id it has already seen in
    /// the last two minutes.
    pub(crate) key: String,
    /// The subject to send the task's acknowledgment to; `None` if this record does not complete
    /// the task.
    pub(crate) acknowledge: Option<String>,
}

/// The folder that contains the records.
pub(crate) struct Outbox {
    folder: PathBuf,
    next: Cell<u64>,
    added: Notify,
    removed: Notify,
}

impl Outbox {
    /// Opens the folder, creating it if it does not exist.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, journal::Error> {
        fs::create_dir_all(&folder).map_err(io_error("cannot create", &folder))?;
        batch::remove_unfinished(&folder);
        let outbox = Self { folder, next: Cell::new(0), added: Notify::new(), removed: Notify::new() };
        outbox.next.set(outbox.numbers()?.last().map_or(0, |last| last + 1));
        Ok(outbox)
    }

    /// Writes a record to disk and returns its number.
    pub(crate) fn add(&self, letter: &Letter) -> Result<u64, journal::Error> {
        let number = self.next.replace(self.next.get() + 1);
        // Encoding strings and numbers cannot fail.
        batch::replace(&self.path(number), &serde_json::to_string(letter).unwrap_or_default())?;
        self.added.notify_one();
        Ok(number)
    }

    /// Returns the oldest record and its number, waiting until there is one.
    pub(crate) async fn oldest(&self) -> Result<(u64, Letter), journal::Error> {
        loop {
            if let Some(oldest) = self.first()? {
                return Ok(oldest);
            }
            self.added.notified().await;
        }
    }

    /// Waits until this record and all earlier ones have been delivered.
    pub(crate) async fn delivered(&self, number: u64) {
        loop {
            let removed = self.removed.notified();
            if !self.path(number).exists() {
                return;
            }
            removed.await;
        }
    }

    /// Waits until everything has been delivered.
    pub(crate) async fn emptied(&self) {
        if let Some(last) = self.next.get().checked_sub(1) {
            self.delivered(last).await;
        }
    }

    /// Removes a record that has been delivered.
    pub(crate) fn remove(&self, number: u64) -> Result<(), journal::Error> {
        let path = self.path(number);
        fs::remove_file(&path).map_err(io_error("cannot remove", &path))?;
        self.removed.notify_waiters();
        Ok(())
    }

    fn first(&self) -> Result<Option<(u64, Letter)>, journal::Error> {
        for number in self.numbers()? {
            let path = self.path(number);
            let text = fs::read(&path).map_err(io_error("cannot read", &path))?;
            match serde_json::from_slice(&text) {
                Ok(letter) => return Ok(Some((number, letter))),
                // The file is damaged or was written by another version of the agent. Rename it so
                // that it does not block all other records.
                Err(_) => {
                    let aside = path.with_extension("unreadable");
                    fs::rename(&path, &aside).map_err(io_error("cannot rename", &path))?;
                }
            }
        }
        Ok(None)
    }

    fn numbers(&self) -> Result<Vec<u64>, journal::Error> {
        let listed = fs::read_dir(&self.folder).map_err(io_error("cannot read", &self.folder))?;
        let mut numbers: Vec<u64> = listed.filter_map(|entry| number(&entry.ok()?.path())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }
}

fn number(path: &Path) -> Option<u64> {
    let is_record = path.extension().is_some_and(|extension| extension == "json");
    path.file_stem().filter(|_| is_record)?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use batch::Started;

    fn letter(attempt: u32) -> Letter {
        let (id, digest) = ("a".into(), String::new());
        let started = Started {
            v: 1,
            id,
            attempt,
            digest,
            time_ms: 0,
            worktree: None,
            git_dir: None,
            commit: None,
            kept: false,
        };
        Letter { batch: "b".into(), record: Record::Started(started), key: "k".into(), acknowledge: None }
    }

    #[tokio::test]
    async fn records_leave_in_the_order_in_which_they_came_even_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(folder.path().into()).unwrap();
        for n in 1..=11 {
            outbox.add(&letter(n)).unwrap();
        }
        fs::write(folder.path().join("0.json"), "damaged").unwrap();
        // A process that is killed while adding a record leaves a file like this behind.
        fs::write(folder.path().join(".agent-unfinished-x"), "{").unwrap();
        drop(outbox);
        let outbox = Outbox::open(folder.path().into()).unwrap();
        outbox.add(&letter(12)).unwrap();
        for n in 2..=12 {
            let (number, oldest) = outbox.oldest().await.unwrap();
            assert_eq!(oldest, letter(n));
            outbox.remove(number).unwrap();
        }
        outbox.emptied().await;
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["0.unreadable"]);
    }
}
