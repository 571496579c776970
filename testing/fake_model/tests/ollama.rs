//! Tests that the fake server behaves like Ollama: validation, counts, loads and lists
//! (docs/model-apis.md#ollama).
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod raw;

use fake_model::{Config, ModelSpec, Reply, Server};
use raw::{Client, chat, chat_with};
use serde_json::{Value, json};

const PLAIN: &str = "deepseek-coder:6.7b";
const R1: &str = "deepseek-r1:8b";
const BOTH: &str = "deepseek-v3.1:671b";

fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let mut client = Client::post(server, path, body);
    let json = client.json();
    (client.status, json)
}

fn get(server: &Server, path: &str) -> Value {
    let mut client = Client::connect(server);
    client.send("GET", path, "", "");
    client.json()
}

/// Returns the last line of a streamed answer.
fn last(server: &Server, body: &Value) -> Value {
    Client::post(server, "/api/chat", body).lines().pop().unwrap()
}

#[test]
fn invalid_chat_requests_are_refused_without_using_a_reply() {
    let call = |arguments: Value| json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let server = Server::start();
    server.enqueue("still there");
    for (body, status, part) in [
        (json!({"messages": []}), 400, "model is required"),
        (chat("nope", "x"), 404, "model 'nope' not found"),
        (chat_with(PLAIN, json!({"think": true})), 400, "does not support thinking"),
        (chat_with(PLAIN, json!({"think": "high"})), 400, "does not support thinking"),
        (chat_with(R1, json!({"think": "very"})), 400, "invalid think value"),
        (chat_with(R1, json!({"tools": tools})), 400, "does not support tools"),
        (chat_with(BOTH, json!({"messages": call(json!("{}"))})), 400, "arguments"),
        (
            chat_with(PLAIN, json!({"messages": [{"role": "user", "content": [{"text": "x"}]}]})),
            400,
            "content",
        ),
        (chat_with(PLAIN, json!({"messages": [{"role": "robot", "content": "x"}]})), 400, "role"),
        (chat_with(PLAIN, json!({"options": {"num_ctx": "4096"}})), 500, "num_ctx"),
        (chat_with(PLAIN, json!({"options": {"temperature": "hot"}})), 500, "temperature"),
        (chat_with(PLAIN, json!({"options": {"stop": "x"}})), 500, "stop"),
        (chat_with(PLAIN, json!({"keep_alive": "30"})), 400, "missing unit"),
        (chat_with(PLAIN, json!({"keep_alive": "-1"})), 400, "missing unit"),
        (chat_with(PLAIN, json!({"keep_alive": "5 minutes"})), 400, "unit"),
        (chat_with(PLAIN, json!({"keep_alive": "soon"})), 400, "invalid duration"),
        (chat_with(PLAIN, json!({"format": "yaml"})), 500, "format"),
        (chat_with(PLAIN, json!({"format": {"type": 7}})), 400, "schema"),
        (chat_with(PLAIN, json!({"stream": "no"})), 400, "stream"),
    ] {
        let (got, json) = post(&server, "/api/chat", &body);
        let text = json["error"].as_str().unwrap();
        assert!(got == status && text.contains(part), "{body} → {got} {text}");
    }
    assert_eq!(server.unused_replies(), 1);
}

#[test]
fn requests_that_ollama_accepts_are_accepted() {
    let server = Server::start();
    server.fallback("ok");
    for fields in [
        json!({"keep_alive": "30m"}),
        json!({"keep_alive": "-1m"}),
        json!({"keep_alive": -1}),
        json!({"keep_alive": "1h15m30.5s"}),
        json!({"think": false}),
        json!({"format": ""}),
        json!({"format": null}),
        json!({"format": "json"}),
        json!({"format": {"type": "object"}}),
        json!({"options": {"no_such_option": [1]}}),
        json!({"options": {"num_ctx": 8192.0}}),
        json!({"no_such_field": 1}),
        json!({"tools": []}),
    ] {
        assert_eq!(last(&server, &chat_with(PLAIN, fields.clone()))["done"], true, "{fields}");
    }
    let history = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
            {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "done", "tool_name": "f", "tool_call_id": "call_1"},
    ]);
    let body = chat_with(BOTH, json!({"messages": history, "think": "max"}));
    assert_eq!(last(&server, &body)["done"], true);
}

#[test]
fn bodies_that_are_not_json_are_refused() {
    let server = Server::start();
    for (body, part) in [("", "missing request body"), ("{\"model\"", "invalid"), ("[1]", "object")] {
        let mut client = Client::connect(&server);
        client.send("POST", "/api/chat", "", body);
        let json = client.json();
        assert_eq!(client.status, 400);
        assert!(json["error"].as_str().unwrap().contains(part), "{json}");
    }
}

#[test]
fn wrong_methods_paths_hosts_and_origins_are_refused() {
    let server = Server::start();
    for (method, path, headers, status, body) in [
        ("GET", "/api/chat", "", 405, "405 method not allowed"),
        ("POST", "/api/tags", "", 405, "405 method not allowed"),
        ("GET", "/api/nothing", "", 404, "404 page not found"),
        ("GET", "/api/tags", "Origin: https://example.com\r\n", 403, ""),
        ("GET", "/", "", 200, "Ollama is running"),
    ] {
        let mut client = Client::connect(&server);
        client.send(method, path, headers, "");
        assert_eq!((client.body().as_str(), client.status), (body, status), "{method} {path} {headers}");
    }
    let mut foreign = Client::connect(&server);
    foreign.write(b"GET /api/tags HTTP/1.1\r\nHost: models.example.com\r\n\r\n");
    assert_eq!((foreign.body().as_str(), foreign.status), ("", 403));
}

#[test]
fn thinking_and_tool_calls_have_their_own_fields() {
    let server = Server::start();
    let reply = || {
        Reply::empty().thinking("hm hm").more("I read.").tool_call("read_file", json!({"path": "a", "n": 1}))
    };
    server.enqueue(reply());
    let lines = Client::post(&server, "/api/chat", &chat(BOTH, "go")).lines();
    let thought: String = lines.iter().filter_map(|line| line["message"]["thinking"].as_str()).collect();
    assert_eq!(thought, "hm hm");
    let call = &lines[lines.len() - 2];
    assert_eq!(call["done"], false);
    assert_eq!(call["message"]["tool_calls"][0]["function"]["arguments"], json!({"path": "a", "n": 1}));
    assert_eq!(lines.last().unwrap()["done_reason"], "stop");

    server.enqueue(reply());
    let (_, whole) = post(&server, "/api/chat", &chat_with(BOTH, json!({"stream": false})));
    assert_eq!(whole["message"]["thinking"], "hm hm");
    assert_eq!(whole["message"]["content"], "I read.");
    assert_eq!(whole["message"]["tool_calls"][0]["function"]["name"], "read_file");
    assert_eq!((&whole["done"], &whole["done_reason"]), (&json!(true), &json!("stop")));
}

#[test]
fn tool_calls_can_arrive_together_or_with_the_last_chunk() {
    let two = || Reply::empty().tool_call("a", json!({})).tool_call("b", json!({}));
    let server = Server::start();
    server.enqueue(two());
    server.enqueue(two().two_calls_in_one_chunk());
    server.enqueue(two().tool_call_in_final_chunk());
    let calls_per_line = || -> Vec<(usize, bool)> {
        let lines = Client::post(&server, "/api/chat", &chat(BOTH, "go")).lines();
        let count = |line: &Value| line["message"]["tool_calls"].as_array().map_or(0, Vec::len);
        lines.iter().map(|line| (count(line), line["done"] == true)).collect()
    };
    assert_eq!(calls_per_line(), [(1, false), (1, false), (0, true)]);
    assert_eq!(calls_per_line(), [(2, false), (0, true)]);
    assert_eq!(calls_per_line(), [(2, true)]);
}

#[test]
fn without_streaming_an_incomplete_answer_has_done_false_and_an_error_is_a_500() {
    let server = Server::start();
    server.enqueue(Reply::text("half").eof_without_done());
    server.enqueue(Reply::text("half").then_error_line("runner stopped"));
    let body = chat_with(PLAIN, json!({"stream": false}));
    assert_eq!(post(&server, "/api/chat", &body).1["done"], false);
    assert_eq!(post(&server, "/api/chat", &body), (500, json!({"error": "runner stopped"})));
}

#[test]
fn generate_puts_the_answer_into_response_and_refuses_missing_capabilities() {
    let server = Server::start();
    server.enqueue(Reply::empty().thinking("hm").more("yes"));
    let lines = Client::post(&server, "/api/generate", &json!({"model": R1, "prompt": "go"})).lines();
    assert_eq!((&lines[0]["thinking"], &lines[1]["response"]), (&json!("hm"), &json!("yes")));
    assert_eq!(lines[2]["done"], true);
    let suffix = json!({"model": PLAIN, "prompt": "a", "suffix": "b"});
    assert_eq!(post(&server, "/api/generate", &suffix).0, 400);
    let raw = json!({"model": PLAIN, "prompt": "a", "raw": true, "system": "b"});
    assert_eq!(post(&server, "/api/generate", &raw).0, 400);
}

#[test]
fn a_prompt_longer_than_the_window_is_refused_only_on_request() {
    let long = |fields: Value| {
        let mut body = chat_with(PLAIN, fields);
        body["messages"][0]["content"] = json!("x".repeat(4000));
        body["options"] = json!({"num_ctx": 512});
        body
    };
    let server = Server::start();
    server.enqueue("I saw half of it.");
    let (status, json) = post(&server, "/api/chat", &long(json!({"truncate": false})));
    assert_eq!(status, 400);
    let inner: Value = serde_json::from_str(json["error"].as_str().unwrap()).unwrap();
    assert_eq!(inner["error"]["type"], "exceed_context_size_error");
    assert_eq!(inner["error"]["n_ctx"], 512);
    let (status, json) = post(&server, "/api/chat", &long(json!({"shift": false})));
    assert_eq!(status, 400);
    assert!(json["error"].as_str().unwrap().contains("longer than the context length"));
    assert_eq!(last(&server, &long(json!({})))["prompt_eval_count"], 256);
}

#[test]
fn a_requested_window_is_clamped_and_zero_requests_the_default() {
    let server = Server::start();
    server.fallback("ok");
    for (asked, in_force) in
        [(json!(8192), 8192), (json!(1_000_000), 16_384), (json!(10), 256), (json!(0), 4096)]
    {
        last(&server, &chat_with(PLAIN, json!({"options": {"num_ctx": asked}})));
        let ps = get(&server, "/api/ps");
        assert_eq!(ps["models"][0]["context_length"], in_force);
        assert_eq!(ps["models"].as_array().unwrap().len(), 1);
    }
    assert_eq!(server.loads().len(), 4);
}

#[test]
fn changing_a_runner_option_reloads_the_model_and_changing_a_sampling_option_does_not() {
    let server = Server::start();
    server.fallback("ok");
    let ask = |fields: Value| {
        last(&server, &chat_with(PLAIN, fields));
        server.loads().len()
    };
    assert_eq!(ask(json!({"options": {"num_ctx": 8192, "temperature": 0.1}})), 1);
    assert_eq!(
        ask(json!({"options": {"num_ctx": 8192, "temperature": 0.9, "seed": 7, "num_predict": 9}})),
        1
    );
    assert_eq!(ask(json!({"options": {"num_ctx": 8192}, "keep_alive": "1h"})), 1);
    assert_eq!(ask(json!({"options": {"num_ctx": 8192}, "shift": false})), 2);
    assert_eq!(ask(json!({"options": {"num_ctx": 8192, "num_batch": 64}, "shift": false})), 3);
    assert_eq!(ask(json!({})), 4);
}

#[test]
fn an_empty_chat_loads_the_model_and_keep_alive_zero_unloads_it() {
    let server = Server::start();
    let load = json!({"model": PLAIN, "messages": [], "options": {"num_ctx": 2048}});
    let (status, json) = post(&server, "/api/chat", &load);
    assert_eq!((status, &json["done_reason"]), (200, &json!("load")));
    assert_eq!(server.loaded()[0].num_ctx, 2048);
    let (_, json) = post(&server, "/api/generate", &json!({"model": PLAIN, "keep_alive": 0}));
    assert_eq!(json["done_reason"], "unload");
    assert!(server.loaded().is_empty());
    assert!(server.chats().is_empty(), "neither request should count as a chat");
    server.enqueue("bye");
    last(&server, &chat_with(PLAIN, json!({"keep_alive": "0s"})));
    assert!(server.loaded().is_empty(), "the model should be unloaded after the answer");
}

#[test]
fn an_append_only_history_is_cached_up_to_its_new_messages() {
    let server = Server::start();
    server.fallback("The very same answer.");
    let first = json!([{"role": "system", "content": "s".repeat(4000)}, {"role": "user", "content": "one"}]);
    let mut grown = first.clone();
    grown.as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": "The very same answer."}),
        json!({"role": "user", "content": "two"}),
    ]);
    let mut edited = grown.clone();
    edited[0]["content"] = json!("S");
    for messages in [first, grown, edited] {
        last(&server, &chat_with(PLAIN, json!({"messages": messages})));
    }
    let counts: Vec<_> =
        server.chat_replies().iter().map(|reply| (reply.prompt_tokens, reply.cached_tokens)).collect();
    let evaluated: Vec<_> = counts.iter().map(|(prompt, cached)| prompt - cached).collect();
    assert_eq!(counts[0].1, 0);
    assert!(evaluated[1] < 15, "{counts:?}");
    assert!(counts[2].1 < 5, "{counts:?}");
}

#[test]
fn a_reload_loses_the_cache() {
    let server = Server::start();
    server.fallback("ok");
    for num_ctx in [4096, 4096, 8192] {
        last(&server, &chat_with(PLAIN, json!({"options": {"num_ctx": num_ctx}})));
    }
    let cached: Vec<bool> = server.chat_replies().iter().map(|reply| reply.cached_tokens > 0).collect();
    assert_eq!(cached, [false, true, false]);
}

#[test]
fn a_reply_is_cut_at_num_predict() {
    let server = Server::start();
    server.enqueue("one two three four five");
    let lines =
        Client::post(&server, "/api/chat", &chat_with(PLAIN, json!({"options": {"num_predict": 3}}))).lines();
    let end = lines.last().unwrap();
    assert_eq!((lines.len(), &end["done_reason"], &end["eval_count"]), (4, &json!("length"), &json!(3)));
}

#[test]
fn models_are_listed_shown_pulled_and_deleted() {
    let config = Config {
        models: Some(vec![ModelSpec::new("mine").thinking().context(32_768).family("qwen2", "7B")]),
        pullable: vec![ModelSpec::new("new:1b")],
        ..Config::default()
    };
    let server = Server::with_config(config);
    let names = |server: &Server| -> Vec<String> {
        let tags = get(server, "/api/tags");
        tags["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().into()).collect()
    };
    assert_eq!(names(&server), ["mine:latest"]);

    let (_, show) = post(&server, "/api/show", &json!({"model": "mine"}));
    assert_eq!(show["capabilities"], json!(["completion", "thinking"]));
    assert_eq!(show["model_info"]["general.architecture"], "qwen2");
    assert_eq!(show["model_info"]["qwen2.context_length"], 32_768);
    assert_eq!(post(&server, "/api/show", &json!({"model": "other"})).0, 404);

    let lines = Client::post(&server, "/api/pull", &json!({"model": "new:1b"})).lines();
    assert_eq!(lines.first(), Some(&json!({"status": "pulling manifest"})));
    assert_eq!(lines.last(), Some(&json!({"status": "success"})));
    assert!(lines.iter().any(|line| line["completed"].as_u64() > Some(0)));
    assert_eq!(names(&server), ["mine:latest", "new:1b"]);

    let mut unknown = Client::post(&server, "/api/pull", &json!({"model": "nowhere"}));
    let lines = unknown.lines();
    assert_eq!(unknown.status, 200);
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("does not exist"));

    for status in [200, 404] {
        let mut client = Client::connect(&server);
        client.send("DELETE", "/api/delete", "", r#"{"model": "mine"}"#);
        client.body();
        assert_eq!(client.status, status);
    }
    assert_eq!(names(&server), ["new:1b"]);
}

#[test]
fn a_path_can_have_its_own_replies() {
    let server = Server::start();
    server.enqueue_for("/api/show", Reply::error(500, "disk on fire"));
    server.enqueue_for(
        "/api/pull",
        Reply::empty().json(json!({"status": "pulling manifest"})).then_error_line("max retries exceeded"),
    );
    let show = json!({"model": PLAIN});
    assert_eq!(post(&server, "/api/show", &show), (500, json!({"error": "disk on fire"})));
    assert_eq!(post(&server, "/api/show", &show).0, 200, "the error should be sent only once");
    let lines = Client::post(&server, "/api/pull", &show).lines();
    assert_eq!(lines[1], json!({"error": "max retries exceeded"}));
}
