//! Runs batches on several machines, over NATS JetStream.
//!
//! A [`Publisher`] is a [`batch::Place`]: it sends each task to the queue and waits for the result,
//! so the schedule, the limits and the folder of a batch are the same as on one machine. [`work`]
//! is the other end: it takes tasks from the queue and makes the attempts at another place,
//! normally [`batch::Here`].
//!
//! ```text
//!         agent.tasks.BATCH.TASK.VERSION                    agent.results.BATCH
//! Publisher ─► stream AGENT_TASKS ─► worker ─► outbox ─► stream AGENT_RESULTS ─► Publisher ─► folder of the batch
//! ```
//!
//! | on the server | contents |
//! |---|---|
//! | stream `AGENT_TASKS` | tasks that no worker has finished; a task is removed when its worker acknowledges it |
//! | stream `AGENT_RESULTS` | records of attempts; a record is removed when it is in the folder of the batch |
//! | stream `AGENT_DEAD` | tasks that several workers took without returning a result; kept for 30 days, for people to examine |
//! | object store `AGENT_BATCH` | bundles of repositories, sessions that workers send to the publisher, records too large for a message, and a mark for each canceled batch |
//!
//! Guarantees, whatever crashes:
//!
//! - A worker acknowledges a task after its result is in `AGENT_RESULTS`, and the publisher
//!   acknowledges a result after it is on disk. So nothing is lost.
//! - A worker that stops sending heartbeats loses its task after [`WorkerOptions::lease`]. The next
//!   worker counts the delivery as a further attempt, so the first attempt shows up as interrupted.
//! - A result for a task that already has one is dropped. So every task has one result.
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
