//! Tests the limits on the whole batch, infrastructure failures, and other reasons to stop early.
//! Tests that wait use a simulated clock, which jumps to the end of each wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Place, Script, attempt, run_with};
use batch::{BatchLimits, BatchOptions, Stop};
use journal::Ending;
use tokio::time::Instant;

/// Returns options with these limits. Each attempt by a [`Script`] uses 110 tokens and costs 25
/// cents.
fn limited(place: &Place, limits: BatchLimits) -> BatchOptions {
    BatchOptions { limits, ..place.options() }
}

#[tokio::test]
async fn the_token_limit_counts_all_invocations_and_pauses_the_batch() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b", "c"]);
    let runner = Script::ending(|_| Ending::Verified);
    let options = |tokens| limited(&place, BatchLimits { tokens: Some(tokens), ..BatchLimits::default() });
    let (summary, _) = run_with(&tasks, &options(111), &runner).await.unwrap();
    assert_eq!(runner.take(), ["a", "b"], "the attempt that reaches the limit should end by itself");
    assert_eq!((summary.exit_code(), summary.stopped), (4, Some(Stop::Tokens)));
    assert!(summary.to_text().contains("higher --batch-tokens to continue"), "{}", summary.to_text());

    let (summary, _) = run_with(&tasks, &options(220), &runner).await.unwrap();
    assert_eq!((runner.take().len(), summary.exit_code()), (0, 4));
    let (summary, _) = run_with(&tasks, &options(221), &runner).await.unwrap();
    assert_eq!(runner.take(), ["c"]);
    assert_eq!(
        (summary.exit_code(), summary.stopped),
        (0, None),
        "a batch that is done should not be paused"
    );
}

#[tokio::test]
async fn the_cost_limit_pauses_the_batch() {
    let place = Place::new();
    let runner = Script::ending(|_| Ending::Unverified);
    let options = limited(&place, BatchLimits { cost: Some(0.5), ..BatchLimits::default() });
    let (summary, _) = run_with(&place.tasks(&["a", "b", "c"]), &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["a", "b"]);
    assert_eq!((summary.exit_code(), summary.stopped), (4, Some(Stop::Cost)));
}

#[tokio::test]
async fn with_a_cost_limit_an_unknown_cost_is_reported_once() {
    let place = Place::new();
    let runner = Script::new(|task, _, _| {
        let mut attempt = attempt(Ending::Verified, &task.id);
        attempt.report.totals.cost = None;
        std::future::ready(attempt)
    });
    let options = limited(&place, BatchLimits { cost: Some(0.5), ..BatchLimits::default() });
    let (summary, told) = run_with(&place.tasks(&["a", "b"]), &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0);
    assert_eq!(told.iter().filter(|t| t.contains("cost of this attempt is unknown")).count(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_interrupts_running_tasks_and_no_more_tasks_start() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b", "c"]);
    let runner = Script::new(|task, _, mut told| {
        let id = task.id.clone();
        async move {
            if id == "a" {
                return attempt(Ending::Verified, &id);
            }
            told.wait_for(|told| *told).await.unwrap();
            attempt(Ending::Interrupted, &id)
        }
    });
    let hour = Duration::from_secs(3600);
    let options = limited(&place, BatchLimits { time: Some(hour), ..BatchLimits::default() });
    let start = Instant::now();
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["a", "b"]);
    assert!(start.elapsed() >= hour);
    assert_eq!((summary.exit_code(), summary.stopped), (4, Some(Stop::Deadline)));
    assert_eq!(place.worktrees(), [""; 0]);

    let runner = Script::ending(|_| Ending::Verified);
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
    assert_eq!(runner.take(), ["b", "c"]);
}

#[tokio::test]
async fn a_batch_whose_deadline_has_passed_starts_nothing() {
    let place = Place::new();
    let runner = Script::ending(|_| Ending::Verified);
    let options = limited(&place, BatchLimits { time: Some(Duration::ZERO), ..BatchLimits::default() });
    let (summary, _) = run_with(&place.tasks(&["a"]), &options, &runner).await.unwrap();
    assert_eq!((runner.take().len(), summary.exit_code()), (0, 4));
}

#[tokio::test]
async fn fail_fast_starts_no_task_after_a_failure_and_the_next_invocation_continues() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b", "c", "d"]);
    let runner = Script::ending(|task| if task.id == "b" { Ending::GaveUp } else { Ending::Verified });
    let options = BatchOptions { fail_fast: true, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["a", "b"]);
    assert_eq!((summary.exit_code(), summary.stopped), (1, Some(Stop::FailFast)));
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["c", "d"]);
    assert_eq!((summary.exit_code(), summary.stopped), (1, None));
}

#[tokio::test]
async fn retry_failed_repeats_tasks_that_the_agent_finished_without_success() {
    let place = Place::new();
    let tasks = place.tasks(&["good", "bad", "lost"]);
    let runner = Script::ending(|task| match task.id.as_str() {
        "good" => Ending::Verified,
        "bad" => Ending::Unverified,
        _ => Ending::GaveUp,
    });
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 1);
    runner.take();
    let options = BatchOptions { retry_failed: true, ..place.options() };
    let better = Script::ending(|_| Ending::Verified);
    let (summary, told) = run_with(&tasks, &options, &better).await.unwrap();
    assert_eq!(better.take(), ["bad", "lost"]);
    assert_eq!(told[..3], ["plan 3, 1 done", "failed bad", "failed lost"]);
    assert_eq!(summary.exit_code(), 0, "the last result should count");
    run_with(&tasks, &options, &better).await.unwrap();
    assert_eq!(better.take(), [""; 0], "no task should be left to retry");
}

#[tokio::test(start_paused = true)]
async fn the_waits_before_retries_double() {
    let place = Place::new();
    let starts = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&starts);
    // Several attempts that end with `Unavailable` would look like a server outage.
    let runner = Script::ending(move |_| {
        starts.borrow_mut().push(Instant::now());
        Ending::Refused
    });
    let options = BatchOptions { retries: 2, ..place.options() };
    let (summary, _) = run_with(&place.tasks(&["a"]), &options, &runner).await.unwrap();
    let starts = seen.take();
    let waits: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits, [2, 4]);
    assert_eq!((summary.exit_code(), summary.stopped), (5, None));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_one_probe_runs_at_a_time_until_one_succeeds() {
    let place = Place::new();
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let start = Instant::now();
    let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let probes = Rc::clone(&most);
    let runner = Script::new(move |task, _, _| {
        let (id, running, most) = (task.id.clone(), Rc::clone(&running), Rc::clone(&most));
        async move {
            running.set(running.get() + 1);
            let up = start.elapsed() > Duration::from_secs(60);
            // The first three attempts start together, before the outage is detected. Only later
            // attempts are probes.
            if !up && start.elapsed() > Duration::from_secs(1) {
                most.set(most.get().max(running.get()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            running.set(running.get() - 1);
            attempt(if up { Ending::Verified } else { Ending::Unavailable }, &id)
        }
    });
    let options = BatchOptions { jobs: 3, retries: 1, ..place.options() };
    let (summary, told) = run_with(&place.tasks(&ids), &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{told:?}");
    assert_eq!(probes.get(), 1);
    let waits: Vec<_> = told.iter().filter(|t| t.starts_with("waiting")).collect();
    assert_eq!(waits, ["waiting 2 s", "waiting 4 s", "waiting 8 s", "waiting 16 s", "waiting 32 s"]);
    let results = place.results();
    assert_eq!(results.iter().filter(|r| r.infrastructure).count(), 7, "three attempts and four probes");
    assert_eq!(results.iter().filter(|r| !r.infrastructure).count(), ids.len());
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_does_not_end_stops_the_batch_without_trying_every_task() {
    let place = Place::new();
    let names: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    let tasks = place.tasks(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let up = Rc::new(Cell::new(false));
    let server = Rc::clone(&up);
    let runner = Script::ending(move |_| if server.get() { Ending::Verified } else { Ending::Unavailable });
    let options = BatchOptions { wait: Duration::from_secs(20), ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!((summary.exit_code(), summary.stopped), (5, Some(Stop::Infrastructure)));
    assert_eq!(runner.take().len(), 6, "three attempts, and probes after 2, 4 and 8 seconds");

    let impatient = BatchOptions { wait: Duration::ZERO, ..place.options() };
    run_with(&tasks, &impatient, &runner).await.unwrap();
    assert_eq!(runner.take().len(), 3, "no probes should run if the batch does not wait");

    up.set(true);
    let summary = place.run(&tasks, &runner).await;
    assert_eq!((summary.exit_code(), runner.take().len()), (0, 50));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_always_fails_does_not_hold_up_the_batch() {
    let place = Place::new();
    let mut ids = vec!["broken1", "broken2", "broken3", "broken4"];
    ids.extend(["a", "b", "c"]);
    let runner =
        Script::ending(|task| if task.id.starts_with("broken") { Ending::Refused } else { Ending::Verified });
    let options = BatchOptions { retries: 1, ..place.options() };
    let (summary, _) = run_with(&place.tasks(&ids), &options, &runner).await.unwrap();
    let good = summary.rows.iter().filter(|row| row.ending == Some(Ending::Verified)).count();
    assert_eq!((good, summary.exit_code(), summary.stopped), (3, 5, None));
}

#[tokio::test(start_paused = true)]
async fn bug_failing_setups_of_one_repository_stopped_the_batch() {
    let place = Place::new();
    place.repository("other");
    let mut tasks = place.tasks(&["broken1", "broken2", "broken3", "broken4", "broken5", "a", "b"]);
    for task in &mut tasks[5..] {
        task.repo = place.path("other");
    }
    let runner =
        Script::ending(|task| if task.id.starts_with("broken") { Ending::Refused } else { Ending::Verified });
    let options = BatchOptions { wait: Duration::ZERO, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take().len(), 7);
    assert_eq!((summary.exit_code(), summary.stopped), (5, None));
}
