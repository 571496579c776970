//! Records of requests and replies.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{Incoming, find_header};

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The 0-based position among all requests to this server.
    pub index: usize,
    /// The 0-based number of the connection. Requests with the same number shared a connection.
    pub connection: usize,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query after `?`, or an empty string.
    pub query: String,
    /// The headers in order, with names as sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The body as JSON, or `Null` if it is not JSON.
    pub json: Value,
    /// When the last byte of the request arrived.
    pub received_at: Instant,
}

impl Request {
    pub(crate) fn new(incoming: Incoming, index: usize, connection: usize) -> Self {
        // The target of a request to a proxy is a full URL.
        let target =
            incoming.target.strip_prefix("http://").map(|rest| &rest[rest.find('/').unwrap_or(rest.len())..]);
        let target = target.unwrap_or(&incoming.target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            index,
            connection,
            path: path.to_owned(),
            query: query.to_owned(),
            method: incoming.method,
            headers: incoming.headers,
            json: serde_json::from_slice(&incoming.body).unwrap_or_default(),
            body: incoming.body,
            received_at: Instant::now(),
        }
    }

    /// Returns the first header with this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Returns the messages of a chat request, or an empty slice for other requests.
    pub fn messages(&self) -> &[Value] {
        self.json["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns the content of the last message, or the prompt of a generate request.
    pub fn last_content(&self) -> &str {
        let last = self.messages().last().map_or(&self.json["prompt"], |message| &message["content"]);
        last.as_str().unwrap_or_default()
    }

    /// Returns whether the request asks for a generation rather than only for loading or unloading
    /// a model.
    pub fn is_chat(&self) -> bool {
        self.method == "POST"
            && (self.path.ends_with("/chat")
                || self.path.ends_with("/generate")
                || self.path.ends_with("completions"))
            && !self.last_content_is_missing()
    }

    fn last_content_is_missing(&self) -> bool {
        self.messages().is_empty() && self.json["prompt"].as_str().unwrap_or_default().is_empty()
    }

    /// Returns the method, path, headers and body as a JSON object, in the format of `--record`.
    /// Times are in milliseconds since `start`.
    pub fn to_json(&self, start: Instant) -> Value {
        json!({
            "index": self.index,
            "connection": self.connection,
            "received_ms": millis(start, self.received_at),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": self.json,
        })
    }
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole scripted reply was written.
    Complete,
    /// The client disconnected first.
    ClientClosed,
}

/// The record of a reply. The counts cover the body, without HTTP's framing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplyRecord {
    /// The HTTP status, or 0 before the headers are written.
    pub status: u16,
    /// The number of protocol events (lines, SSE events, comments) written so far.
    pub chunks: usize,
    /// The number of body bytes written so far.
    pub bytes: u64,
    /// The estimated number of prompt tokens, including cached ones, or 0 for replies that are not
    /// generations.
    pub prompt_tokens: u64,
    /// The number of prompt tokens from the prefix cache.
    pub cached_tokens: u64,
    /// The number of tokens generated so far.
    pub generated_tokens: u64,
    /// When the first byte of the response was written.
    pub first_byte_at: Option<Instant>,
    /// When the most recent byte was written.
    pub last_byte_at: Option<Instant>,
    /// The name of each mark in the scripted reply, and when the reply reached it.
    pub marks: Vec<(String, Instant)>,
    /// How the reply ended, and when the server noticed, or `None` while the reply is in progress.
    pub ended: Option<(Outcome, Instant)>,
}

impl ReplyRecord {
    /// Returns the counts, times and outcome as a JSON object. Times are in milliseconds since
    /// `start`.
    pub fn to_json(&self, start: Instant) -> Value {
        let marks: Vec<Value> =
            self.marks.iter().map(|(name, at)| json!([name, millis(start, *at)])).collect();
        json!({
            "status": self.status, "chunks": self.chunks, "bytes": self.bytes,
            "prompt_tokens": self.prompt_tokens, "cached_tokens": self.cached_tokens,
            "generated_tokens": self.generated_tokens, "outcome": self.ended.map(|(outcome, _)| outcome),
            "first_byte_ms": self.first_byte_at.map(|at| millis(start, at)),
            "last_byte_ms": self.last_byte_at.map(|at| millis(start, at)),
            "ended_ms": self.ended.map(|(_, at)| millis(start, at)), "marks": marks,
        })
    }

    /// Returns whether the client disconnected before the end of the reply.
    pub fn client_closed(&self) -> bool {
        matches!(self.ended, Some((Outcome::ClientClosed, _)))
    }
}

fn millis(start: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(start).as_secs_f64() * 1e3
}
