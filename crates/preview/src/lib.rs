//! Renders file changes in human-readable form, either before or after they are made. Takes the old
//! and new image of each file and returns text: first a summary (the kind of change, the number of
//! lines added and removed, and a bar for each file), then the changes in one of three formats. The
//! crate never prints anything, and it reads neither the terminal nor the environment.
//!
//! Text from files cannot control the terminal: [`sanitize`] replaces characters that could do so
//! with visible ones. Only [`patch`] preserves every byte, because its output is read by a program.
//!
//! ```
//! use preview::{FileChange, Format, Image, Paint, Surface};
//!
//! let image = |text: &str| Some(Image { bytes: text.into(), mode: 0o644, link: false });
//! let change = FileChange {
//!     path: "add.sh".into(),
//!     from: None,
//!     before: image("echo 1\n"),
//!     after: image("echo 2\n"),
//! };
//! let drawn = preview::render(&[change], Format::Words, Surface { width: 80, paint: Paint(false) });
//! assert!(drawn.contains("1 - echo 1\n"));
//! assert!(drawn.contains("1 + echo 2\n"));
//! ```

mod cells;
mod columns;
mod compare;
pub mod figures;
mod lines;
pub mod sanitize;
mod style;
mod summary;
mod text;
mod unified;
mod words;

use std::str::FromStr;

pub use style::{Paint, Style, diff};
pub use unified::patch;

/// A file before or after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The content of the file, or the target of the link.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Whether the file is a symbolic link.
    pub link: bool,
}

/// How one file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The path after the change or, for a deleted file, the path before it.
    pub path: String,
    /// The path before the change, if the file was renamed.
    pub from: Option<String>,
    /// `None` if the file is created.
    pub before: Option<Image>,
    /// `None` if the file is deleted.
    pub after: Option<Image>,
}

/// How changes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Old lines above new ones, with the words that differ emphasized.
    Words,
    /// Before and after in two columns.
    SideBySide,
    /// A patch.
    Unified,
    /// The summary only.
    None,
}

impl Format {
    /// The names of all formats, as accepted by [`Format::from_str`].
    pub const NAMES: [&str; 4] = ["words", "side-by-side", "unified", "none"];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let formats = [Self::Words, Self::SideBySide, Self::Unified, Self::None];
        let found = Self::NAMES.into_iter().zip(formats).find(|(known, _)| *known == name);
        let invalid = || format!("invalid preview format {name:?} (expected {})", Self::NAMES.join(", "));
        found.map(|(_, format)| format).ok_or_else(invalid)
    }
}

/// The surface that a preview is drawn on.
#[derive(Debug, Clone, Copy)]
pub struct Surface {
    /// Its width in columns.
    pub width: usize,
    /// Whether it shows colors.
    pub paint: Paint,
}

/// The minimum surface width for showing both versions side by side.
const NARROWEST_PAIR: usize = 60;

/// Counts the lines added and removed in all files.
pub fn counts(changes: &[FileChange]) -> (u64, u64) {
    let compared = changes.iter().map(compare::compare);
    compared.fold((0, 0), |(added, removed), c| (added + c.added as u64, removed + c.removed as u64))
}

/// Draws the changes.
pub fn render(changes: &[FileChange], format: Format, surface: Surface) -> String {
    let changes: &[FileChange] = &changes.iter().map(text::readable).collect::<Vec<_>>();
    let compared: Vec<_> = changes.iter().map(|change| (change, compare::compare(change))).collect();
    let mut out = summary::draw(&compared, surface);
    if format == Format::Unified {
        let patch = unified::patch_of(&compared);
        out.push('\n');
        out.push_str(&style::diff(&String::from_utf8_lossy(&patch), surface.paint));
        return out;
    }
    for (change, comparison) in compared.iter().filter(|(_, c)| format != Format::None && c.has_lines()) {
        out.push('\n');
        summary::heading(change, surface, &mut out);
        if format == Format::SideBySide && surface.width >= NARROWEST_PAIR {
            columns::draw(comparison, surface, &mut out);
        } else {
            lines::draw(comparison, surface, &mut out);
        }
    }
    out
}

/// Draws the differences between two strings. Returns an empty string if there are none.
pub fn texts(before: &str, after: &str, surface: Surface) -> String {
    let image = |text: &str| Some(Image { bytes: text.into(), mode: 0o644, link: false });
    let change = FileChange { path: String::new(), from: None, before: image(before), after: image(after) };
    let mut out = String::new();
    lines::draw(&compare::compare(&change), surface, &mut out);
    out
}

/// Returns the summary of each file as JSON for other programs.
pub fn facts(changes: &[FileChange]) -> Vec<serde_json::Value> {
    changes
        .iter()
        .map(text::readable)
        .map(|change| summary::facts(&change, &compare::compare(&change)))
        .collect()
}

/// Merges a deleted file and a created file with the same content into one renamed file.
pub fn with_renames(mut changes: Vec<FileChange>) -> Vec<FileChange> {
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
