//! A full copy of the tree, for a dry-run: ignored files too, so that tests find their dependencies and build caches.

use std::{
    fs::{self, File, FileTimes, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::Workspace;

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

impl Workspace {
    /// Copies everything into a folder that does not exist yet: ignored files, `.git`, links as links; with permissions and times,
    /// so that build caches stay valid. Blocks are shared where the file system can. It stays on the root's file system, and a folder
    /// inside the root that holds the copy itself is passed over.
    ///
    /// # Errors
    /// When the folder exists, or something cannot be read or written; what has been copied is left there.
    pub fn copy_to(&self, dir: &Path) -> io::Result<CopyReport> {
        let mut report = CopyReport::default();
        let mut share = true;
        let from = fs::metadata(self.root())?;
        fs::DirBuilder::new().mode(0o700).create(dir)?;
        let itself = fs::metadata(dir)?;
        let mut todo = vec![(self.root().to_owned(), dir.to_owned())];
        // Times of folders are set last, because filling them changes them.
        let mut folders: Vec<(PathBuf, Metadata)> = vec![(dir.to_owned(), from)];
        while let Some((from, to)) = todo.pop() {
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                let (source, target) = (entry.path(), to.join(entry.file_name()));
                let found = entry.metadata()?;
                let kind = found.file_type();
                if kind.is_dir() {
                    if (found.dev(), found.ino()) == (itself.dev(), itself.ino()) {
                        continue;
                    }
                    fs::DirBuilder::new().mode(0o700).create(&target)?;
                    folders.push((target.clone(), found));
                    todo.push((source, target));
                } else if kind.is_symlink() {
                    std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
                    rustix::fs::utimensat(CWD, &target, &times(&found), AtFlags::SYMLINK_NOFOLLOW)?;
                    report.files += 1;
                } else if kind.is_fifo()
                    || kind.is_socket()
                    || kind.is_char_device()
                    || kind.is_block_device()
                {
                    report.left_out.push(source);
                } else {
                    report.reflinked += u64::from(copy_file(&source, &target, &found, &mut share)?);
                    report.files += 1;
                    report.bytes += found.len();
                }
            }
        }
        for (folder, found) in folders.iter().rev() {
            rustix::fs::utimensat(CWD, folder, &times(found), AtFlags::empty())?;
            fs::set_permissions(folder, fs::Permissions::from_mode(found.mode() & 0o7777))?;
        }
        Ok(report)
    }
}

/// Returns whether the blocks are shared. `share` becomes false when the file system cannot, so that it is asked once.
fn copy_file(source: &Path, target: &Path, found: &Metadata, share: &mut bool) -> io::Result<bool> {
    let mut from = File::open(source)?;
    let mut to = File::create_new(target)?;
    let shared = *share && rustix::fs::ioctl_ficlone(&to, &from).is_ok();
    if !shared {
        *share = false;
        io::copy(&mut from, &mut to)?; // copy_file_range inside
    }
    to.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
    to.set_times(FileTimes::new().set_accessed(found.accessed()?).set_modified(found.modified()?))?;
    Ok(shared)
}

fn times(found: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: found.atime(), tv_nsec: found.atime_nsec() },
        last_modification: Timespec { tv_sec: found.mtime(), tv_nsec: found.mtime_nsec() },
    }
}
