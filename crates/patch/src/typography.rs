//! Adapts the typography and spacing of added lines when the patch and the file write the same
//! lines differently.
//!
//! Text that an added line shares with the line it replaces is copied from the file. In the rest
//! of the added line, each character takes the form that it has in the file's old lines.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::units::{Unit, plain, units};

/// Maximum size of the diff of two lines (units of one line × units of the other).
const MAX_DIFF_SIZE: usize = 1_000_000;

/// How the file writes the characters used in the patch.
#[derive(Debug, Default)]
pub(crate) struct Typography<'a> {
    /// For each unit in the patch's old lines, how the file writes that unit; `None` if the file
    /// writes it in several ways.
    written: BTreeMap<&'a [u8], Option<&'a [u8]>>,
    differs: bool,
    /// Whether the patch has typographic characters where the file has plain ones.
    invented: bool,
}

impl<'a> Typography<'a> {
    /// Records how the file and the patch each write the same line.
    pub(crate) fn add(&mut self, file: &'a [u8], patch: &'a [u8]) {
        let (file, patch) = (units(file), units(patch));
        let typographic = |units: &[Unit<'_>]| units.iter().any(|u| plain(u.raw).is_some());
        self.invented |= typographic(&patch) && !typographic(&file);
        if !same(&file, &patch) {
            return;
        }
        for (ours, theirs) in file.iter().zip(&patch) {
            self.differs |= ours.raw != theirs.raw;
            let written = self.written.entry(theirs.raw).or_insert(Some(ours.raw));
            if *written != Some(ours.raw) {
                *written = None;
            }
        }
    }

    /// Returns an added line as the file would write it. `replaced` is the line that the added line
    /// replaces, first as written in the file and then as written in the patch.
    pub(crate) fn apply(&self, added: &[u8], replaced: Option<(&[u8], &[u8])>) -> Vec<u8> {
        let line = units(added);
        if !(self.differs || self.invented) || line.is_empty() {
            return added.to_vec();
        }
        let (first, last) = (line[0].raw, line[line.len() - 1].raw);
        let start = first.as_ptr() as usize - added.as_ptr() as usize;
        let end = last.as_ptr() as usize - added.as_ptr() as usize + last.len();
        let mut out = crate::units::plain(&added[..start]).unwrap_or_else(|| added[..start].to_vec());
        // A plain character may be intentional, even if the old lines write it differently.
        let means_itself = |unit: &Unit<'_>| unit.raw.is_ascii() && *unit.normal != *b" ";
        let written = |unit: &Unit<'_>| self.written.get(unit.raw).copied().flatten().map(<[u8]>::to_vec);
        let other = |unit: &Unit<'_>| {
            let known = if means_itself(unit) { None } else { written(unit) };
            known.unwrap_or_else(|| self.write_unknown(unit))
        };
        let pair = replaced.map(|(file, patch)| (units(file), units(patch)));
        match pair.filter(|(file, patch)| same(file, patch) && patch.len() * line.len() <= MAX_DIFF_SIZE) {
            None => line.iter().for_each(|unit| out.extend(other(unit))),
            Some((file, patch)) => {
                let raw = |units: &[Unit<'_>]| units.iter().map(|u| u.raw.to_vec()).collect::<Vec<_>>();
                for op in capture_diff_slices(Algorithm::Myers, &raw(&patch), &raw(&line)) {
                    match op {
                        DiffOp::Equal { old_index, len, .. } => {
                            file[old_index..old_index + len]
                                .iter()
                                .for_each(|u| out.extend_from_slice(u.raw));
                        }
                        op => line[op.new_range()].iter().for_each(|unit| out.extend(other(unit))),
                    }
                }
            }
        }
        out.extend_from_slice(&added[end..]);
        out
    }

    /// Returns how to write a unit that does not occur in the old lines. If the patch wrote the old
    /// lines with typographic characters where the file has plain characters, the unit becomes
    /// plain too.
    fn write_unknown(&self, unit: &Unit<'_>) -> Vec<u8> {
        if self.invented && !unit.raw.is_ascii() && unit.normal.is_ascii() {
            plain(unit.raw).unwrap_or_else(|| unit.raw.to_vec())
        } else {
            unit.raw.to_vec()
        }
    }
}

fn same(a: &[Unit<'_>], b: &[Unit<'_>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.normal == b.normal)
}
