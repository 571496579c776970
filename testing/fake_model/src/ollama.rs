//! Ollama's `/api/chat` and `/api/generate`: validates requests as Ollama does
//! (docs/model-apis.md#ollama-requests) and turns them into generations.

use serde_json::{Map, Value, json};

use crate::encode::{Dialect, Encoder};
use crate::generate::Generation;
use crate::model::{Loaded, ModelSpec, with_tag};
use crate::prompt::rendered_chat;
use crate::record::Request;
use crate::respond::Response;
use crate::state::Shared;
use crate::tokens;

/// The answer to a valid request.
pub(crate) enum Answer {
    Now(Response),
    Generate(Box<Generation>),
}

/// The result of validating a request. The error is the response that refuses it.
pub(crate) type Validated<T> = Result<T, Response>;

/// The default window on a machine without a large GPU, in tokens.
const DEFAULT_WINDOW: u64 = 4096;
/// The smallest window, in tokens.
const SMALLEST_WINDOW: u64 = 256;
const RUNNER_OPTIONS: [&str; 6] =
    ["num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];
const INTEGERS: [&str; 11] = [
    "num_ctx",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
];
const FLOATS: [&str; 7] =
    ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"];

pub(crate) fn error(status: u16, text: impl Into<String>) -> Response {
    Response::json(status, &json!({"error": text.into()}))
}

/// Returns the body as a JSON object.
pub(crate) fn body(request: &Request) -> Validated<&Map<String, Value>> {
    if request.body.is_empty() {
        return Err(error(400, "missing request body"));
    }
    if let Err(problem) = serde_json::from_slice::<Value>(&request.body) {
        return Err(error(400, format!("invalid request body: {problem}")));
    }
    request
        .json
        .as_object()
        .ok_or_else(|| error(400, "json: cannot unmarshal the request body into an object"))
}

/// Returns the model name from the `model` field of a request, or from the older `name` field.
pub(crate) fn named_model(body: &Map<String, Value>) -> Validated<String> {
    let name = body.get("model").or_else(|| body.get("name")).and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() { Err(error(400, "model is required")) } else { Ok(name.to_owned()) }
}

pub(crate) fn find_model(shared: &Shared, name: &str) -> Validated<ModelSpec> {
    let full = with_tag(name);
    let found = shared.read().models.iter().find(|model| model.name == full).cloned();
    found.ok_or_else(|| error(404, format!("model '{name}' not found")))
}

pub(crate) fn chat(shared: &Shared, request: &Request) -> Validated<Answer> {
    let body = body(request)?;
    let name = named_model(body)?;
    let stream = flag(body, "stream")?.unwrap_or(true);
    check_messages(request)?;
    check_keep_alive(body)?;
    check_think(body)?;
    let model = find_model(shared, &name)?;
    if !model.can("completion") {
        return Err(error(400, format!("\"{name}\" does not support chat")));
    }
    if request.json["tools"].as_array().is_some_and(|tools| !tools.is_empty()) && !model.can("tools") {
        return Err(error(400, format!("registry.ollama.ai/library/{} does not support tools", model.name)));
    }
    if request.messages().iter().any(|message| !message["images"].is_null()) && !model.can("vision") {
        return Err(error(400, format!("\"{name}\" does not support images")));
    }
    check_capability_to_think(body, &name, &model)?;
    check_format(body)?;
    let load = load(shared, body, &model)?;
    if request.messages().is_empty() {
        return Ok(Answer::Now(only_load(shared, body, load, "message")));
    }
    let encoder = Encoder::new(Dialect::OllamaChat, name);
    generation(shared, body, encoder, load, rendered_chat(&request.json), stream)
}

pub(crate) fn generate(shared: &Shared, request: &Request) -> Validated<Answer> {
    let body = body(request)?;
    let name = named_model(body)?;
    let stream = flag(body, "stream")?.unwrap_or(true);
    check_keep_alive(body)?;
    check_think(body)?;
    let raw = flag(body, "raw")?.unwrap_or(false);
    let text = |field: &str| request.json[field].as_str().unwrap_or_default().to_owned();
    if raw
        && (!text("template").is_empty()
            || !text("system").is_empty()
            || request.json["context"].as_array().is_some_and(|c| !c.is_empty()))
    {
        return Err(error(400, "raw mode does not support template, system, or context"));
    }
    let model = find_model(shared, &name)?;
    if !text("suffix").is_empty() && !model.can("insert") {
        return Err(error(400, format!("registry.ollama.ai/library/{} does not support insert", model.name)));
    }
    check_capability_to_think(body, &name, &model)?;
    check_format(body)?;
    let load = load(shared, body, &model)?;
    let prompt = text("prompt");
    if prompt.is_empty() {
        return Ok(Answer::Now(only_load(shared, body, load, "response")));
    }
    let rendered = if raw {
        prompt
    } else {
        format!("<|system|>\n{}\n<|user|>\n{prompt}{}\n<|assistant|>\n", text("system"), text("suffix"))
    };
    generation(shared, body, Encoder::new(Dialect::OllamaGenerate, name), load, rendered, stream)
}

fn generation(
    shared: &Shared,
    body: &Map<String, Value>,
    encoder: Encoder,
    load: Loaded,
    prompt: String,
    stream: bool,
) -> Validated<Answer> {
    let window = load.num_ctx;
    let needed = tokens::estimate(&prompt);
    let mut prompt_tokens = None;
    if needed > window {
        if !flag(body, "truncate")?.unwrap_or(true) {
            shared.load(load);
            return Err(error(400, overflow(needed, window).to_string()));
        }
        if !flag(body, "shift")?.unwrap_or(true) {
            shared.load(load);
            return Err(error(
                400,
                "the prompt is longer than the context length currently available to the model; \
                 shorten it, or raise the context length",
            ));
        }
        // Ollama silently truncates the prompt to about half the window
        // (docs/model-apis.md#ollama-overflow).
        prompt_tokens = Some(window / 2);
    }
    let limit = body
        .get("options")
        .and_then(|options| options.get("num_predict"))
        .and_then(Value::as_i64)
        .and_then(|limit| u64::try_from(limit).ok());
    let model = load.model.clone();
    Ok(Answer::Generate(Box::new(Generation {
        encoder,
        model,
        stream,
        prompt,
        prompt_tokens,
        limit,
        load: Some(load),
    })))
}

/// Returns the engine's overflow error. Ollama passes it on as text, so `error` is a string that
/// contains JSON.
pub(crate) fn overflow(needed: u64, window: u64) -> Value {
    let message = format!(
        "request ({needed} tokens) exceeds the available context size ({window} tokens), try increasing it"
    );
    json!({"error": {
        "code": 400, "message": message, "type": "exceed_context_size_error",
        "n_prompt_tokens": needed, "n_ctx": window,
    }})
}

/// Loads or unloads the model without generating. The response is one object, not a stream
/// (docs/model-apis.md#ollama-keep-alive).
fn only_load(shared: &Shared, body: &Map<String, Value>, load: Loaded, field: &str) -> Response {
    let name = body.get("model").cloned().unwrap_or_default();
    let unload = load.leaves_at_once();
    if unload {
        shared.unload(&load.model);
    } else {
        shared.load(load);
    }
    let empty = if field == "message" { json!({"role": "assistant", "content": ""}) } else { json!("") };
    Response::json(
        200,
        &json!({
            "model": name, "created_at": crate::encode::NOW, field: empty, "done": true,
            "done_reason": if unload { "unload" } else { "load" },
        }),
    )
}

/// Validates the options and returns how the model must be loaded to satisfy them.
fn load(shared: &Shared, body: &Map<String, Value>, model: &ModelSpec) -> Validated<Loaded> {
    let none = Map::new();
    let options = match body.get("options") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(options)) => options,
        Some(_) => return Err(error(400, "json: cannot unmarshal options: an object is required")),
    };
    for (name, value) in options {
        let name = name.as_str();
        let wanted = if INTEGERS.contains(&name) && !is_integer(value) {
            "integer"
        } else if FLOATS.contains(&name) && !value.is_number() {
            "float32"
        } else if name == "use_mmap" && !value.is_boolean() {
            "boolean"
        } else if name == "stop" && !value.as_array().is_some_and(|all| all.iter().all(Value::is_string)) {
            "an array of strings"
        } else {
            continue;
        };
        return Err(error(500, format!("option {name:?} must be of type {wanted}")));
    }
    let asked =
        options.get("num_ctx").and_then(Value::as_f64).filter(|&asked| asked >= 1.0).map(|n| n as u64);
    let default = shared.config.num_ctx.unwrap_or(DEFAULT_WINDOW);
    let num_ctx = asked.unwrap_or(default).max(SMALLEST_WINDOW).min(model.context);
    let mut runner: Map<String, Value> = RUNNER_OPTIONS
        .iter()
        .filter_map(|&name| Some((name.to_owned(), options.get(name)?.clone())))
        .collect();
    if let Some(shift) = body.get("shift").filter(|shift| !shift.is_null()) {
        runner.insert("shift".into(), shift.clone());
    }
    let keep_alive = body.get("keep_alive").cloned();
    Ok(Loaded { model: model.name.clone(), num_ctx, runner, keep_alive })
}

fn is_integer(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

pub(crate) fn flag(body: &Map<String, Value>, field: &str) -> Validated<Option<bool>> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(error(400, format!("json: cannot unmarshal field {field} into a bool"))),
    }
}

fn check_messages(request: &Request) -> Validated<()> {
    if !matches!(request.json["messages"], Value::Null | Value::Array(_)) {
        return Err(error(400, "json: cannot unmarshal messages: an array is required"));
    }
    for message in request.messages() {
        let role = message["role"].as_str().unwrap_or_default().to_lowercase();
        if !["system", "user", "assistant", "tool"].contains(&role.as_str()) {
            return Err(error(400, format!("invalid role: {role:?}")));
        }
        for field in ["content", "thinking"] {
            if !matches!(message[field], Value::Null | Value::String(_)) {
                return Err(error(
                    400,
                    format!("json: cannot unmarshal field messages.{field}: a string is required"),
                ));
            }
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if !matches!(call["function"]["arguments"], Value::Null | Value::Object(_)) {
                return Err(error(
                    400,
                    "json: cannot unmarshal messages.tool_calls.function.arguments: an object is required",
                ));
            }
        }
    }
    Ok(())
}

fn check_keep_alive(body: &Map<String, Value>) -> Validated<()> {
    match body.get("keep_alive") {
        None | Some(Value::Null | Value::Number(_)) => Ok(()),
        Some(Value::String(text)) => check_duration(text),
        Some(_) => Err(error(400, "json: cannot unmarshal keep_alive: a number or a duration is required")),
    }
}

/// Validates a Go duration, which is a signed sequence of decimal numbers with units. A bare `0`
/// needs no unit.
fn check_duration(text: &str) -> Validated<()> {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(error(400, format!("time: invalid duration {text:?}")));
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if number.len() == rest.len() {
            return Err(error(400, format!("time: invalid duration {text:?}")));
        }
        rest = number.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        match &number[..number.len() - rest.len()] {
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            "" => return Err(error(400, format!("time: missing unit in duration {text:?}"))),
            unit => return Err(error(400, format!("time: unknown unit {unit:?} in duration {text:?}"))),
        }
    }
    Ok(())
}

fn check_think(body: &Map<String, Value>) -> Validated<()> {
    match body.get("think") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(level)) if ["low", "medium", "high", "max"].contains(&level.as_str()) => Ok(()),
        Some(value) => Err(error(
            400,
            format!(
                "invalid think value: {value} (must be true, false, \"low\", \"medium\", \"high\" or \"max\")"
            ),
        )),
    }
}

fn check_capability_to_think(body: &Map<String, Value>, name: &str, model: &ModelSpec) -> Validated<()> {
    let asked = !matches!(body.get("think"), None | Some(Value::Null | Value::Bool(false)));
    if asked && !model.can("thinking") {
        return Err(error(400, format!("\"{name}\" does not support thinking")));
    }
    Ok(())
}

fn check_format(body: &Map<String, Value>) -> Validated<()> {
    match body.get("format") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.is_empty() || text == "json" => Ok(()),
        Some(Value::Object(schema)) => match schema.get("type") {
            Some(Value::String(_) | Value::Array(_)) | None => Ok(()),
            Some(_) => Err(error(400, "invalid JSON schema in format")),
        },
        Some(value) => {
            Err(error(500, format!("invalid format: {value}; expected \"json\" or a JSON schema")))
        }
    }
}
