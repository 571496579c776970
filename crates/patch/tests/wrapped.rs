//! Tests how the patch engine handles text that models write around the content of a file.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use patch::{RefusalKind, apply, edits, whole_file};

/// Returns the content that is written, or the kind of refusal.
fn written(path: &str, there: Option<&str>, content: &str) -> Result<String, RefusalKind> {
    let applied =
        apply(there.map(str::as_bytes), &whole_file(path, content.as_bytes())).map_err(|e| e.kind)?;
    Ok(String::from_utf8(applied.bytes.unwrap()).unwrap())
}

fn edited(path: &str, there: &str, search: &str, replace: &str) -> Result<String, RefusalKind> {
    let patch = edits([(path, search, replace)]).remove(0);
    let applied = apply(Some(there.as_bytes()), &patch).map_err(|e| e.kind)?;
    Ok(String::from_utf8(applied.bytes.unwrap()).unwrap())
}

const PY: &str = "def f():\n    return 1\n";

#[test]
fn line_numbers_before_every_line_of_a_whole_file_are_stripped() {
    let right = Ok("def f():\n    return 2\n".to_owned());
    assert_eq!(written("a.py", Some(PY), "1|def f():\n2|    return 2\n"), right);
    assert_eq!(written("a.py", Some(PY), "1|def f():\n2|    return 2"), right);
    assert_eq!(written("a.py", None, "1→def f():\n2→    return 2\n"), right);
    assert_eq!(written("a.py", None, "     1\tdef f():\n     2\t    return 2\n"), right);
    for (path, there, content) in [
        ("a.psv", None, "1|one\n2|two\n"),
        ("a.py", Some(PY), "1|x\n3|y\n"),
        ("a.rb", Some("1|2\n2|3\n"), "1|2\n2|4\n"),
        ("a.yaml", None, "1: one\n2: two\n"),
    ] {
        assert_eq!(written(path, there, content), Ok(content.to_owned()));
    }
}

#[test]
fn a_fence_around_a_code_file_is_stripped_and_one_around_a_replacement_is_refused() {
    let code = Ok("x = 1\n".to_owned());
    assert_eq!(written("n.py", None, "```python\nx = 1\n```\n"), code);
    assert_eq!(written("n.py", None, "```\nx = 1\n```"), code);
    assert_eq!(written("n.py", None, "```python\nx = 1\n"), Err(RefusalKind::Wrapped));
    assert_eq!(written("n.py", None, "```python\nx = 1\n```\ny\n```\n"), Err(RefusalKind::Wrapped));
    assert_eq!(written("n.md", None, "```js\nx\n```\n"), Ok("```js\nx\n```\n".into()));
    let fenced = "```python\n    return 2\n```\n";
    assert_eq!(edited("a.py", PY, "    return 1\n", fenced), Err(RefusalKind::Wrapped));
    assert!(edited("a.md", PY, "    return 1\n", fenced).is_ok());
    let doc = "\"\"\"\n```\nold\n```\n\"\"\"\n";
    assert_eq!(edited("a.py", doc, "```\nold\n```\n", "```\nnew\n```\n"), Ok(doc.replace("old", "new")));
}

#[test]
fn the_end_marker_of_a_patch_is_stripped_or_refused() {
    for mark in [">>>>>>> REPLACE", "*** End Patch"] {
        assert_eq!(written("n.py", None, &format!("x = 1\n{mark}\n")), Ok("x = 1\n".into()));
        let right = Ok("def f():\n    return 2\n".to_owned());
        assert_eq!(edited("a.py", PY, "    return 1\n", &format!("    return 2\n{mark}\n")), right);
    }
    assert_eq!(edited("a.py", PY, "    return 1\n", "    return 2\n=======\n"), Err(RefusalKind::Wrapped));
    assert_eq!(written("n.py", None, "x = 1\n=======\n"), Err(RefusalKind::Wrapped));
    for (path, content) in [
        ("n.md", "*** Begin Patch\n*** End Patch\n"),
        ("n.txt", "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n"),
        ("n.rst", "Heading\n=======\n"),
    ] {
        assert_eq!(written(path, None, content), Ok(content.to_owned()));
    }
}

#[test]
fn thoughts_before_the_text_are_refused() {
    for thought in ["<think>\nhm\n</think>\nx = 1\n", "<THINKING>hm</THINKING>\nx = 1\n"] {
        assert_eq!(written("n.py", None, thought), Err(RefusalKind::Wrapped));
        assert_eq!(edited("a.py", PY, "    return 1\n", thought), Err(RefusalKind::Wrapped));
    }
}

#[test]
fn a_single_line_with_escaped_line_breaks_is_refused() {
    assert_eq!(written("n.py", None, "a = 1\\nb = 2\\n"), Err(RefusalKind::Wrapped));
    assert_eq!(written("a.py", Some(PY), "def f():\\n    return 2"), Err(RefusalKind::Wrapped));
    assert_eq!(edited("a.py", PY, PY, "def f():\\n    return 2"), Err(RefusalKind::Wrapped));
    for content in ["print('a\\nb\\n')\n", "x = /\\n/\n", "{\"a\": \"b\\nc\"}"] {
        assert_eq!(written("n.js", None, content), Ok(content.to_owned()));
    }
}
