//! Receives a batch's records and puts them into its mailbox.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;

use crate::connect::{PAUSE, Queue};
use crate::error::{Error, server};
use crate::mailbox::{Arrival, Mailbox};
use crate::message::{Body, Envelope, Record, VERSION};

/// How long the server waits before it resends a record that could not be read.
const AGAIN: Duration = Duration::from_secs(30);
/// How many records are requested at a time.
const RECORDS: usize = 200;

/// Receives records until it is aborted.
pub(crate) async fn receive(queue: Queue, batch: String, mut consumer: PullConsumer, mailbox: Mailbox) {
    loop {
        if let Ok(mut messages) = consumer.messages().await {
            while let Some(Ok(message)) = messages.next().await {
                receive_one(&queue, &batch, message, &mailbox).await;
            }
        }
        // The client itself reports a lost connection and reconnects, but the server may have lost
        // its data, including the consumer.
        tokio::time::sleep(PAUSE).await;
        let known = queue.results.consumer_info(consumer.cached_info().name.clone()).await;
        let new = match known {
            Ok(_) => continue,
            Err(e) => match e.kind() {
                ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
                    match queue.create_streams().await {
                        Ok(()) => queue.records(&batch).await,
                        Err(e) => Err(e),
                    }
                }
                _ => Err(server("receive results")(e)),
            },
        };
        match new {
            Ok(new) => consumer = new,
            Err(e) => queue.note_failure(&e),
        }
    }
}

/// Receives the records that the server currently has, and returns how many there were.
pub(crate) async fn receive_some(
    queue: &Queue,
    batch: &str,
    consumer: &PullConsumer,
    mailbox: &Mailbox,
) -> Result<usize, Error> {
    let failed = "receive results";
    let messages = consumer.fetch().max_messages(RECORDS).messages().await;
    let mut messages = messages.map_err(server(failed))?;
    let mut count = 0;
    while let Some(message) = messages.next().await {
        receive_one(queue, batch, message.map_err(server(failed))?, mailbox).await;
        count += 1;
    }
    Ok(count)
}

async fn receive_one(queue: &Queue, batch: &str, message: Message, mailbox: &Mailbox) {
    let record = match decode(&message.payload) {
        Some(Body::Object(name)) => match queue.get(batch, &name).await {
            Ok(contents) => decode(&contents),
            Err(e) => {
                queue.note_failure(&e);
                let _ = message.ack_with(AckKind::Nak(Some(AGAIN))).await;
                return;
            }
        },
        decoded => decoded,
    };
    // A record that cannot be read stays in the queue for a version of the agent that can read it.
    // If it is the result of a task, the task is sent again.
    let Some(Body::Record(record)) = record else { return };
    if let Some(unneeded) = mailbox.put(Arrival { record, message }) {
        unneeded.acknowledge().await;
    }
}

/// Decodes a message. Returns `None` if it is malformed or has a different format version.
fn decode(payload: &[u8]) -> Option<Body> {
    let envelope: Envelope = serde_json::from_slice(payload).ok()?;
    let current = match &envelope.body {
        Body::Record(Record::Started(started)) => started.v == 1,
        Body::Record(Record::Finished { finished, .. }) => finished.v == 1,
        Body::Object(_) => true,
    };
    (envelope.v == VERSION && current).then_some(envelope.body)
}
