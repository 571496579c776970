//! Patch dialects, matching, applying, previews: pure functions from bytes to bytes.
//!
//! [`parse`] turns what a model wrote into [`FilePatch`]es, whatever the [`Dialect`]; [`apply`] turns one file's bytes into its new bytes
//! or a [`Refused`] that says what the file really says. Nothing here knows of files, folders or clocks.
//!
//! A hunk is a list of lines to keep, to remove and to add. Where it goes is decided by one ladder for all dialects, the first rung on which
//! the old lines stand anywhere ([`Rung`]):
//!
//! 1. exactly, at the line that the hunk names;
//! 2. exactly, elsewhere;
//! 3. for search/replace: as a piece of text within lines;
//! 4. but for blanks at line ends;
//! 5. but for an indentation that differs by the same amount on every line; added lines are shifted by as much;
//! 6. but for tabs against spaces in the indentation; added lines are converted;
//! 7. all of these after line numbers pasted from `read_file` (`12|`) have been taken off.
//!
//! Two places on the rung are told apart by the line that the hunk names, by the `@@` header above it, or by the order of the hunks;
//! otherwise the patch is refused. Line endings, byte order mark and a missing final newline stay as the file has them, line by line.
//!
//! ```
//! let patches = patch::parse("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+zwei\n").unwrap();
//! let applied = patch::apply(Some(b"one\r\ntwo\r\n"), &patches[0]).unwrap();
//! assert_eq!(applied.bytes.unwrap(), b"one\r\nzwei\r\n");
//! ```

mod apply;
mod blocks;
mod detect;
mod envelope;
mod feedback;
mod ladder;
mod lines;
mod model;
mod place;
mod preview;
mod strict;
mod unified;

pub use apply::{Applied, How, apply};
pub use detect::{detect, edits, parse, parse_for, whole};
pub use feedback::{Kind, Refused};
pub use ladder::Rung;
pub use model::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError};
pub use preview::{Preview, preview};
