//! Detects the kind of server behind a base URL in one round trip, and remembers it
//! (docs/model-apis.md#server-detection).
//!
//! The kind is determined by the shape of the answers. Some gateways answer any path with status
//! 200, so neither a status nor identical answers to every path prove anything.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::shape::{has_ollama_models, is_ollama_tags, ollama_version, owner, read, read_props};
use crate::failure::Failure;
use crate::http::Http;
use crate::memory::Memory;
use crate::{Error, host};

/// DeepSeek's documented window, in tokens (docs/model-apis.md#deepseek-models).
const DEEPSEEK_WINDOW: u64 = 1_000_000;

/// How long a probe of a local server may take. A probe that gets no answer is treated as negative.
const LOCAL_PROBE: Duration = Duration::from_millis(1500);

/// How long a probe of a remote server may take.
const REMOTE_PROBE: Duration = Duration::from_secs(5);

/// The kinds of OpenAI-compatible servers that this crate distinguishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// DeepSeek's platform.
    DeepSeek,
    /// llama.cpp's server.
    LlamaServer,
    /// vLLM.
    Vllm,
    /// LM Studio.
    LmStudio,
    /// Any other server. Only portable fields are sent to it.
    #[default]
    Generic,
}

impl Kind {
    /// Returns the name used in [`crate::Identity::server`].
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

    /// Returns whether servers of this kind can constrain answers to a JSON Schema
    /// (docs/model-apis.md#openai-structured-outputs).
    pub(super) fn constrains(self) -> bool {
        match self {
            Kind::LlamaServer | Kind::Vllm | Kind::LmStudio => true,
            Kind::DeepSeek | Kind::Generic => false,
        }
    }
}

/// A model in a server's list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) id: String,
    /// The window in effect, if the server reports it.
    pub(super) window: Option<u64>,
    /// Number of parameters, in billions.
    pub(super) parameters_b: Option<f32>,
    /// Whether the server reports the model as loaded.
    pub(super) loaded: bool,
    /// Whether the model accepts images, if the server reports that.
    pub(super) sees_images: Option<bool>,
}

/// What the probes found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Ollama { version: String },
    Server(Server),
}

/// A server with an OpenAI-compatible API.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) version: Option<String>,
    pub(super) window: Option<u64>,
    pub(super) models: Vec<Listed>,
    /// Whether its model can think, according to the chat template. Always true for DeepSeek's
    /// platform.
    pub(super) thinks: bool,
    /// Whether it reports its chat template.
    pub(super) templated: bool,
    /// How many requests it handles concurrently (llama-server).
    pub(super) slots: Option<u16>,
    /// The path of its model file (llama-server).
    pub(super) file: Option<String>,
    /// Whether the server's model accepts images (llama-server).
    pub(super) sees_images: Option<bool>,
    /// The error, if the server refused to list its models. It is ignored if the user chose a
    /// model, because the key may be valid only for chat.
    pub(super) unlisted: Option<Error>,
}

/// Returns the base URL for the paths of the OpenAI API. If the base has no path, appends the
/// server's usual path, in most cases `/v1`.
pub(super) fn api_base(base: &str) -> String {
    let (base, query) = host::split_query(base);
    let base = base.trim_end_matches('/');
    let path = base.split_once("://").map_or(base, |(_, rest)| rest).split_once('/');
    let v1 = match path {
        None if base.ends_with(":12434") => "/engines/v1", // Docker Model Runner
        None if !is_deepseek(base) => "/v1",
        _ => "",
    };
    format!("{base}{v1}{query}")
}

pub(super) fn is_deepseek(base: &str) -> bool {
    host::host_of(base) == "api.deepseek.com"
}

/// The kind that [`Memory`] remembers for an Ollama server.
const OLLAMA: &str = "ollama";

/// Requests the paths whose answers distinguish the kinds of servers.
struct Probes<'a> {
    http: &'a Http,
    root: String,
    local: bool,
}

impl Probes<'_> {
    async fn get(&self, url: String) -> Result<Value, Failure> {
        let limit = if self.local { LOCAL_PROBE } else { REMOTE_PROBE };
        self.http.json(Method::GET, &url, None, limit).await
    }

    async fn models(&self) -> Result<Value, Failure> {
        self.get(self.http.url("/models")).await
    }

    /// Requests a path outside the OpenAI API.
    async fn at(&self, path: &str) -> Result<Value, Failure> {
        self.get(format!("{}{path}", self.root)).await
    }

    /// Like `at`, but only for local servers. Hosted services are not probed this way, because LM
    /// Studio and vLLM usually run behind a gateway when they are outside the user's own network.
    async fn at_local(&self, path: &str) -> Value {
        if self.local { self.at(path).await.unwrap_or(Value::Null) } else { Value::Null }
    }
}

/// Detects the kind of server at `http`'s base URL, or checks that it is still the remembered kind.
/// A failed probe proves nothing: the result is an error only if the server cannot be reached at
/// all, is still loading, or needs different settings.
pub(super) async fn detect(http: &Http, known: Option<Kind>, memory: &Memory) -> Result<Found, Error> {
    let base = http.base();
    if known == Some(Kind::DeepSeek) || is_deepseek(base) {
        return Ok(Found::Server(Server {
            kind: Kind::DeepSeek,
            window: Some(DEEPSEEK_WINDOW),
            thinks: true,
            ..Server::default()
        }));
    }
    let probes = Probes { http, root: host::root(base).into_owned(), local: host::is_local(base) };
    let remembered = memory.recall(base);
    if let Some(remembered) = &remembered
        && let Some(found) = recheck(&probes, &remembered.server, remembered.version.clone()).await?
    {
        return Ok(found);
    }
    let found = probe(&probes).await?;
    let (name, version, sure) = match &found {
        Found::Ollama { version } => (OLLAMA, Some(version.clone()), true),
        // Do not remember a server that lists no models, for example because it needs a different
        // key: it may reveal more next time.
        Found::Server(server) => (server.kind.name(), server.version.clone(), !server.models.is_empty()),
    };
    if sure {
        memory.detected(base, name, version);
    } else if remembered.is_some_and(|remembered| remembered.server != name) {
        memory.forget(base);
    }
    Ok(match (found, known) {
        (Found::Server(server), Some(kind)) => Found::Server(Server { kind, ..server }),
        (found, _) => found,
    })
}

/// Sends only the probes for a server of the remembered kind. Returns `None` if the server does not
/// answer the way that kind of server does.
async fn recheck(
    probes: &Probes<'_>,
    remembered: &str,
    version: Option<String>,
) -> Result<Option<Found>, Error> {
    let none = Value::Null;
    if remembered == OLLAMA {
        let answer = probes.at("/api/version").await;
        return match answer {
            Ok(answer) => Ok(ollama_version(&answer).map(|version| Found::Ollama { version })),
            Err(Failure::Other(error @ Error::Transport(_))) => Err(error),
            Err(_) => Ok(None),
        };
    }
    let (models, props, studio) = match remembered {
        "llama-server" => {
            let (models, props) = tokio::join!(probes.models(), probes.at("/props"));
            (models, props, Value::Null)
        }
        "lm-studio" => {
            let (models, studio) = tokio::join!(probes.models(), probes.at_local("/api/v1/models"));
            (models, Ok(Value::Null), studio)
        }
        _ => (probes.models().await, Ok(Value::Null), Value::Null),
    };
    let Some(models) = listed_or_error(&[&models, &props], models.clone())? else { return Ok(None) };
    let server = read(&models, &props.unwrap_or_default(), &[studio], &none);
    // The probes for other kinds of server were not sent, so only `owned_by` in the model list can
    // reveal a different server.
    let different =
        server.kind == Kind::Generic && matches!(owner(&models), "library" | "organization_owner");
    let same = server.kind.name() == remembered && !server.models.is_empty() && !different;
    let version = server.version.clone().or(version);
    Ok(same.then_some(Found::Server(Server { version, ..server })))
}

/// Returns the model list, or `None` if the server has none or refuses to send it. Fails if the
/// server cannot be reached, is loading, or needs different settings.
fn listed_or_error(
    answers: &[&Result<Value, Failure>],
    models: Result<Value, Failure>,
) -> Result<Option<Value>, Error> {
    if let Err(failure @ Failure::Status { status: 407, .. }) = &models {
        return Err(failure.clone().into());
    }
    for answer in answers {
        if let Err(failure @ Failure::Status { status: 503, .. }) = answer
            && let error @ Error::Loading(_) = Error::from(failure.clone())
        {
            return Err(error);
        }
    }
    let silent = |answer: &&Result<Value, Failure>| matches!(answer, Err(Failure::Other(Error::Timeout(_))));
    match models {
        Ok(models) => Ok(Some(models)),
        Err(Failure::Other(error)) if answers.iter().all(silent) => Err(error),
        // Connection refused, an untrusted certificate, or a redirect. A single path that fails
        // this way proves nothing.
        Err(Failure::Other(error @ (Error::Transport(_) | Error::Refused(_) | Error::Settings(_))))
            if !answers.iter().any(|answer| matches!(answer, Ok(_) | Err(Failure::Status { .. }))) =>
        {
            Err(error)
        }
        Err(Failure::Other(error @ Error::Settings(_))) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Sends all probes at once.
async fn probe(probes: &Probes<'_>) -> Result<Found, Error> {
    let (models, ollama, props, studio, studio_before, vllm) = tokio::join!(
        probes.models(),
        probes.at("/api/version"),
        probes.at("/props"),
        probes.at_local("/api/v1/models"),
        probes.at_local("/api/v0/models"),
        probes.at_local("/version"),
    );
    let unlisted = match &models {
        // A missing model list is not an error.
        Err(Failure::Status { status: 404 | 405, .. }) => None,
        Err(failure @ Failure::Status { .. }) => Some(failure.clone().into()),
        _ => None,
    };
    let listed = listed_or_error(&[&models, &ollama, &props], models.clone())?.unwrap_or_default();
    let mut answers = [ollama.unwrap_or_default(), props.unwrap_or_default(), studio, studio_before, vllm];
    // If three or more answers are identical, the server probably answers every path the same way,
    // so ignore them all.
    let alike =
        |answer: &Value| !answer.is_null() && answers.iter().filter(|other| *other == answer).count() > 2;
    if answers.iter().any(alike) {
        answers = Default::default();
    }
    let [ollama, props, studio, studio_before, vllm] = answers;
    let mut server = read(&listed, &props, &[studio, studio_before], &vllm);
    server.unlisted = unlisted;
    // Other servers imitate Ollama so that its clients can use them, but name themselves as the
    // owner in their model list.
    let names_itself = !matches!(owner(&listed), "" | "library") && !has_ollama_models(&listed);
    if let Some(version) = ollama_version(&ollama)
        && server.kind == Kind::Generic
        && !names_itself
        && probes.at("/api/tags").await.is_ok_and(|tags| is_ollama_tags(&tags))
    {
        return Ok(Found::Ollama { version });
    }
    Ok(Found::Server(server))
}

/// Requests llama-server's `/props` again. Returns the window and the model's file, or `None` if
/// the server does not answer.
pub(super) async fn props(http: &Http) -> Option<(Option<u64>, Option<String>)> {
    let url = format!("{}/props", host::root(http.base()));
    http.json(Method::GET, &url, None, LOCAL_PROBE).await.ok().map(|props| read_props(&props))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_without_a_path_gets_the_usual_path() {
        assert_eq!(api_base("http://127.0.0.1:8080"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://u:p@host:1/?key=k"), "http://u:p@host:1/v1?key=k");
        assert_eq!(api_base("https://host/api/v2"), "https://host/api/v2");
        assert_eq!(api_base("http://localhost:12434"), "http://localhost:12434/engines/v1");
        assert_eq!(api_base("https://api.deepseek.com"), "https://api.deepseek.com");
        assert_eq!(api_base("https://api.deepseek.com/beta"), "https://api.deepseek.com/beta");
    }
}
