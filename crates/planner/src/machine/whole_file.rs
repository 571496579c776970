//! The machine's part of the whole-file approach: turns the moves of [`crate::approach`] into steps
//! and messages.

use journal::{Check, Doubt, Ending};
use models::{Message, Role};

use super::{Ask, Machine, Step, WriteReason, non_empty};
use crate::answer::Wanted;
use crate::approach::{Attempt, Attempts, Move};
use crate::blocks::{self, Focus};
use crate::branches;
use crate::calls::CallResult;

/// Alternatives requested per token. More would not help: the right token is either among the first
/// few alternatives or not offered at all.
const ALTERNATIVES: u8 = 6;

impl Machine {
    /// Turns a move of the whole-file approach into the next step.
    pub(super) fn whole_file(&mut self, next: Move) -> Step {
        let Some(attempts) = &self.attempts else { return Step::Ask(self.ask()) };
        let step = match next {
            Move::Done if self.plan.has_verifier => {
                return Step::Finish(Ending::Verified, "the verification passes".into());
            }
            Move::Done => {
                let message =
                    "the file was changed, but there is no test command to verify it (set one with --verify)";
                return Step::Finish(Ending::Unverified, message.into());
            }
            Move::Try(contents) => {
                let mut files = attempts.differing(contents);
                let Some(focus) = files.pop() else { return self.write_refused() };
                let last = Step::Write { focus, why: WriteReason::Try };
                return self.write_first(files, WriteReason::Part, last);
            }
            Move::Line { prefix, following } => {
                self.rewind(self.request_head(), "trying another line where the model was unsure");
                self.push_message(Role::Assistant, prefix);
                let wanted = Wanted::Lines(following);
                return Step::Ask(Ask { wanted, max_tokens: branches::MAX_TOKENS, ..Ask::default() });
            }
            Move::Whole => {
                let (files, number) = (attempts.base().to_vec(), attempts.number());
                let temperature = self.tries.temperature(self.plan.settings.temperature.unwrap_or_default());
                let (temperature, seed) = attempts.sampling(temperature, self.seed());
                let body = self.prompts.whole_file(&self.plan.opening, &files, self.tries.reworded());
                if number > 1 && attempts.untouched() && !attempts.fails() {
                    let text = self.prompts.no_change(false, true);
                    self.push_message(Role::User, text);
                } else {
                    if number > 1 {
                        self.rewind(0, &format!("attempt {number}: starting over"));
                    }
                    self.push_message(Role::User, body);
                }
                let alternatives = if self.plan.branches { ALTERNATIVES } else { 0 };
                // The answer contains the files and a little more, so its limit is derived from
                // their length.
                let content: String = files.iter().map(|file| file.content.as_str()).collect();
                let file = Message::new(Role::User, content);
                let limit = self.estimator.messages(&[file]) * 3 / 2 + 512;
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                let max_tokens = self.room_for(self.plan.settings.max_answer_tokens.max(limit));
                let wanted = Wanted::Files(files);
                Step::Ask(Ask { wanted, temperature, seed, max_tokens, alternatives })
            }
            Move::GiveUp if !attempts.fails() => {
                let message = match (attempts.untouched(), &self.progress.unchanged_summary) {
                    (_, Some(summary)) => non_empty(summary, "the model changed nothing"),
                    (true, None) => "the model sent the file back unchanged".into(),
                    (false, None) => {
                        "the model's change made the verification fail, so it was reverted".into()
                    }
                };
                Step::Finish(Ending::NoChange, message)
            }
            Move::GiveUp => {
                let message = "no attempt made the verification pass";
                Step::Finish(Ending::GaveUp, message.into())
            }
        };
        self.restore_first(step)
    }

    /// Restores each file whose best version is not the one in the tree, and then takes `step`.
    fn restore_first(&mut self, step: Step) -> Step {
        let files = self.attempts.as_ref().map(Attempts::to_restore).unwrap_or_default();
        self.write_first(files, WriteReason::Restore, step)
    }

    /// Writes files, and then takes `step`.
    fn write_first(&mut self, files: Vec<Focus>, why: WriteReason, step: Step) -> Step {
        self.after_write = files.into_iter().map(|focus| Step::Write { focus, why }).collect();
        self.after_write.push_back(step);
        self.next_step()
    }

    fn next_step(&mut self) -> Step {
        self.after_write.pop_front().unwrap_or_else(|| Step::Ask(self.ask()))
    }

    /// Continues after a file has been written.
    pub(super) fn written(&mut self, file: &Focus, check: Option<&Check>) -> Step {
        let Some(attempts) = &mut self.attempts else { return Step::Ask(self.ask()) };
        attempts.wrote_file(file);
        let Some(check) = check else { return self.next_step() };
        self.progress.changed = true;
        let next = attempts.tried(check);
        self.whole_file(next)
    }

    /// Continues with the next candidate after one that could not be written.
    pub(super) fn write_refused(&mut self) -> Step {
        self.after_write.clear();
        let Some(attempts) = &mut self.attempts else { return Step::Ask(self.ask()) };
        let next = attempts.next_candidate();
        self.whole_file(next)
    }

    /// Returns the number of messages before the first answer, including the request for the files.
    fn request_head(&self) -> usize {
        self.messages.iter().take_while(|m| m.role != Role::Assistant).count()
    }

    /// Handles a turn of the whole-file approach. Returns `None` if the run uses tools.
    pub(super) fn whole_file_answered(
        &mut self,
        results: &[CallResult],
        check: Option<&Check>,
        doubts: &[Doubt],
    ) -> Option<Step> {
        let attempts = self.attempts.as_mut()?;
        let blocks = blocks::find(&self.last_answer, attempts.base());
        let file = |r: &CallResult| {
            let written = r.spec.written_file(&r.arguments);
            written.is_some_and(|(path, _)| attempts.base().iter().any(|file| file.path == path))
        };
        let by_tools = results.iter().any(|r| !r.spec.finishes && !file(r));
        if by_tools {
            self.attempts = None;
            self.progress.unchanged_summary = None;
            let introduction = self.prompts.tools(&self.plan.opening);
            let text = self.prompts.results(results, check, None);
            self.push_message(Role::User, format!("{text}\n\n{introduction}"));
            return Some(Step::Ask(self.ask()));
        }
        // A prose answer, for example to a question, is treated as a summary.
        let finish = results.iter().find(|r| r.spec.finishes).map(|r| r.outcome.text.clone());
        let words = || blocks.is_empty() && results.is_empty() && !self.last_answer.trim().is_empty();
        if let Some(answer) = finish.or_else(|| words().then(|| self.last_answer.trim().to_owned())) {
            self.progress.unchanged_summary = Some(answer);
        }
        let wrote = results.iter().filter(|r| !r.outcome.changed.is_empty());
        let wrote = wrote.filter_map(|r| r.spec.written_file(&r.arguments)).collect();
        let attempt = Attempt { answer: &self.last_answer, blocks: &blocks, doubts, wrote, check };
        let next = attempts.answered(&attempt);
        Some(self.whole_file(next))
    }
}
