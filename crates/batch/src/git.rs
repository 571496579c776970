//! The git binary, run so that no hook, monitor, filter of the repository's own or terminal gets in the way, and nothing is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// `useRelativePaths` would make the entry of a worktree harder to recognise as ours.
const SETTINGS: &[&str] = &["worktree.useRelativePaths=false", "advice.detachedHead=false"];

/// Runs git in a folder and returns what it printed, without the last newline. Filters (`filter.lfs.smudge`) are the user's, never those that the
/// repository's own settings name.
pub(crate) async fn git<S: AsRef<OsStr>>(cwd: &Path, args: &[S]) -> io::Result<String> {
    let (cwd, args): (_, Vec<_>) = (cwd.to_owned(), args.iter().map(|arg| arg.as_ref().to_owned()).collect());
    let done = tokio::task::spawn_blocking(move || {
        workspace::readable(&cwd)?;
        let mut ask = workspace::git(&cwd);
        ask.args(["config", "--show-scope", "--includes", "-z", "--get-regexp", r"^filter\."]);
        // Status 1: there are none.
        let filters = workspace::git_answer(ask)?.stdout;
        let filters = users_filters(&String::from_utf8_lossy(&filters));
        let settings = SETTINGS.iter().copied().chain(filters.iter().map(String::as_str));
        let mut command = workspace::git(&cwd);
        command.args(settings.flat_map(|setting| ["-c", setting])).args(args);
        workspace::git_output(command, None)
    });
    let output = done.await.map_err(io::Error::other)??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().trim_start_matches("fatal: ").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// Settings that take back what the repository says about filters: `scope NUL name NEWLINE value NUL`, over and over, the strongest last.
fn users_filters(said: &str) -> Vec<String> {
    let mut users = BTreeMap::new();
    let mut theirs = BTreeSet::new();
    let mut fields = said.split('\0');
    while let (Some(scope), Some(setting)) = (fields.next(), fields.next()) {
        let (name, value) = setting.split_once('\n').unwrap_or((setting, "true"));
        match scope {
            "local" | "worktree" => drop(theirs.insert(name)),
            _ => drop(users.insert(name, value)),
        }
    }
    let value = |name: &str| {
        users.get(name).copied().unwrap_or(if name.ends_with(".required") { "false" } else { "" })
    };
    theirs.into_iter().map(|name| format!("{name}={}", value(name))).collect()
}

/// What git knows of a folder.
#[derive(Debug)]
pub(crate) struct Repository {
    /// Where its objects, refs and worktree entries are.
    pub(crate) git_dir: PathBuf,
    /// Without a tree of its own, as mirrors are.
    pub(crate) bare: bool,
    /// The folder's place in the tree; empty for the root, otherwise with `/` at its end.
    pub(crate) prefix: String,
}

/// The repository around a folder; `None` where there is none (or no git to ask).
pub(crate) async fn repository(folder: &Path) -> io::Result<Option<Repository>> {
    let args =
        ["rev-parse", "--path-format=absolute", "--is-bare-repository", "--git-common-dir", "--show-prefix"];
    let answer = match git(folder, &args).await {
        Ok(answer) => answer,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.join(".git").exists() => return Ok(None),
        Err(e) if e.to_string().contains("not a git repository") && !folder.join(".git").exists() => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut lines = answer.lines();
    let bare = lines.next() == Some("true");
    let git_dir = PathBuf::from(lines.next().unwrap_or_default());
    Ok(Some(Repository { git_dir, bare, prefix: lines.next().unwrap_or_default().to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_the_users_own() {
        let said = "global\0filter.lfs.smudge\ngit-lfs smudge -- %f\0global\0filter.lfs.required\ntrue\0\
                    local\0filter.lfs.smudge\n./evil\0local\0filter.x.process\n./evil\0worktree\0filter.x.required\ntrue\0";
        assert_eq!(
            users_filters(said),
            ["filter.lfs.smudge=git-lfs smudge -- %f", "filter.x.process=", "filter.x.required=false"]
        );
    }
}
