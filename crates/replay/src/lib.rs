//! Replays a recorded session: the planner runs in a separate tree and receives the recorded
//! answers, and its events are compared with the recorded ones up to the first difference.
//!
//! ```text
//!   session on this machine ─► gather ─┐                            ┌─► model   answers from the record
//!                                      ├─► Bundle ─► Recording ─► Script ─► tools   files run, commands from the record
//!   exported file ─────────► bundle ───┘                            └─► verifier   from the record
//! ```
//!
//! A session on this machine is replayed like an exported one: [`gather`] first turns it into a
//! [`Bundle`], as an export would. The caller passes [`RecordedModel`], [`ReplayedTool`],
//! [`ReplayedChecks`] and [`ReplayedTree`] to the planner, and the planner's events to
//! [`Script::observe`].

mod bundle;
mod difference;
mod edges;
mod gather;
mod recording;
mod script;
mod volatile;

pub use bundle::{Bundle, CONTENTS_LIMIT, unhex};
pub use difference::{Difference, Kind};
pub use edges::{
    RecordedLater, RecordedModel, RecordedUser, ReplayedChecks, ReplayedTool, ReplayedTree, Source, Stage,
};
pub use gather::{Gathered, gather};
pub use recording::{Recording, answer};
pub use script::{Changes, Comparison, Script};

/// The field in a call's facts that indicates that a gate, such as one of the user's hooks, vetoed
/// the call. A replay repeats the veto instead of running the call.
pub const VETOED: &str = "vetoed";

/// Why a session cannot be replayed or exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session or the file cannot be replayed. The text explains why.
    #[error("{0}")]
    Unusable(String),
    /// The repository of the session no longer exists.
    #[error("the repository {} no longer exists", .0.display())]
    NoRepository(std::path::PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    fn unusable(why: impl std::fmt::Display) -> Self {
        Self::Unusable(why.to_string())
    }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
