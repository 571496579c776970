//! The driver: does what the machine says, and waits for it. Sends and retries requests, verifies,
//! journals each event before its effect, enforces the limits, and takes the final diff.
//! [`crate::turn`] is what happens while one answer streams.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::{Check, Diff, Ending, Event, Journal, ModelInfo, Record};
use models::retry::{Decision, Policy};
use models::{Identity, Request};
use tokio::task::JoinHandle;
use tool_api::{Registry, Status};

use crate::acting::Acting;
use crate::budget::{Accountant, worked_ms};
use crate::machine::{Ask, Input, Machine, Plan, Step, Turn, Why};
use crate::opening;
use crate::resume::OWN_CALL;
use crate::settings::Cut;
use crate::{Error, Inbox, Job, Parts, Report, Repository, Verifier};

/// Works on a task until the run ends. The final diff is computed from the tree on every path.
///
/// # Errors
/// When the journal cannot be written. Then nothing further may take effect.
pub async fn run(job: Job, parts: Parts, journal: &mut Journal) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, &[]);
    let started = driver.begin(job, None).await;
    driver.drive(started).await
}

/// Resumes a run from its journal, which has been opened for appending: one that was cut off, or
/// one that has ended and that the user has something to say to ([`Parts::inbox`]). Limits count
/// from the beginning of the run, or from the user's last message.
///
/// # Errors
/// As [`run`].
pub async fn resume(job: Job, parts: Parts, journal: &mut Journal, past: &[Record]) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, past);
    let started = driver.restore(job, past).await;
    driver.drive(started).await
}

/// As [`run`], with parts that repeat a recorded run: it does not pause before a retry. With
/// `begun`, the plan in a journal, the first turn shows what that one showed of the repository.
///
/// # Errors
/// As [`run`].
pub async fn replay(
    job: Job,
    parts: Parts,
    journal: &mut Journal,
    begun: Option<&serde_json::Value>,
) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal, &[]);
    driver.retries = Policy { first: Duration::ZERO, longest: Duration::ZERO, ..driver.retries };
    let shown = begun.and_then(|plan| serde_json::from_value(plan.clone()).ok());
    let started = driver.begin(job, shown).await;
    driver.drive(started).await
}

/// Why the work stops.
pub(crate) enum Stop {
    Ended(Ending, String),
    Journal(Error),
}

impl From<journal::Error> for Stop {
    fn from(error: journal::Error) -> Self {
        Stop::Journal(Error::Journal(error))
    }
}

pub(crate) fn refused(message: impl Into<String>) -> Stop {
    Stop::Ended(Ending::Refused, message.into())
}

/// A run under way.
pub(crate) struct Driver<'a> {
    pub(crate) model: Box<dyn models::Model>,
    pub(crate) identity: Identity,
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
    pub(crate) retries: Policy,
    inbox: Box<dyn Inbox>,
    /// What the user said to a resumed session and the conversation does not have yet.
    waiting: VecDeque<String>,
    /// When the limits began to count, in milliseconds of work.
    limits_from_ms: u64,
    /// The limit of time.
    seconds: Option<u64>,
    /// Records the tree in the background. Awaited before the first effect.
    pub(crate) remembering: Option<JoinHandle<Result<(), String>>>,
    pub(crate) turn: u32,
    /// The model's window in tokens, as the machine knows it.
    pub(crate) window: Option<u64>,
    /// Run no command.
    pub(crate) plan_only: bool,
    /// A command is running, or was when the run was stopped.
    pub(crate) commanding: bool,
    /// Whether something may have changed since the last verification.
    pub(crate) dirty: bool,
    /// Whether a verification has run.
    pub(crate) checked: bool,
    /// Bytes and number of complete calls by tool, to estimate the length of a refused one.
    pub(crate) like_calls: HashMap<String, (usize, usize)>,
}

impl<'a> Driver<'a> {
    fn new(job: &Job, parts: Parts, journal: &'a mut Journal, past: &[Record]) -> Self {
        let earlier_ms = worked_ms(past);
        let said = past.iter().rposition(|r| matches!(r.event, Event::UserMessage { .. }));
        let limits_from_ms = said.map_or(0, |at| worked_ms(&past[..=at]));
        let identity = parts.model.identity();
        let limits = job.settings.limits;
        let repository = Arc::clone(&parts.repository);
        Self {
            first_call_only: match job.settings.cut {
                Cut::Auto => identity.local,
                Cut::First => true,
                Cut::ReadOn => false,
            },
            accountant: Accountant::of(past, limits, identity.price),
            deadline: limits.seconds.map(|seconds| {
                let used = Duration::from_millis(earlier_ms.saturating_sub(limits_from_ms));
                tokio::time::Instant::now() + Duration::from_secs(seconds).saturating_sub(used)
            }),
            // Runs that were refused together must not retry together, whether or not they share a
            // process.
            retries: Policy {
                retries: job.settings.max_retries,
                seed: fastrand::u64(..),
                ..Policy::default()
            },
            inbox: parts.inbox,
            waiting: VecDeque::new(),
            limits_from_ms,
            seconds: limits.seconds,
            model: parts.model,
            identity,
            tools: Arc::new(parts.tools),
            repository: parts.repository,
            verifier: parts.verifier.filter(|_| !job.settings.plan_only),
            interrupt: parts.interrupt,
            journal,
            started: Instant::now(),
            earlier: Duration::from_millis(earlier_ms),
            remembering: Some(tokio::task::spawn_blocking(move || repository.remember())),
            turn: 0,
            window: None,
            plan_only: job.settings.plan_only,
            commanding: false,
            dirty: false,
            checked: false,
            like_calls: HashMap::new(),
        }
    }

    /// The loop: does what the machine says is next, and tells the machine what came of it.
    async fn work(&mut self, mut machine: Machine, mut step: Step) -> Result<(Ending, String), Stop> {
        loop {
            self.write_down(&mut machine)?;
            if !matches!(step, Step::Write { .. })
                && let Some(text) = self.user_message()?
            {
                step = machine.next(Input::UserMessage(text));
                continue;
            }
            step = match step {
                Step::Ask(ask) => {
                    let input = self.ask(&mut machine, &ask).await?;
                    machine.next(input)
                }
                Step::Write { focus, why } => {
                    let check = self.write(&focus.path, &focus.content, &why).await?;
                    machine.next(Input::Written { content: focus.content, check })
                }
                Step::Finish(ending, message) => return Ok((self.real(ending, &machine).await?, message)),
            };
        }
    }

    /// Works until the run ends, and reports how it ended.
    async fn drive(mut self, started: Result<(Machine, Step), Stop>) -> Result<Report, Error> {
        let ended = match started {
            Ok((machine, step)) => self.work(machine, step).await,
            Err(stop) => Err(stop),
        };
        let (ending, message) = match ended {
            Ok(end) => end,
            Err(Stop::Ended(ending, message)) => (ending, message),
            Err(Stop::Journal(error)) => return Err(error),
        };
        self.finish(ending, message).await
    }

    /// What the user says next, written down. The limits count anew from here, and `finish` has to
    /// verify anew: somebody may have changed the tree since the last verification.
    fn user_message(&mut self) -> Result<Option<String>, Stop> {
        let next = self.waiting.pop_front().or_else(|| self.inbox.take());
        let Some(text) = next.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        self.journal.append(Event::UserMessage { text: text.clone() })?;
        self.renew_limits();
        self.dirty = true;
        Ok(Some(text))
    }

    /// What the user says to a session that is about to be resumed waits until the conversation can
    /// take it. The limits count anew now.
    pub(crate) fn let_wait(&mut self, waiting: VecDeque<String>) {
        self.waiting = waiting;
        while let Some(text) = self.inbox.take() {
            self.waiting.push_back(text);
        }
        if !self.waiting.is_empty() {
            self.renew_limits();
        }
    }

    fn renew_limits(&mut self) {
        self.accountant.renew();
        self.limits_from_ms = self.elapsed_ms();
        self.deadline = self.seconds.map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
    }

    /// The ending that the tree supports: changes that were reverted in the end are no change.
    async fn real(&mut self, ending: Ending, machine: &Machine) -> Result<Ending, Stop> {
        let done = matches!(ending, Ending::Verified | Ending::Unverified);
        if !done || machine.healed() || machine.fails() {
            return Ok(ending);
        }
        self.remembered().await?;
        let repository = Arc::clone(&self.repository);
        let changed = tokio::task::spawn_blocking(move || repository.changed()).await.unwrap_or(true);
        Ok(if changed { ending } else { Ending::NoChange })
    }

    /// Begins a run: verifies, composes the first turn, and writes down what the run starts from.
    /// With `shown`, the first turn shows what that plan showed of the repository.
    pub(crate) async fn begin(&mut self, job: Job, shown: Option<Plan>) -> Result<(Machine, Step), Stop> {
        let approach = job.settings.approach.resolve(&self.identity);
        self.journal.append(Event::Model(ModelInfo {
            server: self.identity.server.clone(),
            server_version: self.identity.server_version.clone(),
            model: self.identity.model.clone(),
            window: self.identity.window,
            thinking: self.identity.thinking,
            approach: approach.name().into(),
            why: job.why_model,
            family: self.identity.family.clone(),
            parameters_b: self.identity.parameters_b,
            local: Some(self.identity.local),
            price: self.identity.price,
        }))?;
        let baseline = match &self.verifier {
            Some(_) => Some(self.check().await?),
            None => None,
        };
        let (opening, focus) = match shown {
            Some(Plan { opening, focus, .. }) => (opening::again(opening, &self.tools, job.task), focus),
            None => opening::compose(
                &*self.repository,
                &self.tools,
                job.task,
                baseline.as_ref(),
                approach,
                self.identity.window,
            ),
        };
        let mut settings = job.settings;
        if self.identity.thinking {
            // Reasoning counts against the limit of an answer, and an answer with cut-off reasoning
            // is lost (docs/model-apis.md#deepseek-requests).
            let least = if self.identity.local { 8 << 10 } else { 32 << 10 };
            settings.max_answer_tokens = settings.max_answer_tokens.max(least);
            // Reasoning at temperature 0 goes in circles. 0.6 is what DeepSeek recommends for R1
            // and its distills
            // (docs/model-apis.md#deepseek-in-ollama).
            settings.temperature = if settings.temperature == 0.0 { 0.6 } else { settings.temperature };
        }
        self.window = self.identity.window;
        let plan = Plan {
            settings,
            opening,
            window: self.identity.window,
            has_verifier: self.verifier.is_some(),
            repeats_thinking: self.identity.repeats_thinking,
            branches: self.identity.branches,
            focus,
        };
        let kept = serde_json::to_value(&plan)
            .map_err(|e| refused(format!("cannot write the plan to the journal: {e}")))?;
        self.journal.append(Event::RunStarted { plan: kept })?;
        let mut machine = machine(plan, baseline)?;
        let step = machine.open();
        Ok((machine, step))
    }

    pub(crate) fn write_down(&mut self, machine: &mut Machine) -> Result<(), Stop> {
        for event in machine.log.drain(..) {
            self.journal.append(event)?;
        }
        Ok(())
    }

    /// Starts the next turn, also for the history of the tree.
    pub(crate) fn next_turn(&mut self) {
        self.turn += 1;
        self.repository.turn(self.turn);
    }

    /// Sends one request, retries it as long as that makes sense, and does everything its answer
    /// calls for.
    async fn ask(&mut self, machine: &mut Machine, ask: &Ask) -> Result<Input, Stop> {
        self.next_turn();
        let request = Request {
            messages: machine.messages.clone(),
            temperature: Some(ask.temperature),
            seed: ask.seed,
            max_tokens: ask.max_tokens,
            alternatives: ask.alternatives,
            stop: ask.stop.clone(),
        };
        let mut attempt = 1;
        loop {
            self.within_limits()?;
            let estimated_tokens = machine.estimator.messages(&request.messages);
            self.journal.append(Event::Request {
                turn: self.turn,
                attempt,
                messages: request.messages.len() as u32,
                estimated_tokens,
                temperature: request.temperature,
                seed: request.seed,
                max_tokens: request.max_tokens,
            })?;
            let error = match self.listen(machine, &request, ask, estimated_tokens).await? {
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
                    })?;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => attempt += 1,
                        stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
                    }
                }
                Decision::GiveUp(why) => {
                    let again = if matches!(error.retry(), models::Retry::Never) {
                        String::new()
                    } else {
                        format!(" ({why})")
                    };
                    let ending = match error {
                        models::Error::Settings(_) => Ending::Refused,
                        _ => Ending::Unavailable,
                    };
                    return Err(Stop::Ended(ending, format!("{error}{again}")));
                }
            }
        }
    }

    /// Writes a file for the machine, through the tool that makes every change, and verifies it if
    /// the machine asked for that.
    async fn write(&mut self, path: &str, content: &str, why: &Why) -> Result<Option<Check>, Stop> {
        let message = match why {
            Why::Restore => format!("{path} is reverted: the change did not help"),
            Why::Try => format!("{path}: trying another line where the model was unsure"),
        };
        let writer =
            self.tools.specs().find_map(|spec| Some((Arc::clone(spec), spec.write_file(path, content)?)));
        let Some((spec, arguments)) = writer else {
            return Err(refused(format!("{path} could not be written: no tool writes whole files")));
        };
        self.journal.append(Event::Guard { message })?;
        let mut acting = Acting::new(Arc::clone(&self.tools));
        acting.queue(crate::answer::ReadyCall {
            call: OWN_CALL,
            spec,
            arguments,
            parsed: tool_api::Parsed::default(),
            span: (0, 0),
            repairs: Vec::new(),
        });
        self.start(&mut acting, false).await?;
        let acted = acting.next().await;
        let mut turn = Turn::default();
        self.acted(acted, &mut turn).await?;
        if let Some(result) = turn.results.first().filter(|r| r.outcome.status != Status::Ok) {
            return Err(refused(format!("cannot write {path}: {}", result.outcome.text)));
        }
        match why {
            Why::Restore => Ok(None),
            Why::Try => Ok(Some(self.check().await?)),
        }
    }

    fn within_limits(&self) -> Result<(), Stop> {
        match self.accountant.reached(self.elapsed_ms().saturating_sub(self.limits_from_ms)) {
            Some(budget) => {
                let ending = Ending::Budget { budget };
                let message = format!("{}; what was done so far is kept", ending.label());
                Err(Stop::Ended(ending, message))
            }
            None => Ok(()),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        (self.earlier + self.started.elapsed()).as_millis() as u64
    }

    async fn finish(mut self, ending: Ending, mut message: String) -> Result<Report, Error> {
        if let Err(Stop::Ended(_, why)) = self.after_command().await {
            message = format!("{message}; {why}");
        }
        let diff = if self.remembered().await.is_ok() {
            let repository = Arc::clone(&self.repository);
            match tokio::task::spawn_blocking(move || repository.diff()).await {
                Ok(Ok(diff)) => diff,
                Ok(Err(why)) => {
                    message = format!("{message}; could not compute the diff: {why}");
                    Diff::default()
                }
                Err(_) => Diff::default(),
            }
        } else {
            Diff::default()
        };
        let totals = self.accountant.totals(self.elapsed_ms());
        self.journal.append(Event::Finished {
            ending: ending.clone(),
            message: message.clone(),
            diff: diff.clone(),
            totals,
        })?;
        Ok(Report { ending, message, diff, totals })
    }
}

pub(crate) fn machine(plan: Plan, baseline: Option<Check>) -> Result<Machine, Stop> {
    Machine::new(plan, baseline).map_err(|e| refused(format!("a prompt template is broken: {e}")))
}

/// Becomes ready when the run has to stop: interrupted, or out of time.
pub(crate) async fn stopped(
    mut interrupt: tokio::sync::watch::Receiver<bool>,
    deadline: Option<tokio::time::Instant>,
) -> Stop {
    let interrupted = async {
        if interrupt.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await; // the sender is gone, so nobody can interrupt
        }
    };
    let late = async {
        match deadline {
            Some(at) => tokio::time::sleep_until(at).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = interrupted => Stop::Ended(Ending::Interrupted, "stopped by a signal; what was done so far is kept".into()),
        () = late => {
            let ending = Ending::Budget { budget: journal::Budget::Time };
            let message = format!("{}; what was done so far is kept", ending.label());
            Stop::Ended(ending, message)
        }
    }
}
