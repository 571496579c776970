//! `agent batch`: runs many tasks, each in its own worktree and session. The summary goes to
//! standard output. Progress goes to standard error.

mod check;
mod configuration;
pub(super) mod jobs;
pub(super) mod progress;
mod queued;
mod shard;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use batch::{Attempt, BatchOptions, Event, Here, Place, Runner, Setup, Shard, Summary, Task};
use journal::{Ending, Store};
use secrets::Secrets;
use tokio::sync::watch;

use self::progress::Display;
use crate::cli::{Batch, BatchCommand, Jobs, Retry};
use crate::commands::report;
use crate::commands::run;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::interrupt::{self, Signals};
use crate::layers;
use crate::masking;
use crate::other_model;
use crate::profiles;
use crate::protected;
use crate::session::{self, Goal, Order};
use crate::settings::Settings;
use crate::telemetry::Export;
use crate::waiting::Waits;

/// Maximum number of times to retry a task after infrastructure failures. Retries during a server
/// outage do not count.
const RETRIES: u32 = 3;

/// Runs the batch.
pub(crate) fn run(command: &Batch, context: &Context) -> Result<Exit> {
    let display = Display::new(command.json);
    if let Some(BatchCommand::Merge { from, out }) = &command.command {
        context.resolve_in(None, &command.settings.given)?.settings()?;
        let summary = batch::merge(from, out)?;
        return finish(&summary, out, &report::name(out), &display);
    }
    let file = command.tasks.as_deref().ok_or_else(|| Failure::misuse("no task file given"))?;
    // Report invalid flags and files once, before the first task.
    let resolved = context.resolve_in(None, &command.settings.given)?;
    let settings = resolved.settings()?;
    other_model::check(&settings)?;
    profiles::check(&context.environment)?;
    let (tasks, shard) = select(command, file, context)?;
    if command.check {
        return interrupt::block_on(check::run(&tasks));
    }
    let agent = Agent::new(context, &command.settings.given, &settings, &display)?;
    let out = command.out.as_ref().map_or_else(|| beside(file), |out| context.directory.join(out));
    let out = shard.map_or(out.clone(), |shard| out.join(shard.to_string()));
    let options = BatchOptions {
        out,
        jobs: 1,
        retries: RETRIES,
        wait: command.plan.wait,
        limits: command.plan.limits(),
        fail_fast: command.plan.fail_fast,
        retry_failed: command.plan.retry == Some(Retry::Failed),
        model_name: settings.model.clone().unwrap_or_else(|| "agent".into()),
        settings: configuration::of(&resolved, &|text| agent.mask(text)),
    };
    let batch = Ready { agent, tasks, options, settings, name: report::name(file) };
    match &command.queue {
        Some(url) => queued::run(batch, command, url),
        None => here(batch, command.jobs.unwrap_or(Jobs::Number(1)), command.keep_worktrees),
    }
}

/// A batch that can start.
struct Ready {
    agent: Agent,
    tasks: Vec<Task>,
    options: BatchOptions,
    settings: Settings,
    /// The name of the task file, as shown in reports.
    name: String,
}

/// Reads the task file. Returns the tasks for this invocation, and the shard that they make up, if
/// any.
fn select(command: &Batch, file: &Path, context: &Context) -> Result<(Vec<Task>, Option<Shard>)> {
    let tasks = batch::tasks::read(file, command.repos.as_deref())
        .map_err(|problems| Failure::misuse(problems.to_string().trim_end()))?;
    let (plan, all) = (&command.plan, tasks.len());
    let variable = |name: &str| context.environment.get(name).map(str::to_owned);
    let shard = plan.shard.as_deref().map(|shard| shard::resolve(shard, variable)).transpose();
    let shard = shard.map_err(|e| Failure::misuse(format!("--shard: {e}")))?;
    let tasks = plan.selection(shard).of(tasks);
    // A shard may be empty: a job array can have more jobs than there are tasks.
    if tasks.is_empty() && shard.is_none() {
        let (all, file) = (plural(all as u64, "task"), file.display());
        return Err(Failure::misuse(format!("none of the {all} in {file} is selected")));
    }
    Ok((tasks, shard))
}

/// Runs the batch on this machine.
fn here(mut batch: Ready, jobs: Jobs, keep_worktrees: bool) -> Result<Exit> {
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let jobs = if batch.tasks.len() > 1 { jobs } else { Jobs::Number(1) };
        let count = jobs::count(jobs, &batch.settings, Some(batch.options.wait), &batch.agent.display);
        batch.options.jobs = match jobs {
            // None of the tasks uses the batch's model.
            Jobs::Number(jobs) if batch.tasks.iter().all(|task| task.model.is_some()) => jobs.into(),
            _ => tokio::select! {
                jobs = Box::pin(count) => jobs,
                () = signals.wait() => return Ok(Exit::Run(Ending::Interrupted)),
            },
        };
        let here = match keep_worktrees {
            true => Here::keeping_trees(&batch.agent),
            false => Here::new(&batch.agent),
        };
        match complete(&batch, &here, &signals).await? {
            Some(summary) => batch.finish(&summary),
            None => Ok(Exit::Run(Ending::Interrupted)),
        }
    })
}

/// Runs the batch to completion. Returns `None` if a second signal stops it immediately.
async fn complete(batch: &Ready, place: &dyn Place, signals: &Signals) -> Result<Option<Summary>> {
    let Ready { agent, tasks, options, .. } = batch;
    let show = |event: Event<'_>| agent.display.show(&event);
    let ended = agent.display.during(async {
        tokio::select! {
            summary = batch::run(tasks, options, place, signals.asked(), show) => Some(summary),
            () = signals.insisted() => None,
        }
    });
    let Some(summary) = ended.await else {
        agent.display.note("stopped immediately; run the same command to resume");
        return Ok(None);
    };
    Ok(Some(summary?))
}

impl Ready {
    fn finish(&self, summary: &Summary) -> Result<Exit> {
        finish(summary, &self.options.out, &self.name, &self.agent.display)
    }
}

/// Writes the files for CI systems and shows the summary. The exit code is the summary's, because the
/// results are complete, unless all went well except for these files.
fn finish(summary: &Summary, out: &Path, name: &str, display: &Display) -> Result<Exit> {
    let written = report::for_ci(out, name, summary);
    // The output may be closed, or on a full disk.
    let _ = display.summary(summary, out);
    match (summary.exit_code(), written) {
        (0 | 1, Err(failure)) => Err(failure),
        (code, written) => {
            if let Err(failure) = written {
                display.note(&format!("{:#}", failure.error));
            }
            Ok(Exit::Code(code))
        }
    }
}

/// Returns the default folder for results, which is `tasks.results` for `tasks.jsonl`.
fn beside(tasks: &Path) -> PathBuf {
    let absolute = std::path::absolute(tasks).unwrap_or_else(|_| tasks.to_owned());
    absolute.with_extension("results")
}

/// Works on each task on its own thread, because file reads, tree walks and syncs block the thread
/// and would stall the streams of other tasks.
impl Runner for Agent {
    async fn run(
        &self,
        task: &Task,
        worktree: &Path,
        setup: Option<&Setup>,
        interrupt: watch::Receiver<bool>,
    ) -> Attempt {
        let (agent, task, worktree, setup) =
            (self.clone(), task.clone(), worktree.to_owned(), setup.cloned());
        let work = async move || Ok(agent.work(&task, &worktree, setup, interrupt).await);
        interrupt::on_own_thread(work).await.unwrap_or_else(failed)
    }

    fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn mask(&self, message: &str) -> String {
        self.secrets.mask(message).into_owned()
    }
}

#[derive(Clone)]
pub(super) struct Agent {
    context: Context,
    flags: Vec<(&'static str, String)>,
    store: Store,
    /// The secrets of the batch. Each session masks its own secrets.
    secrets: Secrets,
    display: Display,
    /// The number of requests that servers refused because they were receiving too many.
    refusals: Arc<AtomicU64>,
    /// The content of the repository's settings file before the setup, keyed by worktree. `None` if
    /// the file did not exist.
    before_setup: Arc<Mutex<HashMap<PathBuf, Option<Vec<u8>>>>>,
    export: Arc<Export>,
}

fn failed(failure: Failure) -> Attempt {
    Attempt::failed(failure.ending, format!("{:#}", failure.error))
}

impl Agent {
    /// Creates an agent from the flags, and from the settings that they resolve to.
    pub(super) fn new(
        context: &Context,
        flags: &[(&'static str, String)],
        settings: &Settings,
        display: &Display,
    ) -> Result<Self> {
        let secrets = masking::secrets(settings, &std::env::vars_os().collect::<Vec<_>>(), "");
        let (context, flags, store) = (context.clone(), flags.to_vec(), context.store()?);
        let export = Export::start(&context, settings, run::warning(false));
        Ok(Self {
            context,
            flags,
            store,
            secrets,
            display: display.clone(),
            refusals: Arc::default(),
            before_setup: Arc::default(),
            export: Arc::new(export),
        })
    }

    /// Returns the store for the sessions that this agent starts.
    pub(super) fn sessions(&self) -> &Store {
        &self.store
    }

    /// Returns the settings for one task: those of the batch and the task's repository, overridden
    /// by the task's own.
    fn settings(&self, task: &Task, worktree: &Path) -> Result<Settings> {
        let resolved = layers::resolve(&self.flags, &self.context.environment, Some(worktree))?;
        let mut settings = resolved.settings()?;
        let limits = task.limits;
        settings.max_turns = limits.max_turns.unwrap_or(settings.max_turns);
        settings.max_tokens = limits.max_tokens.or(settings.max_tokens);
        settings.max_seconds = limits.max_seconds.unwrap_or(settings.max_seconds);
        settings.max_cost = limits.max_cost.or(settings.max_cost);
        settings.verify = task.verify.clone().or(settings.verify);
        settings.model = task.model.clone().or(settings.model);
        settings.attempts = task.attempts.unwrap_or(settings.attempts);
        Ok(settings)
    }

    /// Returns the settings for one task, ignoring any changes made by a setup command. The setup
    /// command may change the repository's settings file in the worktree, and a prepared worktree
    /// includes such changes. A task in a prepared worktree therefore gets the repository's
    /// settings as they were before the setup ran.
    fn settings_before_setup(&self, task: &Task, worktree: &Path, is_prepared: bool) -> Result<Settings> {
        let mut known = self.before_setup.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_prepared {
            if task.setup.is_some() {
                let file = worktree.join(layers::REPOSITORY_FILE);
                let is_usual = fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() < 1 << 20);
                let content = if is_usual { fs::read(file).ok() } else { None };
                known.insert(worktree.to_owned(), content);
            }
            return self.settings(task, worktree);
        }
        let folder = tempfile::tempdir()?;
        if let Some(content) = known.get(worktree).and_then(Option::as_ref) {
            fs::write(folder.path().join(layers::REPOSITORY_FILE), content)?;
        }
        self.settings(task, folder.path())
    }

    async fn work(
        &self,
        task: &Task,
        worktree: &Path,
        setup: Option<Setup>,
        interrupt: watch::Receiver<bool>,
    ) -> Attempt {
        let is_prepared = task.setup.is_some() && setup.is_none();
        let settings = match self.settings_before_setup(task, worktree, is_prepared) {
            Ok(settings) => settings,
            Err(failure) => return failed(failure),
        };
        let mut journal = match self.store.create() {
            Ok(journal) => journal,
            Err(error) => return failed(error.into()),
        };
        if let Some(observer) = self.display.observer(&task.id) {
            journal.observe(observer);
        }
        self.export.observe(&mut journal, Some(&task.id), &[]);
        let refusals = Arc::clone(&self.refusals);
        journal.observe(Box::new(move |record| {
            if matches!(record.event, journal::Event::Retry { busy: true, .. }) {
                refusals.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let mut text = task.text.clone();
        if !task.protected.is_empty() {
            text += &protected::note(&task.protected);
        }
        for pattern in protected::unmatched(&task.protected, worktree) {
            let when = if setup.is_some() { " before the setup" } else { "" };
            let message = format!("the pattern {pattern:?} for protected files matches no file{when}");
            self.display.show(&Event::Note { id: &task.id, message: self.mask(&message) });
        }
        let order = Order {
            task: text,
            goal: Goal::default(),
            images: Vec::new(),
            message: None,
            setup,
            protected: task.protected.clone(),
            settings,
            root: worktree.to_owned(),
            directory: worktree.to_owned(),
            dry: None,
            plan_only: false,
            chosen: Vec::new(), // an interrupted task starts over, in a new worktree
            own: self.context.own(),
            variables: std::env::vars_os().collect(),
            interrupt,
            waits: Waits::Unseen,
            mcp_servers: Vec::new(),
            gate: None,
        };
        let id = journal.id().to_owned();
        // Other tasks use the same path. If one of their sessions were resumed, it would run in
        // this worktree.
        let _tree = match task.setup.as_ref().map(|_| self.store.take_tree(worktree, &id)).transpose() {
            Ok(tree) => tree,
            Err(error) => return Attempt { session: Some(id), ..failed(error.into()) },
        };
        match Box::pin(session::run(order, &mut journal)).await {
            Ok(mut done) => {
                // Other programs apply the patch in a result, so it is not masked.
                done.report.diff.patch = String::from_utf8_lossy(&done.patch).into_owned();
                Attempt { report: done.report, session: Some(id) }
            }
            Err(failure) => Attempt { session: Some(id), ..failed(failure) },
        }
    }
}

#[cfg(test)]
mod tests {
    use batch::TaskLimits;

    use super::*;

    #[test]
    fn limits_of_a_task_override_those_of_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, environment) = (folder.path().to_owned(), layers::Environment::default());
        let context = Context { environment, directory, repository: None };
        let flags = vec![("max_turns", "40".to_owned()), ("max_tokens", "9".to_owned())];
        let (store, secrets) = (Store::new(folder.path()), Secrets::disabled());
        let display = Display::new(false);
        let settings =
            layers::resolve(&[], &context.environment, None).ok().unwrap().settings().ok().unwrap();
        let export = Arc::new(Export::start(&context, &settings, |_| {}));
        let agent = Agent {
            context,
            flags,
            store,
            secrets,
            display,
            refusals: Arc::default(),
            before_setup: Arc::default(),
            export,
        };
        let task = Task {
            id: "a".into(),
            repo: folder.path().into(),
            named_repo: ".".into(),
            text: "do a".into(),
            limits: TaskLimits { max_turns: Some(3), max_cost: Some(0.1), ..TaskLimits::default() },
            attempts: Some(2),
            ..Task::default()
        };
        let settings = agent.settings(&task, folder.path()).ok().unwrap();
        assert_eq!((settings.max_turns, settings.max_tokens), (3, Some(9)));
        assert_eq!((settings.max_seconds, settings.max_cost), (3600, Some(0.1)));
        assert_eq!(settings.attempts, 2);
    }

    #[test]
    fn results_are_next_to_the_tasks() {
        assert_eq!(beside(Path::new("/x/tasks.jsonl")), Path::new("/x/tasks.results"));
        assert_eq!(beside(Path::new("/x/folder/")), Path::new("/x/folder.results"));
    }
}
