//! Reads files without ever blocking.

use std::io::{self, Read as _};

use cap_std::fs::{FileType, FileTypeExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;
use text_view::View;

use crate::{CleanPath, PathError, Workspace};

/// The maximum size of a file to read, in bytes.
pub const READ_LIMIT: u64 = 16 << 20;

/// Why a file could not be read. Each message is written for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The path is unusable.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The path is a folder.
    #[error("{0} is a directory; list it with list_files")]
    Directory(CleanPath),
    /// The file contains NUL bytes and is not UTF-16.
    #[error("{path} is a binary file of {size} bytes")]
    Binary {
        /// The file.
        path: CleanPath,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is larger than the limit.
    #[error("{path} is too large: {size} bytes, and the limit is {limit}")]
    TooLarge {
        /// The file.
        path: CleanPath,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The path is a pipe, socket or device.
    #[error("{path} is a {kind}, not a file")]
    Special {
        /// The path.
        path: CleanPath,
        /// What it is.
        kind: &'static str,
    },
}

impl Workspace {
    /// Reads a text file of at most [`READ_LIMIT`] bytes. The view contains the file's bytes and
    /// the text to show and edit.
    ///
    /// # Errors
    /// If the path is not a file, or the file is binary or too large.
    pub fn read(&self, path: &CleanPath) -> Result<View, ReadError> {
        self.read_up_to(path, READ_LIMIT)
    }

    /// Same as [`Workspace::read`], but with a limit of `limit` bytes.
    ///
    /// # Errors
    /// Same as [`Workspace::read`].
    pub fn read_up_to(&self, path: &CleanPath, limit: u64) -> Result<View, ReadError> {
        let bytes = self.read_bytes(path, limit)?;
        View::of(path.as_str(), bytes)
            .map_err(|bytes| ReadError::Binary { path: path.clone(), size: bytes.len() as u64 })
    }

    /// Reads any file of at most `limit` bytes.
    ///
    /// # Errors
    /// If the path is not a file, or the file is too large.
    pub fn read_bytes(&self, path: &CleanPath, limit: u64) -> Result<Vec<u8>, ReadError> {
        let system = |e: io::Error| ReadError::Path(self.path_error(path, &e));
        let judge = |kind: FileType, size: u64| match special(kind) {
            _ if kind.is_dir() => Err(ReadError::Directory(path.clone())),
            Some(kind) => Err(ReadError::Special { path: path.clone(), kind }),
            None if size > limit => Err(ReadError::TooLarge { path: path.clone(), size, limit }),
            None => Ok(()),
        };
        // Check the kind before opening, because opening a device can have side effects, and again
        // afterward, because the file may have been replaced. Set `O_NONBLOCK`, because opening a
        // pipe would otherwise wait for a writer.
        let found = self.0.dir.metadata(path).map_err(system)?;
        judge(found.file_type(), found.len())?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
        let file = self.0.dir.open_with(path, &options).map_err(system)?;
        let found = file.metadata().map_err(system)?;
        judge(found.file_type(), found.len())?;
        let mut bytes = Vec::with_capacity(found.len() as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(system)?;
        judge(found.file_type(), bytes.len() as u64)?;
        Ok(bytes)
    }
}

fn special(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() => None,
        () if kind.is_fifo() => Some("named pipe"),
        () if kind.is_socket() => Some("socket"),
        () if kind.is_char_device() || kind.is_block_device() => Some("device"),
        () => Some("special file"),
    }
}
