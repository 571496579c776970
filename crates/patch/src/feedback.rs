//! What a model is told when a patch does not go in: what it needs for the next try, and nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    body::{Body, old},
    index::Index,
    lines::trim,
    similarity::alike,
};

/// Longest line shown, in characters.
const WIDTH: usize = 160;
/// Most lines of the file shown.
const SHOWN: usize = 30;
/// Most places of an ambiguous hunk named.
const PLACES: usize = 5;

/// Why a patch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Its old lines are nowhere.
    NotFound,
    /// Its old lines are in several places.
    Ambiguous,
    /// What it does has been done.
    AlreadyApplied,
    /// It only adds lines and does not say where.
    NoContext,
    /// Two of its hunks change the same lines.
    Overlap,
    /// It changes nothing.
    NoChange,
    /// It creates a file that is there.
    Exists,
    /// It changes a file that is not there.
    Missing,
    /// It has a comment or dots where the file has code.
    Placeholder,
    /// The new text is wrapped in something that does not belong in a file: a fence, thoughts, a patch marker.
    Wrapped,
}

/// A patch that was not applied, and what the file really says. Its `Display` is what the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub kind: Kind,
    /// Which hunk, from 1; 0 when it is about the whole file.
    pub hunk: usize,
    /// Of how many.
    pub of: usize,
    /// The line of the file that it is about, from 1: the nearest to what was looked for, or the first of several places.
    pub line: Option<usize>,
    /// What is wrong, with the file's lines.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hunk, self.of) {
            // Refused while it was written: how many there would have been is not known.
            (2.., 0) => write!(f, "hunk {}: ", self.hunk)?,
            (1.., 2..) => write!(f, "hunk {} of {}: ", self.hunk, self.of)?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// About the whole file.
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self { kind, hunk: 0, of: 0, line: None, message }
    }

    /// About a line of the file, counted from 0.
    pub(crate) fn at(self, line: Option<usize>) -> Self {
        Self { line: line.map(|line| line + 1), ..self }
    }

    /// About a hunk, from 1.
    pub(crate) fn hunk(self, hunk: usize, of: usize) -> Self {
        Self { hunk, of, ..self }
    }
}

pub(crate) fn show(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out: String = text.chars().take(WIDTH).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn numbered(index: &Index<'_>, from: usize, to: usize) -> String {
    let to = to.min(index.lines.len());
    let mut out = String::new();
    for i in from..to.min(from + SHOWN) {
        out += &format!("\n{}|{}", i + 1, show(index.lines.texts[i]));
    }
    if to > from + SHOWN {
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
    format!("there is no line {line} to insert below; the file has {} lines", index.lines.len())
}

pub(crate) fn too_many(places: usize) -> String {
    format!("its old lines stand in {places} places; include lines that occur once")
}

pub(crate) fn ambiguous(index: &Index<'_>, places: &[usize]) -> String {
    let mut message = format!("its old lines stand in {} places", places.len());
    for at in places.iter().take(PLACES) {
        let above = at.saturating_sub(1);
        message += &numbered(index, above, at + 2);
        message += "\n--";
    }
    message + "\ninclude more of the lines around the place that is meant"
}

/// Old lines that are nowhere.
pub(crate) fn nowhere(index: &Index<'_>, body: &Body<'_>, start: Option<usize>) -> Refused {
    let old = old(body);
    let nearest = nearest(index, &old, start);
    let line = nearest.map(|(at, differs)| at + differs.unwrap_or(0));
    Refused::new(Kind::NotFound, not_found(index, &old, nearest)).at(line)
}

/// The file's lines that are most like the ones that were looked for.
fn not_found(index: &Index<'_>, old: &[&[u8]], nearest: Option<(usize, Option<usize>)>) -> String {
    let n = index.lines.len();
    if n == 0 {
        return "its old lines are not in the file, which is empty".into();
    }
    let Some((at, missing)) = nearest else {
        let wanted = old.iter().find(|l| !trim(l).is_empty()).copied().unwrap_or_default();
        let mut message = format!(
            "its old lines are not in the file, which has {n} lines; there is no line like {:?}",
            show(wanted)
        );
        if n <= SHOWN {
            message += "; the file is:";
            message += &numbered(index, 0, n);
        }
        return message;
    };
    let mut message = String::from("its old lines are not in the file");
    if let Some(i) = missing {
        message += &format!("; line {} is not\n{}\nbut", at + i + 1, show(old[i]));
    } else {
        message += "; the nearest are";
    }
    let from = at.saturating_sub(1).min(n.saturating_sub(1));
    message + &numbered(index, from, (at + old.len() + 1).max(from + 3))
}

/// Where most of the old lines stand at their distance from each other (nearest to the line named, if several), and the first old line
/// that differs there. Without any equal line: where the line stands that is most like the longest old line.
fn nearest(index: &Index<'_>, old: &[&[u8]], start: Option<usize>) -> Option<(usize, Option<usize>)> {
    /// A line that stands in more places than this tells nothing.
    const COMMON: usize = 1000;
    let mut votes: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
    for (i, text) in old.iter().enumerate().filter(|(_, t)| trim(t).len() > 1) {
        for at in index.places_of(text).take(COMMON).filter_map(|at| at.checked_sub(i)) {
            *votes.entry(at).or_default() += 1;
        }
    }
    let far = |at: usize| start.map_or(at, |s| at.abs_diff(s.saturating_sub(1)));
    let best = votes.into_iter().max_by_key(|(at, votes)| (*votes, usize::MAX - far(*at), usize::MAX - at));
    if let Some((at, _)) = best {
        let differs = |i: &usize| index.lines.texts.get(at + i).is_none_or(|l| trim(l) != trim(old[*i]));
        return Some((at, (0..old.len()).find(differs)));
    }
    let (i, wanted) = old.iter().enumerate().max_by_key(|(_, l)| trim(l).len())?;
    let (line, _) = index
        .lines
        .texts
        .iter()
        .enumerate()
        .map(|(at, l)| (at, alike(l, wanted)))
        .filter(|(_, score)| *score >= 50)
        .max_by_key(|(at, score)| (*score, usize::MAX - far(*at)))?;
    Some((line.saturating_sub(i), Some(i)))
}

/// What a deletion takes to be in a file that holds something else.
pub(crate) fn differs(index: &Index<'_>, body: &Body<'_>) -> String {
    let old = old(body);
    let at = old
        .iter()
        .zip(&index.lines.texts)
        .position(|(a, b)| a != b)
        .unwrap_or(old.len().min(index.lines.len()));
    format!(
        "the file does not hold what the patch removes; it differs at line {}:{}",
        at + 1,
        numbered(index, at, at + 3)
    )
}
