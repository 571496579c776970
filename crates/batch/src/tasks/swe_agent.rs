//! Parses SWE-agent instances (`--instances.type file`): `instance_id`, `problem_statement`,
//! `repo_name`, `base_commit`. Also reads our own optional keys. Ignores containers (`image_name`)
//! and all other keys.

use std::path::{Path, PathBuf};

use super::Reader;
use super::entry::Entry;
use crate::clones::is_url;
use crate::task::Task;

impl Reader<'_> {
    pub(super) fn swe_agent(&mut self, entry: &Entry) -> Option<Task> {
        let before = self.problems.len();
        self.misspelled_keys(entry);
        let mut required = |key: &str, why: &str| {
            if entry.field(key).is_none() {
                self.problem(&entry.file, entry.line, format!("a SWE-agent instance must have {key:?}{why}"));
            }
            self.string(entry, key)
        };
        let id = required("instance_id", "");
        let named_repo = required("repo_name", ", because every task needs a repository");
        let text = required("problem_statement", "");
        let task = self.optional(entry);
        let repo = named_repo.as_deref().and_then(|name| self.repository_of(entry, name));
        if self.problems.len() > before {
            return None;
        }
        Some(Task { id: id?, repo: repo?, named_repo: named_repo?, text: text?, ..task })
    }

    /// Returns the repository that `name` refers to. A URL is cloned, and a path is relative to the
    /// task file. A bare name is a folder in `--repos`; SWE-agent would look for it in the
    /// container.
    fn repository_of(&mut self, entry: &Entry, name: &str) -> Option<PathBuf> {
        if is_url(name) {
            return Some(name.into());
        }
        if name.contains('/') {
            return Some(entry.file.parent().unwrap_or(Path::new("/")).join(name));
        }
        let repos = self.repos.map(|repos| std::path::absolute(repos).unwrap_or_else(|_| repos.to_owned()));
        let found = repos.as_ref().map(|repos| repos.join(name)).filter(|folder| folder.is_dir());
        if found.is_none() {
            let message = match repos {
                None => format!(
                    "the repository {name} is in SWE-agent's container; use --repos to specify a folder with clones"
                ),
                Some(repos) => format!("no clone of {name}; clone it to {}", repos.join(name).display()),
            };
            self.problem(&entry.file, entry.line, message);
        }
        found
    }
}
