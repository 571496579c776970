//! The machine's conversation. Messages are appended to it, and it is rewound when the model
//! repeats itself or the window is full.

use std::sync::Arc;

use journal::{Ending, Event};
use models::{Message, Role};

use super::{Machine, Step};
use crate::compaction::{self, Room};

impl Machine {
    /// Removes repeated answers from the conversation: a model that sees its own answer twice
    /// writes it a third time, at any temperature. The reply to the repeated answers is appended to
    /// the message before them. Effect on the prompt cache: the cache stays valid up to that
    /// message.
    pub(super) fn forget_repeats(&mut self, text: &str) -> Option<Step> {
        if self.progress.same_answers == 0 {
            return None;
        }
        let same = |m: &Message| m.role == Role::Assistant && m.content == self.last_answer;
        let by_user = |m: &Arc<Message>| self.user_messages.contains(&m.content);
        // Everything before the user's last message stays.
        let from = self.messages.iter().rposition(by_user).unwrap_or(0);
        let recent = self.messages[from..].rchunks(2);
        let pairs = recent.take_while(|pair| pair.last().is_some_and(|last| same(last))).count();
        // The messages to remove: the repeated answers, and the replies to all but the last of
        // them.
        let first = self.messages.len().checked_sub((2 * pairs).checked_sub(1)?)?;
        let asked = self.messages.get(first.checked_sub(1)?)?.content.clone();
        let text = self.prompts.again(&asked, text);
        if self.user_messages.contains(&asked) {
            self.user_messages.push(text.clone());
        }
        self.rewind(first - 1, "the model repeats itself; its repeated answers are removed");
        Some(self.ask_with(text))
    }

    pub(super) fn ask_with(&mut self, text: String) -> Step {
        self.push_message(Role::User, text);
        let full = |usable| self.estimator.messages(&self.messages) > usable * 8 / 10;
        if self.usable().is_some_and(full) && !self.compact() {
            return Step::Finish(
                Ending::GaveUp,
                "the conversation does not fit in the model's window; set a larger window (--num-ctx)".into(),
            );
        }
        Step::Ask(self.ask())
    }

    /// Returns the token limit of the conversation: the window minus the share reserved for the
    /// answer.
    pub(super) fn usable(&self) -> Option<u64> {
        let window = self.plan.window?;
        Some(window - u64::from(self.plan.settings.max_answer_tokens).min(window / 4))
    }

    /// Reduces the conversation to half of the usable window, or as far as possible. Returns
    /// `false`, and changes nothing, if it would still be too long.
    pub(super) fn compact(&mut self) -> bool {
        let Some(usable) = self.usable() else { return false };
        let room = Room { target: usable / 2, limit: usable * 8 / 10 };
        let tokens = |m: &[Arc<Message>]| self.estimator.messages(m);
        let note = |dropped: &[String]| self.prompts.compacted(dropped);
        let compacted = {
            let keep = |m: &Message| self.user_messages.contains(&m.content);
            compaction::compact(&self.messages, &mut self.dropped, room, tokens, note, keep)
        };
        let Some(compacted) = compacted else { return false };
        let keep = compacted.iter().zip(&self.messages).take_while(|(a, b)| a == b).count();
        self.rewind(keep, "the conversation was compacted to fit the model's window");
        for message in compacted.into_iter().skip(keep) {
            self.log.push(journaled(&message));
            self.messages.push(message);
        }
        true
    }

    pub(super) fn rewind(&mut self, keep: usize, why: &str) {
        self.messages.truncate(keep);
        self.log.push(Event::Rewound { keep: keep as u32, why: why.to_owned() });
    }

    pub(super) fn push_message(&mut self, role: Role, content: String) {
        let mut message = Message::new(role, content);
        // The images belong to the task, so they stay even if its message is rewritten.
        if role == Role::User && self.messages.iter().all(|m| m.role != Role::User) {
            message.images.clone_from(&self.images);
        }
        self.log.push(journaled(&message));
        self.messages.push(message.into());
    }
}

/// Returns the event that records the addition of a message to the conversation.
fn journaled(message: &Message) -> Event {
    let role = match message.role {
        Role::System => journal::Role::System,
        Role::User => journal::Role::User,
        Role::Assistant => journal::Role::Assistant,
    };
    let images = message.images.iter().map(|image| image.name().to_owned()).collect();
    Event::Message { role, content: message.content.clone(), images }
}
