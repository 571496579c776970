//! What a session changed, as its state folder has it: every commit and every command's change, in order, with both contents.
//!
//! The same folder may hold changes of two trees: of the one a dry-run worked in, and of the repository, to which they were brought later
//! and where they may have been put back. [`History::net`] is what the agent did, wherever; [`History::standing`] is what of it stands in the tree
//! that was changed last.

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

/// What a session changed. Reads the state folder once; needs no work tree.
#[derive(Debug)]
pub struct History {
    images: Vec<Images>,
    kept: Vec<(u64, Record)>,
    records: Vec<HistoryRecord>,
}

/// One commit, or one command that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// Its number; ascending.
    pub id: u64,
    /// The turn it belongs to.
    pub turn: u32,
    /// Who made it.
    pub by: By,
    /// The files.
    pub files: Vec<Committed>,
    /// Files that it changed too and that are not known well enough to be put back: too large to keep.
    pub left_out: Vec<CleanPath>,
}

/// What became of one file over some turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetChange {
    /// Which.
    pub path: CleanPath,
    /// As it was before the first change; `None` when it was not there.
    pub before: Option<FileImage>,
    /// As it was after the last; `None` when it was gone.
    pub after: Option<FileImage>,
    /// Somebody else changed it between two of the agent's changes.
    pub foreign: bool,
}

/// One change of one file, with where its contents are kept.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    turn: u32,
    record: usize,
    file: &'a FileRecord,
    /// The file was not as the change before had left it.
    foreign: bool,
}

type Chains<'a> = BTreeMap<&'a CleanPath, Vec<Entry<'a>>>;

impl History {
    /// Reads the history of a session; an empty one where nothing was ever changed.
    ///
    /// # Errors
    /// When the state folder cannot be read.
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

    /// Every record, in order.
    #[must_use]
    pub fn records(&self) -> &[HistoryRecord] {
        &self.records
    }

    /// What the agent did in these turns, whether or not it was put back since: for each file the first before and the last after, where
    /// they differ. By path.
    ///
    /// # Errors
    /// When a content cannot be read.
    pub fn net(&self, turns: impl RangeBounds<u32>) -> io::Result<Vec<NetChange>> {
        self.sum(&self.made(), turns)
    }

    /// What of it stands in the tree that was changed last: without what has been put back, and of a dry-run only what was brought to the
    /// repository, as it was brought. This is what an undo puts back. A merged file belongs to the last turn.
    ///
    /// # Errors
    /// When a content cannot be read.
    pub fn standing(&self, turns: impl RangeBounds<u32>) -> io::Result<Vec<NetChange>> {
        let moved = |r: &&(u64, Record)| matches!(r.1.by, By::Undo | By::Apply);
        let Some((_, last)) = self.kept.iter().rev().find(moved).or(self.kept.last()) else {
            return Ok(Vec::new());
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
                    By::Edit | By::Command => chain.push(entry),
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
        self.sum(&chains, turns)
    }

    /// What one record changed; nothing when there is none of that number.
    ///
    /// # Errors
    /// When a content cannot be read.
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
                if matches!(kept.by, By::Edit | By::Command) {
                    let foreign = before.is_some_and(|before| before != file.before);
                    let entry = Entry { turn: kept.turn, record, file, foreign };
                    chains.entry(&file.path).or_default().push(entry);
                }
            }
        }
        chains
    }

    fn sum(&self, chains: &Chains<'_>, turns: impl RangeBounds<u32>) -> io::Result<Vec<NetChange>> {
        let mut out = Vec::new();
        for (path, chain) in chains {
            let chain: Vec<_> = chain.iter().filter(|e| turns.contains(&e.turn)).collect();
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

/// Without what was written and stayed the same.
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
