//! The edges of the planner in a replay: what a live run has as a server, a sandbox and a
//! repository.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use journal::{Check, Diff};
use models::{DeltaStream, Error, Identity, Model, Request};
use planner::{FileEntry, Instructions, Repository, Verifier};
use serde_json::{Map, Value};
use tool_api::{Effect, Follow, Outcome, Parsed, Spec, Status, Tool, ToolError};
use workspace::{Seed, Workspace};

use super::script::{Changes, Script};
use super::volatile;
use crate::masking::MaskedVerifier;
use crate::repository::Tree;

/// The model: answers from the record, for as long as what is asked is what was asked.
pub(super) struct Recorded {
    pub(super) identity: Identity,
    pub(super) script: Arc<Script>,
}

#[async_trait]
impl Model for Recorded {
    fn identity(&self) -> Identity {
        Identity { window: self.script.window(), ..self.identity.clone() }
    }

    async fn stream(&self, _: &Request) -> Result<DeltaStream, Error> {
        match self.script.answer() {
            Some((number, turn)) => Ok(turn.play(number)),
            None => pending().await, // the script has asked the run to stop
        }
    }

    async fn verify(&self) -> Vec<String> {
        self.script.look_at_server();
        Vec::new()
    }
}

/// Where results come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Files for real, commands from the record.
    Files,
    /// Everything for real.
    Commands,
    /// Everything from the record.
    Record,
}

/// What tools and verifier share.
pub(super) struct Stage {
    pub(super) script: Arc<Script>,
    pub(super) source: Source,
    /// The tree; `None` where nothing is run in one.
    pub(super) workspace: Option<Workspace>,
    /// What commands changed.
    pub(super) changes: Changes,
    /// The root in texts of now, and the recorded one.
    pub(super) roots: (String, String),
}

impl Stage {
    /// Brings to the tree what a recorded command changed.
    fn bring(&self, seq: u64) -> Result<(), String> {
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

    /// A text of now as it would have been where the session was recorded.
    fn there(&self, text: &str) -> String {
        let (now, then) = &self.roots;
        if now == then { text.to_owned() } else { text.replace(now.as_str(), then) }
    }

    fn same(&self, recorded: &str, now: &str) -> bool {
        volatile::normal(recorded) == volatile::normal(now)
    }
}

/// A tool whose calls are answered from the record, or run and compared with it.
pub(super) struct ReplayedTool {
    tool: Arc<dyn Tool>,
    stage: Arc<Stage>,
}

impl ReplayedTool {
    pub(super) fn wrap(tool: Arc<dyn Tool>, stage: &Arc<Stage>) -> Arc<dyn Tool> {
        Arc::new(Self { tool, stage: Arc::clone(stage) })
    }

    fn runs_commands(&self) -> bool {
        self.spec().effect == Effect::Execute
    }

    /// Nothing is judged without a tree. What was refused then is refused again.
    fn is_judged_by_record(&self) -> bool {
        self.stage.source == Source::Record && !self.runs_commands()
    }
}

#[async_trait]
impl Tool for ReplayedTool {
    fn spec(&self) -> &Spec {
        self.tool.spec()
    }

    fn judge_field(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if self.is_judged_by_record() {
            self.stage.script.refusal(&self.spec().name)
        } else {
            self.tool.judge_field(name, value, parsed)
        }
    }

    fn judge(&self, arguments: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if self.is_judged_by_record() { Ok(()) } else { self.tool.judge(arguments, parsed) }
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        if self.stage.source != Source::Record {
            return self.tool.follow();
        }
        self.stage.script.call_begins();
        let (script, tool) = (Arc::clone(&self.stage.script), self.spec().name.clone());
        self.spec().follows.then(|| Box::new(Refusing { script, tool }) as Box<dyn Follow>)
    }

    fn whole_answer(&self, text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
        self.tool.whole_answer(text, parsed)
    }

    fn instead(&self, arguments: &Map<String, Value>) -> Result<Option<(String, Value)>, String> {
        self.tool.instead(arguments)
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        let (stage, commands) = (&self.stage, self.runs_commands());
        let runs = match stage.source {
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
            stage.bring(seq).map_err(ToolError::Run)?;
            return Ok(recorded);
        };
        match now.map(|o| Outcome { text: stage.there(&o.text), ..o }) {
            Ok(now) if now.status == recorded.status && stage.same(&recorded.text, &now.text) => Ok(recorded),
            Err(ToolError::Model(now)) if recorded.status == Status::Refused && recorded.text == now => {
                Ok(recorded)
            }
            now => now,
        }
    }
}

/// Refuses the call that was refused.
struct Refusing {
    script: Arc<Script>,
    tool: String,
}

impl Follow for Refusing {
    fn text(&mut self, _: &str, _: &str, _: bool) -> Result<(), String> {
        self.script.refusal(&self.tool)
    }
}

/// The verification, by the record or held against it.
pub(super) struct Checks {
    pub(super) stage: Arc<Stage>,
    pub(super) real: Option<MaskedVerifier>,
}

#[async_trait]
impl Verifier for Checks {
    fn command(&self) -> String {
        self.real.as_ref().map_or_else(|| self.stage.script.command(), Verifier::command)
    }

    async fn verify(&self) -> Result<Check, String> {
        let now = match &self.real {
            Some(real) => Some(real.verify().await?),
            None => None,
        };
        let Some((seq, recorded)) = self.stage.script.check() else { return pending().await };
        match now {
            None => self.stage.bring(seq).map(|()| recorded),
            Some(now) => {
                let now = Check {
                    text: self.stage.there(&now.text),
                    command: self.stage.there(&now.command),
                    ..now
                };
                let same = (now.passed, &now.command) == (recorded.passed, &recorded.command)
                    && self.stage.same(&recorded.text, &now.text);
                Ok(if same { recorded } else { now })
            }
        }
    }
}

/// The tree of a replay: looked at as a run looks at it; nothing needs to be remembered of it.
pub(super) struct Looked {
    tree: Tree,
    /// Whether the recorded run left anything changed. What this one leaves is compared file by
    /// file.
    changed: bool,
}

impl Looked {
    pub(super) fn new(workspace: Workspace, inside: &std::path::Path, changed: bool) -> Self {
        Self { tree: Tree::new(workspace, inside, PathBuf::new()), changed }
    }
}

impl Repository for Looked {
    fn files(&self) -> (Vec<FileEntry>, bool) {
        self.tree.files()
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        self.tree.read(path, limit)
    }

    fn instructions(&self) -> Vec<Instructions> {
        self.tree.instructions()
    }

    fn remember(&self) -> Result<(), String> {
        Ok(())
    }

    fn changed(&self) -> bool {
        self.changed
    }

    fn diff(&self) -> Result<Diff, String> {
        Ok(Diff::default())
    }
}
