//! What a setting is: its key, its values, and who may set it.

use serde_json::Value;

use crate::hooks::Hook;
use crate::language_servers::Configured;

/// The values of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Any non-empty string.
    Text,
    /// Text that is never shown.
    Secret,
    /// HTTP headers, one `Name: value` each; the values are never shown. Files may also use a
    /// table.
    Headers,
    /// Environment variables, one `NAME` or `NAME=VALUE` each; the values are never shown. Files
    /// may also use a table.
    Variables,
    /// A list of tables, which can only be set in a file.
    Tables(Tables),
    /// An integer in this range.
    Whole(u64, u64),
    /// A number in this range.
    Decimal(f64, f64),
    /// True or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What the tables in a list define.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    Hooks,
    LanguageServers,
}

impl Tables {
    /// Returns the keys that each table must have.
    fn required(self) -> &'static str {
        match self {
            Self::Hooks => "`on` and `command`",
            Self::LanguageServers => "`command` and `files`",
        }
    }

    /// Returns the file in `docs` that describes the tables.
    #[cfg(test)]
    pub(crate) fn document(self) -> &'static str {
        match self {
            Self::Hooks => "hooks.md",
            Self::LanguageServers => "language-servers.md",
        }
    }

    /// Checks a list.
    ///
    /// # Errors
    /// If a table has an invalid value. The message continues a sentence that starts with the
    /// setting's name.
    fn check(self, list: &Value) -> Result<(), String> {
        let not_tables = |e| format!("must be a list of tables, each with {}: {e}", self.required());
        match self {
            Self::Hooks => {
                let hooks: Vec<Hook> = serde_json::from_value(list.clone()).map_err(not_tables)?;
                hooks.iter().try_for_each(Hook::check)
            }
            Self::LanguageServers => {
                let servers: Vec<Configured> = serde_json::from_value(list.clone()).map_err(not_tables)?;
                servers.iter().try_for_each(Configured::check)
            }
        }
    }
}

/// Who may set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Anyone, including the repository. Such a setting only affects how the work is done.
    Repository,
    /// Anyone, but the repository may only lower the value. Such a setting affects time and money.
    RepositoryMayLower,
    /// The user. Such a setting decides where code and keys are sent, what is downloaded, how much
    /// is spent, or what commands may do.
    User,
    /// Only the environment, because neither a command line nor a file should contain the value.
    Environment,
}

/// How a setting is given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// Not at all.
    None,
    /// `--the-key VALUE`.
    Value(&'static str),
    /// `--the-key[=VALUE]`; the second string is the value of the bare flag.
    Optional(&'static str, &'static str),
    /// `--name VALUE`, which may be repeated.
    Each(&'static str, &'static str),
    /// `--name`; the second string is the value that the flag sets.
    Sets(&'static str, &'static str),
}

/// The subject of a setting, which determines which commands accept its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Group {
    /// Where the model is, and how to connect to it.
    Server = 1,
    /// How the model generates its answers: context window, sampling, thinking.
    Model = 2,
    /// How the work is done.
    Work = 4,
    /// When to stop.
    Budgets = 8,
    /// What commands may do.
    Safety = 16,
    /// Where files are kept.
    Files = 32,
    /// Which tools from other programs the model can use.
    Tools = 64,
}

impl Group {
    /// Returns the heading of these settings in `--help`.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Group::Server | Group::Model => "Model",
            Group::Work => "Work",
            Group::Budgets => "Budgets",
            Group::Safety => "Commands",
            Group::Files => "Files",
            Group::Tools => "Tools",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Definition {
    /// The key in settings files. Flags and variables are usually named after it: `--the-key` and
    /// `AGENT_THE_KEY`.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Option<&'static str>,
    pub(crate) flag: Flag,
    /// Additional variables with established names, such as `OLLAMA_HOST`.
    pub(crate) variables: &'static [&'static str],
    pub(crate) trust: Trust,
    pub(crate) group: Group,
    pub(crate) help: &'static str,
}

impl Definition {
    pub(crate) const fn new(key: &'static str, kind: Kind, trust: Trust, group: Group) -> Self {
        Self { key, kind, default: None, flag: Flag::None, variables: &[], trust, group, help: "" }
    }

    pub(crate) const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    pub(crate) const fn flag(self, flag: Flag) -> Self {
        Self { flag, ..self }
    }

    pub(crate) const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    pub(crate) const fn variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    /// Returns the environment variables that set it. The first one that is present wins.
    pub(crate) fn environment(&self) -> impl Iterator<Item = String> + '_ {
        // API keys are read only from the variables that other programs use for them. `AGENT_ENV`
        // is too common a name to mean "pass these variables on".
        let own = !matches!(self.kind, Kind::Secret | Kind::Variables | Kind::Tables(_));
        let own = own.then(|| format!("AGENT_{}", self.key.to_uppercase()));
        own.into_iter().chain(self.variables.iter().map(|v| (*v).to_owned()))
    }

    /// Returns the flag as the user types it, for use in messages.
    pub(crate) fn flag_name(&self) -> Option<String> {
        match self.flag {
            Flag::None => None,
            Flag::Sets(name, _) | Flag::Each(name, _) => Some(format!("--{name}")),
            Flag::Value(_) | Flag::Optional(..) => Some(format!("--{}", self.key.replace('_', "-"))),
        }
    }

    /// Returns whether messages may show its values.
    pub(crate) fn may_be_shown(&self) -> bool {
        !matches!(self.kind, Kind::Secret | Kind::Headers | Kind::Variables | Kind::Tables(_))
            && self.key != "proxy"
    }

    /// Returns the separator that joins the values of a repeated flag.
    pub(crate) fn separator(&self) -> &'static str {
        if matches!(self.kind, Kind::Headers | Kind::Variables) { "\n" } else { "," }
    }

    /// Parses a value given as text.
    ///
    /// # Errors
    /// If the value is invalid. The message says what is valid; the caller adds where the value
    /// came from.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Text | Kind::Secret | Kind::Choice(_) | Kind::Tables(_) => Value::from(text),
            Kind::Headers | Kind::Variables => text.lines().filter(|line| !line.trim().is_empty()).collect(),
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

    /// Checks a value from a file.
    ///
    /// # Errors
    /// Same as [`Definition::parse`].
    pub(crate) fn accept(&self, value: Value) -> Result<Value, String> {
        if let Kind::Tables(tables) = self.kind {
            return tables.check(&value).map(|()| value);
        }
        let list = match self.kind {
            Kind::Headers => Some(each(&value, ": ", header)),
            Kind::Variables => Some(each(&value, "=", variable)),
            _ => None,
        };
        if let Some(list) = list {
            return list.map(Value::from).ok_or_else(|| self.expected());
        }
        let fits = match self.kind {
            Kind::Text | Kind::Secret => value.as_str().is_some_and(|s| !s.trim().is_empty()),
            Kind::Whole(min, max) => value.as_u64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Decimal(min, max) => value.as_f64().is_some_and(|n| (min..=max).contains(&n)),
            Kind::Switch => value.is_boolean(),
            Kind::Choice(words) => value.as_str().is_some_and(|s| words.contains(&s)),
            Kind::Headers | Kind::Variables | Kind::Tables(_) => false,
        };
        if fits { Ok(value) } else { Err(self.expected()) }
    }

    /// Describes what a valid value is. The text ends a sentence that starts with the setting's
    /// name.
    fn expected(&self) -> String {
        match self.kind {
            Kind::Text | Kind::Secret => "must be a non-empty string".into(),
            Kind::Tables(tables) => format!("must be a list of tables, each with {}", tables.required()),
            Kind::Headers => "must be \"Name: value\", or a list or table of headers".into(),
            Kind::Variables => "must be NAME or NAME=VALUE, or a list or table of variables".into(),
            Kind::Whole(min, max) if max >= u64::from(u32::MAX) => {
                format!("must be an integer of at least {min}")
            }
            Kind::Whole(min, max) => format!("must be an integer from {min} to {max}"),
            Kind::Decimal(min, max) => format!("must be a number from {min} to {max}"),
            Kind::Switch => "must be true or false".into(),
            Kind::Choice(words) => format!("must be one of {}", words.join(", ")),
        }
    }
}

/// Reads a string, a list of strings, or a table. `separator` joins each name in the table to its
/// value. Returns `None` if `read` refuses an entry.
fn each(value: &Value, separator: &str, read: fn(&str) -> Option<String>) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![read(text)?]),
        Value::Array(list) => list.iter().map(|text| read(text.as_str()?)).collect(),
        Value::Object(table) => {
            let entries = table.iter();
            entries.map(|(name, value)| read(&format!("{name}{separator}{}", value.as_str()?))).collect()
        }
        _ => None,
    }
}

/// Normalizes `Name: value`.
fn header(text: &str) -> Option<String> {
    let (name, value) = text.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fits =
        !name.is_empty() && name.bytes().all(token) && !value.is_empty() && !value.contains(char::is_control);
    fits.then(|| format!("{name}: {value}"))
}

/// Checks `NAME` or `NAME=VALUE`.
fn variable(text: &str) -> Option<String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && !text.contains('\0');
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::settings::definition;

    #[test]
    fn the_message_about_an_invalid_value_says_what_is_valid() {
        let say = |key: &str, text: &str| definition(key).unwrap().parse(text).unwrap_err();
        assert_eq!(say("max_turns", "0"), "must be an integer of at least 1");
        assert_eq!(say("max_turns", "-1"), "must be an integer of at least 1");
        assert_eq!(say("num_ctx", "many"), "must be an integer from 256 to 16777216");
        assert_eq!(say("temperature", "NaN"), "must be a number from 0 to 2");
        assert_eq!(say("think", "hard"), "must be one of auto, on, off, low, medium, high, max");
        assert_eq!(say("pull", "maybe"), "must be true or false");
        assert_eq!(say("verify", " "), "must be a non-empty string");
        assert_eq!(say("env", "A-B=secret"), "must be NAME or NAME=VALUE, or a list or table of variables");
    }

    #[test]
    fn variables_are_a_text_a_list_or_a_table() {
        let env = definition("env").unwrap();
        assert_eq!(env.parse("A=1,2\nB").unwrap(), json!(["A=1,2", "B"]));
        assert_eq!(env.accept(json!(["A", "B="])).unwrap(), json!(["A", "B="]));
        assert_eq!(env.accept(json!({"A": "x=y", "B": ""})).unwrap(), json!(["A=x=y", "B="]));
        for wrong in [json!({"A": 1}), json!(["1A=x"]), json!("=x"), json!("A\0=x")] {
            assert!(env.accept(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
