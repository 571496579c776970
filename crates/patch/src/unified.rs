//! Reads unified diffs, with or without git's headers, the way models write them: with wrong
//! counts, invented line numbers, and blank lines without their prefix.
//!
//! The counts of a hunk are trusted only if the text after the counted lines does not look like
//! more of the hunk. Otherwise the hunk extends to its last line that starts with a space, `+` or
//! `-`. A line in between that starts with anything else is treated as context and must be in the
//! file.

use crate::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError};

/// The part of a diff that changes one file.
#[derive(Default)]
struct Section {
    old: Option<String>,
    new: Option<String>,
    created: bool,
    deleted: bool,
    renamed: Option<(String, String)>,
    executable: Option<bool>,
    hunks: Vec<Hunk>,
    /// The names in the `diff --git` line, for files without a `---` line.
    git: Option<(String, String)>,
    named: bool,
}

pub(crate) fn parse(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    let lines: Vec<&str> = text.lines().map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
    // `lines()` drops a carriage return before the newline; the lines of a hunk keep theirs.
    let raw: Vec<&str> = text.split('\n').collect();
    let mut sections: Vec<Section> = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        if let Some(names) = line.strip_prefix("diff --git ") {
            sections.push(Section { git: git_names(names), ..Section::default() });
        } else if is_header(&lines, i) {
            let fresh = sections.last().is_some_and(|s| s.git.is_some() && !s.named && s.hunks.is_empty());
            if !fresh {
                sections.push(Section::default());
            }
            if let Some(section) = sections.last_mut() {
                (section.old, section.new, section.named) =
                    (name(&line[4..]), name(new_name(lines[i + 1]).unwrap_or_default()), true);
            }
            i += 2;
            if i < lines.len() && !lines[i].starts_with("@@") && starts_body(lines[i]) {
                let hunk = Header { start: None, under: None, counts: None };
                i = read_hunk(&lines, &raw, i, hunk, &mut sections)?;
            }
            continue;
        } else if let Some(name) = lone_header(&lines, i) {
            sections.push(Section {
                old: Some(name.clone()),
                new: Some(name),
                named: true,
                ..Section::default()
            });
        } else if let Some(header) = hunk_header(line) {
            if sections.is_empty() {
                sections.push(Section::default());
            }
            i = read_hunk(&lines, &raw, i + 1, header, &mut sections)?;
            continue;
        } else if let Some(section) = sections.last_mut().filter(|s| s.git.is_some() && s.hunks.is_empty()) {
            extended_header(section, line)?;
        }
        i += 1;
    }
    sections.retain(|s| s.named || s.git.is_some() || !s.hunks.is_empty());
    if sections.is_empty() {
        return Err(ParseError::NotAPatch);
    }
    sections.into_iter().map(|s| finish(s, path)).collect()
}

/// Returns the name in the second line of a header. Small models sometimes write `++++` instead of
/// `+++`.
pub(crate) fn new_name(line: &str) -> Option<&str> {
    line.strip_prefix("+++ ").or_else(|| line.strip_prefix("++++ "))
}

pub(crate) fn is_header(lines: &[&str], i: usize) -> bool {
    lines[i].starts_with("--- ") && lines.get(i + 1).is_some_and(|l| new_name(l).is_some())
}

/// Returns the file named in a one-line header: `--- a/x` or `+++ b/x` directly above a hunk.
pub(crate) fn lone_header(lines: &[&str], i: usize) -> Option<String> {
    let line = lines.get(i)?;
    let (rest, prefix) = line
        .strip_prefix("--- ")
        .map(|rest| (rest, "a/"))
        .or_else(|| Some((line.strip_prefix("+++ ")?, "b/")))?;
    let name = name(rest)?;
    let hunk = lines.get(i + 1).and_then(|next| hunk_header(next))?;
    let is_path = name.contains(['.', '/']) && !name.contains(char::is_whitespace);
    // In a hunk, such a line may be a removed or added line whose text begins with `--` or `++`.
    (is_path && (hunk.start.is_some() || name.starts_with(prefix)))
        .then(|| name.strip_prefix(prefix).map_or(name.clone(), str::to_owned))
}

/// Returns whether the two lines at `i` are a header that is unlikely to be part of a hunk. A hunk
/// with line numbers must follow, and both lines must name the same file unless one of them names
/// `/dev/null`.
fn names_a_file(lines: &[&str], i: usize) -> bool {
    let hunk = || lines.get(i + 2).is_some_and(|l| hunk_header(l).is_some_and(|h| h.start.is_some()));
    if i >= lines.len() || !is_header(lines, i) || !hunk() {
        return false;
    }
    let without = |name: String, prefix| name.strip_prefix(prefix).map_or(name.clone(), str::to_owned);
    match (name(&lines[i][4..]), name(new_name(lines[i + 1]).unwrap_or_default())) {
        (Some(old), Some(new)) => without(old, "a/") == without(new, "b/"),
        (old, new) => old.is_some() || new.is_some(),
    }
}

fn starts_body(line: &str) -> bool {
    line.starts_with([' ', '+', '-'])
}

fn extended_header(section: &mut Section, line: &str) -> Result<(), ParseError> {
    let mode = |mode: &str| match mode.trim() {
        "100755" => Ok(Some(true)),
        "100644" => Ok(Some(false)),
        "120000" => Err(ParseError::Unsupported("a patch cannot create symbolic links")),
        "160000" => Err(ParseError::Unsupported("a patch cannot change submodules")),
        _ => Ok(None),
    };
    if let Some(m) = line.strip_prefix("new file mode ") {
        section.created = true;
        section.executable = mode(m)?;
    } else if let Some(m) = line.strip_prefix("new mode ") {
        section.executable = mode(m)?;
    } else if line.starts_with("deleted file mode ") {
        section.deleted = true;
    } else if let Some(from) = line.strip_prefix("rename from ") {
        section.renamed = Some((unquote(from), String::new()));
    } else if let Some(to) = line.strip_prefix("rename to ") {
        if let Some((_, target)) = &mut section.renamed {
            *target = unquote(to);
        }
    } else if line.starts_with("copy from ") {
        return Err(ParseError::Unsupported(
            "the patch copies a file; create the new file with its content instead",
        ));
    } else if line.starts_with("GIT binary patch") || line.starts_with("Binary files ") {
        return Err(ParseError::Unsupported("a patch cannot change binary files"));
    }
    Ok(())
}

struct Header {
    start: Option<usize>,
    under: Option<String>,
    counts: Option<(usize, usize)>,
}

/// Parses `@@ -1,2 +3,4 @@`, bare `@@`, `@@ ... @@`, or `@@ def f():`, which envelopes use.
fn hunk_header(line: &str) -> Option<Header> {
    let rest = line.strip_prefix("@@")?;
    if let Some((start, counts)) = ranges(rest) {
        return Some(Header { start: Some(start), under: None, counts });
    }
    let text = rest.trim().trim_end_matches("@@").trim();
    let nothing = text.chars().all(|c| !c.is_alphanumeric()) || text.starts_with('-') && text.contains(" +");
    Some(Header { start: None, under: (!nothing).then(|| text.to_owned()), counts: None })
}

/// Returns the start of the old range, and both counts if both ranges are valid.
pub(crate) fn ranges(rest: &str) -> Option<(usize, Option<(usize, usize)>)> {
    let mut words = rest.split_whitespace();
    let range = |word: &str| {
        let (start, count) = word.split_once(',').unwrap_or((word, "1"));
        Some((start.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    };
    let (start, old) = range(words.next()?.strip_prefix('-')?)?;
    let new = words.next().and_then(|w| w.strip_prefix('+')).and_then(range);
    Some((start, new.map(|(_, new)| (old, new))))
}

/// Reads the lines of a hunk, which begin at line `i`. Returns the index of the first line after
/// them.
fn read_hunk(
    lines: &[&str],
    raw: &[&str],
    i: usize,
    header: Header,
    sections: &mut [Section],
) -> Result<usize, ParseError> {
    let end = header.counts.and_then(|c| end_by_counts(lines, i, c)).unwrap_or_else(|| guess_end(lines, i));
    let mut hunk = Hunk { start: header.start, ..Hunk::default() };
    hunk.under.extend(header.under.map(String::into_bytes));
    for line in &raw[i..end] {
        if line.starts_with('\\') {
            if let Some(last) = hunk.lines.last_mut() {
                last.newline = false;
            }
            continue;
        }
        // A line without a mark is a context line that lost its space, or an added line that lost
        // its `+`.
        let bare = || Line { marked: line.is_empty(), ..Line::new(Mark::Keep, line) };
        hunk.lines.push(Line::read(line).unwrap_or_else(bare));
    }
    if hunk.lines.is_empty() {
        return Err(ParseError::at(
            i.saturating_sub(1),
            lines[i.saturating_sub(1)],
            "no lines follow this header",
        ));
    }
    hunk.blank_tail =
        raw[i..end].iter().rev().take_while(|line| line.trim_end_matches('\r').is_empty()).count();
    if let Some(section) = sections.last_mut() {
        let shift = section.hunks.iter().try_fold(0, shifted);
        hunk.below = shift.and_then(|shift| insertion(lines[i - 1], &hunk, shift));
        section.hunks.push(hunk);
    }
    Ok(end)
}

/// Returns the line below which a hunk of `diff -U0` inserts its lines. Models invent line numbers,
/// so this returns `None` unless the header has the right counts and agrees with the hunks above
/// it, which add `shift` lines on balance.
pub(crate) fn insertion(header: &str, hunk: &Hunk, shift: isize) -> Option<usize> {
    let (start, counts) = ranges(header.strip_prefix("@@")?)?;
    let new = header.split_whitespace().nth(2)?.strip_prefix('+')?;
    let new: usize = new.split(',').next()?.parse().ok()?;
    let adds = hunk.lines.iter().all(|line| line.mark == Mark::Add);
    let right = adds
        && start > 0
        && counts == Some((0, hunk.lines.len()))
        && start.checked_add_signed(shift).and_then(|line| line.checked_add(1)) == Some(new);
    right.then_some(start)
}

/// Returns how many lines a hunk and the hunks above it add on balance. `shift` is the number for
/// the hunks above it.
pub(crate) fn shifted(shift: isize, hunk: &Hunk) -> Option<isize> {
    let (added, removed) = hunk.counts();
    shift.checked_add_unsigned(added)?.checked_sub_unsigned(removed)
}

/// Returns how many old and new lines are left in a hunk after `line`, or `None` if the line does
/// not fit the counts.
pub(crate) fn count_down((old, new): (usize, usize), line: &str) -> Option<(usize, usize)> {
    match line.as_bytes().first() {
        Some(b' ') | None => old.checked_sub(1).zip(new.checked_sub(1)),
        Some(b'-') => old.checked_sub(1).map(|old| (old, new)),
        Some(b'+') => new.checked_sub(1).map(|new| (old, new)),
        Some(b'\\') => Some((old, new)),
        Some(_) => None,
    }
}

/// Returns where a hunk with these counts ends; `None` if the lines do not fit them.
fn end_by_counts(lines: &[&str], from: usize, mut left: (usize, usize)) -> Option<usize> {
    let mut i = from;
    while left != (0, 0) {
        if names_a_file(lines, i) {
            return None;
        }
        left = count_down(left, lines.get(i)?)?;
        i += 1;
    }
    if lines.get(i).is_some_and(|l| l.starts_with('\\')) {
        i += 1;
    }
    let next = (i..lines.len()).find(|j| !lines[*j].trim().is_empty());
    let ends = next.is_none_or(|j| {
        is_header(lines, j)
            || is_signature(lines, j)
            || lone_header(lines, j).is_some()
            || !starts_body(lines[j])
    });
    ends.then_some(i)
}

/// Returns whether line `i` begins the signature of `git format-patch`: a `-- ` line followed by a
/// version. This `-- ` line is not a removed line.
fn is_signature(lines: &[&str], i: usize) -> bool {
    let version = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    lines[i].trim_end() == "--" && lines.get(i + 1).is_some_and(version)
}

/// Returns whether a line is a one-line header with git's prefix, which is unlikely to occur inside
/// a hunk.
fn prefixed(lines: &[&str], i: usize) -> bool {
    let prefix = lines[i].starts_with("--- a/") || lines[i].starts_with("+++ b/");
    prefix && lone_header(lines, i).is_some()
}

fn guess_end(lines: &[&str], from: usize) -> usize {
    let ends = |j: &usize| {
        let line = lines[*j];
        line.starts_with("@@")
            || line.starts_with("diff --git ")
            || line.starts_with("```")
            || line.starts_with("*** ")
            || line.starts_with("Index: ")
            || is_header(lines, *j)
            || prefixed(lines, *j)
            || is_signature(lines, *j)
    };
    let stop = (from..lines.len()).find(ends).unwrap_or(lines.len());
    let last = (from..stop).rev().find(|j| lines[*j].starts_with([' ', '+', '-', '\\']));
    last.map_or(from, |last| last + 1)
}

/// Returns the file name in a header, without its timestamp; `None` for `/dev/null`.
fn name(text: &str) -> Option<String> {
    let text = text.split('\t').next().unwrap_or_default().trim();
    let name = unquote(text);
    (name != "/dev/null").then_some(name)
}

/// Splits `a/x b/x`. Names with spaces must be quoted, or identical after their prefixes.
fn git_names(text: &str) -> Option<(String, String)> {
    if let Some(rest) = text.strip_prefix('"') {
        let end = rest.match_indices('"').map(|(i, _)| i).find(|i| !rest[..*i].ends_with('\\'))?;
        return Some((unquote(&text[..end + 2]), unquote(rest[end + 1..].trim())));
    }
    let splits = text.match_indices(' ').map(|(i, _)| text.split_at(i));
    let splits: Vec<(&str, &str)> = splits.map(|(a, b)| (a, b.trim_start())).collect();
    let same = splits.iter().find(|(a, b)| a.split_once('/').map(|x| x.1) == b.split_once('/').map(|x| x.1));
    same.or(splits.first()).map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
}

/// Undoes git's quoting of names with control characters, quotes or bytes above 127.
fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(digit @ b'0'..=b'3') => {
                let mut value = digit - b'0';
                for _ in 0..2 {
                    let Some(next) = bytes.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                    value = value.wrapping_mul(8).wrapping_add(next - b'0');
                }
                out.push(value);
            }
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    // Invalid UTF-8 is escaped, as in all paths that models see.
    let escaped = |byte: &u8| format!("\\x{byte:02x}");
    out.utf8_chunks()
        .flat_map(|chunk| [chunk.valid().to_owned(), chunk.invalid().iter().map(escaped).collect()])
        .collect()
}

/// Strips prefixes such as `a/` and `b/`, which diffs add, from both names. Names that do not
/// clearly have prefixes are left alone.
fn without_prefixes(old: Option<String>, new: Option<String>) -> (Option<String>, Option<String>) {
    let strip = |name: &str, prefixes: &[&str]| {
        let (first, rest) = name.split_once('/')?;
        prefixes.contains(&first).then(|| rest.to_owned())
    };
    let a = old.as_deref().map(|n| strip(n, &["a", "i", "c", "o"]));
    let b = new.as_deref().map(|n| strip(n, &["b", "w", "i", "a"]));
    match (&a, &b) {
        (Some(Some(_)), Some(Some(_))) if old != new => (a.flatten(), b.flatten()),
        (Some(Some(_)), None) => (a.flatten(), None),
        (None, Some(Some(_))) => (None, b.flatten()),
        (Some(Some(stripped)), Some(None)) if Some(stripped) == new.as_ref() => (new.clone(), new),
        (Some(None), Some(Some(stripped))) if Some(stripped) == old.as_ref() => (old.clone(), old),
        _ => (old, new),
    }
}

fn finish(section: Section, path: Option<&str>) -> Result<FilePatch, ParseError> {
    let (named_old, named_new) = match (section.named, section.git) {
        (true, _) => (section.old, section.new),
        (false, Some((a, b))) => (Some(a), Some(b)),
        (false, None) => (path.map(str::to_owned), path.map(str::to_owned)),
    };
    let created = section.created || section.named && named_old.is_none();
    let deleted = section.deleted || section.named && named_new.is_none();
    let (old, new) = without_prefixes(named_old, named_new);
    let hunks = section.hunks;
    let (from, path) = match section.renamed {
        Some((from, to)) if !to.is_empty() => (Some(from), to),
        _ if deleted => (None, old.ok_or(ParseError::NoPath("its --- line names none"))?),
        _ => (None, new.or(old).ok_or(ParseError::NoPath("start it with --- and +++ lines"))?),
    };
    let lines = || hunks.iter().flat_map(|h| &h.lines);
    let action = if created {
        if lines().any(|l| l.mark != Mark::Add) {
            return Err(ParseError::Unsupported(
                "a new file has only + lines; --- /dev/null means that the file is new",
            ));
        }
        let mut content = Vec::new();
        for line in lines() {
            content.extend_from_slice(&line.text);
            content.extend_from_slice(if line.newline { b"\n" } else { b"" });
        }
        Action::Create(content)
    } else if deleted {
        Action::Delete
    } else if hunks.is_empty() && from.is_none() && section.executable.is_none() {
        return Err(ParseError::Unsupported(
            "the patch has no hunks: @@ and lines that start with a space, + or -",
        ));
    } else {
        Action::Update
    };
    let hunks = if matches!(action, Action::Create(_)) { Vec::new() } else { hunks };
    // Git gives a mode for every new file, so 100644 is not a request to clear the executable bits.
    let executable = section.executable.filter(|x| *x || !created);
    Ok(FilePatch { dialect: Dialect::Unified, path, from, action, hunks, executable, own_endings: false })
}
