//! Contents that git has, byte for byte as they lie in the work tree, so that nobody has to copy them.
//!
//! Git may convert a file on its way between work tree and blob. Files for which attributes ask for more than other line ends are told by
//! [`converted`]; with other line ends only, the size tells ([`as_it_was`]).

use std::{collections::BTreeSet, ffi::OsStr, io, os::unix::ffi::OsStrExt as _, path::Path};

use crate::{CleanPath, git, index::Index, rules::small_file, scan::Found};

/// Attributes by which a blob has another content than the file. One in a list that is read is enough to ask git about every file.
const CONVERTING: [&str; 3] = ["filter", "ident", "working-tree-encoding"];
/// Largest list of attributes that is read, in bytes; what stands in a larger one is not known.
const LIST_LIMIT: u64 = 1 << 20;

/// Files whose content is not their blob's: those that git says it converts, or all where it cannot be asked.
pub(crate) fn converted(root: &Path, index: &Index, found: &Found) -> Vec<CleanPath> {
    let all = || {
        let files = index.files.iter().flat_map(|(folder, files)| files.keys().map(|name| folder.join(name)));
        files.map(|path| CleanPath::of(&path)).collect()
    };
    // Git would wait for a pipe in the place of a list.
    if found.special_attributes {
        return all();
    }
    let list = OsStr::new(".gitattributes");
    let tracked = index.files.iter().filter(|(_, files)| files.contains_key(list));
    let new = found.changed.iter().filter(|(path, _)| AsRef::<Path>::as_ref(path).ends_with(list));
    let lists = tracked.map(|(folder, _)| folder.join(list)).chain(new.map(|(path, _)| AsRef::<Path>::as_ref(path).to_owned()));
    let lists = lists.map(|list| root.join(list)).chain([root.join(".git/info/attributes")]);
    if lists.map(|list| converts(&list)).any(|converts| converts) || users_list_converts(root) {
        ask(root, index).unwrap_or_else(|_| all())
    } else {
        Vec::new()
    }
}

/// Whether a list of attributes names one that converts. One that cannot be read may.
fn converts(list: &Path) -> bool {
    if list.symlink_metadata().is_err() {
        return false;
    }
    let Some(text) = small_file(list, LIST_LIMIT) else { return true };
    let text = String::from_utf8_lossy(&text);
    CONVERTING.iter().any(|attribute| text.contains(attribute))
}

/// The same for the user's own list, where filters are configured: without one, nothing of that kind is in use.
fn users_list_converts(root: &Path) -> bool {
    let said = |args: &[&str]| {
        let mut ask = git::git(root);
        ask.args(args);
        git::ask(ask).ok().map(|said| String::from_utf8_lossy(&said).trim_end().to_owned())
    };
    said(&["config", "--get-regexp", "^filter\\."]).is_some()
        && said(&["var", "GIT_ATTR_GLOBAL"]).is_none_or(|list| converts(Path::new(&list)))
}

/// Asks git about every file.
fn ask(root: &Path, index: &Index) -> io::Result<Vec<CleanPath>> {
    let mut ask = git::git(root);
    ask.args(["check-attr", "-z", "--stdin"]).args(CONVERTING);
    let mut names = Vec::new();
    for (folder, files) in &index.files {
        for name in files.keys() {
            names.extend_from_slice(folder.join(name).as_os_str().as_bytes());
            names.push(0);
        }
    }
    let said = git::run(ask, Some(&names))?;
    let fields: Vec<&[u8]> = said.split(|byte| *byte == 0).collect();
    let set = fields.chunks_exact(3).filter(|f| !matches!(f[2], b"unspecified" | b"unset"));
    let paths: BTreeSet<&[u8]> = set.map(|f| f[0]).collect();
    Ok(paths.into_iter().map(|path| CleanPath::of(Path::new(OsStr::from_bytes(path)))).collect())
}

/// What a file of this size was, from its blob: that, or the same with `\r\n` at the end of each line.
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

/// The contents of blobs, `None` for those that are gone.
pub(crate) fn contents(root: &Path, blobs: &[String]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let mut ask = git::git(root);
    // The user's objects as they are.
    ask.env("GIT_NO_REPLACE_OBJECTS", "1").args(["cat-file", "--batch"]);
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
