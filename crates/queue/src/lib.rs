//! Runs batches on several machines, over NATS JetStream.
//!
//! A [`Publisher`] is a [`batch::Place`]: it sends each task to the queue and waits for the result,
//! so a batch's schedule, limits and folder are the same as on a single machine. [`work`] is the
//! other end: it takes tasks from the queue and runs the attempts in another place, normally
//! [`batch::Here`].
//!
//! ```text
//!         agent.tasks.BATCH.TASK.VERSION                    agent.results.BATCH
//! Publisher ─► stream AGENT_TASKS ─► worker ─► outbox ─► stream AGENT_RESULTS ─► Publisher ─► batch folder
//! ```
//!
//! | on the server | contents |
//! |---|---|
//! | stream `AGENT_TASKS` | tasks that no worker has finished; each is removed when its worker acknowledges it |
//! | stream `AGENT_RESULTS` | records of attempts; each is removed once it is in the batch folder |
//! | stream `AGENT_DEAD` | tasks that several workers took without returning a result; kept for 30 days so that someone can inspect them |
//! | object store `AGENT_BATCH` | repository bundles, sessions that workers send to the publisher, records that are too large for a message, and a marker if the batch is canceled |
//!
//! Guarantees that hold no matter what crashes:
//!
//! - A worker acknowledges a task after its result is in `AGENT_RESULTS`, and the publisher
//!   acknowledges a result after it is on disk, so nothing is lost.
//! - A worker that stops sending heartbeats loses its task after [`WorkerOptions::lease`]. The next
//!   worker counts the redelivery as another attempt, so the first one shows up as interrupted.
//! - A result for a task that already has one is dropped, so every task has exactly one result.
//! - A worker keeps its records on disk until the queue has them, even across restarts.

mod archive;
mod connect;
mod error;
mod mailbox;
mod message;
mod outbox;
mod publisher;
mod receiver;
mod take;
mod worker;

pub use connect::{Address, Queue};
pub use error::Error;
pub use publisher::Publisher;
pub use worker::{WorkerOptions, work};
