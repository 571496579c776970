//! Changes as people look at them, before or after they are made: file images in, text out. A summary first (what becomes of each
//! file, lines added and removed, a bar), then the changes in one of three forms. What comes from files is made harmless on its way,
//! except where the output is a patch for a program.

mod cells;
mod columns;
mod compare;
mod lines;
mod summary;
mod text;
mod unified;
mod words;

use crate::console::{self, Paint};
use crate::context::Context;
use crate::exit::Result;
use crate::pager;

/// A file before or after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its content, or where it points to.
    pub(crate) bytes: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Whether it is a symbolic link.
    pub(crate) link: bool,
}

/// What becomes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// Where it is afterwards, or was, when it is deleted.
    pub(crate) path: String,
    /// Where it was before, when it is renamed.
    pub(crate) from: Option<String>,
    /// `None` when it is created.
    pub(crate) before: Option<Image>,
    /// `None` when it is deleted.
    pub(crate) after: Option<Image>,
}

/// How changes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    // Line below line, with the words that differ set off.
    Words,
    // Before and after in two columns.
    SideBySide,
    // A patch.
    Unified,
    // Only what becomes of each file.
    None,
}

/// The surface that is drawn on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surface {
    /// In columns.
    pub(crate) width: usize,
    pub(crate) paint: Paint,
}

/// Columns below which two columns of text are not readable.
const NARROWEST_PAIR: usize = 60;

/// Lines added and removed, in all files.
pub(crate) fn counts(changes: &[FileChange]) -> (u64, u64) {
    let compared = changes.iter().map(compare::compare);
    compared.fold((0, 0), |(added, removed), c| (added + c.added as u64, removed + c.removed as u64))
}

/// Shows changes on standard output: to people with a summary, a screen at a time, and by themselves word by word; to a program by
/// themselves as a patch.
///
/// # Errors
/// As the stream says.
pub(crate) fn show(changes: &[FileChange], form: Option<Form>, context: &Context) -> Result<()> {
    let paint = Paint::stdout();
    // Who forces colours wants to see something, not to apply it.
    let looked_at = console::stdout_is_terminal() || paint.0;
    match form.unwrap_or(if looked_at { Form::Words } else { Form::Unified }) {
        Form::Unified if !looked_at => Ok(console::print(unified::patch(changes))?),
        form => {
            let surface = Surface { width: console::width(&context.environment.variables), paint };
            pager::print(&render(changes, form, surface), context)
        }
    }
}

/// Draws the changes.
pub(crate) fn render(changes: &[FileChange], form: Form, surface: Surface) -> String {
    let changes: &[FileChange] = &changes.iter().map(text::readable).collect::<Vec<_>>();
    let compared: Vec<_> = changes.iter().map(|change| (change, compare::compare(change))).collect();
    let mut out = summary::draw(&compared, surface);
    if form == Form::Unified {
        let patch = unified::patch_of(&compared);
        out.push('\n');
        out.push_str(&console::diff(&String::from_utf8_lossy(&patch), surface.paint));
        return out;
    }
    for (change, comparison) in compared.iter().filter(|(_, c)| form != Form::None && c.has_lines()) {
        out.push('\n');
        summary::heading(change, surface, &mut out);
        if form == Form::SideBySide && surface.width >= NARROWEST_PAIR {
            columns::draw(comparison, surface, &mut out);
        } else {
            lines::draw(comparison, surface, &mut out);
        }
    }
    out
}

/// Draws how one text differs from another; nothing when it does not.
pub(crate) fn texts(before: &str, after: &str, surface: Surface) -> String {
    let image = |text: &str| Some(Image { bytes: text.into(), mode: 0o644, link: false });
    let change = FileChange { path: String::new(), from: None, before: image(before), after: image(after) };
    let mut out = String::new();
    lines::draw(&compare::compare(&change), surface, &mut out);
    out
}

/// What becomes of each file, for programs.
pub(crate) fn facts(changes: &[FileChange]) -> Vec<serde_json::Value> {
    changes
        .iter()
        .map(text::readable)
        .map(|change| summary::facts(&change, &compare::compare(&change)))
        .collect()
}

/// A file that goes and one that comes with the same content are one file that moved.
pub(crate) fn with_renames(mut changes: Vec<FileChange>) -> Vec<FileChange> {
    let mut at = 0;
    while at < changes.len() {
        let arrived = &changes[at];
        let origin = changes.iter().position(|gone| {
            let (None, Some(after), Some(before), None) =
                (&arrived.before, &arrived.after, &gone.before, &gone.after)
            else {
                return false;
            };
            !after.bytes.is_empty() && after.bytes == before.bytes && after.link == before.link
        });
        if let Some(origin) = origin {
            let gone = changes.remove(origin);
            at -= usize::from(origin < at);
            (changes[at].from, changes[at].before) = (Some(gone.path), gone.before);
        }
        at += 1;
    }
    changes
}

#[cfg(test)]
mod tests;
