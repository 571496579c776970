//! Errors in files, as shown to the model.

use lsp_types::{Diagnostic, DiagnosticSeverity, NumberOrString};
use secrets::Secrets;

/// The maximum number of errors to compare per file.
const MAX_KEPT: usize = 10_000;
/// Messages are truncated to this many characters before their secrets are masked.
const MAX_RAW: usize = 64 << 10;
/// The maximum number of errors to show after an edit.
const MAX_SHOWN: usize = 10;
/// The maximum length of a message to show, in characters.
const MAX_MESSAGE: usize = 240;

/// An error that a language server reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the file, relative to the root.
    pub path: String,
    /// The 1-based line number.
    pub line: u32,
    /// What is wrong, on one line.
    pub message: String,
    /// The server's code for this kind of error.
    pub code: Option<String>,
}

impl Problem {
    /// Returns the errors among these diagnostics, sorted by line. A diagnostic without a severity
    /// is treated as an error.
    pub(crate) fn of_file(path: &str, diagnostics: &[Diagnostic], secrets: &Secrets) -> Vec<Self> {
        let errors = diagnostics.iter().filter(|d| d.severity.is_none_or(|s| s == DiagnosticSeverity::ERROR));
        let mut problems: Vec<_> =
            errors.take(MAX_KEPT).map(|error| Self::of(path, error, secrets)).collect();
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn of(path: &str, error: &Diagnostic, secrets: &Secrets) -> Self {
        let words: Vec<_> = error.message.split_whitespace().collect();
        let code = error.code.as_ref().map(|code| match code {
            NumberOrString::Number(number) => number.to_string(),
            NumberOrString::String(text) => short(text, 40, secrets),
        });
        Self {
            path: path.to_owned(),
            line: error.range.start.line.saturating_add(1),
            message: short(&words.join(" "), MAX_MESSAGE, secrets),
            code: code.filter(|code| !code.is_empty()),
        }
    }

    /// Returns whether this is the same error, possibly on a different line.
    fn is_like(&self, other: &Self) -> bool {
        (&self.message, &self.code) == (&other.message, &other.code)
    }
}

/// Masks the secrets in the text and shortens it to one line. Masking comes first, because a
/// truncated secret would not be recognized.
pub(crate) fn short(text: &str, width: usize, secrets: &Secrets) -> String {
    let end = text.char_indices().nth(MAX_RAW).map_or(text.len(), |(end, _)| end);
    preview::sanitize::short(&secrets.mask(&text[..end]), width)
}

/// Returns the errors that are not among the old ones of the same file. If an error occurs more
/// often than before, the last occurrences are treated as new.
pub(crate) fn without(found: Vec<Problem>, old: &[Problem]) -> Vec<Problem> {
    let mut old: Vec<_> = old.iter().collect();
    let is_new = |problem: &Problem| match old.iter().position(|old| old.is_like(problem)) {
        Some(at) => {
            old.swap_remove(at);
            false
        }
        None => true,
    };
    let mut is_new = is_new;
    found.into_iter().filter(|problem| is_new(problem)).collect()
}

/// Describes errors for the model, one per line. Returns `None` if there are none.
#[must_use]
pub fn describe(problems: &[Problem]) -> Option<String> {
    if problems.is_empty() {
        return None;
    }
    let mut lines = vec!["The language server reports new errors:".to_owned()];
    lines.extend(problems.iter().take(MAX_SHOWN).map(|Problem { path, line, message, code }| {
        let code = code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        format!("{}:{line}: {message}{code}", preview::sanitize::line(path))
    }));
    if let more @ 1.. = problems.len().saturating_sub(MAX_SHOWN) {
        lines.push(format!("({more} more)"));
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use lsp_types::{Position, Range};

    use super::*;

    fn diagnostic(line: u32, message: &str, severity: Option<DiagnosticSeverity>) -> Diagnostic {
        let at = Position::new(line, 0);
        Diagnostic { range: Range::new(at, at), severity, message: message.into(), ..Diagnostic::default() }
    }

    #[test]
    fn only_errors_count_and_their_messages_are_one_line() {
        let error = Some(DiagnosticSeverity::ERROR);
        let found = Problem::of_file(
            "a.py",
            &[
                diagnostic(7, "second\n  line\u{1b}[31m", error),
                diagnostic(2, "first", None),
                diagnostic(3, "hint", Some(DiagnosticSeverity::WARNING)),
                diagnostic(u32::MAX, "far away", error),
            ],
            &Secrets::disabled(),
        );
        let text = describe(&found).unwrap();
        assert_eq!(
            text,
            "The language server reports new errors:\na.py:3: first\na.py:8: second line␛[31m\na.py:4294967295: far away"
        );
        assert_eq!(describe(&[]), None);
    }

    #[test]
    fn an_old_error_on_another_line_is_not_new() {
        let of = |lines: &[(u32, &str)]| {
            let diagnostics: Vec<_> = lines.iter().map(|(n, m)| diagnostic(*n, m, None)).collect();
            Problem::of_file("a.rs", &diagnostics, &Secrets::disabled())
        };
        let old = of(&[(1, "x"), (5, "y")]);
        let now = of(&[(3, "x"), (4, "x"), (9, "y"), (2, "z")]);
        let lines: Vec<_> = without(now, &old).iter().map(|p| (p.line, p.message.clone())).collect();
        assert_eq!(lines, [(3, "z".to_owned()), (5, "x".to_owned())]);
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<_> = (0..5_000).map(|n| diagnostic(n, &"m".repeat(1_000), None)).collect();
        let text = describe(&Problem::of_file("a.rs", &many, &Secrets::disabled())).unwrap();
        assert!(text.ends_with("(4990 more)") && text.len() < 4_000, "{text}");
    }

    #[test]
    fn bug_a_secret_was_cut_before_it_was_masked() {
        let key = format!("sk-{}", "a1B2c3D4".repeat(5));
        let secrets = Secrets::new("session", vec![key.clone()]);
        let message = format!("{} {key}", "m".repeat(MAX_MESSAGE - 12));
        let found = Problem::of_file("a.rs", &[diagnostic(0, &message, None)], &secrets);
        assert!(!found[0].message.contains("sk-a1B2"), "{}", found[0].message);
    }
}
