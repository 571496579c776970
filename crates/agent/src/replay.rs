//! Replays a recorded session with the planner: prepares a tree, takes the planner's other parts
//! from the `replay` crate, and returns the result.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use journal::{ModelRole, Record, Store};
use planner::{Job, Limits, OpenModel, Parts, Verifier};
use replay::{
    Bundle, Comparison, Difference, Gathered, RecordedLater, RecordedModel, RecordedUser, Recording,
    ReplayedChecks, ReplayedTool, ReplayedTree, Script, Source, Stage,
};
use serde_json::Value;
use tool_apply_patch::{Inspect, Preview};
use workspace::{Remembered, Seed, Workspace};

use crate::confinement;
use crate::edit_format;
use crate::exit::{Failure, Result};
use crate::leftovers;
use crate::masking;
use crate::mcp_servers;
use crate::repository::{INSTRUCTIONS, Tests, Tree};
use crate::session::{self, Additions, Goal};
use crate::settings::Settings;

/// How to replay a session.
pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) settings: Settings,
    /// The environment of this process. Commands get only part of it.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// An existing tree, which is reset to its state at the start of the session. If there is none,
    /// the bundle's tree is created.
    pub(crate) tree: Option<(PathBuf, Remembered)>,
    /// A private folder for this replay.
    pub(crate) folder: PathBuf,
}

/// The result of a replay.
pub(crate) struct Outcome {
    pub(crate) comparison: Comparison,
    pub(crate) session: String,
    /// The version of the agent that recorded the session.
    pub(crate) version: String,
    /// The number of files compared at the end, or why they were not compared.
    pub(crate) tree: std::result::Result<usize, &'static str>,
}

/// An inspector that repeats the findings recorded in the session.
struct Recorded(Arc<Script>);

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

#[async_trait]
impl Inspect for Recorded {
    async fn inspect(&self, files: &[Preview<'_>]) -> Option<String> {
        let paths = files.iter().flat_map(|file| file.from.into_iter().chain([file.path]));
        self.0.inspection(&paths.map(ToString::to_string).collect::<Vec<_>>())
    }
}

/// Gathers the files needed to replay a session, which are read from `store`.
pub(crate) fn gather(store: &Store, id: &str, records: Vec<Record>, scratch: &Path) -> Result<Gathered> {
    let state = store.folder(id).join(session::STATE);
    Ok(replay::gather(records, &state, scratch, INSTRUCTIONS, masking::is_secret_file)?)
}

/// Replays a session to its end, or to the first difference.
///
/// # Errors
/// If the tree cannot be created, or the records do not contain a run.
pub(crate) async fn perform(bundle: Bundle, options: Options) -> Result<Outcome> {
    let Bundle { files, changes, end, records, .. } = bundle;
    let mut recording = Recording::of(records)?;
    let Options { source, settings, variables, tree, folder } = options;
    let workspace = match tree {
        Some((root, remembered)) => reset(&root, &remembered)?,
        None => create(&folder, &recording.root, files)?,
    };
    // Secrets get the same placeholders as in the recorded session.
    let secrets = masking::secrets(&settings, &variables, &recording.origin);
    masking::learn(&secrets, &workspace, &folder.join(session::STATE));
    if secrets::first_placeholder(&recording.task).is_some() {
        secrets.mark_explained(); // the task explains the placeholders
    }
    let (plans, falls_back) = (recording.plans(), recording.falls_back());
    let script = Arc::new(Script::new(&mut recording));
    let later = |role, used: bool| {
        let model = RecordedLater { role, script: Arc::clone(&script) };
        used.then(|| Box::new(model) as Box<dyn OpenModel>)
    };
    let stage = Arc::new(Stage {
        script: Arc::clone(&script),
        source,
        workspace: Some(workspace.clone()).filter(|_| source != Source::Record),
        changes,
        roots: (workspace.root().display().to_string(), recording.root.display().to_string()),
    });
    let sandbox_folder = Some(folder.join(leftovers::SANDBOX));
    let sandbox = confinement::sandbox(&settings, workspace.root(), sandbox_folder, variables)?;
    let goal = Goal { question: recording.question(), output_schema: recording.output_schema.clone() };
    let wrap = |tool| ReplayedTool::wrap(tool, &stage);
    // The session's MCP servers are not started, because they may be gone or respond differently.
    let external = mcp_servers::replayed(&recording.external, &secrets);
    let tools = external.map(|tool| ReplayedTool::recorded(tool, &stage)).collect();
    let inspector = Some(Arc::new(Recorded(Arc::clone(&script))) as Arc<dyn Inspect>);
    let additions = Additions { goal: goal.clone(), tools, inspector, ..Additions::default() };
    let mut toolbox =
        session::toolbox_on(workspace.clone(), &settings, &secrets, &folder, sandbox, additions, wrap)?;
    let runs_commands = source == Source::Commands;
    if runs_commands && !recording.plan_only() && !goal.question {
        Box::pin(toolbox.sandbox.probe()).await.map_err(Failure::refused)?;
    }
    edit_format::describe(&settings, &recording.identity, &mut toolbox.registry);
    let real = Tests::verifier(toolbox.tests, &secrets).filter(|_| runs_commands);
    let verifier = ReplayedChecks { stage: Arc::clone(&stage), real };
    let verified = recording.plan["has_verifier"] == true;
    let planned = session::plan(&settings, &goal)?;
    let unlimited = Limits { turns: u32::MAX, tokens: None, seconds: None, cost: None };
    // A replay runs later than the session did and may take more or less time, so it has no time
    // limit. It has no cost limit either, because prices depend on when it runs. A resumed session
    // may have had higher limits, so its replay has no limits at all.
    let limits = Limits { seconds: None, cost: None, ..planned.limits };
    let limits = if recording.resumed { unlimited } else { limits };
    let parts = Parts {
        model: Box::new(RecordedModel { identity: recording.identity.clone(), script: Arc::clone(&script) }),
        escalation: later(ModelRole::Escalate, recording.escalates()),
        fallback: later(ModelRole::Fallback, falls_back),
        tools: toolbox.registry,
        repository: {
            let inside = start_folder(&recording.plan);
            let tree = Tree::new(workspace.clone(), secrets.clone(), &inside, PathBuf::new());
            Arc::new(ReplayedTree {
                tree: Arc::new(tree),
                changed: recording.changed,
                stage: Arc::clone(&stage),
            })
        },
        verifier: verified.then(|| Arc::new(verifier) as Arc<dyn Verifier>),
        inbox: Box::new(RecordedUser(Arc::clone(&script))),
        interrupt: script.stop(),
    };
    let job = Job {
        task: recording.task.clone(),
        images: recording.images.clone(),
        settings: planner::Settings {
            plan_only: recording.plan_only(),
            escalates: recording.escalates(),
            limits,
            ..planned
        },
        why_model: "recorded".into(),
        role: None,
    };
    let mut journal = Store::new(&folder).create()?;
    journal.filter(masking::filter(&secrets));
    let observer = Arc::clone(&script);
    journal.observe(Box::new(move |record| observer.observe(record)));
    let plans = if source == Source::Record { plans } else { Vec::new() };
    let replayed = Box::pin(planner::replay(job, parts, &mut journal, &plans)).await;
    replayed.map_err(Failure::refused)?;
    let mut comparison = script.finish();
    if comparison.difference.is_none() {
        stage.repeat_last_revert().map_err(|why| Failure::refused(anyhow::anyhow!(why)))?;
    }
    let tree = match source {
        Source::Record => Err("no tool ran"),
        _ if !recording.whole => Err("a tool was still running when the session ended"),
        _ => Ok(end.len()),
    };
    if comparison.difference.is_none() && tree.is_ok() {
        comparison.difference =
            end.iter().find_map(|(path, wanted)| differs(&workspace, path, wanted.as_ref()));
    }
    Ok(Outcome { comparison, session: recording.id, version: recording.version, tree })
}

/// Creates the bundle's tree in the folder.
fn create(
    folder: &Path,
    original: &Path,
    files: impl IntoIterator<Item = (workspace::CleanPath, Seed)>,
) -> Result<Workspace> {
    let root = folder.join("tree");
    std::fs::create_dir(&root)?;
    let workspace = Workspace::open_replica(&root, original).map_err(Failure::refused)?;
    for (path, seed) in files {
        workspace
            .plant(&path, &seed)
            .map_err(|e| Failure::misuse(format!("cannot create the session's tree: {e}")))?;
    }
    Ok(workspace)
}

/// Resets a tree to its state at the start of the session.
fn reset(root: &Path, remembered: &Remembered) -> Result<Workspace> {
    let workspace = Workspace::open(root).map_err(Failure::refused)?;
    let then: Vec<_> = remembered.then().iter().map(|(path, image)| (path.clone(), image.clone())).collect();
    workspace.put(&then).map_err(|e| Failure::misuse(format!("cannot reset the session's tree: {e}")))?;
    Ok(workspace)
}

/// Returns a substitute for the folder that the session was started in: the deepest folder whose
/// instructions are in the plan.
fn start_folder(plan: &Value) -> PathBuf {
    let paths =
        plan["opening"]["instructions"].as_array().into_iter().flatten().filter_map(|i| i["path"].as_str());
    paths
        .filter_map(|path| Path::new(path).parent())
        .max_by_key(|folder| folder.components().count())
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Returns the difference between a file and its recorded state at the end of the session, if any.
fn differs(workspace: &Workspace, path: &workspace::CleanPath, wanted: Option<&Seed>) -> Option<Difference> {
    let now = workspace.image(path);
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (recorded, came) = match (wanted, &now) {
        (None, None) => return None,
        (Some(Seed::Image(wanted)), Some(now)) if wanted == now => return None,
        (Some(Seed::Size(size)), Some(now)) if *size == now.bytes.len() as u64 => return None,
        (Some(Seed::Image(wanted)), Some(now)) if wanted.bytes == now.bytes => {
            (format!("mode {:o}\n", wanted.mode), format!("mode {:o}\n", now.mode))
        }
        (wanted, now) => {
            let recorded = match wanted {
                None => "there is no such file\n".to_owned(),
                Some(Seed::Size(size)) => format!("{size} bytes\n"),
                Some(Seed::Image(image)) => shown(&image.bytes),
            };
            (
                recorded,
                now.as_ref()
                    .map_or_else(|| "there is no such file\n".to_owned(), |image| shown(&image.bytes)),
            )
        }
    };
    Some(Difference::in_tree(0, path.as_str(), recorded, came))
}
