//! The tools of a session, by name: what the model is shown, how its calls are judged, and how they run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::aliases::{self, Aliases, Take};
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

/// A call as it will be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The tool that carries it out.
    pub tool: &'static str,
    /// Its arguments, as its schema has them.
    pub arguments: Value,
    /// What was read otherwise than it was written, a few words each: `file_path taken as path`.
    pub notes: Vec<String>,
}

#[async_trait]
trait Erased: Send + Sync {
    fn check(&self, name: &str, value: &Value) -> Result<(), String>;
    fn follow(&self) -> Option<Box<dyn Follow>>;
    fn whole_answer(&self, text: &str) -> Option<Result<Value, String>>;
    fn instead(&self, arguments: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, String>;
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

    fn whole_answer(&self, text: &str) -> Option<Result<Value, String>> {
        Tool::whole_answer(self, text)
    }

    fn instead(&self, arguments: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, String> {
        Tool::instead(self, arguments)
    }

    async fn call(&self, arguments: Value) -> Result<Outcome, ToolError> {
        let arguments = serde_json::from_value(arguments)
            .map_err(|e| ToolError::Model(format!("the arguments of {} do not fit: {e}", T::NAME)))?;
        Tool::call(self, arguments).await
    }
}

struct Entry {
    spec: Spec,
    aliases: &'static Aliases,
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
        self.entries.push(Entry { spec, aliases: T::ALIASES, validator, fields, tool: Box::new(tool) });
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

    /// The names under which a call of these tools may come, in the usual spellings: those of the tools, then those of other agents.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = self.entries.iter().map(|e| e.spec.name);
        let others = self.entries.iter().flat_map(|e| e.aliases.tools.iter().copied());
        let mut names: Vec<String> = own.clone().map(str::to_owned).collect();
        names.extend(own.chain(others).flat_map(aliases::spellings));
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// The tools that a name may stand for: the one of that name, else those that take calls of another agent's tool of that name.
    fn candidates(&self, tool: &str) -> Result<Vec<&Entry>, Refusal> {
        if let Some(entry) = self.entries.iter().find(|e| e.spec.name == tool) {
            return Ok(vec![entry]);
        }
        let bare = aliases::bare(tool);
        let own = |e: &&Entry| aliases::plain(e.spec.name) == aliases::plain(bare);
        let mut found: Vec<&Entry> = self.entries.iter().filter(own).collect();
        if found.is_empty() {
            found = self.entries.iter().filter(|e| e.aliases.names_tool(bare)).collect();
        }
        if found.is_empty() {
            let names: Vec<_> = self.entries.iter().map(|e| e.spec.name).collect();
            let message = format!("there is no tool {tool:?}; the tools are {}", names.join(", "));
            return Err(Refusal { kind: RefusalKind::UnknownTool, message });
        }
        Ok(found)
    }

    /// What the one tool is that a name stands for, where that does not depend on the arguments.
    #[must_use]
    pub fn named(&self, tool: &str) -> Option<&Spec> {
        self.only(tool).map(|entry| &entry.spec)
    }

    /// The one tool that a name stands for, where that does not depend on the arguments.
    fn only(&self, tool: &str) -> Option<&Entry> {
        match self.candidates(tool).ok()?.as_slice() {
            [entry] => Some(entry),
            _ => None,
        }
    }

    /// What follows a call of this tool while its texts are being written, if the tool wants to.
    #[must_use]
    pub fn follow(&self, tool: &str) -> Option<Box<dyn Follow>> {
        let entry = self.only(tool)?;
        let follow = entry.tool.follow()?;
        Some(Box::new(Renamed { aliases: entry.aliases, follow }))
    }

    /// The names of tools whose calls are followed.
    #[must_use]
    pub fn followed(&self) -> Vec<String> {
        let followed = |e: &&Entry| e.tool.follow().is_some();
        self.entries.iter().filter(followed).map(|e| e.spec.name.to_owned()).collect()
    }

    /// The call that a whole answer without one stands for: tool and arguments, or a sentence for the model.
    #[must_use]
    pub fn whole_answer(&self, text: &str) -> Option<Result<(&'static str, Value), String>> {
        let read = |e: &Entry| Some(e.tool.whole_answer(text)?.map(|arguments| (e.spec.name, arguments)));
        self.entries.iter().find_map(read)
    }

    /// Judges a tool name, as soon as it is known.
    ///
    /// # Errors
    /// When there is no such tool; the message lists those there are.
    pub fn judge_tool(&self, tool: &str) -> Result<(), Refusal> {
        self.candidates(tool).map(|_| ())
    }

    /// Judges one argument, as soon as its value is complete. The same judgment is part of [`Registry::accept`], so refusing
    /// early never refuses what would have been accepted later. What depends on other arguments is not judged here.
    ///
    /// # Errors
    /// When the argument is unknown, of the wrong type, or one that the tool objects to.
    pub fn judge_field(&self, tool: &str, name: &str, value: &Value) -> Result<(), Refusal> {
        let candidates = self.candidates(tool)?;
        let [entry] = candidates.as_slice() else { return Ok(()) };
        match entry.take(name, value)? {
            Taken::Own(own) => {
                let alone = Map::from_iter([(own.clone(), value.clone())]);
                match entry.instead(&alone)? {
                    Some(_) => Ok(()), // the other tool judges the whole call
                    None => entry.judge(&own, value).map(|_| ()),
                }
            }
            Taken::LeftOut | Taken::Converted => Ok(()),
        }
    }

    /// Validates a whole call and returns it as it will be run: with the tool's own names, and coerced where the schema leaves one
    /// reading only.
    ///
    /// # Errors
    /// What [`Registry::judge_field`] refuses, missing arguments, and calls of another agent's tool that fit several tools or none.
    pub fn accept(&self, tool: &str, arguments: &Value) -> Result<Accepted, Refusal> {
        let candidates = self.candidates(tool)?;
        let fits: Vec<_> = candidates.iter().map(|entry| (*entry, entry.fit(tool, arguments))).collect();
        let fitting: Vec<&str> =
            fits.iter().filter(|(_, fit)| fit.is_ok()).map(|(entry, _)| entry.spec.name).collect();
        if fitting.len() > 1 {
            let message = format!("{tool} could mean {}; call one of them by its name", fitting.join(" or "));
            return Err(Refusal { kind: RefusalKind::UnknownTool, message });
        }
        let refusals = fits.iter().filter_map(|(_, fit)| fit.as_ref().err());
        let kind = refusals.clone().next().map_or(RefusalKind::UnknownTool, |refusal| refusal.kind);
        let message = refusals.map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("; ");
        let fit = fits.into_iter().find_map(|(entry, fit)| Some((entry, fit.ok()?)));
        let (entry, (given, mut notes)) = fit.ok_or(Refusal { kind, message })?;
        if let Some((other, arguments)) = entry.instead(&given)? {
            let accepted = self.accept(other, &arguments)?;
            notes = vec![format!("{tool} taken as {}", accepted.tool)];
            notes.extend(accepted.notes);
            return Ok(Accepted { notes, ..accepted });
        }
        let mut out = Map::new();
        for (name, value) in given {
            let judged = entry.judge(&name, &value)?;
            let Some(judged) = judged else { continue };
            if judged != value {
                notes.push(format!("{name} coerced"));
            }
            out.insert(name, judged);
        }
        let out = Value::Object(out);
        schema::check(&entry.validator, &out, entry.spec.name)
            .map_err(|message| Refusal { kind: RefusalKind::Schema, message })?;
        if tool != entry.spec.name {
            notes.insert(0, format!("{tool} taken as {}", entry.spec.name));
        }
        Ok(Accepted { tool: entry.spec.name, arguments: out, notes })
    }

    /// The arguments of [`Registry::accept`].
    ///
    /// # Errors
    /// As [`Registry::accept`].
    pub fn validate(&self, tool: &str, arguments: &Value) -> Result<Value, Refusal> {
        self.accept(tool, arguments).map(|accepted| accepted.arguments)
    }

    /// Runs a call whose arguments came from [`Registry::validate`].
    ///
    /// # Errors
    /// As the tool says: a sentence for the model, or a reason to stop the run.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, ToolError> {
        match self.entries.iter().find(|e| e.spec.name == tool) {
            Some(entry) => entry.tool.call(arguments).await,
            None => Err(ToolError::Model(format!("there is no tool {tool:?}"))),
        }
    }
}

/// What an argument of a call is to the tool.
enum Taken {
    /// Its argument of this name.
    Own(String),
    LeftOut,
    /// Only the whole call tells.
    Converted,
}

impl Entry {
    fn take(&self, name: &str, value: &Value) -> Result<Taken, Refusal> {
        let refusal = |message| Err(Refusal { kind: RefusalKind::UnknownArgument, message });
        let take = self.aliases.take(name);
        if let Some(validator) = self.fields.get(name) {
            // A value that another agent's form of this argument may have.
            let property = &self.spec.schema["properties"][name];
            let odd = matches!(take, Some(Take::Converted))
                && !validator.is_valid(&schema::coerce(value.clone(), property));
            return Ok(if odd { Taken::Converted } else { Taken::Own(name.to_owned()) });
        }
        match take {
            Some(Take::As(own)) => Ok(Taken::Own(own.to_owned())),
            Some(Take::LeftOut) => Ok(Taken::LeftOut),
            Some(Take::Converted) => Ok(Taken::Converted),
            Some(Take::Only(allowed, _)) if aliases::asks_nothing(value, allowed) => Ok(Taken::LeftOut),
            Some(Take::Only(_, sentence)) => refusal(format!("{}: {name}: {sentence}", self.spec.name)),
            None => match self.fields.keys().find(|own| aliases::plain(own) == aliases::plain(name)) {
                Some(own) => Ok(Taken::Own(own.clone())),
                None => refusal(self.unknown(name)),
            },
        }
    }

    fn unknown(&self, name: &str) -> String {
        let shown = |name: &&String| !schema::is_hidden(&self.spec.schema["properties"][name.as_str()]);
        let known: Vec<_> = self.fields.keys().filter(shown).map(String::as_str).collect();
        format!("{} has no argument {name:?}; its arguments are {}", self.spec.name, known.join(", "))
    }

    /// The arguments under the tool's own names, and what was done to them; values are not judged yet.
    fn fit(&self, tool: &str, arguments: &Value) -> Result<(Map<String, Value>, Vec<String>), Refusal> {
        let refusal = |kind, message| Refusal { kind, message };
        let Some(given) = arguments.as_object() else {
            let example = schema::example(&self.spec.schema);
            let message = format!("{}: \"arguments\" must be an object, {example}", self.spec.name);
            return Err(refusal(RefusalKind::Schema, message));
        };
        let (mut out, mut notes, mut from) = (Map::new(), Vec::new(), BTreeMap::new());
        for (name, value) in given {
            let own = match self.take(name, value)? {
                Taken::Own(own) => own,
                Taken::Converted => name.clone(),
                Taken::LeftOut => {
                    if !aliases::is_empty(value) {
                        notes.push(format!("{name} left out"));
                    }
                    continue;
                }
            };
            if own != *name {
                if value.is_null() {
                    continue;
                }
                notes.push(format!("{name} taken as {own}"));
            }
            if out.get(&own).is_some_and(|known: &Value| !known.is_null() && known != value) {
                let other = from.get(&own).map_or(own.as_str(), |name: &&String| name.as_str());
                let message = format!(
                    "{}: {other} and {name} mean the same argument; give one of them",
                    self.spec.name
                );
                return Err(refusal(RefusalKind::Schema, message));
            }
            from.insert(own.clone(), name);
            out.insert(own, value.clone());
        }
        if let Some(convert) = self.aliases.convert {
            convert(tool, &mut out, &mut notes)
                .map_err(|why| refusal(RefusalKind::Schema, format!("{}: {why}", self.spec.name)))?;
        }
        if let Some(unknown) = out.keys().find(|name| !self.fields.contains_key(*name)) {
            return Err(refusal(RefusalKind::UnknownArgument, self.unknown(unknown)));
        }
        let missing = |name: &&str| !out.contains_key(*name);
        let required =
            self.spec.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        match required.clone().find(missing) {
            // In the words of the validator.
            Some(name) => {
                let message = format!("{}: {name:?} is a required property", self.spec.name);
                Err(refusal(RefusalKind::Schema, message))
            }
            None => Ok((out, notes)),
        }
    }

    /// The call of another tool that a call with these arguments stands for.
    fn instead(&self, given: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, Refusal> {
        let refusal =
            |why| Refusal { kind: RefusalKind::Value, message: format!("{}: {why}", self.spec.name) };
        self.tool.instead(given).map_err(refusal)
    }

    /// One argument of the tool's own as it will be run; `None` when null says that it is not given.
    fn judge(&self, name: &str, value: &Value) -> Result<Option<Value>, Refusal> {
        let (Some(validator), Some(property)) =
            (self.fields.get(name), self.spec.schema["properties"].get(name))
        else {
            return Err(Refusal { kind: RefusalKind::UnknownArgument, message: self.unknown(name) });
        };
        let value = schema::coerce(value.clone(), property);
        if value.is_null() && !schema::required(&self.spec.schema, name) {
            return Ok(None);
        }
        schema::check(validator, &value, &format!("{}: {name}", self.spec.name))
            .map_err(|message| Refusal { kind: RefusalKind::Schema, message })?;
        let judged = self.tool.check(name, &value);
        judged.map_err(|message| Refusal { kind: RefusalKind::Value, message })?;
        Ok(Some(value))
    }
}

/// Follows a call whose arguments may go by other names.
struct Renamed {
    aliases: &'static Aliases,
    follow: Box<dyn Follow>,
}

impl Follow for Renamed {
    fn text(&mut self, path: &str, text: &str, closed: bool) -> Result<(), String> {
        let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        match self.aliases.take(name) {
            Some(Take::As(own)) => self.follow.text(&format!("{own}{rest}"), text, closed),
            _ => self.follow.text(path, text, closed),
        }
    }
}
