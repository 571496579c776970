//! One module per command.

mod batch;
pub(crate) mod changes;
mod completions;
mod config;
mod doctor;
mod export;
mod man;
pub(crate) mod models;
mod parse;
pub(crate) mod patch;
mod replay;
mod resume;
pub(crate) mod run;
mod sandbox;
mod sessions;
mod tools;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::{Exit, Result};

/// Runs a command.
///
/// # Errors
/// If the command fails.
pub(crate) fn dispatch(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Run(command) => run::run(command, context),
        Command::Resume(command) => resume::run(command, context),
        Command::Replay(command) => replay::run(command, context),
        Command::Batch(command) => batch::run(&command, context),
        Command::Patch(command) => patch::run(command, context),
        Command::Diff(command) => changes::diff(&command, context),
        Command::Apply(command) => changes::apply(command, context),
        Command::Undo(command) => changes::undo(command, context),
        Command::Sessions(command) => sessions::run(command, context),
        Command::Models(command) => models::run(command, context),
        Command::Tools(command) => tools::run(command, context),
        Command::Parse(command) => parse::run(&command, context),
        Command::Sandbox(command) => sandbox::run(&command, context),
        Command::Doctor(command) => doctor::run(&command, context),
        Command::Config(command) => config::run(command, context),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { folder } => man::run(&folder),
    }
}
