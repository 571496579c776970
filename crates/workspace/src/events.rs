//! Records which folders have been touched since the start of a run, as reported by the kernel
//! (inotify(7)).
//!
//! A scan starts watching each folder before reading the names in it, so no later change is missed.
//! The scan for the final diff then visits only touched folders and their parents.
//!
//! The kernel does not report a write through a hard link in another folder, and it reports a write
//! through a memory map only once the file is closed. That is why the scans before and after a
//! command are always full: a change made by another program must never be mistaken for one made by
//! the command, because an undo would revert it. If the scan after a command finds a changed file,
//! the file's folder is marked as touched. The diff can therefore miss only changes that another
//! program made in one of these two ways after the last command.
//!
//! Once the reports are no longer reliable, watching stops and all later scans are full. This
//! happens when a folder is renamed, ignore rules change (except those inside the `.git` of a
//! submodule), reports are lost, or the system does not allow any more watches.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::{
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init},
    io::Errno,
};

use crate::{CleanPath, Workspace, root::lock};

/// The magic numbers (statfs(2)) of file systems on which every change goes through this kernel:
/// ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, bcachefs, ZFS and overlayfs.
const LOCAL: [u32; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1, 0x794c_7630];
/// The file that contains the limit on a user's watches. The limit applies to all programs
/// combined.
const SYSTEM_LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
/// A run uses at most `1 / SHARE` of a user's watches, leaving the rest for other runs in a batch
/// and for other programs, such as editors.
const SHARE: usize = 16;
/// The size of the buffer for reports, in bytes.
const BUFFER: usize = 16 << 10;

/// Returns the kinds of events to watch for in a folder.
fn flags() -> WatchFlags {
    WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::MODIFY
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

/// Folders with at least one event, relative to the root.
pub(crate) type Touched = BTreeSet<PathBuf>;

/// The watched folders of a tree. A scan adds every folder that it visits.
#[derive(Debug)]
pub(crate) struct Events(Mutex<Option<Watching>>);

#[derive(Debug)]
struct Watching {
    inotify: OwnedFd,
    device: u64,
    limit: usize,
    folders: HashMap<i32, PathBuf>,
    numbers: HashMap<PathBuf, i32>,
    /// Watched folders outside the tree, each with the name of the entry to watch. The entry is a
    /// file with ignore rules for the tree. If the path to that file does not exist, it is the first
    /// missing component.
    rules: Vec<(i32, Vec<u8>)>,
    /// The folders touched since [`Events::open`].
    touched: Touched,
    /// Whether the first scan has ended. Folders that are added later are marked as touched.
    complete: bool,
}

impl Events {
    /// Prepares to watch a tree, whose folders are added later. Watches nothing if the root's file
    /// system can change without this kernel's knowledge.
    pub(crate) fn open(tree: &Workspace) -> Self {
        Self(Mutex::new(Watching::open(tree).ok().flatten()))
    }

    /// Starts watching a folder, unless it is already being watched. `device` is the device that
    /// contains the folder.
    pub(crate) fn add(&self, folder: BorrowedFd<'_>, path: &Path, device: u64) {
        let mut watching = lock(&self.0);
        watching.take_if(|watching| !watching.add(folder, path, device));
    }

    /// Ends the first scan: folders that are added from now on are marked as touched.
    pub(crate) fn complete(&self) {
        if let Some(watching) = lock(&self.0).as_mut() {
            watching.complete = true;
        }
    }

    /// Whether a folder is watched.
    pub(crate) fn has(&self, folder: &Path) -> bool {
        lock(&self.0).as_ref().is_some_and(|watching| watching.numbers.contains_key(folder))
    }

    /// Returns the folders touched since the start, or `None` if they are not known.
    pub(crate) fn touched(&self) -> Option<Touched> {
        let mut watching = lock(&self.0);
        watching.take_if(|watching| !watching.read());
        watching.as_ref().map(|watching| watching.touched.clone())
    }

    /// Marks the folder of a changed file as touched, in case the kernel did not report the change.
    pub(crate) fn touch_folder_of(&self, path: &CleanPath) {
        let folder = AsRef::<Path>::as_ref(path).parent();
        if let Some((watching, folder)) = lock(&self.0).as_mut().zip(folder) {
            watching.touched.insert(folder.to_owned());
        }
    }
}

impl Watching {
    fn open(tree: &Workspace) -> rustix::io::Result<Option<Self>> {
        let root = tree.0.dir.as_fd();
        if !LOCAL.contains(&(rustix::fs::fstatfs(root)?.f_type as u32)) {
            return Ok(None);
        }
        let limit = std::fs::read_to_string(SYSTEM_LIMIT).ok().and_then(|text| text.trim().parse().ok());
        let limit = limit.map_or(0, |limit: usize| limit / SHARE);
        let device = rustix::fs::fstat(root)?.st_dev;
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut rules = Vec::new();
        let lists = tree.rules(false).outside(tree.root());
        let targets: Vec<_> = lists.iter().filter_map(|list| list.canonicalize().ok()).collect();
        for list in lists.into_iter().chain(targets) {
            // Watch the nearest existing ancestor, to notice changes to the next component of the
            // path.
            let places = list.ancestors().filter_map(|path| Some((path.parent()?, path.file_name()?)));
            let Some((folder, name)) = places.into_iter().find(|(folder, _)| folder.is_dir()) else {
                continue;
            };
            rules.push((add_watch(&inotify, folder, flags())?, name.as_bytes().to_vec()));
        }
        let (folders, numbers, touched, complete) = Default::default();
        Ok(Some(Self { inotify, device, limit, folders, numbers, rules, touched, complete }))
    }

    /// Returns `false` if the folder cannot be watched.
    fn add(&mut self, folder: BorrowedFd<'_>, path: &Path, device: u64) -> bool {
        if device != self.device || self.folders.len() >= self.limit {
            return false;
        }
        // Use the open folder, because its path could lead to a different folder by now. A folder
        // that is already watched keeps its watch descriptor.
        let opened = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let Ok(number) = add_watch(&self.inotify, opened, flags()) else { return false };
        if self.numbers.get(path) == Some(&number) {
            return true;
        }
        self.forget(path);
        self.numbers.insert(path.to_owned(), number);
        if self.complete {
            self.touched.insert(path.to_owned());
        }
        // A folder that is reachable by two paths, because of a bind mount, cannot be watched.
        self.folders.insert(number, path.to_owned()).is_none()
    }

    /// Forgets the folder at a path, because it is gone or another folder has taken its place. The
    /// kernel removes the watch once the folder is deleted and no process holds it open.
    fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.folders.remove(&number);
        }
    }

    /// Reads the pending reports. Returns `false` if they are no longer reliable.
    fn read(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let (folders, numbers) = (&mut self.folders, &mut self.numbers);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return true,
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            };
            let number = event.wd();
            let name = event.file_name().map_or(&b""[..], std::ffi::CStr::to_bytes);
            let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
            // The ignore rules of the tree may have changed.
            let gone = event.events().contains(ReadFlags::IGNORED);
            let rules = matches!(name, b".gitignore" | b".git")
                || self.rules.iter().any(|(folder, list)| *folder == number && (list == name || gone));
            if rules || event.events().intersects(lost) {
                return false;
            }
            let Some(path) = folders.get(&number).cloned() else { continue };
            // The folder itself is gone, or a folder in it is gone or new. Handle both kinds of
            // event: while a process holds a folder open, only the parent folder's event reports
            // that it is gone.
            let entries = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
            let replaced = match event.events() {
                flags if flags.contains(ReadFlags::IGNORED) => Some(path.clone()),
                flags if flags.contains(ReadFlags::ISDIR) && flags.intersects(entries) => {
                    Some(path.join(OsStr::from_bytes(name)))
                }
                _ => None,
            };
            if let Some(number) = replaced.and_then(|path| numbers.remove(&path)) {
                folders.remove(&number);
            }
            if !gone {
                self.touched.insert(path);
            }
        }
    }
}

/// Whether this folder, or any folder below it, was touched.
pub(crate) fn within(touched: &Touched, folder: &Path) -> bool {
    touched.range(folder.to_owned()..).next().is_some_and(|first| first.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_touched_by_events_in_it_or_below_it_but_not_beside_it() {
        let touched: Touched = ["a/b", "c-d", "e"].map(PathBuf::from).into();
        for (folder, expected) in [
            ("", true),
            ("a", true),
            ("a/b", true),
            ("a/b/c", false),
            ("c", false),
            ("e", true),
            ("f", false),
        ] {
            assert_eq!(within(&touched, Path::new(folder)), expected, "{folder}");
        }
        assert!(!within(&Touched::new(), Path::new("")));
    }
}
