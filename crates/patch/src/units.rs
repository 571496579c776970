//! Lines as the loosest rung compares them: by units, where blanks are one blank and typographic characters are the ones of the keyboard.
//!
//! A unit is a run of blanks, three dots, or one character; its normal form is ASCII where a keyboard has it. Two lines are the same line when
//! their units are, blanks around them aside. Every rung of the ladder is a part of that, so an index by it finds the candidates of all rungs.

/// One unit of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    /// As it is written.
    pub(crate) raw: &'a [u8],
    /// As it is compared.
    pub(crate) normal: &'a [u8],
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
    while end < text.len() {
        let (c, len) = first(&text[end..]);
        let here: &[u8] = match c {
            Some(' ' | '\t' | '\r' | '\x0b' | '\x0c') => b" ",
            Some('.') if text[end..].starts_with(b"...") => b"...",
            Some(c) if len > 1 => keyboard(c).map_or(&text[end..end + len], str::as_bytes),
            _ => &text[end..end + len],
        };
        let blanks = normal == b" " && here == b" ";
        if !blanks && !normal.is_empty() && !here.is_empty() {
            break;
        }
        if !here.is_empty() {
            normal = here;
        }
        end += if here == b"..." && text[end] == b'.' { 3 } else { len };
    }
    Unit { raw: &text[..end], normal }
}

/// The units of a line, those around it that are blank left out.
pub(crate) fn units(text: &[u8]) -> Vec<Unit<'_>> {
    let mut out: Vec<Unit<'_>> = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let unit = next(rest);
        rest = &rest[unit.raw.len()..];
        let blank = unit.normal == b" " || unit.normal.is_empty();
        if !(blank && out.is_empty()) {
            out.push(unit);
        }
    }
    while out.last().is_some_and(|u| u.normal == b" " || u.normal.is_empty()) {
        out.pop();
    }
    out
}

/// Whether two lines are the same by their units.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    key(a) == key(b) && units(a).iter().map(|u| u.normal).eq(units(b).iter().map(|u| u.normal))
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
        units(text).iter().flat_map(|u| u.normal).for_each(|byte| add(*byte));
    }
    hash
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
