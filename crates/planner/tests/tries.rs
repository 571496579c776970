//! `--attempts`: several tries at a task in one session.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use journal::{Budget, Ending, Event};
use models::Error;
use planner::Approach;
use support::{FINISH, Ran, Reply, World, gives_up, patch, says, world};

const COMMAND: &str = r#"{"tool": "run_command", "arguments": {"creates": "made.txt"}}"#;
const FIXED: &str = "def add(a, b):\n    return a + b\n";
const START: &str = "def add(a, b):\n    return a - b\n";

/// Returns a world whose verification counts tests. Three of them fail at the start: two of these
/// pass with `half`, one with `third`, and all with `a + b`.
fn counted(attempts: u32) -> World {
    let mut world = world();
    (world.settings.attempts, world.commands, world.graded) = (attempts, true, true);
    world
}

fn tries(lines: &[&str]) -> Vec<Reply> {
    lines.iter().flat_map(|line| gives_up(line)).collect()
}

fn original() -> BTreeMap<String, String> {
    let world = world();
    world.files.lock().unwrap().clone()
}

fn ended(ran: &Ran) -> Vec<(u32, u32, Option<u64>, u64)> {
    let ended = |event: &Event| match event {
        Event::TryEnded { number, of, failing, lines, .. } => Some((*number, *of, *failing, *lines)),
        _ => None,
    };
    ran.events().filter_map(ended).collect()
}

#[tokio::test]
async fn a_second_try_starts_over_and_ends_the_run_when_the_verification_passes() {
    let replies = || [gives_up("a * b"), vec![patch("a + b"), says(FINISH)]].concat_replies();
    let ran = counted(3).run("t", replies()).await;
    assert_eq!((&ran.report.ending, ran.files["calc.py"].as_str()), (&Ending::Verified, FIXED));
    assert_eq!(ran.report.message, "done (try 2 of 3)");
    assert_eq!(ended(&ran), [(1, 3, Some(3), 2)]);
    let (first, second) = (&ran.requests[0], &ran.requests[4]);
    assert_eq!(second.messages.len(), 2);
    assert_eq!(second.messages[0], first.messages[0], "the server's cache has the system prompt");
    let note = second.messages[1].content.strip_prefix(&first.messages[1].content).unwrap();
    assert_eq!(
        note,
        "\n\nAn earlier try changed calc.py, and `python3 -m unittest` failed: 3 failed. Solve it in another way."
    );
    assert_eq!((first.temperature, first.seed), (Some(0.0), None));
    assert_eq!((second.temperature, second.seed), (Some(0.7), Some(4)));
}

#[tokio::test]
async fn a_run_with_one_attempt_ends_like_a_run_without_the_setting() {
    let ran = counted(1).run("t", tries(&["a * b"])).await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Unverified, 4));
    assert!(ran.files["calc.py"].contains("a * b"), "the changes of the only try should be kept");
    let text = serde_json::to_string(&ran.records).unwrap();
    assert!(!text.contains("attempts") && !text.contains("try_ended") && !text.contains("reverted"));
}

#[tokio::test]
async fn if_no_try_passes_the_try_with_the_fewest_failures_is_kept() {
    let ran = counted(3).run("t", tries(&["third", "half", "a / b"])).await;
    assert_eq!(ran.report.ending, Ending::Unverified);
    assert!(ran.files["calc.py"].contains("half"), "{:?}", ran.files);
    assert_eq!(ended(&ran), [(1, 3, Some(2), 2), (2, 3, Some(1), 2), (3, 3, Some(3), 2)]);
    assert!(
        ran.report.message.ends_with("(3 tries; try 2 is kept: 1 failing, 3 before)"),
        "{}",
        ran.report.message
    );
}

#[tokio::test]
async fn the_last_try_is_kept_without_a_revert_if_it_is_the_best() {
    let ran = counted(2).run("t", tries(&["a * b", "half"])).await;
    assert!(ran.files["calc.py"].contains("half"), "{:?}", ran.files);
    assert_eq!(ran.events().filter(|e| matches!(e, Event::Reverted { .. })).count(), 1);
}

#[tokio::test]
async fn if_no_try_is_better_than_the_start_the_files_are_as_they_were() {
    let with_a_command = || {
        let mut replies = vec![says(COMMAND)];
        replies.extend(gives_up("a * b"));
        replies
    };
    let ran = counted(2).run("t", [with_a_command(), with_a_command()].concat_replies()).await;
    assert_eq!((ran.report.ending.clone(), &ran.files), (Ending::Unverified, &original()));
    assert!(ran.states.iter().any(|files| files.contains_key("made.txt")));
    assert!(
        ran.report
            .message
            .ends_with("(2 tries; none was better than the start, so the original files were restored)"),
        "{}",
        ran.report.message
    );
}

#[tokio::test]
async fn a_try_of_the_whole_file_approach_consists_of_two_requests_which_the_next_try_rewords() {
    let mut world = counted(3);
    world.settings.approach = Approach::WholeFile;
    world.instructions.clear();
    world.files.lock().unwrap().insert("half.py".into(), "from calc import add\n".into());
    let whole = |line: &str| says(&format!("```python\ndef add(a, b):\n    return {line}\n```\n"));
    let other = says("```python\nfrom calc import add, sub\n```\n");
    let again = says("```python\nfrom calc import add, mul\n```\n");
    // `third` is better than the start, so two more requests start from it.
    let second = [whole("third"), whole("a ^ b"), whole("a | b")];
    let replies = [vec![whole("a * b"), whole("a / b")], second.into(), vec![other, again]].concat_replies();
    let ran = world.run("Fix calc.py, maybe half.py.", replies).await;
    assert_eq!(ran.report.ending, Ending::GaveUp, "{}", ran.report.message);
    assert!(ran.files["calc.py"].contains("third"), "{:?}", ran.files);
    let sampled: Vec<_> = ran.requests.iter().map(|r| (r.temperature.unwrap(), r.seed)).collect();
    let wanted = [
        (0.0, None),
        (1.0, Some(1)),
        (0.7, Some(2)),
        (0.7, Some(3)),
        (1.0, Some(4)),
        (0.9, Some(5)),
        (1.0, Some(6)),
    ];
    assert_eq!(sampled, wanted);
    let told = ran.last_messages();
    assert!(told.iter().take(2).all(|text| text.starts_with("Fix calc.py")), "{told:?}");
    assert!(told[2].starts_with("calc.py:\n") && told[2].contains("Find the mistake"), "{}", told[2]);
    assert!(told[3].contains("third"), "{}", told[3]);
    assert!(told[5].contains("half.py:\n```python"), "the second-best file: {}", told[5]);
}

#[tokio::test]
async fn reaching_a_budget_in_a_later_try_keeps_the_best_try_and_a_resumed_run_continues_the_later_try() {
    let limited = |turns| {
        let mut world = counted(2);
        world.settings.limits.turns = turns;
        world
    };
    let replies = || tries(&["half", "third"]);
    let ran = limited(6).run("t", replies()).await;
    assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Turns });
    assert!(ran.files["calc.py"].contains("half"), "{:?}", ran.files);
    let kept = "turn budget reached; stopped in try 2 of 2; try 1 is kept: 1 failing, 3 before";
    assert_eq!(ran.report.message, kept);

    let whole = counted(2).run("t", replies()).await;
    let (mut past, mut changes, mut files) = (ran.records, ran.changes, ran.files);
    // The resumed run is stopped once more. When it is resumed again, it runs to the end.
    for turns in [7, 40] {
        let world = limited(turns);
        world.files.lock().unwrap().clone_from(&files);
        let heard = past.iter().filter(|r| matches!(r.event, Event::Output { .. })).count();
        let world = World { changes, original: original(), ..world };
        let resumed = world.resume("t", replies().into_iter().skip(heard).collect(), &past).await;
        let sent: Vec<_> = resumed.requests.iter().map(|r| &r.messages).collect();
        let wanted: Vec<_> = whole.requests[heard..].iter().map(|r| &r.messages).collect();
        assert_eq!(sent, wanted[..sent.len()]);
        assert!(!sent.is_empty() && resumed.files["calc.py"].contains("half"), "{:?}", resumed.files);
        assert!(resumed.states.iter().any(|files| files["calc.py"].contains("third")));
        if turns == 40 {
            assert_eq!((&resumed.report.ending, &resumed.files), (&whole.report.ending, &whole.files));
        }
        past.extend(resumed.records);
        (changes, files) = (resumed.changes, resumed.files);
    }
}

#[tokio::test]
async fn a_first_try_that_reaches_a_budget_is_kept_only_if_it_is_better_than_the_start() {
    for (line, kept) in [("half", true), ("a * b", false)] {
        let mut world = counted(3);
        world.settings.limits.turns = 2;
        let ran = world.run("t", gives_up(line)).await;
        assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Turns });
        assert_eq!(ran.files != original(), kept, "{line}: {}", ran.report.message);
    }
}

#[tokio::test]
async fn a_server_failure_in_a_later_try_does_not_discard_the_best_try() {
    let mut replies = gives_up("half");
    replies.extend([patch("a * b"), Reply::Fails(Error::Refused("gone".into()))]);
    let ran = counted(2).run("t", replies).await;
    assert_eq!(ran.report.ending, Ending::Unavailable);
    assert!(ran.files["calc.py"].contains("half"), "{}", ran.report.message);
    assert!(ran.report.message.contains("gone") && ran.report.message.contains("try 1 is kept"));
}

#[tokio::test]
async fn a_run_without_a_verification_is_tried_once() {
    let mut world = counted(5);
    world.verified = false;
    let ran = world.run("t", vec![patch("a * b"), says(FINISH)]).await;
    assert_eq!((&ran.report.ending, ran.requests.len()), (&Ending::Unverified, 2));
}

#[tokio::test]
async fn after_a_message_of_the_user_there_are_no_further_tries() {
    let mut first = counted(2);
    first.settings.limits.turns = 5;
    let ran = first.run("t", tries(&["a * b", "a / b"])).await;
    assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Turns });
    let mut next = counted(2);
    next.files.lock().unwrap().clone_from(&ran.files);
    next.inbox = Box::new(std::collections::VecDeque::from(["use a plus".to_owned()]));
    let next = World { changes: ran.changes, original: original(), ..next };
    let ran = next.resume("t", vec![says(FINISH), says(FINISH), says(FINISH)], &ran.records).await;
    assert_eq!(ran.report.ending, Ending::Unverified, "{}", ran.report.message);
    assert!(ran.files["calc.py"].contains("a / b"), "the changes should be kept");
    assert_ne!(ran.files["calc.py"], START);
}

/// Joins the replies of several tries.
trait Concat {
    fn concat_replies(self) -> Vec<Reply>;
}

impl<const N: usize> Concat for [Vec<Reply>; N] {
    fn concat_replies(self) -> Vec<Reply> {
        self.into_iter().flatten().collect()
    }
}
