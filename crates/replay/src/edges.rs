//! The planner's edges in a replay, in place of a server, a sandbox and a repository.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use journal::{Check, Diff};
use models::{DeltaStream, Error, Identity, Model, Request};
use planner::{FileEntry, Inbox, Instructions, Repository, Verifier};
use serde_json::{Map, Value};
use tool_api::{Effect, Follow, Outcome, Parsed, Spec, Status, Tool, ToolError};
use workspace::{Seed, Workspace};

use crate::script::{Changes, Script};
use crate::volatile;

/// A model that answers from the record, as long as the requests match it.
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
        self.script.look_at_server();
        Vec::new()
    }
}

/// The user of a recorded session: repeats the recorded messages in their places.
pub struct RecordedUser(pub Arc<Script>);

impl Inbox for RecordedUser {
    fn take(&mut self) -> Option<String> {
        self.0.user_message()
    }
}

/// Where results come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// File tools run, commands come from the record.
    Files,
    /// Everything runs.
    Commands,
    /// Everything comes from the record.
    Record,
}

/// What tools and verification share.
pub struct Stage {
    /// The record.
    pub script: Arc<Script>,
    /// Where results come from.
    pub source: Source,
    /// The tree; `None` where recorded commands change no tree.
    pub workspace: Option<Workspace>,
    /// What commands changed.
    pub changes: Changes,
    /// The root of this replay, and the recorded one, as they appear in texts.
    pub roots: (String, String),
}

impl Stage {
    /// Applies the changes of a recorded command to the tree.
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

    /// A text of this replay with the recorded root in place of its own.
    fn there(&self, text: &str) -> String {
        let (now, then) = &self.roots;
        if now == then { text.to_owned() } else { text.replace(now.as_str(), then) }
    }

    fn same(&self, recorded: &str, now: &str) -> bool {
        volatile::normal(recorded) == volatile::normal(now)
    }
}

/// A tool whose calls are answered from the record, or run and compared with it.
pub struct ReplayedTool {
    tool: Arc<dyn Tool>,
    stage: Arc<Stage>,
}

impl ReplayedTool {
    /// The tool in a replay.
    pub fn wrap(tool: Arc<dyn Tool>, stage: &Arc<Stage>) -> Arc<dyn Tool> {
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

/// Refuses the call that was refused in the record.
struct Refusing {
    script: Arc<Script>,
    tool: String,
}

impl Follow for Refusing {
    fn text(&mut self, _: &str, _: &str, _: bool) -> Result<(), String> {
        self.script.refusal(&self.tool)
    }
}

/// The verification: from the record, or run and compared with it.
pub struct ReplayedChecks {
    /// What tools and verification share.
    pub stage: Arc<Stage>,
    /// The verification that is run, if commands run.
    pub real: Option<Arc<dyn Verifier>>,
}

#[async_trait]
impl Verifier for ReplayedChecks {
    fn command(&self) -> String {
        self.real.as_ref().map_or_else(|| self.stage.script.command(), |real| real.command())
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

/// The tree of a replay. A run reads it as usual, but no state of it is saved.
pub struct ReplayedTree {
    /// The tree as a run sees it.
    pub tree: Arc<dyn Repository>,
    /// Whether the recorded run changed anything. The replay's own changes are compared file by
    /// file.
    pub changed: bool,
}

impl Repository for ReplayedTree {
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
