//! Finds the file that a path in a patch refers to.

use std::borrow::Cow;

use patch::Dialect;
use workspace::Workspace;

use crate::refusal::Why;

/// Characters that may precede a file name in Markdown and in comments.
const DECORATION: [char; 4] = ['#', '*', '>', '-'];

/// Returns the path without decoration. Only search/replace blocks have decorated paths. A file
/// whose name is exactly the decorated path takes precedence.
pub(crate) fn undecorated<'p>(
    workspace: &Workspace,
    path: &'p str,
    dialect: Dialect,
) -> Result<&'p str, Why> {
    refusal(workspace, path).map_or(Ok(()), |message| Err(Why::plain(message)))?;
    let bare = path.trim_start_matches(DECORATION);
    let decorated = dialect == Dialect::SearchReplace && bare.len() < path.len() && !bare.is_empty();
    Ok(if decorated && workspace.resolve(path).is_err() { bare } else { path })
}

/// Returns whether the path starts with a character that may be decoration.
pub(crate) fn may_be_decorated(path: &str) -> bool {
    path.starts_with(DECORATION)
}

/// Returns the refusal for a path that ends with a slash, or that starts with `~` or a variable,
/// which would not be expanded. Returns `None` for other paths, and for paths below a folder that
/// is literally called `~` or `$NAME`.
pub(crate) fn refusal(workspace: &Workspace, path: &str) -> Option<String> {
    let shown: Cow<'_, str> = path.chars().take(100).collect();
    if path.ends_with('/') {
        return Some(format!("{shown} names a folder, not a file; give the path of the file"));
    }
    let (first, _) = path.split_once('/')?;
    let variable = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '_' | '{' | '}'))
    };
    let expands = first.starts_with('~') || first.strip_prefix('$').is_some_and(variable);
    (expands && workspace.resolve(first).is_err())
        .then(|| format!("{shown} has {first}, which is not expanded; give a path relative to the workspace"))
}
