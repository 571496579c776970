//! Handles the case where a machine has no model: lists the ways to get one, and downloads one.

use model_files::catalog::{self, Model};
use models::Error;

use crate::exit::{Failure, Result};
use crate::figures::bytes;
use crate::layers::Environment;
use crate::model_store;
use crate::progress;

/// The model to offer: the smallest one that solved tasks in this project's measurements.
const FIRST: &str = "qwen2.5-coder-1.5b";

/// Returns the model to offer, or `None` if this agent was built without an engine and cannot use
/// model files.
pub(crate) fn model() -> Option<Model> {
    find(FIRST)
}

/// Finds a model in the catalog. Returns `None` if the catalog has no model with this name, or if
/// this agent has no engine.
pub(crate) fn find(name: &str) -> Option<Model> {
    catalog::find(name).filter(|_| cfg!(feature = "embedded"))
}

/// Turns the error into a failure with one hint for each way to get a model.
pub(crate) fn failure(error: Error, model: Option<&Model>) -> Failure {
    let mut failure = Failure::from(error);
    if let Some(model) = model {
        failure = failure.hint(format!(
            "easiest: `agent models pull {}` or --pull ({}, a few minutes, no server or key needed)",
            model.name,
            bytes(model.bytes),
        ));
    }
    failure
        .hint(
            "a stronger model on this machine: install Ollama, then `ollama pull qwen2.5-coder:7b` (4.7 GB)",
        )
        .hint("DeepSeek's platform: set DEEPSEEK_API_KEY; nothing to download, each run costs a few cents")
        .hint("another server: specify it with --model and --base-url")
}

/// Pulls the model into the store.
///
/// # Errors
/// If none of the sources can provide it.
pub(crate) async fn pull(model: &Model, access: models::Access) -> Result<()> {
    let environment = Environment::new(std::env::vars_os());
    let store = model_store::store(&environment)?;
    progress::pull_file(model, &store, &model_store::sources(&environment, access)).await?;
    Ok(())
}
