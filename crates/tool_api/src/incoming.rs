//! A call that is arriving from the model. It is checked while it is still streaming, and again
//! once it is complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::aliases::{self, Take};
use crate::registry::{Entry, Registry};
use crate::{Follow, Parsed, Spec, schema};

/// Why a call was refused, for statistics and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// No such tool.
    UnknownTool,
    /// An argument that the tool does not have.
    UnknownArgument,
    /// An argument is missing, has the wrong type, or is out of range.
    Schema,
    /// The tool itself rejects a value (a path outside the repository, a file that does not exist).
    Value,
}

/// A call that will not be carried out, and the sentence that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of mistake.
    pub kind: RefusalKind,
    /// What is wrong and how to correct it.
    pub message: String,
}

impl Refusal {
    fn value(message: String) -> Self {
        Self { kind: RefusalKind::Value, message }
    }
}

/// An accepted call, as it will be run.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The tool that carries it out.
    pub spec: Arc<Spec>,
    /// The arguments, as the tool's schema defines them.
    pub arguments: Value,
    /// The value that the tool parsed while validating the call, if any.
    pub parsed: Parsed,
    /// Notes on parts of the call that were interpreted differently from how they were written,
    /// such as `file_path taken as path`.
    pub notes: Vec<String>,
}

/// A call that the model is writing.
pub struct Incoming<'r> {
    tools: &'r Registry,
    name: String,
    /// The tools that the call may refer to. If there are several, checks that depend on the tool
    /// are deferred until the call is complete.
    candidates: Vec<&'r Entry>,
    follow: Option<Box<dyn Follow>>,
    parsed: Parsed,
}

impl<'r> Incoming<'r> {
    pub(crate) fn new(tools: &'r Registry, name: &str, candidates: Vec<&'r Entry>, parsed: Parsed) -> Self {
        Self { tools, name: name.to_owned(), candidates, follow: None, parsed }
    }

    /// If the call can refer to only one tool, lets that tool receive the text of the call while it
    /// is being written.
    pub(crate) fn followed(self) -> Self {
        let follow = match self.candidates.as_slice() {
            [entry] => entry.tool.follow(),
            _ => None,
        };
        Self { follow, ..self }
    }

    /// Returns the tool's name as it was written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Validates the next piece of one argument's text; see [`Follow::text`]. Must not be called
    /// again after an error.
    ///
    /// # Errors
    /// Fails if the call cannot succeed, no matter what text follows.
    pub fn text(&mut self, path: &str, text: &str, closed: bool) -> Result<(), Refusal> {
        let (Some(follow), [entry]) = (&mut self.follow, self.candidates.as_slice()) else { return Ok(()) };
        let (name, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        let judged = match entry.spec.aliases.take(name) {
            Some(Take::As(own)) => follow.text(&format!("{own}{rest}"), text, closed),
            _ => follow.text(path, text, closed),
        };
        judged.map_err(Refusal::value)
    }

    /// Validates one argument as soon as its value is complete. [`Incoming::complete`] validates it
    /// the same way, so an argument that is refused early would also have been refused later.
    /// Checks that depend on other arguments are deferred until the call is complete.
    ///
    /// # Errors
    /// Fails if the argument is unknown or of the wrong type, or if the tool rejects its value.
    pub fn field(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        let [entry] = self.candidates.as_slice() else { return Ok(()) };
        match entry.take(name, value)? {
            Taken::Own(own) => {
                let alone = Map::from_iter([(own.clone(), value.clone())]);
                match entry.patch_instead(&alone)? {
                    Some(_) => Ok(()), // validated in `complete`, by the tool for patches
                    None => entry.judge(&own, value, &mut self.parsed).map(|_| ()),
                }
            }
            Taken::LeftOut | Taken::Converted => Ok(()),
        }
    }

    /// Validates the complete call and returns it as it will be run.
    ///
    /// # Errors
    /// Fails if [`Incoming::field`] refuses an argument, if an argument is missing, or if the call
    /// uses another agent's name for a tool and its arguments match several tools or none.
    pub fn complete(self, arguments: &Value) -> Result<Accepted, Refusal> {
        let Self { tools, name: tool, candidates, mut parsed, .. } = self;
        let fits: Vec<_> = candidates.iter().map(|entry| (*entry, entry.fit(&tool, arguments))).collect();
        let fitting: Vec<&str> =
            fits.iter().filter(|(_, fit)| fit.is_ok()).map(|(entry, _)| entry.spec.name.as_str()).collect();
        if fitting.len() > 1 {
            let message = format!("{tool} could mean {}; call one of them by its name", fitting.join(" or "));
            return Err(Refusal { kind: RefusalKind::UnknownTool, message });
        }
        let refusals = fits.iter().filter_map(|(_, fit)| fit.as_ref().err());
        let kind = refusals.clone().next().map_or(RefusalKind::UnknownTool, |refusal| refusal.kind);
        let message = refusals.map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("; ");
        let fit = fits.into_iter().find_map(|(entry, fit)| Some((entry, fit.ok()?)));
        let (entry, (given, mut notes)) = fit.ok_or(Refusal { kind, message })?;
        if let Some(patch) = entry.patch_instead(&given)?
            && let Some((spec, argument)) = tools.specs().find_map(|spec| Some((spec, spec.patch?)))
        {
            let accepted = tools.accept(&spec.name, &json!({ argument: patch }))?;
            notes = vec![format!("{tool} taken as {}", accepted.spec.name)];
            notes.extend(accepted.notes);
            return Ok(Accepted { notes, ..accepted });
        }
        let mut out = Map::new();
        for (name, value) in given {
            let Some(judged) = entry.judge(&name, &value, &mut parsed)? else { continue };
            if judged != value {
                notes.push(format!("{name} coerced"));
            }
            out.insert(name, judged);
        }
        let arguments = Value::Object(out);
        schema::check(&entry.validator, &arguments, &entry.spec.name)
            .map_err(|message| Refusal { kind: RefusalKind::Schema, message })?;
        entry.tool.judge(&arguments, &mut parsed).map_err(Refusal::value)?;
        if tool != entry.spec.name {
            notes.insert(0, format!("{tool} taken as {}", entry.spec.name));
        }
        Ok(Accepted { spec: Arc::clone(&entry.spec), arguments, parsed, notes })
    }
}

/// How the tool interprets an argument of a call.
enum Taken {
    /// The tool's own argument with this name.
    Own(String),
    LeftOut,
    /// The meaning is known only once the call is complete.
    Converted,
}

impl Entry {
    fn take(&self, name: &str, value: &Value) -> Result<Taken, Refusal> {
        let refusal = |message| Err(Refusal { kind: RefusalKind::UnknownArgument, message });
        let take = self.spec.aliases.take(name);
        if let Some(validator) = self.fields.get(name) {
            // The value may be in another agent's format.
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

    /// Returns the arguments under the tool's own names, and notes on what was changed. The values
    /// have not been validated yet.
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
        if let Some(convert) = self.spec.aliases.convert {
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
            // The validator reports a missing argument in the same words.
            Some(name) => {
                let message = format!("{}: {name:?} is a required property", self.spec.name);
                Err(refusal(RefusalKind::Schema, message))
            }
            None => Ok((out, notes)),
        }
    }

    /// Returns the patch if a call with these arguments does nothing but apply a patch.
    fn patch_instead(&self, given: &Map<String, Value>) -> Result<Option<String>, Refusal> {
        self.tool.patch_instead(given).map_err(|why| Refusal::value(format!("{}: {why}", self.spec.name)))
    }

    /// Validates one of the tool's own arguments, and returns its value as the tool will receive
    /// it. Returns `None` for a null that means "not given".
    fn judge(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<Option<Value>, Refusal> {
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
        self.tool.judge_field(name, &value, parsed).map_err(Refusal::value)?;
        Ok(Some(value))
    }
}
