//! Runs the command that prepares a task's worktree.

use std::path::Path;
use std::time::Duration;

use batch::Setup;
use sandbox::{Command, OutputLimits, Status};

use crate::confinement;
use crate::exit::{Failure, Result};
use crate::leftovers::SANDBOX;
use crate::settings::Settings;

/// The number of bytes to keep in memory from each end of the output. The log contains all of it.
const KEPT: usize = 4096;

/// Runs the command in the same sandbox that the run will use for its commands, and keeps the
/// resulting tree for later tasks. The command's log goes to `folder`, which is the session's
/// folder. Returns a warning if the tree could not be kept.
///
/// # Errors
/// If the command cannot be run, or fails. Both are treated as infrastructure failures.
pub(crate) async fn run(
    setup: &Setup,
    settings: &Settings,
    worktree: &Path,
    folder: &Path,
) -> Result<Option<String>> {
    let line = &setup.command;
    let variables = std::env::vars_os().collect();
    let sandbox = confinement::sandbox(settings, worktree, Some(folder.join(SANDBOX)), variables)?;
    let log = folder.join("logs/setup.log");
    let command = Command {
        timeout: Duration::from_secs(settings.max_seconds),
        output: OutputLimits::bytes(KEPT),
        log: Some(log.clone()),
        ..Command::shell(line)
    };
    let finished = Box::pin(sandbox.run(command)).await.map_err(Failure::refused)?;
    let how = match finished.status {
        status if status.success() => {
            let warning = |e| format!("cannot keep the result of the setup for later tasks: {e}");
            return Ok(setup.keep().err().map(warning));
        }
        Status::Exited(code) => format!("exit code {code}"),
        Status::Signaled(signal) => format!("signal {signal}"),
        Status::TimedOut => "it ran too long".to_owned(),
        Status::LimitReached | Status::OutOfMemory | Status::TooManyProcesses => {
            "it reached a limit".to_owned()
        }
    };
    Err(Failure::misuse(format!("setup failed: `{line}`: {how}; see {}", log.display())))
}
