//! From an HTTP response to a stream of what it means, with the time limits that hold while it is read.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::time::{timeout, timeout_at};

use crate::frames::{Frame, Frames};
use crate::http::{Waits, slow};
use crate::{Delta, DeltaStream, End, EndReason, Error, Usage};

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

    /// Whether an item is content, so that the server has begun to answer.
    fn is_content(_item: &Self::Item) -> bool {
        true
    }

    /// The item that proves the normal end, if what came so far does so although the server has not ended the stream properly.
    fn settled(&self) -> Option<Self::Item>;
}

struct Reader<B, P: Protocol> {
    /// `None` when there is nothing more to read.
    body: Option<B>,
    frames: Frames,
    protocol: P,
    ready: VecDeque<P::Item>,
    /// What follows `ready`.
    failed: Option<Error>,
    waits: Waits,
    /// Whether any byte has come.
    begun: bool,
    /// Whether any content has come.
    content: bool,
    over: bool,
}

/// The items of a response's `body`, read within these limits.
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
        begun: false,
        content: false,
        over: false,
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
                self.content |= P::is_content(&item);
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
                self.body = None;
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
        let Some(body) = &mut self.body else {
            self.fail(Error::Transport(String::from(
                "the server closed the connection before the answer was complete",
            )));
            return;
        };
        let idle = match self.protocol.settled() {
            Some(_) => CLOSING.min(self.waits.idle),
            None if self.content => self.waits.idle,
            // Some servers send a head or comments at once and evaluate the prompt then.
            None => self.waits.first_byte,
        };
        let read = match self.begun {
            false => timeout_at(self.waits.deadline, body.next()).await,
            true => timeout(idle, body.next()).await,
        };
        match read {
            Ok(Some(Ok(bytes))) => {
                // An empty chunk is no byte.
                self.begun |= !bytes.is_empty();
                self.frames.push(&bytes);
            }
            Ok(None) => {
                self.body = None;
                self.frames.finish();
                // What finishing uncovers is read first; then the missing body is found.
            }
            Ok(Some(Err(why))) => {
                self.fail(Error::Transport(format!("the connection broke during the answer: {why}")));
            }
            Err(_) if !self.content && self.protocol.settled().is_none() => {
                let seconds = self.waits.first_byte.as_secs_f64();
                let why = format!("the server did not begin its answer within {seconds} s");
                self.fail(slow(why, self.waits.patient));
            }
            Err(_) => {
                let seconds = idle.as_secs_f64();
                self.fail(Error::Timeout(format!(
                    "the server fell silent for {seconds} s in the middle of the answer"
                )));
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
        if let Some(mut body) = self.body.take() {
            tokio::spawn(timeout(CLOSING, async move { while let Some(Ok(_)) = body.next().await {} }));
        }
    }
}

/// How many pieces of text a server may send for each token it was allowed to generate. A piece is a token or more with every server we know; proxies that
/// cut tokens up do not cut them smaller than into letters.
const PIECES_PER_TOKEN: u64 = 8;

/// Ends an answer, as one that reached its limit, whose server goes on far beyond the limit it was given.
pub(crate) fn bounded(
    deltas: impl Stream<Item = Result<Delta, Error>> + Send + 'static,
    max_tokens: u32,
) -> DeltaStream {
    let most = u64::from(max_tokens) * PIECES_PER_TOKEN;
    let (mut pieces, mut usage, mut over) = (0, Usage::default(), false);
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
                // The end is the last thing that comes; dropping the rest closes the connection.
                let go_on = !over;
                over = matches!(delta, Ok(Delta::End(_)));
                std::future::ready(go_on)
            }),
    )
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

/// Waits for the first piece of an answer, and gives the whole answer back with the error that it begins with, if it does: a refusal
/// inside a response of status 200 is met before anything was passed on.
pub(crate) async fn peeked(mut deltas: DeltaStream) -> (Option<Error>, DeltaStream) {
    let first = deltas.next().await;
    let failed = first.as_ref().and_then(|first| first.as_ref().err().cloned());
    (failed, Box::pin(stream::iter(first).chain(deltas)))
}

/// Whether a piece is content: text, thoughts, a call, or the end.
pub(crate) fn is_content(delta: &Delta) -> bool {
    !matches!(delta, Delta::Progress { .. } | Delta::Usage(_))
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
            Delta::Progress { .. } | Delta::Usage(_) | Delta::Doubt { .. } => {}
            Delta::End(end) => return Ok(Answer { text, thinking, calls, end }),
        }
    }
    Err(Error::Transport(String::from("the answer stopped without an end")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// Every frame is a text, except for `"end"`; `"settle"` proves the end without being it.
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

        fn is_end(item: &Delta) -> bool {
            matches!(item, Delta::End(_))
        }

        fn settled(&self) -> Option<Delta> {
            self.settled.then(end)
        }
    }

    /// Plays pieces after pauses, in the test's own time, then stays silent or ends.
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
    async fn the_first_byte_and_the_silence_after_it_have_their_own_limits() {
        assert!(matches!(
            &play(&[(599, ": loading\n\n"), (299, "data: [\"end\"]\n\n")], true).await[..],
            [Ok(Delta::End(_))]
        ));
        assert!(matches!(&play(&[(601, "[1]\n")], true).await[..], [Err(Error::Slow(_))]));
        // A head or a comment is no answer yet: the prompt may still be under evaluation.
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
    async fn comments_and_blank_lines_are_life() {
        let pieces = [(290, ":\n\n"), (290, "\n"), (290, ": x\n"), (290, "data: [\"end\"]\n\n")];
        assert!(matches!(&play(&pieces, true).await[..], [Ok(Delta::End(_))]));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_limit_in_all() {
        let long: Vec<_> = (0..100).map(|_| (299, "[1]\n")).chain([(1, "[\"end\"]\n")]).collect();
        assert_eq!(play(&long, true).await.len(), 101);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_of_one_byte_a_second_is_an_answer() {
        let text = format!("[\"{}\"]\n[\"end\"]\n", "slow ".repeat(400));
        let letters: Vec<(u64, &str)> = (0..text.len()).map(|at| (1, &text[at..=at])).collect();
        assert!(matches!(&play(&letters, true).await[..], [Ok(Delta::Text(_)), Ok(Delta::End(_))]));
    }

    #[tokio::test]
    async fn a_server_that_goes_on_far_beyond_the_limit_is_ended_as_by_the_limit() {
        let endless = stream::iter((0_u32..).map(|n| Ok(Delta::Text(n.to_string()))));
        let answer = collect(bounded(endless, 10)).await.unwrap();
        assert_eq!(answer.end.reason, EndReason::Length);
        assert!(answer.text.ends_with("7879"), "80 pieces: {}", answer.text);
        let whole = stream::iter([Ok(Delta::Text(String::from("x"))), Ok(end())]);
        let all: Vec<_> = bounded(whole, 10).collect().await;
        assert_eq!(all.len(), 2, "nothing is lost of others: {all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_proved_its_end_is_complete_however_the_stream_ends() {
        let settled = (1, "[\"settle\"]\n");
        assert!(matches!(&play(&[settled], false).await[..], [Ok(Delta::End(_))]));
        assert!(matches!(&play(&[settled, (1, "broken")], false).await[..], [Ok(Delta::End(_))]));
        let before = Instant::now();
        assert!(matches!(&play(&[settled], true).await[..], [Ok(Delta::End(_))]));
        assert!(before.elapsed() < Duration::from_secs(10), "a server that stays open is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn without_that_proof_an_end_is_a_failure_and_what_came_before_it_is_kept() {
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
