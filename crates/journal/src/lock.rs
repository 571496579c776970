//! Lock files, which contain a text that identifies the holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, io_error};

/// A locked file. Dropping it empties and unlocks the file. If the process is killed, the text
/// stays in the file.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    left: String,
}

/// How long to wait for the lock of a process that is gone. If it was killed while it started a
/// child, the child shares the descriptor, and so the lock, until its exec.
const START: Duration = Duration::from_secs(2);
/// The time between two attempts to lock.
const POLL: Duration = Duration::from_millis(5);

impl LockFile {
    /// Locks `path`, which is created if missing, and writes `holder` into it. The inner error is
    /// the text of the current holder.
    ///
    /// # Errors
    /// If the file cannot be opened, locked or written.
    #[expect(clippy::disallowed_methods, reason = "flock(2) cannot wait with a time limit")]
    pub fn acquire(path: &Path, holder: &str) -> Result<Result<Self, String>, Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = open.map_err(io_error("cannot open", path))?;
        let deadline = Instant::now() + START;
        let text = loop {
            let held = match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(source)) => return Err(io_error("cannot lock", path)(source)),
            };
            let mut text = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
            let text = text.trim().to_owned();
            if !held {
                break text;
            }
            if !is_gone(&text) || Instant::now() > deadline {
                return Ok(Err(if text.is_empty() { "another process".into() } else { text }));
            }
            std::thread::sleep(POLL);
        };
        let mut record = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{holder}")
        };
        record().map_err(io_error("cannot write", path))?;
        Ok(Ok(Self { file, left: text }))
    }

    /// The text of a previous holder that was killed; empty if it released the lock itself.
    #[must_use]
    pub fn left(&self) -> &str {
        &self.left
    }
}

/// Whether the process that a holder's text names has ended.
fn is_gone(holder: &str) -> bool {
    let Some((_, rest)) = holder.rsplit_once("process ") else { return false };
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    !number.is_empty() && !Path::new("/proc").join(number).exists()
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing is not enough: a child that another thread is starting shares the descriptor
        // until its exec.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic fails the test")]

    use super::*;

    /// Larger than any process number.
    const GONE: &str = "session x (process 4194305)";

    #[test]
    fn bug_the_lock_of_a_killed_process_is_waited_for_while_its_child_starts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, GONE).unwrap();
        // The descriptor that the child shares.
        let shared = File::open(&path).unwrap();
        shared.lock().unwrap();
        let (starts, started) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || {
                starts.send(()).unwrap();
                LockFile::acquire(&path, "process 1").unwrap().map(|lock| lock.left().to_owned())
            }
        });
        started.recv().unwrap();
        (0..10_000).for_each(|_| std::thread::yield_now());
        shared.unlock().unwrap();
        assert_eq!(waiting.join().unwrap().as_deref(), Ok(GONE));
    }

    #[test]
    fn the_lock_of_a_running_process_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holder = format!("process {}", std::process::id());
        let _held = LockFile::acquire(&path, &holder).unwrap().unwrap();
        assert_eq!(LockFile::acquire(&path, "process 1").unwrap().map(|_| ()), Err(holder));
    }
}
