//! Runs the calls of an answer. Read-only calls run in parallel, even while the answer is still
//! streaming. All other calls run alone and in order.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tool_api::{Effect, Outcome, Registry, Spec, Status, ToolError};

use crate::answer::ReadyCall;

/// A call that has run.
pub(crate) struct FinishedCall {
    pub(crate) call: ReadyCall,
    pub(crate) result: Result<Outcome, ToolError>,
    pub(crate) ms: u64,
}

/// A call and its outcome.
#[derive(Debug)]
pub(crate) struct CallResult {
    pub(crate) spec: Arc<Spec>,
    pub(crate) arguments: Value,
    pub(crate) outcome: Outcome,
}

/// The field of [`Outcome::facts`] that indicates that a command changed files.
const CHANGED: &str = "changed_files";

impl CallResult {
    /// Whether the call is a command that changed files.
    pub(crate) fn changed_by_command(&self) -> bool {
        self.outcome.facts[CHANGED] == true
    }
}

/// Records, in a command's outcome, that the command changed files. The machine bases decisions on
/// this fact, so the journal must contain it.
pub(crate) fn note_change(outcome: &mut Outcome) {
    if outcome.facts.is_null() || outcome.facts.is_object() {
        outcome.facts[CHANGED] = true.into();
    }
}

/// Returns the spec of a tool named in the journal, or a placeholder if the tool is no longer
/// registered.
pub(crate) fn spec_of(tools: &Registry, tool: &str) -> Arc<Spec> {
    tools.spec(tool).map_or_else(|| Arc::new(Spec::unknown(tool)), Arc::clone)
}

type Running = Pin<Box<dyn Future<Output = FinishedCall> + Send>>;

/// The calls of one answer.
pub(crate) struct CallQueue {
    tools: Arc<Registry>,
    queued: VecDeque<ReadyCall>,
    running: FuturesUnordered<Running>,
    /// Whether the running call may change something. Such a call runs alone.
    exclusive: bool,
}

impl CallQueue {
    pub(crate) fn new(tools: Arc<Registry>) -> Self {
        Self { tools, queued: VecDeque::new(), running: FuturesUnordered::new(), exclusive: false }
    }

    pub(crate) fn queue(&mut self, call: ReadyCall) {
        self.queued.push_back(call);
    }

    /// Takes the next call if it may run now. The caller journals it and passes it to
    /// [`CallQueue::start`]. While the answer is still streaming, only read-only calls may run. Any
    /// other call waits until the answer is in the journal.
    pub(crate) fn take_startable(&mut self, streaming: bool) -> Option<ReadyCall> {
        let next = self.queued.front()?;
        if streaming && next.spec.effect != Effect::Read {
            return None;
        }
        let free = self.running.is_empty() || (next.spec.effect == Effect::Read && !self.exclusive);
        if free { self.queued.pop_front() } else { None }
    }

    pub(crate) fn start(&mut self, call: ReadyCall) {
        self.exclusive = call.spec.effect != Effect::Read;
        let tools = Arc::clone(&self.tools);
        self.running.push(Box::pin(async move {
            let started = Instant::now();
            let result =
                tools.call_parsed(&call.spec.name, call.arguments.clone(), call.parsed.clone()).await;
            FinishedCall { call, result, ms: started.elapsed().as_millis() as u64 }
        }));
    }

    /// Waits until one of the running calls ends. Waits forever if no call is running.
    pub(crate) async fn next(&mut self) -> FinishedCall {
        match self.running.next().await {
            Some(call) => call,
            None => pending().await,
        }
    }

    /// Whether no call is queued or running.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty()
    }
}

/// Returns the name of an effect as used in the journal.
pub(crate) fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Write => "write",
        Effect::Execute => "execute",
    }
}

/// Returns the name of a status as used in the journal and in prompts.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Failed => "failed",
        Status::Refused => "refused",
    }
}
