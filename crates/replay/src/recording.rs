//! Extracts what a replay needs from a journal: the start of the run, the model's answers, the
//! results of tools and verifications, and the steps that must match.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use journal::{
    Budget, Check, Counts, EndedBy, Ending, Event, ExternalTool, ModelInfo, ModelRole, Record, Report, Step,
    Trace,
};
use models::price::Peak;
use models::replay::{Replay, Turn, TurnEnd};
use models::{Identity, Image, Price, Usage};
use planner::Approach;
use serde_json::Value;
use tool_api::{Outcome, Status};

use crate::{Error, Result};

/// A session, ready to be replayed.
#[derive(Debug)]
pub struct Recording {
    /// The session's id.
    pub id: String,
    /// The id that the session derives its placeholders for secrets from ([`journal::origin`]).
    pub origin: String,
    /// The version of the agent that recorded it.
    pub version: String,
    /// The task as the model saw it.
    pub task: String,
    /// The images of the task, without their content.
    pub images: Vec<Arc<Image>>,
    /// The root of the repository.
    pub root: PathBuf,
    /// The JSON Schema that the model's result had to conform to.
    pub output_schema: Option<Value>,
    /// The recorded model.
    pub identity: Identity,
    /// The planner's recorded plan.
    pub plan: Value,
    /// Every change to another model, in order.
    pub(crate) changes: Vec<ModelChange>,
    /// The answer to each request; `None` if it was not recorded.
    pub(crate) answers: Vec<Option<Turn>>,
    /// The context windows that turned out to differ from the assumed one, keyed by the turn after
    /// which they were detected.
    pub(crate) windows: HashMap<u32, u64>,
    pub(crate) results: Vec<CallResult>,
    pub(crate) checks: Vec<Checked>,
    /// For each revert, its number in the session's records and its number in the history of the
    /// tree.
    pub(crate) reverts: Vec<(u64, Option<u64>)>,
    /// The number of lines that each try changed.
    pub(crate) tries: Vec<u64>,
    /// The names of the tools that ran commands.
    pub(crate) commands: HashSet<String>,
    /// The tools from other programs, as listed in the prompt.
    pub external: Vec<ExternalTool>,
    /// The steps that must match.
    pub(crate) steps: Vec<Step>,
    /// Whether the run may have ended for a reason that a replay does not repeat, such as an
    /// interruption or a time limit. If so, a replay may take more steps than the run.
    pub(crate) open: bool,
    /// Whether more than one process worked on the session.
    pub resumed: bool,
    /// Whether the session changed anything.
    pub changed: bool,
    /// Whether the session ended with no tool running, which means that the tree matches the
    /// record.
    pub whole: bool,
}

/// A change to another model.
#[derive(Debug)]
pub(crate) struct ModelChange {
    pub(crate) role: Option<ModelRole>,
    pub(crate) identity: Identity,
    /// The plan, if the model started a new try.
    pub(crate) plan: Option<Value>,
}

/// The result of a call.
#[derive(Debug)]
pub(crate) struct CallResult {
    /// The number of its record.
    pub(crate) seq: u64,
    pub(crate) turn: u32,
    pub(crate) tool: String,
    /// `None` for a file write by the planner itself.
    pub(crate) arguments: Option<Value>,
    pub(crate) outcome: Outcome,
}

/// The result of a verification.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The number of its record.
    pub(crate) seq: u64,
    pub(crate) check: Check,
}

impl Recording {
    /// Reads a session's records.
    ///
    /// # Errors
    /// If the first event is missing, or the session ended before its first turn.
    pub fn of(records: Vec<Record>) -> Result<Self> {
        let resumed = records.iter().any(|r| matches!(r.event, Event::Resumed { .. }));
        let records = journal::uninterrupted(records);
        let Some(Event::Session { id, version, task, root, output_schema, images, .. }) =
            records.first().map(|r| &r.event)
        else {
            return Err(Error::unusable("not a session: the first event is missing"));
        };
        let plan =
            |r: &Record| if let Event::RunStarted { plan } = &r.event { Some(plan.clone()) } else { None };
        let plan = records.iter().find_map(plan);
        let plan = plan
            .ok_or_else(|| Error::unusable("nothing to replay: the session ended before its first turn"))?;
        let mut trace = Trace::default();
        records.iter().for_each(|r| trace.push(r));
        let mut steps = trace.finish();
        let ending = records.iter().rev().find_map(|r| match &r.event {
            Event::Finished(report) => Some(&report.ending),
            _ => None,
        });
        let changed = !matches!(ending, Some(Ending::NoChange | Ending::Answered));
        let open = match ending {
            Some(
                Ending::Verified | Ending::Answered | Ending::Unverified | Ending::NoChange | Ending::GaveUp,
            ) => false,
            Some(Ending::Budget { budget: Budget::Turns | Budget::Tokens }) => resumed,
            _ => true,
        };
        if open {
            steps.retain(|s| !matches!(s.event, Event::Finished(_)));
        }
        let (results, checks) = results(&records);
        let answers = answers(&records);
        let changes = records.iter().filter_map(model_change).collect();
        Ok(Self {
            changes,
            id: id.clone(),
            images: images.iter().map(|name| Arc::new(Image::recorded(name))).collect(),
            origin: journal::origin(&records).unwrap_or_default().to_owned(),
            version: version.clone(),
            task: task.clone(),
            root: root.into(),
            output_schema: output_schema.clone(),
            identity: identity(&records, &plan),
            whole: ending.is_some() && all_finished(&records),
            plan,
            answers,
            windows: windows(&records),
            results,
            checks,
            reverts: reverts(&records),
            tries: records.iter().filter_map(try_lines).collect(),
            external: journal::external_tools(&records).to_vec(),
            commands: records.iter().filter_map(|r| command_tool(&r.event)).collect(),
            steps,
            open,
            resumed,
            changed,
        })
    }

    /// Whether the run stopped, as requested, before its first command.
    pub fn plan_only(&self) -> bool {
        self.plan["settings"]["plan_only"] == true
    }

    /// Whether the task was a question.
    pub fn question(&self) -> bool {
        self.plan["settings"]["question"] == true
    }

    /// Whether another model makes the final try (`--escalate`).
    pub fn escalates(&self) -> bool {
        self.plan["settings"]["escalates"] == true
    }

    /// Whether a fallback model was used.
    pub fn falls_back(&self) -> bool {
        self.changes.iter().any(|change| change.role == Some(ModelRole::Fallback))
    }

    /// Returns the plan of the run, and the plan of each model that started a new try.
    pub fn plans(&self) -> Vec<Value> {
        let later = self.changes.iter().filter_map(|change| change.plan.clone());
        std::iter::once(self.plan.clone()).chain(later).collect()
    }
}

fn model_change(record: &Record) -> Option<ModelChange> {
    let Event::ModelChanged { model, plan, new_try, .. } = &record.event else { return None };
    let (identity, plan) = (identity_of(model, plan), new_try.then(|| plan.clone()));
    Some(ModelChange { role: model.role, identity, plan })
}

/// Returns the identity of the model that started the run. A resumed run may have continued with
/// another model.
fn identity(records: &[Record], plan: &Value) -> Identity {
    let model = records.iter().find_map(|r| if let Event::Model(m) = &r.event { Some(m) } else { None });
    model.map_or_else(|| Replay::identity_named("recorded"), |model| identity_of(model, plan))
}

fn identity_of(m: &ModelInfo, plan: &Value) -> Identity {
    let mut identity = Replay::identity_named("recorded");
    identity.prefers_whole_files = m.approach == Approach::WholeFile.name() || plan["plain"] == true;
    identity.local = m.local.unwrap_or(true);
    (identity.server, identity.server_version) = (m.server.clone(), m.server_version.clone());
    (identity.model, identity.window, identity.thinking) = (m.model.clone(), m.window, m.thinking);
    (identity.family, identity.parameters_b) = (m.family.clone(), m.parameters_b);
    // The peak hours are not recorded, so no request in a replay is charged the peak price. The
    // cost does not matter, because a replay has no cost limit.
    identity.price = m.price.map(|rates| Price {
        peak: m.peak_factor.map(|factor| Peak { factor, ..Peak::default() }),
        as_of: m.prices_of,
        ..Price::from(rates)
    });
    identity.edit_format = m.edit_format.clone();
    identity.temperature = plan["settings"]["temperature"].as_f64().unwrap_or_default() as f32;
    (identity.can_constrain, identity.constrained) = (m.constrained, m.constrained);
    identity.branches = plan["branches"] == true;
    // Sessions recorded by earlier versions use the old name `send_thinking`.
    identity.repeats_thinking = plan["repeats_thinking"] == true || plan["send_thinking"] == true;
    identity
}

fn windows(records: &[Record]) -> HashMap<u32, u64> {
    let found =
        |r: &Record| if let Event::Window { turn, tokens } = r.event { Some((turn, tokens)) } else { None };
    records.iter().filter_map(found).collect()
}

/// For each request, returns its answer or the failure that occurred instead, or `None` if neither
/// was recorded.
fn answers(records: &[Record]) -> Vec<Option<Turn>> {
    let mut answers: Vec<Option<Turn>> = Vec::new();
    let (mut cut, mut warning, mut overflow, mut lost) = (false, "", None, Usage::default());
    for record in records {
        let turn = match &record.event {
            Event::Request { .. } => {
                answers.push(None);
                (cut, warning, overflow, lost) = (false, "", None, Usage::default());
                None
            }
            Event::AnswerLost { counts, .. } => {
                lost = usage(counts);
                None
            }
            Event::Cut { .. } => {
                cut = true;
                None
            }
            Event::Warning { message } => {
                warning = message;
                let end = overflow.map(|window| TurnEnd::Overflow { message: message.clone(), window });
                end.map(|end| Turn { end, ..Turn::default() })
            }
            Event::Overflow { window, .. } => {
                overflow = Some(*window);
                None
            }
            Event::Retry { error, .. } => {
                Some(Turn { end: TurnEnd::Failed(error.clone()), usage: lost, ..Turn::default() })
            }
            Event::ModelChanged { why, new_try: false, .. } => {
                Some(Turn { end: TurnEnd::Settings(why.clone()), usage: lost, ..Turn::default() })
            }
            Event::Finished(Report { ending: Ending::Unavailable, message, .. }) => {
                Some(Turn { end: TurnEnd::Refused(message.clone()), usage: lost, ..Turn::default() })
            }
            Event::Finished(Report { ending: Ending::Refused, message, .. }) => {
                Some(Turn { end: TurnEnd::Settings(message.clone()), ..Turn::default() })
            }
            output => answer(output, cut, warning),
        };
        if let Some(last @ None) = answers.last_mut() {
            *last = turn;
        }
    }
    answers
}

/// Converts an answer to a turn of a replay. `cut` indicates whether the agent cut the answer
/// short. If it did not, but the answer is recorded as cut, the stream was interrupted after a
/// call, and `warning` contains the reason.
pub fn answer(output: &Event, cut: bool, warning: &str) -> Option<Turn> {
    let Event::Output { content, thinking, ended_by, doubts, counts, .. } = output else { return None };
    // Sessions recorded by earlier versions say "going on" instead of "continuing".
    let error = warning.split("; continuing with").next().unwrap_or_default();
    let error = error.split("; going on with").next().unwrap_or_default();
    Some(Turn {
        content: content.clone(),
        thinking: Some(thinking.clone()).filter(|t| !t.is_empty()),
        end: match ended_by {
            EndedBy::Stop => TurnEnd::Stop,
            EndedBy::Length => TurnEnd::Length,
            EndedBy::Cut if cut => TurnEnd::Cut,
            EndedBy::Cut => TurnEnd::Failed(error.to_owned()),
        },
        doubts: doubts
            .iter()
            .map(|d| (d.at as usize, d.chosen.clone(), d.other.clone(), d.logprob))
            .collect(),
        usage: usage(counts),
        messages: None,
    })
}

fn usage(counts: &Counts) -> Usage {
    let cached = counts.prompt_tokens.zip(counts.evaluated_tokens);
    Usage {
        prompt_tokens: counts.prompt_tokens,
        cached_tokens: cached.map(|(all, new)| all.saturating_sub(new)),
        generated_tokens: counts.generated_tokens,
        ..Usage::default()
    }
}

fn results(records: &[Record]) -> (Vec<CallResult>, Vec<Checked>) {
    let (mut results, mut checks) = (Vec::new(), Vec::new());
    let mut calls: Vec<(u32, u32, Value)> = Vec::new();
    for record in records {
        match &record.event {
            Event::Call { turn, call, arguments, .. } => calls.push((*turn, *call, arguments.clone())),
            Event::Checked(check) => checks.push(Checked { seq: record.seq, check: check.clone() }),
            Event::ToolFinished { turn, call, tool, status, text, changed, facts, .. } => {
                let arguments =
                    calls.iter().rev().find(|(t, c, _)| (t, c) == (turn, call)).map(|(.., a)| a.clone());
                let status = serde_json::from_value(status.as_str().into()).unwrap_or(Status::Refused);
                let outcome =
                    Outcome { status, text: text.clone(), changed: changed.clone(), facts: facts.clone() };
                let (seq, turn, tool) = (record.seq, *turn, tool.clone());
                results.push(CallResult { seq, turn, tool, arguments, outcome });
            }
            _ => {}
        }
    }
    (results, checks)
}

fn try_lines(record: &Record) -> Option<u64> {
    if let Event::TryEnded { lines, .. } = record.event { Some(lines) } else { None }
}

/// Returns the reverts that a replay repeats: those after tries, and the one at the end of a
/// stopped run. Reverts from earlier stops are left out, because the resumed run undid them.
fn reverts(records: &[Record]) -> Vec<(u64, Option<u64>)> {
    let (mut reverts, mut ended, mut stopped) = (Vec::new(), false, None);
    for Record { seq, event, .. } in records {
        match event {
            Event::TryEnded { .. } => (ended, stopped) = (true, None),
            Event::Reverted { record, .. } if std::mem::take(&mut ended) => reverts.push((*seq, *record)),
            Event::Reverted { record, .. } => stopped = Some((*seq, *record)),
            // The run continued after this revert, so the revert is not the one at the end of a
            // stopped run.
            Event::Request { .. } | Event::ToolStarted { .. } | Event::CheckStarted { .. } => stopped = None,
            _ => {}
        }
    }
    reverts.extend(stopped);
    reverts
}

/// Returns the tool that an event starts, if the tool runs a command.
pub(crate) fn command_tool(event: &Event) -> Option<String> {
    match event {
        Event::ToolStarted { tool, effect, .. } if effect == "execute" => Some(tool.clone()),
        _ => None,
    }
}

/// Whether all verifications and calls that were started have finished, ignoring calls that only
/// read.
fn all_finished(records: &[Record]) -> bool {
    let mut running = false;
    for record in records {
        match &record.event {
            Event::ToolStarted { effect, .. } => running |= effect != "read",
            Event::CheckStarted { .. } => running = true,
            Event::ToolFinished { .. } | Event::Checked(_) => running = false,
            _ => {}
        }
    }
    !running
}
