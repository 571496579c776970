//! `agent run --image`: the requests sent to each kind of server, runs that are refused, and
//! resuming and replaying sessions with images.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::replay::{edit, finish, replays_without_a_difference};
use crate::support::World;
use fake_model::{Config, ModelSpec, Personality, Reply, Server};
use serde_json::{Value, json};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nan image of the bug";
const PNG_BASE64: &str = "iVBORw0KGgphbiBpbWFnZSBvZiB0aGUgYnVn";
const GIF: &[u8] = b"GIF89a";
const GIF_BASE64: &str = "R0lGODlh";

/// Writes a file outside the repository and returns its path.
fn file(world: &World, name: &str, bytes: &[u8]) -> String {
    let path = world.home().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts a server with a single model that supports tools and, if `vision` is set, images.
fn server(personality: Personality, vision: bool) -> Server {
    let model = ModelSpec::new("some-model:latest").tools();
    let model = if vision { model.with("vision") } else { model };
    Server::with_config(Config { personality, models: Some(vec![model]), ..Config::default() })
}

fn fixes(server: Server) -> Server {
    for answer in [edit("$1 - $2", "$1 + $2"), finish()] {
        server.enqueue(Reply::text(answer));
    }
    server
}

fn command(world: &World, server: &Server, personality: Personality, args: &[&str]) -> Command {
    let mut all = args.to_vec();
    let url = server.openai_url();
    match personality {
        Personality::Ollama => all.extend(["--model", "ollama:some-model"]),
        Personality::Deepseek => all.extend(["--model", "deepseek", "--base-url", &url]),
        _ => all.extend(["--model", "some-model:latest", "--base-url", &url]),
    }
    let mut command = world.agent(&all);
    command.env("DEEPSEEK_API_KEY", "sk-0123456789abcdef");
    if personality == Personality::Ollama {
        command.env("OLLAMA_HOST", server.url());
    }
    command
}

/// Runs the agent with these images.
fn run(world: &World, server: &Server, personality: Personality, images: &[&str], more: &[&str]) -> Output {
    let mut args = vec!["run", "--approach", "tools", "Make the tests pass."];
    args.extend(images.iter().flat_map(|path| ["--image", path]));
    args.extend(more);
    command(world, server, personality, &args).output().unwrap()
}

/// Returns the messages of each request to the model.
fn asked(server: &Server) -> Vec<Vec<Value>> {
    server.chats().iter().map(|request| request.messages().to_vec()).collect()
}

fn session(world: &World) -> PathBuf {
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    world.home().join(".local/state/agent/sessions").join(id)
}

#[test]
fn ollama_gets_images_with_the_first_message_of_every_request() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
    let (png, gif) = (file(&world, "a.png", PNG), file(&world, "b", GIF));
    let seen = world.tell(&run(&world, &server, Personality::Ollama, &[&png, &gif], &[]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let asked = asked(&server);
    assert_eq!(asked.len(), 2);
    for messages in &asked {
        assert_eq!(messages[1]["role"], "user");
        assert!(messages[1]["content"].as_str().unwrap().contains("Make the tests pass."));
        assert_eq!(messages[1]["images"], json!([PNG_BASE64, GIF_BASE64]));
        assert!(messages.iter().enumerate().all(|(i, m)| i == 1 || m["images"].is_null()), "{messages:?}");
    }
}

#[test]
fn openai_compatible_servers_get_images_as_parts_of_the_content() {
    for personality in [Personality::LlamaServer, Personality::LmStudio, Personality::Deepseek] {
        let server = match personality {
            Personality::Deepseek => Server::of(personality),
            _ => server(personality, true),
        };
        let (world, server) = (World::with_a_bug(), fixes(server));
        let png = file(&world, "a.png", PNG);
        let seen = world.tell(&run(&world, &server, personality, &[&png], &[]));
        assert!(seen.starts_with("exit 0\n"), "{personality:?}: {seen}");
        for messages in asked(&server) {
            let parts = messages[1]["content"].as_array().unwrap();
            assert_eq!(parts.len(), 2);
            assert_eq!(parts[0]["type"], "text");
            assert!(parts[0]["text"].as_str().unwrap().contains("Make the tests pass."));
            let url = format!("data:image/png;base64,{PNG_BASE64}");
            assert_eq!(parts[1], json!({"type": "image_url", "image_url": {"url": url}}));
            assert!(messages[0]["content"].is_string(), "other messages stay as they are");
        }
    }
}

#[test]
fn the_whole_file_approach_shows_images_too() {
    let (world, server) = (World::with_a_bug(), server(Personality::Ollama, true));
    server.enqueue(Reply::text("```\nadd() {\n    echo $(($1 + $2))\n}\n```\n"));
    let png = file(&world, "a.png", PNG);
    let args = ["run", "--approach", "whole-file", "Fix add.sh.", "--image", &png];
    let output = command(&world, &server, Personality::Ollama, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let asked = asked(&server);
    assert_eq!((asked[0].len(), &asked[0][0]["images"]), (1, &json!([PNG_BASE64])));
}

/// Checks that a run is refused with this message before a request is sent to the model.
fn is_refused(world: &World, server: &Server, output: &Output, words: &str) {
    let seen = world.tell(output);
    assert!(seen.starts_with("exit 2\n") && seen.contains(words), "{words}: {seen}");
    let questions = asked(server).into_iter().filter(|messages| !messages.is_empty());
    assert_eq!(questions.count(), 0, "the model should get no request");
}

#[test]
fn a_model_that_does_not_see_images_is_refused() {
    let pro = ["--model", "deepseek:deepseek-v4-pro"];
    for (personality, vision) in
        [(Personality::Ollama, false), (Personality::LlamaServer, false), (Personality::LmStudio, false)]
    {
        let (world, server) = (World::with_a_bug(), fixes(server(personality, vision)));
        let png = file(&world, "a.png", PNG);
        // The server's report takes precedence over the setting.
        let args = ["run", "--approach", "tools", "x", "--image", &png];
        let output =
            command(&world, &server, personality, &args).env("AGENT_ASSUME_VISION", "true").output().unwrap();
        is_refused(&world, &server, &output, "does not accept images; use a model with vision");
    }
    let (world, server) = (World::with_a_bug(), fixes(Server::of(Personality::Deepseek)));
    let png = file(&world, "a.png", PNG);
    let url = server.openai_url();
    let args = [&["run", "x", "--image", &png, "--base-url", &url][..], &pro].concat();
    let output = world.agent(&args).env("DEEPSEEK_API_KEY", "sk-0123456789abcdef").output().unwrap();
    is_refused(&world, &server, &output, "deepseek-v4-pro does not accept images");
}

#[test]
fn a_model_of_which_this_is_unknown_is_refused_unless_a_setting_says_otherwise() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Vllm, true)));
    let png = file(&world, "a.png", PNG);
    let output = run(&world, &server, Personality::Vllm, &[&png], &[]);
    is_refused(&world, &server, &output, "AGENT_ASSUME_VISION=true");
    assert!(!world.events().contains(&"request".to_owned()));
    world.write_user_settings("assume_vision = true\n");
    let seen = world.tell(&run(&world, &server, Personality::Vllm, &[&png], &[]));
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(asked(&server)[0][1]["content"].is_array());
}

#[test]
fn a_fallback_that_does_not_see_images_does_not_get_the_conversation() {
    let (world, first) = (World::with_a_bug(), server(Personality::Ollama, true));
    let second = server(Personality::LlamaServer, false);
    first.fallback(Reply::error(402, "Insufficient Balance"));
    let png = file(&world, "a.png", PNG);
    let args = ["run", "--approach", "tools", "x", "--image", &png, "--fallback", "openai:some-model:latest"];
    let output = command(&world, &first, Personality::Ollama, &args)
        .env("OPENAI_BASE_URL", second.openai_url())
        .output()
        .unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 5\n") && seen.contains("does not accept images"), "{seen}");
    assert!(second.chats().is_empty());
}

#[test]
fn files_that_are_no_small_image_are_refused_before_a_session_exists() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
    let text = file(&world, "a.png", b"<svg></svg>");
    let mut large = GIF.to_vec();
    large.resize((10 << 20) + 1, 0);
    let large = file(&world, "large.gif", &large);
    let folder = world.home().to_str().unwrap().to_owned();
    let missing = world.home().join("missing.png").to_str().unwrap().to_owned();
    let png = file(&world, "b.png", PNG);
    let many = [png.as_str(); 9];
    for (images, words) in [
        (&[text.as_str()][..], "a.png: it is not a PNG, JPEG, WebP or GIF image"),
        (&[large.as_str()], "large.gif: it is larger than 10 MiB"),
        (&[folder.as_str()], "home: it is not a regular file"),
        (&[missing.as_str()], "missing.png: No such file or directory"),
        (&many, "a task may have at most 8 images, not 9"),
    ] {
        let output = run(&world, &server, Personality::Ollama, images, &[]);
        is_refused(&world, &server, &output, words);
    }
    assert!(!world.home().join(".local/state/agent/sessions").exists());
}

#[test]
fn the_journal_names_images_by_digest_and_the_session_keeps_the_files() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
    let png = file(&world, "a.png", PNG);
    // Passing the same image twice is the same as passing it once.
    let output = run(&world, &server, Personality::Ollama, &[&png, &png], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let journal = world.journal();
    let name = journal[0]["images"][0].as_str().unwrap();
    assert_eq!((name.len(), journal[0]["images"].as_array().unwrap().len()), (64 + 4, 1), "{name}");
    assert_eq!(std::fs::read(session(&world).join("images").join(name)).unwrap(), PNG);
    let messages: Vec<&Value> = journal.iter().filter(|event| event["event"] == "message").collect();
    assert_eq!(messages[1]["images"], json!([name]));
    assert!(messages.iter().enumerate().all(|(i, m)| i == 1 || m["images"].is_null()));
    let text = std::fs::read_to_string(session(&world).join("journal.jsonl")).unwrap();
    assert!(!text.contains(PNG_BASE64), "the content is not in the journal");
    replays_without_a_difference(&world);
}

#[test]
fn a_killed_run_resumes_with_the_same_images_even_if_the_users_file_is_gone() {
    let lines = {
        let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
        let png = file(&world, "a.png", PNG);
        let output = run(&world, &server, Personality::Ollama, &[&png], &["--json"]);
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    assert!(lines > 20, "{lines}");
    for cut in (1..lines).step_by(6) {
        let world = World::with_a_bug();
        let server = server(Personality::Ollama, true);
        server.fallback(Reply::from_fn(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let messages = body["messages"].as_array().cloned().unwrap_or_default();
            let answered = messages.iter().any(|message| message["role"] == "assistant");
            Reply::text(if answered { finish() } else { edit("$1 - $2", "$1 + $2") })
        }));
        let png = file(&world, "a.png", PNG);
        let args = ["run", "--json", "--approach", "tools", "Make the tests pass.", "--image", &png];
        let mut child = command(&world, &server, Personality::Ollama, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let seen = BufReader::new(child.stdout.take().unwrap()).lines().take(cut).count();
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(seen, cut);
        std::fs::remove_file(&png).unwrap();
        let output = world.agent(&["resume"]).env("OLLAMA_HOST", server.url()).output().unwrap();
        let seen = world.tell(&output);
        assert!(seen.starts_with("exit 0\n") || seen.contains("has ended"), "after {cut}: {seen}");
        assert_eq!(world.journal().last().unwrap()["ending"]["kind"], "verified", "after {cut}");
        let asked = asked(&server).into_iter().filter(|messages| !messages.is_empty());
        for messages in asked {
            assert_eq!(messages[1]["images"], json!([PNG_BASE64]), "after {cut}");
        }
    }
}

#[test]
fn a_continued_or_forked_session_still_shows_its_images() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
    let png = file(&world, "a.png", PNG);
    run(&world, &server, Personality::Ollama, &[&png], &[]);
    for fork in [&[][..], &["--fork"]] {
        for answer in [edit("$1 + $2", "$2 + $1"), finish()] {
            server.enqueue(Reply::text(answer));
        }
        let before = server.chats().len();
        let args = [&["resume", "last", "Add the second number first."][..], fork].concat();
        let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
        assert!(server.chats().len() > before, "{}", world.tell(&output));
        for messages in asked(&server) {
            assert_eq!(messages[1]["images"], json!([PNG_BASE64]));
        }
        world.git(&["checkout", "--quiet", "--", "add.sh"]);
        world.write("add.sh", "add() {\n    echo $(($1 + $2))\n}\n");
    }
}

#[test]
fn a_session_whose_image_was_changed_is_not_resumed() {
    let (world, server) = (World::with_a_bug(), fixes(server(Personality::Ollama, true)));
    let png = file(&world, "a.png", PNG);
    let output = run(&world, &server, Personality::Ollama, &[&png], &["--max-turns", "1"]);
    assert_eq!(output.status.code(), Some(4), "{}", world.tell(&output));
    let name = world.journal()[0]["images"][0].as_str().unwrap().to_owned();
    let path = session(&world).join("images").join(name);
    let asked_before = server.chats().len();
    let resume = || world.agent(&["resume", "--max-turns", "9"]).env("OLLAMA_HOST", server.url()).output();
    std::fs::write(&path, GIF).unwrap();
    let seen = world.tell(&resume().unwrap());
    assert!(seen.starts_with("exit 2\n") && seen.contains("was changed"), "{seen}");
    std::fs::remove_file(&path).unwrap();
    let seen = world.tell(&resume().unwrap());
    assert!(seen.starts_with("exit 2\n") && seen.contains("cannot be read"), "{seen}");
    assert_eq!(server.chats().len(), asked_before);
    std::fs::write(&path, PNG).unwrap();
    assert!(world.tell(&resume().unwrap()).starts_with("exit 0\n"));
}
