//! Where a hunk's old lines stand in a file: the rungs of the ladder, for one hunk.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    Mark,
    lines::{Lines, indent, trim},
};

/// How closely a hunk fits where it was put; the first is the closest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Exactly, at the line it names.
    Named,
    /// Exactly, elsewhere.
    Exact,
    /// Exactly, within lines.
    Text,
    /// But for blanks at line ends.
    Trailing,
    /// But for an indentation that differs by the same amount everywhere.
    Indent,
    /// But for tabs against spaces.
    Tabs,
    /// Once pasted line numbers are taken off.
    Numbered,
}

/// How added lines are to be changed to fit in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shift {
    None,
    /// The file is indented deeper, by this.
    Deeper(Vec<u8>),
    /// The file is indented less, by this.
    Shallower(Vec<u8>),
    /// The file has a tab where the patch has this many spaces.
    Tabs(usize),
    /// The file has this many spaces where the patch has a tab.
    Spaces(usize),
}

/// A hunk's lines as the file would have them.
pub(crate) type Body<'a> = Vec<(Mark, &'a [u8])>;

/// A place where the old lines stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Index of the first line.
    pub(crate) at: usize,
    pub(crate) rung: Rung,
    pub(crate) shift: Shift,
}

/// Most lines compared for one hunk: enough for a hunk of a thousand lines that stands in ten thousand places.
const COMPARED: usize = 10_000_000;

/// A file's lines by content, blanks around them aside: every rung is a subset of that.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(crate) lines: Lines<'a>,
    ids: Vec<u32>,
    by_text: HashMap<&'a [u8], u32>,
    places: Vec<Vec<usize>>,
}

impl<'a> Index<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let lines = Lines::of(bytes);
        let mut by_text: HashMap<&[u8], u32> = HashMap::with_capacity(lines.len());
        let mut places: Vec<Vec<usize>> = Vec::new();
        let mut ids = Vec::with_capacity(lines.len());
        for (i, text) in lines.texts.iter().enumerate() {
            let id = *by_text.entry(trim(text)).or_insert(places.len() as u32);
            if id as usize == places.len() {
                places.push(Vec::new());
            }
            places[id as usize].push(i);
            ids.push(id);
        }
        Self { lines, ids, by_text, places }
    }

    /// Where a line with this text stands, blanks around it aside.
    pub(crate) fn places_of(&self, text: &[u8]) -> &[usize] {
        self.by_text.get(trim(text)).map_or(&[], |id| &self.places[*id as usize])
    }

    /// Where these lines stand one after the other, blanks around each aside.
    pub(crate) fn runs(&self, old: &[&[u8]]) -> Vec<usize> {
        let mut ids = Vec::with_capacity(old.len());
        for text in old {
            match self.by_text.get(trim(text)) {
                Some(id) => ids.push(*id),
                None => return Vec::new(),
            }
        }
        let rarest = ids.iter().enumerate().min_by_key(|(_, id)| self.places[**id as usize].len());
        let Some((offset, rarest)) = rarest else { return Vec::new() };
        let starts = self.places[*rarest as usize].iter().filter_map(|at| at.checked_sub(offset));
        starts.filter(|at| self.ids.get(*at..*at + ids.len()).is_some_and(|here| here == ids)).collect()
    }

    /// The places on the highest rung that has any, in file order. Empty when the old lines are nowhere, or there are none. `Err` when they
    /// are in too many places to compare, as blank lines in blank lines are; how many.
    pub(crate) fn fits(&self, body: &Body<'_>) -> Result<Vec<Fit>, usize> {
        let old: Vec<&[u8]> = old(body);
        let mut fits: Vec<Fit> = Vec::new();
        let runs = self.runs(&old);
        if runs.len() > 1 && runs.len() * old.len() > COMPARED {
            return Err(runs.len());
        }
        for at in runs {
            let here = &self.lines.texts[at..at + old.len()];
            let Some((rung, shift)) = fit(here, &old, body) else { continue };
            match fits.first().map(|f| f.rung) {
                Some(best) if best < rung => continue,
                Some(best) if best > rung => fits.clear(),
                _ => {}
            }
            fits.push(Fit { at, rung, shift });
        }
        Ok(fits)
    }
}

/// The lines that have to be there.
pub(crate) fn old<'a>(body: &Body<'a>) -> Vec<&'a [u8]> {
    body.iter().filter(|(mark, _)| *mark != Mark::Add).map(|(_, text)| *text).collect()
}

/// The lines that are there afterwards.
pub(crate) fn new<'a>(body: &Body<'a>) -> Vec<&'a [u8]> {
    body.iter().filter(|(mark, _)| *mark != Mark::Remove).map(|(_, text)| *text).collect()
}

fn fit(here: &[&[u8]], old: &[&[u8]], body: &Body<'_>) -> Option<(Rung, Shift)> {
    if here == old {
        return Some((Rung::Exact, Shift::None));
    }
    if here.iter().zip(old).all(|(a, b)| a.trim_ascii_end() == b.trim_ascii_end()) {
        return Some((Rung::Trailing, Shift::None));
    }
    let indents: Vec<(&[u8], &[u8])> = here
        .iter()
        .zip(old)
        .filter(|(_, b)| !trim(b).is_empty())
        .map(|(a, b)| (indent(a), indent(b)))
        .collect();
    let added = || body.iter().filter(|(m, t)| *m == Mark::Add && !trim(t).is_empty()).map(|(_, t)| *t);
    let (file, patch) = *indents.first()?;
    if let Some(by) = file.strip_suffix(patch)
        && indents.iter().all(|(a, b)| a.strip_prefix(by) == Some(b))
    {
        return Some((Rung::Indent, Shift::Deeper(by.to_vec())));
    }
    if let Some(by) = patch.strip_suffix(file)
        && indents.iter().all(|(a, b)| b.strip_prefix(by) == Some(a))
        && added().all(|t| t.starts_with(by))
    {
        return Some((Rung::Indent, Shift::Shallower(by.to_vec())));
    }
    let tabs = unit(indents.iter().copied()).filter(|_| added().all(|t| !indent(t).contains(&b'\t')));
    let spaces = unit(indents.iter().map(|(a, b)| (*b, *a)))
        .filter(|n| added().all(|t| *n > 0 && !indent(t).windows(2).any(|w| w == b" \t")));
    tabs.map(Shift::Tabs).or(spaces.map(Shift::Spaces)).map(|shift| (Rung::Tabs, shift))
}

/// How many spaces on one side stand for each tab on the other; `None` unless it is the same number everywhere.
fn unit<'a>(mut pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<usize> {
    let mut unit = None;
    let same = pairs.all(|(tabs, spaces)| {
        if !tabs.iter().all(|b| *b == b'\t') || !spaces.iter().all(|b| *b == b' ') {
            return false;
        }
        if tabs.is_empty() || spaces.is_empty() {
            return tabs.is_empty() && spaces.is_empty();
        }
        let here = spaces.len() / tabs.len();
        spaces.len() == here * tabs.len() && here > 0 && *unit.get_or_insert(here) == here
    });
    unit.filter(|_| same)
}

impl Shift {
    /// An added line as it fits in.
    pub(crate) fn apply(&self, text: &[u8]) -> Vec<u8> {
        if trim(text).is_empty() {
            return text.to_vec();
        }
        let rest = &text[indent(text).len()..];
        match self {
            Self::None => text.to_vec(),
            Self::Deeper(by) => [by, text].concat(),
            Self::Shallower(by) => text.strip_prefix(&by[..]).unwrap_or(text).to_vec(),
            Self::Tabs(n) => {
                let spaces = indent(text).len();
                [vec![b'\t'; spaces / n], vec![b' '; spaces % n], rest.to_vec()].concat()
            }
            Self::Spaces(n) => {
                let wide =
                    indent(text).iter().flat_map(|b| if *b == b'\t' { vec![b' '; *n] } else { vec![*b] });
                wide.chain(rest.iter().copied()).collect()
            }
        }
    }
}

/// The hunk without line numbers pasted from `read_file`, and the first of them; `None` unless every old line has one and they count up.
pub(crate) fn unnumbered<'a>(body: &Body<'a>) -> Option<(Body<'a>, usize)> {
    let (mut first, mut next) = (None, None);
    let mut out = Vec::with_capacity(body.len());
    for (mark, text) in body {
        match (mark, number(text)) {
            (Mark::Add, Some((_, rest))) => out.push((*mark, rest)),
            (Mark::Add, None) => out.push((*mark, *text)),
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

/// `12|text`, `12: text` or `12<tab>text`, perhaps after blanks.
fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let n = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    let rest = text[digits..].trim_ascii_start();
    let rest = match rest.first() {
        Some(b'|') => &rest[1..],
        Some(b':') => rest[1..].strip_prefix(b" ").unwrap_or(&rest[1..]),
        _ => text[digits..].strip_prefix(b"\t")?,
    };
    Some((n, rest))
}
