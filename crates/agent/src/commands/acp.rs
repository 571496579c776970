//! `agent acp`: lets an editor drive the agent over standard input and output, using the Agent
//! Client Protocol. Standard output carries only protocol messages; warnings go to standard error.
//! See `docs/editors.md`.
//!
//! [`host`] holds the sessions, [`requests`] and [`prompts`] answer the editor, [`turn`] runs one
//! prompt, [`permission`] asks the user before calls, [`servers`] converts the MCP servers that the
//! editor offers, and [`details`] looks up a call's changes in the tree's history. The `acp` crate
//! translates the journal.

mod details;
mod host;
mod permission;
mod prompts;
mod requests;
mod servers;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use acp::lines::{self, Backlog};
use agent_client_protocol::v1::schema::{
    AuthenticateRequest, CancelNotification, CloseSessionRequest, InitializeRequest, LoadSessionRequest,
    NewSessionRequest, PromptRequest, ResumeSessionRequest, SetSessionConfigOptionRequest,
    SetSessionModeRequest,
};
use agent_client_protocol::{Agent, Lines, on_receive_notification, on_receive_request};

use crate::cli::Acp;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Result};
use crate::interrupt::{self, Signals};
use crate::sanitize;
use host::Host;

/// Answers a request. Ignores errors: a closed connection is detected elsewhere.
macro_rules! answer {
    ($responder:expr, $result:expr) => {{
        let _ = $responder.respond_with_result($result);
    }};
}
use answer;

/// How long to wait for interrupted runs before exiting.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Serves the editor until it closes standard input or a signal arrives.
pub(crate) fn run(command: Acp, context: &Context) -> Result<Exit> {
    let backlog = Backlog::default();
    let host = Arc::new(Host::new(command.settings.given, context, backlog.clone())?);
    interrupt::block_on(async {
        let signals = Signals::take()?;
        tokio::select! {
            () = serve(&host, backlog) => {}
            () = signals.wait() => {}
        }
        tokio::select! {
            () = host.stop() => {}
            () = tokio::time::sleep(SHUTDOWN) => {}
            () = signals.insisted() => {}
        }
        Ok(Exit::Success)
    })
}

/// Answers messages until the connection ends.
async fn serve(host: &Arc<Host>, backlog: Backlog) {
    /// Creates a handler that calls a method on the host.
    macro_rules! handler {
        ($request:ty, $method:ident) => {{
            let host = Arc::clone(host);
            async move |request: $request, responder, client| {
                host.$method(request, responder, client);
                Ok(())
            }
        }};
    }
    let cancel = {
        let host = Arc::clone(host);
        async move |cancel: CancelNotification, _| {
            host.cancel(&cancel);
            Ok(())
        }
    };
    let editor =
        Lines::new(lines::outgoing(tokio::io::stdout(), backlog), lines::incoming(tokio::io::stdin()));
    let ended = Agent
        .v1()
        .name("agent")
        .on_receive_request(handler!(InitializeRequest, initialize), on_receive_request!())
        .on_receive_request(handler!(AuthenticateRequest, authenticate), on_receive_request!())
        .on_receive_request(handler!(NewSessionRequest, new_session), on_receive_request!())
        .on_receive_request(handler!(LoadSessionRequest, load_session), on_receive_request!())
        .on_receive_request(handler!(ResumeSessionRequest, resume_session), on_receive_request!())
        .on_receive_request(handler!(CloseSessionRequest, close_session), on_receive_request!())
        .on_receive_request(handler!(SetSessionModeRequest, set_mode), on_receive_request!())
        .on_receive_request(handler!(SetSessionConfigOptionRequest, set_option), on_receive_request!())
        .on_receive_request(handler!(PromptRequest, prompt), on_receive_request!())
        .on_receive_notification(cancel, on_receive_notification!())
        .connect_to(editor)
        .await;
    if let Err(error) = ended {
        console::say(format_args!("connection to the editor: {}", sanitize::line(&error.to_string())));
    }
}
