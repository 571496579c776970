//! Tests the state of the tree after a resumed run is refused or is stopped again before it makes
//! progress.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use journal::{Budget, Ending, Event, Record};
use models::Delta;
use support::{Changes, Ran, Reply, World, gives_up, says, text, unchanged_and_unsure, world};

/// Returns the replies for two tries. The first try is better than the start, but the second is
/// not.
fn two_tries() -> Vec<Reply> {
    gives_up("half").into_iter().chain(gives_up("a / b")).collect()
}

fn two_tries_within(turns: u32) -> World {
    let mut world = world();
    (world.settings.attempts, world.graded, world.settings.limits.turns) = (2, true, turns);
    world
}

/// Returns the replies for two branches, of which `a * b` is wrong and `a + b` is right.
fn branches() -> Vec<Reply> {
    vec![unchanged_and_unsure(&[(" *", -0.8), (" +", -1.0)]), says(" b"), says(" b")]
}

/// Puts a world into the state that a run left behind.
fn after(world: World, files: &BTreeMap<String, String>, changes: &Changes) -> World {
    world.files.lock().unwrap().clone_from(files);
    let original = support::world().files.lock().unwrap().clone();
    // Copy the changes, so that several runs can resume from the same stop.
    let changes = Changes::new(changes.lock().unwrap().clone().into());
    World { changes, original, ..world }
}

fn answers(past: &[Record]) -> usize {
    past.iter().filter(|record| matches!(record.event, Event::Output { .. })).count()
}

/// The bug: the refused resume restored the try that had been reverted when the run stopped, and
/// left it in the tree.
#[tokio::test]
async fn bug_a_refused_resume_leaves_the_tree_as_it_is() {
    let ran = two_tries_within(6).run("t", two_tries()).await;
    assert!(ran.files["calc.py"].contains("half"), "{:?}", ran.files);
    let mut past = ran.records.clone();
    let said = past.iter_mut().rev().find_map(|record| match &mut record.event {
        Event::Message { content, .. } => Some(content),
        _ => None,
    });
    said.unwrap().push('!');
    let resumed = after(two_tries_within(40), &ran.files, &ran.changes).resume("t", Vec::new(), &past).await;
    assert_eq!(resumed.report.ending, Ending::Refused);
    assert!(resumed.report.message.starts_with("cannot resume the session"), "{}", resumed.report.message);
    assert_eq!(resumed.files, ran.files);
    assert_eq!(resumed.changes.lock().unwrap().len(), ran.changes.lock().unwrap().len());
}

/// The bug: the tree contained the changes of the second try, which had not been verified.
#[tokio::test]
async fn bug_a_time_limit_in_a_resumed_verification_keeps_the_best_try() {
    let whole = two_tries_within(40).run("t", two_tries()).await;
    let worse = |files: &BTreeMap<String, String>| files["calc.py"].contains("a / b");
    let killed = whole.states.iter().position(worse).unwrap()..;
    let started = |record: &Record| matches!(record.event, Event::CheckStarted { .. });
    let cut = killed.start + whole.records[killed].iter().position(started).unwrap() + 1;
    let changes = whole.changes.lock().unwrap()[..whole.changes_made[cut - 1]].to_vec();
    let changes = Changes::new(changes.into());
    for stopped_again in [false, true] {
        let (mut files, mut changes) = (whole.states[cut - 1].clone(), changes.clone());
        let mut past = whole.records[..cut].to_vec();
        for _ in 0..=u8::from(stopped_again) {
            let mut world = after(two_tries_within(40), &files, &changes);
            (world.hangs_at, world.settings.limits.seconds) = (Some("a / b"), Some(0));
            let Ran { report, records, files: left, changes: made, .. } =
                world.resume("t", Vec::new(), &past).await;
            assert_eq!(report.ending, Ending::Budget { budget: Budget::Time });
            assert!(report.message.contains("try 1 is kept"), "{}", report.message);
            assert!(left["calc.py"].contains("half"), "{left:?}");
            past.extend(records);
            (files, changes) = (left, made);
        }
        let world = after(two_tries_within(40), &files, &changes);
        let rest = two_tries().into_iter().skip(answers(&past)).collect();
        let resumed = world.resume("t", rest, &past).await;
        assert_eq!(resumed.report.message, whole.report.message);
        assert_eq!(resumed.files, whole.files);
        assert!(resumed.states.iter().any(worse), "the second try should continue");
    }
}

/// Resumes a run from each prefix of its journal and interrupts the verification of `a * b`, a
/// candidate that consists of `files` files. Returns the number of interruptions. The candidate
/// must be reverted each time.
async fn interrupted_at_every_cut(
    begin: impl Fn() -> World,
    replies: impl Fn() -> Vec<Reply>,
    files: usize,
) -> usize {
    let whole = begin().run("t", replies()).await;
    assert_eq!(whole.report.ending, Ending::Verified);
    let has_candidate = |files: &BTreeMap<String, String>| files["calc.py"].contains("a * b");
    // After the answer, the machine writes the files of the candidate, and journals a note before
    // each write.
    let verified = |(at, record): (usize, &Record)| {
        matches!(record.event, Event::CheckStarted { .. }) && has_candidate(&whole.states[at])
    };
    let written = whole.records.iter().enumerate().position(verified).unwrap();
    let noted = |event: &Event| matches!(event, Event::Guard { message } if message.contains("another line"));
    let since = (0..written).rev().map(|at| (at, &whole.records[at].event));
    let since = since.take_while(|(_, event)| !matches!(event, Event::Output { .. }));
    let notes: Vec<usize> = since.filter(|(_, event)| noted(event)).map(|(at, _)| at).collect();
    assert_eq!(notes.len(), files);
    let before = &whole.states[notes[files - 1]];
    assert!(!has_candidate(before));
    let mut interrupted = 0;
    for cut in 1..whole.records.len() {
        let past = &whole.records[..cut];
        let changes = whole.changes.lock().unwrap()[..whole.changes_made[cut - 1]].to_vec();
        let mut world = after(begin(), &whole.states[cut - 1], &Changes::new(changes.into()));
        world.interrupted_at = Some("a * b");
        let resumed = world.resume("t", replies().into_iter().skip(answers(past)).collect(), past).await;
        if resumed.report.ending == Ending::Interrupted {
            assert_eq!(&resumed.files, before, "after {cut}: {:?}", past.last());
            interrupted += 1;
        }
    }
    interrupted
}

/// The bug: the resumed run did not know that the tree contained a candidate, or where the
/// candidate's records began.
#[tokio::test]
async fn bug_a_candidate_of_a_killed_run_is_reverted_when_the_resumed_run_is_stopped() {
    assert!(interrupted_at_every_cut(support::world_with_branches, branches, 1).await > 10);
    let two_files = || {
        let world = support::world_with_branches();
        for (path, text) in [("more.py", "x = 1\ny = 2\n"), ("test_more.py", "import more\n")] {
            world.files.lock().unwrap().insert(path.into(), text.into());
        }
        world
    };
    let replies = || {
        // The candidates do not contain the change to more.py, so writing a candidate reverts that
        // change.
        let mut deltas = text("calc.py:\n```python\ndef add(a, b):\n    return a");
        deltas.push(Delta::Doubt {
            chosen: " -".into(),
            others: vec![(" *".into(), -0.8), (" +".into(), -1.0)],
        });
        deltas.extend(text(" - b\n```\nmore.py:\n```python\nx = 1\ny = 5\n```\n"));
        vec![Reply::Says(deltas), says(" b"), says(" b")]
    };
    assert!(interrupted_at_every_cut(two_files, replies, 2).await > 10);
}

/// The bug: the resumed run assumed that the reverted changes were still in the tree.
#[tokio::test]
async fn bug_a_resumed_run_finds_a_revert_that_was_not_journaled_because_of_a_kill() {
    let journaled_before_the_revert = |ran: &Ran| {
        let reverted = |record: &Record| matches!(record.event, Event::Reverted { .. });
        ran.records[..ran.records.iter().rposition(reverted).unwrap()].to_vec()
    };
    let mut begin = support::world_with_branches();
    begin.interrupted_at = Some("a * b");
    let ran = begin.run("t", branches()).await;
    let past = journaled_before_the_revert(&ran);
    let world = after(support::world_with_branches(), &ran.files, &ran.changes);
    let resumed = world.resume("t", vec![says(" b")], &past).await;
    assert_eq!(resumed.report.ending, Ending::Verified, "{}", resumed.report.message);
    assert!(resumed.states.iter().any(|files| files["calc.py"].contains("a * b")), "should be verified");

    let whole = two_tries_within(40).run("t", two_tries()).await;
    let ran = two_tries_within(6).run("t", two_tries()).await;
    let past = journaled_before_the_revert(&ran);
    let world = after(two_tries_within(40), &ran.files, &ran.changes);
    let resumed = world.resume("t", two_tries().into_iter().skip(answers(&past)).collect(), &past).await;
    assert_eq!((&resumed.report.message, &resumed.files), (&whole.report.message, &whole.files));
    assert!(resumed.states.iter().any(|files| files["calc.py"].contains("a / b")), "should continue");
}
