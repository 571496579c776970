//! Recognizes objects that are calls, whether in the protocol's own form or in that of a model
//! family.
//!
//! | form | meaning |
//! |---|---|
//! | `{"tool": T, "arguments": {…}}`; `tool` may also be `tool_name` or `toolName`; `arguments` may also be `args`, `input`, `parameters`, … | a call to T |
//! | `{"tool": T, "path": …}` | a call to T with all other members as arguments, unless one of them marks a result, a schema or a record |
//! | `{"name": T, "arguments": {…}}`; `name` may also be `function`, `action`, …; `arguments` may also be `parameters`, `action_input`, … | a call to T; if the tools are known and the arguments are not under `"arguments"`, only if T is one of them |
//! | `{"name": T, "path": …}`, `{T: {…}}` | a call only if T is a known tool |
//! | `{"function": {…}}`, `{"tool_call": {…}}`, `{"function_call": {…}}`, `{"tool": {…}}` | the call inside |
//! | `{"tool_calls": [{…}, …]}` and similar | the calls inside, each as soon as it is complete |
//! | `{"response": {…}}` and other names for an answer | the call inside, if its tool is known |
//!
//! Case and word separators in keys make no difference: `"Tool"`, `"toolInput"`, `"Action Input"`.
//! `"arguments"` may be a string that contains the object. A schema (`"type": "object"` with
//! `"properties"`) is not a call. If the tools are known, an object is data if its `"tool"` is not
//! one of them and it has no key for arguments, unless a token or tag announced a call.

use serde_json::{Map, Value};

use crate::event::{Options, Repair};
use crate::literal::literal;
use crate::text::Repairs;

/// A call found in a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) tool: String,
    pub(crate) arguments: Value,
}

/// Normalizes a key for comparison with the tables below: lowercase, no word separators.
fn folded(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).collect::<String>().to_ascii_lowercase()
}

fn is_one_of(key: &str, keys: &[&str]) -> bool {
    key.len() <= 32 && keys.contains(&folded(key).as_str())
}

/// Finds the first of `keys` that is present in `map`. Returns the key as spelled in `map`, and its
/// value.
fn member<'a>(map: &'a Map<String, Value>, keys: &[&'static str]) -> Option<(&'a str, &'a Value)> {
    keys.iter().find_map(|wanted| {
        let (key, value) = map.iter().find(|(key, _)| key.len() <= 32 && folded(key) == *wanted)?;
        Some((key.as_str(), value))
    })
}

/// Returns true for keys that can only name a tool.
pub(crate) fn is_explicit(key: &str) -> bool {
    is_one_of(key, &EXPLICIT)
}

const EXPLICIT: [&str; 2] = ["tool", "toolname"];

/// Returns true for keys that name a tool if the rest of the object looks like a call.
pub(crate) fn is_name(key: &str) -> bool {
    is_explicit(key) || is_one_of(key, &NAMES)
}

const NAMES: [&str; 8] =
    ["name", "function", "functionname", "action", "recipientname", "tooluse", "commandname", "apiname"];

/// Returns true for keys that hold the arguments.
pub(crate) fn is_arguments(key: &str) -> bool {
    is_one_of(key, &ARGUMENTS)
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

/// Returns true for `"arguments"`, the only key in [`ARGUMENTS`] that cannot mean anything else.
pub(crate) fn is_unambiguous_arguments(key: &str) -> bool {
    is_one_of(key, &ARGUMENTS[..1])
}

/// Returns true for keys whose value is an array of calls.
pub(crate) fn is_list(key: &str) -> bool {
    is_one_of(key, &LISTS)
}

/// Returns true for keys that can only mean a list of calls.
pub(crate) fn is_unambiguous_list(key: &str) -> bool {
    is_one_of(key, &LISTS[..3])
}

const LISTS: [&str; 6] = ["toolcalls", "functioncalls", "tooluses", "calls", "actions", "invocations"];

/// Keys whose value is an object that is itself a call.
const WRAPPERS: [&str; 7] = ["function", "tool", "toolcall", "functioncall", "call", "tooluse", "action"];

/// Keys that models put their whole answer under, so that the value may be the call.
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

/// Members that calls may have in addition to their arguments.
const EXTRA_KEYS: [&str; 8] =
    ["thought", "thoughts", "reasoning", "rationale", "explanation", "thinking", "id", "type"];

/// Members of results and schemas that never occur in calls.
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

/// Members of records, such as package manifests and log lines, where a name or tool is just one
/// field among others.
const RECORD_KEYS: [&str; 18] = [
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

/// Keys of an object that records a past call, such as a log line or an echoed result.
const RESULT_KEYS: [&str; 11] = [
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

/// Returns true if `map` describes a past call instead of making one.
pub(crate) fn is_record(map: &Map<String, Value>) -> bool {
    map.keys().any(|key| is_one_of(key, &RESULT_KEYS))
}

/// Returns true for keys of a schema. `"arguments": {"type": …` may begin a schema, so the call is
/// not opened yet.
pub(crate) fn is_schema_key(key: &str) -> bool {
    matches!(key, "type" | "properties" | "$schema" | "$defs" | "required" | "title")
}

/// Returns whether `key` is a key that occurs in calls or, if `key` is truncated (not `whole`), the
/// beginning of one.
pub(crate) fn in_vocabulary(key: &str, whole: bool) -> bool {
    let key = folded(key);
    let known = |name: &str| if whole { name == key } else { name.starts_with(&key) };
    let all =
        LISTS.into_iter().chain(NAMES).chain(ARGUMENTS).chain(WRAPPERS).chain(EXTRA_KEYS).chain(ANSWERS);
    all.chain(["toolname", "role"]).any(known)
}

/// Returns true for a possible tool name: an identifier, a path or dotted words.
pub(crate) fn is_tool_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | ' '))
        && name.chars().any(char::is_alphanumeric)
}

/// Returns whether `name` is a possible tool name. Command-R's pseudo tool for plain answers is
/// excluded.
pub(crate) fn names_tool(name: &str) -> bool {
    let bare = unglued(name);
    is_tool_name(bare) && !matches!(bare, "directly-answer" | "directly_answer")
}

impl Options {
    pub(crate) fn knows(&self, tool: &str) -> bool {
        self.known_tools.as_ref().is_some_and(|known| known.iter().any(|k| k == tool))
    }

    /// Strips the control token that a model attached to a tool's name, and the prefix
    /// `functions.`, `tools.` or `tool.`. Other prefixes are stripped only if the rest is the name
    /// of a known tool.
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
        // If the tokens of a header were stripped, a word from the header is attached to the name,
        // as in `read_filejson`.
        let glued = ["json", "commentary", "code"].iter().find_map(|word| tool.strip_suffix(word));
        match glued.filter(|bare| !self.knows(tool) && self.knows(bare)) {
            Some(bare) => bare.to_owned(),
            None => tool.to_owned(),
        }
    }
}

/// Returns a name without the control token that a model attached to it, as in
/// `read_file<|channel|>commentary`.
pub(crate) fn unglued(name: &str) -> &str {
    name.split("<|").next().unwrap_or(name).trim()
}

/// Returns true for `{"tool": X, "arguments": …}` where X cannot be a tool's name and is not a
/// placeholder such as `<name>` or `…`.
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

/// Returns true if the arguments are a string that contains an incomplete object, or if two keys
/// hold arguments that differ.
pub(crate) fn has_broken_arguments(map: &Map<String, Value>) -> bool {
    let broken = |map: &Map<String, Value>| {
        let objects = map.iter().filter(|(key, value)| is_arguments(key) && value.is_object());
        let mut objects = objects.map(|(_, value)| value);
        let first = objects.next();
        // Different arguments under two keys are ambiguous.
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
        |(key, value): (&String, &Value)| is_one_of(key, &WRAPPERS) && value.as_object().is_some_and(broken);
    broken(map) || map.iter().any(inner)
}

/// Looks for a call in an object.
pub(crate) struct Look<'a> {
    /// Whether a token or tag before the object announced a call.
    pub(crate) announced: bool,
    pub(crate) options: &'a Options,
    pub(crate) repairs: &'a mut Repairs,
}

impl Look<'_> {
    /// Returns the call in `map`, if there is one.
    pub(crate) fn call(&mut self, map: &Map<String, Value>) -> Option<Shape> {
        if let Some((key, Value::String(tool))) = member(map, &EXPLICIT) {
            return self.explicit(map, key, tool);
        }
        if map.get("method").and_then(Value::as_str) == Some("tools/call")
            && let Some(Value::Object(inner)) = map.get("params")
        {
            return self.named(inner);
        }
        for wrapper in WRAPPERS {
            if let Some((_, Value::Object(inner))) = member(map, &[wrapper]) {
                if let Some((key, Value::String(tool))) = member(inner, &EXPLICIT) {
                    return self.explicit(inner, key, tool);
                }
                if let Some(shape) = self.named(inner) {
                    return Some(shape);
                }
            }
        }
        self.named(map).or_else(|| self.single_key(map)).or_else(|| self.answer(map))
    }

    /// Returns the call inside `{"response": {…}}` if its tool is known and all other members are
    /// [`EXTRA_KEYS`].
    fn answer(&mut self, map: &Map<String, Value>) -> Option<Shape> {
        let mut members = map.iter().filter(|(key, _)| !is_one_of(key, &EXTRA_KEYS));
        let (key, value) = members.next()?;
        let (true, None, Value::Object(inner)) = (is_one_of(key, &ANSWERS), members.next(), value) else {
            return None;
        };
        let Look { options, repairs, .. } = self;
        let shape = Look { announced: false, options, repairs }.call(inner);
        shape.filter(|shape| self.options.knows(&shape.tool))
    }

    /// Returns the call `{T: {…}}`. T must be a known tool or, in an announced call, a possible
    /// tool name.
    fn single_key(&self, map: &Map<String, Value>) -> Option<Shape> {
        let (key, value) = map.iter().next()?;
        let named =
            self.options.knows(key) || self.announced && is_tool_name(key) && !is_one_of(key, &ANSWERS);
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

    fn explicit(&mut self, map: &Map<String, Value>, key: &str, name: &str) -> Option<Shape> {
        let tool = self.clean(name)?;
        if let Some((_, arguments)) = arguments_of(map, self.repairs) {
            let data = is_schema(&arguments) || !self.announced && is_record(map);
            return if data { None } else { Some(Shape { tool, arguments }) };
        }
        let data = !self.announced && self.options.known_tools.is_some() && !self.options.knows(&tool);
        if data || map.keys().any(|key| is_data_key(key)) {
            return None;
        }
        Some(Shape { tool, arguments: Value::Object(other_members(map, key)) })
    }

    /// Returns the tool's bare name, or `None` if `name` cannot be the name of a tool.
    fn clean(&mut self, name: &str) -> Option<String> {
        let bare = unglued(name);
        if !names_tool(name) {
            return None;
        }
        if bare.len() < name.trim().len() {
            self.repairs.add(Repair::GluedToken);
        }
        Some(self.options.bare_name(bare))
    }

    /// Returns the call in an object that has the tool's name under one of the [`NAMES`] keys.
    /// Plain data may also have these keys.
    fn named(&mut self, map: &Map<String, Value>) -> Option<Shape> {
        let strings = NAMES.iter().filter_map(|key| member(map, &[key]));
        let (key, name) = strings.filter_map(|(key, value)| Some((key, value.as_str()?))).next()?;
        let tool = self.clean(name)?;
        let (announced, known) = (self.announced, self.options.knows(&tool));
        if let Some((arguments_key, arguments)) = arguments_of(map, self.repairs) {
            let unambiguous = is_unambiguous_arguments(arguments_key);
            let certain = announced || unambiguous || known || self.options.known_tools.is_none();
            let object = arguments.is_object() || folded(arguments_key) == "actioninput";
            let in_record = || map.keys().any(|key| is_one_of(key, &RECORD_KEYS));
            let record = !announced && (is_record(map) || !unambiguous && in_record());
            let call = certain && object && !record && !is_schema(&arguments);
            return call.then_some(Shape { tool, arguments });
        }
        let arguments = other_members(map, key);
        // An object with only a name and an id is an entry in a list, not a call.
        let entry = !announced && arguments.is_empty() && map.keys().any(|key| folded(key) == "id");
        let data = map.keys().any(|key| is_data_key(key) || key == "description")
            || map.get("args").is_some_and(Value::is_array);
        let call = !entry && !data && (known || announced && arguments.is_empty());
        call.then_some(Shape { tool, arguments: Value::Object(arguments) })
    }
}

fn is_data_key(key: &str) -> bool {
    is_one_of(key, &NOT_A_CALL) || is_one_of(key, &RECORD_KEYS)
}

/// Returns the arguments of a call that has them next to the tool's name, that is, all members
/// except the name and [`EXTRA_KEYS`].
fn other_members(map: &Map<String, Value>, name_key: &str) -> Map<String, Value> {
    map.iter()
        .filter(|(k, _)| *k != name_key && !is_one_of(k, &EXTRA_KEYS))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// Finds the arguments of a call. Returns their key as spelled in `map`, and their value.
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

/// Returns the object contained in a string, or in a string inside that string.
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
