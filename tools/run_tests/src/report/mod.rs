//! From the output of a test runner to what failed, where, and why.

use std::{path::Path, time::Duration};

use sandbox::{Finished, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tool_api::Outcome;

use crate::TestCommand;

/// What a run of tests said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were skipped.
    #[serde(default)]
    pub skipped: u32,
    /// Errors outside tests: files that could not be loaded, fixtures that broke.
    #[serde(default)]
    pub errors: u32,
    /// What failed, in the order of the output.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// Why no test could run at all (a build error, a missing module).
    #[serde(default)]
    pub could_not_run: Option<String>,
}

/// One failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The test, as the runner names it, or the kind of error.
    pub name: String,
    /// The file, relative to the work tree where it lies in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What was expected and what came.
    pub message: String,
}

/// Lines of unrecognised output that are shown.
const LAST_LINES: usize = 25;

/// The answer to a call.
pub(crate) fn outcome(test: &TestCommand, finished: &Finished, _root: &Path, timeout: Duration) -> Outcome {
    let text = finished.output.text();
    let timed_out = finished.status == Status::TimedOut;
    let head = match finished.status {
        Status::Exited(0) => "The test command succeeded".to_owned(),
        Status::Exited(code) => format!("The test command failed with exit code {code}"),
        Status::Signaled(signal) => format!("The test command was killed by signal {signal}"),
        Status::TimedOut => format!("The test command was stopped after {} s", timeout.as_secs()),
        Status::LimitReached => "The test command was stopped because it printed too much".to_owned(),
    };
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    let text = format!("{head} ({}).\n{last}", test.display());
    let outcome = if finished.status.success() { Outcome::ok(text) } else { Outcome::failed(text) };
    Outcome { facts: facts(test, finished.status.code(), None, timed_out), ..outcome }
}

/// Facts for programs.
pub(crate) fn facts(
    test: &TestCommand,
    exit_code: Option<i32>,
    report: Option<&TestReport>,
    timed_out: bool,
) -> Value {
    let mut facts = json!({ "command": test.display(), "exit_code": exit_code, "timed_out": timed_out });
    if let (Some(report), Some(object)) = (report, facts.as_object_mut())
        && let Ok(Value::Object(more)) = serde_json::to_value(report)
    {
        object.extend(more);
    }
    facts
}
