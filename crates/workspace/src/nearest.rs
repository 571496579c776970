//! The existing paths that a wrong path may have meant.

use crate::{WalkFilter, Workspace};

/// How many files are looked at: bounded work on huge trees.
const LOOKED_AT: usize = 20_000;

impl Workspace {
    /// Up to `n` existing files: first those of the same name elsewhere, those that share most of the path's end first; then those whose
    /// name differs by few letters.
    #[must_use]
    pub fn nearest(&self, path: &str, n: usize) -> Vec<String> {
        let wanted = path.trim_start_matches('/').to_lowercase();
        let name = wanted.rsplit('/').next().unwrap_or_default();
        let listing = self.walk(&WalkFilter { limit: LOOKED_AT, folders: true, ..WalkFilter::default() });
        let mut found: Vec<(usize, usize, String)> = Vec::new();
        for entry in listing.entries {
            let have = entry.path.as_str().to_lowercase();
            let have_name = have.rsplit('/').next().unwrap_or_default();
            let far = distance(name, have_name, name.chars().count() / 3);
            let stem = |n: &str| n.split('.').next().unwrap_or_default().to_owned();
            let far = match far {
                Some(far) => far,
                None if !stem(name).is_empty() && stem(name) == stem(have_name) => name.len(),
                None => continue,
            };
            let shared = wanted.rsplit('/').zip(have.rsplit('/')).take_while(|(a, b)| a == b).count();
            let elsewhere = distance(&wanted, &have, usize::MAX).unwrap_or(usize::MAX);
            found.push((far, elsewhere.saturating_sub(shared * 4), entry.path.to_string()));
        }
        found.sort();
        found.into_iter().take(n).map(|(_, _, path)| path).collect()
    }
}

/// The number of letters to insert, delete, exchange or swap with their neighbour to get from one to the other; `None` when it is more
/// than `most`.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    /// Longer texts are cut here: enough to rank paths.
    const CUT: usize = 256;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(CUT).collect(), b.chars().take(CUT).collect());
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(above[j - 1] + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut row, next);
    }
    Some(row[b.len()]).filter(|d| *d <= most)
}
