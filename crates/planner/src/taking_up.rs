//! The driver's part of taking up a run: leads a machine through its [past](crate::resume), and finishes what the end of the journal leaves open.

use std::sync::Arc;

use journal::Event;
use tool_api::{Effect, Outcome};

use crate::Job;
use crate::acting::{Acted, Acting, note_change};
use crate::driver::{Driver, Stop, machine, noted, refused};
use crate::machine::{Input, Machine, Step, Turn, Why};
use crate::resume::{Answered, Heard, Own, Past};

impl Driver<'_> {
    /// Leads a machine through what is on record, and finishes what the end of it leaves open.
    pub(crate) async fn take_up(&mut self, job: Job, mut past: Past<'_>) -> Result<(Machine, Step), Stop> {
        let mut plan = past.plan.clone();
        self.window = past.window;
        plan.settings.limits = job.settings.limits;
        let mut machine = machine(plan, past.baseline.clone())?;
        self.accountant.save(past.saved);
        self.dirty = past.dirty;
        self.checked = past.checked();
        let mut step = machine.open();
        let step = loop {
            step = match step {
                Step::Ask(ask) => match past.heard(self.turn + 1, &self.tools) {
                    None => break Step::Ask(ask),
                    Some(Heard::Overflow(window)) => {
                        self.next_turn();
                        machine.next(Input::Overflow { window })
                    }
                    Some(Heard::Answer(answered)) => {
                        self.next_turn();
                        self.recount(&mut machine, &answered)?;
                        if answered.last {
                            unsaid(&mut machine, &past)?;
                            self.write_down(&mut machine)?;
                            let turn = self.complete(*answered, &past).await?;
                            let step = machine.next(Input::Answered(turn));
                            return Ok((machine, step));
                        }
                        machine.next(Input::Answered(answered.turn))
                    }
                },
                Step::Write { focus, why } => {
                    let check = match past.written(why == Why::Try) {
                        Own::Open => {
                            self.take_back(past.edits(self.turn)).await?;
                            break Step::Write { focus, why };
                        }
                        Own::Checked(check) => Some(check),
                        Own::Written if why == Why::Try => {
                            unsaid(&mut machine, &past)?;
                            self.write_down(&mut machine)?;
                            let check = Some(self.check().await?);
                            let step = machine.next(Input::Written { content: focus.content, check });
                            return Ok((machine, step));
                        }
                        Own::Written => None,
                    };
                    machine.next(Input::Written { content: focus.content, check })
                }
                end @ Step::Finish(..) => break end,
            }
        };
        unsaid(&mut machine, &past)?;
        Ok((machine, step))
    }

    /// Counts an answer on record as if it had just come.
    fn recount(&mut self, machine: &mut Machine, answered: &Answered) -> Result<(), Stop> {
        for (tool, size) in &answered.calls {
            let seen = self.like_calls.entry(tool.clone()).or_default();
            *seen = (seen.0 + size, seen.1 + 1);
        }
        self.account(machine, &machine.messages.clone(), &answered.counts)
    }

    /// Carries out what an answer on record asked for and what is not on record as done.
    async fn complete(&mut self, answered: Answered, past: &Past<'_>) -> Result<Turn, Stop> {
        let mut turn = answered.turn;
        if answered.left.iter().any(|(call, begun)| *begun && call.spec.effect == Effect::Write) {
            // It may have been made and not been written down: made again, it is made once.
            self.take_back(past.edits(self.turn)).await?;
        }
        let mut acting = Acting::new(Arc::clone(&self.tools));
        for (call, begun) in answered.left {
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

    /// Puts back edits of this turn that are not on record as done.
    async fn take_back(&mut self, done: usize) -> Result<(), Stop> {
        self.remembered().await?;
        let (repository, turn) = (Arc::clone(&self.repository), self.turn);
        noted(tokio::task::spawn_blocking(move || repository.take_back(turn, done)).await)
    }
}

/// Leaves in the machine's log what is not on record; what is has to be the same.
fn unsaid(machine: &mut Machine, past: &Past<'_>) -> Result<(), Stop> {
    let says = |event: &Event| matches!(event, Event::Message { .. } | Event::Rewound { .. });
    let mut log = std::mem::take(&mut machine.log).into_iter();
    for (i, recorded) in past.said().enumerate() {
        match log.by_ref().find(says) {
            Some(event) if event == *recorded => {}
            _ => {
                let message = format!(
                    "the session cannot be taken up: with this version, message {} of its conversation would be another",
                    i + 1
                );
                return Err(refused(message));
            }
        }
    }
    machine.log = log.collect();
    Ok(())
}
