//! `agent patch`: a patch in any form applied to the work tree, as a model's would be, by the same code. It needs no settings, no model
//! and no session.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::ToolError;
use tool_apply_patch::{ApplyPatch, Arguments, Plan};
use workspace::{Digest, Workspace};

use crate::cli::Patch;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::half_done;
use crate::preview::{self, FileChange, Form, Image};
use crate::sanitize;

mod decoded;

/// The largest patch, in bytes: far more than one that changes every file of a large project.
const LIMIT: u64 = 256 << 20;

/// Applies a patch, or looks whether it could be.
pub(crate) fn run(mut command: Patch, context: &Context) -> Result<Exit> {
    let form = command.trial.preview(&mut command.file).map_err(Failure::misuse)?;
    let bytes = read(command.file.as_deref())?;
    let place = Place::open(context)?;
    let text = decoded::text(bytes, &place.workspace)?;
    let call = call(&text)?;
    let is_call = call.is_some();
    let arguments = arguments(&text, call, command.path.as_deref())?;
    let tool = ApplyPatch::new(place.workspace.clone(), Secrets::off());
    let dry = command.trial.check || form.is_some();
    let done = tool.plan(arguments).and_then(|plan| {
        let changes = changes(&plan, context);
        let report = if dry { String::new() } else { tool.carry_out(&plan)?.text };
        Ok((changes, report))
    });
    drop(tool);
    place.leave();
    match done {
        Ok((changes, report)) => {
            if command.json {
                console::print(format!("{}\n", json!({"applied": !dry, "files": preview::facts(&changes)})))?;
            } else if dry {
                preview::show(&changes, form.unwrap_or(Some(Form::None)), context)?;
            } else {
                console::print(format!("{}\n", harmless(report.trim_end(), console::stdout_is_terminal())))?;
            }
            Ok(Exit::Success)
        }
        Err(ToolError::Run(message)) => Err(Failure::misuse(message)),
        Err(ToolError::Model(message)) => {
            // What is no patch is misuse; what is one and does not fit is the answer no.
            let readable = patch::parse_for(&text, command.path.as_deref()).is_ok() || is_call;
            if command.json {
                console::print(format!("{}\n", json!({"applied": false, "refused": message})))?;
            } else {
                console::say(harmless(message.trim_end(), console::stderr_is_terminal()));
                if let (false, Err(patch::ParseError::NoPath(_))) = (readable, patch::parse(&text)) {
                    console::say("hint: or name the file with --path PATH");
                }
            }
            Ok(if readable { Exit::Negative } else { Exit::Run(journal::Ending::Refused) })
        }
    }
}

/// What is piped on is left as it is.
fn harmless(text: &str, on_terminal: bool) -> Cow<'_, str> {
    if on_terminal { sanitize::text(text) } else { text.into() }
}

/// The patch, from wherever it was said to be.
fn read(file: Option<&str>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (name, read) = match file {
        None if io::stdin().is_terminal() => {
            return Err(
                Failure::misuse("there is no patch").hint("name a file, or send the patch to standard input")
            );
        }
        None | Some("-") => ("standard input", io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes)),
        Some(path) => (path, File::open(path).and_then(|f| f.take(LIMIT + 1).read_to_end(&mut bytes))),
    };
    read.map_err(|e| Failure::misuse(format!("cannot read the patch from {name}: {e}")))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::misuse(format!("the patch is longer than {} MiB", LIMIT >> 20)));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::misuse(format!("there is no patch: {name} is empty")));
    }
    Ok(bytes)
}

/// What the tool is called with: the text as a patch, unless it is or holds such a call itself.
fn arguments(text: &str, call: Option<Value>, path: Option<&str>) -> Result<Arguments> {
    let mut call = call.unwrap_or_else(|| json!({"patch": text}));
    if let (Some(path), Some(map)) = (path, call.as_object_mut().filter(|map| !map.contains_key("edits"))) {
        map.insert("path".into(), path.into());
    }
    serde_json::from_value(call).or_else(|e| {
        // Perhaps they are those of another agent's tool, which are read where all patches are.
        if patch::parse_for(text, path).is_err() {
            return Err(Failure::misuse(format!("these are not the arguments of apply_patch: {e}")));
        }
        let arguments = json!({"patch": text, "path": path});
        serde_json::from_value(arguments)
            .map_err(|e| Failure::misuse(format!("these are not the arguments of apply_patch: {e}")))
    })
}

/// A call of apply_patch, as a model writes it, its arguments alone, or a patch as an array of lines. Lists of edits are read where all
/// patches are.
fn call(text: &str) -> Result<Option<Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(mut call)) if call.contains_key("tool") => Ok(call.remove("arguments")),
        Ok(Value::Object(call))
            if ["patch", "content", "delete"].iter().any(|key| call.contains_key(*key)) =>
        {
            Ok(Some(Value::Object(call)))
        }
        Ok(Value::Array(lines)) if !lines.is_empty() && lines.iter().all(Value::is_string) => {
            Ok(Some(json!({"patch": lines})))
        }
        Ok(_) => Ok(None),
        Err(_) if patch::detect(text).is_some_and(|found| found != patch::Dialect::Edits) => Ok(None),
        Err(_) => call_within(text),
    }
}

/// The call in what a model has answered. What can only be read by guessing is not applied.
fn call_within(text: &str) -> Result<Option<Value>> {
    let answer = tool_stream::parse(text.as_bytes(), tool_stream::End::Stop, tool_stream::Options::default());
    let mut calls = answer.calls.into_iter().filter(|call| call.tool == ApplyPatch::NAME);
    match (calls.next(), calls.count()) {
        (Some(call), 0) if call.repairs.iter().all(|repair| repair.unambiguous()) => Ok(Some(call.arguments)),
        (Some(_), 0) => {
            Err(Failure::misuse("the call could only be read by guessing, so it was not applied"))
        }
        (Some(_), more) => Err(Failure::misuse(format!(
            "these are {} calls of apply_patch; each is all or nothing, so give one at a time",
            more + 1
        ))),
        (None, _) => Ok(None),
    }
}

/// The work tree, and where a half-done change is kept so that the next run can take it back.
pub(crate) struct Place {
    workspace: Workspace,
    keeping: Option<(PathBuf, File)>,
}

impl Place {
    /// The repository around the current folder, or the folder. Two patches at a time wait for each other.
    pub(crate) fn open(context: &Context) -> Result<Self> {
        let root = context.tree()?;
        half_done::of_a_run(root, context)?;
        let keeping = context.state_dir().ok().and_then(|state| Self::keep(&state, root).ok());
        let workspace = match &keeping {
            Some((folder, _)) => Workspace::open_with(root, folder),
            // Without a place to keep anything, only a kill in the very middle could leave a part.
            None => Workspace::open(root),
        };
        Ok(Self { workspace: workspace.map_err(Failure::refused)?, keeping })
    }

    /// Takes back what a patch that was killed here left half done.
    pub(crate) fn settle(context: &Context, root: &Path) -> Result<()> {
        let left = context.state_dir().is_ok_and(|state| Self::folder(&state, root).is_dir());
        if left {
            Self::open(context)?.leave();
        }
        Ok(())
    }

    fn folder(state: &Path, root: &Path) -> PathBuf {
        let name = Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
        state.join("patches").join(&name[..16])
    }

    fn keep(state: &Path, root: &Path) -> io::Result<(PathBuf, File)> {
        let folder = Self::folder(state, root);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.with_extension("lock"))?;
        lock.lock()?;
        fs::create_dir_all(&folder)?; // the one before may have removed it
        Ok((folder, lock))
    }

    /// Nothing is left of a change that is whole.
    fn leave(self) {
        if let Some((folder, lock)) = self.keeping {
            drop(self.workspace);
            let _ = fs::remove_dir_all(folder);
            let _ = lock.unlock();
        }
    }
}

/// The plan as a preview takes it.
fn changes(plan: &Plan, context: &Context) -> Vec<FileChange> {
    let root = context.repository.as_ref().unwrap_or(&context.directory);
    let changes = plan.files().map(|file| {
        let source = file.from.unwrap_or(file.path);
        let mode = fs::symlink_metadata(root.join(source)).map_or(0o644, |m| m.permissions().mode() & 0o7777);
        let image = |bytes: &[u8], mode| Image { bytes: bytes.to_vec(), mode, link: false };
        let changed = match file.executable {
            Some(true) => mode | 0o111,
            Some(false) => mode & !0o111,
            None => mode,
        };
        FileChange {
            path: file.path.to_string(),
            from: file.from.map(ToString::to_string),
            before: file.before.map(|bytes| image(bytes, mode)),
            after: file.after.map(|bytes| image(bytes, changed)),
        }
    });
    changes.collect()
}
