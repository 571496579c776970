//! The outer scanner: splits the stream into prose, think blocks, fences, tokens and objects.
//!
//! Every decision depends on the bytes up to a definite offset and waits until they are there; that is why the events
//! do not depend on the chunks. What belongs to tags is in `tokens.rs`, what belongs to fences in `blocks.rs`.

use crate::event::{End, Event, Malformed, Options, Repair};
use crate::fence::Fence;
use crate::markup::Invoke;
use crate::object::{Candidate, Named, Outcome};
use crate::prose;
use crate::tokens::Naming;
use crate::whole_file::File;
use crate::window::Window;

/// The streaming parser. See the crate's documentation for what it understands.
#[derive(Debug)]
pub struct Parser {
    pub(crate) options: Options,
    buf: Vec<u8>,
    /// Offset of `buf[0]` in the stream.
    base: usize,
    /// Offset of the next byte to look at.
    pub(crate) pos: usize,
    /// Text before this offset has been shown or dropped.
    pub(crate) shown: usize,
    /// Text from here on is held back until it is known whether it surrounds a call.
    pub(crate) hold: Option<usize>,
    pub(crate) mode: Mode,
    pub(crate) calls: usize,
    /// Only blanks so far on this line.
    pub(crate) line_blank: bool,
    /// No call begins on the rest of this line: a broken call ended on it, or may go on there.
    pub(crate) line_dead: bool,
    /// A call broke. Where it ended is a guess, and what stands in its strings must not be taken for calls: from here
    /// on only what begins in the first column counts, or what stands behind a closing tag or token.
    wary: bool,
    /// At the first byte of a line.
    column_zero: bool,
    /// The end of the text shown so far.
    pub(crate) tail: Vec<u8>,
    pub(crate) fence: Option<Fence>,
    /// Length of the backtick run that opened inline code on this line.
    pub(crate) inline: usize,
    /// A token or tag has announced a call.
    pub(crate) announced: bool,
    /// Directly behind a call: stray closers are dropped.
    pub(crate) behind_call: bool,
    /// The closing fence of a token call's arguments is still to come.
    pub(crate) swallow_fence: bool,
    /// Somebody else's turn, invented by the model.
    pub(crate) foreign: bool,
    /// The next word is the role whose turn begins.
    pub(crate) role_follows: bool,
    pub(crate) think_seen: bool,
    /// The think block is a channel, which ends with a token.
    pub(crate) channel_thought: bool,
    /// Bytes looked at again after a failed object.
    again: usize,
    /// Objects for which the text before them was judged.
    asked: usize,
    /// How far the tag at hand has been searched for its end.
    pub(crate) searched: usize,
    finished: bool,
}

/// Where in the stream the parser is.
#[derive(Debug)]
pub(crate) enum Mode {
    Text,
    Think,
    /// Inside what a tool would have answered.
    Result,
    Object(Box<Candidate>),
    Naming(Box<Naming>),
    Invoke(Box<Invoke>),
    File(Box<File>),
}

pub(crate) enum Flow {
    Go,
    More,
}

/// Bytes held back around a possible call, at most.
const MAX_HOLD: usize = 4096;
/// Objects behind prose that may be calls, at most; whoever writes more of them is not calling tools.
const MAX_ASKED: usize = 4096;
/// Bytes that may be looked at again after failed objects, beside four times those read.
const AGAIN: usize = 64 << 10;

impl Parser {
    /// A parser at the start of a stream.
    #[must_use]
    pub fn new(options: Options) -> Parser {
        let mode = if options.starts_thinking { Mode::Think } else { Mode::Text };
        Parser {
            think_seen: options.starts_thinking,
            options,
            buf: Vec::new(),
            base: 0,
            pos: 0,
            shown: 0,
            hold: None,
            mode,
            calls: 0,
            line_blank: true,
            line_dead: false,
            wary: false,
            column_zero: true,
            tail: Vec::new(),
            fence: None,
            inline: 0,
            announced: false,
            behind_call: false,
            swallow_fence: false,
            foreign: false,
            role_follows: false,
            channel_thought: false,
            again: 0,
            asked: 0,
            searched: 0,
            finished: false,
        }
    }

    /// Takes the next bytes of the stream, however they were cut, and appends what they bring to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        if self.finished {
            return;
        }
        if self.buf.is_empty() {
            // Nothing is left over from before: read the bytes where they are and keep what is still needed.
            self.run(Window { bytes, base: self.base, eof: false }, out);
            let keep = self.needed();
            self.buf.extend_from_slice(&bytes[keep - self.base..]);
            self.base = keep;
            return;
        }
        // The buffer steps aside so that the window does not borrow the parser.
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

    /// The stream has ended. Whatever is still open is text or [`Event::Malformed`], never a call.
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

    /// True if the stream so far ends inside a think block.
    #[must_use]
    pub fn thinking(&self) -> bool {
        matches!(self.mode, Mode::Think)
    }

    fn run(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        while let Flow::Go = self.step(win, out) {}
        if matches!(self.mode, Mode::Text | Mode::Think | Mode::Result) {
            self.show(win, self.pos, out);
        }
    }

    /// Offset of the first byte that may be looked at again.
    fn needed(&self) -> usize {
        let needed = match &self.mode {
            Mode::Object(candidate) => candidate.start,
            Mode::Naming(naming) => naming.start,
            Mode::Invoke(invoke) => invoke.start,
            Mode::File(file) => file.fence.start,
            _ => self.pos,
        };
        needed.min(self.shown).max(self.base)
    }

    fn step(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match self.mode {
            Mode::Text => self.text(win, out),
            Mode::Think => self.think(win, out),
            Mode::Result => self.result(win, out),
            Mode::Object(_) => self.object(win, out),
            Mode::Naming(_) => self.naming(win, out),
            Mode::Invoke(_) => self.invoke(win, out),
            Mode::File(_) => self.file(win, None, out),
        }
    }

    // ---- prose -----------------------------------------------------------------------------------------------

    fn text(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        if self.hold.is_some_and(|hold| self.pos - hold > MAX_HOLD) {
            self.hold = None;
        }
        if self.file_begins(byte, out) {
            return Flow::Go;
        }
        if std::mem::take(&mut self.column_zero) && self.wary {
            self.line_dead = !matches!(byte, b'{' | b'[' | b'<' | b'`' | b'~');
        }
        match byte {
            b'\n' => {
                self.pos += 1;
                self.line_blank = true;
                self.line_dead = false;
                self.column_zero = true;
                self.inline = 0;
                Flow::Go
            }
            b'<' if self.line_dead => self.tag_on_dead_line(win, out),
            _ if self.line_dead => {
                let rest = win.from(self.pos);
                let len = rest.iter().position(|b| matches!(b, b'\n' | b'<')).unwrap_or(rest.len());
                self.plain(len.max(1))
            }
            b' ' | b'\t' | b'\r' => {
                self.pos += 1;
                Flow::Go
            }
            b',' | b';' | b']' | b'}' | b')' if self.behind_call => {
                self.skip(win, self.pos + 1, out);
                Flow::Go
            }
            b'`' | b'~' => self.ticks(win, byte, out),
            b'{' => self.brace(win, out),
            b'<' => self.tag(win, out),
            b'[' => self.bracket(win, out),
            0xEF if self.pos == 0 => self.byte_order_mark(win),
            0xE2 => self.flower(win, out),
            b'a'..=b'z' if self.role_follows => self.role(win, out),
            b'f' if self.line_blank => self.functools(win, out),
            b'#' if self.line_blank && self.fence.is_none() => self.instruction(win),
            _ => {
                let stops = |b: &u8| matches!(b, b'\n' | b'`' | b'~' | b'{' | b'<' | b'[' | 0xE2);
                let rest = win.from(self.pos);
                let len = rest.iter().position(stops).unwrap_or(rest.len());
                self.plain(len.max(1))
            }
        }
    }

    /// The text right before what comes now, as far as it is looked at, in whatever pieces it came: whole words.
    pub(crate) fn before(&self) -> &[u8] {
        let Some(cut) = self.tail.len().checked_sub(prose::REACH + 1) else { return &self.tail };
        let reached = &self.tail[cut..];
        let word = reached.iter().position(u8::is_ascii_whitespace).map_or(reached.len(), |at| at + 1);
        &reached[word..]
    }

    /// Prose: whatever was held back before it is prose too.
    pub(crate) fn plain(&mut self, len: usize) -> Flow {
        self.line_blank = false;
        self.behind_call = false;
        self.role_follows = false;
        self.hold = None;
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
        }
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

    /// Hands out the text before `upto`, as far as it is not held back.
    pub(crate) fn show(&mut self, win: Window<'_>, upto: usize, out: &mut Vec<Event>) {
        let upto = self.hold.map_or(upto, |hold| hold.min(upto));
        if upto <= self.shown {
            return;
        }
        let mut bytes = win.slice(self.shown, upto);
        if !win.eof && upto == win.end() {
            bytes = &bytes[..bytes.len() - unfinished(bytes)];
        }
        if bytes.is_empty() {
            return;
        }
        self.shown += bytes.len();
        let text = String::from_utf8_lossy(bytes);
        if matches!(self.mode, Mode::Think) {
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
        // One byte more, which tells whether a word begins there.
        let most = prose::REACH + 1;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(most)..]);
        if self.tail.len() > 4 * most {
            self.tail.drain(..self.tail.len() - most);
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

    /// Whether `word` stands here; `None` if more bytes are needed to say.
    fn word_here(&self, win: Window<'_>, word: &[u8]) -> Option<bool> {
        let rest = win.from(self.pos);
        if rest.len() < word.len() && word.starts_with(rest) && !win.eof {
            return None;
        }
        Some(rest.starts_with(word))
    }

    /// `[TOOL_CALLS]`, `[TOOL_REQUEST]`, `[END_TOOL_REQUEST]`, or a bracket around objects.
    fn bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        const WORDS: [(&[u8], bool, bool); 4] = [
            (b"[TOOL_CALLS]", true, true),
            (b"[TOOL_REQUEST]", true, false),
            (b"[END_TOOL_REQUEST]", false, false),
            (b"[/TOOL_CALLS]", false, false),
        ];
        if self.inline == 0 && self.fence.is_none() && !self.foreign {
            for (word, announces, name) in WORDS {
                match self.word_here(win, word) {
                    None => return Flow::More,
                    Some(false) => {}
                    Some(true) => {
                        let (start, after) = (self.pos, self.pos + word.len());
                        self.skip(win, after, out);
                        self.announced = announces;
                        self.behind_call = !announces;
                        if name {
                            self.name_follows(start, after, false, true);
                        }
                        return Flow::Go;
                    }
                }
            }
        }
        if self.inline == 0 && (self.line_blank || self.behind_call || self.announced) {
            self.show(win, self.pos, out);
            self.hold.get_or_insert(self.pos);
            self.pos += 1;
            return Flow::Go;
        }
        self.plain(1)
    }

    /// Qwen's `✿FUNCTION✿: name` and `✿ARGS✿:`.
    fn flower(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let word = "✿FUNCTION✿".as_bytes();
        match self.word_here(win, word) {
            None => Flow::More,
            Some(true) if self.inline == 0 && self.fence.is_none() && !self.foreign => {
                let (start, after) = (self.pos, self.pos + word.len());
                self.skip(win, after, out);
                self.announced = true;
                self.name_follows(start, after, false, false);
                Flow::Go
            }
            Some(_) => self.plain(1),
        }
    }

    /// `functools[{…}]`.
    fn functools(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let word = b"functools[";
        match self.word_here(win, word) {
            None => Flow::More,
            Some(true) => {
                self.skip(win, self.pos + word.len(), out);
                self.announced = true;
                Flow::Go
            }
            Some(false) => self.plain(1),
        }
    }

    /// `### Instruction:` and `### Response:`, the turns of deepseek-coder v1.
    fn instruction(&mut self, win: Window<'_>) -> Flow {
        for (word, foreign) in [(&b"### Instruction:"[..], true), (b"### Response:", false)] {
            match self.word_here(win, word) {
                None => return Flow::More,
                Some(false) => {}
                Some(true) => {
                    self.foreign = foreign;
                    return self.plain(word.len());
                }
            }
        }
        self.plain(1)
    }

    /// The role behind `<|im_start|>`: what is not the assistant's was invented by it.
    fn role(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let len = rest.iter().take(16).position(|b| !b.is_ascii_lowercase());
        let Some(len) = len else {
            return if rest.len() >= 16 || win.eof { self.plain(1) } else { Flow::More };
        };
        match &rest[..len] {
            b"assistant" => self.foreign = false,
            b"user" | b"system" | b"tool" | b"developer" => self.foreign = true,
            _ => return self.plain(1),
        }
        self.role_follows = false;
        self.skip(win, self.pos + len, out);
        Flow::Go
    }

    // ---- objects ---------------------------------------------------------------------------------------------

    fn brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        let allowed = match &self.fence {
            Some(fence) => fence.fresh || (fence.data && self.line_blank) || self.behind_call,
            None => self.inline == 0,
        };
        let eligible = match () {
            () if !allowed || self.foreign => Some(false),
            () if self.announced || self.behind_call => Some(true),
            () => None,
        };
        let named = prose::react(self.before())
            .filter(|_| eligible.is_none() && self.shown == self.pos)
            .map(|(tool, back)| Named { tool: self.options.bare_name(&tool), start: self.pos - back });
        let eligible = if named.is_some() { Some(true) } else { eligible };
        self.begin(self.pos, eligible, named);
        Flow::Go
    }

    /// Whether the text before the object at hand leaves it a call.
    fn stands_alone(&self) -> bool {
        let same_line = !self.line_blank && self.hold.is_none();
        !prose::is_example(self.before(), same_line)
    }

    pub(crate) fn begin(&mut self, start: usize, eligible: Option<bool>, named: Option<Named>) {
        let mut candidate = Candidate::new(start, eligible, self.announced, named, self.options.max_depth);
        candidate.line_start = self.line_blank || self.behind_call || self.hold.is_some();
        self.mode = Mode::Object(Box::new(candidate));
    }

    fn object(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Object(candidate) = &mut self.mode else { return Flow::Go };
        let outcome = candidate.run(win, &self.options, &mut self.calls, out);
        let (start, pos) = (candidate.start, candidate.reader.pos);
        match outcome {
            Outcome::More => return Flow::More,
            Outcome::Ask => {
                self.asked += 1;
                let alone = self.asked <= MAX_ASKED && self.stands_alone();
                if let Mode::Object(candidate) = &mut self.mode {
                    candidate.answer(alone);
                }
            }
            Outcome::Closed { called: true } => self.called(pos),
            Outcome::Failed { why, called: true } => self.fail(why, pos, out),
            Outcome::Closed { called: false } | Outcome::Failed { .. } => {
                self.mode = Mode::Text;
                if self.fence_is_file(out) {
                    return Flow::Go;
                }
                let closed = matches!(outcome, Outcome::Closed { .. });
                if !closed {
                    self.again += pos - start;
                }
                // A failed object may have a call behind its first brace, within a budget that keeps this linear.
                let on = if closed || self.again > AGAIN + 4 * pos { pos } else { start + 1 };
                self.plain(0);
                self.pos = on.max(start + 1);
            }
        }
        Flow::Go
    }

    /// A call that had begun cannot be had; prose goes on at `pos`.
    pub(crate) fn fail(&mut self, why: Malformed, pos: usize, out: &mut Vec<Event>) {
        out.push(Event::Malformed { why, at: pos });
        self.hold = None;
        self.shown = pos;
        self.pos = pos;
        self.mode = Mode::Text;
        self.announced = false;
        self.line_dead = true;
        self.wary = true;
        self.line_blank = false;
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
            fence.hidden = true;
        }
    }

    /// Behind a complete call that ended at `pos`.
    pub(crate) fn called(&mut self, pos: usize) {
        self.mode = Mode::Text;
        self.pos = pos;
        self.shown = pos;
        self.hold = None;
        self.announced = false;
        self.behind_call = true;
        self.wary = false;
        self.line_blank = false;
        self.tail.clear();
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
            fence.hidden = true;
        }
    }

    // ---- the end ---------------------------------------------------------------------------------------------

    fn end(&mut self, win: Window<'_>, end: End, out: &mut Vec<Event>) {
        if matches!(self.mode, Mode::File(_)) {
            self.file(win, Some(end), out);
        }
        let alone = self.stands_alone();
        let why = match &mut self.mode {
            Mode::Object(candidate)
                if candidate.begun() || candidate.eligible.unwrap_or(alone) && candidate.may_begin(win) =>
            {
                let in_string = candidate.reader.in_string();
                Some(if in_string { Malformed::TruncatedInString } else { Malformed::Truncated })
            }
            Mode::Naming(naming) if naming.certain || naming.is_empty(win) => Some(Malformed::Truncated),
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
            Mode::Text if self.announced => Some(Malformed::Truncated),
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
    }
}

/// Bytes at the end that are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
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
