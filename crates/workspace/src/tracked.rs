//! Recovers the previous content of tracked files from git's blobs, so that the files need not be
//! copied.
//!
//! Git may convert contents on checkout. [`converted`] finds the files where a conversion may
//! change more than line endings, and [`as_it_was`] handles line endings.

use std::{collections::BTreeSet, ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path};

use crate::{CleanPath, git, index::Index, rules::small_file, scan::Found};

/// Attributes that convert contents. If any attributes file mentions one of them, git is asked
/// about every file.
const CONVERTING: [&str; 3] = ["filter", "ident", "working-tree-encoding"];
/// The maximum size of a `.gitattributes` file to read, in bytes. A larger file is assumed to
/// contain an attribute that makes git convert files.
const LIST_LIMIT: u64 = 1 << 20;

/// Returns the files in which git may convert more than line endings, or all files if that cannot
/// be determined.
pub(crate) fn converted(root: &Path, index: &Index, found: &Found) -> Vec<CleanPath> {
    let all = || {
        let files = index.files.iter().flat_map(|(folder, files)| files.keys().map(|name| folder.join(name)));
        files.map(|path| CleanPath::of(&path)).collect()
    };
    // If a `.gitattributes` is a pipe or a device, git would block on it.
    if found.special_attributes {
        return all();
    }
    let list = OsStr::new(".gitattributes");
    let tracked = index.files.iter().filter(|(_, files)| files.contains_key(list));
    let new = found.changed.iter().filter(|(path, _)| AsRef::<Path>::as_ref(path).ends_with(list));
    let lists = tracked
        .map(|(folder, _)| folder.join(list))
        .chain(new.map(|(path, _)| AsRef::<Path>::as_ref(path).to_owned()));
    let mut lists = lists.map(|list| root.join(list)).chain([root.join(".git/info/attributes")]);
    if lists.any(|list| converts(&list)) || user_list_converts(root) {
        check_attributes(root, index).unwrap_or_else(|_| all())
    } else {
        Vec::new()
    }
}

/// Whether an attributes file may contain a converting attribute.
fn converts(list: &Path) -> bool {
    if list.symlink_metadata().is_err() {
        return false;
    }
    let Some(text) = small_file(list, LIST_LIMIT) else { return true };
    let text = String::from_utf8_lossy(&text);
    CONVERTING.iter().any(|attribute| text.contains(attribute))
}

/// Same as [`converts`], but for the user's own attributes file, which matters only if a filter is
/// configured.
fn user_list_converts(root: &Path) -> bool {
    let output = |args: &[&str]| {
        let mut command = git::git(root);
        command.args(args);
        git::query(command).ok().map(|output| String::from_utf8_lossy(&output).trim_end().to_owned())
    };
    output(&["config", "--get-regexp", "^filter\\."]).is_some()
        && output(&["var", "GIT_ATTR_GLOBAL"]).is_none_or(|list| converts(Path::new(&list)))
}

/// Asks git which files have converting attributes.
fn check_attributes(root: &Path, index: &Index) -> io::Result<Vec<CleanPath>> {
    let mut command = git::git(root);
    command.args(["check-attr", "-z", "--stdin"]).args(CONVERTING);
    let mut names = Vec::new();
    for (folder, files) in &index.files {
        for name in files.keys() {
            names.extend_from_slice(folder.join(name).as_os_str().as_bytes());
            names.push(0);
        }
    }
    let output = git::run(command, Some(&names))?;
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    let set = fields.chunks_exact(3).filter(|f| !matches!(f[2], b"unspecified" | b"unset"));
    let paths: BTreeSet<&[u8]> = set.map(|f| f[0]).collect();
    Ok(paths.into_iter().map(|path| CleanPath::of(Path::new(OsStr::from_bytes(path)))).collect())
}

/// Returns the version of the blob that has this size: the blob itself, or the blob with CRLF line
/// endings. Returns `None` if neither has this size.
pub(crate) fn as_it_was(blob: Vec<u8>, size: u32) -> Option<Vec<u8>> {
    if blob.len() as u32 == size {
        return Some(blob);
    }
    let mut out = Vec::with_capacity(blob.len());
    for line in blob.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) if !line.ends_with(b"\r") => out.extend_from_slice(&[line, b"\r\n"].concat()),
            _ => out.extend_from_slice(line),
        }
    }
    (out.len() as u32 == size).then_some(out)
}

/// Reads blobs. Returns `None` for those that no longer exist.
pub(crate) fn contents(root: &Path, blobs: &[String]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let mut command = git::git(root);
    // With replacement objects (`git replace`), git would return different contents.
    command.env("GIT_NO_REPLACE_OBJECTS", "1").args(["cat-file", "--batch"]);
    let output = git::run(command, Some((blobs.join("\n") + "\n").as_bytes()))?;
    let (mut out, mut rest) = (Vec::new(), output.as_slice());
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let size = head.split(' ').nth(2).and_then(|size| size.parse::<usize>().ok());
        out.push(size.and_then(|size| rest.get(..size)).map(<[u8]>::to_vec));
        rest = rest.get(size.map_or(0, |size| size + 1)..).unwrap_or_default();
    }
    match out.len() == blobs.len() {
        true => Ok(out),
        false => Err(io::Error::other("unexpected output from git cat-file")),
    }
}
