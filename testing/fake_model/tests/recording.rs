//! Tests the records of requests and replies, the functions that wait, and scripts in Rust and in
//! JSON.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod raw;

use fake_model::{Reply, Script, Server};
use raw::{Client, chat};
use serde_json::json;

const MODEL: &str = "deepseek-coder:6.7b";

fn answer(server: &Server, content: &str) -> String {
    let lines = Client::post(server, "/api/chat", &chat(MODEL, content)).lines();
    lines.iter().map(|line| line["message"]["content"].as_str().unwrap_or_default()).collect()
}

#[test]
fn requests_are_recorded_with_method_path_headers_body_and_order() {
    let server = Server::start();
    server.fallback("ok");
    let mut client = Client::connect(&server);
    client.send("GET", "/api/tags?x=1", "X-Test: yes\r\n", "");
    client.body();
    client.send("POST", "/api/chat", "", &chat(MODEL, "hello").to_string());
    client.body();
    answer(&server, "again");
    let requests = server.requests();
    let seen: Vec<_> = requests
        .iter()
        .map(|r| (r.method.as_str(), r.path.as_str(), r.query.as_str(), r.connection))
        .collect();
    assert_eq!(
        seen,
        [("GET", "/api/tags", "x=1", 0), ("POST", "/api/chat", "", 0), ("POST", "/api/chat", "", 1)]
    );
    assert_eq!(requests[0].header("x-test"), Some("yes"));
    assert_eq!(requests[1].messages()[0]["content"], "hello");
    assert!(requests[1].received_at <= requests[2].received_at);
    assert_eq!(server.chats().iter().map(|r| r.last_content()).collect::<Vec<_>>(), ["hello", "again"]);
}

#[test]
fn chunked_and_slow_request_bodies_are_read_completely() {
    let server = Server::start();
    server.fallback("ok");
    let body = chat(MODEL, "größer").to_string();
    let (one, two) = body.as_bytes().split_at(20);
    let mut client = Client::connect(&server);
    client.write(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(format!("{:x};ext=1\r\n", one.len()).as_bytes());
    for byte in one {
        client.write(&[*byte]);
    }
    client.write(format!("\r\n{:X}\r\n", two.len()).as_bytes());
    client.write(two);
    client.write(b"\r\n0\r\nTrailer: x\r\n\r\n");
    client.body();
    assert_eq!(client.status, 200);
    client.send("GET", "/api/version", "", "");
    assert!(client.json()["version"].is_string(), "the trailer should be consumed");
    assert_eq!(server.requests()[0].body, body.as_bytes());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let get = "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write(format!("{get}{get}").as_bytes());
    assert_eq!(client.json(), client.json());
}

#[test]
fn invalid_http_is_refused_and_the_server_continues() {
    let server = Server::start();
    for bytes in [
        "garbage\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut client = Client::connect(&server);
        client.write(bytes.as_bytes());
        client.body();
        assert_eq!(client.status, 400, "{bytes:?}");
    }
    let mut half = Client::connect(&server);
    half.write(b"POST /api/chat HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
    half.close();
    server.fallback("ok");
    assert_eq!(answer(&server, "x"), "ok");
}

#[test]
fn a_request_after_the_last_scripted_reply_is_answered_with_500() {
    let server = Server::start();
    server.enqueue("the only one");
    answer(&server, "one");
    let mut client = Client::post(&server, "/api/chat", &chat(MODEL, "two"));
    assert!(client.json()["error"].as_str().unwrap().contains("script is used up"));
    assert_eq!(client.status, 500);
}

#[test]
fn a_reply_can_be_computed_from_the_request() {
    let server = Server::start();
    server.fallback(Reply::from_fn(|request| Reply::text(request.last_content().to_uppercase())));
    assert_eq!(answer(&server, "loud"), "LOUD");
    server.enqueue("first the queue");
    assert_eq!(answer(&server, "loud"), "first the queue");
}

#[test]
fn waiting_works_on_a_runtime_without_a_clock_or_sockets() {
    let server = Server::start();
    server.enqueue(Reply::text("a").gate("here").more("b"));
    let mut client = Client::post(&server, "/api/chat", &chat(MODEL, "x"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reply = runtime.block_on(async {
        assert_eq!(server.wait_for_chats(1).await.len(), 1);
        assert_eq!(server.wait_for_requests(1).await.len(), 1);
        server.wait_for_gate("here").await;
        server.release("here");
        let reply = server.wait_for_close(0).await;
        assert_eq!(server.wait_for_end(0).await, reply);
        reply
    });
    assert_eq!((reply.client_closed(), reply.generated_tokens, reply.status), (false, 2, 200));
    assert_eq!(client.lines().last().unwrap()["done"], true);
}

#[test]
fn a_script_file_supports_what_the_rust_interface_supports() {
    let script = json!({
        "models": [{"name": MODEL, "context": 8192}],
        "replies": [
            "plain",
            {"steps": [{"chunks": ["a", "b"]}, {"gate": "g"}, {"text": "c"}], "split_bytes": 2},
            {"status": 503, "error": "busy", "headers": {"Retry-After": "1"}},
        ],
        "for_path": {"/api/version": [{"status": 500, "body": "no"}]},
        "fallback": "over",
    });
    let server = Server::play(Script::parse(&script.to_string()).unwrap(), 0).unwrap();
    assert_eq!(answer(&server, "1"), "plain");
    // Releases the gate through the control path.
    let mut held = Client::post(&server, "/api/chat", &chat(MODEL, "2"));
    let mut control = Client::connect(&server);
    control.send("GET", "/__fake/reached/g", "", "");
    assert_eq!(control.json(), json!({"reached": "g"}));
    assert!(!server.replies()[1].client_closed() && server.replies()[1].ended.is_none());
    control.send("POST", "/__fake/release/g", "", "");
    assert_eq!(control.json(), json!({"released": "g"}));
    control.send("GET", "/__fake/ended/1", "", "");
    assert_eq!(control.json()["outcome"], "complete");
    assert_eq!(held.lines().last().unwrap()["eval_count"], 3);
    let mut busy = Client::post(&server, "/api/chat", &chat(MODEL, "3"));
    assert_eq!(busy.json()["error"], "busy");
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("1")));
    let mut version = Client::connect(&server);
    version.send("GET", "/api/version", "", "");
    assert_eq!(version.body(), "no");
    assert_eq!(answer(&server, "4"), "over");
    control.send("POST", "/__fake/replies", "", r#"["more"]"#);
    control.body();
    assert_eq!(answer(&server, "5"), "more");
    control.send("GET", "/__fake/requests", "", "");
    assert_eq!(control.json().as_array().unwrap().len(), 6, "control requests should not be recorded");
}

#[test]
fn a_repeating_script_starts_over_after_its_last_reply() {
    let script = r#"{"replies": ["a", "b"], "repeat": true}"#;
    let server = Server::play(Script::parse(script).unwrap(), 0).unwrap();
    let answers: Vec<String> = (0..5).map(|i| answer(&server, &i.to_string())).collect();
    assert_eq!(answers.concat(), "ababa");
}

#[test]
fn an_invalid_script_is_refused_and_the_error_names_the_reply() {
    for (script, part) in [
        (r#"{"replies": ["a", {"stepz": []}]}"#, "reply 1"),
        (r#"[{"steps": [{"txt": "a"}]}]"#, "txt"),
        (r#"{"reply": []}"#, "unknown field"),
        ("{", "EOF"),
    ] {
        let problem = Script::parse(script).unwrap_err().to_string();
        assert!(problem.contains(part), "{script} → {problem}");
    }
}

#[test]
fn times_are_recorded_in_the_order_of_events() {
    let server = Server::start();
    server.enqueue(Reply::text("a").mark("brace").gate("g").more("b"));
    let mut client = Client::post(&server, "/api/chat", &chat(MODEL, "x"));
    server.block_for_gate("g");
    server.release("g");
    client.body();
    let request = server.requests().remove(0);
    let reply = server.block_for_close(0);
    let (name, brace) = &reply.marks[0];
    assert_eq!(name, "brace");
    let times = [request.received_at, reply.first_byte_at.unwrap(), *brace, reply.last_byte_at.unwrap()];
    assert!(times.is_sorted(), "{times:?}");
    let mut control = Client::connect(&server);
    control.send("GET", "/__fake/replies", "", "");
    let json = control.json();
    assert!(json[0]["marks"][0][1].as_f64() >= json[0]["first_byte_ms"].as_f64(), "{json}");
}
