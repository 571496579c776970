//! Draws removed lines above added lines, with the words that differ emphasized.

use similar::DiffTag;

use super::Surface;
use super::cells::{Kind, Row};
use super::compare::Comparison;
use super::words;
use crate::style::Style;

/// The maximum number of columns to show per line, so that minified code does not fill the screen.
const LONGEST: usize = 600;

/// Draws every hunk.
pub(super) fn draw(comparison: &Comparison<'_>, surface: Surface, out: &mut String) {
    let digits = comparison.digits();
    for (n, hunk) in comparison.hunks.iter().enumerate() {
        if n > 0 {
            out.push_str(&surface.paint.paint(Style::Dim, format_args!("{:>digits$}", "⋮")));
            out.push('\n');
        }
        for op in hunk {
            if op.tag() == DiffTag::Equal {
                for (i, line) in op.new_range().zip(&comparison.new[op.new_range()]) {
                    put(Kind::Same, i + 1, line, &[], comparison, surface, out);
                }
                continue;
            }
            let (old, new) = (&comparison.old[op.old_range()], &comparison.new[op.new_range()]);
            let (left, right) = block(old, new, comparison.crlf);
            for ((i, line), strong) in op.old_range().zip(old).zip(&left) {
                put(Kind::Old, i + 1, line, strong, comparison, surface, out);
            }
            for ((i, line), strong) in op.new_range().zip(new).zip(&right) {
                put(Kind::New, i + 1, line, strong, comparison, surface, out);
            }
        }
    }
}

/// The ranges to emphasize in each line of a block.
type Strong = Vec<Vec<std::ops::Range<usize>>>;

fn block(old: &[&[u8]], new: &[&[u8]], crlf: bool) -> (Strong, Strong) {
    let (mut left, mut right) = (vec![Vec::new(); old.len()], vec![Vec::new(); new.len()]);
    let text = |lines: &[&[u8]]| lines.iter().map(|l| shown(l, crlf).0).collect::<Vec<_>>();
    let (old, new) = (text(old), text(new));
    for (i, j) in words::pairs(&old, &new) {
        (left[i], right[j]) = words::emphasis(&old[i], &new[j]);
    }
    (left, right)
}

/// Returns a line as text without its line ending, and whether it ended with a newline.
pub(super) fn shown(line: &[u8], crlf: bool) -> (String, bool) {
    let (body, newline) = line.strip_suffix(b"\n").map_or((line, false), |body| (body, true));
    let body = body.strip_suffix(b"\r").filter(|_| crlf).unwrap_or(body);
    (String::from_utf8_lossy(body).into_owned(), newline)
}

fn put(
    kind: Kind,
    number: usize,
    line: &[u8],
    strong: &[std::ops::Range<usize>],
    comparison: &Comparison<'_>,
    surface: Surface,
    out: &mut String,
) {
    let digits = comparison.digits();
    let (text, newline) = shown(line, comparison.crlf);
    let row = Row::new(&text, strong).cut(LONGEST);
    row.draw_numbered(&format!("{number:>digits$}"), kind.sign(), kind, surface.paint, out);
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
    let below = " ".repeat(digits + 3);
    if let Some(carets) = row.carets(surface) {
        out.push_str(&format!("{below}{carets}\n"));
    }
    if !newline {
        out.push_str(&surface.paint.paint(Style::Dim, format_args!("{below}\\ no newline at end of file")));
        out.push('\n');
    }
}
