//! Generates patches with the mistakes that models make: either a single mistake or several at
//! once.

use crate::{
    Case, Class, Expected, Form,
    base::Base,
    deformation::{ALL, Deformation as D},
    edit::Mark,
    hunk::Hunk,
    judge::{decided, misleads},
    mistakes::change,
    random::Random,
    write::Draft,
};

/// Number of patches generated for each base edit and form: `ALONE` with a single deformation, and
/// `AT_ONCE` with several.
const ALONE: usize = 2;
const AT_ONCE: usize = 1;

pub(crate) const FORMS: &[(Form, &str)] = &[
    (Form::Unified, "unified"),
    (Form::Git, "git"),
    (Form::Envelope, "envelope"),
    (Form::Blocks, "blocks"),
    (Form::Edits, "edits"),
    (Form::Whole, "whole"),
];

pub(crate) fn cases(bases: &[Base], out: &mut Vec<Case>) {
    // For each form, the index in `ALL` of the deformation to make next. Each form cycles through
    // `ALL`, so that it uses all deformations equally often.
    let mut turn = [bases.first().map_or(0, |b| b.seed as usize * 13); 6];
    for (b, base) in bases.iter().enumerate() {
        for (f, (form, label)) in FORMS.iter().enumerate().filter(|(_, (form, _))| base.fits(*form)) {
            let mut random = Random::new(base.seed, b * 10 + f + 1_000_000);
            out.push(case(&clean(base, *form, &mut random), label, &[]));
            let mut done: Vec<Vec<D>> = Vec::new();
            for n in 0..ALONE + AT_ONCE {
                let wanted = if n < ALONE { 1 } else { 2 + random.below(3) };
                let Some((draft, made)) = deformed(base, *form, wanted, &mut turn[f], &mut random) else {
                    continue;
                };
                if made.len() < wanted.min(2) || done.contains(&made) || misleads(&draft) {
                    continue;
                }
                out.push(case(&draft, label, &made));
                done.push(made);
            }
            let rare = &RARE[if b % 5 == f % 5 { 0 } else { 2 }..];
            for d in rare.iter().filter(|d| !done.contains(&vec![**d])) {
                let made = made(base, *form, &[*d], &mut random);
                let made = made.filter(|(draft, made)| !made.is_empty() && !misleads(draft));
                out.extend(made.map(|(draft, made)| case(&draft, label, &made)));
            }
        }
    }
}

/// Deformations that are possible for only a few edits. They are made wherever possible, except
/// that the first two in this list are made for only one edit in five.
const RARE: &[D] = &[
    D::ContextMissing,
    D::ContextExtra,
    D::NoFinalNewlineMarker,
    D::SplitSections,
    D::TrailingLost,
    D::AsciiForTypographic,
    D::NameQuoting,
    D::BomLost,
    D::EndOfFile,
];

/// Returns the edit in a random form, with up to four deformations.
pub(crate) fn any(base: &Base) -> Option<Case> {
    let mut random = Random::new(base.seed, 31_000);
    let fits: Vec<_> = FORMS.iter().filter(|(form, _)| base.fits(*form)).collect();
    let (form, label) = **random.pick(&fits);
    let (wanted, mut turn) = (random.below(5), random.below(ALL.len()));
    if wanted == 0 {
        return Some(case(&clean(base, form, &mut random), label, &[]));
    }
    let (draft, made) = deformed(base, form, wanted, &mut turn, &mut random)?;
    (!misleads(&draft)).then(|| case(&draft, label, &made))
}

fn case(draft: &Draft<'_>, label: &str, made: &[D]) -> Case {
    let named = |d: &D| ALL.iter().find(|(e, ..)| e == d).map(|(_, name, _)| *name);
    let deformations: Vec<&str> = made.iter().filter_map(named).collect();
    let class = match (decided(draft), made.is_empty()) {
        (false, _) => Class::Either,
        (_, true) => Class::Clean,
        _ => Class::Deformed,
    };
    let name = format!(
        "{}/{label}/{}",
        draft.base.name,
        if made.is_empty() { "clean".into() } else { deformations.join(" + ") }
    );
    let expected = Expected::Tree(draft.base.after());
    Case {
        name,
        class,
        form: draft.form,
        deformations,
        before: draft.base.before(),
        fixtures: Vec::new(),
        input: draft.write(),
        expected,
    }
}

/// Writes the patch the way a careful author would: if possible, with enough context to be
/// unambiguous.
pub(crate) fn clean<'a>(base: &'a Base, form: Form, random: &mut Random) -> Draft<'a> {
    let unified = matches!(form, Form::Unified | Form::Git);
    let least = if unified { *random.pick(&[3, 3, 3, 1, 2]) } else { random.between(1, 3) };
    let draft = |context| Draft::new(base, form, context, true);
    (least..12).map(draft).find(decided).unwrap_or_else(|| draft(least))
}

fn deformed<'a>(
    base: &'a Base,
    form: Form,
    wanted: usize,
    turn: &mut usize,
    random: &mut Random,
) -> Option<(Draft<'a>, Vec<D>)> {
    // Use a draft with four context lines to test whether a deformation is possible, because some
    // deformations need context.
    let probe = Draft::new(base, form, 4, true);
    let mut chosen: Vec<(D, u32)> = Vec::new();
    for _ in 0..ALL.len() {
        let (d, _, group) = if wanted == 1 { ALL[*turn % ALL.len()] } else { *random.pick(ALL) };
        *turn += usize::from(wanted == 1);
        if !chosen.iter().any(|(_, g)| *g == group) && change(d, &mut probe.clone(), random) {
            chosen.push((d, group));
        }
        if chosen.len() == wanted {
            break;
        }
    }
    chosen.sort_by_key(|(d, _)| *d);
    let chosen: Vec<D> = chosen.into_iter().map(|(d, _)| d).collect();
    made(base, form, &chosen, random)
}

/// Returns the edit with as many of these deformations as possible.
fn made<'a>(base: &'a Base, form: Form, chosen: &[D], random: &mut Random) -> Option<(Draft<'a>, Vec<D>)> {
    let start = clean(base, form, random);
    // Try increasing amounts of context: some deformations need context, and others make a draft
    // with little context ambiguous.
    let draft = |context| {
        let mut draft = Draft::new(base, form, context, true);
        let made: Vec<D> =
            chosen.iter().copied().filter(|d| apply(*d, &mut draft, &mut random.clone())).collect();
        (draft, made)
    };
    let least = start.hunks.iter().flatten().map(leading_context).max().unwrap_or(0).max(1);
    let best = |(d, made): &(Draft<'a>, Vec<D>)| made.len() == chosen.len() && decided(d);
    let drafts = || (least..12).map(draft);
    drafts().find(best).or_else(|| drafts().find(|(_, made)| !made.is_empty()))
}

pub(crate) fn leading_context(hunk: &Hunk) -> usize {
    hunk.lines.iter().take_while(|l| l.mark == Mark::Keep).count()
}

/// Applies a deformation. If that is not possible, returns `false` and leaves the draft alone.
fn apply(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    let mut changed = draft.clone();
    let applies = change(deformation, &mut changed, random);
    if applies {
        *draft = changed;
    }
    applies
}
