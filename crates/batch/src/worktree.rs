//! A tree for each attempt: a detached git worktree of a commit, or a plain copy of a folder that
//! is not a repository.
//!
//! The only change to the user's repository is that its git folder has an entry for the worktree
//! while the worktree exists. A batch removes only trees and entries that it created, and never
//! runs `git worktree prune`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::git::{self, Repository, git};
use crate::task::{Task, unsafe_id};

/// The repository and commit, or the folder, that a tree is made from.
#[derive(Debug)]
pub(crate) struct Source {
    repo: PathBuf,
    pub(crate) git: Option<(Repository, String)>,
}

/// Why a repository cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// A human-readable sentence.
    pub why: String,
    /// Whether it may be usable later. This is true if git ran out of resources or time.
    pub temporary: bool,
}

impl Unusable {
    /// Explains an error that git or a file operation returned.
    pub(crate) fn from_io(e: &io::Error, explain: impl FnOnce(&io::Error) -> String) -> Self {
        Self { why: explain(e), temporary: journal::is_temporary(e) }
    }
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self { why, temporary: false }
    }
}

impl Source {
    /// Finds the source of a task in `repo`, which is the task's repository or its clone. Does not
    /// change anything.
    pub(crate) async fn find(task: &Task, repo: &Path) -> Result<Self, Unusable> {
        let repo = repo.to_owned();
        if !repo.is_dir() {
            return Err(format!("folder {} does not exist", repo.display()).into());
        }
        let failed = |e: io::Error| Unusable::from_io(&e, |e| format!("{}: {e}", repo.display()));
        let Some(found) = git::repository(&repo).await.map_err(failed)? else {
            return match &task.base_commit {
                None => Ok(Self { repo, git: None }),
                Some(_) => {
                    Err(format!("{} is not a git repository, so it has no base commit", repo.display())
                        .into())
                }
            };
        };
        let wanted = task.base_commit.as_deref().unwrap_or("HEAD");
        let spec = format!("{wanted}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &spec];
        let commit = git(&repo, &args).await.map_err(|e| match journal::is_temporary(&e) {
            true => failed(e),
            false => format!("{} has no commit {wanted}", repo.display()).into(),
        })?;
        Ok(Self { repo, git: Some((found, commit)) })
    }

    pub(crate) fn git_dir(&self) -> Option<&Path> {
        self.git.as_ref().map(|(repository, _)| repository.git_dir.as_path())
    }

    /// Returns the git folder, the commit, and the path of the task's folder in the repository.
    pub(crate) fn identity(&self) -> Option<(&Path, &str, &str)> {
        let (repository, commit) = self.git.as_ref()?;
        Some((&repository.git_dir, commit, &repository.prefix))
    }

    pub(crate) fn commit(&self) -> Option<&str> {
        self.git.as_ref().map(|(_, commit)| commit.as_str())
    }

    /// Returns a note for the user if the tree may not be what they expect.
    pub(crate) async fn note(&self, task: &Task) -> Option<String> {
        let repo = self.repo.display();
        match &self.git {
            None => Some(format!("{repo} is not a git repository; the task works in a copy of the folder")),
            Some((found, _)) if found.bare || task.base_commit.is_some() => None,
            Some(_) => {
                let changes =
                    git(&self.repo, &["status", "--porcelain", "--ignore-submodules=all"]).await.ok()?;
                let dirty = !changes.is_empty();
                dirty.then(|| format!("{repo} has uncommitted changes; the task works on HEAD, without them"))
            }
        }
    }

    /// Creates the tree and returns the folder in it that corresponds to the task's folder. If
    /// `prepared` is given, the files in a worktree come from that folder instead of the commit.
    /// After an error, part of the tree may be left behind.
    pub(crate) async fn make(&self, tree: &Path, prepared: Option<&Path>) -> Result<PathBuf, String> {
        let Some((found, commit)) = &self.git else {
            return self.copy(tree).await;
        };
        let checkout = if prepared.is_some() { "--no-checkout" } else { "--checkout" };
        // Quiet, because an error would otherwise start with a progress line.
        let args = ["worktree", "add", "--quiet", "--detach", checkout].map(OsStr::new);
        git(&self.repo, &[&args[..], &[tree.as_os_str(), commit.as_ref()]].concat())
            .await
            .map_err(|e| format!("cannot create a worktree of {}: {e}", self.repo.display()))?;
        if let Some(prepared) = prepared {
            fill(tree, prepared).await.map_err(|e| format!("cannot restore the result of the setup: {e}"))?;
        }
        let folder = tree.join(&found.prefix);
        // A link in the commit or in the prepared tree must not lead out of the tree.
        let real = |path: &Path| fs::canonicalize(path).ok();
        if !folder.is_dir() || real(&folder) != real(tree).map(|tree| tree.join(&found.prefix)) {
            return Err(format!("commit {commit} does not contain the folder {}", found.prefix));
        }
        Ok(folder)
    }

    async fn copy(&self, tree: &Path) -> Result<PathBuf, String> {
        let canonical = fs::canonicalize(&self.repo).map_err(|e| format!("{}: {e}", self.repo.display()))?;
        if tree.starts_with(&canonical) {
            let repo = self.repo.display();
            return Err(format!(
                "{repo} contains the batch folder and would be copied into itself; choose a batch folder outside it"
            ));
        }
        let (repo, target) = (canonical, tree.to_owned());
        let copied = tokio::task::spawn_blocking(move || {
            let source = workspace::Workspace::open(&repo).map_err(|e| e.to_string())?;
            source.copy_to(&target).map_err(|e| format!("cannot copy {}: {e}", repo.display()))
        });
        copied.await.map_err(|e| e.to_string())??;
        Ok(tree.to_owned())
    }
}

/// Copies the files of a prepared tree into a worktree that does not have any files yet, and resets
/// the worktree's index to its commit.
async fn fill(tree: &Path, prepared: &Path) -> Result<(), String> {
    let (from, to) = (prepared.to_owned(), tree.to_owned());
    let copied = tokio::task::spawn_blocking(move || workspace::copy_without_git(&from, &to));
    copied.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    git(tree, &["reset", "--quiet"]).await.map(drop).map_err(|e| e.to_string())
}

/// Fails if something exists at the path of a tree.
pub(crate) fn ensure_absent(tree: &Path) -> Result<(), String> {
    match tree.symlink_metadata() {
        Ok(_) => Err(format!(
            "{} exists but was not created by this batch; move it out of the way",
            tree.display()
        )),
        Err(_) => Ok(()),
    }
}

/// Returns the name of an attempt's tree. Ids contain no `@`, so names are unique.
pub(crate) fn name(id: &str, attempt: u32) -> String {
    if attempt == 1 { id.to_owned() } else { format!("{id}@{attempt}") }
}

/// Whether a name in a record looks like the name of a tree: an attempt's [`name`], or `@` and a
/// number for a lane's tree. A folder with any other name must not be removed.
pub(crate) fn is_name(name: &str) -> bool {
    if let Some(lane) = name.strip_prefix('@') {
        return !lane.is_empty() && lane.bytes().all(|b| b.is_ascii_digit());
    }
    let (id, attempt) = name.split_once('@').unwrap_or((name, "2"));
    unsafe_id(id).is_none() && attempt.bytes().all(|b| b.is_ascii_digit())
}

/// Removes a tree's entry in the repository, and then its folder. In this order, the removal is
/// complete once the folder is gone.
pub(crate) async fn remove(tree: &Path, git_dir: Option<&Path>) -> Result<(), String> {
    let (tree, git_dir) = (tree.to_owned(), git_dir.map(Path::to_owned));
    let shown = tree.display().to_string();
    let removed = tokio::task::spawn_blocking(move || {
        git_dir.map_or(Ok(()), |git_dir| remove_entry(&tree, &git_dir))?;
        remove_folder(&tree)
    });
    let failed = |e: &dyn std::fmt::Display| format!("cannot remove {shown}: {e}");
    removed.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// Removes the entries that point to the tree. Searches all entries, because the link from the tree
/// to its entry may have been changed. `git worktree prune` is not an alternative: it would also
/// remove entries of the user's worktrees on unmounted disks.
fn remove_entry(tree: &Path, git_dir: &Path) -> io::Result<()> {
    let entries = git_dir.join("worktrees");
    let listed = match fs::read_dir(&entries) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed?,
    };
    let ours = tree.join(".git");
    for entry in listed.filter_map(Result::ok) {
        let target = fs::read_to_string(entry.path().join("gitdir")).unwrap_or_default();
        if Path::new(target.trim_end_matches('\n')) == ours {
            fs::remove_dir_all(entry.path())?;
        }
    }
    // Git also removes this folder when it removes the last entry. The call fails if other entries
    // are left.
    let _ = fs::remove_dir(&entries);
    Ok(())
}

/// Removes a folder if it exists, even if folders in it are write-protected.
///
/// # Errors
/// If something cannot be removed.
pub fn remove_folder(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(tree)?;
            fs::remove_dir_all(tree)
        }
        removed => removed,
    }
}

/// Makes a folder and its subfolders writable, because package managers write-protect some folders.
/// Does not follow links.
fn make_writable(folder: &Path) -> io::Result<()> {
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let mode = fs::symlink_metadata(&folder)?.permissions().mode();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode | 0o700))?;
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}
