//! What a placed hunk does to the file's bytes: for each block of changed lines the bytes that go and the ones that come.
//!
//! Lines that are kept are not touched. A new line ends as the line that it replaces, else as the one above it.

use std::ops::Range;

use crate::{
    Hunk, Mark, Rung,
    body::Body,
    indent::Shift,
    index::Index,
    ladder::Fit,
    lines::{Lines, indent, trim},
    typography::Typography,
    units,
};

/// Bytes of the file, and what takes their place.
pub(crate) type Splice = (Range<usize>, Vec<u8>);

/// Changed lines next to each other.
struct Block<'b> {
    /// The file's lines that go; empty where lines are only added, above its start.
    gone: Range<usize>,
    /// The same as the patch has them.
    removed: Vec<&'b [u8]>,
    added: Vec<&'b [u8]>,
}

/// The blocks of a hunk where it was placed.
fn blocks<'b>(body: &Body<'b>, fit: &Fit) -> Vec<Block<'b>> {
    let mut out: Vec<Block<'b>> = Vec::new();
    let mut open = false;
    let mut old = 0;
    let mut above: Option<usize> = None; // the last old line's place
    for (mark, text) in body {
        if *mark == Mark::Keep {
            above = fit.lines[old].or(above);
            old += 1;
            open = false;
            continue;
        }
        if !open {
            let here = if fit.lines.is_empty() { Some(fit.at) } else { None };
            // Above the next line that is there, when it is the very next one; else below the last one.
            let below = || fit.lines.get(old).copied().flatten();
            let at = here.or_else(below).or(above.map(|a| a + 1)).unwrap_or(fit.at);
            out.push(Block { gone: at..at, removed: Vec::new(), added: Vec::new() });
            open = true;
        }
        let Some(block) = out.last_mut() else { continue };
        match mark {
            Mark::Add => block.added.push(text),
            _ => {
                block.removed.push(text);
                above = fit.lines[old].or(above);
                block.gone.end += 1;
                old += 1;
            }
        }
    }
    out
}

/// Whether lines that a hunk only adds stand already where they would come.
pub(crate) fn added_already(index: &Index<'_>, body: &Body<'_>, fit: &Fit) -> bool {
    let texts = &index.lines.texts;
    let stand = |from: Option<usize>, lines: &[&[u8]]| {
        from.and_then(|from| texts.get(from..from + lines.len())).is_some_and(|here| here == lines)
    };
    blocks(body, fit)
        .iter()
        .filter(|b| b.removed.is_empty() && b.added.iter().any(|l| !trim(l).is_empty()))
        .any(|b| {
            stand(Some(b.gone.start), &b.added) || stand(b.gone.start.checked_sub(b.added.len()), &b.added)
        })
}

/// The splices of a hunk.
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

/// `hunk` for its last block only: what it says of the final newline.
fn splice(
    file: &Lines<'_>,
    block: &Block<'_>,
    fit: &Fit,
    typography: &Typography<'_>,
    hunk: Option<&Hunk>,
) -> Splice {
    let Range { start, end } = block.gone;
    let mut range = file.start(start)..file.start(end);
    let mut bytes = Vec::new();
    if start == file.len() && file.unfinished() {
        // Lines are added below a last line that does not end: now it has to.
        bytes.extend_from_slice(file.ending_near(start.saturating_sub(1)));
        range = file.bytes.len()..file.bytes.len();
    }
    let at_end = end == file.len();
    if at_end && file.unfinished() && block.added.is_empty() && start > 0 && hunk.is_some_and(keeps_the_end) {
        // What is the last line now ends as the last line did.
        range.start -= file.ends[start - 1].len();
    }
    let mut ending = file.ending_near(start);
    for (i, text) in block.added.iter().enumerate() {
        let replaced = (start + i < end).then(|| (file.texts[start + i], block.removed[i]));
        let blanks = (fit.rung >= Rung::Typographic).then(|| units::plain_indent(text)).flatten();
        let text = match (&fit.shift, replaced) {
            (Shift::AsReplaced, Some((there, _))) => [indent(there), text.trim_ascii_start()].concat(),
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

/// Whether a search and its replacement both go to the end of the file, without a word on its final newline.
fn keeps_the_end(hunk: &Hunk) -> bool {
    hunk.text.is_some() && hunk.lines.iter().any(|l| l.mark != Mark::Remove)
}

/// Whether a new last line is to have no newline: what the patch says about it, else what the file has.
fn ends_without_newline(file: &Lines<'_>, lines: &[crate::Line]) -> bool {
    let said = |mark| lines.iter().rev().find(|l| l.mark == mark).map(|l| l.newline);
    match (said(Mark::Add), said(Mark::Remove).or(said(Mark::Keep))) {
        (Some(false), _) => true,
        (Some(true), Some(false)) => false,
        _ => file.unfinished(),
    }
}
