//! Merges the results of shards, or of other batches that have no tasks in common.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use journal::{Log, io_error};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::folder::Folder;
use crate::predictions;
use crate::record::{Finished, Started};
use crate::stop::Stop;
use crate::store::{ATTEMPTS, RESULTS, Store, lock};
use crate::summary::Summary;

/// Merges the records, predictions and summaries of the folders in `from` into the folder `out`,
/// and returns the merged summary. The merged summary is computed from the records, because the old
/// summaries may be outdated. If several batches stopped early, the most severe reason is reported.
/// The folders in `from` are not modified.
///
/// # Errors
/// If a batch in one of the folders is running or has never ended, two folders contain the same
/// task, `out` already has results, or a file is damaged or cannot be written.
pub fn merge(from: &[PathBuf], out: &Path) -> Result<Summary, Error> {
    let mut seen: HashMap<String, &Path> = HashMap::new();
    let (mut rows, mut stops) = (Vec::new(), Vec::new());
    let (mut started, mut finished, mut predictions) = (Vec::new(), Vec::new(), String::new());
    for folder in from {
        let ended = Ended::read(folder)?;
        let _held = lock(folder)?;
        let tasks = Folder::read(folder)?.tasks;
        for task in &tasks {
            if let Some(first) = seen.insert(task.row.id.clone(), folder) {
                let (first, second, id) = (first.display(), folder.display(), &task.row.id);
                return Err(Error::Merge(format!("the task {id} is in both {first} and {second}")));
            }
        }
        let results = Log::<Finished>::read(&folder.join(RESULTS))?;
        let digests = tasks.iter().map(|task| (task.row.id.as_str(), task.digest.clone())).collect();
        let (chosen, model) = (predictions::of(&digests, &results), model_name(folder));
        for (_, result) in results.iter().enumerate().filter(|(n, _)| chosen.contains(n)) {
            predictions += &predictions::line(result, &model);
        }
        rows.extend(tasks.into_iter().map(|task| task.row));
        stops.extend(ended.stopped);
        started.extend(Log::<Started>::read(&folder.join(ATTEMPTS))?);
        finished.extend(results);
    }
    let store = Store::open(out)?;
    if !store.started.is_empty() || !store.finished.is_empty() {
        return Err(Error::Merge(format!("{} already has results; choose another folder", out.display())));
    }
    let stopped = stops.into_iter().max_by_key(|stop: &Stop| stop.exit_code());
    let summary = Summary::of(rows, || finished.iter(), stopped);
    store.replace(ATTEMPTS, &lines(&started))?;
    store.replace(RESULTS, &lines(&finished))?;
    store.replace("predictions.jsonl", &predictions)?;
    store.replace("summary.json", &summary.to_json())?;
    Ok(summary)
}

/// The part of a batch's summary that cannot be computed from its records.
#[derive(Deserialize)]
struct Ended {
    stopped: Option<Stop>,
}

impl Ended {
    fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("summary.json");
        if !path.exists() {
            let message = format!("{} has no summary.json: the batch there has not ended", folder.display());
            return Err(Error::Merge(message));
        }
        let invalid = |e: serde_json::Error| Error::Merge(format!("{} is damaged: {e}", path.display()));
        serde_json::from_str(&read(&path)?).map_err(invalid)
    }
}

/// Returns the model name in a batch's predictions.
fn model_name(folder: &Path) -> String {
    #[derive(Deserialize)]
    struct Prediction {
        model_name_or_path: String,
    }
    let text = read(&folder.join("predictions.jsonl")).unwrap_or_default();
    let first = text.lines().next().and_then(|line| serde_json::from_str::<Prediction>(line).ok());
    first.map_or_else(|| "agent".to_owned(), |first| first.model_name_or_path)
}

fn read(path: &Path) -> Result<String, Error> {
    Ok(fs::read_to_string(path).map_err(io_error("cannot read", path))?)
}

fn lines<T: Serialize>(records: &[T]) -> String {
    // Records that could be decoded can also be encoded.
    records.iter().map(|record| serde_json::to_string(record).unwrap_or_default() + "\n").collect()
}
