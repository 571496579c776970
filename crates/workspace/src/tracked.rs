//! Which files git has already, byte for byte as they lie in the work tree, so that nobody has to copy them.
//!
//! The user's index says which blob a file was when git last looked, and what its metadata was. A file that still looks so has that
//! content, unless git converts it on its way (line ends, filters, encodings): then the sizes differ, or a filter is named for it.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::{CleanPath, git, place::Stamp};

/// The tracked files below a folder; name of the blob and what the file looked like. Names that are not UTF-8 are left out.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    paths: Vec<CleanPath>,
    /// Those whose blob is what lies there.
    files: HashMap<CleanPath, (String, Looks)>,
}

/// What the index knows of a file. Seconds and nanoseconds are 32 bits wide there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    changed: (u32, u32),
    modified: (u32, u32),
    inode: u32,
    size: u32,
}

impl Looks {
    fn of(stamp: &Stamp) -> Self {
        let time = |(s, ns): (i64, u64)| (s as u32, ns as u32);
        Self {
            changed: time(stamp.changed),
            modified: time(stamp.modified),
            inode: stamp.id.1 as u32,
            size: stamp.size as u32,
        }
    }
}

impl Tracked {
    /// Asks git. Empty where there is no repository, and for all that git cannot say.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let Some(repository) = git::repository(root)? else { return Ok(Self::default()) };
        let Ok(index) = fs::metadata(&repository.index) else { return Ok(Self::default()) };
        let mut list = git::git(root);
        list.args(["ls-files", "--stage", "--debug", "-z"]);
        let mut files = parse(&git::run(list, None)?);
        let paths = files.keys().cloned().collect();
        // What changed in the moment in which the index was written may have been changed once more.
        let written = (index.mtime() as u32, index.mtime_nsec() as u32);
        files.retain(|_, (_, looks)| looks.modified < written && looks.size > 0);
        let mut tracked = Self { paths, files };
        tracked.without_converted(root)?;
        Ok(tracked)
    }

    /// The blob that has this file's content.
    pub(crate) fn blob(&self, path: &CleanPath, stamp: &Stamp) -> Option<&str> {
        let (blob, looks) = self.files.get(path)?;
        (*looks == Looks::of(stamp)).then_some(blob)
    }

    pub(crate) fn paths(&self) -> &[CleanPath] {
        &self.paths
    }

    fn without_converted(&mut self, root: &Path) -> io::Result<()> {
        let names: Vec<&str> = self.files.values().map(|(blob, _)| blob.as_str()).collect();
        let sizes = sizes(root, &names)?;
        let filtered = self.filtered(root)?;
        self.files.retain(|path, (blob, looks)| {
            sizes.get(blob).is_some_and(|size| *size as u32 == looks.size) && !filtered.contains(path)
        });
        Ok(())
    }

    /// Files with a filter, where filters are configured.
    fn filtered(&self, root: &Path) -> io::Result<HashSet<CleanPath>> {
        let mut ask = git::git(root);
        ask.args(["config", "--get-regexp", "^filter\\."]);
        // Status 1: none is set, and then none works.
        if self.files.is_empty() || git::run(ask, None).is_err() {
            return Ok(HashSet::new());
        }
        // Git would wait for a pipe in the place of a list.
        let folders: HashSet<&Path> =
            self.files.keys().flat_map(|path| path.as_ref().ancestors().skip(1)).collect();
        let list = |folder: &&Path| fs::symlink_metadata(root.join(folder).join(".gitattributes"));
        if folders.iter().any(|folder| list(folder).is_ok_and(|m| !m.is_file() && !m.is_symlink())) {
            return Ok(self.files.keys().cloned().collect());
        }
        let mut ask = git::git(root);
        ask.args(["check-attr", "-z", "--stdin", "filter"]);
        let mut input = Vec::new();
        for path in self.files.keys() {
            input.extend_from_slice(path.as_str().as_bytes());
            input.push(0);
        }
        let said = git::run(ask, Some(&input))?;
        let said = String::from_utf8_lossy(&said);
        let fields: Vec<&str> = said.split('\0').collect();
        let set = fields.chunks_exact(3).filter(|f| f[2] != "unspecified" && f[2] != "unset");
        Ok(set.map(|f| CleanPath::of(Path::new(f[0]))).collect())
    }
}

/// `mode blob stage TAB path NUL`, then five lines of metadata, over and over.
fn parse(said: &[u8]) -> HashMap<CleanPath, (String, Looks)> {
    let mut files = HashMap::new();
    let mut rest = said;
    while let Some(end) = rest.iter().position(|b| *b == 0) {
        let (head, tail) = (&rest[..end], &rest[end + 1..]);
        let lines =
            tail.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(4).map_or(tail.len(), |l| l.0 + 1);
        rest = &tail[lines..];
        let (Ok(head), Ok(debug)) = (str::from_utf8(head), str::from_utf8(&tail[..lines])) else { continue };
        let Some((about, path)) = head.split_once('\t') else { continue };
        let mut about = about.split(' ');
        let (Some(mode), Some(blob), Some("0")) = (about.next(), about.next(), about.next()) else {
            continue;
        };
        if let Some(looks) = looks(debug).filter(|_| mode.starts_with("100")) {
            files.insert(CleanPath::of(Path::new(path)), (blob.to_owned(), looks));
        }
    }
    files
}

fn looks(debug: &str) -> Option<Looks> {
    let after = |name: &str| {
        let text = debug.split(name).nth(1)?;
        Some(text.split(|c: char| !c.is_ascii_digit() && c != ':').next().unwrap_or_default())
    };
    let number = |name: &str| after(name)?.parse().ok();
    let time = |name: &str| {
        let (s, ns) = after(name)?.split_once(':')?;
        Some((s.parse().ok()?, ns.parse().ok()?))
    };
    Some(Looks {
        changed: time("ctime: ")?,
        modified: time("mtime: ")?,
        inode: number("ino: ")?,
        size: number("size: ")?,
    })
}

/// Of the blobs that are there.
fn sizes(root: &Path, blobs: &[&str]) -> io::Result<HashMap<String, u64>> {
    if blobs.is_empty() {
        return Ok(HashMap::new());
    }
    let mut ask = objects(root);
    ask.args(["cat-file", "--batch-check=%(objectname) %(objectsize)"]);
    let said = git::run(ask, Some(blobs.join("\n").as_bytes()))?;
    let said = String::from_utf8_lossy(&said);
    let sizes = said.lines().filter_map(|line| {
        let (blob, size) = line.split_once(' ')?;
        Some((blob.to_owned(), size.parse().ok()?))
    });
    Ok(sizes.collect())
}

/// The contents of blobs, `None` for those that are gone.
pub(crate) fn contents(root: &Path, blobs: &[&str]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let mut ask = objects(root);
    ask.args(["cat-file", "--batch"]);
    let said = git::run(ask, Some((blobs.join("\n") + "\n").as_bytes()))?;
    let (mut out, mut rest) = (Vec::new(), said.as_slice());
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let size = head.split(' ').nth(2).and_then(|size| size.parse::<usize>().ok());
        out.push(size.and_then(|size| rest.get(..size)).map(<[u8]>::to_vec));
        rest = rest.get(size.map_or(0, |size| size + 1)..).unwrap_or_default();
    }
    match out.len() == blobs.len() {
        true => Ok(out),
        false => Err(io::Error::other("git cat-file said something else than was asked")),
    }
}

/// Git on the user's objects as they are, fetching none.
fn objects(root: &Path) -> std::process::Command {
    let mut git = git::git(root);
    git.env("GIT_NO_REPLACE_OBJECTS", "1");
    git
}
