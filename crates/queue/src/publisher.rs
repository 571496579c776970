//! The publisher: sends the tasks of a batch to the queue, and waits for their results.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use batch::{Context, Event, Finished, Folder, Job, Packed, Place, Task};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use journal::{Ending, Report, Store, io_error};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::archive;
use crate::connect::Queue;
use crate::error::{Error, server};
use crate::message::{
    Body, Envelope, Order, Record, VERSION, canceled_object, results_subject, task_of, task_subject,
};

/// The file, in the folder of a batch, that has the name of the batch on the server.
const NAME: &str = "queue.json";
/// How long a canceled batch waits for the results of running attempts.
const LAST_RESULTS: Duration = Duration::from_secs(120);
/// The wait before a failed request is repeated.
const PAUSE: Duration = Duration::from_secs(2);
/// The error when the server no longer knows the batch.
const LOST: &str = "the queue has lost this batch: its server was replaced, or its data was removed; run the same \
                    command to continue";
/// How many records are requested at a time.
const RECORDS: usize = 200;

/// Sends the tasks of one batch to the queue.
pub struct Publisher<'a> {
    queue: Queue,
    /// The folder of the batch.
    folder: PathBuf,
    sessions: &'a Store,
    /// Fills in what the batch sets for all of its tasks.
    defaults: &'a dyn Fn(&mut Task),
    ready: OnceCell<Ready>,
    canceled: OnceCell<()>,
    /// What workers need of each repository and commit. The lock is held while a bundle is made and
    /// sent, so that this happens only once.
    bundles: tokio::sync::Mutex<HashMap<Start, Option<Bundle>>>,
}

/// A repository, and the commit in it if the task names one.
type Start = (PathBuf, Option<String>);

/// What is known once the folder of the batch is locked.
struct Ready {
    /// The name of the batch on the server.
    batch: String,
    /// A number for this invocation, as a part of the ids of its messages. Without it, the server
    /// would drop a task that a later invocation sends again.
    nonce: u64,
    shared: Arc<Mutex<Shared>>,
    /// Becomes true if the server no longer knows the batch.
    lost: watch::Receiver<bool>,
    receiving: JoinHandle<()>,
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// A record that was received but not acknowledged.
struct Arrival {
    record: Record,
    message: Message,
}

/// What the receiver of records and the attempts share.
#[derive(Default)]
struct Shared {
    /// Attempts that wait for records, by task.
    waiting: HashMap<String, mpsc::UnboundedSender<Arrival>>,
    /// Records that no attempt waits for yet, by task.
    early: HashMap<String, Vec<Arrival>>,
    /// Tasks that an earlier invocation sent and no worker has finished.
    outstanding: HashSet<String>,
    /// Attempts with a result in the folder.
    recorded: HashSet<(String, u32)>,
    /// Tasks with a result from the agent.
    done: HashSet<String>,
}

impl Shared {
    /// Hands a record to the attempt that waits for it, or keeps it for a later attempt. Returns a
    /// record that no attempt will need.
    fn dispatch(&mut self, arrival: Arrival) -> Option<Arrival> {
        let (id, attempt) = (arrival.record.id().to_owned(), arrival.record.attempt());
        let recorded = self.recorded.contains(&(id.clone(), attempt));
        if recorded && matches!(arrival.record, Record::Finished { .. }) {
            return Some(arrival);
        }
        let arrival = match self.waiting.get(&id) {
            Some(waiting) => match waiting.send(arrival) {
                Ok(()) => return None,
                Err(mpsc::error::SendError(arrival)) => arrival,
            },
            None => arrival,
        };
        if self.done.contains(&id) {
            return Some(arrival);
        }
        let early = self.early.entry(id).or_default();
        // The server sends a record again if it waits too long for its acknowledgment.
        early.retain(|earlier| earlier.record.key() != arrival.record.key());
        early.push(arrival);
        None
    }
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Publisher<'a> {
    /// A publisher for the batch in `folder`. Sessions of workers go to `sessions`.
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

    /// Removes everything of the batch from the server. For a batch whose tasks are all done.
    pub async fn forget(&self) {
        let Some(ready) = self.ready.get() else { return };
        let batch = &ready.batch;
        let _ = self.queue.tasks.purge().filter(task_subject(batch, ">")).await;
        let _ = self.queue.results.purge().filter(results_subject(batch)).await;
        self.queue.forget(batch).await;
        self.queue.remove(&canceled_object(batch)).await;
        let Ok(mut objects) = self.queue.objects.list().await else { return };
        let folders = ["bundles", "sessions", "records"].map(|kind| format!("{kind}/{batch}/"));
        while let Some(Ok(object)) = objects.next().await {
            if folders.iter().any(|folder| object.name.starts_with(folder)) {
                self.queue.remove(&object.name).await;
            }
        }
    }

    async fn connect(&self) -> Result<Ready, Error> {
        let batch = name(&self.folder)?;
        self.queue.remove(&canceled_object(&batch)).await;
        let mut shared = Shared::default();
        for state in Folder::read(&self.folder)?.tasks {
            if state.row.has_result() {
                shared.done.insert(state.row.id.clone());
            }
            shared.recorded.extend(state.attempts.into_iter().map(|result| (result.id, result.attempt)));
        }
        // List the tasks before receiving the results. A task that is done, and so is not listed,
        // has its result among those received.
        let failed = "list the tasks of the batch";
        let subjects = self.queue.tasks.info_with_subjects(task_subject(&batch, ">")).await;
        let mut subjects = subjects.map_err(server(failed))?;
        while let Some((subject, _)) = subjects.try_next().await.map_err(server(failed))? {
            shared.outstanding.extend(task_of(&subject));
        }
        let shared = Arc::new(Mutex::new(shared));
        let consumer = self.queue.records(&batch).await?;
        while receive_some(&self.queue, &consumer, &shared).await? > 0 {}
        let (is_lost, lost) = watch::channel(false);
        let receiving = tokio::spawn(receive(self.queue.clone(), consumer, Arc::clone(&shared), is_lost));
        Ok(Ready { batch, nonce: fastrand::u64(..), shared, lost, receiving })
    }

    async fn make(&self, job: Job<'_>, context: &Context<'_>) -> Result<(), batch::Error> {
        let ready = self.ready.get().ok_or_else(|| batch::Error::Place("the queue is not ready".into()))?;
        let id = job.task.id.clone();
        let (sender, mut arrivals) = mpsc::unbounded_channel();
        let sent = {
            let mut shared = locked(&ready.shared);
            shared.done.remove(&id);
            let early = shared.early.remove(&id).unwrap_or_default();
            let finished = early.iter().any(|arrival| matches!(arrival.record, Record::Finished { .. }));
            for arrival in early {
                let _ = sender.send(arrival);
            }
            shared.waiting.insert(id.clone(), sender);
            shared.outstanding.remove(&id) || finished
        };
        let made = self.wait(&job, context, ready, sent, &mut arrivals).await;
        let unneeded = {
            let mut shared = locked(&ready.shared);
            shared.waiting.remove(&id);
            if let Ok(Some(result)) = &made {
                shared.recorded.insert((id.clone(), result.attempt));
                if !result.infrastructure {
                    shared.done.insert(id);
                }
            }
            let mut unneeded = Vec::new();
            while let Ok(arrival) = arrivals.try_recv() {
                unneeded.extend(shared.dispatch(arrival));
            }
            unneeded
        };
        for arrival in unneeded {
            acknowledge(&arrival.message).await;
        }
        made.map(drop)
    }

    /// Sends the task unless it was sent before, and records what arrives. Returns the result.
    async fn wait(
        &self,
        job: &Job<'_>,
        context: &Context<'_>,
        ready: &Ready,
        sent: bool,
        arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Result<Option<Outcome>, batch::Error> {
        let mut stopped = context.stopped.clone();
        if !sent
            && !*stopped.borrow()
            && let Err(why) = self.publish(job, context, ready).await
        {
            context.sink.finished(refused(job, why), false).await?;
            return Ok(Some(Outcome { attempt: job.attempt, infrastructure: true }));
        }
        let (mut began, mut lost) = (false, ready.lost.clone());
        let mut until: Option<Instant> = None;
        loop {
            let arrival = tokio::select! {
                biased;
                Some(arrival) = arrivals.recv() => arrival,
                () = raised(&mut stopped), if until.is_none() => {
                    self.canceled.get_or_init(|| self.cancel(&ready.batch)).await;
                    if !began {
                        return Ok(None);
                    }
                    until = Some(Instant::now() + LAST_RESULTS);
                    continue;
                }
                () = raised(&mut lost) => return Err(batch::Error::Place(LOST.into())),
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    return Ok(None);
                }
            };
            if arrival.record.digest() != job.digest {
                acknowledge(&arrival.message).await; // of an older version of the task
                continue;
            }
            match arrival.record {
                Record::Started(started) => {
                    began = true;
                    (context.report)(Event::Started { id: &started.id, attempt: started.attempt });
                    context.sink.started(started).await?;
                    acknowledge(&arrival.message).await;
                }
                Record::Finished { finished, may_help, session } => {
                    if let Some(name) = &session
                        && let Err(why) = self.fetch(name, &finished).await
                    {
                        let message = format!("the session could not be fetched: {why}");
                        (context.report)(Event::Note { id: &finished.id, message });
                    }
                    let result =
                        Outcome { attempt: finished.attempt, infrastructure: finished.infrastructure };
                    context.sink.finished(*finished, may_help).await?;
                    acknowledge(&arrival.message).await;
                    if let Some(name) = &session {
                        self.queue.remove(name).await;
                    }
                    return Ok(Some(result));
                }
            }
        }
    }

    /// Sends a task. Repeats a request that fails until it succeeds or the batch stops. The error
    /// says why the task cannot be sent at all.
    async fn publish(&self, job: &Job<'_>, context: &Context<'_>, ready: &Ready) -> Result<(), String> {
        let (mut stopped, mut noted) = (context.stopped.clone(), false);
        loop {
            match self.send(job, ready).await {
                Ok(()) => return Ok(()),
                Err(Failed::Final(why)) => return Err(why),
                Err(Failed::Again(why)) => {
                    if !std::mem::replace(&mut noted, true) {
                        let message = format!("cannot send the task, retrying: {why}");
                        (context.report)(Event::Note { id: &job.task.id, message });
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = raised(&mut stopped) => return Ok(()), // the caller notices the stop
            }
        }
    }

    async fn send(&self, job: &Job<'_>, ready: &Ready) -> Result<(), Failed> {
        let Ready { batch, nonce, .. } = ready;
        let mut task = job.task.clone();
        (self.defaults)(&mut task);
        let bundle = self.bundle(&task, batch).await?;
        let (object, commit) = bundle.map_or((None, None), |bundle| (Some(bundle.object), bundle.commit));
        task.base_commit = task.base_commit.or(commit);
        let key = format!("{batch}/{nonce:x}/{}/{}", task.id, job.attempt);
        let subject = task_subject(batch, &task.id);
        let order = Order {
            v: VERSION,
            batch: batch.clone(),
            digest: job.digest.to_owned(),
            attempt: job.attempt,
            bundle: object,
            task,
        };
        let payload = serde_json::to_vec(&order).map_err(|e| Failed::Final(e.to_string()))?;
        let largest = self.queue.context.client().max_payload();
        if payload.len() > largest {
            let size = payload.len();
            return Err(Failed::Final(format!("the task has {size} bytes, and the queue accepts {largest}")));
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", key.as_str());
        let sent = self.queue.context.publish_with_headers(subject, headers, payload.into());
        let again = |e: async_nats::jetstream::context::PublishError| Failed::Again(e.to_string());
        sent.await.map_err(again)?.await.map_err(again).map(drop)
    }

    /// Sends the bundle of the task's repository unless the queue has it. `None` if the task names
    /// a URL.
    async fn bundle(&self, task: &Task, batch: &str) -> Result<Option<Bundle>, Failed> {
        let mut bundles = self.bundles.lock().await;
        let key = (task.repo.clone(), task.base_commit.clone());
        if let Some(known) = bundles.get(&key) {
            return Ok(known.clone());
        }
        let packed = batch::pack(task, &self.folder.join("bundles")).await.map_err(Failed::Final)?;
        let bundle = match packed {
            Packed::Url => None,
            Packed::Bundle(file, commit) => {
                let read = fs::read(&file);
                let contents = read.map_err(|e| Failed::Final(format!("{}: {e}", file.display())))?;
                let digest = Sha256::digest(&contents);
                let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                let object = format!("bundles/{batch}/{digest}.bundle");
                if !self.queue.has(&object).await {
                    let put = self.queue.put(&object, &contents).await;
                    put.map_err(|e| Failed::Again(e.to_string()))?;
                }
                Some(Bundle { object, commit })
            }
        };
        bundles.insert(key, bundle.clone());
        Ok(bundle)
    }

    /// Marks the batch as canceled, so that workers interrupt its tasks, and removes the tasks that
    /// no worker has taken.
    async fn cancel(&self, batch: &str) {
        let _ = self.queue.put(&canceled_object(batch), b"").await;
        let _ = self.queue.tasks.purge().filter(task_subject(batch, ">")).await;
    }

    async fn fetch(&self, name: &str, finished: &Finished) -> Result<(), String> {
        let Some(id) = &finished.session else { return Ok(()) };
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("{id:?} is not the id of a session"));
        }
        let archive = self.queue.get(name).await.map_err(|e| e.to_string())?;
        archive::unpack(&archive, &self.sessions.folder(id)).map_err(|e| e.to_string())
    }
}

impl Place for Publisher<'_> {
    fn prepare<'a>(&'a self, _batch: &'a Context<'a>) -> LocalBoxFuture<'a, Result<(), batch::Error>> {
        async {
            let ready = self.connect().await.map_err(|e| batch::Error::Place(e.to_string()))?;
            let _ = self.ready.set(ready);
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

/// What the publisher remembers of a result.
struct Outcome {
    attempt: u32,
    infrastructure: bool,
}

/// A bundle in the queue.
#[derive(Clone)]
struct Bundle {
    /// The name of its object.
    object: String,
    /// The commit to start from, if the task names none.
    commit: Option<String>,
}

/// Why a task was not sent.
enum Failed {
    /// The request may succeed later.
    Again(String),
    Final(String),
}

/// A result for a task that cannot be sent.
fn refused(job: &Job<'_>, why: String) -> Finished {
    let Report { ending, message, diff, totals, models, .. } = Report::new(Ending::Refused, why);
    Finished {
        v: VERSION,
        id: job.task.id.clone(),
        attempt: job.attempt,
        digest: job.digest.to_owned(),
        time_ms: 0,
        infrastructure: true,
        ending,
        message,
        diff,
        totals,
        models,
        seconds: 0.0,
        session: None,
    }
}

/// The name of the batch on the server. It is made once and then kept in the folder.
fn name(folder: &std::path::Path) -> Result<String, Error> {
    let path = folder.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|e| Error::Connect(format!("{}: {e}", path.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = format!("{:016x}", fastrand::u64(..));
            batch::replace(&path, &format!("{name:?}\n"))?;
            Ok(name)
        }
        Err(e) => Err(io_error("cannot read", &path)(e).into()),
    }
}

/// Receives records until it is aborted. Sets `lost` if the server no longer knows the consumer.
async fn receive(
    queue: Queue,
    consumer: PullConsumer,
    shared: Arc<Mutex<Shared>>,
    lost: watch::Sender<bool>,
) {
    loop {
        if let Ok(mut messages) = consumer.messages().await {
            while let Some(Ok(message)) = messages.next().await {
                receive_one(&queue, message, &shared).await;
            }
        }
        // The client reconnects by itself and reports that.
        tokio::time::sleep(PAUSE).await;
        let name = consumer.cached_info().name.clone();
        if let Err(e) = queue.results.consumer_info(name).await
            && matches!(e.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound)
        {
            lost.send_replace(true);
        }
    }
}

/// Receives up to [`RECORDS`] records that the server already has. Returns how many there were.
async fn receive_some(
    queue: &Queue,
    consumer: &PullConsumer,
    shared: &Mutex<Shared>,
) -> Result<usize, Error> {
    let failed = "receive results";
    let messages = consumer.fetch().max_messages(RECORDS).messages().await;
    let mut messages = messages.map_err(server(failed))?;
    let mut count = 0;
    while let Some(message) = messages.next().await {
        receive_one(queue, message.map_err(server(failed))?, shared).await;
        count += 1;
    }
    Ok(count)
}

async fn receive_one(queue: &Queue, message: Message, shared: &Mutex<Shared>) {
    let record = match serde_json::from_slice(&message.payload) {
        Ok(Envelope { body: Body::Record(record), .. }) => Some(record),
        Ok(Envelope { body: Body::Object(name), .. }) => {
            let envelope = queue.get(&name).await.ok();
            envelope.and_then(|contents| serde_json::from_slice(&contents).ok()).and_then(|envelope| {
                match envelope {
                    Envelope { body: Body::Record(record), .. } => Some(record),
                    Envelope { .. } => None,
                }
            })
        }
        Err(_) => None,
    };
    // A record that cannot be read stays in the queue, for a version of agent that can read it.
    let Some(record) = record else { return };
    let unneeded = locked(shared).dispatch(Arrival { record, message });
    if let Some(arrival) = unneeded {
        acknowledge(&arrival.message).await;
    }
}

async fn acknowledge(message: &Message) {
    // If this fails, the server sends the record again, and `Shared::dispatch` recognizes it.
    let _ = message.ack().await;
}

/// Waits until the value is true; forever if the sender is gone.
async fn raised(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending().await
    }
}
