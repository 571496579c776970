//! The server. It has its own thread and runtime, so that any test can use it: one with a runtime,
//! one without, or one that runs the real binary.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::model::{Loaded, ModelSpec};
use crate::record::{ReplyRecord, Request};
use crate::reply::{Entry, Reply};
use crate::routes;
use crate::script::Script;
use crate::state::{
    Config, Inner, Personality, Shared, chat_ended, enough_chats, enough_requests, gate_reached,
    request_ended,
};

/// The maximum time that a test waits. After that, the test fails and prints the requests so far.
/// No test should ever reach this limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model server on 127.0.0.1. Dropping it stops it and closes all connections.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts an Ollama server with one model of each kind: `deepseek-coder:6.7b` (neither tools
    /// nor thinking), `deepseek-r1:8b` (thinking), `deepseek-v3.1:671b` (both),
    /// `qwen2.5-coder:1.5b` (tools, insert).
    ///
    /// # Panics
    /// Panics if no port or thread is available.
    pub fn start() -> Self {
        Self::with_config(Config::default())
    }

    /// Starts a server of this kind with its default models.
    ///
    /// # Panics
    /// Same as [`Server::start`].
    pub fn of(personality: Personality) -> Self {
        Self::with_config(Config { personality, ..Config::default() })
    }

    /// Starts a server with this configuration.
    ///
    /// # Panics
    /// Same as [`Server::start`].
    pub fn with_config(config: Config) -> Self {
        match Self::with_config_on(config, 0) {
            Ok(server) => server,
            Err(problem) => panic!("the fake model server cannot start: {problem}"),
        }
    }

    /// Starts a server with this configuration on this port.
    ///
    /// # Errors
    /// Fails if the port is taken or no thread is available.
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

    /// Starts a server that plays a script, on `port` (0 for any free one).
    ///
    /// # Errors
    /// Fails if the port is taken.
    pub fn play(script: Script, port: u16) -> io::Result<Self> {
        let server = Self::with_config_on(script.config, port)?;
        for (path, replies) in script.for_path {
            for reply in replies {
                server.enqueue_for(&path, reply);
            }
        }
        if script.repeat && !script.replies.is_empty() {
            let (replies, next) = (script.replies.clone(), AtomicUsize::new(0));
            server.fallback(Reply::from_fn(move |_| {
                replies[next.fetch_add(1, Ordering::Relaxed) % replies.len()].clone()
            }));
        } else if let Some(fallback) = script.fallback {
            server.fallback(fallback);
        }
        for reply in script.replies {
            server.enqueue(reply);
        }
        Ok(server)
    }

    /// Returns `http://127.0.0.1:PORT`, which can be used as `OLLAMA_HOST`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the base URL for an OpenAI client: `http://127.0.0.1:PORT/v1`.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a reply (or text, or `Reply::from_fn`) to the script. Each generation takes the next
    /// reply, in order of arrival; refused requests take none.
    pub fn enqueue(&self, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.script.push_back(entry));
    }

    /// Adds a reply for the next request to exactly this path (`/api/show`). The reply takes
    /// precedence over everything else.
    pub fn enqueue_for(&self, path: &str, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.by_path.entry(path.to_owned()).or_default().push_back(entry));
    }

    /// Sets the reply to send once the script is used up. Without a fallback, the server then
    /// answers with status 500.
    pub fn fallback(&self, reply: impl Into<Entry>) {
        let entry = reply.into();
        self.shared.change(|inner| inner.fallback = Some(entry));
    }

    /// Returns the number of scripted replies that no request has taken yet.
    pub fn unused_replies(&self) -> usize {
        self.shared.read().script.len()
    }

    /// Opens a gate, both for replies that are waiting at it now and for those that reach it later.
    pub fn release(&self, gate: &str) {
        self.shared.change(|inner| inner.released.insert(gate.to_owned()));
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.read().requests.clone()
    }

    /// Returns the record of each reply, in the order of the requests.
    pub fn replies(&self) -> Vec<ReplyRecord> {
        self.shared.read().replies.clone()
    }

    /// Returns the requests for a generation, including refused requests but not preloads.
    pub fn chats(&self) -> Vec<Request> {
        self.shared.read().requests.iter().filter(|request| request.is_chat()).cloned().collect()
    }

    /// Returns the record of each reply to the requests that [`Server::chats`] returns.
    pub fn chat_replies(&self) -> Vec<ReplyRecord> {
        let inner = self.shared.read();
        let chats = inner.requests.iter().filter(|request| request.is_chat());
        chats.filter_map(|request| inner.replies.get(request.index).cloned()).collect()
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.read().connections
    }

    /// Returns the models on the server now, after pulls and deletions.
    pub fn models(&self) -> Vec<ModelSpec> {
        self.shared.read().models.clone()
    }

    /// Returns the loaded models (Ollama).
    pub fn loaded(&self) -> Vec<Loaded> {
        self.shared.read().loaded.clone()
    }

    /// Returns every load so far (Ollama). If a session causes more than one load, a runner option
    /// has changed.
    pub fn loads(&self) -> Vec<Loaded> {
        self.shared.read().loads.clone()
    }

    /// Waits for `n` requests and returns all requests so far.
    pub async fn wait_for_requests(&self, n: usize) -> Vec<Request> {
        self.wait(format!("{n} requests"), enough_requests(n)).await
    }

    /// Waits for `n` requests for a generation and returns all of them so far.
    pub async fn wait_for_chats(&self, n: usize) -> Vec<Request> {
        self.wait(format!("{n} chats"), enough_chats(n)).await
    }

    /// Waits until a reply has reached the gate. By then, everything before the gate has been
    /// written.
    pub async fn wait_for_gate(&self, gate: &str) {
        self.wait(format!("a reply at gate {gate:?}"), gate_reached(gate)).await;
    }

    /// Waits until the reply to generation `i` (0-based) has ended, on its own or because the
    /// client disconnected.
    pub async fn wait_for_close(&self, i: usize) -> ReplyRecord {
        self.wait(format!("the end of chat {i}"), chat_ended(i)).await
    }

    /// Waits until the reply to request `index` has ended.
    pub async fn wait_for_end(&self, index: usize) -> ReplyRecord {
        self.wait(format!("the end of request {index}"), request_ended(index)).await
    }

    /// Same as [`Server::wait_for_requests`], but for a thread without a runtime.
    pub fn block_for_requests(&self, n: usize) -> Vec<Request> {
        self.block(format!("{n} requests"), enough_requests(n))
    }

    /// Same as [`Server::wait_for_chats`], but for a thread without a runtime.
    pub fn block_for_chats(&self, n: usize) -> Vec<Request> {
        self.block(format!("{n} chats"), enough_chats(n))
    }

    /// Same as [`Server::wait_for_gate`], but for a thread without a runtime.
    pub fn block_for_gate(&self, gate: &str) {
        self.block(format!("a reply at gate {gate:?}"), gate_reached(gate));
    }

    /// Same as [`Server::wait_for_close`], but for a thread without a runtime.
    pub fn block_for_close(&self, i: usize) -> ReplyRecord {
        self.block(format!("the end of chat {i}"), chat_ended(i))
    }

    /// Same as [`Server::wait_for_end`], but for a thread without a runtime.
    pub fn block_for_end(&self, index: usize) -> ReplyRecord {
        self.block(format!("the end of request {index}"), request_ended(index))
    }

    /// Waits on the server's runtime, because the caller may have no runtime, or one with a paused
    /// clock.
    fn start_wait<T: Send + 'static>(
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
        self.start_wait(answer, move |value| drop(sender.send(value)));
        self.waited(&what, receiver.await.ok().flatten())
    }

    fn block<T: Send + 'static>(
        &self,
        what: String,
        answer: impl FnMut(&Inner) -> Option<T> + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        self.start_wait(answer, move |value| drop(sender.send(value)));
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
            panic!(
                "the fake model server timed out waiting for {what}; requests so far:\n{}",
                seen.join("\n")
            );
        };
        value
    }

    /// Blocks, without a timeout, until `n` requests have arrived. Intended for programs that have
    /// nothing else to do.
    pub fn block_until_requests(&self, n: usize) {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            shared.until(|inner| (inner.requests.len() >= n).then_some(())).await;
            let _ = sender.send(());
        });
        // An error means that the server's thread has ended, so there is nothing left to wait for.
        let _ = receiver.recv();
    }

    /// Returns the requests starting with number `first`, as JSON in the format of `--record`.
    pub fn requests_json(&self, first: usize) -> Vec<Value> {
        self.shared.requests_json(first)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
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
        // A connection that fails before it is accepted does not matter.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(routes::serve(stream, Arc::clone(&shared)));
        }
    }
}
