//! `--worktree`: a run works in a worktree on its own branch, and leaves both to the user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::console;
use crate::exit::{Failure, Result};

/// The prefix for branch names.
const BRANCHES: &str = "agent/";

/// The git command that lists changes. It does not look inside submodules, because the model may
/// have created a repository in a submodule's folder, and git would run the filters configured
/// there.
pub(crate) const STATUS: [&str; 5] =
    ["status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all"];

/// A worktree on its own branch.
#[derive(Debug)]
pub(crate) struct Worktree {
    repository: PathBuf,
    /// The root of the worktree.
    pub(crate) root: PathBuf,
    pub(crate) branch: String,
    /// The commit that the branch starts from.
    base: String,
    /// Whether to keep the worktree even if nothing was changed in it.
    keep: bool,
}

impl Worktree {
    /// Creates the branch `agent/NAME` at `HEAD`, and its worktree next to the repository.
    ///
    /// # Errors
    /// If the name is invalid or in use, or git fails.
    pub(crate) fn create(repository: &Path, name: &str) -> Result<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let dots =
            name.starts_with('.') || name.ends_with('.') || name.contains("..") || name.ends_with(".lock");
        if name.is_empty() || dots || name.starts_with('-') || !name.chars().all(is_name) {
            return Err(Failure::misuse(format!(
                "invalid worktree name {name:?}: use letters, digits, `.`, `-` and `_`"
            )));
        }
        let base = git(repository, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
            .map_err(|_| Failure::misuse("--worktree needs a git repository with a commit"))?;
        let mut folder = repository.file_name().unwrap_or(OsStr::new("repository")).to_owned();
        folder.push(".worktrees");
        let root = repository.with_file_name(folder).join(name);
        if root.exists() {
            return Err(Failure::misuse(format!("the worktree {} already exists", root.display()))
                .hint(format!("choose another name, or remove it: git worktree remove {}", root.display())));
        }
        let branch = format!("{BRANCHES}{name}");
        let arguments = ["worktree", "add", "--quiet", "-b", &branch].map(OsStr::new);
        git(repository, &[&arguments[..], &[root.as_os_str(), base.as_ref()]].concat()).map_err(|why| {
            Failure::misuse(format!("cannot create the worktree {}: {why}", root.display()))
        })?;
        Ok(Self { repository: repository.to_owned(), root, branch, base, keep: false })
    }

    /// Keeps the worktree, because it has the run's changes, or because the run can be resumed.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes the worktree and its branch if the run left nothing in it, not even ignored files.
    /// Returns whether they are gone.
    fn remove_if_unused(&self) -> bool {
        let unused = git(&self.root, &[&STATUS[..], &["--ignored"]].concat()).is_ok_and(|it| it.is_empty())
            && git(&self.root, &["rev-parse", "HEAD"]).is_ok_and(|head| head == self.base);
        let remove = || {
            // Without `--force`, git looks inside submodules first. See [`STATUS`].
            let arguments = ["worktree", "remove", "--force"].map(OsStr::new);
            git(&self.repository, &[&arguments[..], &[self.root.as_os_str()]].concat())?;
            git(&self.repository, &["branch", "--quiet", "-D", &self.branch])
        };
        let gone = unused && remove().is_ok();
        if gone && let Some(folder) = self.root.parent() {
            let _ = std::fs::remove_dir(folder); // fails if there are other worktrees
        }
        gone
    }
}

/// Removes an unused worktree, no matter how the command ends.
impl Drop for Worktree {
    fn drop(&mut self) {
        if !self.keep && self.remove_if_unused() {
            console::say("removed the worktree and its branch, because nothing was changed");
        }
    }
}

/// Runs git without the repository's hooks. Returns its output without the trailing newline.
///
/// # Errors
/// If git fails. The error is git's message.
pub(crate) fn git<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> std::result::Result<String, String> {
    git_with(folder, arguments, None)
}

/// Same as [`git`], but with this standard input.
///
/// # Errors
/// If git fails. The error is git's message.
pub(crate) fn git_with<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: &[S],
    input: Option<&[u8]>,
) -> std::result::Result<String, String> {
    let mut command = workspace::git(folder);
    command.args(arguments);
    let output = workspace::git_output(command, input).map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
