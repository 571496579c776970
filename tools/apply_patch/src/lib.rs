//! The apply_patch tool: accepts edits in every format, checks all files, then changes all of them
//! or none.

mod aliases;
mod answer;
mod arguments;
mod endings;
mod follow;
mod format;
mod paths;
mod refusal;
mod secrecy;
mod written;

use std::{borrow::Cow, fmt, sync::Arc};

use patch::{Action, Applied, ApplySummary, Dialect, FilePatch, Rung};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Effect, Follow, Outcome, Parsed, Spec, Tool, ToolError, WholeFile};
use tool_stream::control_tokens;
use workspace::{Change, CleanPath, Digest, Expect, PathError, ReadError, Workspace};

use crate::arguments::ParsedPatch;
use crate::refusal::{Misses, Why, refuse};
use crate::written::{Before, Refusal};

pub use arguments::{Arguments, Edit, Text};
pub use format::EditFormat;

const DESCRIPTION: &str = "Edit files with one of: edits (search: a few lines copied exactly from the file); patch (unified \
     diff, *** Begin Patch, or SEARCH/REPLACE blocks); path + content (whole file); path + delete.";

/// Inspects the files changed by a call from the model, for example with a language server.
#[async_trait::async_trait]
pub trait Inspect: fmt::Debug + Send + Sync {
    /// Returns text for the model; `None` if there is nothing to say. The text depends on programs
    /// outside the agent, so a replay takes it from the record.
    async fn inspect(&self, files: &[Preview<'_>]) -> Option<String>;
}

/// The apply_patch tool for a workspace. Clones share the record of edits that did not match.
#[derive(Debug, Clone)]
pub struct ApplyPatch {
    workspace: Workspace,
    misses: Arc<Misses>,
    secrets: Secrets,
    inspector: Option<Arc<dyn Inspect>>,
    spec: Arc<Spec>,
}

impl ApplyPatch {
    /// The name of the tool.
    pub const NAME: &'static str = "apply_patch";

    /// Creates the tool for a workspace. The model sees placeholders in place of `secrets`.
    /// Placeholders in the model's edits are replaced with the actual values, and refusals show
    /// placeholders again.
    #[must_use]
    pub fn new(workspace: Workspace, secrets: Secrets) -> Self {
        let spec = Spec {
            aliases: aliases::ALIASES,
            follows: true,
            titled_by: Some("path"),
            whole_file: Some(WholeFile { path: "path", content: "content" }),
            patch: Some("patch"),
            ..Spec::of::<Arguments>(Self::NAME, DESCRIPTION, Effect::Write)
        };
        Self { workspace, misses: Arc::default(), secrets, inspector: None, spec: Arc::new(spec) }
    }

    /// Adds an inspector, which sees the changes of each successful call.
    #[must_use]
    pub fn inspected_by(self, inspector: Option<Arc<dyn Inspect>>) -> Self {
        Self { inspector, ..self }
    }

    /// Returns the tool, ready to be registered.
    #[must_use]
    pub fn into_tool(self) -> Arc<dyn Tool> {
        Arc::new(self)
    }
}

#[async_trait::async_trait]
impl Tool for ApplyPatch {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Checks paths only. Whether lines match is checked when the call is executed.
    fn judge_field(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        let target = |path: &str| match paths::refusal(&self.workspace, path) {
            Some(message) => Err(message),
            None => self.workspace.target(path).map(|_| ()).map_err(|e| e.to_string()),
        };
        let exists = |path: &str| self.workspace.resolve(path).map(|_| ()).map_err(|e| e.to_string());
        match (name, value) {
            ("path", Value::String(path)) => target(path),
            ("edits", Value::Array(edits)) => edits.iter().try_for_each(|edit| {
                let path = edit["path"].as_str().unwrap_or_default();
                let search = serde_json::from_value::<Text>(edit["search"].clone());
                let new = search.is_ok_and(|text| text.joined().trim().is_empty());
                target(path).and_then(|()| if new { Ok(()) } else { exists(path) })
            }),
            ("patch", value) => {
                let Ok(text) = serde_json::from_value::<Text>(value.clone()) else { return Ok(()) };
                // Skip a patch that does not parse: it may need the path from another argument.
                let patch = ParsedPatch::of(text.joined(), parsed);
                patch.patches.iter().flatten().try_for_each(|p| {
                    let path =
                        paths::undecorated(&self.workspace, &p.path, p.dialect).map_err(|why| why.message)?;
                    target(path)?;
                    match (&p.from, &p.action) {
                        (Some(from), _) => exists(from),
                        (None, Action::Update | Action::Delete) if !p.only_adds() => exists(path),
                        (None, _) => Ok(()),
                    }
                })
            }
            _ => Ok(()),
        }
    }

    fn judge(&self, arguments: &Value, _parsed: &mut Parsed) -> Result<(), String> {
        Arguments::read(arguments.clone()).map(|_| ())
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        Some(Box::new(follow::Following::new(
            self.workspace.clone(),
            Arc::clone(&self.misses),
            self.secrets.clone(),
        )))
    }

    fn whole_answer(&self, text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
        answer::read(text, parsed)
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        let mut arguments = Arguments::read(arguments).map_err(ToolError::Model)?;
        arguments.parsed = parsed.get();
        let plan = self.plan(arguments)?;
        let outcome = self.carry_out(&plan)?;
        let Some(inspector) = self.inspector.as_ref().filter(|_| !parsed.is_own()) else {
            return Ok(outcome);
        };
        let files: Vec<_> = plan.files().collect();
        Ok(match inspector.inspect(&files).await {
            Some(text) => outcome.with_inspection(&text),
            None => outcome,
        })
    }
}

/// The changes of a call, checked but not yet made.
#[derive(Debug)]
pub struct Plan(Vec<Planned>);

/// The change to one file, checked but not yet made.
#[derive(Debug)]
struct Planned {
    path: CleanPath,
    change: Change,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    dialect: Dialect,
    verb: &'static str,
    summary: ApplySummary,
}

impl Planned {
    /// Returns the path before the change.
    fn source(&self) -> &CleanPath {
        if let Change::Rename { from, .. } = &self.change { from } else { &self.path }
    }
}

/// One file before and after the changes of a plan, for a preview.
#[derive(Debug, Clone, Copy)]
pub struct Preview<'a> {
    /// The path after the change; the old path if the file is deleted.
    pub path: &'a CleanPath,
    /// The old path, if the file is renamed.
    pub from: Option<&'a CleanPath>,
    /// The old content; `None` if the file is created.
    pub before: Option<&'a [u8]>,
    /// The new content; `None` if the file is deleted.
    pub after: Option<&'a [u8]>,
    /// Sets or clears the executable bits; `None` keeps them.
    pub executable: Option<bool>,
}

impl Plan {
    /// Returns the files, in the order of the patch.
    pub fn files(&self) -> impl Iterator<Item = Preview<'_>> {
        self.0.iter().map(|p| {
            let (from, executable) = match &p.change {
                Change::Rename { from, executable, .. } => (Some(from), *executable),
                Change::Write { executable, .. } => (None, *executable),
                Change::Delete { .. } => (None, None),
            };
            let (before, after) = (p.before.as_deref(), p.after.as_deref());
            Preview { path: &p.path, from, before, after, executable }
        })
    }
}

impl ApplyPatch {
    /// Checks a call against all of its files without changing any of them.
    ///
    /// # Errors
    /// Fails if the call would be refused.
    pub fn plan(&self, arguments: Arguments) -> Result<Plan, ToolError> {
        let arguments = match arguments.insertion() {
            None => arguments,
            Some(parts) => self.insert(parts).map_err(|message| refuse(&message))?,
        };
        let (patches, written) = self.with_values(arguments).map_err(|message| refuse(&message))?;
        let written = written.as_deref().unwrap_or(&patches);
        let planned = patches
            .iter()
            .zip(written)
            .map(|(patch, written)| self.plan_file(patch, written).map_err(|why| self.refused(why)));
        planned.collect::<Result<_, _>>().map(Plan)
    }

    /// Converts an insertion into arguments that write the whole file: its content, with the text
    /// inserted after the line.
    fn insert(&self, parts: Result<(u64, String, String), String>) -> Result<Arguments, String> {
        let (line, path, text) = parts?;
        let found = self.workspace.resolve(&path).map_err(|e| e.to_string())?;
        let view = self.workspace.read(&found).map_err(|e| e.to_string())?;
        let file = String::from_utf8(view.text().to_vec())
            .map_err(|_| format!("{found} is not UTF-8; send edits instead of insert_line"))?;
        let lines: Vec<&str> = file.split_inclusive('\n').collect();
        let line = usize::try_from(line).ok().filter(|line| *line <= lines.len());
        let line =
            line.ok_or_else(|| format!("{found} has {} lines; insert_line is beyond them", lines.len()))?;
        let (before, after) = lines.split_at(line);
        let end = if file.contains("\r\n") { "\r\n" } else { "\n" };
        let text = if end == "\n" || text.contains('\r') { text } else { text.replace('\n', end) };
        let mut content = before.concat();
        if !content.is_empty() && !content.ends_with('\n') {
            content.push_str(end);
        }
        content.push_str(&text);
        if !text.ends_with('\n') && (!after.is_empty() || file.ends_with('\n') || file.is_empty()) {
            content.push_str(end);
        }
        content.push_str(&after.concat());
        Ok(Arguments::whole(found.to_string(), content))
    }

    /// Makes all of a plan's changes, or none of them.
    ///
    /// # Errors
    /// Fails if a file has changed since the plan was made, or if a system error occurs.
    pub fn carry_out(&self, plan: &Plan) -> Result<Outcome, ToolError> {
        let changes = plan.0.iter().map(|p| p.change.clone()).collect();
        self.workspace.commit(changes).map_err(|e| match e {
            e if e.is_system() => ToolError::Run(e.to_string()),
            e => self.refused(e.into()),
        })?;
        Ok(self.report(&plan.0))
    }

    /// Plans the change to one file. `written` is the patch as the model wrote it, with
    /// placeholders.
    fn plan_file(&self, patch: &FilePatch, written: &FilePatch) -> Result<Planned, Why> {
        let path = self.workspace.target(paths::undecorated(&self.workspace, &patch.path, patch.dialect)?)?;
        let from = match &patch.from {
            Some(from) => Some(self.workspace.target(from)?),
            None => None,
        }
        .filter(|from| *from != path);
        let source = from.as_ref().unwrap_or(&path);
        let before = match self.workspace.read(source) {
            Ok(file) => Some(Before::Text(file)),
            Err(ReadError::Path(e @ PathError::NotFound { .. })) => match patch.action {
                Action::Update | Action::Delete if !patch.only_adds() => return Err(e.into()),
                _ => None,
            },
            Err(ReadError::Binary { .. }) if matches!(patch.action, Action::Replace(_)) => {
                Some(Before::Binary(self.workspace.read_bytes(source, workspace::READ_LIMIT)?))
            }
            Err(e) => return Err(e.into()),
        };
        let shown = before.as_ref().map(Before::shown);
        let restored = shown.and_then(|text| with_tokens(text, patch));
        let Applied { bytes, summary } =
            written::apply(before.as_ref(), restored.as_ref().unwrap_or(patch), &path).map_err(
                |refused| match refused {
                    Refusal::Engine(refused) => self.masked_refusal(source, shown, refused, written),
                    Refusal::Unwritable(why) => Why::unwritable(source.clone(), &why),
                },
            )?;
        let before = before.map(Before::into_bytes);
        let own_endings = patch.own_endings && before.is_none();
        let bytes = bytes.map(|bytes| {
            if own_endings { endings::of_repository(&self.workspace, &path, bytes) } else { bytes }
        });
        let expect = match &before {
            Some(bytes) => Expect::Content(Digest::of(bytes)),
            None => Expect::Absent,
        };
        let (change, verb) = match (&bytes, from) {
            (None, _) => (Change::Delete { path: path.clone(), expect }, "deleted"),
            (Some(bytes), Some(from)) => {
                let (bytes, executable) = (Some(bytes.clone()), patch.executable);
                (Change::Rename { from, to: path.clone(), bytes, executable, expect }, "moved here")
            }
            (Some(bytes), None) => {
                let verb = if before.is_some() { "changed" } else { "created" };
                let (bytes, executable) = (bytes.clone(), patch.executable);
                (Change::Write { path: path.clone(), bytes, executable, expect }, verb)
            }
        };
        Ok(Planned { path, change, before, after: bytes, dialect: patch.dialect, verb, summary })
    }

    fn refused(&self, why: Why) -> ToolError {
        refusal::refused(&self.workspace, &self.misses, &self.secrets, why)
    }

    fn report(&self, planned: &[Planned]) -> Outcome {
        let mut lines = Vec::with_capacity(planned.len());
        for p in planned {
            let seen = self.workspace.seen(p.source());
            let stale = seen.zip(p.before.as_ref()).is_some_and(|(seen, before)| seen != Digest::of(before));
            if let Some(bytes) = &p.after {
                self.workspace.saw(&p.path, bytes);
                self.misses.clear(&p.path);
            }
            let how = match p.summary.rung {
                Rung::Indent | Rung::Tabs => ", indentation adjusted to the file's",
                Rung::Typographic => ", quotes and dashes adjusted to the file's",
                Rung::Numbered => ", line numbers removed",
                Rung::Context => ", though some context lines differ from the file",
                Rung::Named | Rung::Exact | Rung::Text | Rung::Trailing => "",
            };
            let stale = if stale { "; the file had changed since you read it" } else { "" };
            let Planned { verb, path, summary, .. } = p;
            lines.push(format!("{verb} {path} +{} -{}{how}{stale}", summary.added, summary.removed));
        }
        let sum = |count: fn(&_) -> usize| planned.iter().map(|p| count(&p.summary)).sum::<usize>();
        let mut outcome = Outcome::ok(lines.join("\n"));
        for p in planned {
            if let Change::Rename { from, .. } = &p.change {
                outcome.changed.push(from.to_string());
            }
            outcome.changed.push(p.path.to_string());
        }
        outcome.facts = json!({
            "added": sum(|h| h.added),
            "removed": sum(|h| h.removed),
            "dialect": planned.first().map(|p| p.dialect),
            "rung": planned.iter().map(|p| p.summary.rung).max(),
        });
        outcome
    }
}

/// Returns the patch with the real control tokens in place of the altered ones that the model saw.
/// Returns `None` if the file contains no control tokens, or if it also contains altered ones,
/// which makes the patch ambiguous.
fn with_tokens(file: &[u8], patch: &FilePatch) -> Option<FilePatch> {
    if !has_tokens(file) || matches!(control_tokens::restored(file), Cow::Owned(_)) {
        return None;
    }
    let mut patch = patch.clone();
    patch.for_each_text(&mut |text| *text = control_tokens::restored(text).into_owned());
    Some(patch)
}

/// Returns whether the file contains control tokens, which the model sees in an altered form.
fn has_tokens(file: &[u8]) -> bool {
    matches!(control_tokens::broken(&String::from_utf8_lossy(file)), Cow::Owned(_))
}
