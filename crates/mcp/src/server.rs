//! The connection to one server: starts the server or connects to it, lists and calls its tools,
//! and ends the connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, CancelledNotification,
    CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest, Implementation, JsonObject,
    PaginatedRequestParams, RequestId, ServerResult,
};
use rmcp::service::{
    ClientInitializeError, NotificationContext, Peer, PeerRequestOptions, RoleClient, RunningService,
    ServiceError, serve_client,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use sandbox::{Command, Sandbox, Service};
use secrets::Secrets;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::limits::{Limited, MAX_MESSAGE, Meter};
use crate::outcome::message;

/// The maximum number of pages in a list of tools.
const MAX_PAGES: usize = 50;
/// The maximum number of tools per server. Any others are ignored.
const MAX_TOOLS: usize = 2_000;
/// How many times per session to restart a server that has ended.
const MAX_RESTARTS: u32 = 1;
/// The time limit for a call that reports progress, as a multiple of the usual time limit.
const PROGRESS_FACTOR: u32 = 4;
/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach a server.
pub enum Connection {
    /// A program in a sandbox.
    Stdio {
        /// The sandbox. Its policy determines what the server may do.
        sandbox: Sandbox,
        /// The program.
        command: Command,
    },
    /// Streamable HTTP.
    Http {
        /// The client, which does not follow redirects.
        client: reqwest::Client,
        /// The URL.
        url: String,
        /// Headers to send with each request.
        headers: Vec<(String, String)>,
    },
}

/// How long to wait for a server.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// How long to wait for it to start and list its tools.
    pub start: Duration,
    /// How long to wait for an answer to a call, or for a progress report.
    pub call: Duration,
}

/// A tool as the server defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The server's own name for it.
    pub name: String,
    /// Its description.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub schema: Value,
}

impl Definition {
    /// Returns a digest of everything that the model is told about the tool.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::json!([self.name, self.description, self.schema]).to_string();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The tools of a server.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The tools, in the server's order.
    pub tools: Vec<Definition>,
    /// Whether there were more tools than the limits allow.
    pub truncated: bool,
}

/// A server.
pub struct Server {
    name: String,
    connection: Connection,
    timeouts: Timeouts,
    /// The secrets to mask in the server's messages.
    secrets: Secrets,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Live>>,
    restarts: u32,
    /// The digests of the tools in the newest listing, by name.
    digests: BTreeMap<String, String>,
}

/// An open connection.
struct Live {
    service: RunningService<RoleClient, Handler>,
    program: Option<Service>,
    meter: Meter,
    secrets: Secrets,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoResult {
    /// The call was not made.
    Refused(String),
    /// The call was made, but failed.
    Failed(String),
}

/// Handles notifications from the server.
#[derive(Clone, Default)]
struct Handler {
    list_changed: Arc<AtomicBool>,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("agent", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), own)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.list_changed.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// Starts a server or connects to it, and lists its tools.
    ///
    /// # Errors
    /// If the server cannot be started or reached, or cannot list its tools. The error says why.
    /// Any server text that it contains is sanitized and limited in length.
    pub async fn start(
        name: &str,
        connection: Connection,
        timeouts: Timeouts,
        secrets: Secrets,
    ) -> Result<(Arc<Self>, Listing), String> {
        let server = Self { name: name.to_owned(), connection, timeouts, secrets, state: Mutex::default() };
        let (live, listing) = server.open().await?;
        let digests = digests(&listing);
        *server.state.lock().await = State { live: Some(Arc::new(live)), restarts: 0, digests };
        Ok((Arc::new(server), listing))
    }

    /// Returns the server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the connection as soon as no call is using it. If none is using it now, the program and
    /// everything that it started have ended when this returns.
    pub async fn stop(&self) {
        let live = self.state.lock().await.live.take();
        if let Some(live) = live.and_then(Arc::into_inner) {
            close(live).await;
        }
    }

    /// Opens the connection and lists the tools.
    async fn open(&self) -> Result<(Live, Listing), String> {
        let seconds = self.timeouts.start.as_secs();
        let (meter, handler) = (Meter::default(), Handler::default());
        let (service, program) = match &self.connection {
            Connection::Stdio { sandbox, command } => {
                let (stdin, stdout, program) =
                    sandbox.serve(command.clone()).await.map_err(|e| e.to_string())?;
                let transport = (Limited::new(stdout, meter.clone()), stdin);
                let opened = timeout(self.timeouts.start, Box::pin(serve_client(handler, transport))).await;
                match opened {
                    Ok(Ok(service)) => (service, Some(program)),
                    Ok(Err(ClientInitializeError::ConnectionClosed(_))) => {
                        return Err(told(&meter, program, None, &self.secrets).await);
                    }
                    Ok(Err(error)) => {
                        return Err(told(&meter, program, Some(error.to_string()), &self.secrets).await);
                    }
                    Err(_) => {
                        let late = format!("no answer within {seconds} s");
                        return Err(told(&meter, program, Some(late), &self.secrets).await);
                    }
                }
            }
            Connection::Http { client, url, headers } => {
                let config = http(url, headers)?;
                let transport = StreamableHttpClientTransport::with_client(client.clone(), config);
                let opened = timeout(self.timeouts.start, Box::pin(serve_client(handler, transport))).await;
                let service = opened.map_err(|_| format!("no answer within {seconds} s"))?;
                (service.map_err(|e| self.without_url(&e.to_string()))?, None)
            }
        };
        let live = Live { service, program, meter, secrets: self.secrets.clone() };
        let listed = timeout(self.timeouts.start, list(&live)).await;
        match listed.unwrap_or_else(|_| Err(format!("did not list its tools within {seconds} s"))) {
            Ok(listing) => Ok((live, listing)),
            Err(why) => {
                let why = live.meter.excess().unwrap_or(why);
                close(live).await;
                Err(why)
            }
        }
    }

    /// Calls a tool if its definition still has this digest. If the server has ended, restarts it
    /// first, but only once per session.
    pub(crate) async fn call(
        &self,
        tool: &str,
        digest: &str,
        arguments: JsonObject,
    ) -> Result<CallToolResult, NoResult> {
        let live = self.live(tool, digest).await?;
        live.meter.reset();
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let options = PeerRequestOptions::with_timeout(self.timeouts.call)
            .reset_timeout_on_progress()
            .with_max_total_timeout(self.timeouts.call * PROGRESS_FACTOR);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let sent = live.service.send_cancellable_request(request, options).await;
        let answered = match sent {
            Ok(handle) => {
                let mut cancel =
                    CancelOnDrop { peer: live.service.peer().clone(), id: Some(handle.id.clone()) };
                let answered = handle.await_response().await;
                cancel.id = None; // the call was answered, or already canceled by the timeout
                answered
            }
            Err(error) => Err(error),
        };
        match answered {
            Ok(ServerResult::CallToolResult(result)) => Ok(result),
            Ok(_) => Err(NoResult::Failed(format!("{} sent something other than a result", self.name))),
            Err(ServiceError::McpError(error)) => Err(NoResult::Failed(format!(
                "{} refused the call: {}",
                self.name,
                message(&error.message, &self.secrets)
            ))),
            Err(ServiceError::Timeout { timeout }) => Err(NoResult::Failed(format!(
                "no answer within {} s; the call was canceled",
                timeout.as_secs()
            ))),
            Err(error) => Err(NoResult::Failed(self.ended(live, &error).await)),
        }
    }

    /// Returns the open connection after checking that the tool is unchanged. Restarts the server
    /// if needed.
    async fn live(&self, tool: &str, digest: &str) -> Result<Arc<Live>, NoResult> {
        let mut state = self.state.lock().await;
        let open = state.live.clone().filter(|live| !live.service.peer().is_transport_closed());
        let live = match open {
            Some(live) => {
                if live.service.service().list_changed.swap(false, Ordering::Relaxed) {
                    live.meter.reset();
                    let listed = timeout(self.timeouts.start, list(&live)).await;
                    let late = || "it did not list its tools in time".to_owned();
                    let listing = listed.map_err(|_| late()).and_then(|listed| listed);
                    let unknown = |why| {
                        // The tools may have changed, so list them again before the next call.
                        live.service.service().list_changed.store(true, Ordering::Relaxed);
                        NoResult::Refused(format!("{} announced changed tools, and {why}", self.name))
                    };
                    state.digests = digests(&listing.map_err(unknown)?);
                }
                live
            }
            None => {
                if state.restarts >= MAX_RESTARTS {
                    let message = format!(
                        "the MCP server {} exited again and will not be restarted in this session",
                        self.name
                    );
                    return Err(NoResult::Refused(message));
                }
                state.restarts += 1;
                let ended = state.live.take();
                if let Some(live) = ended.and_then(Arc::into_inner) {
                    close(live).await;
                }
                let failed =
                    |why| NoResult::Refused(format!("could not restart the MCP server {}: {why}", self.name));
                let (live, listing) = self.open().await.map_err(failed)?;
                state.digests = digests(&listing);
                let live = Arc::new(live);
                state.live = Some(Arc::clone(&live));
                live
            }
        };
        match state.digests.get(tool) {
            Some(now) if now == digest => Ok(live),
            Some(_) => Err(NoResult::Refused(format!(
                "the server changed the tool {} after the session began, so it will no longer be called",
                crate::tool_name(&self.name, tool)
            ))),
            None => Err(NoResult::Refused(format!(
                "the server no longer offers the tool {}",
                crate::tool_name(&self.name, tool)
            ))),
        }
    }

    /// Formats an error for use within a sentence. Removes the server's URL, because any part of it
    /// may be a token.
    fn without_url(&self, text: &str) -> String {
        match &self.connection {
            Connection::Http { url, .. } => message(&text.replace(url.as_str(), "its URL"), &self.secrets),
            Connection::Stdio { .. } => message(text, &self.secrets),
        }
    }

    /// Describes why a connection ended during a call, and removes it.
    async fn ended(&self, live: Arc<Live>, error: &ServiceError) -> String {
        let excess = live.meter.excess();
        let mut state = self.state.lock().await;
        let is_current = state.live.as_ref().is_some_and(|current| Arc::ptr_eq(current, &live));
        // Another call may have noticed this first, or may already have restarted the server.
        let starts_again = state.restarts < MAX_RESTARTS || (!is_current && state.live.is_some());
        let more = if starts_again {
            "the next call restarts it"
        } else {
            "it will not be restarted in this session"
        };
        if is_current {
            state.live = None;
        }
        drop(state);
        let mut how = String::new();
        if let Some(live) = Arc::into_inner(live) {
            how = close(live).await;
        }
        let why =
            excess.unwrap_or_else(|| if how.is_empty() { self.without_url(&error.to_string()) } else { how });
        format!(
            "the MCP server {} ended during the call: {why}; the call may have had effects; {more}",
            self.name
        )
    }
}

fn digests(listing: &Listing) -> BTreeMap<String, String> {
    let mut digests = BTreeMap::new();
    for tool in &listing.tools {
        // If several tools have the same name, the first one wins.
        digests.entry(tool.name.clone()).or_insert_with(|| tool.digest());
    }
    digests
}

/// Lists the tools, page by page.
async fn list(live: &Live) -> Result<Listing, String> {
    let mut listing = Listing::default();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let params = cursor.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        live.meter.reset();
        let page = live.service.peer().list_tools(params).await;
        let page =
            page.map_err(|e| live.meter.excess().unwrap_or_else(|| message(&e.to_string(), &live.secrets)))?;
        for tool in page.tools {
            if listing.tools.len() == MAX_TOOLS {
                listing.truncated = true;
                return Ok(listing);
            }
            let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
            listing.tools.push(Definition {
                name: tool.name.to_string(),
                description: description.to_owned(),
                schema: tool.schema_as_json_value(),
            });
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(listing);
        }
    }
    listing.truncated = true;
    Ok(listing)
}

/// Ends a connection. Returns a short description of how the program ended, which is empty for a
/// server over HTTP.
async fn close(live: Live) -> String {
    let Live { mut service, program, secrets, .. } = live;
    // Closes the program's input, which asks it to exit.
    let _ = service.close_with_timeout(CLOSE_TIMEOUT).await;
    drop(service);
    match program {
        Some(program) => {
            let (how, last) = end_of(program, &secrets).await;
            how + &last
        }
        None => String::new(),
    }
}

/// Stops a program. Returns how it ended, and the last line of its standard error, phrased as the
/// end of a sentence.
async fn end_of(program: Service, secrets: &Secrets) -> (String, String) {
    let (how, errors) = program.stop().await;
    let errors = sandbox::plain(&[errors.head, errors.tail].concat());
    let last = errors.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map(|line| message(line, secrets));
    (how, last.map(|last| format!("; its last message is: {last}")).unwrap_or_default())
}

/// Stops a program that could not be used as a server. Returns the reason: the program exceeded a
/// limit, `error` occurred, or the program ended.
async fn told(meter: &Meter, program: Service, error: Option<String>, secrets: &Secrets) -> String {
    let (how, last) = end_of(program, secrets).await;
    meter.excess().unwrap_or_else(|| error.map_or(how, |error| message(&error, secrets)) + &last)
}

fn http(url: &str, headers: &[(String, String)]) -> Result<StreamableHttpClientTransportConfig, String> {
    use reqwest::header::{HeaderName, HeaderValue};
    let header = |(name, value): &(String, String)| {
        let invalid = || format!("the header {name:?} is not valid");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok::<_, String>((key, value))
    };
    let headers = headers.iter().map(header).collect::<Result<_, _>>()?;
    Ok(StreamableHttpClientTransportConfig::with_uri(url.to_owned())
        .custom_headers(headers)
        .max_sse_event_size(MAX_MESSAGE)
        .max_json_response_size(MAX_MESSAGE))
}

/// When dropped before the call is answered, tells the server that the call has been canceled.
struct CancelOnDrop {
    peer: Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let peer = self.peer.clone();
        runtime.spawn(async move {
            let params = CancelledNotificationParam::new(Some(id), Some("the run was stopped".into()));
            let _ = peer.send_notification(CancelledNotification::new(params).into()).await;
        });
    }
}
