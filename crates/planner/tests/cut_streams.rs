//! Cuts off an answer at every byte, over HTTP, with the real client and the planner. The run must
//! end in the same way as with the whole answer: it runs the same calls, each exactly once, and
//! never runs an incomplete call.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fake_model::{Personality, Reply, Server};
use futures_util::{StreamExt, stream};
use journal::{Ending, Event};
use models::ollama::{Ollama, OllamaOptions};
use models::openai::{Kind, OpenAi, OpenAiOptions, Opened};
use models::{
    Delta, DeltaStream, End, EndReason, Error, Identity, Message, Model, Request, Role, Secret, Usage,
};
use planner::Cut;
use serde_json::{Value, json};
use support::{Files, Ran, world};
use tokio::runtime::{Builder, Runtime};

/// The items that the client returns. The last one is the end of the answer or an error.
type Pieces = Vec<Result<Delta, Error>>;

/// The response bodies in `fixtures/model_answers` whose calls fix `calc.py`.
const STREAMS: [&str; 11] = [
    "deepseek.call.sse",
    "generic.one-object-call.sse",
    "generic.two-calls.sse",
    "llama-server.call.sse",
    "lm-studio.fenced-call.sse",
    "ollama.call.ndjson",
    "ollama.native-call.ndjson",
    "ollama.thinking-call.ndjson",
    "ollama.two-calls.ndjson",
    "ollama.two-native-calls.ndjson",
    "vllm.two-native-calls.sse",
];

const FIXED: &str = "def add(a, b):\n    return a + b\n";

async fn open(name: &str) -> (Server, Box<dyn Model>) {
    let (kind, _) = name.split_once('.').unwrap();
    let personality = Personality::ALL.into_iter().find(|(known, _)| *known == kind).unwrap().1;
    let server = Server::of(personality);
    if personality == Personality::Ollama {
        let options = OllamaOptions { preload: false, ..OllamaOptions::new(&server.url(), "deepseek-r1:8b") };
        let model = Ollama::open(options).await.unwrap();
        return (server, Box::new(model));
    }
    let hosted = personality == Personality::Deepseek;
    let options = OpenAiOptions {
        kind: hosted.then_some(Kind::DeepSeek),
        key: hosted.then(|| Secret::new("sk-secret")),
        ..OpenAiOptions::new(&server.openai_url())
    };
    match OpenAi::open(options).await.unwrap() {
        Opened::Model(model) => (server, model),
        Opened::Ollama { base, .. } => panic!("an Ollama at {base}"),
    }
}

async fn read(server: &Server, model: &dyn Model, reply: Reply) -> Pieces {
    server.enqueue(reply);
    let messages = vec![Message::new(Role::User, "Fix it.").into()];
    match model.stream(&Request { messages, max_tokens: 500, ..Request::default() }).await {
        Ok(deltas) => deltas.collect().await,
        Err(error) => vec![Err(error)],
    }
}

/// Describes everything that the planner can distinguish: the deltas and, after an error, whether
/// and when to retry the request.
fn described(pieces: &Pieces) -> String {
    pieces.iter().fold(String::new(), |text, item| match item {
        Ok(delta) => format!("{text}{delta:?}\n"),
        Err(error) => format!("{text}{:?}\n", error.retry()),
    })
}

/// A model that answers the first request with the truncated stream, and a retry of that request
/// with the whole stream. It answers later requests with a call that fixes the file or finishes.
struct CutOnce {
    cut: Pieces,
    whole: Pieces,
    files: Files,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[async_trait]
impl Model for CutOnce {
    fn identity(&self) -> Identity {
        world().identity
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        let mut requests = self.requests.lock().unwrap();
        requests.push(request.clone());
        let fixed = self.files.lock().unwrap()["calc.py"] == FIXED;
        let items = if requests.len() == 1 {
            self.cut.clone()
        } else if requests[0] == *request {
            self.whole.clone()
        } else {
            let call = if fixed { json!({"tool": "finish", "arguments": {}}) } else { fixing_call() };
            let end = End { reason: EndReason::Stop, usage: Usage::default() };
            vec![Ok(Delta::Text(call.to_string())), Ok(Delta::End(end))]
        };
        Ok(Box::pin(stream::iter(items)))
    }
}

fn fixing_call() -> Value {
    json!({"tool": "apply_patch", "arguments": {"path": "calc.py", "content": FIXED}})
}

fn run(runtime: &Runtime, cut: &Pieces, whole: &Pieces, reading: Cut) -> Ran {
    let mut world = world();
    world.settings.cut = reading;
    let (files, requests) = (Arc::clone(&world.files), Arc::default());
    let model = CutOnce { cut: cut.clone(), whole: whole.clone(), files, requests: Arc::clone(&requests) };
    runtime.block_on(world.run_with("Fix the sum.", Box::new(model), requests))
}

/// Returns the calls that were started, in order.
fn done(ran: &Ran) -> Vec<(String, Value)> {
    let mut calls = BTreeMap::new();
    let mut done = Vec::new();
    for event in ran.events() {
        match event {
            Event::Call { turn, call, tool, arguments, .. } => {
                calls.insert((*turn, *call), (tool.clone(), arguments.clone()));
            }
            Event::ToolStarted { turn, call, .. } => done.push(calls[&(*turn, *call)].clone()),
            _ => {}
        }
    }
    done
}

fn is_end(pieces: &Pieces) -> bool {
    matches!(pieces.last(), Some(Ok(Delta::End(_))))
}

/// Cuts off one body at every byte in two ways: the connection breaks, or it closes normally but
/// too early.
fn cut_everywhere(name: &str) {
    let body =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model_answers").join(name))
            .unwrap();
    // Sockets need a running clock. Runs with retries use a paused clock, which skips the delays
    // before the retries.
    let sockets = Builder::new_current_thread().enable_all().build().unwrap();
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (server, model) = sockets.block_on(open(name));
    let whole = sockets.block_on(read(&server, &*model, Reply::recorded(body.clone())));
    assert!(is_end(&whole), "{name}: {whole:?}");
    let mut outcomes: BTreeMap<String, (usize, Pieces)> = BTreeMap::new();
    for at in 0..body.len() {
        let part = Reply::recorded(&body[..at]);
        for reply in [part.clone().cut(), part.eof_without_done()] {
            let pieces = sockets.block_on(read(&server, &*model, reply));
            let last = pieces.len() - 1;
            if is_end(&pieces) {
                // The end was certain before the last bytes (`[DONE]`, counts) arrived.
                assert!(at > body.len() / 2, "{name} cut at {at} of {}", body.len());
            } else {
                let error = pieces[last].as_ref().unwrap_err();
                assert_eq!(error.retry(), models::Retry::After(None), "{name} cut at {at}: {error}");
                assert_eq!(pieces[..last], whole[..last], "{name} cut at {at}");
            }
            outcomes.entry(described(&pieces)).or_insert((at, pieces));
        }
    }
    let bodies: Vec<Vec<u8>> = server.chats().into_iter().map(|sent| sent.body).collect();
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "the same request, byte for byte");
    assert_eq!(bodies.len(), 1 + 2 * body.len());
    for reading in [Cut::First, Cut::ReadOn] {
        let wanted = done(&run(&paused, &whole, &whole, reading));
        assert_eq!(wanted.iter().filter(|(tool, _)| tool == "apply_patch").count(), 1, "{name}: {wanted:?}");
        for (at, cut) in outcomes.values() {
            let ran = run(&paused, cut, &whole, reading);
            let what = format!("{name} cut at {at}, {reading:?}: {:#?}", ran.records);
            assert_eq!(ran.report.ending, Ending::Verified, "{what}");
            assert_eq!(ran.files["calc.py"], FIXED, "{what}");
            assert_eq!(done(&ran), wanted, "{what}");
            assert!(!ran.events().any(|event| matches!(event, Event::Refused { .. })), "{what}");
            let retries = ran.events().filter(|event| matches!(event, Event::Retry { .. })).count();
            assert_eq!(retries, usize::from(ran.requests[0] == ran.requests[1]), "{what}");
        }
    }
}

#[test]
fn a_run_with_json_lines_cut_at_any_byte_ends_the_same() {
    STREAMS.into_iter().filter(|name| name.ends_with(".ndjson")).for_each(cut_everywhere);
}

#[test]
fn a_run_with_server_sent_events_cut_at_any_byte_ends_the_same() {
    STREAMS.into_iter().filter(|name| name.ends_with(".sse")).for_each(cut_everywhere);
}
