//! Calls as Python writes them: `read_file(path="a.py")`.
//!
//! They count inside a family's tokens and in a fence of `tool_code`. Without either, an answer counts
//! that is nothing but such calls of known tools, once it has ended.

use crate::event::{Call, End, Event, Malformed, Options};
use crate::object::Named;
use crate::parser::{Flow, Mode, Parser};
use crate::window::Window;

/// What stands where a call may begin.
pub(crate) enum Head {
    None,
    /// More bytes are needed to say.
    More,
    /// The tool's name with its dots, and the offset of the opening bracket.
    Found {
        tool: String,
        open: usize,
    },
}

/// Bytes from the start of a call to its bracket, at most.
pub(crate) const MAX_HEAD: usize = 160;

/// Whether an answer that begins so may be a call: by its first word, as far as it is there.
pub(crate) fn may_begin(answer: &[u8]) -> bool {
    let word = answer.strip_prefix(b"[").unwrap_or(answer).trim_ascii_start();
    let len = word.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
    len < MAX_HEAD && word.get(len).is_none_or(|next| *next == b'(')
}

/// The head of the call that begins at `at`, behind blanks.
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

/// The brackets that are open in a call as Python writes it, and the string that is.
#[derive(Debug, Default)]
pub(crate) struct Brackets {
    open: usize,
    /// The quote, and whether it is tripled.
    string: Option<(u8, bool)>,
}

impl Parser {
    /// Whether the answer begins with a call of a known tool as Python writes it; `None` if more bytes
    /// are needed to say.
    pub(crate) fn begins_in_python(&self, win: Window<'_>, byte: u8) -> Option<bool> {
        let may = self.options.known_tools.is_some()
            && !self.innermost
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

    /// What stands in the strings of such a call is no call: text up to its closing bracket. Whether it
    /// is one shows when the answer has ended ([`calls`]).
    pub(crate) fn python_answer(&mut self, win: Window<'_>) -> Flow {
        while let Some(byte) = win.get(self.pos) {
            let Mode::Python(brackets) = &mut self.mode else { return Flow::Go };
            let mut len = 1;
            match (brackets.string, byte) {
                (Some(_), b'\\') => len = 2,
                (None, b'"' | b'\'') => {
                    let rest = win.from(self.pos);
                    if rest.len() < 3 && !win.eof {
                        return Flow::More;
                    }
                    let tripled = rest.len() >= 3 && rest[1] == byte && rest[2] == byte;
                    brackets.string = Some((byte, tripled));
                    len = if tripled { 3 } else { 1 };
                }
                (Some((quote, false)), _) if byte == quote => brackets.string = None,
                (Some((quote, true)), _) if byte == quote => {
                    let rest = win.from(self.pos);
                    if rest.len() < 3 && !win.eof {
                        return Flow::More;
                    }
                    if rest.len() >= 3 && rest[1] == byte && rest[2] == byte {
                        brackets.string = None;
                        len = 3;
                    }
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

    /// A word where a call as Python writes it may begin.
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
                let told = self.fence.is_some() && !self.behind_call && !self.announced && !self.listed;
                if told && !self.is_call(self.pos, false) {
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
        self.begin_python(open, named);
        Flow::Go
    }
}

/// The calls of an answer that is nothing but calls of known tools, none if it is anything else; an
/// error if it was meant as such.
pub(crate) fn calls(answer: &[u8], options: &Options) -> Result<Vec<Call>, Malformed> {
    let text = answer.trim_ascii();
    let list = usize::from(text.starts_with(b"["));
    let win = Window { bytes: text, base: 0, eof: true };
    match head(win, list) {
        Head::Found { tool, .. } if options.knows(&options.bare_name(&tool)) => {}
        _ => return Ok(Vec::new()),
    }
    let inner = text[list..].strip_suffix(b"]").filter(|_| list == 1);
    let mut parser = Parser::new(Options { whole_file: false, followed: Vec::new(), ..options.clone() });
    parser.innermost = true;
    parser.python = true;
    parser.behind_call = true;
    let mut events = Vec::new();
    parser.feed(inner.unwrap_or(&text[list..]), &mut events);
    parser.finish(End::Stop, &mut events);
    let offset = answer.iter().take_while(|b| b.is_ascii_whitespace()).count() + list;
    let (mut calls, mut prose) = (Vec::new(), false);
    for event in events {
        match event {
            Event::CallComplete(mut call) => {
                prose |= !options.knows(&call.tool);
                call.start += offset;
                call.end += offset;
                calls.push(call);
            }
            // In a sentence about the call its brackets are not the last thing.
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
