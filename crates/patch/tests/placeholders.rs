//! Adds each line of `fixtures/placeholders` to a file using a patch in every dialect, and checks
//! whether the patches are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use patch::{FilePatch, RefusalKind, apply, edits, parse, whole_file};

const FILE: &str = "first line\nold one\nold two\nlast line\n";

struct Case<'a> {
    verdict: &'a str,
    path: &'a str,
    text: String,
}

fn cases(table: &str) -> Vec<Case<'_>> {
    table
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, '\t');
            let (verdict, path) = (parts.next().unwrap(), parts.next().unwrap());
            Case { verdict, path, text: parts.next().unwrap().replace("\\n", "\n") }
        })
        .collect()
}

/// Returns one patch per dialect, each of which replaces two lines of the file with the case's
/// text.
fn forms(case: &Case<'_>) -> Vec<(&'static str, FilePatch)> {
    let Case { path, text, .. } = case;
    let only = |text: String| parse(&text).unwrap().remove(0);
    let new = text.split('\n').map(|line| format!("+{line}\n")).collect::<String>();
    vec![
        ("whole file", whole_file(path, format!("first line\nnew one\n{text}\n").as_bytes())),
        ("edit", edits([(*path, "old one\nold two\n", format!("{text}\n").as_str())]).remove(0)),
        (
            "block",
            only(format!("`{path}`\n<<<<<<< SEARCH\nold one\nold two\n=======\n{text}\n>>>>>>> REPLACE\n")),
        ),
        (
            "diff",
            only(format!(
                "--- a/{path}\n+++ b/{path}\n@@\n first line\n-old one\n-old two\n{new} last line\n"
            )),
        ),
        (
            "envelope",
            only(format!(
                "*** Begin Patch\n*** Update File: {path}\n@@\n-old one\n-old two\n{new} last line\n*** End Patch\n"
            )),
        ),
    ]
}

fn created(case: &Case<'_>) -> Vec<(&'static str, FilePatch)> {
    let Case { path, text, .. } = case;
    vec![
        ("new file", whole_file(path, format!("{text}\n").as_bytes())),
        ("empty search", edits([(*path, "", format!("{text}\n").as_str())]).remove(0)),
    ]
}

#[test]
fn only_lines_that_stand_for_omitted_code_are_refused() {
    let table = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/placeholders/lines.txt"),
    )
    .unwrap();
    let cases = cases(&table);
    let mut wrong = Vec::new();
    for case in &cases {
        let (file, forms) = match case.verdict.strip_prefix("new-") {
            Some(_) => (None, created(case)),
            None => (Some(FILE.as_bytes()), forms(case)),
        };
        let refused = case.verdict.ends_with("refused");
        for (form, patch) in forms {
            let right = match apply(file, &patch) {
                Ok(_) => !refused,
                Err(e) => {
                    refused
                        && e.kind == RefusalKind::Placeholder
                        && e.message.contains(case.text.lines().last().unwrap().trim())
                }
            };
            if !right {
                wrong.push(format!(
                    "{} {} {:?}, {form}: {:?}",
                    case.verdict,
                    case.path,
                    case.text,
                    apply(file, &patch)
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 150);
}

#[test]
fn a_line_that_the_file_has_is_not_a_placeholder() {
    let file = b"a\n  // ... existing code ...\nb\n";
    let edit = &edits([("a.js", "b\n", "c\n// ... existing code ...\n")])[0];
    assert!(apply(Some(file), edit).is_ok());
    assert!(apply(Some(file), &whole_file("a.js", b"// ... existing code ...\nb\n")).is_ok());
    assert_eq!(apply(Some(b"a\nb\n"), edit).unwrap_err().kind, RefusalKind::Placeholder);
}

#[test]
fn the_refusal_names_the_line_and_says_what_to_do() {
    let edit = &edits([("a.py", "b\n", "c\n# ... existing code ...\n")])[0];
    let message = apply(Some(b"a\nb\n"), edit).unwrap_err().to_string();
    assert_eq!(
        message,
        "the replacement has a placeholder line (`# ... existing code ...`) where the file has code; write that code out, or change only \
         the lines around it"
    );
}
