//! A recorded session as the edges of a run: the same planner gets the model's answers from the
//! record, in a tree of its own, and its events are compared with the recorded ones until the first
//! that differs.
//!
//! ```text
//!   session on this machine ─► gather ─┐                            ┌─► model   answers from the record
//!                                      ├─► Bundle ─► Recording ─► Script ─► tools   files for real, commands from the record
//!   exported file ─────────► bundle ───┘                            └─► verifier   from the record
//! ```
//!
//! A session of this machine is replayed like an exported one: [`gather`] collects in memory what
//! an export would hold. Who replays wires [`RecordedModel`], [`ReplayedTool`], [`ReplayedChecks`]
//! and [`ReplayedTree`] to the planner, and passes its events to [`Script::observe`].

mod bundle;
mod difference;
mod edges;
mod gather;
mod recording;
mod script;
mod volatile;

pub use bundle::{Bundle, CONTENTS_LIMIT};
pub use difference::{Difference, Kind};
pub use edges::{RecordedModel, RecordedUser, ReplayedChecks, ReplayedTool, ReplayedTree, Source, Stage};
pub use gather::{Gathered, gather};
pub use recording::{Recording, answer};
pub use script::{Changes, Followed, Script};

/// Why a session cannot be replayed or exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record or the file is not what a replay needs. One sentence.
    #[error("{0}")]
    Unusable(String),
    /// The repository of the session is gone.
    #[error("{} is not there any more", .0.display())]
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

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
