//! From settings to an opened model: addresses and keys, pulling what is missing, recorded sessions as models.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::str::FromStr;

use journal::{Event, Record};
use models::choose::{self, Choice, Chosen, Surroundings};
use models::ollama::{Server, full_name};
use models::replay::{Replay, Turn};
use models::{Error, Model, Secret, Think, Usage, host};

use crate::console;
use crate::exit::{Failure, Result};
use crate::progress;
use crate::replay::bundle::Bundle;
use crate::replay::recording;
use crate::sanitize;
use crate::settings::Settings;

/// What the models crate needs to know of the settings.
pub(crate) fn surroundings(settings: &Settings) -> Surroundings {
    let secret = |key: &Option<String>| key.as_deref().map(Secret::new);
    // The endpoint that other programs use is taken where an OpenAI-compatible server is meant, or where nothing else is said.
    let model = settings.model.as_deref().unwrap_or_default();
    let wants_openai = model.starts_with("openai")
        || (model.is_empty() && settings.ollama_host.is_none() && settings.deepseek_api_key.is_none());
    let fallback = settings.openai_base_url.clone().filter(|_| wants_openai);
    Surroundings {
        ollama_host: settings.ollama_host.clone(),
        ollama_key: secret(&settings.ollama_api_key),
        deepseek_key: secret(&settings.deepseek_api_key),
        openai_key: secret(&settings.openai_api_key),
        base_url: settings.base_url.clone().or(fallback),
        window: settings.num_ctx.map(u64::from),
        think: Think::from_str(&settings.think).unwrap_or_default(),
        timeouts: None,
        preload: true,
    }
}

/// The Ollama server of the settings.
pub(crate) fn server(settings: &Settings) -> Result<Server> {
    let around = surroundings(settings);
    let base = settings.base_url.as_deref().or(settings.ollama_host.as_deref()).unwrap_or_default();
    Ok(Server::new(&host::ollama_base(&host::root(base)), around.ollama_key.as_ref(), None)?)
}

/// The value of `--model`, read.
///
/// # Errors
/// When it is none of the forms there are.
pub(crate) fn choice(settings: &Settings) -> Result<Option<Choice>> {
    settings.model.as_deref().map(Choice::from_str).transpose().map_err(Failure::misuse)
}

/// Opens the model of the settings, or what is there. A model that Ollama does not have is pulled where that was asked for, or
/// where a person at the terminal says so.
///
/// # Errors
/// As [`choose::open`].
pub(crate) async fn open(settings: &Settings) -> Result<Chosen> {
    let choice = choice(settings)?;
    if let Some(Choice::Replay(path)) = &choice
        && let Some(chosen) = recorded_session(path)?
    {
        return Ok(chosen);
    }
    let around = surroundings(settings);
    match choose::open(choice.as_ref(), &around).await {
        Ok(chosen) => Ok(chosen),
        Err(Error::MissingModel { message, available }) => {
            let name = match &choice {
                Some(Choice::Ollama(name) | Choice::Bare(name)) => name.clone(),
                _ => return Err(missing(message, &available)),
            };
            if !settings.pull && !agreed(&message, &name).await {
                let failure = missing(message, &available);
                return Err(failure.hint(format!("`agent models pull {name}` gets it, or add --pull")));
            }
            progress::pull(&server(settings)?, &name).await?;
            Ok(choose::open(choice.as_ref(), &around).await?)
        }
        Err(error) => Err(error.into()),
    }
}

fn missing(message: String, available: &[String]) -> Failure {
    let failure = Failure::unavailable(anyhow::anyhow!(message.clone()));
    if available.is_empty() || available.iter().all(|name| message.contains(full_name(name).as_str())) {
        return failure;
    }
    failure.hint(format!("there are {}", available.join(", ")))
}

/// Asks the person at the terminal. Without one the answer is no: nobody is waited for.
async fn agreed(message: &str, name: &str) -> bool {
    if !(std::io::stdin().is_terminal() && console::stderr_is_terminal()) {
        return false;
    }
    console::say(sanitize::text(message));
    console::say(format_args!("pull {} now? [y/N]", sanitize::line(name)));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    matches!(answer.await, Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes"))
}

/// A model that repeats the answers of a session, where the file is an exported session; other recordings are `models`' own.
fn recorded_session(path: &Path) -> Result<Option<Chosen>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::misuse(format!("cannot read the recording {}: {e}", path.display())))?;
    let exported =
        |line: &str| line.starts_with("{\"export\":") || serde_json::from_str::<Record>(line).is_ok();
    if !text.lines().next().is_some_and(exported) {
        return Ok(None);
    }
    let (mut turns, mut identity) = (Vec::new(), Replay::identity_named(&path.display().to_string()));
    for record in Bundle::read(path)?.records {
        match &record.event {
            Event::Model(m) => {
                (identity.model, identity.window, identity.thinking) =
                    (m.model.clone(), m.window, m.thinking);
                // The form of edits decides what the prompts say, and small models are asked for whole files.
                identity.parameters_b = (m.dialect == "whole-file").then_some(1.5);
            }
            output => turns.extend(
                recording::answer(output, true, "").map(|turn| Turn { usage: Usage::default(), ..turn }),
            ),
        }
    }
    identity.branches = turns.iter().any(|turn| !turn.doubts.is_empty());
    let model = Replay::new(turns, identity);
    let why = format!("{} recorded turns of {}", model.remaining(), path.display());
    Ok(Some(Chosen { model: Box::new(model) as Box<dyn Model>, why }))
}
