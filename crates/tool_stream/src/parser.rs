//! The outer scanner: splits the stream into prose, thinking blocks, fences, tokens and objects.
//!
//! Every decision waits until all the bytes that it depends on have arrived, so events do not
//! depend on chunk boundaries.

use std::mem::Discriminant;

use crate::dialects::IMPLIED;
use crate::event::{End, Event, Malformed, Options, Repair};
use crate::fence::Fence;
use crate::harmony::{Header, Raw};
use crate::head::Head;
use crate::markup::Invoke;
use crate::object::{Candidate, Sink};
use crate::python::Brackets;
use crate::tags::Tag;
use crate::thoughts::Thinking;
use crate::whole_file::File;
use crate::window::Window;
use crate::{prose, python};

/// The streaming parser. The crate documentation describes the input that it accepts.
#[derive(Debug, Default)]
pub struct Parser {
    pub(crate) options: Options,
    buf: Vec<u8>,
    /// Offset of `buf[0]` in the stream.
    base: usize,
    /// Offset of the next byte to scan.
    pub(crate) pos: usize,
    /// Text before this offset has been shown or dropped.
    pub(crate) shown: usize,
    /// Text from here on is held back until it is clear whether it surrounds a call.
    pub(crate) hold: Option<usize>,
    pub(crate) mode: Mode,
    pub(crate) calls: usize,
    /// Whether the current line has text other than whitespace.
    pub(crate) line_has_text: bool,
    /// Whether the rest of this line may be part of a malformed call, so that no call can begin
    /// there.
    pub(crate) skip_line: bool,
    /// Whether the last call was malformed. Its end is a guess and its strings may contain calls,
    /// so another call is accepted only in the first column, or after a closing tag or token.
    pub(crate) after_malformed: bool,
    /// Whether the first byte of the current line has been read.
    pub(crate) past_column_zero: bool,
    /// The last bytes of the text emitted so far.
    pub(crate) tail: Vec<u8>,
    pub(crate) fence: Option<Fence>,
    /// Length of the backtick run that opened inline code on this line.
    pub(crate) inline: usize,
    /// Whether a token or tag has announced a call.
    pub(crate) announced: bool,
    /// Whether the parser is directly after a call, where it drops stray closing brackets.
    pub(crate) after_call: bool,
    /// Whether a call's arguments are in a fence whose closing line has not been skipped yet.
    pub(crate) skip_closing_fence: bool,
    /// Whether the parser is inside a turn that the model invented for someone else.
    pub(crate) foreign: bool,
    /// Whether the next word is the role of the turn that begins here.
    pub(crate) role_follows: bool,
    pub(crate) think_seen: bool,
    pub(crate) thinking: Thinking,
    /// Whether a Python call that begins at the current position is a tool call.
    pub(crate) python: bool,
    /// Whether a tag has opened a list of calls.
    pub(crate) listed: bool,
    /// The tag that opened an example. Everything up to the end of the example is text.
    pub(crate) example: Option<Discriminant<Tag>>,
    /// Start of the first call that is accepted only if nothing but calls follows it.
    pub(crate) deferred: Option<usize>,
    /// Whether the answer ends inside a tag at a point where a call was expected.
    pub(crate) cut_tag: bool,
    /// Whether a ReAct call was read.
    pub(crate) saw_react: bool,
    /// The text received so far, as long as the answer may consist only of Python calls.
    /// `answer_start` is its offset.
    pub(crate) answer: Vec<u8>,
    answer_start: usize,
    /// Whether the answer has begun, that is, whether any text so far was not whitespace.
    answer_begun: bool,
    /// Whether this is a nested parser, which looks for calls in part of an answer.
    pub(crate) is_nested: bool,
    /// Bytes rescanned after failed objects.
    pub(crate) rescanned: usize,
    /// Number of objects so far that were judged by the text before them.
    pub(crate) lead_ins_judged: usize,
    /// How far the current tag has been searched for its end.
    pub(crate) searched: usize,
    finished: bool,
}

/// The region of the stream that the parser is in.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Text,
    Think,
    /// Inside a tool result that the model invented.
    Result,
    Object(Box<Candidate>),
    Head(Box<Head>),
    Header(Box<Header>),
    Raw(Box<Raw>),
    /// In an answer that begins like a Python call, up to the bracket that closes the call.
    Python(Brackets),
    Invoke(Box<Invoke>),
    File(Box<File>),
}

pub(crate) enum Flow {
    Go,
    More,
}

/// The maximum number of bytes to hold back around a possible call.
const MAX_HOLD: usize = 4096;
/// The maximum number of bytes to keep from an answer that may consist only of Python calls.
const MAX_ANSWER: usize = 1 << 20;

impl Parser {
    /// Creates a parser at the start of a stream.
    #[must_use]
    pub fn new(options: Options) -> Parser {
        let mut parser = Parser { options, ..Parser::default() };
        if parser.options.starts_thinking {
            parser.begin_thought(IMPLIED);
        }
        parser
    }

    /// Consumes the next bytes of the stream and appends the resulting events to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        if self.finished {
            return;
        }
        if self.buf.is_empty() {
            // Nothing is buffered: scan the bytes in place and keep only what is still needed.
            self.run(Window { bytes, base: self.base, eof: false }, out);
            let keep = self.needed();
            self.buf.extend_from_slice(&bytes[keep - self.base..]);
            self.base = keep;
            return;
        }
        // Take the buffer out of `self` so that the window does not borrow the parser.
        let mut buf = std::mem::take(&mut self.buf);
        buf.extend_from_slice(bytes);
        self.run(Window { bytes: &buf, base: self.base, eof: false }, out);
        let cut = self.needed() - self.base;
        if cut == buf.len() {
            buf.clear();
            self.base += cut;
        } else if cut > 4096 && cut > buf.len() / 2 {
            buf.drain(..cut);
            self.base += cut;
        }
        self.buf = buf;
    }

    /// Ends the stream. Anything incomplete becomes text or [`Event::Malformed`], never a call. The
    /// only exception is a call that lacks nothing but its closing tag; see the crate
    /// documentation.
    pub fn finish(&mut self, end: End, out: &mut Vec<Event>) {
        if self.finished {
            return;
        }
        let buf = std::mem::take(&mut self.buf);
        let win = Window { bytes: &buf, base: self.base, eof: true };
        self.run(win, out);
        self.end(win, end, out);
        self.finished = true;
    }

    /// Parses `text`, which is part of a complete answer, and returns the events. `certain` means
    /// that an object in `text` can only be a call.
    pub(crate) fn parse_part(text: &[u8], options: &Options, certain: bool) -> Vec<Event> {
        let followed = Vec::new();
        let options = Options { starts_thinking: false, whole_file: false, followed, ..options.clone() };
        let mut parser = Parser::new(options);
        (parser.is_nested, parser.after_call, parser.python) = (true, certain, certain);
        let mut events = Vec::new();
        parser.feed(text, &mut events);
        parser.finish(End::Stop, &mut events);
        events
    }

    /// Returns true if the stream so far ends inside a thinking block.
    #[must_use]
    pub fn thinking(&self) -> bool {
        matches!(self.mode, Mode::Think)
    }

    fn run(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        while let Flow::Go = self.step(win, out) {}
        if matches!(self.mode, Mode::Text | Mode::Think | Mode::Result | Mode::Python(_)) {
            self.show(win, self.pos, out);
        }
    }

    /// Returns the offset of the first byte that must be kept, either because it may be scanned
    /// again or because it has not been shown yet.
    fn needed(&self) -> usize {
        let needed = match &self.mode {
            Mode::Object(candidate) => candidate.start,
            Mode::Head(head) => head.start,
            Mode::Header(header) => header.start,
            Mode::Raw(raw) => raw.start,
            Mode::Invoke(invoke) => invoke.start,
            Mode::File(file) => file.fence.start,
            _ => self.pos,
        };
        let deferred = self.deferred.filter(|start| self.calls == 0 && self.pos - start < MAX_ANSWER);
        needed.min(self.shown).min(deferred.unwrap_or(needed)).max(self.base)
    }

    fn step(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match self.mode {
            Mode::Text => self.text(win, out),
            Mode::Think => self.think(win, out),
            Mode::Result => self.result(win, out),
            Mode::Object(_) => self.object(win, out),
            Mode::Head(_) => self.head(win, out),
            Mode::Header(_) => self.header(win, out),
            Mode::Raw(_) => self.raw(win, out),
            Mode::Python(_) => self.python_answer(win),
            Mode::Invoke(_) => self.invoke(win, out),
            Mode::File(_) => self.file(win, None, out),
        }
    }

    fn text(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        if self.hold.is_some_and(|hold| self.pos - hold > MAX_HOLD) {
            self.hold = None;
        }
        if self.file_begins(byte, out) {
            return Flow::Go;
        }
        if !self.answer_begun
            && !self.line_has_text
            && (byte == b'[' || byte.is_ascii_alphabetic())
            && win.slice(self.shown, self.pos).iter().all(u8::is_ascii_whitespace)
        {
            match self.begins_in_python(win, byte) {
                None => return Flow::More,
                Some(true) => {
                    self.line_has_text = true;
                    self.mode = Mode::Python(Brackets::default());
                    return Flow::Go;
                }
                Some(false) => {}
            }
        }
        if !std::mem::replace(&mut self.past_column_zero, true) && self.after_malformed {
            self.skip_line = !matches!(byte, b'{' | b'[' | b'<' | b'`' | b'~');
        }
        match byte {
            b'\n' => {
                self.pos += 1;
                if !self.line_has_text && !self.after_call {
                    self.example = None;
                }
                self.line_has_text = false;
                self.skip_line = false;
                self.past_column_zero = false;
                self.inline = 0;
                Flow::Go
            }
            b'<' if self.skip_line => self.tag_on_skipped_line(win, out),
            _ if self.skip_line => {
                let rest = win.from(self.pos);
                let len = rest.iter().position(|b| matches!(b, b'\n' | b'<')).unwrap_or(rest.len());
                self.plain(len.max(1))
            }
            b' ' | b'\t' | b'\r' => self.advance(1),
            b']' => self.closing_bracket(win, out),
            b',' | b';' | b'}' | b')' if self.after_call => {
                self.skip(win, self.pos + 1, out);
                Flow::Go
            }
            b'`' | b'~' => self.ticks(win, byte, out),
            b'{' => self.brace(win, out),
            b'<' => self.tag(win, out),
            b'[' => self.bracket(win, out),
            b'(' | b'"' | b'\'' if !self.line_has_text && self.fence.as_ref().is_none_or(|f| f.fresh) => {
                self.missing_brace(win, out)
            }
            0xEF if self.pos == 0 => self.byte_order_mark(win),
            0xE2 => self.literal(win, out),
            b'a'..=b'z' if self.role_follows => self.role(win, out),
            b'a'..=b'z' | b'A'..=b'Z' | b'_'
                if self.python && (!self.line_has_text || self.after_call || self.hold.is_some()) =>
            {
                self.python_call(win, out)
            }
            b'U' | b'H' if !self.line_has_text && self.fence.is_none() => self.invented_turn(win, out),
            b'f' | b'H' | b'&' if !self.line_has_text => self.literal(win, out),
            b'O' if !self.line_has_text && self.saw_react => self.observation(win),
            b'#' if !self.line_has_text && self.fence.is_none() => self.instruction(win),
            _ => {
                let stops = |b: &u8| matches!(b, b'\n' | b'`' | b'~' | b'{' | b'<' | b'[' | b']' | 0xE2);
                let rest = win.from(self.pos);
                let len = rest.iter().position(stops).unwrap_or(rest.len());
                self.plain(len.max(1))
            }
        }
    }

    /// Returns the text right before the current position, starting at a word boundary.
    pub(crate) fn before(&self) -> &[u8] {
        let Some(cut) = self.tail.len().checked_sub(prose::REACH + 1) else { return &self.tail };
        let reached = &self.tail[cut..];
        let word = reached.iter().position(u8::is_ascii_whitespace).map_or(reached.len(), |at| at + 1);
        &reached[word..]
    }

    /// Treats the next `len` bytes, and anything held back before them, as prose.
    pub(crate) fn plain(&mut self, len: usize) -> Flow {
        self.line_has_text = true;
        self.after_call = false;
        self.role_follows = false;
        self.python = false;
        self.listed = false;
        self.hold = None;
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
        }
        self.advance(len)
    }

    /// Continues after the next `len` bytes.
    pub(crate) fn advance(&mut self, len: usize) -> Flow {
        self.pos += len;
        Flow::Go
    }

    /// Drops the bytes up to `to`, which mean nothing to a reader.
    pub(crate) fn skip(&mut self, win: Window<'_>, to: usize, out: &mut Vec<Event>) {
        if self.hold.is_none() {
            self.show(win, self.pos, out);
            self.shown = to;
        }
        self.pos = to;
    }

    /// Emits the text before `upto`, except for text that is held back.
    pub(crate) fn show(&mut self, win: Window<'_>, upto: usize, out: &mut Vec<Event>) {
        let upto = self.hold.map_or(upto, |hold| hold.min(upto));
        if upto <= self.shown {
            return;
        }
        let mut bytes = win.slice(self.shown, upto);
        if !win.eof && upto == win.end() {
            bytes = &bytes[..bytes.len() - incomplete_char_len(bytes)];
        }
        if bytes.is_empty() {
            return;
        }
        self.shown += bytes.len();
        let text = String::from_utf8_lossy(bytes);
        if matches!(self.mode, Mode::Think) {
            self.thinking.push(bytes);
            match out.last_mut() {
                Some(Event::Thinking(last)) => last.push_str(&text),
                _ => out.push(Event::Thinking(text.into_owned())),
            }
            return;
        }
        match out.last_mut() {
            Some(Event::Text(last)) => last.push_str(&text),
            _ => out.push(Event::Text(text.into_owned())),
        }
        if !bytes.trim_ascii().is_empty() {
            self.thinking.forget();
        }
        self.keep_answer(bytes);
        // Keep one more byte than `REACH`, to tell whether a word begins right after that byte.
        let most = prose::REACH + 1;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(most)..]);
        if self.tail.len() > 4 * most {
            self.tail.drain(..self.tail.len() - most);
        }
    }

    /// Discards the kept answer. Called when the text emitted so far turns out to be thinking.
    pub(crate) fn begin_answer(&mut self) {
        self.answer.clear();
        self.answer_begun = false;
        self.deferred = None;
    }

    /// Keeps the bytes that were just emitted, as long as the answer may consist only of Python
    /// calls.
    fn keep_answer(&mut self, bytes: &[u8]) {
        let start = self.shown - bytes.len();
        if !self.answer_begun {
            let blanks = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.answer_start = start + blanks;
            self.answer.extend_from_slice(&bytes[blanks..]);
            self.answer_begun = !self.answer.is_empty();
        } else if !self.answer.is_empty() {
            let whole = start == self.answer_start + self.answer.len() && self.answer.len() < MAX_ANSWER;
            let looked = self.answer.len() > python::MAX_HEAD;
            match whole && (looked || python::may_begin(&self.answer)) {
                true => self.answer.extend_from_slice(bytes),
                false => self.answer.clear(),
            }
        }
    }

    fn byte_order_mark(&mut self, win: Window<'_>) -> Flow {
        match win.bytes {
            [0xEF, 0xBB, 0xBF, ..] => {
                (self.pos, self.shown) = (3, 3);
                Flow::Go
            }
            [0xEF] | [0xEF, 0xBB] if !win.eof => Flow::More,
            _ => self.plain(1),
        }
    }

    pub(crate) fn sink<'a>(&'a mut self, out: &'a mut Vec<Event>) -> Sink<'a> {
        Sink { options: &self.options, calls: &mut self.calls, out }
    }

    /// Reports a malformed call and continues with prose at `pos`.
    pub(crate) fn fail(&mut self, why: Malformed, pos: usize, out: &mut Vec<Event>) {
        out.push(Event::Malformed { why, at: pos });
        self.leave_call(pos);
        self.skip_line = true;
        self.after_malformed = true;
    }

    /// Continues after a complete call that ended at `pos`.
    pub(crate) fn call_ended(&mut self, pos: usize) {
        self.leave_call(pos);
        self.after_call = true;
        self.after_malformed = false;
        self.tail.clear();
    }

    fn leave_call(&mut self, pos: usize) {
        self.mode = Mode::Text;
        (self.pos, self.shown, self.hold) = (pos, pos, None);
        self.announced = false;
        self.line_has_text = true;
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
            fence.hidden = true;
        }
    }

    fn end(&mut self, win: Window<'_>, end: End, out: &mut Vec<Event>) {
        if matches!(self.mode, Mode::File(_)) {
            self.file(win, Some(end), out);
        }
        while let (End::Stop, Mode::Invoke(invoke)) = (end, &mut self.mode)
            && invoke.resolve()
        {
            self.run(win, out);
        }
        let alone = self.lead_in(false) != prose::LeadIn::Example;
        let why = match &mut self.mode {
            Mode::Object(candidate)
                if candidate.has_begun()
                    || candidate.eligible.unwrap_or(alone) && candidate.may_begin(win) =>
            {
                let in_string = candidate.reader.in_string();
                Some(if in_string { Malformed::TruncatedInString } else { Malformed::Truncated })
            }
            Mode::Head(head) if head.certain || head.is_empty(win) => Some(Malformed::Truncated),
            Mode::Head(head) if end != End::Stop && (self.cut_tag || head.one_word(win)) => {
                Some(Malformed::Truncated)
            }
            Mode::Raw(_) => {
                let whole = end == End::Stop && self.end_raw(win, out);
                if whole { None } else { Some(Malformed::TruncatedInString) }
            }
            Mode::Invoke(invoke) => {
                if end == End::Stop && invoke.only_closer_missing() {
                    invoke.repairs.add(Repair::MissingCloser);
                    self.complete_invoke(out);
                    None
                } else {
                    Some(if invoke.in_value() { Malformed::TruncatedInString } else { Malformed::Truncated })
                }
            }
            Mode::File(_) => Some(Malformed::TruncatedFile),
            Mode::Header(header) if header.announces(win) => Some(Malformed::Truncated),
            Mode::Text if self.announced => Some(Malformed::Truncated),
            Mode::Text if self.cut_tag && end != End::Stop => Some(Malformed::Truncated),
            _ => None,
        };
        if let Some(why) = why {
            out.push(Event::Malformed { why, at: win.end() });
            self.shown = win.end();
        }
        if !matches!(self.mode, Mode::Think) {
            self.mode = Mode::Text;
        }
        self.hold = None;
        self.show(win, win.end(), out);
        if self.is_nested {
            return;
        }
        let malformed = |out: &[Event]| out.iter().any(|e| matches!(e, Event::Malformed { .. }));
        // Look for calls in thinking only after a normal stop, because an answer that was cut off
        // might have continued.
        if self.calls == 0 && end == End::Stop {
            self.call_in_thought(out);
        }
        if self.calls == 0 && !malformed(out) && end == End::Stop {
            self.call_in_prose(win, out);
        }
        if self.calls == 0 && !malformed(out) {
            match python::calls(&self.answer, &self.options) {
                Ok(calls) if end == End::Stop => self.emit_calls(calls, self.answer_start, out),
                Ok(_) => {}
                Err(why) => out.push(Event::Malformed { why, at: win.end() }),
            }
        }
    }
}

/// Returns the number of bytes at the end of `bytes` that form an incomplete character.
fn incomplete_char_len(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let need = match bytes[bytes.len() - back] {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if need > back { back } else { 0 };
    }
    0
}
