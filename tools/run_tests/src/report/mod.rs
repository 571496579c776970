//! Parses the output of a test runner: what failed, where, and why.
//!
//! A runner is recognized by its output rather than by the command, because `make test` may run any
//! of them. Each parser is a pure function from text to a [`TestReport`], or to `None` for the
//! output of another runner. `fixtures/test_reports` contains recorded output from every runner,
//! along with the expected reports.

mod cargo;
mod compilers;
mod node;
mod others;
mod python;
mod render;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use render::{facts, outcome};
use text::Places;

/// The result of a test run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// Tests that passed, or packages if the runner reports only those (`go test` without `-v`).
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were skipped, or failed as expected.
    #[serde(default)]
    pub skipped: u32,
    /// Errors outside tests: files that cannot be loaded, code that does not compile, fixtures that
    /// fail.
    #[serde(default)]
    pub errors: u32,
    /// The failures, in the order in which they appear in the output.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// Why no test could run at all (a build error, a missing module).
    #[serde(default)]
    pub could_not_run: Option<String>,
}

impl TestReport {
    /// Returns the number of tests that ran or should have run.
    #[must_use]
    pub fn found(&self) -> u32 {
        self.passed + self.failed + self.errors + self.skipped
    }
}

/// One failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The test's name as given by the runner, or the kind of error.
    pub name: String,
    /// The file where it failed, relative to the work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The 1-based line number in `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What was expected and what happened.
    pub message: String,
    /// The stack frames in files of the work tree, as `file:line: source`, outermost first. For a
    /// compile error, the marked source lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

type Parser = fn(&str, &Places) -> Option<TestReport>;

/// The parsers, in the order in which they are tried: more specific ones come first.
const PARSERS: [Parser; 14] = [
    cargo::parse,
    python::pytest,
    python::unittest,
    node::vitest,
    node::jest,
    node::tap,
    node::spec,
    node::mocha,
    others::go,
    others::maven,
    others::gradle,
    others::dotnet,
    others::ctest,
    compilers::parse,
];

/// Parses the output (plain text) of a test command that ran in `root`. Returns `None` for output
/// that no parser recognizes.
#[must_use]
pub fn parse(output: &str, root: &Path) -> Option<TestReport> {
    let places = Places::new(&root.to_string_lossy());
    PARSERS.iter().find_map(|parser| parser(output, &places))
}
