//! Traits for where attempts come from, where they run, and where their records go. A batch on one
//! machine, a batch that hands its tasks to a queue, and a worker of a queue differ only in the
//! implementations of these traits.
//!
//! | | [`Source`] | [`Place`] | [`Sink`] |
//! |---|---|---|---|
//! | `agent batch` | the task file and the schedule | [`Here`](crate::Here): a worktree | the folder of the batch |
//! | `agent batch --queue` | the task file and the schedule | the queue: publishes the task and waits for its result | the folder of the batch |
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
    /// The number of the attempt, counted from 1 per task.
    pub attempt: u32,
}

/// Where attempts come from.
pub trait Source {
    /// The description of an attempt.
    type Job;

    /// Returns the next attempt to start, or `None` if no more will start. Waits while no attempt
    /// may start. `running` is the number of running attempts. If the future is dropped, no attempt
    /// is lost.
    fn next(&self, running: usize) -> LocalBoxFuture<'_, Option<Self::Job>>;

    /// Ensures that no more attempts start and that running ones are interrupted.
    fn stop(&self);
}

/// Where the records of attempts go.
pub trait Sink {
    /// Records that an attempt starts; the record is on disk when this returns.
    fn started(&self, started: Started) -> LocalBoxFuture<'_, Result<(), Error>>;

    /// Records how an attempt ended; the record is on disk when this returns. `may_help` says
    /// whether a retry could end differently.
    fn finished(&self, finished: Finished, may_help: bool) -> LocalBoxFuture<'_, Result<(), Error>>;
}

/// Where attempts run.
pub trait Place {
    /// Gets ready before the first attempt. The folder of the batch is already locked.
    fn prepare<'a>(&'a self, _batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        std::future::ready(Ok(())).boxed_local()
    }

    /// Makes one attempt, from its first record to its last. If the batch stops before the attempt
    /// starts, the attempt leaves no record. An error means that a record could not be written.
    fn attempt<'a>(&'a self, job: Job<'a>, batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>>;

    /// How many requests the model's server has refused so far because it had too many.
    fn refusals(&self) -> u64 {
        0
    }
}

/// What an attempt needs to know about its batch.
pub struct Context<'a> {
    /// The folder of the batch.
    pub folder: &'a Path,
    /// Where the records go.
    pub sink: &'a dyn Sink,
    /// Whether running attempts have to end soon.
    pub stopped: watch::Receiver<bool>,
    /// Reports an event.
    pub report: &'a dyn Fn(Event<'_>),
}

impl Context<'_> {
    /// Waits until running attempts have to end.
    pub async fn interrupted(&self) {
        raised(self.stopped.clone()).await;
    }
}

/// Makes the attempts of a source until no more will start and all attempts have ended.
///
/// # Errors
/// When a record cannot be written. The source is then stopped, and the error is returned once the
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

/// Waits until the value is true; forever if the sender is gone.
pub(crate) async fn raised(mut interrupt: watch::Receiver<bool>) {
    if interrupt.wait_for(|raised| *raised).await.is_err() {
        std::future::pending().await
    }
}
