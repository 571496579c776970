//! Control tokens of chat templates in text that is data: tokens that end a turn, name a role or
//! open a call.
//!
//! Servers tokenize the whole prompt at once, so `<|im_end|>` in a file would end the message that
//! shows the file. A space after its first character makes it plain text, visibly. A model that
//! edits such a file writes the space too, and [`restored`] removes it.
//!
//! ```
//! use tool_api::control_tokens::{broken, restored};
//! assert_eq!(broken("a <|im_end|> b <|> c"), "a < |im_end|> b <|> c");
//! assert_eq!(*restored(b"a < |im_end|> b"), *b"a <|im_end|> b");
//! ```

use std::borrow::Cow;

/// Longest word between `<|` and `|>`, in bytes.
const LONGEST: usize = 64;

/// Words between `<` and `>`: Gemma, Llama 2, Mistral, Qwen, GLM, Hermes, and think blocks.
const ANGLE: &[&str] = &[
    "/s",
    "/think",
    "/thinking",
    "/tool_call",
    "/tool_response",
    "/tools",
    "bos",
    "end_of_image",
    "end_of_turn",
    "eop",
    "eos",
    "mask",
    "pad",
    "s",
    "seed:think",
    "seed:tool_call",
    "sop",
    "start_of_image",
    "start_of_turn",
    "think",
    "thinking",
    "tool_call",
    "tool_response",
    "tools",
    "unk",
];

/// Words between `[` and `]`: Mistral and GLM.
const SQUARE: &[&str] = &[
    "/AVAILABLE_TOOLS",
    "/INST",
    "/SYSTEM_PROMPT",
    "/THINK",
    "/TOOL_RESULTS",
    "AVAILABLE_TOOLS",
    "INST",
    "SYSTEM_PROMPT",
    "THINK",
    "TOOL_CALLS",
    "TOOL_CONTENT",
    "TOOL_RESULTS",
    "gMASK",
    "sMASK",
];

/// First byte and rest of tokens of other shapes: Llama 2's system prompt, MiniMax.
const ODD: &[(u8, &str)] =
    &[(b'<', "<SYS>>"), (b'<', "</SYS>>"), (b']', "~b]"), (b']', "~!b["), (b'[', "e~[")];

/// Whether `first` and `rest` begin with a token.
fn is_token(first: u8, rest: &[u8]) -> bool {
    let within = |names: &[&str], close: u8| {
        names
            .iter()
            .any(|name| rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&close)))
    };
    let odd = || ODD.iter().any(|(begin, odd)| *begin == first && rest.starts_with(odd.as_bytes()));
    match (first, rest) {
        (b'<', [b'|', rest @ ..]) => bar(rest) || odd(),
        // Every DeepSeek token starts with this bar, so its name does not matter.
        (b'<', _) => rest.starts_with("｜".as_bytes()) || within(ANGLE, b'>') || odd(),
        (b'[', _) => within(SQUARE, b']') || odd(),
        (b']', _) => odd(),
        _ => false,
    }
}

/// Whether `rest` begins with a word and `|>`, as in `im_start|>`. `<|>` is an operator in some
/// languages.
fn bar(rest: &[u8]) -> bool {
    let word =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/' | b'.' | b':') || !b.is_ascii();
    let len = rest.iter().take(LONGEST + 1).take_while(|b| word(b)).count();
    (1..=LONGEST).contains(&len) && rest[len..].starts_with(b"|>")
}

fn begins(byte: u8) -> bool {
    matches!(byte, b'<' | b'[' | b']')
}

/// The text with every token broken by a space.
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

/// The text with every broken token restored.
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
        ] {
            let text = format!("a {token} b{token}{token}\n{token}");
            let broken = broken(&text);
            assert!(!broken.contains(token), "{token}: {broken}");
            assert_eq!(super::broken(&broken), broken, "twice is once");
            assert_eq!(restored(broken.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn what_programs_are_made_of_stays() {
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
