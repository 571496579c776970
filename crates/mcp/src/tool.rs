//! Wraps a server's tool as a [`Tool`] for the session.

use std::sync::Arc;

use async_trait::async_trait;
use secrets::Secrets;
use serde_json::Value;
use tool_api::{Effect, Outcome, Parsed, Registry, Spec, Status, Tool, ToolError};

use crate::outcome;
use crate::server::{Definition, NoResult, Server};
use crate::{describe, tool_name};

/// A tool as a session offers it to the model. It stays the same for the whole session, even if the
/// server changes the tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// The server's name.
    pub server: String,
    /// The server's own name for the tool.
    pub tool: String,
    /// A digest of the server's definition.
    pub digest: String,
    /// The description in the prompt.
    pub description: String,
    /// The schema of the arguments.
    pub schema: Value,
    /// What calls to the tool may do.
    pub effect: Effect,
}

impl Described {
    /// Describes a tool for the prompt.
    ///
    /// # Errors
    /// Fails if its name or its schema cannot be used. The error says why.
    pub fn of(
        server: &str,
        definition: &Definition,
        effect: Effect,
        secrets: &Secrets,
    ) -> Result<Self, String> {
        let (description, schema) =
            describe(&definition.name, &definition.description, &definition.schema, secrets)?;
        let described = Self {
            server: server.to_owned(),
            tool: definition.name.clone(),
            digest: definition.digest(),
            description,
            schema,
            effect,
        };
        // Compile the schema here, because one that does not compile would make the registry refuse
        // all tools.
        let alone = Registry::of([Arc::new(ReplayedTool::new(&described)) as Arc<dyn Tool>]);
        alone.map_err(|_| "its schema does not compile".to_owned())?;
        Ok(described)
    }

    /// Returns the tool's name in the prompt.
    #[must_use]
    pub fn name(&self) -> String {
        tool_name(&self.server, &self.tool)
    }

    /// Returns the text that the tool adds to the prompt.
    #[must_use]
    pub fn prompt_text(&self) -> String {
        format!("{}: {}. {}\n", self.name(), self.description, self.spec().shown_schema())
    }

    fn spec(&self) -> Spec {
        Spec::new(self.name(), self.description.clone(), self.effect, self.schema.clone())
    }
}

/// A tool provided by a server.
pub struct McpTool {
    spec: Spec,
    described: Described,
    /// The server, or the reason that it is not available.
    server: Result<Arc<Server>, String>,
    secrets: Secrets,
}

impl McpTool {
    /// Creates the tool, which masks secrets in results before truncating them.
    #[must_use]
    pub fn new(described: Described, server: Result<Arc<Server>, String>, secrets: Secrets) -> Self {
        Self { spec: described.spec(), described, server, secrets }
    }
}

#[async_trait]
impl Tool for McpTool {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    async fn call(&self, arguments: Value, _: Parsed) -> Result<Outcome, ToolError> {
        let refused = |text: String| Outcome { status: Status::Refused, ..Outcome::ok(text) };
        let server = match &self.server {
            Ok(server) => server,
            Err(why) => {
                return Ok(refused(format!(
                    "the MCP server {} is not available: {why}",
                    self.described.server
                )));
            }
        };
        let Value::Object(arguments) = arguments else {
            return Err(ToolError::Model("the arguments must be an object".into()));
        };
        match server.call(&self.described.tool, &self.described.digest, arguments).await {
            Ok(result) => Ok(outcome::of(&result, &self.secrets)),
            Err(NoResult::Refused(why)) => Ok(refused(why)),
            Err(NoResult::Failed(why)) => Ok(Outcome::failed(why)),
        }
    }
}

/// A stand-in for a tool in a recorded session. It has no server, so calling it fails; a replay
/// takes the tool's results from the recording.
pub struct ReplayedTool(Spec);

impl ReplayedTool {
    /// Creates the tool.
    #[must_use]
    pub fn new(described: &Described) -> Self {
        Self(described.spec())
    }
}

#[async_trait]
impl Tool for ReplayedTool {
    fn spec(&self) -> &Spec {
        &self.0
    }

    async fn call(&self, _: Value, _: Parsed) -> Result<Outcome, ToolError> {
        Err(ToolError::Model(format!("a replay has no server for {}", self.0.name)))
    }
}
