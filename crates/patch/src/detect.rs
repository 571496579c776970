//! Which dialect a text is in, and reading it.

use serde::Deserialize;

use crate::{Action, Dialect, FilePatch, ParseError, blocks, envelope, unified};

/// The dialect of a text, by the first line that can only be one; `None` when there is no such line. Prose and fences around it do not matter.
#[must_use]
pub fn detect(text: &str) -> Option<Dialect> {
    let lines: Vec<&str> = text.lines().collect();
    let mut tries = 0;
    (0..lines.len()).find_map(|i| {
        let line = lines[i];
        if line.trim_start().starts_with(['[', '{']) && tries < TRIES {
            tries += 1;
            let from = line.as_ptr() as usize - text.as_ptr() as usize;
            read_edits(&text[from..]).map(|_| Dialect::Edits)
        } else if envelope::is_directive(line) {
            Some(Dialect::Envelope)
        } else if blocks::is_search(line) {
            Some(Dialect::SearchReplace)
        } else if line.starts_with("diff --git ") || line.starts_with("@@") || unified::is_header(&lines, i) {
            Some(Dialect::Unified)
        } else {
            None
        }
    })
}

/// Reads a patch in any dialect.
///
/// # Errors
/// When it is none, or one that is not well-formed where that matters.
pub fn parse(text: &str) -> Result<Vec<FilePatch>, ParseError> {
    parse_for(text, None)
}

/// As [`parse`], with the file that is meant where the patch names none.
///
/// # Errors
/// As [`parse`].
pub fn parse_for(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    read(text, path).map(merge)
}

fn read(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    match detect(text) {
        Some(Dialect::Envelope) => envelope::parse(text),
        Some(Dialect::SearchReplace) => blocks::parse(text, path),
        Some(Dialect::Unified) => unified::parse(text, path),
        Some(Dialect::Edits) => {
            let starts = text.lines().filter(|line| line.trim_start().starts_with(['[', '{']));
            let from = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
            let list = starts.take(TRIES).find_map(|line| read_edits(&text[from(line)..]));
            let list = list.ok_or(ParseError::NotAPatch)?;
            let list: Option<Vec<_>> = list
                .into_iter()
                .map(|e| Some((e.path.or(path.map(str::to_owned))?, e.search, e.replace)))
                .collect();
            let list = list.ok_or(ParseError::NoPath("give each edit a path"))?;
            Ok(edits(list.iter().map(|(p, s, r)| (p.as_str(), s.as_str(), r.as_str()))))
        }
        Some(Dialect::WholeFile) | None => Err(ParseError::NotAPatch),
    }
}

/// Several changes to one file are one change: all its hunks are placed against the same original.
fn merge(patches: Vec<FilePatch>) -> Vec<FilePatch> {
    let mut out: Vec<FilePatch> = Vec::with_capacity(patches.len());
    for patch in patches {
        let plain = |p: &FilePatch| p.action == Action::Update && p.from.is_none();
        match out.iter_mut().find(|p| p.path == patch.path && plain(p) && plain(&patch)) {
            Some(first) => {
                first.hunks.extend(patch.hunks);
                first.executable = patch.executable.or(first.executable);
            }
            None => out.push(patch),
        }
    }
    out
}

/// The patches that a list of `(path, search, replace)` makes: one for each file.
pub fn edits<'a>(list: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Vec<FilePatch> {
    let mut out = Vec::new();
    for (path, search, replace) in list {
        blocks::add(&mut out, path, search, replace, Dialect::Edits);
    }
    out
}

/// The patch that gives a file this content.
#[must_use]
pub fn whole(path: &str, content: &[u8]) -> FilePatch {
    FilePatch {
        dialect: Dialect::WholeFile,
        path: path.into(),
        from: None,
        action: Action::Replace(content.to_vec()),
        hunks: Vec::new(),
        executable: None,
    }
}

#[derive(Deserialize)]
struct Edit {
    path: Option<String>,
    search: String,
    replace: String,
}

/// Lines that may begin a list of edits that are looked at: prose and code may have others.
const TRIES: usize = 20;

/// The list of edits that a text begins with; a fence or prose may follow.
fn read_edits(text: &str) -> Option<Vec<Edit>> {
    let value = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>().next()?.ok()?;
    let list = match value {
        serde_json::Value::Object(mut o) => match o.remove("edits") {
            Some(list) => list,
            None => serde_json::Value::Array(vec![o.into()]),
        },
        list => list,
    };
    serde_json::from_value(list).ok().filter(|list: &Vec<Edit>| !list.is_empty())
}
