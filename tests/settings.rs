//! Where settings come from, and the messages about invalid ones.

use crate::support::{World, snapshot};

#[test]
fn every_setting_is_shown_with_its_origin() {
    let world = World::with(&[(".agent.toml", "verify = 'make check'\nmax_turns = 10\n")]);
    world.write_user_settings("num_ctx = 16384\nmax_turns = 20\n");
    let output = world
        .agent(&["config", "show", "--temperature", "0.5", "--think"])
        .env("OLLAMA_HOST", "gpu.example:11434")
        .env("DEEPSEEK_API_KEY", "sk-secret")
        .output()
        .unwrap();
    snapshot!(world.tell(&output), @r"
    exit 0
    --- stdout
    model               -                                        default
    base_url            -                                        default
    ollama_host         gpu.example:11434                        OLLAMA_HOST
    openai_base_url     -                                        default
    ollama_api_key      -                                        default
    deepseek_api_key    (set)                                    DEEPSEEK_API_KEY
    openai_api_key      -                                        default
    api_key_file        -                                        default
    api_key_command     -                                        default
    headers             -                                        default
    ca_file             -                                        default
    client_cert_file    -                                        default
    client_key_file     -                                        default
    proxy               -                                        default
    connect_seconds     -                                        default
    first_byte_seconds  -                                        default
    idle_seconds        -                                        default
    pull                false                                    default
    num_ctx             16384                                    [WORLD]/home/.config/agent/config.toml
    gpu_layers          0                                        default
    temperature         0.5                                      --temperature
    max_answer_tokens   4096                                     default
    think               on                                       --think
    constrain           auto                                     default
    assume_vision       false                                    default
    verify              make check                               [WORLD]/repo/.agent.toml
    approach            auto                                     default
    edit_format         auto                                     default
    cut                 auto                                     default
    symbols             off                                      default
    attempts            1                                        default
    escalate            -                                        default
    fallback            -                                        default
    mcp_tools           -                                        default
    max_turns           10                                       [WORLD]/repo/.agent.toml
    max_tokens          -                                        default
    max_seconds         3600                                     default
    max_cost            -                                        default
    sandbox             true                                     default
    mask_secrets        true                                     default
    command_read_only   false                                    default
    env                 -                                        default
    allow_read          -                                        default
    allow_write         -                                        default
    command_network     loopback                                 default
    allow_hosts         -                                        default
    command_seconds     300                                      default
    command_memory      -                                        default
    command_processes   4096                                     default
    command_file_size   8192                                     default
    commit_author       -                                        default
    commit_trailer      -                                        default
    hooks               -                                        default
    language_servers    -                                        default
    state_dir           [WORLD]/home/.local/state/agent  default
    ");
}

#[test]
fn config_show_can_print_json() {
    let world = World::new();
    let output =
        world.agent(&["config", "show", "--json"]).env("OPENAI_API_KEY", "sk-secret").output().unwrap();
    assert!(!world.tell(&output).contains("sk-secret"));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["openai_api_key"]["value"], "(set)");
    assert_eq!(value["openai_api_key"]["from"], "OPENAI_API_KEY");
    assert_eq!(value["max_turns"], serde_json::json!({"value": 40, "origin": "default", "from": "default"}));
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    let world = World::with(&[(".agent.toml", "verfy = 'make check'\n")]);
    snapshot!(world.observe(&["run", "x"]), @r#"
    exit 2
    --- stderr
    error: [WORLD]/repo/.agent.toml:1: unknown setting "verfy"; did you mean "verify"?
    "#);
}

#[test]
fn a_repository_cannot_send_keys_elsewhere_or_leave_the_sandbox() {
    let world = World::with(&[(".agent.toml", "base_url = 'https://evil.example/v1'\n")]);
    snapshot!(world.observe(&["run", "x"]), @r"
    exit 2
    --- stderr
    error: [WORLD]/repo/.agent.toml:1: a repository may not set base_url: only you decide where code and keys go, how much is spent, and what commands may do
    hint: remove the line, or set it in your own settings file, in the environment or with a flag
    ");
    world.write(".agent.toml", "sandbox = false\n");
    snapshot!(world.observe(&["run", "x"]), @r"
    exit 2
    --- stderr
    error: [WORLD]/repo/.agent.toml:1: a repository may not set sandbox: only you decide where code and keys go, how much is spent, and what commands may do
    hint: remove the line, or set it in your own settings file, in the environment or with a flag
    ");
}

/// Issue 9, bug 6: a repository could set `think` and raise `max_answer_tokens`, even though both
/// affect the cost.
#[test]
fn bug_6_a_repository_cannot_turn_thinking_on_or_allow_longer_answers() {
    let world = World::with(&[(".agent.toml", "think = 'high'\n")]);
    let seen = world.observe(&["run", "x"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("a repository may not set think"), "{seen}");
    world.write(".agent.toml", "max_answer_tokens = 1000000\n");
    let seen = world.observe(&["config", "show"]);
    assert!(seen.contains("warning: "), "{seen}");
    assert!(seen.contains("max_answer_tokens   4096"), "{seen}");
    world.write(".agent.toml", "max_answer_tokens = 1000\n");
    assert!(world.observe(&["config", "show"]).contains("max_answer_tokens   1000"));
}

#[test]
fn a_repository_cannot_raise_a_budget() {
    let world = World::with(&[(".agent.toml", "max_seconds = 100000\n")]);
    let seen = world.observe(&["config", "show"]);
    assert!(seen.contains("warning: "), "{seen}");
    assert!(seen.contains("max_seconds         3600"), "{seen}");
}

#[test]
fn a_misspelled_variable_causes_a_warning() {
    let world = World::new();
    let output = world.agent(&["config", "show"]).env("AGENT_MODLE", "x").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "warning: AGENT_MODLE is not a setting; did you mean AGENT_MODEL?\n"
    );
}
