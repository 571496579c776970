//! Base edits: a few hundred file changes whose results are known by construction.

use crate::{
    Form, Tree,
    edit::{FileEdit, Op},
    maker::{KINDS, Kind, some_change},
    random::Random,
    text::{End, Layout, TEXTS, Text, make},
};

/// An edit to one or more files, along with files that it leaves alone.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) name: String,
    pub(crate) edits: Vec<FileEdit>,
    pub(crate) others: Vec<(String, Text)>,
    /// The seed of the corpus.
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

    /// Returns whether a form can express the whole edit.
    pub(crate) fn fits(&self, form: Form) -> bool {
        self.edits.iter().all(|e| edit_fits(e, form)) && (form != Form::Whole || self.edits.len() == 1)
    }
}

fn edit_fits(edit: &FileEdit, form: Form) -> bool {
    let mode = edit.executable != edit.executable_after;
    let moved = edit.to.is_some();
    let empty = edit.created.as_ref().is_some_and(|t| t.rows.is_empty());
    let special = edit.created.as_ref().is_some_and(|t| t.unfinished() || t.bom || t.has(End::CrLf));
    // `ends` is true if the edit adds or removes the final newline, which few forms can express.
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

/// Returns a random edit like the ones in [`all`].
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

/// Adds edits that create, delete or move a file or change its mode.
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

/// Adds edits that change two to four files each.
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

/// Adds edits to small, empty, repetitive and oddly named files.
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
