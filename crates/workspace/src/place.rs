//! One file's location: an open handle to its folder, and the file's name in that folder. Replacing
//! the folder with a symbolic link later has no effect.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
    path::Arg,
};

use crate::{
    CleanPath, Digest, PathError, Workspace, attributes, path::is_git, root::id, store::REPLACE_LIMIT,
};

/// The state of a file at a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileImage {
    /// The content, or the target if this is a symbolic link.
    pub bytes: Vec<u8>,
    /// The permission bits. Meaningless for a link.
    pub mode: u32,
    /// Whether it is a symbolic link.
    pub link: bool,
}

impl FileImage {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

#[derive(Debug)]
pub(crate) struct Place {
    folder: OwnedFd,
    folder_id: (u64, u64),
    name: OsString,
}

/// What exists at a [`Place`].
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A regular file or a symbolic link.
    File(FileImage, Stamp),
    /// Anything else, such as a folder or a pipe.
    Other,
}

/// Enough of a file's metadata to detect that it was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) id: (u64, u64),
    /// Whether the file has several hard links.
    pub(crate) shared: bool,
    /// The permission bits.
    pub(crate) mode: u32,
    pub(crate) size: i64,
    pub(crate) modified: (i64, u64),
    pub(crate) changed: (i64, u64),
}

impl Stamp {
    /// Whether `now` describes the same file, unmodified. The change time is ignored for a file
    /// with several hard links, because renaming one link updates it.
    pub(crate) fn is_unchanged(&self, now: &Self) -> bool {
        (self.id, self.size, self.modified) == (now.id, now.size, now.modified)
            && (self.shared || self.changed == now.changed)
    }

    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            id: id(stat),
            mode: stat.st_mode & 0o7777,
            shared: stat.st_nlink > 1,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Workspace {
    /// Opens the folder that contains a path returned by [`Workspace::target`]. Does not follow
    /// symbolic links, so the folder that is opened is the one that was checked. If `made` is
    /// given, creates missing folders and adds their paths to `made`; otherwise returns `None` if
    /// the folder is missing.
    pub(crate) fn place(
        &self,
        path: &CleanPath,
        mut made: Option<&mut Vec<CleanPath>>,
    ) -> Result<Option<Place>, PathError> {
        let error =
            |e: Errno| PathError::System { path: path.to_string(), why: io::Error::from(e).to_string() };
        let protected = |owner| PathError::Protected { path: path.to_string(), owner };
        let Some((parent, _)) = path.split() else { return Err(PathError::NotAPath(path.to_string())) };
        let on_disk: &Path = path.as_ref();
        let name = on_disk.file_name().unwrap_or_default().to_owned();
        if path.as_str().split('/').any(is_git) {
            return Err(protected("git"));
        }
        let mut folder = rustix::fs::openat(&self.0.dir, ".", FOLDER, Mode::empty()).map_err(error)?;
        let mut folder_id = id(&rustix::fs::fstat(&folder).map_err(error)?);
        let mut so_far = String::new();
        let texts = parent.as_str().split('/').filter(|p| *p != ".");
        for (text, part) in texts.zip(on_disk.iter()) {
            so_far = if so_far.is_empty() { text.into() } else { format!("{so_far}/{text}") };
            let opened = rustix::fs::openat(&folder, part, FOLDER, Mode::empty());
            folder = match (opened, made.as_deref_mut()) {
                (Ok(next), _) => next,
                (Err(Errno::NOENT), Some(made)) => {
                    match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                        Ok(()) => made.push(CleanPath::new(so_far.clone())),
                        Err(Errno::EXIST) => {}
                        Err(e) => return Err(error(e)),
                    }
                    rustix::fs::openat(&folder, part, FOLDER, Mode::empty()).map_err(error)?
                }
                (Err(Errno::NOENT), None) => return Ok(None),
                (Err(Errno::NOTDIR), _) => {
                    let why = format!("{so_far} is not a directory");
                    return Err(PathError::System { path: path.to_string(), why });
                }
                (Err(e), _) => return Err(error(e)),
            };
            folder_id = id(&rustix::fs::fstat(&folder).map_err(error)?);
            if self.own().has_id(folder_id) {
                return Err(protected("the run itself"));
            }
            if let Some((_, owner)) = self.0.guarded.iter().find(|(guarded, _)| *guarded == folder_id) {
                return Err(protected(owner));
            }
        }
        Ok(Some(Place { folder, folder_id, name }))
    }

    /// Removes folders that a commit created, innermost first, if they are empty.
    pub(crate) fn remove_empty_folders(&self, made: &[CleanPath]) {
        for path in made.iter().rev() {
            if let Ok(Some(place)) = self.place(path, None) {
                // Fails if someone else has put a file there, in which case the folder stays.
                let _ = rustix::fs::unlinkat(&place.folder, &place.name, AtFlags::REMOVEDIR);
            }
        }
    }
}

impl Place {
    pub(crate) fn find(&self, limit: u64) -> io::Result<Found> {
        self.find_as(&*self.name, limit)
    }

    /// Same as [`Place::find`], but for another name in the same folder.
    pub(crate) fn find_as(&self, name: impl Arg + Copy, limit: u64) -> io::Result<Found> {
        let stat = match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(e) => return Err(e.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => {
                let bytes = rustix::fs::readlinkat(&self.folder, name, Vec::new())?.into_bytes();
                return Ok(Found::File(FileImage { bytes, mode: 0o777, link: true }, Stamp::of(&stat)));
            }
            _ => return Ok(Found::Other),
        }
        let file = self.open(name)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Found::Other);
        }
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"));
        if stat.st_size as u64 > limit {
            return Err(too_large());
        }
        // The file may grow while it is read.
        let mut bytes = Vec::with_capacity(stat.st_size as usize);
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok(Found::File(FileImage { bytes, mode: stat.st_mode & 0o7777, link: false }, Stamp::of(&stat)))
    }

    fn open(&self, name: impl Arg) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?.into())
    }

    /// Opens the file so that its owner and attributes can be copied. Returns `None` if it is not a
    /// regular file.
    pub(crate) fn file(&self) -> io::Result<Option<File>> {
        let stat = rustix::fs::statat(&self.folder, &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                self.open(&*self.name).map(Some)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the current metadata of this place, or `None` if nothing exists here.
    pub(crate) fn stamp(&self) -> io::Result<Option<Stamp>> {
        match rustix::fs::statat(&self.folder, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes a new file next to this one, with the owner and attributes of `like`. If `durable` is
    /// set, the new file is on disk when this function returns.
    pub(crate) fn stage(
        &self,
        temp: impl Arg + Copy,
        image: &FileImage,
        like: Option<&File>,
        durable: bool,
    ) -> io::Result<()> {
        if image.link {
            let to = OsStr::from_bytes(&image.bytes);
            return Ok(rustix::fs::symlinkat(to, &self.folder, temp)?);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.folder, temp, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(fd);
        file.write_all(&image.bytes)?;
        like.map_or(Ok(()), |like| attributes::copy_to(like, &file))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(image.mode))?;
        if durable { file.sync_all() } else { Ok(()) }
    }

    pub(crate) fn create(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.folder, &self.name, flags, mode)?)
    }

    /// Creates `temp` next to this place, as a hard link to `staged` next to `other`.
    pub(crate) fn stage_link(&self, temp: &str, other: &Self, staged: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(&other.folder, staged, &self.folder, temp, AtFlags::empty())?)
    }

    /// Swaps the file with the one staged under `temp`. There is always a file here, even during
    /// the swap.
    pub(crate) fn swap(&self, temp: &str) -> io::Result<()> {
        match self.rename(temp, &*self.name, RenameFlags::EXCHANGE) {
            Err(e) if is_unsupported(e) => self.swap_in_steps(temp),
            done => Ok(done?),
        }
    }

    /// Same as [`Place::swap`], but with plain renames. After a crash, the old file may have
    /// another name, which [`Place::finish_swap`] removes or changes to `temp`.
    fn swap_in_steps(&self, temp: &str) -> io::Result<()> {
        let old = old(temp);
        self.remove(&*old)?;
        let linked = rustix::fs::linkat(&self.folder, &*self.name, &self.folder, &*old, AtFlags::empty());
        if linked.is_err() {
            // Hard links are not supported either, so copy the file.
            let Found::File(image, _) = self.find(REPLACE_LIMIT)? else { return Err(Errno::NOENT.into()) };
            self.stage(&*old, &image, self.file()?.as_ref(), true)?;
        }
        self.rename(temp, &*self.name, RenameFlags::empty())?;
        Ok(self.rename(&*old, temp, RenameFlags::empty())?)
    }

    /// Finishes an interrupted [`Place::swap`]. Afterward, the old file is either at `temp` or
    /// still in place.
    pub(crate) fn finish_swap(&self, temp: &str) -> io::Result<()> {
        match self.rename_new(&*old(temp), temp) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::EXIST) => self.remove(&*old(temp)),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves the staged file here. Fails if a file already exists here.
    pub(crate) fn move_in(&self, temp: &str) -> io::Result<()> {
        Ok(self.rename_new(temp, &*self.name)?)
    }

    /// Moves the file to `temp`. Fails if `temp` already exists.
    pub(crate) fn move_out(&self, temp: &str) -> io::Result<()> {
        Ok(self.rename_new(&*self.name, temp)?)
    }

    fn rename_new(&self, from: impl Arg + Copy, to: impl Arg + Copy) -> rustix::io::Result<()> {
        match self.rename(from, to, RenameFlags::NOREPLACE) {
            Err(e) if is_unsupported(e) => {}
            done => return done,
        }
        match rustix::fs::linkat(&self.folder, from, &self.folder, to, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(&self.folder, from, AtFlags::empty()),
            Err(e @ (Errno::EXIST | Errno::NOENT)) => Err(e),
            // Hard links are not supported either. This may replace a file that is created between
            // the check and the rename.
            Err(_) => match rustix::fs::statat(&self.folder, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => self.rename(from, to, RenameFlags::empty()),
                Err(e) => Err(e),
            },
        }
    }

    fn rename(&self, from: impl Arg, to: impl Arg, flags: RenameFlags) -> rustix::io::Result<()> {
        rustix::fs::renameat_with(&self.folder, from, &self.folder, to, flags)
    }

    /// Removes the file with this name in the same folder, if it exists.
    pub(crate) fn remove(&self, name: impl Arg) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the folder's device and inode.
    pub(crate) fn folder_id(&self) -> (u64, u64) {
        self.folder_id
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Syncs the whole file system.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.folder)?)
    }

    /// Syncs the folder, which makes renames in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}

/// Whether a rename failed because the file system does not support its flags. NFS and some FUSE
/// file systems do not.
fn is_unsupported(e: Errno) -> bool {
    matches!(e, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Returns the additional name that the old file has during [`Place::swap_in_steps`].
fn old(temp: &str) -> String {
    format!("{temp}.old")
}

impl Workspace {
    /// Whether the file system can swap two files atomically. If not, edits take more steps, which
    /// are just as safe but slower. Tests this by creating and removing two files in the root.
    ///
    /// # Errors
    /// If the two files cannot be written.
    pub fn can_exchange(&self) -> io::Result<bool> {
        let name = |n| format!(".agent-{}-probe{n}.tmp", std::process::id());
        let path = CleanPath::new(name(1));
        let place = self.place(&path, None).map_err(io::Error::other)?;
        let Some(place) = place else { return Err(Errno::NOENT.into()) };
        let image = FileImage { bytes: Vec::new(), mode: 0o600, link: false };
        let tried = place.stage(&*place.name, &image, None, false).and_then(|()| {
            place.stage(&*name(2), &image, None, false)?;
            match place.rename(&*name(2), &*place.name, RenameFlags::EXCHANGE) {
                Err(e) if is_unsupported(e) => Ok(false),
                done => Ok(done.map(|()| true)?),
            }
        });
        place.remove(&*place.name)?;
        place.remove(&*name(2))?;
        tried
    }
}
