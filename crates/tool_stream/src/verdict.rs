//! Parses a whole answer at once. `agent parse` prints the result.

use serde::Serialize;
use serde_json::Value;

use crate::event::{Call, End, Event, Malformed, Options, Repair};
use crate::parser::Parser;

/// The result of parsing a whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// `calls` if the answer contains a call, `malformed` if it contains only malformed calls, and
    /// `none` otherwise.
    pub status: Status,
    /// The calls in order.
    pub calls: Vec<VerdictCall>,
    /// Why the last malformed call could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// See [`Verdict::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At least one complete call.
    Calls,
    /// No call, not even a malformed one.
    None,
    /// No complete call, but at least one malformed one.
    Malformed,
}

/// A call as `agent parse` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictCall {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset just past the last byte.
    pub end: usize,
    /// Whether the call had to be repaired.
    pub repaired: bool,
    /// The repairs that were necessary.
    #[serde(skip)]
    pub repairs: Vec<Repair>,
}

impl From<Call> for VerdictCall {
    fn from(call: Call) -> VerdictCall {
        let repaired = call.repaired();
        let Call { tool, arguments, start, end, repairs, .. } = call;
        VerdictCall { tool, arguments, start, end, repaired, repairs }
    }
}

/// Parses a whole answer.
#[must_use]
pub fn parse(bytes: &[u8], end: End, options: Options) -> Verdict {
    let mut parser = Parser::new(options);
    let mut events = Vec::new();
    parser.feed(bytes, &mut events);
    parser.finish(end, &mut events);
    verdict(events)
}

/// Derives the verdict on an answer from its events, ignoring everything before an orphaned
/// `</think>`.
#[must_use]
pub fn verdict(events: Vec<Event>) -> Verdict {
    let mut calls: Vec<VerdictCall> = Vec::new();
    let mut why: Option<Malformed> = None;
    for event in events {
        match event {
            Event::CallComplete(call) => calls.push(call.into()),
            Event::Malformed { why: reason, .. } => why = Some(reason),
            Event::OrphanThink { .. } => {
                calls.clear();
                why = None;
            }
            _ => {}
        }
    }
    let status = match (calls.is_empty(), why) {
        (false, _) => Status::Calls,
        (true, Some(_)) => Status::Malformed,
        (true, None) => Status::None,
    };
    Verdict { status, calls, why: why.map(|w| w.to_string()) }
}
