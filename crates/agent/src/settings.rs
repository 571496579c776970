//! What can be set: one definition per setting, from which come its flag, its environment variable, its key in the two settings
//! files, its help and its line in `agent config show`.
//!
//! A repository's file comes from whoever wrote the repository. It may say how its work is done (the check to run, the form of
//! edits, sampling, lower budgets) and nothing that decides where code and keys are sent, what is downloaded, what is paid, or
//! what commands may do: see [`Trust`].

use serde::Deserialize;
use serde_json::Value;

/// Settings as the program uses them. Every field is a row of [`DEFINITIONS`], by name; a test holds the two together.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct Settings {
    pub(crate) model: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) ollama_host: Option<String>,
    pub(crate) openai_base_url: Option<String>,
    pub(crate) ollama_api_key: Option<String>,
    pub(crate) deepseek_api_key: Option<String>,
    pub(crate) openai_api_key: Option<String>,
    pub(crate) api_key_file: Option<String>,
    pub(crate) api_key_command: Option<String>,
    pub(crate) headers: Option<Vec<String>>,
    pub(crate) ca_file: Option<String>,
    pub(crate) client_cert_file: Option<String>,
    pub(crate) client_key_file: Option<String>,
    pub(crate) proxy: Option<String>,
    pub(crate) connect_seconds: Option<u64>,
    pub(crate) first_byte_seconds: Option<u64>,
    pub(crate) idle_seconds: Option<u64>,
    pub(crate) pull: bool,
    pub(crate) num_ctx: Option<u32>,
    pub(crate) temperature: f32,
    pub(crate) max_answer_tokens: u32,
    pub(crate) think: String,
    pub(crate) verify: Option<String>,
    pub(crate) dialect: String,
    pub(crate) edit_form: String,
    pub(crate) cut: String,
    pub(crate) max_turns: u32,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_seconds: u64,
    pub(crate) max_cost: Option<f64>,
    pub(crate) sandbox: bool,
    pub(crate) mask_secrets: bool,
    pub(crate) command_read_only: bool,
    pub(crate) allow_read: Option<String>,
    pub(crate) allow_write: Option<String>,
    pub(crate) command_network: String,
    pub(crate) allow_hosts: Option<String>,
    pub(crate) command_seconds: u64,
    pub(crate) command_memory: Option<u64>,
    pub(crate) command_processes: u64,
    pub(crate) command_file_size: u64,
    pub(crate) state_dir: Option<String>,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Any text but the empty one.
    Text,
    /// Text that is never shown.
    Secret,
    /// HTTP headers, `Name: value` each, whose values are never shown. In files also a table of names and values.
    Headers,
    /// A whole number in this range.
    Whole(u64, u64),
    /// A number in this range.
    Decimal(f64, f64),
    /// Yes or no.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Who may set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Also the repository's own file: it is about the work.
    Repository,
    /// The repository's own file may lower it, not raise it: it is about time and money.
    RepositoryMayLower,
    /// The user only: it is about where code and keys go, what is downloaded, and what commands may do.
    User,
    /// The environment only: no command line and no file should hold it.
    Environment,
}

/// How a setting is given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// Not at all.
    None,
    /// `--the-key VALUE`.
    Value(&'static str),
    /// `--the-key[=VALUE]`, where the bare flag means this value.
    Optional(&'static str, &'static str),
    /// `--name VALUE`, as often as there are values; they are joined by commas.
    Each(&'static str, &'static str),
    /// A flag of this name, which stands for this value.
    Stands(&'static str, &'static str),
}

/// What a setting is about, which decides the commands that take its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Group {
    /// Where the model is.
    Server = 1,
    /// How it is asked.
    Model = 2,
    /// How the work is done.
    Work = 4,
    /// When to stop.
    Budgets = 8,
    /// What commands may do.
    Safety = 16,
    /// Where things are kept.
    Files = 32,
}

impl Group {
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Group::Server | Group::Model => "Model",
            Group::Work => "Work",
            Group::Budgets => "Budgets",
            Group::Safety => "Commands",
            Group::Files => "Files",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Its key in files; the flag is `--its-key`, the variable `AGENT_ITS_KEY`.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Option<&'static str>,
    pub(crate) flag: Flag,
    /// Further variables, where the world already has a name for it.
    pub(crate) variables: &'static [&'static str],
    pub(crate) trust: Trust,
    pub(crate) group: Group,
    pub(crate) help: &'static str,
}

const THINK: &[&str] = &["auto", "on", "off", "low", "medium", "high"];
const DIALECTS: &[&str] = &["auto", "json", "whole-file"];
const EDIT_FORMS: &[&str] = &[
    "auto",
    "all",
    "unified",
    "unified-lines",
    "envelope",
    "envelope-lines",
    "search-replace",
    "search-replace-lines",
    "edits",
    "edits-lines",
    "whole-file",
    "whole-file-lines",
];
const NETWORKS: &[&str] = &["loopback", "none", "full"];
const CUTS: &[&str] = &["auto", "first", "read-on"];

/// Every setting, in the order of `agent config show`.
pub(crate) const DEFINITIONS: &[Definition] = &[
    Definition {
        key: "model",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("MODEL"),
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "ollama:NAME, deepseek:NAME, openai:NAME, replay:FILE or a bare NAME; without it, what is there",
    },
    Definition {
        key: "base_url",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("URL"),
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "The server's address, in place of OLLAMA_HOST or OPENAI_BASE_URL",
    },
    Definition {
        key: "ollama_host",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &["OLLAMA_HOST"],
        trust: Trust::User,
        group: Group::Server,
        help: "Where Ollama listens, as its own programs read it",
    },
    Definition {
        key: "openai_base_url",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
        trust: Trust::User,
        group: Group::Server,
        help: "Where an OpenAI-compatible server listens",
    },
    Definition {
        key: "ollama_api_key",
        kind: Kind::Secret,
        default: None,
        flag: Flag::None,
        variables: &["OLLAMA_API_KEY"],
        trust: Trust::Environment,
        group: Group::Server,
        help: "The key for Ollama's cloud",
    },
    Definition {
        key: "deepseek_api_key",
        kind: Kind::Secret,
        default: None,
        flag: Flag::None,
        variables: &["DEEPSEEK_API_KEY"],
        trust: Trust::Environment,
        group: Group::Server,
        help: "The key for DeepSeek's platform",
    },
    Definition {
        key: "openai_api_key",
        kind: Kind::Secret,
        default: None,
        flag: Flag::None,
        variables: &["OPENAI_API_KEY"],
        trust: Trust::Environment,
        group: Group::Server,
        help: "The key for an OpenAI-compatible server",
    },
    Definition {
        key: "api_key_file",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("FILE"),
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "Read the server's API key from a file",
    },
    Definition {
        key: "api_key_command",
        kind: Kind::Secret,
        default: None,
        flag: Flag::None,
        variables: &["AGENT_API_KEY_COMMAND"],
        trust: Trust::User,
        group: Group::Server,
        help: "A shell command that prints the server's API key",
    },
    Definition {
        key: "headers",
        kind: Kind::Headers,
        default: None,
        flag: Flag::Each("header", "NAME: VALUE"),
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "Send this HTTP header with every request to the server; may be repeated",
    },
    Definition {
        key: "ca_file",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "A PEM file of authorities to trust beside the system's",
    },
    Definition {
        key: "client_cert_file",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "A PEM file with the certificate that this client shows the server",
    },
    Definition {
        key: "client_key_file",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "A PEM file with that certificate's private key, where it is not in the same file",
    },
    Definition {
        key: "proxy",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "The proxy for servers on other machines, in place of HTTP_PROXY and HTTPS_PROXY; NO_PROXY holds",
    },
    Definition {
        key: "connect_seconds",
        kind: Kind::Whole(1, 3_600),
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "The most a connection to the server may take; without it, 10",
    },
    Definition {
        key: "first_byte_seconds",
        kind: Kind::Whole(1, 86_400),
        default: None,
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "Wait this long for an answer to begin; without it, 1800 for local servers and 300 for hosted ones",
    },
    Definition {
        key: "idle_seconds",
        kind: Kind::Whole(1, 86_400),
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::User,
        group: Group::Server,
        help: "The longest silence in the middle of an answer; without it, 300",
    },
    Definition {
        key: "pull",
        kind: Kind::Switch,
        default: Some("false"),
        flag: Flag::Stands("pull", "true"),
        variables: &[],
        trust: Trust::User,
        group: Group::Model,
        help: "Pull the model without asking when Ollama does not have it",
    },
    Definition {
        key: "num_ctx",
        kind: Kind::Whole(256, 16_777_216),
        default: None,
        flag: Flag::Value("TOKENS"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Model,
        help: "The context window to ask for; without it, the model's own up to 32768",
    },
    Definition {
        key: "temperature",
        kind: Kind::Decimal(0.0, 2.0),
        default: Some("0"),
        flag: Flag::Value("T"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Model,
        help: "Sampling temperature of the first try; later ones vary it when the model repeats itself",
    },
    Definition {
        key: "max_answer_tokens",
        kind: Kind::Whole(64, 1_000_000),
        default: Some("4096"),
        flag: Flag::Value("TOKENS"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Model,
        help: "The most one answer may have, thinking included",
    },
    Definition {
        key: "think",
        kind: Kind::Choice(THINK),
        default: Some("auto"),
        flag: Flag::Optional("LEVEL", "on"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Model,
        help: "Whether, or how hard, the model thinks before it answers",
    },
    Definition {
        key: "verify",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("CMD"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Work,
        help: "The command that must succeed at the end; without it, the detected test command",
    },
    Definition {
        key: "dialect",
        kind: Kind::Choice(DIALECTS),
        default: Some("auto"),
        flag: Flag::Value("FORM"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Work,
        help: "The form in which the model is asked to write edits",
    },
    Definition {
        key: "edit_form",
        kind: Kind::Choice(EDIT_FORMS),
        default: Some("auto"),
        flag: Flag::Value("FORM"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Work,
        help: "The form of edits in JSON calls that the model is told of; all are taken. auto: by its family",
    },
    Definition {
        key: "cut",
        kind: Kind::Choice(CUTS),
        default: Some("auto"),
        flag: Flag::Value("WHEN"),
        variables: &[],
        trust: Trust::Repository,
        group: Group::Work,
        help: "Cut the answer after its first call, or read on for more; auto: first for local models",
    },
    Definition {
        key: "max_turns",
        kind: Kind::Whole(1, u32::MAX as u64),
        default: Some("40"),
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::RepositoryMayLower,
        group: Group::Budgets,
        help: "Requests to the model",
    },
    Definition {
        key: "max_tokens",
        kind: Kind::Whole(1, i64::MAX as u64),
        default: None,
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::RepositoryMayLower,
        group: Group::Budgets,
        help: "Prompt and generated tokens together",
    },
    Definition {
        key: "max_seconds",
        kind: Kind::Whole(1, 31_536_000),
        default: Some("3600"),
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::RepositoryMayLower,
        group: Group::Budgets,
        help: "Wall-clock time",
    },
    Definition {
        key: "max_cost",
        kind: Kind::Decimal(0.0, 1e9),
        default: None,
        flag: Flag::Value("DOLLARS"),
        variables: &[],
        trust: Trust::RepositoryMayLower,
        group: Group::Budgets,
        help: "Money, where the server's prices are known",
    },
    Definition {
        key: "sandbox",
        kind: Kind::Switch,
        default: Some("true"),
        flag: Flag::Stands("dangerously-no-sandbox", "false"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "Run commands with all your rights and the network: only where something else confines them",
    },
    Definition {
        key: "mask_secrets",
        kind: Kind::Switch,
        default: Some("true"),
        flag: Flag::Stands("no-mask-secrets", "false"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "Show keys, tokens and passwords to the model, the journal and the screen as they are",
    },
    Definition {
        key: "command_read_only",
        kind: Kind::Switch,
        default: Some("false"),
        flag: Flag::Stands("command-read-only", "true"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "Commands cannot write the work tree, only their temporary folder",
    },
    Definition {
        key: "allow_read",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("PATHS"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "What else commands may read: paths that begin with / or ~/, separated by colons",
    },
    Definition {
        key: "allow_write",
        kind: Kind::Text,
        default: None,
        flag: Flag::Value("PATHS"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "What else commands may write",
    },
    Definition {
        key: "command_network",
        kind: Kind::Choice(NETWORKS),
        default: Some("loopback"),
        flag: Flag::Stands("dangerously-allow-network", "full"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "Commands reach the network, and what they can read can leave",
    },
    Definition {
        key: "allow_hosts",
        kind: Kind::Text,
        default: None,
        flag: Flag::Each("allow-host", "HOST"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "Hosts that commands may reach, separated by commas: NAME, *.NAME or an address, with :PORT where it is not 443 or 80",
    },
    Definition {
        key: "command_seconds",
        kind: Kind::Whole(1, 86_400),
        default: Some("300"),
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::RepositoryMayLower,
        group: Group::Safety,
        help: "The most one command or test run may take",
    },
    Definition {
        key: "command_memory",
        kind: Kind::Whole(16, 1 << 30),
        default: None,
        flag: Flag::Value("MIB"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "The memory that all processes of a command may use; without it, three quarters of the machine's",
    },
    Definition {
        key: "command_processes",
        kind: Kind::Whole(8, 1_000_000),
        default: Some("4096"),
        flag: Flag::Value("N"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "The processes and threads that a command may have at a time",
    },
    Definition {
        key: "command_file_size",
        kind: Kind::Whole(1, 1 << 30),
        default: Some("8192"),
        flag: Flag::Value("MIB"),
        variables: &[],
        trust: Trust::User,
        group: Group::Safety,
        help: "The largest file that a command may write",
    },
    Definition {
        key: "state_dir",
        kind: Kind::Text,
        default: None,
        flag: Flag::None,
        variables: &[],
        trust: Trust::Environment,
        group: Group::Files,
        help: "Where sessions are kept",
    },
];

/// What a repository's file may set, as `agent config show --help` ends with.
pub(crate) fn trust_help() -> String {
    let those = |trust| {
        let keys = DEFINITIONS.iter().filter(|d| d.trust == trust).map(|d| d.key);
        keys.collect::<Vec<_>>().join(", ")
    };
    format!(
        "A repository's .agent.toml is taken from whoever wrote the repository. It may set {}; it may lower, not raise, {}; \
         everything else is the user's to set.",
        those(Trust::Repository),
        those(Trust::RepositoryMayLower)
    )
}

/// The definition of a key.
pub(crate) fn definition(key: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.key == key)
}

impl Definition {
    /// The variables that set it, the first that is set wins.
    pub(crate) fn environment(&self) -> impl Iterator<Item = String> + '_ {
        // A key that lives in the environment only goes by the name the world has for it, if there is one.
        let own = (self.kind != Kind::Secret).then(|| format!("AGENT_{}", self.key.to_uppercase()));
        own.into_iter().chain(self.variables.iter().map(|v| (*v).to_owned()))
    }

    /// How the flag is written, for messages.
    pub(crate) fn flag_name(&self) -> Option<String> {
        match self.flag {
            Flag::None => None,
            Flag::Stands(name, _) | Flag::Each(name, _) => Some(format!("--{name}")),
            Flag::Value(_) | Flag::Optional(..) => Some(format!("--{}", self.key.replace('_', "-"))),
        }
    }

    /// Whether messages may repeat a value of it.
    pub(crate) fn may_be_shown(&self) -> bool {
        !matches!(self.kind, Kind::Secret | Kind::Headers) && self.key != "proxy"
    }

    /// Reads a value from text.
    ///
    /// # Errors
    /// Says what it must be; the caller knows where it came from.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Text | Kind::Secret | Kind::Choice(_) => Value::from(text),
            Kind::Headers => text.lines().filter(|line| !line.trim().is_empty()).collect(),
            Kind::Whole(..) => text.parse::<u64>().map_or(Value::from(text), Value::from),
            Kind::Decimal(..) => text.parse::<f64>().map_or(Value::from(text), Value::from),
            Kind::Switch => match text {
                "true" | "1" | "yes" | "on" => Value::Bool(true),
                "false" | "0" | "no" | "off" => Value::Bool(false),
                other => Value::from(other),
            },
        };
        self.accept(value)
    }

    /// Checks a value that has a type already.
    ///
    /// # Errors
    /// Says what it must be.
    pub(crate) fn accept(&self, value: Value) -> Result<Value, String> {
        if self.kind == Kind::Headers {
            return headers(&value).map(Value::from).ok_or_else(|| self.demand());
        }
        let fits = match self.kind {
            Kind::Text | Kind::Secret => value.as_str().is_some_and(|s| !s.trim().is_empty()),
            Kind::Whole(min, max) => value.as_u64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Decimal(min, max) => value.as_f64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Switch => value.is_boolean(),
            Kind::Choice(words) => value.as_str().is_some_and(|s| words.contains(&s)),
            Kind::Headers => false,
        };
        if fits { Ok(value) } else { Err(self.demand()) }
    }

    fn demand(&self) -> String {
        match self.kind {
            Kind::Text | Kind::Secret => "must be text and not empty".into(),
            Kind::Headers => "must be \"Name: value\", or a list or a table of such headers".into(),
            Kind::Whole(min, max) if max >= u64::from(u32::MAX) => {
                format!("must be a whole number from {min}")
            }
            Kind::Whole(min, max) => format!("must be a whole number from {min} to {max}"),
            Kind::Decimal(min, max) => format!("must be a number from {min} to {max}"),
            Kind::Switch => "must be true or false".into(),
            Kind::Choice(words) => format!("must be one of {}", words.join(", ")),
        }
    }
}

/// Headers from a list of `Name: value`, one such text, or a table of names and values; `None` if one of them is no header.
fn headers(value: &Value) -> Option<Vec<String>> {
    let header = |text: &str| {
        let (name, value) = text.split_once(':')?;
        let (name, value) = (name.trim(), value.trim());
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let fits = !name.is_empty()
            && name.bytes().all(token)
            && !value.is_empty()
            && !value.contains(char::is_control);
        fits.then(|| format!("{name}: {value}"))
    };
    match value {
        Value::String(text) => Some(vec![header(text)?]),
        Value::Array(list) => list.iter().map(|text| header(text.as_str()?)).collect(),
        Value::Object(table) => {
            table.iter().map(|(name, value)| header(&format!("{name}: {}", value.as_str()?))).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_the_fields_of_settings_and_their_defaults_fit() {
        let mut values = serde_json::Map::new();
        for d in DEFINITIONS {
            values.insert(d.key.into(), d.default.map_or(Value::Null, |text| d.parse(text).unwrap()));
        }
        let settings: Settings = serde_json::from_value(Value::Object(values.clone())).unwrap();
        let back = serde_json::to_value(settings).unwrap();
        assert_eq!(back.as_object().unwrap().keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_fit_is_told_what_would() {
        let say = |key: &str, text: &str| definition(key).unwrap().parse(text).unwrap_err();
        assert_eq!(say("max_turns", "0"), "must be a whole number from 1");
        assert_eq!(say("max_turns", "-1"), "must be a whole number from 1");
        assert_eq!(say("num_ctx", "many"), "must be a whole number from 256 to 16777216");
        assert_eq!(say("temperature", "NaN"), "must be a number from 0 to 2");
        assert_eq!(say("think", "hard"), "must be one of auto, on, off, low, medium, high");
        assert_eq!(say("pull", "maybe"), "must be true or false");
        assert_eq!(say("verify", " "), "must be text and not empty");
    }

    #[test]
    fn nothing_that_endangers_the_user_is_open_to_a_repository() {
        let open: Vec<_> =
            DEFINITIONS.iter().filter(|d| d.trust == Trust::Repository).map(|d| d.key).collect();
        assert_eq!(
            open,
            ["num_ctx", "temperature", "max_answer_tokens", "think", "verify", "dialect", "edit_form", "cut"]
        );
    }
}
