//! One module per command or group of commands. The two commands whose output clap generates have
//! no module.

mod acp;
mod batch;
pub(crate) mod changes;
mod compare;
mod config;
mod doctor;
mod export;
pub(crate) mod mcp;
pub(crate) mod models;
mod parse;
pub(crate) mod patch;
mod replay;
mod report;
pub(crate) mod resume;
pub(crate) mod run;
mod sandbox;
mod sessions;
mod tools;
mod worker;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Result};

/// Runs a command.
///
/// # Errors
/// If the command fails.
pub(crate) fn dispatch(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Run(command) => run::run(command, context),
        Command::Ask(command) => run::ask(command, context),
        Command::Resume(command) => resume::run(command, context),
        Command::Replay(command) => replay::run(command, context),
        Command::Acp(command) => acp::run(command, context),
        Command::Batch(command) => batch::run(&command, context),
        Command::Worker(command) => worker::run(&command, context),
        Command::Report(command) => report::run(&command, context),
        Command::Compare(command) => compare::run(&command),
        Command::Patch(command) => patch::run(command, context),
        Command::Diff(command) => changes::diff(&command, context),
        Command::Apply(command) => changes::apply(command, context),
        Command::Undo(command) => changes::undo(command, context),
        Command::Sessions(command) => sessions::run(command, context),
        Command::Models(command) => models::run(command, context),
        Command::Tools(command) => tools::run(command, context),
        Command::Mcp(command) => mcp::run(command, context),
        Command::Parse(command) => parse::run(&command, context),
        Command::Sandbox(command) => sandbox::run(&command, context),
        Command::Doctor(command) => doctor::run(&command, context),
        Command::Config(command) => config::run(command, context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "agent", &mut script);
            console::print(script)?;
            Ok(Exit::Success)
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(&folder)?;
            clap_mangen::generate_to(Cli::command(), folder)?;
            Ok(Exit::Success)
        }
    }
}
