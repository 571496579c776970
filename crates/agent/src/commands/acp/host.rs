//! The sessions that the editor has open, and what the editor can do with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::acp::lines::Backlog;
use ::acp::{Choices, Mode, Updates};
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    CancelNotification, ConfigOptionUpdate, McpServer, SessionConfigOption, SessionId, SessionUpdate,
};
use agent_client_protocol::{Client, Error, ErrorCode};
use journal::{Event, Store};
use mcp::{Config, Entry};
use tokio::sync::watch;

use super::details::TreeDetails;
use super::permission::Standing;
use super::servers;
use super::turn::Editor;
use crate::commands::models::list;
use crate::commands::run;
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::interrupt;
use crate::layers::Environment;
use crate::masking;
use crate::sanitize;
use crate::session::STATE;

/// Maximum number of open sessions.
const MAX_SESSIONS: usize = 64;

/// One open session.
pub(super) struct Session {
    pub(super) context: Context,
    pub(super) root: PathBuf,
    pub(super) choices: Choices,
    pub(super) mode: watch::Sender<Mode>,
    pub(super) standing: Standing,
    /// Stops the current prompt, if there is one.
    pub(super) running: Option<watch::Sender<bool>>,
    /// The prompts of dry runs since the last real run. They are not part of the recorded session.
    pub(super) earlier: Vec<String>,
    /// The MCP servers that the editor offers.
    pub(super) servers: Vec<Entry>,
    /// A message for the user, shown before the first answer.
    pub(super) notice: Option<String>,
}

/// The state of the connection.
pub(super) struct Host {
    pub(super) context: Context,
    pub(super) store: Store,
    pub(super) flags: Vec<(&'static str, String)>,
    backlog: Backlog,
    sessions: Mutex<HashMap<SessionId, Session>>,
    /// The number of running prompts.
    pub(super) runs: watch::Sender<usize>,
}

/// The result of a request.
pub(super) type Answer<T> = std::result::Result<T, Error>;

impl Host {
    pub(super) fn new(
        flags: Vec<(&'static str, String)>,
        context: &Context,
        backlog: Backlog,
    ) -> Result<Self> {
        let mut context = context.clone();
        // The path must be absolute, because sessions work in other folders.
        let state = context.state_dir()?.display().to_string();
        context.environment.variables.insert("AGENT_STATE_DIR".to_owned(), state);
        let store = context.store()?;
        let (sessions, runs) = (Mutex::default(), watch::Sender::new(0));
        Ok(Self { context, store, flags, backlog, sessions, runs })
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `change` with a session.
    pub(super) fn with<T>(
        &self,
        id: &SessionId,
        change: impl FnOnce(&mut Session) -> Answer<T>,
    ) -> Answer<T> {
        self.sessions().get_mut(id).ok_or_else(|| unknown(id)).and_then(change)
    }

    /// Opens a recorded session, or a new one.
    pub(super) fn open(
        &self,
        cwd: &Path,
        servers: &[McpServer],
        id: Option<&SessionId>,
    ) -> Answer<(SessionId, Choices)> {
        let is_open = id.is_some_and(|id| self.sessions().contains_key(id));
        if self.sessions().len() >= MAX_SESSIONS && !is_open {
            return Err(invalid(format!("{MAX_SESSIONS} sessions are open; close one")));
        }
        if !cwd.is_absolute() {
            return Err(invalid(format!("the folder {} is not an absolute path", cwd.display())));
        }
        let cwd = cwd
            .canonicalize()
            .ok()
            .filter(|folder| folder.is_dir())
            .ok_or_else(|| invalid(format!("there is no folder {}", cwd.display())))?;
        let context = Context::of(self.context.environment.clone(), cwd);
        let root = run::root(&context).map_err(|failure| invalid(sentence(&failure)))?;
        let is_new = id.is_none();
        let id = match id {
            None => SessionId::new(self.store.create().map_err(|e| internal(&e.into()))?.id()),
            Some(id) => {
                let known = self.store.find(&id.0).ok().filter(|known| **known == *id.0);
                let past = self.store.load(&known.ok_or_else(|| unknown(id))?);
                let past = past.map_err(|e| internal(&e.into()))?;
                if let Some(Event::Session { root: recorded, .. }) = past.first().map(|r| &r.event)
                    && Path::new(recorded) != root
                {
                    let (root, message) = (root.display(), "is a session in a different folder");
                    return Err(invalid(format!("{} {message}: {recorded}, not {root}", &*id.0)));
                }
                id.clone()
            }
        };
        let Config { servers, warnings } = servers::offered(servers);
        let notice = self.notice(&context, &root, &servers, warnings, is_new);
        let session = Session {
            context,
            root,
            choices: Choices::default(),
            mode: watch::Sender::new(Mode::default()),
            standing: Standing::default(),
            running: None,
            earlier: Vec::new(),
            servers,
            notice,
        };
        let choices = session.choices.clone();
        let mut sessions = self.sessions();
        if sessions.get(&id).is_some_and(|open| open.running.is_some()) {
            return Err(invalid("a prompt is already running in this session"));
        }
        sessions.insert(id.clone(), session);
        Ok((id, choices))
    }

    /// Returns warnings for the user about the MCP servers that the editor offers, if there are any.
    fn notice(
        &self,
        context: &Context,
        root: &Path,
        servers: &[Entry],
        mut warnings: Vec<String>,
        is_new: bool,
    ) -> Option<String> {
        let settings = || context.resolve_in(Some(root), &self.flags).and_then(|found| found.settings());
        // The tools of a recorded session cannot change.
        if is_new && !servers.is_empty() && settings().is_ok_and(|settings| settings.mcp_tools.is_none()) {
            let names: Vec<_> = servers.iter().map(|entry| entry.name.as_str()).collect();
            warnings.push(format!(
                "The editor's MCP servers ({}) are not used. To use them, choose their tools with `mcp_tools` and start a new session.",
                names.join(", ")
            ));
        }
        (!warnings.is_empty()).then(|| warnings.join("\n\n"))
    }

    /// Sends a session's history to the editor.
    pub(super) fn replay(&self, id: &SessionId, client: &ConnectionTo<Client>) {
        let Ok(past) = self.store.load(&id.0) else { return };
        let session = |s: &mut Session| Ok((s.context.clone(), s.root.clone(), s.servers.clone()));
        let Ok((context, root, servers)) = self.with(id, session) else { return };
        let origin = journal::origin(&past).unwrap_or(&id.0).to_owned();
        let details = TreeDetails::new(
            self.store.folder(&id.0).join(STATE),
            masking::of_sessions(&context, servers)(&origin),
            0,
        );
        let mut updates = Updates::new(&id.0, &root, true, details);
        let editor = self.editor(id, client, watch::channel(false).1);
        for record in &past {
            updates.show(record).into_iter().for_each(|update| editor.send(update));
        }
    }

    pub(super) fn editor(
        &self,
        id: &SessionId,
        client: &ConnectionTo<Client>,
        interrupt: watch::Receiver<bool>,
    ) -> Editor {
        Editor { client: client.clone(), session: id.clone(), backlog: self.backlog.clone(), interrupt }
    }

    /// Returns a handle whose updates never block, because the connection itself runs on this
    /// thread.
    pub(super) fn editor_now(&self, id: &SessionId, client: &ConnectionTo<Client>) -> Editor {
        self.editor(id, client, watch::channel(true).1)
    }

    /// Finds the models that the user can choose from, and then sends the list to the editor. The
    /// response to the editor's request does not wait for model servers.
    pub(super) fn list_models(self: &Arc<Self>, id: &SessionId, client: ConnectionTo<Client>) {
        let (host, id) = (Arc::clone(self), id.clone());
        let Ok((context, root)) = self.with(&id, |s| Ok((s.context.clone(), s.root.clone()))) else { return };
        tokio::spawn(async move {
            let flags = host.flags.clone();
            let names = interrupt::on_own_thread(async move || {
                let settings = context.resolve_in(Some(&root), &flags)?.settings()?;
                list::names(&settings, &context.environment).await
            });
            let Ok(names) = names.await else { return };
            let options = host.with(&id, |session| {
                session.choices.models = names;
                Ok(session.choices.options())
            });
            if let (Ok(options), false) = (options, client.termination().is_some()) {
                let editor = host.editor_now(&id, &client);
                editor.send(SessionUpdate::ConfigOptionUpdate(ConfigOptionUpdate::new(options)));
            }
        });
    }

    /// Cleans up a session that is being closed. If a prompt is running, stops it. Otherwise,
    /// removes the session if it never had a prompt.
    pub(super) fn leave(&self, id: &SessionId, session: &Session) {
        if let Some(running) = &session.running {
            running.send_replace(true);
        } else if self.store.load(&id.0).is_ok_and(|past| past.is_empty()) {
            let _ = self.store.remove(&id.0);
        }
    }

    pub(super) fn choose(
        &self,
        id: &SessionId,
        option: &str,
        value: &str,
    ) -> Answer<Vec<SessionConfigOption>> {
        self.with(id, |session| {
            session.choices.set(option, value).map_err(invalid)?;
            session.mode.send_replace(session.choices.mode);
            Ok(session.choices.options())
        })
    }

    /// Stops a session's current prompt. The session stays open.
    pub(super) fn cancel(&self, cancel: &CancelNotification) {
        let _ = self.with(&cancel.session_id, |session| {
            session.running.iter().for_each(|running| {
                running.send_replace(true);
            });
            Ok(())
        });
    }

    /// Stops all prompts, waits for them, and removes the sessions that had no prompt.
    pub(super) async fn stop(&self) {
        for session in self.sessions().values() {
            session.running.iter().for_each(|running| {
                running.send_replace(true);
            });
        }
        let _ = self.runs.subscribe().wait_for(|runs| *runs == 0).await;
        for (id, session) in self.sessions().drain() {
            self.leave(&id, &session);
        }
    }
}

/// Formats a failure and its hints as one sentence.
pub(super) fn sentence(failure: &Failure) -> String {
    let hints = failure.hints.iter().map(|hint| format!("; {hint}"));
    shown(&format!("{:#}{}", failure.error, hints.collect::<String>()))
}

/// Masks secrets in a message for the editor, and sanitizes it.
pub(super) fn shown(text: &str) -> String {
    let secrets = masking::of_variables(&Environment::new(std::env::vars_os()));
    sanitize::text(&masking::known_masked(&secrets, text)).into_owned()
}

pub(super) fn unknown(id: &SessionId) -> Error {
    let id = sanitize::short(&id.0, 80);
    Error::new(ErrorCode::RESOURCE_NOT_FOUND, format!("there is no session {id:?}"))
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::INVALID_PARAMS, message)
}

pub(super) fn internal(failure: &Failure) -> Error {
    Error::new(ErrorCode::INTERNAL_ERROR, sentence(failure))
}
