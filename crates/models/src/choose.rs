//! Which model: what `--model` says, or, with nothing said, what is there.
//!
//! Nothing here reads the environment: the program passes in what it found as [`Surroundings`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::ollama::{LocalModel, Ollama, OllamaOptions, Server};
use crate::openai::{Kind, OpenAi, OpenAiOptions, Opened};
use crate::replay::Replay;
use crate::retry::{Decision, Policy};
use crate::{Error, Model, Secret, Think, Timeouts, host};

/// Where OpenAI-compatible servers listen by default: llama-server, vLLM, LM Studio (wire reference 3.1).
const USUAL_PORTS: [u16; 3] = [8080, 8000, 1234];

const DEEPSEEK: &str = "https://api.deepseek.com";

/// A value of `--model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// `ollama:NAME`
    Ollama(String),
    /// `deepseek:NAME`, or `deepseek` for the platform's default model.
    DeepSeek(Option<String>),
    /// `openai:NAME`, or `openai` for the first model of the endpoint.
    OpenAi(Option<String>),
    /// `replay:FILE`
    Replay(PathBuf),
    /// A bare name: with a base URL a model there, else one that Ollama has, else one of DeepSeek's.
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
                "a model is ollama:NAME, deepseek:NAME, openai:NAME, replay:FILE or a bare name",
            ));
        }
        let (provider, name) = text.split_once(':').unwrap_or((text, ""));
        let some = Some(name.to_owned()).filter(|name| !name.is_empty());
        let need = |what: &str| {
            some.clone().ok_or_else(|| format!("{provider}: needs {what}, as in {provider}:{what}"))
        };
        Ok(match provider {
            "ollama" => Choice::Ollama(need("NAME")?),
            "replay" => Choice::Replay(need("FILE")?.into()),
            "deepseek" => Choice::DeepSeek(some),
            "openai" => Choice::OpenAi(some),
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
            Choice::Replay(path) => write!(f, "replay:{}", path.display()),
            Choice::Bare(name) => f.write_str(name),
        }
    }
}

/// What the program read from flags and environment.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `OLLAMA_HOST`
    pub ollama_host: Option<String>,
    /// `OLLAMA_API_KEY`
    pub ollama_key: Option<Secret>,
    /// `DEEPSEEK_API_KEY`
    pub deepseek_key: Option<Secret>,
    /// `OPENAI_API_KEY`, or a key given for the base URL.
    pub openai_key: Option<Secret>,
    /// `--base-url`
    pub base_url: Option<String>,
    /// The window wanted, in tokens.
    pub window: Option<u64>,
    /// Thinking.
    pub think: Think,
    /// Time limits in place of the usual ones.
    pub timeouts: Option<Timeouts>,
    /// Whether Ollama is to load the model at once.
    pub preload: bool,
}

/// An opened model, and one line that says which it is and why.
pub struct Chosen {
    /// The model.
    pub model: Box<dyn Model>,
    /// Such as `ollama:qwen2.5-coder:7b (already loaded)`.
    pub why: String,
}

/// Opens the model of `choice`, or of what is there. A server that is busy or still loading its model is waited for, as [`Policy`] says.
///
/// # Errors
/// Whatever opening it met; [`Error::Refused`] with what to do when nothing was found.
pub async fn open(choice: Option<&Choice>, around: &Surroundings) -> Result<Chosen, Error> {
    // Agents that were refused together shall not come back together.
    let policy = Policy { seed: u64::from(std::process::id()), ..Policy::default() };
    let mut attempt = 0;
    loop {
        match open_now(choice, around).await {
            Err(error @ (Error::Unavailable { .. } | Error::Loading(_))) => {
                match policy.decide(attempt, &error, None) {
                    Decision::Wait(pause) => {
                        tracing::warn!("{error}; again in {} s", pause.as_secs_f64());
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
            Some(base) => openai(base, None, around, "the base URL was given").await,
            None => look(around).await,
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
        Choice::Replay(path) => replay(path).await,
        Choice::Bare(name) => match &around.base_url {
            Some(base) => openai(base, Some(name.clone()), around, "at the base URL given").await,
            None => bare(name, around).await,
        },
    }
}

/// A bare name: Ollama's if it has it, else DeepSeek's if that is how its models are called and there is a key.
async fn bare(name: &str, around: &Surroundings) -> Result<Chosen, Error> {
    let error = match ollama(name, around, "Ollama has it").await {
        Ok(chosen) => return Ok(chosen),
        Err(error) => error,
    };
    let hosted = name.starts_with("deepseek-") && !name.contains([':', '/']);
    if hosted
        && around.deepseek_key.is_some()
        && matches!(error, Error::MissingModel { .. } | Error::Transport(_))
    {
        return deepseek(
            Some(name.to_owned()),
            around,
            "Ollama does not have it, and DEEPSEEK_API_KEY is set",
        )
        .await;
    }
    Err(error)
}

/// Nothing was said: Ollama, then DeepSeek's platform, then local servers at their usual ports.
async fn look(around: &Surroundings) -> Result<Chosen, Error> {
    let server = ollama_server(around)?;
    let (loaded, on_disk) = tokio::join!(server.ps(), server.tags());
    let on_disk: Vec<LocalModel> = on_disk.unwrap_or_default();
    if let Some(running) = loaded.unwrap_or_default().first() {
        return ollama(&running.name, around, "Ollama has it loaded").await;
    }
    if let Some(model) = preferred(&on_disk) {
        return ollama(&model.name, around, "the best of the models Ollama has").await;
    }
    if around.deepseek_key.is_some() {
        return deepseek(None, around, "DEEPSEEK_API_KEY is set").await;
    }
    for port in USUAL_PORTS {
        let base = format!("http://127.0.0.1:{port}/v1");
        // A key meant for another endpoint is not shown to whatever listens here.
        let stranger = Surroundings { openai_key: None, ..around.clone() };
        if let Ok(chosen) =
            openai(&base, None, &stranger, &format!("a server was found at port {port}")).await
        {
            return Ok(chosen);
        }
    }
    let base = server.base();
    Err(Error::Refused(format!(
        "no model found: Ollama at {base} is not there or has no models (try `ollama pull qwen2.5-coder:7b`), DEEPSEEK_API_KEY is not set, \
         and no server listens at 127.0.0.1, ports 8080, 8000 or 1234; name one with --model and --base-url"
    )))
}

/// The model to take from Ollama's disk: one made for code before others, of those the largest file that a usual machine runs.
fn preferred(models: &[LocalModel]) -> Option<&LocalModel> {
    /// Larger models exist on disks, but rarely in the memory that is free.
    const USUAL: u64 = 24 << 30;
    let rank = |model: &&LocalModel| {
        let name = model.name.to_lowercase();
        let coder = ["coder", "codestral", "devstral", "code"].iter().any(|word| name.contains(word));
        let size = if model.size <= USUAL { model.size } else { 0 };
        (coder, !model.remote, size)
    };
    models.iter().filter(|model| !model.name.contains("embed")).max_by_key(rank)
}

fn ollama_server(around: &Surroundings) -> Result<Server, Error> {
    let base = host::ollama_base(around.ollama_host.as_deref().unwrap_or_default());
    Server::new(&base, around.ollama_key.as_ref(), around.timeouts)
}

async fn ollama(name: &str, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    // A base URL may also name an Ollama.
    let base = around.base_url.as_deref().or(around.ollama_host.as_deref()).unwrap_or_default();
    native(&host::ollama_base(&host::root(base)), name, around, why).await
}

async fn native(base: &str, name: &str, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    let options = OllamaOptions {
        key: around.ollama_key.clone(),
        num_ctx: around.window,
        think: around.think,
        timeouts: around.timeouts,
        preload: around.preload,
        ..OllamaOptions::new(base, name)
    };
    let model = Ollama::open(options).await?;
    let base = host::shown(base);
    Ok(Chosen { why: format!("ollama:{name} at {base} ({why})"), model: Box::new(model) })
}

async fn deepseek(name: Option<String>, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    let base = around.base_url.as_deref().map_or_else(|| DEEPSEEK.to_owned(), host::openai_base);
    let Some(key) = around
        .deepseek_key
        .clone()
        .or_else(|| around.openai_key.clone().filter(|_| around.base_url.is_some()))
    else {
        return Err(Error::Settings(String::from("DeepSeek's platform needs a key: set DEEPSEEK_API_KEY")));
    };
    endpoint(&base, name, Some(key), Some(Kind::DeepSeek), around, why).await
}

async fn openai(base: &str, name: Option<String>, around: &Surroundings, why: &str) -> Result<Chosen, Error> {
    let base = host::openai_base(base);
    // DeepSeek's key goes to DeepSeek only.
    let own = host::host_of(&base) == "api.deepseek.com";
    let key = if own {
        around.deepseek_key.clone().or_else(|| around.openai_key.clone())
    } else {
        around.openai_key.clone()
    };
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
        key,
        kind,
        window: around.window,
        think: around.think,
        timeouts: around.timeouts,
        ..OpenAiOptions::new(base)
    };
    match OpenAi::open(options).await? {
        Opened::Model(model) => {
            let (identity, base) = (model.identity(), host::shown(base));
            Ok(Chosen { why: format!("{}:{} at {base} ({why})", identity.server, identity.model), model })
        }
        Opened::Ollama { base, .. } => {
            let name = match name {
                Some(name) => name,
                None => {
                    let server = Server::new(&base, around.ollama_key.as_ref(), around.timeouts)?;
                    let (loaded, on_disk) = tokio::join!(server.ps(), server.tags());
                    let running = loaded.unwrap_or_default().into_iter().next().map(|model| model.name);
                    let on_disk = on_disk?;
                    running.or_else(|| preferred(&on_disk).map(|model| model.name.clone())).ok_or_else(
                        || Error::MissingModel {
                            message: format!("Ollama at {} has no models", host::shown(&base)),
                            available: Vec::new(),
                        },
                    )?
                }
            };
            native(&base, &name, around, &format!("{why}; it is an Ollama, so its native API is used")).await
        }
    }
}

async fn replay(path: &std::path::Path) -> Result<Chosen, Error> {
    let name = path.display().to_string();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|why| Error::Settings(format!("the recording {name} cannot be read: {why}")))?;
    let model = Replay::from_jsonl(&text, &name)?;
    let why = format!("replay:{name} ({} recorded turns)", model.remaining());
    Ok(Chosen { model: Box::new(model), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_in_five_ways() {
        for (text, choice) in [
            ("ollama:a/b:7b", Choice::Ollama(String::from("a/b:7b"))),
            ("deepseek:deepseek-flash", Choice::DeepSeek(Some(String::from("deepseek-flash")))),
            ("deepseek", Choice::DeepSeek(None)),
            ("openai:x", Choice::OpenAi(Some(String::from("x")))),
            ("replay:dir/a:b.jsonl", Choice::Replay(PathBuf::from("dir/a:b.jsonl"))),
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
    fn models_for_code_come_first_and_embeddings_never() {
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
