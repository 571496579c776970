//! Finds a model when none is named: in Ollama, on DeepSeek's platform if its key is set, on
//! another local server, or in a local file.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Chosen, Surroundings, deepseek, ollama, ollama_server, openai, preferred, unnamed};
use crate::Error;

/// Default ports and API paths of OpenAI-compatible servers, in order of preference
/// (docs/model-apis.md#server-detection).
const DEFAULT_PORTS: [(u16, &str); 9] = [
    (9931, "/v1"),          // llama-server since autumn 2026
    (8080, "/v1"),          // llama-server before that
    (8000, "/v1"),          // vLLM
    (1234, "/v1"),          // LM Studio
    (12434, "/engines/v1"), // Docker Model Runner
    (30000, "/v1"),         // SGLang
    (1337, "/v1"),          // Jan
    (5001, "/v1"),          // KoboldCpp
    (5000, "/v1"),          // TabbyAPI
];

/// Timeout for connecting to a port on this machine. A closed port refuses the connection
/// immediately.
const CONNECT: Duration = Duration::from_millis(300);

/// Tries Ollama, then DeepSeek's platform, then local servers on their default ports, then the
/// model files on this machine.
pub(super) async fn look(around: &Surroundings) -> Result<Chosen, Error> {
    let server = ollama_server(around)?;
    let (loaded, on_disk) = tokio::join!(server.ps(), server.tags());
    if let Some(running) = loaded.unwrap_or_default().first() {
        return ollama(&running.name, around, "Ollama has it loaded").await;
    }
    let base = server.base();
    let ollama_says = match on_disk {
        Ok(models) => match preferred(&models) {
            Some(model) => return ollama(&model.name, around, "the best of Ollama's models").await,
            None if models.is_empty() => format!(
                "Ollama at {base} is running but has no models; download one with `agent models pull qwen2.5-coder:7b`"
            ),
            None => format!(
                "Ollama at {base} has no model that writes text; download one with `agent models pull qwen2.5-coder:7b`"
            ),
        },
        Err(Error::Transport(_)) => format!("Ollama is not running at {base} (start it with `ollama serve`)"),
        Err(why) => format!("Ollama did not answer at {base} ({why})"),
    };
    if around.deepseek_key.is_some() {
        return deepseek(None, &unnamed(around), "DEEPSEEK_API_KEY is set").await;
    }
    let mut locked = Vec::new();
    if let Some(chosen) = local_server(around, &mut locked).await? {
        return Ok(chosen);
    }
    if let Some(engine) = &around.in_process
        && let Some(name) = engine.preferred()
    {
        return engine.open(&name, around).await;
    }
    let ports = DEFAULT_PORTS.map(|(port, _)| port.to_string()).join(", ");
    let others = if locked.is_empty() {
        format!("no other model server was found on this machine (ports {ports})")
    } else {
        format!(
            "{} needs an API key (name the server with --base-url and set OPENAI_API_KEY)",
            locked.join(" and ")
        )
    };
    Err(Error::NoModel(format!("no model found: {ollama_says}; DEEPSEEK_API_KEY is not set; {others}")))
}

/// Opens a model on a local server that listens on a default port; earlier ports take precedence.
/// Returns `None` if no model can be opened. Adds the addresses of servers that need a key to
/// `locked`.
///
/// # Errors
/// If no model can be opened yet because a server is loading its model.
async fn local_server(around: &Surroundings, locked: &mut Vec<String>) -> Result<Option<Chosen>, Error> {
    // An unknown server must not see a key meant for another server.
    let unnamed = Surroundings { openai_key: None, ..super::unnamed(around) };
    let tried = DEFAULT_PORTS.map(|(port, path)| {
        let unnamed = &unnamed;
        async move {
            timeout(CONNECT, TcpStream::connect(("127.0.0.1", port))).await.ok()?.ok()?;
            let base = format!("http://127.0.0.1:{port}{path}");
            let why = format!("a server was found on port {port}");
            Some((openai(&base, None, unnamed, &why).await, base))
        }
    });
    let mut loading = None;
    for (opened, base) in join_all(tried).await.into_iter().flatten() {
        match opened {
            Ok(chosen) => return Ok(Some(chosen)),
            Err(error @ Error::Loading(_)) => loading = loading.or(Some(error)),
            Err(Error::Settings(why)) if why.contains("API key") => locked.push(base),
            Err(_) => {}
        }
    }
    loading.map_or(Ok(None), Err)
}
