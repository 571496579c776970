//! `run_command DIRECTORY COMMAND`: runs a command in a directory and prints the text that a model
//! would see. Used when developing the tool.

use std::{ffi::OsString, io::Write, process::ExitCode, time::Duration};

use sandbox::{Policy, Sandbox, clean_environment};
use secrets::Secrets;
use serde_json::json;
use tool_api::{Parsed, TypedTool};
use tool_run_command::{Options, RunCommand};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [first] if first == "__sandbox" => sandbox::launcher_main(),
        [root, line] => run(root, &line.to_string_lossy()).unwrap_or_else(|e| {
            let _ = writeln!(std::io::stderr(), "{e}");
            ExitCode::from(2)
        }),
        _ => ExitCode::from(2),
    }
}

fn run(root: &OsString, line: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let env = clean_environment(std::env::vars_os(), &[]);
    let sandbox =
        Sandbox::new(Policy { env, ..Policy::new(root) }, vec!["/proc/self/exe".into(), "__sandbox".into()])?;
    let logs = tempfile::tempdir()?.keep();
    let options = Options { log_dir: logs, timeout: Duration::from_secs(60), secrets: Secrets::disabled() };
    let tool = RunCommand::new(sandbox, options).into_tool();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(tool.call(json!({ "command": line }), Parsed::default()))?;
    writeln!(std::io::stdout(), "{}", outcome.text)?;
    Ok(ExitCode::SUCCESS)
}
