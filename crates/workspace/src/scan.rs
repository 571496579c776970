//! Scans the work tree for files that differ from their last known state.
//!
//! An unchanged file costs one `stat`. For ignored files and folders, only the names are read. A
//! folder without changes costs nothing if the overlay or the kernel reports which folders changed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};

use crate::{
    CleanPath, Workspace,
    events::{Events, Touched, within},
    path::is_git,
    place::Stamp,
    root::{id, lock},
    rules::{Folder, Rules},
};

/// The known state of the files in one folder, by name.
pub(crate) type Files<T> = HashMap<OsString, T>;
/// The known state of the files in a tree, by folder relative to the root.
pub(crate) type Tree<T> = HashMap<PathBuf, Files<T>>;

/// The maximum number of threads. Two are enough if the metadata is cached; a cold disk benefits
/// from more.
const THREADS: usize = 8;
/// With fewer folders per thread than this, another thread costs more than it saves.
const FOLDERS_PER_THREAD: usize = 16;
/// The size of the buffer for names, in bytes.
const NAMES: usize = 32 << 10;

/// The result of a scan.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files and links that are new or changed. An ignored file is never new.
    pub(crate) changed: Vec<(CleanPath, Stamp)>,
    /// Known files that no longer exist.
    pub(crate) gone: Vec<CleanPath>,
    /// All folders that are not ignored, except those in [`Found::skipped`].
    pub(crate) folders: BTreeSet<CleanPath>,
    /// Unchanged folders that were not scanned.
    pub(crate) skipped: HashSet<PathBuf>,
    /// Whether a `.gitattributes` is a pipe or a device, which would block git.
    pub(crate) special_attributes: bool,
    /// Subfolders to scan next.
    inner: Vec<Inner>,
}

/// A folder to scan.
struct Visit<'a, T> {
    path: PathBuf,
    above: Option<Arc<Folder>>,
    known: Option<&'a mut Files<T>>,
    /// The source that reports which folders changed, if there is one.
    source: Option<Source<'a>>,
}

/// A subfolder to scan next, the ignore lists of its parent folder, and whether the source reports
/// the changes in the subfolder.
type Inner = (PathBuf, Arc<Folder>, bool);

/// Which part of the tree to scan.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent<'a> {
    /// The whole tree.
    Everything,
    /// The whole tree of an unchanged overlay, read directly from its lower layer (this folder).
    Lower(BorrowedFd<'a>),
    /// Only folders with changes. In an overlay, these are the folders in its upper layer.
    /// Otherwise, they are the touched folders or, if those are not known, all folders. The result
    /// is correct only if the overlay was mounted, or the recording of touched folders began,
    /// before any part of the known state was read.
    Changes(Option<&'a Touched>),
}

impl Workspace {
    /// Compares the tree with its known state. `is_known` returns whether a file is unchanged, and
    /// may update the known state. Skips files that belong to git, to the agent or to the run
    /// itself.
    pub(crate) fn scan<T: Send>(
        &self,
        extent: Extent<'_>,
        known: &mut Tree<T>,
        is_known: impl Fn(&mut T, &Stamp) -> bool + Sync,
    ) -> Found {
        let rules = self.rules(false);
        let mut left: HashMap<&Path, &mut Files<T>> =
            known.iter_mut().map(|(folder, files)| (folder.as_path(), files)).collect();
        let mut found = Found::default();
        let (source, root) = match extent {
            Extent::Everything => (None, self.0.dir.as_fd()),
            Extent::Lower(lower) => (None, lower),
            Extent::Changes(touched) => (self.source(touched), self.0.dir.as_fd()),
        };
        let known = left.remove(Path::new(""));
        let mut level = vec![Visit { path: PathBuf::new(), above: None, known, source }];
        while !level.is_empty() {
            let inner = self.visit_all(root, level, &rules, &is_known, &mut found);
            let visit = |(path, above, told): Inner| {
                let known = left.remove(path.as_path());
                Visit { path, above: Some(above), known, source: source.filter(|_| told) }
            };
            level = inner.into_iter().map(visit).collect();
        }
        // The folders in `left` were not visited: they were skipped, or are now ignored or gone.
        for (folder, files) in left {
            if source.is_some_and(|source| source.tells_of(folder))
                && folder.ancestors().any(|above| found.skipped.contains(above))
            {
                continue;
            }
            for (name, file) in files {
                let path = CleanPath::of(&folder.join(name));
                match self.stamp(&path) {
                    Some(stamp) if is_known(file, &stamp) => {}
                    Some(stamp) => found.changed.push((path, stamp)),
                    None => found.gone.push(path),
                }
            }
        }
        found
    }

    fn source<'a>(&'a self, touched: Option<&'a Touched>) -> Option<Source<'a>> {
        let events = self.0.events.get().map(Arc::as_ref).zip(touched);
        let upper = self.0.upper.get().map(|upper| Source::Upper(upper));
        upper.or(events.map(|(events, touched)| Source::Events(events, touched)))
    }

    fn visit_all<T: Send>(
        &self,
        root: BorrowedFd<'_>,
        level: Vec<Visit<'_, T>>,
        rules: &Rules,
        is_known: &(impl Fn(&mut T, &Stamp) -> bool + Sync),
        found: &mut Found,
    ) -> Vec<Inner> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(THREADS).min(level.len() / FOLDERS_PER_THREAD + 1);
        let todo = Mutex::new(level.into_iter());
        let work = || {
            // Use one buffer for all folders, because the system would have to clear each new
            // buffer.
            let (mut found, mut names) = (Found::default(), vec![MaybeUninit::uninit(); NAMES]);
            loop {
                let next = lock(&todo).next();
                let Some(visit) = next else { return found };
                self.visit(root, visit, rules, is_known, &mut found, &mut names);
            }
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut take = |part: Found| {
                found.changed.extend(part.changed);
                found.gone.extend(part.gone);
                found.folders.extend(part.folders);
                found.skipped.extend(part.skipped);
                found.special_attributes |= part.special_attributes;
                found.inner.extend(part.inner);
            };
            take(work());
            for other in others {
                match other.join() {
                    Ok(part) => take(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        std::mem::take(&mut found.inner)
    }

    fn visit<T>(
        &self,
        root: BorrowedFd<'_>,
        visit: Visit<'_, T>,
        rules: &Rules,
        is_known: &impl Fn(&mut T, &Stamp) -> bool,
        found: &mut Found,
        names: &mut [MaybeUninit<u8>],
    ) {
        let Visit { path, above, mut known, source } = visit;
        let is_root = above.is_none();
        let told = match source.map(|source| source.change(&path)) {
            Some(Change::None) => {
                found.skipped.insert(path);
                return;
            }
            Some(Change::Inside) => true,
            None | Some(Change::Replaced) => false,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if is_root { Path::new(".") } else { &path };
        let gone = |names: &Files<T>| -> Vec<CleanPath> {
            names.keys().map(|name| CleanPath::of(&path.join(name))).collect()
        };
        let Ok(folder) = rustix::fs::openat(root, name, flags, Mode::empty()) else {
            found.gone.extend(known.iter().flat_map(|known| gone(known)));
            return;
        };
        let stat = rustix::fs::fstat(&folder);
        if !is_root {
            let own = stat.map(|stat| id(&stat));
            if own.is_ok_and(|own| self.own().has_id(own) || self.0.guarded.iter().any(|(g, _)| *g == own)) {
                return;
            }
            found.folders.insert(CleanPath::of(&path));
        }
        if let Some(events) = self.0.events.get() {
            events.add(folder.as_fd(), &path, stat.map_or(0, |stat| stat.st_dev));
        }
        let look = |name: &OsStr| {
            rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| (kind(&stat), stat))
        };
        let is_own = |name: &OsStr, stat: &Stat| {
            !self.own().is_empty() && self.is_own(&CleanPath::of(&path.join(name)), Some(id(stat)))
        };
        let (mut others, mut there, mut lists) = (Vec::new(), 0, is_root);
        each_name(&folder, names, |name, kind| {
            lists |= matches!(name.as_bytes(), b".gitignore" | b".git");
            if name.to_str().is_some_and(is_git) {
                return;
            }
            let Some(file) = known.as_mut().and_then(|known| known.get_mut(name)) else {
                others.push((name.to_owned(), kind));
                return;
            };
            there += 1;
            match look(name) {
                Some((FileType::RegularFile | FileType::Symlink, stat)) => {
                    let stamp = Stamp::of(&stat);
                    if !is_known(file, &stamp) && !is_own(name, &stat) {
                        found.changed.push((CleanPath::of(&path.join(name)), stamp));
                    }
                }
                // The path no longer leads to a file or link, but may lead to a folder or a pipe.
                other => {
                    found.gone.push(CleanPath::of(&path.join(name)));
                    others.extend(other.map(|(kind, _)| (name.to_owned(), kind)));
                }
            }
        });
        if let Some(known) = known.filter(|known| known.len() > there) {
            let missing = known.keys().filter(|name| look(name).is_none());
            found.gone.extend(missing.map(|name| CleanPath::of(&path.join(name))));
        }
        let full = self.0.root.join(&path);
        let lists = match above {
            Some(above) if !lists => above,
            above => rules.folder_in(&full, above),
        };
        for (name, kind) in others {
            let kind = match kind {
                FileType::Unknown => look(&name).map_or(kind, |(kind, _)| kind),
                kind => kind,
            };
            let inside = path.join(&name);
            if rules.ignores(&lists, &full.join(&name), kind == FileType::Directory) {
                continue;
            }
            match (kind, look(&name)) {
                (FileType::Directory, _) if !self.own().has(&self.0.root, &inside) => {
                    found.inner.push((inside, Arc::clone(&lists), told));
                }
                (FileType::RegularFile | FileType::Symlink, Some((_, stat))) if !is_own(&name, &stat) => {
                    found.changed.push((CleanPath::of(&inside), Stamp::of(&stat)));
                }
                (FileType::RegularFile | FileType::Symlink | FileType::Directory, _) => {}
                _ => found.special_attributes |= name == ".gitattributes",
            }
        }
    }
}

/// A source that reports which folders changed.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The upper layer of an overlay.
    Upper(&'a Path),
    Events(&'a Events, &'a Touched),
}

impl Source<'_> {
    /// Whether this source would report a change in the folder.
    fn tells_of(self, folder: &Path) -> bool {
        match self {
            Self::Upper(_) => true,
            Self::Events(events, _) => events.has(folder),
        }
    }

    fn change(self, folder: &Path) -> Change {
        match self {
            Self::Upper(upper) => change(&upper.join(folder)),
            Self::Events(events, _) if !events.has(folder) => Change::Replaced,
            Self::Events(_, touched) if within(touched, folder) => Change::Inside,
            Self::Events(..) => Change::None,
        }
    }
}

/// How a folder changed.
enum Change {
    None,
    /// Something in it or below it changed, and the source reports where.
    Inside,
    /// A different folder is now at this path. It was moved there, or was created after the old
    /// folder was deleted.
    Replaced,
}

/// Returns how a folder of an overlay changed. `folder` is its counterpart in the upper layer. If a
/// folder is new, the upper layer contains all of its content.
fn change(folder: &Path) -> Change {
    if rustix::fs::lstat(folder).is_err() {
        return Change::None;
    }
    let marked = MARKS.iter().any(|mark| rustix::fs::lgetxattr(folder, *mark, &mut [0_u8; 0]).is_ok());
    if marked { Change::Replaced } else { Change::Inside }
}

/// The attributes that overlayfs uses to mark folders that hide or replace a folder in the lower
/// layer.
const MARKS: [&str; 3] = ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"];

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Calls `report` with the name of each entry in a folder, and with its kind if the file system
/// reports it. Stops at the first read error.
fn each_name(folder: impl AsFd, buffer: &mut [MaybeUninit<u8>], mut report: impl FnMut(&OsStr, FileType)) {
    let mut names = RawDir::new(folder, buffer);
    while let Some(Ok(entry)) = names.next() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            report(name, entry.file_type());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Baseline;

    #[test]
    fn only_touched_folders_are_visited() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for path in ["a/b", "c/d"] {
            fs::create_dir_all(root.join(path)).unwrap();
            fs::write(root.join(path).join("file"), "").unwrap();
        }
        let workspace = Workspace::open(&root).unwrap();
        let _baseline = Baseline::of(&workspace, &folder.path().join("state")).unwrap();
        let scan = || {
            let touched = workspace.0.events.get().unwrap().touched().unwrap();
            let found = workspace.scan(Extent::Changes(Some(&touched)), &mut Tree::<()>::new(), |(), _| true);
            let mut skipped: Vec<_> = found.skipped.into_iter().collect();
            skipped.sort();
            skipped
        };
        assert_eq!(scan(), [Path::new("")]);
        fs::write(root.join("c/d/file"), "1").unwrap();
        assert_eq!(scan(), [Path::new("a")]);
    }
}
