//! Many tasks: task files, scheduling, results.
//!
//! [`tasks::read`] parses a task file or folder into [`Task`]s, or reports all of its problems at
//! once. [`Selection`] selects and orders them. [`run`] runs them with a [`Runner`], several at a
//! time. Each attempt gets its own worktree, so that the user's tree, index and HEAD never change,
//! and leaves one record. The result is a [`Summary`]. [`Folder::read`] reads the folder of a
//! batch, also while it runs.
//!
//! ```text
//! task file ─► tasks::read ─► Selection ─► run ─► started ─► worktree ─► Runner ─► finished ─► Summary, exit code
//!                                       ▲      (attempts.jsonl)                 (results.jsonl)
//!                                       └── results already in the folder: not repeated
//! ```
//!
//! The folder of a batch:
//!
//! | file | contents |
//! |---|---|
//! | `attempts.jsonl` | a [`Started`] for each attempt, on disk before the attempt has any effect |
//! | `results.jsonl` | a [`Finished`] for each attempt that ended, whatever its ending |
//! | `predictions.jsonl` | the last patch of each task in SWE-bench's format, rebuilt from the results |
//! | `summary.json` | the [`Summary`], rebuilt from the results |
//! | `summary.md`, `junit.xml`, `report.html` | views of the results, written by the binary with the crate `report` |
//! | `worktrees/` | the trees of running attempts |
//! | `repositories/` | bare clones of repositories that tasks name by URL or as a bundle |
//! | `lock` | the process that uses the folder |
//!
//! A task is done once one attempt ended by the agent's own decision. Infrastructure failures
//! ([`journal::Ending::is_infrastructure`]) and killed attempts never count as done.

mod check;
mod clones;
mod due;
mod error;
mod event;
mod folder;
mod git;
mod merge;
mod predictions;
mod record;
mod run;
mod schedule;
mod selection;
mod stop;
mod store;
mod summary;
mod task;
pub mod tasks;
mod worktree;

pub use check::check;
pub use error::Error;
pub use event::Event;
pub use folder::{Folder, State};
pub use merge::merge;
pub use record::{Finished, Started};
pub use run::{Attempt, BatchLimits, BatchOptions, Runner, run};
pub use selection::{Filter, Selection, Shard, Slice};
pub use stop::Stop;
pub use store::replace;
pub use summary::{Row, Summary};
pub use task::{Task, TaskLimits};
