//! Parses messages from compilers and crashed programs. Used if no test runner has reported
//! anything.

use super::{
    Failure, TestReport,
    text::{Found, Frame, Places},
};

/// Maximum number of errors kept.
const ERRORS: usize = 20;

pub(crate) fn parse(output: &str, places: &Places) -> Option<TestReport> {
    let mut failures = errors(output, places);
    if !failures.is_empty() {
        let mut report = TestReport { errors: failures.len() as u32, failures, ..TestReport::default() };
        report.build_failed(report.failures.len());
        return Some(report);
    }
    let assertions = output.lines().filter_map(|l| Some(Found::new(&[l], [assertion(l, places)?])));
    failures.extend(assertions.take(ERRORS).map(|found| found.failure("assertion")));
    failures.extend(super::python::uncaught(output, places));
    (!failures.is_empty()).then(|| TestReport {
        failed: failures.len() as u32,
        failures,
        ..TestReport::default()
    })
}

/// Parses errors that include a location, in the formats of gcc, clang, javac, rustc, go and tsc.
pub(crate) fn errors(output: &str, places: &Places) -> Vec<Failure> {
    let lines: Vec<&str> = output.lines().collect();
    let mut errors = super::cargo::compile_errors(&lines, places);
    for (at, line) in lines.iter().enumerate() {
        let Some((place, message)) =
            line.split_once(" error: ").or_else(|| line.split_once(" fatal error: "))
        else {
            let found = places.position(line).filter(|(_, message)| message.starts_with("TS"));
            errors.extend(found.map(|(frame, m)| Found::new(&[m], [frame]).failure("compile error")));
            continue;
        };
        if let Some(frame) = places.place(place.trim_end_matches(':')) {
            let mut failure = Found::new(&[message], [frame]).failure("compile error");
            failure.trace = lines[at + 1..]
                .iter()
                .take(2)
                .take_while(|l| l.starts_with(' '))
                .map(|l| (*l).to_owned())
                .collect();
            errors.push(failure);
        }
    }
    errors.truncate(ERRORS);
    errors
}

/// Parses the location of a failed assertion: `prog: prog.c:2: main: Assertion …` (glibc) or
/// `Assertion failed: (…), function f, file a.c, line 3.` (BSD).
pub(crate) fn assertion(line: &str, places: &Places) -> Option<Frame> {
    if let Some((_, rest)) = line.split_once("Assertion failed: ").and_then(|(_, r)| r.split_once(", file "))
    {
        let (path, number) = rest.split_once(", line ")?;
        return Some((places.inside(path)?, number.trim_end_matches('.').parse().ok()?, String::new()));
    }
    let (before, _) = line.split_once(": Assertion ")?;
    before.split(": ").find_map(|part| places.place(part))
}
