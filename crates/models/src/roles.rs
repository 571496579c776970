//! Learns from refusals which roles a model's chat template accepts, and reshapes the conversation
//! to fit.
//!
//! The templates of Gemma, Mistral and others raise an error for a system message, or for two
//! messages with the same role in a row. The wording of these errors varies by family and server,
//! so matching is loose. A wrong guess costs one request.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::{Message, Role};

/// What a template refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Roles {
    /// Messages with the system role. If set, their text is prepended to the first user message.
    pub no_system: bool,
    /// Two messages with the same role in a row. If set, such messages are joined.
    pub alternate: bool,
}

/// Phrases that demand alternating roles.
const ALTERNATE: [&str; 8] = [
    "must alternate",
    "should alternate",
    "alternate between",
    "alternating",
    "consecutive",
    "same role",
    "must start with a user",
    "first message must",
];

/// Phrases that mention the system role.
const SYSTEM: [&str; 14] = [
    "system role",
    "role 'system'",
    "role \"system\"",
    "role `system`",
    "role: system",
    "role system",
    "'system'",
    "\"system\"",
    "system message",
    "system prompt",
    "system instruction",
    "developer instruction",
    // "system is not supported as a role", in Chinese.
    "system 角色",
    "system角色",
];

/// Phrases that list the accepted roles, or reject a role.
const OTHER_ROLES: [&str; 10] = [
    "only user",
    "user and assistant",
    "user or assistant",
    "user/assistant",
    "'user', 'assistant'",
    "'user' or 'assistant'",
    "'user' and 'assistant'",
    "invalid role",
    "unknown role",
    "unsupported role",
];

impl Roles {
    /// Learns from a refusal of these messages. Returns whether the conversation will now be sent
    /// differently.
    pub(crate) fn learn(&mut self, refusal: &Failure, messages: &[Arc<Message>]) -> bool {
        let Some(text) = refusal.refusing() else { return false };
        let any = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
        let before = *self;
        let has_system = messages.iter().any(|message| message.role == Role::System);
        if any(&ALTERNATE) {
            // Templates that accept a system message call it optional in this error. With all
            // others, a system message breaks the alternation.
            self.no_system |= has_system && (self.alternate || !text.contains("optional system"));
            self.alternate = true;
        } else if any(&SYSTEM) || any(&OTHER_ROLES) {
            self.no_system |= has_system;
        } else if refusal.is_template() {
            // The template failed for an unknown reason. Try once without a system message and with
            // alternating roles.
            self.no_system |= has_system;
            self.alternate = true;
        }
        *self != before
    }

    /// Returns the conversation in a form that the template accepts.
    #[must_use]
    pub fn shape<'a>(&self, messages: &'a [Arc<Message>]) -> Cow<'a, [Arc<Message>]> {
        if *self == Self::default() {
            return Cow::Borrowed(messages);
        }
        let mut shaped: Vec<Arc<Message>> = Vec::with_capacity(messages.len());
        let mut system = String::new();
        for message in messages {
            if self.no_system && message.role == Role::System {
                join(&mut system, &message.content);
                continue;
            }
            let mut message = Arc::clone(message);
            if message.role == Role::User && !system.is_empty() {
                let instructions = std::mem::take(&mut system);
                let content = format!("{instructions}\n\n{}", message.content);
                Arc::make_mut(&mut message).content = content;
            }
            match shaped.last_mut() {
                Some(last) if self.alternate && last.role == message.role => {
                    let last = Arc::make_mut(last);
                    join(&mut last.content, &message.content);
                    last.images.extend(message.images.iter().cloned());
                    if let Some(thinking) = &message.thinking {
                        join(last.thinking.get_or_insert_default(), thinking);
                    }
                }
                _ => shaped.push(message),
            }
        }
        if !system.is_empty() {
            shaped.push(Message::new(Role::User, system).into());
        }
        Cow::Owned(shaped)
    }
}

fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Body;

    fn refusal(status: u16, text: &str) -> Failure {
        let body = serde_json::json!({"error": {"message": text, "type": "x"}}).to_string();
        let body = Box::new(Body::from_bytes(body.as_bytes()));
        Failure::Status { status, url: String::new(), body, retry_after: None, keyed: false }
    }

    fn message(role: Role, content: &str) -> Arc<Message> {
        Message::new(role, content).into()
    }

    fn conversation() -> Vec<Arc<Message>> {
        vec![
            message(Role::System, "S"),
            message(Role::User, "a"),
            message(Role::User, "b"),
            message(Role::Assistant, "c"),
            message(Role::User, "d"),
        ]
    }

    fn text(roles: Roles) -> Vec<String> {
        let shaped = roles.shape(&conversation()).into_owned();
        shaped.into_iter().map(|m| format!("{:?}: {}", m.role, m.content.replace('\n', "|"))).collect()
    }

    #[test]
    fn a_refused_system_role_is_detected_in_every_wording() {
        for (status, words) in [
            (400, "System role not supported"),
            (500, "System role not supported at row 1, column 60"),
            (400, "Only user and assistant roles are supported!"),
            (500, "Only user, assistant and tool roles are supported, got system."),
            (400, "Error rendering prompt with jinja template: \"Unknown role: system\"."),
            (422, "Input should be 'user' or 'assistant'"),
            (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
            (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
            (400, "This model does not support system messages."),
            (400, "system prompt is not allowed for this model"),
            (400, "Invalid role in messages"),
            (400, "不支持 system 角色"),
            (400, "first message must use role \"user\""),
            (500, "jinja2.exceptions.TemplateError: System role not supported"),
            (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        ] {
            let mut roles = Roles::default();
            assert!(roles.learn(&refusal(status, words), &conversation()), "{words}");
            assert_eq!(text(roles)[0].split("||").next(), Some("User: S"), "{words}");
            roles.learn(&refusal(status, words), &roles.shape(&conversation()));
            assert!(
                !roles.learn(&refusal(status, words), &roles.shape(&conversation())),
                "a repeated refusal should teach nothing"
            );
        }
    }

    #[test]
    fn other_refusals_teach_nothing_about_roles() {
        for (status, words) in [
            (400, "max_tokens must be at most 4096"),
            (500, "model requires more system memory (9 GiB) than is available"),
            (500, "CUDA out of memory"),
            (429, "System role not supported"),
            (401, "invalid role for this key"),
            (400, "This model's maximum context length is 10 tokens; shorten the system prompt"),
        ] {
            assert!(!Roles::default().learn(&refusal(status, words), &conversation()), "{words}");
        }
    }

    #[test]
    fn messages_are_joined_where_roles_must_alternate_and_an_allowed_system_message_stays() {
        let mut roles = Roles::default();
        let words = "After the optional system message, conversation roles must alternate user/assistant/...";
        assert!(roles.learn(&refusal(400, words), &conversation()));
        assert_eq!(text(roles), ["System: S", "User: a||b", "Assistant: c", "User: d"]);
        assert!(roles.learn(&refusal(400, words), &conversation()), "the system role should be dropped next");
        assert_eq!(text(roles), ["User: S||a||b", "Assistant: c", "User: d"]);
    }

    #[test]
    fn a_failing_template_gets_the_plainest_conversation() {
        let mut roles = Roles::default();
        assert!(
            roles.learn(&refusal(500, "Value is not callable: null at row 12, column 40"), &conversation())
        );
        assert_eq!(text(roles), ["User: S||a||b", "Assistant: c", "User: d"]);
    }
}
