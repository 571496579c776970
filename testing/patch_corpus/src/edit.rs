//! Edits to files, and the files that result from them.

use crate::text::{End, Row, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Keep,
    Remove,
    Add,
}

/// Replaces rows `at..at + remove` of the old file with `add`.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) at: usize,
    pub(crate) remove: usize,
    pub(crate) add: Vec<String>,
}

/// A row of the old file, the new file, or both.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) mark: Mark,
    pub(crate) text: String,
    /// The ending of the row in the old file or, if the row is added, in the new file.
    pub(crate) end: End,
    /// The ending of the row in the new file.
    pub(crate) becomes: End,
    /// The index of the row in the old file. For an added row, the index of the row below.
    pub(crate) old: usize,
}

/// An edit to one file.
#[derive(Debug, Clone)]
pub(crate) struct FileEdit {
    pub(crate) path: String,
    /// The new path, if the edit renames the file.
    pub(crate) to: Option<String>,
    /// The old file; `None` if the edit creates the file.
    pub(crate) before: Option<Text>,
    pub(crate) ops: Vec<Op>,
    /// The content of a created file; `None` otherwise.
    pub(crate) created: Option<Text>,
    pub(crate) deleted: bool,
    /// `Some(true)` adds a final newline, `Some(false)` removes it.
    pub(crate) final_newline: Option<bool>,
    pub(crate) executable: bool,
    pub(crate) executable_after: bool,
}

impl FileEdit {
    pub(crate) fn change(path: &str, before: Text, ops: Vec<Op>) -> Self {
        Self {
            path: path.into(),
            to: None,
            before: Some(before),
            ops,
            created: None,
            deleted: false,
            final_newline: None,
            executable: false,
            executable_after: false,
        }
    }

    pub(crate) fn create(path: &str, content: Text) -> Self {
        let mut edit = Self::change(path, Text::default(), Vec::new());
        (edit.before, edit.created) = (None, Some(content));
        edit
    }

    pub(crate) fn delete(path: &str, before: Text) -> Self {
        let mut edit = Self::change(path, before, Vec::new());
        edit.deleted = true;
        edit
    }

    /// Returns whether the edit only changes lines of an existing file.
    pub(crate) fn plain(&self) -> bool {
        self.before.is_some()
            && !self.deleted
            && self.to.is_none()
            && self.executable == self.executable_after
    }

    pub(crate) fn after_path(&self) -> &str {
        self.to.as_deref().unwrap_or(&self.path)
    }

    /// Returns the rows of the old and the new file as a single list, in order.
    pub(crate) fn script(&self) -> Vec<Line> {
        let line = |mark, text: &str, end, old| Line { mark, text: text.into(), end, becomes: end, old };
        if let Some(created) = &self.created {
            return created.rows.iter().map(|r| line(Mark::Add, &r.text, r.end, 0)).collect();
        }
        let Some(before) = &self.before else { return Vec::new() };
        let old = &before.rows;
        if self.deleted {
            return old.iter().enumerate().map(|(i, r)| line(Mark::Remove, &r.text, r.end, i)).collect();
        }
        let mut out = Vec::with_capacity(old.len() + 8);
        let mut next = 0;
        for op in &self.ops {
            let keep = old[next..op.at].iter().enumerate();
            out.extend(keep.map(|(i, r)| line(Mark::Keep, &r.text, r.end, next + i)));
            let removed = old[op.at..op.at + op.remove].iter().enumerate();
            out.extend(removed.map(|(i, r)| line(Mark::Remove, &r.text, r.end, op.at + i)));
            next = op.at + op.remove;
            out.extend(op.add.iter().map(|t| line(Mark::Add, t, ending_near(old, op.at), next)));
        }
        out.extend(old[next..].iter().enumerate().map(|(i, r)| line(Mark::Keep, &r.text, r.end, next + i)));
        // Only the last row may lack a newline. The new file ends like the old file, unless the
        // edit removes the last row without replacing it, or sets `final_newline`.
        let style = ending_near(old, old.len());
        let last = out.iter().rposition(|l| l.mark != Mark::Remove);
        for (i, line) in out.iter_mut().enumerate() {
            if line.mark == Mark::Remove {
                continue;
            }
            if Some(i) != last {
                line.becomes = if line.end == End::Nothing { style } else { line.end };
            } else if line.mark == Mark::Add && before.unfinished() {
                line.becomes = End::Nothing;
            }
            if let (true, Some(finished)) = (Some(i) == last, self.final_newline) {
                line.becomes = if finished { style } else { End::Nothing };
            }
            if line.mark == Mark::Add {
                line.end = line.becomes;
            }
        }
        out
    }

    /// Returns the file after the edit; `None` if the edit deletes it.
    pub(crate) fn after(&self) -> Option<Text> {
        if self.deleted {
            return None;
        }
        let stays = |l: &Line| l.mark != Mark::Remove;
        let rows = self.script().into_iter().filter(stays).map(|l| Row { text: l.text, end: l.becomes });
        let bom = self.before.as_ref().or(self.created.as_ref()).is_some_and(|t| t.bom);
        Some(Text { bom, rows: rows.collect() })
    }
}

/// Returns the ending for a row inserted at `at`: the ending of the nearest row above that has one,
/// or else of the nearest row below.
fn ending_near(rows: &[Row], at: usize) -> End {
    let ends = |r: &&Row| r.end != End::Nothing;
    let above = rows[..at].iter().rev().find(ends);
    above.or_else(|| rows[at..].iter().find(ends)).map_or(End::Lf, |r| r.end)
}

/// Returns whether all rows around an operation have the same ending, so that the ending of its new
/// rows is clear.
pub(crate) fn endings_agree(rows: &[Row], op: &Op) -> bool {
    let from = op.at.saturating_sub(1);
    let to = (op.at + op.remove + 1).min(rows.len());
    let ends = || rows[from..to].iter().map(|r| r.end).filter(|e| *e != End::Nothing);
    ends().all(|e| Some(e) == ends().next())
}
