//! Tests the results of valid calls and the messages that a model gets after invalid calls.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::fs;
use std::sync::Arc;

use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::{Outcome, Parsed, Registry, ToolError};
use tool_apply_patch::{ApplyPatch, Inspect, Preview};
use workspace::Workspace;

fn fixture() -> (TempDir, Workspace, Registry) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one\ntwo\nthree\n").unwrap();
    let ws = Workspace::open(folder.path()).unwrap();
    let registry = Registry::of([ApplyPatch::new(ws.clone(), Secrets::disabled()).into_tool()]).unwrap();
    (folder, ws, registry)
}

/// Validates a call and executes it, as a session does.
async fn call(registry: &Registry, arguments: Value) -> Result<Outcome, String> {
    let arguments = registry
        .accept("apply_patch", &arguments)
        .map(|accepted| accepted.arguments)
        .map_err(|r| r.message)?;
    registry.call("apply_patch", arguments).await.map_err(|e| match e {
        ToolError::Model(why) => why,
        ToolError::Run(why) => panic!("{why}"),
    })
}

/// An inspector that returns the new text of the files.
#[derive(Debug)]
struct Texts;

#[async_trait::async_trait]
impl Inspect for Texts {
    async fn inspect(&self, files: &[Preview<'_>]) -> Option<String> {
        let texts = files.iter().filter_map(|file| file.after).map(String::from_utf8_lossy);
        Some(texts.collect::<String>()).filter(|text| !text.is_empty())
    }
}

#[tokio::test]
async fn an_inspection_is_part_of_the_result_but_calls_of_the_agent_itself_are_not_inspected() {
    let (_folder, ws, _) = fixture();
    let tool = ApplyPatch::new(ws, Secrets::disabled()).inspected_by(Some(Arc::new(Texts))).into_tool();
    let write = |text: &str| json!({"path": "b.txt", "content": text});
    let outcome = tool.call(write("new"), Parsed::default()).await.unwrap();
    assert_eq!(outcome.text, "created b.txt +1 -0\nnew");
    assert_eq!(outcome.inspection(), Some("new"));
    for (arguments, parsed) in
        [(write("own"), Parsed::own()), (json!({"path": "b.txt", "delete": true}), Parsed::default())]
    {
        let outcome = tool.call(arguments, parsed).await.unwrap();
        assert_eq!((outcome.text.lines().count(), outcome.inspection()), (1, None), "{}", outcome.text);
    }
}

#[tokio::test]
async fn a_patch_may_be_an_array_of_lines() {
    let (folder, _, registry) = fixture();
    let patch = json!(["--- a/a.txt", "+++ b/a.txt", "@@ -1,3 +1,3 @@", " one", "-two", "+zwei", " three"]);
    let outcome = call(&registry, json!({ "patch": patch })).await.unwrap();
    assert_eq!(outcome.text, "changed a.txt +1 -1");
    assert_eq!(outcome.changed, ["a.txt"]);
    assert_eq!(outcome.facts, json!({"added": 1, "removed": 1, "dialect": "unified", "rung": "named"}));
    assert_eq!(fs::read(folder.path().join("a.txt")).unwrap(), b"one\nzwei\nthree\n");
}

#[tokio::test]
async fn empty_arguments_count_as_missing() {
    // This call was actually made by a model with 1.5 billion parameters.
    let (folder, _, registry) = fixture();
    let edit = json!([{"path": "a.txt", "search": "two", "replace": "zwei"}]);
    let all = json!({"patch": [], "edits": edit, "path": "a.txt", "content": [], "delete": false});
    assert_eq!(call(&registry, all).await.unwrap().text, "changed a.txt +1 -1");
    let nothing = json!({"patch": "", "edits": [], "path": "a.txt", "content": [], "delete": false});
    assert!(call(&registry, nothing).await.unwrap_err().contains("give a patch"));
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "one\nzwei\nthree\n");
    let empty = json!({"path": "empty.txt", "content": ""});
    assert_eq!(call(&registry, empty).await.unwrap().text, "created empty.txt +0 -0");
}

#[tokio::test]
async fn whole_files_are_created_replaced_and_deleted() {
    let (folder, _, registry) = fixture();
    let read = |p: &str| fs::read_to_string(folder.path().join(p)).ok();
    let outcome = call(&registry, json!({"path": "new/x.txt", "content": "x\n"})).await.unwrap();
    assert_eq!(outcome.text, "created new/x.txt +1 -0");
    let outcome = call(&registry, json!({"path": "a.txt", "content": ["one", "two"]})).await.unwrap();
    assert_eq!(outcome.text, "changed a.txt +0 -1");
    assert_eq!(read("a.txt").as_deref(), Some("one\ntwo\n"));
    let outcome = call(&registry, json!({"path": "new/x.txt", "delete": true})).await.unwrap();
    assert_eq!(outcome.text, "deleted new/x.txt +0 -1");
    assert_eq!(read("new/x.txt"), None);
}

#[tokio::test]
async fn a_whole_file_keeps_the_line_endings_and_the_byte_order_mark() {
    let (folder, _, registry) = fixture();
    fs::write(folder.path().join("w.txt"), "\u{feff}a\r\nb\r\n").unwrap();
    call(&registry, json!({"path": "w.txt", "content": "a\nc"})).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("w.txt")).unwrap(), "\u{feff}a\r\nc\r\n");
}

#[tokio::test]
async fn a_patch_without_a_file_name_applies_to_the_given_path() {
    let (folder, _, registry) = fixture();
    call(&registry, json!({"path": "a.txt", "patch": "@@ -2 +2 @@\n-two\n+2\n"})).await.unwrap();
    assert_eq!(fs::read(folder.path().join("a.txt")).unwrap(), b"one\n2\nthree\n");
}

#[tokio::test]
async fn errors_say_how_to_correct_the_call() {
    let (folder, _, registry) = fixture();
    let edit = json!([{"path": "a.txt", "search": "two", "replace": "2"}]);
    let wrong = [
        (json!({}), "nothing was applied: give a patch, or edits, or a path with content or delete"),
        (json!({"content": "x"}), "nothing was applied: content needs a path: the file to write"),
        (json!({"delete": true}), "nothing was applied: delete needs a path: the file to remove"),
        (
            json!({"patch": "--- a", "edits": edit}),
            "nothing was applied: give only one of patch, edits, content and delete",
        ),
        (
            json!({"path": "a.txt", "content": "one\ntwo\nthree\n"}),
            "nothing was applied: a.txt: the file already has this content; nothing would change",
        ),
        (
            json!({"path": "b.txt", "delete": true}),
            "nothing was applied: b.txt does not exist; did you mean a.txt?",
        ),
        (
            json!({"path": "../x", "content": ""}),
            "../x is outside the repository; use a path relative to its root",
        ),
        (json!({"path": ".git/config", "content": ""}), ".git/config may not be changed: it belongs to git"),
        (
            json!({"edits": [{"path": "/etc/passwd", "search": "a", "replace": "b"}]}),
            "/etc/passwd is outside the repository; use a path relative to its root",
        ),
    ];
    for (arguments, answer) in wrong {
        assert_eq!(call(&registry, arguments).await.unwrap_err(), answer);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_miss_shows_the_nearest_lines_and_whether_the_file_has_changed() {
    let (folder, ws, registry) = fixture();
    ws.saw(&ws.resolve("a.txt").unwrap(), b"one\ntwo\n3\n");
    let edits = json!([{"path": "a.txt", "search": "one\ntwo\n3", "replace": "x"}]);
    let message = call(&registry, json!({ "edits": edits })).await.unwrap_err();
    let expected = "nothing was applied: a.txt: old lines not found; expected at line 3:\n3\nfound:\n1|one\n2|two\n3|three\n\
                    The file has changed since you read it.";
    assert_eq!(message, expected);
    assert_eq!(fs::read(folder.path().join("a.txt")).unwrap(), b"one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_file_of_a_hundred_thousand_lines_is_edited() {
    let (folder, _, registry) = fixture();
    let old: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    fs::write(folder.path().join("big.txt"), &old).unwrap();
    let edits: Vec<Value> = (0..200)
        .map(|i| json!({"path": "big.txt", "search": format!("line {}\n", i * 450 + 7), "replace": "gone\n"}))
        .collect();
    let outcome = call(&registry, json!({ "edits": edits })).await.unwrap();
    assert_eq!(outcome.text, "changed big.txt +200 -200");
}

#[tokio::test]
async fn binary_files_are_not_patched_but_may_be_replaced() {
    let (folder, _, registry) = fixture();
    fs::write(folder.path().join("x.bin"), b"\0\x01\x02").unwrap();
    let edits = json!([{"path": "x.bin", "search": "a", "replace": "b"}]);
    assert!(call(&registry, json!({ "edits": edits })).await.unwrap_err().contains("binary file"));
    call(&registry, json!({"path": "x.bin", "content": "text\n"})).await.unwrap();
}

#[test]
fn paths_are_checked_before_the_call_is_complete() {
    let (_folder, _, registry) = fixture();
    let message = |name: &str, value: Value| {
        registry.open("apply_patch").unwrap().field(name, &value).map_err(|r| r.message)
    };
    let missing = Err("b.txt does not exist; did you mean a.txt?".to_owned());
    assert_eq!(message("edits", json!([{"path": "b.txt", "search": "x", "replace": "y"}])), missing);
    assert_eq!(message("patch", json!(["--- a/b.txt", "+++ b/b.txt", "@@ -1 +1 @@", "-x", "+y"])), missing);
    assert_eq!(message("patch", json!("*** Begin Patch\n*** Delete File: b.txt\n*** End Patch\n")), missing);
    assert!(
        message("patch", json!("--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n"))
            .unwrap_err()
            .contains("outside")
    );
    assert_eq!(message("edits", json!([{"path": "new.txt", "search": "", "replace": "y"}])), Ok(()));
    assert_eq!(message("patch", json!("@@ -1 +1 @@\n-x\n+y\n")), Ok(()));
    assert_eq!(message("path", json!("new.txt")), Ok(()));
}

#[test]
fn the_description_is_short() {
    let (_folder, _, registry) = fixture();
    let spec = registry.spec("apply_patch").unwrap();
    let shown = format!("{}\n{}", spec.description, spec.shown_schema());
    assert!(shown.len() <= 700, "{} characters: {shown}", shown.len());
}

#[tokio::test]
async fn an_undo_restores_any_line_endings_byte_for_byte() {
    for original in ["a\nb\n", "a\r\nb\r\n", "\u{feff}a\r\nb\r\n", "a\r\nb\nc\r\n", "a\nb", "a\r\nb"] {
        let (folder, _, registry) = fixture();
        let path = folder.path().join("w.txt");
        fs::write(&path, original).unwrap();
        let end = if original.ends_with('\n') { "\n" } else { "" };
        call(&registry, json!({"path": "w.txt", "content": format!("changed\nb\nc{end}")})).await.unwrap();
        call(&registry, json!({"path": "w.txt", "content": original})).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), original, "{original:?}");
    }
}

#[tokio::test]
async fn an_edit_reports_that_someone_else_has_changed_the_file() {
    let (folder, ws, registry) = fixture();
    let path = ws.resolve("a.txt").unwrap();
    ws.saw(&path, ws.read(&path).unwrap().bytes());
    fs::write(folder.path().join("a.txt"), "zero\none\ntwo\nthree\n").unwrap();
    let edit = |search: &str| json!({"edits": [{"path": "a.txt", "search": search, "replace": "zwei"}]});
    let outcome = call(&registry, edit("two")).await.unwrap();
    assert_eq!(outcome.text, "changed a.txt +1 -1; the file had changed since you read it");
    let outcome = call(&registry, edit("three")).await.unwrap();
    assert_eq!(outcome.text, "changed a.txt +1 -1", "the tool's own change should not be reported");
}

#[tokio::test]
async fn a_new_file_from_a_crlf_patch_gets_the_line_endings_of_the_repository() {
    let patch = "*** Begin Patch\r\n*** Add File: new.txt\r\n+x\r\n+y\r\n*** End Patch\r\n";
    for (there, wanted) in [("one\ntwo\n", "x\ny\n"), ("one\r\ntwo\r\n", "x\r\ny\r\n")] {
        let (folder, _, registry) = fixture();
        fs::write(folder.path().join("a.txt"), there).unwrap();
        call(&registry, json!({ "patch": patch })).await.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("new.txt")).unwrap(), wanted);
    }
}

#[tokio::test]
async fn an_edit_may_change_every_occurrence() {
    let (folder, _, registry) = fixture();
    fs::write(folder.path().join("a.txt"), "one\none one\n").unwrap();
    let edit = json!({"path": "a.txt", "search": "one", "replace": "1", "replace_all": true});
    call(&registry, json!({ "edits": [edit] })).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "1\n1 1\n");
}

#[tokio::test]
async fn a_patch_may_contain_an_edit_in_another_agents_format() {
    let (folder, _, registry) = fixture();
    let edit = json!({"file_path": "a.txt", "old_string": "two", "new_string": "2"}).to_string();
    call(&registry, json!({ "patch": edit })).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "one\n2\nthree\n");
}

#[tokio::test]
async fn paths_with_shell_variables_and_folders_are_refused() {
    let (folder, _, registry) = fixture();
    for (path, says) in
        [("~/x", "expanded"), ("$HOME/x", "expanded"), ("${HOME}/x", "expanded"), ("n/", "folder")]
    {
        let refused = call(&registry, json!({"path": path, "content": "1\n"})).await.unwrap_err();
        assert!(refused.contains(says), "{refused}");
        let edit = json!([{"path": path, "search": "", "replace": "1\n"}]);
        assert!(call(&registry, json!({ "edits": edit })).await.unwrap_err().contains(says));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    call(&registry, json!({"path": "$id.tsx", "content": "1\n"})).await.unwrap();
    fs::create_dir(folder.path().join("~")).unwrap();
    call(&registry, json!({"path": "~/x", "content": "1\n"})).await.unwrap();
    assert!(folder.path().join("~/x").exists());
}

#[tokio::test]
async fn marks_before_a_path_are_dropped_unless_a_file_has_that_name() {
    for name in ["-rf", "*x", "#x.py", "x"] {
        let (folder, _, registry) = fixture();
        for there in [name, name.trim_start_matches(['-', '*', '#'])] {
            fs::write(folder.path().join(there), "one\ntwo\n").unwrap();
        }
        let patch = format!("{name}\n<<<<<<< SEARCH\ntwo\n=======\n2\n>>>>>>> REPLACE\n");
        call(&registry, json!({ "patch": patch })).await.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "one\n2\n", "{name}");
    }
    for decorated in ["#a.txt", "# a.txt", "-a.txt", "**a.txt**", "*a.txt*:", "> `a.txt`", "- **a.txt**"] {
        let (folder, _, registry) = fixture();
        let patch = format!("{decorated}\n<<<<<<< SEARCH\ntwo\n=======\n2\n>>>>>>> REPLACE\n");
        call(&registry, json!({ "patch": patch })).await.unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("a.txt")).unwrap(),
            "one\n2\nthree\n",
            "{decorated}"
        );
    }
}
