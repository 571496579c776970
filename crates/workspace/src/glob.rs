//! Glob patterns as models write them.

use globset::{GlobBuilder, GlobMatcher};

use crate::CleanPath;

/// A path pattern. A pattern without a `/` matches file names in any folder (`*.rs`). A pattern
/// with one matches whole paths (`src/**/*.rs`).
#[derive(Debug, Clone)]
pub struct Glob {
    matcher: GlobMatcher,
    names: bool,
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If the pattern is invalid. The message says why.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let trimmed = pattern.trim().trim_start_matches("./").trim_start_matches('/');
        let whole = if trimmed.ends_with('/') { format!("{trimmed}**") } else { trimmed.to_owned() };
        let glob = GlobBuilder::new(&whole).literal_separator(true).build();
        let glob =
            glob.map_err(|e| format!("{pattern:?} is not a valid glob ({e}); example: \"src/**/*.rs\""))?;
        Ok(Self { matcher: glob.compile_matcher(), names: !whole.contains('/') })
    }

    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, path: &CleanPath) -> bool {
        let text = path.as_str();
        let name = text.rsplit('/').next().unwrap_or(text);
        self.matcher.is_match(if self.names { name } else { text })
    }
}
