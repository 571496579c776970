//! Strips or refuses text that models add to the content of a file: line numbers from `read_file`,
//! a Markdown fence, patch markers, thoughts or escapes.
//!
//! Text that cannot be part of the file is removed. If the text could be part of the file but
//! probably is not, the patch is refused.

use std::borrow::Cow;

use crate::{Action, Dialect, FilePatch, Refusal, RefusalKind, blocks, fence::Fence, ladder, lazy};

/// Tags that open a model's thoughts. Case is ignored.
const THOUGHTS: [&str; 5] = ["<think>", "<thinking>", "<thought>", "<reasoning>", "[THINK]"];

/// File types whose lines may legitimately begin with a number and a bar.
const TABLES: [&str; 8] = ["csv", "psv", "tsv", "tab", "dat", "tbl", "data", "in"];

pub(crate) fn bare<'p>(file: Option<&[u8]>, patch: &'p FilePatch) -> Result<Cow<'p, FilePatch>, Refusal> {
    if !matches!(patch.dialect, Dialect::WholeFile | Dialect::Edits | Dialect::SearchReplace) {
        return Ok(Cow::Borrowed(patch));
    }
    let mut out = Cow::Borrowed(patch);
    let file = String::from_utf8_lossy(file.unwrap_or_default());
    if let Action::Create(content) | Action::Replace(content) = &patch.action
        && let Ok(text) = std::str::from_utf8(content)
        && let Cow::Owned(text) =
            (Text { path: &patch.path, file: &file, old: &file, whole: true }).bare(text)?
    {
        match &mut out.to_mut().action {
            Action::Create(content) | Action::Replace(content) => *content = text.into_bytes(),
            _ => {}
        }
    }
    for (i, hunk) in patch.hunks.iter().enumerate().filter(|(_, hunk)| hunk.readings.is_empty()) {
        let Some((search, replace)) = &hunk.text else { continue };
        let (Ok(search), Ok(replace)) = (std::str::from_utf8(search), std::str::from_utf8(replace)) else {
            continue;
        };
        let text = Text { path: &patch.path, file: &file, old: search, whole: false };
        let bare = text.bare(replace).map_err(|refused| refused.hunk(i + 1, patch.hunks.len()))?;
        if let Cow::Owned(replace) = bare {
            let made = blocks::hunk(search, &replace);
            let hunk = &mut out.to_mut().hunks[i];
            (hunk.lines, hunk.text) = (made.lines, made.text);
        }
    }
    Ok(out)
}

/// The context in which new text is checked.
struct Text<'t> {
    path: &'t str,
    /// The content of the file; empty if it does not exist.
    file: &'t str,
    /// The text being replaced.
    old: &'t str,
    /// Whether the new text is the whole file.
    whole: bool,
}

impl Text<'_> {
    fn bare<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, Refusal> {
        self.thoughts(text)?;
        self.escapes(text)?;
        let mut out = Cow::Borrowed(text);
        if let Some(without) = self.marker(&out)? {
            out = Cow::Owned(without);
        }
        if let Some(without) = self.fence(&out)? {
            out = Cow::Owned(without);
        }
        if let Some(without) = self.numbers(&out) {
            out = Cow::Owned(without);
        }
        Ok(out)
    }

    fn refused<T>(&self, what: &str) -> Result<T, Refusal> {
        let part = if self.whole { "content" } else { "replacement" };
        Err(Refusal::new(RefusalKind::Wrapped, format!("the {part} {what}")))
    }

    /// Returns whether the file or the replaced text contains this line.
    fn has(&self, line: &str) -> bool {
        let has = |text: &str| text.lines().any(|other| other.trim() == line.trim());
        has(self.file) || has(self.old)
    }

    fn thoughts(&self, text: &str) -> Result<(), Refusal> {
        let start = text.trim_start();
        let opens = |mark: &&&str| start.get(..mark.len()).is_some_and(|t| t.eq_ignore_ascii_case(mark));
        match THOUGHTS.iter().find(opens) {
            Some(mark) if !self.old.trim_start().starts_with(mark) => self.refused(&format!(
                "begins with {mark}, which would become part of {}; send only the file's text",
                self.path
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a single line in which `\n` is written out as two characters, if the line replaces
    /// several lines or is probably a whole file with several lines.
    fn escapes(&self, text: &str) -> Result<(), Refusal> {
        let line = text.trim_end_matches(['\n', '\r']);
        if line.contains('\n') || lazy::is_prose(self.path) {
            return Ok(());
        }
        let escapes = outside_quotes(line);
        let several = self.old.trim_end().lines().count() > 1;
        let escaped = if self.whole { line.ends_with("\\n") || escapes > 1 } else { several && escapes > 0 };
        if escapes > 0 && (escaped || several) && !self.has(line) {
            return self.refused("is one line with \\n written out as two characters; send real line breaks");
        }
        Ok(())
    }

    fn marker(&self, text: &str) -> Result<Option<String>, Refusal> {
        let Some(last) = text.trim_end().lines().last().filter(|last| !self.has(last)) else {
            return Ok(None);
        };
        let opened =
            |marks: &[&str]| text.lines().any(|line| marks.iter().any(|m| line.trim().starts_with(m)));
        let stray = match last.trim_end() {
            ">>>>>>> REPLACE" | "+++++++ REPLACE" => !opened(&["<<<<<<<", "-------"]),
            "*** End Patch" => !opened(&["*** Begin Patch"]),
            "=======" if !opened(&["<<<<<<<"]) && !lazy::is_prose(self.path) => {
                return self
                    .refused("ends with a ======= line, which would become part of the file; leave it out");
            }
            _ => false,
        };
        let at = text.trim_end().len() - last.len();
        Ok(stray.then(|| text[..at].to_owned()))
    }

    fn fence(&self, text: &str) -> Result<Option<String>, Refusal> {
        if lazy::is_prose(self.path) {
            return Ok(None);
        }
        let lines: Vec<&str> = text.trim().lines().collect();
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Ok(None) };
        let Some(fence) = Fence::opens(first).filter(|_| !self.has(first)) else { return Ok(None) };
        let inside = lines.get(1..lines.len() - 1).unwrap_or_default();
        let closed = lines.len() > 1 && fence.closes(last);
        if self.whole && closed && !inside.iter().any(|line| Fence::opens(line).is_some()) {
            return Ok(Some(inside.iter().flat_map(|line| [*line, "\n"]).collect()));
        }
        // In a string or a comment, the fence may be intentional.
        if self.whole || closed && !first.starts_with(' ') {
            return self.refused("has a Markdown fence (```) around it; send only the file's lines");
        }
        Ok(None)
    }

    /// Strips line numbers in the style of `read_file`: in front of every line, counting up from 1.
    fn numbers(&self, text: &str) -> Option<String> {
        let ext = self.path.rsplit_once('.').map(|(_, ext)| ext.to_ascii_lowercase()).unwrap_or_default();
        let table = lazy::is_prose(self.path) || TABLES.contains(&ext.as_str());
        if !self.whole || self.file.is_empty() && table || numbered(self.file).is_some() {
            return None;
        }
        numbered(text)
    }
}

/// Strips line numbers if every line begins with one, they count up from 1, and each is followed by
/// a bar or an arrow, or by a tab if the line begins with a space.
fn numbered(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut count = 0;
    for line in text.lines() {
        let (number, rest) = ladder::number(line.as_bytes())?;
        let mark = line.trim_start_matches([' ', '\t']).trim_start_matches(|c: char| c.is_ascii_digit());
        let padded = line.starts_with(' ') && mark.starts_with('\t');
        count += 1;
        if number != count || !(mark.starts_with(['|', '→']) || padded) {
            return None;
        }
        out.push_str(std::str::from_utf8(rest).ok()?);
        out.push('\n');
    }
    (count > 1).then_some(out)
}

/// Counts the `\n` escapes in a line that are not inside quotes.
fn outside_quotes(line: &str) -> usize {
    let mut quote = None;
    let mut count = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None) => count += usize::from(chars.next() == Some('n')),
            ('\\', Some(_)) => _ = chars.next(),
            ('"' | '\'' | '`', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    count
}
