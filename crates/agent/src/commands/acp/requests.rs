//! Answers all of the editor's requests except prompts. Each method answers one kind of request.

use std::sync::Arc;

use ::acp::MODE;
use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    AgentCapabilities, AuthMethod, AuthMethodAgent, AuthenticateRequest, AuthenticateResponse,
    CloseSessionRequest, CloseSessionResponse, ConfigOptionUpdate, CurrentModeUpdate, Implementation,
    InitializeRequest, InitializeResponse, LoadSessionRequest, LoadSessionResponse, McpCapabilities,
    NewSessionRequest, NewSessionResponse, PromptCapabilities, ResumeSessionRequest, ResumeSessionResponse,
    SessionCapabilities, SessionCloseCapabilities, SessionResumeCapabilities, SessionUpdate,
    SetSessionConfigOptionRequest, SetSessionConfigOptionResponse, SetSessionModeRequest,
    SetSessionModeResponse,
};
use agent_client_protocol::v1::{ConnectionTo, Responder};
use agent_client_protocol::{Client, Error, ErrorCode};
use models::Notices;

use super::answer;
use super::host::{Host, invalid, sentence, unknown};
use crate::interrupt;
use crate::model;

/// The id of the only authentication method.
const OWN_MODEL: &str = "own-model";

impl Host {
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
            .mcp_capabilities(McpCapabilities::new().http(true))
            .prompt_capabilities(PromptCapabilities::new().embedded_context(true))
            .session_capabilities(sessions);
        let own_model = AuthMethodAgent::new(OWN_MODEL, "Your own model").description(
            "Checks that there is a model: on this machine, at the address in the settings, or with \
             an API key such as DEEPSEEK_API_KEY. No account is needed."
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
        let opened = self.open(&request.cwd, &request.mcp_servers, None);
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
            let (id, servers) = (request.session_id, request.mcp_servers);
            let opened = host.open(&request.cwd, &servers, Some(&id));
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
        let opened = self.open(&request.cwd, &request.mcp_servers, Some(&request.session_id));
        let response = opened.map(|(id, choices)| {
            self.list_models(&id, client);
            ResumeSessionResponse::new().modes(choices.modes()).config_options(choices.options())
        });
        answer!(responder, response);
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

    pub(super) fn set_mode(
        &self,
        request: SetSessionModeRequest,
        responder: Responder<SetSessionModeResponse>,
        client: ConnectionTo<Client>,
    ) {
        let id = request.session_id;
        let options = self.choose(&id, MODE, &request.mode_id.0);
        let editor = self.editor_now(&id, &client);
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
            let editor = self.editor_now(&id, &client);
            editor.send(SessionUpdate::CurrentModeUpdate(CurrentModeUpdate::new(value)));
        }
        answer!(responder, options.map(SetSessionConfigOptionResponse::new));
    }
}
