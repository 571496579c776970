//! Reads a batch folder for reports and comparisons. Takes no lock, so it also works while a batch
//! is writing to the folder.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use journal::{Ending, Log};
use serde::Deserialize;

use crate::error::Error;
use crate::record::{Finished, Started};
use crate::store::{ATTEMPTS, RESULTS};
use crate::summary::{Row, count};

/// Everything that a batch folder records about its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    /// The tasks in `summary.json`, in that order, followed by tasks that appear only in the
    /// records: those that started after `summary.json` was written, and those that are no longer
    /// in the task file.
    pub tasks: Vec<State>,
}

/// The state of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The task and its result.
    pub row: Row,
    /// The [`Task::digest`](crate::Task::digest) recorded by the last attempt; empty if there was
    /// no attempt.
    pub digest: String,
    /// The attempts with this digest that have ended, in order.
    pub attempts: Vec<Finished>,
}

impl State {
    /// Whether some of the attempts were verified and others were not.
    #[must_use]
    pub fn is_flaky(&self) -> bool {
        let mut verified =
            self.attempts.iter().filter(|a| !a.infrastructure).map(|a| a.ending == Ending::Verified);
        let first = verified.next();
        verified.any(|other| Some(other) != first)
    }
}

impl Folder {
    /// Reads the folder. The last attempt at a task determines which version of the task is
    /// reported.
    ///
    /// # Errors
    /// If `out` is not a batch folder, or if a file is damaged or cannot be read.
    pub fn read(out: &Path) -> Result<Self, Error> {
        if !out.join(RESULTS).is_file() {
            return Err(Error::NoBatch(out.to_owned()));
        }
        let finished: Vec<Finished> = Log::read(&out.join(RESULTS))?;
        let attempts = out.join(ATTEMPTS);
        let started = if attempts.exists() { Log::read(&attempts)? } else { Vec::new() };
        Ok(Self::new(summary_ids(out), &started, finished))
    }

    fn new(mut ids: Vec<String>, started: &[Started], finished: Vec<Finished>) -> Self {
        let mut digests: HashMap<String, String> = HashMap::new();
        let mut tries: HashMap<String, usize> = HashMap::new();
        let mut known: HashSet<String> = ids.iter().cloned().collect();
        let begun = started.iter().map(|s| (&s.id, &s.digest, 1));
        // If the log of started attempts was deleted, count each result as an attempt.
        let ended = finished.iter().map(|f| (&f.id, &f.digest, usize::from(started.is_empty())));
        for (id, digest, n) in ended.chain(begun) {
            digests.insert(id.clone(), digest.clone());
            *tries.entry(id.clone()).or_default() += n;
            if known.insert(id.clone()) {
                ids.push(id.clone());
            }
        }
        let mut results: HashMap<String, Vec<Finished>> = HashMap::new();
        for result in finished {
            if digests.get(&result.id) == Some(&result.digest) {
                results.entry(result.id.clone()).or_default().push(result);
            }
        }
        let state = |id: String| {
            let digest = digests.remove(&id).unwrap_or_default();
            let attempts = results.remove(&id).unwrap_or_default();
            let row = Row::new(
                &id,
                &digest,
                &attempts.iter().collect::<Vec<_>>(),
                tries.get(&id).copied().unwrap_or(0),
            );
            State { row, digest, attempts }
        };
        Self { tasks: ids.into_iter().map(state).collect() }
    }

    /// Returns the number of tasks for each [`Row::label`], most frequent first.
    #[must_use]
    pub fn endings(&self) -> Vec<(String, usize)> {
        count(&self.tasks.iter().map(|task| task.row.clone()).collect::<Vec<_>>())
    }
}

/// Returns the ids in `summary.json`, which also lists tasks that have not run. The file may be
/// missing or outdated.
fn summary_ids(out: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Summary {
        rows: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let text = std::fs::read_to_string(out.join("summary.json")).unwrap_or_default();
    let mut seen = HashSet::new();
    let rows = serde_json::from_str::<Summary>(&text).map(|summary| summary.rows).unwrap_or_default();
    rows.into_iter().map(|row| row.id).filter(|id| seen.insert(id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{Diff, Totals};

    fn started(id: &str, attempt: u32, digest: &str) -> Started {
        Started {
            v: 1,
            id: id.into(),
            attempt,
            digest: digest.into(),
            time_ms: 0,
            worktree: None,
            git_dir: None,
            commit: None,
            kept: false,
        }
    }

    fn finished(id: &str, attempt: u32, digest: &str, ending: Ending) -> Finished {
        Finished {
            v: 1,
            id: id.into(),
            attempt,
            digest: digest.into(),
            time_ms: 0,
            infrastructure: ending.is_infrastructure(),
            ending,
            message: String::new(),
            diff: Diff::default(),
            models: Vec::new(),
            totals: Totals::default(),
            seconds: 1.0,
            session: None,
        }
    }

    #[test]
    fn tasks_that_never_ran_come_from_the_summary() {
        let folder = Folder::new(vec!["b".into(), "a".into()], &[started("c", 1, "x")], Vec::new());
        let ids: Vec<_> = folder.tasks.iter().map(|t| (t.row.id.as_str(), t.row.attempts)).collect();
        assert_eq!(ids, [("b", 0), ("a", 0), ("c", 1)]);
        assert_eq!(folder.endings(), [("not run".to_owned(), 3)]);
    }

    #[test]
    fn a_result_of_an_older_version_of_the_task_does_not_count() {
        let old = finished("a", 1, "old", Ending::Verified);
        let folder = Folder::new(Vec::new(), &[started("a", 1, "old"), started("a", 2, "new")], vec![old]);
        let task = &folder.tasks[0];
        assert_eq!((task.row.label(), task.row.attempts, task.attempts.len()), ("not run", 2, 0));
    }

    #[test]
    fn a_task_whose_results_disagree_is_flaky_and_failures_of_the_infrastructure_do_not_count() {
        let of = |endings: &[Ending]| {
            let all = endings.iter().enumerate().map(|(n, e)| finished("a", n as u32 + 1, "x", e.clone()));
            Folder::new(Vec::new(), &[], all.collect()).tasks.remove(0)
        };
        assert!(of(&[Ending::GaveUp, Ending::Verified]).is_flaky());
        assert!(!of(&[Ending::Unavailable, Ending::Verified]).is_flaky());
        assert!(!of(&[Ending::GaveUp, Ending::NoChange]).is_flaky());
        assert_eq!(of(&[Ending::GaveUp, Ending::Verified]).row.attempts, 2);
    }
}
