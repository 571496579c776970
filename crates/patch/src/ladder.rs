//! Finds where the old lines of one hunk match. Each rung of the ladder is one way of matching,
//! from the strictest to the loosest.

use serde::{Deserialize, Serialize};

use crate::{
    Mark,
    body::{Body, new, old},
    context,
    indent::{Indents, Shift},
    index::Index,
    lines::indent,
    similarity::similarity,
    units,
};

/// How closely a hunk matched. The variants are ordered from the strictest to the loosest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Exactly, at the line number given in the hunk.
    Named,
    /// Exactly, at another line.
    Exact,
    /// Exactly, as text within lines.
    Text,
    /// Ignoring whitespace at line ends.
    Trailing,
    /// With a constant difference in indentation.
    Indent,
    /// With tabs in place of spaces or vice versa, in the indentation or between words.
    Tabs,
    /// With typographic characters in place of plain ones or vice versa.
    Typographic,
    /// After removing pasted line numbers.
    Numbered,
    /// With a few slightly wrong context lines; the removed lines match.
    Context,
}

/// A place where the old lines match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) at: usize,
    /// The line below the last matched line.
    pub(crate) end: usize,
    /// The line of the file that matches each old line; `None` for a context line that is missing
    /// at this place.
    pub(crate) lines: Vec<Option<usize>>,
    pub(crate) rung: Rung,
    pub(crate) shift: Shift,
}

impl Fit {
    fn whole(at: usize, len: usize, rung: Rung, shift: Shift) -> Self {
        Self { at, end: at + len, lines: (at..at + len).map(Some).collect(), rung, shift }
    }

    fn aligned(lines: Vec<Option<usize>>, shift: Shift) -> Self {
        let at = lines.iter().flatten().next().copied().unwrap_or_default();
        let end = lines.iter().rev().flatten().next().map_or(at, |last| last + 1);
        Self { at, end, lines, rung: Rung::Context, shift }
    }

    /// Returns whether every matched line is where it would be if the hunk matched exactly at this
    /// line.
    pub(crate) fn matches_at(&self, line: isize) -> bool {
        let right = |(i, at): (usize, &Option<usize>)| at.is_none_or(|at| at as isize - i as isize == line);
        if self.rung == Rung::Context {
            self.lines.iter().enumerate().all(right)
        } else {
            self.at as isize == line
        }
    }

    /// Returns whether the matched lines are contiguous in the file.
    pub(crate) fn is_gapless(&self) -> bool {
        let lines: Vec<usize> = self.lines.iter().flatten().copied().collect();
        lines.windows(2).all(|w| w[1] == w[0] + 1)
    }

    /// Returns a match above line `at`, for a hunk without old lines.
    pub(crate) fn above(at: usize) -> Self {
        Self::whole(at, 0, Rung::Exact, Shift::None)
    }
}

/// Minimum similarity, in percent, between an added line and the line it replaces. Below this, the
/// added line does not inherit the indentation of that line.
const MIN_SIMILARITY: usize = 60;

/// Maximum number of lines compared for one hunk. This is enough to compare a thousand-line hunk in
/// ten thousand places.
const MAX_COMPARED: usize = 10_000_000;

/// The error for a hunk that may match in too many places to compare, such as blank lines in a file
/// of blank lines. Holds the number of places.
#[derive(Debug)]
pub(crate) struct TooMany(pub(crate) usize);

/// Returns, in order, the matches on the strictest rung that has any. Does not try to strip pasted
/// line numbers or to tolerate wrong context lines.
pub(crate) fn fits(index: &Index<'_>, body: &Body<'_>) -> Result<Vec<Fit>, TooMany> {
    let old: Vec<&[u8]> = old(body);
    let mut fits: Vec<Fit> = Vec::new();
    let runs = index.runs(&old);
    if runs.len() > 1 && runs.len() * old.len() > MAX_COMPARED {
        return Err(TooMany(runs.len()));
    }
    for at in runs {
        let here = &index.lines.texts[at..at + old.len()];
        let pairs = here.iter().copied().zip(old.iter().copied());
        let Some((rung, shift)) = fit(pairs.clone(), body).or_else(|| fit_of_changes(pairs, body)) else {
            continue;
        };
        match fits.first().map(|f| f.rung) {
            Some(best) if best < rung => continue,
            Some(best) if best > rung => fits.clear(),
            _ => {}
        }
        fits.push(Fit::whole(at, old.len(), rung, shift));
    }
    Ok(fits)
}

/// Returns the matches found when all whitespace is ignored, such as `f(a,b)` for `f(a, b)`. A hunk
/// that changes only whitespace never matches this way.
pub(crate) fn squeezed_fits(index: &Index<'_>, body: &Body<'_>) -> Vec<Fit> {
    let keys = |lines: Vec<&[u8]>| lines.into_iter().map(units::squeezed_key).collect::<Vec<_>>();
    let (before, after) = (old(body), new(body));
    if before.is_empty() || keys(before.clone()) == keys(after) {
        return Vec::new();
    }
    let fit = |at: usize| {
        let here = index.lines.texts.get(at..at + before.len())?;
        let shift = shift(here.iter().copied().zip(before.iter().copied()), body)?;
        Some(Fit::whole(at, before.len(), Rung::Context, shift))
    };
    index.squeezed_runs(&before).into_iter().filter_map(fit).collect()
}

pub(crate) fn loose_fits(index: &Index<'_>, body: &Body<'_>) -> Vec<Fit> {
    let old = old(body);
    let fit = |lines: Vec<Option<usize>>| {
        let pairs =
            || lines.iter().zip(&old).filter_map(|(at, text)| Some((index.lines.texts[(*at)?], *text)));
        let equal = pairs().filter(|(here, text)| units::same(here, text));
        // A slightly wrong line still shows the indentation.
        let shift = shift(pairs(), body).or_else(|| shift(equal, body))?;
        let foreign = shift == Shift::None && is_foreign(index, body);
        (!foreign).then(|| Fit::aligned(lines, shift))
    };
    let mut seen: Vec<Vec<Option<usize>>> = Vec::new();
    let mut out = Vec::new();
    for context::Alignment { lines, required } in context::alignments(index, body) {
        if !seen.contains(&required)
            && let Some(fit) = fit(lines)
        {
            seen.push(required);
            out.push(fit);
        }
    }
    out
}

/// Returns the rung on which lines of the file (first of each pair) match lines of the patch
/// (second), and how to shift the indentation of added lines. The two lines of a pair are equal
/// except for whitespace and typography. Returns `None` if the difference does not determine how to
/// indent added lines.
fn fit<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    body: &Body<'_>,
) -> Option<(Rung, Shift)> {
    let all = |same: fn(&[u8], &[u8]) -> bool| pairs.clone().all(|(a, b)| same(a, b));
    if all(|a, b| a == b) {
        return Some((Rung::Exact, Shift::None));
    }
    if all(|a, b| a.trim_ascii_end() == b.trim_ascii_end()) {
        return Some((Rung::Trailing, Shift::None));
    }
    let words = if all(|a, b| a.trim_ascii() == b.trim_ascii()) {
        Rung::Indent
    } else if all(|a, b| {
        a.split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty())
            .eq(b.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()))
    }) {
        Rung::Tabs
    } else {
        Rung::Typographic
    };
    let shift = shift(pairs, body)?;
    let rung = if matches!(shift, Shift::Columns { .. }) { Rung::Tabs } else { Rung::Indent };
    Some((words.max(rung), shift))
}

/// Returns whether added lines use tabs in a file indented with spaces (or vice versa), or
/// typographic characters in a file without them. If the context is also wrong, it is unclear which
/// characters are right.
fn is_foreign(index: &Index<'_>, body: &Body<'_>) -> bool {
    let by = |blank: u8| move |text: &[u8]| text.first() == Some(&blank) && !text.trim_ascii().is_empty();
    let file = |blank| index.lines.texts.iter().any(|text| by(blank)(text));
    let added = |blank| body.iter().any(|(mark, text)| *mark == Mark::Add && by(blank)(text));
    let typographic = |text: &[u8]| units::plain(text).is_some();
    added(b'\t') && !file(b'\t') && file(b' ')
        || added(b' ') && !file(b' ') && file(b'\t')
        || body.iter().any(|(mark, text)| *mark == Mark::Add && typographic(text))
            && !typographic(index.lines.bytes)
}

fn shift<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>, body: &Body<'_>) -> Option<Shift> {
    let mut indents = Indents::default();
    pairs.for_each(|(a, b)| indents.add(a, b));
    indents.shift(body.iter().filter(|(mark, _)| *mark == Mark::Add).map(|(_, text)| *text))
}

/// Like [`fit`], but considers only the changed lines, because context lines are not rewritten.
/// Succeeds if the removed lines have the file's indentation, or if each added line can inherit the
/// indentation of the similar line it replaces.
fn fit_of_changes<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    body: &Body<'_>,
) -> Option<(Rung, Shift)> {
    let marks = body.iter().filter(|(mark, _)| *mark != Mark::Add).map(|(mark, _)| *mark);
    let removed = pairs.zip(marks).filter(|(_, mark)| *mark == Mark::Remove).map(|(pair, _)| pair);
    if removed.clone().any(|(_, text)| units::is_distinctive(text))
        && matches!(fit(removed, body), Some((_, Shift::None)))
    {
        return Some((Rung::Context, Shift::None));
    }
    let similar =
        |(old, new): (&[u8], &[u8])| indent(old) == indent(new) && similarity(old, new) >= MIN_SIMILARITY;
    let blocks = body.split(|(mark, _)| *mark == Mark::Keep).filter(|block| !block.is_empty());
    let all = blocks.clone().all(|block| {
        let of = |wanted| block.iter().filter(move |(mark, _)| *mark == wanted).map(|(_, text)| *text);
        of(Mark::Add).count() <= of(Mark::Remove).count() && of(Mark::Remove).zip(of(Mark::Add)).all(similar)
    });
    all.then_some((Rung::Context, Shift::AsReplaced))
}

/// Strips line numbers pasted from `read_file`. Returns the hunk without the line numbers, along
/// with the first number. Returns `None` if the numbers are not consecutive, or if an old line has
/// no number and is not a blank context line.
pub(crate) fn unnumbered<'a>(body: &Body<'a>) -> Option<(Body<'a>, usize)> {
    let (mut first, mut next) = (None, None);
    let mut out = Vec::with_capacity(body.len());
    for (mark, text) in body {
        match (mark, number(text)) {
            (Mark::Add, Some((_, rest))) => out.push((*mark, rest)),
            (Mark::Add, None) => out.push((*mark, *text)),
            // This empty line lost its number, or merely separates the hunk from other text.
            (Mark::Keep, None) if text.trim_ascii().is_empty() => {
                next = next.map(|n| n + 1);
                out.push((*mark, *text));
            }
            (_, Some((n, rest))) if next.is_none_or(|next| next == n) => {
                first.get_or_insert(n);
                next = Some(n + 1);
                out.push((*mark, rest));
            }
            _ => return None,
        }
    }
    first.map(|first| (out, first))
}

/// Parses `12|text`, `12: text`, `12→text` or `12<tab>text`, optionally indented or written as
/// `L12: text`.
pub(crate) fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"L").unwrap_or(text);
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let n = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let rest = &text[digits..];
    let rest = match (rest.first(), rest.trim_ascii_start()) {
        // Keep a bar after the tab: it may be part of a table.
        (Some(b'\t'), _) => &rest[1..],
        (_, rest) if rest.starts_with("→".as_bytes()) => {
            let rest = &rest["→".len()..];
            rest.strip_prefix(b"\t").unwrap_or(rest)
        }
        (_, [b'|', rest @ ..]) => rest,
        (_, [b':', rest @ ..]) => rest.strip_prefix(b" ").unwrap_or(rest),
        _ => return None,
    };
    Some((n, rest))
}
