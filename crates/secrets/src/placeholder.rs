//! Placeholders for secrets: `[secret-`, six hex digits of a hash, and `]`. A placeholder is not a
//! valid regular expression, so the search tool takes it literally.

use std::ops::Range;

use sha2::{Digest, Sha256};

const HEAD: &[u8] = b"[secret-";
/// The number of hex digits of the hash. Six digits (24 bits) distinguish the values of a session,
/// and reveal next to nothing about a value that could be guessed.
const DIGITS: usize = 6;
const LENGTH: usize = HEAD.len() + DIGITS + 1;

/// The placeholder for a value.
pub(crate) fn name(salt: &str, value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(salt.as_bytes());
    hash.update([0]);
    hash.update(value);
    let hash = hash.finalize();
    format!("[secret-{:02x}{:02x}{:02x}]", hash[0], hash[1], hash[2])
}

/// The spans of all placeholders.
pub(crate) fn all(text: &[u8]) -> Vec<Range<usize>> {
    let is = |at: &usize| {
        text.get(at + HEAD.len()..at + LENGTH).is_some_and(|rest| {
            let (digits, end) = rest.split_at(DIGITS);
            end == b"]" && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    memchr::memmem::find_iter(text, HEAD).filter(is).map(|at| at..at + LENGTH).collect()
}

/// Whether a text contains `[secret-`, with which every placeholder starts.
#[must_use]
pub fn may_contain_placeholder(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), HEAD).is_some()
}

/// The first placeholder that the model did not copy exactly: `[secret-` without six hex digits and
/// `]` after it.
pub(crate) fn broken(text: &str) -> Option<&str> {
    let whole = all(text.as_bytes());
    let starts = memchr::memmem::find_iter(text.as_bytes(), HEAD);
    let mut broken = starts.filter(|at| whole.iter().all(|span| span.start != *at));
    let rest = &text[broken.next()?..];
    Some(rest.char_indices().nth(LENGTH).map_or(rest, |(end, _)| &rest[..end]))
}

/// The first placeholder in a text.
#[must_use]
pub fn first(text: &str) -> Option<&str> {
    all(text.as_bytes()).into_iter().next().map(|span| &text[span])
}
