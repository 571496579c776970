//! Neutralizes the control tokens of chat templates in text that is only data. These tokens end a
//! turn, name a role or open a call.
//!
//! Servers tokenize the whole prompt at once, so `<|im_end|>` in a file would end the message that
//! shows the file. [`broken`] therefore inserts a space after the token's first character: the
//! token becomes plain text, but the change stays visible. A model that edits such a file also
//! writes the space, and [`restored`] removes it.
//!
//! ```
//! use tool_stream::control_tokens::{broken, restored};
//! assert_eq!(broken("a <|im_end|> b <|> c"), "a < |im_end|> b <|> c");
//! assert_eq!(*restored(b"a < |im_end|> b"), *b"a <|im_end|> b");
//! ```

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::dialects::{DIALECTS, NOISE, THOUGHTS, TURNS};
use crate::tags;

/// Longest word between `<|` and `|>`, in bytes.
const LONGEST: usize = 64;

/// Tokens missing from `dialects.rs`: those that no model writes in an answer, and those that the
/// parser recognizes by name alone.
const OTHERS: &str = "
    <s> <bos> <eos> <pad> <unk> <mask> <sop> <eop> <start_of_image> <end_of_image>
    <think> </think> <thinking> </thinking> <longcat_think> </longcat_think> <seed:think> </seed:think>
    <tools> </tools> <seed:tool_call> </seed:tool_call> <minimax:tool_call> </minimax:tool_call>
    <tool_calls:opensource> </tool_calls:opensource> <tool_call:opensource> </tool_call:opensource>
    <tool_responses:opensource> </tool_responses:opensource>
    <tool_response:opensource> </tool_response:opensource>
    <start_function_declaration> <end_function_declaration> <unused94> <unused95>
    <<SYS>> <</SYS>> [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS]
    [TOOL_CONTENT] [gMASK] [sMASK] [unused9] [unused10]";

/// Every token that is not a word between bars, split into its first byte and the rest. These
/// tokens open or close a call, begin or end a turn, or mean nothing in an answer. Thinking
/// elements such as `<plan>` are left out, because files use these names too.
static TOKENS: LazyLock<Vec<(u8, &'static [u8])>> = LazyLock::new(|| {
    let calls = DIALECTS.iter().flat_map(|d| [d.open, d.list, d.close]).flatten();
    let thoughts = THOUGHTS.iter().flat_map(|t| [t.open, t.close]).flatten();
    let thoughts = thoughts.filter(|token| tags::is_token(token.as_bytes()));
    let all = calls.chain(thoughts).chain(NOISE).chain(TURNS.iter().map(|(token, _)| token)).copied();
    let parts = all.chain(OTHERS.split_whitespace()).filter_map(|token| token.as_bytes().split_first());
    parts.map(|(first, rest)| (*first, rest)).filter(|(first, _)| begins(*first)).collect()
});

/// Returns whether `first` followed by `rest` begins with a token.
fn is_token(first: u8, rest: &[u8]) -> bool {
    match (first, rest) {
        (b'<', [b'|', rest @ ..]) if bar(rest) => true,
        // Every DeepSeek token starts with this bar, so the token's name does not matter.
        (b'<', _) if rest.starts_with("｜".as_bytes()) => true,
        _ => TOKENS.iter().any(|(begin, end)| *begin == first && rest.starts_with(end)),
    }
}

/// Returns whether `rest` begins with a word and `|>`, as in `im_start|>`. The word must not be
/// empty, because `<|>` is an operator in some languages.
fn bar(rest: &[u8]) -> bool {
    let word =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.' | b':') || !b.is_ascii();
    let len = rest.iter().take(LONGEST + 1).take_while(|b| word(b)).count();
    (1..=LONGEST).contains(&len) && rest[len..].starts_with(b"|>")
}

fn begins(byte: u8) -> bool {
    matches!(byte, b'<' | b'[' | b']')
}

/// Returns the text with every token broken by a space.
#[must_use]
pub fn broken(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut from) = (String::new(), 0);
    for at in (0..bytes.len()).filter(|at| begins(bytes[*at])) {
        if is_token(bytes[at], &bytes[at + 1..]) {
            out.push_str(&text[from..=at]);
            out.push(' ');
            from = at + 1;
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// Returns the text with every broken token restored.
#[must_use]
pub fn restored(text: &[u8]) -> Cow<'_, [u8]> {
    let (mut out, mut from) = (Vec::new(), 0);
    for at in (0..text.len()).filter(|at| begins(text[*at]) && text.get(at + 1) == Some(&b' ')) {
        if is_token(text[at], &text[at + 2..]) {
            out.extend_from_slice(&text[from..=at]);
            from = at + 2;
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[from..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_every_family_are_broken_and_can_be_restored() {
        for token in [
            "<|im_start|>",
            "<|im_end|>",
            "<|endoftext|>",
            "<|eot_id|>",
            "<|python_tag|>",
            "<|reserved_special_token_7|>",
            "<｜tool▁calls▁begin｜>",
            "<｜User｜>",
            "<|begin▁of▁sentence|>",
            "<|tool_calls_section_begin|>",
            "<|START_OF_TURN_TOKEN|>",
            "<start_of_turn>",
            "<bos>",
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "<<SYS>>",
            "<</SYS>>",
            "[TOOL_CALLS]",
            "[gMASK]",
            "<think>",
            "</think>",
            "<tool_call>",
            "]~b]",
            "[e~[",
            "<|channel|>",
            // An earlier version did not break these tokens, because only `dialects.rs` listed
            // them.
            "<start_function_call>",
            "<end_function_response>",
            "<longcat_tool_call>",
            "<minimax:tool_call>",
            "<tool_call:opensource>",
            "[unused11]",
            "<|turn>",
            "<turn|>",
            "<|tool_call>",
            "]<]minimax[>[",
        ] {
            let text = format!("a {token} b{token}{token}\n{token}");
            let broken = broken(&text);
            assert!(!broken.contains(token), "{token}: {broken}");
            assert_eq!(super::broken(&broken), broken, "breaking tokens again should change nothing");
            assert_eq!(restored(broken.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn every_example_call_that_begins_with_a_familys_own_token_is_broken() {
        for dialect in DIALECTS.iter().filter(|d| d.example.starts_with(['<', '['])) {
            let opens =
                dialect.open.iter().chain(dialect.list).any(|token| dialect.example.starts_with(token));
            assert!(!opens || matches!(broken(dialect.example), Cow::Owned(_)), "{}", dialect.families);
        }
    }

    #[test]
    fn program_text_is_not_changed() {
        for text in [
            "a <|> b",
            "x < y",
            "<div>",
            "f <| g |> h",
            "a[i]",
            "[ARGS]",
            "Vec<s::T>",
            "<|",
            "a <||> b",
            "<sub>",
            "i<|a b|>",
        ] {
            assert_eq!(broken(text), text);
            assert_eq!(restored(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(restored(b"< |> x < y [ i ]"), b"< |> x < y [ i ]" as &[u8]);
    }
}
