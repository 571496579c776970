//! Tests how servers are detected, what is remembered about a server, and how gateways that answer
//! every path are handled.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod common;

use common::{ask, openai, openai_with};
use fake_model::{Config, Personality, Reply, Server};
use models::openai::{OpenAi, OpenAiOptions, Opened};
use models::{Access, Error, Memory, Model, Secret};
use serde_json::{Value, json};

const PROBES: [&str; 5] = ["/api/version", "/props", "/api/v1/models", "/api/v0/models", "/version"];

fn remembering(folder: &std::path::Path) -> Access {
    Access { memory: Memory::in_folder(folder.to_owned()), ..Access::default() }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("models-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// Returns the paths requested since the last call to this function, sorted and without chat
/// requests.
fn asked(server: &Server, from: &mut usize) -> Vec<String> {
    let paths: Vec<String> = server.requests()[*from..].iter().map(|sent| sent.path.clone()).collect();
    *from += paths.len();
    let mut paths: Vec<String> =
        paths.into_iter().filter(|path| !path.ends_with("/chat/completions")).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn a_gateway_that_answers_every_path_is_a_generic_server() {
    let bodies: Vec<Value> = vec![
        json!("<!doctype html><title>Gateway</title>"),
        json!({"status": "ok"}),
        json!({"version": "1.0.0"}),
        json!({"version": "0.33.0", "models": [], "data": []}),
        json!({"object": "list", "data": [{"id": "m", "object": "model"}], "models": [{"id": "m", "key": "m"}]}),
        json!({"models": [{"key": "m", "type": "llm", "loaded_instances": []}]}),
        json!({"default_generation_settings": {"n_ctx": 512}}),
        json!([]),
        json!(null),
    ];
    for body in bodies {
        let server = Server::of(Personality::Generic);
        for path in PROBES.into_iter().chain(["/api/tags"]) {
            server.enqueue_for(path, Reply::status(200, body.clone()));
        }
        let model = openai(&server).await;
        let identity = model.identity();
        assert_eq!((identity.server.as_str(), identity.window), ("openai", None), "{body}");
        server.enqueue("ok");
        assert_eq!(ask(&model, "x").await.unwrap().text, "ok", "{body}");
    }
}

#[tokio::test]
async fn programs_that_imitate_some_of_ollamas_paths_are_openai_servers() {
    let own = json!({"name": "koboldcpp", "digest": "d", "details": {"family": "x"}});
    for (version, tags) in [
        (json!({"version": "0.6.5", "deployment_id": ""}), json!({"models": []})),
        (json!({"version": "0.7.0"}), json!({"models": [own]})),
        (json!({"version": "0.7.0"}), json!({"detail": "Not Found"})),
        (json!({"version": "unknown"}), json!({"models": []})),
    ] {
        let server = Server::of(Personality::Generic);
        server.enqueue_for("/api/version", Reply::status(200, version.clone()));
        server.enqueue_for("/api/tags", Reply::status(200, tags));
        assert_eq!(openai(&server).await.identity().server, "openai", "{version}");
    }
}

#[tokio::test]
async fn an_ollama_is_detected_with_and_without_models() {
    for models in [None, Some(Vec::new())] {
        let server = Server::with_config(Config { models, ..Config::default() });
        let opened = OpenAi::open(OpenAiOptions::new(&server.openai_url())).await.unwrap();
        assert!(matches!(opened, Opened::Ollama { .. }));
    }
}

#[tokio::test]
async fn a_known_server_gets_only_the_probes_for_its_kind() {
    for (personality, paths) in [
        (Personality::Generic, &["/v1/models"][..]),
        (Personality::Vllm, &["/v1/models"]),
        (Personality::LlamaServer, &["/props", "/v1/models"]),
        (Personality::LmStudio, &["/api/v1/models", "/v1/models"]),
    ] {
        let (server, folder) = (Server::of(personality), folder("met"));
        let mut from = 0;
        let first = openai_with(&server, |options| options.access = remembering(&folder)).await;
        assert_eq!(asked(&server, &mut from).len(), 6, "{personality:?}");
        let second = openai_with(&server, |options| options.access = remembering(&folder)).await;
        assert_eq!(asked(&server, &mut from), paths, "{personality:?}");
        assert_eq!(first.identity(), second.identity(), "{personality:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
    let (server, folder) = (Server::start(), folder("ollama"));
    let mut from = 0;
    for requests in [7, 1] {
        let access = remembering(&folder);
        let options = OpenAiOptions { access, ..OpenAiOptions::new(&server.openai_url()) };
        assert!(matches!(OpenAi::open(options).await.unwrap(), Opened::Ollama { .. }));
        assert_eq!(asked(&server, &mut from).len(), requests);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_different_server_at_the_same_address_is_detected_again() {
    let folder = folder("another");
    let open = async |server: &Server| {
        let options =
            OpenAiOptions { access: remembering(&folder), ..OpenAiOptions::new(&server.openai_url()) };
        match OpenAi::open(options).await.unwrap() {
            Opened::Model(model) => model.identity().server,
            Opened::Ollama { .. } => "ollama".to_owned(),
        }
    };
    let mut before = Server::of(Personality::Generic);
    assert_eq!(open(&before).await, "openai");
    for (personality, name) in [
        (Personality::LlamaServer, "llama-server"),
        (Personality::LmStudio, "lm-studio"),
        (Personality::Ollama, "ollama"),
        (Personality::Vllm, "vllm"),
        (Personality::Ollama, "ollama"),
        (Personality::Generic, "openai"),
    ] {
        let port = before.address().port();
        drop(before);
        let config = Config { personality, ..Config::default() };
        before = loop {
            if let Ok(server) = Server::with_config_on(config.clone(), port) {
                break server;
            }
        };
        assert_eq!(open(&before).await, name);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_refusal_is_learned_once_and_remembered_for_the_next_run() {
    let refusals = [
        Reply::error(400, "System role not supported"),
        Reply::error(500, "System role not supported at row 1, column 60"),
        Reply::status(
            200,
            json!({"error": {"message": "Error rendering prompt with jinja template: \"System role not supported\""}}),
        ),
    ];
    for refusal in refusals {
        let (server, folder) = (Server::of(Personality::Generic), folder("refused"));
        server.enqueue(refusal);
        server.fallback("ok");
        for _ in 0..2 {
            let model = openai_with(&server, |options| options.access = remembering(&folder)).await;
            for _ in 0..2 {
                ask(&model, "x").await.unwrap();
            }
        }
        let chats = server.chats();
        assert_eq!(chats.len(), 5, "only the first request of the first run should be refused");
        for chat in &chats[1..] {
            assert_eq!(chat.messages(), [json!({"role": "user", "content": "Be brief.\n\nx"})]);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test]
async fn what_was_learned_about_a_gateway_without_a_model_list_is_kept() {
    let (server, folder) = (Server::of(Personality::Generic), folder("listless"));
    server.enqueue(Reply::error(400, "System role not supported"));
    server.fallback("ok");
    for _ in 0..3 {
        server.enqueue_for("/v1/models", Reply::status(404, "not here"));
        let model = openai_with(&server, |options| {
            options.model = Some(String::from("some-model"));
            options.access = remembering(&folder);
        })
        .await;
        ask(&model, "x").await.unwrap();
        // For a remembered server, the model list is requested once more before the probes.
        server.enqueue_for("/v1/models", Reply::status(404, "not here"));
    }
    assert_eq!(server.chats().len(), 4, "only the first of three runs should be refused");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_ollama_whose_template_refuses_the_system_role_gets_its_text_in_the_first_user_message() {
    let server = Server::start();
    let model = common::ollama(&server, "deepseek-coder:6.7b").await;
    server.enqueue(Reply::error(500, "template: System role not supported"));
    server.fallback("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(server.chats()[1].messages(), [json!({"role": "user", "content": "Be brief.\n\nx"})]);
}

#[tokio::test]
async fn content_is_sent_in_parts_if_a_server_accepts_nothing_else() {
    let server = Server::of(Personality::Generic);
    server.enqueue(Reply::error(400, "content must be a list"));
    server.fallback("ok");
    ask(&openai(&server).await, "x").await.unwrap();
    assert_eq!(server.chats()[1].messages()[1]["content"], json!([{"type": "text", "text": "x"}]));
}

#[tokio::test]
async fn a_key_that_is_valid_only_for_chat_is_no_error() {
    for status in [401, 403] {
        let server = Server::of(Personality::Generic);
        let refusal = || Reply::error(status, "this key may not list models");
        server.enqueue_for("/v1/models", refusal());
        server.enqueue("ok");
        let model = openai_with(&server, |options| options.model = Some(String::from("some-model"))).await;
        assert_eq!(ask(&model, "x").await.unwrap().text, "ok");
        server.enqueue_for("/v1/models", refusal());
        let error = OpenAi::open(OpenAiOptions::new(&server.openai_url())).await.err().unwrap();
        assert!(matches!(&error, Error::Settings(why) if why.contains("may not list")), "{error}");
    }
}

#[tokio::test]
async fn custom_headers_are_sent_with_every_request_and_never_shown() {
    let server = Server::of(Personality::Generic);
    let access = || Access {
        headers: vec![
            (String::from("X-Team"), Secret::new("hunter2-hunter2")),
            (String::from("Authorization"), Secret::new("Token sesame-sesame")),
        ],
        ..Access::default()
    };
    let model = openai_with(&server, |options| {
        options.access = access();
        options.key = Some(Secret::new("sk-another"));
    })
    .await;
    server.enqueue(Reply::error(401, "bad team hunter2-hunter2"));
    let error = ask(&model, "x").await.unwrap_err().to_string();
    assert!(error.contains("bad team …") && !error.contains("hunter2"), "{error}");
    for sent in server.requests() {
        assert_eq!(sent.header("x-team"), Some("hunter2-hunter2"));
        assert_eq!(sent.header("authorization"), Some("Token sesame-sesame"));
    }
    assert!(!format!("{:?}", access()).contains("hunter2"));
}

#[tokio::test]
async fn a_bare_port_is_not_looked_up_as_a_host() {
    let base = models::host::ollama_base("11434");
    let error = models::ollama::Server::new(&base, None, &Access::default()).err().unwrap();
    assert!(matches!(&error, Error::Settings(why) if why.contains("did you mean :11434?")), "{error}");
}
