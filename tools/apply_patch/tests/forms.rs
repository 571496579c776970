//! What a model is told to write in each form is what the tool takes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::HashSet;
use std::fs;

use patch::Dialect;
use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::Registry;
use tool_apply_patch::{ApplyPatch, DESCRIBED, Described, Shape};
use workspace::Workspace;

const BEFORE: &str = "def area(w, h):\n    return w + h\n";
const AFTER: &str = "def area(w, h):\n    return w * h\n";

fn setting() -> (TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("area.py"), BEFORE).unwrap();
    let registry =
        Registry::of([ApplyPatch::new(Workspace::open(folder.path()).unwrap(), Secrets::off()).into_tool()])
            .unwrap();
    (folder, registry)
}

async fn call(registry: &Registry, arguments: &Value) -> String {
    let arguments = registry.accept(ApplyPatch::NAME, arguments).map(|accepted| accepted.arguments).unwrap();
    registry.call(ApplyPatch::NAME, arguments).await.unwrap().text
}

#[tokio::test]
async fn the_example_of_every_form_does_what_it_shows() {
    for (word, described) in DESCRIBED {
        let (folder, registry) = setting();
        let text = call(&registry, &described.example()).await;
        assert_eq!(text, "changed area.py +1 -1", "{word}");
        assert_eq!(fs::read_to_string(folder.path().join("area.py")).unwrap(), AFTER, "{word}");
        assert!(described.description().ends_with(&described.example().to_string()), "{word}");
    }
}

#[tokio::test]
async fn a_tool_described_in_one_form_takes_all_others() {
    for (word, described) in DESCRIBED {
        for (other, accepted) in DESCRIBED {
            let (_folder, mut registry) = setting();
            registry.describe(ApplyPatch::NAME, described.description(), described.schema());
            let shown = registry.spec(ApplyPatch::NAME).unwrap().shown_schema();
            assert_eq!(shown, described.schema().to_string());
            assert_eq!(
                call(&registry, &accepted.example()).await,
                "changed area.py +1 -1",
                "{word}, {other}"
            );
        }
    }
}

#[test]
fn the_example_fits_the_schema_that_is_shown_with_it() {
    for (word, described) in DESCRIBED {
        let (schema, example) = (described.schema(), described.example());
        let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(&schema["properties"]), keys(&example), "{word}");
        assert_eq!(schema["required"], json!(keys(&example)), "{word}");
    }
}

#[test]
fn words_and_descriptions_stand_for_each_other() {
    for (word, described) in DESCRIBED {
        assert_eq!(Described::named(word), Some(described));
    }
    let words: HashSet<_> = DESCRIBED.iter().map(|(word, _)| word).collect();
    let descriptions: HashSet<_> = DESCRIBED.iter().map(|(_, d)| d.description()).collect();
    assert_eq!((words.len(), descriptions.len()), (10, 10));
    assert_eq!(Described::named("all"), None);
}

#[tokio::test]
async fn edits_may_be_arrays_of_lines_with_none_for_nothing() {
    let (folder, registry) = setting();
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    let edit = |path: &str, search: Value, replace: Value| json!({"edits": [{"path": path, "search": search, "replace": replace}]});
    call(&registry, &edit("new.py", json!([]), json!(["a = 1", "b = 2"]))).await;
    assert_eq!(read("new.py"), "a = 1\nb = 2\n");
    call(&registry, &edit("new.py", json!(["a = 1"]), json!([]))).await;
    assert_eq!(read("new.py"), "b = 2\n");
    call(&registry, &edit("new.py", json!(["2"]), json!(["3"]))).await;
    assert_eq!(read("new.py"), "b = 3\n", "a part of a line");
    let missing = edit("missing.py", json!(["a = 1"]), json!([]));
    let refused =
        registry.accept(ApplyPatch::NAME, &missing).map(|accepted| accepted.arguments).unwrap_err().message;
    assert!(refused.contains("missing.py does not exist"), "{refused}");
}

#[test]
fn a_description_of_one_form_is_shorter_than_that_of_all() {
    let (_folder, registry) = setting();
    let spec = registry.spec(ApplyPatch::NAME).unwrap();
    let all = spec.description.len() + spec.shown_schema().len();
    let one = |form, shape| {
        let one = Described { form, shape };
        one.description().len() + one.schema().to_string().len()
    };
    for (word, described) in DESCRIBED {
        assert!(one(described.form, described.shape) < all, "{word}: {all}");
    }
    assert!(one(Dialect::WholeFile, Shape::Text) * 2 < all);
}
