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
        self.bytes.get(at - self.base).copied()
    }
    pub(crate) fn from(&self, at: usize) -> &'a [u8] {
        &self.bytes[at - self.base..]
    }
    pub(crate) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[from - self.base..to - self.base]
    }
}
