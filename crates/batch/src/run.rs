//! Runs a batch: starts the remaining tasks of a task file as the schedule allows, and records the
//! attempts in a folder.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::due::{self, Due};
use crate::error::Error;
use crate::event::Event;
use crate::record::{Finished, Started};
use crate::schedule::{Next, Schedule};
use crate::seam::{Context, Job, Place, Sink, Source, drive, raised};
use crate::settings::{self, Change, Settings};
use crate::stop::Stop;
use crate::store::Store;
use crate::summary::Summary;
use crate::task::{Task, unsafe_id};

/// The options of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// The batch folder; created if it does not exist.
    pub out: PathBuf,
    /// How many tasks run at a time; at least 1.
    pub jobs: usize,
    /// How many times this invocation retries a task after infrastructure failures. Retries during
    /// a server outage do not count. A task whose repository or commit is missing is not retried,
    /// because the retry would fail too.
    pub retries: u32,
    /// The maximum time that this invocation waits during one outage, that is, while every attempt
    /// fails because of the infrastructure. If zero, nothing is retried.
    pub wait: Duration,
    /// Limits on the whole batch.
    pub limits: BatchLimits,
    /// Whether to stop starting tasks as soon as one is not verified.
    pub fail_fast: bool,
    /// Whether to rerun tasks that the agent finished unsuccessfully.
    pub retry_failed: bool,
    /// The value of `model_name_or_path` in the predictions.
    pub model_name: String,
    /// The settings of this invocation that can change a result, without secrets.
    pub settings: Settings,
}

/// Limits on a whole batch, as opposed to limits on a single task.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLimits {
    /// The time limit for this invocation. When it is reached, running attempts are interrupted.
    pub time: Option<Duration>,
    /// The limit on prompt and generated tokens, summed across all results in the folder. Once it
    /// is reached, no more attempts start, but running attempts continue until they end.
    pub tokens: Option<u64>,
    /// The limit on the cost in dollars. Summed and enforced in the same way as the token limit.
    pub cost: Option<f64>,
}

/// Runs the tasks that are not done yet and returns a summary of all tasks.
///
/// Runs on the current task of a tokio runtime with time and I/O enabled; nothing needs to be
/// `Send`. Once `interrupt` becomes true, no more tasks start, and the batch ends when the running
/// attempts have ended. Dropping the future has the same effect as killing the process: the next
/// invocation cleans up.
///
/// # Errors
/// If the folder is in use, is damaged, or cannot be written to. A failed task is a result, not an
/// error.
pub async fn run(
    tasks: &[Task],
    options: &BatchOptions,
    place: &dyn Place,
    mut interrupt: watch::Receiver<bool>,
    observer: impl FnMut(Event<'_>),
) -> Result<Summary, Error> {
    if let Some(why) = tasks.iter().find_map(|task| unsafe_id(&task.id)) {
        return Err(Error::Task(why));
    }
    let observer = RefCell::new(observer);
    let report = |event: Event<'_>| (*observer.borrow_mut())(event);
    let store = Store::open(&options.out)?;
    let (stop, stopped) = watch::channel(*interrupt.borrow_and_update());
    let plan = due::plan(tasks, &store.started, &store.finished, options.retry_failed);
    store.clean_up(&report).await;
    report(Event::Plan { tasks: tasks.len(), done: plan.kept.len(), verified: plan.verified });
    let records = settings::record(&store.out, store.started.len(), &options.settings)?;
    explain(&plan, &settings::outdated(&plan.kept, &store.started, &records), &report);
    let folder = store.out.clone();
    let schedule = Schedule::new(plan.queue, options, &store.finished, Instant::now());
    let batch = Batch {
        options,
        place,
        store: RefCell::new(store),
        schedule: RefCell::new(schedule),
        interrupt,
        stop,
        report: &report,
        noted_cost: Cell::new(false),
    };
    if *stopped.borrow() {
        batch.stop();
    }
    let context = Context { folder: &folder, sink: &batch, stopped, report: &report };
    let deadline = batch.schedule.borrow().deadline;
    tokio::select! {
        prepared = place.prepare(&context) => prepared?,
        () = raised(batch.interrupt.clone()) => batch.stop(),
        () = reached(deadline) => {} // the schedule starts nothing
    }
    drive(&batch, async |due: Due<'_>| {
        place.attempt(Job { task: due.task, digest: &due.digest, attempt: due.attempt }, &context).await
    })
    .await?;
    let stopped = batch.schedule.borrow().stopped();
    let store = batch.store.into_inner();
    let summary = Summary::new(tasks, &store.started, &store.finished, stopped);
    store.predict(tasks, &options.model_name)?;
    store.replace("summary.json", &summary.to_json())?;
    Ok(summary)
}

/// Reports which tasks keep results that were produced with different settings, and which tasks run
/// again.
fn explain(plan: &due::Plan<'_>, outdated: &[(Vec<Change>, Vec<&str>)], report: &dyn Fn(Event<'_>)) {
    outdated.iter().for_each(|(changes, tasks)| report(Event::Kept { changes, tasks }));
    plan.changed.iter().for_each(|id| report(Event::Changed { id }));
    plan.failed.iter().for_each(|id| report(Event::Failed { id }));
    plan.cut_off.iter().for_each(|(id, attempt)| report(Event::CutOff { id, attempt: *attempt }));
}

/// Waits until the given time, or forever if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// A running batch. Its schedule is the source of attempts, and its folder is the sink for their
/// records.
struct Batch<'a, 't> {
    options: &'a BatchOptions,
    place: &'a dyn Place,
    store: RefCell<Store>,
    schedule: RefCell<Schedule<'t>>,
    interrupt: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    report: &'a dyn Fn(Event<'_>),
    /// Whether the user has been told that the cost of an attempt is unknown.
    noted_cost: Cell<bool>,
}

impl<'t> Source for Batch<'_, 't> {
    type Job = Due<'t>;

    fn next(&self, running: usize) -> LocalBoxFuture<'_, Option<Due<'t>>> {
        async move {
            loop {
                if let Some(most) = self.schedule.borrow_mut().adapt(running, self.place.refusals()) {
                    let tasks = if most == 1 { "task" } else { "tasks" };
                    let message = format!(
                        "the server is getting too many requests; running at most {most} {tasks} at a time"
                    );
                    (self.report)(Event::Note { id: "", message });
                }
                let next = self.schedule.borrow_mut().next(Instant::now(), running);
                let interrupts = self.schedule.borrow().stopped().is_some_and(Stop::interrupts);
                if interrupts {
                    self.stop.send_if_modified(|stop| !std::mem::replace(stop, true));
                }
                let wake = match next {
                    Next::Start(due) => return Some(due),
                    Next::Wait(wake) => wake,
                    Next::End => return None,
                };
                tokio::select! {
                    biased;
                    () = raised(self.interrupt.clone()), if !interrupts => self.stop(),
                    () = reached(wake) => {}
                }
            }
        }
        .boxed_local()
    }

    fn stop(&self) {
        self.schedule.borrow_mut().stop(Stop::Interrupted);
    }
}

impl Sink for Batch<'_, '_> {
    fn started(&self, started: Started) -> LocalBoxFuture<'_, Result<(), Error>> {
        std::future::ready(self.store.borrow_mut().start(started)).boxed_local()
    }

    fn finished(&self, finished: Finished, may_help: bool) -> LocalBoxFuture<'_, Result<(), Error>> {
        std::future::ready(self.finish(finished, may_help)).boxed_local()
    }
}

impl Batch<'_, '_> {
    fn finish(&self, result: Finished, may_help: bool) -> Result<(), Error> {
        self.store.borrow_mut().finish(result.clone())?;
        let verdict = self.schedule.borrow_mut().ended(Instant::now(), &result, may_help);
        (self.report)(Event::Finished { result: &result, again: verdict.again });
        if let Some(wait) = verdict.pause {
            (self.report)(Event::Waiting { wait });
        }
        let unknown = result.totals.turns > 0 && result.totals.cost.is_none();
        if self.options.limits.cost.is_some() && unknown && !self.noted_cost.replace(true) {
            let message =
                "the cost of this attempt is unknown, so it does not count toward the batch's limit";
            (self.report)(Event::Note { id: &result.id, message: message.into() });
        }
        Ok(())
    }
}
