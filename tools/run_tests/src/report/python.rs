//! Parses the output of pytest and unittest.

use super::{
    Failure, TestReport,
    text::{Found, Places, counts, indentation, several, unloadable, until, value},
};

/// Parses the last traceback in these lines. Returns the frames that are in files of the work tree,
/// and the message that follows the frames.
fn traceback<'a>(lines: &[&'a str], places: &Places) -> Found<'a> {
    let mut found = Found::default();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if line.trim_start().starts_with("Traceback (most recent call last)") {
            found = Found::default(); // the earlier traceback is the cause of this one
        } else if let Some((path, number)) = file_line(line) {
            let source = lines.get(at + 1).filter(|l| file_line(l).is_none()).map_or("", |l| l.trim());
            if let Some(path) = places.inside(path) {
                found.frames.push((path, number, source.to_owned()));
            }
            at += 1;
        } else if !line.starts_with(' ') && (!line.trim().is_empty() || !found.message.is_empty())
            || !found.message.is_empty()
        {
            found.message.push(line);
        }
        at += 1;
    }
    found
}

/// Parses the path and line number in `  File "path", line 12, in name`.
fn file_line(line: &str) -> Option<(&str, u32)> {
    let rest = line.trim_start().strip_prefix("File \"")?;
    let (path, rest) = rest.split_once("\", line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((path, digits.parse().ok()?))
}

/// Parses the traceback of an uncaught exception.
pub(crate) fn uncaught(output: &str, places: &Places) -> Option<Failure> {
    let lines: Vec<&str> = output.lines().collect();
    let start = lines.iter().rposition(|l| l.starts_with("Traceback (most recent call last)"))?;
    let mut found = traceback(&lines[start..], places);
    found.message.truncate(until(&found.message, |l| l.trim().is_empty()).len().min(3));
    (!found.message.is_empty()).then(|| found.failure("uncaught exception"))
}

/// Converts `test_a (module.Class.test_a) (n=2)`, or `test_a (module.Class) (n=2)` before Python
/// 3.11, to the name that selects only this test: `module.Class.test_a (n=2)`.
fn dotted(name: &str) -> String {
    let parts = name.split_once(" (").and_then(|(test, rest)| Some((test, rest.split_once(')')?)));
    match parts {
        Some((test, (class, rest))) if class.contains('.') && !test.contains(' ') => {
            let class = class.strip_suffix(test).map_or(class, |c| c.trim_end_matches('.'));
            format!("{class}.{test}{rest}")
        }
        _ => name.to_owned(),
    }
}

pub(crate) fn unittest(output: &str, places: &Places) -> Option<TestReport> {
    let mut report = TestReport::default();
    let (mut ran, mut seen, mut outside) = (0, false, 0);
    let mut failing = std::collections::BTreeSet::new();
    let lines: Vec<&str> = output.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some(number) = line
            .strip_prefix("Ran ")
            .and_then(|r| r.split_once(" test"))
            .and_then(|(n, _)| n.parse::<u32>().ok())
        {
            (ran, seen) = (ran + number, true);
        } else if line.starts_with("FAILED (")
            || line.starts_with("OK (")
            || line.starts_with("NO TESTS RAN (")
        {
            report.failed +=
                value(line, "failures=").unwrap_or(0) + value(line, "unexpected successes=").unwrap_or(0);
            report.errors += value(line, "errors=").unwrap_or(0);
            report.skipped += value(line, "skipped=").unwrap_or(0);
        }
        let heading = line.strip_prefix("ERROR: ").or_else(|| line.strip_prefix("FAIL: "));
        if let Some(name) = heading.filter(|_| at > 0 && lines[at - 1].starts_with("=====")) {
            let body = &lines[at + 1..];
            let start = body.iter().position(|l| l.starts_with("-----")).map_or(0, |s| s + 1);
            let end = body[start..].iter().position(|l| l.starts_with("=====") || l.starts_with("-----"));
            let body = &body[start..end.map_or(body.len(), |end| start + end)];
            let mut failure = traceback(body, places).failure(&dotted(name));
            if let Some((module, _)) = name.split_once(" (unittest.loader._FailedTest") {
                failure.name = unloadable(module);
            }
            // The setup of a class or module is not a test; the subtests of a test count as one
            // test.
            if name.starts_with("setUp") || name.starts_with("tearDown") {
                outside += 1;
            } else {
                failing.insert(
                    name.split(") (").next().unwrap_or(name).split(") [").next().unwrap_or(name).to_owned(),
                );
            }
            report.failures.push(failure);
        }
    }
    if !seen {
        return None;
    }
    let failing = if failing.is_empty() {
        (report.failed + report.errors).saturating_sub(outside)
    } else {
        failing.len() as u32
    };
    report.passed = ran.saturating_sub(failing).saturating_sub(report.skipped);
    report.check_loaded();
    Some(report)
}

pub(crate) fn pytest(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    if let Some(line) = lines.iter().find(|l| l.ends_with("No module named pytest")) {
        let why = format!("pytest is not installed ({})", line.trim());
        return Some(TestReport { could_not_run: Some(why), ..TestReport::default() });
    }
    let summary = lines.iter().rev().find(|l| is_summary(l));
    let crashed = lines.iter().any(|l| l.starts_with("INTERNALERROR>"));
    if summary.is_none() && !crashed {
        return usage_error(&lines);
    }
    let mut report = TestReport::default();
    for (number, word) in counts(summary.unwrap_or(&"")) {
        match word {
            "passed" | "xpassed" => report.passed += number,
            "failed" => report.failed += number,
            "error" | "errors" => report.errors += number,
            "skipped" | "xfailed" => report.skipped += number,
            _ => {}
        }
    }
    report.failures = failures(&lines, places);
    if report.failures.is_empty() {
        report.failures = short_summary(&lines);
    }
    if crashed {
        let trace: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("INTERNALERROR> ")).collect();
        let failure = traceback(&trace, places).failure("pytest exited");
        report.could_not_run = Some(failure.message.clone());
        report.failures.push(failure);
    } else if report.passed + report.failed + report.skipped == 0 {
        let error = lines.iter().find_map(|l| l.strip_prefix("ERROR: "));
        report.could_not_run = match (report.errors, error) {
            (0, error) => error.map(str::to_owned),
            (n, _) => Some(format!("{} cannot be loaded", several(n as usize, "test file"))),
        };
    }
    Some(report)
}

/// Returns whether a line is a summary such as `=== 1 failed, 2 passed in 0.01s ===`, with or
/// without the `=`.
fn is_summary(line: &str) -> bool {
    let line = line.trim_matches(['=', ' ']);
    let Some((what, time)) = line.rsplit_once(" in ") else { return false };
    let timed =
        time.split(' ').next().and_then(|t| t.strip_suffix('s')).is_some_and(|t| t.parse::<f64>().is_ok());
    let counted = what == "no tests ran"
        || what.split(", ").all(|part| part.split_once(' ').is_some_and(|(n, _)| n.parse::<u32>().is_ok()));
    timed && counted
}

/// Reads the error that pytest prints instead of a summary if an option is invalid or the
/// configuration cannot be read.
fn usage_error(lines: &[&str]) -> Option<TestReport> {
    let mine = lines.iter().any(|l| l.contains("pytest") || l.contains("conftest"));
    let error = lines.iter().find_map(|l| {
        l.strip_prefix("ERROR: ").or_else(|| l.strip_prefix("ImportError while loading conftest"))
    })?;
    mine.then(|| TestReport { could_not_run: Some(error.trim().to_owned()), ..TestReport::default() })
}

fn section(line: &str) -> Option<&str> {
    (line.starts_with("==") && line.ends_with("=="))
        .then(|| line.trim_matches(['=', ' ']))
        .filter(|s| !s.is_empty())
}

fn heading(line: &str) -> Option<&str> {
    let name = line.strip_prefix('_')?.trim_start_matches('_').strip_prefix(' ')?;
    let name = name.strip_suffix('_')?.trim_end_matches('_').strip_suffix(' ')?;
    (!name.starts_with("_ ") && name != "_" && !name.is_empty()).then_some(name)
}

fn failures(lines: &[&str], places: &Places) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut inside = false;
    let mut at = 0;
    while at < lines.len() {
        if let Some(title) = section(lines[at]) {
            inside = matches!(title, "FAILURES" | "ERRORS");
        } else if let Some(name) = heading(lines[at]).filter(|_| inside) {
            let body = until(&lines[at + 1..], |l| section(l).is_some() || heading(l).is_some());
            failures.push(failure(name, body, places));
            at += body.len();
        }
        at += 1;
    }
    failures
}

fn failure(name: &str, body: &[&str], places: &Places) -> Failure {
    let body = until(body, |l| l.starts_with("----"));
    if body.iter().any(|l| file_line(l).is_some()) && !body.iter().any(|l| l.starts_with("E ")) {
        return traceback(body, places).failure(name); // --tb=native
    }
    let mut found = Found::default();
    let mut source = "";
    for (at, line) in body.iter().enumerate() {
        if let Some(text) = line.strip_prefix("E ") {
            // A new group of E lines belongs to a later exception, whose message replaces the
            // earlier one.
            if at > 0 && !body[at - 1].starts_with('E') {
                found.message.clear();
            }
            if let Some((path, number)) = file_line(text)
                && let Some(path) = places.inside(path)
            {
                found.frames.push((path, number, String::new()));
            }
            found.message.push(text);
        } else if *line == "E" {
            found.message.push("");
        } else if let Some(text) = line.strip_prefix('>') {
            source = text.trim();
        } else if indentation(line) == 0
            && let Some((place, _)) = line
                .split_once(": ")
                .or_else(|| Some((line.strip_suffix(": ").or_else(|| line.strip_suffix(':'))?, "")))
            && let Some((path, number, _)) = places.place(place)
        {
            let next = body.get(at + 1).filter(|l| l.starts_with("    ")).map_or("", |l| l.trim());
            found.frames.push((path, number, if source.is_empty() { next } else { source }.to_owned()));
            source = "";
        }
    }
    let name = name.strip_prefix("ERROR collecting ").map_or_else(|| name.to_owned(), unloadable);
    found.failure(&name)
}

/// Parses lines such as `FAILED file::test - message`, for output without the failures themselves
/// (`--tb=no`).
fn short_summary(lines: &[&str]) -> Vec<Failure> {
    let entries = lines.iter().filter_map(|l| l.strip_prefix("FAILED ").or_else(|| l.strip_prefix("ERROR ")));
    entries
        .filter(|e| e.contains("::") || e.contains(".py"))
        .map(|entry| {
            let (id, message) = entry.split_once(" - ").unwrap_or((entry, ""));
            let file = id.split("::").next().map(str::to_owned);
            Failure { name: id.to_owned(), file, message: message.to_owned(), ..Failure::default() }
        })
        .collect()
}
