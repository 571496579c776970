//! The last rung: lines to keep that are slightly wrong, where the lines that go stand as the patch has them.
//!
//! Old lines are aligned with the file's around each place of the rarest line that has to be right: a line to keep may differ a little, be
//! missing in the patch, or be one too many, [`MOST`] times at most. Lines that are removed, and those next to which lines are only added, have to
//! stand there. A line to keep that is not there but stands elsewhere in the file says that another place is meant.

use std::collections::BTreeSet;

use crate::{
    Mark,
    body::{Body, old},
    index::Index,
    similarity::alike,
    units,
};

/// Most lines to keep that may be wrong.
pub(crate) const MOST: usize = 3;
/// A line to keep that stands for another has this much of it, of a hundred.
const ALIKE: usize = 40;
/// Places of the rarest line that are looked at; in more the hunk would be ambiguous.
const PLACES: usize = 100;
/// Longest hunk aligned, in old lines.
const LONGEST: usize = 2_000;

/// Old lines, and what is asked of them.
struct Old<'b> {
    texts: Vec<&'b [u8]>,
    keys: Vec<u64>,
    /// Has to stand in the file.
    fixed: Vec<bool>,
    /// Next to lines that are only added: may be a little wrong, if the one on the other side is right.
    near: Vec<bool>,
    /// Stands right above the next one.
    tight: Vec<bool>,
}

impl<'b> Old<'b> {
    fn of(body: &Body<'b>) -> Self {
        let texts = old(body);
        let keys = texts.iter().map(|text| units::key(text)).collect();
        let no = vec![false; texts.len()];
        let (mut fixed, mut near, mut tight) = (no.clone(), no.clone(), no);
        let mut at = 0; // old lines so far
        let mut i = 0;
        while i < body.len() {
            if body[i].0 == Mark::Keep {
                at += 1;
                i += 1;
                continue;
            }
            // A block of changes: what is removed is one run in the file.
            let block = body[i..].iter().take_while(|(mark, _)| *mark != Mark::Keep);
            let (mut len, mut removed) = (0, 0);
            for (mark, _) in block {
                len += 1;
                removed += usize::from(*mark == Mark::Remove);
            }
            for line in at..at + removed {
                fixed[line] = true;
                tight[line] = line + 1 < at + removed;
            }
            if removed == 0 {
                // Only added: between lines that stand one next to the other. One of the two may be wrong, if there are two.
                let between = at > 0 && at < texts.len();
                if at > 0 {
                    (fixed[at - 1], near[at - 1], tight[at - 1]) = (true, between, between);
                }
                if at < texts.len() {
                    (fixed[at], near[at]) = (true, between);
                }
            }
            at += removed;
            i += len;
        }
        Self { texts, keys, fixed, near, tight }
    }

    fn len(&self) -> usize {
        self.texts.len()
    }

    /// The line on the other side of what is added next to this one.
    fn neighbour(&self, i: usize) -> Option<usize> {
        let below = (self.near[i] && self.tight[i]).then_some(i + 1);
        below.or_else(|| i.checked_sub(1).filter(|above| self.near[*above] && self.tight[*above]))
    }
}

/// A place where the old lines stand but for a few lines to keep.
pub(crate) struct Alignment {
    /// The file's line for each old line.
    pub(crate) lines: Vec<Option<usize>>,
    /// Those of the lines that have to be right: alignments that differ in others only are the same place.
    pub(crate) fixed: Vec<Option<usize>>,
}

/// Where the old lines stand but for a few lines to keep.
pub(crate) fn alignments(index: &Index<'_>, body: &Body<'_>) -> Vec<Alignment> {
    let old = Old::of(body);
    let keeps = old.fixed.iter().filter(|fixed| !**fixed).count();
    let anchors = (0..old.len()).filter(|i| old.fixed[*i] && index.count_of(old.texts[*i]) > 0);
    let Some(anchor) = anchors.min_by_key(|i| index.count_of(old.texts[*i])) else { return Vec::new() };
    let loose = keeps + old.near.iter().filter(|near| **near).count();
    if loose == 0 || old.len() > LONGEST || index.count_of(old.texts[anchor]) > PLACES {
        return Vec::new();
    }
    let most = MOST.min((loose / 2).max(1));
    let mut out: BTreeSet<Vec<Option<usize>>> = BTreeSet::new();
    for at in index.places_of(old.texts[anchor]) {
        for late in [false, true] {
            let aligned = Aligner { index, old: &old, most, late }.align(anchor, at);
            if let Some(lines) = aligned.filter(|lines| is_proof(index, &old, lines)) {
                out.insert(lines);
            }
        }
    }
    let fixed = |lines: &Vec<Option<usize>>| {
        lines.iter().zip(&old.fixed).filter(|(_, fixed)| **fixed).map(|(line, _)| *line).collect()
    };
    out.into_iter().map(|lines| Alignment { fixed: fixed(&lines), lines }).collect()
}

/// Whether a line to keep that the file does not have stands right beside a change, where a new line may have lost its plus. Above removed
/// lines it is one too many if the line above it stands in the file. `lines` has the file's line for each old line.
pub(crate) fn drops_beside_change(body: &Body<'_>, lines: &[Option<usize>]) -> bool {
    let mut old = lines.iter();
    let stands: Vec<bool> =
        body.iter().map(|(mark, _)| *mark != Mark::Add && old.next().is_some_and(Option::is_some)).collect();
    let mark = |i: usize| body.get(i).map(|(mark, _)| *mark);
    let lost = |i: usize| {
        let (_, text) = body[i];
        if mark(i) != Some(Mark::Keep) || stands[i] || text.trim_ascii().is_empty() {
            return false;
        }
        let above = i.checked_sub(1);
        let below_change = above.and_then(mark).is_some_and(|mark| mark != Mark::Keep);
        let held = above.is_some_and(|above| stands[above]);
        below_change || mark(i + 1) == Some(Mark::Add) || mark(i + 1) == Some(Mark::Remove) && !held
    };
    (0..body.len()).any(lost)
}

/// Whether the first lines of a hunk can still become a hunk that is placed here: for one that is not all there yet. Lines of which it is not
/// known yet whether they go count as lines to keep.
pub(crate) fn may_align(index: &Index<'_>, body: &Body<'_>) -> bool {
    let mut wrong = 0;
    for (mark, text) in body.iter().filter(|(mark, _)| *mark != Mark::Add) {
        let there = index.count_of(text) > 0;
        if !there && *mark == Mark::Remove {
            return false;
        }
        wrong += usize::from(!there);
    }
    wrong <= MOST
}

/// Whether what does stand there says that this is the place.
fn is_proof(index: &Index<'_>, old: &Old<'_>, lines: &[Option<usize>]) -> bool {
    let stands = |i: usize| lines[i].is_some_and(|at| index.is(at, old.keys[i]));
    let held = |i: usize| !old.near[i] || stands(i) || old.neighbour(i).is_some_and(stands);
    if !(0..old.len()).all(held) {
        return false;
    }
    let right = |i: &usize| stands(*i) && units::tells(old.texts[*i]);
    let keeps_right = (0..old.len()).filter(|i| !old.fixed[*i]).filter(right).count();
    let fixed_right = (0..old.len()).filter(|i| old.fixed[*i]).filter(right);
    let unique = fixed_right.clone().any(|i| index.count_of(old.texts[i]) == 1);
    let enough = fixed_right.count() > 0 && (keeps_right > 0 || unique);
    // A line that is not here but elsewhere means elsewhere.
    let elsewhere = |i: usize| !stands(i) && units::tells(old.texts[i]) && index.count_of(old.texts[i]) > 0;
    // Where all that stands above the change, or below it, is wrong, it is another place that is meant.
    let missing = |i: &usize| !old.fixed[*i] && lines[*i].is_none();
    let beside = |at: &mut dyn Iterator<Item = usize>| {
        let beside: Vec<usize> = at.take_while(|i| !old.fixed[*i]).collect();
        beside.len() > 1 && beside.iter().all(missing)
    };
    enough
        && !(0..old.len()).any(elsewhere)
        && !beside(&mut (0..old.len()))
        && !beside(&mut (0..old.len()).rev())
}

/// Aligns by costs, in a band around the anchor.
struct Aligner<'i, 'o> {
    index: &'i Index<'i>,
    old: &'o Old<'o>,
    most: usize,
    /// Of alignments that cost the same, the one that matches late.
    late: bool,
}

/// What is done at a step.
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
        (down + up <= self.most).then_some(lines)
    }

    /// From the anchor downwards or upwards; what it costs, or `None` when it costs too much.
    fn walk(&self, anchor: usize, at: usize, down: bool, lines: &mut [Option<usize>]) -> Option<usize> {
        let rows = if down { self.old.len() - anchor - 1 } else { anchor };
        let width = 2 * MOST + 1;
        // cost[row][k]: `row` old lines done, and `row + k - MOST` of the file's.
        let mut cost = vec![[usize::MAX; 2 * MOST + 1]; rows + 1];
        let mut step = vec![[Step::Match; 2 * MOST + 1]; rows + 1];
        cost[0][MOST] = 0;
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
                let Some(col) = (row + k).checked_sub(MOST) else { continue };
                if here > self.most {
                    continue;
                }
                let mut go = |row: usize, k: usize, cost_there: usize, how: Step| {
                    let better =
                        if self.late { cost_there <= cost[row][k] } else { cost_there < cost[row][k] };
                    if better {
                        (cost[row][k], step[row][k]) = (cost_there, how);
                    }
                };
                if row < rows {
                    let i = old_at(row);
                    if let Some(file) = file_at(col) {
                        if self.index.is(file, self.old.keys[i]) {
                            go(row + 1, k, here, Step::Match);
                        } else if (self.old.near[i] || !self.old.fixed[i])
                            && alike(self.index.lines.texts[file], self.old.texts[i]) >= ALIKE
                        {
                            go(row + 1, k, here + 1, Step::Replace);
                        }
                    }
                    if !self.old.fixed[i] && k > 0 {
                        go(row + 1, k - 1, here + 1, Step::SkipOld);
                    }
                    let upper = if down { i - 1 } else { i };
                    if !self.old.tight[upper] && k + 1 < width && file_at(col).is_some() {
                        go(row, k + 1, here + 1, Step::SkipFile);
                    }
                }
            }
        }
        let ends = (0..width).filter(|k| cost[rows][*k] <= self.most);
        let mut k = if self.late {
            ends.rev().min_by_key(|k| cost[rows][*k])
        } else {
            ends.min_by_key(|k| cost[rows][*k])
        }?;
        let total = cost[rows][k];
        let mut row = rows;
        while row > 0 || k != MOST {
            match step[row][k] {
                Step::Match | Step::Replace => {
                    row -= 1;
                    lines[old_at(row)] = file_at(row + k - MOST);
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
