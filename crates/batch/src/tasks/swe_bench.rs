//! Parses SWE-bench instances: finds the clones of their repositories, and reads only the keys that
//! an agent may see.

use std::path::{Path, PathBuf};

use super::Reader;
use super::entry::Entry;
use super::fields::nearest;
use crate::task::Task;

/// Our own keys that an instance may have. An unknown key that is one edit away from one of these
/// is treated as a misspelling. All others are treated as metadata.
const ADDED: &[&str] =
    &["base_commit", "setup", "verify", "protected", "limits", "attempts", "model", "tags"];

/// A repository without a clone.
pub(super) struct Missing {
    repo: String,
    first: (PathBuf, usize),
    instances: usize,
}

impl Reader<'_> {
    pub(super) fn swe_bench(&mut self, entry: &Entry) -> Option<Task> {
        let before = self.problems.len();
        self.misspelled_keys(entry);
        let mut required = |key: &str| {
            if entry.field(key).is_none() {
                self.problem(&entry.file, entry.line, format!("a SWE-bench instance must have {key:?}"));
            }
            self.string(entry, key)
        };
        let (id, repo) = (required("instance_id"), required("repo"));
        let (commit, text) = (required("base_commit"), required("problem_statement"));
        // A missing or invalid commit has already been reported.
        let task = commit.map(|_| self.optional(entry));
        let clone = repo.as_deref().map(|repo| self.clone_of(entry, repo));
        if self.problems.len() > before {
            return None;
        }
        Some(Task { id: id?, repo: clone??, named_repo: repo?, text: text?, ..task? })
    }

    /// Reports misspellings of our own keys. Other keys of an instance are metadata.
    pub(super) fn misspelled_keys(&mut self, entry: &Entry) {
        for field in &entry.fields {
            let misspelled = nearest(&field.key, ADDED, 1).filter(|near| *near != field.key);
            if let Some(near) = misspelled {
                self.problem(
                    &entry.file,
                    field.line,
                    format!("unknown key {:?}; did you mean {near:?}?", field.key),
                );
            }
        }
    }

    fn clone_of(&mut self, entry: &Entry, repo: &str) -> Option<PathBuf> {
        let parts: Vec<&str> = repo.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
        let ([owner, name], true) = (&parts[..], parts.iter().all(plain)) else {
            self.problem(&entry.file, entry.line, format!("{repo:?} is not of the form owner/name"));
            return None;
        };
        let places = [format!("{owner}__{name}"), format!("{owner}/{name}"), (*name).to_owned()];
        let absolute = |folder: &Path| std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let found = self.repos.and_then(|repos| {
            places.iter().map(|place| absolute(repos).join(place)).find(|path| path.is_dir())
        });
        if found.is_none() {
            match self.missing.iter_mut().find(|missing| missing.repo == repo) {
                Some(missing) => missing.instances += 1,
                None => self.missing.push(Missing {
                    repo: repo.into(),
                    first: (entry.file.clone(), entry.line),
                    instances: 1,
                }),
            }
        }
        found
    }

    /// Reports each repository without a clone once, no matter how many instances need it.
    pub(super) fn report_missing(&mut self) {
        for Missing { repo, first: (file, line), instances } in std::mem::take(&mut self.missing) {
            let needed = match instances {
                1 => "1 instance needs it".into(),
                n => format!("{n} instances need it"),
            };
            let message = match self.repos.map(|repos| repos.join(repo.replace('/', "__"))) {
                None => format!("no folder with clones for {repo} ({needed}); set it with --repos"),
                Some(place) => format!("no clone of {repo} ({needed}); clone it to {}", place.display()),
            };
            self.problem(&file, line, message);
        }
    }
}
