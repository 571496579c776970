//! The one write path: every change of a call or none.
//!
//! Everything is verified, then the pre-images are kept, then each new file is written in full beside the old one, and only then do
//! they change places, one rename each. A failure changes them back; a crash is found and taken back when the state folder is next opened.
//! Permissions survive. A file with several hard links gets an entry of its own: a write never reaches the other names,
//! which may be outside.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    CleanPath, Digest, PathError, Workspace,
    place::{Found, Image, Place, Stamp},
    root::lock,
    store::{FileRecord, REPLACE_LIMIT, Record, State},
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
    /// The commit does not exist, or there is no state folder.
    #[error("there is no commit {0} to undo")]
    NoSuchCommit(u64),
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

/// One file of a commit that is under way.
struct Step {
    path: CleanPath,
    before: Option<Image>,
    stamp: Option<Stamp>,
    after: Option<Image>,
    temp: String,
}

impl Workspace {
    /// Makes all these changes, or none.
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
        self.carry_out(&steps)
    }

    /// Puts back what a commit changed; itself a commit, which can be undone.
    ///
    /// # Errors
    /// When one of its files has changed since; then nothing is put back.
    pub fn undo(&self, id: u64) -> Result<Commit, CommitError> {
        let missing = || CommitError::NoSuchCommit(id);
        let store = self.0.store.as_ref().ok_or_else(missing)?;
        let record = store.record(id).ok().flatten().filter(|_| store.is_done(id)).ok_or_else(missing)?;
        let _writing = lock(&self.0.writing);
        let mut steps = Vec::new();
        for (i, file) in record.files.iter().enumerate() {
            let system = |source| CommitError::System { path: file.path.clone(), source };
            let mut step = self.look(&file.path)?;
            if step.before.as_ref().map(State::of) != file.after {
                return Err(CommitError::Changed(file.path.clone()));
            }
            step.after = match file.before {
                None => None,
                Some(state) => Some(Image { bytes: store.before(id, i).map_err(system)?, mode: state.mode }),
            };
            steps.push(step);
        }
        let done = self.carry_out(&steps)?;
        self.unmake(&record.made);
        Ok(done)
    }

    /// The numbers of the commits that can be undone, ascending.
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
                let mut step = self.look(&path)?;
                step.meets(expect)?;
                let mode = step.before.as_ref().map_or(0o644, |b| b.mode);
                step.after =
                    Some(Image { bytes, mode: executable.map_or(mode, |x| executable_mode(mode, x)) });
                vec![step]
            }
            Change::Delete { path, expect } => {
                let step = self.look(&path)?;
                step.meets(expect)?;
                match step.before {
                    Some(_) => vec![step],
                    None => return Err(CommitError::Missing(path)),
                }
            }
            Change::Rename { from, to, bytes, expect } => {
                let gone = self.look(&from)?;
                gone.meets(expect)?;
                let mut new = self.look(&to)?;
                new.meets(Expect::Absent)?;
                let Some(image) = &gone.before else { return Err(CommitError::Missing(from)) };
                new.after =
                    Some(Image { bytes: bytes.unwrap_or_else(|| image.bytes.clone()), mode: image.mode });
                vec![gone, new]
            }
        })
    }

    /// A step that starts from what is there and, as it stands, removes it.
    fn look(&self, path: &CleanPath) -> Result<Step, CommitError> {
        let system = |source| CommitError::System { path: path.clone(), source };
        let found = match self.place(path, None)? {
            Some(place) => place.find(REPLACE_LIMIT).map_err(system)?,
            None => Found::Nothing,
        };
        let (before, stamp) = match found {
            Found::Nothing => (None, None),
            Found::File(image, _) if image.mode & 0o200 == 0 => {
                return Err(CommitError::ReadOnly(path.clone()));
            }
            Found::File(image, stamp) => (Some(image), Some(stamp)),
            Found::Other => return Err(CommitError::NotAFile(path.clone())),
        };
        Ok(Step { path: path.clone(), before, stamp, after: None, temp: temporary() })
    }

    fn carry_out(&self, steps: &[Step]) -> Result<Commit, CommitError> {
        let mut made = Vec::new();
        let result = self.carry_out_in(steps, &mut made);
        if result.is_err() {
            self.unmake(&made);
        }
        result
    }

    fn carry_out_in(&self, steps: &[Step], made: &mut Vec<CleanPath>) -> Result<Commit, CommitError> {
        let mut places = Vec::with_capacity(steps.len());
        for step in steps {
            match self.place(&step.path, step.after.is_some().then_some(&mut *made))? {
                Some(place) => places.push(place),
                None => return Err(CommitError::Changed(step.path.clone())),
            }
        }
        let id = self.keep(steps, made)?;
        let outcome = exchange_all(steps, &places, || match (&self.0.store, id) {
            (Some(store), Some(id)) => store.finish(id),
            _ => Ok(()),
        });
        // What could not be put back now is put back when the state folder is next opened; until then nothing may be lost.
        if !matches!(outcome, Err(CommitError::Torn { .. })) {
            for (step, place) in steps.iter().zip(&places) {
                // After success the old versions, after failure the new ones. One that cannot be removed is only litter.
                let _ = place.remove(&step.temp);
            }
            if let (Err(_), Some(store), Some(id)) = (&outcome, &self.0.store, id) {
                let _ = store.forget(id);
            }
        }
        outcome?;
        Ok(Commit { id, files: steps.iter().map(Step::committed).collect() })
    }

    /// Keeps the pre-images, before anything is written.
    fn keep(&self, steps: &[Step], made: &[CleanPath]) -> Result<Option<u64>, CommitError> {
        let Some(store) = &self.0.store else { return Ok(None) };
        let files = steps
            .iter()
            .map(|s| FileRecord {
                path: s.path.clone(),
                before: s.before.as_ref().map(State::of),
                after: s.after.as_ref().map(State::of),
                temp: s.temp.clone(),
            })
            .collect();
        let record = Record { version: 1, files, made: made.to_vec() };
        let before: Vec<Option<&Image>> = steps.iter().map(|s| s.before.as_ref()).collect();
        let path = || steps.first().map_or(CleanPath::new(String::new()), |s| s.path.clone());
        let id = store.begin(&record, &before);
        id.map(Some).map_err(|source| CommitError::System { path: path(), source })
    }
}

/// Stages every file, exchanges them one after the other, and then records that it is done. A failure takes all of it back.
fn exchange_all(
    steps: &[Step],
    places: &[Place],
    finish: impl FnOnce() -> io::Result<()>,
) -> Result<(), CommitError> {
    for (step, place) in steps.iter().zip(places) {
        if let Some(image) = &step.after {
            place.stage(&step.temp, image).map_err(|source| step.system(source))?;
        }
    }
    let mut entered = 0;
    let outcome = (|| {
        for (step, place) in steps.iter().zip(places) {
            step.enter(place)?;
            entered += 1;
        }
        for (step, place) in steps.iter().zip(places) {
            place.sync().map_err(|source| step.system(source))?;
        }
        finish().map_err(|source| match steps.first() {
            Some(step) => step.system(source),
            None => CommitError::System { path: CleanPath::new(String::new()), source },
        })
    })();
    let Err(error) = outcome else { return Ok(()) };
    for (step, place) in steps.iter().zip(places).take(entered).rev() {
        if step.leave(place).is_err() {
            let why = error.to_string();
            return Err(CommitError::Torn { why, left: step.path.clone() });
        }
    }
    Err(error)
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

    /// Makes the staged file the real one.
    fn enter(&self, place: &Place) -> Result<(), CommitError> {
        if place.stamp().map_err(|source| self.system(source))? != self.stamp {
            return Err(CommitError::Changed(self.path.clone()));
        }
        match (&self.before, &self.after) {
            (Some(_), Some(_)) => place.exchange(&self.temp),
            (None, Some(_)) => place.appear(&self.temp),
            (Some(_), None) => place.vanish(&self.temp),
            (None, None) => Ok(()),
        }
        .map_err(|source| self.system(source))
    }

    /// Undoes [`Step::enter`].
    fn leave(&self, place: &Place) -> io::Result<()> {
        match (&self.before, &self.after) {
            (Some(_), Some(_)) => place.exchange(&self.temp),
            (None, Some(_)) => place.vanish(&self.temp),
            (Some(_), None) => place.appear(&self.temp),
            (None, None) => Ok(()),
        }
    }

    fn system(&self, source: io::Error) -> CommitError {
        CommitError::System { path: self.path.clone(), source }
    }

    fn committed(&self) -> Committed {
        let digest = |image: &Option<Image>| image.as_ref().map(Image::digest);
        Committed { path: self.path.clone(), before: digest(&self.before), after: digest(&self.after) }
    }
}

fn executable_mode(mode: u32, executable: bool) -> u32 {
    // Whoever may read it may run it, as git's 755 and 644 have it.
    if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}

/// A name in the file's own folder that no project uses.
fn temporary() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!(".agent-{}-{since:x}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
