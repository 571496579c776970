//! In `ask` mode, asks the user before each call that may change something: edits, commands, and
//! MCP tools that are not read-only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::acp::{Mode, Updates};
use agent_client_protocol::v1::schema::{
    PermissionOption, PermissionOptionKind, RequestPermissionOutcome, RequestPermissionRequest,
    ToolCallContent, ToolCallId, ToolCallUpdate, ToolCallUpdateFields,
};
use async_trait::async_trait;
use preview::{FileChange, Image, sanitize};
use secrets::Secrets;
use serde_json::Value;
use tokio::sync::watch;
use tool_api::{Effect, Outcome, Spec, ToolError};
use tool_apply_patch::{ApplyPatch, Arguments};
use workspace::Workspace;

use super::details::{TreeDetails, kind_of};
use super::turn::Editor;
use crate::gate::Gate;
use crate::masking;
use crate::render;

/// The "always" answers in a session: for each tool, whether calls to it may run.
pub(super) type Standing = Arc<Mutex<HashMap<String, bool>>>;

const ALLOW_ONCE: &str = "allow_once";
const ALLOW_ALWAYS: &str = "allow_always";
const REJECT_ONCE: &str = "reject_once";
const REJECT_ALWAYS: &str = "reject_always";

/// The gate for one run.
pub(super) struct Ask {
    pub(super) editor: Editor,
    pub(super) updates: Arc<Mutex<Updates<TreeDetails>>>,
    /// The session's mode, which may change during a run.
    pub(super) mode: watch::Receiver<Mode>,
    /// Whether to ask before calls. If the user switches to a dry-run mode during a run, this value
    /// stays the same, because that mode applies to the next prompt.
    pub(super) asks: AtomicBool,
    pub(super) standing: Standing,
    /// The tree that the run works in.
    pub(super) root: PathBuf,
    pub(super) secrets: Secrets,
    pub(super) interrupt: watch::Receiver<bool>,
}

#[async_trait]
impl Gate for Ask {
    async fn before(&self, spec: &Spec, arguments: &Value) -> Result<(), ToolError> {
        match *self.mode.borrow() {
            Mode::Run => self.asks.store(false, Ordering::Relaxed),
            Mode::Ask => self.asks.store(true, Ordering::Relaxed),
            Mode::DryRun | Mode::Plan => {}
        }
        if spec.effect == Effect::Read || !self.asks.load(Ordering::Relaxed) {
            return Ok(());
        }
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).get(&spec.name).copied();
        let allowed = match standing {
            Some(allowed) => allowed,
            None => self.ask(spec, arguments).await?,
        };
        let why = format!(
            "the user rejected this call to {}; do not repeat it: do the task in another way, or finish and say what is missing",
            spec.name
        );
        if allowed { Ok(()) } else { Err(ToolError::Model(why)) }
    }

    async fn after(&self, _: &Spec, _: &Value, _: &Outcome) {}
}

impl Ask {
    /// Asks the user whether a call may run. Remembers an "always" answer.
    async fn ask(&self, spec: &Spec, arguments: &Value) -> Result<bool, ToolError> {
        let id = self.updates.lock().unwrap_or_else(PoisonError::into_inner).id_of(&spec.name, arguments);
        let id = id.unwrap_or_else(|| ToolCallId::new(spec.name.clone()));
        let title = sanitize::short(&format!("{} {}", spec.name, render::summarize(arguments)), 100);
        let fields =
            ToolCallUpdateFields::new().title(title).kind(kind_of(spec.effect)).raw_input(arguments.clone());
        let preview = self.preview(arguments);
        let fields = if preview.is_empty() { fields } else { fields.content(preview) };
        let name = sanitize::short(&spec.name, 40);
        let options = vec![
            PermissionOption::new(ALLOW_ONCE, "Allow", PermissionOptionKind::AllowOnce),
            PermissionOption::new(
                ALLOW_ALWAYS,
                format!("Always allow {name}"),
                PermissionOptionKind::AllowAlways,
            ),
            PermissionOption::new(REJECT_ONCE, "Reject", PermissionOptionKind::RejectOnce),
            PermissionOption::new(
                REJECT_ALWAYS,
                format!("Always reject {name}"),
                PermissionOptionKind::RejectAlways,
            ),
        ];
        let call = ToolCallUpdate::new(id, fields);
        let request = RequestPermissionRequest::new(self.editor.session.clone(), call, options);
        let mut interrupt = self.interrupt.clone();
        let answer = tokio::select! {
            answer = self.editor.client.send_request(request).block_task() => answer,
            _ = interrupt.wait_for(|stop| *stop) => {
                return Err(ToolError::Model("the user stopped the run".into()));
            }
        };
        let answer = answer.map_err(|e| {
            let why = sanitize::short(&e.to_string(), 200);
            ToolError::Model(format!(
                "the call was not run, because the editor could not ask the user: {why}"
            ))
        })?;
        let RequestPermissionOutcome::Selected(selected) = answer.outcome else { return Ok(false) };
        let (allowed, always) = match &*selected.option_id.0 {
            ALLOW_ONCE => (true, false),
            ALLOW_ALWAYS => (true, true),
            REJECT_ALWAYS => (false, true),
            _ => (false, false),
        };
        if always {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.insert(spec.name.clone(), allowed);
        }
        Ok(allowed)
    }

    /// Returns the diffs of a proposed edit, or none for other calls and for edits that cannot be
    /// applied.
    fn preview(&self, arguments: &Value) -> Vec<ToolCallContent> {
        let Ok(arguments) = serde_json::from_value::<Arguments>(arguments.clone()) else { return Vec::new() };
        let Ok(workspace) = Workspace::open(&self.root) else { return Vec::new() };
        let Ok(plan) = ApplyPatch::new(workspace, self.secrets.clone()).plan(arguments) else {
            return Vec::new();
        };
        let image = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| Image { bytes: bytes.to_vec(), mode: 0o644, link: false })
        };
        let change = |file: tool_apply_patch::Preview<'_>| FileChange {
            path: file.path.to_string(),
            from: file.from.map(ToString::to_string),
            before: image(file.before),
            after: image(file.after),
        };
        let changes = masking::shown(plan.files().map(change).collect(), &self.secrets);
        ::acp::diffs(&changes, &self.root).0
    }
}
