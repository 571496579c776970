//! What a run would make of an answer, by the same code: for whoever wants to know without a run.

use serde_json::Value;
use tool_api::{Accepted, Incoming, Registry};
use tool_stream::{End, Event, Parser, Status, Verdict, VerdictCall};

use crate::answer::{WHOLE_ANSWER, judge, parser_options, words};

/// An answer, judged.
#[derive(Debug)]
pub struct Judged {
    /// Whether calls were found, as the parser says.
    pub status: Status,
    /// Why a call that had begun is none, or what is wrong with an answer that has none.
    pub why: Option<String>,
    /// The calls in their order.
    pub calls: Vec<JudgedCall>,
}

/// A call, as it was found and as it would be run.
#[derive(Debug)]
pub struct JudgedCall {
    /// As it was found.
    pub found: VerdictCall,
    /// What was repaired in its text, in words.
    pub repairs: Vec<String>,
    /// As it would be run, or the sentence by which the model is told that it is not.
    pub judged: Result<Accepted, String>,
}

/// Judges an answer in the pieces it came in.
pub fn answer<'a>(tools: &Registry, pieces: impl IntoIterator<Item = &'a [u8]>, end: End) -> Judged {
    let mut parser = Parser::new(parser_options(tools, None));
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
    // A run reads no further than a call that it refuses.
    if let Some(at) = calls.iter().position(|call| call.judged.is_err()) {
        for call in calls.iter_mut().skip(at + 1).filter(|call| call.judged.is_ok()) {
            call.judged =
                Err("it is not read: the answer is cut at the call before it, which is refused".into());
        }
    }
    Judged { status, why, calls }
}

fn judged(tools: &Registry, found: VerdictCall) -> JudgedCall {
    let repairs: Vec<String> = found.repairs.iter().map(|r| words(*r)).collect();
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
