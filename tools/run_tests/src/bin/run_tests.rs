//! `run_tests DIRECTORY [COMMAND]`: runs the tests in a folder and prints the text that a model
//! would see. Used when developing the tool.

use std::{io::Write, process::ExitCode, time::Duration};

use sandbox::{Policy, Sandbox, clean_environment};
use secrets::Secrets;
use tool_api::Status;
use tool_run_tests::{Options, RunTests};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or(".".into());
    if first == "__sandbox" {
        return sandbox::launcher_main();
    }
    let command = arguments.next().and_then(|line| line.into_string().ok());
    match run(first.into(), command) {
        Ok(Status::Ok) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "{e}");
            ExitCode::from(2)
        }
    }
}

fn run(root: std::path::PathBuf, command: Option<String>) -> Result<Status, Box<dyn std::error::Error>> {
    let env = clean_environment(std::env::vars_os(), &[]);
    let sandbox =
        Sandbox::new(Policy { env, ..Policy::new(root) }, vec!["/proc/self/exe".into(), "__sandbox".into()])?;
    let logs = tempfile::tempdir()?;
    let options = Options {
        command,
        log_dir: logs.path().into(),
        timeout: Duration::from_secs(600),
        secrets: Secrets::disabled(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome =
        runtime.block_on(RunTests::new(sandbox, options).verify(None))?.ok_or("no test command was found")?;
    writeln!(std::io::stdout(), "{}\n\n{}", outcome.text, outcome.facts)?;
    Ok(outcome.status)
}
