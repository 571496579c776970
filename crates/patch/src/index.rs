//! An index of a file's lines by content.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::{lines::Lines, units};

/// A file's lines and their [keys](units::key). Lines with the same key are linked in file order.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(crate) lines: Lines<'a>,
    keys: Vec<u64>,
    chains: HashMap<u64, Chain, BuildHasherDefault<KeyHasher>>,
    /// For each line, the next line with the same key; 0 if there is none.
    next: Vec<u32>,
    /// Keys of the lines without their whitespace. Computed on first use.
    squeezed: OnceCell<Vec<u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    count: u32,
}

/// A hasher for keys that are already hashes.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl<'a> Index<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let lines = Lines::of(bytes);
        let keys: Vec<u64> = lines.texts.iter().map(|text| units::key(text)).collect();
        let mut chains: HashMap<u64, Chain, BuildHasherDefault<KeyHasher>> =
            HashMap::with_capacity_and_hasher(keys.len(), BuildHasherDefault::default());
        let mut next = vec![0; keys.len()];
        for (i, key) in (0u32..).zip(&keys) {
            let chain = chains.entry(*key).or_insert(Chain { first: i, last: i, count: 0 });
            if chain.count > 0 {
                next[chain.last as usize] = i;
            }
            (chain.last, chain.count) = (i, chain.count + 1);
        }
        Self { lines, keys, chains, next, squeezed: OnceCell::new() }
    }

    /// Returns, in order, the indexes of the lines that match `text` if whitespace and typography
    /// are ignored.
    pub(crate) fn places_of(&self, text: &[u8]) -> impl Iterator<Item = usize> + '_ {
        let mut at = self.chains.get(&units::key(text)).map(|chain| chain.first as usize);
        std::iter::from_fn(move || {
            let here = at?;
            at = Some(self.next[here] as usize).filter(|next| *next > 0);
            Some(here)
        })
    }

    /// Returns how many lines match `text` if whitespace and typography are ignored.
    pub(crate) fn count_of(&self, text: &[u8]) -> usize {
        self.chains.get(&units::key(text)).map_or(0, |chain| chain.count as usize)
    }

    pub(crate) fn has_key(&self, at: usize, key: u64) -> bool {
        self.keys.get(at) == Some(&key)
    }

    /// Returns the indexes, in order, at which these lines occur as consecutive lines. Ignores all
    /// whitespace. Returns an empty list if none of the lines is distinctive.
    pub(crate) fn squeezed_runs(&self, old: &[&[u8]]) -> Vec<usize> {
        let wanted: Vec<u64> = old.iter().map(|text| units::squeezed_key(text)).collect();
        let keys = self
            .squeezed
            .get_or_init(|| self.lines.texts.iter().map(|text| units::squeezed_key(text)).collect());
        let tells = old.iter().any(|text| units::is_distinctive(text));
        let runs = keys.windows(wanted.len().max(1)).enumerate().filter(|(_, here)| *here == wanted);
        if tells { runs.map(|(at, _)| at).collect() } else { Vec::new() }
    }

    /// Returns the indexes, in order, at which these lines occur as consecutive lines. Ignores
    /// differences in whitespace and typography.
    pub(crate) fn runs(&self, old: &[&[u8]]) -> Vec<usize> {
        let keys: Vec<u64> = old.iter().map(|text| units::key(text)).collect();
        let count = |key: &u64| self.chains.get(key).map_or(0, |chain| chain.count);
        let Some((offset, rarest)) = keys.iter().enumerate().min_by_key(|(_, key)| count(key)) else {
            return Vec::new();
        };
        if count(rarest) == 0 {
            return Vec::new();
        }
        let starts = self.places_of(old[offset]).filter_map(|at| at.checked_sub(offset));
        starts.filter(|at| self.keys.get(*at..*at + keys.len()).is_some_and(|here| here == keys)).collect()
    }
}
