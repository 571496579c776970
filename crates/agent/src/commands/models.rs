//! `agent models list|show|pull|rm`: manages the models of an Ollama server. `list` also works with
//! OpenAI-compatible servers.

use models::host;
use models::ollama::Server;
use models::openai::{OpenAi, OpenAiOptions, Opened};
use serde_json::json;

use crate::cli::Models;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::bytes;
use crate::flags::ServerFlags;
use crate::interrupt::{self, Signals};
use crate::model::{self, server};
use crate::progress;
use crate::sanitize;
use crate::settings::Settings;

/// Runs a subcommand of `agent models`.
pub(crate) fn run(command: Models, context: &Context) -> Result<Exit> {
    let settings = |flags: &ServerFlags| context.resolve(&flags.given)?.settings();
    let result = interrupt::block_on(async {
        match command {
            Models::List { json, settings: flags } => list(&settings(&flags)?, json).await,
            Models::Show { name, json, settings: flags } => {
                show(&server(&settings(&flags)?).await?, &name, json).await
            }
            Models::Pull { name, settings: flags } => pull(&server(&settings(&flags)?).await?, &name).await,
            Models::Rm { name, settings: flags } => {
                let server = server(&settings(&flags)?).await?;
                server.delete(&name).await?;
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

async fn list(settings: &Settings, json: bool) -> Result<Exit> {
    if let Some(base) = &settings.base_url {
        let around = model::surroundings(settings).await?;
        let options = OpenAiOptions {
            key: around.own_key.or(around.openai_key),
            access: around.access,
            ..OpenAiOptions::new(&host::openai_base(base))
        };
        if let Opened::Model(model) = OpenAi::open(options).await? {
            for name in model.list().await? {
                let line =
                    if json { json!({"name": name}).to_string() } else { sanitize::line(&name).into_owned() };
                console::print(line + "\n")?;
            }
            return Ok(Exit::Success);
        }
    }
    let server = server(settings).await?;
    let (models, loaded) = tokio::join!(server.tags(), server.ps());
    let (models, loaded) = (models?, loaded.unwrap_or_default());
    if models.is_empty() && !json {
        console::say(format_args!(
            "{} has no models; download one with `agent models pull NAME`",
            server.base()
        ));
    }
    let width = models.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
    for m in models {
        let now = loaded.iter().find(|l| l.name == m.name);
        let line = if json {
            json!({
                "name": m.name, "size": m.size, "family": m.family, "parameter_size": m.parameter_size,
                "quantization": m.quantization, "remote": m.remote, "modified_at": m.modified_at,
                "loaded": now.is_some(), "window": now.and_then(|l| l.context_length),
            })
            .to_string()
        } else {
            let size = if m.remote { "cloud".into() } else { bytes(m.size) };
            let details = [m.parameter_size.as_deref(), m.quantization.as_deref(), m.family.as_deref()];
            let details: Vec<&str> = details.into_iter().flatten().collect();
            let loaded = if now.is_some() { ", loaded" } else { "" };
            let line = format!("{:width$}  {size:>8}  {}{loaded}", m.name, details.join(" "));
            sanitize::line(&line).trim_end().to_owned()
        };
        console::print(line + "\n")?;
    }
    Ok(Exit::Success)
}

async fn show(server: &Server, name: &str, json: bool) -> Result<Exit> {
    let show = server.show(name).await?;
    if json {
        console::print(format!("{:#}\n", show.raw))?;
        return Ok(Exit::Success);
    }
    let number = |n: Option<u64>| n.map_or("unknown".into(), crate::figures::thousands);
    let rows = [
        ("family", show.family.unwrap_or_else(|| "unknown".into())),
        ("parameters", show.parameters_b.map_or("unknown".into(), |b| format!("{b:.1} B"))),
        ("trained window", number(show.trained_window)),
        ("capabilities", show.capabilities.map_or("unknown".into(), |c| c.join(", "))),
        ("chat template", if show.chat_template { "yes".into() } else { "no".into() }),
        ("runs", if show.remote { "in the cloud".into() } else { "locally".into() }),
    ];
    let text: String = rows.iter().map(|(k, v)| format!("{k:15} {}\n", sanitize::line(v))).collect();
    console::print(text)?;
    Ok(Exit::Success)
}

async fn pull(server: &Server, name: &str) -> Result<Exit> {
    let signals = Signals::take()?;
    tokio::select! {
        pulled = progress::pull(server, name) => pulled.map(|()| Exit::Success).map_err(Failure::from),
        () = signals.wait() => {
            console::say("stopped; pull again to resume the download");
            Ok(Exit::Run(journal::Ending::Interrupted))
        }
    }
}
