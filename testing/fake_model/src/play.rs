//! Plays a [`Reply`] to a client: encodes its steps, writes them to the connection, and waits at
//! gates.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::encode::{Answer, Counts, Encoder, IdCall, error_body};
use crate::http::{self, Closed, Connection};
use crate::record::Outcome;
use crate::reply::{Call, End, Endless, Reply, Step};
use crate::respond::After;
use crate::state::Shared;
use crate::tokens;

/// A reply in progress.
pub(crate) struct Player<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) shared: &'a Shared,
    /// The index of the request in the record.
    pub(crate) index: usize,
    pub(crate) keep_alive: bool,
    pub(crate) encoder: Encoder,
    pub(crate) stream: bool,
    pub(crate) counts: Counts,
    /// The token limit of the request, including thinking.
    pub(crate) limit: Option<u64>,
    reply: Reply,
    /// The generation that this reply answers, or `None` if the reply is scripted for a path or has
    /// a status other than 200.
    pub(crate) turn: Option<Turn>,
    out: Out,
    answer: Answer,
    /// The generated text, as the prefix cache stores it.
    generated: String,
}

/// How a generation changes the state of the server.
pub(crate) struct Turn {
    pub(crate) model: String,
    pub(crate) prompt: String,
    /// Whether the request asked to unload the model afterwards.
    pub(crate) unload: bool,
}

/// The bytes to write next. `chunks` counts the protocol events among them, and `body` counts the
/// body bytes. Both counts go into the reply's record.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    chunks: usize,
    body: usize,
}

/// Why the steps ended early.
enum Stop {
    Closed,
    /// An error step, with its text.
    Error(String),
    /// The token limit was reached.
    Limit,
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl<'a> Player<'a> {
    pub(crate) fn new(
        connection: &'a mut Connection,
        shared: &'a Shared,
        index: usize,
        encoder: Encoder,
        reply: Reply,
    ) -> Self {
        Self {
            connection,
            shared,
            index,
            keep_alive: true,
            encoder,
            stream: true,
            counts: Counts::default(),
            limit: None,
            reply,
            turn: None,
            out: Out::default(),
            answer: Answer::default(),
            generated: String::new(),
        }
    }

    pub(crate) async fn play(&mut self) -> After {
        match self.play_to_the_end().await {
            Ok(After::KeepAlive) if !self.keep_alive => After::Close,
            Ok(after) => after,
            Err(Closed) => {
                self.settle(Outcome::ClientClosed);
                After::Drop
            }
        }
    }

    /// Records the end of the reply and updates the server. Runs before the last write, so that a
    /// client that has read the end sees the update.
    fn settle(&mut self, outcome: Outcome) {
        if let Some(turn) = &self.turn {
            let (generated, slots) = (&self.generated, self.shared.parallel);
            self.shared.change(|inner| inner.cache.remember(&turn.model, &turn.prompt, generated, slots));
            if turn.unload {
                self.shared.unload(&turn.model);
            }
        }
        let generated = self.counts.generated;
        self.shared.record(self.index, |record| record.generated_tokens = generated);
        self.shared.record_end(self.index, outcome);
    }

    async fn play_to_the_end(&mut self) -> Result<After, Closed> {
        if let Some(gate) = self.reply.gate_before_headers.take() {
            self.connection.wait(self.shared.pass_gate(&gate)).await?;
        }
        if let Some(wire) = self.reply.wire.take() {
            self.out.bytes = wire.into_bytes();
            self.settle(Outcome::Complete);
            self.flush().await?;
            return Ok(After::Close);
        }
        if self.reply.status.is_some() || self.reply.body.is_some() || self.reply.error.is_some() {
            return self.plain().await;
        }
        if self.stream { self.streamed().await } else { self.whole().await }
    }

    async fn plain(&mut self) -> Result<After, Closed> {
        let status = self.reply.status.unwrap_or(200);
        let body = match (&self.reply.error, self.reply.body.take()) {
            (Some(text), _) => Some(error_body(self.encoder.dialect, status, text)),
            (None, body) => body,
        };
        let (content_type, bytes) = match body {
            Some(Value::String(text)) => ("text/plain; charset=utf-8", text.into_bytes()),
            Some(value) => ("application/json; charset=utf-8", value.to_string().into_bytes()),
            None => ("text/plain; charset=utf-8", Vec::new()),
        };
        self.respond(status, content_type, &bytes).await
    }

    /// Sends a response with a `Content-Length`.
    async fn respond(&mut self, status: u16, content_type: &str, body: &[u8]) -> Result<After, Closed> {
        self.shared.record(self.index, |record| record.status = status);
        let content_type = self.reply.content_type.clone().unwrap_or_else(|| content_type.to_owned());
        let headers: Vec<_> = self.reply.headers.clone().into_iter().collect();
        let mut bytes = http::head(status, Some(&content_type), &headers, Some(body.len()), self.keep_alive);
        bytes.extend_from_slice(body);
        self.settle(Outcome::Complete);
        (self.out.chunks, self.out.body) = (1, body.len());
        let pieces = bytes.chunks(self.reply.split_bytes.unwrap_or(usize::MAX));
        for piece in pieces {
            self.out.bytes.extend_from_slice(piece);
            self.flush().await?;
        }
        Ok(After::KeepAlive)
    }

    async fn streamed(&mut self) -> Result<After, Closed> {
        self.shared.record(self.index, |record| record.status = 200);
        let content_type =
            self.reply.content_type.clone().unwrap_or_else(|| self.encoder.content_type(true).to_owned());
        let headers: Vec<_> = self.reply.headers.clone().into_iter().collect();
        self.out.bytes = http::head(200, Some(&content_type), &headers, None, self.keep_alive);
        if let Some(gate) = self.reply.gate_after_headers.take() {
            self.flush().await?;
            self.connection.wait(self.shared.pass_gate(&gate)).await?;
        }
        if let Some(body) = self.reply.recorded.take() {
            self.body(&body).await?;
            return self.end_http().await;
        }
        let mut pending = Vec::new();
        let stopped = self.steps(&mut pending).await;
        match stopped {
            Err(Stop::Closed) => return Err(Closed),
            Err(Stop::Error(text)) => {
                let event = self.encoder.error(&text);
                self.reply.late_burst = true;
                self.emit(vec![event]).await?;
                return self.end_http().await;
            }
            Ok(()) | Err(Stop::Limit) => {}
        }
        let limited = matches!(stopped, Err(Stop::Limit));
        if matches!(self.reply.end, End::Done | End::NoMarker) {
            self.answer.calls.extend(pending.iter().cloned());
            let reason = self.reason(limited);
            let events = self.encoder.finish(
                &reason,
                &self.counts,
                &pending,
                self.reply.end == End::Done,
                self.reply.usage_chunk,
            );
            // These events are sent in the same write as the last HTTP chunk. A client that
            // disconnects as soon as it sees the done marker has therefore received the whole
            // response.
            self.reply.late_burst = true;
            self.emit(events).await?;
        }
        self.end_http().await
    }

    /// Plays the steps for `stream: false`. Nothing is sent before the last step.
    async fn whole(&mut self) -> Result<After, Closed> {
        let mut pending = Vec::new();
        let stopped = self.steps(&mut pending).await;
        self.answer.calls.extend(pending);
        let limited = matches!(stopped, Err(Stop::Limit));
        match stopped {
            Err(Stop::Closed) => return Err(Closed),
            Err(Stop::Error(text)) => {
                let body = error_body(self.encoder.dialect, 500, &text).to_string();
                return self.respond(500, "application/json; charset=utf-8", body.as_bytes()).await;
            }
            Ok(()) | Err(Stop::Limit) => {}
        }
        let reason = self.reason(limited);
        match self.reply.end {
            End::Cut => return Ok(After::Close),
            End::Reset => {
                self.connection.reset_on_close();
                return Ok(After::Drop);
            }
            End::Done | End::NoMarker | End::Eof => {}
        }
        let reason = (self.reply.end != End::Eof).then_some(reason.as_str());
        let body = self.encoder.whole(&self.answer, reason, &self.counts).to_string();
        let content_type = self.encoder.content_type(false);
        self.respond(200, content_type, body.as_bytes()).await
    }

    fn reason(&self, limited: bool) -> String {
        let openai = matches!(self.encoder.dialect, crate::encode::Dialect::OpenAi(_));
        match &self.reply.done_reason {
            Some(reason) => reason.clone(),
            None if limited => "length".into(),
            None if openai && !self.answer.calls.is_empty() => "tool_calls".into(),
            None => "stop".into(),
        }
    }

    async fn steps(&mut self, pending: &mut Vec<IdCall>) -> Result<(), Stop> {
        if self.stream && !self.reply.steps.is_empty() {
            let opening = self.encoder.open(&self.counts);
            self.emit(opening).await?;
        }
        for step in std::mem::take(&mut self.reply.steps) {
            match step {
                Step::Text(text) => {
                    for piece in tokens::split(&text) {
                        self.text(piece).await?;
                    }
                }
                Step::Chunks(chunks) => {
                    for chunk in chunks {
                        self.text(&chunk).await?;
                    }
                }
                Step::Thinking(text) => {
                    for piece in tokens::split(&text) {
                        self.think(piece).await?;
                    }
                }
                Step::ToolCall(call) => self.call(vec![call], pending).await?,
                Step::ToolCalls(calls) => self.call(calls, pending).await?,
                Step::Json(value) => {
                    let event = self.encoder.json(&value);
                    self.emit(vec![event]).await?;
                }
                Step::Raw(text) => self.emit(vec![text.into_bytes()]).await?,
                Step::RawBytes(bytes) => self.emit(vec![bytes]).await?,
                Step::Comment(text) => {
                    let comment = self.encoder.comment(&text);
                    self.emit(comment.into_iter().collect()).await?;
                }
                Step::Gate(name) => self.connection.wait(self.shared.pass_gate(&name)).await?,
                Step::Mark(name) => {
                    self.shared.record(self.index, |record| record.marks.push((name, Instant::now())));
                }
                Step::PauseMs(ms) => {
                    self.connection.wait(tokio::time::sleep(Duration::from_millis(ms))).await?;
                }
                Step::Filler { ms, every_ms } => self.fill(ms, every_ms).await?,
                Step::ErrorLine(text) => return Err(Stop::Error(text)),
                Step::Endless(endless) => self.send_forever(&endless).await?,
            }
        }
        // Calls that share a chunk are sent here. Calls for the final chunk stay pending.
        if !pending.is_empty() && !self.reply.calls_in_final_chunk {
            let calls = std::mem::take(pending);
            self.emit_calls(&calls).await?;
        }
        Ok(())
    }

    async fn text(&mut self, piece: &str) -> Result<(), Stop> {
        self.token(false)?;
        self.generated.push_str(piece);
        self.answer.text.push_str(piece);
        let event = self.encoder.text(piece);
        Ok(self.emit(vec![event]).await?)
    }

    async fn think(&mut self, piece: &str) -> Result<(), Stop> {
        self.token(true)?;
        self.generated.push_str(piece);
        self.answer.thinking.push_str(piece);
        let event = self.encoder.thinking(piece);
        Ok(self.emit(vec![event]).await?)
    }

    async fn call(&mut self, calls: Vec<Call>, pending: &mut Vec<IdCall>) -> Result<(), Stop> {
        let mut given = Vec::new();
        for call in calls {
            self.generated.push_str(&crate::prompt::rendered_call(&call.name, &call.arguments));
            for _ in tokens::split(&call.arguments.to_string()) {
                self.token(false)?;
            }
            given.push(IdCall { id: self.shared.call_id(), call });
        }
        if self.reply.calls_together || self.reply.calls_in_final_chunk {
            pending.extend(given);
            return Ok(());
        }
        Ok(self.emit_calls(&given).await?)
    }

    async fn emit_calls(&mut self, calls: &[IdCall]) -> Result<(), Closed> {
        self.answer.calls.extend(calls.iter().cloned());
        if self.stream {
            let events = self.encoder.calls(calls);
            self.emit(events).await?;
        }
        Ok(())
    }

    fn token(&mut self, thinking: bool) -> Result<(), Stop> {
        if self.limit.is_some_and(|limit| self.counts.generated >= limit) {
            return Err(Stop::Limit);
        }
        self.counts.generated += 1;
        self.counts.thinking += u64::from(thinking);
        Ok(())
    }

    async fn fill(&mut self, ms: u64, every_ms: u64) -> Result<(), Stop> {
        let end = Instant::now() + Duration::from_millis(ms);
        loop {
            self.connection.wait(tokio::time::sleep(Duration::from_millis(every_ms.max(1)))).await?;
            self.text(" filler").await?;
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    async fn send_forever(&mut self, endless: &Endless) -> Result<(), Closed> {
        if !self.stream {
            return self.connection.wait(std::future::pending()).await;
        }
        let piece = match endless {
            Endless::Chunks(text) => self.encoder.text(text),
            Endless::Line => {
                let start = self.encoder.unfinished_line();
                self.emit(vec![start]).await?;
                vec![b'x'; 4096]
            }
        };
        loop {
            self.counts.generated += 1;
            self.emit(vec![piece.clone()]).await?;
        }
    }

    /// Sends each protocol event in its own HTTP chunks.
    async fn emit(&mut self, events: Vec<Vec<u8>>) -> Result<(), Closed> {
        if !self.stream {
            return Ok(());
        }
        for event in events {
            if self.reply.comments
                && let Some(comment) = self.encoder.comment("keep-alive")
            {
                self.body(&comment).await?;
            }
            self.body(&event).await?;
        }
        Ok(())
    }

    async fn body(&mut self, event: &[u8]) -> Result<(), Closed> {
        if event.is_empty() {
            return Ok(()); // an empty HTTP chunk would end the body
        }
        self.out.chunks += 1;
        for piece in event.chunks(self.reply.split_bytes.unwrap_or(usize::MAX)) {
            http::frame(piece, &mut self.out.bytes);
            self.out.body += piece.len();
            if !self.reply.late_burst {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Ends the body as scripted.
    async fn end_http(&mut self) -> Result<After, Closed> {
        let after = match self.reply.end {
            End::Cut => After::Close,
            End::Reset => {
                self.connection.reset_on_close();
                After::Drop
            }
            End::Done | End::NoMarker | End::Eof => {
                self.out.bytes.extend_from_slice(b"0\r\n\r\n");
                After::KeepAlive
            }
        };
        self.settle(Outcome::Complete);
        self.flush().await?;
        Ok(after)
    }

    /// Writes the pending bytes. The record is updated first, so that it is already correct by the
    /// time a client has read the bytes. If the write fails, the record is restored.
    async fn flush(&mut self) -> Result<(), Closed> {
        let out = std::mem::take(&mut self.out);
        let (now, generated) = (Instant::now(), self.counts.generated);
        let before = self.shared.record(self.index, |record| {
            let before = record.clone();
            record.chunks += out.chunks;
            record.bytes += out.body as u64;
            record.generated_tokens = generated;
            record.first_byte_at.get_or_insert(now);
            record.last_byte_at = Some(now);
            before
        });
        let written = self.connection.write(&out.bytes).await;
        if let (Err(Closed), Some(before)) = (written, before) {
            self.shared.record(self.index, |record| *record = before);
        }
        written
    }
}
