//! Shows what a run is waiting for, and for how long, until the model server starts to answer. On a
//! terminal, updates a single line; in a log, writes lines at increasing intervals.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use models::{Delta, DeltaStream, Error, Identity, Model, Notices, Request};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::console;
use crate::figures::{duration, thousands};
use crate::sanitize;

/// The waiting times, in seconds, after which a line is written to a log. After the last one, a
/// line is written every ten minutes.
const LINES: [u64; 6] = [10, 30, 60, 120, 300, 600];
/// The waiting time, in seconds, after which a terminal shows a line.
const FIRST: u64 = 2;
/// Clears the line on a terminal.
const CLEAR: &str = "\r\x1b[2K";
/// The approximate size of a token, in bytes.
const BYTES_PER_TOKEN: usize = 4;

/// Writes text to the output, unchanged.
pub(crate) type Out = Arc<dyn Fn(&str) + Send + Sync>;

/// How to show that a run is waiting for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Not at all.
    Unseen,
    /// As a single line that is updated.
    Live,
    /// As log lines.
    Lines,
}

impl Waits {
    /// Chooses the display, depending on whether progress is wanted and whether standard error is a
    /// terminal.
    pub(crate) fn for_people(quiet: bool) -> Self {
        match (quiet, console::stderr_is_terminal()) {
            (true, _) => Waits::Unseen,
            (false, true) => Waits::Live,
            (false, false) => Waits::Lines,
        }
    }

    /// Returns a callback that tells the user about each wait while a model is being opened.
    pub(crate) fn notices(self) -> Notices {
        match self {
            Waits::Unseen => Notices::default(),
            Waits::Live | Waits::Lines => {
                Notices::new(|sentence| console::say(format_args!("  ! {}", sanitize::line(sentence))))
            }
        }
    }

    /// Wraps a model so that waits are shown on standard error.
    pub(crate) fn explain(self, model: Box<dyn Model>) -> Box<dyn Model> {
        if self == Waits::Unseen {
            return model;
        }
        let out: Out = Arc::new(|text| {
            let mut stderr = std::io::stderr().lock();
            // A closed stderr must not stop a run.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        });
        Box::new(WaitingModel::new(model, self == Waits::Live, out))
    }
}

/// A model that shows what it is waiting for.
pub(crate) struct WaitingModel {
    model: Box<dyn Model>,
    /// Whether the line can be updated.
    live: bool,
    out: Out,
}

impl WaitingModel {
    pub(crate) fn new(model: Box<dyn Model>, live: bool, out: Out) -> Self {
        Self { model, live, out }
    }
}

/// One wait, which ends when this is dropped.
struct Wait {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
    live: bool,
    out: Out,
}

#[derive(Default)]
struct State {
    /// The number of prompt tokens evaluated so far, and the total number, if the server reports
    /// them.
    progress: Option<(u64, u64)>,
    /// Whether a line was shown.
    shown: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wait {
    fn begin(subject: Subject, live: bool, out: &Out) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn({
            let (state, out) = (Arc::clone(&state), Arc::clone(out));
            async move {
                let begun = Instant::now();
                for seconds in moments(live) {
                    sleep_until(begun + Duration::from_secs(seconds)).await;
                    let mut state = lock(&state);
                    let line = subject.line(state.progress, seconds);
                    out(&if live { format!("{CLEAR}{line}") } else { format!("{line}\n") });
                    state.shown = true;
                }
            }
        });
        Self { state, task, live, out: Arc::clone(out) }
    }

    /// Records a piece of the answer. Returns whether the wait continues.
    fn record(&self, delta: &Delta) -> bool {
        if let Delta::Progress { processed, total } = delta {
            lock(&self.state).progress = Some((*processed, *total));
        }
        matches!(delta, Delta::Progress { .. } | Delta::Usage(_))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.task.abort();
        let state = lock(&self.state);
        if self.live && state.shown {
            (self.out)(CLEAR);
        }
    }
}

/// Returns the waiting times, in seconds, at which a line is shown.
fn moments(live: bool) -> Box<dyn Iterator<Item = u64> + Send> {
    if live { Box::new(FIRST..) } else { Box::new(LINES.into_iter().chain((1..).map(|n| 600 + n * 600))) }
}

/// What a run is waiting for.
struct Subject {
    model: String,
    local: bool,
    prompt_tokens: u64,
}

impl Subject {
    fn line(&self, progress: Option<(u64, u64)>, seconds: u64) -> String {
        let doing = match progress {
            Some((processed, total)) if processed < total => {
                format!("evaluating the prompt ({} of {} tokens)", thousands(processed), thousands(total))
            }
            Some(_) => "first token".to_owned(),
            None if self.local => {
                format!(
                    "loading the model, or evaluating about {} prompt tokens",
                    thousands(self.prompt_tokens)
                )
            }
            None => "no answer yet".to_owned(),
        };
        format!("  · waiting for {}: {doing}, {}", self.model, duration(seconds * 1000))
    }
}

#[async_trait]
impl Model for WaitingModel {
    fn identity(&self) -> Identity {
        self.model.identity()
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        let identity = self.model.identity();
        let bytes: usize = request.messages.iter().map(|message| message.content.len()).sum();
        let subject = Subject {
            model: sanitize::short(&identity.model, 40),
            local: identity.local,
            prompt_tokens: (bytes / BYTES_PER_TOKEN) as u64,
        };
        let wait = Wait::begin(subject, self.live, &self.out);
        let stream = self.model.stream(request).await?;
        let mut wait = Some(wait);
        Ok(Box::pin(stream.inspect(move |delta| {
            let continues = matches!((delta, &wait), (Ok(delta), Some(wait)) if wait.record(delta));
            if !continues {
                wait = None;
            }
        })))
    }

    async fn verify(&self) -> Vec<String> {
        self.model.verify().await
    }

    async fn outlook(&self) -> Result<Option<String>, Error> {
        self.model.outlook().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::{End, EndReason, Usage};

    /// A model that waits, reports progress, waits again, and answers.
    struct Slow;

    #[async_trait]
    impl Model for Slow {
        fn identity(&self) -> Identity {
            Identity { local: true, ..models::replay::Replay::identity_named("big") }
        }

        async fn stream(&self, _: &Request) -> Result<DeltaStream, Error> {
            tokio::time::sleep(Duration::from_secs(65)).await;
            let progress = futures_util::stream::iter([Ok(Delta::Progress { processed: 2048, total: 4096 })]);
            let answer = futures_util::stream::once(async {
                tokio::time::sleep(Duration::from_secs(1500)).await;
                Ok(Delta::Text("x".into()))
            });
            let end = futures_util::stream::once(async {
                tokio::time::sleep(Duration::from_secs(900)).await;
                Ok(Delta::End(End { reason: EndReason::Stop, usage: Usage::default() }))
            });
            Ok(Box::pin(progress.chain(answer).chain(end)))
        }
    }

    async fn watch(live: bool) -> String {
        let seen = Arc::new(Mutex::new(String::new()));
        let out: Out = Arc::new({
            let seen = Arc::clone(&seen);
            move |text: &str| seen.lock().unwrap().push_str(text)
        });
        let model = WaitingModel::new(Box::new(Slow), live, out);
        let message = models::Message::new(models::Role::User, "word ".repeat(800));
        let request = Request { messages: vec![message.into()], max_tokens: 9, ..Request::default() };
        models::collect(model.stream(&request).await.unwrap()).await.unwrap();
        seen.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_names_the_wait_at_growing_intervals_until_the_answer() {
        insta::assert_snapshot!(watch(false).await, @r"
        · waiting for big: loading the model, or evaluating about 1,000 prompt tokens, 10.0 s
        · waiting for big: loading the model, or evaluating about 1,000 prompt tokens, 30.0 s
        · waiting for big: loading the model, or evaluating about 1,000 prompt tokens, 1 min 0 s
        · waiting for big: evaluating the prompt (2,048 of 4,096 tokens), 2 min 0 s
        · waiting for big: evaluating the prompt (2,048 of 4,096 tokens), 5 min 0 s
        · waiting for big: evaluating the prompt (2,048 of 4,096 tokens), 10 min 0 s
        · waiting for big: evaluating the prompt (2,048 of 4,096 tokens), 20 min 0 s
        ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_has_one_line_that_is_gone_when_the_answer_comes() {
        let seen = watch(true).await;
        assert!(seen.starts_with(CLEAR) && seen.ends_with(CLEAR) && !seen.contains('\n'), "{seen:?}");
        assert!(seen.matches("waiting").count() > 1500, "it changes each second");
    }
}
