//! `agent sandbox -- CMD`: runs a command in the same sandbox that a run uses.

use std::time::Duration;

use sandbox::{Command, OutputLimits, SandboxError, Status};

use crate::cli::RunInSandbox;
use crate::confinement;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::{self, Signals};
use crate::{commands, sanitize};

/// Runs the command, prints its output as it arrives, and exits with its exit code.
pub(crate) fn run(command: &RunInSandbox, context: &Context) -> Result<Exit> {
    let settings = context.resolve(&command.settings.given)?.settings()?;
    let root = commands::run::root(context)?;
    let sandbox = confinement::sandbox(&settings, &root, None, std::env::vars_os().collect())?;
    let seconds = settings.command_seconds;
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let report = sandbox.probe().await.map_err(Failure::refused)?;
        if command.explain {
            console::print(format!("{}\n", report.lines.join("\n")))?;
            return Ok(Exit::Success);
        }
        let [program, arguments @ ..] = &command.command[..] else {
            return Err(Failure::misuse("no command given"));
        };
        let order = Command {
            cwd: Some(context.directory.clone()),
            timeout: Duration::from_secs(seconds),
            output: OutputLimits { total_bytes: u64::MAX, ..OutputLimits::bytes(0) },
            // The command must continue even if the reader of standard output is gone.
            echo: Some(|bytes| drop(console::print(bytes))),
            ..Command::new(program, arguments.iter().cloned())
        };
        let finished = tokio::select! {
            finished = sandbox.run(order) => finished,
            () = signals.wait() => return Ok(Exit::Run(journal::Ending::Interrupted)),
        };
        let status = match finished {
            Ok(finished) => {
                finished.refused.iter().for_each(|line| console::say(sanitize::text(line)));
                finished.status
            }
            Err(e @ SandboxError::Start { missing, .. }) => {
                console::say(format_args!("error: {}", sanitize::text(&e.to_string())));
                return Ok(Exit::Code(if missing { 127 } else { 126 }));
            }
            Err(e) => return Err(Failure::refused(e)),
        };
        let stopped = |limit: &str| console::say(format_args!("stopped: reached the {limit}"));
        match status {
            Status::Exited(_) | Status::Signaled(_) | Status::LimitReached => {}
            Status::TimedOut => stopped(&format!("time limit of {seconds} s (--command-seconds)")),
            Status::OutOfMemory => stopped("memory limit (--command-memory)"),
            Status::TooManyProcesses => stopped("process limit (--command-processes)"),
        }
        // 124 is the exit code of timeout(1).
        Ok(Exit::Code(status.code().map_or(124, |code| u8::try_from(code).unwrap_or(u8::MAX))))
    })
}
