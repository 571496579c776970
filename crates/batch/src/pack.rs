//! Prepares repositories for other machines: keeps URLs as they are, and packs folders into git
//! bundles.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clones::is_url;
use crate::digest::short_digest;
use crate::git::git;
use crate::task::{Task, unsafe_id};
use crate::worktree::{Source, Unusable};

/// A task's repository in a form that another machine can create a worktree from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// A URL that git can clone.
    Url,
    /// A bundle file, and the commit to start from if the task does not specify one.
    Bundle(PathBuf, Option<String>),
}

/// Packs a task's repository. Writes one bundle per repository and commit to `folder`, or reuses
/// the bundle if it already exists. Two calls must not use the same folder at the same time.
///
/// # Errors
/// If the repository or the commit does not exist, if the task specifies a folder inside a
/// repository, or if the bundle cannot be written.
pub async fn pack(task: &Task, folder: &Path) -> Result<Packed, Unusable> {
    if is_url(&task.repo.to_string_lossy()) {
        return Ok(Packed::Url);
    }
    if task.repo.is_file() {
        return Ok(Packed::Bundle(task.repo.clone(), None));
    }
    let repo = task.repo.display();
    let source = Source::find(task, &task.repo).await?;
    let Some((found, commit)) = &source.git else {
        return Err(format!("{repo} is not a git repository, so it cannot be sent to workers").into());
    };
    if !found.prefix.is_empty() {
        return Err(format!(
            "{repo} is a folder inside a repository; a task for workers must specify the repository's root"
        )
        .into());
    }
    if git(&task.repo, &["rev-parse", "--is-shallow-repository"]).await.is_ok_and(|said| said == "true") {
        return Err(format!(
            "{repo} is a shallow clone, which cannot be sent to workers; run `git fetch --unshallow` there, or specify its URL"
        )
        .into());
    }
    let digest = short_digest(&[found.git_dir.as_os_str().as_encoded_bytes(), commit.as_bytes()]);
    let bundle = folder.join(format!("{digest}.bundle"));
    if !bundle.exists() {
        let failed = |e: io::Error| Unusable::from_io(&e, |e| format!("cannot bundle {repo}: {e}"));
        // A bundle needs a branch. Create it in a temporary repository that shares the objects, so
        // that the task's repository does not change.
        let clone = folder.join(format!("{digest}.git"));
        let partial = folder.join(format!("{digest}.partial"));
        fs::create_dir_all(folder).map_err(failed)?;
        let _ = fs::remove_dir_all(&clone);
        let format = git(&task.repo, &["rev-parse", "--show-object-format"]).await.map_err(failed)?;
        let format = format!("--object-format={format}");
        let args = ["init", "--quiet", "--bare", "--template=", &format, "--"].map(OsStr::new);
        git(folder, &[&args[..], &[clone.as_os_str()]].concat()).await.map_err(failed)?;
        let mut objects = found.git_dir.join("objects").into_os_string();
        objects.push("\n");
        fs::create_dir_all(clone.join("objects/info")).map_err(failed)?;
        fs::write(clone.join("objects/info/alternates"), objects.as_encoded_bytes()).map_err(failed)?;
        git(&clone, &["update-ref", "refs/heads/start", commit]).await.map_err(failed)?;
        git(&clone, &["symbolic-ref", "HEAD", "refs/heads/start"]).await.map_err(failed)?;
        let args = ["bundle", "create", "--quiet"].map(OsStr::new);
        let args = [&args[..], &[partial.as_os_str(), "HEAD".as_ref(), "refs/heads/start".as_ref()]].concat();
        git(&clone, &args).await.map_err(failed)?;
        fs::rename(&partial, &bundle).map_err(failed)?;
        fs::remove_dir_all(&clone).map_err(failed)?;
    }
    Ok(Packed::Bundle(bundle, Some(commit.clone())))
}

/// Checks a task from another machine before it runs on this one. `bundled` is true if the
/// repository came with the task.
///
/// # Errors
/// Returns a sentence that explains why the task must not run: its id is not safe to use as a file
/// name, or its repository is a path on this machine.
pub fn check_foreign(task: &Task, bundled: bool) -> Result<(), String> {
    if let Some(why) = unsafe_id(&task.id) {
        return Err(why);
    }
    let repo = task.repo.to_string_lossy();
    if !bundled && (!is_url(&repo) || repo.to_ascii_lowercase().starts_with("file:")) {
        return Err("its repository is a path on this machine, not a URL on another one".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_of_another_machine_cannot_name_paths_of_this_one() {
        let check = |id: &str, repo: &str, bundled| {
            check_foreign(&Task { id: id.into(), repo: repo.into(), ..Task::default() }, bundled)
        };
        assert_eq!(check("a", "https://example.org/a.git", false), Ok(()));
        assert_eq!(check("a", "/anything", true), Ok(()), "the bundle replaces the path");
        for repo in ["/home/user/private", "file:///home/user/private", "File://x", "repo", ""] {
            assert!(check("a", repo, false).is_err(), "{repo}");
        }
        assert!(check("../../a", "https://example.org/a.git", false).is_err());
    }
}
