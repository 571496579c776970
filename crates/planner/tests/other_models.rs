//! `--escalate` and `--fallback`: runs that switch to another model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use journal::{Budget, Ending, Event, ModelRole};
use models::Error;
use support::{FINISH, Ran, Reply, World, escalating, gives_up, named, patch, says, world};

const START: &str = "def add(a, b):\n    return a - b\n";

fn gone() -> Reply {
    Reply::Fails(Error::MissingModel { message: "gone".into(), available: Vec::new() })
}

fn solves() -> Vec<Reply> {
    vec![patch("a + b"), says(FINISH)]
}

/// Returns, for each switch to another model, the name and role of that model and whether a new try
/// starts.
fn changes<'a>(ran: &'a Ran) -> Vec<(&'a str, Option<ModelRole>, bool)> {
    let change = |event: &'a Event| match event {
        Event::ModelChanged { model, new_try, .. } => Some((model.model.as_str(), model.role, *new_try)),
        _ => None,
    };
    ran.events().filter_map(change).collect()
}

/// Returns the name and the number of turns of each model in the report.
fn turns(ran: &Ran) -> Vec<(&str, u32)> {
    ran.report.models.iter().map(|model| (model.model.as_str(), model.turns)).collect()
}

/// Prepares `world` for resuming a run, with the files and changes that the run left behind.
fn after(ran: &Ran, world: World) -> World {
    world.files.lock().unwrap().clone_from(&ran.files);
    let original = support::world().files.lock().unwrap().clone();
    World { changes: std::sync::Arc::clone(&ran.changes), original, ..world }
}

#[tokio::test]
async fn the_other_model_gets_a_new_conversation_and_limits_of_its_own() {
    let mut world = escalating();
    world.settings.limits.turns = 4;
    let ran = world.run("t", [gives_up("a * b"), solves()].into_iter().flatten().collect()).await;
    assert_eq!((&ran.report.ending, ran.report.message.as_str()), (&Ending::Verified, "done (try 2 of 2)"));
    assert_eq!(changes(&ran), [("large", Some(ModelRole::Escalate), true)]);
    assert_eq!((turns(&ran), ran.report.totals.turns), (vec![("scripted", 4), ("large", 2)], 6));
    let (first, second) = (&ran.requests[0], &ran.requests[4]);
    let note = second.messages[1].content.strip_prefix(&first.messages[1].content).unwrap();
    assert!(note.starts_with("\n\nAn earlier try changed calc.py, and ") && note.trim().lines().count() == 1);
    assert_eq!((second.messages.len(), second.temperature, second.seed), (2, Some(0.0), None));
    // The limits apply to the other model too.
    let mut world = escalating();
    world.settings.limits.turns = 4;
    let ran = world
        .run("t", [gives_up("a * b"), gives_up("a / b"), solves()].into_iter().flatten().collect())
        .await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Unverified, 8), "{}", ran.report.message);
    assert_eq!(ran.files["calc.py"], START);
}

#[tokio::test]
async fn a_run_without_a_verification_or_with_a_passing_first_try_does_not_escalate() {
    let mut unverified = escalating();
    unverified.verified = false;
    let ran = unverified.run("t", vec![patch("a * b"), says(FINISH)]).await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Unverified, 2));
    assert!(ran.events().any(|e| matches!(e, Event::Warning { message } if message.contains("--verify"))));
    let ran = escalating().run("t", solves()).await;
    assert_eq!((&ran.report.ending, ran.report.message.as_str()), (&Ending::Verified, "done"));
    assert!(changes(&ran).is_empty() && ran.report.models.is_empty());
}

#[tokio::test]
async fn if_the_other_model_is_unavailable_the_best_try_is_kept_and_a_resumed_run_escalates() {
    for (line, kept) in [("half", true), ("a * b", false)] {
        let unavailable = || {
            let mut world = escalating();
            (world.graded, world.escalation) = (true, Some(None));
            world
        };
        let ran = unavailable().run("t", gives_up(line)).await;
        assert_eq!(ran.report.ending, Ending::Unavailable);
        assert!(ran.report.message.starts_with("cannot escalate: nobody is there; stopped in try 2 of 2; "));
        assert_eq!(ran.files["calc.py"].contains(line), kept, "{}", ran.report.message);
        // Resume while the model is still unavailable.
        let again = after(&ran, unavailable()).resume("t", Vec::new(), &ran.records).await;
        assert_eq!((&again.report.ending, &again.files), (&Ending::Unavailable, &ran.files));
        let past: Vec<_> = ran.records.iter().chain(&again.records).cloned().collect();
        let world = World { graded: true, ..escalating() };
        let resumed = after(&again, world).resume("t", solves(), &past).await;
        assert_eq!(resumed.report.ending, Ending::Verified, "{}", resumed.report.message);
        assert_eq!(turns(&resumed), [("scripted", 4), ("large", 2)]);
        let asked = resumed.states.iter().zip(&resumed.records).rev();
        let asked: Vec<_> = asked.filter(|(_, r)| matches!(r.event, Event::ModelChanged { .. })).collect();
        assert_eq!(asked[0].0["calc.py"], START, "the try starts with the original files");
    }
}

#[tokio::test]
async fn the_fallback_makes_the_final_try_if_the_other_model_is_unavailable() {
    let mut world = escalating();
    world.settings.limits.turns = 4;
    (world.escalation, world.fallback) = (Some(None), Some(Some(named("spare", 32_768))));
    let ran = world.run("t", [gives_up("a * b"), solves()].into_iter().flatten().collect()).await;
    assert_eq!(ran.report.ending, Ending::Verified, "{}", ran.report.message);
    assert_eq!(changes(&ran), [("spare", Some(ModelRole::Fallback), true)]);
}

#[tokio::test]
async fn the_fallback_continues_the_same_conversation_once() {
    let with_fallback = || {
        let mut world = world();
        world.fallback = Some(Some(named("spare", 32_768)));
        world
    };
    let ran = with_fallback().run("t", vec![patch("a * b"), gone(), patch("a + b"), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified, "{}", ran.report.message);
    assert_eq!(changes(&ran), [("spare", Some(ModelRole::Fallback), false)]);
    assert_eq!(ran.requests[1].messages, ran.requests[2].messages);
    assert_eq!(turns(&ran), [("scripted", 1), ("spare", 2)]);
    // A turn whose request went to both models is counted once, even in the history of the tree.
    assert_eq!((ran.report.totals.turns, ran.changed_in), (3, vec![1, 2]));
    let ran = with_fallback().run("t", vec![gone(), gone()]).await;
    assert_eq!((&ran.report.ending, ran.report.message.as_str()), (&Ending::Unavailable, "gone"));
    assert_eq!(ran.requests.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_used_after_the_last_retry() {
    let mut world = world();
    world.fallback = Some(Some(named("spare", 32_768)));
    let broken = (0..6).map(|_| Reply::Fails(Error::Transport("connection refused".into())));
    let ran = world.run("t", broken.chain(solves()).collect()).await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Verified, 8), "{}", ran.report.message);
    assert_eq!(ran.events().filter(|e| matches!(e, Event::Retry { .. })).count(), 5);
}

#[tokio::test]
async fn a_request_that_the_server_refuses_is_not_sent_to_the_fallback() {
    let mut world = world();
    world.fallback = Some(Some(named("spare", 32_768)));
    let ran = world.run("t", vec![Reply::Fails(Error::Refused("bad request".into())), says(FINISH)]).await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Unavailable, 1));
}

#[tokio::test]
async fn if_the_fallback_is_unavailable_too_the_run_ends_with_the_first_error() {
    for (error, ending) in [
        (Error::Settings("wrong key".into()), Ending::Refused),
        (Error::Exhausted("no balance".into()), Ending::Unavailable),
    ] {
        let mut world = world();
        world.fallback = Some(None);
        let message = format!("{error}; the fallback model is unavailable too: nobody is there");
        let ran = world.run("t", vec![Reply::Fails(error)]).await;
        assert_eq!((ran.report.ending, ran.report.message), (ending, message));
    }
}

#[tokio::test]
async fn a_budget_of_the_first_model_ends_the_run() {
    let mut world = escalating();
    world.settings.limits.turns = 2;
    let ran = world.run("t", gives_up("a * b")).await;
    assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Turns });
}
