//! The driver: does what the machine says, and the waiting. Sends requests (again), verifies, journals each event before its effect,
//! keeps to the limits, and takes the final diff. What happens while one answer streams is in [`crate::turn`].

use std::collections::HashMap;
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
use crate::machine::{Ask, Begin, Input, Machine, Step, Turn, Why};
use crate::opening;
use crate::resume::{self, OWN_CALL, Past, Plan};
use crate::settings::{Cut, Dialect};
use crate::{Error, Job, Parts, Report, Repository, Verifier};

/// Works on a task until it ends, one way or another. The final diff is taken from the tree on every path.
///
/// # Errors
/// Only when the journal cannot be written: then nothing more may take effect.
pub async fn run(job: Job, parts: Parts, journal: &mut Journal) -> Result<Report, Error> {
    resume(job, parts, journal, &[]).await
}

/// Takes up a run whose journal ends early; the job's limits count from its first beginning. The journal has been opened for appending.
///
/// # Errors
/// As [`run`].
pub async fn resume(job: Job, parts: Parts, journal: &mut Journal, past: &[Record]) -> Result<Report, Error> {
    let driver = Driver::new(&job, parts, journal, past);
    go(driver, job, past).await
}

/// As [`run`], with parts that repeat a recorded run: it does not pause before a request is sent again. With `begun`, the plan in a journal,
/// the first turn shows what that one showed of the repository.
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
    driver.shown = begun.and_then(|plan| serde_json::from_value(plan.clone()).ok());
    go(driver, job, &[]).await
}

async fn go(mut driver: Driver<'_>, job: Job, past: &[Record]) -> Result<Report, Error> {
    let (ending, message) = match driver.work(job, past).await {
        Ok(end) => end,
        Err(Stop::Ended(ending, message)) => (ending, message),
        Err(Stop::Journal(error)) => return Err(error),
    };
    driver.finish(ending, message).await
}

/// Why the work cannot go on.
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
    /// How long other processes worked on this run before.
    earlier: Duration,
    pub(crate) deadline: Option<tokio::time::Instant>,
    pub(crate) accountant: Accountant,
    pub(crate) first_call_only: bool,
    pub(crate) retries: Policy,
    /// What a recorded run was begun with, to be shown again.
    shown: Option<Plan>,
    /// The tree being remembered in the background; awaited before the first effect.
    pub(crate) remembering: Option<JoinHandle<Result<(), String>>>,
    pub(crate) turn: u32,
    /// The model's window in tokens, as the machine knows it.
    pub(crate) window: Option<u64>,
    /// Nothing is to be run.
    pub(crate) plan_only: bool,
    /// A command runs, or did when the run was stopped.
    pub(crate) commanding: bool,
    /// Whether something may have changed since the last verification.
    pub(crate) dirty: bool,
    /// Whether there was a verification.
    pub(crate) checked: bool,
    /// Bytes and number of complete calls by tool: what a refused one would have come to.
    pub(crate) like_calls: HashMap<String, (usize, usize)>,
}

impl<'a> Driver<'a> {
    fn new(job: &Job, parts: Parts, journal: &'a mut Journal, past: &[Record]) -> Self {
        let earlier = Duration::from_millis(worked_ms(past));
        let identity = parts.model.identity();
        let limits = job.settings.limits;
        let repository = Arc::clone(&parts.repository);
        Self {
            first_call_only: match job.settings.cut {
                Cut::Auto => identity.local,
                Cut::First => true,
                Cut::ReadOn => false,
            },
            accountant: Accountant::new(limits, identity.price),
            deadline: limits
                .seconds
                .map(|s| tokio::time::Instant::now() + Duration::from_secs(s).saturating_sub(earlier)),
            // Two agents that were refused together shall not come back together.
            retries: Policy {
                retries: job.settings.max_retries,
                seed: u64::from(std::process::id()),
                ..Policy::default()
            },
            shown: None,
            model: parts.model,
            identity,
            tools: Arc::new(parts.tools),
            repository: parts.repository,
            verifier: parts.verifier.filter(|_| !job.settings.plan_only),
            interrupt: parts.interrupt,
            journal,
            started: Instant::now(),
            earlier,
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

    /// The loop.
    async fn work(&mut self, job: Job, past: &[Record]) -> Result<(Ending, String), Stop> {
        let (mut machine, mut step) = match resume::plan(past).map_err(refused)? {
            Some(plan) => self.take_up(job, Past::new(past, plan)).await?,
            None => {
                let mut machine = self.begin(job).await?;
                let step = machine.open();
                (machine, step)
            }
        };
        loop {
            self.write_down(&mut machine)?;
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

    /// An ending by what the tree says: changes that were taken back in the end are none.
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

    async fn begin(&mut self, job: Job) -> Result<Machine, Stop> {
        let dialect = opening::dialect(job.settings.dialect, &self.identity);
        self.journal.append(Event::Model(ModelInfo {
            server: self.identity.server.clone(),
            server_version: self.identity.server_version.clone(),
            model: self.identity.model.clone(),
            window: self.identity.window,
            thinking: self.identity.thinking,
            dialect: if dialect == Dialect::WholeFile { "whole-file".into() } else { "json".into() },
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
        let (opening, focus) = match self.shown.take() {
            Some(Plan { opening, focus, .. }) => (opening::again(opening, &self.tools, job.task), focus),
            None => opening::compose(
                &*self.repository,
                &self.tools,
                job.task,
                baseline.as_ref(),
                dialect,
                self.identity.window,
            ),
        };
        let mut settings = job.settings;
        if self.identity.thinking {
            // Reasoning counts against the limit of an answer (wire reference 2.2), and cut-off reasoning is an answer lost.
            let least = if self.identity.local { 8 << 10 } else { 32 << 10 };
            settings.max_answer_tokens = settings.max_answer_tokens.max(least);
            // Reasoning at temperature 0 goes in circles; 0.6 is what the vendor of the distills advises (wire reference 4).
            settings.temperature = if settings.temperature == 0.0 { 0.6 } else { settings.temperature };
        }
        self.window = self.identity.window;
        let plan = Plan {
            settings,
            opening,
            window: self.identity.window,
            has_verifier: self.verifier.is_some(),
            send_thinking: self.identity.server == "deepseek",
            branches: self.identity.branches,
            focus,
        };
        let kept =
            serde_json::to_value(&plan).map_err(|e| refused(format!("the plan cannot be kept: {e}")))?;
        self.journal.append(Event::Begun { plan: kept })?;
        machine(plan, baseline)
    }

    pub(crate) fn write_down(&mut self, machine: &mut Machine) -> Result<(), Stop> {
        for event in machine.log.drain(..) {
            self.journal.append(event)?;
        }
        Ok(())
    }

    /// From now on it is the next turn, for the history of the tree too.
    pub(crate) fn next_turn(&mut self) {
        self.turn += 1;
        self.repository.turn(self.turn);
    }

    /// One request, sent again as long as that makes sense, and everything that its answer calls for.
    async fn ask(&mut self, machine: &mut Machine, ask: &Ask) -> Result<Input, Stop> {
        self.next_turn();
        let request = Request {
            messages: machine.messages.clone(),
            temperature: Some(ask.temperature),
            seed: ask.seed,
            max_tokens: ask.max_tokens,
            format: None,
            alternatives: ask.alternatives,
            stop: ask.stop.clone(),
        };
        let mut attempt = 1;
        loop {
            self.within_limits()?;
            self.journal.append(Event::Request {
                turn: self.turn,
                attempt,
                messages: request.messages.len() as u32,
                estimated_tokens: machine.estimator.messages(&request.messages),
                temperature: request.temperature,
                seed: request.seed,
                max_tokens: request.max_tokens,
            })?;
            let error = match self.listen(machine, &request, ask).await? {
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

    pub(crate) async fn check(&mut self) -> Result<Check, Stop> {
        let Some(verifier) = self.verifier.clone() else {
            return Err(refused("there is nothing to verify with"));
        };
        self.remembered().await?;
        self.before_command().await?;
        self.journal.append(Event::CheckStarted { command: verifier.command() })?;
        let check = tokio::select! {
            check = verifier.verify() => check.map_err(refused)?,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.after_command().await?;
        self.dirty = false;
        self.checked = true;
        self.journal.append(Event::Checked(check.clone()))?;
        Ok(check)
    }

    /// Takes note of the tree before a command changes it.
    pub(crate) async fn before_command(&mut self) -> Result<(), Stop> {
        self.commanding = true;
        let repository = Arc::clone(&self.repository);
        noted(tokio::task::spawn_blocking(move || repository.before_command()).await)
    }

    /// Takes note of what a command changed; whether it did.
    pub(crate) async fn after_command(&mut self) -> Result<bool, Stop> {
        if !std::mem::take(&mut self.commanding) {
            return Ok(false);
        }
        let repository = Arc::clone(&self.repository);
        let changed = noted(tokio::task::spawn_blocking(move || repository.after_command()).await)?;
        if let Some(record) = changed {
            self.journal.append(Event::CommandChanged { record })?;
        }
        Ok(changed.is_some())
    }

    /// Runs all queued calls to their end.
    pub(crate) async fn carry_out(&mut self, acting: &mut Acting, turn: &mut Turn) -> Result<(), Stop> {
        let stopped = stopped(self.interrupt.clone(), self.deadline);
        tokio::pin!(stopped);
        loop {
            self.start(acting, false).await?;
            if acting.is_idle() {
                return Ok(());
            }
            tokio::select! {
                acted = acting.next() => self.acted(acted, turn).await?,
                stop = &mut stopped => return Err(stop),
            }
        }
    }

    /// Writes a file for the machine, by the same way every change goes, and verifies it where that was asked for.
    async fn write(&mut self, path: &str, content: &str, why: &Why) -> Result<Option<Check>, Stop> {
        let message = match why {
            Why::Restore => format!("{path} is put back to what it was: the change made things no better"),
            Why::Try => format!("{path}: trying another line where the model was in doubt"),
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
            return Err(refused(format!("{path} could not be written: {}", result.outcome.text)));
        }
        match why {
            Why::Restore => Ok(None),
            Why::Try => Ok(Some(self.check().await?)),
        }
    }

    /// Waits until the tree as it was found is remembered: before anything can change it.
    pub(crate) async fn remembered(&mut self) -> Result<(), Stop> {
        let Some(handle) = self.remembering.take() else { return Ok(()) };
        match handle.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(refused(format!("the state of the repository could not be recorded: {why}"))),
            Err(_) => Err(refused("the state of the repository could not be recorded")),
        }
    }

    fn within_limits(&self) -> Result<(), Stop> {
        match self.accountant.reached(self.elapsed_ms()) {
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
                    message = format!("{message}; what was changed could not be told: {why}");
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
    let prompts =
        crate::prompts::Prompts::new().map_err(|e| refused(format!("a prompt template is broken: {e}")))?;
    let Plan { settings, opening, window, has_verifier, send_thinking, branches, focus } = plan;
    let begin =
        Begin { settings, prompts, opening, window, has_verifier, baseline, send_thinking, branches, focus };
    Ok(Machine::new(begin))
}

pub(crate) fn noted<T>(done: Result<Result<T, String>, tokio::task::JoinError>) -> Result<T, Stop> {
    let why = match done {
        Ok(Ok(noted)) => return Ok(noted),
        Ok(Err(why)) => why,
        Err(_) => "a thread broke".into(),
    };
    Err(refused(format!("what a command changes could not be recorded: {why}")))
}

/// Becomes ready when the run has to stop: interrupted, or out of time.
pub(crate) async fn stopped(
    mut interrupt: tokio::sync::watch::Receiver<bool>,
    deadline: Option<tokio::time::Instant>,
) -> Stop {
    let interrupted = async {
        if interrupt.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await; // nobody is left who could interrupt
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
