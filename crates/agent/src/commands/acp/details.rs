//! Supplies details about calls that the journal does not spell out: their kinds, titles, locations
//! and changes. The changes come from the tree's history.

use std::path::{Path, PathBuf};

use ::acp::Details;
use agent_client_protocol::v1::schema::ToolKind;
use preview::FileChange;
use secrets::Secrets;
use serde_json::Value;
use tool_api::{Effect, Spec, TypedTool};
use workspace::{By, History};

use crate::commands::changes;
use crate::masking;
use crate::render;

/// Details about the calls of one session. Changes are read from the history of the session's tree.
pub(super) struct TreeDetails {
    /// The folder that holds the history.
    state: PathBuf,
    secrets: Secrets,
    /// The id of the last record whose changes were shown.
    seen: u64,
}

impl TreeDetails {
    /// Creates the details for a run. History records up to `seen` are not shown as edits made by
    /// this run.
    pub(super) fn new(state: PathBuf, secrets: Secrets, seen: u64) -> Self {
        Self { state, secrets, seen }
    }
}

/// Returns the id of the last record in a history, or 0 if there is none.
pub(super) fn last_record(state: &Path) -> u64 {
    let history = History::open(state).ok();
    history.and_then(|history| history.records().last().map(|record| record.id)).unwrap_or(0)
}

/// Returns the protocol's kind for calls with this effect.
pub(super) fn kind_of(effect: Effect) -> ToolKind {
    match effect {
        Effect::Read => ToolKind::Read,
        Effect::Write => ToolKind::Edit,
        Effect::Execute => ToolKind::Execute,
    }
}

impl Details for TreeDetails {
    fn kind(&self, tool: &str) -> Option<ToolKind> {
        let finish: Spec = planner::Finish.spec();
        match tool {
            // The final summary already says what `finish` says.
            name if name == finish.name => None,
            tool_apply_patch::ApplyPatch::NAME => Some(ToolKind::Edit),
            tool_search::Search::NAME => Some(ToolKind::Search),
            "list_files" | tool_symbols::Symbols::NAME => Some(ToolKind::Search),
            "read_file" => Some(ToolKind::Read),
            "run_command" | "run_tests" => Some(ToolKind::Execute),
            _ => Some(ToolKind::Other), // replaced when the call starts
        }
    }

    fn title(&self, arguments: &Value) -> String {
        render::summarize(arguments)
    }

    fn place(&self, arguments: &Value) -> Option<(String, Option<u32>)> {
        let line = arguments["start_line"].as_u64().and_then(|line| u32::try_from(line).ok());
        Some((arguments["path"].as_str()?.to_owned(), line))
    }

    fn changes(&mut self, turn: u32, record: Option<u64>) -> Vec<FileChange> {
        let Ok(history) = History::open(&self.state) else { return Vec::new() };
        let is_next = |by: By, of: u32, id: u64| by == By::Edit && of == turn && id > self.seen;
        let next = || history.records().iter().find(|r| is_next(r.by, r.turn, r.id)).map(|r| r.id);
        let Some(record) = record.or_else(next) else { return Vec::new() };
        self.seen = self.seen.max(record);
        masking::shown(changes::shown(history.of(record).unwrap_or_default()), &self.secrets)
    }
}
