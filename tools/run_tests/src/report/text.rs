//! Helpers shared by the parsers: locations in files, counts, indentation.

use super::{Failure, TestReport};

/// Maximum number of lines in a message.
const MESSAGE_LINES: usize = 14;

/// Maximum number of stack frames shown, all of them in the work tree. This is enough to see where
/// the test is and where it failed.
const FRAMES: usize = 3;

/// Recognizes paths inside the work tree.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    root: String,
}

impl Places {
    pub(crate) fn new(root: &str) -> Self {
        Self { root: format!("{}/", root.trim_end_matches('/')) }
    }

    /// Returns a path relative to the work tree; `None` if the file is outside the work tree or
    /// part of a library.
    pub(crate) fn inside(&self, path: &str) -> Option<String> {
        let path = path.trim().trim_start_matches("file://");
        let path = path.strip_prefix(&self.root).unwrap_or(path).trim_start_matches("./");
        let foreign = path.is_empty()
            || path.starts_with(['/', '<', '~'])
            || path.starts_with("node:")
            || path.split('/').any(|part| {
                matches!(part, ".." | "node_modules" | "site-packages" | ".venv" | "venv" | ".cargo")
            });
        (!foreign && !path.contains(['\n', '\0'])).then(|| path.to_owned())
    }

    /// Parses a location such as `path:line` or `path:line:column`, whether or not it is inside the
    /// work tree.
    pub(crate) fn split(text: &str) -> Option<(&str, u32)> {
        let text = text.trim();
        let (rest, last) = text.rsplit_once(':')?;
        let last: u32 = last.parse().ok()?;
        match rest.rsplit_once(':') {
            Some((path, line)) if line.parse::<u32>().is_ok() => Some((path, line.parse().ok()?)),
            _ => Some((rest, last)),
        }
        .filter(|(path, _)| !path.is_empty())
    }

    /// Same as [`Places::split`], but only for files in the work tree.
    pub(crate) fn place(&self, text: &str) -> Option<Frame> {
        let (path, line) = Self::split(text)?;
        Some((self.inside(path)?, line, String::new()))
    }

    /// Parses `/repo/a.ts(3,5): error TS2322: …`, the format of TypeScript and .NET. Returns the
    /// location and the message.
    pub(crate) fn position<'a>(&self, line: &'a str) -> Option<(Frame, &'a str)> {
        let (place, message) = line.split_once("): error ")?;
        let (path, position) = place.rsplit_once('(')?;
        let frame = (self.inside(path)?, position.split(',').next()?.parse().ok()?, String::new());
        Some((frame, message))
    }
}

/// A stack frame: the file, the line number and the source line.
pub(crate) type Frame = (String, u32, String);

/// The parts of a failure found so far.
#[derive(Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) message: Vec<&'a str>,
    /// Outermost first.
    pub(crate) frames: Vec<Frame>,
}

impl<'a> Found<'a> {
    pub(crate) fn new(message: &[&'a str], frames: impl IntoIterator<Item = Frame>) -> Self {
        Self { message: message.to_vec(), frames: frames.into_iter().collect() }
    }

    pub(crate) fn failure(mut self, name: &str) -> Failure {
        self.frames.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        let last = self.frames.last().map(|(file, line, _)| (file.clone(), *line));
        if self.frames.len() > FRAMES {
            let skipped = self.frames.len() - FRAMES;
            self.frames.drain(1..=skipped);
        }
        let trace = self.frames.iter().map(|(file, line, source)| match source.trim() {
            "" => format!("{file}:{line}"),
            source => format!("{file}:{line}: {source}"),
        });
        Failure {
            name: name.to_owned(),
            file: last.as_ref().map(|(file, _)| file.clone()),
            line: last.map(|(_, line)| line),
            message: message(&self.message),
            trace: trace.collect(),
        }
    }
}

/// Joins the lines of a message, stripping surrounding empty lines and common indentation.
fn message(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|l| l.trim_end()).collect();
    let first = lines.iter().position(|l| !l.is_empty()).unwrap_or(lines.len());
    let last = lines.iter().rposition(|l| !l.is_empty()).map_or(first, |at| at + 1);
    let lines = &lines[first..last];
    let indent = lines.iter().filter(|l| !l.is_empty()).map(|l| indentation(l)).min().unwrap_or(0);
    let mut kept: Vec<&str> =
        lines.iter().take(MESSAGE_LINES).map(|l| l.get(indent..).unwrap_or("")).collect();
    if lines.len() > MESSAGE_LINES {
        kept.push("…");
    }
    kept.join("\n")
}

/// Returns the lines before the first one for which `ends` is true.
pub(crate) fn until<'b, 'a>(lines: &'b [&'a str], ends: impl Fn(&str) -> bool) -> &'b [&'a str] {
    &lines[..lines.iter().position(|l| ends(l)).unwrap_or(lines.len())]
}

impl TestReport {
    pub(crate) fn add_once(&mut self, failure: Failure) {
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    pub(crate) fn build_failed(&mut self, errors: usize) {
        self.could_not_run = Some(format!("build failed with {}", several(errors, "error")));
    }

    /// If no test passed and every failure is a file that cannot be loaded, records that the tests
    /// could not run.
    pub(crate) fn check_loaded(&mut self) {
        let files = self.unloadable();
        if files > 0 && self.passed == 0 && files == self.failures.len() {
            self.could_not_run = Some(format!("{} cannot be loaded", several(files, "test file")));
        }
    }

    pub(crate) fn unloadable(&self) -> usize {
        self.failures.iter().filter(|f| f.name.ends_with("(cannot be loaded)")).count()
    }
}

/// Returns the name under which a test file that cannot be loaded is reported as a failure.
pub(crate) fn unloadable(file: &str) -> String {
    format!("{file} (cannot be loaded)")
}

/// Counts leading spaces.
pub(crate) fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Finds each number along with the word that follows it, in a summary such as
/// `3 failed, 1 passed`.
pub(crate) fn counts(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let words: Vec<&str> =
        text.split([' ', ',', '|', '(', ')', '=', ';']).filter(|w| !w.is_empty()).collect();
    (1..words.len()).filter_map(move |at| Some((words[at - 1].parse().ok()?, words[at])))
}

/// Finds the number before a word.
pub(crate) fn count(text: &str, word: &str) -> Option<u32> {
    counts(text).find(|(_, w)| *w == word).map(|(n, _)| n)
}

/// Finds the number after a label: `value("Failures: 1, Errors: 2", "Errors:")` is 2.
pub(crate) fn value(text: &str, label: &str) -> Option<u32> {
    let rest = &text[text.find(label)? + label.len()..];
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Formats a count with its noun.
pub(crate) fn several(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
