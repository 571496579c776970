//! The batch folder: its lock and two append-only logs that survive the process being killed at any
//! point.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use journal::{LockFile, Log, io_error};

use crate::error::Error;
use crate::event::Event;
use crate::predictions;
use crate::record::{Finished, Started};
use crate::task::Task;
use crate::worktree;

/// The file with a [`Started`] for each attempt.
pub(crate) const ATTEMPTS: &str = "attempts.jsonl";
/// The file with a [`Finished`] for each attempt that ended.
pub(crate) const RESULTS: &str = "results.jsonl";

/// A batch folder, locked for this process, and its records.
pub(crate) struct Store {
    pub(crate) out: PathBuf,
    pub(crate) started: Vec<Started>,
    /// The results without their patches, which would take too much memory in a large batch.
    pub(crate) finished: Vec<Finished>,
    attempts: Log<Started>,
    results: Log<Finished>,
    _lock: LockFile,
}

impl Store {
    /// Opens the folder, creating it if it does not exist.
    pub(crate) fn open(out: &Path) -> Result<Self, Error> {
        let new = !out.exists();
        fs::create_dir_all(out).map_err(io_error("cannot create", out))?;
        let out = fs::canonicalize(out).map_err(io_error("cannot open", out))?;
        let lock = lock(&out)?;
        if new {
            // Keeps the results from showing up as untracked files when the folder is in a
            // repository.
            let path = out.join(".gitignore");
            fs::write(&path, "*\n").map_err(io_error("cannot write", &path))?;
        }
        remove_unfinished(&out);
        let worktrees = out.join("worktrees");
        fs::create_dir_all(&worktrees).map_err(io_error("cannot create", &worktrees))?;
        let (attempts, started) = Log::open(out.join(ATTEMPTS))?;
        let mut finished = Vec::new();
        let results = Log::open_with(out.join(RESULTS), |result| finished.push(without_patch(result)))?;
        Ok(Self { out, started, finished, attempts, results, _lock: lock })
    }

    /// Records the start of an attempt; the record is on disk when this returns.
    pub(crate) fn start(&mut self, started: Started) -> Result<(), Error> {
        self.attempts.append(self.attempts.encode(&started)?, true)?;
        self.started.push(started);
        Ok(())
    }

    /// Records the result of an attempt; the record is on disk when this returns.
    pub(crate) fn finish(&mut self, finished: Finished) -> Result<(), Error> {
        self.results.append(self.results.encode(&finished)?, true)?;
        self.finished.push(without_patch(finished));
        Ok(())
    }

    /// Returns the attempts that have a result.
    pub(crate) fn ended(&self) -> HashSet<(&str, u32)> {
        self.finished.iter().map(|result| (result.id.as_str(), result.attempt)).collect()
    }

    /// Removes the trees that a killed batch left behind, but only those named in the records.
    pub(crate) async fn clean_up(&self, report: &dyn Fn(Event<'_>)) {
        let (worktrees, ended) = (self.out.join("worktrees"), self.ended());
        for started in &self.started {
            let Some(name) = started.worktree.as_deref().filter(|name| worktree::is_name(name)) else {
                continue;
            };
            let tree = worktrees.join(name);
            let id = started.id.as_str();
            let has_ended = ended.contains(&(id, started.attempt));
            if has_ended && (started.kept || tree.symlink_metadata().is_err()) {
                continue;
            }
            if let Err(message) = worktree::remove(&tree, started.git_dir.as_deref()).await {
                report(Event::Note { id, message });
            }
        }
    }

    /// Writes `predictions.jsonl`.
    pub(crate) fn predict(&self, tasks: &[Task], model: &str) -> Result<(), Error> {
        let digests = tasks.iter().map(|task| (task.id.as_str(), task.digest())).collect();
        let chosen = predictions::of(&digests, &self.finished);
        let (mut position, mut written) = (0, Ok(()));
        let path = self.out.join("predictions.jsonl");
        let write = |file: &mut dyn Write| -> io::Result<()> {
            let read = Log::<Finished>::read_with(&self.out.join(RESULTS), |result| {
                if written.is_ok() && chosen.contains(&position) {
                    written = file.write_all(predictions::line(&result, model).as_bytes());
                }
                position += 1;
            });
            read.map_err(io::Error::other)?;
            written
        };
        replace_with(&path, write).map_err(io_error("cannot write", &path))?;
        Ok(())
    }

    /// Replaces a file in the folder atomically; see [`replace`].
    pub(crate) fn replace(&self, name: &str, contents: &str) -> Result<(), Error> {
        Ok(replace(&self.out.join(name), contents)?)
    }
}

/// Locks a batch folder for this process.
pub(crate) fn lock(out: &Path) -> Result<LockFile, Error> {
    LockFile::acquire(&out.join("lock"), &format!("process {}", std::process::id()))?
        .map_err(|holder| Error::Locked { out: out.to_owned(), holder })
}

fn without_patch(mut result: Finished) -> Finished {
    result.diff.patch = String::new();
    result
}

/// The name prefix of the temporary files that [`replace`] writes and then renames.
const UNFINISHED: &str = ".agent-unfinished-";

/// Removes the temporary files that [`replace`] left behind in a folder because its process was
/// killed. The caller must ensure that no other process is replacing files there.
pub fn remove_unfinished(folder: &Path) {
    let Ok(listed) = fs::read_dir(folder) else { return };
    for entry in listed.filter_map(Result::ok) {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Replaces a file atomically: readers see either the old or the new contents.
///
/// # Errors
/// If the new contents cannot be written. The file then keeps its old contents.
pub fn replace(path: &Path, contents: &str) -> Result<(), journal::Error> {
    replace_with(path, |file| file.write_all(contents.as_bytes())).map_err(io_error("cannot write", path))
}

fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = BufWriter::new(tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}
