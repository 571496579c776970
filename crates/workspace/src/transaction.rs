//! Steps that have been verified, carried out together: all of them or none.
//!
//! The contents are kept first, then each new file is written in full beside the old one, and only then do they change places, one rename
//! each. A failure changes them back; a crash is found and taken back when the state folder is next opened.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    io,
    sync::atomic::Ordering,
};

use crate::{
    By, CleanPath, Commit, CommitError, Committed, FileImage, PathError, Workspace,
    place::{Found, Place, Stamp},
    root::lock,
    store::{FileRecord, REPLACE_LIMIT, Record, State},
};

/// Up to this many files each is synced by itself; more are cheaper by syncing the file system once.
const SYNCED_ONE_BY_ONE: usize = 32;

/// Device and inode.
type FolderId = (u64, u64);

/// One file of a commit that is under way.
pub(crate) struct Step {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<FileImage>,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) after: Option<FileImage>,
    /// The file, by device and inode, whose other names become names of the new file.
    pub(crate) names_of: Option<(u64, u64)>,
    /// Where the file is whose owner and attributes the new one gets.
    pub(crate) like: CleanPath,
    /// Which step stages the file that this name is to be another one of.
    pub(crate) twin_of: Option<usize>,
    pub(crate) temp: String,
}

/// What is said of a commit besides its files.
#[derive(Default)]
pub(crate) struct About {
    pub(crate) by: By,
    /// Folders of earlier commits that go if they are empty.
    pub(crate) unmade: Vec<CleanPath>,
}

impl Workspace {
    /// A step that starts from what is there and, as it stands, removes it.
    pub(crate) fn look(&self, path: &CleanPath) -> Result<Step, CommitError> {
        let system = |source| CommitError::System { path: path.clone(), source };
        let found = match self.place(path, None)? {
            Some(place) => place.find(REPLACE_LIMIT).map_err(system)?,
            None => Found::Nothing,
        };
        let (before, stamp) = match found {
            Found::Nothing => (None, None),
            Found::File(image, stamp) => (Some(image), Some(stamp)),
            Found::Other => return Err(CommitError::NotAFile(path.clone())),
        };
        if self.is_own(path, stamp.map(|stamp| stamp.id)) {
            let (path, owner) = (path.to_string(), "the run itself");
            return Err(PathError::Protected { path, owner }.into());
        }
        let names_of = stamp.filter(|s| s.shared).map(|s| s.id);
        let (path, like) = (path.clone(), path.clone());
        Ok(Step { path, like, before, stamp, after: None, names_of, twin_of: None, temp: temporary() })
    }

    pub(crate) fn carry_out(&self, mut steps: Vec<Step>, about: About) -> Result<Commit, CommitError> {
        self.take_names_along(&mut steps)?;
        let unmade = about.unmade.clone();
        // Folders are recorded before they are made, so that a crash right after leaves none.
        let id = self.keep(&steps, about, self.missing_folders(&steps)?)?;
        let store = self.0.store.as_ref().zip(id);
        let mut made = Vec::new();
        let outcome = self.places(&steps, &mut made).and_then(|folders| {
            let finish = || store.map_or(Ok(()), |(store, id)| store.finish(id));
            let outcome = self.exchange_all(&steps, &folders, finish);
            if !matches!(outcome, Err(CommitError::Torn { .. })) {
                for (step, folder) in steps.iter().zip(&folders) {
                    // After success the old versions, after failure the new ones. One that cannot be removed is only litter.
                    let _ = self.at(step, *folder).map(|place| place.remove(&step.temp));
                }
            }
            outcome
        });
        match outcome {
            Ok(()) => {
                self.unmake(&unmade);
                lock(&self.0.besides).extend(steps.iter().map(|s| s.path.clone()));
                Ok(Commit { id, files: steps.iter().map(Step::committed).collect() })
            }
            // What could not be put back now is put back when the state folder is next opened; until then nothing may be lost.
            Err(torn @ CommitError::Torn { .. }) => Err(torn),
            Err(e) => {
                self.unmake(&made);
                if let Some((store, id)) = store {
                    // When it stays, the next start finds nothing to take back.
                    let _ = store.forget(id);
                }
                Err(e)
            }
        }
    }

    /// Makes the folders that are missing; returns the folder of each step. They are opened each time anew, because there may be
    /// more of them than files that a process may have open.
    fn places(&self, steps: &[Step], made: &mut Vec<CleanPath>) -> Result<Vec<FolderId>, CommitError> {
        let place = |step: &Step| {
            let made = step.after.is_some().then_some(&mut *made);
            let place = self.place(&step.path, made).map_err(|e| match e {
                // What is wrong with the path itself has been found before; this is a full disk and its like.
                PathError::System { why, .. } => step.system(io::Error::other(why)),
                other => other.into(),
            })?;
            place.map(|p| p.folder_id()).ok_or_else(|| CommitError::Changed(step.path.clone()))
        };
        steps.iter().map(place).collect()
    }

    /// Where a step takes place; its folder has to be the one it was.
    fn at(&self, step: &Step, folder: FolderId) -> Result<Place, CommitError> {
        let place = self.place(&step.path, None)?.filter(|place| place.folder_id() == folder);
        place.ok_or_else(|| CommitError::Changed(step.path.clone()))
    }

    /// The folders that these steps need and that are not there, outermost first.
    fn missing_folders(&self, steps: &[Step]) -> Result<Vec<CleanPath>, CommitError> {
        let mut missing = BTreeSet::new();
        for step in steps.iter().filter(|s| s.after.is_some()) {
            let mut path = step.path.clone();
            while let Some((folder, _)) = path.split().filter(|(folder, _)| folder.as_str() != ".") {
                let there = self.place(&folder, None)?.and_then(|place| place.stamp().transpose());
                if there.is_some() || !missing.insert(folder.clone()) {
                    break;
                }
                path = folder;
            }
        }
        Ok(missing.into_iter().collect())
    }

    /// Keeps the contents, before anything is written.
    fn keep(&self, steps: &[Step], about: About, made: Vec<CleanPath>) -> Result<Option<u64>, CommitError> {
        let Some(store) = &self.0.store else { return Ok(None) };
        let files = steps.iter().map(|s| FileRecord {
            path: s.path.clone(),
            before: s.before.as_ref().map(State::of),
            after: s.after.as_ref().map(State::of),
            temp: s.temp.clone(),
        });
        let record =
            Record { by: about.by, unmade: about.unmade, files: files.collect(), made, ..self.record() };
        let images = steps.iter().flat_map(|s| [&s.before, &s.after]).flatten();
        let id = store.begin(record, images.map(|image| Ok(Cow::Borrowed(image.bytes.as_slice()))));
        let path = || steps.first().map_or(CleanPath::new(String::new()), |s| s.path.clone());
        id.map(Some).map_err(|source| CommitError::System { path: path(), source })
    }

    /// An empty record of this turn in this tree.
    pub(crate) fn record(&self) -> Record {
        let turn = self.0.turn.load(Ordering::Relaxed);
        Record { version: 2, turn, tree: self.0.root.clone(), ..Record::default() }
    }

    /// Stages every file, exchanges them one after the other, and then records that it is done. A failure takes all of it back.
    fn exchange_all(
        &self,
        steps: &[Step],
        folders: &[FolderId],
        finish: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), CommitError> {
        self.stage_all(steps, folders)?;
        let all = || steps.iter().zip(folders.iter().copied());
        let mut entered = 0;
        let outcome = (|| {
            for (step, folder) in all() {
                step.enter(&self.at(step, folder)?)?;
                entered += 1;
            }
            self.sync(steps, folders)?;
            finish().map_err(|source| match steps.first() {
                Some(step) => step.system(source),
                None => CommitError::System { path: CleanPath::new(String::new()), source },
            })
        })();
        let Err(error) = outcome else { return Ok(()) };
        for (step, folder) in all().take(entered).rev() {
            if !self.at(step, folder).is_ok_and(|place| step.leave(&place).is_ok()) {
                let why = error.to_string();
                return Err(CommitError::Torn { why, left: step.path.clone() });
            }
        }
        Err(error)
    }

    /// Writes the new files beside the old ones. They are on disk when this returns.
    fn stage_all(&self, steps: &[Step], folders: &[FolderId]) -> Result<(), CommitError> {
        let one_by_one = steps.len() <= SYNCED_ONE_BY_ONE;
        for (step, folder) in steps.iter().zip(folders) {
            let place = self.at(step, *folder)?;
            let staged = match (&step.after, step.twin_of) {
                (Some(_), Some(first)) => {
                    place.stage_link(&step.temp, &self.at(&steps[first], folders[first])?, &steps[first].temp)
                }
                (Some(image), None) => {
                    let like = match step.like == step.path {
                        true => place.file(),
                        false => self.place(&step.like, None)?.map_or(Ok(None), |place| place.file()),
                    };
                    like.and_then(|like| place.stage(&step.temp, image, like.as_ref(), one_by_one))
                }
                (None, _) => Ok(()),
            };
            staged.map_err(|source| step.system(source))?;
        }
        if one_by_one { Ok(()) } else { self.sync(steps, folders) }
    }

    /// Makes durable what is in these folders: where they are many, by whole file systems.
    fn sync(&self, steps: &[Step], folders: &[FolderId]) -> Result<(), CommitError> {
        let many = steps.len() > SYNCED_ONE_BY_ONE;
        let mut synced = HashSet::new();
        for (step, &folder) in steps.iter().zip(folders) {
            if synced.insert(if many { (folder.0, 0) } else { folder }) {
                let place = self.at(step, folder)?;
                let result = if many { place.sync_file_system() } else { place.sync() };
                result.map_err(|source| step.system(source))?;
            }
        }
        Ok(())
    }
}

impl Step {
    /// Makes the staged file the real one.
    fn enter(&self, place: &Place) -> Result<(), CommitError> {
        let now = place.stamp().map_err(|source| self.system(source))?;
        let same = match (&self.stamp, &now) {
            (Some(then), Some(now)) => then.still(now),
            (then, now) => then.is_none() && now.is_none(),
        };
        if !same {
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
        let digest = |image: &Option<FileImage>| image.as_ref().map(FileImage::digest);
        Committed { path: self.path.clone(), before: digest(&self.before), after: digest(&self.after) }
    }
}

/// A name in the file's own folder that no project uses.
fn temporary() -> String {
    format!(".agent-{:016x}.tmp", fastrand::u64(..))
}
