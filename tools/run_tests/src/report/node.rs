//! Parses the output of JavaScript test runners: node's own (TAP and spec), vitest, jest and mocha.

use super::{
    Failure, TestReport,
    text::{Found, Frame, Places, count, counts, indentation, unloadable, until, value},
};

/// Parses a stack frame: `at name (path:1:2)` or `at path:1:2`.
fn frame(line: &str, places: &Places) -> Option<Frame> {
    let line = line.trim();
    let place = line
        .rsplit_once('(')
        .map_or_else(|| line.rsplit(' ').next(), |(_, p)| Some(p.split(')').next().unwrap_or(p)))?;
    places.place(place)
}

fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("at ") && (line.contains(':') || line.contains("<anonymous>"))
}

/// Parses an error as node prints it: the message, followed by the stack frames, innermost first.
fn error<'a>(lines: &[&'a str], places: &Places) -> Found<'a> {
    let message = until(lines, is_frame);
    Found::new(message, lines[message.len()..].iter().rev().filter_map(|l| frame(l, places)))
}

/// Parses the totals that node's runner prints at the end. Each total is on a line that starts with
/// `mark`: `#` in TAP, and `ℹ` otherwise.
fn totals(output: &str, mark: &str) -> Option<TestReport> {
    let count = |name: &str| {
        let label = format!("{mark} {name} ");
        output.lines().rev().find_map(|l| l.strip_prefix(&label).and_then(|n| n.trim().parse::<u32>().ok()))
    };
    Some(TestReport {
        passed: count("pass")?,
        failed: count("fail")? + count("cancelled").unwrap_or(0),
        skipped: count("skipped").unwrap_or(0) + count("todo").unwrap_or(0),
        ..TestReport::default()
    })
}

pub(crate) fn tap(output: &str, places: &Places) -> Option<TestReport> {
    let mut report = totals(output, "#")?;
    let lines: Vec<&str> = output.lines().collect();
    let mut groups: Vec<(usize, &str)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let depth = indentation(line);
        let text = line.trim_start();
        if let Some(name) = text.strip_prefix("# Subtest: ") {
            groups.retain(|(d, _)| *d < depth);
            groups.push((depth, name));
        } else if let Some((_, name)) = text.strip_prefix("not ok ").and_then(|t| t.split_once(" - ")) {
            let body = &lines[at + 1..];
            let end = body.iter().position(|l| l.trim() == "...").unwrap_or(0);
            let body = &body[..end];
            let field = |key: &str| body.iter().find_map(|l| l.trim_start().strip_prefix(key)).map(str::trim);
            if name.contains("# TODO") || field("failureType:") == Some("'subtestsFailed'") {
                continue;
            }
            let path = groups
                .iter()
                .filter(|(d, _)| *d < depth)
                .map(|(_, g)| *g)
                .chain([name])
                .collect::<Vec<_>>()
                .join(" > ");
            let failure = match field("exitCode:") {
                Some(_) => file_failure(&lines[..at], name, places),
                None if body.is_empty() => plain_failure(&lines[..at], places).failure(&path),
                None => yaml_failure(body, places).failure(&path),
            };
            report.failures.push(failure);
        }
    }
    report.check_loaded();
    Some(report)
}

/// Parses the diagnostic block after `not ok`.
fn yaml_failure<'a>(body: &[&'a str], places: &Places) -> Found<'a> {
    let block = |key: &str| -> Vec<&'a str> {
        let Some(at) = body.iter().position(|l| l.trim_start().starts_with(key)) else { return Vec::new() };
        let value = body[at].trim_start()[key.len()..].trim();
        if value.starts_with('|') {
            let depth = indentation(body[at]);
            until(&body[at + 1..], |l| !l.trim().is_empty() && indentation(l) <= depth).to_vec()
        } else {
            vec![value.trim_matches('\'')]
        }
    };
    let mut found =
        Found::new(&block("error:"), block("stack:").iter().rev().filter_map(|l| frame(l, places)));
    if found.frames.is_empty() {
        found.frames.extend(block("location:").first().and_then(|l| places.place(l)));
    }
    found
}

/// Parses a failure in TAP output that does not come from node's runner. The message precedes the
/// `not ok` line, without a prefix.
fn plain_failure<'a>(before: &[&'a str], places: &Places) -> Found<'a> {
    let is_tap = |line: &&&str| {
        ["ok ", "not ok ", "#", "1..", "TAP version"].iter().any(|start| line.trim_start().starts_with(start))
    };
    let count = before.iter().rev().take_while(|line| !is_tap(line)).count();
    let message = &before[before.len() - count..];
    Found::new(message, message.iter().filter_map(|line| places.place(line.trim_start())).take(1))
}

/// Parses the failure of a whole file, whose output precedes the `not ok` line as comments.
fn file_failure(before: &[&str], name: &str, places: &Places) -> Failure {
    let comments: Vec<&str> = before
        .iter()
        .rev()
        .skip_while(|l| l.starts_with("# Subtest:"))
        .take_while(|l| l.starts_with('#') && !l.starts_with("# Subtest:"))
        .map(|l| l.trim_start_matches('#').strip_prefix(' ').unwrap_or(""))
        .collect();
    let comments: Vec<&str> = comments.into_iter().rev().collect();
    let file = places.inside(name).unwrap_or_else(|| name.to_owned());
    let Some(at) = comments.iter().position(|l| !l.starts_with(' ') && l.contains("Error")) else {
        return error(&comments, places).failure(&file);
    };
    let mut found = error(&comments[at..], places);
    // The location of a syntax error is on a separate line.
    found.frames.extend(comments[..at].iter().find_map(|l| places.place(l)));
    let name = if comments[at].contains("AssertionError") { file.clone() } else { unloadable(&file) };
    let mut failure = found.failure(&name);
    failure.file.get_or_insert(file);
    failure
}

pub(crate) fn spec(output: &str, places: &Places) -> Option<TestReport> {
    let mut report = totals(output, "ℹ")?;
    let lines: Vec<&str> = output.lines().collect();
    let start = lines.iter().rposition(|l| l.trim() == "✖ failing tests:").unwrap_or(lines.len());
    let mut at = start;
    while at < lines.len() {
        let place = lines[at].strip_prefix("test at ").and_then(|p| places.place(p));
        let name = lines.get(at + 1).and_then(|l| l.strip_prefix("✖ "));
        if let (Some(place), Some(name)) = (place, name) {
            let body = until(&lines[at + 2..], |l| l.starts_with("test at "));
            let mut found = error(body, places);
            if found.frames.is_empty() {
                found.frames.push(place);
            }
            let name = name.rsplit_once(" (").map_or(name, |(n, _)| n);
            let cannot_load = name.ends_with("js")
                && places.inside(name).is_some()
                && found.message.iter().all(|m| m.contains("test failed") || m.is_empty());
            let name = if cannot_load { unloadable(name) } else { name.to_owned() };
            report.failures.push(found.failure(&name));
            at += body.len();
        }
        at += 1;
    }
    report.check_loaded();
    Some(report)
}

/// Returns a report with the counts in a line such as `2 failed | 3 passed`.
fn counted(line: &str) -> TestReport {
    let mut report = TestReport::default();
    for (number, word) in counts(line) {
        match word {
            "passed" => report.passed = number,
            "failed" => report.failed = number,
            "skipped" | "todo" => report.skipped += number,
            _ => {}
        }
    }
    report
}

pub(crate) fn vitest(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    if lines.iter().any(|l| l.starts_with("No test files found")) {
        return Some(TestReport::default());
    }
    let files = lines.iter().rev().find(|l| l.trim_start().starts_with("Test Files "))?;
    let tests = lines.iter().rev().find_map(|l| l.trim_start().strip_prefix("Tests "))?;
    let mut report = counted(tests);
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix(" FAIL  ") else { continue };
        let body = until(&lines[at + 1..], |l| l.starts_with(" FAIL  ") || l.starts_with('⎯'));
        let place = body
            .iter()
            .filter_map(|l| l.trim_start().strip_prefix("❯ "))
            .find_map(|p| places.place(p.rsplit(' ').next()?));
        let place =
            place.or_else(|| body.iter().find_map(|l| places.place(l.trim_start().strip_prefix("File: ")?)));
        let mut found = Found::new(until(body, |l| l.trim_start().starts_with('❯')), place);
        found.message.retain(|l| !matches!(l.trim(), "- Expected" | "+ Received"));
        let name = name.split_once(" [ ").map_or_else(|| name.to_owned(), |(file, _)| unloadable(file));
        report.failures.push(found.failure(&name));
    }
    report.errors = (report.unloadable() as u32).max(if report.failed == 0 {
        value(files, "Test Files").filter(|_| files.contains("failed")).unwrap_or(0)
    } else {
        0
    });
    report.check_loaded();
    Some(report)
}

pub(crate) fn jest(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    if lines.iter().any(|l| l.starts_with("No tests found, exiting")) {
        return Some(TestReport::default());
    }
    let tests = lines.iter().rev().find_map(|l| l.strip_prefix("Tests:"))?;
    lines.iter().find(|l| l.starts_with("Test Suites:"))?;
    let mut report = counted(tests);
    let mut file = "";
    for (at, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix("FAIL ") {
            file = name.split(" (").next().unwrap_or(name).trim_start_matches("./");
        }
        let Some(name) = line.strip_prefix("  ● ") else { continue };
        let body = until(&lines[at + 1..], |l| {
            ["  ● ", "FAIL ", "PASS ", "Test Suites:"].iter().any(|start| l.starts_with(start))
        });
        let mut found = error(body, places);
        found.message.truncate(until(&found.message, is_code).len());
        let failure = if name == "Test suite failed to run" {
            report.errors += 1;
            if found.frames.is_empty() {
                found
                    .frames
                    .extend(places.inside(file).map(|f| (f, marked_line(body).unwrap_or(1), String::new())));
            }
            found.failure(&unloadable(file))
        } else {
            found.failure(&name.replace(" › ", " > "))
        };
        // At the end of a long run, jest repeats all failures.
        report.add_once(failure);
    }
    report.check_loaded();
    Some(report)
}

/// Returns whether a line is part of a code frame: `  > 4 |   it(…`, `    |  ^`.
fn is_code(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches('>').trim_start();
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && rest.starts_with(" |") || line.starts_with("| ")
}

/// Returns the number of the line marked in a code frame.
fn marked_line(body: &[&str]) -> Option<u32> {
    body.iter().find_map(|l| l.trim_start().strip_prefix("> ")?.split('|').next()?.trim().parse().ok())
}

pub(crate) fn mocha(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let count = |word: &str| lines.iter().find_map(|l| count(l, word).filter(|_| l.starts_with("  ")));
    let passed = count("passing")?;
    let mut report = TestReport {
        passed,
        failed: count("failing").unwrap_or(0),
        skipped: count("pending").unwrap_or(0),
        ..TestReport::default()
    };
    let start =
        lines.iter().position(|l| l.trim_end().ends_with(" failing")).map_or(lines.len(), |at| at + 1);
    let is_heading = |l: &str| {
        l.trim_start().split_once(") ").is_some_and(|(n, _)| n.parse::<u32>().is_ok()) && indentation(l) == 2
    };
    let mut at = start;
    while at < lines.len() {
        if is_heading(lines[at]) {
            let body = &lines[at..];
            let end = body[1..].iter().position(|l| is_heading(l)).map_or(body.len(), |e| e + 1);
            let title_end = body.iter().position(|l| l.trim_end().ends_with(':')).unwrap_or(0);
            let title: Vec<&str> = body[..=title_end]
                .iter()
                .map(|l| l.trim().trim_end_matches(':'))
                .filter(|l| !l.is_empty())
                .collect();
            let name = title.join(" > ");
            let name = name.split_once(") ").map_or(name.as_str(), |(_, n)| n);
            report.failures.push(error(&body[title_end + 1..end], places).failure(name));
            at += end - 1;
        }
        at += 1;
    }
    Some(report)
}
