//! Indentation that differs between a patch and its file, and what it makes of added lines.

use crate::{
    lines::{indent, trim},
    units,
};

/// How the indentation of added lines is to be changed to fit in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Not at all.
    None,
    /// The file is indented deeper, by this.
    Deeper(Vec<u8>),
    /// The file is indented less, by this.
    Shallower(Vec<u8>),
    /// Each added line is indented as the one it replaces.
    AsReplaced,
    /// The file's columns are the patch's and `more`, written with tabs or with spaces; a tab is `width` columns.
    Columns { width: usize, more: isize, tabs: bool },
}

/// Widths of a tab that are tried, the likely ones first.
const WIDTHS: [usize; 5] = [4, 2, 8, 3, 1];

/// The indentations of lines that stand in the file: the file's and the patch's.
#[derive(Debug, Default)]
pub(crate) struct Indents(Vec<(Vec<u8>, Vec<u8>)>);

impl Indents {
    /// A line of the file and the same line as the patch has it. Blank lines tell nothing.
    pub(crate) fn add(&mut self, file: &[u8], patch: &[u8]) {
        if trim(patch).is_empty() {
            return;
        }
        let of = |text: &[u8]| match units::plain(text) {
            Some(plain) => indent(&plain).to_vec(),
            None => indent(text).to_vec(),
        };
        let pair = (of(file), of(patch));
        if !self.0.contains(&pair) {
            self.0.push(pair);
        }
    }

    /// The one change that explains all of them and tells what becomes of these added lines.
    pub(crate) fn shift<'a>(&self, added: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Shift> {
        let Some((file, patch)) = self.0.first() else { return Some(Shift::None) };
        if self.0.iter().all(|(a, b)| a == b) {
            return Some(Shift::None);
        }
        if let Some(by) = file.strip_suffix(&patch[..])
            && self.0.iter().all(|(a, b)| a.strip_prefix(by) == Some(b))
        {
            return Some(Shift::Deeper(by.to_vec()));
        }
        let added = added.filter(|text| !trim(text).is_empty());
        if let Some(by) = patch.strip_suffix(&file[..])
            && self.0.iter().all(|(a, b)| b.strip_prefix(by) == Some(a))
        {
            return added.clone().all(|t| t.starts_with(by)).then(|| Shift::Shallower(by.to_vec()));
        }
        self.columns(added)
    }

    /// Tabs against spaces, perhaps with a depth of its own; `None` when widths of a tab that explain it disagree on what is added.
    fn columns<'a>(&self, added: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Shift> {
        let tabs = self.0.iter().any(|(file, _)| file.contains(&b'\t'));
        if tabs && self.0.iter().any(|(file, _)| file.windows(2).any(|w| w == b" \t")) {
            return None;
        }
        let explains = |width: &usize| {
            let more = |(file, patch): &(Vec<u8>, Vec<u8>)| {
                columns(file, *width) as isize - columns(patch, *width) as isize
            };
            let first = more(self.0.first()?);
            // What the file has must be what would be written.
            let style = |columns: usize| spell(columns, *width, tabs);
            let same =
                self.0.iter().all(|pair| more(pair) == first && style(columns(&pair.0, *width)) == pair.0);
            same.then_some(Shift::Columns { width: *width, more: first, tabs })
        };
        let mut shifts: Vec<Shift> = WIDTHS.iter().filter_map(explains).collect();
        // Without a depth of its own is the simpler explanation.
        if shifts.iter().any(|s| matches!(s, Shift::Columns { more: 0, .. })) {
            shifts.retain(|s| matches!(s, Shift::Columns { more: 0, .. }));
        }
        let (first, others) = shifts.split_first()?;
        let result = |shift: &Shift| added.clone().map(|t| shift.try_apply(t)).collect::<Option<Vec<_>>>();
        let decided = result(first)?;
        others.iter().all(|other| result(other).as_ref() == Some(&decided)).then(|| first.clone())
    }
}

fn columns(indent: &[u8], width: usize) -> usize {
    indent.iter().fold(0, |at, b| if *b == b'\t' { (at / width + 1) * width } else { at + 1 })
}

fn spell(columns: usize, width: usize, tabs: bool) -> Vec<u8> {
    if !tabs {
        return vec![b' '; columns];
    }
    [vec![b'\t'; columns / width], vec![b' '; columns % width]].concat()
}

impl Shift {
    /// An added line as it fits in.
    pub(crate) fn apply(&self, text: &[u8]) -> Vec<u8> {
        self.try_apply(text).unwrap_or_else(|| text.to_vec())
    }

    fn try_apply(&self, text: &[u8]) -> Option<Vec<u8>> {
        if trim(text).is_empty() {
            return Some(text.to_vec());
        }
        Some(match self {
            Self::None | Self::AsReplaced => text.to_vec(),
            Self::Deeper(by) => [by, text].concat(),
            Self::Shallower(by) => text.strip_prefix(&by[..])?.to_vec(),
            Self::Columns { width, more, tabs } => {
                let (blank, rest) = text.split_at(indent(text).len());
                let at = columns(blank, *width).checked_add_signed(*more)?;
                [&spell(at, *width, *tabs), rest].concat()
            }
        })
    }
}
