//! Generates truncated patches. A patch is cut off only where the remaining text must be refused:
//! within a list of edits or a block, within a removed line whose remaining part matches nowhere,
//! or after a header. Anywhere else, the remaining text might be a valid, smaller patch.

use crate::{
    Case, Class, Expected, Form, Input,
    base::Base,
    deform::{FORMS, clean},
    judge::fold,
    maker::words,
    random::Random,
};

pub(crate) fn cases(bases: &[Base], out: &mut Vec<Case>) {
    for (b, base) in bases.iter().enumerate() {
        let (form, label) = FORMS[(b + base.seed as usize) % (FORMS.len() - 1)];
        let changes = base.edits.iter().all(|e| e.plain() && !e.ops.is_empty());
        if !base.fits(form) || !changes {
            continue;
        }
        let mut random = Random::new(base.seed, b + 4_000_000);
        let draft = clean(base, form, &mut random);
        let text = match (draft.write(), form) {
            (Input::Text(text), _) => text,
            (input, Form::Edits) => input.arguments()["edits"].to_string(),
            _ => continue,
        };
        let rows: Vec<String> =
            base.edits.iter().filter_map(|e| e.before.as_ref()).flat_map(|t| t.texts()).map(fold).collect();
        let mut cuts: Vec<(usize, &'static str)> = Vec::new();
        match form {
            Form::Edits => {
                let places = [text.len() / 3, text.len() / 2, text.len() * 4 / 5, text.len() - 1];
                cuts.extend(
                    places.into_iter().filter_map(|at| floor(&text, at)).map(|at| (at, "cut off in JSON")),
                );
            }
            Form::Blocks => {
                let from = text.rfind("<<<<<<<").unwrap_or(0);
                let to = text.rfind(">>>>>>>").unwrap_or(from);
                let places = [from + 20, from + (to - from) / 2, to.saturating_sub(1), to];
                cuts.extend(
                    places
                        .into_iter()
                        .filter(|at| *at > from + 15)
                        .filter_map(|at| floor(&text, at))
                        .map(|at| (at, "cut off in a block")),
                );
            }
            _ => lines(&text, form, &rows, &mut cuts),
        }
        cuts.dedup();
        for (n, (at, why)) in cuts.into_iter().enumerate() {
            out.push(Case {
                name: format!("{}/{label}/{why} {n}", base.name),
                class: Class::MustRefuse,
                form,
                deformations: vec![why],
                before: base.before(),
                fixtures: Vec::new(),
                input: if n % 2 == 0 {
                    Input::Text(text[..at].into())
                } else {
                    Input::Lines(text[..at].split('\n').map(str::to_owned).collect())
                },
                expected: Expected::Refused(None),
            });
        }
    }
}

fn floor(text: &str, at: usize) -> Option<usize> {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).filter(|i| *i > 0 && *i < text.len())
}

/// Adds the positions at which to cut: within each removed line whose remaining part matches
/// nowhere, after the header of the last file, and after the header of its first hunk.
fn lines(text: &str, form: Form, rows: &[String], cuts: &mut Vec<(usize, &'static str)>) {
    let mut at = 0;
    let mut in_hunk = false;
    let mut last_header = None;
    for line in text.split_inclusive('\n') {
        let head = match form {
            Form::Envelope => line.starts_with("*** Update File:"),
            _ => line.starts_with("+++ "),
        };
        if head {
            last_header = Some(at + line.len());
        }
        in_hunk = line.starts_with("@@")
            || in_hunk && !head && !line.starts_with("--- ") && !line.starts_with("*** ");
        if in_hunk && line.starts_with('-') && words(line).count() > 1 && line.len() < 200 {
            let half = floor(text, at + line.len() * 2 / 3);
            let matches_nowhere = |i: &usize| {
                let left = fold(text[at + 1..*i].trim_end());
                left.len() > 4
                    && !rows.iter().any(|r| r.contains(&left) && (*r == left || r.ends_with(&left)))
            };
            cuts.extend(half.filter(matches_nowhere).map(|i| (i, "cut off in a removed line")));
        }
        at += line.len();
    }
    if let Some(at) = last_header {
        cuts.push((at, "cut off after a file header"));
        let header = text[at..].find('\n').map(|n| at + n + 1).filter(|i| text[at..*i].starts_with("@@"));
        cuts.extend(header.map(|i| (i, "cut off after a hunk header")));
    }
}
