//! What comes out of the parser: events, calls, repairs, and why something is not a call.

use std::fmt;

use serde_json::Value;

/// Limits and hints. The default is what an agent wants: everything understood, nothing assumed about the tools.
#[derive(Debug, Clone)]
pub struct Options {
    /// Containers inside one another, at most; deeper is [`Malformed::TooDeep`].
    pub max_depth: usize,
    /// Bytes of one call, at most; longer is [`Malformed::TooLong`].
    pub max_call_bytes: usize,
    /// The tools there are. Decides whether `{"name": "x", …}` or `{"x": {…}}` is a call or data. An unknown tool
    /// under the explicit key `"tool"` is a call all the same, so that it can be refused with the right names.
    pub known_tools: Option<Vec<String>>,
    /// A fenced block that holds no call is the whole text of a file: see the crate's documentation.
    pub whole_file: bool,
    /// With `whole_file`: a block labelled as shell is a file too, for a script was asked for. Otherwise it is a command to look at.
    pub scripts: bool,
    /// The chat template has already opened the think block, so the stream begins inside it.
    pub starts_thinking: bool,
    /// Tools whose arguments' texts are reported while they are written, as [`Event::FieldText`]. Others cost nothing.
    pub followed: Vec<String>,
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
        }
    }
}

/// How the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model stopped by itself.
    Stop,
    /// The token limit cut the answer.
    Length,
    /// We cut the stream, or the connection broke.
    Cut,
}

/// What the parser has seen. The sequence does not depend on how the bytes were cut into chunks, except that a
/// [`Text`](Event::Text), [`Thinking`](Event::Thinking) or [`FieldText`](Event::FieldText) may come in several pieces.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Prose to show: without calls, the fences around them, think blocks and tool tokens.
    Text(String),
    /// What stood in a think block.
    Thinking(String),
    /// A think block was closed that had never been opened: everything before byte `at` was reasoning. Text shown so
    /// far was thinking, and a call completed so far was not meant. [`Options::starts_thinking`] avoids the surprise.
    OrphanThink {
        /// Offset of the closing tag.
        at: usize,
    },
    /// A tool is being called; the object is still open. Always before the call's fields and its completion.
    CallOpened {
        /// Number of the call in the stream, from 0.
        call: usize,
        /// The tool's name as the model wrote it.
        tool: String,
    },
    /// More of a text in the arguments of a [followed](Options::followed) tool, at whole lines while it is being written. A text that has been
    /// reported in part and is not reported as closed came out otherwise in the end: only the complete value counts then.
    FieldText {
        /// Number of the call.
        call: usize,
        /// Where it stands: the argument's name, and below it keys and positions, as `edits/0/search`.
        path: String,
        /// What has come since the last time.
        text: String,
        /// It is complete.
        closed: bool,
    },
    /// One argument is complete. A key given twice closes twice: the last one counts.
    FieldClosed {
        /// Number of the call.
        call: usize,
        /// Name of the argument.
        name: String,
        /// Its value.
        value: Value,
    },
    /// The call is complete: emitted by the `feed` that brought its last byte.
    CallComplete(Call),
    /// A call had begun and cannot be had.
    Malformed {
        /// What is wrong, as a sentence for the model.
        why: Malformed,
        /// Offset in the stream where it became certain.
        at: usize,
    },
}

/// A complete call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Number of the call in the stream, from 0. Numbers of calls that were opened and failed are not used again.
    pub call: usize,
    /// The tool's name as the model wrote it.
    pub tool: String,
    /// The arguments: an object, unless the model gave something else under `"arguments"`.
    pub arguments: Value,
    /// Offset of the call's first byte in the stream: its opening brace, or the tag or token that names the tool.
    pub start: usize,
    /// Offset just past the closing brace, or past the closing tag where there is no brace.
    pub end: usize,
    /// What had to be mended to read it. Empty for valid JSON, whatever stood around it.
    pub repairs: Vec<Repair>,
    /// Announced by a token or tag of a model family, or written as such. Plain JSON is not.
    pub native: bool,
}

impl Call {
    /// True if the bytes were not valid as they stood.
    #[must_use]
    pub fn repaired(&self) -> bool {
        !self.repairs.is_empty()
    }

    /// True if there is only one sensible reading: such a call may write, any other may only read.
    #[must_use]
    pub fn unambiguous(&self) -> bool {
        self.repairs.iter().all(|r| r.unambiguous())
    }
}

/// One kind of mending. A call lists each kind once.
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
    /// An escape that JSON does not have: it keeps its backslash, so `\d` is `\d`; only `\'` is `'`.
    InvalidEscape,
    /// An invalid escape in a string that also has `\b` or `\f`: a pattern that was escaped by halves.
    MixedEscapes,
    /// Half of a surrogate pair: read as U+FFFD.
    LoneSurrogate,
    /// Bytes that are not UTF-8: read as U+FFFD.
    InvalidUtf8,
    /// A quote inside a string without its backslash, told apart by what follows it.
    InnerQuote,
    /// A NUL, a byte order mark or an odd space between tokens.
    StrayByte,
    /// A tag of a value that never came, or the closing tag of a call at the end of an answer the model
    /// ended itself.
    MissingCloser,
    /// A closing brace is missing before the tag that closes the call.
    MissingBrace,
    /// `{{…}}` instead of `{…}`.
    DoubledBraces,
    /// The same, and a text holds braces, which may be doubled or not.
    BracesInText,
    /// A control token glued to the tool's name.
    GluedToken,
}

impl Repair {
    /// True if there is only one sensible reading of what was mended.
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

/// Why a call that had begun is none. `Display` is a sentence the model can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// The stream ended inside a string of the call.
    TruncatedInString,
    /// The stream ended before the call was complete.
    Truncated,
    /// The stream ended before the closing fence of a whole file.
    TruncatedFile,
    /// Something that is not JSON where a call had begun.
    NotJson,
    /// An expression, such as two strings with a plus sign between them, where one value must stand.
    Expression,
    /// An argument without its name in a call written as Python.
    Positional,
    /// Nested deeper than [`Options::max_depth`].
    TooDeep,
    /// Longer than [`Options::max_call_bytes`].
    TooLong,
    /// The name of the tool is not a name.
    BadName,
    /// Something announced a call, but the object names no tool.
    NoName,
    /// Two different tools in one object.
    TwoNames,
    /// A result stands beside the arguments: the object tells of a call that was made.
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
                "The tool call has an expression where a value must stand, so nothing was done: send each argument as \
                 one literal value."
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
                "The object tells of a call and its result, so nothing was done: send the tool's name and its \
                 arguments alone, and wait for the result."
            }
            Malformed::TwoNames => "The tool call names two different tools: send one object for each call.",
        })
    }
}
