//! Masking of a text that arrives in pieces: what may be the beginning of a known value waits for what follows.

use crate::{Secrets, Values};

/// A text under way.
pub struct Stream {
    secrets: Secrets,
    values: Values,
    held: String,
}

impl std::fmt::Debug for Stream {
    /// Says nothing of the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(secrets: Secrets, values: Values) -> Self {
        Self { secrets, values, held: String::new() }
    }

    /// More of the text; what can be shown now.
    pub fn feed(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let bytes = self.held.as_bytes();
        let longest = self.values.all.iter().map(Vec::len).max().unwrap_or(0);
        let begun = |from: usize| {
            self.values.all.iter().any(|v| v.len() > bytes.len() - from && v.starts_with(&bytes[from..]))
        };
        // A value that is there already wins over one that begins inside it, and loses to a longer one that begins with it.
        let complete: Vec<_> = self.values.matcher.find_iter(bytes).map(|m| m.range()).collect();
        let inside = |from: usize| complete.iter().any(|m| m.start < from && from < m.end);
        let first = bytes.len().saturating_sub(longest);
        let hold = (first..bytes.len()).find(|from| begun(*from) && !inside(*from));
        let mut hold = hold.unwrap_or(bytes.len());
        while !self.held.is_char_boundary(hold) {
            hold -= 1;
        }
        let rest = self.held.split_off(hold);
        let ready = std::mem::replace(&mut self.held, rest);
        self.shown(ready)
    }

    /// Whether something waits.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The end of the text: what has waited.
    pub fn end(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        self.shown(held)
    }

    fn shown(&self, text: String) -> String {
        match self.secrets.mask_known(text.as_bytes()) {
            std::borrow::Cow::Borrowed(_) => text,
            std::borrow::Cow::Owned(bytes) => crate::into_text(bytes),
        }
    }
}
