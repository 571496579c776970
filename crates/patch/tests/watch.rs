//! Tests that a patch that applies when it is complete is never refused while it is being streamed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use std::collections::BTreeMap;

use patch::{EarlyRefusal, PathState, Watch, apply, parse};
use patch_corpus::{Case, Input};
use proptest::prelude::*;

type Tree = BTreeMap<String, Vec<u8>>;

/// Applies the complete patch.
fn whole(tree: &Tree, text: &str) -> Result<(), String> {
    for patch in parse(text).map_err(|e| e.to_string())? {
        let source = patch.from.as_ref().unwrap_or(&patch.path);
        apply(tree.get(source).map(Vec::as_slice), &patch).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Feeds a patch in pieces. If it is refused, returns the number of bytes fed and the refusal.
fn watched(tree: &Tree, pieces: &[&str]) -> Option<(usize, EarlyRefusal)> {
    let tree = tree.clone();
    let look =
        move |path: &str| tree.get(path).map_or(PathState::Nothing, |bytes| PathState::File(bytes.clone()));
    let mut watch = Watch::new(None, look);
    let mut fed = 0;
    for piece in pieces {
        fed += piece.len();
        if let Err(stop) = watch.feed(piece) {
            return Some((fed, stop));
        }
    }
    None
}

/// Splits the text after every `n` characters.
fn pieces(text: &str, n: usize) -> Vec<&str> {
    let cuts: Vec<usize> = text.char_indices().map(|(i, _)| i).step_by(n).chain([text.len()]).collect();
    cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect()
}

fn patch_text(case: &Case) -> Option<String> {
    match &case.input {
        Input::Text(text) => Some(text.clone()),
        Input::Lines(lines) => {
            Some(lines.iter().map(|l| format!("{}\n", l.strip_suffix('\n').unwrap_or(l))).collect())
        }
        _ => None,
    }
}

fn before(case: &Case) -> Tree {
    case.before.iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone())).collect()
}

#[test]
fn bug_a_diff_without_context_was_refused_at_its_second_insertion() {
    let tree = Tree::from([("a.txt".to_owned(), b"1\n2\n3\n4\n".to_vec())]);
    let text = "--- a/a.txt\n+++ b/a.txt\n@@ -1,0 +2,2 @@\n+x\n+y\n@@ -3,0 +6 @@\n+z\n*** End Patch\n";
    assert_eq!(whole(&tree, text), Ok(()));
    assert_eq!(watched(&tree, &[text]), None);
    let wrong = text.replace("+6 @@", "+5 @@");
    assert!(whole(&tree, &wrong).unwrap_err().contains("does not say where"));
    assert!(watched(&tree, &[&wrong]).is_some(), "the numbers do not agree with the first hunk");
}

#[test]
fn no_corpus_patch_that_applies_is_refused_early() {
    let cases = patch_corpus::cases();
    let (mut texts, mut refused, mut early, mut bytes, mut saved) = (0, 0, 0, 0, 0);
    for case in &cases {
        let Some(text) = patch_text(case) else { continue };
        texts += 1;
        let tree = before(case);
        let outcome = whole(&tree, &text);
        refused += usize::from(outcome.is_err());
        let by_line = watched(&tree, &text.split_inclusive('\n').collect::<Vec<_>>());
        if let Some((at, stop)) = &by_line {
            assert!(outcome.is_err(), "{}: {stop:?}\nat byte {at} of\n{text}", case.name);
            early += 1;
            bytes += text.len();
            saved += text.len() - at;
        }
        // The refusal does not depend on how the text is split.
        let in_pieces = watched(&tree, &pieces(&text, 7));
        assert_eq!(by_line.map(|(_, stop)| stop), in_pieces.map(|(_, stop)| stop), "{}", case.name);
    }
    println!(
        "{texts} patches, {refused} refused, {early} of them early (saved {saved} of their {bytes} bytes)"
    );
    assert!(texts > 1000 && early > 100);
}

/// Generates files with few distinct lines, so that hunks often match in several places.
fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    const KINDS: &[&str] = &[
        "a",
        "b",
        "  b",
        "c",
        "}",
        "",
        "    return x",
        "\tx",
        "é ü",
        "--- a",
        "+++ b",
        "@@ x",
        "*** y",
        "=======",
    ];
    prop::collection::vec(prop::sample::select(KINDS), 1..20)
}

fn dialect_lines() -> impl Strategy<Value = Vec<&'static str>> {
    const KINDS: &[&str] = &[
        "diff --git a/x b/x",
        "--- a/x",
        "+++ b/x",
        "--- a/y",
        "+++ b/y",
        "--- /dev/null",
        "+++ /dev/null",
        "@@ -1,3 +1,4 @@",
        "@@ -2,1 +2,1 @@",
        "@@",
        "@@ a @@",
        "+c",
        "-a",
        " a",
        " b",
        "-b",
        "a",
        "-- a",
        "++ b",
        "",
        " ",
        "\\ No newline at end of file",
        "*** Begin Patch",
        "*** Update File: x",
        "*** Update File: y",
        "*** Add File: z",
        "*** Delete File: x",
        "*** End of File",
        "*** Move to: z",
        "*** End Patch",
        "x",
        "<<<<<<< SEARCH",
        "=======",
        "=====",
        ">>>>>>> REPLACE",
        "```",
        "```diff",
        "Index: x",
        "rename from x",
        "rename to z",
        "new file mode 100755",
        "deleted file mode 100644",
        "1|a",
        "-1|a",
        " 2|b",
        "Some prose.",
        " **bold**",
        "+# ... existing code ...",
        "# ... existing code ...",
        "...",
        "- item",
    ];
    prop::collection::vec(prop::sample::select(KINDS), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_diff_of_two_files_is_refused_early(old in lines(), new in lines(), bare in any::<bool>(), wrong in 0usize..4) {
        let (old, new) = (old.join("\n") + "\n", new.join("\n") + "\n");
        prop_assume!(old != new);
        let diff = diffy::create_patch(&old, &new).to_string().replace("--- original", "--- a/x").replace("+++ modified", "+++ b/x");
        let text = diff.split('\n').map(|l| match l.starts_with("@@ -") {
            true if bare => "@@".to_owned(),
            true if wrong > 0 => l.replacen(|c: char| c.is_ascii_digit(), &wrong.to_string(), 3),
            _ => l.to_owned(),
        }).collect::<Vec<_>>().join("\n");
        let tree = Tree::from([("x".to_owned(), old.into_bytes())]);
        if let Some((at, stop)) = watched(&tree, &pieces(&text, 5)) {
            prop_assert!(whole(&tree, &text).is_err(), "{stop:?} at {at} of\n{text}");
        }
    }

    #[test]
    fn no_text_that_applies_is_refused_early(x in lines(), text in dialect_lines()) {
        let tree = Tree::from([("x".to_owned(), (x.join("\n") + "\n").into_bytes()), ("y".to_owned(), b"a\nb\nc\n".to_vec())]);
        let text = text.join("\n");
        if let Some((at, stop)) = watched(&tree, &pieces(&text, 3)) {
            let all = parse(&text);
            prop_assert!(whole(&tree, &text).is_err(), "{stop:?} at {at} of\n{text}\n{all:?}");
        }
    }
}

#[test]
fn a_removed_line_that_matches_nowhere_stops_the_patch_there() {
    let tree = Tree::from([("x".to_owned(), b"one\ntwo\nthree\n".to_vec())]);
    let text = "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n one\n-zwei\n+2\n three\n";
    let (at, stop) = watched(&tree, &pieces(text, 1)).unwrap();
    assert_eq!(&text[..at], "--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n one\n-zwei\n");
    assert_eq!(stop.path, "x");
}

#[test]
fn a_path_that_may_not_be_written_stops_the_patch_at_its_header() {
    for (text, read) in [
        ("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n", 2),
        ("*** Begin Patch\n*** Update File: ../x\n@@\n-a\n", 2),
        ("*** Begin Patch\n*** Add File: ../x\n+a\n", 2),
        ("../x\n<<<<<<< SEARCH\na\n", 2),
    ] {
        let mut watch = Watch::new(None, |path| PathState::Refused(format!("{path} is outside")));
        let stops = text.split_inclusive('\n').position(|line| watch.feed(line).is_err()).unwrap();
        assert_eq!(stops + 1, read, "{text}");
    }
}

#[test]
fn a_placeholder_stops_the_patch_at_its_line() {
    let tree = Tree::from([("a.py".to_owned(), b"one\ntwo\nthree\n".to_vec())]);
    for (before, after) in [
        ("--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,2 @@\n one\n-two\n+# ... existing code ...\n", " three\n"),
        (
            "*** Begin Patch\n*** Update File: a.py\n@@\n-two\n+# ... existing code ...\n",
            " three\n*** End Patch\n",
        ),
        ("*** Begin Patch\n*** Add File: b.py\n+# ... existing code ...\n", "+x = 1\n*** End Patch\n"),
        ("a.py\n<<<<<<< SEARCH\ntwo\n=======\n# ... existing code ...\n", ">>>>>>> REPLACE\n"),
    ] {
        let text = format!("{before}{after}");
        let (at, stop) = watched(&tree, &pieces(&text, 1)).unwrap();
        assert_eq!(at, before.len(), "{text}");
        assert!(
            matches!(&stop.cause, patch::RefusalCause::Lines(refused) if refused.kind == patch::RefusalKind::Placeholder),
            "{stop:?}"
        );
        assert!(whole(&tree, &text).is_err());
    }
}

#[test]
fn a_placeholder_stops_an_edit_or_a_whole_file_at_its_line() {
    let look = |_: &str| PathState::File(b"one\ntwo\n// ... other code ...\n".to_vec());
    let mut watch = Watch::new(None, look);
    assert!(watch.feed_whole_file("a.js", "one\n// ... other code ...\n").is_ok());
    assert!(watch.feed_whole_file("a.js", "one\n// ... existing code ...").is_ok());
    assert!(watch.feed_whole_file("a.js", "one\n// ... existing code ...\n").is_err());
    assert!(watch.feed_replacement("a.js", "two\n", "2\n// ... existing code ...").is_ok());
    assert!(watch.feed_replacement("a.js", "two\n", "2\n// ... existing code ...\n").is_err());
}

#[test]
fn a_line_number_above_a_search_and_the_escapes_of_markers_are_not_part_of_its_text() {
    let above: String = (1..=20).map(|n| format!("def function_{n}(argument):\n")).collect();
    // The search text starts in the middle of a line. Tolerant matching compares whole lines, so
    // this text must match exactly.
    let file = format!("{above}The Title!!\n=======\n\ntext\n").into_bytes();
    let tree = Tree::from([("a.rst".to_owned(), file)]);
    let text = "a.rst\n<<<<<<< SEARCH\n:start_line:21\n-------\nTitle!!\n\\=======\n=======\nOther!!\n\\=======\n>>>>>>> REPLACE\n";
    assert_eq!(whole(&tree, text), Ok(()));
    for n in 1..20 {
        assert_eq!(watched(&tree, &pieces(text, n)), None);
    }
}

#[test]
fn dots_in_search_and_replacement_are_judged_only_when_the_block_is_complete() {
    let tree =
        Tree::from([("a.py".to_owned(), b"def f():\n    a = 1\n    b = 2\n\n    return a\n".to_vec())]);
    let text = "a.py\n<<<<<<< SEARCH\ndef f():\n    a = 1\n...\n    return a\n=======\ndef f():\n...\n    a = 1\n    c = 3\n    return a\n>>>>>>> REPLACE\n";
    assert_eq!(whole(&tree, text), Ok(()));
    for n in 1..20 {
        assert_eq!(watched(&tree, &pieces(text, n)), None);
    }
}

#[test]
fn a_patch_in_a_heredoc_ends_with_the_heredoc() {
    let tree = Tree::from([("a.py".to_owned(), b"a = 1\nb = 2\nc = 3\n".to_vec())]);
    let text = "cat <<'EOF' | git apply\n--- a/a.py\n+++ b/a.py\n-b = 2\n+b = 3\n c = 3\nEOF\nwc a.py\n--- a/c.py\n++ x\n    y\n\n+z\n     w\n";
    assert_eq!(whole(&tree, text), Ok(()));
    for n in 1..20 {
        assert_eq!(watched(&tree, &pieces(text, n)), None);
    }
}

#[test]
fn a_patch_may_change_what_it_created_itself() {
    let tree = Tree::from([("a".to_owned(), b"one\ntwo\n".to_vec())]);
    for text in [
        "*** Begin Patch\n*** Add File: n\n+x\n*** Update File: n\n@@\n-x\n+y\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: a\n*** Move to: n\n@@\n-one\n+1\n*** Update File: n\n@@\n-two\n+2\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: a\n@@\n-one\n+1\n*** Update File: a\n@@\n-1\n+uno\n*** End Patch\n",
        "a\n<<<<<<< SEARCH\none\n=======\n1\n>>>>>>> REPLACE\n<<<<<<< SEARCH\n1\n=======\nuno\n>>>>>>> REPLACE\n",
        "    *** Begin Patch\n    *** Update File: a\n    @@\n    -one\n    +1\n    *** End Patch\n",
        "+++ b/a\n@@ -1,2 +1,2 @@\n-one\n+1\n two\n",
        // The added line has an invisible character that the next hunk leaves out.
        "*** Begin Patch\n*** Update File: a\n@@\n-two\n+two\n+n =\u{feff} 1\n*** Update File: a\n@@\n-n = 1\n+n = 2\n*** End Patch\n",
    ] {
        assert_eq!(whole(&tree, text), Ok(()), "{text}");
        assert_eq!(watched(&tree, &pieces(text, 1)), None, "{text}");
    }
}

#[test]
fn no_fixture_that_applies_is_refused_early() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/patches");
    let mut seen = 0;
    for case in std::fs::read_dir(root).unwrap().map(|case| case.unwrap().path()).filter(|case| case.is_dir())
    {
        let Ok(text) = std::fs::read_to_string(case.join("patch.txt")) else { continue };
        let mut tree = Tree::new();
        let mut todo = vec![case.join("input")];
        while let Some(folder) = todo.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    todo.push(path);
                } else {
                    let name = path.strip_prefix(case.join("input")).unwrap().to_str().unwrap().to_owned();
                    tree.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
        seen += 1;
        if let Some((at, stop)) = watched(&tree, &pieces(&text, 5)) {
            assert!(case.join("refused.txt").exists(), "{}: {stop:?} at {at}", case.display());
        }
    }
    assert!(seen > 200);
}
