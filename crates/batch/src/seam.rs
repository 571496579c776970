//! Traits for where attempts come from, where they run, and where their records go. A batch on one
//! machine, a batch that hands its tasks to a queue, and a queue worker differ only in how they
//! implement these traits.
//!
//! | | [`Source`] | [`Place`] | [`Sink`] |
//! |---|---|---|---|
//! | `agent batch` | the task file and the schedule | [`Here`](crate::Here): a worktree | the batch folder |
//! | `agent batch --queue` | the task file and the schedule | the queue: publishes the task and waits for its result | the batch folder |
//! | `agent worker` | the queue | [`Here`](crate::Here) | the queue |

use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use crate::error::Error;
use crate::event::Event;
use crate::record::{Finished, Started};
use crate::task::Task;

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Job<'t> {
    /// The task.
    pub task: &'t Task,
    /// [`Task::digest`].
    pub digest: &'t str,
    /// The 1-based number of this attempt at the task.
    pub attempt: u32,
}

/// Where attempts come from.
pub trait Source {
    /// The description of an attempt.
    type Job;

    /// Waits until the next attempt may start, and returns it. Returns `None` if no more will
    /// start. `running` is the number of running attempts. Dropping the future does not lose an
    /// attempt.
    fn next(&self, running: usize) -> LocalBoxFuture<'_, Option<Self::Job>>;

    /// Ensures that no more attempts start and that running ones are interrupted.
    fn stop(&self);
}

/// Where the records of attempts go.
pub trait Sink {
    /// Records the start of an attempt; the record is on disk when this returns.
    fn started(&self, started: Started) -> LocalBoxFuture<'_, Result<(), Error>>;

    /// Records how an attempt ended; the record is on disk when this returns. `may_help` is true if
    /// a retry could end differently.
    fn finished(&self, finished: Finished, may_help: bool) -> LocalBoxFuture<'_, Result<(), Error>>;
}

/// Where attempts run.
pub trait Place {
    /// Prepares for the first attempt. The batch folder is already locked.
    fn prepare<'a>(&'a self, _batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        std::future::ready(Ok(())).boxed_local()
    }

    /// Makes one attempt and records its start and its end. If the batch stops before the attempt
    /// starts, nothing is recorded. An error means that a record could not be written.
    fn attempt<'a>(&'a self, job: Job<'a>, batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>>;

    /// Returns the number of requests that the model's server has refused so far because it was
    /// receiving too many.
    fn refusals(&self) -> u64 {
        0
    }
}

/// What an attempt needs to know about its batch.
pub struct Context<'a> {
    /// The batch folder.
    pub folder: &'a Path,
    /// Where the records go.
    pub sink: &'a dyn Sink,
    /// Whether running attempts must end soon.
    pub stopped: watch::Receiver<bool>,
    /// Reports an event.
    pub report: &'a dyn Fn(Event<'_>),
}

impl Context<'_> {
    /// Waits until running attempts must end.
    pub async fn interrupted(&self) {
        raised(self.stopped.clone()).await;
    }
}

/// Runs the attempts from a source until no more will start and all of them have ended.
///
/// # Errors
/// If a record cannot be written. The source is then stopped, and the error is returned once the
/// running attempts have ended.
pub async fn drive<S: Source>(
    source: &S,
    attempt: impl AsyncFn(S::Job) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut running = FuturesUnordered::new();
    let (mut more, mut failed) = (true, None);
    while more || !running.is_empty() {
        let count = running.len();
        tokio::select! {
            biased;
            Some(ended) = running.next() => if let Err(e) = ended {
                failed.get_or_insert(e);
                source.stop();
            },
            job = source.next(count), if more => match job {
                Some(job) => running.push(attempt(job).boxed_local()),
                None => more = false,
            },
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Waits until the value is true, or forever if the sender is gone.
pub(crate) async fn raised(mut interrupt: watch::Receiver<bool>) {
    if interrupt.wait_for(|raised| *raised).await.is_err() {
        std::future::pending().await
    }
}
