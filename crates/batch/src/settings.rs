//! Records the settings of each invocation in `settings.jsonl`, so that a later invocation can tell
//! which results were produced with different settings.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use journal::{Log, Versioned};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::record::Started;
use crate::task::Task;

/// The format version of the records.
const VERSION: u32 = 1;
/// The file with the [`Configured`] records. An invocation adds a record if its settings differ
/// from those in the last record.
pub(crate) const SETTINGS: &str = "settings.jsonl";

/// The settings that can affect a result. Maps each key to its value, or to `None` if it is not
/// set. The caller leaves out secrets.
pub type Settings = BTreeMap<String, Option<String>>;

/// A setting whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// Its value when the result was produced; `None` if it was not set.
    pub old: Option<String>,
    /// Its value now.
    pub new: Option<String>,
}

/// The settings of an invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Configured {
    v: u32,
    /// How many attempts had started before this invocation.
    attempts: usize,
    settings: Settings,
}

impl Versioned for Configured {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.v
    }
}

/// Records the settings of this invocation, unless they are the same as in the last record. Returns
/// all records. `attempts` is the number of attempts that have started in the folder.
pub(crate) fn record(folder: &Path, attempts: usize, settings: &Settings) -> Result<Vec<Configured>, Error> {
    let (mut log, mut records) = Log::open(folder.join(SETTINGS))?;
    if records.last().is_none_or(|last: &Configured| last.settings != *settings) {
        let configured = Configured { v: VERSION, attempts, settings: settings.clone() };
        log.append(log.encode(&configured)?, true)?;
        records.push(configured);
    }
    Ok(records)
}

/// Returns the tasks whose result was produced with settings that have since changed, grouped by
/// those changes. `kept` lists the tasks that keep their result, each with the number of the
/// attempt that produced it. Ignores settings that the task itself overrides.
pub(crate) fn outdated<'t>(
    kept: &[(&'t Task, u32)],
    started: &[Started],
    records: &[Configured],
) -> Vec<(Vec<Change>, Vec<&'t str>)> {
    let mut groups: Vec<(Vec<Change>, Vec<&str>)> = Vec::new();
    let (Some(now), true) = (records.last(), records.len() > 1) else { return groups };
    let attempts = started.iter().enumerate().map(|(at, s)| ((s.id.as_str(), s.attempt), at));
    let attempts: HashMap<_, _> = attempts.collect();
    for (task, attempt) in kept {
        let Some(at) = attempts.get(&(task.id.as_str(), *attempt)) else { continue };
        let Some(then) = records.iter().rev().find(|record| record.attempts <= *at) else { continue };
        let mut changes = changes(&then.settings, &now.settings);
        changes.retain(|change| !task.sets(&change.key));
        match groups.iter_mut().find(|(group, _)| *group == changes) {
            _ if changes.is_empty() => {}
            Some((_, tasks)) => tasks.push(&task.id),
            None => groups.push((changes, vec![&task.id])),
        }
    }
    groups
}

/// Returns the settings whose values differ. Ignores keys that only one of the maps has, because
/// another version of the agent added or removed them.
fn changes(old: &Settings, new: &Settings) -> Vec<Change> {
    let both = new.iter().filter_map(|(key, new)| Some((key, old.get(key)?, new)));
    let differ = both.filter(|(_, old, new)| old != new);
    differ.map(|(key, old, new)| Change { key: key.clone(), old: old.clone(), new: new.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(model: &str, turns: &str) -> Settings {
        [("model", model), ("max_turns", turns)].map(|(k, v)| (k.into(), Some(v.into()))).into()
    }

    fn started(id: &str) -> Started {
        Started {
            v: 1,
            id: id.into(),
            attempt: 1,
            digest: String::new(),
            time_ms: 0,
            worktree: None,
            git_dir: None,
            commit: None,
            kept: false,
        }
    }

    #[test]
    fn tasks_are_grouped_by_the_settings_that_changed_since_their_attempts() {
        let folder = tempfile::tempdir().unwrap();
        let record = |attempts, settings: &Settings| record(folder.path(), attempts, settings).unwrap();
        record(0, &settings("a", "40"));
        record(2, &settings("a", "9"));
        record(2, &settings("a", "9"));
        let records = record(3, &settings("b", "9"));
        assert_eq!(records.len(), 3, "unchanged settings are recorded once");

        let started = ["one", "two", "three", "four"].map(started);
        let task = |id: &str| Task { id: id.into(), ..Task::default() };
        let (one, three, four) = (task("one"), task("three"), task("four"));
        let two = Task { model: Some("own".into()), ..task("two") };
        let kept = [(&one, 1), (&two, 1), (&three, 1), (&four, 1)];
        let change = |key: &str, old: &str, new: &str| Change {
            key: key.into(),
            old: Some(old.into()),
            new: Some(new.into()),
        };
        let (turns, model) = (change("max_turns", "40", "9"), change("model", "a", "b"));
        let wanted = vec![
            (vec![turns.clone(), model.clone()], vec!["one"]),
            (vec![turns], vec!["two"]),
            (vec![model], vec!["three"]),
        ];
        assert_eq!(outdated(&kept, &started, &records), wanted);
        assert_eq!(outdated(&kept, &[], &records), [], "the result of an unknown attempt is not outdated");
    }

    #[test]
    fn a_key_that_only_one_version_has_is_not_a_change() {
        let older = Settings::from([("model".into(), None)]);
        assert_eq!(changes(&older, &settings("a", "9")).len(), 1);
        assert_eq!(changes(&settings("a", "9"), &Settings::default()), []);
    }
}
