//! Validates a recorded answer for `agent parse`, using the same code as a run.

use serde_json::Value;
use tool_api::{Accepted, Incoming, Registry};
use tool_stream::{End, Event, Parser, Status, Verdict, VerdictCall};

use crate::answer::{WHOLE_ANSWER, judge, parser_options, repair_name};

/// The verdict on an answer.
#[derive(Debug)]
pub struct Judged {
    /// Whether calls were found.
    pub status: Status,
    /// Why a call is malformed, or what is wrong with an answer without calls.
    pub why: Option<String>,
    /// The calls, in order.
    pub calls: Vec<JudgedCall>,
}

/// A call, as written and as it would be run.
#[derive(Debug)]
pub struct JudgedCall {
    /// The call as written.
    pub found: VerdictCall,
    /// The names of the repairs that were needed to parse the call.
    pub repairs: Vec<String>,
    /// The call as it would be run, or the message that tells the model why it is refused.
    pub judged: Result<Accepted, String>,
}

/// Validates an answer. `pieces` are its consecutive parts.
pub fn answer<'a>(tools: &Registry, pieces: impl IntoIterator<Item = &'a [u8]>, end: End) -> Judged {
    let mut parser = Parser::new(parser_options(tools, &[]));
    let mut events = Vec::new();
    for piece in pieces {
        parser.feed(piece, &mut events);
    }
    parser.finish(end, &mut events);
    let mut shown = String::new();
    for event in &events {
        match event {
            Event::Text(text) => shown.push_str(text),
            Event::OrphanThink { .. } => shown.clear(),
            _ => {}
        }
    }
    let Verdict { mut status, calls, mut why } = tool_stream::verdict(events);
    let mut calls: Vec<JudgedCall> = calls.into_iter().map(|call| judged(tools, call)).collect();
    if status == Status::None && end == End::Stop {
        match tools.whole_answer(&shown) {
            None => {}
            Some(Err(sentence)) => why = Some(sentence),
            Some(Ok((incoming, arguments))) => {
                status = Status::Calls;
                calls.push(whole(incoming, arguments, shown.len()));
            }
        }
    }
    // A run cuts the answer off at the first refused call.
    if let Some(at) = calls.iter().position(|call| call.judged.is_err()) {
        for call in calls.iter_mut().skip(at + 1).filter(|call| call.judged.is_ok()) {
            call.judged = Err("not read: the answer is cut off at the refused call before it".into());
        }
    }
    Judged { status, why, calls }
}

fn judged(tools: &Registry, found: VerdictCall) -> JudgedCall {
    let repairs: Vec<String> = found.repairs.iter().map(|r| repair_name(*r)).collect();
    let certain = found.repairs.iter().all(|r| r.unambiguous());
    let judged = judge(tools.accept(&found.tool, &found.arguments), &repairs, certain);
    JudgedCall { found, repairs, judged }
}

fn whole(incoming: Incoming<'_>, arguments: Value, end: usize) -> JudgedCall {
    let repairs = vec![WHOLE_ANSWER.to_owned()];
    let tool = incoming.name().to_owned();
    let judged = judge(incoming.complete(&arguments), &repairs, true);
    let found = VerdictCall { tool, arguments, start: 0, end, repaired: true, repairs: Vec::new() };
    JudgedCall { found, repairs, judged }
}
