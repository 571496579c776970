//! Opening a model on an OpenAI-compatible server, and talking to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::detect::{self, Found, Kind};
use super::learned::{Learned, Now, OPTIONAL};
use super::prices::price;
use super::wire::{Chat, OpenAiAnswer, Reasoning, WireMessage};
use crate::http::{Http, Secret, Timeouts};
use crate::shared::{Said, Shared};
use crate::size::parameters_in;
use crate::{Answer, DeltaStream, Error, Identity, Model, Request, Think, answer, collect, host};

/// The one name of DeepSeek's that is assumed, when none is given (wire reference 2.1).
const DEEPSEEK_MODEL: &str = "deepseek-flash";

/// How to open a model. Everything in it is frozen for the session.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// The endpoint, see [`host::openai_base`].
    pub base: String,
    /// The model's name; `None` takes the server's first.
    pub model: Option<String>,
    /// The API key.
    pub key: Option<Secret>,
    /// What the server is, where that is known without asking: a proxy in front of DeepSeek's platform, for one.
    pub kind: Option<Kind>,
    /// The window to assume where the server does not tell, and not to exceed where it does, in tokens.
    pub window: Option<u64>,
    /// Thinking.
    pub think: Think,
    /// `None`: what suits the host.
    pub timeouts: Option<Timeouts>,
}

impl OpenAiOptions {
    /// The usual options for an endpoint.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            model: None,
            key: None,
            kind: None,
            window: None,
            think: Think::Auto,
            timeouts: None,
        }
    }
}

/// What opening an endpoint gave.
pub enum Opened {
    /// A model.
    Model(Box<OpenAi>),
    /// The server is an Ollama: its native API is the one to use (wire reference 1.14).
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
    /// Whether thinking is on and the server ignores the temperature then (wire reference 2.2).
    ignores_temperature: bool,
    learned: Shared<Learned>,
    /// The name by which the model that answered last calls itself.
    answers: Arc<Shared<Option<String>>>,
}

impl OpenAi {
    /// Finds out what the server is and opens a model on it: one round trip, none for DeepSeek's platform.
    ///
    /// # Errors
    /// No connection, a refused key, a server that is still loading, or a model that is not there.
    pub async fn open(mut options: OpenAiOptions) -> Result<Opened, Error> {
        options.base = detect::api_base(&options.base);
        let timeouts = options.timeouts.unwrap_or_else(|| Timeouts::for_base(&options.base));
        let http = Http::new(&options.base, options.key.as_ref(), timeouts)?;
        let server = match detect::detect(&http, options.kind).await? {
            Found::Ollama { version } => {
                return Ok(Opened::Ollama { base: host::root(&options.base).into_owned(), version });
            }
            Found::Server(server) => server,
        };
        let kind = server.kind;
        let first = server.models.first().map(|model| model.id.clone());
        let model = match (options.model.clone(), first) {
            (Some(model), _) => model,
            (None, _) if kind == Kind::DeepSeek => DEEPSEEK_MODEL.to_owned(),
            (None, Some(first)) => first,
            (None, None) => {
                return Err(Error::Settings(format!("{} does not list its models; name one", http.base())));
            }
        };
        let listed = server.models.iter().find(|listed| listed.id == model);
        // llama-server serves its one model under any name, LM Studio loads on demand, lists of others may be partial.
        if listed.is_none() && kind == Kind::Vllm {
            return Err(missing(
                http.base(),
                &model,
                server.models.into_iter().map(|model| model.id).collect(),
            ));
        }
        let listed = listed.or(server.models.first().filter(|_| kind == Kind::LlamaServer));
        let told = server.window.or(listed.and_then(|listed| listed.window));
        let thinks = match options.think {
            Think::Auto => server.thinks || is_reasoner(&model),
            think => think != Think::Off,
        };
        let identity = Identity {
            server: kind.name().to_owned(),
            server_version: server.version,
            family: None,
            parameters_b: listed.and_then(|listed| listed.parameters_b).or_else(|| parameters_in(&model)),
            window: told.into_iter().chain(options.window).min(),
            local: host::is_local(&options.base),
            thinking: thinks,
            constrains: kind != Kind::DeepSeek,
            branches: kind == Kind::LlamaServer && !thinks,
            price: if kind == Kind::DeepSeek { price(&model) } else { None },
            model: model.clone(),
        };
        options.model = Some(model);
        let reasoning = if kind == Kind::DeepSeek { Reasoning::Kept } else { Reasoning::Dropped };
        let learned = Learned {
            dropped: BTreeSet::new(),
            completion_tokens: false,
            reasoning,
            identity,
            answered: None,
            file: server.file,
            said: Said::default(),
        };
        Ok(Opened::Model(Box::new(Self {
            http,
            kind,
            ignores_temperature: kind == Kind::DeepSeek && thinks,
            options,
            learned: Shared::new(learned),
            answers: Arc::new(Shared::new(None)),
        })))
    }

    /// What kind of server it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The models that the server lists.
    ///
    /// # Errors
    /// No connection, or a server that has no list.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let url = self.http.url("/models");
        let list = self.http.json(Method::GET, &url, None, std::time::Duration::from_secs(30)).await?;
        let names = list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// The whole answer in one piece, with `stream: false`: for proxies that cannot stream.
    ///
    /// # Errors
    /// As [`Model::stream`].
    pub async fn complete(&self, request: &Request) -> Result<Answer, Error> {
        collect(self.send(request, false).await?).await
    }

    async fn send(&self, request: &Request, stream: bool) -> Result<DeltaStream, Error> {
        loop {
            let learned = self.learned.get();
            let body = serde_json::to_vec(&self.body(&learned, request, stream))
                .map_err(|why| Error::Refused(format!("the request cannot be written as JSON: {why}")))?;
            let failure = match self.http.post("/chat/completions", body).await {
                Ok((body, first_byte)) => {
                    let idle = self.http.timeouts.idle;
                    let protocol = OpenAiAnswer::new(self.kind == Kind::Vllm, Arc::clone(&self.answers));
                    return Ok(answer::bounded(
                        answer::items(body, first_byte, idle, protocol),
                        request.max_tokens,
                    ));
                }
                Err(failure) => failure,
            };
            let sent = self.sent(&learned, request, stream);
            if self.learned.change(|learned| learned.adapt(&failure, &sent)) {
                continue;
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

    fn model(&self) -> &str {
        self.options.model.as_deref().unwrap_or_default()
    }

    fn body<'a>(&'a self, learned: &Learned, request: &'a Request, stream: bool) -> Chat<'a> {
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
                // So that the counts of a turn are known when it is cut.
                Kind::Vllm => json!({ "include_usage": true, "continuous_usage_stats": true }),
                _ => json!({ "include_usage": true }),
            }),
            thinking: self.thinking().filter(|_| keep("thinking")),
            reasoning_effort: self.options.think.level().filter(|_| keep("reasoning_effort")),
            chat_template_kwargs: self.template_switch().filter(|_| keep("chat_template_kwargs")),
            cache_prompt: llama("cache_prompt"),
            return_progress: llama("return_progress"),
            timings_per_token: llama("timings_per_token"),
            messages: request.messages.iter().map(|message| WireMessage::new(message, learned.reasoning)).collect(),
            max_tokens: cap,
            max_completion_tokens: completion_cap,
            temperature: request.temperature.filter(|_| keep("temperature") && !self.ignores_temperature),
            // Seeds have 32 bits in every engine, and a sign in some.
            seed: request.seed.filter(|_| keep("seed")).map(|seed| (seed & 0x7fff_ffff) as u32),
            response_format: request.format.as_ref().filter(|_| keep("response_format")).map(|schema| match self.kind {
                Kind::DeepSeek => json!({ "type": "json_object" }),
                _ => json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } }),
            }),
            logprobs: (request.alternatives > 0 && keep("logprobs")).then_some(true),
            top_logprobs: (request.alternatives > 0 && keep("logprobs")).then_some(request.alternatives),
            stop: request.stop.as_deref(),
        }
    }

    /// DeepSeek's switch: on by default, so only a wish is sent.
    fn thinking(&self) -> Option<Value> {
        let kind = match self.options.think {
            _ if self.kind != Kind::DeepSeek => return None,
            Think::Auto => return None,
            Think::Off => "disabled",
            _ => "enabled",
        };
        Some(json!({ "type": kind }))
    }

    /// The switch of templates: two names are in use (wire reference 3.2), each ignores the other's.
    fn template_switch(&self) -> Option<Value> {
        let switched =
            matches!(self.kind, Kind::LlamaServer | Kind::Vllm) && self.options.think != Think::Auto;
        let on = self.options.think != Think::Off;
        switched.then(|| json!({ "enable_thinking": on, "thinking": on }))
    }

    /// The names of the optional fields that a request had.
    fn sent(&self, learned: &Learned, request: &Request, stream: bool) -> Vec<&'static str> {
        let body = serde_json::to_value(self.body(learned, request, stream)).unwrap_or_default();
        OPTIONAL.iter().map(|(field, _)| *field).filter(|field| body.get(field).is_some()).collect()
    }
}

fn missing(base: &str, model: &str, available: Vec<String>) -> Error {
    let message = format!("{base} does not have the model {model}; it has {}", available.join(", "));
    Error::MissingModel { message, available }
}

/// Models whose name says that they think, for servers that do not tell.
fn is_reasoner(model: &str) -> bool {
    let model = model.to_lowercase();
    ["deepseek-r1", "reasoner", "thinking", "qwq"].iter().any(|word| model.contains(word))
}

#[async_trait::async_trait]
impl Model for OpenAi {
    fn identity(&self) -> Identity {
        self.learned.get().identity
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        self.send(request, true).await
    }

    async fn verify(&self) -> Vec<String> {
        let known = self.learned.get().identity.window;
        let now = match self.kind {
            // It loads a model on its first request and only then has a window to tell.
            Kind::LmStudio if known.is_none() => match detect::detect(&self.http, None).await {
                Ok(Found::Server(server)) => Now {
                    window: server
                        .models
                        .iter()
                        .find(|model| model.id == self.model())
                        .and_then(|m| m.window),
                    file: None,
                },
                _ => Now::default(),
            },
            // It can be started again with another model or window under the same name.
            Kind::LlamaServer => match detect::props(&self.http).await {
                Some((window, file)) => Now { window, file },
                None => Now::default(),
            },
            _ => Now::default(),
        };
        let answers = self.answers.get();
        self.learned.change(|learned| learned.look_at(now, answers, self.options.window))
    }
}
