//! Lets a session use the tools of MCP servers (Model Context Protocol).
//!
//! [`config`] reads the list of servers from a file in the format of `.mcp.json`. [`Server`] is the
//! connection to one of them: a program in the sandbox, or a URL. [`McpTool`] adapts a server's
//! tool to [`tool_api::Tool`]. `rmcp`, the official SDK, implements the protocol.
//!
//! Everything that a server sends is untrusted. Messages, lists, schemas, descriptions and results
//! have limits, descriptions become one line of visible text, and a session's tools stay as they
//! were when it began: a tool whose definition has changed is no longer called.

pub mod config;
mod describe;
mod limits;
mod outcome;
mod server;
mod tool;

pub use config::{Config, Entry, How};
pub use describe::describe;
pub use limits::MAX_MESSAGE;
pub use server::{Connection, Definition, Listing, Server, Timeouts};
pub use tool::{Described, McpTool, ReplayedTool};

/// Returns the name that the model sees for a server's tool. Characters that are not allowed in the
/// tool name of a call become `_`. The agent's own tools have no server and keep their names.
#[must_use]
pub fn tool_name(server: &str, tool: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let tool: String = tool.chars().map(plain).collect();
    if server.is_empty() { tool } else { format!("{server}__{tool}") }
}
