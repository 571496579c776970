//! Compares lines by units: any run of whitespace is equal to a single space, and typographic
//! characters are equal to plain ones.
//!
//! A unit is a run of whitespace, three dots, or one character with its combining marks. Its normal
//! form is the composed character, or the ASCII equivalent if there is one. Variation selectors,
//! joiners and other invisible characters are ignored, since models lose them. Lines are equal if
//! their units are, ignoring whitespace at both ends. Lines that match on the `Typographic` rung or
//! a stricter one are equal in this sense, so a single index finds the candidates for all of these
//! rungs.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) normal: Cow<'a, [u8]>,
}

/// Returns the plain equivalent of a character: `""` if the character is invisible, `None` if there
/// is no equivalent.
fn plain_equivalent(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' | '\u{2032}' | '\u{02bc}' | '\u{00b4}' => "'",
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{201f}' | '\u{2033}' => "\"",
        '\u{2010}'..='\u{2015}' | '\u{2212}' => "-",
        '\u{2026}' => "...",
        '\u{00a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => " ",
        '\u{200b}' | '\u{2060}' | '\u{feff}' => "",
        _ => return None,
    })
}

/// Returns the ASCII equivalent of a full-width character, or `""` for an invisible character that
/// is easily lost. Unlike the characters of [`plain_equivalent`], these are not converted in added
/// lines.
fn ascii_equivalent(c: char) -> Option<&'static str> {
    const ASCII: &str =
        "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
    match c {
        '\u{ff01}'..='\u{ff5e}' => {
            let i = (u32::from(c) - 0xff01) as usize;
            ASCII.get(i..=i)
        }
        '\u{3002}' => Some("."),
        '\u{3001}' => Some(","),
        '\u{fe00}'..='\u{fe0f}' | '\u{200c}'..='\u{200f}' | '\u{00ad}' => Some(""),
        _ => None,
    }
}

/// Returns whether a character combines with the one before it.
fn combines(c: char) -> bool {
    matches!(c, '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05c7}' | '\u{0610}'..='\u{061a}' | '\u{064b}'..='\u{065f}'
        | '\u{093c}' | '\u{094d}' | '\u{0900}'..='\u{0903}' | '\u{093e}'..='\u{094c}' | '\u{09bc}'..='\u{09cd}' | '\u{0b3c}'..='\u{0b4d}' | '\u{0bbe}'..='\u{0bcd}'
        | '\u{0c3e}'..='\u{0c56}' | '\u{0cbc}'..='\u{0cd6}' | '\u{0d3e}'..='\u{0d57}' | '\u{1160}'..='\u{11ff}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{3099}' | '\u{309a}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c')
}

/// Returns the first character of the text and its length in bytes; `None` for an invalid byte.
fn first(text: &[u8]) -> (Option<char>, usize) {
    if text[0] < 0x80 {
        return (Some(char::from(text[0])), 1);
    }
    let len = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let c = text.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|s| s.chars().next());
    c.map_or((None, 1), |c| (Some(c), len))
}

/// Returns the first unit of the text. Invisible characters belong to the unit before them; at the
/// start of the text, they belong to the first unit.
fn next(text: &[u8]) -> Unit<'_> {
    let mut end = 0;
    let mut normal: &[u8] = b"";
    let mut combined = false;
    while end < text.len() {
        let (c, len) = first(&text[end..]);
        let here: &[u8] = match c {
            Some(' ' | '\t' | '\r' | '\x0b' | '\x0c') => b" ",
            Some('.') if text[end..].starts_with(b"...") => b"...",
            Some(c) if len > 1 => plain_equivalent(c)
                .or_else(|| ascii_equivalent(c))
                .map_or(&text[end..end + len], str::as_bytes),
            _ => &text[end..end + len],
        };
        let mark = c.is_some_and(combines) && !normal.is_empty() && normal != b" ";
        let blanks = normal == b" " && here == b" ";
        if !blanks && !mark && !normal.is_empty() && !here.is_empty() {
            break;
        }
        if mark {
            combined = true;
        } else if !here.is_empty() {
            normal = here;
        }
        end += if here == b"..." && text[end] == b'.' { 3 } else { len };
    }
    let raw = &text[..end];
    let normal =
        if combined || !normal.is_ascii() { composed(normal, raw, combined) } else { Cow::Borrowed(normal) };
    Unit { raw, normal }
}

/// Composes a character and its marks, if there is a composed form.
fn composed<'a>(normal: &'a [u8], raw: &'a [u8], combined: bool) -> Cow<'a, [u8]> {
    let Ok(text) = std::str::from_utf8(if combined { raw } else { normal }) else {
        return Cow::Borrowed(normal);
    };
    match ComposingNormalizerBorrowed::new_nfc().normalize(text) {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Returns the units of a line, without whitespace at both ends.
pub(crate) fn units(text: &[u8]) -> Vec<Unit<'_>> {
    let mut out: Vec<Unit<'_>> = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let unit = next(rest);
        rest = &rest[unit.raw.len()..];
        let blank = *unit.normal == *b" " || unit.normal.is_empty();
        if !(blank && out.is_empty()) {
            out.push(unit);
        }
    }
    while out.last().is_some_and(|u| *u.normal == *b" " || u.normal.is_empty()) {
        out.pop();
    }
    out
}

pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    key(a) == key(b) && units(a).iter().map(|u| &u.normal).eq(units(b).iter().map(|u| &u.normal))
}

/// Returns a hash of a line's units; equal lines have equal hashes.
pub(crate) fn key(text: &[u8]) -> u64 {
    /// FNV-1a is fast for short keys, and accidental collisions of its 64-bit hashes are extremely
    /// unlikely.
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = START;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let text = text.trim_ascii();
    if text.is_ascii() {
        let mut blank = false;
        for &byte in text {
            if is_blank(byte) {
                blank = true;
                continue;
            }
            if std::mem::take(&mut blank) {
                add(b' ');
            }
            add(byte);
        }
    } else {
        units(text).iter().flat_map(|u| u.normal.iter()).for_each(|byte| add(*byte));
    }
    hash
}

pub(crate) fn squeezed_key(text: &[u8]) -> u64 {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !is_blank(*byte)).collect();
    key(&text)
}

/// Rewrites a line with plain characters only. Returns `None` if the line already consists of plain
/// characters.
pub(crate) fn plain(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_ascii() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while !rest.is_empty() {
        let (c, len) = first(rest);
        match c.filter(|_| len > 1).and_then(plain_equivalent) {
            Some(ascii) => {
                out.extend_from_slice(ascii.as_bytes());
                changed = true;
            }
            None => out.extend_from_slice(&rest[..len]),
        }
        rest = &rest[len..];
    }
    changed.then_some(out)
}

/// Returns a line with plain indentation; `None` if its indentation is already plain.
pub(crate) fn plain_indent(text: &[u8]) -> Option<Vec<u8>> {
    let start = units(text).first().map(|unit| unit.raw.as_ptr() as usize - text.as_ptr() as usize)?;
    Some([plain(&text[..start])?, text[start..].to_vec()].concat())
}

/// Returns whether a line is distinctive: it has at least three bytes that are letters, digits or
/// parts of non-ASCII characters.
pub(crate) fn is_distinctive(text: &[u8]) -> bool {
    text.iter().filter(|b| b.is_ascii_alphanumeric() || **b >= 0x80).count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_only_in_whitespace_and_typography_are_equal() {
        for (a, b) in [
            ("  a = \"x\" ", "a = \u{201c}x\u{201d}"),
            ("a\tb", "a    b"),
            ("wait...", "wait\u{2026}"),
            ("a - b", "a\u{a0}\u{2013}\u{a0}b"),
            ("zero", "ze\u{200b}ro"),
            ("", "  \t"),
            ("é", "é "),
            ("caf\u{e9}", "cafe\u{301}"),
            ("\u{d55c}", "\u{1112}\u{1161}\u{11ab}"),
            ("\u{30ac}", "\u{30ab}\u{3099}"),
            ("\u{212b}", "\u{c5}"),
            ("a \u{26a0}\u{fe0f} b", "a \u{26a0} b"),
            ("f(a,b)\u{ff1a}", "f\u{ff08}a\u{ff0c}b\u{ff09}:"),
        ] {
            assert!(same(a.as_bytes(), b.as_bytes()), "{a:?} {b:?}");
            assert_eq!(key(a.as_bytes()), key(b.as_bytes()));
        }
        for (a, b) in [("ab", "a b"), ("a", "b"), ("x..y", "x...y"), ("", "a"), ("é", "e")] {
            assert!(!same(a.as_bytes(), b.as_bytes()), "{a:?} {b:?}");
        }
    }

    #[test]
    fn invalid_utf8_bytes_are_separate_units() {
        assert!(same(b" \xff\xc2a ", b"\xff\xc2a"));
        assert!(!same(b"\xff", b"\xfe"));
        assert_eq!(plain("“\u{a0}x”".as_bytes()).unwrap(), b"\" x\"");
        assert_eq!(plain("é".as_bytes()), None);
    }
}
