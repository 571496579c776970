//! `agent mcp list|test|approve|serve`.

pub(crate) mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use mcp::config::Author;
use mcp::{Described, How, McpTool};
use serde_json::{Value, json};
use tool_api::{Effect, Registry, ToolError};

use crate::cli::Mcp;
use crate::commands;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{plural, thousands};
use crate::interrupt::{self, Signals};
use crate::masking::{self, MaskedTool};
use crate::mcp_servers::configured::{Configured, REPOSITORY_FILE, RepositoryFile, configured};
use crate::mcp_servers::{self, Inspected, Place};
use crate::sanitize;
use crate::settings::Settings;

/// Runs a subcommand of `agent mcp`.
pub(crate) fn run(command: Mcp, context: &Context) -> Result<Exit> {
    match command {
        Mcp::List { json, settings } => list(&World::new(context, &settings.given)?, json),
        Mcp::Test { server, tool, arguments, json, settings } => {
            let world = World::new(context, &settings.given)?;
            match tool {
                None => show(&world, &server, json),
                Some(tool) => call(&world, &server, &tool, &arguments, json),
            }
        }
        Mcp::Approve => approve(context),
        Mcp::Serve => serve::run(context),
    }
}

/// What the commands need to start servers the way a run would.
struct World {
    settings: Settings,
    variables: Vec<(OsString, OsString)>,
    root: PathBuf,
    state: PathBuf,
    configured: Configured,
}

impl World {
    fn new(context: &Context, flags: &[(&'static str, String)]) -> Result<Self> {
        let settings = context.resolve(flags)?.settings()?;
        // Mask the secrets of all servers, not just those that a run would use.
        let settings = Settings { mcp_tools: Some("*".into()), ..settings };
        let (root, state) = (commands::run::root(context)?, context.state_dir()?);
        let configured = configured(&context.environment, &root, &state);
        Ok(Self { settings, variables: std::env::vars_os().collect(), root, state, configured })
    }

    fn place(&self) -> Place<'_> {
        Place { repository: &self.root, tree: &self.root, session: None, state: &self.state }
    }

    /// Starts one server.
    async fn inspect(&self, name: &str) -> Result<Inspected> {
        let entry = self.configured.entries.iter().find(|entry| entry.name == name).cloned();
        let unapproved =
            self.configured.unapproved.as_ref().filter(|file| file.names.iter().any(|n| n == name));
        let entry = match (entry, unapproved) {
            (Some(entry), _) => entry,
            (None, Some(file)) => return Err(Failure::misuse(file.warning())),
            (None, None) => {
                let names: Vec<_> = self.configured.entries.iter().map(|entry| entry.name.as_str()).collect();
                let known = if names.is_empty() { "none".into() } else { names.join(", ") };
                let failure =
                    Failure::misuse(format!("unknown MCP server {name:?}; the servers are: {known}"));
                let warnings = self.configured.warnings.clone();
                return Err(warnings.into_iter().fold(failure, Failure::hint));
            }
        };
        let mut inspected =
            mcp_servers::inspect(vec![entry], &self.settings, &self.variables, &self.place()).await;
        let inspected = inspected.pop().ok_or_else(|| Failure::misuse("no server was started"))?;
        if let Err(why) = &inspected.found {
            return Err(Failure::misuse(format!("the MCP server {name} does not start: {why}")));
        }
        Ok(inspected)
    }
}

/// Runs a future until it completes or a signal arrives.
fn until_signal(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    interrupt::block_on(async {
        let signals = Signals::take()?;
        tokio::select! {
            done = work => done,
            () = signals.wait() => Ok(Exit::Run(journal::Ending::Interrupted)),
        }
    })
}

fn list(world: &World, json: bool) -> Result<Exit> {
    until_signal(async {
        let entries = world.configured.entries.clone();
        let found = mcp_servers::inspect(entries, &world.settings, &world.variables, &world.place()).await;
        mcp_servers::stop(&found).await;
        let unapproved = world.configured.unapproved.iter().flat_map(|file| &file.names);
        let warnings = world.configured.warnings.iter().chain(found.iter().flat_map(|one| &one.warnings));
        if json {
            let waiting = unapproved
                .map(|name| json!({"name": name, "source": REPOSITORY_FILE, "state": "unapproved"}));
            let servers: Vec<_> = found.iter().map(facts).chain(waiting).collect();
            let value = json!({"servers": servers, "warnings": warnings.collect::<Vec<_>>()});
            console::print(format!("{value:#}\n"))?;
        } else {
            found.iter().try_for_each(|one| console::print(describe(one)))?;
            for name in unapproved {
                console::print(format!(
                    "{name:16} {REPOSITORY_FILE}, not approved: read the file, then run `agent mcp approve`\n"
                ))?;
            }
            for warning in warnings {
                console::say(format_args!("warning: {}", sanitize::line(warning)));
            }
            if found.is_empty() && world.configured.unapproved.is_none() {
                console::say(format_args!(
                    "no MCP servers: add them to mcp.json beside config.toml, or to {REPOSITORY_FILE}"
                ));
            }
        }
        Ok(if found.iter().all(|one| one.found.is_ok()) { Exit::Success } else { Exit::Negative })
    })
}

fn show(world: &World, server: &str, json: bool) -> Result<Exit> {
    until_signal(async {
        let one = [world.inspect(server).await?];
        mcp_servers::stop(&one).await;
        let [one] = one;
        let text = if json { format!("{:#}\n", facts(&one)) } else { describe(&one) };
        console::print(text)?;
        if !json {
            one.warnings.iter().for_each(|w| console::say(format_args!("warning: {}", sanitize::line(w))));
        }
        Ok(Exit::Success)
    })
}

fn source(author: Author) -> &'static str {
    match author {
        Author::User => "mcp.json",
        Author::Repository => REPOSITORY_FILE,
        Author::Editor => "editor",
    }
}

fn tokens(tool: &Described) -> u64 {
    planner::estimated_tokens(tool.prompt_text().len())
}

fn facts(one: &Inspected) -> Value {
    let tool = |tool: &Described| {
        json!({
            "name": tool.name(), "description": tool.description, "arguments": tool.schema,
            "effect": tool.effect, "prompt_tokens": tokens(tool),
        })
    };
    let (name, source) = (&one.entry.name, source(one.entry.author));
    match &one.found {
        Ok((_, tools)) => json!({
            "name": name, "source": source, "state": "ok", "prompt_tokens": one.prompt_tokens(),
            "tools": tools.iter().map(tool).collect::<Vec<_>>(), "warnings": one.warnings,
        }),
        Err(why) => json!({"name": name, "source": source, "state": "failed", "why": why}),
    }
}

fn describe(one: &Inspected) -> String {
    let (name, source) = (&one.entry.name, source(one.entry.author));
    let tools = match &one.found {
        Ok((_, tools)) => tools,
        Err(why) => return format!("{name:16} {source}, does not start: {}\n", sanitize::line(why)),
    };
    let count = plural(tools.len() as u64, "tool");
    let mut text =
        format!("{name:16} {source}, {count}, about {} prompt tokens\n", thousands(one.prompt_tokens()));
    for tool in tools {
        let effect = if tool.effect == Effect::Read { "reads" } else { "executes" };
        let about = sanitize::short(&tool.description, 60);
        text.push_str(&format!("  {:30} {effect:9} {:>5}  {about}\n", tool.name(), tokens(tool)));
    }
    text
}

fn call(world: &World, server: &str, tool: &str, arguments: &str, json: bool) -> Result<Exit> {
    let text = if arguments == "-" {
        std::io::read_to_string(std::io::stdin().lock())?
    } else {
        arguments.to_owned()
    };
    let arguments: Value = serde_json::from_str(&text)
        .map_err(|e| Failure::misuse(format!("invalid JSON in the arguments: {e}")))?;
    until_signal(async {
        let one = [world.inspect(server).await?];
        let outcome = call_of(world, &one[0], tool, &arguments).await;
        mcp_servers::stop(&one).await;
        commands::tools::print_outcome(&outcome?, json)
    })
}

/// Calls a tool the way a run would.
async fn call_of(world: &World, one: &Inspected, tool: &str, arguments: &Value) -> Result<tool_api::Outcome> {
    let Ok((server, tools)) = &one.found else { return Err(Failure::misuse("the server is not running")) };
    let found = tools.iter().find(|known| known.tool == tool || known.name() == tool);
    let names = || tools.iter().map(|known| known.tool.as_str()).collect::<Vec<_>>().join(", ");
    let unknown = || {
        Failure::misuse(format!("unknown tool {tool:?}; the tools of {} are: {}", one.entry.name, names()))
    };
    let described = found.ok_or_else(unknown)?;
    let secrets = masking::secrets(&world.settings, &world.variables, "mcp");
    let tool = McpTool::new(described.clone(), Ok(Arc::clone(server)), secrets.clone());
    let registry = Registry::of([MaskedTool::wrap(Arc::new(tool), &secrets)]).map_err(Failure::refused)?;
    let accepted =
        registry.accept(&described.name(), arguments).map_err(|refusal| Failure::misuse(refusal.message))?;
    let outcome = registry.call(&accepted.spec.name, accepted.arguments).await;
    outcome.map_err(|error| match error {
        ToolError::Model(message) | ToolError::Run(message) => Failure::misuse(message),
    })
}

fn approve(context: &Context) -> Result<Exit> {
    let (root, state) = (commands::run::root(context)?, context.state_dir()?);
    let Some(file) = RepositoryFile::read(&root)? else {
        return Err(Failure::misuse(format!("there is no {REPOSITORY_FILE} in {}", root.display())));
    };
    for entry in file.entries() {
        let what = match &entry.how {
            How::Stdio { command, args, env } => {
                let names = env.iter().map(|(name, _)| format!(" {name}=…"));
                let words = [command].into_iter().chain(args).map(|word| format!(" {word}"));
                format!("runs{}{}", names.collect::<String>(), words.collect::<String>())
            }
            How::Http { url, .. } => format!("connects to {url}"),
        };
        console::print(format!("{:16} {}\n", entry.name, sanitize::line(&what)))?;
    }
    for warning in file.warnings() {
        console::say(format_args!("warning: {}", sanitize::line(warning)));
    }
    if file.is_approved(&state) {
        console::say("this content is already approved");
    } else {
        file.approve(&state)?;
        console::say("approved; any change to the file needs a new approval");
    }
    Ok(Exit::Success)
}
