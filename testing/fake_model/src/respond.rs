//! Plain responses: everything that is not a generation.

use std::time::Instant;

use serde_json::Value;

use crate::http::{self, Closed, Connection};
use crate::record::Outcome;
use crate::state::Shared;

/// What to do with the connection after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Keep it for the next request.
    KeepAlive,
    /// Close it normally.
    Close,
    /// Drop it at once. This resets the connection if a reset was requested.
    Drop,
}

/// A plain response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: Some("application/json; charset=utf-8"),
            body: body.to_string().into_bytes(),
        }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: Some("text/plain; charset=utf-8"), body: body.as_bytes().to_vec() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, content_type: None, body: Vec::new() }
    }
}

/// Sends a plain response and records it.
pub(crate) async fn respond(
    connection: &mut Connection,
    shared: &Shared,
    index: usize,
    response: &Response,
    keep_alive: bool,
    with_body: bool,
) -> After {
    let mut bytes =
        http::head(response.status, response.content_type, &[], Some(response.body.len()), keep_alive);
    if with_body {
        bytes.extend_from_slice(&response.body);
    }
    let now = Instant::now();
    shared.record(index, |record| {
        record.status = response.status;
        record.chunks = 1;
        record.bytes = response.body.len() as u64;
        record.first_byte_at = Some(now);
        record.last_byte_at = Some(now);
    });
    // Record the end before the write, so that the record is complete by the time a client has read
    // the response.
    shared.record_end(index, Outcome::Complete);
    let written = connection.write(&bytes).await;
    if written == Err(Closed) {
        shared.record_end(index, Outcome::ClientClosed);
    }
    match written {
        Err(Closed) => After::Drop,
        Ok(()) if keep_alive => After::KeepAlive,
        Ok(()) => After::Close,
    }
}
