//! Follows a unified diff line by line.
//!
//! A line that starts with `@@`, `diff --git`, a fence, `*** ` or `Index:` ends a hunk regardless
//! of the hunk's counts. A `---` line followed by a `+++` line ends the hunk if its counts are used
//! up, missing or wrong. Otherwise, the two lines may be part of the hunk, so the rest of the patch
//! is not checked.

use super::{BEGINNING, EarlyRefusal, Watch};
use crate::{Action, Dialect, FilePatch, Mark, lazy, unified};

#[derive(Debug)]
pub(super) struct Reader {
    /// The range of the file's header lines.
    header: Option<(usize, usize)>,
    hunk: Option<Open>,
    /// How many lines the complete hunks of this file add, minus the lines that they remove; `None`
    /// if one of them could not be parsed.
    shift: Option<isize>,
    /// The line at which the dialect was detected.
    first: usize,
}

#[derive(Debug)]
struct Open {
    /// The hunk's `@@` line, if it has one.
    title: Option<usize>,
    from: usize,
    /// How many old and new lines are left, according to the `@@` line.
    left: Option<(usize, usize)>,
    /// Whether the counts are missing or wrong, so that the end of the hunk must be guessed.
    guessed: bool,
    /// Whether more lines came after the counts were used up.
    used_up: bool,
}

impl Reader {
    /// Creates a reader. `at` is the line at which the dialect was detected: an `@@` line, a
    /// `diff --git` line or the second line of a header.
    pub(super) fn new(at: usize) -> Self {
        Self { header: None, hunk: None, shift: Some(0), first: at }
    }

    /// Handles a line. Returns whether to continue.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, EarlyRefusal> {
        let at = watch.lines.len() - 1;
        let line = watch.lines[at].trim_end_matches('\r').to_owned();
        if unified::new_name(&line).is_some()
            && at > 0
            && watch.lines[at - 1].starts_with("--- ")
            && at >= self.first
        {
            if let Some(open) = &self.hunk
                && open.may_contain_header()
            {
                return Ok(false);
            }
            // The `---` line above was counted as part of the hunk, but the hunk ends before it.
            self.close(watch, at - 1)?;
            let from = match self.header {
                // Keep the `diff --git` line and its extended header.
                Some((from, to)) if watch.lines[from].starts_with("diff --git ") && to >= at - 1 => from,
                _ => at - 1,
            };
            (self.header, self.shift) = (Some((from, at + 1)), Some(0));
            return self.named(watch).map(|()| true);
        }
        if line.starts_with("diff --git ") {
            self.close(watch, at)?;
            (self.header, self.shift) = (Some((at, at + 1)), Some(0));
            return Ok(true);
        }
        if let Some(ranges) = line.strip_prefix("@@") {
            let above: Vec<&str> =
                watch.lines[at.saturating_sub(1)..].iter().map(|line| line.trim_end()).collect();
            let named = at > 0 && at >= self.first && unified::lone_header(&above, 0).is_some();
            let known = self.header.is_some_and(|(_, to)| to == at);
            if named && !known {
                if self.hunk.as_ref().is_some_and(|open| open.may_contain_header()) {
                    return Ok(false);
                }
                self.close(watch, at - 1)?;
                (self.header, self.shift) = (Some((at - 1, at)), Some(0));
            } else {
                self.close(watch, at)?;
            }
            let left = unified::ranges(ranges).and_then(|(_, counts)| counts);
            self.hunk =
                Some(Open { title: Some(at), from: at + 1, left, guessed: left.is_none(), used_up: false });
            return Ok(true);
        }
        if line.starts_with("```") || line.starts_with("*** ") || line.starts_with("Index: ") {
            self.close(watch, at)?;
            return Ok(true);
        }
        if self.hunk.is_none() {
            match &mut self.header {
                // Lines directly below a header form a hunk without `@@`.
                Some((from, to)) if *to == at => {
                    if unified::new_name(&watch.lines[at - 1]).is_some() && line.starts_with([' ', '+', '-'])
                    {
                        self.hunk =
                            Some(Open { title: None, from: at, left: None, guessed: true, used_up: false });
                    } else if watch.lines[*from].starts_with("diff --git ") {
                        *to = at + 1;
                    }
                }
                _ => {}
            }
        }
        let Some(open) = &mut self.hunk else { return Ok(true) };
        let inside = open.take(&line);
        let first = inside && at - open.from < BEGINNING;
        if inside && line.strip_prefix('+').is_some_and(lazy::is_elision) {
            watch.check_placeholders(&self.read(watch, at + 1))?;
        }
        // `--- ` may begin the next file's header.
        if first && line.starts_with([' ', '-']) && !line.starts_with("--- ") {
            watch.judge_beginnings(&self.read(watch, at + 1))?;
        }
        Ok(true)
    }

    fn named(&self, watch: &mut Watch) -> Result<(), EarlyRefusal> {
        let Some((from, to)) = self.header else { return Ok(()) };
        // The parser returns the names only for a patch with a hunk, so add a hunk that is never
        // applied.
        let text = watch.text(from..to) + "@@\n+\n";
        for patch in unified::parse(&text, None).unwrap_or_default() {
            watch.open(&patch.path)?;
            if matches!(patch.action, Action::Create(_)) || patch.from.is_some() {
                watch.created.push(patch.path.clone());
            }
            if let Some(from) = &patch.from {
                watch.open(from)?;
            }
        }
        Ok(())
    }

    /// Closes the open hunk before line `end`.
    fn close(&mut self, watch: &mut Watch, end: usize) -> Result<(), EarlyRefusal> {
        if self.hunk.is_none() {
            return Ok(());
        }
        let patches = self.read(watch, end);
        self.hunk = None;
        let hunk = patches.first().and_then(|patch| patch.hunks.first());
        self.shift = self.shift.zip(hunk).and_then(|(shift, hunk)| unified::shifted(shift, hunk));
        patches.iter().try_for_each(|patch| watch.judge(patch))
    }

    /// Parses the file's header and the open hunk, up to line `end`.
    fn read(&self, watch: &Watch, end: usize) -> Vec<FilePatch> {
        let Some(open) = &self.hunk else { return Vec::new() };
        let header = self.header.map(|(from, to)| watch.text(from..to)).unwrap_or_default();
        let title = open.title.map_or_else(String::new, |at| watch.text(at..at + 1));
        let text = header + &title + &watch.text(open.from..end.max(open.from));
        let mut patches = unified::parse(&text, watch.path.as_deref()).unwrap_or_default();
        patches.retain(|p| p.dialect == Dialect::Unified && p.hunks.len() == 1);
        // The parser saw only this hunk, but its line numbers depend on the hunks above it.
        let (Some(title), Some(shift)) = (open.title, self.shift) else {
            patches.retain(|p| p.hunks.iter().any(|hunk| hunk.lines.iter().any(|l| l.mark != Mark::Add)));
            return patches;
        };
        for hunk in patches.iter_mut().flat_map(|patch| &mut patch.hunks) {
            hunk.below = unified::insertion(watch.lines[title].trim_end_matches('\r'), hunk, shift);
        }
        patches
    }
}

impl Open {
    /// Counts a line. Returns `false` if the counts are already used up, in which case the hunk may
    /// end before the line.
    fn take(&mut self, line: &str) -> bool {
        if self.guessed {
            return true;
        }
        let Some(left) = self.left else { return true };
        if left == (0, 0) {
            self.used_up = true;
            return false;
        }
        match unified::count_down(left, line) {
            Some(left) => self.left = Some(left),
            None => self.guessed = true,
        }
        true
    }

    /// Returns whether two lines that look like a header may be part of the hunk instead: the
    /// hunk's counts are neither missing nor wrong, and were not used up when the first of the two
    /// lines was counted.
    fn may_contain_header(&self) -> bool {
        !self.guessed && !self.used_up
    }
}
