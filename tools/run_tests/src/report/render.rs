//! Renders a report for the model and for programs.

use std::{fs, path::Path, time::Duration};

use sandbox::{Finished, Status};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::Outcome;

use super::{Failure, TestReport, parse};
use crate::TestCommand;

/// Maximum length of the text, in characters: about 500 tokens. The text always includes the
/// counts, plus as many failures as fit.
const TEXT: usize = 2_000;

/// Maximum length of one failure, in characters.
const ONE_FAILURE: usize = 700;

/// Number of lines shown from the end of output that no parser recognizes.
const LAST_LINES: usize = 20;

/// Maximum number of failures for which source lines are looked up.
const SHOWN_SOURCES: usize = 10;

/// Maximum size of a file that source lines are read from, in bytes.
const SOURCE_FILE: u64 = 1 << 20;

/// Maximum number of failures in the facts, which are read by programs.
const FACTS: usize = 50;

/// Returns the outcome of a call.
pub(crate) fn outcome(
    test: &TestCommand,
    finished: &Finished,
    root: &Path,
    timeout: Duration,
    secrets: &Secrets,
) -> Outcome {
    let output = finished.output.text();
    let output = secrets.mask(&output);
    let mut report = parse(&output, root);
    if let Some(report) = &mut report {
        report.failures.iter_mut().take(SHOWN_SOURCES).for_each(|f| add_sources(f, root, secrets));
    }
    let report = report.as_ref();
    let timed_out = finished.status == Status::TimedOut;
    let ran_something = report.is_none_or(|r| r.passed + r.failed > 0);
    let ok = finished.status.success() && ran_something;
    let mut text = headline(finished.status, report, timeout);
    text.push_str(&format!(" Command: {}", test.display()));
    match report {
        Some(report) if !report.failures.is_empty() => add_failures(&mut text, report),
        Some(report) if ok || report.found() == 0 && finished.status.success() => {}
        _ if ok => {}
        _ => add_last_lines(&mut text, &output),
    }
    for line in &finished.refused {
        text.push_str(&format!("\n[{line}]"));
    }
    let outcome = if ok { Outcome::ok(text) } else { Outcome::failed(text) };
    let mut facts = facts(test, finished.status.code(), report, timed_out);
    // The path of the log is only in the facts: the model cannot read the log, and the path differs
    // between sessions.
    if let (Some(log), Some(facts)) = (&finished.output.log, facts.as_object_mut()) {
        facts.insert("log".into(), log.display().to_string().into());
    }
    Outcome { facts, ..outcome }
}

/// Adds the source line to each trace entry that consists only of a path and a line number.
fn add_sources(failure: &mut Failure, root: &Path, secrets: &Secrets) {
    for entry in &mut failure.trace {
        if let Some(source) =
            entry.rsplit_once(':').and_then(|(file, line)| source_line(root, file, line.parse().ok()?))
        {
            entry.push_str(": ");
            entry.push_str(&secrets.mask(source.trim()));
        }
    }
}

/// Reads a line of a file in the work tree. Does not follow links out of the tree, because paths in
/// output are untrusted.
fn source_line(root: &Path, file: &str, line: usize) -> Option<String> {
    let path = fs::canonicalize(root.join(file)).ok()?;
    let about = fs::metadata(&path).ok()?;
    if !path.starts_with(root) || !about.is_file() || about.len() > SOURCE_FILE {
        return None;
    }
    let text = fs::read(path).ok()?;
    let line = text.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    Some(sandbox::plain(line)).filter(|l| !l.trim().is_empty())
}

/// Summarizes the run in one or two sentences.
fn headline(status: Status, report: Option<&TestReport>, timeout: Duration) -> String {
    let counts = report.map(counts).unwrap_or_default();
    let why = report.and_then(|r| r.could_not_run.as_deref());
    match (status, why, report) {
        (Status::TimedOut, ..) => {
            format!("The tests were stopped after {} s{}.", timeout.as_secs(), but(&counts))
        }
        (Status::LimitReached, ..) => {
            format!("The tests were stopped because they printed too much{}.", but(&counts))
        }
        (Status::OutOfMemory, ..) => {
            format!("The tests were stopped because they used too much memory{}.", but(&counts))
        }
        (Status::TooManyProcesses, ..) => {
            format!("The tests were stopped because they started too many processes{}.", but(&counts))
        }
        (Status::Signaled(signal), ..) => {
            format!("The test command was killed by signal {signal}{}.", but(&counts))
        }
        (_, Some(why), _) => format!("The tests could not run: {}.", why.trim_end_matches('.')),
        (Status::Exited(_), _, Some(report)) if report.found() == 0 => "No tests ran.".to_owned(),
        (Status::Exited(0), _, Some(_)) => format!("{counts}."),
        (Status::Exited(code), _, Some(report)) if report.failed + report.errors == 0 => {
            format!("{counts}, but the command failed with exit code {code}.")
        }
        (Status::Exited(_), _, Some(_)) => format!("{counts}."),
        (Status::Exited(0), _, None) => "The test command succeeded (exit code 0).".to_owned(),
        (Status::Exited(code), _, None) => format!("The test command failed with exit code {code}."),
    }
}

fn but(counts: &str) -> String {
    if counts.is_empty() { String::new() } else { format!(" ({counts} so far)") }
}

/// Formats counts like "2 failed, 3 passed".
fn counts(report: &TestReport) -> String {
    let errors = if report.errors == 1 { "error" } else { "errors" };
    let all = [
        (report.failed, "failed"),
        (report.errors, errors),
        (report.passed, "passed"),
        (report.skipped, "skipped"),
    ];
    let parts: Vec<_> = all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(", ")
}

fn add_failures(text: &mut String, report: &TestReport) {
    for (at, failure) in report.failures.iter().enumerate() {
        let next = one(failure);
        if text.chars().count() + next.chars().count() > TEXT && at > 0 {
            let names: Vec<_> = report.failures[at..].iter().take(10).map(|f| f.name.as_str()).collect();
            let more = report.failures.len() - at;
            text.push_str(&format!(
                "\n\n{more} more: {}{}",
                shorten(&names.join(", "), 300),
                if more > 10 { ", …" } else { "" }
            ));
            return;
        }
        text.push_str("\n\n");
        text.push_str(&next);
    }
}

/// Formats one failure: name and location, message, trace.
fn one(failure: &Failure) -> String {
    let mut text = failure.name.clone();
    let place = failure.file.as_ref().map(|file| format!("{file}:{}", failure.line.unwrap_or(0)));
    let placed =
        place.is_some_and(|p| failure.trace.last().is_some_and(|t| t.starts_with(&format!("{p}: "))));
    if let Some(file) = failure.file.as_ref().filter(|_| !placed) {
        text.push_str(&format!(" ({file}{})", failure.line.map(|l| format!(":{l}")).unwrap_or_default()));
    }
    for line in failure.message.lines() {
        text.push_str("\n  ");
        text.push_str(&shorten(line, 300));
    }
    let only_the_place =
        failure.trace.len() == 1 && !failure.trace[0].contains(": ") && !failure.trace[0].contains('|');
    if !only_the_place {
        failure.trace.iter().for_each(|line| text.push_str(&format!("\n  {}", shorten(line, 200))));
    }
    shorten(&text, ONE_FAILURE)
}

fn add_last_lines(text: &mut String, output: &str) {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    if lines.is_empty() {
        text.push_str("\nIt printed nothing.");
        return;
    }
    let last: Vec<String> =
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|l| shorten(l, 200)).collect();
    text.push_str("\nThe last lines of its output:\n");
    let last = last.join("\n");
    let excess = last.chars().count().saturating_sub(TEXT);
    text.extend(last.chars().skip(excess));
}

/// Truncates text to `limit` characters, with an ellipsis.
fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        text.to_owned()
    } else {
        text.chars().take(limit).chain(['…']).collect()
    }
}

/// Returns the facts about a test run, which are read by programs.
pub(crate) fn facts(
    test: &TestCommand,
    exit_code: Option<i32>,
    report: Option<&TestReport>,
    timed_out: bool,
) -> Value {
    let mut facts = json!({ "command": test.display(), "exit_code": exit_code, "timed_out": timed_out });
    if let (Some(report), Some(object)) = (report, facts.as_object_mut()) {
        let failures = report.failures[..report.failures.len().min(FACTS)].to_vec();
        if let Ok(Value::Object(more)) = serde_json::to_value(TestReport { failures, ..report.clone() }) {
            object.extend(more);
        }
    }
    facts
}
