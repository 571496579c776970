//! Model profiles: what they change in a request, and what overrides them.

use crate::support::{World, call, snapshot};
use fake_model::{Personality, Reply, Server};
use serde_json::{Value, json};

const PROFILE: &str = "\
names = ['DeepSeek-Coder-6.7B-Instruct-GGUF']

[[approach]]
value = 'whole-file'
measured = 'our 30 tasks: 12 solved, with tools 7'

[[temperature]]
value = 0.4

[[edit_format]]
value = 'unified'
guess = 'it was trained on diffs'

[[window]]
value = 8192
server = 'ollama'
";

/// Runs the agent with a model that [`PROFILE`] applies to, until the task is solved. Returns the
/// first chat request.
fn first_request(world: &World, flags: &[&str]) -> Value {
    first_request_to("deepseek-coder:6.7b", world, flags)
}

fn first_request_to(model: &str, world: &World, flags: &[&str]) -> Value {
    let server = Server::start();
    let patch = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";
    server.enqueue(Reply::text(call("apply_patch", json!({ "patch": patch }))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let args = [&["run", "--dry-run", "--model", model], flags, &["Repair add.sh."]].concat();
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    server.chats()[0].json.clone()
}

/// Returns the line of the system prompt that describes the editing tool, or `None` if the prompt
/// does not describe any tools.
fn editing_tool(request: &Value) -> Option<&str> {
    let system = request["messages"][0]["content"].as_str().unwrap();
    system.lines().find(|line| line.starts_with("apply_patch: "))
}

#[test]
fn the_users_profile_decides_how_a_model_is_asked_and_flags_override_it() {
    let world = World::with_a_bug();
    let request = first_request(&world, &[]);
    assert_eq!(
        (&request["options"]["temperature"], &request["options"]["num_ctx"]),
        (&json!(0.0), &json!(16384))
    );
    assert!(editing_tool(&request).unwrap().contains("\"edits\""), "{request:#}");

    world.write_user_profile("deepseek-coder.toml", PROFILE);
    let request = first_request(&world, &[]);
    assert_eq!(request["options"]["num_ctx"], 8192);
    assert!((request["options"]["temperature"].as_f64().unwrap() - 0.4).abs() < 1e-6, "{request:#}");
    assert_eq!(editing_tool(&request), None, "a model asked for whole files has no editing tool");

    let request = first_request(&world, &["--approach", "tools", "--temperature", "0", "--num-ctx", "4096"]);
    assert_eq!(
        (&request["options"]["temperature"], &request["options"]["num_ctx"]),
        (&json!(0.0), &json!(4096))
    );
    assert!(editing_tool(&request).unwrap().contains(r#"{"patch":"--- a/"#), "{request:#}");
    let request = first_request(&world, &["--approach", "tools", "--edit-format", "edits"]);
    assert!(editing_tool(&request).unwrap().contains("\"edits\""), "{request:#}");

    world.write_user_settings("approach = 'tools'\ntemperature = 0.7\n");
    let request = first_request(&world, &[]);
    assert!(editing_tool(&request).is_some(), "settings should override profiles too");
    assert!((request["options"]["temperature"].as_f64().unwrap() - 0.7).abs() < 1e-6, "{request:#}");
}

#[test]
fn a_model_that_thinks_gets_the_temperature_for_thinking_unless_a_flag_sets_it() {
    let world = World::with_a_bug();
    let sent = |flags: &[&str]| {
        let request = first_request_to("deepseek-r1:8b", &world, flags);
        request["options"]["temperature"].as_f64().unwrap()
    };
    assert!((sent(&[]) - 0.6).abs() < 1e-6);
    assert!((sent(&["--temperature", "0"])).abs() < 1e-6);
    assert!((sent(&["--think=off"])).abs() < 1e-6);
}

#[test]
fn a_profile_of_another_model_or_of_the_repository_changes_nothing() {
    let world = World::with_a_bug();
    world.write_user_profile("other.toml", &PROFILE.replace("6.7B", "1.3B"));
    world.write_user_profile("notes.txt", "no profile");
    world.write("profiles/deepseek-coder.toml", PROFILE);
    world.write(".config/agent/profiles/deepseek-coder.toml", PROFILE);
    world.write(".agent/profiles/deepseek-coder.toml", PROFILE);
    let request = first_request(&world, &[]);
    assert_eq!(
        (&request["options"]["temperature"], &request["options"]["num_ctx"]),
        (&json!(0.0), &json!(16384))
    );
    assert!(editing_tool(&request).unwrap().contains("\"edits\""), "{request:#}");
}

#[test]
fn an_invalid_profile_is_refused_before_a_session_begins() {
    let world = World::with_a_bug();
    world.write_user_profile("mine.toml", "names = ['x']\n\n[[approach]]\nvalue = 'whole'\n");
    snapshot!(world.observe(&["run", "--model", "deepseek-coder:6.7b", "x"]), @r#"
    exit 2
    --- stderr
    error: [WORLD]/home/.config/agent/profiles/mine.toml:4: value of approach must be one of tools, whole-file, not "whole"
    "#);
    assert!(!world.home().join(".local/state/agent/sessions").exists());
    world.write_user_profile("mine.toml", "names = ['x']\n[[temprature]]\nvalue = 1\n");
    snapshot!(world.observe(&["batch", "tasks.jsonl"]), @r"
    exit 2
    --- stderr
    error: [WORLD]/home/.config/agent/profiles/mine.toml:2: unknown field `temprature`, expected one of `names`, `approach`, `edit_format`, `temperature`, `think`, `window`, `constrain`
    ");
    let seen = world.observe(&["doctor"]);
    assert!(seen.contains("FAIL  settings  [WORLD]/home/.config/agent/profiles/mine.toml:2: "), "{seen}");
}

/// The recorded prompt uses the profile's edit format, and a replay must produce the same prompt
/// even if the profile has changed since.
#[test]
fn a_replay_sends_the_requests_of_the_recorded_profile() {
    let world = World::with_a_bug();
    world.write_user_profile("deepseek-coder.toml", PROFILE);
    first_request(&world, &["--approach", "tools"]);
    world.write_user_profile(
        "deepseek-coder.toml",
        &PROFILE.replace("unified", "envelope").replace("0.4", "0.9"),
    );
    let seen = world.observe(&["replay", "last"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
}

#[test]
fn doctor_and_show_print_where_each_value_comes_from_and_why() {
    let world = World::with_a_bug();
    world.write_user_profile("deepseek-coder.toml", PROFILE);
    let server = Server::start();
    let observe =
        |args: &[&str]| world.tell(&world.agent(args).env("OLLAMA_HOST", server.url()).output().unwrap());
    let seen = observe(&["doctor", "--model", "deepseek-coder:6.7b", "--temperature", "0.2"]);
    let from = seen.find("ok    window").unwrap();
    let to = seen.find("ok    folder").unwrap();
    snapshot!(&seen[from..to], @r"
    ok    window    8,192 tokens requested; to be verified by the first run
                    wanted: 8,192, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; no reason given
    ok    approach  whole-file, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; measured: our 30 tasks: 12 solved, with tools 7
    ok    edits     unified, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; a guess: it was trained on diffs
    ok    sampling  temperature 0.2, set by --temperature
    ok    thinking  auto, from built-in profiles/default.toml; a guess: Models that can think do so by default. Nothing was measured without thinking
    ok    calls     constrained: off, from built-in profiles/default.toml; a guess: Large models write valid calls. Only the embedded engine was measured
    ");
    snapshot!(observe(&["models", "show", "deepseek-coder:6.7b"]), @r"
    exit 0
    --- stdout
    family          llama
    parameters      7.7 B
    trained window  16,384
    capabilities    completion
    chat template   yes
    runs            locally
    approach        whole-file, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; measured: our 30 tasks: 12 solved, with tools 7
    edit format     unified, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; a guess: it was trained on diffs
    temperature     0.4, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; no reason given
    thinking        auto, from built-in profiles/default.toml; a guess: Models that can think do so by default. Nothing was measured without thinking
    constrain       off, from built-in profiles/default.toml; a guess: Large models write valid calls. Only the embedded engine was measured
    window          8,192, from [WORLD]/home/.config/agent/profiles/deepseek-coder.toml; no reason given
    ");
}

#[test]
fn bug_a_profile_with_constraints_leads_to_one_warning_if_the_server_supports_none() {
    let world = World::with_a_bug();
    world.write_user_profile("all.toml", "names = ['*']\n[[constrain]]\nvalue = 'on'\n");
    let server = Server::of(Personality::Generic);
    let agent = |args: &[&str]| {
        let at = server.openai_url();
        world.tell(
            &world
                .agent(&[args, &["--base-url", &at, "--model", "openai:some-model"]].concat())
                .output()
                .unwrap(),
        )
    };
    server.enqueue(Reply::text(call("list_files", json!({}))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let warning = "cannot constrain this model's answers to the tools' schemas";
    let run = ["run", "--dry-run", "--approach=tools", "--max-turns=2", "Repair add.sh."];
    let seen = agent(&run);
    assert_eq!(seen.matches(warning).count(), 1, "{seen}");
    let seen = agent(&["doctor"]);
    assert!(
        seen.contains("constrained: off, because the server cannot constrain them; otherwise on, from "),
        "{seen}"
    );
}
