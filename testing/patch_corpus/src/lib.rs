//! Generates thousands of patches from edits with known results.
//!
//! Each [`Case`] starts from an edit to a realistic file. The edited file is the expected result,
//! so no engine is needed to compute it. The edit is written as a patch in every [`Form`], first
//! clean, then deformed the way models deform patches. If a deformation makes a patch ambiguous,
//! refusing it is also correct ([`Class::Either`]). The generator detects ambiguity by counting the
//! places where the old lines could match.
//!
//! ```
//! let cases = patch_corpus::cases();
//! assert!(cases.len() > 5000);
//! assert!(cases.iter().all(|c| c.class != patch_corpus::Class::Clean || c.deformations.is_empty()));
//! ```

mod base;
mod by_hand;
mod deform;
mod deformation;
mod edit;
mod found;
mod hunk;
mod judge;
mod lines;
mod maker;
mod mistakes;
mod random;
mod refuse;
mod security;
mod style;
mod text;
mod truncate;
mod write;

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Maps the path of each file to its content and to whether it is executable.
pub type Tree = BTreeMap<String, (Vec<u8>, bool)>;

/// The required outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A correct patch: it must apply.
    Clean,
    /// A patch with mistakes but only one meaning: it must apply.
    Deformed,
    /// A wrong patch: it must be refused and change nothing.
    MustRefuse,
    /// An ambiguous patch: it must be refused or produce the right result.
    Either,
    /// A patch whose path is forbidden or involves a link: it must change nothing, or produce the
    /// expected tree if the case has one.
    Security,
}

/// The format a patch is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// A unified diff as written by `diff -u`.
    Unified,
    /// A unified diff as written by git.
    Git,
    /// A patch that starts with `*** Begin Patch`.
    Envelope,
    /// Blocks that start with `<<<<<<< SEARCH`.
    Blocks,
    /// A list of edits: `[{path, search, replace}]`.
    Edits,
    /// The complete new content of a file.
    Whole,
}

/// One edit in a list of edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The path of the file.
    pub path: String,
    /// The text to find.
    pub search: String,
    /// The text that replaces it.
    pub replace: String,
}

/// The input that a model sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A patch.
    Text(String),
    /// A patch as an array of lines.
    Lines(Vec<String>),
    /// A list of edits.
    Edits(Vec<Edit>),
    /// A whole file.
    Whole {
        /// The path of the file.
        path: String,
        /// The new content of the file.
        content: String,
    },
    /// A whole file as an array of lines.
    WholeLines {
        /// The path of the file.
        path: String,
        /// The lines of the new content.
        lines: Vec<String>,
    },
    /// A file to delete.
    Delete {
        /// The path of the file.
        path: String,
    },
}

/// The expected result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The files after the patch. For [`Class::Either`], they may also be unchanged.
    Tree(Tree),
    /// The patch is refused: with an error of this kind, or with any error if `None`.
    Refused(Option<&'static str>),
}

/// What a case needs besides its files: a link, the state folder, or a file outside the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fixture {
    /// A symbolic link.
    Symlink {
        /// The link, relative to the root.
        path: String,
        /// The target as written in the link. It may be outside the root.
        target: String,
    },
    /// A second name for an existing file.
    HardLink {
        /// The new name, relative to the root.
        path: String,
        /// The existing file, relative to the root. It may be outside the root.
        target: String,
    },
    /// The directory in which the workspace keeps its own state.
    State {
        /// The path of the directory, relative to the root.
        path: String,
    },
    /// A file outside the root, at `../NAME`, that must not change.
    Outside {
        /// The path of the file, relative to the root's parent.
        path: String,
        /// The content of the file.
        bytes: Vec<u8>,
    },
}

/// A patch, the files it is applied to, and the expected result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// A unique name, composed of the base edit, the form and the deformations.
    pub name: String,
    /// The required outcome.
    pub class: Class,
    /// The format of the patch.
    pub form: Form,
    /// The mistakes in the patch, or why it must be refused.
    pub deformations: Vec<&'static str>,
    /// The files before the patch.
    pub before: Tree,
    /// Links, directories and outside files that also exist before the patch. Empty except for
    /// [`Class::Security`].
    pub fixtures: Vec<Fixture>,
    /// The patch.
    pub input: Input,
    /// The files after the patch, or the refusal.
    pub expected: Expected,
}

impl Input {
    /// Returns the patch as a single string; `None` if it is a list of edits, a whole file or a
    /// file to delete.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Lines(lines) => Some(joined(lines)),
            _ => None,
        }
    }

    /// Returns the arguments for `apply_patch`.
    #[must_use]
    pub fn arguments(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "patch": text }),
            Self::Lines(lines) => json!({ "patch": lines }),
            Self::Edits(edits) => {
                let edit = |e: &Edit| json!({"path": e.path, "search": e.search, "replace": e.replace});
                json!({ "edits": edits.iter().map(edit).collect::<Vec<_>>() })
            }
            Self::Whole { path, content } => json!({ "path": path, "content": content }),
            Self::WholeLines { path, lines } => json!({ "path": path, "content": lines }),
            Self::Delete { path } => json!({ "path": path, "delete": true }),
        }
    }
}

/// Joins lines, adding a newline to each one that lacks it.
#[must_use]
pub fn joined(lines: &[String]) -> String {
    lines.iter().map(|l| format!("{}\n", l.strip_suffix('\n').unwrap_or(l))).collect()
}

/// Returns all cases, in the same order each time.
#[must_use]
pub fn cases() -> Vec<Case> {
    cases_for_seed(0)
}

/// Generates a single case without generating a whole corpus. The case may be of any class except
/// [`Class::Security`]. Returns `None` for some seeds.
#[must_use]
pub fn generate_case(seed: u64) -> Option<Case> {
    let base = base::any(seed)?;
    if seed % 5 == 4 { refuse::any(&base) } else { deform::any(&base) }
}

/// Generates a different corpus for each seed; [`cases`] uses seed 0.
#[must_use]
pub fn cases_for_seed(seed: u64) -> Vec<Case> {
    let bases = base::all(seed);
    let mut out = Vec::new();
    deform::cases(&bases, &mut out);
    refuse::cases(&bases, &mut out);
    truncate::cases(&bases, &mut out);
    found::cases(&mut out);
    security::cases(&mut out);
    out
}
