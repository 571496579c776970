//! Placeholders for secrets: `[secret-`, six hex digits of a hash, and `]`. A placeholder is not a
//! valid regular expression, so the search tool treats it as literal text.

use std::ops::Range;

use sha2::{Digest, Sha256};

const HEAD: &[u8] = b"[secret-";
/// The number of hex digits of the hash. Six digits (24 bits) are enough to distinguish the values
/// in a session, but reveal next to nothing about a value that could be guessed.
const DIGITS: usize = 6;
const LENGTH: usize = HEAD.len() + DIGITS + 1;

/// Returns the placeholder for a value.
pub(crate) fn name(salt: &str, value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(salt.as_bytes());
    hash.update([0]);
    hash.update(value);
    let hash = hash.finalize();
    format!("[secret-{:02x}{:02x}{:02x}]", hash[0], hash[1], hash[2])
}

/// Returns the spans of all placeholders.
pub(crate) fn all(text: &[u8]) -> Vec<Range<usize>> {
    let is = |at: &usize| {
        text.get(at + HEAD.len()..at + LENGTH).is_some_and(|rest| {
            let (digits, end) = rest.split_at(DIGITS);
            end == b"]" && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    memchr::memmem::find_iter(text, HEAD).filter(is).map(|at| at..at + LENGTH).collect()
}

/// Returns whether the text contains `[secret-`, which every placeholder starts with.
#[must_use]
pub fn may_contain_placeholder(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), HEAD).is_some()
}

/// Returns the first placeholder that the model did not copy exactly: `[secret-` that is not
/// followed by six hex digits and `]`.
pub(crate) fn broken(text: &str) -> Option<&str> {
    let whole = all(text.as_bytes());
    let starts = memchr::memmem::find_iter(text.as_bytes(), HEAD);
    let mut broken = starts.filter(|at| whole.iter().all(|span| span.start != *at));
    let rest = &text[broken.next()?..];
    Some(rest.char_indices().nth(LENGTH).map_or(rest, |(end, _)| &rest[..end]))
}

/// Returns the first placeholder in the text.
#[must_use]
pub fn first(text: &str) -> Option<&str> {
    all(text.as_bytes()).into_iter().next().map(|span| &text[span])
}
