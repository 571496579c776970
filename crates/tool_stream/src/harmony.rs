//! The parser's handling of gpt-oss messages: headers and raw bodies.
//!
//! A header runs from `<|start|>` or `<|channel|>` to `<|message|>` and contains the role, the
//! channel and the recipient, in any order. A message with a recipient is a call. The analysis
//! channel without a recipient is thinking.

use serde_json::{Map, Value};

use crate::dialects::{ANALYSIS, Turn};
use crate::event::{Call, Event, Malformed};
use crate::head::tool_name;
use crate::object::Named;
use crate::parser::{Flow, Mode, Parser};
use crate::tags::{Tag, tag_at};
use crate::text::{Repairs, utf8};
use crate::window::{Blanks, Window};

/// A header being read.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) start: usize,
    /// Offset of the text after the last token.
    segment: usize,
    /// Whether the next word is the role.
    role: bool,
    /// Whether the next word is the channel's name.
    channel_follows: bool,
    channel: String,
    recipient: Option<String>,
    foreign: bool,
}

/// A message addressed to a tool. The body of the message is still being read.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) start: usize,
    body: usize,
    tool: String,
    call: usize,
}

/// The maximum length of a header, in bytes.
const MAX_HEADER: usize = 512;
impl Parser {
    pub(crate) fn begin_header(&mut self, turn: Turn, start: usize) {
        let channel = turn == Turn::Channel;
        // If the template wrote the role, the answer may begin with the recipient.
        let line = String::from_utf8_lossy(self.before()).into_owned();
        let word = line.rsplit('\n').next().unwrap_or_default().trim();
        let recipient = word.strip_prefix("to=").filter(|_| channel).and_then(tool_name);
        let (segment, role) = (self.pos, !channel);
        let header =
            Header { start, segment, role, channel_follows: channel, recipient, ..Header::default() };
        self.mode = Mode::Header(Box::new(header));
    }

    pub(crate) fn header(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Header(header) = &mut self.mode else { return Flow::Go };
        let rest = win.from(self.pos);
        let stop = rest.iter().position(|b| matches!(b, b'<' | b'\n' | b'{'));
        let at = self.pos + stop.unwrap_or(rest.len());
        if at - header.start > MAX_HEADER {
            // Start over and read the header as text. `self.pos` depends on the chunks so far.
            self.pos = header.segment;
            self.mode = Mode::Text;
            return Flow::Go;
        }
        self.pos = at;
        let Some(stop) = stop else { return Flow::More };
        let mut tag = None;
        if rest[stop] == b'<' {
            let Some((found, len)) = tag_at(win, at, &mut self.searched) else { return Flow::More };
            (tag, self.pos) = (found, at + len);
        }
        let words = String::from_utf8_lossy(win.slice(header.segment, at)).into_owned();
        header.words(&words);
        header.segment = self.pos;
        match tag {
            Some(Tag::Turn(Turn::Channel)) => {
                header.channel_follows = true;
                if header.recipient.is_none() {
                    header.start = at;
                }
            }
            Some(Tag::Turn(Turn::Part)) => {}
            Some(Tag::Turn(Turn::Message)) => return self.message(win, out),
            // `<|start|>assistant` alone, or a call whose `<|message|>` is missing.
            _ => {
                self.pos = at;
                if rest[stop] == b'{' && header.recipient.is_some() {
                    return self.message(win, out);
                }
                self.foreign = header.foreign || self.foreign && self.calls > 0;
                self.shown = at;
                self.mode = Mode::Text;
            }
        }
        Flow::Go
    }

    /// Begins the message that follows the header: a call, thinking or text.
    fn message(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Header(header) = &mut self.mode else { return Flow::Go };
        let start = header.start;
        let foreign = header.foreign || self.foreign && self.calls > 0;
        let recipient = header.recipient.take();
        let analysis = header.channel == "analysis";
        self.shown = self.pos;
        self.announced = false;
        self.foreign = foreign;
        match recipient {
            Some(tool) if !foreign => {
                let tool = self.options.bare_name(&tool);
                self.mode = Mode::Raw(Box::new(Raw { start, body: self.pos, tool, call: self.calls }));
                self.raw(win, out)
            }
            _ if analysis && !foreign => {
                self.begin_thought(ANALYSIS);
                Flow::Go
            }
            _ => {
                self.mode = Mode::Text;
                self.line_has_text = false;
                Flow::Go
            }
        }
    }

    /// Reads the body of a message to a tool: JSON, or text if the tool accepts text.
    pub(crate) fn raw(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Raw(raw) = &mut self.mode else { return Flow::Go };
        if self.calls == raw.call {
            let at = match win.skip_blanks(self.pos) {
                Blanks::Until(at) => at,
                Blanks::More | Blanks::End => return Flow::More,
                Blanks::TooMany => self.pos,
            };
            let (tool, start) = (raw.tool.clone(), raw.start);
            match win.get(at).unwrap_or_default() {
                b'{' => {
                    self.pos = at;
                    self.shown = self.pos;
                    self.announced = true;
                    self.begin(self.pos, Some(true), Some(Named { tool, start }));
                    return Flow::Go;
                }
                b'<' => {
                    let Some((tag, len)) = tag_at(win, at, &mut self.searched) else { return Flow::More };
                    if matches!(tag, Some(Tag::CallEnd | Tag::Noise)) {
                        self.emit_empty_call(tool, start, at + len, out);
                        return Flow::Go;
                    }
                }
                _ if self.options.text_tool.takes_patch(&tool) => {}
                _ => {
                    self.announced = true;
                    self.mode = Mode::Text;
                    self.fail(Malformed::NotJson, at, out);
                    return Flow::Go;
                }
            }
            self.sink(out).open(tool);
        }
        let Some(hit) = memchr::memchr(b'<', win.from(self.pos)) else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let Some((tag, len)) = self.tag_here(win) else { return Flow::More };
        match tag {
            Some(Tag::CallEnd) => self.close_raw(win, self.pos, self.pos + len, out),
            Some(Tag::Noise | Tag::Turn(Turn::Header | Turn::Channel)) => {
                self.close_raw(win, self.pos, self.pos, out)
            }
            _ => self.pos += 1,
        }
        Flow::Go
    }

    /// Emits the call, with the text of the body up to `body_end` as its argument.
    fn close_raw(&mut self, win: Window<'_>, body_end: usize, end: usize, out: &mut Vec<Event>) {
        let Mode::Raw(raw) = &self.mode else { return };
        let mut repairs = Repairs::default();
        let text = utf8(win.slice(raw.body, body_end).to_vec(), &mut repairs);
        let (call, tool, start) = (raw.call, raw.tool.clone(), raw.start);
        let value = Value::String(text);
        let name = self.options.text_tool.patch.clone();
        self.sink(out).field(call, &name, &value);
        let arguments = Value::Object(Map::from_iter([(name, value)]));
        let repairs = repairs.list();
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs, native: true }));
        self.call_ended(end);
    }

    /// If the body being read is complete, emits the call and returns `true`. Called at the end of
    /// an answer that was not cut off. Servers strip the token that ends the message, so a patch is
    /// complete only if it ends with its own end marker.
    pub(crate) fn end_raw(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> bool {
        let Mode::Raw(raw) = &self.mode else { return false };
        if self.calls == raw.call {
            let (tool, start) = (raw.tool.clone(), raw.start);
            let blank = win.from(raw.body).iter().all(u8::is_ascii_whitespace);
            if blank {
                self.emit_empty_call(tool, start, win.end(), out);
            }
            return blank;
        }
        let whole = win.from(raw.body).trim_ascii_end().ends_with(b"*** End Patch");
        if whole {
            self.close_raw(win, win.end(), win.end(), out);
        }
        whole
    }
}

impl Header {
    /// Returns whether the header contains a recipient or the beginning of one. Called at the end
    /// of the answer.
    pub(crate) fn announces(&self, win: Window<'_>) -> bool {
        self.recipient.is_some() || memchr::memmem::find(win.from(self.segment), b"to=").is_some()
    }

    /// Reads the words between two tokens.
    fn words(&mut self, words: &str) {
        for word in words.split_whitespace() {
            if let Some(to) = word.strip_prefix("to=") {
                match to {
                    // A message from a tool to the model.
                    "assistant" => self.foreign = true,
                    _ => self.recipient = tool_name(to),
                }
            } else if std::mem::take(&mut self.channel_follows) {
                word.clone_into(&mut self.channel);
            } else if std::mem::take(&mut self.role) {
                self.foreign = word != "assistant";
            }
        }
        self.channel_follows = false;
        self.role = false;
    }
}

/// Finds a header right before an object if the server stripped the header's tokens: `commentary
/// to=functions.read_file json{…}`. Returns the tool named in the header and the distance in bytes
/// from `to=` to the end of the text.
pub(crate) fn leaked(before: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(before).ok()?;
    let line = &text[text.rfind('\n').map_or(0, |at| at + 1)..];
    let at = line.rfind("to=")?;
    let lead = line[..at].trim_end();
    if !["commentary", "analysis", "assistant"].iter().any(|word| lead.ends_with(word)) {
        return None;
    }
    let mut words = line[at + 3..].split_whitespace();
    let tool = tool_name(words.next()?)?;
    let format = words.next();
    (format.is_none_or(|f| matches!(f, "json" | "code")) && words.next().is_none())
        .then(|| (tool, line.len() - at))
}
