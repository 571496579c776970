//! Checks that every recorded output in `fixtures/test_reports` is parsed as specified by its
//! `expect.json`.
//!
//! `UPDATE_EXPECT=1` rewrites the `expect.json` files instead. Check the diff before committing it.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{fs, path::Path};

use serde_json::Value;
use tool_run_tests::report;

#[test]
fn recorded_outputs_parse_as_expected() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/test_reports");
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut entries: Vec<_> =
        fs::read_dir(fixtures).unwrap().flatten().filter(|e| e.path().is_dir()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (output, expect) = (entry.path().join("output.txt"), entry.path().join("expect.json"));
        let output = fs::read(output).unwrap();
        let mut expected: Value = serde_json::from_slice(&fs::read(&expect).unwrap()).unwrap();
        let got = serde_json::to_value(report::parse(&sandbox::plain(&output), Path::new("/repo"))).unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            expected["report"] = got;
            fs::write(&expect, format!("{expected:#}\n")).unwrap();
        } else if expected["report"] != got {
            wrong.push(format!("{}: expected {:#}, got {got:#}", entry.path().display(), expected["report"]));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 30);
}
