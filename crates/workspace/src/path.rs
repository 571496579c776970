//! Turns paths that models write into paths inside the workspace.

use std::{
    borrow::Cow,
    fmt, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Workspace, names};

/// How many existing paths a "not found" error suggests.
const NEAREST: usize = 3;
/// The longest path accepted from a model, in bytes (Linux's own limit).
const MAX_PATH: usize = 4096;
/// The longest name of a file or folder, in bytes (the limit of Linux's file systems).
const MAX_NAME: usize = 255;

/// A path relative to the root of the workspace, with `/` between components and without `.` and
/// `..`; the root itself is `"."`. File accesses are confined to the workspace by the directory
/// handle, not by this text. Bytes that are not UTF-8 are written as `\xHH`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CleanPath {
    text: String,
    /// The path with its escapes decoded, if the text contains any.
    raw: Option<PathBuf>,
}

/// Normalizes text to NFC.
fn nfc(text: &str) -> Cow<'_, str> {
    icu_normalizer::ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

impl TryFrom<String> for CleanPath {
    type Error = PathError;

    /// Accepts only clean paths, because stored text may have been edited.
    fn try_from(text: String) -> Result<Self, PathError> {
        match normalize(&text) {
            Some(path) if path.text == text && !text.contains('\0') => Ok(path),
            _ => Err(PathError::NotAPath(text)),
        }
    }
}

impl From<CleanPath> for String {
    fn from(path: CleanPath) -> Self {
        path.text
    }
}

impl CleanPath {
    /// Returns the path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text contains escapes for bytes that are not UTF-8.
    #[must_use]
    pub fn is_escaped(&self) -> bool {
        self.raw.is_some()
    }

    /// Parses the text of a clean path.
    pub(crate) fn new(text: String) -> Self {
        match names::unescape(&text) {
            Some(raw) => Self::of(&raw),
            None => Self { text: if text.is_empty() { ".".into() } else { text }, raw: None },
        }
    }

    /// Converts a path that is relative to the root of the tree.
    pub(crate) fn of(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        match path.to_str() {
            Some(text) if !text.contains("\\x") => Self::new(text.to_owned()),
            _ => {
                let text = names::escape(bytes);
                let raw = (text.as_bytes() != bytes).then(|| path.to_owned());
                Self { text, raw }
            }
        }
    }

    /// Splits off the last component. Returns `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        match self.text.rsplit_once('/') {
            Some((parent, name)) => Some((Self::new(parent.into()), name)),
            None if self.text == "." => None,
            None => Some((Self::new(String::new()), &self.text)),
        }
    }

    /// Appends a name.
    fn join(&self, name: &str) -> Self {
        match self.as_str() {
            "." => Self::new(name.into()),
            folder => Self::new(format!("{folder}/{name}")),
        }
    }
}

impl fmt::Display for CleanPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<Path> for CleanPath {
    fn as_ref(&self) -> &Path {
        self.raw.as_deref().unwrap_or(Path::new(&self.text))
    }
}

/// Why a path cannot be used. Each message is written for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text is empty, or no file can have this name.
    #[error("{0:?} is not a file path; give one relative to the repository root, like \"src/main.rs\"")]
    NotAPath(String),
    /// The path leads out of the workspace, either directly or through a symbolic link.
    #[error("{path} is outside the repository; use a path relative to its root{}", suggest(.nearest))]
    Outside {
        /// The path as the model wrote it.
        path: String,
        /// Existing paths that the model may have meant.
        nearest: Vec<String>,
    },
    /// There is no such file or folder.
    #[error("{path} does not exist{}", suggest(.nearest))]
    NotFound {
        /// The normalized path.
        path: String,
        /// Existing paths that the model may have meant, best first.
        nearest: Vec<String>,
    },
    /// The path must not be written to.
    #[error("{path} may not be changed: it belongs to {owner}")]
    Protected {
        /// The normalized path.
        path: String,
        /// Who the path belongs to: git, the agent or the run.
        owner: &'static str,
    },
    /// A system call failed.
    #[error("{path}: {why}")]
    System {
        /// The normalized path.
        path: String,
        /// The system's error.
        why: String,
    },
}

fn suggest(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

impl Workspace {
    /// Finds the existing file or folder that the model meant. Accepts `./x`, absolute paths inside
    /// the root, backslashes and surrounding quotes. Strips the `a/` and `b/` prefixes that diffs
    /// use, unless the path exists with the prefix.
    ///
    /// # Errors
    /// If the path is outside the root or does not exist. The error suggests the nearest existing
    /// paths.
    pub fn resolve(&self, given: &str) -> Result<CleanPath, PathError> {
        let mut first = None;
        for path in self.candidates(given)? {
            match self.0.dir.metadata(&path) {
                Ok(_) => return Ok(path),
                Err(e) => {
                    first.get_or_insert((path, e));
                }
            }
        }
        let mut similar = self.candidates(given)?.into_iter().filter_map(|path| self.find_normalized(&path));
        if let Some(path) = similar.next() {
            return Ok(path);
        }
        let Some((path, e)) = first else { return Err(PathError::NotAPath(given.into())) };
        Err(self.path_error(&path, &e))
    }

    /// Finds the path to write, which need not exist. Follows symbolic links, so a link stays a
    /// link and the file it points to is written.
    ///
    /// # Errors
    /// If the path is outside the root, or belongs to git or to the agent itself.
    pub fn target(&self, given: &str) -> Result<CleanPath, PathError> {
        let path = match self.resolve(given) {
            Ok(path) => path,
            Err(PathError::NotFound { .. }) => match self.candidates(given)?.into_iter().next() {
                Some(path) => self.in_existing_folders(path),
                None => return Err(PathError::NotAPath(given.into())),
            },
            Err(e) => return Err(e),
        };
        if path.as_str() == "." {
            return Err(PathError::NotAPath(given.into()));
        }
        let path = self.follow(&path)?;
        if path.as_str().split('/').any(is_git) {
            return Err(PathError::Protected { path: path.to_string(), owner: "git" });
        }
        Ok(path)
    }

    /// Finds the existing path that differs from `path` only in Unicode normalization, if there is
    /// exactly one. For example, macOS decomposes letters in names.
    fn find_normalized(&self, path: &CleanPath) -> Option<CleanPath> {
        if path.as_str().is_ascii() {
            return None;
        }
        let mut so_far = CleanPath::new(String::new());
        for name in path.as_str().split('/') {
            let there = so_far.join(name);
            if self.0.dir.symlink_metadata(&there).is_ok() {
                so_far = there;
                continue;
            }
            let entries = self.0.dir.read_dir(&so_far).ok()?.flatten();
            let mut similar = entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|other| nfc(other) == nfc(name));
            match (similar.next(), similar.next()) {
                (Some(only), None) => so_far = so_far.join(&only),
                _ => return None,
            }
        }
        Some(so_far)
    }

    /// Replaces parent folders in the path of a missing file with existing ones whose names differ
    /// only in Unicode normalization (see [`Workspace::find_normalized`]).
    fn in_existing_folders(&self, path: CleanPath) -> CleanPath {
        let mut missing = Vec::new();
        let mut above = path.clone();
        while let Some((folder, name)) = above.split() {
            missing.push(name.to_owned());
            if let Some(found) = self.find_normalized(&folder) {
                return missing.iter().rev().fold(found, |folder, name| folder.join(name));
            }
            above = folder;
        }
        path
    }

    /// Follows every symbolic link in a path. Keeps components that do not exist.
    fn follow(&self, path: &CleanPath) -> Result<CleanPath, PathError> {
        match self.0.dir.canonicalize(path) {
            Ok(real) => Ok(CleanPath::of(&real)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some((parent, name)) = path.split() else { return Err(self.path_error(path, &e)) };
                if self.0.dir.symlink_metadata(path).is_ok() {
                    let why = "it is a dangling symbolic link".into();
                    return Err(PathError::System { path: path.to_string(), why });
                }
                Ok(self.follow(&parent)?.join(name))
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                let why = "its parent is not a directory".into();
                Err(PathError::System { path: path.to_string(), why })
            }
            Err(e) => Err(self.path_error(path, &e)),
        }
    }

    /// Returns the paths that the text could refer to, most literal first.
    fn candidates(&self, given: &str) -> Result<Vec<CleanPath>, PathError> {
        let bare = unquote(given);
        let long = bare.len() > MAX_PATH || bare.split('/').any(|name| name.len() > MAX_NAME);
        if bare.is_empty() || long || bare.chars().any(char::is_control) {
            return Err(PathError::NotAPath(given.chars().take(200).collect()));
        }
        let outside = || PathError::Outside { path: bare.into(), nearest: self.nearest(bare, NEAREST) };
        let mut out: Vec<CleanPath> = Vec::with_capacity(2);
        let octal = names::from_octal(bare);
        let slashed = bare.replace('\\', "/");
        for text in [Some(bare), octal.as_deref(), Some(&slashed)].into_iter().flatten() {
            let relative = match text.strip_prefix('/') {
                None => text.to_owned(),
                Some(_) => {
                    let roots = [Some(&self.0.root), self.0.original.as_ref()];
                    let mut inside =
                        roots.into_iter().flatten().filter_map(|r| Path::new(text).strip_prefix(r).ok());
                    inside.next().and_then(Path::to_str).ok_or_else(outside)?.to_owned()
                }
            };
            let path = normalize(&relative).ok_or_else(outside)?;
            let unprefixed = path.as_str().strip_prefix("a/").or(path.as_str().strip_prefix("b/"));
            let unprefixed = unprefixed.map(|p| CleanPath::new(p.into()));
            for path in [Some(path), unprefixed].into_iter().flatten() {
                if !out.contains(&path) {
                    out.push(path);
                }
            }
        }
        Ok(out)
    }

    pub(crate) fn path_error(&self, path: &CleanPath, e: &io::Error) -> PathError {
        let text = path.to_string();
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                // If the path is a dangling link, do not suggest the link itself.
                let mut nearest = self.nearest(&text, NEAREST);
                nearest.retain(|other| *other != text);
                PathError::NotFound { nearest, path: text }
            }
            // cap-std reports an escape from the root as an error without an OS error number.
            io::ErrorKind::PermissionDenied if e.raw_os_error().is_none() => {
                PathError::Outside { path: format!("{text} (a symbolic link)"), nearest: Vec::new() }
            }
            _ => PathError::System { path: text, why: e.to_string() },
        }
    }
}

fn unquote(text: &str) -> &str {
    let mut text = text.trim();
    for quote in ['"', '\'', '`'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            text = inner.trim();
        }
    }
    text
}

/// Removes empty components, `.` and `..`. Returns `None` if the path leads above its starting
/// point.
fn normalize(text: &str) -> Option<CleanPath> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(CleanPath::new(parts.join("/")))
}

/// Whether some file system might treat this name as `.git`. HFS+ ignores case and invisible
/// characters. Windows also accepts `git~1`, trailing spaces and dots, and
/// `.git::$INDEX_ALLOCATION`. All of these names are matched, because repositories are copied
/// between systems.
pub(crate) fn is_git(name: &str) -> bool {
    if name.is_ascii() && !name.starts_with(['.', 'g', 'G']) {
        return false;
    }
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let plain: String = name.chars().filter(|c| !invisible(c)).map(|c| c.to_ascii_lowercase()).collect();
    let stem = plain.split([':', '\\']).next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(stem, ".git" | "git~1")
}
