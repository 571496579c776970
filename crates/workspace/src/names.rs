//! Represents names that are not UTF-8 as text. Each invalid byte is written `\xHH`. A backslash in
//! the name that looks like the start of such an escape is written `\x5c`, so the conversion is
//! reversible.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// Converts the bytes of a path to text.
pub(crate) fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find('\\') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            out.push_str(if parse_escape(from.as_bytes()).is_some() { "\\x5c" } else { "\\" });
            rest = &from[1..];
        }
        out.push_str(rest);
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// Converts text back to a path. Returns `None` if the text contains no escapes.
pub(crate) fn unescape(text: &str) -> Option<PathBuf> {
    if !text.contains("\\x") {
        return None;
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some(first) = rest.first() {
        let byte = parse_escape(rest);
        out.push(byte.unwrap_or(*first));
        rest = &rest[if byte.is_some() { 4 } else { 1 }..];
    }
    (out != text.as_bytes()).then(|| OsString::from_vec(out).into())
}

/// Converts the octal escapes of git's quoted names (`caf\351`) to `\xHH`. Returns `None` if there
/// are none.
pub(crate) fn from_octal(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some(first) = rest.first() {
        let digits = rest.get(1..4).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        let byte = digits.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|byte| *byte >= 0x80);
        out.push(byte.unwrap_or(*first));
        rest = &rest[if byte.is_some() { 4 } else { 1 }..];
    }
    (out != text.as_bytes()).then(|| escape(&out))
}

/// Parses a `\xHH` escape at the start of the text. The escape represents a backslash or a
/// non-ASCII byte.
fn parse_escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\x")?.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (byte >= 0x80 || byte == b'\\').then_some(byte)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn every_name_survives_the_round_trip() {
        for name in [
            &b"caf\xe9.txt"[..],
            b"\xff\xfe",
            b"caf\xc3\xa9",
            b"a\\x80b",
            b"a\\x5cb",
            b"a\\x41",
            b"a\\",
            b"\\\xe9",
            b"\\x\xe9",
            b"d\xe9/\xf1\\n",
        ] {
            let text = escape(name);
            let back = unescape(&text).unwrap_or_else(|| text.clone().into());
            assert_eq!(back.as_os_str().as_bytes(), name, "{text}");
        }
        assert_eq!(escape(b"caf\xe9.txt"), "caf\\xe9.txt");
        assert_eq!(from_octal("caf\\351.txt").as_deref(), Some("caf\\xe9.txt"));
    }
}
