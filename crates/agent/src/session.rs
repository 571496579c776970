//! One task from beginning to end: settings become a model, a work tree, a sandbox and tools, and
//! the planner is let loose on them. `agent run` and `agent batch` both come through here; nothing
//! else wires parts together.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journal::{Diff, Ending, Event, Journal, Mode, Record, Totals};
use planner::{Job, Limits, Parts, Report, Verifier};
use sandbox::overlay::Overlay;
use sandbox::{Policy, Sandbox};
use secrets::Secrets;
use tokio::sync::watch;
use tool_api::{Registry, Tool, TypedTool};
use tool_apply_patch::ApplyPatch;
use tool_list_files::ListFiles;
use tool_read_file::ReadFile;
use tool_run_command::RunCommand;
use tool_run_tests::RunTests;
use tool_search::Search;
use workspace::{History, Own, Workspace};

use crate::confinement;
use crate::dry_tree::{self, DryTree};
use crate::edit_format;
use crate::exit::{Failure, Result};
use crate::masking::{self, MaskedModel, MaskedTool, MaskedTree, MaskedVerifier};
use crate::model;
use crate::remains;
use crate::repository::{Tests, Tree};
use crate::settings::Settings;
use crate::waiting::Waits;

/// Where a session keeps what its tree's files were, in its folder.
pub(crate) const STATE: &str = "state";

/// Where a session's sandbox keeps what is gone with the run, in its folder.
pub(crate) const SANDBOX: &str = "sandbox";

/// The first argument that makes this binary the sandbox's launcher.
pub(crate) const LAUNCHER: &str = "__sandbox";

/// What is to be done, and where.
pub(crate) struct Order {
    pub(crate) task: String,
    /// What the user says to a session that is resumed.
    pub(crate) message: Option<String>,
    pub(crate) settings: Settings,
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Where the person stands: the root, or a folder below it.
    pub(crate) directory: PathBuf,
    /// The tree to work in instead of the repository.
    pub(crate) dry: Option<DryTree>,
    /// Stop before the first command.
    pub(crate) plan_only: bool,
    /// Settings that are not as by default, for who takes the session up again.
    pub(crate) chosen: Vec<(String, String)>,
    /// Files of the run itself, which may lie in the tree.
    pub(crate) own: Own,
    /// The program's own variables; commands get a part of them.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Becomes true when the run is to stop.
    pub(crate) interrupt: watch::Receiver<bool>,
    /// Whether and how waits for the server are shown.
    pub(crate) waits: Waits,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) report: Report,
    /// Where the patch lies, when something was changed.
    pub(crate) patch_file: Option<PathBuf>,
    /// The patch byte for byte.
    pub(crate) patch: Vec<u8>,
    /// The same with placeholders for secrets, as it may be seen.
    pub(crate) shown: Vec<u8>,
    /// What was masked.
    pub(crate) secrets: Secrets,
    /// What to do about an ending that came before the first turn.
    pub(crate) hints: Vec<String>,
}

impl Done {
    /// Before there is anything to tell.
    pub(crate) fn nothing() -> Self {
        Self {
            report: Report {
                ending: Ending::Interrupted,
                message: String::new(),
                diff: Diff::default(),
                totals: Totals::default(),
            },
            patch_file: None,
            patch: Vec::new(),
            shown: Vec::new(),
            secrets: Secrets::disabled(),
            hints: Vec::new(),
        }
    }
}

/// Works on a task in a session of its own. Whatever happens is in the journal, the ending too.
///
/// # Errors
/// Only when the journal cannot be written.
pub(crate) async fn run(mut order: Order, journal: &mut Journal) -> Result<Done> {
    let id = journal.id().to_owned();
    let secrets = masked(&mut order, journal, &id);
    journal.append(Event::Session {
        id: journal.id().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        task: order.task.clone(),
        root: order.root.display().to_string(),
        mode: if order.dry.is_some() { Mode::DryRun } else { Mode::Run },
        settings: order.chosen.clone(),
        forked_from: None,
    })?;
    Box::pin(work(order, secrets, journal, &[])).await
}

/// Resumes a session: one that was cut off, or one that has ended and that the user has a message
/// for.
///
/// # Errors
/// As [`run`].
pub(crate) async fn resume(mut order: Order, journal: &mut Journal, past: &[Record]) -> Result<Done> {
    let id = journal::origin(past).unwrap_or_else(|| journal.id()).to_owned();
    let secrets = masked(&mut order, journal, &id);
    let met = |r: &Record| matches!(&r.event, Event::Message { content, .. } if secrets::first_placeholder(content).is_some());
    if past.iter().any(met) {
        secrets.mark_explained(); // it has been told what a placeholder is
    }
    let changed = changed_meanwhile(&order.root, &journal.folder().join(STATE))?;
    let version = env!("CARGO_PKG_VERSION").into();
    // On record before anything can fail, so that the next resume has the message too.
    journal.append(Event::Resumed { version, changed, message: order.message.clone() })?;
    Box::pin(work(order, secrets, journal, past)).await
}

/// From now on no secret is written down, and none is in the task or the message. Placeholders are
/// made of the id.
fn masked(order: &mut Order, journal: &mut Journal, id: &str) -> Secrets {
    let secrets = masking::secrets(&order.settings, &order.variables, id);
    journal.filter(masking::filter(&secrets));
    order.task = masking::task(&secrets, &order.task);
    order.message = order.message.as_deref().map(|message| masking::task(&secrets, message));
    secrets
}

/// Files that the session changed and that are not as it left them.
fn changed_meanwhile(root: &Path, state: &Path) -> Result<Vec<String>> {
    // Opening rolls back an interrupted commit.
    let workspace = Workspace::open_with(root, state).map_err(Failure::refused)?;
    let standing = History::open(state)?.standing(..)?;
    let as_left = |change: &&workspace::NetChange| {
        let now = workspace.read_bytes(&change.path, workspace::READ_LIMIT).ok();
        now.as_ref() == change.after.as_ref().map(|image| &image.bytes)
    };
    let others = standing.iter().filter(|c| !c.after.as_ref().is_some_and(|image| image.link) && !as_left(c));
    Ok(others.map(|c| c.path.to_string()).collect())
}

async fn work(order: Order, secrets: Secrets, journal: &mut Journal, past: &[Record]) -> Result<Done> {
    let folder = journal.folder().to_owned();
    let mut interrupt = order.interrupt.clone();
    let prepared = tokio::select! {
        prepared = begin(order, &secrets, &folder, journal) => prepared,
        _ = interrupt.wait_for(|stop| *stop) => Err(Failure {
            ending: Ending::Interrupted,
            error: anyhow::anyhow!("stopped by a signal before the first turn"),
            hints: Vec::new(),
        }),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return fail(failure, &secrets, journal),
    };
    let swept = remains::sweep(&folder);
    let report = if past.is_empty() {
        planner::run(prepared.job, prepared.parts, journal).await
    } else {
        planner::resume(prepared.job, prepared.parts, journal, past).await
    };
    let report = report.map_err(Failure::refused)?;
    let patch = prepared.tree.patch();
    let mut patch_file = None;
    if !patch.is_empty() {
        let path = folder.join("changes.patch");
        std::fs::write(&path, &patch)?;
        patch_file = Some(path);
    }
    drop(prepared.kept);
    let _ = swept.await;
    let _ = std::fs::remove_dir(dry_tree::layers(&folder)); // an overlay leaves it, empty
    let shown = secrets.mask_bytes(&patch).into_owned();
    Ok(Done { report, patch_file, patch, shown, secrets, hints: Vec::new() })
}

/// An ending before the first turn.
fn fail(failure: Failure, secrets: &Secrets, journal: &mut Journal) -> Result<Done> {
    let message = secrets.mask(&format!("{:#}", failure.error)).into_owned();
    let report = Report { ending: failure.ending, message, diff: Diff::default(), totals: Totals::default() };
    journal.append(Event::Finished {
        ending: report.ending.clone(),
        message: report.message.clone(),
        diff: Diff::default(),
        totals: report.totals,
    })?;
    Ok(Done { report, hints: failure.hints, ..Done::nothing() })
}

struct Prepared {
    job: Job,
    parts: Parts,
    tree: Arc<Tree>,
    /// What a dry run works in, to be removed at the end.
    kept: Option<Kept>,
    /// What the model cannot follow of the settings.
    warnings: Vec<String>,
}

enum Kept {
    Overlay { _overlay: Overlay },
    Copy { _copy: Copy },
}

/// The copy a dry-run works in; gone with this value.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn copy(root: &Path, target: PathBuf, own: &Own) -> Result<Copy> {
    let original = Workspace::open(root).map_err(Failure::refused)?.without(own);
    let copy = Copy(target.clone());
    tokio::task::spawn_blocking(move || original.copy_to(&target))
        .await
        .map_err(Failure::refused)?
        .map_err(|e| Failure::misuse(format!("cannot copy the repository for a dry run: {e}")))?;
    Ok(copy)
}

/// Says what a dry run will cost before it costs it, and what holds commands, and gets everything
/// ready.
async fn begin(order: Order, secrets: &Secrets, folder: &Path, journal: &mut Journal) -> Result<Prepared> {
    if let Some(dry) = &order.dry {
        let event = dry.event(&order.root, folder, &order.own).await?;
        journal.append(event)?;
    }
    let (prepared, report) = prepare(order, secrets, folder).await?;
    if let Some(sandbox::Report { enforced, summary, lines, .. }) = report {
        journal.append(Event::Sandbox { enforced, summary, lines })?;
    }
    for message in &prepared.warnings {
        journal.append(Event::Warning { message: message.clone() })?;
    }
    Ok(prepared)
}

async fn prepare(
    order: Order,
    secrets: &Secrets,
    folder: &Path,
) -> Result<(Prepared, Option<sandbox::Report>)> {
    let settings = &order.settings;
    let confined = |root: &Path| sandbox(settings, root, Some(folder.join(SANDBOX)), order.variables.clone());
    // A run whose commands cannot be confined stops now, not at its first command.
    let try_out = async |sandbox: &Sandbox| match order.plan_only {
        true => Ok(None),
        false => Box::pin(sandbox.probe()).await.cloned().map(Some).map_err(Failure::refused),
    };
    let open = || model::open(settings, true, order.waits.notices());
    let tools = |root: &Path, sandbox: &Sandbox| {
        toolbox(settings, secrets, root, folder, sandbox.clone(), &order.own)
    };
    let (chosen, mut toolbox, kept, report) = match order.dry {
        dry @ (None | Some(DryTree::Overlay(_))) => {
            // An overlay is where the repository was.
            let kept = match dry {
                Some(DryTree::Overlay(overlay)) => Some(Kept::Overlay { _overlay: overlay }),
                _ => None,
            };
            // The sandbox is tried out by other processes: first of all, so that the rest is done
            // meanwhile.
            let sandbox = confined(&order.root)?;
            let making = async { tools(&order.root, &sandbox) };
            let (report, chosen, toolbox) = tokio::join!(try_out(&sandbox), open(), making);
            (chosen?, toolbox?, kept, report?)
        }
        Some(DryTree::Copy { .. }) => {
            let chosen = open().await?; // before the copy, which may take long
            let copy = copy(&order.root, folder.join("tree"), &order.own).await?;
            let sandbox = confined(&copy.0)?;
            let (report, toolbox) = tokio::join!(try_out(&sandbox), async { tools(&copy.0, &sandbox) });
            (chosen, toolbox?, Some(Kept::Copy { _copy: copy }), report?)
        }
    };
    edit_format::describe(settings, &mut toolbox.registry);
    if let Some(Kept::Overlay { .. }) = kept {
        toolbox.workspace.overlays(&dry_tree::layers(folder).join("upper"));
    }
    let inside = order.directory.strip_prefix(&order.root).unwrap_or(Path::new(""));
    masking::learn(secrets, &toolbox.workspace, &folder.join(STATE));
    let tree = Arc::new(Tree::new(toolbox.workspace, inside, folder.join(STATE)));
    let verifier = Tests::new(toolbox.tests)
        .map(|tests| Arc::new(MaskedVerifier(Arc::new(tests), secrets.clone())) as Arc<dyn Verifier>);
    let prepared = Prepared {
        job: Job {
            task: order.task,
            settings: planner::Settings { plan_only: order.plan_only, ..plan(settings)? },
            why_model: chosen.why,
        },
        parts: Parts {
            model: order.waits.explain(Box::new(MaskedModel(chosen.model, secrets.clone()))),
            tools: toolbox.registry,
            repository: Arc::new(MaskedTree::new(Arc::clone(&tree) as _, secrets.clone())),
            verifier,
            inbox: Box::new(VecDeque::from_iter(order.message)),
            interrupt: order.interrupt,
        },
        tree,
        kept,
        warnings: chosen.warnings,
    };
    Ok((prepared, report))
}

/// The planner's part of the settings.
///
/// # Errors
/// When a word of a setting is none the planner knows: a mistake of ours, found by a test.
pub(crate) fn plan(settings: &Settings) -> Result<planner::Settings> {
    let word = |text: &str| serde_json::Value::from(text);
    Ok(planner::Settings {
        limits: Limits {
            turns: settings.max_turns,
            tokens: settings.max_tokens,
            seconds: Some(settings.max_seconds),
            cost: settings.max_cost,
        },
        cut: serde_json::from_value(word(&settings.cut)).map_err(Failure::refused)?,
        approach: serde_json::from_value(word(&settings.approach)).map_err(Failure::refused)?,
        temperature: settings.temperature,
        max_answer_tokens: settings.max_answer_tokens,
        ..planner::Settings::default()
    })
}

/// The tools on a work tree, and what they stand on.
pub(crate) struct Toolbox {
    pub(crate) registry: Registry,
    pub(crate) workspace: Workspace,
    pub(crate) sandbox: Sandbox,
    /// The same tests as the tool's, with logs of their own.
    pub(crate) tests: RunTests,
}

/// How the sandbox starts this binary again.
pub(crate) fn launcher() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), LAUNCHER.into()]
}

/// Makes the sandbox for a work tree. What it keeps goes to `folder`, where one belongs to it
/// alone.
///
/// # Errors
/// When the settings do not fit together, or name what is not there.
pub(crate) fn sandbox(
    settings: &Settings,
    root: &Path,
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
) -> Result<Sandbox> {
    let policy = Policy { folder, ..confinement::policy(settings, root, variables)? };
    Sandbox::new(policy, launcher()).map_err(Failure::refused)
}

/// Makes the tools for a work tree. Pre-images and logs go to `folder`.
///
/// # Errors
/// When the tree or the folder cannot be opened.
pub(crate) fn toolbox(
    settings: &Settings,
    secrets: &Secrets,
    root: &Path,
    folder: &Path,
    sandbox: Sandbox,
    own: &Own,
) -> Result<Toolbox> {
    let workspace = Workspace::open_with(root, folder.join(STATE)).map_err(Failure::refused)?.without(own);
    toolbox_on(workspace, settings, secrets, folder, sandbox, |tool| tool)
}

/// The tools for a work tree whose calls are judged and never run: nothing is kept anywhere.
///
/// # Errors
/// When the tree cannot be opened.
pub(crate) fn judges(
    settings: &Settings,
    secrets: &Secrets,
    root: &Path,
    sandbox: Sandbox,
) -> Result<Registry> {
    let workspace = Workspace::open(root).map_err(Failure::refused)?;
    toolbox_on(workspace, settings, secrets, Path::new(""), sandbox, |tool| tool)
        .map(|toolbox| toolbox.registry)
}

/// Makes the tools on a workspace that is open, with a sandbox for its commands. `wrap` gets each tool that
/// works on the tree or runs commands, with its results masked.
pub(crate) fn toolbox_on(
    workspace: Workspace,
    settings: &Settings,
    secrets: &Secrets,
    folder: &Path,
    sandbox: Sandbox,
    wrap: impl Fn(Arc<dyn Tool>) -> Arc<dyn Tool>,
) -> Result<Toolbox> {
    let timeout = Duration::from_secs(settings.command_seconds);
    let own = || secrets.clone();
    let tests = |logs: &str| {
        let (command, log_dir) = (settings.verify.clone(), folder.join(logs));
        RunTests::new(sandbox.clone(), tool_run_tests::Options { command, log_dir, timeout, secrets: own() })
    };
    let commands = tool_run_command::Options { log_dir: folder.join("logs"), timeout, secrets: own() };
    // In the order of the prompt: what is used most comes first.
    let tools = [
        ReadFile::new(workspace.clone(), own()).into_tool(),
        ApplyPatch::new(workspace.clone(), own()).into_tool(),
        tests("logs").into_tool(),
        ListFiles::new(workspace.clone()).into_tool(),
        Search::new(workspace.clone(), own()).into_tool(),
        RunCommand::new(sandbox.clone(), commands).into_tool(),
    ];
    let tools = tools.map(|tool| wrap(MaskedTool::wrap(tool, secrets)));
    let registry = Registry::of(tools.into_iter().chain([planner::Finish.into_tool()]));
    let registry = registry.map_err(Failure::refused)?;
    Ok(Toolbox { registry, workspace, tests: tests("logs/checks"), sandbox })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Environment;
    use crate::settings::{DEFINITIONS, Kind};

    #[test]
    fn every_word_of_a_setting_means_something_to_the_planner() {
        let resolve = |flags: &[(&'static str, String)]| {
            crate::layers::resolve(flags, &Environment::default(), None).unwrap().settings().unwrap()
        };
        for d in DEFINITIONS.iter().filter(|d| ["cut", "approach"].contains(&d.key)) {
            let Kind::Choice(words) = d.kind else { panic!("{}", d.key) };
            for word in words {
                plan(&resolve(&[(d.key, (*word).to_owned())])).unwrap();
            }
        }
        let plan = plan(&resolve(&[])).unwrap();
        let default = planner::Settings::default();
        assert_eq!(plan.limits.turns, default.limits.turns, "one default, in two crates");
        assert_eq!(plan.temperature, default.temperature);
        assert_eq!(plan.max_answer_tokens, default.max_answer_tokens);
    }
}
