//! Parses messages of compilers and crashed programs, if no test runner has reported anything.

use super::{
    Failure, TestReport,
    text::{Found, Places, several},
};

/// The maximum number of errors kept.
const ERRORS: usize = 20;

pub(crate) fn parse(output: &str, places: &Places) -> Option<TestReport> {
    let mut failures = errors(output, places);
    if !failures.is_empty() {
        let errors = failures.len();
        let could_not_run = Some(format!("build failed with {}", several(errors, "error")));
        return Some(TestReport { errors: errors as u32, failures, could_not_run, ..TestReport::default() });
    }
    failures.extend(output.lines().filter(|l| assertion(l, places).is_some()).take(ERRORS).map(|line| {
        let frames = assertion(line, places).into_iter().collect();
        Found { message: vec![line.to_owned()], frames }.failure("assertion")
    }));
    failures.extend(super::python::uncaught(output, places));
    (!failures.is_empty()).then(|| TestReport {
        failed: failures.len() as u32,
        failures,
        ..TestReport::default()
    })
}

/// Errors with a place: gcc, clang, javac, rustc, go, tsc.
pub(crate) fn errors(output: &str, places: &Places) -> Vec<Failure> {
    let lines: Vec<&str> = output.lines().collect();
    let mut errors = super::cargo::compile_errors(&lines, places);
    for (at, line) in lines.iter().enumerate() {
        let Some((place, message)) =
            line.split_once(" error: ").or_else(|| line.split_once(" fatal error: "))
        else {
            errors.extend(typescript(line, places));
            continue;
        };
        if let Some((file, number)) = places.place(place.trim_end_matches(':')) {
            let frames = vec![(file, number, String::new())];
            let mut failure = Found { message: vec![message.to_owned()], frames }.failure("compile error");
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

/// `src/a.ts(3,5): error TS2322: …`.
fn typescript(line: &str, places: &Places) -> Option<Failure> {
    let (place, message) = line.split_once("): error TS")?;
    let (path, position) = place.rsplit_once('(')?;
    let frame = (places.inside(path)?, position.split(',').next()?.parse().ok()?, String::new());
    Some(Found { message: vec![format!("TS{message}")], frames: vec![frame] }.failure("compile error"))
}

/// `prog: prog.c:2: main: Assertion …` (glibc) and `Assertion failed: (…), function f, file a.c,
/// line 3.` (BSD).
pub(crate) fn assertion(line: &str, places: &Places) -> Option<(String, u32, String)> {
    if let Some((_, rest)) = line.split_once("Assertion failed: ").and_then(|(_, r)| r.split_once(", file "))
    {
        let (path, number) = rest.split_once(", line ")?;
        return Some((places.inside(path)?, number.trim_end_matches('.').parse().ok()?, String::new()));
    }
    let (before, _) = line.split_once(": Assertion ")?;
    before.split(": ").find_map(|part| places.place(part)).map(|(f, l)| (f, l, String::new()))
}
