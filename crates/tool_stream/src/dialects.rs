//! How model families write calls, thinking and turns. `tags.rs` uses these tables.
//!
//! A call consists of an opening token, the tool's name, the arguments and a closing token.
//! Families differ in their tokens and in where they put the name. Because models mix the forms,
//! any form may follow any opening token: JSON that either names the tool or holds only its
//! arguments (`object.rs`), elements with text values (`markup.rs`), or a Python call
//! (`python.rs`). To add a family, add a row here and a file in `fixtures/streams/families`.
//!
//! Tokens are spelled as [`fold`](crate::tags::fold) normalizes them: lowercase, ASCII bars, `_`
//! between words. Sources: chat templates, and the tool parsers of vLLM, SGLang and llama.cpp.

/// The call syntax of one or more model families.
pub(crate) struct Dialect {
    /// The families that use it.
    #[allow(dead_code, reason = "for readers and tests")]
    pub(crate) families: &'static str,
    /// A call to `read_file` with `path` set to `a.py`, as the families write it.
    #[allow(dead_code, reason = "for readers and tests")]
    pub(crate) example: &'static str,
    /// Tokens that open a call. If the dialect has tokens in `between`, its `<|…|>` tokens are used
    /// only in calls. All other tokens may also occur in prose.
    pub(crate) open: &'static [&'static str],
    /// Tokens around a list of calls.
    pub(crate) list: &'static [&'static str],
    /// Tokens between the parts of a call's head.
    pub(crate) between: &'static [&'static str],
    /// Tokens that close a call. At the end of an answer that the model ended on its own, a call's
    /// closing element may be missing if its last value is complete.
    pub(crate) close: &'static [&'static str],
    /// Elements that carry the tool's name, such as `<invoke name="…">` or `<function=…>`.
    pub(crate) calls: &'static [&'static str],
    /// Elements that carry an argument's name and hold its value.
    pub(crate) parameters: &'static [&'static str],
    /// Pairs of elements: the first holds an argument's name, and the second holds its value.
    pub(crate) pairs: &'static [(&'static str, &'static str)],
    /// The tokens before an argument's name, before its value, and after its value.
    pub(crate) fields: &'static [(&'static str, &'static str, &'static str)],
}

const NONE: Dialect = Dialect {
    families: "",
    example: "",
    open: &[],
    list: &[],
    between: &[],
    close: &[],
    calls: &[],
    parameters: &[],
    pairs: &[],
    fields: &[],
};

/// Every call syntax that has its own tokens. Plain JSON, Python and ReAct lines need none.
pub(crate) const DIALECTS: &[Dialect] = &[
    Dialect {
        families: "Hermes, Qwen 2.5 and 3, Granite 4, ERNIE 4.5, Jamba, InternVL",
        example: "<tool_call>\n{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}\n</tool_call>",
        open: &["<tool_call>", "<toolcall>", "<function_call>", "<tool_use>"],
        list: &["<tool_calls>", "</tool_calls>", "<toolcalls>", "</toolcalls>"],
        close: &["</tool_call>", "</toolcall>", "</function_call>", "</tool_use>"],
        ..NONE
    },
    Dialect {
        families: "Qwen3-Coder, Seed-OSS, Step 3.5, Nemotron 3",
        example: "<tool_call>\n<function=read_file>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>",
        calls: &["function"],
        parameters: &["parameter", "param"],
        ..NONE
    },
    Dialect {
        families: "Anthropic's tags, MiniMax M2 and M3, Step 3, xAI, dots",
        example: "<function_calls>\n<invoke name=\"read_file\">\n<parameter name=\"path\">a.py</parameter>\n</invoke>\n</function_calls>",
        list: &["<function_calls>", "</function_calls>", "<dots_function_call>", "</dots_function_call>"],
        calls: &["invoke", "tool_call", "function_call"],
        parameters: &["parameter", "param"],
        ..NONE
    },
    Dialect {
        families: "DeepSeek V3.2 to V4.1 (DSML)",
        example: "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"read_file\">\n<｜DSML｜parameter name=\"path\" string=\"true\">a.py</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        list: &["<function_calls>", "</function_calls>", "<tool_calls>", "</tool_calls>"],
        calls: &["invoke"],
        parameters: &["parameter"],
        ..NONE
    },
    Dialect {
        families: "DeepSeek R1, V3 and V3.1; Step 3",
        example: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>read_file<｜tool▁sep｜>{\"path\": \"a.py\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        open: &["<|tool_call_begin|>", "<|function_call_begin|>"],
        list: &[
            "<|tool_calls_begin|>",
            "<|tool_calls_end|>",
            "<|function_calls_begin|>",
            "<|function_calls_end|>",
        ],
        between: &["<|tool_sep|>", "<|tool_call_sep|>"],
        close: &["<|tool_call_end|>", "<|function_call_end|>"],
        ..NONE
    },
    Dialect {
        families: "Kimi K2 and K3",
        example: "<|tool_calls_section_begin|><|tool_call_begin|>functions.read_file:0<|tool_call_argument_begin|>{\"path\": \"a.py\"}<|tool_call_end|><|tool_calls_section_end|>",
        open: &["<|tool_call_begin|>"],
        list: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
        between: &["<|tool_call_argument_begin|>"],
        close: &["<|tool_call_end|>"],
        ..NONE
    },
    Dialect {
        families: "GLM 4.5 to 5",
        example: "<tool_call>read_file\n<arg_key>path</arg_key>\n<arg_value>a.py</arg_value>\n</tool_call>",
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        pairs: &[("arg_key", "arg_value")],
        ..NONE
    },
    Dialect {
        families: "Hunyuan V3 and V4",
        example: "<tool_calls:opensource>\n<tool_call:opensource>read_file<tool_sep:opensource>\n<arg_key:opensource>path</arg_key:opensource>\n<arg_value:opensource>a.py</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>",
        between: &["<tool_sep>"],
        ..NONE
    },
    Dialect {
        families: "Solar Open 2",
        example: "<|tool_call:start|>read_file\n<|tool_arg:start|>path<|tool_arg:value|>a.py<|tool_arg:end|>\n<|tool_call:end|>",
        open: &["<|tool_call:start|>"],
        close: &["<|tool_call:end|>"],
        fields: &[("<|tool_arg:start|>", "<|tool_arg:value|>", "<|tool_arg:end|>")],
        ..NONE
    },
    Dialect {
        families: "Kimi K3: `<|open|>call …<|sep|>` is read as `<call …>`",
        example: "<|open|>tools<|sep|><|open|>call tool=\"read_file\" index=\"1\"<|sep|><|open|>argument key=\"path\" type=\"string\"<|sep|>a.py<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
        calls: &["call"],
        parameters: &["argument"],
        ..NONE
    },
    Dialect {
        families: "LongCat",
        example: "<longcat_tool_call>read_file\n<longcat_arg_key>path</longcat_arg_key>\n<longcat_arg_value>a.py</longcat_arg_value>\n</longcat_tool_call>",
        open: &["<longcat_tool_call>"],
        close: &["</longcat_tool_call>"],
        pairs: &[("longcat_arg_key", "longcat_arg_value")],
        ..NONE
    },
    Dialect {
        families: "gpt-oss (harmony): the header is read by `harmony.rs`",
        example: "<|channel|>commentary to=functions.read_file <|constrain|>json<|message|>{\"path\": \"a.py\"}<|call|>",
        close: &["<|call|>"],
        ..NONE
    },
    Dialect {
        families: "Gemma 4",
        example: "<|tool_call>call:read_file{path:<|\"|>a.py<|\"|>}<tool_call|>",
        open: &["<|tool_call>"],
        close: &["<tool_call|>"],
        ..NONE
    },
    Dialect {
        families: "FunctionGemma",
        example: "<start_function_call>call:read_file{path:<escape>a.py<escape>}<end_function_call>",
        open: &["<start_function_call>"],
        close: &["<end_function_call>"],
        ..NONE
    },
    Dialect {
        families: "Llama 3",
        example: "<|python_tag|>{\"name\": \"read_file\", \"parameters\": {\"path\": \"a.py\"}}",
        open: &["<|python_tag|>"],
        ..NONE
    },
    Dialect {
        families: "Llama 4",
        example: "<|python_start|>[read_file(path=\"a.py\")]<|python_end|>",
        open: &["<|python_start|>"],
        close: &["<|python_end|>"],
        ..NONE
    },
    Dialect {
        families: "LFM2",
        example: "<|tool_call_start|>[read_file(path=\"a.py\")]<|tool_call_end|>",
        open: &["<|tool_call_start|>"],
        close: &["<|tool_call_end|>"],
        ..NONE
    },
    Dialect {
        families: "OLMo 3",
        example: "<function_calls>\nread_file(path=\"a.py\")\n</function_calls>",
        list: &["<function_calls>", "</function_calls>"],
        ..NONE
    },
    Dialect {
        families: "Mistral, old",
        example: "[TOOL_CALLS][{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}]",
        open: &["[TOOL_CALLS]"],
        close: &["[/TOOL_CALLS]"],
        ..NONE
    },
    Dialect {
        families: "Mistral, since 2025",
        example: "[TOOL_CALLS]read_file[CALL_ID]a1B2c3D4e[ARGS]{\"path\": \"a.py\"}",
        open: &["[TOOL_CALLS]"],
        between: &["[CALL_ID]", "[ARGS]"],
        ..NONE
    },
    Dialect {
        families: "LM Studio's fallback",
        example: "[TOOL_REQUEST]{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}[END_TOOL_REQUEST]",
        open: &["[TOOL_REQUEST]"],
        close: &["[END_TOOL_REQUEST]"],
        ..NONE
    },
    Dialect {
        families: "Granite 3, Phi-4-mini, GigaChat 3",
        example: "<|tool_call|>[{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}]<|/tool_call|>",
        open: &["<|tool_call|>", "<|function_call|>"],
        close: &["<|/tool_call|>"],
        ..NONE
    },
    Dialect {
        families: "Command-R, Command-A",
        example: "<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"read_file\", \"parameters\": {\"path\": \"a.py\"}}]<|END_ACTION|>",
        open: &["<|start_action|>"],
        close: &["<|end_action|>"],
        ..NONE
    },
    Dialect {
        families: "Apertus",
        example: "<|tools_prefix|>[{\"read_file\": {\"path\": \"a.py\"}}]<|tools_suffix|>",
        open: &["<|tools_prefix|>"],
        close: &["<|tools_suffix|>"],
        ..NONE
    },
    Dialect {
        families: "InternLM 2",
        example: "<|action_start|><|plugin|>{\"name\": \"read_file\", \"parameters\": {\"path\": \"a.py\"}}<|action_end|>",
        open: &["<|action_start|>"],
        between: &["<|plugin|>"],
        close: &["<|action_end|>"],
        ..NONE
    },
    Dialect {
        families: "PLaMo 3",
        example: "<|plamo:begin_tool_requests:plamo|><|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>read_file<|plamo:end_tool_name:plamo|><|plamo:begin_tool_arguments:plamo|><|plamo:msg|>{\"path\": \"a.py\"}<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|><|plamo:end_tool_requests:plamo|>",
        open: &["<|plamo:begin_tool_request:plamo|>"],
        list: &["<|plamo:begin_tool_requests:plamo|>", "<|plamo:end_tool_requests:plamo|>"],
        between: &[
            "<|plamo:begin_tool_name:plamo|>",
            "<|plamo:end_tool_name:plamo|>",
            "<|plamo:begin_tool_arguments:plamo|>",
            "<|plamo:constrain|>",
            "<|plamo:msg|>",
        ],
        close: &["<|plamo:end_tool_request:plamo|>", "<|plamo:end_tool_arguments:plamo|>"],
        ..NONE
    },
    Dialect {
        families: "openPangu",
        example: "[unused11][{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}][unused12]",
        open: &["[unused11]"],
        close: &["[unused12]"],
        ..NONE
    },
    Dialect {
        families: "Inkling",
        example: "<|message_model|>read_file<|content_invoke_tool_json|>{\"name\": \"read_file\", \"args\": {\"path\": \"a.py\"}}<|end_message|>",
        open: &["<|content_invoke_tool_json|>"],
        close: &["<|end_message|>"],
        ..NONE
    },
    Dialect {
        families: "Qwen-Agent",
        example: "✿FUNCTION✿: read_file\n✿ARGS✿: {\"path\": \"a.py\"}",
        open: &["✿FUNCTION✿"],
        between: &["✿ARGS✿"],
        ..NONE
    },
    Dialect {
        families: "Phi-4-mini without its tokens",
        example: "functools[{\"name\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}]",
        open: &["functools"],
        ..NONE
    },
];

/// How model families mark thinking.
pub(crate) struct Thought {
    /// The families that use it.
    #[allow(dead_code, reason = "for readers and tests")]
    pub(crate) families: &'static str,
    /// Tags that open a block.
    pub(crate) open: &'static [&'static str],
    /// Tags that close a block. If the answer did not open a block, such a tag closes the block
    /// that the chat template opened, unless the tag is part of the prose.
    pub(crate) close: &'static [&'static str],
    /// Whether an opening tag at the start of a line inside a block opens a nested block.
    pub(crate) nests: bool,
    /// A word that may follow the opening tag and is read as part of that tag, not of the thinking.
    pub(crate) label: &'static str,
}

const PLAIN: Thought = Thought { families: "", open: &[], close: &[], nests: false, label: "" };

/// Index of harmony's analysis channel in [`THOUGHTS`]. `harmony.rs` reads its header.
pub(crate) const ANALYSIS: usize = 0;
/// Tokens that end the analysis channel.
pub(crate) const ANALYSIS_END: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>"];
/// Index in [`THOUGHTS`] of the block that chat templates open.
pub(crate) const IMPLIED: usize = 1;

/// Index in [`THOUGHTS`] for tags that are not in any row but have a name that suggests thinking:
/// `<|think_start|>`, `<cot>`, `[THINKING]`. `tags.rs` pairs them by that name.
pub(crate) const UNKNOWN: usize = 2;

/// Words that occur in the names of thinking tags.
pub(crate) const THOUGHT_WORDS: [&str; 16] = [
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reason",
    "reasoning",
    "reflect",
    "reflection",
    "ponder",
    "pondering",
    "deliberation",
    "monologue",
    "scratch",
    "scratchpad",
    "cot",
    "internal",
];

/// Every kind of thinking block.
pub(crate) const THOUGHTS: &[Thought] = &[
    Thought {
        families: "gpt-oss: `<|channel|>analysis<|message|>`, up to the next header or the end",
        ..PLAIN
    },
    Thought {
        families: "DeepSeek, Qwen, GLM, MiniMax, Seed-OSS, Phi-4-reasoning, EXAONE, SmolLM3 and most others",
        open: &[
            "<think>",
            "<thinking>",
            "<thought>",
            "<thoughts>",
            "<reasoning>",
            "<reason>",
            "<think_fast>",
            "<|think|>",
        ],
        close: &[
            "</think>",
            "</thinking>",
            "</thought>",
            "</thoughts>",
            "</reasoning>",
            "</reason>",
            "</think_fast>",
            "<|/think|>",
        ],
        nests: true,
        ..PLAIN
    },
    Thought { families: "tags that are not in any row, paired by their names", ..PLAIN },
    Thought {
        families: "text whose markup was escaped",
        open: &["&lt;think&gt;", "&lt;thinking&gt;"],
        close: &["&lt;/think&gt;", "&lt;/thinking&gt;"],
        ..PLAIN
    },
    Thought {
        families: "Nous, Reflection",
        open: &["<reflection>"],
        close: &["</reflection>"],
        nests: true,
        ..PLAIN
    },
    Thought {
        families: "Hermes 3, prompts for Claude",
        open: &[
            "<scratch_pad>",
            "<scratchpad>",
            "<inner_monologue>",
            "<internal_monologue>",
            "<antthinking>",
            "<internal_thoughts>",
            "<thought_process>",
            "<analysis>",
            "<planning>",
            "<plan>",
        ],
        close: &[
            "</scratch_pad>",
            "</scratchpad>",
            "</inner_monologue>",
            "</internal_monologue>",
            "</antthinking>",
            "</internal_thoughts>",
            "</thought_process>",
            "</analysis>",
            "</planning>",
            "</plan>",
        ],
        nests: true,
        ..PLAIN
    },
    Thought {
        families: "LongCat",
        open: &["<longcat_think>"],
        close: &["</longcat_think>"],
        nests: true,
        ..PLAIN
    },
    Thought { families: "Magistral", open: &["[THINK]"], close: &["[/THINK]"], nests: true, ..PLAIN },
    Thought { families: "Kimi-VL", open: &["◁think▷"], close: &["◁/think▷"], nests: true, ..PLAIN },
    Thought {
        families: "Command-A Reasoning",
        open: &["<|start_thinking|>"],
        close: &["<|end_thinking|>"],
        ..PLAIN
    },
    Thought {
        families: "Sky-T1, OpenThinker",
        open: &["<|begin_of_thought|>"],
        close: &["<|end_of_thought|>"],
        ..PLAIN
    },
    Thought { families: "Gemma 4", open: &["<|channel>"], close: &["<channel|>"], label: "thought", ..PLAIN },
    Thought {
        families: "MedGemma",
        open: &["<unused94>"],
        close: &["<unused95>"],
        label: "thought",
        ..PLAIN
    },
    Thought { families: "Apertus", open: &["<|inner_prefix|>"], close: &["<|inner_suffix|>"], ..PLAIN },
    Thought {
        families: "PLaMo 3",
        open: &["<|plamo:begin_think:plamo|>"],
        close: &["<|plamo:end_think:plamo|>"],
        ..PLAIN
    },
    Thought { families: "openPangu", open: &["[unused16]"], close: &["[unused17]"], ..PLAIN },
    Thought { families: "Inkling", open: &["<|content_thinking|>"], close: &["<|end_message|>"], ..PLAIN },
    Thought {
        families: "Apriel",
        open: &["Here are my reasoning steps:"],
        close: &["[BEGIN FINAL RESPONSE]"],
        ..PLAIN
    },
    Thought {
        families: "Granite 3.2",
        open: &["Here is my thought process:", "Here's my thought process:"],
        close: &["Here is my response:", "Here's my response:"],
        ..PLAIN
    },
];

/// Tokens that begin a turn, structure its header, or begin or end a tool result.
pub(crate) const TURNS: &[(&str, Turn)] = &[
    ("<|user|>", Turn::Foreign),
    ("<|system|>", Turn::Foreign),
    ("<|observation|>", Turn::Foreign),
    ("<|im_user|>", Turn::Foreign),
    ("<|im_system|>", Turn::Foreign),
    ("[INST]", Turn::Foreign),
    ("[/INST]", Turn::Assistant),
    ("<|assistant|>", Turn::Assistant),
    ("<|im_assistant|>", Turn::Assistant),
    ("<|user_token|>", Turn::Foreign),
    ("<|system_token|>", Turn::Foreign),
    ("<|chatbot_token|>", Turn::Assistant),
    ("<|im_start|>", Turn::Role),
    ("<|header_start|>", Turn::Role),
    ("<|start_of_role|>", Turn::Role),
    ("]~b]", Turn::Role),
    ("<|start_header_id|>", Turn::Role),
    ("<|turn>", Turn::Role),
    ("<start_of_turn>", Turn::Role),
    ("<|start|>", Turn::Header),
    ("<|channel|>", Turn::Channel),
    ("<|constrain|>", Turn::Part),
    ("<|message|>", Turn::Message),
    ("<|tool_outputs_begin|>", Turn::Result),
    ("<|tool_output_begin|>", Turn::Result),
    ("<|tool_response|>", Turn::Result),
    ("<|tool_response>", Turn::Result),
    ("<|tool_result|>", Turn::Result),
    ("<start_function_response>", Turn::Result),
    ("<tool_response>", Turn::Result),
    ("<tool_result>", Turn::Result),
    ("<tool_results>", Turn::Result),
    ("<tool_output>", Turn::Result),
    ("<function_results>", Turn::Result),
    ("<function_response>", Turn::Result),
    ("[TOOL_RESULTS]", Turn::Result),
    ("<|start_tool_result|>", Turn::Result),
    ("<|tool_outputs_end|>", Turn::ResultEnd),
    ("<|tool_output_end|>", Turn::ResultEnd),
    ("<tool_response|>", Turn::ResultEnd),
    ("<end_function_response>", Turn::ResultEnd),
    ("</tool_response>", Turn::ResultEnd),
    ("</tool_result>", Turn::ResultEnd),
    ("</tool_results>", Turn::ResultEnd),
    ("</tool_output>", Turn::ResultEnd),
    ("</function_results>", Turn::ResultEnd),
    ("</function_response>", Turn::ResultEnd),
    ("[/TOOL_RESULTS]", Turn::ResultEnd),
    ("<|end_tool_result|>", Turn::ResultEnd),
];

/// The meaning of a token in [`TURNS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Begins a turn that is not the model's.
    Foreign,
    /// Begins the model's own turn.
    Assistant,
    /// Precedes the role, which is a plain word.
    Role,
    /// Begins a harmony header.
    Header,
    /// Precedes the channel in a harmony header.
    Channel,
    /// Separates two parts of a harmony header.
    Part,
    /// Ends a harmony header.
    Message,
    /// Begins a tool result.
    Result,
    ResultEnd,
}

/// Tokens that mean nothing to a reader.
pub(crate) const NOISE: &[&str] = &[
    "<|im_end|>",
    "<|im_middle|>",
    "<|end_of_sentence|>",
    "<|begin_of_sentence|>",
    "<|eot|>",
    "<|eot_id|>",
    "<|eom|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|end_header_id|>",
    "<|end_of_turn_token|>",
    "<|start_response|>",
    "<|end_response|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
    "<|assistant_end|>",
    "<|fim_begin|>",
    "<|fim_hole|>",
    "<|fim_end|>",
    "<|end_of_turn|>",
    "<|start_of_turn|>",
    "<|sep|>",
    "<|pad|>",
    "<turn|>",
    "<end_of_turn>",
    "</s>",
    "]<]minimax[>[",
    "]~!b[",
    "<|header_end|>",
    "<|end_of_role|>",
    "<|start_of_turn_token|>",
    "[END FINAL RESPONSE]",
    "<|end_of_msg|>",
    "<|content_text|>",
    "<|message_model|>",
    "[e~[",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{End, Event, Options, Parser, parse};

    #[test]
    fn the_example_of_each_row_is_a_call() {
        for dialect in DIALECTS {
            let options = Options { known_tools: Some(vec!["read_file".into()]), ..Options::default() };
            let verdict = parse(dialect.example.as_bytes(), End::Stop, options);
            let calls: Vec<_> =
                verdict.calls.iter().map(|c| (c.tool.as_str(), c.arguments.to_string())).collect();
            assert_eq!(calls, [("read_file", r#"{"path":"a.py"}"#.to_owned())], "{}", dialect.families);
        }
    }

    /// Returns every call syntax: the rows above and those that need no tokens.
    fn syntaxes() -> impl Iterator<Item = &'static str> {
        DIALECTS.iter().map(|dialect| dialect.example).chain([
            r#"{"tool": "read_file", "arguments": {"path": "a.py"}}"#,
            "```json\n{\"tool\": \"read_file\", \"arguments\": {\"path\": \"a.py\"}}\n```",
            r#"[{"name": "read_file", "arguments": {"path": "a.py"}}]"#,
            "read_file(path=\"a.py\")",
            "```tool_code\nread_file(path=\"a.py\")\n```",
            "Action: read_file\nAction Input: {\"path\": \"a.py\"}",
            "<read_file>\n<path>a.py</path>\n</read_file>",
            "call:read_file{path:a.py}",
            "functions.read_file:0{\"path\": \"a.py\"}",
        ])
    }

    /// Returns every pair of thinking tags, where the opening tag includes its label.
    fn marks() -> impl Iterator<Item = (String, &'static str)> {
        let tables = THOUGHTS.iter().flat_map(|thought| {
            let pairs = thought.open.iter().zip(thought.close);
            pairs.map(|(open, close)| (format!("{open}{}", thought.label), *close))
        });
        tables.chain([("<|channel|>analysis<|message|>".to_owned(), "<|end|>")])
    }

    fn events(text: &[u8], cut: usize) -> Vec<Event> {
        let options = Options { known_tools: Some(vec!["read_file".into()]), ..Options::default() };
        let (mut parser, mut events) = (Parser::new(options), Vec::new());
        parser.feed(&text[..cut], &mut events);
        parser.feed(&text[cut..], &mut events);
        parser.finish(End::Stop, &mut events);
        events
    }

    /// Tries every call syntax in every kind of thinking block, split into two chunks at every
    /// byte.
    #[test]
    fn no_syntax_is_a_call_inside_thinking() {
        for (open, close) in marks() {
            for syntax in syntaxes() {
                let text = format!("{open}\nI could send this:\n{syntax}\nbut no.\n{close}\nDone.");
                for cut in 0..text.len() {
                    let called = events(text.as_bytes(), cut)
                        .into_iter()
                        .find(|event| matches!(event, Event::CallOpened { .. } | Event::CallComplete(_)));
                    assert!(called.is_none(), "{text}\ncut at {cut}: {called:?}");
                }
            }
        }
    }

    /// The thinking block also contains a call, which must be ignored.
    #[test]
    fn only_the_call_after_thinking_counts() {
        for (open, close) in marks() {
            for syntax in syntaxes() {
                let json = r#"{"tool": "read_file", "arguments": {"path": "b.py"}}"#;
                let text = format!("{open}\n{syntax}\n{close}\n{json}");
                let events = events(text.as_bytes(), text.len());
                let calls: Vec<_> = events.iter().filter(|e| matches!(e, Event::CallComplete(_))).collect();
                let [Event::CallComplete(call)] = calls.as_slice() else { panic!("{text}: {calls:?}") };
                assert_eq!(call.arguments["path"], "b.py", "{text}");
            }
        }
    }
}
