//! The connection to the server and the streams on it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::object_store::{self, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::{Error, server};
use crate::message::{results_subject, task_subjects};

const WORKERS: &str = "workers";
const TASKS: &str = "AGENT_TASKS";
const RESULTS: &str = "AGENT_RESULTS";
const DEAD: &str = "AGENT_DEAD";
/// The object that marks a batch as canceled.
const CANCELED: &str = "canceled";
/// How many bytes of a message are reserved for its headers.
pub(crate) const HEADERS: usize = 1024;
/// The usual size of an object's chunks, in bytes.
const CHUNK: usize = 128 << 10;
/// How long the server keeps tasks, records and objects that no one collects.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the publisher may take to write a record to disk before the server sends it again.
const RECORDED_WITHIN: Duration = Duration::from_secs(600);
/// How long to wait before retrying a failed request.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// Maximum time for reading an object.
const READ_WITHIN: Duration = Duration::from_secs(300);
/// Maximum wait between two connection attempts.
const RECONNECT: Duration = Duration::from_secs(5);

/// The address of the queue, and the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// One or more URLs, separated by commas: `nats://HOST:PORT`, or `tls://HOST:PORT`.
    pub url: String,
    /// A file with credentials (JWT and seed), or with the seed of an nkey.
    pub credentials: Option<PathBuf>,
    /// A file with certificate authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// A connection to the queue that reconnects automatically.
#[derive(Clone)]
pub struct Queue {
    pub(crate) context: Context,
    link: Arc<Link>,
    pub(crate) tasks: Stream,
    pub(crate) results: Stream,
}

/// The state of the connection.
struct Link {
    /// Notified when the connection is established or re-established.
    connected: Notify,
    /// How long to keep retrying while connecting and setting up; `None` means forever.
    wait: Option<Duration>,
    /// Tells the user something.
    notice: Box<dyn Fn(&str) + Send + Sync>,
    /// The last failed request that the user was told about on this connection. It is not reported
    /// twice in a row.
    failed: Mutex<String>,
}

impl Queue {
    /// Connects and creates any missing streams. If the server cannot be reached or does not answer,
    /// retries for up to `wait`, or forever if `wait` is `None`. `notice` is called with a sentence
    /// when a retry becomes necessary, and whenever the connection is lost or re-established.
    ///
    /// # Errors
    /// If the server cannot be reached in time, rejects the credentials, or does not support
    /// JetStream.
    pub async fn connect(
        address: &Address,
        wait: Option<Duration>,
        notice: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let servers: Result<Vec<ServerAddr>, _> = address.url.split(',').map(str::parse).collect();
        let servers = servers.map_err(|e| Error::Connect(e.to_string()))?;
        let options = options(address, &servers).map_err(|e| Error::Connect(e.to_string()))?;
        let link = Arc::new(Link {
            connected: Notify::new(),
            wait,
            notice: Box::new(notice),
            failed: Mutex::default(),
        });
        let events = Arc::clone(&link);
        let options = options
            .name("agent")
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                let link = Arc::clone(&events);
                async move {
                    let notice = &link.notice;
                    match event {
                        Event::Disconnected => notice("lost the connection to the queue; reconnecting"),
                        Event::Connected => {
                            notice("connected to the queue");
                            link.failed.lock().unwrap_or_else(PoisonError::into_inner).clear();
                            link.connected.notify_waiters();
                        }
                        Event::ClientError(e) => notice(&format!("the connection to the queue failed: {e}")),
                        Event::ServerError(e) => notice(&format!("the queue reports an error: {e}")),
                        _ => {}
                    }
                }
            });
        let hosts: Vec<_> = servers.iter().map(|s| format!("{}:{}", s.host(), s.port())).collect();
        let first = link.connected.notified();
        let (begun, mut tries) = (Instant::now(), 0);
        let client = loop {
            let e = match options.clone().connect(&servers[..]).await {
                Ok(client) => break client,
                Err(e) => e,
            };
            let message = format!("{}: {e}", hosts.join(", "));
            if !is_temporary(&e) {
                return Err(Error::Connect(message));
            }
            let delay = reconnect_delay(tries);
            if wait.is_some_and(|wait| begun.elapsed() + delay > wait) {
                return Err(Error::Unreachable(message));
            }
            if tries == 0 {
                (link.notice)(&format!("{}; retrying", Error::Unreachable(message)));
            }
            tries += 1;
            tokio::time::sleep(delay).await;
        };
        first.await;
        let context = jetstream::new(client);
        let (tasks, results) = retrying(&context, &link, || open(&context)).await?;
        Ok(Self { context, link: Arc::clone(&link), tasks, results })
    }

    /// Makes a request. Retries it if the connection is lost in the meantime or the server does not
    /// answer in time.
    pub(crate) async fn retrying<T, F: Future<Output = Result<T, Error>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, Error> {
        retrying(&self.context, &self.link, request).await
    }

    /// Tells the user about a failed request that will be retried. Says nothing while the connection
    /// is down, because the user has already been told about that.
    pub(crate) fn note_failure(&self, error: &Error) {
        if self.context.client().connection_state() == State::Connected {
            self.link.note_failure(error);
        }
    }

    /// Creates any missing streams.
    pub(crate) async fn create_streams(&self) -> Result<(), Error> {
        open(&self.context).await.map(drop)
    }

    /// Returns the consumer that all workers share, along with its lease, which is how long the
    /// server waits for a heartbeat before it gives a task to another worker. The first worker of a
    /// queue sets the lease. Creates the consumer and the streams if they do not exist, because the
    /// server may have lost its data.
    pub(crate) async fn workers(&self, lease: Duration) -> Result<(PullConsumer, Duration), Error> {
        self.create_streams().await?;
        let config = pull::Config {
            durable_name: Some(WORKERS.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: lease,
            max_deliver: -1,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let consumer: Result<PullConsumer, _> = self.tasks.get_or_create_consumer(WORKERS, config).await;
        let consumer = consumer.map_err(server("listen for tasks"))?;
        let lease = consumer.cached_info().config.ack_wait;
        Ok((consumer, lease))
    }

    /// Creates a new consumer for a batch's records. Records that an earlier consumer received but
    /// did not acknowledge are delivered again.
    pub(crate) async fn records(&self, batch: &str) -> Result<PullConsumer, Error> {
        let name = records_consumer(batch);
        let _ = self.results.delete_consumer(&name).await; // it may not exist
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: results_subject(batch),
            ack_policy: AckPolicy::Explicit,
            ack_wait: RECORDED_WITHIN,
            max_ack_pending: -1,
            inactive_threshold: KEPT,
            ..pull::Config::default()
        };
        self.results.create_consumer(config).await.map_err(server("listen for results"))
    }

    /// Removes everything that the server keeps for a finished batch, except the tasks that were
    /// set aside for someone to inspect.
    pub(crate) async fn forget(&self, batch: &str) {
        let _ = self.tasks.purge().filter(task_subjects(batch)).await;
        let _ = self.results.delete_consumer(&records_consumer(batch)).await;
        let _ = self.results.purge().filter(results_subject(batch)).await;
        let _ = self.context.delete_object_store(bucket(batch)).await;
        let _ = self.context.client().flush().await;
    }

    /// Opens a batch's object store.
    async fn objects(&self, batch: &str) -> Result<ObjectStore, Error> {
        let objects = self.context.get_object_store(bucket(batch)).await;
        objects.map_err(server("open the objects of the batch in the queue"))
    }

    /// Creates a batch's object store if it does not exist.
    pub(crate) async fn create_objects(&self, batch: &str) -> Result<(), Error> {
        if self.objects(batch).await.is_ok() {
            return Ok(());
        }
        let config = object_store::Config { bucket: bucket(batch), max_age: KEPT, ..Default::default() };
        let created = self.context.create_object_store(config).await;
        created.map(drop).map_err(server("store objects in the queue (may this user create streams?)"))
    }

    /// Whether the server has an object store for a batch. The store is removed once the batch is
    /// done.
    pub(crate) async fn has_objects(&self, batch: &str) -> Result<bool, Error> {
        match self.context.get_stream(format!("OBJ_{}", bucket(batch))).await {
            Ok(_) => Ok(true),
            Err(e) => match e.kind() {
                GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(false)
                }
                _ => Err(server("open the objects of the batch in the queue")(e)),
            },
        }
    }

    /// Stores an object under a name, replacing any existing one.
    pub(crate) async fn put(&self, batch: &str, name: &str, contents: &[u8]) -> Result<(), Error> {
        let described = ObjectMetadata { name: name.into(), ..ObjectMetadata::default() };
        self.put_described(batch, described, contents).await
    }

    async fn put_described(
        &self,
        batch: &str,
        described: ObjectMetadata,
        contents: &[u8],
    ) -> Result<(), Error> {
        let largest = self.context.client().max_payload().saturating_sub(HEADERS).max(1);
        let described = ObjectMetadata { chunk_size: Some(largest.min(CHUNK)), ..described };
        let stored = self.objects(batch).await?.put(described, &mut &contents[..]).await;
        stored.map(drop).map_err(server("store an object in the queue"))
    }

    /// Reads an object.
    pub(crate) async fn get(&self, batch: &str, name: &str) -> Result<Vec<u8>, Error> {
        self.retrying(|| self.get_once(batch, name)).await
    }

    async fn get_once(&self, batch: &str, name: &str) -> Result<Vec<u8>, Error> {
        let failed = "read an object from the queue";
        let mut object = self.objects(batch).await?.get(name).await.map_err(server(failed))?;
        let mut contents = Vec::new();
        // The client waits forever for parts that the server has lost.
        match timeout(READ_WITHIN, object.read_to_end(&mut contents)).await {
            Ok(read) => read.map(|_| contents).map_err(server(failed)),
            Err(_) => Err(server(failed)("parts of it are missing")),
        }
    }

    /// Whether an object exists.
    pub(crate) async fn has(&self, batch: &str, name: &str) -> bool {
        let Ok(objects) = self.objects(batch).await else { return false };
        objects.info(name).await.is_ok_and(|info| !info.deleted)
    }

    /// Removes an object, if it exists.
    pub(crate) async fn remove(&self, batch: &str, name: &str) {
        if let Ok(objects) = self.objects(batch).await {
            let _ = objects.delete(name).await;
        }
    }

    /// Cancels a batch by removing the tasks that no worker has taken and marking the batch as
    /// canceled, which makes workers interrupt the tasks that they have already taken.
    pub(crate) async fn cancel(&self, batch: &str) {
        if let Ok(info) = self.tasks.get_info().await {
            let last = info.state.last_sequence.to_string();
            let mark =
                ObjectMetadata { name: CANCELED.into(), description: Some(last), ..Default::default() };
            let _ = self.put_described(batch, mark, b"").await;
        }
        let _ = self.tasks.purge().filter(task_subjects(batch)).await;
    }

    /// Whether a batch was canceled after the task at this position in the stream was sent.
    pub(crate) async fn is_canceled(&self, batch: &str, sequence: u64) -> bool {
        let Ok(objects) = self.objects(batch).await else { return false };
        let mark = objects.info(CANCELED).await.ok().and_then(|info| info.description);
        mark.and_then(|last| last.parse().ok()).is_some_and(|last: u64| sequence <= last)
    }
}

/// Returns the name of a batch's object store.
fn bucket(batch: &str) -> String {
    format!("AGENT_{batch}")
}

/// Opens the streams of tasks and results, creating any stream that does not exist.
async fn open(context: &Context) -> Result<(Stream, Stream), Error> {
    let stream = |name: &str, subjects: &str, retention| Config {
        name: name.into(),
        subjects: vec![subjects.into()],
        retention,
        max_age: KEPT,
        ..Config::default()
    };
    let created = server("create the streams of the queue (is JetStream enabled on the server?)");
    let create = async {
        let work = RetentionPolicy::WorkQueue;
        let tasks = context.get_or_create_stream(stream(TASKS, "agent.tasks.>", work)).await?;
        let results = context.get_or_create_stream(stream(RESULTS, "agent.results.>", work)).await?;
        let dead = stream(DEAD, "agent.dead.>", RetentionPolicy::Limits);
        context.get_or_create_stream(dead).await?;
        Ok::<_, jetstream::context::CreateStreamError>((tasks, results))
    };
    create.await.map_err(created)
}

impl Link {
    fn note_failure(&self, error: &Error) {
        let text = error.to_string();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed != text {
            (self.notice)(&format!("{text}; retrying"));
            *failed = text;
        }
    }
}

async fn retrying<T, F: Future<Output = Result<T, Error>>>(
    context: &Context,
    link: &Link,
    request: impl Fn() -> F,
) -> Result<T, Error> {
    let client = context.client();
    let connects = || client.statistics().connects.load(Ordering::Relaxed);
    let begun = Instant::now();
    loop {
        let (before, reconnected) = (connects(), link.connected.notified());
        let error = tokio::select! {
            done = request() => match done {
                Ok(done) => return Ok(done),
                Err(error) => error,
            },
            () = reconnected => continue, // an answer over the old connection never arrives
        };
        let is_lost = connects() != before || client.connection_state() != State::Connected;
        if !is_lost {
            let is_late = link.wait.is_some_and(|wait| begun.elapsed() >= wait);
            if is_late || !error.is_temporary() {
                return Err(error);
            }
            link.note_failure(&error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns how long to wait after this many failed attempts to connect.
fn reconnect_delay(tries: usize) -> Duration {
    RECONNECT.min(Duration::from_millis(50 << tries.min(10)))
}

/// Whether connecting again later may succeed with the same address and credentials.
fn is_temporary(error: &ConnectError) -> bool {
    use ConnectErrorKind::{
        Authentication, AuthorizationViolation, Dns, Io, MaxReconnects, ServerParse, TimedOut, Tls,
    };
    match error.kind() {
        Dns | TimedOut | Io => true,
        // The server may have been killed during the handshake.
        Tls => is_closed(error.source()),
        ServerParse | Authentication | AuthorizationViolation | MaxReconnects => false,
    }
}

/// Whether an error or one of its sources means that the other side closed the connection.
fn is_closed(error: Option<&(dyn std::error::Error + 'static)>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    error.is_some_and(|e| {
        let kind = e.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(BrokenPipe | ConnectionReset | UnexpectedEof)) || is_closed(e.source())
    })
}

fn records_consumer(batch: &str) -> String {
    format!("batch-{batch}")
}

fn options(address: &Address, servers: &[ServerAddr]) -> io::Result<ConnectOptions> {
    let mut options = ConnectOptions::new();
    // The client itself ignores any username, password or token in a URL.
    if let Some(user) = servers.iter().find_map(ServerAddr::username) {
        options = match servers.iter().find_map(ServerAddr::password) {
            Some(password) => options.user_and_password(user.to_owned(), password.to_owned()),
            None => options.token(user.to_owned()),
        };
    }
    if let Some(path) = &address.credentials {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(named)?;
        // The seed of a user nkey starts with these letters.
        options = match text.trim() {
            seed if seed.starts_with("SU") => options.nkey(seed.to_owned()),
            credentials => options.credentials(credentials).map_err(named)?,
        };
    }
    Ok(match &address.ca {
        Some(path) => options.add_root_certificates(path.clone()),
        None => options,
    })
}
