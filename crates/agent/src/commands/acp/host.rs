//! The sessions that the editor has open, and what the editor may do with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::acp::lines::Backlog;
use ::acp::{Choices, MODE, Mode, Updates, ending, prompt};
use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    AgentCapabilities, AuthMethod, AuthMethodAgent, AuthenticateRequest, AuthenticateResponse,
    CancelNotification, CloseSessionRequest, CloseSessionResponse, ConfigOptionUpdate, CurrentModeUpdate,
    Implementation, InitializeRequest, InitializeResponse, LoadSessionRequest, LoadSessionResponse,
    NewSessionRequest, NewSessionResponse, PromptCapabilities, PromptRequest, PromptResponse,
    ResumeSessionRequest, ResumeSessionResponse, SessionCapabilities, SessionCloseCapabilities, SessionId,
    SessionInfoUpdate, SessionResumeCapabilities, SessionUpdate, SetSessionConfigOptionRequest,
    SetSessionConfigOptionResponse, SetSessionModeRequest, SetSessionModeResponse, StopReason,
};
use agent_client_protocol::v1::{ConnectionTo, Responder};
use agent_client_protocol::{Client, Error, ErrorCode};
use journal::{Ending, Event, Report, Store};
use models::Notices;
use tokio::sync::watch;

use super::details::TreeDetails;
use super::permission::Standing;
use super::turn::{Editor, Turn};
use crate::commands::models::list;
use crate::commands::run::{self, TASK_LIMIT};
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::interrupt;
use crate::masking;
use crate::model;
use crate::sanitize;
use crate::session::STATE;

/// The maximum number of open sessions.
const MAX_SESSIONS: usize = 64;
/// The maximum number of prompts that run at a time. Each has a thread, and perhaps commands.
const MAX_RUNS: usize = 8;
/// The maximum size of the earlier prompts that a prompt repeats, in bytes.
const MAX_EARLIER: usize = 16 << 10;
/// The id of the only method of authentication.
const OWN_MODEL: &str = "own-model";

/// One open session.
struct Session {
    context: Context,
    root: PathBuf,
    choices: Choices,
    mode: watch::Sender<Mode>,
    standing: Standing,
    /// Stops the current prompt, if there is one.
    running: Option<watch::Sender<bool>>,
    /// The prompts that only made a dry run, and so are not part of the recorded session.
    earlier: Vec<String>,
    /// A sentence to say with the first prompt.
    notice: Option<String>,
}

/// The state of the connection.
pub(super) struct Host {
    context: Context,
    store: Store,
    flags: Vec<(&'static str, String)>,
    backlog: Backlog,
    sessions: Mutex<HashMap<SessionId, Session>>,
    /// The number of prompts that run.
    runs: watch::Sender<usize>,
}

type Answer<T> = std::result::Result<T, Error>;

/// Answers a request. A closed connection is noticed elsewhere.
macro_rules! answer {
    ($responder:expr, $result:expr) => {{
        let _ = $responder.respond_with_result($result);
    }};
}

impl Host {
    pub(super) fn new(
        flags: Vec<(&'static str, String)>,
        context: &Context,
        backlog: Backlog,
    ) -> Result<Self> {
        let mut context = context.clone();
        // Sessions work in other folders, so the path must not be relative.
        let state = context.state_dir()?.display().to_string();
        context.environment.variables.insert("AGENT_STATE_DIR".to_owned(), state);
        let store = context.store()?;
        let (sessions, runs) = (Mutex::default(), watch::Sender::new(0));
        Ok(Self { context, store, flags, backlog, sessions, runs })
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `change` with a session.
    fn with<T>(&self, id: &SessionId, change: impl FnOnce(&mut Session) -> Answer<T>) -> Answer<T> {
        self.sessions().get_mut(id).ok_or_else(|| unknown(id)).and_then(change)
    }

    pub(super) fn initialize(
        &self,
        _: InitializeRequest,
        responder: Responder<InitializeResponse>,
        _: ConnectionTo<Client>,
    ) {
        let sessions = SessionCapabilities::new()
            .resume(SessionResumeCapabilities::new())
            .close(SessionCloseCapabilities::new());
        let capabilities = AgentCapabilities::new()
            .load_session(true)
            .prompt_capabilities(PromptCapabilities::new().embedded_context(true))
            .session_capabilities(sessions);
        let own_model = AuthMethodAgent::new(OWN_MODEL, "Your own model").description(
            "Checks that there is a model: on this machine, at the address in the settings, or with \
             an API key such as DEEPSEEK_API_KEY. There is no account."
                .to_owned(),
        );
        let response = InitializeResponse::new(ProtocolVersion::V1)
            .agent_capabilities(capabilities)
            .agent_info(Implementation::new("agent", env!("CARGO_PKG_VERSION")))
            .auth_methods(vec![AuthMethod::Agent(own_model)]);
        answer!(responder, Ok(response));
    }

    /// Checks that a model can be opened.
    pub(super) fn authenticate(
        self: &Arc<Self>,
        request: AuthenticateRequest,
        responder: Responder<AuthenticateResponse>,
        _: ConnectionTo<Client>,
    ) {
        if &*request.method_id.0 != OWN_MODEL {
            let message = format!("there is no authentication method {:?}", &*request.method_id.0);
            return answer!(responder, Err(invalid(message)));
        }
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let opened = interrupt::on_own_thread(async move || {
                let settings = host.context.resolve(&host.flags)?.settings()?;
                model::open(&settings, false, Notices::default()).await.map(|_| ())
            });
            let opened = opened.await.map(|()| AuthenticateResponse::new());
            answer!(responder, opened.map_err(|f| Error::new(ErrorCode::AUTH_REQUIRED, sentence(&f))));
        });
    }

    pub(super) fn new_session(
        self: &Arc<Self>,
        request: NewSessionRequest,
        responder: Responder<NewSessionResponse>,
        client: ConnectionTo<Client>,
    ) {
        let opened = self.open(&request.cwd, request.mcp_servers.len(), None);
        let response = opened.map(|(id, choices)| {
            self.list_models(&id, client);
            NewSessionResponse::new(id).modes(choices.modes()).config_options(choices.options())
        });
        answer!(responder, response);
    }

    pub(super) fn load_session(
        self: &Arc<Self>,
        request: LoadSessionRequest,
        responder: Responder<LoadSessionResponse>,
        client: ConnectionTo<Client>,
    ) {
        let host = Arc::clone(self);
        // The editor must get the session's history before the answer.
        tokio::task::spawn_blocking(move || {
            let (id, servers) = (request.session_id, request.mcp_servers.len());
            let opened = host.open(&request.cwd, servers, Some(&id));
            let response = opened.map(|(_, choices)| {
                host.replay(&id, &client);
                host.list_models(&id, client);
                LoadSessionResponse::new().modes(choices.modes()).config_options(choices.options())
            });
            answer!(responder, response);
        });
    }

    pub(super) fn resume_session(
        self: &Arc<Self>,
        request: ResumeSessionRequest,
        responder: Responder<ResumeSessionResponse>,
        client: ConnectionTo<Client>,
    ) {
        let opened = self.open(&request.cwd, request.mcp_servers.len(), Some(&request.session_id));
        let response = opened.map(|(id, choices)| {
            self.list_models(&id, client);
            ResumeSessionResponse::new().modes(choices.modes()).config_options(choices.options())
        });
        answer!(responder, response);
    }

    /// Opens a recorded session, or a new one.
    fn open(&self, cwd: &Path, servers: usize, id: Option<&SessionId>) -> Answer<(SessionId, Choices)> {
        if self.sessions().len() >= MAX_SESSIONS {
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
        let id = match id {
            None => SessionId::new(self.store.create().map_err(|e| internal(&e.into()))?.id()),
            Some(id) => {
                let known = self.store.find(&id.0).ok().filter(|known| **known == *id.0);
                let past = self.store.load(&known.ok_or_else(|| unknown(id))?);
                let past = past.map_err(|e| internal(&e.into()))?;
                if let Some(Event::Session { root: recorded, .. }) = past.first().map(|r| &r.event)
                    && Path::new(recorded) != root
                {
                    let (root, message) = (root.display(), "is a session of another folder");
                    return Err(invalid(format!("{} {message}: {recorded}, not {root}", &*id.0)));
                }
                id.clone()
            }
        };
        let notice = (servers > 0).then(|| "MCP servers of the editor are not used yet.".to_owned());
        let session = Session {
            context,
            root,
            choices: Choices::default(),
            mode: watch::Sender::new(Mode::default()),
            standing: Standing::default(),
            running: None,
            earlier: Vec::new(),
            notice,
        };
        let choices = session.choices.clone();
        let mut sessions = self.sessions();
        if sessions.get(&id).is_some_and(|open| open.running.is_some()) {
            return Err(invalid("a prompt of this session is running"));
        }
        sessions.insert(id.clone(), session);
        Ok((id, choices))
    }

    /// Sends the history of a session.
    fn replay(&self, id: &SessionId, client: &ConnectionTo<Client>) {
        let Ok(past) = self.store.load(&id.0) else { return };
        let Ok((context, root)) = self.with(id, |s| Ok((s.context.clone(), s.root.clone()))) else { return };
        let origin = journal::origin(&past).unwrap_or(&id.0).to_owned();
        let details =
            TreeDetails::new(self.store.folder(&id.0).join(STATE), masking::for_display(&context, &origin), 0);
        let mut updates = Updates::new(&id.0, &root, true, details);
        let editor = self.editor(id, client, watch::channel(false).1);
        for record in &past {
            updates.show(record).into_iter().for_each(|update| editor.send(update));
        }
    }

    fn editor(&self, id: &SessionId, client: &ConnectionTo<Client>, interrupt: watch::Receiver<bool>) -> Editor {
        Editor { client: client.clone(), session: id.clone(), backlog: self.backlog.clone(), interrupt }
    }

    /// Finds the models that the user can choose, and then tells the editor. The answer to the
    /// editor's request does not wait for model servers.
    fn list_models(self: &Arc<Self>, id: &SessionId, client: ConnectionTo<Client>) {
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
                let editor = host.editor(&id, &client, watch::channel(true).1);
                editor.send(SessionUpdate::ConfigOptionUpdate(ConfigOptionUpdate::new(options)));
            }
        });
    }

    pub(super) fn close_session(
        &self,
        request: CloseSessionRequest,
        responder: Responder<CloseSessionResponse>,
        _: ConnectionTo<Client>,
    ) {
        let closed = self.sessions().remove(&request.session_id);
        let closed = closed.ok_or_else(|| unknown(&request.session_id)).map(|session| {
            self.leave(&request.session_id, &session);
            CloseSessionResponse::new()
        });
        answer!(responder, closed);
    }

    /// Stops the prompt of a session that is being closed, and removes a session that had none.
    fn leave(&self, id: &SessionId, session: &Session) {
        if let Some(running) = &session.running {
            running.send_replace(true);
        } else if self.store.load(&id.0).is_ok_and(|past| past.is_empty()) {
            let _ = self.store.remove(&id.0);
        }
    }

    pub(super) fn set_mode(
        &self,
        request: SetSessionModeRequest,
        responder: Responder<SetSessionModeResponse>,
        client: ConnectionTo<Client>,
    ) {
        let id = request.session_id;
        let options = self.choose(&id, MODE, &request.mode_id.0);
        let editor = self.editor(&id, &client, watch::channel(true).1);
        let response = options.map(|options| {
            editor.send(SessionUpdate::ConfigOptionUpdate(ConfigOptionUpdate::new(options)));
            SetSessionModeResponse::new()
        });
        answer!(responder, response);
    }

    pub(super) fn set_option(
        &self,
        request: SetSessionConfigOptionRequest,
        responder: Responder<SetSessionConfigOptionResponse>,
        client: ConnectionTo<Client>,
    ) {
        let id = request.session_id;
        let value = request.value.as_value_id().map(|value| value.0.to_string()).unwrap_or_default();
        let options = self.choose(&id, &request.config_id.0, &value);
        if options.is_ok() && &*request.config_id.0 == MODE {
            let editor = self.editor(&id, &client, watch::channel(true).1);
            editor.send(SessionUpdate::CurrentModeUpdate(CurrentModeUpdate::new(value)));
        }
        answer!(responder, options.map(SetSessionConfigOptionResponse::new));
    }

    fn choose(
        &self,
        id: &SessionId,
        option: &str,
        value: &str,
    ) -> Answer<Vec<agent_client_protocol::v1::schema::SessionConfigOption>> {
        self.with(id, |session| {
            session.choices.set(option, value).map_err(invalid)?;
            session.mode.send_replace(session.choices.mode);
            Ok(session.choices.options())
        })
    }

    /// Stops the current prompt of a session. The session stays open.
    pub(super) fn cancel(&self, cancel: &CancelNotification) {
        let _ = self.with(&cancel.session_id, |session| {
            session.running.iter().for_each(|running| {
                running.send_replace(true);
            });
            Ok(())
        });
    }

    pub(super) fn prompt(
        self: &Arc<Self>,
        request: PromptRequest,
        responder: Responder<PromptResponse>,
        client: ConnectionTo<Client>,
    ) {
        let (turn, busy) = match self.begin(&request, &client) {
            Ok(begun) => begun,
            Err(error) => return answer!(responder, Err(error)),
        };
        let cancellation = responder.cancellation();
        tokio::spawn(async move {
            let work = interrupt::on_own_thread(async move || turn.run().await);
            tokio::pin!(work);
            let done = tokio::select! {
                done = &mut work => done,
                () = cancellation.cancelled() => {
                    busy.stop.send_replace(true);
                    work.await
                }
            };
            drop(busy); // the editor may send the next prompt as soon as it has the answer
            answer!(responder, outcome(done));
        });
    }

    /// Checks a prompt, and marks its session as busy.
    fn begin(self: &Arc<Self>, request: &PromptRequest, client: &ConnectionTo<Client>) -> Answer<(Turn, Busy)> {
        let id = &request.session_id;
        let running = *self.runs.borrow();
        self.with(id, |session| {
            if session.running.is_some() {
                return Err(invalid("a prompt of this session is running; cancel it first"));
            }
            if running >= MAX_RUNS {
                return Err(invalid(format!("{MAX_RUNS} prompts are running; wait for one to end")));
            }
            let text = prompt::text(&request.prompt, &session.root).map_err(invalid)?;
            if text.len() as u64 > TASK_LIMIT {
                return Err(invalid(format!("the prompt is longer than {} KiB", TASK_LIMIT / 1024)));
            }
            let stop = watch::Sender::new(false);
            let editor = self.editor(id, client, stop.subscribe());
            let title = sanitize::short(text.lines().next().unwrap_or_default(), 80);
            editor.send(SessionUpdate::SessionInfoUpdate(SessionInfoUpdate::new().title(title)));
            if let Some(notice) = session.notice.take() {
                editor.say(&format!("{notice}\n\n"));
            }
            let prompt = with_earlier(&session.earlier, &text);
            match session.choices.mode.is_dry() {
                true => session.earlier.push(text),
                false => session.earlier.clear(),
            }
            let mut given = self.flags.clone();
            if let Some(model) = &session.choices.model {
                given.retain(|(key, _)| *key != "model");
                given.push(("model", model.clone()));
            }
            let turn = Turn {
                editor,
                context: session.context.clone(),
                store: self.store.clone(),
                root: session.root.clone(),
                prompt,
                mode: session.mode.subscribe(),
                standing: Arc::clone(&session.standing),
                given,
            };
            session.running = Some(stop.clone());
            self.runs.send_modify(|runs| *runs += 1);
            Ok((turn, Busy { host: Arc::clone(self), id: id.clone(), stop }))
        })
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

/// Marks a session as busy until this is dropped.
struct Busy {
    host: Arc<Host>,
    id: SessionId,
    stop: watch::Sender<bool>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.host.with(&self.id, |session| {
            // A session that was closed and loaded again is another one.
            if session.running.as_ref().is_some_and(|running| running.same_channel(&self.stop)) {
                session.running = None;
            }
            Ok(())
        });
        self.host.runs.send_modify(|runs| *runs -= 1);
    }
}

/// A prompt, after the earlier ones that were only dry runs.
fn with_earlier(earlier: &[String], text: &str) -> String {
    let mut room = MAX_EARLIER;
    let fits = |prompt: &&String| {
        let fits = prompt.len() <= room;
        room = room.saturating_sub(prompt.len());
        fits
    };
    let mut last: Vec<&str> = earlier.iter().rev().take_while(fits).map(String::as_str).collect();
    if last.is_empty() {
        return text.to_owned();
    }
    last.reverse();
    let last = last.join("\n\n");
    format!("{text}\n\nEarlier messages (their changes were only proposed, not made):\n\n{last}")
}

/// The answer to a prompt.
fn outcome(done: Result<Report>) -> Answer<PromptResponse> {
    let report = match done {
        Ok(report) => report,
        Err(failure) if failure.ending == Ending::Interrupted => {
            return Ok(PromptResponse::new(StopReason::Cancelled));
        }
        Err(failure) => return Err(internal(&failure)),
    };
    match ending::stop_reason(&report.ending) {
        Some(reason) => Ok(PromptResponse::new(reason)),
        // Without any answer, it is likely that no model is set up.
        None if report.totals.turns == 0 => Err(Error::new(ErrorCode::AUTH_REQUIRED, shown(&report.message))),
        None => Err(Error::new(ErrorCode::INTERNAL_ERROR, shown(&report.message))),
    }
}

/// A failure as one sentence, with its hints.
fn sentence(failure: &Failure) -> String {
    let hints = failure.hints.iter().map(|hint| format!("; {hint}"));
    shown(&format!("{:#}{}", failure.error, hints.collect::<String>()))
}

/// A message for the editor. It may quote a secret.
fn shown(text: &str) -> String {
    let secrets = masking::of_variables(&crate::layers::Environment::new(std::env::vars_os()));
    sanitize::text(&masking::known_masked(&secrets, text)).into_owned()
}

fn unknown(id: &SessionId) -> Error {
    let id = sanitize::short(&id.0, 80);
    Error::new(ErrorCode::RESOURCE_NOT_FOUND, format!("there is no session {id:?}"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::INVALID_PARAMS, message)
}

fn internal(failure: &Failure) -> Error {
    Error::new(ErrorCode::INTERNAL_ERROR, sentence(failure))
}
