//! Stores each commit on disk: the files before and after it, a record of its changes, and a marker
//! showing that it was finished.
//!
//! `STATE/commits/000001/` contains `record.json`, `images` (the concatenated contents of all files
//! before and after the commit, without duplicates) and, once every file is in place, `done`.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{CleanPath, Digest, FileImage};

/// The maximum size, in bytes, of a file that a commit can replace and store.
pub(crate) const REPLACE_LIMIT: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// Who made a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// An edit ([`crate::Workspace::commit`]).
    #[default]
    Edit,
    /// A command that the agent ran ([`crate::Workspace::watched`]), or the agent, when it restored
    /// protected files ([`crate::Protected::restore`]).
    Command,
    /// The agent, when it discarded its own changes ([`crate::Workspace::revert`]).
    Revert,
    /// The user, who undid changes ([`crate::Workspace::put_back`]).
    Undo,
    /// The user, who applied the changes from another tree ([`crate::Workspace::bring`]).
    Apply,
}

/// One commit as stored on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) turn: u32,
    #[serde(default)]
    pub(crate) by: By,
    /// The root of the work tree.
    #[serde(default)]
    pub(crate) tree: PathBuf,
    pub(crate) files: Vec<FileRecord>,
    /// Folders that the commit created, outermost first.
    pub(crate) made: Vec<CleanPath>,
    /// Folders created by earlier commits, to be removed if they are empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unmade: Vec<CleanPath>,
    /// Files that changed but are too large to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<CleanPath>,
    /// The contents in the `images` file, in order.
    #[serde(default)]
    pub(crate) images: Vec<Kept>,
}

/// The content of one or more files, as stored in `images`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<State>,
    pub(crate) after: Option<State>,
    /// The temporary name, in the file's folder, of whichever version is not in place: the new
    /// version until the commit swaps the two, and the old version afterward.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) temp: String,
}

/// A file's content and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) digest: Digest,
    pub(crate) mode: u32,
    /// Whether it is a symbolic link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) link: bool,
}

impl State {
    pub(crate) fn of(image: &FileImage) -> Self {
        Self { digest: image.digest(), mode: image.mode, link: image.link }
    }
}

impl Store {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir.join("commits"))?;
        Self::existing(state_dir)
    }

    /// Opens a state folder without creating anything.
    pub(crate) fn existing(state_dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: state_dir.canonicalize()? })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn commit_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("commits/{id:06}"))
    }

    /// Returns the numbers of all commits, in ascending order.
    pub(crate) fn ids(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.dir.join("commits"))? {
            ids.extend(entry?.file_name().to_str().and_then(|n| n.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Writes the contents and the record to disk before the commit takes effect. Returns the
    /// commit's number.
    pub(crate) fn begin<'a>(
        &self,
        mut record: Record,
        images: impl Iterator<Item = io::Result<Cow<'a, [u8]>>>,
    ) -> io::Result<u64> {
        let mut id = self.ids()?.last().map_or(1, |last| last + 1);
        let dir = loop {
            let dir = self.commit_dir(id);
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => id += 1,
                Err(e) => return Err(e),
            }
        };
        let written = (|| {
            record.images = keep(&dir.join("images"), images)?;
            write_synced(&dir.join("record.tmp"), &serde_json::to_vec(&record)?)?;
            fs::rename(dir.join("record.tmp"), dir.join("record.json"))?;
            File::open(&dir)?.sync_all()?;
            File::open(self.dir.join("commits"))?.sync_all()
        })();
        if written.is_err() {
            // Free the space in case the disk is full. If this fails, the files do no harm, because
            // the commit is not marked as done.
            let _ = self.forget(id);
        }
        written.map(|()| id)
    }

    pub(crate) fn finish(&self, id: u64) -> io::Result<()> {
        let done = self.commit_dir(id).join("done");
        // If this fails, the marker must not remain, because the caller then swaps the files back.
        write_synced(&done, b"").inspect_err(|_| drop(fs::remove_file(&done)))
    }

    /// Removes a commit that has been rolled back.
    pub(crate) fn forget(&self, id: u64) -> io::Result<()> {
        fs::remove_dir_all(self.commit_dir(id))
    }

    pub(crate) fn is_done(&self, id: u64) -> bool {
        self.commit_dir(id).join("done").exists()
    }

    /// Returns the record of a commit, or `None` if a crash happened before the record was
    /// complete, and therefore before anything was changed.
    pub(crate) fn record(&self, id: u64) -> io::Result<Option<Record>> {
        match fs::read(self.commit_dir(id).join("record.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns every finished commit, in ascending order.
    pub(crate) fn records(&self) -> io::Result<Vec<(u64, Record)>> {
        let mut records = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| self.is_done(*id)) {
            records.extend(self.record(id)?.map(|record| (id, record)));
        }
        Ok(records)
    }

    /// Reads a saved file from a commit.
    pub(crate) fn image(&self, id: u64, record: &Record, state: State) -> io::Result<FileImage> {
        self.images(id, record).image(state)
    }

    /// Returns the location of the saved files of a commit.
    pub(crate) fn images(&self, id: u64, record: &Record) -> Images {
        let mut at = 0;
        let place = |kept: &Kept| {
            at += kept.size;
            (kept.digest, (at - kept.size, kept.size))
        };
        Images { path: self.commit_dir(id).join("images"), places: record.images.iter().map(place).collect() }
    }
}

/// The location of a commit's stored contents.
#[derive(Debug)]
pub(crate) struct Images {
    path: PathBuf,
    /// The offset and size of the content with each digest.
    places: HashMap<Digest, (u64, u64)>,
}

impl Images {
    pub(crate) fn image(&self, state: State) -> io::Result<FileImage> {
        let corrupt = || {
            let what = format!("{}: stored content is missing or corrupt", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let (at, size) = self.places.get(&state.digest).ok_or_else(corrupt)?;
        let mut bytes = vec![0; usize::try_from(*size).map_err(io::Error::other)?];
        File::open(&self.path)?.read_exact_at(&mut bytes, *at)?;
        if Digest::of(&bytes) != state.digest {
            return Err(corrupt());
        }
        Ok(FileImage { bytes, mode: state.mode, link: state.link })
    }
}

/// Writes the contents, skipping duplicates. Returns what was written, in the order it appears in
/// the file.
fn keep<'a>(path: &Path, images: impl Iterator<Item = io::Result<Cow<'a, [u8]>>>) -> io::Result<Vec<Kept>> {
    let mut file = File::create(path)?;
    let (mut kept, mut there) = (Vec::new(), HashSet::new());
    for bytes in images {
        let bytes = bytes?;
        let digest = Digest::of(&bytes);
        if there.insert(digest) {
            file.write_all(&bytes)?;
            kept.push(Kept { digest, size: bytes.len() as u64 });
        }
    }
    file.sync_all()?;
    Ok(kept)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
