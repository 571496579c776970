//! Finds keys, tokens and passwords in text, replaces them with short placeholders, and restores
//! them.
//!
//! Secrets are recognized in three ways: by shape (`shapes.rs`: a vendor's prefix, a private key
//! block, the password in a URL), by the name they are assigned to (`assigned.rs`:
//! `DB_PASSWORD=…`), and by value. The values to search for are those of secret environment
//! variables, including their common encodings ([`known`]), and all secrets found earlier. Text
//! without secrets is returned without being copied.
//!
//! A placeholder is derived from the value and the session's id. The same value always gets the
//! same placeholder, so a resumed run produces the same text. Different values almost always get
//! different placeholders; if two values get the same placeholder, it cannot be restored. Masking
//! text that is already masked changes nothing. The number of lines stays the same: each line of a
//! private key gets its own placeholder.
//!
//! This crate reads neither files nor environment variables. The running time is linear in the
//! length of the text.
//!
//! ```
//! let secrets = secrets::Secrets::new("session", Vec::new());
//! let file = concat!("key = 'ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv'\n"); // split, so that scanners ignore this file
//! let shown = secrets.mask(file);
//! assert!(shown.starts_with("key = '[secret-") && shown.ends_with("]'\n"));
//! // Another process can restore the value from the file alone.
//! let other = secrets::Secrets::new("session", Vec::new());
//! other.learn(file.as_bytes());
//! assert_eq!(other.restore(&shown, &[]).unwrap(), file);
//! ```

mod assigned;
pub mod known;
mod placeholder;
mod scan;
mod shapes;
mod stream;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aho_corasick::{AhoCorasick, MatchKind};

pub use placeholder::{first as first_placeholder, may_contain_placeholder};
pub use stream::Stream;

/// The maximum number of found values to search for in later text. A session usually finds only a
/// few. If a file contains thousands of tokens, all of them are still masked based on their shape.
const MAX_LEARNED: usize = 2_000;
/// The maximum number of placeholders that can be restored.
const MAX_PLACEHOLDERS: usize = 100_000;
/// The minimum length, in bytes, of a found value to search for in later text. Shorter values could
/// be parts of words.
const MIN_LEARNED_LEN: usize = 8;

/// The secrets of a session. Clones share what they learn.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Inner>>);

struct Inner {
    salt: String,
    /// The number of known values, not counting their encoded forms.
    variables: usize,
    /// The known values, in all encodings.
    known: Option<Values>,
    found: Mutex<Found>,
    explained: AtomicBool,
}

/// The values found in the text of this session.
#[derive(Default)]
struct Found {
    /// Values by placeholder; `None` if two values share the placeholder.
    values: HashMap<String, Option<Vec<u8>>>,
    /// The values to search for. `matcher` finds them; it is `None` if it must be rebuilt.
    searched: Vec<Vec<u8>>,
    matcher: Option<Option<AhoCorasick>>,
}

/// Values and the matcher that finds them.
#[derive(Clone)]
pub(crate) struct Values {
    pub(crate) all: Arc<[Vec<u8>]>,
    matcher: AhoCorasick,
}

impl std::fmt::Debug for Secrets {
    /// Does not reveal any value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("on", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Creates an instance for a session. The `session` id makes the placeholders unique to the
    /// session. `known` lists values that are secret wherever they occur (see
    /// [`known::secret_values`]).
    #[must_use]
    pub fn new(session: &str, known: Vec<String>) -> Self {
        let mut all: Vec<Vec<u8>> = known.iter().flat_map(|v| known::encodings(v)).collect();
        all.sort();
        all.dedup();
        let variables = known.len();
        let known = matcher(&all).map(|matcher| Values { all: all.into(), matcher });
        let (found, explained) = (Mutex::default(), AtomicBool::new(false));
        Self(Some(Arc::new(Inner { salt: session.to_owned(), variables, known, found, explained })))
    }

    /// Creates an instance that masks and restores nothing. This is also the default.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Returns whether masking is enabled.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Masks every secret in the text.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(into_text(bytes)),
        }
    }

    /// Like [`Secrets::mask`], but for bytes that may not be UTF-8.
    #[must_use]
    pub fn mask_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(inner) = &self.0 else { return Cow::Borrowed(text) };
        let mut text = Cow::Borrowed(text);
        // After one value is masked, the text next to it may be recognized as a secret, too. The
        // bound on the number of passes is only a safeguard.
        for _ in 0..16 {
            let mut spans = scan::find(&text);
            inner.find_known(&text, &mut spans);
            inner.find_learned(&text, &mut spans);
            match inner.masked(&text, spans) {
                Some(masked) => text = Cow::Owned(masked),
                None => break,
            }
        }
        text
    }

    /// Masks only the known values. Use this for text that the model writes and for text that is
    /// recorded.
    #[must_use]
    pub fn mask_known<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(inner) = self.0.as_ref().filter(|inner| inner.known.is_some()) else {
            return Cow::Borrowed(text);
        };
        let mut spans = Vec::new();
        inner.find_known(text, &mut spans);
        inner.masked(text, spans).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Remembers the secrets in the text.
    pub fn learn(&self, text: &[u8]) {
        let _ = self.mask_bytes(text);
    }

    /// Like [`Secrets::mask_known`], but for text that arrives in pieces. Returns `None` if there
    /// are no known values.
    #[must_use]
    pub fn mask_stream(&self) -> Option<Stream> {
        let inner = self.0.as_ref()?;
        Some(Stream::new(self.clone(), inner.known.clone()?))
    }

    /// Replaces placeholders with the values they stand for. A placeholder that does not stand for
    /// any value is kept if it occurs in one of the files in `literal`.
    ///
    /// # Errors
    /// Fails with a sentence for the model if a placeholder is unknown or incomplete, or stands for
    /// two values.
    pub fn restore<'a>(&self, text: &'a str, literal: &[&[u8]]) -> Result<Cow<'a, str>, String> {
        let Some(inner) = &self.0 else { return Ok(Cow::Borrowed(text)) };
        if !may_contain_placeholder(text) {
            return Ok(Cow::Borrowed(text));
        }
        let spans = placeholder::all(text.as_bytes());
        let found = inner.found();
        let is_literal =
            |name: &str| literal.iter().any(|file| memchr::memmem::find(file, name.as_bytes()).is_some());
        // If nothing was masked, an incomplete placeholder is not an error: the text may be about
        // placeholders.
        if let Some(broken) = placeholder::broken(text).filter(|b| !found.values.is_empty() && !is_literal(b))
        {
            return Err(format!(
                "{broken:?} is not a complete placeholder; copy placeholders exactly as the file shows them"
            ));
        }
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        for span in spans {
            let name = &text[span.clone()];
            out.extend_from_slice(&text.as_bytes()[at..span.start]);
            at = span.end;
            match found.values.get(name) {
                Some(Some(value)) => out.extend_from_slice(value),
                Some(None) => {
                    return Err(format!(
                        "{name} stands for two different values and cannot be restored; leave the lines with it unchanged"
                    ));
                }
                None if is_literal(name) => {
                    out.extend_from_slice(name.as_bytes());
                }
                None => {
                    return Err(format!(
                        "{name} is not the placeholder for any value in the files of this call; copy placeholders exactly as the file shows them"
                    ));
                }
            }
        }
        out.extend_from_slice(&text.as_bytes()[at..]);
        Ok(Cow::Owned(into_text(out)))
    }

    /// Returns the number of values masked so far.
    #[must_use]
    pub fn masked_count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.found().values.len())
    }

    /// Returns the number of secrets that are known by value, such as those in environment
    /// variables.
    #[must_use]
    pub fn known_count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.variables)
    }

    /// Records that the reader has been told what a placeholder is. Returns true only on the first
    /// call.
    pub fn mark_explained(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.explained.swap(true, Ordering::Relaxed))
    }
}

impl Inner {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the text with these spans masked, or `None` if there is nothing to mask.
    fn masked(&self, text: &[u8], spans: Vec<Range<usize>>) -> Option<Vec<u8>> {
        let spans = maskable(text, spans);
        if spans.is_empty() {
            return None;
        }
        let mut found = self.found();
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        for span in spans {
            let value = &text[span.clone()];
            let name = placeholder::name(&self.salt, value);
            found.remember(&name, value);
            out.extend_from_slice(&text[at..span.start]);
            out.extend_from_slice(name.as_bytes());
            at = span.end;
        }
        out.extend_from_slice(&text[at..]);
        Some(out)
    }

    fn find_known(&self, text: &[u8], spans: &mut Vec<Range<usize>>) {
        if let Some(values) = &self.known {
            spans.extend(values.matcher.find_iter(text).map(|m| m.range()));
        }
    }

    fn find_learned(&self, text: &[u8], spans: &mut Vec<Range<usize>>) {
        let matcher = {
            let mut found = self.found();
            let found = &mut *found;
            found.matcher.get_or_insert_with(|| matcher(&found.searched)).clone() // a clone shares the tables
        };
        if let Some(matcher) = matcher {
            spans.extend(matcher.find_iter(text).map(|m| m.range()));
        }
    }
}

impl Found {
    fn remember(&mut self, name: &str, value: &[u8]) {
        let has_room = self.values.len() < MAX_PLACEHOLDERS;
        match self.values.get_mut(name) {
            Some(had) if had.as_deref() != Some(value) => *had = None,
            Some(_) => {}
            None if has_room => {
                self.values.insert(name.to_owned(), Some(value.to_owned()));
                if value.len() >= MIN_LEARNED_LEN && self.searched.len() < MAX_LEARNED {
                    self.searched.push(value.to_owned());
                    self.matcher = None;
                }
            }
            None => {}
        }
    }
}

/// Builds a matcher that prefers the longest value. Returns `None` if there are no values.
fn matcher(values: &[Vec<u8>]) -> Option<AhoCorasick> {
    if values.is_empty() {
        return None;
    }
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(values).ok()
}

/// Sorts and merges spans, splits them at line breaks, and drops those that overlap a placeholder.
fn maskable(text: &[u8], mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if spans.is_empty() {
        return spans;
    }
    let masked = placeholder::all(text);
    spans.retain(|span| {
        let next = masked.partition_point(|m| m.end <= span.start);
        masked.get(next).is_none_or(|m| m.start >= span.end)
    });
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    let lines = |span: Range<usize>| {
        let mut at = span.start;
        let pieces: Vec<Range<usize>> = text[span]
            .split(|b| *b == b'\n')
            .map(|line| {
                let from = at;
                at += line.len() + 1;
                from..from + line.strip_suffix(b"\r").unwrap_or(line).len()
            })
            .filter(|piece| !piece.is_empty())
            .collect();
        pieces
    };
    merged.into_iter().flat_map(lines).collect()
}

/// Converts bytes to text. Secrets start and end at character boundaries, so nothing is lost.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_of_two_values_is_not_restored() {
        let secrets = Secrets::new("s", Vec::new());
        let inner = secrets.0.as_ref().unwrap();
        inner.found().remember("[secret-0a1b2c]", b"one value");
        assert_eq!(secrets.restore("x [secret-0a1b2c]", &[]).unwrap(), "x one value");
        inner.found().remember("[secret-0a1b2c]", b"another value");
        assert!(
            secrets
                .restore("x [secret-0a1b2c]", &[])
                .unwrap_err()
                .contains("stands for two different values")
        );
    }
}
