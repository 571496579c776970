//! `--jobs auto`: runs one task for each request that the server can answer in parallel.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use models::{Delta, Error, Identity, Message, Model, Notices, Request, Role};
use tokio::time::timeout;

use super::progress::Display;
use crate::cli::Jobs;
use crate::figures::plural;
use crate::model;
use crate::sanitize;
use crate::settings::Settings;

/// The number of tasks to run at a time on a remote server that does not report how many requests
/// it handles in parallel. Hosted APIs can handle more, but new accounts often have low limits.
const REMOTE: u16 = 4;
/// How many requests [`measure`] sends.
const PROBES: usize = 8;
/// The request that [`measure`] sends. A full answer would be longer than [`PROBE_TOKENS`].
const PROBE: &str = "Count from 1 to 100.";
/// The length of each answer, in tokens. It must be long enough that answers generated in parallel
/// overlap even if they do not begin at exactly the same time.
const PROBE_TOKENS: u32 = 32;
/// The time limit for the first answer, which may have to wait until the model is loaded.
const PROBE_TIME: Duration = Duration::from_secs(180);

/// Returns how many tasks to run at a time. With `auto`, asks the server and reports the decision.
pub(in crate::commands) async fn count(jobs: Jobs, settings: &Settings, display: &Display) -> usize {
    if let Jobs::Number(jobs) = jobs {
        return jobs.into();
    }
    // This neither downloads a model nor asks the user.
    let settings = Settings { pull: false, ..settings.clone() };
    let (jobs, why) = match model::open(&settings, false, Notices::default()).await {
        Ok(chosen) => ask(&*chosen.model).await,
        Err(failure) => (1, format!("cannot ask the server: {:#}", failure.error)),
    };
    let tasks = plural(jobs.into(), "task");
    display.note(&format!("running {tasks} at a time: {}", sanitize::short(&why, 200)));
    jobs.into()
}

/// Returns how many tasks to run at a time on a model's server, and the reason.
async fn ask(model: &dyn Model) -> (u16, String) {
    let server = model.identity();
    if let Some(known) = decide(&server) {
        return known;
    }
    let name = &server.server;
    match timeout(PROBE_TIME, measure(model)).await {
        Ok(Ok(jobs)) => (jobs, format!("{name} answered that many of {PROBES} test requests in parallel")),
        Ok(Err(error)) => (1, format!("a test request to {name} failed: {error}")),
        Err(_) => (1, format!("{name} did not answer a test request within {} s", PROBE_TIME.as_secs())),
    }
}

/// Decides without a measurement, if possible. Requests to a remote server may cost money, so only
/// local servers are measured.
fn decide(server: &Identity) -> Option<(u16, String)> {
    let name = &server.server;
    match server.slots {
        Some(slots) => Some((slots.min(Jobs::MAX), format!("{name} answers that many requests at a time"))),
        None if server.local => None,
        None => Some((REMOTE, format!("the default for hosted models; {name} does not report a number"))),
    }
}

/// Measures how many requests a server answers in parallel: sends several at once, and counts the
/// answers that have begun when the first one ends. A server that is out of slots either refuses
/// the other requests or lets them wait.
async fn measure(model: &dyn Model) -> Result<u16, Error> {
    let message = Arc::new(Message::new(Role::User, PROBE));
    let request = Request { messages: vec![message], max_tokens: PROBE_TOKENS, ..Request::default() };
    let begun = Cell::new(0);
    let answer = async || {
        let mut deltas = model.stream(&request).await?;
        let mut has_begun = false;
        while let Some(delta) = deltas.next().await {
            let is_text = matches!(delta?, Delta::Text(_) | Delta::Thinking(_) | Delta::ToolCall { .. });
            if is_text && !has_begun {
                has_begun = true;
                begun.set(begun.get() + 1);
            }
        }
        Ok(())
    };
    let mut answers: FuturesUnordered<_> = (0..PROBES).map(|_| answer()).collect();
    while let Some(answered) = answers.next().await {
        match answered {
            Ok(()) => return Ok(begun.get().max(1)),
            Err(Error::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(1) // the server was too busy for any of the requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_reported_slots_a_remote_server_gets_four_tasks_and_a_local_server_is_measured() {
        let server =
            |slots, local| decide(&Identity { slots, local, ..Identity::default() }).map(|(jobs, _)| jobs);
        assert_eq!(server(Some(6), true), Some(6));
        assert_eq!(server(Some(6), false), Some(6));
        assert_eq!(server(Some(9999), true), Some(256));
        assert_eq!(server(None, true), None);
        assert_eq!(server(None, false), Some(4));
    }
}
