//! Finds tool calls in a model's output as it streams.
//!
//! A model answers with JSON objects, one per step: `{"tool": "read_file", "arguments": {"path":
//! "src/lib.rs"}}`. This crate finds them in the stream and reports each fact as soon as it is
//! certain: the tool's name while the object is still open, each argument when its value ends, and
//! the call itself at its closing brace. It does not run tools, access files or read the clock.
//!
//! ```
//! use tool_stream::{End, Event, Options, Parser};
//!
//! let mut parser = Parser::new(Options::default());
//! let mut events = Vec::new();
//! parser.feed(br#"Let me look. {"tool": "read_file", "argum"#, &mut events);
//! parser.feed(br#"ents": {"path": "src/lib.rs"}}"#, &mut events);
//! let Some(Event::CallComplete(call)) = events.last() else { panic!("no call") };
//! assert_eq!((call.tool.as_str(), call.start), ("read_file", 13));
//! parser.finish(End::Stop, &mut events);
//! ```
//!
//! # The protocol
//!
//! `fixtures/streams` contains an example of every rule that an example can illustrate. The
//! remaining rules are tested in `tests/properties.rs` and in `dialects.rs`.
//!
//! **What counts as a call.** An object with a `"tool"` key, or one of the wrappers that other
//! model families use: `name` with `arguments` or `parameters`, `function`, `function_call`,
//! `tool_calls`, `action` with `action_input`, and MCP's `tools/call` (the full table is in
//! `shape.rs`). Several calls may appear in a row, with or without an array around them. An object
//! whose `"tool"` is unknown is still a call if it has arguments, so that the caller can refuse it;
//! without arguments, it is data.
//!
//! **Dialects.** `dialects.rs` has one row per call syntax, with its tokens and an example call.
//! After an opening token, arguments are accepted in any form, because models mix the forms: JSON,
//! elements with text values, key-value pairs, or Python calls. Some forms need no token: ReAct's
//! `Action:` lines, an element named after a known tool (Cline), a Python call that makes up the
//! whole answer or is in a `tool_code` fence, and the name of a known tool right before an object,
//! which is all that remains when the server strips the tokens.
//!
//! **What may surround a call.** Prose, Markdown fences, a byte order mark, end tokens.
//!
//! **What is never a call.**
//!
//! - Anything in a thinking block (see below), a string, another object, or inline code.
//! - Anything in code, in a quoted line, or after a quote, a bracket or an equals sign in prose.
//! - An object that a sentence introduces as an example (`prose.rs` decides this from the words
//!   before the object).
//! - An object in the middle of a sentence that does not announce a call, if more text follows.
//! - An object in a table row, list item, footnote or log line, or next to a result or a timestamp.
//! - Anything in a turn or tool result that the model invented. If the answer already contains a
//!   call, nothing after the invented part is a call, either.
//! - An object directly after an unknown token, that is, one that is not in any table of
//!   `dialects.rs`.
//! - An echoed schema or result, and an object that was cut off.
//!
//! **Thinking.** `dialects.rs` lists the thinking tags of all families. Nothing between them is a
//! call, with one exception, which `thoughts.rs` explains: calls in a family's own tokens at the
//! very end of the thinking, if nothing follows it. A closing tag without an opening tag turns
//! everything before it into thinking ([`Event::OrphanThink`]).
//!
//! **Repairs.** [`Repair`] lists every kind of repair, and [`Repair::unambiguous`] returns whether
//! a repair leaves only one sensible interpretation. Valid JSON is never reinterpreted. A missing
//! backslash before a quote inside a string is detected from the text after the quote (`quote.rs`).
//! If two interpretations make sense, the call is refused.
//!
//! **Truncated calls** are reported as [`Event::Malformed`], regardless of where they were cut off
//! and how the stream ended: the parser never completes a call by guessing. There is one exception,
//! in dialects that write calls as tags: the call's closing tag may be missing at the end of an
//! answer that the model ended on its own ([`Repair::MissingCloser`], ambiguous). A tag must still
//! mark the end of each value.
//!
//! **After a malformed call**, the parser cannot know whether it is still inside one of the call's
//! strings. From then on, it accepts a call only if the call begins in the first column, or after
//! the closing tag or token of the malformed call.
//!
//! **Spans.** A call starts at its opening brace, or at the tag or token that names its tool, and
//! ends just past its closing brace, or past the closing tag if it has no brace. In a list, each
//! call has its own span.
//!
//! **Early events** are never contradicted by later ones: an opened call either completes, with the
//! same name and with the reported fields as arguments, or is malformed. The one exception is
//! [`Event::OrphanThink`]. A call to a known tool opens at the first key of its arguments, and a
//! call to an unknown tool opens at the start of its arguments. A string argument that looks like a
//! name, a path or a number closes at the first quote that may end it. Any other string argument
//! closes only once the text after the quote proves that the quote ended the string.
//!
//! # Whole files
//!
//! With [`Options::whole_file`], a fence without a call becomes a call to [`Options::text_tool`]
//! with the file's content and, if known, its path. The path comes from the fence's info string
//! (```` ```python src/a.py ````, `title="src/a.py"`) or from the line before the fence, if that
//! line contains nothing but a path. The file ends at a line that contains only a fence of the same
//! kind; a labeled fence inside the file opens a nested one. An empty fence is text, and so is a
//! shell or diff fence without a path. A file without a closing fence is treated as truncated.
//!
//! # Cost
//!
//! The running time is linear in the number of bytes, regardless of their content and of how they
//! are chunked. The only bytes scanned twice are the few bytes after a quote, the first few hundred
//! bytes of a tag or fence line, and a bounded amount of text that looked like the start of an
//! object. The parser keeps in memory the open call (at most [`Options::max_call_bytes`]), its
//! values, and at most a few MiB of thinking and text that may still turn out to contain a call.
//! `benches/throughput.rs` measures the time.
//!
//! # Layers
//!
//! `parser.rs` splits the stream into regions, with `tokens.rs` for tags, `braces.rs` for objects,
//! `turns.rs` for turns and `blocks.rs` for Markdown. `dialects.rs` defines the tokens, and
//! `tags.rs` recognizes them in every spelling. `thoughts.rs` reads thinking blocks. `head.rs`
//! reads the text between an opening token and the arguments, and `harmony.rs` reads the headers of
//! gpt-oss. `markup.rs` and `nested.rs` read arguments written as elements, and `python.rs` reads
//! Python calls. `object.rs` turns objects into calls: `json.rs`, `literal.rs`, `quote.rs` and
//! `text.rs` read the objects, and `shape.rs` recognizes which of them are calls. `whole_file.rs`
//! reads files, and `verdict.rs` parses a whole answer at once. [`control_tokens`] changes text
//! that is shown to a model so that nothing in it acts as a control token.

mod blocks;
mod braces;
pub mod control_tokens;
mod dialects;
mod event;
mod fence;
mod follow;
mod harmony;
mod head;
mod json;
mod literal;
mod markup;
mod nested;
mod object;
mod parser;
mod prose;
mod python;
mod quote;
mod shape;
mod tags;
mod text;
mod thoughts;
mod tokens;
mod turns;
mod verdict;
mod whole_file;
mod window;

pub use event::{Call, End, Event, Malformed, Options, Repair, TextTool};
pub use parser::Parser;
pub use thoughts::calls_at_end;
pub use verdict::{Status, Verdict, VerdictCall, parse, verdict};
