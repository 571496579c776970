//! The folder of pulled models: `FOLDER/NAME.gguf`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::catalog;

/// The extension of a complete file.
const EXTENSION: &str = "gguf";
/// The maximum length of a model's name, in bytes.
const MAX_NAME: usize = 200;

/// A model file that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// The model's name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The size of the file, in bytes.
    pub bytes: u64,
}

/// The folder of pulled models. A file with its final name is complete and has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Creates a store in this folder, which need not exist.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the file of a model, if the store has it. `name` may also be the Ollama tag of a
    /// model in the catalog.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let there = |name: &str| self.path(name).filter(|path| path.is_file());
        there(name).or_else(|| there(&catalog::find(name)?.name))
    }

    /// Lists the models, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Cached> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut models: Vec<Cached> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?.to_owned();
                let metadata = path.metadata().ok().filter(fs::Metadata::is_file)?;
                is_name(&name).then_some(Cached { name, path, bytes: metadata.len() })
            })
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Removes a model and the files of an unfinished pull. Returns whether any of them existed.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        let Some(path) = self.path(name) else { return Ok(false) };
        let mut removed = false;
        for path in [path.clone(), part(&path), state(&path), new_state(&path)] {
            match fs::remove_file(path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Returns the final path of a model, or `None` if its name is not valid as a file name.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        is_name(name).then(|| self.folder.join(format!("{name}.{EXTENSION}")))
    }
}

/// Returns the path of the file that contains the bytes of an unfinished pull.
pub(crate) fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

/// Returns the path of the file that identifies the bytes in [`part`].
pub(crate) fn state(path: &Path) -> PathBuf {
    path.with_extension("part.json")
}

/// Returns the path of the temporary file that replaces [`state`].
pub(crate) fn new_state(path: &Path) -> PathBuf {
    path.with_extension("part.json.new")
}

/// Returns whether a name is safe to use as a single path component.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_models_are_found_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        for name in ["b.gguf", "a-1.5b.gguf", "c.part", "c.part.json", ".hidden.gguf", "notes.txt"] {
            fs::write(folder.path().join(name), "xx").unwrap();
        }
        fs::create_dir(folder.path().join("folder.gguf")).unwrap();
        let names: Vec<_> = store.list().into_iter().map(|model| (model.name, model.bytes)).collect();
        assert_eq!(names, [("a-1.5b".into(), 2), ("b".into(), 2)]);
        assert_eq!(store.find("a-1.5b"), Some(folder.path().join("a-1.5b.gguf")));
        assert_eq!(store.find("c"), None, "an unfinished pull should not count as a model");
        assert_eq!(store.find("folder"), None);
        assert!(store.remove("c").unwrap() && store.remove("b").unwrap() && !store.remove("b").unwrap());
        assert!(!folder.path().join("c.part").exists());
        assert_eq!(Store::new(folder.path().join("missing")).list(), []);
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        fs::write(folder.path().join("x.gguf"), "xx").unwrap();
        let store = Store::new(folder.path().join("models"));
        for name in ["../x", "", ".", "..", "a/b", "/etc/passwd", "a\0b", "a b"] {
            assert_eq!(store.find(name), None, "{name:?}");
            assert!(!store.remove(name).unwrap(), "{name:?}");
        }
        assert!(folder.path().join("x.gguf").exists());
    }
}
