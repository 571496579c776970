//! Tests that every corpus patch that applies can be reverted, and that the numbers reported for it
//! are right.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

mod judge;

use patch::{Action, FilePatch, Mark, apply};
use patch_corpus::{Case, Class, Form};

/// A file before the patch, the patch, and the file after it.
struct Change {
    name: String,
    before: Vec<u8>,
    patch: FilePatch,
    after: Vec<u8>,
    summary: patch::ApplySummary,
}

/// Applies the patches of the cases selected by `wanted`. Returns the change made by each patch
/// that applies and updates a file.
fn changes(wanted: impl Fn(&Case) -> bool) -> Vec<Change> {
    let cases = patch_corpus::cases();
    let mut out = Vec::new();
    for case in cases.iter().filter(|c| wanted(c)) {
        for patch in judge::patches(&case.input).unwrap_or_default() {
            let source = patch.from.as_ref().unwrap_or(&patch.path);
            let Some((before, _)) = case.before.get(source) else { continue };
            if let Ok(applied) = apply(Some(before), &patch)
                && let (Some(after), Action::Update) = (applied.bytes, &patch.action)
            {
                out.push(Change {
                    name: case.name.clone(),
                    before: before.clone(),
                    patch,
                    after,
                    summary: applied.summary,
                });
            }
        }
    }
    out
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

/// Returns the text of a line without its ending and without a byte order mark.
fn text(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

fn failing(name: &str, wrong: Vec<&str>, all: usize) {
    assert!(
        wrong.is_empty(),
        "{name}: {} of {all}:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(30)].join("\n")
    );
    assert!(all > 500, "{all}");
}

#[test]
fn a_diff_from_new_to_old_reverts_every_change() {
    let changes = changes(|c| matches!(c.class, Class::Clean | Class::Deformed));
    let reverted = |c: &&Change| {
        let diff = diffy::create_patch_bytes(&c.after, &c.before).to_bytes();
        let Ok(diff) = String::from_utf8(diff) else { return true };
        let patches = patch::parse_for(&diff, Some("x")).map_err(|e| e.to_string());
        let result = patches.and_then(|p| apply(Some(&c.after), &p[0]).map_err(|e| e.to_string()));
        result.is_ok_and(|a| a.bytes.as_deref() == Some(&c.before[..]))
    };
    let changed = |c: &&Change| c.before != c.after;
    let wrong = changes.iter().filter(changed).filter(|c| !reverted(c)).map(|c| c.name.as_str()).collect();
    failing("not reverted", wrong, changes.len());
}

#[test]
fn a_diff_with_swapped_marks_reverts_its_change() {
    let changes = changes(|c| c.class == Class::Clean && matches!(c.form, Form::Unified | Form::Git));
    let reverted = |c: &&Change| {
        let mut patch = c.patch.clone();
        patch.from = patch.from.map(|from| std::mem::replace(&mut patch.path, from));
        let mut delta = 0isize;
        for hunk in &mut patch.hunks {
            let old = hunk.lines.iter().filter(|l| l.mark != Mark::Add).count();
            let new = hunk.lines.iter().filter(|l| l.mark != Mark::Remove).count();
            // For an empty range, the header contains the number of the line before the range.
            let first = hunk.start.map(|s| s as isize + isize::from(old == 0) + delta);
            hunk.start = first.map(|s| (s - isize::from(new == 0)) as usize);
            delta += new as isize - old as isize;
            for line in &mut hunk.lines {
                line.mark = match line.mark {
                    Mark::Keep => Mark::Keep,
                    Mark::Remove => Mark::Add,
                    Mark::Add => Mark::Remove,
                };
            }
        }
        apply(Some(&c.after), &patch).is_ok_and(|a| a.bytes.as_deref() == Some(&c.before[..]))
    };
    let wrong = changes.iter().filter(|c| !reverted(c)).map(|c| c.name.as_str()).collect();
    failing("not reverted", wrong, changes.len());
}

#[test]
fn added_minus_removed_lines_is_the_growth_of_the_file() {
    let changes = changes(|c| matches!(c.class, Class::Clean | Class::Deformed | Class::Either));
    let counts = |c: &&Change| {
        let (before, after) = (lines(&c.before).len() as isize, lines(&c.after).len() as isize);
        after - before == c.summary.added as isize - c.summary.removed as isize
    };
    let wrong = changes.iter().filter(|c| !counts(c)).map(|c| c.name.as_str()).collect();
    failing("counts", wrong, changes.len());
}

#[test]
fn each_hunk_matches_at_its_reported_line() {
    let changes = changes(|c| c.class == Class::Clean && c.form != Form::Whole);
    let matches = |c: &&Change| {
        let (before, after) = (lines(&c.before), lines(&c.after));
        if c.summary.lines.len() != c.patch.hunks.len() {
            return false;
        }
        let mut hunks: Vec<_> = c.summary.lines.iter().zip(&c.patch.hunks).collect();
        hunks.sort_by_key(|(line, _)| **line);
        let mut delta = 0isize;
        hunks.into_iter().all(|(line, hunk)| {
            let side =
                |without: Mark| hunk.lines.iter().filter(move |l| l.mark != without).map(|l| text(&l.text));
            let at = |all: &[&[u8]], from: usize, texts: Vec<&[u8]>| {
                all.get(from..from + texts.len()).is_some_and(|here| here.iter().map(|l| text(l)).eq(texts))
            };
            let (old, new): (Vec<_>, Vec<_>) = (side(Mark::Add).collect(), side(Mark::Remove).collect());
            let start = (line - 1) as isize + delta;
            delta += new.len() as isize - old.len() as isize;
            // The text of an edit may begin in the middle of a line, so it does not have to match
            // whole lines.
            let within = hunk.text.as_ref().is_some_and(|(search, _)| !search.ends_with(b"\n"));
            within || at(&before, line - 1, old) && at(&after, start as usize, new)
        })
    };
    let wrong = changes.iter().filter(|c| !matches(c)).map(|c| c.name.as_str()).collect();
    failing("elsewhere", wrong, changes.len());
}
