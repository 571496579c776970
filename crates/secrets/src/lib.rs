//! Finds keys, tokens and passwords in text and replaces them by short placeholders; puts the values back where they belong.
//!
//! What is a secret is known in three ways: by its shape ([`shapes`]: a vendor's prefix, a private key block, the password of an address), by the
//! name that it is given to (`DB_PASSWORD=…`, [`assigned`]), and by its value: those of variables that say so ([`known`]), in the usual encodings,
//! and those that were found once ([`Secrets::mask`] remembers). Text that holds no secret is returned as it is, without a copy.
//!
//! A placeholder is made of the value and the session's id: two values are told apart, the same one is called the same everywhere, and a run
//! that is taken up again says the same. Masking what is masked changes nothing. It keeps the number of lines: of a private key each line has a
//! placeholder of its own.
//!
//! Pure: this crate reads no file and no variable. Time is linear in the text.
//!
//! ```
//! let secrets = secrets::Secrets::new("session", Vec::new());
//! let file = concat!("key = 'ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv'\n"); // in two, for scanners of this file
//! let shown = secrets.mask(file);
//! assert!(shown.starts_with("key = '[secret-") && shown.ends_with("]'\n"));
//! // Another process, which knows nothing but the file, can put the value back.
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

pub use placeholder::{first as first_placeholder, hinted};
pub use stream::Stream;

/// Values found in texts that are looked for everywhere from then on. A session meets a few; a dump of thousands of tokens is still
/// masked where it stands, by its shapes.
const LEARNED: usize = 2_000;
/// Placeholders that can be put back.
const REMEMBERED: usize = 100_000;
/// Shorter values are not looked for elsewhere: they may be parts of words.
const LEAST: usize = 8;

/// The secrets of a session. Clones share what they learn.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Inner>>);

struct Inner {
    salt: String,
    /// How many variables have a secret.
    variables: usize,
    /// Values of variables, in their encodings.
    known: Option<Values>,
    found: Mutex<Found>,
    told: AtomicBool,
}

/// What was found in this session.
#[derive(Default)]
struct Found {
    /// Values by placeholder. `None` where two values have the same one.
    values: HashMap<String, Option<Vec<u8>>>,
    /// Those to be looked for, and their matcher where it is up to date.
    wanted: Vec<Vec<u8>>,
    matcher: Option<Option<AhoCorasick>>,
}

/// Values and what finds them.
#[derive(Clone)]
pub(crate) struct Values {
    pub(crate) all: Arc<[Vec<u8>]>,
    matcher: AhoCorasick,
}

impl std::fmt::Debug for Secrets {
    /// Says nothing of the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("on", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// With placeholders that belong to a session, and values that are secret wherever they stand (see [`known::values`]).
    #[must_use]
    pub fn new(session: &str, known: Vec<String>) -> Self {
        let mut all: Vec<Vec<u8>> = known.iter().flat_map(|v| known::encodings(v)).collect();
        all.sort();
        all.dedup();
        let variables = known.len();
        let known = matcher(&all).map(|matcher| Values { all: all.into(), matcher });
        let (found, told) = (Mutex::default(), AtomicBool::new(false));
        Self(Some(Arc::new(Inner { salt: session.to_owned(), variables, known, found, told })))
    }

    /// Masks nothing and puts nothing back. Also the default.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether anything is masked.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Masks every secret in a text.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(into_text(bytes)),
        }
    }

    /// The same for bytes that need not be UTF-8.
    #[must_use]
    pub fn mask_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(inner) = &self.0 else { return Cow::Borrowed(text) };
        let mut text = Cow::Borrowed(text);
        // What a secret was glued to may be seen for one now. Each round leaves less; the bound is for peace of mind.
        for _ in 0..16 {
            let mut spans = scan::find(&text);
            inner.known(&text, &mut spans);
            inner.learned(&text, &mut spans);
            match inner.masked(&text, spans) {
                Some(masked) => text = Cow::Owned(masked),
                None => break,
            }
        }
        text
    }

    /// Masks the values of known variables only: for what the model says itself, and for what is written down of it.
    #[must_use]
    pub fn mask_known<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(inner) = self.0.as_ref().filter(|inner| inner.known.is_some()) else {
            return Cow::Borrowed(text);
        };
        let mut spans = Vec::new();
        inner.known(text, &mut spans);
        inner.masked(text, spans).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Remembers the secrets of a text, without a copy of it for anybody.
    pub fn learn(&self, text: &[u8]) {
        let _ = self.mask_bytes(text);
    }

    /// A text that arrives in pieces, for [`Secrets::mask_known`]; `None` when there is nothing to look for.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        let inner = self.0.as_ref()?;
        Some(Stream::new(self.clone(), inner.known.clone()?))
    }

    /// Puts the values back for which placeholders stand: those of secrets that were found before. A placeholder that one of `literal` holds as
    /// it is means itself.
    ///
    /// # Errors
    /// When one stands for nothing that is known: a sentence for the model.
    pub fn restore<'a>(&self, text: &'a str, literal: &[&[u8]]) -> Result<Cow<'a, str>, String> {
        let Some(inner) = &self.0 else { return Ok(Cow::Borrowed(text)) };
        if !hinted(text) {
            return Ok(Cow::Borrowed(text));
        }
        let spans = placeholder::all(text.as_bytes());
        let found = inner.found();
        let means_itself =
            |name: &str| literal.iter().any(|file| memchr::memmem::find(file, name.as_bytes()).is_some());
        // Where nothing was masked, a text may be about placeholders.
        if let Some(broken) =
            placeholder::broken(text).filter(|b| !found.values.is_empty() && !means_itself(b))
        {
            return Err(format!(
                "{broken:?} is not a whole placeholder; copy placeholders exactly as the file shows them"
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
                        "{name} stands for two values and cannot be put back; leave the lines with it as they are"
                    ));
                }
                None if means_itself(name) => {
                    out.extend_from_slice(name.as_bytes());
                }
                None => {
                    return Err(format!(
                        "{name} stands for no value in the files of this call; copy placeholders exactly as the file shows them"
                    ));
                }
            }
        }
        out.extend_from_slice(&text.as_bytes()[at..]);
        Ok(Cow::Owned(into_text(out)))
    }

    /// How many values were masked so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.found().values.len())
    }

    /// How many values of variables are looked for.
    #[must_use]
    pub fn known(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.variables)
    }

    /// Whether somebody has still to be told what a placeholder is; from then on not any more.
    #[must_use]
    pub fn untold(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.told.swap(true, Ordering::Relaxed))
    }
}

impl Inner {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text without these; `None` when none of them is left to be masked.
    fn masked(&self, text: &[u8], spans: Vec<Range<usize>>) -> Option<Vec<u8>> {
        let spans = settled(text, spans);
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

    fn known(&self, text: &[u8], spans: &mut Vec<Range<usize>>) {
        if let Some(values) = &self.known {
            spans.extend(values.matcher.find_iter(text).map(|m| m.range()));
        }
    }

    fn learned(&self, text: &[u8], spans: &mut Vec<Range<usize>>) {
        let matcher = {
            let mut found = self.found();
            let found = &mut *found;
            found.matcher.get_or_insert_with(|| matcher(&found.wanted)).clone() // shares its tables
        };
        if let Some(matcher) = matcher {
            spans.extend(matcher.find_iter(text).map(|m| m.range()));
        }
    }
}

impl Found {
    fn remember(&mut self, name: &str, value: &[u8]) {
        let room = self.values.len() < REMEMBERED;
        match self.values.get_mut(name) {
            Some(had) if had.as_deref() != Some(value) => *had = None,
            Some(_) => {}
            None if room => {
                self.values.insert(name.to_owned(), Some(value.to_owned()));
                if value.len() >= LEAST && self.wanted.len() < LEARNED {
                    self.wanted.push(value.to_owned());
                    self.matcher = None;
                }
            }
            None => {}
        }
    }
}

/// `None` when there is nothing to find. The longest value wins where one begins with another.
fn matcher(values: &[Vec<u8>]) -> Option<AhoCorasick> {
    if values.is_empty() {
        return None;
    }
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(values).ok()
}

/// In order, without overlaps, without line ends, and without what is a placeholder already.
fn settled(text: &[u8], mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
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

/// Secrets begin and end where characters do, so nothing is lost here.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_of_two_values_is_put_back_as_neither() {
        let secrets = Secrets::new("s", Vec::new());
        let inner = secrets.0.as_ref().unwrap();
        inner.found().remember("[secret-0a1b2c]", b"one value");
        assert_eq!(secrets.restore("x [secret-0a1b2c]", &[]).unwrap(), "x one value");
        inner.found().remember("[secret-0a1b2c]", b"another value");
        assert!(secrets.restore("x [secret-0a1b2c]", &[]).unwrap_err().contains("stands for two values"));
    }
}
