//! Calls written as tags: DSML, Anthropic's `<invoke>`, Qwen's `<function=…><parameter=…>`.
//!
//! A value runs to its closing tag. Where only the next opening tag shows that it has ended, the call is complete but
//! its repair is noted; where the stream ends inside a value, the call is cut off.

use memchr::memchr;
use serde_json::{Map, Value};

use crate::event::{Event, Malformed, Repair};
use crate::tags::{MAX_TAG, Tag, classify};
use crate::text::{Repairs, utf8};
use crate::window::Window;

/// A call being read from tags.
#[derive(Debug)]
pub(crate) struct Invoke {
    pub(crate) tool: String,
    pub(crate) start: usize,
    /// Next byte to read.
    pub(crate) pos: usize,
    /// Number of the call once it is open.
    pub(crate) call: Option<usize>,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) repairs: Repairs,
    param: Option<Param>,
    /// How far the tag at `pos` has been searched for its end.
    searched: usize,
}

#[derive(Debug)]
struct Param {
    name: String,
    string: Option<bool>,
    body: usize,
}

/// What became of it.
pub(crate) enum Outcome {
    More,
    /// The object of `<function=f>{…}</function>` begins at `pos`.
    Object,
    Complete,
    Failed(Malformed),
}

impl Invoke {
    pub(crate) fn new(tool: String, start: usize, pos: usize) -> Invoke {
        Invoke {
            tool,
            start,
            pos,
            call: None,
            arguments: Map::new(),
            repairs: Repairs::default(),
            param: None,
            searched: pos,
        }
    }

    /// True if nothing is missing but the closing tag.
    pub(crate) fn only_closer_missing(&self) -> bool {
        self.param.is_none() && !self.arguments.is_empty()
    }

    pub(crate) fn in_value(&self) -> bool {
        self.param.is_some()
    }

    pub(crate) fn run(&mut self, win: Window<'_>, calls: &mut usize, out: &mut Vec<Event>) -> Outcome {
        loop {
            let rest = win.from(self.pos);
            if self.param.is_none() {
                match rest.iter().position(|b| !b.is_ascii_whitespace()) {
                    None => {
                        self.pos = win.end();
                        return Outcome::More;
                    }
                    Some(blanks) => {
                        self.pos += blanks;
                        match rest[blanks] {
                            b'<' => {}
                            b'{' if self.arguments.is_empty() => return Outcome::Object,
                            _ => return Outcome::Failed(Malformed::NotJson),
                        }
                    }
                }
            } else {
                match memchr(b'<', rest) {
                    None => {
                        self.pos = win.end();
                        return Outcome::More;
                    }
                    Some(hit) => self.pos += hit,
                }
            }
            let Some(len) = tag_length(win, self.pos, &mut self.searched) else { return Outcome::More };
            let tag = if len == 0 { None } else { classify(win.slice(self.pos, self.pos + len)) };
            if self.call.is_none() {
                self.call = Some(*calls);
                out.push(Event::CallOpened { call: *calls, tool: self.tool.clone() });
                *calls += 1;
            }
            match (&self.param, tag) {
                (Some(_), Some(Tag::ParameterEnd)) => {
                    self.close_param(win, out);
                    self.pos += len;
                }
                (Some(_), Some(Tag::Parameter { name, string })) => {
                    self.repairs.add(Repair::MissingCloser);
                    self.close_param(win, out);
                    self.pos += len;
                    self.param = Some(Param { name, string, body: self.pos });
                }
                (Some(_), Some(Tag::InvokeEnd)) => {
                    self.repairs.add(Repair::MissingCloser);
                    self.close_param(win, out);
                    self.pos += len;
                    return Outcome::Complete;
                }
                (Some(_), _) => self.pos += len.max(1),
                (None, Some(Tag::Parameter { name, string })) => {
                    self.pos += len;
                    self.param = Some(Param { name, string, body: self.pos });
                }
                (None, Some(Tag::InvokeEnd)) => {
                    self.pos += len;
                    return Outcome::Complete;
                }
                // The closing tag was left out before the next call or the end of the calls.
                (None, Some(Tag::CallEnd | Tag::Noise | Tag::Invoke { .. })) => {
                    self.repairs.add(Repair::MissingCloser);
                    return Outcome::Complete;
                }
                (None, Some(Tag::ParameterEnd)) => self.pos += len,
                (None, _) => return Outcome::Failed(Malformed::NotJson),
            }
        }
    }

    fn close_param(&mut self, win: Window<'_>, out: &mut Vec<Event>) {
        let Some(Param { name, string, body }) = self.param.take() else { return };
        let bytes = win.slice(body, self.pos);
        let value = match string {
            Some(true) => Value::String(utf8(bytes.to_vec(), &mut self.repairs)),
            Some(false) => serde_json::from_slice(bytes)
                .unwrap_or_else(|_| Value::String(utf8(trim_line(bytes).to_vec(), &mut self.repairs))),
            None => untyped(&name, trim_line(bytes), &mut self.repairs),
        };
        if let Some(call) = self.call {
            out.push(Event::FieldClosed { call, name: name.clone(), value: value.clone() });
        }
        self.arguments.insert(name, value);
    }
}

/// A value without a type: numbers, literals and data are JSON, text is text. What is by its name the text of a file
/// stays text even if it is JSON.
pub(crate) fn untyped(name: &str, bytes: &[u8], repairs: &mut Repairs) -> Value {
    let textual =
        ["content", "contents", "text", "patch", "body", "code", "search", "replace", "file_text", "message"]
            .contains(&name);
    if !textual
        && let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && !value.is_string()
    {
        return value;
    }
    Value::String(utf8(bytes.to_vec(), repairs))
}

/// Without the line break behind the opening tag and the one before the closing tag.
pub(crate) fn trim_line(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")).unwrap_or(bytes);
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}

/// Length of the tag at `at` (a `<`), 0 if it is none, `None` if more bytes are needed. `searched` remembers how far
/// its end has been looked for, so that no byte is looked at twice.
pub(crate) fn tag_length(win: Window<'_>, at: usize, searched: &mut usize) -> Option<usize> {
    let first = match win.get(at + 1) {
        Some(b'/') => win.get(at + 2),
        other => other,
    };
    match first {
        None if !win.eof => return None,
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'|' | b'/' | 0xEF | 0xE2 | 0xC2) => {}
        _ => return Some(0),
    }
    let from = (*searched).max(at + 1);
    for (i, &b) in win.from(from).iter().enumerate() {
        let len = from + i + 1 - at;
        match b {
            b'>' => return Some(len),
            b'<' | b'\n' => return Some(0),
            _ if len >= MAX_TAG => return Some(0),
            _ => {}
        }
    }
    *searched = win.end();
    if win.eof { Some(0) } else { None }
}
