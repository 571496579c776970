//! On a terminal, shows long output in a pager, as git does. The pager is `AGENT_PAGER`, `PAGER` or
//! `less`, in that order. `less` is told to exit if everything fits on the screen, and to keep
//! colors.

use std::io::Write;
use std::process::{Command, Stdio};

use unicode_width::UnicodeWidthStr;

use crate::console;
use crate::context::Context;
use crate::exit::Result;
use crate::interrupt::{self, Signals};

/// The exit code of a shell that cannot find a command.
const NOT_FOUND: i32 = 127;

/// Prints text to standard output, through the pager if it is longer than the terminal. Must not be
/// called inside an async runtime.
///
/// # Errors
/// If writing fails.
pub(crate) fn print(text: &str, context: &Context) -> Result<()> {
    let Some(pager) = wanted(text, context) else { return Ok(console::print(text)?) };
    let mut command = Command::new("/bin/sh");
    // A `less` inside the repository must not be run.
    let outside = context.repository.as_ref().unwrap_or(&context.directory);
    command.args(["-c", &pager]).env("PATH", workspace::search_path(outside)).stdin(Stdio::piped());
    // The text is UTF-8, regardless of the locale.
    for (name, value) in [("LESS", "FRX"), ("LESSCHARSET", "utf-8"), ("LV", "-c")] {
        if !context.environment.variables.contains_key(name) {
            command.env(name, value);
        }
    }
    // While the pager runs, only the pager reacts to Ctrl-C. If this process exited first, the
    // pager would be left holding the terminal.
    let status = interrupt::block_on(async {
        let _signals = Signals::take()?;
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // The pager may exit before it has read everything.
            let _ = input.write_all(text.as_bytes());
        }
        Ok(child.wait()?)
    })?;
    if status.code() == Some(NOT_FOUND) {
        console::print(text)?;
    }
    Ok(())
}

/// Returns the pager's command line, or `None` to print directly.
fn wanted(text: &str, context: &Context) -> Option<String> {
    let variable = |name: &str| context.environment.variables.get(name).map(String::as_str);
    let (columns, height) = console::terminal()?;
    if variable("CI").is_some_and(|v| !v.is_empty()) || variable("TERM").is_none_or(|t| t == "dumb") {
        return None;
    }
    let rows = |line: &str| columns_of(line).div_ceil(columns.max(1)).max(1);
    if text.lines().map(rows).sum::<usize>() < height {
        return None;
    }
    let pager = variable("AGENT_PAGER").or_else(|| variable("PAGER")).unwrap_or("less").trim();
    (!pager.is_empty() && pager != "cat").then(|| pager.to_owned())
}

/// Returns the width of a line in columns, ignoring color sequences.
fn columns_of(line: &str) -> usize {
    let pieces = line.split("\x1b[").enumerate();
    pieces
        .map(|(i, piece)| {
            if i == 0 { piece } else { piece.split_once('m').map_or("", |(_, text)| text) }.width()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_have_no_width() {
        assert_eq!(columns_of("\x1b[31m- \x1b[0m日本\x1b[32;7mx\x1b[0m"), 7);
    }
}
