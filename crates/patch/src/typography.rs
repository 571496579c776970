//! Added lines in the file's typography and spacing, where the patch has the file's own lines in another.
//!
//! What an added line has in common with the line it replaces is taken from the file; other characters are changed as they were everywhere
//! in the old lines.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::units::{Unit, plain, units};

/// Units of a line times units of another up to which they are compared.
const LARGEST: usize = 1_000_000;

/// How characters of the patch are written in the file.
#[derive(Debug, Default)]
pub(crate) struct Typography<'a> {
    /// `None` when the file has it in several ways.
    written: BTreeMap<&'a [u8], Option<&'a [u8]>>,
    differs: bool,
    /// The patch has typographic characters where the file has those of a keyboard.
    invented: bool,
}

impl<'a> Typography<'a> {
    /// A line of the file and the same line as the patch has it.
    pub(crate) fn add(&mut self, file: &'a [u8], patch: &'a [u8]) {
        let (file, patch) = (units(file), units(patch));
        let typographic = |units: &[Unit<'_>]| units.iter().any(|u| plain(u.raw).is_some());
        self.invented |= typographic(&patch) && !typographic(&file);
        if !same(&file, &patch) {
            return;
        }
        for (here, there) in file.iter().zip(&patch) {
            self.differs |= here.raw != there.raw;
            let written = self.written.entry(there.raw).or_insert(Some(here.raw));
            if *written != Some(here.raw) {
                *written = None;
            }
        }
    }

    /// An added line as the file would have it; `replaced` is the line in its place, in the file and in the patch.
    pub(crate) fn apply(&self, added: &[u8], replaced: Option<(&[u8], &[u8])>) -> Vec<u8> {
        let line = units(added);
        if !(self.differs || self.invented) || line.is_empty() {
            return added.to_vec();
        }
        let (first, last) = (line[0].raw, line[line.len() - 1].raw);
        let start = first.as_ptr() as usize - added.as_ptr() as usize;
        let end = last.as_ptr() as usize - added.as_ptr() as usize + last.len();
        let mut out = crate::units::plain(&added[..start]).unwrap_or_else(|| added[..start].to_vec());
        // A keyboard's own character may stand for itself, however the old lines happen to have it.
        let means_itself = |unit: &Unit<'_>| unit.raw.is_ascii() && *unit.normal != *b" ";
        let written = |unit: &Unit<'_>| self.written.get(unit.raw).copied().flatten().map(<[u8]>::to_vec);
        let other = |unit: &Unit<'_>| {
            let known = if means_itself(unit) { None } else { written(unit) };
            known.unwrap_or_else(|| self.unknown(unit))
        };
        let pair = replaced.map(|(file, patch)| (units(file), units(patch)));
        match pair.filter(|(file, patch)| same(file, patch) && patch.len() * line.len() <= LARGEST) {
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

    /// A character that the old lines do not have: the keyboard's, if the patch has others where the file has those.
    fn unknown(&self, unit: &Unit<'_>) -> Vec<u8> {
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
