//! Sanitizes text from models, files and servers for a terminal: characters that could move the
//! cursor, change colors, set the clipboard, reverse the reading order or hide text are replaced
//! with visible ones. Each character is handled on its own, so a stream can be sanitized piece by
//! piece.

use std::borrow::Cow;
use std::fmt::Write;

/// Sanitizes text, keeping newlines and tabs.
pub fn text(raw: &str) -> Cow<'_, str> {
    clean(raw, |c| c == '\n' || c == '\t')
}

/// Sanitizes text that must stay on one line.
pub fn line(raw: &str) -> Cow<'_, str> {
    clean(raw, |_| false)
}

/// Sanitizes text and shortens it to one line of at most `width` characters.
pub fn short(raw: &str, width: usize) -> String {
    let head = raw.char_indices().nth(width).map_or(raw, |(end, _)| &raw[..end]);
    let clean = line(head);
    if head.len() == raw.len() && clean.chars().count() <= width {
        return clean.into_owned();
    }
    let mut cut: String = clean.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn clean(raw: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |c: char| !keep(c) && is_harmful(c);
    let Some(first) = raw.find(harmful) else { return Cow::Borrowed(raw) };
    let mut out = String::with_capacity(raw.len() + 16);
    out.push_str(&raw[..first]);
    for c in raw[first..].chars() {
        match c {
            c if !harmful(c) => out.push(c),
            // Unicode has a picture for each C0 control: ␛ for ESC, ␍ for CR.
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            '\u{7f}' => out.push('␡'),
            c => {
                let _ = write!(out, "<U+{:04X}>", c as u32);
            }
        }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'
        | '\u{80}'..='\u{9f}'                 // C1: a terminal may interpret U+009B as CSI
        | '\u{61c}' | '\u{200e}' | '\u{200f}' // marks that reverse the reading order
        | '\u{202a}'..='\u{202e}'             // embeddings and overrides
        | '\u{2066}'..='\u{2069}'             // isolates
        | '\u{2028}' | '\u{2029}'             // line and paragraph separators
        | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}' // invisible
        | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}' // also invisible
        | '\u{fff9}'..='\u{fffb}'             // interlinear annotation
        | '\u{e0000}'..='\u{e01ef}'           // tags and variants: invisible text
        | '\u{fdd0}'..='\u{fdef}'             // noncharacters
    ) || c as u32 & 0xfffe == 0xfffe // the other noncharacters; XML allows neither U+FFFE nor U+FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(text("fn main() {\n\tπ\n}"), Cow::Borrowed(_)));
    }

    #[test]
    fn escape_sequences_lose_their_escape_character() {
        assert_eq!(text("\x1b[31mred\x1b]0;title\x07"), "␛[31mred␛]0;title␇");
        assert_eq!(text("\x1b]52;c;aGk=\x1b\\"), "␛]52;c;aGk=␛\\", "the text should not set the clipboard");
        assert_eq!(text("a\u{9b}31m\u{9d}b\u{85}"), "a<U+009B>31m<U+009D>b<U+0085>");
    }

    #[test]
    fn a_carriage_return_cannot_overwrite_a_line() {
        assert_eq!(text("safe\rrm -rf\x08"), "safe␍rm -rf␈");
    }

    #[test]
    fn characters_that_reverse_or_hide_text_become_visible() {
        assert_eq!(text("a\u{202e}b\u{2066}c\u{200b}d\u{e0041}"), "a<U+202E>b<U+2066>c<U+200B>d<U+E0041>");
    }

    #[test]
    fn bug_noncharacters_that_xml_forbids_were_kept() {
        assert_eq!(text("a\u{fffe}b\u{ffff}c\u{10ffff}\u{fdd0}"), "a<U+FFFE>b<U+FFFF>c<U+10FFFF><U+FDD0>");
    }

    #[test]
    fn line_breaks_become_visible_and_long_lines_are_cut() {
        assert_eq!(line("a\nb\tc\u{2028}"), "a␊b␉c<U+2028>");
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
        assert_eq!(
            short("\u{9b}\u{9b}", 4),
            "<U+…",
            "the width limit should apply to the text after replacement"
        );
        assert_eq!(short("ääää€", 4), "äää…");
    }

    #[test]
    fn no_harmful_character_survives() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let shown = line(&c.to_string()).into_owned();
            assert!(!shown.chars().any(is_harmful), "U+{:04X}", c as u32);
            assert!(!shown.chars().any(char::is_control), "U+{:04X}", c as u32);
        }
    }
}
