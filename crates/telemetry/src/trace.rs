//! Turns the events of one run into spans.

use std::collections::HashMap;

use journal::{Counts, CutReason, EndedBy, Event, ModelInfo, Record, Report};
use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use crate::content::{self, Conversation};
use crate::metrics::{Instruments, Usage};
use crate::names;
use crate::span::{
    self, Open, ending_name, error_class, integer, seconds, strings, time, usage_attributes, word,
};

/// The name of the agent.
const NAME: &str = "agent";
/// The maximum length of a tool's name, in bytes.
const MAX_NAME: usize = 128;

/// Observes a session and turns its events into spans and metrics.
pub(crate) struct RunTrace {
    tracer: SdkTracer,
    instruments: Instruments,
    /// The parent span of the run, if any.
    parent: Context,
    session: String,
    task: Option<String>,
    /// The messages so far, if content is exported.
    conversation: Option<Conversation>,
    model: Vec<KeyValue>,
    model_name: String,
    run: Option<Run>,
    request: Option<Request>,
    /// The arguments of calls that have not started yet, keyed by turn and call, if content is
    /// exported.
    arguments: HashMap<(u32, u32), String>,
    tools: HashMap<(u32, u32), Open>,
    verification: Option<Open>,
    newest_ms: u64,
}

// The SDK keeps both values of an attribute that is set twice, so values that can change are set
// when the span ends.

struct Run {
    open: Open,
    /// The parent of all other spans.
    context: Context,
    usage: Usage,
    /// The system message, if content is exported.
    instructions: Option<String>,
}

struct Request {
    open: Open,
    usage: Usage,
    attempts: u32,
    first_token_ms: Option<u64>,
    cut: Option<CutReason>,
}

impl RunTrace {
    pub(crate) fn new(
        tracer: SdkTracer,
        instruments: Instruments,
        parent: Context,
        (session, task): (String, Option<String>),
        captures_content: bool,
    ) -> Self {
        Self {
            tracer,
            instruments,
            parent,
            session,
            task,
            conversation: captures_content.then(Conversation::default),
            model: Vec::new(),
            model_name: String::new(),
            run: None,
            request: None,
            arguments: HashMap::new(),
            tools: HashMap::new(),
            verification: None,
            newest_ms: 0,
        }
    }

    /// Restores state from a record of an earlier run in the same session. Does not export
    /// anything, because the earlier run has its own trace.
    pub(crate) fn recall(&mut self, record: &Record) {
        match &record.event {
            Event::Model(model) | Event::ModelChanged { model, .. } => self.set_model(model),
            event => self.add_to_conversation(event),
        }
    }

    /// Starts, updates or ends spans to reflect a record.
    pub(crate) fn record(&mut self, record: &Record) {
        let at = record.time_ms;
        self.newest_ms = at;
        if self.run.is_none() {
            self.start_run(at);
        }
        match &record.event {
            Event::Model(model) => self.set_model(model),
            Event::ModelChanged { turn, model, .. } => {
                // The previous model did not answer.
                self.end_request(at, Some(("unavailable", "continuing with another model")));
                self.set_model(model);
                self.note("agent.model_changed", at, |trace| {
                    let turn = KeyValue::new(names::TURN, i64::from(*turn));
                    trace.model.iter().cloned().chain([turn]).collect()
                });
            }
            Event::TryEnded { number, ending, .. } => self.note("agent.try_ended", at, |_| {
                vec![
                    KeyValue::new(names::TRY, i64::from(*number)),
                    KeyValue::new(names::ENDING, ending_name(ending)),
                ]
            }),
            Event::Request { attempt: 1, .. } => self.start_request(at, &record.event),
            Event::Request { attempt, .. } => {
                if let Some(request) = &mut self.request {
                    request.attempts = *attempt;
                }
            }
            Event::Retry { error, wait_ms, busy, .. } => self.note_in_request("agent.retry", at, || {
                vec![
                    KeyValue::new(names::ERROR, if *busy { "busy" } else { "_OTHER" }),
                    KeyValue::new(
                        names::ERROR_MESSAGE,
                        content::shortened_to(error, span::MAX_MESSAGE).into_owned(),
                    ),
                    KeyValue::new(names::WAIT, seconds(*wait_ms)),
                ]
            }),
            Event::Refused { tool, early, .. } => self.note_in_request("agent.call_refused", at, || {
                // The model may have made up the name.
                let tool = tool.iter().map(|tool| content::shortened_to(tool, MAX_NAME).into_owned());
                let tool = tool.map(|tool| KeyValue::new(names::TOOL, tool));
                tool.chain([KeyValue::new(names::EARLY, *early)]).collect()
            }),
            Event::Cut { why, .. } => {
                if let Some(request) = &mut self.request {
                    request.cut = Some(*why);
                }
            }
            Event::AnswerLost { counts, estimated: false, .. } => self.count(counts),
            Event::Output { content, thinking, ended_by, counts, .. } => {
                self.count(counts);
                self.answer(*ended_by, thinking, content);
                self.end_request(at, None);
            }
            Event::Overflow { .. } => {
                self.end_request(at, Some(("context_overflow", "the request exceeded the context window")));
            }
            Event::Call { turn, call, arguments, .. } if self.conversation.is_some() => {
                let arguments = content::shortened(&arguments.to_string()).into_owned();
                self.arguments.insert((*turn, *call), arguments);
            }
            Event::ToolStarted { turn, call, tool, effect } => {
                self.start_tool(at, (*turn, *call), tool, effect);
            }
            Event::ToolFinished { turn, call, status, text, .. } => {
                self.end_tool(at, (*turn, *call), status, text);
            }
            Event::CheckStarted { command } => self.start_verification(at, command),
            Event::Checked(check) => {
                if let Some(mut open) = self.verification.take() {
                    open.span.set_attribute(KeyValue::new(names::VERIFICATION_PASSED, check.passed));
                    if self.conversation.is_some() {
                        let text = content::shortened(&check.text).into_owned();
                        open.span.set_attribute(KeyValue::new(names::VERIFICATION_TEXT, text));
                    }
                    open.end(at, None);
                }
            }
            Event::Finished(report) => self.finish(at, report),
            _ => {}
        }
        self.add_to_conversation(&record.event);
    }

    fn add_to_conversation(&mut self, event: &Event) {
        let Some(conversation) = &mut self.conversation else { return };
        conversation.add(event);
        if let (Event::Message { role: journal::Role::System, content, .. }, Some(run)) =
            (event, &mut self.run)
        {
            run.instructions = Some(content::instructions(content));
        }
    }

    fn set_model(&mut self, model: &ModelInfo) {
        self.model = vec![
            KeyValue::new(names::PROVIDER, model.server.clone()),
            KeyValue::new(names::REQUEST_MODEL, model.model.clone()),
        ];
        self.model_name.clone_from(&model.model);
    }

    fn start_run(&mut self, at_ms: u64) {
        let mut attributes = vec![
            KeyValue::new(names::OPERATION, "invoke_agent"),
            KeyValue::new(names::AGENT, NAME),
            KeyValue::new(names::CONVERSATION, self.session.clone()),
        ];
        attributes.extend(self.task.iter().map(|task| KeyValue::new(names::TASK, task.clone())));
        let of_metric = vec![KeyValue::new(names::AGENT, NAME)];
        let name = (format!("invoke_agent {NAME}"), SpanKind::Internal);
        let open = Open::start(&self.tracer, &self.parent, name, at_ms, attributes, of_metric);
        let context = Context::new().with_remote_span_context(open.span.span_context().clone());
        self.run = Some(Run { open, context, usage: Usage::default(), instructions: None });
    }

    fn start_request(&mut self, at_ms: u64, event: &Event) {
        self.end_request(at_ms, Some(("_OTHER", "no answer")));
        self.arguments.clear();
        let Event::Request { turn, estimated_tokens, temperature, seed, max_tokens, .. } = event else {
            return;
        };
        let mut attributes = vec![
            KeyValue::new(names::OPERATION, "chat"),
            KeyValue::new(names::CONVERSATION, self.session.clone()),
            KeyValue::new(names::REQUEST_STREAM, true),
            KeyValue::new(names::REQUEST_MAX_TOKENS, i64::from(*max_tokens)),
            KeyValue::new(names::TURN, i64::from(*turn)),
            KeyValue::new(names::ESTIMATED_TOKENS, integer(*estimated_tokens)),
        ];
        attributes.extend(self.model.iter().cloned());
        // Converting via a string keeps the journal's short decimal form; `f64::from` would not.
        let temperature = temperature.and_then(|value| value.to_string().parse::<f64>().ok());
        attributes.extend(temperature.map(|value| KeyValue::new(names::REQUEST_TEMPERATURE, value)));
        attributes.extend(seed.map(|seed| KeyValue::new(names::REQUEST_SEED, integer(seed))));
        if let Some(conversation) = &self.conversation {
            attributes.push(KeyValue::new(names::INPUT, conversation.input()));
        }
        let mut of_metric = vec![KeyValue::new(names::OPERATION, "chat")];
        of_metric.extend(self.model.iter().cloned());
        let name = format!("chat {}", self.model_name).trim_end().to_owned();
        let open = self.open_in_run(name, SpanKind::Client, at_ms, attributes, of_metric);
        self.request =
            Some(Request { open, usage: Usage::default(), attempts: 1, first_token_ms: None, cut: None });
    }

    /// Adds the token counts of an answer, whether complete or lost, to its request.
    fn count(&mut self, counts: &Counts) {
        let Some(request) = &mut self.request else { return };
        let usage = Usage {
            input: counts.prompt_tokens,
            cached: counts
                .prompt_tokens
                .zip(counts.evaluated_tokens)
                .map(|(all, evaluated)| all.saturating_sub(evaluated)),
            output: counts.generated_tokens,
        };
        request.usage = request.usage.plus(usage);
        self.instruments.count_tokens(usage, &request.open.attributes);
        if let Some(ms) = counts.first_token_ms {
            self.instruments.count_first_chunk(seconds(ms), &request.open.attributes);
            request.first_token_ms = Some(ms);
        }
    }

    fn answer(&mut self, ended_by: EndedBy, thinking: &str, text: &str) {
        let Some(request) = &mut self.request else { return };
        let span = &mut request.open.span;
        // The conventions prescribe `error` for every answer that did not end normally.
        let reason = match (ended_by, request.cut) {
            (EndedBy::Stop, _) => "stop",
            (EndedBy::Length, _) => "length",
            (EndedBy::Cut, Some(CutReason::Call)) => "tool_call",
            (EndedBy::Cut, _) => "error",
        };
        span.set_attribute(KeyValue::new(names::FINISH_REASONS, strings(reason)));
        if let Some(why) = request.cut {
            span.set_attribute(KeyValue::new(names::CUT, word(&why)));
        }
        if self.conversation.is_some() {
            span.set_attribute(KeyValue::new(names::OUTPUT, content::answer(thinking, text)));
        }
    }

    fn end_request(&mut self, at_ms: u64, error: Option<(&'static str, &str)>) {
        let Some(mut request) = self.request.take() else { return };
        let span = &mut request.open.span;
        if error.is_some() {
            span.set_attribute(KeyValue::new(names::FINISH_REASONS, strings("error")));
        }
        span.set_attribute(KeyValue::new(names::ATTEMPTS, i64::from(request.attempts)));
        if let Some(ms) = request.first_token_ms {
            span.set_attribute(KeyValue::new(names::FIRST_CHUNK, seconds(ms)));
        }
        span.set_attributes(usage_attributes(request.usage));
        if let Some(run) = &mut self.run {
            run.usage = run.usage.plus(request.usage);
        }
        let duration = request.open.end(at_ms, error);
        self.instruments.count_request(duration, &request.open.attributes);
    }

    fn start_tool(&mut self, at_ms: u64, call: (u32, u32), tool: &str, effect: &str) {
        let mut attributes = vec![
            KeyValue::new(names::OPERATION, "execute_tool"),
            KeyValue::new(names::CONVERSATION, self.session.clone()),
            KeyValue::new(names::TOOL, tool.to_owned()),
            KeyValue::new(names::TOOL_TYPE, "function"),
            KeyValue::new(names::TOOL_CALL, format!("{}.{}", call.0, call.1)),
            KeyValue::new(names::TOOL_EFFECT, effect.to_owned()),
            KeyValue::new(names::TURN, i64::from(call.0)),
        ];
        let arguments = self.arguments.remove(&call);
        attributes.extend(arguments.map(|arguments| KeyValue::new(names::TOOL_ARGUMENTS, arguments)));
        let of_metric =
            vec![KeyValue::new(names::TOOL, tool.to_owned()), KeyValue::new(names::TOOL_TYPE, "function")];
        let name = format!("execute_tool {tool}");
        let open = self.open_in_run(name, SpanKind::Internal, at_ms, attributes, of_metric);
        self.tools.insert(call, open);
    }

    fn end_tool(&mut self, at_ms: u64, call: (u32, u32), status: &str, text: &str) {
        let Some(mut open) = self.tools.remove(&call) else { return };
        if self.conversation.is_some() {
            let result = content::shortened(text).into_owned();
            open.span.set_attribute(KeyValue::new(names::TOOL_RESULT, result));
        }
        let error = match status {
            "ok" => None,
            "refused" => Some(("refused", "the call was refused")),
            _ => Some(("failed", "the tool reported a failure")),
        };
        let duration = open.end(at_ms, error);
        self.instruments.count_tool(duration, &open.attributes);
    }

    fn start_verification(&mut self, at_ms: u64, command: &str) {
        let mut attributes = vec![KeyValue::new(names::CONVERSATION, self.session.clone())];
        if self.conversation.is_some() {
            let command = content::shortened(command).into_owned();
            attributes.push(KeyValue::new(names::VERIFICATION_COMMAND, command));
        }
        let open = self.open_in_run("verify".to_owned(), SpanKind::Internal, at_ms, attributes, Vec::new());
        self.verification = Some(open);
    }

    fn finish(&mut self, at_ms: u64, report: &Report) {
        let Some(run) = &mut self.run else { return };
        run.open.span.set_attributes([
            KeyValue::new(names::ENDING, ending_name(&report.ending)),
            KeyValue::new(names::FILES, report.diff.files.len() as i64),
            KeyValue::new(names::ADDED, integer(report.diff.added)),
            KeyValue::new(names::REMOVED, integer(report.diff.removed)),
            KeyValue::new(names::SESSION_TURNS, i64::from(report.totals.turns)),
        ]);
        if let Some(cost) = report.totals.cost {
            run.open.span.set_attribute(KeyValue::new(names::SESSION_COST, cost));
        }
        // The message may quote the model, unless the server failed.
        let may_quote = report.ending != journal::Ending::Unavailable && self.conversation.is_none();
        let message = if may_quote { report.ending.label() } else { report.message.as_str() };
        self.end_all(at_ms, error_class(&report.ending).map(|class| (class, message)));
    }

    /// Ends the run's span and all spans in it that are still open.
    fn end_all(&mut self, at_ms: u64, error: Option<(&'static str, &str)>) {
        let error_of_parts = error.or(Some(("_OTHER", "the run ended")));
        self.end_request(at_ms, error_of_parts);
        let instruments = self.instruments.clone();
        for mut open in std::mem::take(&mut self.tools).into_values() {
            let duration = open.end(at_ms, error_of_parts);
            instruments.count_tool(duration, &open.attributes);
        }
        if let Some(mut open) = self.verification.take() {
            open.end(at_ms, error_of_parts);
        }
        if let Some(mut run) = self.run.take() {
            if !self.model_name.is_empty() {
                run.open.span.set_attribute(KeyValue::new(names::REQUEST_MODEL, self.model_name.clone()));
            }
            if let Some(instructions) = run.instructions.take() {
                run.open.span.set_attribute(KeyValue::new(names::SYSTEM, instructions));
            }
            run.open.span.set_attributes(usage_attributes(Usage { cached: None, ..run.usage }));
            let duration = run.open.end(at_ms, error);
            instruments.count_run(duration, &run.open.attributes);
        }
    }

    fn open_in_run(
        &self,
        name: String,
        kind: SpanKind,
        at_ms: u64,
        attributes: Vec<KeyValue>,
        of_metric: Vec<KeyValue>,
    ) -> Open {
        let parent = self.run.as_ref().map_or(&self.parent, |run| &run.context);
        Open::start(&self.tracer, parent, (name, kind), at_ms, attributes, of_metric)
    }

    /// Adds an event to the run's span.
    fn note(&mut self, name: &'static str, at_ms: u64, attributes: impl FnOnce(&Self) -> Vec<KeyValue>) {
        let attributes = attributes(self);
        if let Some(run) = &mut self.run {
            run.open.span.add_event_with_timestamp(name, time(at_ms), attributes);
        }
    }

    /// Adds an event to the current request's span.
    fn note_in_request(
        &mut self,
        name: &'static str,
        at_ms: u64,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) {
        if let Some(request) = &mut self.request {
            request.open.span.add_event_with_timestamp(name, time(at_ms), attributes());
        }
    }
}

impl Drop for RunTrace {
    /// Ends the spans of a run that stopped without a result.
    fn drop(&mut self) {
        self.end_all(self.newest_ms, Some(("_OTHER", "the run stopped without a result")));
    }
}
