//! `agent mcp serve`: offers this agent to other agents as an MCP server over stdin and stdout.
//!
//! Each call runs this binary as a child process, reports the child's events as progress, and
//! terminates the child if the call is canceled or the client disconnects. Only protocol messages
//! are written to stdout.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig,
    Tool,
};
use rmcp::service::{RequestContext, RoleServer, serve_server};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Capture, OutputLimits};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, watch};

use crate::context::Context;
use crate::exit::{Exit, Result};
use crate::interrupt::{self, Signals};

/// The environment variable that tells a child the process id of its server, so that the child
/// exits when the server does.
pub(crate) const SERVED_BY: &str = "AGENT_SERVED_BY";
/// Maximum number of calls that run at a time.
const MAX_CALLS: usize = 8;
/// Maximum length, in bytes, of a line of a child's output. The limit is large because the last
/// event of a run contains the patch.
const MAX_LINE: u64 = 64 << 20;
/// How long a child may take to exit after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How much of a long patch or output to include in a result.
const SHOWN: OutputLimits = OutputLimits {
    head_bytes: 16 << 10,
    head_lines: 400,
    tail_bytes: 8 << 10,
    tail_lines: 200,
    log_bytes: 0,
    total_bytes: u64::MAX,
};
/// Maximum length of a progress message, in characters.
const MAX_MESSAGE: usize = 200;

/// Serves until the client closes stdin, or a signal arrives.
pub(super) fn run(context: &Context) -> Result<Exit> {
    let root = context.directory.clone();
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let (stop, stopped) = watch::channel(false);
        let calls = std::sync::Arc::new(Semaphore::new(MAX_CALLS));
        let served = Served { root, calls: calls.clone(), stopped };
        let transport = rmcp::transport::io::stdio_pipes();
        let service = tokio::select! {
            service = Box::pin(serve_server(served, transport)) => service,
            () = signals.wait() => return Ok(Exit::Success),
        };
        let Ok(service) = service else { return Ok(Exit::Success) }; // the client disconnected
        tokio::select! {
            _ = service.waiting() => {}
            () = signals.wait() => {}
        }
        stop.send_replace(true);
        // Wait for the children, which have received SIGTERM.
        let all = calls.acquire_many(u32::try_from(MAX_CALLS).unwrap_or(u32::MAX));
        let _ = tokio::time::timeout(GRACE + Duration::from_secs(1), all).await;
        Ok(Exit::Success)
    })
}

/// The server that other agents see.
struct Served {
    /// The folder that calls work in. They may also work in its subfolders.
    root: PathBuf,
    calls: std::sync::Arc<Semaphore>,
    /// Becomes true when the server shuts down.
    stopped: watch::Receiver<bool>,
}

impl ServerHandler for Served {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("agent", env!("CARGO_PKG_VERSION")))
            .with_instructions("An autonomous coding agent. Each tool works in the folder in which the server was started, or in a folder below it.")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> std::result::Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult { tools: tools(), ..ListToolsResult::default() })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> std::result::Result<CallToolResponse, ErrorData> {
        let invalid = |why: String| ErrorData::invalid_params(why, None);
        let Ok(_permit) = self.calls.try_acquire() else {
            return Err(ErrorData::internal_error(
                format!("{MAX_CALLS} calls are running; try again later"),
                None,
            ));
        };
        let order =
            order(&request.name, &request.arguments.unwrap_or_default(), &self.root).map_err(invalid)?;
        let mut stopped = self.stopped.clone();
        let gone = async {
            tokio::select! {
                () = context.ct.cancelled() => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        };
        let done = Box::pin(carry_out(order, &context, gone)).await;
        done.map(Into::into)
            .map_err(|e| ErrorData::internal_error(format!("cannot run the agent: {e}"), None))
    }
}

/// A call, translated to a command line for this binary.
struct Order {
    arguments: Vec<String>,
    folder: PathBuf,
    input: String,
    /// Whether the child prints events, one JSON object per line.
    has_events: bool,
}

fn tools() -> Vec<Tool> {
    let folder = json!({"type": "string", "description": "A folder below the server's own; default: the server's own folder"});
    let tool = |name: &'static str, about: &'static str, mut properties: Value, required: &[&str]| {
        properties["directory"] = folder.clone();
        let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let schema = schema.as_object().cloned().unwrap_or_default();
        Tool::new(name, about, schema)
    };
    let text = |about: &str| json!({"type": "string", "description": about});
    let patch = || text("The patch: a unified diff, `*** Begin Patch`, SEARCH/REPLACE blocks, or JSON");
    vec![
        tool(
            "run",
            "Work on a coding task in a repository until it is done and verified. Takes minutes",
            json!({
                "task": text("What to do"),
                "dry_run": {"type": "boolean", "description": "Leave the repository unchanged and return the patch"},
                "verify": text("The command that decides whether the task is done; default: the detected test command"),
            }),
            &["task"],
        ),
        tool(
            "batch",
            "Run many coding tasks unattended and return a summary. Takes minutes to hours",
            json!({"tasks": text("A JSONL, YAML or TOML file with the tasks, or a folder of Markdown tasks, relative to the directory")}),
            &["tasks"],
        ),
        tool("apply_patch", "Apply all of a patch or none of it", json!({"patch": patch()}), &["patch"]),
        tool(
            "preview",
            "Show what a patch would change, without changing anything",
            json!({"patch": patch()}),
            &["patch"],
        ),
    ]
}

/// Translates a call to a command line.
fn order(tool: &str, arguments: &Map<String, Value>, root: &Path) -> std::result::Result<Order, String> {
    let known = tools();
    let definition =
        known.iter().find(|known| known.name == tool).ok_or_else(|| format!("unknown tool {tool:?}"))?;
    let schema = definition.schema_as_json_value();
    if let Some(unknown) = arguments.keys().find(|key| schema["properties"].get(key.as_str()).is_none()) {
        return Err(format!("{tool} has no argument {unknown:?}"));
    }
    let text = |key: &str| match arguments.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key:?} must be a non-empty string")),
    };
    let needed = |key: &str| text(key)?.ok_or_else(|| format!("{tool} needs the argument {key:?}"));
    let folder = inside(root, root, &text("directory")?.unwrap_or_else(|| ".".into()))?;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let order = |arguments: Vec<String>, input: String, has_events| Order {
        arguments,
        folder: folder.clone(),
        input,
        has_events,
    };
    Ok(match tool {
        "run" => {
            let mut line = words(&["run", "--json"]);
            match arguments.get("dry_run") {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::Bool(true)) => line.push("--dry-run".into()),
                Some(_) => return Err("\"dry_run\" must be true or false".into()),
            }
            line.extend(text("verify")?.map(|command| format!("--verify={command}")));
            line.push("-".into()); // the task is passed via standard input
            order(line, needed("task")?, true)
        }
        "batch" => {
            let tasks = inside(root, &folder, &needed("tasks")?)?;
            let mut line = words(&["batch", "--json", "--"]);
            line.push(tasks.to_str().ok_or("the path of the tasks is not UTF-8")?.to_owned());
            order(line, String::new(), true)
        }
        "apply_patch" => order(words(&["patch", "--json"]), needed("patch")?, false),
        _ => order(words(&["patch", "--preview=unified"]), needed("patch")?, false),
    })
}

/// Resolves a path that must be in the server's folder.
fn inside(root: &Path, folder: &Path, path: &str) -> std::result::Result<PathBuf, String> {
    let missing = |e| format!("cannot open {path:?}: {e}");
    let found = folder.join(path).canonicalize().map_err(missing)?;
    if found.starts_with(root) {
        Ok(found)
    } else {
        Err(format!("{path:?} is outside the folder of this server"))
    }
}

/// Runs the child process for a call.
async fn carry_out(
    order: Order,
    context: &RequestContext<RoleServer>,
    gone: impl Future<Output = ()>,
) -> std::io::Result<CallToolResult> {
    let mut child = Command::new("/proc/self/exe")
        .args(&order.arguments)
        .current_dir(&order.folder)
        .env(SERVED_BY, std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = async {
        if let Some(mut stdin) = stdin {
            // The child may fail before it reads its input.
            let _ = stdin.write_all(order.input.as_bytes()).await;
        }
    };
    let output = async {
        let mut seen = Seen::new(order.has_events);
        if let Some(stdout) = stdout {
            seen.read(BufReader::new(stdout), context).await?;
        }
        Ok::<_, std::io::Error>(seen)
    };
    let errors = async {
        let mut capture = Capture::new(SHOWN, None);
        let mut buffer = vec![0; 8 << 10];
        if let Some(mut stderr) = stderr {
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                capture.feed(&buffer[..count]);
            }
        }
        capture.finish()
    };
    let work = async { tokio::join!(input, output, errors) };
    tokio::pin!(work, gone);
    let printed = tokio::select! {
        ((), seen, errors) = &mut work => Some((seen, errors)),
        () = &mut gone => None,
    };
    let Some((seen, errors)) = printed else {
        ask_to_end(&child);
        // Keep reading, or the child would block when writing its last events.
        let end = async { tokio::join!(&mut work, child.wait()) };
        if tokio::time::timeout(GRACE, end).await.is_err() {
            let _ = child.kill().await;
        }
        return Ok(CallToolResult::error(vec![ContentBlock::text("canceled")]));
    };
    let status = child.wait().await?;
    Ok(seen?.result(status.code().unwrap_or(-1), &errors.text()))
}

/// Sends SIGTERM, which makes a run end as interrupted.
fn ask_to_end(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The output of a child so far.
struct Seen {
    has_events: bool,
    text: Capture,
    session: Option<String>,
    /// The last event.
    last: Value,
    steps: f64,
}

impl Seen {
    fn new(has_events: bool) -> Self {
        Self { has_events, text: Capture::new(SHOWN, None), session: None, last: Value::Null, steps: 0.0 }
    }

    /// Reads the child's output to the end, and reports progress along the way.
    async fn read(
        &mut self,
        mut lines: impl AsyncBufRead + Unpin,
        context: &RequestContext<RoleServer>,
    ) -> std::io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await?;
            if length == 0 {
                return Ok(());
            }
            if !self.has_events {
                self.text.feed(&line);
                continue;
            }
            let event: Value = serde_json::from_slice(&line).map_err(std::io::Error::other)?;
            if let Some(id) = event["id"].as_str().filter(|_| event["event"] == "session") {
                self.session = Some(id.to_owned());
            }
            if let (Some(message), Some(token)) = (progress(&event), context.meta.get_progress_token()) {
                self.steps += 1.0;
                let params = ProgressNotificationParam::new(token, self.steps).with_message(message);
                let _ = context.peer.notify_progress(params).await;
            }
            self.last = event;
        }
    }

    /// Returns the result of a call whose child exited with this code.
    fn result(self, code: i32, errors: &str) -> CallToolResult {
        let Self { has_events, text, session, last, .. } = self;
        let (text, structured) = if has_events {
            let mut facts = last.as_object().cloned().unwrap_or_default();
            for key in ["v", "seq", "time_ms", "event"] {
                facts.shift_remove(key);
            }
            let patch = facts.get_mut("diff").and_then(|diff| diff.as_object_mut()?.shift_remove("patch"));
            let patch = patch.and_then(|patch| patch.as_str().map(str::to_owned)).unwrap_or_default();
            facts.insert("session".into(), session.into());
            facts.insert("exit_code".into(), code.into());
            let message = facts.get("message").and_then(Value::as_str).unwrap_or(errors).to_owned();
            let mut shown = Capture::new(SHOWN, None);
            shown.feed(patch.as_bytes());
            let about = if facts.contains_key("message") || code == 0 { message } else { errors.to_owned() };
            let facts = Value::Object(facts);
            let text = format!("{about}\n{}", shown.finish().text());
            (if text.trim().is_empty() { facts.to_string() } else { text }, facts)
        } else {
            let output = text.finish().text();
            let facts: Value = serde_json::from_str(&output).unwrap_or(Value::Null);
            let mut facts = facts.as_object().cloned().unwrap_or_default();
            facts.insert("exit_code".into(), code.into());
            let text = if output.trim().is_empty() { errors.to_owned() } else { output };
            (text, Value::Object(facts))
        };
        let content = vec![ContentBlock::text(text.trim_end())];
        let mut result =
            if code == 0 { CallToolResult::success(content) } else { CallToolResult::error(content) };
        result.structured_content = Some(structured);
        result
    }
}

/// Returns the progress message for an event, or `None` if the event is not reported.
fn progress(event: &Value) -> Option<String> {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let message = match text("event") {
        "session" => format!("session {}", text("id")),
        "request" => format!("turn {}", event["turn"]),
        "tool_started" => format!("calls {}", text("tool")),
        "check_started" => format!("verifies with {}", text("command")),
        "checked" => {
            if event["passed"] == true { "verification passed" } else { "verification failed" }.to_owned()
        }
        "warning" => text("message").to_owned(),
        "task_started" | "task_finished" | "started" | "finished" if event.get("id").is_some() => {
            format!("{} {}", text("event").replace('_', " "), text("id"))
        }
        _ => return None,
    };
    Some(preview::sanitize::short(&message, MAX_MESSAGE))
}

/// If this process was started by a server, asks the kernel to send it SIGTERM when the server
/// exits, even if the server is killed. `served_by` is the value of [`SERVED_BY`]. Child processes
/// inherit the variable, but it has no effect on them, because the server is not their parent.
pub(crate) fn end_with_server(served_by: &str) {
    use rustix::process::{getppid, set_parent_process_death_signal};
    let server = served_by.parse().ok().and_then(Pid::from_raw);
    if server.is_some() && server == getppid() {
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
    }
}
