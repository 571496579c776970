//! Reads calls whose arguments are elements: `<parameter=path>`,
//! `<arg_key>path</arg_key><arg_value>`, `<path>`.
//!
//! Values are not escaped, so code in a value may contain the very tags that end it. A closing tag
//! ends the value only if it is followed by another argument, the end of the call, or the end of
//! the answer. Nested elements of the same kind are counted, so that their closing tags do not end
//! the value.
//!
//! If the answer ends inside a value, [`Invoke::resolve`] checks whether exactly one interpretation
//! remains: that the value ended at the last closing tag that could have ended it, or that the
//! model omitted the closing tag ([`Repair::MissingCloser`]).

use memchr::{memchr, memrchr};
use serde_json::{Map, Value};

use crate::event::{Event, Malformed, Repair};
use crate::literal::literal;
use crate::nested;
use crate::object::Sink;
use crate::tags::{Plain, Tag, plain_element, tag_at};
use crate::text::{Repairs, utf8};
use crate::window::{Blanks, Window};

/// A call being read from elements.
#[derive(Debug, Default)]
pub(crate) struct Invoke {
    pub(crate) tool: String,
    pub(crate) start: usize,
    /// Offset of the next byte to read.
    pub(crate) pos: usize,
    /// Index of the call, once it has been opened.
    pub(crate) call: Option<usize>,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) repairs: Repairs,
    closer: Closer,
    state: State,
    /// Whether closing tags may be missing from `pos` on.
    lenient: bool,
    /// Whether text arguments are reported while the model is still writing them.
    followed: bool,
    /// How far the tag at `pos` has been searched for its end.
    searched: usize,
}

/// The tag or token that closes the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Closer {
    /// `</invoke>`, `</function>`
    #[default]
    Element,
    /// The closing tag or token of the element around the call, such as `</tool_call>`.
    Wrapper,
    /// The closing tag with the tool's own name, such as `</read_file>`.
    Tool,
    /// No tag closes the call, because the opening tag was self-closing.
    Empty,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    /// Inside an argument's name, which begins at this offset.
    Key(usize),
    /// After an argument's name.
    KeyEnd(String),
    Value(Field),
}

/// A value being read.
#[derive(Debug)]
struct Field {
    name: String,
    kind: Kind,
    body: usize,
    /// Number of nested elements of the value's own kind that are still open. Only elements that
    /// begin a line are counted, except for [`Kind::Pair`], where all of them are.
    depth: usize,
    /// Offset of the last nested element of that kind that is still open and begins in the middle
    /// of a line.
    inline: Option<usize>,
    /// Offset of the last closing tag that could have ended the value.
    closer: Option<usize>,
    /// Offset of the first tag that may directly follow a missing closing tag.
    split: Option<usize>,
    /// The offset up to which the value has been reported, and the text reported so far.
    reported_to: usize,
    reported: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Parameter {
        string: Option<bool>,
        equals: bool,
        /// Whether the element is written with Kimi's tokens.
        kimi: bool,
    },
    Pair,
    /// An element named after the argument.
    Child,
}

/// The result of reading a call.
pub(crate) enum Outcome {
    More,
    /// The object of `<function=f>{…}</function>` begins at `pos`.
    Object,
    Complete,
    Failed(Malformed),
}

/// MiniMax M3 writes this token before each tag that is not part of a value's text.
pub(crate) const MINIMAX: &[u8] = b"]<]minimax[>[";
/// Elements that models may wrap around the arguments. They have no meaning.
pub(crate) const CONTAINERS: [&str; 7] =
    ["args", "arguments", "parameters", "params", "input", "file", "json"];

impl Invoke {
    /// Creates a call whose elements are read starting at `pos`. `in_key` means that the name of an
    /// argument begins there.
    pub(crate) fn new(
        tool: String,
        start: usize,
        pos: usize,
        closer: Closer,
        in_key: bool,
        followed: bool,
    ) -> Invoke {
        let state = if in_key { State::Key(pos) } else { State::Between };
        Invoke { tool, start, pos, closer, state, followed, searched: pos, ..Invoke::default() }
    }

    /// Returns true if only the closing tag of the call is missing.
    pub(crate) fn only_closer_missing(&self) -> bool {
        matches!(self.state, State::Between) && !self.arguments.is_empty()
    }

    pub(crate) fn in_value(&self) -> bool {
        matches!(self.state, State::Value(_))
    }

    /// Checks whether only one interpretation remains for a value that is still open. If so,
    /// prepares to read the value that way and returns `true`, and [`run`](Invoke::run) must be
    /// called again. Used at the end of an answer that the model ended on its own.
    pub(crate) fn resolve(&mut self) -> bool {
        let State::Value(field) = &mut self.state else { return false };
        if self.lenient {
            return false;
        }
        match (field.closer, field.split) {
            (Some(closer), None) => {
                (self.pos, field.depth, field.inline) = (closer, 0, None);
            }
            (_, Some(_)) => {
                self.lenient = true;
                (self.pos, field.depth, field.inline) = (field.body, 0, None);
            }
            (None, None) => return false,
        }
        self.searched = self.pos;
        true
    }

    pub(crate) fn run(&mut self, win: Window<'_>, sink: &mut Sink<'_>) -> Outcome {
        if self.closer == Closer::Empty {
            self.call = Some(sink.open(self.tool.clone()));
            return Outcome::Complete;
        }
        loop {
            let rest = win.from(self.pos);
            if let State::Between | State::KeyEnd(_) = self.state {
                let Some(blanks) = rest.iter().position(|b| !b.is_ascii_whitespace()) else {
                    self.pos = win.end();
                    return Outcome::More;
                };
                self.pos += blanks;
                match rest[blanks] {
                    b'<' => {}
                    b']' => {
                        let rest = win.from(self.pos);
                        if rest.starts_with(MINIMAX) {
                            self.pos += MINIMAX.len();
                            continue;
                        }
                        if MINIMAX.starts_with(rest) && !win.eof {
                            return Outcome::More;
                        }
                        return Outcome::Failed(Malformed::NotJson);
                    }
                    b'{' if self.arguments.is_empty() && matches!(self.state, State::Between) => {
                        return Outcome::Object;
                    }
                    // The value's opening tag is missing, but its closing tag ends the value.
                    _ => match &self.state {
                        State::KeyEnd(name) => {
                            let name = name.clone();
                            self.repairs.add(Repair::MissingCloser);
                            self.begin(name, Kind::Pair);
                            continue;
                        }
                        _ => return Outcome::Failed(Malformed::NotJson),
                    },
                }
            } else {
                let hit = memchr(b'<', rest);
                self.pos = hit.map_or(win.end(), |hit| self.pos + hit);
                self.report_lines(win, sink.out);
                if hit.is_none() {
                    return Outcome::More;
                }
            }
            let Some((tag, len)) = tag_at(win, self.pos, &mut self.searched) else { return Outcome::More };
            let bytes = win.slice(self.pos, self.pos + len);
            let call = *self.call.get_or_insert_with(|| sink.open(self.tool.clone()));
            let outcome = match &self.state {
                State::Between => self.between(win, bytes, tag),
                State::Key(body) => {
                    match tag {
                        Some(Tag::KeyEnd) => {
                            self.state = State::KeyEnd(trimmed(win.slice(*body, self.pos)));
                        }
                        // A duplicated opening tag.
                        Some(Tag::Key) if win.slice(*body, self.pos).trim_ascii().is_empty() => {
                            self.state = State::Key(self.pos + len);
                        }
                        // Solar writes a single token between the name and the value.
                        Some(Tag::Value) => {
                            let name = trimmed(win.slice(*body, self.pos));
                            self.pos += len;
                            self.begin(name, Kind::Pair);
                            continue;
                        }
                        // GLM 5.3 writes `<arg_key>path=a.py</arg_value>`.
                        Some(Tag::ValueEnd) => {
                            let text = win.slice(*body, self.pos);
                            let Some(at) = memchr(b'=', text) else {
                                return Outcome::Failed(Malformed::NotJson);
                            };
                            let name = trimmed(&text[..at]);
                            let value = untyped(&name, &text[at + 1..], &mut self.repairs);
                            self.repairs.add(Repair::MissingCloser);
                            sink.field(call, &name, &value);
                            self.arguments.insert(name, value);
                            self.state = State::Between;
                        }
                        _ => return Outcome::Failed(Malformed::NotJson),
                    }
                    self.pos += len;
                    None
                }
                State::KeyEnd(name) => match tag {
                    Some(Tag::Value) => {
                        let name = name.clone();
                        self.pos += len;
                        self.begin(name, Kind::Pair);
                        None
                    }
                    // A duplicated closing tag.
                    Some(Tag::KeyEnd) => {
                        self.pos += len;
                        None
                    }
                    _ => return Outcome::Failed(Malformed::NotJson),
                },
                State::Value(_) => self.value(win, bytes, tag, sink),
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn begin(&mut self, name: String, kind: Kind) {
        let (body, closer, split) = (self.pos, None, None);
        let (reported_to, reported) = (body, String::new());
        let field = Field { name, kind, body, depth: 0, inline: None, closer, split, reported_to, reported };
        self.state = State::Value(field);
    }

    /// Handles a tag between two arguments.
    fn between(&mut self, win: Window<'_>, bytes: &[u8], tag: Option<Tag>) -> Option<Outcome> {
        let after = self.pos + bytes.len();
        let container = plain_element(bytes).filter(|(name, _)| CONTAINERS.contains(name));
        let tag = tag.filter(|tag| container.is_none() || *tag != Tag::Noise);
        match tag {
            Some(Tag::Parameter { name, string, equals }) => {
                self.pos = after;
                let kimi = is_kimi(bytes);
                self.begin(name, Kind::Parameter { string, equals, kimi });
            }
            Some(Tag::Key) => {
                self.pos = after;
                self.state = State::Key(after);
            }
            Some(Tag::InvokeEnd) if self.closer == Closer::Element => return self.ends_at(after),
            Some(Tag::CallEnd) if self.closer == Closer::Wrapper => return self.ends_at(after),
            Some(Tag::ParameterEnd | Tag::ValueEnd | Tag::KeyEnd) => self.pos = after,
            // The closing tag is missing before the next call or the end of the calls.
            Some(
                Tag::CallEnd
                | Tag::ListEnd
                | Tag::Noise
                | Tag::Invoke { .. }
                | Tag::Open { .. }
                | Tag::InvokeEnd,
            ) if self.closer != Closer::Tool => {
                self.repairs.add(Repair::MissingCloser);
                return Some(Outcome::Complete);
            }
            _ => match plain_element(bytes) {
                Some((name, Plain::Close)) if self.closer == Closer::Tool && name == self.tool => {
                    return self.ends_at(after);
                }
                Some((_, Plain::Close)) if container.is_some() => self.pos = after,
                Some((_, Plain::Empty)) => self.pos = after,
                Some((name, Plain::Open)) => {
                    if container.is_some() {
                        let rest = match win.skip_blanks(after) {
                            Blanks::More => return Some(Outcome::More),
                            Blanks::Until(at) => win.from(at),
                            Blanks::TooMany | Blanks::End => &[],
                        };
                        // An array is a value, not a container of arguments.
                        let item = b"<item>";
                        if !rest.is_empty() && item.starts_with(rest) && !win.eof {
                            return Some(Outcome::More);
                        }
                        if rest.starts_with(b"{") || rest.starts_with(b"<") && !rest.starts_with(item) {
                            self.pos = after;
                            return None;
                        }
                    }
                    // The same argument twice, such as two files in one call, is ambiguous.
                    if self.arguments.contains_key(name) {
                        return Some(Outcome::Failed(Malformed::NotJson));
                    }
                    let name = name.to_owned();
                    self.pos = after;
                    self.begin(name, Kind::Child);
                }
                _ => return Some(Outcome::Failed(Malformed::NotJson)),
            },
        }
        None
    }

    fn ends_at(&mut self, end: usize) -> Option<Outcome> {
        self.pos = end;
        Some(Outcome::Complete)
    }

    /// Handles a tag inside a value.
    fn value(
        &mut self,
        win: Window<'_>,
        bytes: &[u8],
        tag: Option<Tag>,
        sink: &mut Sink<'_>,
    ) -> Option<Outcome> {
        let State::Value(field) = &mut self.state else { return None };
        let (at, after) = (self.pos, self.pos + bytes.len());
        let child = plain_element(bytes).filter(|(name, _)| *name == field.name).map(|(_, plain)| plain);
        let (closes, opens) = match &field.kind {
            Kind::Parameter { equals, kimi, .. } => {
                let same = is_kimi(bytes) == *kimi;
                (
                    tag == Some(Tag::ParameterEnd) && same,
                    matches!(&tag, Some(Tag::Parameter { equals: e, .. }) if e == equals && same),
                )
            }
            Kind::Pair => (tag == Some(Tag::ValueEnd), tag == Some(Tag::Value)),
            Kind::Child => (child == Some(Plain::Close), child == Some(Plain::Open)),
        };
        if closes {
            let fits = self.lenient
                || match call_continues(win, after, &field.kind, &self.closer, &self.tool) {
                    Some(fits) => fits,
                    None => return Some(Outcome::More),
                };
            let nested = field.inline.take().is_some_and(|open| memchr(b'\n', win.slice(open, at)).is_none());
            if fits && !nested {
                field.closer = Some(at);
                if field.depth == 0 {
                    self.close(win, sink);
                    self.pos = after;
                    return None;
                }
            }
            field.depth = field.depth.saturating_sub(usize::from(!nested));
            self.pos = after;
            return None;
        }
        let line_start = begins_line(win, field.body, at);
        let next = match field.kind {
            Kind::Pair => tag == Some(Tag::Key),
            _ => opens && line_start,
        };
        let ends = line_start && matches!(tag, Some(Tag::InvokeEnd | Tag::CallEnd | Tag::ListEnd))
            || matches!(field.kind, Kind::Child)
                && plain_element(bytes) == Some((self.tool.as_str(), Plain::Close));
        if next || ends {
            if self.lenient {
                // The value may contain another argument, so it is unclear where the value ends.
                let holds_elements = win.slice(field.body, at).windows(2).any(|pair| pair == b"\n<");
                if matches!(field.kind, Kind::Child) && ends && holds_elements {
                    return Some(Outcome::Failed(Malformed::NotJson));
                }
                self.repairs.add(Repair::MissingCloser);
                self.close(win, sink);
                return None;
            }
            if field.depth == 0 && field.closer.is_none() {
                field.split.get_or_insert(at);
            }
        }
        if opens && !self.lenient {
            match line_start || field.kind == Kind::Pair {
                true => field.depth += 1,
                false => field.inline = Some(at),
            }
        }
        self.pos += bytes.len().max(1);
        None
    }

    fn close(&mut self, win: Window<'_>, sink: &mut Sink<'_>) {
        let State::Value(field) = std::mem::replace(&mut self.state, State::Between) else { return };
        let bytes = win.slice(field.body, self.pos);
        let bytes = bytes.trim_ascii_end().strip_suffix(MINIMAX).unwrap_or(bytes);
        let nested = if field.kind == Kind::Child { nested::value(bytes, &mut self.repairs) } else { None };
        let cdata = bytes.strip_prefix(b"<![CDATA[").and_then(|bytes| bytes.strip_suffix(b"]]>"));
        let raw = cdata.is_some() || matches!(field.kind, Kind::Parameter { string: Some(true), .. });
        let value = match (&field.kind, cdata.unwrap_or(bytes)) {
            _ if nested.is_some() => nested.unwrap_or_default(),
            (_, text) if raw => Value::String(utf8(text.to_vec(), &mut self.repairs)),
            // Without a closing tag, the line break before the next tag is not part of the value.
            (Kind::Pair, text) if self.lenient => untyped(&field.name, trim_end(text), &mut self.repairs),
            (Kind::Pair, text) => untyped(&field.name, text, &mut self.repairs),
            (_, text) => untyped(&field.name, trim_lines(text), &mut self.repairs),
        };
        // `&amp;` is either an escaped `&` or meant literally. The repair marks the call as
        // ambiguous so that the shell is not handed the wrong interpretation.
        if matches!(field.name.as_str(), "command" | "cmd")
            && value.as_str().is_some_and(|text| text.contains("&amp;") || text.contains("&lt;"))
        {
            self.repairs.add(Repair::MixedEscapes);
        }
        if let Some(call) = self.call {
            if let (true, Value::String(text)) = (field.followed(self.followed), &value)
                && let Some(rest) = text.strip_prefix(&field.reported)
            {
                let (path, text) = (field.name.clone(), rest.to_owned());
                sink.out.push(Event::FieldText { call, path, text, closed: true });
            }
            sink.field(call, &field.name, &value);
        }
        self.arguments.insert(field.name, value);
    }

    /// Reports the complete lines before `pos`, if the value must be reported while the model is
    /// still writing it.
    fn report_lines(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        let (State::Value(field), Some(call)) = (&mut self.state, self.call) else { return };
        if !field.followed(self.followed) || self.lenient || field.depth > 0 {
            return;
        }
        let trimmed = match field.kind {
            Kind::Parameter { string, .. } => string.is_none(),
            Kind::Pair => false,
            Kind::Child => true,
        };
        if field.reported_to == field.body && trimmed {
            match win.slice(field.body, self.pos) {
                [] | [b'\r'] => return,
                [b'\r', b'\n', ..] => field.reported_to += 2,
                [b'\n', ..] => field.reported_to += 1,
                _ => {}
            }
        }
        // Hold back the last line break: before a closing tag it is not part of the text.
        let news = win.slice(field.reported_to, self.pos.max(field.reported_to));
        let Some(last) = news.len().checked_sub(1).and_then(|last| memrchr(b'\n', &news[..last])) else {
            return;
        };
        let Ok(text) = std::str::from_utf8(&news[..=last]) else { return };
        field.reported_to += text.len();
        field.reported.push_str(text);
        out.push(Event::FieldText { call, path: field.name.clone(), text: text.to_owned(), closed: false });
    }
}

impl Field {
    /// Returns whether the value is text that must be reported while the model is still writing it.
    fn followed(&self, followed: bool) -> bool {
        let text = matches!(self.kind, Kind::Parameter { string: Some(true), .. });
        followed && (text || is_textual(&self.name))
    }
}

fn trimmed(name: &[u8]) -> String {
    String::from_utf8_lossy(name).trim().to_owned()
}

/// Returns true for Kimi K3's tags.
fn is_kimi(tag: &[u8]) -> bool {
    tag.starts_with(b"<|open|>") || tag.starts_with(b"<|close|>")
}

/// Returns whether the call continues after a closing tag that ends at `after`, or `None` if
/// undecided.
fn call_continues(win: Window<'_>, after: usize, kind: &Kind, closer: &Closer, tool: &str) -> Option<bool> {
    let mut at = match win.skip_blanks(after) {
        Blanks::Until(at) => at,
        Blanks::More => return None,
        Blanks::TooMany => return Some(false),
        Blanks::End => return Some(true),
    };
    if win.from(at).starts_with(MINIMAX) {
        at = match win.skip_blanks(at + MINIMAX.len()) {
            Blanks::Until(at) => at,
            Blanks::More => return None,
            Blanks::TooMany | Blanks::End => return Some(false),
        };
    } else if MINIMAX.starts_with(win.from(at)) && !win.eof {
        return None;
    }
    if win.get(at) != Some(b'<') {
        return Some(false);
    }
    let (tag, len) = tag_at(win, at, &mut at.clone())?;
    let bytes = win.slice(at, at + len);
    let fits = match tag {
        Some(Tag::Parameter { equals, .. }) => {
            matches!(kind, Kind::Parameter { equals: e, .. } if *e == equals)
        }
        Some(Tag::Key) => *kind == Kind::Pair,
        Some(Tag::ParameterEnd | Tag::ValueEnd | Tag::KeyEnd) => false,
        Some(Tag::InvokeEnd | Tag::CallEnd | Tag::ListEnd | Tag::Noise) => *closer != Closer::Tool,
        Some(_) => false,
        None => match plain_element(bytes) {
            Some((name, Plain::Close)) => {
                *closer == Closer::Tool && name == tool || *kind == Kind::Child && CONTAINERS.contains(&name)
            }
            Some((_, Plain::Open | Plain::Empty)) => *kind == Kind::Child,
            None => false,
        },
    };
    Some(fits)
}

/// Returns true if only spaces and tabs precede `at` on its line. On the value's first line, only
/// the text inside the value is considered.
fn begins_line(win: Window<'_>, body: usize, at: usize) -> bool {
    let before = win.slice(body.max(at.saturating_sub(64)), at);
    let last = before.iter().rev().find(|b| !matches!(b, b' ' | b'\t'));
    matches!(last, None | Some(b'\n'))
}

/// Arguments that are text even if they look like a number or JSON.
const TEXTS: [&str; 30] = [
    "body",
    "cmd",
    "code",
    "command",
    "content",
    "contents",
    "description",
    "diff",
    "file_path",
    "file_text",
    "input",
    "message",
    "new_str",
    "new_string",
    "new_text",
    "newText",
    "old_str",
    "old_string",
    "old_text",
    "oldText",
    "patch",
    "path",
    "pattern",
    "query",
    "regex",
    "replace",
    "script",
    "search",
    "summary",
    "text",
];

fn is_textual(name: &str) -> bool {
    TEXTS.contains(&name)
}

/// Reads a value that has no declared type: reads numbers, literals and data as JSON or Python
/// would, and anything else as text. Arguments named in [`TEXTS`] stay text even if they hold JSON.
pub(crate) fn untyped(name: &str, bytes: &[u8], repairs: &mut Repairs) -> Value {
    let bare = bytes.trim_ascii();
    if !is_textual(name) {
        let value = serde_json::from_slice::<Value>(bare).ok();
        if let Some(value) = value.or_else(|| literal(bare, repairs)).filter(|v| !v.is_string()) {
            return value;
        }
    }
    Value::String(utf8(bytes.to_vec(), repairs))
}

/// Removes the line breaks that put the value on lines of its own: one after the opening tag and
/// one before the closing tag. If the first one is missing, removes neither.
pub(crate) fn trim_lines(bytes: &[u8]) -> &[u8] {
    match bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")) {
        Some(bytes) => trim_end(bytes),
        None => bytes,
    }
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}
