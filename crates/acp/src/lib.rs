//! The editor's view of a session, expressed in the types that the Agent Client Protocol defines
//! (<https://agentclientprotocol.com>, version 1). The crate translates in both directions: journal
//! records become updates to that view ([`Updates`]), and the blocks of a prompt become the text of
//! a task ([`prompt::text`]). It also defines the modes and models that a session offers ([`Mode`],
//! [`Choices`]), and the transport over two byte streams ([`lines`]).
//!
//! This crate does not start runs; the `agent` crate does.

mod diffs;
pub mod ending;
mod fence;
pub mod lines;
mod modes;
pub mod prompt;
mod updates;

pub use diffs::diffs;
pub use modes::{Choices, MODE, MODEL, Mode};
pub use updates::{Details, Updates};

/// The maximum size of a piece of text in an update, in bytes. Longer text is truncated.
pub const MAX_TEXT: usize = 64 << 10;

/// Returns the text, truncated to [`MAX_TEXT`] bytes if it is longer. Truncated text ends with a
/// note that says how much was left out.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let left_out = preview::figures::bytes((text.len() - end) as u64);
    format!("{}\n[{left_out} left out]", text.get(..end).unwrap_or_default())
}
