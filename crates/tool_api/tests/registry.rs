//! How calls are judged: the sentences a model reads, and what is coerced.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, RefusalKind, Registry, Tool, ToolError};

struct Look;

/// Documentation of the type, which is not for the model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// the file
    path: String,
    /// from here
    first: Option<u32>,
    /// all of it
    all: Option<bool>,
    /// lines to find
    lines: Option<Vec<String>>,
    /// pairs
    edits: Option<Vec<Edit>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Edit {
    search: String,
    replace: String,
}

#[async_trait]
impl Tool for Look {
    type Arguments = Arguments;
    const NAME: &'static str = "look";
    const DESCRIPTION: &'static str = "looks";
    const EFFECT: Effect = Effect::Read;

    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        if name == "path" && value == "secret" { Err("that is outside".into()) } else { Ok(()) }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let edits: Vec<_> =
            arguments.edits.iter().flatten().map(|e| format!("{}>{}", e.search, e.replace)).collect();
        Ok(Outcome::ok(format!(
            "{} {:?} {:?} {:?} {edits:?}",
            arguments.path, arguments.first, arguments.all, arguments.lines
        )))
    }
}

fn registry() -> Registry {
    Registry::new().with(Look)
}

async fn run(arguments: Value) -> String {
    let registry = registry();
    let arguments = registry.validate("look", &arguments).unwrap();
    registry.call("look", arguments).await.unwrap().text
}

fn refused(arguments: Value) -> (RefusalKind, String) {
    let refusal = registry().validate("look", &arguments).unwrap_err();
    (refusal.kind, refusal.message)
}

#[test]
fn the_model_is_shown_a_short_schema() {
    let registry = registry();
    let shown = registry.specs().next().unwrap().shown_schema();
    assert_eq!(
        shown,
        r#"{"type":"object","properties":{"path":{"type":"string","description":"the file"},"first":{"type":"integer","minimum":0,"description":"from here"},"all":{"type":"boolean","description":"all of it"},"lines":{"type":"array","items":{"type":"string"},"description":"lines to find"},"edits":{"type":"array","items":{"type":"object","properties":{"search":{"type":"string"},"replace":{"type":"string"}},"required":["search","replace"]},"description":"pairs"}},"required":["path"]}"#
    );
}

#[tokio::test]
async fn values_that_can_be_meant_in_one_way_only_are_coerced() {
    let expected = "a Some(5) Some(true) None []";
    assert_eq!(run(json!({"path": "a", "first": 5, "all": true})).await, expected);
    assert_eq!(run(json!({"path": "a", "first": "5", "all": "True"})).await, expected);
    assert_eq!(run(json!({"path": "a", "first": 5.0, "all": true, "lines": null})).await, expected);
    let lines = r#"a None None Some(["x"]) []"#;
    assert_eq!(run(json!({"path": "a", "lines": "x"})).await, lines);
    assert_eq!(run(json!({"path": "a", "lines": "[\"x\"]"})).await, lines);
    let edits = r#"a None None None ["s>r"]"#;
    assert_eq!(run(json!({"path": "a", "edits": {"search": "s", "replace": "r"}})).await, edits);
    assert_eq!(run(json!({"path": "a", "edits": "[{\"search\": \"s\", \"replace\": \"r\"}]"})).await, edits);
}

#[test]
fn values_that_could_be_meant_in_several_ways_are_refused() {
    assert_eq!(refused(json!({"path": "a", "first": "five"})).0, RefusalKind::Schema);
    assert_eq!(refused(json!({"path": "a", "first": 1.5})).0, RefusalKind::Schema);
    assert_eq!(refused(json!({"path": "a", "all": "maybe"})).0, RefusalKind::Schema);
    assert_eq!(refused(json!({"path": 7})).0, RefusalKind::Schema);
}

#[test]
fn refusals_say_what_would_have_been_right() {
    let (kind, message) = refused(json!({"file": "a"}));
    assert_eq!(
        (kind, message.as_str()),
        (
            RefusalKind::UnknownArgument,
            r#"look has no argument "file"; its arguments are all, edits, first, lines, path"#
        )
    );
    let (kind, message) = refused(json!({"first": 1}));
    assert_eq!((kind, message.as_str()), (RefusalKind::Schema, r#"look: "path" is a required property"#));
    let (kind, message) = refused(json!({"path": "a", "edits": [{"search": "s"}]}));
    assert_eq!(
        (kind, message.as_str()),
        (RefusalKind::Schema, r#"look: edits/0: "replace" is a required property"#)
    );
    let (kind, message) = refused(json!({"path": "secret"}));
    assert_eq!((kind, message.as_str()), (RefusalKind::Value, "that is outside"));
    let refusal = registry().judge_tool("see").unwrap_err();
    assert_eq!(refusal.message, r#"there is no tool "see"; the tools are look"#);
    let (_, message) = refused(json!("a"));
    assert_eq!(message, r#"look: "arguments" must be an object, such as {"path":"string"}"#);
}

#[test]
fn a_refusal_never_repeats_a_huge_value() {
    let (_, message) = refused(json!({"path": "a", "first": "x".repeat(100_000)}));
    assert!(message.len() < 200, "{}", message.len());
}

#[test]
fn what_is_refused_early_is_refused_late_and_what_is_accepted_late_was_not_refused_early() {
    let values = [
        json!("a"),
        json!("secret"),
        json!(5),
        json!("5"),
        json!(null),
        json!(true),
        json!(["x"]),
        json!({"search": "s", "replace": "r"}),
    ];
    for name in ["path", "first", "all", "lines", "edits", "nothing"] {
        for value in &values {
            let early = registry().judge_field("look", name, value);
            let mut call = json!({"path": "a"});
            call[name] = value.clone();
            let late = registry().validate("look", &call);
            if early.is_err() {
                assert!(late.is_err(), "{name} {value}: refused early only");
            } else if name != "path" || !value.is_null() {
                assert!(late.is_ok(), "{name} {value}: {late:?}");
            }
        }
    }
}
