//! Reads SEARCH/REPLACE blocks, and turns a search and its replacement into a hunk.

use similar::{Algorithm, ChangeTag, capture_diff_slices};

use crate::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError, fence::Fence};

/// Minimum number of characters in a marker that is followed by a word or by nothing.
const MIN_MARKER: usize = 3;
/// Minimum number of characters in a marker that is followed by a path.
const MIN_MARKER_WITH_PATH: usize = 5;

/// Maximum size of the diff table (search lines × replacement lines). If the table would be larger,
/// the hunk removes all old lines and adds all new ones.
const MAX_DIFF_SIZE: usize = 4_000_000;

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
    let count = line.len() - rest.len();
    if count < MIN_MARKER {
        return None;
    }
    let word = rest.trim().to_ascii_uppercase();
    // Cline writes `------- SEARCH` and `+++++++ REPLACE`.
    let only = |wanted: &str| word.trim_end_matches(['<', '>', '-', '+', ' ', ':']) == wanted;
    match first {
        '<' if word.starts_with("SEARCH") || word == "ORIGINAL" => Some(Marker::Search),
        '<' if count >= MIN_MARKER_WITH_PATH && is_path(rest.trim()) => Some(Marker::Search),
        '-' if rest.starts_with(' ') && only("SEARCH") => Some(Marker::Search),
        '=' if word.is_empty() => Some(Marker::Divider),
        '>' if word.starts_with("REPLACE") || word == "UPDATED" => Some(Marker::Replace),
        '+' if rest.starts_with(' ') && only("REPLACE") => Some(Marker::Replace),
        _ => None,
    }
}

/// Returns whether a word looks like a path. Some models write the file's path in place of the word
/// SEARCH.
fn is_path(word: &str) -> bool {
    !word.contains(char::is_whitespace)
        && word.rsplit('/').next().is_some_and(|name| name.trim_matches('.').contains('.'))
}

/// Returns the path given in a block's opening marker.
pub(crate) fn path_within(marker: &str) -> Option<String> {
    let word = marker.trim_end().trim_start_matches(['<', '-']).trim();
    let word = word
        .strip_prefix("SEARCH ")
        .map_or(word, |path| path.trim_start_matches([':', ' ']).trim_end_matches(['>', ' ']));
    is_path(word).then(|| word.to_owned())
}

pub(crate) fn is_search(line: &str) -> bool {
    marker(line) == Some(Marker::Search)
}

/// Returns the index of the line that closes the block at the start of `lines`.
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
        if let Some(named) = path_within(lines[i]).or_else(|| path_before(&lines[after..i], default)) {
            path = Some(named);
        }
        let Some(close) = close(&lines[i..]).map(|close| i + close) else {
            return Err(ParseError::at(i, lines[i], "no >>>>>>> REPLACE line follows"));
        };
        // Ignore opening markers with a path: such a line may start a git conflict in the text,
        // because the label of a conflict can look like a path.
        let inner = |j: &usize| is_search(lines[*j]) && path_within(lines[*j]).is_none();
        if let Some(inner) = (i + 1..close).find(inner) {
            return Err(ParseError::at(inner, lines[inner], "the block above has no >>>>>>> REPLACE line"));
        }
        let (start, from) = head(&lines[..close], i + 1);
        let readings = readings(&lines[from..close]);
        let [first, ..] = &readings[..] else {
            return Err(ParseError::at(i, lines[i], "no ======= line follows"));
        };
        let Some(path) = path.as_deref().or(default) else {
            return Err(ParseError::NoPath("write its path on the line above <<<<<<< SEARCH"));
        };
        let added = if let [(search, replace)] = &readings[..] {
            add(&mut out, path, search, replace, Dialect::SearchReplace)
        } else {
            let mut whole = hunk(&first.0, &first.1);
            whole.readings = readings.iter().map(|(search, replace)| hunk(search, replace)).collect();
            push(&mut out, path, whole, Dialect::SearchReplace)
        };
        if let Some(hunk) = added {
            hunk.start = start;
            hunk.readings.iter_mut().for_each(|reading| reading.start = start);
        }
        i = close + 1;
        after = i;
    }
    if out.is_empty() { Err(ParseError::NotAPatch) } else { Ok(out) }
}

/// Reads Roo's optional header above the search text: line numbers and a line of dashes. Returns
/// the start line and the index of the first search line.
pub(crate) fn head(lines: &[&str], mut i: usize) -> (Option<usize>, usize) {
    let field =
        |line: &str, name: &str| line.trim().strip_prefix(name).map(|number| number.trim().parse().ok());
    let mut start = None;
    let from = i;
    while let Some(line) = lines.get(i) {
        if let Some(number) = field(line, ":start_line:") {
            start = number;
        } else if field(line, ":end_line:").is_none() {
            break;
        }
        i += 1;
    }
    let dashes = |line: &&str| line.trim().len() >= MIN_MARKER && line.trim().chars().all(|c| c == '-');
    if i > from && lines.get(i).is_some_and(dashes) {
        i += 1;
    }
    (start.filter(|start| *start > 0), i)
}

/// Returns each way to split a block at an `=======` line that may be the divider. The split with
/// the longest search text comes first. The text itself may contain such lines (git conflicts,
/// heading underlines), so the divider can only be determined by looking at the file.
fn readings(lines: &[&str]) -> Vec<(String, String)> {
    let dividers: Vec<usize> =
        (0..lines.len()).filter(|j| marker(lines[*j]) == Some(Marker::Divider)).collect();
    let length = |j: &usize| lines[*j].trim_end().len();
    let of = |wanted: fn(usize) -> bool| -> Vec<usize> {
        dividers.iter().copied().filter(|j| wanted(length(j))).collect()
    };
    // The standard divider has seven characters. If there is one, lines of other lengths are text.
    let likely = [of(|n| n == 7), of(|n| n >= 5), dividers.clone()].into_iter().find(|some| !some.is_empty());
    let text = |range: &[&str]| range.iter().map(|line| format!("{}\n", unescaped(line))).collect::<String>();
    let pair = |divider: usize| (text(&lines[..divider]), text(&lines[divider + 1..]));
    likely.unwrap_or_default().into_iter().rev().map(pair).collect()
}

/// Removes the backslash that Roo puts in front of a text line that looks like a marker.
pub(crate) fn unescaped(line: &str) -> &str {
    let marker = |line: &str| {
        ["<<<<<<<", "=======", ">>>>>>>", "-------", ":start_line:"].iter().any(|m| line.starts_with(m))
    };
    line.strip_prefix('\\').filter(|rest| marker(rest)).unwrap_or(line)
}

/// Returns the path on the last line of text above a block, or `None` if there is no text, for
/// example between two blocks for the same file. If there is a default path, a word must contain a
/// dot or slash to count as a path.
pub(crate) fn path_before(lines: &[&str], default: Option<&str>) -> Option<String> {
    let layout = |line: &str| line.is_empty() || Fence::opens(line).is_some() || is_tag(line);
    let mut above = lines.iter().rev().map(|line| line.trim());
    let path = above
        .find_map(|line| if layout(line) { path_of_fence(line).map(Some) } else { Some(path_in(line)) })??;
    (default.is_none() || path.contains(['.', '/'])).then_some(path)
}

/// Returns whether a line is nothing but a tag, such as `<diff>`. `<path>a.py</path>` is more than
/// a tag.
fn is_tag(line: &str) -> bool {
    let named = line.contains("</") || line.starts_with("<!--") || is_name(line.trim_matches(['<', '>']));
    line.starts_with('<') && line.ends_with('>') && !named
        || line.starts_with("</")
        || line.ends_with("<![CDATA[")
}

/// Returns the path in a fence's info string: `python a.py` or `python:a.py`.
fn path_of_fence(line: &str) -> Option<String> {
    Fence::opens(line)?;
    let info = line.trim_start_matches(['`', '~']).trim();
    let mut words = info.split([' ', ':', '=']).map(|word| word.trim_matches(['"', '\'']));
    words.find(|word| is_name(word)).map(str::to_owned)
}

/// Returns the path named in a line of prose or markup.
fn path_in(line: &str) -> Option<String> {
    let comment = [("<!--", "-->"), ("/*", "*/")];
    let inner = comment.iter().find_map(|(open, close)| line.strip_prefix(open)?.strip_suffix(close));
    let line = inner.map_or(line, str::trim);
    let brackets = [('[', ']'), ('(', ')'), ('<', '>')];
    let inner = brackets.iter().find_map(|(open, close)| line.strip_prefix(*open)?.strip_suffix(*close));
    let line = inner.filter(|inner| is_name(inner) && !inner.contains(['<', '>', '('])).unwrap_or(line);
    if let Some((_, rest)) = line.split_once('>').filter(|_| line.starts_with('<')) {
        return rest.split_once("</").map(|(path, _)| path.trim().to_owned());
    }
    // In a comment, the slashes are followed by a space. Without that space, they are part of a
    // path, which must not change.
    let line = line.trim_start_matches('/').strip_prefix(' ').unwrap_or(line);
    let line = without_decoration(line);
    // Strip the number of a list item.
    let number = line.split_once(['.', ')']).filter(|(number, _)| number.chars().all(|c| c.is_ascii_digit()));
    let line = number.and_then(|(_, rest)| rest.strip_prefix(' ')).map_or(line, str::trim);
    let labels = ["File:", "file:", "Path:", "path:", "Filename:", "filename:", "File path:", "FILE:"];
    let label = labels.iter().find_map(|label| line.strip_prefix(label));
    let line = label.unwrap_or(line).trim();
    let bare = line.trim_matches(['`', '"', '\'']);
    let bare = bare.strip_prefix("**").unwrap_or(bare).trim_end_matches('*').trim();
    let bare = bare.trim_matches(['`', '"', '\'']).trim();
    let quoted = |mark: char| line.split(mark).skip(1).step_by(2).map(str::trim).find(|word| is_name(word));
    if bare.is_empty() {
        None
    } else if !bare.contains(char::is_whitespace)
        || label.is_some()
        || line.len() > bare.len() + 1 && !bare.contains('`')
    {
        Some(bare.to_owned())
    } else if let Some(quoted) = quoted('`').or_else(|| quoted('"')) {
        Some(quoted.to_owned())
    } else if is_name(bare) && !is_prose(bare) {
        Some(bare.to_owned())
    } else {
        let mut words =
            bare.split_whitespace().map(|word| word.trim_matches(['`', '"', '\'', '(', ')', ',', ':', '*']));
        let name = |word: &&str| is_name(word) && !word.ends_with('.');
        let (first, second) = (words.find(name), words.find(name));
        first.filter(|_| second.is_none()).map(str::to_owned)
    }
}

/// Strips the Markdown syntax of headings, lists, block quotes and bold text. Keeps symbols without
/// a space after them and unclosed bold markers, because they may be part of the file name.
fn without_decoration(line: &str) -> &str {
    let line = line.trim_end_matches([':', ' ']);
    let mut rest = line;
    loop {
        let bare = rest.trim_start_matches(['#', '*', '>', '-']);
        let stars = rest.trim_start_matches('*');
        if bare.len() < rest.len() && bare.starts_with([' ', '`']) {
            rest = bare.trim_start();
        } else if rest.starts_with("**") || stars.len() < rest.len() && stars.ends_with('*') {
            rest = stars.trim_end_matches(['*', ':', ' ']);
        } else {
            return rest.trim();
        }
    }
}

fn is_name(text: &str) -> bool {
    let name = text.rsplit('/').next().unwrap_or(text);
    let extension =
        |ext: &str| (1..=10).contains(&ext.len()) && ext.chars().all(|c| c.is_ascii_alphanumeric());
    name.rsplit_once('.').is_some_and(|(_, ext)| extension(ext))
        || text.contains('/') && !text.ends_with(['.', '/'])
}

/// Returns whether text begins like a sentence. Looking at the end is not enough, because a
/// sentence may end with a file name: `Now update a.py`.
fn is_prose(text: &str) -> bool {
    const FIRST: &str = " the in to of for at on into with and is are this here now then first second next finally also lastly lets let's i \
        i'll i've we we'll you update change edit modify fix add create replace patch apply open see changes edits updates inside from \
        it below above file updated modified new rewrite insert remove delete save put write make please ";
    let first = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    FIRST.contains(&format!(" {} ", first.trim_matches(|c: char| !c.is_alphanumeric())))
}

/// Adds a search and its replacement to the file's patch and returns the hunk. An empty search
/// creates the file, unless the patch already updates it.
pub(crate) fn add<'o>(
    out: &'o mut Vec<FilePatch>,
    path: &str,
    search: &str,
    replace: &str,
    dialect: Dialect,
) -> Option<&'o mut Hunk> {
    if search.trim().is_empty() && !out.iter().any(|p| p.path == path && p.action == Action::Update) {
        let action = Action::Create(replace.as_bytes().to_vec());
        out.push(FilePatch::new(dialect, path, action, Vec::new()));
        return None;
    }
    push(out, path, hunk(search, replace), dialect)
}

pub(crate) fn insert(out: &mut Vec<FilePatch>, path: &str, text: &str, below: Option<usize>) {
    let lines = text.lines().map(|line| Line::new(Mark::Add, line)).collect();
    push(out, path, Hunk { lines, below, ..Hunk::default() }, Dialect::Edits);
}

fn push<'o>(out: &'o mut Vec<FilePatch>, path: &str, hunk: Hunk, dialect: Dialect) -> Option<&'o mut Hunk> {
    let at = out.iter().position(|p| p.path == path && p.action == Action::Update).unwrap_or_else(|| {
        out.push(FilePatch::new(dialect, path, Action::Update, Vec::new()));
        out.len() - 1
    });
    out[at].hunks.push(hunk);
    out[at].hunks.last_mut()
}

/// Diffs a search against its replacement. Lines that appear in both become context, so the file
/// keeps its own bytes there.
pub(crate) fn hunk(search: &str, replace: &str) -> Hunk {
    let lines = |text: &str| -> Vec<String> {
        let bare = |l: &str| l.strip_suffix('\n').map_or(l, |l| l.strip_suffix('\r').unwrap_or(l)).to_owned();
        text.split_inclusive('\n').map(bare).collect()
    };
    let (old, new) = (lines(search), lines(replace));
    let mut out = Vec::new();
    if old.len() * new.len() > MAX_DIFF_SIZE {
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
