//! Connections to model servers (headers, keys, certificates, proxies), and what the agent learns
//! about a server (template errors, missing capabilities).

use crate::support::{World, call, snapshot};
use fake_model::{Certificate, Config, ModelSpec, Personality, Reply, Server, TlsServer};
use serde_json::json;

fn answer(server: &Server) {
    server.enqueue(Reply::text(call(
        "apply_patch",
        json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
    )));
    server.enqueue(Reply::text(call("finish", json!({}))));
}

const RUN: [&str; 4] = ["run", "--approach", "tools", "Make the tests pass."];

fn run<'a>(more: &[&'a str]) -> Vec<&'a str> {
    RUN.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn custom_headers_are_sent_and_their_values_are_never_shown() {
    let (world, server) = (World::with_a_bug(), Server::of(Personality::Vllm));
    world.write_user_settings("[headers]\nX-Team = 'hunter2, hunter2'\n");
    answer(&server);
    let base = server.openai_url();
    let seen = world.observe(&run(&["--base-url", &base]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(server.requests().iter().all(|sent| sent.header("x-team") == Some("hunter2, hunter2")));

    // The flag overrides the settings file.
    let flags = ["--header", "X-One: sesame-1, sesame-2", "--header", "X-Two: b"];
    let shown = world.observe(&[&["config", "show"][..], &flags].concat());
    assert!(shown.contains("headers             X-One: (set), X-Two: (set)"), "{shown}");
    let listed = world.observe(&[&["models", "list", "--base-url", &base][..], &flags].concat());
    assert!(listed.starts_with("exit 0\n"), "{listed}");
    let last = server.requests().pop().unwrap();
    assert_eq!((last.header("x-one"), last.header("x-two")), (Some("sesame-1, sesame-2"), Some("b")));
    assert_eq!(last.header("x-team"), None);

    let wrong = world.observe(&run(&["--base-url", &base, "--header", "sesame-3"]));
    snapshot!(&wrong, @r#"
    exit 2
    --- stderr
    error: --header must be "Name: value", or a list or table of headers
    "#);
    let journal = json!(world.journal()).to_string();
    for text in [seen, shown, listed, wrong, journal] {
        assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
    }
    for two in ["X-Team: sesame-4\r\nX-Evil: 1", "X-Team: sesame-4\nX-Evil: 1", "X-Team: sesame-4\n"] {
        let wrong = world.observe(&run(&["--base-url", &base, "--header", two]));
        assert!(wrong.starts_with("exit 2\n"), "{wrong}");
        assert!(wrong.contains("the value of --header contains a line break"), "{wrong}");
        assert!(!wrong.contains("sesame"), "{wrong}");
    }
    world.write(".agent.toml", "headers = ['X-Evil: 1']\n");
    assert!(world.observe(&["config", "show"]).contains("a repository may not set headers"));
}

#[test]
fn a_key_comes_from_a_file_or_a_command() {
    let (world, server) = (World::with_a_bug(), Server::of(Personality::Vllm));
    let base = server.openai_url();
    let list = |args: &[&str], settings: &str| {
        world.write_user_settings(settings);
        let args = [&["models", "list", "--base-url", &base], args].concat();
        let output = world.agent(&args).env("OPENAI_API_KEY", "sk-of-the-variable").output().unwrap();
        let sent = server.requests().pop().and_then(|sent| sent.header("authorization").map(str::to_owned));
        (world.tell(&output), sent.unwrap_or_default())
    };
    std::fs::write(world.home().join("key"), "sk-of-the-file\n").unwrap();
    for (args, settings, key) in [
        (&[][..], "", "Bearer sk-of-the-variable"),
        (&["--api-key-file", "../home/key"], "", "Bearer sk-of-the-file"),
        (&[], "api_key_file = '~/key'\n", "Bearer sk-of-the-file"),
        (&[], "api_key_command = 'echo sk-of-the-command'\n", "Bearer sk-of-the-command"),
    ] {
        let (seen, sent) = list(args, settings);
        assert!(seen.starts_with("exit 0\n") && sent == key, "{settings}: {sent}: {seen}");
    }
    for (settings, words) in [
        ("api_key_command = 'exit 3'\n", "cannot get a key from api_key_command: exit status: 3"),
        ("api_key_command = 'true'\n", "cannot use the key from api_key_command: the key is empty"),
        ("api_key_file = '~/nothing'\n", "cannot read api_key_file"),
        ("api_key_file = '~/key'\napi_key_command = 'true'\n", "both set; keep one"),
    ] {
        let (seen, _) = list(&[], settings);
        assert!(seen.starts_with("exit 2\n") && seen.contains(words), "{settings}: {seen}");
    }
    world.write_user_settings("api_key_command = 'echo sk-of-the-command'\n");
    let shown = world.observe(&["config", "show"]);
    assert!(shown.contains("api_key_command     (set)"), "{shown}");
}

#[test]
fn the_settings_can_name_a_private_authority_and_a_client_certificate() {
    let (world, server) = (World::with_a_bug(), TlsServer::start(Certificate::Mutual));
    let write = |name: &str, text: &str| std::fs::write(world.home().join(name), text).unwrap();
    write("ca.pem", server.issuer());
    write("client.pem", server.client().0);
    write("client.key", server.client().1);
    world.write_user_settings(
        "ca_file = '~/ca.pem'\nclient_cert_file = '~/client.pem'\nclient_key_file = '~/client.key'\n",
    );
    let args = run(&["--base-url", &server.url()]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let seen = world.observe(&args);
    assert!(
        seen.starts_with("exit 2\n") && seen.contains("answered 401"),
        "the client certificate should be accepted: {seen}"
    );
    world.write_user_settings("ca_file = '~/ca.pem'\n");
    let seen = world.observe(&args);
    assert!(seen.starts_with("exit 5\n") && seen.contains("client_cert_file"), "{seen}");
}

#[test]
fn a_configured_proxy_is_used_and_its_password_never_shown() {
    let (world, proxy) = (World::with_a_bug(), Server::of(Personality::Vllm));
    answer(&proxy);
    world.write_user_settings(&format!("proxy = 'http://me:hunter2-hunter2@{}'\n", proxy.address()));
    // The host name does not resolve, so any answer must come from the proxy.
    let seen = world.observe(&run(&["--base-url", "http://model.invalid/v1"]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let basic = "Basic bWU6aHVudGVyMi1odW50ZXIy"; // base64 of me:hunter2-hunter2
    assert!(proxy.requests().iter().all(|sent| sent.header("proxy-authorization") == Some(basic)));
    let shown = world.observe(&["config", "show"]);
    assert!(shown.contains(&format!("http://{} ", proxy.address())), "{shown}");
    let direct = world
        .agent(&run(&["--base-url", "http://model.invalid/v1"]))
        .env("NO_PROXY", "model.invalid")
        .output()
        .unwrap();
    assert_eq!(direct.status.code(), Some(5), "{}", world.tell(&direct));
    for text in [seen, shown, world.tell(&direct)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_server_without_a_system_role_works_and_is_remembered() {
    for refusal in [
        Reply::error(400, "System role not supported"),
        Reply::error(500, "System role not supported at row 1, column 60"),
    ] {
        let (world, server) = (World::with_a_bug(), Server::of(Personality::LlamaServer));
        let base = server.openai_url();
        server.enqueue(refusal);
        answer(&server);
        let seen = world.observe(&run(&["--base-url", &base]));
        assert!(seen.starts_with("exit 0\n"), "{seen}");
        let before = server.requests().len();
        assert_eq!(server.chats().len(), 3);
        world.git(&["checkout", "--quiet", "."]);
        answer(&server);
        let seen = world.observe(&run(&["--base-url", &base]));
        assert!(seen.starts_with("exit 0\n"), "{seen}");
        assert_eq!(server.chats().len(), 5, "the second run should get no refusal");
        let asked: Vec<String> =
            server.requests()[before..].iter().map(|sent| sent.path.clone()).take(3).collect();
        assert!(asked.contains(&"/v1/models".into()) && asked.contains(&"/props".into()), "{asked:?}");
        assert_eq!(asked[2], "/v1/chat/completions", "only two probes should precede the run");
    }
}

#[test]
fn doctor_does_not_load_the_model_and_reports_the_context_window() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let args = ["doctor", "--model", "deepseek-coder:6.7b"];
    let seen = world.tell(&world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap());
    let window: Vec<&str> = seen.lines().filter(|line| line.contains(" window ")).collect();
    assert_eq!(
        window,
        ["ok    window    16,384 tokens requested; to be verified by the first run"],
        "{seen}"
    );
    assert!(server.loads().is_empty() && server.chats().is_empty());
    assert!(server.requests().iter().all(|sent| sent.path != "/api/chat" && sent.path != "/api/generate"));
}

#[test]
fn each_missing_model_capability_causes_one_warning_and_the_run_continues() {
    let (world, server) = (World::with_a_bug(), Server::start());
    answer(&server);
    let args = run(&["--model", "deepseek-coder:6.7b", "--think", "--num-ctx", "65536"]);
    let seen = world.tell(&world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let warnings: Vec<&str> = seen.lines().filter(|line| line.contains("warning:")).collect();
    assert_eq!(
        warnings,
        [
            "  warning: deepseek-coder:6.7b was trained for a window of 16384 tokens; the agent requests that instead of 65536",
            "  warning: deepseek-coder:6.7b does not support thinking; the run continues without it",
        ],
    );
}

#[test]
fn totals_omit_evaluated_tokens_when_the_server_omits_them() {
    for (personality, told) in [(Personality::Ollama, false), (Personality::LlamaServer, true)] {
        let (world, server) = (World::with_a_bug(), Server::of(personality));
        answer(&server);
        let base = server.openai_url();
        let mut args = run(&["--base-url", &base]);
        if personality == Personality::Ollama {
            args.extend(["--model", "deepseek-coder:6.7b"]);
        }
        let seen = world.observe(&args);
        assert_eq!(seen.contains(" evaluated"), told, "{seen}");
        let finished = world.journal().pop().unwrap();
        assert_eq!(finished["totals"]["evaluated_tokens"].is_u64(), told, "{finished}");
        assert!(finished["totals"]["prompt_tokens"].as_u64() > Some(0));
    }
}

#[test]
fn an_ollama_without_models_prints_how_to_pull_one() {
    let world = World::with_a_bug();
    let server = Server::with_config(Config { models: Some(Vec::new()), ..Config::default() });
    let mut command = world.agent(&run(&["--model", "qwen2.5-coder:7b"]));
    let output = command.env("OLLAMA_HOST", server.url()).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: Ollama at http://[SERVER] does not have the model qwen2.5-coder:7b; it has no models
    pull it with `agent models pull qwen2.5-coder:7b`, or add --pull
    show: agent sessions show [SESSION]
    ");
}

#[test]
fn a_bare_port_in_ollama_host_is_refused_with_a_suggestion() {
    let world = World::with_a_bug();
    let output = world.agent(&["models", "list"]).env("OLLAMA_HOST", "11434").output().unwrap();
    snapshot!(world.tell(&output), @r#"
    exit 2
    --- stderr
    error: the address "11434" is a host name without a port; did you mean :11434?
    "#);
}

#[test]
fn a_cloud_model_behind_ollama_is_a_hosted_model() {
    let world = World::with_a_bug();
    let models = Some(vec![ModelSpec::new("gpt-oss:120b-cloud")]);
    let server = Server::with_config(Config { models, ..Config::default() });
    let show = || {
        let info = json!({"general.architecture": "gptoss", "gptoss.context_length": 131_072});
        Reply::status(
            200,
            json!({"remote_host": "https://ollama.com:443", "model_info": info, "template": "{{ .System }}", "capabilities": ["completion"]}),
        )
    };
    let agent = |args: &[&str]| {
        server.enqueue_for("/api/show", show());
        world.tell(&world.agent(args).env("OLLAMA_HOST", server.url()).output().unwrap())
    };
    answer(&server);
    let seen = agent(&run(&["--model", "gpt-oss:120b-cloud"]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(server.chats().iter().all(|sent| sent.json.get("keep_alive").is_none()));
    assert!(server.requests().iter().all(|sent| sent.path != "/api/ps"));
    server.enqueue_for("/api/me", Reply::status(200, json!({"name": "ada"})));
    let seen = agent(&["doctor", "--model", "gpt-oss:120b-cloud"]);
    assert!(seen.contains("131,072 tokens in Ollama's cloud, signed in as ada"), "{seen}");
    let refusal = json!({"error": "unauthorized", "signin_url": "https://ollama.com/connect?x"});
    server.enqueue_for("/api/me", Reply::status(401, refusal));
    let seen = agent(&["doctor", "--model", "gpt-oss:120b-cloud"]);
    assert!(seen.contains("sign in at https://ollama.com/connect?x"), "{seen}");
}

#[test]
fn tool_calls_are_constrained_on_request_unless_the_server_refuses_constraints() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let agent = |flags: &[&str]| {
        let flags = [&["--dry-run", "--model", "deepseek-coder:6.7b"], flags].concat();
        let output = world.agent(&run(&flags)).env("OLLAMA_HOST", server.url()).output().unwrap();
        world.tell(&output)
    };
    let formats = || {
        let chats = server.chats();
        let first = |chat: &fake_model::Request| chat.json["format"]["anyOf"][0]["type"] == "object";
        chats.iter().map(first).collect::<Vec<_>>()
    };
    answer(&server);
    let seen = agent(&[]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(formats(), [false, false], "calls should not be constrained by default");
    answer(&server);
    let seen = agent(&["--constrain"]);
    assert!(seen.starts_with("exit 0\n") && !seen.contains("constrain"), "{seen}");
    assert_eq!(formats()[2..], [true, true]);
    server.enqueue(Reply::error(500, "invalid JSON schema in format"));
    answer(&server);
    let seen = agent(&["--constrain"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(formats()[4..], [true, false, false]);
    let warning = "cannot constrain this model's answers to the tools' schemas";
    assert_eq!(seen.matches(warning).count(), 1, "{seen}");
}
