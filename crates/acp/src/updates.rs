//! Translates journal records into updates to the editor's view: streamed text and thoughts, tool
//! calls with their status, locations and diffs, and a summary at the end.

use std::path::{Path, PathBuf};

use agent_client_protocol::v1::schema::{
    ContentBlock, ContentChunk, SessionUpdate, TextContent, ToolCall, ToolCallContent, ToolCallId,
    ToolCallLocation, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields, ToolKind, UsageUpdate,
};
use journal::{Check, Event, Record};
use preview::{FileChange, sanitize};
use serde_json::Value;

use crate::diffs::diffs;
use crate::ending::summary;
use crate::fence::fenced;
use crate::{MAX_TEXT, bounded};

/// The maximum length of a title, in characters.
const TITLE: usize = 100;

/// Information about calls that is not in the journal.
pub trait Details {
    /// Returns the kind of a tool, or `None` if calls to the tool are not shown.
    fn kind(&self, tool: &str) -> Option<ToolKind>;
    /// Returns the arguments of a call on one line.
    fn title(&self, arguments: &Value) -> String;
    /// Returns the file and line that a call's arguments refer to, if any.
    fn place(&self, arguments: &Value) -> Option<(String, Option<u32>)>;
    /// Returns the changes in a record of the tree's history, with secrets masked. If `record` is
    /// `None`, returns the changes made by the next edit in this turn.
    fn changes(&mut self, turn: u32, record: Option<u64>) -> Vec<FileChange>;
}

/// A call that has not ended.
struct OpenCall {
    id: ToolCallId,
    turn: u32,
    call: u32,
    tool: String,
    kind: ToolKind,
    arguments: Value,
    /// Whether the model has written the whole call.
    is_complete: bool,
}

/// The kind of the last piece of streamed text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Nothing,
    Thought,
    Message,
}

/// Translates the records of one session, in order.
pub struct Updates<D> {
    details: D,
    root: PathBuf,
    /// The prefix for the ids of this session's calls.
    prefix: String,
    /// Whether a recorded session is being shown. If so, the user's messages are also sent;
    /// otherwise, the editor already shows them.
    is_replay: bool,
    calls: Vec<OpenCall>,
    check: Option<ToolCallId>,
    /// The turn of the current command, and the record in the tree's history that lists the
    /// command's changes.
    changed: Option<(u32, u64)>,
    turn: u32,
    piece: Piece,
    window: Option<u64>,
}

impl<D: Details> Updates<D> {
    /// Creates a translator for the records of session `id`, which works in `root`.
    pub fn new(id: &str, root: &Path, is_replay: bool, details: D) -> Self {
        Self {
            details,
            root: root.to_owned(),
            prefix: id.to_owned(),
            is_replay,
            calls: Vec::new(),
            check: None,
            changed: None,
            turn: 0,
            piece: Piece::Nothing,
            window: None,
        }
    }

    /// Continues a session from its earlier records, which are not shown.
    #[must_use]
    pub fn after(mut self, past: &[Record]) -> Self {
        let window = |record: &Record| match &record.event {
            Event::Model(model) | Event::ModelChanged { model, .. } => Some(model.window),
            _ => None,
        };
        self.window = past.iter().rev().find_map(window).flatten();
        self
    }

    /// Returns the id of the newest open call with this tool and these arguments, or else of the
    /// newest open call.
    #[must_use]
    pub fn id_of(&self, tool: &str, arguments: &Value) -> Option<ToolCallId> {
        let call = self.calls.iter().rev().find(|call| call.tool == tool && call.arguments == *arguments);
        call.or(self.calls.last()).map(|call| call.id.clone())
    }

    /// Returns the updates that show a record.
    pub fn show(&mut self, record: &Record) -> Vec<SessionUpdate> {
        let mut out = Vec::new();
        self.event(record.seq, &record.event, &mut out);
        out
    }

    fn event(&mut self, seq: u64, event: &Event, out: &mut Vec<SessionUpdate>) {
        match event {
            Event::Session { task: text, .. } | Event::UserMessage { text } if self.is_replay => {
                self.piece = Piece::Nothing;
                out.push(SessionUpdate::UserMessageChunk(chunk(text)));
            }
            Event::Sandbox { enforced: false, summary, .. } => self.warn(summary, out),
            Event::Warning { message } => self.warn(message, out),
            Event::Model(model) => self.window = model.window,
            Event::ModelChanged { why, model, .. } => {
                self.window = model.window;
                self.note(&format!("continuing with {}: {why}", model.model), out);
            }
            Event::Resumed { changed, .. } if !changed.is_empty() => {
                let files = changed.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
                self.note(&format!("others have changed these files: {files}"), out);
            }
            Event::Retry { error, .. } => self.note(&format!("{error}; retrying"), out),
            Event::Guard { message } => self.note(message, out),
            Event::Rewound { why, .. } => self.note(why, out),
            Event::TryEnded { number, of, message, .. } => {
                self.note(&format!("try {number} of {of} failed: {message}"), out);
            }
            Event::Thinking { text, .. } => self.piece(Piece::Thought, text, out),
            Event::Text { text, .. } => self.piece(Piece::Message, text, out),
            Event::CallOpened { turn, call, tool } => {
                self.open(seq, (*turn, *call), tool, None, ToolCallStatus::Pending, out);
            }
            Event::Call { turn, call, tool, arguments, .. } => {
                self.call(seq, (*turn, *call), tool, arguments, out);
            }
            Event::Refused { message, .. } => match self.calls.pop_if(|call| !call.is_complete) {
                Some(call) => out.push(ended(call.id, ToolCallStatus::Failed, vec![text_of(message)])),
                None => self.note(message, out),
            },
            Event::Output { counts, .. } => {
                self.drop_incomplete(out);
                if let (Some(used), Some(size)) = (counts.prompt_tokens, self.window) {
                    let used = used + counts.generated_tokens.unwrap_or(0);
                    out.push(SessionUpdate::UsageUpdate(UsageUpdate::new(used, size)));
                }
            }
            Event::AnswerLost { .. } => self.drop_incomplete(out),
            Event::ToolStarted { turn, call, tool, effect } => {
                self.turn = *turn;
                self.started(seq, (*turn, *call), tool, effect, out);
            }
            Event::CommandChanged { record } => self.changed = Some((self.turn, *record)),
            Event::ToolFinished { turn, call, status, text, changed, .. } => {
                self.finished((*turn, *call), status == "ok", text, !changed.is_empty(), out);
            }
            Event::CheckStarted { command } => {
                let id = self.id(seq);
                let call = ToolCall::new(id.clone(), format!("verify: {}", sanitize::short(command, TITLE)));
                let call = call.kind(ToolKind::Execute).status(ToolCallStatus::InProgress);
                out.push(SessionUpdate::ToolCall(call));
                self.check = Some(id);
                self.piece = Piece::Nothing;
            }
            Event::Checked(check) => self.checked(check, out),
            Event::Finished(report) => {
                self.stop_all(out);
                self.piece = Piece::Nothing;
                out.push(message(&format!("\n\n{}", summary(report))));
            }
            _ => {}
        }
    }

    fn id(&self, seq: u64) -> ToolCallId {
        ToolCallId::new(format!("{}/{seq}", self.prefix))
    }

    /// Sends a piece of streamed text. Trims leading whitespace unless the piece continues the
    /// previous one.
    fn piece(&mut self, kind: Piece, text: &str, out: &mut Vec<SessionUpdate>) {
        let text = if self.piece == kind { text } else { text.trim_start() };
        if text.is_empty() {
            return;
        }
        self.piece = kind;
        out.push(match kind {
            Piece::Thought => SessionUpdate::AgentThoughtChunk(chunk(text)),
            _ => message(text),
        });
    }

    /// Sends a note about what the agent itself did, as a separate thought.
    fn note(&mut self, text: &str, out: &mut Vec<SessionUpdate>) {
        self.piece = Piece::Nothing;
        out.push(SessionUpdate::AgentThoughtChunk(chunk(&format!("\n[{}]\n", text.trim()))));
    }

    fn warn(&mut self, text: &str, out: &mut Vec<SessionUpdate>) {
        self.piece = Piece::Nothing;
        out.push(message(&format!("\n\n**Warning:** {}\n\n", text.trim())));
    }

    /// Announces a call.
    fn open(
        &mut self,
        seq: u64,
        (turn, call): (u32, u32),
        tool: &str,
        arguments: Option<&Value>,
        status: ToolCallStatus,
        out: &mut Vec<SessionUpdate>,
    ) {
        let Some(kind) = self.details.kind(tool) else { return };
        self.piece = Piece::Nothing;
        let id = self.id(seq);
        let title = arguments.map_or_else(|| sanitize::short(tool, TITLE), |a| self.title(tool, a));
        let update = ToolCall::new(id.clone(), title).name(tool.to_owned()).kind(kind).status(status);
        let update = match arguments {
            Some(arguments) => update.locations(self.locations(arguments)).raw_input(raw(arguments)),
            None => update,
        };
        out.push(SessionUpdate::ToolCall(update));
        let (tool, is_complete) = (tool.to_owned(), arguments.is_some());
        let arguments = arguments.cloned().unwrap_or_default();
        self.calls.push(OpenCall { id, turn, call, tool, kind, arguments, is_complete });
    }

    fn call(
        &mut self,
        seq: u64,
        at: (u32, u32),
        tool: &str,
        arguments: &Value,
        out: &mut Vec<SessionUpdate>,
    ) {
        let (title, locations) = (self.title(tool, arguments), self.locations(arguments));
        let Some(open) = self.calls.iter_mut().find(|open| (open.turn, open.call) == at) else {
            return self.open(seq, at, tool, Some(arguments), ToolCallStatus::Pending, out);
        };
        open.is_complete = true;
        open.arguments = arguments.clone();
        let fields = ToolCallUpdateFields::new().title(title).locations(locations).raw_input(raw(arguments));
        out.push(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(open.id.clone(), fields)));
    }

    fn started(&mut self, seq: u64, at: (u32, u32), tool: &str, effect: &str, out: &mut Vec<SessionUpdate>) {
        let Some(open) = self.calls.iter_mut().find(|open| (open.turn, open.call) == at) else {
            // A whole-file write by the agent itself has no `Call` event.
            return self.open(seq, at, tool, Some(&Value::Null), ToolCallStatus::InProgress, out);
        };
        open.is_complete = true;
        let mut fields = ToolCallUpdateFields::new().status(ToolCallStatus::InProgress);
        if open.kind == ToolKind::Other {
            fields = fields.kind(match effect {
                "read" => ToolKind::Read,
                "write" => ToolKind::Edit,
                _ => ToolKind::Execute,
            });
        }
        out.push(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(open.id.clone(), fields)));
    }

    fn finished(&mut self, at: (u32, u32), ok: bool, text: &str, edited: bool, out: &mut Vec<SessionUpdate>) {
        let command = self.changed.take();
        let Some(position) = self.calls.iter().position(|open| (open.turn, open.call) == at) else { return };
        let call = self.calls.remove(position);
        let changes = match command {
            Some((turn, record)) => self.details.changes(turn, Some(record)),
            None if edited => self.details.changes(call.turn, None),
            None => Vec::new(),
        };
        let (mut content, locations) = diffs(&changes, &self.root);
        // The diff of an edit says it all, so the text is omitted.
        if content.is_empty() || command.is_some() || !ok {
            content.insert(0, output(text));
        }
        let status = if ok { ToolCallStatus::Completed } else { ToolCallStatus::Failed };
        let fields = ToolCallUpdateFields::new().status(status).content(content);
        let fields = if locations.is_empty() { fields } else { fields.locations(locations) };
        out.push(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(call.id, fields)));
    }

    fn checked(&mut self, check: &Check, out: &mut Vec<SessionUpdate>) {
        self.changed = None;
        let Some(id) = self.check.take() else { return };
        let status = if check.passed { ToolCallStatus::Completed } else { ToolCallStatus::Failed };
        out.push(ended(id, status, vec![output(&check.text)]));
    }

    /// Ends the calls that the model did not finish writing.
    fn drop_incomplete(&mut self, out: &mut Vec<SessionUpdate>) {
        while let Some(position) = self.calls.iter().position(|call| !call.is_complete) {
            let call = self.calls.remove(position);
            out.push(ended(call.id, ToolCallStatus::Failed, vec![text_of("the answer ended mid-call")]));
        }
    }

    fn stop_all(&mut self, out: &mut Vec<SessionUpdate>) {
        let calls = self.calls.drain(..).map(|call| call.id).chain(self.check.take());
        out.extend(calls.map(|id| ended(id, ToolCallStatus::Failed, vec![text_of("stopped")])));
    }

    fn title(&self, tool: &str, arguments: &Value) -> String {
        let arguments = if arguments.is_null() { String::new() } else { self.details.title(arguments) };
        sanitize::short(format!("{tool} {arguments}").trim_end(), TITLE)
    }

    fn locations(&self, arguments: &Value) -> Vec<ToolCallLocation> {
        let place = self.details.place(arguments);
        let place =
            place.and_then(|(path, line)| Some(ToolCallLocation::new(inside(&path, &self.root)?).line(line)));
        place.into_iter().collect()
    }
}

/// Returns the absolute path of a file in `root`, or `None` if `path` leads out of `root`.
fn inside(path: &str, root: &Path) -> Option<PathBuf> {
    let path = Path::new(path);
    let leaves = path.components().any(|part| part == std::path::Component::ParentDir);
    let joined = root.join(path);
    (!leaves && joined.starts_with(root)).then_some(joined)
}

fn chunk(text: &str) -> ContentChunk {
    ContentChunk::new(ContentBlock::Text(TextContent::new(bounded(&sanitize::text(text)))))
}

fn message(text: &str) -> SessionUpdate {
    SessionUpdate::AgentMessageChunk(chunk(text))
}

pub(crate) fn text_of(text: &str) -> ToolCallContent {
    ContentBlock::Text(TextContent::new(bounded(&sanitize::text(text)))).into()
}

/// Wraps a tool's output in a code fence, because it is not Markdown.
fn output(text: &str) -> ToolCallContent {
    ContentBlock::Text(TextContent::new(fenced("", &bounded(&sanitize::text(text))))).into()
}

fn ended(id: ToolCallId, status: ToolCallStatus, content: Vec<ToolCallContent>) -> SessionUpdate {
    let fields = ToolCallUpdateFields::new().status(status).content(content);
    SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(id, fields))
}

/// Returns the arguments unless they are large. Large ones are mostly edits, which are shown as
/// diffs.
fn raw(arguments: &Value) -> Option<Value> {
    (!arguments.is_null() && arguments.to_string().len() <= MAX_TEXT).then(|| arguments.clone())
}

#[cfg(test)]
mod tests {
    use journal::{Counts, EndedBy, Ending, Report};
    use preview::Image;
    use serde_json::json;

    use super::*;

    /// Knows the tools that these tests use, and reports that each edit changed one line.
    struct Known;

    impl Details for Known {
        fn kind(&self, tool: &str) -> Option<ToolKind> {
            match tool {
                "finish" => None,
                "edit" => Some(ToolKind::Edit),
                "lookup" => Some(ToolKind::Other),
                _ => Some(ToolKind::Execute),
            }
        }

        fn title(&self, arguments: &Value) -> String {
            arguments["path"].as_str().unwrap_or("?").to_owned()
        }

        fn place(&self, arguments: &Value) -> Option<(String, Option<u32>)> {
            Some((arguments["path"].as_str()?.to_owned(), None))
        }

        fn changes(&mut self, _: u32, record: Option<u64>) -> Vec<FileChange> {
            let image = |text: &str| Some(Image { bytes: text.into(), mode: 0o644, link: false });
            let path = record.map_or("a.rs".to_owned(), |record| format!("by-command-{record}.rs"));
            vec![FileChange { path, from: None, before: image("1\n2\n"), after: image("1\n3\n") }]
        }
    }

    fn updates() -> Updates<Known> {
        Updates::new("S", Path::new("/r"), false, Known)
    }

    /// Returns the updates for some events, as JSON.
    fn shown(updates: &mut Updates<Known>, events: Vec<Event>) -> Vec<Value> {
        let records = events.into_iter().enumerate();
        let records = records.map(|(seq, event)| Record { v: 1, seq: seq as u64, time_ms: 0, event });
        records.flat_map(|record| updates.show(&record)).map(|u| serde_json::to_value(u).unwrap()).collect()
    }

    fn opened(tool: &str) -> Event {
        Event::CallOpened { turn: 1, call: 0, tool: tool.into() }
    }

    fn call(tool: &str, arguments: Value) -> Event {
        Event::Call { turn: 1, call: 0, tool: tool.into(), arguments, span: (0, 0), repairs: Vec::new() }
    }

    fn started(tool: &str) -> Event {
        Event::ToolStarted { turn: 1, call: 0, tool: tool.into(), effect: "write".into() }
    }

    fn finished(tool: &str, status: &str, changed: &[&str]) -> Event {
        Event::ToolFinished {
            turn: 1,
            call: 0,
            tool: tool.into(),
            status: status.into(),
            text: "said ```".into(),
            changed: changed.iter().map(|file| (*file).to_owned()).collect(),
            facts: Value::Null,
            ms: 1,
        }
    }

    fn output() -> Event {
        let (content, thinking) = (String::new(), String::new());
        let counts = Counts { prompt_tokens: Some(10), ..Counts::default() };
        Event::Output { turn: 1, content, thinking, ended_by: EndedBy::Stop, doubts: Vec::new(), counts }
    }

    #[test]
    fn an_edit_is_announced_placed_started_and_ends_with_its_diff() {
        let events = vec![
            opened("edit"),
            call("edit", json!({"path": "a.rs"})),
            started("edit"),
            finished("edit", "ok", &["a.rs"]),
        ];
        let seen = shown(&mut updates(), events);
        assert_eq!((&seen[0]["sessionUpdate"], &seen[0]["toolCallId"]), (&json!("tool_call"), &json!("S/0")));
        assert_eq!(
            (&seen[1]["title"], &seen[1]["locations"][0]["path"]),
            (&json!("edit a.rs"), &json!("/r/a.rs"))
        );
        assert_eq!(seen[2]["status"], "in_progress");
        assert_eq!(seen[3]["status"], "completed");
        assert_eq!(seen[3]["locations"][0], json!({"path": "/r/a.rs", "line": 2}));
        let diff = json!({"type": "diff", "path": "/r/a.rs", "oldText": "1\n2\n", "newText": "1\n3\n"});
        assert_eq!(seen[3]["content"], json!([diff]));
        assert!(seen.iter().all(|update| update["toolCallId"] == "S/0"));
    }

    #[test]
    fn a_command_shows_its_output_in_a_fence_and_what_it_changed() {
        let events = vec![
            call("shell", json!({"path": "x"})),
            started("shell"),
            Event::CommandChanged { record: 7 },
            finished("shell", "failed", &[]),
        ];
        let last = shown(&mut updates(), events).pop().unwrap();
        assert_eq!(last["status"], "failed");
        assert_eq!(last["content"][0]["content"]["text"], "````\nsaid ```\n````\n");
        assert_eq!(last["content"][1]["path"], "/r/by-command-7.rs");
    }

    #[test]
    fn a_call_that_the_model_did_not_finish_ends_as_failed() {
        let refused = Event::Refused {
            turn: 1,
            tool: Some("edit".into()),
            early: true,
            message: "no such file".into(),
            saved_tokens: 0,
        };
        let seen = shown(&mut updates(), vec![opened("edit"), refused]);
        assert_eq!((&seen[1]["status"], &seen[1]["toolCallId"]), (&json!("failed"), &json!("S/0")));
        assert_eq!(seen[1]["content"][0]["content"]["text"], "no such file");
        let seen = shown(&mut updates(), vec![opened("edit"), output()]);
        assert_eq!(seen[1]["status"], "failed");
        let report = Report::new(Ending::Interrupted, "stopped");
        let events = vec![call("edit", json!({})), started("edit"), Event::Finished(report)];
        assert_eq!(shown(&mut updates(), events)[2]["status"], "failed");
    }

    #[test]
    fn prose_is_streamed_without_blank_starts_and_without_escape_sequences() {
        let piece = |text: &str| Event::Text { turn: 1, text: text.into() };
        let thought = Event::Thinking { turn: 1, text: "\n\nhm".into() };
        let seen = shown(&mut updates(), vec![thought, piece("\n "), piece("a\u{1b}[2J"), piece("\nb")]);
        let texts: Vec<_> = seen.iter().map(|update| &update["content"]["text"]).collect();
        assert_eq!(texts, ["hm", "a␛[2J", "\nb"]);
        assert_eq!(seen[0]["sessionUpdate"], "agent_thought_chunk");
    }

    #[test]
    fn a_tool_of_unknown_kind_gets_the_kind_of_its_effect_when_it_starts() {
        let start = Event::ToolStarted { turn: 1, call: 0, tool: "lookup".into(), effect: "read".into() };
        let seen = shown(&mut updates(), vec![call("lookup", json!({})), start]);
        assert_eq!((&seen[0]["kind"], &seen[1]["kind"]), (&Value::Null, &json!("read")), "{seen:?}");
    }

    #[test]
    fn the_call_that_ends_the_task_is_not_shown() {
        let events = vec![
            opened("finish"),
            call("finish", json!({})),
            started("finish"),
            finished("finish", "ok", &[]),
        ];
        assert!(shown(&mut updates(), events).is_empty());
    }

    #[test]
    fn a_path_outside_of_the_repository_is_not_a_location() {
        for path in ["../x", "/etc/passwd", "a/../../x"] {
            let seen = shown(&mut updates(), vec![call("edit", json!({"path": path}))]);
            assert_eq!(seen[0]["locations"], Value::Null, "{path}");
        }
        let seen = shown(&mut updates(), vec![call("edit", json!({"path": "/r/b"}))]);
        assert_eq!(seen[0]["locations"][0]["path"], "/r/b");
    }

    #[test]
    fn only_a_replay_shows_the_messages_of_the_user() {
        let message = || vec![Event::UserMessage { text: "more".into() }];
        assert!(shown(&mut updates(), message()).is_empty());
        let mut replay = Updates::new("S", Path::new("/r"), true, Known);
        assert_eq!(shown(&mut replay, message())[0]["sessionUpdate"], "user_message_chunk");
    }

    #[test]
    fn bug_only_the_first_prompt_of_a_session_reported_the_tokens_in_use() {
        let record = |event: Value| -> Record {
            let meta = json!({"v": 1, "seq": 0, "time_ms": 0});
            let fields = [meta, event].map(|part| part.as_object().unwrap().clone());
            serde_json::from_value(fields.into_iter().flatten().collect::<Value>()).unwrap()
        };
        let model = json!({"event": "model", "server": "ollama", "server_version": null, "model": "m",
            "window": 4096, "thinking": false, "approach": "tools", "why": ""});
        let output = json!({"event": "output", "turn": 2, "content": "", "ended_by": "stop", "counts": {
            "prompt_tokens": 100, "evaluated_tokens": null, "generated_tokens": 20, "first_token_ms": null, "total_ms": 1}});
        let mut later = updates().after(&[record(model)]);
        let seen = later.show(&record(output));
        let seen: Vec<_> = seen.iter().map(|update| serde_json::to_value(update).unwrap()).collect();
        assert_eq!((&seen[0]["used"], &seen[0]["size"]), (&json!(120), &json!(4096)), "{seen:?}");
    }
}
