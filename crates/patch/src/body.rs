//! A hunk's lines as the matcher sees them: each with its mark but without its line ending.

use crate::{Hunk, Mark, lines::bare};

/// A hunk's lines, as written in the patch.
pub(crate) type Body<'a> = Vec<(Mark, &'a [u8])>;

pub(crate) fn body(hunk: &Hunk) -> Body<'_> {
    hunk.lines.iter().map(|l| (l.mark, bare(&l.text))).collect()
}

/// Returns the context and removed lines.
pub(crate) fn old<'a>(body: &Body<'a>) -> Vec<&'a [u8]> {
    body.iter().filter(|(mark, _)| *mark != Mark::Add).map(|(_, text)| *text).collect()
}

/// Returns the context and added lines.
pub(crate) fn new<'a>(body: &Body<'a>) -> Vec<&'a [u8]> {
    body.iter().filter(|(mark, _)| *mark != Mark::Remove).map(|(_, text)| *text).collect()
}

/// Returns the number of leading context lines, and the lines between the leading and the trailing
/// context.
pub(crate) fn changed_part<'b, 'a>(body: &'b [(Mark, &'a [u8])]) -> (usize, &'b [(Mark, &'a [u8])]) {
    let keep = |(mark, _): &(Mark, &[u8])| *mark == Mark::Keep;
    let first = body.iter().take_while(|l| keep(l)).count();
    let last = body[first..].iter().rev().take_while(|l| keep(l)).count();
    (first, &body[first..body.len() - last])
}
