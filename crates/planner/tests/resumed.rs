//! Tests that a run resumed after any event sends the same requests as an uninterrupted run, and
//! ends in the same way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use journal::{Ending, Event, Record};
use models::{Delta, Error};
use planner::Approach;
use support::{Reply, gives_up, says, text, unchanged_and_unsure, world, world_with_branches};

const READ: &str = r#"{"tool": "read_file", "arguments": {"path": "calc.py"}}"#;
const FIX: &str = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}}"#;
const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "added instead of subtracting"}}"#;

/// Returns the outcome of a run: its requests, files and ending.
fn outcome(
    ran: &support::Ran,
) -> (Vec<Vec<Arc<models::Message>>>, std::collections::BTreeMap<String, String>, Ending) {
    (ran.requests.iter().map(|r| r.messages.clone()).collect(), ran.files.clone(), ran.report.ending.clone())
}

/// Runs to the end, then resumes from each prefix of the journal.
async fn ends_the_same_from_every_prefix(
    begin: impl Fn() -> support::World,
    replies: impl Fn() -> Vec<Reply>,
) -> support::Ran {
    let whole = begin().run("t", replies()).await;
    let wanted = outcome(&whole);
    for cut in 1..whole.records.len() {
        let past = &whole.records[..cut];
        let answered = |r: &&Record| {
            matches!(
                r.event,
                Event::Output { .. } | Event::Overflow { .. } | Event::ModelChanged { new_try: false, .. }
            )
        };
        let heard = past.iter().filter(answered).count();
        let world = begin();
        world.files.lock().unwrap().clone_from(&whole.states[cut - 1]);
        let changes = whole.changes.lock().unwrap()[..whole.changes_made[cut - 1]].to_vec();
        *world.changes.lock().unwrap() = changes;
        let resumed = world.resume("t", replies().into_iter().skip(heard).collect(), past).await;
        let (mut requests, files, ending) = outcome(&resumed);
        let mut all = wanted.0[..heard].to_vec();
        all.append(&mut requests);
        assert_eq!(
            (&all, &files, &ending),
            (&wanted.0, &wanted.1, &wanted.2),
            "after {cut}: {:?}",
            past.last()
        );
        // The changes after the resume belong to the same turns as in the whole run.
        assert!(whole.changed_in.ends_with(&resumed.changed_in), "after {cut}: {:?}", resumed.changed_in);
    }
    whole
}

#[tokio::test]
async fn a_run_resumed_after_any_event_sends_the_same_requests_and_ends_the_same() {
    ends_the_same_from_every_prefix(world, || {
        let answers = [
            READ,
            "I think so.",
            r#"{"tool": "read_file", "arguments": {"path": "nowhere.py"}}"#,
            r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a * b\n"}}"#,
            FINISH,
            FIX,
            FINISH,
        ];
        answers.into_iter().map(says).collect()
    })
    .await;
}

#[tokio::test]
async fn a_whole_file_run_resumed_after_any_event_ends_the_same() {
    ends_the_same_from_every_prefix(world_with_branches, || {
        vec![unchanged_and_unsure(&[(" *", -0.8), (" +", -1.0)]), says(" b"), says(" b")]
    })
    .await;
    ends_the_same_from_every_prefix(world_with_branches, || {
        let wrong = || says("```python\ndef add(a, b):\n    return a / b\n```\n");
        vec![wrong(), unchanged_and_unsure(&[(" *", -0.8)]), says(" b"), wrong(), says("No.")]
    })
    .await;
}

#[tokio::test]
async fn a_candidate_is_reverted_when_the_run_stops_and_verified_when_it_resumes() {
    let replies = || vec![unchanged_and_unsure(&[(" *", -0.8), (" +", -1.0)]), says(" b"), says(" b")];
    let mut begin = world_with_branches();
    begin.interrupted_at = Some("a * b");
    let original = begin.files.lock().unwrap().clone();
    let mut ran = begin.run("t", replies()).await;
    let mut past = Vec::new();
    for stopped_again in [true, false] {
        assert_eq!((&ran.report.ending, &ran.files), (&Ending::Interrupted, &original));
        assert!(ran.report.message.ends_with("not been verified yet was reverted"), "{}", ran.report.message);
        past.extend(ran.records);
        let mut world = world_with_branches();
        *world.files.lock().unwrap() = ran.files;
        *world.changes.lock().unwrap() = ran.changes.lock().unwrap().clone();
        world.original = original.clone();
        world.interrupted_at = stopped_again.then_some("a * b");
        ran = world.resume("t", vec![says(" b")], &past).await;
    }
    assert_eq!(ran.report.ending, Ending::Verified, "{}", ran.report.message);
    assert!(
        ran.states.iter().any(|files| files["calc.py"].contains("a * b")),
        "should be verified after all"
    );
    assert!(ran.files["calc.py"].contains("a + b"));
}

#[tokio::test]
async fn a_candidate_that_cannot_be_written_is_skipped_in_a_resumed_run_too() {
    let replies = || vec![unchanged_and_unsure(&[(" refuse", -0.8), (" +", -1.0)]), says("(b)"), says(" b")];
    let whole = ends_the_same_from_every_prefix(world_with_branches, replies).await;
    assert_eq!(whole.report.ending, Ending::Verified);
}

#[tokio::test]
async fn a_run_with_several_whole_files_resumed_after_any_event_ends_the_same() {
    let begin = || {
        let world = world_with_branches();
        for (path, text) in [("more.py", "x = 1\ny = 2\n"), ("test_more.py", "import more\n")] {
            world.files.lock().unwrap().insert(path.into(), text.into());
        }
        world
    };
    let more = |y: &str| format!("more.py:\n```python\nx = 1\ny = {y}\n```\n");
    // An answer that changes more.py, and returns calc.py unchanged but with doubt about one token.
    let unsure = |other: &str| {
        let mut deltas = text("calc.py:\n```python\ndef add(a, b):\n    return a");
        deltas.push(Delta::Doubt { chosen: " -".into(), others: vec![(other.into(), -0.8)] });
        deltas.extend(text(&format!(" - b\n```\n{}", more("5"))));
        Reply::Says(deltas)
    };
    let replies = || {
        let right = format!("calc.py:\n```python\ndef add(a, b):\n    return a + b\n```\n{}", more("3"));
        vec![unsure(" *"), says(" b"), says(&right)]
    };
    let whole = ends_the_same_from_every_prefix(begin, replies).await;
    assert_eq!(
        (whole.report.ending.clone(), whole.files["more.py"].as_str()),
        (Ending::Verified, "x = 1\ny = 3\n")
    );
    let states = |file: &str, content: &str| whole.states.iter().any(|files| files[file] == content);
    assert!(states("more.py", "x = 1\ny = 5\n") && states("calc.py", "def add(a, b):\n    return a * b\n"));
    // The branch starts before the change to more.py, so the candidate does not contain that
    // change.
    let whole = ends_the_same_from_every_prefix(begin, || vec![unsure(" +"), says(" b")]).await;
    assert_eq!(
        (whole.report.ending.clone(), whole.files["more.py"].as_str()),
        (Ending::Verified, "x = 1\ny = 2\n")
    );
}

#[tokio::test]
async fn a_run_with_several_tries_resumed_after_any_event_ends_the_same() {
    let begin = || {
        let mut world = world();
        (world.settings.attempts, world.graded) = (3, true);
        world
    };
    let whole = ends_the_same_from_every_prefix(begin, move || {
        [gives_up("half"), gives_up("third"), gives_up("a * b")].into_iter().flatten().collect()
    })
    .await;
    assert!(whole.files["calc.py"].contains("half") && whole.report.ending == Ending::Unverified);
    let whole = ends_the_same_from_every_prefix(begin, move || {
        [gives_up("third"), gives_up("a + b")].into_iter().flatten().collect()
    })
    .await;
    assert_eq!(whole.report.ending, Ending::Verified);
}

#[tokio::test]
async fn an_escalating_run_resumed_after_any_event_ends_the_same() {
    let begin = || {
        let mut world = support::escalating();
        (world.settings.attempts, world.graded) = (2, true);
        world
    };
    let replies = |last: &'static str| {
        move || {
            let mut replies = gives_up("third");
            replies.extend(gives_up("half"));
            replies.extend(gives_up(last));
            replies
        }
    };
    let whole = ends_the_same_from_every_prefix(begin, replies("a * b")).await;
    assert!(whole.files["calc.py"].contains("half") && whole.report.ending == Ending::Unverified);
    let whole = ends_the_same_from_every_prefix(begin, replies("a + b")).await;
    assert_eq!(whole.report.ending, Ending::Verified);
    // The run switches from the whole-file approach to tools.
    let begin = || {
        let mut world = support::escalating();
        (world.settings.approach, world.identity.prefers_whole_files) = (Approach::Auto, true);
        world
    };
    let whole = ends_the_same_from_every_prefix(begin, || {
        let wrong = || says("```python\ndef add(a, b):\n    return a / b\n```\n");
        vec![wrong(), wrong(), says(READ), says(FIX), says(FINISH)]
    })
    .await;
    assert_eq!(whole.report.ending, Ending::Verified);
}

#[tokio::test]
async fn a_run_with_a_fallback_resumed_after_any_event_ends_the_same() {
    let gone = || Reply::Fails(Error::MissingModel { message: "gone".into(), available: Vec::new() });
    let begin = || {
        let mut world = support::escalating();
        world.fallback = Some(Some(support::named("other", 4_000)));
        world.identity.window = Some(32_768);
        world.files.lock().unwrap().insert("big.py".into(), "x = 1\n".repeat(1_500));
        world
    };
    let read = || says(r#"{"tool": "read_file", "arguments": {"path": "big.py"}}"#);
    let whole = ends_the_same_from_every_prefix(begin, || {
        vec![says(READ), read(), gone(), says(READ), says(FIX), says(FINISH)]
    })
    .await;
    assert_eq!(whole.report.ending, Ending::Verified);
    assert!(
        whole.events().any(|e| matches!(e, Event::Rewound { .. })),
        "the conversation should be cut to fit the smaller window"
    );
    // The fallback model takes over in the middle of a line, and cannot continue that line.
    let begin = || {
        let mut world = world_with_branches();
        world.fallback = Some(Some(support::named("other", 32_768)));
        world
    };
    let whole = ends_the_same_from_every_prefix(begin, || {
        let right = says("```python\ndef add(a, b):\n    return a + b\n```\n");
        vec![unchanged_and_unsure(&[(" *", -0.8), (" +", -1.0)]), gone(), right]
    })
    .await;
    assert_eq!(whole.report.ending, Ending::Verified);
}

#[tokio::test]
async fn a_run_with_a_compacted_conversation_resumes_with_that_conversation() {
    let begin = || {
        let mut world = world();
        world.identity.window = Some(8_192);
        for name in ["big.py", "more.py"] {
            world.files.lock().unwrap().insert(name.into(), "x = 1\n".repeat(600));
        }
        world
    };
    let whole = ends_the_same_from_every_prefix(begin, || {
        let read = |path| says(&format!(r#"{{"tool": "read_file", "arguments": {{"path": "{path}"}}}}"#));
        let overflow =
            Error::Overflow { message: "too long".into(), prompt_tokens: Some(9_000), window: Some(6_000) };
        vec![
            read("big.py"),
            read("more.py"),
            Reply::Fails(overflow),
            read("calc.py"),
            says(FIX),
            says(FINISH),
        ]
    })
    .await;
    assert!(whole.events().any(|e| matches!(e, Event::Rewound { .. })));
    assert_eq!(whole.report.ending, Ending::Verified);
}

/// The bug: the second model's tokens were counted under the first model's name and at that model's
/// price.
#[tokio::test]
async fn bug_a_model_that_continues_a_resumed_run_in_place_of_another_has_its_own_sums_and_price() {
    let with = |name: &str, dollars: f64, turns: u32| {
        let mut world = world();
        (world.identity.model, world.identity.price) = (name.into(), Some((0.0, 0.0, dollars).into()));
        world.settings.limits.turns = turns;
        world
    };
    let ran = with("small", 1.0, 1).run("t", vec![says(READ)]).await;
    let world = with("large", 50.0, 9);
    let resumed = world.resume("t", vec![says(FIX), says(FINISH)], &ran.records).await;
    assert_eq!(resumed.report.ending, Ending::Verified, "{}", resumed.report.message);
    let past: Vec<Record> = ran.records.into_iter().chain(resumed.records).collect();
    let (totals, models) = planner::totals(&past);
    assert_eq!(models, resumed.report.models);
    let names: Vec<_> = models.iter().map(|model| (model.model.as_str(), model.turns)).collect();
    assert_eq!(names, [("small", 1), ("large", 2)]);
    let dollars = |at: usize, price: f64| models[at].generated_tokens as f64 * price / 1e6;
    assert_eq!(models[1].cost, Some(dollars(1, 50.0)));
    assert!(models[1].generated_tokens > 0 && totals.cost == Some(dollars(0, 1.0) + dollars(1, 50.0)));
    // Resuming once more does not journal the model again.
    let again = with("large", 50.0, 9).resume("t", Vec::new(), &past).await;
    assert!(!again.events().any(|event| matches!(event, Event::Model(_))));
}
