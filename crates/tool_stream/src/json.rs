//! An incremental JSON reader that builds values as their bytes arrive. Besides strict JSON, it
//! accepts common deviations from it, Gemma's quotes, and the arguments of a Python call.
//!
//! Strict JSON is always read as strict JSON. Anything else is either a [`Repair`] or ends the
//! object ([`Step::Bad`]). In [`Syntax::Python`], the outermost container is `(key=value, …)`,
//! which is read as an object, and strings follow Python's rules. The state is explicit, so nothing
//! recurses. Only the few bytes that decide whether a quote ends its string are scanned twice
//! (`quote.rs`).

use memchr::{memchr, memchr2, memmem};
use serde_json::{Map, Value};

use crate::event::{Malformed, Repair};
use crate::literal::bare_word;
use crate::quote::{Lookahead, Quote, Text, Verdict};
use crate::text::{Repairs, decode, decode_python, utf8};
use crate::window::Window;

/// What the reader found.
#[derive(Debug)]
pub(crate) enum Step {
    /// All buffered bytes have been consumed.
    More,
    /// A key and its colon were read. `depth` is the number of open containers.
    Key,
    /// A container was opened and is counted in `depth`.
    Opened,
    /// A value was added to the innermost container. `last` is its span.
    Added,
    /// The outermost container was closed. `last` is its span.
    Done(Value),
    /// Not JSON from here on.
    Bad(Malformed),
}

/// An open container.
#[derive(Debug)]
pub(crate) enum Node {
    Object { map: Map<String, Value>, key: String },
    Array(Vec<Value>),
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) node: Node,
    pub(crate) start: usize,
    brackets: Brackets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brackets {
    /// `{}` or `[]`, depending on the node.
    Plain,
    /// `{{}}`: braces doubled as in templates.
    Doubled,
    /// `()` in Python: keyword arguments, or a tuple.
    Round,
}

/// The syntax to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Syntax {
    #[default]
    Json,
    Python,
}

#[derive(Debug, Default)]
enum State {
    /// Expects a value. At the start of an array, or after a comma in an array, the closing bracket
    /// may come instead.
    #[default]
    Value,
    /// Expects a key or the closing brace.
    Key,
    Colon,
    /// Expects a comma or a closing bracket.
    After,
    Text(Text),
    BareKey(usize),
    BareValue(usize),
    /// Starts at the offset and ends with the line.
    LineComment(usize),
    BlockComment,
}

/// Reads one value that begins with an opening bracket.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Offset of the next byte to read.
    pub(crate) pos: usize,
    pub(crate) stack: Vec<Frame>,
    pub(crate) repairs: Repairs,
    /// Span of the last complete value.
    pub(crate) last: (usize, usize),
    state: State,
    /// The state to return to after a comment.
    behind: Option<Box<State>>,
    comma: bool,
    newline: bool,
    max_depth: usize,
    /// Whether any string so far contained unescaped quotes. If so, stricter rules decide which
    /// quote ends a string (`quote.rs`).
    pub(crate) doubtful: bool,
    syntax: Syntax,
    /// Whether the string being read will be appended to the previous one, because Python joins
    /// adjacent literals.
    joined: bool,
}

impl Reader {
    pub(crate) fn new(start: usize, max_depth: usize, syntax: Syntax) -> Reader {
        Reader { pos: start, last: (start, start), max_depth, syntax, ..Reader::default() }
    }

    pub(crate) fn depth(&self) -> usize {
        self.stack.len()
    }

    /// Returns the current key of the object at `depth` (1 is the outermost).
    pub(crate) fn key_at(&self, depth: usize) -> Option<&str> {
        match &self.stack.get(depth.checked_sub(1)?)?.node {
            Node::Object { key, .. } => Some(key),
            Node::Array(_) => None,
        }
    }

    /// Returns the members of the object at `depth` that have been read so far.
    pub(crate) fn map_at(&self, depth: usize) -> Option<&Map<String, Value>> {
        match &self.stack.get(depth.checked_sub(1)?)?.node {
            Node::Object { map, .. } => Some(map),
            Node::Array(_) => None,
        }
    }

    /// Removes the last element of the innermost array.
    pub(crate) fn take_element(&mut self) -> Option<Value> {
        match &mut self.stack.last_mut()?.node {
            Node::Array(items) => items.pop(),
            Node::Object { .. } => None,
        }
    }

    /// Returns true if the bytes so far end inside a string value.
    pub(crate) fn in_string(&self) -> bool {
        matches!(&self.state, State::Text(text) if !text.is_key)
    }

    /// Returns the offset of the string value being read, unless a repair makes its end uncertain.
    pub(crate) fn open_text(&self) -> Option<usize> {
        match &self.state {
            State::Text(text)
                if !text.is_key
                    && text.inner == 0
                    && text.quote == Quote::Double
                    && self.syntax == Syntax::Json =>
            {
                Some(text.body)
            }
            _ => None,
        }
    }

    /// Returns true if all open containers are objects, and a comma or a closing brace is expected
    /// next.
    pub(crate) fn after_value(&self) -> bool {
        matches!(self.state, State::After)
            && self.stack.iter().all(|f| matches!(f.node, Node::Object { .. }))
            && !self.comma
    }

    /// Closes all containers as if their closing brackets were present. Requires
    /// [`Reader::after_value`].
    pub(crate) fn close_all(&mut self) -> Option<Value> {
        let mut value = None;
        while let Some(frame) = self.stack.pop() {
            let Node::Object { mut map, key } = frame.node else { return None };
            if let Some(value) = value.take() {
                map.insert(key, value);
            }
            value = Some(Value::Object(map));
            self.last = (frame.start, self.pos);
        }
        value
    }

    /// Returns the last value added to the innermost container.
    pub(crate) fn last_value(&self) -> Option<&Value> {
        match &self.stack.last()?.node {
            Node::Object { map, key } => map.get(key),
            Node::Array(items) => items.last(),
        }
    }

    /// Returns the offset of the key being read in the outermost object, if any.
    pub(crate) fn open_key(&self) -> Option<usize> {
        match &self.state {
            State::Text(text) if text.is_key && self.stack.len() == 1 => Some(text.body),
            State::BareKey(start) if self.stack.len() == 1 => Some(*start),
            _ => None,
        }
    }

    /// Reads until there is something to report.
    pub(crate) fn step(&mut self, win: Window<'_>) -> Step {
        loop {
            let step = match self.state {
                State::Text(_) => self.text(win),
                State::BareKey(start) => self.bare_key(win, start),
                State::BareValue(start) => self.bare_value(win, start),
                State::LineComment(_) | State::BlockComment => self.comment(win),
                _ => self.structure(win),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn structure(&mut self, win: Window<'_>) -> Option<Step> {
        let Some(byte) = win.get(self.pos) else { return Some(Step::More) };
        match byte {
            b' ' | b'\t' | b'\r' => self.pos += 1,
            b'\n' => {
                self.newline = true;
                self.pos += 1;
            }
            0 => {
                self.repairs.add(Repair::StrayByte);
                self.pos += 1;
            }
            0xC2 | 0xE2 | 0xE3 | 0xEF => match unicode_space(win, self.pos) {
                None => return Some(Step::More),
                Some(0) => return self.token(win, byte),
                Some(len) => {
                    self.repairs.add(Repair::StrayByte);
                    self.pos += len;
                }
            },
            // Directly after a string, a comment marker is more likely to be part of the string
            // than the start of a comment: the quote before it should have been escaped.
            b'/' | b'#' if self.pos == self.last.1 && matches!(self.state, State::After) => {
                return Some(Step::Bad(Malformed::NotJson));
            }
            b'/' => match win.get(self.pos + 1) {
                Some(b'/') => self.begin_comment(State::LineComment(self.pos), 2),
                Some(b'*') => self.begin_comment(State::BlockComment, 2),
                None if !win.eof => return Some(Step::More),
                _ => return Some(Step::Bad(Malformed::NotJson)),
            },
            b'#' if !self.stack.is_empty() => self.begin_comment(State::LineComment(self.pos), 1),
            b'\\' if self.syntax == Syntax::Python => match win.get(self.pos + 1) {
                Some(b'\n') => self.pos += 2,
                None if !win.eof => return Some(Step::More),
                _ => return self.token(win, byte),
            },
            _ => return self.token(win, byte),
        }
        None
    }

    fn begin_comment(&mut self, comment: State, skip: usize) {
        self.repairs.add(Repair::Comment);
        self.pos += skip;
        self.behind = Some(Box::new(std::mem::replace(&mut self.state, comment)));
    }

    fn comment(&mut self, win: Window<'_>) -> Option<Step> {
        let rest = win.from(self.pos);
        let end = match self.state {
            State::LineComment(_) => memchr(b'\n', rest), // the next state consumes the newline
            _ => memmem::find(rest, b"*/").map(|i| i + 2),
        };
        match end {
            Some(end) => {
                self.pos += end;
                let Some(state) = self.behind.take() else { return Some(Step::Bad(Malformed::NotJson)) };
                if let (State::LineComment(start), State::After) = (&self.state, &*state) {
                    // An odd number of quotes: this was not a comment but the rest of a string.
                    let quotes = memchr::memchr_iter(b'"', win.slice(*start, self.pos)).count();
                    if !quotes.is_multiple_of(2) {
                        return Some(Step::Bad(Malformed::NotJson));
                    }
                }
                self.state = *state;
                None
            }
            None => {
                // A star may be the first half of the end marker.
                let keep =
                    usize::from(matches!(self.state, State::BlockComment) && rest.last() == Some(&b'*'));
                self.pos = win.end() - keep;
                Some(Step::More)
            }
        }
    }

    fn token(&mut self, win: Window<'_>, byte: u8) -> Option<Step> {
        match self.state {
            State::Value => self.value(win, byte),
            State::Key => match byte {
                b'}' | b')' => self.close(win, byte),
                b'"' | b'\'' if self.in_call_arguments() => Some(Step::Bad(Malformed::Positional)),
                b'"' | b'\'' | 0xE2 | b'<' => self.quote(win, byte, true),
                b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => {
                    self.state = State::BareKey(self.pos);
                    None
                }
                _ if self.in_call_arguments() => Some(Step::Bad(Malformed::Positional)),
                _ => Some(Step::Bad(Malformed::NotJson)),
            },
            State::Colon => {
                let colon = if self.in_call_arguments() { b'=' } else { b':' };
                if byte != colon {
                    return Some(Step::Bad(Malformed::NotJson));
                }
                self.pos += 1;
                self.state = State::Value;
                self.comma = false;
                Some(Step::Key)
            }
            _ => match byte {
                b',' => {
                    self.pos += 1;
                    self.comma = true;
                    self.expect_next();
                    None
                }
                b'}' | b']' | b')' => self.close(win, byte),
                b'"' | b'\'' | b'+' | b'r' if self.syntax == Syntax::Python && self.after_string() => {
                    self.pos += usize::from(byte == b'+');
                    self.joined = true;
                    self.state = State::Value;
                    None
                }
                b'+' if self.after_string() => Some(Step::Bad(Malformed::Expression)),
                b'"' if self.newline
                    && matches!(self.stack.last(), Some(Frame { node: Node::Object { .. }, .. })) =>
                {
                    self.repairs.add(Repair::MissingComma);
                    self.state = State::Key;
                    None
                }
                _ => Some(Step::Bad(Malformed::NotJson)),
            },
        }
    }

    /// Returns true if the innermost container is the argument list of a Python call.
    fn in_call_arguments(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { node: Node::Object { .. }, brackets: Brackets::Round, .. }))
    }

    fn after_string(&self) -> bool {
        matches!(self.last_value(), Some(Value::String(_)))
    }

    fn expect_next(&mut self) {
        self.state = match self.stack.last() {
            Some(Frame { node: Node::Array(_), .. }) => State::Value,
            _ => State::Key,
        };
    }

    fn value(&mut self, win: Window<'_>, byte: u8) -> Option<Step> {
        if self.joined && !matches!(byte, b'"' | b'\'' | b'r') {
            return Some(Step::Bad(Malformed::Expression));
        }
        match byte {
            b'{' | b'[' => self.open(win, byte),
            b'(' if self.syntax == Syntax::Python => self.open(win, byte),
            b']' | b')' if matches!(self.stack.last(), Some(Frame { node: Node::Array(_), .. })) => {
                self.close(win, byte)
            }
            b'"' | b'\'' | b'`' | 0xE2 | b'<' => self.quote(win, byte, false),
            b'r' if self.syntax == Syntax::Python => match win.get(self.pos + 1) {
                None if !win.eof => Some(Step::More),
                Some(quote @ (b'"' | b'\'')) => {
                    self.pos += 1;
                    let step = self.quote(win, quote, false);
                    match &mut self.state {
                        State::Text(text) => text.raw = true,
                        _ => self.pos -= 1,
                    }
                    step
                }
                _ => {
                    self.state = State::BareValue(self.pos);
                    None
                }
            },
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.state = State::BareValue(self.pos);
                None
            }
            _ => Some(Step::Bad(Malformed::NotJson)),
        }
    }

    fn open(&mut self, win: Window<'_>, byte: u8) -> Option<Step> {
        if self.stack.len() >= self.max_depth {
            return Some(Step::Bad(Malformed::TooDeep));
        }
        let (mut brackets, mut len) = (Brackets::Plain, 1);
        // No JSON key is an object, so `{{` can only be a doubled brace.
        if byte == b'{' && self.syntax == Syntax::Json {
            match win.get(self.pos + 1) {
                None if !win.eof => return Some(Step::More),
                Some(b'{') => {
                    self.repairs.add(Repair::DoubledBraces);
                    (brackets, len) = (Brackets::Doubled, 2);
                }
                _ => {}
            }
        }
        let keyed = byte == b'{' || byte == b'(' && self.stack.is_empty();
        if byte == b'(' {
            brackets = Brackets::Round;
        }
        let object = Node::Object { map: Map::new(), key: String::new() };
        let node = if keyed { object } else { Node::Array(Vec::new()) };
        self.stack.push(Frame { node, start: self.pos, brackets });
        self.pos += len;
        self.comma = false;
        self.expect_next();
        Some(Step::Opened)
    }

    fn close(&mut self, win: Window<'_>, byte: u8) -> Option<Step> {
        let Some(frame) = self.stack.last() else { return Some(Step::Bad(Malformed::NotJson)) };
        let brackets = frame.brackets;
        let fits = match (&frame.node, brackets) {
            (_, Brackets::Round) => byte == b')',
            (Node::Object { .. }, _) => byte == b'}',
            (Node::Array(_), _) => byte == b']',
        };
        if !fits {
            return Some(Step::Bad(Malformed::NotJson));
        }
        if brackets == Brackets::Doubled {
            match win.get(self.pos + 1) {
                None if !win.eof => return Some(Step::More),
                Some(b'}') => self.pos += 1,
                _ => return Some(Step::Bad(Malformed::NotJson)),
            }
        }
        if self.comma && self.syntax == Syntax::Json {
            self.repairs.add(Repair::TrailingComma);
        }
        let frame = self.stack.pop()?;
        self.pos += 1;
        let value = match frame.node {
            Node::Object { map, .. } => Value::Object(map),
            // In Python `(x)` is x, and `(x,)` is a tuple.
            Node::Array(mut items) if brackets == Brackets::Round && items.len() == 1 && !self.comma => {
                items.swap_remove(0)
            }
            Node::Array(items) => Value::Array(items),
        };
        self.last = (frame.start, self.pos);
        if self.stack.is_empty() { Some(Step::Done(value)) } else { self.add(value) }
    }

    /// Adds a complete value to the innermost container.
    fn add(&mut self, value: Value) -> Option<Step> {
        self.comma = false;
        self.newline = false;
        self.state = State::After;
        let joined = std::mem::take(&mut self.joined);
        match (&mut self.stack.last_mut()?.node, value) {
            (node, Value::String(more)) if joined => {
                let text = match node {
                    Node::Object { map, key } => map.get_mut(key),
                    Node::Array(items) => items.last_mut(),
                };
                if let Some(Value::String(text)) = text {
                    text.push_str(&more);
                }
            }
            (Node::Object { map, key }, value) => _ = map.insert(key.clone(), value),
            (Node::Array(items), value) => items.push(value),
        }
        // No caller needs values nested in more than 5 containers, which is the depth of the lines
        // in an edit's `search` array.
        if self.stack.len() <= 5 { Some(Step::Added) } else { None }
    }

    fn set_key(&mut self, name: String) {
        if let Some(Frame { node: Node::Object { key, .. }, .. }) = self.stack.last_mut() {
            *key = name;
        }
        self.state = State::Colon;
    }

    /// Handles a quote where a string may begin.
    fn quote(&mut self, win: Window<'_>, byte: u8, is_key: bool) -> Option<Step> {
        let rest = win.from(self.pos);
        let quote = match byte {
            b'"' | b'\'' if !is_key => {
                if rest.len() < 3 && rest.iter().all(|b| *b == byte) && !win.eof {
                    return Some(Step::More);
                }
                match (byte, rest.starts_with(&[byte; 3])) {
                    (b'"', false) => Quote::Double,
                    (b'"', true) => Quote::TripleDouble,
                    (_, false) => Quote::Single,
                    (_, true) => Quote::TripleSingle,
                }
            }
            b'"' => Quote::Double,
            b'\'' => Quote::Single,
            b'`' => Quote::Backtick,
            b'<' => match Quote::token(rest, win.eof) {
                Some(Some(quote)) => quote,
                Some(None) => return Some(Step::Bad(Malformed::NotJson)),
                None => return Some(Step::More),
            },
            _ => match rest {
                [0xE2, 0x80, 0x9C..=0x9F, ..] => Quote::SmartDouble,
                [0xE2, 0x80, 0x98..=0x9B, ..] => Quote::SmartSingle,
                [0xE2] | [0xE2, 0x80] if !win.eof => return Some(Step::More),
                _ => return Some(Step::Bad(Malformed::NotJson)),
            },
        };
        if let Some(repair) = quote.repair().filter(|_| self.syntax == Syntax::Json) {
            self.repairs.add(repair);
        }
        let body = self.pos + quote.len();
        let line_start = self.newline_before(win);
        self.state = State::Text(Text::new(quote, is_key, body, line_start));
        self.pos = body;
        None
    }

    /// Returns true if only whitespace precedes the current byte on its line.
    fn newline_before(&self, win: Window<'_>) -> bool {
        let before = win.slice(win.base.max(self.pos.saturating_sub(64)), self.pos);
        matches!(before.iter().rev().find(|b| !matches!(b, b' ' | b'\t')), Some(b'\n'))
    }

    fn text(&mut self, win: Window<'_>) -> Option<Step> {
        let State::Text(text) = &mut self.state else { return None };
        loop {
            if let Some(mut lookahead) = text.lookahead.take() {
                match lookahead.run(win, &self.stack, self.doubtful || text.inner > 0, text) {
                    Verdict::More => {
                        text.lookahead = Some(lookahead);
                        return Some(Step::More);
                    }
                    Verdict::Closes => break,
                    Verdict::Unclear => return Some(Step::Bad(Malformed::NotJson)),
                    Verdict::Inner => {
                        self.pos = text.candidate + text.quote.len();
                        text.inner += 1;
                        if text.needs_lines(&self.stack) && !text.line_start {
                            // In an array on one line, inner and closing quotes look the same.
                            return Some(Step::Bad(Malformed::NotJson));
                        }
                    }
                }
            }
            let rest = win.from(self.pos);
            let (a, b) = (text.quote.first_byte(), b'\\');
            let hit = if text.quote.escapes() { memchr2(a, b, rest) } else { memchr(a, rest) };
            if text.is_key
                && let Some(line_end) = memchr(b'\n', &rest[..hit.unwrap_or(rest.len())])
            {
                self.pos += line_end;
                return Some(Step::Bad(Malformed::NotJson));
            }
            let Some(hit) = hit else {
                self.pos = win.end();
                return Some(Step::More);
            };
            self.pos += hit;
            if rest[hit] == b'\\' {
                if hit + 1 >= rest.len() {
                    return Some(Step::More);
                }
                self.pos += 2;
                continue;
            }
            match text.quote.matches(&rest[hit..], win.eof) {
                None => return Some(Step::More),
                Some(false) => {
                    self.pos += 1;
                    continue;
                }
                Some(true) => {}
            }
            text.candidate = self.pos;
            let body = win.slice(text.body, self.pos);
            if self.syntax == Syntax::Python || !text.quote.escapes() {
                break;
            }
            if text.is_key || (text.inner == 0 && text.quote == Quote::Double && plain(body)) {
                break;
            }
            // `","` between two array elements is by far the most common way for a string to end.
            let in_array = matches!(self.stack.last(), Some(Frame { node: Node::Array(_), .. }));
            if in_array && text.inner == 0 && rest[hit..].starts_with(b"\",\"") {
                break;
            }
            text.lookahead = Some(Lookahead::new(self.pos + text.quote.len()));
        }
        let body = win.slice(text.body, text.candidate);
        let (is_key, quote, inner, raw) = (text.is_key, text.quote, text.inner, text.raw);
        let start = text.body - quote.len();
        let end = text.candidate + quote.len();
        if inner > 0 {
            self.repairs.add(Repair::InnerQuote);
            self.doubtful = true;
        }
        self.pos = end;
        if self.stack.iter().any(|f| f.brackets == Brackets::Doubled) && memchr2(b'{', b'}', body).is_some() {
            self.repairs.add(Repair::BracesInText);
        }
        let decoded = match self.syntax {
            _ if raw || !quote.escapes() => utf8(body.to_vec(), &mut self.repairs),
            Syntax::Python => decode_python(body, &mut self.repairs),
            Syntax::Json => decode(body, &mut self.repairs),
        };
        if is_key {
            self.set_key(decoded);
            None
        } else {
            self.last = (start, end);
            self.add(Value::String(decoded))
        }
    }

    fn bare_key(&mut self, win: Window<'_>, start: usize) -> Option<Step> {
        while let Some(byte) = win.get(self.pos) {
            if self.pos - start > MAX_BARE {
                return Some(Step::Bad(Malformed::NotJson));
            }
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'.')) {
                if self.syntax == Syntax::Json {
                    self.repairs.add(Repair::UnquotedKey);
                }
                let name = utf8(win.slice(start, self.pos).to_vec(), &mut self.repairs);
                self.set_key(name);
                return None;
            }
            self.pos += 1;
        }
        Some(Step::More)
    }

    fn bare_value(&mut self, win: Window<'_>, start: usize) -> Option<Step> {
        while let Some(byte) = win.get(self.pos) {
            let round = byte == b')' && self.syntax == Syntax::Python;
            if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') || round {
                let word = win.slice(start, self.pos);
                let Some((value, repair)) = bare_word(word) else {
                    return Some(Step::Bad(Malformed::NotJson));
                };
                match (repair, self.syntax) {
                    // A variable name, which Python would look up.
                    (Some(Repair::UnquotedValue), Syntax::Python) => {
                        return Some(Step::Bad(Malformed::Expression));
                    }
                    (Some(repair), Syntax::Json) => self.repairs.add(repair),
                    _ => {}
                }
                self.last = (start, self.pos);
                return self.add(value);
            }
            if self.pos - start > MAX_BARE {
                return Some(Step::Bad(Malformed::NotJson));
            }
            self.pos += 1;
        }
        Some(Step::More)
    }
}

/// The maximum length of an unquoted value, in bytes. Numbers and literals are shorter.
const MAX_BARE: usize = 512;

/// Returns whether a string looks like a short name, path or number. If so, the quote after it must
/// be the closing one, and waiting for more bytes would only delay the field.
fn plain(body: &[u8]) -> bool {
    !body.is_empty()
        && body.len() <= 256
        && body.iter().all(|b| b.is_ascii_alphanumeric() || *b >= 0x80 || b"_-./\\:@~+*%".contains(b))
}

/// Returns the length of the non-ASCII space at `at`, or 0 if there is none. Returns `None` if more
/// bytes are needed. These spaces are U+00A0, U+2000–200D, U+2028/9, U+202F, U+3000, U+FEFF.
fn unicode_space(win: Window<'_>, at: usize) -> Option<usize> {
    match win.from(at) {
        [0xC2, 0xA0, ..] => Some(2),
        [0xE2, 0x80, 0x80..=0x8D | 0xA8 | 0xA9 | 0xAF, ..]
        | [0xE3, 0x80, 0x80, ..]
        | [0xEF, 0xBB, 0xBF, ..] => Some(3),
        [0xC2] | [0xE2] | [0xE2, 0x80] | [0xE3] | [0xE3, 0x80] | [0xEF] | [0xEF, 0xBB] if !win.eof => None,
        _ => Some(0),
    }
}
