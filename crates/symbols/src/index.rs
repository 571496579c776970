//! The index: which names each file defines and uses.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tree_sitter::Parser;

use crate::tags::{Kind, tags};
use crate::{Language, cache};

/// The maximum size of a file to parse, in bytes. Larger files are usually generated or contain
/// data.
const MAX_BYTES: u64 = 512 << 10;
/// The maximum number of files in an index.
const MAX_FILES: usize = 100_000;
/// The maximum number of distinct names in an index.
const MAX_NAMES: usize = 4_000_000;
/// The maximum number of parser threads.
const MAX_THREADS: usize = 16;
/// How old a modification time must be to be trusted. File system clocks are coarse, so a file that
/// was just written may change again without its time changing.
const SETTLED_NS: i64 = 2_000_000_000;

/// Identifies a version of a file without reading it, as git's index does. All zeros means that the
/// version is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When the content was last modified, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// The inode.
    pub inode: u64,
}

/// A file in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path, relative to the root.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its version.
    pub stamp: Stamp,
}

/// The limits for one update.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time limit. Files that are left over are parsed by a later update.
    pub time: Duration,
    /// The number of parser threads.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { time: Duration::from_secs(30), threads }
    }
}

/// The result of an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Updated {
    /// The number of files that were parsed.
    pub parsed: usize,
    /// The number of files that were removed from the index.
    pub removed: usize,
    /// The number of files that were not updated because of a limit, or because the update was
    /// stopped. Files that were already indexed keep their old entries.
    pub left_over: usize,
}

/// The definitions and uses of names in the files of a repository.
#[derive(Debug, Default)]
pub struct Index {
    /// All names. A name's number is its index.
    pub(crate) names: IndexSet<Box<str>>,
    pub(crate) files: BTreeMap<String, File>,
    /// The parts of the cache that differ from the index.
    pub(crate) changed_parts: BTreeSet<usize>,
}

/// One file of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) size: u64,
    pub(crate) stamp: Stamp,
    /// The first bytes of the content's SHA-256.
    pub(crate) digest: [u8; 16],
    pub(crate) definitions: Vec<Definition>,
    /// The numbers of the names that the file uses, and how often it uses each.
    pub(crate) uses: Vec<(u32, u32)>,
}

/// A definition in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) name: u32,
    pub(crate) kind: Kind,
    pub(crate) line: u32,
}

/// Where a name is defined and used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// The definitions, sorted by path and line.
    pub definitions: Vec<FoundDefinition<'a>>,
    /// The files that use the name, and how often, sorted by path.
    pub uses: Vec<(&'a str, u32)>,
}

/// A definition of a name that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDefinition<'a> {
    /// The file.
    pub path: &'a str,
    /// The 1-based line number.
    pub line: u32,
    /// What the name refers to.
    pub kind: Kind,
}

/// The result of examining a file that may have changed.
enum Outcome {
    Unread,
    Same,
    Parsed { size: u64, digest: [u8; 16], definitions: Vec<(String, Kind, u32)>, uses: Vec<(String, u32)> },
}

impl Index {
    /// Updates the index to match the files in the repository. Reads only files whose size or stamp
    /// differs, and parses only those whose content differs, using several threads. `read` returns
    /// the content of a file. When `stop` becomes true or the time is up, the remaining files keep
    /// their old entries.
    pub fn update(
        &mut self,
        files: &[Listed],
        read: &(dyn Fn(&str) -> Option<Vec<u8>> + Sync),
        limits: &Limits,
        stop: &AtomicBool,
    ) -> Updated {
        let mut updated = Updated::default();
        let parsable = |file: &&Listed| file.size <= MAX_BYTES && Language::of(&file.path).is_some();
        let listed: Vec<&Listed> = files.iter().filter(parsable).take(MAX_FILES).collect();
        updated.left_over = files.iter().filter(parsable).count() - listed.len();
        let present: BTreeSet<&str> = listed.iter().map(|f| f.path.as_str()).collect();
        let gone: Vec<String> =
            self.files.keys().filter(|path| !present.contains(path.as_str())).cloned().collect();
        updated.removed = gone.len();
        for path in gone {
            self.changed_parts.insert(cache::part_of(&path));
            self.files.remove(&path);
        }
        let is_new = |file: &&&Listed| {
            self.files.get(&file.path).is_none_or(|known| {
                known.size != file.size || known.stamp != file.stamp || file.stamp == Stamp::default()
            })
        };
        let mut work: Vec<&Listed> = listed.iter().filter(is_new).copied().collect();
        // Parse the smallest files first, so that as few files as possible are left over when time
        // runs out.
        work.sort_by_key(|file| file.size);
        let outcomes = self.examine(&work, read, limits, stop);
        self.take(outcomes, &mut updated);
        updated
    }

    /// Updates the entry of one file, without examining the others.
    pub fn update_one(
        &mut self,
        file: &Listed,
        read: &(dyn Fn(&str) -> Option<Vec<u8>> + Sync),
        stop: &AtomicBool,
    ) -> Updated {
        let mut updated = Updated::default();
        if Language::of(&file.path).is_some() {
            let outcome = examine(&mut Parser::new(), file, self.files.get(&file.path), read, stop);
            self.take(vec![(file, outcome)], &mut updated);
        }
        updated
    }

    /// Applies the results of examining files to the index.
    fn take(&mut self, outcomes: Vec<(&Listed, Outcome)>, updated: &mut Updated) {
        for (file, outcome) in outcomes {
            match outcome {
                Outcome::Unread => updated.left_over += 1,
                Outcome::Same => {
                    if let Some(known) = self.files.get_mut(&file.path) {
                        known.stamp = settled(file.stamp);
                        self.changed_parts.insert(cache::part_of(&file.path));
                    }
                }
                Outcome::Parsed { size, digest, definitions, uses } => {
                    updated.parsed += 1;
                    let definitions = definitions
                        .into_iter()
                        .filter_map(|(name, kind, line)| {
                            Some(Definition { name: self.number(name)?, kind, line })
                        })
                        .collect();
                    let uses = uses
                        .into_iter()
                        .filter_map(|(name, count)| Some((self.number(name)?, count)))
                        .collect();
                    let entry = File { size, stamp: settled(file.stamp), digest, definitions, uses };
                    self.changed_parts.insert(cache::part_of(&file.path));
                    self.files.insert(file.path.clone(), entry);
                }
            }
        }
    }

    /// Reads and parses files, without changing the index.
    fn examine<'l>(
        &self,
        work: &[&'l Listed],
        read: &(dyn Fn(&str) -> Option<Vec<u8>> + Sync),
        limits: &Limits,
        stop: &AtomicBool,
    ) -> Vec<(&'l Listed, Outcome)> {
        let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(work.len())));
        let deadline = Instant::now() + limits.time;
        let worker = || {
            let (mut parser, mut own) = (Parser::new(), Vec::new());
            while let Some(file) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = match stop.load(Ordering::Relaxed) || Instant::now() > deadline {
                    true => Outcome::Unread,
                    false => examine(&mut parser, file, self.files.get(&file.path), read, stop),
                };
                own.push((*file, outcome));
            }
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
        };
        let threads = limits.threads.clamp(1, MAX_THREADS).min(work.len());
        std::thread::scope(|scope| {
            // This thread is also a worker, so that updating one file does not start any threads.
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
        outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of a name, adding the name if it is new. Returns `None` if there are too
    /// many names.
    pub(crate) fn number(&mut self, name: impl Into<Box<str>>) -> Option<u32> {
        if self.names.len() >= MAX_NAMES {
            return self.names.get_index_of(&name.into()).map(|n| n as u32);
        }
        Some(self.names.insert_full(name.into()).0 as u32)
    }

    /// Returns the number of files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns whether there are no files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Finds the definitions and uses of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Found<'_> {
        let mut found = Found::default();
        let Some(number) = self.names.get_index_of(name) else { return found };
        for (path, file) in &self.files {
            for definition in file.definitions.iter().filter(|d| d.name as usize == number) {
                found.definitions.push(FoundDefinition {
                    path,
                    line: definition.line,
                    kind: definition.kind,
                });
            }
            let uses = file.uses.iter().filter(|(name, _)| *name as usize == number);
            found.uses.extend(uses.map(|(_, count)| (path.as_str(), *count)));
        }
        found
    }

    /// Returns at most `limit` defined names that contain `name`, shortest first. Ignores case, `_`
    /// and `-`.
    #[must_use]
    pub fn similar(&self, name: &str, limit: usize) -> Vec<&str> {
        let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
        let wanted = plain(name);
        if wanted.is_empty() {
            return Vec::new();
        }
        let defined: BTreeSet<u32> =
            self.files.values().flat_map(|file| file.definitions.iter().map(|d| d.name)).collect();
        let names = defined.iter().filter_map(|number| self.names.get_index(*number as usize));
        let mut similar: Vec<&str> =
            names.map(AsRef::as_ref).filter(|n| plain(n).contains(&wanted)).collect();
        similar.sort_by_key(|name| (name.len(), *name));
        similar.truncate(limit);
        similar
    }
}

fn examine(
    parser: &mut Parser,
    file: &Listed,
    known: Option<&File>,
    read: &(dyn Fn(&str) -> Option<Vec<u8>> + Sync),
    stop: &AtomicBool,
) -> Outcome {
    let none = |bytes: &[u8]| Outcome::Parsed {
        size: file.size,
        digest: digest(bytes),
        definitions: Vec::new(),
        uses: Vec::new(),
    };
    let Some(bytes) = read(&file.path) else { return Outcome::Unread };
    if bytes.len() as u64 > MAX_BYTES {
        return none(&[]);
    }
    let digest = digest(&bytes);
    if known.is_some_and(|known| known.digest == digest && known.size == file.size) {
        return Outcome::Same;
    }
    let (Some(language), Ok(text)) = (Language::of(&file.path), str::from_utf8(&bytes)) else {
        return none(&bytes);
    };
    if text.contains('\0') {
        return none(&bytes);
    }
    let tags = tags(parser, language, text, stop);
    if stop.load(Ordering::Relaxed) {
        return Outcome::Unread;
    }
    Outcome::Parsed {
        size: file.size,
        digest,
        definitions: tags
            .definitions
            .into_iter()
            .map(|(name, kind, line)| (name.into(), kind, line))
            .collect(),
        uses: tags.uses.into_iter().map(|(name, count)| (name.into(), count)).collect(),
    }
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    let (mut short, whole) = ([0; 16], Sha256::digest(bytes));
    short.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    short
}

/// Returns the stamp to store, which is unknown if the file could still change without its stamp
/// changing.
fn settled(stamp: Stamp) -> Stamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    if now - stamp.modified_ns > SETTLED_NS { stamp } else { Stamp::default() }
}
