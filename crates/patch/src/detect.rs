//! Detects the dialect of a patch and parses it.

use serde_json::Value;

use crate::{Action, Dialect, FilePatch, ParseError, apply, blocks, envelope, json, shell, tags, unified};

/// Returns the dialect of a patch, based on its first unambiguous line, or `None` if it has no such
/// line. Prose and fences around the patch are ignored.
#[must_use]
pub fn detect(text: &str) -> Option<Dialect> {
    let lines: Vec<&str> = text.lines().collect();
    let mut tries = 0;
    (0..lines.len()).find_map(|i| {
        let line = lines[i];
        if line.trim_start().starts_with(['[', '{']) && tries < MAX_TRIES {
            tries += 1;
            let from = line.as_ptr() as usize - text.as_ptr() as usize;
            read_edits(&text[from..], None).map(|_| Dialect::Edits)
        } else if envelope::is_directive(line) {
            Some(Dialect::Envelope)
        } else if blocks::is_search(line) || tags::is_open(line) {
            Some(Dialect::SearchReplace)
        } else if line.starts_with("diff --git ") || line.starts_with("@@") || unified::is_header(&lines, i) {
            Some(Dialect::Unified)
        } else {
            None
        }
    })
}

/// Parses a patch in any dialect.
///
/// # Errors
/// Fails if the text is not a patch, or is malformed in a way that the parser does not tolerate.
pub fn parse(text: &str) -> Result<Vec<FilePatch>, ParseError> {
    parse_for(text, None)
}

/// Like [`parse`], but with a default path for patches that do not name a file.
///
/// # Errors
/// Same as [`parse`].
pub fn parse_for(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = shell::unwrapped(text).unwrap_or(text);
    let dedented = dedented(text);
    let text = dedented.as_deref().unwrap_or(text);
    if detect(text).is_none()
        && let Some(read) = shell::argument(text).and_then(|value| json::read(&value, path))
    {
        return read.map(merge);
    }
    let crlf =
        text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).all(|line| line.ends_with("\r\n"));
    let mut patches = merge(read(text, path)?);
    for patch in patches.iter_mut().filter(|_| crlf) {
        // Even the headers end with `\r\n`, so these line endings come from the patch, not from the
        // file.
        if let Action::Create(content) = &mut patch.action {
            *content = without_returns(content);
            patch.own_endings = true;
        }
    }
    Ok(patches)
}

/// Removes the indentation of a patch that is indented as a whole, for example inside a Markdown
/// list. Returns `None` unless every non-blank line starts with the same indentation as the patch's
/// first line.
fn dedented(text: &str) -> Option<String> {
    let starts = ["*** Begin Patch", "diff --git ", "--- ", "<<<<<<< ", "```"];
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let indented = |line: &&str| {
        line.starts_with([' ', '\t']) && starts.iter().any(|start| line.trim_start().starts_with(start))
    };
    let first =
        lines.iter().position(|line| starts.iter().any(|start| line.trim_start().starts_with(start)))?;
    let line = lines.get(first).filter(|line| indented(line))?;
    let by = &line[..line.len() - line.trim_start().len()];
    let mut out: String = lines[..first].concat();
    for line in &lines[first..] {
        out += match line.strip_prefix(by) {
            Some(line) => line,
            None if line.trim().is_empty() => line,
            None => return None,
        };
    }
    detect(&out).map(|_| out)
}

fn without_returns(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|b| *b == b'\n');
    let bare = |line: &[u8]| match line.strip_suffix(b"\r\n") {
        Some(line) => [line, b"\n"].concat(),
        None => line.to_vec(),
    };
    lines.flat_map(bare).collect()
}

fn read(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    match detect(text) {
        Some(Dialect::Envelope) => envelope::parse(text),
        Some(Dialect::SearchReplace) => match blocks::parse(text, path) {
            Err(ParseError::NotAPatch) => tags::parse(text, path),
            read => read,
        },
        Some(Dialect::Unified) => unified::parse(text, path),
        Some(Dialect::Edits) => {
            // There may be several JSON values. Together, they form the patch.
            let starts = text.lines().filter(|line| line.trim_start().starts_with(['[', '{']));
            let (mut out, mut read_to) = (Vec::new(), 0);
            for line in starts.take(MAX_TRIES) {
                let from = line.as_ptr() as usize - text.as_ptr() as usize;
                if from < read_to {
                    continue;
                }
                if let Some((value, len)) = value(&text[from..])
                    && let Some(patches) = json::read(&value, path)
                {
                    out.extend(patches?);
                    read_to = from + len;
                }
            }
            if out.is_empty() { Err(ParseError::NotAPatch) } else { Ok(out) }
        }
        Some(Dialect::WholeFile) | None => Err(ParseError::NotAPatch),
    }
}

/// Merges the patches for one file, so that all hunks are matched against the same original.
/// Deleting and then creating a file becomes a replacement; creating and then updating it becomes a
/// creation.
fn merge(patches: Vec<FilePatch>) -> Vec<FilePatch> {
    let mut out: Vec<FilePatch> = Vec::with_capacity(patches.len());
    for patch in patches {
        // A renamed file is looked up by its new name.
        let Some(first) = out.iter_mut().rfind(|p| p.path == patch.path) else {
            out.push(patch);
            continue;
        };
        let update = patch.action == Action::Update && patch.from.is_none();
        match (&first.action, &patch.action) {
            (Action::Update, Action::Update) if update => {
                first.hunks.extend(patch.hunks);
                first.executable = patch.executable.or(first.executable);
            }
            (Action::Delete, Action::Create(content)) => {
                *first = FilePatch { action: Action::Replace(content.clone()), hunks: Vec::new(), ..patch };
            }
            (Action::Create(content) | Action::Replace(content), Action::Update) if update => {
                match apply(Some(content), &patch).ok().and_then(|applied| applied.bytes) {
                    Some(changed) if matches!(first.action, Action::Create(_)) => {
                        first.action = Action::Create(changed)
                    }
                    Some(changed) => first.action = Action::Replace(changed),
                    None => out.push(patch),
                }
            }
            _ => out.push(patch),
        }
    }
    out
}

/// Turns `(path, search, replace)` triples into one patch per file.
pub fn edits<'a>(list: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Vec<FilePatch> {
    let edit = |(path, search, replace)| Edit { path, search, replace, ..Edit::default() };
    edits_with_options(list.into_iter().map(edit))
}

/// One edit to a file, for [`edits_with_options`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Edit<'a> {
    /// The file.
    pub path: &'a str,
    /// The text to find.
    pub search: &'a str,
    /// The text that replaces it.
    pub replace: &'a str,
    /// Replace every occurrence instead of requiring a unique one.
    pub everywhere: bool,
    /// Replace every occurrence, and require that there are exactly this many.
    pub expected: Option<usize>,
    /// Insert `replace` below this line instead of searching; 0 is the start of the file.
    pub below: Option<usize>,
}

/// Like [`edits`], but with the options of [`Edit`].
pub fn edits_with_options<'a>(list: impl IntoIterator<Item = Edit<'a>>) -> Vec<FilePatch> {
    let mut out = Vec::new();
    for Edit { path, search, replace, everywhere, expected, below } in list {
        if below.is_some() {
            blocks::insert(&mut out, path, replace, below);
            continue;
        }
        let expected = expected.filter(|count| *count != 1);
        if let Some(hunk) = blocks::add(&mut out, path, search, replace, Dialect::Edits)
            && (everywhere || expected.is_some())
        {
            (hunk.everywhere, hunk.expected) = (true, expected);
        }
    }
    out
}

/// Returns a patch that replaces the whole content of a file.
#[must_use]
pub fn whole_file(path: &str, content: &[u8]) -> FilePatch {
    FilePatch::new(Dialect::WholeFile, path, Action::Replace(content.to_vec()), Vec::new())
}

/// Maximum number of lines tried as the start of a JSON value; prose and code contain brackets too.
const MAX_TRIES: usize = 20;

/// Parses the JSON value at the start of the text and returns it with its length in bytes. A fence
/// or prose may follow it.
fn value(text: &str) -> Option<(Value, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

fn read_edits(text: &str, path: Option<&str>) -> Option<Result<Vec<FilePatch>, ParseError>> {
    json::read(&value(text)?.0, path)
}
