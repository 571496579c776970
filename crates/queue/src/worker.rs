//! A worker, which takes tasks from the queue, runs the attempts and delivers their records.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{AckKind, Message};
use batch::{Context, Event, Finished, Job, Place, Sink, Source, Started, drive};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use journal::{Ending, LockFile, Store, io_error};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use crate::archive;
use crate::connect::{HEADERS, PAUSE, Queue};
use crate::error::{Error, server};
use crate::message::{Body, Envelope, Order, Record, VERSION, dead_subject, results_subject, task_of};
use crate::outbox::{Letter, Outbox};
use crate::take::{Taken, hand_back, take};

/// If a task is delivered again after this many deliveries without a result, the worker assumes
/// that the task kills its workers.
const DELIVERIES: u32 = 5;
/// How long a stopping worker tries to deliver its remaining records. Undelivered records stay on
/// disk.
const LAST_DELIVERY: Duration = Duration::from_secs(10);
/// How many times to retry downloading a bundle.
const DOWNLOADS: u32 = 3;

/// The options of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// This worker's folder; created if it does not exist.
    pub folder: PathBuf,
    /// How many tasks the worker runs at a time; at least 1.
    pub jobs: usize,
    /// How long the queue waits for a heartbeat before it gives a task to another worker. The first
    /// worker of a queue sets the lease for all workers of that queue.
    pub lease: Duration,
}

/// Takes and runs tasks until `stop` becomes true. Running attempts are then interrupted, and their
/// tasks go to other workers.
///
/// # Errors
/// If the folder is in use or cannot be written to, or if the queue refuses requests.
pub async fn work(
    queue: &Queue,
    options: &WorkerOptions,
    sessions: &Store,
    place: &dyn Place,
    stop: watch::Receiver<bool>,
    report: &dyn Fn(Event<'_>),
) -> Result<(), Error> {
    let folder = &options.folder;
    fs::create_dir_all(folder).map_err(io_error("cannot create", folder))?;
    let holder = format!("process {}", std::process::id());
    let _lock = LockFile::acquire(&folder.join("lock"), &holder)?
        .map_err(|holder| Error::Locked { folder: folder.display().to_string(), holder })?;
    let trees = folder.join("work");
    // A worker that was killed may have left this folder behind. It is safe to remove because all
    // repositories in it are clones.
    match batch::remove_folder(&trees) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("cannot remove", &trees)(e).into());
        }
        _ => {}
    }
    let (consumer, lease) = queue.retrying(|| queue.workers(options.lease)).await?;
    if lease != options.lease {
        let message =
            format!("the queue has a lease of {} s, which was set by an earlier worker", lease.as_secs());
        report(Event::Note { id: "", message });
    }
    let jobs = options.jobs.max(1);
    let (sender, taken) = mpsc::channel(jobs);
    let taking = tokio::spawn(take(queue.clone(), lease, consumer, Arc::new(Semaphore::new(jobs)), sender));
    let worker = Worker {
        queue,
        folder,
        lease,
        sessions,
        place,
        report,
        outbox: Outbox::open(folder.join("outbox"))?,
        taken: Mutex::new(taken),
        stop,
        broken: watch::Sender::new(false),
        failures: Cell::new(0),
        undelivered: RefCell::default(),
    };
    let delivering = worker.deliver();
    tokio::pin!(delivering);
    let done = tokio::select! {
        done = drive(&worker, async |taken| worker.attempt(taken).await) => done.map_err(Error::from),
        failed = &mut delivering => Err(failed),
    };
    let mut taken = worker.taken.lock().await;
    taken.close();
    while let Ok(left) = taken.try_recv() {
        hand_back(queue, &left.message, left.message.payload.clone()).await;
    }
    let delivered = async {
        tokio::select! {
            () = worker.outbox.emptied() => Ok(()),
            failed = &mut delivering => Err(failed),
        }
    };
    let delivered = tokio::time::timeout(LAST_DELIVERY, delivered).await;
    taking.abort();
    done.and(delivered.unwrap_or(Ok(())))
}

struct Worker<'a> {
    queue: &'a Queue,
    folder: &'a Path,
    lease: Duration,
    sessions: &'a Store,
    place: &'a dyn Place,
    report: &'a dyn Fn(Event<'_>),
    outbox: Outbox,
    taken: Mutex<mpsc::Receiver<Taken>>,
    stop: watch::Receiver<bool>,
    /// Whether writing a record failed. If so, the worker stops.
    broken: watch::Sender<bool>,
    /// How many attempts in a row failed because of the model, its server or this machine.
    failures: Cell<u32>,
    /// Results that the queue may not have yet. Maps the position of a task in the stream to the
    /// number of its result in the outbox.
    undelivered: RefCell<HashMap<u64, u64>>,
}

impl Source for Worker<'_> {
    type Job = Taken;

    fn next(&self, _running: usize) -> LocalBoxFuture<'_, Option<Taken>> {
        async {
            let (mut taken, mut stop) = (self.taken.lock().await, self.stop.clone());
            let mut broken = self.broken.subscribe();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => None,
                _ = broken.wait_for(|broken| *broken) => None,
                taken = taken.recv() => taken,
            }
        }
        .boxed_local()
    }

    fn stop(&self) {
        self.broken.send_replace(true);
    }
}

impl Worker<'_> {
    /// Makes one attempt and waits until the queue has its records.
    async fn attempt(&self, taken: Taken) -> Result<(), batch::Error> {
        let message = &taken.message;
        let Ok(info) = message.info() else { return Ok(()) };
        let (sequence, deliveries) =
            (info.stream_sequence, u32::try_from(info.delivered).unwrap_or(u32::MAX));
        let order = serde_json::from_slice::<Order>(&message.payload).ok().filter(|order| order.v == VERSION);
        let Some(order) = order else {
            let id = task_of(&message.subject).map(|(id, _)| id).unwrap_or_default();
            let note = "cannot read this task, which was sent by a different version of the agent; another worker may be able to read it";
            (self.report)(Event::Note { id: &id, message: note.into() });
            self.pause(self.lease / 2).await;
            hand_back(self.queue, message, message.payload.clone()).await;
            return Ok(());
        };
        if let Err(why) = order.check() {
            let note = format!("the queue has a task that is not from `agent batch`: {why}");
            (self.report)(Event::Note { id: "", message: note });
            let _ =
                self.queue.context.publish(dead_subject("unknown", "unknown"), message.payload.clone()).await;
            let _ = message.ack_with(AckKind::Term).await;
            return Ok(());
        }
        let attempt = order.attempt.saturating_add(deliveries).saturating_sub(1);
        let reports =
            Reports { worker: self, order: &order, message, sequence, deliveries, last: Cell::new(None) };
        if deliveries > DELIVERIES {
            return self.bury(&order, attempt, &reports).await;
        }
        let interrupt = watch::Sender::new(false);
        // After a long outage, the queue may hand out a task whose result is still in the outbox.
        let here = self.undelivered.borrow().get(&sequence).copied();
        let mut stop = self.stop.clone();
        let work = async {
            if here.is_none() {
                self.make(&order, attempt, &reports, interrupt.subscribe()).await?;
            }
            if let Some(number) = here.or(reports.last.get()) {
                tokio::select! {
                    () = self.outbox.delivered(number) => drop(self.undelivered.borrow_mut().remove(&sequence)),
                    _ = stop.wait_for(|stop| *stop) => {} // the result will be delivered later
                }
            }
            Ok::<_, batch::Error>(())
        };
        tokio::select! {
            worked = work => worked?,
            () = self.keep(&order.batch, message, sequence, &interrupt) => {}
        }
        if here.or(reports.last.get()).is_none() {
            self.leave(order, attempt, message, sequence).await;
        }
        self.rest().await;
        Ok(())
    }

    /// Gives a task without a result back to the queue, unless its batch was canceled.
    async fn leave(&self, order: Order, attempt: u32, message: &Message, sequence: u64) {
        if self.queue.is_canceled(&order.batch, sequence).await {
            let _ = message.ack().await;
            return;
        }
        let order = Order { attempt: attempt.saturating_add(1), ..order };
        // Encoding strings and numbers cannot fail.
        let payload = serde_json::to_vec(&order).unwrap_or_default();
        hand_back(self.queue, message, payload.into()).await;
    }

    async fn make(
        &self,
        order: &Order,
        attempt: u32,
        reports: &Reports<'_>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), batch::Error> {
        let folder = self.folder.join("work").join(&order.batch);
        let trees = folder.join("worktrees");
        fs::create_dir_all(&trees).map_err(io_error("cannot create", &trees))?;
        let context = Context { folder: &folder, sink: reports, stopped, report: self.report };
        let mut task = order.task.clone();
        if let Some(name) = &order.bundle {
            let bundle = tokio::select! {
                bundle = self.bundle(&order.batch, name, &folder) => bundle,
                () = context.interrupted() => return Ok(()),
            };
            match bundle {
                Ok(bundle) => task.repo = bundle,
                Err(e) => return reports.failed(attempt, &e.to_string(), true).await,
            }
        }
        let job = Job { task: &task, digest: &order.digest, attempt };
        self.place.attempt(job, &context).await
    }

    /// Returns the path of a bundle, downloading it from the queue first if necessary.
    async fn bundle(&self, batch: &str, name: &str, folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join(name);
        let mut tries = 0;
        while !path.exists() {
            let contents = match self.queue.get(batch, name).await {
                Ok(contents) => contents,
                Err(e) if tries == DOWNLOADS => return Err(e),
                Err(_) => {
                    tries += 1;
                    self.pause(PAUSE).await;
                    continue;
                }
            };
            let file = tempfile::NamedTempFile::new_in(folder).map_err(io_error("cannot write", folder))?;
            fs::write(file.path(), contents).map_err(io_error("cannot write", &path))?;
            file.persist(&path).map_err(|e| io_error("cannot write", &path)(e.error))?;
        }
        Ok(path)
    }

    /// Sends heartbeats to the queue, and interrupts the attempt when the worker stops or the batch
    /// is canceled.
    async fn keep(&self, batch: &str, message: &Message, sequence: u64, interrupt: &watch::Sender<bool>) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !*interrupt.borrow() => drop(interrupt.send_replace(true)),
                () = tokio::time::sleep(self.lease / 3) => {}
            }
            // If this fails, the connection is down, which the client reports.
            let _ = message.ack_with(AckKind::Progress).await;
            if !*interrupt.borrow() && self.queue.is_canceled(batch, sequence).await {
                interrupt.send_replace(true);
            }
        }
    }

    /// Takes a task out of the queue after several workers took it without returning a result, and
    /// keeps a copy for someone to inspect.
    async fn bury(&self, order: &Order, attempt: u32, reports: &Reports<'_>) -> Result<(), batch::Error> {
        let subject = dead_subject(&order.batch, &order.task.id);
        let payload = reports.message.payload.clone();
        let buried = async { self.queue.context.publish(subject, payload).await?.await };
        if buried.await.is_err() {
            return Ok(()); // the next worker will try again
        }
        let why = format!(
            "{DELIVERIES} workers took the task, but none returned a result; it may be crashing them"
        );
        reports.failed(attempt, &why, false).await
    }

    /// Waits after a failure of the model, its server or this machine, so that a broken worker does
    /// not burn through task after task.
    async fn rest(&self) {
        if let Some(retries) = self.failures.get().checked_sub(1) {
            self.pause(batch::backoff(retries)).await;
        }
    }

    /// Waits for this long, or until the worker is stopped, whichever comes first.
    async fn pause(&self, wait: Duration) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Delivers the records in the outbox until a file cannot be read or removed, and returns that
    /// error.
    async fn deliver(&self) -> Error {
        loop {
            let (number, letter) = match self.outbox.oldest().await {
                Ok(oldest) => oldest,
                Err(e) => return e.into(),
            };
            let mut retries = 0;
            while let Err(e) = self.send(&letter).await {
                let message = format!("cannot deliver the record, retrying: {e}");
                (self.report)(Event::Note { id: letter.record.id(), message });
                tokio::time::sleep(batch::backoff(retries)).await;
                retries = retries.saturating_add(1);
            }
            if let Err(e) = self.outbox.remove(number) {
                return e.into();
            }
        }
    }

    async fn send(&self, letter: &Letter) -> Result<(), Error> {
        let Letter { batch, record, key, acknowledge } = letter;
        let client = self.queue.context.client();
        let mut record = record.clone();
        if !self.queue.has_objects(batch).await? {
            // The batch is done, or the server has lost its data. In the second case, the publisher
            // sends the task again.
            if let Some(subject) = acknowledge {
                let acknowledged = client.publish(subject.clone(), "+ACK".into()).await;
                acknowledged.map_err(server("acknowledge a task"))?;
            }
            return Ok(());
        }
        if let Record::Finished { finished, session, .. } = &mut record
            && let (Some(name), Some(id)) = (&*session, &finished.session)
        {
            match archive::pack(&self.sessions.folder(id)) {
                Ok(archive) => self.queue.put(batch, name, &archive).await?,
                Err(_) => *session = None, // the user has removed the session
            }
        }
        let encode = |body| {
            // Encoding strings and numbers cannot fail.
            Bytes::from(serde_json::to_vec(&Envelope { v: VERSION, body }).unwrap_or_default())
        };
        let mut payload = encode(Body::Record(record));
        if payload.len() + HEADERS > client.max_payload() {
            let name = format!("record/{key}");
            self.queue.put(batch, &name, &payload).await?;
            payload = encode(Body::Object(name));
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", key.as_str());
        let failed = "send a record";
        let sent = self.queue.context.publish_with_headers(results_subject(batch), headers, payload).await;
        sent.map_err(server(failed))?.await.map_err(server(failed))?;
        if let Some(subject) = acknowledge {
            client.publish(subject.clone(), "+ACK".into()).await.map_err(server(failed))?;
            client.flush().await.map_err(server(failed))?;
        }
        Ok(())
    }
}

/// The records of one attempt, on their way into the outbox.
struct Reports<'a> {
    worker: &'a Worker<'a>,
    order: &'a Order,
    message: &'a Message,
    /// The position of the task in its stream. Together with the number of deliveries, it
    /// identifies the attempt.
    sequence: u64,
    deliveries: u32,
    /// The number of the result in the outbox, if there is a result.
    last: Cell<Option<u64>>,
}

impl Sink for Reports<'_> {
    fn started(&self, started: Started) -> LocalBoxFuture<'_, Result<(), batch::Error>> {
        // Paths on this machine are meaningless on other machines.
        let started = Started { worktree: None, git_dir: None, ..started };
        async { self.add(Record::Started(started), None).await.map(drop) }.boxed_local()
    }

    fn finished(&self, finished: Finished, may_help: bool) -> LocalBoxFuture<'_, Result<(), batch::Error>> {
        self.finish(finished, may_help).boxed_local()
    }
}

impl Reports<'_> {
    async fn finish(&self, finished: Finished, may_help: bool) -> Result<(), batch::Error> {
        let Worker { stop, failures, report, undelivered, .. } = self.worker;
        if finished.ending == Ending::Interrupted && *stop.borrow() {
            return Ok(()); // another worker will start over
        }
        let broken = finished.infrastructure && finished.ending != Ending::Interrupted;
        failures.set(if broken { failures.get().saturating_add(1) } else { 0 });
        report(Event::Finished { result: &finished, again: false });
        let session = finished.session.as_ref().map(|id| format!("session/{id}"));
        let record = Record::Finished { finished: Box::new(finished), may_help, session };
        let number = self.add(record, self.message.reply.as_ref().map(ToString::to_string)).await?;
        undelivered.borrow_mut().insert(self.sequence, number);
        self.last.set(Some(number));
        Ok(())
    }

    async fn failed(&self, attempt: u32, why: &str, may_help: bool) -> Result<(), batch::Error> {
        let Order { task, digest, .. } = self.order;
        self.finish(Finished::refused(&task.id, digest, attempt, why), may_help).await
    }

    /// Puts a record into the outbox. If the disk is full, keeps trying until the worker is stopped.
    async fn add(&self, record: Record, acknowledge: Option<String>) -> Result<u64, batch::Error> {
        let Self { order, sequence, deliveries, .. } = self;
        let key = format!("{}/{sequence}/{deliveries}/{}", order.batch, record.key());
        let letter = Letter { batch: order.batch.clone(), record, key, acknowledge };
        let mut retries = 0;
        loop {
            match self.worker.outbox.add(&letter) {
                Err(e) if e.is_temporary() && !*self.worker.stop.borrow() => {
                    if retries == 0 {
                        let message = format!("cannot keep the record, retrying: {e}");
                        (self.worker.report)(Event::Note { id: letter.record.id(), message });
                    }
                    self.worker.pause(batch::backoff(retries)).await;
                    retries = retries.saturating_add(1);
                }
                added => return Ok(added?),
            }
        }
    }
}
