//! Handles one prompt: starts the session's run, or continues it with the prompt as a message.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use ::acp::lines::Backlog;
use ::acp::{Mode, Updates, ending};
use agent_client_protocol::Client;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, ContentChunk, SessionId, SessionNotification, SessionUpdate, TextContent,
};
use journal::{Journal, Record, Report, Store};
use mcp::Entry;
use tokio::sync::watch;
use workspace::Workspace;

use super::details::{TreeDetails, last_record};
use super::permission::{Ask, Standing};
use crate::commands::resume;
use crate::context::Context;
use crate::dry_tree::DryTree;
use crate::exit::Result;
use crate::images;
use crate::masking;
use crate::other_model;
use crate::profiles;
use crate::recovery;
use crate::session::{self, Goal, Order, STATE};
use crate::waiting::Waits;

/// A handle for sending one session's updates to the editor.
#[derive(Clone)]
pub(super) struct Editor {
    pub(super) client: ConnectionTo<Client>,
    pub(super) session: SessionId,
    pub(super) backlog: Backlog,
    /// Becomes true when the run must stop. From then on, new updates do not wait for the editor to
    /// read earlier ones.
    pub(super) interrupt: watch::Receiver<bool>,
}

impl Editor {
    /// Sends an update. Blocks while too many updates are unread.
    pub(super) fn send(&self, update: SessionUpdate) {
        self.backlog.add_one(|| *self.interrupt.borrow() || self.client.termination().is_some());
        // A closed connection is detected elsewhere.
        let _ = self.client.send_notification(SessionNotification::new(self.session.clone(), update));
    }

    /// Sends text as a message from the agent.
    pub(super) fn say(&self, text: &str) {
        let text = ContentBlock::Text(TextContent::new(text));
        self.send(SessionUpdate::AgentMessageChunk(ContentChunk::new(text)));
    }
}

/// The input for one prompt.
pub(super) struct Turn {
    pub(super) editor: Editor,
    /// The context of the session's folder.
    pub(super) context: Context,
    pub(super) store: Store,
    pub(super) root: PathBuf,
    pub(super) prompt: String,
    /// The mode that was set when the prompt started.
    pub(super) started_in: Mode,
    pub(super) mode: watch::Receiver<Mode>,
    pub(super) standing: Standing,
    /// The MCP servers that the editor offers.
    pub(super) servers: Vec<Entry>,
    /// The settings from flags and from the user's choice of model.
    pub(super) given: Vec<(&'static str, String)>,
}

impl Turn {
    /// Runs the prompt.
    ///
    /// # Errors
    /// If the run cannot start.
    pub(super) async fn run(self) -> Result<Report> {
        profiles::check(&self.context.environment)?;
        let mode = self.started_in;
        if mode.is_dry() {
            let journal = self.store.create()?;
            let id = journal.id().to_owned();
            let done = self.work(journal, &[], Some(mode)).await;
            if done.is_err() && self.store.load(&id).is_ok_and(|past| past.is_empty()) {
                self.store.remove(&id)?;
            }
            return done;
        }
        let (journal, past) = self.store.open(&self.editor.session.0)?;
        let tree = self.store.take_tree(&self.root, journal.id())?;
        recovery::recover(&self.root, &tree, &self.store, &self.context)?;
        self.work(journal, &past, None).await
    }

    async fn work(&self, mut journal: Journal, past: &[Record], dry: Option<Mode>) -> Result<Report> {
        let (mut task, mut message, mut given) = (self.prompt.clone(), None, self.given.clone());
        let (mut goal, mut images) = (Goal::default(), Vec::new());
        if !past.is_empty() {
            let mut start = resume::check(past, true, false)?;
            // The model chosen in the editor takes precedence, even if it is the default.
            start.settings.retain(|(key, _)| key != "model");
            given = resume::with_recorded(given, start.settings, &self.context.environment);
            (task, message) = (start.task, Some(self.prompt.clone()));
            (goal, images) = (start.goal, images::load(&start.images, journal.folder())?);
        }
        let resolved = self.context.resolve(&given)?;
        let settings = resolved.settings()?;
        other_model::check(&settings)?;
        let variables: Vec<_> = std::env::vars_os().collect();
        let id = journal::origin(past).unwrap_or_else(|| journal.id()).to_owned();
        let state = journal.folder().join(STATE);
        let secrets = masking::secrets_with(&settings, &variables, &self.servers, &id);
        if let Ok(workspace) = Workspace::open(&self.root) {
            masking::learn(&secrets, &workspace, &state);
        }
        let details = TreeDetails::new(state.clone(), secrets.clone(), last_record(&state));
        let updates = Updates::new(journal.id(), &self.root, false, details).after(past);
        let updates = Arc::new(Mutex::new(updates));
        journal.observe(Box::new({
            let (updates, editor) = (Arc::clone(&updates), self.editor.clone());
            move |record| {
                let shown = updates.lock().unwrap_or_else(PoisonError::into_inner).show(record);
                shown.into_iter().for_each(|update| editor.send(update));
            }
        }));
        let gate = Ask {
            editor: self.editor.clone(),
            updates,
            mode: self.mode.clone(),
            asks: AtomicBool::new(self.started_in == Mode::Ask),
            standing: Arc::clone(&self.standing),
            root: self.root.clone(),
            secrets,
            interrupt: self.editor.interrupt.clone(),
        };
        let order = Order {
            task,
            goal,
            images,
            message,
            settings,
            root: self.root.clone(),
            directory: self.context.directory.clone(),
            // An overlay would be mounted for every session in this process.
            dry: dry.map(|_| DryTree::Copy { why: "other sessions share this process".to_owned() }),
            plan_only: dry == Some(Mode::Plan),
            setup: None,
            protected: Vec::new(),
            chosen: resolved.chosen(),
            own: self.context.own(),
            variables,
            mcp_servers: self.servers.clone(),
            interrupt: self.editor.interrupt.clone(),
            waits: Waits::Unseen,
            gate: Some(Arc::new(gate)),
        };
        let done = match past.is_empty() {
            true => Box::pin(session::run(order, &mut journal)).await?,
            false => Box::pin(session::resume(order, &mut journal, past)).await?,
        };
        if dry.is_some() {
            self.editor.say(&ending::proposal(&done.report, journal.id()));
        }
        if let Some(hint) = done.hints.first() {
            self.editor.say(&format!("\n{hint}\n"));
        }
        Ok(done.report)
    }
}
