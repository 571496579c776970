//! Protected files of a task: their original contents are restored before every command and
//! verification, and before the diff is taken.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use workspace::{Change, CleanPath, Expect, READ_LIMIT, WalkFilter, Workspace};

/// A file's content, and whether it is executable.
type State = (Vec<u8>, bool);

/// The protected files of a work tree.
pub(crate) struct Protected {
    patterns: GlobSet,
    /// The files as they were before the first turn.
    first: OnceLock<BTreeMap<CleanPath, State>>,
}

impl Protected {
    /// Protects the files whose path from the root matches a pattern. `*` does not match `/`, but
    /// `**` does.
    ///
    /// # Errors
    /// If a pattern is invalid.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        Ok(Self { patterns: set.build()?, first: OnceLock::new() })
    }

    /// Remembers the files as they are now. Later calls do nothing.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn remember(&self, workspace: &Workspace) -> Result<(), String> {
        if !self.patterns.is_empty() && self.first.get().is_none() {
            let _ = self.first.set(self.states(workspace)?);
        }
        Ok(())
    }

    /// Restores changed and removed files, and removes new ones.
    ///
    /// # Errors
    /// If a file cannot be read or restored.
    pub(crate) fn restore(&self, workspace: &Workspace) -> Result<(), String> {
        let Some(first) = self.first.get() else { return Ok(()) };
        let now = self.states(workspace)?;
        let write = |(path, (bytes, executable)): (&CleanPath, &State)| Change::Write {
            path: path.clone(),
            bytes: bytes.clone(),
            executable: Some(*executable),
            expect: Expect::Any,
        };
        let changed = first.iter().filter(|(path, state)| now.get(*path) != Some(*state)).map(write);
        let added = now.keys().filter(|path| !first.contains_key(*path));
        let removed = added.map(|path| Change::Delete { path: path.clone(), expect: Expect::Any });
        let changes: Vec<_> = changed.chain(removed).collect();
        if changes.is_empty() {
            return Ok(());
        }
        workspace.commit(changes).map(drop).map_err(|e| format!("cannot restore the protected files: {e}"))
    }

    fn states(&self, workspace: &Workspace) -> Result<BTreeMap<CleanPath, State>, String> {
        let listing = workspace.walk(&WalkFilter { limit: usize::MAX, ..WalkFilter::default() });
        let matching =
            listing.entries.into_iter().map(|entry| entry.path).filter(|path| self.patterns.is_match(path));
        let state = |path: CleanPath| {
            let bytes = workspace.read_bytes(&path, READ_LIMIT).map_err(|e| e.to_string())?;
            let mode = workspace.root().join(&path).metadata().map_or(0, |found| found.permissions().mode());
            Ok((path, (bytes, mode & 0o111 != 0)))
        };
        matching.map(state).collect()
    }
}

/// What the model is told about protected files, to append to the task.
pub(crate) fn note(patterns: &[String]) -> String {
    let listed: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    format!(
        "\n\nDo not change files that match {}: the agent restores them before each command.",
        listed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn changed_removed_and_new_files_are_restored_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let file = |path: &str| root.join(path);
        fs::create_dir_all(file("tests/deep")).unwrap();
        for path in ["tests/a.sh", "tests/deep/b", "tests/removed", "source", "a.sh"] {
            fs::write(file(path), path).unwrap();
        }
        fs::set_permissions(file("tests/a.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        let workspace = Workspace::open(root).unwrap();
        let protected = Protected::new(&["tests/**".into(), "*.lock".into()]).unwrap();
        protected.remember(&workspace).unwrap();
        for path in ["tests/deep/b", "tests/new", "new.lock", "deep.lock/x", "source", "a.sh"] {
            fs::create_dir_all(file(path).parent().unwrap()).unwrap();
            fs::write(file(path), "changed").unwrap();
        }
        fs::set_permissions(file("tests/a.sh"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(file("tests/removed")).unwrap();
        protected.restore(&workspace).unwrap();
        let read = |path: &str| fs::read_to_string(file(path)).ok();
        for path in ["tests/a.sh", "tests/deep/b", "tests/removed"] {
            assert_eq!(read(path).as_deref(), Some(path));
        }
        assert!(file("tests/a.sh").metadata().unwrap().permissions().mode() & 0o111 != 0);
        assert_eq!((read("tests/new"), read("new.lock")), (None, None));
        for path in ["deep.lock/x", "source", "a.sh"] {
            assert_eq!(read(path).as_deref(), Some("changed"), "{path}");
        }
    }

    #[test]
    fn without_patterns_nothing_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let protected = Protected::new(&[]).unwrap();
        protected.remember(&workspace).unwrap();
        fs::write(folder.path().join("new"), "new").unwrap();
        protected.restore(&workspace).unwrap();
        assert!(folder.path().join("new").exists());
    }
}
