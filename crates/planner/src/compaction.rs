//! Making a conversation shorter: old results first, then whole exchanges; the head (instructions, task) and the last exchange stay.
//!
//! Effect on the prompt cache: everything behind the head is evaluated anew, so it is done rarely and in a large step: down to the
//! given target, well below the point that calls for it.

use models::{Message, Role};

/// Messages at the end that never go: the last answer and its result.
const TAIL: usize = 2;
/// A result longer than this is cut down to its first line.
const LONG: usize = 240;

/// A conversation of at most `target` tokens by `tokens`, or `None` when head and tail alone are longer. `note` words the message
/// that stands for what was dropped; it is given one line per dropped result.
pub(crate) fn compact(
    messages: &[Message],
    target: u64,
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
            if tokens(&join(&stubbed)) <= target {
                return Some(join(&stubbed));
            }
        }
    }
    // Then whole exchanges, oldest first, behind one message that lists them.
    for drop in (2..=stubbed.len()).step_by(2).chain([stubbed.len()]) {
        let dropped: Vec<String> = stubbed[..drop]
            .iter()
            .filter(|m| m.role == Role::User)
            .map(|m| first_line(&m.content).to_owned())
            .collect();
        // The note joins the task's message, so that user and model still take turns.
        let mut shorter = head.to_vec();
        if let Some(task) = shorter.last_mut() {
            task.content =
                format!("{}\n\n{}", task.content, note(&dropped[dropped.len().saturating_sub(12)..]));
        }
        shorter.extend_from_slice(&stubbed[drop..]);
        shorter.extend_from_slice(tail);
        if tokens(&shorter) <= target && tokens(&shorter) < tokens(messages) {
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

    #[test]
    fn old_results_go_before_exchanges_and_the_task_and_last_result_stay() {
        let before = conversation(4, 1000);
        let after = compact(&before, 2500, bytes, note).unwrap();
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
                match compact(&before, target, bytes, note) {
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
}
