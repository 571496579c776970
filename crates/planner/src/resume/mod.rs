//! Resumes a run from its journal, after a crash, a kill or a signal, or when the user adds a
//! message.
//!
//! The machine is pure, so it is rebuilt by feeding it the recorded answers, results, checks and
//! user messages. Completed requests and calls are not repeated. The rebuilt conversation must
//! match the recorded one word for word. If it does not, the journal was written by another version
//! of the agent, and the agent refuses to resume the run. After the rebuild, the driver completes
//! the work that was in progress when the journal ended: it runs the unfinished calls of a recorded
//! answer, or resends an unanswered request.

mod history;

use std::sync::Arc;

use journal::{Event, Record};
use tool_api::{Effect, Outcome};

use crate::Job;
use crate::blocks::Focus;
use crate::calls::{CallQueue, FinishedCall, note_change};
use crate::driver::{Driver, Stop, machine, refused};
use crate::effects::not_recorded;
use crate::machine::{Input, Machine, Step, Turn, WriteReason};
pub(crate) use history::OWN_CALL;
use history::{History, OwnWrite, Recorded, RecordedAnswer};

/// The work that was in progress when the journal ended.
pub(crate) struct Unfinished {
    work: Work,
    /// The record that reverted changes because the run was stopped. Reverting it restores those
    /// changes.
    left: Option<u64>,
    /// The number of recorded edits in the current turn.
    edits: usize,
    /// If a candidate has not been verified yet, the number of edits in the current turn that were
    /// made before it.
    before_candidate: Option<usize>,
}

enum Work {
    /// The machine's next step, which has had no effect yet.
    Step(Step),
    /// A file write by the machine. It may have happened without being recorded.
    Write { focus: Focus, why: WriteReason },
    /// The verification of a candidate. The field is the candidate's last file.
    Check(Focus),
    /// The unfinished calls of a recorded answer, and the verification after them.
    Calls(Box<RecordedAnswer>),
}

/// The start of a run: nothing was in progress.
impl From<Step> for Unfinished {
    fn from(step: Step) -> Self {
        Self { work: Work::Step(step), left: None, edits: 0, before_candidate: None }
    }
}

impl Driver<'_> {
    /// Rebuilds the machine from the journal. If the run never started, starts it. Rebuilding does
    /// not change the tree, so the run can still be refused afterwards.
    pub(crate) async fn restore(&mut self, job: Job, past: &[Record]) -> Result<(Machine, Unfinished), Stop> {
        self.queue_messages(history::pending_messages(past));
        let Some(mut history) = History::new(past).map_err(refused)? else {
            let (machine, step) = self.begin(job).await?;
            return Ok((machine, Unfinished::from(step)));
        };
        let mut plan = history.plan.clone();
        self.window = history.window;
        plan.settings.limits = job.settings.limits;
        if job.settings.escalates && !plan.settings.escalates {
            let message = "the run cannot escalate, because it was started without --escalate";
            self.journal.append(Event::Warning { message: message.into() })?;
        }
        let mut machine = machine(plan, history.baseline.clone(), &self.images)?;
        self.start = history.start;
        self.dirty = history.dirty;
        self.checked = history.checked();
        let (work, before_candidate) = self.rebuild(&mut machine, &mut history)?;
        drop_recorded(&mut machine, &history)?;
        // A model whose server is unavailable (`Absent`) has no name.
        if !self.identity.model.is_empty() {
            self.check_images(&self.identity).map_err(refused)?;
        }
        self.record_other_model(&job, machine.plan(), past)?;
        let left = match history.left() {
            Some(record) => Some(record),
            // The machine's next step is a revert, which may have happened without being recorded.
            // If so, repeating it changes nothing.
            None if matches!(work, Work::Step(Step::Revert(_))) => None,
            None => {
                let last = self.on_tree(|tree| tree.last_revert()).await.map_err(refused)?;
                last.filter(|record| !history.names_revert(*record))
            }
        };
        let edits = history.edits(self.turn);
        Ok((machine, Unfinished { work, left, edits, before_candidate }))
    }

    /// Feeds the journal to the machine. Returns the work whose outcome is not in the journal. If
    /// the work is part of a candidate, also returns the number of edits made in the turn before
    /// that candidate.
    fn rebuild(
        &mut self,
        machine: &mut Machine,
        history: &mut History<'_>,
    ) -> Result<(Work, Option<usize>), Stop> {
        let mut before_candidate = None;
        let mut step = machine.open();
        let work = loop {
            if !matches!(step, Step::Write { .. } | Step::Revert(_) | Step::Escalate)
                && let Some(text) = history.user_message()
            {
                step = machine.next(Input::UserMessage(text));
                continue;
            }
            step = match step {
                Step::Ask(ask) => match history.answer(self.turn + 1, &self.tools) {
                    None => break Work::Step(Step::Ask(ask)),
                    Some(Recorded::Overflow(window)) => {
                        self.next_turn();
                        machine.next(Input::Overflow { window })
                    }
                    Some(Recorded::ModelChanged) => match history.model_changed().map_err(refused)? {
                        None => break Work::Step(Step::Ask(ask)),
                        Some(change) => machine.next(change),
                    },
                    Some(Recorded::Answer(recorded)) => {
                        self.next_turn();
                        self.learn(machine, &recorded);
                        if recorded.last {
                            break Work::Calls(recorded);
                        }
                        machine.next(Input::Answered(recorded.turn))
                    }
                },
                Step::Write { focus, why } => {
                    let before = before_candidate.take().unwrap_or(history.edits_so_far(self.turn));
                    let own = history.own_write(why == WriteReason::Try);
                    if why != WriteReason::Restore && matches!(own, OwnWrite::Missing | OwnWrite::Written) {
                        before_candidate = Some(before);
                    }
                    match own {
                        OwnWrite::Missing => break Work::Write { focus, why },
                        OwnWrite::Checked(check) => {
                            machine.next(Input::Written { file: focus, check: Some(check) })
                        }
                        OwnWrite::Refused if why != WriteReason::Restore => machine.next(Input::Refused),
                        OwnWrite::Written if why == WriteReason::Try => break Work::Check(focus),
                        OwnWrite::Refused | OwnWrite::Written => {
                            machine.next(Input::Written { file: focus, check: None })
                        }
                    }
                }
                Step::EndTry => match history.try_ended() {
                    None => break Work::Step(Step::EndTry),
                    Some(lines) => machine.next(Input::TryEnded { lines }),
                },
                Step::Revert(from) => match history.reverted() {
                    None => break Work::Step(Step::Revert(from)),
                    Some(record) => machine.next(Input::Reverted { record }),
                },
                Step::Escalate => match history.model_changed().map_err(refused)? {
                    None => break Work::Step(Step::Escalate),
                    Some(change) => machine.next(change),
                },
                end @ Step::Finish(..) => break Work::Step(end),
            }
        };
        Ok((work, before_candidate))
    }

    /// Restores the changes that were reverted when the run stopped, and completes the work that
    /// was in progress. Returns the machine's next step.
    pub(crate) async fn complete(
        &mut self,
        machine: &mut Machine,
        unfinished: Unfinished,
    ) -> Result<Step, Stop> {
        let Unfinished { work, left, edits, before_candidate } = unfinished;
        self.unsettled = left.is_some() || !matches!(work, Work::Step(_));
        if let Some(before) = before_candidate {
            let turn = self.turn;
            self.candidate = self.on_tree(move |tree| tree.edit(turn, before)).await.map_err(refused)?;
        }
        if left.is_some() {
            let dirty = self.dirty;
            self.revert_from(left).await?;
            self.dirty = dirty; // the tree is back to how it was before the stop
        }
        Ok(match work {
            Work::Step(step) => step,
            Work::Write { focus, why } => {
                self.roll_back(edits).await?;
                Step::Write { focus, why }
            }
            Work::Check(file) => {
                self.journal_log(machine)?;
                let check = Some(self.check_candidate().await?);
                machine.next(Input::Written { file, check })
            }
            Work::Calls(recorded) => {
                self.journal_log(machine)?;
                let turn = self.complete_calls(*recorded, edits).await?;
                machine.next(Input::Answered(turn))
            }
        })
    }

    /// Learns from a recorded answer what a live run would learn from it: the size of each call and
    /// the number of prompt tokens.
    fn learn(&mut self, machine: &mut Machine, recorded: &RecordedAnswer) {
        for (tool, size) in &recorded.calls {
            let seen = self.call_sizes.entry(tool.clone()).or_default();
            *seen = (seen.0 + size, seen.1 + 1);
        }
        if let Some(counted) = recorded.counts.prompt_tokens {
            machine.estimator.learn(&machine.messages, counted);
        }
    }

    /// Runs the calls of a recorded answer that have no recorded result.
    async fn complete_calls(&mut self, recorded: RecordedAnswer, edits: usize) -> Result<Turn, Stop> {
        let mut turn = recorded.turn;
        if recorded.unfinished.iter().any(|(started, call)| *started && call.spec.effect == Effect::Write) {
            // The edit may have happened without being recorded. Roll it back so that it is not
            // applied twice.
            self.roll_back(edits).await?;
        }
        let mut calls = CallQueue::new(Arc::clone(&self.tools));
        for (started, call) in recorded.unfinished {
            if started && call.spec.effect == Effect::Execute && !call.spec.repeatable {
                let text = "interrupted: the agent was stopped while this ran; its changes up to then remain";
                let mut outcome = Outcome::failed(text);
                note_change(&mut outcome); // it may have changed files
                let finished = FinishedCall { call, result: Ok(outcome), ms: 0 };
                self.record_result(finished, &mut turn).await?;
            } else {
                calls.queue(call);
            }
        }
        self.run_queued_calls(&mut calls, &mut turn).await?;
        if turn.check.is_none() {
            self.after_calls(&mut turn).await?;
        }
        Ok(turn)
    }

    /// Rolls back the edits of this turn that have no recorded result: all but the first `done`.
    async fn roll_back(&mut self, done: usize) -> Result<(), Stop> {
        self.await_snapshot().await?;
        let turn = self.turn;
        self.on_tree(move |tree| tree.roll_back(turn, done)).await.map_err(not_recorded)
    }
}

/// Removes from the machine's log the events that are already in the journal. The recorded messages
/// and rewinds must match the machine's.
fn drop_recorded(machine: &mut Machine, history: &History<'_>) -> Result<(), Stop> {
    let is_message = |event: &Event| matches!(event, Event::Message { .. } | Event::Rewound { .. });
    let mut log = std::mem::take(&mut machine.log).into_iter();
    for (i, recorded) in history.messages().enumerate() {
        match log.by_ref().find(is_message) {
            Some(event) if event == *recorded => {}
            _ => {
                let message = format!(
                    "cannot resume the session: this version of the agent writes message {} of its conversation differently",
                    i + 1
                );
                return Err(refused(message));
            }
        }
    }
    machine.log = log.collect();
    Ok(())
}
