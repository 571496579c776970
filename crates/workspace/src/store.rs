//! What a commit keeps: the files as they were and as they became, and a record that tells a half-done commit from a done one.
//!
//! `STATE/commits/000001/` holds `record.json`, `images` (the contents of all files before and after, each once, one behind the other) and,
//! once every file is in place, `done`.

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

/// Largest file that a commit replaces and a record keeps, in bytes.
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
    /// A command that the agent ran ([`crate::Workspace::watched`]).
    Command,
    /// The person: put back ([`crate::Workspace::put_back`]).
    Undo,
    /// The person: brought from another tree ([`crate::Workspace::bring`]).
    Apply,
}

/// One commit, as kept on disk.
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
    /// Folders that were made, outermost first.
    pub(crate) made: Vec<CleanPath>,
    /// Folders, made by earlier commits, that go if they are empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unmade: Vec<CleanPath>,
    /// Files that were changed and are too large to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<CleanPath>,
    /// What `images` holds, in its order.
    #[serde(default)]
    pub(crate) images: Vec<Kept>,
}

/// One content in `images`.
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
    /// The name, in the file's own folder, that its other version has while the commit is under way.
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

    /// Makes nothing.
    pub(crate) fn existing(state_dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: state_dir.canonicalize()? })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn commit_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("commits/{id:06}"))
    }

    /// The numbers of all commits, ascending.
    pub(crate) fn ids(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.dir.join("commits"))? {
            ids.extend(entry?.file_name().to_str().and_then(|n| n.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Writes the contents and the record, synced, before any of it takes effect. Returns the commit's number.
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
            durable(&dir.join("record.tmp"), &serde_json::to_vec(&record)?)?;
            fs::rename(dir.join("record.tmp"), dir.join("record.json"))?;
            File::open(&dir)?.sync_all()?;
            File::open(self.dir.join("commits"))?.sync_all()
        })();
        if written.is_err() {
            // A full disk is not left fuller. What cannot be removed has no effect: it is not done.
            let _ = self.forget(id);
        }
        written.map(|()| id)
    }

    pub(crate) fn finish(&self, id: u64) -> io::Result<()> {
        let done = self.commit_dir(id).join("done");
        // Not left behind by a failure: the files change back.
        durable(&done, b"").inspect_err(|_| drop(fs::remove_file(&done)))
    }

    /// Forgets a commit that has been taken back.
    pub(crate) fn forget(&self, id: u64) -> io::Result<()> {
        fs::remove_dir_all(self.commit_dir(id))
    }

    pub(crate) fn is_done(&self, id: u64) -> bool {
        self.commit_dir(id).join("done").exists()
    }

    /// `None` when the crash came before the record was whole, so that nothing had taken effect.
    pub(crate) fn record(&self, id: u64) -> io::Result<Option<Record>> {
        match fs::read(self.commit_dir(id).join("record.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every commit that is done, ascending.
    pub(crate) fn records(&self) -> io::Result<Vec<(u64, Record)>> {
        let mut records = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| self.is_done(*id)) {
            records.extend(self.record(id)?.map(|record| (id, record)));
        }
        Ok(records)
    }

    /// A content that a commit has kept.
    pub(crate) fn image(&self, id: u64, record: &Record, state: State) -> io::Result<FileImage> {
        self.images(id, record).image(state)
    }

    /// All contents that a commit has kept.
    pub(crate) fn images(&self, id: u64, record: &Record) -> Images {
        let mut at = 0;
        let place = |kept: &Kept| {
            at += kept.size;
            (kept.digest, (at - kept.size, kept.size))
        };
        Images { path: self.commit_dir(id).join("images"), places: record.images.iter().map(place).collect() }
    }
}

/// The contents that a commit has kept.
#[derive(Debug)]
pub(crate) struct Images {
    path: PathBuf,
    /// Offset and size of each.
    places: HashMap<Digest, (u64, u64)>,
}

impl Images {
    pub(crate) fn image(&self, state: State) -> io::Result<FileImage> {
        let damaged = || {
            let what = format!("{}: a content is missing or damaged", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let (at, size) = self.places.get(&state.digest).ok_or_else(damaged)?;
        let mut bytes = vec![0; usize::try_from(*size).map_err(io::Error::other)?];
        File::open(&self.path)?.read_exact_at(&mut bytes, *at)?;
        if Digest::of(&bytes) != state.digest {
            return Err(damaged());
        }
        Ok(FileImage { bytes, mode: state.mode, link: state.link })
    }
}

/// Writes each content once; returns them in the order of the file.
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

fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
