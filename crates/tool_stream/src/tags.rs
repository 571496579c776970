//! Tags and special tokens: everything between `<` and `>` that means something between model and agent.
//!
//! DeepSeek's tokens arrive in many spellings (wire reference 4): full-width, double or ASCII bars, `▁`, `_` or a
//! space between the words. All are folded to one before they are compared.

/// Bytes of a tag, at most.
pub(crate) const MAX_TAG: usize = 256;

/// What a tag means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tag {
    /// `<think>` and its like.
    ThinkOpen,
    ThinkClose,
    /// Something around calls, or a token of no meaning: not shown.
    Noise,
    /// Announces a call: `<tool_call>`, `<|python_tag|>`.
    Announce,
    /// DeepSeek and Kimi: a call with its name before the arguments.
    CallBegin,
    /// Between name and arguments.
    Separator,
    CallEnd,
    /// `<invoke name="f">`, `<function=f>`, in DSML or plain.
    Invoke {
        name: String,
    },
    InvokeEnd,
    /// `<parameter name="p" string="true">`, `<parameter=p>`.
    Parameter {
        name: String,
        string: Option<bool>,
    },
    ParameterEnd,
    /// `<arg_key>` and `<arg_value>` of GLM.
    ArgKey,
    ArgKeyEnd,
    ArgValue,
    ArgValueEnd,
    /// What a tool answered, in the model's imagination.
    ResultOpen,
    ResultClose,
    /// A turn of somebody else begins.
    Foreign,
    /// The assistant's turn begins.
    Assistant,
    /// `<|im_start|>`, `<|start|>`: the role follows as a word.
    Turn,
    /// `<|channel|>`: the channel follows as a word.
    Channel,
}

/// The meaning of `tag`, which runs from `<` to `>`; `None` if it is ordinary text.
pub(crate) fn classify(tag: &[u8]) -> Option<Tag> {
    let text = std::str::from_utf8(tag).ok()?;
    let inner = text.strip_prefix('<')?.strip_suffix('>')?;
    let folded = fold(inner);
    let (folded, closing) = match folded.trim_start().strip_prefix('/') {
        Some(rest) => (rest, true),
        None => (folded.trim_start(), false),
    };
    match folded.strip_prefix('|') {
        Some(token) => special(token, closing),
        None => match folded.strip_prefix("DSML|").or_else(|| folded.strip_prefix("dsml|")) {
            Some(rest) => element(rest, closing),
            None => element(folded, closing),
        },
    }
}

/// One bar for every run of bars, `_` for `▁`.
fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            _ if quoted => out.push(c),
            '｜' | '‖' | '|' | '¦' | '│' | '∥' => {
                if !out.ends_with('|') {
                    out.push('|');
                }
            }
            '▁' => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

fn special(token: &str, closing: bool) -> Option<Tag> {
    let lower = token.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("dsml") {
        let rest = &token[token.len() - rest.len()..];
        let rest = rest.trim_start_matches(['|', ' ', '_']);
        let (rest, closing) = match rest.strip_prefix('/') {
            Some(rest) => (rest, true),
            None => (rest, closing),
        };
        return element(rest.trim_end_matches(['|', ' ']), closing);
    }
    let word = lower.trim_matches(['|', ' ', '_']).replace([' ', '-'], "_");
    Some(match word.as_str() {
        "tool_calls_begin"
        | "tool_calls_end"
        | "tool_calls_section_begin"
        | "tool_calls_section_end"
        | "function_calls_begin"
        | "function_calls_end" => Tag::Noise,
        "tool_call_begin" | "function_call_begin" => Tag::CallBegin,
        "tool_sep" | "tool_call_sep" | "tool_call_argument_begin" | "constrain" | "message" => Tag::Separator,
        "tool_call_end" | "function_call_end" | "call" => Tag::CallEnd,
        "tool_outputs_begin" | "tool_output_begin" | "tool_response" | "tool_result" => Tag::ResultOpen,
        "tool_outputs_end" | "tool_output_end" => Tag::ResultClose,
        "user" | "system" => Tag::Foreign,
        "assistant" => Tag::Assistant,
        "im_start" | "start" | "start_header_id" => Tag::Turn,
        "channel" => Tag::Channel,
        "tool_call" | "python_tag" | "start_action" | "tool_call_start" => Tag::Announce,
        "im_end" | "end_of_sentence" | "begin_of_sentence" | "eot" | "eot_id" | "eom_id" | "endoftext"
        | "end" | "return" | "end_of_text" | "begin_of_text" | "end_header_id" | "end_action"
        | "fim_begin" | "fim_hole" | "fim_end" | "end_of_turn" | "start_of_turn" | "sep" | "pad" => {
            Tag::Noise
        }
        "tool_call_end_" => Tag::CallEnd,
        _ => return None,
    })
}

fn element(text: &str, closing: bool) -> Option<Tag> {
    let text = text.trim();
    let empty = text.ends_with('/');
    let text = text.trim_end_matches('/').trim_end();
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '-'))).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.rsplit(':').next().unwrap_or(name).to_ascii_lowercase();
    let plain = rest.trim().is_empty();
    Some(match (name.as_str(), closing) {
        ("think" | "thinking" | "thought" | "thoughts" | "reasoning", false) if plain && empty => Tag::Noise,
        ("think" | "thinking" | "thought" | "thoughts" | "reasoning", false) if plain => Tag::ThinkOpen,
        ("think" | "thinking" | "thought" | "thoughts" | "reasoning", true) if plain => Tag::ThinkClose,
        ("tool_call" | "function_call" | "toolcall" | "tool_use", false) => Tag::Announce,
        ("tool_call" | "function_call" | "toolcall" | "tool_use", true) if plain => Tag::CallEnd,
        ("tool_calls" | "function_calls" | "toolcalls", _) if plain => Tag::Noise,
        ("function" | "invoke", false) => Tag::Invoke { name: subject(rest)? },
        ("function" | "invoke", true) => Tag::InvokeEnd,
        ("parameter" | "param", false) => Tag::Parameter {
            name: subject(rest)?,
            string: attribute(rest, "string").map(|v| v.eq_ignore_ascii_case("true")),
        },
        ("parameter" | "param", true) => Tag::ParameterEnd,
        ("arg_key", false) => Tag::ArgKey,
        ("arg_key", true) => Tag::ArgKeyEnd,
        ("arg_value", false) => Tag::ArgValue,
        ("arg_value", true) => Tag::ArgValueEnd,
        (
            "tool_response" | "tool_result" | "tool_results" | "function_results" | "function_response"
            | "tool_output",
            false,
        ) if plain => Tag::ResultOpen,
        (
            "tool_response" | "tool_result" | "tool_results" | "function_results" | "function_response"
            | "tool_output",
            true,
        ) if plain => Tag::ResultClose,
        ("s", true) => Tag::Noise,
        ("end_of_turn" | "start_of_turn", false) if plain => Tag::Noise,
        _ => return None,
    })
}

/// The name in `=NAME` or ` name="NAME"`.
fn subject(rest: &str) -> Option<String> {
    let name = match rest.trim_start().strip_prefix('=') {
        Some(name) => name.trim().trim_matches(['"', '\'']).to_owned(),
        None => attribute(rest, "name")?,
    };
    if name.is_empty() { None } else { Some(name) }
}

/// The value of an attribute, quoted or bare.
fn attribute(rest: &str, wanted: &str) -> Option<String> {
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.chars().next()? {
            q @ ('"' | '\'' | '“' | '”') => {
                let body = &after[q.len_utf8()..];
                let close = body.find([q, '“', '”'])?;
                let width = body[close..].chars().next().map_or(1, char::len_utf8);
                (&body[..close], &body[close + width..])
            }
            _ => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (&after[..end], &after[end..])
            }
        };
        if name.trim() == wanted {
            return Some(value.to_owned());
        }
        rest = next.trim_start();
    }
    None
}
