//! What a patch says, whatever it was written in.

use serde::{Deserialize, Serialize};

/// The form a patch is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `---`, `+++`, `@@`; with or without git's headers.
    Unified,
    /// `*** Begin Patch`.
    Envelope,
    /// `<<<<<<< SEARCH`, with the path before.
    SearchReplace,
    /// A JSON list of `{path, search, replace}`.
    Edits,
    /// The file as it is to be.
    WholeFile,
}

/// What a hunk does with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It is there and stays.
    Keep,
    /// It is there and goes.
    Remove,
    /// It is new.
    Add,
}

impl Mark {
    /// What it is when the change is taken back.
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
    /// What becomes of it.
    pub mark: Mark,
    /// Without its newline; a carriage return before that is part of it.
    pub text: Vec<u8>,
    /// `false` after `\ No newline at end of file`.
    pub newline: bool,
    /// `false` for a line that the patch gives no mark. It is taken for one to keep, and has to stand in the file.
    pub marked: bool,
}

/// Lines that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hunk {
    /// In order.
    pub lines: Vec<Line>,
    /// The line of the old file that it says it starts at, from 1; a hint.
    pub start: Option<usize>,
    /// Lines above it that tell where it is (`@@ class Foo`), outermost first; a hint.
    pub under: Vec<Vec<u8>>,
    /// It says that it ends where the file ends.
    pub at_end: bool,
    /// So many of its last lines are blank and have no mark: they may as well stand below it.
    pub blank_tail: usize,
    /// The text that was searched and what replaces it, where the dialect has it so.
    pub text: Option<(Vec<u8>, Vec<u8>)>,
    /// Every place where the searched text stands is meant.
    pub everywhere: bool,
    /// So many places are meant, and all of them.
    pub expected: Option<usize>,
    /// It only adds, below this line of the file; 0 for the beginning.
    pub below: Option<usize>,
    /// The ways to read it, where that is not known without the file; the likeliest first.
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

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is made, with this content; it may not be there.
    Create(Vec<u8>),
    /// It gets this content, whether it is there or not.
    Replace(Vec<u8>),
    /// It is changed by the hunks.
    Update,
    /// It is removed. Hunks, if any, say what it held.
    Delete,
}

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    /// The form it was written in.
    pub dialect: Dialect,
    /// Where the file is afterwards (before, when it is removed). As written: not checked, not normalised but for the prefixes of diffs.
    pub path: String,
    /// Where it was before, when it is renamed.
    pub from: Option<String>,
    /// What becomes of it.
    pub action: Action,
    /// The changes, in the order written.
    pub hunks: Vec<Hunk>,
    /// Sets or clears the executable bits.
    pub executable: Option<bool>,
    /// The patch came with line endings that say nothing about the file it creates, which has `\n` here.
    pub own_endings: bool,
}

/// Why a text is not a patch. A sentence for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing in it looks like a patch.
    #[error(
        "this is not a patch; give a unified diff (---, +++, @@), a \"*** Begin Patch\" envelope, or <<<<<<< SEARCH / ======= / >>>>>>> REPLACE \
         blocks with the file's path on the line before"
    )]
    NotAPatch,
    /// No file is named.
    #[error("the patch does not say which file it changes; {0}")]
    NoPath(&'static str),
    /// A line that cannot be there.
    #[error("line {line} of the patch, {text:?}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// The line, cut at 100 characters.
        text: String,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// A part of diffs that is not supported.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl ParseError {
    pub(crate) fn at(index: usize, text: &str, why: &'static str) -> Self {
        Self::Line { line: index + 1, text: text.trim_end().chars().take(100).collect(), why }
    }
}

impl FilePatch {
    /// Calls `change` with every text that is searched for or written.
    pub fn for_each_text(&mut self, change: &mut dyn FnMut(&mut Vec<u8>)) {
        if let Action::Create(content) | Action::Replace(content) = &mut self.action {
            change(content);
        }
        self.hunks.iter_mut().for_each(|hunk| hunk.for_each_text(change));
    }

    /// Whether it makes sense without a file, though it changes one: it only adds.
    #[must_use]
    pub fn creates(&self) -> bool {
        let adds = |hunk: &Hunk| hunk.lines.iter().all(|line| line.mark == Mark::Add);
        self.action == Action::Update
            && !self.hunks.is_empty()
            && self.hunks.iter().all(|hunk| adds(hunk) || hunk.readings.iter().any(adds))
    }
}

impl Line {
    pub(crate) fn new(mark: Mark, text: &str) -> Self {
        Self { mark, text: text.as_bytes().to_vec(), newline: true, marked: true }
    }
}

impl Hunk {
    pub(crate) fn changes(&self) -> bool {
        self.lines.iter().any(|l| l.mark != Mark::Keep)
    }

    /// How many lines it adds and removes.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |mark| self.lines.iter().filter(|l| l.mark == mark).count();
        (count(Mark::Add), count(Mark::Remove))
    }
}
