//! Which objects are calls: the protocol's own form and the wrappers of other model families.
//!
//! | form | read as |
//! |---|---|
//! | `{"tool": T, "arguments": {…}}`, also `tool_name`, `toolName` and `args`, `input`, `parameters`, … | a call of T |
//! | `{"tool": T, "path": …}` | a call of T with all other members as arguments, unless one of them says that this is a result or a schema |
//! | `{"name": T, "arguments": {…}}`, `function`, `action`, … with `parameters`, `action_input`, … | a call of T; with tools known, anything but `"arguments"` asks for a known T |
//! | `{"name": T, "path": …}`, `{T: {…}}` | a call only if T is a known tool |
//! | `{"function": {…}}`, `{"tool_call": {…}}`, `{"function_call": {…}}`, `{"tool": {…}}` | the call inside |
//! | `{"tool_calls": [{…}, …]}` and its like | the calls inside, each when it closes |
//!
//! `"arguments"` may be a string that holds the object. A schema (`"type": "object"` with `"properties"`) is none.

use serde_json::{Map, Value};

use crate::event::Options;
use crate::json::{Reader, Step};
use crate::text::Repairs;
use crate::window::Window;

/// A call as found in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) tool: String,
    pub(crate) arguments: Value,
}

/// Keys that can only name a tool.
pub(crate) fn is_explicit(key: &str) -> bool {
    matches!(key, "tool" | "tool_name" | "toolName")
}

/// Keys that name a tool where the rest of the object looks like a call.
pub(crate) fn is_name(key: &str) -> bool {
    is_explicit(key) || NAMES.contains(&key)
}

const NAMES: [&str; 8] =
    ["name", "function", "function_name", "action", "recipient_name", "tool_use", "command_name", "api_name"];

/// Keys that hold the arguments.
pub(crate) fn is_arguments(key: &str) -> bool {
    ARGUMENTS.contains(&key)
}

const ARGUMENTS: [&str; 13] = [
    "arguments",
    "args",
    "parameters",
    "params",
    "input",
    "inputs",
    "action_input",
    "tool_input",
    "tool_args",
    "tool_arguments",
    "tool_parameters",
    "kwargs",
    "argument",
];

/// Keys whose array holds calls.
pub(crate) fn is_list(key: &str) -> bool {
    LISTS.contains(&key)
}

/// List keys that mean nothing else.
pub(crate) fn is_sure_list(key: &str) -> bool {
    LISTS[..4].contains(&key)
}

const LISTS: [&str; 7] =
    ["tool_calls", "toolCalls", "function_calls", "tool_uses", "calls", "actions", "invocations"];

/// Keys whose object holds the call.
const WRAPPERS: [&str; 8] =
    ["function", "tool", "tool_call", "function_call", "toolCall", "call", "tool_use", "action"];

/// Members that a call has beside its arguments.
const ASIDE: [&str; 8] =
    ["thought", "thoughts", "reasoning", "rationale", "explanation", "thinking", "id", "type"];

/// Members that a result or a schema has and a call has not.
const NOT_A_CALL: [&str; 14] = [
    "result",
    "results",
    "output",
    "outcome",
    "error",
    "errors",
    "stdout",
    "stderr",
    "exit_code",
    "returncode",
    "status",
    "success",
    "ok",
    "properties",
];

/// Keys of a schema: `"arguments": {"type": …` may be one, so the call is not opened yet.
pub(crate) fn is_schema_key(key: &str) -> bool {
    matches!(key, "type" | "properties" | "$schema" | "$defs" | "required" | "title")
}

/// True if `key` is a word of the protocol's vocabulary; if it is cut off (`whole` is false), if it may become one.
pub(crate) fn in_vocabulary(key: &str, whole: bool) -> bool {
    let known = |name: &str| if whole { name == key } else { name.starts_with(key) };
    let rest = ["tool_name", "toolName", "role"];
    LISTS.into_iter().chain(NAMES).chain(ARGUMENTS).chain(WRAPPERS).chain(ASIDE).chain(rest).any(known)
}

/// A tool name: one word, as an identifier, a path or with dots.
pub(crate) fn is_tool_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' '))
        && name.chars().any(char::is_alphanumeric)
}

impl Options {
    pub(crate) fn knows(&self, tool: &str) -> bool {
        self.known_tools.as_ref().is_some_and(|known| known.iter().any(|k| k == tool))
    }

    /// The tool's name without a prefix such as `functions.`, if only the bare name is known.
    pub(crate) fn bare_name(&self, tool: &str) -> String {
        let tool = tool.trim();
        match tool.rsplit_once('.') {
            Some(("functions" | "tools" | "tool", bare)) if !self.knows(tool) => bare.to_owned(),
            Some((_, bare)) if self.knows(bare) && !self.knows(tool) => bare.to_owned(),
            _ => tool.to_owned(),
        }
    }
}

/// True for `{"tool": X, "arguments": …}` where X is not a name. What stands in angle brackets or ends in dots is a
/// template for a call, not a call.
pub(crate) fn has_bad_name(map: &Map<String, Value>) -> bool {
    let Some(name) = ["tool", "tool_name", "toolName"].iter().find_map(|k| map.get(*k)) else { return false };
    let bad = match name {
        Value::String(name) => !is_tool_name(name) && !name.contains(['<', '…']) && !name.contains("..."),
        Value::Number(_) | Value::Array(_) | Value::Bool(_) => true,
        Value::Null | Value::Object(_) => false,
    };
    bad && map.keys().any(|k| is_arguments(k))
}

/// True if the arguments are given as a string that begins an object and does not end it.
pub(crate) fn has_broken_arguments(map: &Map<String, Value>) -> bool {
    let broken = |map: &Map<String, Value>| {
        let text = ARGUMENTS.iter().find_map(|k| map.get(*k)?.as_str());
        map.keys().any(|k| is_name(k))
            && text.is_some_and(|t| {
                t.trim_start().starts_with('{') && object_in(t, &mut Repairs::default()).is_none()
            })
    };
    broken(map) || WRAPPERS.iter().any(|k| map.get(*k).and_then(Value::as_object).is_some_and(broken))
}

/// The call that `map` is, if it is one.
pub(crate) fn call_of(map: &Map<String, Value>, options: &Options, repairs: &mut Repairs) -> Option<Shape> {
    for key in ["tool", "tool_name", "toolName"] {
        if let Some(Value::String(tool)) = map.get(key) {
            return explicit(map, key, tool, options, repairs);
        }
    }
    if map.get("method").and_then(Value::as_str) == Some("tools/call")
        && let Some(Value::Object(inner)) = map.get("params")
    {
        return named(inner, options, repairs);
    }
    for key in WRAPPERS {
        if let Some(Value::Object(inner)) = map.get(key) {
            let inner_tool = ["tool", "tool_name", "toolName"]
                .iter()
                .find_map(|k| inner.get(*k)?.as_str().map(|t| (*k, t)));
            if let Some((k, tool)) = inner_tool {
                return explicit(inner, k, tool, options, repairs);
            }
            if let Some(shape) = named(inner, options, repairs) {
                return Some(shape);
            }
        }
    }
    named(map, options, repairs).or_else(|| single_key(map, options))
}

/// `{T: {…}}` with a known T.
fn single_key(map: &Map<String, Value>, options: &Options) -> Option<Shape> {
    let (key, value) = map.iter().next()?;
    let arguments = match value {
        Value::Object(_) if map.len() == 1 && options.knows(key) => value.clone(),
        _ => return None,
    };
    if is_schema(&arguments) { None } else { Some(Shape { tool: key.clone(), arguments }) }
}

fn explicit(
    map: &Map<String, Value>,
    key: &str,
    tool: &str,
    options: &Options,
    repairs: &mut Repairs,
) -> Option<Shape> {
    if !is_tool_name(tool) {
        return None;
    }
    let tool = options.bare_name(tool);
    if let Some((_, arguments)) = arguments_of(map, repairs) {
        return if is_schema(&arguments) { None } else { Some(Shape { tool, arguments }) };
    }
    if map.keys().any(|k| NOT_A_CALL.contains(&k.as_str())) {
        return None;
    }
    Some(Shape { tool, arguments: Value::Object(beside(map, key)) })
}

/// The members of `map` that are arguments when they stand beside the tool's name.
fn beside(map: &Map<String, Value>, name_key: &str) -> Map<String, Value> {
    map.iter()
        .filter(|(k, _)| *k != name_key && !ASIDE.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// A call whose name stands under a key that data has too.
fn named(map: &Map<String, Value>, options: &Options, repairs: &mut Repairs) -> Option<Shape> {
    let (key, tool) = NAMES.iter().find_map(|k| Some((*k, map.get(*k)?.as_str()?)))?;
    if !is_tool_name(tool) {
        return None;
    }
    let tool = options.bare_name(tool);
    match arguments_of(map, repairs) {
        Some((arguments_key, arguments)) => {
            let certain =
                arguments_key == "arguments" || options.known_tools.is_none() || options.knows(&tool);
            let object = arguments.is_object() || arguments_key == "action_input";
            if !certain || !object || is_schema(&arguments) {
                return None;
            }
            Some(Shape { tool, arguments })
        }
        None if options.knows(&tool)
            && !map.keys().any(|k| NOT_A_CALL.contains(&k.as_str()) || k == "description") =>
        {
            Some(Shape { tool, arguments: Value::Object(beside(map, key)) })
        }
        None => None,
    }
}

/// The arguments and the key they stand under.
fn arguments_of(map: &Map<String, Value>, repairs: &mut Repairs) -> Option<(&'static str, Value)> {
    ARGUMENTS.into_iter().find_map(|key| {
        let value = map.get(key)?;
        let value = match value {
            Value::Object(_) => value.clone(),
            Value::Null if matches!(key, "arguments" | "parameters" | "params" | "args") => {
                Value::Object(Map::new())
            }
            Value::String(text) => match object_in(text, repairs) {
                Some(object) => object,
                None if text.trim().is_empty() && key == "arguments" => Value::Object(Map::new()),
                None if matches!(key, "arguments" | "action_input") => value.clone(),
                None => return None,
            },
            _ if key == "arguments" => value.clone(),
            _ => return None,
        };
        Some((key, value))
    })
}

/// The object that a string holds.
pub(crate) fn object_in(text: &str, repairs: &mut Repairs) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with('{') {
        return None;
    }
    let mut reader = Reader::new(0, 128);
    let win = Window { bytes: text.as_bytes(), base: 0, eof: true };
    loop {
        match reader.step(win) {
            Step::Done(value) if text[reader.pos..].trim().is_empty() => {
                repairs.merge(reader.repairs);
                return Some(value);
            }
            Step::Done(_) | Step::More | Step::Bad(_) => return None,
            _ => {}
        }
    }
}

fn is_schema(value: &Value) -> bool {
    let Value::Object(map) = value else { return false };
    map.contains_key("$schema")
        || map.contains_key("properties")
            && matches!(map.get("properties"), Some(Value::Object(_)))
            && map.get("type").is_none_or(|t| t == "object")
}
