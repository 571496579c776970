//! The commands that start or continue a run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use preview::Format;

use super::preview_format;
use crate::flags::{AskFlags, RunFlags};

#[derive(Debug, Default, Args)]
pub(crate) struct Run {
    /// The task; `-` reads it from stdin
    #[arg(required_unless_present_any = ["task_file", "template", "issue"])]
    pub(crate) task: Option<String>,

    /// Values for the template, each `KEY=VALUE`
    #[arg(value_name = "KEY=VALUE", requires = "template", hide = true)]
    pub(crate) values: Vec<String>,

    /// Read the task from a file
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    pub(crate) task_file: Option<PathBuf>,

    /// Create the task from the template NAME.md in .agents/templates or in your settings folder;
    /// the arguments provide its values: KEY=VALUE …
    #[arg(long, value_name = "NAME", conflicts_with_all = ["task_file", "issue"])]
    pub(crate) template: Option<String>,

    /// Resolve the issue in this file (JSON as printed by `gh issue view --json`; `-` is stdin) or
    /// at this URL (fetched with `gh` or `glab`); TASK is appended to it
    #[arg(long, value_name = "FILE|URL", conflicts_with = "task_file")]
    pub(crate) issue: Option<String>,

    /// Work in a worktree beside the repository, on the new branch agent/NAME, and leave it there
    /// [default NAME: the session's id]
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "",
        conflicts_with = "dry_run")]
    pub(crate) worktree: Option<String>,

    /// Commit the changes if the run ends as verified
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) commit: bool,
    /// Show this image to the model along with the task (needs a model that accepts images); may be
    /// repeated
    #[arg(long = "image", value_name = "FILE")]
    pub(crate) images: Vec<PathBuf>,

    /// Work on an overlay or copy of the repository, and show the changes for `agent apply`;
    /// `--dry-run=plan` stops before the first command
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "run")]
    pub(crate) dry_run: Option<DryRun>,

    /// Show the changes of a dry run in this format [default: words on a terminal, otherwise
    /// unified]
    #[arg(long, value_name = "FORMAT", value_parser = preview_format(), requires = "dry_run")]
    pub(crate) preview: Option<Format>,

    /// Make the model return a result that matches the JSON Schema in this file, and print the
    /// result to stdout instead of the patch
    #[arg(long, value_name = "FILE")]
    pub(crate) output_schema: Option<PathBuf>,

    /// Write the result to this file instead of stdout
    #[arg(short, long, value_name = "FILE", requires = "output_schema")]
    pub(crate) output: Option<PathBuf>,

    /// Print the session's events to stdout as they happen, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show only the result, no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// The question; `-` reads it from stdin
    pub(crate) question: String,

    /// Make the model return an answer that matches the JSON Schema in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output_schema: Option<PathBuf>,

    /// Write the answer to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print the session's events to stdout as they happen, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show only the answer, no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) settings: AskFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The session: an id, a prefix of one, or `last`
    #[arg(default_value = "last")]
    pub(crate) session: String,

    /// Continue the session with a new message, even if the session has ended. The message resets
    /// the budgets
    pub(crate) message: Option<String>,

    /// Copy the session to a new id first, and leave the original unchanged
    #[arg(long)]
    pub(crate) fork: bool,

    /// Print the session's events to stdout as they happen, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show only the result, no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Acp {
    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The session (an id, a prefix of one, or `last`), or an exported file
    #[arg(default_value = "last", value_name = "SESSION|FILE")]
    pub(crate) session: String,

    /// Run commands and verifications in the sandbox, on a copy, instead of using their recorded
    /// results
    #[arg(long)]
    pub(crate) run_commands: bool,

    /// Use the recorded results of all tools, so that only the agent itself is tested
    #[arg(long, conflicts_with = "run_commands")]
    pub(crate) recorded: bool,

    /// Use the current settings instead of the recorded ones
    #[arg(long)]
    pub(crate) current_settings: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

/// How far a dry run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    // Run commands and the verification.
    Run,
    // Stop before the first command.
    Plan,
}
