//! Scripts as JSON, for shell scripts, benchmarks and other languages.
//!
//! ```json
//! {
//!   "models": [{"name": "deepseek-r1:8b", "capabilities": ["completion", "thinking"], "context": 131072}],
//!   "replies": [
//!     "just text",
//!     {"steps": [{"thinking": "hm"}, {"text": "Let me look."}, {"gate": "go"}, {"text": "Done."}]},
//!     {"steps": [{"tool_call": {"name": "read_file", "arguments": {"path": "a.rs"}}}], "split_bytes": 3},
//!     {"status": 503, "error": "server busy", "headers": {"Retry-After": "1"}},
//!     {"steps": [{"text": "half an ans"}], "end": "reset"}
//!   ],
//!   "for_path": {"/api/show": [{"status": 500, "error": "no"}]},
//!   "fallback": "the answer when the replies are used up"
//! }
//! ```
//!
//! Steps: `text`, `chunks` (a list with exactly these chunks), `thinking`,
//! `tool_call {name, arguments}`, `tool_calls` (a list in one chunk), `json` (a separate line or
//! event), `raw` (body bytes), `comment`, `gate`, `mark` (records the time), `pause_ms`,
//! `filler {ms, every_ms}`, `error_line`, `endless` (`{"chunks": "text"}` or `"line"`). `end` is
//! `done`, `no_marker`, `eof`, `cut` or `reset`.
//!
//! An array is shorthand for an object with only `replies`. Besides `replies`, `for_path`,
//! `fallback` and `repeat`, the object may have the keys of [`Config`]. The keys of a reply are
//! those of [`Reply`]. A string is a reply with that text. With `"repeat": true`, the server starts
//! over when the replies are used up.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::reply::Reply;
use crate::state::Config;

/// A parsed script file.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// The configuration of the server.
    pub config: Config,
    /// Replies to generations, in order.
    pub replies: Vec<Reply>,
    /// Replies for a path, which take precedence over everything else the server does for that
    /// path.
    pub for_path: BTreeMap<String, Vec<Reply>>,
    /// The reply to send when the replies are used up.
    pub fallback: Option<Reply>,
    /// Whether to start over when the replies are used up.
    pub repeat: bool,
}

/// A list of replies, each a string or an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replies(pub(crate) Vec<Reply>);

impl<'de> Deserialize<'de> for Replies {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let values = Vec::<Value>::deserialize(input)?;
        let replies = values.into_iter().enumerate().map(|(at, value)| {
            reply(value).map_err(|problem| D::Error::custom(format!("reply {at}: {problem}")))
        });
        replies.collect::<Result<_, _>>().map(Self)
    }
}

fn reply(value: Value) -> Result<Reply, serde_json::Error> {
    match value {
        Value::String(text) => Ok(Reply::text(text)),
        value => serde_json::from_value(value),
    }
}

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    /// Fails if the JSON is invalid. An error in a list of replies includes the index of the reply.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut value: Value = serde_json::from_str(text)?;
        if value.is_array() {
            let replies = serde_json::from_value::<Replies>(value)?.0;
            return Ok(Self { replies, ..Self::default() });
        }
        let mut script = Self::default();
        if let Some(object) = value.as_object_mut() {
            if let Some(replies) = object.remove("replies") {
                script.replies = serde_json::from_value::<Replies>(replies)?.0;
            }
            if let Some(paths) = object.remove("for_path") {
                let paths: BTreeMap<String, Replies> = serde_json::from_value(paths)?;
                script.for_path = paths.into_iter().map(|(path, replies)| (path, replies.0)).collect();
            }
            if let Some(fallback) = object.remove("fallback") {
                script.fallback = Some(reply(fallback)?);
            }
            if let Some(repeat) = object.remove("repeat") {
                script.repeat = serde_json::from_value(repeat)?;
            }
        }
        script.config = serde_json::from_value(value)?;
        Ok(script)
    }
}
