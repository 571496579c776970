//! What a session changed: every commit and every change by a command, in order, with the contents
//! before and after.
//!
//! One state folder may hold changes to two trees: the tree of a dry run, and the repository, if
//! the dry run's changes were applied to it (and perhaps undone). [`History::net`] returns the
//! agent's changes, regardless of which tree they were made in. [`History::standing`] returns the
//! changes that are still in effect in the most recently changed tree.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    ops::RangeBounds,
    path::Path,
};

use crate::{
    By, CleanPath, Committed, FileImage,
    store::{FileRecord, Images, Record, State, Store},
};

/// The history of a session. The state folder is read once, and no work tree is needed.
#[derive(Debug)]
pub struct History {
    images: Vec<Images>,
    kept: Vec<(u64, Record)>,
    records: Vec<HistoryRecord>,
}

/// One commit, or one command that changed files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// The record's number. Later records have higher numbers.
    pub id: u64,
    /// The turn in which the change was made.
    pub turn: u32,
    /// Who made the change.
    pub by: By,
    /// The files that changed.
    pub files: Vec<Committed>,
    /// Files whose changes cannot be undone, because the files are too large to keep.
    pub left_out: Vec<CleanPath>,
}

/// The net change to one file over a range of turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetChange {
    /// The file.
    pub path: CleanPath,
    /// The file before the first change, or `None` if it did not exist.
    pub before: Option<FileImage>,
    /// The file after the last change, or `None` if it no longer exists.
    pub after: Option<FileImage>,
    /// Whether someone else changed the file between two of the agent's changes.
    pub foreign: bool,
}

/// One change to one file, and the record it belongs to.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    turn: u32,
    record: usize,
    file: &'a FileRecord,
    /// Whether the file's state before this change differs from its state after the previous
    /// change.
    foreign: bool,
}

type Chains<'a> = BTreeMap<&'a CleanPath, Vec<Entry<'a>>>;

impl History {
    /// Reads the history of a session. It is empty if nothing was ever changed.
    ///
    /// # Errors
    /// If the state folder cannot be read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        if !state_dir.join("commits").exists() {
            return Ok(Self { images: Vec::new(), kept: Vec::new(), records: Vec::new() });
        }
        let store = Store::existing(state_dir)?;
        let kept = store.records()?;
        let record = |(id, record): &(u64, Record)| HistoryRecord {
            id: *id,
            turn: record.turn,
            by: record.by,
            files: record.files.iter().map(committed).collect(),
            left_out: record.left_out.clone(),
        };
        let records = kept.iter().map(record).collect();
        let images = kept.iter().map(|(id, record)| store.images(*id, record)).collect();
        Ok(Self { images, kept, records })
    }

    /// Returns every record, in order.
    #[must_use]
    pub fn records(&self) -> &[HistoryRecord] {
        &self.records
    }

    /// Returns the agent's net changes in these turns, even if they were undone: for each file, the
    /// content before the first change and after the last, if they differ. Sorted by path.
    ///
    /// # Errors
    /// If the stored content of a file cannot be read.
    pub fn net(&self, turns: impl RangeBounds<u32>) -> io::Result<Vec<NetChange>> {
        self.sum(&self.made(), |entry| turns.contains(&entry.turn))
    }

    /// Returns the changes from these turns that are still in effect in the most recently changed
    /// tree. An undo reverts exactly these changes. Leaves out changes that were undone, and
    /// changes from a dry run that were never applied. If an undo or an apply merged a file, the
    /// change to this file is attributed to the last turn.
    ///
    /// # Errors
    /// If the stored content of a file cannot be read.
    pub fn standing(&self, turns: impl RangeBounds<u32>) -> io::Result<Vec<NetChange>> {
        self.sum(&self.in_effect(), |entry| turns.contains(&entry.turn))
    }

    /// Same as [`History::standing`], but for this record and all later ones.
    ///
    /// # Errors
    /// If the stored content of a file cannot be read.
    pub fn since(&self, record: u64) -> io::Result<Vec<NetChange>> {
        self.sum(&self.in_effect(), |entry| self.kept[entry.record].0 >= record)
    }

    fn in_effect(&self) -> Chains<'_> {
        let moved = |r: &&(u64, Record)| matches!(r.1.by, By::Undo | By::Apply);
        let Some((_, last)) = self.kept.iter().rev().find(moved).or(self.kept.last()) else {
            return Chains::new();
        };
        let made = self.made();
        let mut chains = Chains::new();
        let mut turn = 0;
        for (record, (_, kept)) in self.kept.iter().enumerate() {
            turn = turn.max(kept.turn);
            for file in changed(kept).filter(|_| kept.tree == last.tree) {
                let chain = chains.entry(&file.path).or_default();
                let foreign = chain.last().is_some_and(|e| e.file.after != file.before);
                let entry = Entry { turn: kept.turn, record, file, foreign };
                match kept.by {
                    By::Edit | By::Command | By::Revert => chain.push(entry),
                    By::Undo => match chain.iter().rposition(|e| e.file.before == file.after) {
                        Some(first) => chain.truncate(first),
                        None => chain.push(Entry { turn, ..entry }),
                    },
                    By::Apply => {
                        let source: Vec<_> = made.get(&file.path).into_iter().flatten().copied().collect();
                        let clean = ends(&source).is_some_and(|e| e == (file.before, file.after));
                        if chain.is_empty() && clean {
                            *chain = source;
                        } else {
                            chain.push(Entry { turn, ..entry });
                        }
                    }
                }
            }
        }
        chains
    }

    /// Returns the changes in one record, or an empty list if no record has this number.
    ///
    /// # Errors
    /// If the stored content of a file cannot be read.
    pub fn of(&self, id: u64) -> io::Result<Vec<NetChange>> {
        let Some(record) = self.kept.iter().position(|(kept, _)| *kept == id) else { return Ok(Vec::new()) };
        let change = |file: &FileRecord| {
            let (before, after) = (self.image(record, file.before)?, self.image(record, file.after)?);
            Ok(NetChange { path: file.path.clone(), before, after, foreign: false })
        };
        changed(&self.kept[record].1).map(change).collect()
    }

    fn made(&self) -> Chains<'_> {
        let mut chains = Chains::new();
        let mut last = HashMap::new();
        for (record, (_, kept)) in self.kept.iter().enumerate() {
            for file in changed(kept) {
                let before = last.insert((&kept.tree, &file.path), file.after);
                if matches!(kept.by, By::Edit | By::Command | By::Revert) {
                    let foreign = before.is_some_and(|before| before != file.before);
                    let entry = Entry { turn: kept.turn, record, file, foreign };
                    chains.entry(&file.path).or_default().push(entry);
                }
            }
        }
        chains
    }

    fn sum(&self, chains: &Chains<'_>, counts: impl Fn(&Entry<'_>) -> bool) -> io::Result<Vec<NetChange>> {
        let mut out = Vec::new();
        for (path, chain) in chains {
            let chain: Vec<_> = chain.iter().filter(|entry| counts(entry)).collect();
            let (Some(first), Some(last)) = (chain.first(), chain.last()) else { continue };
            if first.file.before != last.file.after {
                out.push(NetChange {
                    path: (*path).clone(),
                    before: self.image(first.record, first.file.before)?,
                    after: self.image(last.record, last.file.after)?,
                    foreign: chain.iter().skip(1).any(|e| e.foreign),
                });
            }
        }
        Ok(out)
    }

    fn image(&self, record: usize, state: Option<State>) -> io::Result<Option<FileImage>> {
        state.map(|state| self.images[record].image(state)).transpose()
    }
}

/// Returns the files in a record, except those whose state did not change.
fn changed(record: &Record) -> impl Iterator<Item = &FileRecord> {
    record.files.iter().filter(|file| file.before != file.after)
}

fn ends(chain: &[Entry<'_>]) -> Option<(Option<State>, Option<State>)> {
    Some((chain.first()?.file.before, chain.last()?.file.after))
}

fn committed(file: &FileRecord) -> Committed {
    let digest = |state: Option<State>| state.map(|s| s.digest);
    Committed { path: file.path.clone(), before: digest(file.before), after: digest(file.after) }
}
