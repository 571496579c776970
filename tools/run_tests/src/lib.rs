//! The run_tests tool: finds the test command, runs it in the sandbox, and reports counts and failures first.
//!
//! The same path serves the model's calls and the planner's verification ([`RunTests::verify`]). The exit code is the judge: output
//! is parsed to say what failed, never to decide whether something did, with one exception: a run in which no test ran is no success.

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
use tool_api::{Aliases, Effect, Outcome, Take, Tool, ToolError};

pub use detect::{TestCommand, detect};
pub use report::{Failure, TestReport};

/// Output kept at each end for parsing. Failures and summaries stand at the end; compile errors at the beginning.
const KEPT: usize = 512 << 10;

/// What other agents call it.
const ALIASES: &Aliases = &Aliases {
    tools: &["run_test", "execute_tests", "test_runner"],
    words: &["test", "tests", "verify"],
    arguments: &[
        (&["cmd", "test_command", "command_line"], Take::As("command")),
        (&["arguments", "extra_args", "argv"], Take::As("args")),
        (&["environment", "env_vars"], Take::As("env")),
        (&["timeout", "timeout_ms", "timeout_secs", "timeout_seconds", "verbose", "coverage"], Take::LeftOut),
        (
            &["cwd", "workdir", "dir", "directory", "working_directory"],
            Take::Only(&[".", "./"], "tests run in the repository root; name a folder in command or args"),
        ),
        (
            &["background", "is_background", "run_in_background", "watch"],
            Take::Only(&[], "tests have to end by themselves; leave this out"),
        ),
    ],
    convert: None,
};

/// Arguments of `run_tests`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// Instead of the known test command.
    command: Option<CommandLine>,
    /// Added to the command, e.g. one test's name.
    args: Option<Vec<String>>,
    /// Environment variables.
    env: Option<BTreeMap<String, String>>,
}

/// A command as a line for the shell, or as words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum CommandLine {
    Shell(String),
    Words(Vec<String>),
}

/// How tests are run in a session.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command that was configured (`--verify`), a line for the shell; without it the repository is looked at.
    pub command: Option<String>,
    /// Where the full output of each run is kept, as `tests-N.log`.
    pub log_dir: PathBuf,
    /// How long a run may take.
    pub timeout: Duration,
}

/// The tool.
#[derive(Debug)]
pub struct RunTests {
    sandbox: Sandbox,
    options: Options,
    runs: AtomicU32,
    secrets: Secrets,
}

impl RunTests {
    /// For the work tree of a sandbox.
    #[must_use]
    pub fn new(sandbox: Sandbox, options: Options) -> Self {
        Self { sandbox, options, runs: AtomicU32::new(0), secrets: Secrets::off() }
    }

    /// With these secrets masked in what tests print, before anything of it is cut.
    #[must_use]
    pub fn masking(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// The command that verifies the work tree: the configured one, else what the repository has now.
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

    /// Runs the command of [`RunTests::command`]; `None` when there is none.
    ///
    /// # Errors
    /// When the sandbox cannot be set up.
    pub async fn verify(&self) -> Result<Option<Outcome>, ToolError> {
        match self.command() {
            Some(command) => self.run(&command).await.map(Some),
            None => Ok(None),
        }
    }

    async fn run(&self, test: &TestCommand) -> Result<Outcome, ToolError> {
        let (program, args) =
            test.argv.split_first().ok_or_else(|| ToolError::Model("\"command\" is empty".into()))?;
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let command = Command {
            env: test.env.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect(),
            timeout: self.options.timeout,
            output: OutputLimits::bytes(KEPT),
            log: Some(self.options.log_dir.join(format!("tests-{run}.log"))),
            ..Command::new(program, args)
        };
        match self.sandbox.run(command).await {
            Ok(finished) => {
                Ok(report::outcome(test, &finished, self.root(), self.options.timeout, &self.secrets))
            }
            Err(SandboxError::Start { program, missing, why }) => {
                let why = if missing { "it is not installed".to_owned() } else { why };
                let text = format!("The tests could not be run: {program} could not be started, {why}.");
                Ok(Outcome { facts: report::facts(test, None, None, false), ..Outcome::failed(text) })
            }
            Err(e) => Err(ToolError::Run(e.to_string())),
        }
    }

    fn root(&self) -> &Path {
        self.sandbox.root()
    }

    /// What a call asks for.
    fn asked(&self, arguments: Arguments) -> Result<TestCommand, ToolError> {
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
                ToolError::Model(
                    "no test command was found in this repository; give one as \"command\"".into(),
                )
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
    /// Appends arguments, also behind a shell line.
    fn add(&mut self, more: Vec<String>) {
        match self.argv.as_slice() {
            [sh, c, line] if sh == "sh" && c == "-c" => {
                let line = format!("{line} \"$@\"");
                self.argv = vec!["sh".into(), "-c".into(), line, "sh".into()];
            }
            [npm, test] if npm == "npm" && test == "test" => self.argv.push("--".into()),
            // Discovery takes a folder; tests by name are found without it.
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
impl Tool for RunTests {
    type Arguments = Arguments;
    const NAME: &'static str = "run_tests";
    const DESCRIPTION: &'static str = "Runs the tests.";
    const EFFECT: Effect = Effect::Execute;
    const ALIASES: &'static Aliases = ALIASES;

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let test = self.asked(arguments)?;
        self.run(&test).await
    }
}
