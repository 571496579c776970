//! Continues a run after a switch to another model: starts a new try with the new model, or lets
//! that model continue the conversation.

use std::sync::Arc;

use journal::Ending;
use models::Role;

use super::{Ask, Machine, Plan, Step};
use crate::budget::Estimator;

impl Machine {
    /// Continues with another model. Effect on the prompt cache: the cache of the new model's
    /// server is empty.
    pub(super) fn model_changed(&mut self, plan: Plan, new_try: bool) -> Step {
        self.plan = plan;
        // The new model may count tokens differently.
        self.estimator = Estimator::default();
        if new_try { self.open_try() } else { self.repeat_request() }
    }

    /// Sends the last request to the new model.
    fn repeat_request(&mut self) -> Step {
        if !self.plan.repeats_thinking {
            for message in self.messages.iter_mut().filter(|m| m.thinking.is_some()) {
                Arc::make_mut(message).thinking = None;
            }
        }
        let Some(attempts) = &mut self.attempts else {
            let full = |usable| self.estimator.messages(&self.messages) > usable;
            if self.usable().is_some_and(full) && !self.compact() {
                let message = "the conversation does not fit in the fallback model's window";
                return Step::Finish(Ending::GaveUp, message.into());
            }
            return Step::Ask(self.ask());
        };
        let continues = self.messages.last().is_some_and(|m| m.role == Role::Assistant);
        if continues && !self.plan.branches {
            let next = attempts.without_branches();
            return self.whole_file(next);
        }
        let asked = self.asked.clone();
        let alternatives = if self.plan.branches { asked.alternatives } else { 0 };
        Step::Ask(Ask { alternatives, max_tokens: self.room_for(asked.max_tokens), ..asked })
    }
}
