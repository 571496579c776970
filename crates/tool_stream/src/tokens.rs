//! The parser's part for tags and tokens in the text of an answer.

use serde_json::{Map, Value};

use crate::dialects::{THOUGHTS, Turn, UNKNOWN};
use crate::event::{Call, Event, Malformed};
use crate::head::Head;
use crate::markup::{self, Closer, Invoke};
use crate::object::Named;
use crate::parser::{Flow, Mode, Parser};
use crate::prose;
use crate::tags::{Literal, Plain, Tag, classify, is_token, literal, plain_element, tag_length};
use crate::text::Repairs;
use crate::window::{Blanks, Window};

impl Parser {
    /// A `<` in the text.
    pub(crate) fn tag(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let bytes = win.slice(self.pos, self.pos + len);
        let tag = if len == 0 || self.inline > 0 { None } else { classify(bytes) };
        // Behind an opening tag, a tag that the end of the answer cuts.
        self.cut_tag = win.eof && len == 0 && (self.listed || self.announced);
        let Some(tag) = tag else { return self.tool_element(win, len, out) };
        self.mark(win, tag, len, out)
    }

    /// The meaning of the tag or token at `pos`, if it has one, and its length; `None` if more bytes are
    /// needed to say.
    pub(crate) fn mark_here(&mut self, win: Window<'_>) -> Option<(Option<Tag>, usize)> {
        if win.get(self.pos) != Some(b'<') {
            return match literal(win.from(self.pos), win.eof) {
                Literal::More => None,
                Literal::None => Some((None, 0)),
                Literal::Found(tag, len) => Some((Some(tag), len)),
            };
        }
        let len = tag_length(win, self.pos, &mut self.searched)?;
        Some((if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) }, len))
    }

    /// A token that does not begin with `<`.
    pub(crate) fn literal(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        match literal(win.from(self.pos), win.eof) {
            Literal::More => Flow::More,
            Literal::Found(tag, len) if self.inline == 0 => self.mark(win, tag, len, out),
            _ => self.plain(1),
        }
    }

    /// A tag or token with a meaning, at `pos`.
    fn mark(&mut self, win: Window<'_>, tag: Tag, len: usize, out: &mut Vec<Event>) -> Flow {
        let (start, after) = (self.pos, self.pos + len);
        if let Some(fence) = &self.fence
            && !(fence.data && (fence.fresh || self.line_blank) || self.behind_call)
            && !matches!(tag, Tag::ThinkClose(_))
        {
            return if self.fence_is_file(out) { Flow::Go } else { self.plain(1) };
        }
        if let Some(fence) = &mut self.fence {
            // Around a call, then, not around a file.
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
                // What only its name tells closes nothing that it has not opened.
                if (prose || kind == UNKNOWN) && !self.think_seen {
                    return self.plain(len);
                }
                self.hold = None;
                self.skip(win, after, out);
                // Another close in the same answer: the one before it was a word in the thought.
                if !self.think_seen || self.calls > 0 && !self.behind_call {
                    self.think_seen = true;
                    out.push(Event::OrphanThink { at: start });
                    self.fence = None;
                    self.announced = false;
                    self.foreign = false;
                    self.tail.clear();
                    self.begin_answer();
                }
                self.line_blank = true;
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
                self.behind_call = true;
            }
            Tag::Key => return self.key_without_opening(win, start, after, out),
            // The name of a known tool before it, and the opening token was stripped.
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

    /// The text before `pos`, all of it shown.
    fn before_all(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> &[u8] {
        self.show(win, self.pos, out);
        self.before()
    }

    /// Whether an opening tag is one in an example. Then the rest of the example is text.
    fn in_example(&mut self, tag: &Tag, mark: &[u8]) -> bool {
        let kind = std::mem::discriminant(tag);
        let token = is_token(mark);
        let start = self.pos;
        let example = match self.example {
            // Another call of the same kind may be a real one.
            Some(open) if open == kind && self.line_blank => !self.is_call(start, token),
            Some(_) => true,
            None => !(self.behind_call || self.announced || self.is_call(start, token)),
        };
        if example {
            self.example.get_or_insert(kind);
        } else {
            self.example = None;
        }
        example
    }

    /// A tag that opens a call or a list of calls.
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
                self.begin_invoke(self.options.bare_name(&name), start, after, closer);
            }
            Tag::List => {
                // What the list holds has tags of its own, or is JSON or Python.
                self.python = true;
                self.behind_call = false;
                self.line_blank = true;
                self.mode = Mode::Text;
                self.listed = true;
            }
            Tag::Open { certain } => {
                self.announced = true;
                self.behind_call = false;
                self.mode = Mode::Head(Box::new(Head::new(start, after, certain)));
            }
            _ => {}
        }
    }

    fn begin_invoke(&mut self, tool: String, start: usize, pos: usize, closer: Closer) {
        let followed = self.options.followed.contains(&tool);
        self.mode = Mode::Invoke(Box::new(Invoke::new(tool, start, pos, closer, followed)));
    }

    /// GLM without its opening token: `read_file<arg_key>path</arg_key>…`.
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
        let tool = self.options.bare_name(&tool);
        let followed = self.options.followed.contains(&tool);
        let invoke = Invoke::new(tool, start - back, after, Closer::Wrapper, followed);
        self.mode = Mode::Invoke(Box::new(invoke.in_key()));
        Flow::Go
    }

    /// `<read_file>` and an argument's element behind it: the tag of a known tool, as Cline writes it.
    fn tool_element(&mut self, win: Window<'_>, len: usize, out: &mut Vec<Event>) -> Flow {
        let plain = if len == 0 || self.inline > 0 || self.foreign {
            None
        } else {
            plain_element(win.slice(self.pos, self.pos + len))
        };
        let placed = match &self.fence {
            Some(fence) => fence.data && (fence.fresh || self.line_blank),
            None => self.line_blank || self.behind_call,
        };
        let (start, after) = (self.pos, self.pos + len);
        if let Some((name, kind @ (Plain::Open | Plain::Empty))) = plain
            && placed
            && self.options.knows(name)
        {
            let tool = name.to_owned();
            let closer = if kind == Plain::Empty { Closer::Empty } else { Closer::Tool };
            if kind == Plain::Open {
                let at = match win.behind_blanks(after) {
                    Blanks::Upto(at) => at,
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
            if self.behind_call || self.is_call(start, false) {
                if let Some(fence) = &mut self.fence {
                    fence.file = None;
                }
                self.hold = None;
                self.skip(win, after, out);
                self.begin_invoke(tool, start, after, closer);
                return Flow::Go;
            }
        }
        if self.fence_is_file(out) { Flow::Go } else { self.plain(1) }
    }

    fn turn(&mut self, win: Window<'_>, turn: Turn, after: usize, out: &mut Vec<Event>) {
        match turn {
            Turn::Foreign | Turn::Assistant => {
                self.skip(win, after, out);
                self.foreign = turn == Turn::Foreign || self.goes_on_alone();
            }
            Turn::Role => {
                self.skip(win, after, out);
                self.role_follows = true;
            }
            Turn::Header | Turn::Channel | Turn::Part | Turn::Message => self.skip(win, after, out),
            Turn::Result => {
                self.hold = None;
                self.skip(win, after, out);
                // What the model does then, it does on the ground of what it made up.
                self.foreign |= self.calls > 0;
                self.mode = Mode::Result;
            }
            Turn::ResultEnd => self.skip(win, after, out),
        }
    }

    /// Whether the model's own turn begins behind a turn that it made up to follow its call.
    pub(crate) fn goes_on_alone(&self) -> bool {
        self.foreign && self.calls > 0
    }

    /// Behind a broken call its closing tag or token sets things right.
    pub(crate) fn tag_on_dead_line(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        if matches!(
            tag,
            Some(Tag::CallEnd | Tag::ListEnd | Tag::InvokeEnd | Tag::Turn(Turn::Foreign | Turn::Header))
        ) {
            self.line_dead = false;
            return self.tag(win, out);
        }
        self.plain(1)
    }

    /// What a tool would have answered, in the model's imagination.
    pub(crate) fn result(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(hit) = memchr::memchr2(b'<', b'[', win.from(self.pos)) else {
            self.pos = win.end();
            return Flow::More;
        };
        self.pos += hit;
        let Some((tag, len)) = self.mark_here(win) else { return Flow::More };
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
        let outcome = invoke.run(win, &mut self.calls, out);
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
                    candidate.opened_as(call, &self.options);
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
        let (start, end, repairs) = (invoke.start, invoke.pos, invoke.repairs.list());
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs, native: true }));
        self.called(end);
    }

    /// A complete call that nothing was said of before.
    pub(crate) fn emit_call(
        &mut self,
        tool: String,
        arguments: Map<String, Value>,
        span: (usize, usize),
        repairs: Repairs,
        out: &mut Vec<Event>,
    ) {
        let call = self.calls;
        self.calls += 1;
        out.push(Event::CallOpened { call, tool: tool.clone() });
        let (arguments, repairs) = (Value::Object(arguments), repairs.list());
        out.push(Event::CallComplete(Call {
            call,
            tool,
            arguments,
            start: span.0,
            end: span.1,
            repairs,
            native: true,
        }));
    }
}
