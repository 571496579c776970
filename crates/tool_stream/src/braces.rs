//! The parser's part for objects: where one may begin, what is meant as one, and what becomes of it.

use crate::event::{End, Event, Malformed, Options};
use crate::json::Syntax;
use crate::object::{Candidate, Named, Outcome};
use crate::parser::{Flow, Mode, Parser};
use crate::prose::Lead;
use crate::tags::{Literal, literal};
use crate::window::{Blanks, Window};
use crate::{harmony, prose};

/// Objects behind prose that may be calls, at most; whoever writes more of them is not calling tools.
const MAX_ASKED: usize = 4096;
/// Bytes that may be looked at again after failed objects, beside four times those read.
const AGAIN: usize = 64 << 10;

impl Parser {
    pub(crate) fn brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        // In the tokens of a family that the table does not know: a value, for all that is known.
        let unknown = self.before().ends_with(b"|>");
        let allowed = match &self.fence {
            Some(fence) => {
                !fence.output && (fence.fresh || (fence.data && self.line_blank) || self.behind_call)
            }
            None => self.inline == 0 && !unknown,
        };
        let eligible = match () {
            () if !allowed || self.foreign || self.example.is_some() => Some(false),
            () if self.announced || self.listed || self.behind_call => Some(true),
            () => None,
        };
        let mut reacted = false;
        // A name before the object ends with a letter or a digit, or a token or mark does.
        let last = self.before().trim_ascii_end().last();
        let may_name = last.is_some_and(|b| b.is_ascii_alphanumeric() || b"_:]*`)".contains(b));
        let named = match eligible {
            Some(_) => None,
            None if !may_name => None,
            None => {
                let before = self.before();
                let react = prose::react(before).filter(|(_, back)| {
                    !prose::is_example(&before[..before.len().saturating_sub(*back)], false)
                });
                reacted = react.is_some();
                let same = self.shown == self.pos;
                let leaked = || harmony::leaked(before).filter(|_| same);
                let bare = || self.bare_head(before, same);
                react.or_else(leaked).or_else(bare)
            }
        };
        if named.is_some() && !reacted {
            // A brace behind a word: `search {` in a sentence is no call.
            let first = match win.behind_blanks(self.pos + 1) {
                Blanks::Upto(at) => win.get(at),
                Blanks::More => return Flow::More,
                Blanks::TooMany | Blanks::End => None,
            };
            match first {
                Some(b'"' | b'}' | b'\'' | b'<' | b'a'..=b'z' | b'A'..=b'Z' | b'_') => {}
                _ => return self.plain(1),
            }
        }
        self.reacted |= reacted;
        let named =
            named.map(|(tool, back)| Named { tool: self.options.bare_name(&tool), start: self.shown - back });
        let eligible = if named.is_some() { Some(true) } else { eligible };
        self.begin(self.pos, eligible, named);
        Flow::Go
    }

    /// The known tool that a line names right before an object, with nothing else on the line: what is
    /// left of a family's call when the server has stripped its tokens.
    pub(crate) fn bare_head(&self, before: &[u8], same: bool) -> Option<(String, usize)> {
        let (word, back) = prose::last_word(before)?;
        let alone = before.trim_ascii().len() == word.len();
        let kind = before.len() >= back + 9 && before[..before.len() - back].ends_with(b"function ");
        let (mut tool, mut sure) = (word.as_str(), kind);
        for prefix in [">>>", "to=", "call:", "functions.", "function"] {
            if let Some(rest) = tool.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                (tool, sure) = (rest, true);
            }
        }
        let tool = crate::head::tool_name(tool)?;
        // On a line before the object the name has to look like what a family writes.
        let placed = same && !before.ends_with(b"\n") || sure || alone && same;
        (placed && self.options.knows(&self.options.bare_name(&tool))).then_some((tool, back))
    }

    /// What the text before the call at hand makes of it.
    pub(crate) fn lead(&self, token: bool) -> Lead {
        let same_line = !self.line_blank && self.hold.is_none();
        let before = self.before();
        let indent = before.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let apart = self.fence.is_some() || !same_line && indent >= 4 && indent < before.len();
        prose::lead(before, same_line, token, apart)
    }

    /// Whether what begins at `start` is a call. If that depends on what follows it, the answer is no for
    /// now, and [`call_at_end`](Parser::call_in_prose) comes back to it.
    pub(crate) fn is_call(&mut self, start: usize, token: bool) -> bool {
        match self.lead(token) {
            Lead::Call => true,
            // The answer calls tools, then.
            Lead::CallAtEnd if self.calls > 0 || self.wary => true,
            Lead::CallAtEnd => {
                self.deferred.get_or_insert(start);
                false
            }
            Lead::Example => false,
        }
    }

    /// At the end of an answer without a call: the first that its text left open, if nothing follows it
    /// but other calls.
    pub(crate) fn call_in_prose(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        let Some(start) = self.deferred.filter(|start| *start >= win.base) else { return };
        let text = win.slice(start, win.end()).trim_ascii_end();
        let fenced = text.strip_suffix(b"```").or_else(|| text.strip_suffix(b"~~~"));
        let options = Options { whole_file: false, followed: Vec::new(), ..self.options.clone() };
        let mut parser = Parser::new(options);
        (parser.innermost, parser.behind_call, parser.python) = (true, true, true);
        let mut events = Vec::new();
        parser.feed(fenced.unwrap_or(text), &mut events);
        parser.finish(End::Stop, &mut events);
        let mut calls = Vec::new();
        for event in events {
            match event {
                Event::CallComplete(call) => calls.push(call),
                Event::Malformed { why, .. } => {
                    return out.push(Event::Malformed { why, at: win.end() });
                }
                Event::Text(text) | Event::Thinking(text) if !text.trim().is_empty() => return,
                _ => {}
            }
        }
        self.emit_late(calls, start, out);
    }

    pub(crate) fn begin_python(&mut self, start: usize, named: Named) {
        let depth = self.options.max_depth;
        let candidate = Candidate::new(start, Some(true), true, Some(named), depth, Syntax::Python);
        self.mode = Mode::Object(Box::new(candidate));
    }

    pub(crate) fn begin(&mut self, start: usize, eligible: Option<bool>, named: Option<Named>) {
        let depth = self.options.max_depth;
        let announced = self.announced || self.listed;
        let mut candidate = Candidate::new(start, eligible, announced, named, depth, Syntax::Json);
        candidate.line_start = self.line_blank || self.behind_call || self.hold.is_some();
        self.mode = Mode::Object(Box::new(candidate));
    }

    pub(crate) fn object(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Object(candidate) = &mut self.mode else { return Flow::Go };
        let outcome = candidate.run(win, &self.options, &mut self.calls, out);
        let (start, pos) = (candidate.start, candidate.reader.pos);
        match outcome {
            Outcome::More => return Flow::More,
            Outcome::Ask => {
                self.asked += 1;
                let alone = self.asked <= MAX_ASKED && self.is_call(start, false);
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

    /// A token in square brackets, or a bracket around calls.
    pub(crate) fn bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        if self.inline == 0 && self.fence.is_none() && !self.foreign {
            match literal(win.from(self.pos), win.eof) {
                Literal::More => return Flow::More,
                Literal::Found(..) => return self.literal(win, out),
                Literal::None => {}
            }
        }
        if self.inline == 0 && (self.line_blank || self.behind_call || self.announced) {
            if !(self.announced || self.behind_call || self.fence.is_some()) {
                match self.names_tool(win) {
                    None => return Flow::More,
                    Some(true) => return self.without_brace(win, out),
                    Some(false) => {}
                }
            }
            self.show(win, self.pos, out);
            self.hold.get_or_insert(self.pos);
            self.pos += 1;
            return Flow::Go;
        }
        self.plain(1)
    }

    /// A `]` that closes no call: the end of an empty list, or the start of a token.
    pub(crate) fn closing_bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match literal(win.from(self.pos), win.eof) {
            Literal::More => Flow::More,
            Literal::Found(..) => self.literal(win, out),
            Literal::None if self.announced || self.behind_call => {
                self.announced = false;
                self.skip(win, self.pos + 1, out);
                Flow::Go
            }
            Literal::None => self.plain(1),
        }
    }

    /// Whether `"tool":` follows the byte at hand; `None` if more bytes are needed to say.
    pub(crate) fn names_tool(&self, win: Window<'_>) -> Option<bool> {
        let bracket = usize::from(matches!(win.get(self.pos), Some(b'(' | b'[')));
        let at = match win.behind_blanks(self.pos + bracket) {
            Blanks::Upto(at) => at,
            Blanks::More => return None,
            Blanks::TooMany | Blanks::End => return Some(false),
        };
        let rest = win.from(at);
        for word in [&b"\"tool\""[..], b"'tool'"] {
            let Some(behind) = rest.strip_prefix(word) else {
                if word.starts_with(rest) && !win.eof {
                    return None;
                }
                continue;
            };
            return match win.behind_blanks(win.end() - behind.len()) {
                Blanks::Upto(at) => Some(win.get(at) == Some(b':')),
                Blanks::More => None,
                Blanks::TooMany | Blanks::End => Some(false),
            };
        }
        Some(false)
    }

    /// `("tool": …)`, `["tool": …]`, `"tool": …`: meant as a call, but without braces it is no object.
    pub(crate) fn without_brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        match self.names_tool(win) {
            None => Flow::More,
            Some(true) if self.lead(false) != Lead::Example => {
                self.fail(Malformed::NotJson, self.pos, out);
                Flow::Go
            }
            Some(_) => self.plain(1),
        }
    }
}
