//! Parses the output of go, maven, gradle, dotnet and ctest.

use super::{
    Failure, TestReport,
    text::{Found, Places, count, indentation, until, value},
};

pub(crate) fn go(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let packages = lines.iter().any(|l| {
        l.starts_with("ok  \t")
            || l.starts_with("FAIL\t")
            || l.starts_with("?   \t")
            || l.contains("[build failed]")
            || l.starts_with("=== RUN")
    });
    if !packages && !lines.iter().any(|l| l.trim_start().starts_with("--- FAIL: ")) {
        return None;
    }
    let mut report = TestReport::default();
    let (mut verbose, mut ok_packages) = (false, 0);
    let mut package_directory = String::new();
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        verbose |= text.starts_with("--- PASS: ");
        report.passed += u32::from(text.starts_with("--- PASS: "));
        report.skipped += u32::from(text.starts_with("--- SKIP: "));
        ok_packages += u32::from(line.starts_with("ok  \t") && !line.contains("[no tests to run]"));
        if let Some(name) = text.strip_prefix("--- FAIL: ") {
            let name = name.split(" (").next().unwrap_or(name);
            let found = go_failure(&lines, at, name, places);
            // A test that failed only because of its subtests has no message.
            if !found.message.is_empty()
                || !lines[at + 1..].iter().any(|l| l.trim_start().starts_with(&format!("--- FAIL: {name}/")))
            {
                report.failed += 1;
                report.failures.push(found.failure(name));
            }
        } else if let Some(name) = line.strip_prefix("# ") {
            package_directory = name.split(' ').next().unwrap_or_default().to_owned();
        } else if !package_directory.is_empty() && !line.starts_with(['\t', ' ', 'F', 'o', '?']) {
            let (place, message) = line.split_once(": ").unwrap_or((line, ""));
            match places.place(place.trim_start_matches("vet: ")) {
                Some(frame) => {
                    report.errors += 1;
                    report.failures.push(Found::new(&[message], [frame]).failure("compile error"));
                }
                None => package_directory.clear(),
            }
        } else if line.starts_with("panic: ") {
            let frames = lines[at..].iter().filter_map(|l| places.place(l.trim().split(" +0x").next()?));
            let mut found = Found::new(&[*line], frames.take(4));
            found.frames.reverse();
            // A panic ends the program. The panic's message follows the line of the test that
            // panicked.
            let silent = report.failures.pop_if(|f| f.message.is_empty());
            report.failed += u32::from(silent.is_none());
            let name = silent.map_or_else(|| "panic".to_owned(), |f| f.name);
            report.failures.push(found.failure(&name));
        }
    }
    if !verbose {
        report.passed = ok_packages; // without -v, only packages are reported
    }
    if report.passed + report.failed == 0 && report.errors > 0 {
        report.build_failed(report.errors as usize);
    }
    Some(report)
}

/// Returns the log of a test, which follows the test's line or, with `-v`, precedes it.
fn go_failure<'a>(lines: &[&'a str], at: usize, name: &str, places: &Places) -> Found<'a> {
    let depth = indentation(lines[at]);
    let ends = |l: &str| l.trim_start().starts_with("---");
    let after = until(&lines[at + 1..], |l| indentation(l) <= depth || ends(l));
    let own = |l: &&str| {
        ["RUN", "CONT", "NAME"]
            .iter()
            .any(|k| l.strip_prefix("=== ").and_then(|l| l.strip_prefix(k)).is_some_and(|n| n.trim() == name))
    };
    let before = lines[..at]
        .iter()
        .rposition(own)
        .map_or(&[][..], |start| until(&lines[start + 1..at], |l| l.starts_with("===") || ends(l)));
    let logged = if after.is_empty() { before } else { after };
    let mut found = Found::default();
    for line in logged {
        match line.trim_start().split_once(": ").and_then(|(place, text)| Some((places.place(place)?, text)))
        {
            Some((frame, text)) => {
                found.frames.push(frame);
                found.message.push(text);
            }
            None => found.message.push(line.trim_start()),
        }
    }
    found
}

pub(crate) fn maven(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let strip = |l: &str| {
        l.strip_prefix("[ERROR] ")
            .or_else(|| l.strip_prefix("[INFO] "))
            .or_else(|| l.strip_prefix("[WARNING] "))
            .unwrap_or(l)
            .to_owned()
    };
    if !lines.iter().any(|l| l.starts_with("[INFO]") || l.starts_with("[ERROR]")) {
        return None;
    }
    let mut report = TestReport::default();
    for line in
        lines.iter().map(|l| strip(l)).filter(|l| l.starts_with("Tests run:") && !l.contains("Time elapsed"))
    {
        let count = |label| value(&line, label).unwrap_or(0);
        let (failed, errors, skipped) = (count("Failures:"), count("Errors:"), count("Skipped:"));
        report.passed += count("Tests run:").saturating_sub(failed + errors + skipped);
        (report.failed, report.errors, report.skipped) =
            (report.failed + failed, report.errors + errors, report.skipped + skipped);
    }
    let mut compile_errors = 0;
    let mut in_list = false;
    for line in &lines {
        let Some(text) = line.strip_prefix("[ERROR]") else {
            in_list = false;
            continue;
        };
        if matches!(text.trim(), "Failures:" | "Errors:") {
            in_list = true;
        } else if let Some((place, message)) =
            text.trim().split_once("] ").and_then(|(p, m)| Some((p.split_once(":[")?, m)))
        {
            // /repo/src/main/java/A.java:[5,10] message
            let ((path, position), number) = (place, place.1.split(',').next().and_then(|n| n.parse().ok()));
            if let (Some(file), Some(number), true) = (places.inside(path), number, position.contains(',')) {
                let frame = (file, number, String::new());
                let before = report.failures.len();
                report.add_once(Found::new(&[message], [frame]).failure("compile error"));
                compile_errors += report.failures.len() - before;
            }
        } else if in_list && text.starts_with("   ") {
            // Class.method:12 message
            let text = text.trim();
            let (name, message) = text.split_once(' ').unwrap_or((text, ""));
            let (name, number) = name.rsplit_once(':').map_or((name, None), |(n, l)| (n, l.parse().ok()));
            let class = name.split(['.', '$', '[']).next().unwrap_or(name);
            report.failures.push(Failure {
                name: name.to_owned(),
                file: number.map(|_: u32| format!("{class}.java")),
                line: number,
                message: message.trim_start_matches("» ").to_owned(),
                ..Failure::default()
            });
        }
    }
    if compile_errors > 0 {
        report.errors += compile_errors as u32;
        report.build_failed(compile_errors);
    }
    let broken = lines.iter().find_map(|l| {
        l.strip_prefix("[ERROR] ")
            .filter(|l| l.starts_with("Failed to execute goal") || l.contains("Non-resolvable"))
    });
    if report.could_not_run.is_none() && report.failures.is_empty() && report.passed == 0 {
        report.could_not_run = broken.map(|l| l.chars().take(300).collect());
    }
    Some(report)
}

pub(crate) fn gradle(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let summary =
        lines.iter().rev().find(|l| l.contains(" tests completed") || l.contains(" test completed"));
    let failed_build =
        lines.iter().any(|l| l.starts_with("> Task ") || l.starts_with("FAILURE: Build failed"));
    if !failed_build {
        return None;
    }
    let mut report = TestReport::default();
    if let Some(summary) = summary {
        let count = |word| count(summary, word).unwrap_or(0);
        (report.failed, report.skipped) = (count("failed"), count("skipped"));
        report.passed = (count("tests") + count("test")).saturating_sub(report.failed + report.skipped);
    }
    for (at, line) in lines.iter().enumerate() {
        if let Some(name) =
            line.strip_suffix(" FAILED").filter(|n| n.contains(" > ") && !n.starts_with("> Task"))
        {
            let body = until(&lines[at + 1..], |l| !l.starts_with("    "));
            let place = body.iter().find_map(|l| {
                Places::split(l.trim().strip_prefix("at ")?.rsplit(['(', ' ']).next()?.trim_end_matches(')'))
            });
            let place = place.or_else(|| body.first().and_then(|l| Places::split(l.rsplit_once(" at ")?.1)));
            let message = until(body, |l| l.trim().starts_with("at "));
            let frame = place.and_then(|(f, l)| Some((places.inside(f)?, l, String::new())));
            report.failures.push(Found::new(message, frame).failure(name));
        }
    }
    if summary.is_none() {
        let errors = super::compilers::errors(output, places);
        if errors.is_empty() {
            // Gradle prints no counts after a success. After a failure, the last lines of the
            // output are shown instead of a report.
            return None;
        }
        report.build_failed(errors.len());
        report.errors = errors.len() as u32;
        report.failures = errors;
    }
    Some(report)
}

pub(crate) fn dotnet(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    let mut report = TestReport::default();
    let mut seen = false;
    for line in
        lines.iter().filter(|l| l.contains("Failed:") && l.contains("Passed:") && l.contains("Total:"))
    {
        seen = true;
        report.failed += value(line, "Failed:").unwrap_or(0);
        report.passed += value(line, "Passed:").unwrap_or(0);
        report.skipped += value(line, "Skipped:").unwrap_or(0);
    }
    for (at, line) in lines.iter().enumerate() {
        let Some((name, _)) = line.strip_prefix("  Failed ").and_then(|l| l.rsplit_once(" [")) else {
            continue;
        };
        let body =
            until(&lines[at + 1..], |l| l.is_empty() || l.starts_with("  Failed ") || l.contains("Total:"));
        let text = until(body, |l| l.trim() == "Stack Trace:");
        let place = body[text.len()..].iter().find_map(|l| {
            let (path, number) = l.rsplit_once(" in ")?.1.rsplit_once(":line ")?;
            Some((places.inside(path)?, number.trim().parse().ok()?, String::new()))
        });
        let mut found = Found::new(text, place);
        found.message.retain(|l| l.trim() != "Error Message:");
        report.failures.push(found.failure(name));
    }
    // `/repo/A.cs(3,5): error CS1002: ; expected [/repo/a.csproj]`.
    let mut errors = lines.iter().filter_map(|l| places.position(l)).peekable();
    if !seen && errors.peek().is_some() {
        for (frame, message) in errors {
            let message = message.rsplit_once(" [").map_or(message, |(m, _)| m);
            report.add_once(Found::new(&[message], [frame]).failure("compile error"));
        }
        report.errors = report.failures.len() as u32;
        report.build_failed(report.failures.len());
        return Some(report);
    }
    seen.then_some(report)
}

pub(crate) fn ctest(output: &str, places: &Places) -> Option<TestReport> {
    let lines: Vec<&str> = output.lines().collect();
    if lines.iter().any(|l| l.starts_with("No tests were found!!!")) {
        return Some(TestReport::default());
    }
    let summary = lines.iter().find(|l| l.contains("% tests passed"))?;
    let total = value(summary, "out of")?;
    let failed = value(summary, "passed,").unwrap_or(0);
    let mut report = TestReport { passed: total.saturating_sub(failed), failed, ..TestReport::default() };
    let start = lines
        .iter()
        .position(|l| l.starts_with("The following tests FAILED:"))
        .map_or(lines.len(), |at| at + 1);
    for line in lines[start..].iter().take_while(|l| !l.trim().is_empty()) {
        let Some((number, name)) = line.trim().split_once(" - ") else { continue };
        let name = name.rsplit_once(" (").map_or(name, |(n, _)| n);
        // The output follows the test's line: "1/2 Test #2: name ....***Failed  0.00 sec".
        let ran = lines.iter().position(|l| {
            l.contains(&format!("Test #{number}: ")) || l.contains(&format!("Test  #{number}: "))
        });
        let body = ran.map_or(&[][..], |at| &lines[at + 1..]);
        let end = body
            .iter()
            .position(|l| l.contains("Start ") && l.contains(": ") || l.contains("% tests passed"))
            .unwrap_or(0);
        let frame = body[..end].iter().find_map(|l| super::compilers::assertion(l, places));
        report.failures.push(Found::new(&body[..end], frame).failure(name));
    }
    Some(report)
}
