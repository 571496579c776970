//! The user's hooks: commands that run at the start of a run, before and after each call, and at
//! the end. Each hook gets the event as a JSON object on standard input, as described in
//! `docs/hooks.md`.
//!
//! A confined hook runs in the same sandbox as commands, except that it cannot write to the work
//! tree.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use globset::{Glob, GlobMatcher};
use journal::Report;
use sandbox::{Command, OutputLimits, Sandbox, Status};
use secrets::Secrets;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tool_api::{Outcome, Spec, ToolError};

use crate::confinement;
use crate::exit::{Failure, Result};
use crate::gate::Gate;
use crate::leftovers::SANDBOX;
use crate::settings::Settings;

/// The exit code that a hook uses to veto a call or the start of the run.
const VETO: i32 = 2;
/// The number of bytes to keep from each end of a hook's output.
const KEPT: usize = 2048;
/// Maximum size of a string in an event, in bytes. Longer strings are truncated.
const MAX_TEXT: usize = 256 << 10;
/// Maximum time limit for a hook, in seconds.
const MAX_SECONDS: u64 = 3_600;
/// Maximum number of warnings to keep for the end of the run.
const MAX_WARNINGS: usize = 10;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Moment {
    /// Before the first request of a run.
    Start,
    /// Before a call.
    BeforeCall,
    /// After a call.
    AfterCall,
    /// When the run has ended.
    End,
}

/// A hook, as defined in the user's settings.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hook {
    /// When it runs.
    pub(crate) on: Moment,
    /// A command line for `sh -c`.
    pub(crate) command: String,
    /// Comma-separated glob patterns for tool names. Hooks that run before or after calls run only
    /// for calls to these tools. By default, all tools match.
    #[serde(default = "all_tools")]
    pub(crate) tools: String,
    /// Whether it runs in the sandbox.
    #[serde(default = "confined")]
    pub(crate) confined: bool,
    /// Its time limit, in seconds.
    #[serde(default = "seconds")]
    pub(crate) seconds: u64,
}

fn all_tools() -> String {
    "*".to_owned()
}

fn confined() -> bool {
    true
}

fn seconds() -> u64 {
    30
}

impl Hook {
    /// Checks the values of a hook.
    ///
    /// # Errors
    /// If a value is invalid. The message continues a sentence that starts with the setting's name.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        self.patterns()?;
        if self.command.trim().is_empty() {
            return Err("must not contain an empty `command`".into());
        }
        if !(1..=MAX_SECONDS).contains(&self.seconds) {
            return Err(format!("must have `seconds` from 1 to {MAX_SECONDS}"));
        }
        Ok(())
    }

    fn patterns(&self) -> std::result::Result<Vec<GlobMatcher>, String> {
        let globs = self.tools.split(',').map(|glob| Glob::new(glob.trim()).map(|g| g.compile_matcher()));
        globs.collect::<std::result::Result<_, _>>().map_err(|e| format!("has an invalid pattern: {e}"))
    }
}

/// The hooks of a run.
pub(crate) struct Hooks {
    hooks: Vec<(Hook, Vec<GlobMatcher>)>,
    settings: Settings,
    root: PathBuf,
    /// The folder for the hooks' sandboxes.
    folder: PathBuf,
    variables: Vec<(OsString, OsString)>,
    /// The fields that are common to all events.
    common: Value,
    secrets: Secrets,
    /// The run's sandbox. It is kept alive because dropping it removes its folder, which contains
    /// the folders of the hooks' sandboxes.
    _run: Sandbox,
    confined: OnceCell<Sandbox>,
    free: OnceCell<Sandbox>,
    warnings: Mutex<Vec<String>>,
}

/// The decision of a hook.
enum Verdict {
    Allowed,
    Vetoed(String),
}

impl Hooks {
    /// Prepares the configured hooks for a run with this sandbox. Returns `None` if there are
    /// none. `session` is the session's folder.
    ///
    /// # Errors
    /// Never for hooks that passed [`Hook::check`].
    pub(crate) fn new(
        settings: &Settings,
        sandbox: &Sandbox,
        session: &Path,
        task: &str,
        variables: &[(OsString, OsString)],
        secrets: &Secrets,
    ) -> Result<Option<Self>> {
        let Some(hooks) = settings.hooks.clone().filter(|hooks| !hooks.is_empty()) else { return Ok(None) };
        let hooks = hooks.into_iter().map(|hook| hook.patterns().map(|patterns| (hook, patterns)));
        let id = session.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Some(Self {
            hooks: hooks.collect::<std::result::Result<_, _>>().map_err(Failure::misuse)?,
            settings: settings.clone(),
            root: sandbox.root().to_owned(),
            folder: session.join(SANDBOX).join("hooks"),
            variables: variables.to_vec(),
            common: json!({ "session": id, "repository": sandbox.root().display().to_string(), "task": task }),
            secrets: secrets.clone(),
            _run: sandbox.clone(),
            confined: OnceCell::new(),
            free: OnceCell::new(),
            warnings: Mutex::default(),
        }))
    }

    /// Runs the `start` hooks.
    ///
    /// # Errors
    /// If a hook vetoes the run or fails.
    pub(crate) async fn start(&self) -> Result<()> {
        for hook in self.at(Moment::Start, None) {
            let verdict = self.run(hook, json!({})).await.map_err(Failure::misuse)?;
            if let Verdict::Vetoed(why) = verdict {
                return Err(Failure::misuse(format!("the hook `{}` vetoed the run: {why}", hook.command)));
            }
        }
        Ok(())
    }

    /// Runs the `end` hooks. Returns up to [`MAX_WARNINGS`] warnings about hooks that failed
    /// without stopping the run or that vetoed too late.
    pub(crate) async fn end(&self, report: &Report) -> Vec<String> {
        for hook in self.at(Moment::End, None) {
            let result = self.run(hook, json!({ "result": report })).await;
            self.warn(hook, result);
        }
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn at<'a>(&'a self, moment: Moment, tool: Option<&'a str>) -> impl Iterator<Item = &'a Hook> {
        let about = move |patterns: &[GlobMatcher]| {
            tool.is_none_or(|tool| patterns.iter().any(|pattern| pattern.is_match(tool)))
        };
        self.hooks
            .iter()
            .filter(move |(hook, patterns)| hook.on == moment && about(patterns))
            .map(|(hook, _)| hook)
    }

    /// Remembers a warning if the hook failed or vetoed something that had already happened.
    fn warn(&self, hook: &Hook, result: std::result::Result<Verdict, String>) {
        let message = match result {
            Ok(Verdict::Allowed) => return,
            Ok(Verdict::Vetoed(why)) => {
                format!("the veto of the hook `{}` came too late: {why}", hook.command)
            }
            Err(why) => why,
        };
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < MAX_WARNINGS {
            warnings.push(message);
        }
    }

    async fn sandbox(&self, confined: bool) -> std::result::Result<&Sandbox, String> {
        let (cell, name) = if confined { (&self.confined, "confined") } else { (&self.free, "free") };
        let open = async || {
            let folder = Some(self.folder.join(name));
            let (settings, variables) = (&self.settings, self.variables.clone());
            confinement::hook_sandbox(settings, &self.root, folder, variables, confined)
        };
        cell.get_or_try_init(open).await.map_err(|failure| format!("{:#}", failure.error))
    }

    /// Runs a hook with this event.
    ///
    /// # Errors
    /// If the hook neither allows nor vetoes, for example because it crashes.
    async fn run(&self, hook: &Hook, event: Value) -> std::result::Result<Verdict, String> {
        let mut object = json!({ "hook": hook.on });
        for (key, value) in [&self.common, &event].into_iter().filter_map(Value::as_object).flatten() {
            object[key] = shortened(value.clone());
        }
        let command = Command {
            input: format!("{object}\n"),
            timeout: Duration::from_secs(hook.seconds),
            output: OutputLimits::bytes(KEPT),
            ..Command::shell(&hook.command)
        };
        let failed = |how: &str| format!("the hook `{}` failed: {how}", hook.command);
        let finished = Box::pin(self.sandbox(hook.confined).await?.run(command)).await;
        let finished = finished.map_err(|e| failed(&e.to_string()))?;
        let said = self.secrets.mask(finished.output.text().trim()).into_owned();
        match finished.status {
            Status::Exited(0) => Ok(Verdict::Allowed),
            Status::Exited(VETO) if said.is_empty() => {
                Ok(Verdict::Vetoed("one of the user's hooks forbids it".into()))
            }
            Status::Exited(VETO) => Ok(Verdict::Vetoed(said)),
            Status::Exited(code) => Err(failed(&format!("exit code {code}\n{said}")).trim_end().to_owned()),
            Status::Signaled(signal) => Err(failed(&format!("killed by signal {signal}"))),
            Status::TimedOut => Err(failed(&format!("it took longer than {} s", hook.seconds))),
            Status::LimitReached | Status::OutOfMemory | Status::TooManyProcesses => {
                Err(failed("it reached a limit of the sandbox"))
            }
        }
    }
}

#[async_trait]
impl Gate for Hooks {
    async fn before(&self, spec: &Spec, arguments: &Value) -> std::result::Result<(), ToolError> {
        for hook in self.at(Moment::BeforeCall, Some(&spec.name)) {
            let event = json!({ "tool": spec.name, "effect": spec.effect, "arguments": arguments });
            match self.run(hook, event).await {
                Ok(Verdict::Allowed) => {}
                Ok(Verdict::Vetoed(why)) => return Err(ToolError::Model(why)),
                Err(why) => return Err(ToolError::Run(why)),
            }
        }
        Ok(())
    }

    async fn after(&self, spec: &Spec, arguments: &Value, outcome: &Outcome) {
        for hook in self.at(Moment::AfterCall, Some(&spec.name)) {
            let event = json!({
                "tool": spec.name, "effect": spec.effect, "arguments": arguments, "outcome": outcome
            });
            let result = self.run(hook, event).await;
            self.warn(hook, result);
        }
    }
}

/// Truncates each long string in a value.
fn shortened(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) if text.len() > MAX_TEXT => {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            text.push_str(" [truncated]");
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| *item = shortened(std::mem::take(item)));
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| *field = shortened(std::mem::take(field)));
        }
        _ => {}
    }
    value
}
