//! The mistakes that models make in patches, one by one and several at once.

use crate::{
    Case, Class, Expected, Form,
    base::{Base, words},
    edit::{FileEdit, Line, Mark},
    hunk::Hunk,
    judge::{decided, fold, misleads, unnumbered},
    random::Random,
    text::{End, Text},
    write::{Around, Draft, Header, Returns, Sent},
};

/// Deformations in the order in which they are made; of a group, only one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deformation {
    NoFinalNewlineMarker,
    HunksShuffled,
    SplitSections,
    ContextTypo,
    ContextWord,
    ContextMissing,
    ContextExtra,
    TrailingAdded,
    TrailingLost,
    Deeper,
    Shallower,
    TabsToSpaces,
    SpacesToTabs,
    Typographic,
    AsciiForTypographic,
    BlankPrefixLost,
    NumbersPasted,
    NumbersPastedOldOnly,
    WrongCounts,
    NoCounts,
    BareHeader,
    DotsHeader,
    LettersHeader,
    TextHeader,
    LineOffSmall,
    LineOffLarge,
    NoPrefixes,
    TimeStamps,
    NameQuoting,
    NoSection,
    LfForCrlf,
    CrlfForLf,
    BomLost,
    BomBefore,
    LandmarkRight,
    LandmarkRough,
    EndOfFile,
    NoBeginPatch,
    NoEndPatch,
    NameBold,
    NameLabelled,
    NameOnce,
    NameOutsideFence,
    LongMarkers,
    NoNewlineInTexts,
    JsonText,
    JsonObject,
    Prose,
    Fence,
    FenceAndProse,
    Lines,
    LinesWithNewlines,
    NoLastNewline,
}

use Deformation as D;

const ALL: &[(D, &str, u32)] = &[
    (D::NoFinalNewlineMarker, "no-newline marker missing", 1),
    (D::HunksShuffled, "hunks shuffled", 2),
    (D::SplitSections, "one file in two sections", 3),
    (D::ContextTypo, "context: typo", 4),
    (D::ContextWord, "context: other word", 4),
    (D::ContextMissing, "context: line missing", 4),
    (D::ContextExtra, "context: line too many", 4),
    (D::TrailingAdded, "trailing blanks added", 5),
    (D::TrailingLost, "trailing blanks lost", 5),
    (D::Deeper, "indented too deep", 6),
    (D::Shallower, "indented too little", 6),
    (D::TabsToSpaces, "spaces for tabs", 6),
    (D::SpacesToTabs, "tabs for spaces", 6),
    (D::Typographic, "typographic for ASCII", 7),
    (D::AsciiForTypographic, "ASCII for typographic", 7),
    (D::BlankPrefixLost, "blank context without its blank", 8),
    (D::NumbersPasted, "line numbers pasted", 9),
    (D::NumbersPastedOldOnly, "line numbers pasted, old lines only", 9),
    (D::WrongCounts, "wrong counts", 10),
    (D::NoCounts, "counts missing", 10),
    (D::BareHeader, "bare @@", 10),
    (D::DotsHeader, "@@ ... @@", 10),
    (D::LettersHeader, "letters for numbers", 10),
    (D::TextHeader, "text for numbers", 10),
    (D::LineOffSmall, "line off by few", 11),
    (D::LineOffLarge, "line off by many", 11),
    (D::NoPrefixes, "no a/ b/", 12),
    (D::TimeStamps, "time stamps", 13),
    (D::NameQuoting, "names quoted otherwise", 14),
    (D::NoSection, "no section in header", 15),
    (D::LfForCrlf, "LF for CRLF", 16),
    (D::CrlfForLf, "CRLF for LF", 16),
    (D::BomLost, "byte order mark lost", 17),
    (D::BomBefore, "byte order mark before the patch", 18),
    (D::LandmarkRight, "@@ header right", 19),
    (D::LandmarkRough, "@@ header roughly", 19),
    (D::EndOfFile, "end of file marked", 20),
    (D::NoBeginPatch, "no begin line", 21),
    (D::NoEndPatch, "no end line", 22),
    (D::NameBold, "path in bold", 23),
    (D::NameLabelled, "path labelled", 23),
    (D::NameOnce, "path once", 23),
    (D::NameOutsideFence, "path outside the fence", 23),
    (D::LongMarkers, "longer markers", 24),
    (D::NoNewlineInTexts, "texts without final newline", 25),
    (D::JsonText, "JSON as text", 26),
    (D::JsonObject, "JSON object as text", 26),
    (D::Prose, "prose around", 27),
    (D::Fence, "in a fence", 27),
    (D::FenceAndProse, "in a fence with prose around", 27),
    (D::Lines, "array of lines", 28),
    (D::LinesWithNewlines, "array of lines with newlines", 28),
    (D::NoLastNewline, "patch without final newline", 29),
];

/// Deformations alone, and several at once, made of each base edit in each form.
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
    // Where the next deformation is taken from: each comes up equally often.
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
        }
    }
}

/// The edit in one form, with up to four deformations.
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
        plants: Vec::new(),
        input: draft.write(),
        expected,
    }
}

/// A patch as a careful author writes it: with as much context as it takes to be clear, if that can be had.
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
    let start = clean(base, form, random);
    let mut chosen: Vec<(D, u32)> = Vec::new();
    for _ in 0..ALL.len() {
        let (d, _, group) = if wanted == 1 { ALL[*turn % ALL.len()] } else { *random.pick(ALL) };
        *turn += usize::from(wanted == 1);
        if !chosen.iter().any(|(_, g)| *g == group) && change(d, &mut start.clone(), random) {
            chosen.push((d, group));
        }
        if chosen.len() == wanted {
            break;
        }
    }
    chosen.sort_by_key(|(d, _)| *d);
    // Some need more context than the draft had, others lose what made it clear.
    let draft = |context| {
        let mut draft = Draft::new(base, form, context, true);
        let made: Vec<D> =
            chosen.iter().map(|(d, _)| *d).filter(|d| apply(*d, &mut draft, &mut random.clone())).collect();
        (draft, made)
    };
    let least = start.hunks.iter().flatten().map(leading_context).max().unwrap_or(0).max(1);
    let best = |(d, made): &(Draft<'a>, Vec<D>)| made.len() == chosen.len() && decided(d);
    let drafts = || (least..12).map(draft);
    drafts().find(best).or_else(|| drafts().find(|(_, made)| !made.is_empty()))
}

fn leading_context(hunk: &Hunk) -> usize {
    hunk.lines.iter().take_while(|l| l.mark == Mark::Keep).count()
}

/// Makes one deformation; `false`, and nothing is changed, when there is nothing to deform.
fn apply(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    let mut changed = draft.clone();
    let applies = change(deformation, &mut changed, random);
    if applies {
        *draft = changed;
    }
    applies
}

fn change(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    let (unified, form) = (draft.unified(), draft.form);
    let text = !matches!(form, Form::Edits | Form::Whole);
    let marked = unified || form == Form::Envelope;
    let base = draft.base;
    let before = |test: fn(&Text) -> bool| base.edits.iter().filter_map(|e| e.before.as_ref()).any(test);
    let created = |test: fn(&Text) -> bool| base.edits.iter().filter_map(|e| e.created.as_ref()).any(test);
    let removes = base.edits.iter().any(|e| e.deleted);
    let hunks = draft.hunks.iter().flatten().count() > 0;
    let changes =
        base.edits.iter().zip(&draft.hunks).any(|(e, h)| e.before.is_some() && !e.deleted && !h.is_empty());
    let several = || base.edits.iter().zip(&draft.hunks).any(|(e, h)| e.plain() && h.len() > 1);
    let style = &mut draft.style;
    match deformation {
        D::NoFinalNewlineMarker => {
            let ends = |e: &FileEdit| {
                e.final_newline.is_some() || e.deleted || e.after().is_none_or(|t| !t.unfinished())
            };
            let fits = unified && before(Text::unfinished) && !created(Text::unfinished);
            let fits = fits
                && !base.edits.iter().any(|e| e.before.as_ref().is_some_and(Text::unfinished) && ends(e));
            let touched = draft.hunks.iter().flatten().any(|h| h.lines.iter().any(|l| l.end == End::Nothing));
            if fits && touched {
                *draft = Draft::new(
                    base,
                    form,
                    draft.hunks.iter().flatten().map(leading_context).max().unwrap_or(3),
                    false,
                );
            }
            fits && touched
        }
        D::HunksShuffled => {
            let mut changed = false;
            for (edit, hunks) in base.edits.iter().zip(&mut draft.hunks) {
                let starts: Vec<usize> = hunks.iter().map(|h| h.start).collect();
                if edit.before.is_some() && !edit.deleted {
                    random.shuffle(hunks);
                }
                changed |= !hunks.iter().map(|h| h.start).eq(starts);
            }
            draft.shuffled |= changed;
            changed
        }
        D::SplitSections => {
            style.split = unified && several();
            style.split
        }
        D::ContextTypo | D::ContextWord | D::ContextMissing | D::ContextExtra => {
            context(deformation, draft, random)
        }
        D::TrailingAdded => {
            let more = *random.pick(&[" ", "  ", "\t", "    "]);
            old_lines(draft, &mut |line| (line.old % 2 == 0).then(|| format!("{}{more}", line.text)))
        }
        D::TrailingLost => old_lines(draft, &mut |line| {
            let cut = line.text.trim_end();
            (cut.len() < line.text.len()).then(|| cut.to_owned())
        }),
        D::Deeper | D::Shallower | D::TabsToSpaces | D::SpacesToTabs => {
            indentation(deformation, draft, random)
        }
        D::Typographic => typographic(draft, random),
        D::AsciiForTypographic => old_lines(draft, &mut |line| {
            if line.mark != Mark::Keep {
                return None;
            }
            let plain = line
                .text
                .replace(['“', '”', '„'], "\"")
                .replace(['‘', '’'], "'")
                .replace(['–', '—'], "-")
                .replace('…', "...");
            (plain != line.text).then_some(plain)
        }),
        D::BlankPrefixLost => {
            let blank = |l: &Line| l.mark == Mark::Keep && l.text.is_empty();
            let lines = || draft.hunks.iter().flatten().flat_map(|h| &h.lines);
            let fits = marked && lines().any(blank);
            // At an edge it may be lost altogether.
            let edge = |h: &Hunk| h.lines.first().is_some_and(blank) || h.lines.last().is_some_and(blank);
            draft.exact &= !fits || !draft.hunks.iter().flatten().any(edge);
            style.blank_prefixes = !fits;
            fits
        }
        D::NumbersPasted => numbers(draft, random, false),
        D::NumbersPastedOldOnly => numbers(draft, random, true),
        D::WrongCounts | D::NoCounts | D::BareHeader | D::DotsHeader | D::LettersHeader | D::TextHeader => {
            style.header = match deformation {
                D::WrongCounts => Header::WrongCounts,
                D::NoCounts => Header::NoCounts,
                D::BareHeader => Header::Bare,
                D::DotsHeader => Header::Dots,
                D::LettersHeader => Header::Letters,
                _ => Header::Text,
            };
            unified && hunks && !removes
        }
        D::LineOffSmall | D::LineOffLarge => {
            let by =
                if deformation == D::LineOffSmall { random.between(1, 5) } else { random.between(20, 500) }
                    as isize;
            style.offset = if random.percent(50) { by } else { -by };
            unified && changes
        }
        D::NoPrefixes => {
            style.prefixes = false;
            unified
        }
        D::TimeStamps => {
            style.stamps = unified && hunks;
            style.stamps
        }
        D::NameQuoting => {
            style.quoted = !style.quoted;
            unified && base.edits.iter().any(|e| !e.path.is_ascii() || e.path.contains('"'))
        }
        D::NoSection => {
            let had = style.section && style.header == Header::Right && changes;
            style.section = false;
            had
        }
        D::LfForCrlf => {
            style.returns = Returns::None;
            let one_kind = form != Form::Whole || !before(Text::mixed);
            before(|t| t.has(End::CrLf))
                && changes | (form == Form::Whole)
                && one_kind
                && !created(|t| t.has(End::CrLf))
                && !removes
        }
        D::CrlfForLf => {
            style.returns = Returns::Everywhere;
            let known = |e: &FileEdit| e.before.as_ref().is_some_and(|t| t.has(End::Lf) && !t.has(End::CrLf));
            form != Form::Whole && changes && base.edits.iter().all(known)
        }
        D::BomLost => {
            style.bom = false;
            let first = draft.hunks.iter().flatten().any(|h| h.start == 0);
            before(|t| t.bom) && (first || form == Form::Whole) && !removes
        }
        D::BomBefore => {
            style.bom_before = text;
            text
        }
        D::LandmarkRight | D::LandmarkRough => {
            style.landmark = if deformation == D::LandmarkRight { 1 } else { 2 };
            let known =
                |(e, h): (&FileEdit, &Vec<Hunk>)| h.iter().any(|h| crate::write::landmark(e, h).is_some());
            form == Form::Envelope && base.edits.iter().zip(&draft.hunks).any(known)
        }
        D::EndOfFile => {
            style.end_of_file = true;
            let last = |e: &FileEdit, h: &Hunk| {
                e.before.as_ref().is_some_and(|t| h.start + h.before().len() == t.rows.len())
            };
            let mut files = base.edits.iter().zip(&draft.hunks);
            form == Form::Envelope && files.any(|(e, h)| !e.deleted && h.iter().any(|h| last(e, h)))
        }
        D::NoBeginPatch => {
            style.begin_patch = false;
            form == Form::Envelope
        }
        D::NoEndPatch => {
            style.end_patch = false;
            form == Form::Envelope
        }
        D::NameBold | D::NameLabelled | D::NameOnce | D::NameOutsideFence => {
            let odd = base.edits.iter().any(|e| e.path.contains([' ', '"']));
            let many = draft.hunks.iter().any(|h| h.len() > 1);
            style.naming = match deformation {
                D::NameBold => 1,
                D::NameLabelled => 2,
                D::NameOnce => 3,
                _ => 4,
            };
            form == Form::Blocks && !odd && (deformation != D::NameOnce || many)
        }
        D::LongMarkers => {
            style.long_markers = form == Form::Blocks;
            style.long_markers
        }
        D::NoNewlineInTexts => {
            style.newline = false;
            let blank = |lines: &[&str]| lines.last().is_some_and(|l| l.trim().is_empty());
            // A newline less would be one blank line less.
            let blanks = draft.hunks.iter().flatten().any(|h| blank(&h.before()) || blank(&h.after()));
            form == Form::Edits
                && !blanks
                && base.edits.iter().all(|e| e.before.as_ref().is_some_and(|t| !t.rows.is_empty()))
        }
        D::JsonText | D::JsonObject => {
            style.sent = if deformation == D::JsonText { Sent::Json } else { Sent::JsonObject };
            form == Form::Edits
        }
        D::Prose | D::Fence | D::FenceAndProse => {
            style.around = match deformation {
                D::Prose => Around::Prose,
                D::Fence => Around::Fence,
                _ => Around::FenceAndProse,
            };
            // A fence within a fence ends it; and without its frame an envelope's end is nowhere.
            let inner =
                || draft.hunks.iter().flatten().flat_map(|h| &h.lines).any(|l| l.text.starts_with("```"));
            let framed = form != Form::Envelope || style.end_patch;
            text && (deformation == D::Prose || !inner()) && framed && style.naming != 4 && !style.bom_before
        }
        D::Lines => {
            style.sent = Sent::Lines;
            let whole = || {
                base.edits.iter().all(|e| {
                    e.after().is_none_or(|t| !t.unfinished() && !t.has(End::CrLf) && !t.rows.is_empty())
                })
            };
            text && hunks || form == Form::Whole && !removes && whole() && before(|t| !t.rows.is_empty())
        }
        D::LinesWithNewlines => {
            style.sent = Sent::LinesWithNewlines;
            text
        }
        D::NoLastNewline => {
            style.last_newline = false;
            let ends = |t: &Text| t.rows.last().is_some_and(|r| r.end != End::Nothing && !r.text.is_empty());
            let whole =
                |e: &FileEdit| e.before.as_ref().is_some_and(ends) && e.after().as_ref().is_some_and(ends);
            match form {
                Form::Whole => base.edits.iter().all(whole),
                _ => text && style.around == Around::Nothing && style.sent == Sent::Text,
            }
        }
    }
}

/// Changes lines that have to be there, in files that are changed; the draft is then no longer exact.
fn old_lines(draft: &mut Draft<'_>, change: &mut dyn FnMut(&Line) -> Option<String>) -> bool {
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

/// Hunks of files that are changed.
fn changed_hunks<'d>(draft: &'d mut Draft<'_>) -> impl Iterator<Item = &'d mut Hunk> {
    let files = draft.base.edits.iter().zip(&mut draft.hunks);
    files.filter(|(e, _)| e.before.is_some() && !e.deleted).flat_map(|(_, hunks)| hunks)
}

/// One line that stays is made wrong, in one hunk that has others.
fn context(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
    if draft.form == Form::Whole {
        return false;
    }
    let files: Vec<Vec<String>> = draft
        .base
        .edits
        .iter()
        .map(|e| e.before.iter().flat_map(|t| t.texts()).map(fold).collect())
        .collect();
    let nowhere = |text: &str| !files.iter().any(|rows| rows.contains(&fold(text)));
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
                // One word of several: a line of one word would be another line.
                if deformation == D::ContextWord && all.len() < 2 && word.len() * 2 > line.text.trim().len() {
                    continue;
                }
                let new = match deformation {
                    D::ContextTypo => format!("{}{}{}", &word[..1], &word[2..], &word[1..2]),
                    _ => "otherwise".into(),
                };
                let text = format!("{}{new}{}", &line.text[..i], &line.text[i + word.len()..]);
                if text == line.text || !nowhere(&text) {
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

fn indentation(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
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
        let told = |(l, n): (&Line, &Option<String>)| {
            l.mark != Mark::Add && n.as_ref().is_some_and(|n| *n != l.text)
        };
        // By how much is only told by old lines.
        if new.iter().all(Option::is_some) && hunk.lines.iter().zip(&new).any(told) {
            hunk.lines.iter_mut().zip(new).for_each(|(l, n)| l.text = n.unwrap_or_default());
            any = true;
        }
    }
    draft.exact &= !any;
    any
}

/// Characters that editors and models make of ASCII ones, where a hunk's old lines have them; its added lines get the same.
fn typographic(draft: &mut Draft<'_>, random: &mut Random) -> bool {
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

/// Line numbers as `read_file` shows them, on old lines and perhaps on added ones.
fn numbers(draft: &mut Draft<'_>, random: &mut Random, old_only: bool) -> bool {
    let texts = matches!(draft.form, Form::Blocks | Form::Edits);
    let special = draft
        .base
        .edits
        .iter()
        .any(|e| e.before.as_ref().is_some_and(|t| t.mixed() || t.bom || t.unfinished()));
    let odd = changed_hunks(draft).flat_map(|h| &h.lines).any(|l| unnumbered(l.text.trim()).is_some());
    // What replaces the numbered lines is as in the file only if they were.
    let special = special || !draft.exact;
    if draft.form == Form::Whole
        || odd
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
                // What is searched has numbers, and what replaces it has none.
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
