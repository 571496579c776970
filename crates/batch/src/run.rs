//! The scheduler: which tasks are left, several at a time, each attempt written down before and after.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use journal::{Diff, Ending, Totals};
use planner::Report;
use tokio::sync::{Mutex, watch};

use crate::error::Error;
use crate::event::Event;
use crate::predictions;
use crate::record::{Finished, Started, VERSION, now_ms};
use crate::store::Store;
use crate::summary::Summary;
use crate::task::{Task, unsafe_id};
use crate::worktree::{self, Source};

/// How a batch runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// The folder of the batch; made when it is not there.
    pub out: PathBuf,
    /// Tasks at the same time; at least 1.
    pub jobs: usize,
    /// How often a task is tried again in this invocation when the infrastructure failed. What cannot be prepared (a missing
    /// repository) is not tried again at once: nothing about it would change.
    pub retries: u32,
    /// Leaves worktrees in place, for a person to look at.
    pub keep_worktrees: bool,
    /// `model_name_or_path` of the predictions.
    pub model_name: String,
}

/// How one attempt went.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How it ended.
    pub ending: Ending,
    /// One sentence for people.
    pub message: String,
    /// What was changed, whatever the ending.
    pub diff: Diff,
    /// Sums.
    pub totals: Totals,
    /// The session that tells everything, where one was begun.
    pub session: Option<String>,
}

impl Attempt {
    /// A run that came to its report.
    #[must_use]
    pub fn reported(report: Report, session: impl Into<String>) -> Self {
        let Report { ending, message, diff, totals } = report;
        Self { ending, message, diff, totals, session: Some(session.into()) }
    }

    /// An attempt that never came to a run.
    #[must_use]
    pub fn failed(ending: Ending, message: impl Into<String>) -> Self {
        let (diff, totals) = (Diff::default(), Totals::default());
        Self { ending, message: message.into(), diff, totals, session: None }
    }
}

/// Works on one task.
pub trait Runner {
    /// Works on `task` in `worktree`, which is its own to change. When `interrupt` becomes true it ends soon, with
    /// [`Ending::Interrupted`]. Whatever goes wrong is an ending; a panic counts as a failure of the infrastructure.
    fn run(
        &self,
        task: &Task,
        worktree: &Path,
        interrupt: watch::Receiver<bool>,
    ) -> impl Future<Output = Attempt>;
}

/// Works off what is not done yet, and returns what is then known of all tasks.
///
/// Runs on the current task of a tokio runtime with time and I/O enabled; nothing needs to be `Send`. When `interrupt` becomes true
/// nothing more is begun, and the batch ends as soon as the running attempts have. Dropping the future is like a kill: the next
/// invocation cleans up.
///
/// # Errors
/// When the folder is in use, damaged, or cannot be written. A task that fails is a result.
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
    let mut broken = None;
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
                // The results cannot be written: those that run are told to end, and nothing more is begun.
                Some(Err(e)) => {
                    broken.get_or_insert(e);
                    stop.send_replace(true);
                }
            },
        }
    }
    if let Some(e) = broken {
        return Err(e);
    }
    let interrupted = *stop.borrow();
    drop(running);
    let store = batch.store.into_inner();
    let summary = Summary::new(tasks, &store.started, &store.finished, interrupted);
    store.replace("predictions.jsonl", &predictions::render(tasks, &store.finished, &options.model_name))?;
    store.replace("summary.json", summary.to_json().as_bytes())?;
    Ok(summary)
}

/// Ends when the value is true; never when nobody is left to say so.
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
    /// Times it may still be tried again in this invocation.
    retries: u32,
}

/// How the making of a tree and the work in it came out.
struct Outcome {
    attempt: Attempt,
    infrastructure: bool,
    /// Whether trying again at once may help.
    again: bool,
}

struct Batch<'a, R, O> {
    options: &'a BatchOptions,
    runner: &'a R,
    store: RefCell<Store>,
    observer: RefCell<O>,
    stopped: watch::Receiver<bool>,
    /// One at a time may change the worktree entries of a repository: git reads the entries of others while they are half written.
    trees: RefCell<HashMap<PathBuf, Rc<Mutex<()>>>>,
    /// Repositories that a person has been told about.
    noted: RefCell<HashSet<PathBuf>>,
}

impl<R: Runner, O: FnMut(Event<'_>)> Batch<'_, R, O> {
    fn tell(&self, event: Event<'_>) {
        (*self.observer.borrow_mut())(event);
    }

    /// Removes the trees that a killed batch left: only those that its attempts name.
    async fn clean_up(&self) {
        let worktrees = self.store.borrow().out.join("worktrees");
        let left: Vec<(String, PathBuf, Option<PathBuf>)> = {
            let store = self.store.borrow();
            let ended = store.ended();
            let unfinished = |s: &Started, tree: &Path| {
                !ended.contains(&(s.id.as_str(), s.attempt)) || tree.symlink_metadata().is_ok()
            };
            let left = |s: &Started| {
                let name = s.worktree.as_deref().filter(|name| worktree::is_name(name) && !s.keep)?;
                let tree = worktrees.join(name);
                unfinished(s, &tree).then(|| (s.id.clone(), tree, s.git_dir.clone()))
            };
            store.started.iter().filter_map(left).collect()
        };
        for (id, tree, git_dir) in left {
            if let Err(message) = worktree::remove(&tree, git_dir.as_deref()).await {
                self.tell(Event::Note { id: &id, message });
            }
        }
    }

    fn plan<'t>(&self, tasks: &'t [Task]) -> VecDeque<Due<'t>> {
        let store = self.store.borrow();
        let ended = store.ended();
        let mut last: HashMap<&str, u32> = HashMap::new();
        let started = store.started.iter().map(|attempt| (&attempt.id, attempt.attempt));
        // Results count too: somebody may have removed the other file.
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
        self.tell(Event::Plan { tasks: tasks.len(), done: tasks.len() - queue.len() });
        changed.iter().for_each(|task| self.tell(Event::Changed { id: &task.id }));
        cut_off
            .iter()
            .for_each(|(task, attempt)| self.tell(Event::CutOff { id: &task.id, attempt: *attempt }));
        queue
    }

    /// One attempt from its first record to its last. Returns the task when it is to be tried again.
    async fn attempt<'t>(&self, due: Due<'t>) -> Result<Option<Due<'t>>, Error> {
        let begun = Instant::now();
        let Due { task, attempt, .. } = due;
        let name = worktree::name(&task.id, attempt);
        let tree = self.store.borrow().out.join("worktrees").join(&name);
        let source = Source::find(task, &tree).await;
        if *self.stopped.borrow() {
            return Ok(None); // not begun
        }
        let found = source.as_ref().ok();
        self.store.borrow_mut().start(Started {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: due.digest.clone(),
            time_ms: now_ms(),
            worktree: source.is_ok().then_some(name),
            keep: self.options.keep_worktrees,
            git_dir: found.and_then(Source::git_dir).map(Path::to_owned),
            commit: found.and_then(Source::commit).map(str::to_owned),
        })?;

        let outcome = match &source {
            Err(why) => Outcome::unprepared(why.clone()),
            Ok(source) => self.work(task, attempt, source, &tree).await,
        };
        let result = Finished {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: due.digest.clone(),
            time_ms: now_ms(),
            ending: outcome.attempt.ending,
            infrastructure: outcome.infrastructure,
            message: outcome.attempt.message,
            diff: outcome.attempt.diff,
            totals: outcome.attempt.totals,
            seconds: begun.elapsed().as_secs_f64(),
            session: outcome.attempt.session,
        };
        self.store.borrow_mut().finish(result.clone())?;
        let again = outcome.again && due.retries > 0 && !*self.stopped.borrow();
        self.tell(Event::Finished { result: &result, again });
        if let (Ok(source), false) = (&source, self.options.keep_worktrees) {
            self.remove(task, source, &tree).await;
        }
        Ok(again.then(|| Due { attempt: attempt + 1, retries: due.retries - 1, ..due }))
    }

    async fn work(&self, task: &Task, attempt: u32, source: &Source, tree: &Path) -> Outcome {
        if self.noted.borrow_mut().insert(task.repo.clone())
            && let Some(message) = source.note(task).await
        {
            self.tell(Event::Note { id: &task.id, message });
        }
        let made = {
            let one_at_a_time = self.trees_of(source);
            let _held = one_at_a_time.lock().await;
            source.make(tree).await
        };
        let folder = match made {
            Ok(folder) => folder,
            Err(why) => return Outcome::unprepared(why),
        };
        if *self.stopped.borrow() {
            return Outcome::of(Attempt::failed(Ending::Interrupted, "interrupted before it began"));
        }
        self.tell(Event::Started { id: &task.id, attempt, worktree: &folder });
        let run = self.runner.run(task, &folder, self.stopped.clone());
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(attempt) => Outcome::of(attempt),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let message = format!("the agent itself failed, which is a bug: {said}");
                Outcome::of(Attempt::failed(Ending::Refused, message))
            }
        }
    }

    async fn remove(&self, task: &Task, source: &Source, tree: &Path) {
        let one_at_a_time = self.trees_of(source);
        let _held = one_at_a_time.lock().await;
        if let Err(message) = worktree::remove(tree, source.git_dir()).await {
            self.tell(Event::Note { id: &task.id, message });
        }
    }

    fn trees_of(&self, source: &Source) -> Rc<Mutex<()>> {
        match source.git_dir() {
            Some(git_dir) => Rc::clone(self.trees.borrow_mut().entry(git_dir.to_owned()).or_default()),
            None => Rc::default(),
        }
    }
}

impl Outcome {
    fn of(attempt: Attempt) -> Self {
        let infrastructure = attempt.ending.is_infrastructure();
        let again = infrastructure && attempt.ending != Ending::Interrupted;
        Self { attempt, infrastructure, again }
    }

    fn unprepared(why: String) -> Self {
        Self { attempt: Attempt::failed(Ending::Refused, why), infrastructure: true, again: false }
    }
}
