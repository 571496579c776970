//! Hard links: a file with several names in the work tree keeps them all when it is written.
//!
//! A write replaces the file, it never writes into it, so that names outside the work tree or in `.git` keep what they had. The names
//! inside, ignored folders included, are given to the new file in the same commit. Where a commit says different things about
//! names of one file, each of these becomes a file of its own. Removing a name leaves the others alone.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{CleanPath, CommitError, Workspace, path::is_git, transaction::Step};

impl Workspace {
    /// Adds a step for every other name of the files that these steps write.
    pub(crate) fn take_names_along(&self, steps: &mut Vec<Step>) -> Result<(), CommitError> {
        let mut first: HashMap<(u64, u64), usize> = HashMap::new();
        let mut torn = Vec::new();
        for i in 0..steps.len() {
            let (Some(id), Some(after)) = (steps[i].names_of, &steps[i].after) else { continue };
            match first.get(&id) {
                None => {
                    first.insert(id, i);
                }
                Some(&other) if steps[other].after.as_ref() == Some(after) => steps[i].twin_of = Some(other),
                Some(_) => torn.push(id),
            }
        }
        first.retain(|id, _| !torn.contains(id));
        for step in steps.iter_mut().filter(|s| s.names_of.is_some_and(|id| torn.contains(&id))) {
            step.twin_of = None;
        }
        if first.is_empty() {
            return Ok(());
        }
        for (id, path) in names(&self.0.root, &first).map_err(|source| self.unreadable(source))? {
            if steps.iter().any(|s| s.path == path) {
                continue;
            }
            // Names that may not be written, such as the agent's own, are names outside.
            let Ok(mut step) = self.look(&path) else { continue };
            let main = first[&id];
            if step.stamp.is_some_and(|s| s.id == id) {
                step.after = steps[main].after.clone();
                step.twin_of = Some(main);
                steps.push(step);
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> CommitError {
        CommitError::System { path: CleanPath::new(String::new()), source }
    }
}

/// Every name of these files below a folder; not in `.git`.
fn names<T>(root: &Path, of: &HashMap<(u64, u64), T>) -> io::Result<Vec<((u64, u64), CleanPath)>> {
    let devices: HashSet<u64> = of.keys().map(|id| id.0).collect();
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if folder == root => return Err(e),
            Err(_) => continue, // no name in there could be written
        };
        for entry in entries.flatten() {
            let Ok(m) = entry.metadata() else { continue };
            if m.is_dir() {
                // A file has no names on other file systems.
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
