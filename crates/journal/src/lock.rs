//! Lock files, which contain a text that identifies the holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, io_error};

/// A locked file. Dropping it empties and unlocks the file. If the process is killed, the text
/// stays in the file.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    left: String,
}

impl LockFile {
    /// Locks `path`, which is created if missing, and writes `holder` into it. The inner error is
    /// the text of the current holder.
    ///
    /// # Errors
    /// If the file cannot be opened, locked or written.
    pub fn acquire(path: &Path, holder: &str) -> Result<Result<Self, String>, Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = open.map_err(io_error("cannot open", path))?;
        let held = match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(source)) => return Err(io_error("cannot lock", path)(source)),
        };
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        let text = text.trim().to_owned();
        if held {
            return Ok(Err(if text.is_empty() { "another process".into() } else { text }));
        }
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

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        // Closing is not enough: a child that another thread is starting shares the descriptor
        // until its exec.
        let _ = self.file.unlock();
    }
}
