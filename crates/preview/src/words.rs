//! Finds the words that differ in a changed block: first pairs old lines with new ones, then
//! compares the words of each pair.

use std::collections::HashMap;
use std::ops::Range;

use similar::{Algorithm, DiffTag};

/// The largest block, in old lines times new lines, for which the best pairing is computed. In
/// larger blocks, lines are paired in order.
const WEIGHED: usize = 2_500;
/// Maximum length of a line in bytes. The words of longer lines are not compared.
const LONGEST: usize = 20_000;
/// Two lines with at least this similarity, from 0 to 1, are treated as versions of the same line.
const ALIKE: f32 = 0.5;

/// The byte ranges of the words that differ, in the old line and in the new one.
pub(super) type Emphasis = (Vec<Range<usize>>, Vec<Range<usize>>);

/// Pairs the old and new lines of a changed block that are versions of the same line. The pairs are
/// returned in order.
pub(super) fn pairs(old: &[String], new: &[String]) -> Vec<(usize, usize)> {
    let a: Vec<_> = old.iter().map(|line| Bag::of(line)).collect();
    let b: Vec<_> = new.iter().map(|line| Bag::of(line)).collect();
    if old.len() * new.len() > WEIGHED {
        return (0..old.len().min(new.len()))
            .filter(|i| a[*i].likeness(&b[*i]) >= ALIKE)
            .map(|i| (i, i))
            .collect();
    }
    // Dynamic programming: `best[i][j]` is the score of the best pairing of `a[i..]` with `b[j..]`.
    let mut best = vec![vec![0f32; b.len() + 1]; a.len() + 1];
    let mut likeness = vec![vec![0f32; b.len()]; a.len()];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            likeness[i][j] = a[i].likeness(&b[j]);
            let paired = if likeness[i][j] >= ALIKE { likeness[i][j] + best[i + 1][j + 1] } else { 0.0 };
            best[i][j] = paired.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if likeness[i][j] >= ALIKE && best[i][j] == likeness[i][j] + best[i + 1][j + 1] {
            out.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if best[i][j] == best[i + 1][j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

/// The words of a line with their counts, and their total length.
struct Bag<'a>(HashMap<&'a str, usize>, usize);

impl<'a> Bag<'a> {
    fn of(line: &'a str) -> Self {
        let (mut words, mut weight) = (HashMap::new(), 0);
        for word in tokens(line).filter(|w| !w.trim().is_empty()) {
            *words.entry(word).or_default() += 1;
            weight += word.len();
        }
        Self(words, weight)
    }

    /// Returns the share of words that both lines have in common, weighted by length, from 0 to 1.
    /// It is 1 if neither line has any words.
    fn likeness(&self, other: &Self) -> f32 {
        if self.1 + other.1 == 0 {
            return 1.0;
        }
        let common = |(word, n): (&&str, &usize)| other.0.get(word).map_or(0, |m| *n.min(m) * word.len());
        2.0 * self.0.iter().map(common).sum::<usize>() as f32 / (self.1 + other.1) as f32
    }
}

/// Returns the ranges of the words that differ between two versions of a line.
pub(super) fn emphasis(old: &str, new: &str) -> Emphasis {
    if old.len().max(new.len()) > LONGEST {
        return Default::default();
    }
    let (a, b): (Vec<_>, Vec<_>) = (tokens(old).collect(), tokens(new).collect());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut at, mut to) = (0, 0);
    for op in similar::capture_diff_slices(Algorithm::Myers, &a, &b) {
        let length = |words: &[&str]| words.iter().map(|w| w.len()).sum::<usize>();
        let (n, m) = (length(&a[op.old_range()]), length(&b[op.new_range()]));
        if op.tag() != DiffTag::Equal {
            join(&mut left, at..at + n, old);
            join(&mut right, to..to + m, new);
        }
        (at, to) = (at + n, to + m);
    }
    (left, right)
}

/// Adds a range, or extends the last one if there is only whitespace between them.
fn join(places: &mut Vec<Range<usize>>, place: Range<usize>, line: &str) {
    if place.is_empty() {
        return;
    }
    match places.last_mut() {
        Some(last) if line[last.end..place.start].trim().is_empty() => last.end = place.end,
        _ => places.push(place),
    }
}

/// Splits a line into words, runs of spaces and tabs, and individual other characters.
fn tokens(line: &str) -> impl Iterator<Item = &str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 1,
        ' ' | '\t' => 2,
        _ => 0,
    };
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let same = |c: char| kind(first) != 0 && kind(c) == kind(first);
        let end = rest.find(|c| !same(c)).filter(|end| *end > 0).unwrap_or(if kind(first) == 0 {
            first.len_utf8()
        } else {
            rest.len()
        });
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(line: &str, places: &[Range<usize>]) -> String {
        let mut out = line.to_owned();
        for place in places.iter().rev() {
            out.insert(place.end, ']');
            out.insert(place.start, '[');
        }
        out
    }

    fn emphasised(old: &str, new: &str) -> (String, String) {
        let (left, right) = emphasis(old, new);
        (marked(old, &left), marked(new, &right))
    }

    #[test]
    fn a_line_is_split_into_words_blanks_and_single_signs() {
        assert_eq!(
            tokens("  fn añb_1(x)→\t").collect::<Vec<_>>(),
            ["  ", "fn", " ", "añb_1", "(", "x", ")", "→", "\t"]
        );
    }

    #[test]
    fn the_words_that_differ_are_found() {
        assert_eq!(emphasised("a - b;", "a + b;"), ("a [-] b;".into(), "a [+] b;".into()));
        assert_eq!(emphasised("f(x)", "f(x, yes)"), ("f(x)".into(), "f(x[, yes])".into()));
        assert_eq!(
            emphasised("let one two = 3", "let uno due = 3"),
            ("let [one two] = 3".into(), "let [uno due] = 3".into())
        );
        assert_eq!(emphasised("  x", "\tx"), ("[  ]x".into(), "[\t]x".into()));
    }

    #[test]
    fn lines_are_paired_across_added_lines() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (old, new) = (
            lines("let a = first();\nlet b = second();"),
            lines("// new\nlet a = first(1);\n\nlet b = second(2);"),
        );
        assert_eq!(pairs(&old, &new), [(0, 1), (1, 3)]);
        assert_eq!(pairs(&lines("alpha beta"), &lines("gamma delta")), []);
    }
}
