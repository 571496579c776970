//! From a task to an [`Ending`]: prompts, turns, budgets, guards, verification.
//!
//! The planner is a pure turn machine ([`machine`]) and a thin driver ([`driver`]). The machine is fed what happened (a check's
//! result, an answer, the results of calls) and says what to do next: ask, write, finish. It knows no socket, file or clock.
//! The driver does the waiting: it streams an answer through [`answer`], which judges every call while it is being written and says
//! when to cut, runs tools, and writes each event to the journal before its effect.
//!
//! ```text
//!      ┌──────────────────────── Input ────────────────────────────┐
//!      ▼                                                           │
//!    machine ──► Step::Ask ──► Model ► answer ► tools ► Verifier ──┘
//!    (pure)      Step::Write ────► tools ► Verifier
//!                Step::Finish ───► Report
//! ```
//!
//! What the planner needs of the world comes in as [`Parts`]; a live run, a dry-run, a replay and a test differ only in them.

mod acting;
mod answer;
mod approach;
mod branches;
mod budget;
mod compaction;
mod driver;
mod finish_tool;
mod focus;
mod guards;
pub mod judge;
mod machine;
mod opening;
mod prompts;
mod resume;
mod settings;
mod taking_up;
mod turn;

use std::sync::Arc;

use async_trait::async_trait;
use journal::{Check, Diff, Ending, Totals};
use models::Model;
use serde::{Deserialize, Serialize};
use tool_api::Registry;

pub use budget::totals;
pub use driver::{replay, resume, run};
pub use finish_tool::Finish;
pub use opening::{dialect, look};
pub use settings::{Cut, Dialect, Limits, Settings};

/// What to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task, as a person wrote it.
    pub task: String,
    /// How to go about it.
    pub settings: Settings,
    /// One line on why this model was chosen, for the journal.
    pub why_model: String,
}

/// What to do it with.
pub struct Parts {
    /// The model, opened.
    pub model: Box<dyn Model>,
    /// The tools, in the order they are shown. One of them has to say that the task is done: [`Finish`].
    pub tools: Registry,
    /// The tree, for the first turn and the final diff.
    pub repository: Arc<dyn Repository>,
    /// What decides whether the task is done, where there is anything.
    pub verifier: Option<Arc<dyn Verifier>>,
    /// Becomes true when a person or the system wants the run to stop.
    pub interrupt: tokio::sync::watch::Receiver<bool>,
}

/// A file of the repository as the first turn sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Instructions for agents found in the repository (`AGENTS.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instructions {
    /// Where they stand.
    pub path: String,
    /// What they say.
    pub text: String,
}

/// The tree that is worked on. Blocking calls; the driver keeps them off the async thread where they can take long.
pub trait Repository: Send + Sync {
    /// The files a person would call part of the project (nothing ignored), sorted; bounded, with whether some were left out.
    fn files(&self) -> (Vec<FileEntry>, bool);
    /// A text file of at most `limit` bytes; `None` for anything else.
    fn read(&self, path: &str, limit: u64) -> Option<String>;
    /// Instruction files from the root down to the working directory, in that order.
    fn instructions(&self) -> Vec<Instructions>;
    /// Remembers the tree as it is, so that [`Repository::diff`] can tell what the run changed. Called once, in the background,
    /// finished before the first effect.
    ///
    /// # Errors
    /// When it cannot be done: the run stops before anything is changed.
    fn remember(&self) -> Result<(), String>;
    /// What is changed from now on belongs to this turn.
    fn turn(&self, _turn: u32) {}
    /// A command is about to run: what it changes is to be recorded by [`Repository::after_command`], which follows always.
    ///
    /// # Errors
    /// When it cannot be: the run stops before the command.
    fn before_command(&self) -> Result<(), String> {
        Ok(())
    }
    /// The command has ended, or was stopped. Returns the number of the history's record where it changed something.
    ///
    /// # Errors
    /// When what it changed cannot be recorded: the run stops.
    fn after_command(&self) -> Result<Option<u64>, String> {
        Ok(None)
    }
    /// Puts back the edits of a turn that came after the first `done`: the run was cut off before they were on record.
    ///
    /// # Errors
    /// When one cannot be put back: somebody else has changed the file.
    fn take_back(&self, _turn: u32, _done: usize) -> Result<(), String> {
        Ok(())
    }
    /// Whether anything is other than it was at [`Repository::remember`], ignored files that were edited included.
    fn changed(&self) -> bool {
        self.diff().is_ok_and(|diff| !diff.files.is_empty())
    }
    /// What changed since [`Repository::remember`], from the tree itself.
    ///
    /// # Errors
    /// When it cannot be told.
    fn diff(&self) -> Result<Diff, String>;
}

/// Decides whether the tree is as it should be.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// The command, as a person would type it.
    fn command(&self) -> String;
    /// Runs it.
    ///
    /// # Errors
    /// When it could not be run at all for reasons of our own (no sandbox): the run stops.
    async fn verify(&self) -> Result<Check, String>;
}

/// Why a run has no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be written, so nothing more may take effect.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How the run ended.
    pub ending: Ending,
    /// One sentence for people.
    pub message: String,
    /// What was changed, taken from the tree.
    pub diff: Diff,
    /// Sums.
    pub totals: Totals,
}
