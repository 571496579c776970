//! The bytes that are still buffered, addressed by their offset in the whole stream.

/// The buffered bytes and the offset of the first one.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) base: usize,
    /// Whether the stream has ended, so that no more bytes will arrive.
    pub(crate) eof: bool,
}

impl<'a> Window<'a> {
    /// Returns the offset just past the last buffered byte.
    pub(crate) fn end(&self) -> usize {
        self.base + self.bytes.len()
    }
    pub(crate) fn get(&self, at: usize) -> Option<u8> {
        debug_assert!(at >= self.base, "byte {at} is no longer buffered");
        self.bytes.get(at.checked_sub(self.base)?).copied()
    }
    /// Returns the buffered bytes starting at `at`. The result is empty if they have already been
    /// dropped, which is a bug that debug builds catch.
    pub(crate) fn from(&self, at: usize) -> &'a [u8] {
        debug_assert!(at >= self.base && at <= self.end(), "byte {at} is not buffered");
        at.checked_sub(self.base).and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }
    pub(crate) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        debug_assert!(
            from >= self.base && from <= to && to <= self.end(),
            "bytes {from}..{to} are not buffered"
        );
        let range = from.checked_sub(self.base).zip(to.checked_sub(self.base));
        range.and_then(|(from, to)| self.bytes.get(from..to)).unwrap_or_default()
    }

    /// Finds the first byte at or after `at` that is not whitespace.
    pub(crate) fn skip_blanks(&self, at: usize) -> Blanks {
        let rest = self.from(at);
        let rest = &rest[..rest.len().min(MAX_BLANKS)];
        match rest.iter().position(|b| !b.is_ascii_whitespace()) {
            Some(blanks) => Blanks::Until(at + blanks),
            None if rest.len() == MAX_BLANKS => Blanks::TooMany,
            None if self.eof => Blanks::End,
            None => Blanks::More,
        }
    }
}

/// The maximum number of whitespace bytes to skip. A longer run would be rescanned for every chunk.
const MAX_BLANKS: usize = 256;

/// The result of [`Window::skip_blanks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blanks {
    Until(usize),
    TooMany,
    /// The end of the stream.
    End,
    /// Undecided until more bytes arrive.
    More,
}
