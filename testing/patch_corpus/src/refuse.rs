//! Generates patches that must be refused, for example because their old lines match nowhere or in
//! two places, or because they are already applied.

use crate::{
    Case, Class, Expected, Form, Input, Tree,
    base::Base,
    by_hand,
    deform::{FORMS, clean},
    edit::{Line, Mark},
    hunk::{Hunk, hunks},
    judge::{exact_places, fold, loose_places, moved},
    maker::words,
    random::Random,
    style::Header,
    text::TEXTS,
    write::Draft,
};

/// One in `EVERY` combinations of a base edit and a form gets a damaged patch, and one in `EVERY`
/// gets a patch that is already applied. Most other kinds of patches are half as common.
const EVERY: usize = 5;

pub(crate) type Kind = Option<&'static str>;

pub(crate) fn cases(bases: &[Base], out: &mut Vec<Case>) {
    for (b, base) in bases.iter().enumerate() {
        for (f, (form, label)) in FORMS.iter().enumerate().filter(|(_, (form, _))| base.fits(*form)) {
            let mut random = Random::new(base.seed, b * 10 + f + 2_000_000);
            let n = b + f + base.seed as usize;
            let draft = clean(base, *form, &mut random);
            let mut push = |why: &'static str, draft: Option<Draft<'_>>, before: Tree, kind: Kind| {
                let Some(draft) = draft else { return };
                let name = format!("{}/{label}/{why}", base.name);
                out.push(refused(name, *form, why, before, draft.write(), kind));
            };
            if n.is_multiple_of(EVERY) {
                let (why, damage) = DAMAGES[(n / EVERY) % DAMAGES.len()];
                push(why, damaged(&draft, damage, &mut random), base.before(), None);
            }
            if n % EVERY == 1 {
                applied(&draft, n / EVERY % 2 == 1)
                    .into_iter()
                    .for_each(|(draft, kind)| push("already applied", Some(draft), base.after(), kind));
            }
            match n % (2 * EVERY) {
                2 => push("two hunks change the same lines", overlapping(&draft), base.before(), None),
                3 => push("nothing changes", unchanging(&draft), base.before(), None),
                4 => push("context of another place", misplaced(&draft, b), base.before(), None),
                5 => push("only context", only_context(&draft), base.before(), None),
                _ => {}
            }
            files(base, &draft, n, &mut push);
        }
        ambiguous(base, b, out);
    }
    by_hand::cases(out);
}

/// Generates a case in which a patch for this edit must be refused.
pub(crate) fn any(base: &Base) -> Option<Case> {
    let mut random = Random::new(base.seed, 32_000);
    let fits: Vec<_> = FORMS.iter().filter(|(form, _)| base.fits(*form)).collect();
    let (form, label) = **random.pick(&fits);
    let draft = clean(base, form, &mut random);
    let (why, damage) = *random.pick(DAMAGES);
    let (why, draft, before, kind) = match random.below(8) {
        0 | 1 => {
            let (draft, kind) = applied(&draft, random.percent(50))?;
            ("already applied", draft, base.after(), kind)
        }
        2 => ("two hunks change the same lines", overlapping(&draft)?, base.before(), None),
        3 => ("context of another place", misplaced(&draft, random.below(100))?, base.before(), None),
        _ => (why, damaged(&draft, damage, &mut random)?, base.before(), None),
    };
    Some(refused(format!("{}/{label}/{why}", base.name), form, why, before, draft.write(), kind))
}

pub(crate) fn refused(
    name: String,
    form: Form,
    why: &'static str,
    before: Tree,
    input: Input,
    kind: Kind,
) -> Case {
    let expected = Expected::Refused(kind);
    Case {
        name,
        class: Class::MustRefuse,
        form,
        deformations: vec![why],
        before,
        fixtures: Vec::new(),
        input,
        expected,
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Digit,
    Word,
    Operator,
    OtherLine,
}

const DAMAGES: &[(&str, Damage)] = &[
    ("a digit differs", Damage::Digit),
    ("a word differs", Damage::Word),
    ("an operator differs", Damage::Operator),
    ("a removed line matches nowhere", Damage::OtherLine),
];

/// Changes a removed line so that it no longer occurs in the file. Uses the last hunk that has a
/// suitable line.
fn damaged<'a>(draft: &Draft<'a>, damage: Damage, random: &mut Random) -> Option<Draft<'a>> {
    let mut out = draft.clone();
    let files = draft.base.edits.iter().zip(&mut out.hunks).rev();
    for (edit, hunks) in files {
        let Some(before) = &edit.before else { continue };
        if edit.deleted && draft.form == Form::Envelope {
            continue;
        }
        let rows: Vec<String> = before.texts().into_iter().map(fold).collect();
        let whole = before.texts().join("\n");
        for hunk in hunks.iter_mut().rev() {
            let added: Vec<String> =
                hunk.lines.iter().filter(|l| l.mark == Mark::Add).map(|l| fold(&l.text)).collect();
            let old = hunk.lines.iter_mut().filter(|l| l.mark == Mark::Remove);
            for line in old.filter(|l| l.text.len() < 200) {
                let Some(text) = changed(&line.text, damage, random) else { continue };
                let folded = fold(&text);
                if rows.contains(&folded) || added.contains(&folded) || whole.contains(text.trim()) {
                    continue;
                }
                line.text = text;
                return (draft.form != Form::Whole).then_some(out);
            }
        }
    }
    None
}

fn changed(text: &str, damage: Damage, random: &mut Random) -> Option<String> {
    match damage {
        Damage::Digit => {
            let at = text.find(|c: char| c.is_ascii_digit())?;
            let digit = (text.as_bytes()[at] - b'0' + 1 + random.below(8) as u8) % 10;
            Some(format!("{}{digit}{}", &text[..at], &text[at + 1..]))
        }
        Damage::Word => {
            let (at, word) = words(text).last()?;
            Some(format!("{}{}{}", &text[..at], "mistaken", &text[at + word.len()..]))
        }
        Damage::Operator => {
            let pairs = [
                (" + ", " - "),
                (" == ", " != "),
                (" < ", " <= "),
                (" > ", " >= "),
                (" = ", " += "),
                (" && ", " || "),
                (" - ", " + "),
                ("!", ""),
            ];
            let (from, to) = pairs.iter().find(|(from, _)| text.contains(from))?;
            Some(text.replacen(from, to, 1))
        }
        Damage::OtherLine => {
            let indent = &text[..text.len() - text.trim_start().len()];
            words(text).next().map(|_| format!("{indent}a line that nobody has written{}", random.below(10)))
        }
    }
}

/// Returns the draft for files that already contain its change, and the expected kind of error;
/// `None` if the patch could legitimately be applied again. If `bare` is set, the hunks of a
/// unified diff have no line numbers.
fn applied<'a>(draft: &Draft<'a>, bare: bool) -> Option<(Draft<'a>, Kind)> {
    let mut out = draft.clone();
    if bare && draft.unified() {
        out.style.header = Header::Bare;
    }
    let one = draft.base.edits.len() == 1;
    let mut kind = one.then_some("already_applied");
    let mut again = true;
    for (edit, hunks) in draft.base.edits.iter().zip(&draft.hunks) {
        let (Some(_), Some(after)) = (&edit.before, edit.after()) else {
            again = false;
            kind = kind.filter(|_| edit.created.is_some());
            continue;
        };
        if edit.to.is_some() {
            (again, kind) = (false, None);
            continue;
        }
        if edit.ops.is_empty() {
            return None;
        }
        let rows = after.texts();
        for hunk in hunks {
            let old = hunk.before();
            let removed = hunk.removed();
            let removed_missing = removed.iter().any(|run| loose_places(&rows, run).is_empty());
            let split = removed.is_empty() && loose_places(&rows, &old).is_empty() && !old.is_empty();
            if removed_missing || split {
                again = false;
            }
            let new = hunk.after();
            let distinctive = hunk.lines.iter().any(|l| l.mark == Mark::Add && words(&l.text).count() > 0);
            let matches_once = exact_places(&rows, &new).len() == 1;
            kind = kind.filter(|_| distinctive && matches_once && (removed_missing || split));
        }
    }
    if draft.form == Form::Whole {
        let edit = &draft.base.edits[0];
        let same = edit.before.is_some() && !edit.deleted;
        return Some((out, same.then_some("no_change")));
    }
    (!again).then_some((out, kind))
}

/// Adds a hunk that changes the same lines as an existing hunk, but in a different way.
fn overlapping<'a>(draft: &Draft<'a>) -> Option<Draft<'a>> {
    let mut out = draft.clone();
    let plain = draft
        .base
        .edits
        .iter()
        .zip(&mut out.hunks)
        .find(|(e, h)| e.plain() && !h.is_empty() && draft.form != Form::Whole)?;
    if moved(draft, plain.0) {
        return None;
    }
    let rows = plain.0.before.as_ref()?.texts();
    let distinctive = |h: &Hunk| h.lines.iter().any(|l| l.mark == Mark::Remove && words(&l.text).count() > 0);
    let once = |h: &&Hunk| distinctive(h) && loose_places(&rows, &h.before()).len() == 1;
    let hunk = plain.1.iter().find(once)?.clone();
    let mut other = Hunk { lines: Vec::new(), ..hunk.clone() };
    for line in &hunk.lines {
        if line.mark == Mark::Add {
            continue;
        }
        other.lines.push(line.clone());
        if line.mark == Mark::Remove {
            other.lines.push(Line {
                mark: Mark::Add,
                text: format!("{} and otherwise", line.text),
                ..line.clone()
            });
        }
    }
    plain.1.push(other);
    Some(out)
}

/// Returns a draft that adds exactly what it removes.
fn unchanging<'a>(draft: &Draft<'a>) -> Option<Draft<'a>> {
    let mut out = draft.clone();
    let [edit] = &draft.base.edits[..] else { return None };
    if !edit.plain() || draft.form == Form::Whole || edit.final_newline.is_some() {
        return None;
    }
    for hunk in out.hunks.iter_mut().flatten() {
        let removed: Vec<Line> = hunk.lines.iter().filter(|l| l.mark == Mark::Remove).cloned().collect();
        let last = hunk.lines.iter().rposition(|l| l.mark == Mark::Remove)?;
        hunk.lines.truncate(last + 1);
        hunk.lines.retain(|l| l.mark != Mark::Add);
        let at = hunk.lines.iter().position(|l| l.mark == Mark::Remove)?;
        let contiguous = hunk.lines[at..].iter().all(|l| l.mark == Mark::Remove);
        if !contiguous {
            return None;
        }
        hunk.lines.extend(removed.into_iter().map(|l| Line { mark: Mark::Add, ..l }));
    }
    Some(out)
}

/// Replaces the context of the first hunk with lines from another file. The removed lines still
/// match.
fn misplaced<'a>(draft: &Draft<'a>, n: usize) -> Option<Draft<'a>> {
    let mut out = draft.clone();
    let (edit, hunks) =
        draft.base.edits.iter().zip(&mut out.hunks).find(|(e, h)| e.plain() && !h.is_empty())?;
    let rows: Vec<String> = edit.before.as_ref()?.texts().into_iter().map(fold).collect();
    let (_, foreign) = TEXTS[(n * 5 + 3) % TEXTS.len()];
    let mut foreign =
        foreign.lines().filter(|l| words(l).count() > 1 && !rows.contains(&fold(l)) && l.len() < 100);
    let hunk = hunks.first_mut()?;
    if hunk.lines.iter().filter(|l| l.mark == Mark::Keep && words(&l.text).count() > 0).count() < 3
        || draft.form == Form::Whole
    {
        return None;
    }
    for line in hunk.lines.iter_mut().filter(|l| l.mark == Mark::Keep) {
        line.text = foreign.next()?.to_owned();
    }
    out.style.header = Header::Bare;
    Some(out)
}

fn only_context<'a>(draft: &Draft<'a>) -> Option<Draft<'a>> {
    let [edit] = &draft.base.edits[..] else { return None };
    let mut out = draft.clone();
    for hunk in out.hunks.iter_mut().flatten() {
        hunk.lines.retain(|l| l.mark != Mark::Add);
        hunk.lines.iter_mut().for_each(|l| l.mark = Mark::Keep);
    }
    let lines = !out.hunks.is_empty() && out.hunks.iter().flatten().all(|h| !h.lines.is_empty());
    (edit.plain() && lines && draft.form != Form::Whole && edit.final_newline.is_none()).then_some(out)
}

/// Adds cases in which a file that the patch creates already exists, or a file that the patch
/// changes is missing.
fn files<'a>(
    base: &Base,
    draft: &Draft<'a>,
    n: usize,
    push: &mut dyn FnMut(&'static str, Option<Draft<'a>>, Tree, Kind),
) {
    let last = base.edits.len() - 1;
    let edit = &base.edits[last];
    let draft = || Some(draft.clone());
    let mut before = base.before();
    if edit.created.is_some() {
        if draft().is_some_and(|d| d.form == Form::Whole) {
            return;
        }
        before.insert(edit.path.clone(), (b"there already\n".to_vec(), false));
        push("the file exists", draft(), before, (last == 0).then_some("exists"));
    } else if edit.to.is_some() {
        before.insert(edit.after_path().to_owned(), (b"there already\n".to_vec(), false));
        push("the new name is taken", draft(), before.clone(), None);
        before.remove(edit.after_path());
        before.remove(&edit.path);
        push("the file does not exist", draft(), before, None);
    } else if edit.deleted || n.is_multiple_of(8) {
        // Neither a whole-file patch nor a hunk without old lines needs an existing file.
        let whole = draft().is_some_and(|d| d.form == Form::Whole && !edit.deleted);
        let adds = edit.before.as_ref().is_some_and(|t| t.rows.is_empty());
        let bare = draft().is_some_and(|d| d.hunks[last].iter().all(|h| h.before().is_empty()));
        if !whole && !adds && !bare {
            before.remove(&edit.path);
            push("the file does not exist", draft(), before, None);
        }
    }
}

/// Adds patches whose old lines match in several places. Neither a line number nor a header singles
/// out one of these places.
fn ambiguous(base: &Base, n: usize, out: &mut Vec<Case>) {
    let [edit] = &base.edits[..] else { return };
    let Some(before) =
        edit.before.as_ref().filter(|t| edit.plain() && !t.mixed() && !t.bom && !t.unfinished())
    else {
        return;
    };
    let rows = before.texts();
    let mut random = Random::new(base.seed, n + 3_000_000);
    let distinctive = |t: &str| t.chars().filter(char::is_ascii_alphanumeric).count() >= 5;
    let runs = (0..rows.len())
        .flat_map(|at| (1..4).map(move |len| (at, len)))
        .filter(|(at, len)| at + len < rows.len());
    let twice: Vec<(usize, usize)> = runs
        .filter(|(at, len)| distinctive(rows[*at]) && exact_places(&rows, &rows[*at..at + len]).len() > 1)
        .collect();
    if twice.is_empty() {
        return;
    }
    let (at, len) = *random.pick(&twice);
    let mut changed = edit.clone();
    let mut add: Vec<String> = rows[at..at + len].iter().map(|t| (*t).to_owned()).collect();
    add[0] = format!("{} lilac{}", add[0], random.between(10, 99));
    changed.ops = vec![crate::edit::Op { at, remove: len, add }];
    changed.final_newline = None;
    let base = Base { name: base.name.clone(), edits: vec![changed], ..base.clone() };
    for (form, label) in FORMS.iter().filter(|(form, _)| *form != Form::Whole && base.fits(*form)) {
        let mut draft = Draft::new(&base, *form, 0, true);
        draft.hunks = vec![hunks(&base.edits[0], 0, false)];
        draft.style.header = *random.pick(&[Header::Bare, Header::Dots, Header::Letters]);
        draft.style.newline = n.is_multiple_of(2);
        let name = format!("{}/{label}/two places", base.name);
        out.push(refused(name, *form, "two places", base.before(), draft.write(), Some("ambiguous")));
    }
}
