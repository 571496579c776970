//! Fills the tree of a replica. The paths and contents may come from an untrusted source, but
//! nothing is written outside the replica.

use std::{fs::File, io};

use rustix::fs::{Mode, OFlags};

use crate::{
    By, CleanPath, CommitError, FileImage, PathError, Workspace,
    path::is_git,
    root::lock,
    transaction::{CommitInfo, Step},
};

/// What to create at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// A file with its content, or a symbolic link.
    Image(FileImage),
    /// A sparse file of this size: it takes no disk space and reads as zeros.
    Size(u64),
}

impl Workspace {
    /// Creates a file and its parent folders. Does not sync.
    ///
    /// # Errors
    /// If the path exists, or a parent is a link or a file.
    pub fn plant(&self, path: &CleanPath, seed: &Seed) -> Result<(), PathError> {
        let error = |e: io::Error| PathError::System { path: path.to_string(), why: e.to_string() };
        let place = self.place(path, Some(&mut Vec::new()))?;
        let place = place.ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        match seed {
            Seed::Image(image) => place.stage(place.name(), image, None, false).map_err(error),
            Seed::Size(size) => place.make_empty(*size).map_err(error),
        }
    }

    /// Puts all of these files into the given states, or changes none of them. Their current states
    /// do not matter. `None` removes a file.
    ///
    /// # Errors
    /// Same as [`Workspace::commit`].
    pub fn put(&self, files: &[(CleanPath, Option<FileImage>)]) -> Result<(), CommitError> {
        let _writing = lock(&self.0.writing);
        let mut steps = Vec::new();
        for (path, after) in files {
            let step = self.step(path)?;
            if step.before != *after {
                steps.push(Step { after: after.clone(), ..step });
            }
        }
        if !steps.is_empty() {
            self.execute(steps, CommitInfo { by: By::Apply, ..CommitInfo::default() })?;
        }
        Ok(())
    }

    /// Reads a file or link. Returns `None` if the path does not exist or is something else.
    #[must_use]
    pub fn image(&self, path: &CleanPath) -> Option<FileImage> {
        self.step(path).ok()?.before
    }
}

impl CleanPath {
    /// Whether a component of the path is `.git`, or may be treated as `.git` on another system.
    #[must_use]
    pub fn is_gits(&self) -> bool {
        self.as_str().split('/').any(is_git)
    }
}

impl crate::place::Place {
    fn make_empty(&self, size: u64) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(self.create(flags, Mode::from_raw_mode(0o644))?).set_len(size)
    }
}
