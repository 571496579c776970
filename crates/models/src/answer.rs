//! From an HTTP response to a stream of what it means, with the time limits that hold while it is read.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::frames::{Frame, Frames};
use crate::http::root;
use crate::{Delta, DeltaStream, End, Error};

/// How long a server may take to close a stream whose last content has come, before that is held to be its end.
const CLOSING: Duration = Duration::from_secs(5);

/// How a server's frames read: the state of one answer.
pub(crate) trait Protocol: Send + 'static {
    /// What an answer consists of.
    type Item: Send + 'static;

    /// Reads one frame into items.
    fn frame(&mut self, frame: Frame, out: &mut VecDeque<Self::Item>) -> Result<(), Error>;

    /// Whether an item proves the normal end, so that the stream ends with it.
    fn is_end(item: &Self::Item) -> bool;

    /// The item that proves the normal end, if what came so far does so although the server has not ended the stream properly.
    fn settled(&self) -> Option<Self::Item>;
}

struct Reader<P: Protocol> {
    /// `None` when there is nothing more to read.
    response: Option<Response>,
    frames: Frames,
    protocol: P,
    ready: VecDeque<P::Item>,
    /// What follows `ready`.
    failed: Option<Error>,
    first_byte: Option<Instant>,
    idle: Duration,
    over: bool,
}

/// The items of `response`, whose first byte must be there at `first_byte`.
pub(crate) fn items<P: Protocol>(
    response: Response,
    first_byte: Instant,
    idle: Duration,
    protocol: P,
) -> impl Stream<Item = Result<P::Item, Error>> + Send {
    let reader = Reader {
        response: Some(response),
        frames: Frames::default(),
        protocol,
        ready: VecDeque::new(),
        failed: None,
        first_byte: Some(first_byte),
        idle,
        over: false,
    };
    stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    })
}

impl<P: Protocol> Reader<P> {
    async fn next(&mut self) -> Option<Result<P::Item, Error>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if P::is_end(&item) {
                    self.over = true;
                    self.ready.clear();
                    self.failed = None;
                    self.give_back();
                }
                return Some(Ok(item));
            }
            if let Some(error) = self.failed.take() {
                self.over = true;
                self.response = None;
                return Some(Err(error));
            }
            if self.over {
                return None;
            }
            match self.frames.next_frame() {
                Some(Ok(frame)) => {
                    if let Err(error) = self.protocol.frame(frame, &mut self.ready) {
                        self.failed = Some(error);
                    }
                }
                Some(Err(error)) => self.fail(error),
                None => self.read().await,
            }
        }
    }

    async fn read(&mut self) {
        let Some(response) = &mut self.response else {
            self.fail(Error::Transport(String::from(
                "the server closed the connection before the answer was complete",
            )));
            return;
        };
        let idle = if self.protocol.settled().is_some() { CLOSING.min(self.idle) } else { self.idle };
        let read = match self.first_byte {
            Some(deadline) => timeout_at(deadline, response.chunk()).await,
            None => timeout(idle, response.chunk()).await,
        };
        match read {
            Ok(Ok(Some(bytes))) => {
                // An empty chunk is no byte.
                if !bytes.is_empty() {
                    self.first_byte = None;
                }
                self.frames.push(&bytes);
            }
            Ok(Ok(None)) => {
                self.response = None;
                self.frames.finish();
                // What finishing uncovers is read first; then the missing response is found.
            }
            Ok(Err(why)) => {
                self.fail(Error::Transport(format!("the connection broke during the answer: {}", root(&why))));
            }
            Err(_) if self.first_byte.is_some() => self.fail(Error::Timeout(String::from(
                "the server sent nothing within the first-byte limit; it may be loading, or busy with another client",
            ))),
            Err(_) => {
                let seconds = idle.as_secs_f64();
                self.fail(Error::Timeout(format!("the server fell silent for {seconds} s in the middle of the answer")));
            }
        }
    }

    /// An error, unless the answer was complete without what is missing.
    fn fail(&mut self, error: Error) {
        match self.protocol.settled() {
            Some(end) => self.ready.push_back(end),
            None => self.failed = Some(error),
        }
    }

    /// Reads the little that follows the end, so that the connection can serve the next request.
    fn give_back(&mut self) {
        if let Some(mut response) = self.response.take() {
            tokio::spawn(timeout(CLOSING, async move { while let Ok(Some(_)) = response.chunk().await {} }));
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Visible text.
    pub text: String,
    /// Reasoning, empty if there was none.
    pub thinking: String,
    /// Native tool calls: name and arguments.
    pub calls: Vec<(String, Value)>,
    /// How it ended.
    pub end: End,
}

/// Reads a stream to its end.
///
/// # Errors
/// The stream's error; [`Error::Transport`] if it stops without an end.
pub async fn collect(mut deltas: DeltaStream) -> Result<Answer, Error> {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    while let Some(delta) = deltas.next().await {
        match delta? {
            Delta::Text(piece) => text.push_str(&piece),
            Delta::Thinking(piece) => thinking.push_str(&piece),
            Delta::ToolCall { name, arguments } => calls.push((name, arguments)),
            Delta::Progress { .. } | Delta::Usage(_) => {}
            Delta::End(end) => return Ok(Answer { text, thinking, calls, end }),
        }
    }
    Err(Error::Transport(String::from("the answer stopped without an end")))
}
