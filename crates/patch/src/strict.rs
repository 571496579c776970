//! Uses `diffy` to apply a unified diff that matches byte for byte.
//!
//! diffy ends a hunk when the counts in its header are reached and ignores further lines, so the
//! headers are regenerated from the actual lines. It also moves hunks to the nearest match, so it
//! is used only if every hunk matches at the line number in its header.

use crate::{Hunk, Line, Mark, applied, body::body, index::Index};

/// Returns the patched file if every hunk matches exactly at the line number in its header.
/// Otherwise returns `None`, which leaves the decision to the ladder.
pub(crate) fn apply(index: &Index<'_>, hunks: &[Hunk]) -> Option<Vec<u8>> {
    let original = index.lines.bytes;
    let starts = line_starts(original);
    let mut text = b"--- a\n+++ b\n".to_vec();
    let mut delta = 0isize;
    let mut free = 0;
    for hunk in hunks {
        let first = hunk.start?.checked_sub(1)?;
        if first < free || doubles(index, hunk, first) {
            return None;
        }
        let (added, removed) = hunk.counts();
        let kept = hunk.lines.len() - added - removed;
        if kept + removed == 0 {
            return None;
        }
        for (i, line) in hunk.lines.iter().filter(|l| l.mark != Mark::Add).enumerate() {
            let start = *starts.get(first + i)?;
            let end = starts.get(first + i + 1).copied().unwrap_or(original.len());
            let here = &original[start..end];
            let same = match here.strip_suffix(b"\n") {
                Some(here) => line.newline && here == line.text,
                None => !line.newline && here == line.text,
            };
            if !same {
                return None;
            }
        }
        free = first + kept + removed;
        let new_start = (first + 1).checked_add_signed(delta)?;
        // For an empty range, the header contains the number of the line before the range.
        let new_start = if kept + added == 0 { new_start.checked_sub(1)? } else { new_start };
        let header = format!("@@ -{},{} +{},{} @@\n", first + 1, kept + removed, new_start, kept + added);
        text.extend_from_slice(header.as_bytes());
        for line in &hunk.lines {
            text.push(match line.mark {
                Mark::Keep => b' ',
                Mark::Remove => b'-',
                Mark::Add => b'+',
            });
            text.extend_from_slice(&line.text);
            text.extend_from_slice(if line.newline { b"\n" } else { b"\n\\ No newline at end of file\n" });
        }
        delta += added as isize - removed as isize;
    }
    let patch = diffy::Patch::from_bytes(&text).ok().filter(|p| p.hunks().len() == hunks.len())?;
    diffy::apply_bytes(original, &patch).ok()
}

fn line_starts(bytes: &[u8]) -> Vec<usize> {
    let after = memchr::memchr_iter(b'\n', bytes).map(|n| n + 1);
    std::iter::once(0).chain(after).filter(|s| *s < bytes.len()).collect()
}

fn doubles(index: &Index<'_>, hunk: &Hunk, first: usize) -> bool {
    let edge = |line: Option<&Line>| line.is_some_and(|l| l.mark == Mark::Add);
    if !edge(hunk.lines.first()) && !edge(hunk.lines.last()) {
        return false;
    }
    applied::at_line(index, &body(hunk), first)
}
