//! Explains a refused edit to the model, in more detail after a second miss in the same place.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use patch::{Dialect, Refusal, RefusalKind};
use secrets::Secrets;
use text_view::Unwritable;
use tool_api::ToolError;
use workspace::{CleanPath, CommitError, Digest, PathError, ReadError, Workspace};

/// After a second miss, a file of up to this many lines is shown in full.
const SMALL: usize = 100;
/// Number of lines of a larger file shown above and below the miss.
const AROUND: usize = 30;
/// Maximum length of a displayed line, in characters.
const WIDTH: usize = 200;
/// Two misses up to this many lines apart are considered to be in the same place.
const SAME: usize = 40;

/// Why a patch is refused, and for which file, if any.
pub(crate) struct Why {
    pub(crate) path: Option<CleanPath>,
    pub(crate) message: String,
    /// The line of the file that the refusal points to, if any, and the format of the patch. This
    /// is `None` unless the lines of the patch match nowhere or in several places.
    missed: Option<(Option<usize>, Dialect)>,
}

impl Why {
    pub(crate) fn plain(message: String) -> Self {
        Self { path: None, message, missed: None }
    }

    /// Creates the reason for refusing text that the file's encoding cannot represent.
    pub(crate) fn unwritable(path: CleanPath, why: &Unwritable) -> Self {
        Self { path: Some(path), message: why.to_string(), missed: None }
    }

    /// Creates the reason from the patch engine's refusal to change this file.
    pub(crate) fn of(path: CleanPath, refused: &Refusal, dialect: Dialect) -> Self {
        let missed = matches!(refused.kind, RefusalKind::NotFound | RefusalKind::Ambiguous)
            .then_some((refused.line, dialect));
        Self { path: Some(path), message: refused.to_string(), missed }
    }
}

impl From<PathError> for Why {
    fn from(e: PathError) -> Self {
        Self::plain(e.to_string())
    }
}

impl From<ReadError> for Why {
    fn from(e: ReadError) -> Self {
        Self::plain(e.to_string())
    }
}

impl From<CommitError> for Why {
    fn from(e: CommitError) -> Self {
        Self::plain(match e {
            CommitError::Twice(path) => format!("{path} is changed twice in the patch; make it one change"),
            e => e.to_string(),
        })
    }
}

/// The line of the last failed match in each file, kept until an edit to that file succeeds.
#[derive(Debug, Default)]
pub(crate) struct Misses(Mutex<HashMap<CleanPath, Option<usize>>>);

impl Misses {
    /// Forgets the misses of a file after a successful edit.
    pub(crate) fn clear(&self, path: &CleanPath) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Records a miss and returns whether the previous one was in the same place.
    fn record(&self, path: &CleanPath, line: Option<usize>) -> bool {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = misses.insert(path.clone(), line);
        before.is_some_and(|before| before.zip(line).is_none_or(|(a, b)| a.abs_diff(b) <= SAME))
    }
}

pub(crate) fn refuse(message: &str) -> ToolError {
    ToolError::Model(format!("nothing was applied: {message}"))
}

/// Returns the refusal. If the file has changed since the model saw it, adds a note. After a second
/// miss in the same place, adds the lines of the file around it.
pub(crate) fn refused(workspace: &Workspace, misses: &Misses, secrets: &Secrets, why: Why) -> ToolError {
    let Some(path) = why.path else { return refuse(&why.message) };
    let now = workspace.read(&path).ok();
    let stale = match (workspace.seen(&path), &now) {
        (Some(seen), Some(now)) => seen != Digest::of(now.bytes()),
        _ => false,
    };
    let mut message = format!("{path}: {}", why.message);
    if stale {
        message += "\nThe file has changed since you read it.";
    }
    if let (Some((line, dialect)), Some(now)) = (why.missed, now)
        && misses.record(&path, line)
    {
        workspace.saw(&path, now.bytes());
        message += &region(&secrets.mask_bytes(now.text()), line, dialect);
    }
    refuse(&message)
}

/// Formats the lines around a miss, or the whole file if it is small, and suggests the edit format
/// that is most likely to match.
fn region(file: &[u8], line: Option<usize>, dialect: Dialect) -> String {
    let text = String::from_utf8_lossy(file);
    let lines: Vec<&str> = text.lines().collect();
    let small = lines.len() <= SMALL;
    let at = line.unwrap_or(1).saturating_sub(1);
    let (from, to) =
        if small { (0, lines.len()) } else { (at.saturating_sub(AROUND), (at + AROUND).min(lines.len())) };
    let mut out = match (small, dialect) {
        (true, _) => "\nThis is the second miss here. Send the whole file with path and content. Now:".to_owned(),
        (false, Dialect::Edits) => "\nThis is the second miss here. Copy search from these lines, without the numbers and |, as few as are unique:".to_owned(),
        (false, _) => "\nThis is the second miss here. Use edits, with search copied from these lines, without the numbers and |:".to_owned(),
    };
    for (i, line) in lines.iter().enumerate().take(to).skip(from) {
        let cut: String = line.chars().take(WIDTH).collect();
        let dots = if cut.len() < line.len() { "…" } else { "" };
        out += &format!("\n{}|{cut}{dots}", i + 1);
    }
    out
}
