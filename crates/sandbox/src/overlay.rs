//! The tree a dry-run works in: overlayfs in a mount namespace that the program itself enters, so that everything it does afterwards,
//! and every command it starts, sees the repository and changes something else.
//!
//! ```text
//! merged     what is seen: the repository with the changes over it
//!  ├─ DIR/upper    the changes: files as they are now, removed ones as whiteouts
//!  └─ ROOT         the repository, never written
//! ```
//!
//! `merged` may be the repository's own path. That is the best place: paths that tools have noted (virtual environments, build caches,
//! editable installs) lead into the overlay, and the repository itself can no longer be reached by its name.

use std::{
    ffi::CString,
    fs::{self, File, FileTimes},
    io,
    os::{
        fd::AsRawFd,
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

use crate::{launcher::Doing, sys};

pub use crate::overlay_probe::probe;

/// An overlay that this process is in. Dropping it removes the changes; the process stays in its namespace, and the repository's path, when the overlay
/// was put there, never leads to the repository again.
#[derive(Debug)]
pub struct Overlay {
    dir: PathBuf,
    merged: PathBuf,
    /// The mount point is not the repository, so it can go too.
    apart: bool,
}

impl Overlay {
    /// Where the overlay is, absolute and without symbolic links.
    #[must_use]
    pub fn merged(&self) -> &Path {
        &self.merged
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if self.apart {
            // The capabilities over this mount were only laid aside.
            if let Ok(sets) = capabilities(None) {
                let _ = set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets });
            }
            if unmount(&self.merged, UnmountFlags::DETACH).is_ok() {
                let _ = fs::remove_dir(&self.merged);
            }
        }
        // What is left can be removed with `remove`.
        let _ = remove(&self.dir);
    }
}

/// Puts this process, which must have one thread, into a mount namespace where `merged` shows `root`, with changes going to `dir`. Folders
/// that are missing are made, in `dir` `upper` and `work`; an `upper` that is there already is shown as it is, so that an interrupted
/// dry-run can go on. Only namespaces of users and mounts change: terminal, network, process id and signals stay.
///
/// With the right to mount (root) only a mount namespace is made; otherwise a user namespace too, in which this user and group are the
/// only ones. Ask [`probe`] before: it finds what shows only later, such as files of other owners.
///
/// # Errors
/// When the system does not allow it, `dir` lies in `root`, or something is mounted below `root`, which an overlay would not show. The
/// process may then be in namespaces of its own already, which show everything as it was.
pub fn enter(root: &Path, dir: &Path, merged: &Path) -> io::Result<Overlay> {
    if fs::read_dir("/proc/self/task").doing("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("an overlay can only be entered while there is one thread"));
    }
    let root = root.canonicalize().doing(&root.to_string_lossy())?;
    check_place(&root, dir)?;
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&work).doing(&work.to_string_lossy())?;
    match fs::create_dir(&upper) {
        Ok(()) => make_alike(&root, &upper).doing("preparing the overlay")?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).doing(&upper.to_string_lossy()),
    }
    fs::create_dir_all(merged).doing(&merged.to_string_lossy())?;
    let (dir, merged) = (dir.canonicalize()?, merged.canonicalize()?);
    let apart = merged != root;
    if apart && merged.starts_with(&root) {
        return Err(io::Error::other("an overlay cannot be shown inside the repository"));
    }
    let here = std::env::current_dir();

    let own_users = !capabilities(None).doing("capabilities")?.effective.contains(CapabilitySet::SYS_ADMIN);
    new_namespaces(own_users)?;
    mount_overlay(&root, &dir, &merged, may_mark_as_trusted(&dir.join("upper")))?;
    if own_users && !geteuid().is_root() {
        // They reach as far as the user's own files, and let this process read and write what their permissions forbid.
        let sets = capabilities(None).doing("capabilities")?;
        set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..sets })
            .doing("laying capabilities aside")?;
    }
    if let Ok(here) = here
        && here.starts_with(&merged)
    {
        // The folder that is open as the current one is still the repository's.
        std::env::set_current_dir(&here).doing(&here.to_string_lossy())?;
    }
    Ok(Overlay { dir, merged, apart })
}

/// Removes the changes of an overlay that is no longer in use, `upper` and `work` in `dir`, whatever permissions they were left with.
///
/// # Errors
/// When something cannot be removed.
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

/// What stands in the way and can be seen without trying.
pub(crate) fn check_place(root: &Path, dir: &Path) -> io::Result<()> {
    let existing = dir.ancestors().find_map(|d| d.canonicalize().ok()).unwrap_or_default();
    if existing.starts_with(root) {
        return Err(io::Error::other("the folder for the changes lies inside the repository"));
    }
    let mounts = fs::read("/proc/self/mountinfo").doing("/proc/self/mountinfo")?;
    let mut points = mounts.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    match points.find_map(|p| Some(unescape(p)).filter(|p| p != root && p.starts_with(root))) {
        Some(point) => {
            Err(io::Error::other(format!("{} is a mount of its own inside the repository", point.display())))
        }
        None => Ok(()),
    }
}

/// A path in mountinfo: blanks and backslashes stand there in octal.
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

/// The upper layer's top folder is what is seen of the repository's.
fn make_alike(root: &Path, upper: &Path) -> io::Result<()> {
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
    sys::unshare(flags).doing(match own_users {
        true => "a user namespace, which this user needs for an overlay",
        false => "a mount namespace",
    })?;
    if own_users {
        fs::write("/proc/self/setgroups", "deny").doing("setgroups")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).doing("uid_map")?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).doing("gid_map")?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing("mount propagation")
}

/// Mounts at `merged` what is in `root`, with changes going to `upper` in `dir`, where `work` has to be too.
/// `trusted` says whether marks may be made that only root can make.
pub(crate) fn mount_overlay(root: &Path, dir: &Path, merged: &Path, trusted: bool) -> io::Result<()> {
    // By descriptors, because in mount options commas, colons and backslashes of a path would have to be escaped, in ways that
    // differ between kernels.
    let open = |path: &Path| {
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(&path.to_string_lossy())
    };
    let [lower, upper, work] = [open(root)?, open(&dir.join("upper"))?, open(&dir.join("work"))?];
    let path = |fd: &rustix::fd::OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let layers = format!("lowerdir={},upperdir={},workdir={}", path(&lower), path(&upper), path(&work));
    // With marks that only root may make, folders of the repository can be renamed; without, programs copy them instead (EXDEV).
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
    outcome.doing("mounting the overlay")
}

/// Whether attributes of the `trusted` kind, by which overlayfs marks its files, can be set: not in a user namespace, nor on every
/// file system.
fn may_mark_as_trusted(folder: &Path) -> bool {
    const NAME: &str = "trusted.overlay.probe";
    rustix::fs::setxattr(folder, NAME, b"y", XattrFlags::empty()).is_ok()
        && rustix::fs::removexattr(folder, NAME).is_ok()
}

/// The first file, if any, whose owner or group would have no number in a user namespace with only this user and group: overlayfs could
/// not copy it up.
pub(crate) fn first_of_others(root: &Path) -> io::Result<Option<PathBuf>> {
    let own = (geteuid().as_raw(), getegid().as_raw());
    let of_others = |m: &fs::Metadata| (m.uid(), m.gid()) != own;
    if of_others(&fs::metadata(root)?) {
        return Ok(Some(root.to_owned()));
    }
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Nothing in there can be changed in a real run either.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if of_others(&entry.metadata()?) {
                return Ok(Some(entry.path()));
            }
            // Git's objects, of which there can be more than files, are written once.
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
    fn blanks_in_mount_points_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(b"/\\"), Path::new("/\\"));
        assert_eq!(unescape("/größe".as_bytes()), Path::new("/größe"));
    }
}
