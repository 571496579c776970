//! Scripts as JSON, for shell scripts, benchmarks and other languages.
//!
//! ```json
//! {
//!   "models": [{"name": "deepseek-r1:8b", "capabilities": ["completion", "thinking"], "context": 131072}],
//!   "replies": [
//!     "just a text",
//!     {"steps": [{"thinking": "hm"}, {"text": "Let me look."}, {"gate": "go"}, {"text": "Done."}]},
//!     {"steps": [{"tool_call": {"name": "read_file", "arguments": {"path": "a.rs"}}}], "split_bytes": 3},
//!     {"status": 503, "error": "server busy", "headers": {"Retry-After": "1"}},
//!     {"steps": [{"text": "half an ans"}], "end": "reset"}
//!   ],
//!   "for_path": {"/api/show": [{"status": 500, "error": "no"}]},
//!   "fallback": "said whenever the replies are used up"
//! }
//! ```
//!
//! Steps: `text`, `chunks` (a list: these very borders), `thinking`, `tool_call {name, arguments}`, `tool_calls` (a list: one chunk), `json` (a
//! line or event of its own), `raw` (body bytes), `comment`, `gate`, `mark` (notes the time), `pause_ms`, `filler {ms, every_ms}`,
//! `error_line`, `endless` (`{"chunks": "text"}` or `"line"`). `end` is `done`, `no_marker`, `eof`, `cut` or `reset`.
//!
//! An array stands for an object with `replies` alone. The other keys are those of [`Config`]; a reply's are those of [`Reply`], and
//! a string is a reply of that text. `"repeat": true` starts the replies over when they are used up.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::reply::Reply;
use crate::server::Server;
use crate::state::Config;

/// What a script file says.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How the server is set up.
    pub config: Config,
    /// Replies to generations, in order.
    pub replies: Vec<Reply>,
    /// Replies for a path, before anything else the server does there.
    pub for_path: BTreeMap<String, Vec<Reply>>,
    /// The reply when the replies are used up.
    pub fallback: Option<Reply>,
    /// Start over when the replies are used up.
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
    /// Reads a script.
    ///
    /// # Errors
    /// What is wrong with the JSON, and in which reply.
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

    /// Starts a server on `port` (0: any free one) that answers so.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(self, port: u16) -> std::io::Result<Server> {
        let server = Server::with_config_on(self.config, port)?;
        for (path, replies) in self.for_path {
            for reply in replies {
                server.enqueue_for(&path, reply);
            }
        }
        if self.repeat && !self.replies.is_empty() {
            let replies = self.replies.clone();
            let next = std::sync::atomic::AtomicUsize::new(0);
            server.fallback(Reply::from_fn(move |_| {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                replies[at % replies.len()].clone()
            }));
        } else if let Some(fallback) = self.fallback {
            server.fallback(fallback);
        }
        for reply in self.replies {
            server.enqueue(reply);
        }
        Ok(server)
    }
}
