//! Tests that `docs/model-apis.md` has every section cited in a comment.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const CITED: &str = "docs/model-apis.md#";

fn sources(folder: &Path, out: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != "fixtures" {
            sources(&path, out);
        } else if path.extension().is_some_and(|end| end == "rs") {
            out.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_cited_section_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/model-apis.md")).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<String> = headings.map(|line| anchor(line.trim_start_matches('#'))).collect();
    let mut files = Vec::new();
    for folder in ["crates", "tools", "testing", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let (mut count, mut missing) = (0, Vec::new());
    for (file, text) in files.iter().filter(|(file, _)| !file.ends_with("references.rs")) {
        for cited in text.split(CITED).skip(1) {
            let end = cited.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(cited.len());
            count += 1;
            if !anchors.contains(&cited[..end]) {
                missing.push(format!("{file}: {}", &cited[..end]));
            }
        }
    }
    assert!(count > 20, "found only {count} citations");
    assert!(missing.is_empty(), "no such sections:\n{}", missing.join("\n"));
}
