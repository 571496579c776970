//! Tests how calls in the formats of other agents are converted, and which of them are refused.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::Registry;
use tool_apply_patch::ApplyPatch;
use workspace::Workspace;

fn registry() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.py"), "def f():\n    return 1\n").unwrap();
    let workspace = Workspace::open(folder.path()).unwrap();
    (folder, Registry::of([ApplyPatch::new(workspace, Secrets::disabled()).into_tool()]).unwrap())
}

fn accepted(tool: &str, arguments: &Value) -> Result<Value, String> {
    let (_folder, registry) = registry();
    for (name, value) in arguments.as_object().unwrap() {
        // A call that is refused while it is streaming in must also be refused as a whole.
        if let Err(early) = registry.open(tool).unwrap().field(name, value) {
            assert!(registry.accept(tool, arguments).is_err(), "{tool} {name}: {}", early.message);
        }
    }
    registry.accept(tool, arguments).map(|accepted| accepted.arguments).map_err(|refusal| refusal.message)
}

#[test]
fn edits_of_other_agents_are_accepted() {
    let edit = json!({"edits": [{"path": "a.py", "search": "return 1", "replace": "return 2"}]});
    for (tool, arguments) in [
        ("apply_patch", json!({"file_path": "a.py", "old_string": "return 1", "new_string": "return 2"})),
        ("apply_patch", json!({"path": "a.py", "oldText": "return 1", "newText": "return 2"})),
        (
            "apply_patch",
            json!({"command": "str_replace", "path": "a.py", "old_str": "return 1", "new_str": "return 2"}),
        ),
        (
            "Edit",
            json!({"file_path": "a.py", "old_string": "return 1", "new_string": "return 2", "replace_all": false}),
        ),
        (
            "str_replace_editor",
            json!({"command": "str_replace", "path": "a.py", "old_str": "return 1", "new_str": "return 2", "file_text": "", "view_range": []}),
        ),
        (
            "replace",
            json!({"file_path": "a.py", "old_string": "return 1", "new_string": "return 2", "expected_replacements": 1, "instruction": "Fix it"}),
        ),
        ("search_replace", json!({"filePath": "a.py", "search": "return 1", "replace": "return 2"})),
        (
            "MultiEdit",
            json!({"file_path": "a.py", "edits": [{"old_string": "return 1", "new_string": "return 2"}]}),
        ),
        (
            "functions.edit_file",
            json!({"path": "a.py", "edits": [{"oldText": "return 1", "newText": "return 2"}]}),
        ),
    ] {
        assert_eq!(accepted(tool, &arguments), Ok(edit.clone()), "{tool} {arguments}");
    }
}

#[test]
fn whole_files_and_patches_of_other_agents_are_accepted() {
    let content = json!({"path": "b.py", "content": "x = 1\n"});
    for (tool, arguments) in [
        ("write_file", json!({"path": "b.py", "content": "x = 1\n"})),
        ("Write", json!({"file_path": "b.py", "content": "x = 1\n"})),
        ("write_to_file", json!({"path": "b.py", "content": "x = 1\n", "line_count": "true"})),
        ("create_file", json!({"filePath": "b.py", "file_text": "x = 1\n", "append": false})),
        (
            "default_api.create_file",
            json!({"target_file": "b.py", "contents": "x = 1\n", "explanation": "new"}),
        ),
        ("str_replace_based_edit_tool", json!({"command": "create", "path": "b.py", "file_text": "x = 1\n"})),
    ] {
        assert_eq!(accepted(tool, &arguments), Ok(content.clone()), "{tool} {arguments}");
    }
    let patch = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n";
    for (tool, name) in
        [("apply_patch", "input"), ("apply_patch", "diff"), ("apply_diff", "diff"), ("patch", "patch_text")]
    {
        assert_eq!(accepted(tool, &json!({name: patch})), Ok(json!({"patch": patch})), "{tool} {name}");
    }
    assert_eq!(
        accepted("delete_file", &json!({"target_file": "a.py", "explanation": "unused"})),
        Ok(json!({"path": "a.py", "delete": true}))
    );
}

#[test]
fn unsupported_arguments_are_refused_with_an_explanation() {
    for (tool, arguments, why) in [
        ("write_file", json!({"path": "a.py", "content": "x", "append": true}), "cannot append"),
        ("write_file", json!({"path": "a.py", "content": "x", "mode": "a"}), "written whole or edited"),
        ("write_file", json!({"path": "a.py", "content": "x", "overwrite": false}), "overwritten"),
        ("write_file", json!({"path": "a.py", "content": "x", "encoding": "latin-1"}), "encoding"),
        (
            "edit_file",
            json!({"path": "a.py", "content": "x", "start_line": 1, "end_line": 2}),
            "line numbers",
        ),
        (
            "edit_file",
            json!({"target_file": "a.py", "code_edit": "// ... existing code ...\nx"}),
            "leaves out code",
        ),
        ("str_replace_editor", json!({"command": "undo_edit", "path": "a.py"}), "no command"),
        ("insert", json!({"path": "a.py", "insert_line": 1, "old_str": "r", "new_str": "x"}), "either"),
        ("write_file", json!({"path": "a.py", "content": "x", "dry_run": true}), "changes files"),
        (
            "replace",
            json!({"path": "a.py", "old_string": "r", "new_string": "x", "expected_replacements": "two"}),
            "not a count",
        ),
        ("Edit", json!({"file_path": "a.py", "new_string": "x"}), "needs search"),
        ("apply_patch", json!({"path": "a.py", "file_path": "b.py", "content": "x"}), "same argument"),
    ] {
        let refused = accepted(tool, &arguments).unwrap_err();
        assert!(refused.contains(why), "{tool} {arguments}: {refused}");
    }
}

#[tokio::test]
async fn text_is_inserted_after_a_line() {
    for (file, line, text, result) in [
        ("a\nb\n", 1, "x", "a\nx\nb\n"),
        ("a\nb\n", 0, "x\n", "x\na\nb\n"),
        ("a\nb", 2, "x", "a\nb\nx"),
        ("a\r\nb\r\n", 2, "x\ny", "a\r\nb\r\nx\r\ny\r\n"),
        ("", 0, "x", "x\n"),
    ] {
        let (folder, registry) = registry();
        std::fs::write(folder.path().join("a.py"), file).unwrap();
        for (tool, arguments) in [
            (
                "str_replace_editor",
                json!({"command": "insert", "path": "a.py", "insert_line": line, "new_str": text}),
            ),
            ("insert", json!({"path": "a.py", "insert_line": line.to_string(), "text": text})),
        ] {
            std::fs::write(folder.path().join("a.py"), file).unwrap();
            let accepted = registry.accept(tool, &arguments).unwrap();
            registry.call(&accepted.spec.name, accepted.arguments).await.unwrap();
            assert_eq!(std::fs::read_to_string(folder.path().join("a.py")).unwrap(), result, "{tool} {line}");
        }
    }
    let (_folder, registry) = registry();
    let arguments = json!({"command": "insert", "path": "a.py", "insert_line": 9, "new_str": "x"});
    let accepted = registry.accept("str_replace_editor", &arguments).unwrap();
    let refused = registry.call(&accepted.spec.name, accepted.arguments).await.unwrap_err().to_string();
    assert!(refused.contains("has 2 lines"), "{refused}");
}

#[tokio::test]
async fn replace_all_changes_every_place() {
    for (tool, arguments) in [
        ("Edit", json!({"file_path": "a.py", "old_string": "x", "new_string": "y", "replace_all": true})),
        (
            "MultiEdit",
            json!({"file_path": "a.py", "edits": [{"old_string": "x", "new_string": "y", "replace_all": "true"}]}),
        ),
        (
            "replace",
            json!({"file_path": "a.py", "old_string": "x", "new_string": "y", "expected_replacements": 3}),
        ),
        (
            "MultiEdit",
            json!({"file_path": "a.py", "edits": [{"old_string": "x", "new_string": "y", "expected_replacements": "3"}]}),
        ),
        ("Edit", json!({"file_path": "a.py", "old_string": "x", "new_string": "y", "replace_all": "true"})),
        (
            "replace_file_content",
            json!({"TargetFile": "a.py", "ReplacementChunks": [{"TargetContent": "x", "ReplacementContent": "y", "AllowMultiple": true, "explanation": "z"}]}),
        ),
    ] {
        let (folder, registry) = registry();
        std::fs::write(folder.path().join("a.py"), "x = 1\nx = x\n").unwrap();
        let accepted = registry.accept(tool, &arguments).unwrap();
        registry.call(&accepted.spec.name, accepted.arguments).await.unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("a.py")).unwrap(), "y = 1\ny = y\n", "{tool}");
    }
    let (folder, registry) = registry();
    std::fs::write(folder.path().join("a.py"), "x = 1\nx = x\n").unwrap();
    for count in [1, 2, 4] {
        let arguments = json!({"file_path": "a.py", "old_string": "x", "new_string": "y", "expected_replacements": count});
        let accepted = registry.accept("replace", &arguments).unwrap();
        assert!(
            registry.call(&accepted.spec.name, accepted.arguments).await.is_err(),
            "a call that expects {count} instead of three places should be refused"
        );
    }
    let arguments = json!({"file_path": "a.py", "old_string": "x", "new_string": "y", "replace_all": false});
    let accepted = registry.accept("Edit", &arguments).unwrap();
    assert!(
        registry.call(&accepted.spec.name, accepted.arguments).await.is_err(),
        "a call that does not say which place to change should be refused"
    );
}
