//! OpenAI-compatible chat completions, with the validation and the error messages of each server
//! (docs/model-apis.md#openai-compatible-servers).

use serde_json::{Value, json};

use crate::encode::{Dialect, Encoder, error_body};
use crate::generate::Generation;
use crate::model::ModelSpec;
use crate::ollama::{Answer, Validated, overflow};
use crate::prompt::rendered_chat;
use crate::record::Request;
use crate::respond::Response;
use crate::state::{Personality, Shared};
use crate::tokens;

fn error(shared: &Shared, status: u16, text: impl AsRef<str>) -> Response {
    let dialect = Dialect::OpenAi(shared.config.personality);
    Response::json(status, &error_body(dialect, status, text.as_ref()))
}

/// Validates the API key, if the server requires one.
pub(crate) fn check_key(shared: &Shared, request: &Request) -> Validated<()> {
    let sent = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
    let good = match &shared.config.api_key {
        Some(key) => sent == key,
        None => shared.config.personality != Personality::Deepseek || !sent.is_empty(),
    };
    if good {
        return Ok(());
    }
    let body = json!({"error": {
        "message": "Authentication Fails: the API key is missing or invalid",
        "type": "authentication_error", "param": null, "code": "invalid_request_error",
    }});
    Err(Response::json(401, &body))
}

pub(crate) fn models(shared: &Shared) -> Response {
    let personality = shared.config.personality;
    let data: Vec<Value> = shared
        .read()
        .models
        .iter()
        .map(|model| {
            let mut entry = json!({"id": model.name, "object": "model", "created": 1_767_225_600});
            match personality {
                Personality::Vllm => {
                    entry["owned_by"] = json!("vllm");
                    entry["max_model_len"] = json!(window(shared, model));
                }
                Personality::LlamaServer => {
                    entry["owned_by"] = json!("llamacpp");
                    entry["meta"] = json!({"n_ctx_train": model.context, "size": model.size});
                }
                Personality::Deepseek => entry["owned_by"] = json!("deepseek"),
                Personality::LmStudio => entry["owned_by"] = json!("organization_owner"),
                Personality::Ollama => entry["owned_by"] = json!("library"),
                Personality::Generic => entry["owned_by"] = json!("somebody"),
            }
            entry
        })
        .collect();
    Response::json(200, &json!({"object": "list", "data": data}))
}

/// Returns the response for llama-server's `/props`.
pub(crate) fn props(shared: &Shared) -> Response {
    let model = shared.read().models.first().cloned().unwrap_or_default();
    Response::json(
        200,
        &json!({
            "default_generation_settings": {"n_ctx": window(shared, &model)},
            "total_slots": shared.parallel, "model_path": format!("{}.gguf", model.name),
            "chat_template": "{{ messages }}",
            "chat_template_caps": {"supports_tools": model.can("tools")},
            "modalities": {"vision": model.can("vision"), "audio": false}, "build_info": shared.version(),
        }),
    )
}

/// Returns the response for LM Studio's `/api/v1/models`.
pub(crate) fn lm_studio_models(shared: &Shared) -> Response {
    let models: Vec<Value> = shared
        .read()
        .models
        .iter()
        .map(|model| {
            json!({
                "type": "llm", "key": model.name, "display_name": model.name,
                "max_context_length": model.context,
                "loaded_instances": [{"id": model.name, "config": {"context_length": window(shared, model)}}],
                "capabilities": {"vision": model.can("vision"), "trained_for_tool_use": model.can("tools")},
            })
        })
        .collect();
    Response::json(200, &json!({"models": models}))
}

fn window(shared: &Shared, model: &ModelSpec) -> u64 {
    shared.config.num_ctx.unwrap_or(model.context).min(model.context)
}

pub(crate) fn chat(shared: &Shared, request: &Request) -> Validated<Answer> {
    check_key(shared, request)?;
    let refuse = |status, text: &str| Err(error(shared, status, text));
    let personality = shared.config.personality;
    let body = &request.json;
    if !body.is_object() {
        return refuse(400, "the request body is not a JSON object");
    }
    let model = find_model(shared, body)?;
    let stream = match &body["stream"] {
        Value::Null => false,
        Value::Bool(stream) => *stream,
        _ => return refuse(400, "stream: a boolean is required"),
    };
    if request.messages().is_empty() {
        return refuse(400, "messages: at least one message is required");
    }
    if let Some(problem) = message_problem(body) {
        return refuse(400, &problem);
    }
    let problem = match personality {
        Personality::Deepseek => deepseek_problem(body),
        Personality::Vllm => vllm_problem(body, stream, &model),
        Personality::LmStudio if body["response_format"]["type"] == json!("json_object") => {
            Some("'response_format.type' must be 'json_schema' or 'text'".into())
        }
        _ => None,
    };
    let problem = problem.or_else(|| schema_problem(body)).or_else(|| image_problem(body, &model));
    if let Some(problem) = problem {
        return refuse(400, &problem);
    }
    let prompt = rendered_chat(body);
    let (needed, window) = (tokens::estimate(&prompt), window(shared, &model));
    if needed > window {
        return Err(match personality {
            Personality::LlamaServer => Response::json(400, &overflow(needed, window)),
            _ => error(
                shared,
                400,
                format!(
                    "This model's maximum context length is {window} tokens. However, you requested {needed} tokens"
                ),
            ),
        });
    }
    let mut encoder = Encoder::new(Dialect::OpenAi(personality), model.name.clone());
    encoder.include_usage = body["stream_options"]["include_usage"] == json!(true);
    encoder.progress = personality == Personality::LlamaServer && body["return_progress"] == json!(true);
    let limit = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| body[*name].as_u64());
    Ok(Answer::Generate(Box::new(Generation {
        encoder,
        model: model.name,
        stream,
        prompt,
        prompt_tokens: None,
        limit,
        load: None,
    })))
}

fn find_model(shared: &Shared, body: &Value) -> Validated<ModelSpec> {
    let personality = shared.config.personality;
    let name = body["model"].as_str().unwrap_or_default();
    let models = shared.read().models.clone();
    let wanted =
        if personality == Personality::Ollama { crate::model::with_tag(name) } else { name.to_owned() };
    if let Some(model) = models.iter().find(|model| model.name == wanted) {
        return Ok(model.clone());
    }
    match personality {
        // llama-server accepts any model name.
        Personality::LlamaServer if !models.is_empty() => Ok(models[0].clone()),
        Personality::Deepseek => Err(error(shared, 400, "Model Not Exist")),
        _ if name.is_empty() => Err(error(shared, 400, "model: a name is required")),
        _ => Err(error(shared, 404, format!("The model `{name}` does not exist."))),
    }
}

/// Checks the messages for faults that every server rejects, and returns the first one.
fn message_problem(body: &Value) -> Option<String> {
    let messages = body["messages"].as_array()?;
    let mut open: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !["system", "developer", "user", "assistant", "tool"].contains(&role) {
            return Some(format!("messages[{at}].role: unknown variant `{role}`"));
        }
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(known) = open.iter().position(|open| *open == id) else {
                return Some(format!("messages[{at}]: no preceding tool call has the id {id:?}"));
            };
            open.remove(known);
            continue;
        }
        if let Some(id) = open.first() {
            return Some(format!(
                "An assistant message with 'tool_calls' must be followed by tool messages for each \
                 'tool_call_id'; {id:?} has none"
            ));
        }
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        if message["content"].is_null() && calls.is_empty() {
            return Some(format!("messages[{at}]: content or tool_calls must be set"));
        }
        for call in calls {
            if !call["function"]["arguments"].is_string() {
                return Some(format!("messages[{at}].tool_calls: arguments: a string is required"));
            }
            open.push(call["id"].as_str().unwrap_or_default());
        }
    }
    None
}

/// Returns the first violation of DeepSeek's rules (docs/model-apis.md#deepseek-requests,
/// docs/model-apis.md#deepseek-reasoning).
fn deepseek_problem(body: &Value) -> Option<String> {
    let thinking = body["thinking"]["type"] != json!("disabled");
    let format = body["response_format"]["type"].as_str().unwrap_or("text");
    if !["text", "json_object"].contains(&format) {
        return Some("This response_format type is unavailable now".into());
    }
    let messages = body["messages"].as_array()?;
    let says_json = |message: &Value| {
        message["role"] != json!("assistant")
            && message["content"].as_str().is_some_and(|text| text.to_lowercase().contains("json"))
    };
    if format == "json_object" && !messages.iter().any(says_json) {
        return Some("Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.".into());
    }
    if thinking && !matches!(body["tool_choice"], Value::Null) {
        return Some("The thinking mode does not support this tool_choice".into());
    }
    if body["tools"].as_array().is_some_and(Vec::is_empty) {
        return Some("tools: an empty array is not allowed".into());
    }
    let forgot = |message: &Value| {
        message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
            && !message["reasoning_content"].is_string()
    };
    if thinking && messages.iter().any(forgot) {
        return Some("The `reasoning_content` in the thinking mode must be passed back to the API.".into());
    }
    None
}

/// Returns an error if a `json_schema` format has no schema, which every server refuses.
fn schema_problem(body: &Value) -> Option<String> {
    let format = &body["response_format"];
    let good = format["type"] != json!("json_schema") || format["json_schema"]["schema"].is_object();
    (!good).then(|| "response_format.json_schema.schema: an object is required".to_owned())
}

/// Returns an error if the messages contain images but the model has no vision, or if a part is
/// malformed.
fn image_problem(body: &Value, model: &ModelSpec) -> Option<String> {
    let messages = body["messages"].as_array()?.iter();
    let parts = messages.filter_map(|message| message["content"].as_array()).flatten();
    parts.into_iter().find_map(|part| match part["type"].as_str() {
        Some("text") => (!part["text"].is_string()).then(|| "text: a string is required".to_owned()),
        Some("image_url") if !model.can("vision") => Some("image input is not supported".to_owned()),
        Some("image_url") => {
            let url = part["image_url"]["url"].as_str().unwrap_or_default();
            let inline = url.starts_with("data:image/") && url.contains(";base64,");
            (!inline).then(|| "image_url: a data URL is required".to_owned())
        }
        _ => Some("content: unknown type of part".to_owned()),
    })
}

/// Returns the first violation of vLLM's rules (docs/model-apis.md#vllm).
fn vllm_problem(body: &Value, stream: bool, model: &ModelSpec) -> Option<String> {
    if !stream && !body["stream_options"].is_null() {
        return Some("Stream options can only be defined when `stream=True`.".into());
    }
    match body["tools"].as_array() {
        Some(tools) if tools.is_empty() => Some("tools: at least one tool is required".into()),
        Some(_) if !model.can("tools") => Some(
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set".into(),
        ),
        _ => None,
    }
}
