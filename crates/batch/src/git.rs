//! Runs git without the repository's hooks, file system monitors and filters, without a terminal,
//! and without fetching.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// Settings for every git command. `useRelativePaths` would make it harder to recognize a
/// worktree's entry as ours.
const SETTINGS: &[&str] = &["worktree.useRelativePaths=false", "advice.detachedHead=false"];

/// Protocols that clones may use. `ext` is left out because it runs a program.
const PROTOCOLS: &str = "file:git:http:https:ssh";
/// How `ssh` is run unless the user has configured it. Nobody can answer its questions, and it fails
/// if the other side does not answer for a minute.
const SSH: &str =
    "ssh -o BatchMode=yes -o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4";
/// Settings for cloning. A clone over HTTP fails if it stays below 1 kB/s for a minute. Git has no
/// such limit for the `git` protocol. `init.defaultBranch` keeps git from printing advice about branch
/// names before an error.
const CLONE: [&str; 3] = ["http.lowSpeedLimit=1000", "http.lowSpeedTime=60", "init.defaultBranch=main"];

/// Runs git in a folder and returns its output without trailing newlines. Filters such as
/// `filter.lfs.smudge` come from the user's settings, never from the repository's.
pub(crate) async fn git<S: AsRef<OsStr>>(cwd: &Path, args: &[S]) -> io::Result<String> {
    let (cwd, args): (_, Vec<_>) = (cwd.to_owned(), args.iter().map(|arg| arg.as_ref().to_owned()).collect());
    let done = tokio::task::spawn_blocking(move || {
        workspace::readable(&cwd)?;
        let mut ask = workspace::git(&cwd);
        ask.args(["config", "--show-scope", "--includes", "-z", "--get-regexp", r"^filter\."]);
        // Exit status 1 means that there are no filters.
        let filters = workspace::git_answer(ask)?.stdout;
        let filters = users_filters(&String::from_utf8_lossy(&filters));
        let settings = SETTINGS.iter().copied().chain(filters.iter().map(String::as_str));
        let mut command = workspace::git(&cwd);
        command.args(settings.flat_map(|setting| ["-c", setting])).args(args);
        workspace::git_output(command, None)
    });
    succeeded(done.await.map_err(io::Error::other)??)
}

/// Makes a bare clone of a repository, which may be on another machine. Git is killed when the
/// future is dropped or when this process ends for any reason.
pub(crate) async fn clone(from: &OsStr, to: &Path, cwd: &Path) -> io::Result<()> {
    let mut git = workspace::git(cwd);
    git.args(CLONE.iter().flat_map(|setting| ["-c", setting])).args(["clone", "--quiet", "--bare", "--"]);
    git.arg(from).arg(to).env("GIT_ALLOW_PROTOCOL", PROTOCOLS);
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let configured = is_set("GIT_SSH") || is_set("GIT_SSH_COMMAND");
    if !configured && self::git(cwd, &["config", "--get", "core.sshCommand"]).await.is_err() {
        git.env("GIT_SSH_COMMAND", SSH);
    }
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", WITH_US, "sh"]).arg(git.get_program()).args(git.get_args()).current_dir(cwd);
    for (name, value) in git.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    // A separate process group also shields git from Ctrl-C, which asks the batch to stop cleanly.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = shell.spawn()?;
    let _open = child.stdin.take();
    succeeded(child.wait_with_output().await?).map(drop)
}

/// Runs a program. Kills the whole process group if standard input is closed before the program
/// ends, which happens when the parent process is killed.
const WITH_US: &str = r#"
exec 3<&0
(read -r _ <&3; kill -s KILL 0) &
"$@" 3<&- </dev/null
code=$?
exec 2>/dev/null
kill $!
exit $code"#;

/// Returns git's output or, if git failed, its message as an error.
fn succeeded(output: Output) -> io::Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().trim_start_matches("fatal: ").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// Returns settings that replace the repository's filters with the user's. The input is `scope NUL
/// name NEWLINE value NUL` for each setting, in order of increasing precedence.
fn users_filters(listed: &str) -> Vec<String> {
    let mut users = BTreeMap::new();
    let mut theirs = BTreeSet::new();
    let mut fields = listed.split('\0');
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

/// The repository that contains a folder, as reported by git.
#[derive(Debug)]
pub(crate) struct Repository {
    /// The folder with its objects, refs and worktree entries.
    pub(crate) git_dir: PathBuf,
    /// Whether it has no work tree, like a mirror.
    pub(crate) bare: bool,
    /// The folder's path in the tree, with a trailing `/`; empty for the root.
    pub(crate) prefix: String,
}

/// Returns the repository that contains a folder. Returns `None` if there is none, or if git is not
/// installed and the folder has no `.git`.
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
    fn filters_come_from_the_user() {
        let said = "global\0filter.lfs.smudge\ngit-lfs smudge -- %f\0global\0filter.lfs.required\ntrue\0\
                    local\0filter.lfs.smudge\n./evil\0local\0filter.x.process\n./evil\0worktree\0filter.x.required\ntrue\0";
        assert_eq!(
            users_filters(said),
            ["filter.lfs.smudge=git-lfs smudge -- %f", "filter.x.process=", "filter.x.required=false"]
        );
    }
}
