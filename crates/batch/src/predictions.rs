//! `predictions.jsonl`: the input of SWE-bench's evaluation, one object per line.

use std::collections::HashMap;

use serde::Serialize;

use crate::record::Finished;
use crate::task::Task;

#[derive(Serialize)]
struct Prediction<'a> {
    instance_id: &'a str,
    model_name_or_path: &'a str,
    model_patch: &'a str,
}

/// The last patch of each task that the agent finished, in the order of first completion. Leaves
/// out infrastructure failures, which would count as wrong answers, and results for tasks that have
/// changed since.
pub(crate) fn render(tasks: &[Task], finished: &[Finished], model: &str) -> Vec<u8> {
    let digests: HashMap<&str, String> = tasks.iter().map(|t| (t.id.as_str(), t.digest())).collect();
    let mut order: Vec<&str> = Vec::new();
    let mut last: HashMap<&str, &Finished> = HashMap::new();
    for result in finished {
        let current = digests.get(result.id.as_str()).is_none_or(|digest| *digest == result.digest);
        if current && !result.infrastructure && last.insert(&result.id, result).is_none() {
            order.push(&result.id);
        }
    }
    let mut lines = Vec::new();
    for result in order.iter().filter_map(|id| last.get(id)) {
        let prediction = Prediction {
            instance_id: &result.id,
            model_name_or_path: model,
            model_patch: &result.diff.patch,
        };
        // Encoding strings cannot fail.
        lines.extend(serde_json::to_vec(&prediction).unwrap_or_default());
        lines.push(b'\n');
    }
    lines
}
