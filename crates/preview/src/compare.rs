//! Compares two versions of a file line by line.

use similar::{Algorithm, DiffOp, DiffTag};

use super::{FileChange, Image};

/// The number of unchanged lines to show around a change, as in git.
const CONTEXT: usize = 3;
/// The number of bytes to inspect to distinguish binary files from text, as in git.
const SNIFF: usize = 8_000;

/// Two versions of a file, line by line.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// The lines, with their newlines.
    pub(super) old: Vec<&'a [u8]>,
    pub(super) new: Vec<&'a [u8]>,
    /// The changes, with the lines around them.
    pub(super) hunks: Vec<Vec<DiffOp>>,
    pub(super) added: usize,
    pub(super) removed: usize,
    /// Whether either side is binary. If so, nothing is compared.
    pub(super) binary: bool,
    /// Whether every line on both sides ends in CR LF. If so, the CR is not shown.
    pub(super) crlf: bool,
}

impl Comparison<'_> {
    pub(super) fn has_lines(&self) -> bool {
        !self.hunks.is_empty()
    }

    /// Returns the width of the line number column: the number of digits in the largest number
    /// shown, but at least 3.
    pub(super) fn digits(&self) -> usize {
        let last = |op: &DiffOp| op.old_range().end.max(op.new_range().end);
        let last = self.hunks.last().and_then(|hunk| hunk.last()).map_or(1, last);
        last.to_string().len().max(3)
    }
}

/// Compares the two sides. To bound the running time, the result may not be minimal if the files
/// are very different, but it is always correct.
pub(super) fn compare(change: &FileChange) -> Comparison<'_> {
    let (before, after) = (bytes(&change.before), bytes(&change.after));
    let binary = is_binary(before) || is_binary(after);
    let (old, new) = if binary { (Vec::new(), Vec::new()) } else { (split(before), split(after)) };
    let ops =
        if before == after { Vec::new() } else { similar::capture_diff_slices(Algorithm::Myers, &old, &new) };
    let changed = |op: &&DiffOp| op.tag() != DiffTag::Equal;
    let added = ops.iter().filter(changed).map(|op| op.new_range().len()).sum();
    let removed = ops.iter().filter(changed).map(|op| op.old_range().len()).sum();
    let hunks = if added + removed == 0 { Vec::new() } else { similar::group_diff_ops(ops, CONTEXT) };
    let crlf = old.iter().chain(&new).all(|line| line.ends_with(b"\r\n"));
    Comparison { old, new, hunks, added, removed, binary, crlf }
}

fn bytes(image: &Option<Image>) -> &[u8] {
    image.as_ref().map_or(&[], |image| &image.bytes)
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(SNIFF).any(|b| *b == 0)
}
