//! Patches by the thousand, made from edits whose result is known.
//!
//! Each [`Case`] starts from an edit of a real-looking file: the edited file is what is expected, whatever any engine thinks. The edit is
//! written as a patch in every [`Form`], clean and then deformed as models deform patches. Where a deformation leaves two readings, the
//! generator sees it by counting the places the old lines could mean, and asks only that the result is never wrong ([`Class::Either`]).
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

/// Path to content and whether it is executable.
pub type Tree = BTreeMap<String, (Vec<u8>, bool)>;

/// What has to become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A right patch: it has to go in.
    Clean,
    /// A patch with mistakes that leave one reading only: it has to go in.
    Deformed,
    /// It may not go in, and nothing may change.
    MustRefuse,
    /// It may go in, if rightly so, or be refused.
    Either,
    /// A path that is not the model's to write, or leads to one. Through a workspace, nothing may change; where a tree is expected, that
    /// or nothing.
    Security,
}

/// The form a patch is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// A unified diff as `diff -u` writes it.
    Unified,
    /// A unified diff as git writes it.
    Git,
    /// `*** Begin Patch`.
    Envelope,
    /// `<<<<<<< SEARCH`.
    Blocks,
    /// `[{path, search, replace}]`.
    Edits,
    /// The new content.
    Whole,
}

/// One edit of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file.
    pub path: String,
    /// What is there.
    pub search: String,
    /// What is to be there.
    pub replace: String,
}

/// What a model sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A patch.
    Text(String),
    /// A patch, as an array of lines.
    Lines(Vec<String>),
    /// A list of edits.
    Edits(Vec<Edit>),
    /// A file's whole content.
    Whole {
        /// The file.
        path: String,
        /// Its new content.
        content: String,
    },
    /// A file's whole content, as an array of lines.
    WholeLines {
        /// The file.
        path: String,
        /// Its new content, line by line.
        lines: Vec<String>,
    },
    /// The file is to go.
    Delete {
        /// The file.
        path: String,
    },
}

/// What becomes of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// They are these afterwards; for [`Class::Either`], these or as before.
    Tree(Tree),
    /// They are as before. The kind of refusal, where only one is right.
    Refused(Option<&'static str>),
}

/// What is there besides plain files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plant {
    /// A symbolic link at `path`; the target as it is written into the link.
    Symlink {
        /// Relative to the root.
        path: String,
        /// May lead outside.
        target: String,
    },
    /// A second name for an existing file.
    HardLink {
        /// Relative to the root.
        path: String,
        /// An existing file, relative to the root; may be outside.
        target: String,
    },
    /// The workspace keeps its own state in this folder.
    State {
        /// Relative to the root.
        path: String,
    },
    /// A file next to the root, which nobody may touch: `../NAME`.
    Outside {
        /// Relative to the folder that the root is in.
        path: String,
        /// Its content.
        bytes: Vec<u8>,
    },
}

/// One patch, what it is applied to, and what has to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Unique; the base edit, the form and the deformations.
    pub name: String,
    /// What has to become of it.
    pub class: Class,
    /// How it is written.
    pub form: Form,
    /// What is wrong with it, or why it has to be refused.
    pub deformations: Vec<&'static str>,
    /// The files before.
    pub before: Tree,
    /// Links and files outside; only in [`Class::Security`].
    pub plants: Vec<Plant>,
    /// The patch.
    pub input: Input,
    /// The files afterwards.
    pub expected: Expected,
}

impl Input {
    /// The patch as one text, as the tool reads it; `None` when it is not a patch but edits or a file.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Lines(lines) => Some(joined(lines)),
            _ => None,
        }
    }

    /// The arguments of `apply_patch`.
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

/// An array of lines as one text: a newline after each that has none.
#[must_use]
pub fn joined(lines: &[String]) -> String {
    lines.iter().map(|l| format!("{}\n", l.strip_suffix('\n').unwrap_or(l))).collect()
}

/// All cases, always the same ones in the same order.
#[must_use]
pub fn cases() -> Vec<Case> {
    seeded(0)
}

/// One case of any kind but [`Class::Security`], quickly made, for programs that want them without end. `None` for one seed in a few.
#[must_use]
pub fn one(seed: u64) -> Option<Case> {
    let base = base::any(seed)?;
    if seed % 5 == 4 { refuse::any(&base) } else { deform::any(&base) }
}

/// Another corpus made in the same way; [`cases`] is the one with seed 0.
#[must_use]
pub fn seeded(seed: u64) -> Vec<Case> {
    let bases = base::all(seed);
    let mut out = Vec::new();
    deform::cases(&bases, &mut out);
    refuse::cases(&bases, &mut out);
    truncate::cases(&bases, &mut out);
    found::cases(&mut out);
    security::cases(&mut out);
    out
}
