//! Executes verified steps as a unit: either all of them or none of them.
//!
//! A commit first saves the old contents, then writes each new file in full next to the old one,
//! and finally swaps the two with a single rename. If anything fails, the files are swapped back.
//! After a crash, the commit is rolled back the next time the state folder is opened.

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

/// A commit of at most this many files syncs each file separately. For more files, one sync of the
/// whole file system is cheaper.
const SYNCED_ONE_BY_ONE: usize = 32;

/// Device and inode.
type FolderId = (u64, u64);

/// The change that a commit makes to one file.
pub(crate) struct Step {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<FileImage>,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) after: Option<FileImage>,
    /// The device and inode of the old file, if it has other hard links. If there is a new file,
    /// those links must point to it.
    pub(crate) links_of: Option<(u64, u64)>,
    /// The file whose owner and attributes the new file inherits.
    pub(crate) like: CleanPath,
    /// The index of the step that stages the new file, if this path is another hard link to it.
    pub(crate) link_to: Option<usize>,
    pub(crate) temp: String,
}

/// The data that a commit records besides its files.
#[derive(Default)]
pub(crate) struct CommitInfo {
    pub(crate) by: By,
    /// Folders created by earlier commits, to be removed if they are empty.
    pub(crate) unmade: Vec<CleanPath>,
}

impl Workspace {
    /// Starts a step from the current state of a file. Unless the caller sets `after`, the step
    /// removes the file.
    pub(crate) fn step(&self, path: &CleanPath) -> Result<Step, CommitError> {
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
        let links_of = stamp.filter(|s| s.shared).map(|s| s.id);
        let (path, like) = (path.clone(), path.clone());
        Ok(Step { path, like, before, stamp, after: None, links_of, link_to: None, temp: temporary_name() })
    }

    pub(crate) fn execute(&self, mut steps: Vec<Step>, info: CommitInfo) -> Result<Commit, CommitError> {
        self.add_hard_links(&mut steps)?;
        let unmade = info.unmade.clone();
        // Record the missing folders before creating them, so that recovery from a crash can remove
        // them.
        let id = self.keep(&steps, info, self.missing_folders(&steps)?)?;
        let store = self.0.store.as_ref().zip(id);
        let mut made = Vec::new();
        let outcome = self.places(&steps, &mut made).and_then(|folders| {
            let finish = || store.map_or(Ok(()), |(store, id)| store.finish(id));
            let outcome = self.swap_all(&steps, &folders, finish);
            if !matches!(outcome, Err(CommitError::Torn { .. })) {
                for (step, folder) in steps.iter().zip(&folders) {
                    // After success, the temporary files are the old versions; after failure, they
                    // are the new versions. Leaving them behind does no harm.
                    let _ = self.at(step, *folder).map(|place| place.remove(&step.temp));
                }
            }
            outcome
        });
        match outcome {
            Ok(()) => {
                self.remove_empty_folders(&unmade);
                lock(&self.0.edited_files).extend(steps.iter().map(|s| s.path.clone()));
                Ok(Commit { id, files: steps.iter().map(Step::committed).collect() })
            }
            // Keep the stored contents: opening the state folder again restores the files from
            // them.
            Err(error @ CommitError::Torn { .. }) => Err(error),
            Err(e) => {
                self.remove_empty_folders(&made);
                if let Some((store, id)) = store {
                    // A failure is harmless: the next start will find nothing to roll back.
                    let _ = store.forget(id);
                }
                Err(e)
            }
        }
    }

    /// Creates missing folders and returns the id of each step's folder. Later accesses open the
    /// folder again, because a commit may span more folders than a process may have open.
    fn places(&self, steps: &[Step], made: &mut Vec<CleanPath>) -> Result<Vec<FolderId>, CommitError> {
        let place = |step: &Step| {
            let made = step.after.is_some().then_some(&mut *made);
            let place = self.place(&step.path, made).map_err(|e| match e {
                // The path has already been checked, so this is a failure such as a full disk.
                PathError::System { why, .. } => step.system(io::Error::other(why)),
                other => other.into(),
            })?;
            place.map(|p| p.folder_id()).ok_or_else(|| CommitError::Changed(step.path.clone()))
        };
        steps.iter().map(place).collect()
    }

    /// Opens the place that a step changes. Fails if its folder no longer has the id `folder`.
    fn at(&self, step: &Step, folder: FolderId) -> Result<Place, CommitError> {
        let place = self.place(&step.path, None)?.filter(|place| place.folder_id() == folder);
        place.ok_or_else(|| CommitError::Changed(step.path.clone()))
    }

    /// Returns the missing folders that these steps need, outermost first.
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

    /// Stores the old and new contents of all files before any file is changed.
    fn keep(
        &self,
        steps: &[Step],
        info: CommitInfo,
        made: Vec<CleanPath>,
    ) -> Result<Option<u64>, CommitError> {
        let Some(store) = &self.0.store else { return Ok(None) };
        let files = steps.iter().map(|s| FileRecord {
            path: s.path.clone(),
            before: s.before.as_ref().map(State::of),
            after: s.after.as_ref().map(State::of),
            temp: s.temp.clone(),
        });
        let record =
            Record { by: info.by, unmade: info.unmade, files: files.collect(), made, ..self.record() };
        let images = steps.iter().flat_map(|s| [&s.before, &s.after]).flatten();
        let id = store.begin(record, images.map(|image| Ok(Cow::Borrowed(image.bytes.as_slice()))));
        let path = || steps.first().map_or(CleanPath::new(String::new()), |s| s.path.clone());
        id.map(Some).map_err(|source| CommitError::System { path: path(), source })
    }

    /// Returns an empty record for the current turn and tree.
    pub(crate) fn record(&self) -> Record {
        let turn = self.0.turn.load(Ordering::Relaxed);
        Record { version: 2, turn, tree: self.0.root.clone(), ..Record::default() }
    }

    /// Stages every new file, swaps the files one by one, and then marks the commit as done. Swaps
    /// the files back if anything fails.
    fn swap_all(
        &self,
        steps: &[Step],
        folders: &[FolderId],
        finish: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), CommitError> {
        self.stage_all(steps, folders)?;
        let all = || steps.iter().zip(folders.iter().copied());
        let mut applied = 0;
        let outcome = (|| {
            for (step, folder) in all() {
                step.apply(&self.at(step, folder)?)?;
                applied += 1;
            }
            self.sync(steps, folders)?;
            finish().map_err(|source| match steps.first() {
                Some(step) => step.system(source),
                None => CommitError::System { path: CleanPath::new(String::new()), source },
            })
        })();
        let Err(error) = outcome else { return Ok(()) };
        for (step, folder) in all().take(applied).rev() {
            if !self.at(step, folder).is_ok_and(|place| step.revert(&place).is_ok()) {
                let why = error.to_string();
                return Err(CommitError::Torn { why, left: step.path.clone() });
            }
        }
        Err(error)
    }

    /// Writes the new files next to the old ones. They are on disk when this returns.
    fn stage_all(&self, steps: &[Step], folders: &[FolderId]) -> Result<(), CommitError> {
        let one_by_one = steps.len() <= SYNCED_ONE_BY_ONE;
        for (step, folder) in steps.iter().zip(folders) {
            let place = self.at(step, *folder)?;
            let staged = match (&step.after, step.link_to) {
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

    /// Syncs the folders of the steps, or whole file systems if there are many steps.
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
    /// Replaces the file with the staged one.
    fn apply(&self, place: &Place) -> Result<(), CommitError> {
        let now = place.stamp().map_err(|source| self.system(source))?;
        let same = match (&self.stamp, &now) {
            (Some(then), Some(now)) => then.is_unchanged(now),
            (then, now) => then.is_none() && now.is_none(),
        };
        if !same {
            return Err(CommitError::Changed(self.path.clone()));
        }
        match (&self.before, &self.after) {
            (Some(_), Some(_)) => place.swap(&self.temp),
            (None, Some(_)) => place.move_in(&self.temp),
            (Some(_), None) => place.move_out(&self.temp),
            (None, None) => Ok(()),
        }
        .map_err(|source| self.system(source))
    }

    /// Reverts [`Step::apply`].
    fn revert(&self, place: &Place) -> io::Result<()> {
        match (&self.before, &self.after) {
            (Some(_), Some(_)) => place.swap(&self.temp),
            (None, Some(_)) => place.move_out(&self.temp),
            (Some(_), None) => place.move_in(&self.temp),
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

/// Returns a random name that no project is likely to use, for a temporary file in the same folder.
fn temporary_name() -> String {
    format!(".agent-{:016x}.tmp", fastrand::u64(..))
}
