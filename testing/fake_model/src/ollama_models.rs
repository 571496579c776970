//! Ollama's models: `/api/tags`, `/api/show`, `/api/ps`, `/api/pull`, `/api/delete`
//! (docs/model-apis.md#ollama-models).

use serde_json::{Map, Value, json};

use crate::encode::NOW;
use crate::model::{ModelSpec, with_tag};
use crate::ollama::{Validated, body, error, find_model, flag, named_model};
use crate::record::Request;
use crate::reply::Reply;
use crate::respond::Response;
use crate::state::Shared;

pub(crate) fn tags(shared: &Shared) -> Response {
    let models: Vec<Value> = shared
        .read()
        .models
        .iter()
        .map(|model| {
            json!({
                "name": model.name, "model": model.name, "modified_at": NOW, "size": model.size,
                "digest": model.digest(), "details": model.details(), "capabilities": model.capabilities,
            })
        })
        .collect();
    Response::json(200, &json!({"models": models}))
}

pub(crate) fn show(shared: &Shared, request: &Request) -> Validated<Response> {
    let model = find_model(shared, &named_model(body(request)?)?)?;
    let mut info = Map::new();
    info.insert("general.architecture".into(), json!(model.family));
    info.insert("general.parameter_count".into(), json!(model.size * 2));
    // Some servers send this number as a float, so clients must accept both forms.
    info.insert(format!("{}.context_length", model.family), json!(model.context));
    Ok(Response::json(
        200,
        &json!({
            "modelfile": format!("FROM {}\n", model.name),
            "parameters": "stop                           \"<|EOT|>\"\ntemperature                    0.6",
            "template": "{{ .System }}\n### Instruction:\n{{ .Prompt }}\n### Response:\n",
            "details": model.details(), "model_info": info, "capabilities": model.capabilities,
            "modified_at": NOW,
        }),
    ))
}

pub(crate) fn ps(shared: &Shared) -> Response {
    let inner = shared.read();
    let models: Vec<Value> = inner
        .loaded
        .iter()
        .filter_map(|loaded| {
            let model = inner.models.iter().find(|model| model.name == loaded.model)?;
            let forever = loaded.stays_forever();
            Some(json!({
                "name": model.name, "model": model.name, "size": model.size, "digest": model.digest(),
                "details": model.details(), "size_vram": model.size, "context_length": loaded.num_ctx,
                "expires_at": if forever { "2318-04-11T23:47:16Z" } else { "2026-01-01T00:05:00Z" },
            }))
        })
        .collect();
    Response::json(200, &json!({"models": models}))
}

pub(crate) fn delete(shared: &Shared, request: &Request) -> Validated<Response> {
    let name = named_model(body(request)?)?;
    let model = find_model(shared, &name)?;
    shared.unload(&model.name);
    shared.change(|inner| inner.models.retain(|held| held.name != model.name));
    Ok(Response::empty(200))
}

/// Pulls a model. A streamed reply has one line per status. As in Ollama, a streamed reply for an
/// unknown model has status 200 and an error line.
pub(crate) fn pull(shared: &Shared, request: &Request) -> Validated<Reply> {
    let body = body(request)?;
    let name = with_tag(&named_model(body)?);
    let stream = flag(body, "stream")?.unwrap_or(true);
    let known = {
        let inner = shared.read();
        let mut all = shared.config.pullable.iter().chain(&inner.models);
        all.find(|model| with_tag(&model.name) == name).cloned()
    };
    let Some(model) = known else {
        const UNKNOWN: &str = "pull model manifest: file does not exist";
        if !stream {
            return Err(error(500, UNKNOWN));
        }
        return Ok(Reply::empty().json(json!({"status": "pulling manifest"})).then_error_line(UNKNOWN));
    };
    let model = ModelSpec { name, ..model };
    let lines = progress(&model);
    shared.change(|inner| {
        if !inner.models.iter().any(|held| held.name == model.name) {
            inner.models.push(model);
        }
    });
    if !stream {
        let mut done = Reply::status(200, json!({"status": "success"}));
        done.content_type = Some("application/json; charset=utf-8".into());
        return Ok(done);
    }
    Ok(lines.into_iter().fold(Reply::empty(), Reply::json))
}

/// Returns the status lines for a pull with two layers. `completed` is absent while it is 0.
fn progress(model: &ModelSpec) -> Vec<Value> {
    let digest = model.digest();
    let mut lines = vec![json!({"status": "pulling manifest"})];
    for (part, total) in [(&digest[..12], model.size), (&digest[12..24], 487)] {
        let status = format!("pulling {part}");
        let digest = format!("sha256:{part}{}", &digest[12..]);
        lines.push(json!({"status": status, "digest": digest, "total": total}));
        for quarter in 1..=4 {
            let completed = total * quarter / 4;
            lines.push(json!({"status": status, "digest": digest, "total": total, "completed": completed}));
        }
    }
    for status in ["verifying sha256 digest", "writing manifest", "removing unused layers", "success"] {
        lines.push(json!({"status": status}));
    }
    lines
}
