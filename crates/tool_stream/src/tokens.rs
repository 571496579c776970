//! The parser's part for tags and tokens: think blocks, turns, and calls whose name stands before their arguments.

use memchr::memchr;
use serde_json::{Map, Value};

use crate::event::{Call, Event, Malformed};
use crate::markup::{self, Invoke, tag_length, trim_line, untyped};
use crate::object::Named;
use crate::parser::{Flow, Mode, Parser};
use crate::tags::{Tag, classify};
use crate::text::Repairs;
use crate::window::Window;

/// A call whose name stands before its arguments, until they begin.
#[derive(Debug)]
pub(crate) struct Naming {
    /// First byte of the call.
    pub(crate) start: usize,
    /// Where the text behind the last separator begins.
    segment: usize,
    /// The text before the last separator.
    before: String,
    separated: bool,
    /// Begun by a token that means nothing else; otherwise it may turn out to be prose.
    pub(crate) certain: bool,
    /// Nothing but the name may stand here.
    bare: bool,
    /// Pairs of GLM's `<arg_key>` and `<arg_value>`.
    pairs: Map<String, Value>,
    key: Option<String>,
}

impl Naming {
    /// True if nothing has come behind the tag or token.
    pub(crate) fn is_empty(&self, win: Window<'_>) -> bool {
        !self.separated && self.pairs.is_empty() && blank(win.from(self.segment))
    }
}

/// Bytes between the name of a token call and its arguments, at most.
const MAX_NAMING: usize = 512;

impl Parser {
    pub(crate) fn tag(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let tag =
            if len == 0 || self.inline > 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        let Some(tag) = tag else { return if self.fence_is_file(out) { Flow::Go } else { self.plain(1) } };
        let (start, after) = (self.pos, self.pos + len);
        if let Some(fence) = &self.fence
            && !(fence.fresh || fence.data && self.line_blank || self.behind_call)
            && tag != Tag::ThinkClose
        {
            return self.plain(1);
        }
        if let Some(fence) = &mut self.fence {
            // Around a call, then, not around a file.
            fence.file = None;
        }
        match tag {
            Tag::ThinkOpen if self.line_blank || self.behind_call => {
                self.hold = None;
                self.skip(win, after, out);
                self.think_seen = true;
                self.mode = Mode::Think;
            }
            Tag::ThinkOpen => return self.plain(len),
            Tag::ThinkClose => {
                self.hold = None;
                self.skip(win, after, out);
                if !self.think_seen {
                    self.think_seen = true;
                    out.push(Event::OrphanThink { at: start });
                    self.fence = None;
                    self.announced = false;
                    self.foreign = false;
                    self.tail.clear();
                }
                self.line_blank = true;
            }
            _ if self.foreign && !matches!(tag, Tag::Assistant | Tag::Turn) => self.skip(win, after, out),
            Tag::Announce => {
                self.skip(win, after, out);
                self.announced = true;
                self.behind_call = false;
                self.name_follows(start, after, false, true);
            }
            Tag::CallBegin | Tag::Channel => {
                self.hold = None;
                self.skip(win, after, out);
                self.announced = true;
                self.name_follows(start, after, tag == Tag::CallBegin, false);
            }
            Tag::Invoke { name } => {
                self.hold = None;
                self.skip(win, after, out);
                self.announced = false;
                self.mode = Mode::Invoke(Box::new(Invoke::new(self.options.bare_name(&name), start, after)));
            }
            Tag::ResultOpen => {
                self.hold = None;
                self.skip(win, after, out);
                self.mode = Mode::Result;
            }
            Tag::Foreign | Tag::Assistant => {
                self.skip(win, after, out);
                self.foreign = tag == Tag::Foreign;
            }
            Tag::Turn => {
                self.skip(win, after, out);
                self.role_follows = true;
            }
            Tag::CallEnd => {
                self.announced = false;
                self.skip(win, after, out);
                self.behind_call = true;
            }
            _ => self.skip(win, after, out),
        }
        Flow::Go
    }

    /// Behind a broken call its closing tag or token sets things right.
    pub(crate) fn tag_on_dead_line(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        if matches!(tag, Some(Tag::CallEnd | Tag::InvokeEnd | Tag::Foreign)) {
            self.line_dead = false;
            return self.tag(win, out);
        }
        self.plain(1)
    }

    pub(crate) fn name_follows(&mut self, start: usize, after: usize, certain: bool, bare: bool) {
        self.mode = Mode::Naming(Box::new(Naming {
            start,
            segment: after,
            before: String::new(),
            separated: false,
            certain,
            bare,
            pairs: Map::new(),
            key: None,
        }));
    }

    // ---- think blocks and imagined results ---------------------------------------------------------------------

    pub(crate) fn think(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(tag) = self.next_tag(win) else { return Flow::More };
        match tag {
            (Some(Tag::ThinkClose), len) => self.leave_think(win, len, out),
            (Some(Tag::Noise | Tag::Channel | Tag::Turn), len) if self.channel_thought => {
                // The token that ends a channel belongs to what follows if it opens something.
                let _ = len;
                self.channel_thought = false;
                self.leave_think(win, 0, out);
            }
            _ => self.pos += 1,
        }
        Flow::Go
    }

    fn leave_think(&mut self, win: Window<'_>, len: usize, out: &mut Vec<Event>) {
        self.show(win, self.pos, out);
        self.pos += len;
        self.shown = self.pos;
        self.mode = Mode::Text;
        self.line_blank = true;
    }

    pub(crate) fn result(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(tag) = self.next_tag(win) else { return Flow::More };
        match tag {
            (Some(Tag::ResultClose), len) => {
                self.skip(win, self.pos + len, out);
                self.mode = Mode::Text;
            }
            _ => self.pos += 1,
        }
        Flow::Go
    }

    /// Goes to the next `<`; the tag there, if it is one, and its length.
    fn next_tag(&mut self, win: Window<'_>) -> Option<(Option<Tag>, usize)> {
        let Some(hit) = memchr(b'<', win.from(self.pos)) else {
            self.pos = win.end();
            return None;
        };
        self.pos += hit;
        let len = tag_length(win, self.pos, &mut self.searched)?;
        let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        Some((tag, len))
    }

    // ---- calls whose name stands before the arguments ------------------------------------------------------------

    pub(crate) fn naming(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &mut self.mode else { return Flow::Go };
        let Some(byte) = win.get(self.pos) else { return Flow::More };
        if self.pos - naming.segment > MAX_NAMING {
            return self.not_named(out);
        }
        match byte {
            b'{' => self.arguments_begin(win, out),
            b'[' if blank(win.slice(naming.segment, self.pos)) => {
                // No name: an array of calls follows.
                self.mode = Mode::Text;
                Flow::Go
            }
            b'<' => self.tag_in_naming(win, out),
            0xE2 if naming.segment == self.pos || win.from(self.pos).len() >= 3 || win.eof => {
                self.pos += 1;
                Flow::Go
            }
            _ => {
                self.pos += 1;
                Flow::Go
            }
        }
    }

    fn arguments_begin(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &mut self.mode else { return Flow::Go };
        let segment = String::from_utf8_lossy(win.slice(naming.segment, self.pos)).into_owned();
        if naming.bare && segment.split_whitespace().count() > 1 && !segment.contains("```") {
            return self.not_named(out);
        }
        let named = tool_name(&segment).or_else(|| tool_name(&naming.before));
        let start = naming.start;
        self.swallow_fence = segment.contains("```");
        self.shown = self.pos;
        let named = named.map(|tool| Named { tool: self.options.bare_name(&tool), start });
        self.begin(self.pos, Some(true), named);
        Flow::Go
    }

    fn tag_in_naming(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Flow::More };
        let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
        let Mode::Naming(naming) = &mut self.mode else { return Flow::Go };
        let segment = win.slice(naming.segment, self.pos);
        let text = String::from_utf8_lossy(segment).into_owned();
        let after = self.pos + len;
        match tag {
            None => self.pos += 1,
            Some(Tag::Separator) => {
                // Between two separators stands the format, not the name.
                if !(naming.separated && tool_name(&naming.before).is_some()) {
                    naming.before = text;
                }
                naming.separated = true;
                naming.segment = after;
                self.pos = after;
                if !naming.certain && !naming.before.contains("to=") {
                    self.channel_thought = naming.before.trim() == "analysis";
                    self.announced = false;
                    self.shown = after;
                    self.mode = if self.channel_thought { Mode::Think } else { Mode::Text };
                    self.think_seen |= self.channel_thought;
                }
            }
            Some(Tag::ArgKey) => {
                if naming.before.is_empty() {
                    naming.before = text;
                }
                naming.segment = after;
                self.pos = after;
            }
            Some(Tag::ArgKeyEnd) => {
                naming.key = Some(text.trim().to_owned());
                naming.segment = after;
                self.pos = after;
            }
            Some(Tag::ArgValue) => {
                naming.segment = after;
                self.pos = after;
            }
            Some(Tag::ArgValueEnd) => {
                if let Some(key) = naming.key.take() {
                    let value = untyped(&key, trim_line(segment), &mut Repairs::default());
                    naming.pairs.insert(key, value);
                }
                naming.segment = after;
                self.pos = after;
            }
            Some(Tag::CallEnd) if !naming.pairs.is_empty() || naming.separated => {
                return self.named_without_object(&text, after, out);
            }
            Some(Tag::Invoke { .. }) if blank(segment) => self.mode = Mode::Text,
            Some(_) => return self.not_named(out),
        }
        Flow::Go
    }

    /// A call that ends without an object: GLM's pairs, or a tool without arguments.
    fn named_without_object(&mut self, segment: &str, after: usize, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &mut self.mode else { return Flow::Go };
        let name = if naming.pairs.is_empty() { tool_name(segment) } else { None };
        let Some(tool) = name.or_else(|| tool_name(&naming.before)) else { return self.not_named(out) };
        let tool = self.options.bare_name(&tool);
        let (start, pairs) = (naming.start, std::mem::take(&mut naming.pairs));
        let call = self.calls;
        self.calls += 1;
        out.push(Event::CallOpened { call, tool: tool.clone() });
        for (name, value) in &pairs {
            out.push(Event::FieldClosed { call, name: name.clone(), value: value.clone() });
        }
        let arguments = Value::Object(pairs);
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end: after, repairs: Vec::new() }));
        self.called(after);
        Flow::Go
    }

    fn not_named(&mut self, out: &mut Vec<Event>) -> Flow {
        let Mode::Naming(naming) = &self.mode else { return Flow::Go };
        if naming.certain || !naming.pairs.is_empty() {
            out.push(Event::Malformed { why: Malformed::NotJson, at: self.pos });
            self.shown = self.pos;
        }
        self.announced = false;
        self.mode = Mode::Text;
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
                self.announced = true;
                self.begin(pos, Some(true), Some(named));
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
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs }));
        self.called(end);
    }
}

fn blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// The tool's name in the text before its arguments, without index and decoration.
fn tool_name(text: &str) -> Option<String> {
    let text = text.find("to=").map_or(text, |i| &text[i + 3..]);
    let word = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':');
    let end = word.find(|c: char| !(c.is_alphanumeric() || "_-./:".contains(c))).unwrap_or(word.len());
    let mut name = word[..end].trim_end_matches(':');
    if let Some((bare, index)) = name.rsplit_once(':')
        && index.chars().all(|c| c.is_ascii_digit())
    {
        name = bare;
    }
    if name.is_empty() { None } else { Some(name.to_owned()) }
}
