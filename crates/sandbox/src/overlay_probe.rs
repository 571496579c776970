//! Checks whether overlays work here by creating one in a separate process and using it the way a
//! run would. The overlay goes away with that process.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags},
    thread::{CapabilitySet, capabilities},
};

use crate::{
    launcher::Context,
    order::{Event, Order, Profile, Task},
    overlay,
    policy::{Network, ResourceLimits},
    view::View,
};

/// How long the check may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size, in bytes, of the repository file that the check copies up.
const TRIAL_FILE: u64 = 1 << 20;

/// Checks, in a separate process, that an overlay of `root` with its changes in `dir` can be
/// created. `dir` need not exist. Leaves nothing behind. `launcher` is the same as in
/// [`crate::Sandbox::new`]. If mounting requires a user namespace, this walks the entire tree,
/// because all files in it must belong to the user.
///
/// # Errors
/// Returns a sentence, without a period, that explains why the overlay cannot be created.
pub fn probe(root: &Path, dir: &Path, launcher: &[OsString]) -> Result<(), String> {
    try_overlay(root, dir, launcher).map_err(|e| e.to_string())
}

fn try_overlay(root: &Path, dir: &Path, launcher: &[OsString]) -> io::Result<()> {
    let root = root.canonicalize().context(&root.to_string_lossy())?;
    overlay::check_place(&root, dir)?;
    if !capabilities(None).context("capabilities")?.effective.contains(CapabilitySet::SYS_ADMIN)
        && let Some(path) = overlay::first_foreign_file(&root)?
    {
        let path = path.strip_prefix(&root).ok().filter(|p| p != &Path::new("")).unwrap_or(&root);
        let why = format!(
            "{} belongs to another user or group, which an overlay cannot preserve without root privileges",
            path.display()
        );
        return Err(io::Error::other(why));
    }
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("."));
    let trial = tempfile::Builder::new().prefix(".overlay-").tempdir_in(existing);
    let trial = trial.context(&existing.to_string_lossy())?;
    let outcome = run_in_launcher(launcher, &root, trial.path());
    // Remove the layers before `trial` is dropped. Dropping it cannot remove `work`, which contains
    // a directory without permissions.
    overlay::remove(trial.path()).and(outcome)
}

/// Runs the check in a launcher.
fn run_in_launcher(launcher: &[OsString], root: &Path, dir: &Path) -> io::Result<()> {
    let [program, args @ ..] = launcher else { return Err(io::Error::other("no launcher was given")) };
    let order = serde_json::to_vec(&Order {
        profile: Profile::default(),
        view: View::default(),
        proxy: false,
        network: Network::default(),
        limits: ResourceLimits::default(),
        user_namespace: false,
        task: Task::Overlay { root: root.into(), dir: dir.into() },
    })?;
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(TIMEOUT))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .process_group(0)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the launcher")?;
    let mut line = String::new();
    let length = u32::try_from(order.len()).map_err(io::Error::other)?;
    // If the launcher fails immediately, the error it reports is more useful than "broken pipe".
    let _ = ours.write_all(&length.to_le_bytes()).and_then(|()| ours.write_all(&order));
    let answer = BufReader::new(&ours).read_line(&mut line);
    if answer.is_err() {
        // The launcher may hang on an unresponsive file system.
        let _ = child.kill();
    }
    child.wait()?;
    match serde_json::from_str(&line) {
        Ok(Event::Exited(0)) => Ok(()),
        Ok(Event::Setup(why)) => Err(io::Error::other(why)),
        _ => Err(io::Error::other("the launcher exited without reporting whether an overlay works")),
    }
}

/// Creates the overlay and uses it the way a run would. Runs in the launcher.
pub(crate) fn check(root: &OsStr, dir: &OsStr) -> io::Result<()> {
    let dir = Path::new(dir);
    let overlay = overlay::enter(Path::new(root), dir, &dir.join("merged"))?;
    exercise(overlay.merged()).context("using the overlay")
}

fn exercise(merged: &Path) -> io::Result<()> {
    let folder = File::open(merged)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    for name in [FIRST, SECOND] {
        let fd = rustix::fs::openat2(&folder, name, flags, Mode::from_raw_mode(0o600), resolve)?;
        let mut file = File::from(fd);
        file.write_all(name.as_bytes())?;
        file.sync_all()?;
    }
    exchange(&folder, OsStr::new(SECOND))?;
    if let Some(name) = file_to_copy_up(merged)? {
        File::options().append(true).open(merged.join(&name))?;
        exchange(&folder, &name)?;
        rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?;
    }
    folder.sync_all()
}

const FIRST: &str = ".agent-overlay-probe-1";
const SECOND: &str = ".agent-overlay-probe-2";

fn exchange(folder: &File, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(folder, FIRST, folder, name, RenameFlags::EXCHANGE)?)
}

/// Finds a writable file of at most [`TRIAL_FILE`] bytes in the repository's top-level directory.
fn file_to_copy_up(merged: &Path) -> io::Result<Option<OsString>> {
    for entry in fs::read_dir(merged)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let probes = [FIRST, SECOND].iter().any(|n| entry.file_name() == *n);
        if found.is_file() && found.len() <= TRIAL_FILE && found.mode() & 0o200 != 0 && !probes {
            return Ok(Some(entry.file_name()));
        }
    }
    Ok(None)
}
