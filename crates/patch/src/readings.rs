//! Resolves the meaning of a hunk where it depends on the file: which `=======` line divides a
//! block, what `...` in both the search and the replacement stands for, and whether context lines
//! lack the space that marks them.

use std::borrow::Cow;

use crate::{
    Dialect, Hunk, Line, Mark, Refusal, RefusalKind, Rung,
    blocks::{self, Marker},
    body::body,
    feedback,
    index::Index,
    lazy,
    place::{Found, candidates, earliest_and_latest},
};

/// Returns the hunks with their meaning resolved for this file.
pub(crate) fn resolve<'h>(
    index: &Index<'_>,
    hunks: &'h [Hunk],
    dialect: Dialect,
) -> Result<Cow<'h, [Hunk]>, Refusal> {
    let mut out = Cow::Borrowed(hunks);
    for (i, hunk) in hunks.iter().enumerate() {
        let meant = resolve_one(index, hunk, dialect).map_err(|refused| refused.hunk(i + 1, hunks.len()))?;
        if let Some(meant) = meant {
            out.to_mut()[i] = meant;
        }
    }
    Ok(out)
}

/// Returns the hunk that the model meant, if that differs from the hunk as written.
pub(crate) fn resolve_one(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<Option<Hunk>, Refusal> {
    match dialect {
        _ if hunk.everywhere => replace_everywhere(index, hunk),
        _ if !hunk.readings.is_empty() => resolve_divider(index, hunk, dialect).map(Some),
        Dialect::SearchReplace | Dialect::Edits => Ok(expand_elisions(index, hunk)),
        Dialect::Unified | Dialect::Envelope => Ok(restore_first_column(index, hunk)),
        Dialect::WholeFile => Ok(None),
    }
}

/// Returns the lines where a hunk matches, the rung of the first match, and the line below the
/// first match.
fn matches(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<(Vec<usize>, Rung, usize), Refusal> {
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

/// Selects the reading with the longest search text that matches. The shorter search texts are
/// prefixes of it. They match there too, so their matches are no evidence.
fn resolve_divider(index: &Index<'_>, hunk: &Hunk, dialect: Dialect) -> Result<Hunk, Refusal> {
    let mut first = None;
    for reading in &hunk.readings {
        let (at, rung, end) = match matches(index, reading, dialect) {
            Ok(found) => found,
            Err(refused) => {
                first.get_or_insert(refused);
                continue;
            }
        };
        if rung == Rung::Context {
            continue;
        }
        // If the match ends right above a divider line in the file, the search may be meant to
        // continue past that line.
        let divider = |at: usize| {
            let line = index.lines.texts.get(at).and_then(|line| std::str::from_utf8(line).ok());
            line.is_some_and(|line| blocks::marker(line) == Some(Marker::Divider))
        };
        let named = reading.start.and_then(|start| at.iter().find(|at| **at + 1 == start));
        let plausible = reading.text.as_ref().is_some_and(|(search, replace)| {
            dividers_are_content(replace) || rung <= Rung::Trailing && balanced(search, replace)
        });
        if at.len() > 1 && named.is_none() || divider(end) || !plausible {
            let message = "cannot tell which ======= line divides this block; search for less, or use a unified diff here";
            return Err(Refusal::new(RefusalKind::Ambiguous, message.into()).at(at.first().copied()));
        }
        return Ok(reading.clone());
    }
    Err(first.unwrap_or_else(|| feedback::not_found(index, &body(hunk), hunk.start)))
}

/// Returns one hunk that replaces all occurrences of the search text. If there is no exact
/// occurrence, returns `None`, or refuses the hunk if it says how many to expect.
fn replace_everywhere(index: &Index<'_>, hunk: &Hunk) -> Result<Option<Hunk>, Refusal> {
    let Some((search, replace)) = &hunk.text else { return Ok(None) };
    let (search, replace) = (index.lines.with_endings(search), index.lines.with_endings(replace));
    if search.is_empty() {
        return Ok(None);
    }
    let bytes = index.lines.bytes;
    let at: Vec<usize> = memchr::memmem::find_iter(bytes, &search).collect();
    if at.is_empty() && hunk.expected.is_some() {
        return Err(feedback::not_found(index, &body(hunk), None));
    }
    if let Some(count) = hunk.expected.filter(|count| *count != at.len()) {
        let line = |at: &usize| index.lines.line_at(*at);
        let message = format!("the search text occurs in {} places, not in {count} as expected", at.len());
        return Err(Refusal::new(RefusalKind::Ambiguous, message).at(at.first().map(line)));
    }
    Ok(replaced(bytes, &at, &search, &replace))
}

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

/// Returns whether the search and the replacement have the same number of `=======` lines and at
/// least one each, as when a heading is renamed. At most one reading of a block has this property.
fn balanced(search: &[u8], replace: &[u8]) -> bool {
    let dividers = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.lines().filter(|line| blocks::marker(line) == Some(Marker::Divider)).count()
    };
    dividers(search) > 0 && dividers(search) == dividers(replace)
}

/// Returns whether each `=======` line of a replacement underlines a heading of about the same
/// length, or is inside a git conflict.
fn dividers_are_content(replace: &[u8]) -> bool {
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

/// Expands the lines of dots that occur in both the search and its replacement. A line of dots
/// stands for the same lines of the file in both. Returns `None` unless the parts between the dots
/// match in exactly one way.
fn expand_elisions(index: &Index<'_>, hunk: &Hunk) -> Option<Hunk> {
    let (search, replace) = hunk.text.as_ref()?;
    let (search, replace) = (std::str::from_utf8(search).ok()?, std::str::from_utf8(replace).ok()?);
    let is_gap = |line: &str| lazy::is_elision(line) && index.count_of(line.as_bytes()) == 0;
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
    // Take the old lines from the file, so that they match exactly.
    for (i, line) in (at[0]..).zip(lines.iter_mut().filter(|line| line.mark != Mark::Add)) {
        line.text = index.lines.texts.get(i)?.to_vec();
    }
    Some(Hunk { lines, start: Some(at[0] + 1), ..Hunk::default() })
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

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

/// Returns the line at which each part starts in the file, if there is only one way to place the
/// parts in order and without overlap.
fn only_places(index: &Index<'_>, parts: &[Vec<&str>]) -> Option<Vec<usize>> {
    let texts = &index.lines.texts;
    let matches_at = |part: &[&str], at: usize| {
        texts.get(at..at + part.len()).is_some_and(|here| {
            here.iter().zip(part).all(|(here, line)| here.trim_ascii_end() == line.trim_end().as_bytes())
        })
    };
    let matches: Vec<_> = parts
        .iter()
        .map(|part| {
            let lines: Vec<&[u8]> = part.iter().map(|line| line.as_bytes()).collect();
            let mut at: Vec<usize> =
                index.runs(&lines).into_iter().filter(|at| matches_at(part, *at)).collect();
            at.sort_unstable();
            at.into_iter().map(|at| (at, at..at + part.len())).collect()
        })
        .collect();
    let (earliest, latest) = earliest_and_latest(&matches)?;
    (earliest == latest).then_some(earliest)
}

/// Restores the leading space of context lines that were written without a mark. The parser read
/// that space as the mark, but it is part of the text. Only context lines are changed, because
/// added and removed lines have real marks and must stay as they are.
fn restore_first_column(index: &Index<'_>, hunk: &Hunk) -> Option<Hunk> {
    let may_lack_column =
        |line: &Line| line.mark == Mark::Keep && line.marked && !line.text.trim_ascii().is_empty();
    if !hunk.lines.iter().any(may_lack_column) || !hunk.lines.iter().any(|line| line.mark != Mark::Keep) {
        return None;
    }
    let matches_exactly = |hunk: &Hunk| {
        let fits = crate::ladder::fits(index, &body(hunk)).unwrap_or_default();
        fits.first().is_some_and(|fit| fit.rung <= Rung::Trailing)
    };
    if matches_exactly(hunk) {
        return None;
    }
    let matches_at = |text: &[u8]| {
        index.places_of(text).any(|at| index.lines.texts[at].trim_ascii_end() == text.trim_ascii_end())
    };
    let mut restored = hunk.clone();
    for line in restored.lines.iter_mut().filter(|line| may_lack_column(line)) {
        let with_blank = [b" ", &line.text[..]].concat();
        if !matches_at(&line.text) || matches_at(&with_blank) {
            line.text = with_blank;
        }
    }
    matches_exactly(&restored).then_some(restored)
}
