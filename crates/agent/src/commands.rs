//! One module per command.

mod completions;
mod config;
mod sessions;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};

/// Carries out what was asked for.
///
/// # Errors
/// As the command says.
pub(crate) fn dispatch(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Sessions(command) => sessions::run(command, context),
        Command::Config(command) => config::run(command, context),
        Command::Completions { shell } => completions::run(shell),
        _ => Err(Failure::misuse("not there yet")),
    }
}
