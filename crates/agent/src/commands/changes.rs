//! `agent diff|undo|apply`: shows the changes made in a session, undoes them, or applies those from
//! a dry run to the repository. The changes are read from the session's folder, so it does not
//! matter if a dry run's tree is already gone.

use std::path::PathBuf;

use journal::{Event, Journal, Mode, Record, Store};
use secrets::Secrets;
use workspace::{BringError, Conflict, FileImage, History, NetChange, Workspace};

use crate::cli::{Apply, DiffSession, Undo};
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::masking;
use crate::sanitize;
use crate::session;
use preview::{FileChange, Format, Image};

/// Shows the changes made in a session.
pub(crate) fn diff(command: &DiffSession, context: &Context) -> Result<Exit> {
    let past = PastSession::find(&context.store()?, &command.session.id)?;
    let history = History::open(&past.recorded())?;
    let changes = history.net(command.turn.map_or(0..=u32::MAX, |turn| turn..=turn))?;
    warn_about_large_files(&history, |turn| command.turn.is_none_or(|wanted| wanted == turn));
    if changes.is_empty() {
        let when = command.turn.map_or(String::new(), |turn| format!(" in turn {turn}"));
        console::say(format_args!("session {} changed nothing{when}", past.id));
        return Ok(Exit::Success);
    }
    let secrets = masking::for_display(context, &past.id);
    console::changes(&masked(changes, &secrets), command.preview, context)?;
    Ok(Exit::Success)
}

/// Undoes the changes made in a session.
pub(crate) fn undo(mut command: Undo, context: &Context) -> Result<Exit> {
    let (check_only, format) = command.trial.resolve(&mut command.session).map_err(Failure::misuse)?;
    let (past, _lock) =
        PastSession::take(&context.store()?, command.session.as_deref(), "agent undo SESSION")?;
    if past.applied().exists() {
        // Opening the workspace rolls back an interrupted commit, so do it before reading the
        // history.
        past.workspace()?;
    }
    let history = History::open(&past.applied())?;
    let changes = match command.to {
        // Changes are applied all at once, so only the dry run's record tells which turn made each
        // one.
        Some(turn) if past.mode == Mode::DryRun => {
            changes_back_to(turn, history.standing(..)?, &History::open(&past.recorded())?)?
        }
        to => history.standing(to.map_or(0, |turn| turn.saturating_add(1))..)?,
    };
    warn_about_large_files(&history, |turn| command.to.is_none_or(|to| turn > to));
    let (own_events, changes): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| is_own_events(change, &past.id));
    for change in &own_events {
        let path = sanitize::line(change.path.as_str());
        console::say(format_args!("warning: {path} is not changed: it contains the events of this session"));
    }
    if changes.is_empty() {
        let why = match (past.mode, history.records().is_empty()) {
            (Mode::DryRun, true) => "it is a dry run that was not applied",
            (Mode::Run, true) => "it changed nothing",
            _ if !own_events.is_empty() => "it changed no other file",
            _ if command.to.is_some() => "no changes after that turn are left",
            _ => "all changes are already undone",
        };
        console::say(format_args!("nothing to undo in session {}: {why}", past.id));
        return Ok(Exit::Success);
    }
    let workspace = past.workspace()?;
    let done = workspace.would_put_back(&changes).and_then(|planned| {
        if !check_only {
            workspace.put_back(&changes)?;
        }
        Ok(planned)
    });
    match done {
        Ok(planned) => past.report(
            planned,
            (check_only, format),
            "undone",
            "nothing to undo: the files already have their earlier contents",
            context,
        ),
        Err(BringError::Conflicts(conflicts)) => {
            refuse("nothing was undone; these files were changed after the session:", &conflicts);
            Ok(Exit::Negative)
        }
        Err(error) => Err(Failure::refused(error)),
    }
}

/// Returns whether a file contains this session's events, as it does after `agent run --json | tee
/// FILE`. Looks only at the file's first line.
fn is_own_events(change: &NetChange, session: &str) -> bool {
    let Some(after) = change.after.as_ref().filter(|image| !image.link) else { return false };
    let first = after.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let record = serde_json::from_slice::<Record>(first);
    record.is_ok_and(|record| matches!(record.event, Event::Session { id, .. } if id == session))
}

/// Returns the changes that roll an applied dry run back to a turn. A merged file does not match
/// any turn, so it is restored to its contents before the merge.
fn changes_back_to(turn: u32, standing: Vec<NetChange>, made: &History) -> Result<Vec<NetChange>> {
    let mut turns: Vec<u32> = made.records().iter().map(|r| r.turn).filter(|t| *t > turn).collect();
    turns.dedup();
    let wanted = made.net(..=turn)?;
    let later = turns.iter().map(|t| made.net(..=*t)).collect::<std::io::Result<Vec<_>>>()?;
    let after = |net: &[NetChange], change: &NetChange| {
        let found = net.iter().find(|c| c.path == change.path);
        found.map_or_else(|| change.before.clone(), |c| c.after.clone())
    };
    let back = standing.into_iter().filter_map(|change| {
        let target = after(&wanted, &change);
        let known = change.after == target || later.iter().any(|net| after(net, &change) == change.after);
        let before = if known { target } else { change.before.clone() };
        (before != change.after).then_some(NetChange { before, ..change })
    });
    Ok(back.collect())
}

/// Applies the changes from a dry run to the repository.
pub(crate) fn apply(mut command: Apply, context: &Context) -> Result<Exit> {
    let (check_only, format) = command.trial.resolve(&mut command.session).map_err(Failure::misuse)?;
    let (past, _lock) =
        PastSession::take(&context.store()?, command.session.as_deref(), "agent apply SESSION")?;
    let history = History::open(&past.recorded())?;
    let changes = history.net(..)?;
    warn_about_large_files(&history, |_| true);
    if changes.is_empty() {
        console::say(format_args!("nothing to apply: session {} changed nothing", past.id));
        return Ok(Exit::Success);
    }
    let workspace = past.workspace()?;
    let done = workspace.would_bring(&changes, command.merge).and_then(|planned| {
        let merged = if check_only { Vec::new() } else { workspace.bring(&changes, command.merge)?.merged };
        Ok((planned, merged))
    });
    match done {
        Ok((planned, merged)) => {
            for path in merged {
                let path = sanitize::line(path.as_str());
                console::say(format_args!("merged {path}, which was changed after the dry run"));
            }
            past.report(
                planned,
                (check_only, format),
                "applied",
                "nothing to apply: the files are already as the session left them",
                context,
            )
        }
        Err(BringError::Conflicts(conflicts)) => {
            let why =
                if command.merge { "cannot be merged" } else { "were changed after the dry run started" };
            refuse(&format!("nothing was applied; these files {why}:"), &conflicts);
            if !command.merge {
                let hint = "hint: to merge changes to different lines: agent apply";
                console::say(format_args!("{hint} {} --merge", past.id));
            }
            Ok(Exit::Negative)
        }
        Err(error) => Err(Failure::refused(error)),
    }
}

/// Warns about changed files that were too large to record.
fn warn_about_large_files(history: &History, wanted: impl Fn(u32) -> bool) {
    let mut paths: Vec<_> =
        history.records().iter().filter(|r| wanted(r.turn)).flat_map(|r| &r.left_out).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let path = sanitize::line(path.as_str());
        console::say(format_args!("warning: {path} was changed too, but is too large to record"));
    }
}

/// A session that has ended.
struct PastSession {
    id: String,
    folder: PathBuf,
    root: PathBuf,
    mode: Mode,
}

impl PastSession {
    fn find(store: &Store, id: &str) -> Result<Self> {
        let summary = store.summary(id)?;
        let (root, mode) = (PathBuf::from(&summary.root), summary.mode);
        Ok(Self { folder: store.folder(&summary.id), id: summary.id, root, mode })
    }

    /// Finds a session and locks it, so that it cannot be resumed in the meantime.
    fn take(store: &Store, id: Option<&str>, usage: &str) -> Result<(Self, Journal)> {
        let id = id.ok_or_else(|| {
            Failure::misuse(format!("no session given; usage: {usage}"))
                .hint("`agent sessions list` lists sessions; `last` is the newest")
        })?;
        let id = store.find(id)?;
        let (journal, _) = store.open(&id)?;
        Ok((Self::find(store, &id)?, journal))
    }

    /// Returns the folder with the changes that the session recorded: changes to the repository or,
    /// in a dry run, to the dry run's tree.
    fn recorded(&self) -> PathBuf {
        self.folder.join(session::STATE)
    }

    /// Returns the folder with the recorded changes to the repository itself. A dry run keeps them
    /// separate from its own changes, because a record identifies its tree by path, and an overlay
    /// has the same path as the repository.
    fn applied(&self) -> PathBuf {
        self.folder.join(if self.mode == Mode::DryRun { "applied" } else { session::STATE })
    }

    fn workspace(&self) -> Result<Workspace> {
        Workspace::open_with(&self.root, self.applied()).map_err(Failure::refused)
    }

    fn report(
        &self,
        planned: Vec<NetChange>,
        (check_only, format): (bool, Option<Format>),
        done: &str,
        nothing: &str,
        context: &Context,
    ) -> Result<Exit> {
        if planned.is_empty() {
            console::say(format_args!("{nothing} (session {})", self.id));
            return Ok(Exit::Success);
        }
        let secrets = masking::for_display(context, &self.id);
        console::changes(&masked(planned, &secrets), format, context)?;
        if !check_only {
            let root = self.root.display().to_string();
            console::say(format_args!("{done} in {}: session {}", sanitize::line(&root), self.id));
        }
        Ok(Exit::Success)
    }
}

fn refuse(message: &str, conflicts: &[Conflict]) {
    console::say(message);
    for conflict in conflicts {
        let line = format!("{}: {}", conflict.path, conflict.why);
        console::say(format_args!("  {}", sanitize::line(&line)));
    }
}

/// Converts net changes for a preview, with secrets masked.
fn masked(changes: Vec<NetChange>, secrets: &Secrets) -> Vec<FileChange> {
    let real = shown(changes);
    let masked = masking::shown(real.clone(), secrets);
    if masked != real {
        console::say("secrets are shown as placeholders; set AGENT_MASK_SECRETS=false to see them");
    }
    masked
}

/// Converts net changes for a preview.
pub(crate) fn shown(changes: Vec<NetChange>) -> Vec<FileChange> {
    let image = |image: FileImage| Image { bytes: image.bytes, mode: image.mode, link: image.link };
    let changes = changes.into_iter().map(|change| FileChange {
        path: change.path.to_string(),
        from: None,
        before: change.before.map(image),
        after: change.after.map(image),
    });
    preview::with_renames(changes.collect())
}
