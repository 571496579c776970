//! Turns a matched hunk into splices: for each block of changed lines, the bytes to remove and the
//! bytes to insert.
//!
//! Context lines are not touched. An added line gets the ending of the line it replaces, or that of
//! the line above if it replaces none.

use std::ops::Range;

use crate::{
    Hunk, Mark, Rung,
    body::Body,
    indent::Shift,
    index::Index,
    ladder::Fit,
    lines::{Lines, indent},
    typography::Typography,
    units,
};

/// A range of the file's bytes and its replacement.
pub(crate) type Splice = (Range<usize>, Vec<u8>);

struct Block<'b> {
    /// The lines of the file to remove. If the block only adds lines, this range is empty, and the
    /// added lines go above its start.
    removed_range: Range<usize>,
    /// The removed lines as written in the patch.
    removed: Vec<&'b [u8]>,
    added: Vec<&'b [u8]>,
}

fn blocks<'b>(body: &Body<'b>, fit: &Fit) -> Vec<Block<'b>> {
    let mut out: Vec<Block<'b>> = Vec::new();
    let mut open = false;
    let mut old = 0;
    let mut above: Option<usize> = None; // where the last old line matched
    for (mark, text) in body {
        if *mark == Mark::Keep {
            above = fit.lines[old].or(above);
            old += 1;
            open = false;
            continue;
        }
        if !open {
            let here = if fit.lines.is_empty() { Some(fit.at) } else { None };
            // If the old line that follows has a match, insert above it; otherwise, insert below
            // the last old line with a match.
            let below = || fit.lines.get(old).copied().flatten();
            let at = here.or_else(below).or(above.map(|a| a + 1)).unwrap_or(fit.at);
            out.push(Block { removed_range: at..at, removed: Vec::new(), added: Vec::new() });
            open = true;
        }
        let Some(block) = out.last_mut() else { continue };
        match mark {
            Mark::Add => block.added.push(text),
            _ => {
                block.removed.push(text);
                above = fit.lines[old].or(above);
                block.removed_range.end += 1;
                old += 1;
            }
        }
    }
    out
}

/// Returns whether any block only adds lines that the file already has, right above or right below
/// the place where they would be inserted.
pub(crate) fn already_added(index: &Index<'_>, body: &Body<'_>, fit: &Fit) -> bool {
    let texts = &index.lines.texts;
    let has = |from: Option<usize>, lines: &[&[u8]]| {
        from.and_then(|from| texts.get(from..from + lines.len())).is_some_and(|here| here == lines)
    };
    blocks(body, fit)
        .iter()
        .filter(|b| b.removed.is_empty() && b.added.iter().any(|l| !l.trim_ascii().is_empty()))
        .any(|b| {
            has(Some(b.removed_range.start), &b.added)
                || has(b.removed_range.start.checked_sub(b.added.len()), &b.added)
        })
}

pub(crate) fn splices(index: &Index<'_>, hunk: &Hunk, body: &Body<'_>, fit: &Fit) -> Vec<Splice> {
    let file = &index.lines;
    let mut typography = Typography::default();
    let old = body.iter().filter(|(mark, _)| *mark != Mark::Add).zip(&fit.lines);
    old.for_each(|((_, text), at)| {
        if let Some(at) = at {
            typography.add(file.texts[*at], text);
        }
    });
    let blocks = blocks(body, fit);
    let last = blocks.len().saturating_sub(1);
    blocks
        .iter()
        .enumerate()
        .map(|(i, block)| splice(file, block, fit, &typography, (i == last).then_some(hunk)))
        .collect()
}

/// Returns the splice for a block. `hunk` is passed only for the last block of the hunk, where it
/// determines whether the file ends with a newline.
fn splice(
    file: &Lines<'_>,
    block: &Block<'_>,
    fit: &Fit,
    typography: &Typography<'_>,
    hunk: Option<&Hunk>,
) -> Splice {
    let Range { start, end } = block.removed_range;
    let mut range = file.start(start)..file.start(end);
    let mut bytes = Vec::new();
    if start == file.len() && file.unfinished() {
        // The file's last line has no newline. It needs one now, because lines follow it.
        bytes.extend_from_slice(file.ending_near(start.saturating_sub(1)));
        range = file.bytes.len()..file.bytes.len();
    }
    let at_end = end == file.len();
    if at_end
        && file.unfinished()
        && block.added.is_empty()
        && start > 0
        && hunk.is_some_and(keeps_final_newline)
    {
        // Like the old last line, the new last line must not end with a newline.
        range.start -= file.ends[start - 1].len();
    }
    let mut ending = file.ending_near(start);
    for (i, text) in block.added.iter().enumerate() {
        let replaced = (start + i < end).then(|| (file.texts[start + i], block.removed[i]));
        let blanks = (fit.rung >= Rung::Typographic).then(|| units::plain_indent(text)).flatten();
        let text = match (&fit.shift, replaced) {
            (Shift::AsReplaced, Some((old, _))) => [indent(old), text.trim_ascii_start()].concat(),
            (shift, _) => shift.apply(blanks.as_deref().unwrap_or(text)),
        };
        bytes.extend(typography.apply(&text, replaced));
        if let Some(own) = file.ends[start..end].get(i).filter(|end| !end.is_empty()) {
            ending = own;
        }
        let last = at_end && i + 1 == block.added.len();
        if !(last && hunk.is_some_and(|hunk| ends_without_newline(file, &hunk.lines))) {
            bytes.extend_from_slice(ending);
        }
    }
    (range, bytes)
}

/// Returns whether the hunk is a search with a non-empty replacement. Such a hunk says nothing about
/// the final newline.
fn keeps_final_newline(hunk: &Hunk) -> bool {
    hunk.text.is_some() && hunk.lines.iter().any(|l| l.mark != Mark::Remove)
}

/// Returns whether the new last line has no newline. If the patch does not specify this, the new
/// last line ends like the old one.
fn ends_without_newline(file: &Lines<'_>, lines: &[crate::Line]) -> bool {
    let newline = |mark| lines.iter().rev().find(|l| l.mark == mark).map(|l| l.newline);
    match (newline(Mark::Add), newline(Mark::Remove).or(newline(Mark::Keep))) {
        (Some(false), _) => true,
        (Some(true), Some(false)) => false,
        _ => file.unfinished(),
    }
}
