//! Tests how calls are validated: which messages the model gets, and which values are coerced.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{
    Effect, Outcome, Parsed, RefusalKind, RegisterError, Registry, Spec, Tool, ToolError, TypedTool,
};

struct Look;

/// Documentation of the type, which the model does not see.
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
impl TypedTool for Look {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        Spec::of::<Arguments>("look", "looks", Effect::Read)
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
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
    Registry::of([Look.into_tool()]).unwrap()
}

async fn run(arguments: Value) -> String {
    let registry = registry();
    let arguments = registry.accept("look", &arguments).unwrap().arguments;
    registry.call("look", arguments).await.unwrap().text
}

fn refused(arguments: Value) -> (RefusalKind, String) {
    let refusal = registry().accept("look", &arguments).unwrap_err();
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
async fn values_with_only_one_reading_are_coerced() {
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
fn values_that_do_not_fit_the_schema_are_refused() {
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
    let refusal = registry().open("see").err().unwrap();
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
fn an_argument_is_judged_the_same_while_the_call_streams_and_when_it_is_complete() {
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
            let early = registry().open("look").unwrap().field(name, value);
            let mut call = json!({"path": "a"});
            call[name] = value.clone();
            let late = registry().accept("look", &call);
            if early.is_err() {
                assert!(late.is_err(), "{name} {value}: refused early, but accepted when complete");
            } else if name != "path" || !value.is_null() {
                assert!(late.is_ok(), "{name} {value}: {late:?}");
            }
        }
    }
}

/// A tool that is created at run time: nothing about it is known at compile time.
struct Made {
    spec: Spec,
    /// How many times an argument was parsed.
    parsed: AtomicUsize,
}

impl Made {
    fn new(name: &str, schema: Value) -> Arc<Self> {
        Arc::new(Self { spec: Spec::new(name, "counts", Effect::Read, schema), parsed: AtomicUsize::new(0) })
    }

    fn number(&self, value: &Value) -> Result<u32, String> {
        self.parsed.fetch_add(1, Ordering::Relaxed);
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{value} is not a number"))
    }
}

#[async_trait]
impl Tool for Made {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn judge_field(&self, _name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if parsed.get::<u32>().is_none() {
            parsed.keep(Arc::new(self.number(value)?));
        }
        Ok(())
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        let number = match parsed.get::<u32>() {
            Some(number) => *number,
            None => self.number(&arguments["number"]).map_err(ToolError::Model)?,
        };
        Ok(Outcome::ok((number + 1).to_string()))
    }
}

#[tokio::test]
async fn a_tool_can_be_added_at_run_time() {
    let mut registry = registry();
    let schema =
        json!({"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]});
    registry.add(Made::new(&format!("add_{}", 1), schema)).unwrap();
    assert_eq!(
        registry.open("nothing").err().unwrap().message,
        r#"there is no tool "nothing"; the tools are look, add_1"#
    );
    let refused = registry.accept("add_1", &json!({"number": "x"})).unwrap_err();
    assert_eq!(refused.message, "\"x\" is not a number");
    assert_eq!(registry.accept("Add-1", &json!({"number": "4"})).unwrap().notes, ["Add-1 taken as add_1"]);
    assert_eq!(registry.call("add_1", json!({"number": "4"})).await.unwrap().text, "5");
}

#[test]
fn registering_an_invalid_or_duplicate_tool_is_an_error() {
    let mut registry = registry();
    let broken = json!({"type": "object", "properties": {"number": {"type": "numeral"}}});
    let error = registry.add(Made::new("broken", broken)).unwrap_err();
    assert!(matches!(&error, RegisterError::Schema { tool, .. } if tool == "broken"), "{error}");
    assert!(
        error.to_string().starts_with("cannot register the tool `broken`: its schema does not compile: ")
    );
    let error = registry.add(Made::new("look", json!({}))).unwrap_err();
    assert_eq!(error.to_string(), "cannot register the tool `look`: the name is taken");
    assert_eq!(registry.specs().count(), 1);
}

#[tokio::test]
async fn a_value_parsed_while_judging_a_field_reaches_the_call() {
    let schema = json!({"type": "object", "properties": {"number": {"type": "string"}}});
    let tool = Made::new("add", schema);
    let registry = Registry::of([Arc::clone(&tool) as Arc<dyn Tool>]).unwrap();
    let mut incoming = registry.open("add").unwrap();
    incoming.field("number", &json!("41")).unwrap();
    let accepted = incoming.complete(&json!({"number": "41"})).unwrap();
    let outcome =
        registry.call_parsed(&accepted.spec.name, accepted.arguments, accepted.parsed).await.unwrap();
    assert_eq!((outcome.text.as_str(), tool.parsed.load(Ordering::Relaxed)), ("42", 1));
}

#[test]
fn the_call_schema_allows_only_existing_tools_and_the_arguments_that_the_model_is_shown() {
    let mut registry = Registry::of([Look.into_tool()]).unwrap();
    let validator = |registry: &Registry| jsonschema::validator_for(&registry.call_schema()).unwrap();
    let fits = validator(&registry);
    let call = |arguments: Value| json!({"tool": "look", "arguments": arguments});
    assert!(fits.is_valid(&call(json!({"path": "a", "edits": [{"search": "x", "replace": "y"}]}))));
    for wrong in [
        json!({"tool": "other", "arguments": {"path": "a"}}),
        json!({"tool": "look"}),
        json!({"tool": "look", "arguments": {"path": "a"}, "why": "because"}),
        call(json!({})),
        call(json!({"path": 1})),
        call(json!({"path": "a", "depth": 1})),
        call(json!({"path": "a", "edits": [{"search": "x", "replace": "y", "why": "z"}]})),
    ] {
        assert!(!fits.is_valid(&wrong), "{wrong}");
    }
    let shown = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    registry.describe("look", "looks".into(), shown);
    let fits = validator(&registry);
    assert!(fits.is_valid(&call(json!({"path": "a"}))));
    assert!(
        !fits.is_valid(&call(json!({"path": "a", "all": true}))),
        "an argument that is not shown should not fit the schema"
    );
}

#[test]
fn bug_the_call_schema_allows_any_keys_in_an_argument_that_is_a_map() {
    let schema = json!({
        "type": "object",
        "properties": {
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "integer"}}},
            "any": {"type": "object"},
        },
    });
    let registry = Registry::of([Made::new("add", schema) as Arc<dyn Tool>]).unwrap();
    let fits = jsonschema::validator_for(&registry.call_schema()).unwrap();
    let fits = |arguments: Value| fits.is_valid(&json!({"tool": "add", "arguments": arguments}));
    assert!(fits(json!({"env": {"DEBUG": "1"}, "list": [{"a": 1}], "any": {"b": [true]}})));
    assert!(!fits(json!({"env": {"DEBUG": 1}})), "the values of a map should have the declared type");
    assert!(!fits(json!({"list": [{"a": "1"}]})));
    assert!(!fits(json!({"other": {}})));
}

#[test]
fn bug_a_reference_to_the_root_of_a_schema_pointed_to_the_list_of_calls() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#"}},
            "alias": {"$ref": "#/properties/name"},
            "size": {"$ref": "#/$defs/size"},
        },
        "required": ["name"],
        "$defs": {"size": {"type": "integer"}},
    });
    let registry = Registry::of([Made::new("tree", schema) as Arc<dyn Tool>]).unwrap();
    let fits = jsonschema::validator_for(&registry.call_schema()).unwrap();
    let fits = |arguments: Value| fits.is_valid(&json!({"tool": "tree", "arguments": arguments}));
    assert!(fits(json!({"name": "a", "children": [{"name": "b", "size": 1}], "alias": "c"})));
    assert!(!fits(json!({"name": "a", "children": [{"size": 1}]})));
    assert!(!fits(json!({"name": "a", "alias": 1})));
    assert!(!fits(json!({"name": "a", "size": "big"})));
}
