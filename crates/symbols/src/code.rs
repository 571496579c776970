//! The index of a workspace.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use workspace::{CleanPath, WalkFilter, Workspace};

use crate::{Cache, Index, Limits, Listed, Map, Stamp, names_a_file};

/// The maximum number of files to list, across all languages.
const MAX_LISTED: usize = 200_000;
/// The maximum size of a file to read, in bytes. The index does not parse files this large.
const MAX_READ: u64 = 1 << 20;

/// The index of a workspace, which is loaded on first use and updated before each use.
#[derive(Debug)]
pub struct Code {
    workspace: Workspace,
    cache: Option<Cache>,
    index: Mutex<Option<Index>>,
}

impl Code {
    /// Creates the index of a workspace, without reading anything yet. Without a cache, each
    /// process builds the index from scratch.
    #[must_use]
    pub fn new(workspace: Workspace, cache: Option<Cache>) -> Self {
        Self { workspace, cache, index: Mutex::default() }
    }

    /// Updates the index and passes it to `work`. May block for a long time, because the first use
    /// in a repository parses every file. If `stop` becomes true, the index stays incomplete.
    pub fn with<T>(&self, stop: &AtomicBool, work: impl FnOnce(&Index) -> T) -> T {
        self.update(&self.list(), stop, work)
    }

    /// Makes a map for a task (see [`Map::new`]). Returns `None` if the task mentions a file.
    pub fn map(
        &self,
        task: &str,
        max_bytes: usize,
        stop: &AtomicBool,
        shown: impl Fn(&str) -> Option<String>,
    ) -> Option<Map> {
        let files = self.list();
        if names_a_file(task, files.iter().map(|file| file.path.as_str())) {
            return None;
        }
        self.update(&files, stop, |index| Map::new(index, task, max_bytes, |path| self.read(path), shown))
    }

    fn update<T>(&self, files: &[Listed], stop: &AtomicBool, work: impl FnOnce(&Index) -> T) -> T {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index.get_or_insert_with(|| self.cache.as_ref().map(Cache::load).unwrap_or_default());
        index.update(files, &|path| self.read(path), &Limits::default(), stop);
        if let Some(cache) = &self.cache {
            // If this fails, the next process just parses the files again.
            let _ = cache.store(index);
        }
        work(index)
    }

    fn list(&self) -> Vec<Listed> {
        let filter = WalkFilter { limit: MAX_LISTED, ..WalkFilter::default() };
        let entries = self.workspace.walk(&filter).entries.into_iter();
        let listed = entries.map(|entry| Listed {
            path: entry.path.to_string(),
            size: entry.size,
            stamp: Stamp { modified_ns: entry.modified_ns, inode: entry.inode },
        });
        listed.collect()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = CleanPath::try_from(path.to_owned()).ok()?;
        self.workspace.read_bytes(&path, MAX_READ).ok()
    }
}
