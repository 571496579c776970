//! Undoes changes, and applies changes made in another tree.

use std::collections::BTreeSet;

use crate::{
    By, CleanPath, Commit, CommitError, FileImage, NetChange, Workspace, git,
    root::lock,
    transaction::{CommitInfo, Step},
};

/// The maximum size of a file to merge, in bytes. The time that merging takes is quadratic in the
/// number of differences.
const MERGE_LIMIT: usize = 4 << 20;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// Every file that conflicts.
    #[error("{}", .0.iter().map(|c| format!("{}: {}", c.path, c.why)).collect::<Vec<_>>().join("\n"))]
    Conflicts(Vec<Conflict>),
    /// The files could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A file that is not in the expected state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The file.
    pub path: CleanPath,
    /// The reason, to be shown after "path: ".
    pub why: String,
}

/// The result of applying changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// The commit. It has no files if there was nothing to do.
    pub commit: Commit,
    /// Files that also had other changes and were merged.
    pub merged: Vec<CleanPath>,
    /// Files that already had the change.
    pub already: Vec<CleanPath>,
}

/// A change in one direction: forward, or backward to undo it.
struct Delta<'a> {
    path: &'a CleanPath,
    from: Option<&'a FileImage>,
    to: Option<&'a FileImage>,
    conflicting: bool,
}

fn backward(changes: &[NetChange]) -> impl Iterator<Item = Delta<'_>> {
    changes.iter().map(|c| Delta {
        path: &c.path,
        from: c.after.as_ref(),
        to: c.before.as_ref(),
        conflicting: c.foreign,
    })
}

fn forward(changes: &[NetChange]) -> impl Iterator<Item = Delta<'_>> {
    changes.iter().map(|c| Delta {
        path: &c.path,
        from: c.before.as_ref(),
        to: c.after.as_ref(),
        conflicting: false,
    })
}

/// The steps for all files, plus the files that are merged or already have the change.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    merged: Vec<CleanPath>,
    already: Vec<CleanPath>,
}

impl Plan {
    fn preview(self) -> Vec<NetChange> {
        let change = |Step { path, before, after, .. }| NetChange { path, before, after, foreign: false };
        self.steps.into_iter().map(change).collect()
    }
}

/// What to do with one file.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Already,
    Becomes(Option<FileImage>),
    Merged(FileImage),
}

impl Workspace {
    /// Undoes all of these changes or none of them. Each file must be in its `after` state and is
    /// returned to its `before` state. Skips files that are already in the `before` state. If all
    /// of them are, the commit has no files and no number. Removes folders that the agent created
    /// if they become empty. Permissions may differ from the `after` state, unless the changes also
    /// set them.
    ///
    /// # Errors
    /// If a file is in neither of the two states, or someone else changed it between two of the
    /// agent's changes. The error lists all such files. A file that has become a folder, or vice
    /// versa, is also a conflict.
    pub fn put_back(&self, changes: &[NetChange]) -> Result<Commit, BringError> {
        Ok(self.apply(backward(changes), false, By::Undo)?.commit)
    }

    /// Same as [`Workspace::put_back`], but recorded as the agent's own work ([`By::Revert`]), so
    /// the agent's net changes no longer include `changes`.
    ///
    /// # Errors
    /// Same as [`Workspace::put_back`].
    pub fn revert(&self, changes: &[NetChange]) -> Result<Commit, BringError> {
        Ok(self.apply(backward(changes), false, By::Revert)?.commit)
    }

    /// Applies all of these changes or none of them. Each file must be in its `before` state and is
    /// brought to its `after` state. Skips files that are already in the `after` state. With
    /// `merge`, does a three-way merge of text files that have other changes.
    ///
    /// # Errors
    /// If files have other changes that are not merged, either because `merge` is false or because
    /// they cannot be merged, such as changes to the same lines. The error lists all such files.
    pub fn bring(&self, changes: &[NetChange], merge: bool) -> Result<Brought, BringError> {
        self.apply(forward(changes), merge, By::Apply)
    }

    /// Returns what [`Workspace::put_back`] would write: the current and the new state of each
    /// file. Changes nothing.
    ///
    /// # Errors
    /// Same as [`Workspace::put_back`].
    pub fn would_put_back(&self, changes: &[NetChange]) -> Result<Vec<NetChange>, BringError> {
        Ok(self.plan(backward(changes), false)?.preview())
    }

    /// Returns what [`Workspace::bring`] would write: the current and the new state of each file.
    /// Changes nothing.
    ///
    /// # Errors
    /// Same as [`Workspace::bring`].
    pub fn would_bring(&self, changes: &[NetChange], merge: bool) -> Result<Vec<NetChange>, BringError> {
        Ok(self.plan(forward(changes), merge)?.preview())
    }

    fn apply<'a>(
        &self,
        deltas: impl Iterator<Item = Delta<'a>>,
        merge: bool,
        by: By,
    ) -> Result<Brought, BringError> {
        let _writing = lock(&self.0.writing);
        let Plan { steps, merged, already } = self.plan(deltas, merge)?;
        let commit = if steps.is_empty() {
            Commit { id: None, files: Vec::new() }
        } else {
            let unmade = if by == By::Apply { Vec::new() } else { self.shrunk_folders(&steps)? };
            self.execute(steps, CommitInfo { by, unmade })?
        };
        Ok(Brought { commit, merged, already })
    }

    /// Decides what to do with each file.
    fn plan<'a>(&self, deltas: impl Iterator<Item = Delta<'a>>, merge: bool) -> Result<Plan, BringError> {
        let (mut plan, mut conflicts) = (Plan::default(), Vec::new());
        for delta in deltas {
            let path = delta.path.clone();
            let step = match self.step(&path) {
                Ok(step) => step,
                Err(CommitError::NotAFile(_)) => {
                    conflicts.push(Conflict { path, why: "it is no longer a file".into() });
                    continue;
                }
                Err(CommitError::Path(e)) => {
                    conflicts.push(Conflict { path, why: e.to_string() });
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            match outcome(step.before.as_ref(), &delta, merge) {
                Ok(Outcome::Already) => plan.already.push(path),
                Ok(Outcome::Becomes(after)) => plan.steps.push(Step { after, ..step }),
                Ok(Outcome::Merged(after)) => {
                    plan.merged.push(path);
                    plan.steps.push(Step { after: Some(after), ..step });
                }
                Err(why) => conflicts.push(Conflict { path, why: why.into() }),
            }
        }
        if conflicts.is_empty() { Ok(plan) } else { Err(BringError::Conflicts(conflicts)) }
    }

    /// Returns the folders that the agent created and that these steps remove files from, outermost
    /// first.
    fn shrunk_folders(&self, steps: &[Step]) -> Result<Vec<CleanPath>, BringError> {
        let Some(store) = &self.0.store else { return Ok(Vec::new()) };
        let root = || CleanPath::new(String::new());
        let records = store.records().map_err(|source| CommitError::System { path: root(), source })?;
        let mut made = BTreeSet::new();
        for (_, record) in records.into_iter().filter(|(_, r)| r.tree == self.0.root) {
            record.unmade.iter().for_each(|folder| {
                made.remove(folder);
            });
            made.extend(record.made);
        }
        let gone: Vec<&CleanPath> = steps.iter().filter(|s| s.after.is_none()).map(|s| &s.path).collect();
        made.retain(|folder| gone.iter().any(|path| path.as_ref().starts_with(folder)));
        Ok(made.into_iter().collect())
    }
}

/// Decides what to do with a file whose current state is `now`.
fn outcome(now: Option<&FileImage>, delta: &Delta<'_>, merge: bool) -> Result<Outcome, &'static str> {
    let same = |a: &FileImage, b: &FileImage| (a.link, &a.bytes) == (b.link, &b.bytes);
    let becomes = |image: FileImage| match now {
        Some(now) if *now == image => Outcome::Already,
        _ => Outcome::Becomes(Some(image)),
    };
    let outcome = match (now, delta.from, delta.to) {
        (None, _, None) => Outcome::Already,
        (None, None, Some(to)) => Outcome::Becomes(Some(to.clone())),
        (None, Some(_), Some(_)) => return Err("it has been removed since"),
        (Some(now), Some(from), None) if now == from => Outcome::Becomes(None),
        (Some(now), Some(from), Some(to)) if same(now, from) || same(now, to) => {
            becomes(FileImage { mode: merge_modes(from.mode, now.mode, to.mode)?, ..to.clone() })
        }
        (Some(now), None, Some(to)) if now == to => Outcome::Already,
        (Some(_), None, _) => return Err("someone else created this file"),
        (Some(now), Some(from), Some(to)) if merge => Outcome::Merged(merge_images(from, now, to)?),
        (Some(_), Some(_), _) => return Err("it has changed since"),
    };
    match outcome {
        Outcome::Already => Ok(outcome),
        _ if delta.conflicting => Err("someone else changed it between two of the agent's changes"),
        _ => Ok(outcome),
    }
}

fn merge_images(base: &FileImage, now: &FileImage, to: &FileImage) -> Result<FileImage, &'static str> {
    let all = [base, now, to];
    if all.iter().any(|i| i.link || i.bytes.contains(&0)) {
        return Err("it has changed since, and only text can be merged");
    }
    if all.iter().any(|i| i.bytes.len() > MERGE_LIMIT) {
        return Err("it has changed since, and is too large to merge");
    }
    let bytes = match git::merge(&base.bytes, &now.bytes, &to.bytes) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err("the same lines have changed since"),
        Err(_) => return Err("it has changed since, and git failed to merge it"),
    };
    Ok(FileImage { bytes, mode: merge_modes(base.mode, now.mode, to.mode)?, link: false })
}

/// Merges permission bits three ways.
fn merge_modes(base: u32, now: u32, to: u32) -> Result<u32, &'static str> {
    match () {
        () if to == base || to == now => Ok(now),
        () if now == base => Ok(to),
        () => Err("its permissions have changed since"),
    }
}
