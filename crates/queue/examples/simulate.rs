//! Runs a batch of tiny tasks through a real queue, with workers whose attempts do nothing, and
//! prints how fast the batch was: `cargo run --release -p queue --example simulate -- URL [TASKS]
//! [WORKERS]`. See `docs/scaling.md` for measurements.
//!
//! The publisher and all workers run in this process, so the figures are for a single core.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use batch::{
    Attempt, BatchLimits, BatchOptions, Context, Error, Event, Finished, Job, Place, Settings, Started, Task,
};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, join_all};
use journal::{Ending, Store};
use queue::{Address, Publisher, Queue, WorkerOptions};
use tokio::sync::watch;

/// Runs no tasks: each attempt ends immediately, with a patch of typical size.
struct Nothing {
    patch: String,
}

impl Place for Nothing {
    fn attempt<'a>(&'a self, job: Job<'a>, batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async move {
            let (id, digest, attempt) = (job.task.id.clone(), job.digest.to_owned(), job.attempt);
            let report = Attempt::failed(Ending::Verified, "changed one line").report;
            let diff = journal::Diff { patch: self.patch.clone(), ..journal::Diff::default() };
            batch
                .sink
                .started(Started {
                    v: 1,
                    id: id.clone(),
                    attempt,
                    digest: digest.clone(),
                    time_ms: 0,
                    worktree: None,
                    git_dir: None,
                    commit: None,
                    kept: false,
                })
                .await?;
            let finished = Finished {
                v: 1,
                id,
                attempt,
                digest,
                time_ms: 0,
                ending: report.ending,
                infrastructure: false,
                message: report.message,
                diff,
                totals: report.totals,
                models: Vec::new(),
                seconds: 0.0,
                session: None,
            };
            batch.sink.finished(finished, false).await
        }
        .boxed_local()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |n: usize, default| arguments.get(n).map_or(default, |text| text.parse().unwrap());
    let (count, workers) = (number(2, 100_000), number(3, 8));
    let address = Address { url: arguments.get(1).unwrap().clone(), credentials: None, ca: None };
    let folder = tempfile::tempdir().unwrap();
    let tasks: Vec<Task> = (0..count)
        .map(|n| Task {
            id: format!("t{n}"),
            repo: "https://example.org/shop.git".into(),
            text: "Change the greeting.".repeat(50),
            ..Task::default()
        })
        .collect();
    let options = BatchOptions {
        out: folder.path().join("batch"),
        jobs: 1000,
        retries: 3,
        wait: Duration::ZERO,
        limits: BatchLimits::default(),
        fail_fast: false,
        retry_failed: false,
        model_name: "none".into(),
        settings: Settings::default(),
    };
    let store = Store::new(folder.path());
    let (stop, stopped) = watch::channel(false);
    let nothing = Nothing { patch: "-hello\n+good day\n".repeat(100) };
    let work = join_all((0..workers).map(|n| {
        let folder = folder.path().join(format!("worker{n}"));
        let (address, store, nothing, stopped) = (&address, &store, &nothing, stopped.clone());
        async move {
            let queue = Queue::connect(address, None, |_| {}).await.unwrap();
            let options = WorkerOptions { folder, jobs: 16, lease: Duration::from_secs(60) };
            queue::work(&queue, &options, store, nothing, stopped, &|_| {}).await.unwrap();
        }
    }));
    let begun = Instant::now();
    let done = Cell::new(0_usize);
    let run = async {
        let queue = Queue::connect(&address, None, |_| {}).await.unwrap();
        let publisher = Publisher::new(queue, options.out.clone(), &store, &|_| {});
        let interrupt = watch::channel(false).1;
        let summary = batch::run(&tasks, &options, &publisher, interrupt, |event| {
            if let Event::Finished { .. } = event {
                done.set(done.get() + 1);
                if done.get().is_multiple_of(10_000) {
                    println!("{} results after {:.1} s", done.get(), begun.elapsed().as_secs_f64());
                }
            }
        });
        let summary = summary.await.unwrap();
        stop.send_replace(true);
        summary
    };
    let (summary, _) = tokio::join!(run, work);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak memory of this process: {}", peak.trim());
    println!(
        "{count} tasks, {workers} workers: {seconds:.1} s, {rate:.0} tasks/s, exit code {}",
        summary.exit_code()
    );
}
