//! The outer scanner: splits the stream into prose, think blocks, fences, tokens and objects.
//!
//! Every decision depends on the bytes up to a definite offset and waits until they are there; that is why the events
//! do not depend on the chunks.

use serde_json::{Map, Value};

use crate::event::{Call, End, Event, Malformed, Options, Repair};
use crate::markup::{self, Invoke, tag_length};
use crate::object::{Candidate, Named, Outcome};
use crate::prose;
use crate::tags::{Tag, classify};
use crate::window::Window;

/// The streaming parser. See the crate's documentation for what it understands.
#[derive(Debug)]
pub struct Parser {
    options: Options,
    buf: Vec<u8>,
    /// Offset of `buf[0]` in the stream.
    base: usize,
    /// Offset of the next byte to look at.
    pos: usize,
    /// Text before this offset has been shown or dropped.
    shown: usize,
    /// Text from here on is held back until it is known whether it surrounds a call.
    hold: Option<usize>,
    mode: Mode,
    calls: usize,
    /// Only blanks so far on this line.
    line_blank: bool,
    /// Something failed on this line: no call begins on the rest of it.
    line_dead: bool,
    /// The end of the text shown so far.
    tail: Vec<u8>,
    fence: Option<Fence>,
    /// Length of the backtick run that opened inline code on this line.
    inline: usize,
    /// A token or tag has announced a call.
    announced: bool,
    /// Directly behind a call: stray closers are dropped.
    behind_call: bool,
    /// The closing fence of a token call's arguments is still to come.
    swallow_fence: bool,
    /// Somebody else's turn, invented by the model.
    foreign: bool,
    think_seen: bool,
    /// Bytes looked at again after a failed object.
    again: usize,
    searched: usize,
    finished: bool,
}

#[derive(Debug)]
enum Mode {
    Text,
    Think,
    /// Inside what a tool would have answered.
    Result,
    Object(Box<Candidate>),
    Naming(Naming),
    Invoke(Box<Invoke>),
}

/// A token call before its arguments.
#[derive(Debug)]
struct Naming {
    start: usize,
    /// Where the text after the last separator begins.
    segment: usize,
    before: String,
    /// A separator came: the name is complete.
    separated: bool,
    /// From a token, not from a word that may be prose.
    certain: bool,
}

#[derive(Debug)]
struct Fence {
    byte: u8,
    len: usize,
    /// Calls may stand on any line in it, not only at its start.
    data: bool,
    /// Nothing but blanks so far.
    fresh: bool,
    /// Its opening line is not shown, so its closing line is not either.
    hidden: bool,
}

/// Bytes between the name of a token call and its arguments, at most.
const MAX_NAMING: usize = 512;
/// Bytes held back around a possible call, at most.
const MAX_HOLD: usize = 4096;
/// Bytes of an opening fence line, at most.
const MAX_INFO: usize = 512;

enum Flow {
    Go,
    More,
}

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
            tail: Vec::new(),
            fence: None,
            inline: 0,
            announced: false,
            behind_call: false,
            swallow_fence: false,
            foreign: false,
            again: 0,
            searched: 0,
            finished: false,
        }
    }

    /// Takes the next bytes of the stream, however they were cut, and appends what they bring to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        if self.finished {
            return;
        }
        self.buf.extend_from_slice(bytes);
        self.run(false, out);
        self.compact();
    }

    /// The stream has ended. Whatever is still open is text or [`Event::Malformed`], never a call.
    pub fn finish(&mut self, end: End, out: &mut Vec<Event>) {
        if self.finished {
            return;
        }
        self.run(true, out);
        self.end(end, out);
        self.finished = true;
    }

    /// True if the stream so far ends inside a think block.
    #[must_use]
    pub fn thinking(&self) -> bool {
        matches!(self.mode, Mode::Think)
    }

    fn run(&mut self, eof: bool, out: &mut Vec<Event>) {
        // The buffer steps aside so that the window does not borrow the parser.
        let buf = std::mem::take(&mut self.buf);
        let win = Window { bytes: &buf, base: self.base, eof };
        while let Flow::Go = self.step(win, out) {}
        if matches!(self.mode, Mode::Text | Mode::Think | Mode::Result) {
            self.show(win, self.pos, out);
        }
        self.buf = buf;
    }

    fn compact(&mut self) {
        let keep = match &self.mode {
            Mode::Object(candidate) => candidate.start,
            Mode::Naming(naming) => naming.start,
            Mode::Invoke(invoke) => invoke.start,
            _ => self.pos,
        };
        // An unfinished character stays for the next piece.
        let keep = keep.min(self.shown).max(self.base);
        let cut = keep - self.base;
        if cut == self.buf.len() {
            self.buf.clear();
            self.base = keep;
        } else if cut > 4096 && cut > self.buf.len() / 2 {
            self.buf.drain(..cut);
            self.base = keep;
        }
    }

    fn step(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match self.mode {
            Mode::Text => self.text(win, out),
            Mode::Think => self.think(win, out),
            Mode::Result => self.result(win, out),
            Mode::Object(_) => self.object(win, out),
            Mode::Naming(_) => self.naming(win, out),
            Mode::Invoke(_) => self.invoke(win, out),
        }
    }

    // ---- prose -----------------------------------------------------------------------------------------------

    fn text(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        if let Some(hold) = self.hold
            && self.pos - hold > MAX_HOLD
        {
            self.release();
        }
        match byte {
            b'\n' => {
                self.pos += 1;
                self.line_blank = true;
                self.line_dead = false;
                self.inline = 0;
                Flow::Go
            }
            b' ' | b'\t' | b'\r' => {
                self.pos += 1;
                Flow::Go
            }
            b',' | b';' | b']' | b'}' | b')' if self.behind_call => {
                self.show(win, self.pos, out);
                self.pos += 1;
                self.shown = self.pos;
                Flow::Go
            }
            b'`' | b'~' => self.ticks(win, byte, out),
            b'{' => self.brace(win, out),
            b'<' => self.tag(win, out),
            b'[' => self.bracket(win, out),
            0xEF if self.pos == 0 => self.byte_order_mark(win),
            0xE2 => self.flower(win, out),
            b'f' if self.line_blank => self.functools(win, out),
            _ => {
                self.ordinary();
                let rest = win.from(self.pos);
                let skip = rest
                    .iter()
                    .position(|b| matches!(b, b'\n' | b'`' | b'~' | b'{' | b'<' | b'[' | 0xE2 | b' '))
                    .unwrap_or(rest.len());
                self.pos += skip.max(1);
                Flow::Go
            }
        }
    }

    /// A byte of prose: whatever was held back is prose too.
    fn ordinary(&mut self) {
        self.line_blank = false;
        self.behind_call = false;
        self.release();
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
        }
    }

    fn release(&mut self) {
        self.hold = None;
    }

    fn plain(&mut self, len: usize) -> Flow {
        self.ordinary();
        self.pos += len;
        Flow::Go
    }

    /// Drops the bytes up to `to`, which mean nothing to a reader.
    fn skip(&mut self, win: Window<'_>, to: usize, out: &mut Vec<Event>) {
        if self.hold.is_none() {
            self.show(win, self.pos, out);
            self.shown = to;
        }
        self.pos = to;
    }

    /// Hands out the text before `upto`, as far as it is not held back.
    fn show(&mut self, win: Window<'_>, upto: usize, out: &mut Vec<Event>) {
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
        let thinking = matches!(self.mode, Mode::Think);
        match out.last_mut() {
            Some(Event::Text(last)) if !thinking => last.push_str(&text),
            Some(Event::Thinking(last)) if thinking => last.push_str(&text),
            _ if thinking => out.push(Event::Thinking(text.into_owned())),
            _ => out.push(Event::Text(text.into_owned())),
        }
        if !thinking {
            let keep = &bytes[bytes.len().saturating_sub(prose::REACH)..];
            self.tail.extend_from_slice(keep);
            if self.tail.len() > 4 * prose::REACH {
                self.tail.drain(..self.tail.len() - prose::REACH);
            }
        }
    }

    fn byte_order_mark(&mut self, win: Window<'_>) -> Flow {
        match win.bytes {
            [0xEF, 0xBB, 0xBF, ..] => {
                self.pos = 3;
                self.shown = 3;
                Flow::Go
            }
            [0xEF] | [0xEF, 0xBB] if !win.eof => Flow::More,
            _ => self.plain(1),
        }
    }

    // ---- fences and inline code ------------------------------------------------------------------------------

    fn ticks(&mut self, win: Window<'_>, byte: u8, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let run = rest.iter().position(|b| *b != byte).unwrap_or(rest.len());
        if run == rest.len() && !win.eof {
            return if run > MAX_INFO { self.plain(run) } else { Flow::More };
        }
        if let Some(fence) = &self.fence {
            if byte == fence.byte && run >= fence.len && (self.line_blank || self.behind_call) {
                return self.close_fence(win, run, out);
            }
            return self.plain(run);
        }
        if self.swallow_fence && run >= 3 && (self.line_blank || self.behind_call) {
            self.swallow_fence = false;
            self.skip(win, self.pos + run, out);
            return Flow::Go;
        }
        if run >= 3 && self.line_blank {
            return self.open_fence(win, byte, run, out);
        }
        if byte == b'`' {
            self.inline = match self.inline {
                0 => run,
                open if open == run => 0,
                open => open,
            };
        }
        self.plain(run)
    }

    fn open_fence(&mut self, win: Window<'_>, byte: u8, run: usize, out: &mut Vec<Event>) -> Flow {
        let info_start = self.pos + run;
        let rest = win.from(info_start);
        let stop = rest.iter().take(MAX_INFO).position(|b| matches!(b, b'\n' | b'{') || *b == byte);
        let Some(stop) = stop else {
            return if win.eof || rest.len() >= MAX_INFO { self.plain(run) } else { Flow::More };
        };
        if rest[stop] == byte {
            // A run and its partner on one line: inline code.
            self.inline = run;
            return self.plain(run);
        }
        let label = String::from_utf8_lossy(&rest[..stop]);
        let label = label.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        let data =
            matches!(label.as_str(), "" | "json" | "jsonc" | "json5" | "jsonl" | "javascript" | "js" | "xml")
                || label.contains("tool")
                || label.contains("call")
                || label.starts_with("json");
        let data = data && !matches!(label.as_str(), "javascript" | "js");
        self.behind_call = false;
        self.show(win, self.pos, out);
        self.hold.get_or_insert(self.pos);
        self.fence = Some(Fence { byte, len: run, data, fresh: true, hidden: false });
        self.pos = info_start + stop;
        Flow::Go
    }

    fn close_fence(&mut self, win: Window<'_>, run: usize, out: &mut Vec<Event>) -> Flow {
        // Only blanks may follow on the line.
        let rest = win.from(self.pos + run);
        let after = rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r'));
        match after.map(|i| rest[i]) {
            None if !win.eof && rest.len() <= MAX_INFO => return Flow::More,
            None | Some(b'\n' | b'<') => {}
            Some(_) if self.behind_call => {}
            Some(_) => return self.plain(run),
        }
        let hidden = self.fence.take().is_some_and(|f| f.hidden);
        if hidden {
            self.skip(win, self.pos + run, out);
            self.behind_call = true;
        } else {
            self.plain(run);
        }
        Flow::Go
    }

    // ---- objects ---------------------------------------------------------------------------------------------

    fn brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        let allowed = match &self.fence {
            Some(fence) => fence.fresh || (fence.data && self.line_blank) || self.behind_call,
            None => self.inline == 0,
        };
        let held = self.hold.is_some();
        let eligible = allowed
            && !self.foreign
            && !self.line_dead
            && (self.announced
                || self.behind_call
                || !prose::is_example(&self.tail, !self.line_blank && !held));
        self.begin(self.pos, eligible, None);
        Flow::Go
    }

    fn begin(&mut self, start: usize, eligible: bool, named: Option<Named>) {
        let candidate = Candidate::new(start, eligible, self.announced, named, self.options.max_depth);
        self.mode = Mode::Object(Box::new(candidate));
    }

    fn object(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Object(candidate) = &mut self.mode else { return Flow::Go };
        let outcome = candidate.run(win, &self.options, &mut self.calls, out);
        let (start, pos) = (candidate.start, candidate.reader.pos);
        match outcome {
            Outcome::More => return Flow::More,
            Outcome::Closed { called: true } => self.called(pos),
            Outcome::Closed { called: false } => {
                self.mode = Mode::Text;
                self.pos = pos;
                self.ordinary();
            }
            Outcome::Failed { why, called: true } => {
                out.push(Event::Malformed { why, at: pos });
                self.hold = None;
                self.shown = pos;
                self.mode = Mode::Text;
                self.pos = pos;
                self.announced = false;
                self.line_dead = true;
                self.line_blank = false;
            }
            Outcome::Failed { .. } => {
                self.mode = Mode::Text;
                self.ordinary();
                self.again += pos - start;
                self.pos = if self.again <= AGAIN + 4 * pos { start + 1 } else { pos.max(start + 1) };
            }
        }
        Flow::Go
    }

    /// Behind a complete call that ended at `pos`.
    fn called(&mut self, pos: usize) {
        self.mode = Mode::Text;
        self.pos = pos;
        self.shown = pos;
        self.hold = None;
        self.announced = false;
        self.behind_call = true;
        self.line_blank = false;
        self.tail.clear();
        if let Some(fence) = &mut self.fence {
            fence.fresh = false;
            fence.hidden = true;
        }
    }

    // ---- tags and tokens -------------------------------------------------------------------------------------

    fn tag(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let tag =
            if len == 0 || self.inline > 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        let Some(tag) = tag else { return self.plain(1) };
        let after = self.pos + len;
        if let Some(fence) = &self.fence
            && !(fence.fresh || fence.data && self.line_blank || self.behind_call || tag == Tag::ThinkClose)
        {
            return self.plain(1);
        }
        match tag {
            Tag::ThinkOpen if self.line_blank || self.behind_call => {
                self.release();
                self.skip(win, after, out);
                self.think_seen = true;
                self.mode = Mode::Think;
            }
            Tag::ThinkOpen => return self.plain(len),
            Tag::ThinkClose => {
                self.release();
                let at = self.pos;
                self.skip(win, after, out);
                if !self.think_seen {
                    self.think_seen = true;
                    out.push(Event::OrphanThink { at });
                    self.fence = None;
                    self.tail.clear();
                }
                self.line_blank = true;
                self.line_dead = false;
            }
            Tag::Announce => {
                self.skip(win, after, out);
                self.announced = !self.foreign;
                self.behind_call = false;
            }
            Tag::CallBegin | Tag::Channel if !self.foreign => {
                let start = self.pos;
                self.release();
                self.skip(win, after, out);
                self.announced = true;
                self.mode = Mode::Naming(Naming {
                    start,
                    segment: after,
                    before: String::new(),
                    separated: false,
                    certain: tag == Tag::CallBegin,
                });
            }
            Tag::Invoke { name } if !self.foreign => {
                let start = self.pos;
                self.release();
                self.skip(win, after, out);
                self.mode = Mode::Invoke(Box::new(Invoke::new(self.options.bare_name(&name), start, after)));
            }
            Tag::ResultOpen => {
                self.release();
                self.skip(win, after, out);
                self.mode = Mode::Result;
            }
            Tag::Foreign => {
                self.skip(win, after, out);
                self.foreign = true;
            }
            Tag::Assistant => {
                self.skip(win, after, out);
                self.foreign = false;
            }
            Tag::CallEnd => {
                self.announced = false;
                self.skip(win, after, out);
            }
            _ => self.skip(win, after, out),
        }
        Flow::Go
    }

    fn think(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(hit) = memchr::memchr(b'<', win.from(self.pos)) else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let closes = len > 0 && classify(win.slice(self.pos, self.pos + len)) == Some(Tag::ThinkClose);
        if !closes {
            self.pos += 1;
            return Flow::Go;
        }
        self.show(win, self.pos, out);
        self.pos += len;
        self.shown = self.pos;
        self.mode = Mode::Text;
        self.line_blank = true;
        Flow::Go
    }

    fn result(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(hit) = memchr::memchr(b'<', win.from(self.pos)) else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let closes = len > 0 && classify(win.slice(self.pos, self.pos + len)) == Some(Tag::ResultClose);
        if closes {
            self.skip(win, self.pos + len, out);
            self.mode = Mode::Text;
        } else {
            self.pos += 1;
        }
        Flow::Go
    }

    /// `[TOOL_CALLS]`, `[TOOL_REQUEST]`, `[END_TOOL_REQUEST]`, or a bracket around objects.
    fn bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        if self.inline == 0 && self.fence.is_none() {
            for (word, announces) in [
                (&b"[TOOL_CALLS]"[..], true),
                (b"[TOOL_REQUEST]", true),
                (b"[END_TOOL_REQUEST]", false),
                (b"[/TOOL_CALLS]", false),
            ] {
                if rest.starts_with(word) {
                    let (start, after) = (self.pos, self.pos + word.len());
                    self.skip(win, after, out);
                    self.announced = announces;
                    self.behind_call = !announces;
                    if word == b"[TOOL_CALLS]" {
                        self.mode = Mode::Naming(Naming {
                            start,
                            segment: after,
                            before: String::new(),
                            separated: false,
                            certain: false,
                        });
                    }
                    return Flow::Go;
                }
                if word.starts_with(rest) && !win.eof {
                    return Flow::More;
                }
            }
        }
        if self.line_blank || self.behind_call || self.announced {
            self.show(win, self.pos, out);
            self.hold.get_or_insert(self.pos);
            self.pos += 1;
            return Flow::Go;
        }
        self.plain(1)
    }

    /// Qwen's `✿FUNCTION✿: name` and `✿ARGS✿:`.
    fn flower(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let word = "✿FUNCTION✿".as_bytes();
        if rest.starts_with(word) && self.inline == 0 && !self.foreign {
            let (start, after) = (self.pos, self.pos + word.len());
            self.skip(win, after, out);
            self.mode = Mode::Naming(Naming {
                start,
                segment: after,
                before: String::new(),
                separated: false,
                certain: false,
            });
            return Flow::Go;
        }
        if word.starts_with(rest) && !win.eof {
            return Flow::More;
        }
        self.plain(1)
    }

    /// `functools[{…}]`.
    fn functools(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let word = b"functools[";
        if rest.starts_with(word) {
            self.skip(win, self.pos + word.len(), out);
            self.announced = true;
            return Flow::Go;
        }
        if word.starts_with(rest) && !win.eof {
            return Flow::More;
        }
        self.plain(1)
    }

    // ---- calls whose name stands before the arguments ----------------------------------------------------------

    fn naming(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &mut self.mode else { return Flow::Go };
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        let start = naming.start;
        if self.pos - start > MAX_NAMING {
            return self.not_named(out);
        }
        match byte {
            b'{' => {
                let segment = String::from_utf8_lossy(win.slice(naming.segment, self.pos)).into_owned();
                let named = tool_name(&segment).or_else(|| tool_name(&naming.before));
                self.swallow_fence = segment.contains("```");
                self.shown = self.pos;
                let named = named.map(|tool| Named { tool: self.options.bare_name(&tool), start });
                self.announced = true;
                self.begin(self.pos, true, named);
                Flow::Go
            }
            b'<' => {
                let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
                let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
                match tag {
                    Some(Tag::Separator) => {
                        let text = String::from_utf8_lossy(win.slice(naming.segment, self.pos)).into_owned();
                        if naming.separated && tool_name(&naming.before).is_some() {
                            // "json" between two separators is the format, not the name.
                        } else {
                            naming.before = text;
                        }
                        naming.separated = true;
                        self.pos += len;
                        naming.segment = self.pos;
                        if !naming.certain && !naming.before.contains("to=") {
                            return self.channel(win, out);
                        }
                        Flow::Go
                    }
                    None => {
                        self.pos += 1;
                        Flow::Go
                    }
                    Some(_) => self.not_named(out),
                }
            }
            _ => {
                self.pos += 1;
                Flow::Go
            }
        }
    }

    /// A channel that holds no call: reasoning or the answer.
    fn channel(&mut self, _win: Window<'_>, _out: &mut Vec<Event>) -> Flow {
        self.announced = false;
        self.shown = self.pos;
        self.mode = Mode::Text;
        Flow::Go
    }

    fn not_named(&mut self, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &self.mode else { return Flow::Go };
        if naming.certain {
            out.push(Event::Malformed { why: Malformed::NotJson, at: self.pos });
            self.shown = self.pos;
        }
        self.announced = false;
        self.mode = Mode::Text;
        Flow::Go
    }

    fn invoke(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Invoke(invoke) = &mut self.mode else { return Flow::Go };
        if invoke.pos - invoke.start > self.options.max_call_bytes {
            return self.fail_invoke(Malformed::TooLong, out);
        }
        match invoke.run(win, &mut self.calls, out) {
            markup::Outcome::More => Flow::More,
            markup::Outcome::Object => {
                let named = Named { tool: std::mem::take(&mut invoke.tool), start: invoke.start };
                let pos = invoke.pos;
                self.announced = true;
                self.begin(pos, true, Some(named));
                Flow::Go
            }
            markup::Outcome::Complete => {
                self.complete_invoke(out);
                Flow::Go
            }
            markup::Outcome::Failed(why) => self.fail_invoke(why, out),
        }
    }

    fn fail_invoke(&mut self, why: Malformed, out: &mut Vec<Event>) -> Flow {
        let Mode::Invoke(invoke) = &self.mode else { return Flow::Go };
        let pos = invoke.pos;
        out.push(Event::Malformed { why, at: pos });
        self.shown = pos;
        self.pos = pos;
        self.mode = Mode::Text;
        self.line_dead = true;
        self.line_blank = false;
        Flow::Go
    }

    fn complete_invoke(&mut self, out: &mut Vec<Event>) {
        let Mode::Invoke(invoke) = &mut self.mode else { return };
        let call = invoke.call.unwrap_or(self.calls);
        let arguments: Map<String, Value> = std::mem::take(&mut invoke.arguments);
        let tool = std::mem::take(&mut invoke.tool);
        let (start, end) = (invoke.start, invoke.pos);
        let repairs = invoke.repairs.list();
        out.push(Event::CallComplete(Call {
            call,
            tool,
            arguments: Value::Object(arguments),
            start,
            end,
            repairs,
        }));
        self.called(end);
    }

    // ---- the end ---------------------------------------------------------------------------------------------

    fn end(&mut self, end: End, out: &mut Vec<Event>) {
        let buf = std::mem::take(&mut self.buf);
        let win = Window { bytes: &buf, base: self.base, eof: true };
        match &mut self.mode {
            Mode::Object(candidate) => {
                let in_string = candidate.reader.in_string();
                if candidate.begun() || candidate.eligible && candidate.may_begin(win) {
                    let why = if in_string { Malformed::TruncatedInString } else { Malformed::Truncated };
                    out.push(Event::Malformed { why, at: win.end() });
                    self.shown = win.end();
                }
                self.mode = Mode::Text;
            }
            Mode::Naming(naming) => {
                if naming.certain {
                    out.push(Event::Malformed { why: Malformed::Truncated, at: win.end() });
                    self.shown = win.end();
                }
                self.mode = Mode::Text;
            }
            Mode::Invoke(invoke) => {
                if end == End::Stop && invoke.only_closer_missing() {
                    invoke.repairs.add(Repair::MissingCloser);
                    self.complete_invoke(out);
                } else {
                    let why =
                        if invoke.in_value() { Malformed::TruncatedInString } else { Malformed::Truncated };
                    out.push(Event::Malformed { why, at: win.end() });
                    self.shown = win.end();
                    self.mode = Mode::Text;
                }
            }
            Mode::Text if self.announced => {
                out.push(Event::Malformed { why: Malformed::Truncated, at: win.end() });
            }
            _ => {}
        }
        self.hold = None;
        self.show(win, win.end(), out);
        self.buf = buf;
    }
}

/// Bytes that may be looked at again after failed objects, beside four times those read.
const AGAIN: usize = 64 << 10;

/// Bytes at the end that are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let need = match byte {
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

/// The tool's name in the text before its arguments: `function`, a label and decoration are not it.
fn tool_name(text: &str) -> Option<String> {
    let text = match text.find("to=") {
        Some(i) => &text[i + 3..],
        None => text,
    };
    let word = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':');
    let end = word
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':')))
        .unwrap_or(word.len());
    let mut name = &word[..end];
    if let Some((bare, index)) = name.rsplit_once(':')
        && index.chars().all(|c| c.is_ascii_digit())
    {
        name = bare;
    }
    if name.is_empty() { None } else { Some(name.to_owned()) }
}
