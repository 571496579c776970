//! Runs git with a time limit, and prevents configuration from making git run other programs.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, FileTimes},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, kill_process_group},
};

/// The time limit for commands that work on files. This is far more than even a large repository
/// needs.
const WORK_LIMIT: Duration = Duration::from_secs(600);
/// The time limit for queries that do not depend on the size of the repository. Even these can
/// hang, because a repository can make git open a pipe (`include.path`).
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// Variables that an outer git process sets, for example for a hook or an alias. They would
/// redirect the git commands that run here.
const INHERITED: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DEFAULT_HASH",
    "GIT_DIFF_OPTS",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INDEX_VERSION",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TRACE",
    "GIT_TRACE2",
    "GIT_TRACE2_EVENT",
    "GIT_WORK_TREE",
];

const SAFE: &[&str] = &[
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "safe.directory=*",
    "-c",
    "submodule.recurse=false",
];

/// Paths below `.git` that git opens. If one were a pipe or a device, git would hang.
const READ_BY_GIT: &[&str] = &[
    "HEAD",
    "commondir",
    "config",
    "config.worktree",
    "gitdir",
    "index",
    "info/attributes",
    "info/exclude",
    "info/grafts",
    "info/sparse-checkout",
    "objects/info/alternates",
    "packed-refs",
    "shallow",
];

/// Returns a git command that never prompts. No repository setting can make git fetch, run another
/// program or use another work tree, with one exception: configured filters run when files are
/// checked out or added. The git executable itself always comes from outside the repository.
#[must_use]
pub fn git(cwd: &Path) -> Command {
    let found = around(cwd);
    let path = search_path(found.as_ref().map_or(cwd, |(top, _)| top));
    let is_program = |file: &PathBuf| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    // Given a full path, the standard library does not need to fork. The cost of a fork grows with
    // this process's memory use.
    let program = std::env::split_paths(&path).map(|folder| folder.join("git")).find(is_program);
    let mut command = Command::new(program.unwrap_or("git".into()));
    command.current_dir(cwd).args(SAFE).env("PATH", path);
    INHERITED.iter().for_each(|name| {
        command.env_remove(name);
    });
    if let Some((top, git)) = found
        && (top != git || names_a_work_tree(&git))
    {
        command.env("GIT_WORK_TREE", top); // overrides core.worktree
    }
    command
        // No protocol is named `none`, so this forbids all protocols, regardless of what the
        // repository allows.
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_PAGER", "cat")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Finds the repository that contains a folder, as git does. Returns the repository's top-level
/// folder and its git folder, which are the same for a bare repository.
fn around(cwd: &Path) -> Option<(&Path, PathBuf)> {
    cwd.ancestors().find_map(|folder| {
        let git = folder.join(".git");
        let bare = || ["HEAD", "objects", "refs"].iter().all(|name| folder.join(name).exists());
        if git.symlink_metadata().is_ok() {
            Some((folder, git))
        } else if folder.file_name().is_none_or(|name| name != ".git") && bare() {
            Some((folder, folder.to_owned()))
        } else {
            None
        }
    })
}

/// Whether the configuration of a bare repository contains `worktree`, and so might set
/// `core.worktree`.
fn names_a_work_tree(git: &Path) -> bool {
    let config = git.join("config");
    let text = config.is_file().then(|| fs::read(config)).and_then(Result::ok).unwrap_or_default();
    String::from_utf8_lossy(&text).to_ascii_lowercase().contains("worktree")
}

/// Returns `PATH` without relative folders and without folders below `outside`, because a
/// repository could put programs there. Reads the environment variable, just as starting a program
/// does.
#[must_use]
pub fn search_path(outside: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let real = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let (outside, everything) = (real(outside), outside.parent().is_none());
    let kept = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute() && (everything || !real(folder).starts_with(&outside)));
    match std::env::join_paths(kept) {
        Ok(kept) if !kept.is_empty() => kept,
        _ => "/usr/local/bin:/usr/bin:/bin".into(),
    }
}

/// Returns a git command for a private repository with the user's work tree. The command reads no
/// configuration other than the private repository's.
pub(crate) fn private(cwd: &Path, git_dir: &Path, work_tree: &Path, index: &Path) -> Command {
    let mut command = git(cwd);
    command
        .env("GIT_DIR", git_dir)
        .env("GIT_WORK_TREE", work_tree)
        .env("GIT_INDEX_FILE", index)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1");
    command
}

/// Runs a git command and returns its output.
///
/// # Errors
/// If git is not installed (`NotFound`), fails (the error contains git's message), or takes longer
/// than [`WORK_LIMIT`] (`TimedOut`).
pub(crate) fn run(command: Command, input: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let name = subcommand(&command);
    succeeded(&name, git_output(command, input)?)
}

/// Same as [`run`], but for a query, with a limit of [`QUESTION_LIMIT`].
pub(crate) fn query(command: Command) -> io::Result<Vec<u8>> {
    let name = subcommand(&command);
    succeeded(&name, git_answer(command)?)
}

/// Runs a command created by [`git`] to completion. After ten minutes, kills the command and all
/// its children.
///
/// # Errors
/// If git is not installed (`NotFound`) or was killed (`TimedOut`).
pub fn git_output(command: Command, input: Option<&[u8]>) -> io::Result<Output> {
    output_within(WORK_LIMIT, command, input)
}

/// Same as [`git_output`], but with a limit of ten seconds. For queries that do not depend on the
/// size of the repository, such as configuration queries.
///
/// # Errors
/// Same as [`git_output`].
pub fn git_answer(command: Command) -> io::Result<Output> {
    output_within(QUESTION_LIMIT, command, None)
}

fn succeeded(name: &str, output: Output) -> io::Result<Vec<u8>> {
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("git {name}: {}", stderr.trim())))
        }
    }
}

/// Returns the first argument that is not an option.
fn subcommand(command: &Command) -> String {
    let name = command.get_args().skip(SAFE.len()).find(|a| !a.as_encoded_bytes().starts_with(b"-"));
    name.unwrap_or(OsStr::new("")).to_string_lossy().into_owned()
}

fn output_within(limit: Duration, mut command: Command, input: Option<&[u8]>) -> io::Result<Output> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    // A process group can be killed as a whole. It also shields git from Ctrl-C, which asks the run
    // to stop cleanly.
    let mut child = command.process_group(0).spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, "git is not installed"),
        _ => e,
    })?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let late = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        // `_running` is dropped when git has exited. This ends the thread that is waiting for the
        // time limit.
        let (_running, ended) = mpsc::channel::<()>();
        let late = &late;
        scope.spawn(move || {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                late.store(true, Ordering::Relaxed);
                let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            }
        });
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            // If git exits without reading everything, its exit status reports the failure.
            scope.spawn(move || pipe.write_all(input));
        }
        child.wait_with_output()
    })?;
    if late.load(Ordering::Relaxed) {
        let name = subcommand(&command);
        let message = format!("git {name} did not finish within {} s and was stopped", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    }
    Ok(output)
}

/// The locations of a repository's parts. In a worktree or a submodule, some parts are outside its
/// `.git`.
pub(crate) struct Repository {
    /// The top of the work tree.
    pub(crate) top: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) objects: PathBuf,
    pub(crate) exclude: PathBuf,
    pub(crate) packed_refs: PathBuf,
    /// `sha1` or `sha256`.
    pub(crate) format: String,
    /// The commit that is checked out, or `None` before the first commit.
    pub(crate) head: Option<String>,
}

/// Finds the repository that contains a folder. Returns `None` outside a repository.
///
/// # Errors
/// If git is not installed, or the repository has a pipe or a device where git expects a file.
pub(crate) fn repository(folder: &Path) -> io::Result<Option<Repository>> {
    repository_within(QUESTION_LIMIT, folder)
}

fn repository_within(limit: Duration, folder: &Path) -> io::Result<Option<Repository>> {
    readable(folder)?;
    let mut query = git(folder);
    query.args([
        "rev-parse",
        "--path-format=absolute",
        "--show-toplevel",
        "--git-path",
        "index",
        "--git-path",
        "objects",
    ]);
    query.args(["--git-path", "info/exclude", "--git-path", "packed-refs", "--show-object-format"]);
    // `HEAD` comes last, because looking it up fails before the first commit. Git still prints the
    // answers to the earlier arguments.
    query.args(["--verify", "--quiet", "HEAD"]);
    let output = output_within(limit, query, None)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut lines = stdout.lines().map(str::to_owned);
    let mut next = || lines.next().filter(|l| !l.is_empty());
    let parts = (next(), next(), next(), next(), next(), next());
    let (Some(top), Some(index), Some(objects), Some(exclude), Some(packed_refs), Some(format)) = parts
    else {
        return Ok(None);
    };
    let [top, index, objects, exclude, packed_refs] =
        [top, index, objects, exclude, packed_refs].map(PathBuf::from);
    let head = next().filter(|_| output.status.success());
    Ok(Some(Repository { top, index, objects, exclude, packed_refs, format, head }))
}

/// Checks that git would not hang while reading the repository that contains a folder.
///
/// # Errors
/// If a pipe, socket or device would block git. The error names it.
pub fn readable(folder: &Path) -> io::Result<()> {
    let Some((_, git)) = around(folder) else { return Ok(()) };
    let no_file = |path: &Path| {
        let kind = fs::metadata(path).ok().map(|m| m.file_type())?;
        (!kind.is_file() && !kind.is_dir()).then(|| {
            let message = format!("{} is a pipe, socket or device, but git expects a file", path.display());
            Err(io::Error::other(message))
        })
    };
    let in_folder = READ_BY_GIT.iter().map(|name| git.join(name));
    std::iter::once(git.clone()).chain(in_folder).find_map(|path| no_file(&path)).unwrap_or(Ok(()))
}

/// Copies an index, preserving its modification time. Git distrusts entries that are as new as the
/// index; if the copy looked newer, git would trust these entries and miss a change.
pub(crate) fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let modified = match fs::metadata(from) {
        // Opening a pipe would block.
        Ok(found) if !found.is_file() => return Ok(()),
        Ok(found) => found.modified()?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    fs::copy(from, to)?;
    File::options().write(true).open(to)?.set_times(FileTimes::new().set_modified(modified))
}

/// Does a three-way merge with git. Returns `None` if both sides changed the same lines.
///
/// # Errors
/// If git is not installed or fails, or its files cannot be written.
pub(crate) fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    for (name, bytes) in [("base", base), ("ours", ours), ("theirs", theirs)] {
        fs::write(folder.path().join(name), bytes)?;
    }
    let mut merge = git(folder.path());
    merge.args(["merge-file", "-p", "-q", "ours", "base", "theirs"]);
    let output = git_output(merge, None)?;
    match output.status.code() {
        Some(0) => Ok(Some(output.stdout)),
        // The number of conflicts, at most 127.
        Some(1..=127) => Ok(None),
        _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short time limit, because the commands in these tests never end.
    const AT_ONCE: Duration = Duration::from_millis(1);

    #[test]
    fn a_hanging_command_is_killed_with_its_children() {
        let mut forever = Command::new("sh");
        // The child keeps the pipe open, and the function under test reads the pipe to its end.
        forever.args(["-c", "sleep 1000 & wait"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let error = output_within(AT_ONCE, forever, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn bug_a_bare_repository_belonged_to_the_repository_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let git_in = |cwd: &Path, args: &[&str]| {
            let mut command = git(cwd);
            command.args(args);
            let output = git_output(command, None).unwrap();
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        };
        let bare = folder.path().join("below/bare");
        git_in(folder.path(), &["init", "-q", "--bare", "below/bare"]);
        git_in(folder.path(), &["init", "-q"]);
        let ask = ["rev-parse", "--is-bare-repository", "--show-prefix"];
        assert_eq!(git_in(&bare, &ask).trim_end(), "true");
        assert_eq!(git_in(&bare.join("refs"), &ask).trim_end(), "true");
        git_in(&bare, &["config", "core.bare", "false"]);
        git_in(&bare, &["config", "core.worktree", "/"]);
        let top = git_in(&bare, &["rev-parse", "--show-toplevel"]);
        assert_eq!(
            Path::new(&top),
            bare.canonicalize().unwrap(),
            "the configuration should not choose the work tree"
        );
        assert_eq!(git_in(&folder.path().join(".git"), &ask[..2]), "false");
        assert_eq!(git_in(&folder.path().join("below"), &ask), "false\nbelow/");
    }

    #[test]
    fn a_configuration_that_includes_a_pipe_does_not_hang_the_search_for_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        let mut init = git(folder.path());
        init.args(["init", "-q"]);
        git_output(init, None).unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(folder.path().join(".git/config"), "[include]\n\tpath = ../pipe\n").unwrap();
        let error = repository_within(AT_ONCE, folder.path()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
