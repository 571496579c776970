//! Sessions on disk: a folder each, with a lock, an append-only journal, and room for logs.

use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::event::{Event, Mode, Record, VERSION};
use crate::{Ending, Totals};

/// What can go wrong with a session on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No session of that id.
    #[error("there is no session {0:?}; `agent sessions list` shows those there are")]
    NotFound(String),
    /// A prefix that fits several sessions.
    #[error("{prefix:?} fits {} sessions ({}); give more of the id", ids.len(), ids.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Those that fit, at most a few.
        ids: Vec<String>,
    },
    /// Another process writes it.
    #[error("session {id} is in use by {holder}; wait for it to end, or stop it")]
    Locked {
        /// The session.
        id: String,
        /// Who holds it.
        holder: String,
    },
    /// Another session works on the tree.
    #[error("{} is being worked on by {holder}; wait for it to end, or work in another git worktree", root.display())]
    TreeLocked {
        /// The root of the tree.
        root: PathBuf,
        /// Who works on it.
        holder: String,
    },
    /// A line that is not an event, before the last one.
    #[error("{}: line {line} is not an event of version {VERSION}: {why}", path.display())]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// The folder that holds all sessions.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A session at a glance, for lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: String,
    /// When it began, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The task.
    pub task: String,
    /// The repository.
    pub root: String,
    /// Run or dry-run.
    pub mode: Mode,
    /// How it ended; `None` while it runs, or after a crash.
    pub ending: Option<Ending>,
    /// Its sums, once it ended.
    pub totals: Option<Totals>,
}

impl Store {
    /// Sessions live in `root/sessions/ID/`. Nothing is created before it is needed.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into().join("sessions") }
    }

    /// The folder of a session.
    #[must_use]
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Begins a session with a new id (sorted by time), locked for this process.
    ///
    /// # Errors
    /// When the folder cannot be created or written.
    pub fn create(&self) -> Result<Journal, Error> {
        fs::create_dir_all(&self.root).map_err(io_error("cannot create", &self.root))?;
        loop {
            let id = new_id(now_ms());
            let folder = self.folder(&id);
            // What commands print and what files were lies there as it is: nobody else's business.
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Journal::open(id, folder),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("cannot create", &folder)(e)),
            }
        }
    }

    /// Opens a session for appending. A torn last line is dropped.
    ///
    /// # Errors
    /// When it does not exist, is in use, or is damaged before its last line.
    pub fn open(&self, id: &str) -> Result<(Journal, Vec<Record>), Error> {
        let id = self.find(id)?;
        let folder = self.folder(&id);
        let mut journal = Journal::open(id, folder)?;
        let (records, whole) = read(&journal.path)?;
        journal.file.set_len(whole).map_err(io_error("cannot repair", &journal.path))?;
        journal.file.seek(SeekFrom::End(0)).map_err(io_error("cannot repair", &journal.path))?;
        journal.seq = records.len() as u64;
        Ok((journal, records))
    }

    /// The events of a session; also while another process still writes it.
    ///
    /// # Errors
    /// When it does not exist or is damaged before its last line.
    pub fn load(&self, id: &str) -> Result<Vec<Record>, Error> {
        let id = self.find(id)?;
        Ok(read(&self.folder(&id).join(JOURNAL))?.0)
    }

    /// The full id for an id, a prefix of one, or `last`.
    ///
    /// # Errors
    /// When none or several fit.
    pub fn find(&self, wanted: &str) -> Result<String, Error> {
        let ids = self.ids()?;
        if wanted == "last" {
            return ids.last().cloned().ok_or_else(|| Error::NotFound(wanted.into()));
        }
        if ids.iter().any(|id| id == wanted) {
            return Ok(wanted.into());
        }
        let fits: Vec<_> =
            ids.into_iter().filter(|id| !wanted.is_empty() && id.starts_with(wanted)).collect();
        match fits.as_slice() {
            [] => Err(Error::NotFound(wanted.into())),
            [one] => Ok(one.clone()),
            several => Err(Error::Ambiguous {
                prefix: wanted.into(),
                ids: several.iter().take(5).cloned().collect(),
            }),
        }
    }

    /// All ids, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
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

    /// A session at a glance.
    ///
    /// # Errors
    /// When it does not exist or is damaged.
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
                Event::Finished { ending, totals, .. } => {
                    (summary.ending, summary.totals) = (Some(ending), Some(totals));
                }
                _ => {}
            }
        }
        Ok(summary)
    }

    /// Takes a work tree for a session of this process, until the value is dropped.
    ///
    /// # Errors
    /// When another process has it: two agents would undo each other's work.
    pub fn take_tree(&self, root: &Path, session: &str) -> Result<TreeLock, Error> {
        /// Of a long path the end tells more.
        const LONGEST: usize = 200;
        let folder = self.root.with_file_name("trees");
        fs::create_dir_all(&folder).map_err(io_error("cannot create", &folder))?;
        let name = root.display().to_string().replace('%', "%%").replace('/', "%");
        let cut =
            (0..=name.len().saturating_sub(LONGEST)).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        let path = folder.join(&name[cut..]);
        match hold(&path, &format!("session {session} (process {})", std::process::id()))? {
            Ok((file, before)) => {
                let left = before.split_whitespace().nth(1).map(str::to_owned);
                Ok(TreeLock { file, left_by: left.filter(|id| id != session) })
            }
            Err(holder) => Err(Error::TreeLocked { root: root.to_owned(), holder }),
        }
    }

    /// Holds a session, so that nobody writes or removes it until the value is dropped.
    ///
    /// # Errors
    /// When it does not exist or is in use.
    pub fn hold(&self, id: &str) -> Result<SessionLock, Error> {
        let id = self.find(id)?;
        Ok(SessionLock(lock(&id, &self.folder(&id))?))
    }

    /// Removes a session that nobody writes.
    ///
    /// # Errors
    /// When it does not exist or is in use.
    pub fn remove(&self, id: &str) -> Result<String, Error> {
        let id = self.find(id)?;
        let folder = self.folder(&id);
        let lock = lock(&id, &folder)?;
        fs::remove_dir_all(&folder).map_err(io_error("cannot remove", &folder))?;
        drop(lock);
        Ok(id)
    }
}

pub(crate) const JOURNAL: &str = "journal.jsonl";

/// A view that is shown each record right after it was written.
pub type Observer = Box<dyn FnMut(&Record) + Send>;

/// Replaces what must not be written in a text.
pub type Filter = Box<dyn for<'a> Fn(&'a str) -> Cow<'a, str> + Send>;

/// A session that this process writes.
pub struct Journal {
    id: String,
    folder: PathBuf,
    path: PathBuf,
    file: File,
    seq: u64,
    observers: Vec<Observer>,
    filter: Option<Filter>,
    lock: File,
}

impl Journal {
    fn open(id: String, folder: PathBuf) -> Result<Self, Error> {
        let held = lock(&id, &folder)?;
        let path = folder.join(JOURNAL);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("cannot open", &path))?;
        Ok(Self { id, folder, path, file, seq: 0, observers: Vec::new(), filter: None, lock: held })
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The session's folder: logs, pre-images and the patch lie beside the journal.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a view that is shown every record from now on.
    pub fn observe(&mut self, observer: Observer) {
        self.observers.push(observer);
    }

    /// Every text of every event goes through this from now on, before it is written or shown.
    pub fn filter(&mut self, filter: Filter) {
        self.filter = Some(filter);
    }

    /// Writes an event, in one write; those that precede an effect are on disk when this returns.
    ///
    /// # Errors
    /// When the disk is full or gone. The journal then holds whole records up to the failed one, and nothing may take effect.
    pub fn append(&mut self, event: Event) -> Result<(), Error> {
        let sync = event.precedes_effect();
        let mut record = Record { v: VERSION, seq: self.seq, time_ms: now_ms(), event };
        let encoded = |e: serde_json::Error| io_error("cannot encode an event for", &self.path)(e.into());
        let mut line = serde_json::to_string(&record).map_err(encoded)?;
        if let Some(filter) = self.filter.as_ref().filter(|f| matches!(f(&line), Cow::Owned(_))) {
            let mut value = serde_json::to_value(&record).map_err(encoded)?;
            filtered(&mut value, filter);
            // A filter that eats a word of the format is wrong about it.
            if let Ok(filtered) = serde_json::from_value(value) {
                record = filtered;
                line = serde_json::to_string(&record).map_err(encoded)?;
            }
        }
        line.push('\n');
        self.write(line.as_bytes(), sync).map_err(io_error("cannot write", &self.path))?;
        self.seq += 1;
        for observer in &mut self.observers {
            observer(&record);
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8], sync: bool) -> io::Result<()> {
        let before = self.file.stream_position()?;
        let written =
            self.file.write_all(line).and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // A full disk may have taken half of the line: take it back, so that the next reader finds whole records only.
            let _ = self.file.set_len(before);
            let _ = self.file.seek(SeekFrom::Start(before));
        }
        written
    }
}

fn filtered(value: &mut Value, filter: &Filter) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(other) = filter(text) {
                *text = other;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| filtered(item, filter)),
        Value::Object(fields) => fields.values_mut().for_each(|field| filtered(field, filter)),
        _ => {}
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Closing alone does not release it while a child of another thread, not yet past its exec, shares the descriptor.
        let _ = self.lock.unlock();
    }
}

/// A work tree that is taken; given back when this is dropped.
#[derive(Debug)]
pub struct TreeLock {
    file: File,
    left_by: Option<String>,
}

impl TreeLock {
    /// The session that had the tree before and was killed with it.
    #[must_use]
    pub fn left_by(&self) -> Option<&str> {
        self.left_by.as_deref()
    }
}

impl Drop for TreeLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0); // given back, not left
        let _ = self.file.unlock(); // as for a journal
    }
}

/// A session that is held; let go of when this is dropped.
#[derive(Debug)]
pub struct SessionLock(File);

impl Drop for SessionLock {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // as for a journal
    }
}

fn lock(id: &str, folder: &Path) -> Result<File, Error> {
    let held = hold(&folder.join("lock"), &format!("process {}", std::process::id()))?;
    held.map(|(file, _)| file).map_err(|holder| Error::Locked { id: id.into(), holder })
}

/// Locks a file and writes down who did, with what was written there before; otherwise who has it.
fn hold(path: &Path, who: &str) -> Result<Result<(File, String), String>, Error> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(io_error("cannot open", path))?;
    let locked = file.try_lock().is_ok();
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    if !locked {
        let holder =
            if holder.trim().is_empty() { "another process".into() } else { holder.trim().to_owned() };
        return Ok(Err(holder));
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{who}"));
    written.map_err(io_error("cannot write", path))?;
    Ok(Ok((file, holder)))
}

/// The records of a journal, and the length of what is whole.
fn read(path: &Path) -> Result<(Vec<Record>, u64), Error> {
    let file = File::open(path).map_err(io_error("cannot open", path))?;
    let mut reader = BufReader::new(file);
    let (mut records, mut whole, mut line) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(io_error("cannot read", path))?;
        if n == 0 || line.last() != Some(&b'\n') {
            return Ok((records, whole)); // the end, or a tail that a crash tore
        }
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if record.v == VERSION => records.push(record),
            Ok(record) => {
                let why = format!("it is of version {}", record.v);
                return Err(Error::Corrupt { path: path.into(), line: records.len() + 1, why });
            }
            // After a power loss the last block may be zeroes that end in a newline of ours: torn as well.
            Err(_) if reader.fill_buf().is_ok_and(<[u8]>::is_empty) => return Ok((records, whole)),
            Err(e) => {
                return Err(Error::Corrupt {
                    path: path.into(),
                    line: records.len() + 1,
                    why: e.to_string(),
                });
            }
        }
        whole += n as u64;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// `YYYYMMDD-HHMMSS-xxxx` in UTC: sorts by time, easy to type, unlikely to meet its like.
fn new_id(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, time) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Civil date from days since 1970-01-01 (Howard Hinnant's public-domain algorithm, for dates after 0000-03-01).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(ms);
    let tail = hasher.finish() & 0xffff;
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}-{tail:04x}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_utc_time() {
        assert!(new_id(1_795_355_045_123).starts_with("20261122-134405-"), "{}", new_id(1_795_355_045_123));
        assert!(new_id(951_827_696_000).starts_with("20000229-123456-"), "{}", new_id(951_827_696_000));
    }
}
