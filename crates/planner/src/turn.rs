//! One answer, driven: streams it, writes down what is heard, runs its calls as they become complete, and verifies what they changed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use journal::{CutReason, EndedBy, Ending, Event};
use models::{Message, Request, Role};
use tool_api::Status;

use crate::acting::{self, Acted, Acting, CallResult};
use crate::answer::{Answer, Heard, Listening, Refused};
use crate::budget;
use crate::driver::{Driver, Stop, refused, stopped};
use crate::machine::{Ask, Machine, Turn};

/// What came of one request: an answer and all that followed from it, or why there is none.
pub(crate) type Listened = Result<Turn, models::Error>;

impl Driver<'_> {
    /// Streams one answer, acting on its calls as they become complete.
    pub(crate) async fn listen(
        &mut self,
        machine: &mut Machine,
        request: &Request,
        ask: &Ask,
        estimated_tokens: u64,
    ) -> Result<Listened, Stop> {
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
        let mut acting = Acting::new(Arc::clone(&tools));
        let mut answer = Answer::new(Listening {
            tools: &tools,
            first_call_only: self.first_call_only,
            wanted: &ask.wanted,
            continues: request
                .messages
                .last()
                .filter(|m| m.role == Role::Assistant)
                .map(|m| m.content.as_str()),
            previous: request
                .messages
                .iter()
                .rfind(|m| m.role == Role::Assistant)
                .map(|m| m.content.as_str()),
        });
        let mut turn = Turn::default();
        let mut heard = Vec::new();
        let mut reading = true;
        while reading {
            tokio::select! {
                biased;
                stop = &mut stopped => {
                    self.journal.append(Event::Cut { turn: self.turn, why: CutReason::Stopped, at: answer.content.len() as u64 })?;
                    self.lost(&answer, estimated_tokens, first_token_ms, sent)?;
                    return Err(stop);
                }
                acted = acting.next() => self.acted(acted, &mut turn).await?,
                delta = stream.next() => match delta {
                    Some(Ok(delta)) => {
                        if matches!(delta, models::Delta::Text(_) | models::Delta::Thinking(_) | models::Delta::ToolCall { .. }) {
                            first_token_ms.get_or_insert_with(|| sent.elapsed().as_millis() as u64);
                        }
                        answer.hear(delta, &mut heard);
                    }
                    broken => {
                        let error = match broken {
                            Some(Err(error)) => error,
                            _ => models::Error::Transport("the server closed the stream before the answer was complete".into()),
                        };
                        if !answer.has_call() {
                            self.lost(&answer, estimated_tokens, first_token_ms, sent)?;
                            return Ok(Err(error));
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
            self.start(&mut acting, true).await?;
        }
        drop(stream);
        tokio::task::yield_now().await; // lets the connection really close before a tool keeps the thread busy
        let counts =
            budget::counts(&answer.usage, answer.pieces, first_token_ms, sent.elapsed().as_millis() as u64);
        let (content, thinking) = (std::mem::take(&mut answer.content), std::mem::take(&mut answer.thinking));
        (turn.block, turn.doubts) = (answer.block, std::mem::take(&mut answer.doubts));
        self.journal.append(Event::Output {
            turn: self.turn,
            content: content.clone(),
            thinking: thinking.clone(),
            ended_by: turn.ended_by.unwrap_or(EndedBy::Cut),
            block: turn.block.map(|at| at as u64),
            doubts: turn.doubts.clone(),
            counts,
        })?;
        self.account(machine, &request.messages, &counts, estimated_tokens)?;
        (turn.content, turn.thinking) = (content, thinking);
        self.carry_out(&mut acting, &mut turn).await?;
        self.after_calls(&mut turn).await?;
        Ok(Ok(turn))
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
                let seen = self.like_calls.entry(call.spec.name.clone()).or_default();
                *seen = (seen.0 + size, seen.1 + 1);
                let event = Event::Call {
                    turn: n,
                    call: call.call,
                    tool: call.spec.name.clone(),
                    arguments: call.arguments.clone(),
                    span: call.span,
                    repairs: call.repairs.clone(),
                };
                acting.queue(call);
                event
            }
            Heard::Refused(refused) => {
                let saved = self.saved(&refused);
                let saved_tokens = self.accountant.save(saved);
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

    /// Bytes that the rest of a refused call would have cost, going by complete calls of the same tool. A lower bound: nothing is
    /// claimed for the first of its kind.
    fn saved(&self, refused: &Refused) -> u64 {
        let Some((bytes, calls)) = refused.tool.as_ref().and_then(|t| self.like_calls.get(t)) else {
            return 0;
        };
        if !refused.early {
            return 0;
        }
        (bytes / calls.max(&1)).saturating_sub(refused.written) as u64
    }

    /// Starts the queued calls that may run now.
    pub(crate) async fn start(&mut self, acting: &mut Acting, streaming: bool) -> Result<(), Stop> {
        while let Some(call) = acting.startable(streaming) {
            if call.spec.effect != tool_api::Effect::Read {
                self.remembered().await?;
                self.dirty = true;
            }
            if call.spec.effect == tool_api::Effect::Execute {
                if self.plan_only {
                    let message = "a plan ends where the first command would run; what was changed by then is in the patch";
                    return Err(Stop::Ended(Ending::Unverified, message.into()));
                }
                self.before_command().await?;
            }
            self.journal.append(Event::ToolStarted {
                turn: self.turn,
                call: call.call,
                tool: call.spec.name.clone(),
                effect: acting::name(call.spec.effect).to_owned(),
            })?;
            acting.start(call);
        }
        Ok(())
    }

    pub(crate) async fn acted(&mut self, acted: Acted, turn: &mut Turn) -> Result<(), Stop> {
        let Acted { call, result, ms } = acted;
        let changed = call.spec.effect == tool_api::Effect::Execute && self.after_command().await?;
        let mut outcome = match result {
            Ok(outcome) => outcome,
            Err(tool_api::ToolError::Model(message)) => {
                tool_api::Outcome { status: Status::Refused, ..tool_api::Outcome::ok(message) }
            }
            Err(tool_api::ToolError::Run(message)) => return Err(refused(message)),
        };
        // Files that a verification leaves behind are not the model's work.
        if changed && !call.spec.verifies(&call.arguments) {
            acting::note_change(&mut outcome);
        }
        self.journal.append(Event::ToolFinished {
            turn: self.turn,
            call: call.call,
            tool: call.spec.name.clone(),
            status: acting::status(outcome.status).to_owned(),
            text: outcome.text.clone(),
            changed: outcome.changed.clone(),
            facts: outcome.facts.clone(),
            ms,
        })?;
        turn.results.push(CallResult { spec: call.spec, arguments: call.arguments, outcome });
        Ok(())
    }

    /// Verifies when files changed, or when the model says it is done and something may have changed since the last time, if there was one.
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

    /// Counts what a lost answer used: the server charges for it all the same.
    fn lost(
        &mut self,
        answer: &Answer<'_>,
        estimated_tokens: u64,
        first_token_ms: Option<u64>,
        sent: Instant,
    ) -> Result<(), Stop> {
        let usage = &answer.usage;
        if answer.pieces == 0 && *usage == models::Usage::default() {
            return Ok(()); // nothing had arrived
        }
        let estimated = usage.prompt_tokens.is_none() || usage.generated_tokens.is_none();
        let total_ms = sent.elapsed().as_millis() as u64;
        let mut counts = budget::counts(usage, answer.pieces, first_token_ms, total_ms);
        counts.prompt_tokens.get_or_insert(estimated_tokens);
        self.accountant.spend(&counts, estimated_tokens);
        Ok(self.journal.append(Event::AnswerLost { turn: self.turn, counts, estimated })?)
    }

    /// Counts an answer, and learns from the server's count of its prompt.
    fn account(
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
                "the server counted {counted} prompt tokens where about {estimated} were sent: it may have cut the prompt; check the model's window"
            );
            self.journal.append(Event::Warning { message })?;
        }
        machine.estimator.learn(sent, counted);
        Ok(())
    }
}
