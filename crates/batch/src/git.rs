//! The git binary, run so that no hook, monitor or terminal gets in the way, and nothing is fetched.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// Variables by which a surrounding git (a hook, an alias) would make ours work on another repository: what
/// `git rev-parse --local-env-vars` lists, and those that change what is shown.
const INHERITED: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// `useRelativePaths` would make the entry of a worktree harder to recognise as ours.
const SAFE: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.allow=never",
    "safe.directory=*",
    "worktree.useRelativePaths=false",
    "advice.detachedHead=false",
];

/// Runs git in a folder and returns what it printed, without the last newline.
pub(crate) async fn git<S: AsRef<OsStr>>(cwd: &Path, args: &[S]) -> io::Result<String> {
    let mut command = Command::new("git");
    command.current_dir(cwd).args(SAFE.iter().flat_map(|setting| ["-c", setting])).args(args);
    for name in INHERITED {
        command.env_remove(name);
    }
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped()).output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().trim_start_matches("fatal: ").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
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
