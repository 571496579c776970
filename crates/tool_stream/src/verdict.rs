//! The whole answer judged at once: what `agent parse` prints.

use serde::Serialize;
use serde_json::Value;

use crate::event::{Call, End, Event, Malformed, Options, Repair};
use crate::parser::Parser;

/// What the agent would make of an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// `calls` if there is at least one, else `malformed` if one had begun, else `none`.
    pub status: Status,
    /// The calls in their order.
    pub calls: Vec<VerdictCall>,
    /// Why a call that had begun is none, if there was such a one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// See [`Verdict::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// At least one complete call.
    Calls,
    /// No call, and none begun.
    None,
    /// No complete call, but one had begun.
    Malformed,
}

/// A call as `agent parse` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictCall {
    /// Name of the tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset just past the last byte.
    pub end: usize,
    /// The bytes were not valid as they stood.
    pub repaired: bool,
    /// What was mended.
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

/// Judges a whole answer.
#[must_use]
pub fn parse(bytes: &[u8], end: End, options: Options) -> Verdict {
    let mut parser = Parser::new(options);
    let mut events = Vec::new();
    parser.feed(bytes, &mut events);
    parser.finish(end, &mut events);
    verdict(events)
}

/// Judges an answer by its events, from whatever chunks they came. What an orphaned `</think>` turns into reasoning
/// after the fact does not count.
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
