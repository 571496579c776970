//! Opens a model on an Ollama server and sends requests to it.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::learned::Learned;
use super::server::{LoadedModel, Server, full_name, is_cloud_name, without_cloud};
use super::wire::{Chat, Frozen, Generate, OllamaAnswer, Options, STOPS, WireMessage, transcript};
use crate::answer::{self, encode};
use crate::failure::Failure;
use crate::http::Secret;
use crate::profile::{About, Profiles};
use crate::shared::Shared;
use crate::size::parameters_in;
use crate::{Access, DeltaStream, Error, Identity, Model, Request, Think};

/// Ollama's name in [`Identity::server`].
const SERVER: &str = "ollama";

/// The smallest window to request, in tokens.
const MIN_WINDOW: u64 = 256;

/// How long the server keeps the model loaded after a request, as a Go duration. A test run between
/// two requests usually takes less time than this, so the model stays loaded
/// (docs/model-apis.md#ollama-keep-alive).
const KEEP_ALIVE: &str = "30m";

/// The time limit for listing the loaded models, which happens between turns.
const LOADED_LIMIT: Duration = Duration::from_secs(2);

/// How to open a model. All of these options are frozen for the session.
#[derive(Debug, Clone, Default)]
pub struct OllamaOptions {
    /// The server; see [`crate::host::ollama_base`].
    pub base: String,
    /// The model's name.
    pub model: String,
    /// A key for ollama.com, or for a proxy that requires one.
    pub key: Option<Secret>,
    /// The requested window, in tokens; capped at the window that the model was trained for.
    pub num_ctx: Option<u64>,
    /// Whether and how much the model should think.
    pub think: Think,
    /// The profiles of model families. They supply the window and the thinking setting if the
    /// fields above do not.
    pub profiles: Profiles,
    /// Whether to load the model in the background while the first request is prepared.
    pub preload: bool,
    /// How to reach the server.
    pub access: Access,
}

impl OllamaOptions {
    /// Returns the default options for a model on a server.
    #[must_use]
    pub fn new(base: &str, model: &str) -> Self {
        Self { base: base.to_owned(), model: model.to_owned(), preload: true, ..Self::default() }
    }
}

/// A model on an Ollama server.
pub struct Ollama {
    server: Server,
    options: OllamaOptions,
    /// Whether the server has a chat template for the model. If not, the conversation is sent to
    /// `/api/generate` as a plain transcript.
    chat: bool,
    /// The `shift` field; `None` for versions 0.30.0 to 0.30.7, which lose the prefix cache when
    /// the field is sent (docs/model-apis.md#ollama-overflow).
    shift: Option<bool>,
    /// Whether the server counts prompt tokens correctly.
    counts_prompt: bool,
    /// Whether the model runs in Ollama's cloud.
    cloud: bool,
    learned: Shared<Learned>,
    preload: Option<JoinHandle<()>>,
    /// Warnings about settings that the model does not support.
    unsupported: Vec<String>,
}

impl Drop for Ollama {
    fn drop(&mut self) {
        if let Some(preload) = &self.preload {
            preload.abort();
        }
    }
}

impl Ollama {
    /// Opens a model: fetches its metadata in one round trip, then starts loading it in the
    /// background.
    ///
    /// # Errors
    /// If there is no connection, or if the model is missing or cannot generate text.
    pub async fn open(mut options: OllamaOptions) -> Result<Self, Error> {
        let mut server = Server::new(&options.base, options.key.as_ref(), &options.access)?;
        if server.is_cloud() {
            options.model = without_cloud(&options.model).to_owned();
        }
        let (version, show) = tokio::join!(server.version(), server.show(&options.model));
        let named_cloud = is_cloud_name(&options.model);
        let show = match show {
            Ok(show) => Some(show),
            // The server fetches cloud models on first use.
            Err(Error::MissingModel { .. }) if named_cloud => None,
            Err(Error::MissingModel { .. }) if version.is_err() => {
                return Err(Error::Settings(format!(
                    "{} does not answer like an Ollama server; for another kind of server use openai:{} and --base-url",
                    server.base(),
                    options.model
                )));
            }
            Err(Error::Transport(why)) => {
                let hint = "is Ollama running (`ollama serve`), and is OLLAMA_HOST right?";
                return Err(Error::Transport(format!("{why}; {hint}")));
            }
            Err(error) => return Err(error),
        };
        let version = version.ok();
        let show = show.as_ref();
        if show.and_then(|show| show.can("completion")) == Some(false)
            && show.and_then(|show| show.can("embedding")) == Some(true)
        {
            return Err(Error::Settings(format!(
                "{} is an embedding model; choose a model that writes text",
                options.model
            )));
        }
        // A model whose file is on the server does not run in the cloud, regardless of its name.
        let here = show
            .is_some_and(|show| !show.remote && show.raw["model_info"]["general.architecture"].is_string());
        let cloud = server.is_cloud() || show.is_some_and(|show| show.remote) || (named_cloud && !here);
        if cloud {
            server.hosted(&options.access);
        }
        let mut unsupported = Vec::new();
        let trained = show.and_then(|show| show.trained_window);
        let parameters_b = show.and_then(|show| show.parameters_b).or_else(|| parameters_in(&options.model));
        let about = About { name: &options.model, parameters_b, server: SERVER };
        let profile = options.profiles.resolve(about);
        options.think = profile.think(options.think);
        // The user's profile takes precedence over the window in the model's own parameters, which
        // takes precedence over a built-in profile.
        let of_user = profile.window.as_ref().filter(|window| window.by_user).map(|window| window.value);
        let own = show.and_then(|show| show.own_window);
        let requested = options.num_ctx.or(of_user).or(own).or(profile.window());
        // A cloud model always runs with its full window (docs/model-apis.md#ollama-cloud).
        let num_ctx = requested
            .filter(|_| !cloud)
            .map(|tokens| tokens.min(trained.unwrap_or(u64::MAX)).max(MIN_WINDOW));
        let name = &options.model;
        match (options.num_ctx, trained) {
            (Some(asked), _) if cloud => unsupported.push(format!(
                "{name} runs in Ollama's cloud with its full window; the requested {asked} tokens are ignored"
            )),
            (Some(asked), Some(trained)) if asked > trained => unsupported.push(format!(
                "{name} was trained for a window of {trained} tokens; the agent requests that instead of {asked}"
            )),
            _ => {}
        }
        let can_think = show.and_then(|show| show.can("thinking"));
        if can_think == Some(false) && !matches!(options.think, Think::Auto | Think::Off) {
            unsupported.push(format!("{name} does not support thinking; the run continues without it"));
        }
        let think = think_field(&options, can_think);
        let thinking = think.as_ref().is_some_and(|think| *think != Value::Bool(false));
        let mut identity = Identity {
            server: String::from(SERVER),
            server_version: version.clone(),
            model: options.model.clone(),
            family: show.and_then(|show| show.family.clone()),
            parameters_b,
            window: num_ctx.or(trained),
            local: !cloud && crate::host::is_local(&options.base),
            thinking,
            // Servers before 0.12.11 ignore a request for alternatives and return none.
            branches: !cloud && !thinking && show.is_none_or(|show| show.chat_template),
            // The cloud ignores a schema (docs/model-apis.md#ollama-structured-outputs).
            can_constrain: !cloud && !thinking,
            // A plain transcript cannot contain images.
            sees_images: show
                .and_then(|show| if show.chat_template { show.can("vision") } else { Some(false) }),
            ..Identity::default()
        };
        profile.describe(&mut identity);
        let number = version.as_deref().map(version_number).unwrap_or_default();
        let mut model = Self {
            chat: show.is_none_or(|show| show.chat_template),
            shift: (!((0, 30, 0)..=(0, 30, 7)).contains(&number)).then_some(false),
            counts_prompt: number != (0, 30, 0),
            cloud,
            learned: Shared::new(Learned {
                num_ctx,
                think,
                asked_to_think: !matches!(options.think, Think::Auto | Think::Off),
                identity,
                ..Learned::default()
            }),
            server,
            options,
            preload: None,
            unsupported,
        };
        if model.options.preload && !cloud {
            model.preload = Some(model.spawn_preload());
        }
        Ok(model)
    }

    /// Returns warnings about settings that the model does not support. Each one says what happens
    /// instead.
    #[must_use]
    pub fn unsupported(&self) -> &[String] {
        &self.unsupported
    }

    /// Starts loading the model on a separate connection, with exactly the options that later
    /// requests will use. This process does not wait for the load to finish. If the first request
    /// arrives in the meantime, the server queues it.
    fn spawn_preload(&self) -> JoinHandle<()> {
        let http = self.server.http.clone();
        let learned = self.learned.get();
        let path = if self.chat { "/api/chat" } else { "/api/generate" };
        let frozen = self.frozen(&learned, false);
        let options = self.session_options(&learned);
        let body = if self.chat {
            encode(&Chat {
                frozen,
                messages: Vec::new(),
                options,
                format: None,
                logprobs: None,
                top_logprobs: None,
            })
        } else {
            encode(&Generate { frozen, raw: false, prompt: "", options, format: None })
        };
        let url = http.url(path);
        tokio::spawn(async move {
            if let Ok(body) = body {
                let limit = http.timeouts.first_byte;
                let answer = http.json(Method::POST, &url, Some(body), limit).await;
                tracing::debug!(failed = answer.is_err(), "preload");
            }
        })
    }

    fn frozen(&self, learned: &Learned, stream: bool) -> Frozen<'_> {
        Frozen {
            model: &self.options.model,
            stream,
            // Runner options have no effect in the cloud.
            keep_alive: (!self.cloud).then_some(KEEP_ALIVE),
            truncate: (!self.cloud).then_some(false),
            shift: self.shift.filter(|_| !self.cloud),
            think: learned.think.clone(),
        }
    }

    fn session_options(&self, learned: &Learned) -> Options<'static> {
        Options {
            num_ctx: learned.num_ctx,
            repeat_penalty: (!self.cloud).then_some(1.0),
            stop: if self.chat { Vec::new() } else { STOPS.to_vec() },
            num_predict: None,
            temperature: None,
            seed: None,
        }
    }

    fn request_options(&self, learned: &Learned, request: &Request) -> Options<'static> {
        Options {
            num_predict: Some(request.max_tokens),
            temperature: request.temperature,
            // The engine's seeds are 32 bits wide, and the server decodes them as signed.
            seed: request.seed.map(|seed| (seed & 0x7fff_ffff) as u32),
            ..self.session_options(learned)
        }
    }

    async fn answer(&self, request: &Request) -> Result<DeltaStream, Error> {
        if !self.chat {
            let prompt = transcript(&request.messages);
            let send = self.send("/api/generate", request, |learned| {
                // Raw output is not parsed for thinking.
                let frozen = Frozen { think: None, ..self.frozen(learned, true) };
                let options = self.request_options(learned, request);
                encode(&Generate {
                    frozen,
                    raw: true,
                    prompt: &prompt,
                    options,
                    format: learned.format(request),
                })
            });
            return send.await;
        }
        self.send("/api/chat", request, |learned| {
            encode(&Chat {
                frozen: self.frozen(learned, true),
                messages: learned
                    .roles
                    .shape(&request.messages)
                    .iter()
                    .map(|message| WireMessage::from(&**message))
                    .collect(),
                options: self.request_options(learned, request),
                format: learned.format(request),
                logprobs: (request.alternatives > 0).then_some(true),
                top_logprobs: (request.alternatives > 0).then_some(request.alternatives),
            })
        })
        .await
    }

    /// Sends a request. `body` builds the request's body from what is known about the server. After
    /// a refusal that reveals something new, the body is rebuilt and the request is retried.
    async fn send(
        &self,
        path: &str,
        request: &Request,
        body: impl Fn(&Learned) -> Result<Vec<u8>, Error>,
    ) -> Result<DeltaStream, Error> {
        loop {
            let failure = match self.server.http.post(path, body(&self.learned.get())?).await {
                Ok(response) => {
                    let protocol = OllamaAnswer { counts_prompt: self.counts_prompt };
                    let (_, refusal, deltas) = answer::start(response, protocol, request.max_tokens).await;
                    if refusal.is_some_and(|refusal| self.adapt(&refusal, request)) {
                        continue;
                    }
                    return Ok(deltas);
                }
                Err(failure) => failure,
            };
            if self.adapt(&failure, request) {
                continue;
            }
            return Err(match Error::from(failure) {
                Error::MissingModel { .. } => self.server.missing(&self.options.model).await,
                error => error,
            });
        }
    }
}

impl Ollama {
    fn adapt(&self, failure: &Failure, request: &Request) -> bool {
        self.learned.change(|learned| learned.adapt(failure, request))
    }

    /// Returns the model's entry in the list of loaded models, if it is loaded.
    async fn loaded_model(&self) -> Result<Option<LoadedModel>, Error> {
        let name = full_name(&self.options.model);
        let loaded = self.server.loaded(LOADED_LIMIT).await?;
        Ok(loaded.into_iter().find(|model| full_name(&model.name).eq_ignore_ascii_case(&name)))
    }
}

#[async_trait::async_trait]
impl Model for Ollama {
    fn identity(&self) -> Identity {
        self.learned.get().identity
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        self.answer(request).await
    }

    async fn verify(&self) -> Vec<String> {
        let name = full_name(&self.options.model);
        let loaded = if self.cloud { None } else { Some(self.loaded_model().await) };
        self.learned.change(|learned| {
            let mut warnings = std::mem::take(&mut learned.news);
            warnings.extend(match loaded {
                None => Vec::new(),
                Some(Ok(Some(loaded))) => learned.check(&loaded),
                Some(Ok(None)) => {
                    vec![format!("cannot check the window: {name} is not among the loaded models")]
                }
                Some(Err(why)) => vec![format!("cannot check the window: {why}")],
            });
            learned.reported.new_ones(warnings)
        })
    }

    async fn outlook(&self) -> Result<Option<String>, Error> {
        if self.cloud {
            // If the server is Ollama's cloud itself, it checks the key in each request. A local
            // daemon must be signed in instead.
            let account = if self.server.is_cloud() { None } else { self.server.account().await? };
            let account = account.map(|name| format!(", signed in as {name}")).unwrap_or_default();
            let window = self.identity().window.map_or_else(|| String::from("its full window"), tokens);
            return Ok(Some(format!("{window} in Ollama's cloud{account}")));
        }
        let Some(requested) = self.learned.get().num_ctx else { return Ok(None) };
        let current = self.loaded_model().await.ok().flatten().and_then(|loaded| loaded.context_length);
        let pending = format!("{} requested; to be verified by the first run", tokens(requested));
        Ok(Some(match current {
            Some(current) if current == requested => format!("{}, already loaded", tokens(current)),
            Some(current) => {
                format!("{pending} (now loaded with {}, so the server will reload it)", thousands(current))
            }
            None => pending,
        }))
    }
}

/// Returns the `think` field for a session, or `None` to omit it. It is omitted if the model cannot
/// think or, with [`Think::Auto`], if the server does not report whether it can.
fn think_field(options: &OllamaOptions, capable: Option<bool>) -> Option<Value> {
    match (options.think, capable) {
        (_, Some(false)) | (Think::Auto, None) => None,
        (Think::Auto, Some(true)) => Some(Value::Bool(true)),
        (think, _) => Some(think.ollama()),
    }
}

fn tokens(count: u64) -> String {
    format!("{} tokens", thousands(count))
}

/// Formats a count as `12,345`.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Parses the three numbers in a version. Missing or invalid ones become 0.
fn version_number(version: &str) -> (u32, u32, u32) {
    let mut parts =
        version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}
