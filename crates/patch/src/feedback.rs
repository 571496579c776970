//! Writes the message that the model reads when a patch is refused. The message contains what the
//! model needs to correct the patch, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    body::{Body, old},
    index::Index,
    similarity::similarity,
};

/// Maximum number of characters shown per line.
const MAX_WIDTH: usize = 160;
const MAX_LINES: usize = 30;
/// Maximum number of matches shown for an ambiguous hunk.
const MAX_PLACES: usize = 5;

/// Why a patch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The old lines match nowhere.
    NotFound,
    /// The old lines match in several places.
    Ambiguous,
    /// The change is already in the file.
    AlreadyApplied,
    /// The hunk only adds lines and does not say where.
    NoContext,
    /// Two hunks change the same lines.
    Overlap,
    /// The patch changes nothing.
    NoChange,
    /// The patch creates a file that exists.
    Exists,
    /// The patch changes a file that does not exist.
    Missing,
    /// The new text has a comment or dots in place of code.
    Placeholder,
    /// The new text is wrapped in something that does not belong in the file: a fence, thoughts or
    /// a patch marker.
    Wrapped,
}

/// The reason a patch was refused, quoting the actual lines of the file. The model reads its
/// `Display` text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub kind: RefusalKind,
    /// The 1-based number of the hunk; 0 if the refusal is about the whole file.
    pub hunk: usize,
    /// The total number of hunks; 0 if it is not known yet.
    pub of: usize,
    /// The 1-based line number in the file that the refusal points to: where the closest match
    /// first differs from the old lines, where the file already has the change, or where one of
    /// several matches begins.
    pub line: Option<usize>,
    /// What is wrong, quoting lines of the file.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hunk, self.of) {
            // The patch was refused while it was still streaming, so the number of hunks is not
            // known.
            (2.., 0) => write!(f, "hunk {}: ", self.hunk)?,
            (1.., 2..) => write!(f, "hunk {} of {}: ", self.hunk, self.of)?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: String) -> Self {
        Self { kind, hunk: 0, of: 0, line: None, message }
    }

    /// Sets the line from a 0-based index.
    pub(crate) fn at(self, line: Option<usize>) -> Self {
        Self { line: line.map(|line| line + 1), ..self }
    }

    /// Sets the 1-based number of the hunk and the total number of hunks.
    pub(crate) fn hunk(self, hunk: usize, of: usize) -> Self {
        Self { hunk, of, ..self }
    }
}

pub(crate) fn show(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out: String = text.chars().take(MAX_WIDTH).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn numbered(index: &Index<'_>, from: usize, to: usize) -> String {
    let to = to.min(index.lines.len());
    let mut out = String::new();
    for i in from..to.min(from + MAX_LINES) {
        out += &format!("\n{}|{}", i + 1, show(index.lines.texts[i]));
    }
    if to > from + MAX_LINES {
        out += &format!("\n… to line {to}");
    }
    out
}

pub(crate) fn already(line: usize) -> String {
    format!("this change is already in the file, at line {}", line + 1)
}

pub(crate) fn no_context() -> String {
    "it only adds lines and does not say where; include an existing line before or after them".into()
}

pub(crate) fn no_such_line(index: &Index<'_>, line: usize) -> String {
    format!("cannot insert below line {line}; the file has {} lines", index.lines.len())
}

pub(crate) fn too_many(places: usize) -> String {
    format!("old lines match in {places} places; include a unique line")
}

pub(crate) fn ambiguous(index: &Index<'_>, places: &[usize]) -> String {
    let mut message = format!("old lines match in {} places", places.len());
    for at in places.iter().take(MAX_PLACES) {
        let above = at.saturating_sub(1);
        message += &numbered(index, above, at + 2);
        message += "\n--";
    }
    message + "\ninclude more lines around the place you mean"
}

/// Returns the refusal for a hunk whose old lines match nowhere.
pub(crate) fn not_found(index: &Index<'_>, body: &Body<'_>, start: Option<usize>) -> Refusal {
    let old = old(body);
    let nearest = nearest(index, &old, start);
    let line = nearest.map(|(at, differs)| at + differs.unwrap_or(0));
    Refusal::new(RefusalKind::NotFound, not_found_message(index, &old, nearest)).at(line)
}

/// Formats a message with the lines of the file that are closest to the old lines.
fn not_found_message(index: &Index<'_>, old: &[&[u8]], nearest: Option<(usize, Option<usize>)>) -> String {
    let n = index.lines.len();
    if n == 0 {
        return "old lines not found; the file is empty".into();
    }
    let Some((at, missing)) = nearest else {
        let wanted = old.iter().find(|l| !l.trim_ascii().is_empty()).copied().unwrap_or_default();
        let mut message =
            format!("old lines not found; none of the file's {n} lines is like {:?}", show(wanted));
        if n <= MAX_LINES {
            message += "; the file is:";
            message += &numbered(index, 0, n);
        }
        return message;
    };
    let mut message = String::from("old lines not found");
    if let Some(i) = missing {
        message += &format!("; expected at line {}:\n{}\nfound:", at + i + 1, show(old[i]));
    } else {
        message += "; the closest are:";
    }
    let from = at.saturating_sub(1).min(n.saturating_sub(1));
    message + &numbered(index, from, (at + old.len() + 1).max(from + 3))
}

/// Returns the best alignment of the old lines and the first old line that differs there. If there
/// is a tie, the alignment closest to line `start` wins. If none of the lines match, aligns the
/// longest old line with the most similar line of the file.
fn nearest(index: &Index<'_>, old: &[&[u8]], start: Option<usize>) -> Option<(usize, Option<usize>)> {
    /// Maximum number of occurrences to consider per line. A line that is more frequent does not
    /// help to locate the hunk.
    const MAX_OCCURRENCES: usize = 1000;
    let mut votes: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
    for (i, text) in old.iter().enumerate().filter(|(_, t)| t.trim_ascii().len() > 1) {
        for at in index.places_of(text).take(MAX_OCCURRENCES).filter_map(|at| at.checked_sub(i)) {
            *votes.entry(at).or_default() += 1;
        }
    }
    let far = |at: usize| start.map_or(at, |s| at.abs_diff(s.saturating_sub(1)));
    let best = votes.into_iter().max_by_key(|(at, votes)| (*votes, usize::MAX - far(*at), usize::MAX - at));
    if let Some((at, _)) = best {
        let differs =
            |i: &usize| index.lines.texts.get(at + i).is_none_or(|l| l.trim_ascii() != old[*i].trim_ascii());
        return Some((at, (0..old.len()).find(differs)));
    }
    let (i, wanted) = old.iter().enumerate().max_by_key(|(_, l)| l.trim_ascii().len())?;
    let (line, _) = index
        .lines
        .texts
        .iter()
        .enumerate()
        .map(|(at, l)| (at, similarity(l, wanted)))
        .filter(|(_, score)| *score >= 50)
        .max_by_key(|(at, score)| (*score, usize::MAX - far(*at)))?;
    Some((line.saturating_sub(i), Some(i)))
}

/// Formats a message that shows where a file differs from the lines that a patch deletes.
pub(crate) fn differs(index: &Index<'_>, body: &Body<'_>) -> String {
    let old = old(body);
    let at = old
        .iter()
        .zip(&index.lines.texts)
        .position(|(a, b)| a != b)
        .unwrap_or(old.len().min(index.lines.len()));
    format!(
        "the file does not match the deleted lines; it differs at line {}:{}",
        at + 1,
        numbered(index, at, at + 3)
    )
}
