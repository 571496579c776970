//! What a hunk means, where only the file tells: which `=======` line divides a block, what `...` on both sides stands for, and whether lines
//! to keep have lost the column of their mark.

use std::borrow::Cow;

use crate::{
    Dialect, Hunk, Kind, Line, Mark, Refused, Rung,
    blocks::{self, Marker},
    body::body,
    feedback,
    index::Index,
    lazy,
    lines::trim,
    place::{Found, candidates},
};

/// The hunks of a patch as they are meant for this file.
pub(crate) fn settle<'h>(
    index: &Index<'_>,
    hunks: &'h [Hunk],
    dialect: Dialect,
) -> Result<Cow<'h, [Hunk]>, Refused> {
    let mut out = Cow::Borrowed(hunks);
    for (i, hunk) in hunks.iter().enumerate() {
        let meant = settle_one(index, hunk, dialect).map_err(|refused| refused.hunk(i + 1, hunks.len()))?;
        if let Some(meant) = meant {
            out.to_mut()[i] = meant;
        }
    }
    Ok(out)
}

/// The hunk as it is meant, if that is not as it is written.
pub(crate) fn settle_one(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<Option<Hunk>, Refused> {
    match dialect {
        _ if hunk.everywhere => everywhere(index, hunk),
        _ if !hunk.readings.is_empty() => divided(index, hunk, dialect).map(Some),
        Dialect::SearchReplace | Dialect::Edits => Ok(elided(index, hunk)),
        Dialect::Unified | Dialect::Envelope => Ok(with_columns(index, hunk)),
        Dialect::WholeFile => Ok(None),
    }
}

/// Where a hunk could go, and on which rung.
fn places(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<(Vec<usize>, Rung, usize), Refused> {
    Ok(match candidates(index, hunk, dialect)? {
        Found::Lines(fits, ..) => {
            let rung = fits.first().map_or(Rung::Context, |fit| fit.rung);
            let end = fits.first().map_or(0, |fit| fit.end);
            (fits.iter().map(|fit| fit.at).collect(), rung, end)
        }
        Found::Bytes(at, len) => {
            let line = |at: &usize| index.lines.line_at(*at);
            let end = at.first().map_or(0, |at| index.lines.line_at((at + len).saturating_sub(1)) + 1);
            (at.iter().map(line).collect(), Rung::Text, end)
        }
    })
}

/// The reading whose search stands in the file. A shorter search stands wherever a longer one does, so the longest is the one that is meant.
fn divided(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<Hunk, Refused> {
    let mut first = None;
    for reading in &hunk.readings {
        let (at, rung, end) = match places(index, reading, dialect) {
            Ok(found) => found,
            Err(refused) => {
                first.get_or_insert(refused);
                continue;
            }
        };
        if rung == Rung::Context {
            continue;
        }
        // What is searched ends right above such a line of the file: perhaps the rest of it is mistyped.
        let divider = |at: usize| {
            let line = index.lines.texts.get(at).and_then(|line| std::str::from_utf8(line).ok());
            line.is_some_and(|line| blocks::marker(line) == Some(Marker::Divider))
        };
        let named = reading.start.and_then(|start| at.iter().find(|at| **at + 1 == start));
        let explained = reading.text.as_ref().is_some_and(|(search, replace)| {
            dividers_are_text(replace) || rung <= Rung::Trailing && balanced(search, replace)
        });
        if at.len() > 1 && named.is_none() || divider(end) || !explained {
            let message = "which of the ======= lines divides this block cannot be told; search for less, or use a unified diff here";
            return Err(Refused::new(Kind::Ambiguous, message.into()).at(at.first().copied()));
        }
        return Ok(reading.clone());
    }
    Err(first.unwrap_or_else(|| feedback::nowhere(index, &body(hunk), hunk.start)))
}

/// One change from the first to the last place where the searched text stands. `None` where it stands nowhere exactly as it is searched.
fn everywhere(index: &Index<'_>, hunk: &Hunk) -> Result<Option<Hunk>, Refused> {
    let Some((search, replace)) = &hunk.text else { return Ok(None) };
    let (search, replace) = (index.lines.with_endings(search), index.lines.with_endings(replace));
    if search.is_empty() {
        return Ok(None);
    }
    let bytes = index.lines.bytes;
    let at: Vec<usize> = memchr::memmem::find_iter(bytes, &search).collect();
    if at.is_empty() && hunk.expected.is_some() {
        return Err(feedback::nowhere(index, &body(hunk), None));
    }
    if let Some(count) = hunk.expected.filter(|count| *count != at.len()) {
        let line = |at: &usize| index.lines.line_at(*at);
        let message = format!("the searched text stands in {} places, not in the {count} expected", at.len());
        return Err(Refused::new(Kind::Ambiguous, message).at(at.first().map(line)));
    }
    Ok(replaced(bytes, &at, &search, &replace))
}

/// One hunk that replaces the searched text at all of these places.
fn replaced(bytes: &[u8], at: &[usize], search: &[u8], replace: &[u8]) -> Option<Hunk> {
    let (first, last) = (*at.first()?, *at.last()?);
    let mut new = Vec::new();
    let mut done = first;
    for at in at {
        new.extend_from_slice(&bytes[done..*at]);
        new.extend_from_slice(replace);
        done = at + search.len();
    }
    let old = bytes[first..last + search.len()].to_vec();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(blocks::hunk(&text(&old)?, &text(&new)?))
}

/// Whether search and replacement have as many `=======` lines, and some, as where a heading is renamed: of all ways to divide a block, one at
/// most is so.
fn balanced(search: &[u8], replace: &[u8]) -> bool {
    let dividers = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.lines().filter(|line| blocks::marker(line) == Some(Marker::Divider)).count()
    };
    dividers(search) > 0 && dividers(search) == dividers(replace)
}

/// Whether each `=======` line of a replacement is the underline of a heading as long, or stands in a conflict of git.
fn dividers_are_text(replace: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(replace) else { return false };
    let (mut above, mut conflict) = ("", false);
    for line in text.lines().map(str::trim_end) {
        let length = above.chars().count();
        let underline = length > 0 && length.abs_diff(line.len()) <= 1;
        if blocks::marker(line) == Some(Marker::Divider) && !underline && !conflict {
            return false;
        }
        conflict = line.starts_with("<<<<<<< ") || conflict && !line.starts_with(">>>>>>> ");
        above = line;
    }
    true
}

/// A search and a replacement with the same lines of dots, each of which stands for the same lines of the file. `None` unless there is exactly
/// one place for each of the parts between them.
fn elided(index: &Index<'_>, hunk: &Hunk) -> Option<Hunk> {
    let (search, replace) = hunk.text.as_ref()?;
    let (search, replace) = (std::str::from_utf8(search).ok()?, std::str::from_utf8(replace).ok()?);
    let is_gap = |line: &str| lazy::elides(line) && index.count_of(line.as_bytes()) == 0;
    if !search.lines().any(is_gap) {
        return None;
    }
    let (old, new) = (parts(search, is_gap), parts(replace, is_gap));
    let gaps = |text: &str| {
        text.lines().filter(|line| is_gap(line)).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    if gaps(search) != gaps(replace) {
        return None;
    }
    // Dots at the start or the end of both sides elide nothing, so ignore them.
    let empty = |i: usize| old[i].is_empty() && new[i].is_empty();
    let from = usize::from(empty(0));
    let to = old.len() - usize::from(empty(old.len() - 1));
    let (old, new) = (old.get(from..to)?, new.get(from..to)?);
    if old.is_empty() || old.iter().any(Vec::is_empty) {
        return None;
    }
    let at = only_places(index, old)?;
    let mut lines: Vec<Line> = Vec::new();
    for (i, (old, new)) in old.iter().zip(new).enumerate() {
        lines.extend(blocks::hunk(&joined(old), &joined(new)).lines);
        if let Some(next) = at.get(i + 1) {
            let gap = index.lines.texts.get(at[i] + old.len()..*next)?;
            lines.extend(gap.iter().map(|text| Line {
                mark: Mark::Keep,
                text: text.to_vec(),
                newline: true,
                marked: true,
            }));
        }
    }
    // The file's own lines, so that nothing else is looked for.
    for (there, line) in (at[0]..).zip(lines.iter_mut().filter(|line| line.mark != Mark::Add)) {
        line.text = index.lines.texts.get(there)?.to_vec();
    }
    Some(Hunk { lines, start: Some(at[0] + 1), ..Hunk::default() })
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// The lines between the gaps.
fn parts(text: &str, is_gap: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    let mut out = vec![Vec::new()];
    for line in text.lines() {
        match out.last_mut() {
            Some(part) if !is_gap(line) => part.push(line),
            _ => out.push(Vec::new()),
        }
    }
    out
}

/// Where the parts stand, each below the one before, if that is so in one way only.
fn only_places(index: &Index<'_>, parts: &[Vec<&str>]) -> Option<Vec<usize>> {
    let texts = &index.lines.texts;
    let stands = |part: &[&str], at: usize| {
        texts.get(at..at + part.len()).is_some_and(|here| {
            here.iter().zip(part).all(|(here, line)| here.trim_ascii_end() == line.trim_end().as_bytes())
        })
    };
    let places: Vec<Vec<usize>> = parts
        .iter()
        .map(|part| {
            let lines: Vec<&[u8]> = part.iter().map(|line| line.as_bytes()).collect();
            let mut at: Vec<usize> = index.runs(&lines).into_iter().filter(|at| stands(part, *at)).collect();
            at.sort_unstable();
            at
        })
        .collect();
    // The earliest way from above and the latest from below are the only one if they are the same.
    let mut earliest = Vec::new();
    let mut end = 0;
    for (part, places) in parts.iter().zip(&places) {
        let at = *places.iter().find(|at| **at >= end)?;
        earliest.push(at);
        end = at + part.len();
    }
    let mut start = usize::MAX;
    let mut latest = Vec::new();
    for (part, places) in parts.iter().zip(&places).rev() {
        let at = *places.iter().rev().find(|at| **at + part.len() <= start)?;
        latest.push(at);
        start = at;
    }
    latest.reverse();
    (earliest == latest).then_some(earliest)
}

/// A hunk whose lines to keep stand in the file only with the blank that was read as their mark. The other lines have their marks, so they are
/// what they say; a shift of the indentation would move them by that one column.
fn with_columns(index: &Index<'_>, hunk: &Hunk) -> Option<Hunk> {
    let lost = |line: &Line| line.mark == Mark::Keep && line.marked && !trim(&line.text).is_empty();
    if !hunk.lines.iter().any(lost) || !hunk.lines.iter().any(|line| line.mark != Mark::Keep) {
        return None;
    }
    let exact = |hunk: &Hunk| {
        let fits = crate::ladder::fits(index, &body(hunk)).unwrap_or_default();
        fits.first().is_some_and(|fit| fit.rung <= Rung::Trailing)
    };
    if exact(hunk) {
        return None;
    }
    let stands = |text: &[u8]| {
        index.places_of(text).any(|at| index.lines.texts[at].trim_ascii_end() == text.trim_ascii_end())
    };
    let mut whole = hunk.clone();
    for line in whole.lines.iter_mut().filter(|line| lost(line)) {
        let with_blank = [b" ", &line.text[..]].concat();
        if !stands(&line.text) || stands(&with_blank) {
            line.text = with_blank;
        }
    }
    exact(&whole).then_some(whole)
}
