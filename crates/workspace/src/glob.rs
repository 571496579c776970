//! File patterns as models write them.

use globset::{GlobBuilder, GlobMatcher};

use crate::CleanPath;

/// A pattern over paths. Without a `/` it is about file names, in any folder (`*.rs`); with one, about whole paths (`src/**/*.rs`).
#[derive(Debug, Clone)]
pub struct Glob {
    matcher: GlobMatcher,
    names: bool,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is not one; the sentence says where.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let bare = pattern.trim().trim_start_matches("./").trim_start_matches('/');
        let whole = if bare.ends_with('/') { format!("{bare}**") } else { bare.to_owned() };
        let glob = GlobBuilder::new(&whole).literal_separator(true).build();
        let glob = glob
            .map_err(|e| format!("{pattern:?} is not a file pattern ({e}); an example is \"src/**/*.rs\""))?;
        Ok(Self { matcher: glob.compile_matcher(), names: !whole.contains('/') })
    }

    /// Whether a path fits.
    #[must_use]
    pub fn matches(&self, path: &CleanPath) -> bool {
        let text = path.as_str();
        let name = text.rsplit('/').next().unwrap_or(text);
        self.matcher.is_match(if self.names { name } else { text })
    }
}
