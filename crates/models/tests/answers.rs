//! Tests that every body in `fixtures/model_answers` decodes to the file next to it, regardless of
//! how its bytes are split into pieces.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{ollama, openai_with, request};
use fake_model::{Personality, Reply, Server};
use futures_util::StreamExt;
use models::openai::Kind;
use models::{Delta, End, Error, Model, Secret};
use serde_json::{Value, json};

fn bodies() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model_answers");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths
        .retain(|path| path.extension().is_some_and(|extension| extension == "sse" || extension == "ndjson"));
    paths.sort();
    paths
}

async fn open(path: &Path) -> (Server, Box<dyn Model>) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (kind, _) = name.split_once('.').unwrap();
    let personality = Personality::ALL.into_iter().find(|(known, _)| *known == kind).unwrap().1;
    let server = Server::of(personality);
    let model: Box<dyn Model> = if personality == Personality::Ollama {
        Box::new(ollama(&server, "deepseek-r1:8b").await)
    } else {
        let change = |options: &mut models::openai::OpenAiOptions| {
            if personality == Personality::Deepseek {
                options.kind = Some(Kind::DeepSeek);
                options.key = Some(Secret::new("sk"));
            }
        };
        Box::new(openai_with(&server, change).await)
    };
    (server, model)
}

fn line(item: Result<Delta, Error>) -> Value {
    match item {
        Ok(Delta::Text(text)) => json!({ "text": text }),
        Ok(Delta::Thinking(text)) => json!({ "thinking": text }),
        Ok(Delta::ToolCall { name, arguments }) => json!({ "call": name, "arguments": arguments }),
        Ok(Delta::Doubt { chosen, others }) => json!({ "chosen": chosen, "others": others }),
        Ok(Delta::Progress { processed, total }) => json!({ "progress": processed, "of": total }),
        Ok(Delta::Usage(usage)) => json!({ "usage": usage }),
        Ok(Delta::End(End { reason, usage })) => json!({ "end": reason, "usage": usage }),
        Err(error) => json!({ "error": error.to_string(), "retry": format!("{:?}", error.retry()) }),
    }
}

#[tokio::test]
async fn every_recorded_answer_decodes_to_the_expected_items() {
    let bodies = bodies();
    assert!(bodies.len() >= 17, "some fixtures are missing");
    let mut wrong = Vec::new();
    for path in bodies {
        let body = fs::read_to_string(&path).unwrap();
        for size in [usize::MAX, 1, 7] {
            let (server, model) = open(&path).await;
            server.enqueue(Reply::status(200, body.clone()).split_bytes(size));
            let items: Vec<_> = model.stream(&request("x")).await.unwrap().collect().await;
            let seen: String = items.into_iter().map(|item| format!("{}\n", line(item))).collect();
            let beside = path.with_extension("expected");
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&beside, &seen).unwrap();
            }
            let expected = fs::read_to_string(&beside).unwrap_or_default();
            if seen != expected {
                wrong.push(format!("{} in pieces of {size}:\n{seen}instead of\n{expected}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
