//! Makes a [`Bundle`] from a session of this machine: the tree as it was when the session began, as
//! far as its replay reads it.
//!
//! A bundle has the contents of files that the first turn reads, that the model named, in which a
//! search found something, and that the session changed; also instruction files and ignore rules.
//! Of all others it has names and sizes only: a search finds nothing in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use journal::{Check, Diff, Event, Record};
use planner::{FileEntry, Instructions, Repository};
use secrets::Secrets;
use serde_json::Value;
use tool_search::Search;
use workspace::{CleanPath, FileImage, History, Remembered, Seed, WalkFilter, Workspace};

use crate::bundle::{self, Bundle, FILES_LIMIT};
use crate::recording::Recording;
use crate::{Error, Result};

/// Files that say which files are ignored or how files are compared.
const RULES: [&str; 3] = [".gitignore", ".ignore", ".gitattributes"];
/// Most files that the first turn lists.
const SEEN: usize = 2_000;

/// A session's bundle and its original tree.
pub struct Gathered {
    /// What an export would hold.
    pub bundle: Bundle,
    /// The tree as it was when the session began.
    pub remembered: Remembered,
}

/// Gathers what a session needs. `state` is the folder with the pre-images of its tree, `scratch`
/// an empty one. Files named `instructions` are kept, and those in the root for which
/// `holds_secrets` says so: a run reads them before its first turn.
///
/// # Errors
/// When the repository is gone, or the session's folder cannot be read.
pub fn gather(
    records: Vec<Record>,
    state: &Path,
    scratch: &Path,
    instructions: &str,
    holds_secrets: fn(&str) -> bool,
) -> Result<Gathered> {
    let recording = Recording::of(records.clone())?;
    if !recording.root.is_dir() {
        return Err(Error::NoRepository(recording.root));
    }
    let remembered = Remembered::open(&recording.root, state, scratch)?;
    let history = History::open(state)?;
    let listed = listed(&remembered);
    let end: BTreeMap<CleanPath, Option<Seed>> =
        history.net(..)?.into_iter().map(|c| (c.path, c.after.map(bundle::kept))).collect();
    let searches = Searches::new(&remembered, &scratch.join("then"))?;
    let mut wanted = wanted(&remembered, &recording, &records, &listed, &searches);
    let name = |path: &CleanPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    wanted.extend(listed.keys().filter(|path| name(path) == instructions).cloned());
    // These may be ignored, and so not be listed.
    let top = std::fs::read_dir(remembered.now().root()).into_iter().flatten();
    let names = top.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    wanted.extend(names.filter(|n| holds_secrets(n)).filter_map(|n| remembered.now().resolve(&n).ok()));
    wanted.extend(end.keys().cloned());
    let mut files: BTreeMap<CleanPath, Seed> =
        listed.into_iter().map(|(path, size)| (path, Seed::Size(size))).collect();
    for path in wanted {
        if let Some(image) = remembered.image(&path) {
            files.insert(path, bundle::kept(image));
        }
    }
    let mut notes: Vec<String> = remembered
        .lost()
        .iter()
        .map(|path| format!("{path} was changed by others since; how it was is not known"))
        .collect();
    let mut changes = super::script::Changes::new();
    let known = by_commands(&records);
    for record in history.records() {
        notes.extend(record.left_out.iter().map(|path| {
            format!("{path} was changed and is too large to be kept: that change is not replayed")
        }));
        if record.by != workspace::By::Command {
            continue;
        }
        let Some(by) = known.get(&record.id) else {
            notes.push(format!(
                "what a command changed in turn {} is not replayed: the session does not say which command",
                record.turn
            ));
            continue;
        };
        let Some(by) = by else { continue }; // without a recorded result, the replay ends before it
        let made = history.of(record.id)?.into_iter().map(|c| (c.path, c.after.map(bundle::kept)));
        changes.entry(*by).or_default().extend(made);
    }
    Ok(Gathered { bundle: Bundle { contents: true, files, changes, end, notes, records }, remembered })
}

/// The files at the beginning, with their sizes.
fn listed(remembered: &Remembered) -> BTreeMap<CleanPath, u64> {
    let filter = WalkFilter { limit: FILES_LIMIT, ..WalkFilter::default() };
    let mut files: BTreeMap<CleanPath, u64> =
        remembered.now().walk(&filter).entries.into_iter().map(|e| (e.path, e.size)).collect();
    for (path, then) in remembered.then() {
        match then {
            Some(image) => files.insert(path.clone(), image.bytes.len() as u64),
            None => files.remove(path),
        };
    }
    files
}

/// The files whose contents the replay reads.
fn wanted(
    remembered: &Remembered,
    recording: &Recording,
    records: &[Record],
    listed: &BTreeMap<CleanPath, u64>,
    searches: &Searches,
) -> BTreeSet<CleanPath> {
    let mut wanted = BTreeSet::new();
    let name = |path: &CleanPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    wanted.extend(listed.keys().filter(|path| RULES.contains(&name(path).as_str())).cloned());
    let begun = Begun { remembered, listed, looked: Mutex::default() };
    planner::read_opening_files(&begun, &recording.task, baseline(records));
    wanted.extend(begun.looked.into_inner().unwrap_or_else(PoisonError::into_inner));
    let mut said = String::new();
    for record in records {
        match &record.event {
            // As written, with JSON escapes resolved, and with backslashes in paths.
            Event::Output { content, .. } => {
                said += &content
                    .replace("\\n", "\n")
                    .replace("\\t", "\t")
                    .replace("\\r", "\r")
                    .replace("\\/", "/");
                said += &content.replace("\\\\", "/").replace('\\', "/");
            }
            Event::Call { tool, arguments, .. } if tool == Search::NAME => {
                wanted.extend(searches.matching(arguments, remembered))
            }
            // Also files that are not listed: ignored files can be read.
            Event::Call { arguments, .. } => {
                strings(arguments, &mut said);
                let path = arguments["path"].as_str().and_then(|path| remembered.now().resolve(path).ok());
                wanted.extend(path.filter(|path| path.as_str() != "."));
            }
            _ => {}
        }
    }
    wanted.extend(listed.keys().filter(|path| is_named(&said, path.as_str())).cloned());
    wanted
}

/// All texts in a value.
fn strings(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => *out += &format!("\n{text}\n"),
        Value::Array(items) => items.iter().for_each(|item| strings(item, out)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, out)),
        _ => {}
    }
}

/// Searches the original tree: files that are unchanged since, and a folder with the originals of
/// the others.
struct Searches {
    now: Search,
    then: Search,
}

impl Searches {
    fn new(remembered: &Remembered, folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let then = Workspace::open_replica(folder, remembered.now().root()).map_err(Error::unusable)?;
        for (path, image) in remembered.then() {
            // A file that conflicts with another one did not exist at the same time.
            let _ = image.as_ref().map(|image| then.plant(path, &Seed::Image(image.clone())));
        }
        let search = |workspace| Search::new(workspace, Secrets::disabled());
        Ok(Self { now: search(remembered.now().clone()), then: search(then) })
    }

    fn matching(&self, arguments: &Value, remembered: &Remembered) -> Vec<CleanPath> {
        let mut found = self.now.matching(arguments);
        found.retain(|path| !remembered.then().contains_key(path));
        found.extend(self.then.matching(arguments));
        found
    }
}

/// Whether a text contains a path that is not part of a longer name.
fn is_named(text: &str, path: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(path).any(|(at, _)| {
        let (before, behind) = (text[..at].chars().next_back(), text[at + path.len()..].chars().next());
        !before.is_some_and(part) && !behind.is_some_and(part)
    })
}

/// The verification before the first turn.
fn baseline(records: &[Record]) -> Option<&Check> {
    let before = records.iter().take_while(|r| !matches!(r.event, Event::RunStarted { .. }));
    before.filter_map(|r| if let Event::Checked(check) = &r.event { Some(check) } else { None }).last()
}

/// For each change in the history that a command made: the number of the record with the command's
/// result, if there is one.
fn by_commands(records: &[Record]) -> BTreeMap<u64, Option<u64>> {
    let (mut known, mut open) = (BTreeMap::new(), Vec::new());
    for record in records {
        match &record.event {
            Event::CommandChanged { record } => open.push(*record),
            Event::ToolFinished { .. } | Event::Checked(_) => {
                known.extend(open.drain(..).map(|change| (change, Some(record.seq))))
            }
            _ => {}
        }
    }
    known.extend(open.into_iter().map(|change| (change, None)));
    known
}

/// The tree at the beginning, as the first turn sees it. Records which files are read.
struct Begun<'a> {
    remembered: &'a Remembered,
    listed: &'a BTreeMap<CleanPath, u64>,
    looked: Mutex<BTreeSet<CleanPath>>,
}

impl Repository for Begun<'_> {
    fn files(&self) -> (Vec<FileEntry>, bool) {
        let entry = |(path, bytes): (&CleanPath, &u64)| FileEntry { path: path.to_string(), bytes: *bytes };
        (self.listed.iter().take(SEEN).map(entry).collect(), self.listed.len() > SEEN)
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        let path = CleanPath::try_from(path.to_owned()).ok()?;
        let image: Option<FileImage> = self.remembered.image(&path);
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
        String::from_utf8(image?.bytes).ok().filter(|text| text.len() as u64 <= limit)
    }

    fn instructions(&self) -> Vec<Instructions> {
        Vec::new() // all of them are kept anyway
    }

    fn remember(&self) -> Result<(), String> {
        Ok(())
    }

    fn diff(&self) -> Result<Diff, String> {
        Ok(Diff::default())
    }
}
