//! `predictions.jsonl`: the input of SWE-bench's evaluation, one object per line.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use crate::record::Finished;

/// Returns the positions of the results whose patches become predictions: for each task, the last
/// result from the agent. Leaves out results of tasks that have changed since the run, and
/// infrastructure failures, which the evaluation would count as wrong answers. `digests` contains
/// the current digest of each task.
pub(crate) fn of(digests: &HashMap<&str, String>, finished: &[Finished]) -> HashSet<usize> {
    let current = |result: &Finished| digests.get(result.id.as_str()).is_none_or(|d| *d == result.digest);
    let counts = finished.iter().enumerate().filter(|(_, result)| current(result) && !result.infrastructure);
    let last: HashMap<&str, usize> = counts.map(|(n, result)| (result.id.as_str(), n)).collect();
    last.into_values().collect()
}

/// Returns the line for one result.
pub(crate) fn line(result: &Finished, model: &str) -> String {
    let patch = &result.diff.patch;
    format!("{}\n", json!({"instance_id": result.id, "model_name_or_path": model, "model_patch": patch}))
}
