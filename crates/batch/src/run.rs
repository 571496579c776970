//! The scheduler: runs the remaining tasks, several at a time, and records each attempt before and
//! after.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use journal::{Ending, Report};
use tokio::sync::{Mutex, watch};

use crate::error::Error;
use crate::event::Event;
use crate::predictions;
use crate::record::{Finished, Started, VERSION, now_ms};
use crate::store::Store;
use crate::summary::Summary;
use crate::task::{Task, unsafe_id};
use crate::worktree::{self, Source};

/// The options of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// The folder of the batch; created if it does not exist.
    pub out: PathBuf,
    /// How many tasks run at a time; at least 1.
    pub jobs: usize,
    /// How often this invocation retries a task after an infrastructure failure. A task that cannot
    /// be prepared, such as one with a missing repository, is not retried, because nothing would
    /// change.
    pub retries: u32,
    /// `model_name_or_path` of the predictions.
    pub model_name: String,
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
    /// Runs `task` in `worktree`, which it may change. Ends soon after `interrupt` becomes true,
    /// with [`Ending::Interrupted`]. Every failure is an ending; a panic counts as an
    /// infrastructure failure.
    fn run(
        &self,
        task: &Task,
        worktree: &Path,
        interrupt: watch::Receiver<bool>,
    ) -> impl Future<Output = Attempt>;
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
    let (store, observer) = (RefCell::new(store), RefCell::new(observer));
    let batch = Batch {
        options,
        runner,
        store,
        observer,
        stopped,
        trees: RefCell::default(),
        noted: RefCell::default(),
    };

    batch.clean_up().await;
    let mut queue = batch.plan(tasks);
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while !*stop.borrow() && running.len() < options.jobs.max(1) {
            let Some(next) = queue.pop_front() else { break };
            running.push(batch.attempt(next).boxed_local());
        }
        tokio::select! {
            biased;
            () = raised(&mut interrupt), if !*stop.borrow() => { stop.send_replace(true); }
            ended = running.next() => match ended {
                None => break,
                Some(Ok(again)) => queue.extend(again),
                // A record cannot be written: interrupt running tasks and start no more.
                Some(Err(e)) => {
                    failed.get_or_insert(e);
                    stop.send_replace(true);
                }
            },
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    let interrupted = *stop.borrow();
    drop(running);
    let store = batch.store.into_inner();
    let summary = Summary::new(tasks, &store.started, &store.finished, interrupted);
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

/// A task that is due.
struct Due<'t> {
    task: &'t Task,
    digest: String,
    attempt: u32,
    /// Retries that are left in this invocation.
    retries: u32,
}

struct Batch<'a, R, O> {
    options: &'a BatchOptions,
    runner: &'a R,
    store: RefCell<Store>,
    observer: RefCell<O>,
    stopped: watch::Receiver<bool>,
    /// Locks for the worktree entries of each repository, because git may read other entries while
    /// they are half written.
    trees: RefCell<HashMap<PathBuf, Rc<Mutex<()>>>>,
    /// Repositories with a note that was reported.
    noted: RefCell<HashSet<PathBuf>>,
}

impl<R: Runner, O: FnMut(Event<'_>)> Batch<'_, R, O> {
    fn report(&self, event: Event<'_>) {
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

    fn plan<'t>(&self, tasks: &'t [Task]) -> VecDeque<Due<'t>> {
        let store = self.store.borrow();
        let ended = store.ended();
        let mut last: HashMap<&str, u32> = HashMap::new();
        let started = store.started.iter().map(|attempt| (&attempt.id, attempt.attempt));
        // Results count too, in case the other log was removed.
        for (id, attempt) in started.chain(store.finished.iter().map(|result| (&result.id, result.attempt))) {
            let last = last.entry(id).or_default();
            *last = attempt.max(*last);
        }
        let mut done: HashMap<&str, Vec<&str>> = HashMap::new();
        for result in store.finished.iter().filter(|result| !result.infrastructure) {
            done.entry(&result.id).or_default().push(&result.digest);
        }
        let mut queue = VecDeque::new();
        let (mut changed, mut cut_off) = (Vec::new(), Vec::new());
        for task in tasks {
            let (id, digest) = (task.id.as_str(), task.digest());
            let last = last.get(id).copied();
            match (done.get(id), last) {
                (Some(digests), _) if digests.contains(&digest.as_str()) => continue,
                (Some(_), _) => changed.push(task),
                (None, Some(last)) if !ended.contains(&(id, last)) => cut_off.push((task, last)),
                (None, _) => {}
            }
            let attempt = last.unwrap_or(0) + 1;
            queue.push_back(Due { task, digest, attempt, retries: self.options.retries });
        }
        self.report(Event::Plan { tasks: tasks.len(), done: tasks.len() - queue.len() });
        changed.iter().for_each(|task| self.report(Event::Changed { id: &task.id }));
        cut_off
            .iter()
            .for_each(|(task, attempt)| self.report(Event::CutOff { id: &task.id, attempt: *attempt }));
        queue
    }

    /// Runs one attempt, from its first record to its last. Returns the task if it should be
    /// retried.
    async fn attempt<'t>(&self, due: Due<'t>) -> Result<Option<Due<'t>>, Error> {
        let start = Instant::now();
        let Due { task, attempt, .. } = due;
        let name = worktree::name(&task.id, attempt);
        let tree = self.store.borrow().out.join("worktrees").join(&name);
        let source = Source::find(task, &tree).await;
        if *self.stopped.borrow() {
            return Ok(None); // not started
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
        let prepared = worked.is_ok();
        let Attempt { report, session } = worked.unwrap_or_else(|why| Attempt::failed(Ending::Refused, why));
        let infrastructure = report.ending.is_infrastructure();
        let may_help = prepared && infrastructure && report.ending != Ending::Interrupted;
        let result = Finished {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: due.digest.clone(),
            time_ms: now_ms(),
            ending: report.ending,
            infrastructure,
            message: report.message,
            diff: report.diff,
            totals: report.totals,
            models: report.models,
            seconds: start.elapsed().as_secs_f64(),
            session,
        };
        self.store.borrow_mut().finish(result.clone())?;
        let again = may_help && due.retries > 0 && !*self.stopped.borrow();
        self.report(Event::Finished { result: &result, again });
        if let Ok(source) = &source {
            self.remove(task, source, &tree).await;
        }
        Ok(again.then(|| Due { attempt: attempt + 1, retries: due.retries - 1, ..due }))
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
            Some(git_dir) => Rc::clone(self.trees.borrow_mut().entry(git_dir.to_owned()).or_default()),
            None => Rc::default(),
        }
    }
}
