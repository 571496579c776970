//! Tests constrained decoding with a tiny model that has random weights: the answer conforms to the
//! schema regardless of what the model would otherwise write.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::{Embedded, Options};
use futures_util::StreamExt;
use models::profile::Profiles;
use models::{Answer, Delta, EndReason, Message, Model, Request, Role, Think, collect};
use serde_json::{Value, json};

/// Opens a model in its own temporary folder.
async fn open() -> (tempfile::TempDir, Embedded) {
    open_other(tiny_model::write).await
}

/// Writes a model to its own temporary folder using `write`, and opens it.
async fn open_other(write: fn(&Path) -> std::io::Result<()>) -> (tempfile::TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("tiny.gguf")).unwrap();
    let model = again(&folder).await;
    (folder, model)
}

/// Opens the model in a folder, as each run does. All runs share the loaded model.
async fn again(folder: &tempfile::TempDir) -> Embedded {
    let options = Options {
        file: folder.path().join("tiny.gguf"),
        name: String::from("tiny"),
        window: Some(4096),
        gpu_layers: 0,
        think: Think::Auto,
        profiles: Profiles::default(),
        cache: None,
        trial: Vec::new(),
    };
    Embedded::open(options).await.unwrap()
}

fn message(role: Role, content: &str) -> Arc<Message> {
    Message::new(role, content).into()
}

fn request(schema: Option<Value>) -> Request {
    Request {
        messages: vec![message(Role::User, "read read read \"tool\": \"read\" the file")],
        temperature: Some(0.0),
        max_tokens: 400,
        constraint: schema.map(Arc::new),
        ..Request::default()
    }
}

async fn ask(model: &Embedded, request: &Request) -> Answer {
    collect(model.stream(request).await.unwrap()).await.unwrap()
}

/// Returns the schema for a call to one of two tools. All strings are short, because a model with
/// random weights never ends a string on its own.
fn call() -> Value {
    let text = json!({"type": "string", "maxLength": 9});
    let tool = |name: &str, arguments: Value| {
        json!({
            "type": "object",
            "properties": {"tool": {"const": name}, "arguments": arguments},
            "required": ["tool", "arguments"],
            "additionalProperties": false,
        })
    };
    let read = json!({
        "type": "object",
        "properties": {"path": text, "start": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["path"],
        "additionalProperties": false,
    });
    let edit = json!({
        "type": "object",
        "properties": {"edits": {"type": "array", "items": text, "minItems": 1, "maxItems": 3}},
        "required": ["edits"],
        "additionalProperties": false,
    });
    json!({"anyOf": [tool("read_file", read), tool("edit", edit)]})
}

#[tokio::test]
async fn a_constrained_answer_is_one_value_that_fits_the_schema() {
    let (_folder, model) = open().await;
    all_answers_fit(&model).await;
}

#[tokio::test]
async fn bug_a_tokenizer_that_adds_a_space_lost_the_constraint() {
    let (_folder, model) = open_other(tiny_model::write_sentence_piece).await;
    all_answers_fit(&model).await;
    assert!(model.identity().can_constrain);
}

async fn all_answers_fit(model: &Embedded) {
    let schema = call();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut tools = std::collections::BTreeSet::new();
    for seed in 0..40 {
        for temperature in [0.7, 3.0] {
            let request =
                Request { temperature: Some(temperature), seed: Some(seed), ..request(Some(schema.clone())) };
            let answer = ask(model, &request).await;
            let value: Value = serde_json::from_str(&answer.text)
                .unwrap_or_else(|why| panic!("{why} in seed {seed}: {}", answer.text));
            assert!(validator.is_valid(&value), "seed {seed}: {value}");
            assert_eq!(answer.end.reason, EndReason::Stop, "the answer should end with the value");
            tools.insert(value["tool"].to_string());
        }
    }
    assert_eq!(tools.len(), 2, "the model should choose each tool at least once: {tools:?}");
}

#[tokio::test]
async fn an_answer_without_a_constraint_stays_free() {
    let (_folder, model) = open().await;
    let free = Request { max_tokens: 40, ..request(None) };
    let text = ask(&model, &free).await.text;
    assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
    ask(&model, &request(Some(call()))).await;
    assert_eq!(ask(&model, &free).await.text, text);
}

#[tokio::test]
async fn a_constrained_answer_is_the_same_with_and_without_guessed_tokens() {
    let (_folder, model) = open().await;
    let talk = request(Some(call()));
    let whole = ask(&model, &talk).await;
    let tokens = u32::try_from(whole.end.usage.generated_tokens.unwrap()).unwrap();
    // `max_tokens` also limits the guesses: an answer of one token leaves no room for a guess.
    for max_tokens in 1..tokens {
        let text = ask(&model, &Request { max_tokens, ..talk.clone() }).await.text;
        assert!(whole.text.starts_with(&text) && text.len() >= max_tokens as usize, "{max_tokens}: {text}");
    }
}

#[tokio::test]
async fn forced_text_is_evaluated_several_tokens_at_once() {
    let (_folder, model) = open().await;
    let word = "the only answer that this schema allows";
    let mut deltas = model.stream(&request(Some(json!({"const": word})))).await.unwrap();
    while !matches!(deltas.next().await.unwrap().unwrap(), Delta::Text(_)) {}
    drop(deltas);
    // The reader has seen one token, but the forced tokens after it are also in the cache.
    let mut next = request(None);
    next.messages.push(message(Role::Assistant, &format!("\"{word}\"")));
    let usage = ask(&model, &next).await.end.usage;
    let evaluated = usage.prompt_tokens.unwrap() - usage.cached_tokens.unwrap();
    assert!(evaluated <= 2, "{evaluated} evaluated again");
}

#[tokio::test]
async fn simultaneous_answers_have_their_own_constraints() {
    let (_folder, model) = open().await;
    let schemas = [Some(json!({"const": "one"})), None, Some(json!({"enum": ["two"]})), Some(call())];
    let requests = schemas.map(request);
    let answers = futures_util::future::join_all(requests.iter().map(|request| ask(&model, request))).await;
    assert_eq!(answers[0].text, "\"one\"");
    assert_eq!(answers[2].text, "\"two\"");
    assert!(serde_json::from_str::<Value>(&answers[1].text).is_err());
    assert!(serde_json::from_str::<Value>(&answers[3].text).is_ok());
}

#[tokio::test]
async fn bug_a_schema_that_cannot_be_compiled_ended_the_run() {
    let (folder, model) = open().await;
    let few = |schema| Request { max_tokens: 20, ..request(schema) };
    let free = ask(&model, &few(None)).await.text;
    let deep = |levels: usize| {
        (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}))
    };
    let wide = json!({"enum": (0..30_000).collect::<Vec<_>>()});
    let schemas = [
        json!({"type": "strange"}),
        json!({"type": "string", "pattern": "(("}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        json!({"type": "string", "pattern": "x".repeat(50_000)}),
        json!([1, 2]),
        json!("text"),
        deep(70),
        deep(500),
        wide,
        Value::Null,
    ];
    for schema in schemas {
        let start: String = schema.to_string().chars().take(80).collect();
        let model = again(&folder).await;
        assert!(model.identity().can_constrain, "a new run should try a constraint: {start}");
        assert_eq!(ask(&model, &few(Some(schema))).await.text, free, "{start}");
        assert!(!model.identity().can_constrain, "{start}");
    }
    let model = again(&folder).await;
    assert_eq!(
        ask(&model, &request(Some(json!({"const": 1})))).await.text,
        "1",
        "the engine should still work"
    );
}

#[tokio::test]
async fn bug_the_run_ended_if_no_schema_could_be_compiled_for_the_vocabulary() {
    let (_folder, model) = open_other(tiny_model::write_with_long_token).await;
    let few = |schema| Request { max_tokens: 20, ..request(schema) };
    let free = ask(&model, &few(None)).await.text;
    for _ in 0..2 {
        assert_eq!(ask(&model, &few(Some(call()))).await.text, free);
        assert!(!model.identity().can_constrain);
    }
}

#[tokio::test]
async fn a_schema_with_too_many_states_does_not_hang_the_engine() {
    let (folder, _model) = open().await;
    for schema in [
        json!({"type": "string", "pattern": "^((a{1,900}){1,900}b?){1,900}$"}),
        json!({"type": "string", "pattern": "^(a|aa|aaa|a*)*(.*a.{200})+$"}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "array", "items": {"type": "string", "pattern": "a+"}, "minItems": 1_000_000_000}),
        json!({"type": "object", "patternProperties": {"^(.*x.{100})+": {}, "^(.*y.{100})+": {}}}),
        json!({"multipleOf": 999_999_937, "type": "integer", "minimum": -9_999, "maximum": 9_999}),
    ] {
        let model = again(&folder).await;
        let request = Request { max_tokens: 20, ..request(Some(schema.clone())) };
        // Only a hang takes this long.
        let answer = tokio::time::timeout(Duration::from_secs(120), ask(&model, &request)).await;
        let text = answer.unwrap_or_else(|_| panic!("hangs: {schema}")).text;
        // Either the schema is not used, or the answer starts with a character that the schema
        // allows.
        let fits = "\"[{-0123456789".contains(&text[..1]);
        assert!(fits || !model.identity().can_constrain, "{schema}: {text}");
    }
}
