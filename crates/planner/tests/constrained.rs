//! Tests which requests constrain tool calls to the tools' schemas.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use journal::{Ending, Event};
use planner::{Approach, Constrain};
use serde_json::json;
use support::{Ran, World, says, world};

const FIX: &str = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}}"#;
const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "added instead of subtracting"}}"#;

fn with(constrain: Constrain, can_constrain: bool, constrained: bool) -> World {
    let mut world = world();
    world.settings.constrain = constrain;
    (world.identity.can_constrain, world.identity.constrained) = (can_constrain, constrained);
    world
}

fn constrained(ran: &Ran) -> Vec<bool> {
    ran.requests.iter().map(|request| request.constraint.is_some()).collect()
}

fn warnings(ran: &Ran) -> usize {
    ran.records.iter().filter(|record| matches!(record.event, Event::Warning { .. })).count()
}

#[tokio::test]
async fn calls_are_constrained_if_that_suits_the_model_or_is_set() {
    for (constrain, can, suits, expected) in [
        (Constrain::Auto, true, false, false),
        (Constrain::Auto, true, true, true),
        (Constrain::Auto, false, true, false),
        (Constrain::On, true, false, true),
        (Constrain::Off, true, true, false),
    ] {
        let ran = with(constrain, can, suits).run("Fix the sum.", vec![says(FIX), says(FINISH)]).await;
        assert_eq!(ran.report.ending, Ending::Verified);
        assert_eq!(constrained(&ran), [expected; 2], "{constrain:?} {can} {suits}");
        assert_eq!(warnings(&ran), 0);
        let model = ran.records.iter().find_map(|record| match &record.event {
            Event::Model(model) => Some(model.constrained),
            _ => None,
        });
        assert_eq!(model, Some(expected));
    }
}

#[tokio::test]
async fn the_constraint_is_one_call_of_the_tools_in_their_order() {
    let ran = with(Constrain::On, true, false).run("Fix the sum.", vec![says(FIX), says(FINISH)]).await;
    let schema = ran.requests[0].constraint.as_ref().unwrap();
    let tools: Vec<_> =
        schema["anyOf"].as_array().unwrap().iter().map(|call| &call["properties"]["tool"]["const"]).collect();
    assert_eq!(tools, [&json!("read_file"), &json!("apply_patch"), &json!("finish")]);
    assert_eq!(
        schema["anyOf"][0]["properties"]["arguments"],
        json!({"type": "object", "properties": {"path": {"type": "string", "description": "path of the file"}},
            "required": ["path"], "additionalProperties": false})
    );
}

#[tokio::test]
async fn a_server_that_cannot_constrain_is_reported_once() {
    let ran = with(Constrain::On, false, false).run("Fix the sum.", vec![says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!((constrained(&ran), warnings(&ran)), (vec![false; 2], 1));
}

#[tokio::test]
async fn whole_files_are_never_constrained() {
    let mut world = with(Constrain::On, true, true);
    world.settings.approach = Approach::WholeFile;
    let ran =
        world.run("Fix the sum.", vec![says("```python\ndef add(a, b):\n    return a + b\n```\n")]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(constrained(&ran), [false]);
    // A tool call switches the run to tools.
    let mut world = with(Constrain::On, true, true);
    world.settings.approach = Approach::WholeFile;
    let read = r#"{"tool": "read_file", "arguments": {"path": "README.md"}}"#;
    let ran = world.run("Fix the sum.", vec![says(read), says(FIX), says(FINISH)]).await;
    assert_eq!(constrained(&ran)[..2], [false, true]);
}
