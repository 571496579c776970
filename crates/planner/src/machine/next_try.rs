//! The machine's part of [`crate::tries`]: ends a try, and opens the conversation for the next one.

use journal::{Check, Ending};
use models::Role;

use super::{Machine, Progress, Step};
use crate::approach::Attempts;
use crate::blocks::Focus;
use crate::compaction::Dropped;
use crate::opening;
use crate::tries::{After, Counts};

impl Machine {
    /// Ends the try instead of the run, if another try may follow.
    pub(super) fn end_try(&mut self, step: Step) -> Step {
        match step {
            Step::Finish(Ending::Verified, message) if self.tries.again() => {
                let (number, of) = self.tries.several().unwrap_or((1, 1));
                Step::Finish(Ending::Verified, format!("{message} (try {number} of {of})"))
            }
            Step::Finish(ending, message) if self.tries.end(&ending, &message) => Step::EndTry,
            step => step,
        }
    }

    /// Decides what to do with the changes of the try that has ended.
    pub(super) fn try_ended(&mut self, lines: u64) -> Step {
        match self.tries.rate(self.counts(), lines) {
            After::Revert(from) => Step::Revert(from),
            After::Keep => self.finish_tries(),
        }
    }

    /// Continues after the changes of a try have been reverted: starts the next try, or ends the
    /// run.
    pub(super) fn reverted(&mut self, record: Option<u64>) -> Step {
        self.tries.reverted(record);
        match self.tries.next() {
            true if self.tries.escalated() => Step::Escalate,
            true => self.open_try(),
            false => self.finish_tries(),
        }
    }

    fn finish_tries(&mut self) -> Step {
        let (ending, message) = self.tries.finish();
        Step::Finish(ending, message)
    }

    /// Returns the test counts for the current files, if known.
    pub(crate) fn counts(&self) -> Option<Counts> {
        let check = match &self.attempts {
            Some(attempts) => attempts.check_in_tree(),
            None => self.last_check.as_ref().filter(|_| !self.unchecked),
        };
        check.and_then(Counts::of)
    }

    /// Opens a new conversation on the original files. Effect on the prompt cache: only the system
    /// prompt stays cached.
    pub(super) fn open_try(&mut self) -> Step {
        let earlier = self.earlier_try();
        let (number, of) = self.tries.several().unwrap_or((1, 1));
        let files = self.other_file().map_or_else(|| self.plan.focus.clone(), |other| vec![other]);
        self.attempts = Attempts::new(files, self.baseline.clone());
        self.last_check.clone_from(&self.baseline);
        (self.progress, self.dropped) = (Progress::default(), Dropped::default());
        (self.unchecked, self.overflows_in_a_row) = (false, 0);
        self.last_answer.clear();
        // The whole-file approach has no system prompt.
        let system = self.messages.iter().take_while(|m| m.role == Role::System).count();
        let keep = if self.attempts.is_some() { 0 } else { system };
        self.rewind(keep, &format!("try {number} of {of}: starting over with the original files"));
        self.open_conversation(earlier)
    }

    /// Returns the next file in the ranking that can be requested in full, if this try shows that
    /// file instead of the first one.
    fn other_file(&self) -> Option<Focus> {
        let [shown] = self.plan.focus.as_slice() else { return None };
        let mut files = self.plan.opening.files.iter().filter(|(path, _)| *path != shown.path);
        let (path, content) = files.find(|(_, text)| opening::may_be_whole(text, 0, self.plan.window))?;
        let (path, content) = Some((path, content)).filter(|_| self.tries.other_file())?;
        Some(Focus { path: path.clone(), content: content.clone() })
    }

    /// Returns a line about the try that has ended, for the tools approach. The whole-file approach
    /// does not get one, because any additional text lowers the number of solved tasks.
    fn earlier_try(&self) -> Option<String> {
        let check: &Check = self.last_check.as_ref().filter(|check| !check.passed)?;
        // A line break in a file name could pass for a new line of the prompt.
        let names = self.progress.changed_files.iter().filter(|path| !path.contains(char::is_control));
        let changed: Vec<&str> = names.map(String::as_str).collect();
        (!changed.is_empty()).then(|| self.prompts.earlier_try(&changed.join(", "), check))
    }
}
