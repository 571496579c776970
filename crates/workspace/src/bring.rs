//! From one side of a change to the other: undo, and applying what was done in another tree.

use std::collections::BTreeSet;

use crate::{
    By, CleanPath, Commit, CommitError, FileImage, NetChange, Workspace, git,
    root::lock,
    transaction::{About, Step},
};

/// Largest file that is merged, in bytes: the time it takes grows with the square of what differs.
const MERGE_LIMIT: usize = 4 << 20;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// Files that are not as they have to be: all of them.
    #[error("{}", .0.iter().map(|c| format!("{}: {}", c.path, c.why)).collect::<Vec<_>>().join("\n"))]
    Conflicts(Vec<Conflict>),
    /// It could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A file that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub path: CleanPath,
    /// In what way; follows "path: ".
    pub why: String,
}

/// Changes that were brought to a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// What was written. No files when there was nothing to do.
    pub commit: Commit,
    /// Files that had been changed meanwhile and hold both changes now.
    pub merged: Vec<CleanPath>,
    /// Files that were so already.
    pub already: Vec<CleanPath>,
}

/// A change in one of its two directions.
struct Way<'a> {
    path: &'a CleanPath,
    from: Option<&'a FileImage>,
    to: Option<&'a FileImage>,
    barred: bool,
}

fn undoing(changes: &[NetChange]) -> impl Iterator<Item = Way<'_>> {
    changes.iter().map(|c| Way {
        path: &c.path,
        from: c.after.as_ref(),
        to: c.before.as_ref(),
        barred: c.foreign,
    })
}

fn applying(changes: &[NetChange]) -> impl Iterator<Item = Way<'_>> {
    changes.iter().map(|c| Way {
        path: &c.path,
        from: c.before.as_ref(),
        to: c.after.as_ref(),
        barred: false,
    })
}

/// What is to be done to all files.
#[derive(Default)]
struct Found {
    steps: Vec<Step>,
    merged: Vec<CleanPath>,
    already: Vec<CleanPath>,
}

impl Found {
    fn foreseen(self) -> Vec<NetChange> {
        let change = |Step { path, before, after, .. }| NetChange { path, before, after, foreign: false };
        self.steps.into_iter().map(change).collect()
    }
}

/// What is to be done to a file.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Already,
    Becomes(Option<FileImage>),
    Merged(FileImage),
}

impl Workspace {
    /// Undo: the files must be as `after` and become as `before`, all of them or none. Files that are as `before` already are passed
    /// over; when all are, the commit has no files and no number. Folders that the agent made go when this empties them. Permissions that
    /// the changes leave alone may have been changed since. A file that became a folder, or the other way round, is a conflict.
    ///
    /// # Errors
    /// When files have been changed since, or between two of the agent's changes: all of these are named.
    pub fn put_back(&self, changes: &[NetChange]) -> Result<Commit, BringError> {
        Ok(self.go(undoing(changes), false, By::Undo)?.commit)
    }

    /// Apply: the files must be as `before` and become as `after`, all of them or none. Files that are as `after` already are passed
    /// over. With `merge`, text that was changed meanwhile is merged three ways.
    ///
    /// # Errors
    /// When files have been changed meanwhile, or, merging, where the same lines were: all of these are named.
    pub fn bring(&self, changes: &[NetChange], merge: bool) -> Result<Brought, BringError> {
        self.go(applying(changes), merge, By::Apply)
    }

    /// What [`Workspace::put_back`] would write, with each file as it is now and as it would become. Nothing is changed.
    ///
    /// # Errors
    /// As [`Workspace::put_back`].
    pub fn would_put_back(&self, changes: &[NetChange]) -> Result<Vec<NetChange>, BringError> {
        Ok(self.find(undoing(changes), false)?.foreseen())
    }

    /// What [`Workspace::bring`] would write, with each file as it is now and as it would become. Nothing is changed.
    ///
    /// # Errors
    /// As [`Workspace::bring`].
    pub fn would_bring(&self, changes: &[NetChange], merge: bool) -> Result<Vec<NetChange>, BringError> {
        Ok(self.find(applying(changes), merge)?.foreseen())
    }

    fn go<'a>(
        &self,
        ways: impl Iterator<Item = Way<'a>>,
        merge: bool,
        by: By,
    ) -> Result<Brought, BringError> {
        let _writing = lock(&self.0.writing);
        let Found { steps, merged, already } = self.find(ways, merge)?;
        let commit = if steps.is_empty() {
            Commit { id: None, files: Vec::new() }
        } else {
            let unmade = if by == By::Undo { self.emptied(&steps)? } else { Vec::new() };
            self.carry_out(steps, About { by, unmade })?
        };
        Ok(Brought { commit, merged, already })
    }

    /// Decides what becomes of every file.
    fn find<'a>(&self, ways: impl Iterator<Item = Way<'a>>, merge: bool) -> Result<Found, BringError> {
        let (mut found, mut conflicts) = (Found::default(), Vec::new());
        for way in ways {
            let path = way.path.clone();
            let step = match self.look(&path) {
                Ok(step) => step,
                Err(CommitError::NotAFile(_)) => {
                    conflicts
                        .push(Conflict { path, why: "something that is not a file stands there now".into() });
                    continue;
                }
                Err(CommitError::Path(e)) => {
                    conflicts.push(Conflict { path, why: e.to_string() });
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            match fit(step.before.as_ref(), &way, merge) {
                Ok(Fit::Already) => found.already.push(path),
                Ok(Fit::Becomes(after)) => found.steps.push(Step { after, ..step }),
                Ok(Fit::Merged(after)) => {
                    found.merged.push(path);
                    found.steps.push(Step { after: Some(after), ..step });
                }
                Err(why) => conflicts.push(Conflict { path, why: why.into() }),
            }
        }
        if conflicts.is_empty() { Ok(found) } else { Err(BringError::Conflicts(conflicts)) }
    }

    /// The folders that the agent made and that lose a file by these steps, outermost first.
    fn emptied(&self, steps: &[Step]) -> Result<Vec<CleanPath>, BringError> {
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

/// Decides what becomes of a file that is `now` there.
fn fit(now: Option<&FileImage>, way: &Way<'_>, merge: bool) -> Result<Fit, &'static str> {
    let same = |a: &FileImage, b: &FileImage| (a.link, &a.bytes) == (b.link, &b.bytes);
    let becomes = |image: FileImage| match now {
        Some(now) if *now == image => Fit::Already,
        _ => Fit::Becomes(Some(image)),
    };
    let fit = match (now, way.from, way.to) {
        (None, _, None) => Fit::Already,
        (None, None, Some(to)) => Fit::Becomes(Some(to.clone())),
        (None, Some(_), Some(_)) => return Err("it has been removed since"),
        (Some(now), Some(from), None) if now == from => Fit::Becomes(None),
        (Some(now), Some(from), Some(to)) if same(now, from) || same(now, to) => {
            becomes(FileImage { mode: mode(from.mode, now.mode, to.mode)?, ..to.clone() })
        }
        (Some(now), None, Some(to)) if now == to => Fit::Already,
        (Some(_), None, _) => return Err("somebody else has made a file of this name"),
        (Some(now), Some(from), Some(to)) if merge => Fit::Merged(merged(from, now, to)?),
        (Some(_), Some(_), _) => return Err("it has been changed since"),
    };
    match fit {
        Fit::Already => Ok(fit),
        _ if way.barred => Err("somebody else changed it between two of the agent's changes"),
        _ => Ok(fit),
    }
}

fn merged(base: &FileImage, now: &FileImage, to: &FileImage) -> Result<FileImage, &'static str> {
    let all = [base, now, to];
    if all.iter().any(|i| i.link || i.bytes.contains(&0)) {
        return Err("it has been changed since, and it is no text that could be merged");
    }
    if all.iter().any(|i| i.bytes.len() > MERGE_LIMIT) {
        return Err("it has been changed since, and it is too large to be merged");
    }
    let bytes = match git::merge(&base.bytes, &now.bytes, &to.bytes) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err("the same lines have been changed since"),
        Err(_) => return Err("it has been changed since, and git, which would merge it, cannot"),
    };
    Ok(FileImage { bytes, mode: mode(base.mode, now.mode, to.mode)?, link: false })
}

/// Permissions, merged three ways.
fn mode(base: u32, now: u32, to: u32) -> Result<u32, &'static str> {
    match () {
        () if to == base || to == now => Ok(now),
        () if now == base => Ok(to),
        () => Err("its permissions have been changed since"),
    }
}
