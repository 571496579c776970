//! Opens the model named in the settings: resolves addresses and keys, pulls a missing model, and
//! opens a recorded session as a model.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::replay::Bundle;
use journal::{Event, Record};
use models::choose::{self, Choice, Chosen, InProcess, Surroundings};
use models::ollama::{Server, full_name};
use models::profile::{About, Profiles};
use models::replay::{Replay, Turn};
use models::{Access, Error, Memory, Model, Notices, Proxy, Secret, Think, Usage, host};
use planner::Approach;

use crate::console;
#[cfg(feature = "embedded")]
use crate::embedded::Files;
use crate::exit::{Failure, Result};
use crate::first_run;
use crate::layers::Environment;
use crate::profiles;
use crate::progress;
use crate::sanitize;
use crate::settings::Settings;

/// The time limit for the command that prints a key. The command may wait for a password manager.
const KEY_COMMAND: Duration = Duration::from_secs(60);

/// The subfolder of the state folder that holds facts about servers.
const SERVERS: &str = "servers";

/// Returns the configuration for the `models` crate.
///
/// # Errors
/// If a file named in a setting cannot be read, or the command that prints the key fails.
pub(crate) async fn surroundings(settings: &Settings) -> Result<Surroundings> {
    let secret = |key: &Option<String>| key.as_deref().map(Secret::new);
    Ok(Surroundings {
        ollama_host: settings.ollama_host.clone(),
        ollama_key: secret(&settings.ollama_api_key),
        deepseek_key: secret(&settings.deepseek_api_key),
        openai_key: secret(&settings.openai_api_key),
        own_key: own_key(settings).await?,
        base_url: base_url(settings).cloned(),
        window: settings.num_ctx.map(u64::from),
        think: Think::from_str(&settings.think).unwrap_or_default(),
        profiles: profiles::load(&Environment::new(std::env::vars_os()))?,
        prices: profiles::prices(&Environment::new(std::env::vars_os()))?,
        access: access(settings)?,
        preload: true,
        in_process: in_process(settings),
    })
}

/// Returns the address of the model's server, if the settings specify one. `OPENAI_BASE_URL`, which
/// other programs also read, is used only if the model's name starts with `openai`, or if the
/// settings contain no model, no Ollama address and no DeepSeek key.
pub(crate) fn base_url(settings: &Settings) -> Option<&String> {
    let model = settings.model.as_deref().unwrap_or_default();
    let wants_openai = model.starts_with("openai")
        || (model.is_empty() && settings.ollama_host.is_none() && settings.deepseek_api_key.is_none());
    settings.base_url.as_ref().or(settings.openai_base_url.as_ref().filter(|_| wants_openai))
}

/// Returns the models that run in this process.
#[cfg(feature = "embedded")]
fn in_process(settings: &Settings) -> Option<Arc<dyn InProcess>> {
    let environment = Environment::new(std::env::vars_os());
    Some(Arc::new(Files::new(&environment, settings.gpu_layers)?))
}

/// Returns `None`, because this agent was built without an engine.
#[cfg(not(feature = "embedded"))]
fn in_process(_: &Settings) -> Option<Arc<dyn InProcess>> {
    None
}

/// Resolves the settings that specify how to reach servers.
pub(crate) fn access(settings: &Settings) -> Result<Access> {
    let seconds = |n: Option<u64>| n.map(Duration::from_secs);
    let pem =
        |key: &str, file: &Option<String>| file.as_deref().map(|file| read(key, file, PEM_LIMIT)).transpose();
    let authorities = pem("ca_file", &settings.ca_file)?;
    let certificate = pem("client_cert_file", &settings.client_cert_file)?;
    let key = pem("client_key_file", &settings.client_key_file)?;
    if key.is_some() && certificate.is_none() {
        return Err(Failure::misuse("client_key_file is set without client_cert_file; set both"));
    }
    let certificate = certificate.map(|certificate| match key {
        Some(key) => format!("{}\n{key}", certificate.trim_end()),
        None => certificate,
    });
    let headers = settings.headers.iter().flatten().filter_map(|header| header.split_once(": "));
    let state = settings.state_dir.as_ref().map(PathBuf::from);
    let environment = Environment::new(std::env::vars_os());
    Ok(Access {
        connect: seconds(settings.connect_seconds),
        first_byte: seconds(settings.first_byte_seconds),
        idle: seconds(settings.idle_seconds),
        headers: headers.map(|(name, value)| (name.to_owned(), Secret::new(value))).collect(),
        authorities: authorities.map(String::into_bytes),
        certificate: certificate.as_deref().map(Secret::new),
        proxy: settings.proxy.as_deref().map(|url| Proxy {
            url: Secret::new(url),
            exceptions: ["NO_PROXY", "no_proxy"]
                .iter()
                .find_map(|name| environment.get(name))
                .map(str::to_owned),
        }),
        memory: state
            .or_else(|| environment.state_dir())
            .map(|state| Memory::in_folder(state.join(SERVERS)))
            .unwrap_or_default(),
        notices: Notices::default(),
    })
}

/// Maximum size of a PEM file, in bytes: about four times the size of a typical system's bundle of
/// certificate authorities.
const PEM_LIMIT: u64 = 1 << 20;
/// Maximum size of a key file, in bytes.
const KEY_LIMIT: u64 = 64 << 10;

/// Reads a small text file named in a setting. `~/` refers to the home folder.
fn read(key: &str, file: &str, limit: u64) -> Result<String> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let path = match (file.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(file),
    };
    let cannot =
        |why: &dyn std::fmt::Display| Failure::misuse(format!("cannot read {key} {}: {why}", path.display()));
    let metadata = std::fs::metadata(&path).map_err(|e| cannot(&e))?;
    if !metadata.is_file() && limit != KEY_LIMIT {
        return Err(cannot(&"it is not a regular file"));
    }
    if metadata.len() > limit {
        return Err(cannot(&format_args!("it is larger than {limit} bytes")));
    }
    std::fs::read_to_string(&path).map_err(|e| cannot(&e))
}

/// Returns the key from `api_key_file` or `api_key_command`, if one of them is set.
async fn own_key(settings: &Settings) -> Result<Option<Secret>> {
    let text = match (&settings.api_key_file, &settings.api_key_command) {
        (Some(_), Some(_)) => {
            return Err(Failure::misuse("api_key_file and api_key_command are both set; keep one of them"));
        }
        (Some(file), None) => read("api_key_file", file, KEY_LIMIT)?,
        (None, Some(command)) => printed_key(command).await?,
        (None, None) => return Ok(None),
    };
    let setting = if settings.api_key_file.is_some() { "api_key_file" } else { "api_key_command" };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let why = match (lines.next(), lines.next()) {
        (Some(key), None) => return Ok(Some(Secret::new(key))),
        (None, _) => "is empty",
        (Some(_), Some(_)) => "has more than one line",
    };
    Err(Failure::misuse(format!("cannot use the key from {setting}: the key {why}")))
}

async fn printed_key(command: &str) -> Result<String> {
    let child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let failed = |why: String| Failure::misuse(format!("cannot get a key from api_key_command: {why}"));
    let output = tokio::time::timeout(KEY_COMMAND, child)
        .await
        .map_err(|_| failed(format!("it did not finish within {} s", KEY_COMMAND.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("its output is not UTF-8".into()))
}

/// Returns the Ollama server that the settings point to.
pub(crate) async fn server(settings: &Settings) -> Result<Server> {
    let surroundings = surroundings(settings).await?;
    let given = settings.base_url.as_deref().or(settings.ollama_host.as_deref());
    let base = given.unwrap_or_default();
    let own_key = surroundings.own_key.as_ref().filter(|_| given.is_some());
    let key = surroundings.ollama_key.as_ref().or(own_key);
    Ok(Server::new(&host::ollama_base(&host::root(base)), key, &surroundings.access)?)
}

/// Parses the value of `--model`.
///
/// # Errors
/// If it is invalid.
pub(crate) fn choice(settings: &Settings) -> Result<Option<Choice>> {
    settings.model.as_deref().map(Choice::from_str).transpose().map_err(Failure::misuse)
}

/// Opens the configured model or the auto-detected one. With `--pull`, a missing model is pulled.
/// With `preload`, a missing model is also pulled if the user agrees, and a local server starts
/// loading the model. Without `preload`, the user is not asked. `notices` receives a sentence about
/// each wait.
///
/// # Errors
/// Same as [`choose::open`].
pub(crate) async fn open(settings: &Settings, preload: bool, notices: Notices) -> Result<Chosen> {
    let choice = choice(settings)?;
    if let Some(Choice::Replay(path)) = &choice
        && let Some(chosen) = recorded_session(path)?
    {
        return Ok(chosen);
    }
    let found = surroundings(settings).await?;
    let found = Surroundings { preload, access: Access { notices, ..found.access.clone() }, ..found };
    let error = match choose::open(choice.as_ref(), &found).await {
        Ok(chosen) => return Ok(chosen),
        Err(error) => error,
    };
    // A model that the agent could run in its own process if it had the model's file.
    let own = match (&choice, &error) {
        (None, Error::NoModel(_)) => first_run::model(),
        (Some(Choice::Embedded(name)), Error::MissingModel { .. })
        | (Some(Choice::Bare(name)), Error::Transport(_)) => first_run::find(name),
        _ => None,
    };
    let (failure, name) = match (error, &choice) {
        (error @ Error::NoModel(_), _) => (first_run::failure(error, own.as_ref()), None),
        (Error::MissingModel { message, available }, Some(Choice::Ollama(name) | Choice::Bare(name))) => {
            (missing(message, &available), Some(name))
        }
        (Error::MissingModel { message, available }, _) => (missing(message, &available), None),
        (error, _) => (error.into(), None),
    };
    let Some(name) = own.as_ref().map(|model| &model.name).or(name) else { return Err(failure) };
    let agreed = settings.pull || preload && user_agrees(&failure, name).await;
    if !agreed {
        let told = failure.hints.iter().any(|hint| hint.contains("models pull"));
        let how = format!("pull it with `agent models pull {name}`, or add --pull");
        return Err(if told { failure } else { failure.hint(how) });
    }
    let choice = match &own {
        Some(model) => {
            first_run::pull(model, found.access.clone()).await?;
            Some(Choice::Embedded(model.name.clone()))
        }
        None => {
            progress::pull(&server(settings).await?, name).await?;
            choice.clone()
        }
    };
    Ok(choose::open(choice.as_ref(), &found).await?)
}

fn missing(message: String, available: &[String]) -> Failure {
    let failure = Failure::unavailable(anyhow::anyhow!(message.clone()));
    if available.is_empty() || available.iter().all(|name| message.contains(full_name(name).as_str())) {
        return failure;
    }
    failure.hint(format!("available models: {}", available.join(", ")))
}

/// Asks the user at the terminal whether to pull the model. Without a terminal, the answer is no.
async fn user_agrees(failure: &Failure, name: &str) -> bool {
    if !(std::io::stdin().is_terminal() && console::stderr_is_terminal()) {
        return false;
    }
    console::say(sanitize::text(&format!("{:#}", failure.error)));
    failure.hints.iter().for_each(|hint| console::say(sanitize::text(hint)));
    console::say(format_args!("pull {} now? [y/N]", sanitize::line(name)));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    matches!(answer.await, Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Returns a model that repeats the answers in a recorded session. Returns `None` for other
/// recordings, which the `models` crate reads.
fn recorded_session(path: &Path) -> Result<Option<Chosen>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::misuse(format!("cannot read the recording {}: {e}", path.display())))?;
    let is_session =
        |line: &str| line.starts_with("{\"export\":") || serde_json::from_str::<Record>(line).is_ok();
    if !text.lines().next().is_some_and(is_session) {
        return Ok(None);
    }
    let (mut turns, mut identity) = (Vec::new(), Replay::identity_named(&path.display().to_string()));
    for record in Bundle::read(path)?.records {
        match &record.event {
            Event::Model(m) => {
                (identity.model, identity.window, identity.thinking) =
                    (m.model.clone(), m.window, m.thinking);
                let about = About { name: &m.model, parameters_b: m.parameters_b, server: &m.server };
                Profiles::default().resolve(about).describe(&mut identity);
                // Use the recorded approach, because the recorded answers were written for it.
                identity.prefers_whole_files = m.approach == Approach::WholeFile.name();
            }
            output => turns.extend(
                ::replay::answer(output, true, "").map(|turn| Turn { usage: Usage::default(), ..turn }),
            ),
        }
    }
    identity.branches = turns.iter().any(|turn| !turn.doubts.is_empty());
    let model = Replay::new(turns, identity);
    let why = format!("{} recorded turns of {}", model.remaining(), path.display());
    Ok(Some(Chosen { model: Box::new(model) as Box<dyn Model>, why, warnings: Vec::new() }))
}
