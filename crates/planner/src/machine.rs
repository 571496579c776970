//! The turn machine: fed with what happened, it says what to do next. Owns the conversation; knows no socket, file or clock.
//!
//! Two approaches share it. With the JSON dialect the model works by tools until it calls `finish` and that is accepted. With the
//! whole-file dialect, for small models, it is shown one file and asked for it back ([`crate::approach`]); as soon as it calls any
//! other tool, or when no single file stands out, the run goes on by tools.
//!
//! Effect on the prompt cache: messages are only ever added at the end. The two exceptions, a fresh start and a compaction, are
//! journaled as [`Event::Rewound`] and keep the longest head they can.

mod whole_file;

use journal::{Check, CutReason, Doubt, EndedBy, Ending, Event};
use models::{Message, Role};
use tool_api::Status;

use crate::acting::CallResult;
use crate::answer::{Focus, Wanted};
use crate::approach::{Attempts, Move};
use crate::budget::Estimator;
use crate::compaction::{self, Dropped, Room};
use crate::guards::{EqualCalls, Repeats};
use crate::prompts::{Opening, Prompts};
use crate::settings::Settings;

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the conversation and carry out what comes.
    Ask(Ask),
    /// Write a file.
    Write { focus: Focus, why: Why },
    /// The run is over.
    Finish(Ending, String),
}

/// Why the machine itself writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// To put it back.
    Restore,
    /// To verify a candidate.
    Try,
}

/// How to ask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) temperature: f32,
    pub(crate) seed: Option<u64>,
    pub(crate) max_tokens: u32,
    pub(crate) wanted: Wanted,
    /// Alternatives to report for each token.
    pub(crate) alternatives: u8,
    /// Where to end the answer.
    pub(crate) stop: Option<String>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// An answer was heard and acted on.
    Answered(Turn),
    /// A file was written, and verified where that was asked for.
    Written { content: String, check: Option<Check> },
    /// The request does not fit the window.
    Overflow { window: Option<u64> },
}

/// An answer and all that came of it.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) content: String,
    pub(crate) thinking: String,
    pub(crate) ended_by: Option<EndedBy>,
    pub(crate) cut: Option<CutReason>,
    /// Where the fenced block begins that was taken for the file.
    pub(crate) block: Option<usize>,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) results: Vec<CallResult>,
    /// What was refused, and why.
    pub(crate) refused: Option<String>,
    /// Run because something changed or `finish` was called.
    pub(crate) check: Option<Check>,
    /// The model's window, where it turned out to be another.
    pub(crate) window: Option<u64>,
}

/// The state of a run.
pub(crate) struct Machine {
    settings: Settings,
    prompts: Prompts,
    opening: Opening,
    window: Option<u64>,
    has_verifier: bool,
    send_thinking: bool,
    /// The conversation.
    pub(crate) messages: Vec<Message>,
    /// What the driver has to journal before it takes the next step.
    pub(crate) log: Vec<Event>,
    pub(crate) estimator: Estimator,
    attempts: Option<Attempts>,
    branches: bool,
    /// What to do once the file is put back.
    after_restore: Option<Box<Step>>,
    baseline: Option<Check>,
    last_check: Option<Check>,
    /// An edit landed, or a command changed files.
    changed: bool,
    /// An edit was refused.
    refused_edit: bool,
    /// A command changed files since the last verification.
    unchecked: bool,
    /// The summary of a `finish` before which nothing was changed; the model was told so.
    told_unchanged: Option<String>,
    equal_calls: EqualCalls,
    corrections: u32,
    finish_refusals: u32,
    same_answers: u32,
    last_answer: String,
    overflows_in_a_row: u32,
    dropped: Dropped,
    turn: u32,
}

/// What a machine is made of.
pub(crate) struct Begin {
    pub(crate) settings: Settings,
    pub(crate) prompts: Prompts,
    pub(crate) opening: Opening,
    pub(crate) window: Option<u64>,
    pub(crate) has_verifier: bool,
    /// The verification's result before anything was done.
    pub(crate) baseline: Option<Check>,
    /// Whether reasoning is sent back with the answers it led to (DeepSeek demands it; wire reference 2.3).
    pub(crate) send_thinking: bool,
    /// Whether the server tells the model's doubts and can continue an answer.
    pub(crate) branches: bool,
    /// The file to ask for whole, where the dialect is that and one file stands out.
    pub(crate) focus: Option<Focus>,
}

impl Machine {
    pub(crate) fn new(begin: Begin) -> Self {
        let baseline = begin.baseline.clone();
        let attempts = begin.focus.map(|focus| Attempts::new(focus, begin.settings.fresh_starts, baseline));
        Self {
            settings: begin.settings,
            prompts: begin.prompts,
            opening: begin.opening,
            window: begin.window,
            has_verifier: begin.has_verifier,
            send_thinking: begin.send_thinking,
            messages: Vec::new(),
            log: Vec::new(),
            estimator: Estimator::default(),
            attempts,
            branches: begin.branches,
            after_restore: None,
            last_check: begin.baseline.clone(),
            baseline: begin.baseline,
            changed: false,
            refused_edit: false,
            unchecked: false,
            told_unchanged: None,
            equal_calls: EqualCalls::default(),
            corrections: 0,
            finish_refusals: 0,
            same_answers: 0,
            last_answer: String::new(),
            overflows_in_a_row: 0,
            dropped: Dropped::default(),
            turn: 0,
        }
    }

    /// What to do, now that this happened.
    pub(crate) fn next(&mut self, input: Input) -> Step {
        match input {
            Input::Answered(turn) => {
                self.turn += 1;
                self.overflows_in_a_row = 0;
                self.answered(turn)
            }
            Input::Written { content, check } => self.written(&content, check.as_ref()),
            Input::Overflow { window } => {
                self.window =
                    window.or(self.window).or(Some(self.estimator.messages(&self.messages) * 9 / 10));
                self.overflows_in_a_row += 1;
                if self.overflows_in_a_row > 2 || !self.compact() {
                    return Step::Finish(
                        Ending::GaveUp,
                        "the conversation does not fit the model's window; give it a larger one (--num-ctx) or a smaller task".into(),
                    );
                }
                Step::Ask(self.ask())
            }
        }
    }

    /// The first step: opens the conversation.
    pub(crate) fn open(&mut self) -> Step {
        if self.attempts.is_some() {
            return self.whole_file(Move::Whole);
        }
        let system = self.prompts.system(&self.opening);
        self.say(Role::System, system);
        let first = self.prompts.first(&self.opening, self.baseline.as_ref());
        self.say(Role::User, first);
        Step::Ask(self.ask())
    }

    fn answered(&mut self, turn: Turn) -> Step {
        let Turn { content, thinking, results, refused, check, block, doubts, window, .. } = turn;
        self.window = window.or(self.window);
        if self.messages.last().is_some_and(|m| m.role == Role::Assistant) {
            let Some(attempts) = &mut self.attempts else { return Step::Ask(self.ask()) };
            let next = attempts.line(&content);
            return self.whole_file(next);
        }
        self.same_answers = if content == self.last_answer { self.same_answers + 1 } else { 0 };
        self.last_answer.clone_from(&content);
        let thinking = (self.send_thinking && !thinking.is_empty()).then_some(thinking);
        self.messages.push(Message { role: Role::Assistant, content, thinking });
        self.changed |= results.iter().any(|r| !r.outcome.changed.is_empty() || r.changed_by_command());
        self.refused_edit |= results.iter().any(|r| r.outcome.status == Status::Refused) || refused.is_some();
        self.unchecked |= results.iter().any(CallResult::changed_by_command);
        if check.is_some() {
            self.last_check.clone_from(&check);
            self.unchecked = false;
        }
        if let Some(step) = self.whole_file_answered(&results, check.as_ref(), block, &doubts) {
            return step;
        }
        // Who says "done" beside a call that is refused has not seen the refusal.
        let unseen = refused.is_some() || results.iter().any(|r| r.outcome.status == Status::Refused);
        if let Some(finish) = results.iter().find(|r| r.spec.finishes).filter(|_| !unseen) {
            return self.finish(&finish.outcome.text.clone());
        }
        if results.is_empty() {
            self.correct(refused)
        } else {
            self.report(&results, check.as_ref(), refused)
        }
    }

    fn finish(&mut self, summary: &str) -> Step {
        if !self.changed && !self.healed() && !self.fails() {
            return self.finish_unchanged(summary);
        }
        let Some(check) = self.last_check.clone() else {
            return Step::Finish(Ending::Unverified, non_empty(summary, "the model says it is done"));
        };
        if check.passed {
            return Step::Finish(Ending::Verified, non_empty(summary, "the verification passes"));
        }
        self.finish_refusals += 1;
        if self.finish_refusals > self.settings.max_finish_refusals {
            return Step::Finish(
                Ending::Unverified,
                "the model insists that it is done, but the verification fails".into(),
            );
        }
        let text = self.prompts.finish_refused(&check, self.changed);
        self.go_on(text)
    }

    /// `finish`, and nothing was changed: the model is told once. A check that passes passed before.
    fn finish_unchanged(&mut self, summary: &str) -> Step {
        let Some(before) = self.told_unchanged.take() else {
            self.told_unchanged = Some(summary.trim().to_owned());
            let text = self.prompts.no_change(self.refused_edit, false);
            return self.go_on(text);
        };
        let message = non_empty(summary, &non_empty(&before, "the model changed nothing"));
        Step::Finish(Ending::NoChange, message)
    }

    /// The model is getting nowhere. What it has done by then may be all there is to do: then the verification, which failed before, passes.
    fn stuck(&self, why: String) -> Step {
        if self.healed() && !self.unchecked {
            return Step::Finish(Ending::Verified, format!("the verification passes now ({why})"));
        }
        Step::Finish(Ending::GaveUp, why)
    }

    /// The verification failed before and passes now: that is a change, whoever made it.
    pub(crate) fn healed(&self) -> bool {
        self.baseline.as_ref().is_some_and(|check| !check.passed)
            && self.last_check.as_ref().is_some_and(|check| check.passed)
    }

    /// The verification fails.
    pub(crate) fn fails(&self) -> bool {
        self.last_check.as_ref().is_some_and(|check| !check.passed)
    }

    /// An answer without a call that could be carried out.
    fn correct(&mut self, refused: Option<String>) -> Step {
        self.corrections += 1;
        if self.corrections > self.settings.max_corrections {
            let why = refused.unwrap_or_else(|| "no tool call".into());
            let why = format!("{} answers in a row could not be used; the last: {why}", self.corrections);
            return self.stuck(why);
        }
        let text = self.prompts.correction(refused.as_deref(), self.corrections);
        self.forget_repeats(&text).unwrap_or_else(|| self.go_on(text))
    }

    /// Tells the model what its calls led to.
    fn report(&mut self, results: &[CallResult], check: Option<&Check>, refused: Option<String>) -> Step {
        let mut note = refused;
        if results.iter().any(|r| !r.outcome.changed.is_empty()) {
            self.equal_calls.forget();
        }
        for result in results {
            let call = (result.spec.name.as_str(), result.arguments.to_string());
            match self.equal_calls.note(
                call,
                &result.outcome.text,
                self.settings.warn_repeats,
                self.settings.max_repeats,
            ) {
                Repeats::Fine => {}
                Repeats::Warn(n) => {
                    let message = self.prompts.repeated(&result.spec.name, n);
                    self.log.push(Event::Guard { message: message.clone() });
                    note = Some(message);
                }
                Repeats::Stop(n) => {
                    let tool = &result.spec.name;
                    return self.stuck(format!(
                        "the model made the same {tool} call {n} times with the same result"
                    ));
                }
            }
        }
        let all_refused = results.iter().all(|r| r.outcome.status == Status::Refused);
        self.corrections = if all_refused { self.corrections + 1 } else { 0 };
        if self.corrections > self.settings.max_corrections {
            return self.stuck(format!("{} calls in a row were refused", self.corrections));
        }
        let text = self.prompts.results(results, check, note.as_deref());
        if all_refused && let Some(step) = self.forget_repeats(&text) {
            return step;
        }
        self.go_on(text)
    }

    /// A model that sees its own answer twice writes it a third time, at any temperature. So the repeats go from the conversation, and
    /// what is wrong with them joins the message they answered. Effect on the prompt cache: it holds up to that message.
    fn forget_repeats(&mut self, text: &str) -> Option<Step> {
        if self.same_answers == 0 {
            return None;
        }
        let same = |m: &Message| m.role == Role::Assistant && m.content == self.last_answer;
        let pairs = self.messages.rchunks(2).take_while(|pair| pair.last().is_some_and(same)).count();
        // The answers and what was said to all but the last of them.
        let first = self.messages.len().checked_sub(2 * pairs - 1)?;
        let asked = self.messages.get(first.checked_sub(1)?)?.content.clone();
        let text = self.prompts.again(&asked, text);
        self.rewind(first - 1, "the model repeats itself: its repeats are left out");
        Some(self.go_on(text))
    }

    fn go_on(&mut self, text: String) -> Step {
        self.say(Role::User, text);
        let full = |usable| self.estimator.messages(&self.messages) > usable * 8 / 10;
        if self.usable().is_some_and(full) && !self.compact() {
            return Step::Finish(
                Ending::GaveUp,
                "the conversation cannot be made to fit the model's window; give it a larger one (--num-ctx)"
                    .into(),
            );
        }
        Step::Ask(self.ask())
    }

    /// Tokens that the conversation may have: the window without what is kept for the answer.
    fn usable(&self) -> Option<u64> {
        let window = self.window?;
        Some(window - u64::from(self.settings.max_answer_tokens).min(window / 4))
    }

    /// Makes the conversation at most half of what may be used, or as short as it gets; `false` when that is too long.
    fn compact(&mut self) -> bool {
        let Some(usable) = self.usable() else { return false };
        let room = Room { target: usable / 2, limit: usable * 8 / 10 };
        let tokens = |m: &[Message]| self.estimator.messages(m);
        let note = |dropped: &[String]| self.prompts.compacted(dropped);
        let compacted = compaction::compact(&self.messages, &mut self.dropped, room, tokens, note);
        let Some(compacted) = compacted else { return false };
        let keep = compacted.iter().zip(&self.messages).take_while(|(a, b)| a == b).count();
        self.rewind(keep, "the conversation was made shorter to fit the model's window");
        for message in compacted.into_iter().skip(keep) {
            self.log
                .push(Event::Message { role: journal_role(message.role), content: message.content.clone() });
            self.messages.push(message);
        }
        true
    }

    fn rewind(&mut self, keep: usize, why: &str) {
        self.messages.truncate(keep);
        self.log.push(Event::Rewound { keep: keep as u32, why: why.to_owned() });
    }

    fn say(&mut self, role: Role, content: String) {
        self.log.push(Event::Message { role: journal_role(role), content: content.clone() });
        self.messages.push(Message { role, content, thinking: None });
    }

    /// How to ask next: warmer when the model repeats itself, since the same bytes at temperature 0 never end.
    fn ask(&self) -> Ask {
        let stuck = self.same_answers.max(self.corrections.saturating_sub(1));
        let temperature = (self.settings.temperature + 0.35 * stuck as f32).min(1.0);
        let seed = (stuck > 0).then_some(u64::from(self.turn));
        Ask { temperature, seed, max_tokens: self.room(), wanted: Wanted::Calls, alternatives: 0, stop: None }
    }

    /// The most tokens the answer may have, so that prompt and answer stay within the window.
    fn room(&self) -> u32 {
        self.room_for(self.settings.max_answer_tokens)
    }

    fn room_for(&self, most: u32) -> u32 {
        let Some(window) = self.window else { return most };
        let left = window.saturating_sub(self.estimator.messages(&self.messages));
        most.min(u32::try_from(left).unwrap_or(most)).max(256)
    }
}

fn non_empty(text: &str, otherwise: &str) -> String {
    if text.trim().is_empty() { otherwise.to_owned() } else { text.trim().to_owned() }
}

fn journal_role(role: Role) -> journal::Role {
    match role {
        Role::System => journal::Role::System,
        Role::User => journal::Role::User,
        Role::Assistant => journal::Role::Assistant,
    }
}
