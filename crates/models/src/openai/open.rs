//! Opens a model on an OpenAI-compatible server and sends requests to it.

use std::sync::Arc;
use std::time::SystemTime;

use reqwest::Method;
use serde_json::{Value, json};

use super::detect::{self, Found, Kind};
use super::learned::{Current, Learned, OPTIONAL, RESPONSE_FORMAT};
use super::shape;
use super::wire::{Chat, OpenAiAnswer, Reasoning, ResponseFormat, WireMessage};
use crate::answer::{self, encode};
use crate::failure::Failure;
use crate::http::{Http, Secret};
use crate::price::Prices;
use crate::profile::{About, Profiles};
use crate::shared::Shared;
use crate::size::parameters_in;
use crate::{Access, DeltaStream, Error, Identity, Message, Model, Request, Think, host};

/// DeepSeek's default model (docs/model-apis.md#deepseek-models).
const DEEPSEEK_MODEL: &str = "deepseek-flash";

/// Safety margin, in tokens, because the prompt count in a refusal may be slightly too low.
const ROOM_MARGIN: u64 = 16;

/// The smallest useful answer, in tokens. With less room, the conversation must be compacted.
const LEAST_ROOM: u32 = 256;

/// How to open a model. All of these options are frozen for the session.
#[derive(Debug, Clone, Default)]
pub struct OpenAiOptions {
    /// The endpoint; see [`host::openai_base`].
    pub base: String,
    /// The model's name. If `None`, a loaded model is used or, if none is loaded, the first one
    /// that the server lists.
    pub model: Option<String>,
    /// The API key.
    pub key: Option<Secret>,
    /// The kind of server, if it is known in advance, as it is for a proxy in front of DeepSeek's
    /// platform.
    pub kind: Option<Kind>,
    /// The context window, in tokens. It is used as is if the server does not report a window, and
    /// as an upper limit if it does.
    pub window: Option<u64>,
    /// Whether and how much the model should think.
    pub think: Think,
    /// The profiles of model families. They supply the window and the thinking setting if the
    /// fields above do not.
    pub profiles: Profiles,
    /// The prices of hosted models.
    pub prices: Prices,
    /// How to reach the server.
    pub access: Access,
}

impl OpenAiOptions {
    /// Returns the default options for an endpoint.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self { base: base.to_owned(), ..Self::default() }
    }
}

/// The result of opening an endpoint.
pub enum Opened {
    /// A model.
    Model(Box<OpenAi>),
    /// An Ollama server, to be used through its native API
    /// (docs/model-apis.md#ollama-openai-layer).
    Ollama {
        /// Its base URL, without `/v1`.
        base: String,
        /// Its version.
        version: String,
    },
}

/// A model on an OpenAI-compatible server.
pub struct OpenAi {
    http: Http,
    kind: Kind,
    options: OpenAiOptions,
    /// Whether the server ignores the temperature because thinking is enabled
    /// (docs/model-apis.md#deepseek-requests).
    ignores_temperature: bool,
    learned: Shared<Learned>,
    /// The model's name, as given in the last answer.
    answers: Arc<Shared<Option<String>>>,
    /// Warnings about settings that the model does not support, and about prices that may be wrong.
    unsupported: Vec<String>,
}

impl OpenAi {
    /// Detects the server and opens a model on it, in one round trip. Opening a model on DeepSeek's
    /// platform requires no requests at all. A server known from an earlier run is sent only the
    /// probes for its kind.
    ///
    /// # Errors
    /// If there is no connection, the key is refused, the server is still loading, or the model is
    /// missing.
    pub async fn open(mut options: OpenAiOptions) -> Result<Opened, Error> {
        options.base = detect::api_base(&options.base);
        let http = Http::new(&options.base, options.key.as_ref(), &options.access)?;
        let server = match detect::detect(&http, options.kind, &options.access.memory).await? {
            Found::Ollama { version } => {
                return Ok(Opened::Ollama { base: host::root(&options.base).into_owned(), version });
            }
            Found::Server(server) => server,
        };
        let kind = server.kind;
        let writes = |model: &&detect::Listed| !model.id.to_lowercase().contains("embed");
        let loaded = server.models.iter().filter(writes).find(|model| model.loaded);
        let first = loaded.or(server.models.iter().find(writes)).map(|model| model.id.clone());
        let model = match (options.model.clone(), first) {
            (Some(model), _) => model,
            (None, _) if kind == Kind::DeepSeek => DEEPSEEK_MODEL.to_owned(),
            (None, Some(first)) => first,
            (None, None) => {
                if let Some(refusal) = server.unlisted {
                    return Err(refusal);
                }
                return Err(Error::Settings(format!(
                    "{} does not list its models; name one with --model",
                    http.base()
                )));
            }
        };
        let listed = server.models.iter().find(|listed| listed.id == model);
        // Only vLLM's list proves that a model is missing: llama-server serves its one model under
        // any name, LM Studio loads on demand, and the lists of other servers may be incomplete.
        if listed.is_none() && kind == Kind::Vllm {
            return Err(missing(
                http.base(),
                &model,
                server.models.into_iter().map(|model| model.id).collect(),
            ));
        }
        let listed = listed.or(server.models.first().filter(|_| kind == Kind::LlamaServer));
        let reported = server.window.or(listed.and_then(|listed| listed.window));
        let parameters_b = listed.and_then(|listed| listed.parameters_b).or_else(|| parameters_in(&model));
        let profile = options.profiles.resolve(About { name: &model, parameters_b, server: kind.name() });
        options.think = profile.think(options.think);
        let can_think = server.thinks || is_reasoner(&model);
        // Only llama-server reports its template.
        let cannot_think = kind == Kind::LlamaServer && server.templated && !can_think;
        let wants_thinking = !matches!(options.think, Think::Auto | Think::Off);
        let thinks = if wants_thinking { !cannot_think } else { options.think == Think::Auto && can_think };
        let mut unsupported = Vec::new();
        if wants_thinking && cannot_think {
            options.think = Think::Auto;
            unsupported.push(format!("{model} does not support thinking; the run continues without it"));
        }
        if let (Some(reported), Some(requested)) = (reported, options.window)
            && requested > reported
        {
            unsupported.push(format!(
                "the server runs {model} with a window of {reported} tokens; the agent uses that instead of {requested}"
            ));
        }
        options.window = options.window.or(profile.window());
        let known = options.prices.find(kind.name(), &model);
        let sees_images = server.sees_images.or(listed.and_then(|listed| listed.sees_images));
        let sees_images = known.as_ref().and_then(|known| known.sees_images).or(sees_images);
        let price = known.map(|known| known.price);
        unsupported.extend(price.as_ref().and_then(|price| price.unknown_holidays(SystemTime::now())));
        let mut identity = Identity {
            server: kind.name().to_owned(),
            server_version: server.version,
            parameters_b,
            window: reported.into_iter().chain(options.window).min(),
            local: host::is_local(&options.base),
            thinking: thinks,
            repeats_thinking: kind == Kind::DeepSeek,
            branches: kind == Kind::LlamaServer && !thinks,
            can_constrain: kind.constrains() && !thinks,
            slots: server.slots.filter(|slots| *slots > 0),
            sees_images,
            price,
            model: model.clone(),
            ..Identity::default()
        };
        profile.describe(&mut identity);
        options.model = Some(model.clone());
        let reasoning = if kind == Kind::DeepSeek { Reasoning::Kept } else { Reasoning::Dropped };
        let mut learned = Learned { reasoning, identity, file: server.file, ..Learned::default() };
        let known = options.access.memory.recall(http.base());
        let known = known.filter(|known| known.server == kind.name());
        if let Some(kept) =
            known.and_then(|known| known.models.get(&remembered_as(&learned, &model)).cloned())
        {
            learned.recall(&kept);
        }
        Ok(Opened::Model(Box::new(Self {
            http,
            kind,
            ignores_temperature: kind == Kind::DeepSeek && thinks,
            options,
            learned: Shared::new(learned),
            answers: Arc::new(Shared::new(None)),
            unsupported,
        })))
    }

    /// Returns warnings about prices that may be wrong, and about settings that the model does not
    /// support. A warning about a setting says what happens instead.
    #[must_use]
    pub fn unsupported(&self) -> &[String] {
        &self.unsupported
    }

    /// Returns the names of the models that the server lists.
    ///
    /// # Errors
    /// If there is no connection, or if the server does not list its models.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let url = self.http.url("/models");
        let list = self.http.json(Method::GET, &url, None, std::time::Duration::from_secs(30)).await?;
        Ok(shape::listing(&list).into_iter().map(|model| model.id).collect())
    }

    /// Sends a request. If a refusal reveals something new about the server, changes the request
    /// and retries.
    async fn send(&self, request: &Request) -> Result<DeltaStream, Error> {
        // The tokens left for the answer, if the server reports how many the prompt takes.
        let mut room = None;
        loop {
            let learned = self.learned.get();
            let stream = !learned.whole;
            let limits = [Some(request.max_tokens), learned.cap, room];
            let limit = limits.into_iter().flatten().min().unwrap_or(request.max_tokens);
            let request = &Request { max_tokens: limit, ..request.clone() };
            let messages = learned.roles.shape(&request.messages);
            let body = encode(&self.body(&learned, request, &messages, stream))?;
            let failure = match self.http.post("/chat/completions", body).await {
                Ok(response) => {
                    let protocol = OpenAiAnswer::new(self.kind == Kind::Vllm, Arc::clone(&self.answers));
                    // LM Studio and some gateways report a refusal inside a response with status
                    // 200.
                    let (failed, refusal, deltas) =
                        answer::start(response, protocol, request.max_tokens).await;
                    if refusal.is_some_and(|refusal| self.adapt(&refusal, &learned, request, stream)) {
                        continue;
                    }
                    if failed.is_none() {
                        self.remember(&learned);
                    }
                    return Ok(deltas);
                }
                Err(failure) => failure,
            };
            if self.adapt(&failure, &learned, request, stream) {
                continue;
            }
            if let Some((window, prompt)) = failure.room().filter(|_| room.is_none()) {
                self.learned.change(|learned| learned.identity.window = Some(window));
                // The count leaves out the few tokens that the chat template adds.
                let left = window.saturating_sub(prompt + ROOM_MARGIN);
                room = u32::try_from(left).ok().filter(|left| *left >= LEAST_ROOM);
                if room.is_some() {
                    continue;
                }
            }
            if matches!(failure.status(), Some(404 | 405)) {
                self.options.access.memory.forget(self.http.base());
            }
            let unknown = ["model not exist", "model_not_found", "does not exist", "model not found"];
            let missing_model = failure.names(&unknown) || failure.status() == Some(404);
            let model = self.model();
            return Err(match Error::from(failure) {
                error @ (Error::MissingModel { .. } | Error::Refused(_) | Error::Settings(_))
                    if missing_model =>
                {
                    match self.list().await {
                        Ok(available)
                            if !available.is_empty() && !available.iter().any(|name| name == model) =>
                        {
                            missing(self.http.base(), model, available)
                        }
                        _ => error,
                    }
                }
                error => error,
            });
        }
    }

    fn adapt(&self, failure: &Failure, learned: &Learned, request: &Request, stream: bool) -> bool {
        let sent = self.sent(learned, request, stream);
        self.learned.change(|learned| learned.adapt(failure, &sent, &request.messages, request.max_tokens))
    }

    /// Records what the server refuses, for later runs. Called after a request has succeeded.
    fn remember(&self, learned: &Learned) {
        let kept = learned.kept();
        let changed = self.learned.change(|learned| {
            let changed = learned.kept_before != kept;
            learned.kept_before.clone_from(&kept);
            changed
        });
        if changed {
            let (base, model) = (self.http.base(), remembered_as(learned, self.model()));
            self.options.access.memory.learned(base, self.kind.name(), &model, kept);
        }
    }

    fn model(&self) -> &str {
        self.options.model.as_deref().unwrap_or_default()
    }

    fn body<'a>(
        &'a self,
        learned: &Learned,
        request: &'a Request,
        messages: &'a [Arc<Message>],
        stream: bool,
    ) -> Chat<'a> {
        let keep = |field: &str| !learned.dropped.contains(field);
        let llama = |field: &str| (self.kind == Kind::LlamaServer && stream && keep(field)).then_some(true);
        let (cap, completion_cap) = if learned.completion_tokens {
            (None, Some(request.max_tokens))
        } else {
            (Some(request.max_tokens), None)
        };
        Chat {
            model: self.model(),
            stream,
            stream_options: (stream && keep("stream_options")).then(|| match self.kind {
                // With `continuous_usage_stats`, a turn's counts are known even if the turn is cut
                // short.
                Kind::Vllm => json!({ "include_usage": true, "continuous_usage_stats": true }),
                _ => json!({ "include_usage": true }),
            }),
            thinking: self.thinking().filter(|_| keep("thinking")),
            reasoning_effort: self.options.think.level().filter(|_| keep("reasoning_effort")),
            chat_template_kwargs: self.template_switch().filter(|_| keep("chat_template_kwargs")),
            cache_prompt: llama("cache_prompt"),
            return_progress: llama("return_progress"),
            timings_per_token: llama("timings_per_token"),
            messages: messages
                .iter()
                .map(|message| WireMessage::new(message, learned.reasoning, learned.content_parts))
                .collect(),
            max_tokens: cap,
            max_completion_tokens: completion_cap,
            temperature: request.temperature.filter(|_| keep("temperature") && !self.ignores_temperature),
            // Seeds are 32 bits wide in every engine, and signed in some.
            seed: request.seed.filter(|_| keep("seed")).map(|seed| (seed & 0x7fff_ffff) as u32),
            response_format: request
                .constraint
                .as_deref()
                .filter(|_| learned.identity.can_constrain && keep(RESPONSE_FORMAT))
                .map(ResponseFormat::new),
            logprobs: (request.alternatives > 0 && keep("logprobs")).then_some(true),
            top_logprobs: (request.alternatives > 0 && keep("logprobs")).then_some(request.alternatives),
        }
    }

    /// Returns DeepSeek's thinking switch. Thinking is on by default, so only an explicit setting
    /// is sent.
    fn thinking(&self) -> Option<Value> {
        let kind = match self.options.think {
            _ if self.kind != Kind::DeepSeek => return None,
            Think::Auto => return None,
            Think::Off => "disabled",
            _ => "enabled",
        };
        Some(json!({ "type": kind }))
    }

    /// Returns the thinking switch for chat templates. Two names for it are in use
    /// (docs/model-apis.md#vllm); a template ignores the one that it does not know.
    fn template_switch(&self) -> Option<Value> {
        let switched =
            matches!(self.kind, Kind::LlamaServer | Kind::Vllm) && self.options.think != Think::Auto;
        let on = self.options.think != Think::Off;
        switched.then(|| json!({ "enable_thinking": on, "thinking": on }))
    }

    /// Returns the names of the optional fields in a request.
    fn sent(&self, learned: &Learned, request: &Request, stream: bool) -> Vec<&'static str> {
        let body = serde_json::to_value(self.body(learned, request, &[], stream)).unwrap_or_default();
        OPTIONAL.iter().map(|(field, _)| *field).filter(|field| body.get(field).is_some()).collect()
    }
}

/// Returns the name that the memory stores a model under. llama-server accepts any name for its
/// model, so the model's file is used there instead.
fn remembered_as(learned: &Learned, model: &str) -> String {
    learned.file.clone().unwrap_or_else(|| model.to_owned())
}

fn missing(base: &str, model: &str, available: Vec<String>) -> Error {
    let message = format!("{base} does not have the model {model}; it has {}", available.join(", "));
    Error::MissingModel { message, available }
}

/// Returns whether a model's name suggests that the model can think, for servers that do not report
/// it.
fn is_reasoner(model: &str) -> bool {
    let model = model.to_lowercase();
    ["deepseek-r1", "reasoner", "thinking", "qwq"].iter().any(|word| model.contains(word))
}

#[async_trait::async_trait]
impl Model for OpenAi {
    fn identity(&self) -> Identity {
        let learned = self.learned.get();
        let refused = learned.dropped.contains(RESPONSE_FORMAT);
        Identity { can_constrain: learned.identity.can_constrain && !refused, ..learned.identity }
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        self.send(request).await
    }

    async fn verify(&self) -> Vec<String> {
        let known = self.learned.get().identity.window;
        let current = match self.kind {
            // LM Studio loads a model on the first request and has no window to report before that.
            Kind::LmStudio if known.is_none() => {
                match detect::detect(&self.http, None, &self.options.access.memory).await {
                    Ok(Found::Server(server)) => Current {
                        window: server
                            .models
                            .iter()
                            .find(|model| model.id == self.model())
                            .and_then(|m| m.window),
                        file: None,
                    },
                    _ => Current::default(),
                }
            }
            // llama-server may have been restarted with a different model or window under the same
            // name.
            Kind::LlamaServer => match detect::props(&self.http).await {
                Some((window, file)) => Current { window, file },
                None => Current::default(),
            },
            _ => Current::default(),
        };
        let answers = self.answers.get();
        self.learned.change(|learned| learned.check(current, answers, self.options.window))
    }
}
