//! Decodes a file that is not plain UTF-8, and translates edits to its text into edits to its
//! bytes.
//!
//! A unit is a character together with its bytes in the file. If the encoding represents several
//! characters with a single code, the unit holds all of them. An edit copies the bytes of every
//! unit it keeps and encodes only new text, so bytes that were decoded incorrectly, or are not text
//! at all, stay intact.

use std::{borrow::Cow, ops::Range};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::{Unwritable, coding::Coding, encoding::Encoding};

/// The maximum size of a comparison: the old length times the new length. If the product is larger,
/// everything between the common prefix and the common suffix is treated as new.
const COMPARED: usize = 4_000_000;

/// Decodes a file to UTF-8.
pub(crate) fn text(coding: Coding, bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + bytes.len() / 4);
    for_each_unit(coding, bytes, |text, _, _| out.push_str(text));
    out
}

/// Calls `emit` with the text, bytes and encoding of every unit.
fn for_each_unit<'a>(coding: Coding, bytes: &'a [u8], mut emit: impl FnMut(&str, &'a [u8], Encoding)) {
    let mut at = 0;
    let mut line_end = 0;
    let mut encoding = coding.encoding;
    while at < bytes.len() {
        if let Some(stray) = coding.stray
            && at >= line_end
        {
            line_end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n + 1);
            let line = &bytes[at..line_end];
            encoding = if std::str::from_utf8(line).is_ok() { coding.encoding } else { stray };
        }
        let Some((text, n)) = encoding.first(&bytes[at..]) else { break };
        let own = &bytes[at..at + n];
        at += n;
        let returned = coding.carriage_returns && text == "\r";
        let crlf = || encoding.first(&bytes[at..]).is_some_and(|(next, _)| next == "\n");
        emit(if returned && !crlf() { "\n" } else { &text }, own, encoding);
    }
}

/// Returns the bytes of a file after its text is replaced with `new`.
///
/// # Errors
/// Fails if the encoding cannot represent a character, or if the result would be ambiguous.
pub(crate) fn write(coding: Coding, bytes: &[u8], new: &str) -> Result<Vec<u8>, Unwritable> {
    let new = match coding.carriage_returns {
        true => Cow::Owned(new.replace("\r\n", "\n")),
        false => Cow::Borrowed(new),
    };
    let old = Lines::of(coding, bytes);
    let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
    let mut out = Writer { coding, old: &old, out: Vec::with_capacity(bytes.len()), line: 1 };
    for op in compare(&old.texts(), &new_lines) {
        match op {
            DiffOp::Equal { old_index, len, .. } => out.keep(old.lines(old_index..old_index + len)),
            DiffOp::Delete { .. } => {}
            DiffOp::Insert { new_index, new_len, .. } => {
                new_lines[new_index..new_index + new_len]
                    .iter()
                    .try_for_each(|line| out.write(line, coding.encoding))?;
            }
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                let units = old.lines(old_index..old_index + old_len);
                out.replace(units, &new_lines[new_index..new_index + new_len].concat())?;
            }
        }
    }
    let written = out.out;
    let round_trips = |encoding| text(Coding { encoding, ..coding }, &written) == new;
    match coding.candidates().any(round_trips) {
        true => Ok(written),
        false => Err(Unwritable::Ambiguous { encoding: coding.encoding.name() }),
    }
}

/// Returns the changes from `old` to `new`. Compares only the parts between the common prefix and
/// the common suffix.
fn compare<T: Eq + std::hash::Hash + Ord>(old: &[T], new: &[T]) -> Vec<DiffOp> {
    let same = |pairs: &mut dyn Iterator<Item = (&T, &T)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(new));
    let tail = same(&mut old[head..].iter().rev().zip(new[head..].iter().rev()));
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let (a, b) = (&old[head..old_end], &new[head..new_end]);
    let mut ops = vec![DiffOp::Equal { old_index: 0, new_index: 0, len: head }];
    if a.len().saturating_mul(b.len()) > COMPARED {
        let (old_len, new_len) = (a.len(), b.len());
        ops.push(DiffOp::Replace { old_index: head, old_len, new_index: head, new_len });
    } else {
        ops.extend(capture_diff_slices(Algorithm::Myers, a, b).into_iter().map(|op| moved(op, head)));
    }
    ops.push(DiffOp::Equal { old_index: old_end, new_index: new_end, len: tail });
    ops
}

fn moved(op: DiffOp, by: usize) -> DiffOp {
    match op {
        DiffOp::Equal { old_index, new_index, len } => {
            DiffOp::Equal { old_index: old_index + by, new_index: new_index + by, len }
        }
        DiffOp::Delete { old_index, old_len, new_index } => {
            DiffOp::Delete { old_index: old_index + by, old_len, new_index: new_index + by }
        }
        DiffOp::Insert { old_index, new_index, new_len } => {
            DiffOp::Insert { old_index: old_index + by, new_index: new_index + by, new_len }
        }
        DiffOp::Replace { old_index, old_len, new_index, new_len } => {
            DiffOp::Replace { old_index: old_index + by, old_len, new_index: new_index + by, new_len }
        }
    }
}

/// A unit of a file.
struct Unit<'a> {
    /// Range in the text.
    text: Range<usize>,
    bytes: &'a [u8],
    encoding: Encoding,
}

/// The units of a file, grouped by line.
struct Lines<'a> {
    text: String,
    units: Vec<Unit<'a>>,
    /// Index of the first unit of each line, followed by the total number of units.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(coding: Coding, bytes: &'a [u8]) -> Self {
        let mut lines = Self { text: String::new(), units: Vec::new(), starts: vec![0] };
        for_each_unit(coding, bytes, |text, bytes, encoding| {
            let from = lines.text.len();
            lines.text.push_str(text);
            lines.units.push(Unit { text: from..lines.text.len(), bytes, encoding });
            if text == "\n" {
                lines.starts.push(lines.units.len());
            }
        });
        if lines.starts.last() != Some(&lines.units.len()) {
            lines.starts.push(lines.units.len());
        }
        lines
    }

    fn texts(&self) -> Vec<&str> {
        self.text.split_inclusive('\n').collect()
    }

    fn lines(&self, lines: Range<usize>) -> &[Unit<'a>] {
        let start = |line: usize| self.starts.get(line).copied().unwrap_or(self.units.len());
        &self.units[start(lines.start)..start(lines.end)]
    }
}

struct Writer<'o, 'a> {
    coding: Coding,
    old: &'o Lines<'a>,
    out: Vec<u8>,
    /// The 1-based number of the current line in the new text.
    line: usize,
}

impl Writer<'_, '_> {
    fn keep(&mut self, units: &[Unit<'_>]) {
        for unit in units {
            self.out.extend_from_slice(unit.bytes);
            self.line += self.old.text[unit.text.clone()].matches('\n').count();
        }
    }

    fn replace(&mut self, units: &[Unit<'_>], new: &str) -> Result<(), Unwritable> {
        let old: Vec<&str> = units.iter().map(|unit| &self.old.text[unit.text.clone()]).collect();
        let mut boundaries: Vec<usize> = new.char_indices().map(|(at, _)| at).collect();
        boundaries.push(new.len());
        let chars: Vec<&str> = boundaries.windows(2).map(|w| &new[w[0]..w[1]]).collect();
        for op in compare(&old, &chars) {
            let encoding = |old_index: usize| {
                units.get(old_index).or(units.last()).map_or(self.coding.encoding, |unit| unit.encoding)
            };
            match op {
                DiffOp::Equal { old_index, len, .. } => self.keep(&units[old_index..old_index + len]),
                DiffOp::Delete { .. } => {}
                DiffOp::Insert { old_index, new_index, new_len }
                | DiffOp::Replace { old_index, new_index, new_len, .. } => {
                    let encoding = encoding(old_index);
                    self.write(&chars[new_index..new_index + new_len].concat(), encoding)?;
                }
            }
        }
        Ok(())
    }

    /// Encodes new text.
    fn write(&mut self, text: &str, encoding: Encoding) -> Result<(), Unwritable> {
        for (i, part) in text.split('\n').enumerate() {
            if i > 0 {
                let newline = if self.coding.carriage_returns { b'\r' } else { b'\n' };
                self.out.extend_from_slice(&encoding.newline(newline));
                self.line += 1;
            }
            let bytes = match self.coding.alternatives {
                [None, None, None, None] => encoding.write(part).map_err(|c| self.error(c, encoding)),
                _ => self.write_as_any(part),
            };
            self.out.extend_from_slice(&bytes?);
        }
        Ok(())
    }

    /// Encodes text. Fails if two possible encodings of the file represent a character with
    /// different bytes.
    fn write_as_any(&self, text: &str) -> Result<Vec<u8>, Unwritable> {
        let main = self.coding.encoding;
        let mut bytes = Vec::with_capacity(text.len());
        for c in text.chars() {
            let all = self.coding.candidates();
            let written = |e: Encoding| Some((e, e.write(c.encode_utf8(&mut [0; 4])).ok()?));
            let mut ways = all.clone().filter_map(written);
            let Some((encoding, own)) = ways.next() else { return Err(self.error(c, main)) };
            // The Windows code page has a printable character where the ISO encoding has only a
            // control character.
            let windows = matches!(own[..], [0x80..=0x9f]);
            let other = ways.find(|(_, other)| *other != own).map(|(other, _)| other);
            let iso = || all.clone().find(|e| *e != encoding && e.write(c.encode_utf8(&mut [0; 4])).is_err());
            if let Some(other) = other.or_else(|| windows.then(iso).flatten()) {
                let (line, encoding, alternative) = (self.line, encoding.name(), other.name());
                return Err(Unwritable::UncertainEncoding { c, line, encoding, alternative });
            }
            bytes.extend_from_slice(&own);
        }
        Ok(bytes)
    }

    fn error(&self, c: char, encoding: Encoding) -> Unwritable {
        match c {
            '\u{fffd}' => Unwritable::Unreadable { line: self.line, encoding: encoding.name() },
            _ => Unwritable::Character { c, line: self.line, encoding: encoding.name() },
        }
    }
}
