//! `agent models pull`: downloads a model from the catalog into the agent's store. The name must be
//! the model's own name or, if Ollama is not running, its Ollama tag. All other models are pulled
//! by Ollama.

use model_files::{Store, catalog};
use models::ollama::Server;

use super::answers;
use crate::console;
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::Signals;
use crate::layers::Environment;
use crate::model::{server, surroundings};
use crate::model_store;
use crate::progress;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, environment: &Environment, name: &str) -> Result<Exit> {
    let ollama = server(settings).await?;
    let signals = Signals::take()?;
    let pulled = async {
        match catalog::find(name) {
            Some(model) if model.name.eq_ignore_ascii_case(name) || !answers(&ollama).await => {
                let store = model_store::store(environment)?;
                let sources = model_store::sources(environment, surroundings(settings).await?.access);
                into_store(&model, &store, &sources).await
            }
            found => by_ollama(&ollama, name, found.is_some()).await,
        }
    };
    tokio::select! {
        pulled = pulled => pulled.map(|()| Exit::Success),
        () = signals.wait() => {
            console::say("stopped; pull again to resume the download");
            Ok(Exit::Run(journal::Ending::Interrupted))
        }
    }
}

async fn by_ollama(ollama: &Server, name: &str, known: bool) -> Result<()> {
    let pulled = progress::pull(ollama, name).await;
    pulled.map_err(|error| {
        let unreachable = matches!(error, models::Error::Transport(_)) && !known;
        let failure = Failure::from(error);
        if !unreachable {
            return failure;
        }
        let names: Vec<String> = catalog::all().into_iter().map(|model| model.name).collect();
        failure.hint(format!("without Ollama, these can be pulled: {}", names.join(", ")))
    })
}

async fn into_store(model: &catalog::Model, store: &Store, sources: &model_files::Sources) -> Result<()> {
    let path = progress::pull_file(model, store, sources).await?;
    console::say(format_args!("pulled {} to {}", model.name, path.display()));
    Ok(())
}
