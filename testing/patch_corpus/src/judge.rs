//! Decides whether a draft is unambiguous, by counting the places where its old lines could match.
//! No engine is involved.

use crate::{
    Form,
    edit::{FileEdit, Mark},
    hunk::Hunk,
    style::Header,
    text::Text,
    write::{Draft, landmark},
};

/// Normalizes a line so that a mangled copy compares equal to the original: strips whitespace and
/// any pasted-in line number, and replaces typographic characters with ASCII.
pub(crate) fn fold(text: &str) -> String {
    let text = unnumbered(text.trim()).unwrap_or(text);
    text.chars()
        .filter_map(|c| match c {
            '\u{feff}' => None,
            c if c.is_whitespace() => None,
            '“' | '”' | '„' | '«' | '»' => Some('"'),
            '‘' | '’' | '‚' => Some('\''),
            '–' | '—' | '−' | '‐' | '‑' => Some('-'),
            c => Some(c),
        })
        .collect::<String>()
        .replace('…', "...")
}

/// Strips the line number from `12|text`, `12: text` or `12<tab>text`. Returns `None` if there is
/// no line number.
pub(crate) fn unnumbered(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = if rest.len() < text.len() { rest } else { return None };
    rest.strip_prefix('|').or_else(|| rest.strip_prefix(':')).or_else(|| rest.strip_prefix('\t'))
}

/// Returns the rows where a match of `old` starts. Ignores blank lines at the start and the end of
/// `old`.
fn places(rows: &[String], old: &[String]) -> Vec<usize> {
    let blank = |l: &&String| l.is_empty();
    let skip = old.iter().take_while(blank).count();
    if skip == old.len() {
        return (0..(rows.len() + 1).saturating_sub(old.len()))
            .filter(|at| rows[*at..*at + old.len()] == *old)
            .collect();
    }
    let old = &old[skip..old.len() - old.iter().rev().take_while(blank).count()];
    (0..(rows.len() + 1).saturating_sub(old.len()))
        .filter(|at| rows[*at..*at + old.len()] == *old)
        .filter_map(|at| at.checked_sub(skip))
        .collect()
}

/// Returns the rows where an exact match of `old` starts.
pub(crate) fn exact_places(rows: &[&str], old: &[&str]) -> Vec<usize> {
    (0..(rows.len() + 1).saturating_sub(old.len())).filter(|at| rows[*at..*at + old.len()] == *old).collect()
}

pub(crate) fn loose_places(rows: &[&str], old: &[&str]) -> Vec<usize> {
    let fold = |all: &[&str]| all.iter().map(|t| fold(t)).collect::<Vec<_>>();
    places(&fold(rows), &fold(old))
}

/// Returns whether a draft can only mean the edit that it was made from.
pub(crate) fn decided(draft: &Draft<'_>) -> bool {
    let files = draft.base.edits.iter().zip(&draft.hunks);
    draft.form == Form::Whole || files.into_iter().all(|(edit, hunks)| file_decided(draft, edit, hunks))
}

fn numbered(draft: &Draft<'_>) -> bool {
    matches!(draft.style.header, Header::Right | Header::WrongCounts | Header::NoCounts)
}

fn file_decided(draft: &Draft<'_>, edit: &FileEdit, hunks: &[Hunk]) -> bool {
    let Some(before) = edit.before.as_ref().filter(|_| !edit.deleted) else { return true };
    let rows = before.texts();
    let numbered = draft.unified() && numbered(draft);
    let named = numbered && draft.style.offset == 0;
    let mut all = Vec::new();
    for hunk in hunks {
        let old = hunk.before();
        if old.is_empty() {
            if !rows.is_empty() {
                return false;
            }
            all.push(vec![0]);
            continue;
        }
        if hunk.wrong {
            if !draft.exact || !anchored(&rows, hunk) {
                return false;
            }
            all.push(vec![hunk.start]);
            continue;
        }
        if draft.exact && named {
            all.push(vec![hunk.start]);
            continue;
        }
        if old.iter().all(|l| l.trim().is_empty()) {
            return false;
        }
        let loose = loose_places(&rows, &old);
        let texts = text_places(draft, &rows, hunk);
        if !draft.exact {
            if loose.len() != 1 || texts.iter().any(|line| *line != hunk.start) {
                return false;
            }
            all.push(loose);
            continue;
        }
        let mut exact = exact_places(&rows, &old);
        if draft.form == Form::Edits && texts.len() != 1 {
            return false;
        }
        // A wrong line number may point to another match by accident.
        if exact.len() > 1 && (numbered || matches!(draft.form, Form::Blocks | Form::Edits) || draft.shuffled)
        {
            return false;
        }
        if exact.len() > 1 && draft.form == Form::Envelope && draft.style.landmark == 1 {
            let Some(only) = below_landmark(edit, hunk, &rows, &exact) else { return false };
            exact = vec![only];
        }
        all.push(exact);
    }
    let lengths: Vec<usize> = hunks.iter().map(|h| h.before().len()).collect();
    draft.shuffled || assignments(&all, &lengths, 0, 0) == 1
}

/// Returns whether the removed lines of a hunk are unambiguous without its context: each run of
/// removed lines matches exactly once and contains a line with enough letters or digits.
fn anchored(rows: &[&str], hunk: &Hunk) -> bool {
    let runs = hunk.removed();
    let distinctive =
        |run: &Vec<&str>| run.iter().any(|l| l.chars().filter(|c| c.is_alphanumeric()).count() >= 6);
    !runs.is_empty() && runs.iter().all(|run| distinctive(run) && loose_places(rows, run).len() == 1)
}

/// Returns the rows where the search text of a hunk occurs. Returns an empty list for forms that do
/// not search for text.
fn text_places(draft: &Draft<'_>, rows: &[&str], hunk: &Hunk) -> Vec<usize> {
    let mut out = Vec::new();
    if matches!(draft.form, Form::Blocks | Form::Edits) {
        let search = hunk.before().join("\n");
        let whole = rows.join("\n");
        let mut from = 0;
        while let Some(at) = whole[from..].find(&search).map(|n| from + n) {
            out.push(whole[..at].matches('\n').count());
            from = at + whole[at..].chars().next().map_or(1, char::len_utf8);
            if from > whole.len() {
                break;
            }
        }
    }
    out
}

/// Returns whether a draft can reasonably be read as a different edit. An engine that makes that
/// edit instead is not wrong.
pub(crate) fn misleads(draft: &Draft<'_>) -> bool {
    literal(draft)
        || misdirected(draft)
        || closer_elsewhere(draft)
        || draft.base.edits.iter().any(|edit| (!draft.exact || mixed(edit)) && moved(draft, edit))
}

/// Returns whether the file mixes line endings. If so, the result of swapping two lines depends on
/// which of them is considered to have moved.
fn mixed(edit: &FileEdit) -> bool {
    edit.before.as_ref().is_some_and(Text::mixed)
}

/// Returns whether the patch has wrong line numbers or misordered hunks while one of its hunks
/// matches in several places. If so, an engine may select the wrong match.
fn misdirected(draft: &Draft<'_>) -> bool {
    let files = draft.base.edits.iter().zip(&draft.hunks);
    let several = |(edit, hunks): (&FileEdit, &Vec<Hunk>)| {
        let rows = edit.before.as_ref().map(|t| t.texts()).unwrap_or_default();
        let runs = hunks.iter().flat_map(|h| if h.wrong { h.removed() } else { vec![h.before()] });
        runs.into_iter().any(|run| loose_places(&rows, &run).len() > 1)
    };
    let numbered = draft.unified() && numbered(draft);
    let wrong_order = draft.shuffled && !(numbered && draft.exact && draft.style.offset == 0);
    (draft.unified() && draft.style.offset != 0 || wrong_order) && files.into_iter().any(several)
}

/// Returns whether deformed old lines also match in a wrong place with different text. If so, they
/// may resemble that text more closely than the text in the right place.
fn closer_elsewhere(draft: &Draft<'_>) -> bool {
    let files = draft.base.edits.iter().zip(&draft.hunks);
    let closer = |(edit, hunks): (&FileEdit, &Vec<Hunk>)| {
        let rows = edit.before.as_ref().map(|t| t.texts()).unwrap_or_default();
        let old = |h: &Hunk| h.before().len();
        let differs = |h: &Hunk, at: usize| rows.get(at..at + old(h)) != rows.get(h.start..h.start + old(h));
        hunks.iter().any(|h| loose_places(&rows, &h.before()).into_iter().any(|at| differs(h, at)))
    };
    !draft.exact && draft.form != Form::Whole && files.into_iter().any(closer)
}

/// Returns whether the edit moves a line and the form consists of search and replacement text. Such
/// text does not show which of two swapped lines moved, so a mistake in a context line may look
/// like a mistake in an added line.
pub(crate) fn moved(draft: &Draft<'_>, edit: &FileEdit) -> bool {
    let script = edit.script();
    // Compare lines without trailing whitespace, which the patch may have lost.
    let texts = |mark| {
        script.iter().filter(move |l| l.mark == mark && !l.text.trim().is_empty()).map(|l| l.text.trim_end())
    };
    let texts_only = matches!(draft.form, Form::Blocks | Form::Edits);
    texts_only && texts(Mark::Add).any(|new| texts(Mark::Remove).any(|old| old == new))
}

/// Returns whether a deformed search text still occurs in the file. If so, the model may have meant
/// it literally.
fn literal(draft: &Draft<'_>) -> bool {
    let mut files = draft.base.edits.iter().zip(&draft.hunks);
    draft.form == Form::Edits
        && !draft.exact
        && files.any(|(edit, hunks)| {
            let rows = edit.before.as_ref().map(|t| t.texts()).unwrap_or_default();
            hunks.iter().any(|h| !text_places(draft, &rows, h).is_empty())
        })
}

/// Returns the first match below the line that a hunk's `@@` header quotes; `None` unless that line
/// occurs exactly once and the match is the right one.
fn below_landmark(edit: &FileEdit, hunk: &Hunk, rows: &[&str], exact: &[usize]) -> Option<usize> {
    let text = landmark(edit, hunk)?;
    let mut lines = (0..rows.len()).filter(|i| fold(rows[*i]) == fold(&text));
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    exact.iter().copied().find(|at| *at >= line).filter(|at| *at == hunk.start)
}

/// Returns the number of ways to place the hunks in order and without overlap, capped at 2.
fn assignments(places: &[Vec<usize>], lengths: &[usize], hunk: usize, from: usize) -> usize {
    let Some(here) = places.get(hunk) else { return 1 };
    let mut ways = 0;
    for at in here.iter().filter(|at| **at >= from) {
        ways += assignments(places, lengths, hunk + 1, at + lengths[hunk]);
        if ways > 1 {
            return 2;
        }
    }
    ways
}
