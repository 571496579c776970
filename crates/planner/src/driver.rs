//! The driver: does what the machine says, and the waiting. Streams answers, runs tools and verifications, journals each event
//! before its effect, and keeps to the limits.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use journal::{Check, CutReason, Diff, EndedBy, Ending, Event, Journal, ModelInfo};
use models::{Identity, Message, Request, Retry};
use tokio::task::JoinHandle;
use tool_api::{Registry, Status};

use crate::acting::{Acted, Acting};
use crate::answer::{Answer, Heard, Listening};
use crate::budget::{self, Accountant};
use crate::machine::{Ask, Begin, CallResult, Input, Machine, Step, Turn};
use crate::opening;
use crate::settings::{Cut, Dialect};
use crate::{Error, Finish, Job, Parts, Report, Repository, Verifier};

/// Works on a task until it ends, one way or another. The final diff is taken from the tree on every path.
///
/// # Errors
/// Only when the journal cannot be written: then nothing more may take effect.
pub async fn run(job: Job, parts: Parts, journal: &mut Journal) -> Result<Report, Error> {
    let mut driver = Driver::new(&job, parts, journal);
    let (ending, message) = match driver.work(job).await {
        Ok(end) => end,
        Err(Stop::Ended(ending, message)) => (ending, message),
        Err(Stop::Journal(error)) => return Err(error),
    };
    driver.finish(ending, message).await
}

/// Why the work cannot go on.
enum Stop {
    Ended(Ending, String),
    Journal(Error),
}

impl From<journal::Error> for Stop {
    fn from(error: journal::Error) -> Self {
        Stop::Journal(Error::Journal(error))
    }
}

fn refused(message: impl Into<String>) -> Stop {
    Stop::Ended(Ending::Refused, message.into())
}

/// What came of one request.
enum Listened {
    Turn(Turn),
    Failed(models::Error),
}

struct Driver<'a> {
    model: Box<dyn models::Model>,
    identity: Identity,
    tools: Arc<Registry>,
    repository: Arc<dyn Repository>,
    verifier: Option<Arc<dyn Verifier>>,
    interrupt: tokio::sync::watch::Receiver<bool>,
    journal: &'a mut Journal,
    started: Instant,
    deadline: Option<tokio::time::Instant>,
    accountant: Accountant,
    first_call_only: bool,
    max_retries: u32,
    /// The tree being remembered in the background; awaited before the first effect.
    remembering: Option<JoinHandle<Result<(), String>>>,
    turn: u32,
    /// Whether something may have changed since the last verification.
    dirty: bool,
    verified_window: bool,
    /// Bytes and number of complete calls by tool: what a refused one would have come to.
    like_calls: HashMap<String, (usize, usize)>,
}

impl<'a> Driver<'a> {
    fn new(job: &Job, parts: Parts, journal: &'a mut Journal) -> Self {
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
            deadline: limits.seconds.map(|s| tokio::time::Instant::now() + Duration::from_secs(s)),
            max_retries: job.settings.max_retries,
            model: parts.model,
            identity,
            tools: Arc::new(parts.tools.with(Finish)),
            repository: parts.repository,
            verifier: parts.verifier,
            interrupt: parts.interrupt,
            journal,
            started: Instant::now(),
            remembering: Some(tokio::task::spawn_blocking(move || repository.remember())),
            turn: 0,
            dirty: false,
            verified_window: false,
            like_calls: HashMap::new(),
        }
    }

    /// The loop.
    async fn work(&mut self, job: Job) -> Result<(Ending, String), Stop> {
        let mut machine = self.begin(job).await?;
        let mut step = machine.open();
        loop {
            self.write_down(&mut machine)?;
            step = match step {
                Step::Ask(ask) => {
                    let input = self.ask(&mut machine, &ask).await?;
                    machine.next(input)
                }
                Step::Restore { focus, then } => {
                    self.restore(&focus.path, &focus.content).await?;
                    then.map_or_else(|| machine.exhausted(), Step::Ask)
                }
                Step::Finish(ending, message) => return Ok((ending, message)),
            };
        }
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
        }))?;
        let baseline = match &self.verifier {
            Some(_) => Some(self.check().await?),
            None => None,
        };
        let (opening, focus) = opening::compose(
            &*self.repository,
            &self.tools,
            job.task,
            baseline.as_ref(),
            dialect,
            self.identity.window,
        );
        let prompts = crate::prompts::Prompts::new()
            .map_err(|e| refused(format!("a prompt template is broken: {e}")))?;
        Ok(Machine::new(Begin {
            settings: job.settings,
            prompts,
            opening,
            window: self.identity.window,
            has_verifier: self.verifier.is_some(),
            baseline,
            send_thinking: self.identity.server == "deepseek",
            focus,
        }))
    }

    fn write_down(&mut self, machine: &mut Machine) -> Result<(), Stop> {
        for event in machine.log.drain(..) {
            self.journal.append(event)?;
        }
        Ok(())
    }

    /// One request, sent again as long as that makes sense, and everything that its answer calls for.
    async fn ask(&mut self, machine: &mut Machine, ask: &Ask) -> Result<Input, Stop> {
        self.turn += 1;
        let request = Request {
            messages: machine.messages.clone(),
            temperature: Some(ask.temperature),
            seed: ask.seed,
            max_tokens: ask.max_tokens,
            format: None,
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
                Listened::Turn(turn) => return Ok(Input::Answered(turn)),
                Listened::Failed(error) => error,
            };
            match error.retry() {
                Retry::Compact => {
                    let window =
                        if let models::Error::Overflow { window, .. } = &error { *window } else { None };
                    self.journal.append(Event::Warning { message: error.to_string() })?;
                    return Ok(Input::Overflow { window });
                }
                Retry::After(wait) if attempt <= self.max_retries => {
                    let wait = wait.map_or_else(|| backoff(attempt), Duration::from_secs);
                    let wait_ms = wait.as_millis() as u64;
                    self.journal.append(Event::Retry {
                        turn: self.turn,
                        error: error.to_string(),
                        wait_ms,
                    })?;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
                    }
                    attempt += 1;
                }
                Retry::After(_) | Retry::Never => {
                    return Err(Stop::Ended(Ending::Unavailable, error.to_string()));
                }
            }
        }
    }

    /// Streams one answer, acting on its calls as they become complete.
    async fn listen(
        &mut self,
        machine: &mut Machine,
        request: &Request,
        ask: &Ask,
    ) -> Result<Listened, Stop> {
        let sent = Instant::now();
        let mut first_token_ms = None;
        let stopped = stopped(self.interrupt.clone(), self.deadline);
        tokio::pin!(stopped);
        let mut stream = tokio::select! {
            stream = self.model.stream(request) => match stream {
                Ok(stream) => stream,
                Err(error) => return Ok(Listened::Failed(error)),
            },
            stop = &mut stopped => return Err(stop),
        };
        let tools = Arc::clone(&self.tools);
        let mut acting = Acting::new(Arc::clone(&tools));
        let mut answer = Answer::new(Listening {
            tools: &tools,
            first_call_only: self.first_call_only,
            focus: ask.focus.as_ref(),
        });
        let mut turn = Turn::default();
        let mut heard = Vec::new();
        let mut reading = true;
        while reading {
            tokio::select! {
                biased;
                stop = &mut stopped => {
                    self.journal.append(Event::Cut { turn: self.turn, why: CutReason::Stopped, at: answer.content.len() as u64 })?;
                    return Err(stop);
                }
                acted = acting.next() => self.acted(acted, &mut turn)?,
                delta = stream.next() => match delta {
                    Some(Ok(delta)) => {
                        first_token_ms.get_or_insert_with(|| sent.elapsed().as_millis() as u64);
                        answer.hear(delta, &mut heard);
                    }
                    broken => {
                        let error = match broken {
                            Some(Err(error)) => error,
                            _ => models::Error::Transport("the server closed the stream before the answer was complete".into()),
                        };
                        if !answer.has_call() {
                            return Ok(Listened::Failed(error));
                        }
                        // What stands behind a complete call is lost, as if we had cut there; the call itself is whole.
                        self.journal.append(Event::Warning { message: format!("{error}; going on with the calls that were complete") })?;
                        answer.cut_behind_last_call();
                        reading = false;
                    }
                },
            }
            for heard in heard.drain(..) {
                reading &= !matches!(heard, Heard::Cut(_) | Heard::Ended(_));
                self.heard(heard, &answer.content, &mut turn, &mut acting)?;
            }
            if self.first_call_only || !reading {
                continue; // a tool starts once the stream is closed, so that nothing keeps the server generating
            }
            self.start(&mut acting).await?;
        }
        drop(stream);
        let counts =
            budget::counts(&answer.usage, answer.pieces, first_token_ms, sent.elapsed().as_millis() as u64);
        let (content, thinking) = (std::mem::take(&mut answer.content), std::mem::take(&mut answer.thinking));
        self.journal.append(Event::Output {
            turn: self.turn,
            content: content.clone(),
            thinking: thinking.clone(),
            ended_by: turn.ended_by.unwrap_or(EndedBy::Cut),
            counts,
        })?;
        self.account(machine, &request.messages, &counts)?;
        (turn.content, turn.thinking) = (content, thinking);
        loop {
            self.start(&mut acting).await?;
            if acting.is_idle() {
                break;
            }
            tokio::select! {
                acted = acting.next() => self.acted(acted, &mut turn)?,
                stop = &mut stopped => return Err(stop),
            }
        }
        self.after_calls(&mut turn).await?;
        Ok(Listened::Turn(turn))
    }

    /// Writes down what was heard, and queues calls.
    fn heard(
        &mut self,
        heard: Heard,
        content: &str,
        turn: &mut Turn,
        acting: &mut Acting,
    ) -> Result<(), Stop> {
        let n = self.turn;
        let event = match heard {
            Heard::Thinking(text) => Event::Thinking { turn: n, text },
            Heard::Text(text) => Event::Text { turn: n, text },
            Heard::Opened { call, tool } => Event::CallOpened { turn: n, call, tool },
            Heard::Ready(call) => {
                let size = (call.span.1 - call.span.0) as usize;
                let seen = self.like_calls.entry(call.tool.clone()).or_default();
                *seen = (seen.0 + size, seen.1 + 1);
                let event = Event::Call {
                    turn: n,
                    call: call.call,
                    tool: call.tool.clone(),
                    arguments: call.arguments.clone(),
                    span: call.span,
                    repairs: call.repairs.clone(),
                };
                acting.queue(call);
                event
            }
            Heard::Refused(refused) => {
                let saved_tokens = self.saved(&refused);
                self.accountant.save(saved_tokens);
                turn.refused = Some(refused.message.clone());
                Event::Refused {
                    turn: n,
                    tool: refused.tool,
                    early: refused.early,
                    message: refused.message,
                    saved_tokens,
                }
            }
            Heard::Cut(why) => {
                turn.cut = Some(why);
                turn.ended_by = Some(EndedBy::Cut);
                Event::Cut { turn: n, why, at: content.len() as u64 }
            }
            Heard::Ended(ended_by) => {
                turn.ended_by = Some(ended_by);
                return Ok(());
            }
        };
        Ok(self.journal.append(event)?)
    }

    /// Tokens that the rest of a refused call would have cost, going by complete calls of the same tool. A lower bound: nothing is
    /// claimed for the first of its kind.
    fn saved(&self, refused: &crate::answer::Refused) -> u64 {
        let Some((bytes, calls)) = refused.tool.as_ref().and_then(|t| self.like_calls.get(t)) else {
            return 0;
        };
        if !refused.early {
            return 0;
        }
        ((bytes / calls.max(&1)).saturating_sub(refused.written) / 4) as u64
    }

    /// Starts the queued calls that may run now.
    async fn start(&mut self, acting: &mut Acting) -> Result<(), Stop> {
        while let Some(call) = acting.startable() {
            if call.effect != tool_api::Effect::Read {
                self.remembered().await?;
                self.dirty = true;
            }
            self.journal.append(Event::ToolStarted {
                turn: self.turn,
                call: call.call,
                tool: call.tool.clone(),
                effect: crate::acting::name(call.effect).to_owned(),
            })?;
            acting.start(call);
        }
        Ok(())
    }

    fn acted(&mut self, acted: Acted, turn: &mut Turn) -> Result<(), Stop> {
        let Acted { call, result, ms } = acted;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(tool_api::ToolError::Model(message)) => {
                tool_api::Outcome { status: Status::Refused, ..tool_api::Outcome::ok(message) }
            }
            Err(tool_api::ToolError::Run(message)) => return Err(refused(message)),
        };
        self.journal.append(Event::ToolFinished {
            turn: self.turn,
            call: call.call,
            tool: call.tool.clone(),
            status: crate::acting::status(outcome.status).to_owned(),
            text: outcome.text.clone(),
            changed: outcome.changed.clone(),
            facts: outcome.facts.clone(),
            ms,
        })?;
        turn.results.push(CallResult { tool: call.tool, arguments: call.arguments, outcome });
        Ok(())
    }

    /// Verifies when files changed, or when the model says it is done and something may have changed since the last time.
    async fn after_calls(&mut self, turn: &mut Turn) -> Result<(), Stop> {
        let changed = turn.results.iter().any(|r| !r.outcome.changed.is_empty());
        let finishing = turn.results.iter().any(|r| r.tool == "finish");
        if self.verifier.is_some() && (changed || (finishing && self.dirty)) {
            turn.check = Some(self.check().await?);
        }
        if !self.verified_window {
            self.verified_window = true;
            for message in self.model.verify().await {
                self.journal.append(Event::Warning { message })?;
            }
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<Check, Stop> {
        let Some(verifier) = self.verifier.clone() else {
            return Err(refused("there is nothing to verify with"));
        };
        self.remembered().await?;
        self.journal.append(Event::CheckStarted { command: verifier.command() })?;
        let check = tokio::select! {
            check = verifier.verify() => check.map_err(refused)?,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.dirty = false;
        self.journal.append(Event::Checked(check.clone()))?;
        Ok(check)
    }

    /// Puts a file back to what it was, by the same way every change goes.
    async fn restore(&mut self, path: &str, content: &str) -> Result<(), Stop> {
        let arguments = serde_json::json!({ "path": path, "content": content });
        self.journal.append(Event::Guard {
            message: format!("{path} is put back to what it was: the change made things no better"),
        })?;
        let mut acting = Acting::new(Arc::clone(&self.tools));
        acting.queue(crate::answer::ReadyCall {
            call: u32::MAX,
            tool: "apply_patch".into(),
            arguments,
            effect: tool_api::Effect::Write,
            span: (0, 0),
            repairs: Vec::new(),
        });
        self.start(&mut acting).await?;
        let acted = acting.next().await;
        let mut turn = Turn::default();
        self.acted(acted, &mut turn)?;
        match turn.results.first() {
            Some(result) if result.outcome.status == Status::Ok => Ok(()),
            Some(result) => Err(refused(format!("{path} could not be put back: {}", result.outcome.text))),
            None => Ok(()),
        }
    }

    fn account(
        &mut self,
        machine: &mut Machine,
        sent: &[Message],
        counts: &journal::Counts,
    ) -> Result<(), Stop> {
        let estimated = machine.estimator.messages(sent);
        self.accountant.add(counts, estimated);
        if let Some(counted) = counts.prompt_tokens {
            if counted * 2 < estimated && estimated > 1_000 {
                let message = format!(
                    "the server counted {counted} prompt tokens where about {estimated} were sent: it may have cut the prompt; check the model's window"
                );
                self.journal.append(Event::Warning { message })?;
            }
            machine.estimator.learn(sent, counted);
        }
        Ok(())
    }

    /// Waits until the tree as it was found is remembered: before anything can change it.
    async fn remembered(&mut self) -> Result<(), Stop> {
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
        self.started.elapsed().as_millis() as u64
    }

    async fn finish(mut self, ending: Ending, mut message: String) -> Result<Report, Error> {
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

/// Half a second, doubled with each attempt up to 16 s; a server that is down for seconds is worth waiting for.
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(500 << (attempt - 1).min(5))
}

/// Becomes ready when the run has to stop: interrupted, or out of time.
async fn stopped(
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
