//! Encodes the pieces of an answer in each dialect: NDJSON lines
//! (docs/model-apis.md#ollama-streaming), SSE events (docs/model-apis.md#openai-streams), or one
//! object.

use serde_json::{Map, Value, json};

use crate::reply::Call;
use crate::state::Personality;
use crate::tokens;

/// The timestamp of every reply, fixed so that replies are the same in every run.
pub(crate) const NOW: &str = "2026-01-01T00:00:00.123456789Z";
const NOW_UNIX: u64 = 1_767_225_600;
const PROMPT_TOKEN_NS: u64 = 5_000_000;
const TOKEN_NS: u64 = 40_000_000;

/// The wire format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OllamaChat,
    OllamaGenerate,
    /// Lines of JSON from the script (`/api/pull` and other scripted paths).
    Lines,
    OpenAi(Personality),
}

/// The token counts of one generation, as reported to the client.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) prompt: u64,
    pub(crate) cached: u64,
    pub(crate) generated: u64,
    pub(crate) thinking: u64,
    pub(crate) load_ns: u64,
}

/// A tool call with its id.
#[derive(Debug, Clone)]
pub(crate) struct IdCall {
    pub(crate) id: String,
    pub(crate) call: Call,
}

/// The answer so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) thinking: String,
    pub(crate) calls: Vec<IdCall>,
}

pub(crate) struct Encoder {
    pub(crate) dialect: Dialect,
    pub(crate) model: String,
    pub(crate) include_usage: bool,
    pub(crate) progress: bool,
    pub(crate) call_index: usize,
}

impl Encoder {
    pub(crate) fn new(dialect: Dialect, model: impl Into<String>) -> Self {
        Self { dialect, model: model.into(), include_usage: false, progress: false, call_index: 0 }
    }

    pub(crate) fn content_type(&self, stream: bool) -> &'static str {
        match (self.dialect, stream) {
            (Dialect::OpenAi(_), true) => "text/event-stream",
            (_, true) => "application/x-ndjson",
            (_, false) => "application/json; charset=utf-8",
        }
    }

    /// Encodes the events that precede the first piece of the answer.
    pub(crate) fn open(&self, counts: &Counts) -> Vec<Vec<u8>> {
        let Dialect::OpenAi(personality) = self.dialect else { return Vec::new() };
        let delta = match personality {
            Personality::Deepseek => json!({"role": "assistant", "content": null, "reasoning_content": ""}),
            Personality::LlamaServer => json!({"role": "assistant", "content": null}),
            _ => json!({"role": "assistant", "content": ""}),
        };
        let mut events = Vec::new();
        if self.progress {
            for processed in [counts.cached, counts.prompt] {
                let mut chunk = self.chunk(json!({}), Value::Null);
                chunk["prompt_progress"] = json!({
                    "total": counts.prompt, "cache": counts.cached, "processed": processed,
                    "time_ms": (processed - counts.cached) * PROMPT_TOKEN_NS / 1_000_000,
                });
                events.push(event(&chunk));
            }
        }
        events.push(event(&self.chunk(delta, Value::Null)));
        events
    }

    pub(crate) fn text(&self, text: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::OllamaChat => self.message(json!({"role": "assistant", "content": text})),
            Dialect::OllamaGenerate => self.line(json!({"response": text}), false),
            Dialect::OpenAi(_) => event(&self.chunk(json!({"content": text}), Value::Null)),
            Dialect::Lines => line(&json!({"status": text})),
        }
    }

    pub(crate) fn thinking(&self, text: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::OllamaChat => {
                self.message(json!({"role": "assistant", "content": "", "thinking": text}))
            }
            Dialect::OllamaGenerate => self.line(json!({"response": "", "thinking": text}), false),
            Dialect::OpenAi(personality) => {
                event(&self.chunk(json!({reasoning_field(personality): text}), Value::Null))
            }
            Dialect::Lines => line(&json!({"status": text})),
        }
    }

    /// Encodes tool calls. For Ollama, all calls are sent whole, in one chunk. For OpenAI, a single
    /// call is split into fragments, but several calls are sent whole, in one chunk.
    pub(crate) fn calls(&mut self, calls: &[IdCall]) -> Vec<Vec<u8>> {
        match self.dialect {
            Dialect::OpenAi(_) if calls.len() > 1 => {
                let delta = json!({"tool_calls": self.openai_calls(calls, true)});
                vec![event(&self.chunk(delta, Value::Null))]
            }
            Dialect::OpenAi(_) => calls.iter().flat_map(|call| self.call_fragments(call)).collect(),
            Dialect::OllamaChat => {
                let calls = self.ollama_calls(calls);
                vec![self.message(json!({"role": "assistant", "content": "", "tool_calls": calls}))]
            }
            Dialect::OllamaGenerate | Dialect::Lines => Vec::new(),
        }
    }

    fn call_fragments(&mut self, call: &IdCall) -> Vec<Vec<u8>> {
        let index = self.call_index;
        self.call_index += 1;
        let first = json!({"tool_calls": [{
            "index": index, "id": call.id, "type": "function",
            "function": {"name": call.call.name, "arguments": ""},
        }]});
        let arguments = argument_text(&call.call);
        let rest = tokens::split(&arguments)
            .into_iter()
            .map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}));
        std::iter::once(first).chain(rest).map(|delta| event(&self.chunk(delta, Value::Null))).collect()
    }

    fn openai_calls(&mut self, calls: &[IdCall], with_index: bool) -> Value {
        calls
            .iter()
            .map(|call| {
                let mut value = json!({
                    "id": call.id, "type": "function",
                    "function": {"name": call.call.name, "arguments": argument_text(&call.call)},
                });
                if with_index {
                    value["index"] = json!(self.call_index);
                }
                self.call_index += 1;
                value
            })
            .collect()
    }

    fn ollama_calls(&mut self, calls: &[IdCall]) -> Value {
        calls
            .iter()
            .map(|call| {
                let index = self.call_index;
                self.call_index += 1;
                json!({"id": call.id, "function": {
                    "index": index, "name": call.call.name, "arguments": call.call.arguments,
                }})
            })
            .collect()
    }

    /// Encodes the normal end of a stream. `late` holds the calls to send with the final chunk, and
    /// `marker` determines whether `[DONE]` follows.
    pub(crate) fn finish(
        &mut self,
        reason: &str,
        counts: &Counts,
        late: &[IdCall],
        marker: bool,
        usage_chunk: bool,
    ) -> Vec<Vec<u8>> {
        match self.dialect {
            Dialect::Lines => Vec::new(),
            Dialect::OllamaGenerate => {
                let mut last = json!({"response": ""});
                self.end_fields(&mut last, reason, counts);
                vec![self.line(last, true)]
            }
            Dialect::OllamaChat => {
                let mut message = json!({"role": "assistant", "content": ""});
                if !late.is_empty() {
                    message["tool_calls"] = self.ollama_calls(late);
                }
                let mut last = json!({"message": message});
                self.end_fields(&mut last, reason, counts);
                vec![self.line(last, true)]
            }
            Dialect::OpenAi(personality) => {
                let delta = if late.is_empty() {
                    json!({})
                } else {
                    json!({"tool_calls": self.openai_calls(late, true)})
                };
                let mut last = self.chunk(delta, json!(reason));
                let mut events = Vec::new();
                let own_chunk = usage_chunk || (self.include_usage && personality != Personality::Deepseek);
                if personality == Personality::Deepseek && !own_chunk {
                    last["usage"] = usage(personality, counts);
                }
                if personality == Personality::LlamaServer && !own_chunk {
                    last["timings"] = timings(counts);
                }
                events.push(event(&last));
                if own_chunk {
                    let mut chunk = self.chunk(json!({}), Value::Null);
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage(personality, counts);
                    if personality == Personality::LlamaServer {
                        chunk["timings"] = timings(counts);
                    }
                    events.push(event(&chunk));
                }
                if marker {
                    events.push(b"data: [DONE]\n\n".to_vec());
                }
                events
            }
        }
    }

    /// Encodes the whole answer as one object. If the reason is `None`, the answer is marked as
    /// incomplete.
    pub(crate) fn whole(&mut self, answer: &Answer, reason: Option<&str>, counts: &Counts) -> Value {
        match self.dialect {
            Dialect::Lines => Value::Null,
            Dialect::OllamaGenerate => {
                let mut object = json!({"model": self.model, "created_at": NOW, "response": answer.text});
                if !answer.thinking.is_empty() {
                    object["thinking"] = json!(answer.thinking);
                }
                self.end_whole(object, reason, counts)
            }
            Dialect::OllamaChat => {
                let mut message = json!({"role": "assistant", "content": answer.text});
                if !answer.thinking.is_empty() {
                    message["thinking"] = json!(answer.thinking);
                }
                if !answer.calls.is_empty() {
                    message["tool_calls"] = self.ollama_calls(&answer.calls);
                }
                let object = json!({"model": self.model, "created_at": NOW, "message": message});
                self.end_whole(object, reason, counts)
            }
            Dialect::OpenAi(personality) => {
                let mut message = json!({"role": "assistant", "content": answer.text});
                if !answer.thinking.is_empty() {
                    message[reasoning_field(personality)] = json!(answer.thinking);
                }
                if !answer.calls.is_empty() {
                    message["tool_calls"] = self.openai_calls(&answer.calls, false);
                }
                let mut object = json!({
                    "id": "chatcmpl-1", "object": "chat.completion", "created": NOW_UNIX, "model": self.model,
                    "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                    "usage": usage(personality, counts),
                });
                if personality == Personality::LlamaServer {
                    object["timings"] = timings(counts);
                }
                object
            }
        }
    }

    fn end_whole(&self, mut object: Value, reason: Option<&str>, counts: &Counts) -> Value {
        object["done"] = json!(reason.is_some());
        if let Some(reason) = reason {
            self.end_fields(&mut object, reason, counts);
        }
        object
    }

    /// Encodes an error inside the stream.
    pub(crate) fn error(&self, text: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::OpenAi(_) => event(&error_body(self.dialect, 500, text)),
            _ => line(&error_body(self.dialect, 500, text)),
        }
    }

    pub(crate) fn comment(&self, text: &str) -> Option<Vec<u8>> {
        matches!(self.dialect, Dialect::OpenAi(_)).then(|| format!(": {text}\n\n").into_bytes())
    }

    pub(crate) fn json(&self, value: &Value) -> Vec<u8> {
        match self.dialect {
            Dialect::OpenAi(_) => event(value),
            _ => line(value),
        }
    }

    /// Returns the start of a chunk, up to its text. Used for a chunk whose text never ends.
    pub(crate) fn unfinished_line(&self) -> Vec<u8> {
        let mut whole = self.text("@");
        let at = whole.iter().rposition(|&byte| byte == b'@').unwrap_or(0);
        whole.truncate(at);
        whole
    }

    fn chunk(&self, delta: Value, finish_reason: Value) -> Value {
        json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": NOW_UNIX, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        })
    }

    fn message(&self, message: Value) -> Vec<u8> {
        self.line(json!({"message": message}), false)
    }

    fn line(&self, fields: Value, done: bool) -> Vec<u8> {
        let mut object = json!({"model": self.model, "created_at": NOW});
        extend(&mut object, fields);
        object["done"] = json!(done);
        line(&object)
    }

    fn end_fields(&self, object: &mut Value, reason: &str, counts: &Counts) {
        let prompt_ns = (counts.prompt - counts.cached) * PROMPT_TOKEN_NS;
        let generation_ns = counts.generated * TOKEN_NS;
        object["done"] = json!(true);
        object["done_reason"] = json!(reason);
        let numbers = [
            ("total_duration", counts.load_ns + prompt_ns + generation_ns),
            ("load_duration", counts.load_ns),
            ("prompt_eval_count", counts.prompt),
            ("prompt_eval_duration", prompt_ns),
            ("eval_count", counts.generated),
            ("eval_duration", generation_ns),
        ];
        for (name, number) in numbers {
            if number > 0 {
                object[name] = json!(number);
            }
        }
    }
}

/// Returns an error object in the dialect's format.
pub(crate) fn error_body(dialect: Dialect, status: u16, text: &str) -> Value {
    match dialect {
        Dialect::OpenAi(Personality::LlamaServer) => {
            json!({"error": {"code": status, "message": text, "type": "server_error"}})
        }
        Dialect::OpenAi(_) => {
            let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
            json!({"error": {"message": text, "type": kind, "param": null, "code": kind}})
        }
        _ => json!({"error": text}),
    }
}

pub(crate) fn reasoning_field(personality: Personality) -> &'static str {
    match personality {
        Personality::Vllm | Personality::Ollama => "reasoning",
        _ => "reasoning_content",
    }
}

fn argument_text(call: &Call) -> String {
    match &call.arguments {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

fn usage(personality: Personality, counts: &Counts) -> Value {
    let mut usage = json!({
        "prompt_tokens": counts.prompt, "completion_tokens": counts.generated,
        "total_tokens": counts.prompt + counts.generated,
    });
    if personality != Personality::LmStudio {
        usage["prompt_tokens_details"] = json!({"cached_tokens": counts.cached});
    }
    if personality == Personality::Deepseek {
        usage["prompt_cache_hit_tokens"] = json!(counts.cached);
        usage["prompt_cache_miss_tokens"] = json!(counts.prompt - counts.cached);
        usage["completion_tokens_details"] = json!({"reasoning_tokens": counts.thinking});
    }
    usage
}

fn timings(counts: &Counts) -> Value {
    let evaluated = counts.prompt - counts.cached;
    json!({
        "cache_n": counts.cached, "prompt_n": evaluated,
        "prompt_ms": (evaluated * PROMPT_TOKEN_NS) as f64 / 1e6,
        "predicted_n": counts.generated, "predicted_ms": (counts.generated * TOKEN_NS) as f64 / 1e6,
    })
}

fn extend(object: &mut Value, fields: Value) {
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, value) in fields {
        object[name] = value;
    }
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}
