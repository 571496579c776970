//! `agent completions SHELL`: prints a completion script.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::console;
use crate::exit::{Exit, Result};

/// Prints the script.
pub(crate) fn run(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "agent", &mut script);
    console::print(script)?;
    Ok(Exit::Success)
}
