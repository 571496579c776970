//! Runs attempts on this machine, each in its own worktree, which is removed when the attempt ends.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use journal::{Ending, Report};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clones;
use crate::error::Error;
use crate::event::Event;
use crate::record::{Finished, Started, VERSION, now_ms};
use crate::seam::{Context, Job, Place};
use crate::setups::{self, Lane, Lanes, Setup};
use crate::task::Task;
use crate::worktree::{self, Source};

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How the attempt ended, and what it changed, even if it failed.
    pub report: Report,
    /// The id of the attempt's session, if one was started.
    pub session: Option<String>,
}

impl Attempt {
    /// Creates an attempt that failed before it could run.
    #[must_use]
    pub fn failed(ending: Ending, message: impl Into<String>) -> Self {
        Self { report: Report::new(ending, message), session: None }
    }
}

/// Runs one task.
pub trait Runner {
    /// Runs `task` in `worktree`, whose files it may change. If `setup` is given, runs its command
    /// first and then calls [`Setup::keep`]; otherwise the worktree is ready to use. Ends with
    /// [`Ending::Interrupted`] soon after `interrupt` becomes true. Reports every failure as an
    /// ending. A panic is treated as an infrastructure failure.
    fn run(
        &self,
        task: &Task,
        worktree: &Path,
        setup: Option<&Setup>,
        interrupt: watch::Receiver<bool>,
    ) -> impl Future<Output = Attempt>;

    /// Returns the number of requests that the server has refused so far because it was receiving
    /// too many.
    fn refusals(&self) -> u64 {
        0
    }

    /// Masks the secrets in a message before it is recorded or shown.
    fn mask(&self, message: &str) -> String {
        message.to_owned()
    }
}

/// Runs attempts on this machine.
pub struct Here<'r, R> {
    runner: &'r R,
    /// Whether an attempt's tree stays in place after the attempt ends.
    keeps_trees: bool,
    /// One lock per repository for its worktree entries. Git must not read an entry while another
    /// git process is still writing it.
    trees: RefCell<HashMap<PathBuf, Rc<Mutex<()>>>>,
    lanes: Lanes,
    /// Repositories for which [`Source::note`] has already been called, so that notes are not
    /// repeated.
    noted: RefCell<HashSet<PathBuf>>,
}

impl<R: Runner> Place for Here<'_, R> {
    fn prepare<'a>(&'a self, batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async {
            let left = setups::remove_left(batch.folder).await;
            left.map_err(|message| (batch.report)(Event::Note { id: "", message })).ok();
            Ok(())
        }
        .boxed_local()
    }

    fn attempt<'a>(&'a self, job: Job<'a>, batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.make(job, batch).boxed_local()
    }

    fn refusals(&self) -> u64 {
        self.runner.refusals()
    }
}

impl<'r, R: Runner> Here<'r, R> {
    /// Creates a place that runs attempts with `runner`.
    #[must_use]
    pub fn new(runner: &'r R) -> Self {
        Self {
            runner,
            keeps_trees: false,
            trees: RefCell::default(),
            lanes: Lanes::default(),
            noted: RefCell::default(),
        }
    }

    /// Same as [`Here::new`], but does not remove the trees of attempts. The setup command then
    /// runs for every attempt, because its result can be reused only at the same path, which the
    /// earlier tree still occupies.
    #[must_use]
    pub fn keeping_trees(runner: &'r R) -> Self {
        Self { keeps_trees: true, ..Self::new(runner) }
    }

    async fn make(&self, job: Job<'_>, batch: &Context<'_>) -> Result<(), Error> {
        let start = Instant::now();
        let Job { task, digest, attempt } = job;
        let repository = self.repository(task, batch).await;
        let source = match &repository {
            Ok(repo) => Source::find(task, repo).await,
            Err(why) => Err(why.clone().into()),
        };
        let reuses = source.as_ref().ok().filter(|_| !self.keeps_trees);
        let lane = reuses.and_then(|source| self.lanes.take(task, source, batch.folder));
        let name = lane.as_ref().map_or_else(|| worktree::name(&task.id, attempt), Lane::name);
        let tree = batch.folder.join("worktrees").join(&name);
        let source = source.and_then(|source| Ok(worktree::ensure_absent(&tree).map(|()| source)?));
        if *batch.stopped.borrow() {
            return Ok(()); // not started
        }
        let found = source.as_ref().ok();
        let started = Started {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: digest.to_owned(),
            time_ms: now_ms(),
            worktree: source.is_ok().then_some(name),
            git_dir: found.and_then(Source::git_dir).map(Path::to_owned),
            commit: found.and_then(Source::commit).map(str::to_owned),
            kept: self.keeps_trees,
        };
        batch.sink.started(started).await?;

        let worked = match &source {
            Err(unusable) => Err(unusable.why.clone()),
            Ok(source) => self.work(task, attempt, source, &tree, lane.as_ref(), batch).await,
        };
        let Attempt { report, session } = worked.unwrap_or_else(|why| Attempt::failed(Ending::Refused, why));
        let is_final = repository.is_ok() && source.as_ref().is_err_and(|unusable| !unusable.temporary);
        let may_help = !is_final && report.ending != Ending::Interrupted;
        let finished = Finished {
            v: VERSION,
            id: task.id.clone(),
            attempt,
            digest: digest.to_owned(),
            time_ms: now_ms(),
            infrastructure: report.ending.is_infrastructure(),
            ending: report.ending,
            message: self.runner.mask(&report.message),
            diff: report.diff,
            totals: report.totals,
            models: report.models,
            seconds: start.elapsed().as_secs_f64(),
            session,
        };
        batch.sink.finished(finished, may_help).await?;
        if let Ok(source) = &source
            && !self.keeps_trees
        {
            self.remove(task, source, &tree, batch).await;
        }
        Ok(())
    }

    fn note(&self, batch: &Context<'_>, task: &Task, message: &str) {
        (batch.report)(Event::Note { id: &task.id, message: self.runner.mask(message) });
    }

    /// Returns the folder of the task's repository, cloning it first if necessary. Fails as soon as
    /// the batch stops.
    async fn repository(&self, task: &Task, batch: &Context<'_>) -> Result<PathBuf, String> {
        if !clones::is_remote(&task.repo) {
            return Ok(task.repo.clone());
        }
        tokio::select! {
            biased;
            () = batch.interrupted() => Err("interrupted before it started".into()),
            cloned = self.cloned(task, batch) => cloned,
        }
    }

    async fn cloned(&self, task: &Task, batch: &Context<'_>) -> Result<PathBuf, String> {
        let folder = clones::folder(&task.repo, batch.folder);
        let one_at_a_time = self.lock_of(&folder);
        let _held = one_at_a_time.lock().await;
        if !folder.is_dir() {
            let repo = clones::shown(&task.repo.to_string_lossy());
            self.note(batch, task, &format!("cloning {repo}"));
        }
        clones::ensure(&task.repo, &folder).await?;
        Ok(folder)
    }

    /// Creates a work tree and runs the task in it. If the tree cannot be created, returns an error
    /// that explains why.
    async fn work(
        &self,
        task: &Task,
        attempt: u32,
        source: &Source,
        tree: &Path,
        lane: Option<&Lane<'_>>,
        batch: &Context<'_>,
    ) -> Result<Attempt, String> {
        if self.noted.borrow_mut().insert(task.repo.clone())
            && let Some(message) = source.note(task).await
        {
            self.note(batch, task, &message);
        }
        let stopped = || Ok(Attempt::failed(Ending::Interrupted, "interrupted before it started"));
        let prepared = match lane.map(Lane::copy) {
            Some(copy) => copy.await.unwrap_or_else(|message| {
                self.note(batch, task, &message);
                None
            }),
            None => None,
        };
        let folder = {
            let one_at_a_time = self.trees_of(source);
            let _held = one_at_a_time.lock().await;
            if *batch.stopped.borrow() {
                return stopped();
            }
            match (source.make(tree, prepared).await, lane) {
                (Err(message), Some(lane)) if prepared.is_some() => {
                    self.note(batch, task, &format!("{message}; the setup runs again"));
                    lane.discard();
                    worktree::remove(tree, source.git_dir()).await?;
                    source.make(tree, None).await?
                }
                (made, _) => made?,
            }
        };
        if *batch.stopped.borrow() {
            return stopped();
        }
        let setup = lane.map_or_else(|| Setup::once(task), |lane| lane.setup(task));
        (batch.report)(Event::Started { id: &task.id, attempt });
        let run = self.runner.run(task, &folder, setup.as_ref(), batch.stopped.clone());
        Ok(AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Attempt::failed(Ending::Refused, format!("the agent panicked, which is a bug: {text}"))
        }))
    }

    async fn remove(&self, task: &Task, source: &Source, tree: &Path, batch: &Context<'_>) {
        let one_at_a_time = self.trees_of(source);
        let _held = one_at_a_time.lock().await;
        if let Err(message) = worktree::remove(tree, source.git_dir()).await {
            self.note(batch, task, &message);
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
