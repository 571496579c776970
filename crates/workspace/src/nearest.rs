//! Finds existing paths that are similar to a wrong one.

use crate::{WalkFilter, Workspace};

/// The maximum number of paths to compare. Limits the work in huge trees.
const MAX_FILES: usize = 20_000;

impl Workspace {
    /// Returns up to `n` existing paths: first those with the same name in another folder, then
    /// those whose name differs by a few letters, and last those whose name differs only in the
    /// extension. Among names that differ equally, the paths most similar to `path` come first.
    #[must_use]
    pub fn nearest(&self, path: &str, n: usize) -> Vec<String> {
        let wanted = path.trim_start_matches('/').to_lowercase();
        let name = wanted.rsplit('/').next().unwrap_or_default();
        let listing = self.walk(&WalkFilter { limit: MAX_FILES, folders: true, ..WalkFilter::default() });
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

/// Returns the edit distance, or `None` if it exceeds `most`. Swapping two adjacent letters counts
/// as one edit.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    /// The maximum number of characters to compare per path. This is enough to rank paths, and it
    /// limits the work.
    const MAX_CHARS: usize = 256;
    let cut = |text: &str| text.char_indices().nth(MAX_CHARS).map_or(text.len(), |(at, _)| at);
    let (a, b) = (&a[..cut(a)], &b[..cut(b)]);
    // Length alone rules out most names.
    if a.chars().count().abs_diff(b.chars().count()) > most {
        return None;
    }
    Some(strsim::osa_distance(a, b)).filter(|distance| *distance <= most)
}
