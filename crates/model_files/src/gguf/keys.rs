//! Reads the keys and values, which precede the tensors. Keeps those that a [`super::Header`] needs
//! and skips the rest.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::Fault;
use super::input::Input;
use super::types::{self, I8, I16, I32, I64, LIST, TEXT, U8, U16, U32, U64};

/// The architectures that the engine accepts: those of DeepSeek, Qwen and other open models for
/// code and chat. llama.cpp supports about a hundred more.
pub const ARCHITECTURES: &[&str] = &[
    "apertus",
    "bailingmoe2",
    "chatglm",
    "codeshell",
    "cohere2",
    "command-r",
    "deepseek",
    "deepseek2",
    "deepseek32",
    "deepseek4",
    "ernie4_5",
    "ernie4_5-moe",
    "exaone4",
    "falcon-h1",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "glm4",
    "glm4moe",
    "glm-dsa",
    "gpt-oss",
    "granite",
    "granitehybrid",
    "granitemoe",
    "internlm2",
    "jamba",
    "kimi-linear",
    "lfm2",
    "lfm2moe",
    "llama",
    "llama4",
    "minicpm",
    "minicpm3",
    "minimax-m2",
    "mistral3",
    "mistral4",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "olmo2",
    "olmoe",
    "phi2",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen35",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder",
    "starcoder2",
];

/// The maximum number of keys. Real files have about 40.
const MAX_KEYS: u64 = 4_096;
/// The maximum length of a key, in bytes. Real keys are shorter than 100.
const MAX_KEY: u64 = 1_024;
/// The maximum length of an architecture, model or tokenizer name, in bytes.
const MAX_NAME: u64 = 1_024;
/// The maximum length of the chat template, in bytes. Long templates are about 30 kB.
const MAX_TEMPLATE: u64 = 1 << 20;
/// The maximum number of layers (`LLAMA_MAX_LAYERS`).
const MAX_LAYERS: u64 = 512;
/// The maximum alignment, in bytes. The usual alignment is 32. A file with a huge alignment would
/// be mostly padding.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// The default alignment, in bytes, for files that do not specify one.
const ALIGNMENT: u64 = 32;
/// The maximum value of a context window, head count or similar number. Real values are below 20
/// million.
const MAX_NUMBER: u64 = 1 << 32;

/// A value that a header may need.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    /// One number per layer.
    Numbers(Vec<u64>),
    Text(String),
    /// The length of a skipped list.
    Length(u64),
    /// A value that was skipped or that is not valid for any header field.
    Other,
}

/// A single number for all layers, or one per layer.
pub(super) enum PerLayer {
    All(u64),
    Each(Vec<u64>),
}

impl PerLayer {
    pub(super) fn widest(&self) -> u64 {
        match self {
            PerLayer::All(number) => *number,
            PerLayer::Each(numbers) => numbers.iter().copied().max().unwrap_or(0),
        }
    }

    pub(super) fn sum(&self, layers: u64) -> u64 {
        match self {
            PerLayer::All(number) => number.saturating_mul(layers),
            PerLayer::Each(numbers) => numbers.iter().fold(0, |sum, number| sum.saturating_add(*number)),
        }
    }
}

/// The keys and values of a file.
pub(super) struct Keys {
    values: HashMap<String, Value>,
    architecture: String,
}

impl Keys {
    /// Reads `count` pairs.
    pub(super) fn read<R: Read + Seek>(input: &mut Input<R>, count: u64) -> Result<Self, Fault> {
        if count > MAX_KEYS {
            return Err(Fault::TooLarge {
                what: String::from("the number of keys"),
                value: count,
                limit: MAX_KEYS,
            });
        }
        input.has(count, 13, "the list of keys")?;
        let mut values = HashMap::new();
        for _ in 0..count {
            let key = input.text(MAX_KEY, "a key")?;
            if key.is_empty() {
                return Err(Fault::Value { key, why: String::from("is empty") });
            }
            let number = input.u32(&key)?;
            let value = value(input, &key, number)?;
            if let Some(Value::Number(files @ 2..)) = (key == "split.count").then_some(&value) {
                return Err(Fault::Split(*files));
            }
            if values.insert(key.clone(), value).is_some() {
                return Err(Fault::Duplicate(format!("the key `{key}`")));
            }
        }
        let architecture = match values.get("general.architecture") {
            Some(Value::Text(name)) if !name.is_empty() => name.clone(),
            Some(_) => return Err(mistyped("general.architecture")),
            None => return Err(Fault::Missing(String::from("general.architecture"))),
        };
        let keys = Self { values, architecture };
        match keys.values.get("tokenizer.ggml.model") {
            Some(Value::Text(_)) => Ok(keys),
            Some(_) => Err(mistyped("tokenizer.ggml.model")),
            None => Err(Fault::Missing(String::from("tokenizer.ggml.model"))),
        }
    }

    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.text("general.name")
    }

    pub(super) fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    pub(super) fn file_type(&self) -> Result<Option<&'static str>, Fault> {
        Ok(self.number("general.file_type", MAX_NUMBER)?.and_then(types::file_type))
    }

    pub(super) fn alignment(&self) -> Result<u64, Fault> {
        let key = "general.alignment";
        match self.number(key, MAX_ALIGNMENT)? {
            None => Ok(ALIGNMENT),
            Some(alignment) if alignment.is_power_of_two() => Ok(alignment),
            Some(other) => {
                Err(Fault::Value { key: key.into(), why: format!("is {other}, not a power of two") })
            }
        }
    }

    pub(super) fn window(&self) -> Result<u64, Fault> {
        self.positive("context_length", MAX_NUMBER)
    }

    pub(super) fn layers(&self) -> Result<u64, Fault> {
        self.positive("block_count", MAX_LAYERS)
    }

    pub(super) fn embedding(&self) -> Result<u64, Fault> {
        self.positive("embedding_length", MAX_NUMBER)
    }

    pub(super) fn key_length(&self) -> Result<Option<u64>, Fault> {
        self.number(&self.own("attention.key_length"), MAX_NUMBER)
    }

    pub(super) fn value_length(&self) -> Result<Option<u64>, Fault> {
        self.number(&self.own("attention.value_length"), MAX_NUMBER)
    }

    pub(super) fn heads(&self) -> Result<PerLayer, Fault> {
        Ok(self.per_layer("attention.head_count")?.unwrap_or(PerLayer::All(0)))
    }

    /// Returns the number of key/value heads. Defaults to the number of attention heads if the file
    /// does not specify it.
    pub(super) fn kv_heads(&self) -> Result<PerLayer, Fault> {
        match self.per_layer("attention.head_count_kv")? {
            Some(heads) => Ok(heads),
            None => self.heads(),
        }
    }

    pub(super) fn vocabulary(&self) -> Result<u64, Fault> {
        let key = "tokenizer.ggml.tokens";
        match self.values.get(key) {
            Some(Value::Length(length @ 1..)) => Ok(*length),
            Some(_) => Err(mistyped(key)),
            None => Err(Fault::Missing(key.to_owned())),
        }
    }

    /// Returns the full name of an architecture-specific key.
    fn own(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::Text(text)) if !text.trim().is_empty() => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str, limit: u64) -> Result<Option<u64>, Fault> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Number(number)) => within(*number, key, limit).map(Some),
            Some(_) => Err(mistyped(key)),
        }
    }

    fn positive(&self, key: &str, limit: u64) -> Result<u64, Fault> {
        let key = self.own(key);
        match self.number(&key, limit)? {
            Some(0) => Err(Fault::Value { key, why: String::from("is 0") }),
            Some(number) => Ok(number),
            None => Err(Fault::Missing(key)),
        }
    }

    fn per_layer(&self, key: &str) -> Result<Option<PerLayer>, Fault> {
        let key = self.own(key);
        match self.values.get(&key) {
            Some(Value::Numbers(numbers)) => {
                if numbers.len() as u64 != self.layers()? {
                    return Err(Fault::Value {
                        key,
                        why: format!("has {} values, not one per layer", numbers.len()),
                    });
                }
                let each = numbers.iter().map(|number| within(*number, &key, MAX_NUMBER));
                Ok(Some(PerLayer::Each(each.collect::<Result<_, _>>()?)))
            }
            _ => Ok(self.number(&key, MAX_NUMBER)?.map(PerLayer::All)),
        }
    }
}

fn within(number: u64, key: &str, limit: u64) -> Result<u64, Fault> {
    if number <= limit {
        return Ok(number);
    }
    Err(Fault::TooLarge { what: format!("`{key}`"), value: number, limit })
}

fn mistyped(key: &str) -> Fault {
    Fault::Value { key: key.to_owned(), why: String::from("has a value of the wrong type") }
}

/// Reads a value, or skips it if no header needs it.
fn value<R: Read + Seek>(input: &mut Input<R>, key: &str, number: u32) -> Result<Value, Fault> {
    let unknown = |number: u32| Fault::Value {
        key: key.to_owned(),
        why: format!("has a value of the unknown type {number}"),
    };
    match number {
        TEXT => match key {
            "general.architecture" | "general.name" | "tokenizer.ggml.model" => {
                input.text(MAX_NAME, &format!("the value of `{key}`")).map(Value::Text)
            }
            "tokenizer.chat_template" => {
                input.text(MAX_TEMPLATE, &format!("the value of `{key}`")).map(Value::Text)
            }
            _ => input.skip_text(key).map(|()| Value::Other),
        },
        LIST => {
            let of = input.u32(key)?;
            let length = input.u64(key)?;
            match types::value_bytes(of) {
                Some(size) if is_whole(of) && length <= MAX_LAYERS => {
                    input.has(length, size, key)?;
                    let numbers = (0..length).map(|_| whole(input, key, of));
                    // No header field is a list with negative numbers.
                    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
                    let numbers: Option<Vec<u64>> = numbers.into_iter().collect();
                    Ok(numbers.map_or(Value::Length(length), Value::Numbers))
                }
                Some(size) => input.skip(length, size, key).map(|()| Value::Length(length)),
                None if of == TEXT => {
                    input.has(length, 8, key)?;
                    for _ in 0..length {
                        input.skip_text(key)?;
                    }
                    Ok(Value::Length(length))
                }
                None => Err(unknown(of)),
            }
        }
        _ if is_whole(number) => Ok(whole(input, key, number)?.map_or(Value::Other, Value::Number)),
        _ => {
            let size = types::value_bytes(number).ok_or_else(|| unknown(number))?;
            input.skip(1, size, key).map(|()| Value::Other)
        }
    }
}

fn is_whole(number: u32) -> bool {
    matches!(number, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
}

/// Reads an integer. Returns `None` if it is negative.
fn whole<R: Read + Seek>(input: &mut Input<R>, key: &str, number: u32) -> Result<Option<u64>, Fault> {
    let signed = match number {
        U8 => return Ok(Some(input.bytes::<1>(key)?[0].into())),
        U16 => return Ok(Some(u16::from_le_bytes(input.bytes(key)?).into())),
        U32 => return Ok(Some(input.u32(key)?.into())),
        U64 => return Ok(Some(input.u64(key)?)),
        I8 => i8::from_le_bytes(input.bytes(key)?).into(),
        I16 => i16::from_le_bytes(input.bytes(key)?).into(),
        I32 => i32::from_le_bytes(input.bytes(key)?).into(),
        _ => i64::from_le_bytes(input.bytes(key)?),
    };
    Ok(u64::try_from(signed).ok())
}
