//! The index on disk.
//!
//! The index is divided into parts by a hash of the path, so that an edit to one file rewrites only
//! one small part. Each part is a separate file that is replaced atomically. It starts with a
//! digest of the rest of the file. A part that is damaged or has a different version is ignored,
//! and its files are parsed again.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Index;
use crate::index::File;

/// The number of parts.
const PARTS: usize = 32;
/// The format version. It changes when parts, grammars or queries change.
const VERSION: u32 = 1;
/// The maximum size of a part to read, in bytes.
const MAX_PART: u64 = 64 << 20;
/// The maximum number of repositories to keep indexes for.
const MAX_REPOSITORIES: usize = 32;
/// The length of the digest at the start of a part, in bytes.
const DIGEST: usize = 32;

/// The stored index of one repository.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

#[derive(Serialize, Deserialize)]
struct Part {
    version: u32,
    /// The names in this part. The numbers in `files` are indices into this list.
    names: Vec<String>,
    files: Vec<(String, File)>,
}

/// Returns the number of the part that holds a file.
pub(crate) fn part_of(path: &str) -> usize {
    // FNV-1a gives the same result in every process.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    (path.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step) % PARTS as u64) as usize
}

impl Cache {
    /// Returns the cache of the repository with this root. `folder` holds the caches of all
    /// repositories.
    #[must_use]
    pub fn new(folder: &Path, root: &Path) -> Self {
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self(folder.join(name))
    }

    fn part(&self, number: usize) -> PathBuf {
        self.0.join(format!("{number:02}"))
    }

    /// Loads the index. Parts that are missing or damaged are left out.
    #[must_use]
    pub fn load(&self) -> Index {
        let mut index = Index::default();
        let parts = Mutex::new(Vec::new());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(PARTS);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let parts = &parts;
                scope.spawn(move || {
                    for number in (thread..PARTS).step_by(threads) {
                        let part = read(&self.part(number));
                        parts.lock().unwrap_or_else(PoisonError::into_inner).push((number, part));
                    }
                });
            }
        });
        for (number, part) in parts.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let Some(part) = part else { continue };
            if index.add(number, part).is_none() {
                index.changed_parts.insert(number);
            }
        }
        index
    }

    /// Stores the parts that have changed since the index was loaded or last stored. If there are
    /// too many repositories, removes the least recently updated indexes. Returns the number of
    /// bytes written.
    ///
    /// # Errors
    /// If a part cannot be written. The index stays usable.
    pub fn store(&self, index: &mut Index) -> io::Result<u64> {
        if index.changed_parts.is_empty() {
            return Ok(0);
        }
        fs::create_dir_all(&self.0)?;
        let mut written = 0;
        for number in std::mem::take(&mut index.changed_parts) {
            let bytes = postcard::to_stdvec(&index.part(number)).map_err(io::Error::other)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&Sha256::digest(&bytes))?;
            file.write_all(&bytes)?;
            file.persist(self.part(number)).map_err(|e| e.error)?;
            written += (DIGEST + bytes.len()) as u64;
        }
        self.evict();
        Ok(written)
    }

    fn evict(&self) {
        let folders = self.0.parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten().flatten();
        let modified =
            |e: &fs::DirEntry| e.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut folders: Vec<_> = folders.map(|e| (modified(&e), e.path())).collect();
        folders.sort();
        let surplus = folders.len().saturating_sub(MAX_REPOSITORIES);
        for (_, folder) in folders.into_iter().filter(|(_, folder)| *folder != self.0).take(surplus) {
            // Another process may be removing the folder at the same time.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn read(path: &Path) -> Option<Part> {
    if fs::metadata(path).ok()?.len() > MAX_PART {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (digest, bytes) = bytes.split_at_checked(DIGEST)?;
    if Sha256::digest(bytes).as_slice() != digest {
        return None;
    }
    let part: Part = postcard::from_bytes(bytes).ok()?;
    (part.version == VERSION).then_some(part)
}

impl Index {
    /// Adds a part. Returns `None` and adds nothing if the part is inconsistent.
    fn add(&mut self, number: usize, part: Part) -> Option<()> {
        let names = part.names.len();
        let fits = |(path, file): &(String, File)| {
            part_of(path) == number
                && file.definitions.iter().all(|d| (d.name as usize) < names)
                && file.uses.iter().all(|(name, _)| (*name as usize) < names)
        };
        if !part.files.iter().all(fits) {
            return None;
        }
        let numbers: Vec<Option<u32>> = part.names.into_iter().map(|name| self.number(name)).collect();
        let number = |local: u32| numbers.get(local as usize).copied().flatten();
        for (path, mut file) in part.files {
            file.definitions.retain_mut(|d| number(d.name).map(|n| d.name = n).is_some());
            file.uses.retain_mut(|(name, _)| number(*name).map(|n| *name = n).is_some());
            self.files.insert(path, file);
        }
        Some(())
    }

    fn part(&self, number: usize) -> Part {
        let mut names: IndexSet<u32> = IndexSet::new();
        let mut files = Vec::new();
        for (path, file) in self.files.iter().filter(|(path, _)| part_of(path) == number) {
            let mut file = file.clone();
            for definition in &mut file.definitions {
                definition.name = names.insert_full(definition.name).0 as u32;
            }
            for (name, _) in &mut file.uses {
                *name = names.insert_full(*name).0 as u32;
            }
            files.push((path.clone(), file));
        }
        let name = |number: &u32| self.names.get_index(*number as usize).map_or("", AsRef::as_ref).to_owned();
        Part { version: VERSION, names: names.iter().map(name).collect(), files }
    }
}
