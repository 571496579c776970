//! One pass over a text for everything that a secret may begin with; what is found is judged where it stands, with a bounded look around.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::{assigned, shapes};

/// Everything that is looked for, lower-case and not: shapes first, then names.
static ANCHORS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let anchors = shapes::anchors().chain(assigned::NAMES.iter().copied());
    AhoCorasick::builder().ascii_case_insensitive(true).build(anchors).ok()
});

/// Where secrets stand, in no order; they may overlap.
pub(crate) fn find(text: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let Some(anchors) = &*ANCHORS else { return spans };
    let shapes = shapes::anchors().count();
    for m in anchors.find_overlapping_iter(text) {
        let which = m.pattern().as_usize();
        match which.checked_sub(shapes) {
            None => shapes::judge(which, text, m.range(), &mut spans),
            Some(_) => spans.extend(assigned::judge(text, m.range())),
        }
    }
    spans
}

/// How many bytes from here on are of a kind, up to a limit.
pub(crate) fn run(text: &[u8], from: usize, limit: usize, of: impl Fn(u8) -> bool) -> usize {
    text[from..].iter().take(limit).take_while(|b| of(**b)).count()
}

/// A part of a word: what stands before a secret is none.
pub(crate) fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
