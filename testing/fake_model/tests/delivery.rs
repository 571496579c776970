//! Tests when and in what pieces bytes arrive at a raw TCP client: gates, chunk boundaries, ends
//! and resets.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod raw;

use fake_model::{Personality, Reply, Server};
use raw::{Client, Ended, chat, text};
use serde_json::{Value, json};

const MODEL: &str = "deepseek-coder:6.7b";

fn ask(server: &Server) -> Client {
    Client::post(server, "/api/chat", &chat(MODEL, "hello"))
}

fn content(lines: &[Value]) -> String {
    lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect()
}

#[test]
fn text_arrives_in_token_sized_pieces_each_as_one_line_in_one_http_chunk() {
    let server = Server::start();
    server.enqueue("fn main() { println!(\"Größe\"); }");
    let mut client = ask(&server);
    client.read_head();
    let chunks = client.chunks();
    assert!(chunks.len() > 10);
    let lines: Vec<Value> = chunks
        .iter()
        .map(|chunk| serde_json::from_str(text(chunk).strip_suffix('\n').unwrap()).unwrap())
        .collect();
    assert_eq!(content(&lines), "fn main() { println!(\"Größe\"); }");
    assert_eq!(lines.iter().filter(|line| line["done"] == true).count(), 1);
}

#[test]
fn no_header_arrives_before_the_first_token() {
    let server = Server::start();
    server.enqueue(Reply::empty().gate("evaluated").more("hello"));
    let mut client = ask(&server);
    server.block_for_gate("evaluated");
    assert!(client.nothing_to_read());
    server.release("evaluated");
    assert_eq!(content(&client.lines()), "hello");
}

#[test]
fn headers_can_be_delayed_until_a_gate_is_released() {
    let server = Server::start();
    server.enqueue(Reply::text("hello").delay_until_released("loaded"));
    let mut client = ask(&server);
    server.block_for_gate("loaded");
    assert!(client.nothing_to_read());
    server.release("loaded");
    assert_eq!(client.lines().len(), 2);
}

#[test]
fn headers_can_arrive_long_before_the_body() {
    let server = Server::start();
    server.enqueue(Reply::text("hello").after_headers_gate("body"));
    let mut client = ask(&server);
    client.read_head();
    server.block_for_gate("body");
    assert_eq!(client.status, 200);
    assert!(client.nothing_to_read());
    server.release("body");
    assert_eq!(client.chunks().len(), 2);
}

#[test]
fn a_reply_waits_at_its_gate_after_sending_everything_before_it() {
    let server = Server::start();
    server.enqueue(Reply::chunks(["{\"tool\": \"x\"}"]).gate("after the brace").more_chunks(["chatter"]));
    let mut client = ask(&server);
    client.read_head();
    assert!(text(&client.chunk().unwrap()).contains("tool"));
    server.block_for_gate("after the brace");
    assert!(client.nothing_to_read());
    server.release("after the brace");
    assert!(text(&client.chunk().unwrap()).contains("chatter"));
}

#[test]
fn a_reply_passes_a_gate_that_was_released_before() {
    let server = Server::start();
    server.release("hold");
    server.enqueue(Reply::text("a").hold().more("b"));
    assert_eq!(content(&ask(&server).lines()), "ab");
}

#[test]
fn a_body_can_be_split_even_within_a_character() {
    let server = Server::start();
    server.enqueue(Reply::chunks(["ö😀"]).split_bytes(1));
    let mut client = ask(&server);
    client.read_head();
    let chunks = client.chunks();
    assert!(chunks.iter().all(|chunk| chunk.len() == 1));
    assert!(chunks.iter().any(|chunk| std::str::from_utf8(chunk).is_err()));
    assert!(text(&chunks.concat()).contains("ö😀"));
}

#[test]
fn one_line_can_be_ten_mebibytes_long() {
    let server = Server::start();
    server.enqueue(Reply::empty().big_line(10 << 20));
    let lines = ask(&server).lines();
    assert_eq!(lines[0]["message"]["content"].as_str().unwrap().len(), 10 << 20);
}

#[test]
fn a_stream_with_status_200_can_end_with_an_error_line_instead_of_done() {
    let server = Server::start();
    server.enqueue(Reply::text("half").then_error_line("unexpected EOF").more("never"));
    let mut client = ask(&server);
    let lines = client.lines();
    assert_eq!(client.status, 200);
    assert_eq!(lines.last(), Some(&json!({"error": "unexpected EOF"})));
    assert!(lines.iter().all(|line| line["done"] != true));
}

#[test]
fn a_body_can_end_normally_without_a_done_line() {
    let server = Server::start();
    server.enqueue(Reply::text("half").eof_without_done());
    let lines = ask(&server).lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["done"], false);
}

#[test]
fn a_connection_can_close_in_the_middle_of_a_body() {
    let server = Server::start();
    server.enqueue(Reply::text("half").cut());
    let (bytes, ended) = ask(&server).rest();
    assert_eq!(ended, Ended::InOrder);
    assert!(
        text(&bytes).ends_with("\"done\":false}\n\r\n"),
        "the last HTTP chunk should be missing: {}",
        text(&bytes)
    );
}

#[test]
fn a_connection_can_be_reset() {
    let server = Server::start();
    server.enqueue(Reply::chunks(["half"]).gate("now").reset());
    let mut client = ask(&server);
    client.read_head();
    assert!(text(&client.chunk().unwrap()).contains("half"));
    server.release("now");
    assert_eq!(client.rest(), (Vec::new(), Ended::Reset));
}

#[test]
fn a_late_burst_sends_everything_at_the_end() {
    let server = Server::start();
    server.enqueue(Reply::text("one two three").gate("end").late_burst());
    let mut client = ask(&server);
    server.block_for_gate("end");
    assert!(client.nothing_to_read());
    server.release("end");
    assert_eq!(content(&client.lines()), "one two three");
}

#[test]
fn think_tags_and_leaked_tool_tokens_are_ordinary_content() {
    const LEAKED: &str = "<think>\nhm</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n\
                          ```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜DSML｜invoke name=\"f\">";
    let server = Server::start();
    server.enqueue(LEAKED);
    assert_eq!(content(&ask(&server).lines()), LEAKED);
}

#[test]
fn raw_bytes_are_sent_unchanged() {
    let server = Server::start();
    server.enqueue(Reply::empty().raw(b"\xff\xfe not json\n".to_vec()).eof_without_done());
    let mut client = ask(&server);
    client.read_head();
    assert_eq!(client.chunks(), [b"\xff\xfe not json\n"]);
}

#[test]
fn a_whole_response_can_be_scripted_as_bytes() {
    let server = Server::start();
    server.enqueue(Reply::wire("HTTP/1.1 banana\r\n\r\n"));
    assert_eq!(ask(&server).rest(), (b"HTTP/1.1 banana\r\n\r\n".to_vec(), Ended::InOrder));
}

#[test]
fn a_script_can_set_status_body_and_headers() {
    let server = Server::start();
    server.enqueue(Reply::error(503, "server busy").header("Retry-After", "7"));
    server.enqueue(Reply::status(502, "<html>bad gateway</html>").content_type("text/html"));
    server.enqueue(Reply::redirect(307, "http://127.0.0.1:9/elsewhere"));
    server.enqueue("then it is well");
    let mut busy = ask(&server);
    assert_eq!(busy.json(), json!({"error": "server busy"}));
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("7")));
    let mut gateway = ask(&server);
    assert_eq!(gateway.body(), "<html>bad gateway</html>");
    assert_eq!((gateway.status, gateway.header("content-type")), (502, Some("text/html")));
    let mut redirect = ask(&server);
    redirect.read_head();
    assert_eq!((redirect.status, redirect.header("location")), (307, Some("http://127.0.0.1:9/elsewhere")));
    assert_eq!(content(&ask(&server).lines()), "then it is well");
}

#[test]
fn a_stream_can_have_the_wrong_content_type() {
    let server = Server::start();
    server.enqueue(Reply::text("x").content_type("text/html"));
    let mut client = ask(&server);
    client.read_head();
    assert_eq!(client.header("content-type"), Some("text/html"));
}

#[test]
fn endless_replies_continue_until_the_client_disconnects_and_the_disconnect_is_recorded() {
    let server = Server::start();
    server.enqueue(Reply::empty().endless_whitespace());
    server.enqueue(Reply::empty().endless_repetition("again and again\n"));
    server.enqueue(Reply::empty().endless_line());
    for i in 0..3 {
        let mut client = ask(&server);
        client.read_head();
        let chunks: Vec<_> = (0..1000).map(|_| client.chunk().unwrap()).collect();
        if i == 2 {
            assert!(!chunks.concat().contains(&b'\n'), "one line");
        }
        client.close();
        let reply = server.block_for_close(i);
        assert!(reply.client_closed());
        assert!(reply.chunks >= 1000, "{reply:?}");
    }
}

#[test]
fn a_disconnect_at_a_gate_is_noticed_at_once() {
    let server = Server::start();
    server.enqueue(Reply::text("hello").hold().more("never"));
    let mut client = ask(&server);
    server.block_for_gate("hold");
    client.read_head();
    client.close();
    let reply = server.block_for_close(0);
    assert!(reply.client_closed());
    assert_eq!((reply.chunks, reply.generated_tokens), (1, 1));
}

#[test]
fn a_disconnect_before_any_byte_is_noticed() {
    let server = Server::start();
    server.enqueue(Reply::text("hello").delay_until_released("never"));
    let client = ask(&server);
    server.block_for_gate("never");
    client.close();
    let reply = server.block_for_close(0);
    assert!(reply.client_closed());
    assert_eq!((reply.status, reply.first_byte_at), (0, None));
}

#[test]
fn comments_precede_every_sse_event_and_are_left_out_of_ndjson() {
    let reply = || Reply::chunks(["a", "b"]).comments().comment("queue");
    let server = Server::of(Personality::Generic);
    server.enqueue(reply());
    let mut body = chat("some-model", "hello");
    body["stream"] = json!(true);
    let body = Client::post(&server, "/v1/chat/completions", &body).body();
    let comments = body.split("\n\n").filter(|event| event.starts_with(':')).count();
    let events = body.split("\n\n").filter(|event| event.starts_with("data: ")).count();
    assert_eq!((comments, events), (7, 5), "{body}");

    let ollama = Server::start();
    ollama.enqueue(reply());
    assert_eq!(content(&ask(&ollama).lines()), "ab");
}

#[test]
fn a_reply_for_benchmarks_pauses_and_sends_filler() {
    let server = Server::start();
    let time = std::time::Duration::from_millis;
    server.enqueue(Reply::text("a").pause(time(1)).filler_until(time(3), time(1)).more("b"));
    let said = content(&ask(&server).lines());
    assert!(said.starts_with("a filler") && said.ends_with(" fillerb"), "{said}");
}

#[test]
fn one_generation_runs_at_a_time_and_the_next_waits() {
    let server = Server::start();
    server.enqueue(Reply::text("first").gate("first"));
    server.enqueue("second");
    let mut first = ask(&server);
    server.block_for_gate("first");
    let mut second = ask(&server);
    server.block_for_requests(2);
    assert!(second.nothing_to_read());
    server.release("first");
    assert_eq!(content(&first.lines()), "first");
    assert_eq!(content(&second.lines()), "second");
}

#[test]
fn a_generation_whose_client_disconnects_frees_its_slot() {
    let server = Server::start();
    server.enqueue(Reply::text("first").hold());
    server.enqueue("second");
    let first = ask(&server);
    server.block_for_gate("hold");
    let mut second = ask(&server);
    first.close();
    assert_eq!(content(&second.lines()), "second");
}

#[test]
fn a_client_that_disconnects_after_the_done_marker_has_received_the_whole_reply() {
    let server = Server::start();
    server.enqueue("hello");
    let mut client = ask(&server);
    client.read_head();
    while !text(&client.chunk().unwrap()).contains("\"done\":true") {}
    assert_eq!(client.buffered(), b"0\r\n\r\n", "the last HTTP chunk should come in the same write");
    let reply = server.replies().remove(0);
    client.close();
    assert!(reply.ended.is_some() && !reply.client_closed(), "{reply:?}");
    assert_eq!((reply.chunks, reply.generated_tokens), (2, 1));
}
