//! End to end: the real binary as a child process, observed from outside.

#![allow(missing_docs)]

mod support;

mod command_line;
mod inspection;
mod models;
mod run;
mod sessions;
mod settings;
