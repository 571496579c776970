//! Small handwritten cases that the engine once got wrong.

use crate::{Case, Class, Edit, Expected, Form, Input, Tree};

/// The fields of each case: problem, form, old file, patch, new file. The file is named `f`.
const TEXTS: &[(&str, Form, &str, &str, &str)] = &[
    (
        "a removed list item is not a mail signature",
        Form::Unified,
        "title\n\n- one\n- two\n- three\n\nend\n",
        "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-title\n+Title\n \n@@ -3 +3 @@\n - one\n-- two\n+- second\n - three\n",
        "Title\n\n- one\n- second\n- three\n\nend\n",
    ),
    (
        "a removed list item at the end of a hunk is not a mail signature",
        Form::Git,
        "title\n- one\n- \n",
        "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,2 @@\n-title\n+Title\n - one\n-- \n",
        "Title\n- one\n",
    ),
    (
        "an unindented line is replaced with two lines",
        Form::Blocks,
        "def f(a):\n    return a\n",
        "f\n<<<<<<< SEARCH\nreturn a\n=======\nlog(a)\nreturn a\n>>>>>>> REPLACE\n",
        "def f(a):\n    log(a)\n    return a\n",
    ),
    (
        "a line with too little indentation is replaced with two lines",
        Form::Blocks,
        "class A:\n    def f(a):\n        return a\n",
        "f\n<<<<<<< SEARCH\n    return a\n=======\n    if a:\n        return a\n>>>>>>> REPLACE\n",
        "class A:\n    def f(a):\n        if a:\n            return a\n",
    ),
    (
        "a no-break space among spaces",
        Form::Unified,
        "create table t (\n    id      INT,\n    name    TEXT\n);\n",
        "--- a/f\n+++ b/f\n@@ -1,4 +1,5 @@\n create\u{a0}table t (\n     id\u{a0}     INT,\n+    mail\u{a0}   TEXT,\n     name\u{a0}   TEXT\n );\n",
        "create table t (\n    id      INT,\n    mail    TEXT,\n    name    TEXT\n);\n",
    ),
    (
        "a no-break space before spaces, in added lines",
        Form::Unified,
        "values (1, 2);\n",
        "--- a/f\n+++ b/f\n@@ -1 +1,2 @@\n values\u{a0}(1, 2);\n+    email\u{a0}      TEXT\n",
        "values (1, 2);\n    email       TEXT\n",
    ),
    (
        "the last two lines are swapped in a file without a final newline",
        Form::Blocks,
        "one,\ntwo,\nthree",
        "f\n<<<<<<< SEARCH\none,\ntwo,\nthree\n=======\none,\nthree\ntwo,\n>>>>>>> REPLACE\n",
        "one,\nthree\ntwo,",
    ),
    (
        "the last two lines are swapped in a file without a final newline",
        Form::Blocks,
        "one,\r\ntwo,\r\nthree",
        "f\n<<<<<<< SEARCH\ntwo,\nthree\n=======\nthree\ntwo,\n>>>>>>> REPLACE\n",
        "one,\r\nthree\r\ntwo,",
    ),
    (
        "counts that reach into the prose below",
        Form::Unified,
        "alpha = 1\nbravo = 2\n",
        "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n 1: alpha = 1\n-2: bravo = 2\n+2: bravo = 3\n\nThat is all.\n",
        "alpha = 1\nbravo = 3\n",
    ),
    (
        "counts that reach into the prose below",
        Form::Unified,
        "alpha = 1\nbravo = 2\n",
        "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n alpha = 1\n-bravo = 2\n+bravo = 3\n\nThat is all.\n",
        "alpha = 1\nbravo = 3\n",
    ),
];

pub(crate) fn cases(out: &mut Vec<Case>) {
    let tree = |files: &[(&str, &str)]| -> Tree {
        files.iter().map(|(path, text)| ((*path).to_owned(), ((*text).into(), false))).collect()
    };
    let mut push = |why: &'static str, form, before: Tree, input, after: Tree| {
        let name = format!("found/{why}/{}", out.len());
        let (class, deformations) = (Class::Deformed, vec![why]);
        let expected = Expected::Tree(after);
        out.push(Case { name, class, form, deformations, before, fixtures: Vec::new(), input, expected });
    };
    for (why, form, before, text, after) in TEXTS {
        push(why, *form, tree(&[("f", before)]), Input::Text((*text).into()), tree(&[("f", after)]));
    }
    // If the counts of a hunk are one too large, the header of the next file looks like a removed
    // line and an added line.
    for (old, new) in [
        ("--- /dev/null", "+++ b/g"),
        ("--- a/g\t2026-03-01 10:15:00.000000000 +0100", "+++ b/g\t2026-03-02 10:15:00.000000000 +0100"),
        ("--- g", "+++ g"),
    ] {
        let made = old.contains("null");
        let second = if made { "@@ -0,0 +1 @@\n+new\n" } else { "@@ -1 +1 @@\n-old\n+new\n" };
        let text = format!(
            "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n alpha = 1\n-bravo = 2\n+bravo = 3\n{old}\n{new}\n{second}"
        );
        let mut before = tree(&[("f", "alpha = 1\nbravo = 2\n")]);
        if !made {
            before.insert("g".into(), ("old\n".into(), false));
        }
        let after = tree(&[("f", "alpha = 1\nbravo = 3\n"), ("g", "new\n")]);
        push("counts that reach into the next file", Form::Unified, before, Input::Text(text), after);
    }
    // The search text starts with a blank line, in a file with mixed endings.
    let edit = Edit { path: "f".into(), search: "\r\ntwo\r\n".into(), replace: "\r\nzwei\r\n".into() };
    let (before, after) = ("zero\none\r\n\r\ntwo\r\nthree\n", "zero\none\r\n\r\nzwei\r\nthree\n");
    push(
        "the search text starts with a blank line, in a file with mixed endings",
        Form::Edits,
        tree(&[("f", before)]),
        Input::Edits(vec![edit]),
        tree(&[("f", after)]),
    );
}
