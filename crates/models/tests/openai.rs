//! Tests the OpenAI client against scripted servers of each kind: detection, requests, answers and
//! errors.

mod common;

use std::sync::Arc;

use common::{ask, message, openai, openai_with, read_until, request};
use fake_model::{Config, Personality, Reply, Server};
use futures_util::StreamExt;
use models::openai::{Kind, OpenAi, OpenAiOptions, Opened};
use models::{Delta, EndReason, Error, Message, Model, Price, Role, Secret, Think, collect};
use serde_json::{Value, json};

fn deepseek() -> Server {
    Server::of(Personality::Deepseek)
}

/// Opens a model on a scripted DeepSeek platform.
async fn on_deepseek(server: &Server, think: Think) -> OpenAi {
    openai_with(server, |options| {
        options.kind = Some(Kind::DeepSeek);
        options.key = Some(Secret::new(" sk-secret\n"));
        options.think = think;
    })
    .await
}

#[tokio::test]
async fn each_server_is_detected_with_its_window() {
    for (personality, name, window) in [
        (Personality::LlamaServer, "llama-server", Some(32_768)),
        (Personality::Vllm, "vllm", Some(131_072)),
        (Personality::LmStudio, "lm-studio", Some(131_072)),
        (Personality::Generic, "openai", None),
    ] {
        let server = Server::of(personality);
        let identity = openai(&server).await.identity();
        assert_eq!((identity.server.as_str(), identity.window), (name, window));
        assert!(identity.local && identity.price.is_none());
        server.enqueue("ok");
        assert_eq!(ask(&openai(&server).await, "x").await.unwrap().text, "ok", "{name}");
        let smaller = openai_with(&server, |options| options.window = Some(2048)).await;
        assert_eq!(smaller.identity().window, Some(2048));
    }
}

#[tokio::test]
async fn an_ollama_behind_v1_is_used_through_its_native_api() {
    let server = Server::start();
    match OpenAi::open(OpenAiOptions::new(&server.openai_url())).await.unwrap() {
        Opened::Ollama { base, version } => assert_eq!((base, version.as_str()), (server.url(), "0.32.15")),
        Opened::Model(_) => panic!("taken for an OpenAI server"),
    }
}

#[tokio::test]
async fn deepseeks_platform_is_detected_without_a_request() {
    let server = deepseek();
    let model = on_deepseek(&server, Think::Auto).await;
    assert_eq!(server.requests().len(), 0);
    let identity = model.identity();
    assert_eq!(
        (identity.server.as_str(), identity.model.as_str(), identity.window),
        ("deepseek", "deepseek-flash", Some(1_000_000))
    );
    assert!(
        identity.thinking
            && identity.price.is_some_and(
                |Price { rates: (prompt, cached, generated), .. }| cached < prompt && prompt < generated
            )
    );
}

#[tokio::test]
async fn reasoning_is_sent_back_with_the_answer_it_belongs_to() {
    let server = deepseek();
    let model = on_deepseek(&server, Think::Auto).await;
    server.enqueue(Reply::empty().thinking("hm").more("yes"));
    server.enqueue("ok");
    let answer = ask(&model, "x").await.unwrap();
    assert_eq!((answer.thinking.as_str(), answer.text.as_str()), ("hm", "yes"));
    let mut next = request("x");
    let answered = Message {
        role: Role::Assistant,
        content: answer.text,
        thinking: Some(answer.thinking),
        images: Vec::new(),
    };
    next.messages.push(answered.into());
    next.messages.push(message(Role::User, "go on"));
    collect(model.stream(&next).await.unwrap()).await.unwrap();
    let sent = server.chats();
    assert_eq!(
        sent[1].messages()[2],
        json!({"role": "assistant", "content": "yes", "reasoning_content": "hm"})
    );
    assert_eq!(sent[1].header("authorization"), Some("Bearer sk-secret"));
    // DeepSeek ignores the temperature while it thinks, so none is sent.
    assert!(sent[0].json.get("temperature").is_none() && sent[0].json.get("thinking").is_none());

    let model = on_deepseek(&server, Think::Off).await;
    server.enqueue("ok");
    ask(&model, "x").await.unwrap();
    assert_eq!(
        (&server.chats()[2].json["thinking"], &server.chats()[2].json["temperature"]),
        (&json!({"type": "disabled"}), &json!(0.0))
    );
}

#[tokio::test]
async fn answers_are_sent_back_with_reasoning_if_the_server_requires_it_and_without_if_it_refuses_it() {
    let history = || {
        let mut request = request("x");
        request.messages.push(message(Role::Assistant, "from another model"));
        request.messages.push(message(Role::User, "go on"));
        request
    };
    let server = deepseek();
    let model = on_deepseek(&server, Think::Auto).await;
    server.enqueue(Reply::error(
        400,
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
    ));
    server.enqueue("ok");
    collect(model.stream(&history()).await.unwrap()).await.unwrap();
    assert_eq!(server.chats()[1].messages()[2]["reasoning_content"], "");

    let model = on_deepseek(&server, Think::Auto).await;
    server.enqueue(Reply::error(400, "messages[2]: unknown field `reasoning_content`"));
    server.enqueue("ok");
    let mut with_thoughts = history();
    Arc::make_mut(&mut with_thoughts.messages[2]).thinking = Some(String::from("hm"));
    collect(model.stream(&with_thoughts).await.unwrap()).await.unwrap();
    assert!(server.chats()[3].messages()[2].get("reasoning_content").is_none());
}

#[tokio::test]
async fn a_refused_field_is_dropped_for_the_session() {
    let server = Server::of(Personality::Generic);
    let model = openai(&server).await;
    server.enqueue(Reply::status(
        400,
        json!({"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
    ));
    server.enqueue(Reply::status(
        422,
        json!({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
    ));
    server.enqueue(Reply::status(400, json!({"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}})));
    server.fallback("ok");
    for _ in 0..2 {
        ask(&model, "x").await.unwrap();
    }
    let has =
        |field: &str| server.chats().iter().map(|sent| sent.json.get(field).is_some()).collect::<Vec<_>>();
    assert_eq!(has("stream_options"), [true, false, false, false, false]);
    assert_eq!(has("seed"), [true, true, false, false, false]);
    assert_eq!(has("max_tokens"), [true, true, true, false, false]);
    assert_eq!(has("max_completion_tokens"), [false, false, false, true, true]);
    // If dropping fields does not help, the refusal is final after a limited number of retries.
    let before = server.chats().len();
    server.fallback(Reply::error(422, "something else"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Refused(_))));
    assert_eq!(server.chats().len() - before, 2, "once with and once without the optional fields");
}

#[tokio::test]
async fn vllm_gets_no_stream_options_without_a_stream() {
    let server = Server::of(Personality::Vllm);
    let model = openai(&server).await;
    server.enqueue(Reply::error(400, "streaming is not supported"));
    server.enqueue(Reply::empty().thinking("hm").more("yes"));
    let answer = ask(&model, "x").await.unwrap();
    assert_eq!(server.chats()[1].json["stream"], false);
    assert_eq!((answer.thinking.as_str(), answer.text.as_str()), ("hm", "yes"));
    assert!(answer.end.usage.prompt_tokens > Some(0));
}

#[tokio::test]
async fn the_prompt_tokens_of_an_answer_that_the_client_cuts_off_are_known() {
    let server = Server::of(Personality::LlamaServer);
    let model = openai(&server).await;
    server.enqueue(Reply::text("{\"tool\": \"x\"}").hold().more("never"));
    let mut deltas = model.stream(&request("x")).await.unwrap();
    let (mut usage, mut text, mut progress) = (None, String::new(), false);
    while !text.ends_with('}') {
        match deltas.next().await.unwrap().unwrap() {
            Delta::Usage(known) => usage = Some(known),
            Delta::Text(piece) => text.push_str(&piece),
            Delta::Progress { processed, total } => progress = processed <= total,
            other => panic!("{other:?}"),
        }
    }
    let usage = usage.unwrap();
    assert!(usage.prompt_tokens > Some(0) && usage.cached_tokens.is_some() && progress, "{usage:?}");
    drop(deltas);
    assert!(server.wait_for_close(0).await.client_closed());
}

#[tokio::test]
async fn every_servers_way_to_end_a_stream_is_accepted() {
    let server = Server::of(Personality::Generic);
    let model = openai(&server).await;
    for reply in [
        Reply::text("ok"),
        Reply::text("ok").usage_chunk_empty_choices(),
        Reply::text("ok").without_done_marker(),
        Reply::text("ok").comment("queued").comments().split_bytes(1),
        Reply::text("ok").late_burst().content_type("application/json"),
        Reply::text("ok").done_reason("eos"),
    ] {
        server.enqueue(reply.clone());
        let answer = ask(&model, "x").await.unwrap_or_else(|why| panic!("{reply:?}: {why}"));
        assert_eq!((answer.text.as_str(), answer.end.reason), ("ok", EndReason::Stop), "{reply:?}");
    }
    server.enqueue(Reply::text("lo").done_reason("length"));
    assert_eq!(ask(&model, "x").await.unwrap().end.reason, EndReason::Length);
}

#[tokio::test]
async fn a_stream_without_a_normal_end_is_an_error() {
    let server = Server::of(Personality::Generic);
    let model = openai(&server).await;
    for reply in
        [Reply::text("half").eof_without_done(), Reply::text("half").cut(), Reply::text("half").reset()]
    {
        server.enqueue(reply);
        let error = ask(&model, "x").await.unwrap_err();
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
    }
    server.enqueue(Reply::text("half").done_reason("insufficient_system_resource"));
    assert!(matches!(ask(&model, "x").await, Err(Error::Unavailable { .. })));
    server.enqueue(Reply::text("half").then_error_line("boom"));
    assert!(
        matches!(ask(&model, "x").await, Err(Error::Unavailable { message, .. }) if message.contains("boom"))
    );
}

#[tokio::test]
async fn an_error_body_with_status_200_and_without_a_stream_is_an_error() {
    let server = Server::of(Personality::LlamaServer);
    let model = openai(&server).await;
    let body = json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "m", "n_prompt_tokens": 9, "n_ctx": 4}});
    server.enqueue(Reply::status(200, body));
    assert!(matches!(
        ask(&model, "x").await,
        Err(Error::Overflow { prompt_tokens: Some(9), window: Some(4), .. })
    ));
}

#[tokio::test]
async fn an_answer_without_a_stream_is_accepted() {
    let server = Server::of(Personality::Generic);
    let model = openai(&server).await;
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let whole: Value = json!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": "text", "tool_calls": [call]}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
    server.enqueue(Reply::status(200, whole));
    let answer = ask(&model, "x").await.unwrap();
    assert_eq!(
        (answer.text.as_str(), &answer.calls[..]),
        ("text", &[(String::from("f"), json!({"a": 1}))][..])
    );
    assert_eq!(answer.end.usage.generated_tokens, Some(2));
}

#[tokio::test]
async fn native_calls_arrive_whole() {
    let server = Server::of(Personality::Vllm);
    let model = openai(&server).await;
    server.enqueue(
        Reply::text("Look: ").tool_call("read_file", json!({"path": "a"})).tool_call("list_files", json!({})),
    );
    let answer = ask(&model, "x").await.unwrap();
    assert_eq!(
        answer.calls,
        [(String::from("read_file"), json!({"path": "a"})), (String::from("list_files"), json!({}))]
    );
}

#[tokio::test]
async fn a_loading_server_and_a_wrong_key_are_different_errors() {
    let server = Server::with_config(Config {
        personality: Personality::LlamaServer,
        loading: true,
        ..Config::default()
    });
    let error = OpenAi::open(OpenAiOptions::new(&server.openai_url())).await.err();
    // Either the model list or the chat reports that the server is loading, whichever is requested
    // first.
    match error {
        Some(error) => assert!(matches!(error, Error::Loading(_)), "{error:?}"),
        None => assert!(matches!(ask(&openai(&server).await, "x").await, Err(Error::Loading(_)))),
    }
    let server = Server::with_config(Config {
        personality: Personality::Vllm,
        api_key: Some(String::from("good")),
        ..Config::default()
    });
    let error = OpenAi::open(OpenAiOptions {
        key: Some(Secret::new("bad")),
        ..OpenAiOptions::new(&server.openai_url())
    })
    .await
    .err()
    .unwrap();
    assert!(
        matches!(&error, Error::Settings(why) if why.contains("API key") && !why.contains("bad")),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_error_for_a_missing_model_lists_the_available_ones() {
    let server = Server::of(Personality::Vllm);
    let options =
        OpenAiOptions { model: Some(String::from("nothing")), ..OpenAiOptions::new(&server.openai_url()) };
    assert!(
        matches!(OpenAi::open(options).await.err(), Some(Error::MissingModel { available, .. }) if available == ["deepseek-ai/DeepSeek-V3.1"])
    );
    let server = deepseek();
    let model = openai_with(&server, |options| {
        options.kind = Some(Kind::DeepSeek);
        options.key = Some(Secret::new("sk"));
        options.model = Some(String::from("deepseek-chat"));
    })
    .await;
    assert!(
        matches!(ask(&model, "x").await, Err(Error::MissingModel { message, available }) if message.contains("deepseek-chat") && available.len() == 2)
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_so_that_the_key_stays_safe() {
    let (server, other) = (deepseek(), deepseek());
    let model = on_deepseek(&server, Think::Auto).await;
    server.enqueue(Reply::redirect(307, format!("{}/chat/completions", other.url())));
    let error = ask(&model, "x").await.unwrap_err();
    assert!(matches!(&error, Error::Settings(why) if why.contains(&other.url())), "{error:?}");
    assert_eq!(other.requests().len(), 0);
    assert_eq!(format!("{:?}", Secret::new("sk-secret")), "Secret(…)");
}

#[tokio::test]
async fn a_request_repeats_the_bytes_of_the_previous_one() {
    let server = Server::of(Personality::LlamaServer);
    let model = openai(&server).await;
    server.enqueue(Reply::text("{\"tool\":\"a\"}").hold());
    server.enqueue("ok");
    let mut conversation = request("first");
    let mut deltas = model.stream(&conversation).await.unwrap();
    let emitted = read_until(&mut deltas, "}").await;
    drop(deltas);
    server.wait_for_close(0).await;
    conversation.messages.push(message(Role::Assistant, &emitted));
    conversation.messages.push(message(Role::User, "second"));
    conversation.seed = Some(8);
    collect(model.stream(&conversation).await.unwrap()).await.unwrap();
    let text = |at: usize| String::from_utf8(server.chats()[at].body.clone()).unwrap();
    let (first, second) = (text(0), text(1));
    let shared = first.split(r#"],"max_tokens""#).next().unwrap();
    assert!(shared.contains("first") && second.starts_with(shared), "{first}\n{second}");
    let replies = server.chat_replies();
    assert!(
        replies[1].cached_tokens >= replies[0].prompt_tokens,
        "the answer that was cut off should still be in the cache: {replies:?}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_reported_in_plain_words() {
    let server = Server::of(Personality::Generic);
    let base = server.openai_url();
    drop(server);
    let error = OpenAi::open(OpenAiOptions::new(&base)).await.err().unwrap();
    assert!(
        matches!(&error, Error::Transport(why) if why.contains(&base) && why.contains("refused")),
        "{error:?}"
    );
}
