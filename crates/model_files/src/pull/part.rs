//! An unfinished file. `NAME.part` contains its first bytes, and `NAME.part.json` identifies the
//! file.
//!
//! The bytes are the beginning of the file whose SHA-256 is recorded, and every source delivers the
//! same file. A download can therefore resume from another source, right after the last byte. A
//! source that delivers the file in parts resumes after the last complete part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store;

/// The number of bytes to hash between progress reports.
const BLOCK: usize = 1 << 20;

/// Identifies the bytes in `NAME.part`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The SHA-256 of the whole file.
    sha256: String,
    /// The lengths of the complete parts, in bytes, if the source delivers the file in parts.
    parts: Vec<u64>,
}

/// An unfinished file. Open one only while holding the store's lock.
pub(super) struct Part {
    /// The final path.
    path: PathBuf,
    file: File,
    length: u64,
    state: State,
}

impl Part {
    /// Opens the unfinished file with this SHA-256, or starts a new one.
    pub(super) fn open(path: &Path, sha256: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(store::part(path))?;
        let saved = fs::read(store::state(path)).ok();
        let saved = saved.and_then(|text| serde_json::from_slice::<State>(&text).ok());
        let state = match saved.filter(|state| state.sha256 == sha256) {
            Some(state) => state,
            None => {
                // Drop the old bytes before saving the new checksum. Otherwise, if the process were
                // killed in between, the old bytes would be mistaken for the start of the new file.
                file.set_len(0)?;
                let state = State { sha256: sha256.to_owned(), parts: Vec::new() };
                save(path, &state)?;
                state
            }
        };
        let length = file.seek(io::SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, length, state })
    }

    /// Returns the number of bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the number of complete parts.
    pub(super) fn parts(&self) -> usize {
        self.state.parts.len()
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops all bytes from `length` on.
    pub(super) fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = self.file.seek(io::SeekFrom::End(0))?;
        Ok(())
    }

    /// Drops the bytes after the last complete part.
    pub(super) fn drop_partial(&mut self) -> io::Result<()> {
        let complete = self.state.parts.iter().sum::<u64>();
        if complete > self.length {
            // The state lists more bytes than the file has.
            self.state.parts.clear();
            return self.truncate(0);
        }
        self.truncate(complete)
    }

    /// Records the bytes after the last complete part as another complete part.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        self.state.parts.push(self.length - self.state.parts.iter().sum::<u64>());
        save(&self.path, &self.state)
    }

    /// Returns the SHA-256 of the bytes. After each block, `report` is called with the number of
    /// bytes hashed so far.
    pub(super) async fn digest(&mut self, mut report: impl FnMut(u64)) -> io::Result<String> {
        self.file.rewind()?;
        let (mut hash, mut block, mut done) = (Sha256::new(), vec![0; BLOCK], 0);
        loop {
            let read = self.file.read(&mut block)?;
            if read == 0 {
                break;
            }
            hash.update(block.get(..read).unwrap_or_default());
            done += read as u64;
            report(done);
            // Let the caller cancel here.
            tokio::task::yield_now().await;
        }
        Ok(hex(&hash.finalize()))
    }

    /// Returns the path of `NAME.part`.
    pub(super) fn bytes_path(&self) -> PathBuf {
        store::part(&self.path)
    }

    /// Gives the file its final name.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(store::part(&self.path), &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        forget(&self.path)
    }

    /// Removes the bytes and the state.
    pub(super) fn discard(self) -> io::Result<()> {
        fs::remove_file(store::part(&self.path))?;
        forget(&self.path)
    }
}

/// Replaces the state atomically.
fn save(path: &Path, state: &State) -> io::Result<()> {
    fs::write(store::new_state(path), serde_json::to_vec(state)?)?;
    fs::rename(store::new_state(path), store::state(path))
}

/// Removes the state file and, if a write was interrupted, its temporary file.
fn forget(path: &Path) -> io::Result<()> {
    fs::remove_file(store::state(path))?;
    match fs::remove_file(store::new_state(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Formats bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
