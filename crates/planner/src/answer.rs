//! One answer of the model while it streams in: finds calls, judges them as they are written, and says when to cut.
//!
//! Pure: fed with [`Delta`]s, it reports what happened as [`Heard`]s. Nothing is dispatched here and nothing waits.

use std::sync::Arc;

use journal::{CutReason, Doubt, EndedBy};
use models::{Delta, End, EndReason, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tool_api::{Accepted, Effect, Incoming, Parsed, Refusal, Registry, Spec};
use tool_stream::{Event, Options, Parser};

use crate::branches::Echo;
use crate::focus;
use crate::guards::Degeneration;

/// What came out of a piece of the stream.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// Reasoning, to show and to journal.
    Thinking(String),
    /// Prose.
    Text(String),
    /// A call has begun.
    Opened { call: u32, tool: String },
    /// A call is complete and valid.
    Ready(ReadyCall),
    /// A call will not be carried out. The sentence is for the model.
    Refused(Refused),
    /// Nothing more of this answer counts: close the stream.
    Cut(CutReason),
    /// It ended by itself.
    Ended(EndedBy),
}

/// A validated call.
#[derive(Debug, Clone)]
pub(crate) struct ReadyCall {
    pub(crate) call: u32,
    pub(crate) spec: Arc<Spec>,
    pub(crate) arguments: Value,
    /// What judging the call has parsed.
    pub(crate) parsed: Parsed,
    pub(crate) span: (u64, u64),
    pub(crate) repairs: Vec<String>,
}

/// A refused call, or an answer that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) tool: Option<String>,
    /// While it was still being written.
    pub(crate) early: bool,
    pub(crate) message: String,
    /// Bytes of the call that had been written.
    pub(crate) written: usize,
}

/// The file a whole-file answer is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Focus {
    pub(crate) path: String,
    pub(crate) content: String,
}

/// How to listen.
pub(crate) struct Listening<'a> {
    pub(crate) tools: &'a Registry,
    /// Stop behind the first call.
    pub(crate) first_call_only: bool,
    /// What was asked for.
    pub(crate) wanted: &'a Wanted,
    /// The message that the answer goes on from, where it does.
    pub(crate) continues: Option<&'a str>,
    /// The model's answer before this one.
    pub(crate) previous: Option<&'a str>,
}

/// What an answer is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Tool calls.
    #[default]
    Calls,
    /// This file, corrected, in a fenced block; or tool calls.
    File(Focus),
    /// The rest of a line that was begun. No calls.
    Line,
}

impl Wanted {
    fn file(&self) -> Option<&Focus> {
        if let Wanted::File(focus) = self { Some(focus) } else { None }
    }
}

/// Doubts below this probability (one half per cent) are noise.
const LEAST_LOGPROB: f32 = -5.3;
/// Lines of an answer that was asked for one line, when the server does not stop by itself. The prefix it may repeat is a file.
const MOST_LINES: usize = 2_000;

/// An answer under way.
pub(crate) struct Answer<'a> {
    how: Listening<'a>,
    parser: Parser,
    scratch: Vec<Event>,
    echo: Echo,
    /// The bytes that the model emitted, up to the cut.
    pub(crate) content: String,
    /// Its reasoning, if the server sends that apart.
    pub(crate) thinking: String,
    /// There were thoughts in the text.
    thought: bool,
    /// What of `content` is neither a call nor reasoning.
    shown: String,
    /// The counts so far.
    pub(crate) usage: Usage,
    /// Chunks that held something.
    pub(crate) pieces: u64,
    /// Where the model might have written something else.
    pub(crate) doubts: Vec<Doubt>,
    /// Where the fenced block begins that was taken for the file.
    pub(crate) block: Option<usize>,
    /// The end of the last complete call, in bytes of `content`.
    last_call_end: Option<usize>,
    text_guard: Degeneration,
    thinking_guard: Degeneration,
    open: Option<(String, usize)>,
    /// Judges the open call while it is written.
    incoming: Option<Incoming<'a>>,
    calls: u32,
    refused: bool,
    closed: bool,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(how: Listening<'a>) -> Self {
        Self {
            echo: how.continues.map(Echo::of).unwrap_or_default(),
            parser: Parser::new(Options {
                starts_thinking: how.previous.is_some_and(begins_thinking),
                ..parser_options(how.tools, how.wanted.file())
            }),
            how,
            scratch: Vec::new(),
            content: String::new(),
            thinking: String::new(),
            thought: false,
            shown: String::new(),
            usage: Usage::default(),
            pieces: 0,
            doubts: Vec::new(),
            block: None,
            last_call_end: None,
            text_guard: Degeneration::default(),
            thinking_guard: Degeneration::default(),
            open: None,
            incoming: None,
            calls: 0,
            refused: false,
            closed: false,
        }
    }

    /// Whether a call was complete: from then on a broken stream is as good as a cut.
    pub(crate) fn has_call(&self) -> bool {
        self.last_call_end.is_some()
    }

    /// The stream broke behind a complete call: what follows the call is dropped, as if we had cut there.
    pub(crate) fn cut_behind_last_call(&mut self) {
        if let Some(end) = self.last_call_end {
            self.content.truncate(end);
        }
    }

    /// Takes in a piece. After [`Heard::Cut`] or [`Heard::Ended`] nothing more is heard.
    pub(crate) fn hear(&mut self, delta: Delta, heard: &mut Vec<Heard>) {
        if self.closed {
            return;
        }
        match delta {
            Delta::Text(text) => self.text(&text, heard),
            Delta::Thinking(text) => {
                self.pieces += 1;
                self.thinking.push_str(&text);
                let cut = self.thinking_guard.feed(&text);
                heard.push(Heard::Thinking(text));
                if let Some(reason) = cut {
                    self.refuse_answer(
                        heard,
                        "your reasoning repeats itself; stop thinking and answer with one JSON object",
                    );
                    self.cut(reason, heard);
                }
            }
            // The server's own form of a call joins the text in ours, so that the history tells the model what it did.
            Delta::ToolCall { name, arguments } => {
                self.text(&json!({"tool": name, "arguments": arguments}).to_string(), heard)
            }
            Delta::Progress { .. } => {}
            Delta::Doubt { chosen, others } => {
                let at = self.content.len() as u64;
                self.doubts.extend(
                    others
                        .into_iter()
                        .filter(|(_, logprob)| *logprob > LEAST_LOGPROB)
                        .map(|(other, logprob)| Doubt { at, chosen: chosen.clone(), other, logprob }),
                );
            }
            Delta::Usage(usage) => self.usage = usage,
            Delta::End(End { reason, usage }) => {
                self.usage = usage;
                self.end(reason, heard);
            }
        }
    }

    fn text(&mut self, text: &str, heard: &mut Vec<Heard>) {
        self.pieces += 1;
        if *self.how.wanted == Wanted::Line {
            let text = self.echo.new_in(text);
            self.line(text, heard);
            return;
        }
        self.content.push_str(text);
        let mut events = std::mem::take(&mut self.scratch);
        self.parser.feed(text.as_bytes(), &mut events);
        for event in events.drain(..) {
            self.event(event, heard);
            if self.closed {
                break;
            }
        }
        events.clear();
        self.scratch = events;
        if !self.closed
            && let Some(reason) = self.text_guard.feed(text)
        {
            let what =
                if reason == CutReason::Whitespace { "is nothing but white space" } else { "repeats itself" };
            self.refuse_answer(
                heard,
                &format!("your answer {what} and was cut; answer with one JSON object"),
            );
            self.cut(reason, heard);
        }
    }

    /// More of the rest of a line.
    fn line(&mut self, text: String, heard: &mut Vec<Heard>) {
        if text.is_empty() {
            return;
        }
        self.content.push_str(&text);
        let lines = text.contains('\n');
        heard.push(Heard::Text(text));
        // A server that repeats what it goes on from in other words sends whole lines before the one that counts.
        if lines && self.content.matches('\n').count() > MOST_LINES {
            self.cut(CutReason::Line, heard);
        }
    }

    fn end(&mut self, reason: EndReason, heard: &mut Vec<Heard>) {
        let (end, ended_by) = match reason {
            EndReason::Stop => (tool_stream::End::Stop, EndedBy::Stop),
            EndReason::Length => (tool_stream::End::Length, EndedBy::Length),
        };
        let held = self.echo.rest();
        self.line(held, heard);
        let mut events = Vec::new();
        self.parser.finish(end, &mut events);
        for event in events {
            self.event(event, heard);
        }
        let calls_wanted = *self.how.wanted != Wanted::Line;
        let thought = self.thought || !self.thinking.trim().is_empty();
        let silent = self.shown.trim().is_empty() && thought && ended_by == EndedBy::Stop;
        if calls_wanted && self.calls == 0 && !self.refused && silent {
            self.only_thoughts(heard);
        }
        let nothing = self.calls == 0 && !self.refused && self.block.is_none();
        if calls_wanted && nothing && ended_by == EndedBy::Stop {
            self.whole_answer(heard);
        }
        if calls_wanted && self.calls == 0 && !self.refused && ended_by == EndedBy::Length {
            self.refuse_answer(heard, "your answer reached the token limit and was cut off, nothing was done; write less, in smaller edits");
        }
        if !self.closed {
            self.closed = true;
            heard.push(Heard::Ended(ended_by));
        }
    }

    /// An answer of which the server made reasoning and nothing else. A call in the tokens of a model
    /// family at its very end is the answer, as in thoughts that stand in the text. Anything else in
    /// thoughts is not, and the model is told so.
    fn only_thoughts(&mut self, heard: &mut Vec<Heard>) {
        let options = parser_options(self.how.tools, None);
        let call = tool_stream::calls_at_end(self.thinking.as_bytes(), &options).into_iter().next();
        match call {
            Some(call) => {
                let call = ReadyCallDraft {
                    incoming: None,
                    certain: call.unambiguous(),
                    tool: call.tool,
                    arguments: call.arguments,
                    span: (0, 0),
                    repairs: vec!["found at the end of the reasoning".into()],
                };
                self.judge(call, false, heard);
            }
            None => self.refuse_answer(
                heard,
                "your answer has only thoughts, and nothing in them is carried out; answer with one JSON \
                 object after your thoughts",
            ),
        }
    }

    fn event(&mut self, event: Event, heard: &mut Vec<Heard>) {
        match event {
            Event::Text(text) => {
                self.shown.push_str(&text);
                heard.push(Heard::Text(text));
            }
            Event::OrphanThink { .. } => self.shown.clear(),
            Event::Thinking(text) => {
                self.thought |= !text.trim().is_empty();
                heard.push(Heard::Thinking(text));
            }
            Event::CallOpened { tool, .. } => {
                heard.push(Heard::Opened { call: self.calls, tool: tool.clone() });
                let opened = self.how.tools.open(&tool);
                self.open = Some((tool, self.content.len()));
                match opened {
                    Ok(incoming) => self.incoming = Some(incoming),
                    Err(refusal) => self.refuse_early(refusal.message, heard),
                }
            }
            Event::FieldText { path, text, closed, .. } => {
                let judged = self.incoming.as_mut().map_or(Ok(()), |call| call.text(&path, &text, closed));
                if let Err(refusal) = judged {
                    self.refuse_early(refusal.message, heard);
                }
            }
            Event::FieldClosed { name, value, .. } => {
                let Some(incoming) = &mut self.incoming else { return };
                if self.how.wanted.file().is_some() && (name == "path" || name == "content") {
                    return; // a whole-file answer is judged when it is complete
                }
                if let Err(refusal) = incoming.field(&name, &value) {
                    self.refuse_early(refusal.message, heard);
                }
            }
            Event::CallComplete(call) => {
                self.open = None;
                let draft = ReadyCallDraft {
                    incoming: self.incoming.take().filter(|incoming| incoming.name() == call.tool),
                    certain: call.unambiguous(),
                    repairs: call.repairs.iter().map(|r| words(*r)).collect(),
                    tool: call.tool,
                    arguments: call.arguments,
                    span: (call.start as u64, call.end as u64),
                };
                self.judge(draft, true, heard);
            }
            Event::Malformed { why, .. } => {
                (self.open, self.incoming) = (None, None);
                if self.calls == 0 {
                    self.refuse_answer(heard, &why.to_string());
                }
            }
            #[allow(
                unreachable_patterns,
                reason = "further kinds of events are for other users of the parser"
            )]
            _ => {}
        }
    }

    /// Judges a complete call.
    fn judge(&mut self, draft: ReadyCallDraft<'a>, in_text: bool, heard: &mut Vec<Heard>) {
        let ReadyCallDraft { incoming, tool, mut arguments, span, repairs, certain } = draft;
        // A fenced block is about the file that was asked for; a call in JSON says itself what it is about.
        let fenced = in_text && matches!(self.content.as_bytes().get(span.0 as usize), Some(b'`' | b'~'));
        if let Some(focus) = self.how.wanted.file()
            && fenced
        {
            let taken = whole_file(focus, &mut arguments);
            if !matches!(taken, WholeFile::Skip) {
                self.block = Some(span.0 as usize);
            }
            match taken {
                WholeFile::Take => {}
                WholeFile::Skip => return,
                WholeFile::Unchanged => {
                    self.refuse(
                        Some(tool),
                        "the file you sent is the one that is there, nothing was changed",
                        false,
                        0,
                        heard,
                    );
                    self.cut(CutReason::Unchanged, heard);
                    return;
                }
            }
        }
        let end = span.1 as usize;
        let accepted = match incoming {
            Some(incoming) => incoming.complete(&arguments),
            None => self.how.tools.accept(&tool, &arguments),
        };
        match judge(accepted, &repairs, certain) {
            Ok(accepted) => {
                let repairs = repairs.into_iter().chain(accepted.notes).collect();
                let Accepted { spec, arguments, parsed, .. } = accepted;
                let call = ReadyCall { call: self.calls, spec, arguments, parsed, span, repairs };
                self.calls += 1;
                if in_text {
                    self.last_call_end = Some(end);
                }
                heard.push(Heard::Ready(call));
                if self.how.first_call_only && in_text {
                    self.content.truncate(end);
                    self.cut(CutReason::Call, heard);
                }
            }
            Err(message) => {
                self.refuse(Some(tool), &message, false, 0, heard);
                if in_text {
                    self.content.truncate(end);
                    self.cut(CutReason::Refused, heard);
                }
            }
        }
    }

    /// An answer without a call may stand for one: a patch and nothing behind it.
    fn whole_answer(&mut self, heard: &mut Vec<Heard>) {
        match self.how.tools.whole_answer(&self.shown) {
            None => {}
            Some(Err(why)) => self.refuse_answer(heard, &why),
            Some(Ok((incoming, arguments))) => {
                let draft = ReadyCallDraft {
                    tool: incoming.name().to_owned(),
                    incoming: Some(incoming),
                    arguments,
                    span: (0, self.content.len() as u64),
                    repairs: vec![WHOLE_ANSWER.into()],
                    certain: true,
                };
                self.judge(draft, false, heard);
            }
        }
    }

    fn refuse_early(&mut self, message: String, heard: &mut Vec<Heard>) {
        let (tool, written) = match self.open.take() {
            Some((tool, from)) => (Some(tool), self.content.len().saturating_sub(from)),
            None => (None, 0),
        };
        self.refuse(tool, &message, true, written, heard);
        self.cut(CutReason::Refused, heard);
    }

    fn refuse_answer(&mut self, heard: &mut Vec<Heard>, message: &str) {
        self.refuse(None, message, false, 0, heard);
    }

    fn refuse(
        &mut self,
        tool: Option<String>,
        message: &str,
        early: bool,
        written: usize,
        heard: &mut Vec<Heard>,
    ) {
        self.refused = true;
        // On record under the tool's own name, as a call that is accepted is.
        let own = |tool: String| self.how.tools.named(&tool).map(|spec| spec.name.clone()).unwrap_or(tool);
        let tool = tool.map(own);
        heard.push(Heard::Refused(Refused { tool, early, message: message.to_owned(), written }));
    }

    fn cut(&mut self, reason: CutReason, heard: &mut Vec<Heard>) {
        self.closed = true;
        heard.push(Heard::Cut(reason));
    }
}

/// How a call is noted that a whole answer stands for.
pub(crate) const WHOLE_ANSWER: &str = "the whole answer taken as a call";

/// What becomes of a complete call: as it is run, or a sentence for the model. `certain` says that the call
/// had one reading.
pub(crate) fn judge(
    accepted: Result<Accepted, Refusal>,
    repairs: &[String],
    certain: bool,
) -> Result<Accepted, String> {
    let accepted = accepted.map_err(|refusal| refusal.message)?;
    if certain || accepted.spec.effect == Effect::Read {
        return Ok(accepted);
    }
    Err(format!(
        "the call could only be read by guessing ({}), so it was not carried out; send it again as valid JSON",
        repairs.join(", ")
    ))
}

/// A repair in words: its name in the verdict's JSON.
pub(crate) fn words(repair: tool_stream::Repair) -> String {
    serde_json::to_value(repair)
        .ok()
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or("repaired")
        .replace(['_', '-'], " ")
}

struct ReadyCallDraft<'a> {
    /// The call as it was judged so far, where it was opened.
    incoming: Option<Incoming<'a>>,
    tool: String,
    arguments: Value,
    span: (u64, u64),
    repairs: Vec<String>,
    certain: bool,
}

/// How an answer is parsed. Whoever was asked for a file was shown no tools: there, an object that merely has another agent's tool's name
/// in it is data.
/// Whether the chat template opens a thought before the model's first word: then an answer closes a
/// thought that it has not opened, and so will the next.
fn begins_thinking(answer: &str) -> bool {
    let (mut parser, mut events) = (Parser::new(Options::default()), Vec::new());
    parser.feed(answer.as_bytes(), &mut events);
    parser.finish(tool_stream::End::Cut, &mut events);
    events.iter().any(|event| matches!(event, Event::OrphanThink { .. }))
}

pub(crate) fn parser_options(tools: &Registry, file: Option<&Focus>) -> Options {
    let own = || tools.specs().map(|s| s.name.clone()).collect();
    Options {
        known_tools: Some(if file.is_some() { own() } else { tools.names() }),
        followed: tools.followed(),
        whole_file: file.is_some(),
        scripts: file.is_some_and(|file| focus::language(&file.path) == "sh"),
        ..Options::default()
    }
}

enum WholeFile {
    Take,
    Skip,
    Unchanged,
}

/// Decides whether a fenced block is the whole file that was asked for, and under which path it goes.
fn whole_file(focus: &Focus, arguments: &mut Value) -> WholeFile {
    let content = arguments["content"].as_str().unwrap_or_default();
    let (old, new) = (focus.content.trim_end(), content.trim_end());
    // A snippet that quotes the trouble, or a shell command, is not the file: read on, the file may follow.
    if new.len() * 5 < old.len() * 2 {
        return WholeFile::Skip;
    }
    if old.lines().map(str::trim_end).eq(new.lines().map(str::trim_end)) {
        return WholeFile::Unchanged;
    }
    // Line endings and byte order mark are kept by the tool that replaces the file; the last line ends as it did.
    let end = if focus.content.ends_with('\n') { "\n" } else { "" };
    arguments["content"] = Value::from(format!("{new}{end}"));
    arguments["path"] = Value::from(focus.path.clone());
    WholeFile::Take
}
