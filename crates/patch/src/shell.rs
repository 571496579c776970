//! Unwraps patches in shell commands: `apply_patch <<'EOF'` and `apply_patch '{"edits": …}'`.

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heredoc<'a> {
    /// The word on the line that ends the heredoc.
    pub(crate) word: &'a str,
    /// Whether the heredoc starts with `<<-`, which strips leading tabs.
    pub(crate) strips_tabs: bool,
}

pub(crate) fn heredoc(line: &str) -> Option<Heredoc<'_>> {
    let (_, rest) = line.split_once("<<")?;
    let strips_tabs = rest.starts_with('-');
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start_matches([' ', '\t', '\\']);
    let rest = rest.trim_start_matches(['\'', '"']);
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let word = &rest[..end];
    word.starts_with(char::is_alphabetic).then_some(Heredoc { word, strips_tabs })
}

/// Returns the heredoc that a line opens, unless the line is a patch marker.
pub(crate) fn opened(line: &str) -> Option<Heredoc<'_>> {
    if line.starts_with("<<") { None } else { heredoc(line) }
}

/// Returns whether a line ends the heredoc delimited by this word.
pub(crate) fn ends(line: &str, word: &str) -> bool {
    line.trim().trim_end_matches(['\'', '"', ')', ';']) == word
}

/// Returns the lines of a heredoc that contains a patch, unless there is another patch outside it.
pub(crate) fn unwrapped(text: &str) -> Option<&str> {
    let offset = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
    let mut lines = text.split_inclusive('\n');
    let (opener, heredoc) = lines.find_map(|line| Some((line, opened(line)?)))?;
    let from = offset(opener) + opener.len();
    if heredoc.strips_tabs || crate::detect(&text[..from]).is_some() {
        return None;
    }
    let end = lines.find(|line| ends(line, heredoc.word))?;
    let (inner, after) = (&text[from..offset(end)], &text[offset(end) + end.len()..]);
    (crate::detect(inner).is_some() && crate::detect(after).is_none()).then_some(inner)
}

/// Returns the JSON argument of an `apply_patch` command.
pub(crate) fn argument(text: &str) -> Option<Value> {
    let from = text.find("apply_patch")?;
    let at = from + text[from..].find(['{', '['])?;
    let read = |text: &str| serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok();
    let quoted = text[..at].trim_end().ends_with('"');
    if quoted {
        let inner = &text[at..text.rfind('"')?.max(at)];
        return read(&inner.replace("\\\"", "\"").replace("\\\\", "\\"));
    }
    read(&text[at..])
}
