//! Filling a folder: files made where none are, and files put as they are to be. For trees that stand in for others; what is asked for may come from
//! anybody, and stays inside the folder whatever it says.

use std::{fs::File, io};

use rustix::fs::{Mode, OFlags};

use crate::{
    By, CleanPath, CommitError, FileImage, PathError, Workspace,
    path::is_git,
    root::lock,
    transaction::{About, Step},
};

/// What is planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// A file with its content, or a symbolic link.
    Image(FileImage),
    /// A file of this size that takes no room: zeros, which no text holds.
    Size(u64),
}

impl Workspace {
    /// Makes a file, and the folders it is in. Not durable.
    ///
    /// # Errors
    /// When something stands there, or a link or a file where one of the folders would be.
    pub fn plant(&self, path: &CleanPath, seed: &Seed) -> Result<(), PathError> {
        let error = |e: io::Error| PathError::System { path: path.to_string(), why: e.to_string() };
        let place = self.place(path, Some(&mut Vec::new()))?;
        let place = place.ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        match seed {
            Seed::Image(image) => place.stage(place.name(), image, None, false).map_err(error),
            Seed::Size(size) => place.make_empty(*size).map_err(error),
        }
    }

    /// Makes files be as they are given here, whatever they are now: all of them or none. `None` is: not there.
    ///
    /// # Errors
    /// As [`Workspace::commit`].
    pub fn put(&self, files: &[(CleanPath, Option<FileImage>)]) -> Result<(), CommitError> {
        let _writing = lock(&self.0.writing);
        let mut steps = Vec::new();
        for (path, after) in files {
            let step = self.look(path)?;
            if step.before != *after {
                steps.push(Step { after: after.clone(), ..step });
            }
        }
        if !steps.is_empty() {
            self.carry_out(steps, About { by: By::Apply, ..About::default() })?;
        }
        Ok(())
    }

    /// A file or link as it is now; `None` when there is none, or something else.
    #[must_use]
    pub fn image(&self, path: &CleanPath) -> Option<FileImage> {
        self.look(path).ok()?.before
    }
}

impl CleanPath {
    /// Whether this could be git's, on some system that a repository travels to.
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
