//! `--jobs`: how many tasks run at a time, given how many requests the server answers in parallel.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use journal::Ending;
use models::choose::Chosen;
use models::{Delta, Error, Identity, Message, Model, Notices, Request, Role};
use tokio::time::timeout;

use super::progress::Display;
use crate::cli::Jobs;
use crate::exit::Result;
use crate::figures::plural;
use crate::model;
use crate::sanitize;
use crate::settings::Settings;

/// The number of tasks to run at a time on a remote server that does not report how many requests
/// it handles in parallel. Hosted APIs can handle more, but new accounts often have low limits.
const REMOTE: u16 = 4;
/// How many requests [`measure`] sends at once.
const PROBES: usize = 8;
/// The message in each test request. The answer to it is longer than [`PROBE_TOKENS`].
const PROBE: &str = "Count from 1 to 100.";
/// The length of each answer, in tokens. It is long enough that parallel answers overlap even if
/// they do not begin at exactly the same time.
const PROBE_TOKENS: u32 = 32;
/// How long to wait for the first of several answers from a model that is already loaded.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// Returns how many tasks to run at a time, which is never more than the number of slots that the
/// server reports. Tells the user if that is not the given number. With `auto`, waits up to `wait`
/// for a server that is unavailable, or forever if `wait` is `None`.
pub(in crate::commands) async fn count(
    jobs: Jobs,
    settings: &Settings,
    wait: Option<Duration>,
    display: &Display,
) -> usize {
    if jobs == Jobs::Number(1) {
        return 1;
    }
    let wait = if jobs == Jobs::Auto { wait } else { Some(Duration::ZERO) };
    let (count, why) = match (jobs, open(settings, wait, display).await) {
        (Jobs::Auto, Ok(chosen)) => ask(&*chosen.model, display).await,
        (Jobs::Auto, Err(failure)) => (1, format!("cannot ask the server: {:#}", failure.error)),
        (Jobs::Number(jobs), Ok(chosen)) => match reported(&chosen.model.identity()) {
            Some((slots, why)) if slots < jobs => (slots, why),
            _ => return jobs.into(),
        },
        // The tasks will report the failure.
        (Jobs::Number(jobs), Err(_)) => return jobs.into(),
    };
    let tasks = plural(count.into(), "task");
    display.note(&format!("running {tasks} at a time: {}", sanitize::short(&why, 200)));
    count.into()
}

/// Opens the model. While its server is unavailable, retries for up to `wait`, or forever if `wait`
/// is `None`. Neither downloads a model nor asks the user.
async fn open(settings: &Settings, wait: Option<Duration>, display: &Display) -> Result<Chosen> {
    let settings = Settings { pull: false, ..settings.clone() };
    let (begun, mut tries) = (Instant::now(), 0);
    loop {
        let shown = display.clone();
        let notices = Notices::new(move |sentence| shown.note(&sanitize::short(sentence, 200)));
        let failure = match model::open(&settings, false, notices).await {
            Err(failure) if failure.ending == Ending::Unavailable => failure,
            opened => return opened,
        };
        let pause = ::batch::backoff(tries);
        if wait.is_some_and(|wait| begun.elapsed() + pause > wait) {
            return Err(failure);
        }
        if tries == 0 {
            let why = format!("{:#}", failure.error);
            display.note(&format!("cannot ask the server, retrying: {}", sanitize::short(&why, 200)));
        }
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

/// Returns the number of slots that a server reports.
fn reported(server: &Identity) -> Option<(u16, String)> {
    let slots = server.slots?.min(Jobs::MAX);
    Some((slots, format!("{} answers that many requests at a time", server.server)))
}

/// Returns how many tasks to run at a time on a model's server, and the reason.
async fn ask(model: &dyn Model, display: &Display) -> (u16, String) {
    let server = model.identity();
    if let Some(known) = decide(&server) {
        return known;
    }
    let name = &server.server;
    display.note(&format!("measuring how many requests {name} answers in parallel"));
    match measure(model).await {
        Ok(jobs) => (jobs, format!("{name} answered that many of {PROBES} test requests in parallel")),
        Err(error) => (1, format!("a test request to {name} failed: {error}")),
    }
}

/// Decides without a measurement, if possible. Test requests must not cost money.
fn decide(server: &Identity) -> Option<(u16, String)> {
    let name = &server.server;
    reported(server).or_else(|| match server.local && server.price.is_none() {
        true => None,
        false => Some((REMOTE, format!("the default for hosted models; {name} does not report a number"))),
    })
}

/// Measures how many requests a server answers in parallel: sends several at once, and counts the
/// answers that have begun when the first one ends, or when time runs out. A server that is out of
/// slots either refuses the other requests or makes them wait.
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
    // The first answer may take as long as the settings allow, because the model may have to be
    // loaded. It also reveals which features the server lacks, so that later requests avoid them.
    answer().await?;
    begun.set(0);
    let first = async {
        let mut answers: FuturesUnordered<_> = (0..PROBES).map(|_| answer()).collect();
        while let Some(answered) = answers.next().await {
            match answered {
                Err(Error::Busy { .. }) => {}
                other => return other,
            }
        }
        Ok(())
    };
    timeout(PROBE_TIME, first).await.unwrap_or(Ok(()))?;
    Ok(begun.get().max(1))
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
