//! The apply_patch tool: every form of edit, verified for all files, then committed for all files or none.

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

use std::{borrow::Cow, sync::Arc};

use patch::{Action, Applied, Dialect, FilePatch, How, Rung};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Aliases, Effect, Follow, Outcome, Tool, ToolError, control_tokens};
use workspace::{Change, CleanPath, Digest, Expect, PathError, ReadError, Workspace};

use crate::refusal::{Misses, Why, refuse};
use crate::written::{Before, Refusal};

pub use arguments::{Arguments, Edit, Text};
pub use format::EditFormat;

/// Changes files of a workspace. Clones share what they remember of misses.
#[derive(Debug, Clone)]
pub struct ApplyPatch(Workspace, Arc<Misses>, Secrets);

impl ApplyPatch {
    /// Changes files in this workspace.
    #[must_use]
    pub fn new(workspace: Workspace) -> Self {
        Self(workspace, Arc::default(), Secrets::off())
    }

    /// For a model that is shown placeholders for these secrets: in what it writes, they mean the values. What it reads has them again.
    #[must_use]
    pub fn masking(self, secrets: Secrets) -> Self {
        Self(self.0, self.1, secrets)
    }
}

#[async_trait::async_trait]
impl Tool for ApplyPatch {
    type Arguments = Arguments;
    const NAME: &'static str = "apply_patch";
    const DESCRIPTION: &'static str = "Change files by one of: edits (search: a few lines copied exactly from the file); patch (unified \
         diff, *** Begin Patch, or SEARCH/REPLACE blocks); path + content (whole file); path + delete.";
    const EFFECT: Effect = Effect::Write;
    const ALIASES: &'static Aliases = aliases::ALIASES;

    /// Paths only: whether the lines fit is known when all of them are there.
    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        let target = |path: &str| match paths::refusal(&self.0, path) {
            Some(message) => Err(message),
            None => self.0.target(path).map(|_| ()).map_err(|e| e.to_string()),
        };
        let exists = |path: &str| self.0.resolve(path).map(|_| ()).map_err(|e| e.to_string());
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
                // One that cannot be read may still want the path that comes in another argument.
                let patches = patch::parse(&text.joined()).unwrap_or_default();
                patches.iter().try_for_each(|p| {
                    let path = paths::meant(&self.0, &p.path, p.dialect).map_err(|why| why.message)?;
                    target(path)?;
                    match (&p.from, &p.action) {
                        (Some(from), _) => exists(from),
                        (None, Action::Update | Action::Delete) if !p.creates() => exists(path),
                        (None, _) => Ok(()),
                    }
                })
            }
            _ => Ok(()),
        }
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        Some(Box::new(follow::Following::new(self.0.clone(), Arc::clone(&self.1), self.2.clone())))
    }

    fn whole_answer(&self, text: &str) -> Option<Result<Value, String>> {
        answer::read(text)
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        self.carry_out(&self.plan(arguments)?)
    }
}

/// What a call would do, verified and not yet done.
#[derive(Debug)]
pub struct Plan(Vec<Planned>);

/// One file's change, verified and not yet made.
#[derive(Debug)]
struct Planned {
    path: CleanPath,
    change: Change,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    dialect: Dialect,
    verb: &'static str,
    how: How,
}

impl Planned {
    /// Where the file was before.
    fn source(&self) -> &CleanPath {
        if let Change::Rename { from, .. } = &self.change { from } else { &self.path }
    }
}

/// One file before and after, for a preview.
#[derive(Debug, Clone, Copy)]
pub struct Preview<'a> {
    /// Where it is afterwards, or was, when it is removed.
    pub path: &'a CleanPath,
    /// Where it was before, when it is renamed.
    pub from: Option<&'a CleanPath>,
    /// Its content before; `None` when it is created.
    pub before: Option<&'a [u8]>,
    /// Its content after; `None` when it is removed.
    pub after: Option<&'a [u8]>,
    /// Whether the executable bits are set or cleared; `None` keeps them.
    pub executable: Option<bool>,
}

impl Plan {
    /// The files, in the order of the patch.
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
    /// Verifies a call for all its files; nothing is changed.
    ///
    /// # Errors
    /// As the call would be refused.
    pub fn plan(&self, arguments: Arguments) -> Result<Plan, ToolError> {
        let arguments = match arguments.insertion() {
            None => arguments,
            Some(parts) => self.inserted(parts).map_err(|message| refuse(&message))?,
        };
        let (patches, written) = self.with_values(arguments).map_err(|message| refuse(&message))?;
        let written = written.as_deref().unwrap_or(&patches);
        let planned = patches
            .iter()
            .zip(written)
            .map(|(patch, written)| self.plan_file(patch, written).map_err(|why| self.refused(why)));
        planned.collect::<Result<_, _>>().map(Plan)
    }

    /// The whole file with text put in behind a line.
    fn inserted(&self, parts: Result<(u64, String, String), String>) -> Result<Arguments, String> {
        let (line, path, text) = parts?;
        let found = self.0.resolve(&path).map_err(|e| e.to_string())?;
        let view = self.0.read(&found).map_err(|e| e.to_string())?;
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

    /// Makes all the changes, or none.
    ///
    /// # Errors
    /// When a file is no longer what the plan was made for, or the system fails.
    pub fn carry_out(&self, plan: &Plan) -> Result<Outcome, ToolError> {
        let changes = plan.0.iter().map(|p| p.change.clone()).collect();
        self.0.commit(changes).map_err(|e| match e {
            e if e.is_system() => ToolError::Run(e.to_string()),
            e => self.refused(e.into()),
        })?;
        Ok(self.report(&plan.0))
    }

    /// `written` is the patch as the model wrote it, with placeholders.
    fn plan_file(&self, patch: &FilePatch, written: &FilePatch) -> Result<Planned, Why> {
        let path = self.0.target(paths::meant(&self.0, &patch.path, patch.dialect)?)?;
        let from = match &patch.from {
            Some(from) => Some(self.0.target(from)?),
            None => None,
        }
        .filter(|from| *from != path);
        let source = from.as_ref().unwrap_or(&path);
        let before = match self.0.read(source) {
            Ok(file) => Some(Before::Text(file)),
            Err(ReadError::Path(e @ PathError::NotFound { .. })) => match patch.action {
                Action::Update | Action::Delete if !patch.creates() => return Err(e.into()),
                _ => None,
            },
            Err(ReadError::Binary { .. }) if matches!(patch.action, Action::Replace(_)) => {
                Some(Before::Binary(self.0.read_bytes(source, workspace::READ_LIMIT)?))
            }
            Err(e) => return Err(e.into()),
        };
        let shown = before.as_ref().map(Before::shown);
        let restored = shown.and_then(|text| with_tokens(text, patch));
        let Applied { bytes, how } =
            written::apply(before.as_ref(), restored.as_ref().unwrap_or(patch), &path).map_err(
                |refused| match refused {
                    Refusal::Engine(refused) => self.told(source, shown, refused, written),
                    Refusal::Unwritable(why) => Why::unwritable(source.clone(), &why),
                },
            )?;
        let before = before.map(Before::into_bytes);
        let own_endings = patch.own_endings && before.is_none();
        let bytes = bytes
            .map(|bytes| if own_endings { endings::of_repository(&self.0, &path, bytes) } else { bytes });
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
        Ok(Planned { path, change, before, after: bytes, dialect: patch.dialect, verb, how })
    }

    fn refused(&self, why: Why) -> ToolError {
        refusal::refused(&self.0, &self.1, &self.2, why)
    }

    fn report(&self, planned: &[Planned]) -> Outcome {
        let mut lines = Vec::with_capacity(planned.len());
        for p in planned {
            let seen = self.0.seen(p.source());
            let stale = seen.zip(p.before.as_ref()).is_some_and(|(seen, before)| seen != Digest::of(before));
            if let Some(bytes) = &p.after {
                self.0.saw(&p.path, bytes);
                self.1.landed(&p.path);
            }
            let how = match p.how.rung {
                Rung::Indent | Rung::Tabs => ", indentation adjusted to the file's",
                Rung::Typographic => ", quotes and dashes adjusted to the file's",
                Rung::Numbered => ", line numbers removed",
                Rung::Context => ", though some unchanged lines of the patch are not as in the file",
                Rung::Named | Rung::Exact | Rung::Text | Rung::Trailing => "",
            };
            let stale = if stale { "; the file had changed since you read it" } else { "" };
            lines.push(format!("{} {} +{} -{}{how}{stale}", p.verb, p.path, p.how.added, p.how.removed));
        }
        let sum = |count: fn(&How) -> usize| planned.iter().map(|p| count(&p.how)).sum::<usize>();
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
            "rung": planned.iter().map(|p| p.how.rung).max(),
        });
        outcome
    }
}

/// The patch as the model means it: what it saw of the file had the control tokens in it broken. Where the file has such broken ones itself,
/// nobody can tell.
fn with_tokens(file: &[u8], patch: &FilePatch) -> Option<FilePatch> {
    if !has_tokens(file) || matches!(control_tokens::restored(file), Cow::Owned(_)) {
        return None;
    }
    let restore = |text: &mut Vec<u8>| *text = control_tokens::restored(text).into_owned();
    let mut patch = patch.clone();
    if let Action::Replace(content) = &mut patch.action {
        restore(content);
    }
    for hunk in &mut patch.hunks {
        hunk.lines.iter_mut().for_each(|line| restore(&mut line.text));
        hunk.under.iter_mut().for_each(restore);
        if let Some((search, replace)) = &mut hunk.text {
            restore(search);
            restore(replace);
        }
    }
    Some(patch)
}

/// Whether the model sees another file than there is.
fn has_tokens(file: &[u8]) -> bool {
    matches!(control_tokens::broken(&String::from_utf8_lossy(file)), Cow::Owned(_))
}
