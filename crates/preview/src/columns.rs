//! Draws the old and new versions of a file side by side, with both versions of a line in the same
//! row.

use similar::DiffTag;

use super::Surface;
use super::cells::{Kind, Row};
use super::compare::Comparison;
use super::lines::shown;
use super::words;
use crate::style::Style;

/// The maximum number of screen lines for one line of a file; longer lines are shortened.
const ROWS: usize = 6;
/// The separator between the two columns.
const BETWEEN: &str = " │ ";

/// One side of a row: line number, kind, text, and whether it ends with a newline.
type Side = (usize, Kind, Row, bool);

/// Draws every hunk.
pub(super) fn draw(comparison: &Comparison<'_>, surface: Surface, out: &mut String) {
    let page = Page::new(comparison, surface);
    for (n, hunk) in comparison.hunks.iter().enumerate() {
        if n > 0 {
            let dots = format!("{:>1$}", "⋮", page.digits);
            let line = format!("{dots}{}{BETWEEN}{dots}", " ".repeat(page.column - page.digits));
            out.push_str(&surface.paint.paint(Style::Dim, line));
            out.push('\n');
        }
        for op in hunk {
            let (old, new) = (op.old_range(), op.new_range());
            if op.tag() == DiffTag::Equal {
                for (i, j) in old.zip(new) {
                    let side = |n: usize, line| Some(page.side(n, Kind::Same, line, &[]));
                    page.row(side(i, comparison.old[i]), side(j, comparison.new[j]), out);
                }
                continue;
            }
            page.block(old, new, out);
        }
    }
}

struct Page<'a> {
    comparison: &'a Comparison<'a>,
    surface: Surface,
    digits: usize,
    /// The width of one side, including number and sign.
    column: usize,
    /// The width of the text on one side.
    text: usize,
}

impl<'a> Page<'a> {
    fn new(comparison: &'a Comparison<'a>, surface: Surface) -> Self {
        let digits = comparison.digits();
        let column = (surface.width - BETWEEN.chars().count()) / 2;
        Self { comparison, surface, digits, column, text: column.saturating_sub(digits + 3).max(1) }
    }

    fn side(&self, index: usize, kind: Kind, line: &[u8], strong: &[std::ops::Range<usize>]) -> Side {
        let (text, newline) = shown(line, self.comparison.crlf);
        (index + 1, kind, Row::new(&text, strong).cut(self.text * ROWS), newline)
    }

    /// Draws a changed block, with each pair of lines in one row.
    fn block(&self, old: std::ops::Range<usize>, new: std::ops::Range<usize>, out: &mut String) {
        let text =
            |lines: &[&[u8]]| lines.iter().map(|l| shown(l, self.comparison.crlf).0).collect::<Vec<_>>();
        let (a, b) = (text(&self.comparison.old[old.clone()]), text(&self.comparison.new[new.clone()]));
        let left = |i: usize, strong: &[_]| {
            self.side(old.start + i, Kind::Old, self.comparison.old[old.start + i], strong)
        };
        let right = |j: usize, strong: &[_]| {
            self.side(new.start + j, Kind::New, self.comparison.new[new.start + j], strong)
        };
        let (mut i, mut j) = (0, 0);
        let ends = (a.len(), b.len());
        for (x, y) in words::pairs(&a, &b).into_iter().chain([ends]) {
            // Lines before the pair have no counterpart, but a removed line and an added line can
            // share a row.
            for k in 0..(x - i).max(y - j) {
                let old = (i + k < x).then(|| left(i + k, &[]));
                let new = (j + k < y).then(|| right(j + k, &[]));
                self.row(old, new, out);
            }
            if (x, y) != ends {
                let (p, q) = words::emphasis(&a[x], &b[y]);
                self.row(Some(left(x, &p)), Some(right(y, &q)), out);
            }
            (i, j) = (x + 1, y + 1);
        }
    }

    /// Draws one row, with as many screen lines as its longer side needs.
    fn row(&self, left: Option<Side>, right: Option<Side>, out: &mut String) {
        let pieces = |side: Option<Side>| match side {
            Some((number, kind, row, newline)) => {
                let mut rows = row.wrap(self.text);
                if !newline {
                    rows.extend(Row::new("\\ no newline", &[]).wrap(self.text));
                }
                (number, kind, rows)
            }
            None => (0, Kind::Same, Vec::new()),
        };
        let (left, right) = (pieces(left), pieces(right));
        for i in 0..left.2.len().max(right.2.len()) {
            let used = self.half(&left, i, out);
            out.extend(std::iter::repeat_n(' ', self.column.saturating_sub(used)));
            out.push_str(&self.surface.paint.paint(Style::Dim, BETWEEN));
            self.half(&right, i, out);
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
    }

    /// Draws one side of the `i`th screen line of a row, and returns the width of that side.
    fn half(&self, (number, kind, rows): &(usize, Kind, Vec<Row>), i: usize, out: &mut String) -> usize {
        let Some(row) = rows.get(i) else { return 0 };
        let (number, sign) = if i == 0 { (number.to_string(), kind.sign()) } else { (String::new(), ' ') };
        let number = format!("{number:>0$}", self.digits);
        row.draw_numbered(&number, sign, *kind, self.surface.paint, out);
        self.digits + 3 + row.width()
    }
}
