//! Whether an overlay works here: made in a process of its own, used as a run would use it, and gone with that process.

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
    launcher::Doing,
    order::{Event, Order, Profile, Task},
    overlay,
    policy::{Network, ResourceLimits},
    view::View,
};

/// How long the trial may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest file of the repository that is copied up for a trial, in bytes.
const TRIAL_FILE: u64 = 1 << 20;

/// Whether an overlay of `root` can be made with its changes in `dir`, which need not exist: tried for real in a process of its own, and
/// nothing is left behind. `launcher` is as in [`crate::Sandbox::new`]. For a user who cannot mount without a user namespace
/// the whole tree is walked, because the files in it have to be the user's own.
///
/// # Errors
/// Why not, as a sentence without a full stop.
pub fn probe(root: &Path, dir: &Path, launcher: &[OsString]) -> Result<(), String> {
    try_out(root, dir, launcher).map_err(|e| e.to_string())
}

fn try_out(root: &Path, dir: &Path, launcher: &[OsString]) -> io::Result<()> {
    let root = root.canonicalize().doing(&root.to_string_lossy())?;
    overlay::check_place(&root, dir)?;
    if !capabilities(None).doing("capabilities")?.effective.contains(CapabilitySet::SYS_ADMIN)
        && let Some(path) = overlay::first_of_others(&root)?
    {
        let path = path.strip_prefix(&root).ok().filter(|p| p != &Path::new("")).unwrap_or(&root);
        let why = format!(
            "{} belongs to another user or group, which an overlay without root's rights cannot keep",
            path.display()
        );
        return Err(io::Error::other(why));
    }
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("."));
    let trial = tempfile::Builder::new().prefix(".overlay-").tempdir_in(existing);
    let trial = trial.doing(&existing.to_string_lossy())?;
    let outcome = ask(launcher, &root, trial.path());
    // Before the folder goes: work holds a folder without permissions.
    overlay::remove(trial.path()).and(outcome)
}

/// Has a launcher do it.
fn ask(launcher: &[OsString], root: &Path, dir: &Path) -> io::Result<()> {
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
    ours.set_read_timeout(Some(PATIENCE))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .process_group(0)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .doing("starting the launcher")?;
    let mut line = String::new();
    let length = u32::try_from(order.len()).map_err(io::Error::other)?;
    // A launcher that fails at once closes the socket; what it says about it is more useful than "broken pipe".
    let _ = ours.write_all(&length.to_le_bytes()).and_then(|()| ours.write_all(&order));
    let told = BufReader::new(&ours).read_line(&mut line);
    if told.is_err() {
        // It may hang on a file system that does not answer.
        let _ = child.kill();
    }
    child.wait()?;
    match serde_json::from_str(&line) {
        Ok(Event::Exited(0)) => Ok(()),
        Ok(Event::Setup(why)) => Err(io::Error::other(why)),
        _ => Err(io::Error::other("the launcher ended without saying whether an overlay works")),
    }
}

/// The launcher's part: makes the overlay, and does in it what a run does.
pub(crate) fn rehearse(root: &OsStr, dir: &OsStr) -> io::Result<()> {
    let dir = Path::new(dir);
    let overlay = overlay::enter(Path::new(root), dir, &dir.join("merged"))?;
    use_it(overlay.merged()).doing("using the overlay")
}

fn use_it(merged: &Path) -> io::Result<()> {
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
    if let Some(name) = one_to_copy_up(merged)? {
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

/// A file of the repository's top folder that may be written.
fn one_to_copy_up(merged: &Path) -> io::Result<Option<OsString>> {
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
