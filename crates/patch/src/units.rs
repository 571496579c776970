//! Lines as the loosest rung compares them: by units, where blanks are one blank and typographic characters are the ones of the keyboard.
//!
//! A unit is a run of blanks, three dots, or one character with the marks that combine with it; its normal form is composed, and ASCII where a
//! keyboard has it. Variation selectors, joiners and the like, which get lost on the way, count for nothing. Two lines are the same line when
//! their units are, blanks around them aside. Every rung of the ladder is a part of that, so an index by it finds the candidates of all rungs.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

/// One unit of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    /// As it is written.
    pub(crate) raw: &'a [u8],
    /// As it is compared.
    pub(crate) normal: Cow<'a, [u8]>,
}

/// What a keyboard has for a character; `""` for one that cannot be seen, `None` when it stands for itself.
fn keyboard(c: char) -> Option<&'static str> {
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

/// The ASCII character that a wide one stands for in East Asian typography; `""` for one that cannot be seen and is easily lost. A new line
/// that has such characters keeps them.
fn narrow(c: char) -> Option<&'static str> {
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

/// Whether a character changes the one before it.
fn combines(c: char) -> bool {
    matches!(c, '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05c7}' | '\u{0610}'..='\u{061a}' | '\u{064b}'..='\u{065f}'
        | '\u{093c}' | '\u{094d}' | '\u{0900}'..='\u{0903}' | '\u{093e}'..='\u{094c}' | '\u{09bc}'..='\u{09cd}' | '\u{0b3c}'..='\u{0b4d}' | '\u{0bbe}'..='\u{0bcd}'
        | '\u{0c3e}'..='\u{0c56}' | '\u{0cbc}'..='\u{0cd6}' | '\u{0d3e}'..='\u{0d57}' | '\u{1160}'..='\u{11ff}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{3099}' | '\u{309a}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\x0b' | b'\x0c')
}

/// The first character of a text, and how many bytes it has; a byte that is no UTF-8 is taken as it is.
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

/// The unit that a text starts with. Characters that cannot be seen belong to the unit before them, or the first one after.
fn next(text: &[u8]) -> Unit<'_> {
    let mut end = 0;
    let mut normal: &[u8] = b"";
    let mut combined = false;
    while end < text.len() {
        let (c, len) = first(&text[end..]);
        let here: &[u8] = match c {
            Some(' ' | '\t' | '\r' | '\x0b' | '\x0c') => b" ",
            Some('.') if text[end..].starts_with(b"...") => b"...",
            Some(c) if len > 1 => {
                keyboard(c).or_else(|| narrow(c)).map_or(&text[end..end + len], str::as_bytes)
            }
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

/// A character and its marks as one character, where there is one.
fn composed<'a>(normal: &'a [u8], raw: &'a [u8], combined: bool) -> Cow<'a, [u8]> {
    let Ok(text) = std::str::from_utf8(if combined { raw } else { normal }) else {
        return Cow::Borrowed(normal);
    };
    match ComposingNormalizerBorrowed::new_nfc().normalize(text) {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The units of a line, those around it that are blank left out.
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

/// Whether two lines are the same by their units.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    key(a) == key(b) && units(a).iter().map(|u| &u.normal).eq(units(b).iter().map(|u| &u.normal))
}

/// A hash of a line's units: equal for lines that are the same.
pub(crate) fn key(text: &[u8]) -> u64 {
    /// FNV-1a: short keys, no state, nothing to gain for who makes them collide, since hits are compared.
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

/// A hash of a line without its blanks.
pub(crate) fn squeezed_key(text: &[u8]) -> u64 {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !is_blank(*byte)).collect();
    key(&text)
}

/// A line with the characters of a keyboard only; `None` when it has no others.
pub(crate) fn plain(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_ascii() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while !rest.is_empty() {
        let (c, len) = first(rest);
        match c.filter(|_| len > 1).and_then(keyboard) {
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

/// A line whose indentation is of a keyboard's blanks only; `None` when it is.
pub(crate) fn plain_indent(text: &[u8]) -> Option<Vec<u8>> {
    let start = units(text).first().map(|unit| unit.raw.as_ptr() as usize - text.as_ptr() as usize)?;
    Some([plain(&text[..start])?, text[start..].to_vec()].concat())
}

/// Whether a line says something: has letters or digits enough to be told from a bracket.
pub(crate) fn tells(text: &[u8]) -> bool {
    text.iter().filter(|b| b.is_ascii_alphanumeric() || **b >= 0x80).count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_blanks_and_typography_only_are_the_same() {
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
    fn bytes_that_are_no_utf8_are_units_of_their_own() {
        assert!(same(b" \xff\xc2a ", b"\xff\xc2a"));
        assert!(!same(b"\xff", b"\xfe"));
        assert_eq!(plain("“\u{a0}x”".as_bytes()).unwrap(), b"\" x\"");
        assert_eq!(plain("é".as_bytes()), None);
    }
}
