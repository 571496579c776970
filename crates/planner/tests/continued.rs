//! Tests that the conversation continues when the user adds a message during or after a run, even
//! if the run is killed and resumed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;

use journal::{Ending, Event, Record};
use planner::{Approach, Inbox, Limits};
use support::{Ran, Reply, World, says, world};

const FIX: &str = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}}"#;
const DOCS: &str =
    r##"{"tool": "apply_patch", "arguments": {"path": "README.md", "content": "# Calc\n\nIt adds.\n"}}"##;
const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "done"}}"#;
const MESSAGE: &str = "also update the docs";

/// Runs a task to the end.
async fn finished() -> Ran {
    let ran = world().run("t", vec![says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    ran
}

/// Returns a world with the files that a run left behind.
fn after(ran: &Ran) -> World {
    let mut world = world();
    world.original = std::mem::replace(&mut *world.files.lock().unwrap(), ran.files.clone());
    world
}

fn saying(world: World, message: &str) -> World {
    World { inbox: Box::new(VecDeque::from([message.to_owned()])), ..world }
}

#[tokio::test]
async fn a_message_to_a_finished_run_extends_the_same_conversation() {
    let first = finished().await;
    let next = saying(after(&first), MESSAGE);
    let ran = next.resume("t", vec![says(DOCS), says(FINISH)], &first.records).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.files["README.md"], "# Calc\n\nIt adds.\n");
    let (before, now) = (&first.requests.last().unwrap().messages, &ran.requests[0].messages);
    assert!(now.starts_with(before), "the cached prefix is the same");
    let new: Vec<_> = now[before.len()..].iter().map(|m| m.content.as_str()).collect();
    assert_eq!(new[0], FINISH);
    assert_eq!(
        new[1..],
        ["The user says: also update the docs\n\nDo this now. When it is done, call finish."]
    );
    assert!(ran.events().any(|e| matches!(e, Event::UserMessage { text } if text == MESSAGE)));
}

#[tokio::test]
async fn finish_right_after_a_message_counts_as_no_change_despite_earlier_changes() {
    let first = finished().await;
    let next = saying(after(&first), "what did you do?");
    let ran = next.resume("t", vec![says(FINISH), says(FINISH)], &first.records).await;
    assert_eq!(ran.report.ending, Ending::NoChange);
}

#[tokio::test]
async fn limits_restart_at_a_message() {
    let limits = Limits { turns: 2, ..Limits::default() };
    let first = finished().await;
    let mut next = saying(after(&first), MESSAGE);
    next.settings.limits = limits;
    let ran = next.resume("t", vec![says(DOCS), says(FINISH)], &first.records).await;
    assert_eq!((ran.report.ending, ran.report.totals.turns), (Ending::Verified, 4));
}

/// An inbox that returns the message the nth time it is asked.
struct Nth(usize);

impl Inbox for Nth {
    fn take(&mut self) -> Option<String> {
        self.0 = self.0.checked_sub(1)?;
        (self.0 == 0).then(|| MESSAGE.to_owned())
    }
}

#[tokio::test]
async fn a_message_during_a_run_is_appended_to_the_results_of_the_calls() {
    let world = World { inbox: Box::new(Nth(2)), ..world() };
    let ran = world.run("t", vec![says(FIX), says(DOCS), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    let told = &ran.last_messages()[1];
    assert!(told.starts_with("apply_patch calc.py: ok") && told.contains("\n\nThe user says: "), "{told}");
    let roles: Vec<_> = ran.requests[2].messages.iter().map(|m| m.role).collect();
    assert!(roles.windows(2).all(|two| two[0] != two[1]), "roles should alternate: {roles:?}");
}

#[tokio::test]
async fn a_message_that_arrives_when_the_model_is_done_keeps_the_run_going() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    sender.send(MESSAGE.to_owned()).unwrap();
    let world = World { inbox: Box::new(receiver), ..world() };
    let ran = world.run("t", vec![says(FIX), says(DOCS), says(FINISH)]).await;
    assert_eq!((ran.report.ending.clone(), ran.requests.len()), (Ending::Verified, 3));
    assert!(ran.last_messages()[0].contains("The user says: also update the docs"));
    let world = World { inbox: Box::new(Nth(3)), ..support::world() };
    let ran = world.run("t", vec![says(FIX), says(FINISH), says(DOCS), says(FINISH)]).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::Verified, 4));
}

#[tokio::test]
async fn a_whole_file_run_continues_with_tools() {
    let small = || {
        let mut world = world();
        world.settings.approach = Approach::WholeFile;
        world
    };
    let first = small().run("t", vec![says("```python\ndef add(a, b):\n    return a + b\n```\n")]).await;
    assert_eq!(first.report.ending, Ending::Verified);
    let next = small();
    next.files.lock().unwrap().clone_from(&first.files);
    let ran = saying(next, MESSAGE).resume("t", vec![says(DOCS), says(FINISH)], &first.records).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert!(ran.requests[0].messages.starts_with(&first.requests[0].messages));
    assert!(ran.last_messages()[0].contains("Tools, with the JSON Schema"), "{}", ran.last_messages()[0]);
}

#[tokio::test]
async fn a_continued_run_resumed_after_any_event_ends_the_same() {
    let replies = || -> Vec<Reply> { vec![says("Sure."), says(DOCS), says(FINISH)] };
    let first = finished().await;
    let resumed = Event::Resumed { version: "1".into(), changed: Vec::new(), message: Some(MESSAGE.into()) };
    let last = first.records.last().unwrap().clone();
    let mut records = first.records.clone();
    records.push(Record { event: resumed, ..last });
    let whole = after(&first).resume("t", replies(), &records).await;
    assert_eq!(whole.report.ending, Ending::Verified);
    for cut in 0..whole.records.len() {
        let mut past = records.clone();
        past.extend_from_slice(&whole.records[..cut]);
        let heard = whole.records[..cut].iter().filter(|r| matches!(r.event, Event::Output { .. })).count();
        let world = after(&first);
        if let Some(state) = cut.checked_sub(1).map(|at| &whole.states[at]) {
            world.files.lock().unwrap().clone_from(state);
        }
        let ran = world.resume("t", replies().into_iter().skip(heard).collect(), &past).await;
        let sent = |ran: &Ran| ran.requests.iter().map(|r| r.messages.clone()).collect::<Vec<_>>();
        assert_eq!(sent(&ran), sent(&whole)[heard..], "after {cut}: {:?}", past.last());
        assert_eq!((&ran.report.ending, &ran.files), (&whole.report.ending, &whole.files), "after {cut}");
        assert_eq!(ran.report.totals.turns, whole.report.totals.turns, "after {cut}");
    }
}
