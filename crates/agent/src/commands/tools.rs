//! `agent tools list|schema|call`.

use models::Identity;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, Status, ToolError};

use crate::cli::Tools;
use crate::confinement;
use crate::console;
use crate::context::Context;
use crate::edit_format;
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::{self, Signals};
use crate::masking::{self, MaskedTool};
use crate::sanitize;
use crate::session::{self, Additions, Toolbox};
use crate::skills;

/// Runs a subcommand of `agent tools`.
pub(crate) fn run(command: Tools, context: &Context) -> Result<Exit> {
    match command {
        Tools::List => {
            let text: String = toolbox(context, &[])?
                .registry
                .specs()
                .map(|s| {
                    let effect = match s.effect {
                        Effect::Read => "reads",
                        Effect::Write => "writes",
                        Effect::Execute => "executes",
                    };
                    format!("{:12} {effect:9} {}\n", s.name, s.description)
                })
                .collect();
            console::print(text)?;
            Ok(Exit::Success)
        }
        Tools::Schema { name, settings } => schema(&toolbox(context, &settings.given)?, name.as_deref()),
        Tools::Call { name, arguments, json, settings } => {
            call(&toolbox(context, &settings.given)?, &name, &arguments, json)
        }
    }
}

/// Returns the tools that a run in this repository would offer, including the planner's own.
fn toolbox(context: &Context, flags: &[(&'static str, String)]) -> Result<Toolbox> {
    let settings = context.resolve(flags)?.settings()?;
    let root = context.tree()?;
    let folder = context.state_dir()?.join("tools");
    let variables: Vec<_> = std::env::vars_os().collect();
    // Placeholders depend on the session's id. There is no session here, so a fixed id keeps them
    // the same in every call.
    let secrets = masking::secrets(&settings, &variables, "tools");
    let sandbox = confinement::sandbox(&settings, root, None, variables)?;
    let skills = skills::tool(root, &context.environment).into_iter();
    let skills = skills.map(|tool| MaskedTool::wrap(tool, &secrets)).collect();
    let (own, additions) = (context.own(), Additions { tools: skills, ..Additions::default() });
    let mut toolbox = session::toolbox(&settings, &secrets, root, &folder, sandbox, &own, additions)?;
    edit_format::describe(&settings, &Identity::default(), &mut toolbox.registry);
    Ok(toolbox)
}

fn schema(toolbox: &Toolbox, name: Option<&str>) -> Result<Exit> {
    let value = match name {
        Some(name) => {
            let names = toolbox.registry.specs().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let unknown = || Failure::misuse(format!("unknown tool {name:?}; the tools are {names}"));
            toolbox.registry.spec(name).ok_or_else(unknown)?.schema.clone()
        }
        None => {
            let all = toolbox.registry.specs().map(|s| {
                json!({"name": s.name, "description": s.description, "effect": s.effect, "arguments": s.schema, "shown": s.shown})
            });
            Value::Array(all.collect())
        }
    };
    console::print(format!("{value:#}\n"))?;
    Ok(Exit::Success)
}

fn call(toolbox: &Toolbox, name: &str, arguments: &str, json: bool) -> Result<Exit> {
    let text = if arguments == "-" {
        std::io::read_to_string(std::io::stdin().lock())?
    } else {
        arguments.to_owned()
    };
    let arguments: Value = serde_json::from_str(&text)
        .map_err(|e| Failure::misuse(format!("invalid JSON in the arguments: {e}")))?;
    let accepted =
        toolbox.registry.accept(name, &arguments).map_err(|refusal| Failure::misuse(refusal.message))?;
    for note in &accepted.notes {
        console::say(sanitize::line(note));
    }
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let outcome = tokio::select! {
            outcome = toolbox.registry.call_parsed(&accepted.spec.name, accepted.arguments, accepted.parsed) => outcome,
            () = signals.wait() => return Ok(Exit::Run(journal::Ending::Interrupted)),
        };
        let outcome = outcome.map_err(|e| match e {
            ToolError::Model(message) | ToolError::Run(message) => Failure::misuse(message),
        })?;
        print_outcome(&outcome, json)
    })
}

/// Prints the outcome of a call. The exit code indicates whether the call succeeded.
pub(super) fn print_outcome(outcome: &Outcome, json: bool) -> Result<Exit> {
    if json {
        let value = serde_json::to_value(outcome).map_err(Failure::refused)?;
        console::print(format!("{value:#}\n"))?;
    } else {
        let text = outcome.text.trim_end();
        // Only a terminal needs sanitized text. A program gets the text unchanged.
        let text = if console::stdout_is_terminal() { sanitize::text(text) } else { text.into() };
        console::print(format!("{text}\n"))?;
    }
    Ok(if outcome.status == Status::Ok { Exit::Success } else { Exit::Negative })
}
