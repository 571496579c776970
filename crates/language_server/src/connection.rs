//! The connection to a running server: sends requests and notifications, answers the server's
//! requests, and stores the diagnostics and the progress that the server reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use lsp_types::notification::{self, Notification};
use lsp_types::request::{self, Request};
use lsp_types::{
    Diagnostic, ProgressParams, ProgressParamsValue, PublishDiagnosticsParams, WorkDoneProgress,
};
use sandbox::{Command, Sandbox, Service};
use secrets::Secrets;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::document;
use crate::problem::short;
use crate::wire;

/// The maximum number of bytes that a server may send between two checks.
const MAX_UNASKED: usize = 64 << 20;
/// The maximum number of unfinished tasks to keep track of.
const MAX_BUSY: usize = 1_000;
/// The maximum number of messages waiting to be sent.
const QUEUE: usize = 64;
/// The JSON-RPC error code for a request that is not supported.
const METHOD_NOT_FOUND: i32 = -32601;
/// How long to wait for the server to stop before killing it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server has sent so far.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Answers that have not been consumed yet, by request number.
    answers: BTreeMap<i32, Result<Value, Failed>>,
    /// The numbers of the requests that are awaiting an answer.
    expected: BTreeSet<i32>,
    /// The newest diagnostics of the open documents, by path.
    published: BTreeMap<String, Published>,
    /// The tokens of unfinished tasks that the server has reported.
    busy: BTreeSet<String>,
    /// Whether the server reports that it is still loading the project. Only rust-analyzer does so.
    loading: bool,
    /// Why there will be no more messages.
    ended: Option<String>,
}

impl Heard {
    /// Returns whether the server has no unfinished tasks.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.is_empty() && !self.loading
    }

    /// Returns the newest diagnostics of an open document.
    pub(crate) fn published(&self, path: &str) -> Option<&Published> {
        self.published.get(path)
    }
}

/// Diagnostics that a server has published for a document.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The version of the document that the diagnostics apply to, if the server specifies it.
    pub(crate) version: Option<i32>,
    /// How many times the server has published diagnostics since the document was opened.
    pub(crate) count: usize,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// The error in an answer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Failed {
    pub(crate) code: i32,
    message: String,
}

/// Why a request has no result.
#[derive(Debug, Clone)]
pub(crate) enum NoResult {
    /// The server answered with an error.
    Failed(Failed),
    /// The server has ended or sent something unusable.
    Ended(String),
}

impl NoResult {
    /// Describes what happened, with secrets masked.
    pub(crate) fn describe(self, secrets: &Secrets) -> String {
        match self {
            NoResult::Failed(Failed { code, message }) => {
                format!("it answered with error {code}: {}", short(&message, 200, secrets))
            }
            NoResult::Ended(why) => why,
        }
    }
}

/// A connection to a running server. Dropping it kills the server.
pub(crate) struct Connection {
    outgoing: mpsc::Sender<Value>,
    heard: watch::Sender<Heard>,
    received: Arc<AtomicUsize>,
    next: AtomicI32,
    reader: JoinHandle<()>,
    service: Service,
}

impl Connection {
    /// Starts a server for a folder, which is given as the JSON of a `WorkspaceFolder`.
    ///
    /// # Errors
    /// If the sandbox cannot be set up. A program that does not start is detected on the first
    /// request.
    pub(crate) async fn open(sandbox: &Sandbox, command: Command, folder: Value) -> Result<Self, String> {
        let (stdin, stdout, service) = Box::pin(sandbox.serve(command)).await.map_err(|e| e.to_string())?;
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let (heard, received) = (watch::Sender::default(), Arc::default());
        tokio::spawn(send(stdin, queue));
        let incoming = Incoming {
            heard: heard.clone(),
            received: Arc::clone(&received),
            outgoing: outgoing.clone(),
            folder,
        };
        let reader = tokio::spawn(incoming.read(stdout));
        Ok(Self { outgoing, heard, received, next: AtomicI32::new(1), reader, service })
    }

    /// Starts a new check by resetting the number of bytes that count toward the server's limit.
    pub(crate) fn begin(&self) {
        self.received.store(0, Ordering::Relaxed);
    }

    /// Returns why the server has ended, or `None` if it is running.
    pub(crate) fn ended(&self) -> Option<String> {
        self.heard.borrow().ended.clone()
    }

    /// Sends a notification.
    pub(crate) async fn notify<N: Notification>(&self, params: N::Params) {
        // If the server has ended, the next request reports it.
        let _ = self.outgoing.send(json!({"jsonrpc": "2.0", "method": N::METHOD, "params": params})).await;
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn request<R: Request>(&self, params: R::Params) -> Result<R::Result, NoResult> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.heard.send_modify(|heard| _ = heard.expected.insert(id));
        let request = json!({"jsonrpc": "2.0", "id": id, "method": R::METHOD, "params": params});
        let _ = self.outgoing.send(request).await;
        self.until(|heard| heard.answers.contains_key(&id)).await.map_err(NoResult::Ended)?;
        let mut answer = None;
        self.heard.send_modify(|heard| answer = heard.answers.remove(&id));
        let value = answer.unwrap_or(Ok(Value::Null)).map_err(NoResult::Failed)?;
        let unusable = |_| NoResult::Ended(format!("its answer to {} is not valid", R::METHOD));
        serde_json::from_value(value).map_err(unusable)
    }

    /// Waits until the condition is true.
    ///
    /// # Errors
    /// If the server ends.
    pub(crate) async fn until(&self, mut is: impl FnMut(&Heard) -> bool) -> Result<(), String> {
        let mut heard = self.heard.subscribe();
        let state = heard.wait_for(|heard| heard.ended.is_some() || is(heard)).await;
        match state.map(|heard| heard.ended.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(_) => Err("the connection was closed".into()),
        }
    }

    /// Passes everything that the server has sent so far to `read`, and returns the result.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Heard) -> T) -> T {
        read(&self.heard.borrow())
    }

    /// Starts keeping the diagnostics that the server publishes for this path.
    pub(crate) fn listen(&self, path: &str) {
        self.heard.send_modify(|heard| _ = heard.published.insert(path.to_owned(), Published::default()));
    }

    /// Drops the diagnostics for this path and ignores any new ones.
    pub(crate) fn ignore(&self, path: &str) {
        self.heard.send_modify(|heard| _ = heard.published.remove(path));
    }

    /// Asks the server to exit, and kills it if it does not. Returns how it ended and the last line
    /// that it wrote to standard error.
    pub(crate) async fn stop(self, secrets: &Secrets) -> String {
        if self.ended().is_none() {
            let farewell = async {
                let _ = self.request::<request::Shutdown>(()).await;
                self.notify::<notification::Exit>(()).await;
            };
            let _ = tokio::time::timeout(STOP_TIMEOUT, farewell).await;
        }
        self.reader.abort();
        drop(self.outgoing);
        let (how, errors) = self.service.stop().await;
        let text = errors.text();
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) => format!("{how}: {}", short(last.trim(), 200, secrets)),
            None => how,
        }
    }
}

/// Sends queued messages until the queue is closed or the server stops reading.
async fn send(mut stdin: pipe::Sender, mut queue: mpsc::Receiver<Value>) {
    while let Some(message) = queue.recv().await {
        if wire::write(&mut stdin, &message).await.is_err() {
            break;
        }
    }
}

/// The part of a connection that reads messages.
struct Incoming {
    heard: watch::Sender<Heard>,
    received: Arc<AtomicUsize>,
    outgoing: mpsc::Sender<Value>,
    /// The folder that the server works in.
    folder: Value,
}

impl Incoming {
    async fn read(self, stdout: pipe::Receiver) {
        let mut stdout = BufReader::new(stdout);
        let why = loop {
            match wire::read(&mut stdout).await {
                Ok(Some((message, bytes))) => {
                    if self.received.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_UNASKED {
                        break format!("it sent more than {} MiB without being asked", MAX_UNASKED >> 20);
                    }
                    self.handle(message).await;
                }
                Ok(None) => break "it closed its output".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        self.heard.send_modify(|heard| heard.ended = Some(why));
    }

    async fn handle(&self, mut message: Value) {
        let id = message["id"].take();
        match (message["method"].as_str(), id) {
            (Some(method), Value::Null) => {
                let method = method.to_owned();
                self.notification(&method, message["params"].take());
            }
            (Some(method), id) => {
                let answer = match answer(method, &message["params"], &self.folder) {
                    Some(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                    None => json!({"jsonrpc": "2.0", "id": id, "error": {
                        "code": METHOD_NOT_FOUND, "message": format!("{method} is not supported"),
                    }}),
                };
                let _ = self.outgoing.send(answer).await;
            }
            (None, id) => {
                let Some(id) = id.as_i64().and_then(|id| i32::try_from(id).ok()) else { return };
                let answer = match serde_json::from_value(message["error"].take()) {
                    Ok(failed) => Err(failed),
                    Err(_) => Ok(message["result"].take()),
                };
                self.heard.send_if_modified(|heard| {
                    let expected = heard.expected.remove(&id);
                    if expected {
                        heard.answers.insert(id, answer);
                    }
                    expected
                });
            }
        }
    }

    fn notification(&self, method: &str, params: Value) {
        match method {
            notification::PublishDiagnostics::METHOD => {
                let Ok(params) = serde_json::from_value::<PublishDiagnosticsParams>(params) else { return };
                let path = document::path_of(&params.uri);
                self.heard.send_if_modified(|heard| {
                    let Some(published) = heard.published.get_mut(&path) else { return false };
                    let (version, count) = (params.version, published.count + 1);
                    *published = Published { version, count, diagnostics: params.diagnostics };
                    true
                });
            }
            notification::Progress::METHOD => {
                let Ok(ProgressParams { token, value }) = serde_json::from_value(params) else { return };
                let ProgressParamsValue::WorkDone(progress) = value;
                let token = format!("{token:?}");
                self.heard.send_if_modified(|heard| match progress {
                    WorkDoneProgress::Begin(_) => heard.busy.len() < MAX_BUSY && heard.busy.insert(token),
                    WorkDoneProgress::Report(_) => false,
                    WorkDoneProgress::End(_) => heard.busy.remove(&token),
                });
            }
            "experimental/serverStatus" => {
                let loading = params["quiescent"] == false;
                self.heard.send_modify(|heard| heard.loading = loading);
            }
            _ => {}
        }
    }
}

/// Returns the answer to a request from the server, or `None` if the request is not supported.
fn answer(method: &str, params: &Value, folder: &Value) -> Option<Value> {
    match method {
        request::WorkspaceFoldersRequest::METHOD => Some(json!([folder])),
        // Send no settings, so that the server uses its defaults and its own configuration files.
        request::WorkspaceConfiguration::METHOD => {
            let items = params["items"].as_array().map_or(0, Vec::len);
            Some(Value::Array(vec![Value::Null; items]))
        }
        request::RegisterCapability::METHOD
        | request::UnregisterCapability::METHOD
        | request::WorkDoneProgressCreate::METHOD
        | request::ShowMessageRequest::METHOD
        | request::WorkspaceDiagnosticRefresh::METHOD
        | request::SemanticTokensRefresh::METHOD
        | request::InlayHintRefreshRequest::METHOD
        | request::CodeLensRefresh::METHOD => Some(Value::Null),
        _ => None,
    }
}
