//! A recorded session run again, offline: the same planner with the recorded answers of the model, in a tree of its own, its events held against the
//! recorded ones until the first that differs.
//!
//! ```text
//!   session on this machine ─► gather ─┐                            ┌─► model   answers from the record
//!                                      ├─► Bundle ─► Recording ─► Script ─► tools   files for real, commands from the record
//!   exported file ─────────► bundle ───┘        │                   └─► verifier   from the record
//!                                               └─► a tree in a temporary folder
//! ```
//!
//! A session of this machine goes the way of an exported one: what an export would hold is gathered in memory, and that is replayed.

pub(crate) mod bundle;
pub(crate) mod difference;
mod edges;
pub(crate) mod gather;
mod perform;
pub(crate) mod recording;
mod script;
mod volatile;

pub(crate) use perform::{Outcome, Source, Wish, perform};
