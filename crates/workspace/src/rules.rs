//! Decides which files and folders are ignored, based on four kinds of lists: `.ignore`,
//! `.gitignore`, `.git/info/exclude` and the user's global list. Kinds listed earlier take
//! precedence over those listed later. Within a kind, the list nearest to the file wins.
//!
//! This module reads the lists itself, because the `ignore` crate's walker would hang on a list
//! that is a pipe, and would read from a device until memory runs out. Like git, the module does
//! not follow symbolic links.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path},
};
use rustix::fs::{Mode, OFlags};

use crate::root::lock;

/// The maximum size of a list, in bytes. Larger lists are not read.
const LIST_LIMIT: u64 = 1 << 20;

/// The lists of a tree, read on demand.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The topmost folder whose lists are read.
    top: PathBuf,
    /// Whether to use `.ignore`.
    dot_ignore: bool,
    user: Gitignore,
    folders: Mutex<HashMap<PathBuf, Arc<Folder>>>,
}

/// The lists of a folder and its parents.
#[derive(Debug)]
pub(crate) struct Folder {
    above: Option<Arc<Folder>>,
    /// Whether this folder is the top of a repository. Git's lists in the folders above do not
    /// apply inside it.
    is_repository: bool,
    dot_ignore: Gitignore,
    gitignore: Gitignore,
    exclude: Gitignore,
}

impl Rules {
    /// Prepares the rules for the tree under `top`. `users` specifies whether to use the user's
    /// global list.
    pub(crate) fn new(top: &Path, dot_ignore: bool, users: bool) -> Self {
        let user = if users { GitignoreBuilder::new(top).build_global().0 } else { Gitignore::empty() };
        Self { top: top.to_owned(), dot_ignore, user, folders: Mutex::default() }
    }

    /// Whether a path is ignored, assuming that its folder is not.
    pub(crate) fn ignore(&self, path: &Path, is_folder: bool) -> bool {
        path.parent().is_some_and(|folder| self.ignores(&self.folder(folder), path, is_folder))
    }

    /// Same as [`Rules::ignore`], but for a caller that already has the lists of the path's folder.
    pub(crate) fn ignores(&self, folder: &Arc<Folder>, path: &Path, is_folder: bool) -> bool {
        let judge = |list: &Gitignore| match list.matched(path, is_folder) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        };
        let all = || std::iter::successors(Some(folder), |f| f.above.as_ref());
        let inside = || {
            let mut outside = false;
            all().take_while(move |f| !std::mem::replace(&mut outside, f.is_repository))
        };
        all()
            .find_map(|f| judge(&f.dot_ignore))
            .or_else(|| inside().find_map(|f| judge(&f.gitignore)))
            .or_else(|| inside().find_map(|f| judge(&f.exclude)))
            .or_else(|| judge(&self.user))
            .unwrap_or(false)
    }

    /// Returns the paths of the lists that apply to the tree under `root` but are not files in the
    /// tree. The lists need not exist.
    pub(crate) fn outside(&self, root: &Path) -> Vec<PathBuf> {
        let folders = || root.ancestors().take_while(|folder| folder.starts_with(&self.top));
        let above = folders().skip(1).map(|folder| folder.join(".gitignore"));
        above.chain(folders().filter_map(exclude_file)).chain(gitconfig_excludes_path()).collect()
    }

    fn folder(&self, path: &Path) -> Arc<Folder> {
        if let Some(known) = lock(&self.folders).get(path) {
            return Arc::clone(known);
        }
        let folder = self.folder_in(path, None);
        lock(&self.folders).insert(path.to_owned(), Arc::clone(&folder));
        folder
    }

    /// Reads the lists of a folder. `above` holds the lists of its parent folder. If `above` is
    /// `None`, reads those lists too.
    pub(crate) fn folder_in(&self, path: &Path, above: Option<Arc<Folder>>) -> Arc<Folder> {
        let in_tree = || path.parent().filter(|_| path != self.top && path.starts_with(&self.top));
        let list = |from: &Path| list(path, from);
        Arc::new(Folder {
            above: above.or_else(|| in_tree().map(|above| self.folder(above))),
            is_repository: path.join(".git").symlink_metadata().is_ok(),
            dot_ignore: if self.dot_ignore { list(&path.join(".ignore")) } else { Gitignore::empty() },
            gitignore: list(&path.join(".gitignore")),
            exclude: exclude_file(path).map_or_else(Gitignore::empty, |from| list(&from)),
        })
    }
}

/// Returns the exclude file of the repository at this folder.
fn exclude_file(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    let found = git.symlink_metadata().ok()?;
    if found.is_dir() {
        return Some(git.join("info/exclude"));
    }
    let text = |path: &Path| small_file(path, LIST_LIMIT).and_then(|text| String::from_utf8(text).ok());
    let named = folder.join(text(&git)?.strip_prefix("gitdir:")?.trim());
    let common =
        text(&named.join("commondir")).map_or_else(|| named.clone(), |common| named.join(common.trim()));
    Some(common.join("info/exclude"))
}

/// Parses a list. Skips invalid patterns, as git does.
fn list(folder: &Path, from: &Path) -> Gitignore {
    let Some(text) = small_file(from, LIST_LIMIT) else { return Gitignore::empty() };
    let mut rules = GitignoreBuilder::new(folder);
    for line in String::from_utf8_lossy(&text).trim_start_matches('\u{feff}').lines() {
        let _ = rules.add_line(None, line);
    }
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Reads a regular file of at most `limit` bytes without following links or blocking. Returns
/// `None` for anything else.
pub(crate) fn small_file(path: &Path, limit: u64) -> Option<Vec<u8>> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() > limit {
        return None;
    }
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn ignored(files: &[(&str, &str)], paths: &[&str]) -> Vec<bool> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let rules = Rules::new(folder.path(), true, true);
        let judge =
            |path: &&str| rules.ignore(&folder.path().join(path.trim_end_matches('/')), path.ends_with('/'));
        paths.iter().map(judge).collect()
    }

    #[test]
    fn the_nearest_list_wins_within_each_kind_of_list() {
        let files = [
            (".gitignore", "*.log\nbuild/\n/only\n"),
            ("a/.gitignore", "!keep.log\n"),
            (".git/info/exclude", "*.tmp\n!x.log\n"),
            ("a/.ignore", "c.txt\n"),
        ];
        let paths = [
            "x.log",
            "a/keep.log",
            "a/b/keep.log",
            "build/",
            "build",
            "only",
            "a/only",
            "a/y.tmp",
            "a/c.txt",
            "c.txt",
        ];
        assert_eq!(
            ignored(&files, &paths),
            [true, false, false, true, false, true, false, true, true, false]
        );
    }

    #[test]
    fn a_nested_repository_has_its_own_lists() {
        let files =
            [(".gitignore", "*.log\n"), ("sub/.git/info/exclude", "*.tmp\n"), ("sub/.gitignore", "z\n")];
        assert_eq!(
            ignored(&files, &["sub/x.log", "sub/d/x.tmp", "sub/d/z", "x.tmp"]),
            [false, true, true, false]
        );
    }

    #[test]
    fn only_small_regular_files_are_read_as_ignore_lists() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/zero", at(".gitignore")).unwrap();
        symlink(at("list"), at(".ignore")).unwrap();
        fs::write(at("list"), "x\n").unwrap();
        fs::create_dir(at("sub")).unwrap();
        File::create(at("sub/.gitignore")).unwrap().set_len(1 << 40).unwrap();
        let rules = Rules::new(folder.path(), true, true);
        assert!(!rules.ignore(&at("x"), false) && !rules.ignore(&at("sub/x"), false));
    }
}
