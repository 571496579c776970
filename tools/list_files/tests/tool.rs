//! Tests the list that a model gets from `list_files`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::{Registry, TypedTool};
use tool_list_files::ListFiles;
use workspace::Workspace;

fn fixture(paths: &[&str]) -> (TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x\n").unwrap();
    }
    let registry =
        Registry::of([ListFiles::new(Workspace::open(folder.path()).unwrap()).into_tool()]).unwrap();
    (folder, registry)
}

async fn list(registry: &Registry, arguments: Value) -> String {
    match registry.accept("list_files", &arguments).map(|accepted| accepted.arguments) {
        Err(refusal) => refusal.message,
        Ok(arguments) => registry.call("list_files", arguments).await.unwrap().text,
    }
}

#[tokio::test]
async fn files_are_listed_by_path_and_by_pattern() {
    let (_folder, registry) = fixture(&["README.md", "src/a.rs", "src/deep/b.rs", "src/deep/c.txt"]);
    assert_eq!(
        list(&registry, json!({})).await,
        "4 files\nREADME.md\nsrc/a.rs\nsrc/deep/b.rs\nsrc/deep/c.txt"
    );
    assert_eq!(list(&registry, json!({"path": "src/deep"})).await, "2 files\nsrc/deep/b.rs\nsrc/deep/c.txt");
    assert_eq!(list(&registry, json!({"glob": "*.rs"})).await, "2 files\nsrc/a.rs\nsrc/deep/b.rs");
    assert_eq!(list(&registry, json!({"glob": "src/*.rs"})).await, "1 files\nsrc/a.rs");
    assert_eq!(
        list(&registry, json!({"glob": "src/**/*.{rs,md}", "path": "."})).await,
        "2 files\nsrc/a.rs\nsrc/deep/b.rs"
    );
    assert_eq!(list(&registry, json!({"glob": "*.py"})).await, "no files");
}

#[tokio::test]
async fn a_large_tree_is_folded_into_folders_until_it_fits() {
    let paths: Vec<String> = (0..600)
        .map(|i| format!("pkg{}/part{}/file{i}.txt", i % 3, i % 30))
        .chain(["top.txt".into()])
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (_folder, registry) = fixture(&paths);
    let text = list(&registry, json!({})).await;
    assert!(text.starts_with("601 files\npkg0/part0/ (20 files)\n"), "{text}");
    assert!(text.lines().count() == 32 && text.ends_with("\ntop.txt"));
}

#[tokio::test]
async fn errors_say_how_to_correct_the_call() {
    let (_folder, registry) = fixture(&["src/a.rs", "bad\nname"]);
    assert_eq!(list(&registry, json!({"path": "scr"})).await, "scr does not exist; did you mean src?");
    assert!(list(&registry, json!({"glob": "src/[a"})).await.contains("is not a valid glob"));
    assert!(list(&registry, json!({"path": ".."})).await.contains("outside the repository"));
    assert!(list(&registry, json!({"glob": "bad*"})).await.ends_with("\nbad\u{fffd}name"));
}
