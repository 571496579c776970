//! Takes tasks from the queue, but never more than the worker has room for.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::connect::{PAUSE, Queue};

/// How long a request for a task waits on the server.
const REQUEST: Duration = Duration::from_secs(20);

/// A task that this worker has taken. Dropping it makes room for another one.
pub(crate) struct Taken {
    pub(crate) message: Message,
    _place: OwnedSemaphorePermit,
}

/// Takes tasks until the receiver is closed. Runs separately from the receiver because the
/// receiver's futures may be dropped. If a request were dropped after the server had already
/// delivered a task for it, no worker would get that task until the lease expired.
pub(crate) async fn take(
    queue: Queue,
    lease: Duration,
    mut consumer: PullConsumer,
    places: Arc<Semaphore>,
    taken: mpsc::Sender<Taken>,
) {
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let message = loop {
            if taken.is_closed() {
                return;
            }
            match next(&consumer).await {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                // The client reconnects automatically, but the server may have lost the consumer.
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    match queue.workers(lease).await {
                        Ok((new, _)) => consumer = new,
                        Err(e) => queue.note_failure(&e),
                    }
                }
            }
        };
        if let Err(mpsc::error::SendError(left)) = taken.send(Taken { message, _place: place }).await {
            hand_back(&queue, &left.message, left.message.payload.clone()).await;
            return;
        }
    }
}

async fn next(consumer: &PullConsumer) -> Result<Option<Message>, async_nats::Error> {
    let mut messages = consumer.batch().max_messages(1).expires(REQUEST).messages().await?;
    messages.next().await.transpose()
}

/// Returns a task to the queue for another worker. Sends it again instead of rejecting it, because
/// a rejection counts as a delivery, and too many deliveries are treated as a sign that the task
/// kills its workers.
pub(crate) async fn hand_back(queue: &Queue, message: &Message, payload: Bytes) {
    let sent = async { queue.context.publish(message.subject.clone(), payload).await?.await };
    // If one of these requests fails, another worker gets the task when the lease expires.
    let _ = match sent.await {
        Ok(_) => message.double_ack().await,
        Err(_) => message.ack_with(AckKind::Nak(None)).await,
    };
}
