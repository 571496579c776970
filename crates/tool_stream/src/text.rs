//! Decodes the bytes between two quotes into a `String` and records the repairs.

use std::collections::BTreeSet;

use memchr::memchr;

use crate::event::Repair;

/// The repairs made to a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repairs(BTreeSet<Repair>);

impl Repairs {
    pub(crate) fn add(&mut self, repair: Repair) {
        self.0.insert(repair);
    }
    pub(crate) fn merge(&mut self, other: Repairs) {
        self.0.extend(other.0);
    }
    pub(crate) fn list(self) -> Vec<Repair> {
        self.0.into_iter().collect()
    }
}

/// Decodes the body of a string literal, without its quotes.
pub(crate) fn decode(bytes: &[u8], repairs: &mut Repairs) -> String {
    if bytes.iter().fold(false, |any, &b| any | (b < 0x20)) {
        repairs.add(Repair::ControlCharacter);
    }
    let Some(first) = memchr(b'\\', bytes) else { return utf8(bytes.to_vec(), repairs) };
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut next = Some(first);
    let (mut unknown, mut pattern_like) = (false, false);
    while let Some(at) = next {
        out.extend_from_slice(&rest[..at]);
        let tail = &rest[at + 1..];
        let plain = match tail.first() {
            Some(b'n') => Some(b'\n'),
            Some(c @ (b'"' | b'\\' | b'/')) => Some(*c),
            Some(b't') => Some(b'\t'),
            Some(b'r') => Some(b'\r'),
            Some(b'\'') => {
                repairs.add(Repair::InvalidEscape);
                Some(b'\'')
            }
            Some(c @ (b'b' | b'f')) => {
                pattern_like = true;
                Some(if *c == b'b' { 8 } else { 12 })
            }
            _ => None,
        };
        let mut coded = || unicode(tail.strip_prefix(b"u")?, repairs);
        rest = match plain {
            Some(plain) => {
                out.push(plain);
                &tail[1..]
            }
            None => match coded() {
                Some((c, used)) => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    &tail[1 + used..]
                }
                // Continue past the kept backslash, so that it does not escape the next character.
                None => {
                    unknown = true;
                    out.push(b'\\');
                    tail
                }
            },
        };
        next = memchr(b'\\', rest);
    }
    out.extend_from_slice(rest);
    if unknown {
        repairs.add(if pattern_like { Repair::MixedEscapes } else { Repair::InvalidEscape });
    }
    utf8(out, repairs)
}

/// Decodes the four digits of `\uXXXX`. If they form a surrogate pair with a second `\uXXXX`,
/// decodes both. Returns the character and the number of bytes consumed after the first `\u`.
fn unicode(bytes: &[u8], repairs: &mut Repairs) -> Option<(char, usize)> {
    let first = hex4(bytes)?;
    if let Some(c) = char::from_u32(first) {
        return Some((c, 4));
    }
    if first < 0xDC00
        && bytes.get(4..6) == Some(b"\\u")
        && let Some(second) = bytes.get(6..).and_then(hex4)
        && (0xDC00..0xE000).contains(&second)
        && let Some(c) = char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))
    {
        return Some((c, 10));
    }
    repairs.add(Repair::LoneSurrogate);
    Some((char::REPLACEMENT_CHARACTER, 4))
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |n, &b| Some(n << 4 | (b as char).to_digit(16)?))
}

/// Converts `bytes` to text. Invalid UTF-8 becomes U+FFFD.
pub(crate) fn utf8(bytes: Vec<u8>, repairs: &mut Repairs) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        repairs.add(Repair::InvalidUtf8);
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    })
}

/// Decodes the body of a Python string literal.
pub(crate) fn decode_python(bytes: &[u8], repairs: &mut Repairs) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = |most: usize, radix: u32, from: usize| {
            let tail = rest.get(from..).unwrap_or_default();
            let len = tail.iter().take(most).take_while(|b| (**b as char).is_digit(radix)).count();
            let text = std::str::from_utf8(&tail[..len]).ok()?;
            let code = u32::from_str_radix(text, radix).ok()?;
            Some((char::from_u32(code)?, from + len, len == most))
        };
        let coded = match rest.first() {
            Some(b'x') => digits(2, 16, 1).filter(|d| d.2),
            Some(b'u') => digits(4, 16, 1).filter(|d| d.2),
            Some(b'U') => digits(8, 16, 1).filter(|d| d.2),
            Some(b'0'..=b'7') => digits(3, 8, 0),
            _ => None,
        };
        if let Some((c, used, _)) = coded {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[used..];
            continue;
        }
        let plain = match rest.first() {
            Some(b'\n') => None,
            Some(c @ (b'\\' | b'\'' | b'"')) => Some(*c),
            Some(b'a') => Some(7),
            Some(b'b') => Some(8),
            Some(b'f') => Some(12),
            Some(b'n') => Some(b'\n'),
            Some(b'r') => Some(b'\r'),
            Some(b't') => Some(b'\t'),
            Some(b'v') => Some(11),
            // Python keeps the backslash of an unknown escape.
            _ => {
                out.push(b'\\');
                continue;
            }
        };
        out.extend(plain);
        rest = &rest[1..];
    }
    out.extend_from_slice(rest);
    utf8(out, repairs)
}
