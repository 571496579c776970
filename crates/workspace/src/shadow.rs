//! The work tree as it is, kept so that it can be told afterwards what a file was: its metadata, and where its content can be had.
//!
//! Contents that git has are not copied; all others go, once, into one file without a name in the state folder, which is gone with the process.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ignore::WalkState;
use rustix::fs::{FileType, Stat};

use crate::{
    CleanPath, FileImage, Workspace,
    path::is_git,
    place::{Found, Stamp},
    root::{id, lock},
    store::REPLACE_LIMIT,
    tracked::{self, Tracked},
};

/// Most bytes of files that git does not have, and of all that changes, that a process keeps.
const KEEP_LIMIT: u64 = 4 << 30;
/// Within this time after a write a file may be written again and look the same: the clock of file systems moves in steps of up to 10 ms.
const TICK: Duration = Duration::from_millis(50);
/// The same where times are whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);
/// Blobs asked for at once, which bounds what is held in memory.
const BATCH: usize = 256;

/// Where a content can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Kept {
        at: u64,
        size: u64,
    },
    /// In the user's repository.
    Blob(Arc<str>),
    /// Nowhere: it is too large, or there was no room.
    Unknown,
}

/// A file as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) stamp: Stamp,
    pub(crate) mode: u32,
    pub(crate) link: bool,
    pub(crate) content: Content,
    /// Long enough after it was written that it would look different now had it been written again.
    pub(crate) settled: bool,
}

/// A file that is not as it was.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) path: CleanPath,
    pub(crate) before: Option<Known>,
    pub(crate) after: Option<Known>,
}

fn same(before: Option<&Known>, after: Option<&Known>) -> bool {
    match (before, after) {
        (Some(a), Some(b)) if a.content == Content::Unknown => a.stamp == b.stamp,
        (Some(a), Some(b)) => (&a.content, a.mode, a.link) == (&b.content, b.mode, b.link),
        (None, None) => true,
        _ => false,
    }
}

/// What lies there, by its metadata.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) files: HashMap<CleanPath, Stamp>,
    pub(crate) folders: BTreeSet<CleanPath>,
}

#[derive(Debug)]
pub(crate) struct Shadow {
    kept: File,
    end: u64,
    files: HashMap<CleanPath, Known>,
    pub(crate) folders: BTreeSet<CleanPath>,
}

impl Shadow {
    /// Looks at everything once.
    pub(crate) fn new(ws: &Workspace, state_dir: &Path) -> io::Result<Self> {
        let kept = tempfile::tempfile_in(state_dir)?;
        let (scan, tracked) = std::thread::scope(|scope| {
            let tracked = scope.spawn(|| Tracked::read(ws.root()));
            let scan = ws.scan();
            // Without git, or when it fails, every file is read.
            (scan, tracked.join().ok().and_then(Result::ok).unwrap_or_default())
        });
        // Tracked files can be ignored all the same.
        let hidden = tracked.paths().iter().filter(|path| !scan.files.contains_key(*path));
        let hidden: Vec<_> = hidden.filter(|path| ws.stamp(path).is_some()).cloned().collect();
        lock(&ws.0.besides).extend(hidden);
        let mut shadow = Self { kept, end: 0, files: HashMap::new(), folders: BTreeSet::new() };
        shadow.update(ws, ws.with_besides(scan), &tracked, |_| ())?;
        Ok(shadow)
    }

    /// Learns what is there now, and tells what is not as it was.
    pub(crate) fn update(
        &mut self,
        ws: &Workspace,
        mut scan: Scan,
        tracked: &Tracked,
        mut tell: impl FnMut(Difference),
    ) -> io::Result<()> {
        let now = SystemTime::now();
        let mut old = std::mem::take(&mut self.files);
        for path in old.keys() {
            // What is ignored from now on has not gone.
            if !scan.files.contains_key(path)
                && let Some(stamp) = ws.stamp(path)
            {
                scan.files.insert(path.clone(), stamp);
            }
        }
        self.files.reserve(scan.files.len());
        for (path, stamp) in scan.files {
            let before = old.remove(&path);
            let known = match &before {
                Some(known) if known.settled && known.stamp == stamp => before.clone(),
                before => match tracked.blob(&path, &stamp) {
                    Some(blob) if settled(&stamp, now) => Some(Known {
                        stamp,
                        mode: stamp.mode,
                        link: false,
                        content: Content::Blob(blob.into()),
                        settled: true,
                    }),
                    _ => self.take_in(ws, &path, before.as_ref(), now)?,
                },
            };
            if !same(before.as_ref(), known.as_ref()) {
                tell(Difference { path: path.clone(), before, after: known.clone() });
            }
            self.files.extend(known.map(|known| (path, known)));
        }
        for (path, before) in old {
            tell(Difference { path, before: Some(before), after: None });
        }
        self.folders = scan.folders;
        Ok(())
    }

    /// Reads a file and keeps its content, unless it is the one that is known. `None` when it is gone, or not ours to change.
    fn take_in(
        &mut self,
        ws: &Workspace,
        path: &CleanPath,
        known: Option<&Known>,
        now: SystemTime,
    ) -> io::Result<Option<Known>> {
        let Ok(Some(place)) = ws.place(path, None) else { return Ok(None) };
        let (image, stamp) = match place.find(REPLACE_LIMIT) {
            Ok(Found::File(image, stamp)) => (image, stamp),
            Ok(Found::Nothing | Found::Other) => return Ok(None),
            // Too large, or not readable: known by its looks only.
            Err(_) => match place.stamp() {
                Ok(Some(stamp)) => {
                    let (mode, link) = (stamp.mode, false);
                    let content = Content::Unknown;
                    return Ok(Some(Known { stamp, mode, link, content, settled: settled(&stamp, now) }));
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
        Ok(Some(Known { stamp, mode, link, content, settled: settled(&stamp, now) }))
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
            // The command can run all the same; what it changes in this file is told, and cannot be undone.
            Err(e) if matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge) => Ok(Content::Unknown),
            Err(e) => Err(e),
        }
    }

    /// A content; `None` when it is not known. That of blobs is known after [`Shadow::fetch`].
    pub(crate) fn bytes(&self, content: &Content) -> io::Result<Option<Vec<u8>>> {
        let Content::Kept { at, size } = content else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(*size).map_err(io::Error::other)?];
        self.kept.read_exact_at(&mut bytes, *at)?;
        Ok(Some(bytes))
    }

    /// Takes contents over from git.
    pub(crate) fn fetch(&mut self, root: &Path, known: &mut [&mut Known]) -> io::Result<()> {
        for batch in known.chunks_mut(BATCH) {
            let blobs: Vec<Arc<str>> = batch
                .iter()
                .filter_map(|k| if let Content::Blob(blob) = &k.content { Some(blob.clone()) } else { None })
                .collect();
            if blobs.is_empty() {
                continue;
            }
            let names: Vec<&str> = blobs.iter().map(AsRef::as_ref).collect();
            // Git may be gone meanwhile, or the whole repository.
            let contents = tracked::contents(root, &names).unwrap_or_else(|_| vec![None; names.len()]);
            let wanted = batch.iter_mut().filter(|k| matches!(k.content, Content::Blob(_)));
            for (known, bytes) in wanted.zip(contents) {
                known.content = match bytes {
                    Some(bytes) => self.keep(&bytes)?,
                    None => Content::Unknown,
                };
            }
        }
        Ok(())
    }
}

/// Whether a write after `now` would show.
pub(crate) fn settled(stamp: &Stamp, now: SystemTime) -> bool {
    let (seconds, nanoseconds) = stamp.changed;
    let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
    let changed = u64::try_from(seconds).map(|s| UNIX_EPOCH + Duration::new(s, nanoseconds as u32));
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > tick))
}

impl Workspace {
    /// Everything that is not ignored by git's rules, links as links, with one `lstat` each.
    pub(crate) fn scan(&self) -> Scan {
        let found = Mutex::new(Scan::default());
        self.each(|path, stat| {
            let path = CleanPath::of(path);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => drop(lock(&found).folders.insert(path)),
                FileType::RegularFile | FileType::Symlink => {
                    lock(&found).files.extend([(path, Stamp::of(stat))])
                }
                _ => {}
            }
        });
        found.into_inner().unwrap_or_default()
    }

    /// Tells everything that is not ignored by git's rules, by several threads, with paths relative to the root; not git's own, nor
    /// those of the agent or of the run itself.
    pub(crate) fn each(&self, tell: impl Fn(&Path, &Stat) + Sync) {
        let guarded = self.0.guarded.clone();
        let root = self.0.root.clone();
        let shown = move |e: &ignore::DirEntry| {
            let own =
                || rustix::fs::lstat(e.path()).is_ok_and(|stat| guarded.iter().any(|(g, _)| *g == id(&stat)));
            let folder = e.file_type().is_some_and(|k| k.is_dir());
            let git = e.file_name().to_str().is_some_and(is_git);
            !(git || folder && own())
        };
        self.walker(&root, None, false, shown).build_parallel().run(|| {
            Box::new(|entry| {
                if let Ok(entry) = entry
                    && let Ok(path) = entry.path().strip_prefix(&root)
                    && let Ok(stat) = rustix::fs::lstat(entry.path())
                    && !self.own().has_id(id(&stat))
                {
                    tell(path, &stat);
                }
                WalkState::Continue
            })
        });
    }

    /// Adds files that are ignored and yet the agent's concern: tracked ones, and those that it has edited.
    pub(crate) fn with_besides(&self, mut scan: Scan) -> Scan {
        for path in lock(&self.0.besides).iter() {
            if !scan.files.contains_key(path)
                && let Some(stamp) = self.stamp(path)
            {
                scan.files.insert(path.clone(), stamp);
            }
        }
        scan
    }

    fn stamp(&self, path: &CleanPath) -> Option<Stamp> {
        let stamp = self.place(path, None).ok().flatten()?.stamp().ok().flatten()?;
        (!self.is_own(path, Some(stamp.id))).then_some(stamp)
    }
}
