//! Reads an object that may be a call: opens the call early, reports its fields and completes it.

use serde_json::{Map, Value};

use crate::event::{Call, Event, Malformed, Options, Repair};
use crate::follow::Follow;
use crate::json::{Node, Reader, Step, Syntax};
use crate::shape::{self, Look, Shape};
use crate::tags::{Tag, tag_at};
use crate::text::Repairs;
use crate::window::Window;

/// The parts of the parser needed to report a call: its options, call counter and list of events.
pub(crate) struct Sink<'a> {
    pub(crate) options: &'a Options,
    pub(crate) calls: &'a mut usize,
    pub(crate) out: &'a mut Vec<Event>,
}

impl Sink<'_> {
    /// Opens a call and returns its index.
    pub(crate) fn open(&mut self, tool: String) -> usize {
        let call = *self.calls;
        *self.calls += 1;
        self.out.push(Event::CallOpened { call, tool });
        call
    }

    /// Reports all arguments of a call at once.
    fn fields(&mut self, call: usize, arguments: &Value) {
        let fields = arguments.as_object().into_iter().flatten();
        fields.for_each(|(name, value)| self.field(call, name, value));
    }

    /// Reports an argument.
    pub(crate) fn field(&mut self, call: usize, name: &str, value: &Value) {
        self.out.push(Event::FieldClosed { call, name: name.to_owned(), value: value.clone() });
    }

    /// Reports a complete call from start to finish.
    pub(crate) fn whole(&mut self, mut call: Call) {
        call.call = self.open(call.tool.clone());
        self.fields(call.call, &call.arguments);
        self.out.push(Event::CallComplete(call));
    }
}

/// A tool named before the object, which then holds only the tool's arguments.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) tool: String,
    /// Offset of the call's first byte.
    pub(crate) start: usize,
}

/// The result of reading an object.
#[derive(Debug)]
pub(crate) enum Outcome {
    More,
    /// The caller must now call [`Candidate::answer`] to set [`Candidate::eligible`].
    Ask,
    /// Closed at `reader.pos`. `called` is true if the object held a call.
    Closed {
        called: bool,
    },
    /// Abandoned at `reader.pos`. `called` is true if a call had begun in the object.
    Failed {
        why: Malformed,
        called: bool,
    },
}

/// An object and what is known so far about the call in it.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    pub(crate) start: usize,
    pub(crate) reader: Reader,
    /// Whether a call is allowed here. `None` means undecided: the decision waits for a key that
    /// could be part of a call, because few objects have such a key.
    pub(crate) eligible: Option<bool>,
    /// Whether the object is the first thing on its line.
    pub(crate) line_start: bool,
    /// Whether a token or tag before the object announced a call.
    pub(crate) announced: bool,
    named: Option<Named>,
    /// Depth of the object that is the call: 1, or 3 inside `{"tool_calls": [`. 0 if the object
    /// holds only the arguments of the [`Named`] tool.
    root: usize,
    tool: Option<Tool>,
    /// Whether a key that holds arguments has been seen.
    arguments: bool,
    /// The index of the opened call and the key of its arguments.
    opened: Option<(usize, String)>,
    fields: usize,
    /// Reports text arguments while the model is still writing them, if the tool is followed.
    follow: Option<Follow>,
    /// Number of calls completed so far.
    done: usize,
}

#[derive(Debug)]
struct Tool {
    name: String,
    /// The key whose value is the name.
    key: String,
}

impl Tool {
    fn explicit(&self) -> bool {
        shape::is_explicit(&self.key)
    }
}

impl Candidate {
    pub(crate) fn new(
        start: usize,
        eligible: Option<bool>,
        announced: bool,
        named: Option<Named>,
        max_depth: usize,
        syntax: Syntax,
    ) -> Self {
        let reader = Reader::new(start, max_depth, syntax);
        let root = usize::from(named.is_none());
        Candidate {
            start,
            reader,
            eligible,
            line_start: true,
            announced,
            root,
            named,
            ..Candidate::default()
        }
    }

    /// Records that the call was opened before its object began.
    pub(crate) fn mark_opened(&mut self, call: usize, options: &Options) {
        self.opened = Some((call, String::new()));
        self.follow = self.named.as_ref().and_then(|named| follow_if_requested(&named.tool, options));
    }

    /// Reads the buffered bytes.
    pub(crate) fn run(&mut self, win: Window<'_>, sink: &mut Sink<'_>) -> Outcome {
        if let Some(named) = &self.named
            && self.opened.is_none()
        {
            self.opened = Some((sink.open(named.tool.clone()), String::new()));
            self.follow = follow_if_requested(&named.tool, sink.options);
        }
        loop {
            let step = self.reader.step(win);
            let limit = self.start + sink.options.max_call_bytes;
            if self.reader.pos > limit {
                self.reader.pos = limit;
                return self.failed(Malformed::TooLong);
            }
            match step {
                Step::More => {
                    self.report_text(sink.out, |follow, reader, call, root, out| {
                        follow.open(reader, win, call, root, out)
                    });
                    return Outcome::More;
                }
                Step::Bad(why) => match self.closed_by_tag(win) {
                    Some(Some(value)) => return self.closed(value, sink),
                    Some(None) => return self.failed(why),
                    None => return Outcome::More,
                },
                Step::Done(value) => return self.closed(value, sink),
                Step::Key if self.eligible.is_none() => {
                    let key = self.reader.key_at(1).unwrap_or_default();
                    if self.reader.depth() == 1
                        && (shape::in_vocabulary(key, true) || sink.options.knows(key))
                    {
                        return Outcome::Ask;
                    }
                }
                _ if self.eligible != Some(true) => {}
                Step::Opened => self.container(),
                Step::Key => self.key(sink),
                Step::Added => {
                    self.report_text(sink.out, |follow, reader, call, root, out| {
                        follow.added(reader, call, root, out)
                    });
                    if let Err(why) = self.added(sink) {
                        return self.failed(why);
                    }
                }
            }
        }
    }

    /// Answers [`Outcome::Ask`].
    pub(crate) fn answer(&mut self, eligible: bool) {
        self.eligible = Some(eligible);
        self.arguments |= self.reader.key_at(1).is_some_and(shape::is_arguments);
    }

    /// Returns true if the bytes so far are clearly the beginning of a call.
    pub(crate) fn has_begun(&self) -> bool {
        let in_list = self.root == 3 && self.reader.key_at(1).is_some_and(shape::is_unambiguous_list);
        let named = self.tool.as_ref().is_some_and(|tool| tool.explicit() || self.arguments);
        self.eligible == Some(true)
            && (self.announced || self.done > 0 || self.opened.is_some() || in_list || named)
    }

    /// Returns the object's value if the call's closing tag appears in place of the closing braces,
    /// or `Some(None)` if it does not. `None` means that more bytes are needed.
    fn closed_by_tag(&mut self, win: Window<'_>) -> Option<Option<Value>> {
        let at = self.reader.pos;
        if win.get(at) != Some(b'<') || !self.announced || self.named.is_some() || !self.reader.after_value()
        {
            return Some(None);
        }
        if tag_at(win, at, &mut at.clone())?.0 != Some(Tag::CallEnd) {
            return Some(None);
        }
        let repair = if self.reader.depth() == 1 { Repair::MissingBrace } else { Repair::MissingCloser };
        self.reader.repairs.add(repair);
        Some(self.reader.close_all())
    }

    fn failed(&self, why: Malformed) -> Outcome {
        Outcome::Failed { why, called: self.has_begun() }
    }

    fn container(&mut self) {
        let depth = self.reader.depth();
        if self.root == 1 && depth == 2 && self.named.is_none() {
            let list = matches!(self.reader.stack[1].node, Node::Array(_));
            if list && self.reader.key_at(1).is_some_and(shape::is_list) && self.opened.is_none() {
                self.root = 3;
                self.tool = None;
            }
        } else if self.root == 3 && depth == 3 {
            (self.tool, self.opened, self.fields, self.arguments) = (None, None, 0, false);
        }
    }

    /// Opens a call to a known tool at the first key of its arguments, unless that key looks like
    /// part of a schema. Opens a call to an unknown tool earlier, at the `"arguments"` key or an
    /// equivalent one.
    fn key(&mut self, sink: &mut Sink<'_>) {
        let options = sink.options;
        let depth = self.reader.depth();
        if depth == self.root && self.reader.key_at(depth).is_some_and(shape::is_arguments) {
            self.arguments = true;
            // An unknown tool is refused regardless of its arguments.
            if self.opened.is_none()
                && self.named.is_none()
                && let Some(tool) = &self.tool
                && tool.explicit()
                && options.known_tools.is_some()
                && !options.knows(&options.bare_name(&tool.name))
            {
                self.open(String::new(), sink);
            }
        }
        if self.opened.is_some() || self.named.is_some() || depth != self.root + 1 {
            return;
        }
        let Some(holder) = self.reader.key_at(self.root) else { return };
        let Some(tool) = &self.tool else { return };
        let certain = if tool.explicit() {
            shape::is_arguments(holder)
        } else {
            shape::is_unambiguous_arguments(holder)
        };
        let field = self.reader.key_at(self.root + 1).unwrap_or_default();
        let described = self
            .reader
            .map_at(self.root)
            .is_some_and(|map| map.contains_key("description") || !self.announced && shape::is_record(map));
        if certain && !described && !shape::is_schema_key(field) {
            let holder = holder.to_owned();
            self.open(holder, sink);
        }
    }

    fn open(&mut self, holder: String, sink: &mut Sink<'_>) {
        let Some(tool) = &self.tool else { return };
        let name = sink.options.bare_name(&tool.name);
        self.follow = follow_if_requested(&name, sink.options);
        self.opened = Some((sink.open(name), holder));
    }

    /// Calls `report` if the string being read is part of the arguments of a followed call.
    fn report_text(
        &mut self,
        out: &mut Vec<Event>,
        report: impl FnOnce(&mut Follow, &Reader, usize, usize, &mut Vec<Event>),
    ) {
        if let (Some(follow), Some((call, holder))) = (&mut self.follow, &self.opened)
            && self.reader.depth() > self.root
            && (self.named.is_some() || self.reader.key_at(self.root) == Some(holder.as_str()))
        {
            report(follow, &self.reader, *call, self.root, out);
        }
    }

    fn added(&mut self, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let depth = self.reader.depth();
        if depth == self.root && self.named.is_none() {
            self.member()
        } else if depth == self.root + 1 {
            if let Some((call, holder)) = &self.opened
                && (self.named.is_some() || self.reader.key_at(self.root) == Some(holder.as_str()))
                && let Some(name) = self.reader.key_at(depth)
                && let Some(value) = self.reader.map_at(depth).and_then(|m| m.get(name))
            {
                sink.field(*call, name, value);
                self.fields += 1;
            }
            Ok(())
        } else if self.root == 3 && depth == 2 && self.reader.key_at(1).is_some_and(shape::is_list) {
            let span = self.reader.last;
            if let Some(Value::Object(map)) = self.reader.take_element() {
                if shape::has_broken_arguments(&map) {
                    return Err(Malformed::NotJson);
                }
                self.complete(map, span, sink);
            }
            Ok(())
        } else {
            Ok(())
        }
    }

    /// Handles a member of the object that may be the call.
    fn member(&mut self) -> Result<(), Malformed> {
        let Some(key) = self.reader.key_at(self.root) else { return Ok(()) };
        if !shape::is_name(key) {
            return Ok(());
        }
        let key = key.to_owned();
        let explicit = shape::is_explicit(&key);
        let map = self.reader.map_at(self.root);
        let Some(Value::String(name)) = map.and_then(|m| m.get(&key)) else { return Ok(()) };
        let name = name.clone();
        if let Some(old) = &self.tool {
            // `"tool"` takes precedence over `"name"`, regardless of their order. If there are two
            // keys of the same kind, the first one wins.
            if old.key != key && (!explicit || old.explicit()) {
                return Ok(());
            }
            if self.opened.is_some() || explicit && old.explicit() {
                return if old.name == name { Ok(()) } else { Err(Malformed::TwoNames) };
            }
        }
        if explicit && !shape::names_tool(&name) {
            return Ok(());
        }
        if explicit && shape::unglued(&name).len() < name.trim().len() {
            self.reader.repairs.add(Repair::GluedToken);
        }
        self.tool = Some(Tool { name, key });
        Ok(())
    }

    fn closed(&mut self, value: Value, sink: &mut Sink<'_>) -> Outcome {
        if self.eligible != Some(true) {
            return Outcome::Closed { called: false };
        }
        let span = self.reader.last;
        let Value::Object(map) = value else { return Outcome::Closed { called: self.done > 0 } };
        if let Some(named) = self.named.take() {
            let shape = Shape { tool: named.tool, arguments: Value::Object(map) };
            self.emit(shape, (named.start, span.1), self.reader.repairs.clone(), sink);
        } else if self.root == 1 {
            if shape::has_broken_arguments(&map) {
                return Outcome::Failed { why: Malformed::NotJson, called: true };
            }
            if self.opened.is_some() && !self.announced && shape::is_record(&map) {
                return Outcome::Failed { why: Malformed::Record, called: true };
            }
            let bad_name = shape::has_bad_name(&map);
            self.complete(map, span, sink);
            if self.done == 0 && (self.announced || bad_name) {
                let why = if bad_name { Malformed::BadName } else { Malformed::NoName };
                return Outcome::Failed { why, called: true };
            }
        }
        Outcome::Closed { called: self.done > 0 }
    }

    fn complete(&mut self, mut map: Map<String, Value>, span: (usize, usize), sink: &mut Sink<'_>) {
        let options = sink.options;
        let mut repairs = self.reader.repairs.clone();
        let shape = match (&self.tool, &self.opened) {
            (Some(tool), Some((_, holder))) if self.fields > 0 => {
                let arguments = map.swap_remove(holder).unwrap_or_default();
                Some(Shape { tool: options.bare_name(&tool.name), arguments })
            }
            (tool, opened) => {
                let mut look = Look { announced: self.announced, options, repairs: &mut repairs };
                look.call(&map).or_else(|| {
                    // The call was opened because its tool is unknown, so the object is a call
                    // regardless of what it contains.
                    let tool = tool.as_ref().filter(|_| opened.is_some())?;
                    let arguments = Value::Object(Map::new());
                    Some(Shape { tool: options.bare_name(&tool.name), arguments })
                })
            }
        };
        if let Some(shape) = shape {
            self.emit(shape, span, repairs, sink);
        }
        (self.tool, self.opened, self.fields, self.arguments) = (None, None, 0, false);
    }

    fn emit(&mut self, shape: Shape, span: (usize, usize), repairs: Repairs, sink: &mut Sink<'_>) {
        let Shape { tool, arguments } = shape;
        let call = self.opened.as_ref().map_or_else(|| sink.open(tool.clone()), |(call, _)| *call);
        if self.fields == 0 {
            sink.fields(call, &arguments);
        }
        self.done += 1;
        let (repairs, native, (start, end)) = (repairs.list(), self.announced, span);
        sink.out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs, native }));
    }
}

fn follow_if_requested(tool: &str, options: &Options) -> Option<Follow> {
    options.followed.iter().any(|t| t == tool).then(Follow::default)
}

impl Candidate {
    /// Returns whether a truncated object may be the beginning of a call, that is, whether it has
    /// only keys that occur in calls.
    pub(crate) fn may_begin(&self, win: Window<'_>) -> bool {
        let Some(map) = self.reader.map_at(1) else { return false };
        let key = match self.reader.open_key() {
            Some(from) => String::from_utf8_lossy(win.from(from)).into_owned(),
            None => String::new(),
        };
        let current = self.reader.key_at(1).unwrap_or_default();
        if map.is_empty() && current.is_empty() && key.is_empty() && !self.line_start {
            return false;
        }
        map.keys().all(|k| shape::in_vocabulary(k, true))
            && (current.is_empty() || shape::in_vocabulary(current, true))
            && shape::in_vocabulary(&key, false)
    }
}
