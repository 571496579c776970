//! A value that several requests share. Reading it makes a copy, and changes are made under a lock.

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

    /// Changes the value. Uses a poisoned lock anyway: at worst, the change that panicked is
    /// incomplete.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Warnings that have already been reported, so that they are not repeated.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported(BTreeSet<String>);

impl Reported {
    /// Returns the sentences that have not been reported before, and records them.
    pub(crate) fn new_ones(&mut self, sentences: Vec<String>) -> Vec<String> {
        sentences.into_iter().filter(|sentence| self.0.insert(sentence.clone())).collect()
    }
}
