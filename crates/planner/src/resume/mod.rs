//! Resuming a run from its journal, after a crash, a kill, a signal, or when the user has more to
//! say.
//!
//! The machine is pure, so it is fed again what is on record: answers, results, checks, messages of
//! the user. Nothing is asked or run again. The conversation comes out word for word as it was; if
//! it does not, another version wrote the journal and the run is refused. What the end of the
//! journal leaves open is completed: the calls of a recorded answer are carried out, and a request
//! without an answer is sent again.

mod history;

use std::sync::Arc;

use journal::{Event, Record};
use tool_api::{Effect, Outcome};

use crate::Job;
use crate::acting::{Acted, Acting, note_change};
use crate::driver::{Driver, Stop, machine, refused};
use crate::effects::noted;
use crate::machine::{Input, Machine, Step, Turn, Why};
pub(crate) use history::OWN_CALL;
use history::{History, OwnWrite, Recorded, RecordedAnswer};

impl Driver<'_> {
    /// Rebuilds the machine from the journal, and completes what the end of it leaves open. A run
    /// that had not begun begins.
    pub(crate) async fn restore(&mut self, job: Job, past: &[Record]) -> Result<(Machine, Step), Stop> {
        self.let_wait(history::waiting(past));
        let Some(mut history) = History::new(past).map_err(refused)? else {
            return self.begin(job, None).await;
        };
        let mut plan = history.plan.clone();
        self.window = history.window;
        plan.settings.limits = job.settings.limits;
        let mut machine = machine(plan, history.baseline.clone())?;
        self.dirty = history.dirty;
        self.checked = history.checked();
        let mut step = machine.open();
        let step = loop {
            if !matches!(step, Step::Write { .. })
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
                    Some(Recorded::Answer(recorded)) => {
                        self.next_turn();
                        self.learn(&mut machine, &recorded);
                        if recorded.last {
                            drop_recorded(&mut machine, &history)?;
                            self.write_down(&mut machine)?;
                            let turn = self.complete(*recorded, &history).await?;
                            let step = machine.next(Input::Answered(turn));
                            return Ok((machine, step));
                        }
                        machine.next(Input::Answered(recorded.turn))
                    }
                },
                Step::Write { focus, why } => {
                    let check = match history.own_write(why == Why::Try) {
                        OwnWrite::Missing => {
                            self.roll_back(history.edits(self.turn)).await?;
                            break Step::Write { focus, why };
                        }
                        OwnWrite::Checked(check) => Some(check),
                        OwnWrite::Written if why == Why::Try => {
                            drop_recorded(&mut machine, &history)?;
                            self.write_down(&mut machine)?;
                            let check = Some(self.check().await?);
                            let step = machine.next(Input::Written { content: focus.content, check });
                            return Ok((machine, step));
                        }
                        OwnWrite::Written => None,
                    };
                    machine.next(Input::Written { content: focus.content, check })
                }
                end @ Step::Finish(..) => break end,
            }
        };
        drop_recorded(&mut machine, &history)?;
        Ok((machine, step))
    }

    /// Learns from a recorded answer what a live run learns from one: the length of calls, and how
    /// many tokens a prompt has.
    fn learn(&mut self, machine: &mut Machine, recorded: &RecordedAnswer) {
        for (tool, size) in &recorded.calls {
            let seen = self.like_calls.entry(tool.clone()).or_default();
            *seen = (seen.0 + size, seen.1 + 1);
        }
        if let Some(counted) = recorded.counts.prompt_tokens {
            machine.estimator.learn(&machine.messages, counted);
        }
    }

    /// Carries out the calls of a recorded answer that have no recorded result.
    async fn complete(&mut self, recorded: RecordedAnswer, history: &History<'_>) -> Result<Turn, Stop> {
        let mut turn = recorded.turn;
        if recorded.left.iter().any(|(call, begun)| *begun && call.spec.effect == Effect::Write) {
            // The edit may have been made without a record of it. Rolled back and made again, it is
            // made once.
            self.roll_back(history.edits(self.turn)).await?;
        }
        let mut acting = Acting::new(Arc::clone(&self.tools));
        for (call, begun) in recorded.left {
            if begun && call.spec.effect == Effect::Execute && !call.spec.repeatable {
                let text =
                    "interrupted: the agent was stopped while this ran; what it had done by then stands";
                let mut outcome = Outcome::failed(text);
                note_change(&mut outcome); // it may have
                let acted = Acted { call, result: Ok(outcome), ms: 0 };
                self.acted(acted, &mut turn).await?;
            } else {
                acting.queue(call);
            }
        }
        self.carry_out(&mut acting, &mut turn).await?;
        if turn.check.is_none() {
            self.after_calls(&mut turn).await?;
        }
        Ok(turn)
    }

    /// Rolls back edits of this turn that have no recorded result.
    async fn roll_back(&mut self, done: usize) -> Result<(), Stop> {
        self.remembered().await?;
        let (repository, turn) = (Arc::clone(&self.repository), self.turn);
        noted(tokio::task::spawn_blocking(move || repository.roll_back(turn, done)).await)
    }
}

/// Drops from the machine's log what the journal has already. It has to be the same.
fn drop_recorded(machine: &mut Machine, history: &History<'_>) -> Result<(), Stop> {
    let is_message = |event: &Event| matches!(event, Event::Message { .. } | Event::Rewound { .. });
    let mut log = std::mem::take(&mut machine.log).into_iter();
    for (i, recorded) in history.messages().enumerate() {
        match log.by_ref().find(is_message) {
            Some(event) if event == *recorded => {}
            _ => {
                let message = format!(
                    "cannot resume the session: with this version of the agent, message {} of its conversation would be different",
                    i + 1
                );
                return Err(refused(message));
            }
        }
    }
    machine.log = log.collect();
    Ok(())
}
