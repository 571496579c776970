//! Paths.
use crate::Case;
pub(crate) fn cases(_out: &mut Vec<Case>) {}
