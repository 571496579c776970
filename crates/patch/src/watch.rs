//! A patch while it is being written: refused as soon as no way of going on could make it apply.
//!
//! The judgement is the engine's own. Lines come in one by one; a hunk that is complete is read by its dialect's reader and looked for by the
//! ladder, and of one that is not, the lines so far are ([`possible`]). Where what follows could still change how something is read, nothing is
//! said: a patch that would have been applied is never refused here.

mod blocks;
mod envelope;
mod unified;

use std::collections::HashMap;

use self_cell::self_cell;

use crate::{
    Dialect, FilePatch, Kind, Mark, Refused,
    body::{Body, body, old},
    context, detect, edits, feedback,
    index::Index,
    ladder::unnumbered,
    lazy,
    lines::bare,
    place::candidates,
    readings::settle_one,
    whole,
};

/// Lines of a hunk that is not complete up to which it is judged at each of them; a longer one is judged when it is complete. Each judgement looks
/// at all lines so far.
const BEGINNING: usize = 200;

self_cell!(
    struct File {
        owner: Vec<u8>,
        #[covariant]
        dependent: Index,
    }
);

/// What is where a patch points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// A file with this content.
    File(Vec<u8>),
    /// Nothing: a file can be made there.
    Nothing,
    /// Something that cannot be changed by a patch; judged when the patch is whole.
    Unknown,
    /// A path that may not be written, and why.
    Refused(String),
}

/// Why a patch is refused before it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The file it is about, as the patch names it.
    pub path: String,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a patch that is not whole yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The path may not be written.
    Path(String),
    /// It changes a file that is not there.
    Missing,
    /// Its lines do not stand in the file.
    Lines(Refused),
}

/// Follows a patch that is being written.
pub struct Watch {
    look: Box<dyn FnMut(&str) -> Look + Send>,
    files: HashMap<String, Looked>,
    /// Files that the patch makes: what follows for them is about what is not there yet.
    made: Vec<String>,
    /// What hunks that are complete add, by file: a later one may change it.
    added: HashMap<String, String>,
    /// Hunks that are complete.
    hunks: usize,
    /// The file that is meant where the patch names none.
    path: Option<String>,
    /// All complete lines, without their newlines.
    lines: Vec<String>,
    /// The beginning of the next one.
    rest: String,
    reading: Reading,
}

enum Reading {
    /// No line has told the dialect yet.
    Unknown,
    Unified(unified::Reader),
    Envelope(envelope::Reader),
    Blocks(blocks::Reader),
    /// Nothing can be said any more until the patch is whole.
    Over,
}

enum Looked {
    File(Box<File>),
    Nothing,
    Unknown,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Watch {
    /// `look` tells what is at a path, and is asked once for each. `path` is the file that is meant where the patch names none.
    pub fn new(path: Option<String>, look: impl FnMut(&str) -> Look + Send + 'static) -> Self {
        Self {
            look: Box::new(look),
            files: HashMap::new(),
            made: Vec::new(),
            added: HashMap::new(),
            hunks: 0,
            path,
            lines: Vec::new(),
            rest: String::new(),
            reading: Reading::Unknown,
        }
    }

    /// More of the patch, cut anywhere.
    ///
    /// # Errors
    /// When whatever follows the patch will be refused. Nothing may be fed after that.
    pub fn feed(&mut self, text: &str) -> Result<(), Stop> {
        self.rest.push_str(text);
        let Some(end) = self.rest.rfind('\n') else { return Ok(()) };
        let later = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, later);
        for line in whole.split_terminator('\n') {
            let line =
                if self.lines.is_empty() { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
            self.lines.push(line.to_owned());
            self.line()?;
        }
        Ok(())
    }

    /// Lines that one edit of a list searches for, so far; which of them stay is not known yet.
    ///
    /// # Errors
    /// As [`Watch::feed`].
    pub fn searched(&mut self, path: &str, search: &str) -> Result<(), Stop> {
        self.open(path)?;
        let long = memchr::memchr_iter(b'\n', search.as_bytes()).nth(BEGINNING).is_some();
        if long || search.trim().is_empty() || self.made.iter().any(|made| made == path) {
            return Ok(());
        }
        if search.lines().any(lazy::elides) {
            return Ok(()); // what stands between its parts is known when it is whole
        }
        let hunk = self.hunks + 1;
        let stop = |why| Err(Stop { path: path.to_owned(), why });
        match &self.files[path] {
            Looked::Unknown => Ok(()),
            Looked::Nothing => stop(Why::Missing),
            Looked::File(file) => {
                let index = file.borrow_dependent();
                let body = search.split_terminator('\n').map(|l| (Mark::Keep, bare(l.as_bytes()))).collect();
                if possible(index, &body, Some(search.as_bytes())) || is_new(&self.added, path, index, &body)
                {
                    return Ok(());
                }
                stop(Why::Lines(feedback::nowhere(index, &body, None).hunk(hunk, 0)))
            }
        }
    }

    /// One edit of a list.
    ///
    /// # Errors
    /// As [`Watch::feed`].
    pub fn edited(&mut self, path: &str, search: &str, replace: &str) -> Result<(), Stop> {
        edits([(path, search, replace)]).iter().try_for_each(|patch| self.replaced(patch))
    }

    /// An edit whose replacement is still being written; only its complete lines count.
    ///
    /// # Errors
    /// As [`Watch::feed`].
    pub fn replacing(&mut self, path: &str, search: &str, replace: &str) -> Result<(), Stop> {
        let Some(replace) = last_may_be_lazy(replace) else { return Ok(()) };
        edits([(path, search, replace)]).iter().try_for_each(|patch| self.leaves_out(patch))
    }

    /// A whole file that is still being written; only its complete lines count.
    ///
    /// # Errors
    /// As [`Watch::feed`].
    pub fn writing(&mut self, path: &str, content: &str) -> Result<(), Stop> {
        let Some(content) = last_may_be_lazy(content) else { return Ok(()) };
        self.leaves_out(&whole(path, content.as_bytes()))
    }

    /// Refuses a patch whose lines so far stand for code that it leaves out.
    fn leaves_out(&mut self, patch: &FilePatch) -> Result<(), Stop> {
        let path = patch.from.as_ref().unwrap_or(&patch.path);
        self.open(path)?;
        let file = match &self.files[path] {
            Looked::File(file) => Some(file.borrow_owner().as_slice()),
            Looked::Nothing => None,
            Looked::Unknown => return Ok(()),
        };
        let hunk = if patch.hunks.is_empty() { 0 } else { self.hunks + 1 };
        match lazy::refusal_so_far(file, patch) {
            Some(refused) => Err(Stop { path: path.clone(), why: Why::Lines(refused.hunk(hunk, 0)) }),
            None => Ok(()),
        }
    }

    /// A search and its replacement.
    fn replaced(&mut self, patch: &FilePatch) -> Result<(), Stop> {
        self.leaves_out(patch)?;
        if patch.hunks.is_empty() {
            self.made.push(patch.path.clone());
        }
        if self.made.contains(&patch.path) { Ok(()) } else { self.judge(patch) }
    }

    /// The last line is complete.
    fn line(&mut self) -> Result<(), Stop> {
        if matches!(self.reading, Reading::Unknown) {
            self.reading = self.begin();
        }
        let mut reading = std::mem::replace(&mut self.reading, Reading::Over);
        let going_on = match &mut reading {
            Reading::Unknown => Ok(true),
            Reading::Over => Ok(false),
            Reading::Unified(reader) => reader.line(self),
            Reading::Envelope(reader) => reader.line(self),
            Reading::Blocks(reader) => reader.line(self),
        }?;
        if going_on {
            self.reading = reading;
        }
        Ok(())
    }

    /// The dialect, by the lines so far: the first that can only be one.
    fn begin(&self) -> Reading {
        if self.lines.iter().any(|line| line.trim_start().starts_with(['[', '{'])) {
            return Reading::Over; // perhaps a list of edits, which is one when it is whole
        }
        let last: Vec<&str> =
            self.lines[self.lines.len().saturating_sub(2)..].iter().map(String::as_str).collect();
        // A header of two lines is known at its second.
        let dialect = detect(&last.join("\n"));
        let at = self.lines.len() - 1;
        if dialect.is_some() && self.lines[at].starts_with([' ', '\t']) {
            return Reading::Over; // indented as a whole, perhaps: known when it is whole
        }
        match dialect {
            None | Some(Dialect::Edits | Dialect::WholeFile) => Reading::Unknown,
            Some(Dialect::Unified) => Reading::Unified(unified::Reader::new(at)),
            Some(Dialect::Envelope) => Reading::Envelope(envelope::Reader::default()),
            Some(Dialect::SearchReplace) => Reading::Blocks(blocks::Reader::default()),
        }
    }

    fn text(&self, range: std::ops::Range<usize>) -> String {
        self.lines[range].iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Looks at a file that the patch names; a path that may not be written is refused.
    fn open(&mut self, path: &str) -> Result<(), Stop> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        let looked = match (self.look)(path) {
            Look::File(bytes) => Looked::File(Box::new(File::new(bytes, |bytes| Index::of(bytes)))),
            Look::Nothing => Looked::Nothing,
            Look::Unknown => Looked::Unknown,
            Look::Refused(why) => return Err(Stop { path: path.to_owned(), why: Why::Path(why) }),
        };
        self.files.insert(path.to_owned(), looked);
        Ok(())
    }

    /// Judges a hunk that is complete.
    fn judge(&mut self, patch: &FilePatch) -> Result<(), Stop> {
        let path = patch.from.as_ref().unwrap_or(&patch.path);
        self.open(path)?;
        if self.made.contains(path) {
            return Ok(());
        }
        let stop = |why| Err(Stop { path: path.clone(), why });
        match &self.files[path] {
            Looked::Unknown => Ok(()),
            Looked::Nothing if patch.creates() => Ok(()),
            Looked::Nothing => stop(Why::Missing),
            Looked::File(file) => {
                for hunk in &patch.hunks {
                    self.hunks += 1;
                    let index = file.borrow_dependent();
                    let meant = settle_one(index, hunk, patch.dialect);
                    let meant = meant.as_ref().map(|meant| meant.as_ref().unwrap_or(hunk));
                    match meant.map_err(Clone::clone).and_then(|hunk| candidates(index, hunk, patch.dialect))
                    {
                        // In too many or in several places: other hunks may tell which.
                        Ok(_) | Err(Refused { kind: Kind::Ambiguous, .. }) => {}
                        Err(_) if is_new(&self.added, path, index, &body(hunk)) => {}
                        Err(refused) => return stop(Why::Lines(refused.hunk(self.hunks, 0))),
                    }
                    let added = self.added.entry(path.clone()).or_default();
                    for line in hunk.lines.iter().filter(|line| line.mark == Mark::Add) {
                        added.push_str(&String::from_utf8_lossy(&line.text));
                        added.push('\n');
                    }
                }
                Ok(())
            }
        }
    }

    /// Judges the first lines of a hunk.
    fn judge_beginning(&mut self, patch: &FilePatch) -> Result<(), Stop> {
        let path = patch.from.as_ref().unwrap_or(&patch.path);
        self.open(path)?;
        let beginning = |hunk| {
            let body = body(hunk);
            !old(&body).is_empty()
        };
        match &self.files[path] {
            Looked::File(file)
                if patch
                    .hunks
                    .iter()
                    .any(|hunk| beginning(hunk) && !possible(file.borrow_dependent(), &body(hunk), None)) =>
            {
                self.judge(patch)
            }
            Looked::Nothing => self.judge(patch),
            Looked::File(_) | Looked::Unknown => Ok(()),
        }
    }
}

/// Whether a line that is looked for is not in the file but in what hunks before have added to it.
fn is_new(added: &HashMap<String, String>, path: &str, index: &Index<'_>, body: &Body<'_>) -> bool {
    let Some(added) = added.get(path) else { return false };
    old(body).iter().any(|line| {
        let line = String::from_utf8_lossy(line.trim_ascii());
        !line.is_empty() && index.count_of(line.as_bytes()) == 0 && added.contains(&*line)
    })
}

/// The complete lines of a text, up to the last one that may be a placeholder.
fn last_may_be_lazy(text: &str) -> Option<&str> {
    let text = &text[..text.rfind('\n')? + 1];
    let last = text.lines().rev().find(|line| lazy::may_be(line))?;
    let end = last.as_ptr() as usize - text.as_ptr() as usize + last.len();
    Some(&text[..end])
}

/// Whether a hunk that begins with these lines can stand anywhere on any rung. `text` is what is searched within lines so far.
fn possible(index: &Index<'_>, body: &Body<'_>, text: Option<&[u8]>) -> bool {
    let stands = |body: &Body<'_>| {
        let lines = old(body);
        !index.runs(&lines).is_empty()
            || context::may_align(index, body)
            || !index.squeezed_runs(&lines).is_empty()
    };
    let within =
        |text: &[u8]| memchr::memmem::find(index.lines.bytes, &index.lines.with_endings(text)).is_some();
    text.is_some_and(within) || stands(body) || unnumbered(body).is_some_and(|(body, _)| stands(&body))
}
