//! Introduces mistakes into the lines of hunks: wrong context, whitespace and typography, and
//! pasted line numbers.

use crate::{
    Form,
    deformation::Deformation as D,
    edit::{Line, Mark},
    hunk::Hunk,
    judge::{fold, unnumbered},
    maker::words,
    random::Random,
    write::Draft,
};

/// Applies `change` to the old lines of existing files. If any line changes, the draft is no longer
/// exact.
pub(crate) fn old_lines(draft: &mut Draft<'_>, change: &mut dyn FnMut(&Line) -> Option<String>) -> bool {
    let mut any = false;
    for (edit, hunks) in draft.base.edits.iter().zip(&mut draft.hunks) {
        let old = hunks.iter_mut().flat_map(|h| &mut h.lines).filter(|l| l.mark != Mark::Add);
        for line in old.filter(|_| edit.before.is_some() && !edit.deleted) {
            if let Some(text) = change(line) {
                line.text = text;
                any = true;
            }
        }
    }
    draft.exact &= !any;
    any && draft.form != Form::Whole
}

/// Returns the hunks of files that exist before and after the edit.
fn changed_hunks<'d>(draft: &'d mut Draft<'_>) -> impl Iterator<Item = &'d mut Hunk> {
    let files = draft.base.edits.iter().zip(&mut draft.hunks);
    files.filter(|(e, _)| e.before.is_some() && !e.deleted).flat_map(|(_, hunks)| hunks)
}

/// Introduces a mistake into the context of one hunk that has at least three context lines with
/// words.
pub(crate) fn context(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    if draft.form == Form::Whole {
        return false;
    }
    let files: Vec<Vec<String>> = draft
        .base
        .edits
        .iter()
        .map(|e| e.before.iter().flat_map(|t| t.texts()).map(fold).collect())
        .collect();
    let is_new = |text: &str| !files.iter().any(|rows| rows.contains(&fold(text)));
    let rich = |t: &str| words(t).count() > 0;
    for hunk in changed_hunks(draft) {
        let keeps: Vec<usize> = (0..hunk.lines.len()).filter(|i| hunk.lines[*i].mark == Mark::Keep).collect();
        let wordy: Vec<usize> = keeps.iter().copied().filter(|i| rich(&hunk.lines[*i].text)).collect();
        let inner: Vec<usize> =
            keeps.iter().copied().filter(|i| *i > 0 && keeps.contains(&(i - 1))).collect();
        if wordy.len() < 3 {
            continue;
        }
        let at = *random.pick(&wordy);
        match deformation {
            D::ContextMissing => {
                let between: Vec<usize> = inner
                    .into_iter()
                    .filter(|i| keeps.contains(&(i + 1)) && !hunk.lines[*i].text.is_empty())
                    .collect();
                if between.is_empty() {
                    continue;
                }
                hunk.lines.remove(*random.pick(&between));
            }
            D::ContextExtra => {
                if inner.is_empty() {
                    continue;
                }
                let place = *random.pick(&inner);
                let like = hunk.lines[at].text.clone();
                let Some((i, word)) = words(&like).next() else { continue };
                let text = format!("{}{}{}", &like[..i], "extra_line", &like[i + word.len()..]);
                let line = Line { text, ..hunk.lines[place].clone() };
                hunk.lines.insert(place, line);
            }
            _ => {
                let line = &mut hunk.lines[at];
                let all: Vec<(usize, &str)> = words(&line.text).collect();
                let (i, word) = *random.pick(&all);
                // The line would not be recognizable if most of it were replaced.
                if deformation == D::ContextWord && all.len() < 2 && word.len() * 2 > line.text.trim().len() {
                    continue;
                }
                let new = match deformation {
                    D::ContextTypo => format!("{}{}{}", &word[..1], &word[2..], &word[1..2]),
                    _ => "otherwise".into(),
                };
                let text = format!("{}{new}{}", &line.text[..i], &line.text[i + word.len()..]);
                if text == line.text || !is_new(&text) {
                    continue;
                }
                line.text = text;
            }
        }
        hunk.wrong = true;
        return true;
    }
    false
}

pub(crate) fn indentation(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    let blanks = |t: &str| t.len() - t.trim_start_matches([' ', '\t']).len();
    let wide = *random.pick(&[4usize, 4, 2, 8]);
    let tabs = changed_hunks(draft).flat_map(|h| &h.lines).any(|l| l.text.starts_with('\t'));
    let unit = if tabs { "\t".to_owned() } else { " ".repeat(*random.pick(&[4, 2])) };
    let change = |text: &str| -> Option<String> {
        let (indent, rest) = text.split_at(blanks(text));
        Some(match deformation {
            _ if rest.is_empty() => text.to_owned(),
            D::Deeper => format!("{unit}{text}"),
            D::Shallower => text.strip_prefix(&unit)?.to_owned(),
            D::TabsToSpaces if indent.bytes().all(|b| b == b'\t') => " ".repeat(wide * indent.len()) + rest,
            D::SpacesToTabs if indent.bytes().all(|b| b == b' ') && indent.len() % 4 == 0 => {
                "\t".repeat(indent.len() / 4) + rest
            }
            _ => return None,
        })
    };
    if draft.form == Form::Whole {
        return false;
    }
    let mut any = false;
    for hunk in changed_hunks(draft) {
        let new: Vec<Option<String>> = hunk.lines.iter().map(|l| change(&l.text)).collect();
        let tells_shift = |(l, n): (&Line, &Option<String>)| {
            l.mark != Mark::Add && n.as_ref().is_some_and(|n| *n != l.text)
        };
        // An engine can derive the shift only from old lines, so at least one of them must be
        // shifted.
        if new.iter().all(Option::is_some) && hunk.lines.iter().zip(&new).any(tells_shift) {
            hunk.lines.iter_mut().zip(new).for_each(|(l, n)| l.text = n.unwrap_or_default());
            any = true;
        }
    }
    draft.exact &= !any;
    any
}

/// Replaces ASCII characters that occur in the old lines of a hunk with the typographic characters
/// that editors and models tend to put in their place. The same characters are replaced in the
/// added lines.
pub(crate) fn typographic(draft: &mut Draft<'_>, random: &mut Random) -> bool {
    if draft.form == Form::Whole {
        return false;
    }
    let which = 1 + random.below(15);
    let double = *random.pick(&["“", "”"]);
    let hyphen = *random.pick(&["–", "—", "\u{2011}"]);
    let mut any = false;
    for hunk in changed_hunks(draft).filter(|h| h.lines.iter().all(|l| l.text.is_ascii())) {
        let pairs = [("\"", double), ("'", "’"), (" - ", hyphen), ("...", "…")];
        let old: Vec<&str> = hunk.lines.iter().filter(|l| l.mark != Mark::Add).map(|l| &l.text[..]).collect();
        let used: Vec<(&str, String)> = pairs
            .iter()
            .enumerate()
            .filter(|(i, (ascii, _))| which & (1 << i) != 0 && old.iter().any(|t| t.trim().contains(ascii)))
            .map(|(_, (ascii, other))| {
                (*ascii, if *ascii == " - " { format!(" {other} ") } else { (*other).to_owned() })
            })
            .collect();
        let wide = random.percent(25) && old.iter().any(|t| t.trim().contains(' '));
        if used.is_empty() && !wide {
            continue;
        }
        for line in &mut hunk.lines {
            for (ascii, other) in &used {
                line.text = line.text.replace(ascii, other);
            }
            let start = line.text.len() - line.text.trim_start().len();
            if let Some(at) = line.text[start..].trim_end().find(' ').filter(|_| wide) {
                line.text.replace_range(start + at..=start + at, "\u{a0}");
            }
        }
        any = true;
    }
    draft.exact &= !any;
    any
}

/// Writes line numbers in the style of `read_file` in front of the old lines and, unless `old_only`
/// is set, also in front of the added lines.
pub(crate) fn numbers(draft: &mut Draft<'_>, random: &mut Random, old_only: bool) -> bool {
    let texts = matches!(draft.form, Form::Blocks | Form::Edits);
    let special = draft
        .base
        .edits
        .iter()
        .any(|e| e.before.as_ref().is_some_and(|t| t.mixed() || t.bom || t.unfinished()));
    let has_numbers =
        changed_hunks(draft).flat_map(|h| &h.lines).any(|l| unnumbered(l.text.trim()).is_some());
    // With `old_only`, context lines have no numbers in the replacement, so they count as added
    // lines. They are identical to the file's lines only if the draft is exact.
    let special = special || !draft.exact;
    if draft.form == Form::Whole
        || has_numbers
        || old_only && texts && special
        || draft.hunks.iter().flatten().any(|h| h.wrong)
    {
        return false;
    }
    let form = random.below(4);
    let show = |n: usize, text: &str| match form {
        0 => format!("{n}|{text}"),
        1 => format!("{n}: {text}"),
        2 => format!("{n}\t{text}"),
        _ => format!("{n:>5}|{text}"),
    };
    let mut any = false;
    for hunk in changed_hunks(draft).filter(|h| h.lines.iter().any(|l| l.mark != Mark::Add)) {
        let mut lines = Vec::with_capacity(hunk.lines.len());
        for line in &hunk.lines {
            let numbered = Line { text: show(line.old + 1, &line.text), ..line.clone() };
            match line.mark {
                Mark::Add if old_only => lines.push(line.clone()),
                // Lines in the search text have numbers, but lines in the replacement do not.
                Mark::Keep if old_only && texts => {
                    lines.push(Line { mark: Mark::Remove, ..numbered });
                    lines.push(Line { mark: Mark::Add, ..line.clone() });
                }
                _ => lines.push(numbered),
            }
        }
        hunk.lines = lines;
        any = true;
    }
    draft.exact &= !any;
    any
}
