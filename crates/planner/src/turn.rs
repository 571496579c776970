//! The driver's work on one answer: streams and journals it, runs its calls, and verifies the
//! changes they make.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use journal::{CutReason, EndedBy, Ending, Event};
use models::{Message, Request, Role};
use tool_api::{Outcome, Status};

use crate::answer::{Answer, AnswerEvent, AnswerOptions, Refused};
use crate::budget;
use crate::calls::{self, CallQueue, CallResult, FinishedCall};
use crate::driver::{Driver, Stop, refused, stopped};
use crate::machine::{Ask, Machine, Turn};

/// The outcome of one request: the completed turn, or why there is no answer.
pub(crate) type RequestResult = Result<Turn, models::Error>;

impl Driver<'_> {
    /// Streams one answer and runs its calls.
    pub(crate) async fn stream_answer(
        &mut self,
        machine: &mut Machine,
        request: &Request,
        ask: &Ask,
        estimated_tokens: u64,
    ) -> Result<RequestResult, Stop> {
        let sent = Instant::now();
        let mut first_token_ms = None;
        let stopped = stopped(self.interrupt.clone(), self.deadline);
        tokio::pin!(stopped);
        let mut stream = tokio::select! {
            stream = self.model.stream(request) => match stream {
                Ok(stream) => stream,
                Err(error) => return Ok(Err(error)),
            },
            stop = &mut stopped => return Err(stop),
        };
        let tools = Arc::clone(&self.tools);
        let mut calls = CallQueue::new(Arc::clone(&tools));
        let by_model = |m: &&Arc<Message>| m.role == Role::Assistant;
        let mut answer = Answer::new(AnswerOptions {
            tools: &tools,
            first_call_only: self.first_call_only,
            wanted: &ask.wanted,
            continues: request.messages.last().filter(by_model).map(|m| m.content.as_str()),
            previous: request.messages.iter().rfind(by_model).map(|m| m.content.as_str()),
        });
        let mut turn = Turn::default();
        let mut events = Vec::new();
        let mut reading = true;
        while reading {
            tokio::select! {
                biased;
                stop = &mut stopped => {
                    self.journal.append(Event::Cut { turn: self.turn, why: CutReason::Stopped, at: answer.content.len() as u64 })?;
                    self.count_lost(&answer, estimated_tokens, first_token_ms, sent)?;
                    return Err(stop);
                }
                finished = calls.next() => self.record_result(finished, &mut turn).await?,
                delta = stream.next() => match delta {
                    Some(Ok(delta)) => {
                        if matches!(delta, models::Delta::Text(_) | models::Delta::Thinking(_) | models::Delta::ToolCall { .. }) {
                            first_token_ms.get_or_insert_with(|| sent.elapsed().as_millis() as u64);
                        }
                        answer.feed(delta, &mut events);
                    }
                    broken => {
                        let error = match broken {
                            Some(Err(error)) => error,
                            _ => models::Error::Transport("the server closed the stream before the answer was complete".into()),
                        };
                        if !answer.has_call() {
                            self.count_lost(&answer, estimated_tokens, first_token_ms, sent)?;
                            return Ok(Err(error));
                        }
                        // The complete calls can still be used.
                        self.journal.append(Event::Warning { message: format!("{error}; continuing with the complete calls") })?;
                        answer.truncate_after_last_call();
                        reading = false;
                    }
                },
            }
            for event in events.drain(..) {
                reading &= !matches!(event, AnswerEvent::Cut(_) | AnswerEvent::Ended(_));
                self.record(event, &answer.content, &mut turn, &mut calls)?;
            }
            if self.first_call_only || !reading {
                // Calls start only after the stream is closed, so that the server stops generating.
                continue;
            }
            self.start_calls(&mut calls, true).await?;
        }
        drop(stream);
        tokio::task::yield_now().await; // let the connection close before a tool blocks the thread
        let counts =
            budget::counts(&answer.usage, answer.pieces, first_token_ms, sent.elapsed().as_millis() as u64);
        let (content, thinking) = (std::mem::take(&mut answer.content), std::mem::take(&mut answer.thinking));
        turn.doubts = std::mem::take(&mut answer.doubts);
        self.journal.append(Event::Output {
            turn: self.turn,
            content: content.clone(),
            thinking: thinking.clone(),
            ended_by: turn.ended_by.unwrap_or(EndedBy::Cut),
            doubts: turn.doubts.clone(),
            counts,
        })?;
        self.count_answer(machine, &request.messages, &counts, estimated_tokens)?;
        (turn.content, turn.thinking) = (content, thinking);
        self.run_queued_calls(&mut calls, &mut turn).await?;
        self.after_calls(&mut turn).await?;
        Ok(Ok(turn))
    }

    /// Journals an event from the answer. If the event is a complete call, queues the call.
    fn record(
        &mut self,
        event: AnswerEvent,
        content: &str,
        turn: &mut Turn,
        calls: &mut CallQueue,
    ) -> Result<(), Stop> {
        let n = self.turn;
        let event = match event {
            AnswerEvent::Thinking(text) => Event::Thinking { turn: n, text },
            AnswerEvent::Text(text) => Event::Text { turn: n, text },
            AnswerEvent::Opened { call, tool } => Event::CallOpened { turn: n, call, tool },
            AnswerEvent::Ready(call) => {
                let size = (call.span.1 - call.span.0) as usize;
                let seen = self.call_sizes.entry(call.spec.name.clone()).or_default();
                *seen = (seen.0 + size, seen.1 + 1);
                let event = Event::Call {
                    turn: n,
                    call: call.call,
                    tool: call.spec.name.clone(),
                    arguments: call.arguments.clone(),
                    span: call.span,
                    repairs: call.repairs.clone(),
                };
                calls.queue(call);
                event
            }
            AnswerEvent::Refused(refused) => {
                let saved_bytes = self.saved_bytes(&refused);
                let saved_tokens = self.accountant.save(saved_bytes);
                turn.refused = Some(refused.message.clone());
                Event::Refused {
                    turn: n,
                    tool: refused.tool,
                    early: refused.early,
                    message: refused.message,
                    saved_tokens,
                }
            }
            AnswerEvent::Cut(why) => {
                turn.ended_by = Some(EndedBy::Cut);
                Event::Cut { turn: n, why, at: content.len() as u64 }
            }
            AnswerEvent::Ended(ended_by) => {
                turn.ended_by = Some(ended_by);
                return Ok(());
            }
        };
        Ok(self.journal.append(event)?)
    }

    /// Estimates how many more bytes of a refused call the model would have written, based on the
    /// average length of complete calls to the same tool. If there have been none, returns 0 as a
    /// lower bound.
    fn saved_bytes(&self, refused: &Refused) -> u64 {
        let early = refused.tool.as_ref().filter(|_| refused.early);
        let Some((bytes, calls)) = early.and_then(|tool| self.call_sizes.get(tool)) else { return 0 };
        (bytes / calls.max(&1)).saturating_sub(refused.written) as u64
    }

    /// Starts the queued calls that may run now.
    pub(crate) async fn start_calls(&mut self, calls: &mut CallQueue, streaming: bool) -> Result<(), Stop> {
        while let Some(call) = calls.take_startable(streaming) {
            if call.spec.effect != tool_api::Effect::Read {
                self.await_snapshot().await?;
                (self.dirty, self.unsettled) = (true, true);
            }
            if call.spec.effect == tool_api::Effect::Execute {
                if self.plan_only {
                    let message = "the plan ends at the first command; the patch contains the changes so far";
                    return Err(Stop::Ended(Ending::Unverified, message.into()));
                }
                self.before_command().await?;
            }
            self.journal.append(Event::ToolStarted {
                turn: self.turn,
                call: call.call,
                tool: call.spec.name.clone(),
                effect: calls::effect_name(call.spec.effect).to_owned(),
            })?;
            calls.start(call);
        }
        Ok(())
    }

    /// Journals the result of a call and adds it to the turn.
    pub(crate) async fn record_result(
        &mut self,
        finished: FinishedCall,
        turn: &mut Turn,
    ) -> Result<(), Stop> {
        let FinishedCall { call, result, ms } = finished;
        let changed = call.spec.effect == tool_api::Effect::Execute && self.after_command().await?;
        let mut outcome = match result {
            Ok(outcome) => outcome,
            Err(tool_api::ToolError::Model(message)) => {
                Outcome { status: Status::Refused, ..Outcome::ok(message) }
            }
            Err(tool_api::ToolError::Run(message)) => return Err(refused(message)),
        };
        // Files that a test run leaves behind are not the model's work.
        if changed && !call.spec.verifies(&call.arguments) {
            calls::note_change(&mut outcome);
        }
        self.journal.append(Event::ToolFinished {
            turn: self.turn,
            call: call.call,
            tool: call.spec.name.clone(),
            status: calls::status_name(outcome.status).to_owned(),
            text: outcome.text.clone(),
            changed: outcome.changed.clone(),
            facts: outcome.facts.clone(),
            ms,
        })?;
        turn.results.push(CallResult { spec: call.spec, arguments: call.arguments, outcome });
        Ok(())
    }

    /// Verifies the tree if files changed, or if the model says it is done and the last
    /// verification may be stale.
    pub(crate) async fn after_calls(&mut self, turn: &mut Turn) -> Result<(), Stop> {
        let changed = turn.results.iter().any(|r| !r.outcome.changed.is_empty());
        let finishing = turn.results.iter().any(|r| r.spec.finishes);
        if self.verifier.is_some() && (changed || (finishing && (self.dirty || !self.checked))) {
            turn.check = Some(self.check().await?);
        }
        for message in self.model.verify().await {
            self.journal.append(Event::Warning { message })?;
        }
        let window = self.model.identity().window;
        if let Some(tokens) = window.filter(|_| window != self.window) {
            self.journal.append(Event::Window { turn: self.turn, tokens })?;
            (self.window, turn.window) = (window, window);
        }
        Ok(())
    }

    /// Counts the tokens of a lost answer, because the server charges for them.
    fn count_lost(
        &mut self,
        answer: &Answer<'_>,
        estimated_tokens: u64,
        first_token_ms: Option<u64>,
        sent: Instant,
    ) -> Result<(), Stop> {
        let usage = &answer.usage;
        if answer.pieces == 0 && *usage == models::Usage::default() {
            return Ok(());
        }
        let estimated = usage.prompt_tokens.is_none() || usage.generated_tokens.is_none();
        let total_ms = sent.elapsed().as_millis() as u64;
        let mut counts = budget::counts(usage, answer.pieces, first_token_ms, total_ms);
        counts.prompt_tokens.get_or_insert(estimated_tokens);
        self.accountant.spend(&counts, estimated_tokens);
        Ok(self.journal.append(Event::AnswerLost { turn: self.turn, counts, estimated })?)
    }

    /// Counts the tokens of an answer, and calibrates the estimator with the number of prompt
    /// tokens that the server counted.
    fn count_answer(
        &mut self,
        machine: &mut Machine,
        sent: &[Arc<Message>],
        counts: &journal::Counts,
        estimated: u64,
    ) -> Result<(), Stop> {
        self.accountant.add(counts, estimated);
        let Some(counted) = counts.prompt_tokens else { return Ok(()) };
        if counted * 2 < estimated && estimated > 1_000 {
            let message = format!(
                "the server counted {counted} of about {estimated} prompt tokens: it may have truncated the prompt; check the model's window"
            );
            self.journal.append(Event::Warning { message })?;
        }
        machine.estimator.learn(sent, counted);
        Ok(())
    }
}
