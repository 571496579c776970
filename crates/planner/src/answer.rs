//! Processes one streamed answer from the model: finds calls, validates them while they are being
//! written, and decides when to cut the answer off.
//!
//! This module is pure: [`Delta`]s go in, [`AnswerEvent`]s come out. Nothing here runs a call or
//! waits.

use std::collections::BTreeSet;
use std::sync::Arc;

use journal::{CutReason, Doubt, EndedBy};
use models::{Delta, End, EndReason, Usage};
use serde_json::{Value, json};
use tool_api::{Accepted, Effect, Incoming, Parsed, Refusal, Registry, Spec};
use tool_stream::{Event, Options, Parser, TextTool};

use crate::blocks::{self, Block, Focus};
use crate::branches::{self, Echo};
use crate::focus;
use crate::guards::Degeneration;

/// Something found in the stream.
#[derive(Debug, Clone)]
pub(crate) enum AnswerEvent {
    Thinking(String),
    Text(String),
    /// The model started writing a call.
    Opened {
        call: u32,
        tool: String,
    },
    /// A call is complete and valid.
    Ready(ReadyCall),
    Refused(Refused),
    /// The rest of the answer is ignored, so the stream can be closed.
    Cut(CutReason),
    /// The server ended the answer.
    Ended(EndedBy),
}

/// A validated call.
#[derive(Debug, Clone)]
pub(crate) struct ReadyCall {
    pub(crate) call: u32,
    pub(crate) spec: Arc<Spec>,
    pub(crate) arguments: Value,
    /// What the tool parsed from the arguments during validation.
    pub(crate) parsed: Parsed,
    pub(crate) span: (u64, u64),
    pub(crate) repairs: Vec<String>,
}

/// A refused call, or an unusable answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) tool: Option<String>,
    /// Whether it was refused while it was being written.
    pub(crate) early: bool,
    /// The reason, worded for the model.
    pub(crate) message: String,
    /// The number of bytes of the call that were written before an early refusal.
    pub(crate) written: usize,
}

/// How to read an answer.
pub(crate) struct AnswerOptions<'a> {
    pub(crate) tools: &'a Registry,
    /// Whether to cut the answer off after its first call.
    pub(crate) first_call_only: bool,
    pub(crate) wanted: &'a Wanted,
    /// The message that the answer continues, if any.
    pub(crate) continues: Option<&'a str>,
    /// The previous answer.
    pub(crate) previous: Option<&'a str>,
}

/// What the answer should contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Tool calls.
    #[default]
    Calls,
    /// Corrected files in fenced blocks, or tool calls.
    Files(Vec<Focus>),
    /// Text without calls. It is cut off as soon as it reaches one of these lines of the file
    /// ([`crate::branches`]).
    Lines(Vec<String>),
}

impl Wanted {
    fn files(&self) -> &[Focus] {
        if let Wanted::Files(files) = self { files } else { &[] }
    }
}

/// Minimum log probability of an alternative. It corresponds to half a percent; less likely
/// alternatives are noise.
const MIN_LOGPROB: f32 = -5.3;
/// The reason for refusing an answer that returns the files unchanged.
const UNCHANGED: &str = "the file you sent is unchanged";

/// An answer that is being streamed.
pub(crate) struct Answer<'a> {
    options: AnswerOptions<'a>,
    parser: Parser,
    scratch: Vec<Event>,
    echo: Echo,
    /// The text of the answer up to the cut.
    pub(crate) content: String,
    /// The reasoning, if the server sends it separately.
    pub(crate) thinking: String,
    /// Whether `content` contains reasoning.
    thinks_in_text: bool,
    /// The part of `content` that is neither a call nor reasoning.
    prose: String,
    pub(crate) usage: Usage,
    /// The number of non-empty chunks received.
    pub(crate) pieces: u64,
    /// Positions where the model almost chose another token.
    pub(crate) doubts: Vec<Doubt>,
    /// The indices of the requested files that were returned.
    returned: BTreeSet<usize>,
    /// The end of the last complete call in `content`.
    last_call_end: Option<usize>,
    text_guard: Degeneration,
    thinking_guard: Degeneration,
    /// The call that is being written: its tool, and the length of `content` when the call was
    /// opened.
    open: Option<(String, usize)>,
    /// Validates the open call while it is being written.
    incoming: Option<Incoming<'a>>,
    calls: u32,
    refused: bool,
    closed: bool,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(options: AnswerOptions<'a>) -> Self {
        Self {
            echo: options.continues.map(Echo::of).unwrap_or_default(),
            parser: Parser::new(Options {
                starts_thinking: options.previous.is_some_and(starts_thinking),
                ..parser_options(options.tools, options.wanted.files())
            }),
            options,
            scratch: Vec::new(),
            content: String::new(),
            thinking: String::new(),
            thinks_in_text: false,
            prose: String::new(),
            usage: Usage::default(),
            pieces: 0,
            doubts: Vec::new(),
            returned: BTreeSet::new(),
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

    /// Whether the answer has a complete call. If so, the answer can be used up to the end of that
    /// call, even if the stream is cut off.
    pub(crate) fn has_call(&self) -> bool {
        self.last_call_end.is_some()
    }

    /// Drops everything after the last complete call. Used when the stream was cut off.
    pub(crate) fn truncate_after_last_call(&mut self) {
        if let Some(end) = self.last_call_end {
            self.content.truncate(end);
        }
    }

    /// Processes the next piece of the answer. Pieces after [`AnswerEvent::Cut`] or
    /// [`AnswerEvent::Ended`] are ignored.
    pub(crate) fn feed(&mut self, delta: Delta, out: &mut Vec<AnswerEvent>) {
        if self.closed {
            return;
        }
        match delta {
            Delta::Text(text) => self.text(&text, out),
            Delta::Thinking(text) => {
                self.pieces += 1;
                self.thinking.push_str(&text);
                let cut = self.thinking_guard.feed(&text);
                out.push(AnswerEvent::Thinking(text));
                if let Some(reason) = cut {
                    self.refuse_answer(
                        out,
                        "your reasoning repeats itself; stop thinking and answer with one JSON object",
                    );
                    self.cut(reason, out);
                }
            }
            // Convert the call to our JSON format, so that the model sees it in the conversation.
            Delta::ToolCall { name, arguments } => {
                self.text(&json!({"tool": name, "arguments": arguments}).to_string(), out)
            }
            Delta::Progress { .. } => {}
            Delta::Doubt { chosen, others } => {
                let at = self.content.len() as u64;
                self.doubts.extend(
                    others
                        .into_iter()
                        .filter(|(_, logprob)| *logprob > MIN_LOGPROB)
                        .map(|(other, logprob)| Doubt { at, chosen: chosen.clone(), other, logprob }),
                );
            }
            Delta::Usage(usage) => self.usage = usage,
            Delta::End(End { reason, usage }) => {
                self.usage = usage;
                self.end(reason, out);
            }
        }
    }

    fn text(&mut self, text: &str, out: &mut Vec<AnswerEvent>) {
        self.pieces += 1;
        if matches!(self.options.wanted, Wanted::Lines(_)) {
            let text = self.echo.new_in(text);
            self.line(text, out);
            return;
        }
        self.content.push_str(text);
        let mut events = std::mem::take(&mut self.scratch);
        self.parser.feed(text.as_bytes(), &mut events);
        for event in events.drain(..) {
            self.event(event, out);
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
                if reason == CutReason::Whitespace { "is nothing but whitespace" } else { "repeats itself" };
            self.refuse_answer(out, &format!("your answer {what} and was cut; answer with one JSON object"));
            self.cut(reason, out);
        }
    }

    /// Adds text to an answer that continues a branch ([`Wanted::Lines`]).
    fn line(&mut self, text: String, out: &mut Vec<AnswerEvent>) {
        let Wanted::Lines(following) = self.options.wanted else { return };
        if text.is_empty() {
            return;
        }
        self.content.push_str(&text);
        let new_line = text.contains('\n');
        out.push(AnswerEvent::Text(text));
        if new_line && branches::is_complete(following, &self.content) {
            self.cut(CutReason::Line, out);
        }
    }

    fn end(&mut self, reason: EndReason, out: &mut Vec<AnswerEvent>) {
        let (end, ended_by) = match reason {
            EndReason::Stop => (tool_stream::End::Stop, EndedBy::Stop),
            EndReason::Length => (tool_stream::End::Length, EndedBy::Length),
        };
        let held = self.echo.rest();
        self.line(held, out);
        let mut events = Vec::new();
        self.parser.finish(end, &mut events);
        for event in events {
            self.event(event, out);
        }
        let calls_wanted = !matches!(self.options.wanted, Wanted::Lines(_));
        let thought = self.thinks_in_text || !self.thinking.trim().is_empty();
        let silent = self.prose.trim().is_empty() && thought && ended_by == EndedBy::Stop;
        if calls_wanted && self.calls == 0 && !self.refused && silent {
            self.thinking_only(out);
        }
        let no_call = self.calls == 0 && !self.refused;
        if calls_wanted && no_call && !self.returned.is_empty() {
            self.refuse_answer(out, UNCHANGED);
        } else if calls_wanted && no_call && ended_by == EndedBy::Stop {
            self.whole_answer(out);
        }
        if calls_wanted && self.calls == 0 && !self.refused && ended_by == EndedBy::Length {
            self.refuse_answer(
                out,
                "your answer reached the token limit, so nothing was done; write less, in smaller edits",
            );
        }
        if !self.closed {
            self.closed = true;
            out.push(AnswerEvent::Ended(ended_by));
        }
    }

    /// Handles an answer that contains only reasoning. A call is accepted only if it is at the very
    /// end of the reasoning and is written with the special tokens or elements of a model family.
    /// The parser applies the same rule to reasoning inside the text. Anything else is refused.
    fn thinking_only(&mut self, out: &mut Vec<AnswerEvent>) {
        let options = parser_options(self.options.tools, &[]);
        let call = tool_stream::calls_at_end(self.thinking.as_bytes(), &options).into_iter().next();
        match call {
            Some(call) => {
                let call = CallDraft {
                    incoming: None,
                    certain: call.unambiguous(),
                    tool: call.tool,
                    arguments: call.arguments,
                    span: (0, 0),
                    repairs: vec!["found at the end of the reasoning".into()],
                };
                self.judge(call, false, out);
            }
            None => self.refuse_answer(
                out,
                "your answer contains only reasoning, which is not run; answer with one JSON object \
                 after your reasoning",
            ),
        }
    }

    fn event(&mut self, event: Event, out: &mut Vec<AnswerEvent>) {
        match event {
            Event::Text(text) => {
                self.prose.push_str(&text);
                out.push(AnswerEvent::Text(text));
            }
            Event::OrphanThink { .. } => self.prose.clear(),
            Event::Thinking(text) => {
                self.thinks_in_text |= !text.trim().is_empty();
                out.push(AnswerEvent::Thinking(text));
            }
            Event::CallOpened { tool, .. } => {
                out.push(AnswerEvent::Opened { call: self.calls, tool: tool.clone() });
                let opened = self.options.tools.open(&tool);
                self.open = Some((tool, self.content.len()));
                match opened {
                    Ok(incoming) => self.incoming = Some(incoming),
                    Err(refusal) => self.refuse_early(refusal.message, out),
                }
            }
            Event::FieldText { path, text, closed, .. } => {
                let judged = self.incoming.as_mut().map_or(Ok(()), |call| call.text(&path, &text, closed));
                if let Err(refusal) = judged {
                    self.refuse_early(refusal.message, out);
                }
            }
            Event::FieldClosed { name, value, .. } => {
                let Some(incoming) = &mut self.incoming else { return };
                if !self.options.wanted.files().is_empty() && (name == "path" || name == "content") {
                    return; // a whole-file answer is validated when it is complete
                }
                if let Err(refusal) = incoming.field(&name, &value) {
                    self.refuse_early(refusal.message, out);
                }
            }
            Event::CallComplete(call) => {
                self.open = None;
                let draft = CallDraft {
                    incoming: self.incoming.take().filter(|incoming| incoming.name() == call.tool),
                    certain: call.unambiguous(),
                    repairs: call.repairs.iter().map(|r| repair_name(*r)).collect(),
                    tool: call.tool,
                    arguments: call.arguments,
                    span: (call.start as u64, call.end as u64),
                };
                self.judge(draft, true, out);
            }
            Event::Malformed { why, .. } => {
                (self.open, self.incoming) = (None, None);
                if self.calls == 0 {
                    self.refuse_answer(out, &why.to_string());
                }
            }
            #[allow(unreachable_patterns, reason = "other kinds of events are for other users of the parser")]
            _ => {}
        }
    }

    /// Accepts or refuses a complete call.
    fn judge(&mut self, draft: CallDraft<'a>, in_text: bool, out: &mut Vec<AnswerEvent>) {
        let CallDraft { incoming, tool, mut arguments, span, repairs, certain } = draft;
        // Only a fenced block can be a requested file. A JSON call specifies its own path.
        let start = span.0 as usize;
        let fenced = in_text && matches!(self.content.as_bytes().get(start), Some(b'`' | b'~'));
        let files = self.options.wanted.files();
        if fenced && !files.is_empty() {
            let (path, content) = (arguments["path"].as_str(), arguments["content"].as_str());
            let above = self.content.get(..start).unwrap_or_default();
            match blocks::classify(files, path, above, content.unwrap_or_default()) {
                Block::Other => return,
                Block::File { index, content } => {
                    self.returned.insert(index);
                    arguments["path"] = Value::from(files[index].path.clone());
                    arguments["content"] = Value::from(content);
                }
                Block::Unchanged { index } => {
                    self.returned.insert(index);
                    if self.awaits_files() {
                        return;
                    }
                    if self.calls == 0 {
                        self.refuse(Some(tool), UNCHANGED, false, 0, out);
                    }
                    self.cut(CutReason::Unchanged, out);
                    return;
                }
            }
        }
        let end = span.1 as usize;
        let accepted = match incoming {
            Some(incoming) => incoming.complete(&arguments),
            None => self.options.tools.accept(&tool, &arguments),
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
                out.push(AnswerEvent::Ready(call));
                if self.options.first_call_only && in_text && !(fenced && self.awaits_files()) {
                    self.content.truncate(end);
                    self.cut(CutReason::Call, out);
                }
            }
            Err(message) => {
                self.refuse(Some(tool), &message, false, 0, out);
                if in_text {
                    self.content.truncate(end);
                    self.cut(CutReason::Refused, out);
                }
            }
        }
    }

    /// Whether any requested file has not been returned yet.
    fn awaits_files(&self) -> bool {
        self.returned.len() < self.options.wanted.files().len()
    }

    /// Handles an answer that contains no call but that a tool can interpret as one, such as a
    /// patch with nothing after it.
    fn whole_answer(&mut self, out: &mut Vec<AnswerEvent>) {
        match self.options.tools.whole_answer(&self.prose) {
            None => {}
            Some(Err(why)) => self.refuse_answer(out, &why),
            Some(Ok((incoming, arguments))) => {
                let draft = CallDraft {
                    tool: incoming.name().to_owned(),
                    incoming: Some(incoming),
                    arguments,
                    span: (0, self.content.len() as u64),
                    repairs: vec![WHOLE_ANSWER.into()],
                    certain: true,
                };
                self.judge(draft, false, out);
            }
        }
    }

    fn refuse_early(&mut self, message: String, out: &mut Vec<AnswerEvent>) {
        let (tool, written) = match self.open.take() {
            Some((tool, from)) => (Some(tool), self.content.len().saturating_sub(from)),
            None => (None, 0),
        };
        self.refuse(tool, &message, true, written, out);
        self.cut(CutReason::Refused, out);
    }

    fn refuse_answer(&mut self, out: &mut Vec<AnswerEvent>, message: &str) {
        self.refuse(None, message, false, 0, out);
    }

    fn refuse(
        &mut self,
        tool: Option<String>,
        message: &str,
        early: bool,
        written: usize,
        out: &mut Vec<AnswerEvent>,
    ) {
        self.refused = true;
        // Like an accepted call, a refusal is recorded under the tool's own name, not under an
        // alias.
        let own_name = |tool: String| self.options.tools.named(&tool).map(|s| s.name.clone()).unwrap_or(tool);
        let tool = tool.map(own_name);
        out.push(AnswerEvent::Refused(Refused { tool, early, message: message.to_owned(), written }));
    }

    fn cut(&mut self, reason: CutReason, out: &mut Vec<AnswerEvent>) {
        self.closed = true;
        out.push(AnswerEvent::Cut(reason));
    }
}

/// The name of the repair that is recorded if a whole answer is interpreted as a call.
pub(crate) const WHOLE_ANSWER: &str = "the whole answer taken as a call";

/// Decides whether a complete call is run. `certain` means that there was only one way to parse it.
///
/// # Errors
/// Fails with the reason for the refusal, worded for the model.
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
        "parsing the call took a guess ({}), so it was not run; send it again as valid JSON",
        repairs.join(", ")
    ))
}

/// Returns the name of a repair, with spaces between its words.
pub(crate) fn repair_name(repair: tool_stream::Repair) -> String {
    serde_json::to_value(repair)
        .ok()
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or("repaired")
        .replace(['_', '-'], " ")
}

struct CallDraft<'a> {
    /// The validation so far, if the parser reported the start of the call.
    incoming: Option<Incoming<'a>>,
    tool: String,
    arguments: Value,
    span: (u64, u64),
    repairs: Vec<String>,
    certain: bool,
}

/// Whether the chat template opens a thinking block before the model's first word. An earlier
/// answer reveals this if it closes a block that it did not open.
fn starts_thinking(answer: &str) -> bool {
    let (mut parser, mut events) = (Parser::new(Options::default()), Vec::new());
    parser.feed(answer.as_bytes(), &mut events);
    parser.finish(tool_stream::End::Cut, &mut events);
    events.iter().any(|event| matches!(event, Event::OrphanThink { .. }))
}

/// Returns the parser's options for an answer. A request for whole files does not list the tools.
/// A JSON object in its answer is therefore data, even if it looks like a call for another agent.
pub(crate) fn parser_options(tools: &Registry, files: &[Focus]) -> Options {
    let own = || tools.specs().map(|s| s.name.clone()).collect();
    let text_tool = tools.specs().find_map(|spec| {
        let file = spec.whole_file?;
        let [path, content, patch] =
            [file.path, file.content, spec.patch.unwrap_or_default()].map(str::to_owned);
        Some(TextTool { tool: spec.name.clone(), path, content, patch })
    });
    Options {
        known_tools: Some(if files.is_empty() { tools.names() } else { own() }),
        followed: tools.followed(),
        whole_file: !files.is_empty(),
        scripts: files.iter().any(|file| focus::language(&file.path) == "sh"),
        text_tool: text_tool.unwrap_or_default(),
        ..Options::default()
    }
}
