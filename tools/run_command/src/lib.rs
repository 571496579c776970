//! The run_command tool: runs one shell line in the sandbox, in the work tree.
//!
//! The model sees how the command ended, followed by the start and the end of its output. The
//! complete output is written to a log file.

mod aliases;
mod patch_command;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sandbox::{
    Captured, Command, Finished, Level, Network, OutputLimits, Sandbox, SandboxError, Status, guard,
};
use schemars::JsonSchema;
use secrets::Secrets;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};

/// The part of the output that the model sees: 4 KiB or 60 lines at each end, whichever is less.
/// That is at most about 2,500 tokens.
const SHOWN: OutputLimits = OutputLimits {
    head_bytes: 4 << 10,
    head_lines: 60,
    tail_bytes: 4 << 10,
    tail_lines: 60,
    log_bytes: 16 << 20,
    total_bytes: 256 << 20,
};

/// Arguments of `run_command`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// For `sh -c`, in the repository root.
    command: String,
    /// The folder of the repository to run it in. Not in the description, but accepted, because
    /// models that know other agents send it.
    #[schemars(extend("hidden" = true))]
    workdir: Option<String>,
}

/// Options for the commands of a session.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to store the full output of each run, as `command-N.log`.
    pub log_dir: PathBuf,
    /// The time limit for each command.
    pub timeout: Duration,
    /// The secrets to mask in the output before it is truncated.
    pub secrets: Secrets,
}

/// The run_command tool.
#[derive(Debug)]
pub struct RunCommand {
    sandbox: Sandbox,
    options: Options,
    runs: AtomicU32,
}

impl RunCommand {
    /// Creates the tool for the work tree of a sandbox.
    #[must_use]
    pub fn new(sandbox: Sandbox, options: Options) -> Self {
        Self { sandbox, options, runs: AtomicU32::new(0) }
    }

    /// Resolves the folder in the work tree where a command should run.
    fn folder(&self, given: &str) -> Result<PathBuf, String> {
        let root = self.sandbox.root();
        let real = |path: &Path| path.canonicalize().ok();
        match (real(root), real(&root.join(given.trim()))) {
            (Some(root), Some(folder)) if folder.starts_with(&root) && folder.is_dir() => Ok(folder),
            (_, None) => Err(format!("workdir: there is no folder {given:?}")),
            _ => {
                Err(format!("workdir: {given:?} is not a folder of the repository; commands run in its root"))
            }
        }
    }

    /// Returns the output with secrets masked. Also removes the words next to omitted output,
    /// because half a secret would not be recognized.
    fn shown(&self, output: &Captured) -> String {
        /// The longest word to remove, in bytes.
        const WORD: usize = 512;
        let secrets = &self.options.secrets;
        if !secrets.is_enabled() || output.omitted.is_none() {
            return secrets.mask(&output.text()).into_owned();
        }
        let mut output = output.clone();
        let cut = |b: &u8| b.is_ascii_whitespace();
        if let Some(word) = output.head.iter().rev().take(WORD).position(cut) {
            output.head.truncate(output.head.len() - word);
        }
        if output.tail.len() >= SHOWN.tail_bytes
            && let Some(word) = output.tail.iter().take(WORD).position(cut)
        {
            output.tail.drain(..word);
        }
        secrets.mask(&output.text()).into_owned()
    }

    fn outcome(&self, line: &str, finished: &Finished) -> Outcome {
        let seconds = self.options.timeout.as_secs();
        let how = match finished.status {
            Status::Exited(0) => "Exit code 0.".to_owned(),
            Status::Exited(code) => format!("Failed with exit code {code}."),
            Status::Signaled(signal) => format!("Killed by signal {signal}."),
            Status::TimedOut => format!(
                "Stopped after {seconds} s. A command must exit by itself and gets no input; do not start servers or watchers."
            ),
            Status::LimitReached => {
                "Stopped because it printed too much. Send the output to a file or filter it.".to_owned()
            }
            Status::OutOfMemory => "Stopped because it used too much memory.".to_owned(),
            Status::TooManyProcesses => "Stopped because it started too many processes.".to_owned(),
        };
        let output = &finished.output;
        let mut text = how;
        if output.total_bytes == 0 {
            text.push_str(" No output.");
        } else {
            text.push('\n');
            text.push_str(self.shown(output).trim_end());
        }
        // The log's path is not shown, because the model cannot read the file.
        if output.omitted.is_some() {
            text.push_str(&format!("\n[{} lines; narrow the command to see others]", output.total_lines));
        }
        for line in &finished.refused {
            text.push_str(&format!("\n[{line}]"));
        }
        let outcome = if finished.status.success() { Outcome::ok(text) } else { Outcome::failed(text) };
        let facts = json!({
            "command": line,
            "exit_code": finished.status.code(),
            "timed_out": finished.status == Status::TimedOut,
            "output_bytes": output.total_bytes,
            "log": output.log,
        });
        Outcome { facts, ..outcome }
    }
}

/// Describes the tool and the network access of its commands for the model.
fn description(sandbox: &Sandbox) -> String {
    let policy = sandbox.policy();
    if policy.level == Level::Off || policy.network == Network::Full {
        return "Run a shell command, without input.".to_owned();
    }
    if policy.hosts.is_empty() {
        return "Run a shell command, without network or input.".to_owned();
    }
    let hosts: Vec<_> = policy.hosts.iter().map(ToString::to_string).collect();
    format!("Run a shell command, without input. It can reach only {}.", hosts.join(", "))
}

fn check(line: &str) -> Result<(), String> {
    if line.trim().is_empty() {
        return Err("\"command\" is empty".into());
    }
    guard::check_line(line)
}

#[async_trait]
impl TypedTool for RunCommand {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        Spec {
            aliases: aliases::ALIASES,
            titled_by: Some("command"),
            ..Spec::of::<Arguments>("run_command", description(&self.sandbox), Effect::Execute)
        }
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value.as_str()) {
            ("command", Some(line)) => check(line),
            ("workdir", Some(folder)) => self.folder(folder).map(|_| ()),
            _ => Ok(()),
        }
    }

    fn patch_instead(&self, arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        let line = arguments.get("command").and_then(Value::as_str);
        let Some(patch) = line.and_then(patch_command::read) else { return Ok(None) };
        let folder = arguments.get("workdir").and_then(Value::as_str).map(|folder| self.folder(folder));
        if folder.transpose()?.is_some_and(|folder| self.sandbox.root().canonicalize().ok() != Some(folder)) {
            return Err("paths in a patch are relative to the repository root: leave workdir out".into());
        }
        Ok(Some(patch))
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let line = arguments.command;
        check(&line).map_err(ToolError::Model)?;
        let cwd =
            arguments.workdir.map(|folder| self.folder(&folder)).transpose().map_err(ToolError::Model)?;
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let command = Command {
            cwd,
            timeout: self.options.timeout,
            output: SHOWN,
            log: Some(self.options.log_dir.join(format!("command-{run}.log"))),
            ..Command::shell(&line)
        };
        match self.sandbox.run(command).await {
            Ok(finished) => Ok(self.outcome(&line, &finished)),
            Err(e @ SandboxError::Start { .. }) => Err(ToolError::Model(e.to_string())),
            Err(e) => Err(ToolError::Run(e.to_string())),
        }
    }
}
