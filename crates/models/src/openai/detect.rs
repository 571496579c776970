//! What kind of server is behind a base URL (wire reference 3.1): found out once, in one round trip.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::failure::Failure;
use crate::http::Http;
use crate::{Error, host};

/// DeepSeek's documented window, in tokens (wire reference 2.1).
const DEEPSEEK_WINDOW: u64 = 1_000_000;

/// How long a probe may take on this machine or network; silence means "no".
const LOCAL_PROBE: Duration = Duration::from_millis(1500);

/// The same for the rest of the world.
const REMOTE_PROBE: Duration = Duration::from_secs(5);

/// The servers whose differences are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DeepSeek's platform.
    DeepSeek,
    /// llama.cpp's server.
    LlamaServer,
    /// vLLM.
    Vllm,
    /// LM Studio.
    LmStudio,
    /// Anything else: only the portable fields are sent.
    Generic,
}

impl Kind {
    /// Its name in [`crate::Identity::server`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::DeepSeek => "deepseek",
            Kind::LlamaServer => "llama-server",
            Kind::Vllm => "vllm",
            Kind::LmStudio => "lm-studio",
            Kind::Generic => "openai",
        }
    }
}

/// One model of a server's list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) id: String,
    /// The window in force, where told.
    pub(super) window: Option<u64>,
    /// Billions.
    pub(super) parameters_b: Option<f32>,
}

/// What the probes found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Ollama { version: String },
    Server(Server),
}

/// A server that is spoken to in OpenAI's way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) version: Option<String>,
    pub(super) window: Option<u64>,
    pub(super) models: Vec<Listed>,
    /// Whether its template has a think switch.
    pub(super) thinks: bool,
    /// The file its model came from (llama-server).
    pub(super) file: Option<String>,
}

/// The URL under which the OpenAI paths are: a base without a path means the usual `/v1`.
pub(super) fn api_base(base: &str) -> String {
    let (base, query) = host::split_query(base);
    let base = base.trim_end_matches('/');
    let path = base.split_once("://").map_or(base, |(_, rest)| rest).split_once('/');
    let v1 = if path.is_none() && !is_deepseek(base) { "/v1" } else { "" };
    format!("{base}{v1}{query}")
}

pub(super) fn is_deepseek(base: &str) -> bool {
    host::host_of(base) == "api.deepseek.com"
}

/// Finds out what answers at `http`'s base. A probe that fails says nothing; only a server that cannot be reached at all, is still loading or
/// refuses the key is an error.
pub(super) async fn detect(http: &Http, known: Option<Kind>) -> Result<Found, Error> {
    let base = http.base();
    if known == Some(Kind::DeepSeek) || is_deepseek(base) {
        return Ok(Found::Server(Server {
            kind: Kind::DeepSeek,
            version: None,
            window: Some(DEEPSEEK_WINDOW),
            models: Vec::new(),
            thinks: true,
            file: None,
        }));
    }
    let root = host::root(base);
    let local = host::is_local(base);
    let limit = if local { LOCAL_PROBE } else { REMOTE_PROBE };
    let get = |url: String| async move { http.json(Method::GET, &url, None, limit).await };
    let get_local = |url: String| async move {
        // LM Studio and a bare vLLM are programs of one's own network; a hosted service is spared the questions.
        if local { get(url).await.unwrap_or(Value::Null) } else { Value::Null }
    };
    let (models, ollama, props, studio, studio_before, vllm) = tokio::join!(
        get(format!("{base}/models")),
        get(format!("{root}/api/version")),
        get(format!("{root}/props")),
        get_local(format!("{root}/api/v1/models")),
        get_local(format!("{root}/api/v0/models")),
        get_local(format!("{root}/version")),
    );
    if let Ok(Value::String(version)) = ollama.as_ref().map(|value| &value["version"]) {
        return Ok(Found::Ollama { version: version.clone() });
    }
    for answer in [&models, &props] {
        if let Err(failure @ Failure::Status { status: 503, .. }) = answer {
            return Err(failure.clone().into());
        }
    }
    let silent = |answer: &Result<Value, Failure>| matches!(answer, Err(Failure::Other(Error::Timeout(_))));
    let nobody = [&models, &ollama, &props].into_iter().all(silent);
    let models = match models {
        Ok(models) => models,
        Err(Failure::Other(error)) if nobody => return Err(error),
        Err(failure @ Failure::Status { status: 401, .. }) => return Err(failure.into()),
        Err(Failure::Other(error @ (Error::Transport(_) | Error::Refused(_) | Error::Settings(_)))) => {
            return Err(error);
        }
        Err(_) => Value::Null,
    };
    let props = props.unwrap_or(Value::Null);
    let mut server = read(&models, &props, &[studio, studio_before], &vllm);
    server.kind = known.unwrap_or(server.kind);
    Ok(Found::Server(server))
}

/// Reads the answers of the probes; `Null` where there was none.
fn read(models: &Value, props: &Value, studio: &[Value], vllm: &Value) -> Server {
    let mut listed: Vec<Listed> =
        models["data"].as_array().into_iter().flatten().filter_map(listed).collect();
    let owner = models["data"][0]["owned_by"].as_str().unwrap_or_default();
    let version = vllm["version"].as_str().map(str::to_owned);
    let mut server = Server {
        kind: Kind::Generic,
        version: None,
        window: None,
        models: Vec::new(),
        thinks: false,
        file: None,
    };
    if props["default_generation_settings"].is_object() || owner == "llamacpp" {
        server.kind = Kind::LlamaServer;
        server.version = props["build_info"].as_str().map(str::to_owned);
        (server.window, server.file) = read_props(props);
        server.thinks =
            props["chat_template"].as_str().is_some_and(|template| template.contains("enable_thinking"));
    } else if owner == "vllm" {
        server.kind = Kind::Vllm;
        server.version = version;
    } else if let Some(known) = studio.iter().map(studio_models).find(|known| !known.is_empty()) {
        server.kind = Kind::LmStudio;
        for model in &mut listed {
            model.window = known.iter().find(|known| known.id == model.id).and_then(|known| known.window);
        }
        if listed.is_empty() {
            listed = known;
        }
    }
    server.models = listed;
    server
}

/// The window and the model's file, as llama-server tells them.
fn read_props(props: &Value) -> (Option<u64>, Option<String>) {
    let window = props["default_generation_settings"]["n_ctx"].as_u64();
    (window, props["model_path"].as_str().map(str::to_owned))
}

/// Asks llama-server for them again, in passing: no answer says nothing.
pub(super) async fn props(http: &Http) -> Option<(Option<u64>, Option<String>)> {
    let url = format!("{}/props", host::root(http.base()));
    http.json(Method::GET, &url, None, LOCAL_PROBE).await.ok().map(|props| read_props(&props))
}

fn listed(model: &Value) -> Option<Listed> {
    Some(Listed {
        id: model["id"].as_str()?.to_owned(),
        window: model["max_model_len"].as_u64().or(model["meta"]["n_ctx"].as_u64()),
        parameters_b: model["meta"]["n_params"].as_f64().map(|count| (count / 1e9) as f32),
    })
}

/// LM Studio's own lists: `/api/v1/models` and, before it, `/api/v0/models` (wire reference 3.4). A model that is not loaded has no window yet.
pub(super) fn studio_models(list: &Value) -> Vec<Listed> {
    let model = |model: &Value| {
        let loaded = &model["loaded_instances"][0]["config"]["context_length"];
        Some(Listed {
            id: model["key"].as_str().or(model["id"].as_str())?.to_owned(),
            window: loaded.as_u64().or(model["loaded_context_length"].as_u64()),
            parameters_b: None,
        })
    };
    let current = list["models"].as_array();
    // Others answer such a path with their plain model list; LM Studio's older one is known by its members.
    let before =
        list["data"].as_array().filter(|list| list.iter().any(|model| model["max_context_length"].is_u64()));
    current.or(before).into_iter().flatten().filter_map(model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_base_without_a_path_means_v1() {
        assert_eq!(api_base("http://127.0.0.1:8080"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://u:p@host:1/?key=k"), "http://u:p@host:1/v1?key=k");
        assert_eq!(api_base("https://host/api/v2"), "https://host/api/v2");
        assert_eq!(api_base("https://api.deepseek.com"), "https://api.deepseek.com");
        assert_eq!(api_base("https://api.deepseek.com/beta"), "https://api.deepseek.com/beta");
    }

    #[test]
    fn servers_are_told_apart_by_what_they_answer() {
        let none = [Value::Null, Value::Null];
        let props = json!({"default_generation_settings": {"n_ctx": 16384}, "chat_template": "…", "build_info": "b1"});
        let llama = read(
            &json!({"data": [{"id": "m", "owned_by": "llamacpp", "meta": {"n_params": 1.5e9}}]}),
            &props,
            &none,
            &Value::Null,
        );
        assert_eq!(
            (llama.kind, llama.window, llama.models[0].parameters_b),
            (Kind::LlamaServer, Some(16384), Some(1.5))
        );

        let vllm = read(
            &json!({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}),
            &Value::Null,
            &none,
            &json!({"version": "0.11.0"}),
        );
        assert_eq!(
            (vllm.kind, vllm.models[0].window, vllm.version.as_deref()),
            (Kind::Vllm, Some(4096), Some("0.11.0"))
        );

        let list = json!({"data": [{"id": "a/b", "owned_by": "organization_owner"}, {"id": "c"}]});
        let current = json!({"models": [{"key": "a/b", "max_context_length": 9, "loaded_instances": [{"config": {"context_length": 8192}}]}, {"key": "c", "loaded_instances": []}]});
        let studio = read(&list, &Value::Null, &[current, Value::Null], &Value::Null);
        assert_eq!(
            (studio.kind, studio.models[0].window, studio.models[1].window),
            (Kind::LmStudio, Some(8192), None)
        );
        let before = json!({"data": [{"id": "a/b", "max_context_length": 9, "loaded_context_length": 4096}]});
        let studio = read(&list, &Value::Null, &[Value::Null, before], &Value::Null);
        assert_eq!((studio.kind, studio.models[0].window), (Kind::LmStudio, Some(4096)));

        let error = json!({"error": "Unexpected endpoint"});
        let other = read(&list, &error, &[error.clone(), list.clone()], &error);
        assert_eq!((other.kind, other.models.len()), (Kind::Generic, 2));
    }
}
