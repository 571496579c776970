//! The file system for dry runs: an overlay in a mount namespace that the program itself enters.
//! From then on, the program and every command it starts see the repository, but their changes go
//! to another directory.
//!
//! ```text
//! merged     what is visible: the repository with the changes on top
//!  ├─ DIR/upper    the changes: new file contents, whiteouts for removed files
//!  └─ ROOT         the repository, never modified
//! ```
//!
//! `merged` may be the repository's own path, which is the best choice: absolute paths stored by
//! tools (virtual environments, build caches, editable installs) then lead into the overlay, and
//! the repository itself can no longer be reached by its path.

use std::{
    ffi::CString,
    fs::{self, File, FileTimes},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStringExt,
            fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, XattrFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{getegid, geteuid},
    thread::{CapabilitySet, CapabilitySets, UnshareFlags, capabilities, set_capabilities},
};

use crate::{launcher::Context, sys};

pub use crate::overlay_probe::probe;

/// An overlay that this process has entered. Dropping it removes the changes. The process stays in
/// the overlay's mount namespace, where paths that the overlay covered never lead to the repository
/// again.
#[derive(Debug)]
pub struct Overlay {
    dir: PathBuf,
    merged: PathBuf,
    /// Whether the mount point is a directory other than the repository. If so, dropping the
    /// overlay also removes that directory.
    apart: bool,
    lower: Option<OwnedFd>,
}

impl Overlay {
    /// Returns the absolute path of the overlay with all symbolic links resolved.
    #[must_use]
    pub fn merged(&self) -> &Path {
        &self.merged
    }

    /// Hands over the lower layer (the repository itself) if the overlay had no changes when it was
    /// entered. The caller must not write to the lower layer. Scanning it is cheaper than scanning
    /// the overlay.
    pub fn take_lower(&mut self) -> Option<OwnedFd> {
        self.lower.take()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if self.apart {
            // Unmounting requires the capabilities that `enter` dropped from the effective set.
            if let Ok(sets) = capabilities(None) {
                let _ = set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets });
            }
            if unmount(&self.merged, UnmountFlags::DETACH).is_ok() {
                let _ = fs::remove_dir(&self.merged);
            }
        }
        // If anything is left, a later call to [`remove`] can remove it.
        let _ = remove(&self.dir);
    }
}

/// Moves this process, which must be single-threaded, into a mount namespace where `merged` shows
/// `root` and changes go to `dir`. Creates missing directories, including `upper` and `work` in
/// `dir`. Keeps the changes in an existing `upper`, so that an interrupted dry run can be resumed.
/// Only the user and mount namespaces change; the terminal, network, process id and signals stay
/// the same.
///
/// If the process may mount (as root), this creates only a mount namespace. Otherwise, it also
/// creates a user namespace that contains only this user and group. Call [`probe`] first to find
/// problems that would otherwise show up only later, such as files with other owners.
///
/// # Errors
/// Fails if the system does not allow an overlay, if `dir` is inside `root`, or if something is
/// mounted below `root`, because an overlay would not show such a mount. After a failure, the
/// process may already be in new namespaces, where all files are the same as before.
pub fn enter(root: &Path, dir: &Path, merged: &Path) -> io::Result<Overlay> {
    if fs::read_dir("/proc/self/task").context("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("an overlay can only be entered while the process has one thread"));
    }
    let root = root.canonicalize().context(&root.to_string_lossy())?;
    check_place(&root, dir)?;
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&work).context(&work.to_string_lossy())?;
    let is_new = match fs::create_dir(&upper) {
        Ok(()) => copy_attributes(&root, &upper).context("preparing the overlay").map(|()| true)?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e).context(&upper.to_string_lossy()),
    };
    fs::create_dir_all(merged).context(&merged.to_string_lossy())?;
    let (dir, merged) = (dir.canonicalize()?, merged.canonicalize()?);
    let apart = merged != root;
    if apart && merged.starts_with(&root) {
        return Err(io::Error::other("an overlay cannot be mounted inside the repository"));
    }
    let here = std::env::current_dir();

    let own_users = !capabilities(None).context("capabilities")?.effective.contains(CapabilitySet::SYS_ADMIN);
    new_namespaces(own_users)?;
    let lower = open_folder(&root)?;
    mount_overlay(&root, &dir, &merged, can_set_trusted_attributes(&dir.join("upper")))?;
    if own_users && !geteuid().is_root() {
        // Drop the capabilities that the new user namespace grants. With them, the process would
        // ignore the permissions of the user's own files.
        let sets = capabilities(None).context("capabilities")?;
        set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..sets })
            .context("dropping capabilities")?;
    }
    if let Ok(here) = here
        && here.starts_with(&merged)
    {
        // The current directory still refers to the repository. Make it refer to the overlay.
        std::env::set_current_dir(&here).context(&here.to_string_lossy())?;
    }
    Ok(Overlay { dir, merged, apart, lower: is_new.then_some(lower) })
}

/// Removes `upper` and `work` in `dir`, regardless of their permissions. They contain the changes
/// from an overlay that is no longer in use.
///
/// # Errors
/// Fails if something cannot be removed.
pub fn remove(dir: &Path) -> io::Result<()> {
    ["upper", "work"].iter().try_for_each(|part| remove_tree(&dir.join(part)))
}

pub(crate) fn remove_tree(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        other => return other,
    }
    let mut todo = vec![tree.to_owned()];
    while let Some(folder) = todo.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(tree)
}

/// Checks for obstacles that can be detected without creating an overlay.
pub(crate) fn check_place(root: &Path, dir: &Path) -> io::Result<()> {
    let existing = dir.ancestors().find_map(|d| d.canonicalize().ok()).unwrap_or_default();
    if existing.starts_with(root) {
        return Err(io::Error::other("the directory for the changes is inside the repository"));
    }
    let mounts = fs::read("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mut points = mounts.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    match points.find_map(|p| Some(unescape(p)).filter(|p| p != root && p.starts_with(root))) {
        Some(point) => {
            Err(io::Error::other(format!("{} is a separate mount inside the repository", point.display())))
        }
        None => Ok(()),
    }
}

/// Decodes a path in mountinfo, where spaces and backslashes are written in octal.
fn unescape(path: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// Copies the attributes of the repository's root directory to the upper layer's directory, which
/// becomes the visible root.
fn copy_attributes(root: &Path, upper: &Path) -> io::Result<()> {
    let (is, has) = (fs::metadata(root)?, fs::metadata(upper)?);
    if (is.uid(), is.gid()) != (has.uid(), has.gid()) {
        chown(upper, Some(is.uid()), Some(is.gid()))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(is.mode() & 0o7777))?;
    File::open(upper)?.set_times(FileTimes::new().set_accessed(is.accessed()?).set_modified(is.modified()?))
}

fn new_namespaces(own_users: bool) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWNS;
    if own_users {
        flags |= UnshareFlags::NEWUSER;
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(flags).context(match own_users {
        true => "creating a user namespace, which this user needs for an overlay",
        false => "creating a mount namespace",
    })?;
    if own_users {
        fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).context("uid_map")?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).context("gid_map")?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("mount propagation")
}

/// Mounts an overlay of `root` at `merged`. Changes go to the `upper` directory in `dir`, which
/// must also contain a `work` directory. `trusted` is true if attributes that only root can set may
/// be used.
pub(crate) fn mount_overlay(root: &Path, dir: &Path, merged: &Path, trusted: bool) -> io::Result<()> {
    // Refer to the layers by file descriptor, because kernels differ in how they parse escapes in
    // mount options.
    let [lower, upper, work] = [root, &dir.join("upper"), &dir.join("work")].map(open_folder);
    let (lower, upper, work) = (lower?, upper?, work?);
    let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let layers = format!("lowerdir={},upperdir={},workdir={}", path(&lower), path(&upper), path(&work));
    // With `trusted` attributes, directories in the repository can be renamed. Without them,
    // `rename` fails with EXDEV, and programs copy the directories instead.
    let attempts = if trusted { &["redirect_dir=on", "redirect_dir=off"][..] } else { &["userxattr"][..] };
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut outcome = Ok(());
    for extra in attempts {
        let options = CString::new(format!("{layers},{extra}"))?;
        outcome = mount("overlay", merged, "overlay", flags, options.as_c_str());
        if outcome.is_ok() {
            break;
        }
    }
    outcome.context("mounting the overlay")
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(&path.to_string_lossy())
}

/// Whether overlayfs can set its `trusted` attributes. It cannot in user namespaces and on some
/// file systems.
fn can_set_trusted_attributes(folder: &Path) -> bool {
    const NAME: &str = "trusted.overlay.probe";
    rustix::fs::setxattr(folder, NAME, b"y", XattrFlags::empty()).is_ok()
        && rustix::fs::removexattr(folder, NAME).is_ok()
}

/// Finds a file that belongs to another user or group. Overlayfs could not copy it up in a user
/// namespace that contains only this user and group.
pub(crate) fn first_foreign_file(root: &Path) -> io::Result<Option<PathBuf>> {
    let own = (geteuid().as_raw(), getegid().as_raw());
    let of_others = |m: &fs::Metadata| (m.uid(), m.gid()) != own;
    if of_others(&fs::metadata(root)?) {
        return Ok(Some(root.to_owned()));
    }
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Skip this folder, since the run could not read it either.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if of_others(&entry.metadata()?) {
                return Ok(Some(entry.path()));
            }
            // Skip git's objects, since there may be many and git never changes their contents.
            if entry.file_type()?.is_dir() && !entry.path().ends_with(".git/objects") {
                todo.push(entry.path());
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points_are_decoded() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(b"/\\"), Path::new("/\\"));
        assert_eq!(unescape("/größe".as_bytes()), Path::new("/größe"));
    }
}
