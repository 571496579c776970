//! Tests that each server receives the schema that its answer must conform to, or no schema if it
//! cannot enforce one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{ollama, openai_with, request};
use fake_model::{Personality, Reply, Server};
use models::{Access, Memory, Model, Request, Think, collect};
use serde_json::{Value, json};

const CODER: &str = "deepseek-coder:6.7b";

fn schema() -> Value {
    json!({"type": "object", "properties": {"tool": {"const": "read"}}, "required": ["tool"]})
}

fn constrained() -> Request {
    Request { constraint: Some(Arc::new(schema())), ..request("x") }
}

async fn ask(model: &dyn Model) {
    collect(model.stream(&constrained()).await.unwrap()).await.unwrap();
}

/// Returns the value of a field in each request; `None` if the request did not have the field.
fn sent(server: &Server, field: &str) -> Vec<Option<Value>> {
    server.chats().iter().map(|chat| chat.json.get(field).cloned()).collect()
}

#[tokio::test]
async fn ollama_gets_the_schema_as_the_format() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    assert!(model.identity().can_constrain && !model.identity().constrained);
    server.fallback("ok");
    ask(&model).await;
    collect(model.stream(&request("x")).await.unwrap()).await.unwrap();
    assert_eq!(sent(&server, "format"), [Some(schema()), None]);
}

#[tokio::test]
async fn ollama_gets_the_schema_with_a_raw_prompt_too() {
    let server = Server::start();
    let base = json!({"template": "{{ .Prompt }}", "capabilities": ["completion"], "model_info": {}});
    server.enqueue_for("/api/show", Reply::status(200, base));
    let model = ollama(&server, CODER).await;
    server.fallback("ok");
    ask(&model).await;
    let sent = &server.chats()[0];
    assert_eq!((sent.path.as_str(), &sent.json["format"]), ("/api/generate", &schema()));
}

#[tokio::test]
async fn an_ollama_that_refuses_a_schema_gets_none_for_the_rest_of_the_session() {
    for refusal in [
        Reply::error(
            400,
            "json: cannot unmarshal object into Go struct field ChatRequest.format of type string",
        ),
        Reply::error(500, "invalid JSON schema in format"),
    ] {
        let server = Server::start();
        let model = ollama(&server, CODER).await;
        server.enqueue(refusal);
        server.fallback("ok");
        ask(&model).await;
        assert!(!model.identity().can_constrain);
        ask(&model).await;
        assert_eq!(sent(&server, "format"), [Some(schema()), None, None]);
    }
}

#[tokio::test]
async fn servers_known_to_enforce_a_schema_get_it_as_the_response_format() {
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema()}});
    for (personality, expected) in [
        (Personality::LlamaServer, Some(&format)),
        (Personality::Vllm, Some(&format)),
        (Personality::LmStudio, Some(&format)),
        (Personality::Generic, None),
    ] {
        let server = Server::of(personality);
        let model = openai_with(&server, |options| options.think = Think::Off).await;
        assert_eq!(model.identity().can_constrain, expected.is_some(), "{personality:?}");
        server.fallback("ok");
        ask(&model).await;
        assert_eq!(sent(&server, "response_format"), [expected.cloned()]);
    }
}

#[tokio::test]
async fn bug_a_refused_schema_is_omitted_for_the_session_but_not_remembered() {
    let folder = std::env::temp_dir().join(format!("models-constrained-{}", std::process::id()));
    let open = async |server: &Server| {
        let memory = Memory::in_folder(folder.clone());
        openai_with(server, |options| {
            options.access = Access { memory, ..Access::default() };
            options.think = Think::Off;
        })
        .await
    };
    for refusal in [
        Reply::error(400, "The provided JSON schema contains features not supported by xgrammar."),
        Reply::error(500, "Unexpected empty grammar stack after accepting piece: }"),
    ] {
        let server = Server::of(Personality::Vllm);
        let model = open(&server).await;
        server.enqueue(refusal);
        server.fallback("ok");
        ask(&model).await;
        assert!(!model.identity().can_constrain);
        ask(&model).await;
        let later = open(&server).await;
        assert!(later.identity().can_constrain);
        ask(&later).await;
        let has: Vec<bool> = sent(&server, "response_format").iter().map(Option::is_some).collect();
        assert_eq!(has, [true, false, false, true]);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_thinking_model_is_not_constrained() {
    let server = Server::start();
    let model = ollama(&server, "deepseek-r1:8b").await;
    assert!(model.identity().thinking && !model.identity().can_constrain);
    server.fallback("ok");
    ask(&model).await;
    assert_eq!(sent(&server, "format"), [None]);
}
