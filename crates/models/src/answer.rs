//! Turns an HTTP response into a stream of items, subject to time limits.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::time::{timeout, timeout_at};

use crate::failure::{Body, Failure};
use crate::frames::{Frame, Frames};
use crate::http::{ByteStream, Waits, slow};
use crate::{Delta, DeltaStream, End, EndReason, Error, Usage};

/// How long a server may take to close a stream after the answer is complete.
const CLOSING: Duration = Duration::from_secs(5);

/// The decoder for one server's protocol. Each instance holds the state of a single answer.
pub(crate) trait Protocol: Send + 'static {
    /// The type of item that an answer consists of.
    type Item: Item;

    /// Decodes one frame into items.
    fn frame(&mut self, frame: Frame, out: &mut VecDeque<Self::Item>) -> Result<(), Error>;

    /// Returns the item that ends the stream if nothing more arrives, or `None` while the answer is
    /// incomplete.
    fn settled(&self) -> Option<Self::Item> {
        None
    }
}

/// A piece of an answer: a delta, or the progress of a download.
pub(crate) trait Item: Send + 'static {
    /// Returns whether the item marks normal completion and ends the stream.
    fn is_end(&self) -> bool;

    /// Returns whether the item is content, which shows that the server has started to answer.
    fn is_content(&self) -> bool {
        true
    }
}

impl Item for Delta {
    fn is_end(&self) -> bool {
        matches!(self, Delta::End(_))
    }

    fn is_content(&self) -> bool {
        !matches!(self, Delta::Progress { .. } | Delta::Usage(_))
    }
}

/// Returns the JSON object in a frame, or the error if the server sent one instead.
pub(crate) fn object(value: Value) -> Result<Value, Error> {
    if value.get("error").is_some_and(|error| !error.is_null()) || value["object"] == "error" {
        return Err(Body::from_json(&value).mid_stream());
    }
    if !value.is_object() {
        return Err(Error::Protocol(format!("the server sent {value} instead of an object")));
    }
    Ok(value)
}

struct Reader<B, P: Protocol> {
    /// `None` once the response has ended.
    body: Option<B>,
    frames: Frames,
    protocol: P,
    ready: VecDeque<P::Item>,
    /// The error to return after the items in `ready`.
    failed: Option<Error>,
    waits: Waits,
    /// Whether any byte has arrived.
    started: bool,
    /// Whether any content has arrived.
    content: bool,
    ended: bool,
}

/// Reads the items in a response's `body`, subject to time limits.
pub(crate) fn items<P: Protocol>(
    body: impl Stream<Item = Result<Bytes, String>> + Send + Unpin + 'static,
    waits: Waits,
    protocol: P,
) -> impl Stream<Item = Result<P::Item, Error>> + Send {
    let reader = Reader {
        body: Some(body),
        frames: Frames::default(),
        protocol,
        ready: VecDeque::new(),
        failed: None,
        waits,
        started: false,
        content: false,
        ended: false,
    };
    stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    })
}

impl<B, P> Reader<B, P>
where
    B: Stream<Item = Result<Bytes, String>> + Send + Unpin + 'static,
    P: Protocol,
{
    async fn next(&mut self) -> Option<Result<P::Item, Error>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.content |= item.is_content();
                if item.is_end() {
                    self.ended = true;
                    self.ready.clear();
                    self.failed = None;
                    self.drain();
                }
                return Some(Ok(item));
            }
            if let Some(error) = self.failed.take() {
                self.ended = true;
                self.body = None;
                return Some(Err(error));
            }
            if self.ended {
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
        let Some(body) = &mut self.body else {
            self.fail(Error::Transport(String::from(
                "the server closed the connection before the answer was complete",
            )));
            return;
        };
        let idle = match self.protocol.settled() {
            Some(_) => CLOSING.min(self.waits.idle),
            None if self.content => self.waits.idle,
            // Some servers send headers or comments right away, before they evaluate the prompt.
            None => self.waits.first_byte,
        };
        let read = match self.started {
            false => timeout_at(self.waits.deadline, body.next()).await,
            true => timeout(idle, body.next()).await,
        };
        match read {
            Ok(Some(Ok(bytes))) => {
                // An empty chunk does not count as the first byte.
                self.started |= !bytes.is_empty();
                self.frames.push(&bytes);
            }
            Ok(None) => {
                self.body = None;
                self.frames.finish();
                // This is not an error yet: frames may still be buffered. Once those are used up,
                // the next read finds no body and fails.
            }
            Ok(Some(Err(why))) => {
                self.fail(Error::Transport(format!("the connection failed during the answer: {why}")));
            }
            Err(_) if !self.content && self.protocol.settled().is_none() => {
                let seconds = self.waits.first_byte.as_secs_f64();
                let why = format!("the server did not start its answer within {seconds} s");
                self.fail(slow(why, self.waits.patient));
            }
            Err(_) => {
                let seconds = idle.as_secs_f64();
                self.fail(Error::Timeout(format!(
                    "the server sent nothing for {seconds} s in the middle of the answer"
                )));
            }
        }
    }

    /// Ends with an error, unless the answer is already complete.
    fn fail(&mut self, error: Error) {
        match self.protocol.settled() {
            Some(end) => self.ready.push_back(end),
            None => self.failed = Some(error),
        }
    }

    /// Reads the few bytes after the end, so that the connection can be reused for the next
    /// request.
    fn drain(&mut self) {
        if let Some(mut body) = self.body.take() {
            tokio::spawn(timeout(CLOSING, async move { while let Some(Ok(_)) = body.next().await {} }));
        }
    }
}

/// Maximum number of text pieces per token of `max_tokens`. Every known server sends at least one
/// token per piece. A proxy may split tokens, but each piece still contains at least one character.
const PIECES_PER_TOKEN: u64 = 8;

/// Ends an answer that runs far past its token limit, as if the server had stopped at the limit.
pub(crate) fn bounded(
    deltas: impl Stream<Item = Result<Delta, Error>> + Send + 'static,
    max_tokens: u32,
) -> DeltaStream {
    let most = u64::from(max_tokens) * PIECES_PER_TOKEN;
    let (mut pieces, mut usage, mut ended) = (0, Usage::default(), false);
    Box::pin(
        deltas
            .map(move |delta| {
                match &delta {
                    Ok(Delta::Text(_) | Delta::Thinking(_)) => pieces += 1,
                    Ok(Delta::Usage(known)) => usage = *known,
                    _ => {}
                }
                if pieces > most { Ok(Delta::End(End { reason: EndReason::Length, usage })) } else { delta }
            })
            .take_while(move |delta| {
                // Return nothing after the end. Dropping the rest closes the connection.
                let take = !ended;
                ended = matches!(delta, Ok(Delta::End(_)));
                std::future::ready(take)
            }),
    )
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Visible text.
    pub text: String,
    /// Reasoning; empty if there was none.
    pub thinking: String,
    /// Native tool calls: name and arguments.
    pub calls: Vec<(String, Value)>,
    /// How the answer ended.
    pub end: End,
}

/// Waits for the first item of an answer, because some servers send a refusal with status 200.
/// Returns the error that arrived in place of the first item, if any; the refusal that the error
/// contains, if any; and the whole answer, including the first item. This lets the caller change
/// the request and send it again before passing on any item.
pub(crate) async fn start(
    (body, waits): (ByteStream, Waits),
    protocol: impl Protocol<Item = Delta>,
    max_tokens: u32,
) -> (Option<Error>, Option<Failure>, DeltaStream) {
    let mut deltas = bounded(items(body, waits, protocol), max_tokens);
    let first = deltas.next().await;
    let failed = first.as_ref().and_then(|first| first.as_ref().err().cloned());
    let refusal = failed.as_ref().and_then(Failure::of_stream);
    (failed, refusal, Box::pin(stream::iter(first).chain(deltas)))
}

/// Encodes a request body as JSON.
pub(crate) fn encode(body: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body)
        .map_err(|why| Error::Refused(format!("cannot encode the request as JSON: {why}")))
}

/// Reads a stream to the end.
///
/// # Errors
/// Returns the stream's error, or [`Error::Transport`] if the stream stops without an end.
pub async fn collect(mut deltas: DeltaStream) -> Result<Answer, Error> {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    while let Some(delta) = deltas.next().await {
        match delta? {
            Delta::Text(piece) => text.push_str(&piece),
            Delta::Thinking(piece) => thinking.push_str(&piece),
            Delta::ToolCall { name, arguments } => calls.push((name, arguments)),
            Delta::Progress { .. } | Delta::Usage(_) | Delta::Doubt { .. } => {}
            Delta::End(end) => return Ok(Answer { text, thinking, calls, end }),
        }
    }
    Err(Error::Transport(String::from("the answer stopped before it was complete")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// A protocol in which every frame is text, except `"end"`, which ends the answer, and
    /// `"settle"`, which makes the answer complete without ending it.
    #[derive(Default)]
    struct Plain {
        settled: bool,
    }

    fn end() -> Delta {
        Delta::End(End { reason: EndReason::Stop, usage: Usage::default() })
    }

    impl Protocol for Plain {
        type Item = Delta;

        fn frame(&mut self, frame: Frame, out: &mut VecDeque<Delta>) -> Result<(), Error> {
            match frame {
                Frame::Json(Value::Array(list)) if list[0] == "end" => out.push_back(end()),
                Frame::Json(Value::Array(list)) if list[0] == "settle" => self.settled = true,
                Frame::Json(value) => out.push_back(Delta::Text(value.to_string())),
                Frame::Done => {}
            }
            Ok(())
        }

        fn settled(&self) -> Option<Delta> {
            self.settled.then(end)
        }
    }

    /// Sends each piece after its pause in simulated time, then stays silent or ends the body.
    /// Returns the items that were read.
    async fn play(pieces: &[(u64, &str)], silent: bool) -> Vec<Result<Delta, Error>> {
        let pieces: Vec<_> =
            pieces.iter().map(|(pause, text)| (*pause, Bytes::from(text.to_string()))).collect();
        let body = stream::iter(pieces).then(|(pause, text)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            if text == "broken" { Err(String::from("reset")) } else { Ok(text) }
        });
        let tail = stream::once(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            Ok(Bytes::new())
        });
        let first_byte = Duration::from_secs(600);
        let deadline = Instant::now() + first_byte;
        let waits = Waits { deadline, first_byte, idle: Duration::from_secs(300), patient: true };
        items(Box::pin(body.chain(tail)), waits, Plain::default()).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_and_later_silence_have_separate_limits() {
        assert!(matches!(
            &play(&[(599, ": loading\n\n"), (299, "data: [\"end\"]\n\n")], true).await[..],
            [Ok(Delta::End(_))]
        ));
        assert!(matches!(&play(&[(601, "[1]\n")], true).await[..], [Err(Error::Slow(_))]));
        // After headers or a comment, the server may still be evaluating the prompt.
        assert!(matches!(
            &play(&[(1, ": hello\n\n"), (599, "data: [\"end\"]\n\n")], true).await[..],
            [Ok(Delta::End(_))]
        ));
        assert!(matches!(
            &play(&[(1, ": hello\n\n"), (601, "data: [1]\n\n")], true).await[..],
            [Err(Error::Slow(_))]
        ));
        assert!(matches!(
            &play(&[(1, "[1]\n"), (301, "[2]\n")], true).await[..],
            [Ok(_), Err(Error::Timeout(_))]
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn comments_and_blank_lines_reset_the_idle_timeout() {
        let pieces = [(290, ":\n\n"), (290, "\n"), (290, ": x\n"), (290, "data: [\"end\"]\n\n")];
        assert!(matches!(&play(&pieces, true).await[..], [Ok(Delta::End(_))]));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_total_timeout() {
        let long: Vec<_> = (0..100).map(|_| (299, "[1]\n")).chain([(1, "[\"end\"]\n")]).collect();
        assert_eq!(play(&long, true).await.len(), 101);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_one_byte_per_second_does_not_time_out() {
        let text = format!("[\"{}\"]\n[\"end\"]\n", "slow ".repeat(400));
        let letters: Vec<(u64, &str)> = (0..text.len()).map(|at| (1, &text[at..=at])).collect();
        assert!(matches!(&play(&letters, true).await[..], [Ok(Delta::Text(_)), Ok(Delta::End(_))]));
    }

    #[tokio::test]
    async fn an_answer_far_beyond_its_limit_ends_as_if_at_the_limit() {
        let endless = stream::iter((0_u32..).map(|n| Ok(Delta::Text(n.to_string()))));
        let answer = collect(bounded(endless, 10)).await.unwrap();
        assert_eq!(answer.end.reason, EndReason::Length);
        assert!(answer.text.ends_with("7879"), "80 pieces: {}", answer.text);
        let whole = stream::iter([Ok(Delta::Text(String::from("x"))), Ok(end())]);
        let all: Vec<_> = bounded(whole, 10).collect().await;
        assert_eq!(all.len(), 2, "other answers should lose nothing: {all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_answer_stays_complete_however_the_stream_ends() {
        let settled = (1, "[\"settle\"]\n");
        assert!(matches!(&play(&[settled], false).await[..], [Ok(Delta::End(_))]));
        assert!(matches!(&play(&[settled, (1, "broken")], false).await[..], [Ok(Delta::End(_))]));
        let before = Instant::now();
        assert!(matches!(&play(&[settled], true).await[..], [Ok(Delta::End(_))]));
        assert!(
            before.elapsed() < Duration::from_secs(10),
            "should not wait for a server that keeps the connection open"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_answer_keeps_its_items_and_ends_with_an_error() {
        for pieces in [&[(1, "[1]\n")][..], &[(1, "[1]\n"), (1, "broken")]] {
            assert!(
                matches!(&play(pieces, false).await[..], [Ok(Delta::Text(_)), Err(Error::Transport(_))]),
                "{pieces:?}"
            );
        }
        assert!(matches!(
            &play(&[(1, "[1]\n[2")], false).await[..],
            [Ok(Delta::Text(_)), Err(Error::Protocol(_))]
        ));
        assert!(matches!(&play(&[], false).await[..], [Err(Error::Transport(_))]));
    }
}
