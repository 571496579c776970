//! Reconstructs the tree that a session started with, based on its state folder and the current
//! tree. Changes neither of them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Baseline, CleanPath, FileImage, History, Workspace};

/// A session's tree as it was when the session started.
#[derive(Debug)]
pub struct Remembered {
    now: Workspace,
    /// The original state of each file that has changed since the start.
    then: BTreeMap<CleanPath, Option<FileImage>>,
    /// Files that someone else has changed and whose original content is unknown.
    lost: Vec<CleanPath>,
}

impl Remembered {
    /// Compares the tree under `root` with the state folder. Git writes to the `scratch` folder,
    /// which must not be used for anything else.
    ///
    /// # Errors
    /// If the tree or the state folder cannot be read, or `scratch` cannot be written.
    pub fn open(root: &Path, state_dir: &Path, scratch: &Path) -> io::Result<Self> {
        let now = Workspace::open(root).map_err(io::Error::other)?;
        let (mut then, mut lost) = (BTreeMap::new(), Vec::new());
        for change in History::open(state_dir)?.net(..)? {
            then.insert(change.path, change.before);
        }
        if state_dir.join("baseline/remembered").is_file() {
            copy_folder(&state_dir.join("baseline"), &scratch.join("baseline"))?;
            let baseline = Baseline::open(root, scratch).map_err(io::Error::other)?;
            let changed = baseline.changed().map_err(io::Error::other)?;
            for path in changed.into_iter().filter_map(|path| CleanPath::try_from(path).ok()) {
                if then.contains_key(&path) {
                    continue;
                }
                match baseline.file(&path) {
                    // A nested repository can be listed as changed, but is neither a file nor a
                    // link.
                    Ok(None) if now.root().join(&path).is_dir() => {}
                    Ok(image) => drop(then.insert(path, image)),
                    Err(_) => lost.push(path),
                }
            }
        }
        Ok(Self { now, then, lost })
    }

    /// Returns the current tree.
    #[must_use]
    pub fn now(&self) -> &Workspace {
        &self.now
    }

    /// Returns the original state of each file that has changed since the start, or `None` if the
    /// file did not exist.
    #[must_use]
    pub fn then(&self) -> &BTreeMap<CleanPath, Option<FileImage>> {
        &self.then
    }

    /// Returns the files that others have changed since the start and whose original content is
    /// unknown.
    #[must_use]
    pub fn lost(&self) -> &[CleanPath] {
        &self.lost
    }

    /// Returns the state of a file at the start.
    #[must_use]
    pub fn image(&self, path: &CleanPath) -> Option<FileImage> {
        self.then.get(path).cloned().unwrap_or_else(|| self.now.image(path))
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let mut todo: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = todo.pop() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                todo.push((entry.path(), to));
            } else if entry.file_name() == "index" {
                crate::git::copy_index(&entry.path(), &to)?;
            } else {
                fs::copy(entry.path(), &to)?;
            }
        }
    }
    Ok(())
}
