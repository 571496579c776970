//! Makes the agent's edits. Each edit is a commit, which applies either all of its changes or none
//! of them.
//!
//! Every change is checked here, and then executed by `transaction.rs`. Permissions and hard links
//! (`links.rs`) are preserved.

use std::io;

use crate::{
    CleanPath, Digest, FileImage, PathError, Workspace,
    root::lock,
    transaction::{CommitInfo, Step},
};

/// The state that a file must be in before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The file may be in any state.
    Any,
    /// The file does not exist.
    Absent,
    /// The file has exactly this content.
    Content(Digest),
}

/// One change. Its paths come from [`Workspace::target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates a file or replaces its content.
    Write {
        /// The file.
        path: CleanPath,
        /// The new content.
        bytes: Vec<u8>,
        /// Sets or clears the executable bits. `None` leaves them unchanged.
        executable: Option<bool>,
        /// The expected state.
        expect: Expect,
    },
    /// Removes a file.
    Delete {
        /// The file.
        path: CleanPath,
        /// The expected state.
        expect: Expect,
    },
    /// Renames a file, and replaces its content if `bytes` is given. The new path must not exist.
    Rename {
        /// The old path.
        from: CleanPath,
        /// The new path.
        to: CleanPath,
        /// The new content.
        bytes: Option<Vec<u8>>,
        /// Sets or clears the executable bits. `None` leaves them unchanged.
        executable: Option<bool>,
        /// The expected state of the old path.
        expect: Expect,
    },
}

/// A commit that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number in the state folder, or `None` without a state folder.
    pub id: Option<u64>,
    /// The files, in the order of the changes. A rename is listed as a removal and a creation.
    pub files: Vec<Committed>,
}

/// The change to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The file.
    pub path: CleanPath,
    /// The old content, or `None` if the file was created.
    pub before: Option<Digest>,
    /// The new content, or `None` if the file was removed.
    pub after: Option<Digest>,
}

/// Why a commit failed. Nothing was changed, except after [`CommitError::Torn`].
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The path must not be written to.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file does not have the expected content.
    #[error("{0} has changed since it was read; read it again")]
    Changed(CleanPath),
    /// The file must not exist, but does.
    #[error("{0} already exists")]
    Exists(CleanPath),
    /// The file must exist, but does not.
    #[error("{0} does not exist")]
    Missing(CleanPath),
    /// The path is a folder, a link or a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(CleanPath),
    /// The file's permissions forbid writing.
    #[error("{0} is read-only")]
    ReadOnly(CleanPath),
    /// Two changes in the commit affect the same file.
    #[error("{0} is changed twice in one call; make it one change")]
    Twice(CleanPath),
    /// A system call failed. Files that were already changed have been rolled back.
    #[error("{path}: {source}; nothing was changed")]
    System {
        /// The file.
        path: CleanPath,
        /// The system's error.
        source: io::Error,
    },
    /// A system call failed, and so did the rollback. The state folder holds the previous contents.
    #[error("{why}, and {left} could not be rolled back; reopening the workspace rolls it back")]
    Torn {
        /// The first failure.
        why: String,
        /// A file that was changed and not rolled back.
        left: CleanPath,
    },
}

impl CommitError {
    /// Whether a system call failed. If not, the change itself was invalid.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System { .. } | Self::Torn { .. })
    }
}

impl Workspace {
    /// Makes all of these changes or none of them. If a changed file has other hard links inside
    /// the root, they also get the new content and are reported. Hard links outside the root or in
    /// `.git` keep the old content.
    ///
    /// # Errors
    /// If any of the changes cannot be made. In that case, nothing was changed, except after
    /// [`CommitError::Torn`].
    pub fn commit(&self, changes: Vec<Change>) -> Result<Commit, CommitError> {
        let _writing = lock(&self.0.writing);
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        for change in changes {
            for step in self.steps(change)? {
                if steps.iter().any(|s| s.path == step.path) {
                    return Err(CommitError::Twice(step.path));
                }
                steps.push(step);
            }
        }
        self.execute(steps, CommitInfo::default())
    }

    /// Returns the numbers of the commits, in ascending order.
    ///
    /// # Errors
    /// If the state folder cannot be read.
    pub fn commits(&self) -> io::Result<Vec<u64>> {
        let Some(store) = &self.0.store else { return Ok(Vec::new()) };
        Ok(store.ids()?.into_iter().filter(|id| store.is_done(*id)).collect())
    }

    fn steps(&self, change: Change) -> Result<Vec<Step>, CommitError> {
        Ok(match change {
            Change::Write { path, bytes, executable, expect } => {
                let mut step = self.editable(&path)?;
                step.meets(expect)?;
                let mode = step.before.as_ref().map_or(0o644, |b| b.mode);
                step.after = Some(FileImage {
                    bytes,
                    mode: executable.map_or(mode, |x| executable_mode(mode, x)),
                    link: false,
                });
                vec![step]
            }
            Change::Delete { path, expect } => {
                let step = self.editable(&path)?;
                step.meets(expect)?;
                match step.before {
                    Some(_) => vec![step],
                    None => return Err(CommitError::Missing(path)),
                }
            }
            Change::Rename { from, to, bytes, executable, expect } => {
                let gone = self.editable(&from)?;
                gone.meets(expect)?;
                let mut new = self.editable(&to)?;
                new.meets(Expect::Absent)?;
                let Some(image) = &gone.before else { return Err(CommitError::Missing(from)) };
                new.after = Some(FileImage {
                    bytes: bytes.unwrap_or_else(|| image.bytes.clone()),
                    mode: executable.map_or(image.mode, |x| executable_mode(image.mode, x)),
                    link: false,
                });
                // The other hard links of the old file become hard links of the new one.
                new.links_of = gone.links_of;
                new.like = from;
                vec![gone, new]
            }
        })
    }

    /// Starts a step for a file. Fails if the file is a symbolic link or read-only, because edits
    /// must not change such files.
    fn editable(&self, path: &CleanPath) -> Result<Step, CommitError> {
        let step = self.step(path)?;
        match &step.before {
            Some(image) if image.link => Err(CommitError::NotAFile(path.clone())),
            Some(image) if image.mode & 0o200 == 0 => Err(CommitError::ReadOnly(path.clone())),
            _ => Ok(step),
        }
    }
}

impl Step {
    fn meets(&self, expect: Expect) -> Result<(), CommitError> {
        match (expect, &self.before) {
            (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
            (Expect::Absent, Some(_)) => Err(CommitError::Exists(self.path.clone())),
            (Expect::Content(digest), Some(image)) if image.digest() == digest => Ok(()),
            (Expect::Content(_), Some(_)) => Err(CommitError::Changed(self.path.clone())),
            (Expect::Content(_), None) => Err(CommitError::Missing(self.path.clone())),
        }
    }
}

fn executable_mode(mode: u32, executable: bool) -> u32 {
    // As with git's mode 755, anyone who may read an executable file may also execute it.
    if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}
