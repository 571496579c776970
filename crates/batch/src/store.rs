//! The folder of a batch: its lock, and two append-only logs that survive a kill at any instant.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, io_error};
use crate::record::{Finished, Started, VERSION, Versioned};

/// The folder, locked for this process, and what it holds.
pub(crate) struct Store {
    pub(crate) out: PathBuf,
    pub(crate) started: Vec<Started>,
    pub(crate) finished: Vec<Finished>,
    attempts: Log<Started>,
    results: Log<Finished>,
    _lock: Lock,
}

impl Store {
    /// Opens the folder, and makes it where it is not there yet.
    pub(crate) fn open(out: &Path) -> Result<Self, Error> {
        let new = !out.exists();
        fs::create_dir_all(out).map_err(io_error("cannot create", out))?;
        let out = fs::canonicalize(out).map_err(io_error("cannot open", out))?;
        let lock = lock(&out)?;
        if new {
            // In a repository, the results would show up as untracked files.
            let path = out.join(".gitignore");
            fs::write(&path, "*\n").map_err(io_error("cannot write", &path))?;
        }
        let worktrees = out.join("worktrees");
        fs::create_dir_all(&worktrees).map_err(io_error("cannot create", &worktrees))?;
        let (attempts, started) = Log::open(out.join("attempts.jsonl"))?;
        let (results, finished) = Log::open(out.join("results.jsonl"))?;
        Ok(Self { out, started, finished, attempts, results, _lock: lock })
    }

    /// On disk when this returns.
    pub(crate) fn start(&mut self, started: Started) -> Result<(), Error> {
        self.attempts.append(&started)?;
        self.started.push(started);
        Ok(())
    }

    /// On disk when this returns.
    pub(crate) fn finish(&mut self, finished: Finished) -> Result<(), Error> {
        self.results.append(&finished)?;
        self.finished.push(finished);
        Ok(())
    }

    /// The attempts that have their result.
    pub(crate) fn ended(&self) -> HashSet<(&str, u32)> {
        self.finished.iter().map(|result| (result.id.as_str(), result.attempt)).collect()
    }

    /// Replaces a file of the folder as a whole: readers see the old one or the new one.
    pub(crate) fn replace(&self, name: &str, contents: &[u8]) -> Result<(), Error> {
        let path = self.out.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.out)?;
            file.write_all(contents)?;
            file.as_file().sync_data()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(&self.out)?.sync_all()
        };
        write().map_err(io_error("cannot write", &path))
    }
}

/// Given up explicitly: a process that another thread is just starting holds a copy of the file until it executes its program, and
/// closing ours would not release it.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock(out: &Path) -> Result<Lock, Error> {
    let path = out.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.map_err(io_error("cannot open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(source)) => return Err(io_error("cannot lock", &path)(source)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&file).take(100).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another batch" } else { holder.trim() };
            return Err(Error::Locked { out: out.into(), holder: holder.into() });
        }
    }
    file.set_len(0)
        .and_then(|()| write!(file, "process {}", std::process::id()))
        .map_err(io_error("cannot write", &path))?;
    Ok(Lock(file))
}

/// An append-only file of records, one JSON object a line.
struct Log<T> {
    path: PathBuf,
    file: File,
    record: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned + Versioned> Log<T> {
    /// Opens it and reads what is there. A last line that a crash tore is dropped.
    fn open(path: PathBuf) -> Result<(Self, Vec<T>), Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(io_error("cannot open", &path))?;
        let (records, whole) = read(&path, &file)?;
        file.set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)))
            .map_err(io_error("cannot repair", &path))?;
        Ok((Self { path, file, record: PhantomData }, records))
    }

    /// In one write; on disk when this returns. A write that failed is taken back.
    fn append(&mut self, record: &T) -> Result<(), Error> {
        let mut line = serde_json::to_vec(record)
            .map_err(|e| io_error("cannot encode a record for", &self.path)(e.into()))?;
        line.push(b'\n');
        let before = self.file.stream_position().map_err(io_error("cannot write", &self.path))?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // A full disk may have taken half of the line: the next reader shall find whole records only.
            let _ = self.file.set_len(before);
            let _ = self.file.seek(SeekFrom::Start(before));
        }
        written.map_err(io_error("cannot write", &self.path))
    }
}

/// The records of a log, and the length of what is whole.
fn read<T: DeserializeOwned + Versioned>(path: &Path, file: &File) -> Result<(Vec<T>, u64), Error> {
    let mut reader = BufReader::new(file);
    let (mut records, mut whole, mut line) = (Vec::<T>::new(), 0, Vec::new());
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(io_error("cannot read", path))?;
        if n == 0 || line.last() != Some(&b'\n') {
            return Ok((records, whole)); // the end, or a tail that a crash tore
        }
        let corrupt = |why| Error::Corrupt { path: path.into(), line: records.len() + 1, why };
        match serde_json::from_slice::<T>(&line) {
            Ok(record) if record.version() == VERSION => records.push(record),
            Ok(record) => return Err(corrupt(format!("it is of version {}", record.version()))),
            // After a power loss the last block may be zeroes that end in a newline of ours: torn as well.
            Err(_) if reader.fill_buf().is_ok_and(<[u8]>::is_empty) => return Ok((records, whole)),
            Err(e) => return Err(corrupt(e.to_string())),
        }
        whole += n as u64;
    }
}
