//! Extracts the comment text from a line, in any language.

/// The part of a line that may be a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text<'a> {
    Comment(&'a str),
    /// Text in brackets or after dots, outside a comment: `[... rest of the code ...]`.
    Aside(&'a str),
    /// A comment that follows code on the same line. Either the code does nothing by itself, such
    /// as `pass` or an opening brace, or the comment begins with dots.
    Trailing(&'a str),
    /// Dots as the body of a block: `{ ... }`.
    Dots,
}

/// Comment openers, with their closers.
const COMMENTS: [(&str, &str); 25] = [
    ("<!--", "-->"),
    ("{/*", "*/}"),
    ("/**", "*/"),
    ("/*", "*/"),
    ("<%--", "--%>"),
    ("<%#", "%>"),
    ("{{!--", "--}}"),
    ("{{!", "}}"),
    ("{#", "#}"),
    ("@*", "*@"),
    ("(*", "*)"),
    ("{-", "-}"),
    ("--[[", "]]"),
    ("\"\"\"", "\"\"\""),
    ("'''", "'''"),
    ("//", ""),
    ("#", ""),
    ("--", ""),
    (";", ""),
    ("% ", ""),
    ("%%", ""),
    ("::", ""),
    ("* ", ""),
    ("! ", ""),
    ("..", ""),
];

const WORDS: [&str; 3] = ["rem ", "@rem ", "dnl "];

/// Code that does nothing. A comment after it may stand in for a body.
const EMPTY: [&str; 8] = ["pass", "...", "{}", "return", "return;", ";", "}", "]"];

/// Cheaply rules out most lines of code.
pub(super) fn may_be_comment(text: &str) -> bool {
    let comment = text.starts_with([
        '/', '#', '<', '{', '-', ';', '%', '\'', '*', '(', '[', '.', '…', '"', ':', '@', '!', 'r', 'R', 'd',
    ]);
    comment
        || text.contains("/*")
        || text.contains("//")
        || text.contains('#')
        || text.contains("...")
        || text.contains('…')
}

/// Strips the comment markers from a line. In prose, only `<!-- -->` and `{/* */}` count as
/// comments.
pub(super) fn of(text: &str, prose: bool) -> Option<Text<'_>> {
    let list: &[(&str, &str)] = if prose { &COMMENTS[..2] } else { &COMMENTS };
    for (open, close) in list {
        let Some(inner) = text.strip_prefix(open) else { continue };
        if *open == ".." {
            break; // dots, or reStructuredText
        }
        if *open == "//" && inner.starts_with(['/', '!']) {
            return None; // a doc comment, which may show abbreviated code
        }
        if *open == "::" && inner.starts_with(':') || *open == "#" && inner.starts_with(['!', '[', '{']) {
            return None;
        }
        let inner = inner.strip_suffix(close).unwrap_or(inner);
        return Some(Text::Comment(
            inner.trim_matches(|c: char| c.is_whitespace() || "/#*-=~;%".contains(c)),
        ));
    }
    if !prose {
        if let Some(word) =
            WORDS.iter().find(|word| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word)))
        {
            return Some(Text::Comment(text[word.len()..].trim()));
        }
        // In Visual Basic, a single quote begins a comment. A second quote would make the text a
        // string.
        if let Some(inner) = text.strip_prefix('\'').filter(|inner| !inner.contains('\'')) {
            return Some(Text::Comment(inner.trim()));
        }
    }
    aside(text).or_else(|| if prose { None } else { trailing(text) })
}

fn aside(text: &str) -> Option<Text<'_>> {
    let dots = text.strip_prefix("...").or_else(|| text.strip_prefix('…'));
    if let Some(rest) = dots {
        // `...rest` and `...(cond ? a : b)` are code.
        let spread = rest.starts_with(['(', '[', '{'])
            || rest.starts_with(|c: char| c.is_alphabetic() || c == '_') && !rest.contains(' ');
        return (!spread).then_some(Text::Aside(text));
    }
    let wrapped = [('[', ']'), ('(', ')'), ('<', '>'), ('{', '}')]
        .iter()
        .any(|(open, close)| text.starts_with(*open) && text.ends_with(*close) && text.len() > 2);
    wrapped.then_some(Text::Aside(text))
}

fn trailing(text: &str) -> Option<Text<'_>> {
    let body: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if ["{...}", "{…}", "{/*...*/}", "{//...}", "{/*…*/}"]
        .iter()
        .any(|dots| body.ends_with(dots) && body.len() > dots.len())
    {
        return Some(Text::Dots);
    }
    if let Some((before, rest)) = text.split_once("/*")
        && let Some((inner, _)) = rest.split_once("*/")
    {
        let before = before.trim_end();
        let dots = inner.trim_start().starts_with("...");
        let empty = dots
            || before.is_empty()
            || before.ends_with(['{', '(', '>', '[', ';'])
            || EMPTY.contains(&before);
        return empty.then_some(Text::Trailing(inner.trim()));
    }
    let (code, inner, mark) = ["//", "#", "--"].iter().find_map(|mark| {
        let at = text.find(&format!(" {mark}"))?;
        Some((text[..at].trim_end(), text[at + 1 + mark.len()..].trim(), *mark))
    })?;
    let empty = EMPTY.contains(&code)
        || code.ends_with(['{', ':', '[', '('])
        || code.ends_with(": ...")
        || code.ends_with(": pass");
    let inner = inner.trim_end_matches(['}', ' ', ';']);
    // A comment after code that does something is about that code, unless the comment begins with
    // dots.
    let dots = inner.starts_with("...") || inner.starts_with('…');
    (empty || dots && !code.contains(mark)).then_some(Text::Trailing(inner))
}
