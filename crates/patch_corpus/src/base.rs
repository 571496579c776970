//! Base edits: a few hundred changes of files, whose results are known because they are made, not found.

use crate::{
    Form, Tree,
    edit::{FileEdit, Op, endings_agree},
    judge::{fold, unnumbered},
    random::Random,
    text::{End, Layout, Row, TEXTS, Text, make},
};

/// An edit of one or several files, and files that nothing happens to.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) edits: Vec<FileEdit>,
    pub(crate) others: Vec<(String, Text)>,
    /// Of the corpus that it is in.
    pub(crate) seed: u64,
}

impl Base {
    fn new(name: String, edits: Vec<FileEdit>) -> Self {
        let others = vec![("notes/other.txt".to_owned(), Text::of("something else\nthat stays\n"))];
        Self { name, edits, others, seed: 0 }
    }

    fn unchanged(&self) -> Tree {
        self.others.iter().map(|(path, text)| (path.clone(), (text.bytes(), false))).collect()
    }

    pub(crate) fn before(&self) -> Tree {
        let files = self
            .edits
            .iter()
            .filter_map(|e| Some((e.path.clone(), (e.before.as_ref()?.bytes(), e.executable))));
        self.unchanged().into_iter().chain(files).collect()
    }

    pub(crate) fn after(&self) -> Tree {
        let file = |e: &FileEdit| Some((e.after_path().to_owned(), (e.after()?.bytes(), e.executable_after)));
        self.unchanged().into_iter().chain(self.edits.iter().filter_map(file)).collect()
    }

    /// Whether a form can say all of it.
    pub(crate) fn fits(&self, form: Form) -> bool {
        self.edits.iter().all(|e| edit_fits(e, form)) && (form != Form::Whole || self.edits.len() == 1)
    }
}

fn edit_fits(edit: &FileEdit, form: Form) -> bool {
    let mode = edit.executable != edit.executable_after;
    let moved = edit.to.is_some();
    let empty = edit.created.as_ref().is_some_and(|t| t.rows.is_empty());
    let special = edit.created.as_ref().is_some_and(|t| t.unfinished() || t.bom || t.has(End::CrLf));
    // Whether the new last line ends is a matter of bytes here, which only diffs speak of.
    let before = edit.before.as_ref().is_some_and(Text::unfinished);
    let ends = edit.final_newline.is_some()
        || before && !edit.deleted && !edit.after().is_some_and(|t| t.unfinished());
    match form {
        Form::Git => true,
        Form::Unified => !mode && !moved && !empty,
        Form::Envelope => !mode && !empty && !special && !ends,
        Form::Blocks => !mode && !moved && !edit.deleted && !empty && !special && !ends,
        Form::Edits => !mode && !moved && !edit.deleted && !empty && !ends,
        Form::Whole => !mode && !moved && edit.final_newline != Some(false),
    }
}

const WORDS: &[&str] = &[
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll",
    "lilac", "maple", "north", "ocean", "pearl", "quartz", "ridge", "sable", "tulip", "umber", "velvet",
    "willow", "zephyr",
];

/// A word that no base text has.
fn fresh(random: &mut Random) -> String {
    format!("{}{}", random.pick(WORDS), random.between(10, 99))
}

fn rich(text: &str) -> bool {
    text.chars().filter(char::is_ascii_alphanumeric).count() >= 4
}

/// A row like this one that says something else; never one that the file has.
fn varied(text: &str, taken: &[String], random: &mut Random) -> String {
    for _ in 0..8 {
        let out = variation(text, random);
        let folded = fold(&out);
        if !taken.contains(&folded) && unnumbered(out.trim()).is_none() {
            return out;
        }
    }
    format!("{text} {}", fresh(random))
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
            let new = if random.percent(50) { fresh(random) } else { format!("{word}_{}", fresh(random)) };
            format!("{}{new}{}", &text[..at], &text[at + word.len()..])
        }
        _ => {
            let end = text.trim_end().len();
            let at = text.find(['(', '=', ':', ',']).filter(|i| *i > 2).map_or(end, |i| i + 1);
            format!("{}{}{}", &text[..at], fresh(random), &text[at..])
        }
    }
}

/// Words of four ASCII letters or more.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let letters = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| w.len() >= 4);
    letters.map(move |w| (w.as_ptr() as usize - text.as_ptr() as usize, w))
}

#[derive(Debug, Clone, Copy)]
enum Kind {
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

const KINDS: &[(Kind, &str)] = &[
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
            None => fresh(self.random),
        })
        .collect()
    }

    /// A row that says something.
    fn row(&mut self) -> Option<usize> {
        (0..40).map(|_| self.random.below(self.rows.len())).find(|i| rich(&self.rows[*i].text))
    }

    fn change(&mut self, at: usize, remove: usize, like: usize) -> Op {
        let add = self.new_rows(at..at + like);
        Op { at, remove, add }
    }

    /// A block that is like the one around `at`, with at least one new row that says something.
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
                let mut add = vec![format!("{indent}if {} {{", fresh(self.random))];
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

    /// Operations in several places, some lines apart.
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

/// A change of one file; `None` when this kind does not go with this text.
fn change(path: &str, mut text: Text, kind: Kind, random: &mut Random) -> Option<FileEdit> {
    let taken = text.rows.iter().map(|r| fold(&r.text)).collect();
    let ops = Maker { rows: &text.rows, taken, random }.ops(kind)?;
    let fine = |op: &Op| {
        let same = text.rows[op.at..op.at + op.remove].iter().map(|r| &r.text).eq(&op.add);
        !same && (op.add.is_empty() || endings_agree(&text.rows, op))
    };
    if ops.is_empty() || !ops.iter().all(fine) {
        return None;
    }
    if ops.iter().any(|op| op.at == 0 && (op.remove == 0 || op.add.is_empty())) {
        text.bom = false; // whose mark it then is, is a matter of opinion
    }
    let edit = FileEdit::change(path, text, ops);
    // An empty last row that does not end is no row.
    let ends = |t: &Text| t.rows.last().is_none_or(|r| r.end != End::Nothing || !r.text.is_empty());
    edit.after().is_some_and(|t| ends(&t)).then_some(edit)
}

/// A change that exists, after some tries.
fn some_change(path: &str, base: &str, layout: Layout, kind: Kind, random: &mut Random) -> Option<FileEdit> {
    (0..12).find_map(|_| {
        let text = make(base, layout, random);
        change(path, text, kind, random)
    })
}

pub(crate) fn all(seed: u64) -> Vec<Base> {
    let mut out = Vec::new();
    for (t, (path, text)) in TEXTS.iter().enumerate() {
        for (k, (kind, name)) in KINDS.iter().enumerate() {
            let layout = Layout::ALL[(t * 5 + k * 3 + seed as usize) % Layout::ALL.len()];
            let mut random = Random::new(seed, t * 100 + k);
            let Some(edit) = some_change(path, text, layout, *kind, &mut random) else { continue };
            let stem = path.rsplit('/').next().unwrap_or(path);
            out.push(Base::new(format!("{stem}/{name}/{layout:?}"), vec![edit]));
        }
    }
    whole_files(seed, &mut out);
    several_files(seed, &mut out);
    odd_files(&mut out);
    out.iter_mut().for_each(|base| base.seed = seed);
    out
}

/// An edit like those of [`all`], any of them.
pub(crate) fn any(seed: u64) -> Option<Base> {
    let mut random = Random::new(seed, 30_000);
    let count = if random.percent(15) { 2 + random.below(2) } else { 1 };
    let mut edits: Vec<FileEdit> = Vec::new();
    for _ in 0..count {
        let (path, text) = *random.pick(TEXTS);
        let layout = *random.pick(Layout::ALL);
        let (kind, _) = *random.pick(KINDS);
        let mut edit = match random.below(20) {
            0 => FileEdit::create(path, make(text, Layout::Plain, &mut random)),
            1 => FileEdit::delete(path, make(text, layout, &mut random)),
            _ => some_change(path, text, layout, kind, &mut random)?,
        };
        if edit.before.is_some() && !edit.deleted && random.percent(8) {
            edit.to = Some(format!("moved/{path}"));
        }
        if !edits.iter().any(|e| e.path == edit.path) {
            edits.push(edit);
        }
    }
    let mut base = Base::new(format!("any/{seed}"), edits);
    base.seed = seed;
    Some(base)
}

/// Created, deleted, moved, made executable.
fn whole_files(seed: u64, out: &mut Vec<Base>) {
    for (i, (path, text)) in TEXTS.iter().enumerate() {
        let mut random = Random::new(seed, 10_000 + i);
        let layout = [Layout::Plain, Layout::CrLf, Layout::Unfinished, Layout::Tabs][i % 4];
        let name = |what: &str| format!("{}/{what}", path.rsplit('/').next().unwrap_or(path));
        let moved = |edit: &mut FileEdit| edit.to = Some(format!("moved/{path}"));
        match i % 6 {
            0 => {
                let content = make(text, if i % 12 == 0 { Layout::Plain } else { layout }, &mut random);
                out.push(Base::new(name("create"), vec![FileEdit::create(path, content)]));
            }
            1 => out.push(Base::new(
                name("remove"),
                vec![FileEdit::delete(path, make(text, layout, &mut random))],
            )),
            2 => {
                let mut edit = FileEdit::change(path, make(text, layout, &mut random), Vec::new());
                moved(&mut edit);
                out.push(Base::new(name("rename"), vec![edit]));
            }
            3 => {
                let Some(mut edit) = some_change(path, text, layout, Kind::ChangeFew, &mut random) else {
                    continue;
                };
                moved(&mut edit);
                out.push(Base::new(name("rename-change"), vec![edit.clone()]));
                edit.executable_after = true;
                out.push(Base::new(name("rename-change-mode"), vec![edit]));
            }
            4 => {
                let mut edit = FileEdit::change(path, make(text, layout, &mut random), Vec::new());
                edit.executable_after = i % 4 == 0;
                edit.executable = !edit.executable_after;
                out.push(Base::new(name("mode"), vec![edit]));
                let mut edit = FileEdit::create(path, make(text, Layout::Plain, &mut random));
                edit.executable_after = true;
                out.push(Base::new(name("create-executable"), vec![edit]));
            }
            _ => {
                let Some(mut edit) = some_change(path, text, layout, Kind::Several, &mut random) else {
                    continue;
                };
                (edit.executable, edit.executable_after) = (true, true);
                out.push(Base::new(name("keeps-executable"), vec![edit.clone()]));
                edit.executable_after = false;
                out.push(Base::new(name("change-mode"), vec![edit]));
            }
        }
        if i % 3 == 0 {
            let mut edit = FileEdit::change(path, make(text, Layout::Unfinished, &mut random), Vec::new());
            edit.final_newline = Some(true);
            out.push(Base::new(name("newline-added"), vec![edit]));
            let mut edit = FileEdit::change(path, make(text, Layout::Plain, &mut random), Vec::new());
            edit.final_newline = Some(false);
            out.push(Base::new(name("newline-removed"), vec![edit]));
        }
    }
}

/// Two to four files at once.
fn several_files(seed: u64, out: &mut Vec<Base>) {
    for i in 0..36 {
        let mut random = Random::new(seed, 20_000 + i);
        let mut edits = Vec::new();
        for j in 0..2 + i % 3 {
            let (path, text) = TEXTS[(i * 7 + j * 5) % TEXTS.len()];
            let layout = Layout::ALL[(i + j * 4) % Layout::ALL.len()];
            let (kind, _) = KINDS[(i * 3 + j) % KINDS.len()];
            let edit = match (i % 6, j) {
                (1, 1) => Some(FileEdit::create(path, make(text, Layout::Plain, &mut random))),
                (2, 1) => Some(FileEdit::delete(path, make(text, layout, &mut random))),
                (3, 1) => some_change(path, text, layout, kind, &mut random).map(|mut e| {
                    e.to = Some(format!("old/{path}"));
                    e
                }),
                _ => some_change(path, text, layout, kind, &mut random),
            };
            edits.extend(edit);
        }
        if edits.len() > 1 {
            out.push(Base::new(format!("several/{i}"), edits));
        }
    }
}

/// Small, empty, repetitive and oddly named files.
fn odd_files(out: &mut Vec<Base>) {
    let op = |at, remove, add: &[&str]| Op { at, remove, add: add.iter().map(|t| (*t).to_owned()).collect() };
    let mut one = |name: &str, path: &str, text: &str, ops: Vec<Op>| {
        out.push(Base::new(format!("odd/{name}"), vec![FileEdit::change(path, Text::of(text), ops)]));
    };
    one("empty-filled", "empty.txt", "", vec![op(0, 0, &["first amber11", "second"])]);
    one("one-line-changed", "one.txt", "VERSION = 12\n", vec![op(0, 1, &["VERSION = 13"])]);
    one("one-line-unfinished", "one.txt", "VERSION = 12", vec![op(0, 1, &["VERSION = 13"])]);
    one("one-line-appended", "one.txt", "VERSION = 12\n", vec![op(1, 0, &["amber21 = 1"])]);
    one("one-line-unfinished-appended", "one.txt", "VERSION = 12", vec![op(1, 0, &["amber21 = 1"])]);
    one("one-line-removed", "one.txt", "VERSION = 12\n", vec![op(0, 1, &[])]);
    one("all-replaced", "all.txt", "red fox\nblue jay\ngreen frog\n", vec![op(0, 3, &["white amber45 owl"])]);
    one("blank-lines", "blank.txt", "\n\n\nmiddle\n\n\n", vec![op(3, 1, &["centre amber12"])]);
    one("blank-removed", "blank.txt", "above\n\n\n\nbelow\n", vec![op(2, 1, &[])]);
    one("blank-added", "blank.txt", "above\nbelow\nlast row\n", vec![op(1, 0, &[""])]);
    one("spaces-in-name", "docs/my file.txt", "alpha\nbravo\ncharlie\n", vec![op(1, 1, &["bravo pearl31"])]);
    one(
        "unicode-name",
        "docs/größe naïve.txt",
        "alpha\nbravo\ncharlie\n",
        vec![op(1, 1, &["bravo pearl32"])],
    );
    one("quote-in-name", "docs/a\"b.txt", "alpha\nbravo\ncharlie\n", vec![op(1, 1, &["bravo pearl33"])]);
    one("deep-name", "a/b/c/d/e.txt", "alpha\nbravo\ncharlie\n", vec![op(1, 1, &["bravo pearl34"])]);
    one("dots-in-name", "x..y/..z.txt", "alpha\nbravo\ncharlie\n", vec![op(1, 1, &["bravo pearl35"])]);
    one(
        "looks-like-a-diff",
        "notes.txt",
        "intro\n-- removed\n++ added\n@@ middle @@\n outro\n",
        vec![op(1, 1, &["-- removed ridge77"])],
    );
    one(
        "looks-like-an-envelope",
        "notes.txt",
        "intro\nsee: *** Update File: x\nend of it\n",
        vec![op(2, 1, &["end of ridge78"])],
    );
    one("underlined", "title.rst", "Title\n=====\n\ntext of it\n", vec![op(3, 1, &["text of ridge79"])]);
    for (i, rows) in [40usize, 200, 600].into_iter().enumerate() {
        let table: String =
            (0..rows).map(|n| format!("    {{ id: {n}, on: {}, name: \"row\" }},\n", n % 2 == 0)).collect();
        let at = rows / 3;
        one(
            &format!("table-{rows}"),
            "table.js",
            &table,
            vec![op(at, 1, &["    { id: 0, on: true, name: \"willow\" },"])],
        );
        let same: String = (0..rows)
            .map(|n| if n % 5 == 4 { format!("end {n}\n") } else { "    step();\n".into() })
            .collect();
        one(
            &format!("same-{rows}"),
            "same.txt",
            &same,
            vec![op(5 * (i + 2) + 1, 1, &["    step(fjord44);"])],
        );
        let equal: String = (0..rows).map(|n| if n % 4 == 3 { "}\n" } else { "    work();\n" }).collect();
        one(&format!("equal-{rows}"), "equal.txt", &equal, vec![op(9, 1, &["    work(fjord45);"])]);
    }
    let long: String = (0..3).map(|n| format!("row {n}: {}\n", "lorem ipsum ".repeat(3000))).collect();
    one("very-long-lines", "long.txt", &long, vec![op(1, 1, &["row 1: short haven55"])]);
}
