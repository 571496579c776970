//! `agent models`, and the messages about a missing model.

use crate::support::{World, snapshot};
use fake_model::{Config, ModelSpec, Personality, Server};

fn server() -> Server {
    Server::with_config(Config {
        models: Some(vec![ModelSpec::new("qwen2.5-coder:1.5b"), ModelSpec::new("llama3:latest")]),
        pullable: vec![ModelSpec::new("deepseek-coder:6.7b")],
        ..Config::default()
    })
}

fn observe(world: &World, server: &Server, args: &[&str]) -> String {
    world.tell(&world.agent(args).env("OLLAMA_HOST", server.url()).output().unwrap())
}

/// Removes the catalog entries from the output of `agent models list`.
fn without_catalog(list: &str) -> String {
    let (before, rest) = list.split_once("NAME`:\n").unwrap();
    format!("{before}NAME`:\n{}", rest.find("--- stderr").map_or("", |at| &rest[at..]))
}

#[test]
fn models_are_listed_pulled_shown_and_removed() {
    let (world, server) = (World::new(), server());
    snapshot!(without_catalog(&observe(&world, &server, &["models", "list"])), @r"
    exit 0
    --- stdout
      NAME                           PARAMETERS  QUANTIZATION     SIZE   MEMORY   WINDOW
    In Ollama at http://[SERVER]:
      qwen2.5-coder:1.5b             6.7B        Q4_0           3.8 GB        -        -  llama
      llama3:latest                  6.7B        Q4_0           3.8 GB        -        -  llama
    To download with `agent models pull NAME`:
    ");
    snapshot!(observe(&world, &server, &["models", "pull", "deepseek-coder:6.7b"]), @r"
    exit 0
    --- stderr
    pulling manifest
    pulling ce0a1587d404
      20 % of 3.8 GB
      40 % of 3.8 GB
      70 % of 3.8 GB
    pulling 7a1205d88448
    verifying sha256 digest
    writing manifest
    removing unused layers
    success
    pulled deepseek-coder:6.7b
    ");
    let shown = observe(&world, &server, &["models", "show", "deepseek-coder:6.7b"]);
    snapshot!(shown.split("approach").next().unwrap(), @r"
    exit 0
    --- stdout
    family          llama
    parameters      7.7 B
    trained window  16,384
    capabilities    completion
    chat template   yes
    runs            locally
    ");
    snapshot!(observe(&world, &server, &["models", "rm", "llama3"]), @r"
    exit 0
    --- stderr
    removed llama3
    ");
    let left: Vec<_> = server.models().into_iter().map(|m| m.name).collect();
    assert_eq!(left, ["qwen2.5-coder:1.5b", "deepseek-coder:6.7b"]);
}

#[test]
fn a_failed_pull_is_reported_although_the_status_is_200() {
    let (world, server) = (World::new(), server());
    snapshot!(observe(&world, &server, &["models", "pull", "no-such-model"]), @r"
    exit 5
    --- stderr
    pulling manifest
    error: there is no model no-such-model to pull
    ");
}

#[test]
fn an_unreachable_server_is_named() {
    let world = World::new();
    let run = |args| world.tell(&world.agent(args).env("OLLAMA_HOST", "127.0.0.1:9").output().unwrap());
    snapshot!(without_catalog(&run(&["models", "list"])), @r"
    exit 0
    --- stdout
      NAME                           PARAMETERS  QUANTIZATION     SIZE   MEMORY   WINDOW
    To download with `agent models pull NAME`:
    --- stderr
    Ollama does not answer: no connection to http://127.0.0.1:9: Connection refused (os error 111)
    ");
    snapshot!(run(&["models", "show", "llama3"]), @r"
    exit 5
    --- stderr
    error: no connection to http://127.0.0.1:9: Connection refused (os error 111)
    hint: start it with `ollama serve`, or set its address with OLLAMA_HOST or --base-url
    ");
    let list = world.agent(&["models", "list"]).output().unwrap();
    assert!(list.stderr.is_empty(), "Ollama should not be mentioned unless an address is set");
}

#[test]
fn models_list_works_for_openai_compatible_servers() {
    let world = World::new();
    let server = Server::of(Personality::LlamaServer);
    snapshot!(world.observe(&["models", "list", "--base-url", &server.openai_url()]), @r"
    exit 0
    --- stdout
    qwen2.5-coder-1.5b
    ");
}

#[test]
fn the_error_for_a_missing_model_lists_the_available_models_and_the_pull_flag() {
    let (world, server) = (World::new(), server());
    snapshot!(observe(&world, &server, &["run", "--model", "deepseek-coder:6.7b", "x"]), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: Ollama at http://[SERVER] does not have the model deepseek-coder:6.7b; it has qwen2.5-coder:1.5b, llama3:latest
    pull it with `agent models pull deepseek-coder:6.7b`, or add --pull
    show: agent sessions show [SESSION]
    ");
}
