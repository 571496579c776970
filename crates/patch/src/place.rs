//! Selects a match for every hunk of a file. All hunks are matched against the original. If none of
//! several equally good matches can be singled out, the patch is refused.

use std::{collections::HashSet, ops::Range};

use memchr::memmem;

use crate::{
    Dialect, Hunk, Mark, Refusal, RefusalKind, Rung, applied,
    body::{Body, body, old},
    context, feedback,
    index::Index,
    ladder::{Fit, TooMany, fits, loose_fits, squeezed_fits, unnumbered},
    lines::{bare, indent, mixes_endings},
    units,
};

#[derive(Debug, Clone)]
pub(crate) enum Spot<'a> {
    Lines(Fit, Body<'a>),
    Bytes(Range<usize>),
}

/// The candidate matches for a hunk, all on the same [`Rung`].
pub(crate) enum Found<'a> {
    Lines(Vec<Fit>, Body<'a>, Option<usize>),
    Bytes(Vec<usize>, usize),
}

pub(crate) fn place<'a>(
    index: &Index<'_>,
    hunks: &'a [Hunk],
    dialect: Dialect,
) -> Result<Vec<Spot<'a>>, Refusal> {
    let mut found = Vec::with_capacity(hunks.len());
    for (i, hunk) in hunks.iter().enumerate() {
        let candidates =
            candidates(index, hunk, dialect).map_err(|refused| refused.hunk(i + 1, hunks.len()))?;
        found.push(candidates);
    }
    let mut chosen: Vec<Option<usize>> = found
        .iter()
        .zip(hunks)
        .map(|(f, hunk)| match f {
            Found::Bytes(at, _) => (at.len() == 1).then_some(0),
            Found::Lines(fits, ..) if fits.len() == 1 => Some(0),
            Found::Lines(fits, ..) => at_end(index, fits, hunk).or_else(|| under(index, fits, hunk)),
        })
        .collect();
    by_named_line(&found, hunks, &mut chosen);
    by_count(&found, hunks, &mut chosen);
    if matches!(dialect, Dialect::Unified | Dialect::Envelope) {
        by_order(&found, &mut chosen);
    }
    let mut spots = Vec::with_capacity(hunks.len());
    for (i, (f, choice)) in found.into_iter().zip(&chosen).enumerate() {
        let refuse =
            |kind, message, line| Err(Refusal::new(kind, message).at(Some(line)).hunk(i + 1, hunks.len()));
        let hunk = &hunks[i];
        match (f, choice) {
            (Found::Lines(mut fits, body, hint), Some(c)) => {
                let mut fit = fits.swap_remove(*c);
                if applied::at_fit(index, &body, &fit) {
                    return refuse(RefusalKind::AlreadyApplied, feedback::already(fit.at), fit.at);
                }
                if fit.rung == Rung::Exact && hint.or(hunk.start) == Some(fit.at + 1) {
                    fit.rung = Rung::Named;
                }
                spots.push(Spot::Lines(fit, body));
            }
            (Found::Bytes(at, len), Some(c)) => {
                let range = at[*c]..at[*c] + len;
                if applied::replaced(index, hunk, &range) {
                    let line = index.lines.line_at(range.start);
                    return refuse(RefusalKind::AlreadyApplied, feedback::already(line), line);
                }
                spots.push(Spot::Bytes(range));
            }
            (Found::Lines(fits, ..), None) => {
                let places: Vec<usize> = fits.iter().map(|f| f.at).collect();
                return refuse(RefusalKind::Ambiguous, feedback::ambiguous(index, &places), fits[0].at);
            }
            (Found::Bytes(at, _), None) => {
                let places: Vec<usize> = at.iter().map(|b| index.lines.line_at(*b)).collect();
                return refuse(RefusalKind::Ambiguous, feedback::ambiguous(index, &places), places[0]);
            }
        }
    }
    Ok(spots)
}

pub(crate) fn candidates<'a>(
    index: &Index<'_>,
    hunk: &'a Hunk,
    dialect: Dialect,
) -> Result<Found<'a>, Refusal> {
    let body = body(hunk);
    if old(&body).is_empty() && hunk.text.as_ref().is_none_or(|(search, _)| search.is_empty()) {
        return match insertion(index, hunk) {
            Some(at) => Ok(Found::Lines(vec![Fit::above(at)], body, None)),
            None if hunk.below.is_some() => Err(Refusal::new(
                RefusalKind::NoContext,
                feedback::no_such_line(index, hunk.below.unwrap_or_default()),
            )),
            None => Err(Refusal::new(RefusalKind::NoContext, feedback::no_context())),
        };
    }
    // A hunk whose context is only blank lines matches an empty file.
    if index.lines.len() == 0 && old(&body).iter().all(|line| line.trim_ascii().is_empty()) && !removes(&body)
    {
        let added: Body<'_> = body.into_iter().filter(|(mark, _)| *mark == Mark::Add).collect();
        return Ok(Found::Lines(vec![Fit::above(0)], added, None));
    }
    if let Some(found) = without_tail(index, hunk, &body) {
        return Ok(found);
    }
    // If the search and its replacement both mix line endings, match the search byte by byte.
    let mixed = hunk.text.as_ref().is_some_and(|(search, new)| mixes_endings(search) && mixes_endings(new));
    if mixed
        && let (at, len) = text_places(index, hunk)
        && at.len() == 1
    {
        return Ok(Found::Bytes(at, len));
    }
    let too_many = |TooMany(places)| Refusal::new(RefusalKind::Ambiguous, feedback::too_many(places));
    let close = fits(index, &body).map_err(too_many)?;
    let exact = close.first().is_some_and(|f| f.rung == Rung::Exact);
    // In [`Dialect::Edits`], the search is text, so match it as text first. If the text matches
    // several times, but only once as whole lines, match whole lines. The other dialects are
    // line-based.
    if dialect == Dialect::Edits || close.is_empty() {
        let (at, len) = text_places(index, hunk);
        let whole_lines_decide = exact && close.len() == 1;
        if at.len() == 1 || !at.is_empty() && !whole_lines_decide {
            return Ok(Found::Bytes(at, len));
        }
    }
    if !close.is_empty() {
        return Ok(Found::Lines(close, body, None));
    }
    let unnumbered = unnumbered(&body);
    if let Some((body, first)) = &unnumbered {
        let mut fits = fits(index, body).map_err(too_many)?;
        if !fits.is_empty() {
            if let Some(named) =
                numbered_place(index, body, *first).filter(|at| fits.iter().all(|f| f.at != *at))
            {
                let places = [fits[0].at, named];
                return Err(
                    Refusal::new(RefusalKind::Ambiguous, feedback::ambiguous(index, &places)).at(Some(named))
                );
            }
            fits.iter_mut().for_each(|f| f.rung = Rung::Numbered);
            return Ok(Found::Lines(fits, body.clone(), Some(*first)));
        }
    }
    if let Some(at) = applied::elsewhere(index, &body) {
        return Err(Refusal::new(RefusalKind::AlreadyApplied, feedback::already(at)));
    }
    let bodies =
        std::iter::once((body.clone(), None)).chain(unnumbered.map(|(body, first)| (body, Some(first))));
    // An unmarked line that is not in the file may be an added line that lost its `+`, so it must
    // not be skipped.
    let unmarked = |l: &&crate::Line| !l.marked && index.count_of(bare(&l.text)) == 0;
    let unknown = hunk.lines.iter().find(unmarked).is_some();
    for (body, first) in bodies.filter(|_| !unknown) {
        let squeezed = squeezed_fits(index, &body);
        if !squeezed.is_empty() {
            return Ok(Found::Lines(squeezed, body, first));
        }
        let mut fits = loose_fits(index, &body);
        // If the hunk moves lines, it is unclear where a line that the patch omits belongs.
        if hunk.text.is_some() && moves(&body) {
            fits.retain(Fit::is_gapless);
        }
        // In a diff, a context line that is next to a change and is missing from the file may be an
        // added line that lost its `+`. A search has no marks to lose.
        if hunk.text.is_none() {
            fits.retain(|fit| !context::misses_line_next_to_change(&body, &fit.lines));
        }
        if !fits.is_empty() {
            return Ok(Found::Lines(fits, body, first));
        }
    }
    Err(match applied::by_inverse(index, &body) {
        Some(at) => Refusal::new(RefusalKind::AlreadyApplied, feedback::already(at)).at(Some(at)),
        None => feedback::not_found(index, &body, hunk.start),
    })
}

fn removes(body: &Body<'_>) -> bool {
    body.iter().any(|(mark, text)| *mark == Mark::Remove && !text.trim_ascii().is_empty())
}

/// Returns the match of the hunk without its trailing blank lines, which may be spacing below the
/// hunk. The match must be exact and at the line number given in the hunk. Returns `None` if the
/// hunk also matches there with its blank lines.
fn without_tail<'a>(index: &Index<'_>, hunk: &'a Hunk, body: &Body<'a>) -> Option<Found<'a>> {
    let at = hunk.start.filter(|_| hunk.blank_tail > 0)?.checked_sub(1)?;
    let named = |body: &Body<'_>| {
        let fits = fits(index, body).unwrap_or_default();
        fits.into_iter().find(|fit| fit.at == at && fit.rung == Rung::Exact)
    };
    let short = body[..body.len().checked_sub(hunk.blank_tail)?].to_vec();
    if named(body).is_some() || old(&short).is_empty() {
        return None;
    }
    named(&short).map(|fit| Found::Lines(vec![fit], short, None))
}

/// Returns the line at which a hunk starts according to the line numbers pasted into it, if the
/// hunk matches there when indentation is ignored.
fn numbered_place(index: &Index<'_>, body: &Body<'_>, first: usize) -> Option<usize> {
    let at = first.checked_sub(1)?;
    let old = old(body);
    let here = index.lines.texts.get(at..at + old.len())?;
    here.iter().zip(&old).all(|(here, old)| here.trim_ascii() == old.trim_ascii()).then_some(at)
}

/// Returns whether the hunk moves a line, that is, removes it and adds it elsewhere.
fn moves(body: &Body<'_>) -> bool {
    let removed = body.iter().filter(|(mark, text)| *mark == Mark::Remove && units::is_distinctive(text));
    let removed: HashSet<&[u8]> = removed.map(|(_, text)| *text).collect();
    body.iter().any(|(mark, text)| *mark == Mark::Add && removed.contains(text))
}

/// Returns the index at which to insert lines without context: below the line number given in the
/// hunk, at the start of an empty file, at the end of the file if the hunk says so, or below the
/// only line that matches the hunk's header.
fn insertion(index: &Index<'_>, hunk: &Hunk) -> Option<usize> {
    match headers(index, hunk).as_deref() {
        _ if hunk.below.is_some() => hunk.below.filter(|line| *line <= index.lines.len()),
        _ if index.lines.len() == 0 => Some(0),
        _ if hunk.at_end => Some(index.lines.len()),
        Some([header]) => Some(header + 1),
        _ => None,
    }
}

/// Returns the byte offsets at which the search text occurs in the file, and its length there.
fn text_places(index: &Index<'_>, hunk: &Hunk) -> (Vec<usize>, usize) {
    const ENOUGH: usize = 20;
    let Some((search, _)) = &hunk.text else { return (Vec::new(), 0) };
    if search.is_empty() {
        return (Vec::new(), 0);
    }
    let search = if mixes_endings(search) { search.clone() } else { index.lines.with_endings(search) };
    let mut at: Vec<usize> = memmem::find_iter(index.lines.bytes, &search).take(ENOUGH).collect();
    // `find_iter` skips overlapping occurrences, but they are ambiguous too.
    if let [only] = at[..]
        && let Some(overlapping) = memmem::find(&index.lines.bytes[only + 1..], &search)
    {
        at.push(only + 1 + overlapping);
    }
    (at, search.len())
}

fn at_end(index: &Index<'_>, fits: &[Fit], hunk: &Hunk) -> Option<usize> {
    if !hunk.at_end {
        return None;
    }
    fits.iter().position(|f| f.end == index.lines.len())
}

/// Returns the lines that match the hunk's innermost header. Each header is searched for below the
/// header that encloses it. Returns `None` if there are no headers or one of them is not found.
fn headers(index: &Index<'_>, hunk: &Hunk) -> Option<Vec<usize>> {
    let mut from: Option<Vec<usize>> = None;
    for header in &hunk.under {
        let all: Vec<usize> = index.places_of(header).collect();
        let below: Vec<usize> = match &from {
            None => all,
            Some(above) => {
                let first_below = |a: &usize| all.get(all.partition_point(|b| b <= a)).copied();
                let mut next: Vec<usize> = above.iter().filter_map(first_below).collect();
                next.dedup();
                next
            }
        };
        if below.is_empty() {
            return None;
        }
        from = Some(below);
    }
    from
}

/// Selects the only match among the more deeply indented lines below the header. If there is none
/// among them, selects the only match in the rest of the file. All lines that match the header must
/// lead to the same result.
fn under(index: &Index<'_>, fits: &[Fit], hunk: &Hunk) -> Option<usize> {
    let only = |header: usize| {
        let below = fits.partition_point(|f| f.at < header);
        let end = scope_end(index, header);
        let inside = fits[below..].iter().take_while(|f| f.at < end).count();
        (inside == 1 || inside == 0 && below + 1 == fits.len()).then_some(below)
    };
    let mut places = headers(index, hunk)?.into_iter().map(only);
    let first = places.next()??;
    places.all(|p| p == Some(first)).then_some(first)
}

/// Returns where the more deeply indented lines below a header end: at the first line that is
/// neither blank nor more deeply indented, or at the end of the file.
fn scope_end(index: &Index<'_>, header: usize) -> usize {
    let texts = &index.lines.texts;
    let depth = indent(texts[header]).len();
    let out = |text: &&[u8]| !text.trim_ascii().is_empty() && indent(text).len() <= depth;
    texts[header + 1..].iter().position(out).map_or(texts.len(), |below| header + 1 + below)
}

/// Selects the match at the line number given in the hunk, after shifting that number by the offset
/// of the nearest hunk with a unique match.
fn by_named_line(found: &[Found<'_>], hunks: &[Hunk], chosen: &mut [Option<usize>]) {
    let offset = |i: usize, choice: Option<usize>| match (&found[i], choice, hunks[i].start) {
        (Found::Lines(fits, ..), Some(c), Some(start)) => Some(fits[c].at as isize + 1 - start as isize),
        _ => None,
    };
    let fixed: Vec<Option<isize>> = chosen.iter().enumerate().map(|(i, c)| offset(i, *c)).collect();
    for i in 0..found.len() {
        let Found::Lines(fits, _, hint) = &found[i] else { continue };
        let Some(start) = hint.or(hunks[i].start) else { continue };
        if chosen[i].is_some() {
            continue;
        }
        let nearest = fixed[..i].iter().rev().flatten().next().or(fixed[i + 1..].iter().flatten().next());
        let line = start as isize - 1 + nearest.copied().unwrap_or(0);
        chosen[i] = fits.iter().position(|f| f.matches_at(line));
    }
}

/// If several hunks have identical old lines, and these lines match as many times as there are
/// hunks, assigns the matches to the hunks in order.
fn by_count(found: &[Found<'_>], hunks: &[Hunk], chosen: &mut [Option<usize>]) {
    for i in 0..found.len() {
        let Found::Lines(fits, body, _) = &found[i] else { continue };
        if chosen[i].is_some() {
            continue;
        }
        let mine = old(body);
        let same: Vec<usize> = (i..found.len())
            .filter(|j| matches!(&found[*j], Found::Lines(f, b, _) if f == fits && old(b) == mine))
            .collect();
        let apart = fits.windows(2).all(|w| w[0].end <= w[1].at);
        if same.len() == fits.len() && apart && same.iter().all(|j| hunks[*j].changes()) {
            same.iter().enumerate().for_each(|(c, j)| chosen[*j] = Some(c));
        }
    }
}

/// Chooses a hunk's match if the order of the hunks leaves only one possibility.
fn by_order(found: &[Found<'_>], chosen: &mut [Option<usize>]) {
    let mut all = Vec::with_capacity(found.len());
    for (f, choice) in found.iter().zip(&*chosen) {
        let Found::Lines(fits, ..) = f else { return };
        let options = fits.iter().enumerate().filter(|(c, _)| choice.is_none_or(|choice| choice == *c));
        all.push(options.map(|(c, fit)| (c, fit.at..fit.end)).collect());
    }
    let Some((earliest, latest)) = earliest_and_latest(&all) else { return };
    for (i, (a, b)) in earliest.iter().zip(&latest).enumerate() {
        if a == b {
            chosen[i].get_or_insert(*a);
        }
    }
}

/// Selects one range from each list so that the selected ranges are in order and do not overlap:
/// once as early as possible, and once as late as possible. Returns the ids of both selections,
/// which are the same if only one selection is possible.
pub(crate) fn earliest_and_latest(lists: &[Vec<(usize, Range<usize>)>]) -> Option<(Vec<usize>, Vec<usize>)> {
    let (mut earliest, mut end) = (Vec::new(), 0);
    for list in lists {
        let (id, range) = list.iter().find(|(_, range)| range.start >= end)?;
        earliest.push(*id);
        end = range.end;
    }
    let (mut latest, mut start) = (Vec::new(), usize::MAX);
    for list in lists.iter().rev() {
        let (id, range) = list.iter().rev().find(|(_, range)| range.end <= start)?;
        latest.push(*id);
        start = range.start;
    }
    latest.reverse();
    Some((earliest, latest))
}
