//! A snapshot of the work tree: the metadata of each file and the location of its content, so that
//! a command's changes can be recorded along with the previous contents.
//!
//! Contents that git already has are not copied. All others are written once, to an unnamed file in
//! the state folder. The system deletes this file when the process ends.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    CleanPath, FileImage, Workspace, git,
    index::{Blob, Index, IndexStat},
    place::{Found as FileFound, Stamp},
    root::lock,
    scan::{Extent, Found, Tree},
    store::REPLACE_LIMIT,
    tracked,
};

/// The maximum total size, in bytes, of the contents that a process keeps: those that git does not
/// have, and those of changed files.
const KEEP_LIMIT: u64 = 4 << 30;
/// If a file is written again within this time, its metadata may stay the same, because some file
/// system clocks tick only every 10 ms.
const TICK: Duration = Duration::from_millis(50);
/// The [`TICK`] for file systems that store times in whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);
/// The number of blobs to read at once. Limits memory use.
const BATCH: usize = 256;

/// The location of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Kept {
        at: u64,
        size: u64,
    },
    /// In the user's repository.
    Blob(Blob),
    /// Not kept, because the file is too large or unreadable, or because the limit was reached.
    Unknown,
}

/// The state of a file as of the last scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) stat: IndexStat,
    /// The permission bits. Until a scan finds the file unchanged, they come from git's index.
    pub(crate) mode: u32,
    pub(crate) link: bool,
    pub(crate) content: Content,
    /// Whether any later write would change the metadata.
    pub(crate) settled: bool,
}

impl Known {
    /// Whether the file is unchanged, judging by its metadata.
    pub(crate) fn is(&self, stamp: &Stamp) -> bool {
        self.settled && self.stat == IndexStat::of(stamp)
    }
}

/// A changed file.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<Known>,
    pub(crate) after: Option<Known>,
}

fn same(before: Option<&Known>, after: Option<&Known>) -> bool {
    match (before, after) {
        (Some(a), Some(b)) if a.content == Content::Unknown => a.stat == b.stat,
        (Some(a), Some(b)) => (&a.content, a.mode, a.link) == (&b.content, b.mode, b.link),
        (None, None) => true,
        _ => false,
    }
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    kept: File,
    end: u64,
    files: Tree<Known>,
    pub(crate) folders: BTreeSet<CleanPath>,
}

impl Snapshot {
    /// Scans the whole tree.
    pub(crate) fn new(ws: &Workspace, state_dir: &Path) -> io::Result<Self> {
        // Without git, every file is read.
        let repository = git::repository(ws.root()).ok().flatten();
        let index = repository.and_then(|r| Index::read(&r.index, &r.top, ws.root()).ok().flatten());
        let mut index = index.unwrap_or_default();
        let found = ws.scan_index(Extent::Everything, &mut index);
        Self::from_index(ws, state_dir, index, found)
    }

    /// Builds the snapshot from git's index and the differences that a scan found.
    pub(crate) fn from_index(
        ws: &Workspace,
        state_dir: &Path,
        index: Index,
        found: Found,
    ) -> io::Result<Self> {
        let converted = tracked::converted(ws.root(), &index, &found);
        let kept = tempfile::tempfile_in(state_dir)?;
        let mut snapshot = Self { kept, end: 0, files: index.files, folders: found.folders };
        for path in &found.gone {
            snapshot.put(path, None);
        }
        let now = SystemTime::now();
        let edited_files: Vec<CleanPath> = lock(&ws.0.edited_files).iter().cloned().collect();
        let changed = found.changed.into_iter().map(|(path, _)| path);
        for path in changed.chain(converted).chain(edited_files) {
            let known = snapshot.read(ws, &path, None, now)?;
            snapshot.put(&path, known);
        }
        Ok(snapshot)
    }

    /// Updates the snapshot and reports each changed file.
    pub(crate) fn update(&mut self, ws: &Workspace, mut report: impl FnMut(Difference)) -> io::Result<()> {
        let now = SystemTime::now();
        let found = ws.scan(Extent::Changes(None), &mut self.files, |known, stamp| known.is(stamp));
        let edited_files: Vec<CleanPath> = lock(&ws.0.edited_files).iter().cloned().collect();
        // Ignored files that the agent has edited are watched from now on.
        let edited = edited_files.into_iter().filter(|path| self.get(path).is_none());
        let edited: BTreeSet<CleanPath> = edited.filter(|path| ws.stamp(path).is_some()).collect();
        let changed = found.changed.into_iter().map(|(path, _)| path).filter(|path| !edited.contains(path));
        for path in changed.chain(edited.iter().cloned()).collect::<Vec<_>>() {
            let before = self.put(&path, None);
            let after = self.read(ws, &path, before.as_ref(), now)?;
            self.put(&path, after.clone());
            if !same(before.as_ref(), after.as_ref()) {
                report(Difference { path, before, after });
            }
        }
        for path in found.gone {
            if let Some(before) = self.put(&path, None) {
                report(Difference { path, before: Some(before), after: None });
            }
        }
        let skipped = |folder: &CleanPath| {
            AsRef::<Path>::as_ref(folder).ancestors().any(|above| found.skipped.contains(above))
        };
        self.folders.retain(skipped);
        self.folders.extend(found.folders);
        Ok(())
    }

    fn get(&self, path: &CleanPath) -> Option<&Known> {
        let path: &Path = path.as_ref();
        self.files.get(path.parent()?)?.get(path.file_name()?)
    }

    /// Replaces the entry of a file and returns the previous entry.
    fn put(&mut self, path: &CleanPath, known: Option<Known>) -> Option<Known> {
        let path: &Path = path.as_ref();
        let (folder, name) = (path.parent()?, path.file_name()?);
        match known {
            Some(known) => self.files.entry(folder.to_owned()).or_default().insert(name.to_owned(), known),
            None => self.files.get_mut(folder)?.remove(name),
        }
    }

    /// Reads a file, and keeps its content unless the same content is already kept for `known`.
    /// Returns `None` if the file is gone or protected.
    fn read(
        &mut self,
        ws: &Workspace,
        path: &CleanPath,
        known: Option<&Known>,
        now: SystemTime,
    ) -> io::Result<Option<Known>> {
        let Ok(Some(place)) = ws.place(path, None) else { return Ok(None) };
        let (image, stamp) = match place.find(REPLACE_LIMIT) {
            Ok(FileFound::File(image, stamp)) => (image, stamp),
            Ok(FileFound::Nothing | FileFound::Other) => return Ok(None),
            // The file is too large or unreadable, so only its metadata is kept.
            Err(_) => match place.stamp() {
                Ok(Some(stamp)) => {
                    let (mode, link) = (stamp.mode, false);
                    let (content, stat) = (Content::Unknown, IndexStat::of(&stamp));
                    return Ok(Some(Known { stat, mode, link, content, settled: settled(&stamp, now) }));
                }
                _ => return Ok(None),
            },
        };
        let same = match known {
            Some(Known { content: content @ Content::Kept { size, .. }, link, .. })
                if *size == image.bytes.len() as u64
                    && *link == image.link
                    && self.bytes(content)?.as_deref() == Some(image.bytes.as_slice()) =>
            {
                Some(content.clone())
            }
            _ => None,
        };
        let content = match same {
            Some(content) => content,
            None => self.keep(&image.bytes)?,
        };
        let FileImage { mode, link, .. } = image;
        let stat = IndexStat::of(&stamp);
        Ok(Some(Known { stat, mode, link, content, settled: settled(&stamp, now) }))
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<Content> {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let (at, size) = (self.end, bytes.len() as u64);
        if at + size > KEEP_LIMIT {
            return Ok(Content::Unknown);
        }
        match self.kept.write_all_at(bytes, at) {
            Ok(()) => {
                self.end += size;
                Ok(Content::Kept { at, size })
            }
            // The command runs anyway; its change to this file is reported but cannot be undone.
            Err(e) if matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge) => Ok(Content::Unknown),
            Err(e) => Err(e),
        }
    }

    /// Returns the bytes of `content`, or `None` if they are not kept. The content of a blob is
    /// kept only after [`Snapshot::fetch`].
    pub(crate) fn bytes(&self, content: &Content) -> io::Result<Option<Vec<u8>>> {
        let Content::Kept { at, size } = content else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(*size).map_err(io::Error::other)?];
        self.kept.read_exact_at(&mut bytes, *at)?;
        Ok(Some(bytes))
    }

    /// Reads the contents of blobs from git and keeps them.
    pub(crate) fn fetch(&mut self, root: &Path, known: &mut [&mut Known]) -> io::Result<()> {
        for batch in known.chunks_mut(BATCH) {
            let wanted = batch.iter().filter_map(|known| match known.content {
                Content::Blob(blob) => Some(blob.name()),
                _ => None,
            });
            let names: Vec<String> = wanted.collect();
            if names.is_empty() {
                continue;
            }
            // The command may have removed the repository.
            let contents = tracked::contents(root, &names).unwrap_or_else(|_| vec![None; names.len()]);
            let wanted = batch.iter_mut().filter(|k| matches!(k.content, Content::Blob(_)));
            for (known, bytes) in wanted.zip(contents) {
                known.content = match bytes.and_then(|bytes| tracked::as_it_was(bytes, known.stat.size)) {
                    Some(bytes) => self.keep(&bytes)?,
                    None => Content::Unknown,
                };
            }
        }
        Ok(())
    }
}

/// Whether a write after `now` would change the metadata.
pub(crate) fn settled(stamp: &Stamp, now: SystemTime) -> bool {
    let (seconds, nanoseconds) = stamp.changed;
    let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
    let changed = u64::try_from(seconds).map(|s| UNIX_EPOCH + Duration::new(s, nanoseconds as u32));
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > tick))
}

impl Workspace {
    /// Compares the tree with an index. Treats a file that was just written as changed, because
    /// another write might not change its metadata.
    pub(crate) fn scan_index(&self, extent: Extent<'_>, index: &mut Index) -> Found {
        let now = SystemTime::now();
        self.scan(extent, &mut index.files, |known, stamp| {
            let unchanged = known.is(stamp) && settled(stamp, now);
            if unchanged {
                known.mode = stamp.mode;
            }
            unchanged
        })
    }

    pub(crate) fn stamp(&self, path: &CleanPath) -> Option<Stamp> {
        let stamp = self.place(path, None).ok().flatten()?.stamp().ok().flatten()?;
        (!self.is_own(path, Some(stamp.id))).then_some(stamp)
    }
}
