//! Paths as models write them, made into paths that can be used.

use std::{
    borrow::Cow,
    fmt, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Workspace, names};

/// How many existing paths a "not found" names.
const NEAREST: usize = 3;
/// Longest path taken from a model, in bytes (Linux's own limit).
const LONGEST: usize = 4096;
/// Longest name of a file or folder in it, in bytes (that of Linux's file systems).
const LONGEST_NAME: usize = 255;

/// A path inside the workspace: relative, `/` between components, no `.` and no `..`; the root itself is `"."`. That it stays inside is
/// not decided by its text but by the directory handle it is used with. Bytes that are not UTF-8 are written `\xHH` in its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CleanPath {
    text: String,
    /// The path itself, where the text is not it.
    raw: Option<PathBuf>,
}

/// The text with its letters composed.
fn composed(text: &str) -> Cow<'_, str> {
    icu_normalizer::ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

impl TryFrom<String> for CleanPath {
    type Error = PathError;

    /// What is written down may have been changed: only what is a clean path is taken for one.
    fn try_from(text: String) -> Result<Self, PathError> {
        match lexical(&text) {
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
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether its text stands for bytes that are not UTF-8.
    #[must_use]
    pub fn is_escaped(&self) -> bool {
        self.raw.is_some()
    }

    /// From its text.
    pub(crate) fn new(text: String) -> Self {
        match names::meant(&text) {
            Some(raw) => Self::of(&raw),
            None => Self { text: if text.is_empty() { ".".into() } else { text }, raw: None },
        }
    }

    /// From a path of the tree, relative to its root.
    pub(crate) fn of(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        match path.to_str() {
            Some(text) if !text.contains("\\x") => Self::new(text.to_owned()),
            _ => {
                let text = names::shown(bytes);
                let raw = (text.as_bytes() != bytes).then(|| path.to_owned());
                Self { text, raw }
            }
        }
    }

    /// The folder it is in and its last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        match self.text.rsplit_once('/') {
            Some((parent, name)) => Some((Self::new(parent.into()), name)),
            None if self.text == "." => None,
            None => Some((Self::new(String::new()), &self.text)),
        }
    }

    /// A name in this folder.
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

/// Why a path cannot be used. Each is a sentence for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing, or something that no file is called.
    #[error("{0:?} is not a file path; give one relative to the repository root, like \"src/main.rs\"")]
    NotAPath(String),
    /// It leads out of the workspace, itself or through a symbolic link.
    #[error("{path} is outside the repository; use a path relative to its root{}", suggest(.nearest))]
    Outside {
        /// As it was given.
        path: String,
        /// Existing paths that may have been meant.
        nearest: Vec<String>,
    },
    /// There is no such file or folder.
    #[error("{path} does not exist{}", suggest(.nearest))]
    NotFound {
        /// As it was understood.
        path: String,
        /// Existing paths that may have been meant, best first.
        nearest: Vec<String>,
    },
    /// It may not be written.
    #[error("{path} may not be changed: it belongs to {owner}")]
    Protected {
        /// As it was understood.
        path: String,
        /// Whose it is.
        owner: &'static str,
    },
    /// The system would not have it.
    #[error("{path}: {why}")]
    System {
        /// As it was understood.
        path: String,
        /// What the system said.
        why: String,
    },
}

fn suggest(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

impl Workspace {
    /// The existing file or folder that was meant. Understands `./x`, absolute paths inside the root, backslashes, quotes around it, and the
    /// `a/` and `b/` of diffs where the path does not exist with them.
    ///
    /// # Errors
    /// When it is outside or not there; the error names the nearest existing paths.
    pub fn resolve(&self, given: &str) -> Result<CleanPath, PathError> {
        let mut first = None;
        for path in self.readings(given)? {
            match self.0.dir.metadata(&path) {
                Ok(_) => return Ok(path),
                Err(e) => {
                    first.get_or_insert((path, e));
                }
            }
        }
        let mut alike = self.readings(given)?.into_iter().filter_map(|path| self.in_another_form(&path));
        if let Some(path) = alike.next() {
            return Ok(path);
        }
        let Some((path, e)) = first else { return Err(PathError::NotAPath(given.into())) };
        Err(self.path_error(&path, &e))
    }

    /// The path that is meant to be written; it need not exist. Symbolic links are followed here, once, so that a link stays
    /// a link and the file it leads to is what is written.
    ///
    /// # Errors
    /// When it is outside, or belongs to git or to the agent itself.
    pub fn target(&self, given: &str) -> Result<CleanPath, PathError> {
        let path = match self.resolve(given) {
            Ok(path) => path,
            Err(PathError::NotFound { .. }) => match self.readings(given)?.into_iter().next() {
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

    /// The one existing path whose name differs only in composed and decomposed letters, as file systems of other systems write them.
    fn in_another_form(&self, path: &CleanPath) -> Option<CleanPath> {
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
            let mut alike = entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|other| composed(other) == composed(name));
            match (alike.next(), alike.next()) {
                (Some(only), None) => so_far = so_far.join(&only),
                _ => return None,
            }
        }
        Some(so_far)
    }

    /// A path that does not exist, in the folders that do.
    fn in_existing_folders(&self, path: CleanPath) -> CleanPath {
        let mut missing = Vec::new();
        let mut above = path.clone();
        while let Some((folder, name)) = above.split() {
            missing.push(name.to_owned());
            if let Some(found) = self.in_another_form(&folder) {
                return missing.iter().rev().fold(found, |folder, name| folder.join(name));
            }
            above = folder;
        }
        path
    }

    /// The same path with every symbolic link in it followed. What does not exist yet is kept as it is.
    fn follow(&self, path: &CleanPath) -> Result<CleanPath, PathError> {
        match self.0.dir.canonicalize(path) {
            Ok(real) => Ok(CleanPath::of(&real)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some((parent, name)) = path.split() else { return Err(self.path_error(path, &e)) };
                if self.0.dir.symlink_metadata(path).is_ok() {
                    let why = "it is a symbolic link to something that does not exist".into();
                    return Err(PathError::System { path: path.to_string(), why });
                }
                Ok(self.follow(&parent)?.join(name))
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                let why = "a file stands where its directory would be".into();
                Err(PathError::System { path: path.to_string(), why })
            }
            Err(e) => Err(self.path_error(path, &e)),
        }
    }

    /// What the text may mean, most literal first; each without `.` and `..`.
    fn readings(&self, given: &str) -> Result<Vec<CleanPath>, PathError> {
        let bare = unquote(given);
        let long = bare.len() > LONGEST || bare.split('/').any(|name| name.len() > LONGEST_NAME);
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
            let path = lexical(&relative).ok_or_else(outside)?;
            let undiffed = path.as_str().strip_prefix("a/").or(path.as_str().strip_prefix("b/"));
            let undiffed = undiffed.map(|p| CleanPath::new(p.into()));
            for path in [Some(path), undiffed].into_iter().flatten() {
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
                // A link to nothing is there, and is not meant.
                let mut nearest = self.nearest(&text, NEAREST);
                nearest.retain(|other| *other != text);
                PathError::NotFound { nearest, path: text }
            }
            // cap-std's own refusal carries no error number; the system's does.
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

/// Without empty components, `.` and `..`; `None` when it climbs above where it starts.
fn lexical(text: &str) -> Option<CleanPath> {
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

/// Whether a file system might take this name for `.git`: by case, by the invisible characters that HFS+ leaves out, or as Windows does
/// (`git~1`, blanks and dots behind, `.git::$INDEX_ALLOCATION`). Repositories travel.
pub(crate) fn is_git(name: &str) -> bool {
    if name.is_ascii() && !name.starts_with(['.', 'g', 'G']) {
        return false;
    }
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let plain: String = name.chars().filter(|c| !invisible(c)).map(|c| c.to_ascii_lowercase()).collect();
    let stem = plain.split([':', '\\']).next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(stem, ".git" | "git~1")
}
