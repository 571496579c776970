//! Reports the text arguments of a call while the model is still writing them.

use serde_json::Value;

use crate::event::Event;
use crate::json::{Node, Reader};
use crate::text::{Repairs, decode};
use crate::window::Window;

/// Tracks how much of the innermost string has been reported.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// Offset of the string's first byte, which also identifies the string.
    body: usize,
    /// Offset up to which the string has been reported.
    reported_to: usize,
    /// Offset up to which the string has been searched for line breaks, so that no byte of a long
    /// line is scanned twice.
    searched: usize,
    /// The text reported so far.
    reported: String,
}

impl Follow {
    /// Reports the newly completed lines of a string that is still being read. `root` is the depth
    /// of the call's object.
    pub(crate) fn open(
        &mut self,
        reader: &Reader,
        win: Window<'_>,
        call: usize,
        root: usize,
        out: &mut Vec<Event>,
    ) {
        let Some(body) = reader.open_text() else { return };
        if self.body != body {
            *self = Self { body, reported_to: body, searched: body, reported: String::new() };
        }
        let end = last_line_end(win.slice(self.searched, reader.pos)).map(|end| self.searched + end);
        self.searched = reader.pos;
        let Some(end) = end else { return };
        let Some(path) = path(reader, root, false) else { return };
        let text = decode(win.slice(self.reported_to, end), &mut Repairs::default());
        self.reported_to = end;
        self.reported.push_str(&text);
        out.push(Event::FieldText { call, path, text, closed: false });
    }

    /// Reports the rest of a string that has just ended and been added to the innermost container.
    pub(crate) fn added(&mut self, reader: &Reader, call: usize, root: usize, out: &mut Vec<Event>) {
        let mut reported = std::mem::take(&mut self.reported);
        if std::mem::take(&mut self.body) <= reader.last.0 {
            reported.clear();
        }
        let Some(Value::String(value)) = reader.last_value() else { return };
        let (Some(rest), Some(path)) = (value.strip_prefix(&reported), path(reader, root, true)) else {
            return;
        };
        out.push(Event::FieldText { call, path, text: rest.to_owned(), closed: true });
    }
}

/// Returns the offset just past the last line break in a string's body. A line break is either an
/// escape (`\n`) or a raw newline. An incomplete escape at the end of the body is ignored for now.
fn last_line_end(body: &[u8]) -> Option<usize> {
    let (mut at, mut end) = (0, None);
    while let Some(hit) = memchr::memchr2(b'\\', b'\n', &body[at..]) {
        at += hit;
        if body[at] == b'\n' {
            at += 1;
            end = Some(at);
        } else {
            let Some(escaped) = body.get(at + 1) else { break };
            at += 2;
            if *escaped == b'n' {
                end = Some(at);
            }
        }
    }
    end
}

/// Returns the path of the innermost value: the keys and indices below the arguments, such as
/// `a/0/b`.
fn path(reader: &Reader, root: usize, added: bool) -> Option<String> {
    let frames = reader.stack.get(root..)?;
    let mut path = String::new();
    for (i, frame) in frames.iter().enumerate() {
        if i > 0 {
            path.push('/');
        }
        match &frame.node {
            Node::Object { key, .. } => path.push_str(key),
            // An element that is still open is not in the list yet.
            Node::Array(items) => {
                let counted = usize::from(added && i + 1 == frames.len());
                path.push_str(&items.len().saturating_sub(counted).to_string());
            }
        }
    }
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::last_line_end;

    #[test]
    fn a_line_ends_after_the_escape_for_its_newline() {
        assert_eq!(last_line_end(br"ab\\ncd\\n"), None, "an escaped backslash");
        assert_eq!(last_line_end(br"ab\\ncd\nx\"), Some(9));
        assert_eq!(last_line_end(b"a\nb\nc"), Some(4));
        assert_eq!(last_line_end(br"ab\"), None);
    }
}
