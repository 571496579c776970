//! What kind of server is behind a base URL (wire reference 3.1): detected in one round trip, and remembered.
//!
//! A server is taken for what the shape of its own answers says. Gateways answer any path with status 200, so a status proves nothing, and neither
//! does one answer that comes back for every path.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::shape::{has_ollama_models, is_ollama_tags, ollama_version, owner, read, read_props};
use crate::failure::Failure;
use crate::http::Http;
use crate::memory::Memory;
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
    /// Whether the server says that it is in memory.
    pub(super) loaded: bool,
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
    /// Whether it shows its template.
    pub(super) templated: bool,
    /// The file its model came from (llama-server).
    pub(super) file: Option<String>,
    /// The refusal, if it did not list its models. Keys may be good for chat only, and gateways may have no list.
    pub(super) unlisted: Option<Error>,
}

impl Server {
    pub(super) fn of(kind: Kind) -> Self {
        Self {
            kind,
            version: None,
            window: None,
            models: Vec::new(),
            thinks: false,
            templated: false,
            file: None,
            unlisted: None,
        }
    }
}

/// The URL under which the OpenAI paths are: a base without a path means the usual `/v1`.
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

/// The name by which an Ollama is remembered.
const OLLAMA: &str = "ollama";

/// Asks the paths that tell servers apart.
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

    /// A path beside the API's own.
    async fn at(&self, path: &str) -> Result<Value, Failure> {
        self.get(format!("{}{path}", self.root)).await
    }

    /// The same, where a hosted service is spared the question: LM Studio and a bare vLLM are programs of one's own network.
    async fn at_local(&self, path: &str) -> Value {
        if self.local { self.at(path).await.unwrap_or(Value::Null) } else { Value::Null }
    }
}

/// Finds out what answers at `http`'s base, or checks that it still is what is remembered. A probe that fails says nothing; only a server that
/// cannot be reached at all or is still loading is an error.
pub(super) async fn detect(http: &Http, known: Option<Kind>, memory: &Memory) -> Result<Found, Error> {
    let base = http.base();
    if known == Some(Kind::DeepSeek) || is_deepseek(base) {
        return Ok(Found::Server(Server {
            window: Some(DEEPSEEK_WINDOW),
            thinks: true,
            ..Server::of(Kind::DeepSeek)
        }));
    }
    let probes = Probes { http, root: host::root(base).into_owned(), local: host::is_local(base) };
    let remembered = memory.recall(base);
    if let Some(remembered) = &remembered
        && let Some(found) = again(&probes, &remembered.server, remembered.version.clone()).await?
    {
        return Ok(found);
    }
    let found = afresh(&probes).await?;
    let (name, version, sure) = match &found {
        Found::Ollama { version } => (OLLAMA, Some(version.clone()), true),
        // A server that says nothing of itself, or wants another key, may say more next time.
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

/// Asks only what a server of the remembered kind knows; `None` if it does not answer like one.
async fn again(
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
    // What is not asked cannot contradict, so the owner named in the list has a say.
    let stranger = server.kind == Kind::Generic && matches!(owner(&models), "library" | "organization_owner");
    let same = server.kind.name() == remembered && !server.models.is_empty() && !stranger;
    let version = server.version.clone().or(version);
    Ok(same.then_some(Found::Server(Server { version, ..server })))
}

/// The model list; an error where the server cannot be reached or is loading, `None` where the list is refused or is none.
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
        // Nobody there, a wrong certificate, a redirect. A path that alone breaks the connection says nothing.
        Err(Failure::Other(error @ (Error::Transport(_) | Error::Refused(_) | Error::Settings(_))))
            if !answers.iter().any(|answer| matches!(answer, Ok(_) | Err(Failure::Status { .. }))) =>
        {
            Err(error)
        }
        Err(Failure::Other(error @ Error::Settings(_))) => Err(error),
        Err(_) => Ok(None),
    }
}

async fn afresh(probes: &Probes<'_>) -> Result<Found, Error> {
    let (models, ollama, props, studio, studio_before, vllm) = tokio::join!(
        probes.models(),
        probes.at("/api/version"),
        probes.at("/props"),
        probes.at_local("/api/v1/models"),
        probes.at_local("/api/v0/models"),
        probes.at_local("/version"),
    );
    let unlisted = match &models {
        // Without a list there is nothing to say about its absence.
        Err(Failure::Status { status: 404 | 405, .. }) => None,
        Err(failure @ Failure::Status { .. }) => Some(failure.clone().into()),
        _ => None,
    };
    let listed = listed_or_error(&[&models, &ollama, &props], models.clone())?.unwrap_or_default();
    let mut answers = [ollama.unwrap_or_default(), props.unwrap_or_default(), studio, studio_before, vllm];
    // A gateway that answers every path alike says nothing by it.
    let alike =
        |answer: &Value| !answer.is_null() && answers.iter().filter(|other| *other == answer).count() > 2;
    if answers.iter().any(alike) {
        answers = Default::default();
    }
    let [ollama, props, studio, studio_before, vllm] = answers;
    let mut server = read(&listed, &props, &[studio, studio_before], &vllm);
    server.unlisted = unlisted;
    // Others answer as Ollama does to please its clients; they name themselves in their list.
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

/// Asks llama-server for them again, in passing: no answer says nothing.
pub(super) async fn props(http: &Http) -> Option<(Option<u64>, Option<String>)> {
    let url = format!("{}/props", host::root(http.base()));
    http.json(Method::GET, &url, None, LOCAL_PROBE).await.ok().map(|props| read_props(&props))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_without_a_path_means_v1() {
        assert_eq!(api_base("http://127.0.0.1:8080"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/v1");
        assert_eq!(api_base("http://u:p@host:1/?key=k"), "http://u:p@host:1/v1?key=k");
        assert_eq!(api_base("https://host/api/v2"), "https://host/api/v2");
        assert_eq!(api_base("http://localhost:12434"), "http://localhost:12434/engines/v1");
        assert_eq!(api_base("https://api.deepseek.com"), "https://api.deepseek.com");
        assert_eq!(api_base("https://api.deepseek.com/beta"), "https://api.deepseek.com/beta");
    }
}
