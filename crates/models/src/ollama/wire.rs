//! The request bodies for `/api/chat` and `/api/generate`, and the decoder for their answers.
//!
//! Only fields that stay the same throughout a session come before the conversation, so that each
//! request repeats the previous one byte for byte, up to the new messages.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::answer::{Protocol, object};
use crate::frames::Frame;
use crate::{Delta, End, EndReason, Error, Message, Role, Usage};

/// The options sent with every request (docs/model-apis.md#ollama-options). Only the last three
/// fields may change within a session.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) num_ctx: Option<u64>,
    /// 1.0, because higher values penalize the repetition that is normal in code; `None` in the
    /// cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeat_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stop: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) num_predict: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u32>,
}

/// The fields that both endpoints share.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Frozen<'a> {
    pub(super) model: &'a str,
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keep_alive: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shift: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) think: Option<Value>,
}

/// A message as Ollama expects it. Thinking is not sent back, because Ollama's native API drops it
/// and templates strip it (docs/model-apis.md#ollama-thinking).
#[derive(Debug, Serialize)]
pub(super) struct WireMessage<'a> {
    role: Role,
    content: &'a str,
    /// The images, encoded as base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'a str>,
}

impl<'a> From<&'a Message> for WireMessage<'a> {
    fn from(message: &'a Message) -> Self {
        let images = message.images.iter().map(|image| image.base64()).collect();
        Self { role: message.role, content: &message.content, images }
    }
}

/// The body of a request to `/api/chat`.
#[derive(Debug, Serialize)]
pub(super) struct Chat<'a> {
    #[serde(flatten)]
    pub(super) frozen: Frozen<'a>,
    pub(super) messages: Vec<WireMessage<'a>>,
    pub(super) options: Options<'a>,
    /// The JSON Schema for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_logprobs: Option<u8>,
}

/// The body of a request to `/api/generate`.
#[derive(Debug, Serialize)]
pub(super) struct Generate<'a> {
    #[serde(flatten)]
    pub(super) frozen: Frozen<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) raw: bool,
    pub(super) prompt: &'a str,
    pub(super) options: Options<'a>,
    /// The JSON Schema for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<&'a Value>,
}

/// Stop strings for a model without a chat template: the turn markers of DeepSeek Coder's first
/// version, which many base models have seen in training (docs/model-apis.md#deepseek-in-ollama).
pub(super) const STOPS: [&str; 2] = ["### Instruction:", "<|EOT|>"];

/// Renders a conversation as a single raw prompt, which is append-only like the conversation
/// itself.
pub(super) fn transcript(messages: &[Arc<Message>]) -> String {
    let mut prompt = String::new();
    for message in messages {
        match message.role {
            Role::System => prompt.push_str(&message.content),
            Role::User => {
                prompt.push_str("### Instruction:\n");
                prompt.push_str(&message.content);
            }
            Role::Assistant => {
                prompt.push_str("### Response:\n");
                prompt.push_str(&message.content);
            }
        }
        prompt.push('\n');
    }
    prompt.push_str("### Response:\n");
    prompt
}

/// The decoder for one answer.
#[derive(Debug)]
pub(super) struct OllamaAnswer {
    /// Whether to report the server's count of prompt tokens. Ollama 0.30.0 counts only uncached
    /// ones (docs/model-apis.md#ollama-streaming), and a missing count is better than a wrong one.
    pub(super) counts_prompt: bool,
}

impl Protocol for OllamaAnswer {
    type Item = Delta;

    fn frame(&mut self, frame: Frame, out: &mut VecDeque<Delta>) -> Result<(), Error> {
        let Frame::Json(line) = frame else { return Ok(()) };
        let mut line = object(line)?;
        // `/api/generate` has these fields at the top level, but `/api/chat` has them in `message`.
        let in_message = line["message"].is_object();
        let message = if in_message { &mut line["message"] } else { &mut line };
        let calls = message["tool_calls"].take();
        let thinking = message["thinking"].take();
        let content = message[if in_message { "content" } else { "response" }].take();
        if let Value::String(text) = thinking
            && !text.is_empty()
        {
            out.push_back(Delta::Thinking(text));
        }
        if let Value::String(mut text) = content
            && !text.is_empty()
        {
            if let Some((at, doubt)) = crate::doubt::placed(&line["logprobs"], &text) {
                let token = text.split_off(at);
                if at > 0 {
                    out.push_back(Delta::Text(text));
                }
                out.push_back(doubt);
                text = token;
            }
            out.push_back(Delta::Text(text));
        }
        if let Value::Array(calls) = calls {
            out.extend(calls.into_iter().filter_map(read_call));
        }
        if line["done"] == true {
            out.push_back(Delta::End(self.end(&line)?));
        }
        Ok(())
    }
}

impl OllamaAnswer {
    fn end(&self, line: &Value) -> Result<End, Error> {
        let reason = match line["done_reason"].as_str() {
            // Older servers do not send this field.
            None | Some("stop") => EndReason::Stop,
            Some("length") => EndReason::Length,
            Some(other) => {
                return Err(Error::Unavailable {
                    message: format!("the server ended the answer with the unknown reason {other:?}"),
                    retry_after: None,
                });
            }
        };
        let milliseconds = |key: &str| line[key].as_f64().map(|nanoseconds| nanoseconds / 1e6);
        let usage = Usage {
            prompt_tokens: line["prompt_eval_count"].as_u64().filter(|_| self.counts_prompt),
            cached_tokens: None,
            generated_tokens: line["eval_count"].as_u64(),
            prompt_ms: milliseconds("prompt_eval_duration"),
            generation_ms: milliseconds("eval_duration"),
            load_ms: milliseconds("load_duration"),
        };
        Ok(End { reason, usage })
    }
}

fn read_call(mut call: Value) -> Option<Delta> {
    let function = call.get_mut("function")?;
    let name = function["name"].as_str()?.to_owned();
    let arguments = match function["arguments"].take() {
        // Some proxies send a string, as OpenAI does.
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        other => other,
    };
    Some(Delta::ToolCall { name, arguments })
}
