//! Tests the requests, answers and errors of the Ollama client against a scripted server.

mod common;

use common::{ask, message, ollama, quiet, read_until, request};
use fake_model::{Config, ModelSpec, Reply, Server};
use futures_util::StreamExt;
use models::ollama::{Ollama, OllamaOptions};
use models::profile::{File, Profiles};
use models::{Delta, EndReason, Error, Model, Role, Think, collect};
use serde_json::{Value, json};

const CODER: &str = "deepseek-coder:6.7b";
const THINKER: &str = "deepseek-r1:8b";

#[tokio::test]
async fn opening_takes_one_round_trip_and_the_window_is_limited_to_the_trained_one() {
    let server = Server::start();
    for (model, asked, window) in [
        (CODER, None, 16_384),           // trained
        (THINKER, None, 32_768),         // the default
        (THINKER, Some(65_536), 65_536), // configured
        (CODER, Some(1_000_000), 16_384),
        (CODER, Some(1), 256),
    ] {
        let options = OllamaOptions { num_ctx: asked, ..quiet(&server, model) };
        let before = server.requests().len();
        let identity = Ollama::open(options).await.unwrap().identity();
        assert_eq!(identity.window, Some(window), "{model} {asked:?}");
        assert_eq!(
            server.requests().len() - before,
            2,
            "opening should request the version and the model at the same time"
        );
    }
    let identity = ollama(&server, CODER).await.identity();
    assert_eq!(identity.server_version.as_deref(), Some("0.32.15"));
    assert_eq!(identity.family.as_deref(), Some("llama"));
    assert!(identity.parameters_b > Some(6.0));
    assert!(identity.local && !identity.thinking);
}

#[tokio::test]
async fn the_session_options_are_the_same_in_every_request_and_in_the_preload() {
    let server = Server::start();
    let model = Ollama::open(OllamaOptions::new(&server.url(), THINKER)).await.unwrap();
    server.wait_for_requests(3).await;
    server.enqueue("one");
    server.enqueue("two");
    ask(&model, "a").await.unwrap();
    ask(&model, "b").await.unwrap();
    assert_eq!(server.loads().len(), 1, "no request should make the server reload the model");
    for sent in server.requests().iter().filter(|sent| sent.path == "/api/chat") {
        let body = &sent.json;
        assert_eq!(
            (&body["truncate"], &body["shift"], &body["keep_alive"], &body["think"]),
            (&json!(false), &json!(false), &json!("30m"), &json!(true))
        );
        assert_eq!(
            (&body["options"]["num_ctx"], &body["options"]["repeat_penalty"]),
            (&json!(32_768), &json!(1.0))
        );
    }
    let chats = server.chats();
    assert_eq!(chats[0].json["options"]["num_predict"], 500);
    assert_eq!(chats[0].json["options"]["seed"], 7);
}

#[tokio::test]
async fn a_request_repeats_the_bytes_of_the_previous_one() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.fallback("ok");
    let mut conversation = request("first");
    collect(model.stream(&conversation).await.unwrap()).await.unwrap();
    conversation.messages.push(message(Role::Assistant, "ok"));
    conversation.messages.push(message(Role::User, "second"));
    conversation.temperature = Some(0.9);
    collect(model.stream(&conversation).await.unwrap()).await.unwrap();
    let chats = server.chats();
    let first = String::from_utf8(chats[0].body.clone()).unwrap();
    let second = String::from_utf8(chats[1].body.clone()).unwrap();
    let shared = first.split(r#"],"options""#).next().unwrap();
    assert!(shared.contains("first") && second.starts_with(shared), "{first}\n{second}");
    assert_eq!(server.connections(), 2, "the session should use the connections that `open` made");
}

#[tokio::test]
async fn thinking_then_text_then_native_calls_arrive_with_the_counts() {
    let server = Server::start();
    let model = ollama(&server, "deepseek-v3.1:671b").await;
    server.enqueue(
        Reply::empty().thinking("hm").more("é漢").tool_call("read_file", json!({"path": "a"})).split_bytes(1),
    );
    let answer = ask(&model, "x").await.unwrap();
    assert_eq!((answer.thinking.as_str(), answer.text.as_str()), ("hm", "é漢"));
    assert_eq!(answer.calls, [(String::from("read_file"), json!({"path": "a"}))]);
    assert_eq!(answer.end.reason, EndReason::Stop);
    let usage = answer.end.usage;
    assert!(
        usage.prompt_tokens > Some(0) && usage.generated_tokens > Some(0) && usage.prompt_ms.is_some(),
        "{usage:?}"
    );
    assert_eq!(server.chats()[0].json["think"], false, "thinking is off, because it breaks this model");
}

#[tokio::test]
async fn a_proxy_may_mislabel_or_buffer_an_answer() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue(Reply::text("one").content_type("text/event-stream"));
    server.enqueue(Reply::text("two").late_burst());
    let whole =
        json!({"message": {"role": "assistant", "content": "three"}, "done": true, "done_reason": "stop"});
    server.enqueue(Reply::status(200, json!(format!("{whole:#}"))).content_type("text/html"));
    for wanted in ["one", "two", "three"] {
        assert_eq!(ask(&model, "x").await.unwrap().text, wanted);
    }
}

#[tokio::test]
async fn a_line_of_ten_mebibytes_is_accepted_and_an_endless_line_is_refused() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue(Reply::empty().big_line(10 << 20));
    assert!(ask(&model, "x").await.unwrap().text.len() > 10_000_000);
    server.enqueue(Reply::empty().endless_line());
    let error = ask(&model, "x").await.unwrap_err();
    assert_eq!(error, Error::Protocol(String::from("the server sent a line of more than 16777216 bytes")));
}

#[tokio::test]
async fn only_a_line_with_done_true_ends_a_turn() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    for reply in
        [Reply::text("half").eof_without_done(), Reply::text("half").cut(), Reply::text("half").reset()]
    {
        server.enqueue(reply);
        let error = ask(&model, "x").await.unwrap_err();
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
    }
    server.enqueue(Reply::text("half").done_reason("unload"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Unavailable { .. })));
    server.enqueue(Reply::text("long").done_reason("length"));
    assert_eq!(ask(&model, "x").await.unwrap().end.reason, EndReason::Length);
}

#[tokio::test]
async fn an_error_line_is_an_error_with_the_servers_message() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue(Reply::text("half").then_error_line("model runner has unexpectedly stopped"));
    let mut deltas = model.stream(&request("x")).await.unwrap();
    assert_eq!(read_until(&mut deltas, "half").await, "half");
    let error = deltas.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("unexpectedly stopped"), "{error}");
    assert!(matches!(error, Error::Unavailable { .. }));
    assert!(deltas.next().await.is_none());
}

#[tokio::test]
async fn an_error_that_is_json_inside_a_string_is_unwrapped() {
    let server = Server::start();
    let model = Ollama::open(OllamaOptions { num_ctx: Some(256), ..quiet(&server, CODER) }).await.unwrap();
    match ask(&model, &"word ".repeat(2000)).await {
        Err(Error::Overflow { message, prompt_tokens: Some(tokens), window: Some(256) }) => {
            assert!(tokens > 256 && !message.contains('{'), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // The same error, but in the middle of a stream.
    server.enqueue(Reply::text("a").then_error_line(
        r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error","n_ctx":256}}"#,
    ));
    assert!(matches!(ask(&model, "x").await, Err(Error::Overflow { window: Some(256), .. })));
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection_at_once() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue(Reply::text("{\"tool\": \"x\"}").hold().more("never"));
    let mut deltas = model.stream(&request("x")).await.unwrap();
    read_until(&mut deltas, "}").await;
    drop(deltas);
    assert!(server.wait_for_close(0).await.client_closed());
    server.enqueue("next");
    assert_eq!(ask(&model, "y").await.unwrap().text, "next");
}

#[tokio::test]
async fn a_model_without_thinking_is_never_asked_to_think() {
    let server = Server::start();
    let model = Ollama::open(OllamaOptions { think: Think::High, ..quiet(&server, CODER) }).await.unwrap();
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert!(server.chats()[0].json.get("think").is_none());
    assert!(!model.identity().thinking);

    let model = Ollama::open(OllamaOptions { think: Think::Off, ..quiet(&server, THINKER) }).await.unwrap();
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(server.chats()[1].json["think"], false);
}

#[tokio::test]
async fn a_refused_field_is_dropped_for_the_session() {
    let server = Server::start();
    let model = ollama(&server, THINKER).await;
    server.enqueue(Reply::error(400, "\"deepseek-r1:8b\" does not support thinking"));
    server.enqueue("ok");
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    ask(&model, "y").await.unwrap();
    let has =
        |field: &str| server.chats().iter().map(|sent| sent.json.get(field).is_some()).collect::<Vec<_>>();
    assert_eq!(has("think"), [true, false, false]);
    assert!(!model.identity().thinking);
}

#[tokio::test]
async fn a_window_that_does_not_fit_memory_is_halved_once() {
    let server = Server::start();
    let model = ollama(&server, THINKER).await;
    server.enqueue(Reply::error(
        500,
        "model requires more system memory (12.0 GiB) than is available (7.1 GiB)",
    ));
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(server.chats()[1].json["options"]["num_ctx"], 16_384);
    assert_eq!(model.identity().window, Some(16_384));
    server.enqueue(Reply::error(500, "out of memory"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Unavailable { .. })), "no second halving");
}

#[tokio::test]
async fn refusals_are_classified() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    server.enqueue(Reply::error(503, "server busy").header("retry-after", "7"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Busy { retry_after: Some(7), .. })));
    server.enqueue(Reply::error(429, "slow down").header("retry-after", "1.5"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Busy { retry_after: Some(2), .. })));
    server.enqueue(Reply::redirect(307, "http://elsewhere.example/api/chat"));
    let error = ask(&model, "x").await.unwrap_err();
    assert!(matches!(&error, Error::Settings(why) if why.contains("http://elsewhere.example")), "{error}");
    server.enqueue(Reply::status(403, json!("")));
    assert!(matches!(ask(&model, "x").await, Err(Error::Settings(why)) if why.contains("OLLAMA_HOST")));
    server.enqueue(Reply::status(200, json!("<html>Sign in</html>")).content_type("application/json"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Protocol(_))));
}

#[tokio::test]
async fn the_error_for_a_missing_model_lists_the_available_ones() {
    let server = Server::start();
    let error = Ollama::open(quiet(&server, "nothing:7b")).await.err().unwrap();
    let Error::MissingModel { message, available } = error else { panic!("{error:?}") };
    assert!(message.contains("nothing:7b") && message.contains(CODER), "{message}");
    assert_eq!(available.len(), 4);
}

#[tokio::test]
async fn a_refused_connection_is_reported_in_plain_words() {
    let server = Server::start();
    let base = server.url();
    drop(server);
    let error = Ollama::open(OllamaOptions::new(&base, CODER)).await.err().unwrap().to_string();
    assert!(error.contains(&base) && error.contains("refused") && error.contains("ollama serve"), "{error}");
}

#[tokio::test]
async fn a_server_other_than_ollama_is_detected() {
    let server = Server::of(fake_model::Personality::Generic);
    let error = Ollama::open(quiet(&server, "x")).await.err().unwrap();
    assert!(matches!(&error, Error::Settings(why) if why.contains("--base-url")), "{error:?}");
}

#[tokio::test]
async fn a_model_without_a_chat_template_gets_a_plain_transcript() {
    let server = Server::start();
    server.enqueue_for(
        "/api/show",
        Reply::status(
            200,
            json!({"template": "{{ .Prompt }}", "capabilities": ["completion"], "model_info": {}}),
        ),
    );
    let model = ollama(&server, CODER).await;
    server.enqueue("ok");
    assert_eq!(ask(&model, "Say ok.").await.unwrap().text, "ok");
    let sent = &server.chats()[0];
    assert_eq!(sent.path, "/api/generate");
    assert_eq!(sent.json["raw"], true);
    assert_eq!(sent.json["prompt"], "Be brief.\n### Instruction:\nSay ok.\n### Response:\n");
    assert_eq!(sent.json["options"]["stop"][0], "### Instruction:");
}

#[tokio::test]
async fn the_window_in_force_is_checked_after_the_first_answer() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    assert!(model.verify().await[0].contains("not among the loaded models"));
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(model.verify().await, [] as [String; 0]);
    server.enqueue_for(
        "/api/ps",
        Reply::status(
            200,
            json!({"models": [
        {"name": CODER, "size": 100, "size_vram": 60, "context_length": 4096}]}),
        ),
    );
    let warnings = model.verify().await;
    assert!(warnings[0].contains("4096") && warnings[0].contains("16384"), "{warnings:?}");
    assert!(warnings[1].contains("40 %"), "{warnings:?}");
    assert_eq!(model.identity().window, Some(4096));
}

#[tokio::test]
async fn old_servers_are_supported() {
    for (version, shift, counted) in
        [("0.30.0", None, false), ("0.30.7", None, true), ("0.9.0", Some(false), true)]
    {
        let server = Server::with_config(Config { version: Some(version.to_owned()), ..Config::default() });
        let model = ollama(&server, CODER).await;
        server.enqueue("ok");
        let answer = ask(&model, "x").await.unwrap();
        assert_eq!(server.chats()[0].json.get("shift"), shift.map(Value::Bool).as_ref(), "{version}");
        assert_eq!(answer.end.usage.prompt_tokens.is_some(), counted, "{version}");
    }
}

#[tokio::test]
async fn a_pull_reports_progress_and_fails_without_its_last_line() {
    let server =
        Server::with_config(Config { pullable: vec![ModelSpec::new("smollm2:135m")], ..Config::default() });
    let stock = models::ollama::Server::new(&server.url(), None, &models::Access::default()).unwrap();
    let seen: Vec<_> = stock.pull("smollm2:135m").await.unwrap().map(Result::unwrap).collect().await;
    let last = seen.last().unwrap();
    assert!(last.done && last.total() > 0 && last.completed() == last.total(), "{last:?}");
    assert_eq!(seen.iter().filter(|progress| progress.done).count(), 1);
    assert!(stock.tags().await.unwrap().iter().any(|model| model.name == "smollm2:135m"));
    stock.delete("smollm2:135m").await.unwrap();
    assert!(matches!(stock.delete("smollm2:135m").await, Err(Error::MissingModel { .. })));

    let error = stock
        .pull("nothing")
        .await
        .unwrap()
        .filter_map(|item| async { item.err() })
        .collect::<Vec<_>>()
        .await;
    assert!(matches!(&error[..], [Error::MissingModel { .. }]), "{error:?}");
    server.enqueue_for(
        "/api/pull",
        Reply::empty().json(json!({"status": "pulling manifest"})).eof_without_done(),
    );
    let cut: Vec<_> = stock.pull("x").await.unwrap().collect().await;
    assert!(
        matches!(cut.last(), Some(Err(Error::Transport(why))) if why.contains("run it again")),
        "{cut:?}"
    );
}

#[tokio::test]
async fn cloud_models_are_not_local_and_no_window_is_requested_for_them() {
    let server = Server::start();
    server.enqueue_for(
        "/api/show",
        Reply::status(
            200,
            json!({"remote_host": "https://ollama.com:443", "capabilities": ["completion"],
        "template": "x", "model_info": {"general.architecture": "d", "d.context_length": 1_048_576}}),
        ),
    );
    server.fallback("ok");
    let model = ollama(&server, CODER).await;
    let identity = model.identity();
    assert_eq!((identity.local, identity.window), (false, Some(1_048_576)));
    let deltas = model.stream(&request("x")).await.unwrap();
    let ended = deltas.any(|delta| async move { matches!(delta, Ok(Delta::End(_))) }).await;
    assert!(ended && server.chats()[0].json["options"].get("num_ctx").is_none());
    // A cloud model is not listed before its first use, but it can be opened.
    assert!(!ollama(&server, "big:671b-cloud").await.identity().local);
}

#[tokio::test]
async fn the_first_request_does_not_wait_for_the_load_in_the_background() {
    let server = Server::start();
    server.enqueue_for("/api/chat", Reply::empty().delay_until_released("loaded"));
    let model = Ollama::open(OllamaOptions::new(&server.url(), CODER)).await.unwrap();
    let preload = server.wait_for_requests(3).await.remove(2);
    assert_eq!(
        (preload.path.as_str(), &preload.json["messages"], &preload.json["options"]["num_ctx"]),
        ("/api/chat", &json!([]), &json!(16_384))
    );
    server.enqueue("ok");
    assert_eq!(ask(&model, "x").await.unwrap().text, "ok");
    // Dropping the model cancels the load.
    drop(model);
    assert!(server.wait_for_end(2).await.client_closed());
}

#[tokio::test]
async fn a_cloud_model_gets_no_runner_options() {
    let show = || {
        let info = json!({"general.architecture": "gptoss", "gptoss.context_length": 131_072});
        let capabilities = json!(["completion", "tools", "thinking"]);
        Reply::status(
            200,
            json!({"remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b", "model_info": info,
                "capabilities": capabilities, "template": "{{ .System }}", "details": {}}),
        )
    };
    for name in ["gpt-oss:120b-cloud", "glm-4.6:cloud", "team/kimi-cloud"] {
        let models = Some(vec![fake_model::ModelSpec::new(name).thinking()]);
        let server = Server::with_config(fake_model::Config { models, ..fake_model::Config::default() });
        server.enqueue_for("/api/show", show());
        let options = OllamaOptions { num_ctx: Some(4096), ..OllamaOptions::new(&server.url(), name) };
        let model = Ollama::open(options).await.unwrap();
        let identity = model.identity();
        assert_eq!((identity.local, identity.window), (false, Some(131_072)), "{name}");
        assert!(model.unsupported()[0].contains("full window"), "{:?}", model.unsupported());
        server.enqueue("ok");
        ask(&model, "x").await.unwrap();
        assert_eq!(model.verify().await, [] as [String; 0]);
        let sent = &server.chats()[0].json;
        assert!(sent.get("keep_alive").is_none() && sent.get("truncate").is_none(), "{sent}");
        assert!(sent["options"].get("num_ctx").is_none(), "{sent}");
        let paths: Vec<String> = server.requests().iter().map(|sent| sent.path.clone()).collect();
        assert!(!paths.contains(&String::from("/api/ps")), "{paths:?}");
        server.enqueue_for(
            "/api/me",
            Reply::status(401, json!({"error": "unauthorized", "signin_url": "https://ollama.com/connect"})),
        );
        server.enqueue_for("/api/show", show());
    }
}

#[tokio::test]
async fn unsupported_settings_are_reported_with_what_happens_instead() {
    let server = Server::start();
    let options = OllamaOptions { think: Think::On, num_ctx: Some(1 << 20), ..quiet(&server, CODER) };
    let model = Ollama::open(options).await.unwrap();
    let said = model.unsupported().join("; ");
    assert!(
        said.contains("trained for a window of 16384 tokens; the agent requests that instead of 1048576"),
        "{said}"
    );
    assert!(said.contains("does not support thinking; the run continues without it"), "{said}");
    assert_eq!(model.unsupported().len(), 2);
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert!(server.chats()[0].json.get("think").is_none());
}

#[tokio::test]
async fn describing_the_window_does_not_load_the_model() {
    let server = Server::start();
    let model = ollama(&server, CODER).await;
    let outlook = async || model.outlook().await.unwrap().unwrap();
    assert_eq!(outlook().await, "16,384 tokens requested; to be verified by the first run");
    assert_eq!(server.loads(), []);
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(outlook().await, "16,384 tokens, already loaded");
}

#[tokio::test]
async fn the_users_profile_wins_over_the_models_own_window_which_wins_over_the_built_in_profile() {
    let show = || {
        Reply::status(
            200,
            json!({"model_info": {"general.architecture": "llama", "llama.context_length": 65_536},
                "parameters": "num_ctx 49152", "capabilities": ["completion"], "template": "{{ .System }}"}),
        )
    };
    let file = File::parse("mine.toml", "names = ['*']\n[[window]]\nvalue = 8192").unwrap();
    let mine = Profiles::with(vec![file]);
    for (profiles, asked, window) in
        [(Profiles::default(), None, 49_152), (mine.clone(), None, 8192), (mine, Some(4096), 4096)]
    {
        let server = Server::start();
        server.enqueue_for("/api/show", show());
        let options = OllamaOptions { profiles, num_ctx: asked, ..quiet(&server, CODER) };
        assert_eq!(Ollama::open(options).await.unwrap().identity().window, Some(window));
    }
}

#[tokio::test]
async fn the_users_profile_decides_whether_to_think_unless_the_user_asks_for_thinking() {
    let server = Server::start();
    let file = File::parse("mine.toml", "names = ['deepseek-r1']\n[[think]]\nvalue = 'off'").unwrap();
    let profiles = Profiles::with(vec![file]);
    for (profiles, think, thinks, temperature) in [
        (Profiles::default(), Think::Auto, true, 0.6),
        (profiles.clone(), Think::Auto, false, 0.0),
        (profiles, Think::On, true, 0.6),
    ] {
        let options = OllamaOptions { profiles, think, ..quiet(&server, THINKER) };
        let identity = Ollama::open(options).await.unwrap().identity();
        assert_eq!((identity.thinking, identity.temperature), (thinks, temperature), "{think:?}");
    }
}
