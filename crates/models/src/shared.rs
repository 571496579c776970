//! A value that several requests share: read by copy, changed in one place.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T: Clone> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn get(&self) -> T {
        self.change(|value| value.clone())
    }

    /// Whoever panicked while holding the lock left a whole value: all changes are single assignments.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sentences that were said already: nobody is told the same thing after each turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(BTreeSet<String>);

impl Said {
    /// Those that are new.
    pub(crate) fn news(&mut self, sentences: Vec<String>) -> Vec<String> {
        sentences.into_iter().filter(|sentence| self.0.insert(sentence.clone())).collect()
    }
}
