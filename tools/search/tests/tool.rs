//! Tests the matches that a model gets from `search`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::fs;

use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::{Registry, TypedTool};
use tool_search::Search;
use workspace::Workspace;

fn fixture(files: &[(&str, &[u8])]) -> (TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let registry =
        Registry::of([Search::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled()).into_tool()])
            .unwrap();
    (folder, registry)
}

async fn search(registry: &Registry, arguments: Value) -> String {
    match registry.accept("search", &arguments).map(|accepted| accepted.arguments) {
        Err(refusal) => refusal.message,
        Ok(arguments) => match registry.call("search", arguments).await {
            Ok(outcome) => outcome.text,
            Err(e) => e.to_string(),
        },
    }
}

#[tokio::test]
async fn a_match_has_path_line_and_text() {
    let (_folder, registry) = fixture(&[
        ("src/a.rs", b"fn one() {}\r\nfn two() {}\r\n"),
        ("b.txt", b"One\nfn x\n"),
        ("c.bin", b"fn\0\n"),
        ("d.txt", b"caf\xe9 fn\n"),
    ]);
    assert_eq!(
        search(&registry, json!({"pattern": r"fn \w+\("})).await,
        "2 matches in 1 file\nsrc/a.rs:1: fn one() {}\nsrc/a.rs:2: fn two() {}"
    );
    assert_eq!(
        search(&registry, json!({"pattern": "one"})).await,
        "2 matches in 2 files\nb.txt:1: One\nsrc/a.rs:1: fn one() {}"
    );
    assert_eq!(search(&registry, json!({"pattern": "One"})).await, "1 match in 1 file\nb.txt:1: One");
    assert_eq!(
        search(&registry, json!({"pattern": "fn", "glob": "*.txt"})).await,
        "2 matches in 2 files\nb.txt:2: fn x\nd.txt:1: café fn"
    );
    assert_eq!(
        search(&registry, json!({"pattern": "fn one", "path": "src"})).await,
        "1 match in 1 file\nsrc/a.rs:1: fn one() {}"
    );
    assert_eq!(search(&registry, json!({"pattern": "nowhere"})).await, "no matches");
}

#[test]
fn matching_returns_the_files_that_match() {
    let (folder, _) = fixture(&[("src/a.rs", b"one\n"), ("b.txt", b"one\n"), ("c.bin", b"one\0\n")]);
    let search = Search::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled());
    let matching = |arguments: Value| -> Vec<String> {
        search.matching(&arguments).iter().map(ToString::to_string).collect()
    };
    assert_eq!(matching(json!({"pattern": "one"})), ["b.txt", "src/a.rs"]);
    assert_eq!(matching(json!({"pattern": "one", "path": "src"})), ["src/a.rs"]);
    for nothing in [
        json!({"pattern": "two"}),
        json!({"pattern": ""}),
        json!({"pattern": "o", "path": "../x"}),
        json!({}),
    ] {
        assert_eq!(matching(nothing.clone()), [""; 0], "{nothing}");
    }
}

#[tokio::test]
async fn an_invalid_regex_is_searched_literally_with_a_note() {
    let (_folder, registry) = fixture(&[("a.rs", b"call(x[0\n")]);
    assert_eq!(
        search(&registry, json!({"pattern": "call(x[0"})).await,
        "1 match in 1 file (not a valid regex, so searched literally)\na.rs:1: call(x[0"
    );
    assert_eq!(
        registry.open("search").unwrap().field("pattern", &json!("(")),
        Ok(()),
        "the early check should not refuse it either"
    );
}

#[tokio::test]
async fn output_has_limits_for_matches_per_file_all_matches_and_the_length_of_a_line() {
    let many = "match\n".repeat(1000);
    let wide = format!("match {}\n", "é".repeat(5000));
    let mut files: Vec<(String, &[u8])> =
        (0..50).map(|i| (format!("f{i:02}.txt"), many.as_bytes())).collect();
    files.push(("a-wide.txt".into(), wide.as_bytes()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (p.as_str(), *b)).collect();
    let (_folder, registry) = fixture(&files);
    let text = search(&registry, json!({"pattern": "match"})).await;
    assert_eq!(text.lines().count(), 101);
    assert!(text.len() < 10_000);
    assert!(text.lines().nth(1).unwrap().ends_with('…'));
    assert!(text.lines().next().unwrap().contains("narrow it with path or glob"));
    assert_eq!(text.lines().filter(|l| l.starts_with("f00.txt:")).count(), 20);
}

#[tokio::test]
async fn errors_say_how_to_correct_the_call() {
    let (_folder, registry) = fixture(&[("src/a.rs", b"x\n")]);
    assert_eq!(search(&registry, json!({"pattern": ""})).await, "pattern is empty; give the text to find");
    assert!(search(&registry, json!({"pattern": "a\nb"})).await.starts_with("pattern has a newline"));
    for pattern in ["", "a\nb"] {
        let early = registry.open("search").unwrap().field("pattern", &json!(pattern));
        assert!(early.unwrap_err().message.contains("pattern "), "before the call: {pattern:?}");
    }
    assert!(search(&registry, json!({"pattern": "x", "path": "scr"})).await.contains("did you mean src?"));
    assert!(
        search(&registry, json!({"pattern": "x", "path": "/etc"})).await.contains("outside the repository")
    );
}

#[tokio::test]
async fn a_pattern_cannot_probe_for_a_secret_but_a_placeholder_finds_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), "DB_PASSWORD=hunter2-very-secret\n").unwrap();
    fs::write(folder.path().join("a.py"), "connect('hunter2-very-secret')\n").unwrap();
    let secrets = secrets::Secrets::new("s", Vec::new());
    secrets.learn(&fs::read(folder.path().join(".env")).unwrap());
    let tool = Search::new(Workspace::open(folder.path()).unwrap(), secrets);
    let registry = Registry::of([tool.into_tool()]).unwrap();
    for asked in ["DB_PASSWORD=h", "PASSWORD=hunter[0-9]", "hunter2"] {
        assert_eq!(search(&registry, json!({"pattern": asked})).await, "no matches", "{asked}");
    }
    let found = search(&registry, json!({"pattern": "connect"})).await;
    let name = secrets::first_placeholder(&found).expect("the line should be masked").to_owned();
    assert_eq!(found, format!("1 match in 1 file\na.py:1: connect('{name}')"));
    let found = search(&registry, json!({"pattern": name, "path": "a.py"})).await;
    assert_eq!(found.lines().last(), Some(format!("a.py:1: connect('{name}')").as_str()));
}
