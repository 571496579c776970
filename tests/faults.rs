//! Model server faults as users see them: the exit code, output, journal and requests. The table in
//! `docs/servers.md` is based on these tests and on `crates/models/tests/faults.rs`.

use crate::support::{World, call, snapshot};
use fake_model::{Certificate, Config, Personality, Reply, Server, TlsServer};
use serde_json::{Value, json};

const KEY: &str = "sk-0123456789abcdef";
const FIXED: &str = "add() {\n    echo $(($1 + $2))\n}\n";

fn fixing() -> String {
    call("apply_patch", json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}))
}

fn finish() -> String {
    call("finish", json!({}))
}

/// Returns the arguments for a run that uses this server.
fn args(server: &Server, personality: Personality) -> Vec<String> {
    let mut args = ["run", "--approach", "tools", "Make the tests pass."].map(str::to_owned).to_vec();
    match personality {
        Personality::Ollama => args.extend(["--model", "deepseek-coder:6.7b"].map(str::to_owned)),
        Personality::Deepseek => {
            args.extend(["--model".to_owned(), "deepseek".into(), "--base-url".into(), server.openai_url()]);
        }
        _ => args.extend(["--base-url".to_owned(), server.openai_url()]),
    }
    args
}

/// Runs the agent with this server, and returns its exit code, stdout and stderr.
fn run(world: &World, server: &Server, personality: Personality) -> String {
    let args = args(server, personality);
    let mut command = world.agent(&args.iter().map(String::as_str).collect::<Vec<_>>());
    if personality == Personality::Ollama {
        command.env("OLLAMA_HOST", server.url());
    }
    if personality == Personality::Deepseek {
        command.env("DEEPSEEK_API_KEY", KEY);
    }
    let output = command.output().unwrap();
    let seen = world.tell(&output);
    let journal = world.journal();
    assert_eq!(output.status.code(), Some(code_of(journal.last().unwrap())), "{seen}");
    seen
}

fn code_of(finished: &Value) -> i32 {
    match finished["ending"]["kind"].as_str().unwrap() {
        "verified" => 0,
        "refused" => 2,
        "unavailable" => 5,
        other => panic!("{other}: {finished}"),
    }
}

fn events(world: &World, name: &str) -> Vec<Value> {
    world.journal().into_iter().filter(|record| record["event"] == name).collect()
}

#[test]
fn transient_server_errors_are_retried_with_the_same_request() {
    for personality in [Personality::Ollama, Personality::LlamaServer] {
        let (world, server) = (World::with_a_bug(), Server::of(personality));
        let half = fixing()[..60].to_owned();
        server.enqueue(Reply::error(503, "server busy, please try again"));
        server.enqueue(Reply::text(&half).then_error_line("model runner has unexpectedly stopped"));
        server.enqueue(Reply::text(fixing()));
        server.enqueue(Reply::text(&half).reset());
        server.enqueue(Reply::text(finish()));
        let seen = run(&world, &server, personality);
        assert!(seen.starts_with("exit 0\n"), "{seen}");
        for words in ["server busy", "unexpectedly stopped", "retrying in"] {
            assert!(seen.contains(words), "{words}: {seen}");
        }
        assert_eq!(world.read("add.sh"), FIXED);
        assert_eq!(events(&world, "retry").len(), 3, "{seen}");
        let started: Vec<Value> =
            events(&world, "tool_started").into_iter().map(|event| event["tool"].clone()).collect();
        assert_eq!(started, ["apply_patch", "finish"], "each call should appear once: {seen}");
        let sent = server.chats();
        assert_eq!(sent.len(), 5);
        for (one, other) in [(0, 1), (1, 2), (3, 4)] {
            assert_eq!(sent[one].body, sent[other].body, "the requests should be the same, byte for byte");
        }
    }
}

#[test]
fn a_long_retry_after_ends_the_run_immediately() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(Reply::error(429, "quota exceeded").header("Retry-After", "86400"));
    let seen = run(&world, &server, Personality::Ollama);
    let end = seen.split("model unavailable: ").nth(1).unwrap_or_default();
    snapshot!(end, @r"
    http://[SERVER]/api/chat answered 429: quota exceeded (the server asked for a delay of [TIME])
    show: agent sessions show [SESSION]
    ");
    assert!(seen.starts_with("exit 5\n"), "{seen}");
}

#[test]
fn permanent_faults_end_the_run_immediately_with_advice() {
    let gzip = Reply::recorded("x").header("Content-Encoding", "gzip");
    for (reply, code, words) in [
        (Reply::error(401, format!("key {KEY} is wrong")), 2, "key … is wrong; check the API key"),
        (Reply::error(402, "Insufficient Balance"), 5, "the account has no balance left"),
        (Reply::status(404, "404 page not found"), 2, "check the address and its path"),
        (
            Reply::redirect(308, "https://elsewhere.example/v1?key=x"),
            2,
            "redirects to https://elsewhere.example/v1;",
        ),
        (gzip, 5, "compressed answer (gzip)"),
        (Reply::error(422, "no"), 5, "answered 422"),
    ] {
        let (world, server) = (World::with_a_bug(), Server::of(Personality::Deepseek));
        server.enqueue(Reply::text(fixing()));
        server.fallback(reply);
        let seen = run(&world, &server, Personality::Deepseek);
        assert!(seen.starts_with(&format!("exit {code}\n")) && seen.contains(words), "{words}: {seen}");
        assert_eq!(events(&world, "retry").len(), 0, "{seen}");
        assert_eq!(world.read("add.sh"), FIXED, "the changes should be kept");
        let journal = json!(world.journal()).to_string();
        assert!(!seen.contains(KEY) && !journal.contains(KEY), "{seen}");
        assert!(
            server.chats().iter().all(|sent| sent.header("authorization") == Some(&format!("Bearer {KEY}")))
        );
    }
}

#[test]
fn a_key_is_not_sent_to_another_host() {
    let (world, server, other) =
        (World::with_a_bug(), Server::of(Personality::Deepseek), Server::of(Personality::Deepseek));
    server.fallback(Reply::redirect(307, format!("{}/chat/completions", other.openai_url())));
    let seen = run(&world, &server, Personality::Deepseek);
    let end = seen.split("refused: ").nth(1).unwrap_or_default();
    snapshot!(end, @r"
    http://[SERVER]/v1/chat/completions redirects to http://[SERVER]/v1/chat/completions; redirects are not followed, to protect the key: set the final address
    show: agent sessions show [SESSION]
    ");
    assert_eq!(other.connections(), 0);
}

#[test]
fn credentials_in_a_url_are_sent_and_never_shown() {
    for personality in [Personality::Ollama, Personality::Vllm] {
        let (world, server) = (World::with_a_bug(), Server::of(personality));
        server.enqueue(Reply::text(fixing()));
        server.enqueue(Reply::text(finish()));
        let address = format!("http://me:hunter2-hunter2@{}/?key=sesame-sesame", server.address());
        let set = |args: &[&str]| {
            let mut all = args.to_vec();
            if personality == Personality::Ollama {
                all.extend(["--model", "deepseek-coder:6.7b"]);
            }
            let mut command = world.agent(&all);
            let variable = if personality == Personality::Ollama { "OLLAMA_HOST" } else { "AGENT_BASE_URL" };
            command.env(variable, &address);
            world.tell(&command.output().unwrap())
        };
        let ran = set(&["run", "--approach", "tools", "Make the tests pass."]);
        assert!(ran.starts_with("exit 0\n"), "{ran}");
        let looked = set(&["doctor"]);
        let configured = set(&["config", "show"]);
        assert!(configured.contains(&format!("http://{}/ ", server.address())), "{configured}");
        server.fallback(Reply::error(400, "no"));
        drop(server);
        let down = set(&["doctor"]);
        let journal = json!(world.journal()).to_string();
        assert!(looked.contains("127.0.0.1") && down.contains("no connection to http://127.0.0.1"), "{down}");
        for text in [ran, looked, configured, down, journal] {
            assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
        }
    }
}

#[test]
fn each_rejected_certificate_comes_with_advice() {
    for (certificate, trusted, code, words) in [
        (Certificate::Good, false, 5, "set SSL_CERT_FILE or ca_file to the issuer's certificate"),
        (Certificate::Good, true, 2, "answered 401"),
        (Certificate::Expired, true, 5, "it has expired"),
        (Certificate::OtherHost, true, 5, "it is for another host"),
    ] {
        let (world, server) = (World::with_a_bug(), TlsServer::start(certificate));
        let mut command = world.agent(&["run", "--base-url", &server.url(), "Make the tests pass."]);
        if trusted {
            let file = world.home().join("issuer.pem");
            std::fs::write(&file, server.issuer()).unwrap();
            command.env("SSL_CERT_FILE", file);
        }
        let output = command.output().unwrap();
        let seen = world.tell(&output);
        assert_eq!(output.status.code(), Some(code), "{certificate:?}: {seen}");
        assert!(seen.contains(words), "{certificate:?}: {seen}");
        assert_eq!(server.requests() > 0, code == 2, "only a trusted server should get a request: {seen}");
    }
}

#[test]
fn a_model_that_is_swapped_during_a_run_causes_a_warning() {
    let (world, server) = (World::with_a_bug(), Server::start());
    for digest in ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"] {
        let model = json!({"name": "deepseek-coder:6.7b", "digest": digest, "context_length": 16384});
        server.enqueue_for("/api/ps", Reply::status(200, json!({"models": [model]})));
    }
    server.enqueue(Reply::text(fixing()));
    server.enqueue(Reply::text(finish()));
    let seen = run(&world, &server, Personality::Ollama);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let warnings = events(&world, "warning");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let message = warnings[0]["message"].as_str().unwrap();
    assert!(message.contains("was replaced") && seen.contains(message), "{seen}");
}

#[test]
fn a_smaller_context_window_is_reported_and_the_prompt_is_compacted() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let model = json!({"name": "deepseek-coder:6.7b", "context_length": 8192});
    server.enqueue_for("/api/ps", Reply::status(200, json!({"models": [model]})));
    let read = call("read_file", json!({"path": "add.sh"}));
    for answer in [&read, &read, &call("read_file", json!({"path": "check.sh"})), &read] {
        server.enqueue(Reply::text(answer));
    }
    let too_long = json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "m",
        "n_prompt_tokens": 9000, "n_ctx": 8192}});
    server.enqueue(Reply::status(400, json!({"error": too_long.to_string()})));
    server.enqueue(Reply::text(fixing()));
    server.enqueue(Reply::text(finish()));
    let seen = run(&world, &server, Personality::Ollama);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("a window of 8192 tokens, not the 16384 requested"), "{seen}");
    let sent = server.chats();
    assert!(sent[5].body.len() < sent[4].body.len(), "the conversation should be compacted: {seen}");
    assert_eq!(events(&world, "retry").len(), 0);
}

#[test]
fn a_smaller_context_window_is_respected_before_the_server_rejects_a_request() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let lines: String = (1..=40).map(|n| format!("line {n} of a text that is read\n")).collect();
    let model = json!({"name": "deepseek-coder:6.7b", "context_length": 2560});
    for name in ["a", "b", "c", "d"] {
        world.write(&format!("{name}.txt"), &lines);
        server.enqueue(Reply::text(call("read_file", json!({"path": format!("{name}.txt")}))));
    }
    server.enqueue(Reply::text(fixing()));
    server.enqueue(Reply::text(finish()));
    for _ in 0..8 {
        server.enqueue_for("/api/ps", Reply::status(200, json!({"models": [model]})));
    }
    let seen = run(&world, &server, Personality::Ollama);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let windows: Vec<_> = events(&world, "window").iter().map(|e| e["tokens"].clone()).collect();
    assert_eq!(windows, [json!(2560)]);
    assert!(!events(&world, "rewound").is_empty(), "{seen}");
    let estimated = events(&world, "request").into_iter().map(|e| e["estimated_tokens"].as_u64().unwrap());
    assert!(estimated.clone().all(|tokens| tokens < 2560), "{:?}", estimated.collect::<Vec<_>>());
}

#[test]
fn the_run_waits_for_a_server_that_is_loading_its_model() {
    let config = Config { personality: Personality::LlamaServer, loading: true, ..Config::default() };
    let (world, server) = (World::with_a_bug(), Server::with_config(config));
    server.enqueue(Reply::text(fixing()));
    server.enqueue(Reply::text(finish()));
    let all = args(&server, Personality::LlamaServer);
    let child = world
        .agent(&all.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    server.block_for_requests(3);
    server.release("loaded");
    let seen = world.tell(&child.wait_with_output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
}

#[test]
fn a_proxy_is_never_used_for_localhost() {
    // The host name does not resolve, so any answer must come from the proxy.
    let (world, proxy) = (World::with_a_bug(), Server::of(Personality::Vllm));
    proxy.enqueue(Reply::text(fixing()));
    proxy.enqueue(Reply::text(finish()));
    let output = world
        .agent(&[
            "run",
            "--base-url",
            "http://model.invalid/v1",
            "--approach",
            "tools",
            "Make the tests pass.",
        ])
        .env("HTTP_PROXY", proxy.url())
        .output()
        .unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(proxy.requests().iter().all(|sent| sent.header("host") == Some("model.invalid")));

    let (world, server, proxy) = (World::with_a_bug(), Server::start(), Server::of(Personality::Generic));
    server.enqueue(Reply::text(fixing()));
    server.enqueue(Reply::text(finish()));
    let all = args(&server, Personality::Ollama);
    let output = world
        .agent(&all.iter().map(String::as_str).collect::<Vec<_>>())
        .env("OLLAMA_HOST", server.url())
        .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy.url())))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(proxy.connections(), 0);
}
