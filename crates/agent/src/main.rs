//! The `agent` binary: flags to settings, settings to calls, results to text and one exit code.

mod cli;
mod commands;
mod console;
mod context;
mod exit;
mod layers;
mod render;
mod sanitize;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::console::{Paint, Style};
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::layers::Environment;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to standard output; a reader that has gone away is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn run(cli: Cli) -> Result<Exit> {
    let environment = Environment::new(std::env::vars_os());
    let context = Context::new(environment, cli.directory.as_deref())?;
    commands::dispatch(cli.command, &context)
}

/// The failure, then what to do about it.
fn report(failure: &Failure) -> ExitCode {
    let paint = Paint::stderr();
    let mut text = String::new();
    for cause in failure.error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            // An error that repeats its source says it once.
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    console::say(format_args!("{} {}", paint.paint(Style::Bad, "error:"), sanitize::text(&text)));
    for hint in &failure.hints {
        console::say(format_args!("{} {}", paint.paint(Style::Call, "hint:"), sanitize::text(hint)));
    }
    ExitCode::from(failure.ending.exit_code())
}
