//! Asks language servers which errors an edit has caused.
//!
//! A [`LanguageServer`] starts when a file that it handles is first edited, and runs until the
//! session ends. For each edit, it is told which files have changed, receives the new text of the
//! edited files, and reports their errors. Errors that were already in a file's original text are
//! left out.
//!
//! ```text
//!   Edited {path, original, text} ─► didChangeWatchedFiles ─► didOpen ─► diagnostics ─► didClose ─► Problem
//! ```
//!
//! The server runs in the sandbox. Everything it sends is untrusted: messages are limited in size
//! and number, every wait has a time limit, and a server that fails or is too slow is not used
//! again.

mod connection;
mod document;
mod problem;
mod wire;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lsp_types::{
    ClientCapabilities, ClientInfo, Diagnostic, DiagnosticClientCapabilities, DidChangeWatchedFilesParams,
    DidCloseTextDocumentParams, DidOpenTextDocumentParams, DidSaveTextDocumentParams,
    DocumentDiagnosticParams, DocumentDiagnosticReport, DocumentDiagnosticReportResult, FileChangeType,
    FileEvent, InitializeParams, InitializedParams, PublishDiagnosticsClientCapabilities,
    TextDocumentClientCapabilities, TextDocumentIdentifier, TextDocumentItem,
    TextDocumentSyncClientCapabilities, Uri, WindowClientCapabilities, WorkspaceClientCapabilities,
    WorkspaceFolder, notification as note, request,
};
use sandbox::{Command, Sandbox};
use secrets::Secrets;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use connection::{Connection, Heard, NoResult};
pub use problem::{Problem, describe};

/// How long a server must be idle before it is considered ready. Servers do not announce that they
/// are loading the project until after they have started, and some load it in several steps.
const SETTLED: Duration = Duration::from_millis(1_000);
/// How long to wait for more diagnostics after some have been published for a document version.
/// Servers publish syntax errors before type errors.
const MORE: Duration = Duration::from_millis(300);
/// Same as [`MORE`], but for a server that does not specify which version the diagnostics are for.
/// typescript-language-server has been observed to take 1 s between publishing the first
/// diagnostics and the second.
const MORE_UNVERSIONED: Duration = Duration::from_millis(2_000);
/// How many times to request a document's diagnostics if the server keeps canceling the request, as
/// servers do while they load the project.
const MAX_REPEATS: usize = 20;
/// The pause before a canceled request is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// The error codes for a request that the server canceled: `ContentModified` and `ServerCancelled`.
const CANCELED: [i32; 2] = [-32801, -32802];
/// The maximum size of a file to check, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The maximum number of files to check after an edit. Any others are not checked.
const MAX_FILES: usize = 20;
/// The maximum number of changed files to tell a server about before a check.
const MAX_TOLD: usize = 1_000;

/// A file that an edit has created or changed.
#[derive(Debug, Clone, Copy)]
pub struct Edited<'a> {
    /// Its path, relative to the root.
    pub path: &'a str,
    /// Its text before the session changed it, or `None` if it did not exist.
    pub original: Option<&'a str>,
    /// Its text now.
    pub text: &'a str,
}

/// A file that the session has changed through an edit, a command or a revert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its path, relative to the root.
    pub path: String,
    /// Whether it existed before the session.
    pub existed: bool,
}

/// How to start a server.
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
    /// How long the server may take to check an edit. The first check may take as long as startup
    /// does, because some servers load the project only when a file is opened.
    pub timeout: Duration,
    /// The secrets to mask in everything that the server sends.
    pub secrets: Secrets,
}

/// A session's language server.
pub struct LanguageServer {
    launch: Launch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Why the server is no longer used.
    failed: Option<String>,
    /// The errors in the original text of each checked file, by path.
    known: HashMap<String, Vec<Problem>>,
}

/// A running server.
struct Running {
    connection: Connection,
    /// Whether it answers requests for diagnostics. If not, it publishes them on its own.
    pulls: bool,
    /// The version of the newest document.
    version: i32,
    /// The state of each changed file when the server was last told about it, by path.
    told: HashMap<String, Stamp>,
}

/// When a file was last written, and its size, or `None` if it does not exist.
type Stamp = Option<(SystemTime, u64)>;

impl LanguageServer {
    /// Prepares a server. It starts on the first check.
    #[must_use]
    pub fn new(launch: Launch) -> Self {
        Self { launch, state: Mutex::default() }
    }

    /// Returns the errors in the edited files, except those that were already in their original
    /// text. `changed` lists all files that the session has changed so far. Starts the server if it
    /// is not running. If time runs out after some of the files have been checked, only their
    /// errors are returned.
    ///
    /// # Errors
    /// If the server does not start, fails, or is too slow. The error says why. Later checks fail
    /// immediately with the same error.
    pub async fn check(&self, edited: &[Edited<'_>], changed: &[Changed]) -> Result<Vec<Problem>, String> {
        let mut state = self.state.lock().await;
        if let Some(why) = &state.failed {
            return Err(why.clone());
        }
        let result = self.check_with(&mut state, edited, changed).await;
        if let Err(why) = &result {
            let how = match state.running.take() {
                Some(running) => running.connection.stop(&self.launch.secrets).await,
                None => String::new(),
            };
            let why = if how.is_empty() { why.clone() } else { format!("{why} ({how})") };
            state.failed = Some(why.clone());
            return Err(why);
        }
        result
    }

    async fn check_with(
        &self,
        state: &mut State,
        edited: &[Edited<'_>],
        changed: &[Changed],
    ) -> Result<Vec<Problem>, String> {
        let Launch { root, start_timeout, secrets, .. } = &self.launch;
        let too_slow = |limit: Duration| format!("it did not answer within {} s", limit.as_secs());
        let mut limit = self.launch.timeout;
        if state.running.is_none() {
            let started = timeout(*start_timeout, Box::pin(self.start(changed))).await;
            state.running = Some(started.map_err(|_| too_slow(*start_timeout))??);
            limit = limit.max(*start_timeout);
        }
        let State { running: Some(running), known, .. } = state else { return Err("it has ended".into()) };
        let deadline = Instant::now() + limit;
        running.connection.begin();
        timeout_at(deadline, running.tell(root, changed)).await.map_err(|_| too_slow(limit))??;
        let mut problems = Vec::new();
        let small = edited.iter().filter(|file| file.text.len() <= MAX_FILE);
        for (number, file) in small.take(MAX_FILES).enumerate() {
            let checked = timeout_at(deadline, Box::pin(running.check(root, file, known, secrets))).await;
            match checked {
                Ok(found) => problems.append(&mut found?),
                Err(_) if number == 0 => return Err(too_slow(limit)),
                Err(_) => {
                    let uri = document::uri_of(&root.join(file.path))?;
                    let _ = timeout(PAUSE, running.close(uri)).await;
                    break;
                }
            }
        }
        Ok(problems)
    }

    /// Starts the server and waits until it has loaded the project.
    async fn start(&self, changed: &[Changed]) -> Result<Running, String> {
        let Launch { sandbox, command, root, options, secrets, .. } = &self.launch;
        let uri = document::uri_of(root)?;
        let name = root.file_name().map_or("root".into(), |name| name.to_string_lossy().into_owned());
        let folder = WorkspaceFolder { uri, name };
        let described = serde_json::to_value(&folder).map_err(|e| e.to_string())?;
        let connection = Connection::open(sandbox, command.clone(), described).await?;
        // The server sees the files as they are now.
        let told = changed.iter().map(|file| (file.path.clone(), stamp(&root.join(&file.path)))).collect();
        match greet(&connection, hello(folder, options), secrets).await {
            Ok(pulls) => Ok(Running { connection, pulls, version: 0, told }),
            Err(why) => {
                let how = connection.stop(secrets).await;
                Err(format!("{why} ({how})"))
            }
        }
    }

    /// Stops the server if it is running.
    pub async fn stop(&self) {
        let running = self.state.lock().await.running.take();
        if let Some(running) = running {
            running.connection.stop(&self.launch.secrets).await;
        }
    }
}

/// Exchanges the initial messages and waits until the server has been idle for a while. Returns
/// whether it answers requests for diagnostics.
async fn greet(connection: &Connection, hello: InitializeParams, secrets: &Secrets) -> Result<bool, String> {
    let answer = connection.request::<request::Initialize>(hello).await;
    let answer = answer.map_err(|failed| failed.describe(secrets))?;
    connection.notify::<note::Initialized>(InitializedParams {}).await;
    loop {
        connection.until(Heard::is_idle).await?;
        match timeout(SETTLED, connection.until(|heard| !heard.is_idle())).await {
            Ok(result) => result?, // it has begun the next step
            Err(_) => return Ok(answer.capabilities.diagnostic_provider.is_some()),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

/// Returns the parameters of the `initialize` request.
#[expect(deprecated, reason = "some servers still read the root from here")]
fn hello(folder: WorkspaceFolder, options: &Value) -> InitializeParams {
    InitializeParams {
        process_id: None, // the sandbox has its own process ids
        root_uri: Some(folder.uri.clone()),
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
        workspace_folders: Some(vec![folder]),
        client_info: Some(ClientInfo {
            name: "agent".into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
        }),
        ..InitializeParams::default()
    }
}

impl Running {
    /// Tells the server which files have changed since it was last told.
    async fn tell(&mut self, root: &Path, changed: &[Changed]) -> Result<(), String> {
        let mut events = Vec::new();
        for file in changed.iter().take(MAX_TOLD) {
            let path = root.join(&file.path);
            let now = stamp(&path);
            let existed = match self.told.insert(file.path.clone(), now) {
                Some(before) if before == now => continue,
                Some(before) => before.is_some(),
                None => file.existed,
            };
            let kind = match (existed, now) {
                (false, None) => continue,
                (true, None) => FileChangeType::DELETED,
                (false, Some(_)) => FileChangeType::CREATED,
                (true, Some(_)) => FileChangeType::CHANGED,
            };
            events.push(FileEvent::new(document::uri_of(&path)?, kind));
        }
        if !events.is_empty() {
            let params = DidChangeWatchedFilesParams { changes: events };
            self.connection.notify::<note::DidChangeWatchedFiles>(params).await;
        }
        Ok(())
    }

    /// Returns the errors in a file, except those that were already in its original text.
    async fn check(
        &mut self,
        root: &Path,
        file: &Edited<'_>,
        known: &mut HashMap<String, Vec<Problem>>,
        secrets: &Secrets,
    ) -> Result<Vec<Problem>, String> {
        let found = self.problems(root, file.path, file.text, secrets).await?;
        if !known.contains_key(file.path) {
            // If the first check finds no errors, any errors in the original text have already been
            // fixed.
            let old = match file.original {
                Some(original) if !found.is_empty() => {
                    self.problems(root, file.path, original, secrets).await?
                }
                _ => Vec::new(),
            };
            known.insert(file.path.to_owned(), old);
        }
        Ok(problem::without(found, known.get(file.path).map_or(&[], Vec::as_slice)))
    }

    /// Returns the errors that a file would have with this text.
    async fn problems(
        &mut self,
        root: &Path,
        path: &str,
        text: &str,
        secrets: &Secrets,
    ) -> Result<Vec<Problem>, String> {
        let uri = document::uri_of(&root.join(path))?;
        self.version += 1;
        self.connection.listen(&document::path_of(&uri));
        let language = document::language(path).to_owned();
        let text_document = TextDocumentItem::new(uri.clone(), language, self.version, text.to_owned());
        self.connection
            .notify::<note::DidOpenTextDocument>(DidOpenTextDocumentParams { text_document })
            .await;
        let text_document = TextDocumentIdentifier { uri: uri.clone() };
        let saved = DidSaveTextDocumentParams { text_document, text: None };
        self.connection.notify::<note::DidSaveTextDocument>(saved).await;
        let diagnostics =
            if self.pulls { self.pulled(&uri, secrets).await? } else { self.published(&uri).await? };
        self.close(uri).await;
        Ok(Problem::of_file(path, &diagnostics, secrets))
    }

    async fn close(&self, uri: Uri) {
        self.connection.ignore(&document::path_of(&uri));
        let params = DidCloseTextDocumentParams { text_document: TextDocumentIdentifier { uri } };
        self.connection.notify::<note::DidCloseTextDocument>(params).await;
    }

    /// Requests the diagnostics of an open document.
    async fn pulled(&self, uri: &Uri, secrets: &Secrets) -> Result<Vec<Diagnostic>, String> {
        for _ in 0..MAX_REPEATS {
            self.connection.until(Heard::is_idle).await?;
            let params = DocumentDiagnosticParams {
                text_document: TextDocumentIdentifier { uri: uri.clone() },
                identifier: None,
                previous_result_id: None,
                work_done_progress_params: lsp_types::WorkDoneProgressParams::default(),
                partial_result_params: lsp_types::PartialResultParams::default(),
            };
            match self.connection.request::<request::DocumentDiagnosticRequest>(params).await {
                Ok(DocumentDiagnosticReportResult::Report(DocumentDiagnosticReport::Full(report))) => {
                    return Ok(report.full_document_diagnostic_report.items);
                }
                Ok(_) => return Ok(Vec::new()),
                Err(NoResult::Failed(failed)) if CANCELED.contains(&failed.code) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failed) => return Err(failed.describe(secrets)),
            }
        }
        Err(format!("it canceled {MAX_REPEATS} requests for diagnostics"))
    }

    /// Waits for the diagnostics of the newest document, which the server publishes on its own.
    async fn published(&self, uri: &Uri) -> Result<Vec<Diagnostic>, String> {
        let (path, wanted) = (document::path_of(uri), self.version);
        let current = |heard: &Heard, after: usize| {
            let published = heard.published(&path).filter(|published| published.count > after);
            published.is_some_and(|p| p.version.is_none_or(|version| version >= wanted))
        };
        self.connection.until(|heard| current(heard, 0) && heard.is_idle()).await?;
        loop {
            let seen = self.connection.read(|heard| heard.published(&path).map(|p| (p.count, p.version)));
            let (count, version) = seen.unwrap_or_default();
            let quiet = if version.is_some() { MORE } else { MORE_UNVERSIONED };
            match timeout(quiet, self.connection.until(|heard| current(heard, count))).await {
                Ok(result) => result?,
                Err(_) => break,
            }
        }
        let diagnostics = |heard: &Heard| heard.published(&path).map(|p| p.diagnostics.clone());
        Ok(self.connection.read(diagnostics).unwrap_or_default())
    }
}
