//! Checks a patch while it is being streamed, and refuses it as soon as no continuation could make
//! it apply.
//!
//! The checks use the same code as [`apply`](crate::apply()). A complete hunk is parsed and
//! matched. For an incomplete hunk, the lines received so far are matched ([`may_match`]). If later
//! text could change the meaning of a line, no verdict is given: a patch that would apply is never
//! refused here.

mod blocks;
mod envelope;
mod unified;

use std::collections::HashMap;

use self_cell::self_cell;

use crate::{
    Dialect, FilePatch, Mark, Refusal, RefusalKind,
    body::{Body, body, old},
    context, detect, edits, feedback,
    index::Index,
    ladder::unnumbered,
    lazy,
    lines::bare,
    place::candidates,
    readings::resolve_one,
    shell, whole_file,
};

/// Maximum length, in lines, of an incomplete hunk that is checked after each line. Longer hunks
/// are checked only when complete, since each check looks at all of a hunk's lines.
const BEGINNING: usize = 200;

self_cell!(
    struct File {
        owner: Vec<u8>,
        #[covariant]
        dependent: Index,
    }
);

/// The state of a path named in a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// A file with this content.
    File(Vec<u8>),
    /// Nothing, so a file can be created here.
    Nothing,
    /// Something that can be judged only when the patch is complete.
    Unknown,
    /// A path that must not be written, and why.
    Refused(String),
}

/// The refusal of an incomplete patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyRefusal {
    /// The file, as named in the patch.
    pub path: String,
    /// The reason.
    pub cause: RefusalCause,
}

/// Why an incomplete patch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalCause {
    /// The path must not be written.
    Path(String),
    /// The patch changes a file that does not exist.
    Missing,
    /// The lines of the patch do not match the file, or one of them is a placeholder.
    Lines(Refusal),
}

/// Checks a patch while it is being streamed.
pub struct Watch {
    look: Box<dyn FnMut(&str) -> PathState + Send>,
    files: HashMap<String, Looked>,
    /// Files that the patch creates; later hunks may change them.
    created: Vec<String>,
    /// The lines added by complete hunks, for each file. Later hunks may change these lines.
    added: HashMap<String, String>,
    hunks: usize,
    path: Option<String>,
    /// The complete lines, without their newlines.
    lines: Vec<String>,
    /// The incomplete last line.
    rest: String,
    /// The word that ends the heredoc around the patch.
    heredoc: Option<String>,
    state: State,
}

enum State {
    Unknown,
    Unified(unified::Reader),
    Envelope(envelope::Reader),
    Blocks(blocks::Reader),
    /// No further checks are possible until the patch is complete.
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
    /// Creates a watch. `look` returns the state of a path and is called once per path; `path` is
    /// the default for a patch that does not name a file.
    pub fn new(path: Option<String>, look: impl FnMut(&str) -> PathState + Send + 'static) -> Self {
        Self {
            look: Box::new(look),
            files: HashMap::new(),
            created: Vec::new(),
            added: HashMap::new(),
            hunks: 0,
            path,
            lines: Vec::new(),
            rest: String::new(),
            heredoc: None,
            state: State::Unknown,
        }
    }

    /// Adds the next piece of the patch. A piece may end anywhere, even within a line.
    ///
    /// # Errors
    /// Fails if the patch will be refused no matter what follows. Do not call this again after an
    /// error.
    pub fn feed(&mut self, text: &str) -> Result<(), EarlyRefusal> {
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

    /// Adds the part of an edit's search text that has been received so far. It is not yet known
    /// which lines of the search the replacement will keep.
    ///
    /// # Errors
    /// Same as [`Watch::feed`].
    pub fn feed_search(&mut self, path: &str, search: &str) -> Result<(), EarlyRefusal> {
        self.open(path)?;
        let long = memchr::memchr_iter(b'\n', search.as_bytes()).nth(BEGINNING).is_some();
        if long || search.trim().is_empty() || self.created.iter().any(|created| created == path) {
            return Ok(());
        }
        if search.lines().any(lazy::is_elision) {
            return Ok(()); // only the complete edit shows what the dots stand for
        }
        let hunk = self.hunks + 1;
        match &self.files[path] {
            Looked::Unknown => Ok(()),
            Looked::Nothing => refuse(path, RefusalCause::Missing),
            Looked::File(file) => {
                let index = file.borrow_dependent();
                let body = search.split_terminator('\n').map(|l| (Mark::Keep, bare(l.as_bytes()))).collect();
                if may_match(index, &body, Some(search.as_bytes())) || is_new(&self.added, path, index, &body)
                {
                    return Ok(());
                }
                refuse(path, RefusalCause::Lines(feedback::not_found(index, &body, None).hunk(hunk, 0)))
            }
        }
    }

    /// Adds a complete edit.
    ///
    /// # Errors
    /// Same as [`Watch::feed`].
    pub fn feed_edit(&mut self, path: &str, search: &str, replace: &str) -> Result<(), EarlyRefusal> {
        edits([(path, search, replace)]).iter().try_for_each(|patch| self.replaced(patch))
    }

    /// Adds an edit with an incomplete replacement. Checks the complete lines of the replacement
    /// for placeholders.
    ///
    /// # Errors
    /// Same as [`Watch::feed`].
    pub fn feed_replacement(&mut self, path: &str, search: &str, replace: &str) -> Result<(), EarlyRefusal> {
        let Some(replace) = up_to_placeholder(replace) else { return Ok(()) };
        self.check_placeholders(&edits([(path, search, replace)]))
    }

    /// Adds an incomplete whole file. Checks its complete lines for placeholders.
    ///
    /// # Errors
    /// Same as [`Watch::feed`].
    pub fn feed_whole_file(&mut self, path: &str, content: &str) -> Result<(), EarlyRefusal> {
        let Some(content) = up_to_placeholder(content) else { return Ok(()) };
        self.check_placeholders(&[whole_file(path, content.as_bytes())])
    }

    /// Refuses incomplete patches that add a placeholder.
    fn check_placeholders(&mut self, patches: &[FilePatch]) -> Result<(), EarlyRefusal> {
        patches.iter().try_for_each(|patch| self.check_placeholder(patch))
    }

    fn check_placeholder(&mut self, patch: &FilePatch) -> Result<(), EarlyRefusal> {
        let path = patch.from.as_ref().unwrap_or(&patch.path);
        self.open(path)?;
        let file = match &self.files[path] {
            Looked::File(file) => Some(file.borrow_owner().as_slice()),
            Looked::Nothing => None,
            Looked::Unknown => return Ok(()),
        };
        let hunk = if patch.hunks.is_empty() { 0 } else { self.hunks + 1 };
        match lazy::refusal(file, patch, false) {
            Some(refused) => refuse(path, RefusalCause::Lines(refused.hunk(hunk, 0))),
            None => Ok(()),
        }
    }

    fn replaced(&mut self, patch: &FilePatch) -> Result<(), EarlyRefusal> {
        self.check_placeholder(patch)?;
        if patch.hunks.is_empty() {
            self.created.push(patch.path.clone());
        }
        if self.created.contains(&patch.path) { Ok(()) } else { self.judge(patch) }
    }

    fn line(&mut self) -> Result<(), EarlyRefusal> {
        let line = self.lines.last().map_or("", String::as_str);
        if self.heredoc.as_deref().is_some_and(|word| shell::ends(line, word)) {
            // Only the complete text shows whether the following lines are part of the patch.
            self.state = State::Over;
            return Ok(());
        }
        if matches!(self.state, State::Unknown) {
            if self.heredoc.is_none() {
                self.heredoc = shell::opened(line).map(|heredoc| heredoc.word.to_owned());
            }
            self.state = self.begin();
        }
        let mut state = std::mem::replace(&mut self.state, State::Over);
        let proceed = match &mut state {
            State::Unknown => Ok(true),
            State::Over => Ok(false),
            State::Unified(reader) => reader.line(self),
            State::Envelope(reader) => reader.line(self),
            State::Blocks(reader) => reader.line(self),
        }?;
        if proceed {
            self.state = state;
        }
        Ok(())
    }

    fn begin(&self) -> State {
        if self.lines.iter().any(|line| line.trim_start().starts_with(['[', '{'])) {
            return State::Over; // may be a JSON list of edits, which is parsed when complete
        }
        let last: Vec<&str> =
            self.lines[self.lines.len().saturating_sub(2)..].iter().map(String::as_str).collect();
        // A two-line header is recognized at its second line.
        let dialect = detect(&last.join("\n"));
        let at = self.lines.len() - 1;
        if dialect.is_some() && self.lines[at].starts_with([' ', '\t']) {
            return State::Over; // only the complete patch shows whether all of it is indented
        }
        match dialect {
            None | Some(Dialect::Edits | Dialect::WholeFile) => State::Unknown,
            Some(Dialect::Unified) => State::Unified(unified::Reader::new(at)),
            Some(Dialect::Envelope) => State::Envelope(envelope::Reader::default()),
            Some(Dialect::SearchReplace) => State::Blocks(blocks::Reader::default()),
        }
    }

    fn text(&self, range: std::ops::Range<usize>) -> String {
        self.lines[range].iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Looks up a file named in the patch, and refuses a path that must not be written.
    fn open(&mut self, path: &str) -> Result<(), EarlyRefusal> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        let looked = match (self.look)(path) {
            PathState::File(bytes) => Looked::File(Box::new(File::new(bytes, |bytes| Index::of(bytes)))),
            PathState::Nothing => Looked::Nothing,
            PathState::Unknown => Looked::Unknown,
            PathState::Refused(why) => return refuse(path, RefusalCause::Path(why)),
        };
        self.files.insert(path.to_owned(), looked);
        Ok(())
    }

    /// Checks complete hunks.
    fn judge(&mut self, patch: &FilePatch) -> Result<(), EarlyRefusal> {
        let path = patch.from.as_ref().unwrap_or(&patch.path);
        self.open(path)?;
        if self.created.contains(path) {
            return Ok(());
        }
        match &self.files[path] {
            Looked::Unknown => Ok(()),
            Looked::Nothing if patch.only_adds() => Ok(()),
            Looked::Nothing => refuse(path, RefusalCause::Missing),
            Looked::File(file) => {
                for hunk in &patch.hunks {
                    self.hunks += 1;
                    let index = file.borrow_dependent();
                    let meant = resolve_one(index, hunk, patch.dialect);
                    let meant = meant.as_ref().map(|meant| meant.as_ref().unwrap_or(hunk));
                    match meant.map_err(Clone::clone).and_then(|hunk| candidates(index, hunk, patch.dialect))
                    {
                        // Other hunks may resolve an ambiguity.
                        Ok(_) | Err(Refusal { kind: RefusalKind::Ambiguous, .. }) => {}
                        Err(_) if is_new(&self.added, path, index, &body(hunk)) => {}
                        Err(refused) => {
                            return refuse(path, RefusalCause::Lines(refused.hunk(self.hunks, 0)));
                        }
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

    /// Checks hunks whose last lines have not arrived yet.
    fn judge_beginnings(&mut self, patches: &[FilePatch]) -> Result<(), EarlyRefusal> {
        for patch in patches {
            let path = patch.from.as_ref().unwrap_or(&patch.path);
            self.open(path)?;
            let fails =
                match &self.files[path] {
                    Looked::File(file) => patch.hunks.iter().map(body).any(|body| {
                        !old(&body).is_empty() && !may_match(file.borrow_dependent(), &body, None)
                    }),
                    Looked::Nothing => true,
                    Looked::Unknown => false,
                };
            if fails {
                self.judge(patch)?;
            }
        }
        Ok(())
    }
}

fn refuse(path: &str, cause: RefusalCause) -> Result<(), EarlyRefusal> {
    Err(EarlyRefusal { path: path.to_owned(), cause })
}

/// Returns whether a line that is missing from the file may have been added by an earlier hunk.
/// Only letters and digits are compared, because some rungs ignore everything else.
fn is_new(added: &HashMap<String, String>, path: &str, index: &Index<'_>, body: &Body<'_>) -> bool {
    let plain = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    let Some(added) = added.get(path).map(|added| plain(added)) else { return false };
    old(body).iter().any(|line| {
        let line = line.trim_ascii();
        let missing = !line.is_empty() && index.count_of(line) == 0;
        missing && added.contains(&plain(&String::from_utf8_lossy(line)))
    })
}

/// Returns the complete lines of the text up to and including the last line that may be a
/// placeholder; `None` if there is no such line.
fn up_to_placeholder(text: &str) -> Option<&str> {
    let text = &text[..text.rfind('\n')? + 1];
    let last = text.lines().rev().find(|line| lazy::is_elision(line))?;
    let end = last.as_ptr() as usize - text.as_ptr() as usize + last.len();
    Some(&text[..end])
}

/// Returns whether some rung may match a hunk that begins with these lines. If they come from a
/// search text that is still incomplete, `text` is the part received so far, which may also match
/// within lines.
fn may_match(index: &Index<'_>, body: &Body<'_>, text: Option<&[u8]>) -> bool {
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
