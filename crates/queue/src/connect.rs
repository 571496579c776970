//! The connection to the server, and the streams on it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectError, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use crate::error::{Error, server};
use crate::message::{canceled_object, results_subject};

const TASKS: &str = "AGENT_TASKS";
const RESULTS: &str = "AGENT_RESULTS";
const DEAD: &str = "AGENT_DEAD";
const OBJECTS: &str = "AGENT";
/// How long the server keeps what nobody collects.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the publisher may take to write a record to disk before the server sends it again.
const RECORDED_WITHIN: Duration = Duration::from_secs(600);
/// The longest wait between two attempts to reconnect.
const RECONNECT: Duration = Duration::from_secs(5);

/// Where the queue is, and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// One or more URLs, separated by commas: `nats://HOST:PORT`, or `tls://HOST:PORT`.
    pub url: String,
    /// A file with credentials (JWT and seed), or with the seed of an nkey.
    pub credentials: Option<PathBuf>,
    /// A file with certificate authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

/// A connection to the queue. It reconnects by itself.
#[derive(Clone)]
pub struct Queue {
    pub(crate) context: Context,
    pub(crate) tasks: Stream,
    pub(crate) results: Stream,
    pub(crate) objects: ObjectStore,
}

impl Queue {
    /// Connects, and creates the streams that do not exist yet. `notice` gets a sentence whenever
    /// the connection is lost or established again.
    ///
    /// # Errors
    /// When the server cannot be reached, rejects the credentials, or has no JetStream.
    pub async fn connect(
        address: &Address,
        notice: impl Fn(&str) + Send + Sync + Clone + 'static,
    ) -> Result<Self, Error> {
        let servers: Result<Vec<ServerAddr>, _> = address.url.split(',').map(str::parse).collect();
        let servers = servers.map_err(|e| Error::Connect(e.to_string()))?;
        let options = options(address).await.map_err(|e| Error::Connect(e.to_string()))?;
        let options = options
            .name("agent")
            .max_reconnects(None)
            .reconnect_delay_callback(|tries| RECONNECT.min(Duration::from_millis(50 << tries.min(10))))
            .event_callback(move |event| {
                let notice = notice.clone();
                async move {
                    match event {
                        Event::Disconnected => notice("lost the connection to the queue; reconnecting"),
                        Event::Connected => notice("connected to the queue"),
                        Event::ClientError(e) => notice(&format!("the connection to the queue failed: {e}")),
                        Event::ServerError(e) => notice(&format!("the queue reports an error: {e}")),
                        _ => {}
                    }
                }
            });
        let failed = |e: ConnectError| {
            let hosts: Vec<_> = servers.iter().map(|s| format!("{}:{}", s.host(), s.port())).collect();
            Error::Connect(format!("{}: {e}", hosts.join(", ")))
        };
        let client = options.connect(&servers[..]).await.map_err(failed)?;
        Self::open(jetstream::new(client)).await
    }

    /// Opens the streams, and creates those that do not exist.
    async fn open(context: Context) -> Result<Self, Error> {
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
        let (tasks, results) = create.await.map_err(created)?;
        let objects = match context.get_object_store(OBJECTS).await {
            Ok(objects) => objects,
            Err(_) => {
                let config =
                    object_store::Config { bucket: OBJECTS.into(), max_age: KEPT, ..Default::default() };
                let created = server("create the object store of the queue");
                context.create_object_store(config).await.map_err(created)?
            }
        };
        Ok(Self { context, tasks, results, objects })
    }

    /// The consumer that all workers share. Creates the consumer and the streams if they do not
    /// exist, because the server may have lost its data.
    pub(crate) async fn workers(&self, lease: Duration) -> Result<PullConsumer, Error> {
        Self::open(self.context.clone()).await?;
        let config = pull::Config {
            durable_name: Some("workers".into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: lease,
            max_deliver: -1,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        self.tasks.create_consumer(config).await.map_err(server("listen for tasks"))
    }

    /// A new consumer of the records of a batch. Records that an earlier consumer received but
    /// did not acknowledge are delivered again.
    pub(crate) async fn records(&self, batch: &str) -> Result<PullConsumer, Error> {
        let name = records_consumer(batch);
        let _ = self.results.delete_consumer(&name).await; // there may be none
        let config = pull::Config {
            durable_name: Some(name),
            filter_subject: results_subject(batch),
            ack_policy: AckPolicy::Explicit,
            ack_wait: RECORDED_WITHIN,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        self.results.create_consumer(config).await.map_err(server("listen for results"))
    }

    /// Removes the consumer of a batch that is done.
    pub(crate) async fn forget(&self, batch: &str) {
        let _ = self.results.delete_consumer(&records_consumer(batch)).await;
    }

    /// Stores an object under a name, replacing an older one.
    pub(crate) async fn put(&self, name: &str, contents: &[u8]) -> Result<(), Error> {
        let stored = self.objects.put(name, &mut &contents[..]).await;
        stored.map(drop).map_err(server("store an object in the queue"))
    }

    /// Reads an object.
    pub(crate) async fn get(&self, name: &str) -> Result<Bytes, Error> {
        let failed = "read an object from the queue";
        let mut object = self.objects.get(name).await.map_err(server(failed))?;
        let mut contents = Vec::new();
        object.read_to_end(&mut contents).await.map_err(server(failed))?;
        Ok(contents.into())
    }

    /// Whether an object exists.
    pub(crate) async fn has(&self, name: &str) -> bool {
        self.objects.info(name).await.is_ok_and(|info| !info.deleted)
    }

    /// Removes an object, if it exists.
    pub(crate) async fn remove(&self, name: &str) {
        let _ = self.objects.delete(name).await;
    }

    /// Whether a batch was canceled.
    pub(crate) async fn is_canceled(&self, batch: &str) -> bool {
        self.has(&canceled_object(batch)).await
    }
}

fn records_consumer(batch: &str) -> String {
    format!("batch-{batch}")
}

async fn options(address: &Address) -> io::Result<ConnectOptions> {
    let mut options = ConnectOptions::new();
    if let Some(path) = &address.credentials {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(named)?;
        // The seed of a user's nkey starts with these letters.
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
