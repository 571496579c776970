//! The models of a fake server and their load options.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A model on the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// The name with its tag.
    pub name: String,
    /// The capabilities that Ollama reports, a subset of `completion`, `tools`, `thinking`,
    /// `insert` and `vision`.
    pub capabilities: Vec<String>,
    /// The context length that the model was trained for, in tokens. This is an upper limit on the
    /// window.
    pub context: u64,
    /// The architecture in the model's metadata (`llama`, `qwen2`, `deepseek2`).
    pub family: String,
    /// The size as Ollama reports it (`6.7B`).
    pub parameter_size: String,
    /// The quantization as Ollama reports it.
    pub quantization: String,
    /// The size on disk, in bytes.
    pub size: u64,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self::new("deepseek-coder:6.7b")
    }
}

impl ModelSpec {
    /// Creates a plain completion model that was trained for a context of 16,384 tokens.
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

    /// Adds a capability.
    pub fn with(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Adds native tool calls.
    pub fn tools(self) -> Self {
        self.with("tools")
    }

    /// Adds thinking in its own field.
    pub fn thinking(self) -> Self {
        self.with("thinking")
    }

    /// Sets the context length that the model was trained for.
    pub fn context(mut self, tokens: u64) -> Self {
        self.context = tokens;
        self
    }

    /// Sets the architecture and size.
    pub fn family(mut self, family: impl Into<String>, parameter_size: impl Into<String>) -> Self {
        self.family = family.into();
        self.parameter_size = parameter_size.into();
        self
    }

    /// Returns whether the model has this capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|have| have == capability)
    }

    /// Returns the default models of an Ollama server: one of each kind in
    /// docs/model-apis.md#deepseek-in-ollama.
    pub(crate) fn ollama_defaults() -> Vec<Self> {
        vec![
            Self::new("deepseek-coder:6.7b"),
            Self::new("deepseek-r1:8b").thinking().context(131_072).family("qwen3", "8.2B"),
            Self::new("deepseek-v3.1:671b").tools().thinking().context(163_840).family("deepseek2", "671B"),
            Self::new("qwen2.5-coder:1.5b").tools().with("insert").context(32_768).family("qwen2", "1.5B"),
        ]
    }

    /// Returns a digest in Ollama's format, computed from the name so that it is the same in every
    /// run.
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

/// Adds the `latest` tag to a name without a tag.
pub fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// A loaded model and the options it was loaded with.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The model's full name.
    pub model: String,
    /// The window in effect, in tokens.
    pub num_ctx: u64,
    /// The other options that cause a reload if they change (docs/model-apis.md#ollama-options),
    /// including `shift`.
    pub runner: Map<String, Value>,
    /// The `keep_alive` of the last request, or `None` for the server's default.
    pub keep_alive: Option<Value>,
}

impl Loaded {
    /// Returns whether the model is unloaded as soon as it is idle, that is, whether `keep_alive`
    /// is a number or duration of zero (`0`, `0s`).
    pub(crate) fn leaves_at_once(&self) -> bool {
        match &self.keep_alive {
            Some(Value::String(text)) => text.trim_end_matches(|c: char| c.is_alphabetic()) == "0",
            Some(value) => value.as_f64() == Some(0.0),
            None => false,
        }
    }

    /// Returns whether the model stays loaded indefinitely, that is, whether `keep_alive` is
    /// negative.
    pub(crate) fn stays_forever(&self) -> bool {
        match &self.keep_alive {
            Some(Value::String(text)) => text.starts_with('-'),
            Some(value) => value.as_f64().is_some_and(|seconds| seconds < 0.0),
            None => false,
        }
    }
}
