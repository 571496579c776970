//! The command line: what was typed, as plain data. Nothing here looks at the environment or the disk; that is `layers`' work.
//! Flags that are settings come from their definitions in `settings`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::flags::{RunFlags, SandboxFlags, ServerFlags, ToolFlags};
use crate::{exit, settings};
use preview::Format;

const SOURCES: &str = "Settings come from flags, AGENT_… variables, .agent.toml in the repository, the user's \
config.toml and defaults: see `agent config show`. AGENT_LOG=debug prints diagnostics. AGENT_PAGER, else PAGER, \
shows what is longer than the terminal.";

/// An autonomous coding agent for DeepSeek and other open models.
#[derive(Debug, Parser)]
#[command(
    name = "agent",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = SOURCES
)]
pub(crate) struct Cli {
    /// Work as if started in this folder
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub(crate) directory: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Work on a task in this repository until it is done and verified
    #[command(after_help = exit::table())]
    Run(Run),
    /// Go on with a run that was killed, interrupted, or left by its server
    #[command(after_help = exit::table())]
    Resume(Resume),
    /// Run a session again offline, with the recorded answers of the model, and show the first difference
    #[command(after_help = exit::replay_table())]
    Replay(Replay),
    /// Work on many tasks, unattended
    #[command(after_help = exit::batch_table())]
    Batch(Batch),
    /// Apply a patch, in any form a model writes, all of it or nothing
    #[command(after_help = exit::patch_table())]
    Patch(Patch),
    /// Show what a session changed
    Diff(DiffSession),
    /// Bring what a dry run did to the repository
    #[command(override_usage = "agent apply [OPTIONS] <SESSION>", after_help = exit::changes_table())]
    Apply(Apply),
    /// Put back what a session changed
    #[command(override_usage = "agent undo [OPTIONS] <SESSION>", after_help = exit::changes_table())]
    Undo(Undo),
    /// Look at past runs
    #[command(subcommand)]
    Sessions(Sessions),
    /// Look after the models of an Ollama server
    #[command(subcommand)]
    Models(Models),
    /// Look at the tools a model is given, or call one by hand
    #[command(subcommand)]
    Tools(Tools),
    /// Show what the agent would make of a model's output
    #[command(after_help = exit::parse_table())]
    Parse(Parse),
    /// Run a command confined as those of a run are
    Sandbox(RunInSandbox),
    /// Check that a run could start, and say how to mend what is wrong
    Doctor(Doctor),
    /// Look at the settings
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The task; `-` reads it from standard input
    #[arg(required_unless_present = "task_file")]
    pub(crate) task: Option<String>,

    /// Read the task from a file
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    pub(crate) task_file: Option<PathBuf>,

    /// Work beside the repository, tests included, and leave it as it is: shows the changes, to be applied with `agent apply`;
    /// plan stops before the first command
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "run")]
    pub(crate) dry_run: Option<DryRun>,

    /// How the changes of a dry run are shown [default: words on a terminal, else the patch]
    #[arg(long, value_name = "FORMAT", value_parser = preview_format(), requires = "dry_run")]
    pub(crate) preview: Option<Format>,

    /// Print the session's events on standard output as they happen, one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show nothing on the way, only how it ended
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The session: its id, the beginning of it, or last
    #[arg(default_value = "last")]
    pub(crate) session: String,

    /// Print the session's events on standard output as they happen, one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show nothing on the way, only how it ended
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The session: its id, the beginning of it, or last; or an exported file
    #[arg(default_value = "last", value_name = "SESSION|FILE")]
    pub(crate) session: String,

    /// Run commands and verifications too, in the sandbox and beside the repository; without it their results come from the record
    #[arg(long)]
    pub(crate) run_commands: bool,

    /// Take what all tools answered from the record: only the agent itself is tested
    #[arg(long, conflicts_with = "run_commands")]
    pub(crate) recorded: bool,

    /// With the settings of here and now in place of the recorded ones
    #[arg(long)]
    pub(crate) current_settings: bool,

    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

/// How far a dry run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    // To the end, commands and verification included.
    Run,
    // Until a command would run.
    Plan,
}

#[derive(Debug, Args)]
pub(crate) struct Batch {
    /// A JSONL, YAML or SWE-bench file, or a folder of Markdown tasks
    pub(crate) tasks: PathBuf,

    /// Tasks at a time
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,

    /// Where results go; what has a result there is not done again [default: beside TASKS, as `.results`]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// The folder with the clones that SWE-bench instances name
    #[arg(long, value_name = "DIR")]
    pub(crate) repos: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// The patch: unified diff, `*** Begin Patch`, SEARCH/REPLACE blocks, or JSON; `-` or nothing reads standard input
    pub(crate) file: Option<String>,

    /// The file that is meant where the patch names none; from the repository's root, as all paths
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    #[command(flatten)]
    pub(crate) trial: Trial,

    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffSession {
    #[command(flatten)]
    pub(crate) session: SessionId,

    /// Only what this turn changed
    #[arg(long, value_name = "N")]
    pub(crate) turn: Option<u32>,

    /// How [default: words on a terminal, else unified]
    #[arg(long, value_name = "FORMAT", value_parser = preview_format())]
    pub(crate) preview: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// An id, a prefix of one, or `last`
    pub(crate) session: Option<String>,

    /// Merge with what has been changed meanwhile, where that touches other lines
    #[arg(long)]
    pub(crate) merge: bool,

    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// An id, a prefix of one, or `last`
    pub(crate) session: Option<String>,

    /// Keep what was changed up to this turn
    #[arg(long, value_name = "TURN")]
    pub(crate) to: Option<u32>,

    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// Looking before leaping.
#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// Only verify that all of it could be done; change nothing
    #[arg(long)]
    pub(crate) check: bool,

    /// Show what would be done; change nothing. FORM is words, side-by-side, unified or none
    #[arg(long, value_name = "FORM", num_args = 0..=1, default_missing_value = "")]
    preview: Option<String>,
}

impl Trial {
    /// Whether to show, and how; `positional` is the argument before or behind, which may have been taken for the form.
    ///
    /// # Errors
    /// A word that is neither.
    pub(crate) fn preview(&self, positional: &mut Option<String>) -> Result<Option<Option<Format>>, String> {
        let Some(word) = self.preview.as_deref() else { return Ok(None) };
        match (word.parse::<Format>(), &positional) {
            _ if word.is_empty() => Ok(Some(None)),
            (Ok(form), _) => Ok(Some(Some(form))),
            (Err(_), None) => {
                *positional = Some(word.to_owned());
                Ok(Some(None))
            }
            (Err(message), Some(_)) => Err(message),
        }
    }
}

fn preview_format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::NAMES).try_map(|name| name.parse())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List them, the newest last
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show what happened in one
    Show {
        #[command(flatten)]
        session: SessionId,
        /// The recorded events, one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Write one out as a file that replays anywhere, with the files that it looked at and changed; says what it holds
    Export {
        #[command(flatten)]
        session: SessionId,
        /// Where to, a file that is not there yet; standard output without it
        file: Option<PathBuf>,
        /// The same
        #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
        output: Option<PathBuf>,
        /// Leave out the repository's files: it replays then with what tools answered
        #[arg(long)]
        no_contents: bool,
    },
    /// Remove sessions with their logs
    Rm {
        /// Ids, prefixes of ids, or `last`
        #[arg(required = true, value_name = "SESSION")]
        sessions: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SessionId {
    /// An id, a prefix of one, or `last`
    #[arg(value_name = "SESSION", default_value = "last")]
    pub(crate) id: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List the models that are there
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ServerFlags,
    },
    /// Show what is known of a model
    Show {
        /// The model's name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ServerFlags,
    },
    /// Download a model
    Pull {
        /// The model's name
        name: String,
        #[command(flatten)]
        settings: ServerFlags,
    },
    /// Delete a model
    Rm {
        /// The model's name
        name: String,
        #[command(flatten)]
        settings: ServerFlags,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tools {
    /// List them with what they do
    List,
    /// Print the JSON Schema of a tool's arguments; without a name, of all tools, and what the model is shown of them
    Schema {
        /// The tool's name
        name: Option<String>,
        #[command(flatten)]
        settings: ToolFlags,
    },
    /// Call a tool in this repository, as a run would
    Call {
        /// The tool's name
        name: String,
        /// Its arguments as a JSON object; `-` reads them from standard input
        #[arg(default_value = "{}")]
        arguments: String,
        /// The whole outcome as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ToolFlags,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Parse {
    /// The model's output, as raw text; `-` or nothing reads standard input
    pub(crate) file: Option<PathBuf>,

    /// Read JSON lines {"id", "chunks": [text or {"hex"}], "end": "stop" or "length"} and answer each with a line
    #[arg(long)]
    pub(crate) chunks: bool,

    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunInSandbox {
    /// The command and its arguments
    #[arg(required_unless_present = "explain", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,

    /// Only say what is enforced here
    #[arg(long)]
    pub(crate) explain: bool,

    #[command(flatten)]
    pub(crate) settings: SandboxFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// As one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show each setting, its value and where it comes from
    #[command(after_help = settings::trust_help())]
    Show {
        /// As one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: RunFlags,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
