//! Compacts a conversation: drops old results first, then whole exchanges. The head (instructions
//! and task), the user's messages and the last exchange are kept.
//!
//! Effect on the prompt cache: everything after the head must be evaluated again. Compaction is
//! therefore rare, and shrinks the conversation in one large step to a target well below the
//! threshold that triggers it.

use std::sync::Arc;

use models::{Message, Role};

/// The number of messages at the end that are always kept: the last answer and its result.
const TAIL: usize = 2;
/// A result with more bytes than this is reduced to its first line.
const LONG: usize = 240;
/// Maximum number of dropped results that the note lists. It lists the newest ones.
const NAMED: usize = 12;

/// How long a conversation may be, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// The length to reduce the conversation to: short enough that the next compaction is far off.
    pub(crate) target: u64,
    /// The maximum length, accepted only if the target cannot be reached.
    pub(crate) limit: u64,
}

/// What has been dropped from a conversation.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// One line per result.
    lines: Vec<String>,
    /// The user's messages, in full.
    user_messages: Vec<String>,
    /// The note at the end of the task's message. It contains `lines` and `user_messages`.
    note: String,
}

/// Returns a shorter version of the conversation, or `None` if it cannot be made short enough.
/// `tokens` measures the length of a conversation. `note` renders the note about dropped results,
/// given one line per result. `by_user` selects the messages whose text is kept: when one of them
/// is dropped, its text is moved to the task's message.
pub(crate) fn compact(
    messages: &[Arc<Message>],
    dropped: &mut Dropped,
    room: Room,
    tokens: impl Fn(&[Arc<Message>]) -> u64,
    note: impl Fn(&[String]) -> String,
    by_user: impl Fn(&Message) -> bool,
) -> Option<Vec<Arc<Message>>> {
    // The head is always kept: the system prompt, if there is one, and the task.
    let head = messages.iter().take_while(|m| m.role != Role::Assistant).count();
    if messages.len() <= head + TAIL {
        return None;
    }
    let (head, rest) = messages.split_at(head);
    let (middle, tail) = rest.split_at(rest.len() - TAIL);
    // First drop the text of old results, oldest first: it costs the most and is worth the least.
    let mut stubbed: Vec<Arc<Message>> = middle.to_vec();
    let join = |middle: &[Arc<Message>]| [head, middle, tail].concat();
    for i in 0..stubbed.len() {
        let message = &stubbed[i];
        if message.role == Role::User && message.content.len() > LONG && !by_user(message) {
            let content = format!("{}\n[omitted to save space]", first_line(&message.content));
            Arc::make_mut(&mut stubbed[i]).content = content;
            if tokens(&join(&stubbed)) <= room.target {
                return Some(join(&stubbed));
            }
        }
    }
    // Then drop whole exchanges, oldest first. A note is appended to the task's message, so that
    // user and assistant messages still alternate.
    let (task, before) = head.split_last()?;
    let plain = task.content.strip_suffix(&dropped.note).unwrap_or(&task.content);
    for drop in (2..=stubbed.len()).step_by(2).chain([stubbed.len()]) {
        let user_side = stubbed[..drop].iter().filter(|m| m.role == Role::User);
        let (by_user, results): (Vec<_>, Vec<_>) = user_side.partition(|m| by_user(m));
        let mut user_messages = dropped.user_messages.clone();
        user_messages.extend(by_user.iter().map(|m| m.content.clone()));
        let mut lines = dropped.lines.clone();
        lines.extend(results.iter().map(|m| first_line(&m.content).to_owned()));
        lines.drain(..lines.len().saturating_sub(NAMED));
        let mut appendix: String = user_messages.iter().map(|text| format!("\n\n{text}")).collect();
        if !lines.is_empty() {
            appendix = format!("{appendix}\n\n{}", note(&lines));
        }
        let content = format!("{plain}{appendix}");
        let task = Message { content, ..(**task).clone() };
        let shorter = [before, &[task.into()], &stubbed[drop..], tail].concat();
        let enough = if drop == stubbed.len() { room.limit } else { room.target };
        if tokens(&shorter) <= enough && tokens(&shorter) < tokens(messages) {
            *dropped = Dropped { lines, user_messages, note: appendix };
            return Some(shorter);
        }
    }
    None
}

fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let end =
        line.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= LONG).last().unwrap_or(0);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(results: usize, size: usize) -> Vec<Arc<Message>> {
        let message = |role, content: String| Arc::new(Message::new(role, content));
        let mut messages =
            vec![message(Role::System, "rules".into()), message(Role::User, "the task".into())];
        for i in 0..results {
            messages.push(message(Role::Assistant, format!("call {i}")));
            messages.push(message(Role::User, format!("read_file f{i}: ok\n{}", "x".repeat(size))));
        }
        messages
    }

    fn bytes(messages: &[Arc<Message>]) -> u64 {
        messages.iter().map(|m| m.content.len() as u64).sum()
    }

    fn note(dropped: &[String]) -> String {
        format!("done before: {}", dropped.join("; "))
    }

    fn compact(messages: &[Arc<Message>], target: u64) -> Option<Vec<Arc<Message>>> {
        let room = Room { target, limit: target };
        super::compact(messages, &mut Dropped::default(), room, bytes, note, |_| false)
    }

    #[test]
    fn old_results_are_dropped_first_and_the_task_and_last_result_stay() {
        let before = conversation(4, 1000);
        let after = compact(&before, 2500).unwrap();
        assert_eq!(after.len(), before.len());
        assert_eq!(after[..2], before[..2]);
        assert_eq!(after[3].content, "read_file f0: ok\n[omitted to save space]");
        assert_eq!(after.last(), before.last());
    }

    #[test]
    fn compaction_reaches_the_target_or_returns_none() {
        for results in 1..20 {
            for target in [50, 200, 400, 1200, 3000, 9000] {
                let before = conversation(results, 500);
                match compact(&before, target) {
                    Some(after) => {
                        assert!(bytes(&after) <= target);
                        assert!(after[1].content.starts_with("the task"));
                        let roles: Vec<_> = after.iter().skip(1).map(|m| m.role).collect();
                        assert!(roles.windows(2).all(|w| w[0] != w[1]), "roles should alternate: {roles:?}");
                    }
                    None => assert!(results <= 1 || target < 1200, "{results} {target}"),
                }
            }
        }
    }

    #[test]
    fn repeated_compaction_keeps_one_note_about_the_newest_results() {
        let (mut messages, mut dropped) = (conversation(1, 10), Dropped::default());
        for i in 1..200 {
            messages.extend(conversation(1, 100).split_off(2));
            let last = messages.len() - 1;
            Arc::make_mut(&mut messages[last]).content = format!("result {i}\n{}", "x".repeat(100));
            if bytes(&messages) > 2_000 {
                let room = Room { target: 1_000, limit: 2_000 };
                messages = super::compact(&messages, &mut dropped, room, bytes, note, |_| false).unwrap();
                assert_eq!(messages[1].content.matches("done before").count(), 1);
            }
        }
        let named =
            messages[1].content.split_once("done before: ").unwrap().1.split("; ").collect::<Vec<_>>();
        assert_eq!(named.len(), NAMED);
        let first: u32 = named[0].strip_prefix("result ").unwrap().parse().unwrap();
        assert!(first > 150, "{named:?}");
        assert_eq!(named[1], format!("result {}", first + 1));
    }

    #[test]
    fn the_users_messages_are_never_shortened_or_dropped() {
        let mut before = conversation(6, 400);
        let message = format!("also update the docs\n{}", "and say why ".repeat(30));
        Arc::make_mut(&mut before[5]).content.clone_from(&message);
        let mut dropped = Dropped::default();
        let mut messages = before;
        for (target, limit) in [(2_500, 2_500), (700, 1_400)] {
            let room = Room { target, limit };
            let by_user = |m: &Message| m.content == message;
            messages = super::compact(&messages, &mut dropped, room, bytes, note, by_user).unwrap();
            let all: String = messages.iter().map(|m| m.content.as_str()).collect();
            assert_eq!(all.matches(&message).count(), 1, "at {target}");
        }
        assert!(messages[1].content.contains(&message), "should have moved to the task: {:?}", messages[1]);
    }

    #[test]
    fn a_long_last_result_may_take_more_than_the_target() {
        let before = conversation(3, 500);
        let room = Room { target: 300, limit: 900 };
        let after = super::compact(&before, &mut Dropped::default(), room, bytes, note, |_| false).unwrap();
        assert_eq!(after.len(), 4);
        assert!(bytes(&after) > 500);
    }
}
