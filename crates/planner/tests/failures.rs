//! Tests runs whose stream or server fails, runs that reach a limit, and runs that are interrupted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use journal::{Budget, Ending, Event};
use models::{Delta, Error, Usage};
use planner::{Cut, Limits, Settings};
use support::{NO_DIFF, Reply, says, text, world};

const READ: &str = r#"{"tool": "read_file", "arguments": {"path": "calc.py"}}"#;
const FIX: &str = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}}"#;
const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "added instead of subtracting"}}"#;
const FIXED: &str = "def add(a, b):\n    return a + b\n";

#[tokio::test(start_paused = true)]
async fn a_broken_stream_without_a_call_is_retried_with_the_same_request() {
    let ran =
        world().run("t", vec![Reply::Breaks(text("{\"tool\": \"apply_pa")), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.requests[0], ran.requests[1]);
    assert!(ran.events().any(|e| matches!(e, Event::Retry { .. })));
}

#[tokio::test]
async fn a_stream_that_breaks_after_a_complete_call_counts_as_cut() {
    let mut world = world();
    world.settings.cut = Cut::ReadOn;
    let ran =
        world.run("t", vec![Reply::Breaks(text(&format!("{FIX}\n{{\"tool\": \"read"))), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.requests[1].messages[2].content, FIX);
}

/// The bug: the run ended as verified, and a batch recorded an empty patch and removed the worktree.
#[tokio::test]
async fn bug_a_verified_run_without_a_diff_counted_as_success() {
    let fix = FIX.replace("a + b", &format!("a + b  {NO_DIFF}"));
    let ran = world().run("t", vec![says(&fix), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Refused);
    assert!(ran.report.message.ends_with("; could not compute the diff: no space left on device"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_down_ends_the_run_as_unavailable() {
    let down = || Reply::Fails(Error::Transport("connection refused".into()));
    let ran = world().run("t", (0..9).map(|_| down()).collect()).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::Unavailable, 6));
}

/// Returns an answer that is cut off in the middle of a call. The server may have reported token
/// counts.
fn breaks(usage: Option<Usage>) -> Reply {
    let counts = usage.map(Delta::Usage).into_iter();
    Reply::Breaks(text("{\"tool\": \"apply_pa").into_iter().chain(counts).collect())
}

#[tokio::test(start_paused = true)]
async fn tokens_and_cost_of_answers_whose_stream_broke_count_against_the_limits() {
    let told = Usage { prompt_tokens: Some(1_000), generated_tokens: Some(50), ..Usage::default() };
    for (limits, budget) in [
        (Limits { tokens: Some(2_000), ..Limits::default() }, Budget::Tokens),
        (Limits { cost: Some(0.0015), ..Limits::default() }, Budget::Cost),
    ] {
        let mut world = world();
        world.identity.price = Some((1.0, 1.0, 1.0).into());
        world.settings.limits = limits;
        let ran = world.run("t", (0..6).map(|_| breaks(Some(told))).collect()).await;
        assert_eq!((ran.report.ending, ran.requests.len()), (Ending::Budget { budget }, 2));
        let totals = ran.report.totals;
        assert_eq!((totals.turns, totals.prompt_tokens, totals.generated_tokens), (0, 2_000, 100));
    }
}

#[tokio::test(start_paused = true)]
async fn counts_that_the_server_did_not_report_for_a_broken_answer_are_recorded_as_estimates() {
    let ran = world().run("t", vec![breaks(None), says(FIX), says(FINISH)]).await;
    let lost = |e: &Event| match e {
        Event::AnswerLost { counts, estimated, .. } => Some((counts.prompt_tokens, *estimated)),
        _ => None,
    };
    let estimate = ran.events().find_map(|e| match e {
        Event::Request { estimated_tokens, .. } => Some(*estimated_tokens),
        _ => None,
    });
    assert_eq!(ran.events().filter_map(lost).collect::<Vec<_>>(), [(estimate, true)]);
    assert!(ran.report.totals.prompt_tokens > 3 * estimate.unwrap());
    assert_eq!(planner::totals(&ran.records).0.prompt_tokens, ran.report.totals.prompt_tokens);
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_one_process_do_not_retry_at_the_same_moments() {
    let waits = async || {
        let down = || Reply::Fails(Error::Transport("connection refused".into()));
        let ran = world().run("t", (0..6).map(|_| down()).collect()).await;
        let wait = |e: &Event| if let Event::Retry { wait_ms, .. } = e { Some(*wait_ms) } else { None };
        ran.events().filter_map(wait).collect::<Vec<_>>()
    };
    let (one, other) = (waits().await, waits().await);
    assert_eq!((one.len(), other.len()), (5, 5));
    assert_ne!(one, other);
}

#[tokio::test]
async fn requests_share_their_messages() {
    let ran = world().run("t", vec![says(FIX), says(FINISH)]).await;
    let (first, second) = (&ran.requests[0].messages, &ran.requests[1].messages);
    assert!(first.iter().zip(second).all(|(one, other)| Arc::ptr_eq(one, other)));
}

#[tokio::test]
async fn a_refused_request_is_not_retried() {
    let ran = world().run("t", vec![Reply::Fails(Error::Refused("the key is wrong".into()))]).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::Unavailable, 1));
    assert_eq!(ran.report.message, "the key is wrong");
}

#[tokio::test]
async fn an_answer_cut_by_the_token_limit_is_never_run() {
    let cut_off = &FIX[..FIX.len() - 2];
    let ran =
        world().run("t", vec![Reply::RunsOut(text(cut_off)), says(READ), says(FIX), says(FINISH)]).await;
    assert!(ran.last_messages()[1].starts_with("Not run:"), "{}", ran.last_messages()[1]);
    assert_eq!(ran.files["calc.py"], FIXED);
    let first_started = ran
        .events()
        .find_map(|e| if let Event::ToolStarted { tool, .. } = e { Some(tool.as_str()) } else { None });
    assert_eq!(first_started, Some("read_file"));
}

#[tokio::test]
async fn a_call_at_the_end_of_the_reasoning_runs_only_if_it_uses_the_native_tokens_of_a_model_family() {
    let native = format!("I need the file.\n<tool_call>\n{READ}\n</tool_call>");
    let in_text = Reply::Says(vec![Delta::Text(format!("<think>\n{native}"))]);
    let separate = Reply::Says(vec![Delta::Thinking(native)]);
    for thinking in [in_text, separate] {
        let ran = world().run("t", vec![thinking, says(FIX), says(FINISH)]).await;
        assert!(ran.last_messages()[1].starts_with("read_file calc.py: ok"), "{}", ran.last_messages()[1]);
    }
    let in_text = Reply::Says(vec![Delta::Text(format!("<think>\nI need the file.\n{READ}"))]);
    let separate = Reply::Says(vec![Delta::Thinking(READ.into())]);
    for thinking in [in_text, separate] {
        let ran = world().run("t", vec![thinking, says(FIX), says(FINISH)]).await;
        assert!(ran.last_messages()[1].contains("contains only reasoning"), "{}", ran.last_messages()[1]);
    }
    let both = Reply::Says(vec![Delta::Thinking(READ.into()), Delta::Text(FIX.into())]);
    let ran = world().run("t", vec![both, says(FINISH)]).await;
    assert!(!ran.events().any(|e| matches!(e, Event::ToolStarted { tool, .. } if tool == "read_file")));
}

#[tokio::test]
async fn a_template_that_opens_the_reasoning_block_is_detected_in_the_first_answer() {
    let first = format!("I look at the file.\n</think>\n{READ}");
    let second = format!("I could do this:\n{FIX}\nBut no, I read it again.\n</think>\n{READ}");
    let closed = |call: &str| says(&format!("Now.\n</think>\n{call}"));
    let ran = world().run("t", vec![says(&first), says(&second), closed(FIX), closed(FINISH)]).await;
    let tools: Vec<_> = ran
        .events()
        .filter_map(|e| if let Event::ToolStarted { tool, .. } = e { Some(tool.as_str()) } else { None })
        .collect();
    assert_eq!(tools, ["read_file", "read_file", "apply_patch", "finish"]);
}

#[tokio::test]
async fn each_exhausted_budget_ends_the_run_with_its_own_ending_and_keeps_the_changes() {
    let limited = |limits| {
        let mut world = world();
        world.settings = Settings { limits, ..world.settings };
        world
    };
    let turns = limited(Limits { turns: 1, ..Limits::default() });
    let ran = turns.run("t", vec![says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Turns });
    assert_eq!(ran.report.diff.files, ["calc.py"]);
    let tokens = limited(Limits { tokens: Some(10), ..Limits::default() });
    assert_eq!(
        tokens.run("t", vec![says(READ), says(FIX)]).await.report.ending,
        Ending::Budget { budget: Budget::Tokens }
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_holds_while_the_server_is_silent() {
    let mut world = world();
    world.settings.limits.seconds = Some(60);
    let ran = world.run("t", vec![says(FIX), Reply::Hangs(text("hm"))]).await;
    assert_eq!(ran.report.ending, Ending::Budget { budget: Budget::Time });
    assert_eq!(ran.report.diff.files, ["calc.py"]);
}

#[tokio::test]
async fn an_interrupt_ends_the_run_in_the_middle_of_an_answer() {
    let world = world();
    world.interrupt.send_replace(true);
    let ran = world.run("t", vec![Reply::Hangs(text("hm"))]).await;
    assert_eq!(ran.report.ending, Ending::Interrupted);
    assert!(matches!(ran.events().last(), Some(Event::Finished { .. })));
}
