//! Stores sessions on disk. Each session has a folder with a lock, an append-only journal, and
//! other files such as logs.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::Value;

use crate::error::{Error, io_error};
use crate::event::{Event, Mode, Record, VERSION};
use crate::lock::LockFile;
use crate::log::{Log, Versioned};
use crate::{Ending, Totals};

/// The folder that contains all sessions.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A summary of a session, for lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The task.
    pub task: String,
    /// The repository.
    pub root: String,
    /// Whether it is a run, a dry run or a question.
    pub mode: Mode,
    /// How it ended; `None` while it is running or after a crash.
    pub ending: Option<Ending>,
    /// Its totals, once it has ended.
    pub totals: Option<Totals>,
}

impl Store {
    /// Creates a store for the sessions in `root/sessions/ID/`. Folders are created on first use.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().join("sessions") }
    }

    /// Returns the folder of a session.
    #[must_use]
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Creates a session under a new id and locks it for this process. Ids sort by time.
    ///
    /// # Errors
    /// If the folder cannot be created or written.
    pub fn create(&self) -> Result<Journal, Error> {
        fs::create_dir_all(&self.root).map_err(io_error("cannot create", &self.root))?;
        loop {
            let id = new_id(now());
            let folder = self.folder(&id);
            // Private to the user, because it will contain command output and file contents.
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Journal::open(id, folder)?.0),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("cannot create", &folder)(e)),
            }
        }
    }

    /// Opens a session for appending. A torn last line is removed.
    ///
    /// # Errors
    /// If it does not exist, is in use, or is damaged before its last line.
    pub fn open(&self, id: &str) -> Result<(Journal, Vec<Record>), Error> {
        let id = self.find(id)?;
        let folder = self.folder(&id);
        Journal::open(id, folder)
    }

    /// Returns the events of a session, which another process may still be writing.
    ///
    /// # Errors
    /// If it does not exist or is damaged before its last line.
    pub fn load(&self, id: &str) -> Result<Vec<Record>, Error> {
        let id = self.find(id)?;
        Log::read(&self.folder(&id).join(JOURNAL))
    }

    /// Resolves an id, a prefix of one, or `last` to the full id.
    ///
    /// # Errors
    /// When no session matches, or when several do.
    pub fn find(&self, wanted: &str) -> Result<String, Error> {
        // Listing all sessions takes a long time if there are thousands of them.
        let is_name = Path::new(wanted).file_name() == Some(OsStr::new(wanted));
        if is_name && self.folder(wanted).join(JOURNAL).is_file() {
            return Ok(wanted.into());
        }
        let ids = self.ids()?;
        if wanted == "last" {
            return ids.last().cloned().ok_or_else(|| Error::NotFound(wanted.into()));
        }
        let fits: Vec<_> =
            ids.into_iter().filter(|id| !wanted.is_empty() && id.starts_with(wanted)).collect();
        match fits.as_slice() {
            [] => Err(Error::NotFound(wanted.into())),
            [one] => Ok(one.clone()),
            several => Err(Error::Ambiguous {
                prefix: wanted.into(),
                count: several.len(),
                ids: several.iter().take(5).cloned().collect(),
            }),
        }
    }

    /// Returns all ids, oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("cannot read", &self.root)(e)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().join(JOURNAL).is_file())
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Returns a summary of a session.
    ///
    /// # Errors
    /// If it does not exist or is damaged.
    pub fn summary(&self, id: &str) -> Result<Summary, Error> {
        let id = self.find(id)?;
        let mut summary = Summary {
            id: id.clone(),
            started_ms: 0,
            task: String::new(),
            root: String::new(),
            mode: Mode::Run,
            ending: None,
            totals: None,
        };
        for record in self.load(&id)? {
            match record.event {
                Event::Session { task, root, mode, .. } => {
                    summary.started_ms = record.time_ms;
                    (summary.task, summary.root, summary.mode) = (task, root, mode);
                }
                Event::Finished(report) => {
                    (summary.ending, summary.totals) = (Some(report.ending), Some(report.totals));
                }
                _ => {}
            }
        }
        Ok(summary)
    }

    /// Locks a work tree for a session of this process, until the returned lock is dropped. Two
    /// agents in the same tree would undo each other's work.
    ///
    /// # Errors
    /// If another process has locked it.
    pub fn take_tree(&self, root: &Path, session: &str) -> Result<TreeLock, Error> {
        /// Maximum length of a lock file's name, in bytes. A longer name is truncated at the start,
        /// because the end of a path identifies the tree better.
        const MAX_NAME: usize = 200;
        let folder = self.root.with_file_name("trees");
        fs::create_dir_all(&folder).map_err(io_error("cannot create", &folder))?;
        let name = root.display().to_string().replace('%', "%%").replace('/', "%");
        let cut =
            (0..=name.len().saturating_sub(MAX_NAME)).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        let path = folder.join(&name[cut..]);
        match LockFile::acquire(&path, &format!("session {session} (process {})", std::process::id()))? {
            Ok(lock) => Ok(TreeLock { lock, session: session.to_owned() }),
            Err(holder) => Err(Error::TreeLocked { root: root.to_owned(), holder }),
        }
    }

    /// Locks a session against writing and removal, until the returned lock is dropped.
    ///
    /// # Errors
    /// If it does not exist or is in use.
    pub fn hold(&self, id: &str) -> Result<LockFile, Error> {
        let id = self.find(id)?;
        lock(&id, &self.folder(&id))
    }

    /// Removes a session that is not in use.
    ///
    /// # Errors
    /// If it does not exist or is in use.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let _lock = self.hold(id)?;
        let folder = self.folder(&self.find(id)?);
        fs::remove_dir_all(&folder).map_err(io_error("cannot remove", &folder))
    }
}

/// The name of the journal in a session's folder. A folder without it is not a session.
pub const JOURNAL: &str = "journal.jsonl";

impl Versioned for Record {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.v
    }
}

/// A view that receives each record after it has been written.
pub type Observer = Box<dyn FnMut(&Record) + Send>;

/// A function that replaces text that must not be written, such as secrets.
pub type Filter = Box<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send>;

/// A session that this process writes.
pub struct Journal {
    id: String,
    folder: PathBuf,
    log: Log<Record>,
    seq: u64,
    observers: Vec<Observer>,
    filter: Option<Filter>,
    _lock: LockFile,
}

impl Journal {
    fn open(id: String, folder: PathBuf) -> Result<(Self, Vec<Record>), Error> {
        let lock = lock(&id, &folder)?;
        let (log, records) = Log::open(folder.join(JOURNAL))?;
        let seq = records.len() as u64;
        let journal = Self { id, folder, log, seq, observers: Vec::new(), filter: None, _lock: lock };
        Ok((journal, records))
    }

    /// Returns the session's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the session's folder, which also contains logs, pre-images and the patch.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a view that receives every subsequent record.
    pub fn observe(&mut self, observer: Observer) {
        self.observers.push(observer);
    }

    /// Sets a filter that is applied to all text in subsequent events before they are written or
    /// shown.
    pub fn filter(&mut self, filter: Filter) {
        self.filter = Some(filter);
    }

    /// Appends an event in one write. Events that precede an effect are on disk when this returns.
    ///
    /// # Errors
    /// If the journal cannot be written, for example because the disk is full. The journal then
    /// contains only the complete records before this one, and the effect must not happen.
    pub fn append(&mut self, event: Event) -> Result<(), Error> {
        let sync = event.precedes_effect();
        let time_ms = now().as_millisecond().max(0) as u64;
        let mut record = Record { v: VERSION, seq: self.seq, time_ms, event };
        let mut line = self.log.encode(&record)?;
        if let Some(filter) = self.filter.as_ref().filter(|f| matches!(f(&line), Cow::Owned(_))) {
            let mut value = serde_json::to_value(&record)
                .map_err(|e| io_error("cannot encode an event for", &self.folder)(e.into()))?;
            apply_filter(&mut value, filter);
            // Ignore the filter if its result is not a valid event.
            if let Ok(filtered) = serde_json::from_value(value) {
                record = filtered;
                line = self.log.encode(&record)?;
            }
        }
        self.log.append(line, sync)?;
        self.seq += 1;
        for observer in &mut self.observers {
            observer(&record);
        }
        Ok(())
    }
}

fn apply_filter(value: &mut Value, filter: &Filter) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(other) = filter(text) {
                *text = other;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| apply_filter(item, filter)),
        Value::Object(fields) => fields.values_mut().for_each(|field| apply_filter(field, filter)),
        _ => {}
    }
}

/// The lock on a work tree, held until this value is dropped.
#[derive(Debug)]
pub struct TreeLock {
    lock: LockFile,
    session: String,
}

impl TreeLock {
    /// Returns the id of another session whose process was killed while it was working on the tree.
    #[must_use]
    pub fn left_by(&self) -> Option<&str> {
        self.lock.left().split_whitespace().nth(1).filter(|id| *id != self.session)
    }
}

fn lock(id: &str, folder: &Path) -> Result<LockFile, Error> {
    let lock = LockFile::acquire(&folder.join("lock"), &format!("process {}", std::process::id()))?;
    lock.map_err(|holder| Error::Locked { id: id.into(), holder })
}

fn now() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// Returns an id of the form `YYYYMMDD-HHMMSS-xxxx`, in UTC. Such ids sort by time, are easy to
/// type, and rarely collide.
fn new_id(now: Timestamp) -> String {
    // `strftime` would add 290 kB to the binary.
    let at = Offset::UTC.to_datetime(now);
    let tail = fastrand::u16(..);
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{tail:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_start_with_the_utc_time() {
        for (ms, start) in [(1_795_355_045_123, "20261122-134405-"), (951_827_696_000, "20000229-123456-")] {
            let id = new_id(Timestamp::from_millisecond(ms).unwrap());
            assert!(id.starts_with(start) && id.len() == start.len() + 4, "{id}");
        }
    }
}
