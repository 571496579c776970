//! Copies the whole tree for a dry run, including ignored files, so that tests find their
//! dependencies and build caches.

use std::{
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps};

use crate::{CleanPath, Own, Workspace, git};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// The number of files and links.
    pub files: u64,
    /// The total size of the files in bytes.
    pub bytes: u64,
    /// The number of files that share their blocks with the original.
    pub reflinked: u64,
    /// Pipes, sockets and devices, which are not copied.
    pub left_out: Vec<PathBuf>,
}

/// The cost of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyCost {
    /// The number of files and links.
    pub files: u64,
    /// The total size of the files in bytes.
    pub bytes: u64,
    /// Whether the file system can share blocks. If so, copies of files take no space.
    pub shared: bool,
}

impl Workspace {
    /// Estimates the cost of [`Workspace::copy_to`] into `dir`, which need not exist. Walks the
    /// tree, and tries to share the blocks of one file.
    ///
    /// # Errors
    /// If anything cannot be read, or the file for this test cannot be created.
    pub fn copy_cost(&self, dir: &Path) -> io::Result<CopyCost> {
        let mut cost = CopyCost::default();
        let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("."));
        let itself = fs::metadata(dir).ok().map(|m| (m.dev(), m.ino()));
        let mut tried = false;
        let mut todo = vec![self.root().to_owned()];
        while let Some(folder) = todo.pop() {
            let Some(entries) = if_present(fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                let Some(found) = if_present(entry.metadata())? else { continue };
                let id = (found.dev(), found.ino());
                let inside = path.strip_prefix(self.root()).map(CleanPath::of);
                if inside.is_ok_and(|path| self.is_own(&path, Some(id))) {
                    continue;
                }
                if found.is_dir() {
                    if Some(id) != itself {
                        todo.push(path);
                    }
                } else if found.is_symlink() {
                    cost.files += 1;
                } else if found.is_file() {
                    cost.files += 1;
                    cost.bytes += found.len();
                    if !tried && found.len() > 0 {
                        tried = true;
                        let trial = tempfile::tempfile_in(existing)?;
                        let file = if_present(File::open(&path))?;
                        cost.shared = file.is_some_and(|f| rustix::fs::ioctl_ficlone(&trial, f).is_ok());
                    }
                }
            }
        }
        Ok(cost)
    }

    /// Gives `tree` its own repository, as [`Workspace::copy_to`] does, if the `.git` of this
    /// workspace only points to a repository elsewhere, as in a worktree or a submodule. `tree`
    /// must have the same files as this workspace. It may be an overlay that is mounted at the
    /// workspace's own path. Returns whether a repository was created.
    ///
    /// # Errors
    /// If anything cannot be read or written.
    pub fn detach_git(&self, tree: &Path) -> io::Result<bool> {
        self.detach(tree, &mut CopyReport::default())
    }

    fn detach(&self, tree: &Path, report: &mut CopyReport) -> io::Result<bool> {
        let git_file = tree.join(".git");
        if !fs::symlink_metadata(&git_file).is_ok_and(|m| m.is_file()) {
            return Ok(false);
        }
        let times = times(&fs::metadata(tree)?);
        replace_git_file(self.root(), &git_file, report)?;
        rustix::fs::utimensat(CWD, tree, &times, AtFlags::empty())?;
        Ok(true)
    }

    /// Copies everything, including ignored files and `.git`, into a folder that must not exist
    /// yet. Links are copied as links. Preserves permissions and times, so that build caches stay
    /// valid. Shares blocks if the file system supports it. Skips the run's own files, as well as
    /// the copy itself if it is inside the root. If `.git` only points to a repository elsewhere,
    /// as in a worktree or a submodule, the copy gets its own repository, so that git commands in
    /// the copy do not change the original repository.
    ///
    /// # Errors
    /// If the folder exists, or anything cannot be read or written. Anything copied so far is left
    /// in place.
    pub fn copy_to(&self, dir: &Path) -> io::Result<CopyReport> {
        let mut report = CopyReport::default();
        copy_tree(self.root(), dir, self.own(), &mut report)?;
        self.detach(dir, &mut report)?;
        Ok(report)
    }
}

/// Copies the contents of a folder, except its `.git`, into another folder, which is created if it
/// does not exist. Links are copied as links. Preserves permissions and times, so that build caches
/// stay valid. Shares blocks if the file system supports it. Leaves out pipes, sockets and devices.
///
/// # Errors
/// If anything cannot be read or written, or already exists in the other folder. Anything copied so
/// far is left in place.
pub fn copy_without_git(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let is_git = |entry: &fs::DirEntry| {
        entry.file_name() == ".git" && entry.path().parent().is_some_and(|folder| folder == from)
    };
    copy_into(from, to, &is_git, &mut CopyReport::default())
}

/// Whether a copy of `folder` would use at most half of the free space on the disk that contains
/// the `disk` folder.
///
/// # Errors
/// If a folder cannot be read.
pub fn has_room(folder: &Path, disk: &Path) -> io::Result<bool> {
    let (mut bytes, mut todo) = (0_u64, vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        let Some(entries) = if_present(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(found) = if_present(entry.metadata())? else { continue };
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    let disk = rustix::fs::statvfs(disk)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes.saturating_mul(2))
}

fn copy_tree(from: &Path, to: &Path, own: &Own, report: &mut CopyReport) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    let is_own = |entry: &fs::DirEntry| {
        let found = entry.metadata().is_ok_and(|m| own.has_id((m.dev(), m.ino())));
        found || entry.path().strip_prefix(from).is_ok_and(|path| own.has(from, path))
    };
    copy_into(from, to, &|entry| !own.is_empty() && is_own(entry), report)
}

fn copy_into(
    from: &Path,
    to: &Path,
    leave_out: &dyn Fn(&fs::DirEntry) -> bool,
    report: &mut CopyReport,
) -> io::Result<()> {
    let (top, itself) = (fs::metadata(from)?, fs::metadata(to)?);
    let mut copying = Copying {
        itself: (itself.dev(), itself.ino()),
        todo: vec![(from.to_owned(), to.to_owned())],
        folders: vec![(to.to_owned(), top)],
        share: true,
        report,
    };
    while let Some((folder, to)) = copying.todo.pop() {
        let Some(entries) = if_present(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            if leave_out(&entry) {
                continue;
            }
            if_present(copying.entry(&entry, &to.join(entry.file_name())))?;
        }
    }
    for (folder, found) in copying.folders.iter().rev() {
        rustix::fs::utimensat(CWD, folder, &times(found), AtFlags::empty())?;
        fs::set_permissions(folder, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    Ok(())
}

/// Returns `None` if a file is gone, because builds and git's own maintenance may remove files at
/// any time.
fn if_present<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The state of a copy.
struct Copying<'a> {
    /// The device and inode of the folder to copy into, which may be inside the source.
    itself: (u64, u64),
    todo: Vec<(PathBuf, PathBuf)>,
    /// Folders with their times, which are set last because adding files changes them.
    folders: Vec<(PathBuf, Metadata)>,
    /// Whether the file system can share blocks. Assumed to be true until the first failure.
    share: bool,
    report: &'a mut CopyReport,
}

impl Copying<'_> {
    fn entry(&mut self, entry: &fs::DirEntry, target: &Path) -> io::Result<()> {
        let (source, found) = (entry.path(), entry.metadata()?);
        let kind = found.file_type();
        if kind.is_dir() {
            if (found.dev(), found.ino()) != self.itself {
                fs::DirBuilder::new().mode(0o700).create(target)?;
                self.folders.push((target.to_owned(), found));
                self.todo.push((source, target.to_owned()));
            }
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, target)?;
            rustix::fs::utimensat(CWD, target, &times(&found), AtFlags::SYMLINK_NOFOLLOW)?;
            self.report.files += 1;
        } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            self.report.left_out.push(source);
        } else {
            self.report.reflinked += u64::from(copy_file(&source, target, &found, &mut self.share)?);
            self.report.files += 1;
            self.report.bytes += found.len();
        }
        Ok(())
    }
}

/// Replaces a `.git` file with a repository. If git fails or the file does not lead to a
/// repository, just removes the file, because the copy must not use another tree's repository.
/// Copies the objects instead of borrowing them, because git updates the times of borrowed objects.
fn replace_git_file(root: &Path, at: &Path, report: &mut CopyReport) -> io::Result<()> {
    let other = git::repository(root);
    fs::remove_file(at)?;
    let Ok(Some(other)) = other else { return Ok(()) };
    for folder in ["refs/heads", "info"] {
        fs::create_dir_all(at.join(folder))?;
    }
    let sha256 = other.format == "sha256";
    let mut config =
        format!("[core]\nrepositoryformatversion = {}\nbare = false\n[gc]\nauto = 0\n", u8::from(sha256));
    if sha256 {
        config += "[extensions]\nobjectFormat = sha256\n";
    }
    fs::write(at.join("config"), config)?;
    fs::write(
        at.join("HEAD"),
        other.head.map_or_else(|| "ref: refs/heads/main\n".into(), |h| format!("{h}\n")),
    )?;
    copy_tree(&other.objects, &at.join("objects"), &Own::default(), report)?;
    for (from, to) in [(&other.exclude, "info/exclude"), (&other.packed_refs, "packed-refs")] {
        if from.is_file() {
            fs::copy(from, at.join(to))?;
        }
    }
    git::copy_index(&other.index, &at.join("index"))
}

/// Copies a file and returns whether the copy shares blocks. Sets `share` to false if the file
/// system cannot share blocks, so that later calls do not try again.
fn copy_file(source: &Path, target: &Path, found: &Metadata, share: &mut bool) -> io::Result<bool> {
    let mut from = File::open(source)?;
    let mut to = File::create_new(target)?;
    let shared = *share && rustix::fs::ioctl_ficlone(&to, &from).is_ok();
    if !shared {
        *share = false;
        copy_data(&mut from, &mut to, found.len())?;
    }
    to.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
    to.set_times(FileTimes::new().set_accessed(found.accessed()?).set_modified(found.modified()?))?;
    Ok(shared)
}

/// Copies data but not holes, because a sparse file may be larger than the disk.
fn copy_data(from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&*from, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&*from, SeekFrom::Hole(start))?;
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), to)?; // uses copy_file_range
        at = end;
    }
    // The file may have been truncated or extended since `size` was read.
    let length = to.metadata()?.len().max(size.min(from.metadata()?.len()));
    to.set_len(length)
}

fn times(found: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: found.atime(), tv_nsec: found.atime_nsec() },
        last_modification: Timespec { tv_sec: found.mtime(), tv_nsec: found.mtime_nsec() },
    }
}
