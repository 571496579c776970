//! Masks text that arrives in pieces. Holds back the end of a piece if it might be the start of a
//! known value.

use crate::{Secrets, Values};

/// Text that is masked as it arrives.
pub struct Stream {
    secrets: Secrets,
    values: Values,
    held: String,
}

impl std::fmt::Debug for Stream {
    /// Does not reveal any value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(secrets: Secrets, values: Values) -> Self {
        Self { secrets, values, held: String::new() }
    }

    /// Adds more of the text and returns the part that can be shown now.
    pub fn feed(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let bytes = self.held.as_bytes();
        let longest = self.values.all.iter().map(Vec::len).max().unwrap_or(0);
        let may_start = |from: usize| {
            self.values.all.iter().any(|v| v.len() > bytes.len() - from && v.starts_with(&bytes[from..]))
        };
        // A complete value takes precedence over a value that starts inside it, but not over a
        // longer value with the same start.
        let complete: Vec<_> = self.values.matcher.find_iter(bytes).map(|m| m.range()).collect();
        let is_inside = |from: usize| complete.iter().any(|m| m.start < from && from < m.end);
        let first = bytes.len().saturating_sub(longest);
        let hold = (first..bytes.len()).find(|from| may_start(*from) && !is_inside(*from));
        let mut hold = hold.unwrap_or(bytes.len());
        while !self.held.is_char_boundary(hold) {
            hold -= 1;
        }
        let rest = self.held.split_off(hold);
        let ready = std::mem::replace(&mut self.held, rest);
        self.mask(ready)
    }

    /// Returns whether text is being held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Ends the text and returns the part that was held back.
    pub fn end(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        self.mask(held)
    }

    fn mask(&self, text: String) -> String {
        match self.secrets.mask_known(text.as_bytes()) {
            std::borrow::Cow::Borrowed(_) => text,
            std::borrow::Cow::Owned(bytes) => crate::into_text(bytes),
        }
    }
}
