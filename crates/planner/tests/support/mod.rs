//! An in-memory world for the planner: files, tools, a verifier, and a model that follows a script.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "a test fails by panicking; each test file that shares this module uses only part of it"
)]
#![allow(missing_docs, reason = "test code")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use journal::{Check, Diff, Ending, Event, Journal, ModelRole, Record, Report, Store};
use models::{Delta, DeltaStream, End, EndReason, Error, Identity, Model, Request, Usage};
use planner::{Instructions, Job, OpenModel, OpenedModel, Parts, Repository, Settings, Verifier};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tool_api::{Effect, Outcome, Parsed, Registry, Spec, Tool, ToolError, TypedTool, WholeFile};

pub type Files = Arc<Mutex<BTreeMap<String, String>>>;

/// The model's reaction to one request.
pub enum Reply {
    /// These pieces, then a normal end.
    Says(Vec<Delta>),
    /// These pieces, and then the stream is cut off.
    Breaks(Vec<Delta>),
    /// The request fails.
    Fails(Error),
    /// These pieces, then silence forever.
    Hangs(Vec<Delta>),
    /// These pieces, until the token limit is reached.
    RunsOut(Vec<Delta>),
}

/// Splits an answer into small pieces, as a server would send it.
pub fn text(answer: &str) -> Vec<Delta> {
    let chars: Vec<char> = answer.chars().collect();
    chars.chunks(7).map(|c| Delta::Text(c.iter().collect())).collect()
}

pub fn says(answer: &str) -> Reply {
    Reply::Says(text(answer))
}

/// A model. All models in a world take their replies from the same script.
#[derive(Clone)]
pub struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    identity: Identity,
}

/// A model that is opened later. `None` means that the model cannot be opened.
struct Later(Option<Script>);

#[async_trait]
impl OpenModel for Later {
    async fn open(&self) -> Result<OpenedModel, (Ending, String)> {
        let Some(script) = self.0.clone() else {
            return Err((Ending::Unavailable, "nobody is there".into()));
        };
        let why = "the test says so".into();
        Ok(OpenedModel { model: Box::new(script), why, warnings: Vec::new() })
    }
}

#[async_trait]
impl Model for Script {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        self.requests.lock().unwrap().push(request.clone());
        let reply = self.replies.lock().unwrap().pop_front();
        let end = |reason| Ok(Delta::End(End { reason, usage: Usage::default() }));
        let ok = |deltas: Vec<Delta>| deltas.into_iter().map(Ok);
        Ok(match reply {
            Some(Reply::Says(deltas)) => {
                Box::pin(futures_util::stream::iter(ok(deltas).chain([end(EndReason::Stop)])))
            }
            Some(Reply::RunsOut(deltas)) => {
                Box::pin(futures_util::stream::iter(ok(deltas).chain([end(EndReason::Length)])))
            }
            Some(Reply::Breaks(deltas)) => Box::pin(futures_util::stream::iter(ok(deltas))),
            Some(Reply::Hangs(deltas)) => {
                use futures_util::StreamExt;
                Box::pin(futures_util::stream::iter(ok(deltas)).chain(futures_util::stream::pending()))
            }
            Some(Reply::Fails(error)) => return Err(error),
            None => return Err(Error::Refused("the script is at its end".into())),
        })
    }
}

/// If a file contains this text, no diff can be computed.
pub const NO_DIFF: &str = "# no diff";

/// The current turn, and the turn of each edit so far.
type Turns = Arc<Mutex<(u32, Vec<u32>)>>;

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An edit in this turn.
    Edit(u32),
    Command,
    Revert,
}

/// The files before each change, and who made the change. The record numbers of this history start
/// at 1.
pub type Changes = Arc<Mutex<Vec<(BTreeMap<String, String>, By)>>>;

pub struct Tree {
    pub files: Files,
    changes: Changes,
    before_command: Mutex<BTreeMap<String, String>>,
    before: Mutex<BTreeMap<String, String>>,
    pub instructions: Vec<Instructions>,
    turns: Turns,
}

impl Repository for Tree {
    fn turn(&self, turn: u32) {
        self.turns.lock().unwrap().0 = turn;
    }

    fn files(&self) -> (Vec<String>, bool) {
        let files = self.files.lock().unwrap();
        (files.keys().cloned().collect(), false)
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        self.files.lock().unwrap().get(path).filter(|t| t.len() as u64 <= limit).cloned()
    }

    fn instructions(&self) -> Vec<Instructions> {
        self.instructions.clone()
    }

    fn remember(&self) -> Result<(), String> {
        let mut before = self.before.lock().unwrap();
        if before.is_empty() {
            before.clone_from(&self.files.lock().unwrap());
        }
        Ok(())
    }

    fn before_command(&self) -> Result<(), String> {
        self.before_command.lock().unwrap().clone_from(&self.files.lock().unwrap());
        Ok(())
    }

    fn after_command(&self) -> Result<Option<u64>, String> {
        let before = std::mem::take(&mut *self.before_command.lock().unwrap());
        let mut changes = self.changes.lock().unwrap();
        if before == *self.files.lock().unwrap() {
            return Ok(None);
        }
        changes.push((before, By::Command));
        Ok(Some(changes.len() as u64))
    }

    fn revert_from(&self, record: u64) -> Result<Option<u64>, String> {
        let (mut changes, mut files) = (self.changes.lock().unwrap(), self.files.lock().unwrap());
        let last = changes.len() as u64;
        match changes.get(record as usize - 1).map(|(before, _)| before.clone()) {
            Some(before) if before != *files => {
                changes.push((std::mem::replace(&mut *files, before), By::Revert));
                Ok(Some(last + 1))
            }
            Some(_) => Ok(changes.last().filter(|(_, by)| *by == By::Revert).map(|_| last)),
            None => Ok(None),
        }
    }

    fn last_record(&self) -> Result<u64, String> {
        Ok(self.changes.lock().unwrap().len() as u64)
    }

    fn last_revert(&self) -> Result<Option<u64>, String> {
        let changes = self.changes.lock().unwrap();
        Ok(changes.last().filter(|(_, by)| *by == By::Revert).map(|_| changes.len() as u64))
    }

    fn edit(&self, turn: u32, index: usize) -> Result<Option<u64>, String> {
        let changes = self.changes.lock().unwrap();
        let edits = (1..).zip(&*changes).filter(|(_, (_, by))| *by == By::Edit(turn));
        Ok(edits.map(|(record, _)| record).nth(index))
    }

    fn changed_lines(&self) -> u64 {
        let (before, now) = (self.before.lock().unwrap(), self.files.lock().unwrap());
        let changed = now.iter().filter(|(path, text)| before.get(*path) != Some(text));
        changed.map(|(_, text)| text.lines().count() as u64).sum()
    }

    fn diff(&self) -> Result<Diff, String> {
        let (before, now) = (self.before.lock().unwrap(), self.files.lock().unwrap());
        if now.values().any(|text| text.contains(NO_DIFF)) {
            return Err("no space left on device".into());
        }
        let files = now.iter().filter(|(p, t)| before.get(*p) != Some(t)).map(|(p, _)| p.clone()).collect();
        Ok(Diff { files, ..Diff::default() })
    }
}

/// Passes if `calc.py` contains `a + b`.
pub struct Passes(pub Files);

/// Like [`Passes`], but with five tests. Three of them fail, but only two if `calc.py` contains
/// `third`, one if it contains `half`, and none if it contains `a + b`. If it contains `hang`, the
/// tests hang.
struct Grades(Passes);

#[async_trait]
impl Verifier for Grades {
    fn command(&self) -> String {
        self.0.command()
    }

    async fn verify(&self, limit: Option<Duration>) -> Result<Check, String> {
        let check = self.0.verify(limit).await?;
        let text = self.0.0.lock().unwrap()["calc.py"].clone();
        if text.contains("hang") {
            return Ok(Check { text: format!("stopped after {limit:?}"), ..check });
        }
        let words = [("a + b", 0), ("half", 1), ("third", 2)];
        let failed = words.iter().find(|(word, _)| text.contains(word)).map_or(3, |(_, failed)| *failed);
        let facts = serde_json::json!({ "passed": 5 - failed, "failed": failed });
        Ok(Check { text: format!("{failed} failed"), facts, ..check })
    }
}

#[async_trait]
impl Verifier for Passes {
    fn command(&self) -> String {
        "python3 -m unittest".into()
    }

    async fn verify(&self, _: Option<Duration>) -> Result<Check, String> {
        let text = self.0.lock().unwrap()["calc.py"].clone();
        let passed = text.contains("a + b");
        let passing = u64::from(text.contains("half")) + 2 * u64::from(passed);
        Ok(Check {
            command: self.command(),
            passed,
            text: if passed { "2 passed".into() } else { "1 failed: test_add: 3 != -1".into() },
            facts: serde_json::json!({ "passed": passing, "failed": u64::from(!passed) }),
            ms: 1,
        })
    }
}

/// A verification that never ends if `calc.py` contains `text`. In that case, it also interrupts
/// the run if `interrupt` is given.
struct Hangs {
    text: &'static str,
    passes: Passes,
    interrupt: Option<tokio::sync::watch::Sender<bool>>,
}

#[async_trait]
impl Verifier for Hangs {
    fn command(&self) -> String {
        self.passes.command()
    }

    async fn verify(&self, limit: Option<Duration>) -> Result<Check, String> {
        if self.passes.0.lock().unwrap()["calc.py"].contains(self.text) {
            if let Some(interrupt) = &self.interrupt {
                interrupt.send_replace(true);
            }
            std::future::pending().await
        }
        self.passes.verify(limit).await
    }
}

struct ReadFile(Files);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReadArguments {
    /// path of the file
    path: String,
}

#[async_trait]
impl TypedTool for ReadFile {
    type Arguments = ReadArguments;

    fn spec(&self) -> Spec {
        let spec = Spec::of::<ReadArguments>("read_file", "shows a file", Effect::Read);
        Spec { titled_by: Some("path"), ..spec }
    }

    fn judge_field(&self, _name: &str, value: &serde_json::Value) -> Result<(), String> {
        let path = value.as_str().unwrap_or_default();
        if self.0.lock().unwrap().contains_key(path) {
            Ok(())
        } else {
            Err(format!("there is no file {path:?}; the nearest is \"calc.py\""))
        }
    }

    async fn call(&self, arguments: ReadArguments) -> Result<Outcome, ToolError> {
        Ok(Outcome::ok(self.0.lock().unwrap()[&arguments.path].clone()))
    }
}

struct ApplyPatch(Files, Turns, Changes);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PatchArguments {
    /// file
    path: String,
    /// its new content
    content: String,
}

#[async_trait]
impl TypedTool for ApplyPatch {
    type Arguments = PatchArguments;

    fn spec(&self) -> Spec {
        let whole_file = Some(WholeFile { path: "path", content: "content" });
        let spec = Spec::of::<PatchArguments>("apply_patch", "writes a file", Effect::Write);
        Spec { titled_by: Some("path"), whole_file, ..spec }
    }

    async fn call(&self, arguments: PatchArguments) -> Result<Outcome, ToolError> {
        let mut files = self.0.lock().unwrap();
        if files.get(&arguments.path) == Some(&arguments.content) {
            return Err(ToolError::Model("nothing changed".into()));
        }
        if arguments.content.contains("refuse") {
            return Err(ToolError::Model("cannot be written".into()));
        }
        let mut turns = self.1.lock().unwrap();
        let turn = turns.0;
        self.2.lock().unwrap().push((files.clone(), By::Edit(turn)));
        files.insert(arguments.path.clone(), arguments.content);
        turns.1.push(turn);
        Ok(Outcome {
            changed: vec![arguments.path.clone()],
            ..Outcome::ok(format!("{} written", arguments.path))
        })
    }
}

/// Writes a file, as a command would.
struct RunCommand(Files);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CommandArguments {
    /// file
    creates: String,
}

#[async_trait]
impl TypedTool for RunCommand {
    type Arguments = CommandArguments;

    fn spec(&self) -> Spec {
        Spec::of::<CommandArguments>("run_command", "runs a command", Effect::Execute)
    }

    async fn call(&self, arguments: CommandArguments) -> Result<Outcome, ToolError> {
        self.0.lock().unwrap().insert(arguments.creates, String::new());
        Ok(Outcome::ok("done"))
    }
}

/// A tool under another name.
struct Renamed {
    tool: Arc<dyn Tool>,
    spec: Spec,
}

#[async_trait]
impl Tool for Renamed {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        self.tool.call(arguments, parsed).await
    }
}

/// The input of an in-memory run.
pub struct World {
    /// Tools to rename: old and new name.
    pub names: Vec<(&'static str, &'static str)>,
    pub files: Files,
    /// The history of a resumed run.
    pub changes: Changes,
    /// Whether there is a tool that runs commands.
    pub commands: bool,
    /// Whether the verification is [`Grades`].
    pub graded: bool,
    /// If `calc.py` contains this text, the user interrupts the verification.
    pub interrupted_at: Option<&'static str>,
    /// If `calc.py` contains this text, the verification never ends.
    pub hangs_at: Option<&'static str>,
    pub settings: Settings,
    pub identity: Identity,
    /// The model that makes the final try. The inner `None` means that the model cannot be opened.
    pub escalation: Option<Option<Identity>>,
    /// The model that replaces an unavailable one.
    pub fallback: Option<Option<Identity>>,
    pub verified: bool,
    pub instructions: Vec<Instructions>,
    /// The original files of a resumed run; empty for a new run.
    pub original: BTreeMap<String, String>,
    /// The user's messages during the run.
    pub inbox: Box<dyn planner::Inbox>,
    pub interrupt: tokio::sync::watch::Sender<bool>,
}

/// The output of an in-memory run.
pub struct Ran {
    pub report: Report,
    pub requests: Vec<Request>,
    pub records: Vec<Record>,
    pub files: BTreeMap<String, String>,
    /// The files at the time of each record.
    pub states: Vec<BTreeMap<String, String>>,
    /// The number of changes at the time of each record.
    pub changes_made: Vec<usize>,
    pub changes: Changes,
    /// The turn of each edit.
    pub changed_in: Vec<u32>,
}

pub fn world() -> World {
    let files = [
        ("calc.py", "def add(a, b):\n    return a - b\n"),
        ("README.md", "# Calc\n"),
        ("test_calc.py", "from calc import add\n\nassert add(1, 2) == 3\n"),
    ];
    World {
        names: Vec::new(),
        files: Arc::new(Mutex::new(files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect())),
        changes: Changes::default(),
        commands: false,
        graded: false,
        interrupted_at: None,
        hangs_at: None,
        settings: Settings { approach: planner::Approach::Tools, ..Settings::default() },
        identity: Identity {
            server: "script".into(),
            model: "scripted".into(),
            window: Some(32_768),
            local: true,
            ..Identity::default()
        },
        escalation: None,
        fallback: None,
        verified: true,
        instructions: Vec::new(),
        original: BTreeMap::new(),
        inbox: Box::new(VecDeque::new()),
        interrupt: tokio::sync::watch::channel(false).0,
    }
}

impl World {
    pub async fn run(self, task: &str, replies: Vec<Reply>) -> Ran {
        self.resume(task, replies, &[]).await
    }

    /// Resumes a run whose journal is `past`, with the last model named in the journal.
    pub async fn resume(self, task: &str, replies: Vec<Reply>, past: &[Record]) -> Ran {
        let role = past.iter().rev().find_map(|record| match &record.event {
            Event::Model(model) | Event::ModelChanged { model, .. } => Some(model.role),
            _ => None,
        });
        let identity = match role.flatten() {
            Some(ModelRole::Escalate) => self.escalation.clone().flatten(),
            Some(ModelRole::Fallback) => self.fallback.clone().flatten(),
            None => None,
        };
        let script = Script {
            replies: Arc::new(Mutex::new(replies.into())),
            requests: Arc::default(),
            identity: identity.unwrap_or_else(|| self.identity.clone()),
        };
        self.go(task, Box::new(script.clone()), script, past).await
    }

    /// Runs with this model, which must record its requests in `requests`.
    pub async fn run_with(
        self,
        task: &str,
        model: Box<dyn Model>,
        requests: Arc<Mutex<Vec<Request>>>,
    ) -> Ran {
        let script = Script { replies: Arc::default(), requests, identity: self.identity.clone() };
        self.go(task, model, script, &[]).await
    }

    async fn go(self, task: &str, model: Box<dyn Model>, script: Script, past: &[Record]) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut journal: Journal = store.create().unwrap();
        let states = Arc::new(Mutex::new(Vec::new()));
        let (seen, files, made) = (Arc::clone(&states), Arc::clone(&self.files), Arc::clone(&self.changes));
        journal.observe(Box::new(move |_| {
            seen.lock().unwrap().push((files.lock().unwrap().clone(), made.lock().unwrap().len()));
        }));
        let turns = Turns::default();
        let later = |identity: Option<Option<Identity>>| {
            let other = |identity: Identity| Script { identity, ..script.clone() };
            identity.map(|identity| Box::new(Later(identity.map(other))) as Box<dyn OpenModel>)
        };
        let fell_back = past.iter().any(|record| match &record.event {
            Event::Model(model) | Event::ModelChanged { model, .. } => {
                model.role == Some(ModelRole::Fallback)
            }
            _ => false,
        });
        let parts = Parts {
            model,
            escalation: later(self.escalation),
            fallback: later(self.fallback).filter(|_| !fell_back),
            tools: Registry::of(
                [
                    ReadFile(Arc::clone(&self.files)).into_tool(),
                    ApplyPatch(Arc::clone(&self.files), Arc::clone(&turns), Arc::clone(&self.changes))
                        .into_tool(),
                    planner::Finish.into_tool(),
                ]
                .into_iter()
                .chain(self.commands.then(|| RunCommand(Arc::clone(&self.files)).into_tool()))
                .map(|tool| {
                    match self.names.iter().find(|(own, _)| *own == tool.spec().name) {
                        Some((_, name)) => {
                            let spec = Spec { name: (*name).to_owned(), ..tool.spec().clone() };
                            Arc::new(Renamed { tool, spec })
                        }
                        None => tool,
                    }
                }),
            )
            .unwrap(),
            repository: Arc::new(Tree {
                files: Arc::clone(&self.files),
                changes: Arc::clone(&self.changes),
                before_command: Mutex::default(),
                before: Mutex::new(self.original),
                instructions: self.instructions,
                turns: Arc::clone(&turns),
            }),
            verifier: self.verified.then(|| -> Arc<dyn Verifier> {
                let passes = Passes(Arc::clone(&self.files));
                let interrupt = self.interrupted_at.map(|_| self.interrupt.clone());
                match self.interrupted_at.or(self.hangs_at) {
                    Some(text) => Arc::new(Hangs { text, passes, interrupt }),
                    None if self.graded => Arc::new(Grades(passes)),
                    None => Arc::new(passes),
                }
            }),
            inbox: self.inbox,
            interrupt: self.interrupt.subscribe(),
        };
        let job = Job {
            images: Vec::new(),
            task: task.into(),
            settings: self.settings,
            why_model: "the test says so".into(),
            role: None,
        };
        let report = match past {
            [] => Box::pin(planner::run(job, parts, &mut journal)).await.unwrap(),
            past => Box::pin(planner::resume(job, parts, &mut journal, past)).await.unwrap(),
        };
        let records = store.load(journal.id()).unwrap();
        let requests = script.requests.lock().unwrap().clone();
        let files = self.files.lock().unwrap().clone();
        let (states, changes_made) = std::mem::take(&mut *states.lock().unwrap()).into_iter().unzip();
        let changed_in = turns.lock().unwrap().1.clone();
        Ran { report, requests, records, files, states, changes_made, changes: self.changes, changed_in }
    }
}

impl Ran {
    /// Returns the whole conversation of the last request as text.
    pub fn conversation(&self) -> String {
        let mut text = String::new();
        for message in &self.requests.last().unwrap().messages {
            write!(text, "[{:?}]\n{}\n\n", message.role, message.content).unwrap();
        }
        text
    }

    /// Returns the last message of each request.
    pub fn last_messages(&self) -> Vec<String> {
        self.requests.iter().map(|r| r.messages.last().unwrap().content.clone()).collect()
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.records.iter().map(|r| &r.event)
    }

    /// Whether each request only appended to the previous one.
    pub fn only_grew(&self) -> bool {
        self.requests.windows(2).all(|w| w[1].messages.starts_with(&w[0].messages))
    }
}

/// Returns an answer that contains the unchanged file and offers alternatives to the minus sign.
pub fn unchanged_and_unsure(others: &[(&str, f32)]) -> Reply {
    let others = others.iter().map(|(other, logprob)| ((*other).to_owned(), *logprob)).collect();
    let mut deltas = text("```python\ndef add(a, b):\n    return a");
    deltas.push(Delta::Doubt { chosen: " -".into(), others });
    deltas.extend(text(" - b\n```\n"));
    Reply::Says(deltas)
}

pub fn world_with_branches() -> World {
    let mut world = world();
    world.settings.approach = planner::Approach::WholeFile;
    world.identity.branches = true;
    world
}

/// Returns a model with this name and window.
pub fn named(name: &str, window: u64) -> Identity {
    Identity {
        server: "script".into(),
        model: name.into(),
        window: Some(window),
        local: true,
        ..Identity::default()
    }
}

/// Returns a world in which a model named `large` makes the final try.
pub fn escalating() -> World {
    let mut world = world();
    world.settings.escalates = true;
    world.escalation = Some(Some(named("large", 65_536)));
    world
}

/// Returns the edit to `calc.py` that makes `add` return `line`.
pub fn patch(line: &str) -> Reply {
    let content = format!("def add(a, b):\\n    return {line}\\n");
    says(&format!(r#"{{"tool": "apply_patch", "arguments": {{"path": "calc.py", "content": "{content}"}}}}"#))
}

pub const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "done"}}"#;

/// Returns the replies for a try in which the model makes an edit and insists that it is done.
pub fn gives_up(line: &str) -> Vec<Reply> {
    vec![patch(line), says(FINISH), says(FINISH), says(FINISH)]
}
