//! Resolves settings from their sources, in this order of precedence: flags, environment variables,
//! the repository's `.agent.toml`, the user's `config.toml`, and defaults. Each value keeps its
//! origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toml::Spanned;

use crate::exit::{Failure, Result};
use crate::settings::{DEFINITIONS, Definition, Kind, Settings, Trust, definition};

/// The repository's settings file, next to `.git`.
pub(crate) const REPOSITORY_FILE: &str = ".agent.toml";
/// Maximum size of a settings file, in bytes.
const FILE_LIMIT: u64 = 64 * 1024;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag(String),
    Variable(String),
    Repository(PathBuf),
    User(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Variable(name) => write!(f, "{name}"),
            Origin::Repository(path) | Origin::User(path) => write!(f, "{}", path.display()),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// The environment variables of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// The variables whose names and values are UTF-8.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Environment {
    /// Keeps the variables that are UTF-8.
    pub(crate) fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let text = |(k, v): (OsString, OsString)| Some((k.into_string().ok()?, v.into_string().ok()?));
        Self { variables: variables.filter_map(text).collect() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        // An empty variable is treated as unset, because people write `OLLAMA_HOST= agent …` to
        // unset a variable for one command.
        self.variables.get(name).map(String::as_str).filter(|v| !v.trim().is_empty())
    }

    fn folder(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        // XDG base directory specification: relative paths are invalid and ignored.
        let set = self.get(variable).map(PathBuf::from).filter(|p| p.is_absolute());
        set.or_else(|| Some(Path::new(self.get("HOME")?).join(below_home)))
    }

    /// Returns the path of the user's settings file.
    pub(crate) fn user_file(&self) -> Option<PathBuf> {
        Some(self.folder("XDG_CONFIG_HOME", ".config")?.join("agent").join("config.toml"))
    }

    /// Returns the folder with the user's model profiles.
    pub(crate) fn profiles_dir(&self) -> Option<PathBuf> {
        Some(self.user_file()?.with_file_name("profiles"))
    }

    /// Returns the path of the user's price file.
    pub(crate) fn prices_file(&self) -> Option<PathBuf> {
        Some(self.user_file()?.with_file_name("prices.toml"))
    }

    /// Returns the default folder for sessions, if `AGENT_STATE_DIR` is not set.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        Some(self.folder("XDG_STATE_HOME", ".local/state")?.join("agent"))
    }

    /// Returns the folder for files that can be created or downloaded again.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        Some(self.folder("XDG_CACHE_HOME", ".cache")?.join("agent"))
    }

    /// Returns warnings about variables that look like misspelled settings. Other variables that
    /// start with `AGENT_` belong to other programs (some CI systems set a dozen), so they are not
    /// an error.
    fn misspelled(&self) -> Vec<String> {
        let names: Vec<String> = DEFINITIONS.iter().flat_map(Definition::environment).collect();
        let ours = self.variables.keys().filter(|k| k.starts_with("AGENT_") && !names.contains(k));
        ours.filter_map(|k| {
            let near = nearest(k, names.iter().map(String::as_str))?;
            Some(format!("{k} is not a setting; did you mean {near}?"))
        })
        .collect()
    }
}

/// All settings, each with its origin.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// All settings in the order they are defined. The value is null if a setting has none.
    pub(crate) values: Vec<(&'static Definition, Value, Origin)>,
    /// Warnings for the user.
    pub(crate) notes: Vec<String>,
    /// The names of the variables given with `--env`.
    env_flags: Vec<String>,
}

impl Resolved {
    /// Converts the values to the struct that the program uses.
    ///
    /// # Errors
    /// Never for values that passed [`Definition::accept`].
    pub(crate) fn settings(&self) -> Result<Settings> {
        let map: Map<_, _> = self.values.iter().map(|(d, v, _)| (d.key.to_owned(), v.clone())).collect();
        serde_json::from_value(Value::Object(map)).map_err(Failure::refused)
    }

    /// Returns the settings that are set by a flag, a variable or a file, with each value written
    /// as it would be on the command line. Leaves out secrets, headers, tables, the state folder,
    /// and addresses that contain credentials. For variables given with `--env`, keeps only the
    /// names.
    pub(crate) fn chosen(&self) -> Vec<(String, String)> {
        let chosen = self.values.iter().filter(|(d, v, o)| {
            !matches!(o, Origin::Default)
                && !v.is_null()
                && !matches!(d.kind, Kind::Secret | Kind::Headers | Kind::Variables | Kind::Tables(_))
                && d.key != "state_dir"
        });
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let plain = |text: &String| models::host::shown(text) == *text;
        let chosen = chosen.map(|(d, v, _)| (d.key.to_owned(), text(v))).filter(|(_, text)| plain(text));
        let env = (!self.env_flags.is_empty()).then(|| ("env".to_owned(), self.env_flags.join("\n")));
        chosen.chain(env).collect()
    }
}

/// Merges the layers. `repository` is the root of the repository, if there is one.
///
/// # Errors
/// If a file cannot be read, a key is unknown, a value is invalid, or a source is not allowed to
/// set a key.
pub(crate) fn resolve(
    flags: &[(&'static str, String)],
    environment: &Environment,
    repository: Option<&Path>,
) -> Result<Resolved> {
    let (user, repository) = (environment.user_file(), repository.map(|root| root.join(REPOSITORY_FILE)));
    let user_values = values_of(user.as_deref(), false)?;
    let repository_values = values_of(repository.as_deref(), true)?;
    let (mut values, mut notes, mut env_flags) = (Vec::new(), environment.misspelled(), Vec::new());
    for d in DEFINITIONS {
        let mut value = match d.default {
            Some(text) => d.parse(text).map_err(Failure::misuse)?,
            None => Value::Null,
        };
        let mut origin = Origin::Default;
        if let (Some(path), Some(v)) = (&user, user_values.get(d.key)) {
            (value, origin) = (v.clone(), Origin::User(path.clone()));
        }
        if let (Some(path), Some(v)) = (&repository, repository_values.get(d.key)) {
            let raises = d.trust == Trust::RepositoryMayLower
                && value.as_f64().zip(v.as_f64()).is_some_and(|(had, asked)| asked > had);
            if raises {
                notes.push(format!(
                    "{}: {} = {v} is ignored: a repository may only lower it; using {value} ({origin})",
                    path.display(),
                    d.key,
                ));
            } else {
                (value, origin) = (v.clone(), Origin::Repository(path.clone()));
            }
        }
        let parse = |text: &str, source: &str| {
            d.parse(text).map_err(|why| {
                let shown = if d.may_be_shown() { format!(", not {text:?}") } else { String::new() };
                Failure::misuse(format!("{source} {why}{shown}"))
            })
        };
        if let Some((name, text)) = d.environment().find_map(|n| Some((n.clone(), environment.get(&n)?))) {
            value = parse(text, &format!("the environment variable {name}"))?;
            origin = Origin::Variable(name);
        }
        if let Some((_, text)) = flags.iter().find(|(key, _)| *key == d.key) {
            let flag = d.flag_name().unwrap_or_default();
            let given = parse(text, &flag)?;
            if d.kind == Kind::Variables {
                env_flags = names(&merged(&Value::Null, &given));
                value = merged(&value, &given);
            } else {
                value = given;
            }
            origin = Origin::Flag(flag);
        }
        if d.kind == Kind::Variables {
            let unset = names(&value).into_iter().filter(|name| {
                let passed_on = texts(&value).any(|text| text == name);
                passed_on && !environment.variables.contains_key(name)
            });
            notes.extend(unset.map(|name| {
                format!(
                    "{name} is not passed to commands: it is not set in your environment ({origin}); \
                         set a value with --env {name}=VALUE"
                )
            }));
        }
        values.push((d, value, origin));
    }
    Ok(Resolved { values, notes, env_flags })
}

/// Returns the values in a settings file, or none if it does not exist.
fn values_of(path: Option<&Path>, is_repository: bool) -> Result<BTreeMap<String, Value>> {
    let text = path.map(read_file).transpose()?.flatten();
    path.zip(text).map_or(Ok(BTreeMap::new()), |(path, text)| parse_file(path, &text, is_repository))
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Returns the names in a list of variables, each `NAME` or `NAME=VALUE`.
pub(crate) fn names(variables: &Value) -> Vec<String> {
    let name = |text: &str| text.split_once('=').map_or(text, |(name, _)| name).to_owned();
    texts(variables).map(name).collect()
}

/// Merges the variables from a file and from flags. If a name occurs several times, the last value
/// wins.
fn merged(file: &Value, flags: &Value) -> Value {
    let all: Vec<(&str, String)> =
        texts(file).chain(texts(flags)).zip(names(file).into_iter().chain(names(flags))).collect();
    let last = |(at, (_, name)): &(usize, &(&str, String))| all[at + 1..].iter().all(|(_, n)| n != name);
    all.iter().enumerate().filter(last).map(|(_, (text, _))| *text).collect()
}

/// Reads a small file. Returns `None` if it does not exist.
pub(crate) fn read_file(path: &Path) -> Result<Option<String>> {
    let say = |e: &dyn fmt::Display| Failure::misuse(format!("cannot read {}: {e}", path.display()));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(say(&e)),
    };
    if !metadata.is_file() {
        return Err(say(&"not a regular file")); // opening a pipe would block
    }
    if metadata.len() > FILE_LIMIT {
        return Err(say(&format_args!("larger than {FILE_LIMIT} bytes")));
    }
    let mut text = String::new();
    let mut file = File::open(path).map_err(|e| say(&e))?.take(FILE_LIMIT);
    file.read_to_string(&mut text).map_err(|e| say(&e))?;
    Ok(Some(text))
}

fn parse_file(path: &Path, text: &str, is_repository: bool) -> Result<BTreeMap<String, Value>> {
    let at = |offset: usize| {
        let line = 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
        format!("{}:{line}", path.display())
    };
    let table: BTreeMap<Spanned<String>, toml::Value> = toml::from_str(text).map_err(|e| {
        let place = at(e.span().map_or(0, |s| s.start));
        Failure::misuse(format!("{place}: {}", e.message()))
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let place = at(key.span().start);
        let key = key.into_inner();
        let Some(d) = definition(&key) else {
            let known = DEFINITIONS.iter().map(|d| d.key);
            let hint = nearest(&key, known).map_or_else(
                || "see `agent config show` for all settings".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            return Err(Failure::misuse(format!("{place}: unknown setting {key:?}; {hint}")));
        };
        match d.trust {
            Trust::Environment => {
                let name = d.environment().next().unwrap_or_default();
                return Err(Failure::misuse(format!(
                    "{place}: {key} can only be set in the environment, as {name}"
                )));
            }
            Trust::User if is_repository => {
                return Err(Failure::misuse(format!(
                    "{place}: a repository may not set {key}: only you decide where code and keys go, how much \
                     is spent, and what commands may do"
                ))
                .hint("remove the line, or set it in your own settings file, in the environment or with a flag"));
            }
            Trust::User | Trust::Repository | Trust::RepositoryMayLower => {}
        }
        let value = serde_json::to_value(&value).map_err(Failure::refused)?;
        let shown = if d.may_be_shown() { format!(", not {value}") } else { String::new() };
        let value = d.accept(value).map_err(|why| Failure::misuse(format!("{place}: {key} {why}{shown}")))?;
        values.insert(key, value);
    }
    Ok(values)
}

/// Returns the known name that is closest to a misspelled one, or `None` if none of them is close.
pub(crate) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + wanted.chars().count() / 5;
    let far = |name: &str| strsim::osa_distance(wanted, name);
    known.map(|name| (far(name), name)).filter(|(far, _)| *far <= limit).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        folder: tempfile::TempDir,
        environment: Environment,
    }

    fn world(repository: &str, user: &str, variables: &[(&str, &str)]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        std::fs::create_dir_all(config.join("agent")).unwrap();
        std::fs::write(folder.path().join(REPOSITORY_FILE), repository).unwrap();
        std::fs::write(config.join("agent/config.toml"), user).unwrap();
        let mut environment = Environment::default();
        environment.variables.insert("XDG_CONFIG_HOME".into(), config.display().to_string());
        for (k, v) in variables {
            environment.variables.insert((*k).into(), (*v).into());
        }
        World { folder, environment }
    }

    impl World {
        fn resolve(&self, flags: &[(&'static str, &str)]) -> Result<Resolved> {
            let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            resolve(&flags, &self.environment, Some(self.folder.path()))
        }

        fn refusal(&self) -> String {
            let message = self.resolve(&[]).unwrap_err().error.to_string();
            message.replace(&self.folder.path().display().to_string(), "FOLDER")
        }
    }

    fn value(resolved: &Resolved, key: &str) -> (Value, String) {
        let (_, v, origin) = resolved.values.iter().find(|(d, _, _)| d.key == key).unwrap();
        let name = origin.to_string();
        (v.clone(), name.rsplit('/').next().unwrap_or_default().to_owned())
    }

    #[test]
    fn each_source_overrides_the_ones_after_it() {
        let w = world(
            "max_turns = 4\napproach = 'tools'\ncut = 'first'",
            "max_turns = 30\nnum_ctx = 4096\ncut = 'read-on'\napproach = 'whole-file'\ntemperature = 1",
            &[("AGENT_CUT", "auto"), ("AGENT_NUM_CTX", "8192")],
        );
        let r = w.resolve(&[("num_ctx", "16384")]).unwrap();
        assert_eq!(value(&r, "num_ctx"), (16384.into(), "--num-ctx".into()));
        assert_eq!(value(&r, "cut"), ("auto".into(), "AGENT_CUT".into()));
        assert_eq!(value(&r, "approach"), ("tools".into(), ".agent.toml".into()));
        assert_eq!(value(&r, "max_turns"), (4.into(), ".agent.toml".into()));
        assert_eq!(value(&r, "temperature"), (1.into(), "config.toml".into()));
        assert_eq!(value(&r, "think"), ("auto".into(), "default".into()));
        assert_eq!(r.settings().unwrap().max_turns, 4);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        assert_eq!(
            world("", "# budgets\nmax_turn = 3", &[]).refusal(),
            "FOLDER/config/agent/config.toml:2: unknown setting \"max_turn\"; did you mean \"max_turns\"?"
        );
        assert_eq!(
            world("colour = 'blue'", "", &[]).refusal(),
            "FOLDER/.agent.toml:1: unknown setting \"colour\"; see `agent config show` for all settings"
        );
    }

    #[test]
    fn a_repository_may_not_change_settings_that_could_harm_the_user() {
        for line in [
            "model = 'replay:evil.jsonl'",
            "base_url = 'https://evil.example'",
            "ollama_host = 'evil.example'",
            "openai_base_url = 'https://evil.example'",
            "sandbox = false",
            "pull = true",
            "think = 'high'",
            "num_ctx = 131072",
            "env = ['AWS_SECRET_ACCESS_KEY']",
            "[env]\nPATH = '.'",
        ] {
            let message = world(line, "", &[]).refusal();
            assert!(message.contains("a repository may not set"), "{line}: {message}");
        }
        for line in ["deepseek_api_key = 'k'", "openai_api_key = 'k'", "state_dir = '/'"] {
            let message = world(line, "", &[]).refusal();
            assert!(message.contains("can only be set in the environment"), "{line}: {message}");
        }
    }

    #[test]
    fn a_repository_may_lower_a_budget_and_not_raise_it() {
        let repository = "max_cost = 5.0\nmax_seconds = 60\nmax_tokens = 100\nmax_answer_tokens = 100000";
        let w = world(repository, "max_cost = 2.5", &[]);
        let r = w.resolve(&[]).unwrap();
        assert_eq!(value(&r, "max_cost"), (2.5.into(), "config.toml".into()));
        assert_eq!(value(&r, "max_answer_tokens"), (4096.into(), "default".into()));
        assert_eq!(value(&r, "max_seconds"), (60.into(), ".agent.toml".into()));
        assert_eq!(
            value(&r, "max_tokens"),
            (100.into(), ".agent.toml".into()),
            "the absence of a limit counts as the highest value"
        );
        assert!(r.notes[1].contains("a repository may only lower it; using 2.5"), "{:?}", r.notes);
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_line() {
        assert_eq!(
            world("\nmax_turns = 'many'", "", &[]).refusal(),
            "FOLDER/.agent.toml:2: max_turns must be an integer of at least 1, not \"many\""
        );
        assert_eq!(
            world("", "", &[("AGENT_THINK", "hard")]).refusal(),
            "the environment variable AGENT_THINK must be one of auto, on, off, low, medium, high, max, not \"hard\""
        );
        let syntax = world("max_turns = = 3", "", &[]).refusal();
        assert!(syntax.starts_with("FOLDER/.agent.toml:1: "), "{syntax}");
        let twice = world("cut = 'first'\ncut = 'auto'", "", &[]).refusal();
        assert!(twice.starts_with("FOLDER/.agent.toml:2: "), "{twice}");
    }

    #[test]
    fn variables_from_flags_are_added_to_those_from_the_user_file_and_win_if_names_are_equal() {
        let user = "[env]\nDATABASE_URL = 'postgres://u:p@h/db'\nMODE = 'ci'";
        let w = world("", user, &[("TOKEN", "t")]);
        let r = w.resolve(&[("env", "MODE=local\nTOKEN\nABSENT")]).unwrap();
        let env = r.settings().unwrap().env.unwrap();
        assert_eq!(env, ["DATABASE_URL=postgres://u:p@h/db", "MODE=local", "TOKEN", "ABSENT"]);
        assert_eq!(r.notes.len(), 1, "{:?}", r.notes);
        assert!(r.notes[0].starts_with("ABSENT is not passed to commands"), "{:?}", r.notes);
        assert_eq!(r.chosen(), [("env".to_owned(), "MODE\nTOKEN\nABSENT".to_owned())], "no values");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let w = world("", "", &[("OLLAMA_HOST", ""), ("AGENT_MODEL", " ")]);
        let r = w.resolve(&[]).unwrap();
        assert_eq!(value(&r, "model").0, Value::Null);
        assert_eq!(value(&r, "ollama_host").0, Value::Null);
    }

    #[test]
    fn only_variables_that_look_like_misspelled_settings_are_mentioned() {
        let w = world("", "", &[("AGENT_MODLE", "x"), ("AGENT_JOBNAME", "ci"), ("AGENT_ID", "7")]);
        assert_eq!(
            w.resolve(&[]).unwrap().notes,
            ["AGENT_MODLE is not a setting; did you mean AGENT_MODEL?"]
        );
    }

    #[test]
    fn a_settings_path_that_is_not_a_file_is_refused_without_blocking() {
        let w = world("", "", &[]);
        std::fs::remove_file(w.folder.path().join(REPOSITORY_FILE)).unwrap();
        std::fs::create_dir(w.folder.path().join(REPOSITORY_FILE)).unwrap();
        assert!(w.refusal().ends_with("not a regular file"));
    }

    #[test]
    fn the_nearest_name_is_suggested_for_a_misspelled_one() {
        assert_eq!(nearest("tset", ["test"].into_iter()), Some("test"), "a swap is one edit");
        assert_eq!(nearest("temprature", ["temperature", "think"].into_iter()), Some("temperature"));
        assert_eq!(nearest("xyz", ["model"].into_iter()), None);
    }
}
