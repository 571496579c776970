//! Introduces mistakes into a draft. This module handles mistakes in the notation of a patch;
//! [`lines`] handles mistakes in the lines of hunks.

use crate::{
    Form,
    deform::leading_context,
    deformation::Deformation as D,
    edit::{FileEdit, Line, Mark},
    hunk::Hunk,
    lines,
    random::Random,
    style::{Around, Header, Returns, Sent},
    text::{End, Text},
    write::Draft,
};

/// Introduces one mistake into a draft. Returns `false` if the draft does not allow this kind of
/// mistake; the draft is then unusable.
pub(crate) fn change(deformation: D, draft: &mut Draft<'_>, random: &mut Random) -> bool {
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
            lines::context(deformation, draft, random)
        }
        D::TrailingAdded => {
            let more = *random.pick(&[" ", "  ", "\t", "    "]);
            lines::old_lines(draft, &mut |line| (line.old % 2 == 0).then(|| format!("{}{more}", line.text)))
        }
        D::TrailingLost => lines::old_lines(draft, &mut |line| {
            let cut = line.text.trim_end();
            (cut.len() < line.text.len()).then(|| cut.to_owned())
        }),
        D::Deeper | D::Shallower | D::TabsToSpaces | D::SpacesToTabs => {
            lines::indentation(deformation, draft, random)
        }
        D::Typographic => lines::typographic(draft, random),
        D::AsciiForTypographic => lines::old_lines(draft, &mut |line| {
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
            // At the edge of a hunk, an engine may ignore a blank context line without its prefix.
            let edge = |h: &Hunk| h.lines.first().is_some_and(blank) || h.lines.last().is_some_and(blank);
            draft.exact &= !fits || !draft.hunks.iter().flatten().any(edge);
            style.blank_prefixes = !fits;
            fits
        }
        D::NumbersPasted => lines::numbers(draft, random, false),
        D::NumbersPastedOldOnly => lines::numbers(draft, random, true),
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
            // A blank last line would disappear without its newline.
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
            // A fence in the patch would end the fence around it, and an envelope without its end
            // line would continue past the closing fence.
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
