//! `agent patch`: applies a patch in any format to the work tree, using the same code that applies
//! a model's edits. The command does not need settings, a model or a session.

use std::borrow::Cow;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::ToolError;
use tool_apply_patch::{ApplyPatch, Arguments, Plan};

use crate::cli::Patch;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::recovery::PatchTree;
use crate::sanitize;
use preview::{FileChange, Image};

mod decoded;

/// Maximum size of a patch, in bytes. Even a patch to every file in a large project is far smaller.
const LIMIT: u64 = 256 << 20;

/// Applies a patch, or checks whether it applies.
pub(crate) fn run(mut command: Patch, context: &Context) -> Result<Exit> {
    let (dry, format) = command.trial.resolve(&mut command.file).map_err(Failure::misuse)?;
    let bytes = read(command.file.as_deref())?;
    let tree = PatchTree::open(context)?;
    let text = decoded::text(bytes, &tree.workspace)?;
    let call = call(&text)?;
    let is_call = call.is_some();
    let arguments = arguments(&text, call, command.path.as_deref())?;
    let tool = ApplyPatch::new(tree.workspace.clone(), Secrets::disabled());
    let done = tool.plan(arguments).and_then(|plan| {
        let changes = changes(&plan, context);
        let report = if dry { String::new() } else { tool.carry_out(&plan)?.text };
        Ok((changes, report))
    });
    drop(tool);
    tree.close();
    match done {
        Ok((changes, report)) => {
            if command.json {
                console::print(format!("{}\n", json!({"applied": !dry, "files": preview::facts(&changes)})))?;
            } else if dry {
                console::changes(&changes, format, context)?;
            } else {
                console::print(format!("{}\n", harmless(report.trim_end(), console::stdout_is_terminal())))?;
            }
            Ok(Exit::Success)
        }
        Err(ToolError::Run(message)) => Err(Failure::misuse(message)),
        Err(ToolError::Model(message)) => {
            // Text that is not a patch is misuse; a patch that does not apply is a negative result.
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

/// Sanitizes text for a terminal. A program gets the text unchanged.
fn harmless(text: &str, on_terminal: bool) -> Cow<'_, str> {
    if on_terminal { sanitize::text(text) } else { text.into() }
}

/// Reads the patch from a file or standard input.
fn read(file: Option<&str>) -> Result<Vec<u8>> {
    if file.is_none() && io::stdin().is_terminal() {
        return Err(
            Failure::misuse("no patch given").hint("name a file, or pipe the patch to standard input")
        );
    }
    let file = file.filter(|file| *file != "-");
    let bytes = console::read_input("the patch", file.map(Path::new), LIMIT)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let name = file.unwrap_or("standard input");
        return Err(Failure::misuse(format!("no patch given: {name} is empty")));
    }
    Ok(bytes)
}

/// Returns the arguments for the tool: `call`, or the text as a patch if there is no call.
fn arguments(text: &str, call: Option<Value>, path: Option<&str>) -> Result<Arguments> {
    let mut call = call.unwrap_or_else(|| json!({"patch": text}));
    if let (Some(path), Some(map)) = (path, call.as_object_mut().filter(|map| !map.contains_key("edits"))) {
        map.insert("path".into(), path.into());
    }
    serde_json::from_value(call).or_else(|e| {
        // The text may be the arguments of another agent's tool, which the patch parser
        // understands.
        if patch::parse_for(text, path).is_err() {
            return Err(Failure::misuse(format!("invalid arguments for apply_patch: {e}")));
        }
        let arguments = json!({"patch": text, "path": path});
        serde_json::from_value(arguments)
            .map_err(|e| Failure::misuse(format!("invalid arguments for apply_patch: {e}")))
    })
}

/// Returns the arguments for apply_patch if the text is a call, the arguments of a call, or an
/// array with the lines of a patch. Returns `None` for anything else, such as a list of edits,
/// which is left to the patch parser.
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

/// Finds the call in a model's answer. Refuses a call whose repair would be ambiguous.
fn call_within(text: &str) -> Result<Option<Value>> {
    let answer = tool_stream::parse(text.as_bytes(), tool_stream::End::Stop, tool_stream::Options::default());
    let mut calls = answer.calls.into_iter().filter(|call| call.tool == ApplyPatch::NAME);
    match (calls.next(), calls.count()) {
        (Some(call), 0) if call.repairs.iter().all(|repair| repair.unambiguous()) => Ok(Some(call.arguments)),
        (Some(_), 0) => Err(Failure::misuse("the call is ambiguous and was not applied")),
        (Some(_), more) => Err(Failure::misuse(format!(
            "found {} calls to apply_patch; each is atomic, so apply one at a time",
            more + 1
        ))),
        (None, _) => Ok(None),
    }
}

/// Converts the plan to changes for a preview.
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
