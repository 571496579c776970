//! Many tasks: task files, scheduling, results.
//!
//! [`tasks::read`] turns a task file or folder into [`Task`]s, or says everything that is wrong with it at once. [`run`] works them
//! off with a [`Runner`], several at a time: each attempt gets a worktree of its own, so that the user's tree, index and HEAD never
//! change, and leaves one record. What is known afterwards is a [`Summary`].
//!
//! ```text
//! task file ─► tasks::read ─► [Task] ─► run ─► started ─► worktree ─► Runner ─► finished ─► Summary, exit code
//!                                       ▲      (attempts.jsonl)                 (results.jsonl)
//!                                       └── what the folder already holds: done is done
//! ```
//!
//! The folder of a batch:
//!
//! | file | holds |
//! |---|---|
//! | `attempts.jsonl` | a [`Started`] for each attempt, on disk before the attempt takes any effect |
//! | `results.jsonl` | a [`Finished`] for each attempt that ended, whatever its ending; append-only, one write and one sync each |
//! | `predictions.jsonl` | the last patch of each task in SWE-bench's format, rebuilt from the results |
//! | `summary.json` | the [`Summary`], rebuilt from the results |
//! | `worktrees/` | the trees that are being worked on |
//! | `lock` | who writes the folder |
//!
//! A task is done when an attempt at it ended by the agent's own doing. Failures of the infrastructure
//! ([`journal::Ending::is_infrastructure`]) and attempts that a kill cut off never count as done.

mod error;
mod event;
mod git;
mod predictions;
mod record;
mod run;
mod store;
mod summary;
mod task;
pub mod tasks;
mod worktree;

pub use error::Error;
pub use event::Event;
pub use record::{Finished, Started};
pub use run::{Attempt, BatchOptions, Runner, run};
pub use summary::{Row, Summary};
pub use task::{Task, TaskLimits};
