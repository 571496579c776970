//! Decodes the bytes of a response from any kind of server into JSON frames.
//!
//! [`Lines`] splits bytes into lines, [`Ndjson`] and [`Sse`] decode lines, and `Frames` detects
//! which decoder a response needs. Servers and proxies answer a streaming request with NDJSON, SSE
//! or a single JSON object. Their `Content-Type` headers are unreliable, so the framing is detected
//! from the body.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::Error;

mod lines;
mod ndjson;
mod sse;

pub use lines::{LineTooLong, Lines};
pub use ndjson::Ndjson;
pub use sse::{Event, Sse};

pub(crate) use lines::MAX_LINE;
pub(crate) use ndjson::parse;

/// One unit of a response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    /// A JSON value. An SSE event named `error` becomes an object with an `error` member.
    Json(Value),
    /// The SSE end marker `[DONE]`.
    Done,
}

/// An incremental decoder that detects the framing.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    mode: Mode,
    /// All bytes so far, while the framing is undecided or the body may be a single JSON document
    /// that spans several lines.
    whole: Vec<u8>,
    /// How far `whole` has been searched for the end of its first line.
    searched: usize,
    /// The remaining frames of the last event, if it held several.
    joined: VecDeque<Frame>,
    finished: bool,
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    Undecided,
    Ndjson(Box<Ndjson>),
    Sse(Box<Sse>),
    /// A single JSON document that spans several lines.
    Whole,
    Ended,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match &mut self.mode {
            Mode::Ndjson(decoder) => decoder.push(bytes),
            Mode::Sse(decoder) => decoder.push(bytes),
            Mode::Undecided | Mode::Whole => {
                self.whole.extend_from_slice(bytes);
                self.decide();
            }
            Mode::Ended => {}
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
        match &mut self.mode {
            Mode::Ndjson(decoder) => decoder.finish(),
            Mode::Sse(decoder) => decoder.finish(),
            Mode::Undecided | Mode::Whole | Mode::Ended => {}
        }
    }

    /// Returns the next frame, or `None` until more bytes arrive.
    pub(crate) fn next_frame(&mut self) -> Option<Result<Frame, Error>> {
        match &mut self.mode {
            Mode::Ndjson(decoder) => Some(decoder.next_value()?.map(Frame::Json)),
            Mode::Sse(decoder) => {
                if let Some(frame) = self.joined.pop_front() {
                    return Some(Ok(frame));
                }
                Some(decoder.next_event()?.and_then(|event| read_event(event, &mut self.joined)))
            }
            Mode::Undecided | Mode::Whole if self.whole.len() > MAX_LINE => {
                self.mode = Mode::Ended;
                Some(Err(Error::Protocol(LineTooLong { limit: MAX_LINE }.to_string())))
            }
            Mode::Undecided | Mode::Whole if self.finished => {
                self.mode = Mode::Ended;
                let whole = std::mem::take(&mut self.whole);
                let text = whole.trim_ascii();
                (!text.is_empty()).then(|| parse(text).map(Frame::Json))
            }
            Mode::Undecided | Mode::Whole | Mode::Ended => None,
        }
    }

    fn decide(&mut self) {
        if !matches!(self.mode, Mode::Undecided) {
            return;
        }
        if self.searched > 0 && memchr::memchr2(b'\n', b'\r', &self.whole[self.searched..]).is_none() {
            self.searched = self.whole.len();
            return;
        }
        let text = self.whole.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.whole).trim_ascii_start();
        let Some(first) = text.first() else { return };
        // Wait for the rest of an incomplete byte order mark.
        if b"\xef\xbb\xbf".starts_with(text) {
            return;
        }
        if matches!(first, b'{' | b'[') {
            // The first line distinguishes NDJSON from an object that spans several lines.
            let Some(end) = memchr::memchr2(b'\n', b'\r', text) else {
                self.searched = self.whole.len();
                return;
            };
            let cut =
                serde_json::from_slice::<serde::de::IgnoredAny>(&text[..end]).is_err_and(|why| why.is_eof());
            if cut {
                self.mode = Mode::Whole;
                return;
            }
            let mut decoder = Ndjson::default();
            decoder.push(&self.whole);
            self.mode = Mode::Ndjson(Box::new(decoder));
        } else if !b":deir".contains(first) {
            // No SSE line starts this way. The body may be a web page, so read all of it in order
            // to quote it in the error.
            self.mode = Mode::Whole;
            return;
        } else {
            let mut decoder = Sse::default();
            decoder.push(&self.whole);
            self.mode = Mode::Sse(Box::new(decoder));
        }
        self.whole = Vec::new();
    }
}

/// Reads an event. If the event holds several objects, returns the first and adds the others to
/// `joined`.
fn read_event(event: Event, joined: &mut VecDeque<Frame>) -> Result<Frame, Error> {
    let read = |text: &str| match text.trim() {
        "[DONE]" => Ok(Frame::Done),
        text => parse(text.as_bytes()).map(Frame::Json),
    };
    let first = match read(&event.data) {
        Ok(frame) => frame,
        Err(error) => {
            // Some servers leave out the blank line between events. In that case, each data line is
            // an event.
            let lines: Result<VecDeque<Frame>, Error> = event.data.lines().map(read).collect();
            *joined = lines.map_err(|_| error.clone())?;
            joined.pop_front().ok_or(error)?
        }
    };
    Ok(match first {
        Frame::Json(value) if event.name == "error" && value.get("error").is_none() => {
            Frame::Json(json!({ "error": value }))
        }
        frame => frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Vec<Result<Frame, Error>> {
        let decode = |size: usize| {
            let mut decoder = Frames::default();
            let mut out = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                out.extend(std::iter::from_fn(|| decoder.next_frame()));
            }
            decoder.finish();
            out.extend(std::iter::from_fn(|| decoder.next_frame()));
            out
        };
        let expected = decode(bytes.len().max(1));
        for size in 1..bytes.len() {
            assert_eq!(decode(size), expected, "chunks of {size}");
        }
        expected
    }

    #[test]
    fn the_framing_is_detected_from_the_bytes() {
        let one = || Ok(Frame::Json(json!({"a": 1})));
        assert_eq!(frames(b"{\"a\":1}\n{\"a\":1}\n"), [one(), one()]);
        assert_eq!(frames(b"\xef\xbb\xbf{\"a\":1}\n{\"a\":1}"), [one(), one()]);
        assert_eq!(frames(b"data: {\"a\":1}\n\ndata: [DONE]\n\n"), [one(), Ok(Frame::Done)]);
        assert_eq!(frames(b": queued\n\n\ndata: {\"a\":1}"), [one()]);
        assert_eq!(
            frames(b"data: {\"a\":1}\ndata: {\"a\":1}\ndata: [DONE]\n\n"),
            [one(), one(), Ok(Frame::Done)]
        );
        assert_eq!(frames(b"data: {\ndata: \"a\":1}\n\n"), [one()]);
        assert_eq!(frames(b"\n\n  {\n  \"a\": 1\n}\n"), [one()]);
        assert_eq!(frames(b"{\"a\":1}"), [one()]);
        assert_eq!(frames(b"   \n"), []);
    }

    #[test]
    fn every_kind_of_error_event_becomes_an_error_object() {
        let expected = Ok(Frame::Json(json!({"error": {"code": 500}})));
        assert_eq!(frames(b"error: {\"code\":500}\n\n"), std::slice::from_ref(&expected));
        assert_eq!(frames(b"event: error\ndata: {\"error\":{\"code\":500}}\n\n"), [expected]);
    }

    #[test]
    fn a_web_page_is_quoted() {
        let page = frames(b"<html>\n<p>Sign in</p>");
        assert!(matches!(&page[..], [Err(Error::Protocol(why))] if why.contains("Sign in")), "{page:?}");
    }

    #[test]
    fn a_cut_object_is_an_error() {
        assert!(matches!(frames(b"{\"a\":")[..], [Err(Error::Protocol(_))]));
        assert!(matches!(frames(b"{\n\"a\":\n")[..], [Err(Error::Protocol(_))]));
    }
}
