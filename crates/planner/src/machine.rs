//! The turn machine, which decides the next step based on what has happened. It owns the
//! conversation and does no I/O.
//!
//! Two approaches share this machine. With [`Approach::Tools`](crate::Approach), the model calls
//! tools until a call to `finish` is accepted. With [`Approach::WholeFile`](crate::Approach), for
//! small models, the model is shown up to three files and asked to return them
//! ([`crate::approach`]). The run uses tools instead if nothing indicates which files the task is
//! about. It also switches to tools as soon as the model makes a call that neither writes these
//! files nor finishes.
//!
//! Effect on the prompt cache: messages are normally only appended. Exceptions, such as a fresh
//! start or a compaction, are journaled as [`Event::Rewound`] and keep as many messages as
//! possible.

mod conversation;
mod next_model;
mod next_try;
mod plan;
mod whole_file;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use journal::{Check, Doubt, EndedBy, Ending, Event};
use models::{Image, Message, Role};
use serde_json::Value;
use tool_api::Status;

use crate::answer::Wanted;
use crate::approach::{Attempts, Move};
use crate::blocks::Focus;
use crate::budget::Estimator;
use crate::calls::CallResult;
use crate::compaction::Dropped;
use crate::finish_tool::RESULT;
use crate::guards::{EqualCalls, Repeats};
use crate::prompts::Prompts;
use crate::tries::Tries;
pub(crate) use plan::Plan;

/// Maximum number of unusable answers in a row (no call, or a refused one). After one more, the run
/// gives up.
const MAX_CORRECTIONS: u32 = 4;
/// How many times `finish` may be refused while the verification fails.
const MAX_FINISH_REFUSALS: u32 = 2;

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the conversation and run the calls in the answer.
    Ask(Ask),
    /// Write a file.
    Write { focus: Focus, why: WriteReason },
    /// Journal the end of a try, and measure what it changed.
    EndTry,
    /// Revert this record of the tree's history and all later records. `None` reverts everything
    /// since the start.
    Revert(Option<u64>),
    /// Switch to the model that makes the final try (`--escalate`).
    Escalate,
    /// End the run.
    Finish(Ending, String),
}

/// Why the machine itself writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteReason {
    /// To restore an earlier version of the file.
    Restore,
    /// As part of a candidate that has more files to write.
    Part,
    /// As the last file of a candidate, which is then verified.
    Try,
}

/// The parameters of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ask {
    pub(crate) temperature: f32,
    pub(crate) seed: Option<u64>,
    pub(crate) max_tokens: u32,
    pub(crate) wanted: Wanted,
    /// The number of alternatives that the server should report for each token.
    pub(crate) alternatives: u8,
}

/// What happened since the last step.
#[derive(Debug)]
pub(crate) enum Input {
    /// An answer has arrived, and its calls have been run.
    Answered(Turn),
    /// A file was written. The last file of a candidate was also verified.
    Written { file: Focus, check: Option<Check> },
    /// A part of a candidate could not be written, for example because the file's encoding lacks a
    /// character.
    Refused,
    /// The request does not fit in the window.
    Overflow { window: Option<u64> },
    /// A message from the user.
    UserMessage(String),
    /// A try has ended, and its end has been journaled. `lines` is the number of lines that it
    /// changed.
    TryEnded { lines: u64 },
    /// Changes were reverted. `record` is the revert's record in the tree's history, or `None` if
    /// there was nothing to revert.
    Reverted { record: Option<u64> },
    /// Another model was opened. It continues with this plan, in a new try or in the current
    /// conversation.
    ModelChanged { plan: Box<Plan>, new_try: bool },
}

/// An answer and its results.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) content: String,
    pub(crate) thinking: String,
    pub(crate) ended_by: Option<EndedBy>,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) results: Vec<CallResult>,
    /// Why a call or the whole answer was refused.
    pub(crate) refused: Option<String>,
    /// The result of the verification, which runs after a change or a call to `finish`.
    pub(crate) check: Option<Check>,
    /// The model's window after this turn, if it has changed.
    pub(crate) window: Option<u64>,
}

/// The state of a run.
pub(crate) struct Machine {
    plan: Plan,
    prompts: Prompts,
    /// The conversation. Requests share its messages.
    pub(crate) messages: Vec<Arc<Message>>,
    /// The task's images, which are attached to the first user message.
    pub(crate) images: Vec<Arc<Image>>,
    /// Events that the driver must journal before the next step.
    pub(crate) log: Vec<Event>,
    pub(crate) estimator: Estimator,
    pub(crate) tries: Tries,
    attempts: Option<Attempts>,
    /// The remaining steps of a sequence that starts with file writes.
    after_write: VecDeque<Step>,
    pub(crate) baseline: Option<Check>,
    last_check: Option<Check>,
    /// Whether a command changed files since the last verification.
    unchecked: bool,
    progress: Progress,
    last_answer: String,
    /// The result that the model passed to `finish`, if that ended the run.
    pub(crate) result: Option<Value>,
    overflows_in_a_row: u32,
    /// The full text of each message in the conversation that contains something the user wrote
    /// after the task.
    user_messages: Vec<String>,
    dropped: Dropped,
    turn: u32,
    /// The parameters of the last request.
    asked: Ask,
}

/// The progress on the task, or on the user's last message.
#[derive(Default)]
struct Progress {
    /// Whether an edit or a command changed files.
    changed: bool,
    /// The files changed by edits.
    changed_files: BTreeSet<String>,
    /// Whether a call succeeded. If so, the model has seen part of the repository.
    looked: bool,
    /// Whether an edit was refused.
    refused_edit: bool,
    /// The summary from the first call to `finish`, if nothing had been changed by then. The model
    /// gets a reminder after that call. A whole-file run also keeps a prose answer here.
    unchanged_summary: Option<String>,
    equal_calls: EqualCalls,
    corrections: u32,
    finish_refusals: u32,
    same_answers: u32,
}

impl Machine {
    /// Creates a machine for a plan. `baseline` is the result of the verification that ran before
    /// any change.
    pub(crate) fn new(plan: Plan, baseline: Option<Check>) -> Result<Self, minijinja::Error> {
        let files = plan.focus.clone();
        Ok(Self {
            tries: Tries::new(plan.settings.attempts, plan.settings.escalates, baseline.as_ref()),
            attempts: Attempts::new(files, baseline.clone()),
            plan,
            prompts: Prompts::new()?,
            messages: Vec::new(),
            images: Vec::new(),
            log: Vec::new(),
            estimator: Estimator::default(),
            after_write: VecDeque::new(),
            last_check: baseline.clone(),
            baseline,
            unchecked: false,
            progress: Progress::default(),
            last_answer: String::new(),
            result: None,
            overflows_in_a_row: 0,
            user_messages: Vec::new(),
            dropped: Dropped::default(),
            turn: 0,
            asked: Ask::default(),
        })
    }

    /// Returns the plan for the current model.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the next step after this input.
    pub(crate) fn next(&mut self, input: Input) -> Step {
        let step = self.next_step_after(input);
        self.remember_request(step)
    }

    fn remember_request(&mut self, step: Step) -> Step {
        if let Step::Ask(ask) = &step {
            self.asked.clone_from(ask);
        }
        step
    }

    fn next_step_after(&mut self, input: Input) -> Step {
        let step = match input {
            Input::Answered(turn) => {
                self.turn += 1;
                self.overflows_in_a_row = 0;
                self.answered(turn)
            }
            Input::Written { file, check } => self.written(&file, check.as_ref()),
            Input::Refused => self.write_refused(),
            Input::UserMessage(text) => self.user_message(&text),
            Input::TryEnded { lines } => return self.try_ended(lines),
            Input::Reverted { record } => return self.reverted(record),
            Input::ModelChanged { plan, new_try } => self.model_changed(*plan, new_try),
            Input::Overflow { window } => {
                let estimated = self.estimator.messages(&self.messages) * 9 / 10;
                self.plan.window = window.or(self.plan.window).or(Some(estimated));
                self.overflows_in_a_row += 1;
                if self.overflows_in_a_row > 2 || !self.compact() {
                    return Step::Finish(
                        Ending::GaveUp,
                        "the conversation does not fit in the model's window; set a larger window (--num-ctx) or give a smaller task".into(),
                    );
                }
                Step::Ask(self.ask())
            }
        };
        self.end_try(step)
    }

    /// Opens the conversation, and returns the first step.
    pub(crate) fn open(&mut self) -> Step {
        let step = self.open_conversation(None);
        self.remember_request(step)
    }

    /// Adds the first messages to the conversation, which may already have a system prompt.
    fn open_conversation(&mut self, earlier_try: Option<String>) -> Step {
        if self.attempts.is_some() {
            return self.whole_file(Move::Whole);
        }
        if self.messages.is_empty() && !self.plan.plain {
            let system = self.prompts.system(&self.plan);
            self.push_message(Role::System, system);
        }
        let first = self.prompts.first(&self.plan, self.baseline.as_ref());
        let text = [Some(first), earlier_try].into_iter().flatten().collect::<Vec<_>>().join("\n\n");
        self.push_message(Role::User, text);
        Step::Ask(self.ask())
    }

    fn answered(&mut self, turn: Turn) -> Step {
        let Turn { content, thinking, results, refused, check, doubts, window, ended_by } = turn;
        self.plan.window = window.or(self.plan.window);
        if self.messages.last().is_some_and(|m| m.role == Role::Assistant) {
            let Some(attempts) = &mut self.attempts else { return Step::Ask(self.ask()) };
            let next = attempts.line(&content);
            return self.whole_file(next);
        }
        self.progress.same_answers =
            if content == self.last_answer { self.progress.same_answers + 1 } else { 0 };
        self.last_answer.clone_from(&content);
        let thinking = (self.plan.repeats_thinking && !thinking.is_empty()).then_some(thinking);
        self.messages.push(Message { role: Role::Assistant, content, thinking, images: Vec::new() }.into());
        self.progress.changed |=
            results.iter().any(|r| !r.outcome.changed.is_empty() || r.changed_by_command());
        let changed = results.iter().flat_map(|r| &r.outcome.changed);
        self.progress.changed_files.extend(changed.cloned());
        self.progress.refused_edit |=
            results.iter().any(|r| r.outcome.status == Status::Refused) || refused.is_some();
        self.unchecked |= results.iter().any(CallResult::changed_by_command);
        if check.is_some() {
            self.last_check.clone_from(&check);
            self.unchecked = false;
        }
        if let Some(step) = self.whole_file_answered(&results, check.as_ref(), &doubts) {
            return step;
        }
        // A model that calls `finish` in the same answer as a refused call has not seen the
        // refusal, so its `finish` is ignored.
        let unseen = refused.is_some() || results.iter().any(|r| r.outcome.status == Status::Refused);
        if let Some(finish) = results.iter().find(|r| r.spec.finishes).filter(|_| !unseen) {
            let result = finish.outcome.facts.get(RESULT).cloned();
            let step = self.finish(&finish.outcome.text.clone());
            if matches!(step, Step::Finish(..)) {
                self.result = result;
            }
            return step;
        }
        self.progress.looked |= results.iter().any(|r| r.outcome.status == Status::Ok);
        if results.is_empty() {
            let complete = refused.is_none() && ended_by == Some(EndedBy::Stop);
            if complete && let Some(answer) = self.answer_in_prose() {
                self.result = Some(answer.into());
                return self.finish("");
            }
            self.correct(refused)
        } else {
            self.report(&results, check.as_ref(), refused)
        }
    }

    /// Adds a message from the user to the conversation. The message is a new task: it requires a
    /// change of its own, and earlier mistakes no longer count. A whole-file run continues with
    /// tools. The conversation is not started over, so there are no further tries.
    ///
    /// Effect on the prompt cache: none. If the last message is still unanswered, the text is
    /// appended to it.
    fn user_message(&mut self, text: &str) -> Step {
        self.baseline.clone_from(&self.last_check);
        self.progress = Progress { looked: self.progress.looked, ..Progress::default() };
        self.tries = Tries::new(1, false, None);
        self.result = None;
        let mut text = self.prompts.user_message(text, self.plan.settings.question);
        if self.attempts.take().is_some() {
            text = format!("{text}\n\n{}", self.prompts.tools(&self.plan.opening));
        }
        if let Some(last) = self.messages.last().filter(|last| last.role == Role::User) {
            text = format!("{}\n\n{text}", last.content);
            self.rewind(self.messages.len() - 1, "the user's message joins the last message");
        }
        self.user_messages.push(text.clone());
        self.ask_with(text)
    }

    /// Returns the last answer, which has no call, if its text answers the user's question. A model
    /// that has not called a tool yet is probably only announcing what it will do. Its text is
    /// accepted anyway if the model was shown files and has already been corrected, or if it was
    /// not told about the tools.
    fn answer_in_prose(&self) -> Option<String> {
        let settings = &self.plan.settings;
        let insists = self.progress.corrections > 0 && !self.plan.opening.files.is_empty();
        let looked = self.progress.looked || insists || self.plan.plain;
        let text = self.last_answer.trim();
        let wanted = settings.question && !settings.has_result && looked;
        (wanted && !text.is_empty() && !text.ends_with(':')).then(|| text.to_owned())
    }

    fn finish(&mut self, summary: &str) -> Step {
        if self.plan.settings.question {
            return Step::Finish(Ending::Answered, "the question is answered".into());
        }
        if !self.progress.changed && !self.now_passes() && !self.fails() {
            return self.finish_unchanged(summary);
        }
        let Some(check) = self.last_check.clone() else {
            return Step::Finish(Ending::Unverified, non_empty(summary, "the model says it is done"));
        };
        if check.passed {
            return Step::Finish(Ending::Verified, non_empty(summary, "the verification passes"));
        }
        self.progress.finish_refusals += 1;
        if self.progress.finish_refusals > MAX_FINISH_REFUSALS {
            return Step::Finish(
                Ending::Unverified,
                "the model insists that it is done, but the verification fails".into(),
            );
        }
        let text = self.prompts.finish_refused(&check, self.progress.changed);
        self.ask_with(text)
    }

    /// Handles a call to `finish` when nothing has been changed. The model gets one reminder. If
    /// the verification passes here, it also passed before the run, so it proves nothing.
    fn finish_unchanged(&mut self, summary: &str) -> Step {
        let Some(before) = self.progress.unchanged_summary.take() else {
            self.progress.unchanged_summary = Some(summary.trim().to_owned());
            let text = self.prompts.no_change(self.progress.refused_edit, false);
            return self.ask_with(text);
        };
        let message = non_empty(summary, &non_empty(&before, "the model changed nothing"));
        Step::Finish(Ending::NoChange, message)
    }

    /// Ends a run that makes no progress. The ending is [`Ending::Verified`] if the verification
    /// failed before and passes now.
    fn stuck(&self, why: String) -> Step {
        if self.now_passes() && !self.unchecked && !self.plan.settings.has_result {
            return Step::Finish(Ending::Verified, format!("the verification passes now ({why})"));
        }
        Step::Finish(Ending::GaveUp, why)
    }

    /// Whether the verification failed before and passes now. That counts as a change.
    pub(crate) fn now_passes(&self) -> bool {
        self.baseline.as_ref().is_some_and(|check| !check.passed)
            && self.last_check.as_ref().is_some_and(|check| check.passed)
    }

    /// Whether the verification fails.
    pub(crate) fn fails(&self) -> bool {
        self.last_check.as_ref().is_some_and(|check| !check.passed)
    }

    /// Replies to an answer that contains no usable call.
    fn correct(&mut self, refused: Option<String>) -> Step {
        self.progress.corrections += 1;
        if self.progress.corrections > MAX_CORRECTIONS {
            let why = refused.unwrap_or_else(|| "no tool call".into());
            let why =
                format!("{} answers in a row could not be used; the last: {why}", self.progress.corrections);
            return self.stuck(why);
        }
        let text =
            self.prompts.correction(&self.plan.settings, refused.as_deref(), self.progress.corrections);
        self.forget_repeats(&text).unwrap_or_else(|| self.ask_with(text))
    }

    /// Tells the model the results of its calls.
    fn report(&mut self, results: &[CallResult], check: Option<&Check>, refused: Option<String>) -> Step {
        let (mut note, mut repeated) = (refused, false);
        if results.iter().any(|r| !r.outcome.changed.is_empty()) {
            self.progress.equal_calls.forget();
        }
        for result in results {
            let call = (result.spec.name.as_str(), result.arguments.to_string());
            match self.progress.equal_calls.note(call, &result.outcome.text) {
                Repeats::Fine => {}
                Repeats::Warn(n) => {
                    let message = self.prompts.repeated(&result.spec.name, n);
                    self.log.push(Event::Guard { message: message.clone() });
                    (note, repeated) = (Some(message), true);
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
        self.progress.corrections = if all_refused { self.progress.corrections + 1 } else { 0 };
        if self.progress.corrections > MAX_CORRECTIONS {
            return self.stuck(format!("{} calls in a row were refused", self.progress.corrections));
        }
        let text = self.prompts.results(results, check, note.as_deref());
        if (all_refused || repeated)
            && let Some(step) = self.forget_repeats(&text)
        {
            return step;
        }
        self.ask_with(text)
    }

    /// Returns the parameters of the next request. If the model repeats itself, the temperature is
    /// raised, because temperature 0 would produce the same answer.
    fn ask(&self) -> Ask {
        let stuck = self.progress.same_answers.max(self.progress.corrections.saturating_sub(1));
        let base = self.tries.temperature(self.plan.settings.temperature.unwrap_or_default());
        let temperature = if stuck > 0 { (base + 0.35 * stuck as f32).min(1.0) } else { base };
        let seed = if stuck > 0 { Some(u64::from(self.turn)) } else { self.seed() };
        let max_tokens = self.room_for(self.plan.settings.max_answer_tokens);
        Ask { temperature, seed, max_tokens, ..Ask::default() }
    }

    /// Returns the seed for a request when the model is not repeating itself. Returns `None` in a
    /// model's first try, so that the server chooses the seed.
    fn seed(&self) -> Option<u64> {
        self.tries.varied().then_some(u64::from(self.turn))
    }

    /// Returns the token limit for an answer: `most`, or less if the prompt and the answer would
    /// not fit in the window, but at least 256.
    fn room_for(&self, most: u32) -> u32 {
        let Some(window) = self.plan.window else { return most };
        let left = window.saturating_sub(self.estimator.messages(&self.messages));
        most.min(u32::try_from(left).unwrap_or(most)).max(256)
    }
}

fn non_empty(text: &str, otherwise: &str) -> String {
    if text.trim().is_empty() { otherwise.to_owned() } else { text.trim().to_owned() }
}
