//! Parses error responses from all kinds of servers into [`Error`]s.
//!
//! A body may be `{"error":"text"}` or `{"error":{"message":…,"code":…}}`, and the text may itself
//! be JSON in the second form. A body may also be plain text or HTML, or be empty. The statuses and
//! phrases come from docs/model-apis.md#ollama-errors, docs/model-apis.md#openai-errors,
//! docs/model-apis.md#deepseek-errors and docs/model-apis.md#llama-server.

use serde_json::Value;

use crate::Error;

/// Maximum length, in characters, of a server's message. Longer messages are truncated.
const MAX_MESSAGE: usize = 600;

/// Maximum depth to which nested error objects and JSON in error strings are parsed.
const MAX_WRAPS: usize = 4;

/// The reason to show if an error response does not give one.
const NO_REASON: &str = "no reason given";

/// Phrases that servers use to report a prompt that exceeds the context window.
const OVERFLOW: [&str; 8] = [
    "exceed_context_size",
    "exceeds the available context",
    "longer than the context length",
    "exceeds the context length",
    "maximum context length",
    "maximum model length",
    "context size",
    "too many tokens",
];

/// The longest delay, in seconds, that a server may ask for without its quota counting as used up.
const LONGEST_QUOTA: u64 = 300;
/// Phrases in a 429 response that mean the account's quota is used up, in which case waiting does
/// not help, unless the server asks for a short delay.
const USED_UP: [&str; 8] = [
    "insufficient_quota",
    "exceeded your current quota",
    "insufficient credits",
    "insufficient balance",
    "credit balance is too low",
    "billing_hard_limit",
    "out of credits",
    "usage limit", // Ollama's cloud has limits per hour and per week
];

/// Phrases that servers use to report a chat template that failed to render.
const TEMPLATE: [&str; 8] = [
    "jinja",
    "chat template",
    "chat_template",
    "template error",
    "templateerror",
    "raise_exception",
    "applying prompt template",
    "rendering prompt",
];

/// The body of an error response.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Body {
    /// The innermost message; empty if there is none.
    pub(crate) message: String,
    /// The string values of `type` and `code`. Like the message, they are searched for the phrases
    /// in `OVERFLOW` and `USED_UP`.
    pub(crate) kind: String,
    prompt_tokens: Option<u64>,
    window: Option<u64>,
    signin_url: Option<String>,
    /// The status code in the body, if there is one. Some servers report errors in a response with
    /// status 200.
    code: Option<u16>,
}

impl Body {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => Self::from_json(&value),
            Err(_) => Self { message: shorten(&String::from_utf8_lossy(bytes)), ..Self::default() },
        }
    }

    /// Parses an error object, or an object with an error object under its `error` key.
    pub(crate) fn from_json(value: &Value) -> Self {
        let mut body = Self::default();
        body.fill(value, 0);
        body
    }

    fn fill(&mut self, value: &Value, depth: usize) {
        match value {
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                Ok(inner @ Value::Object(_)) if depth < MAX_WRAPS => self.fill(&inner, depth + 1),
                _ => self.message = shorten(text),
            },
            Value::Object(object) => {
                let number = |key: &str| object.get(key).and_then(Value::as_u64);
                self.prompt_tokens = number("n_prompt_tokens").or(self.prompt_tokens);
                self.window = number("n_ctx").or(self.window);
                self.code = number("code").and_then(|code| u16::try_from(code).ok()).or(self.code);
                for key in ["type", "code"] {
                    if let Some(Value::String(kind)) = object.get(key) {
                        self.kind.push_str(kind);
                        self.kind.push(' ');
                    }
                }
                if let Some(Value::String(url)) = object.get("signin_url") {
                    self.signin_url = Some(url.clone());
                }
                // FastAPI (used by vLLM and others) uses `detail`.
                let next = ["error", "message", "detail"].into_iter().find_map(|key| object.get(key));
                match next {
                    Some(inner) if depth < MAX_WRAPS => self.fill(inner, depth + 1),
                    _ => self.message = shorten(&value.to_string()),
                }
            }
            // Google's compatibility layer wraps the object in a list. A list from FastAPI may
            // contain several errors and is kept as is.
            Value::Array(list) if list.first().is_some_and(|first| first.get("error").is_some()) => {
                if let Some(first) = list.first() {
                    self.fill(first, depth + 1);
                }
            }
            Value::Null => {}
            other => self.message = shorten(&other.to_string()),
        }
    }

    pub(crate) fn is_overflow(&self) -> bool {
        self.says(&OVERFLOW)
    }

    fn says(&self, phrases: &[&str]) -> bool {
        let text = format!("{}{}", self.kind, self.message).to_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    }

    pub(crate) fn is_template(&self) -> bool {
        // A server may refuse the `chat_template_kwargs` field even though no template failed.
        let text = self.message.to_lowercase().replace("chat_template_kwargs", "");
        TEMPLATE.iter().any(|phrase| text.contains(phrase))
            // llama.cpp's template engine: "… at row 12, column 40".
            || (text.contains("at row ") && text.contains(", column "))
    }

    fn overflow(self) -> Error {
        let window = self.window.map(|window| format!(" (window: {window} tokens)")).unwrap_or_default();
        Error::Overflow {
            message: format!("the prompt does not fit the context window{window}: {}", self.message),
            prompt_tokens: self.prompt_tokens,
            window: self.window,
        }
    }

    /// Converts a body that arrived in the middle of a stream, after status 200, to an error.
    pub(crate) fn mid_stream(self) -> Error {
        if self.is_overflow() {
            return self.overflow();
        }
        if self.is_template() {
            return Error::Refused(template(&format!("the server refused the request: {}", self.message)));
        }
        match self.code {
            Some(401 | 403) => Error::Settings(format!("the server refused the key: {}", self.message)),
            Some(code @ 400..=499) if !matches!(code, 408 | 429) => {
                Error::Refused(format!("the server refused the request: {}", self.message))
            }
            code => {
                let message = format!("the server failed during the answer: {}", self.message);
                match code {
                    Some(429 | 503 | 529) => Error::Busy { message, retry_after: None },
                    _ => Error::Unavailable { message, retry_after: None },
                }
            }
        }
    }
}

/// A failed request. Unlike an [`Error`], it keeps the response's status and body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The server answered with an error status.
    Status {
        status: u16,
        url: String,
        body: Box<Body>,
        /// The delay that the server asks for, in seconds.
        retry_after: Option<u64>,
        /// Whether a key or other credentials were sent.
        keyed: bool,
    },
    /// Anything else.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl Failure {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Failure::Status { status, .. } => Some(*status),
            Failure::Other(_) => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (status, url, body, retry_after, keyed) = match failure {
            Failure::Other(error) => return error,
            Failure::Status { status, url, body, retry_after, keyed } => {
                (status, url, body, retry_after, keyed)
            }
        };
        if matches!(status, 400 | 413 | 422 | 500) && body.is_overflow() {
            return body.overflow();
        }
        if matches!(status, 400 | 422 | 500 | 501) && body.is_template() {
            return Error::Refused(template(&format!("{url} answered {status}: {}", body.message)));
        }
        let used_up = body.says(&USED_UP);
        let retry_after = retry_after.or_else(|| asked_in(&body.message));
        let said = if body.message.is_empty() { NO_REASON.to_owned() } else { body.message.clone() };
        let because = |hint: &str| format!("{url} answered {status}: {said}{hint}");
        let refused = |hint: &str| Error::Refused(because(hint));
        let exhausted = |hint: &str| Error::Exhausted(because(hint));
        let settings = |hint: &str| Error::Settings(because(hint));
        match status {
            // The server checks for free memory before it loads the model, so a retry would fail
            // the same way.
            500 if said.contains("requires more system memory") => {
                exhausted("; choose a smaller model or window")
            }
            401 => match body.signin_url {
                Some(url) => settings(&format!("; sign in at {url} or with `ollama signin`")),
                None if !keyed => {
                    settings("; no API key was sent: set OPENAI_API_KEY, or api_key_file in your settings")
                }
                None => settings("; check the API key"),
            },
            // Some servers call a limit per minute a quota.
            429 if used_up && retry_after.is_none_or(|seconds| seconds > LONGEST_QUOTA) => {
                exhausted("; the account's quota is used up: check its plan and billing")
            }
            402 => exhausted("; the account has no balance left"),
            403 if said == NO_REASON => settings(
                "; a server bound to loopback refuses other host names: use 127.0.0.1, or set OLLAMA_HOST on both sides",
            ),
            403 => settings("; check the API key and its permissions"),
            404 if said.to_lowercase().contains("model") => {
                Error::MissingModel { message: said, available: Vec::new() }
            }
            404 | 405 => settings("; check the address and its path"),
            407 => settings(&format!("; {}", crate::http::PROXY_CREDENTIALS)),
            503 if said.to_lowercase().contains("loading model") => Error::Loading(because("")),
            429 | 503 | 529 => {
                Error::Busy { message: format!("{url} answered {status}: {said}"), retry_after }
            }
            408 | 499 | 500 | 502..=599 => {
                Error::Unavailable { message: format!("{url} answered {status}: {said}"), retry_after }
            }
            _ => refused(""),
        }
    }
}

/// Adds advice about a failing chat template.
fn template(said: &str) -> String {
    format!(
        "{said}; the model's chat template cannot render the conversation: start the server with another template, or \
         choose another model"
    )
}

/// Returns the delay, in seconds, that a message asks for, as in "Please try again in 1.2s", "retry
/// in 34.07s" or "in 500ms".
fn asked_in(message: &str) -> Option<u64> {
    let text = message.to_lowercase();
    let after = text.split_once("try again in ").or_else(|| text.split_once("retry in "))?.1;
    let digits = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
    let (number, unit) = after.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim_start();
    let factor = match unit {
        _ if unit.starts_with("ms") || unit.starts_with("milli") => 0.001,
        _ if unit.starts_with('s') => 1.0,
        _ if unit.starts_with('m') => 60.0,
        _ if unit.starts_with('h') => 3600.0,
        _ => return None,
    };
    Some((number * factor).ceil() as u64)
}

/// Collapses the text to one line and truncates it.
fn shorten(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(MAX_MESSAGE) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> Error {
        error_with_delay(status, body, Some(7))
    }

    fn error_with_delay(status: u16, body: &str, retry_after: Option<u64>) -> Error {
        Failure::Status {
            status,
            url: String::from("URL"),
            body: Box::new(Body::from_bytes(body.as_bytes())),
            retry_after,
            keyed: true,
        }
        .into()
    }

    #[test]
    fn an_overflow_is_detected_in_every_wording_and_wrapping() {
        let wrapped = r#"{"error":"{\"error\":{\"code\":400,\"message\":\"request (750 tokens) exceeds the available context size (256 tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":750,\"n_ctx\":256}}"}"#;
        let Error::Overflow { message, prompt_tokens: Some(750), window: Some(256) } = error(400, wrapped)
        else {
            panic!("{:?}", error(400, wrapped));
        };
        assert!(!message.contains('{'), "the JSON should be unwrapped: {message}");
        for text in [
            r#"{"error":"the prompt is longer than the context length currently available to the model; shorten"}"#,
            r#"{"error":"the input length exceeds the context length"}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens","code":400}"#,
            r#"{"error":{"message":"m","type":"exceed_context_size_error"}}"#,
        ] {
            assert!(matches!(error(400, text), Error::Overflow { .. }), "{text}");
            let value = serde_json::from_str(text).unwrap();
            assert!(matches!(Body::from_json(&value).mid_stream(), Error::Overflow { .. }), "{text}");
        }
    }

    #[test]
    fn each_status_has_one_meaning() {
        for status in [429, 503, 529] {
            assert!(matches!(error(status, "x"), Error::Busy { retry_after: Some(7), .. }), "{status}");
        }
        for status in [408, 499, 500, 502, 504] {
            assert!(
                matches!(error(status, "x"), Error::Unavailable { retry_after: Some(7), .. }),
                "{status}"
            );
        }
        for status in [400, 410, 422] {
            assert!(matches!(error(status, "x"), Error::Refused(_)), "{status}");
        }
        assert!(matches!(error(402, "x"), Error::Exhausted(_)));
        for status in [401, 403, 404, 405, 407] {
            assert!(matches!(error(status, "x"), Error::Settings(_)), "{status}");
        }
        assert!(matches!(error(404, r#"{"error":"model 'x' not found"}"#), Error::MissingModel { .. }));
        let loading = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
        assert!(matches!(error(503, loading), Error::Loading(_)));
        let too_large = "model requires more system memory (12.0 GiB) than is available (7.1 GiB)";
        assert!(matches!(error(500, too_large), Error::Exhausted(why) if why.contains("smaller")));
    }

    #[test]
    fn a_delay_is_read_from_the_message_and_a_used_up_quota_is_final() {
        for (text, seconds) in [
            ("Rate limit reached. Please try again in 1.2s.", Some(2)),
            ("Please try again in 6m0s.", Some(360)),
            ("Please retry in 34.07s.", Some(35)),
            ("try again in 500 ms", Some(1)),
            ("try again later", None),
        ] {
            assert_eq!(asked_in(text), seconds, "{text}");
        }
        let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        for delay in [None, Some(86_400)] {
            let error = error_with_delay(429, quota, delay);
            assert!(matches!(error, Error::Exhausted(why) if why.contains("billing")), "{delay:?}");
        }
        let per_minute = "You exceeded your current quota. Please retry in 34.07s.";
        let error = error_with_delay(429, per_minute, None);
        assert!(matches!(error, Error::Busy { retry_after: Some(35), .. }), "{error}");
    }

    #[test]
    fn a_failing_template_is_not_retried() {
        let text = r#"{"error":{"code":500,"message":"Value is not callable: null at row 12, column 40"}}"#;
        assert!(matches!(error(500, text), Error::Refused(why) if why.contains("chat template")));
        let list = r#"[{"error":{"code":400,"message":"Developer instruction is not enabled"}}]"#;
        assert!(matches!(error(400, list), Error::Refused(why) if why.contains(": Developer instruction")));
    }

    #[test]
    fn error_messages_say_what_to_do() {
        let hint =
            error(401, r#"{"error":"unauthorized","signin_url":"https://ollama.com/connect"}"#).to_string();
        assert!(hint.contains("https://ollama.com/connect"), "{hint}");
        assert!(error(403, "").to_string().contains("OLLAMA_HOST"));
        let long = error(500, &"word ".repeat(10_000)).to_string();
        assert!(long.len() < 1000 && long.ends_with('…'));
    }

    #[test]
    fn an_error_inside_a_stream_is_classified_by_its_code() {
        let body = |text: &str| Body::from_json(&serde_json::from_str(text).unwrap()).mid_stream();
        assert!(matches!(body(r#"{"error":"unexpected EOF"}"#), Error::Unavailable { .. }));
        assert!(matches!(body(r#"{"error":{"code":500,"message":"m"}}"#), Error::Unavailable { .. }));
        assert!(matches!(body(r#"{"error":{"code":429,"message":"m"}}"#), Error::Busy { .. }));
        assert!(matches!(body(r#"{"error":{"code":401,"message":"m"}}"#), Error::Settings(_)));
        assert!(matches!(body(r#"{"error":{"code":400,"message":"m"}}"#), Error::Refused(_)));
    }
}
