//! Tests scheduling: which tasks run, how many times, how many at a time, and what is left behind
//! after an interrupt or a kill.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Place, Script, attempt, run_with, telling};
use batch::{Attempt, BatchOptions, Error, Here, Task};
use journal::{Budget, Ending};
use tokio::sync::{Barrier, Notify, watch};

#[tokio::test]
async fn a_task_that_the_agent_finished_is_not_repeated_whatever_its_ending() {
    let place = Place::new();
    let tasks = place.tasks(&["good", "bad", "lost", "poor"]);
    let runner = Script::ending(|task| match task.id.as_str() {
        "good" => Ending::Verified,
        "bad" => Ending::Unverified,
        "lost" => Ending::GaveUp,
        _ => Ending::Budget { budget: Budget::Cost },
    });
    let first = place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), ["good", "bad", "lost", "poor"]);
    let second = place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), [""; 0]);
    assert_eq!(first, second);
    assert_eq!(place.results().len(), 4);
}

#[tokio::test]
async fn only_a_new_task_in_the_file_is_run() {
    let place = Place::new();
    let runner = Script::ending(|_| Ending::Verified);
    place.run(&place.tasks(&["a", "b"]), &runner).await;
    runner.take();
    place.run(&place.tasks(&["c", "a", "b"]), &runner).await;
    assert_eq!(runner.take(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn infrastructure_failures_are_retried_up_to_the_limit_and_then_by_the_next_invocation() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b"]);
    let up = Rc::new(Cell::new(false));
    let server = Rc::clone(&up);
    let runner =
        Script::ending(
            move |task| {
                if task.id == "b" || server.get() { Ending::Verified } else { Ending::Unavailable }
            },
        );
    let options = BatchOptions { retries: 2, ..place.options() };
    let (summary, told) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["a", "b", "a", "a"]);
    assert!(told.contains(&"finished a 1 model unavailable, again".to_owned()), "{told:?}");
    assert!(told.contains(&"finished a 3 model unavailable".to_owned()), "{told:?}");
    assert_eq!(summary.exit_code(), 5);
    assert!(place.results().iter().filter(|r| r.id == "a").all(|r| r.infrastructure));

    up.set(true);
    let summary = place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), ["a"]);
    assert_eq!(summary.exit_code(), 0);
    let a: Vec<u32> = place.results().iter().filter(|r| r.id == "a").map(|r| r.attempt).collect();
    assert_eq!(a, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_missing_repository_fails_once_and_the_others_continue() {
    let place = Place::new();
    let mut tasks = place.tasks(&["gone", "here"]);
    tasks[0].repo = place.path("nowhere");
    let runner = Script::ending(|_| Ending::Verified);
    let options = BatchOptions { retries: 3, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(runner.take(), ["here"]);
    assert_eq!(summary.exit_code(), 5);
    let results = place.results();
    let gone: Vec<_> = results.iter().filter(|r| r.id == "gone").collect();
    assert_eq!(gone.len(), 1);
    assert!(gone[0].infrastructure && gone[0].message.contains("nowhere"), "{:?}", gone[0]);

    place.repository("nowhere");
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
    assert_eq!(runner.take(), ["gone"]);
}

#[tokio::test]
async fn a_panic_is_an_infrastructure_failure_and_the_others_continue() {
    let place = Place::new();
    let runner = Script::new(|task, _, _| {
        let id = task.id.clone();
        async move { if id == "a" { panic!("the ship sank") } else { attempt(Ending::Verified, &id) } }
    });
    let summary = place.run(&place.tasks(&["a", "b"]), &runner).await;
    assert_eq!(runner.take(), ["a", "b"]);
    assert_eq!(summary.exit_code(), 5);
    let first = &place.results()[0];
    assert!(first.infrastructure && first.message.contains("the ship sank"), "{first:?}");
    assert_eq!(place.worktrees(), [""; 0]);
}

#[tokio::test]
async fn as_many_tasks_run_at_the_same_time_as_there_are_jobs_and_no_more() {
    let place = Place::new();
    let ids = ["a", "b", "c", "d", "e", "f"];
    // The barrier opens only when three tasks are running at the same time.
    let (barrier, running, most) = (Rc::new(Barrier::new(3)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let seen = Rc::clone(&most);
    let runner = Script::new(move |task, _, _| {
        let (barrier, running, most) = (Rc::clone(&barrier), Rc::clone(&running), Rc::clone(&most));
        let id = task.id.clone();
        async move {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            barrier.wait().await;
            running.set(running.get() - 1);
            attempt(Ending::Verified, &id)
        }
    });
    let options = BatchOptions { jobs: 3, ..place.options() };
    let (summary, _) = run_with(&place.tasks(&ids), &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0);
    assert_eq!(seen.get(), 3);
}

#[tokio::test]
async fn an_interrupt_reaches_running_tasks_and_no_more_tasks_start() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b", "c"]);
    let (interrupt, interrupted) = watch::channel(false);
    let interrupt = Rc::new(interrupt);
    let runner = Script::new(move |task, _, mut told| {
        let (id, interrupt) = (task.id.clone(), Rc::clone(&interrupt));
        async move {
            if id == "a" {
                return attempt(Ending::Verified, &id);
            }
            interrupt.send_replace(true);
            told.wait_for(|told| *told).await.unwrap();
            attempt(Ending::Interrupted, &id)
        }
    });
    let summary =
        batch::run(&tasks, &place.options(), &Here::new(&runner), interrupted, |_| {}).await.unwrap();
    assert_eq!(runner.take(), ["a", "b"]);
    assert_eq!(summary.exit_code(), 130);
    assert!(summary.to_text().contains("not run"), "{}", summary.to_text());
    assert_eq!(place.worktrees(), [""; 0]);
    let b = &place.results()[1];
    assert!(
        b.infrastructure && b.diff.added == 2,
        "the diff of an interrupted attempt should be kept: {b:?}"
    );

    let runner = Script::ending(|_| Ending::Verified);
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
    assert_eq!(runner.take(), ["b", "c"]);
}

#[tokio::test]
async fn after_an_interrupt_before_the_first_task_no_task_runs() {
    let place = Place::new();
    let (_sender, interrupted) = watch::channel(true);
    let runner = Script::ending(|_| Ending::Verified);
    let summary =
        batch::run(&place.tasks(&["a"]), &place.options(), &Here::new(&runner), interrupted, |_| {})
            .await
            .unwrap();
    assert_eq!(runner.take(), [""; 0]);
    assert_eq!(summary.exit_code(), 130);
}

/// Runs a batch until its second task is running, then drops the batch. Like a kill, this leaves
/// only the files on disk.
async fn kill_in_the_second_task(place: &Place, tasks: &[Task]) {
    let begun = Rc::new(Notify::new());
    let told = Rc::clone(&begun);
    let runner = Script::new(move |task, worktree, _| {
        let (id, begun) = (task.id.clone(), Rc::clone(&begun));
        async move {
            if id == "a" {
                return attempt(Ending::Verified, &id);
            }
            fs::write(worktree.join("half"), "done").unwrap();
            begun.notify_one();
            std::future::pending::<Attempt>().await
        }
    });
    let options = place.options();
    tokio::select! {
        _ = run_with(tasks, &options, &runner) => panic!("the batch never ends by itself"),
        () = told.notified() => {}
    }
}

#[tokio::test]
async fn the_next_invocation_cleans_up_after_a_killed_batch_and_continues() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b", "c"]);
    let before = place.state();
    kill_in_the_second_task(&place, &tasks).await;
    assert_eq!(place.worktrees(), ["b"]);
    assert_eq!(place.lines("attempts.jsonl").len(), 2);
    assert_eq!(place.results().len(), 1);

    // The user's own files: a folder among the worktrees, and a worktree on an unmounted disk.
    fs::create_dir(place.out().join("worktrees/mine")).unwrap();
    let unplugged = place.path("unplugged");
    crate::support::git(
        &place.path("repo"),
        &["worktree", "add", "-q", "--detach", unplugged.to_str().unwrap(), "HEAD"],
    );
    fs::rename(&unplugged, place.path("moved")).unwrap();

    let runner = Script::ending(|_| Ending::Verified);
    let (summary, told) = run_with(&tasks, &place.options(), &runner).await.unwrap();
    assert_eq!(told[..2], ["plan 3, 1 done", "cut off b 1"]);
    assert_eq!(runner.take(), ["b", "c"]);
    assert_eq!(summary.exit_code(), 0);
    assert_eq!(summary.attempts, 4);
    assert_eq!(place.worktrees(), ["mine"]);
    let list = crate::support::git(&place.path("repo"), &["worktree", "list"]);
    assert!(list.contains("unplugged"), "{list}");

    fs::rename(place.path("moved"), &unplugged).unwrap();
    crate::support::git(&place.path("repo"), &["worktree", "remove", "--force", unplugged.to_str().unwrap()]);
    assert_eq!(before, place.state());
}

#[tokio::test]
async fn torn_records_are_dropped_and_their_tasks_repeated() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b"]);
    let runner = Script::ending(|_| Ending::Verified);
    place.run(&tasks, &runner).await;
    runner.take();
    let results = place.out().join("results.jsonl");
    let whole = fs::read(&results).unwrap();
    let second = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in [second + 1, second + 40, whole.len() - 1] {
        fs::write(&results, &whole[..cut]).unwrap();
        assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
        assert_eq!(runner.take(), ["b"], "cut at {cut}");
        assert_eq!(place.results().len(), 2, "cut at {cut}");
    }
    // A power loss may leave zeros behind.
    fs::write(&results, &whole[..second]).unwrap();
    fs::OpenOptions::new().append(true).open(&results).unwrap().write_all(&[0, 0, 0, b'\n']).unwrap();
    place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), ["b"]);
}

#[tokio::test]
async fn a_damaged_record_before_the_last_stops_the_batch_before_anything_runs() {
    let place = Place::new();
    let tasks = place.tasks(&["a"]);
    let runner = Script::ending(|_| Ending::Verified);
    place.run(&tasks, &runner).await;
    runner.take();
    let results = place.out().join("results.jsonl");
    let whole = fs::read_to_string(&results).unwrap();
    fs::write(&results, format!("{{\"v\":1}}\n{whole}")).unwrap();
    let error = run_with(&tasks, &place.options(), &runner).await.unwrap_err();
    assert!(matches!(error, Error::Journal(journal::Error::Corrupt { line: 1, .. })), "{error}");
    fs::write(&results, whole.replace("{\"v\":1,", "{\"v\":2,")).unwrap();
    let error = run_with(&tasks, &place.options(), &runner).await.unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    assert_eq!(runner.take(), [""; 0]);
}

#[tokio::test]
async fn a_second_batch_on_the_same_folder_is_refused_and_the_error_names_the_first_process() {
    let place = Rc::new(Place::new());
    let refused = Rc::new(RefCell::new(String::new()));
    let (inner, said) = (Rc::clone(&place), Rc::clone(&refused));
    let runner = Script::new(move |task, _, _| {
        let (place, said, id) = (Rc::clone(&inner), Rc::clone(&said), task.id.clone());
        async move {
            let second = Script::ending(|_| Ending::Verified);
            let error = run_with(&place.tasks(&["a"]), &place.options(), &second).await.unwrap_err();
            *said.borrow_mut() = error.to_string();
            attempt(Ending::Verified, &id)
        }
    });
    place.run(&place.tasks(&["a"]), &runner).await;
    let said = refused.borrow();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
}

#[tokio::test]
async fn results_count_even_without_the_log_of_attempts() {
    let place = Place::new();
    let tasks = place.tasks(&["a", "b"]);
    let runner = Script::ending(|task| if task.id == "a" { Ending::Verified } else { Ending::Unavailable });
    place.run(&tasks, &runner).await;
    runner.take();
    fs::remove_file(place.out().join("attempts.jsonl")).unwrap();
    place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), ["b"]);
    assert_eq!(place.results().last().map(|r| r.attempt), Some(2));
}

#[tokio::test]
async fn a_changed_task_is_reported_and_repeated() {
    let place = Place::new();
    let mut tasks = place.tasks(&["a", "b"]);
    let runner = Script::ending(|_| Ending::Verified);
    place.run(&tasks, &runner).await;
    runner.take();
    tasks[1].text.push_str(", and more");
    let (summary, told) = run_with(&tasks, &place.options(), &runner).await.unwrap();
    assert_eq!(told[..2], ["plan 2, 1 done", "changed b"]);
    assert_eq!(runner.take(), ["b"]);
    assert_eq!(summary.exit_code(), 0);
}

#[tokio::test]
async fn an_attempt_is_on_disk_before_it_runs_and_its_result_before_it_is_reported() {
    let place = Rc::new(Place::new());
    let inner = Rc::clone(&place);
    let runner = Script::new(move |task, _, _| {
        let lines = inner.lines("attempts.jsonl");
        assert!(lines.last().unwrap().contains(&format!("\"id\":\"{}\"", task.id)), "{lines:?}");
        std::future::ready(attempt(Ending::Verified, &task.id))
    });
    let (_quiet, interrupt) = watch::channel(false);
    let told = RefCell::new(Vec::new());
    batch::run(&place.tasks(&["a", "b"]), &place.options(), &Here::new(&runner), interrupt, |event| {
        if let batch::Event::Finished { result, .. } = event {
            assert_eq!(place.results().last(), Some(result));
        }
        told.borrow_mut().push(telling(&event));
    })
    .await
    .unwrap();
    let expected =
        ["plan 2, 0 done", "started a 1", "finished a 1 verified", "started b 1", "finished b 1 verified"];
    assert_eq!(told.into_inner(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_requests_gets_fewer_tasks_at_a_time_until_it_accepts_them() {
    let place = Place::new();
    let ids: Vec<String> = (0..60).map(|n| format!("t{n:02}")).collect();
    let tasks = place.tasks(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let (running, starts, refusals) =
        (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())), Rc::default());
    let (seen, refused): (_, Rc<Cell<u64>>) = (Rc::clone(&starts), Rc::clone(&refusals));
    let mut runner = Script::new(move |task, _, _| {
        let (running, id) = (Rc::clone(&running), task.id.clone());
        running.set(running.get() + 1);
        seen.borrow_mut().push(running.get());
        // For the first 20 tasks, the server answers two requests at a time.
        let refuses = running.get() > 2 && seen.borrow().len() <= 20;
        refused.set(refused.get() + u64::from(refuses));
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.set(running.get() - 1);
            attempt(Ending::Verified, &id)
        }
    });
    runner.refusals = refusals;
    let options = BatchOptions { jobs: 5, ..place.options() };
    let (summary, told) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0);
    let notes = told.iter().filter(|line| line.starts_with("note : ")).count();
    assert!((1..5).contains(&notes), "{told:#?}");
    let starts = starts.borrow();
    let most = |range: std::ops::Range<usize>| *starts[range].iter().max().unwrap();
    assert_eq!(most(0..5), 5);
    assert!(most(10..20) <= 3, "{starts:?}");
    assert_eq!(most(50..60), 5, "{starts:?}");
}
