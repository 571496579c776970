//! Test helpers that build a request, open models and read an answer.
#![allow(dead_code, unreachable_pub, reason = "each test file uses only some helpers")]
#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use std::sync::Arc;

use futures_util::StreamExt;
use models::ollama::{Ollama, OllamaOptions};
use models::openai::{OpenAi, OpenAiOptions, Opened};
use models::{Answer, Delta, DeltaStream, Error, Message, Model, Request, Role, collect};

pub fn message(role: Role, content: &str) -> Arc<Message> {
    Message::new(role, content).into()
}

pub fn request(content: &str) -> Request {
    let messages = vec![message(Role::System, "Be brief."), message(Role::User, content)];
    Request {
        messages,
        temperature: Some(0.0),
        seed: Some(7),
        max_tokens: 500,
        alternatives: 0,
        constraint: None,
    }
}

/// Returns options without preloading. A preload would add a request to those that the server
/// records.
pub fn quiet(server: &fake_model::Server, model: &str) -> OllamaOptions {
    OllamaOptions { preload: false, ..OllamaOptions::new(&server.url(), model) }
}

pub async fn ollama(server: &fake_model::Server, model: &str) -> Ollama {
    Ollama::open(quiet(server, model)).await.unwrap()
}

pub async fn openai_with(server: &fake_model::Server, change: impl FnOnce(&mut OpenAiOptions)) -> OpenAi {
    let mut options = OpenAiOptions::new(&server.openai_url());
    change(&mut options);
    match OpenAi::open(options).await.unwrap() {
        Opened::Model(model) => *model,
        Opened::Ollama { base, .. } => panic!("an Ollama at {base}"),
    }
}

pub async fn openai(server: &fake_model::Server) -> OpenAi {
    openai_with(server, |_| {}).await
}

pub async fn ask(model: &dyn Model, content: &str) -> Result<Answer, Error> {
    collect(model.stream(&request(content)).await?).await
}

/// Reads the answer's text until it contains `wanted`.
pub async fn read_until(deltas: &mut DeltaStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match deltas.next().await {
            Some(Ok(Delta::Text(piece))) => text.push_str(&piece),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}
