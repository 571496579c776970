//! Masks secrets at the boundaries of a run: the planner, the journal and the screen see
//! placeholders, while files keep the real values.
//!
//! Tools and the model are wrapped here; [`crate::repository`] masks the tree and the verification.
//! A filter on the journal is the last line of defense. The `secrets` crate decides what counts as
//! a secret, given the variables and settings from this module.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use journal::Filter;
use mcp::Entry;
use models::{Delta, DeltaStream, Error, Identity, Message, Model, Request};
use secrets::{Secrets, known};
use serde_json::{Map, Value};
use tool_api::{Effect, Follow, Outcome, Parsed, Spec, Tool, ToolError};
use workspace::{History, Workspace};

use crate::confinement;
use crate::context::Context;
use crate::layers::Environment;
use crate::mcp_servers;
use crate::settings::Settings;
use preview::FileChange;

/// The explanation that the model gets when it first sees a placeholder.
pub(crate) const EXPLANATION: &str = include_str!("../../../prompts/secrets.md");
/// The name prefixes and suffixes that mark a file in the root as secret.
const SECRET_FILES: ([&str; 6], [&str; 2]) =
    ([".env", ".npmrc", ".netrc", ".pypirc", "id_", "credentials"], [".pem", ".key"]);
/// Maximum number of secret files to read, and the maximum size of each, in bytes.
const MAX_SECRET_FILES: usize = 20;
const MAX_SECRET_FILE: u64 = 64 << 10;

/// Returns the secrets of a session: those in its settings and in the environment of this process.
pub(crate) fn secrets(settings: &Settings, variables: &[(OsString, OsString)], session: &str) -> Secrets {
    secrets_with(settings, variables, &[], session)
}

/// Like [`secrets()`], but also includes the secrets in the entries of MCP servers that are not
/// configured in a file.
pub(crate) fn secrets_with(
    settings: &Settings,
    variables: &[(OsString, OsString)],
    additional: &[Entry],
    session: &str,
) -> Secrets {
    if !settings.mask_secrets {
        return Secrets::disabled();
    }
    let named = variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
    let own = [&settings.ollama_api_key, &settings.deepseek_api_key, &settings.openai_api_key];
    let own = own.into_iter().flatten().map(|key| ("API_KEY", key.as_str()));
    let headers = settings.headers.iter().flatten().filter_map(|header| header.split_once(": "));
    let own_headers = headers.map(|(_, value)| ("API_KEY", value));
    let addresses = [&settings.base_url, &settings.ollama_host, &settings.openai_base_url, &settings.proxy];
    let addresses = addresses.into_iter().flatten().map(|address| ("URL", address.as_str()));
    let mut values = known::secret_values(named.chain(own).chain(own_headers).chain(addresses));
    if settings.mcp_tools.is_some() || !additional.is_empty() {
        values.extend(mcp_servers::secret_values(variables, additional));
    }
    // Variables given with --env are masked regardless of their names.
    let given = confinement::given(settings, variables);
    values.extend(given.iter().filter_map(|(_, value)| known::whole(value.to_str()?)));
    Secrets::new(session, values)
}

/// Returns the secrets in the environment, for use outside of a session.
pub(crate) fn of_variables(environment: &Environment) -> Secrets {
    let variables = environment.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Secrets::new("", known::secret_values(variables))
}

/// Returns the secrets to mask when a finished session is displayed.
pub(crate) fn for_display(context: &Context, session: &str) -> Secrets {
    of_sessions(context, Vec::new())(session)
}

/// Returns a function that returns the secrets to mask when a finished session is displayed.
/// Resolves the settings only once. `additional` contains the MCP servers that are not configured
/// in a file.
pub(crate) fn of_sessions(context: &Context, additional: Vec<Entry>) -> impl Fn(&str) -> Secrets {
    // If the settings are invalid, masking is on, as it is by default.
    let settings = context.resolve(&[]).and_then(|resolved| resolved.settings()).ok();
    let environment = context.environment.clone();
    let variables: Vec<_> = environment.variables.iter().map(|(k, v)| (k.into(), v.into())).collect();
    move |session| match &settings {
        Some(settings) => secrets_with(settings, &variables, &additional, session),
        None => of_variables(&environment),
    }
}

/// Returns a filter that masks the values of known variables in the journal.
pub(crate) fn filter(secrets: &Secrets) -> Filter {
    let secrets = secrets.clone();
    Box::new(move |text| known_masked(&secrets, text))
}

pub(crate) fn known_masked<'a>(secrets: &Secrets, text: &'a str) -> Cow<'a, str> {
    match secrets.mask_known(text.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// Returns whether a file with this name in the root is assumed to contain secrets.
pub(crate) fn is_secret_file(name: &str) -> bool {
    let (prefixes, suffixes) = SECRET_FILES;
    prefixes.iter().any(|start| name.starts_with(start)) || suffixes.iter().any(|end| name.ends_with(end))
}

/// Learns secrets before anything is shown, both from secret files and from files that an earlier
/// process of this session changed.
pub(crate) fn learn(secrets: &Secrets, workspace: &Workspace, state: &Path) {
    let names = std::fs::read_dir(workspace.root()).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_secret_file(name))
        .collect();
    names.sort();
    for name in names.into_iter().take(MAX_SECRET_FILES) {
        if let Ok(path) = workspace.resolve(&name)
            && let Ok(bytes) = workspace.read_bytes(&path, MAX_SECRET_FILE)
        {
            secrets.learn(&bytes);
        }
    }
    let Ok(changes) = History::open(state).and_then(|history| history.net(..)) else { return };
    for image in changes.iter().flat_map(|change| [&change.before, &change.after]).flatten() {
        secrets.learn(&image.bytes);
    }
}

/// Masks the secrets in the task. If there are any, appends an explanation of placeholders, unless
/// the session has already explained them.
pub(crate) fn task(secrets: &Secrets, task: &str) -> String {
    match secrets.mask(task) {
        Cow::Owned(masked) if secrets.mark_explained() => {
            format!("{}\n\n{}", masked.trim_end(), EXPLANATION.trim_end())
        }
        masked => masked.into_owned(),
    }
}

/// Masks secrets in changes before they are shown.
pub(crate) fn shown(mut changes: Vec<FileChange>, secrets: &Secrets) -> Vec<FileChange> {
    for change in &mut changes {
        for image in [&mut change.before, &mut change.after].into_iter().flatten() {
            if let Cow::Owned(masked) = secrets.mask_bytes(&image.bytes) {
                image.bytes = masked;
            }
            // Mask the decoded text too: the encoded bytes may hide a secret.
            if let Ok(view) = text_view::View::of(&change.path, image.bytes.clone())
                && !view.is_plain()
                && let Cow::Owned(masked) = secrets.mask_bytes(view.text())
            {
                image.bytes = masked;
            }
        }
    }
    changes
}

/// Wraps a tool to mask its results. A tool that truncates its output masks it first with its own
/// [`Secrets`], because a truncated secret would not be recognized. Masking twice does no harm.
pub(crate) struct MaskedTool {
    tool: Arc<dyn Tool>,
    secrets: Secrets,
}

impl MaskedTool {
    pub(crate) fn wrap(tool: Arc<dyn Tool>, secrets: &Secrets) -> Arc<dyn Tool> {
        Arc::new(Self { tool, secrets: secrets.clone() })
    }

    fn masked(&self, text: &str) -> String {
        self.secrets.mask(text).into_owned()
    }
}

#[async_trait]
impl Tool for MaskedTool {
    fn spec(&self) -> &Spec {
        self.tool.spec()
    }

    /// Refuses placeholders in commands, because there is no telling what a command does with them.
    fn judge_field(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        if self.secrets.is_enabled()
            && self.spec().effect == Effect::Execute
            && let Some(placeholder) = secrets::first_placeholder(&value.to_string())
        {
            return Err(format!("{placeholder} stands for a hidden value, which a command cannot use"));
        }
        self.tool.judge_field(name, value, parsed).map_err(|message| self.masked(&message))
    }

    fn judge(&self, arguments: &Value, parsed: &mut Parsed) -> Result<(), String> {
        self.tool.judge(arguments, parsed).map_err(|message| self.masked(&message))
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        self.tool.follow()
    }

    fn whole_answer(&self, text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
        self.tool.whole_answer(text, parsed)
    }

    fn patch_instead(&self, arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        self.tool.patch_instead(arguments)
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        let mut outcome = self.tool.call(arguments, parsed).await.map_err(|error| match error {
            ToolError::Model(message) => ToolError::Model(self.masked(&message)),
            ToolError::Run(message) => ToolError::Run(self.masked(&message)),
        })?;
        outcome.text = self.masked(&outcome.text);
        mask_value(&mut outcome.facts, &|text| self.secrets.mask(text));
        if secrets::first_placeholder(&outcome.text).is_some() && self.secrets.mark_explained() {
            outcome.text = format!("{}\n{}", outcome.text.trim_end(), EXPLANATION.trim_end());
        }
        Ok(outcome)
    }
}

/// Masks every string in a value.
pub(crate) fn mask_value(value: &mut Value, mask: &dyn for<'a> Fn(&'a str) -> Cow<'a, str>) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = mask(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_value(item, mask)),
        Value::Object(fields) => fields.values_mut().for_each(|field| mask_value(field, mask)),
        _ => {}
    }
}

/// Wraps a model to mask the values of known variables in requests and in its answers. Answers are
/// masked because the model may know a value from elsewhere.
pub(crate) struct MaskedModel(pub(crate) Box<dyn Model>, pub(crate) Secrets);

#[async_trait]
impl Model for MaskedModel {
    fn identity(&self) -> Identity {
        self.0.identity()
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        let (Some(text), Some(thinking)) = (self.1.mask_stream(), self.1.mask_stream()) else {
            return self.0.stream(request).await.map_err(|e| masked_error(e, &self.1));
        };
        let mut request = request.clone();
        for message in &mut request.messages {
            mask_message(&self.1, message);
        }
        let stream = self.0.stream(&request).await.map_err(|e| masked_error(e, &self.1))?;
        let secrets = self.1.clone();
        let masker = StreamMasker { secrets, text, thinking, waiting: Vec::new() };
        // `None` marks the end of the stream, which flushes held-back text.
        let pieces = stream.map(Some).chain(futures_util::stream::iter([None]));
        Ok(Box::pin(
            pieces
                .scan(masker, |masker, piece| std::future::ready(Some(masker.feed(piece))))
                .flat_map(futures_util::stream::iter),
        ))
    }

    async fn verify(&self) -> Vec<String> {
        self.0.verify().await
    }

    async fn outlook(&self) -> Result<Option<String>, Error> {
        self.0.outlook().await
    }
}

/// Masks the values of known variables in a message. A message that contains none is not copied.
fn mask_message(secrets: &Secrets, message: &mut Arc<Message>) {
    let masked = |text: &str| match known_masked(secrets, text) {
        Cow::Owned(masked) => Some(masked),
        Cow::Borrowed(_) => None,
    };
    if let Some(content) = masked(&message.content) {
        Arc::make_mut(message).content = content;
    }
    if let Some(thinking) = message.thinking.as_deref().and_then(masked) {
        Arc::make_mut(message).thinking = Some(thinking);
    }
}

/// Masks a streamed answer, piece by piece.
struct StreamMasker {
    secrets: Secrets,
    text: secrets::Stream,
    thinking: secrets::Stream,
    /// Non-text pieces that arrived while text was held back because it may be the start of a
    /// secret. They are emitted after that text.
    waiting: Vec<Delta>,
}

impl StreamMasker {
    fn feed(&mut self, piece: Option<Result<Delta, Error>>) -> Vec<Result<Delta, Error>> {
        let mut out = Vec::new();
        match piece {
            Some(Ok(Delta::Text(text))) => {
                self.flush_thinking(&mut out);
                let ready = self.text.feed(&text);
                self.emit(Delta::Text(ready), self.text.is_holding(), &mut out);
            }
            Some(Ok(Delta::Thinking(text))) => {
                let ready = self.thinking.feed(&text);
                if !ready.is_empty() {
                    out.push(Ok(Delta::Thinking(ready)));
                }
            }
            Some(Ok(Delta::ToolCall { name, mut arguments })) => {
                self.flush(&mut out);
                mask_value(&mut arguments, &|text| known_masked(&self.secrets, text));
                out.push(Ok(Delta::ToolCall { name, arguments }));
            }
            Some(Ok(delta @ Delta::End(_))) => {
                self.flush(&mut out);
                out.push(Ok(delta));
            }
            Some(Ok(delta)) if self.text.is_holding() => self.waiting.push(delta),
            Some(Ok(delta)) => out.push(Ok(delta)),
            Some(Err(error)) => {
                self.flush(&mut out);
                out.push(Err(masked_error(error, &self.secrets)));
            }
            None => self.flush(&mut out),
        }
        out
    }

    /// Emits text and, if no text is held back, the waiting pieces.
    fn emit(&mut self, text: Delta, holds: bool, out: &mut Vec<Result<Delta, Error>>) {
        if !matches!(&text, Delta::Text(text) if text.is_empty()) {
            out.push(Ok(text));
        }
        if !holds {
            out.extend(self.waiting.drain(..).map(Ok));
        }
    }

    fn flush_thinking(&mut self, out: &mut Vec<Result<Delta, Error>>) {
        let rest = self.thinking.end();
        if !rest.is_empty() {
            out.push(Ok(Delta::Thinking(rest)));
        }
    }

    fn flush(&mut self, out: &mut Vec<Result<Delta, Error>>) {
        self.flush_thinking(out);
        let rest = self.text.end();
        self.emit(Delta::Text(rest), false, out);
    }
}

/// Masks secrets in an error. A server that refuses a key may quote it.
fn masked_error(mut error: Error, secrets: &Secrets) -> Error {
    let (Error::Transport(text)
    | Error::Busy { message: text, .. }
    | Error::Unavailable { message: text, .. }
    | Error::Loading(text)
    | Error::Overflow { message: text, .. }
    | Error::Timeout(text)
    | Error::Slow(text)
    | Error::MissingModel { message: text, .. }
    | Error::Refused(text)
    | Error::Exhausted(text)
    | Error::Settings(text)
    | Error::Protocol(text)
    | Error::NoModel(text)) = &mut error;
    *text = secrets.mask(text).into_owned();
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::Role;

    #[test]
    fn only_messages_with_a_secret_are_copied() {
        let secrets = Secrets::new("s", known::secret_values([("API_KEY", "sk-0123456789abcdefghij")]));
        let message = |content: &str| Arc::new(Message::new(Role::User, content));
        let (plain, secret) = (message("nothing here"), message("the key is sk-0123456789abcdefghij"));
        let (mut one, mut other) = (Arc::clone(&plain), Arc::clone(&secret));
        mask_message(&secrets, &mut one);
        mask_message(&secrets, &mut other);
        assert!(Arc::ptr_eq(&one, &plain));
        assert!(!other.content.contains("sk-0123456789abcdefghij"));
        assert!(secret.content.contains("sk-0123456789abcdefghij"), "the original message is unchanged");
    }
}
