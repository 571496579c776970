//! Handles prompts: checks each one, runs it on its own thread, and responds with its stop reason.

use std::sync::Arc;

use ::acp::{ending, prompt};
use agent_client_protocol::v1::schema::{
    PromptRequest, PromptResponse, SessionId, SessionInfoUpdate, SessionUpdate, StopReason,
};
use agent_client_protocol::v1::{ConnectionTo, Responder};
use agent_client_protocol::{Client, Error, ErrorCode};
use journal::{Ending, Report};
use tokio::sync::watch;

use super::answer;
use super::host::{Answer, Host, internal, invalid, shown};
use super::turn::Turn;
use crate::exit::Result;
use crate::interrupt;
use crate::sanitize;
use crate::task;

/// Maximum number of prompts that run at a time. Each one has a thread and may run commands.
const MAX_RUNS: usize = 8;
/// Maximum total size, in bytes, of the earlier prompts that are repeated in a prompt.
const MAX_EARLIER: usize = 16 << 10;

impl Host {
    pub(super) fn prompt(
        self: &Arc<Self>,
        request: PromptRequest,
        responder: Responder<PromptResponse>,
        client: ConnectionTo<Client>,
    ) {
        let (turn, busy) = match self.begin(&request, &client) {
            Ok(begun) => begun,
            Err(error) => return answer!(responder, Err(error)),
        };
        let cancellation = responder.cancellation();
        tokio::spawn(async move {
            let work = interrupt::on_own_thread(async move || turn.run().await);
            tokio::pin!(work);
            let done = tokio::select! {
                done = &mut work => done,
                () = cancellation.cancelled() => {
                    busy.stop.send_replace(true);
                    work.await
                }
            };
            drop(busy); // the editor may send the next prompt as soon as it has the answer
            answer!(responder, outcome(done));
        });
    }

    /// Checks a prompt, and marks its session as busy.
    fn begin(
        self: &Arc<Self>,
        request: &PromptRequest,
        client: &ConnectionTo<Client>,
    ) -> Answer<(Turn, Busy)> {
        let id = &request.session_id;
        let running = *self.runs.borrow();
        self.with(id, |session| {
            if session.running.is_some() {
                return Err(invalid("a prompt is already running in this session; cancel it first"));
            }
            if running >= MAX_RUNS {
                return Err(invalid(format!("{MAX_RUNS} prompts are running; wait for one to end")));
            }
            let text = prompt::text(&request.prompt, &session.root).map_err(invalid)?;
            if text.len() as u64 > task::LIMIT {
                return Err(invalid(format!("the prompt is longer than {} KiB", task::LIMIT / 1024)));
            }
            let title = sanitize::short(text.lines().next().unwrap_or_default(), 80);
            let editor = self.editor_now(id, client);
            editor.send(SessionUpdate::SessionInfoUpdate(SessionInfoUpdate::new().title(title)));
            if let Some(notice) = session.notice.take() {
                editor.say(&format!("{notice}\n\n"));
            }
            let stop = watch::Sender::new(false);
            let editor = self.editor(id, client, stop.subscribe());
            let prompt = with_earlier(&session.earlier, &text);
            match session.choices.mode.is_dry() {
                true => remember(&mut session.earlier, text),
                false => session.earlier.clear(),
            }
            let mut given = self.flags.clone();
            if let Some(model) = &session.choices.model {
                given.retain(|(key, _)| *key != "model");
                given.push(("model", model.clone()));
            }
            let turn = Turn {
                editor,
                context: session.context.clone(),
                store: self.store.clone(),
                root: session.root.clone(),
                prompt,
                started_in: session.choices.mode,
                mode: session.mode.subscribe(),
                standing: Arc::clone(&session.standing),
                servers: session.servers.clone(),
                given,
            };
            session.running = Some(stop.clone());
            self.runs.send_modify(|runs| *runs += 1);
            Ok((turn, Busy { host: Arc::clone(self), id: id.clone(), stop }))
        })
    }
}

/// Marks a session as busy until it is dropped.
struct Busy {
    host: Arc<Host>,
    id: SessionId,
    stop: watch::Sender<bool>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.host.with(&self.id, |session| {
            // The session may have been closed and loaded again since then.
            if session.running.as_ref().is_some_and(|running| running.same_channel(&self.stop)) {
                session.running = None;
            }
            Ok(())
        });
        self.host.runs.send_modify(|runs| *runs -= 1);
    }
}

/// Remembers the prompt of a dry run. Drops the oldest prompts if their total size exceeds
/// [`MAX_EARLIER`].
fn remember(earlier: &mut Vec<String>, mut text: String) {
    let end = (0..=MAX_EARLIER.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    earlier.push(text);
    while earlier.iter().map(String::len).sum::<usize>() > MAX_EARLIER {
        earlier.remove(0);
    }
}

/// Returns a prompt followed by the earlier prompts that were only dry runs.
fn with_earlier(earlier: &[String], text: &str) -> String {
    if earlier.is_empty() {
        return text.to_owned();
    }
    let earlier = earlier.join("\n\n");
    format!("{text}\n\nEarlier messages (their changes were only proposed, not made):\n\n{earlier}")
}

/// Converts the outcome of a run to a response to its prompt.
fn outcome(done: Result<Report>) -> Answer<PromptResponse> {
    let report = match done {
        Ok(report) => report,
        Err(failure) if failure.ending == Ending::Interrupted => {
            return Ok(PromptResponse::new(StopReason::Cancelled));
        }
        Err(failure) => return Err(internal(&failure)),
    };
    match ending::stop_reason(&report.ending) {
        Some(reason) => Ok(PromptResponse::new(reason)),
        // If there was no answer at all, there is probably no model set up.
        None if report.totals.turns == 0 => Err(Error::new(ErrorCode::AUTH_REQUIRED, shown(&report.message))),
        None => Err(Error::new(ErrorCode::INTERNAL_ERROR, shown(&report.message))),
    }
}
