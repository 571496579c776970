//! Finds the definitions and uses of names in a repository.
//!
//! [`Index::update`] parses changed files with tree-sitter and records which names each file
//! defines and uses. [`Cache`] stores the index, so that the next process parses only what has
//! changed since. [`Index::rank`] orders the files by how well they match the words of a task and
//! by how much other code uses their definitions, and [`Map`] turns the top files into text that
//! fits within a budget.
//!
//! The index holds names, line numbers and counts, but no source text. To show a line, read it from
//! the file. [`Code`] holds the index of a workspace and updates it before each use.
//!
//! ```
//! use symbols::{Index, Listed, Limits, Stamp};
//! use std::sync::atomic::AtomicBool;
//!
//! let files = [Listed { path: "a.py".into(), size: 20, stamp: Stamp::default() }];
//! let mut index = Index::default();
//! let read = |_: &str| Some(b"def parse(): pass\n\nparse()\n".to_vec());
//! index.update(&files, &read, &Limits::default(), &AtomicBool::new(false));
//! let found = index.find("parse");
//! assert_eq!((found.definitions[0].path, found.definitions[0].line), ("a.py", 1));
//! assert_eq!(found.uses, [("a.py", 1)]);
//! ```

mod cache;
mod code;
mod graph;
mod index;
mod language;
mod map;
mod rank;
mod tags;
mod words;

pub use cache::Cache;
pub use code::Code;
pub use index::{Found, FoundDefinition, Index, Limits, Listed, Stamp, Updated};
pub use language::Language;
pub use map::{Map, names_a_file};
pub use rank::Ranked;
pub use tags::{Kind, lines_with};
