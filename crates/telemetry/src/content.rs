//! Attributes for the text that the model reads and writes. They are exported only if the user asks
//! for them.

use std::borrow::Cow;

use journal::{Event, Role};
use serde_json::{Value, json};

/// The maximum length of the text in one attribute, in bytes. This keeps a batch of spans below 20
/// MiB, the most that a collector accepts by default.
const MAX_TEXT: usize = 32 << 10;

/// The messages of a session so far.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The role and the shortened text of each message.
    messages: Vec<(Role, String)>,
}

impl Conversation {
    /// Applies an event to the conversation.
    pub(crate) fn add(&mut self, event: &Event) {
        match event {
            Event::Message { role, content, .. } => self.messages.push((*role, shortened(content).into())),
            Event::Output { content, .. } => {
                self.messages.push((Role::Assistant, shortened(content).into()));
            }
            Event::Rewound { keep, .. } => self.messages.truncate(*keep as usize),
            _ => {}
        }
    }

    /// Returns the newest messages that fit into an attribute, without the system message.
    pub(crate) fn input(&self) -> String {
        let mut left = MAX_TEXT;
        let newest = self.messages.iter().rev().take_while(|(_, text)| {
            let fits = text.len() <= left;
            left = left.saturating_sub(text.len());
            fits
        });
        let newest = newest.filter(|(role, _)| *role != Role::System);
        let mut messages: Vec<Value> =
            newest.map(|(role, text)| json!({"role": role, "parts": [part("text", text)]})).collect();
        messages.reverse();
        Value::from(messages).to_string()
    }
}

/// Formats the system message as an attribute.
pub(crate) fn instructions(text: &str) -> String {
    json!([part("text", &shortened(text))]).to_string()
}

/// Formats an answer as an attribute.
pub(crate) fn answer(thinking: &str, text: &str) -> String {
    let parts = [("reasoning", thinking), ("text", text)];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(kind, text)| part(kind, &shortened(text)))
        .collect();
    json!([{"role": "assistant", "parts": parts}]).to_string()
}

fn part(kind: &str, text: &str) -> Value {
    json!({"type": kind, "content": text})
}

/// Shortens text to fit into an attribute.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    shortened_to(text, MAX_TEXT)
}

/// Truncates text that is longer than `limit` bytes and appends a note that says so.
pub(crate) fn shortened_to(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    /// Space for the note.
    const NOTE: usize = 48;
    let cut = (0..=limit.saturating_sub(NOTE)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    Cow::Owned(format!("{}… [{} bytes omitted]", &text[..cut], text.len() - cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_messages_are_kept_if_the_conversation_is_too_long() {
        let long = || "é".repeat(MAX_TEXT);
        let mut conversation = Conversation::default();
        for (role, content) in [
            (Role::System, "rules".to_owned()),
            (Role::User, long()),
            (Role::User, long()),
            (Role::User, "new".to_owned()),
        ] {
            conversation.add(&Event::Message { role, content, images: Vec::new() });
        }
        let texts = |conversation: &Conversation| -> Vec<String> {
            let messages: Vec<Value> = serde_json::from_str(&conversation.input()).unwrap();
            messages.iter().map(|m| m["parts"][0]["content"].as_str().unwrap().to_owned()).collect()
        };
        let newest = texts(&conversation);
        assert_eq!((newest.len(), newest[1].as_str()), (2, "new"));
        assert!(newest[0].len() <= MAX_TEXT && newest[0].ends_with("bytes omitted]"));
        conversation.add(&Event::Rewound { keep: 1, why: String::new() });
        assert!(texts(&conversation).is_empty(), "the system message should be in its own attribute");
    }
}
