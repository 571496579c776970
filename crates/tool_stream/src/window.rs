//! The bytes at hand: a part of the stream, addressed by offsets in the whole stream.

/// The kept bytes and where they begin.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) base: usize,
    /// No more bytes will come.
    pub(crate) eof: bool,
}

impl<'a> Window<'a> {
    /// Offset just past the last byte at hand.
    pub(crate) fn end(&self) -> usize {
        self.base + self.bytes.len()
    }
    pub(crate) fn get(&self, at: usize) -> Option<u8> {
        debug_assert!(at >= self.base, "byte {at} was forgotten");
        self.bytes.get(at.checked_sub(self.base)?).copied()
    }
    /// The bytes at hand from `at` on. Nothing if they were forgotten, which is a bug that tests catch.
    pub(crate) fn from(&self, at: usize) -> &'a [u8] {
        debug_assert!(at >= self.base && at <= self.end(), "byte {at} is not at hand");
        at.checked_sub(self.base).and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }
    pub(crate) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        debug_assert!(
            from >= self.base && from <= to && to <= self.end(),
            "bytes {from}..{to} are not at hand"
        );
        let range = from.checked_sub(self.base).zip(to.checked_sub(self.base));
        range.and_then(|(from, to)| self.bytes.get(from..to)).unwrap_or_default()
    }

    /// Where the first byte stands at or behind `at` that is not blank.
    pub(crate) fn behind_blanks(&self, at: usize) -> Blanks {
        let rest = self.from(at);
        let rest = &rest[..rest.len().min(MAX_BLANKS)];
        match rest.iter().position(|b| !b.is_ascii_whitespace()) {
            Some(blanks) => Blanks::Upto(at + blanks),
            None if rest.len() == MAX_BLANKS => Blanks::TooMany,
            None if self.eof => Blanks::End,
            None => Blanks::More,
        }
    }
}

/// Bytes of blanks that are looked past, at most: they are looked at again with each chunk.
const MAX_BLANKS: usize = 256;

/// What stands behind blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blanks {
    Upto(usize),
    TooMany,
    /// The end of the stream.
    End,
    /// More bytes are needed to say.
    More,
}
