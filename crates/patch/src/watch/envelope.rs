//! Follows a `*** Begin Patch` envelope line by line.

use super::{BEGINNING, EarlyRefusal, Watch};
use crate::{
    envelope::{Directive, directive, ends_file, parse},
    lazy,
};

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The range of the header's lines: the `*** Update File:` line and, for a move, the line below
    /// it.
    header: Option<(usize, usize)>,
    /// The start of the open hunk, including its `@@` lines.
    hunk: Option<usize>,
    /// Whether the open hunk has lines other than `@@` headers.
    lines: bool,
    added: Option<usize>,
    /// Whether a directive was found. Only the first directive may be indented.
    begun: bool,
}

impl Reader {
    /// Handles the last line of `watch`. Returns whether to continue.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, EarlyRefusal> {
        let at = watch.lines.len() - 1;
        let line = watch.lines[at].trim_end_matches('\r').to_owned();
        let found = if !self.begun || ends_file(&line) { directive(&line) } else { None };
        if let Some((what, path)) = found {
            self.close(watch, at)?;
            (self.header, self.added, self.begun) = (None, None, true);
            if !path.is_empty() && matches!(what, Directive::Add | Directive::Update | Directive::Delete) {
                watch.open(path)?;
            }
            match what {
                Directive::End => return Ok(false),
                Directive::Update => self.header = Some((at, at + 1)),
                Directive::Add => {
                    self.added = Some(at);
                    watch.created.push(path.to_owned());
                }
                Directive::Begin | Directive::Delete => {}
            }
            return Ok(true);
        }
        if let Some(from) = self.added
            && lazy::is_elision(line.strip_prefix('+').unwrap_or(&line))
        {
            watch.check_placeholders(&parse(&watch.text(from..at + 1)).unwrap_or_default())?;
        }
        let Some((from, to)) = self.header else { return Ok(true) };
        if at == from + 1
            && let Some(target) = line.trim().strip_prefix("*** Move to:")
        {
            watch.open(target.trim())?;
            watch.created.push(target.trim().to_owned());
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
            if line.strip_prefix('+').is_some_and(lazy::is_elision) {
                watch.check_placeholders(&self.read(watch, at + 1))?;
            }
            if at - from < BEGINNING && line.starts_with([' ', '-']) && !line.starts_with("--- ") {
                watch.judge_beginnings(&self.read(watch, at + 1))?;
            }
        }
        Ok(true)
    }

    fn close(&mut self, watch: &mut Watch, end: usize) -> Result<(), EarlyRefusal> {
        let patches = self.read(watch, end);
        (self.hunk, self.lines) = (None, false);
        patches.iter().try_for_each(|patch| watch.judge(patch))
    }

    /// Parses the file's header and the lines of the open hunk before line `end`, skipping earlier
    /// hunks. If the hunk is malformed, the parser reports it once the patch is complete.
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
