//! The edges of the planner in a replay: what a live run has as a server, a sandbox and a repository.

use std::borrow::Cow;
use std::future::pending;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use journal::{Check, Diff};
use models::{DeltaStream, Error, Identity, Model, Request};
use planner::{FileEntry, Inbox, Instructions, Repository, Verifier};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tool_api::{Aliases, Effect, Follow, Outcome, Registry, Status, Tool, ToolError};
use workspace::{Seed, Workspace};

use super::script::{Changes, Script};
use super::volatile;
use crate::masking::MaskedVerifier;
use crate::repository::Tree;
use crate::session::Around;

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

/// The user: says what is on record, where it is on record.
pub(super) struct RecordedUser(pub(super) Arc<Script>);

impl Inbox for RecordedUser {
    fn take(&mut self) -> Option<String> {
        self.0.user_message()
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

/// A tool whose calls are answered from the record, or run and held against it.
struct Played<T> {
    tool: T,
    stage: Arc<Stage>,
}

/// Arguments as they came.
struct Raw<A>(Value, PhantomData<fn() -> A>);

impl<'de, A> Deserialize<'de> for Raw<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Value::deserialize(deserializer)?, PhantomData))
    }
}

impl<A: JsonSchema> JsonSchema for Raw<A> {
    fn schema_name() -> Cow<'static, str> {
        A::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        A::json_schema(generator)
    }
}

impl<T: Tool> Played<T> {
    fn by_record(&self) -> bool {
        self.stage.source == Source::Record
    }

    async fn run(&self, arguments: Value) -> Result<Outcome, ToolError> {
        let parsed = parse::<T::Arguments>(arguments)
            .map_err(|e| ToolError::Model(format!("the arguments of {} do not fit: {e}", T::NAME)))?;
        self.tool.call(parsed).await
    }
}

fn parse<A: DeserializeOwned>(value: Value) -> Result<A, serde_json::Error> {
    serde_json::from_value(value)
}

#[async_trait]
impl<T: Tool> Tool for Played<T> {
    type Arguments = Raw<T::Arguments>;
    const NAME: &'static str = T::NAME;
    const DESCRIPTION: &'static str = T::DESCRIPTION;
    const EFFECT: Effect = T::EFFECT;
    const ALIASES: &'static Aliases = T::ALIASES;

    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        // Without the tree nobody can judge; what was refused then is refused again.
        if self.by_record() && T::EFFECT != Effect::Execute {
            self.stage.script.refusal(T::NAME)
        } else {
            self.tool.check(name, value)
        }
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        if !self.by_record() {
            return self.tool.follow();
        }
        self.stage.script.call_begins();
        let followed = self.tool.follow().is_some();
        followed.then(|| {
            Box::new(Refusing { script: Arc::clone(&self.stage.script), tool: T::NAME }) as Box<dyn Follow>
        })
    }

    fn whole_answer(&self, text: &str) -> Option<Result<Value, String>> {
        self.tool.whole_answer(text)
    }

    fn instead(&self, arguments: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, String> {
        self.tool.instead(arguments)
    }

    async fn call(&self, arguments: Self::Arguments) -> Result<Outcome, ToolError> {
        let Raw(arguments, _) = arguments;
        let stage = &self.stage;
        if stage.source == Source::Commands || (stage.source == Source::Files && T::EFFECT != Effect::Execute)
        {
            let outcome = self.run(arguments.clone()).await;
            if T::EFFECT != Effect::Execute {
                return outcome;
            }
            let now = outcome.map(|o| Outcome { text: stage.there(&o.text), ..o });
            let Some((_, recorded)) = stage.script.result(T::NAME, &arguments) else {
                return pending().await;
            };
            return match now {
                Ok(now) if now.status == recorded.status && stage.same(&recorded.text, &now.text) => {
                    Ok(recorded)
                }
                Err(ToolError::Model(now)) if recorded.status == Status::Refused && recorded.text == now => {
                    Ok(recorded)
                }
                now => now,
            };
        }
        let Some((seq, recorded)) = stage.script.result(T::NAME, &arguments) else { return pending().await };
        stage.bring(seq).map_err(ToolError::Run)?;
        Ok(recorded)
    }
}

/// Refuses the call that was refused.
struct Refusing {
    script: Arc<Script>,
    tool: &'static str,
}

impl Follow for Refusing {
    fn text(&mut self, _: &str, _: &str, _: bool) -> Result<(), String> {
        self.script.refusal(self.tool)
    }
}

/// Puts the stage around every tool.
pub(super) struct OnStage(pub(super) Arc<Stage>);

impl Around for OnStage {
    fn add<T: Tool>(&self, registry: Registry, tool: T) -> Registry {
        self.0.script.tool();
        registry.with(Played { tool, stage: Arc::clone(&self.0) })
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
    /// Whether the recorded run left anything changed. What this one leaves is compared file by file.
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
