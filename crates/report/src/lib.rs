//! Views of finished batches and sessions, as text: an HTML page ([`batch_page`],
//! [`session_page`]), JUnit XML ([`junit`]), Markdown ([`markdown`]) and a comparison of two
//! batches ([`Comparison`]). Everything here is pure: records go in, text comes out. The caller
//! reads and writes the files.
//!
//! ```text
//! journal::Record ─► trajectory::steps ─► pack ─┐
//! batch::Folder ────────────────────────────────┴─► page ─► HTML
//! batch::Summary ─► junit, markdown
//! batch::Folder × 2 ─► Comparison ─► text, JSON
//! ```
//!
//! All text from models, files and servers is treated as hostile. Control characters and characters
//! that reorder or hide text are replaced ([`preview::sanitize`]), no text can close the element
//! that holds it, and the page never interprets text as HTML. To hide secrets, the caller passes a
//! [`Mask`] that replaces them.

mod compare;
mod junit;
mod markdown;
mod outcome;
mod pack;
mod page;
#[cfg(test)]
mod testing;
mod trajectory;

use std::borrow::Cow;

pub use compare::Comparison;
pub use junit::junit;
pub use markdown::markdown;
pub use page::{batch_page, session_page};
pub use trajectory::{Part, Step, steps};

/// Replaces text that must not be shown, such as secrets.
pub type Mask<'m> = &'m dyn for<'t> Fn(&'t str) -> Cow<'t, str>;
