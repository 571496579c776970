//! Every setting.
//!
//! A repository's `.agent.toml` comes from whoever wrote the repository. It may control how the
//! work is done, and it may lower budgets. It cannot decide where code and keys are sent, what is
//! downloaded, how much is spent, or what commands may do: see [`Trust`].

use super::{Definition, Flag, Group, Kind, Tables, Trust};

const THINK: &[&str] = &["auto", "on", "off", "low", "medium", "high", "max"];
const CONSTRAIN: &[&str] = &["auto", "on", "off"];
const APPROACHES: &[&str] = &["auto", "tools", "whole-file"];
const EDIT_FORMATS: &[&str] = &["auto", "edits", "unified", "envelope", "search-replace", "whole-file"];
const NETWORKS: &[&str] = &["loopback", "none", "full"];
const SYMBOLS: &[&str] = &["off", "map", "tool", "all"];
const CUTS: &[&str] = &["auto", "first", "read-on"];

/// Every setting, in the order that `agent config show` lists them.
pub(crate) const DEFINITIONS: &[Definition] = &[
    Definition::new("model", Kind::Text, Trust::User, Group::Server).flag(Flag::Value("MODEL")).help(
        "Use this model: ollama:NAME, deepseek:NAME, openai:NAME, replay:FILE or NAME [default: \
             auto-detect]",
    ),
    Definition::new("base_url", Kind::Text, Trust::User, Group::Server)
        .flag(Flag::Value("URL"))
        .help("Connect to the server at this address instead of OLLAMA_HOST or OPENAI_BASE_URL"),
    Definition::new("ollama_host", Kind::Text, Trust::User, Group::Server)
        .variables(&["OLLAMA_HOST"])
        .help("Address of the Ollama server, in the format that Ollama itself reads"),
    Definition::new("openai_base_url", Kind::Text, Trust::User, Group::Server)
        .variables(&["OPENAI_BASE_URL", "OPENAI_API_BASE"])
        .help("Address of an OpenAI-compatible server"),
    Definition::new("ollama_api_key", Kind::Secret, Trust::Environment, Group::Server)
        .variables(&["OLLAMA_API_KEY"])
        .help("API key for Ollama's cloud"),
    Definition::new("deepseek_api_key", Kind::Secret, Trust::Environment, Group::Server)
        .variables(&["DEEPSEEK_API_KEY"])
        .help("API key for DeepSeek's platform"),
    Definition::new("openai_api_key", Kind::Secret, Trust::Environment, Group::Server)
        .variables(&["OPENAI_API_KEY"])
        .help("API key for an OpenAI-compatible server"),
    Definition::new("api_key_file", Kind::Text, Trust::User, Group::Server)
        .flag(Flag::Value("FILE"))
        .help("Read the server's API key from this file"),
    Definition::new("api_key_command", Kind::Secret, Trust::User, Group::Server)
        .variables(&["AGENT_API_KEY_COMMAND"])
        .help("Shell command that prints the server's API key"),
    Definition::new("headers", Kind::Headers, Trust::User, Group::Server)
        .flag(Flag::Each("header", "NAME: VALUE"))
        .help("Send this HTTP header with every request to the server; may be repeated"),
    Definition::new("ca_file", Kind::Text, Trust::User, Group::Server)
        .help("PEM file with certificate authorities to trust in addition to the system's"),
    Definition::new("client_cert_file", Kind::Text, Trust::User, Group::Server)
        .help("PEM file with the client certificate to present to the server"),
    Definition::new("client_key_file", Kind::Text, Trust::User, Group::Server)
        .help("PEM file with the client certificate's private key, if client_cert_file does not contain it"),
    Definition::new("proxy", Kind::Text, Trust::User, Group::Server)
        .help("Proxy for remote servers, instead of HTTP_PROXY and HTTPS_PROXY; NO_PROXY still applies"),
    Definition::new("connect_seconds", Kind::Whole(1, 3_600), Trust::User, Group::Server)
        .help("Time limit for connecting to the server [default: 10]"),
    Definition::new("first_byte_seconds", Kind::Whole(1, 86_400), Trust::User, Group::Server)
        .flag(Flag::Value("SECONDS"))
        .help(
            "Wait this long for an answer to start [default: 1800 for local servers, 300 for hosted \
             ones]",
        ),
    Definition::new("idle_seconds", Kind::Whole(1, 86_400), Trust::User, Group::Server)
        .help("Longest pause to allow within an answer [default: 300]"),
    Definition::new("pull", Kind::Switch, Trust::User, Group::Model)
        .default("false")
        .flag(Flag::Sets("pull", "true"))
        .help("Pull a missing model without asking"),
    // A large window can exhaust the memory of the user's machine, which a repository knows nothing
    // about.
    Definition::new("num_ctx", Kind::Whole(256, 16_777_216), Trust::User, Group::Model)
        .flag(Flag::Value("TOKENS"))
        .help(
            "Request a context window of this size [default: the model's own, up to 32768; embedded: up to \
             16384]",
        ),
    Definition::new("gpu_layers", Kind::Whole(0, 10_000), Trust::User, Group::Model)
        .default("0")
        .flag(Flag::Value("N"))
        .help("Run this many layers of an embedded model on a GPU, if the engine was built for one"),
    Definition::new("temperature", Kind::Decimal(0.0, 2.0), Trust::Repository, Group::Model)
        .flag(Flag::Value("T"))
        .help(
            "Set the sampling temperature of the first attempt; retries vary it if the model repeats \
             itself [default: from the model's profile, usually 0]",
        ),
    // A repository may not raise this limit, because answers and thinking are billed by the token.
    Definition::new("max_answer_tokens", Kind::Whole(64, 1_000_000), Trust::RepositoryMayLower, Group::Model)
        .default("4096")
        .flag(Flag::Value("TOKENS"))
        .help("Limit each answer to this many tokens, including thinking"),
    Definition::new("think", Kind::Choice(THINK), Trust::User, Group::Model)
        .default("auto")
        .flag(Flag::Optional("LEVEL", "on"))
        .help("Turn thinking on or off, or set its effort"),
    Definition::new("constrain", Kind::Choice(CONSTRAIN), Trust::User, Group::Model)
        .default("auto")
        .flag(Flag::Optional("WHEN", "on"))
        .help(
            "Restrict the model to valid tool calls, if the server can enforce it; `auto` uses the model's \
             profile",
        ),
    Definition::new("assume_vision", Kind::Switch, Trust::User, Group::Model)
        .default("false")
        .help("Send images (`agent run --image`) to the model even if the server does not report that the model accepts them"),
    // The settings below determine how the work is done. The sandbox, the budgets and the limit on
    // answers apply regardless of them.
    Definition::new("verify", Kind::Text, Trust::Repository, Group::Work)
        .flag(Flag::Value("CMD"))
        .help("Run this command to decide whether the task is done [default: the detected test command]"),
    Definition::new("approach", Kind::Choice(APPROACHES), Trust::Repository, Group::Work)
        .default("auto")
        .flag(Flag::Value("HOW"))
        .help(
            "Let the model call tools, or show it files and ask it to return them whole; `auto` uses \
             the model's profile",
        ),
    Definition::new("edit_format", Kind::Choice(EDIT_FORMATS), Trust::Repository, Group::Work)
        .default("auto")
        .flag(Flag::Value("FORMAT"))
        .help("Tell the model to write edits in this format (the agent understands every format); `auto` uses the model's profile"),
    Definition::new("cut", Kind::Choice(CUTS), Trust::Repository, Group::Work)
        .default("auto")
        .flag(Flag::Value("WHEN"))
        .help(
            "Stop reading an answer after its first call (`first`) or at its end (`read-on`); `auto` \
             means `first` for local models",
        ),
    Definition::new("symbols", Kind::Choice(SYMBOLS), Trust::Repository, Group::Work)
        .default("off")
        .flag(Flag::Value("WHAT"))
        .help("Show a code map if the task does not name a file (`map`), offer a tool that looks up names (`tool`), or both (`all`)"),
    // A repository may not raise this number. All tries share the same budgets, but more tries can
    // use up more of them, which costs the user money.
    Definition::new("attempts", Kind::Whole(1, 20), Trust::RepositoryMayLower, Group::Work)
        .default("1")
        .flag(Flag::Value("N"))
        .help("Try the task up to this many times, until the tests pass; if they never pass, keep the best try"),
    Definition::new("escalate", Kind::Text, Trust::User, Group::Work)
        .flag(Flag::Value("MODEL"))
        .help("If no try passes the tests, try once more with this model, which gets its own budgets"),
    Definition::new("fallback", Kind::Text, Trust::User, Group::Work)
        .flag(Flag::Value("MODEL"))
        .help("Continue with this model if the current model's server is unavailable"),
    Definition::new("mcp_tools", Kind::Text, Trust::User, Group::Tools)
        .flag(Flag::Each("mcp-tools", "PATTERN"))
        .help(
            "Let the model use the MCP tools that match this pattern (SERVER__TOOL, with * as a wildcard); may be \
             repeated [default: no MCP server is started]",
        ),
    Definition::new("max_turns", Kind::Whole(1, u32::MAX as u64), Trust::RepositoryMayLower, Group::Budgets)
        .default("40")
        .flag(Flag::Value("N"))
        .help("Stop after this many requests to the model"),
    Definition::new("max_tokens", Kind::Whole(1, i64::MAX as u64), Trust::RepositoryMayLower, Group::Budgets)
        .flag(Flag::Value("N"))
        .help("Stop after this many tokens (prompts and answers together)"),
    Definition::new("max_seconds", Kind::Whole(1, 31_536_000), Trust::RepositoryMayLower, Group::Budgets)
        .default("3600")
        .flag(Flag::Value("SECONDS"))
        .help("Stop after this much time"),
    Definition::new("max_cost", Kind::Decimal(0.0, 1e9), Trust::RepositoryMayLower, Group::Budgets)
        .flag(Flag::Value("DOLLARS"))
        .help("Stop when the cost reaches this amount, if the server's prices are known"),
    Definition::new("sandbox", Kind::Switch, Trust::User, Group::Safety)
        .default("true")
        .flag(Flag::Sets("dangerously-no-sandbox", "false"))
        .help("Run commands with all your permissions and full network access; use only inside another sandbox"),
    Definition::new("mask_secrets", Kind::Switch, Trust::User, Group::Safety)
        .default("true")
        .flag(Flag::Sets("no-mask-secrets", "false"))
        .help("Show keys, tokens and passwords to the model, in the journal and on the screen"),
    Definition::new("command_read_only", Kind::Switch, Trust::User, Group::Safety)
        .default("false")
        .flag(Flag::Sets("command-read-only", "true"))
        .help("Make the work tree read-only for commands; they can still write to their temporary folder"),
    Definition::new("env", Kind::Variables, Trust::User, Group::Safety)
        .flag(Flag::Each("env", "NAME[=VALUE]"))
        .help(
            "Set an environment variable for commands and tests; NAME alone passes on your value; may \
             be repeated",
        ),
    Definition::new("allow_read", Kind::Text, Trust::User, Group::Safety)
        .flag(Flag::Value("PATHS"))
        .help("Let commands read these paths too (colon-separated; each must be absolute or start with ~/)"),
    Definition::new("allow_write", Kind::Text, Trust::User, Group::Safety)
        .flag(Flag::Value("PATHS"))
        .help("Let commands write these paths too"),
    Definition::new("command_network", Kind::Choice(NETWORKS), Trust::User, Group::Safety)
        .default("loopback")
        .flag(Flag::Sets("dangerously-allow-network", "full"))
        .help("Give commands full network access; they can send out anything they can read"),
    Definition::new("allow_hosts", Kind::Text, Trust::User, Group::Safety)
        .flag(Flag::Each("allow-host", "HOST"))
        .help(
            "Let commands reach this host: NAME, *.NAME or an address, with :PORT if it is not 443 or \
             80; may be repeated",
        ),
    Definition::new("command_seconds", Kind::Whole(1, 86_400), Trust::RepositoryMayLower, Group::Safety)
        .default("300")
        .flag(Flag::Value("SECONDS"))
        .help("Stop a command or test run after this much time"),
    Definition::new("command_memory", Kind::Whole(16, 1 << 30), Trust::User, Group::Safety)
        .flag(Flag::Value("MIB"))
        .help(
            "Limit the memory of a command and its child processes [default: three quarters of the \
             machine's]",
        ),
    Definition::new("command_processes", Kind::Whole(8, 1_000_000), Trust::User, Group::Safety)
        .default("4096")
        .flag(Flag::Value("N"))
        .help("Limit the processes and threads of a command"),
    Definition::new("command_file_size", Kind::Whole(1, 1 << 30), Trust::User, Group::Safety)
        .default("8192")
        .flag(Flag::Value("MIB"))
        .help("Limit the size of each file that a command writes"),
    Definition::new("commit_author", Kind::Text, Trust::User, Group::Work)
        .help("Author of the commits created by --commit, as NAME <MAIL> [default: git's]"),
    Definition::new("commit_trailer", Kind::Text, Trust::User, Group::Work)
        .help("Last line of the commit message written by --commit, such as `Assisted-by: agent`"),
    Definition::new("hooks", Kind::Tables(Tables::Hooks), Trust::User, Group::Safety)
        .help("Commands to run at the start of a run, before and after each call, and at the end"),
    Definition::new("language_servers", Kind::Tables(Tables::LanguageServers), Trust::User, Group::Tools)
        .help("Language servers that check files after each edit"),
    Definition::new("state_dir", Kind::Text, Trust::Environment, Group::Files)
        .help("Folder for sessions and other state [default: ~/.local/state/agent]"),
];

/// Returns the text at the end of `agent config show --help`, which lists the settings that a
/// repository may set.
pub(crate) fn trust_help() -> String {
    let keys = |trust| {
        let keys = DEFINITIONS.iter().filter(|d| d.trust == trust).map(|d| d.key);
        keys.collect::<Vec<_>>().join(", ")
    };
    format!(
        "A repository's .agent.toml comes from whoever wrote the repository. It may set {}. It may lower, but not \
         raise, {}. Only the user can set the rest.",
        keys(Trust::Repository),
        keys(Trust::RepositoryMayLower)
    )
}

/// Returns the definition of a key.
pub(crate) fn definition(key: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.key == key)
}

/// Returns the definition and the value of a recorded setting, which may have a name from an
/// earlier version.
///
/// # Errors
/// If this version does not recognize the setting or its value.
pub(crate) fn recorded(key: &str, text: String) -> Result<(&'static Definition, String), String> {
    let known = definition(match key {
        "dialect" => "approach",
        "edit_form" => "edit_format",
        key => key,
    });
    let text = if key == "dialect" && text == "json" { "tools".to_owned() } else { text };
    match known.filter(|known| known.parse(&text).is_ok()) {
        Some(known) => Ok((known, text)),
        None => Err(format!(
            "the session's setting {key} = {text:?} is ignored: this version does not recognize it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn definitions_match_the_fields_of_settings_and_their_defaults_are_valid() {
        let mut values = serde_json::Map::new();
        for d in DEFINITIONS {
            values.insert(d.key.into(), d.default.map_or(Value::Null, |text| d.parse(text).unwrap()));
        }
        let settings: Settings = serde_json::from_value(Value::Object(values.clone())).unwrap();
        let back = serde_json::to_value(settings).unwrap();
        assert_eq!(back.as_object().unwrap().keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
    }

    /// Issue 9, bug 6: a repository could set `max_answer_tokens` and `think`.
    #[test]
    fn a_repository_decides_nothing_about_money_or_safety() {
        let keys = |trust| DEFINITIONS.iter().filter(|d| d.trust == trust).map(|d| d.key).collect::<Vec<_>>();
        assert_eq!(
            keys(Trust::Repository),
            ["temperature", "verify", "approach", "edit_format", "cut", "symbols"]
        );
        assert_eq!(
            keys(Trust::RepositoryMayLower),
            [
                "max_answer_tokens",
                "attempts",
                "max_turns",
                "max_tokens",
                "max_seconds",
                "max_cost",
                "command_seconds"
            ]
        );
    }
}
