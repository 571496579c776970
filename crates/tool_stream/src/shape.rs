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
//! | `{"response": {…}}` and other words for an answer | the call inside, if its tool is known |
//!
//! Keys are compared without regard to case and to what stands between words: `"Tool"`, `"toolInput"`,
//! `"Action Input"`. `"arguments"` may be a string that holds the object. A schema (`"type": "object"`
//! with `"properties"`) is none. With the tools known, a `"tool"` that is not one of them and has no
//! arguments is data.

use serde_json::{Map, Value};

use crate::event::{Options, Repair};
use crate::literal::literal;
use crate::text::Repairs;

/// A call as found in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) tool: String,
    pub(crate) arguments: Value,
}

/// A key as the tables below spell it.
fn folded(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).collect::<String>().to_ascii_lowercase()
}

fn among(key: &str, keys: &[&str]) -> bool {
    key.len() <= 32 && keys.contains(&folded(key).as_str())
}

/// The member of `map` under the first of `keys` that it has.
fn member<'a>(map: &'a Map<String, Value>, keys: &[&'static str]) -> Option<(&'a str, &'a Value)> {
    keys.iter().find_map(|wanted| {
        let (key, value) = map.iter().find(|(key, _)| key.len() <= 32 && folded(key) == *wanted)?;
        Some((key.as_str(), value))
    })
}

/// Keys that can only name a tool.
pub(crate) fn is_explicit(key: &str) -> bool {
    among(key, &EXPLICIT)
}

const EXPLICIT: [&str; 2] = ["tool", "toolname"];

/// Keys that name a tool where the rest of the object looks like a call.
pub(crate) fn is_name(key: &str) -> bool {
    is_explicit(key) || among(key, &NAMES)
}

const NAMES: [&str; 8] =
    ["name", "function", "functionname", "action", "recipientname", "tooluse", "commandname", "apiname"];

/// Keys that hold the arguments.
pub(crate) fn is_arguments(key: &str) -> bool {
    among(key, &ARGUMENTS)
}

const ARGUMENTS: [&str; 15] = [
    "arguments",
    "args",
    "parameters",
    "params",
    "input",
    "inputs",
    "actioninput",
    "toolinput",
    "toolargs",
    "toolarguments",
    "toolparameters",
    "functionargs",
    "functionarguments",
    "kwargs",
    "argument",
];

/// True for the key that means nothing but arguments.
pub(crate) fn is_sure_arguments(key: &str) -> bool {
    among(key, &ARGUMENTS[..1])
}

/// Keys whose array holds calls.
pub(crate) fn is_list(key: &str) -> bool {
    among(key, &LISTS)
}

/// List keys that mean nothing else.
pub(crate) fn is_sure_list(key: &str) -> bool {
    among(key, &LISTS[..3])
}

const LISTS: [&str; 6] = ["toolcalls", "functioncalls", "tooluses", "calls", "actions", "invocations"];

/// Keys whose object holds the call.
const WRAPPERS: [&str; 7] = ["function", "tool", "toolcall", "functioncall", "call", "tooluse", "action"];

/// Keys whose object is the answer, and so the call.
const ANSWERS: [&str; 13] = [
    "response",
    "answer",
    "nextaction",
    "nextstep",
    "next",
    "step",
    "json",
    "request",
    "message",
    "command",
    "assistant",
    "output",
    "reply",
];

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
    "exitcode",
    "returncode",
    "status",
    "success",
    "ok",
    "properties",
];

/// Members of records that have a name or a tool among other data: packages, lines of logs.
const RECORD: [&str; 18] = [
    "author",
    "count",
    "date",
    "dependencies",
    "durationms",
    "homepage",
    "latencyms",
    "level",
    "license",
    "image",
    "msg",
    "price",
    "scripts",
    "time",
    "timestamp",
    "ts",
    "url",
    "version",
];

/// Members beside a call's arguments that make it a record of a call: a line of a log, an echoed result.
const ECHO: [&str; 11] = [
    "result",
    "results",
    "exitcode",
    "returncode",
    "stdout",
    "stderr",
    "durationms",
    "latencyms",
    "level",
    "ts",
    "timestamp",
];

/// True if the call that `map` holds is told of, not made.
pub(crate) fn is_record(map: &Map<String, Value>) -> bool {
    map.keys().any(|key| among(key, &ECHO))
}

/// Keys of a schema: `"arguments": {"type": …` may be one, so the call is not opened yet.
pub(crate) fn is_schema_key(key: &str) -> bool {
    matches!(key, "type" | "properties" | "$schema" | "$defs" | "required" | "title")
}

/// True if `key` is a word of the protocol's vocabulary; if it is cut off (`whole` is false), if it may become one.
pub(crate) fn in_vocabulary(key: &str, whole: bool) -> bool {
    let key = folded(key);
    let known = |name: &str| if whole { name == key } else { name.starts_with(&key) };
    let all = LISTS.into_iter().chain(NAMES).chain(ARGUMENTS).chain(WRAPPERS).chain(ASIDE).chain(ANSWERS);
    all.chain(["toolname", "role"]).any(known)
}

/// A tool name: one word, as an identifier, a path or with dots.
pub(crate) fn is_tool_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' '))
        && name.chars().any(char::is_alphanumeric)
}

/// Whether the name that a model wrote can be a tool's. Command-R has one for an answer in words.
pub(crate) fn names_tool(name: &str) -> bool {
    let bare = unglued(name);
    is_tool_name(bare) && !matches!(bare, "directly-answer" | "directly_answer")
}

impl Options {
    pub(crate) fn knows(&self, tool: &str) -> bool {
        self.known_tools.as_ref().is_some_and(|known| known.iter().any(|k| k == tool))
    }

    /// The tool's name without a prefix such as `functions.`, if only the bare name is known, and
    /// without a token that is glued to it.
    pub(crate) fn bare_name(&self, tool: &str) -> String {
        let tool = unglued(tool);
        if self.knows(tool) {
            return tool.to_owned();
        }
        let tool = match tool.rsplit_once(['.', '/', ':']) {
            Some(("functions" | "tools" | "tool", bare)) => bare,
            Some((_, bare)) if self.knows(bare) => bare,
            _ => tool,
        };
        // Words of a header, glued to the name when its tokens were stripped.
        let glued = ["json", "commentary", "code"].iter().find_map(|word| tool.strip_suffix(word));
        match glued.filter(|bare| !self.knows(tool) && self.knows(bare)) {
            Some(bare) => bare.to_owned(),
            None => tool.to_owned(),
        }
    }
}

/// A name without the control token that a model glued to it: `read_file<|channel|>commentary`.
pub(crate) fn unglued(name: &str) -> &str {
    name.split("<|").next().unwrap_or(name).trim()
}

/// True for `{"tool": X, "arguments": …}` where X is not a name. What stands in angle brackets or ends in dots is a
/// template for a call, not a call.
pub(crate) fn has_bad_name(map: &Map<String, Value>) -> bool {
    let Some((_, name)) = member(map, &EXPLICIT) else { return false };
    let bad = match name {
        Value::String(name) => {
            !is_tool_name(unglued(name)) && !name.contains(['<', '…']) && !name.contains("...")
        }
        Value::Number(_) | Value::Array(_) | Value::Bool(_) => true,
        Value::Null | Value::Object(_) => false,
    };
    bad && map.keys().any(|k| is_arguments(k))
}

/// True if the arguments are given as a string that begins an object and does not end it.
pub(crate) fn has_broken_arguments(map: &Map<String, Value>) -> bool {
    let broken = |map: &Map<String, Value>| {
        let objects = map.iter().filter(|(key, value)| is_arguments(key) && value.is_object());
        let mut objects = objects.map(|(_, value)| value);
        let first = objects.next();
        // Arguments under two keys: which of them is meant?
        if map.keys().any(|k| is_explicit(k)) && objects.any(|other| Some(other) != first) {
            return true;
        }
        let text = member(map, &ARGUMENTS).and_then(|(_, value)| value.as_str());
        map.keys().any(|k| is_name(k))
            && text.is_some_and(|t| {
                t.trim_start().starts_with('{') && object_in(t, &mut Repairs::default()).is_none()
            })
    };
    let inner =
        |(key, value): (&String, &Value)| among(key, &WRAPPERS) && value.as_object().is_some_and(broken);
    broken(map) || map.iter().any(inner)
}

/// The call that `map` is, if it is one. `announced`: something said before that it would be.
pub(crate) fn call_of(
    map: &Map<String, Value>,
    announced: bool,
    options: &Options,
    repairs: &mut Repairs,
) -> Option<Shape> {
    if let Some((key, Value::String(tool))) = member(map, &EXPLICIT) {
        return explicit(map, key, tool, announced, options, repairs);
    }
    if map.get("method").and_then(Value::as_str) == Some("tools/call")
        && let Some(Value::Object(inner)) = map.get("params")
    {
        return named(inner, announced, options, repairs);
    }
    for wrapper in WRAPPERS {
        if let Some((_, Value::Object(inner))) = member(map, &[wrapper]) {
            if let Some((key, Value::String(tool))) = member(inner, &EXPLICIT) {
                return explicit(inner, key, tool, announced, options, repairs);
            }
            if let Some(shape) = named(inner, announced, options, repairs) {
                return Some(shape);
            }
        }
    }
    named(map, announced, options, repairs)
        .or_else(|| single_key(map, announced, options))
        .or_else(|| answer(map, options, repairs))
}

/// `{"response": {…}}` with a call of a known tool inside, and nothing beside it but thoughts.
fn answer(map: &Map<String, Value>, options: &Options, repairs: &mut Repairs) -> Option<Shape> {
    let mut members = map.iter().filter(|(key, _)| !among(key, &ASIDE));
    let (key, value) = members.next()?;
    let (true, None, Value::Object(inner)) = (among(key, &ANSWERS), members.next(), value) else {
        return None;
    };
    call_of(inner, false, options, repairs).filter(|shape| options.knows(&shape.tool))
}

/// `{T: {…}}` with a known T.
fn single_key(map: &Map<String, Value>, announced: bool, options: &Options) -> Option<Shape> {
    let (key, value) = map.iter().next()?;
    let named = options.knows(key) || announced && is_tool_name(key) && !among(key, &ANSWERS);
    match value {
        Value::Object(inner) if map.len() == 1 && named && !is_schema(value) => {
            let arguments = match inner.get("arguments") {
                Some(arguments @ Value::Object(_)) if inner.len() == 1 => arguments,
                _ => value,
            };
            Some(Shape { tool: key.clone(), arguments: arguments.clone() })
        }
        _ => None,
    }
}

fn explicit(
    map: &Map<String, Value>,
    key: &str,
    name: &str,
    announced: bool,
    options: &Options,
    repairs: &mut Repairs,
) -> Option<Shape> {
    let tool = clean(name, options, repairs)?;
    if let Some((_, arguments)) = arguments_of(map, repairs) {
        let data = is_schema(&arguments) || !announced && is_record(map);
        return if data { None } else { Some(Shape { tool, arguments }) };
    }
    let data = !announced && options.known_tools.is_some() && !options.knows(&tool);
    if data || map.keys().any(|k| among(k, &NOT_A_CALL) || among(k, &RECORD)) {
        return None;
    }
    Some(Shape { tool, arguments: Value::Object(beside(map, key)) })
}

/// The tool's name as it is known, if it is a name.
fn clean(name: &str, options: &Options, repairs: &mut Repairs) -> Option<String> {
    let bare = unglued(name);
    if !names_tool(name) {
        return None;
    }
    if bare.len() < name.trim().len() {
        repairs.add(Repair::GluedToken);
    }
    Some(options.bare_name(bare))
}

/// The members of `map` that are arguments when they stand beside the tool's name.
fn beside(map: &Map<String, Value>, name_key: &str) -> Map<String, Value> {
    map.iter()
        .filter(|(k, _)| *k != name_key && !among(k, &ASIDE))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// A call whose name stands under a key that data has too.
fn named(
    map: &Map<String, Value>,
    announced: bool,
    options: &Options,
    repairs: &mut Repairs,
) -> Option<Shape> {
    let strings = NAMES.iter().filter_map(|key| member(map, &[key]));
    let (key, name) = strings.filter_map(|(key, value)| Some((key, value.as_str()?))).next()?;
    let tool = clean(name, options, repairs)?;
    match arguments_of(map, repairs) {
        Some((arguments_key, arguments)) => {
            let certain = announced
                || is_sure_arguments(arguments_key)
                || options.known_tools.is_none()
                || options.knows(&tool);
            let object = arguments.is_object() || folded(arguments_key) == "actioninput";
            let record = !announced
                && (is_record(map)
                    || !is_sure_arguments(arguments_key) && map.keys().any(|key| among(key, &RECORD)));
            if !certain || !object || record || is_schema(&arguments) {
                return None;
            }
            Some(Shape { tool, arguments })
        }
        // A name and a number are an entry of some list.
        None if !announced && beside(map, key).is_empty() && map.keys().any(|k| folded(k) == "id") => None,
        None if (options.knows(&tool) || announced && beside(map, key).is_empty())
            && !map.keys().any(|k| among(k, &NOT_A_CALL) || among(k, &RECORD) || k == "description")
            && !map.get("args").is_some_and(Value::is_array) =>
        {
            Some(Shape { tool, arguments: Value::Object(beside(map, key)) })
        }
        None => None,
    }
}

/// The arguments and the key they stand under.
fn arguments_of<'a>(map: &'a Map<String, Value>, repairs: &mut Repairs) -> Option<(&'a str, Value)> {
    ARGUMENTS.into_iter().find_map(|wanted| {
        let (key, value) = member(map, &[wanted])?;
        let sure = wanted == "arguments";
        let value = match value {
            Value::Object(_) => value.clone(),
            Value::Null if matches!(wanted, "arguments" | "parameters" | "params" | "args") => {
                Value::Object(Map::new())
            }
            Value::String(text) => match object_in(text, repairs) {
                Some(object) => object,
                None if text.trim().is_empty() && sure => Value::Object(Map::new()),
                None if sure || wanted == "actioninput" => value.clone(),
                None => return None,
            },
            Value::Array(items) if items.is_empty() => Value::Object(Map::new()),
            _ if sure => value.clone(),
            _ => return None,
        };
        Some((key, value))
    })
}

/// The object that a string holds, or that a string in it holds.
pub(crate) fn object_in(text: &str, repairs: &mut Repairs) -> Option<Value> {
    let text = text.trim();
    if let Ok(Value::String(inner)) = serde_json::from_str(text)
        && inner.trim_start().starts_with('{')
    {
        return object_in(&inner, repairs);
    }
    if !text.starts_with('{') {
        return None;
    }
    literal(text.as_bytes(), repairs)
}

fn is_schema(value: &Value) -> bool {
    let Value::Object(map) = value else { return false };
    let typed = |value: &Value| {
        let kinds = ["string", "integer", "number", "boolean", "array", "object"];
        value.get("type").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind))
    };
    map.contains_key("$schema")
        || !map.is_empty() && map.values().all(typed)
        || map.contains_key("properties")
            && matches!(map.get("properties"), Some(Value::Object(_)))
            && map.get("type").is_none_or(|t| t == "object")
}
