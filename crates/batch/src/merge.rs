//! Merges the results of shards, or of other batches that have no task in common.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use journal::{Log, io_error};
use serde::Serialize;

use crate::error::Error;
use crate::record::{Finished, Started};
use crate::store::Store;
use crate::summary::Summary;

/// Merges the records, predictions and summaries of the folders `from` into the folder `out`, and
/// returns the merged summary. The folders `from` stay as they are.
///
/// # Errors
/// If a batch in one of the folders has not ended, two folders have the same task, `out` has
/// results, or a file is damaged or cannot be written.
pub fn merge(from: &[PathBuf], out: &Path) -> Result<Summary, Error> {
    let mut summaries = Vec::new();
    let mut seen: HashMap<String, &Path> = HashMap::new();
    let (mut started, mut finished, mut predictions) = (Vec::new(), Vec::new(), String::new());
    for folder in from {
        let summary = read_summary(folder)?;
        for row in &summary.rows {
            if let Some(first) = seen.insert(row.id.clone(), folder) {
                let (first, second) = (first.display(), folder.display());
                return Err(Error::Merge(format!("the task {} is in both {first} and {second}", row.id)));
            }
        }
        summaries.push(summary);
        started.extend(Log::<Started>::read(&folder.join("attempts.jsonl"))?);
        finished.extend(Log::<Finished>::read(&folder.join("results.jsonl"))?);
        predictions += &read(&folder.join("predictions.jsonl"))?;
    }
    let store = Store::open(out)?;
    if !store.started.is_empty() || !store.finished.is_empty() {
        return Err(Error::Merge(format!("{} has results already; choose another folder", out.display())));
    }
    let summary = Summary::merge(summaries);
    store.replace("attempts.jsonl", &lines(&started))?;
    store.replace("results.jsonl", &lines(&finished))?;
    store.replace("predictions.jsonl", &predictions)?;
    store.replace("summary.json", &summary.to_json())?;
    Ok(summary)
}

fn read_summary(folder: &Path) -> Result<Summary, Error> {
    let path = folder.join("summary.json");
    if !path.exists() {
        let message = format!("{} has no summary.json: the batch there has not ended", folder.display());
        return Err(Error::Merge(message));
    }
    let invalid = |e: serde_json::Error| Error::Merge(format!("{} is damaged: {e}", path.display()));
    serde_json::from_str(&read(&path)?).map_err(invalid)
}

fn read(path: &Path) -> Result<String, Error> {
    Ok(fs::read_to_string(path).map_err(io_error("cannot read", path))?)
}

fn lines<T: Serialize>(records: &[T]) -> String {
    // Encoding records that were read cannot fail.
    records.iter().map(|record| serde_json::to_string(record).unwrap_or_default() + "\n").collect()
}
