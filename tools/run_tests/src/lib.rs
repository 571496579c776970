//! The run_tests tool: finds the test command, runs it in the sandbox, and reports counts and
//! failures first.
//!
//! The model's calls and the planner's verification ([`RunTests::verify`]) use the same code. The
//! exit code decides whether the tests passed; the output only shows which of them failed. There is
//! one exception: if no tests ran, the result counts as a failure regardless of the exit code.

mod detect;
pub mod report;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sandbox::{Command, OutputLimits, Sandbox, SandboxError, guard};
use schemars::JsonSchema;
use secrets::Secrets;
use serde::Deserialize;
use tool_api::{Aliases, Effect, Outcome, Spec, Take, ToolError, TypedTool};

pub use detect::{TestCommand, detect};
pub use report::{Failure, TestReport};

/// Number of bytes kept for parsing at each end of the output. Compile errors are at the start,
/// failures and summaries at the end.
const KEPT: usize = 512 << 10;

/// Names that other agents use for a tool that runs tests, and for its arguments.
const ALIASES: &Aliases = &Aliases {
    tools: "run_test execute_tests test_runner",
    words: "test tests verify",
    arguments: &[
        ("cmd test_command command_line", Take::As("command")),
        ("arguments extra_args argv", Take::As("args")),
        ("environment env_vars", Take::As("env")),
        ("timeout timeout_ms timeout_secs timeout_seconds verbose coverage", Take::LeftOut),
        (
            "cwd workdir dir directory working_directory",
            Take::Only(". ./", "tests run in the repository root; name a folder in command or args"),
        ),
        (
            "background is_background run_in_background watch",
            Take::Only("", "tests must exit by themselves; leave this out"),
        ),
    ],
    convert: None,
};

/// Arguments of `run_tests`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// Overrides the test command.
    command: Option<CommandLine>,
    /// Extra arguments, e.g. one test's name.
    args: Option<Vec<String>>,
    /// Environment variables.
    env: Option<BTreeMap<String, String>>,
}

/// A command as a shell line, or as words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum CommandLine {
    Shell(String),
    Words(Vec<String>),
}

/// Options for the test runs of a session.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configured command (`--verify`), as a shell line. If there is none, the command is
    /// detected.
    pub command: Option<String>,
    /// Where to store the full output of each run, as `tests-N.log`.
    pub log_dir: PathBuf,
    /// The time limit for each run.
    pub timeout: Duration,
    /// The secrets to mask in the output before it is truncated.
    pub secrets: Secrets,
}

/// The run_tests tool.
#[derive(Debug)]
pub struct RunTests {
    sandbox: Sandbox,
    options: Options,
    runs: AtomicU32,
}

impl RunTests {
    /// Creates the tool for the work tree of a sandbox.
    #[must_use]
    pub fn new(sandbox: Sandbox, options: Options) -> Self {
        Self { sandbox, options, runs: AtomicU32::new(0) }
    }

    /// Returns the command that verifies the work tree: the configured command, if any, or else the
    /// command that is detected now.
    #[must_use]
    pub fn command(&self) -> Option<TestCommand> {
        let configured =
            self.options.command.as_ref().map(|line| TestCommand::shell(line, "the configured command"));
        configured.or_else(|| detect(self.root(), self.search_path()))
    }

    fn search_path(&self) -> &OsStr {
        let env = &self.sandbox.policy().env;
        env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new("/usr/bin:/bin"), |(_, value)| value)
    }

    /// Runs the command that [`RunTests::command`] returns, for at most `limit`. Returns `None` if
    /// there is no such command.
    ///
    /// # Errors
    /// Fails if the sandbox cannot be set up.
    pub async fn verify(&self, limit: Option<Duration>) -> Result<Option<Outcome>, ToolError> {
        match self.command() {
            Some(command) => self.run(&command, limit).await.map(Some),
            None => Ok(None),
        }
    }

    async fn run(&self, test: &TestCommand, limit: Option<Duration>) -> Result<Outcome, ToolError> {
        let (program, args) =
            test.argv.split_first().ok_or_else(|| ToolError::Model("\"command\" is empty".into()))?;
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let timeout = limit.unwrap_or(Duration::MAX).min(self.options.timeout);
        let command = Command {
            env: test.env.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect(),
            timeout,
            output: OutputLimits::bytes(KEPT),
            log: Some(self.options.log_dir.join(format!("tests-{run}.log"))),
            ..Command::new(program, args)
        };
        match self.sandbox.run(command).await {
            Ok(finished) => Ok(report::outcome(test, &finished, self.root(), timeout, &self.options.secrets)),
            Err(SandboxError::Start { program, missing, why }) => {
                let why = if missing { "not installed".to_owned() } else { why };
                let text = format!("The tests did not run: cannot start {program}: {why}.");
                Ok(Outcome { facts: report::facts(test, None, None, false), ..Outcome::failed(text) })
            }
            Err(e) => Err(ToolError::Run(e.to_string())),
        }
    }

    fn root(&self) -> &Path {
        self.sandbox.root()
    }

    /// Returns the command that a call requests.
    fn command_of(&self, arguments: Arguments) -> Result<TestCommand, ToolError> {
        match &arguments.command {
            Some(CommandLine::Shell(line)) => guard::check_line(line),
            Some(CommandLine::Words(words)) => guard::check_words(words),
            None => Ok(()),
        }
        .map_err(ToolError::Model)?;
        let mut test = match arguments.command {
            Some(CommandLine::Shell(line)) if !line.trim().is_empty() => {
                TestCommand::shell(line.trim(), "the call")
            }
            Some(CommandLine::Words(argv)) if !argv.is_empty() => {
                TestCommand { argv, env: Vec::new(), why: "the call".to_owned() }
            }
            _ => self.command().ok_or_else(|| {
                ToolError::Model("no test command found in this repository; pass one as \"command\"".into())
            })?,
        };
        if let Some(more) = arguments.args.filter(|a| !a.is_empty()) {
            test.add(more);
        }
        test.env.extend(arguments.env.unwrap_or_default());
        Ok(test)
    }
}

impl TestCommand {
    /// Appends arguments to the command, which may be a shell line.
    fn add(&mut self, more: Vec<String>) {
        match self.argv.as_slice() {
            [sh, c, line] if sh == "sh" && c == "-c" => {
                let line = format!("{line} \"$@\"");
                self.argv = vec!["sh".into(), "-c".into(), line, "sh".into()];
            }
            [npm, test] if npm == "npm" && test == "test" => self.argv.push("--".into()),
            // Discovery takes a folder rather than the name of a test, so a named test runs without
            // discovery.
            [python, m, unittest, discover, ..]
                if unittest == "unittest" && discover == "discover" && names_a_test(&more) =>
            {
                self.argv = vec![python.clone(), m.clone(), unittest.clone()];
            }
            _ => {}
        }
        self.argv.extend(more);
    }
}

fn names_a_test(arguments: &[String]) -> bool {
    !arguments.iter().any(|a| a == "-k") && arguments.iter().any(|a| !a.starts_with('-'))
}

#[async_trait]
impl TypedTool for RunTests {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        Spec {
            aliases: ALIASES,
            repeatable: true,
            verifies_without: Some("command"),
            titled_by: Some("command"),
            ..Spec::of::<Arguments>("run_tests", "Run the tests.", Effect::Execute)
        }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let test = self.command_of(arguments)?;
        self.run(&test, None).await
    }
}
