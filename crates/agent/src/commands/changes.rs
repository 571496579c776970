//! `agent diff|undo|apply`: what a session changed is shown, put back, or brought from a dry run to the repository. All of it comes from
//! what the session's folder keeps, so the tree of a dry run need not be there any more.

use std::path::PathBuf;

use journal::{Event, Journal, Mode, Record, Store};
use secrets::Secrets;
use workspace::{BringError, Conflict, FileImage, History, NetChange, Workspace};

use crate::cli::{Apply, DiffSession, Trial, Undo};
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::masking;
use crate::sanitize;
use crate::session;
use preview::{FileChange, Format, Image};

/// Shows what a session changed.
pub(crate) fn diff(command: &DiffSession, context: &Context) -> Result<Exit> {
    let past = Past::find(&context.store()?, &command.session.id)?;
    let history = History::open(&past.made())?;
    let changes = match command.turn {
        Some(turn) => history.net(turn..=turn)?,
        None => history.net(..)?,
    };
    warn_of_left_out(&history, |turn| command.turn.is_none_or(|wanted| wanted == turn));
    if changes.is_empty() {
        match command.turn {
            Some(turn) => console::say(format_args!("session {} changed nothing in turn {turn}", past.id)),
            None => console::say(format_args!("session {} changed nothing", past.id)),
        }
        return Ok(Exit::Success);
    }
    let secrets = masking::for_display(context, &past.id);
    console::changes(&masked(changes, &secrets), command.preview, context)?;
    Ok(Exit::Success)
}

/// Puts back what a session changed.
pub(crate) fn undo(mut command: Undo, context: &Context) -> Result<Exit> {
    let trial = Wish::of(&command.trial, &mut command.session)?;
    let (past, _lock) = Past::take(&context.store()?, command.session.as_deref(), "agent undo SESSION")?;
    if past.stands().exists() {
        // A commit that a kill has cut in the middle is taken back first.
        past.workspace()?;
    }
    let history = History::open(&past.stands())?;
    let changes = match command.to {
        // What was applied belongs to no turn; what it consists of does.
        Some(turn) if past.mode == Mode::DryRun => {
            back_to(turn, history.standing(..)?, &History::open(&past.made())?)?
        }
        to => history.standing(to.map_or(0, |turn| turn.saturating_add(1))..)?,
    };
    warn_of_left_out(&history, |turn| command.to.is_none_or(|to| turn > to));
    let (aside, changes): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| is_own_events(change, &past.id));
    for change in &aside {
        let path = sanitize::line(change.path.as_str());
        console::say(format_args!(
            "warning: {path} is left as it is: it holds the events of the session itself"
        ));
    }
    if changes.is_empty() {
        let why = match (past.mode, history.records().is_empty()) {
            (Mode::DryRun, true) => "it was a dry run that has not been applied",
            (Mode::Run, true) => "it changed nothing",
            _ if !aside.is_empty() => "it changed nothing else",
            _ if command.to.is_some() => "nothing of what it changed after that turn still stands",
            _ => "all of it has been put back before",
        };
        console::say(format_args!("nothing to put back of session {}: {why}", past.id));
        return Ok(Exit::Success);
    }
    let workspace = past.workspace()?;
    let done = workspace.would_put_back(&changes).and_then(|foreseen| {
        if !trial.only_look {
            workspace.put_back(&changes)?;
        }
        Ok(foreseen)
    });
    match done {
        Ok(foreseen) => {
            past.tell(foreseen, &trial, "put back", "nothing to put back: the files are so already", context)
        }
        Err(BringError::Conflicts(conflicts)) => {
            refuse("nothing was put back; these files are not as the agent left them:", &conflicts);
            Ok(Exit::Negative)
        }
        Err(error) => Err(Failure::refused(error)),
    }
}

/// Whether a file is what `agent run --json | tee FILE` has written of this session, while its commands ran. Its first line says so.
fn is_own_events(change: &NetChange, session: &str) -> bool {
    let Some(after) = change.after.as_ref().filter(|image| !image.link) else { return false };
    let first = after.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let record = serde_json::from_slice::<Record>(first);
    record.is_ok_and(|record| matches!(record.event, Event::Session { id, .. } if id == session))
}

/// What leads from what stands of an applied dry run back to how its files were after a turn. A merged file is as no turn left it, so it goes
/// back to how it was before.
fn back_to(turn: u32, standing: Vec<NetChange>, made: &History) -> Result<Vec<NetChange>> {
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

/// Brings what a dry run did to the repository.
pub(crate) fn apply(mut command: Apply, context: &Context) -> Result<Exit> {
    let trial = Wish::of(&command.trial, &mut command.session)?;
    let (past, _lock) = Past::take(&context.store()?, command.session.as_deref(), "agent apply SESSION")?;
    let history = History::open(&past.made())?;
    let changes = history.net(..)?;
    warn_of_left_out(&history, |_| true);
    if changes.is_empty() {
        console::say(format_args!("nothing to apply: session {} changed nothing", past.id));
        return Ok(Exit::Success);
    }
    let workspace = past.workspace()?;
    let done = workspace.would_bring(&changes, command.merge).and_then(|foreseen| {
        let merged =
            if trial.only_look { Vec::new() } else { workspace.bring(&changes, command.merge)?.merged };
        Ok((foreseen, merged))
    });
    match done {
        Ok((foreseen, merged)) => {
            for path in merged {
                let path = sanitize::line(path.as_str());
                console::say(format_args!("merged {path}: it had been changed since the dry run"));
            }
            past.tell(
                foreseen,
                &trial,
                "applied",
                "applied already: the files are as the session left them",
                context,
            )
        }
        Err(BringError::Conflicts(conflicts)) => {
            if command.merge {
                refuse("nothing was applied; these files cannot be merged:", &conflicts);
            } else {
                refuse("nothing was applied; these files are not as the session found them:", &conflicts);
                let id = &past.id;
                console::say(format_args!(
                    "hint: agent apply {id} --merge keeps both changes where they touch different lines"
                ));
            }
            Ok(Exit::Negative)
        }
        Err(error) => Err(Failure::refused(error)),
    }
}

/// Says which files the session changed too that cannot be shown, brought or put back.
fn warn_of_left_out(history: &History, wanted: impl Fn(u32) -> bool) {
    let mut paths: Vec<_> =
        history.records().iter().filter(|r| wanted(r.turn)).flat_map(|r| &r.left_out).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let path = sanitize::line(path.as_str());
        console::say(format_args!("warning: {path} was changed too; it was too large to keep"));
    }
}

/// A session that is over.
struct Past {
    id: String,
    folder: PathBuf,
    root: PathBuf,
    mode: Mode,
}

impl Past {
    fn find(store: &Store, id: &str) -> Result<Self> {
        let summary = store.summary(id)?;
        let (root, mode) = (PathBuf::from(&summary.root), summary.mode);
        Ok(Self { folder: store.folder(&summary.id), id: summary.id, root, mode })
    }

    /// The same, with the lock that keeps it from going on meanwhile.
    fn take(store: &Store, id: Option<&str>, usage: &str) -> Result<(Self, Journal)> {
        let id = id.ok_or_else(|| {
            Failure::misuse(format!("which session? {usage}"))
                .hint("`agent sessions list` shows them; `last` is the newest")
        })?;
        let id = store.find(id)?;
        let (journal, _) = store.open(&id)?;
        Ok((Self::find(store, &id)?, journal))
    }

    /// What the agent did, wherever that was.
    fn made(&self) -> PathBuf {
        self.folder.join(session::STATE)
    }

    /// What was done to the repository. A dry run's own tree may have had the repository's very path, so the two are kept apart.
    fn stands(&self) -> PathBuf {
        self.folder.join(if self.mode == Mode::DryRun { "applied" } else { session::STATE })
    }

    fn workspace(&self) -> Result<Workspace> {
        Workspace::open_with(&self.root, self.stands()).map_err(Failure::refused)
    }

    fn tell(
        &self,
        foreseen: Vec<NetChange>,
        wish: &Wish,
        done: &str,
        nothing: &str,
        context: &Context,
    ) -> Result<Exit> {
        if foreseen.is_empty() {
            console::say(format_args!("{nothing} (session {})", self.id));
            return Ok(Exit::Success);
        }
        console::changes(&masked(foreseen, &masking::for_display(context, &self.id)), wish.form, context)?;
        if !wish.only_look {
            let root = self.root.display().to_string();
            console::say(format_args!("{done} in {}: session {}", sanitize::line(&root), self.id));
        }
        Ok(Exit::Success)
    }
}

/// What is wanted: only to look, and in which form to be told.
struct Wish {
    only_look: bool,
    form: Option<Format>,
}

impl Wish {
    fn of(trial: &Trial, session: &mut Option<String>) -> Result<Self> {
        let preview = trial.preview(session).map_err(Failure::misuse)?;
        Ok(Self { only_look: trial.check || preview.is_some(), form: preview.unwrap_or(Some(Format::None)) })
    }
}

fn refuse(message: &str, conflicts: &[Conflict]) {
    console::say(message);
    for conflict in conflicts {
        let line = format!("{}: {}", conflict.path, conflict.why);
        console::say(format_args!("  {}", sanitize::line(&line)));
    }
}

/// Net changes as they may be seen.
fn masked(changes: Vec<NetChange>, secrets: &Secrets) -> Vec<FileChange> {
    let real = shown(changes);
    let masked = masking::shown(real.clone(), secrets);
    if masked != real {
        console::say("secrets are shown as placeholders; with AGENT_MASK_SECRETS=false as they are");
    }
    masked
}

/// Net changes as a preview takes them.
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
