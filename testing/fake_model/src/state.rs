//! The state that all connections of a server share: configuration, script, records, gates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::model::{Loaded, ModelSpec};
use crate::record::{Outcome, ReplyRecord, Request};
use crate::reply::{Entry, Reply};
use crate::tokens::PrefixCache;

/// The server to imitate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// Ollama's native API, with its `/v1` layer (docs/model-apis.md#ollama).
    #[default]
    Ollama,
    /// DeepSeek's platform (docs/model-apis.md#deepseek).
    Deepseek,
    /// vLLM (docs/model-apis.md#vllm).
    Vllm,
    /// llama.cpp's server (docs/model-apis.md#llama-server).
    LlamaServer,
    /// LM Studio (docs/model-apis.md#lm-studio).
    LmStudio,
    /// An OpenAI-compatible server that no probe detects.
    Generic,
}

impl Personality {
    /// All personalities, with their names in JSON and on the command line.
    pub const ALL: [(&str, Self); 6] = [
        ("ollama", Self::Ollama),
        ("deepseek", Self::Deepseek),
        ("vllm", Self::Vllm),
        ("llama-server", Self::LlamaServer),
        ("lm-studio", Self::LmStudio),
        ("generic", Self::Generic),
    ];

    fn default_models(self) -> Vec<ModelSpec> {
        match self {
            Self::Ollama => ModelSpec::ollama_defaults(),
            Self::Deepseek => ["deepseek-flash", "deepseek-v4-pro"]
                .map(|name| {
                    let model = ModelSpec::new(name).tools().thinking().context(1_048_576);
                    if name.contains("flash") { model.with("vision") } else { model }
                })
                .to_vec(),
            Self::Vllm => {
                vec![ModelSpec::new("deepseek-ai/DeepSeek-V3.1").tools().thinking().context(131_072)]
            }
            Self::LlamaServer => {
                vec![ModelSpec::new("qwen2.5-coder-1.5b").tools().context(32_768).family("qwen2", "1.5B")]
            }
            Self::LmStudio => vec![ModelSpec::new("deepseek-r1-distill-qwen-7b").context(131_072)],
            Self::Generic => vec![ModelSpec::new("some-model").tools().context(32_768)],
        }
    }

    /// Returns how many generations run at a time. Any others wait.
    fn default_parallel(self) -> usize {
        match self {
            Self::Ollama | Self::LlamaServer => 1,
            _ => 64,
        }
    }
}

/// The configuration of a server. Also the top level of a script file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server to imitate.
    pub personality: Personality,
    /// The version that it reports. Each personality has a default.
    pub version: Option<String>,
    /// Its models. Each personality has defaults.
    pub models: Option<Vec<ModelSpec>>,
    /// Models that can be pulled (Ollama).
    pub pullable: Vec<ModelSpec>,
    /// The window for requests that do not set one. Defaults to 4096 on Ollama, and to the trained
    /// context elsewhere.
    pub num_ctx: Option<u64>,
    /// How many generations run at a time. Defaults to 1 on Ollama and llama-server, and to 64
    /// elsewhere.
    pub parallel: Option<usize>,
    /// The required API key. If it is `None`, DeepSeek accepts any key, and the other servers do
    /// not require one.
    pub api_key: Option<String>,
    /// Answer `Loading model` (503) until the `loaded` gate is released (llama-server).
    pub loading: bool,
    /// Ignore the token limits of requests.
    pub ignore_limits: bool,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) slots: Semaphore,
    pub(crate) parallel: usize,
    /// The start time. Reported times are in milliseconds since then.
    pub(crate) started: Instant,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) models: Vec<ModelSpec>,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) loads: Vec<Loaded>,
    pub(crate) cache: PrefixCache,
    pub(crate) script: VecDeque<Entry>,
    pub(crate) by_path: BTreeMap<String, VecDeque<Entry>>,
    pub(crate) fallback: Option<Entry>,
    pub(crate) requests: Vec<Request>,
    pub(crate) replies: Vec<ReplyRecord>,
    pub(crate) connections: usize,
    pub(crate) released: BTreeSet<String>,
    pub(crate) reached: BTreeSet<String>,
    pub(crate) calls: usize,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let models = config.models.clone().unwrap_or_else(|| config.personality.default_models());
        let models = models
            .into_iter()
            .map(|mut model| {
                if config.personality == Personality::Ollama {
                    model.name = crate::model::with_tag(&model.name);
                }
                model
            })
            .collect();
        let parallel = config.parallel.unwrap_or_else(|| config.personality.default_parallel()).max(1);
        Self {
            config,
            slots: Semaphore::new(parallel),
            parallel,
            started: Instant::now(),
            inner: Mutex::new(Inner { models, ..Inner::default() }),
            changed: watch::Sender::new(0),
        }
    }

    /// Locks the state.
    pub(crate) fn read(&self) -> MutexGuard<'_, Inner> {
        // Poisoning can be ignored: the state is consistent after every statement, and the panic
        // that caused it fails its own test.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all waiters.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let value = change(&mut self.read());
        self.changed.send_modify(|version| *version += 1);
        value
    }

    /// Waits until `answer` returns a value for the state.
    pub(crate) async fn until<T>(&self, mut answer: impl FnMut(&Inner) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(value) = answer(&self.read()) {
                return value;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) async fn pass_gate(&self, name: &str) {
        self.change(|inner| inner.reached.insert(name.to_owned()));
        self.until(|inner| inner.released.contains(name).then_some(())).await;
    }

    /// Returns the next scripted reply for a generation.
    pub(crate) fn next_reply(&self, request: &Request) -> Reply {
        let entry = self.change(|inner| inner.script.pop_front().or_else(|| inner.fallback.clone()));
        match entry {
            Some(entry) => entry.reply(request),
            None => Reply::error(
                500,
                format!("fake model: the script is used up; request {} has no reply", request.index),
            ),
        }
    }

    /// Returns the next reply scripted for this path.
    pub(crate) fn next_reply_for(&self, request: &Request) -> Option<Reply> {
        let entry = self.change(|inner| inner.by_path.get_mut(&request.path)?.pop_front())?;
        Some(entry.reply(request))
    }

    pub(crate) fn record<T>(&self, index: usize, change: impl FnOnce(&mut ReplyRecord) -> T) -> Option<T> {
        self.change(|inner| inner.replies.get_mut(index).map(change))
    }

    pub(crate) fn record_end(&self, index: usize, outcome: Outcome) {
        self.record(index, |record| record.ended = Some((outcome, Instant::now())));
    }

    /// Returns a unique id for a tool call.
    pub(crate) fn call_id(&self) -> String {
        self.change(|inner| {
            inner.calls += 1;
            format!("call_{:08x}", inner.calls)
        })
    }

    /// Returns the requests starting with number `first`, as JSON.
    pub(crate) fn requests_json(&self, first: usize) -> Vec<serde_json::Value> {
        self.read().requests.iter().skip(first).map(|request| request.to_json(self.started)).collect()
    }
}

// The conditions that tests wait for with `Shared::until`.

pub(crate) fn enough_requests(n: usize) -> impl FnMut(&Inner) -> Option<Vec<Request>> {
    move |inner| (inner.requests.len() >= n).then(|| inner.requests.clone())
}

pub(crate) fn enough_chats(n: usize) -> impl FnMut(&Inner) -> Option<Vec<Request>> {
    move |inner| {
        let chats: Vec<&Request> = inner.requests.iter().filter(|request| request.is_chat()).collect();
        (chats.len() >= n).then(|| chats.into_iter().cloned().collect())
    }
}

pub(crate) fn gate_reached(gate: &str) -> impl FnMut(&Inner) -> Option<()> + use<> {
    let gate = gate.to_owned();
    move |inner| inner.reached.contains(&gate).then_some(())
}

pub(crate) fn request_ended(index: usize) -> impl FnMut(&Inner) -> Option<ReplyRecord> {
    move |inner| inner.replies.get(index).filter(|reply| reply.ended.is_some()).cloned()
}

pub(crate) fn chat_ended(i: usize) -> impl FnMut(&Inner) -> Option<ReplyRecord> {
    move |inner| {
        let request = inner.requests.iter().filter(|request| request.is_chat()).nth(i)?;
        inner.replies.get(request.index).filter(|reply| reply.ended.is_some()).cloned()
    }
}
