//! Reads numbers and text from a file of known length, and never reads past its end.

use std::io::{BufReader, Read, Seek};

use super::Fault;

/// The maximum length of a header, in bytes. The vocabulary of Gemma 3, one of the largest, takes
/// up 15 MB.
const MAX_HEADER: u64 = 256 << 20;

/// A reader that tracks its offset.
pub(super) struct Input<R> {
    reader: BufReader<R>,
    at: u64,
    length: u64,
}

impl<R: Read + Seek> Input<R> {
    pub(super) fn new(reader: BufReader<R>, length: u64) -> Self {
        Self { reader, at: 0, length }
    }

    /// Returns the offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the length of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fails unless `count` more items of at least `size` bytes each fit in the file and in
    /// [`MAX_HEADER`].
    pub(super) fn has(&self, count: u64, size: u64, what: &str) -> Result<(), Fault> {
        let needs = self.at.saturating_add(count.saturating_mul(size));
        if needs > self.length {
            return Err(Fault::Header { what: what.to_owned(), have: self.length, needs });
        }
        if needs > MAX_HEADER {
            return Err(Fault::TooLarge {
                what: String::from("the length of the header"),
                value: needs,
                limit: MAX_HEADER,
            });
        }
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        self.has(N as u64, 1, what)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    /// Skips items of a fixed size.
    pub(super) fn skip(&mut self, count: u64, size: u64, what: &str) -> Result<(), Fault> {
        self.has(count, size, what)?;
        // This cannot saturate, because `has` checked the product against MAX_HEADER.
        let bytes = count.saturating_mul(size);
        self.reader.seek_relative(bytes.cast_signed())?;
        self.at += bytes;
        Ok(())
    }

    /// Reads length-prefixed text of at most `limit` bytes.
    pub(super) fn text(&mut self, limit: u64, what: &str) -> Result<String, Fault> {
        let length = self.u64(what)?;
        if length > limit {
            let what = format!("the length of {what}");
            return Err(Fault::TooLarge { what, value: length, limit });
        }
        self.has(length, 1, what)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.reader.read_exact(&mut bytes)?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| Fault::NotText(what.to_owned()))
    }

    /// Skips length-prefixed text.
    pub(super) fn skip_text(&mut self, what: &str) -> Result<(), Fault> {
        let length = self.u64(what)?;
        self.skip(length, 1, what)
    }
}
