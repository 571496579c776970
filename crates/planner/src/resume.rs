//! Taking up a run where a journal ends, after a crash, a kill or a signal.
//!
//! The machine is pure, so it is led through what was heard the first time: answers, results, checks. Nothing is asked or run again, and the
//! conversation comes out word for word, or the journal was made by another version and is refused. What the end of the journal leaves open is
//! finished: an answer that was on record has its calls carried out, one that was not is asked for again.

use std::collections::{HashMap, HashSet};

use journal::{Counts, Event, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool_api::{Outcome, Parsed, Registry, Status};

use crate::acting::{CallResult, spec_of};
use crate::answer::{Focus, ReadyCall};
use crate::machine::Turn;
use crate::prompts::Opening;
use crate::settings::Settings;

/// What the machine was made of, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) opening: Opening,
    pub(crate) window: Option<u64>,
    pub(crate) has_verifier: bool,
    pub(crate) send_thinking: bool,
    pub(crate) branches: bool,
    pub(crate) focus: Option<Focus>,
}

/// A journal that is gone through from its beginning.
pub(crate) struct Past<'a> {
    events: Vec<&'a Event>,
    at: usize,
    /// What the run was begun with.
    pub(crate) plan: Plan,
    /// The check before anything was done.
    pub(crate) baseline: Option<journal::Check>,
    /// Whether something may have changed since the last check.
    pub(crate) dirty: bool,
    /// Bytes that refusals saved.
    pub(crate) saved: u64,
    /// The model's window as it was known at the end.
    pub(crate) window: Option<u64>,
}

/// What the journal has of a request.
pub(crate) enum Heard {
    Overflow(Option<u64>),
    Answer(Box<Answered>),
}

/// An answer on record.
pub(crate) struct Answered {
    pub(crate) turn: Turn,
    pub(crate) counts: Counts,
    /// Calls that have no result, in order, and whether they had begun.
    pub(crate) left: Vec<(ReadyCall, bool)>,
    /// All its calls, for what is learned from their lengths.
    pub(crate) calls: Vec<(String, usize)>,
    /// Nothing follows: what comes after the calls may not have been done.
    pub(crate) last: bool,
}

/// What the journal has of a file that the machine itself wrote.
pub(crate) enum Own {
    /// Not that it was written.
    Open,
    Written,
    /// Written and verified.
    Checked(journal::Check),
}

/// The number of the call by which the machine itself writes a file.
pub(crate) const OWN_CALL: u32 = u32::MAX;

/// The plan in a journal; `None` when the run had not begun yet.
pub(crate) fn plan(records: &[Record]) -> Result<Option<(usize, Plan)>, String> {
    let begun = records.iter().enumerate().find_map(|(i, r)| match &r.event {
        Event::Begun { plan } => Some((i, plan.clone())),
        _ => None,
    });
    let Some((at, plan)) = begun else { return Ok(None) };
    let plan =
        serde_json::from_value(plan).map_err(|e| format!("the session was begun by another version: {e}"))?;
    Ok(Some((at, plan)))
}

impl<'a> Past<'a> {
    /// The journal from where its plan stands.
    pub(crate) fn new(records: &'a [Record], (begun, plan): (usize, Plan)) -> Self {
        let check =
            |r: &Record| if let Event::Checked(check) = &r.event { Some(check.clone()) } else { None };
        let baseline = records[..begun].iter().rev().find_map(check);
        let events: Vec<&Event> = records[begun + 1..].iter().map(|r| &r.event).collect();
        let (mut dirty, mut saved, mut window) = (false, 0, plan.window);
        for event in &events {
            match event {
                Event::ToolStarted { effect, .. } => dirty |= effect != "read",
                Event::Checked(_) => dirty = false,
                Event::Window { tokens, .. } => window = Some(*tokens),
                Event::Refused { saved_tokens, .. } => saved += saved_tokens * 4,
                _ => {}
            }
        }
        Self { events, at: 0, plan, baseline, dirty, saved, window }
    }

    /// Messages and rewinds, as the machine logged them.
    pub(crate) fn said(&self) -> impl Iterator<Item = &'a Event> + '_ {
        self.events.iter().copied().filter(|e| matches!(e, Event::Message { .. } | Event::Rewound { .. }))
    }

    /// Whether there was a verification.
    pub(crate) fn checked(&self) -> bool {
        self.baseline.is_some() || self.events.iter().any(|e| matches!(e, Event::Checked(_)))
    }

    /// Edits of a turn that are on record as done.
    pub(crate) fn edits(&self, wanted: u32) -> usize {
        let edit = |e: &&&Event| matches!(e, Event::ToolFinished { turn, changed, status, .. } if *turn == wanted && !changed.is_empty() && status == "ok");
        self.events.iter().filter(edit).count()
    }

    /// What became of the next file that the machine itself wrote.
    pub(crate) fn written(&mut self, checked: bool) -> Own {
        let mut own = Own::Open;
        while let Some(event) = self.events.get(self.at) {
            match event {
                Event::Request { .. } => break,
                Event::ToolStarted { call: OWN_CALL, .. } if matches!(own, Own::Written) => break,
                Event::ToolFinished { call: OWN_CALL, .. } => own = Own::Written,
                Event::Checked(check) if matches!(own, Own::Written) => own = Own::Checked(check.clone()),
                _ => {}
            }
            self.at += 1;
            if matches!((&own, checked), (Own::Written, false) | (Own::Checked(_), _)) {
                break;
            }
        }
        own
    }

    /// The answer of this turn, with all that came of it; `None` when it is not on record.
    pub(crate) fn heard(&mut self, wanted: u32, tools: &Registry) -> Option<Heard> {
        let mut answer: Option<Answered> = None;
        let mut calls: Vec<ReadyCall> = Vec::new();
        let mut started: HashSet<u32> = HashSet::new();
        let mut finished: HashMap<u32, ()> = HashMap::new();
        let mut turn = Turn::default();
        let mut overflow = None;
        let mut over = false;
        while let Some(event) = self.events.get(self.at) {
            match event {
                Event::Request { turn: n, .. } if *n == wanted => {
                    // Sent again, or taken up again: what came before led to nothing.
                    (answer, turn, overflow) = (None, Turn::default(), None);
                    calls.clear();
                    started.clear();
                    finished.clear();
                }
                Event::Request { .. } | Event::ToolStarted { call: OWN_CALL, .. } => break,
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
                Event::Cut { turn: n, why, .. } if *n == wanted => turn.cut = Some(*why),
                Event::Output { turn: n, content, thinking, ended_by, block, doubts, counts }
                    if *n == wanted =>
                {
                    (turn.content, turn.thinking) = (content.clone(), thinking.clone());
                    (turn.ended_by, turn.block, turn.doubts) =
                        (Some(*ended_by), block.map(|at| at as usize), doubts.clone());
                    answer = Some(Answered {
                        turn: Turn::default(),
                        counts: *counts,
                        left: Vec::new(),
                        calls: Vec::new(),
                        last: false,
                    });
                }
                Event::ToolStarted { turn: n, call, .. } if *n == wanted => {
                    started.insert(*call);
                }
                Event::ToolFinished { turn: n, call, tool, status, text, changed, facts, .. }
                    if *n == wanted =>
                {
                    let outcome = Outcome {
                        status: status_of(status),
                        text: text.clone(),
                        changed: changed.clone(),
                        facts: facts.clone(),
                    };
                    let arguments =
                        calls.iter().find(|c| c.call == *call).map_or(Value::Null, |c| c.arguments.clone());
                    let spec = spec_of(tools, tool);
                    turn.results.push(CallResult { spec, arguments, outcome });
                    finished.insert(*call, ());
                }
                Event::Window { turn: n, tokens } if *n == wanted => turn.window = Some(*tokens),
                Event::Checked(check) if answer.is_some() => turn.check = Some(check.clone()),
                // The machine has spoken about it: nothing of it was left to do.
                Event::Message { .. } | Event::Rewound { .. } if answer.is_some() => {
                    over = true;
                    break;
                }
                _ => {}
            }
            self.at += 1;
        }
        if let (Some(window), None) = (overflow, &answer) {
            return Some(Heard::Overflow(window));
        }
        let mut answer = answer?;
        answer.turn = turn;
        answer.calls = calls.iter().map(|c| (c.spec.name.clone(), (c.span.1 - c.span.0) as usize)).collect();
        let left = calls.into_iter().filter(|c| !finished.contains_key(&c.call));
        answer.left = left.map(|c| (started.contains(&c.call), c)).map(|(begun, c)| (c, begun)).collect();
        answer.last = !over && self.at == self.events.len();
        Some(Heard::Answer(Box::new(answer)))
    }
}

fn status_of(name: &str) -> Status {
    match name {
        "ok" => Status::Ok,
        "failed" => Status::Failed,
        _ => Status::Refused,
    }
}
