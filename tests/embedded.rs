//! Models that run in the agent's own process. The tiny model's answers are nonsense, so these
//! tests cover how a model is found, loaded and stopped, not what it can do.

#![cfg(feature = "embedded")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{World, json_lines, snapshot};

/// An address where no Ollama server is listening.
const NOWHERE: (&str, &str) = ("OLLAMA_HOST", "127.0.0.1:9");

/// The arguments for a run that is limited to two turns and short answers.
const RUN: [&str; 7] = [
    "run",
    "--json",
    "--approach=tools",
    "--max-turns=2",
    "--max-answer-tokens=64",
    "--num-ctx=16384",
    "Fix it.",
];

/// Writes the tiny model to the folder for downloaded models.
fn downloaded(world: &World) {
    let models = world.home().join(".cache/agent/models");
    std::fs::create_dir_all(&models).unwrap();
    tiny_model::write(&models.join("tiny-coder.gguf")).unwrap();
}

fn events(world: &World, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = world.agent(args).envs([NOWHERE]).output().unwrap();
    (output.status.code(), json_lines(&String::from_utf8(output.stdout).unwrap()))
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

#[test]
fn without_any_server_a_model_file_on_this_machine_is_used() {
    let world = World::with_a_bug();
    downloaded(&world);
    let (code, records) = events(&world, &RUN);
    assert_eq!(code, Some(4), "the run should end at the budget of two turns");
    let model = of(&records, "model")[0];
    assert_eq!((model["server"].as_str(), model["model"].as_str()), (Some("embedded"), Some("tiny-coder")));
    let counts: Vec<&Value> = of(&records, "output").iter().map(|output| &output["counts"]).collect();
    let evaluated = counts[1]["evaluated_tokens"].as_u64().unwrap();
    let added = counts[1]["prompt_tokens"].as_u64().unwrap() - counts[0]["prompt_tokens"].as_u64().unwrap();
    assert!(evaluated <= added, "{evaluated} evaluated, {added} added");
    // The next session reuses the evaluation of the system prompt.
    let (_, again) = events(&world, &RUN);
    let first = &of(&again, "output")[0]["counts"];
    let (prompt, evaluated) = (first["prompt_tokens"].as_u64(), first["evaluated_tokens"].as_u64());
    assert!(evaluated < prompt.map(|tokens| tokens / 2), "{evaluated:?} of {prompt:?} evaluated");
}

#[test]
fn even_a_model_of_random_weights_writes_calls_of_existing_tools() {
    let world = World::with_a_bug();
    downloaded(&world);
    // For small models, calls are constrained by default.
    let (_, records) = events(&world, &RUN);
    assert_eq!(of(&records, "model")[0]["constrained"], true);
    let answers = of(&records, "output");
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let text = answer["content"].as_str().unwrap();
        let tool = text.strip_prefix("{\"tool\": \"").and_then(|rest| rest.split('"').next()).unwrap_or(text);
        let known =
            ["read_file", "list_files", "search", "apply_patch", "run_command", "run_tests", "finish"];
        assert!(known.contains(&tool), "{text}");
    }
    let (_, records) = events(&world, &[&RUN[..], &["--constrain=off"]].concat());
    assert!(!of(&records, "output")[0]["content"].as_str().unwrap().starts_with("{\"tool"));
}

#[test]
fn bug_a_model_that_cannot_be_constrained_runs_without_constraints_and_a_warning_says_so() {
    let world = World::with_a_bug();
    tiny_model::write_with_long_token(&world.home().join("long.gguf")).unwrap();
    let run =
        ["run", "--approach=tools", "--model=../home/long.gguf", "--max-turns=1", "--max-answer-tokens=64"];
    let output = world.agent(&[&run[..], &["Fix it."]].concat()).output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 4\n"), "{seen}");
    assert_eq!(
        seen.matches("cannot constrain this model's answers to the tools' schemas").count(),
        1,
        "{seen}"
    );
    assert!(!seen.contains("panic"), "{seen}");
    let output = world.agent(&[&run[..], &["--constrain=off", "Fix it."]].concat()).output().unwrap();
    assert!(!world.tell(&output).contains("constrain"));
}

#[test]
fn a_model_file_can_be_selected_by_its_path_or_as_an_embedded_model() {
    let world = World::with_a_bug();
    downloaded(&world);
    tiny_model::write(&world.home().join("other.gguf")).unwrap();
    for (model, name) in [("embedded:tiny-coder", "tiny-coder"), ("../home/other.gguf", "other")] {
        let (_, records) = events(
            &world,
            &["run", "--json", "--model", model, "--max-turns=1", "--max-answer-tokens=64", "Fix it."],
        );
        assert_eq!(of(&records, "model")[0]["model"], name);
    }
}

#[test]
fn a_file_that_cannot_be_loaded_is_refused_in_one_sentence() {
    let world = World::with_a_bug();
    downloaded(&world);
    let file = world.home().join(".cache/agent/models/tiny-coder.gguf");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let output = world.agent(&["run", "--quiet", "Fix it."]).envs([NOWHERE]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("tiny-coder.gguf"), "{said}");
    let output = world.agent(&["run", "--model", "missing.gguf", "Fix it."]).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: there is no model file missing.gguf on this machine
    available models: tiny-coder
    show: agent sessions show [SESSION]
    ");
}

#[test]
fn a_file_that_makes_the_engine_abort_is_refused_in_one_sentence() {
    let world = World::with_a_bug();
    downloaded(&world);
    let file = world.home().join(".cache/agent/models/tiny-coder.gguf");
    let mut bytes = std::fs::read(&file).unwrap();
    // llama.cpp aborts the process if the vocabulary contains the same token twice.
    let (old, twice) = (b"\x01\0\0\0\0\0\0\0b\x01\0\0\0\0\0\0\0c", b"\x01\0\0\0\0\0\0\0b\x01\0\0\0\0\0\0\0b");
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + old.len()].copy_from_slice(twice);
    std::fs::write(&file, bytes).unwrap();
    let output = world.agent(&["run", "--model", "embedded:tiny-coder", "Fix it."]).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: [WORLD]/home/.cache/agent/models/tiny-coder.gguf: the engine cannot load this file: GGML_ASSERT(id_to_token.size() == token_to_id.size()) failed
    show: agent sessions show [SESSION]
    ");
}

#[test]
fn without_a_model_the_error_lists_ways_to_get_one() {
    let world = World::with_a_bug();
    let output = world.agent(&["run", "Fix it."]).envs([NOWHERE]).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: no model found: Ollama is not running at http://127.0.0.1:9 (start it with `ollama serve`); DEEPSEEK_API_KEY is not set; no other model server was found on this machine (ports 9931, 8080, 8000, 1234, 12434, 30000, 1337, 5001, 5000)
    easiest: `agent models pull qwen2.5-coder-1.5b` or --pull (1.1 GB, a few minutes, no server or key needed)
    a stronger model on this machine: install Ollama, then `ollama pull qwen2.5-coder:7b` (4.7 GB)
    DeepSeek's platform: set DEEPSEEK_API_KEY; nothing to download, each run costs a few cents
    another server: specify it with --model and --base-url
    show: agent sessions show [SESSION]
    ");
    // If the name is in the catalog, the error explains how to get the model.
    let output = world.agent(&["run", "--model", "embedded:smollm2-135m", "Fix it."]).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 5
    --- stderr
    session [SESSION]
    model unavailable: there is no model file smollm2-135m on this machine
    pull it with `agent models pull smollm2-135m`, or add --pull
    show: agent sessions show [SESSION]
    ");
}

#[test]
fn a_run_killed_while_the_model_generates_is_resumed() {
    let world = World::with_a_bug();
    downloaded(&world);
    let run = [&RUN[..], &["--constrain=off"]].concat();
    let mut child = world.agent(&run).envs([NOWHERE]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Wait for the first text. At that point, the model is in the middle of an answer.
    lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|event| event["event"] == "text");
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, records) = events(&world, &["resume", "--json"]);
    assert_eq!(code, Some(4));
    assert!(!of(&records, "output").is_empty());
}
