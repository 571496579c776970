//! Reduces a session to its decisions, so that a recorded run can be compared with its replay.
//!
//! Decisions are the requests, the answers along with the calls and refusals found in them, and the
//! effects of the calls. Anything that depends on time, the network or chance is excluded. Only
//! this module defines what counts as a decision:
//!
//! - Omitted: streamed pieces (`thinking`, `text`, `call_opened`), announcements (`tool_started`,
//!   `check_started`), changes made by commands (`command_changed`), human-readable notes (`guard`,
//!   `warning`), what the server did (`retry`, `overflow`, `window`, `answer_lost`), the tries
//!   (`try_ended`, `reverted`: the messages and the ending contain the same information), and the
//!   setup of the run (`session`, `tree`, `sandbox`, `external_tools`, `model`, `begun`,
//!   `resumed`).
//! - Omitted from other events: durations, token counts and estimates, whether peak prices apply,
//!   alternative tokens, positions of cuts, whether a refusal was early, machine-readable facts
//!   (such as exit codes), the reasons and the plan of a model change, and the final patch (the
//!   trees themselves are compared).
//! - Order: the calls of an answer come before their results. Results are sorted by call number,
//!   because reads run in parallel.
//! - A failed attempt is counted only as a request. A turn that a resumed session repeats is
//!   counted once.

use crate::{Counts, EndedBy, Event, Record};

/// The call number of the planner's own file writes. Their results are not sorted.
const OWN_CALL: u32 = u32::MAX;

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The number of the session record that contains the decision.
    pub seq: u64,
    /// Its turn, or 0 before the first turn.
    pub turn: u32,
    /// The event, reduced to the parts that make up the decision.
    pub event: Event,
}

/// Collects the decisions of a session as its records come in.
#[derive(Debug, Default)]
pub struct Trace {
    steps: Vec<Step>,
    turn: u32,
    /// Decisions made during an answer that is not complete yet.
    pending: Vec<Step>,
    /// Results that have not been sorted yet, each with its call number.
    results: Vec<(u32, Step)>,
}

impl Trace {
    /// Returns the steps that later records can no longer change.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns all steps. Call this when there are no more records.
    #[must_use]
    pub fn finish(mut self) -> Vec<Step> {
        self.settle();
        self.steps
    }

    /// Adds the next record.
    pub fn push(&mut self, record: &Record) {
        if let Event::Request { turn, .. } = &record.event {
            self.turn = *turn;
        }
        let Some(event) = reduce(&record.event) else { return };
        let step = |event| Step { seq: record.seq, turn: self.turn, event };
        match event {
            Event::Call { .. } | Event::Refused { .. } | Event::Cut { .. } => self.pending.push(step(event)),
            Event::ToolFinished { call, .. } if call != OWN_CALL => self.results.push((call, step(event))),
            Event::Output { .. } => {
                let output = step(event);
                self.steps.append(&mut self.pending);
                self.steps.push(output);
            }
            event => {
                let step = step(event);
                self.settle();
                self.pending.clear();
                self.steps.push(step);
            }
        }
    }

    /// Adds the collected results. Call this when no more results can follow before the next
    /// message.
    pub fn settle(&mut self) {
        self.results.sort_by_key(|(call, _)| *call);
        self.steps.extend(self.results.drain(..).map(|(_, step)| step));
    }
}

/// Reduces an event to the parts that make up a decision. Returns `None` if there are none.
fn reduce(event: &Event) -> Option<Event> {
    let mut event = event.clone();
    match &mut event {
        Event::Message { .. } | Event::UserMessage { .. } | Event::Rewound { .. } | Event::Call { .. } => {}
        // The position depends on how the server split the stream into pieces.
        Event::Cut { at, .. } => *at = 0,
        Event::Request { estimated_tokens, peak, .. } => (*estimated_tokens, *peak) = (0, false),
        Event::Refused { saved_tokens, early, .. } => (*saved_tokens, *early) = (0, false),
        Event::Output { content, ended_by, counts, doubts, .. } => {
            *counts = Counts::default();
            doubts.clear();
            // A cut may drop the newline after a closing fence.
            if *ended_by == EndedBy::Cut {
                content.truncate(content.trim_end_matches('\n').len());
            }
        }
        Event::ToolFinished { facts, ms, .. } => (*facts, *ms) = Default::default(),
        Event::Checked(check) => (check.facts, check.ms) = Default::default(),
        Event::ModelChanged { why, model, plan, .. } => {
            (*why, *plan) = Default::default();
            model.why.clear();
        }
        Event::Finished(report) => {
            (report.diff, report.totals, report.models) = Default::default();
        }
        _ => return None,
    }
    Some(event)
}

/// Returns the records of a session as if it had never been interrupted: without the
/// [`Event::Resumed`] records and the incomplete work before each of them.
#[must_use]
pub fn uninterrupted(records: Vec<Record>) -> Vec<Record> {
    let mut out: Vec<Record> = Vec::with_capacity(records.len());
    for record in records {
        if !matches!(record.event, Event::Resumed { .. }) {
            out.push(record);
            continue;
        }
        out.retain(|r| !matches!(r.event, Event::Finished(_)));
        if !out.iter().any(|r| matches!(r.event, Event::RunStarted { .. })) {
            out.truncate(1);
            continue;
        }
        let answered = |r: &Record| {
            matches!(r.event, Event::Output { .. } | Event::Overflow { .. } | Event::ModelChanged { .. })
        };
        let from = out.iter().rposition(answered).map_or(0, |at| at + 1);
        if let Some(at) = out[from..].iter().position(|r| matches!(r.event, Event::Request { .. })) {
            out.truncate(from + at);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CutReason, EndedBy, ModelInfo, ModelRole};
    use serde_json::Value;

    fn records(events: Vec<Event>) -> Vec<Record> {
        (0..).zip(events).map(|(seq, event)| Record { v: 1, seq, time_ms: seq, event }).collect()
    }

    fn request(turn: u32, attempt: u32) -> Event {
        Event::Request {
            turn,
            attempt,
            messages: 2,
            estimated_tokens: 7,
            temperature: None,
            seed: None,
            max_tokens: 9,
            peak: false,
        }
    }

    fn output(turn: u32) -> Event {
        Event::Output {
            turn,
            content: "x".into(),
            thinking: String::new(),
            ended_by: EndedBy::Stop,
            doubts: Vec::new(),
            counts: Counts { total_ms: 5, ..Counts::default() },
        }
    }

    fn result(turn: u32, call: u32) -> Event {
        let (tool, status, text) = ("t".into(), "ok".into(), call.to_string());
        Event::ToolFinished { turn, call, tool, status, text, changed: vec![], facts: Value::Null, ms: 3 }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        let name = |s: &Step| serde_json::to_value(&s.event).unwrap()["event"].as_str().unwrap().to_owned();
        steps.iter().map(name).collect()
    }

    fn traced(records: &[Record]) -> Vec<Step> {
        let mut trace = Trace::default();
        records.iter().for_each(|r| trace.push(r));
        trace.finish()
    }

    #[test]
    fn results_are_ordered_by_call_number() {
        let call = Event::Call {
            turn: 1,
            call: 0,
            tool: "t".into(),
            arguments: Value::Null,
            span: (0, 1),
            repairs: vec![],
        };
        let one = records(vec![request(1, 1), call.clone(), result(1, 1), output(1), result(1, 0)]);
        let other = records(vec![request(1, 1), call, output(1), result(1, 0), result(1, 1)]);
        let (one, other) = (traced(&one), traced(&other));
        assert_eq!(names(&one), ["request", "call", "output", "tool_finished", "tool_finished"]);
        let events = |steps: &[Step]| steps.iter().map(|s| s.event.clone()).collect::<Vec<_>>();
        assert_eq!(events(&one), events(&other));
    }

    #[test]
    fn events_of_a_failed_attempt_do_not_count() {
        let cut = Event::Cut { turn: 1, why: CutReason::Stopped, at: 3 };
        let steps = traced(&records(vec![request(1, 1), cut, request(1, 2), output(1)]));
        assert_eq!(names(&steps), ["request", "request", "output"]);
    }

    #[test]
    fn an_interrupted_session_equals_an_uninterrupted_one() {
        let resumed = || Event::Resumed { version: "1".into(), changed: vec![], message: None };
        let begun = || Event::RunStarted { plan: Value::Null };
        let whole = records(vec![begun(), request(1, 1), output(1), result(1, 0), request(2, 1), output(2)]);
        let torn = records(vec![
            begun(),
            request(1, 1),
            resumed(),
            request(1, 1),
            output(1),
            resumed(),
            result(1, 0),
            request(2, 1),
            request(2, 2),
            resumed(),
            request(2, 1),
            output(2),
        ]);
        let torn = traced(&uninterrupted(torn));
        let events = |steps: Vec<Step>| steps.into_iter().map(|s| s.event).collect::<Vec<_>>();
        assert_eq!(events(traced(&whole)), events(torn));
    }

    #[test]
    fn a_change_of_the_model_before_an_interruption_is_kept() {
        let model = ModelInfo {
            server: "s".into(),
            server_version: None,
            model: "m".into(),
            window: None,
            thinking: false,
            approach: "tools".into(),
            why: "as asked".into(),
            family: None,
            parameters_b: None,
            local: None,
            price: None,
            peak_factor: None,
            prices_of: None,
            edit_format: None,
            constrained: false,
            role: Some(ModelRole::Fallback),
        };
        let changed =
            Event::ModelChanged { turn: 1, why: "gone".into(), new_try: false, model, plan: Value::Null };
        let resumed = Event::Resumed { version: "1".into(), changed: vec![], message: None };
        let begun = Event::RunStarted { plan: Value::Null };
        let torn = vec![begun, request(1, 1), changed, request(1, 1), resumed, request(1, 1), output(1)];
        let steps = traced(&uninterrupted(records(torn)));
        assert_eq!(names(&steps), ["request", "model_changed", "request", "output"]);
    }
}
