//! Checks a call while the model is still writing it: whether its paths are valid, and whether its
//! lines can match the files.

use std::borrow::Cow;
use std::sync::Arc;

use patch::{Dialect, EarlyRefusal, PathState, RefusalCause, Watch};
use secrets::Secrets;
use tool_api::{Follow, ToolError};
use workspace::{PathError, ReadError, Workspace};

use crate::refusal::{Misses, Why, refused};
use crate::{has_tokens, paths};

/// Checks one call while it is streaming in.
pub(crate) struct Following {
    workspace: Workspace,
    misses: Arc<Misses>,
    secrets: Secrets,
    watch: Watch,
    /// Whether the patch is complete. Another patch may still follow: if the model repeats the key,
    /// the last value wins.
    over: bool,
    /// The current line so far, if the model writes text as an array of lines.
    line: String,
    edit: Edit,
    whole: WholeFile,
}

/// The whole file that the model is writing.
#[derive(Default)]
struct WholeFile {
    path: Text,
    content: Text,
}

/// The edit that the model is writing.
#[derive(Default)]
struct Edit {
    number: String,
    path: Text,
    search: Text,
    replace: Text,
}

/// Text that the model is writing.
#[derive(Default)]
struct Text {
    text: String,
    closed: bool,
}

impl Following {
    pub(crate) fn new(workspace: Workspace, misses: Arc<Misses>, secrets: Secrets) -> Self {
        let watch = watch(&workspace, &secrets);
        Self {
            workspace,
            misses,
            secrets,
            watch,
            over: false,
            line: String::new(),
            edit: Edit::default(),
            whole: WholeFile::default(),
        }
    }

    /// Adds text to the patch. `first` is true if the text is the first element of an array.
    fn patch(&mut self, text: &str, first: bool, closed: bool) -> Result<(), EarlyRefusal> {
        if std::mem::replace(&mut self.over, closed) || first {
            self.watch = watch(&self.workspace, &self.secrets);
        }
        self.watch.feed(text)
    }

    fn stopped(&self, stop: &EarlyRefusal, dialect: Dialect) -> String {
        let why = match (&stop.cause, self.workspace.target(&stop.path)) {
            (RefusalCause::Path(message), _) => Why::plain(message.clone()),
            (_, Err(e)) => e.into(),
            (RefusalCause::Missing, Ok(path)) => match self.workspace.resolve(path.as_str()) {
                Err(e) => e.into(),
                Ok(path) => Why::plain(format!("{path} does not exist")),
            },
            (RefusalCause::Lines(why), Ok(path)) => Why::of(path, why, dialect),
        };
        match refused(&self.workspace, &self.misses, &self.secrets, why) {
            ToolError::Model(message) | ToolError::Run(message) => message,
        }
    }

    /// Adds text to a field of an edit. The field is, for example, `search`, or `search/0` for the
    /// first element of an array.
    fn edit(&mut self, number: &str, field: &str, text: &str, closed: bool) -> Result<(), EarlyRefusal> {
        if self.edit.number != number {
            self.edit = Edit { number: number.to_owned(), ..Edit::default() };
        }
        let (name, element) = field.split_once('/').map_or((field, false), |(name, _)| (name, true));
        let Some(known) = self.edit.text(name) else { return Ok(()) };
        // If the model repeats a key, or begins a second array of search lines, the edit starts
        // over.
        if known.closed || field == "search/0" && !known.text.is_empty() && self.line.is_empty() {
            self.edit = Edit { number: number.to_owned(), ..Edit::default() };
        }
        let Some(Text { text: value, closed: known }) = self.edit.text(name) else { return Ok(()) };
        if element {
            // More lines of the array may follow, so the value counts as complete only at the end
            // of the call.
            self.line.push_str(text);
            if closed {
                // Add a newline only before the next element: like a string, an array may end in
                // the middle of a line.
                if !value.is_empty() {
                    value.push('\n');
                }
                value.push_str(self.line.strip_suffix('\n').unwrap_or(&self.line));
                self.line.clear();
            }
        } else {
            value.push_str(text);
            *known = closed;
        }
        let Edit { path, search, replace, .. } = &self.edit;
        match (name, path.closed, search.closed, replace.closed) {
            (_, true, true, true) => self.watch.feed_edit(&path.text, &search.text, &replace.text),
            ("replace", true, true, false) if !element => {
                self.watch.feed_replacement(&path.text, &search.text, &replace.text)
            }
            ("path" | "search", true, ..) => self.watch.feed_search(&path.text, &search.text),
            _ => Ok(()),
        }
    }

    /// Adds text to the path or the content of a whole file. If a key is repeated, the last value
    /// wins.
    fn whole(&mut self, name: &str, text: &str, closed: bool) -> Result<(), EarlyRefusal> {
        let WholeFile { path, content } = &mut self.whole;
        let value = if name == "path" { &mut *path } else { &mut *content };
        if std::mem::replace(&mut value.closed, closed) {
            value.text.clear();
        }
        value.text.push_str(text);
        match name {
            "content" if path.closed && text.contains('\n') => {
                self.watch.feed_whole_file(&path.text, &content.text)
            }
            _ => Ok(()),
        }
    }
}

impl Edit {
    fn text(&mut self, name: &str) -> Option<&mut Text> {
        match name {
            "path" => Some(&mut self.path),
            "search" => Some(&mut self.search),
            "replace" => Some(&mut self.replace),
            _ => None,
        }
    }
}

impl Follow for Following {
    fn text(&mut self, path: &str, text: &str, closed: bool) -> Result<(), String> {
        let mut parts = path.splitn(3, '/');
        let (judged, dialect) = match (parts.next(), parts.next(), parts.next()) {
            (Some("patch"), None, None) => (self.patch(text, false, closed), Dialect::Unified),
            (Some("patch"), Some(element), None) => {
                self.line.push_str(text);
                if !closed {
                    return Ok(());
                }
                let line = std::mem::take(&mut self.line);
                let line = format!("{}\n", line.strip_suffix('\n').unwrap_or(&line));
                (self.patch(&line, element == "0", false), Dialect::Unified)
            }
            (Some(name @ ("path" | "content")), None, None) => {
                (self.whole(name, text, closed), Dialect::WholeFile)
            }
            (Some("edits"), Some(number), Some(field)) => {
                (self.edit(number, field, text, closed), Dialect::Edits)
            }
            _ => return Ok(()),
        };
        judged.map_err(|stop| self.stopped(&stop, dialect))
    }
}

fn watch(workspace: &Workspace, secrets: &Secrets) -> Watch {
    let (tree, secrets) = (workspace.clone(), secrets.clone());
    Watch::new(None, move |path| look(&tree, &secrets, path))
}

/// Looks up a path from a patch.
fn look(workspace: &Workspace, secrets: &Secrets, path: &str) -> PathState {
    if let Some(message) = paths::refusal(workspace, path) {
        return PathState::Refused(message);
    }
    if paths::may_be_decorated(path) {
        return PathState::Unknown;
    }
    let target = match workspace.target(path) {
        Ok(target) => target,
        Err(e) => return PathState::Refused(e.to_string()),
    };
    match workspace.read(&target) {
        // Only the complete patch shows whether a notebook is edited as cells or as JSON.
        Ok(file) if file.is_notebook() => PathState::Unknown,
        // Only the complete patch shows whether the model writes a placeholder or its value.
        Ok(file) if matches!(secrets.mask_bytes(file.text()), Cow::Owned(_)) => PathState::Unknown,
        // The model sees an altered form of control tokens, so wait for the complete patch.
        Ok(file) if has_tokens(file.text()) => PathState::Unknown,
        Ok(file) if file.is_plain() => PathState::File(file.into_bytes()),
        Ok(file) => PathState::File(file.text().to_vec()),
        Err(ReadError::Path(PathError::NotFound { .. })) => PathState::Nothing,
        Err(_) => PathState::Unknown,
    }
}
