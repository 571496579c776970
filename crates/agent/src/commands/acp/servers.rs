//! The MCP servers that the editor offers when it opens a session.

use agent_client_protocol::v1::schema::McpServer;
use mcp::Config;
use mcp::config::{self, Author};
use serde_json::{Map, Value, json};

/// Returns the servers as entries. A server that cannot be used results in a warning.
pub(super) fn offered(servers: &[McpServer]) -> Config {
    let (mut entries, mut unusable) = (Map::new(), Vec::new());
    for server in servers {
        let (name, entry) = match server {
            McpServer::Stdio(server) => {
                let env: Map<_, _> = server.env.iter().map(|v| pair(&v.name, &v.value)).collect();
                let command = server.command.to_string_lossy();
                (&server.name, json!({"command": command, "args": server.args, "env": env}))
            }
            McpServer::Http(server) => {
                let headers: Map<_, _> = server.headers.iter().map(|h| pair(&h.name, &h.value)).collect();
                (&server.name, json!({"type": "http", "url": server.url, "headers": headers}))
            }
            McpServer::Sse(server) => (&server.name, json!({"type": "sse"})),
            _ => {
                unusable.push("an MCP server is left out: its transport is unknown".to_owned());
                continue;
            }
        };
        let name = usable(name);
        if entries.contains_key(&name) {
            unusable.push(format!("the MCP server {name:?} is left out: another server has that name"));
        } else {
            entries.insert(name, entry);
        }
    }
    let file = json!({ "mcpServers": entries }).to_string();
    let mut config = config::parse(&file, Author::Editor, &|_| None).unwrap_or_else(|why| Config {
        servers: Vec::new(),
        warnings: vec![format!("cannot use the editor's MCP servers: {why}")],
    });
    config.warnings.extend(unusable);
    config
}

fn pair(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), value.into())
}

/// Replaces the characters that tool names cannot contain, because a tool's name begins with its
/// server's name. Editors allow any characters in the names of servers.
fn usable(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars().map(|c| if allowed(c) { c } else { '-' }).collect()
}
