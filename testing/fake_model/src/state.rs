//! What all connections of a server share: configuration, script, records, gates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::model::{Loaded, ModelSpec};
use crate::record::{Outcome, ReplyRecord, Request};
use crate::reply::{Entry, Reply};
use crate::tokens::PrefixCache;

/// Which server is played.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// Ollama's native API, with its `/v1` layer (wire reference 1).
    #[default]
    Ollama,
    /// DeepSeek's platform (wire reference 2).
    Deepseek,
    /// vLLM (wire reference 3.2).
    Vllm,
    /// llama.cpp's server (wire reference 3.3).
    LlamaServer,
    /// LM Studio (wire reference 3.4).
    LmStudio,
    /// An OpenAI-compatible server that no probe recognises.
    Generic,
}

impl Personality {
    /// All of them, with the names they have in JSON and on the command line.
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
                .map(|name| ModelSpec::new(name).tools().thinking().context(1_048_576))
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

    /// How many generations run at a time; others wait without a byte.
    fn default_parallel(self) -> usize {
        match self {
            Self::Ollama | Self::LlamaServer => 1,
            _ => 64,
        }
    }
}

/// How a server is set up. Also the head of a script file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which server is played.
    pub personality: Personality,
    /// The version it names; each personality has its own default.
    pub version: Option<String>,
    /// The models it has; each personality has its own defaults.
    pub models: Option<Vec<ModelSpec>>,
    /// Models that a pull finds (Ollama).
    pub pullable: Vec<ModelSpec>,
    /// The window when a request names none; 4096 on Ollama, the trained context elsewhere.
    pub num_ctx: Option<u64>,
    /// Generations at a time: 1 on Ollama and llama-server, 64 elsewhere.
    pub parallel: Option<usize>,
    /// The key that must be sent; without it DeepSeek takes any and the others none.
    pub api_key: Option<String>,
    /// Answer `Loading model` (503) until the gate `loaded` is released (llama-server).
    pub loading: bool,
    /// Do not cut a reply at the request's token limit.
    pub ignore_limits: bool,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) slots: Semaphore,
    pub(crate) parallel: usize,
    /// All times given out as numbers count from here.
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

    /// The state, for reading.
    pub(crate) fn read(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere is that test's failure; the state itself is consistent after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let value = change(&mut self.read());
        self.changed.send_modify(|version| *version += 1);
        value
    }

    /// Waits until the state answers.
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

    /// The next scripted reply for a generation.
    pub(crate) fn next_reply(&self, request: &Request) -> Reply {
        let entry = self.change(|inner| inner.script.pop_front().or_else(|| inner.fallback.clone()));
        match entry {
            Some(entry) => entry.reply(request),
            None => Reply::error(
                500,
                format!("fake model: the script is exhausted; request {} has no reply", request.index),
            ),
        }
    }

    /// The next reply scripted for this very path.
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

    /// A tool call's id, never given twice.
    pub(crate) fn call_id(&self) -> String {
        self.change(|inner| {
            inner.calls += 1;
            format!("call_{:08x}", inner.calls)
        })
    }

    /// The requests from `first` on as JSON.
    pub(crate) fn requests_json(&self, first: usize) -> Vec<serde_json::Value> {
        self.read().requests.iter().skip(first).map(|request| request.to_json(self.started)).collect()
    }
}
