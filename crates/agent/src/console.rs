//! The two output streams, and whether colour can be seen on them. Results go to standard output, everything about the way there
//! to standard error. Colour follows `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM=dumb` and whether the stream is a terminal.

use std::io::{self, IsTerminal, Write};

/// Columns where nothing tells how many there are.
const WIDTH: usize = 80;
/// Fewer columns are treated as this many.
const NARROWEST: usize = 20;
/// More are treated as this many.
const WIDEST: usize = 400;

/// Terminal styles by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Dim,
    Bold,
    Good,
    Bad,
    Warn,
    Call,
    /// What came, within a line that came.
    GoodStrong,
    /// What went, within a line that went.
    BadStrong,
}

impl Style {
    const fn start(self) -> &'static str {
        match self {
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Good => "\x1b[32m",
            Style::Bad => "\x1b[31m",
            Style::Warn => "\x1b[33m",
            Style::Call => "\x1b[36m",
            Style::GoodStrong => "\x1b[32;7m",
            Style::BadStrong => "\x1b[31;7m",
        }
    }
}

/// Whether to colour; makes styled text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self(anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never)
    }

    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self(anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never)
    }

    /// The text, styled where colour is on. The text has been made harmless before.
    pub(crate) fn paint(self, style: Style, text: impl std::fmt::Display) -> String {
        if self.0 { format!("{}{text}\x1b[0m", style.start()) } else { text.to_string() }
    }

    /// What begins a style that is ended by [`Paint::end`], for text that comes in pieces.
    pub(crate) fn begin(self, style: Style) -> &'static str {
        if self.0 { style.start() } else { "" }
    }

    /// What ends it.
    pub(crate) fn end(self) -> &'static str {
        if self.0 { "\x1b[0m" } else { "" }
    }
}

/// Prints a text on standard output.
///
/// # Errors
/// As the stream says; a reader that went away shows as `BrokenPipe`.
pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Prints a line on standard error. A standard error that is gone is no reason to stop.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether people look at standard error.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether people look at standard output.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns and lines of the terminal that standard output is; `None` when it is none.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    let (columns, lines) = terminal_size::terminal_size_of(io::stdout()).filter(|_| stdout_is_terminal())?;
    Some((usize::from(columns.0), usize::from(lines.0)))
}

/// Columns to draw in on standard output.
pub(crate) fn width(variables: &std::collections::BTreeMap<String, String>) -> usize {
    let said = variables.get("COLUMNS").and_then(|text| text.parse::<usize>().ok()).filter(|n| *n > 0);
    said.or_else(|| Some(terminal()?.0).filter(|n| *n > 0)).unwrap_or(WIDTH).clamp(NARROWEST, WIDEST)
}

/// A unified diff, made harmless and coloured.
pub(crate) fn diff(patch: &str, paint: Paint) -> String {
    let mut out = String::with_capacity(patch.len() + patch.len() / 8);
    for line in patch.split_inclusive('\n') {
        let (body, newline) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let clean = crate::sanitize::text(body);
        let style = match body.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', ..] => {
                Some(Style::Bold)
            }
            [b'+', ..] => Some(Style::Good),
            [b'-', ..] => Some(Style::Bad),
            [b'@', ..] => Some(Style::Call),
            _ => None,
        };
        match style {
            Some(style) => out.push_str(&paint.paint(style, clean)),
            None => out.push_str(&clean),
        }
        out.push_str(newline);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_coloured_and_cannot_colour_itself() {
        let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+\x1b[32mnew\n";
        assert_eq!(diff(patch, Paint(false)), "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+␛[32mnew\n");
        assert_eq!(
            diff("-a\n b", Paint(true)),
            "\x1b[31m-a\x1b[0m\n b",
            "a missing last newline stays missing"
        );
    }
}
