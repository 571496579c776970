//! Newline-delimited JSON: the framing of Ollama's native API
//! (docs/model-apis.md#ollama-streaming).

use serde_json::Value;

use super::lines::{Lines, MAX_LINE};
use crate::Error;

/// Maximum number of bytes of invalid input to quote in an error.
const QUOTED: usize = 200;

/// An incremental decoder: bytes in, one JSON value per line out. Blank lines and a byte order mark
/// at the start are skipped.
///
/// ```
/// let mut decoder = models::frames::Ndjson::default();
/// decoder.push(b"{\"done\":fal");
/// assert!(decoder.next_value().is_none());
/// decoder.push(b"se}\n");
/// assert_eq!(decoder.next_value().unwrap().unwrap()["done"], false);
/// ```
#[derive(Debug)]
pub struct Ndjson {
    lines: Lines,
    first: bool,
}

impl Default for Ndjson {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl Ndjson {
    /// Creates a decoder that rejects lines longer than `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { lines: Lines::with_limit(limit), first: true }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// Marks the end of the input; a last line without a newline is still decoded.
    pub fn finish(&mut self) {
        self.lines.finish();
    }

    /// Returns the next value, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a line that is not JSON (decoding continues with the next line) and
    /// for a line that is too long (decoding ends).
    pub fn next_value(&mut self) -> Option<Result<Value, Error>> {
        loop {
            let line = match self.lines.next_line()? {
                Ok(line) => line,
                Err(too_long) => return Some(Err(Error::Protocol(too_long.to_string()))),
            };
            let line = strip_bom(line, &mut self.first).trim_ascii();
            if !line.is_empty() {
                return Some(parse(line));
            }
        }
    }
}

/// Removes a byte order mark from the first line of a stream.
pub(crate) fn strip_bom<'a>(line: &'a [u8], first: &mut bool) -> &'a [u8] {
    if std::mem::replace(first, false) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

/// Parses a JSON document. Invalid UTF-8 becomes U+FFFD, so that a server that splits characters
/// does not ruin the whole turn.
pub(crate) fn parse(text: &[u8]) -> Result<Value, Error> {
    let parsed = match std::str::from_utf8(text) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(text)),
    };
    parsed.map_err(|why| {
        let quoted = String::from_utf8_lossy(&text[..text.len().min(QUOTED)]).into_owned();
        if text.starts_with(b"<") {
            return Error::Protocol(format!(
                "the server sent a web page instead of an answer; check the address and its path: {quoted:?}"
            ));
        }
        Error::Protocol(format!("the server sent something that is not JSON ({why}): {quoted:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], size: usize) -> Vec<Result<Value, Error>> {
        let mut decoder = Ndjson::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            out.extend(std::iter::from_fn(|| decoder.next_value()));
        }
        decoder.finish();
        out.extend(std::iter::from_fn(|| decoder.next_value()));
        out
    }

    #[test]
    fn characters_split_across_reads_are_whole_in_every_chunking() {
        let text = "\u{feff}{\"a\":\"é漢🦀\"}\r\n\n  \n{\"b\":1}\n[2]".as_bytes();
        let expected = decode(text, text.len());
        assert_eq!(expected.len(), 3);
        assert_eq!(expected[0].as_ref().unwrap()["a"], "é漢🦀");
        for size in 1..text.len() {
            assert_eq!(decode(text, size), expected, "chunks of {size}");
        }
    }

    #[test]
    fn a_line_that_is_not_json_is_an_error_and_the_next_line_is_read() {
        let out = decode(b"<html>\n{\"a\":1}\n{\"a\":", 3);
        assert!(matches!(&out[0], Err(Error::Protocol(why)) if why.contains("<html>")));
        assert!(out[1].is_ok());
        assert!(matches!(&out[2], Err(Error::Protocol(_))), "a truncated line should be an error");
    }

    #[test]
    fn invalid_utf8_does_not_lose_the_line() {
        assert_eq!(decode(b"{\"a\":\"\xff\"}\n", 1)[0].as_ref().unwrap()["a"], "\u{fffd}");
    }

    #[test]
    fn a_line_over_the_limit_is_an_error() {
        let mut decoder = Ndjson::with_limit(8);
        decoder.push(b"{\"a\":123456}");
        let error = decoder.next_value().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the server sent a line of more than 8 bytes");
        assert!(decoder.next_value().is_none());
    }
}
