//! Parses Markdown: fences, inline code and, in whole-file mode, fenced files.

use serde_json::Value;

use crate::event::{Call, End, Event, Malformed, TextTool};
use crate::fence::{self, Fence};
use crate::parser::{Flow, Mode, Parser};
use crate::text::{Repairs, utf8};
use crate::whole_file::{File, Outcome};
use crate::window::Window;

/// The maximum length, in bytes, of the text after the backticks or tildes of a fence.
const MAX_INFO: usize = 512;
/// The maximum length, in bytes, of a run of backticks or tildes.
const MAX_RUN: usize = 64;

impl Parser {
    /// Handles a run of backticks or tildes.
    pub(crate) fn ticks(&mut self, win: Window<'_>, byte: u8, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let rest = &rest[..rest.len().min(MAX_RUN)];
        let run = rest.iter().position(|b| *b != byte).unwrap_or(rest.len());
        if run == rest.len() && run < MAX_RUN && !win.eof {
            return Flow::More;
        }
        if let Some(fence) = &self.fence {
            if byte == fence.byte && run >= fence.len && (!self.line_has_text || self.after_call) {
                return self.close_fence(win, run, out);
            }
            if self.fence_is_file(out) {
                return Flow::Go;
            }
            return self.plain(run);
        }
        if self.skip_closing_fence && run >= 3 && (!self.line_has_text || self.after_call) {
            self.skip_closing_fence = false;
            self.skip(win, self.pos + run, out);
            return Flow::Go;
        }
        if run >= 3 && (!self.line_has_text || byte == b'`' && self.inline == 0) {
            return self.open_fence(win, byte, run, out);
        }
        if byte == b'`' {
            self.inline = match self.inline {
                0 => run,
                open if open == run => 0,
                open => open,
            };
        }
        self.plain(run)
    }

    fn open_fence(&mut self, win: Window<'_>, byte: u8, run: usize, out: &mut Vec<Event>) -> Flow {
        let info_start = self.pos + run;
        let rest = win.from(info_start);
        let stop = rest.iter().take(MAX_INFO).position(|b| matches!(b, b'\n' | b'{') || *b == byte);
        let Some(stop) = stop else {
            return if win.eof || rest.len() >= MAX_INFO { self.plain(run) } else { Flow::More };
        };
        let info = String::from_utf8_lossy(&rest[..stop]).into_owned();
        let mid_line = self.line_has_text && !self.after_call;
        if rest[stop] == byte || mid_line && info.split_whitespace().count() > 1 {
            // This is inline code: another run follows on the same line, or this run is inside a
            // sentence.
            self.inline = run;
            return self.plain(run);
        }
        self.after_call = false;
        self.show(win, self.pos, out);
        let start = *self.hold.get_or_insert(self.pos);
        let line_break = rest[stop] == b'\n';
        let file = if self.options.whole_file && line_break && !mid_line && !self.foreign {
            fence::file_info(&info, self.before(), self.options.scripts)
        } else {
            None
        };
        let label = fence::label(&info);
        let (data, output) = (fence::is_data_label(&label), fence::is_output_label(&label));
        let content = info_start + stop + usize::from(line_break);
        self.fence =
            Some(Fence { byte, len: run, start, content, data, output, fresh: true, hidden: false, file });
        self.line_has_text = false;
        self.python = label == "tool_code";
        self.pos = content;
        Flow::Go
    }

    fn close_fence(&mut self, win: Window<'_>, run: usize, out: &mut Vec<Event>) -> Flow {
        // Only whitespace may follow a closing fence.
        let rest = win.from(self.pos + run);
        let rest = &rest[..rest.len().min(MAX_INFO)];
        match rest.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\r')) {
            None if !win.eof && rest.len() < MAX_INFO => return Flow::More,
            None | Some(b'\n' | b'<') => {}
            Some(_) if self.after_call => {}
            // The open fence holds a file whose contents begin with a labeled fence.
            Some(_) if self.fence_is_file(out) => return Flow::Go,
            Some(_) => return self.plain(run),
        }
        if self.fence.take().is_some_and(|f| f.hidden) {
            self.skip(win, self.pos + run, out);
            self.after_call = true;
            return Flow::Go;
        }
        self.plain(run)
    }

    /// Turns the open fence into a file if the current byte, which is the first byte of the fence's
    /// content, shows that the fence holds a file. Returns whether it did.
    pub(crate) fn file_begins(&mut self, byte: u8, out: &mut Vec<Event>) -> bool {
        let Some(Fence { fresh: true, file: Some(info), byte: tick, .. }) = &self.fence else { return false };
        let may_be_call = info.may_be_call && matches!(byte, b'{' | b'[' | b'<');
        if byte.is_ascii_whitespace() || may_be_call || byte == *tick && !self.line_has_text {
            return false;
        }
        self.fence_is_file(out)
    }

    /// Turns the open fence into a file if it can be one and holds no call, and returns whether it
    /// did.
    pub(crate) fn fence_is_file(&mut self, out: &mut Vec<Event>) -> bool {
        let Some(Fence { fresh: true, file: Some(info), .. }) = &self.fence else { return false };
        let path = info.path.clone();
        let Some(fence) = self.fence.take() else { return false };
        let TextTool { tool, path: name, .. } = self.options.text_tool.clone();
        let call = self.sink(out).open(tool);
        if let Some(path) = path {
            self.sink(out).field(call, &name, &Value::String(path));
        }
        self.hold = None;
        self.shown = fence.start;
        self.mode = Mode::File(Box::new(File::new(fence, call)));
        true
    }

    /// Reads more of a file. `end` is set once no more bytes will arrive.
    pub(crate) fn file(&mut self, win: Window<'_>, end: Option<End>, out: &mut Vec<Event>) -> Flow {
        let Mode::File(file) = &mut self.mode else { return Flow::Go };
        let outcome = file.run(win, end == Some(End::Stop));
        let (start, content) = (file.fence.start, file.fence.content);
        let limit = start + self.options.max_call_bytes;
        if file.read_upto() > limit {
            self.fail(Malformed::TooLong, limit, out);
            return Flow::Go;
        }
        let Outcome::Closed { content_end, end } = outcome else { return Flow::More };
        let mut repairs = Repairs::default();
        let text = utf8(win.slice(content, content_end).to_vec(), &mut repairs);
        let (call, path) = (file.call, file.fence.file.take().and_then(|info| info.path));
        let text = Value::String(text);
        let names = self.options.text_tool.clone();
        self.sink(out).field(call, &names.content, &text);
        let path = path.map(|path| (names.path, Value::String(path)));
        let arguments = Value::Object(path.into_iter().chain([(names.content, text)]).collect());
        let (tool, repairs) = (names.tool, repairs.list());
        out.push(Event::CallComplete(Call { call, tool, arguments, start, end, repairs, native: false }));
        self.call_ended(end);
        Flow::Go
    }
}
