//! Tests the text that a model gets from `read_file`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::fs;

use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::{Registry, TypedTool};
use tool_read_file::ReadFile;
use workspace::{Digest, Workspace};

fn fixture() -> (TempDir, Workspace, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let ws = Workspace::open(folder.path()).unwrap();
    let registry = Registry::of([ReadFile::new(ws.clone(), Secrets::disabled()).into_tool()]).unwrap();
    (folder, ws, registry)
}

async fn read(registry: &Registry, arguments: Value) -> String {
    match registry.accept("read_file", &arguments).map(|accepted| accepted.arguments) {
        Err(refusal) => refusal.message,
        Ok(arguments) => match registry.call("read_file", arguments).await {
            Ok(outcome) => outcome.text,
            Err(e) => e.to_string(),
        },
    }
}

#[tokio::test]
async fn lines_have_numbers_and_the_header_names_the_range() {
    let (folder, ws, registry) = fixture();
    fs::write(folder.path().join("a.txt"), "\u{feff}one\r\ntwo\r\nthree").unwrap();
    assert_eq!(
        read(&registry, json!({"path": "./a.txt"})).await,
        "a.txt lines 1-3 of 3\n1|one\n2|two\n3|three"
    );
    let range = json!({"path": "a.txt", "start_line": 2, "end_line": 2});
    assert_eq!(read(&registry, range).await, "a.txt lines 2-2 of 3\n2|two");
    let seen = ws.seen(&ws.resolve("a.txt").unwrap());
    assert_eq!(seen, Some(Digest::of("\u{feff}one\r\ntwo\r\nthree".as_bytes())));
}

#[tokio::test]
async fn ranges_are_limited_to_the_file_with_a_note() {
    let (folder, _, registry) = fixture();
    fs::write(folder.path().join("a.txt"), "1\n2\n3\n").unwrap();
    let head = async |start: i64, end: i64| {
        let text = read(&registry, json!({"path": "a.txt", "start_line": start, "end_line": end})).await;
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(head(0, 2).await, "a.txt lines 1-2 of 3");
    assert_eq!(head(2, 999).await, "a.txt lines 2-3 of 3");
    assert_eq!(head(-5, -1).await, "a.txt lines 1-3 of 3");
    assert_eq!(head(3, 1).await, "a.txt lines 1-3 of 3; end_line < start_line");
    assert_eq!(head(50, 60).await, "a.txt lines 1-3 of 3; there is no line 50");
}

#[tokio::test]
async fn long_files_and_lines_are_truncated_with_a_note() {
    let (folder, _, registry) = fixture();
    let lines: String = (1..=100_000).map(|i| format!("line {i}\n")).collect();
    fs::write(folder.path().join("long.txt"), lines).unwrap();
    let text = read(&registry, json!({"path": "long.txt"})).await;
    assert!(
        text.starts_with("long.txt lines 1-500 of 100000; continue with start_line 501\n1|line 1\n"),
        "{}",
        &text[..80]
    );
    assert!(text.len() < 25_000);
    fs::write(folder.path().join("wide.txt"), format!("{}\nnext\n", "é".repeat(100_000))).unwrap();
    let text = read(&registry, json!({"path": "wide.txt"})).await;
    assert!(text.starts_with("wide.txt lines 1-2 of 2; lines ending in … are cut at 1000 characters\n1|é"));
    assert!(text.ends_with("…\n2|next"));
}

#[tokio::test]
async fn unusual_files_and_wrong_paths_are_explained() {
    let (folder, _, registry) = fixture();
    fs::write(folder.path().join("empty"), "").unwrap();
    fs::write(folder.path().join("x.bin"), b"\0\0").unwrap();
    fs::write(folder.path().join("latin"), b"caf\xe9\n").unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    assert_eq!(read(&registry, json!({"path": "empty"})).await, "empty is empty");
    assert_eq!(read(&registry, json!({"path": "x.bin"})).await, "x.bin is a binary file of 2 bytes");
    assert_eq!(read(&registry, json!({"path": "src"})).await, "src is a directory; list it with list_files");
    assert_eq!(
        read(&registry, json!({"path": "latin"})).await,
        "latin lines 1-1 of 1; encoded in ISO-8859-1\n1|café"
    );
    assert_eq!(read(&registry, json!({"path": "emtpy"})).await, "emtpy does not exist; did you mean empty?");
    assert_eq!(
        read(&registry, json!({"path": "../none"})).await,
        "../none is outside the repository; use a path relative to its root"
    );
}

#[tokio::test]
async fn no_part_of_a_secret_is_shown_wherever_the_file_is_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let ws = Workspace::open(folder.path()).unwrap();
    let registry =
        Registry::of([ReadFile::new(ws.clone(), secrets::Secrets::new("s", Vec::new())).into_tool()])
            .unwrap();
    let key = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDk3mQ7xRtVbLpW";
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n{key}\n-----END PRIVATE KEY-----\n");
    fs::write(folder.path().join("key.pem"), &pem).unwrap();
    // A line that is truncated at 1,000 characters, in the middle of a key.
    let token = ["ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv"].concat();
    fs::write(folder.path().join("long.js"), format!("{}'{token}'", "x ".repeat(495))).unwrap();
    let shown = read(&registry, json!({"path": "key.pem", "start_line": 3})).await;
    assert!(shown.contains("\n3|[secret-") && shown.ends_with("\n4|-----END PRIVATE KEY-----"), "{shown}");
    let shown = read(&registry, json!({"path": "long.js"})).await;
    assert!(!shown.contains("ghp_") && shown.contains("'[secr"), "{shown}");
    let seen = ws.seen(&ws.resolve("key.pem").unwrap());
    assert_eq!(
        seen,
        Some(Digest::of(pem.as_bytes())),
        "the whole file should count as seen, not only the part that was shown"
    );
}
