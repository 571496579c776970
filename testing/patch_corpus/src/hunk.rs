//! Hunks: changed lines with their context.

use crate::edit::{FileEdit, Line, Mark};

#[derive(Debug, Clone)]
pub(crate) struct Hunk {
    /// The index in the old file of the first old line in the hunk. If the hunk has no old lines,
    /// the index of the line below it.
    pub(crate) start: usize,
    pub(crate) lines: Vec<Line>,
    /// Whether the context contains a mistake: a wrong, missing or extra line.
    pub(crate) wrong: bool,
}

impl Hunk {
    pub(crate) fn before(&self) -> Vec<&str> {
        self.lines.iter().filter(|l| l.mark != Mark::Add).map(|l| &l.text[..]).collect()
    }

    pub(crate) fn after(&self) -> Vec<&str> {
        self.lines.iter().filter(|l| l.mark != Mark::Remove).map(|l| &l.text[..]).collect()
    }

    pub(crate) fn count(&self, mark: Mark) -> usize {
        self.lines.iter().filter(|l| l.mark == mark).count()
    }

    /// Returns each run of consecutive removed lines.
    pub(crate) fn removed(&self) -> Vec<Vec<&str>> {
        let mut out: Vec<Vec<&str>> = Vec::new();
        let mut open = false;
        for line in &self.lines {
            match (line.mark, open) {
                (Mark::Remove, true) => out.last_mut().into_iter().for_each(|run| run.push(&line.text)),
                (Mark::Remove, false) => out.push(vec![&line.text]),
                _ => {}
            }
            open = line.mark == Mark::Remove;
        }
        out
    }
}

/// Returns the hunks of an edit with `context` lines around each change. If `bytes` is set, a line
/// whose ending changes is removed and added again, as in a diff.
pub(crate) fn hunks(edit: &FileEdit, context: usize, bytes: bool) -> Vec<Hunk> {
    let mut script = Vec::new();
    for line in edit.script() {
        if bytes && line.mark == Mark::Keep && line.end != line.becomes {
            script.push(Line { mark: Mark::Remove, ..line.clone() });
            script.push(Line { mark: Mark::Add, end: line.becomes, ..line });
        } else {
            script.push(line);
        }
    }
    let changed: Vec<usize> = (0..script.len()).filter(|i| script[*i].mark != Mark::Keep).collect();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for i in changed {
        match ranges.last_mut() {
            Some((_, to)) if i <= *to + 2 * context => *to = i + 1,
            _ => ranges.push((i, i + 1)),
        }
    }
    let hunk = |(from, to): (usize, usize)| {
        let lines = script[from.saturating_sub(context)..(to + context).min(script.len())].to_vec();
        let old = lines.iter().find(|l| l.mark != Mark::Add).or(lines.first());
        Hunk { start: old.map_or(0, |l| l.old), lines, wrong: false }
    };
    ranges.into_iter().map(hunk).collect()
}
