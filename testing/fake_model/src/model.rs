//! The models a fake server has, and which of them are loaded with what.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A model on the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// Name with its tag.
    pub name: String,
    /// Subset of `completion`, `tools`, `thinking`, `insert`, `vision`.
    pub capabilities: Vec<String>,
    /// Trained context length, in tokens: no window is larger.
    pub context: u64,
    /// Architecture as in the model's metadata (`llama`, `qwen2`, `deepseek2`).
    pub family: String,
    /// As Ollama shows it (`6.7B`).
    pub parameter_size: String,
    /// As Ollama shows it.
    pub quantization: String,
    /// Bytes on disk.
    pub size: u64,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self::new("deepseek-coder:6.7b")
    }
}

impl ModelSpec {
    /// A plain completion model with a trained context of 16,384 tokens.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            capabilities: vec!["completion".into()],
            context: 16_384,
            family: "llama".into(),
            parameter_size: "6.7B".into(),
            quantization: "Q4_0".into(),
            size: 3_827_834_503,
        }
    }

    /// With one more capability.
    pub fn with(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// With native tool calls.
    pub fn tools(self) -> Self {
        self.with("tools")
    }

    /// With thinking in its own field.
    pub fn thinking(self) -> Self {
        self.with("thinking")
    }

    /// With another trained context length.
    pub fn context(mut self, tokens: u64) -> Self {
        self.context = tokens;
        self
    }

    /// With another architecture and size.
    pub fn family(mut self, family: impl Into<String>, parameter_size: impl Into<String>) -> Self {
        self.family = family.into();
        self.parameter_size = parameter_size.into();
        self
    }

    /// Whether it has the capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|have| have == capability)
    }

    /// What an Ollama server has that nothing else was said about: one model of each kind in wire reference 4.
    pub(crate) fn ollama_defaults() -> Vec<Self> {
        vec![
            Self::new("deepseek-coder:6.7b"),
            Self::new("deepseek-r1:8b").thinking().context(131_072).family("qwen3", "8.2B"),
            Self::new("deepseek-v3.1:671b").tools().thinking().context(163_840).family("deepseek2", "671B"),
            Self::new("qwen2.5-coder:1.5b").tools().with("insert").context(32_768).family("qwen2", "1.5B"),
        ]
    }

    /// Digest made of the name: stable, and of the right form.
    pub(crate) fn digest(&self) -> String {
        let mut text = String::new();
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for round in 0..4u8 {
            for byte in self.name.bytes().chain([round]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            text.push_str(&format!("{hash:016x}"));
        }
        text
    }

    pub(crate) fn details(&self) -> Value {
        json!({
            "parent_model": "", "format": "gguf", "family": self.family, "families": [self.family],
            "parameter_size": self.parameter_size, "quantization_level": self.quantization,
        })
    }
}

/// A name with its tag: `x` is `x:latest`.
pub fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// A model in memory, and with what it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The model's full name.
    pub model: String,
    /// The window in force, in tokens.
    pub num_ctx: u64,
    /// The other runner options that a change of means a reload (wire reference 1.5), and `shift`.
    pub runner: Map<String, Value>,
    /// How long it stays, as the last request said; `None` for the server's default.
    pub keep_alive: Option<Value>,
}

impl Loaded {
    /// Whether it is unloaded as soon as it is idle: `keep_alive` is 0, as a number or as a duration (`0`, `0s`).
    pub(crate) fn leaves_at_once(&self) -> bool {
        match &self.keep_alive {
            Some(Value::String(text)) => text.trim_end_matches(|c: char| c.is_alphabetic()) == "0",
            Some(value) => value.as_f64() == Some(0.0),
            None => false,
        }
    }

    /// Whether it never leaves by itself: `keep_alive` is negative.
    pub(crate) fn stays_forever(&self) -> bool {
        match &self.keep_alive {
            Some(Value::String(text)) => text.starts_with('-'),
            Some(value) => value.as_f64().is_some_and(|seconds| seconds < 0.0),
            None => false,
        }
    }
}
