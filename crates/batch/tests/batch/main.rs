//! Tests the crate from outside, with a scripted runner instead of an agent, real git and real
//! files.

#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod limits;
mod results;
mod scheduling;
mod setups;
mod support;
mod task_files;
mod worktrees;
