//! Records what a command changes, with the contents before and after.
//!
//! The tree is scanned before and after the command. Changes that others make between two commands
//! are not attributed to the agent; those that others make during a command are. Ignored files are
//! not watched unless they are tracked or the agent has edited them.

use std::{borrow::Cow, fs, io, time::SystemTime};

use crate::{
    By, CleanPath, FileImage, Workspace,
    changed_rules::ChangedRules,
    index::Index,
    root::lock,
    rules::small_file,
    scan::Found,
    snapshot::{Content, Difference, Known, Snapshot},
    store::{FileRecord, Record, State},
};

/// The maximum size of a `.git/info/exclude` file to read, in bytes.
const EXCLUDE_LIMIT: u64 = 1 << 20;

/// The state of the tree before a command.
#[derive(Debug)]
#[must_use = "pass it to `Workspace::watched` to record what the command changes"]
pub struct Watch {
    began: SystemTime,
    inside: bool,
    exclude: Option<Vec<u8>>,
}

impl Workspace {
    /// Takes a snapshot of the tree before a command. Costs one `stat` per file, except that in an
    /// overlay, later snapshots scan only folders with changes. Reads the files written since the
    /// last snapshot; the first snapshot reads the files that differ from git's index. Watch one
    /// command at a time.
    ///
    /// # Errors
    /// If the state folder cannot be written or the tree cannot be read.
    pub fn watch(&self) -> io::Result<Watch> {
        let _writing = lock(&self.0.writing);
        let mut snapshot = lock(&self.0.snapshot);
        if let Some(store) = &self.0.store {
            match snapshot.as_mut() {
                None => *snapshot = Some(Snapshot::new(self, store.dir())?),
                Some(snapshot) => self.update(snapshot, |_| ())?,
            }
        }
        let (inside, exclude) = (self.is_inside_a_repository(), self.exclude());
        Ok(Watch { began: SystemTime::now(), inside, exclude })
    }

    /// Builds the first snapshot from a baseline's index and scan.
    pub(crate) fn learn(&self, index: Index, found: Found) -> io::Result<()> {
        let (Some(store), mut snapshot) = (&self.0.store, lock(&self.0.snapshot)) else { return Ok(()) };
        if snapshot.is_none() {
            *snapshot = Some(Snapshot::from_index(self, store.dir(), index, found)?);
        }
        Ok(())
    }

    /// Records what the command changed and returns the number of the record. Returns `None` if the
    /// command changed nothing or there is no state folder.
    ///
    /// # Errors
    /// If the state folder cannot be written or the tree cannot be read.
    pub fn watched(&self, before: Watch) -> io::Result<Option<u64>> {
        let _writing = lock(&self.0.writing);
        let mut snapshot = lock(&self.0.snapshot);
        let (Some(store), Some(snapshot)) = (&self.0.store, snapshot.as_mut()) else { return Ok(None) };
        let folders = snapshot.folders.clone();
        let mut differences = Vec::new();
        self.update(snapshot, |difference| differences.push(difference))?;
        let mut made: Vec<_> = snapshot.folders.difference(&folders).cloned().collect();
        differences.sort_by(|a, b| a.path.cmp(&b.path));
        let mut old: Vec<&mut Known> = differences.iter_mut().filter_map(|d| d.before.as_mut()).collect();
        snapshot.fetch(self.root(), &mut old)?;
        let rules = self.changed_rules(snapshot, &differences, &before)?;
        let made_now = |path: &CleanPath, folder| {
            !rules.may_have_hidden(path, folder) || self.born_after(path, before.began)
        };
        differences.retain(|d| d.before.is_some() || made_now(&d.path, false));
        made.retain(|folder| made_now(folder, true));
        let (files, contents, left_out) = states(snapshot, differences)?;
        if files.is_empty() && made.is_empty() && left_out.is_empty() {
            return Ok(None);
        }
        let images = contents.iter().filter_map(|c| snapshot.bytes(c).transpose());
        let record = Record { by: By::Command, files, made, left_out, ..self.record() };
        let id = store.begin(record, images.map(|bytes| bytes.map(Cow::Owned)))?;
        store.finish(id)?;
        Ok(Some(id))
    }

    /// Updates the snapshot from a scan, and reports each changed file.
    fn update(&self, snapshot: &mut Snapshot, mut report: impl FnMut(Difference)) -> io::Result<()> {
        let events = self.0.events.get();
        snapshot.update(self, |difference| {
            if let Some(events) = events {
                events.touch_folder_of(&difference.path);
            }
            report(difference);
        })
    }

    /// Returns the changes that the command made to the ignore rules.
    fn changed_rules(
        &self,
        snapshot: &Snapshot,
        differences: &[Difference],
        before: &Watch,
    ) -> io::Result<ChangedRules> {
        let root = CleanPath::new(String::new());
        let mut rules = ChangedRules::default();
        if before.inside != self.is_inside_a_repository() {
            rules.add_all(root.clone());
        }
        rules.add(root, before.exclude.as_deref(), self.exclude().as_deref());
        for Difference { path, before, after } in differences {
            let Some((folder, ".gitignore")) = path.split() else { continue };
            if before.as_ref().is_some_and(|known| known.content == Content::Unknown) {
                rules.add_all(folder.clone());
            }
            let text = |known: &Option<Known>| known.as_ref().map(|k| snapshot.bytes(&k.content)).transpose();
            rules.add(folder, text(before)?.flatten().as_deref(), text(after)?.flatten().as_deref());
        }
        Ok(rules)
    }

    /// Reads `.git/info/exclude`.
    fn exclude(&self) -> Option<Vec<u8>> {
        small_file(&self.root().join(".git/info/exclude"), EXCLUDE_LIMIT)
    }

    /// Whether a file was certainly created after `moment`. Returns false if the file system does
    /// not record creation times, or if its clock has not ticked since `moment`.
    fn born_after(&self, path: &CleanPath, moment: SystemTime) -> bool {
        let born = fs::symlink_metadata(self.root().join(path)).and_then(|m| m.created());
        born.is_ok_and(|born| born > moment)
    }
}

type States = (Vec<FileRecord>, Vec<Content>, Vec<CleanPath>);

/// Separates the differences that can be undone from those that cannot. Returns the records and
/// contents of the former, and the paths of the latter.
fn states(snapshot: &Snapshot, differences: Vec<Difference>) -> io::Result<States> {
    let (mut files, mut contents, mut left_out) = States::default();
    let unknown = |known: &Option<Known>| known.as_ref().is_some_and(|k| k.content == Content::Unknown);
    for Difference { path, before, after } in differences {
        if unknown(&before) || unknown(&after) {
            left_out.push(path);
            continue;
        }
        let [old, new] = [state(snapshot, before.as_ref())?, state(snapshot, after.as_ref())?];
        if old != new {
            contents.extend([before, after].into_iter().flatten().map(|known| known.content));
            files.push(FileRecord { path, before: old, after: new, temp: String::new() });
        }
    }
    Ok((files, contents, left_out))
}

fn state(snapshot: &Snapshot, known: Option<&Known>) -> io::Result<Option<State>> {
    let Some(known) = known else { return Ok(None) };
    let bytes = snapshot.bytes(&known.content)?;
    Ok(bytes.map(|bytes| State::of(&FileImage { bytes, mode: known.mode, link: known.link })))
}
