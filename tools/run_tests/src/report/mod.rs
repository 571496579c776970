//! From the output of a test runner to what failed, where, and why.
//!
//! A runner is recognised by what it prints, not by the command: `make test` may run any of them. Each parser is a pure function
//! from text to a [`TestReport`], or to nothing where the text is not its own. `fixtures/test_reports` holds a recorded output and
//! the expected report for each kind.

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

/// What a run of tests said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// Tests that passed. Where a runner names packages only (`go test` without `-v`), packages.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were skipped, or failed as expected.
    #[serde(default)]
    pub skipped: u32,
    /// Errors outside tests: files that cannot be loaded, code that does not compile, fixtures that broke.
    #[serde(default)]
    pub errors: u32,
    /// What failed, in the order of the output.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// Why no test could run at all (a build error, a missing module).
    #[serde(default)]
    pub could_not_run: Option<String>,
}

impl TestReport {
    /// Tests that ran, and those that were meant to.
    #[must_use]
    pub fn found(&self) -> u32 {
        self.passed + self.failed + self.errors + self.skipped
    }
}

/// One failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The test, as the runner names it, or the kind of error.
    pub name: String,
    /// The file in which it broke, relative to the work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What was expected and what came.
    pub message: String,
    /// The way there through files of the work tree, `file:line: source`, outermost first; for a compile error the marked lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

type Parser = fn(&str, &Places) -> Option<TestReport>;

/// In an order in which the more particular comes first.
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

/// Reads the output (plain text) of a test command that ran in `root`. `None` when it is nothing that is known.
#[must_use]
pub fn parse(output: &str, root: &Path) -> Option<TestReport> {
    let places = Places::new(&root.to_string_lossy());
    PARSERS.iter().find_map(|parser| parser(output, &places))
}
