//! Resumes a run from its journal, after a crash, a kill or a signal, or when the user adds a
//! message.
//!
//! The machine is pure, so it is rebuilt by feeding it the recorded answers, results, checks and
//! messages of the user. Completed requests and calls are not repeated. The rebuilt conversation
//! must equal the recorded one word for word. If it does not, another version wrote the journal,
//! and the run is refused. Then the end of the journal is completed: unfinished calls of a recorded
//! answer run, and a request without an answer is sent again.

mod history;

use std::sync::Arc;

use journal::{Event, Record};
use tool_api::{Effect, Outcome};

use crate::Job;
use crate::calls::{CallQueue, FinishedCall, note_change};
use crate::driver::{Driver, Stop, machine, refused};
use crate::effects::not_recorded;
use crate::machine::{Input, Machine, Step, Turn, WriteReason};
pub(crate) use history::OWN_CALL;
use history::{History, OwnWrite, Recorded, RecordedAnswer};

impl Driver<'_> {
    /// Rebuilds the machine from the journal and completes the last turn. If the run never started,
    /// starts it.
    pub(crate) async fn restore(&mut self, job: Job, past: &[Record]) -> Result<(Machine, Step), Stop> {
        self.queue_messages(history::pending_messages(past));
        let Some(mut history) = History::new(past).map_err(refused)? else {
            return self.begin(job).await;
        };
        let mut plan = history.plan.clone();
        self.window = history.window;
        plan.settings.limits = job.settings.limits;
        if job.settings.escalates && !plan.settings.escalates {
            let message = "the run cannot escalate, because it was started without --escalate";
            self.journal.append(Event::Warning { message: message.into() })?;
        }
        let mut machine = machine(plan, history.baseline.clone())?;
        self.start = history.start;
        let restored = match history.left() {
            Some(record) => self.revert_from(Some(record)).await?,
            None => None,
        };
        self.dirty = history.dirty;
        self.checked = history.checked();
        let mut step = machine.open();
        let step = loop {
            if !matches!(step, Step::Write { .. } | Step::Revert(_) | Step::Escalate)
                && let Some(text) = history.user_message()
            {
                step = machine.next(Input::UserMessage(text));
                continue;
            }
            step = match step {
                Step::Ask(ask) => match history.answer(self.turn + 1, &self.tools) {
                    None => break Step::Ask(ask),
                    Some(Recorded::Overflow(window)) => {
                        self.next_turn();
                        machine.next(Input::Overflow { window })
                    }
                    Some(Recorded::ModelChanged) => match history.model_changed().map_err(refused)? {
                        None => break Step::Ask(ask),
                        Some(change) => machine.next(change),
                    },
                    Some(Recorded::Answer(recorded)) => {
                        self.next_turn();
                        self.learn(&mut machine, &recorded);
                        if recorded.last {
                            drop_recorded(&mut machine, &history)?;
                            self.journal_log(&mut machine)?;
                            let turn = self.complete(*recorded, &history).await?;
                            let step = machine.next(Input::Answered(turn));
                            return Ok((machine, step));
                        }
                        machine.next(Input::Answered(recorded.turn))
                    }
                },
                Step::Write { focus, why } => {
                    let check = match history.own_write(why == WriteReason::Try) {
                        OwnWrite::Missing => {
                            self.roll_back(history.edits(self.turn)).await?;
                            break Step::Write { focus, why };
                        }
                        OwnWrite::Checked(check) => Some(check),
                        OwnWrite::Refused if why != WriteReason::Restore => {
                            step = machine.next(Input::Refused);
                            continue;
                        }
                        OwnWrite::Refused => None,
                        OwnWrite::Written if why == WriteReason::Try => {
                            drop_recorded(&mut machine, &history)?;
                            self.journal_log(&mut machine)?;
                            self.candidate = restored;
                            let check = Some(self.check_candidate().await?);
                            let step = machine.next(Input::Written { file: focus, check });
                            return Ok((machine, step));
                        }
                        OwnWrite::Written => None,
                    };
                    machine.next(Input::Written { file: focus, check })
                }
                Step::EndTry => match history.try_ended() {
                    None => break Step::EndTry,
                    Some(lines) => machine.next(Input::TryEnded { lines }),
                },
                Step::Revert(from) => match history.reverted() {
                    None => break Step::Revert(from),
                    Some(record) => machine.next(Input::Reverted { record }),
                },
                Step::Escalate => match history.model_changed().map_err(refused)? {
                    None => break Step::Escalate,
                    Some(change) => machine.next(change),
                },
                end @ Step::Finish(..) => break end,
            }
        };
        drop_recorded(&mut machine, &history)?;
        Ok((machine, step))
    }

    /// Learns what a live run learns from an answer: the length of calls and the tokens of the
    /// prompt.
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
    async fn complete(&mut self, recorded: RecordedAnswer, history: &History<'_>) -> Result<Turn, Stop> {
        let mut turn = recorded.turn;
        if recorded.unfinished.iter().any(|(started, call)| *started && call.spec.effect == Effect::Write) {
            // The edit may have happened without a record. Roll it back, so that it happens once.
            self.roll_back(history.edits(self.turn)).await?;
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

    /// Rolls back the edits of this turn that have no recorded result: all after the first `done`.
    async fn roll_back(&mut self, done: usize) -> Result<(), Stop> {
        self.await_snapshot().await?;
        let turn = self.turn;
        self.on_tree(move |tree| tree.roll_back(turn, done)).await.map_err(not_recorded)
    }
}

/// Drops from the machine's log what the journal already has. The recorded messages and rewinds
/// must equal the machine's.
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
