//! Parses the output of `cargo test`, which is the output of the compiler followed by that of
//! Rust's standard test harness.

use super::{
    Failure, TestReport,
    text::{Found, Places, count, until, value},
};

pub(crate) fn parse(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let mut report = TestReport::default();
    let mut results = 0;
    for line in lines.iter().filter(|l| l.starts_with("test result: ")) {
        results += 1;
        let count = |word| count(line, word).unwrap_or(0);
        report.passed += count("passed");
        report.failed += count("failed");
        report.skipped += count("ignored");
    }
    let running = lines.iter().any(|l| l.starts_with("running ") && value(l, "running ").is_some());
    let cargo_spoke = lines
        .iter()
        .any(|l| l.trim_start().starts_with("Compiling ") || l.starts_with("error: could not compile"));
    let errors = compile_errors(&lines, places);
    if results == 0 && !running && !cargo_spoke && errors.is_empty() {
        return manifest_error(&lines);
    }
    report.failures = failures(&lines, places);
    if let Some(at) =
        lines.iter().position(|l| l.trim_start().starts_with("process didn't exit successfully"))
    {
        // A test program exits with 101 if tests fail. If it ended in any other way, it crashed,
        // and the results that it had not reported yet are lost.
        if let Some((_, how)) =
            lines[at].split_once("` (").filter(|(_, how)| !how.starts_with("exit status: 101"))
        {
            let message = format!("the test program ended with {}", how.trim_end_matches(')'));
            report.failures.push(Failure { name: "test program".to_owned(), message, ..Failure::default() });
            report.errors += 1;
        }
    }
    let failed_build = lines.iter().any(|l| l.starts_with("error: could not compile"))
        || (!errors.is_empty() && results == 0);
    if failed_build {
        report.build_failed(errors.len());
        if errors.is_empty() {
            report.could_not_run = Some("the build failed".to_owned());
        }
        report.errors += errors.len() as u32;
        report.failures.splice(0..0, errors);
    }
    Some(report)
}

fn failures(lines: &[&str], places: &Places) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" ----")) else { continue };
        let name = name.strip_suffix(" stdout").unwrap_or(name);
        let body = until(&lines[at + 1..], |l| {
            l.starts_with("---- ") || l == "failures:" || l.starts_with("test result:")
        });
        failures.push(failure(name, body, places));
    }
    failures
}

fn failure(name: &str, body: &[&str], places: &Places) -> Failure {
    let mut found = Found::default();
    let Some(at) = body.iter().position(|l| l.contains("panicked at ")) else {
        found.message = body.iter().copied().filter(|l| !l.is_empty()).collect();
        found.frames.extend(found.message.iter().find_map(|l| places.place(l.rsplit_once(" at ")?.1)));
        return found.failure(name);
    };
    let place = body[at].split_once("panicked at ").map_or("", |(_, place)| place);
    // Before Rust 1.73: panicked at 'message', file:line:column
    let (message, place) = match place.strip_prefix('\'').and_then(|p| p.rsplit_once("', ")) {
        Some((message, place)) => (Some(message), place),
        None => (None, place.trim_end_matches(':')),
    };
    found.frames.extend(places.place(place));
    found.message.extend(message);
    found.message.extend(until(&body[at + 1..], |l| {
        l.is_empty() || l.starts_with("note: ") || l.starts_with("stack backtrace")
    }));
    found.failure(name)
}

/// Parses errors such as `error[E0308]: mismatched types`, along with their locations and marked
/// source lines.
pub(crate) fn compile_errors(lines: &[&str], places: &Places) -> Vec<Failure> {
    let mut errors: Vec<Failure> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((kind, message)) =
            line.split_once(": ").filter(|(k, _)| *k == "error" || k.starts_with("error["))
        else {
            continue;
        };
        let body = &lines[at + 1..];
        let Some(place) =
            body.first().and_then(|l| l.trim_start().strip_prefix("--> ")).and_then(|p| places.place(p))
        else {
            continue;
        };
        let marked = body[1..].iter().take_while(|l| l.contains('|')).filter(|l| l.trim() != "|").take(6);
        let mut failure = Found::new(&[message], [place]).failure(kind);
        failure.trace = marked.map(|l| (*l).to_owned()).collect();
        // The library is compiled twice, once for its own tests, so its errors may be repeated.
        if !errors.contains(&failure) {
            errors.push(failure);
        }
    }
    errors
}

/// Handles an error that stopped Cargo before it compiled anything.
fn manifest_error(lines: &[&str]) -> Option<TestReport> {
    let at = lines.iter().position(|l| l.starts_with("error: "))?;
    let cargo = ["required by package", "Cargo.toml", "--offline", "cargo", "manifest", "toolchain"];
    let text = lines[at..].iter().take(6).copied().collect::<Vec<_>>().join("\n");
    cargo
        .iter()
        .any(|word| text.contains(word))
        .then(|| TestReport { could_not_run: Some(text), ..TestReport::default() })
}
