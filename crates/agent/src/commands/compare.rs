//! `agent compare`: shows which tasks were solved by only one of two batches.

use std::path::Path;

use batch::Folder;
use report::Comparison;

use crate::cli::Compare;
use crate::console;
use crate::exit::{Exit, Failure, Result};

/// Compares two batches.
pub(crate) fn run(command: &Compare) -> Result<Exit> {
    let read = |path: &Path| Folder::read(path).map_err(Failure::refused);
    let (a, b) = (read(&command.a)?, read(&command.b)?);
    let (name_a, name_b) = (command.a.display().to_string(), command.b.display().to_string());
    let comparison = Comparison::new((&name_a, &a), (&name_b, &b));
    let text = if command.json {
        serde_json::to_string_pretty(&comparison).map_err(Failure::refused)? + "\n"
    } else {
        comparison.to_text()
    };
    console::print(text)?;
    Ok(Exit::Success)
}
