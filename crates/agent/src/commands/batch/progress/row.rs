//! Tracks what a running task is doing, based on the events of its session. This module does no
//! I/O.

use std::time::{Duration, Instant};

use journal::Event;

use super::lines::name;
use super::table::span;
use crate::render::summarize;
use crate::sanitize;

/// How long a task must be doing the same thing before its row also shows the elapsed time.
const LONG: Duration = Duration::from_secs(5);
/// Maximum length, in characters, of the text that describes what a task is doing.
const WIDTH: usize = 200;

/// A running task.
pub(super) struct Row {
    pub(super) id: String,
    attempt: u32,
    /// The current turn, or 0 before the first one.
    turn: u32,
    /// Tokens generated so far.
    pub(super) tokens: u64,
    doing: Doing,
    since: Instant,
}

/// What a task is doing at the moment.
#[derive(Debug, PartialEq)]
enum Doing {
    /// Unknown, for example because the task runs on another machine.
    Unknown,
    Waiting,
    Thinking,
    Answering,
    /// The model is writing a call to this tool.
    Writing(String),
    /// The start of the session, a call, a verification, or a pause before a retry.
    Other(String),
}

impl Row {
    pub(super) fn new(id: &str, attempt: u32, now: Instant) -> Self {
        Self { id: id.to_owned(), attempt, turn: 0, tokens: 0, doing: Doing::Unknown, since: now }
    }

    /// Records an event from the task's session.
    pub(super) fn record(&mut self, event: &Event, now: Instant) {
        let doing = match event {
            Event::Session { .. } => Doing::Other("starting".into()),
            Event::Request { turn, .. } => {
                self.turn = *turn;
                Doing::Waiting
            }
            Event::Retry { error, wait_ms, .. } => {
                let wait = span(Duration::from_millis(*wait_ms));
                Doing::Other(format!("retrying in {wait}: {}", sanitize::short(error, WIDTH)))
            }
            Event::Thinking { .. } => Doing::Thinking,
            Event::Text { .. } => Doing::Answering,
            Event::CallOpened { tool, .. } => Doing::Writing(sanitize::short(tool, WIDTH)),
            Event::Call { tool, arguments, .. } => {
                Doing::Other(format!("{} {}", sanitize::short(tool, WIDTH), summarize(arguments)))
            }
            Event::CheckStarted { command } => {
                Doing::Other(format!("checking: {}", sanitize::short(command, WIDTH)))
            }
            Event::Output { counts, .. } | Event::AnswerLost { counts, .. } => {
                self.tokens += counts.generated_tokens.unwrap_or(0);
                return;
            }
            _ => return,
        };
        // Thinking and text arrive in many pieces. Only the first piece starts the clock.
        if self.doing != doing {
            (self.doing, self.since) = (doing, now);
        }
    }

    /// Returns the task's display name; see [`name`].
    pub(super) fn name(&self) -> String {
        name(&self.id, self.attempt)
    }

    /// Returns the turn and what the task is doing.
    pub(super) fn doing(&self, now: Instant) -> (String, String) {
        let turn = if self.turn == 0 { String::new() } else { format!("turn {}", self.turn) };
        let doing = match &self.doing {
            Doing::Unknown => String::new(),
            Doing::Waiting => "waiting for the model".into(),
            Doing::Thinking => "thinking".into(),
            Doing::Answering => "answering".into(),
            Doing::Writing(tool) => format!("writing {tool}"),
            Doing::Other(what) => what.clone(),
        };
        let time = now.saturating_duration_since(self.since);
        match doing.is_empty() {
            true if time >= LONG => (turn, span(time)),
            false if time >= LONG => (turn, format!("{doing}, {}", span(time))),
            _ => (turn, doing),
        }
    }
}

#[cfg(test)]
pub(super) fn request(turn: u32) -> Event {
    Event::Request {
        turn,
        attempt: 1,
        messages: 2,
        estimated_tokens: 9,
        temperature: None,
        seed: None,
        max_tokens: 9,
        peak: false,
    }
}

#[cfg(test)]
mod tests {
    use journal::{Counts, EndedBy};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_follows_the_session() {
        let start = Instant::now();
        let mut row = Row::new("one", 2, start);
        let mut after = |seconds: u64, event: Event| {
            let now = start + Duration::from_secs(seconds);
            row.record(&event, now);
            let (turn, doing) = row.doing(now + Duration::from_secs(3));
            format!("{}|{turn}|{doing}", row.name())
        };
        let text = || Event::Text { turn: 3, text: "hm\u{1b}[2J".into() };
        let call = Event::Call {
            turn: 3,
            call: 0,
            tool: "read_file".into(),
            arguments: json!({"path": "src/\u{1b}[2Jlib.rs"}),
            span: (0, 9),
            repairs: Vec::new(),
        };
        assert_eq!(after(0, request(3)), "one (attempt 2)|turn 3|waiting for the model");
        assert_eq!(after(9, text()), "one (attempt 2)|turn 3|answering");
        assert_eq!(after(19, text()), "one (attempt 2)|turn 3|answering, 13 s");
        assert_eq!(after(20, call), "one (attempt 2)|turn 3|read_file src/␛[2Jlib.rs");
        let check = Event::CheckStarted { command: "make\ncheck".into() };
        assert_eq!(after(21, check), "one (attempt 2)|turn 3|checking: make␊check");
        let retry = Event::Retry { turn: 3, error: "busy".into(), wait_ms: 65_000, busy: true };
        assert_eq!(after(22, retry), "one (attempt 2)|turn 3|retrying in 1 min 5 s: busy");
        let counts = Counts { generated_tokens: Some(7), ..Counts::default() };
        let (ended_by, doubts) = (EndedBy::Stop, Vec::new());
        let (content, thinking) = (String::new(), String::new());
        after(23, Event::Output { turn: 3, content, thinking, ended_by, doubts, counts });
        assert_eq!(row.tokens, 7);
    }
}
