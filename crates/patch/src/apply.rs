//! One file's bytes to its new bytes.

use std::{collections::VecDeque, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{
    Action, Dialect, FilePatch, Hunk, Kind, Mark, Refused, Rung,
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

/// A file as the patch leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its content; `None` when it is removed.
    pub bytes: Option<Vec<u8>>,
    /// How the hunks went in.
    pub how: How,
}

/// How a patch went in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct How {
    /// The furthest rung of the ladder that was needed.
    pub rung: Rung,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
    /// The line each hunk went to in the old file, from 1.
    pub lines: Vec<usize>,
}

/// Applies a patch to a file's content; `None` when there is no such file.
///
/// # Errors
/// When it does not fit in one way only, changes nothing, or has been applied already. Never applied in part.
pub fn apply(original: Option<&[u8]>, patch: &FilePatch) -> Result<Applied, Refused> {
    let patch = &*wrapped::bare(original, patch)?;
    let refuse = |kind, message: &str| Err(Refused::new(kind, message.into()).hunk(0, patch.hunks.len()));
    if patch.action != Action::Update
        && let Some(refused) = lazy::refusal(original, patch)
    {
        return Err(refused);
    }
    match (&patch.action, original) {
        // A file that is a single line break is as good as empty; of several, one may be meant.
        (Action::Create(content), Some(there)) if !matches!(there, b"" | b"\n" | b"\r\n") => {
            if content == there {
                return refuse(Kind::AlreadyApplied, "the file is there already, with this content");
            }
            refuse(Kind::Exists, "the file exists already; change it, or give its whole new content")
        }
        (Action::Create(content), there) => {
            let content = in_style(there, content);
            if there == Some(&content[..]) {
                return refuse(Kind::NoChange, "the file has this content already; nothing would change");
            }
            Ok(whole(there.unwrap_or_default(), content, true))
        }
        (Action::Replace(content), there) => {
            let content = in_style(there, content);
            if there == Some(&content[..]) {
                return refuse(Kind::NoChange, "the file has this content already; nothing would change");
            }
            Ok(whole(there.unwrap_or_default(), content, there.is_none()))
        }
        (Action::Update, None) if patch.creates() => {
            let adds = |hunk: &&Hunk| hunk.lines.iter().all(|line| line.mark == Mark::Add);
            let meant = |hunk: &Hunk| [hunk].into_iter().chain(&hunk.readings).find(adds).cloned();
            let hunks: Vec<Hunk> = patch.hunks.iter().filter_map(meant).collect();
            let patch = FilePatch { hunks, ..patch.clone() };
            if let Some(refused) = lazy::refusal(None, &patch) {
                return Err(refused);
            }
            let content = patch.hunks.iter().flat_map(|h| &h.lines).fold(Vec::new(), |mut out, line| {
                out.extend_from_slice(&line.text);
                out.extend_from_slice(if line.newline { b"\n" } else { b"" });
                out
            });
            Ok(whole(b"", content, true))
        }
        (Action::Update | Action::Delete, None) => refuse(Kind::Missing, "the file does not exist"),
        (Action::Delete, Some(there)) => delete(there, patch),
        (Action::Update, Some(there)) => {
            let refused = match update(there, patch) {
                Err(refused) if refused.kind == Kind::NotFound && patch.hunks.len() > 1 => refused,
                done => return done,
            };
            in_sequence(there, patch).ok_or(refused)
        }
    }
}

fn whole(before: &[u8], content: Vec<u8>, new: bool) -> Applied {
    let (added, removed) =
        if new { (Lines::of(&content).len(), 0) } else { crate::preview::counts(before, &content) };
    let how = How { rung: Rung::Named, added, removed, lines: vec![1] };
    Applied { bytes: Some(content), how }
}

/// What replaces a searched text in the file.
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

/// A replacement within lines, from this byte of the file on: each line of it ends as the one that it keeps or replaces, else as the one above.
fn endings_from(index: &Index<'_>, from: usize, hunk: &Hunk, text: &[u8]) -> Vec<u8> {
    let line = index.lines.line_at(from);
    // What was searched began with a newline, and the file's has a carriage return, which stays.
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

/// New content with the byte order mark, the line endings and the final newline of what it replaces, where that has one kind of them.
fn in_style(there: Option<&[u8]>, content: &[u8]) -> Vec<u8> {
    let Some(there) = there.filter(|t| !t.is_empty()) else { return content.to_vec() };
    let index = Index::of(there);
    let mut out = if content.contains(&b'\r') || !index.lines.all_crlf() {
        content.to_vec()
    } else {
        index.lines.with_endings(content)
    };
    if there.starts_with(BOM) && !out.starts_with(BOM) {
        out.splice(..0, BOM.iter().copied());
    }
    if !index.lines.unfinished() && !out.is_empty() && !out.ends_with(b"\n") {
        // The last line ends as it did before, at best below the same line; else as the last one did.
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

fn delete(there: &[u8], patch: &FilePatch) -> Result<Applied, Refused> {
    let index = Index::of(there);
    let all: Vec<_> = patch.hunks.iter().flat_map(|h| &h.lines).collect();
    let body: Body<'_> = all.iter().map(|l| (l.mark, crate::lines::bare(&l.text))).collect();
    let same = old(&body).iter().map(|l| l.trim_ascii_end()).eq(index
        .lines
        .texts
        .iter()
        .map(|l| l.trim_ascii_end()));
    if !body.is_empty() && (!same || body.iter().any(|(m, _)| *m == Mark::Add)) {
        let message = feedback::differs(&index, &body);
        return Err(Refused::new(Kind::NotFound, message).hunk(0, patch.hunks.len()));
    }
    let how = How { rung: Rung::Named, added: 0, removed: index.lines.len(), lines: vec![1] };
    Ok(Applied { bytes: None, how })
}

/// The hunks one after the other, each in what the one before has made: for models that change a text they have just written. A diff is never
/// meant so. `None` unless each has one place, and all its lines stand there.
fn in_sequence(there: &[u8], patch: &FilePatch) -> Option<Applied> {
    if patch.dialect == Dialect::Unified {
        return None;
    }
    let mut done = Applied {
        bytes: Some(there.to_vec()),
        how: How { rung: Rung::Named, added: 0, removed: 0, lines: Vec::new() },
    };
    for hunk in &patch.hunks {
        let one = FilePatch { hunks: vec![hunk.clone()], from: None, executable: None, ..patch.clone() };
        let Applied { bytes, how } = update(done.bytes.as_deref()?, &one).ok()?;
        if how.rung == Rung::Context {
            return None;
        }
        done.bytes = bytes;
        done.how.rung = done.how.rung.max(how.rung);
        done.how.lines.extend(how.lines);
        (done.how.added, done.how.removed) = (done.how.added + how.added, done.how.removed + how.removed);
    }
    Some(done)
}

fn update(there: &[u8], patch: &FilePatch) -> Result<Applied, Refused> {
    let index = Index::of(there);
    let hunks = &*readings::settle(&index, &patch.hunks, patch.dialect)?;
    if let Some(refused) = lazy::find_in(Some(there), &patch.path, hunks) {
        return Err(refused);
    }
    let refuse = |kind, message: String| Err(Refused::new(kind, message).hunk(0, hunks.len()));
    if hunks.is_empty() {
        // A rename or a change of mode alone.
        let how = How { rung: Rung::Named, added: 0, removed: 0, lines: Vec::new() };
        return Ok(Applied { bytes: Some(there.to_vec()), how });
    }
    if !hunks.iter().any(Hunk::changes) && patch.from.is_none() {
        return refuse(Kind::NoChange, "it changes nothing: what it adds is what it removes".into());
    }
    let (added, removed) = hunks.iter().map(Hunk::counts).fold((0, 0), |(a, r), (x, y)| (a + x, r + y));
    let unchanged = "it changes nothing: the file has these lines already";
    if patch.dialect == Dialect::Unified
        && let Some(bytes) = strict::apply(&index, hunks)
    {
        if bytes == there && patch.from.is_none() {
            return refuse(Kind::NoChange, unchanged.into());
        }
        let lines = hunks.iter().filter_map(|h| h.start).collect();
        let how = How { rung: Rung::Named, added, removed, lines };
        return Ok(Applied { bytes: Some(bytes), how });
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
        return refuse(Kind::Overlap, format!("hunks {a} and {b} change the same lines; make them one"));
    }
    let mut bytes = Vec::with_capacity(there.len() + splices.iter().map(|s| s.1.len()).sum::<usize>());
    let mut done = 0;
    for (range, new, _) in &splices {
        bytes.extend_from_slice(&there[done..range.start]);
        bytes.extend_from_slice(new);
        done = range.end;
    }
    bytes.extend_from_slice(&there[done..]);
    if bytes == there && patch.from.is_none() {
        return refuse(Kind::NoChange, unchanged.into());
    }
    let how = How { rung, added, removed, lines };
    Ok(Applied { bytes: Some(bytes), how })
}
