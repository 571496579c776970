//! Downloads a model. Passes on the server's progress reports, and reports success only if the
//! server's last line does (docs/model-apis.md#ollama-pull).

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use serde::Serialize;

use crate::Error;
use crate::answer::{self, Item, Protocol};
use crate::failure::Body;
use crate::frames::Frame;
use crate::http::{ByteStream, Waits};

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// The digest, such as `sha256:…`.
    pub digest: String,
    /// Bytes downloaded. May decrease if a failed part is fetched again.
    pub completed: u64,
    /// Total number of bytes.
    pub total: u64,
}

/// The progress of a download.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PullProgress {
    /// What the server is doing, in its own words.
    pub status: String,
    /// The layers announced so far, in order. The server announces them one by one, so the sum of
    /// their totals grows.
    pub layers: Vec<Layer>,
    /// Whether the model is complete. True only in the last item of a successful pull.
    pub done: bool,
}

impl PullProgress {
    /// Returns the number of bytes downloaded for all layers announced so far.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.layers.iter().map(|layer| layer.completed).fold(0, u64::saturating_add)
    }

    /// Returns the total number of bytes in all layers announced so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.layers.iter().map(|layer| layer.total).fold(0, u64::saturating_add)
    }
}

/// The progress items of one download.
pub type PullStream = Pin<Box<dyn Stream<Item = Result<PullProgress, Error>> + Send>>;

#[derive(Default)]
struct Pull {
    state: PullProgress,
    model: String,
}

impl Protocol for Pull {
    type Item = PullProgress;

    fn frame(&mut self, frame: Frame, out: &mut VecDeque<PullProgress>) -> Result<(), Error> {
        let Frame::Json(line) = frame else { return Ok(()) };
        if line.get("error").is_some_and(|error| !error.is_null()) {
            let body = Body::from_json(&line);
            if body.message.contains("file does not exist") {
                let message = format!("there is no model {} to pull", self.model);
                return Err(Error::MissingModel { message, available: Vec::new() });
            }
            return Err(Error::Unavailable {
                message: format!("cannot pull {}: {}", self.model, body.message),
                retry_after: None,
            });
        }
        self.state.status = line["status"].as_str().unwrap_or_default().to_owned();
        if let (Some(digest), Some(total)) = (line["digest"].as_str(), line["total"].as_u64()) {
            let completed = line["completed"].as_u64().unwrap_or(0).min(total);
            match self.state.layers.iter_mut().find(|layer| layer.digest == digest) {
                Some(layer) => (layer.completed, layer.total) = (completed, total),
                None => self.state.layers.push(Layer { digest: digest.to_owned(), completed, total }),
            }
        }
        // Only the latest status counts, so this is set again on every line.
        self.state.done = self.state.status == "success";
        out.push_back(self.state.clone());
        Ok(())
    }
}

impl Item for PullProgress {
    fn is_end(&self) -> bool {
        self.done
    }
}

pub(super) fn progress(body: ByteStream, waits: Waits, model: &str) -> PullStream {
    let pull = Pull { state: PullProgress::default(), model: model.to_owned() };
    let unfinished = |error| match error {
        Error::Transport(why) => {
            Error::Transport(format!("the pull did not finish ({why}); run it again to continue"))
        }
        other => other,
    };
    Box::pin(answer::items(body, waits, pull).map(move |item| item.map_err(unfinished)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(lines: &[Value]) -> (Vec<PullProgress>, Result<(), Error>) {
        let mut pull = Pull { model: String::from("m"), ..Pull::default() };
        let mut out = VecDeque::new();
        let result = lines.iter().try_for_each(|line| pull.frame(Frame::Json(line.clone()), &mut out));
        (out.into(), result)
    }

    #[test]
    fn downloaded_bytes_are_summed_over_layers_and_may_decrease() {
        let (seen, result) = run(&[
            json!({"status": "pulling manifest"}),
            json!({"status": "pulling a", "digest": "a", "total": 100}),
            json!({"status": "pulling a", "digest": "a", "total": 100, "completed": 60}),
            json!({"status": "pulling a", "digest": "a", "total": 100, "completed": 40}),
            json!({"status": "pulling b", "digest": "b", "total": 10, "completed": 10}),
            json!({"status": "something new"}),
            json!({"status": "success"}),
        ]);
        assert_eq!(result, Ok(()));
        let sums: Vec<_> = seen.iter().map(|at| (at.completed(), at.total(), at.done)).collect();
        assert_eq!(
            sums,
            [
                (0, 0, false),
                (0, 100, false),
                (60, 100, false),
                (40, 100, false),
                (50, 110, false),
                (50, 110, false),
                (50, 110, true)
            ]
        );
    }

    #[test]
    fn an_error_line_fails_the_pull() {
        let (_, result) = run(&[
            json!({"status": "pulling manifest"}),
            json!({"error": "pull model manifest: file does not exist"}),
        ]);
        assert!(matches!(result, Err(Error::MissingModel { .. })));
        let (_, result) = run(&[json!({"error": "max retries exceeded"})]);
        assert!(matches!(result, Err(Error::Unavailable { .. })));
    }
}
