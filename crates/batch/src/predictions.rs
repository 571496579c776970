//! `predictions.jsonl`: the input of SWE-bench's evaluation, one object per line.

use std::collections::HashMap;

use serde_json::json;

use crate::record::Finished;
use crate::task::Task;

/// Returns the last patch of each task that the agent finished, in the order in which the tasks
/// were first finished. Leaves out infrastructure failures, which the evaluation would count as
/// wrong answers, and results of tasks that have changed since.
pub(crate) fn render(tasks: &[Task], finished: &[Finished], model: &str) -> String {
    of(&tasks.iter().map(|t| (t.id.as_str(), t.digest())).collect(), finished, model)
}

/// Same as [`render`], from the current digest of each task.
pub(crate) fn of(digests: &HashMap<&str, String>, finished: &[Finished], model: &str) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut last: HashMap<&str, &Finished> = HashMap::new();
    for result in finished {
        let current = digests.get(result.id.as_str()).is_none_or(|digest| *digest == result.digest);
        if current && !result.infrastructure && last.insert(&result.id, result).is_none() {
            order.push(&result.id);
        }
    }
    let line = |result: &&Finished| {
        let patch = &result.diff.patch;
        format!("{}\n", json!({"instance_id": result.id, "model_name_or_path": model, "model_patch": patch}))
    };
    order.iter().filter_map(|id| last.get(id)).map(line).collect()
}
