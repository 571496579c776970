//! The driver carries out the machine's steps: it sends and retries requests, verifies changes,
//! journals each event before its effect, enforces the limits, and computes the final diff.
//! [`crate::turn`] handles an answer while it is streaming.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use journal::{Budget, Check, Diff, Ending, Error, Event, Journal, Record, Report};
use models::retry::{Decision, Policy};
use models::{Identity, Image, Request};
use serde_json::Value;
use tokio::task::JoinHandle;
use tool_api::{Registry, Status};

use crate::answer::{ReadyCall, Wanted};
use crate::blocks::Focus;
use crate::budget::{Accountant, Price, worked_ms};
use crate::calls::CallQueue;
use crate::effects::usual;
use crate::focus::MAX_SHOWN_BYTES;
use crate::machine::{Ask, Input, Machine, Plan, Step, Turn, WriteReason};
use crate::resume::{OWN_CALL, Unfinished};
use crate::settings::Settings;
use crate::{Inbox, Job, OpenModel, Parts, Repository, Verifier, opening};

/// Works on a task until the run ends. Regardless of how the run ends, the final diff is computed
/// from the tree.
///
/// # Errors
/// If the journal cannot be written. The run stops, because every effect must be journaled first.
pub async fn run(job: Job, parts: Parts, journal: &mut Journal) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, &[]);
    let started = driver.begin(job).await;
    driver.drive(started.map(|(machine, step)| (machine, step.into()))).await
}

/// Resumes an interrupted run from its journal, or continues a finished one with a message from the
/// user ([`Parts::inbox`]). Limits are measured from the user's last message or from the start of
/// the try with another model, whichever is later. If there is neither, they are measured from the
/// beginning of the run.
///
/// # Errors
/// Same as [`run`].
pub async fn resume(job: Job, parts: Parts, journal: &mut Journal, past: &[Record]) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, past);
    let started = driver.restore(job, past).await;
    driver.drive(started).await
}

/// Like [`run`], but with parts that replay a recorded run and without waiting before retries. If
/// `plans` contains the plans from a journal, each model's first turn shows the repository as
/// recorded in that model's plan.
///
/// # Errors
/// Same as [`run`].
pub async fn replay(
    job: Job,
    parts: Parts,
    journal: &mut Journal,
    plans: &[serde_json::Value],
) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, &[]);
    // The recording determines how often each request is retried.
    driver.retries =
        Policy { retries: u32::MAX, first: Duration::ZERO, longest: Duration::ZERO, ..driver.retries };
    driver.shown = plans.iter().filter_map(|plan| serde_json::from_value(plan.clone()).ok()).collect();
    let started = driver.begin(job).await;
    driver.drive(started.map(|(machine, step)| (machine, step.into()))).await
}

/// The end of the message for a stopped run. It is removed if the task is a question, because a
/// question changes nothing.
const KEPT: &str = "; the changes so far are kept";

/// Why a run stops.
pub(crate) enum Stop {
    Ended(Ending, String),
    Journal(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Journal(error)
    }
}

pub(crate) fn refused(message: impl Into<String>) -> Stop {
    Stop::Ended(Ending::Refused, message.into())
}

/// The state of a run in progress.
pub(crate) struct Driver<'a> {
    pub(crate) task: String,
    pub(crate) settings: Settings,
    /// The images of the task.
    pub(crate) images: Vec<Arc<Image>>,
    pub(crate) model: Box<dyn models::Model>,
    pub(crate) identity: Identity,
    pub(crate) escalation: Option<Box<dyn OpenModel>>,
    pub(crate) fallback: Option<Box<dyn OpenModel>>,
    /// The recorded plans that supply the first turns of a replay.
    pub(crate) shown: VecDeque<Plan>,
    pub(crate) tools: Arc<Registry>,
    pub(crate) repository: Arc<dyn Repository>,
    pub(crate) verifier: Option<Arc<dyn Verifier>>,
    pub(crate) interrupt: tokio::sync::watch::Receiver<bool>,
    pub(crate) journal: &'a mut Journal,
    pub(crate) started: Instant,
    /// How long earlier processes worked on this run.
    earlier: Duration,
    pub(crate) deadline: Option<tokio::time::Instant>,
    pub(crate) accountant: Accountant,
    pub(crate) first_call_only: bool,
    /// The JSON Schema of a tool call, if calls are constrained to it.
    pub(crate) call_schema: Option<Arc<Value>>,
    pub(crate) retries: Policy,
    inbox: Box<dyn Inbox>,
    /// User messages that have not been added to the conversation yet.
    pending_messages: VecDeque<String>,
    /// The run's working time, in milliseconds, when the limits were last reset.
    limits_from_ms: u64,
    /// The time limit, in seconds.
    seconds: Option<u64>,
    /// The background task that records the original tree. It must complete before the first
    /// effect.
    pub(crate) snapshot: Option<JoinHandle<Result<(), String>>>,
    pub(crate) turn: u32,
    /// The model's window in tokens, as currently known to the machine.
    pub(crate) window: Option<u64>,
    /// Whether the run stops before its first command.
    pub(crate) plan_only: bool,
    /// Whether a command is running, or was running when the run stopped.
    pub(crate) command_running: bool,
    /// Whether something may have changed since the last verification.
    pub(crate) dirty: bool,
    /// Whether a verification has run.
    pub(crate) checked: bool,
    /// The duration of the longest verification whose tests ran to completion.
    pub(crate) usual_check: Option<Duration>,
    /// The number of the last record in the tree's history before the first turn; 0 if there is
    /// none. The verification before the first turn may create one.
    pub(crate) start: u64,
    /// Whether anything may have changed without the machine knowing.
    pub(crate) unsettled: bool,
    /// If a candidate has not been verified yet, the number of its first record in the tree's
    /// history.
    pub(crate) candidate: Option<u64>,
    /// For each tool, the total number of bytes in its complete calls, and the number of those
    /// calls. Used to estimate the length of a refused call.
    pub(crate) call_sizes: HashMap<String, (usize, usize)>,
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Driver<'a> {
    fn new(job: &Job, parts: Parts, journal: &'a mut Journal, past: &[Record]) -> Self {
        let earlier_ms = worked_ms(past);
        let restarts_limits = |r: &Record| {
            matches!(r.event, Event::UserMessage { .. } | Event::ModelChanged { new_try: true, .. })
        };
        let last_restart = past.iter().rposition(restarts_limits);
        let limits_from_ms = last_restart.map_or(0, |at| worked_ms(&past[..=at]));
        let identity = parts.model.identity();
        let limits = job.settings.limits;
        let repository = Arc::clone(&parts.repository);
        let constrained = job.settings.constrain.resolve(&identity);
        Self {
            task: job.task.clone(),
            settings: job.settings.clone(),
            images: job.images.clone(),
            call_schema: constrained.then(|| Arc::new(parts.tools.call_schema())),
            first_call_only: job.settings.cut.after_first_call(&identity),
            accountant: Accountant::of(past, limits, identity.price.as_ref().map(Price::new)),
            deadline: limits.seconds.map(|seconds| {
                let used = Duration::from_millis(earlier_ms.saturating_sub(limits_from_ms));
                tokio::time::Instant::now() + Duration::from_secs(seconds).saturating_sub(used)
            }),
            // Concurrent runs must not retry at the same time, even within one process.
            retries: Policy { seed: fastrand::u64(..), ..Policy::default() },
            inbox: parts.inbox,
            pending_messages: VecDeque::new(),
            limits_from_ms,
            seconds: limits.seconds,
            model: parts.model,
            identity,
            escalation: parts.escalation,
            fallback: parts.fallback,
            shown: VecDeque::new(),
            tools: Arc::new(parts.tools),
            repository: parts.repository,
            verifier: parts.verifier.filter(|_| !job.settings.plan_only && !job.settings.question),
            interrupt: parts.interrupt,
            journal,
            started: Instant::now(),
            earlier: Duration::from_millis(earlier_ms),
            snapshot: (!job.settings.question)
                .then(|| tokio::task::spawn_blocking(move || repository.remember())),
            turn: 0,
            window: None,
            plan_only: job.settings.plan_only,
            command_running: false,
            dirty: false,
            checked: false,
            usual_check: past.iter().filter_map(|record| usual(&record.event)).max(),
            start: 0,
            unsettled: false,
            candidate: None,
            call_sizes: HashMap::new(),
        }
    }

    /// The main loop: carries out the machine's next step and feeds the outcome back.
    async fn work(&mut self, machine: &mut Machine, mut step: Step) -> Result<(Ending, String), Stop> {
        loop {
            self.unsettled = false;
            self.journal_log(machine)?;
            if !matches!(step, Step::Write { .. } | Step::Revert(_) | Step::Escalate)
                && let Some(text) = self.user_message()?
            {
                step = machine.next(Input::UserMessage(text));
                continue;
            }
            step = match step {
                Step::Ask(ask) => {
                    let input = self.ask(machine, &ask).await?;
                    machine.next(input)
                }
                Step::Write { focus, why } => {
                    let input = self.write(focus, why).await?;
                    machine.next(input)
                }
                Step::EndTry => {
                    let lines = self.end_try(machine).await?;
                    machine.next(Input::TryEnded { lines })
                }
                Step::Revert(from) => {
                    let record = self.revert_from(from).await?;
                    machine.next(Input::Reverted { record })
                }
                Step::Escalate => {
                    let input = Box::pin(self.escalate(machine)).await?;
                    machine.next(input)
                }
                Step::Finish(ending, message) => return Ok((self.confirm(ending, machine).await?, message)),
            };
        }
    }

    /// Works on the task until the run ends, and reports how it ended.
    async fn drive(mut self, started: Result<(Machine, Unfinished), Stop>) -> Result<Report, Error> {
        let (machine, ended) = match started {
            Ok((mut machine, unfinished)) => {
                let ended = match self.complete(&mut machine, unfinished).await {
                    Ok(step) => self.work(&mut machine, step).await,
                    Err(stop) => Err(stop),
                };
                (Some(machine), ended)
            }
            Err(stop) => (None, Err(stop)),
        };
        let ended = match ended {
            Err(Stop::Ended(ending, message)) => self.leave(machine.as_ref(), ending, message).await,
            ended => ended,
        };
        let (ending, message) = match ended {
            Ok(end) => end,
            Err(Stop::Ended(ending, message)) => (ending, message),
            Err(Stop::Journal(error)) => return Err(error),
        };
        let result = machine.and_then(|machine| machine.result);
        self.finish(ending, message, result).await
    }

    /// Journals and returns the user's next message, if there is one. Resets the limits, and makes
    /// `finish` verify again because somebody may have changed the tree since the last
    /// verification.
    fn user_message(&mut self) -> Result<Option<String>, Stop> {
        let next = self.pending_messages.pop_front().or_else(|| self.inbox.take());
        let Some(text) = next.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        self.journal.append(Event::UserMessage { text: text.clone() })?;
        self.renew_limits();
        self.dirty = true;
        Ok(Some(text))
    }

    /// Queues the user's messages while a session is being resumed, until they can be added to the
    /// conversation. If there are any, the limits are reset immediately.
    pub(crate) fn queue_messages(&mut self, messages: VecDeque<String>) {
        self.pending_messages = messages;
        while let Some(text) = self.inbox.take() {
            self.pending_messages.push_back(text);
        }
        if !self.pending_messages.is_empty() {
            self.renew_limits();
        }
    }

    pub(crate) fn renew_limits(&mut self) {
        self.accountant.renew();
        self.limits_from_ms = self.elapsed_ms();
        self.deadline = self.seconds.map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
    }

    /// Checks the ending against the tree: if all changes were reverted, the ending becomes
    /// [`Ending::NoChange`].
    async fn confirm(&mut self, ending: Ending, machine: &Machine) -> Result<Ending, Stop> {
        let done = matches!(ending, Ending::Verified | Ending::Unverified);
        if !done || machine.now_passes() || machine.fails() {
            return Ok(ending);
        }
        self.await_snapshot().await?;
        let changed = self.on_tree(|tree| Ok(tree.changed())).await.unwrap_or(true);
        Ok(if changed { ending } else { Ending::NoChange })
    }

    /// Starts a run: runs the verification, composes the first turn, and journals the plan.
    pub(crate) async fn begin(&mut self, job: Job) -> Result<(Machine, Step), Stop> {
        self.check_images(&self.identity).map_err(refused)?;
        let approach = self.approach();
        let info = self.model_info(approach, job.why_model, job.role);
        self.accountant.start_model(&info);
        self.journal.append(Event::Model(info))?;
        let baseline = if self.verifier.is_some() { Some(self.check().await?) } else { None };
        if self.settings.escalates && baseline.is_none() && !self.plan_only {
            let message = "the run cannot escalate, because there is no test command (set one with --verify)";
            self.journal.append(Event::Warning { message: message.into() })?;
        }
        let map = self.map().await?;
        let plan = self.new_plan(baseline.as_ref(), map);
        self.window = self.identity.window;
        self.journal.append(Event::RunStarted { plan: recorded(&plan)? })?;
        let mut machine = machine(plan, baseline, &self.images)?;
        let step = machine.open();
        Ok((machine, step))
    }

    /// Creates a map of the code. Returns an empty string if there is none or if a recorded plan
    /// already contains it.
    async fn map(&mut self) -> Result<String, Stop> {
        if !self.shown.is_empty() {
            return Ok(String::new());
        }
        // If the run stops first, dropping this stops the work on the map.
        let stop = StopOnDrop(Arc::default());
        let (repository, task, flag) = (Arc::clone(&self.repository), self.task.clone(), Arc::clone(&stop.0));
        let max_bytes = opening::max_map_bytes(self.identity.window);
        let map = tokio::task::spawn_blocking(move || repository.map(&task, max_bytes, &flag));
        tokio::select! {
            map = map => Ok(map.ok().flatten().unwrap_or_default()),
            stop = stopped(self.interrupt.clone(), self.deadline) => Err(stop),
        }
    }

    pub(crate) fn journal_log(&mut self, machine: &mut Machine) -> Result<(), Stop> {
        for event in machine.log.drain(..) {
            self.journal.append(event)?;
        }
        Ok(())
    }

    /// Starts the next turn. The tree's history attributes subsequent changes to it.
    pub(crate) fn next_turn(&mut self) {
        self.turn += 1;
        self.repository.turn(self.turn);
    }

    /// Checks that a model accepts images, if the task has any.
    pub(crate) fn check_images(&self, model: &Identity) -> Result<(), String> {
        let name = &model.model;
        match model.sees_images {
            _ if self.images.is_empty() => Ok(()),
            Some(true) => Ok(()),
            Some(false) => {
                Err(format!("{name} does not accept images; use a model with vision, or omit --image"))
            }
            None if self.settings.assume_vision => Ok(()),
            None => Err(format!(
                "the server does not say whether {name} accepts images; if it does, set assume_vision = true in your settings or AGENT_ASSUME_VISION=true"
            )),
        }
    }

    /// If it turns out that the model cannot be constrained, warns once and stops constraining
    /// calls.
    fn check_constraint(&mut self) -> Result<(), Stop> {
        if self.call_schema.is_some() && !self.model.identity().can_constrain {
            self.call_schema = None;
            let message =
                "cannot constrain this model's answers to the tools' schemas; the run continues without constraints"
                    .into();
            self.journal.append(Event::Warning { message })?;
        }
        Ok(())
    }

    /// Sends a request, retries it if that might help, and runs the calls in the answer.
    async fn ask(&mut self, machine: &mut Machine, ask: &Ask) -> Result<Input, Stop> {
        self.next_turn();
        let constrains = ask.wanted == Wanted::Calls && !machine.plan().plain;
        let request = Request {
            constraint: self.call_schema.clone().filter(|_| constrains),
            messages: machine.messages.clone(),
            temperature: Some(ask.temperature),
            seed: ask.seed,
            max_tokens: ask.max_tokens,
            alternatives: ask.alternatives,
        };
        let mut attempt = 1;
        loop {
            self.within_limits()?;
            let estimated_tokens = machine.estimator.messages(&request.messages);
            let peak = self.identity.price.as_ref().is_some_and(|price| price.is_peak(SystemTime::now()));
            self.accountant.sends(peak);
            self.journal.append(Event::Request {
                turn: self.turn,
                attempt,
                messages: request.messages.len() as u32,
                estimated_tokens,
                temperature: request.temperature,
                seed: request.seed,
                max_tokens: request.max_tokens,
                peak,
            })?;
            let answered = self.stream_answer(machine, &request, ask, estimated_tokens).await?;
            if constrains && answered.is_ok() {
                self.check_constraint()?;
            }
            let error = match answered {
                Ok(turn) => return Ok(Input::Answered(turn)),
                Err(error) => error,
            };
            let left = self.deadline.map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
            match self.retries.decide(attempt - 1, &error, left) {
                Decision::Compact => {
                    let window =
                        if let models::Error::Overflow { window, .. } = &error { *window } else { None };
                    self.journal.append(Event::Overflow { turn: self.turn, window })?;
                    self.journal.append(Event::Warning { message: error.to_string() })?;
                    return Ok(Input::Overflow { window });
                }
                Decision::Wait(wait) => {
                    let wait_ms = wait.as_millis() as u64;
                    self.journal.append(Event::Retry {
                        turn: self.turn,
                        error: error.to_string(),
                        wait_ms,
                        busy: matches!(error, models::Error::Busy { .. }),
                    })?;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => attempt += 1,
                        stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
                    }
                }
                Decision::GiveUp(why) => {
                    let ending = match error {
                        models::Error::Settings(_) => Ending::Refused,
                        _ => Ending::Unavailable,
                    };
                    let message = match error.retry() {
                        models::Retry::Never => error.to_string(),
                        _ => format!("{error} ({why})"),
                    };
                    if error.is_of_server() && self.fallback.is_some() {
                        return Box::pin(self.fall_back(machine, ending, message)).await;
                    }
                    return Err(Stop::Ended(ending, message));
                }
            }
        }
    }

    /// Writes a file on behalf of the machine, using the same tool that makes the model's edits. If
    /// this write completes a candidate, verifies the candidate.
    async fn write(&mut self, file: Focus, why: WriteReason) -> Result<Input, Stop> {
        let Focus { path, content } = &file;
        let message = match why {
            WriteReason::Restore => format!("{path}: reverted, because the change did not help"),
            WriteReason::Part | WriteReason::Try => {
                format!("{path}: trying another line where the model was unsure")
            }
        };
        let writer =
            self.tools.specs().find_map(|spec| Some((Arc::clone(spec), spec.write_file(path, content)?)));
        let Some((spec, arguments)) = writer else {
            return Err(refused(format!("cannot write {path}: no tool writes whole files")));
        };
        self.journal.append(Event::Guard { message })?;
        if self.candidate.is_none() && why != WriteReason::Restore {
            self.candidate = Some(self.on_tree(|tree| tree.last_record()).await.map_err(refused)? + 1);
        }
        let mut calls = CallQueue::new(Arc::clone(&self.tools));
        calls.queue(ReadyCall {
            call: OWN_CALL,
            spec,
            arguments,
            parsed: tool_api::Parsed::own(),
            span: (0, 0),
            repairs: Vec::new(),
        });
        self.start_calls(&mut calls, false).await?;
        let finished = calls.next().await;
        let mut turn = Turn::default();
        self.record_result(finished, &mut turn).await?;
        if let Some(result) = turn.results.first().filter(|r| r.outcome.status != Status::Ok) {
            if why != WriteReason::Restore {
                self.candidate = None;
                return Ok(Input::Refused);
            }
            // A command may already have restored the file. The file in the tree may have CRLF line
            // endings.
            let (at, wanted) = (path.clone(), content.replace("\r\n", "\n"));
            let is_there = move |tree: &dyn Repository| {
                let found = tree.read(&at, MAX_SHOWN_BYTES);
                Ok(found.is_some_and(|found| found.replace("\r\n", "\n") == wanted))
            };
            if !self.on_tree(is_there).await.map_err(refused)? {
                return Err(refused(format!("cannot write {path}: {}", result.outcome.text)));
            }
        }
        let check = match why {
            WriteReason::Restore | WriteReason::Part => None,
            WriteReason::Try => Some(self.check_candidate().await?),
        };
        Ok(Input::Written { file, check })
    }

    fn within_limits(&self) -> Result<(), Stop> {
        let reached = self.accountant.reached(self.elapsed_ms().saturating_sub(self.limits_from_ms));
        reached.map_or(Ok(()), |budget| Err(over_budget(budget)))
    }

    fn elapsed_ms(&self) -> u64 {
        (self.earlier + self.started.elapsed()).as_millis() as u64
    }

    async fn finish(
        mut self,
        mut ending: Ending,
        mut message: String,
        result: Option<Value>,
    ) -> Result<Report, Error> {
        if let Err(Stop::Ended(_, why)) = self.after_command().await {
            message = format!("{message}; {why}");
        }
        let mut diff = Diff::default();
        if self.settings.question
            && let Some(shorter) = message.strip_suffix(KEPT)
        {
            message = shorter.to_owned();
        }
        // A question changes nothing, so any differences are somebody else's.
        if !self.settings.question && self.await_snapshot().await.is_ok() {
            match self.on_tree(|tree| tree.diff()).await {
                Ok(found) => diff = found,
                Err(why) => {
                    message = format!("{message}; could not compute the diff: {why}");
                    // Without the diff, a batch would lose the changes. It runs the task again.
                    if !ending.is_infrastructure() {
                        ending = Ending::Refused;
                    }
                }
            }
        }
        let totals = self.accountant.totals(self.elapsed_ms());
        let models = self.accountant.models();
        let report = Report { ending, message, diff, totals, models, result };
        self.journal.append(Event::Finished(report.clone()))?;
        Ok(report)
    }
}

fn over_budget(budget: Budget) -> Stop {
    let ending = Ending::Budget { budget };
    let message = format!("{}{KEPT}", ending.label());
    Stop::Ended(ending, message)
}

pub(crate) fn machine(plan: Plan, baseline: Option<Check>, images: &[Arc<Image>]) -> Result<Machine, Stop> {
    let machine = Machine::new(plan, baseline);
    let mut machine = machine.map_err(|e| refused(format!("a prompt template is broken: {e}")))?;
    machine.images = images.to_vec();
    Ok(machine)
}

/// Serializes a plan for the journal.
pub(crate) fn recorded(plan: &Plan) -> Result<serde_json::Value, Stop> {
    serde_json::to_value(plan).map_err(|e| refused(format!("cannot write the plan to the journal: {e}")))
}

/// Completes when the run must stop because it was interrupted or ran out of time.
pub(crate) async fn stopped(
    mut interrupt: tokio::sync::watch::Receiver<bool>,
    deadline: Option<tokio::time::Instant>,
) -> Stop {
    let interrupted = async {
        if interrupt.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await; // without a sender, nothing can interrupt the run
        }
    };
    let late = async {
        match deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = interrupted => Stop::Ended(Ending::Interrupted, format!("stopped by a signal{KEPT}")),
        () = late => over_budget(Budget::Time),
    }
}
