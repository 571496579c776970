//! The `*** Begin Patch` envelope, line by line.

use super::{BEGINNING, Stop, Watch};
use crate::{
    envelope::{What, directive, ends_file, parse},
    lazy,
};

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The `*** Update File:` line and, with a move, the one below it.
    header: Option<(usize, usize)>,
    /// Where the open hunk begins, its `@@` lines included.
    hunk: Option<usize>,
    /// It has lines besides `@@` ones.
    lines: bool,
    /// The `*** Add File:` line.
    added: Option<usize>,
    /// A directive has been seen: from then on they begin their line.
    begun: bool,
}

impl Reader {
    /// Whether it makes sense to go on.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, Stop> {
        let at = watch.lines.len() - 1;
        let line = watch.lines[at].trim_end_matches('\r').to_owned();
        let found = if !self.begun || ends_file(&line) { directive(&line) } else { None };
        if let Some((what, path)) = found {
            self.close(watch, at)?;
            (self.header, self.added, self.begun) = (None, None, true);
            if !path.is_empty() && matches!(what, What::Add | What::Update | What::Delete) {
                watch.open(path)?;
            }
            match what {
                What::End => return Ok(false),
                What::Update => self.header = Some((at, at + 1)),
                What::Add => self.added = Some(at),
                What::Begin | What::Delete => {}
            }
            return Ok(true);
        }
        if let Some(from) = self.added
            && lazy::may_be(line.strip_prefix('+').unwrap_or(&line))
        {
            let patches = parse(&watch.text(from..at + 1)).unwrap_or_default();
            patches.iter().try_for_each(|patch| watch.leaves_out(patch))?;
        }
        let Some((from, to)) = self.header else { return Ok(true) };
        if at == from + 1
            && let Some(target) = line.trim().strip_prefix("*** Move to:")
        {
            watch.open(target.trim())?;
            self.header = Some((from, to + 1));
            return Ok(true);
        }
        if line.trim() == "*** End of File" {
            self.hunk.get_or_insert(at);
            if self.lines {
                self.close(watch, at + 1)?;
            }
        } else if line.starts_with("@@") {
            if self.lines {
                self.close(watch, at + 1)?;
            }
            self.hunk.get_or_insert(at);
        } else {
            let from = *self.hunk.get_or_insert(at);
            self.lines = true;
            if line.strip_prefix('+').is_some_and(lazy::may_be) {
                self.read(watch, at + 1).iter().try_for_each(|patch| watch.leaves_out(patch))?;
            }
            if at - from < BEGINNING && line.starts_with([' ', '-']) && !line.starts_with("--- ") {
                for patch in self.read(watch, at + 1) {
                    watch.judge_beginning(&patch)?;
                }
            }
        }
        Ok(true)
    }

    fn close(&mut self, watch: &mut Watch, end: usize) -> Result<(), Stop> {
        let patches = self.read(watch, end);
        (self.hunk, self.lines) = (None, false);
        patches.iter().try_for_each(|patch| watch.judge(patch))
    }

    /// The file's patch with the open hunk only, up to line `end`. One that cannot be read is judged when it is whole.
    fn read(&self, watch: &Watch, end: usize) -> Vec<crate::FilePatch> {
        let (Some((from, to)), Some(hunk), true) = (self.header, self.hunk, self.lines) else {
            return Vec::new();
        };
        let text = watch.text(from..to) + &watch.text(hunk..end);
        let mut patches = parse(&text).unwrap_or_default();
        patches.retain(|p| p.hunks.len() == 1);
        patches
    }
}
