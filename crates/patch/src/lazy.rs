//! Placeholder lines: a comment or an ellipsis that a model writes where the file has code.
//!
//! `# ... rest of the code remains the same ...` in a replacement deletes the code that it stands for. [`find`] looks for such lines among
//! the lines that a patch adds; one that the file has already is not a placeholder. A comment is one only if all of it is about code that is
//! left out: every word is in the tables of [`words`], or an ellipsis stands around a phrase of theirs. So `# keep the rest of the buffer`
//! is an ordinary comment, as are Python's `...` bodies and JavaScript's `...rest`.

mod comment;
mod words;

use crate::{
    Action, FilePatch, Hunk, Kind, Mark, Refused,
    feedback::show,
    lines::{bare, indent},
    units,
};
use comment::Text;

/// What a placeholder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// Something is left out here.
    Omitted,
    /// Code that exists stays here. There is none in a new file.
    Existing,
}

/// The kind of file, as far as it decides what a placeholder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// `...` is a statement.
    Python,
    /// `{ ... }` is a statement.
    Yada,
    /// A line of dots ends a document.
    Yaml,
    /// Text for people, in which `#` and `*` are no comments.
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

/// Whether a file is text for people.
pub(crate) fn is_prose(path: &str) -> bool {
    Syntax::of(path) == Syntax::Prose
}

/// Why a patch is refused: the first line it adds that stands for code it leaves out. `file` is what it is applied to.
pub(crate) fn refusal(file: Option<&[u8]>, patch: &FilePatch) -> Option<Refused> {
    refusal_of(file, patch, true)
}

/// The same for a patch that is not all there yet.
pub(crate) fn refusal_so_far(file: Option<&[u8]>, patch: &FilePatch) -> Option<Refused> {
    refusal_of(file, patch, false)
}

fn refusal_of(file: Option<&[u8]>, patch: &FilePatch, complete: bool) -> Option<Refused> {
    match &patch.action {
        Action::Create(content) | Action::Replace(content) => {
            let added = content.split(|b| *b == b'\n').map(|line| (Mark::Add, bare(line)));
            let before = file.into_iter().flat_map(|file| file.split(|b| *b == b'\n'));
            let removed = before.map(|line| (Mark::Remove, bare(line)));
            let lines: Vec<_> = removed.chain(added).collect();
            let (line, says) = find(file, &patch.path, &lines, complete)?;
            Some(refused(file, line, says))
        }
        Action::Update => hunks(file, &patch.path, &patch.hunks, complete),
        Action::Delete => None,
    }
}

/// The same for hunks. One that can be read in several ways is not judged.
pub(crate) fn find_in(file: Option<&[u8]>, path: &str, all: &[Hunk]) -> Option<Refused> {
    hunks(file, path, all, true)
}

fn hunks(file: Option<&[u8]>, path: &str, hunks: &[Hunk], complete: bool) -> Option<Refused> {
    // What dots in a search stand for is known when its replacement is complete.
    let judged = |hunk: &Hunk| hunk.readings.is_empty() && (complete || !searches_with_dots(hunk));
    hunks.iter().enumerate().filter(|(_, hunk)| judged(hunk)).find_map(|(i, hunk)| {
        let lines: Vec<_> = hunk.lines.iter().map(|line| (line.mark, bare(&line.text))).collect();
        let (line, says) = find(file, path, &lines, complete)?;
        Some(refused(file, line, says).hunk(i + 1, hunks.len()))
    })
}

fn searches_with_dots(hunk: &Hunk) -> bool {
    let search = hunk.text.as_ref().and_then(|(search, _)| std::str::from_utf8(search).ok());
    search.is_some_and(|search| search.lines().any(elides))
}

/// The refusal of one placeholder line.
fn refused(file: Option<&[u8]>, line: &[u8], says: Says) -> Refused {
    let line = show(line.trim_ascii());
    let message = match (file, says) {
        (None, _) => format!(
            "the new file has a placeholder line (`{line}`) for code that does not exist; write it out"
        ),
        (Some(_), _) => format!(
            "the replacement has a placeholder line (`{line}`) where the file has code; write that code out, or change only the \
             lines around it"
        ),
    };
    Refused::new(Kind::Placeholder, message)
}

/// The first added line that is a placeholder and does not stand in the file.
fn find<'a>(
    file: Option<&[u8]>,
    path: &str,
    lines: &[(Mark, &'a [u8])],
    complete: bool,
) -> Option<(&'a [u8], Says)> {
    let syntax = Syntax::of(path);
    let mut above: Vec<&[u8]> = Vec::new();
    for (mark, line) in lines.iter().copied().filter(|(mark, _)| *mark != Mark::Remove) {
        let said = if mark == Mark::Add {
            says(syntax, &above, line).or_else(|| if complete { says_of(syntax, lines, line) } else { None })
        } else {
            None
        };
        let applies = |says: &Says| match file {
            Some(file) => !file.split(|b| *b == b'\n').any(|there| units::same(there, line)),
            None => *says == Says::Existing,
        };
        if let Some(says) = said.filter(applies) {
            return Some((line, says));
        }
        above.push(line);
    }
    None
}

/// Whether a comment stands for code that goes: the text becomes shorter, and what the comment names is in no other new line.
fn says_of(syntax: Syntax, lines: &[(Mark, &[u8])], line: &[u8]) -> Option<Says> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let comment = comment::may_be(text).then(|| comment::of(text, syntax == Syntax::Prose)).flatten();
    let Some(Text::Comment(comment)) = comment else { return None };
    words::says_of(comment, |_| true)?;
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
                .any(|there| there.trim_matches('_').to_lowercase() == word)
        };
        lines.iter().any(|(mark, text)| wanted(*mark) && *text != line && named(text))
    };
    // A comment that is written anew has words of the old one.
    let code: Vec<(Mark, &[u8])> = lines
        .iter()
        .copied()
        .filter(|(mark, text)| *mark != Mark::Remove || !is_comment(syntax, text))
        .collect();
    words::says_of(comment, |word| {
        has(&code, |mark| mark == Mark::Remove, word) && !has(&code, |mark| mark != Mark::Remove, word)
    })
}

fn is_comment(syntax: Syntax, line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).unwrap_or_default().trim();
    matches!(comment::of(text, syntax == Syntax::Prose), Some(Text::Comment(_)))
}

/// Whether a line can stand for others in a search and its replacement: dots alone, or a placeholder.
pub(crate) fn elides(line: &str) -> bool {
    matches!(line.trim(), "..." | "…") || says(Syntax::Other, &[], line.as_bytes()).is_some()
}

/// Whether a line may be a placeholder, whatever is around it.
pub(crate) fn may_be(line: &str) -> bool {
    elides(line)
}

/// Whether the last of these added lines is a placeholder for omitted code.
fn says(syntax: Syntax, above: &[&[u8]], line: &[u8]) -> Option<Says> {
    let quoted = |says: &Says| *says == Says::Omitted && syntax == Syntax::Python && in_string(above);
    judged(syntax, above, line).filter(|says| !quoted(says))
}

fn judged(syntax: Syntax, above: &[&[u8]], line: &[u8]) -> Option<Says> {
    let text = std::str::from_utf8(line).ok()?.trim();
    if !comment::may_be(text) {
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
        return (!valid).then_some(Says::Omitted);
    }
    match comment::of(text, syntax == Syntax::Prose)? {
        Text::Comment(text) => words::says(text).filter(|_| !continues(above, text)),
        Text::Aside(text) => {
            let says =
                words::says(text).filter(|_| text.contains(char::is_alphanumeric) && words::is_plain(text));
            says.filter(|_| !is_prompt(above))
        }
        Text::Trailing(text) => {
            let dots = text.starts_with(['.', '…']) && text.contains(char::is_alphabetic);
            words::says(text).filter(|says| dots || *says == Says::Existing)
        }
        Text::Dots => (syntax != Syntax::Yada && syntax != Syntax::Prose && syntax != Syntax::Python)
            .then_some(Says::Omitted),
    }
}

/// Whether a `...` is all there is in its block, docstring and comments aside, as in a stub or a protocol; or a doctest's own prompt.
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
    // The hunk begins inside the block.
    depth > 0
}

/// Whether the lines above end with one of a doctest.
fn is_prompt(above: &[&[u8]]) -> bool {
    let last = above.iter().rev().map(|line| line.trim_ascii()).find(|line| !line.is_empty());
    last.is_some_and(|line| line.starts_with(b">>>") || line.starts_with(b"... ") || line == b"...")
}

/// How many triple quotes a line has.
fn quotes(line: &[u8]) -> usize {
    let count = |quote: &[u8]| memchr::memmem::find_iter(line, quote).count();
    count(b"\"\"\"") + count(b"'''")
}

/// Whether a string of several lines is open behind these lines.
fn in_string(above: &[&[u8]]) -> bool {
    above.iter().map(|line| quotes(line)).sum::<usize>() % 2 == 1
}

/// Whether a comment goes on with the sentence of the one above it.
fn continues(above: &[&[u8]], text: &str) -> bool {
    if words::has_dots(text) || !text.starts_with(char::is_lowercase) {
        return false;
    }
    let last =
        above.last().and_then(|line| std::str::from_utf8(line).ok()).map(str::trim).unwrap_or_default();
    matches!(comment::of(last, false), Some(Text::Comment(above)) if above.ends_with(|c: char| c.is_alphanumeric() || c == ','))
}
