//! Asks language servers which errors an edit has caused.
//!
//! A [`LanguageServer`] starts at the first edit of a file that it is for, and runs until the
//! session ends. For each edit, it gets the new text of the changed files and reports their errors.
//! Errors that a file had before the session's first edit of it are left out.
//!
//! ```text
//!   Change {path, before, after} ─► LanguageServer ─► didOpen ─► diagnostics ─► didClose ─► Problem
//! ```
//!
//! The server runs in the sandbox. Whatever it sends is untrusted: messages are limited in size and
//! number, every wait has a time limit, and a server that fails or is too slow is not asked again.

mod connection;
mod document;
mod problem;
mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use lsp_types::{
    ClientCapabilities, ClientInfo, Diagnostic, DiagnosticClientCapabilities, DidChangeTextDocumentParams,
    DidChangeWatchedFilesParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, DocumentDiagnosticParams, DocumentDiagnosticReport,
    DocumentDiagnosticReportResult, FileChangeType, FileEvent, InitializeParams, InitializedParams,
    PublishDiagnosticsClientCapabilities, TextDocumentClientCapabilities, TextDocumentContentChangeEvent,
    TextDocumentIdentifier, TextDocumentItem, TextDocumentSyncClientCapabilities,
    VersionedTextDocumentIdentifier, WindowClientCapabilities, WorkspaceClientCapabilities, WorkspaceFolder,
    notification as note, request,
};
use sandbox::{Command, Sandbox};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use connection::{Connection, NoResult};
pub use problem::{Problem, describe};

/// How long a server may have nothing to do before it counts as ready. Servers announce that they
/// load the project only after they have started, and some load it in several steps.
const SETTLED: Duration = Duration::from_millis(1_000);
/// How long to wait for more diagnostics after some have been published. Servers publish syntax
/// errors before type errors.
const MORE: Duration = Duration::from_millis(300);
/// How many times the diagnostics of a document are requested again after the server has canceled
/// the request, which it does while it loads the project.
const MAX_REPEATS: usize = 20;
/// The pause before a canceled request is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// The error codes of a request that the server has canceled because the project is changing.
const CANCELED: [i32; 2] = [-32801, -32802];
/// The maximum size of a file to check, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The maximum number of files to check after an edit. Further files are not checked.
const MAX_FILES: usize = 20;
/// The maximum number of files whose state before their first edit is kept.
const MAX_ORIGINALS: usize = 500;

/// A file before and after an edit.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Its path, relative to the root.
    pub path: &'a str,
    /// The old text; `None` if the edit created the file.
    pub before: Option<&'a str>,
    /// The new text; `None` if the edit deleted the file.
    pub after: Option<&'a str>,
}

/// How a server is started.
pub struct Launch {
    /// The sandbox that the server runs in.
    pub sandbox: Sandbox,
    /// The program.
    pub command: Command,
    /// The root of the work tree.
    pub root: PathBuf,
    /// The server's `initializationOptions`.
    pub options: Value,
    /// How long the server may take to start and to load the project.
    pub start_timeout: Duration,
    /// How long the server may take to check an edit.
    pub timeout: Duration,
}

/// A language server of a session.
pub struct LanguageServer {
    launch: Launch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Why the server is not asked anymore.
    failed: Option<String>,
    /// The files as they were before their first edit.
    originals: HashMap<String, Original>,
}

/// A running server.
struct Running {
    connection: Connection,
    /// Whether it answers requests for diagnostics. Otherwise, it publishes them on its own.
    pulls: bool,
    /// The version of the newest document.
    version: i32,
}

/// A file before its first edit.
enum Original {
    /// The file did not exist, or is not checked anymore.
    Absent,
    /// Its text, whose errors are not known yet.
    Text(String),
    /// Its errors.
    Problems(Vec<Problem>),
}

impl LanguageServer {
    /// Prepares a server. It starts at the first check.
    #[must_use]
    pub fn new(launch: Launch) -> Self {
        Self { launch, state: Mutex::default() }
    }

    /// Returns the errors that the changed files have now and did not have before the session
    /// edited them. The changes must already be in the tree. Starts the server if it is not running.
    ///
    /// # Errors
    /// If the server does not start, fails, or is too slow. The text says why. Later checks fail
    /// with the same text, without a wait.
    pub async fn check(&self, changes: &[Change<'_>]) -> Result<Vec<Problem>, String> {
        let mut state = self.state.lock().await;
        if let Some(why) = &state.failed {
            return Err(why.clone());
        }
        for change in changes {
            if state.originals.len() < MAX_ORIGINALS && !state.originals.contains_key(change.path) {
                let original = change.before.map_or(Original::Absent, |text| Original::Text(text.to_owned()));
                state.originals.insert(change.path.to_owned(), original);
            }
        }
        let result = self.check_with(&mut state, changes).await;
        if let Err(why) = &result {
            let how = match state.running.take() {
                Some(running) => running.connection.stop().await,
                None => String::new(),
            };
            let why = if how.is_empty() { why.clone() } else { format!("{why} ({how})") };
            state.failed = Some(why.clone());
            return Err(why);
        }
        result
    }

    async fn check_with(&self, state: &mut State, changes: &[Change<'_>]) -> Result<Vec<Problem>, String> {
        let seconds = |limit: Duration| format!("it did not answer within {} s", limit.as_secs());
        if state.running.is_none() {
            let limit = self.launch.start_timeout;
            let started = timeout(limit, Box::pin(self.start())).await;
            state.running = Some(started.map_err(|_| seconds(limit))??);
        }
        let State { running: Some(running), originals, .. } = state else {
            return Err("it has ended".into());
        };
        running.connection.begin();
        let limit = self.launch.timeout;
        let checked = timeout(limit, Box::pin(running.check(&self.launch.root, originals, changes))).await;
        checked.map_err(|_| seconds(limit))?
    }

    /// Starts the server, and waits until it has loaded the project.
    async fn start(&self) -> Result<Running, String> {
        let Launch { sandbox, command, root, options, .. } = &self.launch;
        let connection = Connection::open(sandbox, command.clone()).await?;
        let answer = match connection.request::<request::Initialize>(hello(root, options)?).await {
            Ok(answer) => answer,
            Err(NoResult::Ended(why)) => {
                let how = connection.stop().await;
                return Err(format!("{why} ({how})"));
            }
            Err(failed) => return Err(failed.into()),
        };
        connection.notify::<note::Initialized>(InitializedParams {}).await;
        let running =
            Running { connection, pulls: answer.capabilities.diagnostic_provider.is_some(), version: 0 };
        running.settle().await?;
        Ok(running)
    }

    /// Ends the server if it is running.
    pub async fn stop(&self) {
        let running = self.state.lock().await.running.take();
        if let Some(running) = running {
            running.connection.stop().await;
        }
    }
}

/// Returns what the client tells the server about itself.
#[expect(deprecated, reason = "some servers still read the root from here")]
fn hello(root: &std::path::Path, options: &Value) -> Result<InitializeParams, String> {
    let uri = document::uri_of(root)?;
    let name = root.file_name().map_or("root".into(), |name| name.to_string_lossy().into_owned());
    Ok(InitializeParams {
        process_id: None, // the sandbox has process numbers of its own
        root_uri: Some(uri.clone()),
        initialization_options: Some(options.clone()).filter(|options| !options.is_null()),
        capabilities: ClientCapabilities {
            workspace: Some(WorkspaceClientCapabilities {
                configuration: Some(true),
                workspace_folders: Some(true),
                ..WorkspaceClientCapabilities::default()
            }),
            text_document: Some(TextDocumentClientCapabilities {
                synchronization: Some(TextDocumentSyncClientCapabilities {
                    did_save: Some(true),
                    ..TextDocumentSyncClientCapabilities::default()
                }),
                publish_diagnostics: Some(PublishDiagnosticsClientCapabilities {
                    version_support: Some(true),
                    ..PublishDiagnosticsClientCapabilities::default()
                }),
                diagnostic: Some(DiagnosticClientCapabilities::default()),
                ..TextDocumentClientCapabilities::default()
            }),
            window: Some(WindowClientCapabilities {
                work_done_progress: Some(true),
                ..WindowClientCapabilities::default()
            }),
            experimental: Some(json!({ "serverStatusNotification": true })),
            ..ClientCapabilities::default()
        },
        workspace_folders: Some(vec![WorkspaceFolder { uri, name }]),
        client_info: Some(ClientInfo {
            name: "agent".into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
        }),
        ..InitializeParams::default()
    })
}

impl Running {
    /// Waits until the server has had nothing to do for a while.
    async fn settle(&self) -> Result<(), String> {
        loop {
            self.connection.until(|heard| heard.is_idle()).await?;
            match timeout(SETTLED, self.connection.until(|heard| !heard.is_idle())).await {
                Ok(result) => result?, // it has begun the next step
                Err(_) => return Ok(()),
            }
        }
    }

    async fn check(
        &mut self,
        root: &std::path::Path,
        originals: &mut HashMap<String, Original>,
        changes: &[Change<'_>],
    ) -> Result<Vec<Problem>, String> {
        let mut events = Vec::new();
        for change in changes {
            let kind = match (change.before, change.after) {
                (_, None) => FileChangeType::DELETED,
                (None, Some(_)) => FileChangeType::CREATED,
                (Some(_), Some(_)) => FileChangeType::CHANGED,
            };
            events.push(FileEvent::new(document::uri_of(&root.join(change.path))?, kind));
        }
        if !events.is_empty() {
            let events = DidChangeWatchedFilesParams { changes: events };
            self.connection.notify::<note::DidChangeWatchedFiles>(events).await;
        }
        let mut problems = Vec::new();
        for change in changes.iter().take(MAX_FILES) {
            let Some(after) = change.after.filter(|text| text.len() <= MAX_FILE) else { continue };
            let path = root.join(change.path);
            let uri = document::uri_of(&path)?;
            let mut document =
                Document { running: self, uri, path: document::path_of(&document::uri_of(&path)?) };
            document.open(change.path, after).await;
            let mut found = Problem::of_file(change.path, &document.diagnostics().await?);
            if !found.is_empty() {
                let known = originals.get_mut(change.path);
                if let Some(Original::Text(text)) = &known {
                    document.change(text).await;
                    let old = Problem::of_file(change.path, &document.diagnostics().await?);
                    if let Some(known) = known {
                        *known = Original::Problems(old);
                    }
                }
                if let Some(Original::Problems(old)) = originals.get(change.path) {
                    found = problem::without(found, old);
                }
            }
            document.close().await;
            problems.append(&mut found);
        }
        Ok(problems)
    }
}

/// An open document.
struct Document<'a> {
    running: &'a mut Running,
    uri: lsp_types::Uri,
    path: String,
}

impl Document<'_> {
    fn id(&self) -> TextDocumentIdentifier {
        TextDocumentIdentifier { uri: self.uri.clone() }
    }

    fn next_version(&mut self) -> i32 {
        self.running.connection.listen(&self.path);
        self.running.version += 1;
        self.running.version
    }

    async fn open(&mut self, path: &str, text: &str) {
        let version = self.next_version();
        let language = document::language(path).to_owned();
        let text_document = TextDocumentItem::new(self.uri.clone(), language, version, text.to_owned());
        let params = DidOpenTextDocumentParams { text_document };
        self.running.connection.notify::<note::DidOpenTextDocument>(params).await;
        // The file on disk has this text.
        let params = DidSaveTextDocumentParams { text_document: self.id(), text: None };
        self.running.connection.notify::<note::DidSaveTextDocument>(params).await;
    }

    async fn change(&mut self, text: &str) {
        let version = self.next_version();
        let whole = TextDocumentContentChangeEvent { range: None, range_length: None, text: text.to_owned() };
        let params = DidChangeTextDocumentParams {
            text_document: VersionedTextDocumentIdentifier { uri: self.uri.clone(), version },
            content_changes: vec![whole],
        };
        self.running.connection.notify::<note::DidChangeTextDocument>(params).await;
    }

    async fn close(self) {
        let params = DidCloseTextDocumentParams { text_document: self.id() };
        self.running.connection.notify::<note::DidCloseTextDocument>(params).await;
        self.running.connection.ignore(&self.path);
    }

    /// Returns the diagnostics of the newest version.
    async fn diagnostics(&self) -> Result<Vec<Diagnostic>, String> {
        if self.running.pulls { self.pulled().await } else { self.published().await }
    }

    async fn pulled(&self) -> Result<Vec<Diagnostic>, String> {
        let connection = &self.running.connection;
        for _ in 0..MAX_REPEATS {
            connection.until(|heard| heard.is_idle()).await?;
            let params = DocumentDiagnosticParams {
                text_document: self.id(),
                identifier: None,
                previous_result_id: None,
                work_done_progress_params: lsp_types::WorkDoneProgressParams::default(),
                partial_result_params: lsp_types::PartialResultParams::default(),
            };
            match connection.request::<request::DocumentDiagnosticRequest>(params).await {
                Ok(DocumentDiagnosticReportResult::Report(DocumentDiagnosticReport::Full(report))) => {
                    return Ok(report.full_document_diagnostic_report.items);
                }
                Ok(_) => return Ok(Vec::new()),
                Err(NoResult::Failed(failed)) if CANCELED.contains(&failed.code) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failed) => return Err(failed.into()),
            }
        }
        Err(format!("it canceled {MAX_REPEATS} requests for diagnostics"))
    }

    async fn published(&self) -> Result<Vec<Diagnostic>, String> {
        let connection = &self.running.connection;
        let wanted = self.running.version;
        let current = |heard: &connection::Heard, after: usize| {
            let published = heard.published(&self.path).filter(|p| p.count > after);
            published.is_some_and(|p| p.version.is_none_or(|version| version >= wanted))
        };
        connection.until(|heard| current(heard, 0)).await?;
        loop {
            let count = connection.read(|heard| heard.published(&self.path).map_or(0, |p| p.count));
            let end = Instant::now() + MORE;
            match timeout_at(end, connection.until(|heard| current(heard, count))).await {
                Ok(result) => result?,
                Err(_) => break,
            }
        }
        Ok(connection
            .read(|heard| heard.published(&self.path).map(|p| p.diagnostics.clone()))
            .unwrap_or_default())
    }
}
