//! The last rung of the ladder: context lines may be slightly wrong if the removed lines match
//! exactly.
//!
//! The old lines are aligned with the file around each occurrence of the rarest required line. Up
//! to [`MAX_WRONG`] context lines may differ slightly, be missing from the patch, or be missing
//! from the file. Added lines that do not replace an old line are called purely added. The required
//! lines, which must match, are the removed lines and the lines next to purely added lines. If
//! purely added lines go between two old lines, one of the two may differ slightly. A match is
//! rejected if a context line is missing from it but occurs elsewhere in the file, because the hunk
//! probably belongs there.

use std::collections::BTreeSet;

use crate::{
    Mark,
    body::{Body, old},
    index::Index,
    similarity::similarity,
    units,
};

pub(crate) const MAX_WRONG: usize = 3;
/// Minimum similarity, in percent, between a wrong context line and the file's line.
const MIN_SIMILARITY: usize = 40;
/// Maximum number of occurrences of the anchor, the rarest required line. With more than that, the
/// hunk would be ambiguous.
const MAX_CANDIDATES: usize = 100;
/// Maximum number of old lines in a hunk. Longer hunks are not aligned.
const MAX_OLD_LINES: usize = 2_000;

/// The old lines of a hunk, and how each of them must match.
struct Old<'b> {
    texts: Vec<&'b [u8]>,
    keys: Vec<u64>,
    required: Vec<bool>,
    /// Whether the line is next to purely added lines. Such a line may differ slightly if the line
    /// on the other side of the added lines matches.
    flexible: Vec<bool>,
    /// Whether the next old line must directly follow this line in the file.
    adjacent: Vec<bool>,
}

impl<'b> Old<'b> {
    fn of(body: &Body<'b>) -> Self {
        let texts = old(body);
        let keys = texts.iter().map(|text| units::key(text)).collect();
        let no = vec![false; texts.len()];
        let (mut required, mut flexible, mut adjacent) = (no.clone(), no.clone(), no);
        let mut at = 0; // index of the next old line
        let mut i = 0;
        while i < body.len() {
            if body[i].0 == Mark::Keep {
                at += 1;
                i += 1;
                continue;
            }
            // The removed lines of one block of changes are contiguous in the file.
            let block = body[i..].iter().take_while(|(mark, _)| *mark != Mark::Keep);
            let (mut len, mut removed) = (0, 0);
            for (mark, _) in block {
                len += 1;
                removed += usize::from(*mark == Mark::Remove);
            }
            for line in at..at + removed {
                required[line] = true;
                adjacent[line] = line + 1 < at + removed;
            }
            if removed == 0 {
                // Purely added lines go next to one old line or between two adjacent old lines. In
                // the latter case, one of the two lines may be wrong.
                let between = at > 0 && at < texts.len();
                if at > 0 {
                    (required[at - 1], flexible[at - 1], adjacent[at - 1]) = (true, between, between);
                }
                if at < texts.len() {
                    (required[at], flexible[at]) = (true, between);
                }
            }
            at += removed;
            i += len;
        }
        Self { texts, keys, required, flexible, adjacent }
    }

    fn len(&self) -> usize {
        self.texts.len()
    }

    /// If purely added lines separate old line `i` from a neighboring old line, returns the index
    /// of that neighbor.
    fn neighbor(&self, i: usize) -> Option<usize> {
        let below = (self.flexible[i] && self.adjacent[i]).then_some(i + 1);
        below.or_else(|| i.checked_sub(1).filter(|above| self.flexible[*above] && self.adjacent[*above]))
    }
}

/// A place where the old lines match, except for a few context lines.
pub(crate) struct Alignment {
    /// For each old line, the index of the file's line that it is aligned with; `None` if the old
    /// line is missing from the file.
    pub(crate) lines: Vec<Option<usize>>,
    /// Same as `lines`, but for required lines only. Alignments that agree on the required lines
    /// count as the same match.
    pub(crate) required: Vec<Option<usize>>,
}

/// Finds the places where the old lines match, except for a few context lines.
pub(crate) fn alignments(index: &Index<'_>, body: &Body<'_>) -> Vec<Alignment> {
    let old = Old::of(body);
    let keeps = old.required.iter().filter(|required| !**required).count();
    let anchors = (0..old.len()).filter(|i| old.required[*i] && index.count_of(old.texts[*i]) > 0);
    let Some(anchor) = anchors.min_by_key(|i| index.count_of(old.texts[*i])) else { return Vec::new() };
    let loose = keeps + old.flexible.iter().filter(|flexible| **flexible).count();
    if loose == 0 || old.len() > MAX_OLD_LINES || index.count_of(old.texts[anchor]) > MAX_CANDIDATES {
        return Vec::new();
    }
    let max_wrong = MAX_WRONG.min((loose / 2).max(1));
    let mut out: BTreeSet<Vec<Option<usize>>> = BTreeSet::new();
    for at in index.places_of(old.texts[anchor]) {
        for prefer_late in [false, true] {
            let aligned = Aligner { index, old: &old, max_wrong, prefer_late }.align(anchor, at);
            if let Some(lines) = aligned.filter(|lines| is_proof(index, &old, lines)) {
                out.insert(lines);
            }
        }
    }
    let required = |lines: &Vec<Option<usize>>| {
        lines.iter().zip(&old.required).filter(|(_, required)| **required).map(|(line, _)| *line).collect()
    };
    out.into_iter().map(|lines| Alignment { required: required(&lines), lines }).collect()
}

/// Returns whether a context line next to a change is missing from the file. Such a line may be an
/// added line that lost its `+`. Directly above removed lines, a missing line is allowed if the
/// line above it matches. `lines` is [`Alignment::lines`].
pub(crate) fn misses_line_next_to_change(body: &Body<'_>, lines: &[Option<usize>]) -> bool {
    let mut old = lines.iter();
    let matches: Vec<bool> =
        body.iter().map(|(mark, _)| *mark != Mark::Add && old.next().is_some_and(Option::is_some)).collect();
    let mark = |i: usize| body.get(i).map(|(mark, _)| *mark);
    let misses = |i: usize| {
        let (_, text) = body[i];
        if mark(i) != Some(Mark::Keep) || matches[i] || text.trim_ascii().is_empty() {
            return false;
        }
        let above = i.checked_sub(1);
        let below_change = above.and_then(mark).is_some_and(|mark| mark != Mark::Keep);
        let supported = above.is_some_and(|above| matches[above]);
        below_change || mark(i + 1) == Some(Mark::Add) || mark(i + 1) == Some(Mark::Remove) && !supported
    };
    (0..body.len()).any(misses)
}

/// Returns whether an incomplete hunk may still match by alignment. Assumes that every context line
/// may be wrong, because lines that have not arrived yet may determine which context lines must
/// match.
pub(crate) fn may_align(index: &Index<'_>, body: &Body<'_>) -> bool {
    let mut wrong = 0;
    for (mark, text) in body.iter().filter(|(mark, _)| *mark != Mark::Add) {
        let found = index.count_of(text) > 0;
        if !found && *mark == Mark::Remove {
            return false;
        }
        wrong += usize::from(!found);
    }
    wrong <= MAX_WRONG
}

/// Returns whether enough lines match to be sure that the hunk belongs here.
fn is_proof(index: &Index<'_>, old: &Old<'_>, lines: &[Option<usize>]) -> bool {
    let matches = |i: usize| lines[i].is_some_and(|at| index.has_key(at, old.keys[i]));
    let supported = |i: usize| !old.flexible[i] || matches(i) || old.neighbor(i).is_some_and(matches);
    if !(0..old.len()).all(supported) {
        return false;
    }
    let right = |i: &usize| matches(*i) && units::is_distinctive(old.texts[*i]);
    let keeps_right = (0..old.len()).filter(|i| !old.required[*i]).filter(right).count();
    let required_right = (0..old.len()).filter(|i| old.required[*i]).filter(right);
    let unique = required_right.clone().any(|i| index.count_of(old.texts[i]) == 1);
    let enough = required_right.count() > 0 && (keeps_right > 0 || unique);
    // A line that is missing here but occurs elsewhere suggests that the hunk belongs there.
    let elsewhere =
        |i: usize| !matches(i) && units::is_distinctive(old.texts[i]) && index.count_of(old.texts[i]) > 0;
    // If the context above or below the changes has several lines and all of them are missing, the
    // hunk belongs somewhere else.
    let missing = |i: &usize| !old.required[*i] && lines[*i].is_none();
    let beside = |at: &mut dyn Iterator<Item = usize>| {
        let beside: Vec<usize> = at.take_while(|i| !old.required[*i]).collect();
        beside.len() > 1 && beside.iter().all(missing)
    };
    enough
        && !(0..old.len()).any(elsewhere)
        && !beside(&mut (0..old.len()))
        && !beside(&mut (0..old.len()).rev())
}

/// Aligns old lines with file lines using dynamic programming, in a band around the anchor.
struct Aligner<'i, 'o> {
    index: &'i Index<'i>,
    old: &'o Old<'o>,
    max_wrong: usize,
    /// Whether to break ties in favor of alignments whose matches are farther from the anchor.
    prefer_late: bool,
}

/// One step of an alignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Match,
    Replace,
    SkipOld,
    SkipFile,
}

impl Aligner<'_, '_> {
    fn align(&self, anchor: usize, at: usize) -> Option<Vec<Option<usize>>> {
        let mut lines = vec![None; self.old.len()];
        lines[anchor] = Some(at);
        let down = self.walk(anchor, at, true, &mut lines)?;
        let up = self.walk(anchor, at, false, &mut lines)?;
        (down + up <= self.max_wrong).then_some(lines)
    }

    /// Aligns from the anchor downwards or upwards. Returns the cost, or `None` if it is too high.
    fn walk(&self, anchor: usize, at: usize, down: bool, lines: &mut [Option<usize>]) -> Option<usize> {
        let rows = if down { self.old.len() - anchor - 1 } else { anchor };
        let width = 2 * MAX_WRONG + 1;
        // cost[row][k]: the lowest cost so far of aligning `row` old lines with
        // `row + k - MAX_WRONG` lines of the file.
        let mut cost = vec![[usize::MAX; 2 * MAX_WRONG + 1]; rows + 1];
        let mut step = vec![[Step::Match; 2 * MAX_WRONG + 1]; rows + 1];
        cost[0][MAX_WRONG] = 0;
        let old_at = |row: usize| if down { anchor + 1 + row } else { anchor - 1 - row };
        let file_at = |col: usize| {
            if down {
                Some(at + 1 + col).filter(|f| *f < self.index.lines.len())
            } else {
                at.checked_sub(1 + col)
            }
        };
        for row in 0..=rows {
            for k in 0..width {
                let here = cost[row][k];
                let Some(col) = (row + k).checked_sub(MAX_WRONG) else { continue };
                if here > self.max_wrong {
                    continue;
                }
                let mut go = |row: usize, k: usize, cost_there: usize, how: Step| {
                    let better =
                        if self.prefer_late { cost_there <= cost[row][k] } else { cost_there < cost[row][k] };
                    if better {
                        (cost[row][k], step[row][k]) = (cost_there, how);
                    }
                };
                if row < rows {
                    let i = old_at(row);
                    if let Some(file) = file_at(col) {
                        if self.index.has_key(file, self.old.keys[i]) {
                            go(row + 1, k, here, Step::Match);
                        } else if (self.old.flexible[i] || !self.old.required[i])
                            && similarity(self.index.lines.texts[file], self.old.texts[i]) >= MIN_SIMILARITY
                        {
                            go(row + 1, k, here + 1, Step::Replace);
                        }
                    }
                    if !self.old.required[i] && k > 0 {
                        go(row + 1, k - 1, here + 1, Step::SkipOld);
                    }
                    let upper = if down { i - 1 } else { i };
                    if !self.old.adjacent[upper] && k + 1 < width && file_at(col).is_some() {
                        go(row, k + 1, here + 1, Step::SkipFile);
                    }
                }
            }
        }
        let ends = (0..width).filter(|k| cost[rows][*k] <= self.max_wrong);
        let mut k = if self.prefer_late {
            ends.rev().min_by_key(|k| cost[rows][*k])
        } else {
            ends.min_by_key(|k| cost[rows][*k])
        }?;
        let total = cost[rows][k];
        let mut row = rows;
        while row > 0 || k != MAX_WRONG {
            match step[row][k] {
                Step::Match | Step::Replace => {
                    row -= 1;
                    lines[old_at(row)] = file_at(row + k - MAX_WRONG);
                }
                Step::SkipOld => {
                    row -= 1;
                    k += 1;
                    lines[old_at(row)] = None;
                }
                Step::SkipFile => k -= 1,
            }
        }
        Some(total)
    }
}
