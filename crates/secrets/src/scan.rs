//! Finds secrets in a single pass over the text: searches for anchors, and examines the text around
//! each of them. An anchor is either the beginning of a shape or the end of a name that secrets are
//! assigned to.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::{assigned, shapes};

/// Searches for all anchors, ignoring case. The anchors of shapes come first, then those of names.
static ANCHORS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let anchors = shapes::anchors().chain(assigned::NAMES.split(' '));
    AhoCorasick::builder().ascii_case_insensitive(true).build(anchors).ok()
});

/// Returns the spans of all secrets, unordered and possibly overlapping.
pub(crate) fn find(text: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let Some(anchors) = &*ANCHORS else { return spans };
    let shapes = shapes::anchors().count();
    for m in anchors.find_overlapping_iter(text) {
        let index = m.pattern().as_usize();
        match index.checked_sub(shapes) {
            None => shapes::judge(index, text, m.range(), &mut spans),
            Some(_) => spans.extend(assigned::judge(text, m.range())),
        }
    }
    spans
}

/// Returns the number of consecutive bytes, starting at `from`, that satisfy `of`, up to `limit`.
pub(crate) fn run(text: &[u8], from: usize, limit: usize, of: impl Fn(u8) -> bool) -> usize {
    text[from..].iter().take(limit).take_while(|b| of(**b)).count()
}

/// Returns whether a byte can be part of a word. Such a byte cannot directly precede a secret.
pub(crate) fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
