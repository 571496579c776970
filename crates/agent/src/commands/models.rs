//! `agent models list|show|pull|rm`: the models of an Ollama server, the files on this machine, and
//! the models that can be downloaded. `list` also works with OpenAI-compatible servers.

pub(crate) mod list;
mod pull;
mod show;

use models::ollama::Server;

use crate::cli::Models;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Result};
use crate::flags::ServerFlags;
use crate::interrupt;
use crate::model::server;
use crate::model_store;
use crate::sanitize;

/// Runs a subcommand of `agent models`.
pub(crate) fn run(command: Models, context: &Context) -> Result<Exit> {
    let resolved = |flags: &ServerFlags| context.resolve(&flags.given);
    let settings = |flags: &ServerFlags| resolved(flags)?.settings();
    let environment = &context.environment;
    let result = interrupt::block_on(async {
        match command {
            Models::List { json, settings: flags } => list::run(&settings(&flags)?, environment, json).await,
            Models::Show { name, json, settings: flags } => {
                show::run(&resolved(&flags)?, environment, &name, json).await
            }
            Models::Pull { name, settings: flags } => pull::run(&settings(&flags)?, environment, &name).await,
            Models::Rm { name, settings: flags } => {
                let file =
                    model_store::store(environment).ok().map(|store| store.remove(&name)).transpose()?;
                if file != Some(true) {
                    server(&settings(&flags)?).await?.delete(&name).await?;
                }
                console::say(format_args!("removed {}", sanitize::line(&name)));
                Ok(Exit::Success)
            }
        }
    });
    result.map_err(|failure| match failure.error.downcast_ref() {
        Some(models::Error::Transport(_)) => {
            failure.hint("start it with `ollama serve`, or set its address with OLLAMA_HOST or --base-url")
        }
        _ => failure,
    })
}

/// Returns whether an Ollama server responds.
async fn answers(server: &Server) -> bool {
    server.version().await.is_ok()
}
