//! Converts between bytes and characters in one encoding, one character at a time.

use std::borrow::Cow;

use encoding_rs::{DecoderResult, ISO_2022_JP};

/// The length of the longest character in any supported encoding (GB18030), in bytes.
const LONGEST: usize = 4;

/// How a file's characters are written as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16 {
        big: bool,
    },
    /// ASCII, because the file declares it. Only ASCII characters can be written.
    Ascii,
    /// A part of ISO-8859, read strictly: 0x80 to 0x9f are control characters. The first field is
    /// the corresponding Windows code page, which differs only in that it assigns printable
    /// characters to these bytes.
    Iso(&'static encoding_rs::Encoding, &'static str),
    /// Any other WHATWG encoding.
    Other(&'static encoding_rs::Encoding),
    /// Known only by name: non-ASCII bytes are shown as Latin-1, and only ASCII can be written.
    Named(&'static str),
}

pub(crate) const LATIN_1: Encoding = Encoding::Iso(encoding_rs::WINDOWS_1252, "ISO-8859-1");
pub(crate) const LATIN_5: Encoding = Encoding::Iso(encoding_rs::WINDOWS_1254, "ISO-8859-9");
pub(crate) const THAI: Encoding = Encoding::Iso(encoding_rs::WINDOWS_874, "ISO-8859-11");

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 { big: false } => "UTF-16LE",
            Self::Utf16 { big: true } => "UTF-16BE",
            Self::Ascii => "US-ASCII",
            Self::Other(encoding) => encoding.name(),
            Self::Iso(_, name) | Self::Named(name) => name,
        }
    }

    /// Returns whether the encoding is stateful. If it is, each line is encoded separately.
    fn is_encoded_by_line(self) -> bool {
        self == Self::Other(ISO_2022_JP)
    }

    /// Encodes `newline`, which is a newline or a carriage return.
    pub(crate) fn newline(self, newline: u8) -> Vec<u8> {
        match self {
            Self::Utf16 { big: true } => vec![0, newline],
            Self::Utf16 { big: false } => vec![newline, 0],
            _ => vec![newline],
        }
    }

    /// Decodes the first character of `bytes`, or several characters that are encoded as one, or a
    /// line if the encoding is stateful. Returns the text and the number of bytes that encode it.
    /// An invalid byte becomes U+FFFD. Returns `None` if `bytes` is empty.
    pub(crate) fn first(self, bytes: &[u8]) -> Option<(Cow<'static, str>, usize)> {
        let byte = *bytes.first()?;
        let one = |c: char| Cow::Owned(String::from(c));
        let unit = |bytes: &[u8]| match (self, bytes) {
            (Self::Utf16 { big: true }, [a, b]) => Some(u16::from_be_bytes([*a, *b])),
            (Self::Utf16 { big: false }, [a, b]) => Some(u16::from_le_bytes([*a, *b])),
            _ => None,
        };
        match self {
            Self::Utf16 { .. } => {
                let Some(first) = bytes.get(..2).and_then(unit) else { return Some((one('\u{fffd}'), 1)) };
                let second = bytes.get(2..4).and_then(unit);
                let pair = || char::decode_utf16([first, second?]).next()?.ok();
                Some(match char::decode_utf16([first]).next() {
                    Some(Ok(c)) => (one(c), 2),
                    _ => pair().map_or((one('\u{fffd}'), 2), |c| (one(c), 4)),
                })
            }
            Self::Other(_) if self.is_encoded_by_line() && byte != b'\n' => {
                let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
                let text = ISO_2022_JP.decode_without_bom_handling(&bytes[..end]).0;
                Some((Cow::Owned(text.into_owned()), end))
            }
            _ if byte < 0x80 => Some((one(char::from(byte)), 1)),
            Self::Named(_) => Some((one(char::from(byte)), 1)),
            Self::Iso(..) if byte < 0xa0 => Some((one(char::from(byte)), 1)),
            Self::Ascii => Some((one('\u{fffd}'), 1)),
            Self::Utf8 => Some(multibyte(bytes, |bytes| std::str::from_utf8(bytes).ok().map(str::to_owned))),
            Self::Other(encoding) | Self::Iso(encoding, _) => {
                Some(multibyte(bytes, |bytes| decode(encoding, bytes)))
            }
        }
    }

    /// Encodes `text`.
    ///
    /// # Errors
    /// Returns the first character that the encoding cannot represent.
    pub(crate) fn write(self, text: &str) -> Result<Vec<u8>, char> {
        if self.is_encoded_by_line() {
            let mut lines = Vec::new();
            for (i, line) in text.split('\n').enumerate() {
                lines.extend_from_slice(if i > 0 { b"\n" } else { b"" });
                lines.extend_from_slice(&self.encode(line).ok_or_else(|| self.first_unencodable(line))?);
            }
            return Ok(lines);
        }
        let mut bytes = Vec::with_capacity(text.len());
        for c in text.chars() {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(&self.encode(c.encode_utf8(&mut buffer)).ok_or(c)?);
        }
        Ok(bytes)
    }

    fn first_unencodable(self, text: &str) -> char {
        text.chars().find(|c| self.encode(&c.to_string()).is_none()).unwrap_or('\u{fffd}')
    }

    /// Encodes one character or one line. Returns `None` if the result would not decode to the same
    /// text.
    fn encode(self, text: &str) -> Option<Vec<u8>> {
        let c = text.chars().next().unwrap_or_default();
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Utf16 { big } => Some(
                text.encode_utf16()
                    .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                    .collect(),
            ),
            Self::Other(encoding) if self.is_encoded_by_line() || !c.is_ascii() => {
                let (bytes, _, failed) = encoding.encode(text);
                // Check the result: Shift_JIS, for example, encodes the yen sign as a backslash.
                let back = || encoding.decode_without_bom_handling_and_without_replacement(&bytes);
                (!failed && back().as_deref() == Some(text)).then(|| bytes.into_owned())
            }
            Self::Iso(..) if matches!(c, '\u{80}'..='\u{9f}') => Some(vec![c as u8]),
            Self::Iso(encoding, _) if !c.is_ascii() => {
                Self::Other(encoding).encode(text).filter(|bytes| bytes[0] >= 0xa0)
            }
            _ => c.is_ascii().then(|| vec![c as u8]),
        }
    }
}

fn decode(encoding: &'static encoding_rs::Encoding, bytes: &[u8]) -> Option<String> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(4 * LONGEST);
    match decoder.decode_to_string_without_replacement(bytes, &mut text, true) {
        (DecoderResult::InputEmpty, _) => Some(text),
        _ => None,
    }
}

/// Decodes the first character, which is the shortest prefix that can be decoded. Returns it with
/// its length in bytes, or `U+FFFD` and 1 if nothing can be decoded.
fn multibyte(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<String>) -> (Cow<'static, str>, usize) {
    let known = (1..=LONGEST.min(bytes.len())).find_map(|n| Some((decode(&bytes[..n])?, n)));
    known.map_or((Cow::Borrowed("\u{fffd}"), 1), |(text, n)| (Cow::Owned(text), n))
}
