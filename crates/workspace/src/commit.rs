//! The one write path: every change of a call or none.
//!
//! Everything is verified here; `transaction.rs` then carries it out. Permissions survive, and so do hard links (`links.rs`).

use std::io;

use crate::{
    CleanPath, Digest, FileImage, PathError, Workspace,
    root::lock,
    transaction::{About, Step},
};

/// What a file has to be for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    Any,
    /// Not there.
    Absent,
    /// With exactly this content.
    Content(Digest),
}

/// One change. Paths come from [`Workspace::target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates a file or replaces its content.
    Write {
        /// Which file.
        path: CleanPath,
        /// Its content from now on.
        bytes: Vec<u8>,
        /// Sets or clears the executable bits; `None` keeps them.
        executable: Option<bool>,
        /// What it has to be before.
        expect: Expect,
    },
    /// Removes a file.
    Delete {
        /// Which file.
        path: CleanPath,
        /// What it has to be before.
        expect: Expect,
    },
    /// Gives a file another name, and other content when `bytes` is given. The new name must be free.
    Rename {
        /// Its name.
        from: CleanPath,
        /// Its name from now on.
        to: CleanPath,
        /// Its content from now on.
        bytes: Option<Vec<u8>>,
        /// Sets or clears the executable bits; `None` keeps them.
        executable: Option<bool>,
        /// What it has to be before.
        expect: Expect,
    },
}

/// A commit that took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number in the state folder; `None` without one.
    pub id: Option<u64>,
    /// The files, in the order of the changes; a rename is a removal and a creation.
    pub files: Vec<Committed>,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Which.
    pub path: CleanPath,
    /// Its content before; `None` when it was created.
    pub before: Option<Digest>,
    /// Its content now; `None` when it was removed.
    pub after: Option<Digest>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A path that may not be written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file is not what the change was made for.
    #[error("{0} has changed since it was read; read it again")]
    Changed(CleanPath),
    /// There is a file where none may be.
    #[error("{0} exists already")]
    Exists(CleanPath),
    /// There is no file where one has to be.
    #[error("{0} does not exist")]
    Missing(CleanPath),
    /// A folder, a link or a pipe stands there.
    #[error("{0} is not a regular file")]
    NotAFile(CleanPath),
    /// Its permissions forbid writing.
    #[error("{0} is read-only")]
    ReadOnly(CleanPath),
    /// Two changes to one file.
    #[error("{0} is changed twice in one call; make it one change")]
    Twice(CleanPath),
    /// The system failed; what had been written was put back.
    #[error("{path}: {source}; nothing was changed")]
    System {
        /// Which file.
        path: CleanPath,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed, and then failed again when the files were put back. The pre-images are in the state folder.
    #[error("{why}, and {left} could not be put back; opening the workspace again puts it back")]
    Torn {
        /// What failed first.
        why: String,
        /// What was left changed.
        left: CleanPath,
    },
}

impl CommitError {
    /// Whether it is our own side that failed, not the change that was asked for.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System { .. } | Self::Torn { .. })
    }
}

impl Workspace {
    /// Makes all these changes, or none. A file with several names (hard links) keeps those inside the root, which are told too: they
    /// are names of the new file. Names outside, and in `.git`, are left with the old one.
    ///
    /// # Errors
    /// When one of them cannot be made; then nothing has changed.
    pub fn commit(&self, changes: Vec<Change>) -> Result<Commit, CommitError> {
        let _writing = lock(&self.0.writing);
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        for change in changes {
            for step in self.plan(change)? {
                if steps.iter().any(|s| s.path == step.path) {
                    return Err(CommitError::Twice(step.path));
                }
                steps.push(step);
            }
        }
        self.carry_out(steps, About::default())
    }

    /// The numbers of the commits, ascending.
    ///
    /// # Errors
    /// When the state folder cannot be read.
    pub fn commits(&self) -> io::Result<Vec<u64>> {
        let Some(store) = &self.0.store else { return Ok(Vec::new()) };
        Ok(store.ids()?.into_iter().filter(|id| store.is_done(*id)).collect())
    }

    fn plan(&self, change: Change) -> Result<Vec<Step>, CommitError> {
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
                // It stays the file that its other names are names of.
                new.names_of = gone.names_of;
                new.like = from;
                vec![gone, new]
            }
        })
    }

    /// What is there, when it is a file that an edit may change.
    fn editable(&self, path: &CleanPath) -> Result<Step, CommitError> {
        let step = self.look(path)?;
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
    // Whoever may read it may run it, as git's 755 and 644 have it.
    if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}
