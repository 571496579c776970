//! Confined access to a repository: reads, walks, atomic commits, copies and diffs.
//!
//! A [`Workspace`] is a handle to one folder. [`Workspace::resolve`] turns a path that a model
//! wrote into a [`CleanPath`]: relative, with `/` as the separator, and without `..`. Every access
//! goes through a directory handle (`openat2`, by way of `cap-std`), so neither an unusual spelling
//! of a path nor a symbolic link can lead out of the folder.
//!
//! Every edit goes through [`Workspace::commit`], which applies either all of an edit's changes or
//! none of them, and keeps the previous contents of the files. [`Workspace::watch`] and
//! [`Workspace::watched`] record what a command changes. [`History`] reports a session's changes;
//! [`Workspace::put_back`] undoes them, and [`Workspace::bring`] applies them to another tree.
//! [`Baseline`] takes a snapshot of a tree to diff against, without touching the user's `.git`.
//! [`Workspace::copy_to`] copies the tree for a dry run if the system does not allow overlays.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("a.txt"), "one\n")?;
//! let ws = workspace::Workspace::open(folder.path())?;
//! let path = ws.resolve("./a.txt")?;
//! assert_eq!(ws.read(&path)?.text(), b"one\n");
//! assert!(ws.resolve("../etc/passwd").is_err());
//! # Ok(())
//! # }
//! ```

mod attributes;
mod baseline;
mod bring;
mod changed_rules;
mod commit;
mod copy;
mod diff;
mod digest;
mod events;
mod git;
mod glob;
mod history;
mod index;
mod links;
mod names;
mod nearest;
mod own;
mod path;
mod place;
mod plant;
mod private_repository;
mod protected;
mod protected_paths;
mod read;
mod recover;
mod remembered;
mod root;
mod rules;
mod scan;
mod snapshot;
mod store;
mod tracked;
mod transaction;
mod walk;
mod watch;

pub use baseline::Baseline;
pub use bring::{BringError, Brought, Conflict};
pub use commit::{Change, Commit, CommitError, Committed, Expect};
pub use copy::{CopyCost, CopyReport, copy_without_git, has_room};
pub use diff::{Diff, DiffFile};
pub use digest::Digest;
pub use git::{git, git_answer, git_output, readable, search_path};
pub use glob::Glob;
pub use history::{History, HistoryRecord, NetChange};
pub use own::Own;
pub use path::{CleanPath, PathError};
pub use place::FileImage;
pub use plant::Seed;
pub use protected::Protected;
pub use read::{READ_LIMIT, ReadError};
pub use remembered::Remembered;
pub use root::{OpenError, Workspace};
pub use store::By;
pub use walk::{Entry, Listing, WalkFilter};
pub use watch::Watch;
