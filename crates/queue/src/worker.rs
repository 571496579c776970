//! A worker: takes tasks from the queue, makes the attempts, and delivers their records.

use std::cell::Cell;
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
use journal::{Ending, LockFile, Report, Store, io_error};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};

use crate::archive;
use crate::connect::Queue;
use crate::error::{Error, server};
use crate::message::{Body, Envelope, Order, Record, VERSION, dead_subject, results_subject, task_of};
use crate::outbox::{Letter, Outbox};
use crate::take::{Taken, hand_back, take};

/// After this many deliveries without a result, the task itself probably kills its workers.
const DELIVERIES: u32 = 5;
/// The wait after the model or its server fails. Each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest such wait, and the longest wait between two attempts to deliver a record.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long a worker that stops tries to deliver its last records. Undelivered records stay
/// on disk.
const LAST_DELIVERY: Duration = Duration::from_secs(10);
/// Room in a message for its headers, in bytes.
const HEADERS: usize = 1024;

/// The options of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// The folder of this worker; created if it does not exist.
    pub folder: PathBuf,
    /// How many tasks it works on at a time; at least 1.
    pub jobs: usize,
    /// How long the queue waits for a sign of life before it gives a task to another worker.
    pub lease: Duration,
}

/// Works until `stop` becomes true. Running attempts are then interrupted, and their tasks go to
/// other workers.
///
/// # Errors
/// When the folder is in use or cannot be written, or when the queue refuses requests.
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
    // A worker that was killed may have left this folder. All repositories in it are clones.
    match fs::remove_dir_all(&trees) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("cannot remove", &trees)(e).into());
        }
        _ => {}
    }
    let consumer = queue.workers(options.lease).await?;
    let jobs = options.jobs.max(1);
    let (sender, taken) = mpsc::channel(jobs);
    let taking =
        tokio::spawn(take(queue.clone(), options.lease, consumer, Arc::new(Semaphore::new(jobs)), sender));
    let worker = Worker {
        queue,
        options,
        sessions,
        place,
        report,
        outbox: Outbox::open(folder.join("outbox"))?,
        taken: Mutex::new(taken),
        stop,
        broken: watch::Sender::new(false),
        failures: Cell::new(0),
    };
    let done = tokio::select! {
        done = drive(&worker, async |taken| worker.attempt(taken).await) => done.map_err(Error::from),
        failed = worker.deliver() => Err(failed),
    };
    let mut taken = worker.taken.lock().await;
    taken.close();
    while let Ok(left) = taken.try_recv() {
        hand_back(&left.message).await;
    }
    let delivered = async {
        while !worker.outbox.is_empty() {
            tokio::select! {
                biased;
                failed = worker.deliver() => return Err(failed),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        Ok(())
    };
    let delivered = tokio::time::timeout(LAST_DELIVERY, delivered).await;
    taking.abort();
    done.and(delivered.unwrap_or(Ok(())))
}

struct Worker<'a> {
    queue: &'a Queue,
    options: &'a WorkerOptions,
    sessions: &'a Store,
    place: &'a dyn Place,
    report: &'a dyn Fn(Event<'_>),
    outbox: Outbox,
    taken: Mutex<mpsc::Receiver<Taken>>,
    stop: watch::Receiver<bool>,
    /// Whether a record could not be written. The worker then stops.
    broken: watch::Sender<bool>,
    /// The number of attempts in a row whose model or server failed.
    failures: Cell<u32>,
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
    /// Makes one attempt and puts its records into the outbox.
    async fn attempt(&self, taken: Taken) -> Result<(), batch::Error> {
        let message = &taken.message;
        let deliveries = message.info().map_or(1, |info| u32::try_from(info.delivered).unwrap_or(u32::MAX));
        let Ok(order) = serde_json::from_slice::<Order>(&message.payload) else {
            let id = task_of(&message.subject).unwrap_or_default();
            let note = "cannot read this task of another version of agent; another worker may be able to";
            (self.report)(Event::Note { id: &id, message: note.into() });
            let _ = message.ack_with(AckKind::Nak(Some(LONGEST_WAIT))).await;
            return Ok(());
        };
        let attempt = order.attempt.saturating_add(deliveries).saturating_sub(1);
        let reports = Reports { worker: self, order: &order, message, recorded: Cell::new(false) };
        if deliveries > DELIVERIES {
            return self.bury(&order, attempt, &reports).await;
        }
        let interrupt = watch::Sender::new(false);
        tokio::select! {
            made = self.make(&order, attempt, &reports, interrupt.subscribe()) => made?,
            () = self.keep(&order.batch, message, &interrupt) => {}
        }
        if !reports.recorded.get() {
            hand_back(message).await;
        }
        self.rest().await;
        Ok(())
    }

    async fn make(
        &self,
        order: &Order,
        attempt: u32,
        reports: &Reports<'_>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), batch::Error> {
        let work = self.options.folder.join("work");
        let folder = work.join(&order.batch);
        let trees = folder.join("worktrees");
        fs::create_dir_all(&trees).map_err(io_error("cannot create", &trees))?;
        let mut task = order.task.clone();
        if let Some(name) = &order.bundle {
            match self.bundle(name, &work).await {
                Ok(bundle) => task.repo = bundle,
                Err(e) => return reports.failed(attempt, &e.to_string(), true).await,
            }
        }
        let context = Context { folder: &folder, sink: reports, stopped, report: self.report };
        let job = Job { task: &task, digest: &order.digest, attempt };
        self.place.attempt(job, &context).await
    }

    /// The file with a bundle, from the queue if it is not there yet.
    async fn bundle(&self, name: &str, work: &Path) -> Result<PathBuf, Error> {
        let path = work.join(name.replace('/', "-"));
        if !path.exists() {
            let contents = self.queue.get(name).await?;
            let file = tempfile::NamedTempFile::new_in(work).map_err(io_error("cannot write", work))?;
            fs::write(file.path(), contents).map_err(io_error("cannot write", &path))?;
            file.persist(&path).map_err(|e| io_error("cannot write", &path)(e.error))?;
        }
        Ok(path)
    }

    /// Tells the queue that this worker is alive, and interrupts the attempt when the worker stops
    /// or the batch is canceled.
    async fn keep(&self, batch: &str, message: &Message, interrupt: &watch::Sender<bool>) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !*interrupt.borrow() => drop(interrupt.send_replace(true)),
                () = tokio::time::sleep(self.options.lease / 3) => {}
            }
            // If this fails, the connection is down, and the client reports that.
            let _ = message.ack_with(AckKind::Progress).await;
            if !*interrupt.borrow() && self.queue.is_canceled(batch).await {
                interrupt.send_replace(true);
            }
        }
    }

    /// Removes from the queue a task that several workers took without returning a result, and
    /// keeps a copy for people to examine.
    async fn bury(&self, order: &Order, attempt: u32, reports: &Reports<'_>) -> Result<(), batch::Error> {
        let subject = dead_subject(&order.batch, &order.task.id);
        let payload = reports.message.payload.clone();
        let buried = async { self.queue.context.publish(subject, payload).await?.await };
        if buried.await.is_err() {
            hand_back(reports.message).await;
            return Ok(());
        }
        let why =
            format!("{DELIVERIES} workers took the task, and none returned a result; it may crash them");
        reports.failed(attempt, &why, false).await
    }

    /// Waits after a failure of the model or its server, so that a worker whose model is down
    /// does not take task after task.
    async fn rest(&self) {
        let Some(doublings) = self.failures.get().checked_sub(1) else { return };
        let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait.min(LONGEST_WAIT)) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Delivers the records in the outbox until a file cannot be read or removed. Returns that
    /// error.
    async fn deliver(&self) -> Error {
        loop {
            let (number, letter) = match self.outbox.oldest().await {
                Ok(oldest) => oldest,
                Err(e) => return e.into(),
            };
            let mut wait = FIRST_WAIT;
            while let Err(e) = self.send(&letter).await {
                let message = format!("cannot deliver the record, retrying: {e}");
                (self.report)(Event::Note { id: letter.record.id(), message });
                tokio::time::sleep(wait).await;
                wait = LONGEST_WAIT.min(wait * 2);
            }
            if let Err(e) = self.outbox.remove(number) {
                return e.into();
            }
        }
    }

    async fn send(&self, letter: &Letter) -> Result<(), Error> {
        let Letter { batch, record, acknowledge } = letter;
        let mut record = record.clone();
        if let Record::Finished { finished, session, .. } = &mut record
            && let (Some(name), Some(id)) = (&*session, &finished.session)
        {
            match archive::pack(&self.sessions.folder(id)) {
                Ok(archive) => self.queue.put(name, &archive).await?,
                Err(_) => *session = None, // the user has removed the session
            }
        }
        let key = format!("{batch}/{}", record.key());
        let encode = |body| {
            // Encoding strings and numbers cannot fail.
            Bytes::from(serde_json::to_vec(&Envelope { v: VERSION, body }).unwrap_or_default())
        };
        let client = self.queue.context.client();
        let mut payload = encode(Body::Record(record));
        if payload.len() + HEADERS > client.max_payload() {
            let name = format!("records/{key}");
            self.queue.put(&name, &payload).await?;
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
    /// Whether the task has a result.
    recorded: Cell<bool>,
}

impl Sink for Reports<'_> {
    fn started(&self, started: Started) -> LocalBoxFuture<'_, Result<(), batch::Error>> {
        // Paths of this machine mean nothing to others.
        let started = Started { worktree: None, git_dir: None, ..started };
        std::future::ready(self.add(Record::Started(started), None)).boxed_local()
    }

    fn finished(&self, finished: Finished, may_help: bool) -> LocalBoxFuture<'_, Result<(), batch::Error>> {
        std::future::ready(self.finish(finished, may_help)).boxed_local()
    }
}

impl Reports<'_> {
    fn finish(&self, finished: Finished, may_help: bool) -> Result<(), batch::Error> {
        let Worker { stop, failures, report, .. } = self.worker;
        if finished.ending == Ending::Interrupted && *stop.borrow() {
            return Ok(()); // another worker starts over
        }
        let down = finished.ending == Ending::Unavailable;
        failures.set(if down { failures.get().saturating_add(1) } else { 0 });
        report(Event::Finished { result: &finished, again: false });
        let session = finished.session.as_ref().map(|id| format!("sessions/{}/{id}", self.order.batch));
        let record = Record::Finished { finished: Box::new(finished), may_help, session };
        self.add(record, self.message.reply.as_ref().map(ToString::to_string))?;
        self.recorded.set(true);
        Ok(())
    }

    async fn failed(&self, attempt: u32, why: &str, may_help: bool) -> Result<(), batch::Error> {
        let Report { ending, message, diff, totals, models, .. } = Report::new(Ending::Refused, why);
        let finished = Finished {
            v: 1,
            id: self.order.task.id.clone(),
            attempt,
            digest: self.order.digest.clone(),
            time_ms: 0,
            infrastructure: true,
            ending,
            message,
            diff,
            totals,
            models,
            seconds: 0.0,
            session: None,
        };
        self.finish(finished, may_help)
    }

    fn add(&self, record: Record, acknowledge: Option<String>) -> Result<(), batch::Error> {
        let letter = Letter { batch: self.order.batch.clone(), record, acknowledge };
        Ok(self.worker.outbox.add(&letter)?)
    }
}
