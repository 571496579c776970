//! The parser's output: events, calls, repairs, and the reasons why a call is malformed.

use std::fmt;

use serde_json::Value;

/// The options for a parser: limits and hints. By default, the parser understands every dialect and
/// assumes nothing about the tools.
#[derive(Debug, Clone)]
pub struct Options {
    /// The maximum nesting depth of containers. A call that is nested more deeply is reported as
    /// [`Malformed::TooDeep`].
    pub max_depth: usize,
    /// The maximum size of one call, in bytes. A longer call is reported as [`Malformed::TooLong`].
    pub max_call_bytes: usize,
    /// The tools that exist. This list determines whether `{"name": "x", …}` or `{"x": {…}}` is a
    /// call or just data. An object that names an unknown tool under the explicit `"tool"` key is
    /// still a call if it has arguments, so that the caller can refuse it and list the right names.
    pub known_tools: Option<Vec<String>>,
    /// Whether to treat a fenced block without a call as the full text of a file. See the crate
    /// documentation.
    pub whole_file: bool,
    /// With `whole_file`, whether to treat a block with a shell label as a file, too. Set this if
    /// the task asks for a script. Otherwise, such a block is assumed to be a command for the
    /// reader to run.
    pub scripts: bool,
    /// Whether the chat template has already opened a thinking block, so that the stream begins
    /// inside it.
    pub starts_thinking: bool,
    /// Tools whose text arguments are reported, as [`Event::FieldText`], while the model is still
    /// writing them.
    pub followed: Vec<String>,
    /// The tool that receives a file or a patch that the model did not write as a JSON call.
    pub text_tool: TextTool,
}

/// The tool that receives files written in fences, and patches written as the body of a message
/// instead of JSON.
#[derive(Debug, Clone)]
pub struct TextTool {
    /// The tool's name.
    pub tool: String,
    /// The argument that holds a file's path.
    pub path: String,
    /// The argument that holds a file's content.
    pub content: String,
    /// The argument that holds a patch; empty if the tool does not take one.
    pub patch: String,
}

impl TextTool {
    pub(crate) fn takes_patch(&self, tool: &str) -> bool {
        self.tool == tool && !self.patch.is_empty()
    }
}

impl Default for TextTool {
    fn default() -> Self {
        let [tool, path, content, patch] = ["apply_patch", "path", "content", "patch"].map(str::to_owned);
        TextTool { tool, path, content, patch }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_depth: 128,
            max_call_bytes: 16 << 20,
            known_tools: None,
            whole_file: false,
            scripts: false,
            starts_thinking: false,
            followed: Vec::new(),
            text_tool: TextTool::default(),
        }
    }
}

/// How the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model stopped on its own.
    Stop,
    /// The token limit cut the answer off.
    Length,
    /// The caller closed the stream, or the connection was lost.
    Cut,
}

/// An event that the parser emits. The sequence of events does not depend on how the bytes were
/// chunked, except that [`Text`](Event::Text), [`Thinking`](Event::Thinking) and
/// [`FieldText`](Event::FieldText) may arrive in several pieces.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Prose to display. Calls, the fences around calls, thinking blocks and tool tokens are left
    /// out.
    Text(String),
    /// The content of a thinking block.
    Thinking(String),
    /// A closing thinking tag without an opening one: everything before byte `at` was thinking,
    /// including all text emitted so far. Calls completed so far must be ignored. Set
    /// [`Options::starts_thinking`] to avoid this.
    OrphanThink {
        /// Offset of the closing tag.
        at: usize,
    },
    /// A tool is being called, but the object is still open. Precedes the call's other events.
    CallOpened {
        /// The 0-based index of the call in the stream.
        call: usize,
        /// The tool's name as the model wrote it.
        tool: String,
    },
    /// A new piece of a string in the arguments of a [followed](Options::followed) tool. Until the
    /// string is complete, each piece consists of whole lines. If the call completes but no piece
    /// of the string was marked `closed`, the final string differs from the reported pieces, so use
    /// the complete value instead.
    FieldText {
        /// Index of the call.
        call: usize,
        /// Path of the string: the argument's name, followed by keys and indices, as in
        /// `edits/0/search`.
        path: String,
        /// The text added since the last event for this path.
        text: String,
        /// Whether the string is complete.
        closed: bool,
    },
    /// One argument is complete. A duplicate key is reported each time it occurs, and the last
    /// value wins.
    FieldClosed {
        /// Index of the call.
        call: usize,
        /// Name of the argument.
        name: String,
        /// Its value.
        value: Value,
    },
    /// The call is complete. Emitted by the call to `feed` that received its last byte.
    CallComplete(Call),
    /// A call began but cannot be read.
    Malformed {
        /// What is wrong, as a sentence for the model.
        why: Malformed,
        /// Offset in the stream where the error became certain.
        at: usize,
    },
}

/// A complete call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The 0-based index of the call in the stream. The index of a call that failed is not reused.
    pub call: usize,
    /// The tool's name as the model wrote it.
    pub tool: String,
    /// The arguments: an object, unless the model wrote something else under `"arguments"`.
    pub arguments: Value,
    /// Offset of the call's first byte: its opening brace, or the tag or token that names the tool.
    pub start: usize,
    /// Offset just past the closing brace, or past the closing tag if there is no brace.
    pub end: usize,
    /// The repairs that were necessary. Empty if the call itself was valid JSON.
    pub repairs: Vec<Repair>,
    /// Whether the call used the tokens or tags of a model family, or was announced by them.
    pub native: bool,
}

impl Call {
    /// Returns true if the bytes of the call were not valid as written.
    #[must_use]
    pub fn repaired(&self) -> bool {
        !self.repairs.is_empty()
    }

    /// Returns true if the call has only one sensible interpretation. Run an ambiguous call only if
    /// it does not change anything.
    #[must_use]
    pub fn unambiguous(&self) -> bool {
        self.repairs.iter().all(|r| r.unambiguous())
    }
}

/// One kind of repair. A call lists each kind once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// A raw newline, tab or other control character inside a string.
    ControlCharacter,
    /// A comma before a closing bracket.
    TrailingComma,
    /// A comma missing between two lines.
    MissingComma,
    /// `'…'` instead of `"…"`.
    SingleQuotes,
    /// Typographic quotes as delimiters.
    SmartQuotes,
    /// Python's `"""…"""` or `'''…'''`.
    TripleQuotes,
    /// `` `…` `` instead of `"…"`.
    BacktickQuotes,
    /// A key without quotes.
    UnquotedKey,
    /// A string value without quotes.
    UnquotedValue,
    /// `True`, `False`, `None`.
    PythonLiteral,
    /// `+1`, `.5`, `1.`
    NumberFormat,
    /// A comment between tokens.
    Comment,
    /// An escape that JSON does not have. `\d` keeps its backslash; only `\'` becomes `'`.
    InvalidEscape,
    /// An invalid escape in a string that also has `\b` or `\f`: probably a half-escaped pattern.
    MixedEscapes,
    /// Half of a surrogate pair, read as U+FFFD.
    LoneSurrogate,
    /// Bytes that are not UTF-8, read as U+FFFD.
    InvalidUtf8,
    /// An unescaped quote inside a string, detected from the text after it.
    InnerQuote,
    /// A NUL, a byte order mark or a non-ASCII space between tokens.
    StrayByte,
    /// A missing tag before or after a key or value, a call's missing closing tag, or several
    /// missing closing brackets before the tag that closes the call.
    MissingCloser,
    /// A missing closing brace before the tag that closes the call.
    MissingBrace,
    /// `{{…}}` instead of `{…}`.
    DoubledBraces,
    /// Same as [`DoubledBraces`](Repair::DoubledBraces), but a string in the object also contains
    /// braces, and it is unclear whether the model doubled them.
    BracesInText,
    /// A control token attached to the tool's name.
    GluedToken,
}

impl Repair {
    /// Returns true if the repaired bytes have only one sensible interpretation.
    #[must_use]
    pub fn unambiguous(self) -> bool {
        use Repair::*;
        match self {
            ControlCharacter | TrailingComma | SingleQuotes | SmartQuotes | TripleQuotes | UnquotedKey
            | PythonLiteral | NumberFormat | Comment | InvalidEscape | StrayByte | MissingBrace
            | DoubledBraces | GluedToken => true,
            MissingComma | BacktickQuotes | UnquotedValue | MixedEscapes | LoneSurrogate | InvalidUtf8
            | InnerQuote | MissingCloser | BracesInText => false,
        }
    }
}

/// Why a call is malformed. The `Display` text is a sentence that the model can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// The stream ended inside a string of the call.
    TruncatedInString,
    /// The stream ended before the call was complete.
    Truncated,
    /// The stream ended before the closing fence of a whole file.
    TruncatedFile,
    /// The object or arguments are not valid JSON.
    NotJson,
    /// An expression where a value is required, such as two strings joined by a plus sign.
    Expression,
    /// An argument without a name in a Python call.
    Positional,
    /// The call is nested deeper than [`Options::max_depth`].
    TooDeep,
    /// The call is longer than [`Options::max_call_bytes`].
    TooLong,
    /// The value of `"tool"` cannot be a tool name.
    BadName,
    /// A token or tag announced a call, but the object does not name a tool.
    NoName,
    /// One object names two different tools.
    TwoNames,
    /// A result appears next to the arguments, so the object describes a call that was already
    /// made.
    Record,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::TruncatedInString => {
                "The answer ended inside a string of the tool call, so nothing was done: send the whole call again, \
                 in smaller pieces if it is long."
            }
            Malformed::Truncated => {
                "The answer ended before the tool call was complete, so nothing was done: send the whole call again, \
                 with every bracket closed."
            }
            Malformed::TruncatedFile => {
                "The answer ended before the closing fence of the file, so nothing was written: send the whole file \
                 again."
            }
            Malformed::NotJson => {
                "The tool call is not valid JSON: send one object with every key and string in double quotes, and \
                 with quotes inside a string escaped as \\\"."
            }
            Malformed::Expression => {
                "The tool call has an expression where a value is required, so nothing was done: send each argument \
                 as one literal value."
            }
            Malformed::Positional => {
                "The tool call has an argument without its name, so nothing was done: name every argument."
            }
            Malformed::TooDeep => "The tool call is nested too deeply: send flat arguments.",
            Malformed::TooLong => "The tool call is too long: split the work into several smaller calls.",
            Malformed::BadName => {
                "The value of \"tool\" is not the name of a tool: give one name from the list, as a plain string."
            }
            Malformed::NoName => {
                "The object names no tool: send {\"tool\": NAME, \"arguments\": {…}} with a name from the list."
            }
            Malformed::Record => {
                "The object describes a call together with its result, so nothing was done: send only the tool's \
                 name and its arguments, and wait for the result."
            }
            Malformed::TwoNames => "The tool call names two different tools: send one object for each call.",
        })
    }
}
