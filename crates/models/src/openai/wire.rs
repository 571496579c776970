//! The request body for `/chat/completions`, and the decoder for its answer.
//!
//! As with Ollama, only fields that stay the same throughout a session come before the
//! conversation. The others come after it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::calls::Calls;
use super::content::{content, thoughts};
use crate::answer::{Protocol, object};
use crate::frames::Frame;
use crate::shared::Shared;
use crate::{Delta, End, EndReason, Error, Message, Role, Usage};

/// A request body. Fields that are `None` are omitted.
#[derive(Debug, Serialize)]
pub(super) struct Chat<'a> {
    pub(super) model: &'a str,
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chat_template_kwargs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_prompt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) return_progress: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timings_per_token: Option<bool>,
    pub(super) messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_logprobs: Option<u8>,
}

/// The JSON Schema that an answer must conform to (docs/model-apis.md#openai-structured-outputs).
#[derive(Debug, Serialize)]
pub(super) struct ResponseFormat<'a> {
    r#type: &'static str,
    json_schema: NamedSchema<'a>,
}

#[derive(Debug, Serialize)]
struct NamedSchema<'a> {
    name: &'static str,
    strict: bool,
    schema: &'a Value,
}

impl<'a> ResponseFormat<'a> {
    pub(super) fn new(schema: &'a Value) -> Self {
        Self { r#type: "json_schema", json_schema: NamedSchema { name: "answer", strict: true, schema } }
    }
}

/// Which assistant messages are sent back with a reasoning field
/// (docs/model-apis.md#deepseek-reasoning).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// None: templates drop the field, and DeepSeek's first reasoning API rejected
    /// requests that included it.
    #[default]
    Dropped,
    /// The messages that have reasoning.
    Kept,
    /// All messages. The field is an empty string if the message has no reasoning.
    Everywhere,
    /// All messages. The field is a placeholder if the message has no reasoning, because some
    /// gateways refuse an empty string.
    Filled,
}

/// The placeholder for missing reasoning.
const NO_REASONING: &str = "(not kept)";

/// A message's content: a string, or a list for servers that accept only lists and for messages
/// with images.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Debug, Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Debug, Serialize)]
pub(super) struct WireMessage<'a> {
    role: Role,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
}

impl<'a> WireMessage<'a> {
    pub(super) fn new(message: &'a Message, reasoning: Reasoning, parts: bool) -> Self {
        let thinking = message.thinking.as_deref();
        let reasoning_content = match reasoning {
            _ if message.role != Role::Assistant => None,
            Reasoning::Dropped => None,
            Reasoning::Kept => thinking,
            Reasoning::Everywhere => Some(thinking.unwrap_or_default()),
            Reasoning::Filled => Some(thinking.filter(|text| !text.is_empty()).unwrap_or(NO_REASONING)),
        };
        let text = message.content.as_str();
        let content = if parts || !message.images.is_empty() {
            let images = message.images.iter();
            let images = images.map(|image| Part::ImageUrl { image_url: ImageUrl { url: image.url() } });
            Content::Parts([Part::Text { text }].into_iter().chain(images).collect())
        } else {
            Content::Text(text)
        };
        Self { role: message.role, content, reasoning_content }
    }
}

/// The state of one answer.
#[derive(Debug, Default)]
pub(super) struct OpenAiAnswer {
    /// Whether every chunk includes counts. If so, only the counts in a chunk without choices are
    /// final.
    continuous: bool,
    /// Whether any text, reasoning or call has arrived.
    content: bool,
    finished: Option<EndReason>,
    usage: Usage,
    /// Tool calls being assembled.
    calls: Calls,
    /// Where to store the name of the model that answers. `None` once it has been stored.
    name: Option<Arc<Shared<Option<String>>>>,
}

impl Protocol for OpenAiAnswer {
    type Item = Delta;

    fn frame(&mut self, frame: Frame, out: &mut VecDeque<Delta>) -> Result<(), Error> {
        let Frame::Json(chunk) = frame else {
            // Some proxies leave out the finish reason. After content, the end marker proves
            // completion; without content, it proves nothing.
            if self.finished.is_none() && self.content {
                self.finish("stop", out)?;
            }
            return match self.settled() {
                Some(end) => {
                    out.push_back(end);
                    Ok(())
                }
                None => {
                    Err(Error::Transport(String::from("the server ended the stream without a finish reason")))
                }
            };
        };
        let mut chunk = object(chunk)?;
        if let Some(name) = chunk["model"].as_str().filter(|name| !name.is_empty())
            && let Some(answers) = self.name.take()
        {
            answers.change(|answers| *answers = Some(name.to_owned()));
        }
        self.progress(&chunk["prompt_progress"], out);
        let has_counts = self.count(&chunk, out);
        let has_choice = chunk["choices"].get(0).is_some();
        if let Some(choice) = chunk["choices"].get_mut(0) {
            let reason = choice["finish_reason"].take();
            let part = if choice["delta"].is_object() { "delta" } else { "message" };
            out.extend(crate::doubt::read(&choice["logprobs"]["content"], &choice[part]["content"]));
            let before = out.len();
            self.content(choice[part].take(), out)?;
            // Completion-style servers and their proxies send the text alongside an empty delta, or
            // instead of one.
            if out.len() == before
                && let Value::String(text) = choice["text"].take()
                && !text.is_empty()
            {
                out.push_back(Delta::Text(text));
            }
            self.content |= out.len() > before;
            if let Value::String(reason) = reason {
                self.finish(&reason, out)?;
            }
        }
        let last_counts = has_counts && (!self.continuous || !has_choice);
        if last_counts && let Some(end) = self.settled() {
            out.push_back(end);
        }
        Ok(())
    }

    fn settled(&self) -> Option<Delta> {
        Some(Delta::End(End { reason: self.finished?, usage: self.usage }))
    }
}

impl OpenAiAnswer {
    /// Creates the state for a new answer. `name` receives the name of the model that answers.
    pub(super) fn new(continuous: bool, name: Arc<Shared<Option<String>>>) -> Self {
        Self { continuous, name: Some(name), ..Self::default() }
    }

    /// Reads llama-server's `prompt_progress`, which counts cached tokens as processed.
    fn progress(&mut self, progress: &Value, out: &mut VecDeque<Delta>) {
        if let (Some(processed), Some(total)) = (progress["processed"].as_u64(), progress["total"].as_u64()) {
            self.usage.prompt_tokens = Some(total);
            self.usage.cached_tokens = progress["cache"].as_u64().or(self.usage.cached_tokens);
            out.push_back(Delta::Usage(self.usage));
            out.push_back(Delta::Progress { processed, total });
        }
    }

    /// Reads counts and emits them before the text of the same chunk, so that they are known even
    /// if the answer is cut off after that text. Returns whether the chunk has a `usage` field.
    fn count(&mut self, chunk: &Value, out: &mut VecDeque<Delta>) -> bool {
        let before = self.usage;
        let timings = &chunk["timings"];
        // During prompt evaluation, the timings cover only the part of the prompt evaluated so far.
        if timings.is_object() && chunk["prompt_progress"].is_null() {
            let cached = timings["cache_n"].as_u64();
            let evaluated = timings["prompt_n"].as_u64();
            self.usage.cached_tokens = cached.or(self.usage.cached_tokens);
            // Older servers do not report the cached part, so the sum is unknown.
            self.usage.prompt_tokens = cached.zip(evaluated).map(|(c, e)| c + e).or(self.usage.prompt_tokens);
            self.usage.generated_tokens = timings["predicted_n"].as_u64().or(self.usage.generated_tokens);
            self.usage.prompt_ms = timings["prompt_ms"].as_f64().or(self.usage.prompt_ms);
            self.usage.generation_ms = timings["predicted_ms"].as_f64().or(self.usage.generation_ms);
        }
        let counts = &chunk["usage"];
        if counts.is_object() {
            let cached = whole(&counts["prompt_cache_hit_tokens"])
                .or(whole(&counts["prompt_tokens_details"]["cached_tokens"]))
                .or(whole(&counts["cached_tokens"]));
            self.usage.cached_tokens = cached.or(self.usage.cached_tokens);
            self.usage.prompt_tokens = whole(&counts["prompt_tokens"]).or(self.usage.prompt_tokens);
            self.usage.generated_tokens = whole(&counts["completion_tokens"]).or(self.usage.generated_tokens);
        }
        if self.usage != before {
            out.push_back(Delta::Usage(self.usage));
        }
        counts.is_object()
    }

    fn content(&mut self, mut part: Value, out: &mut VecDeque<Delta>) -> Result<(), Error> {
        // vLLM and Ollama call the field `reasoning` (docs/model-apis.md#vllm). A server that sends
        // both fields sends the same text in each.
        let fields = ["reasoning_content", "reasoning", "reasoning_details"];
        let beside = fields.iter().map(|key| thoughts(&part[*key])).find(|text| !text.is_empty());
        let (mut text, inside) = content(part["content"].take());
        if text.is_empty() {
            text = content(part["text"].take()).0;
        }
        out.extend(beside.or(Some(inside)).filter(|text| !text.is_empty()).map(Delta::Thinking));
        if !text.is_empty() {
            out.push_back(Delta::Text(text));
        }
        let fragments = match (part["tool_calls"].take(), part["function_call"].take()) {
            (Value::Array(fragments), _) => fragments,
            // Some servers still use `function_call`, the predecessor of `tool_calls`.
            (_, function @ Value::Object(_)) => vec![json!({ "index": 0, "function": function })],
            _ => return Ok(()),
        };
        self.calls.add(&fragments, out)
    }

    fn finish(&mut self, reason: &str, out: &mut VecDeque<Delta>) -> Result<(), Error> {
        let failed =
            |message: &str| Err(Error::Unavailable { message: message.to_owned(), retry_after: None });
        let reason = match reason.to_ascii_lowercase().as_str() {
            "length"
            | "max_tokens"
            | "max_output_tokens"
            | "max_completion_tokens"
            | "model_length"
            | "token_limit" => EndReason::Length,
            "content_filter" => {
                return Err(Error::Refused(String::from("the server's content filter stopped the answer")));
            }
            "insufficient_system_resource" => {
                return failed("the server ran out of resources during the answer");
            }
            "abort" | "error" => return failed("the server aborted the answer"),
            _ => EndReason::Stop,
        };
        self.calls.finish(reason, out);
        self.finished = Some(reason);
        Ok(())
    }
}

/// Reads a whole number, which may be encoded as a float.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Item;

    fn run(chunks: &[Value]) -> Result<Vec<Delta>, Error> {
        let mut answer = OpenAiAnswer::default();
        let mut out = VecDeque::new();
        for chunk in chunks {
            let frame = if chunk == "DONE" { Frame::Done } else { Frame::Json(chunk.clone()) };
            answer.frame(frame, &mut out)?;
        }
        Ok(out.into())
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    #[test]
    fn a_native_call_is_emitted_when_complete_and_dropped_if_truncated() {
        let first = delta(
            json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]}),
        );
        let second = delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}));
        let other = delta(json!({"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": ""}}]}));
        let mut seen = run(&[first.clone(), second, other.clone()]).unwrap();
        assert_eq!(seen, [Delta::ToolCall { name: String::from("f"), arguments: json!({"x": 1}) }]);

        let finish = |reason: &str| json!({"choices": [{"delta": {}, "finish_reason": reason}]});
        let old = |part: Value| delta(json!({ "function_call": part }));
        let pieces = [old(json!({"name": "f", "arguments": "{\"x\""})), old(json!({"arguments": ": 1}"}))];
        seen = run(&[&pieces[..], &[finish("function_call")]].concat()).unwrap();
        assert_eq!(seen, [Delta::ToolCall { name: String::from("f"), arguments: json!({"x": 1}) }]);

        seen = run(&[other, finish("tool_calls")]).unwrap();
        assert_eq!(seen, [Delta::ToolCall { name: String::from("g"), arguments: json!({}) }]);
        assert_eq!(run(&[first, finish("length")]).unwrap(), [], "a truncated call should be dropped");
    }

    #[test]
    fn an_answer_ends_with_the_final_counts_or_with_the_end_marker() {
        let finish =
            json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "usage": null});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}});
        let seen = run(&[finish.clone(), usage]).unwrap();
        let usage = Usage {
            prompt_tokens: Some(5),
            cached_tokens: Some(4),
            generated_tokens: Some(1),
            ..Usage::default()
        };
        let end = |usage| Delta::End(End { reason: EndReason::Stop, usage });
        assert_eq!(seen, [Delta::Text(String::from("a")), Delta::Usage(usage), end(usage)]);

        assert_eq!(run(&[finish, json!("DONE")]).unwrap().last(), Some(&end(Usage::default())));
        let bare = run(&[delta(json!({"content": "a"})), json!("DONE")]).unwrap();
        assert_eq!(
            bare.last(),
            Some(&end(Usage::default())),
            "the marker ends an answer without a finish reason"
        );
        assert!(matches!(run(&[delta(json!({"content": ""})), json!("DONE")]), Err(Error::Transport(_))));
    }

    #[test]
    fn counts_with_every_chunk_do_not_end_the_stream_early() {
        let with = |mut chunk: Value, generated: u64, cached: Option<u64>| {
            chunk["usage"] = json!({"prompt_tokens": 5, "completion_tokens": generated, "prompt_tokens_details": cached.map(|c| json!({"cached_tokens": c}))});
            chunk
        };
        let finish = json!({"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]});
        let mut answer = OpenAiAnswer { continuous: true, ..OpenAiAnswer::default() };
        let mut out = VecDeque::new();
        for chunk in [with(delta(json!({"content": "a"})), 1, None), with(finish, 2, None)] {
            answer.frame(Frame::Json(chunk), &mut out).unwrap();
        }
        assert!(!out.iter().any(Delta::is_end));
        answer.frame(Frame::Json(with(json!({"choices": []}), 2, Some(4))), &mut out).unwrap();
        assert!(matches!(out.back(), Some(Delta::End(End { usage, .. })) if usage.cached_tokens == Some(4)));
    }

    #[test]
    fn reasoning_is_read_once_under_either_name() {
        for part in [
            json!({"reasoning_content": "r", "content": null}),
            json!({"reasoning": "r"}),
            json!({"reasoning": "r", "reasoning_content": "r", "content": ""}),
        ] {
            assert_eq!(run(&[delta(part)]).unwrap(), [Delta::Thinking(String::from("r"))]);
        }
    }

    #[test]
    fn content_and_reasoning_in_parts_and_text_outside_the_delta_are_read() {
        let text = |text: &str| Delta::Text(text.to_owned());
        let thinking = |text: &str| Delta::Thinking(text.to_owned());
        let parts =
            json!([{"type": "text", "text": "a"}, "b", {"type": "output_text", "text": {"value": "c"}}]);
        assert_eq!(run(&[delta(json!({"content": parts}))]).unwrap(), [text("abc")]);
        let thought = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]);
        assert_eq!(run(&[delta(json!({"content": thought}))]).unwrap(), [thinking("hm"), text("x")]);
        let details = json!({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]});
        assert_eq!(run(&[delta(details)]).unwrap(), [thinking("hm")]);
        for choice in [
            json!({"text": "x", "finish_reason": null}),
            json!({"text": "x", "delta": {}}),
            json!({"text": "x", "delta": {"role": "assistant", "content": ""}}),
            json!({"text": "x", "delta": {"content": "x"}}),
            json!({"delta": {"text": "x"}}),
        ] {
            assert_eq!(run(&[json!({"choices": [choice]})]).unwrap(), [text("x")]);
        }
    }

    #[test]
    fn counts_during_prompt_evaluation_are_those_of_the_whole_prompt() {
        // A real llama-server sends chunks like this one: `prompt_n` grows while the prompt is
        // evaluated.
        let under_way = json!({"choices": [{"delta": {"content": null}}], "prompt_progress": {"total": 3521, "cache": 10, "processed": 2048, "time_ms": 9},
            "timings": {"cache_n": 10, "prompt_n": 2038, "prompt_ms": 9.0, "predicted_n": 0, "predicted_ms": 0.0}});
        let known = Usage { prompt_tokens: Some(3521), cached_tokens: Some(10), ..Usage::default() };
        assert_eq!(
            run(&[under_way]).unwrap(),
            [Delta::Usage(known), Delta::Progress { processed: 2048, total: 3521 }]
        );

        let mut token = delta(json!({"content": "x"}));
        token["timings"] = json!({"cache_n": 10, "prompt_n": 3511, "prompt_ms": 20.0, "predicted_n": 1, "predicted_ms": 0.5});
        let known =
            Usage { generated_tokens: Some(1), prompt_ms: Some(20.0), generation_ms: Some(0.5), ..known };
        assert_eq!(
            run(&[token]).unwrap(),
            [Delta::Usage(known), Delta::Text(String::from("x"))],
            "counts come before the text"
        );
    }

    #[test]
    fn odd_chunks_do_not_stop_a_stream() {
        for chunk in [
            json!({}),
            json!({"choices": null}),
            json!({"choices": [null]}),
            json!({"choices": [{"delta": 3}]}),
            delta(json!({"tool_calls": [null, {"function": 1}]})),
        ] {
            run(std::slice::from_ref(&chunk)).unwrap_or_else(|why| panic!("{chunk}: {why}"));
        }
        assert!(run(&[json!([1])]).is_err());
    }
}
