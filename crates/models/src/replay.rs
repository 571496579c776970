//! Replays a recorded session in place of a model, without network access or randomness.
//!
//! The recording is a list of [`Turn`]s, one per request. On disk, it is stored as JSON Lines, one
//! turn per line:
//! `{"content": "…", "thinking"?: "…", "end": "stop" | "length" | "cut" | {"failed": "…"} | …, "usage"?: {…}, "messages"?: […]}`.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::shared::Shared;
use crate::{Delta, DeltaStream, End, EndReason, Error, Identity, Message, Model, Request, Usage};

/// How a recorded turn ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnEnd {
    /// The model finished its answer.
    #[default]
    Stop,
    /// The answer reached its length limit.
    Length,
    /// The reader cut the answer short. The reader of the replay must do so at the same point.
    Cut,
    /// The request failed with this message and may be retried.
    Failed(String),
    /// The request failed with this message and must not be retried.
    Refused(String),
    /// The request failed with this message, and the user must change a setting.
    Settings(String),
    /// The request did not fit in the context window.
    Overflow {
        /// The server's message.
        message: String,
        /// The context window in tokens, if the server reported it.
        window: Option<u64>,
    },
}

/// One recorded answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Visible text, up to the cut if there was one.
    pub content: String,
    /// Reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// How it ended.
    #[serde(default)]
    pub end: TurnEnd,
    /// The points at which the model could have written a different token. Each entry has the byte
    /// offset in `content`, the token at that offset, the alternative, and the alternative's log
    /// probability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<(usize, String, String, f32)>,
    /// The recorded counts.
    #[serde(default)]
    pub usage: Usage,
    /// The conversation that this turn answered. If present, the request must match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
}

/// A model that plays back a recording.
pub struct Replay {
    identity: Identity,
    total: usize,
    left: Shared<VecDeque<Turn>>,
}

impl Replay {
    /// Creates a model that answers with these turns, in order. It reports `identity` as its own,
    /// because the handling of answers may depend on it.
    #[must_use]
    pub fn new(turns: Vec<Turn>, identity: Identity) -> Self {
        Self { identity, total: turns.len(), left: Shared::new(turns.into()) }
    }

    /// Parses a recording in JSON Lines format; `name` becomes the model's name.
    ///
    /// # Errors
    /// [`Error::Refused`] with the number of the first line that is not a turn.
    pub fn from_jsonl(text: &str, name: &str) -> Result<Self, Error> {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let turns = lines.map(|(number, line)| {
            serde_json::from_str(line)
                .map_err(|why| Error::Refused(format!("{name}, line {number} is not a recorded turn: {why}")))
        });
        Ok(Self::new(turns.collect::<Result<_, _>>()?, Self::identity_named(name)))
    }

    /// Returns the identity of a replay when nothing is known about the recorded model.
    #[must_use]
    pub fn identity_named(name: &str) -> Identity {
        Identity {
            server: String::from("replay"),
            model: name.to_owned(),
            local: true,
            // A recording answers any request, with or without images.
            sees_images: Some(true),
            ..Identity::default()
        }
    }

    /// Returns how many turns are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left.change(|left| left.len())
    }
}

#[async_trait::async_trait]
impl Model for Replay {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    async fn stream(&self, request: &Request) -> Result<DeltaStream, Error> {
        let total = self.total;
        let next = self.left.change(|left| (total - left.len() + 1, left.pop_front()));
        let (number, Some(turn)) = next else {
            return Err(Error::Refused(format!("all {total} turns of the recording have been replayed")));
        };
        if let Some(recorded) = &turn.messages
            && !recorded.iter().eq(request.messages.iter().map(|message| &**message))
        {
            return Err(Error::Refused(format!(
                "turn {number} of the recording answers a different conversation: {}",
                difference(recorded, &request.messages)
            )));
        }
        Ok(turn.play(number))
    }
}

impl Turn {
    /// Returns the answer as a server would send it. `number` is the turn's number, for the error
    /// that is returned if the reader reads past the recorded cut.
    #[must_use]
    pub fn play(self, number: usize) -> DeltaStream {
        Box::pin(stream::iter(deltas(self, number)))
    }
}

fn deltas(turn: Turn, number: usize) -> Vec<Result<Delta, Error>> {
    let usage = turn.usage;
    let mut deltas = Vec::new();
    if usage != Usage::default() {
        deltas.push(Ok(Delta::Usage(usage)));
    }
    deltas.extend(turn.thinking.filter(|text| !text.is_empty()).map(|text| Ok(Delta::Thinking(text))));
    let mut from = 0;
    for (at, chosen, other, logprob) in turn.doubts {
        // Skip invalid offsets.
        let Some(text) = turn.content.get(from..at) else { continue };
        if !text.is_empty() {
            deltas.push(Ok(Delta::Text(text.to_owned())));
        }
        from = at;
        deltas.push(Ok(Delta::Doubt { chosen, others: vec![(other, logprob)] }));
    }
    deltas.extend(
        turn.content.get(from..).filter(|text| !text.is_empty()).map(|text| Ok(Delta::Text(text.to_owned()))),
    );
    if turn.end == TurnEnd::Cut {
        // A closing fence is recognized only once more text follows. The cut dropped that text, so
        // send a line break in its place.
        deltas.push(Ok(Delta::Text(String::from("\n"))));
    }
    deltas.push(match turn.end {
        TurnEnd::Stop => Ok(Delta::End(End { reason: EndReason::Stop, usage })),
        TurnEnd::Length => Ok(Delta::End(End { reason: EndReason::Length, usage })),
        // A reader that continues past the cut behaves differently than the recorded one, and the
        // recording has no more text for it.
        TurnEnd::Cut => Err(Error::Refused(format!(
            "turn {number} of the recording was cut short here, but the reader continues"
        ))),
        TurnEnd::Failed(why) => Err(Error::Transport(why)),
        TurnEnd::Refused(why) => Err(Error::Refused(why)),
        TurnEnd::Settings(why) => Err(Error::Settings(why)),
        TurnEnd::Overflow { message, window } => {
            Err(Error::Overflow { message, prompt_tokens: None, window })
        }
    });
    deltas
}

/// Describes the first difference between two conversations.
fn difference(recorded: &[Message], asked: &[Arc<Message>]) -> String {
    let first = recorded.iter().zip(asked).position(|(recorded, asked)| *recorded != **asked);
    match first {
        Some(at) => {
            let quote = |message: &Message| message.content.chars().take(80).collect::<String>();
            format!("message {} was {:?} and now is {:?}", at + 1, quote(&recorded[at]), quote(&asked[at]))
        }
        None => format!("it had {} messages and now has {}", recorded.len(), asked.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, collect};

    fn request(content: &str) -> Request {
        let message = Message::new(Role::User, content);
        Request { messages: vec![message.into()], max_tokens: 1, ..Request::default() }
    }

    #[tokio::test]
    async fn turns_come_in_order_and_a_request_beyond_the_last_is_an_error() {
        let text = "{\"content\":\"a\",\"thinking\":\"t\",\"usage\":{\"prompt_tokens\":3}}\n\n{\"content\":\"b\",\"end\":\"length\"}\n";
        let replay = Replay::from_jsonl(text, "file").unwrap();
        let first = collect(replay.stream(&request("x")).await.unwrap()).await.unwrap();
        assert_eq!(
            (first.text.as_str(), first.thinking.as_str(), first.end.usage.prompt_tokens),
            ("a", "t", Some(3))
        );
        assert_eq!(replay.remaining(), 1);
        let second = collect(replay.stream(&request("y")).await.unwrap()).await.unwrap();
        assert_eq!((second.text.as_str(), second.end.reason), ("b", EndReason::Length));
        let error = replay.stream(&request("z")).await.err().unwrap();
        assert_eq!(error, Error::Refused(String::from("all 2 turns of the recording have been replayed")));
    }

    #[tokio::test]
    async fn the_error_for_a_different_conversation_shows_the_difference() {
        let turn = || Turn {
            content: String::from("a"),
            messages: Some(vec![(*request("old words").messages[0]).clone()]),
            ..Turn::default()
        };
        let replay = Replay::new(vec![turn(), turn()], Replay::identity_named("r"));
        assert!(replay.stream(&request("old words")).await.is_ok());
        let error = replay.stream(&request("new words")).await.err().unwrap().to_string();
        assert!(
            error.contains("turn 2") && error.contains("old words") && error.contains("new words"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_recorded_cut_or_failure_is_not_a_normal_end() {
        for (end, retried) in [(TurnEnd::Cut, false), (TurnEnd::Failed(String::from("reset")), true)] {
            let replay = Replay::new(
                vec![Turn { content: String::from("a"), end, ..Turn::default() }],
                Replay::identity_named("r"),
            );
            let error = collect(replay.stream(&request("x")).await.unwrap()).await.unwrap_err();
            assert_eq!(matches!(error, Error::Transport(_)), retried);
        }
    }

    #[test]
    fn an_invalid_recording_is_reported_with_its_line() {
        let error =
            Replay::from_jsonl("{\"content\":\"a\"}\n{\"contents\":\"b\"}", "file.jsonl").err().unwrap();
        assert!(error.to_string().starts_with("file.jsonl, line 2"), "{error}");
    }
}
