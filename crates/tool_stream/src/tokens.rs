//! Handles the tags and tokens in the text of an answer.

use serde_json::{Map, Value};

use crate::dialects::{THOUGHTS, Turn, UNKNOWN};
use crate::event::{Call, Event, Malformed};
use crate::head::Head;
use crate::markup::{self, Closer, Invoke};
use crate::object::{Named, Sink};
use crate::parser::{Flow, Mode, Parser};
use crate::prose;
use crate::tags::{Plain, Tag, is_token, literal, plain_element, tag_at, tag_length};
use crate::window::{Blanks, Window};

impl Parser {
    /// Handles a `<` in the text.
    pub(crate) fn tag(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some((tag, len)) = self.tag_here(win) else { return Flow::More };
        let tag = tag.filter(|_| self.inline == 0);
        // Whether the answer ends inside this tag, after a tag that opens calls.
        self.cut_tag = win.eof && len == 0 && (self.listed || self.announced);
        let Some(tag) = tag else { return self.tool_element(win, len, out) };
        self.mark(win, tag, len, out)
    }

    /// Returns the meaning and length of the tag or token at `pos`, or `None` if more bytes are
    /// needed.
    pub(crate) fn tag_here(&mut self, win: Window<'_>) -> Option<(Option<Tag>, usize)> {
        match win.get(self.pos) {
            Some(b'<') => tag_at(win, self.pos, &mut self.searched),
            _ => literal(win.from(self.pos), win.eof),
        }
    }

    /// Handles a token that does not begin with `<`.
    pub(crate) fn literal(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match self.tag_here(win) {
            None => Flow::More,
            Some((Some(tag), len)) if self.inline == 0 => self.mark(win, tag, len, out),
            _ => self.plain(1),
        }
    }

    /// Handles a tag or token at `pos` that has a meaning.
    fn mark(&mut self, win: Window<'_>, tag: Tag, len: usize, out: &mut Vec<Event>) -> Flow {
        let (start, after) = (self.pos, self.pos + len);
        if let Some(fence) = &self.fence
            && !(fence.data && (fence.fresh || !self.line_has_text) || self.after_call)
            && !matches!(tag, Tag::ThinkClose(_))
        {
            return if self.fence_is_file(out) { Flow::Go } else { self.plain(1) };
        }
        if let Some(fence) = &mut self.fence {
            // The fence surrounds a call, not a file.
            fence.file = None;
        }
        match tag {
            Tag::ThinkOpen(kind) => {
                self.show(win, self.pos, out);
                if !self.may_think(win.slice(start, after)) {
                    return self.plain(len);
                }
                self.skip(win, after, out);
                match kind {
                    UNKNOWN => self.begin_unknown_thought(win.slice(start, after)),
                    kind => self.begin_thought(kind),
                }
            }
            Tag::ThinkClose(kind) => {
                let prose = THOUGHTS[kind].close.iter().any(|mark| mark.contains(' '));
                // As long as no thinking block has been opened, a closing tag is text if it
                // consists of plain words or is not in any table.
                if (prose || kind == UNKNOWN) && !self.think_seen {
                    return self.plain(len);
                }
                self.hold = None;
                self.skip(win, after, out);
                // Either no thinking block was opened, or this is the second closing tag and the
                // first one was only mentioned in the thinking.
                if !self.think_seen || self.calls > 0 && !self.after_call {
                    self.think_seen = true;
                    out.push(Event::OrphanThink { at: start });
                    self.fence = None;
                    self.announced = false;
                    self.foreign = false;
                    self.tail.clear();
                    self.begin_answer();
                }
                self.line_has_text = false;
            }
            Tag::Turn(Turn::Header | Turn::Channel) => {
                self.show(win, self.pos, out);
                if self.in_example(&tag, win.slice(start, after)) {
                    return self.plain(len);
                }
                self.hold = None;
                self.skip(win, after, out);
                if let Tag::Turn(turn) = tag {
                    self.begin_header(turn, start);
                }
            }
            Tag::Turn(turn) => self.turn(win, turn, after, out),
            _ if self.foreign => self.skip(win, after, out),
            Tag::Open { .. } | Tag::List | Tag::Invoke { .. } => {
                self.show(win, self.pos, out);
                let named = matches!(tag, Tag::Invoke { .. }) && !self.announced && !self.listed;
                let placed =
                    || self.may_think(win.slice(start, after)) || self.before().ends_with(b"function");
                let placed = !named || placed();
                if self.in_example(&tag, win.slice(start, after)) || !placed {
                    return self.plain(len);
                }
                self.opening(win, tag, start, after, out);
            }
            Tag::CallEnd | Tag::ListEnd | Tag::InvokeEnd if self.example.take().is_some() => {
                return self.plain(len);
            }
            Tag::CallEnd | Tag::ListEnd | Tag::InvokeEnd => {
                self.announced = false;
                self.python = false;
                self.skip(win, after, out);
                self.after_call = true;
            }
            Tag::Key => return self.key_without_opening(win, start, after, out),
            // This separator has no opening token before it. If the name of a known tool comes
            // before it, the opening token was stripped, and the separator begins a call.
            Tag::Between => {
                let named = prose::last_word(self.before_all(win, out));
                let known = |tool: &str| self.options.knows(&self.options.bare_name(tool));
                let Some((tool, back)) = named.filter(|(tool, _)| known(tool)) else {
                    return self.plain(len);
                };
                self.shown = after;
                self.pos = after;
                self.mode = Mode::Head(Box::new(Head::named(start - back, after, tool)));
            }
            _ => self.skip(win, after, out),
        }
        Flow::Go
    }

    /// Emits the text before `pos` and returns its last words.
    fn before_all(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> &[u8] {
        self.show(win, self.pos, out);
        self.before()
    }

    /// Returns whether an opening tag is part of an example. If so, the rest of the example is read
    /// as text.
    fn in_example(&mut self, tag: &Tag, mark: &[u8]) -> bool {
        let kind = std::mem::discriminant(tag);
        let token = is_token(mark);
        let start = self.pos;
        let example = match self.example {
            // A later call of the same kind may be real.
            Some(open) if open == kind && !self.line_has_text => !self.is_call(start, token),
            Some(_) => true,
            None => !(self.after_call || self.announced || self.is_call(start, token)),
        };
        if example {
            self.example.get_or_insert(kind);
        } else {
            self.example = None;
        }
        example
    }

    /// Handles a tag that opens a call or a list of calls.
    fn opening(&mut self, win: Window<'_>, tag: Tag, start: usize, after: usize, out: &mut Vec<Event>) {
        if !matches!(tag, Tag::Open { certain: false } | Tag::List) {
            self.hold = None;
        }
        self.skip(win, after, out);
        match tag {
            Tag::Invoke { name, wraps, empty } => {
                self.announced = false;
                let closer = match (empty, wraps) {
                    (true, _) => Closer::Empty,
                    (false, true) => Closer::Wrapper,
                    (false, false) => Closer::Element,
                };
                self.begin_invoke(&name, start, after, closer, false);
            }
            Tag::List => {
                // The calls in a list have tags of their own, or are JSON or Python.
                self.python = true;
                self.after_call = false;
                self.line_has_text = false;
                self.mode = Mode::Text;
                self.listed = true;
            }
            Tag::Open { certain } => {
                self.announced = true;
                self.after_call = false;
                self.mode = Mode::Head(Box::new(Head::new(start, after, certain)));
            }
            _ => {}
        }
    }

    /// Begins reading arguments that are written as elements. `pos` is where the first element
    /// begins or, if `in_key` is set, where the text of its key begins.
    pub(crate) fn begin_invoke(
        &mut self,
        tool: &str,
        start: usize,
        pos: usize,
        closer: Closer,
        in_key: bool,
    ) -> Flow {
        let tool = self.options.bare_name(tool);
        let followed = self.options.followed.contains(&tool);
        self.pos = pos;
        self.mode = Mode::Invoke(Box::new(Invoke::new(tool, start, pos, closer, in_key, followed)));
        Flow::Go
    }

    /// Handles a GLM call that lacks its opening token: `read_file<arg_key>path</arg_key>…`.
    fn key_without_opening(
        &mut self,
        win: Window<'_>,
        start: usize,
        after: usize,
        out: &mut Vec<Event>,
    ) -> Flow {
        let named = prose::last_word(self.before_all(win, out));
        let Some((tool, back)) =
            named.filter(|(tool, _)| self.options.known_tools.is_none() || self.options.knows(tool))
        else {
            return self.plain(1);
        };
        self.skip(win, after, out);
        self.begin_invoke(&tool, start - back, after, Closer::Wrapper, true)
    }

    /// Handles a call in Cline's form: an element that is named after the tool and contains one
    /// element per argument (`<read_file><path>…`).
    fn tool_element(&mut self, win: Window<'_>, len: usize, out: &mut Vec<Event>) -> Flow {
        let plain = if len == 0 || self.inline > 0 || self.foreign {
            None
        } else {
            plain_element(win.slice(self.pos, self.pos + len))
        };
        let placed = match &self.fence {
            Some(fence) => fence.data && (fence.fresh || !self.line_has_text),
            None => !self.line_has_text || self.after_call,
        };
        let (start, after) = (self.pos, self.pos + len);
        if let Some((name, kind @ (Plain::Open | Plain::Empty))) = plain
            && placed
            && self.options.knows(name)
        {
            let tool = name.to_owned();
            let closer = if kind == Plain::Empty { Closer::Empty } else { Closer::Tool };
            if kind == Plain::Open {
                let at = match win.skip_blanks(after) {
                    Blanks::Until(at) => at,
                    Blanks::More => return Flow::More,
                    Blanks::TooMany | Blanks::End => return self.plain(len),
                };
                let Some(inner) = tag_length(win, at, &mut at.clone()) else { return Flow::More };
                let next = plain_element(win.slice(at, at + inner));
                let argument = next.is_some_and(|(n, k)| k == Plain::Open || k == Plain::Close && n == tool);
                if win.get(at) != Some(b'<') || !argument {
                    return self.plain(len);
                }
            }
            self.show(win, self.pos, out);
            if self.after_call || self.is_call(start, false) {
                if let Some(fence) = &mut self.fence {
                    fence.file = None;
                }
                self.hold = None;
                self.skip(win, after, out);
                return self.begin_invoke(&tool, start, after, closer, false);
            }
        }
        if self.fence_is_file(out) { Flow::Go } else { self.plain(1) }
    }

    fn turn(&mut self, win: Window<'_>, turn: Turn, after: usize, out: &mut Vec<Event>) {
        match turn {
            Turn::Foreign | Turn::Assistant => {
                self.skip(win, after, out);
                self.foreign = turn == Turn::Foreign || self.follows_invented_turn();
            }
            Turn::Role => {
                self.skip(win, after, out);
                self.role_follows = true;
            }
            Turn::Header | Turn::Channel | Turn::Part | Turn::Message => self.skip(win, after, out),
            Turn::Result => {
                self.hold = None;
                self.skip(win, after, out);
                // Everything that follows is based on a turn that the model invented.
                self.foreign |= self.calls > 0;
                self.mode = Mode::Result;
            }
            Turn::ResultEnd => self.skip(win, after, out),
        }
    }

    /// Returns whether the model invented a turn after its call. If so, the assistant turn that
    /// follows is invented, too.
    pub(crate) fn follows_invented_turn(&self) -> bool {
        self.foreign && self.calls > 0
    }

    /// Handles a tag on a line that is skipped after a malformed call. Once a tag or token closes
    /// the call or begins a turn, calls may begin on this line again.
    pub(crate) fn tag_on_skipped_line(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some((tag, _)) = self.tag_here(win) else { return Flow::More };
        if matches!(
            tag,
            Some(Tag::CallEnd | Tag::ListEnd | Tag::InvokeEnd | Tag::Turn(Turn::Foreign | Turn::Header))
        ) {
            self.skip_line = false;
            return self.tag(win, out);
        }
        self.plain(1)
    }

    /// Skips a tool result that the model invented.
    pub(crate) fn result(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(hit) = memchr::memchr2(b'<', b'[', win.from(self.pos)) else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let Some((tag, len)) = self.tag_here(win) else { return Flow::More };
        match tag {
            Some(Tag::Turn(Turn::ResultEnd)) => {
                self.skip(win, self.pos + len, out);
                self.mode = Mode::Text;
            }
            _ => self.pos += 1,
        }
        Flow::Go
    }

    pub(crate) fn invoke(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Invoke(invoke) = &mut self.mode else { return Flow::Go };
        let outcome = invoke.run(win, &mut Sink { options: &self.options, calls: &mut self.calls, out });
        let (start, pos) = (invoke.start, invoke.pos);
        let limit = start + self.options.max_call_bytes;
        match outcome {
            _ if pos > limit => self.fail(Malformed::TooLong, limit, out),
            markup::Outcome::More => return Flow::More,
            markup::Outcome::Object => {
                let named = Named { tool: std::mem::take(&mut invoke.tool), start };
                let opened = invoke.call;
                self.announced = true;
                self.begin(pos, Some(true), Some(named));
                if let (Some(call), Mode::Object(candidate)) = (opened, &mut self.mode) {
                    candidate.mark_opened(call, &self.options);
                }
            }
            markup::Outcome::Complete => self.complete_invoke(out),
            markup::Outcome::Failed(why) => self.fail(why, pos, out),
        }
        Flow::Go
    }

    pub(crate) fn complete_invoke(&mut self, out: &mut Vec<Event>) {
        let Mode::Invoke(invoke) = &mut self.mode else { return };
        let Some(call) = invoke.call else { return };
        let arguments = Value::Object(std::mem::take(&mut invoke.arguments));
        let tool = std::mem::take(&mut invoke.tool);
        let (start, end, repairs) = (invoke.start, invoke.pos, std::mem::take(&mut invoke.repairs).list());
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs, native: true }));
        self.call_ended(end);
    }

    /// Emits a call without arguments and continues after it.
    pub(crate) fn emit_empty_call(&mut self, tool: String, start: usize, end: usize, out: &mut Vec<Event>) {
        let arguments = Value::Object(Map::new());
        let call = Call { call: 0, tool, arguments, start, end, repairs: Vec::new(), native: true };
        self.sink(out).whole(call);
        self.call_ended(end);
    }
}
