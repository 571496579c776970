//! The parsed form of a patch, independent of its dialect.

use serde::{Deserialize, Serialize};

/// The format a patch is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `---`, `+++`, `@@`; with or without git's headers.
    Unified,
    /// `*** Begin Patch`.
    Envelope,
    /// `<<<<<<< SEARCH` blocks, each below the path of its file.
    SearchReplace,
    /// A JSON list of `{path, search, replace}`.
    Edits,
    /// The complete new file.
    WholeFile,
}

/// What a hunk does with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Context: the line stays.
    Keep,
    /// The line is removed.
    Remove,
    /// The line is added.
    Add,
}

impl Mark {
    /// Returns the mark that the line has in the inverse patch.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Keep => Self::Keep,
            Self::Remove => Self::Add,
            Self::Add => Self::Remove,
        }
    }
}

/// One line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whether the line is kept, removed or added.
    pub mark: Mark,
    /// The text without its newline. A carriage return before the newline is kept.
    pub text: Vec<u8>,
    /// `false` if `\ No newline at end of file` follows the line.
    pub newline: bool,
    /// `false` if the line has text but no mark in the patch. Such a line is treated as context and
    /// must be in the file.
    pub marked: bool,
}

/// A contiguous change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hunk {
    /// The lines in order.
    pub lines: Vec<Line>,
    /// A hint: the 1-based line of the old file where the hunk starts.
    pub start: Option<usize>,
    /// A hint: lines above the hunk (`@@ class Foo`), outermost first.
    pub under: Vec<Vec<u8>>,
    /// Whether the hunk claims to end at the end of the file.
    pub at_end: bool,
    /// The number of blank, unmarked lines at the end of the hunk. They may be spacing below the
    /// hunk rather than part of it.
    pub blank_tail: usize,
    /// The search text and its replacement, in dialects that have them.
    pub text: Option<(Vec<u8>, Vec<u8>)>,
    /// Replace every occurrence of the search text.
    pub everywhere: bool,
    /// Replace every occurrence of the search text, and refuse the hunk unless there are exactly
    /// this many occurrences.
    pub expected: Option<usize>,
    /// Insert the added lines below this line of the file; 0 is the start of the file.
    pub below: Option<usize>,
    /// The hunk's possible readings, most likely first. Empty unless its meaning depends on the
    /// content of the file.
    pub readings: Vec<Hunk>,
}

impl Hunk {
    fn for_each_text(&mut self, change: &mut dyn FnMut(&mut Vec<u8>)) {
        self.lines.iter_mut().for_each(|line| change(&mut line.text));
        self.under.iter_mut().for_each(&mut *change);
        if let Some((search, replace)) = &mut self.text {
            change(search);
            change(replace);
        }
        self.readings.iter_mut().for_each(|reading| reading.for_each_text(change));
    }
}

/// What happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create it with this content; it must not exist.
    Create(Vec<u8>),
    /// Overwrite it with this content, or create it.
    Replace(Vec<u8>),
    /// Apply the hunks.
    Update,
    /// Delete it. If there are hunks, their lines must match the entire content of the file.
    Delete,
}

/// The patch for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    /// The format it was written in.
    pub dialect: Dialect,
    /// The new path, or the old one if the file is deleted. The path has not been checked. It is
    /// kept as written, except that prefixes such as `a/`, which diffs add, are removed.
    pub path: String,
    /// The old path, if the file is renamed.
    pub from: Option<String>,
    /// What happens to the file.
    pub action: Action,
    /// The changes, in the order written.
    pub hunks: Vec<Hunk>,
    /// Sets or clears the executable bits.
    pub executable: Option<bool>,
    /// Whether the patch uses `\r\n` throughout. This says nothing about the file that the patch
    /// creates, so the content in `action` has `\n` instead.
    pub own_endings: bool,
}

/// Why some text is not a valid patch, phrased for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing in the text looks like a patch.
    #[error(
        "this is not a patch; send a unified diff (---, +++, @@), a \"*** Begin Patch\" envelope, or <<<<<<< SEARCH / ======= / >>>>>>> REPLACE \
         blocks with the file's path on the line above"
    )]
    NotAPatch,
    /// The patch does not name a file.
    #[error("the patch does not say which file it changes; {0}")]
    NoPath(&'static str),
    /// A line is invalid.
    #[error("line {line} of the patch, {text:?}: {why}")]
    Line {
        /// The 1-based line number.
        line: usize,
        /// The line, truncated to 100 characters.
        text: String,
        /// What is wrong, or what was expected.
        why: &'static str,
    },
    /// The patch uses a feature that is not supported.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl ParseError {
    pub(crate) fn at(index: usize, text: &str, why: &'static str) -> Self {
        Self::Line { line: index + 1, text: text.trim_end().chars().take(100).collect(), why }
    }
}

impl FilePatch {
    pub(crate) fn new(dialect: Dialect, path: &str, action: Action, hunks: Vec<Hunk>) -> Self {
        Self { dialect, path: path.into(), from: None, action, hunks, executable: None, own_endings: false }
    }

    /// Calls `change` on every piece of text that is searched for or written.
    pub fn for_each_text(&mut self, change: &mut dyn FnMut(&mut Vec<u8>)) {
        if let Action::Create(content) | Action::Replace(content) = &mut self.action {
            change(content);
        }
        self.hunks.iter_mut().for_each(|hunk| hunk.for_each_text(change));
    }

    /// Returns whether the patch is an update that only adds lines. Such a patch can also create
    /// the file.
    #[must_use]
    pub fn only_adds(&self) -> bool {
        let adds = |hunk: &Hunk| hunk.lines.iter().all(|line| line.mark == Mark::Add);
        self.action == Action::Update
            && !self.hunks.is_empty()
            && self.hunks.iter().all(|hunk| adds(hunk) || hunk.readings.iter().any(adds))
    }
}

impl Line {
    /// Parses a line of a hunk, which begins with its mark. Returns `None` if the line begins with
    /// anything else.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mark = match line.as_bytes().first()? {
            b' ' => Mark::Keep,
            b'+' => Mark::Add,
            b'-' => Mark::Remove,
            _ => return None,
        };
        Some(Self::new(mark, &line[1..]))
    }

    pub(crate) fn new(mark: Mark, text: &str) -> Self {
        Self { mark, text: text.as_bytes().to_vec(), newline: true, marked: true }
    }
}

impl Hunk {
    pub(crate) fn changes(&self) -> bool {
        self.lines.iter().any(|l| l.mark != Mark::Keep)
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |mark| self.lines.iter().filter(|l| l.mark == mark).count();
        (count(Mark::Add), count(Mark::Remove))
    }
}
