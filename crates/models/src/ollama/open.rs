//! Opening a model on an Ollama server, and talking to it.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::learned::Learned;
use super::server::{LoadedModel, Server, full_name, is_cloud_name, without_cloud};
use super::wire::{Chat, Frozen, Generate, OllamaAnswer, Options, STOPS, WireMessage, transcript};
use crate::failure::Failure;
use crate::http::Secret;
use crate::roles::Roles;
use crate::shared::{Said, Shared};
use crate::size::{parameters_in, prefers_whole_files};
use crate::{Access, Answer, DeltaStream, Error, Identity, Model, Request, Think, answer, collect};

/// The window asked for unless the user or the model's own parameters say otherwise, in tokens: room for real files, and a KV cache that fits
/// beside a model on common hardware (wire reference 6.2).
const DEFAULT_WINDOW: u64 = 32_768;

/// Ollama uses this much at least.
const MIN_WINDOW: u64 = 256;

/// How long the server keeps the model after a request; longer than a test run (wire reference 1.9).
const KEEP_ALIVE: &str = "30m";

/// How long a look at the loaded models may take between two turns.
const LOOK: Duration = Duration::from_secs(2);

/// How to open a model. Everything in it is frozen for the session.
#[derive(Debug, Clone)]
pub struct OllamaOptions {
    /// The server, see [`crate::host::ollama_base`].
    pub base: String,
    /// The model's name.
    pub model: String,
    /// A key, for ollama.com or a proxy that asks for one.
    pub key: Option<Secret>,
    /// The window wanted, in tokens; bounded by what the model was trained for.
    pub num_ctx: Option<u64>,
    /// Thinking.
    pub think: Think,
    /// A Go duration such as `30m`.
    pub keep_alive: String,
    /// Whether to have the model loaded while the first request is being prepared.
    pub preload: bool,
    /// How to reach it.
    pub access: Access,
}

impl OllamaOptions {
    /// The usual options for a model on a server.
    #[must_use]
    pub fn new(base: &str, model: &str) -> Self {
        Self {
            base: base.to_owned(),
            model: model.to_owned(),
            key: None,
            num_ctx: None,
            think: Think::Auto,
            keep_alive: KEEP_ALIVE.to_owned(),
            preload: true,
            access: Access::default(),
        }
    }
}

/// One prompt for [`Ollama::generate`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    /// The prompt.
    pub prompt: String,
    /// Instructions, for models whose template has a place for them.
    pub system: Option<String>,
    /// What follows the gap to be filled (needs the capability `insert`).
    pub suffix: Option<String>,
    /// Whether the prompt is to reach the model exactly as it is.
    pub raw: bool,
}

/// A model on an Ollama server.
pub struct Ollama {
    server: Server,
    options: OllamaOptions,
    /// Whether the server can apply a chat template; if not, `/api/generate` gets a plain transcript.
    chat: bool,
    /// Absent where the server must not see it (0.30.0 to 0.30.7 lose the prefix cache by it).
    shift: Option<bool>,
    counts_prompt: bool,
    cloud: bool,
    learned: Shared<Learned>,
    preload: Option<JoinHandle<()>>,
    /// What is to be said of the settings that the model cannot follow.
    unheeded: Vec<String>,
}

impl Drop for Ollama {
    fn drop(&mut self) {
        if let Some(preload) = &self.preload {
            preload.abort();
        }
    }
}

impl Ollama {
    /// Opens a model: one round trip to learn what it is, then loading it begins in the background.
    ///
    /// # Errors
    /// No connection, a model that is not there, or one that cannot generate text.
    pub async fn open(mut options: OllamaOptions) -> Result<Self, Error> {
        let mut server = Server::new(&options.base, options.key.as_ref(), &options.access)?;
        if server.is_cloud() {
            options.model = without_cloud(&options.model).to_owned();
        }
        let (version, show) = tokio::join!(server.version(), server.show(&options.model));
        let named_cloud = is_cloud_name(&options.model);
        let show = match show {
            Ok(show) => Some(show),
            // The server fetches these on first use.
            Err(Error::MissingModel { .. }) if named_cloud => None,
            Err(Error::MissingModel { .. }) if version.is_err() => {
                return Err(Error::Settings(format!(
                    "{} does not answer as an Ollama server does; for another kind name openai:{} and its --base-url",
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
                "{} only makes embeddings; choose a model that writes text",
                options.model
            )));
        }
        // What runs in the cloud has no file on this machine, whatever its name.
        let here = show
            .is_some_and(|show| !show.remote && show.raw["model_info"]["general.architecture"].is_string());
        let cloud = server.is_cloud() || show.is_some_and(|show| show.remote) || (named_cloud && !here);
        if cloud {
            server.hosted(&options.access);
        }
        let mut unheeded = Vec::new();
        let trained = show.and_then(|show| show.trained_window);
        let wanted = options.num_ctx.or(show.and_then(|show| show.own_window)).unwrap_or(DEFAULT_WINDOW);
        // A cloud model runs at its full window whatever is asked (wire reference 1.15).
        let num_ctx = (!cloud).then(|| wanted.min(trained.unwrap_or(u64::MAX)).max(MIN_WINDOW));
        let name = &options.model;
        match (options.num_ctx, trained) {
            (Some(asked), _) if cloud => unheeded.push(format!(
                "{name} runs in Ollama's cloud at its full window; the {asked} tokens asked for are not sent"
            )),
            (Some(asked), Some(trained)) if asked > trained => unheeded.push(format!(
                "{name} was trained for a window of {trained} tokens; that is requested, not the {asked} asked for"
            )),
            _ => {}
        }
        let can_think = show.and_then(|show| show.can("thinking"));
        if can_think == Some(false) && !matches!(options.think, Think::Auto | Think::Off) {
            unheeded.push(format!("{name} has no thinking; the run goes on without it"));
        }
        let think = think_field(&options, can_think);
        let thinking = think.as_ref().is_some_and(|think| *think != Value::Bool(false));
        let parameters_b = show.and_then(|show| show.parameters_b).or_else(|| parameters_in(&options.model));
        let identity = Identity {
            server: String::from("ollama"),
            server_version: version.clone(),
            model: options.model.clone(),
            family: show.and_then(|show| show.family.clone()),
            parameters_b,
            prefers_whole_files: prefers_whole_files(parameters_b),
            window: num_ctx.or(trained),
            local: !cloud && crate::host::is_local(&options.base),
            thinking,
            repeats_thinking: false,
            // With thinking on the schema is not enforced when the model skips its thoughts (wire reference 1.13).
            constrains: !cloud && !thinking,
            // Servers before 0.12.11 ignore the wish for alternatives: then no doubt is reported.
            branches: !cloud && !thinking && show.is_none_or(|show| show.chat_template),
            price: None,
        };
        let number = version.as_deref().map(version_number).unwrap_or_default();
        let mut model = Self {
            chat: show.is_none_or(|show| show.chat_template),
            shift: (!((0, 30, 0)..=(0, 30, 7)).contains(&number)).then_some(false),
            counts_prompt: number != (0, 30, 0),
            cloud,
            learned: Shared::new(Learned {
                num_ctx,
                halved: false,
                think,
                asked_to_think: !matches!(options.think, Think::Auto | Think::Off),
                format: true,
                roles: Roles::default(),
                news: Vec::new(),
                identity,
                digest: None,
                said: Said::default(),
            }),
            server,
            options,
            preload: None,
            unheeded,
        };
        if model.options.preload && !cloud {
            model.preload = Some(model.spawn_preload());
        }
        Ok(model)
    }

    /// Sentences about settings that the model cannot follow, and what is done instead.
    #[must_use]
    pub fn unheeded(&self) -> &[String] {
        &self.unheeded
    }

    /// The server it runs on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Loading starts on its own connection with the exact options of the requests to come. Nobody waits for it: a first request that
    /// arrives meanwhile waits in the server for the same load.
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
            encode(&Generate {
                frozen,
                raw: false,
                system: None,
                prompt: "",
                suffix: None,
                options,
                format: None,
            })
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
            // In the cloud nothing of a runner is one's own to set.
            keep_alive: (!self.cloud).then_some(self.options.keep_alive.as_str()),
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

    fn request_options<'a>(&self, learned: &Learned, request: &'a Request) -> Options<'a> {
        let session = self.session_options(learned);
        Options {
            stop: session.stop.iter().copied().chain(request.stop.as_deref()).collect(),
            num_predict: Some(request.max_tokens),
            temperature: request.temperature,
            // The engine's seeds have 32 bits, and the server's decoder a sign.
            seed: request.seed.map(|seed| (seed & 0x7fff_ffff) as u32),
            ..session
        }
    }

    /// The whole answer in one piece, with `stream: false`: for proxies that cannot stream.
    ///
    /// # Errors
    /// As [`Model::stream`].
    pub async fn complete(&self, request: &Request) -> Result<Answer, Error> {
        collect(self.answer(request, false).await?).await
    }

    async fn answer(&self, request: &Request, stream: bool) -> Result<DeltaStream, Error> {
        if !self.chat {
            let prompt = Prompt { prompt: transcript(&request.messages), raw: true, ..Prompt::default() };
            return self.generate(&prompt, request, stream).await;
        }
        self.send("/api/chat", request, |learned| {
            encode(&Chat {
                frozen: self.frozen(learned, stream),
                messages: learned
                    .roles
                    .shape(&request.messages)
                    .iter()
                    .map(|m| WireMessage::from(&**m))
                    .collect(),
                options: self.request_options(learned, request),
                format: self.format(learned, request),
                logprobs: (request.alternatives > 0).then_some(true),
                top_logprobs: (request.alternatives > 0).then_some(request.alternatives),
            })
        })
        .await
    }

    /// Continues one prompt through `/api/generate`; of `request` everything but the messages counts.
    ///
    /// # Errors
    /// As [`Model::stream`].
    pub async fn generate(
        &self,
        prompt: &Prompt,
        request: &Request,
        stream: bool,
    ) -> Result<DeltaStream, Error> {
        self.send("/api/generate", request, |learned| {
            let mut frozen = self.frozen(learned, stream);
            if prompt.raw {
                frozen.think = None; // nothing parses thoughts out of raw output
            }
            encode(&Generate {
                frozen,
                raw: prompt.raw,
                system: prompt.system.as_deref(),
                prompt: &prompt.prompt,
                suffix: prompt.suffix.as_deref(),
                options: self.request_options(learned, request),
                format: self.format(learned, request),
            })
        })
        .await
    }

    fn format<'a>(&self, learned: &Learned, request: &'a Request) -> Option<&'a Value> {
        request.format.as_ref().filter(|_| learned.format && !self.cloud)
    }

    /// Sends what `body` makes of the current knowledge; a refusal that teaches something is answered by another try.
    async fn send(
        &self,
        path: &str,
        request: &Request,
        body: impl Fn(&Learned) -> Result<Vec<u8>, Error>,
    ) -> Result<DeltaStream, Error> {
        let (constrained, max_tokens) = (request.format.is_some(), request.max_tokens);
        loop {
            let failure = match self.server.http.post(path, body(&self.learned.get())?).await {
                Ok((body, waits)) => {
                    let protocol = OllamaAnswer { counts_prompt: self.counts_prompt };
                    let deltas = answer::bounded(answer::items(body, waits, protocol), max_tokens);
                    let (failed, deltas) = answer::peeked(deltas).await;
                    // Before its first piece an error is a refusal, whatever the status was.
                    let refusal = failed.as_ref().and_then(Failure::of_stream);
                    if refusal.is_some_and(|refusal| self.adapt(&refusal, request, constrained)) {
                        continue;
                    }
                    return Ok(deltas);
                }
                Err(failure) => failure,
            };
            if self.adapt(&failure, request, constrained) {
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
    fn adapt(&self, failure: &Failure, request: &Request, constrained: bool) -> bool {
        self.learned.change(|learned| learned.adapt(failure, constrained, &request.messages))
    }

    /// The model among those in memory, if it is there.
    async fn in_memory(&self) -> Result<Option<LoadedModel>, Error> {
        let name = full_name(&self.options.model);
        let loaded = self.server.loaded(LOOK).await?;
        Ok(loaded.into_iter().find(|model| full_name(&model.name).eq_ignore_ascii_case(&name)))
    }
}

#[async_trait::async_trait]
impl Model for Ollama {
    fn identity(&self) -> Identity {
        self.learned.get().identity
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        self.answer(request, true).await
    }

    async fn verify(&self) -> Vec<String> {
        let name = full_name(&self.options.model);
        let loaded = if self.cloud { None } else { Some(self.in_memory().await) };
        self.learned.change(|learned| {
            let mut warnings = std::mem::take(&mut learned.news);
            warnings.extend(match loaded {
                None => Vec::new(),
                Some(Ok(Some(loaded))) => learned.look_at(&loaded),
                Some(Ok(None)) => {
                    vec![format!("the window could not be checked: {name} is not among the loaded models")]
                }
                Some(Err(why)) => vec![format!("the window could not be checked: {why}")],
            });
            learned.said.news(warnings)
        })
    }

    async fn outlook(&self) -> Result<Option<String>, Error> {
        if self.cloud {
            // The cloud itself goes by the key; a daemon has to be signed in.
            let account = if self.server.is_cloud() { None } else { self.server.account().await? };
            let account = account.map(|name| format!(", signed in as {name}")).unwrap_or_default();
            let window = self.identity().window.map_or_else(|| String::from("its full window"), tokens);
            return Ok(Some(format!("{window} in Ollama's cloud{account}")));
        }
        let Some(wanted) = self.learned.get().num_ctx else { return Ok(None) };
        let now = self.in_memory().await.ok().flatten().and_then(|loaded| loaded.context_length);
        let wanted_now = format!("{} will be requested; verified at the first run", thousands(wanted));
        Ok(Some(match now {
            Some(now) if now == wanted => format!("{}, loaded so already", tokens(now)),
            Some(now) => {
                format!("{wanted_now} (loaded with {} now, so the server will reload it)", thousands(now))
            }
            None => wanted_now,
        }))
    }
}

/// The `think` field of a session: explicit wherever the model has the capability, absent where it has not.
fn think_field(options: &OllamaOptions, capable: Option<bool>) -> Option<Value> {
    // v3.1 puts all its output into the thinking field after the second user turn (wire reference 4).
    let broken = options.model.contains("deepseek-v3.1");
    match (options.think, capable) {
        (_, Some(false)) | (Think::Auto, None) => None,
        (Think::Auto, Some(true)) => Some(Value::Bool(!broken)),
        (think, _) => Some(think.ollama()),
    }
}

fn tokens(count: u64) -> String {
    format!("{} tokens", thousands(count))
}

/// `12,345`.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// The three numbers of a version; what is missing or odd counts as 0.
fn version_number(version: &str) -> (u32, u32, u32) {
    let mut parts =
        version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

fn encode(body: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body)
        .map_err(|why| Error::Refused(format!("the request cannot be written as JSON: {why}")))
}
