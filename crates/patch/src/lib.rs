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
//! 6. but for tabs against spaces, in the indentation or between words; added lines are converted;
//! 7. but for typographic characters (curly quotes, dashes, no-break spaces), full-width punctuation, composed or decomposed letters, and
//!    characters that cannot be seen; added lines get the file's;
//! 8. all of these after line numbers pasted from `read_file` (`12|`) have been taken off;
//! 9. but for blanks within lines, or for up to three lines to keep that are a little wrong, missing or one too many, where the lines that go stand as the patch has them.
//!
//! Before that, [`Hunk::readings`] and the file decide what a hunk means where the patch alone does not: which `=======` line divides a block, what
//! a line of dots on both sides of it stands for, whether lines to keep have lost the column of their mark. A hunk whose lines stand nowhere may
//! change what a hunk above it has written, except in a diff.
//!
//! A new line that stands for code it leaves out (`# ... existing code ...`) is refused in every form ([`Kind::Placeholder`]).
//!
//! Two places on the rung are told apart by the line that the hunk names, by the `@@` header above it, or by the order of the hunks;
//! otherwise the patch is refused. Lines that are kept are never touched: their blanks, their endings and their typography stay. A new line ends
//! as the one it replaces, else as its neighbour; byte order mark and a missing final newline stay.
//!
//! Where to look: the dialects are read by `unified`, `envelope`, `blocks`, `tags`, `json` and `detect`, out of a shell command by `shell`; `answer`
//! tells whether a whole answer is a patch, `lazy` whether a line is a placeholder, `wrapped` what stands around a file's text, `readings` what a hunk means; `units` says when two lines are the same, `index` where a
//! file has a line, `ladder` and `context` where one hunk fits, `place` where all of them go, `splice` (with `indent` and `typography`) what that does
//! to the bytes.
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

pub use answer::whole_answer;
pub use apply::{Applied, How, apply};
pub use detect::{Change, changes, detect, edits, parse, parse_for, whole};
pub use feedback::{Kind, Refused};
pub use ladder::Rung;
pub use model::{Action, Dialect, FilePatch, Hunk, Line, Mark, ParseError};
pub use preview::{Preview, preview};
pub use watch::{Look, Stop, Watch, Why};
