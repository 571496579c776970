//! Tests which requests constrain tool calls to the tools' schemas.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use journal::{Ending, Event};
use models::{Error, Identity};
use planner::{Approach, Constrain};
use serde_json::json;
use support::{Ran, Reply, World, says, world};

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
async fn calls_are_constrained_if_that_suits_the_model_or_the_setting_is_on() {
    for (constrain, can, suits, expected) in [
        (Constrain::Auto, true, false, false),
        (Constrain::Auto, true, true, true),
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
async fn the_constraint_allows_one_call_and_lists_the_tools_in_their_order() {
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
async fn a_model_that_cannot_be_constrained_is_reported_once() {
    for (constrain, suits) in [(Constrain::On, false), (Constrain::Auto, true)] {
        let ran = with(constrain, false, suits).run("Fix the sum.", vec![says(FIX), says(FINISH)]).await;
        assert_eq!(ran.report.ending, Ending::Verified);
        assert_eq!(warnings(&ran), 1, "{constrain:?}");
        assert!(!constrained(&ran)[1], "later requests should have no schema");
        let model = ran.records.iter().find_map(|record| match &record.event {
            Event::Model(model) => Some(model.constrained),
            _ => None,
        });
        assert_eq!(model, Some(false));
    }
}

#[tokio::test]
async fn bug_only_the_model_that_answers_decides_about_the_constraint() {
    for can in [true, false] {
        // The first model is gone, as in a resumed run, so nothing is known about it.
        let mut world = with(Constrain::On, false, false);
        let spare = Identity { can_constrain: can, ..support::named("spare", 32_768) };
        world.fallback = Some(Some(spare));
        let gone = Reply::Fails(Error::NoModel("gone".into()));
        let ran = world.run("Fix the sum.", vec![gone, says(FIX), says(FINISH)]).await;
        assert_eq!(ran.report.ending, Ending::Verified);
        assert_eq!((warnings(&ran), constrained(&ran)[2]), (usize::from(!can), can));
        let changed = ran.records.iter().find_map(|record| match &record.event {
            Event::ModelChanged { model, .. } => Some(model.constrained),
            _ => None,
        });
        assert_eq!(changed, Some(can));
    }
}

#[tokio::test]
async fn whole_files_are_never_constrained() {
    let mut world = with(Constrain::On, true, true);
    world.settings.approach = Approach::WholeFile;
    let ran =
        world.run("Fix the sum.", vec![says("```python\ndef add(a, b):\n    return a + b\n```\n")]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(constrained(&ran), [false]);
    // If the model calls a tool, the run switches to the tools approach.
    let mut world = with(Constrain::On, true, true);
    world.settings.approach = Approach::WholeFile;
    let read = r#"{"tool": "read_file", "arguments": {"path": "README.md"}}"#;
    let ran = world.run("Fix the sum.", vec![says(read), says(FIX), says(FINISH)]).await;
    assert_eq!(constrained(&ran)[..2], [false, true]);
}
