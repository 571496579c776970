//! Adapts the indentation of added lines when the patch and the file are indented differently.

use crate::{lines::indent, units};

/// How to change the indentation of added lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Leave it unchanged.
    None,
    /// Prepend this, since the file is indented more.
    Deeper(Vec<u8>),
    /// Strip this, since the file is indented less.
    Shallower(Vec<u8>),
    /// Use the indentation of the replaced line.
    AsReplaced,
    /// Add `more` columns and write the result with tabs or with spaces; a tab is `width` columns.
    Columns { width: usize, more: isize, tabs: bool },
}

/// Tab widths to try, most likely first.
const TAB_WIDTHS: [usize; 5] = [4, 2, 8, 3, 1];

/// The indentations of matching lines, as (file, patch) pairs.
#[derive(Debug, Default)]
pub(crate) struct Indents(Vec<(Vec<u8>, Vec<u8>)>);

impl Indents {
    /// Adds a line from the file and the matching line from the patch. Blank lines are ignored.
    pub(crate) fn add(&mut self, file: &[u8], patch: &[u8]) {
        if patch.trim_ascii().is_empty() {
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

    /// Returns the shift that converts the patch's indentation to the file's in every pair. Returns
    /// `None` if there is no such shift, or if it cannot be applied to the added lines.
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
        let added = added.filter(|text| !text.trim_ascii().is_empty());
        if let Some(by) = patch.strip_suffix(&file[..])
            && self.0.iter().all(|(a, b)| b.strip_prefix(by) == Some(a))
        {
            return added.clone().all(|t| t.starts_with(by)).then(|| Shift::Shallower(by.to_vec()));
        }
        self.columns(added)
    }

    /// Returns the shift that explains pairs in which one side uses tabs and the other uses spaces,
    /// possibly with a constant difference in depth. Returns `None` if several tab widths explain
    /// the pairs but give different results for the added lines.
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
            // Converting the column count back to whitespace must give the file's indentation.
            let style = |columns: usize| indentation(columns, *width, tabs);
            let same =
                self.0.iter().all(|pair| more(pair) == first && style(columns(&pair.0, *width)) == pair.0);
            same.then_some(Shift::Columns { width: *width, more: first, tabs })
        };
        let mut shifts: Vec<Shift> = TAB_WIDTHS.iter().filter_map(explains).collect();
        // Prefer an explanation without a difference in depth.
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

fn indentation(columns: usize, width: usize, tabs: bool) -> Vec<u8> {
    if !tabs {
        return vec![b' '; columns];
    }
    [vec![b'\t'; columns / width], vec![b' '; columns % width]].concat()
}

impl Shift {
    pub(crate) fn apply(&self, text: &[u8]) -> Vec<u8> {
        self.try_apply(text).unwrap_or_else(|| text.to_vec())
    }

    fn try_apply(&self, text: &[u8]) -> Option<Vec<u8>> {
        if text.trim_ascii().is_empty() {
            return Some(text.to_vec());
        }
        Some(match self {
            Self::None | Self::AsReplaced => text.to_vec(),
            Self::Deeper(by) => [by, text].concat(),
            Self::Shallower(by) => text.strip_prefix(&by[..])?.to_vec(),
            Self::Columns { width, more, tabs } => {
                let (blank, rest) = text.split_at(indent(text).len());
                let at = columns(blank, *width).checked_add_signed(*more)?;
                [&indentation(at, *width, *tabs), rest].concat()
            }
        })
    }
}
