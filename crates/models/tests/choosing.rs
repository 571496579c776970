//! Tests how a model is chosen: by name, by base URL, or by availability.

mod common;

use common::ask;
use fake_model::{Config, ModelSpec, Personality, Server};
use models::choose::{Chosen, Surroundings, open};
use models::{Error, Secret};

fn around(server: &Server) -> Surroundings {
    Surroundings { ollama_host: Some(server.url()), ..Surroundings::default() }
}

async fn choose(text: &str, around: &Surroundings) -> Result<Chosen, Error> {
    let choice = text.parse().map_err(Error::Settings)?;
    open(Some(&choice), around).await
}

#[tokio::test]
async fn a_loaded_model_is_preferred_and_then_a_coding_model() {
    let server = Server::start();
    let chosen = open(None, &around(&server)).await.unwrap();
    assert!(chosen.why.contains("coder"), "{}", chosen.why);
    server.enqueue("ok");
    let thinker = choose("deepseek-r1:8b", &around(&server)).await.unwrap();
    ask(thinker.model.as_ref(), "x").await.unwrap();
    let chosen = open(None, &around(&server)).await.unwrap();
    assert_eq!(chosen.model.identity().model, "deepseek-r1:8b");
    assert!(chosen.why.contains("loaded") && !chosen.why.contains('\n'), "{}", chosen.why);
}

#[tokio::test]
async fn an_ollama_without_models_falls_back_to_deepseek() {
    let server = Server::with_config(Config { models: Some(Vec::new()), ..Config::default() });
    let around = Surroundings { deepseek_key: Some(Secret::new("sk")), ..around(&server) };
    let chosen = open(None, &around).await.unwrap();
    assert_eq!(chosen.model.identity().server, "deepseek");
    assert!(chosen.why.contains("DEEPSEEK_API_KEY"), "{}", chosen.why);
}

#[tokio::test]
async fn a_base_url_may_point_to_any_kind_of_server() {
    for (personality, kind) in [(Personality::LlamaServer, "llama-server"), (Personality::Ollama, "ollama")] {
        let server = Server::of(personality);
        let around = Surroundings { base_url: Some(server.openai_url()), ..Surroundings::default() };
        assert_eq!(open(None, &around).await.unwrap().model.identity().server, kind);
        let name = server.models().remove(0).name;
        for text in [format!("openai:{name}"), name.clone()] {
            let chosen = choose(&text, &around).await.unwrap();
            assert_eq!(
                (chosen.model.identity().server.as_str(), chosen.model.identity().model),
                (kind, name.clone())
            );
        }
    }
    let server = Server::start();
    let around = Surroundings { base_url: Some(server.url()), ..Surroundings::default() };
    assert!(choose("ollama:deepseek-coder:6.7b", &around).await.is_ok());
}

#[tokio::test]
async fn a_bare_name_is_looked_up_on_ollama_first_and_then_on_deepseek() {
    let server =
        Server::with_config(Config { models: Some(vec![ModelSpec::new("deepseek-x")]), ..Config::default() });
    let keyed = Surroundings { deepseek_key: Some(Secret::new("sk")), ..around(&server) };
    assert_eq!(choose("deepseek-x", &keyed).await.unwrap().model.identity().server, "ollama");
    assert_eq!(choose("deepseek-flash", &keyed).await.unwrap().model.identity().server, "deepseek");
    for (text, around) in [("deepseek-flash", around(&server)), ("deepseek-r1:8b", keyed)] {
        assert!(matches!(choose(text, &around).await.err(), Some(Error::MissingModel { .. })), "{text}");
    }
}

#[tokio::test]
async fn the_error_says_what_is_missing() {
    let server = Server::start();
    for (text, part) in [
        ("openai:x", "--base-url"),
        ("deepseek:deepseek-flash", "DEEPSEEK_API_KEY"),
        ("replay:/nowhere/x.jsonl", "/nowhere/x.jsonl"),
    ] {
        let error = choose(text, &around(&server)).await.err().unwrap();
        assert!(matches!(&error, Error::Settings(why) if why.contains(part)), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn an_ollama_without_models_is_distinguished_from_one_that_is_not_running() {
    let server = Server::with_config(Config { models: Some(Vec::new()), ..Config::default() });
    let error = choose("ollama:x", &around(&server)).await.err().unwrap();
    assert!(
        matches!(&error, Error::MissingModel { message, .. } if message.contains("it has no models")),
        "{error}"
    );
    let base = Surroundings { base_url: Some(server.openai_url()), ..Surroundings::default() };
    let error = open(None, &base).await.err().unwrap();
    assert!(
        matches!(&error, Error::MissingModel { message, .. } if message.contains("agent models pull")),
        "{error}"
    );
    let gone = around(&server);
    drop(server);
    let error = choose("ollama:x", &gone).await.err().unwrap();
    assert!(matches!(&error, Error::Transport(why) if why.contains("is Ollama running")), "{error}");
}

#[tokio::test]
async fn the_users_own_key_goes_to_the_named_server() {
    let server = Server::of(Personality::Vllm);
    let around = Surroundings {
        base_url: Some(server.openai_url()),
        own_key: Some(Secret::new("sk-own")),
        openai_key: Some(Secret::new("sk-variable")),
        ..Surroundings::default()
    };
    open(None, &around).await.unwrap();
    assert!(server.requests().iter().all(|sent| sent.header("authorization") == Some("Bearer sk-own")));
}
