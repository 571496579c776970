//! Splits a file into lines and their endings.

pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file's lines. `ends[i]` is `"\n"`, `"\r\n"` or, only for the last line, `""`; `starts[i]` is
/// the byte where line `i` begins.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) texts: Vec<&'a [u8]>,
    pub(crate) ends: Vec<&'static [u8]>,
    pub(crate) starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Splits a file. The first line does not include the byte order mark.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let mut lines = Self { bytes, texts: Vec::new(), ends: Vec::new(), starts: Vec::new() };
        let mut start = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
        let newlines = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
        for newline in newlines.filter(|n| *n < bytes.len() || !bytes.ends_with(b"\n")) {
            if start >= bytes.len() {
                break;
            }
            let whole = &bytes[start..newline];
            let (text, end): (_, &'static [u8]) = match whole.strip_suffix(b"\r") {
                Some(text) if newline < bytes.len() => (text, b"\r\n"),
                _ if newline < bytes.len() => (whole, b"\n"),
                _ => (whole, b""),
            };
            lines.texts.push(text);
            lines.ends.push(end);
            lines.starts.push(start);
            start = newline + 1;
        }
        lines
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns the byte offset at which line `i` begins, or the length of the file if it has no
    /// line `i`.
    pub(crate) fn start(&self, i: usize) -> usize {
        self.starts.get(i).copied().unwrap_or(self.bytes.len())
    }

    /// Returns whether the last line has no newline.
    pub(crate) fn unfinished(&self) -> bool {
        self.ends.last().is_some_and(|e| e.is_empty())
    }

    /// Returns the ending for a line inserted before line `i`. Tries the line above, the line below
    /// and the first line, in that order, and falls back to `\n`.
    pub(crate) fn ending_near(&self, i: usize) -> &'static [u8] {
        let above = self.ends[..i.min(self.len())].last().filter(|e| !e.is_empty());
        let below = || self.ends.get(i).filter(|e| !e.is_empty());
        let anywhere = || self.ends.first().filter(|e| !e.is_empty());
        above.or_else(below).or_else(anywhere).copied().unwrap_or(b"\n")
    }

    pub(crate) fn line_at(&self, byte: usize) -> usize {
        self.starts.partition_point(|s| *s <= byte).saturating_sub(1)
    }

    pub(crate) fn all_crlf(&self) -> bool {
        self.ends.iter().any(|e| *e == b"\r\n") && self.ends.iter().all(|e| *e != b"\n")
    }

    /// Converts the line endings of text from a patch: to `\r\n` if all lines of the file end with
    /// `\r\n`, otherwise to `\n`.
    pub(crate) fn with_endings(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 16);
        let crlf = self.all_crlf();
        for (i, byte) in text.iter().enumerate() {
            match byte {
                b'\r' if text.get(i + 1) == Some(&b'\n') => {}
                b'\n' if crlf => out.extend_from_slice(b"\r\n"),
                _ => out.push(*byte),
            }
        }
        out
    }
}

/// Strips a byte order mark, and the carriage return that a line has in a patch with `\r\n`
/// endings.
pub(crate) fn bare(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    text.strip_prefix(BOM).unwrap_or(text)
}

/// Returns whether some lines of the text end with a carriage return and others do not.
pub(crate) fn mixes_endings(text: &[u8]) -> bool {
    let mut returns = memchr::memchr_iter(b'\n', text).map(|at| text[..at].ends_with(b"\r"));
    returns.next().is_some_and(|first| returns.any(|other| other != first))
}

pub(crate) fn indent(text: &[u8]) -> &[u8] {
    &text[..text.len() - text.trim_ascii_start().len()]
}
