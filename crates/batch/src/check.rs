//! Checks, before anything runs, that the repositories and commits of tasks exist.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::path::Path;

use crate::clones;
use crate::task::Task;
use crate::worktree::Source;

/// Returns the ids of tasks whose repository or commit does not exist, each with a sentence that
/// describes the problem. Does not change anything. Skips repositories that would have to be
/// cloned.
pub async fn check(tasks: &[Task]) -> Vec<(&str, String)> {
    let mut known: HashMap<(&Path, Option<&str>), Option<String>> = HashMap::new();
    let mut problems = Vec::new();
    for task in tasks.iter().filter(|task| !clones::is_remote(&task.repo)) {
        let source = (task.repo.as_path(), task.base_commit.as_deref());
        let problem = match known.entry(source) {
            Occupied(found) => found.into_mut(),
            Vacant(new) => {
                new.insert(Source::find(task, &task.repo).await.err().map(|unusable| unusable.why))
            }
        };
        if let Some(problem) = problem {
            problems.push((task.id.as_str(), problem.clone()));
        }
    }
    problems
}
