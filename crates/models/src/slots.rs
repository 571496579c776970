//! Limits how many requests this process sends to a server at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Delta, DeltaStream};

/// The limits, by address and number of slots. They are shared by the whole process because each
/// task of a batch opens its model on its own.
static SERVERS: Mutex<Option<HashMap<(String, u16), Arc<Semaphore>>>> = Mutex::new(None);

/// One of a server's slots. It becomes free when this is dropped.
pub(crate) struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Waits for a free slot on the server at `base`.
pub(crate) async fn take(base: &str, slots: u16) -> Slot {
    let semaphore = {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.get_or_insert_default().entry((base.to_owned(), slots));
        Arc::clone(server.or_insert_with(|| Arc::new(Semaphore::new(slots.max(1).into()))))
    };
    // The semaphore is never closed, so this cannot fail.
    Slot { _permit: semaphore.acquire_owned().await.ok() }
}

impl Slot {
    /// Keeps the slot until the answer has ended or is dropped.
    pub(crate) fn hold(self, answer: DeltaStream) -> DeltaStream {
        let mut slot = Some(self);
        Box::pin(answer.inspect(move |delta| {
            if matches!(delta, Ok(Delta::End(_)) | Err(_)) {
                drop(slot.take());
            }
        }))
    }
}
