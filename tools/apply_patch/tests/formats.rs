//! Tests that the tool accepts the edits that its description asks for, in every edit format.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::collections::HashSet;
use std::fs;

use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::Registry;
use tool_apply_patch::{ApplyPatch, EditFormat};
use workspace::Workspace;

const BEFORE: &str = "def area(w, h):\n    return w + h\n";
const AFTER: &str = "def area(w, h):\n    return w * h\n";

fn fixture() -> (TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("area.py"), BEFORE).unwrap();
    let registry =
        Registry::of([
            ApplyPatch::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled()).into_tool()
        ])
        .unwrap();
    (folder, registry)
}

async fn call(registry: &Registry, arguments: &Value) -> String {
    let arguments = registry.accept(ApplyPatch::NAME, arguments).map(|accepted| accepted.arguments).unwrap();
    registry.call(ApplyPatch::NAME, arguments).await.unwrap().text
}

#[tokio::test]
async fn the_example_of_every_format_works() {
    for (name, format) in EditFormat::ALL {
        let (folder, registry) = fixture();
        let text = call(&registry, &format.example()).await;
        assert_eq!(text, "changed area.py +1 -1", "{name}");
        assert_eq!(fs::read_to_string(folder.path().join("area.py")).unwrap(), AFTER, "{name}");
        assert!(format.description().ends_with(&format.example().to_string()), "{name}");
    }
}

#[tokio::test]
async fn a_tool_described_in_one_format_accepts_all_others() {
    for (name, format) in EditFormat::ALL {
        for (other, accepted) in EditFormat::ALL {
            let (_folder, mut registry) = fixture();
            registry.describe(ApplyPatch::NAME, format.description(), format.schema());
            let shown = registry.spec(ApplyPatch::NAME).unwrap().shown_schema();
            assert_eq!(shown, format.schema().to_string());
            assert_eq!(
                call(&registry, &accepted.example()).await,
                "changed area.py +1 -1",
                "{name}, {other}"
            );
        }
    }
}

#[test]
fn every_example_matches_its_schema() {
    for (name, format) in EditFormat::ALL {
        let (schema, example) = (format.schema(), format.example());
        let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(&schema["properties"]), keys(&example), "{name}");
        assert_eq!(schema["required"], json!(keys(&example)), "{name}");
    }
}

#[test]
fn every_format_has_its_own_name_and_description() {
    for (name, format) in EditFormat::ALL {
        assert_eq!(EditFormat::named(name), Some(format));
    }
    let descriptions: HashSet<_> = EditFormat::ALL.iter().map(|(_, format)| format.description()).collect();
    assert_eq!(descriptions.len(), EditFormat::ALL.len());
    assert_eq!(EditFormat::named("all"), None);
}

#[tokio::test]
async fn the_texts_of_an_edit_may_be_arrays_of_lines_and_may_be_empty() {
    let (folder, registry) = fixture();
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    let edit = |path: &str, search: Value, replace: Value| json!({"edits": [{"path": path, "search": search, "replace": replace}]});
    call(&registry, &edit("new.py", json!([]), json!(["a = 1", "b = 2"]))).await;
    assert_eq!(read("new.py"), "a = 1\nb = 2\n");
    call(&registry, &edit("new.py", json!(["a = 1"]), json!([]))).await;
    assert_eq!(read("new.py"), "b = 2\n");
    call(&registry, &edit("new.py", json!(["2"]), json!(["3"]))).await;
    assert_eq!(read("new.py"), "b = 3\n", "an edit may replace part of a line");
    let missing = edit("missing.py", json!(["a = 1"]), json!([]));
    let refused =
        registry.accept(ApplyPatch::NAME, &missing).map(|accepted| accepted.arguments).unwrap_err().message;
    assert!(refused.contains("missing.py does not exist"), "{refused}");
}

#[test]
fn the_description_of_one_format_is_shorter_than_the_description_of_all_formats() {
    let (_folder, registry) = fixture();
    let spec = registry.spec(ApplyPatch::NAME).unwrap();
    let all = spec.description.len() + spec.shown_schema().len();
    for (name, format) in EditFormat::ALL {
        let one = format.description().len() + format.schema().to_string().len();
        assert!(one < all, "{name}: {one} of {all}");
    }
}
