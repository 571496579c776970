//! Parses the head of a call: everything between its opening token and its arguments.

use crate::event::{Event, Malformed};
use crate::markup::{CONTAINERS, Closer};
use crate::object::Named;
use crate::parser::{Flow, Mode, Parser};
use crate::python;
use crate::tags::{Plain, Tag, literal, plain_element};
use crate::window::Window;

/// An opened call whose arguments have not begun yet.
#[derive(Debug)]
pub(crate) struct Head {
    /// Offset of the call's first byte.
    pub(crate) start: usize,
    /// Offset just past the most recent token.
    segment: usize,
    /// The text before the most recent token, which may be the tool's name.
    before: String,
    separated: bool,
    /// Whether the head began with a token that is used only in calls. If not, the head may turn
    /// out to be prose.
    pub(crate) certain: bool,
}

impl Head {
    pub(crate) fn new(start: usize, segment: usize, certain: bool) -> Head {
        Head { start, segment, before: String::new(), separated: false, certain }
    }

    /// Creates a head whose name has already been read.
    pub(crate) fn named(start: usize, segment: usize, tool: String) -> Head {
        Head { before: tool, separated: true, ..Head::new(start, segment, false) }
    }

    /// Returns true if a single word follows the opening token.
    pub(crate) fn one_word(&self, win: Window<'_>) -> bool {
        one_word(&String::from_utf8_lossy(win.from(self.segment)))
    }

    /// Returns true if nothing follows the opening token yet.
    pub(crate) fn is_empty(&self, win: Window<'_>) -> bool {
        !self.separated && blank(win.from(self.segment))
    }
}

/// The maximum number of bytes between two tokens of a head.
const MAX_HEAD: usize = 512;

impl Parser {
    pub(crate) fn head(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        if self.pos - head.segment > MAX_HEAD {
            return self.reject_head(out);
        }
        match byte {
            b'{' => self.arguments_begin(win, out),
            b'(' => {
                if let python::Head::Found { tool, open } = python::head(win, head.segment)
                    && open == self.pos
                {
                    let start = head.start;
                    self.python = true;
                    return self.python_arguments(&tool, start, open);
                }
                self.advance(1)
            }
            b'[' | b']' | 0xE2 => {
                let first = byte != 0xE2 && blank(win.slice(head.segment, self.pos));
                match literal(win.from(self.pos), win.eof) {
                    None => Flow::More,
                    Some((Some(Tag::Between), len)) if byte != b']' => self.between(win, len),
                    Some((Some(Tag::Noise), len)) if byte == b']' && first => {
                        self.pos += len;
                        head.segment = self.pos;
                        Flow::Go
                    }
                    // No name: a list of calls follows.
                    _ if byte == b'[' && first => {
                        self.python = true;
                        self.mode = Mode::Text;
                        Flow::Go
                    }
                    _ => self.advance(1),
                }
            }
            b'<' => self.tag_in_head(win, out),
            _ => self.advance(1),
        }
    }

    fn between(&mut self, win: Window<'_>, len: usize) -> Flow {
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        // Text between two separators is an id or the format of the arguments, not the name.
        if tool_name(&head.before).is_none() || !head.separated {
            head.before = String::from_utf8_lossy(win.slice(head.segment, self.pos)).into_owned();
        }
        head.separated = true;
        self.pos += len;
        head.segment = self.pos;
        Flow::Go
    }

    fn arguments_begin(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        let segment = String::from_utf8_lossy(win.slice(head.segment, self.pos)).into_owned();
        // Several words cannot be the head of a call, unless they include a code fence: after the
        // name, DeepSeek R1 opens a fence labeled with the format of the arguments.
        let words = segment.split_whitespace().count();
        if !head.separated && words > 1 && !segment.contains("```") {
            return self.reject_head(out);
        }
        let named = tool_name(&segment).filter(|_| !head.separated || tool_name(&head.before).is_none());
        let named = match (named, tool_name(&head.before)) {
            // In `function<sep>read_file`, the name comes after the separator; otherwise, it comes
            // before.
            (_, Some(before)) if head.separated && (before != "function" || segment.trim().is_empty()) => {
                Some(before)
            }
            (Some(named), _) => Some(named),
            (None, before) => tool_name(&segment).or(before),
        };
        let start = head.start;
        self.skip_closing_fence = segment.contains("```");
        self.shown = self.pos;
        self.announced = true;
        let named = named.map(|tool| Named { tool: self.options.bare_name(&tool), start });
        self.begin(self.pos, Some(true), named);
        Flow::Go
    }

    fn tag_in_head(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some((tag, len)) = self.tag_here(win) else { return Flow::More };
        self.cut_tag = win.eof && len == 0;
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        let segment = String::from_utf8_lossy(win.slice(head.segment, self.pos)).into_owned();
        let after = self.pos + len;
        match tag {
            None => self.element_in_head(win, len, &segment),
            Some(Tag::Between) => self.between(win, len),
            Some(Tag::Key) => match tool_name(&segment).or_else(|| tool_name(&head.before)) {
                Some(tool) => self.elements(&tool, after, true),
                None => {
                    let at = self.pos;
                    self.fail(Malformed::NoName, at, out);
                    Flow::Go
                }
            },
            Some(Tag::KeyEnd) => match self.key_in_head(win, &segment) {
                Some((tool, from)) => self.elements(&tool, from, true),
                None => self.reject_head(out),
            },
            Some(Tag::Open { .. }) if tool_name(&segment).is_some() => self.between(win, len),
            Some(Tag::CallEnd) => self.without_arguments(&segment, after, out),
            Some(Tag::Invoke { .. } | Tag::Open { .. } | Tag::List | Tag::ListEnd)
                if blank_text(&segment) =>
            {
                self.mode = Mode::Text;
                Flow::Go
            }
            Some(Tag::Parameter { .. }) if tool_name(&segment).is_some() && one_word(&segment) => {
                let tool = tool_name(&segment).unwrap_or_default();
                let at = self.pos;
                self.elements(&tool, at, false)
            }
            Some(_) => self.reject_head(out),
        }
    }

    /// Handles a head that ends at the closing tag of the first key, whose opening tag is missing
    /// or is a different tag. Returns the tool and the offset of the key.
    fn key_in_head(&self, win: Window<'_>, segment: &str) -> Option<(String, usize)> {
        let Mode::Head(head) = &self.mode else { return None };
        if let Some(tool) = tool_name(&head.before).filter(|_| head.separated) {
            return Some((tool, head.segment));
        }
        // Count raw bytes, because invalid UTF-8 changes the length of the text.
        let raw = win.slice(head.segment, self.pos).trim_ascii_start();
        let start = self.pos - raw.len();
        if segment.split_whitespace().count() == 2 {
            let word = raw.iter().take_while(|b| !b.is_ascii_whitespace()).count();
            return Some((tool_name(segment).unwrap_or_default(), start + word));
        }
        // The key is attached to the name: `read_filepath</arg_key>`.
        let word = Some(segment.trim()).filter(|_| one_word(segment))?;
        let known = self.options.known_tools.iter().flatten();
        let tool = known.filter(|tool| word.starts_with(tool.as_str())).max_by_key(|tool| tool.len())?;
        (tool.len() < word.len()).then(|| (tool.clone(), start + tool.len()))
    }

    /// Handles an element that is not in the tables in `dialects.rs`. It may hold the tool's name
    /// or the arguments, or it may be named after a tool and appear inside another family's tokens.
    fn element_in_head(&mut self, win: Window<'_>, len: usize, segment: &str) -> Flow {
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        let element = plain_element(win.slice(self.pos, self.pos + len));
        let named = tool_name(&head.before).filter(|_| head.separated && blank_text(segment));
        match (element, named) {
            (Some(("name" | "tool_name" | "function_name", Plain::Open)), _) if blank_text(segment) => {
                self.between(win, len)
            }
            (Some(("name" | "tool_name" | "function_name", Plain::Close)), _) => self.between(win, len),
            (Some((name, Plain::Open)), Some(_)) if CONTAINERS.contains(&name) => self.between(win, len),
            (Some((_, Plain::Open)), Some(tool)) => {
                let at = self.pos;
                self.elements(&tool, at, false)
            }
            (Some((name, Plain::Open | Plain::Empty)), None)
                if blank_text(segment) && self.options.knows(name) =>
            {
                self.announced = false;
                self.mode = Mode::Text;
                self.line_has_text = false;
                Flow::Go
            }
            _ => {
                self.pos += len.max(1);
                Flow::Go
            }
        }
    }

    fn elements(&mut self, tool: &str, pos: usize, in_key: bool) -> Flow {
        let Mode::Head(head) = &self.mode else { return Flow::Go };
        self.begin_invoke(tool, head.start, pos, Closer::Wrapper, in_key)
    }

    /// Completes a call without arguments.
    fn without_arguments(&mut self, segment: &str, after: usize, out: &mut Vec<Event>) -> Flow {
        let Mode::Head(head) = &mut self.mode else { return Flow::Go };
        let name = match tool_name(segment) {
            Some(name) if one_word(segment) => Some(name),
            None => tool_name(&head.before).filter(|_| one_word(&head.before)),
            Some(_) => None,
        };
        let Some(tool) = name.filter(|name| name != "function") else { return self.reject_head(out) };
        let tool = self.options.bare_name(&tool);
        let start = head.start;
        self.emit_empty_call(tool, start, after, out);
        Flow::Go
    }

    fn reject_head(&mut self, out: &mut Vec<Event>) -> Flow {
        let Mode::Head(head) = &self.mode else { return Flow::Go };
        if head.certain {
            out.push(Event::Malformed { why: Malformed::NotJson, at: self.pos });
            self.shown = self.pos;
        }
        self.announced = false;
        self.python = false;
        self.mode = Mode::Text;
        Flow::Go
    }
}

fn blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

fn blank_text(text: &str) -> bool {
    blank(text.as_bytes())
}

fn one_word(text: &str) -> bool {
    text.split_whitespace().count() == 1
}

/// Returns the tool's name from the text before its arguments, without a prefix such as `call:` or
/// a suffix such as `:0`.
pub(crate) fn tool_name(text: &str) -> Option<String> {
    let word = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':');
    let word = word.strip_prefix("call:").unwrap_or(word);
    let end = word.find(|c: char| !(c.is_alphanumeric() || "_-./:".contains(c))).unwrap_or(word.len());
    let mut name = word[..end].trim_end_matches(':');
    if let Some((bare, index)) = name.rsplit_once(':')
        && (index.chars().all(|c| c.is_ascii_digit()) || index.starts_with("call"))
    {
        name = bare;
    }
    if name.is_empty() { None } else { Some(name.to_owned()) }
}
