//! The publisher, which sends a batch's tasks to the queue and waits for their results.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use batch::{Context, Event, Finished, Folder, Job, Packed, Place, Task};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, TryStreamExt as _};
use journal::{Ending, Store, io_error};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::archive;
use crate::connect::{HEADERS, PAUSE, Queue};
use crate::error::{Error, server};
use crate::mailbox::{Arrival, Mailbox};
use crate::message::{Order, Record, VERSION, task_of, task_subject, task_subjects};
use crate::receiver::{receive, receive_some};

/// The file in the batch folder that contains the batch's name on the server.
const NAME: &str = "queue.json";
/// How long a canceled batch waits for the results of running attempts.
const LAST_RESULTS: Duration = Duration::from_secs(60);
/// How long an attempt waits for a record before it checks whether the server still has the task.
const PRESENCE: Duration = Duration::from_secs(20);
/// The largest plausible number of deliveries of one task. A record whose attempt number would
/// require more deliveries cannot be from a worker.
const PLAUSIBLE: u32 = 1_000_000;

/// Sends a batch's tasks to the queue.
pub struct Publisher<'a> {
    queue: Queue,
    /// The batch folder.
    folder: PathBuf,
    sessions: &'a Store,
    /// Fills in the settings that apply to all tasks in the batch.
    defaults: &'a dyn Fn(&mut Task),
    ready: OnceCell<Ready>,
    canceled: OnceCell<()>,
    /// The bundle for each repository and commit; `None` if workers clone the repository from a
    /// URL. The lock is held while a bundle is created and sent, so that this happens only once per
    /// bundle.
    bundles: tokio::sync::Mutex<HashMap<Start, Option<Bundle>>>,
}

/// A repository and, if the task specifies one, a commit in it.
type Start = (PathBuf, Option<String>);

/// A bundle in the queue.
#[derive(Clone)]
struct Bundle {
    /// The name of its object.
    object: String,
    /// The commit to start from if the task does not specify one.
    commit: Option<String>,
}

/// The part of the publisher that is set up once the batch folder is locked.
struct Ready {
    /// The name of the batch on the server.
    batch: String,
    mailbox: Mailbox,
    /// The versions of each task that an earlier invocation sent and no worker has finished.
    outstanding: RefCell<HashMap<String, Vec<String>>>,
    receiving: JoinHandle<()>,
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// Why a task was not sent.
enum Failed {
    /// The request might succeed later.
    Again(String),
    Final(String),
}

impl<'a> Publisher<'a> {
    /// Creates a publisher for the batch in `folder`. Sessions from workers are stored in
    /// `sessions`.
    #[must_use]
    pub fn new(queue: Queue, folder: PathBuf, sessions: &'a Store, defaults: &'a dyn Fn(&mut Task)) -> Self {
        Self {
            queue,
            folder,
            sessions,
            defaults,
            ready: OnceCell::new(),
            canceled: OnceCell::new(),
            bundles: tokio::sync::Mutex::default(),
        }
    }

    /// Removes everything that the server stores for the batch, and removes the bundles from the
    /// batch folder. Does nothing if the server has tasks or results that this invocation did not
    /// ask for.
    pub async fn forget(&self) {
        let Some(ready) = self.ready.get() else { return };
        if ready.mailbox.has_early() || !ready.outstanding.borrow().is_empty() {
            return;
        }
        self.queue.forget(&ready.batch).await;
        let _ = fs::remove_dir_all(self.folder.join("bundles"));
    }

    async fn get_ready(&self) -> Result<Ready, Error> {
        let batch = name(&self.folder)?;
        self.queue.create_objects(&batch).await?;
        let (mut recorded, mut done) = (HashSet::new(), HashSet::new());
        for state in Folder::read(&self.folder)?.tasks {
            if state.row.has_result() {
                done.insert(state.row.id.clone());
            }
            recorded.extend(state.attempts.into_iter().map(|result| (result.id, result.attempt)));
        }
        // List the tasks before the results. A task that finishes in between then appears in both
        // lists. With the opposite order, it would appear in neither.
        let failed = "list the tasks of the batch";
        let subjects = self.queue.tasks.info_with_subjects(task_subjects(&batch)).await;
        let mut subjects = subjects.map_err(server(failed))?;
        let mut outstanding: HashMap<String, Vec<String>> = HashMap::new();
        while let Some((subject, _)) = subjects.try_next().await.map_err(server(failed))? {
            if let Some((id, version)) = task_of(&subject) {
                outstanding.entry(id).or_default().push(version.to_owned());
            }
        }
        let mailbox = Mailbox::new(recorded, done);
        let consumer = self.queue.records(&batch).await?;
        while receive_some(&self.queue, &batch, &consumer, &mailbox).await? > 0 {}
        let receiving = tokio::spawn(receive(self.queue.clone(), batch.clone(), consumer, mailbox.clone()));
        Ok(Ready { batch, mailbox, outstanding: RefCell::new(outstanding), receiving })
    }

    async fn make(&self, job: Job<'_>, context: &Context<'_>) -> Result<(), batch::Error> {
        let ready = self
            .ready
            .get()
            .ok_or_else(|| batch::Error::Place { why: "the queue is not ready".into(), temporary: false })?;
        let id = &job.task.id;
        let (mut arrivals, early) = ready.mailbox.open(id);
        let mut attempt =
            Waiting { job: &job, context, ready, subject: String::new(), next: job.attempt, began: false };
        let (mut made, mut early) = (Ok(None), early.into_iter());
        while let (Ok(None), Some(arrival)) = (&made, early.next()) {
            made = self.record(&mut attempt, arrival).await;
        }
        if let Ok(None) = made {
            made = self.wait(&mut attempt, &mut arrivals).await;
        }
        let recorded = made.as_ref().ok().and_then(|result| *result);
        let mut unneeded = ready.mailbox.close(id, recorded, arrivals);
        unneeded.extend(early.filter_map(|arrival| ready.mailbox.put(arrival)));
        for arrival in unneeded {
            arrival.acknowledge().await;
        }
        made.map(drop)
    }

    /// Sends the task unless the queue already has it, and stores incoming records until one of
    /// them is a result. Returns the result's attempt number and whether the result is from the
    /// agent rather than an infrastructure failure. Returns `None` if the batch is canceled first.
    async fn wait(
        &self,
        attempt: &mut Waiting<'_>,
        arrivals: &mut UnboundedReceiver<Arrival>,
    ) -> Result<Option<(u32, bool)>, batch::Error> {
        let Waiting { job, context, ready, .. } = *attempt;
        if let Some(refused) = self.publish(attempt, false).await? {
            return Ok(Some(refused));
        }
        let (mut until, mut missing): (Option<Instant>, u32) = (None, 0);
        loop {
            tokio::select! {
                biased;
                Some(arrival) = arrivals.recv() => {
                    missing = 0;
                    let interrupted = is_interrupted(&arrival.record);
                    if let Some(result) = self.record(attempt, arrival).await? {
                        return Ok(Some(result));
                    }
                    // An earlier invocation canceled the task, so it is no longer in the queue.
                    if interrupted && let Some(refused) = self.publish(attempt, true).await? {
                        return Ok(Some(refused));
                    }
                }
                () = context.interrupted(), if until.is_none() => {
                    self.canceled.get_or_init(|| self.queue.cancel(&ready.batch)).await;
                    if !attempt.began {
                        return Ok(None);
                    }
                    until = Some(Instant::now() + LAST_RESULTS);
                }
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return Ok(None);
                }
                () = tokio::time::sleep(PRESENCE), if until.is_none() => {
                    missing = if self.is_gone(&attempt.subject).await { missing + 1 } else { 0 };
                    // The first time the task is missing, its result may still be on the way.
                    if missing > 1 {
                        missing = 0;
                        let message = "the queue has lost the task; sending it again".into();
                        (context.report)(Event::Note { id: &job.task.id, message });
                        self.bundles.lock().await.clear();
                        let _ = self.queue.create_objects(&ready.batch).await;
                        if let Some(refused) = self.publish(attempt, true).await? {
                            return Ok(Some(refused));
                        }
                    }
                }
            }
        }
    }

    /// Acknowledges an incoming record. Stores it first, unless it is outdated, implausible, or the
    /// result of an attempt that an earlier invocation interrupted. Returns the same as
    /// [`wait`](Self::wait) if a result was stored, and `None` otherwise.
    async fn record(
        &self,
        attempt: &mut Waiting<'_>,
        arrival: Arrival,
    ) -> Result<Option<(u32, bool)>, batch::Error> {
        let Waiting { job, context, ready, .. } = *attempt;
        let number = arrival.record.attempt();
        // Ignore records for an older version of the task and records that no worker can have sent.
        let foreign = arrival.record.digest() != job.digest || number > job.attempt.saturating_add(PLAUSIBLE);
        let canceled_earlier = is_interrupted(&arrival.record) && !*context.stopped.borrow();
        if foreign || canceled_earlier {
            arrival.acknowledge().await;
            if canceled_earlier {
                attempt.next = attempt.next.max(number.saturating_add(1));
            }
            return Ok(None);
        }
        match &arrival.record {
            Record::Started(started) => {
                attempt.began = true;
                attempt.next = attempt.next.max(number.saturating_add(1));
                (context.report)(Event::Started { id: &started.id, attempt: number });
                context.sink.started(started.clone()).await?;
                arrival.acknowledge().await;
                Ok(None)
            }
            Record::Finished { finished, may_help, session } => {
                let mut stored = true;
                if let Some(name) = session
                    && let Err(why) = self.fetch(&ready.batch, name, finished).await
                {
                    stored = false;
                    let message = format!("the session could not be fetched: {why}");
                    (context.report)(Event::Note { id: &finished.id, message });
                }
                let result = (number, !finished.infrastructure);
                context.sink.finished(Finished::clone(finished), *may_help).await?;
                arrival.acknowledge().await;
                if let Some(name) = session.as_ref().filter(|_| stored) {
                    self.queue.remove(&ready.batch, name).await;
                }
                Ok(Some(result))
            }
        }
    }

    /// Sends the task unless the batch is stopping. Without `again`, also skips the task if an
    /// earlier invocation already sent the same version of it. If the task can never be sent,
    /// stores a result that says so and returns the same as [`wait`](Self::wait).
    async fn publish(
        &self,
        attempt: &mut Waiting<'_>,
        again: bool,
    ) -> Result<Option<(u32, bool)>, batch::Error> {
        let Waiting { job, context, ready, .. } = *attempt;
        if *context.stopped.borrow() {
            return Ok(None);
        }
        let mut task = job.task.clone();
        (self.defaults)(&mut task);
        let version =
            batch::short_digest(&[&serde_json::to_vec(&task).unwrap_or_default(), job.digest.as_bytes()]);
        attempt.subject = task_subject(&ready.batch, &task.id, &version);
        let sent = ready.outstanding.borrow_mut().remove(&task.id).unwrap_or_default();
        for old in sent.iter().filter(|old| **old != version) {
            let _ = self.queue.tasks.purge().filter(task_subject(&ready.batch, &task.id, old)).await;
        }
        if sent.contains(&version) && !again {
            return Ok(None);
        }
        // All requests from this call use the same key, so that the server drops duplicates.
        let key = format!("{}/{:x}", ready.batch, fastrand::u64(..));
        let mut noted = false;
        loop {
            match self.send(&task, attempt, &key).await {
                Ok(()) => return Ok(None),
                Err(Failed::Final(why)) => {
                    let refused = Finished::refused(&task.id, job.digest, attempt.next, &why);
                    context.sink.finished(refused, false).await?;
                    return Ok(Some((attempt.next, false)));
                }
                Err(Failed::Again(why)) => {
                    if !std::mem::replace(&mut noted, true) {
                        let message = format!("cannot send the task, retrying: {why}");
                        (context.report)(Event::Note { id: &task.id, message });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = context.interrupted() => return Ok(None), // the caller also checks for this
            }
        }
    }

    async fn send(&self, task: &Task, attempt: &Waiting<'_>, key: &str) -> Result<(), Failed> {
        let Waiting { job, ready, .. } = *attempt;
        let bundle = self.bundle(task, &ready.batch).await?;
        let (object, commit) = bundle.map_or((None, None), |bundle| (Some(bundle.object), bundle.commit));
        let mut task = task.clone();
        task.base_commit = task.base_commit.or(commit);
        let order = Order {
            v: VERSION,
            batch: ready.batch.clone(),
            digest: job.digest.to_owned(),
            attempt: attempt.next,
            bundle: object,
            task,
        };
        let payload = serde_json::to_vec(&order).map_err(|e| Failed::Final(e.to_string()))?;
        let largest = self.queue.context.client().max_payload().saturating_sub(HEADERS);
        if payload.len() > largest {
            let size = payload.len();
            return Err(Failed::Final(format!(
                "the task is {size} bytes long, but the queue accepts at most {largest}"
            )));
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", key);
        let subject = attempt.subject.clone();
        let sent = self.queue.context.publish_with_headers(subject, headers, payload.into());
        let failed = |e: async_nats::jetstream::context::PublishError| match e.kind() {
            PublishErrorKind::MaxPayloadExceeded => Failed::Final(e.to_string()),
            _ => Failed::Again(e.to_string()),
        };
        let sent = async { sent.await?.await };
        if let Err(e) = sent.await {
            if matches!(e.kind(), PublishErrorKind::StreamNotFound) {
                // The server may have lost its data.
                let _ = self.queue.create_streams().await;
            }
            return Err(failed(e));
        }
        Ok(())
    }

    /// Returns the bundle of the task's repository, sending it first unless the queue already has
    /// it. Returns `None` if the task specifies a URL.
    async fn bundle(&self, task: &Task, batch: &str) -> Result<Option<Bundle>, Failed> {
        let mut bundles = self.bundles.lock().await;
        let key = (task.repo.clone(), task.base_commit.clone());
        if let Some(known) = bundles.get(&key) {
            return Ok(known.clone());
        }
        let failed = |temporary: bool, why: String| match temporary {
            true => Failed::Again(why),
            false => Failed::Final(why),
        };
        let packed = batch::pack(task, &self.folder.join("bundles")).await;
        let packed = packed.map_err(|unusable| failed(unusable.temporary, unusable.why))?;
        let bundle = match packed {
            Packed::Url => None,
            Packed::Bundle(file, commit) => {
                let read = fs::read(&file);
                let contents =
                    read.map_err(|e| failed(journal::is_temporary(&e), format!("{}: {e}", file.display())))?;
                let object = format!("{}.bundle", batch::short_digest(&[&contents]));
                if !self.queue.has(batch, &object).await {
                    let again = |e: Error| Failed::Again(e.to_string());
                    self.queue.create_objects(batch).await.map_err(again)?;
                    self.queue.put(batch, &object, &contents).await.map_err(again)?;
                }
                Some(Bundle { object, commit })
            }
        };
        bundles.insert(key, bundle.clone());
        Ok(bundle)
    }

    /// Whether the server no longer has a task under this subject, possibly because it has no
    /// streams at all.
    async fn is_gone(&self, subject: &str) -> bool {
        let found = self.queue.tasks.get_last_raw_message_by_subject(subject).await;
        found.is_err_and(|e| match e.kind() {
            LastRawMessageErrorKind::NoMessageFound => true,
            LastRawMessageErrorKind::JetStream(e) => e.error_code() == ErrorCode::STREAM_NOT_FOUND,
            _ => false,
        })
    }

    async fn fetch(&self, batch: &str, name: &str, finished: &Finished) -> Result<(), String> {
        let Some(id) = &finished.session else { return Ok(()) };
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("{id:?} is not the id of a session"));
        }
        let archive = self.queue.get(batch, name).await.map_err(|e| e.to_string())?;
        let folder = self.sessions.folder(id);
        let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&archive, &folder)).await;
        unpacked.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

impl Place for Publisher<'_> {
    fn prepare<'a>(&'a self, _batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), batch::Error>> {
        async {
            let ready = self.queue.retrying(|| self.get_ready()).await;
            let failed = |e: Error| batch::Error::Place { why: e.to_string(), temporary: e.is_temporary() };
            let _ = self.ready.set(ready.map_err(failed)?);
            Ok(())
        }
        .boxed_local()
    }

    fn attempt<'a>(
        &'a self,
        job: Job<'a>,
        batch: &'a Context<'a>,
    ) -> LocalBoxFuture<'a, Result<(), batch::Error>> {
        self.make(job, batch).boxed_local()
    }
}

/// An attempt that is waiting for records from a worker.
struct Waiting<'a> {
    job: &'a Job<'a>,
    context: &'a Context<'a>,
    ready: &'a Ready,
    /// The subject that the task was sent under.
    subject: String,
    /// The number that the attempt would get if the task were sent now.
    next: u32,
    /// Whether a worker has started the attempt.
    began: bool,
}

fn is_interrupted(record: &Record) -> bool {
    matches!(record, Record::Finished { finished, .. } if finished.ending == Ending::Interrupted)
}

/// Returns the name of the batch on the server. It is generated once and then kept in the batch
/// folder.
fn name(folder: &Path) -> Result<String, Error> {
    let path = folder.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::Server {
            doing: "read the name of the batch",
            why: format!("{}: {e}", path.display()),
            timed_out: false,
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = format!("{:016x}", fastrand::u64(..));
            batch::replace(&path, &format!("{name:?}\n"))?;
            Ok(name)
        }
        Err(e) => Err(io_error("cannot read", &path)(e).into()),
    }
}
