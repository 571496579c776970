//! Paths as models write them, made into paths that can be used.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::Workspace;

/// How many existing paths a "not found" names.
const NEAREST: usize = 3;
/// Longest path taken from a model, in bytes (Linux's own limit).
const LONGEST: usize = 4096;
/// Longest name of a file or folder in it, in bytes (that of Linux's file systems).
const LONGEST_NAME: usize = 255;

/// A path inside the workspace: relative, `/` between components, no `.` and no `..`; the root itself is `"."`. That it stays inside is
/// not decided by its text but by the directory handle it is used with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CleanPath(String);

impl TryFrom<String> for CleanPath {
    type Error = PathError;

    /// What is written down may have been changed: only what is a clean path is taken for one.
    fn try_from(text: String) -> Result<Self, PathError> {
        match lexical(&text) {
            Some(path) if path.0 == text && !text.contains('\0') => Ok(path),
            _ => Err(PathError::NotAPath(text)),
        }
    }
}

impl From<CleanPath> for String {
    fn from(path: CleanPath) -> Self {
        path.0
    }
}

impl CleanPath {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn new(text: String) -> Self {
        Self(if text.is_empty() { ".".into() } else { text })
    }

    /// The folder it is in and its last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => Some((Self(parent.into()), name)),
            None if self.0 == "." => None,
            None => Some((Self(".".into()), &self.0)),
        }
    }
}

impl fmt::Display for CleanPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for CleanPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
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
                Some(path) => path,
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

    /// The same path with every symbolic link in it followed. What does not exist yet is kept as it is.
    fn follow(&self, path: &CleanPath) -> Result<CleanPath, PathError> {
        match self.0.dir.canonicalize(path) {
            Ok(real) => match real.to_str() {
                Some(real) => Ok(CleanPath::new(real.into())),
                None => Err(PathError::NotAPath(path.to_string())),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some((parent, name)) = path.split() else { return Err(self.path_error(path, &e)) };
                if self.0.dir.symlink_metadata(path).is_ok() {
                    let why = "it is a symbolic link to something that does not exist".into();
                    return Err(PathError::System { path: path.to_string(), why });
                }
                let parent = self.follow(&parent)?;
                Ok(match parent.as_str() {
                    "." => CleanPath::new(name.into()),
                    parent => CleanPath::new(format!("{parent}/{name}")),
                })
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
        let slashed = bare.replace('\\', "/");
        for text in [bare, &slashed] {
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
    let invisible = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let plain: String = name.chars().filter(|c| !invisible(c)).map(|c| c.to_ascii_lowercase()).collect();
    let stem = plain.split([':', '\\']).next().unwrap_or_default().trim_end_matches(['.', ' ']);
    matches!(stem, ".git" | "git~1")
}
