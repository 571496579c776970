//! The `agent` binary: turns flags into settings, settings into calls, and results into text and
//! one exit code.

mod cli;
mod commands;
mod commit;
mod confinement;
mod console;
mod context;
mod dry_tree;
mod edit_format;
#[cfg(feature = "embedded")]
mod embedded;
mod exit;
mod first_run;
mod flags;
mod gate;
mod hooks;
mod images;
mod interrupt;
mod language_servers;
mod layers;
mod leftovers;
mod masking;
mod mcp_servers;
mod model;
mod model_store;
mod other_model;
mod output;
mod pager;
mod profiles;
mod progress;
mod protected;
mod recovery;
mod render;
mod replay;
mod repository;
mod session;
mod settings;
mod setup;
mod skills;
mod task;
mod telemetry;
mod waiting;
mod worktree;

use std::process::ExitCode;

use clap::Parser;
use preview::{Style, figures, sanitize};

use crate::cli::Cli;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::layers::Environment;

fn main() -> ExitCode {
    // The sandbox starts this binary again for each command.
    if std::env::args_os().nth(1).is_some_and(|first| first == confinement::LAUNCHER) {
        return sandbox::launcher_main();
    }
    #[cfg(feature = "embedded")]
    if std::env::args_os().nth(1).is_some_and(|first| first == embedded::TRIAL) {
        return embedded::trial(std::env::args_os().nth(2));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output; a closed pipe is not an error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = run(cli);
    #[cfg(feature = "embedded")]
    engine::close();
    match result {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn run(cli: Cli) -> Result<Exit> {
    let environment = Environment::new(std::env::vars_os());
    // Diagnostics go to standard error. The filter is, for example, `debug` or `models=trace`.
    if let Some(filter) = environment.variables.get("AGENT_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    if let Some(server) = environment.get(commands::mcp::serve::SERVED_BY) {
        commands::mcp::serve::end_with_server(server);
    }
    if let Some(directory) = &cli.directory {
        std::env::set_current_dir(directory)
            .map_err(|e| Failure::misuse(format!("cannot change to {}: {e}", directory.display())))?;
    }
    let context = Context::new(environment)?;
    commands::dispatch(cli.command, &context)
}

/// Prints the failure and its hints.
fn report(failure: &Failure) -> ExitCode {
    let paint = console::stderr_paint();
    let mut text = String::new();
    for cause in failure.error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            // The messages of some errors already contain their source.
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    // The message may quote a secret.
    let secrets = masking::of_variables(&Environment::new(std::env::vars_os()));
    let masked = |text: &str| sanitize::text(&masking::known_masked(&secrets, text)).into_owned();
    console::say(format_args!("{} {}", paint.paint(Style::Bad, "error:"), masked(&text)));
    for hint in &failure.hints {
        console::say(format_args!("{} {}", paint.paint(Style::Call, "hint:"), masked(hint)));
    }
    ExitCode::from(failure.ending.exit_code())
}
