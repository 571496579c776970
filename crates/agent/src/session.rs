//! Runs one task: turns settings into a model, a work tree, a sandbox and tools, and runs the
//! planner with them. `agent run`, `agent resume` and `agent batch` all use this module.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journal::{Ending, Event, Journal, Mode, Record, Report};
use mcp::Entry;
use models::Image;
use planner::{Job, Limits, Parts};
use sandbox::Sandbox;
use sandbox::overlay::Overlay;
use secrets::Secrets;
use serde_json::Value;
use symbols::{Cache, Code};
use tokio::sync::watch;
use tool_api::{Effect, Registry, Tool, TypedTool};
use tool_apply_patch::{ApplyPatch, Inspect};
use tool_list_files::ListFiles;
use tool_read_file::ReadFile;
use tool_run_command::RunCommand;
use tool_run_tests::RunTests;
use tool_search::Search;
use tool_symbols::Symbols;
use workspace::{History, Own, Protected, Workspace};

use crate::confinement;
use crate::dry_tree::{self, DryTree};
use crate::edit_format;
use crate::exit::{Failure, Result};
use crate::gate::{Gate, GatedTool};
use crate::hooks::Hooks;
use crate::language_servers::LanguageServers;
use crate::layers::Environment;
use crate::leftovers::{self, SANDBOX};
use crate::masking::{self, MaskedModel, MaskedTool};
use crate::mcp_servers::{self, External};
use crate::other_model::{self, Models};
use crate::repository::{Tests, Tree};
use crate::settings::Settings;
use crate::setup;
use crate::skills;
use crate::waiting::Waits;

/// The subfolder of a session's folder that holds the tree's history.
pub(crate) const STATE: &str = "state";
/// The subfolder of the cache folder that holds repository indexes.
const INDEXES: &str = "symbols";

/// What a run must deliver in addition to, or instead of, changes to the tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Goal {
    /// Whether the task is a question. If so, the model gets only read-only tools.
    pub(crate) question: bool,
    /// The JSON Schema of the result that the model must return.
    pub(crate) output_schema: Option<Value>,
}

/// The input of a run.
pub(crate) struct Order {
    pub(crate) task: String,
    pub(crate) goal: Goal,
    /// The task's images, which are stored in the session's folder.
    pub(crate) images: Vec<Arc<Image>>,
    /// The user's message to a resumed session.
    pub(crate) message: Option<String>,
    pub(crate) settings: Settings,
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// The user's current folder, at or below the root.
    pub(crate) directory: PathBuf,
    /// The tree to work in instead of the repository.
    pub(crate) dry: Option<DryTree>,
    /// Whether to stop before the first command.
    pub(crate) plan_only: bool,
    /// The command that prepares the tree.
    pub(crate) setup: Option<batch::Setup>,
    /// Patterns of files that are restored before each command and verification.
    pub(crate) protected: Vec<String>,
    /// The settings that are set by a flag, a variable or a file. They are journaled so that a
    /// resumed run can use them.
    pub(crate) chosen: Vec<(String, String)>,
    /// The agent's own files, which may be inside the tree.
    pub(crate) own: Own,
    /// The environment of this process. Commands get only part of it.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// MCP servers in addition to the configured ones.
    pub(crate) mcp_servers: Vec<Entry>,
    /// Becomes true when the run must stop.
    pub(crate) interrupt: watch::Receiver<bool>,
    /// How the user is told that the run is waiting for the server.
    pub(crate) waits: Waits,
    /// Decides which calls may run, before the user's hooks do.
    pub(crate) gate: Option<Arc<dyn Gate>>,
}

/// The outcome of a run.
pub(crate) struct Done {
    pub(crate) report: Report,
    /// The path of the patch, if anything changed.
    pub(crate) patch_file: Option<PathBuf>,
    /// The patch, byte for byte.
    pub(crate) patch: Vec<u8>,
    /// The patch with secrets masked, for display.
    pub(crate) shown: Vec<u8>,
    pub(crate) secrets: Secrets,
    /// Hints for the user: advice after a failure before the first turn, or warnings from language
    /// servers and hooks.
    pub(crate) hints: Vec<String>,
}

impl Done {
    /// Returns the outcome of an interrupted run that changed nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            report: Report::new(Ending::Interrupted, ""),
            patch_file: None,
            patch: Vec::new(),
            shown: Vec::new(),
            secrets: Secrets::disabled(),
            hints: Vec::new(),
        }
    }
}

/// Runs a task in a new session. The journal gets every event, including the ending.
///
/// # Errors
/// If the journal or the patch cannot be written.
pub(crate) async fn run(mut order: Order, journal: &mut Journal) -> Result<Done> {
    let id = journal.id().to_owned();
    let secrets = mask(&mut order, journal, &id);
    journal.append(Event::Session {
        id: journal.id().to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        task: order.task.clone(),
        root: order.root.display().to_string(),
        mode: match order.dry {
            _ if order.goal.question => Mode::Ask,
            Some(_) => Mode::DryRun,
            None => Mode::Run,
        },
        settings: order.chosen.clone(),
        protected: order.protected.clone(),
        output_schema: order.goal.output_schema.clone(),
        images: order.images.iter().map(|image| image.name().to_owned()).collect(),
        forked_from: None,
    })?;
    Box::pin(work(order, secrets, journal, &[])).await
}

/// Resumes an interrupted session, or continues a finished one with a message.
///
/// # Errors
/// Same as [`run`], or if the work tree or its history cannot be read.
pub(crate) async fn resume(mut order: Order, journal: &mut Journal, past: &[Record]) -> Result<Done> {
    let id = journal::origin(past).unwrap_or_else(|| journal.id()).to_owned();
    let secrets = mask(&mut order, journal, &id);
    let has_placeholder = |r: &Record| matches!(&r.event, Event::Message { content, .. } if secrets::first_placeholder(content).is_some());
    if past.iter().any(has_placeholder) {
        secrets.mark_explained(); // the model already knows what a placeholder is
    }
    let changed = files_changed_by_others(&order.root, &journal.folder().join(STATE))?;
    let version = env!("CARGO_PKG_VERSION").into();
    // Preparing the run may fail. Journal the message first, so that the next resume has it too.
    journal.append(Event::Resumed { version, changed, message: order.message.clone() })?;
    Box::pin(work(order, secrets, journal, past)).await
}

/// Masks secrets in the order's task and message, and in everything that is journaled from now on.
/// Placeholders are derived from `id`.
fn mask(order: &mut Order, journal: &mut Journal, id: &str) -> Secrets {
    let secrets = masking::secrets_with(&order.settings, &order.variables, &order.mcp_servers, id);
    journal.filter(masking::filter(&secrets));
    order.task = masking::task(&secrets, &order.task);
    order.message = order.message.as_deref().map(|message| masking::task(&secrets, message));
    secrets
}

/// Returns the files that the session changed and that someone else has changed since.
fn files_changed_by_others(root: &Path, state: &Path) -> Result<Vec<String>> {
    // Opening the workspace rolls back an interrupted commit.
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
        prepared = begin(order, &secrets, &folder, journal, past) => prepared,
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
    let cleanup = leftovers::remove(&folder);
    let report = if past.is_empty() {
        Box::pin(planner::run(prepared.job, prepared.parts, journal)).await
    } else {
        Box::pin(planner::resume(prepared.job, prepared.parts, journal, past)).await
    };
    prepared.external.stop().await;
    let mut hints = match &prepared.language_servers {
        Some(servers) => servers.stop().await,
        None => Vec::new(),
    };
    let report = report.map_err(Failure::refused)?;
    if let Some(hooks) = &prepared.hooks {
        hints.extend(hooks.end(&report).await);
    }
    let patch = prepared.tree.patch();
    let mut patch_file = None;
    if !patch.is_empty() {
        let path = folder.join("changes.patch");
        std::fs::write(&path, &patch)?;
        patch_file = Some(path);
    }
    drop(prepared.dry_tree);
    let _ = cleanup.await;
    let _ = std::fs::remove_dir(dry_tree::layers(&folder)); // empty once an overlay is removed
    let shown = secrets.mask_bytes(&patch).into_owned();
    Ok(Done { report, patch_file, patch, shown, secrets, hints })
}

/// Ends a run that failed before the first turn.
fn fail(failure: Failure, secrets: &Secrets, journal: &mut Journal) -> Result<Done> {
    let message = secrets.mask(&format!("{:#}", failure.error)).into_owned();
    let report = Report::new(failure.ending, message);
    journal.append(Event::Finished(report.clone()))?;
    Ok(Done { report, hints: failure.hints, ..Done::nothing() })
}

struct Prepared {
    job: Job,
    parts: Parts,
    tree: Arc<Tree>,
    hooks: Option<Arc<Hooks>>,
    language_servers: Option<Arc<LanguageServers>>,
    /// The tree of a dry run, which is removed when this is dropped.
    dry_tree: (Option<Overlay>, Option<dry_tree::Copy>),
    external: External,
}

/// Prepares a run, and journals how commands are confined. For a dry run, first journals the kind
/// and the size of the tree to create.
async fn begin(
    order: Order,
    secrets: &Secrets,
    folder: &Path,
    journal: &mut Journal,
    past: &[Record],
) -> Result<Prepared> {
    if let Some(dry) = &order.dry {
        let event = dry.event(&order.root, folder, &order.own).await?;
        journal.append(event)?;
    }
    let settings = &order.settings;
    if let Some(setup) = &order.setup
        && let Some(message) = setup::run(setup, settings, &order.root, folder).await?
    {
        journal.append(Event::Warning { message })?;
    }
    let sandbox = |root: &Path| {
        confinement::sandbox(settings, root, Some(folder.join(SANDBOX)), order.variables.clone())
    };
    // A run that cannot confine commands stops now rather than at its first command.
    let probe = async |sandbox: &Sandbox| match order.plan_only || order.goal.question {
        true => Ok(None),
        false => Box::pin(sandbox.probe()).await.cloned().map(Some).map_err(Failure::refused),
    };
    let open = || other_model::open(settings, past, secrets, order.waits);
    let recorded = mcp_servers::recorded(past);
    let external = async |root: &Path| match order.plan_only || order.goal.question {
        // Starting a server runs a program, which may write to the tree.
        true => External::default(),
        false => {
            let state = folder.ancestors().nth(2).unwrap_or(folder);
            let place =
                mcp_servers::Place { repository: &order.root, tree: root, session: Some(folder), state };
            let variables = &order.variables;
            Box::pin(mcp_servers::start(settings, variables, &order.mcp_servers, secrets, &place, recorded))
                .await
        }
    };
    let external = async |root: &Path| {
        let mut external = external(root).await;
        let environment = Environment::new(order.variables.iter().cloned());
        external.add_skills(skills::tool(&order.root, &environment), secrets, past);
        external
    };
    let tools = |root: &Path, sandbox: &Sandbox, external: &External| -> Result<_> {
        let hooks =
            Hooks::new(settings, sandbox, folder, &order.task, &order.variables, secrets)?.map(Arc::new);
        let hook_gate = hooks.iter().map(|hooks| Arc::clone(hooks) as Arc<dyn Gate>);
        let gates: Vec<_> = order.gate.iter().cloned().chain(hook_gate).collect();
        let servers = LanguageServers::new(settings, root, Some(folder), &order.variables, secrets)?;
        let servers = servers.filter(|_| !order.plan_only).map(Arc::new);
        let additions = Additions {
            goal: order.goal.clone(),
            gates,
            tools: external.tools.clone(),
            inspector: servers.clone().map(|servers| servers as _),
        };
        let toolbox = toolbox(settings, secrets, root, folder, sandbox.clone(), &order.own, additions)?;
        Ok((toolbox, hooks, servers))
    };
    if settings.mcp_tools.is_some()
        && let Ok(workspace) = Workspace::open(&order.root)
    {
        // The user's secrets come first: the descriptions of tools may contain any number of
        // strings that look like secrets, and the number of known secrets is limited.
        masking::learn(secrets, &workspace, &folder.join(STATE));
    }
    let (models, (mut toolbox, hooks, language_servers), mut dry_tree, report, external) = match order.dry {
        dry @ (None | Some(DryTree::Overlay(_))) => {
            // An overlay is mounted at the repository's own path.
            let overlay = match dry {
                Some(DryTree::Overlay(overlay)) => Some(overlay),
                _ => None,
            };
            // The probe runs in other processes. Start it first, so that the other steps overlap
            // with it.
            let sandbox = sandbox(&order.root)?;
            let (report, models, external) = tokio::join!(probe(&sandbox), open(), external(&order.root));
            (models?, tools(&order.root, &sandbox, &external)?, (overlay, None), report?, external)
        }
        Some(DryTree::Copy { .. }) => {
            let models = Box::pin(open()).await?; // first, because the copy may take a while
            let copy = dry_tree::copy(&order.root, folder.join("tree"), &order.own).await?;
            let sandbox = sandbox(&copy.0)?;
            let (report, external) = tokio::join!(probe(&sandbox), external(&copy.0));
            (models, tools(&copy.0, &sandbox, &external)?, (None, Some(copy)), report?, external)
        }
    };
    if let Some(hooks) = &hooks {
        hooks.start().await?;
    }
    edit_format::describe(settings, &models.chosen.model.identity(), &mut toolbox.registry);
    if let Some(overlay) = &mut dry_tree.0 {
        toolbox.workspace.overlays(&dry_tree::layers(folder).join("upper"), overlay.take_lower());
    }
    let inside = order.directory.strip_prefix(&order.root).unwrap_or(Path::new(""));
    masking::learn(secrets, &toolbox.workspace, &folder.join(STATE));
    if let Some(sandbox::Report { enforced, summary, lines, .. }) = report {
        journal.append(Event::Sandbox { enforced, summary, lines })?;
    }
    if let Some(event) = external.event() {
        journal.append(event)?;
    }
    let Models { chosen, role, escalation, fallback } = models;
    for message in external.warnings.iter().cloned().chain(chosen.warnings) {
        let message = secrets.mask(&message).into_owned();
        journal.append(Event::Warning { message })?;
    }
    let protected = Protected::new(&order.protected).map_err(Failure::misuse)?;
    let tree = Tree::new(toolbox.workspace, secrets.clone(), inside, folder.join(STATE));
    let map = toolbox.code.filter(|_| settings.symbols.has_map());
    let tree = Arc::new(tree.protect(protected).mapping(map));
    Ok(Prepared {
        job: Job {
            task: order.task,
            images: order.images,
            settings: planner::Settings { plan_only: order.plan_only, ..plan(settings, &order.goal)? },
            why_model: chosen.why,
            role,
        },
        parts: Parts {
            model: order.waits.explain(Box::new(MaskedModel(chosen.model, secrets.clone()))),
            escalation,
            fallback,
            tools: toolbox.registry,
            repository: Arc::clone(&tree) as _,
            verifier: Tests::verifier(toolbox.tests, secrets),
            inbox: Box::new(VecDeque::from_iter(order.message)),
            interrupt: order.interrupt,
        },
        tree,
        hooks,
        language_servers,
        dry_tree,
        external,
    })
}

/// Converts the settings to the planner's settings.
///
/// # Errors
/// If the planner does not recognize the value of a setting. A test rules this out.
pub(crate) fn plan(settings: &Settings, goal: &Goal) -> Result<planner::Settings> {
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
        constrain: serde_json::from_value(word(&settings.constrain)).map_err(Failure::refused)?,
        temperature: settings.temperature,
        attempts: settings.attempts,
        escalates: settings.escalate.is_some(),
        assume_vision: settings.assume_vision,
        max_answer_tokens: settings.max_answer_tokens,
        question: goal.question,
        has_result: goal.output_schema.is_some(),
        ..planner::Settings::default()
    })
}

/// The tools for a work tree, and the workspace, sandbox and index that they use.
pub(crate) struct Toolbox {
    pub(crate) registry: Registry,
    pub(crate) workspace: Workspace,
    pub(crate) sandbox: Sandbox,
    /// The index of the code, if a setting asks for it.
    pub(crate) code: Option<Arc<Code>>,
    /// Runs the verification. Its logs are kept separate from those of the `run_tests` tool.
    pub(crate) tests: RunTests,
}

/// What a run adds to the agent's own tools.
#[derive(Default)]
pub(crate) struct Additions {
    pub(crate) goal: Goal,
    /// Gates, each of which sees every call.
    pub(crate) gates: Vec<Arc<dyn Gate>>,
    /// Tools from other programs. These tools already mask their results.
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    /// Inspects the changes that each edit makes.
    pub(crate) inspector: Option<Arc<dyn Inspect>>,
}

/// Creates the tools for a work tree. The tree's history and the logs go to `folder`.
///
/// # Errors
/// If the tree or the folder cannot be opened.
pub(crate) fn toolbox(
    settings: &Settings,
    secrets: &Secrets,
    root: &Path,
    folder: &Path,
    sandbox: Sandbox,
    own: &Own,
    mut additions: Additions,
) -> Result<Toolbox> {
    let workspace = Workspace::open_with(root, folder.join(STATE)).map_err(Failure::refused)?.without(own);
    let gates = std::mem::take(&mut additions.gates);
    let gated = |tool| GatedTool::wrap(tool, &gates);
    additions.tools = additions.tools.into_iter().map(gated).collect();
    toolbox_on(workspace, settings, secrets, folder, sandbox, additions, gated)
}

/// Creates the tools for an open workspace. `wrap` is called with each of the agent's own tools.
/// All of them except `finish` already mask their results.
pub(crate) fn toolbox_on(
    workspace: Workspace,
    settings: &Settings,
    secrets: &Secrets,
    folder: &Path,
    sandbox: Sandbox,
    additions: Additions,
    wrap: impl Fn(Arc<dyn Tool>) -> Arc<dyn Tool>,
) -> Result<Toolbox> {
    let goal = &additions.goal;
    let timeout = Duration::from_secs(settings.command_seconds);
    let own = || secrets.clone();
    let tests = |logs: &str| {
        let (command, log_dir) = (settings.verify.clone(), folder.join(logs));
        RunTests::new(sandbox.clone(), tool_run_tests::Options { command, log_dir, timeout, secrets: own() })
    };
    let commands = tool_run_command::Options { log_dir: folder.join("logs"), timeout, secrets: own() };
    // The prompt lists the tools in this order, with the most used ones first.
    let tools = [
        ReadFile::new(workspace.clone(), own()).into_tool(),
        ApplyPatch::new(workspace.clone(), own()).inspected_by(additions.inspector).into_tool(),
        tests("logs").into_tool(),
        ListFiles::new(workspace.clone()).into_tool(),
        Search::new(workspace.clone(), own()).into_tool(),
        RunCommand::new(sandbox.clone(), commands).into_tool(),
    ];
    let used = settings.symbols.has_map() || settings.symbols.has_tool();
    // A dry run may work in a copy inside the session's folder. Nothing uses that copy again, so
    // its index is not kept.
    let cache = cache(&workspace).filter(|_| !workspace.root().starts_with(folder));
    let code = used.then(|| Arc::new(Code::new(workspace.clone(), cache)));
    let offered = code.clone().filter(|_| settings.symbols.has_tool());
    let symbols = offered.map(|code| Symbols::new(code, workspace.clone(), own()).into_tool());
    let tools = tools.into_iter().chain(symbols).map(|tool| wrap(MaskedTool::wrap(tool, secrets)));
    let tools = tools.chain(additions.tools);
    let tools = tools.filter(|tool| !goal.question || tool.spec().effect == Effect::Read);
    let finish = planner::finish_tool(goal.question, goal.output_schema.as_ref());
    let registry = Registry::of(tools.chain([wrap(finish)]));
    let registry = registry.map_err(Failure::refused)?;
    Ok(Toolbox { registry, workspace, tests: tests("logs/checks"), sandbox, code })
}

/// Returns the location of a work tree's index. It is in the cache folder, because an index can be
/// rebuilt.
fn cache(workspace: &Workspace) -> Option<Cache> {
    let folder = Environment::new(std::env::vars_os()).cache_dir()?.join(INDEXES);
    Some(Cache::new(&folder, workspace.root()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::layers::Environment;
    use crate::settings::{DEFINITIONS, Kind};

    #[test]
    fn the_planner_knows_every_value_of_a_setting() {
        let resolve = |flags: &[(&'static str, String)]| {
            crate::layers::resolve(flags, &Environment::default(), None).unwrap().settings().unwrap()
        };
        for d in DEFINITIONS.iter().filter(|d| ["cut", "approach", "constrain"].contains(&d.key)) {
            let Kind::Choice(words) = d.kind else { panic!("{}", d.key) };
            for word in words {
                plan(&resolve(&[(d.key, (*word).to_owned())]), &Goal::default()).unwrap();
            }
        }
        let plan = plan(&resolve(&[]), &Goal::default()).unwrap();
        let default = planner::Settings::default();
        assert_eq!(plan.limits.turns, default.limits.turns, "both crates have the same default");
        assert_eq!(plan.temperature, default.temperature);
        assert_eq!(plan.attempts, default.attempts);
        assert_eq!(plan.max_answer_tokens, default.max_answer_tokens);
    }

    /// Returns a value that matches a schema, with all the properties that the model is shown.
    fn example(schema: &Value) -> Value {
        if let Some(variants) = schema["anyOf"].as_array() {
            return example(&variants[0]);
        }
        let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
        match kind.as_str().unwrap() {
            "integer" => json!(1),
            "boolean" => json!(true),
            "array" => json!([example(&schema["items"])]),
            "object" => match schema["properties"].as_object() {
                Some(properties) => {
                    let shown = properties.iter().filter(|(_, property)| property["hidden"] != true);
                    shown.map(|(name, property)| (name.clone(), example(property))).collect()
                }
                None => json!({"NAME": example(&schema["additionalProperties"])}),
            },
            _ => json!("text"),
        }
    }

    #[tokio::test]
    async fn bug_a_constrained_call_may_have_every_argument_that_the_model_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(folder.path()).unwrap();
        let settings =
            crate::layers::resolve(&[], &Environment::default(), None).unwrap().settings().unwrap();
        let sandbox = Sandbox::new(sandbox::Policy::new(folder.path()), vec!["/bin/true".into()]).unwrap();
        let secrets = Secrets::default();
        let tools = toolbox_on(
            workspace,
            &settings,
            &secrets,
            folder.path(),
            sandbox,
            Additions::default(),
            |tool| tool,
        )
        .unwrap();
        let fits = jsonschema::validator_for(&tools.registry.call_schema()).unwrap();
        for spec in tools.registry.specs() {
            let call = json!({"tool": spec.name, "arguments": example(&spec.schema)});
            assert!(fits.is_valid(&call), "{call}");
        }
    }
}
