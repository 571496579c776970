//! Running calls: reads beside each other and beside the stream, everything else alone and in order.

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
pub(crate) struct Acted {
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

/// The fact of an outcome by which a command says that it changed files.
const CHANGED: &str = "changed_files";

impl CallResult {
    /// Whether it is a command that changed files.
    pub(crate) fn changed_by_command(&self) -> bool {
        self.outcome.facts[CHANGED] == true
    }
}

/// Notes in the outcome of a command that it changed files: what the machine decides by has to be on record.
pub(crate) fn note_change(outcome: &mut Outcome) {
    if outcome.facts.is_null() {
        outcome.facts = Value::Object(serde_json::Map::new());
    }
    if let Some(facts) = outcome.facts.as_object_mut() {
        facts.insert(CHANGED.into(), true.into());
    }
}

/// What a tool is that a journal or a call names; it need not be registered any more.
pub(crate) fn spec_of(tools: &Registry, tool: &str) -> Arc<Spec> {
    tools.spec(tool).map_or_else(|| Arc::new(Spec::unknown(tool)), Arc::clone)
}

type Running = Pin<Box<dyn Future<Output = Acted> + Send>>;

/// The calls of one answer.
pub(crate) struct Acting {
    tools: Arc<Registry>,
    queued: VecDeque<ReadyCall>,
    running: FuturesUnordered<Running>,
    /// Whether what runs now may change something, and so runs alone.
    exclusive: bool,
}

impl Acting {
    pub(crate) fn new(tools: Arc<Registry>) -> Self {
        Self { tools, queued: VecDeque::new(), running: FuturesUnordered::new(), exclusive: false }
    }

    pub(crate) fn queue(&mut self, call: ReadyCall) {
        self.queued.push_back(call);
    }

    /// The next call in order, if it may run now. The caller writes it down and hands it to [`Acting::start`].
    /// Beside a stream only reads are: an effect waits until the answer that asked for it is on record.
    pub(crate) fn startable(&mut self, streaming: bool) -> Option<ReadyCall> {
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
            let begun = Instant::now();
            let result =
                tools.call_parsed(&call.spec.name, call.arguments.clone(), call.parsed.clone()).await;
            Acted { call, result, ms: begun.elapsed().as_millis() as u64 }
        }));
    }

    /// The next call to end; never ready while none runs.
    pub(crate) async fn next(&mut self) -> Acted {
        match self.running.next().await {
            Some(acted) => acted,
            None => pending().await,
        }
    }

    /// Whether there is nothing left to run.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty()
    }
}

/// An effect's name in the journal.
pub(crate) fn name(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Write => "write",
        Effect::Execute => "execute",
    }
}

/// A status's name in the journal and for the model.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Failed => "failed",
        Status::Refused => "refused",
    }
}
