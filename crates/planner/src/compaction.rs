//! Making a conversation shorter: old results first, then whole exchanges; the head (instructions, task) and the last exchange stay.
//!
//! Effect on the prompt cache: everything behind the head is evaluated anew, so it is done rarely and in a large step: down to the
//! given target, well below the point that calls for it.

use models::{Message, Role};

/// Messages at the end that never go: the last answer and its result.
const TAIL: usize = 2;
/// A result longer than this is cut down to its first line.
const LONG: usize = 240;
/// Of what was dropped so many results are still named, the newest.
const NAMED: usize = 12;

/// How long a conversation may be, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// What to come down to, so that it is long until the next time.
    pub(crate) target: u64,
    /// What will do when that cannot be reached.
    pub(crate) limit: u64,
}

/// What has been dropped from a conversation.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// A line for each result.
    lines: Vec<String>,
    /// What the task's message says of it, at its end.
    note: String,
}

/// A shorter conversation by `tokens`, or `None` when head and tail alone do not fit. `note` words what is said of the results that were
/// dropped, given a line for each.
pub(crate) fn compact(
    messages: &[Message],
    dropped: &mut Dropped,
    room: Room,
    tokens: impl Fn(&[Message]) -> u64,
    note: impl Fn(&[String]) -> String,
) -> Option<Vec<Message>> {
    // The head never goes: the system prompt, where there is one, and the task.
    let head = messages.iter().take_while(|m| m.role != Role::Assistant).count();
    if messages.len() <= head + TAIL {
        return None;
    }
    let (head, rest) = messages.split_at(head);
    let (middle, tail) = rest.split_at(rest.len() - TAIL);
    // First what costs most and is worth least: the text of old results, oldest first.
    let mut stubbed: Vec<Message> = middle.to_vec();
    let join = |middle: &[Message]| [head, middle, tail].concat();
    for i in 0..stubbed.len() {
        if stubbed[i].role == Role::User && stubbed[i].content.len() > LONG {
            stubbed[i].content = format!("{}\n[left out to save space]", first_line(&stubbed[i].content));
            if tokens(&join(&stubbed)) <= room.target {
                return Some(join(&stubbed));
            }
        }
    }
    // Then whole exchanges, oldest first, behind a note in the task's message, so that user and model still take turns.
    let (task, before) = head.split_last()?;
    let plain = task.content.strip_suffix(&dropped.note).unwrap_or(&task.content);
    for drop in (2..=stubbed.len()).step_by(2).chain([stubbed.len()]) {
        let results = stubbed[..drop].iter().filter(|m| m.role == Role::User);
        let mut lines = dropped.lines.clone();
        lines.extend(results.map(|m| first_line(&m.content).to_owned()));
        lines.drain(..lines.len().saturating_sub(NAMED));
        let said = if lines.is_empty() { String::new() } else { format!("\n\n{}", note(&lines)) };
        let task = Message { content: format!("{plain}{said}"), ..task.clone() };
        let shorter = [before, &[task], &stubbed[drop..], tail].concat();
        let enough = if drop == stubbed.len() { room.limit } else { room.target };
        if tokens(&shorter) <= enough && tokens(&shorter) < tokens(messages) {
            *dropped = Dropped { lines, note: said };
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

    fn conversation(results: usize, size: usize) -> Vec<Message> {
        let message = |role, content: String| Message { role, content, thinking: None };
        let mut messages =
            vec![message(Role::System, "rules".into()), message(Role::User, "the task".into())];
        for i in 0..results {
            messages.push(message(Role::Assistant, format!("call {i}")));
            messages.push(message(Role::User, format!("read_file f{i}: ok\n{}", "x".repeat(size))));
        }
        messages
    }

    fn bytes(messages: &[Message]) -> u64 {
        messages.iter().map(|m| m.content.len() as u64).sum()
    }

    fn note(dropped: &[String]) -> String {
        format!("done before: {}", dropped.join("; "))
    }

    fn compact(messages: &[Message], target: u64) -> Option<Vec<Message>> {
        let room = Room { target, limit: target };
        super::compact(messages, &mut Dropped::default(), room, bytes, note)
    }

    #[test]
    fn old_results_go_before_exchanges_and_the_task_and_last_result_stay() {
        let before = conversation(4, 1000);
        let after = compact(&before, 2500).unwrap();
        assert_eq!(after.len(), before.len());
        assert_eq!(after[..2], before[..2]);
        assert_eq!(after[3].content, "read_file f0: ok\n[left out to save space]");
        assert_eq!(after.last(), before.last());
    }

    #[test]
    fn it_meets_the_target_or_says_that_it_cannot() {
        for results in 1..20 {
            for target in [50, 200, 400, 1200, 3000, 9000] {
                let before = conversation(results, 500);
                match compact(&before, target) {
                    Some(after) => {
                        assert!(bytes(&after) <= target);
                        assert!(after[1].content.starts_with("the task"));
                        let roles: Vec<_> = after.iter().skip(1).map(|m| m.role).collect();
                        assert!(roles.windows(2).all(|w| w[0] != w[1]), "they take turns: {roles:?}");
                    }
                    None => assert!(results <= 1 || target < 1200, "{results} {target}"),
                }
            }
        }
    }

    #[test]
    fn a_conversation_made_shorter_again_and_again_keeps_one_note_of_the_newest_results() {
        let (mut messages, mut dropped) = (conversation(1, 10), Dropped::default());
        for i in 1..200 {
            messages.extend(conversation(1, 100).split_off(2));
            let last = messages.len() - 1;
            messages[last].content = format!("result {i}\n{}", "x".repeat(100));
            if bytes(&messages) > 2_000 {
                let room = Room { target: 1_000, limit: 2_000 };
                messages = super::compact(&messages, &mut dropped, room, bytes, note).unwrap();
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
    fn a_long_last_result_may_take_more_than_the_target() {
        let before = conversation(3, 500);
        let room = Room { target: 300, limit: 900 };
        let after = super::compact(&before, &mut Dropped::default(), room, bytes, note).unwrap();
        assert_eq!(after.len(), 4);
        assert!(bytes(&after) > 500);
    }
}
