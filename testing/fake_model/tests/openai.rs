//! Tests that the fake server behaves like DeepSeek, vLLM, llama-server and LM Studio
//! (docs/model-apis.md#openai-compatible-servers).
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod raw;

use fake_model::{Config, Personality, Reply, Server};
use raw::{Client, chat, chat_with};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";
const KEY: &str = "Authorization: Bearer sk-test\r\n";

fn ask(server: &Server, body: &Value) -> Client {
    let mut client = Client::connect(server);
    client.send("POST", PATH, KEY, &body.to_string());
    client
}

fn refused(server: &Server, body: &Value) -> (u16, Value) {
    let mut client = ask(server, body);
    let json = client.json();
    (client.status, json)
}

fn stream(model: &str, fields: Value) -> Value {
    let mut body = chat_with(model, fields);
    body["stream"] = json!(true);
    body
}

fn deltas(events: &[Value]) -> Vec<&Value> {
    events.iter().map(|event| &event["choices"][0]["delta"]).collect()
}

fn joined(events: &[Value], field: &str) -> String {
    deltas(events).iter().filter_map(|delta| delta[field].as_str()).collect()
}

#[test]
fn deepseek_streams_reasoning_content_and_calls_in_fragments() {
    let server = Server::of(Personality::Deepseek);
    server.enqueue(
        Reply::empty()
            .thinking("let me see")
            .more("Reading.")
            .tool_call("read_file", json!({"path": "src/a.rs"})),
    );
    let mut client = ask(&server, &stream("deepseek-flash", json!({})));
    let events = client.events();
    assert_eq!(client.header("content-type"), Some("text/event-stream"));
    assert_eq!(deltas(&events)[0], &json!({"role": "assistant", "content": null, "reasoning_content": ""}));
    assert_eq!(joined(&events, "reasoning_content"), "let me see");
    assert_eq!(joined(&events, "content"), "Reading.");
    let fragments: Vec<&Value> = deltas(&events)
        .into_iter()
        .map(|delta| &delta["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert!(fragments.len() > 3);
    assert_eq!(fragments.iter().filter(|fragment| fragment["id"].is_string()).count(), 1);
    let arguments: String =
        fragments.iter().map(|fragment| fragment["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(arguments, r#"{"path":"src/a.rs"}"#);
    let [.., last, done] = &events[..] else { panic!() };
    assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(last["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(done, "[DONE]");
}

#[test]
fn deepseek_refuses_the_requests_that_its_platform_refuses() {
    let server = Server::of(Personality::Deepseek);
    let call = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    let history = |extra: Value| {
        let mut assistant = json!({"role": "assistant", "content": "", "tool_calls": call});
        for (name, value) in extra.as_object().unwrap() {
            assistant[name] = value.clone();
        }
        json!({"messages": [{"role": "user", "content": "x"}, assistant,
            {"role": "tool", "tool_call_id": "c1", "content": "y"}]})
    };
    let model = "deepseek-flash";
    for (body, part) in [
        (chat("deepseek-chat", "x"), "Model Not Exist"),
        (chat_with(model, history(json!({}))), "reasoning_content"),
        (chat_with(model, json!({"response_format": {"type": "json_schema"}})), "response_format"),
        (chat_with(model, json!({"response_format": {"type": "json_object"}})), "json"),
        (chat_with(model, json!({"tool_choice": "required"})), "tool_choice"),
        (chat_with(model, json!({"tools": []})), "tools"),
        (chat_with(model, json!({"messages": [{"role": "assistant", "content": null}]})), "content"),
        (chat_with(model, json!({"messages": [{"role": "tool", "tool_call_id": "z", "content": ""}]})), "z"),
        (
            chat_with(
                model,
                json!({"messages": [
                {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": call},
                {"role": "user", "content": "x"}]}),
            ),
            "followed by tool messages",
        ),
    ] {
        let (status, json) = refused(&server, &body);
        let text = json["error"]["message"].as_str().unwrap();
        assert!(status == 400 && text.contains(part), "{body} → {status} {text}");
    }
    server.enqueue("fine");
    let good = chat_with(model, history(json!({"reasoning_content": "because"})));
    assert_eq!(refused(&server, &good).1["choices"][0]["message"]["content"], "fine");
}

#[test]
fn a_missing_or_wrong_key_is_refused_with_401() {
    let server = Server::of(Personality::Deepseek);
    let mut without = Client::post(&server, PATH, &chat("deepseek-flash", "x"));
    without.json();
    assert_eq!(without.status, 401);
    let config = Config { api_key: Some("sk-right".into()), ..Config::default() };
    let strict = Server::with_config(Config { personality: Personality::Generic, ..config });
    assert_eq!(refused(&strict, &chat("some-model", "x")).0, 401);
}

#[test]
fn usage_reports_cache_hits_in_the_fields_of_each_server() {
    for (personality, model) in [
        (Personality::Deepseek, "deepseek-flash"),
        (Personality::LlamaServer, "anything"),
        (Personality::Vllm, "deepseek-ai/DeepSeek-V3.1"),
    ] {
        let server = Server::of(personality);
        server.fallback("ok");
        let body = stream(
            model,
            json!({"stream_options": {"include_usage": true},
                "messages": [{"role": "user", "content": "x".repeat(400)}]}),
        );
        ask(&server, &body).events();
        let events = ask(&server, &body).events();
        let usage = &events[events.len() - 2]["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(cached > 90, "{usage}");
        if personality == Personality::Deepseek {
            assert_eq!(usage["prompt_cache_hit_tokens"], cached);
            let miss = usage["prompt_cache_miss_tokens"].as_u64().unwrap();
            assert_eq!(usage["prompt_tokens"], cached + miss);
        } else {
            assert_eq!(events[events.len() - 2]["choices"], json!([]), "the usage should have its own chunk");
        }
        if personality == Personality::LlamaServer {
            assert_eq!(events[events.len() - 2]["timings"]["cache_n"], cached);
        }
    }
}

#[test]
fn usage_can_arrive_unrequested_in_a_chunk_without_choices() {
    let server = Server::of(Personality::Deepseek);
    server.enqueue(Reply::text("x").usage_chunk_empty_choices());
    let events = ask(&server, &stream("deepseek-flash", json!({}))).events();
    let [.., finish, usage, done] = &events[..] else { panic!() };
    assert!(finish["usage"].is_null());
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["total_tokens"].is_u64());
    assert_eq!(done, "[DONE]");
}

#[test]
fn the_done_marker_and_the_finish_reason_can_be_missing() {
    let server = Server::of(Personality::Generic);
    server.enqueue(Reply::text("x").without_done_marker());
    server.enqueue(Reply::text("x").eof_without_done());
    let without_marker = ask(&server, &stream("some-model", json!({}))).events();
    assert_eq!(without_marker.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let without_either = ask(&server, &stream("some-model", json!({}))).events();
    assert!(without_either.iter().all(|event| event["choices"][0]["finish_reason"].is_null()));
}

#[test]
fn an_error_event_ends_the_stream() {
    let server = Server::of(Personality::Generic);
    server.enqueue(Reply::text("half").then_error_line("out of memory"));
    let events = ask(&server, &stream("some-model", json!({}))).events();
    assert_eq!(events.last().unwrap()["error"]["message"], "out of memory");
}

#[test]
fn llama_server_reports_its_window_its_progress_and_that_it_is_loading() {
    let config = Config {
        personality: Personality::LlamaServer,
        num_ctx: Some(4096),
        loading: true,
        ..Config::default()
    };
    let server = Server::with_config(config);
    let get = |path: &str| {
        let mut client = Client::connect(&server);
        client.send("GET", path, "", "");
        let json = client.json();
        (client.status, json)
    };
    assert_eq!(get("/health").0, 503);
    assert_eq!(refused(&server, &chat("m", "x")).1["error"]["message"], "Loading model");
    server.release("loaded");
    assert_eq!(get("/health").0, 200);
    assert_eq!(get("/props").1["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(get("/v1/models").1["data"][0]["owned_by"], "llamacpp");
    assert_eq!(get("/api/version").0, 404);

    server.enqueue("ok");
    let body = stream("m", json!({"return_progress": true}));
    let events = ask(&server, &body).events();
    assert_eq!(events[1]["prompt_progress"]["processed"], events[1]["prompt_progress"]["total"]);
    assert_eq!(deltas(&events)[2]["content"], Value::Null);

    let long = chat("m", &"x".repeat(20_000));
    let (status, json) = refused(&server, &long);
    assert_eq!((status, &json["error"]["type"]), (400, &json!("exceed_context_size_error")));
    assert_eq!(json["error"]["n_ctx"], 4096);
}

#[test]
fn vllm_sends_reasoning_in_its_own_field_and_refuses_empty_tools() {
    let server = Server::of(Personality::Vllm);
    let model = "deepseek-ai/DeepSeek-V3.1";
    assert_eq!(refused(&server, &chat_with(model, json!({"tools": []}))).0, 400);
    assert_eq!(refused(&server, &chat_with(model, json!({"stream_options": {}}))).0, 400);
    assert_eq!(refused(&server, &chat("other", "x")).0, 404);
    let (status, json) = refused(&server, &chat(model, &"x".repeat(1_000_000)));
    assert!(status == 400 && json["error"]["message"].as_str().unwrap().contains("maximum context length"));
    server.enqueue(Reply::empty().thinking("hm"));
    let events = ask(&server, &stream(model, json!({}))).events();
    assert_eq!(joined(&events, "reasoning"), "hm");
    let mut models = Client::connect(&server);
    models.send("GET", "/v1/models", "", "");
    assert_eq!(models.json()["data"][0]["max_model_len"], 131_072);
}

#[test]
fn lm_studio_lists_loaded_windows_and_answers_200_to_unknown_paths() {
    let server = Server::of(Personality::LmStudio);
    let mut models = Client::connect(&server);
    models.send("GET", "/api/v1/models", "", "");
    let json = models.json();
    assert_eq!(json["models"][0]["loaded_instances"][0]["config"]["context_length"], 131_072);
    let mut unknown = Client::connect(&server);
    unknown.send("GET", "/api/version", "", "");
    assert!(unknown.json()["error"].is_string());
    assert_eq!(unknown.status, 200);
}

#[test]
fn two_calls_in_one_chunk_are_complete_and_numbered() {
    let server = Server::of(Personality::Generic);
    server.enqueue(
        Reply::empty()
            .tool_call("a", json!({"x": 1}))
            .tool_call("b", json!("{broken"))
            .two_calls_in_one_chunk(),
    );
    let events = ask(&server, &stream("some-model", json!({}))).events();
    let calls = &deltas(&events)[1]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], r#"{"x":1}"#);
    assert_eq!((&calls[1]["index"], &calls[1]["function"]["arguments"]), (&json!(1), &json!("{broken")));
}

#[test]
fn json_schema_formats_need_a_schema_and_lm_studio_refuses_json_object() {
    let schema =
        json!({"type": "json_schema", "json_schema": {"name": "call", "schema": {"type": "object"}}});
    for (personality, model, object) in
        [(Personality::LmStudio, "deepseek-r1-distill-qwen-7b", 400), (Personality::LlamaServer, "m", 200)]
    {
        let server = Server::of(personality);
        server.fallback("{}");
        let status =
            |format: Value| refused(&server, &chat_with(model, json!({"response_format": format}))).0;
        assert_eq!(status(schema.clone()), 200);
        assert_eq!(status(json!({"type": "json_schema"})), 400);
        assert_eq!(status(json!({"type": "json_object"})), object);
    }
}
