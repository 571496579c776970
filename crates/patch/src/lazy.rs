//! Detects placeholder lines: comments or ellipses that a model writes in place of code.
//!
//! In a replacement, `# ... rest of the code remains the same ...` deletes the code it stands in
//! for. [`find`] looks for such lines among the added lines; a line that the file already has is
//! not a placeholder. A comment is a placeholder only if all of it is about omitted code.
//! Typically, every word is in the tables of [`words`], or the comment has an ellipsis at both ends
//! and only a few words that are not in the tables. Thus `# keep the rest of the buffer` is an
//! ordinary comment. Python's `...` bodies and JavaScript's `...rest` are code.

mod comment;
mod words;

use crate::{
    Action, FilePatch, Hunk, Mark, Refusal, RefusalKind,
    feedback::show,
    lines::{bare, indent},
    units,
};
use comment::Text;

/// What a placeholder claims about the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Something is omitted here.
    Omitted,
    /// Existing code stays here, which cannot be true in a new file.
    Existing,
}

/// The kind of file, which determines what counts as a placeholder in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// `...` is a statement.
    Python,
    /// `{ ... }` is a statement.
    Yada,
    /// An unindented line of dots ends a document.
    Yaml,
    /// Prose, in which `#` and `*` do not start comments.
    Prose,
    Other,
}

impl Syntax {
    fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.rsplit_once('.').map(|(_, ext)| ext.to_ascii_lowercase()).as_deref() {
            Some("py" | "pyi" | "pyw" | "pyx") => Self::Python,
            Some("pl" | "pm" | "t" | "raku" | "p6") => Self::Yada,
            Some("yaml" | "yml") => Self::Yaml,
            Some("md" | "markdown" | "mdx" | "rst" | "txt" | "adoc" | "org" | "log" | "ipynb") => Self::Prose,
            None if name.chars().any(char::is_lowercase) => Self::Other,
            None => Self::Prose, // README, LICENSE, CHANGES
            Some(_) => Self::Other,
        }
    }
}

pub(crate) fn is_prose(path: &str) -> bool {
    Syntax::of(path) == Syntax::Prose
}

/// Refuses a patch that adds a placeholder, and quotes the first one. `file` is the content of the
/// file that the patch changes; `complete` is false while the patch is still streaming.
pub(crate) fn refusal(file: Option<&[u8]>, patch: &FilePatch, complete: bool) -> Option<Refusal> {
    match &patch.action {
        Action::Create(content) | Action::Replace(content) => {
            let added = content.split(|b| *b == b'\n').map(|line| (Mark::Add, bare(line)));
            let before = file.into_iter().flat_map(|file| file.split(|b| *b == b'\n'));
            let removed = before.map(|line| (Mark::Remove, bare(line)));
            let lines: Vec<_> = removed.chain(added).collect();
            find(file, &patch.path, &lines, complete).map(|line| refused(file, line))
        }
        Action::Update => refusal_of_hunks(file, &patch.path, &patch.hunks, complete),
        Action::Delete => None,
    }
}

/// Like [`refusal`], but for hunks. Skips hunks that can be read in more than one way.
pub(crate) fn refusal_of_hunks(
    file: Option<&[u8]>,
    path: &str,
    hunks: &[Hunk],
    complete: bool,
) -> Option<Refusal> {
    // Until the replacement is complete, it is unclear what dots in the search stand for.
    let judged = |hunk: &Hunk| hunk.readings.is_empty() && (complete || !searches_with_dots(hunk));
    hunks.iter().enumerate().filter(|(_, hunk)| judged(hunk)).find_map(|(i, hunk)| {
        let lines: Vec<_> = hunk.lines.iter().map(|line| (line.mark, bare(&line.text))).collect();
        find(file, path, &lines, complete).map(|line| refused(file, line).hunk(i + 1, hunks.len()))
    })
}

fn searches_with_dots(hunk: &Hunk) -> bool {
    let search = hunk.text.as_ref().and_then(|(search, _)| std::str::from_utf8(search).ok());
    search.is_some_and(|search| search.lines().any(is_elision))
}

fn refused(file: Option<&[u8]>, line: &[u8]) -> Refusal {
    let line = show(line.trim_ascii());
    let message = match file {
        None => format!(
            "the new file has a placeholder line (`{line}`) for code that does not exist; write it out"
        ),
        Some(_) => format!(
            "the replacement has a placeholder line (`{line}`) where the file has code; write that code out, or change only the \
             lines around it"
        ),
    };
    Refusal::new(RefusalKind::Placeholder, message)
}

/// Returns the first added line that is a placeholder and is not in the file.
fn find<'a>(file: Option<&[u8]>, path: &str, lines: &[(Mark, &'a [u8])], complete: bool) -> Option<&'a [u8]> {
    let syntax = Syntax::of(path);
    let mut above: Vec<&[u8]> = Vec::new();
    for (mark, line) in lines.iter().copied().filter(|(mark, _)| *mark != Mark::Remove) {
        let claim = if mark == Mark::Add {
            classify(syntax, &above, line)
                .or_else(|| if complete { classify_if_removed(syntax, lines, line) } else { None })
        } else {
            None
        };
        let applies = |claim: &Claim| match file {
            Some(file) => !file.split(|b| *b == b'\n').any(|other| units::same(other, line)),
            None => *claim == Claim::Existing,
        };
        if claim.as_ref().is_some_and(applies) {
            return Some(line);
        }
        above.push(line);
    }
    None
}

/// If a comment stands in for removed code, returns what it claims about that code. A comment
/// stands in for removed code if more of `lines` are removed than added, and if the things it
/// mentions occur in the removed code but nowhere in the remaining or added lines.
fn classify_if_removed(syntax: Syntax, lines: &[(Mark, &[u8])], line: &[u8]) -> Option<Claim> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let comment = comment::may_be_comment(text).then(|| comment::of(text, syntax == Syntax::Prose)).flatten();
    let Some(Text::Comment(comment)) = comment else { return None };
    words::classify_if_removed(comment, |_| true)?;
    let filled = |wanted: Mark| {
        lines.iter().filter(move |(mark, text)| *mark == wanted && !text.trim_ascii().is_empty()).count()
    };
    if filled(Mark::Remove) <= filled(Mark::Add) {
        return None;
    }
    let has = |lines: &[(Mark, &[u8])], wanted: fn(Mark) -> bool, word: &str| {
        let named = |text: &[u8]| {
            String::from_utf8_lossy(text)
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .any(|other| other.trim_matches('_').to_lowercase() == word)
        };
        lines.iter().any(|(mark, text)| wanted(*mark) && *text != line && named(text))
    };
    // Ignore removed comments, since a rewritten comment shares words with them.
    let code: Vec<(Mark, &[u8])> = lines
        .iter()
        .copied()
        .filter(|(mark, text)| *mark != Mark::Remove || !is_comment(syntax, text))
        .collect();
    words::classify_if_removed(comment, |word| {
        has(&code, |mark| mark == Mark::Remove, word) && !has(&code, |mark| mark != Mark::Remove, word)
    })
}

fn is_comment(syntax: Syntax, line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).unwrap_or_default().trim();
    matches!(comment::of(text, syntax == Syntax::Prose), Some(Text::Comment(_)))
}

/// Returns whether a line that appears in both a search and its replacement can stand in for other
/// lines, that is, whether it consists of dots or is a placeholder.
pub(crate) fn is_elision(line: &str) -> bool {
    matches!(line.trim(), "..." | "…") || classify(Syntax::Other, &[], line.as_bytes()).is_some()
}

/// If a line is a placeholder, returns what it claims about the code.
fn classify(syntax: Syntax, above: &[&[u8]], line: &[u8]) -> Option<Claim> {
    let quoted = |claim: &Claim| *claim == Claim::Omitted && syntax == Syntax::Python && in_string(above);
    classify_line(syntax, above, line).filter(|claim| !quoted(claim))
}

fn classify_line(syntax: Syntax, above: &[&[u8]], line: &[u8]) -> Option<Claim> {
    let text = std::str::from_utf8(line).ok()?.trim();
    if !comment::may_be_comment(text) {
        return None;
    }
    if matches!(text, "..." | "…" | "....") {
        let valid = match syntax {
            Syntax::Python => is_body(above, line),
            Syntax::Yaml => indent(line).is_empty(),
            Syntax::Prose => true,
            Syntax::Yada => {
                is_body(above, line) || above.last().is_some_and(|line| line.trim_ascii_end().ends_with(b"{"))
            }
            Syntax::Other => {
                is_body(above, line) && above.last().is_some_and(|line| line.trim_ascii_end().ends_with(b":"))
            }
        };
        return (!valid).then_some(Claim::Omitted);
    }
    match comment::of(text, syntax == Syntax::Prose)? {
        Text::Comment(text) => words::classify(text).filter(|_| !continues(above, text)),
        Text::Aside(text) => {
            let claim = words::classify(text)
                .filter(|_| text.contains(char::is_alphanumeric) && words::is_plain(text));
            claim.filter(|_| !is_prompt(above))
        }
        Text::Trailing(text) => {
            let dots = text.starts_with(['.', '…']) && text.contains(char::is_alphabetic);
            words::classify(text).filter(|claim| dots || *claim == Claim::Existing)
        }
        Text::Dots => (syntax != Syntax::Yada && syntax != Syntax::Prose && syntax != Syntax::Python)
            .then_some(Claim::Omitted),
    }
}

/// Returns whether `...` is the whole body of its block, as in a stub or a protocol, ignoring
/// docstrings and comments. Also returns true if `...` continues a doctest.
fn is_body(above: &[&[u8]], line: &[u8]) -> bool {
    let depth = indent(line).len();
    if is_prompt(above) {
        return true;
    }
    let mut in_docstring = false;
    for text in above.iter().rev() {
        let trimmed = text.trim_ascii();
        let quotes = quotes(trimmed);
        if quotes == 1 {
            in_docstring = !in_docstring;
            continue;
        }
        if in_docstring || quotes == 2 || trimmed.is_empty() || trimmed.starts_with(b"#") {
            continue;
        }
        let opens = trimmed.ends_with(b":") || memchr::memmem::find(trimmed, b":  #").is_some();
        return opens && (indent(text).len() < depth || trimmed.starts_with(b")") && depth > 0);
    }
    // No line above opens the block, so the hunk begins inside it.
    depth > 0
}

/// Returns whether the last non-blank line above is part of a doctest.
fn is_prompt(above: &[&[u8]]) -> bool {
    let last = above.iter().rev().map(|line| line.trim_ascii()).find(|line| !line.is_empty());
    last.is_some_and(|line| line.starts_with(b">>>") || line.starts_with(b"... ") || line == b"...")
}

fn quotes(line: &[u8]) -> usize {
    let count = |quote: &[u8]| memchr::memmem::find_iter(line, quote).count();
    count(b"\"\"\"") + count(b"'''")
}

/// Returns whether a multi-line string is open after these lines.
fn in_string(above: &[&[u8]]) -> bool {
    above.iter().map(|line| quotes(line)).sum::<usize>() % 2 == 1
}

/// Returns whether a comment continues a sentence that begins in the comment above it.
fn continues(above: &[&[u8]], text: &str) -> bool {
    if words::has_dots(text) || !text.starts_with(char::is_lowercase) {
        return false;
    }
    let last =
        above.last().and_then(|line| std::str::from_utf8(line).ok()).map(str::trim).unwrap_or_default();
    matches!(comment::of(last, false), Some(Text::Comment(above)) if above.ends_with(|c: char| c.is_alphanumeric() || c == ','))
}
