//! Tests faults in model servers for both protocols: which error each fault causes, whether the
//! request is retried, and that no secret leaks. `docs/servers.md` lists what users see.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod common;

use std::time::Duration;

use common::{ask, ollama, openai, openai_with, quiet};
use fake_model::{Certificate, Personality, Reply, Server, TlsServer};
use models::ollama::{Ollama, OllamaOptions};
use models::openai::{Kind, OpenAi, OpenAiOptions, Opened};
use models::{Access, EndReason, Error, Model, Retry, Secret};
use serde_json::json;

const CODER: &str = "deepseek-coder:6.7b";

/// Starts a server for each protocol and opens a model on each of them.
async fn both() -> [(Server, Box<dyn Model>); 2] {
    let (native, compatible) = (Server::start(), Server::of(Personality::Generic));
    let models: [Box<dyn Model>; 2] =
        [Box::new(ollama(&native, CODER).await), Box::new(openai(&compatible).await)];
    let [first, second] = models;
    [(native, first), (compatible, second)]
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Transport(_) => "transport",
        Error::Busy { .. } => "busy",
        Error::Unavailable { .. } => "unavailable",
        Error::Loading(_) => "loading",
        Error::Overflow { .. } => "overflow",
        Error::Timeout(_) => "timeout",
        Error::Slow(_) => "slow",
        Error::MissingModel { .. } => "missing",
        Error::NoModel(_) => "no model",
        Error::Refused(_) => "refused",
        Error::Exhausted(_) => "exhausted",
        Error::Settings(_) => "settings",
        Error::Protocol(_) => "protocol",
    }
}

#[tokio::test]
async fn each_fault_causes_the_same_error_in_both_protocols_and_a_retry_sends_the_same_bytes() {
    let again = Retry::After(None);
    let page = "<html>\n<h1>Please sign in</h1></html>\n";
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let ahead = "Sun, 06 Nov 2033 08:49:50 GMT";
    let busy = || Reply::error(429, "slow down");
    let faults: Vec<(&str, Reply, &str, Retry, &str)> = vec![
        ("reset", Reply::text("half").reset(), "transport", again, "failed"),
        ("reset before a byte", Reply::empty().reset(), "transport", again, "failed"),
        ("no answer at all", Reply::wire(""), "transport", again, "failed"),
        ("half a head", Reply::wire("HTTP/1.1 200 OK\r\nContent-"), "transport", again, "failed"),
        ("not HTTP", Reply::wire("SSH-2.0-OpenSSH_9.6\r\n"), "transport", again, "failed"),
        ("closed early", Reply::text("half").cut(), "transport", again, "failed"),
        ("ended early", Reply::text("half").eof_without_done(), "transport", again, "before the answer"),
        ("nothing in it", Reply::recorded(""), "transport", again, "before the answer was complete"),
        ("error line", Reply::text("half").then_error_line("boom"), "unavailable", again, "boom"),
        ("404 page", Reply::status(404, "404 page not found"), "settings", Retry::Never, "check the address"),
        ("401", Reply::status(401, ""), "settings", Retry::Never, "API key"),
        ("402", Reply::status(402, ""), "exhausted", Retry::Never, "no balance"),
        ("403", Reply::error(403, "not for you"), "settings", Retry::Never, "not for you"),
        ("407", Reply::status(407, ""), "settings", Retry::Never, "HTTP_PROXY"),
        ("408", Reply::status(408, ""), "unavailable", again, "408"),
        ("429", busy(), "busy", again, "slow down"),
        ("429 for seconds", busy().header("Retry-After", "7"), "busy", Retry::After(Some(7)), "slow down"),
        (
            "429 until a time",
            busy().header("Date", "Sun, 06 Nov 2033 08:49:30 GMT").header("Retry-After", ahead),
            "busy",
            Retry::After(Some(20)),
            "slow down",
        ),
        ("429 nonsense", busy().header("Retry-After", "soon"), "busy", again, "slow down"),
        ("500", Reply::error(500, "CUDA error"), "unavailable", again, "CUDA error"),
        ("502", Reply::status(502, page), "unavailable", again, "Please sign in"),
        ("503 while loading", Reply::error(503, "Loading model"), "loading", again, "Loading model"),
        ("503", Reply::error(503, "busy"), "busy", again, "busy"),
        ("504", Reply::status(504, ""), "unavailable", again, "no reason given"),
        ("529", Reply::status(529, ""), "busy", again, "529"),
        ("malformed JSON", Reply::recorded("{\"a\": tru}\n"), "protocol", again, "not JSON"),
        ("malformed event", Reply::recorded("data: {\"a\": tru}\n\n"), "protocol", again, "not JSON"),
        ("a list", Reply::recorded("[1]\n"), "protocol", again, "instead of an object"),
        ("web page", Reply::recorded(page).content_type("text/html"), "protocol", again, "Please sign in"),
        ("bytes", Reply::recorded(gzip.clone()), "protocol", again, "not JSON"),
        (
            "compressed",
            Reply::recorded(gzip).header("Content-Encoding", "gzip"),
            "refused",
            Retry::Never,
            "compressed answer (gzip)",
        ),
        ("line of 20 MB", Reply::empty().big_line(20 << 20), "protocol", again, "16777216 bytes"),
        ("endless line", Reply::empty().endless_line(), "protocol", again, "16777216 bytes"),
        (
            "redirect",
            Reply::redirect(302, "https://me:hunter2@elsewhere.example/a?key=hunter2"),
            "settings",
            Retry::Never,
            "redirects to https://elsewhere.example/a;",
        ),
    ];
    for (server, model) in both().await {
        for (name, reply, wanted, retry, words) in &faults {
            let before = server.chats().len();
            server.enqueue(reply.clone());
            server.enqueue("fine");
            let error = ask(&*model, "x").await.expect_err(name);
            let seen = (kind(&error), error.retry());
            assert_eq!(seen, (*wanted, *retry), "{name}: {error}");
            let text = error.to_string();
            assert!(text.contains(words) && !text.contains("hunter2"), "{name}: {text}");
            assert!(text.len() < 1_000, "{name}: {text}");
            assert_eq!(ask(&*model, "x").await.unwrap().text, "fine", "after {name}");
            let sent = server.chats();
            assert_eq!(sent.len(), before + 2, "{name}");
            assert_eq!(sent[before].body, sent[before + 1].body, "{name}");
            assert_eq!(sent[before].header("accept-encoding"), Some("identity"));
        }
    }
}

#[tokio::test]
async fn a_response_that_is_cut_before_the_end_of_its_json_is_not_an_answer() {
    let body = r#"{"message":{"role":"assistant","content":"fine"},"done":true}"#;
    let whole = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            20,
            &body[..20],
            body.len() - 20,
            &body[20..]
        ),
    ];
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    for response in whole {
        // Once the last JSON object has arrived, the answer is complete, even if the HTTP framing
        // is not. The end of the body also ends the last line.
        let proved = response.rfind('}').unwrap() + 1;
        for at in 0..response.len() {
            server.enqueue(Reply::wire(&response[..at]));
            match ask(&model, "x").await {
                Ok(answer) => assert!(at >= proved && answer.text == "fine", "cut at {at}: {answer:?}"),
                Err(error) => assert_eq!(error.retry(), Retry::After(None), "cut at {at}: {error}"),
            }
        }
        server.enqueue(Reply::wire(response));
        assert_eq!(ask(&model, "x").await.unwrap().text, "fine");
    }
}

#[tokio::test]
async fn buffered_split_and_mislabeled_answers_are_accepted() {
    for (server, model) in both().await {
        for reply in [
            Reply::text("fine").late_burst(),
            Reply::text("fine").split_bytes(1),
            Reply::text("fine").content_type("application/octet-stream"),
            Reply::text("fine").content_type("text/html").header("Content-Encoding", "identity"),
        ] {
            server.enqueue(reply.clone());
            assert_eq!(ask(&*model, "x").await.unwrap().text, "fine", "{reply:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_may_start_late_but_not_after_the_timeout() {
    for (server, model) in both().await {
        for reply in
            [Reply::text("fine").delay_until_released("late"), Reply::text("fine").after_headers_gate("late")]
        {
            server.enqueue(reply);
            let release = async {
                server.wait_for_gate("late").await;
                server.release("late");
            };
            let (answer, ()) = tokio::join!(ask(&*model, "x"), release);
            assert_eq!(answer.unwrap().text, "fine");
        }
    }
    // Nothing releases these gates, so each request waits for the full timeout; keep it short.
    let short = || Access { first_byte: Some(Duration::from_millis(20)), ..Access::default() };
    for reply in
        [Reply::text("x").delay_until_released("never"), Reply::text("x").after_headers_gate("never")]
    {
        let (native, compatible) = (Server::start(), Server::of(Personality::Generic));
        let models: [(&Server, Box<dyn Model>); 2] = [
            (
                &native,
                Box::new(
                    Ollama::open(OllamaOptions { access: short(), ..quiet(&native, CODER) }).await.unwrap(),
                ),
            ),
            (&compatible, Box::new(openai_with(&compatible, |options| options.access = short()).await)),
        ];
        for (server, model) in models {
            server.enqueue(reply.clone());
            let error = ask(&*model, "x").await.unwrap_err();
            assert_eq!(
                (kind(&error), error.retry()),
                ("slow", Retry::Never),
                "no retry, because a local server may still be working: {error}"
            );
            assert!(server.wait_for_close(0).await.client_closed());
        }
    }
}

#[tokio::test]
async fn an_endless_answer_ends_at_its_limit() {
    for (server, model) in both().await {
        for reply in [Reply::empty().endless_whitespace(), Reply::empty().endless_repetition("and so on ")] {
            let at = server.chats().len();
            server.enqueue(reply);
            let answer = ask(&*model, "x").await.unwrap();
            assert_eq!(answer.end.reason, EndReason::Length);
            assert!(server.wait_for_close(at).await.client_closed());
        }
    }
}

#[tokio::test]
async fn credentials_in_an_address_are_sent_and_never_shown() {
    for personality in [Personality::Ollama, Personality::Generic] {
        let server = Server::of(personality);
        let base = format!("http://me:hunter2-hunter2@{}/?key=sesame-sesame#x", server.address());
        let model: Box<dyn Model> = if personality == Personality::Ollama {
            let base = models::host::ollama_base(&base);
            let key = Some(Secret::new("sk-another-key"));
            Box::new(Ollama::open(OllamaOptions { key, ..quiet(&server, CODER) }.at(&base)).await.unwrap())
        } else {
            let base = models::host::openai_base(&base);
            match OpenAi::open(OpenAiOptions::new(&base)).await.unwrap() {
                Opened::Model(model) => model,
                Opened::Ollama { base, .. } => panic!("an Ollama at {base}"),
            }
        };
        server.enqueue("fine");
        assert_eq!(ask(&*model, "x").await.unwrap().text, "fine");
        for sent in server.requests() {
            // me:hunter2-hunter2
            assert_eq!(sent.header("authorization"), Some("Basic bWU6aHVudGVyMi1odW50ZXIy"), "{}", sent.path);
            assert_eq!(sent.query, "key=sesame-sesame", "{}", sent.path);
            assert_eq!(sent.headers.iter().filter(|(name, _)| name == "authorization").count(), 1);
        }
        // Errors that echo the refused credentials, and a redirect that repeats them.
        let echo = "there is no hunter2-hunter2, nor sesame-sesame";
        server.enqueue(Reply::error(401, echo));
        server.enqueue(Reply::error(500, echo));
        server.enqueue(Reply::redirect(301, "https://me:hunter2-hunter2@h/?key=sesame-sesame"));
        server.enqueue(Reply::text("x").cut());
        server.enqueue(Reply::status(404, "nothing here"));
        for _ in 0..5 {
            let error = format!("{0} {0:?}", ask(&*model, "x").await.unwrap_err());
            assert!(!error.contains("hunter2-") && !error.contains("sesame"), "{error}");
        }
        drop(server);
        let error = format!("{0} {0:?}", ask(&*model, "x").await.unwrap_err());
        assert!(!error.contains("hunter2-") && !error.contains("sesame"), "{error}");
    }
}

trait At {
    fn at(self, base: &str) -> Self;
}

impl At for OllamaOptions {
    fn at(mut self, base: &str) -> Self {
        self.base = base.to_owned();
        self
    }
}

#[tokio::test]
async fn a_key_that_a_server_echoes_is_masked() {
    let server = Server::of(Personality::Deepseek);
    let model = openai_with(&server, |options| {
        options.kind = Some(Kind::DeepSeek);
        options.key = Some(Secret::new("sk-0123456789"));
    })
    .await;
    server.enqueue(Reply::error(401, "Your api key sk-0123456789 is invalid"));
    let error = ask(&model, "x").await.unwrap_err().to_string();
    assert!(error.contains("Your api key … is invalid; check the API key"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    for (status, personality) in [(301, Personality::Ollama), (308, Personality::Deepseek)] {
        let (server, other) = (Server::of(personality), Server::of(personality));
        let model: Box<dyn Model> = if personality == Personality::Ollama {
            let key = Some(Secret::new("sk-0123456789"));
            Box::new(Ollama::open(OllamaOptions { key, ..quiet(&server, CODER) }).await.unwrap())
        } else {
            Box::new(
                openai_with(&server, |options| {
                    options.kind = Some(Kind::DeepSeek);
                    options.key = Some(Secret::new("sk-0123456789"));
                })
                .await,
            )
        };
        server.enqueue(Reply::redirect(status, format!("{}/elsewhere", other.url())));
        assert!(matches!(ask(&*model, "x").await, Err(Error::Settings(_))));
        assert_eq!(server.chats()[0].header("authorization"), Some("Bearer sk-0123456789"));
        assert_eq!((other.requests().len(), other.connections()), (0, 0));
    }
}

#[tokio::test]
async fn the_error_for_an_untrusted_certificate_says_what_to_do() {
    let server = TlsServer::start(Certificate::Good);
    for error in [
        Ollama::open(OllamaOptions::new(&server.url(), CODER)).await.err().unwrap(),
        OpenAi::open(OpenAiOptions::new(&server.url())).await.err().unwrap(),
    ] {
        assert!(matches!(&error, Error::Refused(why) if why.contains("SSL_CERT_FILE")), "{error}");
    }
    assert_eq!(server.requests(), 0, "nothing should be sent");
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_taken_from_the_settings() {
    let server = TlsServer::start(Certificate::Mutual);
    let (certificate, key) = server.client();
    let both = format!("{certificate}\n{key}");
    let open = async |authorities: Option<&str>, certificate: Option<&str>| {
        let access = Access {
            authorities: authorities.map(|pem| pem.as_bytes().to_vec()),
            certificate: certificate.map(Secret::new),
            ..Access::default()
        };
        let options = OpenAiOptions { access, ..OpenAiOptions::new(&server.url()) };
        OpenAi::open(options).await.err().unwrap()
    };
    for (authorities, certificate, words) in [
        (Some(server.issuer()), None, "client_cert_file"),
        (None, Some(both.as_str()), "ca_file"),
        (Some("nonsense"), None, "no certificate in PEM form"),
        (Some(server.issuer()), Some("nonsense"), "private key"),
    ] {
        let error = open(authorities, certificate).await;
        assert!(
            matches!(&error, Error::Settings(why) | Error::Refused(why) if why.contains(words)),
            "{error}"
        );
    }
    assert_eq!(server.requests(), 0, "nothing should be sent");
    let error = open(Some(server.issuer()), Some(&both)).await;
    assert!(matches!(&error, Error::Settings(why) if why.contains("answered 401")), "{error}");
    assert!(server.requests() > 0);
}

#[tokio::test]
async fn a_server_without_tls_is_detected() {
    let plain = Server::of(Personality::Generic);
    let base = format!("https://{}/v1", plain.address());
    let error = OpenAi::open(OpenAiOptions::new(&base)).await.err().unwrap();
    assert!(matches!(&error, Error::Settings(why) if why.contains("http://")), "{error}");
}

#[tokio::test]
async fn a_model_replaced_or_unloaded_between_turns_is_reported_once() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    let loaded = |digest: &str, window: u64| {
        let model =
            json!({"name": CODER, "size": 100, "size_vram": 100, "digest": digest, "context_length": window});
        Reply::status(200, json!({"models": [model]}))
    };
    let mut seen = Vec::new();
    for reply in [
        loaded("aaaaaaaaaaaaaaaa", 16_384),
        loaded("aaaaaaaaaaaaaaaa", 16_384),
        loaded("bbbbbbbbbbbbbbbb", 16_384),
        loaded("bbbbbbbbbbbbbbbb", 8_192),
        loaded("bbbbbbbbbbbbbbbb", 8_192),
        Reply::status(200, json!({"models": []})),
    ] {
        server.enqueue("ok");
        ask(&model, "x").await.unwrap();
        server.enqueue_for("/api/ps", reply);
        seen.push(model.verify().await.join("; "));
    }
    let words = [
        "",
        "",
        "(aaaaaaaaaaaa is now bbbbbbbbbbbb)",
        "8192 tokens, not the 16384",
        "",
        "not among the loaded",
    ];
    for (seen, words) in seen.iter().zip(words) {
        assert!(seen.contains(words) && seen.is_empty() == words.is_empty(), "{seen:?}, {words:?}");
    }
    assert_eq!(model.identity().window, Some(8_192));
    server.enqueue(Reply::text("half").done_reason("unload"));
    let error = ask(&model, "x").await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { message, .. } if message.contains("unload")), "{error}");
}

#[tokio::test]
async fn the_error_for_a_model_removed_between_turns_lists_the_others() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    let client = models::ollama::Server::new(&server.url(), None, &Access::default()).unwrap();
    client.delete(CODER).await.unwrap();
    let error = ask(&model, "x").await.unwrap_err();
    let Error::MissingModel { message, available } = &error else { panic!("{error:?}") };
    assert!(message.contains(CODER) && available.len() == 3 && error.retry() == Retry::Never, "{message}");
}

#[tokio::test]
async fn a_different_model_behind_a_compatible_server_is_noticed_by_name_or_file() {
    let server = Server::of(Personality::Vllm);
    let model = openai(&server).await;
    let answer = |name: &str| {
        let chunk = json!({"model": name, "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]});
        Reply::recorded(format!("data: {chunk}\n\ndata: [DONE]\n\n"))
    };
    for (name, words) in [("a", ""), ("a", ""), ("b", "now answers with b, not a"), ("b", "")] {
        server.enqueue(answer(name));
        ask(&model, "x").await.unwrap();
        let seen = model.verify().await.join("; ");
        assert!(seen.contains(words) && seen.is_empty() == words.is_empty(), "{seen:?}, {words:?}");
    }

    let server = Server::of(Personality::LlamaServer);
    let model = openai(&server).await;
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(model.verify().await, [] as [String; 0]);
    let props = json!({"default_generation_settings": {"n_ctx": 4096}, "model_path": "other.gguf"});
    server.enqueue_for("/props", Reply::status(200, props));
    let seen = model.verify().await.join("; ");
    assert!(seen.contains("now answers with other.gguf") && seen.contains("window of 4096"), "{seen}");
    assert_eq!(model.identity().window, Some(4096));
    drop(server);
    assert_eq!(model.verify().await, [] as [String; 0], "an unanswered probe should cause no warning");
}

#[tokio::test]
async fn opening_times_out_if_the_server_answers_no_probe() {
    let server = Server::of(Personality::Generic);
    for path in ["/v1/models", "/api/version", "/props", "/api/v1/models", "/api/v0/models", "/version"] {
        server.enqueue_for(path, Reply::text("never").delay_until_released("never"));
    }
    tokio::time::pause();
    let error = OpenAi::open(OpenAiOptions::new(&server.openai_url())).await.err().unwrap();
    assert!(matches!(&error, Error::Timeout(why) if why.contains("did not answer within 1.5 s")), "{error}");
}
