//! Server-sent events: the framing of OpenAI-compatible streams
//! (docs/model-apis.md#openai-streams).
//!
//! Follows the event stream format of the HTML standard, with one deliberate difference: the last
//! event is returned even if no blank line follows it, because some servers close the connection
//! right after `data: [DONE]`.

use super::lines::{Lines, MAX_LINE};
use super::ndjson::strip_bom;
use crate::Error;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The event's type, or empty if the server did not specify one. An event with `error:` instead
    /// of `data:` has the type `error`.
    pub name: String,
    /// The data lines, joined with LF.
    pub data: String,
}

/// An incremental decoder: bytes in, events out. Comments, `id` and `retry` are dropped.
///
/// ```
/// let mut decoder = models::frames::Sse::default();
/// decoder.push(b": keep-alive\n\ndata: {\"a\":1}\n\nda");
/// assert_eq!(decoder.next_event().unwrap().unwrap().data, "{\"a\":1}");
/// assert!(decoder.next_event().is_none());
/// ```
#[derive(Debug)]
pub struct Sse {
    lines: Lines,
    first: bool,
    event: Event,
    has_data: bool,
    finished: bool,
    failed: bool,
    limit: usize,
}

impl Default for Sse {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl Sse {
    /// Creates a decoder that rejects lines and events longer than `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            lines: Lines::with_limit(limit),
            first: true,
            event: Event::default(),
            has_data: false,
            finished: false,
            failed: false,
            limit,
        }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// Marks the end of the input; an unfinished last event is still returned.
    pub fn finish(&mut self) {
        self.lines.finish();
        self.finished = true;
    }

    /// Returns the next event, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a line or an event that is too long. No events follow this error.
    pub fn next_event(&mut self) -> Option<Result<Event, Error>> {
        while !self.failed {
            let line = match self.lines.next_line() {
                Some(Ok(line)) => line,
                Some(Err(too_long)) => {
                    self.failed = true;
                    return Some(Err(Error::Protocol(too_long.to_string())));
                }
                None if self.finished => return self.dispatch().map(Ok),
                None => return None,
            };
            let line = strip_bom(line, &mut self.first);
            if line.is_empty() {
                match self.dispatch() {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                }
            }
            let (field, value) = match memchr::memchr(b':', line) {
                Some(colon) => {
                    let value = &line[colon + 1..];
                    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
                }
                None => (line, &b""[..]),
            };
            match field {
                b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
                b"data" | b"error" => {
                    if self.event.data.len() + value.len() > self.limit {
                        self.failed = true;
                        let limit = self.limit;
                        return Some(Err(Error::Protocol(format!(
                            "the server sent an event of more than {limit} bytes"
                        ))));
                    }
                    if field == b"error" {
                        self.event.name = String::from("error");
                    }
                    if self.has_data {
                        self.event.data.push('\n');
                    }
                    self.has_data = true;
                    self.event.data.push_str(&String::from_utf8_lossy(value));
                }
                _ => {}
            }
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        std::mem::take(&mut self.has_data).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], size: usize) -> Vec<Result<Event, Error>> {
        let mut decoder = Sse::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            out.extend(std::iter::from_fn(|| decoder.next_event()));
        }
        decoder.finish();
        out.extend(std::iter::from_fn(|| decoder.next_event()));
        out
    }

    fn data(bytes: &[u8]) -> Vec<String> {
        let expected = decode(bytes, bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(decode(bytes, size), expected, "chunks of {size}");
        }
        expected.into_iter().map(|event| event.unwrap().data).collect()
    }

    #[test]
    fn line_endings_comments_and_fields_are_read_in_every_chunking() {
        let text = "\u{feff}: hello\ndata: {\"a\":\"é🦀\"}\n\nid: 7\nretry: 3\ndata:no space\r\n\r\n\
                    data\rdata: two\r\r: keep-alive\n\n\nevent: ping\n\ndata:  [DONE]\n\n";
        assert_eq!(data(text.as_bytes()), ["{\"a\":\"é🦀\"}", "no space", "\ntwo", " [DONE]"]);
    }

    #[test]
    fn the_last_event_needs_no_blank_line_and_no_newline() {
        assert_eq!(data(b"data: 1\n\ndata: [DONE]"), ["1", "[DONE]"]);
        assert_eq!(data(b"data: 1\ndata"), ["1\n"]);
        assert!(data(b": only a comment").is_empty());
    }

    #[test]
    fn both_ways_to_write_an_error_event_are_read() {
        for text in [&b"event: error\ndata: {}\n\n"[..], b"error: {}\n\n"] {
            let event = Event { name: String::from("error"), data: String::from("{}") };
            assert_eq!(decode(text, 5), [Ok(event)]);
        }
    }

    #[test]
    fn invalid_utf8_is_replaced_and_decoding_continues() {
        assert_eq!(data(b"data: a\xffb\n\ndata: c\n\n"), ["a\u{fffd}b", "c"]);
    }

    #[test]
    fn many_short_data_lines_cannot_grow_an_event_beyond_the_limit() {
        let mut decoder = Sse::with_limit(64);
        decoder.push("data: 0123456789\n".repeat(20).as_bytes());
        let error = decoder.next_event().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the server sent an event of more than 64 bytes");
        assert!(decoder.next_event().is_none());
    }
}
