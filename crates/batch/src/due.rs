//! Determines which tasks are due, given the records of earlier invocations. Performs no I/O.

use std::collections::{HashMap, HashSet, VecDeque};

use journal::Ending;
use tokio::time::Instant;

use crate::record::{Finished, Started};
use crate::task::Task;

/// A task that is due.
#[derive(Debug, Clone)]
pub(crate) struct Due<'t> {
    pub(crate) task: &'t Task,
    pub(crate) digest: String,
    pub(crate) attempt: u32,
    /// How many times this invocation has retried the task.
    pub(crate) retried: u32,
    /// When it may start; `None` means immediately.
    pub(crate) not_before: Option<Instant>,
}

/// The tasks that are due, why some of them are due again, and the tasks that are done.
#[derive(Default)]
pub(crate) struct Plan<'t> {
    pub(crate) queue: VecDeque<Due<'t>>,
    /// Tasks that have changed since their result was produced.
    pub(crate) changed: Vec<&'t str>,
    /// Tasks whose last attempt was killed or crashed, with the number of that attempt.
    pub(crate) cut_off: Vec<(&'t str, u32)>,
    /// Tasks that run again because the agent finished them unsuccessfully.
    pub(crate) failed: Vec<&'t str>,
    /// Tasks that keep their result, with the number of the attempt that produced it.
    pub(crate) kept: Vec<(&'t Task, u32)>,
    /// How many of the kept results are verified.
    pub(crate) verified: usize,
}

/// Plans the tasks whose current version the agent has not finished yet, in the order they appear
/// in `tasks`. With `retry_failed`, also plans the tasks that the agent finished unsuccessfully.
pub(crate) fn plan<'t>(
    tasks: &'t [Task],
    started: &[Started],
    finished: &[Finished],
    retry_failed: bool,
) -> Plan<'t> {
    let ended: HashSet<(&str, u32)> =
        finished.iter().map(|result| (result.id.as_str(), result.attempt)).collect();
    let mut last: HashMap<&str, u32> = HashMap::new();
    // Include results too, in case the log of started attempts was deleted.
    let attempts =
        started.iter().map(|attempt| (attempt.id.as_str(), attempt.attempt)).chain(ended.iter().copied());
    for (id, attempt) in attempts {
        let last = last.entry(id).or_default();
        *last = attempt.max(*last);
    }
    // By task id, then by digest: the last result that is not an infrastructure failure.
    let mut done: HashMap<&str, HashMap<&str, &Finished>> = HashMap::new();
    for result in finished.iter().filter(|result| !result.infrastructure) {
        done.entry(&result.id).or_default().insert(&result.digest, result);
    }
    let mut plan = Plan::default();
    for task in tasks {
        let (id, digest) = (task.id.as_str(), task.digest());
        let last = last.get(id).copied();
        match (done.get(id).map(|results| results.get(digest.as_str())), last) {
            (Some(Some(result)), _) if result.ending == Ending::Verified || !retry_failed => {
                plan.verified += usize::from(result.ending == Ending::Verified);
                plan.kept.push((task, result.attempt));
                continue;
            }
            (Some(Some(_)), _) => plan.failed.push(id),
            (Some(None), _) => plan.changed.push(id),
            (None, Some(last)) if !ended.contains(&(id, last)) => plan.cut_off.push((id, last)),
            (None, _) => {}
        }
        let attempt = last.unwrap_or(0).saturating_add(1);
        plan.queue.push_back(Due { task, digest, attempt, retried: 0, not_before: None });
    }
    plan
}
