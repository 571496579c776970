//! The tools of a session, by name: what the model is shown, how its calls are judged, and how they run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::{Effect, Follow, Outcome, Tool, ToolError, schema};

/// What the model is shown of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub description: Cow<'static, str>,
    /// What it may do.
    pub effect: Effect,
    /// The JSON Schema of its arguments, as validated against.
    pub schema: Value,
    /// What the model is shown of that schema.
    pub shown: Value,
}

impl Spec {
    /// The schema in the words of the prompt: each byte of it is paid for on every task.
    #[must_use]
    pub fn shown_schema(&self) -> String {
        self.shown.to_string()
    }
}

/// Why a call was refused, for counts and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// No such tool.
    UnknownTool,
    /// An argument that the tool does not have.
    UnknownArgument,
    /// An argument is missing, or of the wrong type or range.
    Schema,
    /// The tool itself objects to a value (a path outside, a file that does not exist).
    Value,
}

/// A call that will not be carried out, and the sentence that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of mistake it is.
    pub kind: RefusalKind,
    /// What is wrong and what would have been right.
    pub message: String,
}

#[async_trait]
trait Erased: Send + Sync {
    fn check(&self, name: &str, value: &Value) -> Result<(), String>;
    fn follow(&self) -> Option<Box<dyn Follow>>;
    async fn call(&self, arguments: Value) -> Result<Outcome, ToolError>;
}

#[async_trait]
impl<T: Tool> Erased for T {
    fn check(&self, name: &str, value: &Value) -> Result<(), String> {
        Tool::check(self, name, value)
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        Tool::follow(self)
    }

    async fn call(&self, arguments: Value) -> Result<Outcome, ToolError> {
        let arguments = serde_json::from_value(arguments)
            .map_err(|e| ToolError::Model(format!("the arguments of {} do not fit: {e}", T::NAME)))?;
        Tool::call(self, arguments).await
    }
}

struct Entry {
    spec: Spec,
    validator: Validator,
    fields: BTreeMap<String, Validator>,
    tool: Box<dyn Erased>,
}

/// The tools of a session, in the order they were added (which is the order in the prompt).
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// No tools.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool; its schema is compiled here, once.
    ///
    /// # Panics
    /// When the argument type's schema is not valid: a mistake in the tool's code, found by any test that builds a registry.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the schema is a constant of the program, derived from a type")]
    pub fn with<T: Tool>(mut self, tool: T) -> Self {
        let schema = schema::of::<T::Arguments>();
        let compile = |s: &Value| jsonschema::validator_for(s).expect("a derived schema is valid");
        let fields = schema["properties"]
            .as_object()
            .map(|p| p.iter().map(|(name, s)| (name.clone(), compile(s))).collect())
            .unwrap_or_default();
        let validator = compile(&schema);
        let spec = Spec {
            name: T::NAME,
            description: T::DESCRIPTION.into(),
            effect: T::EFFECT,
            shown: schema::shown(&schema),
            schema,
        };
        self.entries.push(Entry { spec, validator, fields, tool: Box::new(tool) });
        self
    }

    /// Describes a tool to the model in other words than its own, and with less than all it accepts. What is accepted stays the same.
    pub fn describe(&mut self, tool: &str, description: String, shown: Value) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.spec.name == tool) {
            (entry.spec.description, entry.spec.shown) = (description.into(), shown);
        }
    }

    /// What each tool is, in order.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.entries.iter().map(|e| &e.spec)
    }

    /// What one tool is.
    #[must_use]
    pub fn spec(&self, tool: &str) -> Option<&Spec> {
        self.entries.iter().map(|e| &e.spec).find(|s| s.name == tool)
    }

    fn entry(&self, tool: &str) -> Result<&Entry, Refusal> {
        self.entries.iter().find(|e| e.spec.name == tool).ok_or_else(|| {
            let names: Vec<_> = self.entries.iter().map(|e| e.spec.name).collect();
            Refusal {
                kind: RefusalKind::UnknownTool,
                message: format!("there is no tool {tool:?}; the tools are {}", names.join(", ")),
            }
        })
    }

    /// What follows a call of this tool while its texts are being written, if the tool wants to.
    #[must_use]
    pub fn follow(&self, tool: &str) -> Option<Box<dyn Follow>> {
        self.entry(tool).ok()?.tool.follow()
    }

    /// Judges a tool name, as soon as it is known.
    ///
    /// # Errors
    /// When there is no such tool; the message lists those there are.
    pub fn judge_tool(&self, tool: &str) -> Result<(), Refusal> {
        self.entry(tool).map(|_| ())
    }

    /// Judges one argument, as soon as its value is complete. The same judgement is part of [`Registry::validate`], so refusing
    /// early never refuses what would have been accepted later.
    ///
    /// # Errors
    /// When the argument is unknown, of the wrong type, or one that the tool objects to.
    pub fn judge_field(&self, tool: &str, name: &str, value: &Value) -> Result<(), Refusal> {
        let entry = self.entry(tool)?;
        let Some(validator) = entry.fields.get(name) else {
            let known: Vec<_> = entry.fields.keys().map(String::as_str).collect();
            return Err(Refusal {
                kind: RefusalKind::UnknownArgument,
                message: format!("{tool} has no argument {name:?}; its arguments are {}", known.join(", ")),
            });
        };
        let Some(property) = entry.spec.schema["properties"].get(name) else { return Ok(()) };
        let value = schema::coerce(value.clone(), property);
        if value.is_null() && !schema::required(&entry.spec.schema, name) {
            return Ok(()); // null for an optional argument means "not given"; `validate` drops it
        }
        schema::check(validator, &value, &format!("{tool}: {name}"))
            .map_err(|message| Refusal { kind: RefusalKind::Schema, message })?;
        entry.tool.check(name, &value).map_err(|message| Refusal { kind: RefusalKind::Value, message })
    }

    /// Validates a whole call and returns its arguments as they will be run: coerced where the schema leaves one reading only.
    ///
    /// # Errors
    /// What [`Registry::judge_field`] refuses, and missing arguments.
    pub fn validate(&self, tool: &str, arguments: &Value) -> Result<Value, Refusal> {
        let entry = self.entry(tool)?;
        let Some(given) = arguments.as_object() else {
            return Err(Refusal {
                kind: RefusalKind::Schema,
                message: format!(
                    "{tool}: \"arguments\" must be an object, {}",
                    schema::example(&entry.spec.schema)
                ),
            });
        };
        let mut out = Map::new();
        for (name, value) in given {
            self.judge_field(tool, name, value)?;
            let property = &entry.spec.schema["properties"][name.as_str()];
            let value = schema::coerce(value.clone(), property);
            let left_out = value.is_null() && !schema::required(&entry.spec.schema, name);
            if !left_out {
                out.insert(name.clone(), value);
            }
        }
        let out = Value::Object(out);
        schema::check(&entry.validator, &out, tool)
            .map_err(|message| Refusal { kind: RefusalKind::Schema, message })?;
        Ok(out)
    }

    /// Runs a call whose arguments came from [`Registry::validate`].
    ///
    /// # Errors
    /// As the tool says: a sentence for the model, or a reason to stop the run.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, ToolError> {
        match self.entry(tool) {
            Ok(entry) => entry.tool.call(arguments).await,
            Err(refusal) => Err(ToolError::Model(refusal.message)),
        }
    }
}
