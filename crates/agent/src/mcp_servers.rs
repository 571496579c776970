//! Starts the MCP servers whose tools the user asked for, and makes their tools available to the
//! session.
//!
//! [`configured`] finds out which servers are configured. A repository's `.mcp.json` is used only
//! after the user has approved its exact content.

pub(crate) mod configured;
mod pattern;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use journal::{Event, ExternalTool, Record};
use mcp::{Connection, Described, Entry, How, Listing, McpTool, Server, Timeouts};
use sandbox::Command;
use secrets::{Secrets, known};
use tool_api::{Effect, Tool};

use crate::confinement;
use crate::exit::Result;
use crate::layers::Environment;
use crate::leftovers::SANDBOX;
use crate::masking::{self, MaskedTool};
use crate::model;
use crate::settings::Settings;
use configured::Configured;
use pattern::Patterns;

/// Maximum number of tools in the prompt. More tools would take up most of a small context window.
const MAX_TOOLS: usize = 64;
/// The time limit for connecting to a server over HTTP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The folders of a session.
pub(crate) struct Place<'a> {
    /// The root of the repository, whose `.mcp.json` is used.
    pub(crate) repository: &'a Path,
    /// The tree that the servers see: the repository, or its copy in a dry run.
    pub(crate) tree: &'a Path,
    /// The folder for the servers' private files, or `None` for the system's temporary folder.
    pub(crate) session: Option<&'a Path>,
    /// The folder with the agent's state.
    pub(crate) state: &'a Path,
}

/// The tools of a session that come from outside the agent, and the servers that provide them.
#[derive(Default)]
pub(crate) struct External {
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) warnings: Vec<String>,
    servers: Vec<Arc<Server>>,
    described: Vec<Described>,
    /// The journal's entry for the skill tool. It is recorded because skills depend on the user's
    /// folders.
    skills: Option<ExternalTool>,
    /// Whether the journal already lists the tools.
    recorded: bool,
}

impl External {
    /// Returns the event that lists the tools, or `None` if there are no tools or the journal
    /// already lists them.
    pub(crate) fn event(&self) -> Option<Event> {
        let tool = |described: &Described| ExternalTool {
            server: described.server.clone(),
            tool: described.tool.clone(),
            digest: described.digest.clone(),
            description: described.description.clone(),
            schema: described.schema.clone(),
            reads: described.effect == Effect::Read,
        };
        let tools: Vec<_> = self.described.iter().map(tool).chain(self.skills.clone()).collect();
        (!self.recorded && !tools.is_empty()).then_some(Event::ExternalTools { tools })
    }

    /// Adds the skill tool. Once a session has begun, its prompt must not change, so the tool is
    /// added only if `past` lists it.
    pub(crate) fn add_skills(&mut self, tool: Option<Arc<dyn Tool>>, secrets: &Secrets, past: &[Record]) {
        let begun = recorded(past).is_some();
        let listed = journal::external_tools(past).iter().any(|tool| tool.server.is_empty());
        let Some(tool) = tool.filter(|_| listed || !begun) else { return };
        let spec = tool.spec();
        let entry = ExternalTool {
            server: String::new(),
            tool: spec.name.clone(),
            digest: String::new(),
            description: spec.description.clone(),
            schema: spec.schema.clone(),
            reads: true,
        };
        self.skills = (!begun).then_some(entry);
        self.tools.push(MaskedTool::wrap(tool, secrets));
    }

    /// Stops all servers.
    pub(crate) async fn stop(&self) {
        join_all(self.servers.iter().map(|server| server.stop())).await;
    }
}

/// Returns the MCP tools listed in a session's prompt, or `None` if the session has not begun.
pub(crate) fn recorded(past: &[Record]) -> Option<Vec<Described>> {
    let begun = past.iter().any(|record| matches!(record.event, Event::RunStarted { .. }));
    let of_servers = |tool: &&ExternalTool| !tool.server.is_empty();
    begun.then(|| journal::external_tools(past).iter().filter(of_servers).map(described).collect())
}

/// Returns stand-ins for the tools of a recorded session. They have no servers.
pub(crate) fn replayed(tools: &[ExternalTool], secrets: &Secrets) -> impl Iterator<Item = Arc<dyn Tool>> {
    tools.iter().map(|tool| MaskedTool::wrap(Arc::new(mcp::ReplayedTool::new(&described(tool))), secrets))
}

fn described(tool: &ExternalTool) -> Described {
    Described {
        server: tool.server.clone(),
        tool: tool.tool.clone(),
        digest: tool.digest.clone(),
        description: tool.description.clone(),
        schema: tool.schema.clone(),
        effect: if tool.reads { Effect::Read } else { Effect::Execute },
    }
}

/// Concurrently starts the servers whose tools the settings select: the configured ones and the
/// `additional` ones. If several have the same name, the configured one is used. A resumed session
/// keeps its `recorded` tools. A server that does not start results in a warning.
pub(crate) async fn start(
    settings: &Settings,
    variables: &[(OsString, OsString)],
    additional: &[Entry],
    secrets: &Secrets,
    place: &Place<'_>,
    recorded: Option<Vec<Described>>,
) -> External {
    let Some(patterns) = &settings.mcp_tools else { return External::default() };
    if recorded.as_ref().is_some_and(Vec::is_empty) {
        return External::default(); // the prompt lists no tools, and can no longer change
    }
    let patterns = match Patterns::new(patterns) {
        Ok(patterns) => patterns,
        Err(why) => return External { warnings: vec![why], ..External::default() },
    };
    let environment = Environment::new(variables.iter().cloned());
    let Configured { mut entries, mut warnings, unapproved } =
        configured::configured(&environment, place.repository, place.state);
    for entry in additional {
        if !entries.iter().any(|configured| configured.name == entry.name) {
            entries.push(entry.clone());
        }
    }
    warnings.extend(
        unapproved.filter(|file| file.names.iter().any(|name| patterns.may_match(name))).map(|f| f.warning()),
    );
    let wanted: Vec<Entry> = entries.into_iter().filter(|entry| patterns.may_match(&entry.name)).collect();
    let one = async |entry: Entry| {
        let opened = open(&entry, settings, variables.to_vec(), secrets, place).await;
        (entry, opened)
    };
    let opened = join_all(wanted.into_iter().map(one)).await;
    let mut external = External { warnings, recorded: recorded.is_some(), ..External::default() };
    let (mut running, mut offered) = (BTreeMap::new(), Vec::new());
    for (entry, opened) in opened {
        match opened {
            Ok((server, listing)) => {
                offered.extend(offers(&entry, &listing, &patterns, secrets, &mut external.warnings));
                external.servers.push(Arc::clone(&server));
                running.insert(entry.name, Ok(server));
            }
            Err(why) => {
                external.warnings.push(format!("the MCP server {} is left out: {why}", entry.name));
                running.insert(entry.name, Err(why));
            }
        }
    }
    if offered.is_empty() && recorded.is_none() && external.warnings.is_empty() {
        external.warnings.push(format!("no MCP tool matches {patterns}"));
    }
    if offered.len() > MAX_TOOLS {
        let count = offered.len();
        external.warnings.push(format!("only the first {MAX_TOOLS} of {count} matching MCP tools are used"));
        offered.truncate(MAX_TOOLS);
    }
    external.described = recorded.unwrap_or(offered);
    let tool = |described: &Described| {
        let gone = || Err("it is not configured or not approved".to_owned());
        let server = running.get(&described.server).cloned().unwrap_or_else(gone);
        MaskedTool::wrap(Arc::new(McpTool::new(described.clone(), server, secrets.clone())), secrets)
    };
    external.tools = external.described.iter().map(tool).collect();
    external
}

/// Returns a server's tools that match the patterns and can be used. Each kind of problem results
/// in a single warning.
fn offers(
    entry: &Entry,
    listing: &Listing,
    patterns: &Patterns,
    secrets: &Secrets,
    warnings: &mut Vec<String>,
) -> Vec<Described> {
    let reads = Patterns::of_tools(&entry.name, &entry.read_only_tools);
    let (mut tools, mut unusable): (Vec<Described>, Vec<String>) = (Vec::new(), Vec::new());
    for definition in listing.tools.iter().filter(|tool| patterns.matches(&entry.name, &tool.name)) {
        let read_only = reads.as_ref().is_ok_and(|reads| reads.matches(&entry.name, &definition.name));
        let effect = if read_only { Effect::Read } else { Effect::Execute };
        let described = Described::of(&entry.name, definition, effect, secrets);
        let shown = preview::sanitize::short(&definition.name, 64);
        match described {
            Ok(tool) if tools.iter().any(|other| other.name() == tool.name()) => {
                unusable.push(format!("{shown}: another tool has the same name"));
            }
            Ok(tool) => tools.push(tool),
            Err(why) => unusable.push(format!("{shown}: {why}")),
        }
    }
    if let Some(first) = unusable.first() {
        let more = match unusable.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        warnings.push(format!("tools of the MCP server {} are left out: {first}{more}", entry.name));
    }
    if listing.truncated {
        let used = listing.tools.len();
        warnings.push(format!(
            "the MCP server {} lists too many tools; only the first {used} are used",
            entry.name
        ));
    }
    if let Err(why) = reads {
        warnings.push(format!("readOnlyTools of the MCP server {} is ignored: {why}", entry.name));
    }
    tools
}

/// Starts a server, or connects to it.
async fn open(
    entry: &Entry,
    settings: &Settings,
    variables: Vec<(OsString, OsString)>,
    secrets: &Secrets,
    place: &Place<'_>,
) -> std::result::Result<(Arc<Server>, Listing), String> {
    let connection = connection(entry, settings, variables, place);
    let connection = connection.map_err(|failure| format!("{:#}", failure.error))?;
    let timeouts = Timeouts { start: entry.start, call: Duration::from_secs(settings.command_seconds) };
    Box::pin(Server::start(&entry.name, connection, timeouts, secrets.clone())).await
}

fn connection(
    entry: &Entry,
    settings: &Settings,
    variables: Vec<(OsString, OsString)>,
    place: &Place<'_>,
) -> Result<Connection> {
    match &entry.how {
        How::Stdio { command, args, env } => {
            let joined = |list: &[String], by: &str| Some(list.join(by)).filter(|text| !text.is_empty());
            // The extra permissions granted to commands do not apply to servers.
            let own = Settings {
                env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
                allow_read: joined(&entry.allow_read, ":"),
                allow_write: joined(&entry.allow_write, ":"),
                allow_hosts: joined(&entry.allow_hosts, ","),
                command_network: "loopback".into(),
                ..settings.clone()
            };
            let folder = place.session.map(|folder| folder.join(format!("{SANDBOX}-mcp-{}", entry.name)));
            let sandbox = confinement::sandbox(&own, place.tree, folder, variables)?;
            Ok(Connection::Stdio { sandbox, command: Command::new(command, args.iter().map(OsString::from)) })
        }
        How::Http { url, headers } => {
            let client = models::plain_client(url, CONNECT_TIMEOUT, &model::access(settings)?)?;
            Ok(Connection::Http { client, url: url.clone(), headers: headers.clone() })
        }
    }
}

/// A server and its tools, as shown by `agent mcp list` and `agent doctor`.
pub(crate) struct Inspected {
    pub(crate) entry: Entry,
    /// The running server and its tools, or why it does not start.
    pub(crate) found: std::result::Result<(Arc<Server>, Vec<Described>), String>,
    pub(crate) warnings: Vec<String>,
}

impl Inspected {
    /// Returns the estimated number of prompt tokens that all tools together take up.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let tools = self.found.iter().flat_map(|(_, tools)| tools);
        planner::estimated_tokens(tools.map(|tool| tool.prompt_text().len()).sum())
    }
}

/// Starts these servers concurrently, and lists their tools.
pub(crate) async fn inspect(
    entries: Vec<Entry>,
    settings: &Settings,
    variables: &[(OsString, OsString)],
    place: &Place<'_>,
) -> Vec<Inspected> {
    let secrets = masking::secrets(settings, variables, "mcp");
    let one = async |entry: Entry| {
        let mut warnings = Vec::new();
        let opened = open(&entry, settings, variables.to_vec(), &secrets, place).await;
        let found = opened.and_then(|(server, listing)| {
            let all = Patterns::new("*")?;
            Ok((server, offers(&entry, &listing, &all, &secrets, &mut warnings)))
        });
        Inspected { entry, found, warnings }
    };
    join_all(entries.into_iter().map(one)).await
}

/// Stops the servers in a list.
pub(crate) async fn stop(inspected: &[Inspected]) {
    join_all(inspected.iter().flat_map(|one| one.found.iter().map(|(server, _)| server.stop()))).await;
}

/// Returns the secrets in the user's own entries and in `additional` ones: all header values, plus
/// any variable values and addresses that look like secrets.
pub(crate) fn secret_values(variables: &[(OsString, OsString)], additional: &[Entry]) -> Vec<String> {
    let environment = Environment::new(variables.iter().cloned());
    let (config, _) = configured::of_user(&environment);
    let mut values = Vec::new();
    for entry in config.servers.iter().chain(additional) {
        match &entry.how {
            How::Stdio { env, .. } => {
                values.extend(known::secret_values(env.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
            }
            How::Http { headers, url } => {
                // A header may be `Bearer TOKEN`, so the token alone is a secret, too.
                let parts = headers.iter().flat_map(|(_, value)| {
                    [Some(value.as_str()), value.rsplit_once(' ').map(|(_, last)| last)]
                });
                values.extend(parts.flatten().filter_map(known::whole));
                values.extend(known::secret_values([("URL", url.as_str())]));
            }
        }
    }
    values
}
