//! Finds the fields and limits that a refusal mentions, so that the request can be adjusted
//! accordingly.
//!
//! Servers mention fields and limits only in prose, each in its own words, so matching is loose. A
//! wrong guess costs one request.

use serde_json::Value;

use crate::Error;
use crate::failure::{Body, Failure};

/// The smallest number that is treated as a limit on the answer length, in tokens. Smaller numbers
/// in a refusal mean something else.
const LEAST_ANSWER: u32 = 256;

impl Failure {
    /// Returns whether this is a refusal that contains one of `words`, such as the name of a field
    /// that the server does not accept (docs/model-apis.md#openai-request-fields).
    pub(crate) fn names(&self, words: &[&str]) -> bool {
        match self {
            // Ollama responds with 500 to a field of the wrong type
            // (docs/model-apis.md#ollama-requests).
            Failure::Status { status: 400 | 422 | 500 | 501, body, .. } => {
                let text = body.message.to_lowercase();
                words.iter().any(|word| text.contains(word))
            }
            _ => false,
        }
    }

    /// Returns the server's message, in lowercase, if the server refused the request itself.
    /// Returns `None` for other failures and for a prompt that is too long.
    pub(crate) fn refusing(&self) -> Option<String> {
        match self {
            Failure::Status { status: 400 | 422 | 500 | 501, body, .. } if !body.is_overflow() => {
                Some(format!("{}{}", body.kind, body.message).to_lowercase())
            }
            _ => None,
        }
    }

    /// Returns the window and the number of prompt tokens given in the refusal, if the prompt fits
    /// and only the requested answer was too long.
    pub(crate) fn room(&self) -> Option<(u64, u64)> {
        let Failure::Status { status: 400 | 422, body, .. } = self else { return None };
        let text = body.message.to_lowercase();
        let window = number_after(&text, &["maximum context length is ", "maximum context length of "])?;
        let prompt = number_before(
            &text,
            &[" in the messages", " input tokens", " tokens from the input", " of text input"],
        )?;
        (prompt < window).then_some((window, prompt))
    }

    /// Returns the limit on the answer's length that the refusal mentions, if the server refused
    /// `asked` tokens as too many.
    pub(crate) fn cap(&self, asked: u32) -> Option<u32> {
        let text = self.refusing()?;
        let names = [
            "max_tokens",
            "max_completion_tokens",
            "max_new_tokens",
            "max_output_tokens",
            "completion tokens",
        ];
        let large = [
            "too large",
            "at most",
            "less than",
            "<=",
            "exceed",
            "maximum",
            "range",
            "up to",
            "cannot be greater",
        ];
        if !names.iter().any(|name| text.contains(name)) || !large.iter().any(|word| text.contains(word)) {
            return None;
        }
        let numbers =
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u32>().ok());
        numbers.filter(|number| (LEAST_ANSWER..asked).contains(number)).max()
    }

    /// Returns whether the refusal says that the server cannot stream.
    pub(crate) fn refuses_stream(&self) -> bool {
        self.refusing().is_some_and(|text| {
            (text.contains("streaming")
                || text.contains("'stream'")
                || text.contains("\"stream\"")
                || text.contains("stream=true"))
                && ["not support", "unsupported", "not allowed", "must be false", "disabled", "not available"]
                    .iter()
                    .any(|word| text.contains(word))
        })
    }

    /// Returns whether the model's chat template failed to render the conversation.
    pub(crate) fn is_template(&self) -> bool {
        matches!(self, Failure::Status { status: 400 | 422 | 500 | 501, body, .. } if body.is_template())
    }

    /// Treats an error at the start of an answer, after status 200, as a refusal with status 500.
    /// Returns `None` if the error says nothing about the request.
    pub(crate) fn of_stream(error: &Error) -> Option<Self> {
        let (Error::Refused(message) | Error::Unavailable { message, .. }) = error else { return None };
        let body = Box::new(Body::from_json(&Value::from(message.as_str())));
        Some(Failure::Status { status: 500, url: String::new(), body, retry_after: None, keyed: true })
    }
}

fn number_after(text: &str, phrases: &[&str]) -> Option<u64> {
    let rest = phrases.iter().find_map(|phrase| Some(text.split_once(phrase)?.1))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

fn number_before(text: &str, phrases: &[&str]) -> Option<u64> {
    let rest = phrases.iter().find_map(|phrase| Some(text.split_once(phrase)?.0))?;
    let rest = rest.trim_end_matches(" tokens");
    let start = rest.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    rest.get(start..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_limit_is_read_from_the_refusal() {
        let failure = |text: &str| Failure::Status {
            status: 400,
            url: String::new(),
            body: Box::new(Body::from_bytes(text.as_bytes())),
            retry_after: None,
            keyed: true,
        };
        for (text, cap) in [
            (
                "max_tokens is too large: 4096. This model supports at most 1024 completion tokens, whereas you provided 4096.",
                Some(1024),
            ),
            ("Invalid max_tokens value, the valid range of max_tokens is [1, 2048]", Some(2048)),
            ("`max_completion_tokens` must be less than or equal to `512`", Some(512)),
            ("max_tokens must be at least 5000", None),
            ("temperature must be at most 2", None),
        ] {
            assert_eq!(failure(text).cap(4096), cap, "{text}");
        }
        for (text, room) in [
            (
                "This model's maximum context length is 4096 tokens. However, you requested 5596 tokens (1500 in the messages, 4096 in the completion).",
                Some((4096, 1500)),
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 4096 tokens and your request has 1500 input tokens (4096 > 4096 - 1500).",
                Some((4096, 1500)),
            ),
            (
                "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.",
                None,
            ),
            ("This model's maximum context length is 4096 tokens", None),
        ] {
            assert_eq!(failure(text).room(), room, "{text}");
        }
    }
}
