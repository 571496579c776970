//! Restores protected files to their original state, no matter what has happened to them.
//!
//! Ignore rules do not apply, because an edit to `.gitignore` would lift the protection. Links are
//! protected as links; they are never followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::OnceLock;
use std::{fs, fs::Permissions};

use crate::{
    By, CleanPath, CommitError, FileImage, PathError, Workspace,
    path::is_git,
    protected_paths::ProtectedPaths,
    root::lock,
    store::REPLACE_LIMIT,
    transaction::{CommitInfo, Step},
};

/// The protected files of a work tree.
#[derive(Debug)]
pub struct Protected {
    paths: ProtectedPaths,
    patterns: Vec<String>,
    /// The files and links as they were before the first turn.
    first: OnceLock<BTreeMap<CleanPath, FileImage>>,
}

impl Protected {
    /// Protects the files whose path, relative to the root, matches a pattern. `*` does not match
    /// `/`, but `**` does. Naming a folder protects everything in it.
    ///
    /// # Errors
    /// If a pattern is invalid, or cannot match a path in the tree. The message says why.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let paths = ProtectedPaths::new(patterns)?;
        Ok(Self { paths, patterns: patterns.to_vec(), first: OnceLock::new() })
    }

    /// Whether a file is protected. The path is relative to the root.
    #[must_use]
    pub fn protects(&self, path: &str) -> bool {
        self.paths.protects(Path::new(path))
    }

    /// Returns the patterns that do not match any file in the tree.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn unmatched(&self, workspace: &Workspace) -> Result<Vec<&str>, String> {
        let found = self.find(workspace).map_err(|e| e.to_string())?;
        let unmatched = self.paths.unmatched(found.iter().map(AsRef::as_ref));
        Ok(unmatched.into_iter().filter_map(|at| self.patterns.get(at).map(String::as_str)).collect())
    }

    /// Remembers the current state of the files. Later calls do nothing.
    ///
    /// # Errors
    /// If a file cannot be read, or is too large to keep.
    pub fn remember(&self, workspace: &Workspace) -> Result<(), String> {
        if self.paths.is_empty() || self.first.get().is_some() {
            return Ok(());
        }
        let mut first = BTreeMap::new();
        for path in self.find(workspace).map_err(|e| e.to_string())? {
            match workspace.step(&path) {
                Ok(Step { before: Some(image), .. }) => drop(first.insert(path, image)),
                // The file is gone, is a pipe, or belongs to git or to the agent.
                Ok(_) | Err(CommitError::NotAFile(_) | CommitError::Path(PathError::Protected { .. })) => {}
                Err(CommitError::System { source, .. }) if source.kind() == io::ErrorKind::FileTooLarge => {
                    let limit = REPLACE_LIMIT >> 20;
                    return Err(format!(
                        "{path} is larger than {limit} MB, too large to protect; choose patterns that do not match it"
                    ));
                }
                Err(CommitError::System { source, .. }) => {
                    return Err(format!("cannot protect {path}: {source}"));
                }
                Err(e) => return Err(format!("cannot protect {path}: {e}")),
            }
        }
        let _ = self.first.set(first);
        Ok(())
    }

    /// Restores changed and removed files, and removes new ones.
    ///
    /// # Errors
    /// If a file cannot be restored.
    pub fn restore(&self, workspace: &Workspace) -> Result<(), String> {
        let Some(first) = self.first.get() else { return Ok(()) };
        self.restore_to(first, workspace).map_err(|e| format!("cannot restore the protected files: {e}"))
    }

    fn restore_to(
        &self,
        first: &BTreeMap<CleanPath, FileImage>,
        workspace: &Workspace,
    ) -> Result<(), CommitError> {
        let _writing = lock(&workspace.0.writing);
        clear_the_way(first, workspace)?;
        let unreadable = |source| CommitError::System { path: CleanPath::new(String::new()), source };
        let now = self.find(workspace).map_err(unreadable)?;
        let mut steps = Vec::new();
        for path in first.keys().chain(now.iter().filter(|path| !first.contains_key(*path))) {
            let after = first.get(path);
            match workspace.step(path) {
                Ok(step) if step.before.as_ref() == after => {}
                Ok(step) => steps.push(Step { after: after.cloned(), ..step }),
                Err(CommitError::Path(PathError::Protected { .. })) => {}
                // The file is too large, unreadable or not a regular file, so it cannot be kept for
                // an undo.
                Err(_) => {
                    discard(path, workspace)?;
                    if after.is_some() {
                        steps.push(Step { after: after.cloned(), ..workspace.step(path)? });
                    }
                }
            }
        }
        if steps.is_empty() {
            return Ok(());
        }
        workspace.execute(steps, CommitInfo { by: By::Command, unmade: Vec::new() }).map(drop)
    }

    /// Finds the files, links and other entries at the protected paths, but not folders.
    fn find(&self, workspace: &Workspace) -> io::Result<BTreeSet<CleanPath>> {
        let (root, mut found) = (workspace.root(), BTreeSet::new());
        let mut todo = vec![root.to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder)? {
                let (entry, full) = entry.map(|entry| (entry.file_type(), entry.path()))?;
                let Ok(path) = full.strip_prefix(root) else { continue };
                let (kind, clean) = (entry?, CleanPath::of(path));
                let id = full.symlink_metadata().ok().map(|m| (m.dev(), m.ino()));
                let git = path.file_name().and_then(|name| name.to_str()).is_some_and(is_git);
                if git || workspace.is_own(&clean, id) {
                    continue;
                }
                if kind.is_dir() {
                    if self.paths.may_contain(path) {
                        make_accessible(&full)?;
                        todo.push(full);
                    }
                } else if self.paths.protects(path)
                    || kind.is_symlink() && self.paths.is_parent(path) && full.is_dir()
                {
                    found.insert(clean);
                }
            }
        }
        Ok(found)
    }
}

/// Removes any file, link or pipe that has replaced a parent folder of a protected file, and any
/// folder that has replaced a protected file.
fn clear_the_way(first: &BTreeMap<CleanPath, FileImage>, workspace: &Workspace) -> Result<(), CommitError> {
    let parent = |path: &CleanPath| path.split().map(|(folder, _)| folder);
    let parents = |path| std::iter::successors(parent(path), parent).filter(|folder| folder.as_str() != ".");
    // In sorted order, a folder comes before everything in it.
    let folders: BTreeSet<CleanPath> = first.keys().flat_map(parents).collect();
    let system = |path: &CleanPath| {
        let path = path.clone();
        move |source| CommitError::System { path, source }
    };
    let kind =
        |path: &CleanPath| workspace.root().join(path).symlink_metadata().map(|found| found.is_dir()).ok();
    for folder in &folders {
        match kind(folder) {
            None => {}
            Some(true) => make_accessible(&workspace.root().join(folder)).map_err(system(folder))?,
            Some(false) => match workspace.step(folder) {
                Ok(step) => {
                    workspace.execute(vec![step], CommitInfo { by: By::Command, unmade: Vec::new() })?;
                }
                Err(_) => discard(folder, workspace)?,
            },
        }
    }
    for path in first.keys().filter(|path| kind(path) == Some(true)) {
        discard(path, workspace)?;
    }
    Ok(())
}

/// Removes whatever is at a path, without keeping it for an undo.
fn discard(path: &CleanPath, workspace: &Workspace) -> Result<(), CommitError> {
    let system = |source| CommitError::System { path: path.clone(), source };
    let Some(place) = workspace.place(path, None)? else { return Ok(()) };
    let full = workspace.root().join(path);
    let Ok(found) = full.symlink_metadata() else { return Ok(()) };
    if !found.is_dir() {
        return place.remove(place.name()).map_err(system);
    }
    let mut todo = vec![full.clone()];
    while let Some(folder) = todo.pop() {
        make_accessible(&folder).map_err(system)?;
        for entry in fs::read_dir(&folder).map_err(system)?.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(&full).map_err(system)
}

/// Gives the owner access to a folder, because a command may have removed the permissions.
fn make_accessible(folder: &Path) -> io::Result<()> {
    let mode = folder.symlink_metadata()?.permissions().mode();
    if mode & 0o700 == 0o700 {
        Ok(())
    } else {
        fs::set_permissions(folder, Permissions::from_mode(mode | 0o700))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A tree with files, some of them protected.
    struct Scene {
        _folder: tempfile::TempDir,
        root: PathBuf,
        workspace: Workspace,
        protected: Protected,
    }

    impl Scene {
        fn new(patterns: &[&str], files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("tree");
            for file in files {
                write(&root, file, file);
            }
            let workspace = Workspace::open_with(&root, folder.path().join("state")).unwrap();
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let protected = Protected::new(&patterns).unwrap();
            Self { _folder: folder, root, workspace, protected }
        }

        fn remembered(patterns: &[&str], files: &[&str]) -> Self {
            let scene = Self::new(patterns, files);
            scene.protected.remember(&scene.workspace).unwrap();
            scene
        }

        fn restore(&self) {
            self.protected.restore(&self.workspace).unwrap();
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.root.join(path)).ok()
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn protected_files_return_to_their_original_state_and_other_files_keep_their_changes() {
        let scene = Scene::new(
            &["tests/**", "*.lock"],
            &["tests/a.sh", "tests/deep/b", "tests/removed", "source", "a.sh"],
        );
        let file = |path: &str| scene.root.join(path);
        fs::set_permissions(file("tests/a.sh"), Permissions::from_mode(0o755)).unwrap();
        scene.protected.remember(&scene.workspace).unwrap();
        for path in ["tests/deep/b", "tests/new", "new.lock", "deep.lock/x", "source", "a.sh"] {
            write(&scene.root, path, "changed");
        }
        fs::set_permissions(file("tests/a.sh"), Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(file("tests/removed")).unwrap();
        scene.restore();
        for path in ["tests/a.sh", "tests/deep/b", "tests/removed"] {
            assert_eq!(scene.read(path).as_deref(), Some(path));
        }
        assert_eq!(file("tests/a.sh").metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!((scene.read("tests/new"), scene.read("new.lock")), (None, None));
        for path in ["deep.lock/x", "source", "a.sh"] {
            assert_eq!(scene.read(path).as_deref(), Some("changed"), "{path}");
        }
    }

    #[test]
    fn without_patterns_nothing_is_restored() {
        let scene = Scene::remembered(&[], &["a"]);
        write(&scene.root, "new", "new");
        scene.restore();
        assert!(scene.read("new").is_some());
    }

    #[test]
    fn bug_ignore_rules_and_hidden_folders_lifted_the_protection() {
        let scene = Scene::new(&["tests/**", ".husky/**"], &["tests/kept.log", ".husky/hook"]);
        write(&scene.root, ".gitignore", "*.log\n");
        scene.protected.remember(&scene.workspace).unwrap();
        write(&scene.root, ".gitignore", "*.log\nnew.sh\n");
        write(&scene.root, ".ignore", "other.sh\n");
        for path in ["tests/kept.log", ".husky/hook", "tests/new.sh", "tests/other.sh", ".husky/new"] {
            write(&scene.root, path, "changed");
        }
        scene.restore();
        for path in ["tests/kept.log", ".husky/hook"] {
            assert_eq!(scene.read(path).as_deref(), Some(path));
        }
        for path in ["tests/new.sh", "tests/other.sh", ".husky/new"] {
            assert_eq!(scene.read(path), None, "{path}");
        }
    }

    #[test]
    fn bug_a_protected_path_with_a_link_a_folder_or_a_large_file_ended_the_run() {
        let scene = Scene::new(&["tests/**"], &["tests/run.sh", "tests/deep/b", "tests/c", "source/x"]);
        let file = |path: &str| scene.root.join(path);
        symlink("../source", file("tests/folder")).unwrap();
        symlink("missing", file("tests/dangling")).unwrap();
        write(&scene.root, "tests/large", &"x".repeat(17 << 20));
        scene.protected.remember(&scene.workspace).unwrap();

        fs::remove_file(file("tests/run.sh")).unwrap();
        write(&scene.root, "tests/run.sh/x", "");
        write(&scene.root, "tests/run.sh/.git/HEAD", "");
        fs::rename(file("tests/c"), file("evil")).unwrap();
        symlink("../evil", file("tests/c")).unwrap();
        fs::remove_file(file("tests/folder")).unwrap();
        write(&scene.root, "tests/folder/x", "");
        fs::remove_file(file("tests/dangling")).unwrap();
        write(&scene.root, "tests/dangling", "");
        fs::write(file("tests/large"), "small").unwrap();
        symlink("/etc/hostname", file("tests/h")).unwrap();
        write(&scene.root, "tests/new_large", &"x".repeat(17 << 20));
        fs::File::create(file("tests/too_large")).unwrap().set_len(REPLACE_LIMIT + 1).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, file("tests/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        scene.restore();
        for path in ["tests/run.sh", "tests/deep/b", "tests/c"] {
            assert_eq!(scene.read(path).as_deref(), Some(path));
        }
        assert!(!file("tests/c").is_symlink());
        assert_eq!(fs::read_link(file("tests/folder")).unwrap(), Path::new("../source"));
        assert_eq!(fs::read_link(file("tests/dangling")).unwrap(), Path::new("missing"));
        assert_eq!(file("tests/large").metadata().unwrap().len(), 17 << 20);
        for path in ["tests/h", "tests/new_large", "tests/too_large", "tests/pipe"] {
            assert!(file(path).symlink_metadata().is_err(), "{path}");
        }
        assert_eq!(scene.read("evil").as_deref(), Some("tests/c"), "other files stay");

        fs::rename(file("tests"), file("moved")).unwrap();
        symlink("moved", file("tests")).unwrap();
        fs::write(file("moved/run.sh"), "exit 0").unwrap();
        scene.restore();
        assert!(!file("tests").is_symlink());
        assert_eq!(scene.read("tests/run.sh").as_deref(), Some("tests/run.sh"));
        assert_eq!(scene.read("moved/run.sh").as_deref(), Some("exit 0"));
    }

    #[test]
    fn a_link_cannot_stand_in_for_a_protected_folder_that_does_not_exist_yet() {
        let scene = Scene::remembered(&["tests/**"], &["source"]);
        write(&scene.root, "evil/conftest.sh", "exit 0");
        symlink("evil", scene.root.join("tests")).unwrap();
        symlink("evil", scene.root.join("harmless")).unwrap();
        scene.restore();
        assert!(!scene.root.join("tests").is_symlink() && scene.root.join("harmless").is_symlink());
    }

    #[test]
    fn files_are_restored_in_folders_without_write_permission() {
        let scene = Scene::remembered(&["tests/**", "check.sh"], &["tests/deep/a", "check.sh"]);
        let mode = |path: &str, mode| {
            fs::set_permissions(scene.root.join(path), Permissions::from_mode(mode)).unwrap();
        };
        write(&scene.root, "tests/deep/a", "changed");
        write(&scene.root, "check.sh", "changed");
        mode("tests/deep/a", 0o000);
        mode("check.sh", 0o444);
        mode("tests/deep", 0o000);
        mode("tests", 0o555);
        scene.restore();
        assert_eq!(scene.read("tests/deep/a").as_deref(), Some("tests/deep/a"));
        assert_eq!(scene.read("check.sh").as_deref(), Some("check.sh"));
    }

    #[test]
    fn the_error_names_a_file_that_is_too_large_to_keep() {
        let scene = Scene::new(&["tests"], &["tests/a"]);
        fs::File::create(scene.root.join("tests/b")).unwrap().set_len(REPLACE_LIMIT + 1).unwrap();
        let error = scene.protected.remember(&scene.workspace).unwrap_err();
        assert!(error.starts_with("tests/b is larger than 64 MB"), "{error}");
    }

    #[test]
    fn a_restored_file_does_not_count_as_a_change() {
        let scene = Scene::remembered(&["tests"], &["tests/a"]);
        let change = crate::Change::Write {
            path: CleanPath::new("tests/a".into()),
            bytes: "changed".into(),
            executable: None,
            expect: crate::Expect::Any,
        };
        scene.workspace.commit(vec![change]).unwrap();
        scene.restore();
        let history = crate::History::open(&scene.root.parent().unwrap().join("state")).unwrap();
        assert_eq!(history.net(..).unwrap(), []);
    }

    #[test]
    fn patterns_that_match_no_file_are_reported() {
        let scene = Scene::new(&["tests", "spec/**", "*.md"], &["tests/a", "a.md"]);
        assert_eq!(scene.protected.unmatched(&scene.workspace).unwrap(), ["spec/**"]);
    }
}
