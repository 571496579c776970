//! Reads thinking blocks. Calls in them are ignored, with one exception.
//!
//! Some models begin a call without closing the thinking block, or close the block after the call,
//! and say nothing else. In that case, a complete call in the family's own tokens at the very end
//! of the thinking is the answer ([`calls_at_end`]). A JSON call there is ignored, because models
//! often mention JSON calls while they think.

use memchr::{memchr, memchr2};

use crate::dialects::{ANALYSIS, ANALYSIS_END, THOUGHTS, UNKNOWN};
use crate::event::{Call, Event, Options};
use crate::parser::{Flow, Mode, Parser};
use crate::tags::{Tag, is_one_of, is_token, thought_name};
use crate::window::Window;

/// The current thinking block or, if none is open, the last one.
#[derive(Debug, Default)]
pub(crate) struct Thinking {
    /// The index of its kind in [`THOUGHTS`].
    kind: usize,
    /// Number of open blocks of that kind.
    depth: usize,
    /// Offset of `text` in the stream.
    start: usize,
    /// The text of the block. Cleared when text outside the block follows.
    text: Vec<u8>,
    /// The name in the opening tag, if the tag is not in the table.
    name: String,
    /// Whether the parser has already looked for the label after the opening tag.
    labeled: bool,
}

/// The minimum number of bytes to keep from the end of a thinking block, where there may be a call.
const MAX_KEPT: usize = 1 << 20;

impl Thinking {
    /// Appends to the text of the block.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        if self.text.len() > 2 * MAX_KEPT {
            let cut = self.text.len() - MAX_KEPT;
            self.text.drain(..cut);
            self.start += cut;
        }
    }

    /// Clears the text. Called when text other than whitespace follows the block.
    pub(crate) fn forget(&mut self) {
        self.text.clear();
    }
}

impl Parser {
    /// Begins a block at `pos` whose opening tag is not in [`THOUGHTS`].
    pub(crate) fn begin_unknown_thought(&mut self, mark: &[u8]) {
        self.begin_thought(UNKNOWN);
        self.thinking.name = thought_name(mark).map(|(name, _)| name).unwrap_or_default();
    }

    /// Begins a block of a known kind at `pos`.
    pub(crate) fn begin_thought(&mut self, kind: usize) {
        self.thinking = Thinking { kind, depth: 1, start: self.pos, ..Thinking::default() };
        self.think_seen = true;
        self.hold = None;
        self.shown = self.pos;
        self.mode = Mode::Think;
    }

    /// Returns whether an opening tag at this position opens a block. A token always does. An
    /// element in the middle of a sentence does not, because it is only a mention.
    pub(crate) fn may_think(&self, mark: &[u8]) -> bool {
        let token = is_token(mark);
        let before = self.before();
        // An element directly after a word is not a mention: a mention has a space before it.
        let glued = before.last().is_some_and(u8::is_ascii_alphanumeric);
        let before = before.trim_ascii_end();
        token
            || glued
            || !self.line_has_text
            || self.after_call
            || matches!(before.last(), Some(b'.' | b'!' | b'?' | b':' | b'>'))
    }

    pub(crate) fn think(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let kind = self.thinking.kind;
        if !self.thinking.labeled {
            let label = THOUGHTS[kind].label.as_bytes();
            let rest = win.from(self.pos);
            if rest.len() < label.len() && label.starts_with(rest) && !win.eof {
                return Flow::More;
            }
            if rest.starts_with(label) {
                self.pos += label.len();
            }
            self.shown = self.pos;
            (self.thinking.start, self.thinking.labeled) = (self.pos, true);
        }
        let rest = win.from(self.pos);
        let hit = match THOUGHTS[kind].close.first().and_then(|close| close.bytes().next()) {
            None => memchr2(b'<', b'[', rest),
            Some(first) => memchr(first, rest),
        };
        let Some(hit) = hit else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let close = THOUGHTS[kind].close;
        let Some((tag, len)) = self.tag_here(win) else { return Flow::More };
        match tag {
            Some(_) if self.closes(win.slice(self.pos, self.pos + len), close) => {
                match self.is_mention(win, len, out) {
                    None => return Flow::More,
                    Some(true) => {
                        return self.advance(len);
                    }
                    Some(false) => {}
                }
                self.thinking.depth -= 1;
                match self.thinking.depth {
                    0 => self.end_thought(win, len, out),
                    _ => self.pos += len,
                }
            }
            Some(Tag::ThinkOpen(opened)) if opened == kind && THOUGHTS[kind].nests => {
                if self.opens_nested(win, out) {
                    self.thinking.depth += 1;
                }
                self.pos += len;
            }
            // The token that ends the analysis channel is part of the text after the channel.
            Some(_) if kind == ANALYSIS && is_one_of(win.slice(self.pos, self.pos + len), &ANALYSIS_END) => {
                self.end_thought(win, 0, out);
            }
            _ => self.pos += 1,
        }
        Flow::Go
    }

    /// Returns whether a closing tag is only mentioned, that is, whether it appears on a line
    /// between a word and a lowercase word. Returns `None` if more bytes are needed.
    fn is_mention(&mut self, win: Window<'_>, len: usize, out: &mut Vec<Event>) -> Option<bool> {
        self.show(win, self.pos, out);
        let before = self.thinking.text.as_slice();
        let word = before.ends_with(b" ")
            && before.trim_ascii_end().last().is_some_and(|b| b.is_ascii_alphanumeric());
        if !word {
            return Some(false);
        }
        match win.from(self.pos + len) {
            [] | [b' '] if !win.eof => None,
            [b' ', b'a'..=b'z', ..] => Some(true),
            _ => Some(false),
        }
    }

    /// Returns whether a tag closes the current block.
    fn closes(&self, mark: &[u8], close: &[&str]) -> bool {
        match self.thinking.kind {
            UNKNOWN => {
                thought_name(mark).is_some_and(|(name, closing)| closing && name == self.thinking.name)
            }
            _ => is_one_of(mark, close),
        }
    }

    /// Returns whether an opening tag inside a block opens a nested one. It does so at the start of
    /// a line, except at the start of the block, where it merely repeats the chat template's tag.
    fn opens_nested(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> bool {
        self.show(win, self.pos, out);
        let before = self.thinking.text.as_slice();
        let blank = |b: &&u8| matches!(b, b' ' | b'\t' | b'\r');
        let line_blank = before.iter().rev().find(|b| !blank(b)).is_none_or(|b| *b == b'\n');
        line_blank && !before.trim_ascii_start().is_empty()
    }

    fn end_thought(&mut self, win: Window<'_>, len: usize, out: &mut Vec<Event>) {
        self.show(win, self.pos, out);
        self.pos += len;
        self.shown = self.pos;
        self.mode = Mode::Text;
        self.line_has_text = false;
    }

    /// Emits the calls at the end of the model's thinking. Called at the end of an answer that has
    /// no other call.
    pub(crate) fn call_in_thought(&mut self, out: &mut Vec<Event>) {
        let text = std::mem::take(&mut self.thinking.text);
        let calls = calls_at_end(&text, &self.options);
        self.emit_calls(calls, self.thinking.start, out);
    }

    /// Emits the events for calls found in a part of the answer that begins at `offset`.
    pub(crate) fn emit_calls(&mut self, calls: Vec<Call>, offset: usize, out: &mut Vec<Event>) {
        for mut call in calls {
            call.start += offset;
            call.end += offset;
            self.sink(out).whole(call);
        }
    }
}

/// Returns the complete calls at the very end of a model's thinking, provided that they use the
/// tokens or elements of the model's family. If a server separates the thinking from the answer,
/// the thinking may contain the only call.
#[must_use]
pub fn calls_at_end(thoughts: &[u8], options: &Options) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for event in Parser::parse_part(thoughts, options, false) {
        match event {
            Event::CallComplete(call) if call.native => calls.push(call),
            Event::CallComplete(_) | Event::Malformed { .. } => calls.clear(),
            Event::Text(text) | Event::Thinking(text) if !text.trim().is_empty() => calls.clear(),
            _ => {}
        }
    }
    calls
}
