//! Detects changes that are already in the file.

use std::ops::Range;

use memchr::memmem;

use crate::{
    Hunk, Mark, Rung,
    body::{Body, changed_part, new},
    index::Index,
    ladder::{Fit, fits, loose_fits},
    splice, units,
};

/// Returns whether the file already contains a hunk's purely added lines where the hunk matches.
/// Compares the whole hunk, or only the added lines if some of the context differs from the file.
pub(crate) fn at_fit(index: &Index<'_>, body: &Body<'_>, fit: &Fit) -> bool {
    if fit.rung == Rung::Context {
        splice::already_added(index, body, fit)
    } else {
        at_line(index, body, fit.at)
    }
}

/// Returns whether the lines added at the edge of a hunk already follow or precede its old lines.
/// If they do, applying the hunk again would duplicate them.
pub(crate) fn at_line(index: &Index<'_>, body: &Body<'_>, at: usize) -> bool {
    let leading = body.iter().take_while(|(m, _)| *m == Mark::Add).count();
    let trailing = body.iter().rev().take_while(|(m, _)| *m == Mark::Add).count();
    if leading == body.len() || body.iter().any(|(m, _)| *m == Mark::Remove) {
        return false;
    }
    let blank = |lines: &[(Mark, &[u8])]| lines.iter().all(|(_, t)| t.trim_ascii().is_empty());
    let below = trailing > 0 && !blank(&body[body.len() - trailing..]) && new_lines_at(index, body, at);
    let above = leading > 0
        && !blank(&body[..leading])
        && at.checked_sub(leading).is_some_and(|at| new_lines_at(index, body, at));
    below || above
}

/// Finds where the file already contains the new lines of a hunk. Used if the hunk's old lines
/// match nowhere. Blank lines, or context on only one side of a removal, are not enough evidence.
pub(crate) fn elsewhere(index: &Index<'_>, body: &Body<'_>) -> Option<usize> {
    let has_text =
        |lines: &[(Mark, &[u8])]| lines.iter().any(|(m, t)| *m != Mark::Remove && !t.trim_ascii().is_empty());
    let (before, changed) = changed_part(body);
    let after = &body[before + changed.len()..];
    let proof = has_text(changed) || (has_text(&body[..before]) && has_text(after));
    if !proof {
        return None;
    }
    index.runs(&new(body)).into_iter().find(|at| new_lines_at(index, body, *at))
}

/// Finds where the inverse of the change matches. A match means that the change has already been
/// made there.
pub(crate) fn by_inverse(index: &Index<'_>, body: &Body<'_>) -> Option<usize> {
    if !body.iter().any(|(mark, text)| *mark == Mark::Add && units::is_distinctive(text)) {
        return None;
    }
    let inverse: Body<'_> = body.iter().map(|(mark, text)| (mark.inverse(), *text)).collect();
    let close = fits(index, &inverse).unwrap_or_default();
    close.into_iter().chain(loose_fits(index, &inverse)).next().map(|fit| fit.at)
}

/// Returns whether a replacement has already been made. Detects this only if the replacement
/// contains its search text.
pub(crate) fn replaced(index: &Index<'_>, hunk: &Hunk, range: &Range<usize>) -> bool {
    let Some((search, replace)) = &hunk.text else { return false };
    let (search, replace) = (index.lines.with_endings(search), index.lines.with_endings(replace));
    let bytes = index.lines.bytes;
    search != replace
        && memmem::find_iter(&replace, &search).any(|offset| {
            let added =
                replace[..offset].trim_ascii().len() + replace[offset + search.len()..].trim_ascii().len();
            let start = range.start.checked_sub(offset);
            added > 0 && start.and_then(|s| bytes.get(s..s + replace.len())) == Some(&replace[..])
        })
}

/// Returns whether the file has the hunk's new lines at line `at`.
fn new_lines_at(index: &Index<'_>, body: &Body<'_>, at: usize) -> bool {
    let new = new(body);
    index.lines.texts.get(at..at + new.len()).is_some_and(|here| here == new)
}
