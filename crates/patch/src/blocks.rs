//! `<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE` blocks, and the hunk that a search and its replacement make.

use similar::{Algorithm, ChangeTag, capture_diff_slices};

use crate::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError};

/// The fewest characters of a marker.
const SHORTEST: usize = 5;

/// Lines of a search times lines of its replacement up to which the two are compared; beyond, all old lines go and all new ones come.
const LARGEST: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Search,
    Divider,
    Replace,
}

pub(crate) fn marker(line: &str) -> Option<Marker> {
    let line = line.trim_end();
    let first = line.chars().next()?;
    let rest = line.trim_start_matches(first);
    let word = rest.trim().to_ascii_uppercase();
    let many = line.len() - rest.len() >= SHORTEST;
    match first {
        '<' if many && (word.starts_with("SEARCH") || word == "ORIGINAL" || is_path(rest.trim())) => {
            Some(Marker::Search)
        }
        '=' if many && word.is_empty() => Some(Marker::Divider),
        '>' if many && (word.starts_with("REPLACE") || word == "UPDATED") => Some(Marker::Replace),
        _ => None,
    }
}

/// Some models write the file's path where the word SEARCH belongs.
fn is_path(word: &str) -> bool {
    !word.contains(char::is_whitespace)
        && word.rsplit('/').next().is_some_and(|name| name.trim_matches('.').contains('.'))
}

/// The path that a block's first line names itself.
pub(crate) fn path_within(marker: &str) -> Option<String> {
    let word = marker.trim_end().trim_start_matches('<').trim();
    is_path(word).then(|| word.to_owned())
}

pub(crate) fn is_search(line: &str) -> bool {
    marker(line) == Some(Marker::Search)
}

/// The line, of those that begin with a block, that ends it.
pub(crate) fn close(lines: &[&str]) -> Option<usize> {
    lines.iter().position(|line| marker(line) == Some(Marker::Replace))
}

pub(crate) fn parse(text: &str, default: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out: Vec<FilePatch> = Vec::new();
    let mut path: Option<String> = None;
    let mut after = 0;
    let mut i = 0;
    while i < lines.len() {
        if !is_search(lines[i]) {
            i += 1;
            continue;
        }
        if let Some(named) = path_within(lines[i]).or_else(|| path_before(&lines[after..i])) {
            path = Some(named);
        }
        let ends = |j: &usize, m| marker(lines[*j]) == Some(m);
        let Some(close) = (i + 1..lines.len()).find(|j| ends(j, Marker::Replace)) else {
            return Err(ParseError::at(i, lines[i], "no >>>>>>> REPLACE line follows"));
        };
        if let Some(inner) = (i + 1..close).find(|j| ends(j, Marker::Search)) {
            return Err(ParseError::at(inner, lines[inner], "the block before has no >>>>>>> REPLACE line"));
        }
        let dividers: Vec<usize> = (i + 1..close).filter(|j| ends(j, Marker::Divider)).collect();
        let divider = match dividers[..] {
            [one] => one,
            [] => return Err(ParseError::at(i, lines[i], "no ======= line follows")),
            _ => {
                // Exactly seven is the marker; others are text, such as the underline of a heading.
                let seven: Vec<usize> =
                    dividers.iter().copied().filter(|j| lines[*j].trim_end().len() == 7).collect();
                let [one] = seven[..] else {
                    let why = "there are several ======= lines in this block; use a unified diff here";
                    return Err(ParseError::at(dividers[1], lines[dividers[1]], why));
                };
                one
            }
        };
        let Some(path) = path.as_deref().or(default) else {
            return Err(ParseError::NoPath("write its path on the line before <<<<<<< SEARCH"));
        };
        let join = |range: &[&str]| range.iter().map(|l| format!("{l}\n")).collect::<String>();
        add(
            &mut out,
            path,
            &join(&lines[i + 1..divider]),
            &join(&lines[divider + 1..close]),
            Dialect::SearchReplace,
        );
        i = close + 1;
        after = i;
    }
    if out.is_empty() { Err(ParseError::NotAPatch) } else { Ok(out) }
}

/// The last line before a block that can be a path; `None` when there is none, as between the blocks of one file.
pub(crate) fn path_before(lines: &[&str]) -> Option<String> {
    let line = lines.iter().rev().map(|l| l.trim()).find(|l| !l.is_empty() && !l.starts_with("```"))?;
    // A comment's slashes have a blank behind them; others begin a path, which is not ours to change.
    let line = line.trim_start_matches('/').strip_prefix(' ').unwrap_or(line);
    let line = line.trim_start_matches(['#', '*', '>', '-', ' ']).trim_end_matches([':', '*', ' ']);
    let labels = ["File:", "file:", "Path:", "path:", "Filename:", "filename:"];
    let line = labels.iter().find_map(|l| line.strip_prefix(l)).unwrap_or(line);
    let line = line.trim().trim_matches(['`', '*', '"', '\'']).trim();
    let path =
        !line.is_empty() && !line.contains(char::is_whitespace) || line.contains('/') && line.len() < 200;
    path.then(|| line.to_owned())
}

/// Adds a search and its replacement to the file's patch. An empty search creates the file.
pub(crate) fn add(out: &mut Vec<FilePatch>, path: &str, search: &str, replace: &str, dialect: Dialect) {
    let file = out.iter_mut().find(|p| p.path == path && p.action == Action::Update);
    if search.trim().is_empty() && file.is_none() {
        let action = Action::Create(replace.as_bytes().to_vec());
        out.push(FilePatch {
            dialect,
            path: path.into(),
            from: None,
            action,
            hunks: vec![],
            executable: None,
        });
        return;
    }
    let hunk = hunk(search, replace);
    match file {
        Some(file) => file.hunks.push(hunk),
        None => out.push(FilePatch {
            dialect,
            path: path.into(),
            from: None,
            action: Action::Update,
            hunks: vec![hunk],
            executable: None,
        }),
    }
}

/// Lines that are in both are kept, so that their bytes in the file stay whatever the patch has.
fn hunk(search: &str, replace: &str) -> Hunk {
    let lines = |text: &str| -> Vec<String> {
        let bare = |l: &str| l.strip_suffix('\n').map_or(l, |l| l.strip_suffix('\r').unwrap_or(l)).to_owned();
        text.split_inclusive('\n').map(bare).collect()
    };
    let (old, new) = (lines(search), lines(replace));
    let mut out = Vec::new();
    if old.len() * new.len() > LARGEST {
        out.extend(old.iter().map(|l| Line::new(Mark::Remove, l)));
        out.extend(new.iter().map(|l| Line::new(Mark::Add, l)));
    }
    let (a, b) = if out.is_empty() { (&old[..], &new[..]) } else { (&[][..], &[][..]) };
    for op in capture_diff_slices(Algorithm::Myers, a, b) {
        for change in op.iter_changes(a, b) {
            let mark = match change.tag() {
                ChangeTag::Equal => Mark::Keep,
                ChangeTag::Delete => Mark::Remove,
                ChangeTag::Insert => Mark::Add,
            };
            out.push(Line::new(mark, &change.value()));
        }
    }
    Hunk {
        lines: out,
        text: Some((search.as_bytes().to_vec(), replace.as_bytes().to_vec())),
        ..Hunk::default()
    }
}
