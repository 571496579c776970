//! Follows SEARCH/REPLACE blocks line by line.

use super::{BEGINNING, EarlyRefusal, Watch};
use crate::{
    Dialect,
    blocks::{Marker, head, marker, parse, path_before, path_within, unescaped},
    lazy,
};

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The file that the last block changes.
    path: Option<String>,
    /// The first line after the last complete block.
    after: usize,
    /// The line of the open block's SEARCH marker.
    open: Option<usize>,
    divided: bool,
}

impl Reader {
    /// Handles the line that `watch` received last. Returns whether to check the lines after it.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, EarlyRefusal> {
        let at = watch.lines.len() - 1;
        let found = marker(&watch.lines[at]);
        let Some(open) = self.open else {
            if found == Some(Marker::Search) {
                let before: Vec<&str> = watch.lines[self.after..at].iter().map(String::as_str).collect();
                let named =
                    path_within(&watch.lines[at]).or_else(|| path_before(&before, watch.path.as_deref()));
                self.path = named.or_else(|| self.path.take()).or_else(|| watch.path.clone());
                (self.open, self.divided) = (Some(at), false);
                if let Some(path) = &self.path {
                    watch.open(path)?;
                }
            }
            return Ok(true);
        };
        match found {
            Some(Marker::Search) => return Ok(false), // the parser judges the complete patch
            Some(Marker::Divider) => self.divided = true,
            Some(Marker::Replace) => {
                (self.open, self.after) = (None, at + 1);
                return self.whole(watch, open, at + 1).map(|()| true);
            }
            None if self.divided && lazy::is_elision(&watch.lines[at]) => {
                self.replacing(watch, open, at + 1)?
            }
            None if !self.divided && at - open <= BEGINNING => self.searched(watch, open + 1..at + 1)?,
            None => {}
        }
        Ok(true)
    }

    fn searched(&self, watch: &mut Watch, lines: std::ops::Range<usize>) -> Result<(), EarlyRefusal> {
        let lines: Vec<&str> = watch.lines[lines].iter().map(String::as_str).collect();
        let (_, start) = head(&lines, 0);
        let search: String = lines[start..].iter().flat_map(|line| [unescaped(line), "\n"]).collect();
        self.path.as_ref().map_or(Ok(()), |path| watch.feed_search(path, &search))
    }

    /// Checks an incomplete replacement for placeholders.
    fn replacing(&self, watch: &mut Watch, from: usize, to: usize) -> Result<(), EarlyRefusal> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = watch.text(from..to) + ">>>>>>> REPLACE\n";
        watch.check_placeholders(&parse(&text, Some(path)).unwrap_or_default())
    }

    /// Checks a complete block. A malformed one is left to the parser.
    fn whole(&self, watch: &mut Watch, from: usize, to: usize) -> Result<(), EarlyRefusal> {
        let Some(path) = &self.path else { return Ok(()) };
        let patches = parse(&watch.text(from..to), Some(path)).unwrap_or_default();
        patches
            .iter()
            .filter(|p| p.dialect == Dialect::SearchReplace)
            .try_for_each(|patch| watch.replaced(patch))
    }
}
