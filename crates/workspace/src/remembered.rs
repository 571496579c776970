//! The tree that a session began with, told from what the session's folder keeps and from the tree as it is now. Neither is changed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Baseline, CleanPath, FileImage, History, Workspace};

/// A session's tree at its beginning.
#[derive(Debug)]
pub struct Remembered {
    now: Workspace,
    /// Files that are not as they were then.
    then: BTreeMap<CleanPath, Option<FileImage>>,
    /// Those of them that somebody else has changed and that cannot be told any more.
    lost: Vec<CleanPath>,
}

impl Remembered {
    /// Compares the tree under `root` with what `state_dir` keeps of it. Git works in `scratch`, a folder for this alone.
    ///
    /// # Errors
    /// When the tree or the state folder cannot be read, or `scratch` not written.
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
                    // A repository in the repository is neither file nor link.
                    Ok(None) if now.root().join(&path).is_dir() => {}
                    Ok(image) => drop(then.insert(path, image)),
                    Err(_) => lost.push(path),
                }
            }
        }
        Ok(Self { now, then, lost })
    }

    /// The tree as it is now.
    #[must_use]
    pub fn now(&self) -> &Workspace {
        &self.now
    }

    /// Files that are not as they were, and how they were; `None` where they were not there.
    #[must_use]
    pub fn then(&self) -> &BTreeMap<CleanPath, Option<FileImage>> {
        &self.then
    }

    /// Files that others have changed since and whose former content is not kept anywhere.
    #[must_use]
    pub fn lost(&self) -> &[CleanPath] {
        &self.lost
    }

    /// A file as it was.
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
