//! Parses, matches, applies and previews patches: pure functions from bytes to bytes.
//!
//! [`parse`] turns a patch in any [`Dialect`] into [`FilePatch`]es. [`apply`] turns the bytes of
//! one file into its new bytes, or into a [`Refusal`] that quotes the file. This crate does not
//! touch the file system.
//!
//! A hunk is a list of context, removed and added lines. Context and removed lines are its old
//! lines. A single ladder, shared by all dialects, decides where the old lines match: the first
//! [`Rung`] with a match wins.
//!
//! 1. exactly, at the line number given in the hunk;
//! 2. exactly, at another line;
//! 3. for search/replace: as text within lines;
//! 4. ignoring whitespace at line ends;
//! 5. with a constant difference in indentation, which is applied to the added lines too;
//! 6. with tabs in place of spaces or vice versa, in the indentation or between words; added lines
//!    are converted;
//! 7. with other typographic characters (curly quotes, dashes, no-break spaces), full-width
//!    punctuation, composed or decomposed letters, and invisible characters; added lines are
//!    converted to the file's characters;
//! 8. any of the above, after removing line numbers pasted from `read_file` (`12|`);
//! 9. ignoring whitespace within lines, or with up to three context lines that differ slightly, are
//!    missing, or are extra; removed lines must match.
//!
//! Some patches can be read in more than one way. The content of the file decides which `=======`
//! line divides a block ([`Hunk::readings`]), what a line of dots in both the search and the
//! replacement stands for, and whether context lines lack the space that marks them.
//!
//! All hunks are matched against the original file. If a hunk does not match anywhere, the hunks
//! are applied one after another instead, each to the result of the previous one. Unified diffs are
//! never applied this way.
//!
//! An added line that stands in for omitted code (`# ... existing code ...`) is refused in every
//! dialect ([`RefusalKind::Placeholder`]).
//!
//! If a hunk matches in several places, its line number, the `@@` header above it or the order of
//! the hunks can single one out. If none of them does, the patch is refused. Context lines are
//! never rewritten: they keep their whitespace, endings and typography. An added line gets the
//! ending of the line it replaces, or that of a neighboring line if it replaces none. The file
//! keeps its byte order mark, and a missing final newline is not added.
//!
//! The modules, in the order in which they handle a patch:
//!
//! - `model` defines the parsed form of a patch.
//! - `unified`, `envelope`, `blocks`, `tags` and `json` read the dialects, `detect` picks one of
//!   them, and `shell` and `fence` unwrap shell commands and Markdown; `answer` finds the patch in
//!   a model's answer.
//! - `wrapped` strips text that models add to a file's content, `lazy` detects placeholders, and
//!   `readings` resolves ambiguous hunks.
//! - `apply` applies a patch to one file. `strict` handles diffs that match byte for byte.
//! - `lines`, `body` and `units` define what a line is and which lines are equal; `index` finds
//!   lines in a file; `ladder` and `context` match one hunk; `applied` detects changes that the
//!   file already has; and `place` selects a match for every hunk.
//! - `splice`, with `indent` and `typography`, computes the new bytes; `preview` renders the change
//!   as a diff for humans; and `feedback`, with `similarity`, explains a refusal to the model.
//! - `watch` checks a patch while it is still streaming.
//!
//! ```
//! let patches = patch::parse("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+zwei\n").unwrap();
//! let applied = patch::apply(Some(b"one\r\ntwo\r\n"), &patches[0]).unwrap();
//! assert_eq!(applied.bytes.unwrap(), b"one\r\nzwei\r\n");
//! ```

mod answer;
mod applied;
mod apply;
mod blocks;
mod body;
mod context;
mod detect;
mod envelope;
mod feedback;
mod fence;
mod indent;
mod index;
mod json;
mod ladder;
mod lazy;
mod lines;
mod model;
mod place;
mod preview;
mod readings;
mod shell;
mod similarity;
mod splice;
mod strict;
mod tags;
mod typography;
mod unified;
mod units;
mod watch;
mod wrapped;

pub use answer::patch_in_answer;
pub use apply::{Applied, ApplySummary, apply};
pub use detect::{Edit, detect, edits, edits_with_options, parse, parse_for, whole_file};
pub use feedback::{Refusal, RefusalKind};
pub use ladder::Rung;
pub use model::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError};
pub use preview::{Preview, preview};
pub use watch::{EarlyRefusal, PathState, RefusalCause, Watch};
