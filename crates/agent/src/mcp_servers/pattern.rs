//! Patterns that select tools of MCP servers, such as `files__read_*`.

use std::fmt;

use globset::{Glob, GlobMatcher};

/// The separator between a server's name and a tool's name.
const SEPARATOR: &str = "__";

/// A comma-separated list of patterns. A pattern without `__` matches all tools of a server.
pub(crate) struct Patterns {
    text: String,
    /// The server part and the tool part of each pattern.
    parts: Vec<(GlobMatcher, GlobMatcher)>,
}

impl Patterns {
    /// Parses a comma-separated list of patterns.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let pair = |item: &str| {
            let (server, tool) = item.split_once(SEPARATOR).unwrap_or((item, "*"));
            let glob = |text: &str| Glob::new(text).map(|glob| glob.compile_matcher());
            glob(server)
                .and_then(|server| Ok((server, glob(tool)?)))
                .map_err(|e| format!("cannot use the pattern {item:?} in mcp_tools: {}", e.kind()))
        };
        Ok(Self { text: text.to_owned(), parts: items.map(pair).collect::<Result<_, _>>()? })
    }

    /// Creates patterns for the tools of one server. The entries in `tools` omit the server's name.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub(crate) fn of_tools(server: &str, tools: &[String]) -> Result<Self, String> {
        Self::new(
            &tools.iter().map(|tool| format!("{server}{SEPARATOR}{tool}")).collect::<Vec<_>>().join(","),
        )
    }

    /// Returns whether any tool of this server could match.
    pub(crate) fn may_match(&self, server: &str) -> bool {
        self.parts.iter().any(|(own, _)| own.is_match(server))
    }

    /// Returns whether this tool matches.
    pub(crate) fn matches(&self, server: &str, tool: &str) -> bool {
        self.parts.iter().any(|(own, tools)| own.is_match(server) && tools.is_match(tool))
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_a_server_and_its_tools() {
        let matches =
            |patterns: &str, server: &str, tool: &str| Patterns::new(patterns).unwrap().matches(server, tool);
        assert!(matches("files__read_*", "files", "read_file"));
        assert!(!matches("files__read_*", "files", "write_file"));
        assert!(!matches("files__read_*", "other", "read_file"));
        assert!(matches("other, files", "files", "anything"));
        assert!(matches("*", "files", "anything"));
        assert!(!matches("", "files", "anything"));
        assert!(Patterns::new("files__[").is_err());
    }
}
