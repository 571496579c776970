//! The two output streams. Results go to standard output. Progress and diagnostics go to standard
//! error. Whether text is colored depends on `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM=dumb`,
//! and on whether the stream is a terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use preview::{FileChange, Format, Paint, Surface, figures};

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::pager;

/// Columns to use if the width is unknown.
const WIDTH: usize = 80;
/// Lines to use if the height is unknown.
const HEIGHT: usize = 24;
/// The minimum width for drawing, in columns.
const NARROWEST: usize = 20;
/// The maximum width for drawing, in columns.
const WIDEST: usize = 400;

/// Returns whether to style text for standard output.
pub(crate) fn stdout_paint() -> Paint {
    Paint(anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never)
}

/// Returns whether to style text for standard error.
pub(crate) fn stderr_paint() -> Paint {
    Paint(anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never)
}

/// Prints text to stdout.
///
/// # Errors
/// If writing fails. The error is `BrokenPipe` if the reader has closed the pipe.
pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Reads `file`, or standard input if `file` is `None`. Messages refer to the content as `what`.
///
/// # Errors
/// If the content cannot be read, or is larger than `limit` bytes.
pub(crate) fn read_input(what: &str, file: Option<&Path>, limit: u64) -> Result<Vec<u8>> {
    let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let mut bytes = Vec::new();
    let read = match file {
        Some(path) => File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)),
        None => io::stdin().lock().take(limit + 1).read_to_end(&mut bytes),
    };
    read.map_err(|e| Failure::misuse(format!("cannot read {what} from {name}: {e}")))?;
    if bytes.len() as u64 > limit {
        let limit = figures::bytes(limit);
        return Err(Failure::misuse(format!("{what} from {name} is larger than {limit}")));
    }
    Ok(bytes)
}

/// Prints a line to standard error. Errors are ignored, because a closed stderr must not stop a
/// run.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Returns whether standard error is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Returns whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns the columns and lines of the terminal on standard output, or `None` if standard output
/// is not a terminal.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    let (columns, lines) = terminal_size::terminal_size_of(io::stdout()).filter(|_| stdout_is_terminal())?;
    Some((usize::from(columns.0), usize::from(lines.0)))
}

/// Returns the columns and lines of the terminal on standard error, or defaults if they are
/// unknown.
pub(crate) fn stderr_size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(io::stderr());
    let size = size.map(|(columns, lines)| (usize::from(columns.0), usize::from(lines.0)));
    size.filter(|(columns, lines)| *columns > 0 && *lines > 0).unwrap_or((WIDTH, HEIGHT))
}

/// Returns the width, in columns, for drawing on standard output.
pub(crate) fn width(variables: &std::collections::BTreeMap<String, String>) -> usize {
    let said = variables.get("COLUMNS").and_then(|text| text.parse::<usize>().ok()).filter(|n| *n > 0);
    said.or_else(|| Some(terminal()?.0).filter(|n| *n > 0)).unwrap_or(WIDTH).clamp(NARROWEST, WIDEST)
}

/// Shows changes on standard output. On a terminal, shows a summary and the changes through the
/// pager; the default format marks changed words. Elsewhere, the default format is a patch.
///
/// # Errors
/// If writing fails.
pub(crate) fn changes(changes: &[FileChange], format: Option<Format>, context: &Context) -> Result<()> {
    let paint = stdout_paint();
    // If color is forced, the output is meant for a person, not a program.
    let for_people = stdout_is_terminal() || paint.0;
    match format.unwrap_or(if for_people { Format::Words } else { Format::Unified }) {
        Format::Unified if !for_people => Ok(print(preview::patch(changes))?),
        format => {
            let surface = Surface { width: width(&context.environment.variables), paint };
            pager::print(&preview::render(changes, format, surface), context)
        }
    }
}
