//! Splits bytes into lines, for the NDJSON and SSE decoders.
//!
//! Lines end with LF, CRLF or a lone CR. Bytes may arrive in chunks of any size; the output depends
//! only on their concatenation. Each byte is scanned once, so a line of many megabytes that arrives
//! in tiny chunks costs no more than one that arrives whole. Only whole lines are returned, so
//! decoders never see half a character.

/// The longest line accepted by default, in bytes: twice what Ollama allows
/// (docs/model-apis.md#ollama-streaming).
pub(crate) const MAX_LINE: usize = 16 * 1024 * 1024;

/// A line exceeded the splitter's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a line of more than {limit} bytes")]
pub struct LineTooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// An incremental line splitter.
///
/// ```
/// let mut lines = models::frames::Lines::default();
/// lines.push(b"one\r");
/// lines.push(b"\ntwo");
/// assert_eq!(lines.next_line(), Some(Ok(&b"one"[..])));
/// assert_eq!(lines.next_line(), None);
/// lines.finish();
/// assert_eq!(lines.next_line(), Some(Ok(&b"two"[..])));
/// ```
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The offset at which the current line starts.
    start: usize,
    /// How far the current line has been scanned for its end; at least `start`.
    scanned: usize,
    /// Whether the last line ended with CR; an LF that follows belongs to the same line ending.
    after_cr: bool,
    finished: bool,
    failed: bool,
    limit: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl Lines {
    /// Creates a splitter that rejects lines longer than `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            after_cr: false,
            finished: false,
            failed: false,
            limit,
        }
    }

    /// Adds bytes. Does nothing after an error or after [`finish`](Self::finish).
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed || self.finished {
            return;
        }
        // Move the unread bytes to the front only once more than half of the buffer has been read.
        // This keeps the total cost of the moves linear in the input.
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Marks the end of the input; an unfinished last line is returned like any other.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Returns the next whole line without its line ending, or `None` until more bytes arrive.
    /// Always returns `None` after an error.
    pub fn next_line(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        if self.failed {
            return None;
        }
        if self.after_cr && self.scanned < self.buffer.len() {
            self.after_cr = false;
            if self.buffer[self.scanned] == b'\n' {
                self.scanned += 1;
                self.start = self.scanned;
            }
        }
        let found = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]);
        let (end, next) = match found {
            Some(at) => (self.scanned + at, self.scanned + at + 1),
            None => (self.buffer.len(), self.buffer.len()),
        };
        if end - self.start > self.limit {
            self.failed = true;
            self.buffer = Vec::new();
            return Some(Err(LineTooLong { limit: self.limit }));
        }
        self.scanned = next;
        if found.is_none() && !(self.finished && end > self.start) {
            return None;
        }
        self.after_cr = found.is_some() && self.buffer[end] == b'\r';
        let start = std::mem::replace(&mut self.start, next);
        Some(Ok(&self.buffer[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]], limit: usize) -> Vec<Result<Vec<u8>, LineTooLong>> {
        let mut lines = Lines::with_limit(limit);
        let mut out = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line() {
                out.push(line.map(<[u8]>::to_vec));
            }
        }
        lines.finish();
        while let Some(line) = lines.next_line() {
            out.push(line.map(<[u8]>::to_vec));
        }
        out
    }

    #[test]
    fn every_split_of_every_line_ending_gives_the_same_lines() {
        let text = b"a\nb\r\nc\rd\r\r\n\n\xc3\xa9\r\n\nlast";
        let expected: Vec<Vec<u8>> =
            [&b"a"[..], b"b", b"c", b"d", b"", b"", b"\xc3\xa9", b"", b"last"].map(<[u8]>::to_vec).to_vec();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let lines: Vec<_> = split(&pieces, 100).into_iter().map(Result::unwrap).collect();
                assert_eq!(lines, expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_an_error_in_any_chunking_and_ends_the_input() {
        let text = b"ok\n12345\nnever";
        let expected = vec![Ok(b"ok".to_vec()), Err(LineTooLong { limit: 4 })];
        assert_eq!(split(&[text], 4), expected);
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(split(&single, 4), expected);
        assert_eq!(split(&[b"1234\n", b"5678"], 4).len(), 2, "exactly the limit is allowed");
    }

    #[test]
    fn unread_lines_are_kept() {
        let mut lines = Lines::default();
        for number in 0..1000 {
            lines.push(format!("{number}\n").as_bytes());
        }
        for number in 0..1000 {
            assert_eq!(lines.next_line(), Some(Ok(number.to_string().as_bytes())));
            lines.push(b"x");
        }
        assert_eq!(lines.next_line(), None);
    }
}
