//! A full copy of the tree, for a dry-run: ignored files too, so that tests find their dependencies and build caches.

use std::{
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps};

use crate::{CleanPath, Own, Workspace, git};

/// What a copy took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Files, links included.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// How many of the files share their blocks with the original.
    pub reflinked: u64,
    /// Pipes, sockets and devices, which are left out.
    pub left_out: Vec<PathBuf>,
}

/// What a copy would take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyCost {
    /// Files, links included.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Whether the file system can share their blocks, so that the bytes cost nothing.
    pub shared: bool,
}

impl Workspace {
    /// What [`Workspace::copy_to`] into this folder, which need not exist, would take: the tree is walked, and one file is tried.
    ///
    /// # Errors
    /// When something cannot be read, or no file made where the folder is to be.
    pub fn copy_cost(&self, dir: &Path) -> io::Result<CopyCost> {
        let mut cost = CopyCost::default();
        let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("."));
        let itself = fs::metadata(dir).ok().map(|m| (m.dev(), m.ino()));
        let mut tried = false;
        let mut todo = vec![self.root().to_owned()];
        while let Some(folder) = todo.pop() {
            let Some(entries) = unless_gone(fs::read_dir(&folder))? else { continue };
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                let Some(found) = unless_gone(entry.metadata())? else { continue };
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
                        let file = unless_gone(File::open(&path))?;
                        cost.shared = file.is_some_and(|f| rustix::fs::ioctl_ficlone(&trial, f).is_ok());
                    }
                }
            }
        }
        Ok(cost)
    }

    /// Where the `.git` of this tree only points to a repository elsewhere (a worktree, a submodule), gives `tree`, which shows the same
    /// files (an overlay, also one at this very path), a repository of its own in its place, as [`Workspace::copy_to`] does. Returns
    /// whether that was so.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn detach_git(&self, tree: &Path) -> io::Result<bool> {
        self.detach(tree, &mut CopyReport::default())
    }

    fn detach(&self, tree: &Path, report: &mut CopyReport) -> io::Result<bool> {
        let git_file = tree.join(".git");
        if !fs::symlink_metadata(&git_file).is_ok_and(|m| m.is_file()) {
            return Ok(false);
        }
        let times = times(&fs::metadata(tree)?);
        own_repository(self.root(), &git_file, report)?;
        rustix::fs::utimensat(CWD, tree, &times, AtFlags::empty())?;
        Ok(true)
    }

    /// Copies everything into a folder that does not exist yet: ignored files, `.git`, links as links; with permissions and times,
    /// so that build caches stay valid. Blocks are shared where the file system can. A folder inside the root that holds the copy itself
    /// and files of the run itself are passed over. A worktree's or submodule's `.git`, which only points to a repository elsewhere, becomes a repository of its own, so that
    /// git in the copy changes nothing there.
    ///
    /// # Errors
    /// When the folder exists, or something cannot be read or written; what has been copied is left there.
    pub fn copy_to(&self, dir: &Path) -> io::Result<CopyReport> {
        let mut report = CopyReport::default();
        copy_tree(self.root(), dir, self.own(), &mut report)?;
        self.detach(dir, &mut report)?;
        Ok(report)
    }
}

fn copy_tree(from: &Path, to: &Path, own: &Own, report: &mut CopyReport) -> io::Result<()> {
    let top = fs::metadata(from)?;
    fs::DirBuilder::new().mode(0o700).create(to)?;
    let itself = fs::metadata(to)?;
    let mut copying = Copying {
        itself: (itself.dev(), itself.ino()),
        todo: vec![(from.to_owned(), to.to_owned())],
        folders: vec![(to.to_owned(), top)],
        share: true,
        report,
    };
    let is_own = |entry: &fs::DirEntry| {
        let found = entry.metadata().is_ok_and(|m| own.has_id((m.dev(), m.ino())));
        found || entry.path().strip_prefix(from).is_ok_and(|path| own.has(from, path))
    };
    while let Some((folder, to)) = copying.todo.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            if !own.is_empty() && is_own(&entry) {
                continue;
            }
            unless_gone(copying.entry(&entry, &to.join(entry.file_name())))?;
        }
    }
    for (folder, found) in copying.folders.iter().rev() {
        rustix::fs::utimensat(CWD, folder, &times(found), AtFlags::empty())?;
        fs::set_permissions(folder, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    Ok(())
}

/// `None` when it failed because a file was not there: builds, and git's own housekeeping, remove files at any time, and some come back.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A copy that is under way.
struct Copying<'a> {
    /// The folder copied into, which may lie in the one copied from.
    itself: (u64, u64),
    todo: Vec<(PathBuf, PathBuf)>,
    /// Times of folders are set last, because filling them changes them.
    folders: Vec<(PathBuf, Metadata)>,
    /// Whether the file system can share blocks, as far as is known.
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

/// Without git, or when the file points nowhere, there is none: better than one that is somebody else's. Objects are copied, not borrowed: git
/// sets the time of a borrowed object when it comes to need it again.
fn own_repository(root: &Path, at: &Path, report: &mut CopyReport) -> io::Result<()> {
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

/// Returns whether the blocks are shared. `share` becomes false when the file system cannot, so that it is asked once.
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

/// Holes stay holes: a file of a size that no disk has can consist of them.
fn copy_data(from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&*from, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&*from, SeekFrom::Hole(start))?;
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), to)?; // copy_file_range inside
        at = end;
    }
    // What was there when it was looked at, or what has been added since.
    let length = to.metadata()?.len().max(size.min(from.metadata()?.len()));
    to.set_len(length)
}

fn times(found: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: found.atime(), tv_nsec: found.atime_nsec() },
        last_modification: Timespec { tv_sec: found.mtime(), tv_nsec: found.mtime_nsec() },
    }
}
