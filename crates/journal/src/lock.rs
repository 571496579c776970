//! Lock files, which contain text that identifies the holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, io_error};

/// A locked file. Dropping it empties and unlocks the file. If the process is killed, the text
/// stays in the file.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    left: String,
}

/// The delay between attempts to lock the file.
const POLL: Duration = Duration::from_millis(5);
/// Maximum number of times to wait for a lock whose holder has exited (2 s in total). Such a lock
/// is still held if the holder was killed while it was starting a child: the child shares the file
/// descriptor, and therefore the lock, until it calls exec.
const POLLS: u32 = 400;

impl LockFile {
    /// Locks `path`, which is created if missing, and writes `holder` into it. The inner error
    /// contains the current holder's text.
    ///
    /// # Errors
    /// If the file cannot be opened, locked or written.
    #[expect(clippy::disallowed_methods, reason = "flock(2) cannot wait with a time limit")]
    pub fn acquire(path: &Path, holder: &str) -> Result<Result<Self, String>, Error> {
        Self::acquire_polling(path, holder, || std::thread::sleep(POLL))
    }

    /// Same as [`acquire`](Self::acquire), but calls `wait` between attempts.
    fn acquire_polling(
        path: &Path,
        holder: &str,
        mut wait: impl FnMut(),
    ) -> Result<Result<Self, String>, Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = open.map_err(io_error("cannot open", path))?;
        let mut polls = 0;
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
            if !is_gone(&text) || polls == POLLS {
                return Ok(Err(if text.is_empty() { "another process".into() } else { text }));
            }
            polls += 1;
            wait();
        };
        let mut record = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{holder}")
        };
        record().map_err(io_error("cannot write", path))?;
        Ok(Ok(Self { file, left: text }))
    }

    /// Returns the text of a previous holder that was killed. It is empty if the holder released
    /// the lock itself.
    #[must_use]
    pub fn left(&self) -> &str {
        &self.left
    }
}

/// Whether the process named in a holder's text has exited.
fn is_gone(holder: &str) -> bool {
    let Some((_, rest)) = holder.rsplit_once("process ") else { return false };
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    !number.is_empty() && !Path::new("/proc").join(number).exists()
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing is not enough: a child that another thread is starting shares the descriptor
        // until it calls exec.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic fails the test")]

    use super::*;

    /// A holder whose process ID is larger than any real one.
    const GONE: &str = "session x (process 4194305)";

    /// Returns a lock file whose text is `holder`, and a descriptor that holds the lock.
    fn locked(holder: &str) -> (tempfile::TempDir, std::path::PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, holder).unwrap();
        let file = File::open(&path).unwrap();
        file.lock().unwrap();
        (folder, path, file)
    }

    /// Tries to lock the file. Returns the text of the killed holder, or the text of the current
    /// holder as an error. Also returns the number of waits. `wait` receives the number of earlier
    /// waits.
    fn acquire(path: &Path, mut wait: impl FnMut(u32)) -> (Result<String, String>, u32) {
        let mut waits = 0;
        let lock = LockFile::acquire_polling(path, "process 1", || {
            wait(waits);
            waits += 1;
        });
        (lock.unwrap().map(|lock| lock.left().to_owned()), waits)
    }

    #[test]
    fn bug_the_lock_of_a_killed_process_was_refused_while_its_child_started() {
        let (_folder, path, shared_with_child) = locked(GONE);
        let exec = |waits| {
            if waits == 2 {
                shared_with_child.unlock().unwrap();
            }
        };
        assert_eq!(acquire(&path, exec), (Ok(GONE.into()), 3));
    }

    #[test]
    fn the_wait_for_a_lock_that_is_never_released_ends() {
        let (_folder, path, _file) = locked(GONE);
        assert_eq!(acquire(&path, |_| ()), (Err(GONE.into()), POLLS));
    }

    #[test]
    fn the_lock_of_a_running_or_unknown_process_is_refused_without_waiting() {
        let running = format!("session x (process {})", std::process::id());
        for (holder, told) in [(running.as_str(), running.as_str()), ("", "another process"), ("x", "x")] {
            let (_folder, path, _file) = locked(holder);
            assert_eq!(acquire(&path, |_| ()), (Err(told.into()), 0), "{holder}");
        }
    }
}
