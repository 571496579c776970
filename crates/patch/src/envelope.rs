//! Reads `*** Begin Patch` envelopes, which add, update, delete and move files. Their hunks follow
//! `@@` headers.

use crate::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError, unified};

pub(crate) fn parse(text: &str) -> Result<Vec<FilePatch>, ParseError> {
    let lines: Vec<&str> = text.split('\n').collect();
    let lines = match lines.last() {
        Some(&"") => &lines[..lines.len() - 1],
        _ => &lines[..],
    };
    let mut out: Vec<FilePatch> = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let start = i;
        i += 1;
        let Some((what, path)) = directive(lines[start]) else { continue };
        let body_end = (i..lines.len()).find(|j| ends_file(lines[*j])).unwrap_or(lines.len());
        let body = &lines[i..body_end];
        let patch = |action, hunks| FilePatch::new(Dialect::Envelope, path, action, hunks);
        match what {
            Directive::End => {
                // Another envelope may follow; prose after the last one is ignored.
                let begins = |j: &usize| matches!(directive(lines[*j]), Some((Directive::Begin, _)));
                if !(i..lines.len()).any(|j| begins(&j)) {
                    break;
                }
                continue;
            }
            Directive::Begin => {}
            _ if path.is_empty() => return Err(ParseError::at(start, lines[start], "no file is named")),
            Directive::Delete => out.push(patch(Action::Delete, Vec::new())),
            Directive::Add => out.push(patch(Action::Create(content(body, i)?), Vec::new())),
            Directive::Update => {
                let moved = body.first().and_then(|l| l.trim().strip_prefix("*** Move to:")).map(str::trim);
                let skip = usize::from(moved.is_some());
                let hunks = hunks(&body[skip..]);
                if hunks.is_empty() && moved.is_none() {
                    return Err(ParseError::at(start, lines[start], "no changes follow"));
                }
                let mut patch = patch(Action::Update, hunks);
                if let Some(to) = moved {
                    patch.from = Some(std::mem::replace(&mut patch.path, to.to_owned()));
                }
                out.push(patch);
            }
        }
        i = body_end;
    }
    if out.is_empty() { Err(ParseError::NotAPatch) } else { Ok(out) }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Directive {
    Begin,
    Add,
    Update,
    Delete,
    End,
}

pub(crate) fn is_directive(line: &str) -> bool {
    matches!(
        directive(line),
        Some((Directive::Begin | Directive::Add | Directive::Update | Directive::Delete, _))
    )
}

pub(crate) fn directive(line: &str) -> Option<(Directive, &str)> {
    let rest = line.trim().strip_prefix("***")?.trim_start();
    let starts =
        |prefix: &str| rest.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let file = |prefix: &str| starts(prefix).then(|| unquoted(rest[prefix.len()..].trim()));
    if starts("Begin Patch") {
        Some((Directive::Begin, ""))
    } else if starts("End Patch") {
        Some((Directive::End, ""))
    } else if let Some(path) = file("Add File:").or_else(|| file("Create File:")) {
        Some((Directive::Add, path))
    } else if let Some(path) = file("Update File:") {
        Some((Directive::Update, path))
    } else {
        file("Delete File:").map(|path| (Directive::Delete, path))
    }
}

fn unquoted(path: &str) -> &str {
    let inner = ['"', '`', '\''].iter().find_map(|mark| path.strip_prefix(*mark)?.strip_suffix(*mark));
    inner.filter(|inner| !inner.is_empty()).unwrap_or(path)
}

/// Returns whether a line ends a file's section. Inside a body, a directive must start in the first
/// column, since an indented directive may be a context line.
pub(crate) fn ends_file(line: &str) -> bool {
    line.starts_with("***") && directive(line).is_some()
}

fn content(body: &[&str], at: usize) -> Result<Vec<u8>, ParseError> {
    let mut body = body;
    while let [rest @ .., last] = body
        && last.trim().is_empty()
    {
        body = rest;
    }
    let plain = body.iter().all(|l| !l.starts_with('+'));
    let mut out = Vec::new();
    for (i, line) in body.iter().enumerate() {
        let text = match line.strip_prefix('+') {
            Some(text) => text,
            None if plain || line.trim().is_empty() => line,
            None => return Err(ParseError::at(at + i, line, "every line of a new file starts with +")),
        };
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

fn hunks(body: &[&str]) -> Vec<Hunk> {
    let mut out: Vec<Hunk> = Vec::new();
    let mut hunk = Hunk::default();
    // Number of empty lines at the end of the hunk so far. Empty lines before a directive only
    // separate sections, so they are dropped. A line with a single space, however, is context.
    let mut empty = 0;
    let trimmed: Vec<&str> = body.iter().map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
    let mut i = 0;
    while i < body.len() {
        let (line, bare) = (body[i], trimmed[i]);
        if hunk.lines.is_empty() && unified::is_header(&trimmed, i) {
            i += 2; // a unified header inside an envelope
            continue;
        }
        if let Some(header) = bare.strip_prefix("@@") {
            close(&mut out, &mut hunk, 0);
            match unified::ranges(header) {
                Some((start, _)) => hunk.start = Some(start),
                None => {
                    let header = header.trim().trim_end_matches("@@").trim();
                    if header.chars().any(char::is_alphanumeric) {
                        hunk.under.push(header.as_bytes().to_vec());
                    }
                }
            }
        } else if bare.trim() == "*** End of File" {
            hunk.at_end = true;
            close(&mut out, &mut hunk, 0);
        } else {
            empty = if bare.is_empty() { empty + 1 } else { 0 };
            match line.as_bytes().first() {
                None | Some(b'\r') => hunk.lines.push(Line::new(Mark::Keep, "")),
                Some(b'\\') => {}
                Some(_) => hunk.lines.push(
                    Line::read(line).unwrap_or_else(|| Line { marked: false, ..Line::new(Mark::Keep, line) }),
                ),
            }
        }
        i += 1;
    }
    close(&mut out, &mut hunk, empty);
    out
}

/// Ends the hunk if it has any lines. Consecutive `@@` headers all apply to the hunk below them.
fn close(out: &mut Vec<Hunk>, hunk: &mut Hunk, layout: usize) {
    hunk.lines.truncate(hunk.lines.len().saturating_sub(layout));
    if !hunk.lines.is_empty() {
        out.push(std::mem::take(hunk));
    }
}
