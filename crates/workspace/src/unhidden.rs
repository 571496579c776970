//! Files that a command seems to have made and that were there before, ignored: it has changed what is ignored.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::CleanPath;

/// The lists of ignored files that changed.
#[derive(Debug, Default)]
pub(crate) struct ChangedRules(Vec<Changed>);

/// One list: its folder, before and after.
#[derive(Debug)]
struct Changed(CleanPath, Gitignore, Gitignore);

impl ChangedRules {
    /// Adds a folder's list; `None` when there is none, or was none.
    pub(crate) fn add(&mut self, folder: CleanPath, old: Option<&[u8]>, new: Option<&[u8]>) {
        if old != new {
            self.0.push(Changed(folder, list(old), list(new)));
        }
    }

    /// Takes everything below a folder for ignored before.
    pub(crate) fn add_all(&mut self, folder: CleanPath) {
        self.add(folder, Some(b"*"), None);
    }

    /// Whether it may have been there unseen: an old list has it, or a new one takes it from what another list has.
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

/// Lines that are no patterns are none for git either.
fn list(text: Option<&[u8]>) -> Gitignore {
    let mut rules = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(text.unwrap_or_default()).lines() {
        let _ = rules.add_line(None, line);
    }
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}
