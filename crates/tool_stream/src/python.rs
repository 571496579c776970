//! Calls written in Python syntax: `read_file(path="a.py")`.
//!
//! Inside a family's tokens or a `tool_code` fence, such text is a call. Elsewhere it is a call
//! only if the whole answer consists of such calls to known tools. The parser decides this at the
//! end of the answer.

use crate::event::{Call, Event, Malformed, Options};
use crate::json::Syntax;
use crate::object::{Candidate, Named};
use crate::parser::{Flow, Mode, Parser};
use crate::window::Window;

/// The result of looking for a call at a position.
pub(crate) enum Head {
    None,
    /// Undecided until more bytes arrive.
    More,
    /// The tool's name, including any dots, and the offset of the opening parenthesis.
    Found {
        tool: String,
        open: usize,
    },
}

/// The maximum number of bytes from the start of a call to its opening parenthesis.
pub(crate) const MAX_HEAD: usize = 160;

/// Returns whether an answer that begins with the bytes `answer` may be a call. Checks only the
/// first word, which may be incomplete.
pub(crate) fn may_begin(answer: &[u8]) -> bool {
    let word = answer.strip_prefix(b"[").unwrap_or(answer).trim_ascii_start();
    let len = word.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
    len < MAX_HEAD && word.get(len).is_none_or(|next| *next == b'(')
}

/// Looks for the head of a call at `at`: optional whitespace, the name and the opening parenthesis.
pub(crate) fn head(win: Window<'_>, at: usize) -> Head {
    let rest = win.from(at);
    let rest = &rest[..rest.len().min(MAX_HEAD)];
    let mut from = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
    loop {
        let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
        let len = rest[from..].iter().take_while(|b| word(b)).count();
        let Some(next) = rest.get(from + len) else {
            return if win.eof || rest.len() == MAX_HEAD { Head::None } else { Head::More };
        };
        let name = String::from_utf8_lossy(&rest[from..from + len]);
        if *next != b'(' || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Head::None;
        }
        if name == "print" {
            from += len + 1;
            continue;
        }
        // Llama writes `read_file.call(…)`.
        let tool = name.strip_suffix(".call").unwrap_or(&name).to_owned();
        return Head::Found { tool, open: at + from + len };
    }
}

/// Counts the open brackets of a Python call, and tracks the string that is open.
#[derive(Debug, Default)]
pub(crate) struct Brackets {
    open: usize,
    /// The quote, and whether it is a triple quote.
    string: Option<(u8, bool)>,
}

impl Parser {
    /// Returns whether the answer begins with a Python call to a known tool, or `None` if
    /// undecided.
    pub(crate) fn begins_in_python(&self, win: Window<'_>, byte: u8) -> Option<bool> {
        let may = self.options.known_tools.is_some()
            && !self.is_nested
            && !self.foreign
            && !self.announced
            && !self.listed
            && self.fence.is_none();
        if !may {
            return Some(false);
        }
        match head(win, self.pos + usize::from(byte == b'[')) {
            Head::More => None,
            Head::None => Some(false),
            Head::Found { tool, .. } => Some(self.options.knows(&self.options.bare_name(&tool))),
        }
    }

    /// Skips a Python call at the start of an answer, up to the bracket that closes the call, so
    /// that the parser never mistakes a string in it for another call. At the end of the answer,
    /// [`calls`] decides whether the answer itself is a call.
    pub(crate) fn python_answer(&mut self, win: Window<'_>) -> Flow {
        while let Some(byte) = win.get(self.pos) {
            let rest = win.from(self.pos);
            let tripled = rest.len() >= 3 && rest[1] == byte && rest[2] == byte;
            let undecided = rest.len() < 3 && !win.eof;
            let Mode::Python(brackets) = &mut self.mode else { return Flow::Go };
            let mut len = 1;
            match (brackets.string, byte) {
                (Some(_), b'\\') => len = 2,
                (None, b'"' | b'\'') if undecided => return Flow::More,
                (None, b'"' | b'\'') => {
                    brackets.string = Some((byte, tripled));
                    len = if tripled { 3 } else { 1 };
                }
                (Some((quote, false)), _) if byte == quote => brackets.string = None,
                (Some((quote, true)), _) if byte == quote && undecided => return Flow::More,
                (Some((quote, true)), _) if byte == quote && tripled => {
                    brackets.string = None;
                    len = 3;
                }
                (None, b'(' | b'[' | b'{') => brackets.open += 1,
                (None, b')' | b']' | b'}') => brackets.open = brackets.open.saturating_sub(1),
                _ => {}
            }
            if self.pos + len > win.end() && !win.eof {
                return Flow::More;
            }
            self.pos = (self.pos + len).min(win.end());
            if brackets.open == 0 && brackets.string.is_none() && matches!(byte, b')' | b']' | b'}') {
                self.mode = Mode::Text;
                return Flow::Go;
            }
        }
        Flow::More
    }

    /// Handles a word at `pos` where a Python call may begin.
    pub(crate) fn python_call(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match head(win, self.pos) {
            Head::More => Flow::More,
            Head::None => self.plain(1),
            Head::Found { tool, open } => {
                let bare = self.options.bare_name(&tool);
                if self.options.known_tools.is_some() && !self.options.knows(&bare) && self.fence.is_some() {
                    return self.plain(1);
                }
                self.show(win, self.pos, out);
                let needs_lead_in =
                    self.fence.is_some() && !self.after_call && !self.announced && !self.listed;
                if needs_lead_in && !self.is_call(self.pos, false) {
                    return self.plain(1);
                }
                self.python_arguments(&tool, self.pos, open)
            }
        }
    }

    pub(crate) fn python_arguments(&mut self, tool: &str, start: usize, open: usize) -> Flow {
        let named = Named { tool: self.options.bare_name(tool), start };
        self.shown = open;
        self.pos = open;
        let depth = self.options.max_depth;
        let candidate = Candidate::new(open, Some(true), true, Some(named), depth, Syntax::Python);
        self.mode = Mode::Object(Box::new(candidate));
        Flow::Go
    }
}

/// Returns the calls in an answer that consists only of calls to known tools. Returns an empty list
/// if the answer contains anything else, and an error if it seems to consist of calls but one of
/// them cannot be read.
pub(crate) fn calls(answer: &[u8], options: &Options) -> Result<Vec<Call>, Malformed> {
    let text = answer.trim_ascii();
    let list = usize::from(text.starts_with(b"["));
    let win = Window { bytes: text, base: 0, eof: true };
    match head(win, list) {
        Head::Found { tool, .. } if options.knows(&options.bare_name(&tool)) => {}
        _ => return Ok(Vec::new()),
    }
    let inner = text[list..].strip_suffix(b"]").filter(|_| list == 1);
    let offset = answer.iter().take_while(|b| b.is_ascii_whitespace()).count() + list;
    let (mut calls, mut prose) = (Vec::new(), false);
    for event in Parser::parse_part(inner.unwrap_or(&text[list..]), options, true) {
        match event {
            Event::CallComplete(mut call) => {
                prose |= !options.knows(&call.tool);
                call.start += offset;
                call.end += offset;
                calls.push(call);
            }
            // If the answer does not end with a bracket, it is a sentence that mentions a call.
            Event::Malformed { why, .. } => {
                let cut = matches!(why, Malformed::Truncated | Malformed::TruncatedInString);
                return match cut || inner.is_some() || text.ends_with(b")") {
                    true => Err(why),
                    false => Ok(Vec::new()),
                };
            }
            Event::Text(text) => prose |= !text.trim().is_empty(),
            _ => {}
        }
    }
    if prose {
        calls.clear();
    }
    Ok(calls)
}
