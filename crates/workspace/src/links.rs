//! Writing a file updates all of its hard links in the work tree.
//!
//! A write replaces the file instead of modifying it in place, so hard links outside the work tree
//! or in `.git` keep the old content. All other names of the file in the work tree, including those
//! in ignored folders, become hard links to the new file in the same commit. If a commit writes
//! different contents through two hard links, they become separate files. Removing one hard link
//! leaves the others alone.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{CleanPath, CommitError, Workspace, path::is_git, transaction::Step};

impl Workspace {
    /// Adds a step for every other hard link to the files that these steps write.
    pub(crate) fn add_hard_links(&self, steps: &mut Vec<Step>) -> Result<(), CommitError> {
        let mut first: HashMap<(u64, u64), usize> = HashMap::new();
        let mut split = Vec::new();
        for i in 0..steps.len() {
            let (Some(id), Some(after)) = (steps[i].links_of, &steps[i].after) else { continue };
            match first.get(&id) {
                None => {
                    first.insert(id, i);
                }
                Some(&other) if steps[other].after.as_ref() == Some(after) => steps[i].link_to = Some(other),
                Some(_) => split.push(id),
            }
        }
        first.retain(|id, _| !split.contains(id));
        for step in steps.iter_mut().filter(|s| s.links_of.is_some_and(|id| split.contains(&id))) {
            step.link_to = None;
        }
        if first.is_empty() {
            return Ok(());
        }
        for (id, path) in hard_links(&self.0.root, &first).map_err(|source| self.unreadable(source))? {
            if steps.iter().any(|s| s.path == path) {
                continue;
            }
            // Treat protected paths, such as the agent's own files, like links outside the work
            // tree.
            let Ok(mut step) = self.step(&path) else { continue };
            let main = first[&id];
            if step.stamp.is_some_and(|s| s.id == id) {
                step.after = steps[main].after.clone();
                step.link_to = Some(main);
                steps.push(step);
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> CommitError {
        CommitError::System { path: CleanPath::new(String::new()), source }
    }
}

/// Finds every hard link to these files below a folder, except in `.git`.
fn hard_links<T>(root: &Path, of: &HashMap<(u64, u64), T>) -> io::Result<Vec<((u64, u64), CleanPath)>> {
    let devices: HashSet<u64> = of.keys().map(|id| id.0).collect();
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if folder == root => return Err(e),
            Err(_) => continue, // nothing in this folder could be written
        };
        for entry in entries.flatten() {
            let Ok(m) = entry.metadata() else { continue };
            if m.is_dir() {
                // Hard links cannot cross file systems.
                if devices.contains(&m.dev()) && !entry.file_name().to_str().is_some_and(is_git) {
                    todo.push(entry.path());
                }
            } else if m.is_file()
                && of.contains_key(&(m.dev(), m.ino()))
                && let Ok(path) = entry.path().strip_prefix(root)
            {
                found.push(((m.dev(), m.ino()), CleanPath::of(path)));
            }
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}
