//! Runs a model in this process, using llama.cpp behind [`models::Model`].
//!
//! [`Embedded::open`] loads a GGUF file. The model's answers are streamed like those of a server.
//! Running the model in this process has several advantages:
//!
//! - **Generation stops at the exact token.** A token is generated only when the reader is waiting
//!   for it, so cutting an answer short after a complete call wastes nothing but guessed tokens.
//! - **Only new text is evaluated.** A conversation is compared with the KV cache byte by byte.
//!   After a cut or a refusal, the cache is rolled back to the last token before the first
//!   difference.
//! - **The system prompt is evaluated once per model.** The prompt's KV cache is saved to disk and
//!   loaded the next time.
//! - **Copying is fast.** Where an answer repeats the prompt, its next tokens are guessed, and
//!   several are evaluated at once.
//! - **An answer can be constrained** to a JSON Schema ([`Request::constraint`]). Text that the
//!   schema fully determines is evaluated in one batch.
//! - **Alternative tokens cost nothing extra.**
//! - **Concurrent answers** are generated in one batch and share the cache of a common prefix.
//!
//! Internally, data flows in one direction: messages → `template` → text → `worker` (with `cache`,
//! `saved`, `sample` and `constrain`) → tokens → `output` → [`Delta`]s.

mod cache;
mod constrain;
mod cpu;
mod draft;
mod open;
mod output;
mod room;
mod sample;
mod saved;
mod sequence;
mod template;
mod trial;
mod worker;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use futures_util::Stream;
use models::{Delta, DeltaStream, Error, Identity, Model, Request};
use tokio::sync::{mpsc as channel, oneshot};

pub use open::{Options, close};
pub use room::free_memory;
pub use trial::load as load_for_trial;

use crate::template::Template;
use crate::worker::{Command, Job};

/// The engine and its version. Prefixes saved by a different version are not loaded.
pub const VERSION: &str = "llama-cpp-2 0.1.160";

/// A loaded model. Clones share it: their answers are generated in one batch, using one KV cache.
#[derive(Clone)]
pub struct Embedded {
    loaded: Arc<Loaded>,
    /// Whether the engine failed to enforce a constraint in this run. If so, the rest of the run
    /// does without constraints, as with a server that refuses them.
    unconstrained: Arc<AtomicBool>,
}

struct Loaded {
    identity: Identity,
    template: Template,
    warnings: Vec<String>,
    worker: Thread,
    next: AtomicU64,
}

impl Embedded {
    /// Wraps the loaded model for use in a new run.
    fn of(loaded: Arc<Loaded>) -> Self {
        Self { loaded, unconstrained: Arc::default() }
    }

    /// Returns warnings for the user about how the model was opened.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.loaded.warnings
    }
}

/// The thread that owns the model. Dropping it ends the thread and frees the model's memory.
struct Thread {
    commands: mpsc::Sender<Command>,
    /// Whether to stop loading.
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.commands.send(Command::Stop);
        // Wait, because the thread must not still be computing when the process runs its exit
        // handlers.
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

#[async_trait::async_trait]
impl Model for Embedded {
    fn identity(&self) -> Identity {
        let identity = self.loaded.identity.clone();
        let can_constrain = identity.can_constrain && !self.unconstrained.load(Ordering::Relaxed);
        Identity { can_constrain, ..identity }
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        let Loaded { template, worker, next, .. } = &*self.loaded;
        let prompt = template.prompt(&request.messages)?;
        let mut request = request.clone();
        request.constraint = request.constraint.filter(|_| self.identity().can_constrain);
        let id = next.fetch_add(1, Ordering::Relaxed);
        let (started, starts) = oneshot::channel();
        let (sender, deltas) = channel::unbounded_channel();
        let answer = Answer { id, commands: worker.commands.clone(), deltas, asked: true, ended: false };
        let unconstrained = Arc::clone(&self.unconstrained);
        let job = Job { id, prompt, request, unconstrained, started, deltas: sender };
        answer.commands.send(Command::Start(Box::new(job))).map_err(|_| gone())?;
        starts.await.map_err(|_| gone())??;
        Ok(Box::pin(answer))
    }
}

fn gone() -> Error {
    Error::Refused(String::from("the engine's thread has ended; set AGENT_LOG=debug to see why"))
}

/// The reader's side of one answer.
struct Answer {
    id: u64,
    commands: mpsc::Sender<Command>,
    deltas: channel::UnboundedReceiver<Result<Delta, Error>>,
    /// Whether the engine has been told that the reader is waiting.
    asked: bool,
    ended: bool,
}

impl Stream for Answer {
    type Item = Result<Delta, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.deltas.poll_recv(context) {
            Poll::Ready(Some(item)) => {
                self.asked = false;
                self.ended = matches!(item, Ok(Delta::End(_)) | Err(_));
                Poll::Ready(Some(item))
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(Some(Err(gone())))
            }
            Poll::Pending => {
                if !self.asked {
                    self.asked = true;
                    let _ = self.commands.send(Command::Next(self.id));
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}
