//! Finds tags and special tokens in the stream, and looks up their meaning in the tables in
//! `dialects.rs`.
//!
//! Tokens arrive in many spellings (docs/model-apis.md lists DeepSeek's), with full-width, double
//! or ASCII bars, and with `▁`, `_` or a space between words. [`classify`] normalizes them before
//! looking them up.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::dialects::{DIALECTS, NOISE, THOUGHT_WORDS, THOUGHTS, TURNS, Turn, UNKNOWN};
use crate::window::Window;

/// The maximum length of a tag in bytes.
pub(crate) const MAX_TAG: usize = 256;

/// The meaning of a tag or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Opens a thinking block of the kind with this index in [`THOUGHTS`].
    ThinkOpen(usize),
    /// Closes a thinking block of the kind with this index in [`THOUGHTS`].
    ThinkClose(usize),
    /// Has no meaning and is dropped.
    Noise,
    /// Opens a call.
    Open {
        /// Whether the token is used only in calls.
        certain: bool,
    },
    /// Opens a list of calls.
    List,
    ListEnd,
    /// Separates the parts of a call's head.
    Between,
    CallEnd,
    /// Opens a call and names the tool: `<invoke name="f">`, `<function=f>`, with or without the
    /// DSML prefix.
    Invoke {
        name: String,
        /// Whether the element can also open a call without a name, so that its closing tag is a
        /// [`Tag::CallEnd`].
        wraps: bool,
        /// Whether the element is empty: `<invoke name="f"/>`.
        empty: bool,
    },
    InvokeEnd,
    /// Opens an argument: `<parameter name="p" string="true">`, `<parameter=p>`.
    Parameter {
        name: String,
        /// Whether the tag declares the value to be a string; `None` if it does not declare a type.
        string: Option<bool>,
        /// Whether an equals sign follows the element's name, as in `<parameter=p>`.
        equals: bool,
    },
    ParameterEnd,
    /// Opens an element that contains only the name of an argument.
    Key,
    KeyEnd,
    /// Opens an element that contains only the value of an argument.
    Value,
    ValueEnd,
    /// See [`Turn`].
    Turn(Turn),
}

/// Returns whether a tag is a token such as `<|…|>` or `[…]` rather than an element such as
/// `<think>`.
pub(crate) fn is_token(mark: &[u8]) -> bool {
    !mark.starts_with(b"<") || mark.contains(&b'|') || mark.contains(&0xBD)
}

/// Returns the meaning of `tag`, which extends from `<` to `>`, or `None` if it is ordinary text.
pub(crate) fn classify(tag: &[u8]) -> Option<Tag> {
    known(tag).or_else(|| thought(tag))
}

/// Returns the meaning of a thinking tag that is not in [`THOUGHTS`].
fn thought(tag: &[u8]) -> Option<Tag> {
    let (_, closing) = thought_name(tag)?;
    Some(if closing { Tag::ThinkClose(UNKNOWN) } else { Tag::ThinkOpen(UNKNOWN) })
}

/// Returns the name in a thinking tag, without words such as `start` and `end`, and whether the tag
/// closes a block.
pub(crate) fn thought_name(tag: &[u8]) -> Option<(String, bool)> {
    let text = fold(std::str::from_utf8(tag).ok()?).to_ascii_lowercase();
    let inner = text.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    let inner = inner.or_else(|| text.strip_prefix('[').and_then(|t| t.strip_suffix(']')))?;
    if inner.ends_with('/') {
        return None;
    }
    let word = inner.trim_matches(['|', ' ']);
    let (word, slash) = match word.strip_prefix('/') {
        Some(word) => (word, true),
        None => (word, inner.starts_with('/')),
    };
    // Open WebUI writes `<details type="reasoning">`.
    if let Some(attributes) = word.strip_prefix("details") {
        let reasoning = attributes.contains("reasoning") || attributes.contains("thinking");
        return (slash && attributes.is_empty() || reasoning).then(|| ("details".to_owned(), slash));
    }
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.'));
    let parts = word.split(['_', '-', ':', '.']).filter(|part| !part.is_empty());
    let (turns, names): (Vec<&str>, Vec<&str>) =
        parts.partition(|part| matches!(*part, "start" | "begin" | "open" | "end" | "close" | "of"));
    let name = names.join("_");
    let says = THOUGHT_WORDS.iter().any(|word| match *word {
        "cot" | "internal" => name == *word,
        word => names.contains(&word),
    });
    let closing = slash || turns.iter().any(|turn| matches!(*turn, "end" | "close"));
    (plain && says && word.len() <= 40).then_some((name, closing))
}

fn known(tag: &[u8]) -> Option<Tag> {
    let text = std::str::from_utf8(tag).ok()?;
    let inner = fold(text.strip_prefix('<')?.strip_suffix('>')?);
    let (inner, closing) = match inner.trim().strip_prefix('/') {
        Some(rest) => (rest.trim_start(), true),
        None => (inner.trim(), false),
    };
    if let Some(rest) = after_dsml(inner) {
        let (rest, closing) = match rest.strip_prefix('/') {
            Some(rest) => (rest, true),
            None => (rest, closing),
        };
        return match rest.trim_end_matches(['|', ' ']) {
            "calls" if closing => Some(Tag::ListEnd),
            "calls" => Some(Tag::List),
            rest => element(rest, closing),
        };
    }
    if let Some((rest, closing)) = kimi(inner) {
        let message = rest.strip_prefix("message ").filter(|_| !closing);
        let role = message.and_then(|attributes| attribute(attributes, "role"));
        return match role.as_deref() {
            _ if rest == "tools" => Some(if closing { Tag::ListEnd } else { Tag::List }),
            Some("assistant") => Some(Tag::Turn(Turn::Assistant)),
            Some(_) => Some(Tag::Turn(Turn::Foreign)),
            None => element(rest, closing).or(Some(Tag::Noise)),
        };
    }
    if inner.starts_with('|') || inner.ends_with('|') {
        return special(inner, closing);
    }
    element(inner, closing)
}

/// Replaces every run of bars with a single ASCII bar, and every `▁` with `_`. Leaves quoted text
/// unchanged.
pub(crate) fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            _ if quoted => out.push(c),
            '｜' | '‖' | '|' | '¦' | '│' | '∥' => {
                if !out.ends_with('|') {
                    out.push('|');
                }
            }
            '▁' => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

/// Parses Kimi K3's `<|open|>NAME ATTRIBUTES<|sep|>` and `<|close|>NAME<|sep|>`. Returns the text
/// between the two tokens, and whether the tag closes the element.
fn kimi(inner: &str) -> Option<(&str, bool)> {
    let inner = inner.strip_suffix("<|sep|")?;
    match inner.strip_prefix("|open|>") {
        Some(rest) => Some((rest, false)),
        None => Some((inner.strip_prefix("|close|>")?, true)),
    }
}

/// Returns the text after DeepSeek's `｜DSML｜`.
fn after_dsml(inner: &str) -> Option<&str> {
    let word = inner.trim_start_matches('|');
    let rest = word.get(..4).filter(|word| word.eq_ignore_ascii_case("dsml")).map(|_| &word[4..])?;
    let bare = rest.trim_start_matches(['|', ' ', '_']);
    (bare.len() < rest.len() && rest.starts_with(['|', ' ', '_'])).then_some(bare)
}

/// Returns the meaning of a token that has a bar at one end or both.
fn special(inner: &str, closing: bool) -> Option<Tag> {
    let word = inner.trim_matches(['|', ' ', '_']);
    let (word, closing) = match word.strip_prefix('/') {
        Some(word) => (word, true),
        None => (word, closing),
    };
    let word = word.to_ascii_lowercase().replace([' ', '-'], "_");
    let slash = if closing { "/" } else { "" };
    let bar = |there: bool| if there { "|" } else { "" };
    let exact = format!("<{}{slash}{word}{}>", bar(inner.starts_with('|')), bar(inner.ends_with('|')));
    token(&exact).or_else(|| token(&format!("<|{slash}{word}|>")))
}

/// Returns the meaning of an element's tag, based on the element's name without its namespace and
/// on its attributes.
fn element(text: &str, closing: bool) -> Option<Tag> {
    let text = text.trim();
    let empty = text.ends_with('/');
    let text = text.trim_end_matches('/').trim_end();
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '-' | '|')))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    // Drop a namespace before the name, or Hunyuan's suffix after it.
    let name = match name.split_once([':', '|']) {
        Some((name, "opensource")) => name,
        Some((_, name)) => name,
        None => name,
    };
    let name = name.to_ascii_lowercase();
    let of = |names: fn(&crate::dialects::Dialect) -> &[&str]| {
        DIALECTS.iter().any(|d| names(d).contains(&name.as_str()))
    };
    let plain = rest.trim().is_empty();
    if let Some(pair) = DIALECTS.iter().flat_map(|d| d.pairs).find_map(|(key, value)| match () {
        () if *key == name => Some(if closing { Tag::KeyEnd } else { Tag::Key }),
        () if *value == name => Some(if closing { Tag::ValueEnd } else { Tag::Value }),
        () => None,
    }) {
        return Some(pair);
    }
    if of(|d| d.parameters) {
        return Some(match closing {
            true => Tag::ParameterEnd,
            false => Tag::Parameter {
                name: subject(rest)?,
                string: attribute(rest, "string")
                    .map(|v| v.eq_ignore_ascii_case("true"))
                    .or_else(|| attribute(rest, "type").map(|v| v == "string")),
                equals: rest.trim_start().starts_with('='),
            },
        });
    }
    let slash = if closing { "/" } else { "" };
    let found = token(&format!("<{slash}{name}>")).filter(|tag| plain || matches!(tag, Tag::ThinkOpen(_)));
    if of(|d| d.calls) {
        let wraps = token(&format!("<{name}>")).is_some();
        return match (closing, subject(rest)) {
            (true, _) if wraps => Some(Tag::CallEnd),
            (true, _) => Some(Tag::InvokeEnd),
            (false, Some(name)) => Some(Tag::Invoke { name, wraps, empty }),
            // `<tool_call id="1">`
            (false, None) if wraps => Some(Tag::Open { certain: false }),
            (false, None) => None,
        };
    }
    match found {
        Some(Tag::ThinkOpen(_)) if empty => Some(Tag::Noise),
        found => found,
    }
}

/// Looks up the meaning of a token in the tables in `dialects.rs`, ignoring ASCII case. Returns
/// `None` if it is not in any table.
pub(crate) fn token(token: &str) -> Option<Tag> {
    TOKENS.get(&token.to_ascii_lowercase()).cloned()
}

/// Every token in the tables, in lowercase. If two rows share a token, the first wins.
static TOKENS: LazyLock<HashMap<String, Tag>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    let mut add = |token: &str, tag: Tag| {
        all.entry(token.to_ascii_lowercase()).or_insert(tag);
    };
    for dialect in DIALECTS {
        for (key, value, end) in dialect.fields {
            add(key, Tag::Key);
            add(value, Tag::Value);
            add(end, Tag::ValueEnd);
        }
        for token in dialect.open {
            // An element is not certain, because it may also occur in prose.
            add(token, Tag::Open { certain: !dialect.between.is_empty() && token.starts_with("<|") });
        }
        for token in dialect.list {
            let closing = token.contains('/') || token.contains("_end") || token.contains(":end");
            add(token, if closing { Tag::ListEnd } else { Tag::List });
        }
        dialect.between.iter().for_each(|token| add(token, Tag::Between));
        dialect.close.iter().for_each(|token| add(token, Tag::CallEnd));
    }
    for (kind, thought) in THOUGHTS.iter().enumerate() {
        thought.open.iter().for_each(|token| add(token, Tag::ThinkOpen(kind)));
        thought.close.iter().for_each(|token| add(token, Tag::ThinkClose(kind)));
    }
    TURNS.iter().for_each(|(token, turn)| add(token, Tag::Turn(*turn)));
    NOISE.iter().for_each(|token| add(token, Tag::Noise));
    all
});

/// The tokens that do not begin with `<`, as spelled in the tables.
static LITERALS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let calls = DIALECTS.iter().flat_map(|d| [d.open, d.list, d.between, d.close]);
    let thoughts = THOUGHTS.iter().flat_map(|t| [t.open, t.close]);
    let all = calls.chain(thoughts).flatten().copied().chain(TURNS.iter().map(|(t, _)| *t));
    all.chain(NOISE.iter().copied()).filter(|t| !t.starts_with('<')).collect()
});

/// Returns the name given in an element's tag, either as `=NAME` or in a `name`, `tool` or `key`
/// attribute.
fn subject(rest: &str) -> Option<String> {
    let name = match rest.trim_start().strip_prefix('=') {
        Some(name) => name.trim().trim_matches(['"', '\'']).to_owned(),
        None => ["name", "tool", "key"].iter().find_map(|wanted| attribute(rest, wanted))?,
    };
    let name = name.replace("&quot;", "\"").replace("&amp;", "&");
    if name.is_empty() { None } else { Some(name) }
}

/// Returns the value of an attribute, whether quoted or bare.
fn attribute(rest: &str, wanted: &str) -> Option<String> {
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.chars().next()? {
            q @ ('"' | '\'' | '“' | '”') => {
                let body = &after[q.len_utf8()..];
                let close = body.find([q, '“', '”'])?;
                let width = body[close..].chars().next().map_or(1, char::len_utf8);
                (&body[..close], &body[close + width..])
            }
            _ => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (&after[..end], &after[end..])
            }
        };
        if name.trim() == wanted {
            return Some(value.to_owned());
        }
        rest = next.trim_start();
    }
    None
}

/// Returns the name in `<name>`, `</name>` or `<name/>`, and which of the three forms it is.
pub(crate) fn plain_element(tag: &[u8]) -> Option<(&str, Plain)> {
    let inner = std::str::from_utf8(tag).ok()?.strip_prefix('<')?.strip_suffix('>')?;
    if let Some((rest, closing)) = kimi(inner) {
        let name = rest.split_whitespace().next()?;
        return Some((name, if closing { Plain::Close } else { Plain::Open }));
    }
    let (inner, kind) = match (inner.strip_prefix('/'), inner.strip_suffix('/')) {
        (Some(name), _) => (name, Plain::Close),
        (None, Some(name)) => (name, Plain::Empty),
        (None, None) => (inner, Plain::Open),
    };
    let name = inner.trim();
    let word = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    word.then_some((name, kind))
}

/// The forms of a [`plain_element`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Open,
    Close,
    Empty,
}

/// Returns the length of the tag at `at` (a `<`), or 0 if there is no tag. Returns `None` if more
/// bytes are needed. `searched` records how far the search for the end of the tag has progressed,
/// so that no byte is scanned twice.
pub(crate) fn tag_length(win: Window<'_>, at: usize, searched: &mut usize) -> Option<usize> {
    let first = match win.get(at + 1) {
        Some(b'/') => win.get(at + 2),
        other => other,
    };
    match first {
        None if !win.eof => return None,
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'|' | b'/' | b'_' | 0xEF | 0xE2 | 0xC2) => {}
        // `< think >`: only thinking tags may have a space after the bracket.
        Some(b' ') => return spaced(win, at),
        _ => return Some(0),
    }
    // Kimi's elements end with a token.
    for open in [&b"<|open|>"[..], b"<|close|>"] {
        let rest = win.from(at);
        if rest.starts_with(open) {
            let rest = &rest[..rest.len().min(MAX_TAG)];
            return match memchr::memmem::find(rest, b"<|sep|>") {
                Some(end) => Some(end + b"<|sep|>".len()),
                None if win.eof || rest.len() == MAX_TAG => Some(0),
                None => None,
            };
        }
        if open.starts_with(rest) && !win.eof {
            return None;
        }
    }
    let from = (*searched).max(at + 1);
    for (i, &b) in win.from(from).iter().enumerate() {
        let len = from + i + 1 - at;
        match b {
            b'>' => return Some(len),
            b'<' | b'\n' => return Some(0),
            _ if len >= MAX_TAG => return Some(0),
            _ => {}
        }
    }
    *searched = win.end();
    if win.eof { Some(0) } else { None }
}

/// Returns the meaning and the length of the tag at `at` (a `<`). The meaning is `None` if the tag
/// is ordinary text. The result is `None` if more bytes are needed. `searched` has the same meaning
/// as in [`tag_length`].
pub(crate) fn tag_at(win: Window<'_>, at: usize, searched: &mut usize) -> Option<(Option<Tag>, usize)> {
    let len = tag_length(win, at, searched)?;
    Some((classify(win.slice(at, at + len)), len))
}

/// Converts a tag or token to the spelling in the tables.
fn spelled(tag: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(tag).ok()?;
    let folded = fold(text).to_ascii_lowercase();
    let folded =
        if folded.starts_with("< ") || folded.starts_with("</ ") { folded.replace(' ', "") } else { folded };
    let inner = folded.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    let Some(inner) = inner else { return Some(text.to_owned()) };
    if let Some((name, closing)) = kimi(inner) {
        return Some(format!("<{}{name}>", if closing { "/" } else { "" }));
    }
    if inner.starts_with('|') || inner.starts_with("/|") || inner.ends_with('|') {
        return Some(folded);
    }
    let (slash, name) = match inner.trim().strip_prefix('/') {
        Some(name) => ("/", name),
        None => ("", inner),
    };
    let name = match name.trim().split_once([':', '|']) {
        Some((name, "opensource")) => name,
        Some((_, name)) => name,
        None => name.trim(),
    };
    Some(format!("<{slash}{name}>"))
}

/// Returns whether `tag` is one of `marks`.
pub(crate) fn is_one_of(tag: &[u8], marks: &[&str]) -> bool {
    spelled(tag).is_some_and(|tag| marks.iter().any(|mark| mark.eq_ignore_ascii_case(&tag)))
}

/// Like [`tag_length`], but for a thinking tag with a space after its opening bracket.
fn spaced(win: Window<'_>, at: usize) -> Option<usize> {
    let rest = win.from(at);
    let rest = &rest[..rest.len().min(MAX_SPACED)];
    match rest.iter().skip(1).position(|b| matches!(b, b'>' | b'<' | b'\n')) {
        Some(end) if rest[end + 1] == b'>' => {
            let tag = classify(&rest[..end + 2]);
            let mark = matches!(tag, Some(Tag::ThinkOpen(_) | Tag::ThinkClose(_)));
            Some(if mark { end + 2 } else { 0 })
        }
        None if rest.len() < MAX_SPACED && !win.eof => None,
        _ => Some(0),
    }
}

/// The maximum length of a thinking tag with spaces in it, in bytes.
const MAX_SPACED: usize = 24;

/// Returns the meaning and the length of the token at the start of `rest`, if it begins with a byte
/// other than `<`: either a token from the tables or a thinking tag in square brackets. `None` has
/// the same meaning as in [`tag_at`].
pub(crate) fn literal(rest: &[u8], eof: bool) -> Option<(Option<Tag>, usize)> {
    let mut undecided = false;
    for word in LITERALS.iter().copied() {
        if rest.starts_with(word.as_bytes()) {
            return Some((token(word), word.len()));
        }
        undecided |= rest.len() < word.len() && word.as_bytes().starts_with(rest);
    }
    if undecided && !eof {
        return None;
    }
    // A thinking tag in square brackets and capitals, such as `[THINKING]`.
    let [b'[', inner @ ..] = rest else { return Some((None, 0)) };
    let inner = &inner[..inner.len().min(MAX_SPACED)];
    let capitals = |b: &u8| b.is_ascii_uppercase() || matches!(b, b'_' | b'/' | b' ');
    match inner.iter().position(|b| !capitals(b)) {
        Some(end) if inner[end] == b']' && end > 0 => Some((thought(&rest[..end + 2]), end + 2)),
        None if inner.len() < MAX_SPACED && !eof => None,
        _ => Some((None, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_means_the_same_in_every_spelling() {
        for tag in
            ["<｜tool▁call▁begin｜>", "<|tool_call_begin|>", "<||tool call begin||>", "<|Tool_Call_Begin|>"]
        {
            assert_eq!(classify(tag.as_bytes()), Some(Tag::Open { certain: true }), "{tag}");
        }
        assert_eq!(classify(b"<|channel|>"), Some(Tag::Turn(Turn::Channel)));
        assert!(matches!(classify(b"<|channel>"), Some(Tag::ThinkOpen(_))), "should be Gemma's token");
        assert_eq!(classify(b"<tool_call|>"), Some(Tag::CallEnd));
        assert_eq!(classify(b"</minimax:tool_call>"), Some(Tag::CallEnd));
        assert_eq!(classify(b"<div>"), None);
    }

    #[test]
    fn every_token_of_the_tables_is_recognized() {
        let marks = DIALECTS.iter().flat_map(|d| [d.open, d.list, d.between, d.close]);
        let marks = marks.chain(THOUGHTS.iter().flat_map(|t| [t.open, t.close])).flatten();
        for mark in marks.copied().chain(TURNS.iter().map(|(t, _)| *t)).chain(NOISE.iter().copied()) {
            let found = match mark.starts_with('<') {
                true => classify(mark.as_bytes()),
                false => literal(mark.as_bytes(), true).and_then(|(tag, _)| tag),
            };
            assert!(found.is_some(), "{mark}");
        }
    }
}
