//! A batch's mailbox, which holds records for the attempts that need them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, error::SendError, unbounded_channel};

use crate::message::Record;

/// A record that has been received but not acknowledged.
pub(crate) struct Arrival {
    pub(crate) record: Record,
    pub(crate) message: Message,
}

impl Arrival {
    /// Tells the server that the record is on disk or will never be needed.
    pub(crate) async fn acknowledge(&self) {
        // If this fails, the server sends the record again, and the duplicate is detected.
        let _ = self.message.ack().await;
    }
}

/// A batch's mailbox, shared by the receiver of records and the attempts.
#[derive(Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    /// Attempts that are waiting for records, by task.
    waiting: HashMap<String, UnboundedSender<Arrival>>,
    /// Records that arrived before an attempt was waiting for them, by task.
    early: HashMap<String, Vec<Arrival>>,
    /// Attempts whose results are already in the batch folder.
    recorded: HashSet<(String, u32)>,
    /// Tasks with a result from the agent rather than an infrastructure failure.
    done: HashSet<String>,
}

impl Mailbox {
    /// Creates a mailbox. `recorded` contains the attempts whose results are already in the batch
    /// folder, and `done` contains the tasks for which one of those results is from the agent.
    pub(crate) fn new(recorded: HashSet<(String, u32)>, done: HashSet<String>) -> Self {
        let contents = Contents { recorded, done, ..Contents::default() };
        Self(Arc::new(Mutex::new(contents)))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the attempt that is waiting for it, or keeps it for a later attempt.
    /// Returns the record if no attempt will need it.
    pub(crate) fn put(&self, arrival: Arrival) -> Option<Arrival> {
        self.contents().put(arrival)
    }

    /// Opens the mailbox for an attempt. Also returns the records that have already arrived.
    pub(crate) fn open(&self, id: &str) -> (UnboundedReceiver<Arrival>, Vec<Arrival>) {
        let (sender, arrivals) = unbounded_channel();
        let mut contents = self.contents();
        contents.done.remove(id); // the task is due again
        contents.waiting.insert(id.to_owned(), sender);
        (arrivals, contents.early.remove(id).unwrap_or_default())
    }

    /// Closes the mailbox for an attempt. If a result was recorded, `recorded` contains the number
    /// of the attempt that produced it and whether it is from the agent. Returns the records that
    /// no attempt will need.
    pub(crate) fn close(
        &self,
        id: &str,
        recorded: Option<(u32, bool)>,
        mut arrivals: UnboundedReceiver<Arrival>,
    ) -> Vec<Arrival> {
        let mut contents = self.contents();
        contents.waiting.remove(id);
        if let Some((attempt, by_agent)) = recorded {
            contents.recorded.insert((id.to_owned(), attempt));
            if by_agent {
                contents.done.insert(id.to_owned());
            }
        }
        let mut unneeded = Vec::new();
        while let Ok(arrival) = arrivals.try_recv() {
            unneeded.extend(contents.put(arrival));
        }
        unneeded
    }

    /// Whether there are records that no attempt has taken.
    pub(crate) fn has_early(&self) -> bool {
        !self.contents().early.is_empty()
    }
}

impl Contents {
    fn put(&mut self, arrival: Arrival) -> Option<Arrival> {
        let (id, attempt) = (arrival.record.id().to_owned(), arrival.record.attempt());
        if matches!(arrival.record, Record::Finished { .. }) && self.recorded.contains(&(id.clone(), attempt))
        {
            return Some(arrival);
        }
        let arrival = match self.waiting.get(&id) {
            Some(waiting) => match waiting.send(arrival) {
                Ok(()) => return None,
                Err(SendError(arrival)) => arrival,
            },
            None => arrival,
        };
        if self.done.contains(&id) {
            return Some(arrival);
        }
        let early = self.early.entry(id).or_default();
        // Replace any earlier copy, because the server resends a record if the acknowledgment takes
        // too long.
        early.retain(|earlier| earlier.record.key() != arrival.record.key());
        early.push(arrival);
        None
    }
}
