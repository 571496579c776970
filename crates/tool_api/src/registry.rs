//! Holds a session's tools by name, shows them to the model, and validates and runs calls.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::incoming::{Accepted, Incoming, Refusal, RefusalKind};
use crate::{Outcome, Parsed, Spec, Tool, ToolError, aliases, schema};

/// Why a tool cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another tool already has this name.
    #[error("cannot register the tool `{0}`: the name is taken")]
    NameTaken(String),
    /// The tool's schema is not a valid JSON Schema.
    #[error("cannot register the tool `{tool}`: its schema does not compile: {why}")]
    Schema {
        /// The tool's name.
        tool: String,
        /// What is wrong, and where in the schema.
        why: String,
    },
}

/// A registered tool and its compiled schema.
pub(crate) struct Entry {
    pub(crate) spec: Arc<Spec>,
    pub(crate) validator: Validator,
    pub(crate) fields: BTreeMap<String, Validator>,
    pub(crate) tool: Arc<dyn Tool>,
}

/// The tools of a session, in the order they were added. The prompt lists them in the same order.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// Creates a registry of these tools.
    ///
    /// # Errors
    /// See [`Registry::add`].
    pub fn of(tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Result<Self, RegisterError> {
        let mut registry = Self::default();
        tools.into_iter().try_for_each(|tool| registry.add(tool))?;
        Ok(registry)
    }

    /// Adds a tool and compiles its schema.
    ///
    /// # Errors
    /// Fails if the name is taken or the schema does not compile.
    pub fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), RegisterError> {
        let spec = tool.spec().clone();
        if self.spec(&spec.name).is_some() {
            return Err(RegisterError::NameTaken(spec.name));
        }
        let compile = |schema: &Value| {
            jsonschema::validator_for(schema)
                .map_err(|e| RegisterError::Schema { tool: spec.name.clone(), why: e.to_string() })
        };
        let properties = spec.schema["properties"].as_object().into_iter().flatten();
        // A property with references does not compile without the rest of the schema. It is checked
        // only as part of the complete call.
        let anything = Value::Bool(true);
        let fields = properties
            .map(|(name, schema)| {
                let schema = if schema::has_references(schema) { &anything } else { schema };
                Ok((name.clone(), compile(schema)?))
            })
            .collect::<Result<_, _>>()?;
        let validator = compile(&spec.schema)?;
        self.entries.push(Entry { spec: Arc::new(spec), validator, fields, tool });
        Ok(())
    }

    /// Replaces a tool's description and the part of its schema that the model is shown. The tool
    /// accepts the same calls as before.
    pub fn describe(&mut self, tool: &str, description: String, shown: Value) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.spec.name == tool) {
            let spec = Arc::make_mut(&mut entry.spec);
            (spec.description, spec.shown) = (description, shown);
        }
    }

    /// Returns the specs of the tools, in order.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.entries.iter().map(|e| &e.spec)
    }

    /// Returns the spec of the tool with this name.
    #[must_use]
    pub fn spec(&self, tool: &str) -> Option<&Arc<Spec>> {
        self.specs().find(|spec| spec.name == tool)
    }

    /// Returns the names that calls to these tools may use, in the usual spellings: the tools' own
    /// names, then the names from other agents.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = || self.specs().map(|spec| spec.name.as_str());
        let others = self.specs().flat_map(|spec| spec.aliases.tools.split_whitespace());
        let mut names: Vec<String> = own().map(str::to_owned).collect();
        names.extend(own().chain(others).flat_map(aliases::spellings));
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// Returns the names of the tools that receive the text of a call while the model is writing
    /// it.
    #[must_use]
    pub fn followed(&self) -> Vec<String> {
        self.specs().filter(|spec| spec.follows).map(|spec| spec.name.clone()).collect()
    }

    /// Returns the JSON Schema of a call in the form that the prompts show: `{"tool": NAME,
    /// "arguments": {...}}`, with only the arguments that the model is shown.
    #[must_use]
    pub fn call_schema(&self) -> Value {
        let mut definitions = Map::new();
        let mut call = |spec: &Arc<Spec>| {
            let mut arguments = schema::closed(&spec.shown, &spec.schema);
            schema::move_definitions(&mut arguments, &spec.name, &mut definitions);
            json!({
                "type": "object",
                "properties": {"tool": {"const": spec.name}, "arguments": arguments},
                "required": ["tool", "arguments"],
                "additionalProperties": false,
            })
        };
        let mut schema = json!({ "anyOf": self.specs().map(&mut call).collect::<Vec<_>>() });
        if !definitions.is_empty() {
            schema["$defs"] = Value::Object(definitions);
        }
        schema
    }

    /// Returns the tools that a name may refer to: the tool with that name or, if there is none,
    /// the tools that have that name as an alias.
    fn candidates(&self, tool: &str) -> Result<Vec<&Entry>, Refusal> {
        if let Some(entry) = self.entries.iter().find(|e| e.spec.name == tool) {
            return Ok(vec![entry]);
        }
        let bare = aliases::bare(tool);
        let own = |e: &&Entry| aliases::plain(&e.spec.name) == aliases::plain(bare);
        let mut found: Vec<&Entry> = self.entries.iter().filter(own).collect();
        if found.is_empty() {
            found = self.entries.iter().filter(|e| e.spec.aliases.names_tool(bare)).collect();
        }
        if found.is_empty() {
            let names: Vec<_> = self.specs().map(|spec| spec.name.as_str()).collect();
            let message = format!("there is no tool {tool:?}; the tools are {}", names.join(", "));
            return Err(Refusal { kind: RefusalKind::UnknownTool, message });
        }
        Ok(found)
    }

    /// Returns the spec of the tool that a name refers to. Returns `None` if there is no such tool,
    /// or if there are several and only the arguments can tell them apart.
    #[must_use]
    pub fn named(&self, tool: &str) -> Option<&Arc<Spec>> {
        match self.candidates(tool).ok()?.as_slice() {
            [entry] => Some(&entry.spec),
            _ => None,
        }
    }

    /// If an answer contains no call, interprets the answer itself as a call (see
    /// [`Tool::whole_answer`]). Returns the call, which has not been validated yet, and its
    /// arguments. The error is a sentence for the model.
    #[must_use]
    pub fn whole_answer(&self, text: &str) -> Option<Result<(Incoming<'_>, Value), String>> {
        self.entries.iter().find_map(|entry| {
            let mut parsed = Parsed::default();
            let arguments = entry.tool.whole_answer(text, &mut parsed)?;
            let incoming = || Incoming::new(self, &entry.spec.name, vec![entry], parsed);
            Some(arguments.map(|arguments| (incoming(), arguments)))
        })
    }

    /// Starts validating a call as soon as the tool's name is known.
    ///
    /// # Errors
    /// Fails if there is no such tool. The message lists the tools that exist.
    pub fn open(&self, tool: &str) -> Result<Incoming<'_>, Refusal> {
        self.incoming(tool).map(Incoming::followed)
    }

    fn incoming(&self, tool: &str) -> Result<Incoming<'_>, Refusal> {
        Ok(Incoming::new(self, tool, self.candidates(tool)?, Parsed::default()))
    }

    /// Validates a complete call and returns it as it will be run: with the tool's own names, and
    /// with values coerced where the schema allows only one interpretation.
    ///
    /// # Errors
    /// Same as [`Registry::open`] and [`Incoming::complete`].
    pub fn accept(&self, tool: &str, arguments: &Value) -> Result<Accepted, Refusal> {
        self.incoming(tool)?.complete(arguments)
    }

    /// Runs a call whose arguments came from [`Registry::accept`]. The value that the tool parsed
    /// while validating the call is not passed back to it.
    ///
    /// # Errors
    /// Returns the tool's error: a sentence for the model, or a reason to stop the run.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, ToolError> {
        self.call_parsed(tool, arguments, Parsed::default()).await
    }

    /// Runs a call. `parsed` is the value that the tool parsed while validating the call.
    ///
    /// # Errors
    /// Same as [`Registry::call`].
    pub async fn call_parsed(
        &self,
        tool: &str,
        arguments: Value,
        parsed: Parsed,
    ) -> Result<Outcome, ToolError> {
        match self.entries.iter().find(|e| e.spec.name == tool) {
            Some(entry) => entry.tool.call(arguments, parsed).await,
            None => Err(ToolError::Model(format!("there is no tool {tool:?}"))),
        }
    }
}
