//! Unified diffs, line by line.
//!
//! A line with `@@`, `diff --git`, a fence, `*** ` or `Index:` ends a hunk whatever its header counts, and so do a `---` and a `+++` line unless the
//! counts say that they may be lines of the hunk.

use super::{BEGINNING, Stop, Watch};
use crate::{Dialect, FilePatch, lazy, unified};

#[derive(Debug)]
pub(super) struct Reader {
    /// Where the file's header lines are.
    header: Option<(usize, usize)>,
    hunk: Option<Open>,
    /// The line that told the dialect.
    first: usize,
}

/// A hunk that has begun.
#[derive(Debug)]
struct Open {
    /// Its `@@` line, if it has one.
    title: Option<usize>,
    /// Its first line.
    from: usize,
    /// Old and new lines that the header still promises.
    left: Option<(usize, usize)>,
    /// The counts do not fit: it goes on to where it looks like ending.
    guessed: bool,
    /// All lines that the header promises were there before the last one.
    over: bool,
}

impl Reader {
    /// `at` is the line that told the dialect: a hunk's, a `diff --git` or a header's second.
    pub(super) fn new(at: usize) -> Self {
        Self { header: None, hunk: None, first: at }
    }

    /// Whether it makes sense to go on.
    pub(super) fn line(&mut self, watch: &mut Watch) -> Result<bool, Stop> {
        let at = watch.lines.len() - 1;
        let line = watch.lines[at].trim_end_matches('\r').to_owned();
        if unified::new_name(&line).is_some()
            && at > 0
            && watch.lines[at - 1].starts_with("--- ")
            && at >= self.first
        {
            if let Some(open) = &self.hunk
                && open.may_swallow()
            {
                return Ok(false);
            }
            // The line before has been taken for one of the hunk.
            self.close(watch, at - 1)?;
            let from = match self.header {
                // After `diff --git` and what belongs to it.
                Some((from, to)) if watch.lines[from].starts_with("diff --git ") && to >= at - 1 => from,
                _ => at - 1,
            };
            self.header = Some((from, at + 1));
            return self.named(watch).map(|()| true);
        }
        if line.starts_with("diff --git ") {
            self.close(watch, at)?;
            self.header = Some((at, at + 1));
            return Ok(true);
        }
        if let Some(ranges) = line.strip_prefix("@@") {
            let above: Vec<&str> =
                watch.lines[at.saturating_sub(1)..].iter().map(|line| line.trim_end()).collect();
            let named = at > 0 && at >= self.first && unified::lone_header(&above, 0).is_some();
            let known = self.header.is_some_and(|(_, to)| to == at);
            if named && !known {
                if self.hunk.as_ref().is_some_and(|open| open.may_swallow()) {
                    return Ok(false);
                }
                self.close(watch, at - 1)?;
                self.header = Some((at - 1, at));
            } else {
                self.close(watch, at)?;
            }
            let left = unified::ranges(ranges).and_then(|(_, counts)| counts);
            self.hunk =
                Some(Open { title: Some(at), from: at + 1, left, guessed: left.is_none(), over: false });
            return Ok(true);
        }
        if line.starts_with("```") || line.starts_with("*** ") || line.starts_with("Index: ") {
            self.close(watch, at)?;
            return Ok(true);
        }
        if self.hunk.is_none() {
            match &mut self.header {
                // Lines right below a header without `@@` are a hunk.
                Some((from, to)) if *to == at => {
                    if unified::new_name(&watch.lines[at - 1]).is_some() && line.starts_with([' ', '+', '-'])
                    {
                        self.hunk =
                            Some(Open { title: None, from: at, left: None, guessed: true, over: false });
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
        if inside && line.strip_prefix('+').is_some_and(lazy::may_be) {
            let patches = self.read(watch, at + 1);
            patches.iter().try_for_each(|patch| watch.leaves_out(patch))?;
        }
        // `--- ` may begin the next file's header.
        if first && line.starts_with([' ', '-']) && !line.starts_with("--- ") {
            let patches = self.read(watch, at + 1);
            for patch in patches {
                watch.judge_beginning(&patch)?;
            }
        }
        Ok(true)
    }

    /// A file has been named: may it be written?
    fn named(&self, watch: &mut Watch) -> Result<(), Stop> {
        let Some((from, to)) = self.header else { return Ok(()) };
        // What kind of hunk follows does not matter for the names.
        let text = watch.text(from..to) + "@@\n+\n";
        for patch in unified::parse(&text, None).unwrap_or_default() {
            watch.open(&patch.path)?;
            if let Some(from) = &patch.from {
                watch.open(from)?;
            }
        }
        Ok(())
    }

    /// The open hunk ends before line `end`.
    fn close(&mut self, watch: &mut Watch, end: usize) -> Result<(), Stop> {
        let patches = self.read(watch, end);
        self.hunk = None;
        patches.iter().try_for_each(|patch| watch.judge(patch))
    }

    /// The file's patch with the open hunk only, up to line `end`.
    fn read(&self, watch: &Watch, end: usize) -> Vec<FilePatch> {
        let Some(open) = &self.hunk else { return Vec::new() };
        let header = self.header.map(|(from, to)| watch.text(from..to)).unwrap_or_default();
        let title = open.title.map_or_else(String::new, |at| watch.text(at..at + 1));
        let text = header + &title + &watch.text(open.from..end.max(open.from));
        let patches = unified::parse(&text, watch.path.as_deref()).unwrap_or_default();
        patches.into_iter().filter(|p| p.dialect == Dialect::Unified && p.hunks.len() == 1).collect()
    }
}

impl Open {
    /// Counts a line; whether it is certain to be one of the hunk's.
    fn take(&mut self, line: &str) -> bool {
        if self.guessed {
            return true;
        }
        let Some((old, new)) = self.left else { return true };
        if old == 0 && new == 0 {
            self.over = true;
            return false;
        }
        let left = match line.as_bytes().first() {
            Some(b' ') | None => old.checked_sub(1).zip(new.checked_sub(1)),
            Some(b'-') => old.checked_sub(1).map(|old| (old, new)),
            Some(b'+') => new.checked_sub(1).map(|new| (old, new)),
            Some(b'\\') => Some((old, new)),
            Some(_) => None,
        };
        match left {
            Some(left) => self.left = Some(left),
            None => self.guessed = true,
        }
        true
    }

    /// Whether a header's two lines may be lines of the hunk: they were counted as such. The first of them has been taken already.
    fn may_swallow(&self) -> bool {
        !self.guessed && !self.over
    }
}
