//! Generates changes of every kind in [`KINDS`]. Each change affects a single file.

use crate::{
    edit::{FileEdit, Op, endings_agree},
    judge::{fold, unnumbered},
    random::Random,
    text::{End, Layout, Row, Text, make},
};

const WORDS: &[&str] = &[
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll",
    "lilac", "maple", "north", "ocean", "pearl", "quartz", "ridge", "sable", "tulip", "umber", "velvet",
    "willow", "zephyr",
];

/// Returns a word that does not occur in any base text.
fn new_word(random: &mut Random) -> String {
    format!("{}{}", random.pick(WORDS), random.between(10, 99))
}

fn rich(text: &str) -> bool {
    text.chars().filter(char::is_ascii_alphanumeric).count() >= 4
}

/// Returns a variation of a row. The variation does not already occur in the file.
fn varied(text: &str, taken: &[String], random: &mut Random) -> String {
    for _ in 0..8 {
        let out = variation(text, random);
        let folded = fold(&out);
        if !taken.contains(&folded) && unnumbered(out.trim()).is_none() {
            return out;
        }
    }
    format!("{text} {}", new_word(random))
}

fn variation(text: &str, random: &mut Random) -> String {
    let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
    let words: Vec<(usize, &str)> = words(text).collect();
    match random.below(4) {
        0 if !digits.is_empty() => {
            let at = *random.pick(&digits);
            let digit = (text.as_bytes()[at] - b'0' + 1 + random.below(8) as u8) % 10;
            format!("{}{digit}{}", &text[..at], &text[at + 1..])
        }
        1 | 2 if !words.is_empty() => {
            let (at, word) = *random.pick(&words);
            let new =
                if random.percent(50) { new_word(random) } else { format!("{word}_{}", new_word(random)) };
            format!("{}{new}{}", &text[..at], &text[at + word.len()..])
        }
        _ => {
            let end = text.trim_end().len();
            let at = text.find(['(', '=', ':', ',']).filter(|i| *i > 2).map_or(end, |i| i + 1);
            format!("{}{}{}", &text[..at], new_word(random), &text[at..])
        }
    }
}

/// Returns the words that have at least four ASCII letters, each with its byte offset.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let letters = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| w.len() >= 4);
    letters.map(move |w| (w.as_ptr() as usize - text.as_ptr() as usize, w))
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Change,
    ChangeFew,
    Rewrite,
    Insert,
    InsertBlock,
    Delete,
    DeleteBlock,
    First,
    Last,
    Append,
    Prepend,
    Several,
    Many,
    Swap,
    Wrap,
    Move,
}

pub(crate) const KINDS: &[(Kind, &str)] = &[
    (Kind::Change, "change"),
    (Kind::ChangeFew, "change-few"),
    (Kind::Rewrite, "rewrite"),
    (Kind::Insert, "insert"),
    (Kind::InsertBlock, "insert-block"),
    (Kind::Delete, "delete"),
    (Kind::DeleteBlock, "delete-block"),
    (Kind::First, "first"),
    (Kind::Last, "last"),
    (Kind::Append, "append"),
    (Kind::Prepend, "prepend"),
    (Kind::Several, "several"),
    (Kind::Many, "many"),
    (Kind::Swap, "swap"),
    (Kind::Wrap, "wrap"),
    (Kind::Move, "move"),
];

struct Maker<'a> {
    rows: &'a [Row],
    taken: Vec<String>,
    random: &'a mut Random,
}

impl Maker<'_> {
    fn new_rows(&mut self, like: std::ops::Range<usize>) -> Vec<String> {
        like.map(|i| match self.rows.get(i) {
            Some(row) if rich(&row.text) => varied(&row.text, &self.taken, self.random),
            Some(row) => row.text.clone(),
            None => new_word(self.random),
        })
        .collect()
    }

    /// Returns the index of a random row that has at least four letters or digits.
    fn row(&mut self) -> Option<usize> {
        (0..40).map(|_| self.random.below(self.rows.len())).find(|i| rich(&self.rows[*i].text))
    }

    fn change(&mut self, at: usize, remove: usize, like: usize) -> Op {
        let add = self.new_rows(at..at + like);
        Op { at, remove, add }
    }

    /// Returns a block similar to the one around `at`, with at least one row that is not in the
    /// file.
    fn block(&mut self, at: usize, len: usize) -> Vec<String> {
        let from = at.min(self.rows.len().saturating_sub(len));
        let mut out = self.new_rows(from..from + len);
        if !out.iter().any(|t| rich(t) && !self.taken.contains(&fold(t))) {
            let text = self.rows.get(at).map_or("", |r| &r.text);
            let new = varied(text, &self.taken, self.random);
            out.push(new);
        }
        out
    }

    fn ops(&mut self, kind: Kind) -> Option<Vec<Op>> {
        let n = self.rows.len();
        let at = self.row()?;
        Some(match kind {
            Kind::Change => vec![self.change(at, 1, 1)],
            Kind::ChangeFew => {
                let len = self.random.between(2, 4).min(n - at);
                vec![self.change(at, len, len)]
            }
            Kind::Rewrite => {
                let len = self.random.between(3, 8).min(n - at);
                let like = self.random.between(1, 9).min(n - at);
                let add = self.block(at, like);
                vec![Op { at, remove: len, add }]
            }
            Kind::Insert => {
                let add = self.block(at, 1);
                vec![Op { at: at + self.random.below(2), remove: 0, add }]
            }
            Kind::InsertBlock => {
                let len = self.random.between(3, 7).min(n);
                let add = self.block(at, len);
                vec![Op { at, remove: 0, add }]
            }
            Kind::Delete => vec![Op { at, remove: 1, add: Vec::new() }],
            Kind::DeleteBlock => {
                let remove = self.random.between(2, 7).min(n - at);
                vec![Op { at, remove, add: Vec::new() }]
            }
            Kind::First => vec![self.change(0, 1, 1)],
            Kind::Last => vec![self.change(n - 1, 1, 1)],
            Kind::Append => {
                let add = self.block(at, 2);
                vec![Op { at: n, remove: 0, add }]
            }
            Kind::Prepend => {
                let add = self.block(0, 1);
                vec![Op { at: 0, remove: 0, add }]
            }
            Kind::Several => self.spread(2 + at % 2),
            Kind::Many => self.spread(5),
            Kind::Swap => {
                let here = (0..n - 1).filter(|i| rich(&self.rows[*i].text) && rich(&self.rows[i + 1].text));
                let here: Vec<usize> = here.filter(|i| self.rows[*i].text != self.rows[i + 1].text).collect();
                let at = *here.get(self.random.below(here.len()))?;
                let add = vec![self.rows[at + 1].text.clone(), self.rows[at].text.clone()];
                vec![Op { at, remove: 2, add }]
            }
            Kind::Wrap => {
                let len = self.random.between(1, 4).min(n - at);
                let unit = if self.rows.iter().any(|r| r.text.starts_with('\t')) { "\t" } else { "    " };
                let indent = self.rows[at].text.len() - self.rows[at].text.trim_start().len();
                let indent = &self.rows[at].text[..indent];
                let deeper = |r: &Row| {
                    if r.text.trim().is_empty() { r.text.clone() } else { format!("{unit}{}", r.text) }
                };
                let mut add = vec![format!("{indent}if {} {{", new_word(self.random))];
                add.extend(self.rows[at..at + len].iter().map(deeper));
                add.push(format!("{indent}}}"));
                vec![Op { at, remove: len, add }]
            }
            Kind::Move => {
                let len = self.random.between(1, 3).min(n - at);
                let add: Vec<String> = self.rows[at..at + len].iter().map(|r| r.text.clone()).collect();
                let to = (at + len + 3 + self.random.below(n)) % n;
                let near = to + 2 > at && to < at + len + 2;
                if near {
                    return None;
                }
                let mut ops = vec![Op { at, remove: len, add: Vec::new() }, Op { at: to, remove: 0, add }];
                ops.sort_by_key(|op| op.at);
                ops
            }
        })
    }

    /// Returns up to `count` operations, spread out over the file.
    fn spread(&mut self, count: usize) -> Vec<Op> {
        let step = (self.rows.len() / count).max(3);
        let mut out: Vec<Op> = Vec::new();
        for i in 0..count {
            let at = i * step + self.random.below(step - 2);
            if at + 1 >= self.rows.len() || !rich(&self.rows[at].text) {
                continue;
            }
            out.push(match self.random.below(4) {
                0 => Op { at, remove: 1, add: Vec::new() },
                1 => {
                    let add = self.block(at, 1);
                    Op { at, remove: 0, add }
                }
                _ => self.change(at, 1, 1),
            });
        }
        out
    }
}

/// Generates a change to one file; `None` if the text does not allow this kind of change.
fn change(path: &str, mut text: Text, kind: Kind, random: &mut Random) -> Option<FileEdit> {
    let taken = text.rows.iter().map(|r| fold(&r.text)).collect();
    let ops = Maker { rows: &text.rows, taken, random }.ops(kind)?;
    let valid = |op: &Op| {
        let same = text.rows[op.at..op.at + op.remove].iter().map(|r| &r.text).eq(&op.add);
        !same && (op.add.is_empty() || endings_agree(&text.rows, op))
    };
    if ops.is_empty() || !ops.iter().all(valid) {
        return None;
    }
    if ops.iter().any(|op| op.at == 0 && (op.remove == 0 || op.add.is_empty())) {
        text.bom = false; // it would be unclear which line has the byte order mark
    }
    let edit = FileEdit::change(path, text, ops);
    // An empty last row without a line ending would not exist in the file.
    let ends = |t: &Text| t.rows.last().is_none_or(|r| r.end != End::Nothing || !r.text.is_empty());
    edit.after().is_some_and(|t| ends(&t)).then_some(edit)
}

/// Tries several times to find a change that the text allows.
pub(crate) fn some_change(
    path: &str,
    base: &str,
    layout: Layout,
    kind: Kind,
    random: &mut Random,
) -> Option<FileEdit> {
    (0..12).find_map(|_| {
        let text = make(base, layout, random);
        change(path, text, kind, random)
    })
}
