//! SEARCH/REPLACE blocks, line by line.

use super::{Looked, Stop, Watch, Why, possible};
use crate::{
    Mark,
    blocks::{Marker, marker, parse, path_before},
    lines::bare,
};

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The file of the last block.
    path: Option<String>,
    /// Files that a block made: what follows for them is about what is not there yet.
    made: Vec<String>,
    /// The line behind the last block.
    after: usize,
    /// The line of the open block's SEARCH marker.
    open: Option<usize>,
    /// A divider has been seen.
    divided: bool,
}

impl Reader {
    /// Whether it makes sense to go on.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, Stop> {
        let at = watch.lines.len() - 1;
        let found = marker(&watch.lines[at]);
        let Some(open) = self.open else {
            if found == Some(Marker::Search) {
                let before: Vec<&str> = watch.lines[self.after..at].iter().map(String::as_str).collect();
                self.path = path_before(&before).or_else(|| self.path.take()).or_else(|| watch.path.clone());
                (self.open, self.divided) = (Some(at), false);
                if let Some(path) = &self.path {
                    watch.open(path)?;
                }
            }
            return Ok(true);
        };
        match found {
            Some(Marker::Search) => return Ok(false), // refused, when it is whole
            Some(Marker::Divider) => self.divided = true,
            Some(Marker::Replace) => {
                (self.open, self.after) = (None, at + 1);
                return self.whole(watch, open, at + 1).map(|()| true);
            }
            None if !self.divided => self.searched(watch, open + 1..at + 1)?,
            None => {}
        }
        Ok(true)
    }

    /// Lines that are searched for; which of them stay is not known yet.
    fn searched(&self, watch: &Watch, lines: std::ops::Range<usize>) -> Result<(), Stop> {
        let Some(path) = self.path.as_ref().filter(|path| !self.made.contains(path)) else { return Ok(()) };
        let search = watch.text(lines);
        if search.trim().is_empty() {
            return Ok(());
        }
        let stop = |why| Err(Stop { path: path.clone(), why });
        match &watch.files[path] {
            Looked::Unknown => Ok(()),
            Looked::Nothing => stop(Why::Missing),
            Looked::File(file) => {
                let index = file.borrow_dependent();
                let body = search.lines().map(|l| (Mark::Keep, bare(l.as_bytes()))).collect();
                if possible(index, &body, Some(search.as_bytes())) {
                    return Ok(());
                }
                stop(Why::Lines(crate::feedback::nowhere(index, &body)))
            }
        }
    }

    /// A complete block.
    fn whole(&mut self, watch: &mut Watch, from: usize, to: usize) -> Result<(), Stop> {
        let Some(path) = self.path.clone().filter(|path| !self.made.contains(path)) else { return Ok(()) };
        for patch in parse(&watch.text(from..to), Some(&path)).unwrap_or_default() {
            if patch.hunks.is_empty() {
                self.made.push(path.clone());
            } else {
                watch.judge(&patch)?;
            }
        }
        Ok(())
    }
}
