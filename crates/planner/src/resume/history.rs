//! Reads a run's journal from the beginning, and returns each recorded outcome as input for the
//! machine.

use std::collections::{HashSet, VecDeque};

use journal::{Counts, Event, Record};
use serde_json::Value;
use tool_api::{Outcome, Parsed, Registry, Status};

use crate::answer::ReadyCall;
use crate::calls::{CallResult, spec_of};
use crate::machine::{Input, Plan, Turn};

/// A journal, and how far it has been read.
pub(crate) struct History<'a> {
    events: Vec<&'a Event>,
    at: usize,
    /// The plan that the run started from.
    pub(crate) plan: Plan,
    /// The result of the verification that ran before anything was changed.
    pub(crate) baseline: Option<journal::Check>,
    /// The number of the last record in the tree's history before the first turn; 0 if there is
    /// none.
    pub(crate) start: u64,
    /// Whether something may have changed since the last check.
    pub(crate) dirty: bool,
    /// The model's context window, according to the last value recorded in the journal.
    pub(crate) window: Option<u64>,
}

/// The recorded outcome of a request.
pub(crate) enum Recorded {
    Overflow(Option<u64>),
    /// There was no answer: the run continued with another model ([`History::model_changed`]).
    ModelChanged,
    Answer(Box<RecordedAnswer>),
}

pub(crate) struct RecordedAnswer {
    pub(crate) turn: Turn,
    pub(crate) counts: Counts,
    /// Calls without a result, in order, and whether each was started.
    pub(crate) unfinished: Vec<(bool, ReadyCall)>,
    /// The tool name and the length in bytes of each call.
    pub(crate) calls: Vec<(String, usize)>,
    /// Whether the journal ends with this answer. If so, its calls and the verification after them
    /// may be unfinished.
    pub(crate) last: bool,
}

/// The recorded outcome of a file write by the machine.
pub(crate) enum OwnWrite {
    Missing,
    Written,
    /// Written and verified.
    Checked(journal::Check),
    /// Not written.
    Refused,
}

/// The call number that the journal uses for file writes by the machine.
pub(crate) const OWN_CALL: u32 = u32::MAX;

/// Returns the user messages that were passed to a resumed run but have not been added to the
/// conversation yet.
pub(crate) fn pending_messages(records: &[Record]) -> VecDeque<String> {
    let mut pending = VecDeque::new();
    for record in records {
        match &record.event {
            Event::Resumed { message: Some(text), .. } => pending.push_back(text.clone()),
            Event::UserMessage { text } if pending.front() == Some(text) => {
                pending.pop_front();
            }
            _ => {}
        }
    }
    pending
}

fn edits(events: &[&Event], wanted: u32) -> usize {
    let edit = |e: &&&Event| matches!(e, Event::ToolFinished { turn, changed, status, .. } if *turn == wanted && !changed.is_empty() && status == "ok");
    events.iter().filter(edit).count()
}

fn read_plan(plan: Value) -> Result<Plan, String> {
    serde_json::from_value(plan).map_err(|e| {
        format!("cannot read the plan, which was written by a different version of the agent: {e}")
    })
}

impl<'a> History<'a> {
    /// Starts reading at the beginning of the run. Returns `None` if the run never started.
    pub(crate) fn new(records: &'a [Record]) -> Result<Option<Self>, String> {
        let started = records.iter().enumerate().find_map(|(i, r)| match &r.event {
            Event::RunStarted { plan } => Some((i, plan.clone())),
            _ => None,
        });
        let Some((started, plan)) = started else { return Ok(None) };
        let plan = read_plan(plan)?;
        let by_command =
            |r: &Record| if let Event::CommandChanged { record } = r.event { Some(record) } else { None };
        let start = records[..started].iter().rev().find_map(by_command).unwrap_or_default();
        let check =
            |r: &Record| if let Event::Checked(check) = &r.event { Some(check.clone()) } else { None };
        let baseline = records[..started].iter().rev().find_map(check);
        let events: Vec<&Event> = records[started + 1..].iter().map(|r| &r.event).collect();
        let (mut dirty, mut window) = (false, plan.window);
        for event in &events {
            match event {
                Event::ToolStarted { effect, .. } => dirty |= effect != "read",
                Event::UserMessage { .. } | Event::TryEnded { .. } => dirty = true,
                Event::Checked(_) => dirty = false,
                Event::Window { tokens, .. } => window = Some(*tokens),
                Event::ModelChanged { model, .. } => window = model.window,
                _ => {}
            }
        }
        Ok(Some(Self { events, at: 0, plan, baseline, start, dirty, window }))
    }

    /// Returns the user's next message, if it comes before the next answer.
    pub(crate) fn user_message(&mut self) -> Option<String> {
        for (i, event) in self.events.iter().enumerate().skip(self.at) {
            match event {
                Event::UserMessage { text } => {
                    self.at = i + 1;
                    return Some(text.clone());
                }
                Event::Output { .. }
                | Event::Overflow { .. }
                | Event::ModelChanged { .. }
                | Event::TryEnded { .. }
                | Event::ToolStarted { call: OWN_CALL, .. } => return None,
                _ => {}
            }
        }
        None
    }

    /// Returns the number of lines that the current try changed, or `None` if the end of the try is
    /// not recorded.
    pub(crate) fn try_ended(&mut self) -> Option<u64> {
        self.find(|event| if let Event::TryEnded { lines, .. } = event { Some(*lines) } else { None })
    }

    /// Returns the record that reverted a try. Returns `None` if no revert is recorded, and
    /// `Some(None)` if there was nothing to revert.
    pub(crate) fn reverted(&mut self) -> Option<Option<u64>> {
        self.find(|event| if let Event::Reverted { record, .. } = event { Some(*record) } else { None })
    }

    /// Returns the next switch to another model if one is recorded before the next request.
    pub(crate) fn model_changed(&mut self) -> Result<Option<Input>, String> {
        let changed = self.find(|event| match event {
            Event::ModelChanged { plan, new_try, .. } => Some((plan.clone(), *new_try)),
            _ => None,
        });
        let Some((plan, new_try)) = changed else { return Ok(None) };
        Ok(Some(Input::ModelChanged { plan: Box::new(read_plan(plan)?), new_try }))
    }

    /// Returns what `wanted` extracts from the next matching event. Returns `None` if no event
    /// before the next request matches.
    fn find<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let rest = self.events.get(self.at..).unwrap_or_default().iter();
        let before = rest.take_while(|event| !matches!(event, Event::Request { .. }));
        let (at, found) = before.enumerate().find_map(|(i, event)| Some((i, wanted(event)?)))?;
        self.at += at + 1;
        Some(found)
    }

    /// If a candidate or a try was reverted because the run was stopped, returns the record of that
    /// revert. That record must be reverted before the run continues, to restore the candidate or
    /// the try.
    pub(crate) fn left(&self) -> Option<u64> {
        let (mut ended, mut stopped, mut last) = (false, None, None);
        for event in &self.events {
            match event {
                Event::TryEnded { .. } => ended = true,
                Event::Reverted { from, record, .. } => {
                    let after_try = std::mem::take(&mut ended);
                    // If two reverts in a row refer to the same record, the second one had nothing
                    // left to revert.
                    if record.is_some() && std::mem::replace(&mut last, *record) == *record {
                        continue;
                    }
                    let continued = stopped == Some(*from);
                    stopped = record.filter(|_| !after_try && !continued);
                }
                _ => {}
            }
        }
        stopped
    }

    /// Returns the recorded messages and rewinds.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &'a Event> + '_ {
        self.events.iter().copied().filter(|e| matches!(e, Event::Message { .. } | Event::Rewound { .. }))
    }

    /// Whether a verification has run.
    pub(crate) fn checked(&self) -> bool {
        self.baseline.is_some() || self.events.iter().any(|e| matches!(e, Event::Checked(_)))
    }

    /// Returns the number of edits in a turn that have a recorded result.
    pub(crate) fn edits(&self, wanted: u32) -> usize {
        edits(&self.events, wanted)
    }

    /// Like [`History::edits`], but counts only events that have already been read.
    pub(crate) fn edits_so_far(&self, wanted: u32) -> usize {
        edits(self.events.get(..self.at).unwrap_or_default(), wanted)
    }

    /// Whether the journal contains an event for the revert with this record number.
    pub(crate) fn names_revert(&self, wanted: u64) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Reverted { record, .. } if *record == Some(wanted)))
    }

    /// Returns the outcome of the machine's next file write. `checked` indicates whether a
    /// verification follows.
    pub(crate) fn own_write(&mut self, checked: bool) -> OwnWrite {
        let mut own = OwnWrite::Missing;
        while let Some(event) = self.events.get(self.at) {
            match event {
                Event::Request { .. } => break,
                Event::ToolStarted { call: OWN_CALL, .. } if matches!(own, OwnWrite::Written) => break,
                Event::ToolFinished { call: OWN_CALL, status, .. } if status != "ok" => {
                    own = OwnWrite::Refused
                }
                Event::ToolFinished { call: OWN_CALL, .. } => own = OwnWrite::Written,
                Event::Checked(check) if matches!(own, OwnWrite::Written) => {
                    own = OwnWrite::Checked(check.clone())
                }
                _ => {}
            }
            self.at += 1;
            if matches!(
                (&own, checked),
                (OwnWrite::Written, false) | (OwnWrite::Checked(_) | OwnWrite::Refused, _)
            ) {
                break;
            }
        }
        own
    }

    /// Returns the outcome of a turn's request, or `None` if it is not recorded.
    pub(crate) fn answer(&mut self, wanted: u32, tools: &Registry) -> Option<Recorded> {
        let mut answer: Option<Counts> = None;
        let mut calls: Vec<ReadyCall> = Vec::new();
        let mut started: HashSet<u32> = HashSet::new();
        let mut finished: HashSet<u32> = HashSet::new();
        let mut turn = Turn::default();
        let mut overflow = None;
        let mut over = false;
        while let Some(event) = self.events.get(self.at) {
            match event {
                Event::Request { turn: n, .. } if *n == wanted => {
                    // A retry or a resumed run repeats the request, so earlier events of the turn
                    // are discarded.
                    (answer, turn, overflow) = (None, Turn::default(), None);
                    calls.clear();
                    started.clear();
                    finished.clear();
                }
                Event::Request { .. } | Event::ToolStarted { call: OWN_CALL, .. } => break,
                Event::TryEnded { .. } if answer.is_some() => {
                    over = true;
                    break;
                }
                Event::ModelChanged { new_try: false, .. } if answer.is_none() => {
                    return Some(Recorded::ModelChanged);
                }
                Event::Overflow { turn: n, window } if *n == wanted => overflow = Some(*window),
                Event::Call { turn: n, call, tool, arguments, span, repairs } if *n == wanted => {
                    calls.push(ReadyCall {
                        call: *call,
                        spec: spec_of(tools, tool),
                        arguments: arguments.clone(),
                        parsed: Parsed::default(),
                        span: *span,
                        repairs: repairs.clone(),
                    });
                }
                Event::Refused { turn: n, message, .. } if *n == wanted => {
                    turn.refused = Some(message.clone())
                }
                Event::Output { turn: n, content, thinking, doubts, counts, .. } if *n == wanted => {
                    (turn.content, turn.thinking) = (content.clone(), thinking.clone());
                    turn.doubts = doubts.clone();
                    answer = Some(*counts);
                }
                Event::ToolStarted { turn: n, call, .. } if *n == wanted => {
                    started.insert(*call);
                }
                Event::ToolFinished { turn: n, call, tool, status, text, changed, facts, .. }
                    if *n == wanted =>
                {
                    let outcome = Outcome {
                        status: serde_json::from_value(status.as_str().into()).unwrap_or(Status::Refused),
                        text: text.clone(),
                        changed: changed.clone(),
                        facts: facts.clone(),
                    };
                    let arguments =
                        calls.iter().find(|c| c.call == *call).map_or(Value::Null, |c| c.arguments.clone());
                    let spec = spec_of(tools, tool);
                    turn.results.push(CallResult { spec, arguments, outcome });
                    finished.insert(*call);
                }
                Event::Window { turn: n, tokens } if *n == wanted => turn.window = Some(*tokens),
                Event::Checked(check) if answer.is_some() => turn.check = Some(check.clone()),
                // These events show that the machine has handled the whole answer.
                Event::Message { .. } | Event::Rewound { .. } | Event::UserMessage { .. }
                    if answer.is_some() =>
                {
                    over = true;
                    break;
                }
                Event::Finished(report) if answer.is_some() && !report.ending.can_resume() => {
                    over = true;
                    break;
                }
                Event::UserMessage { .. } if overflow.is_some() => break,
                _ => {}
            }
            self.at += 1;
        }
        if let (Some(window), None) = (overflow, &answer) {
            return Some(Recorded::Overflow(window));
        }
        let sizes = calls.iter().map(|c| (c.spec.name.clone(), (c.span.1 - c.span.0) as usize)).collect();
        let unfinished = calls.into_iter().filter(|c| !finished.contains(&c.call));
        Some(Recorded::Answer(Box::new(RecordedAnswer {
            turn,
            counts: answer?,
            unfinished: unfinished.map(|c| (started.contains(&c.call), c)).collect(),
            calls: sizes,
            last: !over && self.at == self.events.len(),
        })))
    }
}
