//! Handwritten patches that are invalid or that no engine can apply.

use crate::{
    Case, Edit, Form, Input, Tree,
    refuse::{Kind, refused},
};

const FILE: &str =
    "alpha = 1\nbravo = 2\n\ndef charlie():\n    return alpha\n\ndef delta():\n    return alpha\n";

pub(crate) fn cases(out: &mut Vec<Case>) {
    let before: Tree = [("x.py", FILE), ("y.py", "other = 1\n")]
        .into_iter()
        .map(|(p, t)| (p.to_owned(), (t.into(), false)))
        .collect();
    let mut push = |why: &'static str, form, input, kind| {
        let name = format!("by hand/{why}/{}", out.len());
        out.push(refused(name, form, why, before.clone(), input, kind));
    };
    let diffs: &[(&str, &str, Kind)] = &[
        ("not a patch", "", None),
        ("not a patch", "\n\n", None),
        ("not a patch", "I would change alpha to 2 in x.py.\n", None),
        ("not a patch", "```python\nalpha = 2\n```\n", None),
        ("not a patch", "- alpha = 1\n+ alpha = 2\n", None),
        ("no hunks", "--- a/x.py\n+++ b/x.py\n", None),
        ("no hunks", "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n", None),
        ("no hunks", "diff --git a/x.py b/x.py\nindex 1..2 100644\n", None),
        ("no lines", "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n", None),
        ("no lines", "--- a/x.py\n+++ b/x.py\n@@\n```\n", None),
        ("no file named", "@@ -1 +1 @@\n-alpha = 1\n+alpha = 2\n", None),
        ("no file named", "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 2\n", None),
        ("binary", "diff --git a/x.py b/x.py\nGIT binary patch\nliteral 3\nKcmZQzU|\n", None),
        ("binary", "diff --git a/x.py b/x.py\nBinary files a/x.py and b/x.py differ\n", None),
        (
            "symbolic link",
            "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+x.py\n\\ No newline at end of file\n",
            None,
        ),
        (
            "submodule",
            "diff --git a/s b/s\nnew file mode 160000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+Subproject commit 1234\n",
            None,
        ),
        ("created with old lines", "--- /dev/null\n+++ b/z.py\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 2\n", None),
        (
            "two places",
            "--- a/x.py\n+++ b/x.py\n@@\n-    return alpha\n+    return bravo\n",
            Some("ambiguous"),
        ),
        (
            "two places",
            "--- a/x.py\n+++ b/x.py\n@@ -40 +40 @@\n-    return alpha\n+    return bravo\n",
            Some("ambiguous"),
        ),
        ("nothing says where", "--- a/x.py\n+++ b/x.py\n@@\n+    echo = 3\n", Some("no_context")),
        (
            "one of two files wrong",
            "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 3\n--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-other = 9\n+other = 2\n",
            None,
        ),
        (
            "one of two files wrong",
            "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 3\n--- a/z.py\n+++ b/z.py\n@@ -1 +1 @@\n-other = 1\n+other = 2\n",
            None,
        ),
        (
            "one of two hunks wrong",
            "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 3\n@@ -2 +2 @@\n-bravo = 3\n+bravo = 4\n",
            None,
        ),
        (
            "one file twice",
            "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-alpha = 1\n+alpha = 3\n--- a/x.py\n+++ /dev/null\n",
            None,
        ),
    ];
    for (why, text, kind) in diffs {
        push(why, Form::Unified, Input::Text((*text).to_owned()), *kind);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        push(why, Form::Unified, Input::Lines(lines), *kind);
    }
    let envelopes: &[(&str, &str)] = &[
        ("nothing in the envelope", "*** Begin Patch\n*** End Patch\n"),
        ("no lines", "*** Begin Patch\n*** Update File: x.py\n*** End Patch\n"),
        ("no lines", "*** Begin Patch\n*** Update File: x.py\n@@\n*** End Patch\n"),
        ("no file named", "*** Begin Patch\n*** Update File:\n@@\n-alpha = 1\n+alpha = 2\n*** End Patch\n"),
        (
            "a line without a mark",
            "*** Begin Patch\n*** Update File: x.py\n@@\n-alpha = 1\nalpha = 2\n*** End Patch\n",
        ),
        (
            "a line without a mark",
            "*** Begin Patch\n*** Add File: z.py\n+alpha = 1\nbravo = 2\n*** End Patch\n",
        ),
        ("the file exists", "*** Begin Patch\n*** Add File: y.py\n+alpha = 1\n*** End Patch\n"),
        ("the file does not exist", "*** Begin Patch\n*** Delete File: z.py\n*** End Patch\n"),
        ("nothing says where", "*** Begin Patch\n*** Update File: x.py\n@@\n+echo = 3\n*** End Patch\n"),
        (
            "two places",
            "*** Begin Patch\n*** Update File: x.py\n@@\n-    return alpha\n+    return bravo\n*** End Patch\n",
        ),
        (
            "one file twice",
            "*** Begin Patch\n*** Delete File: y.py\n*** Update File: y.py\n@@\n-other = 1\n+other = 2\n*** End Patch\n",
        ),
        (
            "one file twice",
            "*** Begin Patch\n*** Add File: z.py\n+a = 1\n*** Add File: z.py\n+a = 2\n*** End Patch\n",
        ),
        (
            "one file twice",
            "*** Begin Patch\n*** Update File: x.py\n*** Move to: z.py\n*** Update File: y.py\n*** Move to: z.py\n*** End Patch\n",
        ),
        (
            "one of two files wrong",
            "*** Begin Patch\n*** Update File: x.py\n@@\n-alpha = 1\n+alpha = 2\n*** Delete File: z.py\n*** End Patch\n",
        ),
        (
            "the new name is taken",
            "*** Begin Patch\n*** Update File: x.py\n*** Move to: y.py\n@@\n-alpha = 1\n+alpha = 2\n*** End Patch\n",
        ),
    ];
    for (why, text) in envelopes {
        push(why, Form::Envelope, Input::Text((*text).to_owned()), None);
        push(why, Form::Envelope, Input::Text(format!("Here it is:\n\n```\n{text}```\n")), None);
    }
    let blocks: &[(&str, &str)] = &[
        ("no file named", "<<<<<<< SEARCH\nalpha = 1\n=======\nalpha = 2\n>>>>>>> REPLACE\n"),
        ("no divider", "x.py\n<<<<<<< SEARCH\nalpha = 1\n>>>>>>> REPLACE\n"),
        (
            "two dividers",
            "x.py\n<<<<<<< SEARCH\nalpha = 1\n=======\nalpha = 2\n=======\nalpha = 3\n>>>>>>> REPLACE\n",
        ),
        ("no end", "x.py\n<<<<<<< SEARCH\nalpha = 1\n=======\nalpha = 2\n"),
        (
            "two places",
            "x.py\n<<<<<<< SEARCH\n    return alpha\n=======\n    return bravo\n>>>>>>> REPLACE\n",
        ),
        ("the file exists", "x.py\n<<<<<<< SEARCH\n=======\nalpha = 9\n>>>>>>> REPLACE\n"),
        ("nothing changes", "x.py\n<<<<<<< SEARCH\nalpha = 1\n=======\nalpha = 1\n>>>>>>> REPLACE\n"),
        (
            "one of two hunks wrong",
            "x.py\n<<<<<<< SEARCH\nalpha = 1\n=======\nalpha = 2\n>>>>>>> REPLACE\n<<<<<<< SEARCH\nbravo = 7\n=======\nbravo = 3\n>>>>>>> REPLACE\n",
        ),
    ];
    for (why, text) in blocks {
        push(why, Form::Blocks, Input::Text((*text).to_owned()), None);
    }
    let edit = |path: &str, search: &str, replace: &str| Edit {
        path: path.into(),
        search: search.into(),
        replace: replace.into(),
    };
    let lists: Vec<(&str, Vec<Edit>)> = vec![
        ("two places", vec![edit("x.py", "return alpha", "return bravo")]),
        ("two places", vec![edit("x.py", "alpha", "echo")]),
        ("a removed line matches nowhere", vec![edit("x.py", "alpha = 12", "alpha = 2")]),
        ("nothing changes", vec![edit("x.py", "alpha = 1", "alpha = 1")]),
        (
            "two hunks change the same lines",
            vec![edit("x.py", "alpha = 1", "alpha = 2"), edit("x.py", "pha = 1\nbra", "pha = 3\nbra")],
        ),
        (
            "one of two files wrong",
            vec![edit("x.py", "alpha = 1", "alpha = 2"), edit("y.py", "other = 2", "other = 3")],
        ),
        (
            "one of two files wrong",
            vec![edit("x.py", "alpha = 1", "alpha = 2"), edit("z.py", "other", "another")],
        ),
        ("the file exists", vec![edit("x.py", "", "alpha = 9\n")]),
    ];
    for (why, list) in lists {
        push(why, Form::Edits, Input::Edits(list), None);
    }
    let texts = [
        ("not JSON", "[{\"path\": \"x.py\", \"search\": \"alpha = 1\", \"replace\": \"alpha = 2\"}"),
        ("not JSON", "[{\"path\": \"x.py\", \"search\": \"alpha = 1\"}]"),
        ("no file named", "[{\"search\": \"alpha = 1\", \"replace\": \"alpha = 2\"}]"),
    ];
    for (why, text) in texts {
        push(why, Form::Edits, Input::Text(text.to_owned()), None);
    }
    push(
        "nothing changes",
        Form::Whole,
        Input::Whole { path: "x.py".into(), content: FILE.into() },
        Some("no_change"),
    );
    push("the file does not exist", Form::Whole, Input::Delete { path: "z.py".into() }, Some("missing"));
}
