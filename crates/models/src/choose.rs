//! Chooses and opens a model: the one that `--model` specifies or, without that flag, one that is
//! available.
//!
//! This module does not read the environment: the program passes the values in [`Surroundings`].

mod look;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::ollama::{LocalModel, Ollama, OllamaOptions, Server, is_cloud_host, is_cloud_name};
use crate::openai::{Kind, OpenAi, OpenAiOptions, Opened};
use crate::price::Prices;
use crate::profile::Profiles;
use crate::replay::Replay;
use crate::retry::{Decision, Policy};
use crate::{Access, Error, Model, Secret, Think, host};

const OLLAMA_CLOUD: &str = "https://ollama.com";

const DEEPSEEK: &str = "https://api.deepseek.com";

/// A parsed `--model` value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// `ollama:NAME`
    Ollama(String),
    /// `deepseek:NAME`, or `deepseek` for the platform's default model.
    DeepSeek(Option<String>),
    /// `openai:NAME`, or `openai` for a model that the endpoint has loaded or, failing that, one
    /// that it lists.
    OpenAi(Option<String>),
    /// `embedded:NAME`, `embedded:FILE.gguf` or a bare `FILE.gguf`: a model in this process.
    Embedded(String),
    /// `replay:FILE`
    Replay(PathBuf),
    /// A bare name. If a base URL is given, it refers to a model on that server. Otherwise, it is
    /// looked up in Ollama, then among the model files on this machine, then on DeepSeek's
    /// platform.
    Bare(String),
}

impl FromStr for Choice {
    type Err = String;

    /// ```
    /// use models::choose::Choice;
    /// assert_eq!("ollama:qwen2.5-coder:7b".parse(), Ok(Choice::Ollama("qwen2.5-coder:7b".into())));
    /// assert_eq!("deepseek-r1:8b".parse(), Ok(Choice::Bare("deepseek-r1:8b".into())));
    /// ```
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.contains(char::is_control) {
            return Err(String::from(
                "a model is ollama:NAME, deepseek:NAME, openai:NAME, embedded:NAME, replay:FILE, FILE.gguf or a bare name",
            ));
        }
        let (provider, name) = text.split_once(':').unwrap_or((text, ""));
        let some = Some(name.to_owned()).filter(|name| !name.is_empty());
        let need = |what: &str| {
            some.clone().ok_or_else(|| format!("{provider}: needs {what}, as in {provider}:{what}"))
        };
        Ok(match provider {
            "ollama" => Choice::Ollama(need("NAME")?),
            "embedded" => Choice::Embedded(need("NAME")?),
            "replay" => Choice::Replay(need("FILE")?.into()),
            "deepseek" => Choice::DeepSeek(some),
            "openai" => Choice::OpenAi(some),
            _ if text.ends_with(".gguf") => Choice::Embedded(text.to_owned()),
            _ => Choice::Bare(text.to_owned()),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Ollama(name) => write!(f, "ollama:{name}"),
            Choice::DeepSeek(Some(name)) => write!(f, "deepseek:{name}"),
            Choice::DeepSeek(None) => f.write_str("deepseek"),
            Choice::OpenAi(Some(name)) => write!(f, "openai:{name}"),
            Choice::OpenAi(None) => f.write_str("openai"),
            Choice::Embedded(name) if name.ends_with(".gguf") => f.write_str(name),
            Choice::Embedded(name) => write!(f, "embedded:{name}"),
            Choice::Replay(path) => write!(f, "replay:{}", path.display()),
            Choice::Bare(name) => f.write_str(name),
        }
    }
}

/// Runs models in this process. The program provides the implementation, because this crate
/// contains no engine.
#[async_trait::async_trait]
pub trait InProcess: Send + Sync {
    /// Returns the best model on this machine, to use if no model is named.
    fn preferred(&self) -> Option<String>;
    /// Returns whether there is a model with this name on this machine.
    fn has(&self, name: &str) -> bool;
    /// Loads the model with this name or from this file.
    async fn open(&self, name: &str, around: &Surroundings) -> Result<Chosen, Error>;
}

/// The values that the program read from flags, settings and the environment.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// `OLLAMA_HOST`
    pub ollama_host: Option<String>,
    /// `OLLAMA_API_KEY`
    pub ollama_key: Option<Secret>,
    /// `DEEPSEEK_API_KEY`
    pub deepseek_key: Option<Secret>,
    /// `OPENAI_API_KEY`
    pub openai_key: Option<Secret>,
    /// The key from the user's file or command. It applies to the server that the user names,
    /// regardless of its kind. On a provider's own servers, that provider's environment variable
    /// takes precedence.
    pub own_key: Option<Secret>,
    /// `--base-url`
    pub base_url: Option<String>,
    /// The requested context window, in tokens.
    pub window: Option<u64>,
    /// Whether and how much the model should think.
    pub think: Think,
    /// The profiles of model families.
    pub profiles: Profiles,
    /// The prices of hosted models.
    pub prices: Prices,
    /// How to reach servers.
    pub access: Access,
    /// Whether Ollama should start loading the model before the first request.
    pub preload: bool,
    /// Models that run in this process; `None` if the program was built without an engine.
    pub in_process: Option<Arc<dyn InProcess>>,
}

/// An opened model, and a line that says which model was chosen and why.
pub struct Chosen {
    /// The model.
    pub model: Box<dyn Model>,
    /// The line, such as `ollama:qwen2.5-coder:7b at http://gpu:11434 (as asked)`.
    pub why: String,
    /// Warnings for the user, for example about a setting that the model does not support and what
    /// happens instead.
    pub warnings: Vec<String>,
}

/// Opens the chosen model, or an available one if `choice` is `None`. While the server is busy or
/// loading its model, retries according to [`Policy`].
///
/// # Errors
/// Returns the error that occurred when the model was opened. If no model was found, returns
/// [`Error::NoModel`], which says what to do.
pub async fn open(choice: Option<&Choice>, around: &Surroundings) -> Result<Chosen, Error> {
    // Each process has its own seed, so that agents that were refused at the same moment do not all
    // retry at the same moment.
    let policy = Policy { seed: u64::from(std::process::id()), ..Policy::default() };
    let mut attempt = 0;
    loop {
        match open_now(choice, around).await {
            Err(error @ (Error::Busy { .. } | Error::Unavailable { .. } | Error::Loading(_))) => {
                match policy.decide(attempt, &error, None) {
                    Decision::Wait(pause) => {
                        around
                            .access
                            .notices
                            .tell(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
                        tokio::time::sleep(pause).await;
                    }
                    Decision::Compact | Decision::GiveUp(_) => return Err(error),
                }
            }
            result => return result,
        }
        attempt += 1;
    }
}

async fn open_now(choice: Option<&Choice>, around: &Surroundings) -> Result<Chosen, Error> {
    let Some(choice) = choice else {
        return match &around.base_url {
            Some(base) => openai(base, None, around, "from the base URL").await,
            None => look::look(around).await,
        };
    };
    match choice {
        Choice::Ollama(name) => ollama(name, around, "as asked").await,
        Choice::DeepSeek(name) => deepseek(name.clone(), around, "as asked").await,
        Choice::OpenAi(name) => match &around.base_url {
            Some(base) => openai(base, name.clone(), around, "as asked").await,
            None => Err(Error::Settings(String::from(
                "openai: needs the endpoint, as in --base-url http://127.0.0.1:8080/v1",
            ))),
        },
        Choice::Embedded(name) => match &around.in_process {
            Some(engine) => engine.open(name, around).await,
            None => Err(Error::Settings(String::from(
                "this agent was built without the embedded engine; use a model server, or build it with the default features",
            ))),
        },
        Choice::Replay(path) => replay(path).await,
        Choice::Bare(name) => match &around.base_url {
            Some(base) => openai(base, Some(name.clone()), around, "at the base URL").await,
            None => bare(name, around).await,
        },
    }
}

/// Opens the model that a bare name refers to. Tries Ollama first, then a model file with that
/// name. Tries DeepSeek's platform last, and only if there is a key for it and the name looks like
/// that of a DeepSeek model.
async fn bare(name: &str, around: &Surroundings) -> Result<Chosen, Error> {
    let error = match ollama(name, around, "Ollama has it").await {
        Ok(chosen) => return Ok(chosen),
        Err(error) => error,
    };
    if matches!(error, Error::MissingModel { .. } | Error::Transport(_))
        && let Some(engine) = around.in_process.as_ref().filter(|engine| engine.has(name))
    {
        return engine.open(name, around).await;
    }
    let hosted = name.starts_with("deepseek-") && !name.contains([':', '/']);
    if hosted
        && around.deepseek_key.is_some()
        && matches!(error, Error::MissingModel { .. } | Error::Transport(_))
    {
        return deepseek(
            Some(name.to_owned()),
            &unnamed(around),
            "Ollama does not have it, and DEEPSEEK_API_KEY is set",
        )
        .await;
    }
    Err(error)
}

/// Returns the surroundings for a server that the user did not name, without the secrets meant for
/// other servers.
fn unnamed(around: &Surroundings) -> Surroundings {
    Surroundings { own_key: None, access: around.access.for_unnamed(), ..around.clone() }
}

/// Returns the best of the models that Ollama has on disk. Coding models come before others, then
/// local models before cloud models. Among equals, the largest one that a typical machine can run
/// wins.
fn preferred(models: &[LocalModel]) -> Option<&LocalModel> {
    /// The largest size, in bytes, that counts in a model's favor. Larger models are often on disk,
    /// but rarely fit in free memory.
    const LARGEST: u64 = 24 << 30;
    let rank = |model: &&LocalModel| {
        let name = model.name.to_lowercase();
        let coder = ["coder", "codestral", "devstral", "code"].iter().any(|word| name.contains(word));
        let size = if model.size <= LARGEST { model.size } else { 0 };
        (coder, !model.remote, size)
    };
    models.iter().filter(|model| !model.name.contains("embed")).max_by_key(rank)
}

fn ollama_server(around: &Surroundings) -> Result<Server, Error> {
    let base = host::ollama_base(around.ollama_host.as_deref().unwrap_or_default());
    Server::new(&base, ollama_key(around), &around.access)
}

/// Returns the key for Ollama. The user's own key is sent only if the user named an address.
fn ollama_key(around: &Surroundings) -> Option<&Secret> {
    let named = around.base_url.is_some() || around.ollama_host.is_some();
    around.ollama_key.as_ref().or(around.own_key.as_ref().filter(|_| named))
}

async fn ollama(name: &str, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    // A base URL may also point to an Ollama server.
    let named = around.base_url.as_deref().or(around.ollama_host.as_deref());
    let base = host::ollama_base(&host::root(named.unwrap_or_default()));
    let key = ollama_key(around).cloned();
    match native(&base, name, key.clone(), around, why).await {
        // With a key, a cloud model does not need a local daemon.
        Err(Error::Transport(_)) if named.is_none() && is_cloud_name(name) && key.is_some() => {
            let base = host::ollama_base(OLLAMA_CLOUD);
            native(&base, name, key, around, &format!("{why}; in the cloud: Ollama is not running")).await
        }
        result => result,
    }
}

async fn native(
    base: &str,
    name: &str,
    key: Option<Secret>,
    around: &Surroundings,
    why: &str,
) -> Result<Chosen, Error> {
    let options = OllamaOptions {
        key,
        num_ctx: around.window,
        think: around.think,
        profiles: around.profiles.clone(),
        access: around.access.clone(),
        preload: around.preload,
        ..OllamaOptions::new(base, name)
    };
    let model = Ollama::open(options).await?;
    let (name, base) = (model.identity().model, host::shown(base));
    Ok(Chosen {
        why: format!("ollama:{name} at {base} ({why})"),
        warnings: model.unsupported().to_vec(),
        model: Box::new(model),
    })
}

async fn deepseek(name: Option<String>, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    let base = around.base_url.as_deref().map_or_else(|| DEEPSEEK.to_owned(), host::openai_base);
    let Some(key) = around
        .deepseek_key
        .clone()
        .or_else(|| around.own_key.clone())
        .or_else(|| around.openai_key.clone().filter(|_| around.base_url.is_some()))
    else {
        return Err(Error::Settings(String::from(
            "DeepSeek's platform needs a key: set DEEPSEEK_API_KEY, or api_key_file in your settings",
        )));
    };
    endpoint(&base, name, Some(key), Some(Kind::DeepSeek), around, why).await
}

async fn openai(base: &str, name: Option<String>, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    let base = host::openai_base(base);
    // DeepSeek's key goes only to DeepSeek.
    let own = around.own_key.clone().or_else(|| around.openai_key.clone());
    let key = match host::host_of(&base).as_str() {
        "api.deepseek.com" => around.deepseek_key.clone().or(own),
        _ if is_cloud_host(&base) => around.ollama_key.clone().or(own),
        _ => own,
    };
    if is_cloud_host(&base)
        && let Some(name) = &name
    {
        return native(&host::ollama_base(&host::root(&base)), name, key, around, why).await;
    }
    endpoint(&base, name, key, None, around, why).await
}

async fn endpoint(
    base: &str,
    name: Option<String>,
    key: Option<Secret>,
    kind: Option<Kind>,
    around: &Surroundings,
    why: &str,
) -> Result<Chosen, Error> {
    let options = OpenAiOptions {
        model: name.clone(),
        key: key.clone(),
        kind,
        window: around.window,
        think: around.think,
        profiles: around.profiles.clone(),
        prices: around.prices.clone(),
        access: around.access.clone(),
        ..OpenAiOptions::new(base)
    };
    match OpenAi::open(options).await? {
        Opened::Model(model) => {
            let (identity, base) = (model.identity(), host::shown(base));
            let warnings = model.unsupported().to_vec();
            Ok(Chosen {
                why: format!("{}:{} at {base} ({why})", identity.server, identity.model),
                warnings,
                model,
            })
        }
        Opened::Ollama { base, .. } => {
            let key = around.ollama_key.clone().or(key);
            let name = match name {
                Some(name) => name,
                None => {
                    let server = Server::new(&base, key.as_ref(), &around.access)?;
                    let (loaded, on_disk) = tokio::join!(server.ps(), server.tags());
                    let running = loaded.unwrap_or_default().into_iter().next().map(|model| model.name);
                    let on_disk = on_disk?;
                    running.or_else(|| preferred(&on_disk).map(|model| model.name.clone())).ok_or_else(
                        || Error::MissingModel {
                            message: format!(
                                "Ollama at {} has no models; download one with `agent models pull qwen2.5-coder:7b`",
                                host::shown(&base)
                            ),
                            available: Vec::new(),
                        },
                    )?
                }
            };
            let why = format!("{why}; it is an Ollama server, so its native API is used");
            native(&base, &name, key, around, &why).await
        }
    }
}

async fn replay(path: &std::path::Path) -> Result<Chosen, Error> {
    let name = path.display().to_string();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|why| Error::Settings(format!("cannot read the recording {name}: {why}")))?;
    let model = Replay::from_jsonl(&text, &name)?;
    let why = format!("replay:{name} ({} recorded turns)", model.remaining());
    Ok(Chosen { model: Box::new(model), why, warnings: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_model_name_is_parsed_and_printed() {
        for (text, choice) in [
            ("ollama:a/b:7b", Choice::Ollama(String::from("a/b:7b"))),
            ("deepseek:deepseek-flash", Choice::DeepSeek(Some(String::from("deepseek-flash")))),
            ("deepseek", Choice::DeepSeek(None)),
            ("openai:x", Choice::OpenAi(Some(String::from("x")))),
            ("replay:dir/a:b.jsonl", Choice::Replay(PathBuf::from("dir/a:b.jsonl"))),
            ("embedded:a", Choice::Embedded(String::from("a"))),
            ("dir/a.gguf", Choice::Embedded(String::from("dir/a.gguf"))),
            ("qwen2.5-coder:7b", Choice::Bare(String::from("qwen2.5-coder:7b"))),
        ] {
            assert_eq!(text.parse::<Choice>(), Ok(choice.clone()));
            assert_eq!(choice.to_string(), text);
        }
        for bad in ["", "  ", "ollama:", "ollama", "replay:", "a\nb"] {
            assert!(bad.parse::<Choice>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn coding_models_come_first_and_embedding_models_never() {
        let model = |name: &str, size: u64| LocalModel {
            name: name.to_owned(),
            size: size << 30,
            family: None,
            parameter_size: None,
            quantization: None,
            remote: name.ends_with("cloud"),
            modified_at: None,
        };
        let pick = |models: &[LocalModel]| preferred(models).map(|model| model.name.clone());
        let disk = [
            model("nomic-embed-text:latest", 1),
            model("llama3:8b", 5),
            model("qwen2.5-coder:7b", 4),
            model("qwen2.5-coder:1.5b", 1),
            model("coder:480b", 290),
        ];
        assert_eq!(pick(&disk).as_deref(), Some("qwen2.5-coder:7b"));
        assert_eq!(pick(&disk[..2]).as_deref(), Some("llama3:8b"));
        assert_eq!(pick(&disk[..1]), None);
        assert_eq!(pick(&[model("big:cloud", 0), model("llama3:8b", 5)]).as_deref(), Some("llama3:8b"));
    }
}
