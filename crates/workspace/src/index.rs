//! Reads git's index: the blob of each tracked file, and the metadata that the file had when git
//! last read it.
//!
//! A file that still has this metadata is unchanged. gitformat-index(5) describes the format. Git's
//! `racy-git.txt` describes the exception: files that change while the index is being written.

use std::{
    collections::hash_map::Entry::{Occupied, Vacant},
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    CleanPath,
    place::Stamp,
    scan::{Files, Tree},
    snapshot::{Content, Known},
};

/// The hashes of the empty blob in SHA-1 and SHA-256. An entry of size 0 with any other hash marks
/// a file that git must reread.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// The hash of a blob: 20 bytes of SHA-1 or 32 of SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob([u8; 32], u8);

impl Blob {
    /// Returns the hash in hexadecimal.
    pub(crate) fn name(&self) -> String {
        self.0.iter().take(usize::from(self.1)).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A file's metadata, truncated to the 32-bit numbers that an index contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexStat {
    changed: (u32, u32),
    modified: (u32, u32),
    inode: u32,
    pub(crate) size: u32,
}

impl IndexStat {
    pub(crate) fn of(stamp: &Stamp) -> Self {
        let time = |(s, ns): (i64, u64)| (s as u32, ns as u32);
        Self {
            changed: time(stamp.changed),
            modified: time(stamp.modified),
            inode: stamp.id.1 as u32,
            size: stamp.size as u32,
        }
    }
}

/// The entries of an index. Paths are relative to the workspace root.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) files: Tree<Known>,
    /// Submodules.
    pub(crate) modules: Vec<PathBuf>,
    /// Files marked assume-unchanged, and existing files marked skip-worktree.
    pub(crate) flagged: Vec<PathBuf>,
}

impl Index {
    /// Reads the index `file` of the repository whose top-level folder is `top`. Returns `None` for
    /// a split or sparse index, which git has to expand first, and an empty index if the file does
    /// not exist.
    pub(crate) fn read(file: &Path, top: &Path, root: &Path) -> io::Result<Option<Self>> {
        let mut opened = match File::open(file) {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Self::default())),
            Err(e) => return Err(e),
        };
        let found = opened.metadata()?;
        let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
        opened.read_to_end(&mut bytes)?;
        let written = (found.mtime() as u32, found.mtime_nsec() as u32);
        let within = root.strip_prefix(top).unwrap_or(Path::new("")).join("");
        // An index does not record its hash function, but it parses with only one hash length.
        Ok([20, 32].into_iter().find_map(|length| Self::parse(&bytes, length, written, &within, root)))
    }

    /// Parses an index that uses hashes of `length` bytes. Returns `None` if the bytes do not parse
    /// as one.
    fn parse(bytes: &[u8], length: usize, written: (u32, u32), within: &Path, root: &Path) -> Option<Self> {
        let mut rest = bytes.get(..bytes.len().checked_sub(length)?)?;
        let (sign, version, count) = (take(&mut rest, 4)?, number(&mut rest)?, number(&mut rest)?);
        if sign != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let mut index = Self::default();
        let (mut path, mut folder): (Vec<u8>, Option<(PathBuf, Files<Known>)>) = Default::default();
        for _ in 0..count {
            let before = rest.len();
            let [c, cn, m, mn, _dev, inode, mode, _uid, _gid, size] = numbers(&mut rest)?;
            let mut blob = Blob([0; 32], length as u8);
            blob.0.get_mut(..length)?.copy_from_slice(take(&mut rest, length)?);
            let flags = short(&mut rest)?;
            let more = if flags & 0x4000 == 0 { 0 } else { short(&mut rest)? };
            if version == 4 {
                let kept = path.len().checked_sub(variable(&mut rest)?)?;
                path.truncate(kept);
            } else {
                path.clear();
            }
            let end = rest.iter().position(|byte| *byte == 0)?;
            path.extend_from_slice(take(&mut rest, end)?);
            // One to eight NULs pad an entry to a multiple of eight bytes.
            let used = before - rest.len();
            let zeros = take(&mut rest, if version == 4 { 1 } else { 8 - used % 8 })?;
            if zeros.iter().any(|byte| *byte != 0) {
                return None;
            }
            let Some(inside) = path.strip_prefix(within.as_os_str().as_bytes()) else { continue };
            let full = || root.join(OsStr::from_bytes(inside));
            let (assumed, skipped, added) = (flags & 0x8000 != 0, more & 0x4000 != 0, more & 0x2000 != 0);
            if mode & 0o170_000 == 0o160_000 {
                index.modules.push(OsStr::from_bytes(inside).into());
                continue;
            }
            let stat = IndexStat { changed: (c, cn), modified: (m, mn), inode, size };
            let there = skipped && full().symlink_metadata().is_ok();
            if assumed || there {
                index.flagged.push(OsStr::from_bytes(inside).into());
            }
            if skipped && !there {
                continue;
            }
            let staged = flags & 0x3000 == 0 && !added;
            let settled =
                staged && stat.modified < written && (size > 0 || EMPTY.contains(&blob.name().as_str()));
            let link = mode & 0o170_000 == 0o120_000;
            let known = Known { stat, mode: mode & 0o777, link, content: Content::Blob(blob), settled };
            let slash = inside.iter().rposition(|byte| *byte == b'/');
            let (parent, name) =
                slash.map_or((&[][..], inside), |slash| (&inside[..slash], &inside[slash + 1..]));
            if folder.as_ref().is_none_or(|(last, _)| last.as_os_str().as_bytes() != parent) {
                index.put(folder.replace((OsStr::from_bytes(parent).into(), Files::new())));
            }
            if let Some((_, files)) = &mut folder {
                files.insert(OsStr::from_bytes(name).to_owned(), known);
            }
        }
        index.put(folder.take());
        // A reader may skip only extensions whose name starts with an uppercase letter.
        while !rest.is_empty() {
            let (name, size) = (take(&mut rest, 4)?, number(&mut rest)?);
            if !name.first()?.is_ascii_uppercase() {
                return None;
            }
            take(&mut rest, usize::try_from(size).ok()?)?;
        }
        Some(index)
    }

    fn put(&mut self, folder: Option<(PathBuf, Files<Known>)>) {
        if let Some((path, files)) = folder {
            match self.files.entry(path) {
                Vacant(new) => drop(new.insert(files)),
                Occupied(mut old) => old.get_mut().extend(files),
            }
        }
    }

    pub(crate) fn get(&self, path: &CleanPath) -> Option<&Known> {
        let path: &Path = path.as_ref();
        self.files.get(path.parent()?)?.get(path.file_name()?)
    }
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

fn number(from: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(from, 4)?.try_into().ok()?))
}

fn numbers<const N: usize>(from: &mut &[u8]) -> Option<[u32; N]> {
    let mut out = [0; N];
    for value in &mut out {
        *value = number(from)?;
    }
    Some(out)
}

fn short(from: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(take(from, 2)?.try_into().ok()?))
}

/// Reads a variable-width integer, encoded like the offsets in a pack.
fn variable(from: &mut &[u8]) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = *take(from, 1)?.first()?;
        value = value.checked_shl(7)? | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?;
    }
}
