//! The planner's [`Parts`](planner::Parts) for a replay, which replace the server, the user, the
//! sandbox and the repository.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use journal::{Check, Diff, Ending, ModelRole};
use models::{DeltaStream, Error, Identity, Model, Request};
use planner::{Inbox, Instructions, OpenModel, OpenedModel, Repository, Verifier};
use serde_json::{Map, Value};
use tool_api::{Effect, Follow, Outcome, Parsed, Spec, Status, Tool, ToolError};
use workspace::{Seed, Workspace};

use crate::script::{Changes, Script};
use crate::volatile;

/// A model that returns the recorded answers as long as the requests match the recorded ones.
pub struct RecordedModel {
    /// The recorded model.
    pub identity: Identity,
    /// The record.
    pub script: Arc<Script>,
}

#[async_trait]
impl Model for RecordedModel {
    fn identity(&self) -> Identity {
        Identity { window: self.script.window(), ..self.identity.clone() }
    }

    async fn stream(&self, _: &Request) -> Result<DeltaStream, Error> {
        match self.script.answer() {
            Some((number, turn)) => Ok(turn.play(number)),
            None => pending().await, // the script has stopped the run
        }
    }

    async fn verify(&self) -> Vec<String> {
        self.script.update_window();
        Vec::new()
    }
}

/// A model that the recorded run switched to.
pub struct RecordedLater {
    /// The setting that specifies the model.
    pub role: ModelRole,
    /// The record.
    pub script: Arc<Script>,
}

#[async_trait]
impl OpenModel for RecordedLater {
    async fn open(&self) -> Result<OpenedModel, (Ending, String)> {
        match self.script.change_model(self.role) {
            Some(Some(identity)) => Ok(OpenedModel {
                model: Box::new(RecordedModel { identity, script: Arc::clone(&self.script) }),
                why: "recorded".into(),
                warnings: Vec::new(),
            }),
            Some(None) => Err((Ending::Unavailable, "it was unavailable".into())),
            None => pending().await, // the script has stopped the run
        }
    }
}

/// The user of a recorded session, who repeats the recorded messages at the same points.
pub struct RecordedUser(pub Arc<Script>);

impl Inbox for RecordedUser {
    fn take(&mut self) -> Option<String> {
        self.0.user_message()
    }
}

/// Where the results of tools and verifications come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// File tools run, but the results of commands come from the record.
    Files,
    /// Everything runs.
    Commands,
    /// Everything comes from the record.
    Record,
}

/// The state shared by the tools and the verification.
pub struct Stage {
    /// The record.
    pub script: Arc<Script>,
    /// Where the results of tools and verifications come from.
    pub source: Source,
    /// The tree that recorded changes are applied to, if there is one.
    pub workspace: Option<Workspace>,
    /// File changes made by commands and reverts.
    pub changes: Changes,
    /// The root of this replay and the recorded root, as they appear in text.
    pub roots: (String, String),
}

impl Stage {
    /// Repeats the revert that the recorded run made after it was stopped, unless the replay has
    /// already made that revert. If the run was stopped from outside, its replay ends differently
    /// and does not reach the revert.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn repeat_last_revert(&self) -> Result<(), String> {
        self.script.reverted().map_or(Ok(()), |(seq, _)| self.apply_changes(seq))
    }

    /// Applies the changes of a recorded command or revert to the tree.
    fn apply_changes(&self, seq: u64) -> Result<(), String> {
        let (Some(workspace), Some(files)) = (&self.workspace, self.changes.get(&seq)) else { return Ok(()) };
        let image = |seed: &Option<Seed>| match seed {
            Some(Seed::Image(image)) => Some(image.clone()),
            Some(Seed::Size(_)) | None => None,
        };
        let images: Vec<_> = files.iter().map(|(path, seed)| (path.clone(), image(seed))).collect();
        workspace.put(&images).map_err(|e| e.to_string())?;
        for (path, seed) in files {
            if let Some(seed @ Seed::Size(_)) = seed {
                workspace.plant(path, seed).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Replaces the root of this replay with the recorded root.
    fn with_recorded_root(&self, text: &str) -> String {
        let (now, then) = &self.roots;
        if now == then { text.to_owned() } else { text.replace(now.as_str(), then) }
    }

    fn same(&self, recorded: &str, now: &str) -> bool {
        volatile::normalize(recorded) == volatile::normalize(now)
    }
}

/// Wraps a tool, and either returns recorded results or runs the tool and compares the results.
pub struct ReplayedTool {
    tool: Arc<dyn Tool>,
    stage: Arc<Stage>,
    /// Whether the tool is a stand-in for one that is not available in a replay.
    stands_in: bool,
}

impl ReplayedTool {
    /// Wraps a tool for a replay.
    pub fn wrap(tool: Arc<dyn Tool>, stage: &Arc<Stage>) -> Arc<dyn Tool> {
        Arc::new(Self { tool, stage: Arc::clone(stage), stands_in: false })
    }

    /// Wraps a stand-in, which cannot be called. Its results always come from the record.
    pub fn recorded(tool: Arc<dyn Tool>, stage: &Arc<Stage>) -> Arc<dyn Tool> {
        Arc::new(Self { tool, stage: Arc::clone(stage), stands_in: true })
    }

    fn runs_commands(&self) -> bool {
        self.stands_in || self.spec().effect == Effect::Execute
    }

    /// Whether the record decides which calls are refused. The tool itself could not decide that
    /// without a tree.
    fn uses_recorded_refusals(&self) -> bool {
        self.stage.source == Source::Record && !self.runs_commands()
    }
}

#[async_trait]
impl Tool for ReplayedTool {
    fn spec(&self) -> &Spec {
        self.tool.spec()
    }

    fn judge_field(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if self.uses_recorded_refusals() {
            self.stage.script.refusal(&self.spec().name)
        } else {
            self.tool.judge_field(name, value, parsed)
        }
    }

    fn judge(&self, arguments: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if self.uses_recorded_refusals() { Ok(()) } else { self.tool.judge(arguments, parsed) }
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        if self.stage.source != Source::Record {
            return self.tool.follow();
        }
        self.stage.script.call_opened();
        let (script, tool) = (Arc::clone(&self.stage.script), self.spec().name.clone());
        self.spec().follows.then(|| Box::new(RecordedRefusal { script, tool }) as Box<dyn Follow>)
    }

    fn whole_answer(&self, text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
        self.tool.whole_answer(text, parsed)
    }

    fn patch_instead(&self, arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        self.tool.patch_instead(arguments)
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        if let Some(vetoed) = self.stage.script.vetoed(&self.spec().name, &arguments) {
            return Ok(vetoed);
        }
        let (stage, commands) = (&self.stage, self.runs_commands());
        let runs = match stage.source {
            _ if self.stands_in => false,
            Source::Record => false,
            Source::Files => !commands,
            Source::Commands => true,
        };
        let now = if runs { Some(self.tool.call(arguments.clone(), parsed).await) } else { None };
        let now = match now {
            Some(outcome) if !commands => return outcome,
            now => now,
        };
        let Some((seq, recorded)) = stage.script.result(&self.spec().name, &arguments) else {
            return pending().await;
        };
        let Some(now) = now else {
            stage.apply_changes(seq).map_err(ToolError::Run)?;
            return Ok(recorded);
        };
        match now.map(|o| Outcome { text: stage.with_recorded_root(&o.text), ..o }) {
            Ok(now) if now.status == recorded.status && stage.same(&recorded.text, &now.text) => Ok(recorded),
            Err(ToolError::Model(now)) if recorded.status == Status::Refused && recorded.text == now => {
                Ok(recorded)
            }
            now => now,
        }
    }
}

/// Repeats a recorded refusal while the call is being streamed.
struct RecordedRefusal {
    script: Arc<Script>,
    tool: String,
}

impl Follow for RecordedRefusal {
    fn text(&mut self, _: &str, _: &str, _: bool) -> Result<(), String> {
        self.script.refusal(&self.tool)
    }
}

/// The verification, which either returns recorded results or runs the real verification and
/// compares the results.
pub struct ReplayedChecks {
    /// The state shared with the tools.
    pub stage: Arc<Stage>,
    /// The real verification, if commands run.
    pub real: Option<Arc<dyn Verifier>>,
}

#[async_trait]
impl Verifier for ReplayedChecks {
    fn command(&self) -> String {
        self.real.as_ref().map_or_else(|| self.stage.script.command(), |real| real.command())
    }

    async fn verify(&self, limit: Option<Duration>) -> Result<Check, String> {
        let now = if let Some(real) = &self.real { Some(real.verify(limit).await?) } else { None };
        let Some((seq, recorded)) = self.stage.script.check() else { return pending().await };
        match now {
            None => self.stage.apply_changes(seq).map(|()| recorded),
            Some(now) => {
                let now = Check {
                    text: self.stage.with_recorded_root(&now.text),
                    command: self.stage.with_recorded_root(&now.command),
                    ..now
                };
                let same = (now.passed, &now.command) == (recorded.passed, &recorded.command)
                    && self.stage.same(&recorded.text, &now.text);
                Ok(if same { recorded } else { now })
            }
        }
    }
}

/// The tree of a replay. It is read as usual, but its state is not recorded.
pub struct ReplayedTree {
    /// The tree.
    pub tree: Arc<dyn Repository>,
    /// Whether the recorded run changed anything. The replay's own changes are compared file by
    /// file at the end.
    pub changed: bool,
    /// The state shared with the tools.
    pub stage: Arc<Stage>,
}

impl Repository for ReplayedTree {
    fn files(&self) -> (Vec<String>, bool) {
        self.tree.files()
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        self.tree.read(path, limit)
    }

    fn may_change(&self, path: &str) -> bool {
        self.tree.may_change(path)
    }

    fn instructions(&self) -> Vec<Instructions> {
        self.tree.instructions()
    }

    fn remember(&self) -> Result<(), String> {
        Ok(())
    }

    fn revert_from(&self, _: u64) -> Result<Option<u64>, String> {
        let Some((seq, record)) = self.stage.script.reverted() else { return Ok(None) };
        self.stage.apply_changes(seq).map(|()| record)
    }

    fn changed(&self) -> bool {
        self.changed
    }

    fn changed_lines(&self) -> u64 {
        self.stage.script.changed_lines()
    }

    fn diff(&self) -> Result<Diff, String> {
        Ok(Diff::default())
    }
}
