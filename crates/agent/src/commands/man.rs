//! `agent man FOLDER`: writes the man pages, for packages.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::exit::{Exit, Result};

/// Writes one page for each command.
pub(crate) fn run(folder: &Path) -> Result<Exit> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    Ok(Exit::Success)
}
