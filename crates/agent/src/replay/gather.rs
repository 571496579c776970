//! From a session of this machine to a [`Bundle`]: the tree as it was when the session began, as far as its replay looks at it.
//!
//! Contents are taken of the files that the first turn looks into, that the model named in an answer, in which a search found something, and that the
//! session changed; of instruction files and rules of what is ignored. Of all others only names and sizes: a search finds nothing in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use journal::{Check, Diff, Event, Record};
use planner::{FileEntry, Instructions, Repository};
use secrets::Secrets;
use serde_json::Value;
use tool_search::Search;
use workspace::{CleanPath, FileImage, History, Remembered, Seed, WalkFilter, Workspace};

use super::bundle::{self, Bundle, FILES_LIMIT};
use super::recording::Recording;
use crate::exit::{Failure, Result};
use crate::masking;
use crate::repository::INSTRUCTIONS;
use crate::session;

/// Files that say which others are ignored or how they are compared.
const RULES: [&str; 3] = [".gitignore", ".ignore", ".gitattributes"];
/// Files that the first turn sees: as many as a run shows.
const SEEN: usize = 2_000;

/// A session's bundle, and its tree as it was.
pub(crate) struct Gathered {
    pub(crate) bundle: Bundle,
    pub(crate) remembered: Remembered,
}

/// Gathers what a session needs. `folder` is the session's, `scratch` one that is ours.
///
/// # Errors
/// When the repository is not there any more, or the session's folder cannot be read.
pub(crate) fn gather(folder: &Path, records: Vec<Record>, scratch: &Path) -> Result<Gathered> {
    let recording = Recording::of(records.clone())?;
    if !recording.root.is_dir() {
        return Err(Failure::misuse(format!("{} is not there any more", recording.root.display()))
            .hint("--recorded replays without the repository, --no-contents exports without it"));
    }
    let state = folder.join(session::STATE);
    let remembered = Remembered::open(&recording.root, &state, scratch)?;
    let history = History::open(&state)?;
    let listed = listed(&remembered);
    let end: BTreeMap<CleanPath, Option<Seed>> =
        history.net(..)?.into_iter().map(|c| (c.path, c.after.map(bundle::kept))).collect();
    let searches = Searches::new(&remembered, &scratch.join("then"))?;
    let mut wanted = wanted(&remembered, &recording, &records, &listed, &searches);
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
        let Some(by) = by else { continue }; // its result is not on record: nothing is replayed behind it
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

/// The files whose contents the replay looks at.
fn wanted(
    remembered: &Remembered,
    recording: &Recording,
    records: &[Record],
    listed: &BTreeMap<CleanPath, u64>,
    searches: &Searches,
) -> BTreeSet<CleanPath> {
    let mut wanted = BTreeSet::new();
    let name = |path: &CleanPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    wanted.extend(
        listed
            .keys()
            .filter(|path| RULES.contains(&name(path).as_str()) || name(path) == INSTRUCTIONS)
            .cloned(),
    );
    // A run looks into these before its first turn. They may be ignored, and so not be listed.
    let telling =
        std::fs::read_dir(remembered.now().root()).into_iter().flatten().filter_map(std::result::Result::ok);
    let telling = telling
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| masking::is_telling(name));
    wanted.extend(telling.filter_map(|name| remembered.now().resolve(&name).ok()));
    let begun = Begun { remembered, listed, looked: Mutex::default() };
    planner::look(&begun, &recording.task, baseline(records));
    wanted.extend(begun.looked.into_inner().unwrap_or_else(PoisonError::into_inner));
    let mut said = String::new();
    for record in records {
        match &record.event {
            // As it stands, with the escapes of JSON as what they stand for, and with Windows' way to write paths.
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
            // Also what is not listed: ignored files can be read.
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

/// Searches in the tree as it was: in the files of now that are as they were, and in a folder with the others.
struct Searches {
    now: Search,
    then: Search,
}

impl Searches {
    fn new(remembered: &Remembered, folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let then = Workspace::open_replica(folder, remembered.now().root()).map_err(Failure::refused)?;
        for (path, image) in remembered.then() {
            // What cannot stand beside the others was not there with them.
            let _ = image.as_ref().map(|image| then.plant(path, &Seed::Image(image.clone())));
        }
        let search = |workspace| Search::new(workspace, Secrets::off());
        Ok(Self { now: search(remembered.now().clone()), then: search(then) })
    }

    fn matching(&self, arguments: &Value, remembered: &Remembered) -> Vec<CleanPath> {
        let mut found = self.now.matching(arguments);
        found.retain(|path| !remembered.then().contains_key(path));
        found.extend(self.then.matching(arguments));
        found
    }
}

/// Whether a path stands in a text, not as a part of a longer name.
fn is_named(text: &str, path: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(path).any(|(at, _)| {
        let (before, behind) = (text[..at].chars().next_back(), text[at + path.len()..].chars().next());
        !before.is_some_and(part) && !behind.is_some_and(part)
    })
}

/// The verification before the first turn.
fn baseline(records: &[Record]) -> Option<&Check> {
    let before = records.iter().take_while(|r| !matches!(r.event, Event::Begun { .. }));
    before.filter_map(|r| if let Event::Checked(check) = &r.event { Some(check) } else { None }).last()
}

/// The record with the result of the command that made each change of the history, where there is one.
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

/// The tree at the beginning, as the first turn sees it; takes note of what is looked into.
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
        Vec::new() // all of them are taken
    }

    fn remember(&self) -> Result<(), String> {
        Ok(())
    }

    fn diff(&self) -> Result<Diff, String> {
        Ok(Diff::default())
    }
}
