//! Reads a file that lists MCP servers. The format is the same as that of `.mcp.json`, which other
//! agents also read:
//!
//! ```json
//! {"mcpServers": {
//!   "files": {"command": "mcp-files", "args": ["."], "env": {"MODE": "ro"}},
//!   "issues": {"type": "http", "url": "https://example.org/mcp", "headers": {"X-Key": "${KEY}"}}
//! }}
//! ```
//!
//! An entry that cannot be used is left out with a warning. Unknown keys are ignored, because each
//! agent has its own keys.

use std::time::Duration;

use serde_json::{Map, Value};

/// The maximum size of a file, in bytes.
pub const FILE_LIMIT: u64 = 256 << 10;
/// The maximum number of servers in a file.
const MAX_SERVERS: usize = 64;
/// The maximum length of a server's name, which is part of the name of each of its tools.
const MAX_NAME: usize = 32;
/// The maximum number of values in each list or table of an entry, such as its arguments or
/// headers.
const MAX_VALUES: usize = 256;
/// The default for `startSeconds`: how long a server may take to start and to list its tools.
const START_SECONDS: u64 = 30;
/// The maximum value of `startSeconds`.
const MAX_START_SECONDS: u64 = 3_600;
/// The keys that apply only in the user's own file, because they grant permissions.
const OF_USER: [&str; 4] = ["allowHosts", "allowRead", "allowWrite", "readOnlyTools"];

/// The author of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The user. The entries may grant permissions and use environment variables.
    User,
    /// Whoever wrote the repository.
    Repository,
    /// An editor. It has already expanded the variables.
    Editor,
}

/// The servers of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The servers, in the order they appear in the file.
    pub servers: Vec<Entry>,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Who wrote the entry.
    pub author: Author,
    /// How to reach it.
    pub how: How,
    /// Hosts that it may reach, if it runs in the sandbox.
    pub allow_hosts: Vec<String>,
    /// Additional paths that it may read.
    pub allow_read: Vec<String>,
    /// Additional paths that it may write to.
    pub allow_write: Vec<String>,
    /// Patterns that match the tools the user has declared read-only.
    pub read_only_tools: Vec<String>,
    /// How long it may take to start and to list its tools.
    pub start: Duration,
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Start a program and talk to it over its standard input and output.
    Stdio {
        /// The program: a path, or a name to look up in `PATH`.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its environment variables.
        env: Vec<(String, String)>,
    },
    /// Streamable HTTP.
    Http {
        /// The URL.
        url: String,
        /// Headers to send with each request.
        headers: Vec<(String, String)>,
    },
}

/// Parses a file. `variable` looks up an environment variable, which the user's own file may refer
/// to as `${NAME}` or `${NAME:-DEFAULT}`.
///
/// # Errors
/// Fails if the text is too large, is not JSON, or is not an object with an `mcpServers` key.
pub fn parse(
    text: &str,
    author: Author,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, String> {
    if text.len() as u64 > FILE_LIMIT {
        return Err(format!("larger than {FILE_LIMIT} bytes"));
    }
    let file: Value = serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))?;
    let servers = file.get("mcpServers").and_then(Value::as_object);
    let servers = servers.ok_or("expected an object with an \"mcpServers\" key whose value is an object")?;
    let mut config = Config::default();
    for (name, value) in servers.iter().take(MAX_SERVERS) {
        let shown = preview::sanitize::short(name, MAX_NAME);
        match entry(name, value, author, variable) {
            Ok(entry) => config.servers.push(entry),
            Err(why) => config.warnings.push(format!("the MCP server {shown:?} is left out: {why}")),
        }
        let ignored = OF_USER.iter().filter(|key| author == Author::Repository && value.get(key).is_some());
        for key in ignored {
            let note = "only your own mcp.json can grant permissions";
            config.warnings.push(format!("{key} of the MCP server {shown:?} is ignored: {note}"));
        }
    }
    if servers.len() > MAX_SERVERS {
        config.warnings.push(format!("only the first {MAX_SERVERS} MCP servers are used"));
    }
    Ok(config)
}

fn entry(
    name: &str,
    value: &Value,
    author: Author,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Entry, String> {
    check_name(name)?;
    let fields = value.as_object().ok_or("it must be an object")?;
    let expand = |text: &str| match author {
        Author::User => expanded(text, variable),
        // The values of the user's variables must not reach a server chosen by the repository.
        Author::Repository if text.contains("${") => {
            Err("it uses your environment variables; copy it to your own mcp.json".to_owned())
        }
        Author::Repository | Author::Editor => Ok(text.to_owned()),
    };
    let (command, url) = (text_of(fields, "command")?, text_of(fields, "url")?);
    let kind = text_of(fields, "type")?;
    let how = match (kind, command, url) {
        (None | Some("stdio"), Some(command), None) => How::Stdio {
            command: expand(command)?,
            args: list(fields, "args")?.iter().map(|arg| expand(arg)).collect::<Result<_, _>>()?,
            env: table(fields, "env", &expand)?,
        },
        (None | Some("http" | "streamable-http"), None, Some(url)) => {
            let url = expand(url)?;
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err("its url must start with https:// or http://".into());
            }
            How::Http { url, headers: table(fields, "headers", &expand)? }
        }
        (Some("sse"), ..) => return Err("the \"sse\" transport is deprecated; use \"http\"".into()),
        _ => return Err("it needs either \"command\", or \"type\": \"http\" and \"url\"".into()),
    };
    let own = |key| if author == Author::User { list(fields, key) } else { Ok(Vec::new()) };
    let seconds = match fields.get("startSeconds") {
        None => START_SECONDS,
        Some(value) => value
            .as_u64()
            .filter(|seconds| (1..=MAX_START_SECONDS).contains(seconds))
            .ok_or_else(|| format!("\"startSeconds\" must be an integer from 1 to {MAX_START_SECONDS}"))?,
    };
    Ok(Entry {
        name: name.to_owned(),
        author,
        how,
        allow_hosts: own(OF_USER[0])?,
        allow_read: own(OF_USER[1])?,
        allow_write: own(OF_USER[2])?,
        read_only_tools: own(OF_USER[3])?,
        start: Duration::from_secs(seconds),
    })
}

/// Checks that the name can be used as the first part of `server__tool`.
fn check_name(name: &str) -> Result<(), String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let separates = name.contains("__") || name.starts_with('_') || name.ends_with('_');
    if name.is_empty() || name.len() > MAX_NAME || !plain || separates {
        return Err(format!(
            "its name must be 1 to {MAX_NAME} letters, digits, hyphens or single underscores, without an underscore at either end"
        ));
    }
    Ok(())
}

fn text_of<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => Ok(Some(text)),
        Some(_) => Err(format!("{key:?} must be a non-empty string")),
    }
}

fn list(fields: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{key:?} must be a list of at most {MAX_VALUES} strings");
    match fields.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MAX_VALUES => {
            let text = |item: &Value| item.as_str().filter(|text| !text.contains('\0')).map(str::to_owned);
            items.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

fn table(
    fields: &Map<String, Value>,
    key: &str,
    expand: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("{key:?} must be an object with at most {MAX_VALUES} string values");
    match fields.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(entries)) if entries.len() <= MAX_VALUES => {
            let value = |(name, value): (&String, &Value)| {
                let text = value.as_str().filter(|text| !text.contains('\0')).ok_or_else(wrong)?;
                let name =
                    Some(name).filter(|n| !n.is_empty() && !n.contains(['\0', '='])).ok_or_else(wrong)?;
                Ok((name.clone(), expand(text)?))
            };
            entries.iter().map(value).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Expands `${NAME}` and `${NAME:-DEFAULT}`.
fn expanded(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (inner, after) =
            after.split_once('}').ok_or_else(|| format!("{text:?} has a ${{ without a }}"))?;
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d.to_owned())));
        let value = variable(name).or(default);
        out.push_str(&value.ok_or_else(|| format!("the environment variable {name} is not set"))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, author: Author) -> Config {
        parse(text, author, &|name| (name == "KEY").then(|| "k-1".to_owned())).unwrap()
    }

    #[test]
    fn a_file_of_another_agent_is_read_and_its_unknown_keys_are_ignored() {
        let text = r#"{"inputs": [], "mcpServers": {
            "files": {"command": "mcp-files", "args": ["."], "env": {"MODE": "ro"}, "disabled": false},
            "issues": {"type": "http", "url": "https://example.org/mcp", "headers": {"X-Key": "${KEY}"}}}}"#;
        let config = parsed(text, Author::User);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let hows: Vec<_> = config.servers.into_iter().map(|entry| entry.how).collect();
        let env = vec![("MODE".to_owned(), "ro".to_owned())];
        let headers = vec![("X-Key".to_owned(), "k-1".to_owned())];
        assert_eq!(
            hows,
            [
                How::Stdio { command: "mcp-files".into(), args: vec![".".into()], env },
                How::Http { url: "https://example.org/mcp".into(), headers }
            ]
        );
    }

    #[test]
    fn a_repository_neither_grants_permissions_nor_reads_variables() {
        let text = r#"{"mcpServers": {
            "a": {"command": "x", "env": {"K": "${KEY}"}},
            "b": {"command": "x", "allowHosts": ["evil.example"], "readOnlyTools": ["*"]}}}"#;
        let config = parsed(text, Author::Repository);
        assert_eq!(config.servers.len(), 1);
        assert!(config.servers[0].allow_hosts.is_empty() && config.servers[0].read_only_tools.is_empty());
        assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    }

    #[test]
    fn an_entry_that_cannot_be_used_leaves_the_others_usable() {
        let text = r#"{"mcpServers": {"": {}, "a__b": {"command": "x"}, "a b": {"command": "x"},
            "n": null, "t": {"command": 7}, "u": {"type": "http", "url": "file:///etc"},
            "both": {"command": "x", "url": "https://x"}, "args": {"command": "x", "args": "y"},
            "env": {"command": "x", "env": {"A": 1}}, "sse": {"type": "sse", "url": "https://x"},
            "\u001b[2J": {"command": "x"}, "ok": {"command": "x"}}}"#;
        let config = parsed(text, Author::User);
        assert_eq!(config.servers.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["ok"]);
        assert_eq!(config.warnings.len(), 11, "{:#?}", config.warnings);
        assert!(!config.warnings.iter().any(|w| w.contains('\u{1b}')));
    }

    #[test]
    fn deep_large_and_malformed_files_are_errors() {
        let none = |_: &str| None;
        let deep = format!("{{\"mcpServers\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let large = format!("{{\"mcpServers\": {{\"a\": {{\"command\": \"{}\"}}}}}}", "x".repeat(300_000));
        for text in ["", "[]", "{}", "{\"mcpServers\": []}", "null", &deep, &large] {
            assert!(parse(text, Author::User, &none).is_err(), "{}", &text[..text.len().min(40)]);
        }
    }
}
