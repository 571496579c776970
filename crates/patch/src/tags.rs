//! Reads edits written as pairs of tags: Zed's `<old_text>` and `<new_text>`, and tags with similar
//! names.

use crate::{Dialect, FilePatch, ParseError, blocks};

const PAIRS: [(&str, &str); 6] = [
    ("old_text", "new_text"),
    ("old_string", "new_string"),
    ("old_str", "new_str"),
    ("search", "replace"),
    ("old_code", "new_code"),
    ("original_text", "updated_text"),
];

pub(crate) fn is_open(line: &str) -> bool {
    PAIRS.iter().any(|(old, _)| opening(line.trim_start(), old).is_some())
}

/// Reads an opening tag. Returns the number in its `line` attribute, and the text after the tag.
fn opening<'a>(text: &'a str, name: &str) -> Option<(Option<usize>, &'a str)> {
    let rest = text.strip_prefix('<')?.strip_prefix(name)?;
    let end = rest.find('>')?;
    let attributes = &rest[..end];
    if !(attributes.is_empty() || attributes.starts_with(' ')) || attributes.contains('\n') {
        return None;
    }
    let line = attributes.split_once("line=").map(|(_, line)| line.trim_matches(['"', '\'', ' ']));
    Some((line.and_then(|line| line.parse().ok()).filter(|line| *line > 0), &rest[end + 1..]))
}

/// Reads an element. Returns its line number, its text without a newline directly after the opening
/// tag, and the text after the element.
fn inner<'a>(text: &'a str, name: &str) -> Option<(Option<usize>, &'a str, &'a str)> {
    let (line, rest) = opening(text.trim_start(), name)?;
    let close = format!("</{name}>");
    let end = rest.find(&close)?;
    let inner = &rest[..end];
    let inner = inner.strip_prefix("\r\n").or_else(|| inner.strip_prefix('\n')).unwrap_or(inner);
    Some((line, inner, &rest[end + close.len()..]))
}

pub(crate) fn parse(text: &str, default: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    let mut out = Vec::new();
    let mut path: Option<String> = None;
    let mut done = 0;
    for (i, line) in text.lines().enumerate() {
        let from = line.as_ptr() as usize - text.as_ptr() as usize;
        if from < done {
            continue;
        }
        let trimmed = line.trim();
        for tag in ["path", "file_path", "file", "filename"] {
            if let Some((_, name, _)) = inner(trimmed, tag).filter(|(_, name, _)| !name.is_empty()) {
                path = Some(name.trim().to_owned());
            }
        }
        if let Some((_, name)) = trimmed.split_once(" path=\"").filter(|_| trimmed.starts_with('<')) {
            path = name.split_once('"').map(|(name, _)| name.to_owned());
        }
        let Some((old, new)) = PAIRS.iter().find(|(old, _)| opening(line.trim_start(), old).is_some()) else {
            continue;
        };
        let why = "add its closing tag, and below it a tag with the new text";
        let incomplete = || ParseError::at(i, line, why);
        let (number, search, rest) = inner(&text[from..], old).ok_or_else(incomplete)?;
        let (_, replace, rest) = inner(rest, new).ok_or_else(incomplete)?;
        done = text.len() - rest.len();
        let (search, replace) = as_lines(search, replace);
        let path = path.as_deref().or(default).ok_or(ParseError::NoPath("write it in a <path> tag above"))?;
        if let Some(hunk) = blocks::add(&mut out, path, search, replace, Dialect::SearchReplace) {
            hunk.start = number;
        }
    }
    if out.is_empty() { Err(ParseError::NotAPatch) } else { Ok(out) }
}

/// Returns both strings unchanged if both consist of whole lines. Otherwise, treats both as parts
/// of lines and removes the newline before each closing tag.
fn as_lines<'a>(search: &'a str, replace: &'a str) -> (&'a str, &'a str) {
    let whole = |text: &str| text.is_empty() || text.ends_with('\n');
    if whole(search) && whole(replace) {
        return (search, replace);
    }
    let piece =
        |text: &'a str| text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    (piece(search), piece(replace))
}
