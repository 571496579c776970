//! Distinguishes between two kinds of files that appear after a command: files that the command
//! created, and older files that were ignored until the command changed the ignore rules.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::CleanPath;

/// The ignore files that a command changed.
#[derive(Debug, Default)]
pub(crate) struct ChangedRules(Vec<Changed>);

/// One ignore file: its folder, its old rules and its new rules.
#[derive(Debug)]
struct Changed(CleanPath, Gitignore, Gitignore);

impl ChangedRules {
    /// Adds the ignore file of a folder. `None` means that the file does not exist.
    pub(crate) fn add(&mut self, folder: CleanPath, old: Option<&[u8]>, new: Option<&[u8]>) {
        if old != new {
            self.0.push(Changed(folder, list(old), list(new)));
        }
    }

    /// Assumes that everything below a folder used to be ignored.
    pub(crate) fn add_all(&mut self, folder: CleanPath) {
        self.add(folder, Some(b"*"), None);
    }

    /// Whether a file or folder may have existed before the command without being seen, because it
    /// was ignored. This is possible if the old rules ignore its path or the new rules re-include
    /// it.
    pub(crate) fn may_have_hidden(&self, path: &CleanPath, is_folder: bool) -> bool {
        self.0.iter().any(|Changed(folder, old, new)| {
            let folder = if folder.as_str() == "." { Path::new("") } else { folder.as_ref() };
            let below = path.as_ref().strip_prefix(folder).ok().filter(|path| path.components().count() > 0);
            below.is_some_and(|path| {
                old.matched_path_or_any_parents(path, is_folder).is_ignore()
                    || new.matched_path_or_any_parents(path, is_folder).is_whitelist()
            })
        })
    }
}

/// Parses an ignore file. Skips invalid patterns, as git does.
fn list(text: Option<&[u8]>) -> Gitignore {
    let mut rules = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(text.unwrap_or_default()).lines() {
        let _ = rules.add_line(None, line);
    }
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}
