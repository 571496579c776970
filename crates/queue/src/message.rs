//! The messages that travel through the queue, as JSON.

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
    /// The attempt number of the first delivery. Each subsequent delivery adds one.
    pub(crate) attempt: u32,
    /// The name of the object that contains the repository bundle; `None` if the task specifies a
    /// URL.
    pub(crate) bundle: Option<String>,
}

impl Order {
    /// Checks a received order.
    ///
    /// # Errors
    /// Returns a sentence that explains why the order must not be executed.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_hex = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex(&self.batch) {
            return Err(format!("{:?} is not the name of a batch", self.batch));
        }
        if let Some(bundle) = &self.bundle
            && !bundle.strip_suffix(".bundle").is_some_and(is_hex)
        {
            return Err(format!("{bundle:?} is not the name of a bundle"));
        }
        batch::check_foreign(&self.task, self.bundle.is_some())
    }
}

/// A record on its way from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Started(Started),
    Finished {
        finished: Box<Finished>,
        may_help: bool,
        /// The name of the object that contains the session.
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

    /// Returns a key made up of the task, the attempt and the kind of record.
    pub(crate) fn key(&self) -> String {
        let kind = if matches!(self, Record::Started(_)) { "started" } else { "finished" };
        format!("{}/{}/{kind}", self.id(), self.attempt())
    }
}

/// A message that carries a record.
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
    /// The name of the object that contains the record, used if it is too large for a message.
    Object(String),
}

/// Returns the subject of a task. `version` changes whenever the task's content changes.
pub(crate) fn task_subject(batch: &str, id: &str, version: &str) -> String {
    format!("agent.tasks.{batch}.{}.{version}", token(id))
}

/// Returns the subjects of all tasks in a batch.
pub(crate) fn task_subjects(batch: &str) -> String {
    format!("agent.tasks.{batch}.>")
}

/// Returns the subject for a task that several workers have taken without returning a result.
pub(crate) fn dead_subject(batch: &str, id: &str) -> String {
    format!("agent.dead.{batch}.{}", token(id))
}

/// Returns the subject of a batch's records.
pub(crate) fn results_subject(batch: &str) -> String {
    format!("agent.results.{batch}")
}

/// Encodes an id as a single token of a subject. Ids do not contain `%`, so different ids stay
/// different.
fn token(id: &str) -> String {
    id.replace('.', "%2E")
}

/// Extracts the id and version of a task from its subject.
pub(crate) fn task_of(subject: &str) -> Option<(String, &str)> {
    let mut tokens = subject.rsplit('.');
    let (version, id) = (tokens.next()?, tokens.next()?);
    Some((id.replace("%2E", "."), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_dots_can_be_read_back_from_its_subject() {
        let subject = task_subject("b", "shop.cart..7", "v");
        assert_eq!(subject, "agent.tasks.b.shop%2Ecart%2E%2E7.v");
        assert_eq!(task_of(&subject), Some(("shop.cart..7".into(), "v")));
    }

    #[test]
    fn bug_an_order_could_name_paths_outside_the_folder_of_the_worker() {
        let task =
            |id: &str| Task { id: id.into(), repo: "https://example.org/a.git".into(), ..Task::default() };
        let order = |batch: &str, id, bundle: Option<&str>| Order {
            v: VERSION,
            batch: batch.into(),
            task: task(id),
            digest: String::new(),
            attempt: 1,
            bundle: bundle.map(str::to_owned),
        };
        let (batch, bundle) = ("0123456789abcdef", "0123456789abcdef.bundle");
        assert_eq!(order(batch, "a", None).check(), Ok(()));
        assert_eq!(order(batch, "a", Some(bundle)).check(), Ok(()));
        assert!(order("../../..", "a", None).check().is_err());
        assert!(order("b c", "a", None).check().is_err());
        assert!(order(batch, "../a", None).check().is_err());
        assert!(order(batch, "a", Some("..")).check().is_err());
    }

    #[test]
    fn a_message_states_its_version_beside_its_body() {
        let object = Envelope { v: 1, body: Body::Object("records/a".into()) };
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#"{"v":1,"object":"records/a"}"#);
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), object);
    }
}
