//! Tests that every patch is either refused or produces the right result.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use patch::{FilePatch, apply, edits, parse};
use proptest::prelude::*;

/// Generates files with few distinct lines, so that hunks often match in several places.
fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    const KINDS: &[&str] = &["a", "b", "  b", "c", "}", "", "    return x", "\tx", "é ü", "--- a", "+++ b"];
    prop::collection::vec(prop::sample::select(KINDS), 2..30) // a single line would not reveal the line ending
}

fn join(lines: &[&str], crlf: bool, finished: bool) -> String {
    let end = if crlf { "\r\n" } else { "\n" };
    lines.join(end) + if finished { end } else { "" }
}

/// Generates a file with either line ending, with or without a final newline.
fn file() -> impl Strategy<Value = String> {
    (lines(), any::<bool>(), any::<bool>()).prop_map(|(l, crlf, finished)| join(&l, crlf, finished))
}

/// Generates a file before and after a change, with the same line endings.
fn change() -> impl Strategy<Value = (String, String)> {
    (lines(), lines(), any::<bool>(), any::<bool>())
        .prop_map(|(a, b, crlf, finished)| (join(&a, crlf, finished), join(&b, crlf, finished)))
        .prop_filter("a change", |(a, b)| a != b && !a.is_empty() && !b.is_empty())
}

fn one(text: &str) -> Option<FilePatch> {
    let mut patches = parse(text).ok()?;
    assert_eq!(patches.len(), 1, "{text}");
    patches.pop()
}

/// Asserts that the patch is refused or produces the right result, and returns whether it applied.
fn right_or_refused(old: &str, text: &str, new: &str) -> Result<bool, TestCaseError> {
    let Some(patch) = one(text) else { return Ok(false) };
    match apply(Some(old.as_bytes()), &patch) {
        Ok(applied) => {
            let got = applied.bytes.unwrap_or_default();
            prop_assert_eq!(String::from_utf8_lossy(&got), new, "{}", text);
            Ok(true)
        }
        Err(refused) => {
            prop_assert!(!refused.to_string().is_empty());
            Ok(false)
        }
    }
}

fn headers(text: &str, change: impl Fn(&str) -> String) -> String {
    let line = |l: &str| if l.starts_with("@@ ") { change(l) } else { l.to_owned() };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_of_two_files_applies_in_both_directions(old in file(), new in file()) {
        prop_assume!(old != new && !old.is_empty() && !new.is_empty());
        let diff = diffy::create_patch(&old, &new);
        right_or_refused(&old, &diff.to_string(), &new)?;
        right_or_refused(&new, &diff.reverse().to_string(), &old)?;
    }

    #[test]
    fn a_diff_without_line_numbers_is_right_or_refused((old, new) in change()) {
        let diff = diffy::create_patch(&old, &new).to_string();
        right_or_refused(&old, &headers(&diff, |_| "@@".into()), &new)?;
    }

    #[test]
    fn wrong_counts_do_not_change_the_result((old, new) in change(), n in 0usize..9, m in 0usize..9) {
        let diff = diffy::create_patch(&old, &new).to_string();
        let wrong = headers(&diff, |header| {
            let start = header[4..].split([',', ' ']).next().unwrap_or("1");
            format!("@@ -{start},{n} +{start},{m} @@")
        });
        right_or_refused(&old, &wrong, &new)?;
    }

    #[test]
    fn a_search_for_whole_lines_is_right_or_refused(old in file(), from in 0usize..20, len in 1usize..6, with in "[abc \n]{0,8}") {
        let lines: Vec<&str> = old.split_inclusive('\n').collect();
        let from = from % lines.len().max(1);
        let len = len.min(lines.len() - from);
        // A last line without a newline is covered by another property.
        prop_assume!(lines[from..from + len].iter().all(|l| l.ends_with('\n')));
        let search = lines[from..from + len].concat();
        let end = if old.contains('\r') { "\r\n" } else { "\n" };
        let replace: String = with.split('\n').map(|l| format!("{l}{end}")).collect();
        let new = [lines[..from].concat(), replace.clone(), lines[from + len..].concat()].concat();
        let (search, replace) = (search.replace('\r', ""), replace.replace('\r', ""));
        let patches = edits([("x", &search[..], &replace[..])]);
        if let Ok(applied) = apply(Some(old.as_bytes()), &patches[0]) {
            let got = applied.bytes.unwrap_or_default();
            prop_assert_eq!(String::from_utf8_lossy(&got), &new[..]);
        }
        let block = format!("x\n<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n");
        right_or_refused(&old, &block, &new)?;
    }

    #[test]
    fn no_text_makes_the_parsers_panic(lines in prop::collection::vec(prop_oneof![
        Just("diff --git a/x b/x"), Just("diff --git \"a/\\303\\266 b"), Just("--- a/x"), Just("+++ b/x"), Just("--- /dev/null"), Just("+++ /dev/null"),
        Just("@@ -1,3 +1,4 @@"), Just("@@"), Just("@@ -9999999999999999999999 @@"), Just("@@ class é:"), Just("+é"), Just("-a"), Just(" a"), Just("a"),
        Just("\\ No newline at end of file"), Just("*** Begin Patch"), Just("*** Update File: x"), Just("*** Add File: é"), Just("*** End of File"),
        Just("*** Move to: y"), Just("*** End Patch"), Just("<<<<<<< SEARCH"), Just("======="), Just(">>>>>>> REPLACE"), Just("```"), Just("\r"), Just(""),
        Just("rename from x"), Just("rename to y"), Just("new file mode 100755"), Just("deleted file mode 100644"), Just("[{\"path\":\"x\",\"search\":\"a\",\"replace\":\"b\"}]"),
    ], 0..30), original in file()) {
        for patch in parse(&lines.join("\n")).unwrap_or_default() {
            let _ = apply(None, &patch);
            let _ = apply(Some(original.as_bytes()), &patch);
        }
    }
}

#[test]
fn a_patch_that_git_accepts_is_never_refused() {
    // The lines are unique, so every diff that git would produce is unambiguous.
    let old: String = (0..400).map(|i| format!("line {i}\n")).collect();
    for step in [7, 13, 50] {
        let new: String = old
            .lines()
            .enumerate()
            .filter(|(i, _)| i % (step * 3) != 1)
            .map(
                |(i, l)| {
                    if i % step == 0 { format!("{l} changed\nand more {i}\n") } else { format!("{l}\n") }
                },
            )
            .collect();
        let diff = diffy::create_patch(&old, &new).to_string();
        for text in
            [diff.clone(), headers(&diff, |_| "@@".into()), headers(&diff, |_| "@@ -3000,1 +1,9 @@".into())]
        {
            let applied = apply(Some(old.as_bytes()), &parse(&text).unwrap()[0]).unwrap();
            assert_eq!(String::from_utf8(applied.bytes.unwrap()).unwrap(), new);
        }
    }
}

#[test]
fn a_preview_shows_the_change_and_its_counts() {
    let shown = patch::preview(Some(b"a\nb\n"), Some(b"a\nB\nc\n"), "x.txt");
    assert_eq!((shown.added, shown.removed), (2, 1));
    assert_eq!(shown.text, "--- a/x.txt\n+++ b/x.txt\n@@ -1,2 +1,3 @@\n a\n-b\n+B\n+c\n");
    let created = patch::preview(None, Some(b"a\n"), "x.txt");
    assert!(created.text.starts_with("--- /dev/null\n+++ b/x.txt\n"));
    assert_eq!((created.added, created.removed), (1, 0));
}
