//! Notes about the protected files of a task, for the model and the user.

use std::path::Path;

use workspace::{Protected, Workspace};

/// Returns the patterns that do not match any file under `root`. The list is empty if the files
/// cannot be listed, in which case the run itself reports why.
pub(crate) fn unmatched(patterns: &[String], root: &Path) -> Vec<String> {
    let (Ok(protected), Ok(workspace)) = (Protected::new(patterns), Workspace::open(root)) else {
        return Vec::new();
    };
    protected.unmatched(&workspace).unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// Returns the sentence about protected files that is appended to the task.
pub(crate) fn note(patterns: &[String]) -> String {
    let listed: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    format!(
        "\n\nDo not change files that match {}: the agent restores them before each command.",
        listed.join(", ")
    )
}
