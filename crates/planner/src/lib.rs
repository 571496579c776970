//! Works on a task until the run reaches an [`Ending`]. This crate contains the
//! prompts, turns, budgets, guards and verification.
//!
//! The planner is a pure turn machine ([`machine`]) and a thin driver ([`driver`]). The machine
//! receives `Input`s (such as an answer with the results of its calls, or a message from the user)
//! and decides the next step, such as asking the model, writing a file or finishing. It does no
//! I/O. The driver carries out each step: it streams an answer through [`answer`], which validates
//! each call while the model is writing it and decides when to cut the answer off. The driver also
//! runs tools, and writes each event to the journal before its effect.
//!
//! ```text
//!      ┌──────────────────────── Input ────────────────────────────┐
//!      ▼                                                           │
//!    machine ──► Step::Ask ──► Model ► answer ► tools ► Verifier ──┘
//!    (pure)      Step::Write ────► tools ► Verifier
//!                Step::Finish ───► Report
//! ```
//!
//! Everything the planner needs from the outside world is passed in as [`Parts`]. A live run, a dry
//! run, a replay and a test differ only in these parts.
//!
//! A run can be resumed from its journal at any point ([`resume`]), and the user can add to the
//! task at any time ([`Inbox`]).

mod answer;
mod approach;
mod blocks;
mod branches;
mod budget;
mod calls;
mod change_model;
mod compaction;
mod driver;
mod effects;
mod finish_tool;
mod focus;
mod guards;
pub mod judge;
mod machine;
mod opening;
mod prompts;
mod resume;
mod settings;
mod tries;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use journal::{Check, Diff, Ending, ModelRole};
use models::{Image, Model};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tool_api::Registry;

pub use budget::{estimated_tokens, totals};
pub use driver::{replay, resume, run};
pub use finish_tool::{Finish, finish_tool};
pub use opening::read_opening_files;
pub use settings::{Approach, Constrain, Cut, Limits, Settings};

/// A task and how to work on it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task, as written by the user.
    pub task: String,
    /// The task's images, which are part of the first message.
    pub images: Vec<Arc<Image>>,
    /// How to work on the task.
    pub settings: Settings,
    /// A one-line explanation, for the journal, of why the run starts with this model.
    pub why_model: String,
    /// The setting that specifies the model; `None` if the model is the session's first choice.
    pub role: Option<ModelRole>,
}

/// The planner's connections to the outside world.
pub struct Parts {
    /// The opened model.
    pub model: Box<dyn Model>,
    /// The model that makes the final try, if [`Settings::escalates`] is set.
    pub escalation: Option<Box<dyn OpenModel>>,
    /// The fallback model, which takes over if a model's server is unavailable.
    pub fallback: Option<Box<dyn OpenModel>>,
    /// The tools, in the order they are shown to the model. One of them, [`Finish`], ends the run.
    pub tools: Registry,
    /// The tree that the run works on.
    pub repository: Arc<dyn Repository>,
    /// Decides whether the task is done. `None` if there is no test command.
    pub verifier: Option<Arc<dyn Verifier>>,
    /// The user's messages during the run; `VecDeque::new()` for none.
    pub inbox: Box<dyn Inbox>,
    /// Becomes true when the run must stop.
    pub interrupt: tokio::sync::watch::Receiver<bool>,
}

/// A model that is opened only if the run switches to it.
#[async_trait]
pub trait OpenModel: Send + Sync {
    /// Opens the model. The previous model has already been closed, because memory might not have
    /// room for both.
    ///
    /// # Errors
    /// If the model cannot be opened. The error contains the reason, along with the ending for a
    /// run that cannot continue without this model.
    async fn open(&self) -> Result<OpenedModel, (Ending, String)>;
}

/// A model that was opened during a run.
pub struct OpenedModel {
    /// The model.
    pub model: Box<dyn Model>,
    /// A one-line explanation, for the journal, of why this model was chosen.
    pub why: String,
    /// Warnings about settings that the model does not support.
    pub warnings: Vec<String>,
}

/// The source of user messages during a run. The planner checks it before each request and before
/// the run ends. Each message is added to the conversation as a new task and resets the limits.
///
/// ```
/// use planner::Inbox;
/// let (sender, mut inbox) = tokio::sync::mpsc::unbounded_channel();
/// sender.send("also update the docs".to_owned())?;
/// assert_eq!(inbox.take().as_deref(), Some("also update the docs"));
/// assert_eq!(inbox.take(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Inbox: Send {
    /// Returns the next message, if there is one. Does not wait.
    fn take(&mut self) -> Option<String>;
}

/// Messages known in advance.
impl Inbox for VecDeque<String> {
    fn take(&mut self) -> Option<String> {
        self.pop_front()
    }
}

/// Messages from a program that embeds the planner and may send them at any time.
impl Inbox for UnboundedReceiver<String> {
    fn take(&mut self) -> Option<String> {
        self.try_recv().ok()
    }
}

/// A file in the repository with instructions for agents (`AGENTS.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instructions {
    /// Path of the file, relative to the root.
    pub path: String,
    /// Text of the file.
    pub text: String,
}

/// The tree that the run works on. Calls block, so the driver runs long ones on another thread.
pub trait Repository: Send + Sync {
    /// Returns the paths of the project's files, excluding ignored files. The paths are sorted and
    /// relative to the root, with `/` as the separator. Their number is limited, and the flag is
    /// `true` if some were omitted.
    fn files(&self) -> (Vec<String>, bool);
    /// Returns the content of a text file of at most `limit` bytes, or `None` for anything else.
    fn read(&self, path: &str, limit: u64) -> Option<String>;
    /// Whether the model may change this file. If not, the model is not asked to correct it.
    fn may_change(&self, _path: &str) -> bool {
        true
    }
    /// Returns a map of the code for a task that does not name a file: the files that the task is
    /// most likely about, along with their most important definitions, in at most `max_bytes`
    /// bytes. Returns `None` if the task names a file or the run does not show a map. If `stop`
    /// becomes true, the call returns promptly.
    fn map(&self, _task: &str, _max_bytes: usize, _stop: &AtomicBool) -> Option<String> {
        None
    }
    /// Returns the instruction files from the root down to the working directory, in that order.
    fn instructions(&self) -> Vec<Instructions>;
    /// Records the original tree, which [`Repository::diff`] compares against. The driver calls
    /// this once, in the background, and waits for the call to return before the first effect.
    ///
    /// # Errors
    /// When the tree cannot be recorded. The run stops before it changes anything.
    fn remember(&self) -> Result<(), String>;
    /// Attributes all subsequent changes to this turn.
    fn turn(&self, _turn: u32) {}
    /// Called before a command runs. [`Repository::after_command`] always follows and records what
    /// the command changed.
    ///
    /// # Errors
    /// When the command's changes could not be recorded. The run stops before the command starts.
    fn before_command(&self) -> Result<(), String> {
        Ok(())
    }
    /// Called after the command has ended or has been stopped. If the command changed anything,
    /// returns the number of its record in the history.
    ///
    /// # Errors
    /// When the command's changes cannot be recorded. The run stops.
    fn after_command(&self) -> Result<Option<u64>, String> {
        Ok(None)
    }
    /// Returns the number of the last record in the history, or 0 if there is none.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn last_record(&self) -> Result<u64, String> {
        Ok(0)
    }
    /// Returns the number of the last record in the history if that record is a revert, or `None`
    /// otherwise.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn last_revert(&self) -> Result<Option<u64>, String> {
        Ok(None)
    }
    /// Returns the record number of one of the edits in a turn. The first edit of the turn has
    /// index 0, and edits that were rolled back are skipped. Returns `None` if there is no such
    /// edit.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn edit(&self, _turn: u32, _index: usize) -> Result<Option<u64>, String> {
        Ok(None)
    }
    /// Keeps the first `done` edits of a turn and rolls back the others, which the run had not
    /// journaled when it was interrupted.
    ///
    /// # Errors
    /// If an edit cannot be rolled back because somebody else has changed the file.
    fn roll_back(&self, _turn: u32, _done: usize) -> Result<(), String> {
        Ok(())
    }
    /// Reverts this record and all later records in the history, including changes made by
    /// commands. If the revert changed anything, returns the number of the record that it created.
    /// Repeating the call changes nothing and returns the same number.
    ///
    /// # Errors
    /// If somebody else has changed one of the files. In that case, nothing is changed.
    fn revert_from(&self, record: u64) -> Result<Option<u64>, String>;
    /// Whether anything differs from the tree recorded by [`Repository::remember`], including
    /// ignored files that were edited.
    fn changed(&self) -> bool {
        self.diff().is_ok_and(|diff| !diff.files.is_empty())
    }
    /// Returns the total number of lines added and removed since [`Repository::remember`].
    fn changed_lines(&self) -> u64 {
        self.diff().map_or(0, |diff| diff.added + diff.removed)
    }
    /// Returns the changes since [`Repository::remember`], computed from the tree itself.
    ///
    /// # Errors
    /// When the diff cannot be computed.
    fn diff(&self) -> Result<Diff, String>;
}

/// Runs a command to decide whether the task is done.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Returns the command as a user would type it.
    fn command(&self) -> String;
    /// Runs the command. The check fails if the command takes longer than `limit`.
    ///
    /// # Errors
    /// When the command could not be run at all, for example because there is no sandbox. The run
    /// stops.
    async fn verify(&self, limit: Option<Duration>) -> Result<Check, String>;
}
