//! Creates a [`Bundle`] from a session on this machine. It includes the files that a replay reads,
//! as they were at the start of the session.
//!
//! A bundle includes the contents of instruction files, ignore rules, and every file that the first
//! turn read, the model mentioned, a search matched, or the session changed. For all other files,
//! it includes only names and sizes, so a search finds nothing in them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use journal::{Check, Event, Record};
use secrets::Secrets;
use serde_json::Value;
use tool_search::Search;
use workspace::{By, CleanPath, History, Remembered, Seed, WalkFilter, Workspace};

use crate::bundle::{self, Bundle, FILES_LIMIT};
use crate::recording::Recording;
use crate::{Error, Result};

/// Files that define which files are ignored or how files are compared.
const RULES: [&str; 3] = [".gitignore", ".ignore", ".gitattributes"];
/// Maximum number of files that the first turn lists.
const MAX_LISTED: usize = 2_000;

/// The bundle of a session, and the session's original tree.
pub struct Gathered {
    /// The bundle, as it would be exported.
    pub bundle: Bundle,
    /// The tree at the start of the session.
    pub remembered: Remembered,
}

/// Gathers the files that a replay needs. `state` is the folder with the history of the tree, and
/// `scratch` is an empty folder. Includes every file whose name is `instructions`, and every file
/// in the root whose name satisfies `holds_secrets`, because a run reads all of these before its
/// first turn.
///
/// # Errors
/// If the repository no longer exists, or the session's folder cannot be read.
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
        history.net(..)?.into_iter().map(|c| (c.path, c.after.map(bundle::seed))).collect();
    let searches = Searches::new(&remembered, &scratch.join("then"))?;
    let mut wanted = wanted(&remembered, &recording, &records, &listed, &searches);
    wanted.extend(listed.keys().filter(|path| name(path) == instructions).cloned());
    // A file with secrets may be ignored. `listed` does not contain ignored files, so look for such
    // names in the root itself.
    let top = std::fs::read_dir(remembered.now().root()).into_iter().flatten();
    let names = top.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    wanted.extend(names.filter(|n| holds_secrets(n)).filter_map(|n| remembered.now().resolve(&n).ok()));
    wanted.extend(end.keys().cloned());
    let mut files: BTreeMap<CleanPath, Seed> =
        listed.into_iter().map(|(path, size)| (path, Seed::Size(size))).collect();
    for path in wanted {
        if let Some(image) = remembered.image(&path) {
            files.insert(path, bundle::seed(image));
        }
    }
    let lost = |path| format!("{path}: the original content is unknown, because the file has changed since");
    let mut notes: Vec<String> = remembered.lost().iter().map(lost).collect();
    let mut changes = super::script::Changes::new();
    let known = by_commands(&records);
    for record in history.records() {
        let too_large = |path| format!("{path}: a change is not replayed, because the file is too large");
        notes.extend(record.left_out.iter().map(too_large));
        if !matches!(record.by, By::Command | By::Revert) {
            continue;
        }
        let Some(by) = known.get(&record.id) else {
            notes.push(format!(
                "the changes of a command in turn {} are not replayed, because the session does not say which command made them",
                record.turn
            ));
            continue;
        };
        // If the command has no recorded result, the replay ends before the command runs.
        let Some(by) = by else { continue };
        let made = history.of(record.id)?.into_iter().map(|c| (c.path, c.after.map(bundle::seed)));
        changes.entry(*by).or_default().extend(made);
    }
    Ok(Gathered { bundle: Bundle { contents: true, files, changes, end, notes, records }, remembered })
}

/// Returns the files at the start of the session, with their sizes.
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

/// Returns the files whose contents the replay reads.
fn wanted(
    remembered: &Remembered,
    recording: &Recording,
    records: &[Record],
    listed: &BTreeMap<CleanPath, u64>,
    searches: &Searches,
) -> BTreeSet<CleanPath> {
    let mut wanted = BTreeSet::new();
    wanted.extend(listed.keys().filter(|path| RULES.contains(&name(path))).cloned());
    let first: Vec<String> = listed.keys().take(MAX_LISTED).map(ToString::to_string).collect();
    let opened = RefCell::new(BTreeSet::new());
    planner::read_opening_files(&first, &recording.task, baseline(records), |path, limit| {
        let path = CleanPath::try_from(path.to_owned()).ok()?;
        let image = remembered.image(&path);
        opened.borrow_mut().insert(path);
        String::from_utf8(image?.bytes).ok().filter(|text| text.len() as u64 <= limit)
    });
    wanted.extend(opened.into_inner());
    let mut mentioned = String::new();
    for record in records {
        match &record.event {
            // Add the content twice: once with JSON escapes resolved, and once with backslashes in
            // paths replaced by slashes.
            Event::Output { content, .. } => {
                mentioned += &content
                    .replace("\\n", "\n")
                    .replace("\\t", "\t")
                    .replace("\\r", "\r")
                    .replace("\\/", "/");
                mentioned += &content.replace("\\\\", "/").replace('\\', "/");
            }
            Event::Call { tool, arguments, .. } if tool == Search::NAME => {
                wanted.extend(searches.matching(arguments, remembered))
            }
            // Some tools report the files that they found.
            Event::ToolFinished { facts, .. } => {
                let paths = facts["paths"].as_array().into_iter().flatten();
                wanted.extend(paths.filter_map(|path| CleanPath::try_from(path.as_str()?.to_owned()).ok()));
            }
            // Tools can also read ignored files, which are not listed.
            Event::Call { arguments, .. } => {
                collect_strings(arguments, &mut mentioned);
                let path = arguments["path"].as_str().and_then(|path| remembered.now().resolve(path).ok());
                wanted.extend(path.filter(|path| path.as_str() != "."));
            }
            _ => {}
        }
    }
    wanted.extend(listed.keys().filter(|path| is_named(&mentioned, path.as_str())).cloned());
    wanted
}

fn name(path: &CleanPath) -> &str {
    path.as_str().rsplit('/').next().unwrap_or_default()
}

/// Collects all strings in a value.
fn collect_strings(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => *out += &format!("\n{text}\n"),
        Value::Array(items) => items.iter().for_each(|item| collect_strings(item, out)),
        Value::Object(fields) => fields.values().for_each(|field| collect_strings(field, out)),
        _ => {}
    }
}

/// Searches the original tree: unchanged files in place, and the originals of changed files in a
/// separate folder.
struct Searches {
    now: Search,
    then: Search,
}

impl Searches {
    fn new(remembered: &Remembered, folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let then = Workspace::open_replica(folder, remembered.now().root()).map_err(Error::unusable)?;
        for (path, image) in remembered.then() {
            // Ignore errors: two paths can conflict if their files did not exist at the same time.
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

/// Whether `text` contains `path` as a whole, not just as part of a longer name.
fn is_named(text: &str, path: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(path).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + path.len()..].chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// Returns the result of the verification that ran before the first turn.
fn baseline(records: &[Record]) -> Option<&Check> {
    let before = records.iter().take_while(|r| !matches!(r.event, Event::RunStarted { .. }));
    before.filter_map(|r| if let Event::Checked(check) = &r.event { Some(check) } else { None }).last()
}

/// Maps the history's records of commands and reverts to journal record numbers. A command's
/// changes are mapped to the record of the command's result, or to `None` if there is none. A
/// revert is mapped to the first [`Event::Reverted`] that refers to it.
fn by_commands(records: &[Record]) -> BTreeMap<u64, Option<u64>> {
    let (mut known, mut open) = (BTreeMap::new(), Vec::new());
    for record in records {
        match &record.event {
            Event::CommandChanged { record } => open.push(*record),
            // If there was nothing to revert, the number of the previous revert is reported again.
            Event::Reverted { record: Some(revert), .. } => {
                known.entry(*revert).or_insert(Some(record.seq));
            }
            Event::ToolFinished { .. } | Event::Checked(_) => {
                known.extend(open.drain(..).map(|change| (change, Some(record.seq))))
            }
            _ => {}
        }
    }
    known.extend(open.into_iter().map(|change| (change, None)));
    known
}
