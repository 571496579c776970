//! Applies a patch to the bytes of one file.

use std::{collections::VecDeque, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{
    Action, Dialect, FilePatch, Hunk, Mark, Refusal, RefusalKind, Rung,
    body::{Body, old},
    feedback,
    index::Index,
    lazy,
    lines::{BOM, Lines, mixes_endings},
    place::{Spot, place},
    readings,
    splice::splices as splices_of,
    strict, wrapped,
};

/// The result of applying a patch to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The new content; `None` if the file is deleted.
    pub bytes: Option<Vec<u8>>,
    /// How the hunks matched.
    pub summary: ApplySummary,
}

/// How a patch matched, and how many lines it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplySummary {
    /// The loosest rung on which any of the hunks matched.
    pub rung: Rung,
    /// Number of lines added.
    pub added: usize,
    /// Number of lines removed.
    pub removed: usize,
    /// The 1-based line number in the old file at which each hunk matched.
    pub lines: Vec<usize>,
}

impl Applied {
    fn new(bytes: Option<Vec<u8>>, rung: Rung, (added, removed): (usize, usize), lines: Vec<usize>) -> Self {
        Self { bytes, summary: ApplySummary { rung, added, removed, lines } }
    }
}

/// Applies a patch to a file's content; `None` means that the file does not exist.
///
/// # Errors
/// Refuses a patch that matches nowhere or in several places, that changes nothing, or that is
/// already applied. A patch is never partially applied.
pub fn apply(original: Option<&[u8]>, patch: &FilePatch) -> Result<Applied, Refusal> {
    let patch = &*wrapped::bare(original, patch)?;
    let refuse = |kind, message: &str| Err(Refusal::new(kind, message.into()).hunk(0, patch.hunks.len()));
    if patch.action != Action::Update
        && let Some(refused) = lazy::refusal(original, patch, true)
    {
        return Err(refused);
    }
    match (&patch.action, original) {
        // A file that consists of a single line break counts as empty. Several line breaks may be
        // intentional.
        (Action::Create(content), Some(original)) if !matches!(original, b"" | b"\n" | b"\r\n") => {
            if content == original {
                return refuse(RefusalKind::AlreadyApplied, "the file already exists with this content");
            }
            refuse(RefusalKind::Exists, "the file already exists; edit it or send its whole new content")
        }
        (Action::Create(content) | Action::Replace(content), original) => {
            let content = in_style(original, content);
            if original == Some(&content[..]) {
                let message = "the file already has this content; nothing would change";
                return refuse(RefusalKind::NoChange, message);
            }
            let new = original.is_none() || matches!(patch.action, Action::Create(_));
            Ok(whole(original.unwrap_or_default(), content, new))
        }
        (Action::Update, None) if patch.only_adds() => {
            let adds = |hunk: &&Hunk| hunk.lines.iter().all(|line| line.mark == Mark::Add);
            let meant = |hunk: &Hunk| [hunk].into_iter().chain(&hunk.readings).find(adds).cloned();
            let hunks: Vec<Hunk> = patch.hunks.iter().filter_map(meant).collect();
            let patch = FilePatch { hunks, ..patch.clone() };
            if let Some(refused) = lazy::refusal(None, &patch, true) {
                return Err(refused);
            }
            let content = patch.hunks.iter().flat_map(|h| &h.lines).fold(Vec::new(), |mut out, line| {
                out.extend_from_slice(&line.text);
                out.extend_from_slice(if line.newline { b"\n" } else { b"" });
                out
            });
            Ok(whole(b"", content, true))
        }
        (Action::Update | Action::Delete, None) => refuse(RefusalKind::Missing, "the file does not exist"),
        (Action::Delete, Some(original)) => delete(original, patch),
        (Action::Update, Some(original)) => {
            let refused = match update(original, patch) {
                Err(refused) if refused.kind == RefusalKind::NotFound && patch.hunks.len() > 1 => refused,
                outcome => return outcome,
            };
            in_sequence(original, patch).ok_or(refused)
        }
    }
}

fn whole(before: &[u8], content: Vec<u8>, new: bool) -> Applied {
    let counts = if new { (Lines::of(&content).len(), 0) } else { crate::preview::counts(before, &content) };
    Applied::new(Some(content), Rung::Named, counts, vec![1])
}

/// Returns the bytes that replace a matched search text.
fn replacement(index: &Index<'_>, range: &Range<usize>, hunk: &Hunk) -> Vec<u8> {
    match &hunk.text {
        None => Vec::new(),
        Some((search, new))
            if mixes_endings(search)
                && mixes_endings(new)
                && index.lines.bytes[range.clone()] == **search =>
        {
            new.clone()
        }
        Some((_, new)) => endings_from(index, range.start, hunk, new),
    }
}

/// Gives each line of a replacement the same ending as the line of the file that it keeps or
/// replaces. A line that does neither gets the same ending as the line above it. `from` is the byte
/// offset where the match starts.
fn endings_from(index: &Index<'_>, from: usize, hunk: &Hunk, text: &[u8]) -> Vec<u8> {
    let line = index.lines.line_at(from);
    // Whether the search text starts with a newline that matched the second half of `\r\n`. If so,
    // the `\r` stays.
    let halved = index.lines.bytes[..from].ends_with(b"\r");
    let own = |line: usize| index.lines.ends.get(line).filter(|end| !end.is_empty()).copied();
    let (mut at, mut removed) = (line, VecDeque::new());
    let mut above = index.lines.ending_near(line);
    let mut endings = Vec::new();
    for new in &hunk.lines {
        let ending = match new.mark {
            Mark::Keep => own(at),
            Mark::Remove => {
                removed.push_back(at);
                None
            }
            Mark::Add => removed.pop_front().and_then(own),
        };
        if new.mark != Mark::Add {
            at += 1;
        }
        if new.mark == Mark::Keep {
            removed.clear();
        }
        if new.mark != Mark::Remove {
            above = ending.unwrap_or(above);
            endings.push(above);
        }
    }
    let mut out = Vec::with_capacity(text.len() + endings.len());
    for (i, part) in text.split(|b| *b == b'\n').enumerate() {
        if i > 0 {
            let ending = endings.get(i - 1).copied().unwrap_or(above);
            out.extend_from_slice(if halved && out.is_empty() { b"\n" } else { ending });
        }
        out.extend_from_slice(part.strip_suffix(b"\r").unwrap_or(part));
    }
    out
}

/// Adds a byte order mark and a final newline to new content if the old content has them. If every
/// line of the old content ends with CRLF and the new content has no carriage returns, also
/// converts the new content to CRLF.
fn in_style(original: Option<&[u8]>, content: &[u8]) -> Vec<u8> {
    let Some(original) = original.filter(|t| !t.is_empty()) else { return content.to_vec() };
    let index = Index::of(original);
    let mut out = if content.contains(&b'\r') || !index.lines.all_crlf() {
        content.to_vec()
    } else {
        index.lines.with_endings(content)
    };
    if original.starts_with(BOM) && !out.starts_with(BOM) {
        out.splice(..0, BOM.iter().copied());
    }
    if !index.lines.unfinished() && !out.is_empty() && !out.ends_with(b"\n") {
        // If the new last line also occurs in the old content, copy its ending from there,
        // preferably from an occurrence where the line above matches too. Otherwise copy the ending
        // of the old last line.
        let mut lines = out.rsplit(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let (last, above) = (lines.next().unwrap_or_default(), lines.next());
        let texts = &index.lines.texts;
        let is_last = |at: &usize| texts[*at] == last;
        let below = |at: &usize| is_last(at) && at.checked_sub(1).map(|above| texts[above]) == above;
        let places = 0..texts.len();
        let before = places.clone().rev().find(below).or_else(|| places.rev().find(is_last));
        let ending = before.map_or_else(|| index.lines.ending_near(texts.len()), |at| index.lines.ends[at]);
        out.extend_from_slice(ending);
    }
    out
}

fn delete(original: &[u8], patch: &FilePatch) -> Result<Applied, Refusal> {
    let index = Index::of(original);
    let all: Vec<_> = patch.hunks.iter().flat_map(|h| &h.lines).collect();
    let body: Body<'_> = all.iter().map(|l| (l.mark, crate::lines::bare(&l.text))).collect();
    let here = index.lines.texts.iter().map(|l| l.trim_ascii_end());
    let same = old(&body).iter().map(|l| l.trim_ascii_end()).eq(here);
    if !body.is_empty() && (!same || body.iter().any(|(m, _)| *m == Mark::Add)) {
        let message = feedback::differs(&index, &body);
        return Err(Refusal::new(RefusalKind::NotFound, message).hunk(0, patch.hunks.len()));
    }
    Ok(Applied::new(None, Rung::Named, (0, index.lines.len()), vec![1]))
}

/// Applies the hunks one after another, each to the result of the previous hunk, because some
/// models edit text that was added by an earlier hunk. Returns `None` for a unified diff, and also
/// if any hunk has wrong context lines or does not have exactly one match.
fn in_sequence(original: &[u8], patch: &FilePatch) -> Option<Applied> {
    if patch.dialect == Dialect::Unified {
        return None;
    }
    let mut done = Applied::new(Some(original.to_vec()), Rung::Named, (0, 0), Vec::new());
    for hunk in &patch.hunks {
        let one = FilePatch { hunks: vec![hunk.clone()], from: None, executable: None, ..patch.clone() };
        let Applied { bytes, summary } = update(done.bytes.as_deref()?, &one).ok()?;
        if summary.rung == Rung::Context {
            return None;
        }
        done.bytes = bytes;
        done.summary.rung = done.summary.rung.max(summary.rung);
        done.summary.lines.extend(summary.lines);
        done.summary.added += summary.added;
        done.summary.removed += summary.removed;
    }
    Some(done)
}

fn update(original: &[u8], patch: &FilePatch) -> Result<Applied, Refusal> {
    let index = Index::of(original);
    let hunks = &*readings::resolve(&index, &patch.hunks, patch.dialect)?;
    if let Some(refused) = lazy::refusal_of_hunks(Some(original), &patch.path, hunks, true) {
        return Err(refused);
    }
    let refuse = |kind, message: String| Err(Refusal::new(kind, message).hunk(0, hunks.len()));
    if hunks.is_empty() {
        // The patch only renames the file or changes its mode.
        return Ok(Applied::new(Some(original.to_vec()), Rung::Named, (0, 0), Vec::new()));
    }
    if !hunks.iter().any(Hunk::changes) && patch.from.is_none() {
        return refuse(RefusalKind::NoChange, "it changes nothing: it adds what it removes".into());
    }
    let counts = hunks.iter().map(Hunk::counts).fold((0, 0), |(a, r), (x, y)| (a + x, r + y));
    let unchanged = "it changes nothing: the file already has these lines";
    if patch.dialect == Dialect::Unified
        && let Some(bytes) = strict::apply(&index, hunks)
    {
        if bytes == original && patch.from.is_none() {
            return refuse(RefusalKind::NoChange, unchanged.into());
        }
        let lines = hunks.iter().filter_map(|h| h.start).collect();
        return Ok(Applied::new(Some(bytes), Rung::Named, counts, lines));
    }
    let spots = place(&index, hunks, patch.dialect)?;
    let mut rung = Rung::Named;
    let mut lines = Vec::with_capacity(spots.len());
    let mut splices: Vec<(Range<usize>, Vec<u8>, usize)> = Vec::with_capacity(spots.len());
    for (i, (spot, hunk)) in spots.iter().zip(hunks).enumerate() {
        let (line, here, new) = match spot {
            Spot::Lines(fit, body) => (fit.at, fit.rung, splices_of(&index, hunk, body, fit)),
            Spot::Bytes(range) => {
                let new = replacement(&index, range, hunk);
                (index.lines.line_at(range.start), Rung::Text, vec![(range.clone(), new)])
            }
        };
        rung = rung.max(here);
        lines.push(line + 1);
        if hunk.changes() {
            splices.extend(new.into_iter().map(|(range, bytes)| (range, bytes, i)));
        }
    }
    splices.sort_by_key(|(range, ..)| (range.start, range.end));
    if let Some(pair) = splices.windows(2).find(|w| w[0].0.end > w[1].0.start || w[0].0 == w[1].0) {
        let (a, b) = (pair[0].2.min(pair[1].2) + 1, pair[0].2.max(pair[1].2) + 1);
        return refuse(RefusalKind::Overlap, format!("hunks {a} and {b} change the same lines; merge them"));
    }
    let mut bytes = Vec::with_capacity(original.len() + splices.iter().map(|s| s.1.len()).sum::<usize>());
    let mut done = 0;
    for (range, new, _) in &splices {
        bytes.extend_from_slice(&original[done..range.start]);
        bytes.extend_from_slice(new);
        done = range.end;
    }
    bytes.extend_from_slice(&original[done..]);
    if bytes == original && patch.from.is_none() {
        return refuse(RefusalKind::NoChange, unchanged.into());
    }
    Ok(Applied::new(Some(bytes), rung, counts, lines))
}
