//! Renders a change as a human-readable diff.

use serde::{Deserialize, Serialize};

/// A unified diff and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The diff with `---`, `+++` and three lines of context. Invalid UTF-8 is replaced, so the
    /// text is only for display.
    pub text: String,
    /// Number of lines added.
    pub added: usize,
    /// Number of lines removed.
    pub removed: usize,
}

/// Maximum size of a diff (differing old lines × differing new lines). The time to compute a diff
/// can grow in proportion to its size.
const MAX_DIFF_SIZE: usize = 50_000_000;

/// Renders the change from `old` to `new`; `None` means that the file does not exist. If the files
/// differ too much, only the counts are shown.
#[must_use]
pub fn preview(old: Option<&[u8]>, new: Option<&[u8]>, path: &str) -> Preview {
    let name = |side: &str, exists: bool| if exists { format!("{side}/{path}") } else { "/dev/null".into() };
    let (a, b) = (old.unwrap_or_default(), new.unwrap_or_default());
    let (from, to) = (name("a", old.is_some()), name("b", new.is_some()));
    let (removed, added) = differing(a, b);
    if removed * added > MAX_DIFF_SIZE {
        let text = format!("--- {from}\n+++ {to}\n@@ {removed} lines are replaced by {added} @@\n");
        return Preview { text, added, removed };
    }
    let mut options = diffy::DiffOptions::new();
    options.set_original_filename(from).set_modified_filename(to);
    let patch = options.create_patch_bytes(a, b);
    let (added, removed) = count(&patch);
    Preview { text: String::from_utf8_lossy(&patch.to_bytes()).into_owned(), added, removed }
}

pub(crate) fn counts(old: &[u8], new: &[u8]) -> (usize, usize) {
    let (removed, added) = differing(old, new);
    if removed * added > MAX_DIFF_SIZE {
        (added, removed)
    } else {
        count(&diffy::create_patch_bytes(old, new))
    }
}

fn count(patch: &diffy::Patch<'_, [u8]>) -> (usize, usize) {
    patch.hunks().iter().flat_map(|h| h.lines()).fold((0, 0), |(a, r), line| match line {
        diffy::Line::Insert(_) => (a + 1, r),
        diffy::Line::Delete(_) => (a, r + 1),
        diffy::Line::Context(_) => (a, r),
    })
}

/// Counts the lines of each file, excluding those that both files share at the start and at the
/// end.
fn differing(old: &[u8], new: &[u8]) -> (usize, usize) {
    let lines = |bytes: &[u8]| bytes.split_inclusive(|b| *b == b'\n').count();
    let same = |(a, b): &(&[u8], &[u8])| a == b;
    let split = |bytes| <[u8]>::split_inclusive(bytes, |b: &u8| *b == b'\n');
    let first = split(old).zip(split(new)).take_while(same).count();
    let last = split(old).rev().zip(split(new).rev()).take_while(same).count();
    let (old, new) = (lines(old), lines(new));
    let common = (first + last).min(old).min(new);
    (old - common, new - common)
}
