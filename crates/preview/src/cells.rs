//! Lays out a line for the screen: sanitizes and measures its characters, replaces tabs with
//! spaces, and emphasizes differences.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use super::Surface;
use crate::sanitize;
use crate::style::{Paint, Style};

/// The distance between tab stops, in columns.
const TAB: usize = 4;

/// One character on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    sign: char,
    width: usize,
    strong: bool,
}

/// A sanitized line of a file, without its newline.
#[derive(Debug, Clone, Default)]
pub(super) struct Row(Vec<Cell>);

/// The kind of a line, which determines its colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Same,
    Old,
    New,
}

impl Kind {
    fn styles(self) -> Option<(Style, Style)> {
        match self {
            Kind::Same => None,
            Kind::Old => Some((Style::Bad, Style::BadStrong)),
            Kind::New => Some((Style::Good, Style::GoodStrong)),
        }
    }

    /// Returns the sign in front of the line.
    pub(super) fn sign(self) -> char {
        match self {
            Kind::Same => ' ',
            Kind::Old => '-',
            Kind::New => '+',
        }
    }
}

impl Row {
    /// Lays out a line. `strong` contains the byte ranges to emphasize, in order.
    pub(super) fn new(line: &str, strong: &[Range<usize>]) -> Self {
        let mut row = Self(Vec::with_capacity(line.len()));
        let mut column = 0;
        let mut places = strong.iter().peekable();
        for (at, c) in line.char_indices() {
            while places.next_if(|place| place.end <= at).is_some() {}
            let strong = places.peek().is_some_and(|place| place.contains(&at));
            if c == '\t' {
                let width = TAB - column % TAB;
                // An added or removed tab would be invisible if it were drawn as spaces.
                let first = if strong { '→' } else { ' ' };
                row.0.extend((0..width).map(|i| Cell {
                    sign: if i == 0 { first } else { ' ' },
                    width: 1,
                    strong,
                }));
                column += width;
                continue;
            }
            let mut buffer = [0; 4];
            for sign in sanitize::line(c.encode_utf8(&mut buffer)).chars() {
                let width = sign.width().unwrap_or(0);
                row.0.push(Cell { sign, width, strong });
                column += width;
            }
        }
        row
    }

    /// Returns the width in columns.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|c| c.width).sum()
    }

    /// Shortens the row to a width, keeping the part around the first emphasized cell. `…` marks
    /// the omitted parts.
    pub(super) fn cut(mut self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let left_out = Cell { sign: '…', width: 1, strong: false };
        let first = self.0.iter().position(|c| c.strong).unwrap_or(0);
        let start = first.saturating_sub(columns / 3);
        if start > 0 {
            self.0.drain(..start);
            self.0.insert(0, left_out);
        }
        if self.width() > columns {
            let end = self.fitting(columns.saturating_sub(1));
            self.0.truncate(end);
            self.0.push(left_out);
        }
        self
    }

    /// Returns the number of cells that fit into a width, or 1 if none fits, so that wrapping
    /// always makes progress.
    fn fitting(&self, columns: usize) -> usize {
        let mut used = 0;
        let fits = self.0.iter().take_while(|c| {
            used += c.width;
            used <= columns
        });
        fits.count().max(1)
    }

    /// Splits the row into pieces of at most this width.
    pub(super) fn wrap(mut self, columns: usize) -> Vec<Self> {
        let mut out = Vec::new();
        while self.width() > columns {
            let rest = self.0.split_off(self.fitting(columns).min(self.0.len()));
            out.push(std::mem::replace(&mut self, Self(rest)));
        }
        if out.is_empty() || !self.0.is_empty() {
            out.push(self);
        }
        out
    }

    /// Writes the row in the colors of its kind.
    pub(super) fn draw(&self, kind: Kind, paint: Paint, out: &mut String) {
        let Some((plain, strong)) = kind.styles().filter(|_| paint.0) else {
            return out.extend(self.0.iter().map(|c| c.sign));
        };
        for run in self.0.chunk_by(|a, b| a.strong == b.strong) {
            let style = if run.iter().any(|c| c.strong) { strong } else { plain };
            out.push_str(paint.begin(style));
            out.extend(run.iter().map(|c| c.sign));
            out.push_str(paint.end());
        }
    }

    /// Writes the line number, the sign and the row.
    pub(super) fn draw_numbered(&self, number: &str, sign: char, kind: Kind, paint: Paint, out: &mut String) {
        out.push_str(&paint.paint(Style::Dim, number));
        out.push(' ');
        Row::new(&sign.to_string(), &[]).draw(kind, paint, out);
        out.push(' ');
        self.draw(kind, paint, out);
    }

    /// Returns a line of carets to print under the emphasized cells. Returns `None` if colors are
    /// enabled, if no cell is emphasized, or if every cell is emphasized or a space.
    pub(super) fn carets(&self, surface: Surface) -> Option<String> {
        let inside = |c: &Cell| c.strong || c.sign == ' ';
        if surface.paint.0 || !self.0.iter().any(|c| c.strong) || self.0.iter().all(inside) {
            return None;
        }
        let mut line = String::new();
        for cell in &self.0 {
            line.extend(std::iter::repeat_n(if cell.strong { '^' } else { ' ' }, cell.width));
        }
        line.truncate(line.trim_end().len());
        Some(line)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list with one range is intended")]
mod tests {
    use super::*;

    fn text(row: &Row) -> String {
        row.0.iter().map(|c| c.sign).collect()
    }

    #[test]
    fn tabs_reach_the_next_stop_and_escapes_become_visible() {
        let row = Row::new("a\tb\x1b[2J\u{202e}", &[]);
        assert_eq!(text(&row), "a   b␛[2J<U+202E>");
        assert_eq!(text(&Row::new("\tx", &[0..1])), "→   x");
    }

    #[test]
    fn wide_characters_are_not_split_by_a_column() {
        let pieces = Row::new("日本語x", &[]).wrap(3);
        assert_eq!(pieces.iter().map(text).collect::<Vec<_>>(), ["日", "本", "語x"]);
        assert!(pieces.iter().all(|p| p.width() <= 3));
        assert_eq!(Row::new("", &[]).wrap(3).len(), 1);
        assert_eq!(Row::new("日", &[]).wrap(1).len(), 1, "too narrow for anything");
    }

    #[test]
    fn a_long_line_is_cut_to_the_part_that_differs() {
        let line = format!("{}!{}", "a".repeat(100), "b".repeat(100));
        let cut = Row::new(&line, &[100..101]).cut(30);
        assert_eq!((text(&cut), cut.width()), (format!("…{}!{}…", "a".repeat(10), "b".repeat(17)), 30));
    }
}
