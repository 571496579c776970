//! What a commit keeps: the files as they were, and a record that tells a half-done commit from a done one.
//!
//! `STATE/commits/000001/` holds `record.json`, the pre-images `0`, `1`, … and, once every file is in place, `done`.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    CleanPath, Digest, Workspace,
    place::{Found, Image},
    root::lock,
};

/// Largest file that a commit replaces, in bytes.
pub(crate) const REPLACE_LIMIT: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// One commit, as kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) files: Vec<FileRecord>,
    /// Folders that were made, outermost first.
    pub(crate) made: Vec<CleanPath>,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<State>,
    pub(crate) after: Option<State>,
    /// The name, in the file's own folder, that its other version has while the commit is under way.
    pub(crate) temp: String,
}

/// A file's content and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) digest: Digest,
    pub(crate) mode: u32,
}

impl State {
    pub(crate) fn of(image: &Image) -> Self {
        Self { digest: image.digest(), mode: image.mode }
    }
}

impl Store {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir.join("commits"))?;
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

    /// Writes pre-images and record, synced, before any of it takes effect. Returns the commit's number.
    pub(crate) fn begin(&self, record: &Record, before: &[Option<&Image>]) -> io::Result<u64> {
        let mut id = self.ids()?.last().map_or(1, |last| last + 1);
        let dir = loop {
            let dir = self.commit_dir(id);
            match fs::create_dir(&dir) {
                Ok(()) => break dir,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => id += 1,
                Err(e) => return Err(e),
            }
        };
        for (i, image) in before.iter().enumerate() {
            if let Some(image) = image {
                durable(&dir.join(i.to_string()), &image.bytes)?;
            }
        }
        durable(&dir.join("record.tmp"), &serde_json::to_vec(record)?)?;
        fs::rename(dir.join("record.tmp"), dir.join("record.json"))?;
        File::open(&dir)?.sync_all()?;
        File::open(self.dir.join("commits"))?.sync_all()?;
        Ok(id)
    }

    pub(crate) fn finish(&self, id: u64) -> io::Result<()> {
        durable(&self.commit_dir(id).join("done"), b"")
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

    pub(crate) fn before(&self, id: u64, file: usize) -> io::Result<Vec<u8>> {
        fs::read(self.commit_dir(id).join(file.to_string()))
    }
}

fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

impl Workspace {
    /// Takes back every commit that was begun and not finished. Files that somebody else has written since are left alone.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let _writing = lock(&self.0.writing);
        let Some(store) = &self.0.store else { return Ok(()) };
        for id in store.ids()? {
            if store.is_done(id) {
                continue;
            }
            if let Some(record) = store.record(id)? {
                for (i, file) in record.files.iter().enumerate().rev() {
                    self.take_back(file, || store.before(id, i))?;
                }
                self.unmake(&record.made);
            }
            store.forget(id)?;
        }
        Ok(())
    }

    fn take_back(&self, file: &FileRecord, before: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        let Some(place) = self.place(&file.path, None).map_err(io::Error::other)? else { return Ok(()) };
        let now = match place.find(REPLACE_LIMIT)? {
            Found::File(image, _) => Some(State::of(&image)),
            Found::Nothing => None,
            Found::Other => return Ok(()),
        };
        if now == file.after && now != file.before {
            match file.before {
                None => place.remove(place.name())?,
                Some(state) => {
                    // Not under the commit's own temporary name: that may hold the only other copy until this is done.
                    let temp = format!("{}.back", file.temp);
                    place.remove(&temp)?;
                    place.stage(&temp, &Image { bytes: before()?, mode: state.mode })?;
                    if now.is_some() {
                        place.exchange(&temp)?
                    } else {
                        place.appear(&temp)?
                    }
                    place.remove(&temp)?;
                }
            }
        }
        place.remove(&file.temp)?;
        place.sync()
    }
}
