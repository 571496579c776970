//! A change as people read it.

use serde::{Deserialize, Serialize};

/// A unified diff and its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// With `---`, `+++` and three lines of context; bytes that are not UTF-8 are replaced, so it is for people only.
    pub text: String,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// Shows what changes from `old` to `new`; `None` for a file that is not there.
#[must_use]
pub fn preview(old: Option<&[u8]>, new: Option<&[u8]>, path: &str) -> Preview {
    let name = |side: &str, there: bool| if there { format!("{side}/{path}") } else { "/dev/null".into() };
    let (a, b) = (old.unwrap_or_default(), new.unwrap_or_default());
    let mut options = diffy::DiffOptions::new();
    options.set_original_filename(name("a", old.is_some())).set_modified_filename(name("b", new.is_some()));
    let text = String::from_utf8_lossy(&options.create_patch_bytes(a, b).to_bytes()).into_owned();
    let (added, removed) = counts(a, b);
    Preview { text, added, removed }
}

/// Lines added and removed.
pub(crate) fn counts(old: &[u8], new: &[u8]) -> (usize, usize) {
    let patch = diffy::create_patch_bytes(old, new);
    patch.hunks().iter().flat_map(|h| h.lines()).fold((0, 0), |(a, r), line| match line {
        diffy::Line::Insert(_) => (a + 1, r),
        diffy::Line::Delete(_) => (a, r + 1),
        diffy::Line::Context(_) => (a, r),
    })
}
