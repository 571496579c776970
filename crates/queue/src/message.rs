//! What travels through the queue, as JSON.

use batch::{Finished, Started, Task};
use serde::{Deserialize, Serialize};

/// The version of [`Order`] and [`Envelope`].
pub(crate) const VERSION: u32 = 1;

/// A task on its way to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Version of the format: 1.
    pub(crate) v: u32,
    pub(crate) batch: String,
    pub(crate) task: Task,
    pub(crate) digest: String,
    /// The number of the attempt if this is the first delivery. Each further delivery adds one.
    pub(crate) attempt: u32,
    /// The name of the object with the bundle of the repository; `None` if the task names a URL.
    pub(crate) bundle: Option<String>,
}

/// A record on its way from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Started(Started),
    Finished {
        finished: Box<Finished>,
        may_help: bool,
        /// The name of the object with the session.
        session: Option<String>,
    },
}

impl Record {
    pub(crate) fn id(&self) -> &str {
        match self {
            Record::Started(started) => &started.id,
            Record::Finished { finished, .. } => &finished.id,
        }
    }

    pub(crate) fn attempt(&self) -> u32 {
        match self {
            Record::Started(started) => started.attempt,
            Record::Finished { finished, .. } => finished.attempt,
        }
    }

    pub(crate) fn digest(&self) -> &str {
        match self {
            Record::Started(started) => &started.digest,
            Record::Finished { finished, .. } => &finished.digest,
        }
    }

    /// Identifies the record in its batch. It is part of the message id: the server drops a message
    /// whose id it has seen in the last two minutes.
    pub(crate) fn key(&self) -> String {
        let kind = if matches!(self, Record::Started(_)) { "started" } else { "finished" };
        format!("{}/{}/{kind}", self.id(), self.attempt())
    }
}

/// The message with a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// Version of the format: 1.
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    Record(Record),
    /// The name of the object with the record, which is too large for a message.
    Object(String),
}

/// The subject of a task.
pub(crate) fn task_subject(batch: &str, id: &str) -> String {
    format!("agent.tasks.{batch}.{}", token(id))
}

/// The subject of a task that several workers took without returning a result.
pub(crate) fn dead_subject(batch: &str, id: &str) -> String {
    format!("agent.dead.{batch}.{}", token(id))
}

/// The subject of the records of a batch.
pub(crate) fn results_subject(batch: &str) -> String {
    format!("agent.results.{batch}")
}

/// An id as one token of a subject. Ids contain no `%`, so different ids stay different.
fn token(id: &str) -> String {
    id.replace('.', "%2E")
}

/// The id of a task, from its subject.
pub(crate) fn task_of(subject: &str) -> Option<String> {
    subject.rsplit_once('.').map(|(_, token)| token.replace("%2E", "."))
}

/// The name of the object that marks a batch as canceled.
pub(crate) fn canceled_object(batch: &str) -> String {
    format!("canceled/{batch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_dots_survives_its_subject() {
        let subject = task_subject("b", "shop.cart..7");
        assert_eq!(subject, "agent.tasks.b.shop%2Ecart%2E%2E7");
        assert_eq!(task_of(&subject).as_deref(), Some("shop.cart..7"));
    }

    #[test]
    fn a_message_states_its_version_beside_its_body() {
        let object = Envelope { v: 1, body: Body::Object("records/a".into()) };
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#"{"v":1,"object":"records/a"}"#);
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), object);
    }
}
