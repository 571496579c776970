//! Runs the remaining tasks, several at a time, and records each attempt before it starts and after
//! it ends.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use journal::{Ending, Report};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clones;
use crate::due::{self, Due};
use crate::error::Error;
use crate::event::Event;
use crate::predictions;
use crate::record::{Finished, Started, VERSION, now_ms};
use crate::schedule::{Next, Schedule};
use crate::stop::Stop;
use crate::store::Store;
use crate::summary::Summary;
use crate::task::{Task, unsafe_id};
use crate::worktree::{self, Source};

/// The options of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// The folder of the batch; created if it does not exist.
    pub out: PathBuf,
    /// How many tasks run at a time; at least 1.
    pub jobs: usize,
    /// How many times this invocation retries a task after an infrastructure failure that may be
    /// due to the task. A task whose repository or commit is missing is not retried, because the
    /// retry would fail too.
    pub retries: u32,
    /// How long this invocation waits in total during one outage of the infrastructure, when every
    /// attempt fails. If this is zero, nothing is retried.
    pub wait: Duration,
    /// Limits of the whole batch.
    pub limits: BatchLimits,
    /// Whether the batch starts no more tasks after one that is not verified.
    pub fail_fast: bool,
    /// Whether tasks that the agent ended without success run again.
    pub retry_failed: bool,
    /// `model_name_or_path` of the predictions.
    pub model_name: String,
}

/// Limits of a whole batch, in contrast to those of each task.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLimits {
    /// The time limit for this invocation. When it is reached, running attempts are interrupted.
    pub time: Option<Duration>,
    /// The limit on prompt and generated tokens, summed over all results in the folder. Once it is
    /// reached, no more attempts start, but running attempts continue until they end.
    pub tokens: Option<u64>,
    /// The limit on dollars. It is summed and applied in the same way as `tokens`.
    pub cost: Option<f64>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How it ended, and its changes, whatever the ending.
    pub report: Report,
    /// The session with the details, if one was started.
    pub session: Option<String>,
}

impl Attempt {
    /// An attempt that failed before its run.
    #[must_use]
    pub fn failed(ending: Ending, message: impl Into<String>) -> Self {
        Self { report: Report::new(ending, message), session: None }
    }
}

/// Runs one task.
pub trait Runner {
    /// Runs `task` in `worktree`, whose files it may change. Ends soon after `interrupt` becomes
    /// true, with [`Ending::Interrupted`]. Reports every failure as an ending. A panic counts as an
    /// infrastructure failure.
    fn run(
        &self,
        task: &Task,
        worktree: &Path,
        interrupt: watch::Receiver<bool>,
    ) -> impl Future<Output = Attempt>;

    /// Masks the secrets in a message before it is recorded or shown.
    fn mask(&self, message: &str) -> String {
        message.to_owned()
    }
}

/// Runs the tasks that are not done yet and returns a summary of all tasks.
///
/// Runs on the current task of a tokio runtime with time and I/O enabled; nothing needs to be
/// `Send`. When `interrupt` becomes true, no more tasks start, and the batch ends when the running
/// attempts have ended. Dropping the future is like a kill: the next invocation cleans up.
///
/// # Errors
/// When the folder is in use, damaged, or cannot be written. A task that fails is a result, not an
/// error.
pub async fn run<R: Runner>(
    tasks: &[Task],
    options: &BatchOptions,
    runner: &R,
    mut interrupt: watch::Receiver<bool>,
    observer: impl FnMut(Event<'_>),
) -> Result<Summary, Error> {
    if let Some(why) = tasks.iter().find_map(|task| unsafe_id(&task.id)) {
        return Err(Error::Task(why));
    }
    let store = Store::open(&options.out)?;
    let (stop, stopped) = watch::channel(*interrupt.borrow_and_update());
    let plan = due::plan(tasks, &store.started, &store.finished, options.retry_failed);
    let (todo, changed, cut_off, again) = (plan.queue.len(), plan.changed, plan.cut_off, plan.failed);
    let schedule = Schedule::new(plan.queue, options, &store.finished, Instant::now());
    let batch = Batch {
        options,
        runner,
        store: RefCell::new(store),
        schedule: RefCell::new(schedule),
        observer: RefCell::new(observer),
        stopped,
        trees: RefCell::default(),
        noted: RefCell::default(),
        noted_cost: Cell::new(false),
    };

    batch.clean_up().await;
    batch.report(Event::Plan { tasks: tasks.len(), done: tasks.len() - todo });
    changed.iter().for_each(|id| batch.report(Event::Changed { id }));
    again.iter().for_each(|id| batch.report(Event::Failed { id }));
    cut_off.iter().for_each(|(id, attempt)| batch.report(Event::CutOff { id, attempt: *attempt }));
    if *stop.borrow() {
        batch.schedule.borrow_mut().stop(Stop::Interrupted);
    }
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        let next = batch.schedule.borrow_mut().next(Instant::now(), running.len());
        let interrupts = batch.schedule.borrow().stopped().is_some_and(Stop::interrupts);
        if interrupts {
            stop.send_if_modified(|stop| !std::mem::replace(stop, true));
        }
        let wake = match next {
            Next::Start(due) => {
                running.push(batch.attempt(due).boxed_local());
                continue;
            }
            Next::Wait(wake) => wake,
            Next::End => break,
        };
        tokio::select! {
            biased;
            () = raised(&mut interrupt), if !interrupts => batch.schedule.borrow_mut().stop(Stop::Interrupted),
            Some(ended) = running.next() => if let Err(e) = ended {
                // A record cannot be written: interrupt running tasks and start no more.
                failed.get_or_insert(e);
                batch.schedule.borrow_mut().stop(Stop::Interrupted);
            },
            () = reached(wake) => {}
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    drop(running);
    let (store, stopped) = (batch.store.into_inner(), batch.schedule.into_inner().stopped());
    let summary = Summary::new(tasks, &store.started, &store.finished, stopped);
    store.replace("predictions.jsonl", &predictions::render(tasks, &store.finished, &options.model_name))?;
    store.replace("summary.json", &summary.to_json())?;
    Ok(summary)
}

/// Waits until the value is true; forever if the sender is gone.
async fn raised(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|raised| *raised).await.is_err() {
        std::future::pending().await
    }
}

/// Waits until a time; forever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Batch<'a, 't, R, O> {
    options: &'a BatchOptions,
    runner: &'a R,
    store: RefCell<Store>,
    schedule: RefCell<Schedule<'t>>,
    observer: RefCell<O>,
    stopped: watch::Receiver<bool>,
    /// One lock per repository for its worktree entries. Without it, git may read an entry that
    /// another git process has half written.
    trees: RefCell<HashMap<PathBuf, Rc<Mutex<()>>>>,
    /// Repositories whose note, if there is one, has been reported.
    noted: RefCell<HashSet<PathBuf>>,
    /// Whether it was reported that costs are unknown.
    noted_cost: Cell<bool>,
}

impl<'t, R: Runner, O: FnMut(Event<'_>)> Batch<'_, 't, R, O> {
    fn report(&self, event: Event<'_>) {
        let event = match event {
            Event::Note { id, message } => Event::Note { id, message: self.runner.mask(&message) },
            event => event,
        };
        (*self.observer.borrow_mut())(event);
    }

    /// Removes the trees that a killed batch left, but only those that its records name.
    async fn clean_up(&self) {
        let worktrees = self.store.borrow().out.join("worktrees");
        let left: Vec<(String, PathBuf, Option<PathBuf>)> = {
            let store = self.store.borrow();
            let ended = store.ended();
            let unfinished = |s: &Started, tree: &Path| {
                !ended.contains(&(s.id.as_str(), s.attempt)) || tree.symlink_metadata().is_ok()
            };
            let left = |s: &Started| {
                let name = s.worktree.as_deref().filter(|name| worktree::is_name(name))?;
                let tree = worktrees.join(name);
                unfinished(s, &tree).then(|| (s.id.clone(), tree, s.git_dir.clone()))
            };
            store.started.iter().filter_map(left).collect()
        };
        for (id, tree, git_dir) in left {
            if let Err(message) = worktree::remove(&tree, git_dir.as_deref()).await {
                self.report(Event::Note { id: &id, message });
            }
        }
    }

    /// Runs one attempt, from its first record to its last, and reports its end to the schedule.
    async fn attempt(&self, due: Due<'t>) -> Result<(), Error> {
        let start = Instant::now();
        let Due { task, attempt, .. } = due;
        let name = worktree::name(&task.id, attempt);
        let tree = self.store.borrow().out.join("worktrees").join(&name);
        let repository = self.repository(task).await;
        let source = match &repository {
            Ok(repo) => Source::find(task, repo, &tree).await,
            Err(why) => Err(why.clone()),
        };
        if *self.stopped.borrow() {
            return Ok(()); // not started
        }
        let found = source.as_ref().ok();
        self.store.borrow_mut().start(Started {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: due.digest.clone(),
            time_ms: now_ms(),
            worktree: source.is_ok().then_some(name),
            git_dir: found.and_then(Source::git_dir).map(Path::to_owned),
            commit: found.and_then(Source::commit).map(str::to_owned),
        })?;

        let worked = match &source {
            Err(why) => Err(why.clone()),
            Ok(source) => self.work(task, attempt, source, &tree).await,
        };
        let Attempt { report, session } = worked.unwrap_or_else(|why| Attempt::failed(Ending::Refused, why));
        let infrastructure = report.ending.is_infrastructure();
        let may_help = (source.is_ok() || repository.is_err()) && report.ending != Ending::Interrupted;
        let result = Finished {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: due.digest.clone(),
            time_ms: now_ms(),
            ending: report.ending,
            infrastructure,
            message: self.runner.mask(&report.message),
            diff: report.diff,
            totals: report.totals,
            models: report.models,
            seconds: start.elapsed().as_secs_f64(),
            session,
        };
        self.store.borrow_mut().finish(result.clone())?;
        let verdict = self.schedule.borrow_mut().ended(Instant::now(), &due, &result, may_help);
        self.report(Event::Finished { result: &result, again: verdict.again });
        if let Some(wait) = verdict.pause {
            self.report(Event::Waiting { wait });
        }
        self.note_unknown_cost(&result);
        if let Ok(source) = &source {
            self.remove(task, source, &tree).await;
        }
        Ok(())
    }

    /// The folder of the task's repository, cloned first if necessary. Ends when the batch stops.
    async fn repository(&self, task: &Task) -> Result<PathBuf, String> {
        if !clones::is_remote(&task.repo) {
            return Ok(task.repo.clone());
        }
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            () = raised(&mut stopped) => Err("interrupted before it started".into()),
            cloned = self.cloned(task) => cloned,
        }
    }

    async fn cloned(&self, task: &Task) -> Result<PathBuf, String> {
        let folder = clones::folder(&task.repo, &self.store.borrow().out);
        let one_at_a_time = self.lock_of(&folder);
        let _held = one_at_a_time.lock().await;
        if !folder.is_dir() {
            self.report(Event::Note {
                id: &task.id,
                message: format!("cloning {}", clones::shown(&task.repo.to_string_lossy())),
            });
        }
        clones::ensure(&task.repo, &folder).await?;
        Ok(folder)
    }

    fn note_unknown_cost(&self, result: &Finished) {
        let unknown = result.totals.turns > 0 && result.totals.cost.is_none();
        if self.options.limits.cost.is_some() && unknown && !self.noted_cost.replace(true) {
            let message =
                "the cost of this attempt is unknown, so it does not count toward the batch's limit";
            self.report(Event::Note { id: &result.id, message: message.into() });
        }
    }

    /// Creates a work tree and runs the task in it. An error says why the tree could not be
    /// created.
    async fn work(&self, task: &Task, attempt: u32, source: &Source, tree: &Path) -> Result<Attempt, String> {
        if self.noted.borrow_mut().insert(task.repo.clone())
            && let Some(message) = source.note(task).await
        {
            self.report(Event::Note { id: &task.id, message });
        }
        let folder = {
            let one_at_a_time = self.trees_of(source);
            let _held = one_at_a_time.lock().await;
            source.make(tree).await?
        };
        if *self.stopped.borrow() {
            return Ok(Attempt::failed(Ending::Interrupted, "interrupted before it started"));
        }
        self.report(Event::Started { id: &task.id, attempt });
        let run = self.runner.run(task, &folder, self.stopped.clone());
        Ok(AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Attempt::failed(Ending::Refused, format!("the agent panicked, which is a bug: {text}"))
        }))
    }

    async fn remove(&self, task: &Task, source: &Source, tree: &Path) {
        let one_at_a_time = self.trees_of(source);
        let _held = one_at_a_time.lock().await;
        if let Err(message) = worktree::remove(tree, source.git_dir()).await {
            self.report(Event::Note { id: &task.id, message });
        }
    }

    fn trees_of(&self, source: &Source) -> Rc<Mutex<()>> {
        match source.git_dir() {
            Some(git_dir) => self.lock_of(git_dir),
            None => Rc::default(),
        }
    }

    fn lock_of(&self, folder: &Path) -> Rc<Mutex<()>> {
        Rc::clone(self.trees.borrow_mut().entry(folder.to_owned()).or_default())
    }
}
