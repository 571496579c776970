//! The parser's handling of objects: where an object may begin, and whether it is a call.

use crate::event::{Event, Malformed};
use crate::json::Syntax;
use crate::object::{Candidate, Named, Outcome, Sink};
use crate::parser::{Flow, Mode, Parser};
use crate::prose::LeadIn;
use crate::window::{Blanks, Window};
use crate::{harmony, prose};

/// The maximum number of objects to judge by the text before them. Later ones are not treated as
/// calls. A real answer has far fewer such objects.
const MAX_LEAD_INS: usize = 4096;
/// How many bytes may be rescanned after failed objects, on top of four times the number of bytes
/// read.
const RESCAN_BUDGET: usize = 64 << 10;

impl Parser {
    pub(crate) fn brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        // After a token from an unknown family, the object could be anything, so it is not treated
        // as a call.
        let unknown = self.before().ends_with(b"|>");
        let allowed = match &self.fence {
            Some(fence) => {
                !fence.output && (fence.fresh || (fence.data && !self.line_has_text) || self.after_call)
            }
            None => self.inline == 0 && !unknown,
        };
        let eligible = match () {
            () if !allowed || self.foreign || self.example.is_some() => Some(false),
            () if self.announced || self.listed || self.after_call => Some(true),
            () => None,
        };
        let mut saw_react = false;
        // Only text that ends with one of these characters can name a tool right before the object.
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
                saw_react = react.is_some();
                let same = self.shown == self.pos;
                let leaked = || harmony::leaked(before).filter(|_| same);
                let bare = || self.bare_tool_name(before, same);
                react.or_else(leaked).or_else(bare)
            }
        };
        if named.is_some() && !saw_react {
            // The brace may just happen to follow a word: `search {` in a sentence is not a call.
            let first = match win.skip_blanks(self.pos + 1) {
                Blanks::Until(at) => win.get(at),
                Blanks::More => return Flow::More,
                Blanks::TooMany | Blanks::End => None,
            };
            match first {
                Some(b'"' | b'}' | b'\'' | b'<' | b'a'..=b'z' | b'A'..=b'Z' | b'_') => {}
                _ => return self.plain(1),
            }
        }
        self.saw_react |= saw_react;
        let named =
            named.map(|(tool, back)| Named { tool: self.options.bare_name(&tool), start: self.shown - back });
        let eligible = if named.is_some() { Some(true) } else { eligible };
        self.begin(self.pos, eligible, named);
        Flow::Go
    }

    /// Finds the name of a known tool that appears on its own before an object, which is all that
    /// remains if the server strips the special tokens around a call. Returns the name and the
    /// distance in bytes from its start to the end of the text.
    pub(crate) fn bare_tool_name(&self, before: &[u8], same: bool) -> Option<(String, usize)> {
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
        // If the name is not right before the object, it must be the only text or have a prefix
        // that some model family writes.
        let placed = same && !before.ends_with(b"\n") || sure || alone && same;
        (placed && self.options.knows(&self.options.bare_name(&tool))).then_some((tool, back))
    }

    /// Decides, based on the preceding text, whether an object at the current position is a call.
    pub(crate) fn lead_in(&self, token: bool) -> LeadIn {
        let same_line = self.line_has_text && self.hold.is_none();
        let before = self.before();
        let indent = before.iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let apart = self.fence.is_some() || !same_line && indent >= 4 && indent < before.len();
        prose::lead_in(before, same_line, token, apart)
    }

    /// Returns whether a call begins at `start`. If that depends on what follows, returns `false`
    /// for now, and [`call_in_prose`](Parser::call_in_prose) decides at the end.
    pub(crate) fn is_call(&mut self, start: usize, token: bool) -> bool {
        match self.lead_in(token) {
            LeadIn::Call => true,
            // Earlier text shows that this answer makes calls.
            LeadIn::CallAtEnd if self.calls > 0 || self.after_malformed => true,
            LeadIn::CallAtEnd => {
                self.deferred.get_or_insert(start);
                false
            }
            LeadIn::Example => false,
        }
    }

    /// Emits the first undecided call and the calls after it, provided that nothing but calls
    /// follows it. Called at the end of an answer without calls.
    pub(crate) fn call_in_prose(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        let Some(start) = self.deferred.filter(|start| *start >= win.base) else { return };
        let text = win.slice(start, win.end()).trim_ascii_end();
        let fenced = text.strip_suffix(b"```").or_else(|| text.strip_suffix(b"~~~"));
        let mut calls = Vec::new();
        for event in Parser::parse_part(fenced.unwrap_or(text), &self.options, true) {
            match event {
                Event::CallComplete(call) => calls.push(call),
                Event::Malformed { why, .. } => {
                    return out.push(Event::Malformed { why, at: win.end() });
                }
                Event::Text(text) | Event::Thinking(text) if !text.trim().is_empty() => return,
                _ => {}
            }
        }
        self.emit_calls(calls, start, out);
    }

    pub(crate) fn begin(&mut self, start: usize, eligible: Option<bool>, named: Option<Named>) {
        let depth = self.options.max_depth;
        let announced = self.announced || self.listed;
        let mut candidate = Candidate::new(start, eligible, announced, named, depth, Syntax::Json);
        candidate.line_start = !self.line_has_text || self.after_call || self.hold.is_some();
        self.mode = Mode::Object(Box::new(candidate));
    }

    pub(crate) fn object(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Object(candidate) = &mut self.mode else { return Flow::Go };
        let mut sink = Sink { options: &self.options, calls: &mut self.calls, out };
        let outcome = candidate.run(win, &mut sink);
        let (start, pos) = (candidate.start, candidate.reader.pos);
        match outcome {
            Outcome::More => return Flow::More,
            Outcome::Ask => {
                self.lead_ins_judged += 1;
                let alone = self.lead_ins_judged <= MAX_LEAD_INS && self.is_call(start, false);
                if let Mode::Object(candidate) = &mut self.mode {
                    candidate.answer(alone);
                }
            }
            Outcome::Closed { called: true } => self.call_ended(pos),
            Outcome::Failed { why, called: true } => self.fail(why, pos, out),
            Outcome::Closed { called: false } | Outcome::Failed { .. } => {
                self.mode = Mode::Text;
                if self.fence_is_file(out) {
                    return Flow::Go;
                }
                let closed = matches!(outcome, Outcome::Closed { .. });
                if !closed {
                    self.rescanned += pos - start;
                }
                // A call may begin inside an object that failed, so continue right after its first
                // brace. The budget keeps the total time linear.
                let on = if closed || self.rescanned > RESCAN_BUDGET + 4 * pos { pos } else { start + 1 };
                self.plain(0);
                self.pos = on.max(start + 1);
            }
        }
        Flow::Go
    }

    /// Handles a token in square brackets, or a bracket around calls.
    pub(crate) fn bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        if self.inline == 0 && self.fence.is_none() && !self.foreign {
            match self.tag_here(win) {
                None => return Flow::More,
                Some((Some(_), _)) => return self.literal(win, out),
                Some((None, _)) => {}
            }
        }
        if self.inline == 0 && (!self.line_has_text || self.after_call || self.announced) {
            if !(self.announced || self.after_call || self.fence.is_some()) {
                match self.names_tool(win) {
                    None => return Flow::More,
                    Some(true) => return self.missing_brace(win, out),
                    Some(false) => {}
                }
            }
            self.show(win, self.pos, out);
            self.hold.get_or_insert(self.pos);
            return self.advance(1);
        }
        self.plain(1)
    }

    /// Handles a `]` outside an object: the end of a list of calls, the start of a token, or text.
    pub(crate) fn closing_bracket(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match self.tag_here(win) {
            None => Flow::More,
            Some((Some(_), _)) => self.literal(win, out),
            Some((None, _)) if self.announced || self.after_call => {
                self.announced = false;
                self.skip(win, self.pos + 1, out);
                Flow::Go
            }
            Some((None, _)) => self.plain(1),
        }
    }

    /// Returns whether `"tool":` follows the current byte, or `None` if more bytes are needed.
    pub(crate) fn names_tool(&self, win: Window<'_>) -> Option<bool> {
        let bracket = usize::from(matches!(win.get(self.pos), Some(b'(' | b'[')));
        let at = match win.skip_blanks(self.pos + bracket) {
            Blanks::Until(at) => at,
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
            return match win.skip_blanks(win.end() - behind.len()) {
                Blanks::Until(at) => Some(win.get(at) == Some(b':')),
                Blanks::More => None,
                Blanks::TooMany | Blanks::End => Some(false),
            };
        }
        Some(false)
    }

    /// Refuses `("tool": …)`, `["tool": …]` and `"tool": …`, which are intended as calls but lack
    /// braces.
    pub(crate) fn missing_brace(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        self.show(win, self.pos, out);
        match self.names_tool(win) {
            None => Flow::More,
            Some(true) if self.lead_in(false) != LeadIn::Example => {
                self.fail(Malformed::NotJson, self.pos, out);
                Flow::Go
            }
            Some(_) => self.plain(1),
        }
    }
}
