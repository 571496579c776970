//! The server: its own thread and runtime, so that tests with and without a runtime, and tests that start the real binary, use it alike.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::model::{Loaded, ModelSpec};
use crate::record::{ReplyRecord, Request};
use crate::reply::Entry;
use crate::routes;
use crate::state::{Config, Inner, Personality, Shared};

/// How long a wait goes on before it fails the test with what was seen. No test should ever come to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model server on 127.0.0.1. It ends when it is dropped: open connections are closed.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// An Ollama server with one model of each kind: `deepseek-coder:6.7b` (neither tools nor thinking), `deepseek-r1:8b` (thinking),
    /// `deepseek-v3.1:671b` (both), `qwen2.5-coder:1.5b` (tools, insert).
    ///
    /// # Panics
    /// When the machine has no free port or thread left: nothing a test could go on with.
    pub fn start() -> Self {
        Self::with_config(Config::default())
    }

    /// A server of that kind with its default models.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn of(personality: Personality) -> Self {
        Self::with_config(Config { personality, ..Config::default() })
    }

    /// A server as described.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn with_config(config: Config) -> Self {
        match Self::with_config_on(config, 0) {
            Ok(server) => server,
            Err(problem) => panic!("the fake model server cannot start: {problem}"),
        }
    }

    /// A server as described on a port of one's own choice.
    ///
    /// # Errors
    /// When the port is taken, or no thread can be had.
    pub fn with_config_on(config: Config, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("fake-model".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, for_thread) => {}
                }
            });
        })?;
        Ok(Self { shared, address, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`: what `OLLAMA_HOST` takes.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL of an OpenAI client: `http://127.0.0.1:PORT/v1`.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a reply (or text, or `Reply::from_fn`) to the script. Each generation takes one, in order of arrival; requests that
    /// are refused take none.
    pub fn enqueue(&self, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.script.push_back(entry));
    }

    /// Adds a reply for the next request to this very path (`/api/show`), before everything else the server does there.
    pub fn enqueue_for(&self, path: &str, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.by_path.entry(path.to_owned()).or_default().push_back(entry));
    }

    /// What is answered whenever the script is used up. Without it that is a 500 which says so.
    pub fn fallback(&self, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.fallback = Some(entry));
    }

    /// Replies of the script that no request has taken yet.
    pub fn unused_replies(&self) -> usize {
        self.shared.read().script.len()
    }

    /// Opens a gate, for replies that stand at it and for those that come to it later.
    pub fn release(&self, gate: &str) {
        self.shared.change(|inner| inner.released.insert(gate.to_owned()));
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.read().requests.clone()
    }

    /// What became of each of them, in the same order.
    pub fn replies(&self) -> Vec<ReplyRecord> {
        self.shared.read().replies.clone()
    }

    /// The requests that asked for a generation, refused ones included; no preloads.
    pub fn chats(&self) -> Vec<Request> {
        self.shared.read().requests.iter().filter(|request| request.is_chat()).cloned().collect()
    }

    /// What became of those.
    pub fn chat_replies(&self) -> Vec<ReplyRecord> {
        let inner = self.shared.read();
        let chats = inner.requests.iter().filter(|request| request.is_chat());
        chats.filter_map(|request| inner.replies.get(request.index).cloned()).collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.read().connections
    }

    /// The models on the server now (after pulls and deletions).
    pub fn models(&self) -> Vec<ModelSpec> {
        self.shared.read().models.clone()
    }

    /// The models in memory now (Ollama).
    pub fn loaded(&self) -> Vec<Loaded> {
        self.shared.read().loaded.clone()
    }

    /// Every load so far (Ollama): more than one for a session means that a runner option changed in it.
    pub fn loads(&self) -> Vec<Loaded> {
        self.shared.read().loads.clone()
    }

    /// Waits until there are `n` requests; returns all.
    pub async fn wait_for_requests(&self, n: usize) -> Vec<Request> {
        self.wait(format!("{n} requests"), enough_requests(n)).await
    }

    /// Waits until there are `n` requests for a generation; returns those.
    pub async fn wait_for_chats(&self, n: usize) -> Vec<Request> {
        self.wait(format!("{n} chats"), enough_chats(n)).await
    }

    /// Waits until a reply stands at the gate (or has passed it): everything before it is written by then.
    pub async fn wait_for_gate(&self, gate: &str) {
        self.wait(format!("a reply at gate {gate:?}"), gate_reached(gate)).await;
    }

    /// Waits until the reply to the `i`-th generation (from 0) has ended, by itself or because the client closed.
    pub async fn wait_for_close(&self, i: usize) -> ReplyRecord {
        self.wait(format!("the end of chat {i}"), chat_ended(i)).await
    }

    /// Waits until the reply to request `index` has ended.
    pub async fn wait_for_end(&self, index: usize) -> ReplyRecord {
        self.wait(format!("the end of request {index}"), request_ended(index)).await
    }

    /// [`Server::wait_for_requests`] for a thread without a runtime.
    pub fn block_for_requests(&self, n: usize) -> Vec<Request> {
        self.block(format!("{n} requests"), enough_requests(n))
    }

    /// [`Server::wait_for_chats`] for a thread without a runtime.
    pub fn block_for_chats(&self, n: usize) -> Vec<Request> {
        self.block(format!("{n} chats"), enough_chats(n))
    }

    /// [`Server::wait_for_gate`] for a thread without a runtime.
    pub fn block_for_gate(&self, gate: &str) {
        self.block(format!("a reply at gate {gate:?}"), gate_reached(gate));
    }

    /// [`Server::wait_for_close`] for a thread without a runtime.
    pub fn block_for_close(&self, i: usize) -> ReplyRecord {
        self.block(format!("the end of chat {i}"), chat_ended(i))
    }

    /// [`Server::wait_for_end`] for a thread without a runtime.
    pub fn block_for_end(&self, index: usize) -> ReplyRecord {
        self.block(format!("the end of request {index}"), request_ended(index))
    }

    /// The waiting is done on the server's runtime: the caller's may have none, or a clock that stands still.
    fn begin_wait<T: Send + 'static>(
        &self,
        answer: impl FnMut(&Inner) -> Option<T> + Send + 'static,
        deliver: impl FnOnce(Option<T>) + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            deliver(tokio::time::timeout(PATIENCE, shared.until(answer)).await.ok());
        });
    }

    async fn wait<T: Send + 'static>(
        &self,
        what: String,
        answer: impl FnMut(&Inner) -> Option<T> + Send + 'static,
    ) -> T {
        let (sender, receiver) = oneshot::channel();
        self.begin_wait(answer, move |value| drop(sender.send(value)));
        self.waited(&what, receiver.await.ok().flatten())
    }

    fn block<T: Send + 'static>(
        &self,
        what: String,
        answer: impl FnMut(&Inner) -> Option<T> + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        self.begin_wait(answer, move |value| drop(sender.send(value)));
        self.waited(&what, receiver.recv().ok().flatten())
    }

    fn waited<T>(&self, what: &str, value: Option<T>) -> T {
        let Some(value) = value else {
            let seen: Vec<String> = self
                .requests()
                .iter()
                .zip(self.replies())
                .map(|(request, reply)| format!("{} {} → {reply:?}", request.method, request.path))
                .collect();
            panic!("the fake model waited in vain for {what}; it saw:\n{}", seen.join("\n"));
        };
        value
    }

    /// Waits without end until there are `n` requests; for a program that has nothing else to do.
    pub fn block_until_requests(&self, n: usize) {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            shared.until(|inner| (inner.requests.len() >= n).then_some(())).await;
            let _ = sender.send(());
        });
        // An error means that the server's thread is gone: then there is nothing to wait for.
        let _ = receiver.recv();
    }

    /// The requests from `first` on as JSON, in the form of `--record`.
    pub fn requests_json(&self, first: usize) -> Vec<Value> {
        self.shared.requests_json(first)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may be gone already; then there is nothing to stop.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        // A connection that broke before it was accepted is nobody's loss.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(routes::serve(stream, Arc::clone(&shared)));
        }
    }
}

fn enough_requests(n: usize) -> impl FnMut(&Inner) -> Option<Vec<Request>> {
    move |inner| (inner.requests.len() >= n).then(|| inner.requests.clone())
}

fn enough_chats(n: usize) -> impl FnMut(&Inner) -> Option<Vec<Request>> {
    move |inner| {
        let chats: Vec<&Request> = inner.requests.iter().filter(|request| request.is_chat()).collect();
        (chats.len() >= n).then(|| chats.into_iter().cloned().collect())
    }
}

fn gate_reached(gate: &str) -> impl FnMut(&Inner) -> Option<()> + use<> {
    let gate = gate.to_owned();
    move |inner| inner.reached.contains(&gate).then_some(())
}

pub(crate) fn request_ended(index: usize) -> impl FnMut(&Inner) -> Option<ReplyRecord> {
    move |inner| inner.replies.get(index).filter(|reply| reply.ended.is_some()).cloned()
}

fn chat_ended(i: usize) -> impl FnMut(&Inner) -> Option<ReplyRecord> {
    move |inner| {
        let request = inner.requests.iter().filter(|request| request.is_chat()).nth(i)?;
        inner.replies.get(request.index).filter(|reply| reply.ended.is_some()).cloned()
    }
}
