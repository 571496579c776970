//! Runs many tasks: reads task files, schedules attempts and records results.
//!
//! [`tasks::read`] parses a task file or folder into [`Task`]s, or reports all of its problems at
//! once. [`Selection`] selects and orders them. [`run`] attempts the tasks, several at a time. A
//! [`Place`] is where attempts run. [`Here`] runs them on this machine: each attempt uses a
//! [`Runner`] in its own worktree, so the user's tree, index and HEAD never change. Each attempt
//! that ends produces one result. At the end, [`run`] returns a [`Summary`]. [`Folder::read`] reads
//! a batch folder, even while the batch is running.
//!
//! ```text
//! task file ─► tasks::read ─► Selection ─► run ─► started ─► worktree ─► Runner ─► finished ─► Summary, exit code
//!                                       ▲      (attempts.jsonl)                 (results.jsonl)
//!                                       └── results already in the folder: not repeated
//! ```
//!
//! The `queue` crate implements the [`Source`], [`Place`] and [`Sink`] traits to take attempts from
//! a queue or add them to one.
//!
//! A batch folder contains:
//!
//! | file | contents |
//! |---|---|
//! | `attempts.jsonl` | a [`Started`] for each attempt, written to disk before the attempt has any effect |
//! | `results.jsonl` | a [`Finished`] for each attempt that ended, regardless of how it ended |
//! | `settings.jsonl` | the [`Settings`] of each invocation, left out if they are the same as the previous invocation's |
//! | `predictions.jsonl` | the last patch of each task, in SWE-bench's format, rebuilt from the results |
//! | `summary.json` | the [`Summary`], rebuilt from the results |
//! | `summary.md`, `junit.xml`, `report.html` | views of the results, written by the binary with the `report` crate |
//! | `worktrees/` | the trees of running attempts |
//! | `.agent-setups/` | copies of trees, made after the setup command has run; exists only while a batch is running |
//! | `repositories/` | bare clones of repositories that tasks specify as a URL or a bundle |
//! | `lock` | the process that is using the folder |
//!
//! A task is done once the agent itself has finished one attempt, successfully or not. Attempts
//! that were killed or that failed because of the infrastructure
//! ([`journal::Ending::is_infrastructure`]) never count.

mod check;
mod clones;
mod digest;
mod due;
mod error;
mod event;
mod folder;
mod git;
mod here;
mod merge;
mod pack;
mod predictions;
mod record;
mod run;
mod schedule;
mod seam;
mod selection;
mod settings;
mod setups;
mod stop;
mod store;
mod summary;
mod task;
pub mod tasks;
mod worktree;

pub use check::check;
pub use digest::short_digest;
pub use error::Error;
pub use event::Event;
pub use folder::{Folder, State};
pub use here::{Attempt, Here, Runner};
pub use merge::merge;
pub use pack::{Packed, check_foreign, pack};
pub use record::{Finished, Started};
pub use run::{BatchLimits, BatchOptions, run};
pub use schedule::backoff;
pub use seam::{Context, Job, Place, Sink, Source, drive};
pub use selection::{Filter, Selection, Shard, Slice};
pub use settings::{Change, Settings};
pub use setups::Setup;
pub use stop::Stop;
pub use store::{remove_unfinished, replace};
pub use summary::{Row, Summary};
pub use task::{Task, TaskLimits};
pub use worktree::{Unusable, remove_folder};
