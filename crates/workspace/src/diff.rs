//! The difference between two trees, as reported by git.

use crate::names::escape;

/// One file of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffFile {
    /// The current path, or the last path of a removed file, relative to the root.
    pub path: String,
    /// The number of lines added, or 0 for binary files.
    pub added: u64,
    /// The number of lines removed, or 0 for binary files.
    pub removed: u64,
}

/// The changes since a baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The changed files, sorted by path.
    pub files: Vec<DiffFile>,
    /// A patch for `git apply`, including binary changes. Stored as bytes, because files need not
    /// be UTF-8.
    pub patch: Vec<u8>,
}

impl Diff {
    /// The `git diff-tree` options that produce the output format read by [`Diff::parse`].
    pub(crate) const OPTIONS: [&str; 5] = ["--numstat", "-z", "-p", "--binary", "--full-index"];

    /// Parses `added TAB removed TAB path NUL` for each file, or `added TAB removed TAB NUL path
    /// NUL path NUL` for a rename, then NUL and the patch.
    pub(crate) fn parse(output: &[u8]) -> Self {
        let mut diff = Self::default();
        let mut rest = output;
        let mut field = || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let (field, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            Some(field)
        };
        while let Some(counts) = field().filter(|field| !field.is_empty()) {
            let mut parts = counts.splitn(3, |byte| *byte == b'\t');
            let mut count = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
            let (added, removed) = (count().unwrap_or(0), count().unwrap_or(0));
            let path = parts.next().filter(|path| !path.is_empty());
            let Some(path) = path.or_else(|| field().and(field())) else { break };
            diff.files.push(DiffFile { path: escape(path), added, removed });
        }
        diff.patch = rest.to_vec();
        diff
    }
}
